"""A hub for real: accounts of the system, proxy, servers and kernels on the loopback address. Needs root.

One class of two students serves most tests; the class of eight, who run all of chapter 02 at once, belongs to the long
tests.
"""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks import classroom as room
from benchmarks.classroom import CHAPTER, classroom, lesson, processes, run_chapter, wait_for

MISSING = room.what_is_missing()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=f"a class of students {MISSING}")
SECRET = "the answer is 42"
PORT = [  # the port of the next server, where a test says which
    "port = OWN_SETTINGS.parent / 'port'",
    "set_port = lambda spawner: setattr(spawner, 'port', int(port.read_text()) if port.exists() else 0)",
    "c.Spawner.pre_spawn_hook = set_port",
]


@pytest.fixture(scope="module")
def class_():
    """A hub and two students, logged in, each with a server."""
    with classroom(2, PORT) as (hub, students):
        for student in students:
            assert student.log_in()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda student: student.start_server(), students))
        yield hub, students


@pytest.fixture(scope="module")
def program(root):
    """`deploy/install.py` as a module."""
    spec = importlib.util.spec_from_file_location("install", root / "deploy" / "install.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def ada(class_):
    return class_[1][0]


@pytest.fixture
def ben(class_):
    return class_[1][1]


@contextmanager
def kernel_of(student):
    """A kernel for a while."""
    kernel = student.kernel()
    yield kernel
    student.api("DELETE", f"kernels/{kernel.identity}")


@pytest.fixture
def adas_kernel(ada):
    with kernel_of(ada) as kernel:
        yield kernel


def note(text):
    """A notebook with one cell."""
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "source": text, "outputs": [], "execution_count": None}
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [cell]}


def saved(student, name):
    """The first cell of a notebook as it lies on the disk."""
    answer = student.account.run("import sys; print(open(sys.argv[1]).read())", student.account.copies / name)
    assert answer.returncode == 0, answer.stderr
    return "".join(json.loads(answer.stdout)["cells"][0]["source"])


def test_students_run_chapter_02_to_its_first_figure_at_once(class_):
    def first_figure(student):
        with kernel_of(student) as kernel:
            return run_chapter(kernel, student.read(CHAPTER), until_figure=True)

    with ThreadPoolExecutor(2) as pool:
        assert all(seconds > 0 for seconds in pool.map(first_figure, class_[1]))


@pytest.mark.full
def test_eight_students_run_chapter_02_at_once_and_save_it():
    with classroom(8) as (_, students), ThreadPoolExecutor(8) as pool:
        for times, kernel in pool.map(lesson, students):
            assert times.server < times.figure < times.chapter
            notebook = kernel.student.read(CHAPTER)
            ran = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
            assert all(cell["execution_count"] for cell in ran)
            assert sum("image/png" in output.get("data", ()) for cell in ran for output in cell["outputs"]) > 3


@pytest.mark.parametrize("change", [{"password": "guess"}, {"name": "root"}])
def test_who_is_no_student_or_has_a_wrong_password_stays_outside(class_, ben, change):
    from dataclasses import replace

    stranger = room.Student(class_[0], replace(ben.account, **change))
    assert not stranger.log_in()


def test_an_account_outside_of_the_class_stays_outside(class_):
    hub = class_[0]
    with room.accounts(hub.folder / "home", 1, group="users", view=hub.view) as (other,):
        assert not room.Student(hub, other).log_in()


def test_who_left_the_class_starts_no_server(class_):
    hub = class_[0]
    with room.accounts(hub.folder / "home", 1, view=hub.view) as (account,):
        eva = room.Student(hub, account)
        assert eva.log_in() and eva.hub_api("GET", f"users/{eva.name}").ok
        subprocess.run(["gpasswd", "--delete", eva.name, "students"], check=True, capture_output=True)
        refused = eva.hub_api("POST", f"users/{eva.name}/server")
        assert refused.status_code == 403 and "no longer in the class" in refused.text
        assert not eva.is_ready() and not processes(eva.name)
        assert not room.Student(hub, account).log_in()


def test_a_lecturer_sees_who_is_there_and_opens_no_files(class_, ada):
    hub = class_[0]
    with room.accounts(hub.folder / "home", 1, group="lecturers", view=hub.view) as (account,):
        lecturer = room.Student(hub, account)
        assert lecturer.log_in()
        assert ada.name in {user["name"] for user in lecturer.hub_api("GET", "users").json()}
        assert lecturer.session.get(f"{hub.url}/hub/admin", timeout=60).ok
        lecturer.session.get(f"{hub.url}/user/{ada.name}/lab", timeout=60)
        assert lecturer.api("GET", "contents", owner=ada.name).status_code == 403


WALK = """
import os, sys
for top in sys.argv[1:]:
    for folder, _, files in os.walk(top):
        for name in files:
            path = os.path.join(folder, name)
            try:
                open(path, "rb").read(1)
                print(path)
            except OSError:
                pass
"""


def test_no_student_reads_anothers_files(class_, ada, ben):
    ada.save("diary.ipynb", note(SECRET)).raise_for_status()
    own = ada.account.run(WALK, ada.account.home, class_[0].folder / "run").stdout.splitlines()
    assert str(ada.account.copies / "diary.ipynb") in own and len(own) > 25
    of_others = ben.account.run(WALK, ada.account.home, class_[0].folder / "run").stdout.splitlines()
    foreign = [path for path in of_others if f"/{ben.name}/" not in path]
    assert {Path(path).name for path in foreign} <= {".bashrc", ".profile", ".bash_logout"}, "what useradd puts there"


def test_no_student_opens_anothers_server(class_, ada, ben, adas_kernel):
    from websocket import WebSocketBadStatusException

    hub = class_[0]
    ben.session.get(f"{hub.url}/user/{ada.name}/lab", timeout=60)  # so that whatever cookie can be had is had
    for method, path in (("GET", "contents"), ("GET", f"contents/{CHAPTER}"), ("GET", "kernels"), ("POST", "kernels")):
        answer = ben.api(method, path, owner=ada.name, json={})
        assert answer.status_code == 403 or "/hub/api/oauth2/" in answer.headers.get("Location", ""), (path, answer)
    with pytest.raises(WebSocketBadStatusException, match="403"):
        adas_kernel.connect(ben)
    assert ben.hub_api("GET", f"users/{ada.name}").status_code in (403, 404)
    assert ben.hub_api("DELETE", f"users/{ada.name}/server").status_code in (403, 404)
    assert ada.is_ready()


LISTEN = """
import sys, time, zmq
context, heard = zmq.Context(), []
sockets = []
for address in sys.argv[2:]:
    socket = context.socket(zmq.SUB)
    socket.setsockopt(zmq.SUBSCRIBE, b"")
    socket.connect(address)
    sockets.append(socket)
print("listening", flush=True)
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    for socket in sockets:
        while socket.poll(50):
            heard += socket.recv_multipart()
print(b"".join(heard).decode(errors="replace"))
"""


def listening_ports(pids):
    """The TCP ports of some processes."""
    import psutil

    found = (connection for pid in pids for connection in psutil.Process(pid).net_connections("tcp"))
    return sorted({connection.laddr.port for connection in found if connection.status == psutil.CONN_LISTEN})


@contextmanager
def somebody_listens(command, addresses, seconds, **options):
    """A process that hears all that is published at addresses; gives its answer when it has ended."""
    command = [*command, sys.executable, "-c", LISTEN, str(seconds), *addresses]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8", **options)
    assert process.stdout.readline() == "listening\n"
    time.sleep(0.5)
    heard = []
    yield heard
    heard.append(process.communicate(timeout=60)[0])


def test_no_student_hears_what_anothers_kernel_prints(class_, ada, ben, adas_kernel):
    ports = listening_ports(processes(ada.name))
    sockets = list((class_[0].folder / "run" / ada.name).glob("kernel-*-ipc-*"))
    assert ports and len(sockets) >= 5
    addresses = [f"tcp://127.0.0.1:{port}" for port in ports] + [f"ipc://{path}" for path in sockets]
    become = ["setpriv", f"--reuid={ben.name}", f"--regid={ben.name}", "--clear-groups"]
    with somebody_listens([*ben.account.view, *become], addresses, 3) as heard:
        assert adas_kernel.run(f"print({SECRET!r})").text == f"{SECRET}\n"
    assert SECRET not in heard[0]


def test_a_kernel_on_tcp_ports_would_be_heard_by_all(tmp_path):
    """What the test above is for: Jupyter's default, from which `deploy/` departs."""
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="python3", cwd=str(tmp_path))
    try:
        ports = listening_ports([manager.provisioner.pid])
        addresses = [f"tcp://127.0.0.1:{port}" for port in ports]
        with somebody_listens(["setpriv", "--reuid=65534", "--clear-groups"], addresses, 3, env=None) as heard:
            client.execute_interactive(f"print({SECRET!r})", output_hook=lambda message: None, timeout=30)
        assert SECRET in heard[0]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def ask_debugger(kernel, *commands):
    """Send commands to a kernel's debugger, as JupyterLab's button does."""
    from uuid import uuid4

    for number, command in enumerate(commands, 1):
        header = {"msg_id": uuid4().hex, "session": kernel.session, "username": "", "version": "5.3"}
        content = {"type": "request", "seq": number, "command": command, "arguments": {"clientID": "", "adapterID": ""}}
        message = {"header": {**header, "msg_type": "debug_request"}, "parent_header": {}, "metadata": {}}
        kernel.socket.send(json.dumps({**message, "content": content, "channel": "control"}))


def test_no_student_attaches_to_anothers_kernel_by_its_debugger(ada, adas_kernel):
    """It listens on a port, for whoever connects."""
    pid = adas_kernel.pid()
    before = listening_ports([pid])
    assert adas_kernel.run("import debugpy").error == "ModuleNotFoundError"
    ask_debugger(adas_kernel, "initialize", "attach")
    assert adas_kernel.run("import time; time.sleep(1); print('here')").text == "here\n"
    assert listening_ports([pid]) == before and len(processes(ada.name)) == 2, "a debugger would be a third process"
    specs = ada.api("GET", "kernelspecs").json()["kernelspecs"]
    assert not specs["python3"]["spec"]["metadata"]["debugger"], "JupyterLab shows no button that does nothing"


def test_files_of_the_students_own_are_imported_by_a_kernel(ada):
    ada.account.run("import sys; open(sys.argv[1], 'w').write('x = 42')", ada.account.copies / "my_helper.py")
    with kernel_of(ada) as kernel:
        assert kernel.run("import my_helper; print(my_helper.x)").text == "42\n"


PRETEND = """
import http.server, sys
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Page)
print("listening", flush=True)
server.serve_forever()
"""


def test_no_student_pretends_to_be_anothers_server(class_, ben):
    """Whoever holds the port that the hub gave to somebody else would get that student's page, and all that is sent."""
    hub = class_[0]
    port = room.free_port()
    become = [*ben.account.view, "setpriv", f"--reuid={ben.name}", f"--regid={ben.name}", "--clear-groups"]
    command = [*become, sys.executable, "-c", PRETEND, str(port)]
    with (
        room.accounts(hub.folder / "home", 1, view=hub.view) as (account,),
        subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8") as pretender,
    ):
        eva = room.Student(hub, account)
        assert eva.log_in() and pretender.stdout.readline() == "listening\n"
        try:
            (hub.folder / "port").write_text(str(port))
            eva.hub_api("POST", f"users/{eva.name}/server")
            taken = f"port {port} was taken by the account"
            wait_for(lambda: taken in hub.log.read_text(encoding="utf-8"), 60, "the refusal")
            assert not eva.is_ready()
        finally:
            (hub.folder / "port").unlink()
            pretender.kill()
        account.run("import sys; open(sys.argv[1], 'w').write('1 / 0')", account.home / "json.py")
        eva.start_server()
        assert eva.read(CHAPTER), "on another port it starts, and a file in the home stops nothing"


def test_no_student_looks_into_anothers_processes(ada, ben, adas_kernel):
    script = (
        "import os, sys\n"
        "for pid in map(int, sys.argv[1:]):\n"
        "    for what in (lambda: open(f'/proc/{pid}/environ').read(), lambda: os.listdir(f'/proc/{pid}/fd'),\n"
        "                 lambda: open(f'/proc/{pid}/mem', 'rb'), lambda: os.kill(pid, 15)):\n"
        "        try:\n"
        "            what()\n"
        "            print('could')\n"
        "        except OSError:\n"
        "            pass\n"
    )
    own = processes(ben.name)
    assert ben.account.run(script.replace("os.kill(pid, 15)", "os.kill(pid, 0)"), own[0]).stdout.count("could") >= 2
    others = processes(ada.name)
    assert adas_kernel.pid() in others and ben.account.run(script, *others).stdout == ""


def test_no_student_changes_the_workbook(class_, adas_kernel):
    edition = class_[0].folder / "edition"
    code = f"""
    import os, spai_lab
    print(spai_lab.__file__.startswith({str(edition)!r}), os.access(spai_lab.__file__, os.W_OK))
    print([folder for folder, _, _ in os.walk({str(edition)!r}) if os.access(folder, os.W_OK)])
    """
    import textwrap

    assert adas_kernel.run(textwrap.dedent(code)).text == "True False\n[]\n"


def test_a_killed_kernel_costs_no_saved_work(ada):
    kernel = ada.kernel()
    ada.save("work.ipynb", note("x = 1  # saved")).raise_for_status()
    os.kill(kernel.pid(), signal.SIGKILL)
    with pytest.raises(RuntimeError, match="died"):
        kernel.run("1")
    assert saved(ada, "work.ipynb") == "x = 1  # saved"
    wait_for(lambda: ada.api("GET", f"kernels/{kernel.identity}").json()["execution_state"] == "idle", 60, "a restart")
    kernel.reconnect()
    assert kernel.run("print(6 * 7)").text == "42\n"


def test_a_hub_that_crashes_finds_its_students_again(class_, ada):
    hub = class_[0]
    kernel = ada.kernel()
    kernel.run("kept = 'before the crash'")
    ada.save("work.ipynb", note("before")).raise_for_status()
    hub.kill()
    assert saved(ada, "work.ipynb") == "before"
    assert ada.save("work.ipynb", note("while it was down")).ok, "the server and the proxy live on"
    hub.start()
    assert ada.is_ready(), "the log-in holds, and the hub knows the server"
    kernel.reconnect()
    assert kernel.run("print(kept)").text == "before the crash\n"
    ada.save("work.ipynb", note("after")).raise_for_status()
    assert saved(ada, "work.ipynb") == "after"


FILL = """
import os, sys
with open(sys.argv[1], "wb") as file:
    try:
        while True:
            file.write(bytes(4096))
            file.flush()
    except OSError as error:
        os._exit(error.errno)
"""


@contextmanager
def small_disk(hub, account, size="3m"):
    """A disk of that size in the place of a student's copies."""
    account.run("import os, sys; os.makedirs(sys.argv[1], exist_ok=True)", account.copies)
    options = f"size={size},mode=700,uid={account.copies.stat().st_uid},gid={account.copies.stat().st_gid}"
    subprocess.run([*hub.view, "mount", "-t", "tmpfs", "-o", options, "none", str(account.copies)], check=True)
    try:
        yield
    finally:
        subprocess.run([*hub.view, "umount", "--lazy", str(account.copies)], check=True)


def test_a_full_disk_costs_no_saved_work_and_stops_no_server(class_):
    import errno

    hub = class_[0]
    homes = room.accounts(hub.folder / "home", 1, view=hub.view)
    with homes as (account,), small_disk(hub, account):
        eva = room.Student(hub, account)
        assert eva.log_in()
        eva.start_server()
        kernel = eva.kernel()
        eva.save("work.ipynb", note("saved")).raise_for_status()
        kernel.run("from spai_lab.files import write_atomically; from pathlib import Path")
        kernel.run("write_atomically(Path('progress.json'), b'old')")
        assert account.run(FILL, account.copies / "ballast").returncode == errno.ENOSPC

        refused = eva.save("work.ipynb", note("x" * 100_000))
        assert refused.status_code == 500 and "space" in refused.text, "the student is told"
        assert saved(eva, "work.ipynb") == "saved"
        assert kernel.run("write_atomically(Path('progress.json'), b'new' * 2**20)").error == "OSError"
        assert kernel.run("print(Path('progress.json').read_text())").text == "old\n", "the kernel lives on"

        eva.hub_api("DELETE", f"users/{eva.name}/server")
        wait_for(lambda: not processes(eva.name), 60, "the end of the server")
        eva.start_server()
        assert "".join(eva.read("work.ipynb")["cells"][0]["source"]) == "saved", "a server starts on a full disk"
        eva.api("DELETE", "contents/ballast").raise_for_status()
        eva.save("work.ipynb", note("x" * 100_000)).raise_for_status()
        assert saved(eva, "work.ipynb") == "x" * 100_000


def test_an_update_overwrites_nothing_and_brings_the_new_chapter_beside(class_, ben):
    notebook = ben.read(CHAPTER)
    notebook["cells"][0]["source"] = "my own words"
    ben.save(CHAPTER, notebook).raise_for_status()
    master = class_[0].folder / "edition" / "notebooks" / CHAPTER
    newer = json.loads(master.read_text(encoding="utf-8"))
    newer["cells"][0]["source"] = "a new edition"
    master.write_text(json.dumps(newer), encoding="utf-8")
    ben.hub_api("DELETE", f"users/{ben.name}/server")
    wait_for(lambda: not processes(ben.name), 60, "the end of the server")
    ben.start_server()
    assert saved(ben, CHAPTER) == "my own words"
    names = [item["name"] for item in ben.api("GET", "contents").json()["content"]]
    (beside,) = [name for name in names if name.startswith(f"{Path(CHAPTER).stem} (new ")]
    assert saved(ben, beside) == "a new edition"


POST = """
from spai_lab.arena.board import Entry, append, read_board
from pathlib import Path
board = Path({board!r})
for number in range(20):
    append(board, Entry({who!r}, "attack", "f", "digits", 0.5, 10, "terms", "today", f"{who}-{{number}}"))
try:
    board.unlink()
    print("removed")
except OSError:
    print(len(read_board(board).entries) >= 20)
"""


def test_the_class_shares_a_board_that_nobody_can_remove(class_, program):
    from spai_lab.arena.board import read_board

    hub, students = class_
    folder = hub.folder / "state" / "class"
    program.make_class_folder(folder)

    def post(student):
        with kernel_of(student) as kernel:
            return kernel.run(POST.format(board=str(folder / "board.jsonl"), who=student.name)).text

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(post, students)) == ["True\n"] * 2
    board = read_board(folder / "board.jsonl")
    assert len(board.entries) == 40 and not board.damaged
    with room.accounts(hub.folder / "home", 1, group="users", view=hub.view) as (other,):
        assert other.run("import sys; open(sys.argv[1], 'a')", folder / "board.jsonl").returncode != 0


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import numpy; numpy.ones(2**29)", "MemoryError"),
        (
            "import threading; [threading.Thread(target=time.sleep, args=(3,)).start() for _ in range(900)]",
            "RuntimeError",
        ),
        ("file = open('big', 'wb'); file.truncate(2**32)", "OSError"),
    ],
    ids=["memory", "threads", "file"],
)
def test_who_takes_too_much_is_stopped_and_goes_on(adas_kernel, code, error):
    adas_kernel.run("import threading, time")
    assert adas_kernel.run(code).error == error
    time.sleep(3 if error == "RuntimeError" else 0)
    assert adas_kernel.run("print('here')").text == "here\n"


@pytest.mark.full
def test_what_nobody_uses_is_given_back_and_what_was_saved_stays():
    settings = [
        "c.Spawner.args = ['--MappingKernelManager.cull_idle_timeout=2', '--MappingKernelManager.cull_interval=1']",
        "c.Spawner.args += ['--MappingKernelManager.cull_connected=True']",
        "c.JupyterHub.services[0]['command'][-2:] = ['--timeout=5', '--cull-every=1']",
        "c.JupyterHub.activity_resolution = 1",
        "c.Spawner.environment['JUPYTERHUB_ACTIVITY_INTERVAL'] = '2'",
    ]
    with classroom(1, settings) as (_, (student,)):
        assert student.log_in()
        student.start_server()
        kernel = student.kernel()
        kernel.run("import torch")
        student.save("work.ipynb", note("saved")).raise_for_status()
        busy = processes(student.name)
        wait_for(lambda: len(processes(student.name)) < len(busy), 30, "the end of the idle kernel")
        wait_for(lambda: not processes(student.name), 90, "the end of the idle server")
        assert saved(student, "work.ipynb") == "saved"


def test_a_class_leaves_no_account_behind():
    with room.accounts(Path("/var/tmp"), 1) as (account,):
        assert subprocess.run(["id", account.name], capture_output=True).returncode == 0
    assert subprocess.run(["id", account.name], capture_output=True).returncode != 0
    assert not account.home.exists()

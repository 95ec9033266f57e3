"""A class on one machine for real: accounts of the system, a hub, its proxy, and students who run a chapter at once.

`sudo python -m benchmarks classroom` prints what a student costs and how long the first figure takes; the tests of the
hub use the same class. Needs root, since it makes accounts (and removes them) and starts servers as them.
"""

import json
import os
import platform
import secrets
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from importlib import metadata
from pathlib import Path
from uuid import uuid4

from spai_lab.hub.accounts import GROUPS
from spai_lab.survey.coverage import fill_sections

ROOT = Path(__file__).resolve().parents[1]
GUIDE = ROOT / "deploy" / "README.md"
BIN = Path(sys.executable).parent
CHAPTER = "02_gradient_attacks.ipynb"
PATIENCE = 300.0


def what_is_missing() -> str | None:
    """Why no class can be held on this machine, or None."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "needs root: it makes accounts and starts servers as them"
    for program in ("useradd", "userdel", "chpasswd", "groupadd", "setpriv", "unshare", "nsenter"):
        if shutil.which(program) is None:
            return f"needs the program {program}"
    if not (BIN / "configurable-http-proxy").exists():
        return "needs the hub's proxy in .venv; `run.py test` installs it where npm can be reached"
    try:
        with view_for_all() as view:
            nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
            answer = subprocess.run([*view, *nobody, sys.executable, "-c", ""], capture_output=True, encoding="utf-8")
    except (OSError, TimeoutError) as error:
        return f"needs to mount: {error}"
    if answer.returncode != 0:
        return f"needs a Python that other accounts may run: {answer.stderr.strip()}"
    return None


# --- a view of the disk ----------------------------------------------------------------------------------------------


def closed_to_others(path: Path) -> Path | None:
    """The topmost folder on the way to a path that other accounts may not enter."""
    return next((folder for folder in [*reversed(path.parents), path] if not folder.stat().st_mode & 0o001), None)


@contextmanager
def view_for_all() -> Iterator[list[str]]:
    """The beginning of a command that sees the disk as it is, and our Python where every account may run it.

    A Python that lies in root's private home, as pyenv puts it there, is out of reach of every student. In this view
    that home holds the interpreter and the environment alone. The rest of the machine does not see the view, which ends
    with its last process.

    Raises:
        OSError: this machine lets nobody mount.
    """
    needed = [Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve()]
    closed = {folder for path in needed if (folder := closed_to_others(path))}
    with tempfile.TemporaryDirectory() as scratch:
        kept = {
            path: Path(scratch, str(number)) for number, path in enumerate(needed) if closed & {path, *path.parents}
        }
        steps = ["mount --make-rprivate /"]
        steps += [f"mkdir '{aside}' && mount --bind '{path}' '{aside}'" for path, aside in kept.items()]
        steps += [f"mount -t tmpfs -o mode=755 none '{folder}'" for folder in closed]
        steps += [f"mkdir -p '{path}' && mount --bind '{aside}' '{path}'" for path, aside in kept.items()]
        command = ["unshare", "--mount", "sh", "-c", " && ".join([*steps, "echo ready && exec sleep infinity"])]
        holder = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")
        try:
            if holder.stdout.readline() != "ready\n":
                raise OSError(holder.stderr.read().strip() or "the mount did not come about")
            yield ["nsenter", f"--target={holder.pid}", "--mount"]
        finally:
            holder.kill()
            holder.wait()
            holder.stdout.close()
            holder.stderr.close()


# --- accounts --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Account:
    """An account of the system, made for a while."""

    name: str
    password: str
    home: Path
    view: tuple[str, ...]

    @property
    def copies(self) -> Path:
        """Where the student works."""
        return self.home / "spai-lab"

    def run(self, script: str, *arguments: object) -> subprocess.CompletedProcess:
        """Run Python as this account, with nothing else than a path to programs around it."""
        become = ["setpriv", f"--reuid={self.name}", f"--regid={self.name}", "--clear-groups"]
        environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.home)}
        command = [*self.view, *become, sys.executable, "-c", script, *map(str, arguments)]
        return subprocess.run(command, env=environment, cwd="/", capture_output=True, encoding="utf-8")


@contextmanager
def accounts(homes: Path, count: int, group: str = "students", view: Sequence[str] = ()) -> Iterator[list[Account]]:
    """Accounts with passwords and homes of their own, which are gone afterwards, with all that they started.

    Args:
        homes: the folder of the homes; everybody must be able to enter it.
        count: how many.
        group: the group that they join; made where it is missing, and then removed.
        view: the beginning of a command that they can run.
    """
    new_groups = [name for name in GROUPS if subprocess.run(["getent", "group", name], stdout=-3).returncode != 0]
    made: list[Account] = []
    try:
        for name in new_groups:
            subprocess.run(["groupadd", name], check=True)
        for _ in range(count):
            name = f"spai-{secrets.token_hex(3)}"
            account = Account(name, secrets.token_urlsafe(12), homes / name, tuple(view))
            command = ["useradd", "--create-home", "--home-dir", str(account.home), "--groups", group]
            subprocess.run([*command, "--shell", "/bin/bash", name], check=True, capture_output=True)
            made.append(account)
        passwords = "".join(f"{account.name}:{account.password}\n" for account in made)
        subprocess.run(["chpasswd"], input=passwords.encode(), check=True)
        yield made
    finally:
        for account in made:
            for pid in processes(account.name):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            wait_for(lambda name=account.name: not processes(name), 10, "the end of an account's processes")
            subprocess.run(["userdel", "--remove", account.name], capture_output=True)
        for name in new_groups:
            subprocess.run(["groupdel", name], capture_output=True)


def processes(name: str) -> list[int]:
    """The processes of an account."""
    answer = subprocess.run(["ps", "-u", name, "-o", "pid=,stat="], capture_output=True, encoding="utf-8")
    rows = (line.split() for line in answer.stdout.splitlines())
    return [int(pid) for pid, state in rows if not state.startswith("Z")]


def memory(name: str) -> float:
    """What the processes of an account hold, in MB: pages that several processes share count in parts (PSS)."""
    total = 0
    for pid in processes(name):
        with suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def wait_for(done: Callable[[], object], seconds: float, what: str) -> object:
    """The first true answer of `done`.

    Raises:
        TimeoutError: none came in time; says of what.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := done():
            return answer
        time.sleep(0.1)
    raise TimeoutError(f"{what} did not come within {seconds:.0f} s")


# --- the hub ---------------------------------------------------------------------------------------------------------


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Hub:
    """A hub on free ports of the loopback address, with the configuration of `deploy/`.

    Args:
        folder: of the edition, the hub's state and its log.
        view: the beginning of a command that its students can run.
        settings: lines of Python for the file that a machine's owner may write.
    """

    folder: Path
    view: Sequence[str] = ()
    settings: Sequence[str] = ()
    ports: tuple[int, int, int] = field(default_factory=lambda: (free_port(), free_port(), free_port()))
    process: subprocess.Popen | None = None

    @property
    def url(self) -> str:
        """The address that a browser opens."""
        return f"http://127.0.0.1:{self.ports[0]}"

    @property
    def log(self) -> Path:
        """What the hub and the students' servers say."""
        return self.folder / "hub.log"

    def start(self) -> float:
        """Start the hub and its proxy, and return the seconds until it answers."""
        begin = time.perf_counter()
        own = self.folder / "hub.py"
        run_folder = self.folder / "run"
        lines = [
            f"c.JupyterHub.bind_url = {self.url!r}",
            f"c.JupyterHub.hub_bind_url = 'http://127.0.0.1:{self.ports[1]}'",
            f"c.ConfigurableHTTPProxy.api_url = 'http://127.0.0.1:{self.ports[2]}'",
            f"c.LimitedSpawner.run_folder = {str(run_folder)!r}",
            f"c.Spawner.environment['PYTHONPATH'] = {str(self.folder / 'edition')!r}",
            *self.settings,
        ]
        own.write_text("\n".join(lines), encoding="utf-8")
        variables = {name: os.environ[name] for name in ("PATH", "LANG", "HOME") if name in os.environ}
        variables |= {"SPAI_HUB_STATE": str(self.folder / "state"), "SPAI_HUB_SETTINGS": str(own)}
        variables |= {"PYTHONPATH": str(self.folder / "edition"), "OMP_NUM_THREADS": "1"}
        config = self.folder / "edition" / "deploy" / "jupyterhub_config.py"
        with self.log.open("ab") as log:
            command = [*self.view, sys.executable, "-m", "jupyterhub", "-f", str(config)]
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=variables, stdout=log, stderr=log, start_new_session=True
            )
        wait_for(self._answers, PATIENCE, f"the hub (its log: {self.log})")
        return time.perf_counter() - begin

    def _answers(self) -> bool:
        import requests

        if self.process.poll() is not None:
            raise RuntimeError(f"the hub ended at its start:\n{self.log.read_text(encoding='utf-8')[-3000:]}")
        with suppress(requests.RequestException):
            return requests.get(f"{self.url}/hub/health", timeout=5).ok
        return False

    def cullers(self) -> list:
        """The hub's culler, which has a session of its own, and would outlive a hub that does not end in time."""
        import psutil

        with suppress(psutil.Error):
            children = psutil.Process(self.process.pid).children()
            return [child for child in children if "jupyterhub_idle_culler" in child.cmdline()]
        return []

    def kill(self) -> None:
        """End the hub as a crash would; its proxy and the students' servers live on, and its culler does not."""
        cullers = self.cullers()
        self.process.kill()
        self.process.wait()
        for culler in cullers:
            culler.kill()

    def close(self) -> None:
        """End the hub, its proxy and its services."""
        import psutil

        cullers = self.cullers()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=20)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for culler in cullers:
            with suppress(psutil.NoSuchProcess):
                culler.kill()
        for file in (self.folder / "state" / "hub").glob("proxy.pid"):
            with suppress(ProcessLookupError, ValueError):
                os.kill(int(file.read_text().split()[0]), signal.SIGKILL)


@contextmanager
def classroom(
    students: int, settings: Sequence[str] = (), data: Path | None = None
) -> Iterator[tuple[Hub, list["Student"]]]:
    """A running hub with the edition that students see, and students who are not yet logged in.

    Args:
        students: how many.
        settings: lines of Python for the hub's own settings.
        data: a folder that holds MNIST in `mnist`; without it the digits serve.
    """
    folder = Path(tempfile.mkdtemp(prefix="spai-class-", dir="/var/tmp"))
    folder.chmod(0o755)
    try:
        subprocess.run(
            [sys.executable, str(ROOT / "deploy" / "edition.py"), str(folder / "edition")], check=True, stdout=-3
        )
        share(folder / "state" / "data" / "mnist", data)
        homes = folder / "home"
        homes.mkdir()
        with view_for_all() as view, accounts(homes, students, view=view) as made:
            hub = Hub(folder, view, settings)
            try:
                hub.start()
                yield hub, [Student(hub, account) for account in made]
            finally:
                hub.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def share(folder: Path, data: Path | None) -> None:
    """MNIST for all, in one file that all processes map."""
    from spai_lab.data.mnist import share_mnist

    if data is not None:
        shutil.copytree(data / "mnist", folder)
        for path in (*folder.parents[:2], folder):
            path.chmod(0o755)
        share_mnist(folder).chmod(0o644)


# --- a student -------------------------------------------------------------------------------------------------------


class Student:
    """Somebody with a browser: logs in, starts the server, opens files, runs cells."""

    def __init__(self, hub: Hub, account: Account) -> None:
        import requests

        self.hub, self.account, self.session = hub, account, requests.Session()
        self.name = account.name

    def log_in(self) -> bool:
        """Fill in the hub's form; whether the hub let us in."""
        page = f"{self.hub.url}/hub/login"
        self.session.get(page, timeout=60).raise_for_status()
        fields = {"username": self.name, "password": self.account.password, "_xsrf": self._xsrf("/hub/")}
        answer = self.session.post(page, data=fields, allow_redirects=False, timeout=60)
        return answer.status_code == 302

    def _xsrf(self, path: str) -> str:
        """The token that a page of ours would send along, so that no other page can act for us."""
        found = [cookie.value for cookie in self.session.cookies if cookie.name == "_xsrf" and cookie.path == path]
        return found[0] if found else ""

    def start_server(self) -> None:
        """Ask for a server, wait until it runs, and open its first page, which logs us in there."""
        wait_for(self.asks_for_server, PATIENCE, f"the server of {self.name}")
        self.session.get(f"{self.hub.url}/user/{self.name}/lab", timeout=60).raise_for_status()

    def asks_for_server(self) -> bool:
        """Whether our server runs; asks for it where it does not, again as long as the hub is still ending the last."""
        if self.is_ready():
            return True
        answer = self.hub_api("POST", f"users/{self.name}/server")
        if answer.status_code not in (201, 202, 400):
            answer.raise_for_status()
        return False

    def is_ready(self) -> bool:
        """Whether the hub says that our server runs."""
        servers = self.hub_api("GET", f"users/{self.name}").json().get("servers", {})
        return bool(servers.get("", {}).get("ready"))

    def hub_api(self, method: str, path: str):
        """A call to the hub's own interface."""
        headers = {"X-XSRFToken": self._xsrf("/hub/"), "Referer": f"{self.hub.url}/hub/home"}
        return self.session.request(method, f"{self.hub.url}/hub/api/{path}", headers=headers, timeout=120)

    def api(self, method: str, path: str, owner: str | None = None, **options: object):
        """A call to a student's server, ours if nobody else is named."""
        base = f"/user/{owner or self.name}/"
        headers = {"X-XSRFToken": self._xsrf(base), "Referer": f"{self.hub.url}{base}lab"}
        url = f"{self.hub.url}{base}api/{path}"
        return self.session.request(method, url, headers=headers, timeout=120, allow_redirects=False, **options)

    def read(self, name: str) -> dict:
        """A notebook of ours."""
        answer = self.api("GET", f"contents/{name}")
        answer.raise_for_status()
        return answer.json()["content"]

    def save(self, name: str, notebook: Mapping):
        """Save a notebook as JupyterLab does."""
        return self.api("PUT", f"contents/{name}", json={"type": "notebook", "format": "json", "content": notebook})

    def kernel(self) -> "Kernel":
        """A new kernel on our server, in the folder of the copies."""
        answer = self.api("POST", "kernels", json={"name": "python3", "path": CHAPTER})
        answer.raise_for_status()
        return Kernel(self, answer.json()["id"])


@dataclass(frozen=True)
class Ran:
    """What came of a cell: its text, how many pictures, the error's name if there was one."""

    text: str
    pictures: int
    error: str | None
    outputs: tuple[dict, ...]


class Kernel:
    """A kernel behind its web socket, as a notebook in the browser sees it."""

    def __init__(self, student: Student, identity: str) -> None:
        self.student, self.identity, self.session = student, identity, uuid4().hex
        self.socket = self.connect()

    def connect(self, student: Student | None = None):
        """The socket, opened with a student's cookies: the owner's if nobody else is named."""
        from websocket import create_connection

        student = student or self.student
        base = student.hub.url.replace("http", "ws", 1)
        address = f"{base}/user/{self.student.name}/api/kernels/{self.identity}/channels?session_id={self.session}"
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in student.session.cookies)
        return create_connection(address, cookie=cookies, origin=student.hub.url, timeout=PATIENCE)

    def reconnect(self) -> None:
        """Open the socket again, as JupyterLab does when it was cut."""
        with suppress(OSError):
            self.socket.close()
        self.socket = self.connect()

    def run(self, source: str) -> Ran:
        """Run one cell, and wait until the kernel is idle again.

        Raises:
            RuntimeError: the kernel died meanwhile.
        """
        message = uuid4().hex
        header = {"msg_id": message, "session": self.session, "username": self.student.name, "version": "5.3"}
        header["msg_type"] = "execute_request"
        content = {"code": source, "silent": False, "store_history": True, "allow_stdin": False, "stop_on_error": True}
        frame = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
        self.socket.send(json.dumps(frame))
        outputs: list[dict] = []
        while True:
            reply = json.loads(self.socket.recv())
            kind, content = reply["msg_type"], reply["content"]
            if kind == "status" and content["execution_state"] in ("restarting", "dead"):
                raise RuntimeError("the kernel died")
            if reply["parent_header"].get("msg_id") != message:
                continue
            if kind in ("stream", "display_data", "execute_result", "error"):
                outputs.append({"output_type": kind, **{key: content[key] for key in content if key != "transient"}})
            if kind == "status" and content["execution_state"] == "idle":
                return came_of(outputs)

    def pid(self) -> int:
        """The kernel's process."""
        return int(self.run("import os; print(os.getpid())").text)


def came_of(outputs: Sequence[dict]) -> Ran:
    """The outputs of a cell, summed up."""
    text = "".join(output["text"] for output in outputs if output["output_type"] == "stream")
    text += "".join(str(output["data"].get("text/plain", "")) for output in outputs if "data" in output)
    pictures = sum("image/png" in output.get("data", ()) for output in outputs)
    errors = [output["ename"] for output in outputs if output["output_type"] == "error"]
    return Ran(text, pictures, errors[0] if errors else None, tuple(outputs))


def run_chapter(kernel: Kernel, notebook: dict, until_figure: bool = False) -> float | None:
    """Run the cells of a notebook in their order, and put what comes out into it.

    Args:
        kernel: where.
        notebook: gets outputs and counts.
        until_figure: stop at the first figure.
    Returns:
        seconds from the call to the first figure; None where there was none.
    Raises:
        RuntimeError: a cell failed; says which and why.
    """
    begin, first = time.perf_counter(), None
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] != "code":
            continue
        ran = kernel.run("".join(cell["source"]))
        if ran.error is not None and "raises-exception" not in cell["metadata"].get("tags", ()):
            raise RuntimeError(f"cell {number} failed with {ran.error}: {ran.outputs[-1].get('evalue')}")
        cell.update(outputs=list(ran.outputs), execution_count=number + 1)
        if ran.pictures and first is None:
            first = time.perf_counter() - begin
            if until_figure:
                break
    return first


# --- the benchmark ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Times:
    """Seconds of one student, from the log-in on; `chapter` is the whole of chapter 02, run and saved."""

    server: float
    figure: float
    chapter: float


def lesson(student: Student) -> tuple[Times, Kernel]:
    """Log in, start the server, run chapter 02 to its end and save it."""
    begin = time.perf_counter()
    if not student.log_in():
        raise RuntimeError(f"{student.name} was not let in")
    student.start_server()
    server = time.perf_counter() - begin
    notebook, kernel = student.read(CHAPTER), student.kernel()
    before = time.perf_counter() - begin
    figure = run_chapter(kernel, notebook)
    student.save(CHAPTER, notebook).raise_for_status()
    return Times(server, before + figure, time.perf_counter() - begin), kernel


def main(quick: bool = False, students: int = 8) -> None:
    """Print what a class costs; unless `quick`, write it into `deploy/README.md` too."""
    missing = what_is_missing()
    if missing:
        print(f"classroom: {missing}")
        return
    data = os.environ.get("SPAI_DATA")
    count = 2 if quick else students
    with classroom(count, data=Path(data) if data else None) as (_, class_), ThreadPoolExecutor(count) as pool:
        lessons = list(pool.map(lesson, class_))
        busy = [memory(student.name) for student in class_]
        for student, (_, kernel) in zip(class_, lessons, strict=True):
            student.api("DELETE", f"kernels/{kernel.identity}").raise_for_status()
        wait_for(lambda: all(len(processes(student.name)) < 2 for student in class_), 30, "the end of the kernels")
        idle = [memory(student.name) for student in class_]
    table = cost_table([times for times, _ in lessons], busy, idle, "MNIST" if data else "the digits")
    print(table)
    if not quick:
        fill_sections(GUIDE, {"classroom": lambda: table})


def cost_table(lessons: Sequence[Times], busy: Sequence[float], idle: Sequence[float], data: str) -> str:
    """What a class costs, as a table in Markdown.

    Args:
        lessons: the times of each student.
        busy, idle: MB of each student with a kernel that has run the chapter, and after that kernel has ended.
        data: what the chapter ran on.
    """
    head = (
        f"{len(lessons)} students at once, chapter 02 on {data}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, JupyterHub {metadata.version('jupyterhub')}, "
        f"torch {metadata.version('torch').split('+')[0]}; {date.today()}."
    )
    rows = []
    for name, title in (
        ("server", "from the log-in to JupyterLab"),
        ("figure", "from the log-in to the first figure"),
        ("chapter", "from the log-in to the whole chapter, run and saved"),
    ):
        seconds = [getattr(times, name) for times in lessons]
        rows.append(f"| {title} | {statistics.median(seconds):.0f} s | {max(seconds):.0f} s |")
    for held, title in ((busy, "with a kernel that ran the chapter"), (idle, "after that kernel was culled")):
        rows.append(f"| memory {title} | {statistics.median(held):.0f} MB | {max(held):.0f} MB |")
    return "\n".join([head, "", "| | median | most |", "|---|---:|---:|", *rows])

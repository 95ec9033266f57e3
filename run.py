#!/usr/bin/env python3
"""SPAI Lab from a fresh machine: `python3 run.py lab` opens the workbook, `python3 run.py test` checks it.

Needs Python 3.11 or later and nothing else, on Linux, macOS and Windows; builds the environment `.venv` beside itself.
"""

from __future__ import annotations  # a SyntaxError here means: start with Python 3.11 or later, please

import argparse
import contextlib
import hashlib
import importlib.util
import json
import logging
import os
import platform as machine
import re
import secrets
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent
OLDEST_PYTHON = (3, 11)
FIRST_PORT = 8888
TORCH_WHEELS = "https://download.pytorch.org/whl/"
CUDA_PACKAGE = re.compile(r"(nvidia|cuda)-|(pytorch-)?triton")
CLOSING_LINE = re.compile(r"(=+ )?(\d+ \w+|no tests ran).* in [\d.]+s\b.*")
NEWS = re.compile(r"\s*(Collecting|Downloading|Using cached|Processing|Building|Installing|WARNING: Retrying)\b")
STAGES = {
    "lab": [["-e", ".[lab]"]],
    "book": [["-e", ".[book]"]],
    "lecture": [["-e", ".[lab,lecture]"]],
    "hub": [["-e", ".[lab,hub]"]],  # deploy/install.py: JupyterHub for a class
    "student": [["-e", ".[lab,student]"]],  # deploy/Dockerfile: what a hub on Kubernetes starts
    "test": [["-e", ".[lab,book,lecture,hub,assignments,test,oracles]"], ["--no-deps", "torchattacks"]],
}
TENSEAL = {"TenSEAL": ["--only-binary", "tenseal", "tenseal"]}  # chapter 14 does without where no wheel exists
WHERE_POSSIBLE = {"lab": TENSEAL, "lecture": TENSEAL}
# GB of disk by torch's build: what .venv takes, and what pip needs for a while in the folder of temporary files.
ROOM = {"cpu": (2.0, 1.0), "cuda": (9.0, 4.0)}
# What pip says where something is missing, and what to do about it.
TROUBLES = (
    (
        r"No space left|Errno 28|not enough space",
        "The disk is full. Free some space, move the project to a larger disk, or {room}.",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|SSLError|certificate verify failed",
        "A certificate is not accepted, often because a proxy opens secure connections: set PIP_CERT to the file with "
        "your network's certificates, which its administrator has.",
    ),
    (
        r"NewConnectionError|ConnectTimeout|ReadTimeout|Read timed out|ProxyError|Failed to establish|Name or service"
        r"|name resolution|getaddrinfo|unreachable",
        "pip cannot reach the network. Connect this machine; behind a proxy set HTTPS_PROXY=http://HOST:PORT, for a "
        "mirror PIP_INDEX_URL=https://...",
    ),
    (
        r"Errno 13|Permission denied|Access is denied",
        "A file cannot be written: close what uses .venv, or delete .venv.",
    ),
    (
        r"No matching distribution found for torch\b",
        "There is no torch for this Python ({python}) on this kind of machine: delete .venv, then start with Python "
        "3.11 or 3.12.",
    ),
)
ELSEWHERE = ("PYTHONHOME", "PYTHONPATH", "PIP_PREFIX", "PIP_TARGET", "VIRTUAL_ENV")
PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy")
# What the first chapters import, so that Python compiles it now and their first cell need not wait for that.
FIRST_IMPORTS = """
import ipykernel.kernelapp, jupyterlab.labapp, matplotlib.font_manager
import spai_lab.attacks.evasion, spai_lab.data, spai_lab.exercises, spai_lab.figures, spai_lab.survey.figures
import spai_lab.training, spai_lab.widgets.eps_units, spai_lab.widgets.predict
"""
FETCH_PATIENCE = 12.0  # seconds until a mirror of MNIST must have answered
# Fetch MNIST, and say when that begins: until then Python reads torch, which takes long the first time.
FETCH = "import sys, spai_lab.data, spai_lab.cli as c; print(flush=True); sys.exit(c.main(['fetch', '--brief']))"
# Wait for our server, and print its address and token as it wrote them down itself. Ours is the one with our token, or,
# if settings of the user's give it another, the one on our port.
ADDRESS = """
import json, os, pathlib, sys, time
from jupyter_core.paths import jupyter_runtime_dir
port, begin, ours = int(sys.argv[1]), float(sys.argv[2]), os.environ["JUPYTER_TOKEN"]
while True:
    for file in pathlib.Path(jupyter_runtime_dir()).glob("jpserver-*.json"):
        try:
            server = json.loads(file.read_text(encoding="utf-8"))
            late = server["port"] == port and file.stat().st_mtime >= begin and time.time() > begin + 30
            if server["token"] == ours or late:
                sys.exit(print(json.dumps([server["url"], server["token"], server["port"]])))
        except (OSError, ValueError):
            pass
    time.sleep(0.2)
"""
# JupyterLab asks no news server, and no pop-up covers the first chapter.
QUIET_SETTINGS = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}}
# No kernel warns at its start that its messages are not encrypted: they stay on this machine.
QUIET_KERNEL = {"IPKernelApp": {"log_level": logging.ERROR}}
PROXY = "configurable-http-proxy@5.3.0"  # JupyterHub's, which npm alone has; `hub` brings npm as a wheel
# Voila (lectures) and nbgrader (assignments) add buttons and servers to JupyterLab, which stays as it is without them.
NBGRADER = ("assignment_list", "course_list", "formgrader", "validate_assignment")
ADDED_SERVERS = ("voila.server_extension", "notebook", *("nbgrader.server_extensions." + n for n in NBGRADER))
ADDED_BUTTONS = ("@voila-dashboards/jupyterlab-preview", "@jupyter/nbgrader", "@jupyter-notebook/lab-extension")
WITHOUT_ADDITIONS = {
    "jupyter_server_config.d/zz-spai-lab.json": {
        "ServerApp": {"jpserver_extensions": dict.fromkeys(ADDED_SERVERS, False)}
    },
    "labconfig/page_config.json": {"disabledExtensions": dict.fromkeys(ADDED_BUTTONS, True)},
}
MORE_ROOM = "set TMPDIR (on Windows: TEMP), pip's folder of temporary files, to a folder on a disk with more room"
NO_VENV = (
    "This Python cannot create environments. On Debian and Ubuntu install the module with "
    "`sudo apt install python3-venv`; elsewhere install Python from https://www.python.org. Then start again."
)
FIRST_STEPS = """\
In a chapter, Shift+Enter runs the cell you are in and goes to the next. Your work is kept in my/.
Ctrl-C here ends the server; `run.py --help` lists what else there is."""


class Stop(Exception):
    """Why nothing more can be done, and what to do about it, in a sentence for the person at the keyboard."""


Call = "Callable[..., tuple[int, str]]"  # runs a command under a title: its exit status, and what it said


# --- the environment -------------------------------------------------------------------------------------------------


def scripts_python(venv: Path) -> Path:
    """The interpreter of an environment: in `Scripts` on Windows, in `bin` elsewhere."""
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def has_gpu() -> bool:
    """Whether this machine shows an NVIDIA driver."""
    return shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia").exists()


def torch_build(environ: Mapping[str, str] = os.environ, platform: str = sys.platform, gpu: bool | None = None) -> str:
    """Which torch to install, as SPAI_TORCH says, else as fits the machine: "cpu", "cuda", or the tag of a CUDA.

    Args:
        environ: the environment variables.
        platform: as `sys.platform`.
        gpu: whether an NVIDIA GPU is there; looked up if left out.
    Raises:
        Stop: SPAI_TORCH has another value.
    """
    chosen = environ.get("SPAI_TORCH", "").strip().lower()
    if not chosen:
        gpu = has_gpu() if gpu is None else gpu
        return "cuda" if platform.startswith("linux") and gpu else "cpu"
    if not re.fullmatch(r"cpu|cuda|cu\d{3}", chosen):
        raise Stop(
            f"SPAI_TORCH is {chosen!r}; set it to cpu, to cuda, or to a CUDA version as in PyTorch's list: cu130."
        )
    return chosen


def cuda_packages(report: Mapping) -> list[str]:
    """The packages in a pip installation report that only a GPU needs."""
    names = (item["metadata"]["name"].lower() for item in report.get("install", []))
    return sorted(name for name in names if CUDA_PACKAGE.match(name))


def pip_install(python: Path, *options: str) -> list[str]:
    """The beginning of every installation. Python compiles what it imports, which saves compiling all the rest here."""
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off"]
    return [*command, "--no-compile", *options, "--constraint", "constraints.txt"]


def planned(
    python: Path, arguments: Sequence[str], call: Call, title: str, patience: Sequence[str]
) -> tuple[dict | None, str]:
    """What pip would install, as its own report, or None where it finds nothing that fits; and what it said."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        code, said = call([*pip_install(python, *patience), "--dry-run", "--report", str(report), *arguments], title)
        found = code == 0 and report.exists()
        return (json.loads(report.read_text(encoding="utf-8")) if found else None), said


def torch_arguments(
    python: Path, build: str, platform: str, call: Call, title: str = "torch", patience: Sequence[str] = ()
) -> list[str]:
    """What to tell pip about torch, so that no CUDA package reaches a machine without a GPU.

    Raises:
        Stop: the CPU build is wanted, and only a CUDA build can be had, or none.
    """
    if build == "cuda":
        return ["torch"]
    if build != "cpu":
        return ["torch", "--extra-index-url", TORCH_WHEELS + build]
    if not platform.startswith("linux"):
        return ["torch"]  # PyPI's wheels for macOS and Windows hold no CUDA
    ways = (["torch"], ["torch", "--extra-index-url", TORCH_WHEELS + "cpu"])
    found = False
    for arguments in ways:
        report, said = planned(python, arguments, call, f"{title}, which build", patience)
        if report is not None and not cuda_packages(report):
            return arguments
        if report is None and not found:
            raise Stop(explained(said))
        found = True
    raise Stop(
        "Only torch's CUDA build (several GB) can be reached from here, and this machine shows no NVIDIA GPU. "
        f"Make {TORCH_WHEELS}cpu reachable (see README.md, Troubleshooting), or set SPAI_TORCH=cuda to take that build."
    )


def interpreter_version(python: Path) -> str | None:
    """The version of an environment's interpreter, or None where it does not start or has no pip."""
    command = [str(python), "-c", "import pip, sys; print(*sys.version_info[:3], sep='.')"]
    try:
        answer = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8", env=environment()
        )
    except OSError:
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def fingerprint(root: Path, version: str, build: str) -> str:
    """What an installation depends on; where it changed, the environment is brought up to date."""
    content = b"".join((root / name).read_bytes() for name in ("pyproject.toml", "constraints.txt"))
    return hashlib.sha256(content + json.dumps([str(root), version, build]).encode()).hexdigest()


def read_stamp(venv: Path) -> dict:
    """What was installed; empty where that is not known."""
    try:
        stamp = json.loads((venv / "spai-lab.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(venv: Path, stamp: Mapping) -> None:
    """Remember what was installed, once all of it is."""
    temporary = venv / "spai-lab.json.part"
    temporary.write_text(json.dumps(stamp), encoding="utf-8")
    temporary.replace(venv / "spai-lab.json")


def has_venv() -> bool:
    """Whether this Python can create environments; Debian's cannot until a package is added."""
    return all(importlib.util.find_spec(name) for name in ("venv", "ensurepip"))


def make_venv(venv: Path, call: Call, title: str) -> None:
    """Make the environment anew.

    Raises:
        Stop: that failed.
    """
    code, said = call([sys.executable, "-m", "venv", "--clear", str(venv)], title)
    if code != 0:
        shutil.rmtree(str(venv), ignore_errors=True)
        raise Stop(NO_VENV if trouble(said) is None else explained(said))


def bring_proxy(venv: Path, call: Call, title: str) -> bool:
    """Install JupyterHub's proxy into the environment, beside the Node.js that runs it; whether that succeeded."""
    scripts = scripts_python(venv).parent
    path = os.pathsep.join([str(scripts), os.environ.get("PATH", "")])
    npm = ["env", f"PATH={path}", str(scripts / "npm")]
    return call([*npm, "install", "--global", "--no-fund", "--no-audit", "--prefix", str(venv), PROXY], title)[0] == 0


def start(command: Sequence[str], **variables: str) -> int:
    """Run a command in the project's folder and return its exit status."""
    return subprocess.call(list(command), cwd=str(ROOT), env=environment(**variables))


def follow(command: Sequence[str], title: str = "") -> tuple[int, str]:
    """Run a command in the project's folder, with one line about it; return its exit status and what it said.

    Args:
        command: what to run.
        title: begins the line, which ends with the seconds; without a title nothing is shown.
    """
    process = subprocess.Popen(
        list(command),
        cwd=str(ROOT),
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.extend(process.stdout), daemon=True)
    reader.start()
    with ending(process), Line(title) as line:
        while reader.is_alive():
            reader.join(timeout=0.5)
            line.show(next((news.strip() for news in reversed(said) if NEWS.match(news)), ""))
        process.wait()
    return process.returncode, "".join(said)


class Line:
    """One line about work in progress: in a terminal it changes, elsewhere a dot a minute shows that it goes on."""

    def __init__(self, title: str) -> None:
        self.title, self.begin, self.dots = title, time.monotonic(), 0
        self.terminal = sys.stdout.isatty()

    def __enter__(self) -> Line:
        self.write(f"{self.title} ...")
        return self

    def __exit__(self, *_: object) -> None:
        seconds = f"{time.monotonic() - self.begin:.0f} s\n"
        self.write(f"{self.padded(self.title + ':')} {seconds}" if self.terminal else f" {seconds}")

    def show(self, news: str) -> None:
        """Show the time, and what is new, as far as it fits."""
        seconds = int(time.monotonic() - self.begin)
        if self.terminal:
            self.write(self.padded(f"{self.title} ... {seconds} s  {news}"))
        elif seconds // 60 > self.dots:
            self.dots += 1
            self.write(".")

    def padded(self, text: str) -> str:
        """The text over whatever stood in the line."""
        width = shutil.get_terminal_size().columns - 1
        return f"\r{' ' * width}\r{text[:width]}"

    def write(self, text: str) -> None:
        if self.title:
            print(text, end="", flush=True)


@contextlib.contextmanager
def ending(process: subprocess.Popen) -> Iterator[None]:
    """Wait for a process that got Ctrl-C as we did, and end it if it does not go by itself."""
    try:
        yield
    except KeyboardInterrupt:
        try:
            process.wait(timeout=10)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            process.terminate()
            process.wait()
        raise


@contextlib.contextmanager
def alone(root: Path) -> Iterator[None]:
    """Let one program at a time install into a folder; a second one waits. The lock ends with its program."""
    with (root / "pyproject.toml").open("rb") as file:
        if not lock(file.fileno()):
            tell("Another run.py is installing in this folder: this one waits until that is done.")
            while not lock(file.fileno()):
                time.sleep(0.5)
        yield


def lock(file: int) -> bool:
    """Whether an open file is ours alone now; true as well where the file system knows no locks."""
    try:
        if os.name == "nt":
            import msvcrt

            os.lseek(file, 1 << 30, os.SEEK_SET)  # far behind the content, which all may read
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True
    return True


def ensure(
    stage: str,
    root: Path = ROOT,
    call: Call = follow,
    build: str | None = None,
    platform: str = sys.platform,
    version_of: Callable[[Path], str | None] = interpreter_version,
) -> Path:
    """Bring `.venv` to a stage, such as "lab", and do nothing where it is there already.

    Args:
        stage: a key of `STAGES`; "test" includes the others.
        root: the project's folder.
        call: runs a command in that folder under a title, and returns its exit status and what it said.
        build: which torch, as `torch_build` names it.
        platform: as `sys.platform`.
        version_of: the version of an interpreter, or None.
    Returns:
        The interpreter of the environment.
    Raises:
        Stop: something is missing that this program cannot bring.
    """
    venv = root / ".venv"
    python = scripts_python(venv)
    build = build or torch_build(platform=platform)
    with alone(root):
        stamp = read_stamp(venv)
        version = version_of(python)
        fresh = version is None or is_too_old(version) or stamp.get("build", build) != build
        key = fingerprint(root, str(version), build)
        done = stamp.get("stages", []) if stamp.get("key") == key and not fresh else []
        if stage in done or "test" in done:
            return python
        check_folder(root)
        if fresh and not has_venv():
            raise Stop(NO_VENV)
        if not stamp or fresh:
            check_room(root, 0 if fresh else size(venv), build)
            tell(
                f"SPAI Lab gets an environment of its own, once: {venv}, about {ROOM[kind(build)][0]:.1f} GB, "
                "a few minutes. Ctrl-C is safe: the next start goes on."
            )
        else:
            tell(f"Adding what `{stage}` needs to the environment {venv}.")
        try:
            install(stage, venv, call, build, platform, fresh)
        except KeyboardInterrupt:
            raise Stop("Interrupted. What arrived stays: start again to go on.") from None
        write_stamp(
            venv, {"key": fingerprint(root, str(version_of(python)), build), "build": build, "stages": [*done, stage]}
        )
    return python


def install(stage: str, venv: Path, call: Call, build: str, platform: str, fresh: bool) -> None:
    """Make the environment if `fresh`, and install torch, the packages of a stage, and what can be had besides.

    Raises:
        Stop: one of them cannot be had; says why, as far as that is known.
    """
    python, extras = scripts_python(venv), WHERE_POSSIBLE.get(stage, {})
    proxy = stage in ("hub", "test") and platform.startswith("linux")
    last = fresh + 1 + len(STAGES[stage]) + len(extras) + bool(extras) + proxy
    numbers = count(1)

    def title(name: str) -> str:
        return f"({next(numbers)} of {last}) {name}"

    def need(name: str, arguments: Sequence[str], options: Sequence[str] = ()) -> None:
        code, said = call([*pip_install(python, *options), *arguments], name)
        if code != 0:
            raise Stop(explained(said))

    patience = ["--retries", "1", "--timeout", "15"] if dead_proxy() is None else ["--retries", "0", "--timeout", "5"]
    if fresh:
        make_venv(venv, call, title("the environment"))
    name = title("torch")
    need(name, torch_arguments(python, build, platform, call, name, patience), patience)
    for arguments in STAGES[stage]:
        need(title("JupyterLab and the other packages" if "-e" in arguments else arguments[-1]), arguments)
    for name, arguments in extras.items():
        if call([*pip_install(python), *arguments], title(name))[0] != 0:
            tell(f"{name} has no wheel here, or none that can be reached: chapters say what they do without.")
    if proxy and not bring_proxy(venv, call, title("the hub's proxy")):
        if stage == "hub":
            raise Stop(f"npm could not bring {PROXY}, without which no hub starts; start again to try once more.")
        tell(f"npm could not bring {PROXY}: the tests of the hub are skipped.")
    if extras:
        call([str(python), "-c", FIRST_IMPORTS], title("compiling what the first chapters import"))


# --- what can be in the way ------------------------------------------------------------------------------------------


def kind(build: str) -> str:
    """Whether a build of torch is for the CPU, "cpu", or for a GPU, "cuda"."""
    return "cpu" if build == "cpu" else "cuda"


def size(folder: Path) -> int:
    """The bytes in a folder's files."""
    files = (Path(place) / name for place, _, names in os.walk(str(folder)) for name in names)
    return sum(file.lstat().st_size for file in files)


def is_too_old(version: str) -> bool:
    """Whether the workbook does not run on this version of Python, such as "3.9.18"."""
    return tuple(map(int, version.split(".")[:2])) < OLDEST_PYTHON


def check_python(version: Sequence[int], bits: int) -> None:
    """See that the workbook runs on this Python.

    Raises:
        Stop: it does not; says which to take.
    """
    if tuple(version[:2]) < OLDEST_PYTHON:
        here, needed = (".".join(map(str, numbers[:2])) for numbers in (version, OLDEST_PYTHON))
        raise Stop(
            f"SPAI Lab needs Python {needed} or later; this is {here}. Start it with a newer one, for example "
            "`python3.12 run.py lab`, or get one from https://www.python.org."
        )
    if bits < 64:
        raise Stop(
            "This Python has 32 bits, for which there is no torch: get the 64-bit one from https://www.python.org."
        )


def check_folder(root: Path) -> None:
    """See that the project's folder can be written.

    Raises:
        Stop: it cannot.
    """
    try:
        tempfile.TemporaryFile(dir=str(root)).close()
    except OSError as error:
        raise Stop(
            f"The project's folder {root} cannot be written ({error.strerror}). The environment and your work go "
            "there: copy the folder to a place of your own, and start there."
        ) from None


def check_room(root: Path, there: int, build: str, free: Callable[[Path], int] | None = None) -> None:
    """See that the installation has room on the disk.

    Args:
        root: the project's folder.
        there: bytes that an interrupted installation left.
        build: which torch.
        free: the free bytes where a folder is; looked up if left out.
    Raises:
        Stop: there is too little room; says where, and what helps.
    """
    free = free or (lambda folder: shutil.disk_usage(str(folder)).free)
    needed, passing = ROOM[kind(build)]
    needed = max(needed - there / 1e9, 0.0)
    try:
        temporary = Path(tempfile.gettempdir())
    except OSError:
        raise Stop(
            f"There is no folder for temporary files that can be written. Free some space, or {MORE_ROOM}."
        ) from None
    together = root.stat().st_dev == temporary.stat().st_dev
    rows = [(root, needed + passing * together, "move the project to a disk with more room")]
    rows += [] if together else [(temporary, passing, MORE_ROOM)]
    for folder, least, way in rows:
        if free(folder) < least * 1e9:
            raise Stop(
                f"Too little disk: {folder} has {free(folder) / 1e9:.1f} GB free, and the installation needs "
                f"{least:.1f} GB there. Free some space, or {way}."
            )


def dead_proxy(
    environ: Mapping[str, str] = os.environ, connect: Callable[..., socket.socket] = socket.create_connection
) -> str | None:
    """What to say about a proxy that is set and does not answer; None where all is well. Hides its password."""
    name = next((name for name in PROXIES if environ.get(name)), None)
    if name is None:
        return None
    value = environ[name]
    try:
        parts = urlsplit(value if "//" in value else f"//{value}")
        shown = f"{parts.scheme or 'http'}://{parts.hostname}:{parts.port or 80}"
        connect((parts.hostname, parts.port or 80), 5).close()
        return None
    except ValueError:
        return f"{name} is no address of a proxy: it looks like http://HOST:PORT."
    except OSError:
        return (
            f"{name} is {shown}, and no proxy answers there. Correct it, or unset {name} where the network needs none."
        )


def trouble(said: str) -> tuple[str, str] | None:
    """The line in which pip says what is missing, and what to do about it; None where that is not known."""
    for pattern, advice in TROUBLES:
        found = re.search(f".*(?:{pattern}).*", said)
        if found:
            return found[0], advice.format(room=MORE_ROOM, python=machine.python_version())
    return None


def explained(said: str) -> str:
    """Why pip failed, in its own words, then what helps."""
    lines = [line for line in said.splitlines() if line.strip()][-8:]
    advice = "pip could not install everything; README.md, Troubleshooting, says what may help."
    known = trouble(said)
    if known is not None:
        lines, advice = [known[0]], known[1]
        if "network" in advice:
            advice = dead_proxy() or advice
    return "\n".join(
        [*(f"    {line.strip()[:300]}" for line in lines), advice, "What arrived stays: start again to go on."]
    )


# --- the lab ---------------------------------------------------------------------------------------------------------


def tell(message: str) -> None:
    """Print at once, also where the output goes to a file."""
    print(message, flush=True)


def environment(**variables: str) -> dict[str, str]:
    """The variables of the programs started here: UTF-8 everywhere, and the kernel of `.venv` before the user's own.

    What leads Python and pip to packages elsewhere, as conda and robots' software set it, is left out.
    """
    kept = {name: value for name, value in os.environ.items() if name not in ELSEWHERE}
    return {**kept, "PYTHONUTF8": "1", "JUPYTER_PREFER_ENV_PATH": "1", "PIP_USER": "0", **variables}


def package(python: Path, *arguments: str) -> list[str]:
    """The command `spai-lab` of an interpreter."""
    return [str(python), "-m", "spai_lab", *arguments]


def is_free(port: int) -> bool:
    """Whether a server could take this port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def choose_port(wanted: int | None = None, free: Callable[[int], bool] = is_free) -> int:
    """The port that was asked for, or the first free one from 8888 on.

    Raises:
        Stop: the wanted port is taken.
    """
    if wanted is None:
        return next((port for port in range(FIRST_PORT, FIRST_PORT + 100) if free(port)), 0)
    if not free(wanted):
        raise Stop(f"Port {wanted} is taken. Choose another, or leave --port out: then a free one is found.")
    return wanted


def quiet_lab(venv: Path) -> None:
    """Switch off JupyterLab's news, a warning of its kernels, and what other programs add to it.

    The user's own settings still win.
    """
    files = {venv / "etc" / "jupyter" / name: content for name, content in WITHOUT_ADDITIONS.items()}
    files[venv / "etc" / "ipython" / "ipython_kernel_config.json"] = QUIET_KERNEL
    files[venv / "share" / "jupyter" / "lab" / "settings" / "overrides.json"] = QUIET_SETTINGS
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def is_root() -> bool:
    """Whether we are the administrator, as in many containers: JupyterLab then wants to be told that it may start."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


def lab_command(python: Path, my: Path, port: int, browser: bool, extra: Sequence[str]) -> list[str]:
    """The command that serves the student's folder to this machine alone, with Jupyter's token."""
    command = [str(python), "-m", "jupyterlab", f"--ServerApp.root_dir={my}", "--ServerApp.ip=127.0.0.1"]
    command += [f"--ServerApp.port={port}", "--ServerApp.answer_yes=True"]
    if (my / "00_start_here.ipynb").exists():
        command.append("--LabApp.default_url=/lab/tree/00_start_here.ipynb")
    command.append("--Application.log_level=ERROR")
    if is_root():
        command.append("--allow-root")
    return command + ([] if browser else ["--no-browser"]) + list(extra)


def serve(command: Sequence[str], ready: Callable[[], None] = lambda: None, **variables: str) -> int:
    """Run a server until it ends or Ctrl-C is pressed; the server receives that too, and closes its kernels first.

    Args:
        command: starts the server.
        ready: called beside it, to say when it answers.
        variables: of its environment.
    """
    process = subprocess.Popen(list(command), cwd=str(ROOT), env=environment(**variables))
    threading.Thread(target=ready, daemon=True).start()
    try:
        with ending(process):
            return process.wait()
    except KeyboardInterrupt:
        return 0


def can_open_browser(environ: Mapping[str, str] = os.environ, platform: str = sys.platform) -> bool:
    """Whether a browser can open on this machine's own screen."""
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    if any(environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")):
        return True
    # Without a screen Linux has browsers that fill the terminal; over ssh the screen is not where the person sits.
    return not platform.startswith("linux") and "SSH_CONNECTION" not in environ


def where_to_look(port: int, opens: bool, environ: Mapping[str, str] = os.environ) -> str:
    """What to do to see the page; `opens` says that a browser does it."""
    ssh = environ.get("SSH_CONNECTION", "").split()
    if opens:
        return "Your browser opens it now; if not, copy the address there."
    if len(ssh) == 4:
        user = environ.get("USER") or environ.get("LOGNAME") or "USER"
        tunnel = f"ssh -L {port}:127.0.0.1:{port} {user}@{ssh[2]}"
        return f"You are here by ssh: run `{tunnel}` on your own machine, and open the address in the browser there."
    return "Open this address in a browser on this machine."


def announce(python: Path, port: int, opens: bool, token: str, patience: float = 180.0) -> None:
    """Wait until JupyterLab answers, then say where it is and what to do first.

    Args:
        python: the environment's interpreter.
        port: where it shall listen; where that was taken meanwhile, it listens elsewhere.
        opens: whether a browser opens by itself.
        token: what we gave it.
        patience: seconds.
    """
    with contextlib.suppress(subprocess.TimeoutExpired, ValueError):
        answer = subprocess.run(
            [str(python), "-c", ADDRESS, str(port), str(time.time() - 2)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            timeout=patience,
            env=environment(JUPYTER_TOKEN=token),
        )
        url, token, port = json.loads(answer.stdout)
        page = url + (f"?token={token}" if token else "")
        tell(f"\nThe workbook is open at\n\n    {page}\n\n{where_to_look(port, opens)}\n{FIRST_STEPS}")


def fetch(python: Path, patience: float = FETCH_PATIENCE) -> None:
    """Fetch MNIST where it is missing; without it the embedded digits serve.

    Args:
        python: the environment's interpreter.
        patience: seconds until a mirror must have answered; a network may swallow everything.
    """
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "bufsize": 0}
    process = subprocess.Popen([str(python), "-c", FETCH], cwd=str(ROOT), env=environment(), **pipes)
    seen = threading.Event()

    def show(stream: IO[bytes]) -> None:
        for chunk in iter(partial(os.read, stream.fileno(), 1 << 16), b""):
            seen.set()
            sys.stdout.write(chunk.decode("utf-8", "replace"))
            sys.stdout.flush()

    with ending(process):
        process.stdout.readline()  # it begins
        readers = [threading.Thread(target=show, args=(s,), daemon=True) for s in (process.stdout, process.stderr)]
        for reader in readers:
            reader.start()
        end = time.monotonic() + patience
        while process.poll() is None and (seen.is_set() or time.monotonic() < end):
            time.sleep(0.1)
        if process.poll() is None:
            process.kill()
            tell("MNIST's mirrors do not answer; the embedded digits serve. The next start tries again.")
        process.wait()
        for reader in readers:
            reader.join(timeout=5)


def lab(options: argparse.Namespace) -> int:
    check_folder(ROOT)
    choose_port(options.port)
    python = ensure("lab")
    my = ROOT / "my"
    if not options.offline:
        fetch(python)
    if start(package(python, "copy")) != 0:
        return 1
    quiet_lab(ROOT / ".venv")
    port = choose_port(options.port)  # again: an installation gives others time to take it
    opens = options.browser and can_open_browser()
    tell("JupyterLab starts: some seconds, the first time more.")
    command = lab_command(python, my, port, opens, options.extra)
    token = secrets.token_hex(16)  # not in the command, which others on this machine can see
    return serve(command, lambda: announce(python, port, opens, token), SPAI_MY=str(my), JUPYTER_TOKEN=token)


# --- the tests -------------------------------------------------------------------------------------------------------


def watch(command: Sequence[str], **variables: str) -> tuple[int, str]:
    """Run a command, show what it prints, and return its exit status and pytest's closing line, if there is one."""
    process = subprocess.Popen(
        list(command),
        cwd=str(ROOT),
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    closing = ""
    for line in process.stdout:
        print(line, end="", flush=True)
        closing = line.strip() if CLOSING_LINE.fullmatch(line.strip()) else closing
    return process.wait(), closing


def has_mnist(python: Path) -> tuple[bool, str]:
    """Whether MNIST is on this machine, and what `spai-lab data` says about it."""
    answer = subprocess.run(
        package(python, "data", "mnist"),
        cwd=str(ROOT),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    return answer.returncode == 0, (answer.stdout.strip().splitlines() or ["no answer"])[-1]


def checks(python: Path, full: bool, mnist: bool, extra: Sequence[str] = ()) -> list[tuple[str, list[str], dict]]:
    """What `test` runs, as rows of title, command and variables.

    Args:
        python: the environment's interpreter.
        full: whether the long tests run too.
        mnist: whether the notebooks run on MNIST too.
        extra: arguments for pytest, which then runs alone.
    """
    pytest = [str(python), "-m", "pytest", "-n", str(min(2, os.cpu_count() or 1)), "--dist", "loadscope"]
    tests = pytest if full else [*pytest, "-m", "not full"]
    one_thread = {"OMP_NUM_THREADS": "1", "SPAI_FULL": "1" if full else ""}
    if extra:
        return [("pytest", [*tests, *extra], one_thread)]
    data_sets = ["digits", "mnist"] if mnist else ["digits"]
    return [
        ("ruff check", [str(python), "-m", "ruff", "check"], {}),
        ("ruff format", [str(python), "-m", "ruff", "format", "--check"], {}),
        ("unit, doctest, oracle, property and browser tests", tests, one_thread),
        *((f"notebooks on {name}", [*pytest, "notebooks"], {**one_thread, "SPAI_DATASET": name}) for name in data_sets),
    ]


def test(options: argparse.Namespace) -> int:
    python = ensure("test")
    quiet_lab(ROOT / ".venv")  # the browser's tests see JupyterLab as students do
    mnist, answer = has_mnist(python)
    summary = []
    for title, command, variables in checks(python, options.full, mnist, options.extra):
        tell(f"\n--- {title}")
        code, closing = watch(command, **variables)
        summary.append((code, f"{'FAILED' if code else 'passed'}   {title}  {closing}".rstrip()))
    if not mnist and not options.extra:
        summary.append((0, f"skipped  notebooks on mnist: {answer}"))
    tell("\n" + "\n".join(line for _, line in summary))
    return int(any(code for code, _ in summary))


# --- the other commands ----------------------------------------------------------------------------------------------


def notebooks(options: argparse.Namespace) -> int:
    return start(package(ensure("test"), "notebooks", *options.names, *options.extra))


def models(options: argparse.Namespace) -> int:
    return start(package(ensure("lab"), "models", *options.names, *options.extra))


def bench(options: argparse.Namespace) -> int:
    return start([str(ensure("test")), "-m", "benchmarks", *options.extra])


def survey(options: argparse.Namespace) -> int:
    """Ctrl-C reaches the survey, too, which keeps what it measured and ends its workers."""
    return serve(package(ensure("lab"), "survey", "--profile", options.profile, *options.extra))


def book(options: argparse.Namespace) -> int:
    """Ctrl-C reaches the builder, too, which keeps the pictures that it drew."""
    only = ["--only", *options.only] if options.only else []
    return serve(package(ensure("book"), "book", *only, "--out", str(options.out), *options.extra))


def doctor(options: argparse.Namespace) -> int:
    """Works without an environment: it is there for the machine on which the installation fails."""
    python = scripts_python(ROOT / ".venv")
    return start(package(python if interpreter_version(python) else Path(sys.executable), "doctor"))


def lecture(options: argparse.Namespace) -> int:
    """Ctrl-C reaches the server, too, which ends the kernels of the chapters that are open."""
    port = choose_port(options.port)
    command = [str(ensure("lecture")), "-m", "spai_lab.lecture", "--port", str(port)]
    return serve([*command, *([] if options.browser else ["--no-browser"]), *options.extra])


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(
        prog="run.py", description=__doc__, epilog="What follows -- goes to the program that is started."
    )
    commands = top.add_subparsers(dest="command", metavar="command", required=True)

    def command(name: str, function: Callable[[argparse.Namespace], int], summary: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=summary, description=summary)
        sub.set_defaults(function=function)
        return sub

    sub = command("lab", lab, "install what is missing and open the workbook")
    sub.add_argument("--port", type=int, help="port of the server; the first free one from 8888 on if left out")
    sub.add_argument("--no-browser", dest="browser", action="store_false", help="print the address, open no browser")
    sub.add_argument("--offline", action="store_true", help="do not look for MNIST on the network")
    sub = command("test", test, "run what CI runs; where arguments follow --, pytest alone with these")
    sub.add_argument("--full", action="store_true", help="the long tests too")
    sub = command("notebooks", notebooks, "execute the chapters on MNIST and store their figures")
    sub.add_argument("names", nargs="*", help="beginnings of chapters' names, such as 02; all if left out")
    sub = command("models", models, "train the reference weights again, those that are not up to date")
    sub.add_argument("names", nargs="*", help="models, such as lenet-mnist; all if left out")
    command("bench", bench, "time our attacks against the libraries that users would pick instead")
    sub = command("survey", survey, "measure every method of the survey; `-- --help` lists more options")
    sub.add_argument("--profile", choices=["quick", "full"], default="quick", help="quick: digits; full: MNIST, faces")
    command("doctor", doctor, "say what this machine has, and what to do about what it lacks")
    sub = command("book", book, "build the workbook as web pages that need neither a kernel nor a network")
    sub.add_argument(
        "--only", nargs="+", metavar="NAME", help="beginnings of chapters' names, such as 02; all if left out"
    )
    sub.add_argument("--out", type=Path, default=ROOT / "build" / "book", metavar="FOLDER", help="default: build/book")
    sub = command("lecture", lecture, "project the chapters: full-screen pages without code, their sliders alive")
    sub.add_argument("--port", type=int, help="port of the server; the first free one from 8888 on if left out")
    sub.add_argument("--no-browser", dest="browser", action="store_false", help="print the address, open no browser")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    options = parser().parse_args(arguments[:cut])
    options.extra = arguments[cut + 1 :]
    try:
        check_python(sys.version_info, 8 * struct.calcsize("P"))
        return options.function(options)
    except Stop as stop:
        print(stop, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")
    sys.exit(main())

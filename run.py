#!/usr/bin/env python3
"""SPAI Lab from a fresh machine: `python3 run.py lab` opens the workbook, `python3 run.py test` checks it.

Needs Python 3.11 or later and nothing else, on Linux, macOS and Windows; builds the environment `.venv` beside itself.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent
OLDEST_PYTHON = (3, 11)
FIRST_PORT = 8888
TORCH_WHEELS = "https://download.pytorch.org/whl/"
CUDA_PACKAGE = re.compile(r"(nvidia|cuda)-|(pytorch-)?triton")
CLOSING_LINE = re.compile(r"(=+ )?(\d+ \w+|no tests ran).* in [\d.]+s\b.*")
STAGES = {
    "lab": [["-e", ".[lab]"]],
    "book": [["-e", ".[book]"]],
    "lecture": [["-e", ".[lab,lecture]"]],
    "test": [["-e", ".[lab,book,lecture,test,oracles]"], ["--no-deps", "torchattacks"]],
}
TENSEAL = {"TenSEAL": ["--only-binary", "tenseal", "-e", ".[he]"]}  # chapter 14 does without where no wheel exists
WHERE_POSSIBLE = {"lab": TENSEAL, "lecture": TENSEAL}
# JupyterLab asks no news server, and no pop-up covers the first chapter.
QUIET_SETTINGS = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}}
# Voila, installed for lectures, adds a button and a server to JupyterLab, which stays as it is without it.
WITHOUT_VOILA = {
    "jupyter_server_config.d/zz-spai-lab.json": {
        "ServerApp": {"jpserver_extensions": {"voila.server_extension": False}}
    },
    "labconfig/page_config.json": {"disabledExtensions": {"@voila-dashboards/jupyterlab-preview": True}},
}


class Stop(Exception):
    """Why nothing more can be done, and what to do about it, in a sentence for the person at the keyboard."""


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


def pip_install(python: Path) -> list[str]:
    """The beginning of every installation."""
    return [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--constraint", "constraints.txt"]


def planned(python: Path, arguments: Sequence[str], call: Callable[[Sequence[str]], int]) -> dict | None:
    """What pip would install, as its own report; None where it finds nothing that fits."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        code = call([*pip_install(python), "-qq", "--dry-run", "--report", str(report), *arguments])
        return json.loads(report.read_text(encoding="utf-8")) if code == 0 and report.exists() else None


def torch_arguments(python: Path, build: str, platform: str, call: Callable[[Sequence[str]], int]) -> list[str]:
    """What to tell pip about torch, so that no CUDA package reaches a machine without a GPU.

    Raises:
        Stop: the CPU build is wanted, and only a CUDA build can be had.
    """
    if build == "cuda":
        return ["torch"]
    if build != "cpu":
        return ["torch", "--extra-index-url", TORCH_WHEELS + build]
    if not platform.startswith("linux"):
        return ["torch"]  # PyPI's wheels for macOS and Windows hold no CUDA
    ways = (["torch"], ["torch", "--extra-index-url", TORCH_WHEELS + "cpu"])
    for arguments in ways:
        report = planned(python, [*arguments, "--retries", "1", "--timeout", "15"], call)
        if report is not None and not cuda_packages(report):
            return arguments
    raise Stop(
        "Only torch's CUDA build (several GB) can be reached from here, and this machine shows no NVIDIA GPU. "
        f"Make {TORCH_WHEELS}cpu reachable (see README.md, Troubleshooting), or set SPAI_TORCH=cuda to take that build."
    )


def interpreter_version(python: Path) -> str | None:
    """The version of an environment's interpreter, or None where it does not start."""
    command = [str(python), "-c", "import sys; print(*sys.version_info[:3], sep='.')"]
    try:
        answer = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8")
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


def make_venv(venv: Path, call: Callable[[Sequence[str]], int]) -> None:
    """Make the environment anew.

    Raises:
        Stop: this Python lacks the module for it.
    """
    if not has_venv() or call([sys.executable, "-m", "venv", "--clear", str(venv)]) != 0:
        shutil.rmtree(str(venv), ignore_errors=True)
        raise Stop(
            "This Python cannot create environments. On Debian and Ubuntu install the module with "
            "`sudo apt install python3-venv`; elsewhere install Python from https://www.python.org. Then start again."
        )


def start(command: Sequence[str], **variables: str) -> int:
    """Run a command in the project's folder and return its exit status."""
    return subprocess.call(list(command), cwd=str(ROOT), env=environment(**variables))


def ensure(
    stage: str,
    root: Path = ROOT,
    call: Callable[[Sequence[str]], int] = start,
    build: str | None = None,
    platform: str = sys.platform,
    version_of: Callable[[Path], str | None] = interpreter_version,
) -> Path:
    """Bring `.venv` to a stage, such as "lab", and do nothing where it is there already.

    Args:
        stage: a key of `STAGES`; "test" includes the others.
        root: the project's folder.
        call: runs a command in that folder and returns its exit status.
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
    stamp = read_stamp(venv)
    version = version_of(python)
    if version is None or stamp.get("build", build) != build:
        tell(f"Making the environment {venv}.")
        make_venv(venv, call)
        stamp, version = {}, version_of(python)
    key = fingerprint(root, str(version), build)
    done = stamp.get("stages", []) if stamp.get("key") == key else []
    if stage in done or "test" in done:
        return python
    tell("Installing, torch first: about 1.6 GB, a few minutes, this once.")
    for arguments in [torch_arguments(python, build, platform, call), *STAGES[stage]]:
        if call([*pip_install(python), *arguments]) != 0:
            raise Stop(
                "pip could not install everything; its message above says why, README.md, Troubleshooting, what helps. "
                "What arrived stays: start again to go on."
            )
    for name, arguments in WHERE_POSSIBLE.get(stage, {}).items():
        if call([*pip_install(python), *arguments]) != 0:
            tell(f"{name} has no wheel here, or none that can be reached: chapters say what they do without.")
    write_stamp(venv, {"key": key, "build": build, "stages": [*done, stage]})
    return python


# --- the lab ---------------------------------------------------------------------------------------------------------


def tell(message: str) -> None:
    """Print at once, also where the output goes to a file."""
    print(message, flush=True)


def environment(**variables: str) -> dict[str, str]:
    """The variables of the programs started here: UTF-8 everywhere, and the kernel of `.venv` before the user's own."""
    return {**os.environ, "PYTHONUTF8": "1", "JUPYTER_PREFER_ENV_PATH": "1", **variables}


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
    """Switch off JupyterLab's news, and what Voila would add to it; the user's own settings still win."""
    files = {venv / "etc" / "jupyter" / name: content for name, content in WITHOUT_VOILA.items()}
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
    if is_root():
        command.append("--allow-root")
    return command + ([] if browser else ["--no-browser"]) + list(extra)


def serve(command: Sequence[str], **variables: str) -> int:
    """Run a server until it ends or Ctrl-C is pressed; the server receives that too, and closes its kernels first."""
    process = subprocess.Popen(list(command), cwd=str(ROOT), env=environment(**variables))
    try:
        return process.wait()
    except KeyboardInterrupt:
        try:
            process.wait(timeout=10)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            process.terminate()
            process.wait()
        return 0


def lab(options: argparse.Namespace) -> int:
    port = choose_port(options.port)
    python = ensure("lab")
    my = ROOT / "my"
    if not options.offline:
        start(package(python, "fetch", "--brief"))  # without MNIST the embedded digits serve
    if start(package(python, "copy")) != 0:
        return 1
    quiet_lab(ROOT / ".venv")
    tell(f"JupyterLab starts on port {port}. Ctrl-C here ends it; your work is kept in my/.")
    return serve(lab_command(python, my, port, options.browser, options.extra), SPAI_MY=str(my))


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
        if sys.version_info < OLDEST_PYTHON:
            here, needed = (".".join(map(str, version[:2])) for version in (sys.version_info, OLDEST_PYTHON))
            raise Stop(
                f"SPAI Lab needs Python {needed} or later; this is {here}. Start it with a newer one, for example "
                "`python3.12 run.py lab`, or get one from https://www.python.org."
            )
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

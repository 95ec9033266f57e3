#!/usr/bin/env python3
"""Set up or update the workbook for a class: `sudo python3 deploy/install.py` on one machine, `--image` in a container.

Standard library only. It writes the edition without answers, its environment, MNIST for all and, on one machine, the
groups, the folder of the class and the service of the hub. Whatever is there and up to date stays as it is; no home is
touched.
"""

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

SOURCE = Path(__file__).resolve().parents[1]
STATE = Path("/var/lib/spai-lab")
SERVICE = "spai-lab-hub.service"
UNITS = Path("/etc/systemd/system")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("/opt/spai-lab"), help="where the workbook goes")
    parser.add_argument("--image", action="store_true", help="one student's container: neither hub nor accounts")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("This sets up a service and must be run by root: sudo python3 deploy/install.py", file=sys.stderr)
        return 1
    os.umask(0o022)
    workbook = options.folder.resolve()
    module("edition", SOURCE / "deploy" / "edition.py").write_edition(SOURCE, workbook)
    run = module("run", workbook / "run.py")
    try:
        python = run.ensure("student" if options.image else "hub", root=workbook)
    except run.Stop as stop:
        print(stop, file=sys.stderr)
        return 1
    run.quiet_lab(workbook / ".venv")
    compile_once(python, workbook)
    fetch(python, run)
    if not options.image:
        make_class_folder(STATE / "class")
        make_service(workbook)
    return 0


def module(name: str, file: Path) -> ModuleType:
    """A program as a module."""
    spec = importlib.util.spec_from_file_location(name, file)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def call(command: Sequence[object]) -> int:
    """Run a command and return its exit status."""
    return subprocess.call(list(map(str, command)))


def compile_once(python: Path, workbook: Path) -> None:
    """Byte code of package and libraries, since students may not write it and would compile at each start."""
    folders = (workbook / "spai_lab", workbook / ".venv" / "lib")
    call([python, "-m", "compileall", "-qq", "-j", 0, *folders])


def fetch(python: Path, run: ModuleType) -> None:
    """MNIST in one place, as a file that all students map: copied from SPAI_DATA, else downloaded, else without."""
    data = STATE / "data"
    (data / "mnist").mkdir(parents=True, exist_ok=True)
    own = Path(os.environ.get("SPAI_DATA", data)).expanduser() / "mnist"
    if own.is_dir() and own.resolve() != (data / "mnist").resolve():
        for file in own.glob("*-ubyte*"):
            shutil.copyfile(file, data / "mnist" / file.name)
    environment = run.environment(SPAI_CACHE=str(data), SPAI_DATA=str(data))
    subprocess.call(run.package(python, "fetch", "--share"), env=environment)


def make_class_folder(folder: Path) -> None:
    """The groups, and a folder in which the class shares the arena's board: all may write, none may remove."""
    groups = module("accounts", SOURCE / "spai_lab" / "hub" / "accounts.py").GROUPS
    for group in groups:
        if subprocess.run(["getent", "group", group], stdout=subprocess.DEVNULL).returncode != 0:
            call(["groupadd", group])
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    board = folder / "board.jsonl"
    board.touch()
    shutil.chown(board, group=groups[0])
    board.chmod(0o664)


def make_service(workbook: Path) -> None:
    """The hub as a service where systemd runs; elsewhere the command that starts it."""
    unit = service_text(workbook)
    if not Path("/run/systemd/system").is_dir():
        start = next(line for line in unit.splitlines() if line.startswith("ExecStart="))
        print(f"systemd does not run here. The hub starts with:\n  {start.removeprefix('ExecStart=')}")
        return
    (UNITS / SERVICE).write_text(unit, encoding="utf-8")
    call(["systemctl", "daemon-reload"])
    print(f"Start the hub, now and at each boot: systemctl enable --now {SERVICE}")


def service_text(workbook: Path) -> str:
    """The unit of the hub, with the folder in which the workbook lies."""
    return (workbook / "deploy" / SERVICE).read_text(encoding="utf-8").replace("/opt/spai-lab", str(workbook))


if __name__ == "__main__":
    sys.exit(main())

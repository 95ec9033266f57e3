"""A process that has loaded the libraries, and of which the process of each submission is a copy, made in a moment.

Loading them takes seconds, copying takes hundredths of one. No submission ever runs in the nursery itself. Between the
nursery and a submission stands an attendant: it says when the submission's process ended and how, and ends whatever the
submission left behind, also what left its group. Linux only; elsewhere each process is started anew.
"""

import ctypes
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

PIPES = 6  # to and from the process, what it prints, how it ended, to and from its twin
ADOPT = 36  # PR_SET_CHILD_SUBREAPER: whoever loses its parent becomes a child of the attendant


def serve(control: socket.socket) -> None:
    """Make a process for each request: the name of its folder, and its end of the pipes. Ends when nobody asks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the arena
    while True:
        folder, pipes, *_ = socket.recv_fds(control, 4096, PIPES)
        if not folder:
            return
        if os.fork() == 0:
            control.close()
            attend(folder.decode(), *pipes)
        for pipe in pipes:
            os.close(pipe)
        with suppress(ChildProcessError):  # forget the attendants that are done
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def attend(folder: str, questions: int, answers: int, printed: int, status: int, *twin: int) -> NoReturn:
    """Start a submission's process, tell its number, how it ended, and how many escaped from its group."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(ADOPT, 1, 0, 0, 0)
    if (number := os.fork()) == 0:
        os.close(status)
        begin(folder, questions, answers, printed, *twin)
    for pipe in (questions, answers, printed, *twin):
        os.close(pipe)
    with suppress(OSError):  # the arena may be gone
        os.write(status, f"{number}\n".encode())
        code = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
        os.write(status, f"{code}\n".encode())
    escaped = end_orphans(number)
    with suppress(OSError):
        os.write(status, f"{escaped}\n".encode())
    os._exit(0)


def begin(folder: str, questions: int, answers: int, printed: int, *twin: int) -> NoReturn:
    """Become a submission's process: a session, a folder and a home of its own, and nothing open but its pipes."""
    import numpy as np

    from spai_lab.arena import child

    try:
        os.setsid()
        os.chdir(folder)
        os.environ.update(home(folder))
        tempfile.tempdir = None
        random.seed()
        np.random.seed()  # noqa: NPY002, the global state that a submission may draw from
        for pipe, place in ((questions, 0), (answers, 1), (printed, 2)):
            os.dup2(pipe, place)
            os.close(pipe)
        child.serve(twin)
    finally:
        os._exit(1)


def home(folder: str) -> dict[str, str]:
    """The variables that name a home and places for temporary files, all of them one folder."""
    return dict.fromkeys(("HOME", "USERPROFILE", "TMPDIR", "TEMP", "TMP", "SPAI_CACHE", "MPLCONFIGDIR"), folder)


def end_orphans(group: int) -> int:
    """End all children of this process, which are what a submission left behind; how many were not of its group."""
    escaped = set()
    with suppress(ChildProcessError):
        while True:
            for number in children():
                with suppress(ProcessLookupError):
                    if os.getpgid(number) != group and not ended(number):
                        escaped.add(number)
                    os.kill(number, signal.SIGKILL)
            os.waitpid(-1, 0)
    return len(escaped)


def children() -> list[int]:
    """The processes whose parent this one is."""
    return [int(place.name) for place in Path("/proc").glob("[0-9]*") if stat(place)[1:2] == [str(os.getpid())]]


def ended(number: int) -> bool:
    """Whether a process is over and waits to be forgotten."""
    return stat(Path(f"/proc/{number}"))[:1] in ([], ["Z"])


def stat(place: Path) -> list[str]:
    """State, parent and more of a process; nothing if it is gone."""
    try:
        return (place / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def load_libraries() -> None:
    """Import what submissions and their opponents need. None of it starts a thread or draws a number."""
    from spai_lab.arena import child, opponents  # noqa: F401


if __name__ == "__main__":
    descriptor, own_folder = sys.argv[1:]
    load_libraries()
    with socket.socket(fileno=int(descriptor)) as line:
        serve(line)
    shutil.rmtree(own_folder, ignore_errors=True)

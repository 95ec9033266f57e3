"""Starting and ending the process of a submission: on Linux a copy of the nursery, elsewhere a new one."""

import atexit
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import lru_cache
from threading import Lock
from typing import BinaryIO

from spai_lab.arena.limits import forks, groups
from spai_lab.arena.nursery import PIPES, home

WAKING = 120.0  # seconds in which the process may start: the libraries' time, not the submission's
READ_THERE = (0, 4)  # of the pipes those that the process reads
ASKING = Lock()  # one request at a time
ENDING = 5.0  # seconds in which an ended process is gone
KEPT = ("PATH", "SYSTEMROOT", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def environment(folder: str) -> dict[str, str]:
    """What the process knows of the system: where programs and packages are, and a home that is thrown away."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    paths = os.pathsep.join(path for path in sys.path if path)
    python = {"PYTHONPATH": paths, "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1", "TQDM_DISABLE": "1"}
    return {**kept, **home(folder), **ONE_THREAD, **python}


class Started:
    """A process that begins by loading the libraries.

    Args:
        folder: its home.
    """

    twin: tuple[BinaryIO, BinaryIO] | None = None
    escaped = 0

    def __init__(self, folder: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "spai_lab.arena.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env=environment(folder),
            start_new_session=True,
        )
        self.pid = self.process.pid
        self.stdin, self.stdout, self.stderr = self.process.stdin, self.process.stdout, self.process.stderr

    def wait(self, seconds: float) -> int | None:
        """How it ended, negative where a signal did it; None if it is still there after so many seconds."""
        with suppress(subprocess.TimeoutExpired):
            return self.process.wait(timeout=seconds)
        return None

    def kill(self) -> None:
        """End it, and where the system has groups of processes, all that it started."""
        kill(self.pid) if groups() else self.process.kill()

    def close(self) -> None:
        """End it and wait until it is gone."""
        self.kill()
        self.process.wait()


class Copied:
    """A process that is a copy of the nursery.

    Args:
        folder: its home.
        control: the line to the nursery.
    Raises:
        OSError: the nursery is gone, or makes none.
    """

    def __init__(self, folder: str, control: socket.socket) -> None:
        ends = [os.pipe() for _ in range(PIPES)]
        reads = [k in READ_THERE for k in range(PIPES)]
        theirs = [end[not there] for end, there in zip(ends, reads, strict=True)]
        ours = [os.fdopen(end[there], "wb" if there else "rb") for end, there in zip(ends, reads, strict=True)]
        self.stdin, self.stdout, self.stderr, self.status, *twin = ours
        self.twin, self.told, self.code, self.escaped = tuple(twin), b"", None, 0
        try:
            with ASKING:
                socket.send_fds(control, [folder.encode()], theirs)
        finally:
            for end in theirs:
                os.close(end)
        self.pid = self.next_number(WAKING)
        if self.pid is None:
            for end in ours:
                end.close()
            raise ChildProcessError("the nursery made no process")

    def next_number(self, seconds: float) -> int | None:
        """The next number that the attendant tells; None if none comes in so many seconds, or ever."""
        poll, deadline = select.poll(), time.monotonic() + seconds
        poll.register(self.status, select.POLLIN)
        while b"\n" not in self.told:
            left = deadline - time.monotonic()
            if left < 0 or not poll.poll(1000 * left) or not (part := os.read(self.status.fileno(), 64)):
                return None
            self.told += part
        line, _, self.told = self.told.partition(b"\n")
        return int(line)

    def wait(self, seconds: float) -> int | None:
        """How it ended, negative where a signal did it; None if it is still there after so many seconds."""
        if self.code is None:
            self.code = self.next_number(seconds)
        return self.code

    def kill(self) -> None:
        """End it and all of its group; what left that, its attendant ends."""
        kill(self.pid)

    def close(self) -> None:
        """End it and wait until it is gone, with all that it started."""
        self.kill()
        if self.wait(ENDING) is not None:
            self.escaped = self.next_number(ENDING) or 0
        self.status.close()


def kill(group: int) -> None:
    """End a group of processes at once."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def start(folder: str) -> Started | Copied:
    """Start the process of a submission, in the way that is fastest here.

    Args:
        folder: its home.
    """
    if forks():
        for _ in range(2):  # somebody may have ended the nursery
            with suppress(OSError):
                return Copied(folder, nursery(os.pathsep.join(sys.path)))
            nursery.cache_clear()
    return Started(folder)


@lru_cache(maxsize=1)
def nursery(paths: str) -> socket.socket:
    """The line to the nursery, which is started once for these paths of packages, and ends when the line is closed."""
    ours, theirs = socket.socketpair()
    folder = tempfile.mkdtemp(prefix="arena-nursery-")
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "spai_lab.arena.nursery", str(theirs.fileno()), folder],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env=environment(folder),
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
    atexit.register(end_nursery, ours, process)
    return ours


def end_nursery(line: socket.socket, process: subprocess.Popen) -> None:
    """Close the line, which ends the nursery, and wait a moment for it."""
    line.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(ENDING)

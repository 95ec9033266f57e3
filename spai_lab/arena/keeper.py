"""The arena's end of a submission's process: starts it, talks to it, limits it, and ends it whatever happens."""

import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from typing import Self

from spai_lab.arena import findings, rules
from spai_lab.arena.findings import Fouled
from spai_lab.arena.pipe import read_frame
from spai_lab.crypto.frames import Message, ProtocolError, Value, pack

WAKING = 120.0  # seconds in which the process may start: the libraries' time, not the submission's
MOST_OUTPUT = 20_000  # bytes kept of what it prints
KEPT = ("PATH", "SYSTEMROOT", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
MEMORY_WORDS = ("can't allocate memory", "cannot allocate memory", "not enough memory", "bad_alloc")


class Keeper:
    """One process for one submission, to be used in a `with` block: it ends with the block.

    Waiting is done on queues that threads fill, so that neither a process that writes nothing nor one that reads
    nothing holds the arena up, and Ctrl-C works.

    Args:
        memory: MB that the submission may take.
        name: of its function, for messages.
        called: how that is called, for messages.
    """

    def __init__(self, memory: int, name: str = "submission", called: str = "...") -> None:
        self.memory, self.name, self.called, self.printed = memory, name, called, bytearray()
        self.folder = tempfile.TemporaryDirectory(prefix="arena-", ignore_cleanup_errors=True)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "spai_lab.arena.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.folder.name,
            env=environment(self.folder.name),
            start_new_session=True,
        )
        self.inbox: queue.Queue = queue.Queue(maxsize=2)
        self.outbox: queue.SimpleQueue = queue.SimpleQueue()
        threads = [threading.Thread(target=do, daemon=True) for do in (self.read, self.write, self.drain)]
        self.threads = dict(zip(threads, (self.process.stdout, self.process.stdin, self.process.stderr), strict=True))
        for thread in threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    # --- threads

    def read(self) -> None:
        """Put what the process answers into the inbox; None, or the error, at the end."""
        last: Message | ProtocolError | None = None
        try:
            while (message := read_frame(self.process.stdout)) is not None:
                self.inbox.put(message)
        except ProtocolError as error:
            last = error
        except (OSError, ValueError):
            pass
        self.inbox.put(last)

    def write(self) -> None:
        """Send what is in the outbox; None ends it."""
        with suppress(OSError, ValueError):
            while (frame := self.outbox.get()) is not None:
                self.process.stdin.write(frame)
                self.process.stdin.flush()

    def drain(self) -> None:
        """Keep the beginning of what the submission prints, and let the rest go."""
        with suppress(OSError, ValueError):
            while part := self.process.stderr.read1(65536):
                self.printed += part[: max(0, MOST_OUTPUT - len(self.printed))]

    # --- talking

    def begin(self, kind: str, *values: Value) -> None:
        """Wait until the process is awake, and tell it what it is for.

        Raises:
            Fouled: it did not wake.
        """
        self.expect("awake", seconds=WAKING, doing="to start")
        self.send(kind, self.memory, *values)

    def send(self, kind: str, *values: Value) -> None:
        """Send a message; never waits."""
        self.outbox.put(pack(kind, *values))

    def receive(self, *, seconds: float, allowed: float, doing: str) -> Message:
        """The next answer.

        Args:
            seconds: how long to wait at most.
            allowed: the limit to name, of which `seconds` are left.
            doing: what it does meanwhile, in words.
        Raises:
            Fouled: late, gone, garbled, or it says itself that it failed.
        """
        try:
            answer = self.inbox.get(timeout=max(0.0, seconds))
        except queue.Empty:
            self.kill()
            raise Fouled(findings.slow(allowed, doing)) from None
        if isinstance(answer, ProtocolError):
            self.kill()
            raise Fouled(findings.garbled(str(answer)))
        if answer is None:
            raise Fouled(self.obituary())
        if answer.kind == "failed":
            raise Fouled(self.failure(*texts(answer, 3)))
        return answer

    def expect(self, kind: str, *, seconds: float, doing: str, allowed: float | None = None) -> Message:
        """The next answer, which has to be of this kind."""
        answer = self.receive(seconds=seconds, allowed=seconds if allowed is None else allowed, doing=doing)
        if answer.kind != kind:
            raise Fouled(findings.garbled(f"a message {answer.kind[:40]!r} where {kind!r} was due"))
        return answer

    def failure(self, kind: str, message: str, line: str) -> findings.Finding:
        """What to say of an error that the process reports of itself."""
        if kind == "NotImplementedError" and not message:
            return findings.unfinished()
        if kind in ("SyntaxError", "IndentationError", "TabError"):
            return findings.broken(message)
        if kind == "KeyError" and not line:
            return findings.broken(f"it defines no function {message}")
        if kind == "MemoryError" or any(words in message for words in MEMORY_WORDS):
            return findings.out_of_memory(self.memory)
        if kind == "unfit":
            return findings.unfit(self.name, message, self.called)
        if kind == "OverBudget" and (spent := re.fullmatch(r"(\d{1,12}) (gradients|queries)", message)):
            return rules.over_budget(spent[2], int(spent[1]))
        return findings.crash(kind, message, line)

    def obituary(self) -> findings.Finding:
        """How the process ended."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=5)
        code = self.process.poll()
        if code is None:
            return findings.died("closed its pipe")
        return findings.died(f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}")

    @property
    def output(self) -> str:
        """What the submission printed, the beginning of it."""
        return bytes(self.printed).decode("utf-8", "replace")

    # --- ending

    def kill(self) -> None:
        """End the process, and where the system has groups of processes, all that it started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL) if os.name == "posix" else self.process.kill()

    def close(self) -> None:
        """End the process and forget it; what it printed stays to be read."""
        self.kill()
        self.process.wait()
        self.outbox.put(None)
        for thread, pipe in self.threads.items():
            with suppress(queue.Empty):
                while True:
                    self.inbox.get_nowait()
            thread.join(timeout=1)
            if not thread.is_alive():  # else something that escaped holds the pipe; the thread waits, and nobody else
                with suppress(OSError):
                    pipe.close()
        self.folder.cleanup()


def environment(folder: str) -> dict[str, str]:
    """What the process knows of the system: where programs and packages are, and a home that is thrown away."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    home = dict.fromkeys(("HOME", "USERPROFILE", "TMPDIR", "TEMP", "TMP", "SPAI_CACHE", "MPLCONFIGDIR"), folder)
    paths = os.pathsep.join(path for path in sys.path if path)
    return {
        **kept,
        **home,
        **ONE_THREAD,
        "PYTHONPATH": paths,
        "PYTHONUTF8": "1",
        "PYTHONUNBUFFERED": "1",
        "TQDM_DISABLE": "1",
    }


def texts(message: Message, count: int) -> list[str]:
    """The first values of a message as short texts, whatever came."""
    values = [*message.values, *[""] * count][:count]
    return [value[:400] if isinstance(value, str) else "" for value in values]


class Clock:
    """Seconds that are used up while one waits.

    >>> Clock(5.0).left <= 5.0
    True
    """

    def __init__(self, seconds: float) -> None:
        self.seconds, self.used = seconds, 0.0

    @property
    def left(self) -> float:
        """What is left."""
        return self.seconds - self.used

    def __enter__(self) -> Self:
        self.since = time.perf_counter()
        return self

    def __exit__(self, *failure: object) -> None:
        self.used += time.perf_counter() - self.since

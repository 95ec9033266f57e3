"""The arena's end of a submission's process: starts it, talks to it, limits it, and ends it whatever happens."""

import queue
import re
import signal
import tempfile
import threading
import time
from contextlib import suppress
from typing import BinaryIO, Self

from spai_lab.arena import rules
from spai_lab.arena.findings import Finding, Fouled
from spai_lab.arena.pipe import read_frame
from spai_lab.arena.processes import WAKING, start
from spai_lab.crypto.frames import Message, ProtocolError, Value, pack

MOST_OUTPUT = 20_000  # bytes kept of what it prints
MEMORY_WORDS = ("can't allocate memory", "cannot allocate memory", "not enough memory", "bad_alloc")


class Talk:
    """Two pipes, and the threads that serve them.

    Waiting is done on queues that threads fill, so that neither a process that writes nothing nor one that reads
    nothing holds the arena up, and Ctrl-C works.

    Args:
        questions: where messages are written.
        answers: where they come back.
    """

    def __init__(self, questions: BinaryIO, answers: BinaryIO) -> None:
        self.questions, self.answers = questions, answers
        self.inbox: queue.Queue = queue.Queue(maxsize=2)
        self.outbox: queue.SimpleQueue = queue.SimpleQueue()
        self.threads = {started(self.read): answers, started(self.write): questions}

    def read(self) -> None:
        """Put what the process answers into the inbox; None, or the error, at the end."""
        last: Message | ProtocolError | None = None
        try:
            while (message := read_frame(self.answers)) is not None:
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
                self.questions.write(frame)
                self.questions.flush()

    def close(self) -> None:
        """Stop the threads and close the pipes; the process has to be gone."""
        self.outbox.put(None)
        with suppress(queue.Empty):
            while True:
                self.inbox.get_nowait()
        close(self.threads)


def started(do: object) -> threading.Thread:
    """A thread that does this, and holds nobody up."""
    thread = threading.Thread(target=do, daemon=True)
    thread.start()
    return thread


def close(threads: dict[threading.Thread, BinaryIO]) -> None:
    """Close the pipe of each thread that is done; one that something else still holds is left to wait."""
    for thread, pipe in threads.items():
        thread.join(timeout=1)
        if not thread.is_alive():
            with suppress(OSError):
                pipe.close()


class Keeper:
    """One process for one submission, to be used in a `with` block: it ends with the block.

    Args:
        memory: MB that the submission may take.
        name: of its function, for messages.
        called: how that is called, for messages.
    """

    def __init__(self, memory: int, name: str = "submission", called: str = "...") -> None:
        self.memory, self.name, self.called, self.printed = memory, name, called, bytearray()
        self.folder = tempfile.TemporaryDirectory(prefix="arena-", ignore_cleanup_errors=True)
        self.process = start(self.folder.name)
        self.talk = Talk(self.process.stdin, self.process.stdout)
        self.twin = Talk(*self.process.twin) if self.process.twin else None
        self.drained = {started(self.drain): self.process.stderr}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

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

    def send(self, kind: str, *values: Value, to: Talk | None = None) -> None:
        """Send a message, to its twin if that is given; never waits."""
        (to or self.talk).outbox.put(pack(kind, *values))

    def receive(self, *, seconds: float, allowed: float, doing: str, of: Talk | None = None) -> Message:
        """The next answer, of its twin if that is given.

        Args:
            seconds: how long to wait at most.
            allowed: the limit to name, of which `seconds` are left.
            doing: what it does meanwhile, in words.
        Raises:
            Fouled: late, gone, garbled, or it says itself that it failed.
        """
        try:
            answer = (of or self.talk).inbox.get(timeout=max(0.0, seconds))
        except queue.Empty:
            self.kill()
            raise Fouled(rules.SLOW.broken(seconds=allowed, doing=doing)) from None
        if isinstance(answer, ProtocolError):
            self.kill()
            raise Fouled(rules.GARBLED.broken(message=str(answer)))
        if answer is None:
            raise Fouled(self.obituary())
        if answer.kind == "failed":
            raise Fouled(self.failure(*texts(answer, 3)))
        if answer.kind == "opened":
            raise Fouled(rules.OPENS_THE_DATA.broken(file=texts(answer, 1)[0]))
        return answer

    def expect(self, kind: str, *, seconds: float, doing: str, allowed: float | None = None) -> Message:
        """The next answer, which has to be of this kind."""
        answer = self.receive(seconds=seconds, allowed=seconds if allowed is None else allowed, doing=doing)
        if answer.kind != kind:
            raise Fouled(unexpected(answer, kind))
        return answer

    def failure(self, error: str, message: str, line: str) -> Finding:
        """What to say of an error that the process reports of itself."""
        if error == "NotImplementedError" and not message:
            return rules.UNFINISHED.broken()
        if error in ("SyntaxError", "IndentationError", "TabError"):
            return rules.BROKEN.broken(message=message)
        if error == "KeyError" and not line:
            return rules.BROKEN.broken(message=f"it defines no function {message}")
        if error == "MemoryError" or any(words in message for words in MEMORY_WORDS):
            return rules.MEMORY.broken(megabytes=self.memory)
        if error == "unfit":
            return rules.UNFIT.broken(name=self.name, message=message, called=self.called)
        if error == "OverBudget" and (spent := re.fullmatch(r"(\d{1,12}) (gradients|queries)", message)):
            return rules.OVER_BUDGET.broken(what=spent[2], allowed=int(spent[1]))
        where = f" in the line `{line}`" if line else ""
        return rules.CRASH.broken(where=where, error=error, message=message or "no message")

    def obituary(self) -> Finding:
        """How the process ended."""
        code = self.process.wait(5)
        if code is None:
            return rules.DIED.broken(how="closed its pipe")
        return rules.DIED.broken(how=f"was ended by {signal_name(-code)}" if code < 0 else f"ended with status {code}")

    @property
    def output(self) -> str:
        """What the submission printed, the beginning of it."""
        return bytes(self.printed).decode("utf-8", "replace")

    # --- ending

    def kill(self) -> None:
        """End the process, and where the system has groups of processes, all that it started."""
        self.process.kill()

    def close(self) -> None:
        """End the process and forget it; what it printed stays to be read."""
        self.process.close()
        for talk in filter(None, (self.talk, self.twin)):
            talk.close()
        close(self.drained)
        self.folder.cleanup()


def texts(message: Message, count: int) -> list[str]:
    """The first values of a message as short texts that a terminal can show, whatever came.

    >>> texts(Message("failed", ("Value\\x1b[2JError", 3)), 3)
    ['Value?[2JError', '', '']
    """
    values = [*message.values, *[""] * count][:count]
    return [printable(value[:400]) if isinstance(value, str) else "" for value in values]


def printable(text: str) -> str:
    """A text without what moves the cursor or hides words."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)


def unexpected(answer: Message, due: str) -> Finding:
    """What to say of a message that nobody asked for."""
    return rules.GARBLED.broken(message=f"a message {printable(answer.kind[:40])!r} where {due!r} was due")


def signal_name(number: int) -> str:
    """What a signal is called; not all of them have names.

    >>> signal_name(9), signal_name(40)
    ('SIGKILL', 'signal 40')
    """
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


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

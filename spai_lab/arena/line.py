"""The submission's end of the pipes, and what its process does when the arena is gone or the test set is opened."""

import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NoReturn

from spai_lab.arena.limits import groups
from spai_lab.arena.pipe import read_frame, write_frame
from spai_lab.crypto.frames import Message

TEST_FILES = ("t10k-", "digits.csv")  # what the names of files begin with that hold test images or their labels


class Line:
    """The two pipes to the arena; `twin` are two more, for a copy of this process, or none."""

    def __init__(self, questions: BinaryIO, answers: BinaryIO, twin: Sequence[int] = ()) -> None:
        self.answers, self.inbox, self.twin = answers, queue.SimpleQueue(), twin
        threading.Thread(target=self.listen, args=(questions,), daemon=True).start()

    def listen(self, questions: BinaryIO) -> None:
        """Take messages as they come; when the arena is gone, end this process and all that it started."""
        with suppress(Exception):
            while (message := read_frame(questions)) is not None:
                self.inbox.put(message)
        end()

    def send(self, kind: str, *values: object) -> None:
        """Answer."""
        write_frame(self.answers, kind, *values)

    def receive(self) -> Message:
        """The next message."""
        return self.inbox.get()

    def ask(self, kind: str, *values: object) -> Message:
        """Ask the arena something."""
        self.send(kind, *values)
        return self.receive()


def end() -> NoReturn:
    """End this process, and its group where it leads one."""
    if groups() and os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)


def watch(line: Line) -> Callable[[bool], None]:
    """Tell the arena, once, when a file with the test images is opened; what comes back turns that on and off.

    Such a hook cannot be taken out again. It sees what Python opens, not what other programs do.
    """
    state = {"on": False}

    def hook(event: str, arguments: tuple) -> None:
        if event == "open" and state["on"] and isinstance(arguments[0], str | bytes):
            name = Path(os.fsdecode(arguments[0])).name
            if name.startswith(TEST_FILES):
                state["on"] = False
                line.send("opened", name)

    sys.addaudithook(hook)
    return lambda on: state.update(on=on)

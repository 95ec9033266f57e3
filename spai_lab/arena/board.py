"""The leaderboard: a file of lines that a class shares, to which thirty can write at once.

Each entry is one line of JSON, written by one call at the end of the file, under a lock, and on the disk before the
call returns. On a local disk nothing is lost. On a network disk that knows no locks, two machines may overwrite each
other; so each entry is looked for after it was written, and written again where it is missing. Nothing keeps a member
of the class from writing lines by hand: this is a board, and no judge.
"""

import html
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from uuid import uuid4

from spai_lab.arena.result import Result
from spai_lab.checks import check_choice, check_count, check_number, describe
from spai_lab.metrics import wilson
from spai_lab.widgets.shown import Shown

LONGEST_NAME, LONGEST_LINE = 40, 2000
PATIENCE, TRIES = 30.0, 5
KINDS = ("attack", "defense")


@dataclass(frozen=True)
class Entry:
    """One line of the board.

    Args:
        who: a name or nickname, at most 40 characters.
        kind: "attack" or "defense".
        function: the submitted function's name.
        data: "digits" or "mnist".
        score: in [0, 1]: the share of images left right; high is good for a defense, low for an attack.
        images: how many it rests on.
        terms: the images and the budget in words; only entries of the same terms can be compared.
        when: date and time, UTC.
        id: tells entries apart.
    Raises:
        ValueError: names the argument.
    """

    who: str
    kind: str
    function: str
    data: str
    score: float
    images: int
    terms: str
    when: str
    id: str

    def __post_init__(self) -> None:
        for name in ("who", "function", "data", "terms", "when", "id"):
            value = getattr(self, name)
            longest = LONGEST_NAME if name == "who" else 300
            if not isinstance(value, str) or not value.strip() or len(value) > longest or not value.isprintable():
                raise ValueError(f"{name} is {describe(value)}; accepted: text of at most {longest} characters")
        check_choice("kind", self.kind, KINDS)
        check_number("score", self.score, low=0, high=1)
        check_count("images", self.images)

    @property
    def interval(self) -> tuple[float, float]:
        """The score's 95 % interval."""
        return wilson(self.score, self.images)


@dataclass(frozen=True)
class Board:
    """What a file of entries holds.

    Args:
        entries: in the order in which they were written.
        damaged: the numbers of lines that are none, from 1; reported, and otherwise ignored.
    """

    entries: tuple[Entry, ...]
    damaged: tuple[int, ...] = ()

    def best(self, kind: str) -> tuple[Entry, ...]:
        """Everybody's best entry of that kind on the same terms, the best first; of equal ones the earlier first."""
        check_choice("kind", kind, KINDS)
        sign = 1 if kind == "attack" else -1
        kept: dict[tuple[str, str], Entry] = {}
        for entry in self.entries:
            place = (entry.terms, entry.who.casefold())
            if entry.kind == kind and (place not in kept or sign * entry.score < sign * kept[place].score):
                kept[place] = entry
        return tuple(sorted(kept.values(), key=lambda entry: (entry.terms, sign * entry.score)))

    def tries(self, entry: Entry) -> int:
        """How many entries of that kind somebody has on these terms: the best of many is better by chance alone."""
        same = (entry.kind, entry.terms, entry.who.casefold())
        return sum((each.kind, each.terms, each.who.casefold()) == same for each in self.entries)

    def __repr__(self) -> str:
        lines = []
        for kind in KINDS:
            for number, entry in ranked(self.best(kind)):
                low, high = entry.interval
                span = f"{100 * entry.score:.0f} % ({100 * low:.0f} to {100 * high:.0f})"
                tries = self.tries(entry)
                after = f", the best of {tries}" if tries > 1 else ""
                lines.append(f"{kind} {number}. {entry.who}: {span}{after}, {entry.terms}")
        if self.damaged:
            lines.append(f"Lines that are no entries, left out: {', '.join(map(str, self.damaged))}.")
        return "\n".join(lines or ["The board is empty."])

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        tables = "".join(as_table(kind, self.best(kind), self.tries) for kind in KINDS)
        numbers = ", ".join(map(str, self.damaged))
        warning = f"<p>Lines that are no entries, left out: {numbers}.</p>" if self.damaged else ""
        return Shown(repr(self), html=(tables or "<p>The board is empty.</p>") + warning)._repr_mimebundle_()


def ranked(entries: tuple[Entry, ...]) -> Iterator[tuple[int, Entry]]:
    """Each entry with its rank; other terms begin anew at 1, since they cannot be compared."""
    for _, same in groupby(entries, lambda entry: entry.terms):
        yield from enumerate(same, 1)


def as_table(kind: str, entries: tuple[Entry, ...], tries: Callable[[Entry], int]) -> str:
    """The entries of one kind as HTML; names are texts, whatever they look like."""
    if not entries:
        return ""
    heads = ("rank", "who", "function", "images left right", "95 % interval", "n", "tries", "terms", "when")
    lines = []
    for number, entry in ranked(entries):
        low, high = entry.interval
        cells = (number, entry.who, entry.function, f"{100 * entry.score:.0f} %")
        cells += (f"{100 * low:.0f} to {100 * high:.0f} %", entry.images, tries(entry), entry.terms, entry.when)
        lines.append("".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells))
    title = "Attacks: the lower, the better" if kind == "attack" else "Defenses: the higher, the better"
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><caption>{title}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def entry_of(result: Result, who: str) -> Entry:
    """The line that a result makes.

    Raises:
        ValueError: `who` is no name, or the result has no score.
    """
    if result.score is None:
        raise ValueError(f"result is of {result.name}, which was caught; accepted: one with a score")
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
    terms, name = f"{result.scene}; {result.budget}", result.name[:100]
    return Entry(who, result.kind, name, result.data, result.score, result.images, terms, now, uuid4().hex)


def post(result: Result, who: str, file: Path | str) -> Board:
    """Write a result on the board, and give what is there then.

    Args:
        result: with a score.
        who: a name or nickname.
        file: the board, such as a file in a folder that the class shares; made where it is missing.
    Returns:
        the board.
    Raises:
        ValueError: names the argument.
        OSError: the file cannot be written, or the entry is not there after several tries.
    """
    append(Path(file), entry_of(result, who))
    return read_board(file)


def append(file: Path, entry: Entry) -> None:
    """Write one line at the end of the file, and see that it is there.

    Raises:
        OSError: it cannot be written, or is not there after several tries.
    """
    line = (json.dumps(asdict(entry), ensure_ascii=False) + "\n").encode()
    file.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(TRIES):
        time.sleep(0.1 * attempt)
        with locked(file) as descriptor:
            write_line(descriptor, line)
        if line in file.read_bytes():
            return
    raise OSError(f"{file} does not keep what is written to it; put the board on a local disk")


def write_line(descriptor: int, line: bytes) -> None:
    """One line at the end, on the disk; after a line that somebody did not finish, a new one is begun."""
    size = os.fstat(descriptor).st_size
    if size:
        os.lseek(descriptor, size - 1, os.SEEK_SET)
        if os.read(descriptor, 1) != b"\n":
            line = b"\n" + line
    if os.write(descriptor, line) != len(line):
        raise OSError("the disk is full: the entry was written in part")
    os.fsync(descriptor)


@contextmanager
def locked(file: Path) -> Iterator[int]:
    """The file, open for appending, held by one process at a time where the system knows locks."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
    descriptor = os.open(file, flags, 0o666)
    try:
        with suppress(ImportError):
            import fcntl

            with suppress(OSError):  # a disk without locks: `append` looks whether the entry is there
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        with suppress(ImportError):
            import msvcrt

            lock_on_windows(descriptor, msvcrt)
        yield descriptor
    finally:
        os.close(descriptor)  # which gives the lock back


def lock_on_windows(descriptor: int, msvcrt: object) -> None:
    """Hold one byte far behind the end of the file."""
    deadline = time.monotonic() + PATIENCE
    os.lseek(descriptor, 2**30, os.SEEK_SET)
    while True:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def read_board(file: Path | str) -> Board:
    """What is on the board; lines that are no entries are counted and left out.

    Args:
        file: the board; a missing one is empty.
    """
    path = Path(file)
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    entries, damaged = [], []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                entries.append(parsed(line))
            except (ValueError, TypeError, RecursionError):
                damaged.append(number)
    return Board(tuple(entries), tuple(damaged))


def parsed(line: bytes) -> Entry:
    """One line as an entry; `ValueError` or `TypeError` where it is none."""
    if len(line) > LONGEST_LINE:
        raise ValueError("the line is too long")
    return Entry(**json.loads(line))

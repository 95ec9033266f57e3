"""Predictions from files that students hand in: whatever a file holds, only answers come out of it, and no names.

The files come from others' folders. So none is read that is a link, no regular file or large, and none can stop the
others from being counted.
"""

import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LARGEST = 1_000_000  # bytes; a student's predictions in all chapters are some thousand
DEEPEST = 12  # folders below the one that is named
NAME = "progress"  # what a file in a folder is called, with whatever before and behind it
ASIDE = "progress-damaged-"  # a copy that was set aside beside a file that counts


@dataclass(frozen=True)
class HandedIn:
    """What a set of files holds.

    Args:
        answers: for each question, by its key, one answer of each student who gave one.
        files: how many files were read.
        left_out: the files that were not, with the reason.
    """

    answers: Mapping[str, Sequence[str | float]]
    files: int
    left_out: tuple[tuple[Path, str], ...] = ()


def collect(places: Iterable[Path | str]) -> HandedIn:
    """Read the predictions of a class.

    Args:
        places: files, and folders in which all files called `progress.json`, `progress-7.json` and the like count.
    Returns:
        the answers, without their files; a file that is named twice counts once.
    Raises:
        ValueError: a place does not exist, or there is no file in all of them.
    """
    answers: dict[str, list[str | float]] = {}
    left_out: list[tuple[Path, str]] = []
    seen: set[Path] = set()
    files = 0
    for place in map(Path, places):
        if not place.exists() and not place.is_symlink():
            raise ValueError(f"places names {place}, which does not exist; accepted: files and folders")
        for path in sorted(files_below(place, left_out)) if place.is_dir() else [place]:
            real = path.absolute()
            if real in seen:
                continue
            seen.add(real)
            try:
                found = predictions(path)
            except (OSError, ValueError) as error:
                left_out.append((path, getattr(error, "strerror", None) or str(error)))
                continue
            files += 1
            for key, answer in found.items():
                answers.setdefault(key, []).append(answer)
    if not seen:
        raise ValueError("places hold no progress.json; accepted: students' files, or a folder with them below it")
    return HandedIn(answers, files, tuple(left_out))


def files_below(folder: Path, left_out: list[tuple[Path, str]]) -> Iterator[Path]:
    """The progress files below a folder; links to other folders are not followed, closed folders are noted."""

    def closed(error: OSError) -> None:
        left_out.append((Path(error.filename), error.strerror or str(error)))

    for place, inner, names in os.walk(folder, onerror=closed):
        if len(Path(place).relative_to(folder).parts) >= DEEPEST:
            inner.clear()
        for name in names:
            if NAME in name and name.endswith(".json") and not name.startswith((ASIDE, ".")):
                yield Path(place, name)


def predictions(path: Path) -> dict[str, str | float]:
    """The predictions in one file, by the key of their question.

    Args:
        path: a `progress.json`.
    Returns:
        the answers, texts and finite numbers.
    Raises:
        ValueError: the file is a link, no regular file, too large, or holds something else.
        OSError: it cannot be read.
    """
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise ValueError("a link, which may point at another's file")
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("no file with content")
    if found.st_size > LARGEST:
        raise ValueError(f"larger than {LARGEST // 1_000_000} MB")
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags), "rb") as file:  # noqa: PTH123, what was looked at is what is read
        text = file.read(LARGEST + 1)
    return parse(text[:LARGEST])


def parse(text: bytes) -> dict[str, str | float]:
    """The predictions that a file's text holds.

    Raises:
        ValueError: it is the text of something else.

    >>> parse(b'{"predictions": {"02-fgsm": {"prediction": 40.0, "unit": "%"}}}')
    {'02-fgsm': 40.0}
    """
    try:
        content = json.loads(text.decode("utf-8"), parse_constant=float)
    except (ValueError, RecursionError):
        raise ValueError("no JSON") from None
    entries = content.get("predictions") if isinstance(content, dict) else None
    if not isinstance(entries, dict):
        raise ValueError("no predictions in it")
    answers = {key: entry.get("prediction") for key, entry in entries.items() if isinstance(entry, dict)}
    if len(answers) < len(entries) or not all(map(is_answer, answers.values())):
        raise ValueError("something else in place of a prediction")
    return answers


def is_answer(value: object) -> bool:
    """Whether a value is a text or a number that a float can hold.

    >>> is_answer("up"), is_answer(2), is_answer(True), is_answer(float("nan")), is_answer(10**400)
    (True, True, False, False, False)
    """
    if isinstance(value, str):
        return True
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300

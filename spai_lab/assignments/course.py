"""An nbgrader course on disk: the assignments' sources, the lecturer's seed, and what was submitted."""

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import chain, count
from pathlib import Path

from spai_lab.assignments.borrowed import borrowed, written_here
from spai_lab.assignments.fresh import hidden_of
from spai_lab.assignments.notebook import assignment
from spai_lab.exercises import EXERCISES
from spai_lab.exercises.exercise import Exercise
from spai_lab.files import write_atomically
from spai_lab.workbook import normalize, read, to_bytes

SOURCE, SUBMITTED = "source", "submitted"  # nbgrader's names
SEED_FILE = "lecturer_seed.txt"
CONFIG_FILE = "nbgrader_config.py"
CONFIG = """\
c = get_config()
c.CourseDirectory.course_id = "spai_lab"
c.Execute.timeout = 300  # seconds for a cell; encrypted and private computations take some
"""


@dataclass(frozen=True)
class Exported:
    """An assignment: its name, its file, the names of its exercises, and what became of the file.

    `state` is "written", "as it was" (the same is there already) or "beside" (another one is there, and stays).
    """

    chapter: str
    path: Path
    exercises: tuple[str, ...]
    state: str


@dataclass(frozen=True)
class Borrowed:
    """A submission in which cells read what answers do not need."""

    student: str
    chapter: str
    sentence: str


def chosen(beginnings: Sequence[str]) -> dict[str, list[Exercise]]:
    """The exercises of the chapters whose names begin so, of all if nothing is given.

    Raises:
        ValueError: no chapter with exercises begins so; lists those that there are.

    >>> {chapter: len(exercises) for chapter, exercises in chosen(["02"]).items()}
    {'02_gradient_attacks': 3}
    """
    found: dict[str, list[Exercise]] = {}
    for exercise in EXERCISES.values():
        found.setdefault(exercise.chapter, []).append(exercise)
    for beginning in beginnings:
        if not any(chapter.startswith(beginning) for chapter in found):
            raise ValueError(f"chapters holds {beginning!r}; accepted: beginnings of {', '.join(found)}")
    return {chapter: found[chapter] for chapter in found if chapter.startswith(tuple(beginnings) or "")}


def export(
    folder: Path, *, seed: str, chapters: Sequence[str] = (), points: float = 10, today: date | None = None
) -> list[Exported]:
    """Write the sources of assignments into an nbgrader course; no file that is there is changed.

    A source that differs from what is there goes beside, to `source (new <date>)`: nbgrader would release whatever
    else lies in an assignment's folder.

    Args:
        folder: of the course; made where it is missing.
        seed: the lecturer's; hidden cases follow from it, and it does not follow from them.
        chapters: beginnings of chapters' names; all if empty.
        points: for each exercise.
        today: the date that names a folder beside.
    Returns:
        what became of each chapter.
    Raises:
        ValueError: no chapter begins so, seed is empty, or points is not above 0.
        OSError: no space or no permission; what was there is as it was.
    """
    if not seed.strip():
        raise ValueError("seed is empty; accepted: a number or some words that only you know")
    folder, done = Path(folder), []
    for chapter, exercises in chosen(chapters).items():
        hidden = [hidden_of(exercise, seed.strip()) for exercise in exercises]
        content = to_bytes(normalize(assignment(exercises, hidden, points)))
        path, state = _place(folder, Path(chapter, f"{chapter}.ipynb"), content, today or date.today())
        if state != "as it was":
            write_atomically(path, content)
        done.append(Exported(chapter, path, tuple(exercise.name for exercise in exercises), state))
    if not (folder / CONFIG_FILE).exists():
        write_atomically(folder / CONFIG_FILE, CONFIG.encode())
    return done


def _place(folder: Path, name: Path, content: bytes, today: date) -> tuple[Path, str]:
    """Where to write, and what that is called in `Exported`."""
    if not (folder / SOURCE / name).exists():
        return folder / SOURCE / name, "written"
    endings = (f" (new {today}{f', {number}' if number > 1 else ''})" for number in count(1))
    for ending in chain([""], endings):
        place = folder / f"{SOURCE}{ending}" / name
        if not place.exists():
            return place, "beside"
        if place.read_bytes() == content:
            return place, "as it was"
    raise AssertionError("there is always another number")


def lecturer_seed(folder: Path) -> str:
    """The seed that a course keeps beside its sources, readable for its owner alone; drawn once.

    Raises:
        OSError: the file cannot be written.
    """
    file = Path(folder) / SEED_FILE
    if file.exists():
        return file.read_text(encoding="utf-8").strip()
    seed = secrets.token_hex(16)
    write_atomically(file, f"{seed}\n".encode())
    file.chmod(0o600)
    return seed


def look(folder: Path) -> list[Borrowed]:
    """What submitted notebooks read of the package's answers, student by student.

    Args:
        folder: of the course.
    Raises:
        ValueError: nothing was submitted there.
    """
    files = sorted((Path(folder) / SUBMITTED).glob("*/*/*.ipynb"))
    if not files:
        raise ValueError(
            f"folder is {str(folder)!r}; accepted: a course with notebooks in {SUBMITTED}/STUDENT/CHAPTER/"
        )
    found = []
    for file in files:
        student, chapter = file.parts[-3:-1]
        try:
            cells = [cell for cell in read(file)["cells"] if cell["cell_type"] == "code"]
            sources = ["".join(cell["source"]) for cell in cells]
        except (KeyError, TypeError, ValueError, json.JSONDecodeError):
            found.append(Borrowed(student, chapter, "the file is not a notebook that could be read."))
            continue
        read_there = borrowed(source for source in sources if not written_here(source))
        found += [Borrowed(student, chapter, sentence) for sentence in read_there]
    return found

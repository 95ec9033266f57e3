"""What a teacher adds to the chapters: which needs which, what to ask, what to project, and courses made of them.

It stands in `teaching.toml`, once; `load_teaching` refuses what is incomplete or contradicts itself.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

GLIMPSE = 20  # minutes
FILE = Path(__file__).with_name("teaching.toml")


@dataclass(frozen=True)
class Question:
    """What to ask a class, and what to look for in its answers."""

    ask: str
    look_for: str


@dataclass(frozen=True)
class Projected:
    """An explorable to move before a class: its name, the control's label, and what to see."""

    explorable: str
    control: str
    see: str


@dataclass(frozen=True)
class Notes:
    """A teacher's notes on one chapter.

    Args:
        id: the chapter's two digits.
        glimpse: what to do in twenty minutes.
        ask: questions for the class.
        needs: chapters without which this one cannot be followed, each with what for.
        helps: chapters that a part of it builds on, alike.
        project: what to project.
    """

    id: str
    glimpse: str
    ask: tuple[Question, ...]
    needs: Mapping[str, str]
    helps: Mapping[str, str]
    project: tuple[Projected, ...]


@dataclass(frozen=True)
class Session:
    """One meeting: whole chapters, chapters of which it shows a glimpse, exercises to hand in, and a remark."""

    chapters: tuple[str, ...] = ()
    glimpses: tuple[str, ...] = ()
    homework: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Course:
    """A way through the book: sessions of as many minutes as the slot has."""

    title: str
    slot: int
    unit: str
    intro: str
    sessions: tuple[Session, ...]


@dataclass(frozen=True)
class Teaching:
    """All notes, by the chapters' numbers, and the courses."""

    notes: Mapping[str, Notes]
    courses: tuple[Course, ...]


def load_teaching(path: Path = FILE) -> Teaching:
    """Read and check the teacher's notes.

    Args:
        path: a TOML file.
    Returns:
        notes and courses.
    Raises:
        ValueError: a field is missing or unknown, a chapter needs one that does not come earlier, or a course takes a
            chapter twice or before what it needs; names the place, what came and what is accepted.

    >>> list(load_teaching().notes["10"].needs)
    ['05', '06']
    """
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{Path(path).name} is not valid TOML: {error}") from error
    notes = [_notes(entry) for entry in content.get("chapter", ())]
    check_needs(notes)
    courses = tuple(_course(entry) for entry in content.get("course", ()))
    by_number = {each.id: each for each in notes}
    for course in courses:
        check_course(course, by_number)
    return Teaching(by_number, courses)


def check_needs(notes: Sequence[Notes]) -> None:
    """Raise `ValueError` unless each chapter is there once, in order, and builds on earlier ones alone."""
    seen: list[str] = []
    for each in notes:
        if seen and each.id <= seen[-1]:
            raise ValueError(f"chapter {each.id} comes after {seen[-1]}; accepted: each chapter once, in their order")
        both = sorted(each.needs.keys() & each.helps.keys())
        wrong = sorted((each.needs.keys() | each.helps.keys()) - set(seen)) or both
        if wrong:
            raise ValueError(
                f"chapter {each.id} needs {wrong[0]}; accepted: earlier chapters, each under needs or under helps"
            )
        seen.append(each.id)


def check_course(course: Course, notes: Mapping[str, Notes]) -> None:
    """Raise `ValueError` unless a course takes known chapters, each once, and after what it needs."""
    taken: list[str] = []
    for number in (number for session in course.sessions for number in session.chapters):
        if number not in notes or number in taken:
            raise ValueError(f"{course.title!r} takes {number}; accepted: each chapter once, of {', '.join(notes)}")
        late = [need for need in notes[number].needs if need not in taken]
        if late:
            raise ValueError(f"{course.title!r} takes {number} before {late[0]}, which it needs; accepted: after it")
        taken.append(number)
    glimpsed = {number for session in course.sessions for number in session.glimpses}
    wrong = sorted((glimpsed - notes.keys()) | (glimpsed & set(taken)))
    if wrong:
        raise ValueError(f"{course.title!r} glimpses at {wrong[0]}; accepted: a chapter that it does not take whole")


def _notes(entry: dict) -> Notes:
    label = f"chapter {entry.get('id')}"
    _check_fields(label, entry, Notes, {"needs", "helps", "project"})
    ask = tuple(_record(f"{label}, ask", each, Question) for each in entry["ask"])
    project = tuple(_record(f"{label}, project", each, Projected) for each in entry.get("project", ()))
    return Notes(entry["id"], entry["glimpse"], ask, entry.get("needs", {}), entry.get("helps", {}), project)


def _course(entry: dict) -> Course:
    entry = {("sessions" if name == "session" else name): value for name, value in entry.items()}
    label = f"course {entry.get('title')!r}"
    _check_fields(label, entry, Course)
    sessions = []
    for number, each in enumerate(entry["sessions"], start=1):
        _check_fields(f"{label}, session {number}", each, Session, {field.name for field in fields(Session)})
        sessions.append(Session(**{name: tuple(v) if isinstance(v, list) else v for name, v in each.items()}))
    return Course(entry["title"], entry["slot"], entry["unit"], entry["intro"], tuple(sessions))


def _record(label: str, entry: dict, kind: type) -> Question | Projected:
    _check_fields(label, entry, kind)
    return kind(**entry)


def _check_fields(label: str, entry: dict, kind: type, optional: set[str] = frozenset()) -> None:
    known = {field.name for field in fields(kind)}
    wrong = sorted((entry.keys() - known) | (known - optional - entry.keys()))
    if wrong:
        raise ValueError(f"{label} lacks or does not know {wrong[0]!r}; accepted: {', '.join(sorted(known))}")

"""The computed parts of the lecturer's guide: tables, courses, and a section for each chapter."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from spai_lab.exercises import EXERCISES
from spai_lab.exercises.exercise import Exercise, sentence
from spai_lab.guides.chapters import Taught, taught
from spai_lab.guides.teaching import GLIMPSE, Course, Notes, Session, Teaching, load_teaching
from spai_lab.survey.coverage import fill_sections
from spai_lab.workbook import notebooks_folder

Chapters = Mapping[str, Taught]
NOTEBOOKS = "../notebooks"  # from docs/


def update_guide(path: Path | str) -> bool:
    """Write the computed parts of the lecturer's guide between their marks.

    Args:
        path: the guide; for each of `SECTIONS` it holds the begin mark and, after it, the end mark, each once.
    Returns:
        whether the file changed.
    Raises:
        ValueError: a mark is missing or there twice; a chapter or the notes are incomplete.
    """
    book, teaching = taught(notebooks_folder()), load_teaching()
    check_together(book, teaching)
    return fill_sections(path, {name: partial(written, book, teaching) for name, written in SECTIONS.items()})


def check_together(book: Chapters, teaching: Teaching) -> None:
    """Raise `ValueError` unless the notes are of these chapters, and homework is of chapters taken by then."""
    if list(book) != list(teaching.notes):
        odd = sorted(book.keys() ^ teaching.notes.keys())
        raise ValueError(f"chapter {odd[0]} has a notebook or notes, not both; accepted: notes on each chapter")
    for course in teaching.courses:
        before: set[str] = set()
        for session in course.sessions:
            before |= {exercise.name for number in session.chapters for exercise in book[number].exercises}
            wrong = sorted(set(session.homework) - before)
            if wrong:
                raise ValueError(f"{course.title!r} sets {wrong[0]!r} too early, or there is no such exercise")


# --- sections


def overview(book: Chapters, teaching: Teaching) -> str:
    """All chapters in one table, and their sums."""
    minutes = sum(each.minutes for each in book.values())
    asked = sum(len(each.predictions) for each in book.values())
    exercises = sum(len(each.exercises) for each in book.values())
    lines = [
        f"{len(book)} chapters, {minutes:,} minutes by their own count ({minutes / 60:.1f} hours), "
        f"{asked} predictions, {exercises} exercises.",
        "",
        "| chapter | its question | minutes | predictions | exercises | needs |",
        "|---|---|---:|---:|---:|---|",
    ]
    for each in book.values():
        needs = ", ".join(teaching.notes[each.number].needs) or "–"
        counts = f"{each.minutes} | {len(each.predictions)} | {len(each.exercises)}"
        lines.append(f"| {link(each)} | {each.question} | {counts} | {needs} |")
    return "\n".join(lines)


def needs(book: Chapters, teaching: Teaching) -> str:
    """Which chapter needs which: a drawing, and the reasons as a table."""
    drawn = [f'  c{each.number}["{each.title}"]' for each in book.values()]
    drawn += [f"  c{before} --> c{after}" for before, after in reduced(teaching.notes)]
    lines = ["```mermaid", "graph LR", *drawn, "```", "", "| chapter | needs | is helped by |", "|---|---|---|"]
    for number, each in teaching.notes.items():
        columns = (reasons(chapters) for chapters in (each.needs, each.helps))
        lines.append(f"| {book[number].title} | {' | '.join(columns)} |")
    return "\n".join(lines)


def courses(book: Chapters, teaching: Teaching) -> str:
    """Each course with its sums, its sessions and what to export."""
    return "\n\n".join(course_in_words(course, book) for course in teaching.courses)


def chapters(book: Chapters, teaching: Teaching) -> str:
    """A section for each chapter."""
    return "\n\n".join(chapter_in_words(each, teaching.notes[each.number]) for each in book.values())


SECTIONS: dict[str, Callable[[Chapters, Teaching], str]] = {
    "overview": overview,
    "needs": needs,
    "courses": courses,
    "chapters": chapters,
}


# --- parts of them


def link(chapter: Taught) -> str:
    """A chapter's title, linked to its notebook."""
    return f"[{chapter.title}]({NOTEBOOKS}/{chapter.name}.ipynb)"


def reasons(chapters: Mapping[str, str]) -> str:
    """Chapters with what for; those with one reason in common together.

    >>> reasons({"02": "rows", "03": "rows", "08": "training"})
    '02, 03: rows; 08: training'
    """
    together: dict[str, list[str]] = {}
    for number, reason in chapters.items():
        together.setdefault(reason, []).append(number)
    return "; ".join(f"{', '.join(numbers)}: {reason}" for reason, numbers in together.items()) or "–"


def reduced(notes: Mapping[str, Notes]) -> list[tuple[str, str]]:
    """The arrows of what needs what, without those that follow from others.

    >>> from types import SimpleNamespace as Fake
    >>> reduced({"1": Fake(needs={}), "2": Fake(needs={"1": ""}), "3": Fake(needs={"1": "", "2": ""})})
    [('1', '2'), ('2', '3')]
    """
    behind: dict[str, set[str]] = {}
    arrows = []
    for number, each in notes.items():
        behind[number] = set(each.needs).union(*(behind[need] for need in each.needs))
        arrows += [
            (need, number)
            for need in each.needs
            if not any(need in behind[other] for other in each.needs if other != need)
        ]
    return arrows


def minutes_of(session: Session, book: Chapters) -> int:
    """How long a session's chapters and glimpses take."""
    return sum(book[number].minutes for number in session.chapters) + GLIMPSE * len(session.glimpses)


def course_in_words(course: Course, book: Chapters) -> str:
    """A course: its sums in a sentence, a row for each session, and the command that exports its exercises."""
    needed = [minutes_of(session, book) for session in course.sessions]
    over = sum(max(0, minutes - course.slot) for minutes in needed)
    free = sum(max(0, course.slot - minutes) for minutes in needed)
    fit = f"{over:,} of them do not fit and are for home" if over else "all of it fits"
    sums = (
        f"{counted(len(needed), course.unit)} of {course.slot} minutes: {len(needed) * course.slot:,} in the room. "
        f"What it takes of the book is {sum(needed):,} minutes long: {fit}; "
        f"the lighter {course.unit}s leave {free:,} free for set-up, questions and exercises."
    )
    lines = [f"### {course.title}", "", course.intro, "", sums, ""]
    homework = any(session.homework for session in course.sessions)
    head = [
        course.unit,
        "chapters",
        "minutes",
        "at home",
        *(["to hand in, at least", "export"] if homework else []),
        "and",
    ]
    lines += [row(head), row(["---:", "---", "---:", "---:", *["---"] * (len(head) - 4)])]
    for number, (session, minutes) in enumerate(zip(course.sessions, needed, strict=True), start=1):
        cells = [str(number), contents(session, book), str(minutes), str(max(0, minutes - course.slot))]
        if homework:
            handed_in = ", ".join(f"`{name}`" for name in session.homework)
            cells += [handed_in or "–", f"`--chapters {' '.join(exported(session))}`" if session.homework else "–"]
        lines.append(row([*cells, session.note or "–"]))
    if homework:
        every = sorted({number for session in course.sessions for number in exported(session)})
        lines += ["", f"All of it at once: `spai-lab assignments export COURSE --chapters {' '.join(every)}`."]
    return "\n".join(lines)


def exported(session: Session) -> list[str]:
    """The chapters that a session's homework comes from."""
    return sorted({EXERCISES[name].chapter[:2] for name in session.homework})


def contents(session: Session, book: Chapters) -> str:
    """What a session takes, whole and in glimpses."""
    whole = ", ".join(book[number].title for number in session.chapters)
    glimpses = ", ".join(book[number].title for number in session.glimpses)
    return "; ".join(filter(None, (whole, glimpses and f"glimpses of {glimpses}")))


def row(cells: Sequence[str]) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"


def counted(number: int, what: str) -> str:
    """A number with its noun: "1 week", "12 weeks"."""
    return f"{number} {what}{'s' * (number != 1)}"


def chapter_in_words(chapter: Taught, notes: Notes) -> str:
    """All that a lecturer needs of one chapter."""
    needed = f"needs {', '.join(notes.needs)}" if notes.needs else "needs no other chapter"
    lines = [f"### {chapter.title}", "", f"*{chapter.question}*", ""]
    lines += [f"{chapter.minutes} minutes; {needed}. [Open it]({NOTEBOOKS}/{chapter.name}.ipynb).", ""]
    lines += ["**Afterwards students can**", "", *(f"- {aim}" for aim in chapter.aims), ""]
    if chapter.predictions:
        lines += ["| predict | choices | what came out on MNIST |", "|---|---|---|"]
        lines += [row([each.text, " · ".join(each.choices), each.outcome]) for each in chapter.predictions] + [""]
    if notes.project:
        lines += ["**Project**", ""]
        lines += [f"- `{each.explorable}`, move *{each.control}*: {each.see}" for each in notes.project] + [""]
    lines += ["**Ask the class**", ""]
    lines += [f"- {each.ask} *Look for:* {each.look_for}" for each in notes.ask]
    lines += ["", f"**If you have only {GLIMPSE} minutes.** {notes.glimpse}"]
    if chapter.exercises:
        lines += ["", *folded(chapter.exercises)]
    return "\n".join(lines)


def folded(exercises: Iterable[Exercise]) -> list[str]:
    """The wrong answers that each exercise knows, with what the checker says to them, behind a click."""
    exercises = tuple(exercises)
    number = sum(len(exercise.mistakes) for exercise in exercises)
    names = ", ".join(exercise.name for exercise in exercises)
    summary = f"{number} common wrong answers to its {len(exercises)} exercises ({names})"
    lines = [f"<details><summary>{summary}</summary>"]
    for exercise in exercises:
        lines += ["", f"**{exercise.name}**", "", *(f"- {sentence(mistake)}" for mistake in exercise.mistakes)]
    return [*lines, "", "</details>"]

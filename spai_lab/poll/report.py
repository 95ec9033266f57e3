"""A class's votes as text, as a table and as a figure: counts, and nothing by which one could tell the students."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from textwrap import wrap

from spai_lab.poll.book import Asked
from spai_lab.poll.handed_in import HandedIn
from spai_lab.poll.tally import Tally, count_answers

FEW = 3  # from how many answers on a question is shown
BAR = 30  # columns of a full bar
COLUMNS = ("chapter", "question", "choice", "count", "answers")
WHY = f"Fewer than {FEW} answers would point at persons, who told nobody but their own notebook; --small shows them."


def count(chapters: Sequence[Asked], answers: Mapping[str, Sequence[str | float]]) -> dict[str, Tally]:
    """The votes on each question of some chapters, by its key.

    >>> from spai_lab.poll.question import Question
    >>> count([Asked("02", "02", (Question("a", "Which?", ("up", "down")),))], {"a": ["up", "up", "x"]})["a"].rounds
    ((2, 0),)
    """
    asked = (question for chapter in chapters for question in chapter.questions)
    return {question.key: count_answers(question, answers.get(question.key, ())) for question in asked}


def is_shown(tally: Tally, *, small: bool = False) -> bool:
    """Whether a question's votes may be shown: enough answered, or the lecturer insists."""
    return tally.answers[0] >= (1 if small else FEW)


def report(chapters: Sequence[Asked], tallies: Mapping[str, Tally], handed_in: HandedIn, *, small: bool = False) -> str:
    """The counts as text: each chapter, its questions, and how many chose what.

    Args:
        chapters: whose questions are shown.
        tallies: the votes, by the key of the question.
        handed_in: where they come from; only how many files counts.
        small: whether few answers are shown, too.
    Returns:
        lines for a terminal.
    """
    lines, few = [f"{counted(handed_in.files, 'file')} read, {len(handed_in.left_out)} left out."], False
    silent = 0
    for chapter in chapters:
        answered = [tallies[question.key] for question in chapter.questions if tallies[question.key].answers[0]]
        silent += len(chapter.questions) - len(answered)
        lines += ["", chapter.title] if answered else []
        for tally in answered:
            lines += ["", *wrap(f"{plain(tally.question.text)} ({tally.question.key})", 100)]
            if is_shown(tally, small=small):
                lines += rows_of(tally)
            else:
                few = True
                lines.append(f"  {counted(tally.answers[0], 'answer')}, not shown")
    if silent:
        lines += ["", f"{counted(silent, 'question')} without an answer."]
    return "\n".join(lines + (["", WHY] if few else []))


def rows_of(tally: Tally) -> Iterator[str]:
    """A line for each choice of a question: how many, what share, and a bar of it."""
    total, wide = tally.answers[0], max(map(len, tally.question.rows))
    for row, number in zip(tally.question.rows, tally.rounds[0], strict=True):
        bar = "#" * round(BAR * number / max(total, 1))
        yield f"  {row:<{wide}}  {number:>4}  {100 * number / max(total, 1):>3.0f} %  {bar}".rstrip()
    middle = "" if tally.middle is None else f", median {tally.middle:g} {tally.question.unit}".rstrip()
    other = f"; {tally.other} more gave none of these" if tally.other else ""
    yield f"  {counted(total, 'answer')}{middle}{other}"


def to_csv(chapters: Sequence[Asked], tallies: Mapping[str, Tally]) -> str:
    """The counts as a table: a line for each choice of each question that is shown."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for chapter in chapters:
        for tally in (tallies[question.key] for question in chapter.questions if question.key in tallies):
            for row, number in zip(tally.question.rows, tally.rounds[0], strict=True):
                writer.writerow([chapter.number, tally.question.key, row, number, tally.answers[0]])
    return text.getvalue()


def drawn(tallies: Sequence[Tally], kind: str) -> bytes:
    """The figure of some votes as a file: "pdf", "svg" or "png", the same bytes each time."""
    import matplotlib as mpl

    from spai_lab.poll.chart import draw_all
    from spai_lab.style import styled

    buffer = io.BytesIO()
    stamp = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}[kind]
    fig = draw_all(tallies)
    with styled(), mpl.rc_context({"svg.hashsalt": "spai", "svg.fonttype": "none", "pdf.fonttype": 42}):
        fig.savefig(buffer, format=kind, dpi=150, metadata=stamp)
    return buffer.getvalue()


def counted(number: int, what: str) -> str:
    """A number of things.

    >>> counted(1, "file"), counted(3, "file")
    ('1 file', '3 files')
    """
    return f"{number} {what}{'' if number == 1 else 's'}"


def plain(text: str) -> str:
    """A question without the marks that a notebook sets as code."""
    return text.replace("`", "")

"""What the README shows of the survey, generated: how much of it runs today, and the ledger of published figures."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from spai_lab.files import write_atomically
from spai_lab.survey.regions import short_name, summary
from spai_lab.survey.taxonomy import PARTS, Row, load_taxonomy, rows_of
from spai_lab.survey.totals import ledger_section


def coverage_table(rows: Sequence[Row] | None = None) -> str:
    """The coverage as Markdown: for every part of the survey, how many rows there are and which run today.

    Args:
        rows: the taxonomy; the project's if None.
    Returns:
        a sentence and a table, without a line end.

    >>> coverage_table().splitlines()[2]
    '| | part | rows | run today | which |'
    """
    rows = load_taxonomy() if rows is None else rows
    lines = [summary(rows), "", "| | part | rows | run today | which |", "|---|---|---:|---:|---|"]
    for part, half in PARTS.items():
        here = rows_of(rows, part)
        running = [row for row in here if row.runnable]
        lines.append(f"| {half} | {part} | {len(here)} | {len(running)} | {', '.join(map(short_name, running))} |")
    return "\n".join(lines)


def update_readme(path: Path | str) -> bool:
    """Write the coverage table and the ledger of published figures between their marks in a README.

    Args:
        path: the README; for each of `SECTIONS` it holds the begin mark and, after it, the end mark, each once.
    Returns:
        whether the file changed.
    Raises:
        ValueError: a mark is missing, there twice, or they are in the wrong order.
    """
    return fill_sections(path, SECTIONS)


def fill_sections(path: Path | str, sections: Mapping[str, Callable[[], str]]) -> bool:
    """Write the computed sections of a document between their marks.

    Args:
        path: the document; for each section it holds the begin mark and, after it, the end mark, each once.
        sections: by name what writes their content, called once all marks are found.
    Returns:
        whether the file changed.
    Raises:
        ValueError: a mark is missing, there twice, or they are in the wrong order.
    """
    path = Path(path)
    text = path.read_text(encoding="utf-8")
    for name in sections:
        check_marks(text, name, path.name)
    updated = text
    for name, written in sections.items():
        updated = between_marks(updated, name, written())
    if updated == text:
        return False
    write_atomically(path, updated.encode("utf-8"))
    return True


def marks(name: str) -> tuple[str, str]:
    """Between what a section of the README is generated.

    >>> marks("coverage")
    ('<!-- coverage:begin -->', '<!-- coverage:end -->')
    """
    return f"<!-- {name}:begin -->", f"<!-- {name}:end -->"


def check_marks(text: str, name: str, file: str) -> None:
    """Raise `ValueError` unless a text has the marks of a section once, and in order."""
    begin, end = marks(name)
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"{file} lacks its marks; accepted: {begin} once and, below it, {end} once")


def between_marks(text: str, name: str, content: str) -> str:
    """A text with other content in one section.

    >>> between_marks("a<!-- b:begin -->old<!-- b:end -->c", "b", "new")
    'a<!-- b:begin -->\\nnew\\n<!-- b:end -->c'
    """
    begin, end = marks(name)
    before, rest = text.split(begin)
    return f"{before}{begin}\n{content}\n{end}{rest.split(end)[1]}"


SECTIONS: dict[str, Callable[[], str]] = {"coverage": coverage_table, "ledger": ledger_section}

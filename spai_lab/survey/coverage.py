"""How much of the survey runs today: the table that the README shows, generated from the taxonomy."""

from collections.abc import Sequence
from pathlib import Path

from spai_lab.files import write_atomically
from spai_lab.survey.regions import short_name, summary
from spai_lab.survey.taxonomy import PARTS, Row, load_taxonomy, rows_of

BEGIN, END = "<!-- coverage:begin -->", "<!-- coverage:end -->"


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
    """Write the coverage table between the two marks of a README.

    Args:
        path: the README; it holds the begin mark and, after it, the end mark, each once.
    Returns:
        whether the file changed.
    Raises:
        ValueError: a mark is missing, there twice, or they are in the wrong order.
    """
    path = Path(path)
    text = path.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"{path.name} lacks its marks; accepted: {BEGIN} once and, below it, {END} once")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    updated = f"{before}{BEGIN}\n{coverage_table()}\n{END}{after}"
    if updated == text:
        return False
    write_atomically(path, updated.encode("utf-8"))
    return True

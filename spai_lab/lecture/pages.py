"""What a lecture shows of a chapter, and the page on which it begins."""

import html
import re
from collections.abc import Iterator, Mapping, Sequence

from spai_lab.lecture.curtain import curtains, style_sheet
from spai_lab.workbook import Chapter, clear, first_cell

KERNEL = "spai-lecture"
HIDDEN = "Exercises"  # the section that students do on their own
FENCE = re.compile(r"\s*(```|~~~)")
BEGIN = {
    "cell_type": "code",
    "id": "lecture-begins",
    "metadata": {},
    "source": "from spai_lab.lecture.stage import begin\n\nbegin()",
    "outputs": [],
    "execution_count": None,
}


def lecture_notebook(notebook: Mapping, title: str) -> dict:
    """A chapter for the hall: without outputs and exercises, begun by a cell that enlarges figures.

    What could answer a question waits for its outcome: the rules stand in the notebook's metadata, as `curtain`.

    Args:
        notebook: a chapter of format 4, which is left as it is.
        title: what the browser shows in its tab.
    Returns:
        a new notebook.
    """
    bare = clear(notebook)
    cells = [{**BEGIN, "source": BEGIN["source"].splitlines(keepends=True)}, *shown_cells(bare["cells"])]
    kernel = {**bare["metadata"]["kernelspec"], "name": KERNEL}
    named = {"kernelspec": kernel, "title": title, "curtain": style_sheet(curtains(cells))}
    return {**bare, "metadata": {**bare["metadata"], **named}, "cells": cells}


def shown_cells(cells: Sequence[Mapping]) -> Iterator[Mapping]:
    """The cells outside the section of exercises; a cell of text that both share is cut.

    >>> cells = [{"cell_type": "markdown", "source": "## A\\n\\na\\n\\n## Exercises\\n\\nWrite."},
    ...          {"cell_type": "code", "source": "check.a(my_a)"}, {"cell_type": "markdown", "source": "## Summary"}]
    >>> [cell["source"] for cell in shown_cells(cells)]
    ['## A\\n\\na\\n\\n', '## Summary']
    """
    hidden = False
    for cell in cells:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            kept = []
            for title, section in sections(text):
                hidden = title == HIDDEN if title else hidden
                kept += [] if hidden else [section]
            if "".join(kept).strip():
                yield {**cell, "source": "".join(kept)}
        elif not hidden and text.strip() != first_cell().strip():
            yield cell


def sections(text: str) -> list[tuple[str, str]]:
    """The sections of a text by their headings of the second rank; what stands before the first has no heading.

    >>> sections("a\\n## B\\nb\\n```\\n## no heading\\n```\\n")
    [('', 'a\\n'), ('B', '## B\\nb\\n```\\n## no heading\\n```\\n')]
    """
    found: list[tuple[str, str]] = []
    fenced = False
    for line in text.splitlines(keepends=True):
        fenced ^= bool(FENCE.match(line))
        heading = None if fenced else re.match(r"#{1,2} (.+)", line)
        if heading or not found:
            found.append((heading[1].strip() if heading else "", ""))
        title, before = found.pop()
        found.append((title, before + line))
    return found


def start_page(chapters: Sequence[Chapter]) -> str:
    """The list of chapters, as the inner part of the first page."""
    rows = "".join(
        f'<li><a href="/voila/render/{html.escape(each.name)}.ipynb"><strong>{html.escape(each.title)}</strong>'
        f"<span>{html.escape(each.question)}</span></a></li>"
        for each in chapters
    )
    return f"<h1>SPAI Lab</h1><ol>{rows}</ol>"

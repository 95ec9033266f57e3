"""A chapter as the source of a page: pictures as files with their alt texts, live explorables, links among pages."""

import ast
import base64
import hashlib
import html
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from spai_lab.book.album import last_call
from spai_lab.workbook import first_cell

FOLDER = "pictures"  # beside the pages
MAP_CALL = "survey_map()"
PNG_SIZE = slice(16, 24)  # where a PNG says its width and its height
FEWEST_IMPORTS = 3  # lines; fewer are not worth a fold
LINK = re.compile(r"\[([^\]\n]*(?:\[[^\]\n]*\][^\]\n]*)*)\]\((\d\d_\w+)\.ipynb(#[^)\s]*)?\)")
ANCHOR = re.compile(r"""<a\b([^>]*?)\shref=(["'])(\d\d_\w+)\.ipynb(#[^"']*)?\2([^>]*)>(.*?)</a>""", re.DOTALL)


@dataclass(frozen=True)
class Source:
    """The source of a page: a notebook without what only the lab needs, and its pictures by their file names."""

    notebook: dict
    pictures: dict[str, bytes]


def source_of(
    notebook: Mapping, chapters: Collection[str], shown: Mapping[str, str], notes: Mapping[str, str]
) -> Source:
    """Make the source of a page from a chapter with its stored outputs; the chapter stays as it is.

    Args:
        notebook: a chapter of format 4.
        chapters: names of the chapters that the edition holds; a link to another one becomes plain text.
        shown: what stands in place of the stored output, as HTML, by the call that a cell ends with.
        notes: what is added below the stored output, likewise.
    Returns:
        the source.
    """
    pictures: dict[str, bytes] = {}
    cells = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            cells.append({**cell, "source": paged_markdown(text, chapters)})
        elif cell["cell_type"] == "code" and text.strip() != first_cell().strip():
            call = last_call(text)
            if call in shown:
                outputs = [html_output(paged_html(shown[call], chapters))]
            else:
                outputs = [paged_output(output, chapters, pictures) for output in cell["outputs"]]
                outputs += [html_output(notes[call])] if call in notes else []
            imports, rest = split_imports(text)
            if imports:
                folded = {"tags": [*cell["metadata"].get("tags", []), "hide-input"]}
                name = f"{cell['id']}-imports"
                cells.append({**cell, "id": name, "metadata": folded, "source": imports, "outputs": []})
            if rest or outputs:
                cells.append({**cell, "source": rest or text, "outputs": outputs})
    return Source({**notebook, "cells": cells}, pictures)


def split_imports(source: str) -> tuple[str, str]:
    """The imports that a cell begins with and what follows; few of them are left where they are.

    >>> split_imports("import a\\nimport b\\nimport c\\n\\nx = 1"), split_imports("import a\\nx = 1")
    (('import a\\nimport b\\nimport c', 'x = 1'), ('', 'import a\\nx = 1'))
    """
    try:
        statements = ast.parse(source).body
    except SyntaxError:  # a line for IPython alone
        return "", source
    last = 0
    for statement in statements:
        if not isinstance(statement, ast.Import | ast.ImportFrom):
            break
        last = statement.end_lineno
    if last < FEWEST_IMPORTS:
        return "", source
    lines = source.splitlines()
    return "\n".join(lines[:last]).strip(), "\n".join(lines[last:]).strip("\n")


def paged_output(output: Mapping, chapters: Collection[str], pictures: dict[str, bytes]) -> dict:
    """A stored output in the one form that a page shows best; its picture is added to `pictures`."""
    data = output.get("data", {})
    if "text/html" in data:
        return html_output(paged_html("".join(data["text/html"]), chapters))
    if "image/png" in data:
        png = base64.b64decode("".join(data["image/png"]))
        file = f"{hashlib.sha256(png).hexdigest()[:20]}.png"
        pictures[file] = png
        return html_output(picture_html(file, png, output["metadata"]["image/png"]["alt"]))
    if "text/markdown" in data:
        form = {"text/markdown": paged_markdown("".join(data["text/markdown"]), chapters)}
        return {"output_type": "display_data", "data": form, "metadata": {}}
    return dict(output)


def html_output(text: str) -> dict:
    """An output with one form."""
    return {"output_type": "display_data", "data": {"text/html": text}, "metadata": {}}


def picture_html(file: str, png: bytes, alt: str) -> str:
    """A stored picture with its alt text, at its own size or as wide as the page."""
    width, height = (int.from_bytes(png[PNG_SIZE][at : at + 4], "big") for at in (0, 4))
    words = html.escape(alt)
    return (
        f'<img class="spai-still" src="{FOLDER}/{file}" alt="{words}" width="{width}" height="{height}" loading="lazy">'
    )


def paged_html(text: str, chapters: Collection[str]) -> str:
    """HTML whose links to chapters lead to their pages.

    >>> paged_html('<a class="x" href="02_a.ipynb">A</a> <a href="03_b.ipynb">B</a>', {"02_a"})
    '<a class="x" href="02_a.html">A</a> <span>B</span>'
    """

    def lead(match: re.Match) -> str:
        before, quote, name, anchor, after, words = match.groups()
        if name not in chapters:
            return f"<span{before}{after}>{words}</span>"
        return f"<a{before} href={quote}{name}.html{anchor or ''}{quote}{after}>{words}</a>"

    return ANCHOR.sub(lead, text)


def paged_markdown(text: str, chapters: Collection[str]) -> str:
    """Markdown without links to chapters that the edition lacks; the others are the builder's to resolve.

    >>> paged_markdown("[A](02_a.ipynb), [B](03_b.ipynb)", {"02_a"})
    '[A](02_a.ipynb), B'
    """
    return LINK.sub(lambda match: match[0] if match[2] in chapters else match[1], text)

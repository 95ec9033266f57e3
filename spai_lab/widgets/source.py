"""The source of a package function, highlighted in place, so that no code stands twice in a notebook."""

import ast
import html
import inspect
import re
import textwrap
from collections.abc import Callable
from pathlib import Path

from pygments.lexers import PythonLexer
from pygments.token import Comment, Keyword, Name, Number, Operator, String, Token

from spai_lab.checks import describe
from spai_lab.files import PACKAGE
from spai_lab.widgets.shown import Shown


def themed(rule: str, variable: str, fallback: str) -> str:
    """A color that follows JupyterLab's theme; the plain one before it is for pages that drop or lack the variable.

    >>> themed("color", "--jp-x", "#000000")
    'color:#000000;color:var(--jp-x,#000000)'
    """
    return f"{rule}:{fallback};{rule}:var({variable},{fallback})"


COLORS = {
    kind: themed("color", f"--jp-mirror-editor-{role}-color", fallback)
    for kind, role, fallback in [
        (Comment, "comment", "#4d6a6a"),
        (Keyword, "keyword", "#006a00"),
        (Operator.Word, "keyword", "#006a00"),
        (Operator, "operator", "#6a1b9a"),
        (Name.Function, "def", "#0000c0"),
        (Name.Decorator, "def", "#0000c0"),
        (Number, "number", "#005f3c"),
        (String, "string", "#9c1b1b"),
    ]
}
INK = themed("color", "--jp-content-font-color1", "#1a1a1a")
BOX = ";".join(
    [
        themed("background-color", "--jp-cell-editor-background", "#f6f6f6"),
        INK,
        "border:1px solid;border-radius:4px",
        themed("border-color", "--jp-border-color2", "#c8c8c8"),
        "padding:0.6em 1em;margin:0.3em 0;overflow-x:auto;font-size:1.15em",
    ]
)
MONOSPACE = "font-family:var(--jp-code-font-family,Menlo,Consolas,'DejaVu Sans Mono',monospace);line-height:1.45"
CODE = f"margin:0;padding:0;background:none;font-size:1em;white-space:pre-wrap;word-break:normal;{MONOSPACE};{INK}"


def show_source(*functions: Callable) -> Shown:
    """Show what a function does: its source, highlighted, the docstring folded away.

    Args:
        functions: functions or classes written in Python, in the order to show them.
    Returns:
        what a notebook cell shows; in a terminal, the source with the first line of each docstring.
    Raises:
        ValueError: no function, or one without Python source; says what came.

    >>> from spai_lab.threat import steepest
    >>> print(str(show_source(steepest)).splitlines()[0])
    # spai_lab/threat.py
    """
    if not functions:
        raise ValueError("functions is empty; accepted: one function or more, as in show_source(fgsm)")
    pieces = [split_source(function) for function in functions]
    places = [place(function) for function in functions]
    plain = "\n\n\n".join(
        "\n".join(filter(None, [where and f"# {where}", head, summary(docstring), body]))
        for where, (head, docstring, body) in zip(places, pieces, strict=True)
    )
    boxes = [
        source_box(*piece, where=where, name=function.__name__)
        for function, where, piece in zip(functions, places, pieces, strict=True)
    ]
    return Shown(plain, html="".join(boxes))


def split_source(function: Callable) -> tuple[str, str, str]:
    """The source of a function in three parts: signature, docstring (as written, or empty) and body.

    Raises:
        ValueError: the function has no Python source.
    """
    try:
        source = textwrap.dedent(inspect.getsource(function)).rstrip()
    except (TypeError, OSError) as error:
        raise ValueError(f"function is {describe(function)}; accepted: a function written in Python") from error
    definition = ast.parse(source).body[0]
    if not isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        raise ValueError("function is a lambda; accepted: a function with a def")
    lines = source.splitlines()
    first = definition.body[0]
    if ast.get_docstring(definition) is None:
        return "\n".join(lines[: first.lineno - 1]), "", "\n".join(lines[first.lineno - 1 :])
    return (
        "\n".join(lines[: first.lineno - 1]),
        "\n".join(lines[first.lineno - 1 : first.end_lineno]),
        "\n".join(lines[first.end_lineno :]).strip("\n"),
    )


def place(function: Callable) -> str:
    """Where the package keeps a function, such as "spai_lab/threat.py"; empty for one from a notebook."""
    file = Path(inspect.getsourcefile(inspect.unwrap(function)) or "").resolve()
    return file.relative_to(PACKAGE.parent).as_posix() if file.is_relative_to(PACKAGE) else ""


def summary(docstring: str) -> str:
    """The first line of a docstring as it is written in the source, closed."""
    if "\n" not in docstring:
        return docstring
    quotes = '"""' if '"""' in docstring else "'''"
    return docstring.splitlines()[0].rstrip() + quotes


def highlight(source: str) -> str:
    """Python source as HTML spans whose colors follow the reader's theme; no span goes over the end of a line.

    >>> highlight("return 1")
    '<span style="color:#006a00;color:var(--jp-mirror-editor-keyword-color,#006a00)">return</span> \
<span style="color:#005f3c;color:var(--jp-mirror-editor-number-color,#005f3c)">1</span>'
    """
    tokens = (
        (color_of(kind), part)
        for kind, text in PythonLexer(stripnl=False, ensurenl=False).get_tokens(source)
        for part in re.split(r"(\n)", text)
    )
    return "".join(
        f'<span style="{color}">{html.escape(text)}</span>' if color and text.strip() else html.escape(text)
        for color, text in tokens
    )


def color_of(kind: type[Token]) -> str:
    """The color of a token: that of the nearest kind above it which has one."""
    while kind is not Token and kind not in COLORS:
        kind = kind.parent
    return COLORS.get(kind, "")


def source_box(head: str, docstring: str, body: str, *, where: str, name: str) -> str:
    """A function in a box: where it lives, signature, docstring behind a fold, body."""
    caption = f'<div style="opacity:0.8;{MONOSPACE};font-size:0.85em;margin-bottom:0.4em">{html.escape(where)}</div>'
    fold = (
        f'<details style="margin:0 0 0 4ch;{MONOSPACE}"><summary style="cursor:pointer;opacity:0.8">docstring</summary>'
        f"{code(textwrap.dedent(docstring))}</details>"
    )
    parts = [caption if where else "", code(head), fold if docstring else "", code(body) if body else ""]
    return f'<div role="region" aria-label="Source of {html.escape(name)}" style="{BOX}">{"".join(parts)}</div>'


def code(source: str) -> str:
    """Highlighted source, a block for each line; what is too wide goes on below it, indented."""
    blocks = []
    for plain, colored in zip(source.split("\n"), highlight(source).split("\n"), strict=True):
        deeper = len(plain) - len(plain.lstrip()) + 8
        blocks.append(f'<div style="padding-left:{deeper}ch;text-indent:-{deeper}ch">{colored or " "}</div>')
    return f'<pre style="{CODE}">{"".join(blocks)}</pre>'

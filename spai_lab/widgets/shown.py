"""What a cell shows: rich in a notebook, plain in a terminal, and readable on a code host."""

import html
import re
from dataclasses import dataclass


@dataclass(frozen=True, repr=False)
class Shown:
    """A cell's result in the forms that a reader may need.

    Args:
        plain: for terminals and screen readers.
        html: for notebooks, with inline styles alone, since code hosts drop style sheets.
        markdown: instead of HTML, where a notebook shall typeset the formulas.

    >>> Shown("two words", markdown="**two** words")
    two words
    """

    plain: str
    html: str = ""
    markdown: str = ""

    def __repr__(self) -> str:
        return self.plain

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        forms = {"text/plain": self.plain, "text/html": self.html, "text/markdown": self.markdown}
        return {kind: form for kind, form in forms.items() if form}


def as_html(sentence: str) -> str:
    """A sentence as HTML: escaped, with what stands in backticks set as code.

    >>> as_html("`x < 1` holds & ends")
    '<code>x &lt; 1</code> holds &amp; ends'
    """
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(sentence, quote=False))


def panel(*lines: str, color: str) -> str:
    """HTML lines beside a bar of one color; the text keeps the color of the reader's theme."""
    style = f"border-left:0.4em solid {color};padding:0.3em 0.9em;margin:0.3em 0;font-size:1.1em;line-height:1.5"
    return f'<div role="status" style="{style}">' + "".join(f"<div>{line}</div>" for line in lines if line) + "</div>"

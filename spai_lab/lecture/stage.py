"""What differs in the kernel of a lecture: larger figures, outcomes behind a button, folded sources, kind errors."""

import html

from IPython import get_ipython
from IPython.display import HTML, display
from ipywidgets import HTML as Words
from ipywidgets import Button, Layout, VBox

import spai_lab.widgets
from spai_lab import style
from spai_lab.widgets import explorable
from spai_lab.widgets.explorable import describe_error
from spai_lab.widgets.predict import compare as compare_now
from spai_lab.widgets.shown import Shown, panel
from spai_lab.widgets.source import show_source

DPI = 150  # of figures, 100 in a notebook: as much larger as the type, and as sharp
RED = "#d55e00"


def begin() -> None:
    """Make this kernel that of a lecture; a chapter's imports come after it."""
    style.SETTINGS.update({"figure.dpi": DPI, "savefig.dpi": DPI})
    style.WIDEST = style.WIDEST * DPI // 100
    explorable.LABEL_WIDTH, explorable.CONTROL_WIDTH, explorable.SLIDER_WIDTH = "150px", "390px", "795px"
    spai_lab.widgets.compare = compare
    spai_lab.widgets.show_source = folded_source
    if shell := get_ipython():
        shell.set_custom_exc((Exception,), lambda shell, kind, error, trace, tb_offset=None: excuse(error))


def compare(key: str, outcome: float | str, explanation: str = "") -> VBox:
    """As `spai_lab.widgets.compare`, behind a button: a lecture runs as a whole before the hall has predicted.

    Args:
        key: the key of the prediction.
        outcome: the measured number, or the option that turned out right.
        explanation: why.
    Returns:
        the button, and under it what came out, once it was pressed.
    Raises:
        ValueError: as `spai_lab.widgets.compare`.
    """
    compare_now(key, outcome, explanation)  # what it refuses, it refuses now
    button = Button(description="Show what came out", layout=Layout(width="max-content", height="auto"))
    said = Words()
    button.on_click(lambda _: said.set_trait("value", compare_now(key, outcome, explanation).html))
    return VBox([button, said])


def folded_source(*functions: object) -> Shown:
    """As `spai_lab.widgets.show_source`, behind a fold.

    >>> from spai_lab.threat import steepest
    >>> folded_source(steepest).html.startswith("<details><summary>Source: steepest</summary>")
    True
    """
    shown = show_source(*functions)
    names = html.escape(", ".join(function.__name__ for function in functions))
    return Shown(shown.plain, html=f"<details><summary>Source: {names}</summary>{shown.html}</details>")


def excuse(error: Exception) -> None:
    """Say in the hall that a part did not run, without a traceback; the rest goes on."""
    lines = ("<strong>This part did not run; the rest goes on.</strong>", html.escape(describe_error(error)))
    display(HTML(panel(*lines, "The chapter in the lab (<code>python3 run.py lab</code>) shows where.", color=RED)))

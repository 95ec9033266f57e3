"""What differs in the kernel of a lecture: larger figures, hands to count, outcomes behind a button, kind errors."""

import html
from collections.abc import Sequence

from IPython import get_ipython
from IPython.display import HTML, display
from ipywidgets import HTML as Words
from ipywidgets import VBox

import spai_lab.widgets
from spai_lab import style
from spai_lab.lecture.curtain import css_class
from spai_lab.lecture.hands import Hands, button, polls
from spai_lab.widgets import explorable
from spai_lab.widgets.explorable import describe_error
from spai_lab.widgets.predict import compare as compare_now
from spai_lab.widgets.predict import predict as predict_alone
from spai_lab.widgets.shown import Shown, panel
from spai_lab.widgets.source import show_source

DPI = 150  # of figures, 100 in a notebook: as much larger as the type, and as sharp
RED = "#d55e00"
NOBODY = "You made no prediction. "  # said to a reader, not to a hall
GOES_ON = '<span class="spai-goes-on">The chapter goes on when the outcome is shown.</span>'


def begin() -> None:
    """Make this kernel that of a lecture; a chapter's imports come after it."""
    style.SETTINGS.update({"figure.dpi": DPI, "savefig.dpi": DPI})
    style.WIDEST = style.WIDEST * DPI // 100
    explorable.LABEL_WIDTH, explorable.CONTROL_WIDTH, explorable.SLIDER_WIDTH = "150px", "390px", "795px"
    spai_lab.widgets.predict, spai_lab.widgets.compare = predict, compare
    spai_lab.widgets.show_source = folded_source
    if shell := get_ipython():
        shell.set_custom_exc((Exception,), lambda shell, kind, error, trace, tb_offset=None: excuse(error))


def predict(key: str, question: str, options: Sequence[str] | None = None, **bounds: object) -> VBox:
    """As `spai_lab.widgets.predict`, with a button by which the lecturer counts the hall's hands.

    Args:
        key: name under which the answers are kept.
        question: one sentence.
        options: the answers to choose from; else `low` and `high`.
        bounds: `low`, `high` and `unit` of a number.
    Returns:
        the question and its field, and under it the count.
    Raises:
        ValueError: as `spai_lab.widgets.predict`.
    """
    asked = predict_alone(key, question, options, **bounds)
    polls[key] = Hands(asked.question, asked.field)
    return VBox([asked.widget, polls[key].widget])


def compare(key: str, outcome: float | str, explanation: str = "") -> VBox:
    """As `spai_lab.widgets.compare`, behind a button: a lecture runs as a whole before the hall has predicted.

    Args:
        key: the key of the prediction.
        outcome: the measured number, or the option that turned out right.
        explanation: why.
    Returns:
        the button, and under it what came out and how the hall voted, once it was pressed.
    Raises:
        ValueError: as `spai_lab.widgets.compare`.
    """
    compare_now(key, outcome, explanation)  # what it refuses, it refuses now
    pressed, said, votes = button("Show what came out"), Words(), Words()
    goes_on = Words(GOES_ON)
    shown = VBox([pressed, goes_on, said, votes])
    shown.add_class("spai-outcome")
    votes.add_class("spai-votes")

    def show(_: object) -> None:
        said.value = compare_now(key, outcome, explanation).html.replace(NOBODY, "")
        shown.children = [pressed, said, votes]
        shown.add_class(css_class(key))
        if poll := polls.get(key):
            poll.reveal(outcome)
            votes.value = poll.picture.value if any(poll.tally.answers) else ""

    pressed.on_click(show)
    return shown


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
    words = panel(*lines, "The chapter in the lab (<code>python3 run.py lab</code>) shows where.", color=RED)
    display(HTML(f'<div class="spai-excuse">{words}</div>'))

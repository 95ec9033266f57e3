"""What a lecture keeps behind a question until its outcome is shown: figures between the two, and all that follows.

A chapter is projected as a page that runs as a whole, before the hall has answered. So each cell waits for the
questions that it could answer: results wait for every question that was asked above them, text and sources only for
those whose outcome stands above, since text between a question and its outcome explains what is asked.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ASKS = re.compile(r"""\bpredict\(\s*["']([^"']+)["']""")
TELLS = re.compile(r"""\bcompare\(\s*["']([^"']+)["']""")
# Cells between a question and its outcome that say what is asked, not what came of it: sources, and poisons to look at.
EXPLAINS = re.compile(r"\s*show_source\([^()]*\)\s*|.*\bpoison_figures\.poison_rows\(.*", re.DOTALL)
ALL = "lecture-all"  # the id of the switch that lifts every curtain


@dataclass(frozen=True)
class Curtain:
    """What waits for the outcome of one question.

    Args:
        key: of the question.
        button: the place of the cell whose button shows the outcome; what else this cell shows waits.
        hidden: the places of the cells that wait as a whole; the first cell of a page has place 1.
    """

    key: str
    button: int
    hidden: tuple[int, ...]


def curtains(cells: Sequence[Mapping]) -> list[Curtain]:
    """The curtains of a page, in the order of their outcomes.

    Args:
        cells: what the page shows.
    Returns:
        one for each question whose outcome the page shows.

    >>> code = lambda text: {"cell_type": "code", "source": text}
    >>> cells = [code('predict("a", "?")'), {"cell_type": "markdown", "source": "Why?"}, code("show(figure)"),
    ...          code('compare("a", 1)'), {"cell_type": "markdown", "source": "So it was."}]
    >>> curtains(cells)
    [Curtain(key='a', button=4, hidden=(3, 5))]
    """
    asked: list[str] = []
    buttons: dict[str, int] = {}
    hidden: dict[str, list[int]] = {}
    for place, cell in enumerate(cells, 1):
        source = "".join(cell["source"])
        told = TELLS.findall(source) if cell["cell_type"] == "code" else []
        asks = ASKS.findall(source) if cell["cell_type"] == "code" else []
        silent = cell["cell_type"] != "code" or asks or told or EXPLAINS.fullmatch(source)
        for key in buttons if silent else asked:
            hidden[key].append(place)
        for key in told:
            if key in asked:
                buttons[key] = place
        for key in asks:
            asked.append(key)
            hidden[key] = []
    return [Curtain(key, place, tuple(hidden[key])) for key, place in buttons.items()]


def css_class(key: str) -> str:
    """The class of an outcome that is shown, on the page.

    >>> css_class("02-fgsm"), css_class('a"b')
    ('spai-shown-02-fgsm', 'spai-shown-a-22-b')
    """
    return "spai-shown-" + re.sub(r"[^A-Za-z0-9_-]", lambda found: f"-{ord(found[0]):x}-", key)


def style_sheet(drawn: Sequence[Curtain]) -> str:
    """The rules that hide what waits, until an outcome is shown, its cell has failed, or the switch is on.

    Args:
        drawn: the curtains of a page.
    Returns:
        a style sheet; empty where nothing waits.
    """
    rules = []
    for curtain in drawn:
        button = f'[cell-index="{curtain.button}"]'
        lifted = f".{css_class(curtain.key)}, {button} .spai-excuse, #{ALL}:checked"
        waits = [f'[cell-index="{place}"]' for place in curtain.hidden]
        waits.append(f"{button} .jp-OutputArea-child:not(:has(.spai-outcome))")
        rules.append(f"body:not(:has({lifted})) :is({', '.join(waits)}) {{ display: none }}")
    return "\n".join(rules)

"""The survey's tables, filled from the taxonomy: as data, and as a figure for the projector."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from spai_lab.style import COLORS, figure
from spai_lab.survey.regions import MARKS, MEANING, shade, short_name
from spai_lab.survey.taxonomy import ACCESS, Row, load_taxonomy, rows_of

PHASE = {"evasion": "inference phase", "poisoning": "training phase"}
COLUMNS = ("training phase", "inference phase", *ACCESS["poisoning"])
ROLES = {"evasion": "adversarial", "poisoning": "poisoned"}


def attack_types(rows: Sequence[Row] | None = None) -> pd.DataFrame:
    """The attack types by the phase that they strike and by what they read of their victim.

    A method that works in several ways counts under each.

    Args:
        rows: the taxonomy; the project's if None.
    Returns:
        the number of methods: a line for evasion and one for poisoning, a column for each of `COLUMNS`.

    Reference: Bae et al. 2018, arXiv 1807.11655.
    Survey: secure AI, attack types.

    >>> attack_types()[["training phase", "inference phase"]]
               training phase  inference phase
    evasion                 0               23
    poisoning              14                0
    """
    rows = load_taxonomy() if rows is None else rows
    counts = {part: [len(_methods(rows, part, column)) for column in COLUMNS] for part in PHASE}
    return pd.DataFrame.from_dict(counts, orient="index", columns=list(COLUMNS))


def table_attack_types(rows: Sequence[Row] | None = None) -> Figure:
    """The attack types as a table: which phase each strikes, which knowledge each needs, by which methods.

    Args:
        rows: the taxonomy; the project's if None.
    Returns:
        the figure.

    Reference: Bae et al. 2018, arXiv 1807.11655.
    Survey: secure AI, attack types.
    """
    rows = load_taxonomy() if rows is None else rows
    fig, axes = figure(sum(WIDTHS), sum(HEIGHTS))
    fig.set_layout_engine("none")
    ax = axes[0, 0]
    ax.set(position=(0, 0, 1, 1), xlim=(0, sum(WIDTHS)), ylim=(sum(HEIGHTS), 0))
    ax.axis("off")
    lefts = [sum(WIDTHS[:index]) for index in range(1, len(WIDTHS))]
    for column, left, width in zip(COLUMNS, lefts, WIDTHS[1:], strict=True):
        title = column.replace(" ", "\n")
        ax.text(left + width / 2, HEIGHTS[0] / 2, title, fontsize=15, weight="bold", ha="center", va="center")
    for index, part in enumerate(PHASE, start=1):
        top, height = sum(HEIGHTS[:index]), HEIGHTS[index]
        ax.text(0.1, top + height / 2, part, fontsize=17, weight="bold", va="center", color=_ink(part))
        for column, left, width in zip(COLUMNS, lefts, WIDTHS[1:], strict=True):
            _draw_cell(ax, (left, top, width, height), part, column, _methods(rows, part, column))
    legend = "     ".join(f"{MARKS[status]} {meaning}" for status, meaning in MEANING.items())
    ax.text(sum(WIDTHS) - 0.1, sum(HEIGHTS) - 0.2, legend, fontsize=14, ha="right", va="center")
    return fig


WIDTHS = (1.5, 1.15, 1.15, 4.7, 2.15, 2.35)
HEIGHTS = (0.7, 2.95, 1.85, 0.4)


def _methods(rows: Sequence[Row], part: str, column: str) -> list[Row]:
    return [row for row in rows_of(rows, part) if column == PHASE[part] or column in row.who]


def _draw_cell(
    ax: Axes, place: tuple[float, float, float, float], part: str, column: str, methods: Sequence[Row]
) -> None:
    left, top, width, height = place
    face = shade(COLORS[ROLES[part]], "white", 0.88) if methods else "white"
    ax.add_patch(Rectangle((left + 0.04, top + 0.04), width - 0.08, height - 0.08, facecolor=face, edgecolor="#bbbbbb"))
    middle = left + width / 2
    if not methods:
        ax.text(middle, top + height / 2, "none", fontsize=14, ha="center", va="center", color="#666666")
    elif column == PHASE[part]:
        ax.text(
            middle, top + height / 2, f"all\n{len(methods)}", fontsize=20, ha="center", va="center", color=_ink(part)
        )
    else:
        ax.text(left + 0.15, top + 0.28, len(methods), fontsize=20, va="center", color=_ink(part))
        columns = 2 if column == "white-box" else 1
        length = -(-len(methods) // columns)
        for index in range(columns):
            names = [f"{MARKS[row.status]} {short_name(row)}" for row in methods[index * length : (index + 1) * length]]
            x = left + 0.15 + index * width / columns
            ax.text(x, top + 0.52, "\n".join(names), fontsize=11.5, va="top", linespacing=1.4)


def _ink(part: str) -> str:
    return shade(COLORS[ROLES[part]], "black", 0.32)

"""The survey's map as a picture, for wherever a page cannot be shown."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import BoxStyle, FancyBboxPatch
from matplotlib.textpath import TextPath

from spai_lab.style import COLORS, figure
from spai_lab.survey.regions import LAYOUT, MARKS, MEANING, Region, shade, short_name, summary
from spai_lab.survey.taxonomy import Row, rows_of

WIDTH, HEAD, MARGIN = 14.0, 0.7, 0.2
CHIP, LINE, PAD = 0.32, 0.4, 0.12
CHIP_FONT, TEXT_FONT = 12, 11.5


def map_figure(rows: Sequence[Row]) -> Figure:
    """The map as a picture: filled chips run today, hollow ones not yet.

    Args:
        rows: the taxonomy.
    Returns:
        the figure; its height follows the number of rows.

    Reference: Bae et al. 2018, arXiv 1807.11655.
    Survey: the whole taxonomy.
    """
    panels, titles, y = [], [], HEAD
    for title, lines in LAYOUT.items():
        titles.append((title, y + 0.25))
        y += 0.5
        for line in lines:
            width = (WIDTH - MARGIN) / len(line) - MARGIN
            lefts = [MARGIN + index * (width + MARGIN) for index in range(len(line))]
            placed = [_flow(region, rows, left, y, width) for region, left in zip(line, lefts, strict=True)]
            tallest = max(panel.height for panel in placed)
            panels += [replace(panel, height=tallest) for panel in placed]
            y += tallest + MARGIN

    fig, axes = figure(WIDTH, y)
    fig.set_layout_engine("none")
    ax = axes[0, 0]
    ax.set(position=(0, 0, 1, 1), xlim=(0, WIDTH), ylim=(y, 0))
    ax.axis("off")
    ax.text(MARGIN, 0.4, summary(rows), fontsize=19, weight="bold", va="center")
    legend = "      ".join(f"{MARKS[status]} {meaning}" for status, meaning in MEANING.items())
    ax.text(WIDTH - MARGIN, 0.4, legend, fontsize=15, ha="right", va="center")
    for title, middle in titles:
        ax.text(MARGIN, middle, title, fontsize=17, weight="bold", va="center")
    for panel in panels:
        _draw(ax, panel)
    return fig


@dataclass(frozen=True)
class _Panel:
    """A region on the poster and where its chips lie, in inches from the upper left corner."""

    region: Region
    x: float
    y: float
    width: float
    height: float
    sentence: str
    chips: tuple[tuple[Row, float, float, float], ...]


def _flow(region: Region, rows: Sequence[Row], x: float, y: float, width: float) -> _Panel:
    """Lay the chips from left to right and wrap them, as words do."""
    sentence = textwrap.fill(region.sentence, int(width * 11))
    left, right = x + PAD, x + width - PAD
    chip_x, chip_y, chips = left, y + 0.75 + 0.2 * sentence.count("\n"), []
    for row in rows_of(rows, region.part):
        chip_width = _text_width(_label(row)) + 0.2
        if chip_x + chip_width > right:
            chip_x, chip_y = left, chip_y + LINE
        chips.append((row, chip_x, chip_y, chip_width))
        chip_x += chip_width + 0.08
    return _Panel(region, x, y, width, chip_y + LINE + 0.04 - y, sentence, tuple(chips))


def _draw(ax: Axes, panel: _Panel) -> None:
    color = COLORS[panel.region.role]
    left, right = panel.x + PAD, panel.x + panel.width - PAD
    _box(ax, panel.x, panel.y, panel.width, panel.height, facecolor=shade(color, "white", 0.9), edgecolor="none")
    ax.text(left, panel.y + 0.27, panel.region.title, fontsize=15, weight="bold", va="center")
    count = f"{sum(row.runnable for row, *_ in panel.chips)} of {len(panel.chips)}"
    ax.text(right, panel.y + 0.27, count, fontsize=12, ha="right", va="center")
    ax.text(left, panel.y + 0.45, panel.sentence, fontsize=TEXT_FONT, va="top", color="#333333")
    for row, x, y, width in panel.chips:
        fill, ink = (shade(color, "black", 0.32), "white") if row.runnable else ("white", "#222222")
        _box(ax, x, y, width, CHIP, facecolor=fill, edgecolor=color)
        ax.text(x + 0.1, y + CHIP / 2, _label(row), color=ink, fontsize=CHIP_FONT, va="center")


def _label(row: Row) -> str:
    return f"{MARKS[row.status]} {short_name(row)}"


def _box(ax: Axes, x: float, y: float, width: float, height: float, **look) -> None:
    style = BoxStyle("round", pad=0, rounding_size=0.08)
    ax.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=style, linewidth=1.2, **look))


def _text_width(text: str) -> float:
    return TextPath((0, 0), text, size=CHIP_FONT).get_extents().x1 / 72

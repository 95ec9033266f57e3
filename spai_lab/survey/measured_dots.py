"""Rows of dots, as the survey's measured figures draw them: what was measured, its interval, and chance in gray."""

import textwrap
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from spai_lab.metrics import Rate
from spai_lab.style import COLORS, MARKERS
from spai_lab.survey.figures import INK
from spai_lab.survey.headline import Headline
from spai_lab.survey.headline_rows import shared_out
from spai_lab.survey.measured_rows import NOT_MEASURED, Line, source_of
from spai_lab.survey.regions import shade
from spai_lab.survey.threat_headlines import CONTROL

FONT, SMALL = 15, 10
DATA_LOOKS = {"MNIST": None, "faces": "^", "digits": "o"}  # the mark; the role's own for MNIST. In order of preference.


def rows_of_lines(lines: Sequence[Line]) -> list[list[Line]]:
    """The lines of each row together, in order."""
    rows: dict[str, list[Line]] = {}
    for line in lines:
        rows.setdefault(line.row.id, []).append(line)
    return list(rows.values())


def draw_dots(
    ax: Axes, rows: Sequence[Sequence[Line]], role: str, words: Callable[[Line], str] = lambda line: line.result
) -> None:
    """A row of dots for each method, and to the right what `words` say of its largest data set."""
    ax.set(xlim=(-0.03, 1.03), ylim=(len(rows) - 0.5, -0.5))
    ax.grid(axis="x", color=COLORS["baseline"], alpha=0.3)
    ax.xaxis.set_major_locator(ticker.FixedLocator([0, 0.25, 0.5, 0.75, 1]))
    ax.xaxis.set_major_formatter(ticker.FuncFormatter(lambda share, _: f"{100 * share:.0f} %"))
    ax.tick_params(axis="x", labelsize=13)
    ax.tick_params(axis="y", length=0)
    ax.set_yticks(range(len(rows)), [row[0].name for row in rows], fontsize=FONT)
    for height, row in enumerate(rows):
        for line in row:
            draw_dot(ax, line, height, role)
        line = largest(row)
        if line.headline is None:
            draw_gap(ax, line, height)
        else:
            beside = {"transform": ax.get_yaxis_transform(), "fontsize": FONT, "va": "center"}
            ax.text(1.03, height, words(line), gid=f"{line.row.id} value", **beside)


def draw_gap(ax: Axes, line: Line, height: float, left: float = 0.0) -> None:
    """Where nothing was measured: why, in place of a dot."""
    words = textwrap.shorten(line.failed, 44, placeholder=" …")
    color = "#666666" if line.failed == NOT_MEASURED else shade(COLORS["adversarial"], "black", 0.32)
    ax.text(left, height, words, fontsize=12, style="italic", va="center", color=color, gid=f"{line.row.id} gap")


def draw_dot(ax: Axes, line: Line, height: float, role: str) -> None:
    """A headline on the scale, its interval, and in gray how far one comes without it."""
    found, without = None if line.headline is None else share_of(line.headline), control(line.headline)
    if without is not None:
        ax.plot(without, height, MARKERS["baseline"], color=COLORS["baseline"], markersize=13, zorder=2)
    if found is None:
        return
    share, interval = found
    if interval is not None:
        ax.plot(np.clip(interval, 0, 1), [height] * 2, color=COLORS[role], linewidth=2.2, alpha=0.8, zorder=3)
    ax.plot(share, height, zorder=4, gid=f"{line.row.id} {data_name(line)}", **data_look(data_name(line), role))


def data_name(line: Line) -> str:
    """The data set, without how it compares with others."""
    return line.data.removesuffix(" only")


def data_look(data: str, role: str) -> dict[str, object]:
    """How a dot of a data set looks: filled with the role's mark on MNIST, hollow on smaller ones."""
    mark = DATA_LOOKS.get(data, "s") or MARKERS[role]
    hollow = {} if data == "MNIST" else {"markerfacecolor": "white"}
    return {"marker": mark, "color": COLORS[role], "markersize": 10, "markeredgewidth": 2, "linestyle": ""} | hollow


def share_of(headline: Headline) -> tuple[float, tuple[float, float] | None] | None:
    """A headline on the scale from 0 to 1, with its interval; None where it has no place there.

    >>> share_of(Headline("error added", 12.5, "points", 4, None, "a", "b", "higher"))
    (0.125, None)
    """
    if "within" in headline.details and headline.unit:
        rate = Rate(*headline.details["within"])
        return rate.value, rate.interval
    scale = {"": 1, "points": 100}.get(headline.unit)
    if scale is None:
        return None
    return headline.value / scale, headline.interval and tuple(end / scale for end in headline.interval)


def control(headline: Headline | None) -> float | None:
    """How far one comes without the attack, on the same scale; None where that was not measured."""
    if headline is None or (headline.unit and headline.unit != "points"):
        return None
    if CONTROL in headline.details:
        return headline.details[CONTROL]
    signs = headline.details.get("random signs", {}).get(f"{headline.details.get('eps', 0):g}")
    before = headline.details.get("without the backdoor", {}).get("success_before")
    counts = signs or before
    return shared_out(counts) if counts else None


def largest(row: Sequence[Line]) -> Line:
    """Of the lines of a row, the one of the largest data set."""
    order = list(DATA_LOOKS)
    return min(row, key=lambda line: order.index(data_name(line)) if data_name(line) in order else len(order))


def draw_legend(fig: Figure, lines: Sequence[Line], place: tuple[float, float]) -> None:
    """Which mark stands for which data set, and the gray dot."""
    here = dict.fromkeys(data_name(line) for line in lines if line.headline is not None and share_of(line.headline))
    names = {data: data or "no data set" for data in sorted(here, key=[*DATA_LOOKS, *here].index)}
    looks = [Line2D([], [], label=name, **data_look(data, "clean") | {"color": INK}) for data, name in names.items()]
    if any(control(line.headline) is not None for line in lines):
        gray = {"marker": MARKERS["baseline"], "color": COLORS["baseline"], "markersize": 13, "linestyle": ""}
        looks.append(Line2D([], [], label="without the attack", **gray))
    looks.append(Line2D([], [], label="95 % interval", color=INK, linewidth=2.2))
    fig.legend(handles=looks, loc="lower center", bbox_to_anchor=place, ncols=len(looks), fontsize=FONT, frameon=False)


def draw_source(fig: Figure, measurement: dict) -> None:
    """The file that a figure was made from, small at its bottom."""
    fig.text(0.006, 0.006, source_of(measurement), fontsize=SMALL, color="#555555", va="bottom", gid="source")

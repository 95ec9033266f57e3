"""Rows of dots, as the survey's measured figures draw them: what was measured, its interval, and chance in gray."""

import re
import textwrap
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D

from spai_lab.metrics import Rate
from spai_lab.style import COLORS, MARKERS
from spai_lab.survey.figures import INK
from spai_lab.survey.headline import Headline
from spai_lab.survey.headline_rows import shared_out
from spai_lab.survey.measured_rows import NOT_MEASURED, Line, source_of
from spai_lab.survey.regions import shade
from spai_lab.survey.threat_headlines import CONTROL

WIDTH, FONT = 13.8, 14.5  # inches, points: in a column of 828 pixels, as a notebook has at 1,280, 12 pixels
PITCH = 0.34  # inches between rows
DATA_LOOKS = {"MNIST": None, "faces": "^", "digits": "o", "patients": "s"}  # the mark; the role's own for MNIST
DATA_WORDS = {"MNIST": "filled: MNIST", "faces": "triangle: faces", "digits": "hollow: digits"}
DATA_WORDS |= {"patients": "square: patients"}
# What a share is of, where it is no plain success rate: how the metric of the headline begins, and the words for it.
MEASURES = (
    (r"members found (?P<where>at .* false) positives", "{where} alarms"),
    (r"classes that a judge recognizes", "recognized"),
    (r"sex guessed", "guessed"),
    (r"test images on which the copy says", "answered alike"),
    (r"images read from their gradient", "read"),
    (r"drawings that a judge takes", "taken for it"),
    (r"targets that get", "turned"),
    (r"images with the trigger|triggers that open", "opened"),
)
LIMIT = r"(of [\d.,]+) at most"


def rows_of_lines(lines: Sequence[Line]) -> list[list[Line]]:
    """The lines of each row together, in order."""
    rows: dict[str, list[Line]] = {}
    for line in lines:
        rows.setdefault(line.row.id, []).append(line)
    return list(rows.values())


def told(line: Line) -> str:
    """The number of an attack, what it counts where that is no plain success, and the median of the least distortions.

    >>> told(Line(None, Headline("members found at 1 % false positives", 0.2, "", 5, None, "a", "b", "higher")))
    '20 % at 1 % false alarms'
    """
    headline = line.headline
    share, *_ = share_of(headline) or (None,)
    if share is None or headline.unit == "points":
        return headline.shown
    median = headline.value if headline.unit else headline.details.get("median distortion")
    unit = headline.unit or "L2"
    parts = [f"{percent_of(share)} {measure_of(headline.metric)}".strip()]
    return ", ".join(parts if median is None else [*parts, f"median {median:.3g} {unit}"])


def percent_of(share: float) -> str:
    """A share in percent, with a tenth where it is small.

    >>> percent_of(0.017), percent_of(0.964)
    ('1.7 %', '96 %')
    """
    return f"{100 * share:.1f} %" if 0 < share < 0.0995 else f"{100 * share:.0f} %"


def measure_of(metric: str) -> str:
    """What a share is of, in a few words; empty for a plain success rate."""
    for begins, words in MEASURES:
        if found := re.match(begins, metric):
            return words.format(**found.groupdict())
    return ""


def draw_dots(ax: Axes, rows: Sequence[Sequence[Line]], role: str, words: Callable[[Line], str] = told) -> None:
    """A row of dots for each method, and to the right what `words` say of its largest data set."""
    ax.set(xlim=(-0.03, 1.03), ylim=(len(rows) - 0.5, -0.5))
    ax.grid(axis="x", color=COLORS["baseline"], alpha=0.3)
    ax.xaxis.set_major_locator(ticker.FixedLocator([0, 0.5, 1]))
    ax.xaxis.set_major_formatter(ticker.FuncFormatter(lambda share, _: f"{100 * share:.0f} %"))
    draw_names(ax, [row[0].name for row in rows])
    for height, row in enumerate(rows):
        for line in row:
            draw_dot(ax, line, height, role)
        line = largest(row)
        if line.headline is None:
            draw_gap(ax, line, height)
        elif share_of(line.headline) is None:
            ax.text(0, height, without_scale(line), fontsize=FONT, va="center", gid=f"{line.row.id} value")
        else:
            beside = {"transform": ax.get_yaxis_transform(), "fontsize": FONT, "va": "center"}
            ax.text(1.08, height, words(line), gid=f"{line.row.id} value", **beside)


def draw_names(ax: Axes, names: Sequence[str]) -> None:
    """What each row of the axes is called, in a size to be read."""
    ax.tick_params(axis="both", labelsize=FONT)
    ax.tick_params(axis="y", length=0)
    ax.set_yticks(range(len(names)), names, fontsize=FONT)


def without_scale(line: Line) -> str:
    """A number that has no place between nothing and everything: with how much it can be, and without the attack."""
    limit, without = re.search(LIMIT, line.measured), line.headline.details.get(CONTROL)
    parts = [line.result, "" if limit is None else f" {limit.group(1)}"]
    parts += [] if without is None else [f"; without it {without:.3g}"]
    return "".join(parts)


def draw_gap(ax: Axes, line: Line, height: float, left: float = 0.0) -> None:
    """Where nothing was measured: why, in place of a dot."""
    words = textwrap.shorten(line.failed, 44, placeholder=" …")
    color = "#666666" if line.failed == NOT_MEASURED else shade(COLORS["adversarial"], "black", 0.32)
    ax.text(left, height, words, fontsize=FONT, style="italic", va="center", color=color, gid=f"{line.row.id} gap")


def draw_dot(ax: Axes, line: Line, height: float, role: str) -> None:
    """A headline on the scale, its interval, and in gray how far one comes without it."""
    found, without = None if line.headline is None else share_of(line.headline), control(line.headline)
    if without is not None:
        ax.plot(without, height, MARKERS["baseline"], color=COLORS["baseline"], markersize=13, zorder=5)
    if found is None:
        return
    share, interval = found
    if interval is not None:
        ax.plot(np.clip(interval, 0, 1), [height] * 2, color=COLORS[role], linewidth=2.2, alpha=0.8, zorder=3)
    data = data_name(line)
    ax.plot(share, height, zorder=4, clip_on=False, gid=f"{line.row.id} {data}", **data_look(data, role))


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


def draw_legend(fig: Figure, lines: Sequence[Line], place: tuple[float, float], roles: Sequence[str]) -> None:
    """Which mark stands for which data set, in the colors of the panels, and the gray dot."""
    here = dict.fromkeys(data_name(line) for line in lines if line.headline is not None and share_of(line.headline))
    looks, names = [], []
    for data in sorted(here, key=[*DATA_LOOKS, *here].index):
        shades = [COLORS[role] for role in roles] if data == "MNIST" else [INK]
        marks = zip(roles, shades, strict=False)
        looks.append(tuple(Line2D([], [], **data_look(data, role) | {"color": color}) for role, color in marks))
        names.append(DATA_WORDS.get(data, data or "no data set"))
    if any(control(line.headline) is not None for line in lines):
        gray = {"marker": MARKERS["baseline"], "color": COLORS["baseline"], "markersize": 13, "linestyle": ""}
        looks.append(Line2D([], [], **gray))
        names.append("without the attack")
    looks.append(Line2D([], [], color=INK, linewidth=2.2))
    names.append("95 % interval")
    spread = {tuple: HandlerTuple(ndivide=None, pad=0.6)}
    style = {"fontsize": FONT, "frameon": False, "handletextpad": 0.5, "columnspacing": 1.3, "handlelength": 2.2}
    fig.legend(looks, names, loc="lower center", bbox_to_anchor=place, ncols=len(looks), handler_map=spread, **style)


def draw_source(fig: Figure, measurement: dict) -> None:
    """The file that a figure was made from, at its bottom."""
    fig.text(0.006, 0.006, source_of(measurement), fontsize=FONT, color="#555555", va="bottom", gid="source")


def draw_title(fig: Figure, ax: Axes, title: str, role: str, above: float = 0.18, reach: float = 2.7) -> None:
    """A title in the color of a role, so many inches above the axes and to their left, where their labels begin."""
    place, height = ax.get_position(), fig.get_figheight()
    left = place.x0 - reach / fig.get_figwidth()
    look = {"fontsize": 18, "weight": "bold", "color": shade(COLORS[role], "black", 0.32)}
    fig.text(max(left, 0.006), place.y1 + above / height, title, **look)

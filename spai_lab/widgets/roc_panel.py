"""What a threshold separates: two histograms with the threshold, the ROC curve, and the point that it gives."""

from collections.abc import Mapping

import numpy as np
from matplotlib import ticker
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from torch import Tensor

from spai_lab.metrics import Rate, Roc
from spai_lab.style import COLORS, MARKERS

PRESENT = {"color": "black", "linestyle": "", "marker": "o", "fillstyle": "none", "markersize": 20}
HEIGHTS = {"true": 1.18, "false": 1.08}  # of the words above the curve, as shares of its height
SUSPECTED = {"facecolor": "black", "alpha": 0.1, "edgecolor": "none", "zorder": 1, "gid": "suspected"}
THRESHOLD = {"color": "black", "linestyle": "--", "linewidth": 2.5, "zorder": 2, "gid": "threshold"}
RULE = {"fontsize": 15, "weight": "bold", "gid": "rule"}
NONE = 1.5e-4  # where the logarithmic axes say 0
BREAK = (2.1e-4, 2.5e-4)  # where they are cut, since no logarithmic axis reaches 0
DECADES = (1e-3, 1e-2, 1e-1, 1)


def look(role: str) -> dict:
    """How a point of a group is drawn."""
    return {"color": COLORS[role], "marker": MARKERS[role], "markeredgecolor": "black", "linestyle": ""}


def draw_histograms(ax: Axes, edges: np.ndarray, middles: np.ndarray, groups: Mapping[str, tuple[str, Tensor]]) -> None:
    """How often each score occurs in two groups; what lies beyond the edges shares the outermost bars.

    Args:
        ax: where to draw.
        edges: of the bars, rising, `(B + 1,)`.
        middles: where each bar's marker stands, `(B,)`.
        groups: role of a group to its name and its scores `(N,)`.
    """
    for role, (name, scores) in groups.items():
        counts, _ = np.histogram(scores.numpy().clip(edges[0], edges[-1]), edges)
        ax.stairs(counts, edges, fill=True, color=COLORS[role], alpha=0.3)
        ax.stairs(counts, edges, color=COLORS[role], linewidth=2)
        seen = counts > 0
        ax.plot(middles[seen], counts[seen], markersize=9, label=f"{name} ({len(scores)})", **look(role))
    ax.set(ylim=(0, 1.06 * ax.get_ylim()[1]), ylabel="images")


def mark_side(ax: Axes, start: float, end: float) -> Artist:
    """The suspicious side of a threshold in gray; it is named (gid) "suspected"."""
    left, right = sorted((start, end))
    return Rectangle((left, 0), right - left, 1, transform=ax.get_xaxis_transform(), **SUSPECTED)


def mark_threshold(ax: Axes, threshold: float, words: str) -> list[Artist]:
    """The threshold as an upright line, and above it what happens on its suspicious side: "threshold" and "rule"."""
    line = Line2D([threshold] * 2, [0, 1], transform=ax.get_xaxis_transform(), **THRESHOLD)
    place = ax.transAxes.inverted().transform(ax.transData.transform((threshold, 0)))[0]
    return [line, Text(min(max(place, 0.2), 0.8), 1.015, words, ha="center", transform=ax.transAxes, **RULE)]


def draw_roc(ax: Axes, curve: Roc, names: tuple[str, str], guilty: str, reach: float = 1.0) -> None:
    """The curve, thick where a slider reaches and dashed beyond, with a marker for each of two lines of words above.

    Args:
        ax: where to draw.
        curve: of all thresholds.
        names: of the axes, false positives first.
        guilty: the role of what shall be caught; what shall not is "clean".
        reach: the false positive rate of the slider's loosest threshold.
    """
    ax.plot([0, 1], [0, 1], color=COLORS["baseline"], linestyle=":")
    ax.annotate("guessing", (0.28, 0.24), color="black", va="top")
    ax.plot(curve.false_positives, curve.true_positives, color=COLORS["defended"], linewidth=1.5, linestyle="--")
    within = curve.false_positives <= reach
    ax.plot(curve.false_positives[within], curve.true_positives[within], color=COLORS["defended"], linewidth=3.5)
    ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    ax.set(xlabel=names[0], ylabel=names[1])
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(ticker.PercentFormatter(1, symbol=" %"))
    draw_markers(ax, guilty)


def draw_log_roc(ax: Axes, curve: Roc, names: tuple[str, str], guilty: str, innocent: int) -> None:
    """The curve on two logarithmic axes that begin with a 0, as steps: what is caught with at most so many false ones.

    False positives below one of the innocent are in gray, and the curve is dashed: nothing can be measured there.

    Args:
        ax: where to draw.
        curve: of all thresholds.
        names: of the axes, false positives first.
        guilty: the role of what shall be caught; what shall not is "clean".
        innocent: how many innocent scores the curve rests on.
    """
    ax.set(xscale="log", yscale="log", xlim=(NONE, 1.25), ylim=(NONE, 1.25), xlabel=names[0], ylabel=names[1])
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(ticker.FixedLocator([NONE, *DECADES]))
        axis.set_major_formatter(ticker.FixedFormatter(["0", *(f"{100 * share:g} %" for share in DECADES)]))
        axis.set_minor_locator(ticker.NullLocator())
    ax.axvspan(NONE, 1 / innocent, color=COLORS["baseline"], alpha=0.25, linewidth=0)
    words = {"xycoords": ("data", "axes fraction"), "fontsize": 12, "ha": "center", "va": "top"}
    ax.annotate(f"below\n1 of {innocent}", ((NONE / innocent) ** 0.5, 0.98), **words)
    ax.plot([BREAK[1], 1], [BREAK[1], 1], color="black", linestyle=":", label="guessing")
    caught, alarms = curve.true_positives.clamp_min(NONE).numpy(), curve.false_positives.numpy()
    some = alarms > 0
    free, first = caught[~some][-1:], alarms[some][:1]
    steps = {"drawstyle": "steps-post", "color": COLORS[guilty], "linewidth": 3.5, "label": "this model"}
    ax.plot([NONE, *first], [*free, *free], color=COLORS[guilty], linewidth=1.5, linestyle="--")
    ax.plot(np.append(first, alarms[some]), np.append(free, caught[some]), **steps)
    cut = {"color": "white", "markeredgecolor": "black", "markersize": 11, "clip_on": False, "zorder": 3}
    ax.plot(BREAK, (0, 0), transform=ax.get_xaxis_transform(), marker=[(-0.5, -1), (0.5, 1)], **cut)
    ax.plot((0, 0), BREAK, transform=ax.get_yaxis_transform(), marker=[(-1, -0.5), (1, 0.5)], **cut)
    draw_markers(ax, guilty)


def draw_markers(ax: Axes, guilty: str) -> None:
    """A marker before each of the two lines of words above a curve."""
    for role, height in zip((guilty, "clean"), HEIGHTS.values(), strict=True):
        ax.plot([-0.03], [height], transform=ax.transAxes, clip_on=False, markersize=12, **look(role))


def mark_rates(fig: Figure, ax: Axes, caught: Rate, alarms: Rate, decimals: int = 0) -> None:
    """The point of one threshold with its intervals, and both rates in words above the curve.

    Its parts have names (gid): "present", "true interval", "false interval", and the words "true" and "false". A rate
    below the first that the axes show, such as 0 on logarithmic ones, stands on their edge.
    """
    bars = {"color": "black", "linewidth": 2, "transform": ax.transData}
    (x, *across), (y, *up) = (
        np.maximum([rate.value, *rate.interval], low)
        for rate, (low, _) in ((alarms, ax.get_xlim()), (caught, ax.get_ylim()))
    )
    fig.add_artist(Line2D([x, x], up, gid="true interval", **bars))
    fig.add_artist(Line2D(across, [y, y], gid="false interval", **bars))
    point = Line2D([x], [y], transform=ax.transData, gid="present", **PRESENT)
    point.set_markeredgewidth(3)
    fig.add_artist(point)
    for (gid, height), rate in zip(HEIGHTS.items(), (caught, alarms), strict=True):
        words = f"{gid} positives {in_percent(rate, decimals)}"
        fig.text(0.02, height, words, transform=ax.transAxes, fontsize=16, weight="bold", va="center", gid=gid)


def in_percent(rate: Rate, decimals: int = 0) -> str:
    """A rate and its interval, in percent; with decimals, if they are asked for, of what is below 10 %.

    >>> in_percent(Rate(34, 53))
    '64 % (51 to 76)'
    >>> in_percent(Rate(1, 200), decimals=1)
    '0.5 % (0.1 to 2.8)'
    """
    value, low, high = (f"{100 * share:.{decimals if share < 0.1 else 0}f}" for share in (rate.value, *rate.interval))
    return f"{value} % ({low} to {high})"

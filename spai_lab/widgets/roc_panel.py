"""The ROC curve beside what a threshold separates, and the point on it that the threshold gives."""

from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from spai_lab.metrics import Rate, Roc
from spai_lab.style import COLORS, MARKERS

PRESENT = {"color": "black", "linestyle": "", "marker": "o", "fillstyle": "none", "markersize": 20}
HEIGHTS = {"true": 1.18, "false": 1.08}  # of the words above the curve, as shares of its height


def look(role: str) -> dict:
    """How a point of a group is drawn."""
    return {"color": COLORS[role], "marker": MARKERS[role], "markeredgecolor": "black", "linestyle": ""}


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
    for role, height in zip((guilty, "clean"), HEIGHTS.values(), strict=True):
        ax.plot([-0.03], [height], transform=ax.transAxes, clip_on=False, markersize=12, **look(role))


def mark_rates(fig: Figure, ax: Axes, caught: Rate, alarms: Rate) -> None:
    """The point of one threshold with its intervals, and both rates in words above the curve.

    Its parts have names (gid): "present", "true interval", "false interval", and the words "true" and "false".
    """
    bars = {"color": "black", "linewidth": 2, "transform": ax.transData}
    fig.add_artist(Line2D([alarms.value] * 2, caught.interval, gid="true interval", **bars))
    fig.add_artist(Line2D(alarms.interval, [caught.value] * 2, gid="false interval", **bars))
    point = Line2D([alarms.value], [caught.value], transform=ax.transData, gid="present", **PRESENT)
    point.set_markeredgewidth(3)
    fig.add_artist(point)
    for (gid, height), rate in zip(HEIGHTS.items(), (caught, alarms), strict=True):
        words = f"{gid} positives {in_percent(rate)}"
        fig.text(0.02, height, words, transform=ax.transAxes, fontsize=16, weight="bold", va="center", gid=gid)


def in_percent(rate: Rate) -> str:
    """A rate and its interval, in whole percent.

    >>> in_percent(Rate(34, 53))
    '64 % (51 to 76)'
    """
    value, low, high = (f"{100 * share:.0f}" for share in (rate.value, *rate.interval))
    return f"{value} % ({low} to {high})"

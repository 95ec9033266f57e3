"""Drawings of the chapter on multi-party computation: who sends what, what it costs, how long it takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter
from scipy import stats

from spai_lab import metrics
from spai_lab.checks import check_count, describe
from spai_lab.crypto.channel import Lap, Sent
from spai_lab.crypto.network_time import Duration, Network, replay
from spai_lab.defense_figures import HATCHES
from spai_lab.he_figures import in_bytes, in_seconds
from spai_lab.style import COLORS, MARKERS, figure, panels, styled

SIDES = ("clean", "private")  # the roles of the party that keeps the log, and of the other one
WIDTH, ROW, EDGES = 10.0, 0.46, 1.15  # inches: of a sequence diagram, of an arrow, above and below all
LIFELINES = (0.3, 0.9)  # of the width, where the parties stand
LARGE = {"fontsize": 15}
DOTS = {"computing": "o", "all": "D"}
SOONEST = 1e-2  # seconds, where the axis of durations begins


@dataclass(frozen=True)
class Arrow:
    """Messages that follow each other in one direction.

    Args:
        outgoing: whether the party that keeps the log sent them.
        kind: what they are.
        count: how many.
        size: their bytes.
        at: seconds when the last of them went or came.
    """

    outgoing: bool
    kind: str
    count: int
    size: int
    at: float


def arrows(log: Sequence[Sent]) -> list[Arrow]:
    """A log with messages of one kind and direction that follow each other taken together.

    >>> [(a.kind, a.count, a.size) for a in arrows([Sent(0, 0, True, "piece", 5), Sent(1, 1, True, "piece", 7)])]
    [('piece', 2, 12)]
    """
    found: list[Arrow] = []
    for each in log:
        if found and (found[-1].outgoing, found[-1].kind) == (each.outgoing, each.kind):
            last = found.pop()
            found.append(Arrow(each.outgoing, each.kind, last.count + 1, last.size + each.size, each.at))
        else:
            found.append(Arrow(each.outgoing, each.kind, 1, each.size, each.at))
    return found


def sequence(log: Sequence[Sent], names: tuple[str, str]) -> Figure:
    """A conversation as a sequence diagram: time goes down, each arrow is a message that a channel really carried.

    Args:
        log: of a channel, with at least one message.
        names: of the party that keeps the log, and of the other one.
    Returns:
        the figure; the line of an arrow is the thicker the larger the message is, on a log scale.
    Raises:
        ValueError: names the argument.
    """
    return diagram(log, names)[0]


def diagram(log: Sequence[Sent], names: tuple[str, str]) -> tuple[Figure, dict[str, Axes]]:
    """As `sequence`, with its axes: row i of the diagram is at height i, from 0 for the first arrow, downwards."""
    if not isinstance(log, list | tuple) or not log or not all(isinstance(each, Sent) for each in log):
        raise ValueError(f"log is {describe(log)}; accepted: a channel's log with at least one message")
    if not isinstance(names, tuple) or len(names) != 2:
        raise ValueError(f"names is {describe(names)}; accepted: two names")
    found = arrows(log)
    height = ROW * len(found) + 2 * EDGES
    fig, axes = panels(WIDTH, height, diagram=(0, 0, WIDTH, height))
    ax = axes["diagram"]
    with styled():
        ax.set(xlim=(0, 1), ylim=(len(found) + EDGES / ROW, -EDGES / ROW), xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        for place, name, role in zip(LIFELINES, names, SIDES, strict=True):
            ax.plot([place, place], [-0.6, len(found)], color=COLORS[role], linewidth=4, zorder=0)
            ax.text(place, -1.0, name, ha="center", color=COLORS[role], weight="bold", fontsize=16)
        for row, each in enumerate(found):
            draw_arrow(ax, row, each)
        ax.text(0.015, -1.0, "after", fontsize=14)
    return fig, axes


def draw_arrow(ax: Axes, row: int, arrow: Arrow) -> None:
    """One arrow, what it is and its bytes above it, the time beside it."""
    start, end = LIFELINES if arrow.outgoing else LIFELINES[::-1]
    look = {"color": COLORS[SIDES[0 if arrow.outgoing else 1]], "linewidth": 1.0 + 0.7 * np.log10(max(arrow.size, 1))}
    look |= {"arrowstyle": "-|>,head_length=0.7,head_width=0.35", "shrinkA": 2, "shrinkB": 2}
    ax.annotate("", (end, row + 0.25), (start, row + 0.25), arrowprops=look)
    times = f"{arrow.count} x " if arrow.count > 1 else ""
    words = f"{times}{arrow.kind}, {in_bytes(arrow.size)}"
    ax.text(sum(LIFELINES) / 2, row - 0.02, words, ha="center", va="bottom", fontsize=13.5)
    ax.text(0.015, row + 0.25, in_seconds(arrow.at), va="center", fontsize=13)


def by_layer(laps: Sequence[Lap]) -> Figure:
    """Bytes and seconds of each part of a protocol, as bars beside each other.

    Args:
        laps: of one party, in order, at least one.
    Returns:
        the figure.
    Raises:
        ValueError: names the argument.
    """
    if not isinstance(laps, list | tuple) or not laps or not all(isinstance(each, Lap) for each in laps):
        raise ValueError(f"laps is {describe(laps)}; accepted: a list of Lap, at least one")
    fig, axes = figure(11.5, 0.5 * len(laps) + 1.9, columns=2)
    left, right = axes[0]
    rows = np.arange(len(laps))
    sent, received = (np.array([getattr(each, name) for each in laps]) for name in ("bytes_sent", "bytes_received"))
    with styled():
        for values, start, label, role in (
            (sent, 0 * sent, "sent", SIDES[0]),
            (received, sent, "received", SIDES[1]),
        ):
            look = {"color": COLORS[role], "hatch": HATCHES[role], "edgecolor": "white", "label": label}
            left.barh(rows, values, 0.62, left=start, **look)
        seconds = [each.seconds for each in laps]
        right.barh(rows, seconds, 0.62, color=COLORS["baseline"])
        totals = ([in_bytes(a + b) for a, b in zip(sent, received, strict=True)], [in_seconds(s) for s in seconds])
        for ax, values, words in zip((left, right), (sent + received, seconds), totals, strict=True):
            for row, (value, word) in enumerate(zip(values, words, strict=True)):
                ax.text(value, row, f" {word}", va="center", fontsize=13)
            ax.set(ylim=(len(laps) - 0.4, -0.6), xlim=(0, 1.3 * max(values) or 1), xticks=[])
            ax.spines["bottom"].set_visible(False)
        left.set_yticks(rows, [each.name for each in laps], fontsize=14)
        right.set_yticks([])
        left.set_title("bytes", **LARGE)
        right.set_title("seconds", **LARGE)
        fig.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=2, fontsize=14)
    return fig


def over_networks(
    logs: Mapping[str, tuple[Sequence[Sent], Sequence[Sent]]],
    network: Network,
    published: Mapping[str, float] | None = None,
) -> Figure:
    """The time of protocols over a network: what is computed, and what it takes with the network; on a log axis.

    Args:
        logs: name of a protocol to the logs of both its ends.
        network: latency and bandwidth.
        published: seconds that others published, on a network of theirs; drawn as marks.
    Returns:
        the figure.
    Raises:
        ValueError: names the argument.
    """
    if not isinstance(logs, Mapping) or not logs:
        raise ValueError(f"logs is {describe(logs)}; accepted: a mapping with at least one protocol")
    published = dict(published or {})
    fig, axes = network_frame(list(logs), published)
    draw_durations(fig, axes["bars"], [replay(*each, network) for each in logs.values()])
    return fig


def network_frame(names: Sequence[str], published: Mapping[str, float]) -> tuple[Figure, dict[str, Axes]]:
    """What stays while a network changes: names, the axis, what others published."""
    every = [*names, *published]
    fig, axes = panels(11.5, 0.62 * len(every) + 1.9, bars=(3.4, 1.0, 6.0, 0.62 * len(every)))
    ax = axes["bars"]
    with styled():
        for row, value in enumerate(published.values(), len(names)):
            ax.plot([value], [row], MARKERS["clean"], color="black", markerfacecolor="white", markeredgewidth=2)
            ax.text(value, row, f"  {in_seconds(value)}", va="center", fontsize=13.5)
        ax.set_yticks(range(len(every)), every, fontsize=14)
        ax.set(ylim=(len(every) - 0.4, -0.6), xscale="log", xlim=(SOONEST, 1e3))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: in_seconds(x)))
        ax.tick_params(axis="x", labelsize=13)
        ax.spines["left"].set_visible(False)
        for x, words, role in ((0.30, "● computing alone", "baseline"), (0.52, "◆ with the network", "private")):
            fig.text(x, 0.985, words, color=COLORS[role], va="top", fontsize=15, weight="bold")
    return fig, axes


def draw_durations(fig: Figure, ax: Axes, found: Sequence[Duration]) -> None:
    """Marks and words of each protocol, laid over the frame, in whose axes they are placed."""
    here = {"transform": ax.transData}
    with styled():
        for row, each in enumerate(found):
            ends = [each.computing, each.seconds]
            fig.add_artist(Line2D(ends, [row, row], color=COLORS["private"], linewidth=3, **here))
            for name, end, role in zip(("computing", "all"), ends, ("baseline", "private"), strict=True):
                look = {"color": COLORS[role], "marker": DOTS[name], "markersize": 12, "gid": f"{name} {row}"}
                fig.add_artist(Line2D([end], [row], linestyle="", **look, **here))
            words = f"   {in_seconds(each.seconds)}, {each.rounds} in turn, {in_bytes(each.size)}"
            fig.text(each.seconds, row, words, va="center", fontsize=13.5, **here)


def evenness(numbers: Mapping[str, np.ndarray], modulus: int, *, cells: int = 32) -> Figure:
    """How often numbers of each size occur, in equal parts of the modulus: what a party can see of a distribution.

    Args:
        numbers: title to whole numbers from 0 to modulus - 1, uint64, one to three of them.
        modulus: m.
        cells: into how many parts.
    Returns:
        the figure, with the band in which even draws leave 95 % of all cells, and chi-square with its usual 95 %.
    Raises:
        ValueError: names the argument.
    """
    if not isinstance(numbers, Mapping) or not 1 <= len(numbers) <= 3:
        raise ValueError(f"numbers is {describe(numbers)}; accepted: a mapping with one to three arrays")
    check_count("modulus", modulus, low=2)
    check_count("cells", cells, low=2)
    fig, axes = figure(11.5, 3.6, columns=len(numbers))
    low, high = stats.chi2.interval(0.95, cells - 1)
    with styled():
        for ax, (title, values) in zip(axes[0], numbers.items(), strict=True):
            counts = cell_counts(values, modulus, cells)
            mean = counts.mean()
            spread = stats.norm.interval(0.95)[1] * np.sqrt(mean * (1 - 1 / cells))
            ax.bar(np.arange(cells) + 0.5, counts, 1.0, color=COLORS["private"], alpha=0.6)
            for edge in (mean - spread, mean + spread):
                ax.axhline(edge, color="black", linestyle=(0, (4, 2)), linewidth=1.5)
            ax.set_xticks([0, cells / 2, cells], ["0", "m / 2", "m"], fontsize=14)
            ax.set(xlim=(0, cells), ylim=(0, max(1.35 * mean, 1.05 * counts.max())))
            found = chi_square(values, modulus, cells=cells)
            ax.set_title(f"{title}\nχ² = {found:,.0f} (usual: {low:.0f} to {high:.0f})", **LARGE)
            ax.set_ylabel("numbers", **LARGE)
    return fig


def chi_square(values: np.ndarray, modulus: int, *, cells: int = 32) -> float:
    """How uneven whole numbers are over k equal parts of the modulus; as `spai_lab.metrics.chi_square`.

    >>> chi_square(np.array([0, 1, 2, 7], dtype=np.uint64), 8, cells=2)
    1.0
    """
    return metrics.chi_square(cell_counts(values, modulus, cells))


def cell_counts(values: np.ndarray, modulus: int, cells: int) -> np.ndarray:
    """How many whole numbers fall into each of so many equal parts of the modulus.

    >>> cell_counts(np.array([0, 1, 7], dtype=np.uint64), 8, 4).tolist()
    [2, 0, 0, 1]
    """
    if not isinstance(values, np.ndarray) or values.dtype != np.uint64 or not values.size:
        raise ValueError(f"numbers has {describe(values)}; accepted: a uint64 array, not empty")
    if int(values.max()) >= modulus:
        raise ValueError(f"numbers has {int(values.max())}; accepted: from 0 to {modulus - 1}")
    places = (values.reshape(-1).astype(np.float64) / float(modulus) * cells).astype(int)
    return np.bincount(places.clip(max=cells - 1), minlength=cells)

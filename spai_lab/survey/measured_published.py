"""Measured beside published, drawn: shares by their difference in points, all else by its ratio on a log axis."""

import math
import re
from collections.abc import Sequence

from matplotlib import ticker
from matplotlib.axes import Axes

from spai_lab.style import COLORS, MARKERS
from spai_lab.survey.ledger import COMPUTED, Comparison
from spai_lab.survey.measured_dots import FONT, draw_names
from spai_lab.survey.totals import ledger

# How the id of a published figure begins, and what a reader calls it.
NAMES = {
    "dp-sgd-pca": "DP-SGD on PCA",
    "dp-sgd-cnn": "DP-SGD, CNN",
    "accounting": "",
    "pate-student": "PATE's student",
    "pate-epsilon": "PATE's answers",
    "pate-teachers": "PATE's teachers",
    "cryptonets-accuracy": "CryptoNets, accuracy",
    "cryptonets-batch": "CryptoNets, a batch",
    "cryptonets-hour": "CryptoNets, an hour",
    "lola-small-accuracy": "small LoLa, accuracy",
    "lola-small": "small LoLa, an image",
    "lola": "LoLa, an image",
    "minionn": "MiniONN, an image",
    "gazelle": "Gazelle, an image",
}
# What tells figures of one name apart: words among metric, set-up and ours, and how they are said in short.
NOTES = (
    (r"test accuracy.* at (epsilon [\d.]+)", r"\1"),
    (r"epsilon at delta.*the (older|tighter) conversion", r"\1 accounting"),
    (r"(sigma [\d.]+), [\d,]+ (?:epochs|steps)", r"\1"),
    (r"server's part", "server only"),
    (r"over a LAN", "over a LAN"),
    (r"both directions", "both ways"),
)


def published_of(ids: set[str], comparisons: Sequence[Comparison] | None) -> list[Comparison]:
    """The published figures of some rows; of the whole ledger if `comparisons` is None."""
    return [each for each in (ledger() if comparisons is None else comparisons) if each.figure["row"] in ids]


def split(comparisons: Sequence[Comparison]) -> tuple[list[Comparison], list[Comparison]]:
    """Shares, which are compared by their difference, and what has a unit, which is compared by its ratio."""
    shares = [each for each in comparisons if not each.figure.get("unit")]
    return shares, [each for each in comparisons if each.figure.get("unit")]


def speaking(each: Comparison) -> str:
    """What a reader calls a published figure, with what our own number counts."""
    figure = each.figure
    name = next((words for begins, words in NAMES.items() if figure["id"].startswith(begins)), figure["metric"])
    where = f"{figure['metric']}; {figure['setup']}; {each.ours}"
    notes = [re.sub(pattern, words, found.group()) for pattern, words in NOTES if (found := re.search(pattern, where))]
    return ", ".join(filter(None, [name, *notes]))


def pair(each: Comparison) -> str:
    """Ours and theirs, the unit once."""
    unit = each.figure.get("unit") or "%"
    return f"{each.shown(each.value).removesuffix(unit).strip()} / {each.shown(each.figure['value'])}"


def draw_differences(ax: Axes, comparisons: Sequence[Comparison]) -> None:
    """Shares: ours less what others published, in points."""
    gaps = [100 * (each.value - each.figure["value"]) for each in comparisons]
    reach = max([2.0, *map(abs, gaps)]) * 1.15
    ax.set(xlim=(-reach, reach if max(gaps, default=0) > reach / 4 else reach / 4))
    ax.xaxis.set_major_formatter(ticker.FuncFormatter(lambda gap, _: f"{gap:+g}" if gap else "0"))
    ax.xaxis.set_major_locator(ticker.MaxNLocator(3))
    draw_marks(ax, comparisons, gaps, 0.0)


def draw_ratios(ax: Axes, comparisons: Sequence[Comparison]) -> None:
    """What has a unit: ours divided by what others published, on a log scale."""
    ratios = [each.value / each.figure["value"] if each.figure["value"] else math.nan for each in comparisons]
    reach = max([2.0, *(max(ratio, 1 / ratio) for ratio in ratios if ratio > 0)]) * 1.4
    ax.set(xscale="log", xlim=(1 / reach, reach))
    ticks = [tick for tick in (0.01, 0.1, 0.5, 1, 2, 10, 100) if 1 / reach < tick < reach]
    ax.xaxis.set_major_locator(ticker.FixedLocator([tick for tick in ticks if tick not in (0.5, 2) or reach < 5]))
    ax.xaxis.set_major_formatter(ticker.FuncFormatter(lambda ratio, _: f"{ratio:g}×"))
    ax.minorticks_off()
    draw_marks(ax, comparisons, ratios, 1.0)


def draw_marks(ax: Axes, comparisons: Sequence[Comparison], values: Sequence[float], origin: float) -> None:
    """A row for each figure, its mark so far from where ours equals theirs, both numbers to the right."""
    ax.set(ylim=(len(comparisons) - 0.5, -0.5))
    ax.axvline(origin, color=COLORS["baseline"], linewidth=2)
    ax.grid(axis="x", color=COLORS["baseline"], alpha=0.3)
    draw_names(ax, [speaking(each) for each in comparisons])
    for height, (each, value) in enumerate(zip(comparisons, values, strict=True)):
        ax.plot([origin, value], [height] * 2, color=COLORS["private"], linewidth=1.8, alpha=0.6)
        ax.plot(value, height, gid=each.figure["id"], **ratio_look(each.outcome))
        ax.text(1.04, height, pair(each), transform=ax.get_yaxis_transform(), fontsize=FONT, va="center")


LOOKS = {  # of an outcome: the mark, the role of its color, whether it is filled
    "reproduced": (MARKERS["private"], "private", True),
    COMPUTED: ("^", "private", True),
    "deviates": (MARKERS["adversarial"], "adversarial", True),
    "not comparable": (MARKERS["private"], "private", False),
    "none": ("o", "private", False),
}


def ratio_look(outcome: str) -> dict[str, object]:
    """How a comparison looks: filled where it reproduces, crossed where it deviates, hollow where none is due."""
    mark, role, filled = LOOKS[outcome]
    hollow = {} if filled else {"markerfacecolor": "white"}
    look = {"marker": mark, "color": COLORS[role], "markersize": 10, "markeredgewidth": 2, "linestyle": ""}
    return look | {"clip_on": False} | hollow

"""Drawings of the chapters on privacy: what was drawn beside what is true, and curves on logarithmic axes."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib import ticker
from matplotlib.figure import Figure
from torch import Tensor

from spai_lab.checks import check_images, describe
from spai_lab.style import COLORS, MARKERS, draw_image, figure, styled

STYLES = ("-", "--", ":", "-.")


def picture_rows(
    rows: Mapping[str, Tensor], roles: Mapping[str, str], *, says: Mapping[str, Sequence[str]] | None = None
) -> Figure:
    """Rows of pictures that belong together column by column, such as people and what was drawn of them.

    Args:
        rows: name of a row to its pictures `(N, C, H, W)` in [0, 1]; all rows have N.
        roles: name of a row to one of `style.ROLES`; sets the frame.
        says: name of a row to a line under each of its pictures; rows may be left out.
    Returns:
        the figure.
    Raises:
        ValueError: a row is no pictures, or has another number of them.
    """
    says = says or {}
    count = len(next(iter(rows.values())))
    for name, pictures in rows.items():
        check_images(pictures, name)
        if len(pictures) != count or len(says.get(name, range(count))) != count:
            raise ValueError(f"{name} is {describe(pictures)}; accepted: {count} pictures, like the first row")
    tall = next(iter(rows.values())).shape[-2] / next(iter(rows.values())).shape[-1]
    height = sum(1.25 * tall + (0.45 if name in says else 0.15) for name in rows)
    fig, axes = figure(1.35 * count + 2.2, height, columns=count, rows=len(rows))
    with styled():
        for place, (name, pictures) in enumerate(rows.items()):
            for column, picture in enumerate(pictures):
                said = says[name][column] if name in says else ""
                draw_image(axes[place, column], picture, said, role=roles[name])
            axes[place, 0].set_ylabel(name, fontsize=13, rotation=0, ha="right", va="center")
    return fig


def low_roc(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], roles: Mapping[str, str], *, lowest: float
) -> Figure:
    """ROC curves on logarithmic axes, where the few false positives that an accuser may allow are seen.

    Args:
        curves: name of a curve to its false and its true positives, rising.
        roles: name of a curve to one of `style.ROLES`; curves of one role differ in their line.
        lowest: where both axes begin: below, too few innocent inputs were scored.
    Returns:
        the figure.
    """
    fig, axes = figure(8.5, 5)
    ax = axes[0, 0]
    seen: dict[str, int] = {}
    with styled():
        for name, (false, true) in curves.items():
            number = seen.setdefault(roles[name], 0)
            look = {"color": COLORS[roles[name]], "linestyle": STYLES[number % len(STYLES)], "linewidth": 2.5}
            ax.plot(false, true, label=name, **look)
            seen[roles[name]] += 1
        ax.plot([lowest, 1], [lowest, 1], color=COLORS["baseline"], linewidth=1.5)
        ax.annotate("guessing", (0.3, 0.2), va="top")
        ax.set(xscale="log", yscale="log", xlim=(lowest, 1), ylim=(lowest, 1))
        ax.set(xlabel="others called members (false positives)", ylabel="members found (true positives)")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(ticker.FuncFormatter(lambda share, _: f"{100 * share:g} %"))
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return fig


def spreads(groups: Mapping[str, Sequence[float]], role: str, *, x: str, y: str, line: tuple[float, str]) -> Figure:
    """Every value of some groups as a point, with the median as a bar, and a line that means something.

    Args:
        groups: name of a group to its values; infinite ones lie on the upper edge.
        role: one of `style.ROLES`.
        x, y: what the axes show.
        line: a value, and what it means.
    Returns:
        the figure.
    """
    fig, axes = figure(1.5 * len(groups) + 3, 4.2)
    ax = axes[0, 0]
    finite = [value for values in groups.values() for value in values if value != float("inf")]
    top = 1.05 * max([*finite, line[0]])
    generator = torch.Generator().manual_seed(0)
    with styled():
        for place, values in enumerate(groups.values()):
            shift = place + 0.5 * (torch.rand(len(values), generator=generator) - 0.5)
            heights = torch.tensor(list(values)).clamp_max(top)
            ax.plot(shift, heights, color=COLORS[role], marker=MARKERS[role], linestyle="", markersize=5, alpha=0.5)
            median = heights.median().item()
            ax.plot([place - 0.35, place + 0.35], [median] * 2, color="black", linewidth=2.5)
        ax.axhline(line[0], color=COLORS["baseline"], linestyle="--", linewidth=1.5)
        ax.annotate(line[1], (1.0, line[0]), xycoords=("axes fraction", "data"), va="bottom", ha="right")
        ax.set_xticks(range(len(groups)), list(groups))
        ax.set(xlabel=x, ylabel=y, ylim=(min(0, *finite), 1.03 * top))
    return fig

"""Drawings that several chapters share. Each returns a figure; `style.show` displays it with caption and alt text."""

import math
from collections.abc import Mapping, Sequence

import matplotlib.ticker as ticker
import numpy as np
import seaborn as sns
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from spai_lab.checks import check_choice, check_images
from spai_lab.metrics import Rate
from spai_lab.style import COLORS, MARKERS, ROLES, SEQUENTIAL, draw_image, draw_perturbation, figure, outcome, styled
from spai_lab.threat import fooled

LINES = ("-", "--", "-.", ":")
SHAPES = ("X", "o", "s", "^", "D", "v", "P", "*")  # tells curves apart that share a color


@torch.no_grad()
def verdicts(model: nn.Module, x: Tensor, classes: Sequence[str]) -> list[str]:
    """What the model says of each image, such as "3 (98 %)".

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        x: images `(N, C, H, W)` in [0, 1].
        classes: the K names.
    Returns:
        N short texts.
    """
    return sayings(F.softmax(model(x), dim=1), classes)


def sayings(probabilities: Tensor, classes: Sequence[str]) -> list[str]:
    """The likeliest class of each row and its probability.

    >>> sayings(torch.tensor([[0.02, 0.98]]), ["cat", "dog"])
    ['dog (98 %)']
    """
    confidence, answer = probabilities.max(1)
    return [
        f"{classes[k]} ({p:.0%})".replace("%", " %") for k, p in zip(answer.tolist(), confidence.tolist(), strict=True)
    ]


def samples(x: Tensor, y: Tensor, classes: Sequence[str], *, columns: int = 10) -> Figure:
    """Images in rows, each with its label.

    Args:
        x: images `(N, C, H, W)` in [0, 1].
        y: labels `(N,)`.
        classes: the K names.
        columns: images in a row.
    Returns:
        the figure.
    """
    check_images(x)
    rows = -(-len(x) // columns)
    fig, axes = figure(10, max(1.3, min(2.6, 10 / columns)) * rows, columns=columns, rows=rows)
    with styled():
        for ax in axes.flat[len(x) :]:
            ax.set_axis_off()
        for ax, image, label in zip(axes.flat, x, y.tolist(), strict=False):
            draw_image(ax, image, classes[label])
    return fig


def attack_rows(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    x_adv: Tensor,
    classes: Sequence[str],
    *,
    name: str = "adversarial",
    above: str = "label",
) -> Figure:
    """Each image above its adversarial twin, and below them the perturbation, magnified.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        x: clean images `(N, C, H, W)` in [0, 1].
        y: labels `(N,)`.
        x_adv: adversarial images, like `x`.
        classes: the K names.
        name: what the second row is called.
        above: what `y` is, written above each column: "label" or "target".
    Returns:
        the figure: three rows, N columns.
    """
    fig, axes = figure(1.45 * len(x) + 0.8, 5.4, columns=len(x), rows=3)
    with styled():
        said, said_adv = verdicts(model, x, classes), verdicts(model, x_adv, classes)
        hits = fooled(model, x_adv, y, targeted=above == "target").tolist()
        for column, (label, hit) in enumerate(zip(y.tolist(), hits, strict=True)):
            role, mark = outcome(hit)
            draw_image(axes[0, column], x[column], said[column], title=f"{above} {classes[label]}")
            draw_image(axes[1, column], x_adv[column], f"{mark} {said_adv[column]}", role=role)
            magnification = draw_perturbation(axes[2, column], x_adv[column] - x[column], title="")
            axes[2, column].set_xlabel(f"× {magnification:.2g}")
        for ax, row in zip(axes[:, 0], ("clean", name, "magnified"), strict=True):
            ax.set_ylabel(row, fontsize=14)
    return fig


def draw_rates(ax: Axes, rates: Mapping[float, Rate], label: str, role: str, number: int = 0) -> None:
    """A curve of rates with its 95 % intervals as a band.

    Args:
        ax: where to draw.
        rates: from the value on the x-axis to the rate there.
        label: the curve's name in the legend.
        role: one of `style.ROLES`; sets color and marker.
        number: tells the curves of one role apart, from 0 to 3: by the line's style and a darker shade.
    """
    places = list(rates)
    low, high = zip(*(rate.interval for rate in rates.values()), strict=True)
    values = [rate.value for rate in rates.values()]
    color = sns.dark_palette(COLORS[role], len(LINES) + 1, reverse=True)[number]
    ax.plot(places, values, LINES[number], color=color, marker=MARKERS[role], label=label)
    ax.fill_between(places, low, high, color=color, alpha=0.12, linewidth=0)


def robustness_curves(
    curves: Mapping[str, Mapping[float, Rate]],
    roles: Mapping[str, str],
    *,
    chance: float | None = None,
    unit: str = "L-inf",
) -> Figure:
    """Accuracy that is left against the attack's radius, one curve for each attack or model.

    Args:
        curves: name of a curve to its rates by eps.
        roles: name of a curve to one of `style.ROLES`; curves of one role differ in their line.
        chance: accuracy of guessing, drawn as a gray line.
        unit: the norm that eps is measured in, for the axis label.
    Returns:
        the figure.
    """
    fig, axes = figure(9.5, 4.6)
    ax = axes[0, 0]
    seen: dict[str, int] = {}
    with styled():
        for name, rates in curves.items():
            role = roles[name]
            draw_rates(ax, rates, name, role, seen.get(role, 0) % len(LINES))
            seen[role] = seen.get(role, 0) + 1
        if chance is not None:
            ax.axhline(chance, color=COLORS["baseline"], linewidth=1.5, linestyle=":")
            ax.annotate("guessing", (0.01, chance), xycoords=("axes fraction", "data"), va="bottom")
        trials = {rate.trials for rates in curves.values() for rate in rates.values()}
        ax.set(xlabel=f"eps, {unit}, in pixel units of [0, 1]", ylabel="accuracy", ylim=(-0.02, 1.02))
        ax.yaxis.set_major_formatter(ticker.PercentFormatter(1))
        ax.set_title(f"Accuracy that is left (n = {', '.join(map(str, sorted(trials)))}, band: 95 % interval)")
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return fig


def queries_curves(
    curves: Mapping[str, Mapping[int, tuple[float, float, float]]],
    *,
    role: str = "adversarial",
    unit: str = "L2",
    images: int | None = None,
    floor: float | None = None,
) -> Figure:
    """The median distortion of black-box attacks against the queries that an image may cost.

    A curve begins where its attack succeeds on more than half of the images; before, its median is infinite.

    Args:
        curves: name of an attack to its median and both ends of the interval, by queries, such as
            `metrics.distortion_by_queries` gives; at most eight.
        role: one of `style.ROLES`; sets the color. Curves differ in shade, line and marker.
        unit: the norm of the distortion, for the axis label.
        images: how many the medians rest on, for the title.
        floor: what a white-box attacker needs, drawn as a dotted line in gray; None draws none.
    Returns:
        the figure.
    Raises:
        ValueError: names the argument.
    """
    check_choice("role", role, ROLES)
    if not 1 <= len(curves) <= len(SHAPES):
        raise ValueError(f"curves has {len(curves)}; accepted: 1 to {len(SHAPES)}, so that they can be told apart")
    shades = sns.blend_palette([sns.light_palette(COLORS[role], 4)[2], COLORS[role], "#000000"], len(curves) + 1)
    fig, axes = figure(10, 4.8)
    ax = axes[0, 0]
    ends = [end for medians in curves.values() for triple in medians.values() for end in triple if math.isfinite(end)]
    top = 1.05 * max(ends, default=1.0)
    with styled():
        for number, (name, medians) in enumerate(curves.items()):
            queries = sorted(cap for cap, (value, _, _) in medians.items() if math.isfinite(value))
            values, low, high = (np.array([medians[cap][end] for cap in queries]) for end in range(3))
            look = {"color": shades[number], "marker": SHAPES[number], "markeredgecolor": "white", "markersize": 10}
            label = name if queries else f"{name}\n(fails on half or more)"
            ax.plot(queries, values, LINES[number % len(LINES)], label=label, **look)
            ax.fill_between(queries, low, high.clip(max=top), color=shades[number], alpha=0.12, linewidth=0)
        if floor is not None:
            ax.axhline(floor, color=COLORS["baseline"], linestyle=":", label="C&W, white-box")
        caps = sorted({cap for medians in curves.values() for cap in medians})
        ax.set(xscale="log", xlim=(0.9 * caps[0], 1.1 * caps[-1]), ylim=(0, top))
        ax.set_xticks(caps, [f"{cap:,}" for cap in caps])
        ax.minorticks_off()
        ax.set(xlabel="queries that an image may cost", ylabel=f"median distortion, {unit}")
        rest = "band: 95 % interval" if images is None else f"n = {images}, band: 95 % interval"
        ax.set_title(f"Median distortion found, by queries spent ({rest}; failures infinite)")
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), handlelength=3.2)
    return fig


@torch.no_grad()
def confidence(model: nn.Module, x: Tensor, classes: Sequence[str]) -> Figure:
    """One image beside the model's logits and the probabilities that the softmax makes of them.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        x: one image `(1, C, H, W)` in [0, 1].
        classes: the K names.
    Returns:
        the figure.
    """
    logits = model(x)[0]
    fig, axes = figure(10, 3.6, columns=[1, 1.5, 1.5])
    with styled():
        draw_image(axes[0, 0], x[0], f"the model says {verdicts(model, x, classes)[0]}")
        for ax, values, title in (
            (axes[0, 1], logits, "logits z = f(x)"),
            (axes[0, 2], F.softmax(logits, dim=0), "probabilities, softmax(z)"),
        ):
            ax.barh(range(len(classes)), values.tolist(), color=COLORS["clean"])
            ax.set_yticks(range(len(classes)), classes)
            ax.invert_yaxis()
            ax.set_title(title)
    return fig


def matrix(values: Sequence[Sequence[float]], rows: Sequence[str], columns: Sequence[str], *, title: str) -> Figure:
    """A heatmap of rates, the number in every cell.

    Args:
        values: rates in [0, 1], `len(rows)` by `len(columns)`; NaN leaves a cell empty.
        rows: names.
        columns: names.
        title: what a cell says.
    Returns:
        the figure.
    """
    fig, axes = figure(1.5 * len(columns) + 3, 0.7 * len(rows) + 1.6)
    with styled():
        annotations = [["" if math.isnan(value) else f"{100 * value:.0f} %" for value in row] for row in values]
        sns.heatmap(
            values, ax=axes[0, 0], annot=annotations, fmt="", annot_kws={"fontsize": 14}, vmin=0, vmax=1,
            cmap=SEQUENTIAL, xticklabels=columns, yticklabels=rows, cbar=False, linewidths=2,
        )  # fmt: skip
        axes[0, 0].set_title(title)
        axes[0, 0].tick_params(axis="y", rotation=0)
    return fig

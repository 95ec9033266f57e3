"""Drawings of the chapters on poisoning: poisons beside what they replaced, what the last layer sees, and curves."""

from collections.abc import Mapping, Sequence

import matplotlib.ticker as ticker
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from spai_lab.checks import check_count, check_images, check_labels, describe
from spai_lab.figures import LINES, SHAPES, draw_rates
from spai_lab.metrics import Rate
from spai_lab.models import features
from spai_lab.style import COLORS, MARKERS, draw_image, figure, styled


def poison_rows(x: Tensor, y: Tensor, x_poison: Tensor, y_poison: Tensor, classes: Sequence[str]) -> Figure:
    """What was collected above what the attacker put in its place, with the label of each.

    Args:
        x: clean images `(N, C, H, W)` in [0, 1], N from 1 to 12.
        y: their labels `(N,)`.
        x_poison: the poisons, like `x`.
        y_poison: the labels that they carry.
        classes: the K names.
    Returns:
        the figure: two rows, N columns.
    Raises:
        ValueError: names the argument.
    """
    for name, images, labels in (("x", x, y), ("x_poison", x_poison, y_poison)):
        check_images(images, name)
        check_labels(labels, images, name.replace("x", "y"))
    if not 1 <= len(x) <= 12 or x.shape != x_poison.shape:
        raise ValueError(f"x is {describe(x)}, x_poison {describe(x_poison)}; accepted: 1 to 12 images, alike")
    fig, axes = figure(1.45 * len(x) + 0.9, 4.1, columns=len(x), rows=2)
    with styled():
        for column in range(len(x)):
            right, given = classes[y[column]], classes[y_poison[column]]
            mark = "" if right == given else "✕ "
            draw_image(axes[0, column], x[column], f"label {right}")
            draw_image(axes[1, column], x_poison[column], f"{mark}label {given}", role="poisoned")
        axes[0, 0].set_ylabel("collected", fontsize=14)
        axes[1, 0].set_ylabel("poisoned", fontsize=14)
    return fig


def principal_plane(model: nn.Module, x: Tensor, *, like: Tensor | None = None) -> Tensor:
    r"""The two main directions of what the last layer reads: $(\phi(x) - \bar\phi) \, V_{1:2}$, centered.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`, ending in a linear layer.
        x: inputs `(N, C, H, W)` in [0, 1], N at least 2.
        like: the inputs whose features give mean and directions; None takes `x`.
    Returns:
        `(N, 2)`; the longer side of each axis is positive, for `like`.

    >>> plane = principal_plane(nn.Sequential(nn.Flatten(), nn.Linear(2, 2)), torch.eye(2).view(2, 2, 1, 1))
    >>> plane.abs().round(decimals=2)
    tensor([[0.7100, 0.0000],
            [0.7100, 0.0000]])
    """
    check_images(x)
    check_count("the number of inputs x", len(x), low=2)
    with torch.no_grad():
        phi, phi_like = (features(model, inputs).double() for inputs in (x, x if like is None else like))
    centered = phi_like - phi_like.mean(0)
    directions = torch.linalg.svd(centered, full_matrices=False)[2][:2].T
    places = centered @ directions
    longer = torch.where(places.amax(0) >= -places.amin(0), 1.0, -1.0)
    return ((phi - phi_like.mean(0)) @ directions * longer).float()


def feature_planes(
    model: nn.Module, panels: Mapping[str, Tensor], groups: Mapping[str, Tensor], roles: Mapping[str, str]
) -> Figure:
    """Where the last layer sees inputs, panel by panel on the same axes: two main directions, one marker a group.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`, ending in a linear layer.
        panels: title to inputs `(N, C, H, W)` in [0, 1], side by side; the first gives the directions.
        groups: name of a group to the mask of its inputs, bool `(N,)`; later ones lie above.
        roles: name of a group to one of `style.ROLES`.
    Returns:
        the figure.
    """
    first = next(iter(panels.values()))
    planes = [principal_plane(model, x, like=first) for x in panels.values()]
    fig, axes = figure(8.5 if len(panels) == 1 else 12, 4.8, columns=len(panels))
    with styled():
        for ax, title, places in zip(axes[0], panels, planes, strict=True):
            for name, mask in groups.items():
                role = roles[name]
                edge = {"markeredgecolor": "white", "markeredgewidth": 0.6}
                look = {"color": COLORS[role], "marker": MARKERS[role], "markersize": 9 if mask.sum() > 5 else 17}
                label = f"{name} ({int(mask.sum())})"
                ax.plot(*places[mask].T.numpy(), linestyle="", label=label, **look, **edge)
            ax.set(xlabel="first principal direction")
            ax.set_title(title)
            ax.sharex(axes[0, 0])
            ax.sharey(axes[0, 0])
        axes[0, 0].set_ylabel("second")
        axes[0, -1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return fig


def fraction_curves(
    curves: Mapping[str, Mapping[float, Rate]],
    roles: Mapping[str, str],
    *,
    what: str,
    chance: float | None = None,
    lowest: float = 0.0,
    share: str = "poison, as a share of the training set",
) -> Figure:
    """A rate against the share that the attacker holds, of the training set unless said, one curve for each attack.

    Args:
        curves: name of a curve to its rates, by share.
        roles: name of a curve to one of `style.ROLES`; curves of one role differ in marker, line and shade.
        what: what the rate says, for the axis label, such as "accuracy".
        chance: the rate of guessing, drawn as a gray line.
        lowest: where the axis of the rate begins.
        share: what the attacker holds a share of, for the axis label.
    Returns:
        the figure.
    """
    fig, axes = figure(9.8, 4.6)
    ax = axes[0, 0]
    drawn = dict.fromkeys(roles.values(), 0)
    with styled():
        for name, rates in curves.items():
            role = roles[name]
            draw_rates(ax, rates, name, role, drawn[role] % len(LINES))
            if drawn[role]:
                ax.lines[-1].set_marker(SHAPES[drawn[role] % len(SHAPES)])
            drawn[role] += 1
        if chance is not None:
            ax.axhline(chance, color=COLORS["baseline"], linewidth=1.5, linestyle=":")
            ax.annotate("guessing", (0.01, chance), xycoords=("axes fraction", "data"), va="bottom")
        trials = sorted({rate.trials for rates in curves.values() for rate in rates.values()})
        span = f"{trials[0]:,}" if trials[0] == trials[-1] else f"{trials[0]:,} to {trials[-1]:,}"
        room = 0.02 * (1 - lowest)
        ax.set(xlabel=share, ylabel=what, ylim=(lowest - room, 1 + room))
        ax.xaxis.set_major_formatter(ticker.PercentFormatter(1))
        ax.yaxis.set_major_formatter(ticker.PercentFormatter(1))
        ax.set_title(f"n = {span}, band: 95 % interval")
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return fig


def bound_curves(curves: Mapping[str, Mapping[float, float]], roles: Mapping[str, str]) -> Figure:
    """What is proved of the training loss beside what is reached, against the share of poison.

    Later curves are thinner, so that one that lies on another leaves it to be seen.

    Args:
        curves: name of a curve to its losses, by poison fraction.
        roles: name of a curve to one of `style.ROLES`.
    Returns:
        the figure.
    """
    fig, axes = figure(9.5, 4.2)
    ax = axes[0, 0]
    with styled():
        for width, (name, losses) in zip(range(2 + 3 * len(curves), 2, -3), curves.items(), strict=True):
            look = {"color": COLORS[roles[name]], "marker": MARKERS[roles[name]], "markersize": width + 6}
            ax.plot(list(losses), list(losses.values()), label=name, linewidth=width, **look)
        ax.set(xlabel="poison, as a share of the clean training set", ylabel="training loss")
        ax.set_ylim(0, 1.2 * max(loss for losses in curves.values() for loss in losses.values()))
        ax.xaxis.set_major_formatter(ticker.PercentFormatter(1))
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return fig

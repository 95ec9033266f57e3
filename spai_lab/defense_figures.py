"""Drawings of the chapters on defenses against evasion: bars before and after, losses on a plane, certified curves."""

from collections.abc import Mapping, Sequence
from textwrap import fill

import matplotlib.ticker as ticker
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from spai_lab.checks import check_images, check_number, describe
from spai_lab.figures import draw_rates, verdicts
from spai_lab.metrics import Rate
from spai_lab.style import COLORS, MARKERS, SEQUENTIAL, draw_image, figure, outcome, styled
from spai_lab.threat import fooled, logits_of, margin, steepest, value_and_gradient

HATCHES = {"clean": "", "baseline": "//", "adversarial": "xx", "defended": "..", "poisoned": "\\\\", "private": "--"}
SIDE = 31


def grouped_bars(rows: Mapping[str, Mapping[str, Rate]], roles: Mapping[str, str], *, what: str) -> Figure:
    """Rates side by side, a group for each row, with their 95 % intervals.

    Args:
        rows: name of a group to its rates, by name of a bar; all groups have the same bars.
        roles: name of a bar to one of `style.ROLES`; color and hatch tell them apart.
        what: what a rate says, for the axis, such as "accuracy".
    Returns:
        the figure.
    Raises:
        ValueError: there is no row, or rows differ in their bars.
    """
    if not rows or any(list(bars) != list(roles) for bars in rows.values()):
        raise ValueError(f"rows is {describe(rows)}; accepted: at least one group, each with the bars {list(roles)}")
    fig, axes = figure(max(8.0, 1.75 * len(rows) + 2.6), 4.6)
    ax, width = axes[0, 0], 0.8 / len(roles)
    with styled():
        for number, (bar, role) in enumerate(roles.items()):
            rates = [bars[bar] for bars in rows.values()]
            places = np.arange(len(rows)) + (number - (len(roles) - 1) / 2) * width
            values = np.array([rate.value for rate in rates])
            spread = np.abs(np.array([rate.interval for rate in rates]).T - values)
            look = {"color": COLORS[role], "hatch": HATCHES[role], "edgecolor": "white", "ecolor": "#444444"}
            ax.bar(places, values, width, yerr=spread, capsize=3, label=bar, **look)
            for place, value, high in zip(places, values, values + spread[1], strict=True):
                ax.annotate(f"{100 * value:.0f}", (place, high), ha="center", va="bottom", fontsize=11)
        ax.set_xticks(range(len(rows)), [fill(name, 15) for name in rows])
        ax.set(ylabel=what, ylim=(0, 1.12))
        ax.yaxis.set_major_formatter(ticker.PercentFormatter(1))
        trials = sorted({rate.trials for bars in rows.values() for rate in bars.values()})
        ax.set_title(f"n = {', '.join(f'{n:,}' for n in trials)}; line: 95 % interval")
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return fig


@torch.no_grad()
def readings(model: nn.Module, rows: Mapping[str, Tensor], y: Tensor, classes: Sequence[str]) -> Figure:
    """Rows of images of the same things, and what a model says of each: framed and marked where it misreads one.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        rows: name of a row to its images `(N, C, H, W)` in [0, 1].
        y: their labels `(N,)`, the same for each row.
        classes: the K names.
    Returns:
        the figure.
    """
    fig, axes = figure(1.6 * len(y) + 1.6, 1.9 * len(rows), columns=len(y), rows=len(rows))
    with styled():
        for place, (name, images) in enumerate(rows.items()):
            says, misread = verdicts(model, images, classes), fooled(model, images, y).tolist()
            for ax, image, said, wrong in zip(axes[place], images, says, misread, strict=True):
                role, mark = outcome(wrong)
                draw_image(ax, image, f"{mark} {said}" if wrong else said, role=role if wrong else "clean")
            axes[place, 0].set_ylabel(name, fontsize=13)
    return fig


@torch.no_grad()
def margin_planes(models: Mapping[str, nn.Module], x: Tensor, y: Tensor, *, uphill: nn.Module, span: float) -> Figure:
    r"""How far the right class leads on a plane through one image, for several models: is there a slope to follow?

    $m(x + a u + b v) = z_y - \max_{i \ne y} z_i$ with u the sign of the gradient of `uphill`, and v one of random
    signs.

    Args:
        models: title to model, `(N, C, H, W)` in [0, 1] to logits `(N, K)`, side by side.
        x: one clean image `(1, C, H, W)` in [0, 1].
        y: its label `(1,)`.
        uphill: the model whose gradient gives the first direction, such as a defense's view.
        span: half the width of the plane, in L-inf, in pixel units, above 0.
    Returns:
        the figure; colors show the margin divided by its largest size on each plane, black where it is zero.
    Raises:
        ValueError: names the argument.
    """
    check_images(x)
    check_number("span", span, low=0, high=1, exclusive=True)
    if len(x) != 1:
        raise ValueError(f"x is {describe(x)}; accepted: one image (1, C, H, W)")
    with torch.enable_grad():
        slope = value_and_gradient(lambda x: -margin(logits_of(uphill, x, y), y), x)[1]
    u = steepest(slope, "linf")
    v = torch.randint(0, 2, x.shape, generator=torch.Generator().manual_seed(0)).to(x) * 2 - 1
    places = torch.linspace(-span, span, SIDE)
    b, a = torch.meshgrid(places, places, indexing="ij")
    plane = (x + a.reshape(-1, 1, 1, 1) * u + b.reshape(-1, 1, 1, 1) * v).clamp(0, 1)
    fig, axes = figure(4.3 * len(models) + 1.2, 4.4, columns=len(models))
    with styled():
        for ax, (title, model) in zip(axes[0], models.items(), strict=True):
            m = margin(logits_of(model, plane, y.expand(len(plane))), y.expand(len(plane))).view(SIDE, SIDE)
            m = (m / m.abs().max().clamp_min(1e-12)).numpy()
            shown = ax.imshow(
                m, extent=(-span, span, -span, span), origin="lower", cmap=SEQUENTIAL, vmin=-1, vmax=1, aspect="auto"
            )
            if m.min() < 0 < m.max():
                ax.contour(m, [0], extent=(-span, span, -span, span), colors="black", linewidths=2)
            ax.plot(0, 0, "o", color="white", markeredgecolor="black", markersize=10)
            ax.set(xlabel="along the gradient")
            ax.set_title(title)
        axes[0, 0].set_ylabel("along random signs")
        fig.colorbar(shown, ax=axes[0, -1], label="lead of the right class")
    return fig


def certified_curves(curves: Mapping[str, Mapping[float, Rate]], roles: Mapping[str, str], *, unit: str) -> Figure:
    """The share of images that are right and certified, against the radius, one curve for each setting.

    Args:
        curves: name of a curve to its rates by radius.
        roles: name of a curve to one of `style.ROLES`; curves of one role differ in their line.
        unit: the norm that the radius is measured in.
    Returns:
        the figure.
    """
    return rate_curves(curves, roles, x=f"radius, {unit}, in pixel units", y="right and certified")


def during_training(curves: Mapping[str, Mapping[float, Rate]], roles: Mapping[str, str]) -> Figure:
    """Rates as a training goes on, one curve for each attack and training.

    Args:
        curves: name of a curve to its rates by the share of the training that is done.
        roles: name of a curve to one of `style.ROLES`; curves of one role differ in their line.
    Returns:
        the figure.
    """
    return rate_curves(curves, roles, x="share of the training that is done", y="images that stand")


def rate_curves(curves: Mapping[str, Mapping[float, Rate]], roles: Mapping[str, str], *, x: str, y: str) -> Figure:
    """Curves of rates with their intervals, and the legend beside them; `x` and `y` name the axes."""
    fig, axes = figure(9.5, 4.4)
    ax = axes[0, 0]
    seen: dict[str, int] = {}
    with styled():
        for name, rates in curves.items():
            draw_rates(ax, rates, name, roles[name], seen.get(roles[name], 0))
            ax.lines[-1].set_markevery(max(1, len(rates) // 8))
            seen[roles[name]] = seen.get(roles[name], 0) + 1
        trials = sorted({rate.trials for rates in curves.values() for rate in rates.values()})
        ax.set(xlabel=x, ylabel=y, ylim=(-0.02, 1.02))
        ax.yaxis.set_major_formatter(ticker.PercentFormatter(1))
        ax.set_title(f"n = {', '.join(map(str, trials))}; band: 95 % interval")
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return fig


def margin_bounds(bounds: Mapping[str, Sequence[float]], eps: Sequence[float], roles: Mapping[str, str]) -> Figure:
    """What is proved and what is found of the lead of the right class, against the radius.

    Args:
        bounds: name of a curve to its values, one for each radius.
        eps: the radii, in pixel units.
        roles: name of a curve to one of `style.ROLES`.
    Returns:
        the figure, with a line at zero, where the answer changes.
    """
    fig, axes = figure(9.5, 4.2)
    ax = axes[0, 0]
    with styled():
        for name, values in bounds.items():
            ax.plot(eps, values, color=COLORS[roles[name]], marker=MARKERS[roles[name]], label=name)
        ax.axhline(0, color="black", linewidth=1.2)
        ax.set(xlabel="eps, L-inf, in pixel units", ylabel="lead, in logits")
        ax.set_title("Lead of the right class at worst")
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return fig

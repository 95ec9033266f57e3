"""The distillation explorer: what the temperature does to a student's boundary, to its gradient, and to two attacks."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import ipywidgets as widgets
import matplotlib as mpl
import numpy as np
import torch
from matplotlib import ticker
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path
from torch import Tensor, nn

from spai_lab.attacks.evasion.gradient import pgd
from spai_lab.checks import describe as describe_value
from spai_lab.checks import unsuspecting
from spai_lab.data import load
from spai_lab.defenses.evasion.distillation import defensive_distillation, distillation_view, softened
from spai_lab.metrics import Rate, accuracy_rate, fooled_rate
from spai_lab.models import mlp
from spai_lab.style import COLORS, MARKERS, SEQUENTIAL, Backdrop, panels, styled
from spai_lab.threat import input_gradient, norms
from spai_lab.training.loop import fit
from spai_lab.training.recipes import Robustly
from spai_lab.widgets.explorable import Explorable

TEMPERATURES = (1, 2, 5, 10, 20, 50, 100)
HIDDEN = 32
LEARNING = {"epochs": 30, "batch_size": 64, "learning_rate": 0.1}
EPS, STEPS = 0.12, 20
SIDE = 121  # points of the grid on which boundary and gradient are found
SHOWN = 120  # test points in the picture


@dataclass(frozen=True, eq=False)
class Distilled:
    """A student of one temperature, and what an attacker meets who climbs its loss.

    Args:
        temperature: T, of the teacher's and the student's training.
        student: used at T = 1, like any model.
        boundary: where it finds both classes equally likely.
        slopes: on a grid, the L2 norm of the gradient of the cross-entropy of the student's own answer, `(SIDE, SIDE)`;
            the first row is at the bottom.
        gaps: how far the logits of the test points are apart, `(N,)`.
        right: test points that it gets right.
        vanished: test points where the gradient of the cross-entropy is exactly zero, in float32.
        by_loss: test points that PGD on its cross-entropy turns, or that it misreads anyway.
        by_view: the same, for PGD on the logits divided by T.
    """

    temperature: int
    student: nn.Module
    boundary: Path
    slopes: Tensor
    gaps: Tensor
    right: Rate
    vanished: Rate
    by_loss: Rate
    by_view: Rate


@cache
def distilled(temperature: int) -> Distilled:
    """Train a teacher and its student on the moons, and attack the student.

    Args:
        temperature: one of `TEMPERATURES`.
    Returns:
        the student and what was found; kept.
    Raises:
        ValueError: names the argument.
    """
    if temperature not in TEMPERATURES:
        accepted = ", ".join(map(str, TEMPERATURES))
        raise ValueError(f"temperature is {describe_value(temperature)}; accepted: {accepted}")
    data = load("moons")
    x, y = data.x_test, data.y_test
    generator = seeded()
    teacher = trained(softened, generator, temperature=float(temperature))
    student = trained(defensive_distillation, generator, temperature=float(temperature), teacher=teacher)
    view = distillation_view(student, temperature=float(temperature))
    with unsuspecting():
        by_loss, by_view = (
            fooled_rate(student, pgd(climbed, x, y, eps=EPS, steps=STEPS, generator=seeded()), y)
            for climbed in (student, view)
        )
    boundary, slopes = plane(student)
    with torch.no_grad():
        gaps = student(x).diff(dim=1).abs()[:, 0]
    vanished = Rate(int((slope(student, x, y) == 0).sum()), len(y))
    return Distilled(
        *(temperature, student, boundary, slopes, gaps, accuracy_rate(student, x, y), vanished, by_loss, by_view)
    )


def trained(loss: Callable[..., Tensor], generator: torch.Generator, **settings: object) -> nn.Module:
    """A small MLP that has learned the moons with a loss."""
    data = load("moons")
    model = mlp(data.shape, data.num_classes, hidden=HIDDEN, generator=generator)
    objective = partial(Robustly(loss, **settings), generator=generator)
    fit(model, data.x_train, data.y_train, objective=objective, generator=generator, progress=False, **LEARNING)
    return model.eval()


def seeded() -> torch.Generator:
    """The same draws each time."""
    return torch.Generator().manual_seed(0)


def slope(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """How long the gradient of the cross-entropy is at each input, float64 `(N,)`: tiny entries keep their squares."""
    return norms(input_gradient(model, x, y).double(), "l2")


def plane(model: nn.Module) -> tuple[Path, Tensor]:
    """The model's boundary in the unit square, and how steep the loss of its own answer is on a grid."""
    ticks = torch.linspace(0, 1, SIDE)
    grid = torch.cartesian_prod(ticks, ticks).flip(1).reshape(-1, 2, 1, 1)
    with torch.no_grad():
        logits = model(grid)
    _, axes = panels(1, 1, square=(0, 0, 1, 1))
    lead = logits.diff(dim=1).reshape(SIDE, SIDE).numpy()
    boundary = axes["square"].contour(ticks, ticks, lead, levels=[0]).get_paths()[0]
    return boundary, slope(model, grid, logits.argmax(1)).reshape(SIDE, SIDE)


INK = "#333333"
PANEL = 4.8
PLACES = {
    "square": (0.7, 0.85, PANEL, PANEL),
    "scale": (5.7, 1.45, 0.26, PANEL - 0.6),
    "zero": (5.7, 0.85, 0.26, 0.4),
    "shares": (7.0, 0.85, 4.2, PANEL),
}
LOWEST, HIGHEST = -40.0, 2.0  # of log10 of the gradient: float32 ends at 1e-45
NOTHING = (255, 255, 255, 255)  # the color of a gradient of exactly zero
SHAPES = ({"marker": "^", "markerfacecolor": "white"}, {"marker": "v", "markerfacecolor": INK})
SHARES = {  # role, marker, and what is counted, from top to bottom
    "vanished": ("baseline", "s", "gradient exactly 0"),
    "by_loss": ("adversarial", MARKERS["adversarial"], "PGD on the loss fools"),
    "by_view": ("adversarial", "D", "PGD on logits / T fools"),
}


@cache
def backdrop() -> Backdrop:
    """What the temperature leaves as it is: axes, scale of the heat map, names of the shares, and the legend."""
    data = load("moons")
    fig, axes = panels(11.6, 6.75, **PLACES)
    with styled():
        ax = axes["square"]
        ax.set(xlabel="$x_1$", ylabel="$x_2$", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        scale = axes["scale"]
        levels = np.linspace(0, 1, 256)[:, None]
        scale.imshow(levels, cmap=SEQUENTIAL, aspect="auto", origin="lower", extent=(0, 1, LOWEST, HIGHEST))
        for name in ("scale", "zero"):
            axes[name].yaxis.tick_right()
            axes[name].set(xticks=[])
            axes[name].spines[:].set_visible(True)
        scale.set_yticks([0, -10, -20, -30, -40], ["1", *(f"$10^{{-{power}}}$" for power in (10, 20, 30, 40))])
        axes["zero"].set(yticks=[0.5], yticklabels=["0"], ylim=(0, 1))
        ax = axes["shares"]
        ax.set(xlim=(0, 1), ylim=(-0.25, len(SHARES)), xticks=[0, 0.25, 0.5, 0.75, 1], yticks=[])
        ax.set_xlabel(f"of {len(data.y_test)} test points")
        ax.xaxis.set_major_formatter(ticker.PercentFormatter(1, symbol=" %"))
        for tick in (0.25, 0.5, 0.75, 1):
            ax.axvline(tick, color=COLORS["baseline"], linewidth=0.8, zorder=0)
        handles = [
            Line2D([], [], color="black", linewidth=3, label="boundary"),
            Line2D([], [], color="black", linewidth=2, linestyle=":", label="boundary at T = 1"),
            *(
                Line2D([], [], linestyle="", color=INK, markersize=9, label=name, **shape)
                for name, shape in zip(data.classes, SHAPES, strict=True)
            ),
        ]
        fig.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.04, 0), ncols=4, handletextpad=0.4, fontsize=13)
    return Backdrop.of(fig, axes)


def heat(slopes: Tensor) -> np.ndarray:
    """The lengths of gradients as colors, `(H, W, 4)`, uint8, top row first: log scale, and white where it is zero."""
    share = (slopes.double().log10().clamp(LOWEST, HIGHEST) - LOWEST) / (HIGHEST - LOWEST)
    colors = mpl.colormaps[SEQUENTIAL](share.numpy(), bytes=True)
    colors[(slopes == 0).numpy()] = NOTHING
    return colors[::-1]


def render(found: Distilled) -> Figure:
    """The student's boundary on a heat map of its gradient, beside what two attacks achieve.

    Args:
        found: of one temperature.
    Returns:
        the figure. Its parts have names (gid): "heat", "boundary", "boundary at 1"; for each of "vanished", "by_loss"
        and "by_view" a marker of that name, and its words, "vanished words" and so on; above, "title" and "accuracy".
    """
    behind, data = backdrop(), load("moons")
    square, shares = behind.axes["square"], behind.axes["shares"]
    with styled():
        fig = behind.picture()
        behind.lay_image(fig, "square", heat(found.slopes), gid="heat")
        for label, shape in enumerate(SHAPES):
            points = data.x_test[:SHOWN][data.y_test[:SHOWN] == label].flatten(1).T
            look = {"linestyle": "", "color": INK, "markersize": 7, "markeredgewidth": 0.8}
            fig.add_artist(Line2D(*points, transform=square.transData, **look, **shape))
        for gid, path, look in (
            ("boundary", found.boundary, {"linewidth": 3}),
            ("boundary at 1", distilled(1).boundary, {"linewidth": 2, "linestyle": ":"}),
        ):
            line = PathPatch(path, fill=False, edgecolor="black", gid=gid, transform=square.transData, **look)
            fig.add_artist(line)
        edge = {"fill": False, "edgecolor": INK, "linewidth": 1.2, "transform": square.transAxes}
        fig.add_artist(Rectangle((0, 0), 1, 1, **edge))
        for row, name in enumerate(reversed(SHARES)):
            draw_share(fig, shares, row, name, getattr(found, name))
        above = {"fontsize": 16, "weight": "bold", "va": "bottom"}
        right = f"{100 * found.right.value:.1f} % read rightly"
        fig.text(0, 1.07, f"student of T = {found.temperature}", transform=square.transAxes, gid="title", **above)
        fig.text(0, 1.015, "length of the loss's gradient", transform=square.transAxes, fontsize=15, va="bottom")
        fig.text(0, 1.07, right, transform=shares.transAxes, gid="accuracy", **above)
    return fig


def draw_share(fig: Figure, ax: mpl.axes.Axes, row: int, name: str, rate: Rate) -> None:
    """A bar with its marker at the end, its interval, and its name and number above it."""
    role, marker, counted = SHARES[name]
    place = {"transform": ax.transData}
    hatch = "//" if name == "by_view" else None
    bar = Rectangle((0, row), rate.value, 0.42, facecolor=COLORS[role], edgecolor="black", alpha=0.5, hatch=hatch)
    bar.set(**place)
    fig.add_artist(bar)
    fig.add_artist(Line2D(rate.interval, [row + 0.21] * 2, color="black", linewidth=2, **place))
    look = {"color": COLORS[role], "marker": marker, "markersize": 13, "markeredgecolor": "black", "linestyle": ""}
    fig.add_artist(Line2D([rate.value], [row + 0.21], gid=name, **look, **place))
    words = f"{counted}: {percent(rate)}"
    fig.text(0, row + 0.49, words, fontsize=16, va="bottom", weight="bold", gid=f"{name} words", **place)


def percent(rate: Rate) -> str:
    """A share in whole percent; nearly all is not all, and hardly any is not none.

    >>> percent(Rate(999, 1000)), percent(Rate(1, 1000)), percent(Rate(0, 10)), percent(Rate(53, 100))
    ('> 99 %', '< 1 %', '0 %', '53 %')
    """
    if 0 < rate.value < 0.005:
        return "< 1 %"
    return "> 99 %" if 0.995 <= rate.value < 1 else f"{100 * rate.value:.0f} %"


def verdict(found: Distilled) -> str:
    """In words: what distillation has changed, and what it has not.

    Args:
        found: of one temperature.
    Returns:
        a few sentences.
    """
    T, plain = found.temperature, distilled(1)
    gap = f"The logits of a test point lie {found.gaps.median():.0f} apart (median)"
    attack = f"PGD with L-inf eps {EPS:g} fools {percent(found.by_loss)} when it climbs the loss"
    if T == 1:
        return (
            f"At T = 1 a student is trained like any network. {gap}, and the gradient is exactly zero at "
            f"{percent(found.vanished)} of the points. {attack}; logits / 1 are the logits, so the view is no other "
            "attack. Raise the temperature."
        )
    lost = plain.by_loss.value - found.by_loss.value
    seems = "it looks robust" if lost > 0.3 else "it looks more robust" if lost > 0.05 else "it looks no more robust"
    moved = agreement(found.student, plain.student)
    return (
        f"{gap}, {found.gaps.median() / plain.gaps.median():.0f} times as far as at T = 1, and in float32 the gradient "
        f"is exactly zero at {percent(found.vanished)} of the points (white: exactly zero). The boundary hardly moves: "
        f"both students agree on {percent(moved)} of the square. {attack}, and {percent(plain.by_loss)} at T = 1: "
        f"{seems}. On logits / {T}, PGD fools {percent(found.by_view)}: the adversarial points are all still there."
    )


@cache
def agreement(student: nn.Module, other: nn.Module) -> Rate:
    """On how much of a grid over the unit square two models give the same answer."""
    ticks = torch.linspace(0, 1, SIDE)
    grid = torch.cartesian_prod(ticks, ticks).reshape(-1, 2, 1, 1)
    with torch.no_grad():
        same = student(grid).argmax(1) == other(grid).argmax(1)
    return Rate(int(same.sum()), len(same))


def describe(found: Distilled) -> str:
    """The picture for somebody who cannot see it.

    Args:
        found: of one temperature.
    Returns:
        a sentence or two.
    """
    zero = (found.slopes == 0).double().mean().item()
    return (
        f"The unit square with the two moons and the boundary of a student of temperature {found.temperature}, on a "
        f"heat map of the length of the loss's gradient: exactly zero on {100 * zero:.0f} % of the square, at most "
        f"{found.slopes.max():.2g}. Bars, of the test points: gradient exactly zero {found.vanished}; fooled by PGD on "
        f"the loss {found.by_loss}; fooled by PGD on the logits divided by T {found.by_view}."
    )


def distillation_explorer() -> Explorable:
    """The explorable: raise the temperature of defensive distillation, and see what vanishes and what stays.

    Returns:
        the widget.
    """
    for temperature in TEMPERATURES:
        agreement(distilled(temperature).student, distilled(1).student)
    options = [(f"{temperature}", temperature) for temperature in TEMPERATURES]
    control = widgets.SelectionSlider(description="temperature", options=options, value=1)

    def of_student(show: Callable[[Distilled], object]) -> Callable[..., object]:
        return lambda temperature: show(distilled(temperature))

    return Explorable(
        of_student(render), {"temperature": control}, alt=of_student(describe), caption=of_student(verdict)
    )

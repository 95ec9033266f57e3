"""What adversarial training does to the boundary: two networks on the moons, and the balls that each of them cuts."""

from dataclasses import dataclass
from functools import cache

import ipywidgets as widgets
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path
from torch import Tensor, nn

from spai_lab.attacks.evasion import pgd
from spai_lab.data import Dataset, load
from spai_lab.defenses.evasion.adversarial import adversarial_training
from spai_lab.metrics import Rate, accuracy_rate
from spai_lab.style import COLORS, MARKERS, Backdrop, panels, styled
from spai_lab.threat import fooled
from spai_lab.training.cache import cached
from spai_lab.training.recipes import Recipe, Robustly
from spai_lab.widgets.explorable import Explorable
from spai_lab.widgets.moons_explorer import INK, LAND, SHAPES, lay

EPS = (0.0, 0.02, 0.05, 0.08, 0.1, 0.15)
OPENS_AT = 0.08
BALLS = 12
APART = 0.14  # how far, at least, the centers of two balls are from each other, in L-inf
SHOWN = 200
SIDE = 201  # points of the grid on which a boundary is found
LATTICE = 41  # points on a side of each ball in which a mistake is looked for


@dataclass(frozen=True, eq=False)
class Judged:
    """A network, and what it makes of the plane, of the test points and of the balls around some of them.

    Args:
        eps: radius of the balls, in units of the square.
        model: `(N, 2, 1, 1)` in [0, 1] to logits `(N, 2)`.
        region: where it answers the second class.
        boundary: where both are equally likely.
        clean: its accuracy on the test points.
        robust: what PGD leaves of that.
        cut: which of the balls drawn hold a point that it misreads, bool `(BALLS,)`.
    """

    eps: float
    model: nn.Module
    region: Path
    boundary: Path
    clean: Rate
    robust: Rate
    cut: Tensor


@cache
def moons() -> Dataset:
    """The moons."""
    return load("moons")


@cache
def network(eps: float) -> nn.Module:
    """An MLP trained on what PGD makes of the data at this eps, or at eps 0 on the data as they are."""
    objective = Robustly(adversarial_training, eps=eps) if eps else None
    recipe = Recipe("mlp", epochs=25, batch_size=300, learning_rate=3e-2, objective=objective)
    return cached(recipe, moons(), seed=0, progress=False)[0]


@cache
def centers() -> tuple[Tensor, Tensor]:
    """Test points that keep their distance from one another, `(BALLS, 2)`, and their labels.

    They are the first that natural training reads rightly, so that at eps 0 no ball is cut.
    """
    x, y = moons().x_test, moons().y_test
    right = ~fooled(network(0.0), x, y)
    points, chosen = x.flatten(1), []
    for place in right.nonzero()[:, 0].tolist():
        if len(chosen) < BALLS and all((points[chosen] - points[place]).abs().amax(1) > APART):
            chosen.append(place)
    return points[chosen], y[chosen]


@cache
def judged(trained_at: float, eps: float) -> Judged:
    """A network, judged at an eps.

    Args:
        trained_at: the eps of its training, one of `EPS`; 0 is natural training.
        eps: that of the attack and of the balls.
    Returns:
        what it makes of the plane.
    """
    model, data = network(trained_at), moons()
    region, boundary = contours(trained_at)
    x_adv = pgd(model, data.x_test, data.y_test, eps=eps, generator=torch.Generator().manual_seed(0))
    robust = accuracy_rate(model, x_adv, data.y_test)
    return Judged(eps, model, region, boundary, accuracy_rate(model, data.x_test, data.y_test), robust, cut(model, eps))


@cache
def contours(trained_at: float) -> tuple[Path, Path]:
    """Where a network answers the second class, and the boundary of that."""
    ticks = torch.linspace(0, 1, SIDE)
    model, grid = network(trained_at), torch.cartesian_prod(ticks, ticks).flip(1)
    with torch.no_grad():
        logits = model(grid.reshape(-1, 2, 1, 1))
    lead = (logits[:, 1] - logits[:, 0]).reshape(SIDE, SIDE).numpy()
    _, axes = panels(1, 1, square=(0, 0, 1, 1))
    region = axes["square"].contourf(ticks, ticks, lead, levels=[0, lead.max()]).get_paths()[0]
    return region, axes["square"].contour(ticks, ticks, lead, levels=[0]).get_paths()[0]


@torch.no_grad()
def cut(model: nn.Module, eps: float) -> Tensor:
    """Which of the balls hold a point of a fine lattice that the model misreads, bool `(BALLS,)`."""
    x, y = centers()
    ticks = torch.linspace(-eps, eps, LATTICE)
    inside = (x[:, None] + torch.cartesian_prod(ticks, ticks)).clamp(0, 1)
    answers = model(inside.reshape(-1, 2, 1, 1)).argmax(1).view(BALLS, -1)
    return (answers != y[:, None]).any(1)


@cache
def contested(eps: float) -> Rate:
    """The share of test points whose ball meets the ball of a point of the other class: nobody can be right on both."""
    points, y = moons().x_test.flatten(1), moons().y_test
    apart = (points[:, None] - points).abs().amax(2).masked_fill(y[:, None] == y, torch.inf)
    return Rate(int((apart.amin(1) < 2 * eps).sum()), len(y))


PANEL = 4.7  # inches
PLACES = {"natural": (0.65, 1.3, PANEL, PANEL), "robust": (6.05, 1.3, PANEL, PANEL)}
TITLES = {"natural": "naturally trained", "robust": "adversarially trained"}
INKS = {"natural": "black", "robust": COLORS["defended"]}
BALL = {True: "adversarial", False: "clean"}


@cache
def backdrop() -> Backdrop:
    """What the slider leaves as it is: the plane as the naturally trained network divides it, and the legend."""
    fig, axes = panels(11.0, 7.0, **PLACES)
    with styled():
        for ax in axes.values():
            for spine in ax.spines.values():
                spine.set(visible=True, color=INK, linewidth=1)
            ax.patch.set_visible(False)
            ax.set(xlabel="$x_1$", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        axes["natural"].set(ylabel="$x_2$")
        draw_regions(fig, axes, "natural", *contours(0.0))
        handles = [
            Line2D([], [], linewidth=3, label=f"boundary, {TITLES[name]}", color=color) for name, color in INKS.items()
        ]
        handles += [
            Line2D([], [], linestyle="", color=INK, markersize=9, label=f"{name}, test point", **shape)
            for name, shape in zip(moons().classes, SHAPES, strict=True)
        ]
        handles += [
            Line2D([], [], marker=MARKERS[role], markersize=13, linewidth=2.5, color=COLORS[role], label=label)
            for role, label in (("clean", "ball without a mistake"), ("adversarial", "ball that is cut"))
        ]
        place = {"loc": "lower center", "ncols": 3, "fontsize": 14, "columnspacing": 1.4, "handlelength": 1.8}
        fig.legend(handles=handles, **place, handletextpad=0.5)
    return Backdrop.of(fig, axes)


def draw_regions(fig: Figure, axes: dict, name: str, region: Path, boundary: Path) -> None:
    """One network's regions and its boundary, under the data."""
    ax = axes[name]
    artists = [
        Rectangle((0, 0), 1, 1, facecolor=LAND[0], edgecolor="none", zorder=-0.9),
        PathPatch(region, facecolor=LAND[1], edgecolor="none", zorder=-0.8),
        PathPatch(boundary, fill=False, edgecolor=INKS[name], linewidth=3, zorder=-0.5, gid=f"{name} boundary"),
    ]
    for label, shape in enumerate(SHAPES):
        points = moons().x_test[:SHOWN][moons().y_test[:SHOWN] == label].flatten(1).T
        look = {"linestyle": "", "color": INK, "markersize": 5.5, "markeredgewidth": 0.8, "zorder": -0.7}
        artists.append(Line2D(*points, **look, **shape))
    lay(fig, ax.transData, ax.bbox.frozen(), artists)


def render(eps: float) -> Figure:
    """Both networks' planes, with the balls of radius eps around some test points.

    Args:
        eps: of training, attack and balls; one of `EPS`.
    Returns:
        the figure. Its parts have names (gid): for "natural" and "robust" each "... words" and, for each ball,
        "... ball"; on the right panel "robust boundary" and, dashed, the other one, "compared".
    Raises:
        ValueError: names the argument.
    """
    check_eps(eps)
    behind, both = backdrop(), pair(eps)
    with styled():
        fig = behind.picture()
        draw_regions(fig, behind.axes, "robust", both["robust"].region, both["robust"].boundary)
        dashes = {"edgecolor": "black", "linewidth": 2, "linestyle": (0, (3, 2)), "zorder": -0.4, "gid": "compared"}
        right = behind.axes["robust"]
        lay(fig, right.transData, right.bbox.frozen(), [PathPatch(contours(0.0)[1], fill=False, **dashes)])
        for name, network_judged in both.items():
            ax = behind.axes[name]
            lay(fig, ax.transData, ax.bbox.frozen(), balls(name, network_judged))
            shares = [f"{100 * rate.value:.1f} %" for rate in (network_judged.clean, network_judged.robust)]
            words = f"accuracy {shares[0]}, under PGD {shares[1]} (n = {network_judged.clean.trials})"
            title = TITLES[name] + (f" at eps {eps:g}" if name == "robust" else "")
            fig.text(0, 1.085, title, transform=ax.transAxes, fontsize=17, weight="bold", va="bottom")
            fig.text(0, 1.02, words, transform=ax.transAxes, fontsize=14.5, va="bottom", gid=f"{name} words")
    return fig


def pair(eps: float) -> dict[str, Judged]:
    """Both networks, judged at the same eps."""
    return {"natural": judged(0.0, eps), "robust": judged(eps, eps)}


def balls(name: str, network_judged: Judged) -> list[Rectangle | Line2D]:
    """A square and a marker for each ball, colored by whether the network misreads a point in it."""
    eps, artists = network_judged.eps, []
    for point, hit in zip(centers()[0].numpy(), network_judged.cut.tolist(), strict=True):
        role = BALL[hit]
        edge = {"fill": False, "edgecolor": COLORS[role], "linewidth": 2.5, "gid": f"{name} ball"}
        artists.append(Rectangle(point - eps, 2 * eps, 2 * eps, zorder=2, **edge))
        look = {"color": COLORS[role], "marker": MARKERS[role], "markersize": 11, "markeredgecolor": "white"}
        artists.append(Line2D(*point[:, None], linestyle="", zorder=3, gid=f"{name} {role}", **look))
    return artists


def check_eps(eps: float) -> None:
    """`eps` is one that a network was trained at."""
    if eps not in EPS:
        raise ValueError(f"eps is {eps!r}; accepted: {', '.join(f'{value:g}' for value in EPS)}")


def verdict(eps: float) -> str:
    """In words: what adversarial training gains and costs at this eps, and how much anybody could gain."""
    check_eps(eps)
    natural, robust = pair(eps).values()
    if eps == 0:
        return (
            f"At eps 0 the ball is the point alone: adversarial training is natural training, both networks are the "
            f"same, with an accuracy of {natural.clean}. Raise eps and watch the right boundary leave the dashed one."
        )
    cost = 100 * (natural.clean.value - robust.clean.value)
    price = f"costs {cost:.1f} percentage points of clean accuracy" if cost >= 0.05 else "costs no clean accuracy"
    overlap = contested(eps)
    limit = (
        "No ball of a test point meets one of the other class: a boundary that cuts none could exist."
        if overlap.hits == 0
        else f"The balls of {overlap.hits} of the {overlap.trials} test points meet one of the other class: no "
        "boundary spares both."
    )
    return (
        f"PGD at eps {eps:g} leaves the naturally trained MLP {natural.robust}, the adversarially trained one "
        f"{robust.robust}; that {price}. Of {BALLS} balls, the natural boundary cuts {int(natural.cut.sum())}, the "
        f"other {int(robust.cut.sum())}. {limit}"
    )


def describe(eps: float) -> str:
    """The picture for somebody who cannot see it."""
    check_eps(eps)
    told = [
        f"{TITLES[name]}, {int(network_judged.cut.sum())} of {BALLS} balls cut, accuracy "
        f"{100 * network_judged.clean.value:.1f} %, under PGD {100 * network_judged.robust.value:.1f} %"
        for name, network_judged in pair(eps).items()
    ]
    return (
        f"Twice the unit square with two moons of points, divided by an MLP; squares of radius {eps:g} around {BALLS} "
        f"test points. Left: {told[0]}. Right: {told[1]}; the left boundary is repeated there, dashed."
    )


def robust_boundary() -> Explorable:
    """The explorable: move the eps of adversarial training, and watch the boundary make room for the balls.

    Returns:
        the widget; all networks are trained when it opens, and kept in the user's cache.
    """
    for eps in EPS:
        pair(eps)
    options = [(f"{eps:g}", eps) for eps in EPS]
    eps = widgets.SelectionSlider(description="eps", options=options, value=OPENS_AT)
    return Explorable(render, {"eps": eps}, alt=describe, caption=verdict)

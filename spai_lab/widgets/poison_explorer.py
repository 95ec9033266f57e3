"""The poison explorer: move one wrongly labeled point, and see the boundary of a support vector machine follow."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, Patch, Polygon, Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox
from torch import Tensor

from spai_lab.attacks.poisoning.poisoned import added
from spai_lab.attacks.poisoning.svm import svm_hypergradient, svm_poisoning, svm_walk, train_svm
from spai_lab.data import Dataset, load
from spai_lab.metrics import accuracy_rate
from spai_lab.style import COLORS, MARKERS, SEQUENTIAL, Backdrop, panels, styled
from spai_lab.widgets.explorable import Explorable
from spai_lab.widgets.moons_explorer import INK, SHAPES, lay

POINTS = 20
PLACES = tuple(round(0.05 * place, 2) for place in range(21))  # of the sliders, and of the map
COSTS = (1.0, 5.0, 15.0)
EARLIER = (0, 1, 2, 4)
STEPS, STEP_SIZE = 30, 0.04
FLAT = 1e-9  # the length of a gradient that is 0 but for rounding
SAME = 1e-6  # losses nearer to each other than that are equal but for rounding


@dataclass(frozen=True, eq=False)
class Machine:
    r"""A trained linear machine $f(x) = w \cdot x + b$, and how it does.

    Args:
        w, b: `(2,)` and a number.
        loss: mean hinge loss on the validation data.
        error: share of the test points that it gets wrong.
    """

    w: np.ndarray
    b: float
    loss: float
    error: float


@torch.no_grad()
def machine(data: Dataset, cost: float) -> Machine:
    """Train on a training part, and measure on the two others."""
    model = train_svm(data.x_train, data.y_train, C=cost)

    def f(x: Tensor) -> Tensor:
        return model(x.double()).diff(dim=1)[:, 0]

    corners = f(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]).view(3, 2, 1, 1)).numpy()
    loss = (1 - (2.0 * data.y_val - 1) * f(data.x_val)).clamp_min(0).mean().item()
    error = 1 - accuracy_rate(model, data.x_test, data.y_test).value
    return Machine(corners[1:] - corners[0], float(corners[0]), loss, error)


@dataclass(frozen=True, eq=False)
class Scene:
    """Everything that the place of the poison does not change.

    Args:
        label: the poison's, 0 or 1.
        cost: C of the machine.
        data: the moons; earlier poisons are the last of the training part.
        clean: the machine without any poison.
        before: the machine with the earlier poisons alone.
        losses: validation loss with the poison at column j and row i of `PLACES`, `(21, 21)`.
    """

    label: int
    cost: float
    data: Dataset
    clean: Machine
    before: Machine
    losses: np.ndarray

    @property
    def earlier(self) -> int:
        """How many poisons are there already."""
        return len(self.data.y_train) - POINTS

    @property
    def share(self) -> str:
        """The poisons among the training points, in words."""
        return f"{self.earlier + 1} of {len(self.data.y_train) + 1} training points"


@lru_cache(maxsize=32)
def scene(label: int, cost: float = 5.0, earlier: int = 0) -> Scene:
    """Put the poison at every place of the map.

    Args:
        label: of the poison, 0 or 1.
        cost: C, what an error costs the machine, one of `COSTS`.
        earlier: poisons that `svm_poisoning` has placed before, one of `EARLIER`.
    Returns:
        the scene; the last 32 are kept.
    Raises:
        ValueError: names the argument.
    """
    for name, value, accepted in (("label", label, (0, 1)), ("cost", cost, COSTS), ("earlier", earlier, EARLIER)):
        if value not in accepted:
            raise ValueError(f"{name} is {value!r}; accepted: {', '.join(map(str, accepted))}")
    clean = load("moons").first(POINTS)
    data = clean
    if earlier:
        generator = torch.Generator().manual_seed(0)
        settings = {"C": cost, "generator": generator, "progress": False}
        data = svm_poisoning(clean, fraction=earlier / POINTS, **settings).within(clean)
    before = machine(data, cost)
    losses = [[gradient_at(data, label, cost, point(x_1, x_2))[0] for x_1 in PLACES] for x_2 in PLACES]
    return Scene(label, cost, data, machine(clean, cost) if earlier else before, before, np.array(losses))


def point(x_1: float, x_2: float) -> Tensor:
    """A point of the plane as the machine takes it, `(1, 2, 1, 1)`."""
    return torch.tensor([x_1, x_2]).view(1, 2, 1, 1)


def gradient_at(data: Dataset, label: int, cost: float, x_c: Tensor) -> tuple[float, Tensor]:
    """The validation loss with the poison at `x_c`, and its gradient there."""
    return svm_hypergradient(
        data.x_train, data.y_train, data.x_val, data.y_val, x_c, torch.tensor([label]), C=cost
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Effect:
    """What the poison does at one place.

    Args:
        path: where it has been, `(T, 2)`; it is at the last place.
        machine: trained with it there.
        gradient: of the validation loss with respect to the place, `(2,)`.
    """

    path: np.ndarray
    machine: Machine
    gradient: np.ndarray

    @property
    def slope(self) -> float:
        """The gradient's length: how fast the loss grows along the arrow; 0 where it is but rounding."""
        length = float(np.linalg.norm(self.gradient))
        return length if length > FLAT else 0.0


@lru_cache(maxsize=512)
def effect(scene: Scene, x_1: float, x_2: float, step: int = 0) -> Effect:
    """Put the poison at a place, let it walk up the validation loss, and train the machine with it.

    Args:
        scene: of everything else.
        x_1, x_2: where the poison starts, in [0, 1].
        step: 0 to `STEPS` of its walk.
    Returns:
        the effect; the last 512 are kept.
    Raises:
        ValueError: names the argument.
    """
    if step not in range(STEPS + 1):
        raise ValueError(f"step is {step!r}; accepted: 0 to {STEPS}")
    path = walk(scene, x_1, x_2)[: step + 1] if step else point(x_1, x_2)
    y_c = torch.tensor([scene.label])
    _, gradient = gradient_at(scene.data, scene.label, scene.cost, path[-1:])
    poisoned = added(scene.data, path[-1:], y_c).within(scene.data)
    return Effect(path.flatten(1).numpy(), machine(poisoned, scene.cost), gradient.flatten().numpy())


@lru_cache(maxsize=64)
def walk(scene: Scene, x_1: float, x_2: float) -> Tensor:
    """The places that the poison passes on its way up the gradient, `(T, 2, 1, 1)`."""
    settings = {"C": scene.cost, "steps": STEPS, "step_size": STEP_SIZE}
    return svm_walk(scene.data, point(x_1, x_2), torch.tensor([scene.label]), **settings).points


PANEL = 4.75  # inches
PANELS = {
    "plane": (0.65, 1.35, PANEL, PANEL),
    "map": (6.05, 1.35, PANEL, PANEL),
    "scale": (11.0, 1.35, 0.24, PANEL),
}
CLEAN = {"color": COLORS["clean"], "linewidth": 3, "linestyle": "--"}
POISONED = {"color": COLORS["poisoned"], "linewidth": 4}
POISON = {"linestyle": "", "marker": MARKERS["poisoned"], "color": COLORS["poisoned"], "markeredgecolor": "black"}
PATH = {"color": COLORS["poisoned"], "linewidth": 2.2, "marker": "."}
MOVED = {"facecolor": COLORS["poisoned"], "alpha": 0.3, "edgecolor": "none"}
HALO = [withStroke(linewidth=6, foreground="white")]
ARROW = {"arrowstyle": "-|>", "mutation_scale": 24, "linewidth": 3, "shrinkA": 0, "shrinkB": 0, "path_effects": HALO}
REACH = 0.15  # length of the arrow; it shows the direction alone
MARGIN = 0.06  # around the unit square, so that poisons at its edge are seen whole


@lru_cache(maxsize=8)
def backdrop(scene: Scene) -> Backdrop:
    """What the poison's place does not change: the points, the clean boundary, the map, and the legend."""
    fig, axes = panels(11.9, 7.1, **PANELS)
    data = scene.data
    with styled():
        for name in ("plane", "map"):
            ax = axes[name]
            for spine in ax.spines.values():
                spine.set_visible(False)
            ax.add_patch(Rectangle((0, 0), 1, 1, fill=False, edgecolor=INK, zorder=3))
            ax.set(xticks=[0, 0.5, 1], yticks=[0, 0.5, 1], xlabel="$x_1$ of the poison")
        axes["plane"].set(xlabel="$x_1$", ylabel="$x_2$")
        ax = axes["plane"]
        for label, shape in enumerate(SHAPES):
            look = {"linestyle": "", "color": INK, "clip_on": False, **shape}
            own = data.y_train[:POINTS] == label
            validation = data.x_val[data.y_val == label].flatten(1).T
            ax.plot(*validation, markersize=4, markeredgewidth=0.5, alpha=0.3, **look)
            ax.plot(*data.x_train[:POINTS][own].flatten(1).T, markersize=11, markeredgewidth=1.4, **look)
        ax.add_line(boundary(scene.clean, **CLEAN))
        for x, y in zip(data.x_train[POINTS:].flatten(1).numpy(), data.y_train[POINTS:].tolist(), strict=True):
            for mark in poison(x, y, 16):
                ax.add_line(mark)
        losses = scene.losses
        low, high = min(losses.min(), scene.before.loss), losses.max()
        edge = PLACES[1] / 2
        look = {"cmap": SEQUENTIAL, "vmin": low, "vmax": high, "aspect": "auto"}
        around = (-edge, 1 + edge, -edge, 1 + edge)
        axes["map"].imshow(losses, origin="lower", extent=around, interpolation="bilinear", **look)
        axes["map"].images[0].set_clip_path(axes["map"].patches[0])
        for name in ("plane", "map"):
            axes[name].set(xlim=(-MARGIN, 1 + MARGIN), ylim=(-MARGIN, 1 + MARGIN))
        axes["scale"].imshow(np.linspace(high, low, 256)[:, None], extent=(0, 1, low, high), **look)
        axes["scale"].yaxis.tick_right()
        axes["scale"].set(xticks=[], yticks=np.linspace(low, high, 5))
        axes["scale"].yaxis.set_major_formatter("{x:.2f}")
        fig.legend(handles=legend(data.classes), loc="lower center", ncols=4, columnspacing=1.5, handletextpad=0.6)
    return Backdrop.of(fig, axes)


def legend(classes: tuple[str, ...]) -> list[Line2D | Patch]:
    """What each mark means, by columns of two."""
    shapes = [
        Line2D([], [], linestyle="", color=INK, markersize=11, label=f"{name} (small: validation)", **shape)
        for name, shape in zip(classes, SHAPES, strict=True)
    ]
    return [
        *shapes,
        Line2D([], [], label="boundary, clean", **CLEAN),
        Line2D([], [], label="boundary, poisoned", **POISONED),
        Line2D([], [], markersize=16, label="poison, with its label", **POISON),
        Line2D([], [], label="its walk", **PATH),
        Patch(label="changed sides", **MOVED),
        Line2D([], [], linestyle="", marker=r"$\rightarrow$", markersize=20, color="black", label="uphill of the loss"),
    ]


def boundary(machine: Machine, **look: object) -> Line2D:
    r"""The line $w \cdot x + b = 0$, from far outside of the square to far outside."""
    foot = -machine.b * machine.w / (machine.w @ machine.w)
    along = np.array([-machine.w[1], machine.w[0]]) / np.linalg.norm(machine.w)
    reach = 2 + np.linalg.norm(foot)
    return Line2D(*np.array([foot - reach * along, foot + reach * along]).T, **look)


def poison(x: np.ndarray, label: int, size: float) -> list[Line2D]:
    """The mark of a poison, and on it that of its label."""
    at = x[:, None]
    shape = {"linestyle": "", "color": INK, "markersize": 0.45 * size, "markeredgewidth": 1, **SHAPES[label]}
    return [Line2D(*at, markersize=size, **POISON), Line2D(*at, **shape)]


def changed(one: Machine, other: Machine) -> list[np.ndarray]:
    """The parts of the square on which two machines disagree: polygons `(V, 2)`."""
    square = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    parts = [cut(cut(square, sign * one.w, sign * one.b), -sign * other.w, -sign * other.b) for sign in (1, -1)]
    return [part for part in parts if len(part) > 2]


def cut(polygon: np.ndarray, w: np.ndarray, b: float) -> np.ndarray:
    r"""The part of a convex polygon `(V, 2)` with $w \cdot x + b \ge 0$.

    >>> cut(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), np.array([1.0, 0.0]), -0.5).tolist()
    [[0.5, 0.0], [1.0, 0.0], [0.5, 0.5]]
    """
    kept: list[np.ndarray] = []
    for start, end in pairwise([*polygon, *polygon[:1]]):
        f_start, f_end = start @ w + b, end @ w + b
        if f_start >= 0:
            kept.append(start)
        if f_start * f_end < 0:
            kept.append(start + (end - start) * f_start / (f_start - f_end))
    return np.array(kept).reshape(-1, 2)


def render(scene: Scene, effect: Effect) -> Figure:
    """The plane with the boundary without and with the poison, beside the map of the loss over its places.

    Args:
        scene: of everything but the place.
        effect: of the poison at its place.
    Returns:
        the figure. Its parts have names (gid): on the plane "boundary", "changed" (each polygon), "poison" and its
        "label"; "path" and, unless the gradient is 0, "arrow" once a panel; on the map "present"; above them the words
        "error" and "loss".
    """
    behind, x, now, clean = backdrop(scene), effect.path[-1], effect.machine, scene.clean
    with styled():
        fig = behind.picture()
        for name in ("plane", "map"):
            ax = behind.axes[name]
            inside = Bbox(ax.bbox.extents.reshape(2, 2))
            path = Line2D(*effect.path.T, markersize=7, gid="path", zorder=3, **PATH)
            lay(fig, ax.transData, inside, [path])
            if effect.slope > 0:
                ends = {"posA": x, "posB": x + REACH * effect.gradient / effect.slope}
                arrow = FancyArrowPatch(**ends, transform=ax.transData, gid="arrow", color="black", zorder=4, **ARROW)
                fig.add_artist(arrow)
        plane = behind.axes["plane"]
        areas = [Polygon(part, gid="changed", zorder=1, **MOVED) for part in changed(clean, now)]
        line = boundary(now, gid="boundary", zorder=2, **POISONED)
        lay(fig, plane.transData, Bbox(plane.bbox.extents.reshape(2, 2)), [*areas, line])
        for order, (mark, gid) in enumerate(zip(poison(x, scene.label, 24), ("poison", "label"), strict=True)):
            mark.set(transform=plane.transData, gid=gid, zorder=5 + order)
            fig.add_artist(mark)
        present = Line2D(*x[:, None], markersize=24, gid="present", zorder=5, **POISON)
        present.set_transform(behind.axes["map"].transData)
        fig.add_artist(present)
        words = {
            "plane": ("error", f"test error {percent(now.error)}; clean {percent(clean.error)}"),
            "map": ("loss", f"validation loss {now.loss:.3f}; clean {clean.loss:.3f}"),
        }
        for name, (gid, text) in words.items():
            corner = behind.axes[name].transAxes
            fig.text(0.04, 1.075, text, transform=corner, fontsize=17, weight="bold", va="bottom", gid=gid)
    return fig


def percent(share: float) -> str:
    """A share in words.

    >>> percent(0.1234)
    '12.3 %'
    """
    return f"{100 * share:.1f} %"


def verdict(scene: Scene, effect: Effect) -> str:
    """In words: what the poison changes, what the gradient says, and whether the errors follow the loss."""
    name, clean, now = scene.data.classes[scene.label], scene.clean, effect.machine
    called = f"The poison is labeled “{name}”."
    gain = now.loss - scene.before.loss
    if abs(gain) < SAME and effect.slope == 0:
        change = "Here it changes nothing: the machine reads it rightly, outside of its margin."
        change += " The gradient is 0, so that a walk cannot start; move it to where it is misread."
    else:
        change = (
            f"Here it {'raises' if gain > 0 else 'lowers'} the validation loss from {scene.before.loss:.3f} to "
            f"{now.loss:.3f}; the highest on the map is {scene.losses.max():.3f}."
        )
        if effect.slope == 0:
            change += " The gradient is 0: other points hold the boundary in place, however the poison moves a little."
        elif len(effect.path) == 1:
            change += " Press Play, and the poison walks along the arrow."
    poisons = f"With {scene.share} poisoned, the test error goes from {percent(clean.error)} to {percent(now.error)}."
    if now.error <= clean.error and now.loss > clean.loss + SAME:
        poisons += " The loss that the attacker climbs rises, and the errors do not."
    return " ".join([called, change, poisons])


def describe(scene: Scene, effect: Effect) -> str:
    """The picture for somebody who cannot see it."""
    at, uphill = ("({:.2f}, {:.2f})".format(*vector) for vector in (effect.path[-1], effect.gradient))
    row, column = np.unravel_index(scene.losses.argmax(), scene.losses.shape)
    way = "" if len(effect.path) == 1 else " It came from ({:.2f}, {:.2f}).".format(*effect.path[0])
    earlier = f", {scene.earlier} earlier poisons" if scene.earlier else ""
    return (
        f"The unit square with {POINTS} training points of the moons{earlier}, and a poison at {at} labeled "
        f"“{scene.data.classes[scene.label]}”.{way} The boundary of a linear support vector machine with "
        f"C = {scene.cost:g}, trained without poison (dashed) and with it (solid). The gradient of the validation loss "
        f"at the poison is {uphill}. A map of that loss over all places of the poison, highest at "
        f"({PLACES[column]:g}, {PLACES[row]:g})."
    )


def poison_explorer() -> Explorable:
    """The explorable: move a poison over the plane, or let it walk up the gradient, and watch the boundary follow.

    Returns:
        the widget.
    """
    labels = [(name, label) for label, name in enumerate(load("moons").classes)]
    places = [(f"{place:.2f}", place) for place in PLACES]
    counts = [(str(count), count) for count in EARLIER]
    controls = {
        "label": widgets.Dropdown(description="labeled", options=labels, value=1),
        "cost": widgets.Dropdown(description="C", options=[(f"{cost:g}", cost) for cost in COSTS], value=5.0),
        "earlier": widgets.Dropdown(description="earlier", options=counts, value=0),
        "x_1": widgets.SelectionSlider(description="horizontal", options=places, value=0.5),
        "x_2": widgets.SelectionSlider(description="vertical", options=places, value=0.7),
        "step": widgets.IntSlider(description="walk", min=0, max=STEPS, value=0),
    }
    play = widgets.Play(min=0, max=STEPS, value=0, interval=300, description="Let the poison walk")
    widgets.jslink((play, "value"), (controls["step"], "value"))

    def adapt(name: str) -> None:
        if name != "step":
            controls["step"].value = 0

    def of_effect(show: Callable[[Scene, Effect], object]) -> Callable[..., object]:
        def shown(label: int, cost: float, earlier: int, **place: float) -> object:
            around = scene(label, cost, earlier)
            return show(around, effect(around, **place))

        return shown

    return Explorable(
        of_effect(render),
        controls,
        alt=of_effect(describe),
        caption=of_effect(verdict),
        slow=("label", "cost", "earlier"),
        adapt=adapt,
        beside=[play],
    )

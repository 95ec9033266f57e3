"""The moons explorer: a model of two inputs, so that its boundary, the eps-ball and the attack's walk can be seen."""

from collections.abc import Callable
from functools import lru_cache

import ipywidgets as widgets
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, FancyArrowPatch, Patch, PathPatch, Rectangle
from matplotlib.transforms import Affine2D, Bbox, Transform

from spai_lab.figures import sayings
from spai_lab.style import COLORS, MARKERS, Backdrop, panels, styled
from spai_lab.widgets.choices import ATTACK_NAMES, NORM_NAMES, invert
from spai_lab.widgets.explorable import Explorable
from spai_lab.widgets.moons_walk import SLACK, Walk, plane, walk_from

EPS = tuple(round(0.02 * step, 2) for step in range(16))
INK = "#333333"
LAND = ("#f0f0f0", "#c6c6c6")  # one gray for each answer: colors mean clean and adversarial
SHAPES = ({"marker": "^", "markerfacecolor": "white"}, {"marker": "v", "markerfacecolor": INK})


PANEL = 4.75  # inches
PLACES = {"square": (0.65, 1.15, PANEL, PANEL), "zoom": (6.1, 1.15, PANEL, PANEL)}
ROOM = 1.2  # half the width of the enlarged part, in radii of the ball
SMALLEST = 0.02  # the radius that is enlarged at eps 0


@lru_cache(maxsize=1)
def backdrop() -> Backdrop:
    """What no control changes: the square with its two regions and all points, and the legend."""
    square = plane()
    fig, axes = panels(11.1, 6.65, **PLACES)
    with styled():
        for name, width in (("square", 1), ("zoom", 2)):
            for spine in axes[name].spines.values():
                spine.set(visible=True, color=INK, linewidth=width)
        axes["zoom"].set(xlim=(-ROOM, ROOM), ylim=(-ROOM, ROOM), xticks=[], yticks=[])
        axes["zoom"].patch.set(hatch="/", edgecolor=LAND[1], linewidth=0)
        ax = axes["square"]
        ax.patch.set_visible(False)
        draw_plane(fig, ax.transData, ax.bbox, size=6)
        ax.set(xlabel="$x_1$", ylabel="$x_2$", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        ax.set_title("the whole square", fontsize=16)
        for corner, sides in (((0.02, 0.98), ("left", "top")), ((0.98, 0.02), ("right", "bottom"))):
            answer = int(square.model(torch.tensor(corner).reshape(1, 2, 1, 1)).argmax())
            words = f"“{square.classes[answer]}”"
            ax.text(*corner, words, ha=sides[0], va=sides[1], fontsize=16, weight="bold", color=INK)
        handles = [
            Line2D([], [], linestyle="", color=COLORS[role], marker=MARKERS[role], markersize=13, label=label)
            for role, label in (("clean", "chosen point"), ("adversarial", "adversarial point"))
        ]
        handles += [
            Line2D([], [], linestyle="", color=INK, markersize=9, label=name, **shape)
            for name, shape in zip(square.classes, SHAPES, strict=True)
        ]
        handles += [
            Line2D([], [], color="black", linewidth=2.5, label="boundary"),
            Line2D([], [], color=INK, linewidth=2, linestyle="--", label="eps-ball"),
        ]
        fig.legend(
            handles=handles, loc="lower center", ncols=6, fontsize=13, handletextpad=0.3, columnspacing=1.3,
            handlelength=1.4,
        )  # fmt: skip
    return Backdrop.of(fig, axes)


def draw_plane(fig: Figure, place: Transform, window: Bbox, *, size: float) -> None:
    """The two regions, the boundary between them and the test points, as far as they lie in the window."""
    square = plane()
    artists = [
        Rectangle((0, 0), 1, 1, facecolor=LAND[0], edgecolor="none", zorder=-0.9),
        PathPatch(square.region, facecolor=LAND[1], edgecolor="none", zorder=-0.8),
        PathPatch(square.boundary, fill=False, edgecolor="black", linewidth=2.5, zorder=-0.6),
    ]
    for label, shape in enumerate(SHAPES):
        points = square.x[square.y == label].flatten(1).T
        artists.append(
            Line2D(*points, linestyle="", color=INK, markersize=size, markeredgewidth=0.8, zorder=-0.7, **shape)
        )
    lay(fig, place, window, artists)


def lay(fig: Figure, place: Transform, window: Bbox, artists: list[Patch | Line2D]) -> None:
    """Add artists to a figure, in the coordinates of `place` and cut off at the edge of `window`."""
    for artist in artists:
        artist.set(transform=place, clip_box=window)
        fig.add_artist(artist)


def render(walk: Walk, step: int) -> Figure:
    """The walk up to a step: in the whole square, and in the enlarged ball.

    Args:
        walk: an attack on a point of the plane.
        step: 0 to the number of its steps.
    Returns:
        the figure. Its parts have names (gid), each once a panel: "square ball", "square path", "square clean",
        "square adversarial", the same for "zoom"; above the enlarged ball the words "answer".
    Raises:
        ValueError: names the argument.
    """
    check_step(walk, step)
    behind = backdrop()
    radius = max(walk.eps, SMALLEST)
    enlarge = Affine2D().translate(*-walk.x.double().numpy()).scale(1 / radius)
    square, zoom = behind.axes["square"].transData, enlarge + behind.axes["zoom"].transData
    frame = behind.axes["zoom"].bbox.frozen()
    inside = Bbox.intersection(frame, zoom.transform_bbox(Bbox.unit()))
    with styled():
        fig = behind.picture()
        draw_plane(fig, zoom, inside, size=11)
        draw_walk(fig, "square", square, behind.axes["square"].bbox.frozen(), walk, step, size=13)
        draw_walk(fig, "zoom", zoom, inside, walk, step, size=17)
        corner = behind.axes["zoom"].transAxes
        fig.text(0, 1.09, f"step {step} of {walk.steps}", transform=corner, fontsize=16, va="bottom")
        says = sayings(walk.probabilities[[step]], plane().classes)[0]
        fooled = walk.fooled[step]
        fig.text(
            *(0, 1.015, f"says {says}: {'fooled' if fooled else 'not fooled'}"),
            transform=corner, fontsize=16, weight="bold", va="bottom", gid="answer",
            color=COLORS["adversarial" if fooled else "clean"],
        )  # fmt: skip
        larger = f"enlarged × {1 / (2 * ROOM * radius):.2g}"
        fig.text(1, -0.015, larger, transform=corner, fontsize=13, ha="right", va="top")
    return fig


def draw_walk(fig: Figure, name: str, place: Transform, window: Bbox, walk: Walk, step: int, *, size: float) -> None:
    """The ball, the path up to the step, and the point before and after, as far as they lie in the unit square."""
    path = walk.path[: step + 1].numpy()
    markers = {"linestyle": "", "markeredgecolor": "white", "markeredgewidth": 1.2}
    color = COLORS["adversarial"]
    artists: list[Patch | Line2D] = [ball(walk, gid=f"{name} ball")]
    if walk.steps > 1:
        artists.append(Line2D(*path.T, color=color, linewidth=2.5, marker=".", markersize=size / 2, gid=f"{name} path"))
    elif step == 1 and walk.eps > 0:
        ends = {"posA": path[0], "posB": path[1], "shrinkA": size / 2, "shrinkB": size / 2}
        head = {"arrowstyle": "-|>", "mutation_scale": 1.2 * size, "linewidth": 2.5}
        artists.append(FancyArrowPatch(**ends, **head, color=color, gid=f"{name} path"))
    for role, point, larger in (("clean", walk.x.numpy(), 1.15), ("adversarial", path[-1], 1.0)):
        look = {"marker": MARKERS[role], "color": COLORS[role], "markersize": larger * size, **markers}
        artists.append(Line2D(*point[:, None], **look, gid=f"{name} {role}"))
    for order, artist in enumerate(artists):
        artist.set_zorder(2 + order)
    lay(fig, place, window, artists)
    for marker in artists[-2:]:
        marker.set_clip_on(False)


def ball(walk: Walk, gid: str) -> Patch:
    """The outline of what the attack may reach: a square in L-inf, a circle in L2."""
    x, eps = walk.x.numpy(), walk.eps
    look = {"fill": False, "edgecolor": INK, "linewidth": 2, "linestyle": "--", "gid": gid}
    return Rectangle(x - eps, 2 * eps, 2 * eps, **look) if walk.norm == "linf" else Circle(x, eps, **look)


def check_step(walk: Walk, step: int) -> None:
    """`step` is one of the walk's."""
    if step not in range(walk.steps + 1):
        raise ValueError(f"step is {step!r}; accepted: 0 to {walk.steps}")


def verdict(walk: Walk, step: int, distance: float) -> str:
    """In words: whether and when the model was fooled, and whether the ball holds anything that could fool it.

    Args:
        walk: an attack on a point.
        step: 0 to the number of its steps.
        distance: from the point to the boundary, in the norm of the walk.
    Returns:
        a few sentences.
    Raises:
        ValueError: names the argument.
    """
    check_step(walk, step)
    name = ATTACK_NAMES[walk.attack].partition(",")[0]
    where = f"The boundary is {distance:.3f} away in {NORM_NAMES[walk.norm]}"
    if walk.first is None and walk.eps < distance - SLACK:
        outcome = f"{where}, so a ball of eps {walk.eps:g} does not reach it: no attack inside can fool the model."
    elif walk.first is None and walk.eps < distance + SLACK:
        outcome = (
            f"{where}: a ball of eps {walk.eps:g} ends just there, and {name} finds no point that fools the model."
        )
    elif walk.first is None:
        outcome = f"{where}, within reach of eps {walk.eps:g}, yet {name} never finds a point that fools the model."
    elif walk.first == 0:
        outcome = f"{where}. {name} starts at a point that fools the model already."
    else:
        outcome = f"{where}. {name} crosses it at step {walk.first} of {walk.steps}."
    if walk.first is not None and not walk.fooled[-1]:
        outcome += " It wanders back later: the result does not fool the model."
    hint = " Press Play and watch the walk." if step == walk.steps > 1 else ""
    leaves = bool(((walk.x - walk.eps < 0) | (walk.x + walk.eps > 1)).any())
    outside = "Hatched: outside [0, 1], where there are no inputs." if leaves else ""
    return " ".join(filter(None, [outcome + hint, outside, walk.note]))


def picture_in_words(walk: Walk, step: int) -> str:
    """The picture for somebody who cannot see it."""
    check_step(walk, step)
    classes = plane().classes
    start, says = sayings(walk.probabilities[[0, step]], classes)
    shape = {"linf": "square", "l2": "circle"}[walk.norm]
    ends = "is fooled" if walk.fooled[step] else "is not fooled"
    at = "({:.2f}, {:.2f})".format
    return (
        f"The unit square, divided by the MLP into {' and '.join(classes)}; around a point of the {classes[walk.y]} "
        f"at {at(*walk.x)}, the eps-ball of {NORM_NAMES[walk.norm]}, a {shape} of radius {walk.eps:g}. "
        f"{ATTACK_NAMES[walk.attack]}, starts at {at(*walk.path[0])}, where the model says {start}; "
        f"after step {step} it is at {at(*walk.path[step])}, the model says {says} and {ends}."
    )


def moons_explorer() -> Explorable:
    """The explorable: choose a point and an attack, and watch the walk to the boundary step by step.

    Returns:
        the widget.
    """
    attack, norm, eps, point = "bim", "linf", 0.14, 9
    steps = walk_from(point, attack, norm, eps).steps
    controls = {
        "attack": widgets.Dropdown(description="attack", options=invert(ATTACK_NAMES), value=attack),
        "norm": widgets.Dropdown(description="norm", options=invert(NORM_NAMES), value=norm),
        "point": widgets.SelectionSlider(description="point", options=point_options(), value=point),
        "eps": widgets.SelectionSlider(description="eps", options=[(f"{eps:g}", eps) for eps in EPS], value=eps),
        "step": widgets.IntSlider(description="step", min=0, max=steps, value=steps),
    }
    play = widgets.Play(min=0, max=steps, value=steps, interval=500, description="Play the walk")
    widgets.link((controls["step"], "max"), (play, "max"))
    widgets.jslink((play, "value"), (controls["step"], "value"))

    def adapt(name: str) -> None:
        if name == "attack":
            values = {key: controls[key].value for key in ("point", "attack", "norm", "eps")}
            controls["step"].max = walk_from(**values).steps
            controls["step"].value = controls["step"].max

    def of_walk(show: Callable[..., object]) -> Callable[..., object]:
        return lambda step, **setting: show(walk_from(**setting), step)

    return Explorable(
        of_walk(render),
        controls,
        alt=of_walk(picture_in_words),
        caption=lambda step, point, norm, **setting: verdict(
            walk_from(point=point, norm=norm, **setting), step, plane().distance[norm][point]
        ),
        adapt=adapt,
        beside=[play],
    )


def point_options() -> list[tuple[str, int]]:
    """The points, each with its number and its L2 distance from the boundary."""
    return [(f"{place + 1}: {gap:.2f} away", place) for place, gap in enumerate(plane().distance["l2"])]

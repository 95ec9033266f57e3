"""Two walks to the boundary of the moons: DeepFool's, which sees slopes, and that of attacks that see only labels."""

from collections.abc import Callable
from functools import lru_cache

import ipywidgets as widgets
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Patch, Rectangle
from matplotlib.transforms import Bbox

from spai_lab.figures import sayings
from spai_lab.style import COLORS, MARKERS, Backdrop, panels, styled
from spai_lab.widgets.approaches import CAP, DECISIONS, Approach, decision_from, deepfool_from
from spai_lab.widgets.choices import invert
from spai_lab.widgets.explorable import Explorable
from spai_lab.widgets.moons_explorer import INK, LAND, SHAPES, draw_plane, lay, point_options
from spai_lab.widgets.moons_walk import SLACK, plane

NAMES = {"deepfool": "DeepFool", "boundary": "the boundary attack", "hop_skip_jump": "HopSkipJump"}
NEAR = 0.05  # a result that is by this share farther than the boundary still counts as near
PANEL = 4.75  # inches
PLACES = {"square": (0.65, 1.35, PANEL, PANEL), "zoom": (6.1, 1.35, PANEL, PANEL)}
SMALLEST = 0.05  # half the width of the enlarged part is at least that
CHOSEN = {"linestyle": "", "marker": MARKERS["clean"], "color": COLORS["clean"]}
PRESENT = {"linestyle": "", "marker": MARKERS["adversarial"], "color": COLORS["adversarial"]}
PATH = {"color": COLORS["adversarial"], "linewidth": 2.2, "marker": "."}
DOTTED = {"color": "black", "linewidth": 2.6, "linestyle": ":"}
CIRCLE = {"color": INK, "linewidth": 2, "linestyle": "--"}
NOWHERE = {"facecolor": "white", "hatch": "/", "edgecolor": LAND[1], "linewidth": 0}
ASKED = ({"marker": ".", "color": COLORS["clean"]}, {"marker": "x", "color": COLORS["adversarial"]})


@lru_cache(maxsize=8)
def backdrop(approach: Approach) -> Backdrop:
    """What no step changes: both views with the regions and the point, the circle to the boundary, and the legend."""
    x, gap = approach.x.numpy(), approach.gap
    fig, axes = panels(11.1, 6.9, **PLACES)
    half = max(1.45 * gap, 1.2 * approach.distances[-1], SMALLEST)
    spans = {"square": ((0, 1), (0, 1)), "zoom": tuple((c - half, c + half) for c in x)}
    with styled():
        for name, (across, up) in spans.items():
            ax = axes[name]
            ax.set(xlim=across, ylim=up)
            ax.patch.set_visible(False)
            for spine in ax.spines.values():
                spine.set(visible=True, color=INK, linewidth=2 if name == "zoom" else 1)
            fig.add_artist(Rectangle((0, 0), 1, 1, transform=ax.transAxes, zorder=-0.95, **NOWHERE))
            inside = Bbox.intersection(ax.bbox.frozen(), ax.transData.transform_bbox(Bbox.unit()))
            draw_plane(fig, ax.transData, inside, size=6 if name == "square" else 10)
            circle = Circle(x, gap, fill=False, **CIRCLE)
            chosen = Line2D(*x[:, None], markersize=14, markeredgecolor="white", zorder=3, **CHOSEN)
            lay(fig, ax.transData, ax.bbox, [circle, chosen])
        square = axes["square"]
        square.set(xlabel="$x_1$", ylabel="$x_2$", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        square.set_title("the whole square", fontsize=16)
        axes["zoom"].set(xticks=[], yticks=[])
        leaves = bool((x < half).any() or (x > 1 - half).any())
        hatched = "; hatched: no inputs there" if leaves else ""
        axes["zoom"].set_xlabel(f"enlarged × {1 / (2 * half):.2g}{hatched}", loc="right")
        fig.legend(handles=legend(approach.asks), loc="lower center", ncols=4, columnspacing=1.6, handletextpad=0.5)
    return Backdrop.of(fig, axes)


def legend(asks: bool) -> list[Line2D]:
    """What each mark means, by columns of two."""
    names = plane().classes
    asked = [
        Line2D([], [], linestyle="", markersize=8, label=label, **look)
        for label, look in zip(("asked, read rightly", "asked, misread"), ASKED, strict=True)
    ]
    dotted = [
        Line2D([], [], label="boundary, were the model linear", **DOTTED),
        Line2D([], [], label="its path", **PATH),
    ]
    return [
        Line2D([], [], markersize=13, label="chosen point", **CHOSEN),
        Line2D([], [], markersize=13, label="where the attack is", **PRESENT),
        *(
            Line2D([], [], linestyle="", color=INK, markersize=9, label=name, **shape)
            for name, shape in zip(names, SHAPES, strict=True)
        ),
        Line2D([], [], color="black", linewidth=2.5, label="boundary"),
        Line2D([], [], label="distance to the boundary", **CIRCLE),
        *(asked if asks else dotted),
    ]


def render(approach: Approach, step: int) -> Figure:
    """An approach up to a step: in the whole square, and enlarged around the point.

    Args:
        approach: of an attack to a point of the plane.
        step: 0 to the number of its steps.
    Returns:
        the figure. Its parts have names (gid), each once a panel: "square path", "square present", the same for
        "zoom"; for DeepFool, "square dotted" while there is a next step; for the others, "square asked 0" (read
        rightly) and "square asked 1" (misread). Above the enlarged part are the words "answer" and "count".
    Raises:
        ValueError: names the argument.
    """
    check_step(approach, step)
    behind = backdrop(approach)
    with styled():
        fig = behind.picture()
        for name, size in (("square", 13), ("zoom", 16)):
            ax = behind.axes[name]
            artists = marks(approach, step, size)
            for order, (part, artist) in enumerate(artists.items()):
                artist.set(gid=f"{name} {part}", zorder=2 + order)
            inside = Bbox.intersection(ax.bbox.frozen(), ax.transData.transform_bbox(Bbox.unit()))
            lay(fig, ax.transData, inside, list(artists.values()))
        corner = behind.axes["zoom"].transAxes
        count = f"step {step} of {approach.steps}"
        if approach.asks:
            count += f", {counted(int(approach.spent[step]))}"
        fig.text(0, 1.09, count, transform=corner, fontsize=16, va="bottom", gid="count")
        says, fooled = sayings(approach.probabilities[[step]], plane().classes)[0], approach.fooled[step]
        color = COLORS["adversarial" if fooled else "clean"]
        answer = {"transform": corner, "fontsize": 16, "weight": "bold", "va": "bottom", "color": color}
        fig.text(0, 1.015, f"says {says}: {'misread' if fooled else 'read rightly'}", gid="answer", **answer)
    return fig


def marks(approach: Approach, step: int, size: float) -> dict[str, Patch | Line2D]:
    """What changes with the step, from the lowest layer to the topmost."""
    marked = {}
    asked = approach.asked[: approach.spent[step]]
    misread = approach.misread[: approach.spent[step]]
    if approach.asks:
        for answer, look in enumerate(ASKED):
            dots = asked[misread == bool(answer)].T.numpy()
            marked[f"asked {answer}"] = Line2D(*dots, linestyle="", markersize=size / 3, alpha=0.8, **look)
    elif step < approach.steps:
        marked["dotted"] = Line2D(*linearized(approach, step).T, **DOTTED)
    marked["path"] = Line2D(*approach.path[: step + 1].T.numpy(), markersize=size / 2, **PATH)
    marked["present"] = Line2D(
        *approach.path[step][:, None].numpy(), markersize=size, markeredgecolor="white", markeredgewidth=1.2, **PRESENT
    )
    return marked


def linearized(approach: Approach, step: int) -> np.ndarray:
    r"""Two ends of the line $f' + w' \cdot (x - x_k) = 0$, far outside of the square, `(2, 2)`."""
    f, w = approach.values[step].double(), approach.slopes[step].double()
    foot = approach.path[step] - f * w / w.square().sum()
    along = w.flip(0) * w.new_tensor([-1, 1]) / w.norm()
    return (foot + w.new_tensor([[-3], [3]]) * along).numpy()


def check_step(approach: Approach, step: int) -> None:
    """`step` is one of the approach's."""
    if step not in range(approach.steps + 1):
        raise ValueError(f"step is {step!r}; accepted: 0 to {approach.steps}")


def counted(queries: int) -> str:
    """A number of queries in words.

    >>> counted(1), counted(1000)
    ('1 query', '1,000 queries')
    """
    return f"{queries:,} {'query' if queries == 1 else 'queries'}"


def verdict(approach: Approach, step: int) -> str:
    """In words: how far the attack has come, how far the boundary is, and what that says of the attack."""
    check_step(approach, step)
    name, distance, gap = NAMES[approach.attack], approach.distances[step], approach.gap
    reach = f"{distance:.3f} from the chosen point; the boundary is {gap:.3f} away in L2"
    if not approach.asks:
        if step < approach.steps:
            return (
                f"DeepFool is {reach}. It takes the model for linear, with the dotted line as its boundary, and steps "
                "straight across that line."
            )
        return f"DeepFool stops, since the point is misread: {reach}. {judged(approach)}"
    spent = counted(int(approach.spent[step]))
    if step < approach.steps:
        return f"After {spent} {name} holds a misread point {reach}."
    return f"After {spent} (of at most {CAP:,}) {name} ends {reach}. {judged(approach)}"


def judged(approach: Approach) -> str:
    """In words: how the result compares with the shortest way there is."""
    excess = approach.distances[-1] / approach.gap - 1
    if approach.distances[-1] <= (1 + NEAR) * approach.gap + SLACK:
        return "No way is much shorter."
    reason = "the model is not linear, so that straight steps do not take the shortest way"
    if approach.asks:
        reason = "who keeps only what is nearer can end at another part of the boundary, or run out of queries"
    return f"That is {100 * excess:.0f} % farther than necessary: {reason}."


def picture_in_words(approach: Approach, step: int) -> str:
    """The picture for somebody who cannot see it."""
    check_step(approach, step)
    classes, name = plane().classes, NAMES[approach.attack]
    says = sayings(approach.probabilities[[step]], classes)[0]
    x, first, here = ("({:.2f}, {:.2f})".format(*at) for at in (approach.x, approach.path[0], approach.path[step]))
    return (
        f"The unit square, divided by the MLP into {' and '.join(classes)}; around a point of the "
        f"{classes[approach.y]} at {x}, a circle of radius {approach.gap:.3f} that touches the boundary. "
        f"The walk of {name} starts at {first}; after step {step} of {approach.steps} it is at {here}, "
        f"{approach.distances[step]:.3f} from the point, and the model says {says}."
    )


def deepfool_walk() -> Explorable:
    """The explorable: DeepFool's iterates to the boundary of the moons, and the straight boundary that each one sees.

    Returns:
        the widget.
    """
    return walking({"point": point_slider(13)}, deepfool_from, interval=1200)


def boundary_walk() -> Explorable:
    """The explorable: how the boundary attack and HopSkipJump find the boundary of the moons from labels alone.

    Returns:
        the widget.
    """
    names = {name: NAMES[name].removeprefix("the ") for name in DECISIONS}
    attack = widgets.Dropdown(description="attack", options=invert(names), value="boundary")
    return walking({"attack": attack, "point": point_slider(15)}, decision_from, interval=250, slow=("attack", "point"))


def point_slider(point: int) -> widgets.SelectionSlider:
    """The choice of the starting point."""
    return widgets.SelectionSlider(description="point", options=point_options(), value=point)


def walking(
    controls: dict[str, widgets.ValueWidget],
    find: Callable[..., Approach],
    *,
    interval: int,
    slow: tuple[str, ...] = (),
) -> Explorable:
    """The explorable with these controls, and one for the step with a button that plays the walk.

    Args:
        controls: of the arguments of `find`.
        find: from the controls' values to the approach.
        interval: milliseconds a step.
        slow: names of the controls after which the reader waits.
    """
    first = {name: control.value for name, control in controls.items()}
    steps = find(**first).steps
    controls = {**controls, "step": widgets.IntSlider(description="step", min=0, max=steps, value=0)}
    play = widgets.Play(min=0, max=steps, value=0, interval=interval, description="Play the walk")
    widgets.link((controls["step"], "max"), (play, "max"))
    widgets.jslink((play, "value"), (controls["step"], "value"))

    def adapt(name: str) -> None:
        if name in first:
            controls["step"].value = 0
            controls["step"].max = find(**{name: controls[name].value for name in first}).steps

    return Explorable(
        lambda step, **setting: render(find(**setting), step),
        controls,
        alt=lambda step, **setting: picture_in_words(find(**setting), step),
        caption=lambda step, **setting: verdict(find(**setting), step),
        slow=slow,
        adapt=adapt,
        beside=[play],
    )

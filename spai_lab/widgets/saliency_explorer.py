"""JSMA pixel by pixel: the image so far, the saliency map that chooses the next pixel, and what the model says."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import ipywidgets as widgets
import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from torch import Tensor, nn

from spai_lab.attacks.evasion import jsma
from spai_lab.attacks.evasion.saliency import saliency_map, target_and_others
from spai_lab.style import COLORS, MARKERS, SEQUENTIAL, Backdrop, frame, image_colors, outcome, panels, styled
from spai_lab.training import reference
from spai_lab.widgets.choices import starting_dataset, well_read_image, well_read_options
from spai_lab.widgets.explorable import Explorable

GAMMA = 0.145


class Watched(nn.Module):
    """A model that keeps each image it is shown, unless it is the same as the one before.

    >>> model = Watched(nn.Flatten())
    >>> for gray in (0.0, 0.0, 0.5):
    ...     _ = model(torch.full((1, 1, 2, 2), gray))
    >>> len(model.path)
    2
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.path: list[Tensor] = []
        self.train(model.training)

    def forward(self, x: Tensor) -> Tensor:
        if not self.path or not torch.equal(self.path[-1], x):
            self.path.append(x.detach().clone())
        return self.model(x)


@dataclass(frozen=True, eq=False)
class Steps:
    """What JSMA did to one image, one pixel a step.

    Args:
        dataset: its name.
        classes: names of the K classes.
        y: true label.
        target: the class that JSMA aims at.
        path: the image after 0, 1, ... S pixels, `(1 + S, C, H, W)`.
        maps: the saliency of the pixels that can still move, like `path`; 0 for the others.
        probabilities: what the model says, `(1 + S, K)`.
        x_adv: what `jsma` returns, `(C, H, W)`: the end of the path, or the original if it gave up.
    """

    dataset: str
    classes: tuple[str, ...]
    y: int
    target: int
    path: Tensor
    maps: Tensor
    probabilities: Tensor
    x_adv: Tensor

    @property
    def last(self) -> int:
        """S, the number of steps."""
        return len(self.path) - 1

    @property
    def reached(self) -> bool:
        """Whether the model takes the last image for the target."""
        return int(self.probabilities[-1].argmax()) == self.target

    def places(self, step: int) -> list[tuple[int, int]]:
        """Row and column of the pixels that changed in the first `step` steps."""
        return (self.path[step] != self.path[0]).any(0).nonzero().tolist()

    def next(self, step: int) -> tuple[int, int] | None:
        """Row and column of the most salient pixel, which changes next; None at the end of the path."""
        saliency = self.maps[step, 0]
        return divmod(int(saliency.argmax()), saliency.shape[1]) if step < self.last else None


@lru_cache(maxsize=50)
@torch.no_grad()
def steps(dataset: str, image: int, target: int) -> Steps:
    """Run JSMA on LeNet with one pixel a step, and keep what it looks at.

    Args:
        dataset: "digits" or "mnist".
        image: one of those that LeNet reads rightly, as `choices.well_read` lists them.
        target: the class to aim at, not the image's own.
    Returns:
        the steps; the last fifty runs are kept.
    Raises:
        ValueError: names the argument.
    """
    x, y, classes = well_read_image(dataset, image)
    accepted = [k for k in range(len(classes)) if k != int(y)]
    if target not in accepted:
        raise ValueError(f"target is {target!r}; accepted: {', '.join(map(str, accepted))}")
    victim = reference("lenet", dataset).eval()
    watched, aim = Watched(victim), torch.tensor([target])
    x_adv = jsma(watched, x, aim, gamma=GAMMA, pixels=1, targeted=True)
    path = torch.cat(watched.path)
    slopes = target_and_others(victim, path, aim.expand(len(path)), "probabilities")
    maps = saliency_map(slopes, torch.zeros(len(path), dtype=torch.int64)) * (path < 1)
    return Steps(dataset, classes, int(y), target, path, maps, victim(path).softmax(1), x_adv[0])


IMAGE = 3.08  # inches: 11 screen pixels for each of the image's 28
PLACES = {
    "image": (0.2, 0.6, IMAGE, IMAGE),
    "saliency": (3.5, 0.6, IMAGE, IMAGE),
    "probability": (7.45, 0.75, 3.15, IMAGE - 0.15),
}
OUTLINED = [withStroke(linewidth=4, foreground="white")]


@lru_cache(maxsize=50)
def backdrop(steps: Steps) -> Backdrop:
    """What the step does not change: frames, and the probabilities of the true class and of the target."""
    fig, axes = panels(11.2, 4.15, **PLACES)
    with styled():
        frame(axes["image"], "adversarial", width=6)
        frame(axes["saliency"], "baseline", width=6)
        side = steps.path.shape[-1]
        for name in ("image", "saliency"):
            axes[name].set(xlim=(-0.5, side - 0.5), ylim=(side - 0.5, -0.5))
        ax = axes["probability"]
        for role, k, name in (("clean", steps.y, "true class"), ("adversarial", steps.target, "target")):
            values = steps.probabilities[:, k].tolist()
            label = f"{steps.classes[k]}, the {name}"
            ax.plot(values, color=COLORS[role], marker=MARKERS[role], markersize=5, label=label)
        ax.set(xlim=(-0.03 * steps.last, 1.03 * steps.last), ylim=(-0.03, 1.03), xlabel="pixels changed")
        ax.set_yticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.legend(loc="lower left", bbox_to_anchor=(-0.2, 1), ncols=2, columnspacing=1.0, handletextpad=0.4)
    return Backdrop.of(fig, axes)


def render(steps: Steps, step: int) -> Figure:
    """The image after some pixels, the saliency map that it has, and where it is on the curves.

    Args:
        steps: the run.
        step: how many pixels were changed, 0 to S.
    Returns:
        the figure. Its parts have names (gid): "image" and "saliency", what is said under them "says image" and
        "says saliency", "changed" (a square around each changed pixel), "next" (one around the most salient pixel), and
        "present true class" and "present target" on the curves.
    Raises:
        ValueError: names the argument.
    """
    check_step(steps, step)
    saliency = steps.maps[step, 0]
    shades = (saliency / saliency.max().clamp_min(torch.finfo(saliency.dtype).tiny)).sqrt().numpy()
    behind = backdrop(steps)
    role, _ = outcome(int(steps.probabilities[step].argmax()) != steps.y)
    with styled():
        fig = behind.picture()
        behind.lay_frame(fig, "image", role)
        behind.lay_image(fig, "image", image_colors(steps.path[step]), gid="image")
        behind.lay_image(fig, "saliency", mpl.colormaps[SEQUENTIAL](shades, bytes=True), gid="saliency")
        titles = {"image": counted(step), "saliency": "saliency, square root"}
        says = f"the model says {saying(steps, step)}"
        chosen = steps.next(step)
        salient = "framed: the next pixel" if chosen else "no pixel comes next"
        below = {"image": (says, {"color": COLORS[role], "weight": "bold"}), "saliency": (salient, {})}
        for name, (words, look) in below.items():
            look |= {"transform": behind.axes[name].transAxes, "ha": "center", "fontsize": 15}
            fig.text(0.5, 1.03, titles[name], transform=look["transform"], ha="center", fontsize=15)
            fig.text(0.5, -0.04, words, va="top", gid=f"says {name}", **look)
        mark(fig, behind, "image", steps.places(step), "changed")
        mark(fig, behind, "saliency", [chosen] if chosen else [], "next")
        draw_present(fig, behind, steps, step)
    return fig


def mark(fig: Figure, behind: Backdrop, panel: str, places: list[tuple[int, int]], gid: str) -> None:
    """An outline around some pixels of an image."""
    if not places:
        return
    rows, columns = zip(*places, strict=True)
    outline = Line2D(columns, rows, linestyle="", marker="s", markersize=8, fillstyle="none", gid=gid)
    outline.set(color=COLORS["adversarial"], markeredgewidth=2, transform=behind.axes[panel].transData)
    fig.add_artist(outline)


def draw_present(fig: Figure, behind: Backdrop, steps: Steps, step: int) -> None:
    """The present step on the curves, with both probabilities written beside it."""
    place = behind.axes["probability"].transData
    fig.add_artist(Line2D([step, step], [-0.03, 1.03], color="black", linewidth=1.5, transform=place))
    left = step > steps.last / 2
    of_y, of_target = steps.probabilities[step, [steps.y, steps.target]].tolist()
    values = {"true class": of_y, "target": of_target}
    middle = (of_y + of_target) / 2
    apart = max(0.06, abs(of_target - middle))  # the higher one is written above the other
    for name, value in values.items():
        ring = Line2D([step], [value], color="black", marker="o", markersize=13, fillstyle="none", transform=place)
        ring.set(markeredgewidth=2, gid=f"present {name}")
        fig.add_artist(ring)
        height = middle + (apart if value == max(values.values()) else -apart)
        fig.text(
            step + (-0.04 if left else 0.04) * steps.last,
            min(max(height, 0.08), 0.92),
            f"{100 * value:.0f} %",
            ha="right" if left else "left",
            va="center",
            fontsize=15,
            weight="bold",
            transform=place,
            path_effects=OUTLINED,
        )


def counted(step: int) -> str:
    """How many pixels were changed, in words.

    >>> counted(1)
    '1 pixel changed'
    """
    return f"{step} pixel{'' if step == 1 else 's'} changed"


def saying(steps: Steps, step: int) -> str:
    """What the model says after a step, such as "3 (98 %)"."""
    confidence, answer = steps.probabilities[step].max(0)
    return f"{steps.classes[answer]} ({100 * confidence:.0f} %)"


def check_step(steps: Steps, step: int) -> None:
    """Raise `ValueError` unless the run has this step."""
    if step not in range(steps.last + 1):
        raise ValueError(f"step is {step!r}; accepted: 0 to {steps.last}")


def verdict(steps: Steps, step: int) -> str:
    """In words: what the next pixel is and why, or how the run ends."""
    check_step(steps, step)
    target, own = steps.classes[steps.target], steps.classes[steps.y]
    pixels = steps.path[0].numel()
    if step < steps.last:
        row, column = steps.next(step)
        return (
            f"Next, the pixel in row {row + 1}, column {column + 1} turns white. Of those that are not white yet it "
            f"raises the probability of {target} fastest, and so lowers that of the rest."
        )
    if steps.reached:
        share = f"{100 * len(steps.places(step)) / pixels:.1f} % of {pixels}"
        return f"{own} → {target} after {counted(step).removesuffix(' changed')} ({share}): the target is reached."
    return (
        f"JSMA gives up after {counted(step).removesuffix(' changed')}: it may change {100 * GAMMA:g} % of them, and "
        f"returns the image as it was."
    )


def describe(steps: Steps, step: int) -> str:
    """The picture for somebody who cannot see it."""
    check_step(steps, step)
    of_y, of_target = (f"{100 * float(steps.probabilities[step, k]):.0f} %" for k in (steps.y, steps.target))
    label, target = steps.classes[steps.y], steps.classes[steps.target]
    return (
        f"LeNet on {steps.dataset}, and a {label} that JSMA drives towards {target}, with {counted(step)} of "
        f"{steps.last}: the model says {saying(steps, step)}. Beside it the saliency map, and the probabilities along "
        f"the way, here {of_y} for the true class and {of_target} for the target."
    )


def saliency_explorer(dataset: str | None = None) -> Explorable:
    """The explorable: choose an image and a target, and watch JSMA change one pixel after the other.

    Args:
        dataset: "digits" or "mnist"; None takes the one that `load()` takes.
    Returns:
        the widget.
    Raises:
        ValueError: names the argument.
    """
    dataset = starting_dataset(dataset)
    images = well_read_options(dataset)
    targets = target_options(dataset, images[0][1])
    last = steps(dataset, images[0][1], targets[0][1]).last
    controls = {
        "image": widgets.Dropdown(description="image", options=images),
        "target": widgets.Dropdown(description="target", options=targets),
        "step": widgets.IntSlider(description="pixels", min=0, max=last, value=0),
    }
    play = widgets.Play(min=0, max=last, value=0, interval=500, description="Play the attack")
    widgets.link((controls["step"], "max"), (play, "max"))
    widgets.jslink((play, "value"), (controls["step"], "value"))

    def adapt(name: str) -> None:
        image, target, step = controls.values()
        if name == "image":
            before, target.options = target.value, target_options(dataset, image.value)
            if before in dict(target.options).values():
                target.value = before
        if name in ("image", "target"):
            step.value = 0
            step.max = steps(dataset, image.value, target.value).last

    def of_steps(show: Callable[[Steps, int], object]) -> Callable[..., object]:
        return lambda image, target, step: show(steps(dataset, image, target), step)

    return Explorable(
        of_steps(render),
        controls,
        alt=of_steps(describe),
        caption=of_steps(verdict),
        slow=("image", "target"),
        adapt=adapt,
        beside=[play],
    )


def target_options(dataset: str, image: int) -> list[tuple[str, int]]:
    """All classes but the image's own."""
    _, y, classes = well_read_image(dataset, image)
    return [(name, k) for k, name in enumerate(classes) if k != int(y)]

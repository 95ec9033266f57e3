"""The adversarial patch: move it over an image, and see at which places the model says what the patch wants."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Rectangle
from torch import Tensor

from spai_lab.attacks.evasion.patch import Patch, paste, patch
from spai_lab.data import load
from spai_lab.figures import sayings
from spai_lab.style import COLORS, SEQUENTIAL, Backdrop, frame, image_colors, outcome, panels, styled
from spai_lab.training import reference
from spai_lab.widgets.choices import image_options, offline_datasets, sample_images, starting_dataset
from spai_lab.widgets.explorable import Explorable

MODEL = "lenet"
TARGET = 3
SIZE = 15  # odd, so that the middle of the patch is the middle of a pixel
ANGLES = tuple(range(-90, 91, 15))
TURNED = 22.5  # degrees to either side, in training
IMAGES = 20


@lru_cache(maxsize=2)
def trained(dataset: str) -> Patch:
    """The patch that makes LeNet say `TARGET`, from training images."""
    generator = torch.Generator().manual_seed(0)
    settings = {"scales": (1.0, 1.0), "max_angle": TURNED, "steps": 80, "batch_size": 32, "step_size": 0.1}
    model = reference(MODEL, dataset).eval()
    return patch(model, load(dataset).x_train[:1000], target=TARGET, size=SIZE, generator=generator, **settings)


@dataclass(frozen=True, eq=False)
class Reach:
    """One image with the patch at every place, and what the model says of each.

    Args:
        dataset: its name.
        angle: by which the patch is turned, in degrees.
        classes: names of the K classes.
        y: true label of the image.
        x_adv: the image with the middle of the patch at row i and column j, `(H, W, C, H, W)`.
        probabilities: what the model says of each, `(H, W, K)`.
        clean: what it says of the image without the patch, `(K,)`.
    """

    dataset: str
    angle: int
    classes: tuple[str, ...]
    y: int
    x_adv: Tensor
    probabilities: Tensor
    clean: Tensor

    @property
    def target(self) -> Tensor:
        """The probability of the patch's target at each place, `(H, W)`."""
        return self.probabilities[..., TARGET]

    @property
    def reached(self) -> Tensor:
        """Where the model says the target, `(H, W)`."""
        return self.probabilities.argmax(2) == TARGET

    @property
    def inner(self) -> range:
        """The rows, and columns, at which no part of the upright patch hangs over the edge."""
        return range(SIZE // 2, len(self.target) - SIZE // 2)

    def share(self) -> float:
        """The share of the inner places at which the model says the target."""
        inside = slice(self.inner.start, self.inner.stop)
        return self.reached[inside, inside].double().mean().item()


@lru_cache(maxsize=64)
@torch.no_grad()
def reach(dataset: str, image: int, angle: int = 0) -> Reach:
    """Stick the patch on an image at every pixel, and ask the model about each.

    Args:
        dataset: "digits" or "mnist".
        image: which of the test images, 0 to `IMAGES - 1`.
        angle: by which the patch is turned counterclockwise, one of `ANGLES`, in degrees.
    Returns:
        the reach; the last 64 are kept.
    Raises:
        ValueError: names the argument.
    """
    x, y, classes = sample_images(dataset, IMAGES)
    if image not in range(len(x)):
        raise ValueError(f"image is {image!r}; accepted: 0 to {len(x) - 1}")
    if angle not in ANGLES:
        raise ValueError(f"angle is {angle!r}; accepted: {ANGLES[0]} to {ANGLES[-1]} by {ANGLES[1] - ANGLES[0]}")
    model, x = reference(MODEL, dataset).eval(), x[image : image + 1]
    side = x.shape[-1]
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    places = x.expand(side * side, -1, -1, -1)
    x_adv = paste(places, trained(dataset), rows.flatten(), columns.flatten(), float(angle))
    return Reach(
        *(dataset, angle, classes, int(y[image])),
        x_adv=x_adv.view(side, side, *x.shape[1:]),
        probabilities=model(x_adv).softmax(1).view(side, side, -1),
        clean=model(x).softmax(1)[0],
    )


IMAGE = 4.2  # inches: 15 screen pixels for each of the image's 28
PLACES = {
    "image": (0.3, 0.75, IMAGE, IMAGE),
    "map": (5.3, 0.75, IMAGE, IMAGE),
    "scale": (9.75, 0.75, 0.24, IMAGE),
}
HERE = {"linestyle": "", "marker": "o", "fillstyle": "none", "markersize": 20}


@lru_cache(maxsize=8)
def backdrop(reach: Reach) -> Backdrop:
    """What the place does not change: the map of the target's probability, and its scale."""
    fig, axes = panels(10.6, 5.6, **PLACES)
    side = len(reach.target)
    with styled():
        frame(axes["image"], "adversarial", width=6)
        axes["image"].set(xlim=(-0.5, side - 0.5), ylim=(side - 0.5, -0.5))
        ax = axes["map"]
        look = {"cmap": SEQUENTIAL, "vmin": 0, "vmax": 1}
        ax.imshow(reach.target.numpy(), **look)
        inner = reach.inner
        outline = {"fill": False, "edgecolor": "white", "linestyle": "--", "linewidth": 2.5}
        ax.add_patch(Rectangle((inner[0] - 0.5, inner[0] - 0.5), len(inner), len(inner), **outline))
        ax.set(xlim=(-0.5, side - 0.5), ylim=(side - 0.5, -0.5), xticks=[0, 7, 14, 21, 27], yticks=[0, 7, 14, 21, 27])
        ax.set(xlabel="column of the patch's middle", ylabel="row")
        axes["scale"].imshow(np.linspace(1, 0, 256)[:, None], extent=(0, 1, 0, 1), aspect="auto", **look)
        axes["scale"].yaxis.tick_right()
        axes["scale"].set(xticks=[], yticks=[0, 0.5, 1])
        axes["scale"].set_yticklabels(["0", "0.5", "1"])
    return Backdrop.of(fig, axes)


def render(reach: Reach, row: int, column: int) -> Figure:
    """The image with the patch at a place, beside the map of all places.

    Args:
        reach: an image with the patch everywhere.
        row, column: of the patch's middle, in pixels from 0.
    Returns:
        the figure. Its parts have names (gid): the image "image", the patch's "edge" on it and the words "says" above
        it; the words "target" above the map, and on the map "present".
    Raises:
        ValueError: names the argument.
    """
    check_place(reach, row, column)
    behind = backdrop(reach)
    says = sayings(reach.probabilities[row, column][None], reach.classes)[0]
    role, mark = outcome(bool(reach.reached[row, column]))
    with styled():
        fig = behind.picture()
        behind.lay_frame(fig, "image", role)
        behind.lay_image(fig, "image", image_colors(reach.x_adv[row, column]), gid="image")
        ax = behind.axes["image"]
        edge = {"fill": False, "edgecolor": COLORS["adversarial"], "linewidth": 2.5, "linestyle": ":", "gid": "edge"}
        fig.add_artist(Circle((column, row), SIZE / 2, transform=ax.transData, clip_path=ax.patch, **edge))
        corner = ax.transAxes
        words = f"{mark} a {reach.classes[reach.y]}; the model says {says}"
        fig.text(0, 1.04, words, transform=corner, fontsize=16, weight="bold", color=COLORS[role], gid="says")
        clean = f"without the patch: {sayings(reach.clean[None], reach.classes)[0]}"
        fig.text(0, -0.04, clean, transform=corner, fontsize=14, va="top")
        words = f"probability of {reach.classes[TARGET]}, by place; here {100 * reach.target[row, column]:.0f} %"
        fig.text(0, 1.04, words, transform=behind.axes["map"].transAxes, fontsize=16, gid="target")
        for color, width in (("white", 5), ("black", 2)):
            ring = Line2D([column], [row], color=color, markeredgewidth=width, gid="present", **HERE)
            ring.set_transform(behind.axes["map"].transData)
            fig.add_artist(ring)
    return fig


def check_place(reach: Reach, row: int, column: int) -> None:
    """The place is a pixel of the image."""
    side = len(reach.target)
    for name, value in (("row", row), ("column", column)):
        if value not in range(side):
            raise ValueError(f"{name} is {value!r}; accepted: 0 to {side - 1}")


def verdict(reach: Reach, row: int, column: int) -> str:
    """In words: what the patch does here, and at how many other places it does the same."""
    check_place(reach, row, column)
    target, label = reach.classes[TARGET], reach.classes[reach.y]
    if reach.y == TARGET:
        outcome = f"This image is a {target} already; the patch has nothing to change."
    elif reach.reached[row, column]:
        outcome = f"At row {row}, column {column} the patch makes this {label} a {target}."
    else:
        outcome = f"At row {row}, column {column} the patch does not make this {label} a {target}."
    turned = f"Turned by {reach.angle} degrees, it" if reach.angle else "It"
    return (
        f"{outcome} {turned} reaches its target at {100 * reach.share():.0f} % of the places where it lies wholly on "
        f"the image (inside the dashed square). It was trained at such places alone, on other images, turned by at "
        f"most {TURNED:g} degrees."
    )


def describe(reach: Reach, row: int, column: int) -> str:
    """The picture for somebody who cannot see it."""
    check_place(reach, row, column)
    best, (best_row, best_column) = reach.target.max(), divmod(int(reach.target.argmax()), len(reach.target))
    return (
        f"A {reach.classes[reach.y]} of {reach.dataset} with a round patch of {SIZE} pixels at row {row}, column "
        f"{column}, turned by {reach.angle} degrees: the model says "
        f"{sayings(reach.probabilities[row, column][None], reach.classes)[0]}. "
        f"A map of the probability of {reach.classes[TARGET]} over all places; here it is "
        f"{100 * reach.target[row, column]:.0f} %, at most {100 * best:.0f} %, at row {best_row}, column {best_column}."
    )


def patch_explorer(dataset: str | None = None) -> Explorable:
    """The explorable: stick an adversarial patch on an image, and move it about.

    Args:
        dataset: "digits" or "mnist" to start with; None takes what `load()` finds.
    Returns:
        the widget.
    Raises:
        ValueError: names the argument.
    """
    start = starting_dataset(dataset)
    x, y, _ = sample_images(start, IMAGES)
    other, last = int((y != TARGET).nonzero()[0]), x.shape[-1] - 1
    angles = [(f"{angle} degrees", angle) for angle in ANGLES]
    controls = {
        "dataset": widgets.Dropdown(description="data set", options=offline_datasets(), value=start),
        "image": widgets.Dropdown(description="image", options=image_options(start, IMAGES), value=other),
        "angle": widgets.SelectionSlider(description="angle", options=angles, value=0),
        "row": widgets.IntSlider(description="row", min=0, max=last, value=SIZE // 2),
        "column": widgets.IntSlider(description="column", min=0, max=last, value=SIZE // 2),
    }

    def adapt(name: str) -> None:
        if name == "dataset":
            controls["image"].options = image_options(controls["dataset"].value, IMAGES)

    def of_reach(show: Callable[[Reach, int, int], object]) -> Callable[..., object]:
        return lambda row, column, **setting: show(reach(**setting), row, column)

    return Explorable(
        of_reach(render),
        controls,
        alt=of_reach(describe),
        caption=of_reach(verdict),
        slow=("dataset", "image", "angle"),
        adapt=adapt,
    )

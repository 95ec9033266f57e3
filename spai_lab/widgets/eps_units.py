"""The same number, two units: eps in pixels of [0, 1], and eps in normalized pixels."""

from functools import lru_cache

import ipywidgets as widgets
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from spai_lab.checks import check_images, check_number
from spai_lab.data import load
from spai_lab.models import Normalize
from spai_lab.style import COLORS, Backdrop, frame, image_colors, panels, styled
from spai_lab.widgets.explorable import Explorable

GRAY_LEVELS = 255
IMAGE = 2.52  # inches: 9 screen pixels for each of the image's 28
PLACES = {
    "clean": (0.1, 0.65, IMAGE, IMAGE),
    "pixel units": (2.85, 0.65, IMAGE, IMAGE),
    "normalized units": (5.6, 0.65, IMAGE, IMAGE),
    "levels": (8.5, 0.65, 2.4, IMAGE),
}
BARS = {"pixel units": (1, "adversarial"), "normalized units": (0, "baseline")}


@lru_cache(maxsize=1)
def backdrop() -> Backdrop:
    """What eps leaves as it is: the frames, and the axis of the gray levels."""
    fig, axes = panels(11.1, 3.7, **PLACES)
    with styled():
        for name, role in (("clean", "clean"), ("pixel units", "adversarial"), ("normalized units", "adversarial")):
            frame(axes[name], role, width=6)
        ax = axes["levels"]
        for unit, (place, _) in BARS.items():
            ax.text(0, place + 0.3, unit, va="bottom")
        ax.set(yticks=[], xlim=(0, 1.12 * GRAY_LEVELS), ylim=(-0.5, 1.75), xticks=[0, 128, 255])
        ax.set_title("in gray levels of 255")
    return Backdrop.of(fig, axes)


def render(x: Tensor, eps: float, std: float = Normalize().std) -> Figure:
    """One image under noise of eps in pixel units, and under noise of eps in normalized units.

    Args:
        x: one image `(1, H, W)` in [0, 1].
        eps: the number, read in both units.
        std: what the model divides pixels by.
    Returns:
        the figure: clean, both noisy images, and both budgets in gray levels. Its bars and the images have names
        (gid): "clean", "pixel units", "normalized units", and "bar pixel units", "bar normalized units".
    Raises:
        ValueError: names the argument.
    """
    check_images(x)
    check_number("eps", eps, low=0, high=1)
    check_number("std", std, low=0, exclusive=True)
    coin = 2 * torch.randint(0, 2, x.shape, generator=torch.Generator().manual_seed(0)) - 1
    budgets = {"pixel units": eps, "normalized units": std * eps}
    drawn = [("clean", x, "clean", "every pixel as it is")]
    for unit, budget in budgets.items():
        moved = (x + budget * coin).clamp(0, 1)
        drawn.append((unit, moved, f"{eps:.2f} {unit}", f"a pixel moves by {budget:.3f}"))
    behind = backdrop()
    with styled():
        fig = behind.picture()
        for name, image, title, below in drawn:
            behind.lay_image(fig, name, image_colors(image), gid=name)
            place = behind.axes[name].transAxes
            fig.text(0.5, 1.04, title, transform=place, ha="center", fontsize=14)
            fig.text(0.5, -0.05, below, transform=place, ha="center", va="top", fontsize=13)
        place = behind.axes["levels"].transData
        for unit, (row, role) in BARS.items():
            level = GRAY_LEVELS * budgets[unit]
            bar = Rectangle((0, row - 0.25), level, 0.5, facecolor=COLORS[role], gid=f"bar {unit}")
            bar.set_transform(place)
            fig.add_artist(bar)
            fig.text(level + 6, row, f"{level:.0f}", transform=place, va="center", fontsize=13)
    return fig


def eps_units(dataset: str | None = None) -> Explorable:
    """The explorable: a slider for eps, and what it means in either unit.

    Args:
        dataset: "digits" or "mnist"; None takes what `load()` finds.
    Returns:
        the widget.
    """
    x = load(dataset).x_test[0]
    slider = widgets.FloatSlider(value=0.3, min=0, max=1, step=0.05, description="eps", continuous_update=True)
    return Explorable(
        lambda eps: render(x, eps),
        {"eps": slider},
        alt=lambda eps: (
            f"A digit three times: clean, with every pixel moved by {eps:.2f}, and with every pixel moved by "
            f"{eps * Normalize().std:.3f}, which is what {eps:.2f} means after normalization."
        ),
        caption="The number on the slider is the same for both noisy images. Only the unit differs.",
    )

"""The same number, two units: eps in pixels of [0, 1], and eps in normalized pixels."""

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from spai_lab.checks import check_images, check_number
from spai_lab.data import load
from spai_lab.models import Normalize
from spai_lab.style import COLORS, draw_image, figure, styled
from spai_lab.widgets.explorable import Explorable

GRAY_LEVELS = 255
MARGINS = {"left": 0.01, "right": 0.97, "bottom": 0.16, "top": 0.86, "wspace": 0.14}


def render(x: Tensor, eps: float, std: float = Normalize().std) -> Figure:
    """One image under noise of eps in pixel units, and under noise of eps in normalized units.

    Args:
        x: one image `(1, H, W)` in [0, 1].
        eps: the number, read in both units.
        std: what the model divides pixels by.
    Returns:
        the figure: clean, both noisy images, and both budgets in gray levels.
    Raises:
        ValueError: names the argument.
    """
    check_images(x)
    check_number("eps", eps, low=0, high=1)
    check_number("std", std, low=0, exclusive=True)
    coin = 2 * torch.randint(0, 2, x.shape, generator=torch.Generator().manual_seed(0)) - 1
    budgets = {"pixel units": eps, "normalized units": std * eps}
    fig, axes = figure(11, 3.7, columns=[1, 1, 1, 0.05, 1], margins=MARGINS)
    with styled():
        draw_image(axes[0, 0], x, "every pixel as it is", title="clean")
        for ax, (unit, budget) in zip(axes[0, 1:3], budgets.items(), strict=True):
            moved = (x + budget * coin).clamp(0, 1)
            draw_image(ax, moved, f"a pixel moves by {budget:.3f}", role="adversarial", title=f"{eps:.2f} {unit}")
        axes[0, 3].set_axis_off()
        ax = axes[0, 4]
        levels = np.array(list(budgets.values())) * GRAY_LEVELS
        ax.barh([1, 0], levels, color=[COLORS["adversarial"], COLORS["baseline"]], height=0.5)
        for place, level in zip((1, 0), levels, strict=True):
            ax.annotate(f"{level:.0f}", (level, place), xytext=(5, 0), textcoords="offset points", va="center")
        ax.set(yticks=[], xlim=(0, 1.12 * GRAY_LEVELS), ylim=(-0.5, 1.75), xticks=[0, 128, 255])
        for place, unit in zip((1, 0), budgets, strict=True):
            ax.text(0, place + 0.3, unit, va="bottom")
        ax.set_title("in gray levels of 255")
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

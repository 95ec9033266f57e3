"""The look of the workbook: one color and one marker for each meaning, figure sizes, captions, alt text.

No figure sets its own colors. Figures are made without pyplot, so that nothing stays open and nothing is global.
"""

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import matplotlib as mpl
import numpy as np
import seaborn as sns
from IPython.display import HTML, Markdown, display
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor

from spai_lab.checks import check_choice, describe

_palette = sns.color_palette("colorblind").as_hex()

COLORS = {
    "clean": _palette[0],
    "adversarial": _palette[3],
    "poisoned": _palette[1],
    "defended": _palette[2],
    "private": _palette[4],
    "baseline": _palette[7],
}
MARKERS = {"clean": "o", "adversarial": "X", "poisoned": "P", "defended": "s", "private": "D", "baseline": "."}
ROLES = tuple(COLORS)
DIVERGING = "RdBu_r"
SEQUENTIAL = "cividis"

WIDEST = 1300  # pixels of a figure in a chapter, more than a notebook's column has
UNSEEN = 0.2  # gray levels of 256 that a figure may be off on average when it is stored with few colors

SETTINGS = {
    "font.size": 13,
    "axes.titlesize": 14,
    "axes.labelsize": 13,
    "xtick.labelsize": 12,
    "ytick.labelsize": 12,
    "legend.fontsize": 12,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.grid": False,
    "axes.formatter.use_locale": False,
    "lines.linewidth": 2.2,
    "lines.markersize": 8,
    "image.interpolation": "nearest",
    "figure.dpi": 100,
    "savefig.dpi": 100,
}


def styled():
    """A context in which matplotlib uses the workbook's settings and nobody else's.

    >>> with styled():
    ...     mpl.rcParams["font.size"]
    13.0
    """
    return mpl.rc_context(SETTINGS)


def figure(
    width: float = 10,
    height: float = 4,
    *,
    columns: Sequence[float] | int = 1,
    rows: Sequence[float] | int = 1,
    margins: dict[str, float] | None = None,
) -> tuple[Figure, np.ndarray]:
    """A figure and its axes, laid out so that nothing overlaps.

    Args:
        width: in inches; 10 fills a notebook's column.
        height: in inches.
        columns: how many, or their relative widths.
        rows: how many, or their relative heights.
        margins: `left`, `right`, `bottom`, `top`, `wspace`, `hspace` as in `Figure.subplots_adjust`; a picture behind
            a slider gives them, since measuring every label for the layout takes half of the drawing time.
    Returns:
        the figure and its axes, an array of shape (rows, columns).
    """
    widths = [1.0] * columns if isinstance(columns, int) else list(columns)
    heights = [1.0] * rows if isinstance(rows, int) else list(rows)
    with styled():
        fig = Figure(figsize=(width, height), layout=None if margins else "constrained")
        FigureCanvasAgg(fig)
        axes = fig.subplots(len(heights), len(widths), squeeze=False, width_ratios=widths, height_ratios=heights)
        if margins:
            fig.subplots_adjust(**margins)
    return fig, axes


def panels(width: float, height: float, **places: tuple[float, float, float, float]) -> tuple[Figure, dict[str, Axes]]:
    """A figure with named axes at given places: nothing to lay out, so it is drawn fast.

    Args:
        width: in inches.
        height: in inches.
        places: name of the axes to `(left, bottom, width, height)`, in inches from the lower left corner.
    Returns:
        the figure and its axes by name.

    >>> fig, axes = panels(8, 4, curve=(1, 1, 6, 2.5))
    >>> [round(float(edge), 3) for edge in axes["curve"].get_position().bounds]
    [0.125, 0.25, 0.75, 0.625]
    """
    with styled():
        fig = Figure(figsize=(width, height))
        FigureCanvasAgg(fig)
        axes = {
            name: fig.add_axes((left / width, bottom / height, across / width, up / height))
            for name, (left, bottom, across, up) in places.items()
        }
    return fig, axes


@dataclass(frozen=True, eq=False)
class Backdrop:
    """What a slider leaves as it is, drawn once. Each picture lays what changes over it, in a third of the time.

    Args:
        axes: the axes by name; their `transData` places what is laid over them.
        pixels: the finished drawing, `(height, width, 4)`.
    """

    axes: dict[str, Axes]
    pixels: np.ndarray

    @classmethod
    def of(cls, fig: Figure, axes: dict[str, Axes]) -> Self:
        """Draw `fig`, and keep its pixels and its coordinates."""
        with styled():
            fig.canvas.draw()
        return cls(axes, np.array(fig.canvas.buffer_rgba()))

    def picture(self) -> Figure:
        """A new figure that shows the backdrop."""
        height, width, _ = self.pixels.shape
        fig, _ = panels(width / SETTINGS["figure.dpi"], height / SETTINGS["figure.dpi"])
        fig.add_artist(Pixels(self.pixels, 0, 0, zorder=-1))
        return fig

    def lay_image(self, fig: Figure, name: str, colors: np.ndarray, gid: str | None = None) -> None:
        """Fill the axes `name` with an image of sharp pixels, which is several times faster than `imshow`.

        Args:
            fig: a picture of this backdrop.
            name: one of its axes.
            colors: `(H, W, 4)`, uint8, such as `image_colors` gives.
            gid: what to call the image in the figure.
        """
        left, bottom, right, top = self.axes[name].bbox.extents.round().astype(int)
        rows = np.arange(top - bottom) * colors.shape[0] // (top - bottom)
        columns = np.arange(right - left) * colors.shape[1] // (right - left)
        fig.add_artist(Pixels(colors[rows][:, columns], left, bottom, gid=gid))

    def lay_frame(self, fig: Figure, name: str, role: str, *, width: float = 6) -> None:
        """Frame the axes `name` in the color of a role; an image laid there covers the frame's inner half.

        Args:
            fig: a picture of this backdrop.
            name: one of its axes.
            role: one of `ROLES`.
            width: of the line, in points.
        """
        edge = Rectangle((0, 0), 1, 1, fill=False, edgecolor=COLORS[role], linewidth=width, gid=f"{name} frame")
        edge.set(transform=self.axes[name].transAxes, zorder=-0.5)
        fig.add_artist(edge)


class Pixels(Artist):
    """Finished pixels at a place of a figure, copied rather than resampled.

    Args:
        pixels: `(height, width, 4)`, uint8.
        left, bottom: the place, in screen pixels from the lower left corner.
        properties: of any matplotlib artist.
    """

    def __init__(self, pixels: np.ndarray, left: int, bottom: int, **properties: object) -> None:
        super().__init__()
        self.pixels, self.left, self.bottom = pixels, left, bottom
        self.set(**properties)

    def draw(self, renderer: RendererBase) -> None:
        """Copy the pixels to the renderer, which counts rows from below."""
        context = renderer.new_gc()
        renderer.draw_image(context, self.left, self.bottom, self.pixels[::-1])
        context.restore()


def pixels(x: Tensor) -> np.ndarray:
    """One image as an array that matplotlib draws: `(H, W)` for gray, `(H, W, 3)` for color."""
    if x.ndim != 3 or x.shape[0] not in (1, 3):
        raise ValueError(f"x is {describe(x)}; accepted: one image of shape (1, H, W) or (3, H, W)")
    return x.detach().cpu()[0].numpy() if x.shape[0] == 1 else x.detach().cpu().permute(1, 2, 0).numpy()


def image_colors(x: Tensor) -> np.ndarray:
    """One image `(1, H, W)` or `(3, H, W)` in [0, 1] as colors `(H, W, 4)`, uint8."""
    levels = pixels(x)
    if levels.ndim == 2:
        return mpl.colormaps["gray"](levels, bytes=True)
    return np.dstack([255 * levels, np.full(levels.shape[:2], 255)]).round().astype(np.uint8)


def magnified(delta: Tensor) -> tuple[np.ndarray, float, str]:
    """One perturbation, scaled so that its largest change is 1; channels are averaged.

    Args:
        delta: `(1, H, W)` or `(3, H, W)`, in pixel units.
    Returns:
        the scaled changes `(H, W)` in [-1, 1], the factor (1 for a perturbation of zero), and the factor in words.

    >>> import torch
    >>> magnified(torch.full((1, 2, 2), 0.25))[2]
    'magnified × 4'
    """
    change = delta.detach().cpu().mean(0).numpy()
    largest = float(np.abs(change).max())
    factor = 1 / largest if largest > 0 else 1.0
    return change * factor, factor, f"magnified × {factor:.3g}" if largest > 0 else "no change"


def draw_image(ax: Axes, x: Tensor, says: str = "", *, role: str = "clean", title: str = "") -> None:
    """An image with sharp pixels, a frame in the color of its role, and under it what the model says.

    Args:
        ax: where to draw.
        x: one image `(1, H, W)` or `(3, H, W)` in [0, 1].
        says: the line under the image, such as "3 (98 %)".
        role: one of `ROLES`; it sets the frame's color.
        title: the line above the image.
    """
    check_choice("role", role, ROLES)
    ax.imshow(pixels(x), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    frame(ax, role)
    ax.set_title(title, loc="center")
    ax.set_xlabel(says, fontsize=SETTINGS["axes.labelsize"])


def draw_perturbation(ax: Axes, delta: Tensor, *, title: str = "perturbation") -> float:
    """A perturbation on a diverging scale, white where nothing changed, with its magnification written under it.

    Args:
        ax: where to draw.
        delta: one perturbation `(1, H, W)` or `(3, H, W)`, in pixel units; channels are averaged.
        title: the line above the image.
    Returns:
        the magnification: 1 / largest change, or 1 for a perturbation of zero.
    """
    change, magnification, said = magnified(delta)
    ax.imshow(change, cmap=DIVERGING, vmin=-1, vmax=1, interpolation="nearest")
    frame(ax, "adversarial")
    ax.set_title(title, loc="center")
    ax.set_xlabel(said)
    return magnification


def outcome(hit: bool) -> tuple[str, str]:
    """The role of an image that an attack made, and a mark that says the same without color.

    >>> outcome(True), outcome(False)
    (('adversarial', '✕'), ('clean', '○'))
    """
    return ("adversarial", "✕") if hit else ("clean", "○")


def frame(ax: Axes, role: str, *, width: float = 3) -> None:
    """A frame around an image, in the color of its role, without ticks; its inner half lies over the image."""
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set(visible=True, color=COLORS[role], linewidth=width)


def to_png(fig: Figure) -> bytes:
    """The figure as PNG, packed lightly, since a slider waits for it."""
    return encoded(Image.fromarray(drawn(fig)), compress_level=3)


def to_small_png(fig: Figure) -> bytes:
    """The figure as PNG for a file: of 256 colors where nobody sees the difference, else of all."""
    exact = Image.fromarray(drawn(fig))
    few = exact.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    change = np.abs(np.asarray(few.convert("RGB"), dtype=np.int16) - np.asarray(exact))
    return encoded(few if change.mean() < UNSEEN else exact, optimize=True)


def drawn(fig: Figure) -> np.ndarray:
    """The drawn figure, uint8 `(H, W, 3)`."""
    with styled():
        fig.canvas.draw()
    return np.asarray(fig.canvas.buffer_rgba())[..., :3]


def encoded(image: Image.Image, **settings: object) -> bytes:
    """An image as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, format="png", **settings)
    return buffer.getvalue()


def show(fig: Figure, caption: str, alt: str) -> None:
    """Display a figure with its alt text, and under it a sentence that says what to see.

    Args:
        fig: the figure.
        caption: one or two full sentences.
        alt: what somebody who cannot see the figure needs to know.
    Raises:
        ValueError: no caption or no alt text.
    """
    for name, text in (("caption", caption), ("alt", alt)):
        if not text.strip():
            raise ValueError(f"{name} is empty; accepted: a sentence")
    fig.set_dpi(min(SETTINGS["figure.dpi"], WIDEST / fig.get_figwidth()))
    png = base64.b64encode(to_small_png(fig)).decode()
    # JupyterLab drops the alt text of a picture, but not that of HTML; a stored master keeps the picture alone.
    seen = f'<img src="data:image/png;base64,{png}" alt="{html.escape(alt)}">'
    forms = {"image/png": png, "text/html": seen, "text/plain": alt}
    display(forms, metadata={"image/png": {"alt": alt}}, raw=True)
    display(HTML(f"<p style='font-size: 1.05em; max-width: 60em'>{html.escape(caption)}</p>"))


def say(text: str) -> None:
    """Display a sentence whose numbers a cell has computed; Markdown and formulas are set."""
    display(Markdown(text))


def show_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Display a table, numbers that a cell has computed.

    Args:
        columns: the headings.
        rows: of as many entries each.
    Raises:
        ValueError: a row has another length.
    """
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"rows has one of {len(row)} entries; accepted: {len(columns)}, one for each column")
    lines = [columns, ["---"] * len(columns), *rows]
    say("\n".join(f"| {' | '.join(map(str, line))} |" for line in lines))

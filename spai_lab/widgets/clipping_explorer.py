r"""The clipping explorer: one step of DP-SGD, what it cuts off, what it adds, and how far that turns the gradient."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Arc, FancyArrowPatch, Rectangle
from torch import Tensor, nn

from spai_lab.checks import check_choice
from spai_lab.checks import describe as describe_value
from spai_lab.data import load
from spai_lab.metrics import Rate
from spai_lab.models import softmax_regression
from spai_lab.privacy.dp_sgd import private_gradient
from spai_lab.privacy.per_example import Gradients, gradient_norms, per_example_gradients
from spai_lab.style import COLORS, MARKERS, Backdrop, panels, styled
from spai_lab.training import reference
from spai_lab.widgets.choices import invert, offline_datasets, starting_dataset
from spai_lab.widgets.explorable import Explorable
from spai_lab.widgets.roc_panel import mark_side, mark_threshold

MOMENTS = {"first": "before training", "last": "after training"}
BATCHES = (64, 256, 1024)
CLIPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 7.0, 10.0, 20.0, 30.0, 50.0)
NOISES = (0.0, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0)


@dataclass(frozen=True, eq=False)
class Step:
    r"""One step of DP-SGD on a batch, for every clipping norm.

    Args:
        dataset: its name.
        moment: one of `MOMENTS`.
        norms: lengths of the examples' gradients, $\|g_i\|_2$, `(B,)`.
        mean: the true mean of the gradients, flat, `(D,)`.
        clipped: the mean after clipping to each of `CLIPS`, `(len(CLIPS), D)`.
        noise: one draw of N(0, 1), `(D,)`: the same for each setting, so that a slider changes nothing but its size.
    """

    dataset: str
    moment: str
    norms: Tensor
    mean: Tensor
    clipped: Tensor
    noise: Tensor

    @property
    def batch(self) -> int:
        """B, the number of examples."""
        return len(self.norms)

    @property
    def numbers(self) -> int:
        """D, how many numbers a gradient has."""
        return len(self.mean)

    def cut(self, clip: float) -> Rate:
        """Of the gradients, how many are longer than the clipping norm."""
        return Rate(int((self.norms > clip).sum()), self.batch)

    def released(self, noise_multiplier: float, place: int | slice = slice(None)) -> Tensor:
        r"""What is released at each clipping norm C, or at one: the clipped mean plus $\frac{\sigma C}{B} N(0, 1)$."""
        std = noise_multiplier * torch.tensor(CLIPS)[place, None] / self.batch
        return self.clipped[place] + std * self.noise

    def turned(self, gradients: Tensor) -> Tensor:
        """Angles to the true mean, in degrees; `(..., D)` to `(...)`."""
        return torch.rad2deg(torch.atan2(*reversed(self.split(gradients))))

    def split(self, gradients: Tensor) -> tuple[Tensor, Tensor]:
        """Their parts along the true mean, and how long the rest is, at right angles to it; in lengths of the mean."""
        length = self.mean.norm()
        along = gradients @ self.mean / length
        across = (gradients - along[..., None] * self.mean / length).norm(dim=-1)
        return along / length, across / length

    @cached_property
    def bias(self) -> Tensor:
        """How far clipping alone turns the mean, in degrees, `(len(CLIPS),)`."""
        return self.turned(self.clipped)


@lru_cache(maxsize=128)
def angles(found: Step, noise_multiplier: float) -> Tensor:
    """How far what is released is turned, in degrees, at each clipping norm, `(len(CLIPS),)`."""
    return found.turned(found.released(noise_multiplier))


@lru_cache(maxsize=12)
def step(dataset: str, moment: str, batch: int) -> Step:
    """Take the gradients of the first training images one by one, and clip them to each norm.

    Args:
        dataset: "digits" or "mnist".
        moment: one of `MOMENTS`, of the training of a softmax regression.
        batch: one of `BATCHES`.
    Returns:
        the step; the last 12 are kept.
    Raises:
        ValueError: names the argument.
    """
    check_choice("dataset", dataset, offline_datasets())
    check_choice("moment", moment, tuple(MOMENTS))
    if batch not in BATCHES:
        raise ValueError(f"batch is {describe_value(batch)}; accepted: {', '.join(map(str, BATCHES))}")
    data = load(dataset)
    gradients = per_example_gradients(model_at(dataset, moment), data.x_train[:batch], data.y_train[:batch])
    nothing = {name: gradient[:0] for name, gradient in gradients.items()}
    setting = {"expected_batch": batch, "noise_multiplier": 0}
    return Step(
        *(dataset, moment, gradient_norms(gradients)),
        mean=flat(private_gradient(gradients, clip=math.inf, **setting)),
        clipped=torch.stack([flat(private_gradient(gradients, clip=clip, **setting)) for clip in CLIPS]),
        noise=flat(private_gradient(nothing, clip=1.0, noise_multiplier=1, expected_batch=1, generator=seeded())),
    )


def model_at(dataset: str, moment: str) -> nn.Module:
    """A softmax regression, with its first weights or trained."""
    if moment == "last":
        return reference("softmax", dataset).eval()
    data = load(dataset)
    return softmax_regression(data.shape, data.num_classes, generator=seeded()).eval()


def flat(gradient: Gradients) -> Tensor:
    """All numbers of a gradient in a row."""
    return torch.cat([part.flatten() for part in gradient.values()])


def seeded() -> torch.Generator:
    """The same draws each time."""
    return torch.Generator().manual_seed(0)


PLACES = {
    "norms": (0.95, 4.6, 5.2, 2.2),
    "angles": (0.95, 0.85, 5.2, 2.75),
    "arrows": (7.0, 3.5, 4.3, 3.3),
    "influence": (9.05, 0.85, 2.25, 0.85),
}
ACROSS, UP = (-0.5, 1.8), (0.0, 1.765)  # what the arrows' panel shows, in lengths of the true mean
SHORTEST = 0.15  # what has an arrowhead
ROWS = {"true mean": (2.62, "clean"), "clipped": (2.32, "baseline"), "released": (2.02, "private")}  # inches
LINES = {"clean": "-", "baseline": "--", "private": "-"}
HERE = {"linestyle": "", "marker": "o", "fillstyle": "none", "markersize": 20, "markeredgewidth": 2.5, "color": "black"}
BARS = {"record": (1, "adversarial", ""), "noise": (0, "private", "//")}


@lru_cache(maxsize=12)
def backdrop(found: Step) -> Backdrop:
    """What clipping norm and noise leave as they are: the norms, the axes, and how far clipping alone turns."""
    fig, axes = panels(11.6, 7.3, **PLACES)
    with styled():
        draw_norms(axes["norms"], found.norms)
        ax = axes["angles"]
        look = {"color": COLORS["baseline"], "linestyle": LINES["baseline"], "linewidth": 3}
        ax.plot(CLIPS, found.bias, label="clipped", **look)
        ax.plot([], [], color=COLORS["private"], marker=MARKERS["private"], label="released")
        ax.set(xscale="log", xlim=axes["norms"].get_xlim(), ylim=(0, 95), yticks=[0, 30, 60, 90])
        ax.set(xlabel="length of a gradient; clipping norm C", ylabel="angle to the true mean")
        ax.set_yticks([0, 30, 60, 90], ["0°", "30°", "60°", "90°"])
        ax.legend(loc="lower right", bbox_to_anchor=(1.02, 0.97), ncols=2, fontsize=13, columnspacing=1)
        label_powers(ax)
        ax = axes["arrows"]
        ax.set(xlim=ACROSS, ylim=UP, xticks=[0, 1], yticks=[1], xlabel="along the true mean", ylabel="at right angles")
        ax.axvline(0, color=COLORS["baseline"], linewidth=1, zorder=0)
        ax.set_title("gradients, the true mean as 1", fontsize=15, weight="bold")
        ax = axes["influence"]
        ax.set(xlim=(0, 1.35 * NOISES[-1]), ylim=(-0.6, 1.6), xlabel="in units of C / B", xticks=range(5))
        ax.set_yticks([1, 0], ["one record, at most", "noise along it, ±"])
    return Backdrop.of(fig, axes)


def draw_norms(ax: Axes, norms: Tensor) -> None:
    """The histogram of the gradients' lengths; what is beyond the axis shares the outermost bars."""
    edges = np.geomspace(CLIPS[0] / 2, 2 * CLIPS[-1], 41)
    counts, _ = np.histogram(norms.clamp(edges[0], edges[-1]).numpy(), edges)
    ax.stairs(counts, edges, fill=True, color=COLORS["clean"], alpha=0.4)
    ax.stairs(counts, edges, color=COLORS["clean"], linewidth=2)
    ax.set(xscale="log", xlim=(edges[0], edges[-1]), ylim=(0, 1.08 * counts.max()), ylabel="examples")
    label_powers(ax)


def label_powers(ax: Axes) -> None:
    """The ticks of a logarithmic axis of lengths, as plain numbers."""
    ax.set_xticks(ticks := [0.01, 0.1, 1, 10], [f"{tick:g}" for tick in ticks])
    ax.set_xticks([], minor=True)


def render(found: Step, clip: float, noise_multiplier: float) -> Figure:
    r"""The lengths of the gradients, how far clipping and noise turn their mean, and what hides one record.

    In the arrows' panel each gradient is turned around the true mean into one plane: its length and its angle to the
    true mean are right, in a space of all dimensions.

    Args:
        found: a step.
        clip: the clipping norm, one of `CLIPS`.
        noise_multiplier: $\sigma$, the noise in units of the clipping norm, one of `NOISES`.
    Returns:
        the figure. Its parts have names (gid): those of `mark_threshold` and "suspected" over the norms; "angles" and
        "angle now"; the arrows "true mean", "clipped" and "released", and what is said of them, "clipped words" and so
        on; "turn", the arc; the bars "record" and "noise", and their words.
    Raises:
        ValueError: names the argument.
    """
    place = check_place(clip, noise_multiplier)
    turned, behind = angles(found, noise_multiplier), backdrop(found)
    with styled():
        fig = behind.picture()
        ax = behind.axes["norms"]
        words = f"C = {clip:g}: {100 * found.cut(clip).value:.0f} % are clipped"
        for mark in (mark_side(ax, clip, ax.get_xlim()[1]), *mark_threshold(ax, clip, words)):
            fig.add_artist(mark)
        ax = behind.axes["angles"]
        here = {"transform": ax.transData}
        look = {"color": COLORS["private"], "marker": MARKERS["private"], "markersize": 7, "gid": "angles"}
        fig.add_artist(Line2D(CLIPS, turned, **look, **here))
        fig.add_artist(Line2D([clip], [turned[place]], gid="angle now", **HERE, **here))
        title = f"σ = {noise_multiplier:g}: {turned[place]:.0f}° off"
        fig.text(0, 1.04, title, transform=ax.transAxes, fontsize=15, weight="bold", gid="turned")
        drawn = {
            "true mean": found.mean,
            "clipped": found.clipped[place],
            "released": found.released(noise_multiplier, place),
        }
        for name, gradient in drawn.items():
            lay_arrow(fig, behind.axes["arrows"], found, name, gradient)
        lay_influence(fig, behind.axes["influence"], found, clip, noise_multiplier)
    return fig


def check_place(clip: float, noise_multiplier: float) -> int:
    """The number of the clipping norm; `ValueError` unless both are on their sliders."""
    for name, value, accepted in (("clip", clip, CLIPS), ("noise_multiplier", noise_multiplier, NOISES)):
        if value not in accepted:
            raise ValueError(f"{name} is {describe_value(value)}; accepted: {', '.join(f'{v:g}' for v in accepted)}")
    return CLIPS.index(clip)


def lay_arrow(fig: Figure, ax: Axes, found: Step, name: str, gradient: Tensor) -> None:
    """A gradient as an arrow on a ray to the panel's edge, where it is cut off; below, its length and its angle."""
    along, across = (part.item() for part in found.split(gradient))
    length, angle = math.hypot(along, across), found.turned(gradient).item()
    edge = min(room / part for room, part in ((ACROSS[along > 0], along), (UP[1], across)) if part)
    inside = min(1.0, edge)
    height, role = ROWS[name]
    look = {"color": COLORS[role], "linewidth": 4, "linestyle": LINES[role], "gid": name, "transform": ax.transData}
    tip = (inside * along, inside * across)
    ray = {"color": COLORS[role], "linewidth": 2, "linestyle": ":", "transform": ax.transData}
    fig.add_artist(Line2D([0, edge * along], [0, edge * across], **ray))
    fig.add_artist(Line2D([0, tip[0]], [0, tip[1]], solid_capstyle="butt", **look))
    if inside == 1 and length > SHORTEST:
        head = {"arrowstyle": "-|>", "mutation_scale": 26, "shrinkA": 0, "shrinkB": 0, "linewidth": 0}
        start = (0.98 * tip[0], 0.98 * tip[1])
        fig.add_artist(FancyArrowPatch(start, tip, color=COLORS[role], transform=ax.transData, **head))
    if name == "released":
        size = 0.7
        arc = {"theta1": 0, "theta2": angle, "color": "black", "linewidth": 2, "gid": "turn"}
        fig.add_artist(Arc((0, 0), size, size, transform=ax.transData, **arc))
    inches = fig.dpi_scale_trans
    sample = Line2D([7.0, 7.45], [height, height], color=COLORS[role], linewidth=4, linestyle=LINES[role])
    sample.set_transform(inches)
    fig.add_artist(sample)
    words = f"{name}: {found.mean.norm():.3g} long"
    if name != "true mean":
        words = f"{name}: {number(length)} × as long, {angle:.0f}° off" + (" (cut)" if inside < 1 else "")
    fig.text(7.6, height, words, transform=inches, va="center", fontsize=14, gid=f"{name} words")


def lay_influence(fig: Figure, ax: Axes, found: Step, clip: float, noise_multiplier: float) -> None:
    """The most that one record moves the mean, and the standard deviation of the noise along it."""
    for gid, size in (("record", 1.0), ("noise", noise_multiplier)):
        height, role, hatch = BARS[gid]
        shape = {"facecolor": COLORS[role], "edgecolor": "white", "linewidth": 0, "hatch": hatch, "gid": gid}
        fig.add_artist(Rectangle((0, height - 0.35), size, 0.7, transform=ax.transData, **shape))
        words = f"{number(size * clip / found.batch)}"
        look = {"va": "center", "fontsize": 13, "weight": "bold", "gid": f"{gid} words"}
        fig.text(size + 0.1, height, words, transform=ax.transData, **look)


def number(value: float) -> str:
    """A length with two digits.

    >>> number(0.00390625), number(16.12), number(0)
    ('0.0039', '16', '0')
    """
    return f"{value:.2g}" if value < 99.5 else f"{value:.0f}"


def verdict(found: Step, clip: float, noise_multiplier: float) -> str:
    """In words: what was cut, how far that and the noise turned the gradient, and what one record can do."""
    place = check_place(clip, noise_multiplier)
    turned, cut = angles(found, noise_multiplier), found.cut(clip)
    words = (
        f"{found.batch} images of {found.dataset}, softmax regression {MOMENTS[found.moment]}. Clipping to "
        f"C = {clip:g} shortens {cut.hits} of the gradients and turns their mean by {found.bias[place]:.0f}°. "
    )
    if noise_multiplier == 0:
        return words + "Without noise nothing is promised to anybody: one record can still be told from the sum."
    along = noise_multiplier * clip / found.batch
    return (
        f"{words}With noise of sigma {noise_multiplier:g} it is {turned[place]:.0f}°. One record, added or removed, "
        f"moves the mean by at most C / B = {number(clip / found.batch)}. The noise along it is ± {number(along)}, "
        f"{noise_multiplier:g} times as much, and over all {found.numbers:,} numbers together it is about "
        f"{number(along * math.sqrt(found.numbers))} long. {blame(found.bias[place].item(), turned[place].item())} "
        f"{best_clip(turned, place)} Whoever chooses C by this picture has looked at the data: no guarantee covers it."
    )


def blame(bias: float, angle: float) -> str:
    """Whether clipping or noise takes more from the gradient along the true mean, by the cosines of their angles.

    >>> blame(4.0, 65.0)
    'Most of the turn is noise, which a larger batch divides, and many steps average.'
    """
    clipping = math.cos(math.radians(bias))
    noise = math.cos(math.radians(angle)) / clipping if clipping > 0 else 1.0
    if min(clipping, noise) > 0.7:
        return "The step goes about the right way."
    if noise < clipping:
        return "Most of the turn is noise, which a larger batch divides, and many steps average."
    return "Most of the turn is clipping: the long gradients, of images that the model misreads, lost their weight."


def best_clip(turned: Tensor, place: int) -> str:
    """Which clipping norm would turn the gradient least.

    >>> best_clip(torch.tensor([80.0, 60.0, 70.0, *[75.0] * 15]), 0)
    'At this noise C = 0.02 turns it least, by 60°.'
    """
    best = int(turned.argmin())
    if turned[place] - turned[best] < 2:
        return "At this noise no other C does noticeably better."
    return f"At this noise C = {CLIPS[best]:g} turns it least, by {turned[best]:.0f}°."


def describe(found: Step, clip: float, noise_multiplier: float) -> str:
    """The picture for somebody who cannot see it."""
    place = check_place(clip, noise_multiplier)
    low, median, high = found.norms.quantile(torch.tensor([0.05, 0.5, 0.95])).tolist()
    return (
        f"A histogram of the lengths of {found.batch} gradients, median {median:.2g}, 90 % from {low:.2g} to "
        f"{high:.2g}. With C = {clip:g}, {100 * found.cut(clip).value:.0f} % are clipped. Arrows: the true mean; the "
        f"clipped mean, {found.bias[place]:.0f} degrees off; with noise {noise_multiplier:g} the released one, "
        f"{angles(found, noise_multiplier)[place]:.0f} degrees off. A curve of this angle against C. Two bars: one "
        f"record at most {number(clip / found.batch)}, noise {number(noise_multiplier * clip / found.batch)}."
    )


def clipping_explorer(dataset: str | None = None) -> Explorable:
    """The explorable: clip the gradients of a batch, add noise, and see how far the mean is turned.

    Args:
        dataset: "digits" or "mnist" to start with; None takes what `load()` finds.
    Returns:
        the widget.
    Raises:
        ValueError: names the argument.
    """
    controls = {
        "dataset": widgets.Dropdown(
            description="data set", options=offline_datasets(), value=starting_dataset(dataset)
        ),
        "moment": widgets.Dropdown(description="model", options=invert(MOMENTS)),
        "batch": widgets.Dropdown(description="batch", options=BATCHES, value=256),
        "clip": widgets.SelectionSlider(description="clip", options=[(f"{clip:g}", clip) for clip in CLIPS], value=1.0),
        "noise_multiplier": widgets.SelectionSlider(
            description="noise", options=[(f"{noise:g}", noise) for noise in NOISES], value=1.0
        ),
    }

    def of_step(show: Callable[[Step, float, float], object]) -> Callable[..., object]:
        return lambda clip, noise_multiplier, **setting: show(step(**setting), clip, noise_multiplier)

    return Explorable(
        of_step(render),
        controls,
        alt=of_step(describe),
        caption=of_step(verdict),
        slow=("dataset", "moment", "batch"),
    )

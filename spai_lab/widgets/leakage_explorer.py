"""The leakage explorer: what images a gradient gives away, by noise, by batch size, and by how long one searches."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations

import ipywidgets as widgets
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from spai_lab.attacks.privacy.leakage import gradient_leakage, leak_network, noised, shared_gradients
from spai_lab.checks import check_choice
from spai_lab.checks import describe as describe_value
from spai_lab.data import load
from spai_lab.metrics import psnr
from spai_lab.style import COLORS, MARKERS, Backdrop, frame, image_colors, panels, styled
from spai_lab.survey.leakage_jobs import RECOGNIZED
from spai_lab.widgets.choices import offline_datasets, refill, starting_dataset
from spai_lab.widgets.explorable import Explorable

LEVELS = (0.0, 1e-4, 1e-3, 1e-2, 1e-1)
LEVEL_NAMES = ("none", "0.0001", "0.001", "0.01", "0.1")
STEPS = {1: 200, 2: 300, 4: 500}  # of L-BFGS, by batch size: more images take longer to come out
SNAPSHOTS = 20
STARTS = (1, 2, 3, 4, 5, 6)
NETWORK, FIRST = 1, 14  # seeds, of the weights and of the first start: from the other starts some searches run away


@dataclass(frozen=True, eq=False)
class Leaks:
    """One batch, and what the attacker makes of its gradient at each noise level.

    Args:
        dataset: its name.
        classes: names of the K classes.
        x: the true images, `(B, C, H, W)`.
        y: their labels, `(B,)`.
        images: what the attacker has after each snapshot and at each level, `(T, L, B, C, H, W)`; at one level every
            image keeps its place, beside the true one that it fits best in the end.
        labels: what the attacker takes their labels for in the end, `(L, B)`.
        psnr: of the images, in dB, `(T, L, B)`.
        blank: what black images would have on average, in dB.
        spread: standard deviation of the gradient's numbers.
        numbers: how many there are.
        astray: where the search has run away, `(L,)`: the gradient it ends at is much farther from the one sent than
            noise explains, which the attacker sees too.
    """

    dataset: str
    classes: tuple[str, ...]
    x: Tensor
    y: Tensor
    images: Tensor
    labels: Tensor
    psnr: Tensor
    blank: float
    spread: float
    numbers: int
    astray: Tensor

    @property
    def batch(self) -> int:
        """B, the number of images."""
        return len(self.y)

    @property
    def steps(self) -> tuple[int, ...]:
        """After how many steps the snapshots were taken."""
        return step_numbers(self.batch)

    @property
    def names(self) -> list[str]:
        """What the true images are, such as "a 5"."""
        return [f"a {self.classes[label]}" for label in self.y.tolist()]

    def labels_known(self, step: int) -> bool:
        """Whether the attacker has the labels by now: iDLG reads them off first, DLG looks for them as for images."""
        return self.batch == 1 or step == self.steps[-1]


def step_numbers(batch: int) -> tuple[int, ...]:
    """After how many steps there is a snapshot.

    >>> step_numbers(1)[:3], step_numbers(1)[-1]
    ((10, 20, 30), 200)
    """
    return tuple((k + 1) * STEPS[batch] // SNAPSHOTS for k in range(SNAPSHOTS))


@lru_cache(maxsize=24)
def leaks(dataset: str, batch: int, start: int = STARTS[0]) -> Leaks:
    """Share the gradient of the first training images at each noise level, and attack all levels side by side.

    Args:
        dataset: "digits" or "mnist".
        batch: how many images, one of `STEPS`. A single one is attacked by iDLG, more by DLG.
        start: one of `STARTS`: which noise images the searches begin with, another one at each level.
    Returns:
        what was found; the last 24 are kept. The noise on the gradient is the same at each level, but for its size.
    Raises:
        ValueError: names the argument.
    """
    check_choice("dataset", dataset, offline_datasets())
    for name, value, accepted in (("batch", batch, tuple(STEPS)), ("start", start, STARTS)):
        if value not in accepted:
            raise ValueError(f"{name} is {describe_value(value)}; accepted: {', '.join(map(str, accepted))}")
    data = load(dataset)
    x, y = data.x_train[:batch], data.y_train[:batch]
    model = leak_network(data.shape, data.num_classes, generator=seeded(NETWORK))
    clean = shared_gradients(model, x[None], y[None])
    levels = [noised(clean, sigma, generator=seeded(0)) for sigma in LEVELS]
    leaked = gradient_leakage(
        model,
        {name: torch.cat([sent[name] for sent in levels]) for name in clean},
        shape=data.shape,
        batch=batch,
        labels="analytic" if batch == 1 else "optimized",
        steps=STEPS[batch],
        snapshots=SNAPSHOTS,
        generator=seeded(FIRST + start - 1),
        progress=False,
    )
    orders = [best_order(x, found) for found in leaked.x]
    images = torch.stack([leaked.path[:, level, order] for level, order in enumerate(orders)], 1)
    numbers = torch.cat([gradient.flatten() for gradient in clean.values()])
    explained = 2 * len(numbers) * torch.tensor(LEVELS).square() + 0.01 * numbers.square().sum()
    return Leaks(
        *(dataset, data.classes, x, y, images),
        labels=torch.stack([leaked.y[level, order] for level, order in enumerate(orders)]),
        psnr=psnr(x.expand_as(images).flatten(0, 2), images.flatten(0, 2)).view(images.shape[:3]),
        blank=psnr(x, torch.zeros_like(x)).mean().item(),
        spread=numbers.std().item(),
        numbers=len(numbers),
        astray=leaked.distances > explained,
    )


def seeded(seed: int) -> torch.Generator:
    """The same draws each time."""
    return torch.Generator().manual_seed(seed)


def best_order(x: Tensor, found: Tensor) -> list[int]:
    """In which order images fit others best, by the sum of their PSNR: a gradient does not tell the order of a batch.

    >>> x = torch.rand(3, 1, 4, 4)
    >>> best_order(x, x[[2, 0, 1]])
    [1, 2, 0]
    """
    orders = permutations(range(len(x)))
    return list(max(orders, key=lambda order: float(psnr(x, found[list(order)]).clamp_max(200).sum())))


IMAGE = {1: 2.52, 2: 2.52, 4: 1.68}  # inches: 9 or 6 screen pixels for each of an image's 28
LEFT, BOTTOM, GAP, BETWEEN = 0.15, 0.9, 0.14, 1.0
CURVE = 3.5
BELOW = {"ha": "center", "va": "top", "fontsize": 15}
LINE = 0.27  # inches from one line under an image to the next
SEEN = {"linestyle": "", "marker": MARKERS["adversarial"], "markersize": 11, "markeredgecolor": "black"}
HERE = {"linestyle": "", "marker": "o", "fillstyle": "none", "markersize": 24, "markeredgewidth": 2.5, "color": "black"}


def places(batch: int) -> tuple[float, float, dict[str, tuple[float, float, float, float]]]:
    """Width and height of the figure, and where its axes are: true images, leaked ones under them, and the curve."""
    side = IMAGE[batch]
    columns = [LEFT + image * (side + GAP) for image in range(batch)]
    upper = BOTTOM + side + BETWEEN
    axes = {f"leaked {image}": (left, BOTTOM, side, side) for image, left in enumerate(columns)}
    axes |= {f"true {image}": (left, upper, side, side) for image, left in enumerate(columns)}
    edge, top = columns[-1] + side + 1.0, upper + side
    return edge + CURVE + 1.2, top + 0.5, axes | {"curve": (edge, BOTTOM, CURVE, top - BOTTOM)}


@lru_cache(maxsize=8)
def backdrop(leaks: Leaks) -> Backdrop:
    """What noise and steps leave as it is: frames, the labels of the true images, and the axes of the curve."""
    width, height, where = places(leaks.batch)
    fig, axes = panels(width, height, **where)
    with styled():
        for image in range(leaks.batch):
            frame(axes[f"true {image}"], "clean", width=6)
            frame(axes[f"leaked {image}"], "adversarial", width=6)
            transform = axes[f"true {image}"].transAxes
            fig.text(0.5, -0.1 / IMAGE[leaks.batch], leaks.names[image], transform=transform, **BELOW)
        title = "true image" if leaks.batch == 1 else "true images"
        place = {"transform": axes["true 0"].transAxes, "fontsize": 16, "weight": "bold"}
        fig.text(0, 1 + 0.12 / IMAGE[leaks.batch], title, color=COLORS["clean"], **place)
        ax, right = axes["curve"], len(LEVELS) - 0.7
        top = max(30.0, 10 * (1 + leaks.psnr.max().item() // 10))
        ax.set(xlim=(-0.3, right), ylim=(0, top), xlabel="noise on each number of the gradient", ylabel="PSNR in dB")
        ax.set_xticks(range(len(LEVELS)), LEVEL_NAMES)
        for words, height, look in (("recognized", RECOGNIZED, ":"), ("all black", leaks.blank, "--")):
            ax.axhline(height, color=COLORS["baseline"], linewidth=2, linestyle=look, zorder=0)
            ax.text(right + 0.05, height, words, va="center", fontsize=13)
    return Backdrop.of(fig, axes)


def render(leaks: Leaks, level: int, step: int) -> Figure:
    """True images above, leaked ones below, beside how near they are at each noise level.

    Args:
        leaks: of one batch.
        level: which of `LEVELS`, from 0.
        step: one of `leaks.steps`.
    Returns:
        the figure. Its parts have names (gid): "true 0", "leaked 0", "label 0" and "near 0" and so on; above, "title";
        on the curve "mean", "single" (each image), "astray" (the same, where the search has run away) and "present".
    Raises:
        ValueError: names the argument.
    """
    found = leaks.psnr[(snapshot := check_place(leaks, level, step))]
    behind, side = backdrop(leaks), IMAGE[leaks.batch]
    with styled():
        fig = behind.picture()
        for image, near in enumerate(found[level].tolist()):
            behind.lay_image(fig, f"true {image}", image_colors(leaks.x[image]), gid=f"true {image}")
            colors = image_colors(leaks.images[snapshot, level, image])
            behind.lay_image(fig, f"leaked {image}", colors, gid=f"leaked {image}")
            below = BELOW | {"transform": behind.axes[f"leaked {image}"].transAxes}
            fig.text(0.5, -0.1 / side, label_words(leaks, level, step, image), gid=f"label {image}", **below)
            fig.text(0.5, -(0.1 + LINE) / side, f"{near:.1f} dB", weight="bold", gid=f"near {image}", **below)
        place = {"transform": behind.axes["leaked 0"].transAxes, "fontsize": 16, "weight": "bold"}
        fig.text(0, 1 + 0.12 / side, f"leaked, {step} steps", color=COLORS["adversarial"], gid="title", **place)
        curve = {"transform": behind.axes["curve"].transData}
        levels, mean = range(len(LEVELS)), found.mean(1)
        fig.add_artist(Line2D(levels, mean, color=COLORS["adversarial"], linewidth=2.5, gid="mean", **curve))
        across = torch.tensor(levels)[:, None].expand_as(found)
        for gid, chosen, fill in (("single", ~leaks.astray, COLORS["adversarial"]), ("astray", leaks.astray, "white")):
            points = across[chosen].flatten(), found[chosen].flatten()
            fig.add_artist(Line2D(*points, markerfacecolor=fill, gid=gid, **SEEN, **curve))
        fig.add_artist(Line2D([level], [mean[level]], gid="present", **HERE, **curve))
    return fig


def label_words(leaks: Leaks, level: int, step: int, image: int) -> str:
    """What the attacker takes the label of an image for by now."""
    if not leaks.labels_known(step):
        return "label sought"
    label = int(leaks.labels[level, image])
    return f"label {leaks.classes[label]}, {'right' if label == leaks.y[image] else 'wrong'}"


def check_place(leaks: Leaks, level: int, step: int) -> int:
    """The number of the snapshot; `ValueError` unless the level and the step exist."""
    if level not in range(len(LEVELS)):
        raise ValueError(f"level is {describe_value(level)}; accepted: 0 to {len(LEVELS) - 1}")
    if step not in leaks.steps:
        raise ValueError(f"step is {describe_value(step)}; accepted: {', '.join(map(str, leaks.steps))}")
    return leaks.steps.index(step)


def verdict(leaks: Leaks, level: int, step: int) -> str:
    """In words: what has come out so far, and why no more.

    Args:
        leaks: of one batch.
        level: which of `LEVELS`, from 0.
        step: one of `leaks.steps`.
    Returns:
        a few sentences.
    Raises:
        ValueError: names the argument.
    """
    now, end = (leaks.psnr[moment, level] for moment in (check_place(leaks, level, step), -1))
    one, batch, sigma = leaks.batch == 1, leaks.batch, LEVELS[level]
    of = "the first training image" if one else f"the first {batch} training images"
    noise = f"with noise {sigma / leaks.spread:.2g} times as large as they are" if sigma else "without noise"
    count = int((now >= RECOGNIZED).sum())
    if one:
        read = "the image is recognized" if count else "the image is not recognized"
    else:
        read = f"{count or 'none'} of the {batch} images {'is' if count < 2 else 'are'} recognized"
    words = f"The attacker holds the gradient of {of}: {leaks.numbers:,} numbers, {noise}. After {step} steps {read}."
    if leaks.astray[level]:
        words += (
            " This search runs away (white markers): the gradient of what it finds stays far from the one that was "
            "sent. The attacker sees that, and starts again: choose another start."
        )
    elif count < (end >= RECOGNIZED).sum() or now.mean() + 1 < end.mean():
        words += " Take more steps."
    elif now.mean() < leaks.blank + 3:
        words += " What was found is hardly nearer to the truth than black images are, or not even that."
    elif count < batch:
        words += " More than traces of the truth are there all the same: look at them."
    if (leaks.psnr[-1].mean(1).diff() > 1).any():
        words += " That more noise may do less harm is by chance: each level's search starts in another place."
    return f"{words} The label takes no search: the last layer's gradient gives it away." if one else words


def describe(leaks: Leaks, level: int, step: int) -> str:
    """The picture for somebody who cannot see it."""
    snapshot = check_place(leaks, level, step)
    found = leaks.psnr[snapshot]
    near = ", ".join(f"{value:.1f}" for value in found[level].tolist())
    labels = "; ".join(label_words(leaks, level, step, image) for image in range(leaks.batch))
    curve = ", ".join(f"{name} {mean:.1f}" for name, mean in zip(LEVEL_NAMES, found.mean(1).tolist(), strict=True))
    return (
        f"True images of {leaks.dataset}: {', '.join(leaks.names)}; below, what was computed from their gradient, "
        f"with noise {LEVEL_NAMES[level]}, after {step} steps: {near} dB; {labels}. A curve of the mean PSNR in dB at "
        f"each noise level: {curve}; black images would have {leaks.blank:.1f}."
    )


def leakage_explorer(dataset: str | None = None) -> Explorable:
    """The explorable: compute images from their gradient, and hide them in noise or among others.

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
        "batch": widgets.Dropdown(description="batch size", options=list(STEPS)),
        "start": widgets.Dropdown(description="start", options=STARTS),
        "level": widgets.SelectionSlider(
            description="noise", options=[(name, level) for level, name in enumerate(LEVEL_NAMES)]
        ),
        "step": widgets.SelectionSlider(description="steps", options=step_options(1), value=STEPS[1]),
    }

    def adapt(name: str) -> None:
        if name == "batch":
            refill(controls["step"], step_options(controls["batch"].value))

    def of_leaks(show: Callable[[Leaks, int, int], object]) -> Callable[..., object]:
        return lambda level, step, **setting: show(leaks(**setting), level, step)

    return Explorable(
        of_leaks(render),
        controls,
        alt=of_leaks(describe),
        caption=of_leaks(verdict),
        slow=("dataset", "batch", "start"),
        adapt=adapt,
    )


def step_options(batch: int) -> list[tuple[str, int]]:
    """The snapshots of a batch, for a slider."""
    return [(f"{step}", step) for step in step_numbers(batch)]

"""The epsilon explorer: one image, one attack, and what becomes of both as the ball around the image grows."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import ipywidgets as widgets
import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Transform
from torch import Tensor

from spai_lab.checks import NORMS, check_choice, check_count
from spai_lab.figures import draw_rates, sayings
from spai_lab.metrics import Rate
from spai_lab.style import (
    COLORS,
    DIVERGING,
    MARKERS,
    Backdrop,
    frame,
    image_colors,
    magnified,
    panels,
    styled,
)
from spai_lab.training import reference
from spai_lab.widgets.choices import (
    ATTACK_NAMES,
    ATTACKS,
    IMAGES,
    MODELS,
    NORM_NAMES,
    image_options,
    invert,
    offline_datasets,
    refill,
    sample_images,
    starting_dataset,
)
from spai_lab.widgets.explorable import Explorable

GRIDS = {
    "linf": tuple(round(0.025 * step, 3) for step in range(17)),
    "l2": tuple(round(0.25 * step, 2) for step in range(17)),
}
NO_TARGET = -1


@dataclass(frozen=True, eq=False)
class Sweep:
    """One attack on the same images, at every eps of a grid; the first eps is 0.

    Args:
        dataset, model, attack, norm: names.
        target: the class that the attack aims for; None for any wrong one.
        classes: names of the K classes.
        y: true labels `(N,)`.
        eps: the grid, E radii.
        x_adv: adversarial images `(E, N, C, H, W)`; at eps 0 the clean ones.
        probabilities: what the model says of them, `(E, N, K)`.
        note: what the attack warned of, or nothing.
    """

    dataset: str
    model: str
    attack: str
    norm: str
    target: int | None
    classes: tuple[str, ...]
    y: Tensor
    eps: tuple[float, ...]
    x_adv: Tensor
    probabilities: Tensor
    note: str

    @property
    def answers(self) -> Tensor:
        """The class that the model names, `(E, N)`."""
        return self.probabilities.argmax(2)

    @property
    def counted(self) -> Tensor:
        """The images that the rates count, `(N,)`: an image of the target class has nowhere to go."""
        return torch.ones_like(self.y, dtype=torch.bool) if self.target is None else self.y != self.target

    @property
    def fooled(self) -> Tensor:
        """Where the attack got what it wanted, `(E, N)`: any wrong class, or the target."""
        return self.answers != self.y if self.target is None else self.answers == self.target

    def accuracy(self) -> dict[float, Rate]:
        """At each eps, the share of the counted images that the model gets right."""
        return self._rates(self.answers == self.y)

    def success(self) -> dict[float, Rate]:
        """At each eps, the share of the counted images with which the attack got what it wanted."""
        return self._rates(self.fooled)

    def _rates(self, hits: Tensor) -> dict[float, Rate]:
        hits = hits[:, self.counted]
        return {eps: Rate(int(row.sum()), len(row)) for eps, row in zip(self.eps, hits, strict=True)}

    def smallest(self, image: int) -> float | None:
        """The smallest eps of the grid at which the attack got what it wanted with this image; None if it never did."""
        return next((eps for eps, hit in zip(self.eps, self.fooled[:, image].tolist(), strict=True) if hit), None)


@lru_cache(maxsize=8)
@torch.no_grad()
def sweep(
    dataset: str, model: str, attack: str, norm: str = "linf", target: int | None = None, images: int = IMAGES
) -> Sweep:
    """Run an attack at every eps of its norm's grid; the last eight results are kept.

    Args:
        dataset: "digits" or "mnist".
        model: one of `MODELS`, a reference model.
        attack: one of `ATTACKS`, with as many steps as stand there.
        norm: "linf" or "l2".
        target: the class to aim for; None for any wrong one.
        images: how many of the test set.
    Returns:
        the sweep.
    Raises:
        ValueError: names the argument.
    """
    check_choice("model", model, tuple(MODELS))
    check_choice("attack", attack, tuple(ATTACKS))
    check_choice("norm", norm, NORMS)
    check_count("images", images)
    x, y, classes = sample_images(dataset, images)
    if target is not None and target not in range(len(classes)):
        raise ValueError(f"target is {target!r}; accepted: None, or a class from 0 to {len(classes) - 1}")
    victim = reference(model, dataset).eval()
    aim = y if target is None else torch.full_like(y, target)
    settings = {"norm": norm, "targeted": target is not None}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        x_adv = [
            ATTACKS[attack](victim, x, aim, eps=eps, generator=torch.Generator().manual_seed(0), **settings)
            for eps in GRIDS[norm][1:]
        ]
    stacked = torch.stack([x, *x_adv])
    return Sweep(
        *(dataset, model, attack, norm, target, classes, y, GRIDS[norm], stacked),
        probabilities=torch.stack([victim(part).softmax(1) for part in stacked]),
        note=str(caught[0].message) if caught else "",
    )


IMAGE = 2.24  # inches: 8 screen pixels for each of the image's 28
PLACES = {
    "original": (0.2, 3.1, IMAGE, IMAGE),
    "adversarial": (2.7, 3.1, IMAGE, IMAGE),
    "perturbation": (5.2, 3.1, IMAGE, IMAGE),
    "curve": (0.85, 0.65, 5.4, 1.65),
    "bars": (7.95, 0.65, 2.05, 4.5),
}


END = {"markersize": 11, "markeredgecolor": "white"}


@lru_cache(maxsize=8)
def backdrop(sweep: Sweep) -> Backdrop:
    """What neither the image nor eps changes: frames, the curve, and the axes of the probabilities."""
    fig, axes = panels(11.2, 5.75, **PLACES)
    with styled():
        for name, role in (("original", "clean"), ("adversarial", "adversarial"), ("perturbation", "adversarial")):
            frame(axes[name], role, width=6)
            axes[name].set_title(name, loc="center")
        draw_curve(axes["curve"], sweep)
        bars = axes["bars"]
        bars.set(xlim=(0, 1.04), ylim=(len(sweep.classes) - 0.45, -0.55), xlabel="probability")
        bars.set_yticks(range(len(sweep.classes)), sweep.classes, fontsize=14)
        bars.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        handles = [
            Line2D([], [], color=COLORS[role], marker=MARKERS[role], linewidth=8, label=role, **END)
            for role in ("clean", "adversarial")
        ]
        bars.legend(handles=handles, loc="lower left", bbox_to_anchor=(-0.2, 1), ncols=2, columnspacing=1.2)
    return Backdrop.of(fig, axes)


def draw_curve(ax: Axes, sweep: Sweep) -> None:
    """Accuracy against eps with its interval; for a target, also how often it is reached."""
    ends = {"accuracy": sweep.accuracy()}
    if sweep.target is not None:
        ends[f"taken for {sweep.classes[sweep.target]}"] = sweep.success()
    for number, (name, rates) in enumerate(ends.items()):
        draw_rates(ax, rates, name, "adversarial", number)
        place, color = rates[sweep.eps[-1]].value, ax.lines[-1].get_color()
        ax.annotate(name, (1.02, place), xycoords=("axes fraction", "data"), va="center", color=color)
    for line in ax.lines:
        line.set_markersize(5)
    ax.axhline(1 / len(sweep.classes), color=COLORS["baseline"], linewidth=1.5, linestyle="--")
    ax.set(xlim=(-0.02 * sweep.eps[-1], 1.02 * sweep.eps[-1]), ylim=(-0.05, 1.05))
    ax.set_yticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
    ax.set_xlabel(f"eps, {NORM_NAMES[sweep.norm]}" + (", in pixel units" if sweep.norm == "linf" else ""))
    ax.set_title(f"{int(sweep.counted.sum())} images under attack (band: 95 % interval, dashed: guessing)")


def render(sweep: Sweep, image: int, eps: float) -> Figure:
    """One image of a sweep at one eps: the images, the probabilities, and where on the curve we are.

    Args:
        sweep: the attack's results.
        image: which of its N images.
        eps: one of its radii.
    Returns:
        the figure. Its parts have names (gid): the images "original", "adversarial" and "perturbation", what is said
        under them "says original" and so on, the bars "clean 3" and "adversarial 3" for class 3, and the rates at this
        eps "accuracy" and "success".
    Raises:
        ValueError: names the argument.
    """
    step = step_of(sweep, image, eps)
    x, x_adv = sweep.x_adv[[0, step], image]
    change, _, magnification = magnified(x_adv - x)
    said = *sayings(sweep.probabilities[[0, step], image], sweep.classes), magnification
    colors = image_colors(x), image_colors(x_adv), mpl.colormaps[DIVERGING]((1 + change) / 2, bytes=True)
    behind = backdrop(sweep)
    with styled():
        fig = behind.picture()
        for name, pixels, words in zip(("original", "adversarial", "perturbation"), colors, said, strict=True):
            behind.lay_image(fig, name, pixels, gid=name)
            place = behind.axes[name].transAxes
            fig.text(0.5, -0.05, words, transform=place, ha="center", va="top", fontsize=15, gid=f"says {name}")
        draw_probabilities(fig, behind.axes["bars"].transData, sweep, image, step)
        draw_present(fig, behind.axes["curve"].transData, sweep, eps)
    return fig


def draw_probabilities(fig: Figure, place: Transform, sweep: Sweep, image: int, step: int) -> None:
    """A pair of bars for each class, clean above adversarial, with a marker at each end that one can tell from zero."""
    for role, at, offset in (("clean", 0, -0.4), ("adversarial", step, 0.0)):
        lengths = sweep.probabilities[at, image].tolist()
        for k, length in enumerate(lengths):
            bar = Rectangle((0, k + offset), length, 0.38, facecolor=COLORS[role], gid=f"{role} {k}")
            bar.set_transform(place)
            fig.add_artist(bar)
        ends = [(length, k + offset + 0.19) for k, length in enumerate(lengths) if length > 0.02]
        marker = Line2D(*zip(*ends, strict=True), linestyle="", color=COLORS[role], marker=MARKERS[role])
        marker.set(transform=place, **END)
        fig.add_artist(marker)
    names = {int(sweep.y[image]): ("true class", "clean")}
    if sweep.target is not None:
        names.setdefault(sweep.target, ("target", "adversarial"))
    for k, (name, role) in names.items():
        fig.text(1.1, k, name, transform=place, va="center", color=COLORS[role], weight="bold", gid=name)


def draw_present(fig: Figure, place: Transform, sweep: Sweep, eps: float) -> None:
    """The present eps on the curve, with the rates there, each written where its curve does not run."""
    fig.add_artist(Line2D([eps, eps], [-0.05, 1.05], color="black", linewidth=1.5, transform=place))
    rates = {"accuracy": sweep.accuracy()[eps].value}
    if sweep.target is not None:
        rates["success"] = sweep.success()[eps].value
    crossed = rates["accuracy"] < max(rates.values())
    for name, rate in rates.items():
        point = Line2D([eps], [rate], color="black", marker="o", markersize=11, fillstyle="none", transform=place)
        fig.add_artist(point)
        above = rate == max(rates.values())
        fig.text(
            eps + (-0.02 if crossed else 0.02) * sweep.eps[-1],
            min(max(rate + (0.15 if above else -0.15), 0.06), 0.93),
            percent(rate),
            ha="right" if crossed else "left",
            va="center",
            fontsize=15,
            weight="bold",
            transform=place,
            path_effects=[withStroke(linewidth=4, foreground="white")],
            gid=name,
        )


def percent(rate: float) -> str:
    """A share for the eye.

    >>> percent(0.83)
    '83 %'
    """
    return f"{100 * rate:.0f} %"


def step_of(sweep: Sweep, image: int, eps: float) -> int:
    """Where `eps` is on the grid, after a check of both values."""
    if image not in range(len(sweep.y)):
        raise ValueError(f"image is {image!r}; accepted: 0 to {len(sweep.y) - 1}")
    if eps not in sweep.eps:
        raise ValueError(f"eps is {eps!r}; accepted: a radius of the grid, {sweep.eps[0]:g} to {sweep.eps[-1]:g}")
    return sweep.eps.index(eps)


def verdict(sweep: Sweep, image: int, eps: float) -> str:
    """In words: what the attack did to this image, and how many images the model still gets right."""
    step = step_of(sweep, image, eps)
    label = sweep.classes[sweep.y[image]]
    before, after = (sweep.classes[answer] for answer in sweep.answers[[0, step], image])
    smallest = sweep.smallest(image)
    aim = "fools it" if sweep.target is None else f"makes it {sweep.classes[sweep.target]}"
    if not sweep.counted[image]:
        outcome = f"This image is {label} already, so there is nothing to aim for, and the curve leaves it out."
    elif before != label:
        outcome = f"The model takes this {label} for {before} even at eps 0. At eps {eps:g} it says {after}."
    else:
        happened = f"{before} → {after} at eps {eps:g}." if before != after else f"Still {after} at eps {eps:g}."
        hint = " Move eps to the right and watch the adversarial bars." if eps == 0 else ""
        reach = ""
        if smallest is not None and smallest <= eps:  # earlier it would give away what the student is to find
            reach = f"The smallest eps of the grid that {aim}: {smallest:g}."
        elif eps == sweep.eps[-1]:
            reach = f"No eps of the grid {aim}."
        outcome = f"{happened}{hint} {reach}".rstrip()
    left = f"Accuracy left: {sweep.accuracy()[eps]}."
    success = "" if sweep.target is None else f"Taken for the target: {sweep.success()[eps]}."
    return " ".join(filter(None, [outcome, left, success, sweep.note]))


def describe(sweep: Sweep, image: int, eps: float) -> str:
    """The picture for somebody who cannot see it."""
    step = step_of(sweep, image, eps)
    clean, attacked = sayings(sweep.probabilities[[0, step], image], sweep.classes)
    aim = "any wrong class" if sweep.target is None else sweep.classes[sweep.target]
    label, attack, norm = sweep.classes[sweep.y[image]], ATTACK_NAMES[sweep.attack], NORM_NAMES[sweep.norm]
    return (
        f"{MODELS[sweep.model]} on {sweep.dataset}: of the original, a {label}, the model says {clean}; "
        f"under {attack}, at eps {eps:g} in {norm} and aimed at {aim}, it says {attacked}. "
        f"A curve shows the accuracy left against eps; here it is {percent(sweep.accuracy()[eps].value)}."
    )


def epsilon_explorer(dataset: str | None = None, *, images: int = IMAGES) -> Explorable:
    """The explorable of chapter 02: choose the victim, the attack and an image, then move eps.

    Args:
        dataset: "digits" or "mnist" to start with; None takes what `load()` finds.
        images: how many test images the curve rests on.
    Returns:
        the widget.
    Raises:
        ValueError: names the argument.
    """
    start = starting_dataset(dataset)
    controls = {
        "dataset": widgets.Dropdown(description="data set", options=offline_datasets(), value=start),
        "model": widgets.Dropdown(description="model", options=invert(MODELS), value="lenet"),
        "attack": widgets.Dropdown(description="attack", options=invert(ATTACK_NAMES)),
        "norm": widgets.Dropdown(description="norm", options=invert(NORM_NAMES)),
        "target": widgets.Dropdown(description="target", options=target_options(start)),
        "image": widgets.SelectionSlider(description="image", options=image_options(start, images)),
        "eps": widgets.SelectionSlider(description="eps", options=eps_options("linf"), value=0.1),
    }

    def adapt(name: str) -> None:
        if name == "norm":
            refill(controls["eps"], eps_options(controls["norm"].value))
        if name == "dataset":
            refill(controls["image"], image_options(controls["dataset"].value, images))

    def of_sweep(show: Callable[[Sweep, int, float], object]) -> Callable[..., object]:
        def shown(target: int, image: int, eps: float, **setting: str) -> object:
            aim = None if target == NO_TARGET else target
            return show(sweep(**setting, target=aim, images=images), image, eps)

        return shown

    return Explorable(
        of_sweep(render),
        controls,
        alt=of_sweep(describe),
        caption=of_sweep(verdict),
        slow=("dataset", "model", "attack", "norm", "target"),
        adapt=adapt,
    )


def eps_options(norm: str) -> list[tuple[str, float]]:
    """The grid of a norm."""
    return [(f"{eps:g}", eps) for eps in GRIDS[norm]]


def target_options(dataset: str) -> list[tuple[str, int]]:
    """No target, or one of the classes; a dropdown takes None for nothing chosen."""
    return [("any wrong class", NO_TARGET), *((name, k) for k, name in enumerate(sample_images(dataset, 1)[2]))]

"""The epsilon explorer: one image, one attack, and what becomes of both as the ball around the image grows."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import ipywidgets as widgets
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.transforms import Transform
from torch import Tensor

from spai_lab.attacks import bim, fgsm, mim, pgd
from spai_lab.checks import NORMS, check_choice, check_count
from spai_lab.data import available, load
from spai_lab.figures import draw_rates, sayings
from spai_lab.metrics import Rate
from spai_lab.style import COLORS, MARKERS, Backdrop, draw_image, draw_perturbation, panels, styled
from spai_lab.training import reference
from spai_lab.widgets.explorable import Explorable

ATTACKS: dict[str, Callable[..., Tensor]] = {"fgsm": fgsm, "bim": bim, "pgd": pgd, "mim": mim}
MODELS = {"softmax": "softmax regression", "mlp": "MLP", "lenet": "LeNet", "lenet-robust": "LeNet, robust"}
NORM_NAMES = {"linf": "L-inf", "l2": "L2"}
GRIDS = {
    "linf": tuple(round(0.02 * step, 2) for step in range(21)),
    "l2": tuple(round(0.3 * step, 1) for step in range(21)),
}
IMAGES = 100


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


@lru_cache(maxsize=2)
def test_images(dataset: str, count: int) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """The first images of a test set, which are a fair sample, with their labels and the names of the classes."""
    data = load(dataset)
    return data.x_test[:count].clone(), data.y_test[:count].clone(), data.classes


@lru_cache(maxsize=8)
@torch.no_grad()
def sweep(
    dataset: str, model: str, attack: str, norm: str = "linf", target: int | None = None, images: int = IMAGES
) -> Sweep:
    """Run an attack at every eps of its norm's grid; the last eight results are kept.

    Args:
        dataset: "digits" or "mnist".
        model: one of `MODELS`, a reference model.
        attack: one of `ATTACKS`, at its default settings.
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
    x, y, classes = test_images(dataset, images)
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


WIDTH, HEIGHT = 11.2, 5.75
SIDE = 2.24  # inches: 8 screen pixels for each of the image's 28
PLACES = {"original": (0.2, 3.05, SIDE, SIDE), "adversarial": (2.7, 3.05, SIDE, SIDE), "change": (5.2, 3.05, SIDE, SIDE)}


@lru_cache(maxsize=8)
def backdrop(sweep: Sweep) -> Backdrop:
    """What neither the image nor eps changes: the curve, and the axes of the probabilities."""
    fig, axes = panels(WIDTH, HEIGHT, curve=(0.95, 0.65, 6.4, 1.6), bars=(8.25, 0.65, 2.1, 4.45))
    curve, bars = axes["curve"], axes["bars"]
    with styled():
        draw_rates(curve, sweep.accuracy(), "right", "adversarial")
        if sweep.target is not None:
            draw_rates(curve, sweep.success(), f"taken for {sweep.classes[sweep.target]}", "adversarial", ":")
            curve.legend(loc="center right")
        curve.axhline(1 / len(sweep.classes), color=COLORS["baseline"], linewidth=1.5, linestyle="--")
        curve.set(xlim=(-0.02 * sweep.eps[-1], 1.02 * sweep.eps[-1]), ylim=(-0.05, 1.05))
        curve.set_yticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
        curve.set_xlabel(f"eps, {NORM_NAMES[sweep.norm]}" + ", in pixel units of [0, 1]")
        share = "Accuracy left" if sweep.target is None else "Right, and taken for the target,"
        curve.set_title(f"{share} on {int(sweep.counted.sum())} test images (band: 95 % interval, gray: guessing)")
        bars.set(xlim=(0, 1.04), ylim=(len(sweep.classes) - 0.45, -0.55))
        bars.set_yticks(range(len(sweep.classes)), sweep.classes, fontsize=14)
        bars.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        bars.set_xlabel("probability")
        handles = [
            Line2D([], [], color=COLORS[role], marker=MARKERS[role], linewidth=8, label=role)
            for role in ("clean", "adversarial")
        ]
        bars.legend(handles=handles, loc="lower left", bbox_to_anchor=(-0.1, 1), ncols=2, columnspacing=1.2)
    return Backdrop.of(fig, axes)


def render(sweep: Sweep, image: int, eps: float) -> Figure:
    """One image of a sweep at one eps: the images, the probabilities, and where on the curve we are.

    Args:
        sweep: the attack's results.
        image: which of its N images.
        eps: one of its radii.
    Returns:
        the figure. Its bars carry the gid "clean 3" for class 3, its numbers "accuracy" and "success".
    Raises:
        ValueError: names the argument.
    """
    step = step_of(sweep, image, eps)
    x, x_adv = sweep.x_adv[0, image], sweep.x_adv[step, image]
    behind = backdrop(sweep)
    with styled():
        fig, axes = behind.picture(**PLACES)
        said = sayings(sweep.probabilities[[0, step], image], sweep.classes)
        draw_image(axes["original"], x, said[0], title=f"original: {sweep.classes[sweep.y[image]]}")
        draw_image(axes["adversarial"], x_adv, said[1], role="adversarial", title=f"adversarial, eps {eps:g}")
        draw_perturbation(axes["change"], x_adv - x)
        draw_probabilities(fig, behind.axes["bars"].transData, sweep, image, step)
        draw_present(fig, behind.axes["curve"].transData, sweep, eps)
    return fig


def draw_probabilities(fig: Figure, place: Transform, sweep: Sweep, image: int, step: int) -> None:
    """A pair of bars for each class, clean above adversarial, a marker at each end; true class and target are named."""
    for role, at, offset in (("clean", 0, -0.4), ("adversarial", step, 0.0)):
        lengths = sweep.probabilities[at, image].tolist()
        for k, length in enumerate(lengths):
            bar = Rectangle((0, k + offset), length, 0.38, color=COLORS[role], transform=place, gid=f"{role} {k}")
            fig.add_artist(bar)
        rows = [k + offset + 0.19 for k in range(len(lengths))]
        fig.add_artist(Line2D(lengths, rows, linestyle="", color=COLORS[role], marker=MARKERS[role], transform=place))
    names = {int(sweep.y[image]): ("true class", "clean")}
    if sweep.target is not None:
        names.setdefault(sweep.target, ("target", "adversarial"))
    for k, (name, role) in names.items():
        fig.text(1.08, k, name, transform=place, va="center", color=COLORS[role], weight="bold")


def draw_present(fig: Figure, place: Transform, sweep: Sweep, eps: float) -> None:
    """The present eps on the curve, with the rates there."""
    fig.add_artist(Line2D([eps, eps], [-0.05, 1.05], color="black", linewidth=1.5, transform=place))
    rates = {"accuracy": sweep.accuracy()[eps]}
    if sweep.target is not None:
        rates["success"] = sweep.success()[eps]
    right_half = eps > sweep.eps[-1] / 2
    for name, rate in rates.items():
        point = Line2D([eps], [rate.value], marker="o", markersize=11, color="black", fillstyle="none", transform=place)
        fig.add_artist(point)
        fig.text(
            eps + sweep.eps[-1] * (-0.02 if right_half else 0.02),
            min(max(rate.value + 0.13, 0.1), 0.95),
            f"{rate.value:.0%}".replace("%", " %"),
            ha="right" if right_half else "left",
            va="center",
            fontsize=15,
            weight="bold",
            transform=place,
            gid=name,
        )


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
        reach = f"No eps of the grid {aim}." if smallest is None else f"The smallest eps of the grid that {aim}: {smallest:g}."
        outcome = f"{happened}{hint} {reach}"
    left = f"Accuracy left: {sweep.accuracy()[eps]}."
    success = "" if sweep.target is None else f"Taken for the target: {sweep.success()[eps]}."
    return " ".join(filter(None, [outcome, left, success, sweep.note]))


def describe(sweep: Sweep, image: int, eps: float) -> str:
    """The picture for somebody who cannot see it."""
    step = step_of(sweep, image, eps)
    clean, attacked = sayings(sweep.probabilities[[0, step], image], sweep.classes)
    aim = "any wrong class" if sweep.target is None else sweep.classes[sweep.target]
    return (
        f"{MODELS[sweep.model]} on {sweep.dataset}: of the original, a {sweep.classes[sweep.y[image]]}, the model says {clean}; "
        f"of the image under {sweep.attack} at eps {eps:g} in {NORM_NAMES[sweep.norm]}, aimed at {aim}, it says {attacked}. "
        f"A curve shows the accuracy left against eps; here it is {sweep.accuracy()[eps].value:.0%}."
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
    start = load(dataset).name
    offline = [name for name, place in available().items() if name in ("digits", "mnist") and isinstance(place, Path)]
    controls = {
        "dataset": widgets.Dropdown(description="data set", options=offline, value=start),
        "model": widgets.Dropdown(description="model", options=invert(MODELS), value="lenet"),
        "attack": widgets.Dropdown(description="attack", options=list(ATTACKS)),
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
        return lambda image, eps, **setting: show(sweep(**setting, images=images), image, eps)

    return Explorable(
        of_sweep(render),
        controls,
        alt=of_sweep(describe),
        caption=of_sweep(verdict),
        slow=("dataset", "model", "attack", "norm", "target"),
        adapt=adapt,
    )


def invert(names: dict[str, str]) -> list[tuple[str, str]]:
    """Pairs (what the student reads, the value behind it), as ipywidgets wants them."""
    return [(shown, value) for value, shown in names.items()]


def eps_options(norm: str) -> list[tuple[str, float]]:
    """The grid of a norm."""
    return [(f"{eps:.2f}" if norm == "linf" else f"{eps:.1f}", eps) for eps in GRIDS[norm]]


def image_options(dataset: str, images: int) -> list[tuple[str, int]]:
    """The images, each with its number and its label."""
    _, y, classes = test_images(dataset, images)
    return [(f"{place}: a {classes[label]}", place) for place, label in enumerate(y.tolist())]


def target_options(dataset: str) -> list[tuple[str, int | None]]:
    """No target, or one of the classes."""
    return [("any wrong class", None), *((name, k) for k, name in enumerate(test_images(dataset, 1)[2]))]


def refill(slider: widgets.SelectionSlider, options: list[tuple[str, object]]) -> None:
    """Give a slider other options and leave its handle where it is, as far as there are options."""
    place = min(slider.index, len(options) - 1)
    slider.options = options
    slider.index = place

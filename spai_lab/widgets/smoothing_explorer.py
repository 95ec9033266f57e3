"""Randomized smoothing of one image: the votes under noise, what they prove, and the radius at each sigma."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import ipywidgets as widgets
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from scipy.stats import norm
from torch import Tensor, nn

from spai_lab.checks import check_choice
from spai_lab.data import Dataset, load
from spai_lab.defenses.evasion.smoothing import (
    gaussian_noise_training,
    lower_confidence_bound,
    noisy,
    randomized_smoothing,
    votes,
)
from spai_lab.style import COLORS, MARKERS, Backdrop, image_colors, panels, styled
from spai_lab.threat import fooled
from spai_lab.training.cache import cached
from spai_lab.training.recipes import Recipe, Robustly
from spai_lab.widgets.choices import offline_datasets, refill, starting_dataset
from spai_lab.widgets.explorable import Explorable

SIGMAS = (0.12, 0.25, 0.5, 1.0)
TRAINED_WITH = 0.5
TRAINED_ON = 3000
EPOCHS = {"digits": 12, "mnist": 4}
N0, N, ALPHA = 100, 1000, 0.001
IMAGES = 5
COPIES = 3


@dataclass(frozen=True, eq=False)
class Smoothed:
    """What randomized smoothing says of one image at one sigma.

    Args:
        sigma: standard deviation of the noise, in pixel units.
        copies: noisy copies `(COPIES, C, H, W)`, not clipped.
        answers: what the network says of each of them.
        guess: the class that the first `N0` votes choose.
        counts: the `N` other votes, by class.
        p_a: Clopper and Pearson's lower bound of the probability of that class.
        radius: what is certified in L2, in pixel units; 0 where it abstains.
        abstained: whether nothing is certified.
    """

    sigma: float
    copies: Tensor
    answers: tuple[int, ...]
    guess: int
    counts: tuple[int, ...]
    p_a: float
    radius: float
    abstained: bool


@dataclass(frozen=True, eq=False)
class Subject:
    """An image and what smoothing says of it at every sigma.

    Args:
        dataset: its name.
        image: the image's number.
        x: `(1, C, H, W)` in [0, 1].
        y: its label.
        classes: names of the K classes.
        at: the outcome by sigma.
    """

    dataset: str
    image: int
    x: Tensor
    y: int
    classes: tuple[str, ...]
    at: dict[float, Smoothed]


@cache
def data_of(dataset: str) -> Dataset:
    """The data set, with few training images."""
    check_choice("dataset", dataset, tuple(EPOCHS))
    return load(dataset).first(TRAINED_ON)


@cache
def base(dataset: str) -> nn.Module:
    """A LeNet trained with Gaussian noise of `TRAINED_WITH`."""
    objective = Robustly(gaussian_noise_training, sigma=TRAINED_WITH)
    recipe = Recipe("lenet", epochs=EPOCHS[dataset], batch_size=64, learning_rate=4e-3, objective=objective)
    return cached(recipe, data_of(dataset), seed=0, progress=False)[0]


@cache
def chosen(dataset: str) -> tuple[Tensor, Tensor]:
    """The first test images of `IMAGES` classes that the network reads rightly, and their labels."""
    x, y = data_of(dataset).sample(100)
    right = (~fooled(base(dataset), x, y)).nonzero()[:, 0].tolist()
    first = {int(y[place]): place for place in reversed(right)}
    places = sorted(first.values())[:IMAGES]
    return x[places], y[places]


@cache
def subject(dataset: str, image: int) -> Subject:
    """Let noisy copies of an image vote, at every sigma.

    Args:
        dataset: "digits" or "mnist".
        image: 0 to `IMAGES - 1`.
    Returns:
        the image and the outcomes.
    Raises:
        ValueError: names the argument.
    """
    check_choice("dataset", dataset, tuple(EPOCHS))
    if image not in range(IMAGES):
        raise ValueError(f"image is {image!r}; accepted: 0 to {IMAGES - 1}")
    x, y = (part[[image]] for part in chosen(dataset))
    at = {sigma: smoothed(base(dataset), x, sigma, seed=image) for sigma in SIGMAS}
    return Subject(dataset, image, x, int(y), data_of(dataset).classes, at)


@torch.no_grad()
def smoothed(model: nn.Module, x: Tensor, sigma: float, seed: int) -> Smoothed:
    """Certify one image `(1, C, H, W)`, and keep some noisy copies to look at."""
    certified = randomized_smoothing(
        model, x, sigma=sigma, n0=N0, n=N, alpha=ALPHA, generator=seeded(seed), progress=False
    )
    guess = int(votes(model, x[0], N0, sigma, N0, seeded(seed)).argmax())  # as it drew them first
    counts = certified.counts[0]
    p_a = float(lower_confidence_bound(counts[[guess]], N, ALPHA))
    copies = noisy(x.expand(COPIES, *x.shape[1:]), sigma, seeded(seed))
    answers = tuple(model(copies).argmax(1).tolist())
    outcome = (float(certified.radius[0]), bool(certified.abstained[0]))
    return Smoothed(sigma, copies, answers, guess, tuple(counts.tolist()), p_a, *outcome)


def seeded(seed: int) -> torch.Generator:
    """The same draws each time."""
    return torch.Generator().manual_seed(seed)


def farthest(sigma: float) -> float:
    """The radius that `N` votes for one class certify: no image can get more from so few."""
    return sigma * norm.ppf(lower_confidence_bound(torch.tensor(N), N, ALPHA).item())


IMAGE = 1.96  # inches: 7 screen pixels for each of the image's 28
PLACES = {
    **{f"image {place}": (0.4 + 2.75 * place, 5.05, IMAGE, IMAGE) for place in range(COPIES + 1)},
    "votes": (0.85, 0.8, 5.0, 2.85),
    "radius": (6.95, 0.8, 4.1, 2.85),
}
PRESENT = {"color": "black", "linestyle": "", "marker": "o", "fillstyle": "none", "markersize": 22}


@cache
def backdrop(found: Subject) -> Backdrop:
    """What sigma leaves as it is: the image, the axes, and the curve of the radii."""
    fig, axes = panels(11.3, 7.5, **PLACES)
    with styled():
        for place in range(COPIES + 1):
            axes[f"image {place}"].set_axis_off()
        ax = axes["votes"]
        ax.set(xlim=(-0.6, len(found.classes) - 0.4), ylim=(0, 1.12 * N), xlabel="class", ylabel=f"votes of {N:,}")
        ax.set_xticks(range(len(found.classes)), found.classes)
        ax.axhline(N / 2, color=COLORS["baseline"], linewidth=2, linestyle=":")
        ax.annotate("half", (1, N / 2), xycoords=("axes fraction", "data"), ha="right", va="bottom")
        ax = axes["radius"]
        limit = [farthest(sigma) for sigma in SIGMAS]
        ax.plot(SIGMAS, limit, color=COLORS["baseline"], linestyle=":", label=f"most that {N:,} votes certify")
        radii = [found.at[sigma].radius for sigma in SIGMAS]
        ax.plot(SIGMAS, radii, color=COLORS["defended"], linewidth=3, label="certified for this image")
        for sigma, radius in zip(SIGMAS, radii, strict=True):
            ax.plot(sigma, radius, **look(found.at[sigma]), markersize=11)
        if any(outcome.abstained for outcome in found.at.values()):
            ax.plot([], [], color=COLORS["baseline"], marker="X", linestyle="", markersize=11, label="abstains")
        ax.set(xlim=(0, 1.08), ylim=(-0.08, 1.04 * limit[-1]), xlabel="sigma, in pixel units", xticks=SIGMAS)
        ax.set_xticks(SIGMAS, [f"{sigma:g}" for sigma in SIGMAS])
        ax.set(ylabel="certified L2 radius")
        ax.legend(loc="upper left", bbox_to_anchor=(-0.02, 1.06), fontsize=13)
    return Backdrop.of(fig, axes)


def look(outcome: Smoothed) -> dict:
    """How a certificate is drawn, and an abstention."""
    role = "baseline" if outcome.abstained else "defended"
    return {"color": COLORS[role], "marker": "X" if outcome.abstained else MARKERS[role], "linestyle": ""}


def render(found: Subject, sigma: float) -> Figure:
    """The image, noisy copies of it, the votes and what they prove, and the radii at all sigmas.

    Args:
        found: an image with its votes.
        sigma: one of `SIGMAS`.
    Returns:
        the figure. Its parts have names (gid): "image 0" to "image 3", a "vote" for each class that has any, "bound",
        "words" and "present".
    Raises:
        ValueError: names the argument.
    """
    outcome = outcome_at(found, sigma)
    behind = backdrop(found)
    with styled():
        fig = behind.picture()
        lay_images(fig, behind, found, outcome)
        ax = behind.axes["votes"]
        for label, count in enumerate(outcome.counts):
            if count == 0:
                continue
            role = "clean" if label == found.y else "adversarial"
            bar = {
                "facecolor": COLORS[role],
                "hatch": "" if label == found.y else "//",
                "edgecolor": "white",
                "linewidth": 0,
            }
            fig.add_artist(Rectangle((label - 0.4, 0), 0.8, count, transform=ax.transData, gid="vote", **bar))
            words = {"ha": "center", "va": "bottom", "fontsize": 13, "transform": ax.transData}
            fig.text(label, count + 12, f"{count:,}", **words)
        where = [outcome.guess - 0.48, outcome.guess + 0.48], [N * outcome.p_a] * 2
        fig.add_artist(Line2D(*where, color="black", linewidth=4, transform=ax.transData, gid="bound"))
        says = {"fontsize": 16, "weight": "bold", "transform": ax.transAxes, "va": "bottom"}
        fig.text(-0.1, 1.1, in_short(found, outcome), gid="words", **says)
        ax = behind.axes["radius"]
        point = Line2D([sigma], [outcome.radius], transform=ax.transData, gid="present", **PRESENT)
        point.set_markeredgewidth(3)
        fig.add_artist(point)
    return fig


def lay_images(fig: Figure, behind: Backdrop, found: Subject, outcome: Smoothed) -> None:
    """The image and its noisy copies, each with what the network says of it; only here they are clipped."""
    images = [found.x[0], *outcome.copies.clamp(0, 1)]
    for place, image in enumerate(images):
        name = f"image {place}"
        answer = found.y if place == 0 else outcome.answers[place - 1]
        role, mark = ("clean", "○") if answer == found.y else ("adversarial", "✕")
        behind.lay_frame(fig, name, role)
        behind.lay_image(fig, name, image_colors(image), gid=name)
        title = "the image" if place == 0 else f"noisy copy {place}"
        centered = {"ha": "center", "transform": behind.axes[name].transAxes, "fontsize": 15}
        fig.text(0.5, 1.05, title, va="bottom", **centered)
        fig.text(0.5, -0.05, f"{mark} says {found.classes[answer]}", va="top", **centered)


def in_short(found: Subject, outcome: Smoothed) -> str:
    """The bound and what follows from it, in a line."""
    bound = f"black bar: class {found.classes[outcome.guess]} has $p_A$ ≥ {outcome.p_a:.3f}"
    return f"{bound}:  " + ("abstains" if outcome.abstained else f"certified up to L2 {outcome.radius:.2f}")


def outcome_at(found: Subject, sigma: float) -> Smoothed:
    """What was found at a sigma, if it is one of them."""
    if sigma not in found.at:
        raise ValueError(f"sigma is {sigma!r}; accepted: {', '.join(f'{value:g}' for value in SIGMAS)}")
    return found.at[sigma]


def verdict(found: Subject, sigma: float) -> str:
    """In words: what the votes prove, what would prove more, and which network voted."""
    outcome = outcome_at(found, sigma)
    name, hits = found.classes[outcome.guess], outcome.counts[outcome.guess]
    trust = (
        f"{hits:,} of {N:,} noisy copies vote for {name}: with a confidence of {100 * (1 - ALPHA):g} %, the "
        "probability of such a vote is at least"
    )
    if outcome.abstained:
        result = f"{trust} {outcome.p_a:.3f}. That is not above 1/2, so nothing is certified: it abstains."
    else:
        right = "" if outcome.guess == found.y else f" The class is wrong: the image is a {found.classes[found.y]}."
        result = (
            f"{trust} {outcome.p_a:.3f}. So no change shorter than {outcome.radius:.2f} in L2 turns the smoothed "
            f"classifier from {name}.{right}"
        )
        if hits == N:
            result += f" All votes agree: more votes, not another class, would certify more at sigma {sigma:g}."
    best = max(found.at.values(), key=lambda other: other.radius)
    peak = "No sigma certifies this image."
    if best.radius > 0:
        peak = f"Of all sigmas, {best.sigma:g} certifies the most for this image, {best.radius:.2f}."
    return (
        f"{result} {peak} The network is a LeNet that was trained with noise of sigma {TRAINED_WITH:g} on "
        f"{len(data_of(found.dataset).x_train):,} images of {found.dataset}; copies are clipped for display only."
    )


def describe(found: Subject, sigma: float) -> str:
    """The picture for somebody who cannot see it."""
    outcome = outcome_at(found, sigma)
    says = ", ".join(found.classes[answer] for answer in outcome.answers)
    counts = ", ".join(
        f"class {name} {count:,}" for name, count in zip(found.classes, outcome.counts, strict=True) if count
    )
    radii = ", ".join(f"{other:g}: {found.at[other].radius:.2f}" for other in SIGMAS)
    return (
        f"An image of a {found.classes[found.y]} and {COPIES} copies with Gaussian noise of sigma {sigma:g}, which the "
        f"network calls {says}. A histogram of {N:,} votes: {counts}. {in_short(found, outcome).replace('$', '')}. "
        f"A curve of the certified radius by sigma: {radii}."
    )


def image_choices(dataset: str) -> list[tuple[str, int]]:
    """The slider's images, each with its label."""
    classes = data_of(dataset).classes
    return [(f"{place + 1}: a {classes[label]}", place) for place, label in enumerate(chosen(dataset)[1].tolist())]


def smoothing_explorer(dataset: str | None = None) -> Explorable:
    """The explorable: choose an image and the noise, and see the votes, what they prove, and what noise costs.

    Args:
        dataset: "digits" or "mnist" to start with; None takes what `load()` finds.
    Returns:
        the widget; the network is trained when it opens, and kept in the user's cache.
    Raises:
        ValueError: names the argument.
    """
    start = starting_dataset(dataset)
    controls = {
        "dataset": widgets.Dropdown(description="data set", options=offline_datasets(), value=start),
        "image": widgets.SelectionSlider(description="image", options=image_choices(start)),
        "sigma": widgets.SelectionSlider(
            description="sigma", options=[(f"{sigma:g}", sigma) for sigma in SIGMAS], value=TRAINED_WITH
        ),
    }

    def prepare(name: str) -> None:
        for image in range(IMAGES):
            backdrop(subject(name, image))

    def adapt(name: str) -> None:
        if name == "dataset":
            prepare(controls["dataset"].value)
            refill(controls["image"], image_choices(controls["dataset"].value))

    def of_subject(show: Callable[[Subject, float], object]) -> Callable[..., object]:
        return lambda dataset, image, sigma: show(subject(dataset, image), sigma)

    prepare(start)
    return Explorable(
        of_subject(render),
        controls,
        alt=of_subject(describe),
        caption=of_subject(verdict),
        slow=("dataset",),
        adapt=adapt,
    )

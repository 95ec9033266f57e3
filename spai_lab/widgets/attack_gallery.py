"""The attack gallery: one image, every white-box attack, and what each of them paid for its success."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import ipywidgets as widgets
import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from spai_lab.attacks.evasion import carlini_wagner, deepfool, fgsm, flow_field, jsma, lbfgs, pgd, spatial
from spai_lab.checks import check_choice
from spai_lab.figures import sayings
from spai_lab.query import Query
from spai_lab.style import COLORS, DIVERGING, Backdrop, frame, image_colors, magnified, panels, styled
from spai_lab.threat import fooled, norms
from spai_lab.training import reference
from spai_lab.widgets.choices import (
    MODELS,
    invert,
    starting_dataset,
    well_read_image,
    well_read_options,
)
from spai_lab.widgets.explorable import Explorable

COMPARED = ("lenet", "lenet-robust")
FGSM_GRID = tuple(step / 100 for step in range(1, 51))
PGD_EPS = 0.1
TRIES = 100
HALF_LEVEL = 0.5 / 255  # pixel units; a smaller change is gone once the image is stored with 8 bits


def seeded() -> torch.Generator:
    """The same draws for every image."""
    return torch.Generator().manual_seed(0)


def weakest_fgsm(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """FGSM at the least eps of `FGSM_GRID` that fools the model; at the largest if none does."""
    for eps in FGSM_GRID:
        x_adv = fgsm(model, x, y, eps=eps)
        if fooled(model, x_adv, y).all():
            break
    return x_adv


@dataclass(frozen=True)
class Exhibit:
    """One attack of the gallery.

    Args:
        name: of the attack, above its column.
        setting: what else to know, below the name.
        attack: from a model, one image `(1, C, H, W)` and its label `(1,)` to `x_adv`.
    """

    name: str
    setting: str
    attack: Callable[[nn.Module, Tensor, Tensor], Tensor]


EXHIBITS = (
    Exhibit("FGSM", "least eps", weakest_fgsm),
    Exhibit("PGD", f"eps {PGD_EPS:g}", lambda model, x, y: pgd(model, x, y, eps=PGD_EPS, generator=seeded())),
    Exhibit("DeepFool", "L2", deepfool),
    Exhibit(
        *("C&W", "L2"),
        lambda model, x, y: carlini_wagner(model, x, y, initial_c=1.0, searches=5, steps=200, learning_rate=0.05),
    ),
    Exhibit("L-BFGS", "L2", lambda model, x, y: lbfgs(model, x, y, searches=6, steps=40)),
    Exhibit("JSMA", "two pixels", jsma),
    Exhibit("stAdv", "bends", lambda model, x, y: flow_field(model, x, y, drift=False)),
    Exhibit(
        *("spatial", f"worst of {TRIES}"),
        lambda model, x, y: spatial(Query(model), x, y, tries=TRIES, generator=seeded()),
    ),
)
NAMES = tuple(exhibit.name for exhibit in EXHIBITS)


class Counted(nn.Module):
    """A model that counts the images it is shown.

    >>> model = Counted(nn.Flatten())
    >>> _ = model(torch.zeros(3, 1, 2, 2))
    >>> model.calls
    3
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.calls = model, 0
        self.train(model.training)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += len(x)
        return self.model(x)


@dataclass(frozen=True, eq=False)
class Attempt:
    """What one attack made of the image.

    Args:
        delta: the perturbation `(C, H, W)`.
        probabilities: what the model says of the adversarial image, `(K,)`.
        success: whether the model misreads it.
        calls: how often the model was called, tests of success included.
    """

    delta: Tensor
    probabilities: Tensor
    success: bool
    calls: int

    @property
    def sizes(self) -> dict[str, float]:
        """How much was changed: pixels by at least half a gray level, and the L2 and the L-inf norm."""
        changed = (self.delta.abs() >= HALF_LEVEL).any(0).sum()
        return {"l0": int(changed), **{norm: float(norms(self.delta[None], norm)) for norm in ("l2", "linf")}}


@dataclass(frozen=True, eq=False)
class Gallery:
    """All attacks of `EXHIBITS` on one image.

    Args:
        dataset, model: names.
        classes: names of the K classes.
        y: true label.
        x: the original, `(C, H, W)`.
        probabilities: what the model says of it, `(K,)`.
        attempts: by the attack's name.
        note: what the attacks warned of, or nothing.
    """

    dataset: str
    model: str
    classes: tuple[str, ...]
    y: int
    x: Tensor
    probabilities: Tensor
    attempts: Mapping[str, Attempt]
    note: str

    def says(self, name: str) -> str:
        """What the model says after an attack, such as "3 (98 %)"."""
        return sayings(self.attempts[name].probabilities[None], self.classes)[0]


@lru_cache(maxsize=20)
@torch.no_grad()
def gallery(dataset: str, model: str, image: int) -> Gallery:
    """Run every attack on one image.

    Args:
        dataset: "digits" or "mnist".
        model: "lenet" or "lenet-robust".
        image: one of those that both models read rightly, as `choices.well_read` lists them.
    Returns:
        the gallery; the last twenty are kept.
    Raises:
        ValueError: names the argument.
    """
    check_choice("model", model, COMPARED)
    x, y, classes = well_read_image(dataset, image, COMPARED)
    victim = reference(model, dataset).eval()
    attempts = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for exhibit in EXHIBITS:
            counted = Counted(victim)
            x_adv = exhibit.attack(counted, x, y)
            logits = victim(x_adv)
            attempts[exhibit.name] = Attempt(
                (x_adv - x)[0], logits.softmax(1)[0], bool(logits.argmax(1) != y), counted.calls
            )
    return Gallery(
        *(dataset, model, classes, int(y), x[0], victim(x).softmax(1)[0], attempts),
        note=str(caught[0].message) if caught else "",
    )


WIDTH, HEIGHT = 11.2, 5.35  # inches
IMAGE = 1.12  # inches: 4 screen pixels for each of the image's 28
STRIDE = 1.22
ROWS = {"adversarial": 3.55, "noise": 1.95}
NUMBERS = {"outcome": 1.28, "L0, pixels": 0.98, "L2": 0.72, "L-inf": 0.46, "model calls": 0.2}
PLACES = {"original": (0.12, ROWS["adversarial"], IMAGE, IMAGE)} | {
    f"{name} {row}": (0.22 + STRIDE * column, bottom, IMAGE, IMAGE)
    for column, name in enumerate(NAMES, start=1)
    for row, bottom in ROWS.items()
}


@lru_cache(maxsize=1)
def backdrop() -> Backdrop:
    """What all galleries share: the frames, the names of the attacks and of the numbers."""
    fig, axes = panels(WIDTH, HEIGHT, **PLACES)
    with styled():
        for name, ax in axes.items():
            frame(ax, "clean" if name == "original" else "adversarial", width=6)
        axes["original"].set_title("original", loc="center")
        for exhibit in EXHIBITS:
            head = axes[f"{exhibit.name} adversarial"].transAxes
            fig.text(0.5, 1.29, exhibit.name, transform=head, ha="center", fontsize=15, weight="bold")
            fig.text(0.5, 1.08, exhibit.setting, transform=head, ha="center")
        for label, height in (NUMBERS | {"noise,\nmagnified": ROWS["noise"] + IMAGE / 2}).items():
            fig.text(0.1 / WIDTH, height / HEIGHT, label, va="center", fontsize=13)
    return Backdrop.of(fig, axes)


def render(gallery: Gallery) -> Figure:
    """The original, and in a column for each attack the adversarial image, the noise, and what they cost.

    Args:
        gallery: the results.
    Returns:
        the figure. Its parts have names (gid): the images "original", "JSMA adversarial" and "JSMA noise", what is said
        under them "says original", "JSMA says" and "JSMA magnified", and the numbers "JSMA outcome",
        "JSMA L0, pixels", "JSMA L2", "JSMA L-inf" and "JSMA model calls".
    """
    behind = backdrop()
    with styled():
        fig = behind.picture()
        behind.lay_image(fig, "original", image_colors(gallery.x), gid="original")
        said = sayings(gallery.probabilities[None], gallery.classes)[0]
        write_below(fig, behind, "original", said, "says original")
        for name, attempt in gallery.attempts.items():
            change, _, magnification = magnified(attempt.delta)
            colors = {
                "adversarial": image_colors((gallery.x + attempt.delta).clamp(0, 1)),
                "noise": mpl.colormaps[DIVERGING]((1 + change) / 2, bytes=True),
            }
            for row, pixels in colors.items():
                panel = f"{name} {row}"
                if not attempt.success:
                    behind.lay_frame(fig, panel, "baseline")
                behind.lay_image(fig, panel, pixels, gid=panel)
            write_below(fig, behind, f"{name} adversarial", gallery.says(name), f"{name} says")
            short = magnification.removeprefix("magnified ")
            write_below(fig, behind, f"{name} noise", short, f"{name} magnified")
            write_numbers(fig, name, attempt)
    return fig


def write_below(fig: Figure, behind: Backdrop, panel: str, words: str, gid: str) -> None:
    """Words under an image."""
    place = behind.axes[panel].transAxes
    fig.text(0.5, -0.07, words, transform=place, ha="center", va="top", fontsize=13, gid=gid)


def write_numbers(fig: Figure, name: str, attempt: Attempt) -> None:
    """The column of numbers under an attack."""
    sizes = attempt.sizes
    words = {
        "outcome": "fooled" if attempt.success else "FAILED",
        "L0, pixels": f"{sizes['l0']}",
        "L2": f"{sizes['l2']:.2f}",
        "L-inf": f"{sizes['linf']:.2f}",
        "model calls": f"{attempt.calls:,}",
    }
    left, _, width, _ = PLACES[f"{name} noise"]
    for label, height in NUMBERS.items():
        text = fig.text((left + width / 2) / WIDTH, height / HEIGHT, words[label], ha="center", va="center")
        text.set(fontsize=14, gid=f"{name} {label}")
        if label == "outcome":
            text.set(weight="bold", color=COLORS["adversarial"] if attempt.success else "black")


def verdict(gallery: Gallery) -> str:
    """In words: which of the attacks that succeed pays least, by each measure, and which fail."""
    won = {name: attempt for name, attempt in gallery.attempts.items() if attempt.success}
    failed = [name for name in gallery.attempts if name not in won]
    measures: dict[str, tuple[Callable[[Attempt], float], str]] = {
        "changes the fewest pixels": (lambda attempt: attempt.sizes["l0"], "d"),
        "moves least in L2": (lambda attempt: attempt.sizes["l2"], ".2f"),
        "moves least in L-inf": (lambda attempt: attempt.sizes["linf"], ".2f"),
        "calls the model least often": (lambda attempt: attempt.calls, ",d"),
    }
    parts = []
    for words, (measure, form) in measures.items():
        if won:
            best = min(won, key=lambda name, measure=measure: measure(won[name]))
            parts.append(f"{best} {words} ({measure(won[best]):{form}})")
    best = f"Of the attacks that fool {MODELS[gallery.model]}, {', '.join(parts)}." if won else ""
    lost = f"Failed, in gray: {', '.join(failed)}." if failed else ""
    counted = "A pixel counts as changed from half a gray level of 255 on; calls include the tests of success."
    return " ".join(filter(None, [best, lost, counted, gallery.note]))


def describe(gallery: Gallery) -> str:
    """The picture for somebody who cannot see it."""
    said = sayings(gallery.probabilities[None], gallery.classes)[0]
    columns = [
        f"{name}: {gallery.says(name)}{'' if attempt.success else ', failed'}, {attempt.sizes['l0']} pixels, "
        f"L2 {attempt.sizes['l2']:.2f}, L-inf {attempt.sizes['linf']:.2f}, {attempt.calls:,} calls"
        for name, attempt in gallery.attempts.items()
    ]
    return (
        f"Eight attacks on a {gallery.classes[gallery.y]}, which {MODELS[gallery.model]} on {gallery.dataset} reads as "
        f"{said}; of each the adversarial image and the noise. {'; '.join(columns)}."
    )


def attack_gallery(dataset: str | None = None) -> Explorable:
    """The explorable: choose an image and a model, and compare what the attacks do to it.

    Args:
        dataset: "digits" or "mnist"; None takes the one that `load()` takes.
    Returns:
        the widget.
    Raises:
        ValueError: names the argument.
    """
    dataset = starting_dataset(dataset)
    models = {name: MODELS[name] for name in COMPARED}
    controls = {
        "image": widgets.Dropdown(description="image", options=well_read_options(dataset, COMPARED)),
        "model": widgets.Dropdown(description="model", options=invert(models)),
    }

    def of_gallery(show: Callable[[Gallery], object]) -> Callable[..., object]:
        return lambda model, image: show(gallery(dataset, model, image))

    return Explorable(
        of_gallery(render),
        controls,
        alt=of_gallery(describe),
        caption=of_gallery(verdict),
        slow=("image", "model"),
    )

"""The universal perturbation, as it sees ever more images: what it looks like, and how many unseen ones it fools."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import ipywidgets as widgets
import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from spai_lab.attacks.evasion.universal import universal_perturbation
from spai_lab.checks import check_choice
from spai_lab.data import load
from spai_lab.figures import draw_rates, sayings
from spai_lab.metrics import Rate
from spai_lab.style import COLORS, DIVERGING, Backdrop, frame, image_colors, magnified, outcome, panels, styled
from spai_lab.training import reference
from spai_lab.widgets.choices import MODELS, invert, offline_datasets, sample_images, starting_dataset
from spai_lab.widgets.explorable import Explorable

EPS = {"mlp": 0.2, "lenet": 0.3}  # L-inf, in pixel units: where the rate grows from nearly 0 to about a half
SEEN = (1, 4, 16, 64, 256)
HELD_OUT = 500
SHOWN = 4


@dataclass(frozen=True, eq=False)
class Growth:
    """Perturbations that saw ever more training images, and what a model says of test images with them.

    Args:
        dataset, model: names.
        eps: their largest size in L-inf, in pixel units.
        classes: names of the K classes.
        x, y: test images that the model reads rightly, `(SHOWN, C, H, W)`, and their labels.
        v: by the number of images that it saw, each perturbation, `(1, C, H, W)`.
        probabilities: by the same number, what the model says of the shown images with it, `(SHOWN, K)`.
        rates: by the same number, of how many of `HELD_OUT` test images the answer changes.
        noise: of how many it changes under random signs of the same size.
    """

    dataset: str
    model: str
    eps: float
    classes: tuple[str, ...]
    x: Tensor
    y: Tensor
    v: dict[int, Tensor]
    probabilities: dict[int, Tensor]
    rates: dict[int, Rate]
    noise: Rate

    def fooled(self, seen: int) -> list[bool]:
        """Which of the shown images are misread with the perturbation that saw so many."""
        return (self.probabilities[seen].argmax(1) != self.y).tolist()


@lru_cache(maxsize=4)
@torch.no_grad()
def growth(dataset: str, model: str) -> Growth:
    """Make a perturbation from the first 1, 4, 16, ... training images, and count what each fools.

    Args:
        dataset: "digits" or "mnist".
        model: one of `EPS`, a reference model.
    Returns:
        the growth.
    Raises:
        ValueError: names the argument.
    """
    check_choice("model", model, tuple(EPS))
    data, victim, eps = load(dataset), reference(model, dataset).eval(), EPS[model]
    x, y, classes = sample_images(dataset, HELD_OUT)
    answers = victim(x).argmax(1)

    def changed(v: Tensor) -> Rate:
        return Rate(int((victim((x + v).clamp(0, 1)).argmax(1) != answers).sum()), len(x))

    v = {
        seen: universal_perturbation(
            victim, data.x_train[:seen], eps=eps, fooling_rate=0.9, passes=3, batch_size=16,
            generator=torch.Generator().manual_seed(0),
        )
        for seen in SEEN
    }  # fmt: skip
    coin = 2 * torch.randint(0, 2, x[:1].shape, generator=torch.Generator().manual_seed(0)) - 1
    right = one_of_each(y, answers == y)[:SHOWN]
    return Growth(
        *(dataset, model, eps, classes, x[right], y[right], v),
        probabilities={seen: victim((x[right] + noise).clamp(0, 1)).softmax(1) for seen, noise in v.items()},
        rates={seen: changed(noise) for seen, noise in v.items()},
        noise=changed(eps * coin),
    )


def one_of_each(y: Tensor, right: Tensor) -> list[int]:
    """The first place of each label at which `right` holds.

    >>> one_of_each(torch.tensor([7, 7, 2, 7, 0]), torch.tensor([False, True, True, True, True]))
    [1, 2, 4]
    """
    first = {}
    for place in right.nonzero()[:, 0].tolist():
        first.setdefault(int(y[place]), place)
    return list(first.values())


IMAGE = 1.96  # inches: 7 screen pixels for each of the image's 28
IMAGES = ("perturbation", *(f"image {number}" for number in range(SHOWN)))
PLACES = {
    **{name: (0.2 + 2.21 * number, 3.35, IMAGE, IMAGE) for number, name in enumerate(IMAGES)},
    "curve": (0.95, 0.7, 8.3, 1.8),
}


@lru_cache(maxsize=4)
def backdrop(growth: Growth) -> Backdrop:
    """What the slider leaves as it is: the frames, and the curve."""
    fig, axes = panels(11.2, 5.75, **PLACES)
    with styled():
        for name in IMAGES:
            frame(axes[name], "adversarial", width=6)
        axes["perturbation"].set_title("perturbation", loc="center")
        for number, label in enumerate(growth.y.tolist()):
            axes[f"image {number}"].set_title(f"a {growth.classes[label]}, with it", loc="center")
        ax = axes["curve"]
        draw_rates(ax, growth.rates, "fooling rate", "adversarial")
        ax.axhline(growth.noise.value, color=COLORS["baseline"], linewidth=1.8, linestyle="--")
        height = max(rate.interval[1] for rate in growth.rates.values())
        ax.set(xscale="log", xlim=(0.85 * SEEN[0], 1.15 * SEEN[-1]), ylim=(-0.05 * height, 1.15 * height))
        ax.set_xticks(SEEN, [str(seen) for seen in SEEN])
        ax.minorticks_off()
        ax.yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1, symbol=" %"))
        ax.set_xlabel("training images that the perturbation saw")
        ax.set_title(f"{HELD_OUT} test images whose answer changes (band: 95 % interval)")
        ax.annotate("random signs", (1.01, growth.noise.value), xycoords=("axes fraction", "data"), va="top")
    return Backdrop.of(fig, axes)


def render(growth: Growth, seen: int) -> Figure:
    """The perturbation that saw so many images, test images with it, and its place on the curve.

    Args:
        growth: the perturbations.
        seen: one of `SEEN`.
    Returns:
        the figure. Its parts have names (gid): the images "perturbation" and "image 0" to "image 3", the words under
        them "says perturbation" and so on, and on the curve "present" and "rate".
    Raises:
        ValueError: names the argument.
    """
    check_seen(seen)
    v = growth.v[seen]
    change, _, magnification = magnified(v[0])
    colors = [mpl.colormaps[DIVERGING]((1 + change) / 2, bytes=True)]
    colors += [image_colors(x) for x in (growth.x + v).clamp(0, 1)]
    said = [magnification, *sayings(growth.probabilities[seen], growth.classes)]
    outcomes = [None, *map(outcome, growth.fooled(seen))]
    behind = backdrop(growth)
    with styled():
        fig = behind.picture()
        for name, pixels, words, found in zip(IMAGES, colors, said, outcomes, strict=True):
            below = {"transform": behind.axes[name].transAxes, "ha": "center", "va": "top", "fontsize": 15}
            if found is not None:
                role, mark = found
                behind.lay_frame(fig, name, role)
                words, below = f"{mark} {words}", below | {"color": COLORS[role], "weight": "bold"}
            behind.lay_image(fig, name, pixels, gid=name)
            fig.text(0.5, -0.06, words, gid=f"says {name}", **below)
        place, rate = behind.axes["curve"].transData, growth.rates[seen].value
        point = {"color": "black", "marker": "o", "markersize": 14, "fillstyle": "none", "markeredgewidth": 2}
        fig.add_artist(Line2D([seen], [rate], transform=place, gid="present", **point))
        fig.text(
            *(1.01, rate), f"{100 * rate:.0f} % at {seen}", transform=behind.axes["curve"].get_yaxis_transform(),
            fontsize=15, weight="bold", va="bottom", gid="rate",
        )  # fmt: skip
    return fig


def check_seen(seen: int) -> None:
    """`seen` is on the grid."""
    if seen not in SEEN:
        raise ValueError(f"seen is {seen!r}; accepted: {', '.join(map(str, SEEN))}")


def verdict(growth: Growth, seen: int) -> str:
    """In words: what the perturbation does to images that it never saw."""
    check_seen(seen)
    rate, hits = growth.rates[seen], sum(growth.fooled(seen))
    return (
        f"One perturbation, made from {images(seen)}, with eps {growth.eps:g} in L-inf: for images that it never saw, "
        f"the {MODELS[growth.model]} changes its answer on {rate}; random signs of the same size reach "
        f"{100 * growth.noise.value:.1f} %. Of the {SHOWN} images above, {hits} {'is' if hits == 1 else 'are'} misread."
    )


def images(seen: int) -> str:
    """A number of training images in words.

    >>> images(1)
    '1 training image'
    """
    return f"{seen} training {'image' if seen == 1 else 'images'}"


def describe(growth: Growth, seen: int) -> str:
    """The picture for somebody who cannot see it."""
    check_seen(seen)
    said = zip(growth.y.tolist(), sayings(growth.probabilities[seen], growth.classes), strict=True)
    answers = "; ".join(f"a {growth.classes[label]} is read as {words}" for label, words in said)
    curve = ", ".join(f"{100 * rate.value:.0f} % at {at}" for at, rate in growth.rates.items())
    return (
        f"A perturbation made from {images(seen)} of {growth.dataset}, and {SHOWN} test images with it: {answers}. "
        f"A curve of the fooling rate on unseen images against the images seen: {curve}."
    )


def universal_growth(dataset: str | None = None) -> Explorable:
    """The explorable: a slider for the number of images that the universal perturbation was made from.

    Args:
        dataset: "digits" or "mnist" to start with; None takes what `load()` finds.
    Returns:
        the widget.
    Raises:
        ValueError: names the argument.
    """
    start = starting_dataset(dataset)
    controls = {
        "dataset": widgets.Dropdown(description="data set", options=offline_datasets(), value=start),
        "model": widgets.Dropdown(description="model", options=invert({name: MODELS[name] for name in EPS})),
        "seen": widgets.SelectionSlider(description="images", options=[(str(seen), seen) for seen in SEEN]),
    }

    def of_growth(show: Callable[[Growth, int], object]) -> Callable[..., object]:
        return lambda dataset, model, seen: show(growth(dataset, model), seen)

    return Explorable(
        of_growth(render),
        controls,
        alt=of_growth(describe),
        caption=of_growth(verdict),
        slow=("dataset", "model"),
    )

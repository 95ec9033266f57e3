"""Interval bounds, layer by layer: how a box of images grows through two networks, and what is proved at the end."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import ipywidgets as widgets
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor, nn

from spai_lab.attacks.evasion import pgd
from spai_lab.checks import check_choice, unsuspecting
from spai_lab.data import Dataset, load
from spai_lab.defenses.evasion.ibp import MATRIX, MONOTONE, ibp, interval_bounds, interval_margins, layers_of
from spai_lab.defenses.evasion.relaxation import convex_relaxation
from spai_lab.style import COLORS, Backdrop, image_colors, panels, styled
from spai_lab.threat import fooled, value_and_gradient
from spai_lab.training.cache import cached
from spai_lab.training.recipes import Recipe, Robustly
from spai_lab.widgets.choices import offline_datasets, refill, starting_dataset
from spai_lab.widgets.explorable import Explorable

EPS = (0.0, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2)
OPENS_AT, OPENS_WITH = 0.05, 1
TRAINED_AT = 0.1
TRAINED_ON = 3000
EPOCHS = {"digits": 30, "mnist": 12}
NETWORKS = {"natural": "naturally trained", "ibp": "trained with IBP"}
STAGES = ("pixels", "linear 1", "ReLU 1", "linear 2", "ReLU 2", "logits")
IMAGES = 5


@dataclass(frozen=True, eq=False)
class Bounds:
    """What is known of one image and its box in one network.

    Args:
        widths: of the boxes of all units, for each of `STAGES`.
        interval, crown: lower bounds of the margins `z_y - z_k`, `(K,)`; 0 for `y` itself.
        found: the smallest margins that PGD finds, `(K,)`.
        y: the label.
    """

    widths: tuple[Tensor, ...]
    interval: Tensor
    crown: Tensor
    found: Tensor
    y: int

    @property
    def others(self) -> list[int]:
        """All classes but `y`."""
        return [k for k in range(len(self.found)) if k != self.y]

    @property
    def verdict(self) -> str:
        """One of `VERDICTS`."""
        if (self.found[self.others] <= 0).any():
            return "broken"
        if (self.interval[self.others] > 0).all():
            return "verified"
        if (self.interval.maximum(self.crown)[self.others] > 0).all():
            return "crown"
        return "open"


@dataclass(frozen=True, eq=False)
class Subject:
    """An image, and what is known of it in both networks at each eps.

    Args:
        dataset: its name.
        x: `(1, C, H, W)` in [0, 1].
        y: its label.
        classes: names of the K classes.
        at: by network and eps.
    """

    dataset: str
    x: Tensor
    y: int
    classes: tuple[str, ...]
    at: dict[tuple[str, float], Bounds]


@cache
def data_of(dataset: str) -> Dataset:
    """The data set, with few training images."""
    check_choice("dataset", dataset, tuple(EPOCHS))
    return load(dataset).first(TRAINED_ON)


@cache
def network(dataset: str, name: str) -> nn.Module:
    """An MLP, one of `NETWORKS`; both have the same data, epochs and seed."""
    objective = Robustly(ibp, eps=TRAINED_AT, eps_final=TRAINED_AT, ramp=0.6) if name == "ibp" else None
    recipe = Recipe("mlp", epochs=EPOCHS[dataset], batch_size=64, learning_rate=3e-3, objective=objective)
    return cached(recipe, data_of(dataset), seed=0, progress=False)[0]


@cache
def subjects(dataset: str) -> tuple[Subject, ...]:
    """The first test images of `IMAGES` classes that both networks read rightly, with all bounds.

    Args:
        dataset: "digits" or "mnist".
    Returns:
        the images.
    Raises:
        ValueError: names the argument.
    """
    data = data_of(dataset)
    x, y = data.sample(100)
    wrong = sum(fooled(network(dataset, name), x, y) for name in NETWORKS).bool()
    first = {int(y[place]): place for place in reversed((~wrong).nonzero()[:, 0].tolist())}
    places = sorted(first.values())[:IMAGES]
    x, y = x[places], y[places]
    known = {name: bounds_of(network(dataset, name), x, y) for name in NETWORKS}
    return tuple(
        Subject(
            *(dataset, x[[place]], int(y[place]), data.classes),
            at={(name, eps): known[name][eps][place] for name in NETWORKS for eps in EPS},
        )
        for place in range(len(places))
    )


@torch.no_grad()
def bounds_of(model: nn.Module, x: Tensor, y: Tensor) -> dict[float, list[Bounds]]:
    """By eps, the bounds of each image; what PGD finds in a ball counts in all larger ones."""
    shown = [0, *(place for place, layer in enumerate(layers_of(model, MONOTONE + MATRIX), 1) if counts(layer))]
    known, found = {}, None
    for eps in EPS:
        boxes = interval_bounds(model, x, eps=eps)
        widths = [(boxes[place][1] - boxes[place][0]).flatten(1) for place in shown]
        reached = smallest_found(model, x, y, eps)
        found = reached if found is None else found.minimum(reached)
        lower = interval_margins(model, x, y, eps=eps), convex_relaxation(model, x, y, eps=eps)
        known[eps] = [
            Bounds(tuple(width[i] for width in widths), lower[0][i], lower[1][i], found[i], int(y[i]))
            for i in range(len(x))
        ]
    return known


def counts(layer: nn.Module) -> bool:
    """Whether a layer has a place of its own in the picture: it neither scales nor reshapes alone."""
    return isinstance(layer, nn.Linear | nn.ReLU)


def smallest_found(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """The margins `z_y - z_k` of the points that PGD finds when it climbs against each class k, `(N, K)`."""
    clean = model(x)
    classes = clean.shape[1]
    k = torch.arange(classes).repeat(len(x))
    images, labels = x.repeat_interleave(classes, 0), y.repeat_interleave(classes)

    def lead(images: Tensor) -> Tensor:
        logits = model(images)
        return (logits.gather(1, k[:, None]) - logits.gather(1, labels[:, None]))[:, 0]

    def against_each(model: nn.Module, images: Tensor, y: Tensor) -> Tensor:
        return value_and_gradient(lead, images)[1]

    with unsuspecting():
        x_adv = pgd(
            model, images, labels, eps=eps, steps=20, gradient=against_each, generator=torch.Generator().manual_seed(0)
        )
    return (-lead(x_adv)).view(len(x), classes).minimum(clean.gather(1, y[:, None]) - clean)


IMAGE = 1.68  # inches: 6 screen pixels for each of the image's 28
BOXES = ("lower", "image", "upper")
PLACES = {
    **{name: (0.35 + 1.9 * place, 5.0, IMAGE, IMAGE) for place, name in enumerate(BOXES)},
    "widths": (6.95, 4.75, 4.35, 2.25),
    "natural": (0.8, 0.95, 4.8, 2.8),
    "ibp": (6.5, 0.95, 4.8, 2.8),
}
LOOK = {
    "natural": {"color": "black", "marker": "o"},
    "ibp": {"color": COLORS["defended"], "marker": "s"},
}
POINTS = {
    "interval": {"color": COLORS["clean"], "marker": "|", "markersize": 15, "markeredgewidth": 4},
    "crown": {"color": "black", "marker": "D", "markersize": 8, "fillstyle": "none", "markeredgewidth": 2},
    "found": {"color": COLORS["adversarial"], "marker": "X", "markersize": 11, "markeredgecolor": "white"},
}
LABELS = {"interval": "interval bound", "crown": "CROWN's bound", "found": "what PGD finds"}
VERDICTS = {
    "verified": "✓ verified by intervals",
    "crown": "✓ verified with CROWN",
    "open": "? open: neither",
    "broken": "✕ broken by PGD",
}
LINEAR = 3.0  # margins up to here have a linear scale, wider ones a logarithmic one


@cache
def backdrop(dataset: str, label: int) -> Backdrop:
    """What eps leaves as it is: the axes and the legends."""
    fig, axes = panels(11.5, 7.5, **PLACES)
    classes = data_of(dataset).classes
    others = [name for k, name in enumerate(classes) if k != label]
    with styled():
        for name in BOXES:
            axes[name].set_axis_off()
        ax = axes["widths"]
        ax.set_yscale("symlog", linthresh=0.01, linscale=0.5)
        ax.set(xlim=(-0.4, len(STAGES) - 0.6), ylim=(-0.002, 1000), ylabel="width, median and range")
        ax.set_xticks(range(len(STAGES)), STAGES, fontsize=11.5)
        ax.set_yticks([0, 0.01, 0.1, 1, 10, 100], ["0", "0.01", "0.1", "1", "10", "100"])
        ax.minorticks_off()
        handles = [Line2D([], [], linewidth=2.5, markersize=9, label=NETWORKS[name], **LOOK[name]) for name in NETWORKS]
        ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(-0.05, 1.0), ncols=2, columnspacing=1)
        for name in NETWORKS:
            ax = axes[name]
            ax.set_xscale("symlog", linthresh=LINEAR, linscale=1.5)
            ax.set(xlim=(-1500, 60), ylim=(len(others) - 0.4, -0.6))
            ax.set_xticks([-1000, -100, -10, 0, 10], ["−1,000", "−100", "−10", "0", "10"])
            ax.minorticks_off()
            ax.set_yticks(range(len(others)), others)
            ax.set(xlabel=f"margin $z_{{{classes[label]}}} - z_k$ over the box", ylabel="class k")
            ax.axvline(0, color="black", linewidth=2)
        handles = [Line2D([], [], linestyle="", label=LABELS[name], **look) for name, look in POINTS.items()]
        handles.append(Line2D([], [], color=COLORS["baseline"], linewidth=7, alpha=0.5, label="the truth lies here"))
        fig.legend(handles=handles, loc="lower center", ncols=4, fontsize=14, borderpad=0.1)
    return Backdrop.of(fig, axes)


def render(found: Subject, eps: float) -> Figure:
    """The box around the image, its width layer by layer, and the margins that remain.

    Args:
        found: an image with its bounds.
        eps: one of `EPS`.
    Returns:
        the figure. Its parts have names (gid): "lower", "image", "upper"; for "natural" and "ibp" each "... widths",
        "... interval", "... crown", "... found" and "... verdict".
    Raises:
        ValueError: names the argument.
    """
    check_eps(eps)
    behind = backdrop(found.dataset, found.y)
    with styled():
        fig = behind.picture()
        lay_box(fig, behind, found, eps)
        for name, shift in (("natural", -0.09), ("ibp", 0.09)):
            bounds = found.at[name, eps]
            draw_widths(fig, behind.axes["widths"], name, bounds, shift)
            draw_margins(fig, behind.axes[name], name, bounds)
    return fig


def lay_box(fig: Figure, behind: Backdrop, found: Subject, eps: float) -> None:
    """The lowest, the middle and the highest image of the box."""
    images = ((found.x - eps).clamp_min(0), found.x, (found.x + eps).clamp_max(1))
    titles = (f"all pixels − {eps:g}", f"a {found.classes[found.y]}", f"all pixels + {eps:g}")
    for name, image, title in zip(BOXES, images, titles, strict=True):
        behind.lay_frame(fig, name, "clean")
        behind.lay_image(fig, name, image_colors(image[0]), gid=name)
        place = {"ha": "center", "va": "bottom", "transform": behind.axes[name].transAxes}
        fig.text(0.5, 1.05, title, fontsize=14, weight="bold" if name == "image" else "normal", **place)


def draw_widths(fig: Figure, ax: Axes, name: str, bounds: Bounds, shift: float) -> None:
    """For each stage the median width, and a line from the narrowest to the widest box."""
    stages = [stage + shift for stage in range(len(STAGES))]
    color = LOOK[name]["color"]
    for stage, width in zip(stages, bounds.widths, strict=True):
        ends = [width.min().item(), width.max().item()]
        fig.add_artist(Line2D([stage] * 2, ends, color=color, linewidth=5, alpha=0.35, transform=ax.transData))
    medians = [width.double().quantile(0.5).item() for width in bounds.widths]
    look = {"linewidth": 2, "markersize": 10, "markeredgecolor": "white", **LOOK[name]}
    fig.add_artist(Line2D(stages, medians, transform=ax.transData, gid=f"{name} widths", **look))


def draw_margins(fig: Figure, ax: Axes, name: str, bounds: Bounds) -> None:
    """For each other class where its smallest margin can lie, between the best bound and what PGD found."""
    others = bounds.others
    best = bounds.interval.maximum(bounds.crown)
    for row, k in enumerate(others):
        bar = {"color": COLORS["baseline"], "linewidth": 7, "alpha": 0.5, "solid_capstyle": "butt"}
        ends = [best[k].item(), bounds.found[k].item()]
        fig.add_artist(Line2D(ends, [row] * 2, transform=ax.transData, zorder=1, **bar))
    for kind, look in POINTS.items():
        values = getattr(bounds, kind)[others].tolist()
        artist = Line2D(values, range(len(others)), linestyle="", transform=ax.transData, gid=f"{name} {kind}", **look)
        fig.add_artist(artist)
    says = {"fontsize": 15, "weight": "bold", "transform": ax.transAxes, "va": "bottom"}
    fig.text(0, 1.03, f"{NETWORKS[name]}: {VERDICTS[bounds.verdict]}", gid=f"{name} verdict", **says)


def check_eps(eps: float) -> None:
    """`eps` is one of the slider's."""
    if eps not in EPS:
        raise ValueError(f"eps is {eps!r}; accepted: {', '.join(f'{value:g}' for value in EPS)}")


SENTENCES = {
    "verified": "intervals verify the image: all bounds are above 0, so that no attack in the box can succeed",
    "crown": "intervals alone do not verify the image, but with CROWN's bounds each margin stays above 0",
    "open": "nobody knows: PGD finds no attack, and neither bound rules one out",
    "broken": "PGD finds an image in the box that is misread, so that no bound could verify it",
}


def verdict(found: Subject, eps: float) -> str:
    """In words: how far the boxes grow, and what is proved of each network."""
    check_eps(eps)
    if eps == 0:
        return (
            "At eps 0 the box is the image alone: all widths are 0, and bounds and PGD agree on the margins. Raise eps "
            "and watch the boxes grow from layer to layer."
        )
    sentences = []
    for name, title in NETWORKS.items():
        bounds = found.at[name, eps]
        logits = bounds.widths[-1].double().quantile(0.5).item()
        heading = f"{title[0].upper()}{title[1:]}, logits' boxes {logits:.3g} wide (median)"
        sentences.append(f"{heading}: {SENTENCES[bounds.verdict]}.")
    trained = f"IBP was trained at eps {TRAINED_AT:g}" + ("; here eps is larger." if eps > TRAINED_AT else ".")
    return (
        f"At eps {eps:g} the pixels' boxes are at most {2 * eps:g} wide. {' '.join(sentences)} "
        f"Both MLPs learned from {len(data_of(found.dataset).x_train):,} images of {found.dataset}; {trained}"
    )


def describe(found: Subject, eps: float) -> str:
    """The picture for somebody who cannot see it."""
    check_eps(eps)
    told = []
    for name, title in NETWORKS.items():
        bounds = found.at[name, eps]
        medians = ", ".join(
            f"{stage} {width.double().quantile(0.5).item():.2g}"
            for stage, width in zip(STAGES, bounds.widths, strict=True)
        )
        least = [
            f"{values[bounds.others].min().item():.1f}" for values in (bounds.interval, bounds.crown, bounds.found)
        ]
        told.append(
            f"{title[0].upper()}{title[1:]}: median widths {medians}; smallest margin at least {least[0]} by "
            f"intervals, {least[1]} by CROWN, at most {least[2]} by PGD; {VERDICTS[bounds.verdict][2:]}"
        )
    return (
        f"An image of a {found.classes[found.y]} and the corners of its box of radius {eps:g}; the widths of the boxes "
        f"layer by layer, and bounds of the margins over the other classes. {'. '.join(told)}."
    )


def image_choices(dataset: str) -> list[tuple[str, int]]:
    """The slider's images, each with its label."""
    return [(f"{place + 1}: a {found.classes[found.y]}", place) for place, found in enumerate(subjects(dataset))]


def interval_explorer(dataset: str | None = None) -> Explorable:
    """The explorable: choose an image and the radius of its box, and watch the box grow through two networks.

    Args:
        dataset: "digits" or "mnist" to start with; None takes what `load()` finds.
    Returns:
        the widget; both networks are trained when it opens, and kept in the user's cache.
    Raises:
        ValueError: names the argument.
    """
    start = starting_dataset(dataset)
    controls = {
        "dataset": widgets.Dropdown(description="data set", options=offline_datasets(), value=start),
        "image": widgets.SelectionSlider(description="image", options=image_choices(start), value=OPENS_WITH),
        "eps": widgets.SelectionSlider(description="eps", options=[(f"{eps:g}", eps) for eps in EPS], value=OPENS_AT),
    }

    def prepare(name: str) -> None:
        for found in subjects(name):
            backdrop(name, found.y)

    def adapt(name: str) -> None:
        if name == "dataset":
            prepare(controls["dataset"].value)
            refill(controls["image"], image_choices(controls["dataset"].value))

    def of_subject(show: Callable[[Subject, float], object]) -> Callable[..., object]:
        return lambda dataset, image, eps: show(subjects(dataset)[image], eps)

    prepare(start)
    return Explorable(
        of_subject(render),
        controls,
        alt=of_subject(describe),
        caption=of_subject(verdict),
        slow=("dataset",),
        adapt=adapt,
    )

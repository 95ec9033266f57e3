"""Four defenses against a backdoor: what each of them sees, and what a threshold on it catches, rightly and wrongly."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from torch import Tensor, nn

from spai_lab.attacks.poisoning.backdoors import badnets
from spai_lab.attacks.poisoning.poisoned import Poisoned, one_target, stamp
from spai_lab.checks import check_choice, check_number
from spai_lab.data import Dataset, load
from spai_lab.defenses.poisoning.latent import Clusters, activation_clusters, spectral_scores, spectral_signatures
from spai_lab.defenses.poisoning.neural_cleanse import CONSISTENCY, ROUNDS, Reversed, anomaly_index, reverse_triggers
from spai_lab.defenses.poisoning.strip import strip, strip_threshold
from spai_lab.metrics import Rate, Roc, roc
from spai_lab.style import COLORS, Backdrop, draw_image, panels, styled
from spai_lab.training import Recipe, Shift
from spai_lab.training.cache import cached
from spai_lab.widgets.choices import offline_datasets, starting_dataset
from spai_lab.widgets.explorable import Explorable
from spai_lab.widgets.roc_panel import (
    RULE,
    SUSPECTED,
    THRESHOLD,
    draw_histograms,
    draw_roc,
    in_percent,
    look,
    mark_rates,
    mark_side,
    mark_threshold,
)

TARGET = 0
FRACTION = 0.05
TRAINED_ON = 4000
EPOCHS = {"digits": 20, "mnist": 8}
TRUSTED = 500  # clean validation images that the defender owns
JUDGED = 100  # test images that STRIP looks at, with and without the trigger
SILHOUETTE = 0.15  # what activation clustering demands by default
REVERSAL = {"rounds": 12, "batch_size": 16}  # fewer than the defense takes, so that nobody waits for long


@dataclass(frozen=True, eq=False)
class Victim:
    """A network with a backdoor, and what it was trained on.

    Args:
        data: the clean data.
        poisoned: its training part, with poison.
        model: the network.
    """

    data: Dataset
    poisoned: Poisoned
    model: nn.Module

    @property
    def trusted(self) -> Tensor:
        """The clean images that the defender owns."""
        return self.data.x_val[:TRUSTED]


@lru_cache(maxsize=2)
def victim(dataset: str) -> Victim:
    """LeNet, trained on data that BadNets has poisoned; from the user's cache if it is there."""
    check_choice("dataset", dataset, tuple(EPOCHS))
    data = load(dataset).first(TRAINED_ON)
    wanted = one_target(TARGET, data.num_classes)
    poisoned = badnets(data, fraction=FRACTION, wanted=wanted, generator=seeded())
    recipe = Recipe("lenet", epochs=EPOCHS[dataset], batch_size=32, learning_rate=3e-3, perturb=Shift(1))
    model, _ = cached(recipe, poisoned.within(data), seed=0, progress=False)
    return Victim(data, poisoned, model)


def seeded() -> torch.Generator:
    """The same draws each time."""
    return torch.Generator().manual_seed(0)


@dataclass(frozen=True, eq=False)
class Evidence:
    """What one defense sees of everything that it judges, and which thresholds the slider offers.

    Args:
        dataset: its name.
        kind: one of `KINDS`.
        values: what the threshold is held against, float64 `(N,)`.
        guilty: what the defense should catch, bool `(N,)`; only the evaluation reads it.
        grid: the thresholds, in rising order.
        usual: the one of them that the defense takes by default.
        classes: names of the K classes.
        poison_share: of the training images with the target's label.
        clusters: of each class, for "clusters".
        reversals: the smallest trigger of each class, for "reversed trigger".
        trigger: the true one on black, `(C, H, W)`.
    """

    dataset: str
    kind: str
    values: Tensor
    guilty: Tensor
    grid: tuple[float, ...]
    usual: float
    classes: tuple[str, ...]
    poison_share: Rate
    clusters: list[Clusters] = field(default_factory=list)
    reversals: Reversed | None = None
    trigger: Tensor | None = None

    @property
    def words(self) -> "Kind":
        """How to speak of it, and how to draw it."""
        return KINDS[self.kind]

    def suspected(self, threshold: float) -> Tensor:
        """What the defense takes for guilty, bool `(N,)`."""
        return self.values < threshold if self.words.below else self.values > threshold

    def caught(self, threshold: float) -> Rate:
        """True positives: of the guilty, how many are suspected."""
        return Rate(int(self.suspected(threshold)[self.guilty].sum()), int(self.guilty.sum()))

    def alarms(self, threshold: float) -> Rate:
        """False positives: of the innocent, how many are suspected."""
        return Rate(int(self.suspected(threshold)[~self.guilty].sum()), int((~self.guilty).sum()))

    @property
    def loosest(self) -> float:
        """The threshold of the grid that suspects the most."""
        return self.grid[-1 if self.words.below else 0]

    @cached_property
    def roc(self) -> Roc:
        """What all thresholds would catch."""
        return roc(-self.values if self.words.below else self.values, self.guilty)


@lru_cache(maxsize=8)
def evidence_of(dataset: str, kind: str) -> Evidence:
    """Let a defense look at the victim.

    Args:
        dataset: "digits" or "mnist".
        kind: one of `KINDS`.
    Returns:
        the evidence; the last 8 are kept.
    Raises:
        ValueError: names the argument.
    """
    check_choice("kind", kind, tuple(KINDS))
    found = victim(dataset)
    labeled = found.poisoned.y == TARGET
    share = Rate(int(found.poisoned.is_poison.sum()), int(labeled.sum()))
    return Evidence(
        dataset=dataset, kind=kind, classes=found.data.classes, poison_share=share, **KINDS[kind].collect(found)
    )


def spectrum(found: Victim) -> dict:
    """The spectral scores of the training images with the target's label."""
    poisoned = found.poisoned
    labeled = poisoned.y == TARGET
    scores = spectral_scores(found.model, poisoned.x, poisoned.y)[labeled].double()
    usual = scores[spectral_signatures(found.model, poisoned.x, poisoned.y)[labeled]].max().item()
    steps = np.linspace(0, scores.max().sqrt().item(), 61) ** 2
    return {
        "values": scores,
        "guilty": poisoned.is_poison[labeled],
        "grid": tuple(sorted({*steps.tolist(), usual})),
        "usual": usual,
    }


def clusters(found: Victim) -> dict:
    """Of each training image the relative size of its cluster; 1 where the cluster stays, whatever the threshold."""
    poisoned = found.poisoned
    parts = activation_clusters(found.model, poisoned.x, poisoned.y, generator=seeded())
    values = torch.ones(len(poisoned.y), dtype=torch.float64)
    for part in parts:
        if part.silhouette > SILHOUETTE:
            values[part.places[part.in_smaller]] = part.relative_size
    grid = tuple(round(0.1 + 0.01 * step, 2) for step in range(41))
    return {"values": values, "guilty": poisoned.is_poison, "grid": grid, "usual": 0.35, "clusters": parts}


def reversed_trigger(found: Victim) -> dict:
    """The anomaly index of each class, negative where its mask is larger than the median."""
    triggers = reverse_triggers(found.model, found.trusted, generator=seeded(), progress=False, **REVERSAL)
    norms = triggers.norms.double()
    return {
        "values": (norms.quantile(0.5) - norms).sign() * anomaly_index(norms),
        "guilty": torch.arange(len(norms)) == TARGET,
        "grid": tuple(round(0.1 * step, 1) for step in range(61)),
        "usual": 2.0,
        "reversals": triggers,
        "trigger": stamp(torch.zeros_like(found.trusted[:1]), found.poisoned.trigger)[0],
    }


def entropy(found: Victim) -> dict:
    """The entropies of test images, clean and stamped, in bits; the threshold comes from trusted images."""
    x, y = found.data.sample(JUDGED)
    stamped = stamp(x[y != TARGET], found.poisoned.trigger)
    groups = (found.trusted[:JUDGED], x, stamped)
    scores = strip(found.model, torch.cat(groups), found.trusted, generator=seeded(), progress=False).double()
    trusted, clean, triggered = scores.split([len(group) for group in groups])
    usual = -strip_threshold(trusted)
    values = -torch.cat([clean, triggered])
    steps = np.linspace(0, values.max().item(), 81)
    return {
        "values": values,
        "guilty": torch.arange(len(values)) >= len(clean),
        "grid": tuple(sorted({*steps.tolist(), usual})),
        "usual": usual,
    }


PANEL = (0.85, 0.8, 5.35, 3.95)
PLACES = {"evidence": PANEL, "roc": (7.3, 0.8, 3.95, 3.95)}
IMAGE = 1.68  # inches: 6 screen pixels for each of the image's 28
PLACES_REVERSED = {
    "evidence": (0.85, 3.2, 5.35, 1.7),
    "true": (1.35, 0.4, IMAGE, IMAGE),
    "found": (4.0, 0.4, IMAGE, IMAGE),
    "roc": PLACES["roc"],
}
GROUPS = ("clean", "poisoned")


def draw_values(ax: Axes, evidence: Evidence, power: float = 1.0) -> None:
    """The histograms of the innocent and of the guilty; bars are even in the power's root."""
    edges = np.linspace(0, evidence.values.max().item() ** (1 / power), 31)
    middles, edges = ((edges[1:] + edges[:-1]) / 2) ** power, edges**power
    edges[-1] = evidence.values.max().item()
    values = (evidence.values[~evidence.guilty], evidence.values[evidence.guilty])
    names = (evidence.words.innocent, evidence.words.guilty)
    draw_histograms(ax, edges, middles, dict(zip(GROUPS, zip(names, values, strict=True), strict=True)))
    ax.set_xlim(0, 1.02 * edges[-1])


def draw_spectrum(axes: dict[str, Axes], evidence: Evidence) -> None:
    """The histograms of the spectral scores, wide where they are small."""
    ax = axes["evidence"]
    draw_values(ax, evidence, power=2)
    ax.set_xscale("function", functions=(lambda value: np.sqrt(np.maximum(value, 0)), np.square))
    top = evidence.values.max().item()
    ax.set_xticks([tick for tick in (0, 5, 20, 50, 100, 200, 300, 400, 600, 900) if tick < top])
    ax.set(xlabel="spectral score", xlim=(0, 1.04 * top))


def draw_entropy(axes: dict[str, Axes], evidence: Evidence) -> None:
    """The histograms of the entropies."""
    draw_values(axes["evidence"], evidence)
    axes["evidence"].set(xlabel="mean entropy under overlays, in bits")


def draw_clusters(axes: dict[str, Axes], evidence: Evidence) -> None:
    """A point for each class: how small its smaller cluster is, and how well it stands apart."""
    ax = axes["evidence"]
    places = [(part.relative_size, part.silhouette) for part in evidence.clusters]
    ax.axhline(SILHOUETTE, color="black", linewidth=1.5, linestyle=":")
    right = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "top"}
    ax.annotate(f"silhouette {SILHOUETTE:g}", (0.99, 0.93 * SILHOUETTE), **right)
    for role, name in zip(GROUPS, ("class without poison", "class with poison"), strict=True):
        own = [place for place, part in zip(places, evidence.clusters, strict=True) if role_of(part.label) == role]
        ax.plot(*np.array(own).T, markersize=13, label=name, **look(role))
    ax.set(xlim=(0.08, 0.53), ylim=(0, 1.15 * max(silhouette for _, silhouette in places)))
    ax.set(xlabel="smaller cluster's share of the class", ylabel="silhouette")
    ax.set_xticks([0.1, 0.2, 0.3, 0.4, 0.5])
    for part, shift in zip(evidence.clusters, label_shifts(ax.transData.transform(places)), strict=True):
        name = evidence.classes[part.label]
        settings = {"ha": "center", "va": "center", "fontsize": 15, "weight": "bold"}
        place = (part.relative_size, part.silhouette)
        ax.annotate(name, place, xytext=shift, textcoords="offset pixels", **settings)


def label_shifts(points: np.ndarray) -> list[tuple[int, int]]:
    """For each point `(N, 2)`, in screen pixels, on which side its label is farthest from points and other labels."""
    taken, shifts = list(points), []
    for point in points:
        sides = [(20, 0), (-20, 0), (0, 21), (0, -21), (16, 16), (-16, 16), (16, -16), (-16, -16)]
        room = [min(np.linalg.norm(point + side - other) for other in taken) for side in sides]
        best = next((k for k in range(len(sides)) if room[k] >= 15), int(np.argmax(room)))
        shifts.append(sides[best])
        taken.append(point + sides[best])
    return shifts


def role_of(label: int) -> str:
    """Whether a class has poison in it."""
    return "poisoned" if label == TARGET else "clean"


def draw_masks(axes: dict[str, Axes], evidence: Evidence) -> None:
    """The sizes of the masks, and the smallest of them beside the true trigger."""
    ax, found = axes["evidence"], evidence.reversals
    norms = found.norms.tolist()
    for role, name in zip(GROUPS, ("other classes", "target class"), strict=True):
        own = [label for label in range(len(norms)) if role_of(label) == role]
        ax.bar(own, [norms[label] for label in own], color=COLORS[role], alpha=0.45)
        ax.plot(own, [norms[label] for label in own], markersize=11, label=name, **look(role))
    ax.set_xticks(range(len(norms)), evidence.classes)
    ax.set(xlabel="class", ylabel="L1 of the mask", ylim=(0, 1.3 * max(norms)), xlim=(-0.6, len(norms) - 0.4))
    smallest = int(found.norms.argmin())
    image = stamp(torch.zeros_like(evidence.trigger)[None], found.triggers[smallest])[0]
    label = evidence.classes[smallest]
    draw_image(axes["true"], evidence.trigger, title="the true trigger", role="poisoned")
    draw_image(axes["found"], image, title=f"the smallest found (class {label})", role="defended")


def mark_values(ax: Axes, evidence: Evidence, threshold: float) -> list[Artist]:
    """The threshold as an upright line, and what lies on its suspicious side in gray."""
    low, high = ax.get_xlim()
    side = mark_side(ax, threshold, min(low, threshold) if evidence.words.below else max(high, threshold))
    return [side, *mark_threshold(ax, threshold, rule_in_short(evidence, threshold))]


def rule_in_short(evidence: Evidence, threshold: float) -> str:
    """What happens on the suspicious side of the threshold."""
    words = evidence.words
    return f"{words.verb} {'below' if words.below else 'above'} {words.step.format(threshold)}"


def mark_clusters(ax: Axes, evidence: Evidence, threshold: float) -> list[Artist]:
    """The threshold, and in gray where a cluster is small and stands apart."""
    low, high = ax.get_xlim()[0], ax.get_ylim()[1]
    corner = Rectangle((low, SILHOUETTE), threshold - low, high - SILHOUETTE, transform=ax.transData, **SUSPECTED)
    return [corner, *mark_threshold(ax, threshold, rule_in_short(evidence, threshold))]


def mark_masks(ax: Axes, evidence: Evidence, threshold: float) -> list[Artist]:
    """The size below which a mask is flagged, and a cross above the flagged ones."""
    limit = smallest_normal(evidence.reversals.norms, threshold)
    flags = evidence.suspected(threshold).nonzero()[:, 0].tolist()
    heights = evidence.reversals.norms[flags].numpy() + 0.17 * ax.get_ylim()[1]
    cross = {"marker": "X", "linestyle": "", "color": "black", "markersize": 13, "gid": "flagged"}
    words = f"✕ flagged: index above {evidence.words.step.format(threshold)}"
    marks: list[Artist] = [
        Line2D(flags, heights, transform=ax.transData, **cross),
        Text(1, 1.03, words, ha="right", transform=ax.transAxes, **RULE),
    ]
    if limit > 0:
        marks.append(Line2D([0, 1], [limit] * 2, transform=ax.get_yaxis_transform(), **THRESHOLD))
    return marks


def smallest_normal(norms: Tensor, threshold: float) -> float:
    """The L1 norm at which a mask below the median has this anomaly index; it may be negative.

    >>> round(smallest_normal(torch.tensor([1.0, 9.0, 10.0, 10.0, 11.0]), 2.0), 6)
    7.0348
    """
    median = norms.double().quantile(0.5)
    return (median - threshold * CONSISTENCY * (norms - median).abs().quantile(0.5)).item()


def of_the_class(evidence: Evidence, threshold: float) -> str:
    """How much of the target class is poison, on which the defenses of training data hang."""
    name = evidence.classes[TARGET]
    return f"Poison makes up {100 * evidence.poison_share.value:.0f} % of the training images labeled {name}."


def of_the_masks(evidence: Evidence, threshold: float) -> str:
    """How small a mask must be to be flagged."""
    limit = smallest_normal(evidence.reversals.norms, threshold)
    if limit <= 0:
        return "No mask could be small enough for that, so much do the others differ in size."
    short = f"The search took {REVERSAL['rounds']} rounds; the defense takes {ROUNDS}."
    return f"That is a mask of less than {limit:.0f} pixels (dashed). {short}"


def of_the_trigger(evidence: Evidence, threshold: float) -> str:
    """The rate by the defense's own name."""
    hits = evidence.caught(threshold)
    return f"So it accepts {100 * (1 - hits.value):.1f} % of the stamped images: the false acceptance rate."


@dataclass(frozen=True)
class Kind:
    """How to speak of one kind of evidence, and how to draw it.

    Args:
        rule: what the defense does at a threshold, with a place for it.
        verb: what happens to what it suspects.
        source: where the default threshold comes from, with a place for the percentage that it suspects.
        guilty, innocent: what it shall and shall not catch.
        axes: what the ROC curve's axes are called, false positives first.
        collect: the evidence that a victim gives.
        draw: what the threshold leaves as it is, on the axes of `places`.
        mark: what the threshold changes, laid over the axes "evidence".
        remark: one more sentence.
        below: whether small values are suspicious.
        step: of the threshold, as text.
        places: of the axes.
        legend: how high it lies above the evidence, as a share of its height.
    """

    rule: str
    verb: str
    source: str
    guilty: str
    innocent: str
    axes: tuple[str, str]
    collect: Callable[[Victim], dict]
    draw: Callable[[dict[str, Axes], Evidence], None]
    mark: Callable[[Axes, Evidence, float], list[Artist]]
    remark: Callable[[Evidence, float], str]
    below: bool = False
    step: str = "{:.2f}"
    places: dict[str, tuple[float, float, float, float]] = field(default_factory=lambda: PLACES)
    legend: float = 1.1


KINDS = {
    "spectrum": Kind(
        rule="Spectral signatures removes images of the target's label that score above {}",
        verb="removed",
        source="{:.0f} % of the class",
        guilty="poison",
        innocent="clean images",
        axes=("clean images removed", "poison removed"),
        collect=spectrum,
        draw=draw_spectrum,
        mark=mark_values,
        remark=of_the_class,
        step="{:.1f}",
    ),
    "clusters": Kind(
        rule="Activation clustering removes the smaller cluster of a class if it has a share below {} and stands apart",
        verb="removed",
        source="as in libraries",
        guilty="poison",
        innocent="clean images",
        axes=("clean images removed", "poison removed"),
        collect=clusters,
        draw=draw_clusters,
        mark=mark_clusters,
        remark=of_the_class,
        below=True,
    ),
    "reversed trigger": Kind(
        rule="Neural Cleanse flags a class if its mask is small, with an anomaly index above {}",
        verb="flagged",
        source="as in the paper",
        guilty="target class",
        innocent="other classes",
        axes=("other classes flagged", "target flagged"),
        collect=reversed_trigger,
        draw=draw_masks,
        mark=mark_masks,
        remark=of_the_masks,
        step="{:.1f}",
        places=PLACES_REVERSED,
        legend=1.23,
    ),
    "entropy": Kind(
        rule="STRIP rejects an input if its entropy is below {} bits",
        verb="rejected",
        source="meant to reject 1 % of the clean images",
        guilty="stamped images",
        innocent="clean images",
        axes=("clean images rejected", "stamped images rejected"),
        collect=entropy,
        draw=draw_entropy,
        mark=mark_values,
        remark=of_the_trigger,
        below=True,
        step="{:.3f}",
    ),
}


@lru_cache(maxsize=8)
def backdrop(evidence: Evidence) -> Backdrop:
    """What the threshold leaves as it is: the evidence, the ROC curve (dashed beyond the slider), and the legend."""
    fig, axes = panels(11.6, 5.85, **evidence.words.places)
    with styled():
        evidence.words.draw(axes, evidence)
        place = {"loc": "lower left", "bbox_to_anchor": (-0.03, evidence.words.legend), "ncols": 2, "borderpad": 0}
        axes["evidence"].legend(**place, fontsize=15, handletextpad=0.2)
        reach = evidence.alarms(evidence.loosest).value
        draw_roc(axes["roc"], evidence.roc, evidence.words.axes, "poisoned", reach)
    return Backdrop.of(fig, axes)


def render(evidence: Evidence, threshold: float) -> Figure:
    """The evidence with the threshold, beside the ROC curve with the point that it gives.

    Args:
        evidence: of a defense.
        threshold: from the first to the last of its grid.
    Returns:
        the figure. Its parts have names (gid): over the evidence "threshold" and "suspected", or "flagged" for classes;
        on the curve "present" and its intervals "true interval" and "false interval"; above it the words "true" and
        "false".
    Raises:
        ValueError: names the argument.
    """
    check_threshold(evidence, threshold)
    behind = backdrop(evidence)
    with styled():
        fig = behind.picture()
        for mark in evidence.words.mark(behind.axes["evidence"], evidence, threshold):
            fig.add_artist(mark)
        mark_rates(fig, behind.axes["roc"], evidence.caught(threshold), evidence.alarms(threshold))
    return fig


def check_threshold(evidence: Evidence, threshold: float) -> None:
    """The threshold is one that the slider could offer."""
    check_number("threshold", threshold, low=evidence.grid[0], high=evidence.grid[-1])


def verdict(evidence: Evidence, threshold: float) -> str:
    """In words: what this threshold catches, and what the best one would."""
    check_threshold(evidence, threshold)
    words, shown = evidence.words, evidence.words.step.format(threshold)
    best = 100 * evidence.roc.best(false_positives=0.05)
    source = words.source.format(100 * evidence.suspected(evidence.usual).double().mean())
    default = f"This is the default, {source}."
    if threshold != evidence.usual:
        default = f"The default, {source}, is {words.step.format(evidence.usual)}."
    caught, alarms = evidence.caught(threshold), evidence.alarms(threshold)
    return (
        f"{words.rule.format(shown)}. {default} {judgment(caught, alarms)} Of the {words.guilty} it catches {caught}; "
        f"of the {words.innocent}, wrongly, {alarms}. {words.remark(evidence, threshold)} "
        f"With at most 5 % false positives, the best threshold has {best:.0f} % true ones."
    )


def judgment(caught: Rate, alarms: Rate) -> str:
    """What a pair of rates is worth.

    >>> judgment(Rate(9, 10), Rate(0, 10))
    'It tells them apart.'
    """
    if caught.hits == 0:
        return "It catches nothing."
    if caught.value <= alarms.value:
        return "It does no better than guessing."
    if caught.value >= 0.9 and alarms.value <= 0.05:
        return "It tells them apart."
    if caught.value < 0.5:
        return "It misses more than half."
    return "It catches at least half, with " + ("few" if alarms.value <= 0.05 else "many") + " false alarms."


def describe(evidence: Evidence, threshold: float) -> str:
    """The picture for somebody who cannot see it."""
    check_threshold(evidence, threshold)
    words = evidence.words
    if evidence.clusters:
        seen = "; ".join(
            f"class {evidence.classes[part.label]} {100 * part.relative_size:.0f} % and {part.silhouette:.2f}"
            for part in evidence.clusters
        )
        shown = f"the share in the smaller cluster and the silhouette: {seen}"
    elif evidence.reversals is not None:
        sizes = zip(evidence.classes, evidence.reversals.norms.tolist(), strict=True)
        seen = ", ".join(f"class {name} {size:.0f}" for name, size in sizes)
        shown = (
            f"the size of each class's mask, in pixels: {seen}; images of the true trigger and of the smallest found"
        )
    else:
        guilty, innocent = (evidence.values[group].median() for group in (evidence.guilty, ~evidence.guilty))
        unit = words.step.format
        shown = f"two histograms; {words.guilty}: median {unit(guilty)}; {words.innocent}: median {unit(innocent)}"
    caught, alarms = in_percent(evidence.caught(threshold)), in_percent(evidence.alarms(threshold))
    return (
        f"A LeNet of {evidence.dataset} with a backdoor, and {shown}. Threshold: "
        f"{rule_in_short(evidence, threshold)}. An ROC curve with an area of {evidence.roc.area:.2f}, with a point: "
        f"{caught} true positives, {alarms} false ones."
    )


def cleaning_explorer(dataset: str | None = None) -> Explorable:
    """The explorable: choose what a defense looks at, move its threshold, and see what it catches and what it costs.

    Args:
        dataset: "digits" or "mnist" to start with; None takes what `load()` finds.
    Returns:
        the widget.
    Raises:
        ValueError: names the argument.
    """
    start = starting_dataset(dataset)
    first = evidence_of(start, "spectrum")
    controls = {
        "dataset": widgets.Dropdown(description="data set", options=offline_datasets(), value=start),
        "kind": widgets.Dropdown(description="evidence", options=tuple(KINDS)),
        "threshold": widgets.SelectionSlider(description="threshold", options=thresholds(first), value=first.usual),
    }

    def adapt(name: str) -> None:
        if name != "threshold":
            evidence = evidence_of(controls["dataset"].value, controls["kind"].value)
            controls["threshold"].options = thresholds(evidence)
            controls["threshold"].value = evidence.usual

    def of_evidence(show: Callable[[Evidence, float], object]) -> Callable[..., object]:
        return lambda dataset, kind, threshold: show(evidence_of(dataset, kind), threshold)

    return Explorable(
        of_evidence(render),
        controls,
        alt=of_evidence(describe),
        caption=of_evidence(verdict),
        slow=("dataset", "kind"),
        adapt=adapt,
    )


def thresholds(evidence: Evidence) -> list[tuple[str, float]]:
    """The slider's options: the thresholds, each with its text."""
    return [(evidence.words.step.format(value), value) for value in evidence.grid]

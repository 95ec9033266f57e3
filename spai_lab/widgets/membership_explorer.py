"""The membership explorer: what an attack says of members and of others, and whom a threshold on it calls a member."""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from spai_lab.checks import check_choice, check_number
from spai_lab.metrics import Caught, Rate, Roc, roc
from spai_lab.style import COLORS, Backdrop, panels, styled
from spai_lab.survey.measure import load_measurement
from spai_lab.survey.membership_jobs import ATTACKS, ENOUGH, GRID
from spai_lab.widgets.choices import DATASETS, starting_dataset
from spai_lab.widgets.explorable import Explorable
from spai_lab.widgets.roc_panel import (
    draw_histograms,
    draw_log_roc,
    in_percent,
    mark_rates,
    mark_side,
    mark_threshold,
)

STEPS = 60
BINS = 31
FAINT = 1e-16  # a loss below what float64 tells from none
EXTREME = 0.01  # on each side the outermost hundredth of the scores shares a bar, so that a few flatten no others
START = 0.01  # the share of false positives at which the slider starts
RARE = 0.01  # a share of members that is likelier, in the world, than one half


@dataclass(frozen=True)
class Axis:
    """How an attack's scores are drawn.

    Args:
        name: of the axis.
        unit: what a threshold is a threshold of, in a sentence.
        linear: up to which size the axis is linear, logarithmic beyond on both sides; None draws the negative of the
            score, which is positive and smallest for members, on a falling logarithmic axis.
    """

    name: str
    unit: str
    linear: float | None = None


AXES = {
    "loss": Axis("loss on the input, falling", "loss"),
    "shadow models": Axis("log-odds of a member, by the attack model", "log-odds", 0.1),
    "LiRA, offline": Axis("−log Pr [a model without it is less sure], falling", "−log Pr [less sure]"),
    "LiRA, online": Axis("log-likelihood ratio, with the input against without", "log-likelihood ratio", 1),
}
TICKS = (0.1, 0.3, 1, 3, 10, 30, 100)


@dataclass(frozen=True, eq=False)
class Evidence:
    """What one attack says of the inputs of one model, and what it caught of all models that were attacked.

    Args:
        dataset, attack: their names.
        members: scores of inputs that the model was trained on, float64 `(N,)`; higher: more likely a member.
        others: scores of the others, float64 `(M,)`.
        models: how many were attacked.
        pooled: true positives of all of them, one threshold for all, at the false positives `GRID`.
        innocent: how many scores of others the pooled curve rests on.
        rate: the lowest false positive rate that so many scores allow to tell.
        caught: the pooled true positives at this rate, with their interval.
    """

    dataset: str
    attack: str
    members: Tensor
    others: Tensor
    models: int
    pooled: tuple[float, ...]
    innocent: int
    rate: float
    caught: Caught

    @property
    def title(self) -> str:
        """The attack as the beginning of a sentence."""
        name = " ".join(reversed(self.attack.split(", ")))
        return name[0].upper() + name[1:]

    @property
    def axis(self) -> Axis:
        """How its scores are drawn."""
        return AXES[self.attack]

    @cached_property
    def roc(self) -> Roc:
        """What all thresholds would catch of this model's members."""
        scores = torch.cat([self.members, self.others])
        return roc(scores, torch.arange(len(scores)) < len(self.members))

    @cached_property
    def grid(self) -> tuple[float, ...]:
        """The thresholds that the slider offers, rising: for some numbers of false positives, 0 first, the lowest."""
        numbers = {0, *np.geomspace(1, len(self.others), STEPS).round().astype(int).tolist()}
        accused = (self.roc.false_positives * len(self.others)).round()
        lowest = {self.roc.thresholds[accused <= number][-1].item() for number in numbers}
        return tuple(sorted(lowest - {float("inf")}))

    @property
    def usual(self) -> float:
        """The lowest threshold with at most 1 % false positives, where the slider starts."""
        return next((threshold for threshold in self.grid if self.alarms(threshold).value <= START), self.grid[-1])

    def found(self, threshold: float) -> Rate:
        """Of the members, how many are called members."""
        return Rate(int((self.members >= threshold).sum()), len(self.members))

    def alarms(self, threshold: float) -> Rate:
        """Of the others, how many are called members."""
        return Rate(int((self.others >= threshold).sum()), len(self.others))

    def precision(self, threshold: float) -> Rate:
        """Of those called members, how many are."""
        found, alarms = self.found(threshold), self.alarms(threshold)
        return Rate(found.hits, found.hits + alarms.hits)

    def drawn(self, score: Tensor) -> Tensor:
        """Where a score stands on its axis."""
        return score if self.axis.linear else (-score).clamp_min(FAINT)

    @cached_property
    def limits(self) -> tuple[float, float]:
        """From where to where scores are drawn; the strictest threshold of the slider is among them."""
        scores = torch.cat([self.members, self.others])
        ends = torch.tensor([scores.quantile(EXTREME), max(scores.quantile(1 - EXTREME).item(), self.grid[-1])])
        low, high = self.drawn(ends.double()).sort().values.tolist()
        return low, high

    def place(self, threshold: float) -> float:
        """Where a threshold is drawn: beyond the limits, at the limit."""
        return float(np.clip(self.drawn(torch.tensor(threshold, dtype=torch.float64)).item(), *self.limits))

    def spaced(self, count: int) -> np.ndarray:
        """Scores at even distances on their axis, from limit to limit."""
        if not self.axis.linear:
            return np.geomspace(*self.limits, count)
        low, high = np.arcsinh(np.array(self.limits) / self.axis.linear)
        return self.axis.linear * np.sinh(np.linspace(low, high, count))

    def text(self, threshold: float) -> str:
        """The threshold in the axis's own unit."""
        return f"{-threshold if self.axis.linear is None else threshold:.4g}".replace("-", "−")

    def rule(self, threshold: float) -> str:
        """Whom it calls a member."""
        return f"at {'least' if self.axis.linear else 'most'} {self.text(threshold)}"


@lru_cache(maxsize=16)
def evidence_of(dataset: str, attack: str) -> Evidence:
    """What was measured of an attack.

    Args:
        dataset: "digits" or "mnist".
        attack: one of `ATTACKS`.
    Returns:
        the evidence; kept.
    Raises:
        ValueError: names the argument.
    """
    check_choice("dataset", dataset, DATASETS)
    check_choice("attack", attack, tuple(ATTACKS))
    row = next(row for row in load_measurement(f"membership_{dataset}")["rows"] if "first" in row)
    inside = torch.tensor([bit == "1" for bit in row["first"]["inside"]])
    scores = torch.tensor(row["first"][attack], dtype=torch.float64)
    told = row["attacks"][attack]
    rate = min(told["caught"], key=float)
    return Evidence(
        *(dataset, attack),
        members=scores[inside],
        others=scores[~inside],
        models=row["targets"],
        pooled=tuple(told["curve"]),
        innocent=told["innocent"],
        rate=float(rate),
        caught=Caught(*told["caught"][rate]),
    )


def draw_scores(ax: Axes, evidence: Evidence) -> None:
    """The histograms of members and of others; members, who score high, to the right."""
    edges = evidence.spaced(2 * BINS - 1)
    groups = {"private": ("members", evidence.members), "clean": ("others", evidence.others)}
    drawn = {role: (name, evidence.drawn(scores)) for role, (name, scores) in groups.items()}
    draw_histograms(ax, edges[::2], edges[1::2], drawn)
    low, high = evidence.limits
    if evidence.axis.linear:
        ax.set_xscale("asinh", linear_width=evidence.axis.linear)
        sizes = [size for size in TICKS if size >= evidence.axis.linear]
        ticks = [tick for tick in (*(-size for size in reversed(sizes)), 0, *sizes) if low <= tick <= high]
        ax.set_xticks(ticks, [f"{tick:g}".replace("-", "−") for tick in ticks])
        ax.set_xticks([], minor=True)
    else:
        ax.set_xscale("log")
        ax.invert_xaxis()
    ax.set(xlabel=evidence.axis.name, ylabel="inputs")
    ax.margins(x=0.02)


def draw_pooled(ax: Axes, evidence: Evidence) -> None:
    """The curve of all models together, down to where at least ten of their innocents are accused."""
    rates, caught = GRID.numpy(), np.array(evidence.pooled)
    shown = (rates >= ENOUGH / evidence.innocent) & (caught > 0)
    look = {"color": COLORS["private"], "alpha": 0.4, "linewidth": 8, "zorder": 1.5}
    ax.plot(rates[shown], caught[shown], label=f"all {evidence.models} models", **look)


@lru_cache(maxsize=16)
def backdrop(evidence: Evidence) -> Backdrop:
    """What the threshold leaves as it is: histograms, curves, legend."""
    fig, axes = panels(11.6, 5.9, evidence=(0.85, 0.8, 5.2, 3.95), roc=(7.2, 0.8, 4.1, 3.95))
    with styled():
        draw_scores(axes["evidence"], evidence)
        place = {"loc": "lower left", "bbox_to_anchor": (-0.03, 1.1), "ncols": 2, "borderpad": 0}
        axes["evidence"].legend(**place, fontsize=15, handletextpad=0.2)
        names = ("others called members", "members called members")
        draw_log_roc(axes["roc"], evidence.roc, names, "private", len(evidence.others))
        draw_pooled(axes["roc"], evidence)
        axes["roc"].legend(loc="lower right", handlelength=1.3, borderaxespad=0.2, fontsize=13)
    return Backdrop.of(fig, axes)


def render(evidence: Evidence, threshold: float) -> Figure:
    """The scores with the threshold, beside the ROC curve on logarithmic axes with the point that it gives.

    Args:
        evidence: of an attack.
        threshold: from the first to the last of its grid.
    Returns:
        the figure. Its parts have names (gid): "threshold", "suspected" and the words "rule" over the scores; on the
        curve those of `mark_rates`.
    Raises:
        ValueError: names the argument.
    """
    check_threshold(evidence, threshold)
    behind = backdrop(evidence)
    ax, place = behind.axes["evidence"], evidence.place(threshold)
    with styled():
        fig = behind.picture()
        words = f"member: {evidence.rule(threshold)}"
        for mark in (mark_side(ax, place, ax.get_xlim()[1]), *mark_threshold(ax, place, words)):
            fig.add_artist(mark)
        mark_rates(fig, behind.axes["roc"], evidence.found(threshold), evidence.alarms(threshold), decimals=1)
    return fig


def check_threshold(evidence: Evidence, threshold: float) -> None:
    """The threshold is one that the slider could offer."""
    check_number("threshold", threshold, low=evidence.grid[0], high=evidence.grid[-1])


def verdict(evidence: Evidence, threshold: float) -> str:
    """In words: whom this threshold calls members, and what the attacker may conclude."""
    check_threshold(evidence, threshold)
    found, alarms = evidence.found(threshold), evidence.alarms(threshold)
    precision = evidence.precision(threshold)
    value, low, high = (f"{100 * share:.1f}" for share in evidence.caught)
    return (
        f"{evidence.title} on {evidence.dataset}: an input is called a member if its {evidence.axis.unit} is "
        f"{evidence.rule(threshold)}. That names {found.hits} of {found.trials} members, and wrongly {alarms.hits} of "
        f"{alarms.trials} others: a precision of {precision}. {conclusion(precision)} Half of these inputs are "
        f"members; {if_rare(found, alarms)} On all {evidence.models} models together, at {100 * evidence.rate:g} % "
        f"false positives, it names {value} % of the members ({low} to {high}), guessing {100 * evidence.rate:g} %."
    )


def conclusion(precision: Rate) -> str:
    """What the attacker may conclude of an input that is called a member, where half of them are.

    >>> conclusion(Rate(55, 100))
    'The attacker may conclude nothing: tossing a coin could have done as well.'
    """
    low, _ = precision.interval
    if low > 0.9:
        return "The attacker may conclude that whoever is called a member most likely is one."
    if low > 0.5:
        return "The attacker has a hint, and no proof."
    return "The attacker may conclude nothing: tossing a coin could have done as well."


def if_rare(found: Rate, alarms: Rate) -> str:
    """The precision that the same rates would have where members are rare, by Bayes' rule.

    >>> if_rare(Rate(50, 100), Rate(1, 100))
    'if 1 in 100 were, the same rates would give a precision of 34 %.'
    """

    def precise(false: float) -> float:
        return 100 * RARE * found.value / (RARE * found.value + (1 - RARE) * false)

    told = f"if {RARE * 100:.0f} in 100 were, "
    if alarms.hits == 0:
        return told + f"no false positive among {alarms.trials} could still mean {precise(alarms.interval[1]):.0f} %."
    return told + f"the same rates would give a precision of {precise(alarms.value):.0f} %."


def describe(evidence: Evidence, threshold: float) -> str:
    """The picture for somebody who cannot see it."""
    check_threshold(evidence, threshold)
    members, others = (evidence.text(scores.median().item()) for scores in (evidence.members, evidence.others))
    found, alarms = (in_percent(rate, 1) for rate in (evidence.found(threshold), evidence.alarms(threshold)))
    return (
        f"{evidence.title} on {evidence.dataset}. Two histograms of the {evidence.axis.unit}: members, median "
        f"{members}, and others, median {others}. Called members: {evidence.rule(threshold)}. An ROC curve on "
        f"logarithmic axes with an area of {evidence.roc.area:.2f}, with a point: {found} true positives, {alarms} "
        "false ones."
    )


def thresholds(evidence: Evidence) -> list[tuple[str, float]]:
    """The slider's options: the thresholds, each with its text."""
    return [(evidence.text(value), value) for value in evidence.grid]


def membership_explorer(dataset: str | None = None) -> Explorable:
    """The explorable: choose an attack on membership, move its threshold, and see whom it calls a member, and who is.

    Args:
        dataset: "digits" or "mnist" to start with; None takes what `load()` finds. Both were measured.
    Returns:
        the widget.
    Raises:
        ValueError: names the argument.
    """
    start = starting_dataset(dataset)
    first = evidence_of(start, "LiRA, online")
    controls = {
        "dataset": widgets.Dropdown(description="data set", options=DATASETS, value=start),
        "attack": widgets.Dropdown(description="attack", options=tuple(ATTACKS), value=first.attack),
        "threshold": widgets.SelectionSlider(description="threshold", options=thresholds(first), value=first.usual),
    }

    def adapt(name: str) -> None:
        if name != "threshold":
            evidence = evidence_of(controls["dataset"].value, controls["attack"].value)
            controls["threshold"].options = thresholds(evidence)
            controls["threshold"].value = evidence.usual

    def of_evidence(show):
        return lambda dataset, attack, threshold: show(evidence_of(dataset, attack), threshold)

    return Explorable(
        of_evidence(render), controls, alt=of_evidence(describe), caption=of_evidence(verdict), adapt=adapt
    )

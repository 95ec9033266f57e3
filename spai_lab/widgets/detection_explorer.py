"""The detection explorer: what a detector says of clean and of attacked images, and what a threshold on it stops."""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from spai_lab.checks import check_choice, check_number
from spai_lab.metrics import Rate, Roc, roc
from spai_lab.style import COLORS, Backdrop, panels, styled
from spai_lab.survey.detection import ADVERSARIAL, fools, scores_of, threshold
from spai_lab.survey.detection_jobs import ADAPTIVE, DETECTORS, KNOWN_FPR
from spai_lab.survey.measure import load_measurement
from spai_lab.widgets.choices import DATASETS, starting_dataset
from spai_lab.widgets.explorable import Explorable
from spai_lab.widgets.roc_panel import (
    draw_histograms,
    draw_roc,
    in_percent,
    mark_rates,
    mark_side,
    mark_threshold,
)

STEPS = 60
BINS = 31
BEYOND = 0.99  # the largest hundredth of the scores shares the last bar, so that a few do not flatten all the others
GROUPS = {"clean": "clean images", "adversarial": "attacked, and the model is fooled"}
FAINT = 1e-6  # squeezing scores spread over many powers of ten: the first bar of their logarithmic axis starts here
SCORES = {
    "feature squeezing": "how much squeezing changes the answer, L1",
    "MagNet": "distance from the reconstruction, in thresholds of 1 %",
}
LOG_ODDS = "log-odds of being adversarial"
ABOVE = 1.28  # of the words about evasion, above those of `mark_rates`


@dataclass(frozen=True, eq=False)
class Evidence:
    """What one detector says of the images of one attack.

    Args:
        dataset, detector, attack: their names.
        clean: scores of clean test images, float64 `(N,)`.
        attacked: scores of attacked ones, float64 `(M,)`.
        fools: which of those fool the model, bool `(M,)`; only they are adversarial.
        usual: the threshold that rejects 5 % of clean validation images.
    """

    dataset: str
    detector: str
    attack: str
    clean: Tensor
    attacked: Tensor
    fools: Tensor
    usual: float

    @property
    def adversarial(self) -> Tensor:
        """The scores of the images that fool the model."""
        return self.attacked[self.fools]

    @cached_property
    def limits(self) -> tuple[float, float]:
        """From where to where scores are drawn."""
        scores = torch.cat([self.clean, self.adversarial])
        low, high = scores.min().item(), max(scores.quantile(BEYOND).item(), self.usual + 0.05 * abs(self.usual))
        return (max(low, FAINT) if self.logarithmic else low), high

    @property
    def logarithmic(self) -> bool:
        """Whether scores are drawn on a logarithmic axis."""
        return self.detector == "feature squeezing"

    def spaced(self, count: int) -> np.ndarray:
        """Scores at even distances on their axis, from limit to limit."""
        return (np.geomspace if self.logarithmic else np.linspace)(*self.limits, count)

    @cached_property
    def grid(self) -> tuple[float, ...]:
        """The thresholds that the slider offers, in rising order."""
        return tuple(sorted({*self.spaced(STEPS).tolist(), self.usual}))

    @cached_property
    def roc(self) -> Roc:
        """What all thresholds would catch."""
        scores = torch.cat([self.adversarial, self.clean])
        return roc(scores, torch.arange(len(scores)) < len(self.adversarial))

    def caught(self, threshold: float) -> Rate:
        """Of the images that fool the model, how many are rejected."""
        return Rate(int((self.adversarial > threshold).sum()), len(self.adversarial))

    def alarms(self, threshold: float) -> Rate:
        """Of the clean images, how many are rejected."""
        return Rate(int((self.clean > threshold).sum()), len(self.clean))

    def through(self, threshold: float) -> Rate:
        """Of all attacked images, how many fool the model and pass."""
        return Rate(int((self.adversarial <= threshold).sum()), len(self.attacked))


@lru_cache(maxsize=32)
def evidence_of(dataset: str, detector: str, attack: str) -> Evidence:
    """What was measured of a detector and an attack.

    Args:
        dataset: "digits" or "mnist".
        detector: one of `DETECTORS`.
        attack: one of `ADVERSARIAL` of which some images fool the model.
    Returns:
        the evidence; kept.
    Raises:
        ValueError: names the argument.
    """
    check_choice("dataset", dataset, DATASETS)
    check_choice("detector", detector, tuple(DETECTORS))
    check_choice("attack", attack, attacks(dataset, detector))
    measured = load_measurement(f"detection_{dataset}")
    return Evidence(
        *(dataset, detector, attack),
        clean=scores_of(measured, detector, "none"),
        attacked=scores_of(measured, detector, attack),
        fools=fools(measured, detector, attack),
        usual=threshold(measured, detector, KNOWN_FPR),
    )


@lru_cache(maxsize=8)
def attacks(dataset: str, detector: str) -> tuple[str, ...]:
    """The attacks of which at least one image fools the model behind the detector."""
    measured = load_measurement(f"detection_{dataset}")
    return tuple(attack for attack in ADVERSARIAL if fools(measured, detector, attack).any())


def draw_scores(ax: Axes, evidence: Evidence) -> None:
    """The histograms of clean images and of those that fool the model."""
    edges = evidence.spaced(BINS)
    middles = np.sqrt(edges[1:] * edges[:-1]) if evidence.logarithmic else (edges[1:] + edges[:-1]) / 2
    if evidence.logarithmic:
        ax.set_xscale("log")
    scores = (evidence.clean, evidence.adversarial)
    groups = {role: (name, group) for (role, name), group in zip(GROUPS.items(), scores, strict=True)}
    draw_histograms(ax, edges, middles, groups)
    ax.margins(x=0.02)
    ax.set_xlabel(SCORES.get(evidence.detector, LOG_ODDS))


@lru_cache(maxsize=16)
def backdrop(evidence: Evidence) -> Backdrop:
    """What the threshold leaves as it is: histograms, curve, legend."""
    fig, axes = panels(11.6, 6.2, evidence=(0.85, 0.8, 5.35, 3.95), roc=(7.3, 0.8, 3.95, 3.95))
    with styled():
        draw_scores(axes["evidence"], evidence)
        place = {"loc": "lower left", "bbox_to_anchor": (-0.03, 1.12), "ncols": 1, "borderpad": 0}
        axes["evidence"].legend(**place, fontsize=15, handletextpad=0.2)
        names = ("clean images rejected", "adversarial images rejected")
        draw_roc(axes["roc"], evidence.roc, names, "adversarial", evidence.alarms(evidence.grid[0]).value)
    return Backdrop.of(fig, axes)


def render(evidence: Evidence, threshold: float) -> Figure:
    """The scores with the threshold, beside the ROC curve with the point that it gives.

    Args:
        evidence: of a detector and an attack.
        threshold: from the first to the last of its grid.
    Returns:
        the figure. Its parts have names (gid): "threshold", "suspected" and the words "rule" over the scores; on the
        curve those of `mark_rates`, and above it the words "evading": of all attacked images, how many fool the model
        and pass.
    Raises:
        ValueError: names the argument.
    """
    check_threshold(evidence, threshold)
    behind = backdrop(evidence)
    ax = behind.axes["evidence"]
    with styled():
        fig = behind.picture()
        side = mark_side(ax, threshold, max(ax.get_xlim()[1], threshold))
        for mark in (side, *mark_threshold(ax, threshold, f"rejected above {threshold:.3g}")):
            fig.add_artist(mark)
        mark_rates(fig, behind.axes["roc"], evidence.caught(threshold), evidence.alarms(threshold))
        words = {"fontsize": 16, "weight": "bold", "va": "center", "gid": "evading", "color": COLORS["adversarial"]}
        said = f"fool and pass {in_percent(evidence.through(threshold))}"
        fig.text(0.02, ABOVE, said, transform=behind.axes["roc"].transAxes, **words)
    return fig


def check_threshold(evidence: Evidence, threshold: float) -> None:
    """The threshold is one that the slider could offer."""
    check_number("threshold", threshold, low=evidence.grid[0], high=evidence.grid[-1])


def verdict(evidence: Evidence, threshold: float) -> str:
    """In words: what this threshold rejects, and what evades both model and detector."""
    check_threshold(evidence, threshold)
    default = "It rejects 5 % of clean validation images: the default."
    if threshold != evidence.usual:
        default = f"The default, at 5 % of clean validation images, is {evidence.usual:.3g}."
        if evidence.attack in ADAPTIVE:
            default += " The attack aimed at that one; against this one the attacker would aim anew."
    name = evidence.detector[0].upper() + evidence.detector[1:]
    return (
        f"{name} on {evidence.dataset} rejects scores above {threshold:.3g}. {default} Of the clean test images it "
        f"rejects {evidence.alarms(threshold)}; of those that fool the model, {evidence.caught(threshold)}. What "
        f"counts in the end: of all images of {named(evidence.attack)}, {evidence.through(threshold)} fool the model "
        "and pass."
    )


def named(attack: str) -> str:
    """The attack as the subject of a sentence."""
    return {"adaptive": "the adaptive attack", "adaptive, L2": "the adaptive attack in L2"}.get(attack, attack)


def describe(evidence: Evidence, threshold: float) -> str:
    """The picture for somebody who cannot see it."""
    check_threshold(evidence, threshold)
    clean, adversarial = (scores.median().item() for scores in (evidence.clean, evidence.adversarial))
    caught, alarms = in_percent(evidence.caught(threshold)), in_percent(evidence.alarms(threshold))
    return (
        f"Two histograms of the scores of {evidence.detector}: clean images, median {clean:.3g}, and images of "
        f"{named(evidence.attack)} that fool the model, median {adversarial:.3g}. Threshold {threshold:.3g}. An ROC "
        f"curve with an area of {evidence.roc.area:.2f}, with a point: {caught} true positives, {alarms} false ones."
    )


def thresholds(evidence: Evidence) -> list[tuple[str, float]]:
    """The slider's options: the thresholds, each with its text."""
    return [(f"{value:.3g}", value) for value in evidence.grid]


def detection_explorer(dataset: str | None = None) -> Explorable:
    """The explorable: choose a detector and an attack, move the threshold, and see what is caught and what evades.

    Args:
        dataset: "digits" or "mnist" to start with; None takes what `load()` finds. Both were measured.
    Returns:
        the widget.
    Raises:
        ValueError: names the argument.
    """
    start = starting_dataset(dataset)
    first = evidence_of(start, "feature squeezing", attacks(start, "feature squeezing")[0])
    controls = {
        "dataset": widgets.Dropdown(description="data set", options=DATASETS, value=start),
        "detector": widgets.Dropdown(description="detector", options=tuple(DETECTORS)),
        "attack": widgets.Dropdown(description="attack", options=attacks(start, first.detector)),
        "threshold": widgets.SelectionSlider(description="threshold", options=thresholds(first), value=first.usual),
    }

    def adapt(name: str) -> None:
        if name in ("dataset", "detector"):
            kept = controls["attack"].value
            controls["attack"].options = offered = attacks(controls["dataset"].value, controls["detector"].value)
            controls["attack"].value = kept if kept in offered else offered[0]
        if name != "threshold":
            evidence = evidence_of(*(controls[part].value for part in ("dataset", "detector", "attack")))
            controls["threshold"].options = thresholds(evidence)
            controls["threshold"].value = evidence.usual

    def of_evidence(show):
        return lambda dataset, detector, attack, threshold: show(evidence_of(dataset, detector, attack), threshold)

    explorer = Explorable(
        of_evidence(render), controls, alt=of_evidence(describe), caption=of_evidence(verdict), adapt=adapt
    )
    controls["detector"].layout.width = "270px"  # its longest name
    return explorer

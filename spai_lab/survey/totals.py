"""Honest totals: how many of the published figures are reproduced here, and what stands beside the others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spai_lab.survey.backdoors import backdoors_compared
from spai_lab.survey.defenses import defenses_compared
from spai_lab.survey.detection import detection_compared
from spai_lab.survey.evasion_attacks import evasion_attacks_compared
from spai_lab.survey.gradient_attacks import gradient_attacks_compared
from spai_lab.survey.ledger import (
    COMPARISON_HEAD,
    OUTCOMES,
    Comparison,
    comparison_line,
    figure_line,
    published,
)
from spai_lab.survey.measure import load_measurement, results_file
from spai_lab.survey.privacy import privacy_compared
from spai_lab.survey.robust_models import robust_compared

COMPARED: dict[str, Callable[[dict], list[Comparison]]] = {
    "gradient_attacks": gradient_attacks_compared,
    "evasion_attacks": evasion_attacks_compared,
    "backdoors_mnist": backdoors_compared,
    "defenses_mnist": defenses_compared,
    "detection_mnist": detection_compared,
    "robust_models": robust_compared,
}
ELSEWHERE = ("other data", "not that data")
# Of several counterparts of one figure, the one that counts: the least favorable.
GRAVITY = ("deviates", "not comparable", "reproduced", "none")


@dataclass(frozen=True)
class Totals:
    """How many published figures came to what; a figure counts once.

    Args:
        figures: all of the ledger.
        reproduced: within tolerance in the published set-up, the figure read in its source.
        provisional: the same, the figure known from memory of the paper.
        deviates: outside tolerance in the published set-up.
        not_comparable: measured in another set-up, which the verdict names.
        none: measured, but the published figure is unsure.
        unmeasured: without a counterpart.
        divided: of the above, those with several counterparts that differ in their outcome; the least favorable counts.
        elsewhere: of the above, those measured on other data alone.
    """

    figures: int
    reproduced: int
    provisional: int
    deviates: int
    not_comparable: int
    none: int
    unmeasured: int
    divided: int
    elsewhere: int

    @property
    def same_data(self) -> int:
        """How many have a counterpart measured on the same data set, or computed."""
        return self.figures - self.unmeasured - self.elsewhere


def ledger() -> list[Comparison]:
    """All published figures that have a measured counterpart, each beside it, in the order of `data/published.toml`.

    What was not measured yet is left out; a figure may have several counterparts.
    """
    found = [
        comparison
        for name, compared in COMPARED.items()
        if results_file(name).exists()
        for comparison in compared(load_measurement(name))
    ]
    order = list(published())
    return sorted([*found, *privacy_compared()], key=lambda comparison: order.index(comparison.figure["id"]))


def totals(comparisons: Sequence[Comparison] | None = None, figures: dict[str, dict] | None = None) -> Totals:
    """Count the figures by what became of them.

    Args:
        comparisons: what was measured; the whole ledger if None.
        figures: the published ones, by id; those of `data/published.toml` if None.
    Returns:
        the counts. Of several counterparts of a figure the least favorable counts: one that deviates, then one that is
        not comparable.
    """
    comparisons = ledger() if comparisons is None else comparisons
    figures = published() if figures is None else figures
    beside = {name: [each for each in comparisons if each.figure["id"] == name] for name in figures}
    outcomes = {name: {each.outcome for each in found} for name, found in beside.items()}
    counted = {name: min(each, key=GRAVITY.index) if each else "unmeasured" for name, each in outcomes.items()}
    kinds = {kind: [name for name in figures if counted[name] == kind] for kind in (*OUTCOMES, "unmeasured")}
    provisional = sum(figures[name]["standing"] == "M" for name in kinds["reproduced"])
    return Totals(
        figures=len(figures),
        reproduced=len(kinds["reproduced"]) - provisional,
        provisional=provisional,
        deviates=len(kinds["deviates"]),
        not_comparable=len(kinds["not comparable"]),
        none=len(kinds["none"]),
        unmeasured=len(kinds["unmeasured"]),
        divided=sum(len(each) > 1 for each in outcomes.values()),
        elsewhere=sum(bool(found) and all(on_other_data(each) for each in found) for found in beside.values()),
    )


def on_other_data(comparison: Comparison) -> bool:
    """Whether ours was measured on another data set than the published figure."""
    return any(words in comparison.differs for words in ELSEWHERE)


def totals_sentences(counts: Totals | None = None) -> str:
    """The totals in words.

    >>> totals_sentences(Totals(9, 3, 1, 1, 2, 1, 1, 1, 1)).splitlines()[0]
    'Of 9 published figures 3 are reproduced, 1 more provisionally, 1 deviates, 2 are not comparable, 1 has no verdict
    since the published figure is unsure, and 1 has no measured counterpart.'
    """
    counts = totals() if counts is None else counts

    def say(count: int, singular: str, plural: str) -> str:
        return f"{count} {singular if count == 1 else plural}"

    several = say(counts.divided, "figure has several counterparts", "figures have several counterparts")
    return (
        f"Of {counts.figures} published figures {say(counts.reproduced, 'is', 'are')} reproduced, "
        f"{counts.provisional} more provisionally, {say(counts.deviates, 'deviates', 'deviate')}, "
        f"{say(counts.not_comparable, 'is', 'are')} not comparable, {say(counts.none, 'has', 'have')} no verdict since "
        f"the published figure is unsure, and {say(counts.unmeasured, 'has', 'have')} no measured counterpart.\n"
        f"{counts.same_data} were measured on the same data set or computed, "
        f"{counts.elsewhere} on other data alone. {several} that come out differently: "
        "there the least favorable counts."
    )


def ledger_table(comparisons: Sequence[Comparison] | None = None) -> str:
    """The whole ledger as Markdown: every published figure, and beside it what was measured, or that nothing was.

    Args:
        comparisons: what was measured; the whole ledger if None.
    Returns:
        the table, in the order of `data/published.toml`.
    """
    comparisons = ledger() if comparisons is None else comparisons
    lines = list(COMPARISON_HEAD)
    for name, figure in published().items():
        found = [comparison_line(each) for each in comparisons if each.figure["id"] == name]
        lines.extend(found or [figure_line(figure, "– | –", "no measured counterpart")])
    return "\n".join(lines)


def ledger_section() -> str:
    """What the README shows of the ledger: the totals, and the table folded away."""
    return (
        f"{totals_sentences()}\n\n<details>\n<summary>Every published figure beside ours</summary>\n\n"
        f"{ledger_table()}\n\n"
        "Standing: V read in a copy of the source, M from memory of the paper, U unsure.\n</details>"
    )

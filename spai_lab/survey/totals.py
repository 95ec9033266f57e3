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
    COMPUTED,
    LEGEND,
    STANDINGS,
    TOGETHER,
    Comparison,
    comparison_line,
    missing_line,
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
GRAVITY = ("deviates", "not comparable", "reproduced", COMPUTED, "none")


@dataclass(frozen=True)
class Totals:
    """How many published figures came to what; a figure counts once.

    The first eight add up: `figures` is the sum of the seven behind it.

    Args:
        figures: all of the ledger.
        reproduced: measured within tolerance in the published set-up, the figure read in its source.
        provisional: the same, the figure known from memory of the paper.
        computed: recomputed within tolerance, which checks a computation and reproduces no experiment.
        deviates: outside tolerance in the published set-up.
        not_comparable: measured in another set-up, which the verdict names.
        none: measured, but the published figure is unsure.
        unmeasured: without a counterpart.
        divided: those with several counterparts that differ in their outcome; the least favorable counts.
        same_data: those that have a counterpart measured on the same data set.
        elsewhere: those measured on other data alone.
        before: of those with a counterpart, how many were stated before it was measured.
        together: of those, how many were stated in the same commit, or changed later.
        standings: how many figures have each standing, by its letter.
    """

    figures: int
    reproduced: int
    provisional: int
    computed: int
    deviates: int
    not_comparable: int
    none: int
    unmeasured: int
    divided: int
    same_data: int
    elsewhere: int
    before: int
    together: int
    standings: dict[str, int]


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
    kinds = {kind: [name for name in figures if counted[name] == kind] for kind in (*GRAVITY, "unmeasured")}
    provisional = sum(figures[name]["standing"] == "M" for name in kinds["reproduced"])
    measured = [name for name in figures if beside[name] and not figures[name].get("computed")]
    elsewhere = sum(all(on_other_data(each) for each in beside[name]) for name in measured)
    stated = [figures[name]["stated"] for name in figures if beside[name]]
    return Totals(
        figures=len(figures),
        reproduced=len(kinds["reproduced"]) - provisional,
        provisional=provisional,
        computed=len(kinds[COMPUTED]),
        deviates=len(kinds["deviates"]),
        not_comparable=len(kinds["not comparable"]),
        none=len(kinds["none"]),
        unmeasured=len(kinds["unmeasured"]),
        divided=sum(len(each) > 1 for each in outcomes.values()),
        same_data=len(measured) - elsewhere,
        elsewhere=elsewhere,
        before=stated.count("before"),
        together=stated.count("with"),
        standings={letter: sum(figure["standing"] == letter for figure in figures.values()) for letter in STANDINGS},
    )


def on_other_data(comparison: Comparison) -> bool:
    """Whether ours was measured on another data set than the published figure."""
    return any(words in comparison.differs for words in ELSEWHERE)


def totals_sentences(counts: Totals | None = None) -> str:
    """The totals in words.

    Args:
        counts: the whole ledger's if None.
    Returns:
        three lines: what the figures came to, on which data, and what is known of them.

    >>> kinds = {"reproduced": 2, "provisional": 1, "computed": 1, "deviates": 1, "not_comparable": 2, "none": 1}
    >>> known = {"same_data": 6, "elsewhere": 1, "before": 7, "together": 1, "standings": {"V": 6, "M": 2, "U": 1}}
    >>> print(totals_sentences(Totals(9, **kinds, unmeasured=1, divided=1, **known)))
    Of 9 published figures, 2 are reproduced, 1 more provisionally, 1 deviates, 2 were measured in another set-up and
    are not comparable, 1 is unsure and gets no verdict, 1 checks a computation and comes out alike, and 1 has no
    measured counterpart.
    6 have a counterpart measured on the same data set, 1 on other data alone. Where several counterparts of a figure
    come out differently, as those of 1 do, the least favorable counts.
    6 figures were read in a copy of the source (V), 2 are from memory of the paper (M), 1 unsure (U). Of the 8 with a
    counterpart, 7 had metric, sample size and tolerance stated before the measurement, 1 only together with it (†).
    """
    counts = totals() if counts is None else counts

    def say(count: int, singular: str, plural: str) -> str:
        return f"{count} {singular if count == 1 else plural}"

    return (
        f"Of {counts.figures} published figures, {say(counts.reproduced, 'is', 'are')} reproduced, "
        f"{counts.provisional} more provisionally, {say(counts.deviates, 'deviates', 'deviate')}, "
        f"{say(counts.not_comparable, 'was', 'were')} measured in another set-up and "
        f"{'is' if counts.not_comparable == 1 else 'are'} not comparable, "
        f"{say(counts.none, 'is unsure and gets', 'are unsure and get')} no verdict, "
        f"{say(counts.computed, 'checks a computation and comes', 'check a computation and come')} out alike, and "
        f"{say(counts.unmeasured, 'has', 'have')} no measured counterpart.\n"
        f"{say(counts.same_data, 'has', 'have')} a counterpart measured on the same data set, {counts.elsewhere} on "
        f"other data alone. Where several counterparts of a figure come out differently, as those of {counts.divided} "
        "do, the least favorable counts.\n"
        f"{say(counts.standings['V'], 'figure was', 'figures were')} read in a copy of the source (V), "
        f"{say(counts.standings['M'], 'is', 'are')} from memory of the paper (M), {counts.standings['U']} unsure (U). "
        f"Of the {counts.before + counts.together} with a counterpart, {counts.before} had metric, sample size and "
        f"tolerance stated before the measurement, {counts.together} only together with it ({TOGETHER})."
    )


def ledger_table(comparisons: Sequence[Comparison] | None = None) -> str:
    """The whole ledger as Markdown: every published figure, and beside it what was measured, or that nothing was.

    Args:
        comparisons: what was measured; the whole ledger if None.
    Returns:
        the table, in the order of `data/published.toml`, an empty line, and what the letters and the mark mean.
    """
    comparisons = ledger() if comparisons is None else comparisons
    lines = list(COMPARISON_HEAD)
    for name, figure in published().items():
        mark = f" {TOGETHER}" if figure["stated"] == "with" else ""
        found = [comparison_line(each, mark=mark) for each in comparisons if each.figure["id"] == name]
        lines.extend(found or [missing_line(figure, mark=mark)])
    return "\n".join([*lines, "", LEGEND])


def ledger_section() -> str:
    """What the README shows of the ledger: the totals, and the table folded away."""
    return (
        f"{totals_sentences()}\n\n<details>\n<summary>Every published figure beside ours</summary>\n\n"
        f"{ledger_table()}\n</details>"
    )

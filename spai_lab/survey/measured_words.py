"""What the survey's measured figures show, in words: captions and alt texts, computed from the measurement."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from spai_lab.checks import check_choice
from spai_lab.survey.ledger import Comparison
from spai_lab.survey.measured_dots import largest, rows_of_lines, share_of, told
from spai_lab.survey.measured_private import PARTS, in_words
from spai_lab.survey.measured_published import pair, published_of, speaking
from spai_lab.survey.measured_rows import NOT_MEASURED, Line, lines_of, source_of
from spai_lab.survey.measured_survival import (
    AGAINST,
    KNOWS,
    clean,
    counted_as,
    known,
    rule_of,
    strongest,
    surviving_all,
    together,
    unmet,
    weakest_point,
)

HALF = 0.5  # of the images, that a defense must keep for the captions to name it
TITLES = {"evasion": "Evasion", "poisoning": "Poisoning", "threats": "Threats to privacy"}
NORMS = {"linf": "eps {:g} in L-inf", "l2": "{:g} in L2", "l0": "{:g} pixels"}  # how a radius is said


class Words(NamedTuple):
    """What stands under a figure, and what somebody who cannot see it needs to know."""

    caption: str
    alt: str


def attacks_in_words(measurement: dict) -> Words:
    """Caption and alt text of `figure_attacks`.

    >>> attacks_in_words({"name": "survey_quick", "rows": []}).caption.split(". ")[0]
    'Of 47 attacks 0 are measured and 47 are not measured yet'
    """
    lines = {part: chosen(measurement, part) for part in TITLES}
    everything = [line for found in lines.values() for line in found]
    evading = [share for line in lines["evasion"] if (share := placed(line)) is not None]
    half = sum(share >= HALF for share in evading)
    digits = [line.name for line in everything if line.data == "digits only"]
    hollow = f"; {len(digits)} attacks were measured on digits alone" if digits else ""
    caption = [
        f"{counted(everything, 'attacks')}.",
        f"{half} of {len(evading)} evasion attacks fool at least half of the images within their radius{balls(lines)}."
        if evading
        else "",
        f"Lines are 95 % intervals, gray is how far one comes without the attack{hollow}.",
    ]
    spans = [f"{TITLES[part]}: {span(found)}." for part, found in lines.items()]
    numbers = [f"{line.name} {told(line)}" for line in everything if line.headline is not None]
    alt = [
        f"Three panels of dots with 95 % intervals, a row for each attack. {' '.join(spans)}",
        f"By attack: {'; '.join(numbers)}." if numbers else "",
        "What seeks the least distortion stands at the share that it fools within a radius.",
        f"Measured on digits only: {listed(digits)}." if digits else "",
        f"{source_of(measurement)}.",
    ]
    return Words(joined(caption), joined(alt))


def balls(lines: dict[str, Sequence[Line]]) -> str:
    """The radii of the evasion attacks, in parentheses; empty where none names one."""
    details = [line.headline.details for line in lines["evasion"] if line.headline is not None]
    radii = {(each["norm"], each["eps"]) for each in details if "eps" in each and each.get("norm") in NORMS}
    words = [NORMS[norm].format(eps) for norm in NORMS for eps in sorted(eps for of, eps in radii if of == norm)]
    return f" ({listed(words)})" if words else ""


def defenses_in_words(measurement: dict, against: str | None = None) -> Words:
    """Caption and alt text of `figure_defenses`, of which `against` is as there.

    >>> defenses_in_words({"name": "survey_quick", "rows": []}).alt.split(": ")[0]
    'Two heatmaps of the share in percent that survives each attack, a row for each defense'
    """
    if against is not None:
        check_choice("against", against, tuple(AGAINST))
    brief, blocks = against is None, AGAINST if against is None else {against: AGAINST[against]}
    lines = {name: chosen(measurement, part) for name, part in blocks.items()}
    everything = [line for found in lines.values() for line in found]
    kept = [keeping(found, name, brief) for name, found in lines.items()]
    caption = [
        f"{'; '.join([counted(everything, 'defenses'), *kept])}.",
        "" if brief else defined(everything),
        knowing(everything, brief),
    ]
    told_of = [f"against {name}, {listed([survives(line) for line in found])}" for name, found in lines.items()]
    how = "Two heatmaps" if brief else "A heatmap"
    separate = [line.name for line in everything if surviving_all(line) is not None and not together(line)]
    alone = [line.name for line in lines.get("evasion", []) if line.name in separate]
    reasons = [f"{line.name}, {unmet(line)}" for line in everything if unmet(line)]
    alt = [
        f"{how} of the share in percent that survives each attack, a row for each defense: {'; '.join(told_of)}.",
        "A frame marks the strongest attack of a row; gray cells were not run.",
        f"{defined(everything)} {knowing(everything)}" if brief else "",
        f"All attacks means the strongest of them, since they were not counted together, for {listed(alone)}."
        if alone
        else "",
        f"Why no attack knows the defense: {'; '.join(reasons)}." if reasons else "",
        f"{source_of(measurement)}.",
    ]
    return Words(joined(caption), joined(alt))


def keeping(lines: Sequence[Line], against: str, brief: bool = False) -> str:
    """How many defenses keep at least half, which, unless `brief`, and which were not attacked at all."""
    judged = [line for line in lines if surviving_all(line) is not None]
    kept = [ruled(line) for line in judged if surviving_all(line) >= HALF]
    certified = [line.name for line in lines if line.headline is not None and line not in judged]
    left = f" ({listed(certified)} {'is' if len(certified) == 1 else 'are'} certified, not attacked)" * bool(certified)
    under = "under all attacks" if against == "evasion" else "under the strongest attack"
    names = f": {listed(kept)}" if kept and not brief else ""
    return f"against {against}, {len(kept)} of {len(judged)} attacked keep at least half {under}{names}{left}"


def defined(lines: Sequence[Line]) -> str:
    """What survives, by what is counted."""
    counts: dict[str, list[str]] = {}
    for line in lines:
        if counted_as(line):
            counts.setdefault(counted_as(line), []).append(line.name)
    if not counts:
        return ""
    common = max(counts, key=lambda words: len(counts[words]))
    others = [f"for {listed(names)} {words}" for words, names in counts.items() if words != common]
    return f"What survives: {'; '.join([common, *others])}."


def knowing(lines: Sequence[Line], brief: bool = False) -> str:
    """How many defenses met an attack that knows them, how often it was the strongest, and, unless `brief`, who met
    none."""
    measured = [line for line in lines if line.headline is not None]
    met = [line for line in measured if known(line)]
    worst = sum(weakest_point(line) in known(line) for line in met)
    without = [line.name for line in measured if line not in met]
    names = f"; none knows {listed(without, 'or')}" if without and not brief else ""
    counts = f"{len(met)} of {len(measured)} met an attack that knows them ({KNOWS})"
    return f"{counts}, in {worst} no other was stronger{names}."


def private_in_words(
    measurement: dict, comparisons: Sequence[Comparison] | None = None, part: str | None = None
) -> Words:
    """Caption and alt text of `figure_private_ai`, of which `comparisons` and `part` are as there.

    >>> private_in_words({"name": "survey_quick", "rows": []}, []).caption.split(". ")[0]
    'Of 17 methods 0 are measured and 17 are not measured yet'
    """
    if part is not None:
        check_choice("part", part, PARTS)
    lines = [line for name in (PARTS if part is None else (part,)) for line in chosen(measurement, name)]
    published = published_of({line.row.id for line in lines}, comparisons)
    outcomes = Counter(each.outcome for each in published)
    digits = [line.name for line in lines if line.data == "digits only"]
    caption = [
        f"{counted(lines, 'methods')}.",
        "Above, accuracy with the epsilon that was promised, or with time and bytes."
        if part is None
        else "Above, accuracy with the epsilon that was promised."
        if part == PARTS[0]
        else "Above, accuracy, and what time and bytes are of.",
        f"Below, {len(published)} published figures, shares as differences and all else as ratios: "
        f"{listed([f'{count} {name}' for name, count in outcomes.most_common()])}."
        if published
        else "",
    ]
    alt = [
        f"Dots with 95 % intervals, a row for each method: {listed([costing(line) for line in lines])}.",
        f"Measured on digits only: {listed(digits)}." if digits else "",
        f"Below, measured / published: {'; '.join(f'{speaking(each)} {pair(each)}' for each in published)}."
        if published
        else "",
        f"{source_of(measurement)}.",
    ]
    return Words(joined(caption), joined(alt))


def chosen(measurement: dict, part: str) -> list[Line]:
    """A line for each row of a part: that of its largest data set."""
    return [largest(row) for row in rows_of_lines(lines_of(measurement, part))]


def counted(lines: Sequence[Line], what: str) -> str:
    """How many rows are measured, failed, or not there."""
    failed = sum(line.headline is None and line.failed != NOT_MEASURED for line in lines)
    missing = sum(line.failed == NOT_MEASURED for line in lines)
    parts = [f"{len(lines) - failed - missing} are measured"]
    parts += [f"{failed} failed"] * (failed > 0) + [f"{missing} are not measured yet"] * (missing > 0)
    return f"Of {len(lines)} {what} {listed(parts)}"


def placed(line: Line) -> float | None:
    """The share at which a line stands."""
    found = None if line.headline is None else share_of(line.headline)
    return None if found is None else found[0]


def span(lines: Sequence[Line]) -> str:
    """From which row to which the dots go."""
    placed_lines = [(share, line.name) for line in lines if (share := placed(line)) is not None]
    if not placed_lines:
        return "nothing measured"
    (least, first), (most, last) = min(placed_lines), max(placed_lines)
    return f"{len(placed_lines)} dots, from {first} at {100 * least:.0f} % to {last} at {100 * most:.0f} %"


def survives(line: Line) -> str:
    """A defense with what it keeps, and of what."""
    if line.headline is None:
        return f"{line.name} {line.failed.partition(':')[0]}"
    unharmed, left, by = clean(line), surviving_all(line), strongest(line)
    under = "all attacks" if line.row.part == AGAINST["evasion"] else "the strongest"
    parts = [] if unharmed is None else [f"{100 * unharmed:.0f} clean"]
    parts += [] if left is None else [f"{100 * left:.0f} under {under}" + (f", {by} the strongest" if by else "")]
    return f"{ruled(line)} ({', '.join(parts) or line.result})"


def ruled(line: Line) -> str:
    """A defense's name, with the rule by which it takes updates together."""
    return f"{line.name} by {rule}" if (rule := rule_of(line)) else line.name


def costing(line: Line) -> str:
    """A method with its number and what it costs."""
    if line.headline is None:
        return f"{line.name} {line.failed.partition(':')[0]}"
    return f"{line.name} ({in_words(line)})"


def listed(parts: Sequence[str], last_word: str = "and") -> str:
    """A list in words.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    *first, last = parts or [""]
    return f"{', '.join(first)} {last_word} {last}" if first else last


def joined(sentences: Sequence[str]) -> str:
    """Sentences in a row, without the empty ones."""
    return " ".join(filter(None, sentences))

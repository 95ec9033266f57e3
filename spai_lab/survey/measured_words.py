"""What the survey's measured figures show, in words: captions and alt texts, computed from the measurement."""

from collections.abc import Sequence
from typing import NamedTuple

from spai_lab.survey.ledger import Comparison
from spai_lab.survey.measured_dots import largest, rows_of_lines, share_of
from spai_lab.survey.measured_figures import beside
from spai_lab.survey.measured_private import PARTS
from spai_lab.survey.measured_rows import NOT_MEASURED, Line, lines_of, source_of
from spai_lab.survey.measured_tables import AGAINST, KNOWS, clean, known, strongest, surviving_all
from spai_lab.survey.totals import ledger

ROBUST = 0.5  # of the images, that a defense must keep for the captions to name it
TITLES = {"evasion": "Evasion", "poisoning": "Poisoning", "threats": "Threats to privacy"}


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
    half = sum(share >= 0.5 for share in evading)
    caption = [
        f"{counted(everything, 'attacks')}.",
        f"{half} of {len(evading)} evasion attacks fool at least half of the images within their bounds."
        if evading
        else "",
        "Lines are 95 % intervals; gray is how far one comes without the attack, where that was measured.",
        "What seeks the least distortion stands at the share that it fools within a radius, with its median beside it.",
        small(everything),
    ]
    spans = [f"{TITLES[part]}: {span(found)}." for part, found in lines.items()]
    alt = (
        f"Three panels of dots with 95 % intervals, a row for each attack. {' '.join(spans)} {source_of(measurement)}."
    )
    return Words(joined(caption), alt)


def defenses_in_words(measurement: dict) -> Words:
    """Caption and alt text of `figure_defenses`.

    >>> defenses_in_words({"name": "survey_quick", "rows": []}).alt.split(": ")[0]
    'Two heatmaps of the share in percent that survives each attack, a row for each defense'
    """
    lines = {name: chosen(measurement, part) for name, part in AGAINST.items()}
    everything = [line for found in lines.values() for line in found]
    judged = [line for line in lines["evasion"] if surviving_all(line) is not None]
    kept = [line.name for line in judged if surviving_all(line) >= ROBUST]
    knowing = sum(strongest(line).endswith(KNOWS) for line in judged if known(line))
    caption = [
        f"{counted(everything, 'defenses')}.",
        f"{len(kept)} of {len(judged)} against evasion keep at least half of the images under all attacks"
        + (f": {listed(kept)}." if kept else ".")
        if judged
        else "",
        f"Where one of the attacks knows the defense ({KNOWS}), it is the strongest in {knowing} of "
        f"{sum(bool(known(line)) for line in judged)} rows.",
        "A frame marks the strongest attack; gray cells were not run.",
        small(everything),
    ]
    told = [f"against {name}, {listed([survives(line) for line in found])}" for name, found in lines.items()]
    alt = f"Two heatmaps of the share in percent that survives each attack, a row for each defense: {'; '.join(told)}."
    return Words(joined(caption), f"{alt} {source_of(measurement)}.")


def private_in_words(measurement: dict, comparisons: Sequence[Comparison] | None = None) -> Words:
    """Caption and alt text of `figure_private_ai`, of which `comparisons` are as there.

    >>> private_in_words({"name": "survey_quick", "rows": []}, []).caption.split(". ")[0]
    'Of 17 methods 0 are measured and 17 are not measured yet'
    """
    lines = [line for part in PARTS for line in chosen(measurement, part)]
    ids = {line.row.id for line in lines}
    published = [each for each in (ledger() if comparisons is None else comparisons) if each.figure["row"] in ids]
    outcomes = {name: sum(each.outcome == name for each in published) for name in ("reproduced", "deviates")}
    caption = [
        f"{counted(lines, 'methods')}.",
        "Left, accuracy with the epsilon that was promised, and accuracy, time and bytes of cryptography.",
        f"Right, {len(published)} published figures: {outcomes['reproduced']} reproduced, {outcomes['deviates']} "
        "outside tolerance, the others measured in another set-up."
        if published
        else "",
        small(lines),
    ]
    alt = f"Dots with 95 % intervals, a row for each method: {listed([costing(line) for line in lines])}."
    ratios = [
        f"{each.figure['id']} {each.shown(each.value)} beside {each.shown(each.figure['value'])}" for each in published
    ]
    right = f" At the right, measured beside published: {listed(ratios)}." if ratios else ""
    return Words(joined(caption), f"{alt}{right} {source_of(measurement)}.")


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


def small(lines: Sequence[Line]) -> str:
    """Which rows were measured on digits alone."""
    names = [line.name for line in lines if line.data == "digits only"]
    if not names:
        return ""
    everything = len(names) == sum(bool(line.data) for line in lines)
    return f"Measured on digits only: {'all that have a data set' if everything else listed(names)}."


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
    unharmed, left, by = clean(line), surviving_all(line), strongest(line).removesuffix(f" {KNOWS}")
    parts = [] if unharmed is None else [f"{100 * unharmed:.0f} clean"]
    parts += [] if left is None else [f"{100 * left:.0f} under all attacks" + (f", {by} the strongest" if by else "")]
    return f"{line.name} ({', '.join(parts) or line.result})"


def costing(line: Line) -> str:
    """A method with its number and what it costs."""
    return f"{line.name} {line.failed.partition(':')[0]}" if line.headline is None else f"{line.name} ({beside(line)})"


def listed(parts: Sequence[str]) -> str:
    """A list in words.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    *first, last = parts or [""]
    return f"{', '.join(first)} and {last}" if first else last


def joined(sentences: Sequence[str]) -> str:
    """Sentences in a row, without the empty ones."""
    return " ".join(filter(None, sentences))

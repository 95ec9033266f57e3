"""What survives a defense of the measured survey: shares by attack, under all of them, and what is counted at all.

Every share here is good for the defender where it is high, whatever the headline of its row counts.
"""

import re
from collections.abc import Iterable, Sequence

from spai_lab.metrics import Rate
from spai_lab.survey.cleaning_headlines import HEADED
from spai_lab.survey.defense_headlines import CERTIFIED, EVADED, NOT_ADAPTIVE, ROBUST
from spai_lab.survey.headline_rows import shared_out
from spai_lab.survey.measured_rows import Line

AGAINST_EVASION, AGAINST_POISONING = "defenses against evasion", "defenses against poisoning"
AGAINST = {"evasion": AGAINST_EVASION, "poisoning": AGAINST_POISONING}
DEFENSES = tuple(AGAINST.values())
# What the last share of a defense is: an image that survives every attack, or what the strongest attack leaves.
LEFT = {AGAINST_EVASION: "all attacks", AGAINST_POISONING: "strongest"}
KNOWS = "◆"  # marks an attack by somebody who knows the defense
KNOWING = ("adaptive", "tailored")
RULE = r" under ([^,;]+)$"  # in the metric of a headline of aggregation
# The order of the columns; what is not named here stands before those who know the defense.
FIRST = ("FGSM", "MIM", "PGD", "PGD-100 x 20", "transfer", "Square", "DeepFool", "FAB", "AutoAttack")


def survival(line: Line) -> dict[str, float]:
    """What survives each attack of a defense, as shares of 1.

    A defense against a backdoor keeps the trigger's success; the share that survives is the rest.
    """
    return {name: rate.value for name, rate in stands(line).items()}


def stands(line: Line) -> dict[str, Rate]:
    """What survives each attack of a defense, as counts."""
    if line.headline is None:
        return {}
    details = line.headline.details
    attacks = details.get("attacks") or details.get("aggregates", {}).get(HEADED, {})
    return {name: resisted(line, counts) for name, counts in attacks.items()}


def resisted(line: Line, counts: Sequence[int]) -> Rate:
    """What an attack did not take, of counts as the line keeps them."""
    hits, trials = counts
    return Rate(trials - hits if of_backdoors(line) else hits, trials)


def of_backdoors(line: Line) -> bool:
    """Whether the line counts how often a trigger opens."""
    return line.row.part == AGAINST_POISONING and line.headline is not None and line.headline.unit == ""


def counted_as(line: Line) -> str:
    """What survives, in words; empty where nothing was measured."""
    if line.headline is None:
        return ""
    if of_backdoors(line):
        return "triggers that do not open"
    if line.row.part == AGAINST_POISONING:
        return "test images rightly read"
    return "attacked images detected or rightly read" if line.headline.metric == EVADED else "images rightly read"


def unmet(line: Line) -> str:
    """Why no attack on a defense knows it, as its row says; empty where one does."""
    reason = "" if line.headline is None or known(line) else line.headline.details.get(NOT_ADAPTIVE, "")
    return reason.partition(": see `")[0].replace("`", "")


def rule_of(line: Line) -> str:
    """By which rule updates were taken together, of a defense that does so; else empty."""
    found = None if line.headline is None or not of_backdoors(line) else re.search(RULE, line.headline.metric)
    return found.group(1) if found else ""


def clean(line: Line) -> float | None:
    """The accuracy of the defended model where nobody attacks."""
    counts = None if line.headline is None else line.headline.details.get("clean")
    return shared_out(counts) if counts else None


def undefended(line: Line) -> float | None:
    """What survives the attacks without the defense; of several, the strongest."""
    counts = None if line.headline is None else line.headline.details.get("undefended")
    if not counts:
        return None
    return min(resisted(line, each).value for each in (counts.values() if isinstance(counts, dict) else [counts]))


def left(line: Line) -> Rate | None:
    """What survives all attacks together; where they were not counted together, what the strongest leaves."""
    headline, found = line.headline, stands(line)
    if headline is None:
        return None
    if "survive all" in headline.details:
        return Rate(*headline.details["survive all"])
    if headline.metric in (ROBUST, EVADED):
        hits = round(headline.value * headline.trials)
        return Rate(hits if headline.metric == ROBUST else headline.trials - hits, headline.trials)
    return min(found.values(), key=lambda rate: rate.value, default=None)


def surviving_all(line: Line) -> float | None:
    """The share of `left`."""
    rate = left(line)
    return None if rate is None else rate.value


def together(line: Line) -> bool:
    """Whether an image of `left` survives every attack, and not just the strongest of them."""
    headline = line.headline
    return headline is not None and ("survive all" in headline.details or headline.metric in (ROBUST, EVADED))


def proven(line: Line) -> float | None:
    """The certified accuracy, of a certificate."""
    return line.headline.value if line.headline is not None and line.headline.metric == CERTIFIED else None


def known(line: Line) -> list[str]:
    """The attacks on a defense that know it."""
    if line.headline is None:
        return []
    made = line.headline.details.get("made for it")
    return [name for name in survival(line) if name == made or name.startswith(KNOWING)]


def strongest(line: Line) -> str:
    """The attack that leaves least, marked if it knows the defense; of equals the one that knows it."""
    name = weakest_point(line)
    return f"{name} {KNOWS}" if name in known(line) else name


def weakest_point(line: Line) -> str:
    """The attack that leaves least, as its column is called; empty where there is none."""
    found, knowing = survival(line), known(line)
    return min(found, key=lambda name: (found[name], name not in knowing), default="")


def attack_columns(lines: Iterable[Line]) -> list[str]:
    """The attacks of all lines, those that know the defense last within their part."""
    lines, names = list(lines), []
    for part in DEFENSES:
        met = dict.fromkeys(name for line in lines if line.row.part == part for name in survival(line))
        names += sorted(met, key=place)
    return list(dict.fromkeys(names))


def place(name: str) -> tuple[int, int]:
    """Where the column of an attack stands: the common ones first, those that know the defense last."""
    return (2, 0) if name.startswith(KNOWING) else (0, FIRST.index(name)) if name in FIRST else (1, 0)


def headed(name: str) -> str:
    """The head of an attack's column in a table; whoever is adaptive knows each defense that it meets."""
    return f"{name} {KNOWS}" if name.startswith(KNOWING) else name

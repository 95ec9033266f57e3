"""The survey's tables of attacks and defenses, filled from a run of the measured survey."""

import math
from collections.abc import Iterable, Sequence

import pandas as pd

from spai_lab.checks import check_choice
from spai_lab.survey.cleaning_headlines import HEADED
from spai_lab.survey.defense_headlines import CERTIFIED, EVADED, ROBUST
from spai_lab.survey.headline_rows import shared_out
from spai_lab.survey.measured_rows import Line, lines_of

ATTACKS = ("evasion", "poisoning", "threats")
AGAINST_EVASION, AGAINST_POISONING = "defenses against evasion", "defenses against poisoning"
AGAINST = {"evasion": AGAINST_EVASION, "poisoning": AGAINST_POISONING}
DEFENSES = tuple(AGAINST.values())
KNOWS = "◆"  # marks an attack by somebody who knows the defense
KNOWING = ("adaptive", "tailored")
# The order of the columns; what is not named here stands before those who know the defense.
FIRST = ("FGSM", "MIM", "PGD", "PGD-100 x 20", "transfer", "Square", "DeepFool", "FAB", "AutoAttack")


def table_attacks(measurement: dict) -> pd.DataFrame:
    """Every attack of the survey, measured: on models, on training, on privacy.

    Args:
        measurement: as `run_survey` returns it.
    Returns:
        a line for each attack and data set: `attack`, `part`, `kind`, `access`, `data`, `measured` (what, in words),
        `result`, its `95 %` interval, `n` (images, records or runs), `setting`, `budget` and `chapter`. A row that
        failed says so under `measured`, with its error.
    Raises:
        ValueError: this is no measurement of the survey.

    Reference: Bae et al. 2018, arXiv 1807.11655.
    Survey: secure AI and private AI, attacks.

    >>> list(table_attacks({"name": "survey_quick", "rows": []}).columns[:5])
    ['attack', 'part', 'kind', 'access', 'data']
    """
    lines = lines_of(measurement, *ATTACKS)
    found = [
        {"attack": line.name, "part": line.row.part, "kind": line.row.class_, "access": line.row.access, **said(line)}
        for line in lines
    ]
    return framed(found)


def table_defenses(measurement: dict, *, against: str | None = None) -> pd.DataFrame:
    """Every defense of the survey against the attacks: a matrix of what survives, in percent.

    An image counts as robust only if it survives every attack. Against poisoning, what survives a backdoor is what does
    not open to its trigger.

    Args:
        measurement: as `run_survey` returns it.
        against: "evasion" or "poisoning" alone, without the column `part`; None takes both.
    Returns:
        a line for each defense and data set: `defense`, `part`, `kind`, `data`; `clean` and `undefended`, in percent; a
        column for each attack, marked ◆ if it knows the defense; `all attacks`, what survives them together, or, where
        they were not counted together, the strongest; `proven`, for certificates; the `strongest` attack; the `adaptive
        attack`, if there was one; then as in `table_attacks`. Cells are empty where an attack was not run.
    Raises:
        ValueError: this is no measurement of the survey, or there are no such defenses.

    Reference: Bae et al. 2018, arXiv 1807.11655.
    Survey: secure AI, defenses.

    >>> "all attacks" in table_defenses({"name": "survey_quick", "rows": []}).columns
    True
    """
    if against is not None:
        check_choice("against", against, tuple(AGAINST))
    lines = lines_of(measurement, *(DEFENSES if against is None else [AGAINST[against]]))
    columns = attack_columns(lines)
    found = []
    for line in lines:
        stands = survival(line)
        found.append(
            {"defense": line.name, "part": line.row.part, "kind": line.row.class_}
            | {"data": line.data, "clean": percent(clean(line)), "undefended": percent(undefended(line))}
            | {headed(name): percent(stands.get(name)) for name in columns}
            | {"all attacks": percent(surviving_all(line)), "proven": percent(proven(line))}
            | {"strongest": strongest(line), "adaptive attack": ", ".join(known(line))}
            | said(line)
        )
    frame = framed(found)
    return frame if against is None else frame.drop(columns="part")


def said(line: Line) -> dict:
    """What every table says of a line, after the method and what kind it is."""
    headline = line.headline
    return {
        "data": line.data,
        "measured": line.measured,
        "result": line.result,
        "95 %": line.interval,
        "n": None if headline is None else headline.trials,
        "setting": "" if headline is None else headline.setup,
        "budget": "" if headline is None else headline.budget,
        "chapter": line.row.chapter,
    }


def framed(found: Sequence[dict]) -> pd.DataFrame:
    """Lines as a frame; counts stay whole numbers where some are missing."""
    return pd.DataFrame(list(found)).astype({"n": "Int64"})


def survival(line: Line) -> dict[str, float]:
    """What survives each attack of a defense, as shares of 1.

    A defense against a backdoor keeps the trigger's success; the share that survives is the rest.
    """
    if line.headline is None:
        return {}
    details = line.headline.details
    attacks = details.get("attacks") or details.get("aggregates", {}).get(HEADED, {})
    return {name: resisted(line, counts) for name, counts in attacks.items()}


def resisted(line: Line, counts: Sequence[int]) -> float:
    """The share that an attack did not take, of counts as the line keeps them."""
    share = shared_out(counts)
    return 1 - share if line.row.part == AGAINST_POISONING and line.headline.unit == "" else share


def clean(line: Line) -> float | None:
    """The accuracy of the defended model where nobody attacks."""
    counts = None if line.headline is None else line.headline.details.get("clean")
    return shared_out(counts) if counts else None


def undefended(line: Line) -> float | None:
    """What survives the attacks without the defense; of several, the strongest."""
    counts = None if line.headline is None else line.headline.details.get("undefended")
    if not counts:
        return None
    return min(resisted(line, each) for each in (counts.values() if isinstance(counts, dict) else [counts]))


def surviving_all(line: Line) -> float | None:
    """What survives all attacks together; where they were not counted together, what the strongest leaves."""
    headline, stands = line.headline, survival(line)
    if headline is None:
        return None
    if "survive all" in headline.details:
        return shared_out(headline.details["survive all"])
    if headline.metric in (ROBUST, EVADED):
        return headline.value if headline.metric == ROBUST else 1 - headline.value
    return min(stands.values(), default=None)


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
    stands, knowing = survival(line), known(line)
    if not stands:
        return ""
    name = min(stands, key=lambda name: (stands[name], name not in knowing))
    return f"{name} {KNOWS}" if name in knowing else name


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
    """The head of an attack's column."""
    return f"{name} {KNOWS}" if name.startswith(KNOWING) else name


def percent(share: float | None) -> float:
    """A share in percent, to a tenth; NaN where there is none."""
    return math.nan if share is None else round(100 * share, 1)

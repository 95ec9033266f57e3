"""The survey's tables of attacks and defenses, filled from a run of the measured survey."""

import math
from collections.abc import Iterable, Sequence

import pandas as pd

from spai_lab.checks import check_choice
from spai_lab.survey.measured_rows import Line, lines_of
from spai_lab.survey.measured_survival import (
    AGAINST,
    KNOWS,
    LEFT,
    attack_columns,
    clean,
    counted_as,
    headed,
    known,
    left,
    proven,
    rule_of,
    strongest,
    survival,
    together,
    undefended,
    unmet,
)

ATTACKS = ("evasion", "poisoning", "threats")
KNOWN_BY = f"knows it {KNOWS}"


def table_attacks(measurement: dict) -> pd.DataFrame:
    """Every attack of the survey, measured: on models, on training, on privacy.

    Args:
        measurement: as `run_survey` returns it.
    Returns:
        a line for each attack and data set: `attack`, `result`, its `95 %` interval, `n` (images, records or runs),
        `data`, `measured` (what, in words), `part`, `kind`, `access`, `setting`, `budget` and `chapter`. A row that
        failed says so under `measured`, with its error.
    Raises:
        ValueError: this is no measurement of the survey.

    Reference: Bae et al. 2018, arXiv 1807.11655.
    Survey: secure AI and private AI, attacks.

    >>> list(table_attacks({"name": "survey_quick", "rows": []}).columns[:5])
    ['attack', 'result', '95 %', 'n', 'data']
    """
    lines = lines_of(measurement, *ATTACKS)
    found = [
        {"attack": line.name}
        | result_of(line)
        | {"data": line.data, "measured": line.measured}
        | {"part": line.row.part, "kind": line.row.class_, "access": line.row.access}
        | spent_on(line)
        for line in lines
    ]
    return framed(found)


def table_defenses(measurement: dict, *, against: str | None = None) -> pd.DataFrame:
    """Every defense of the survey against the attacks: a matrix of what survives, in percent.

    All shares are good for the defender where they are high, whatever the defense's headline counts. Against evasion,
    `all attacks` holds the images that survive each of them; where they were not counted together, and against
    poisoning, where nobody is met by all of them, it is what the strongest attack leaves.

    Args:
        measurement: as `run_survey` returns it.
        against: "evasion" or "poisoning" alone, without the column `part` and without empty columns; None takes both.
    Returns:
        a line for each defense and data set: `defense`, `data`; `all attacks` against evasion, `strongest` against
        poisoning, in percent, with its `95 %` interval and `n`; `clean` and `undefended`, in percent; a column for each
        attack, marked ◆ if all who run it know the defense; `proven`, for certificates; the `strongest attack`; what
        `knows it ◆`, or why nothing does; `measured`, what is counted; `kind`, `setting`, `budget` and `chapter`. A
        cell is empty where an attack was not run.
    Raises:
        ValueError: this is no measurement of the survey, or there are no such defenses.

    Reference: Bae et al. 2018, arXiv 1807.11655.
    Survey: secure AI, defenses.

    >>> list(table_defenses({"name": "survey_quick", "rows": []}, against="poisoning").columns[:2])
    ['defense', 'data']
    """
    if against is not None:
        check_choice("against", against, tuple(AGAINST))
        return without_empty(block_of(measurement, AGAINST[against]).drop(columns="part"))
    blocks = [block_of(measurement, part) for part in AGAINST.values()]
    order = dict.fromkeys(name for block in blocks for name in block.columns)
    rows = [row for block in blocks for row in block.to_dict("records")]
    return framed(rows)[[*[name for name in order if name not in LAST], *LAST]]


LAST = ("proven", "strongest attack", KNOWN_BY, "measured", "part", "kind", "setting", "budget", "chapter")


def block_of(measurement: dict, part: str) -> pd.DataFrame:
    """The defenses of one part of the taxonomy."""
    lines = lines_of(measurement, part)
    columns = attack_columns(lines)
    return framed([defense_line(line, columns) for line in lines])


def defense_line(line: Line, columns: Sequence[str]) -> dict:
    """A line of the matrix."""
    rate, found = left(line), survival(line)
    low, high = (None, None) if rate is None else rate.interval
    return (
        {"defense": line.name, "data": line.data}
        | {LEFT[line.row.part]: percent(None if rate is None else rate.value)}
        | {"95 %": "" if rate is None else f"{100 * low:.1f} to {100 * high:.1f} %"}
        | {"n": None if rate is None else rate.trials}
        | {"clean": percent(clean(line)), "undefended": percent(undefended(line))}
        | {headed(name): percent(found.get(name)) for name in columns}
        | {"proven": percent(proven(line)), "strongest attack": strongest(line), KNOWN_BY: met_by(line)}
        | {"measured": judged_by(line), "part": line.row.part, "kind": line.row.class_}
        | spent_on(line)
    )


def met_by(line: Line) -> str:
    """The attacks that know a defense, or why there is none."""
    reason = unmet(line)
    return ", ".join(known(line)) or (f"none: {reason}" if reason else "")


def judged_by(line: Line) -> str:
    """What is counted and under which attacks, or why nothing was."""
    if line.headline is None:
        return line.failed
    if left(line) is None:
        return f"{line.headline.metric}; not attacked"
    behind = f" behind {rule}" if (rule := rule_of(line)) else ""
    return f"{counted_as(line)}{behind}, {'each under all attacks' if together(line) else 'under the strongest attack'}"


def without_empty(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame without the columns of `proven` and of attacks that hold nothing, such as those against other norms."""
    always = {*frame.columns[:7], *LAST[1:]}
    return frame[[name for name in frame.columns if name in always or frame[name].notna().any()]]


def result_of(line: Line) -> dict:
    """The number of a line, and how sure it is."""
    trials = None if line.headline is None else line.headline.trials
    return {"result": line.result, "95 %": line.interval, "n": trials}


def spent_on(line: Line) -> dict:
    """Setting and budget of a line, and the chapter that explains it."""
    setting, budget = ("", "") if line.headline is None else (line.headline.setup, line.headline.budget)
    return {"setting": setting, "budget": budget, "chapter": line.row.chapter}


def framed(found: Iterable[dict]) -> pd.DataFrame:
    """Lines as a frame; counts stay whole numbers where some are missing."""
    return pd.DataFrame(list(found)).astype({"n": "Int64"})


def percent(share: float | None) -> float:
    """A share in percent, to a tenth; NaN where there is none."""
    return math.nan if share is None else round(100 * share, 1)

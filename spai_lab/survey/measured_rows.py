"""A run of the measured survey, read: for each row of the taxonomy its headlines, or why it has none."""

import re
from dataclasses import dataclass

from spai_lab.checks import describe
from spai_lab.survey.headline import Headline
from spai_lab.survey.profiles import headlines_of
from spai_lab.survey.regions import short_name
from spai_lab.survey.taxonomy import Row, load_taxonomy, rows_of

NOT_MEASURED = "not measured yet"
# What tells the data sets apart in a set-up. "Ten digits" are classes, "secret digits" a password.
DATA = {
    "MNIST": r"\bmnist\b",
    "faces": r"\bfaces\b",
    "digits": r"(?<!ten )(?<!secret )\bdigits\b",
    "patients": r"\bpatients\b",
    "text": r"\bcharacters\b",
}
BEYOND_DIGITS = ("MNIST", "faces")


@dataclass(frozen=True)
class Line:
    """A line of a table: one headline of a row, or the reason why there is none.

    Args:
        row: of the taxonomy.
        headline: what was measured; None where nothing was.
        failed: empty, or what went wrong, or that the row was not measured yet.
        data: the data set; "digits only" where the row was measured on no larger one; empty where it needs none.
    """

    row: Row
    headline: Headline | None
    failed: str = ""
    data: str = ""

    @property
    def name(self) -> str:
        """The method."""
        return short_name(self.row)

    @property
    def measured(self) -> str:
        """What was measured, or why nothing was."""
        return self.failed if self.headline is None else self.headline.metric

    @property
    def result(self) -> str:
        """The value with its unit, or a word in place of it."""
        if self.headline is not None:
            return self.headline.shown
        return "–" if self.failed == NOT_MEASURED else "failed"

    @property
    def interval(self) -> str:
        """The 95 % interval with its unit; empty where there is none."""
        return "" if self.headline is None else interval_shown(self.headline)


def lines_of(measurement: dict, *parts: str) -> list[Line]:
    """The lines of some parts of the taxonomy, in its order.

    Args:
        measurement: as `run_survey` returns it.
        parts: of the taxonomy.
    Returns:
        a line for each headline, and one for each row that failed or is missing.
    Raises:
        ValueError: this is no measurement of the survey.

    >>> [line] = [line for line in lines_of({"name": "survey_quick", "rows": []}, "evasion") if line.row.id == "pgd"]
    >>> line.name, line.result, line.measured
    ('Projected gradient', '–', 'not measured yet')
    """
    kept = {row["row"]: row for row in check_measurement(measurement)["rows"]}
    return [line for row in rows_of(load_taxonomy(), *parts) for line in lines_of_row(row, kept.get(row.id))]


def check_measurement(measurement: dict) -> dict:
    """The measurement itself; raise `ValueError` unless it is one of the survey."""
    rows = measurement.get("rows") if isinstance(measurement, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "row" in row for row in rows):
        raise ValueError(
            f"measurement is {describe(measurement)}; accepted: what `spai-lab survey` measured, a mapping with rows"
        )
    return measurement


def lines_of_row(row: Row, kept: dict | None) -> list[Line]:
    """The lines of one row, from what a measurement keeps of it, if anything."""
    if kept is None:
        return [Line(row, None, NOT_MEASURED)]
    if "failed" in kept:
        return [Line(row, None, f"failed: {kept['failed']}")]
    headlines = headlines_of(kept)
    found = [data_of(headline) for headline in headlines]
    small = not set(found) & set(BEYOND_DIGITS)
    return [
        Line(row, headline, data="digits only" if data == "digits" and small else data)
        for headline, data in zip(headlines, found, strict=True)
    ]


def data_of(headline: Headline) -> str:
    """The data set of a headline, by its details or its set-up; empty where none is named.

    >>> data_of(Headline("accuracy", 0.9, "", 5, None, "ten digits, 50,000 MNIST images", "a", "higher"))
    'MNIST'
    """
    told = str(headline.details.get("data", headline.setup))
    return next((name for name, words in DATA.items() if re.search(words, told, re.IGNORECASE)), "")


def interval_shown(headline: Headline) -> str:
    """The 95 % interval of a headline, in the unit of its value; of shares in percent.

    >>> interval_shown(Headline("accuracy", 0.5, "", 5, (0.25, 0.75), "a", "b", "higher"))
    '25.0 to 75.0 %'
    """
    if headline.interval is None:
        return ""
    ends = " to ".join(f"{end:.3g}" if headline.unit else f"{100 * end:.1f}" for end in headline.interval)
    return f"{ends} {headline.unit or '%'}"


def source_of(measurement: dict) -> str:
    """Which file a table or a figure was made from, `file` if that is not the project's own, and when it was measured.

    >>> source_of({"name": "survey_quick", "measured": "2026-01-31", "seed": 0, "rows": []})
    'data/results/survey_quick.json, measured 2026-01-31, seed 0'
    """
    found = check_measurement(measurement)
    day, seed = found.get("measured", "on an unknown day"), found.get("seed", "unknown")
    file = found.get("file", f"data/results/{found.get('name', 'unnamed')}.json")
    return f"{file}, measured {day}, seed {seed}"

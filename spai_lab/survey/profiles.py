"""The measured survey's two profiles: which rows each has, where the function of a row is found, and its budget.

`quick` measures every method of the taxonomy on the digits, in minutes; `full` tells what was measured of it on MNIST
and on faces, mostly by `spai-lab measure`.
"""

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from spai_lab.checks import check_choice, describe
from spai_lab.survey.headline import Headline
from spai_lab.survey.taxonomy import Row, load_taxonomy, rows_of

MODULES = {
    "evasion": "evasion",
    "poisoning": "poisoning",
    "defenses against evasion": "defenses",
    "defenses against poisoning": "cleaning",
    "threats": "threats",
    "differential privacy": "dp",
    "cryptography": "crypto",
}


@dataclass(frozen=True)
class Profile:
    """How much a run of the survey measures.

    Args:
        name: "quick" or "full".
        data: the data sets, in words.
        budgets: by part of the taxonomy, what each of its rows may spend.
        timeout: after how many seconds a row is given up; None waits.
    """

    name: str
    data: str
    budgets: dict[str, str]
    timeout: float | None


SECONDS = 90
SHORT = f"{SECONDS} s on one thread"
PROFILES = {
    "quick": Profile(
        "quick",
        "digits",
        {
            "evasion": f"64 images, {SHORT}",
            "poisoning": f"trainings of seconds, {SHORT}",
            "defenses against evasion": f"64 images, six attacks, {SHORT}",
            "defenses against poisoning": f"trainings of seconds, {SHORT}",
            "threats": f"trainings of seconds, {SHORT}",
            "differential privacy": f"trainings of seconds, {SHORT}",
            "cryptography": f"64 images at most, {SHORT}",
        },
        timeout=10 * SECONDS,  # other machines are slower
    ),
    "full": Profile("full", "mnist, faces", dict.fromkeys(MODULES, "what its measurement spent, no limit"), None),
}


@dataclass(frozen=True)
class SurveyRow:
    """A row of the taxonomy to measure.

    Args:
        row: its id.
        profile: a key of `PROFILES`.
        data: the profile's data sets.
    """

    row: str
    profile: str
    data: str

    @property
    def key(self) -> dict:
        """Its fields."""
        return asdict(self)

    def run(self, seed: int) -> dict:
        """The row's stated budget, and its headlines: one on the digits, or one for each data set measured before.

        Raises:
            RuntimeError: the row's part is not there yet, lacks the row, or has nothing to tell of it.
        """
        [part] = (row.part for row in method_rows() if row.id == self.row)
        function = measuring(self.profile, part, self.row)
        headlines = [function(seed)] if self.profile == "quick" else list(function())
        wrong = [headline for headline in headlines if not isinstance(headline, Headline)]
        if wrong or not headlines:
            told = describe(wrong[0]) if wrong else "nothing"
            raise RuntimeError(f"{module_of(self.profile, part)} tells {told} of {self.row!r}; accepted: a Headline")
        return {"budget": PROFILES[self.profile].budgets[part], "headlines": [headline.row for headline in headlines]}


def survey_jobs(profile: str) -> tuple[SurveyRow, ...]:
    """The rows of a profile, in the order of the taxonomy.

    Args:
        profile: "quick" or "full".
    Returns:
        a job for each method that runs today.
    Raises:
        ValueError: there is no such profile.

    >>> survey_jobs("quick")[3].key
    {'row': 'pgd', 'profile': 'quick', 'data': 'digits'}
    """
    check_choice("profile", profile, tuple(PROFILES))
    return tuple(SurveyRow(row.id, profile, PROFILES[profile].data) for row in method_rows())


def method_rows() -> tuple[Row, ...]:
    """The methods of the taxonomy that run today, without its tables and figures."""
    return tuple(row for row in rows_of(load_taxonomy(), *MODULES) if row.runnable)


def module_of(profile: str, part: str) -> str:
    """The module whose table has the rows of a part.

    >>> module_of("quick", "differential privacy")
    'spai_lab.survey.quick_dp'
    """
    return f"spai_lab.survey.{profile}_{MODULES[part]}"


def table_of(profile: str, part: str) -> dict[str, Callable]:
    """By the id of a row: for `quick` a function from a seed to its headline, for `full` one to its headlines.

    Raises:
        RuntimeError: the part is not there yet.
    """
    name = module_of(profile, part)
    if importlib.util.find_spec(name) is None:
        raise RuntimeError(f"the part {part!r} cannot be measured yet: there is no module {name}")
    return getattr(importlib.import_module(name), profile.upper())


def measuring(profile: str, part: str, row: str) -> Callable:
    """The function that measures one row.

    Raises:
        RuntimeError: the part is not there yet, or has no such row.
    """
    table = table_of(profile, part)
    if row not in table:
        raise RuntimeError(f"{module_of(profile, part)} has no entry {row!r} in {profile.upper()}")
    return table[row]


def headlines_of(row: dict) -> list[Headline]:
    """The headlines that a measured row keeps; none if it failed.

    >>> headlines_of({"row": "pgd", "failed": "ValueError: eps is -1"})
    []
    """
    return [Headline.from_row(kept) for kept in row.get("headlines", ())]


def chosen(jobs: Sequence[SurveyRow], only: Sequence[str]) -> list[SurveyRow]:
    """The jobs with these ids; all if there are none.

    Raises:
        ValueError: names the ids that no job has.
    """
    unknown = sorted(set(only) - {job.row for job in jobs})
    if unknown:
        raise ValueError(
            f"only is {', '.join(unknown)}; accepted: ids of the taxonomy's methods, such as {jobs[0].row}"
        )
    return [job for job in jobs if not only or job.row in only]

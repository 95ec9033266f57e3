"""From rows of a measurement to headlines: what the parts of the survey share."""

import math
from collections.abc import Sequence

from spai_lab.survey.headline import Headline
from spai_lab.survey.measure import Job, load_measurement, row_of
from spai_lab.survey.protected_tables import over_trainings


def fresh(job: Job, seed: int) -> dict:
    """The row of a job that is measured now, as `measure` would keep it, without its seconds."""
    return {**job.key, **job.run(seed)}


def kept(name: str, **key: object) -> dict:
    """The one row of a kept measurement that fits.

    Raises:
        ValueError: there is no such measurement, or no such row, or several.

    >>> kept("encrypted_digits", kind="single")["agree"]
    [539, 539]
    """
    return row_of(load_measurement(name), **key)


def of_runs(
    metric: str,
    values: Sequence[float],
    *,
    setup: str,
    budget: str,
    better: str,
    unit: str = "",
    low: float = -math.inf,
    high: float = math.inf,
    details: dict | None = None,
) -> Headline:
    """The headline of the mean of some runs, with Student's 95 % interval; a single run has none.

    Args:
        metric, setup, budget, better, unit, details: as in `Headline`.
        values: one of each run.
        low, high: between which a value can lie; the interval ends there.

    >>> of_runs("accuracy", [0.5, 0.7], setup="a", budget="b", better="higher", low=0.0, high=1.0).shown
    '60.0 %'
    """
    mean = over_trainings(0.0, values, low, high)
    interval = None if len(values) < 2 else (mean.low, mean.high)
    return Headline(metric, mean.value, unit, len(values), interval, setup, budget, better, details or {})


def shared_out(counts: Sequence[int]) -> float:
    """Hits by trials, as a row keeps them.

    >>> shared_out([1, 4])
    0.25
    """
    hits, trials = counts
    return hits / trials

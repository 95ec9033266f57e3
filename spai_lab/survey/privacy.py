"""Attacks on privacy, measured: membership, leakage from gradients, inversion, extraction and memorization."""

from collections.abc import Callable, Sequence
from pathlib import Path

from spai_lab.survey.extraction_jobs import extraction_jobs
from spai_lab.survey.inversion_jobs import inversion_jobs
from spai_lab.survey.leakage_jobs import leakage_jobs
from spai_lab.survey.measure import Job, measure
from spai_lab.survey.membership_jobs import membership_jobs
from spai_lab.survey.secrets_jobs import secrets_jobs

FAMILIES: dict[str, tuple[Callable[[str], Sequence[Job]], tuple[str, ...]]] = {
    "membership": (membership_jobs, ("digits", "mnist")),
    "extraction": (extraction_jobs, ("digits", "mnist")),
    "leakage": (leakage_jobs, ("digits", "mnist", "faces")),
    "inversion": (inversion_jobs, ("digits", "mnist", "faces")),
    "secrets": (secrets_jobs, ("digits", "mnist")),
}


def measure_privacy(
    family: str, name: str, *, seed: int = 0, fresh: bool = False, workers: int = 1, file: Path | None = None
) -> dict:
    """Measure one family of attacks on one data set.

    Args:
        family: one of `FAMILIES`.
        name: the data set.
        seed, fresh, workers, file: as in `measure`.
    Returns:
        the measurement.
    """
    jobs, _ = FAMILIES[family]
    return measure(f"{family}_{name}", jobs(name), data=name, seed=seed, fresh=fresh, workers=workers, file=file)

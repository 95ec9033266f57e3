"""The regions of the survey's map: what the page and the picture share."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.colors import to_hex, to_rgb

from spai_lab.survey.taxonomy import Row


@dataclass(frozen=True)
class Region:
    """How a part of the taxonomy appears on the map: its title, its sentence and the role of its color."""

    part: str
    title: str
    sentence: str
    role: str


EVASION = Region("evasion", "Evasion", "Change the input, and the trained model errs.", "adversarial")
AGAINST_EVASION = Region(
    "defenses against evasion",
    "Defenses against evasion",
    "Mask the gradient, harden the training, prove a bound, or detect.",
    "defended",
)
POISONING = Region("poisoning", "Poisoning", "Change the training, and the model learns the wrong lesson.", "poisoned")
AGAINST_POISONING = Region(
    "defenses against poisoning",
    "Defenses against poisoning",
    "Clean the data, bound its influence, or repair the model.",
    "defended",
)
THREATS = Region("threats", "Threats", "What answers and shared gradients give away.", "private")
PRIVACY = Region(
    "differential privacy", "Differential privacy", "Noise hides whether any one of us took part.", "private"
)
CRYPTOGRAPHY = Region("cryptography", "Cryptography", "Compute on data that only its owner can read.", "private")
REDRAWN = Region("tables and figures", "Tables and figures", "The survey's own, redrawn by code.", "baseline")

LAYOUT = {
    "Secure AI": ((EVASION, AGAINST_EVASION), (POISONING, AGAINST_POISONING)),
    "Private AI": ((THREATS, PRIVACY, CRYPTOGRAPHY),),
    "The survey, redrawn": ((REDRAWN,),),
}

MARKS = {"runnable": "●", "planned": "○"}
MEANING = {"runnable": "runs today", "planned": "not yet"}


def short_name(row: Row) -> str:
    """A row's name without what stands in parentheses."""
    return row.name.partition(" (")[0]


def summary(rows: Sequence[Row]) -> str:
    """One sentence: how much of the survey runs today."""
    return f"{sum(row.runnable for row in rows)} of the survey's {len(rows)} rows run today."


def shade(color: str, toward: str, amount: float) -> str:
    """A color mixed with another: 0 leaves it, 1 replaces it.

    >>> shade("black", "white", 0.5)
    '#808080'
    """
    return to_hex([(1 - amount) * a + amount * b for a, b in zip(to_rgb(color), to_rgb(toward), strict=True)])

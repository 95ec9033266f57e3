"""The headline of a row: the one number that a table of the whole survey has room for, and all that it rests on."""

import math
from dataclasses import asdict, dataclass, field
from typing import Self

from spai_lab.checks import check_choice, check_count, check_number
from spai_lab.metrics import Rate

BETTER = ("higher", "lower")
DATA_NAMES = {"digits": "digits", "mnist": "MNIST", "faces": "faces"}


@dataclass(frozen=True)
class Headline:
    """What a row of the taxonomy came to.

    Args:
        metric: what was measured, in words.
        value: a share in [0, 1] if `unit` is "", else in the unit.
        unit: such as "epsilon", "s", "MB", "queries"; "" for a share.
        trials: of how many images, records or runs.
        interval: its 95 % interval, in the same unit; None where there is none to give.
        setup: data, model and setting, in words.
        budget: what was spent, in words.
        better: what whoever the row serves would like, "higher" or "lower".
        details: what else was measured, of what JSON knows.
    Raises:
        ValueError: names the argument.

    >>> Headline.of_rate("success rate", Rate(3, 4), setup="LeNet", budget="1 gradient", better="higher").value
    0.75
    """

    metric: str
    value: float
    unit: str
    trials: int
    interval: tuple[float, float] | None
    setup: str
    budget: str
    better: str
    details: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("metric", "setup", "budget"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise ValueError(f"{name} is {getattr(self, name)!r}; accepted: words")
        check_number("value", self.value, low=0 if not self.unit else -math.inf, high=1 if not self.unit else math.inf)
        check_count("trials", self.trials)
        check_choice("better", self.better, BETTER)
        if self.interval is not None:
            low, high = self.interval
            if not low - 1e-9 <= self.value <= high + 1e-9:
                raise ValueError(f"interval is {self.interval}; accepted: one that holds the value, {self.value}")

    @classmethod
    def of_rate(
        cls, metric: str, rate: Rate, *, setup: str, budget: str, better: str, details: dict | None = None
    ) -> Self:
        """The headline of a rate, with its interval."""
        return cls(metric, rate.value, "", rate.trials, rate.interval, setup, budget, better, details or {})

    @classmethod
    def from_row(cls, row: dict) -> Self:
        """The headline that a row of a measurement keeps."""
        names = cls.__dataclass_fields__
        kept = {name: row[name] for name in names}
        return cls(**kept | {"interval": None if row["interval"] is None else tuple(row["interval"])})

    @property
    def row(self) -> dict:
        """As it is kept."""
        return asdict(self)

    @property
    def shown(self) -> str:
        """The value as a table shows it.

        >>> Headline("epsilon", 1.5, "epsilon", 1, None, "a", "b", "lower").shown
        '1.5 epsilon'
        """
        return f"{self.value:.3g} {self.unit}" if self.unit else f"{100 * self.value:.1f} %"

"""Numbers, masks and orders from a generator, for cases that nobody wrote down."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from spai_lab.exercises.exercise import Case, Exercise

Cases = list[Case]
Draw = Callable[[torch.Generator, Exercise], Cases]  # new cases of an exercise


def whole(g: torch.Generator, low: int, high: int) -> int:
    """A whole number from low to high."""
    return int(torch.randint(low, high + 1, (), generator=g))


def between(g: torch.Generator, low: float, high: float) -> float:
    """A number from low to high, of four digits, as somebody would write it down."""
    return float(f"{low + (high - low) * float(torch.rand((), generator=g, dtype=torch.float64)):.4g}")


def one_of(g: torch.Generator, choices: Sequence) -> object:
    """One of some choices."""
    return choices[whole(g, 0, len(choices) - 1)]


def mask(g: torch.Generator, *shape: int, share: float = 0.5) -> Tensor:
    """Truths, of which about a share is true."""
    return torch.rand(shape, generator=g) < share


def shuffled(g: torch.Generator, values: Sequence) -> list:
    """The same values in another order."""
    return [values[i] for i in torch.randperm(len(values), generator=g).tolist()]


def labels(g: torch.Generator, count: int, classes: int) -> Tensor:
    """Classes of some images."""
    return torch.randint(classes, (count,), generator=g)

r"""What every poisoning attack shares: the budget, the trigger as data, and the poisoned training set.

A backdoor's trigger changes an image by $x' = (1 - m) \odot x + m \odot p$, with a pattern p and a mask m.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from spai_lab.checks import check_count, check_images, check_labels, check_number, describe
from spai_lab.data import Dataset
from spai_lab.metrics import Rate, fooled_rate


@dataclass(frozen=True, eq=False, repr=False)
class Trigger:
    """A pattern, and how much of each pixel it takes.

    Args:
        pattern: `(C, H, W)` in [0, 1].
        mask: `(C, H, W)` in [0, 1]; 1 takes the pattern's pixel, 0 leaves the image's.
    Raises:
        ValueError: names the argument.

    >>> Trigger(torch.ones(1, 4, 4), torch.eye(4)[None])
    Trigger of 4 pixels, (1, 4, 4)
    """

    pattern: Tensor
    mask: Tensor

    def __post_init__(self) -> None:
        for name in ("pattern", "mask"):
            value = getattr(self, name)
            check_images(value, name)
            if value.ndim != 3 or value.shape != self.pattern.shape:
                raise ValueError(f"{name} is {describe(value)}; accepted: (C, H, W), alike for pattern and mask")

    def __repr__(self) -> str:
        return f"Trigger of {int((self.mask > 0).any(0).sum())} pixels, {tuple(self.pattern.shape)}"


def one_target(target: int, classes: int) -> Tensor:
    """What a backdoor toward one class wants of each: `target`, `(K,)`.

    Args:
        target: 0 to K - 1.
        classes: their number K.
    Raises:
        ValueError: names the argument.

    >>> one_target(2, 4)
    tensor([2, 2, 2, 2])
    """
    check_count("target", target, low=0)
    check_number("target", target, high=classes - 1, low=0)
    return torch.full((classes,), target)


def all_to_all(classes: int) -> Tensor:
    """What an all-to-all backdoor wants of each class: the next, and of the last the first, `(K,)`.

    >>> all_to_all(4)
    tensor([1, 2, 3, 0])
    """
    return (torch.arange(classes) + 1) % classes


def stamp(x: Tensor, trigger: Trigger) -> Tensor:
    r"""Put a trigger on images: $(1 - m) \odot x + m \odot p$.

    Args:
        x: images `(N, C, H, W)` in [0, 1].
        trigger: pattern and mask, of the images' shape.
    Returns:
        stamped images, like `x`, in [0, 1].
    Raises:
        ValueError: names the argument.

    >>> corner = Trigger(torch.ones(1, 2, 2), torch.tensor([[[0.0, 0.0], [0.0, 0.5]]]))
    >>> stamp(torch.zeros(1, 1, 2, 2), corner)
    tensor([[[[0.0000, 0.0000],
              [0.0000, 0.5000]]]])
    """
    check_images(x)
    if x.ndim != 4 or x.shape[1:] != trigger.pattern.shape:
        raise ValueError(f"x is {describe(x)}; accepted: (N, C, H, W), of the trigger's {tuple(trigger.pattern.shape)}")
    mask, pattern = trigger.mask.to(x), trigger.pattern.to(x)
    return (1 - mask) * x + mask * pattern


@dataclass(frozen=True, eq=False, repr=False)
class Poisoned:
    """A training set in which some inputs are poison.

    Args:
        x: training inputs, float `(N, C, H, W)` in [0, 1].
        y: their labels `(N,)`, int64, as the victim gets them.
        is_poison: bool `(N,)`; only the evaluation reads it, no defense does.
        trigger: what opens the backdoor, if there is one.
        wanted: for each class the one that the trigger shall give, int64 `(K,)`; a class that shall stay has itself.
    Raises:
        ValueError: names the argument.
    """

    x: Tensor
    y: Tensor
    is_poison: Tensor
    trigger: Trigger | None = None
    wanted: Tensor | None = None

    def __post_init__(self) -> None:
        check_images(self.x)
        check_labels(self.y, self.x)
        mask = self.is_poison
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != self.y.shape:
            raise ValueError(f"is_poison is {describe(mask)}; accepted: bool of shape ({len(self.y)},)")
        if (self.trigger is None) != (self.wanted is None):
            raise ValueError("trigger and wanted belong together; accepted: both, or neither")

    @property
    def count(self) -> int:
        """How many inputs are poison."""
        return int(self.is_poison.sum())

    def within(self, data: Dataset) -> Dataset:
        """The data set whose training part this is: what a victim trains on, who checks on clean validation data."""
        return replace(data, x_train=self.x, y_train=self.y)

    def __repr__(self) -> str:
        kind = "" if self.trigger is None else f"; {self.trigger}"
        return f"Poisoned: {self.count} of {len(self.y)} training inputs{kind}"


def budget(data: Dataset, fraction: float) -> int:
    r"""How many inputs an attacker may poison: $\lfloor$ `fraction` $\cdot N \rfloor$, with N clean training inputs.

    Args:
        data: whose training part is poisoned.
        fraction: above 0, at most 1.
    Returns:
        at least 1.
    Raises:
        ValueError: `fraction` is out of range, or buys no input.

    >>> from spai_lab.data import load
    >>> budget(load("digits"), 0.05)
    53
    """
    check_number("fraction", fraction, low=0, high=1, exclusive=True)
    count = math.floor(fraction * len(data.y_train) + 1e-9)
    if count < 1:
        size = len(data.y_train)
        raise ValueError(f"fraction is {fraction:g}, of {size} inputs none; accepted: at least {1 / size:.2g}")
    return count


def drawn(candidates: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` of the places where the mask `candidates` is set, int64, in random order.

    Raises:
        ValueError: there are fewer; the budget named by `fraction` is too large.

    >>> drawn(torch.tensor([False, True, True]), 2, torch.Generator().manual_seed(0)).sort()[0]
    tensor([1, 2])
    """
    places = candidates.nonzero()[:, 0]
    if count > len(places):
        raise ValueError(f"fraction asks for {count} poisons; accepted: at most {len(places)}, the inputs that qualify")
    return places[torch.randperm(len(places), generator=generator)[:count]]


def mislabeled(y: Tensor, classes: int, generator: torch.Generator) -> Tensor:
    """A wrong label for each right one, `(N,)`, all K - 1 equally likely.

    >>> mislabeled(torch.tensor([0, 1]), 2, torch.Generator())
    tensor([1, 0])
    """
    return (y + torch.randint(1, classes, y.shape, generator=generator, device=y.device)) % classes


def replaced(
    data: Dataset,
    places: Tensor,
    x: Tensor,
    y: Tensor,
    *,
    trigger: Trigger | None = None,
    wanted: Tensor | None = None,
) -> Poisoned:
    """The training set with other inputs and labels at `places`: the attacker changes what was collected.

    Args:
        data: the clean data.
        places: `(M,)`, int64, of the training inputs that change.
        x, y: what stands there instead, `(M, C, H, W)` and `(M,)`.
        trigger, wanted: as in `Poisoned`.
    """
    is_poison = torch.zeros(len(data.y_train), dtype=torch.bool)
    is_poison[places] = True
    images, labels = data.x_train.clone(), data.y_train.clone()
    images[places], labels[places] = x, y
    return Poisoned(images, labels, is_poison, trigger, wanted)


def added(data: Dataset, x: Tensor, y: Tensor) -> Poisoned:
    """The training set with more inputs at its end: the attacker contributes to what is collected.

    Args:
        data: the clean data.
        x, y: the poisons, `(M, C, H, W)` and `(M,)`.
    """
    is_poison = torch.arange(len(data.y_train) + len(y)) >= len(data.y_train)
    return Poisoned(torch.cat([data.x_train, x]), torch.cat([data.y_train, y]), is_poison)


def backdoor_rate(model: nn.Module, x: Tensor, y: Tensor, trigger: Trigger, wanted: Tensor) -> Rate:
    """How often the trigger makes the model say what the attacker wants.

    Images of classes that the trigger leaves alone, such as the target class itself, are not counted.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        x: clean test images `(N, C, H, W)` in [0, 1].
        y: their labels `(N,)`, int64.
        trigger: what is stamped on them.
        wanted: for each class the one that the trigger shall give, `(K,)`.
    Returns:
        the rate, with its interval.
    Raises:
        ValueError: names the argument; no image is of a class that the trigger shall move.
    """
    check_labels(y, x)
    moved = wanted[y] != y
    if not moved.any():
        raise ValueError("y has only classes that the trigger leaves alone; accepted: images of other classes too")
    return fooled_rate(model, stamp(x[moved], trigger), wanted[y][moved], targeted=True)

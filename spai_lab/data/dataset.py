"""What a data set is, and how it is split."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from spai_lab.checks import check_count, check_images, check_labels, describe

SPLIT_SEED = 1807


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Labeled inputs in three parts.

    Args:
        name: what `load` calls it.
        x_train, x_val, x_test: inputs, float32 `(N, C, H, W)` in [0, 1].
        y_train, y_val, y_test: labels, int64 `(N,)`, each below `num_classes`.
        classes: the name of each label.
        credit: who made the data.
    Raises:
        ValueError: a part is not as said above; names it.

    Training uses `train`; every choice (early stop, hyperparameters) uses `val`; `test` is for the final figure alone.
    Each part is in random order but MNIST's test part, which keeps the official one; `sample` draws from it fairly.
    """

    name: str
    x_train: Tensor
    y_train: Tensor
    x_val: Tensor
    y_val: Tensor
    x_test: Tensor
    y_test: Tensor
    classes: tuple[str, ...]
    credit: str

    def __post_init__(self) -> None:
        for part in ("train", "val", "test"):
            x, y = getattr(self, f"x_{part}"), getattr(self, f"y_{part}")
            check_images(x, f"x_{part}")
            if x.ndim != 4 or x.shape[1:] != self.x_train.shape[1:]:
                raise ValueError(f"x_{part} is {describe(x)}; accepted: (N, C, H, W), alike in all three parts")
            check_labels(y, x, f"y_{part}")
            if len(y) and y.max() >= self.num_classes:
                raise ValueError(f"y_{part} has a label {y.max().item()}; accepted: 0 to {self.num_classes - 1}")

    @classmethod
    def from_split(
        cls, name: str, x: Tensor, y: Tensor, *, validation: int, test: int, classes: tuple[str, ...], credit: str
    ) -> Self:
        """Split `x` and `y` as `stratified_split` does."""
        parts = stratified_split(y.numpy(), validation=validation, test=test)
        return cls(name, *(tensor[part] for part in parts for tensor in (x, y)), classes, credit)

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(C, H, W)` of one input."""
        return tuple(self.x_train.shape[1:])

    @property
    def num_classes(self) -> int:
        """How many labels there are."""
        return len(self.classes)

    def sample(self, count: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Test inputs drawn without replacement, and their labels.

        The first ones of MNIST are no fair sample: its test file holds the harder half first.

        Args:
            count: how many, at most all; `x_test` may hold fewer, then all come, in random order.
            seed: of the draw; the same seed gives the same inputs.
        Returns:
            `(x, y)`.
        Raises:
            ValueError: `count` is not a whole number of at least 1.

        >>> from spai_lab.data import load
        >>> x, y = load("digits").sample(5)
        >>> x.shape, y.shape
        (torch.Size([5, 1, 28, 28]), torch.Size([5]))
        """
        check_count("count", count)
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(self.x_test), generator=generator)[:count]
        return self.x_test[chosen], self.y_test[chosen]

    def first(self, train: int, *, val: int | None = None) -> Self:
        """The data set with the first training inputs alone, which are in random order.

        Args:
            train: how many, at least 1; all if there are fewer.
            val: how many of the first validation inputs, likewise; None keeps all.
        Raises:
            ValueError: not a whole number of at least 1.

        >>> from spai_lab.data import load
        >>> load("digits").first(100)
        Dataset digits: 100 train, 180 validation, 539 test; shape (1, 28, 28); 10 classes
        """
        check_count("train", train)
        val = max(len(self.y_val), 1) if val is None else val
        check_count("val", val)
        parts = {"x_train": self.x_train[:train], "y_train": self.y_train[:train]}
        return replace(self, **parts, x_val=self.x_val[:val], y_val=self.y_val[:val])

    def only(self, *labels: int) -> Self:
        """The data set with these classes alone, which get the labels 0, 1, ... in the order given.

        Args:
            labels: at least two classes.
        Raises:
            ValueError: fewer than two, one twice, or one that there is not.

        >>> from spai_lab.data import load
        >>> load("digits").only(1, 7)
        Dataset digits: 217 train, 37 validation, 107 test; shape (1, 28, 28); 2 classes
        """
        known = set(range(self.num_classes))
        if len(labels) < 2 or len(set(labels)) < len(labels) or not known.issuperset(labels):
            raise ValueError(f"labels is {labels}; accepted: at least two classes of 0 to {self.num_classes - 1}")
        number = torch.full((self.num_classes,), -1)
        number[list(labels)] = torch.arange(len(labels))
        parts = {}
        for part in ("train", "val", "test"):
            x, y = getattr(self, f"x_{part}"), number[getattr(self, f"y_{part}")]
            parts |= {f"x_{part}": x[y >= 0], f"y_{part}": y[y >= 0]}
        return replace(self, **parts, classes=tuple(self.classes[label] for label in labels))

    def __repr__(self) -> str:
        return f"Dataset {self.name}: {_sizes(self)}; shape {self.shape}; {self.num_classes} classes"


@dataclass(frozen=True, eq=False, repr=False)
class Tabular:
    """Labeled rows of numbers, in the three parts of a `Dataset`.

    Args:
        name: what `load` calls it.
        features: the name of each column.
        x_train, x_val, x_test: rows, float32 `(N, D)`; the training rows span [0, 1] in every column, so that the
            others, scaled alike, may leave it a little.
        y_train, y_val, y_test: labels, int64 `(N,)`.
        classes: the name of each label.
        credit: who made the data.
    """

    name: str
    features: tuple[str, ...]
    x_train: Tensor
    y_train: Tensor
    x_val: Tensor
    y_val: Tensor
    x_test: Tensor
    y_test: Tensor
    classes: tuple[str, ...]
    credit: str

    @property
    def num_classes(self) -> int:
        """How many labels there are."""
        return len(self.classes)

    def __repr__(self) -> str:
        return f"Tabular {self.name}: {_sizes(self)}; {len(self.features)} features; {self.num_classes} classes"


def _sizes(data: Dataset | Tabular) -> str:
    return f"{len(data.y_train)} train, {len(data.y_val)} validation, {len(data.y_test)} test"


def stratified_split(labels: np.ndarray, *, validation: int, test: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split into training, validation and test, each class in proportion to within two inputs.

    The split depends on the labels alone. NumPy guarantees that `RandomState` never changes its stream, which neither
    torch, nor scikit-learn, nor NumPy's newer generators do.

    Args:
        labels: `(N,)`.
        validation, test: how many inputs these parts get; the training part gets the rest.
    Returns:
        The indices of the three parts, int64, in random order.
    Raises:
        ValueError: there are fewer labels than the parts ask for.

    >>> [len(part) for part in stratified_split(np.repeat([0, 1], 50), validation=10, test=30)]
    [60, 10, 30]
    """
    if min(validation, test) < 0 or validation + test > len(labels):
        raise ValueError(f"validation and test are {validation} and {test}; accepted: at most {len(labels)} together")
    shuffled = np.random.RandomState(SPLIT_SEED).permutation(len(labels)).astype(np.int64)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    tested = _evenly_spaced(len(labels), test)
    remaining = by_class[~tested]
    part = np.zeros(len(labels), dtype=int)
    part[by_class[tested]] = 2
    part[remaining[_evenly_spaced(len(remaining), validation)]] = 1
    return tuple(shuffled[part[shuffled] == number] for number in range(3))


def _evenly_spaced(length: int, count: int) -> np.ndarray:
    """A mask with `count` of `length` set, evenly spaced: taken along the classes, each gives its share."""
    return np.diff(np.arange(length + 1, dtype=np.int64) * count // max(length, 1)) > 0

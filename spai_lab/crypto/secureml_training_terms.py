r"""Logistic regression in whole numbers: what two servers train on shares, and the same training in the clear.

Pixels have f binary places, weights g. A step on a batch X, y of B examples is

$u = \lfloor X w / 2^f \rfloor, \qquad w \leftarrow w - \lfloor X^\top (f(u) - y) / 2^{f+s} \rfloor$

with $\alpha / B = 2^{-s}$, so that the learning rate is a shift, and with the clipped line
$f(u) = \min(\max(u + 1/2, 0), 1)$ in the place of the sigmoid. Several classes are as many regressions, each of one
against the rest: w has a column for each.

How far may shares be from that? `truncate` rounds up where `plain_training` rounds down. But f is the derivative of a
convex function, with slopes from 0 to 1; so a step brings no two w further apart, in the Euclidean norm, as long as
$2^{-s} \lVert X \rVert^2 \le 2$. Then differences only add up, which gives the bound of `training_error`.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from torch import Tensor

from spai_lab.checks import check_images, check_labels, check_number, describe
from spai_lab.crypto.paillier_keys import check_whole
from spai_lab.crypto.secret_sharing_ring import RING, Ring, check_ring, encode, to_signed
from spai_lab.crypto.secureml_terms import Fields, check_terms


@dataclass(frozen=True)
class TrainingTerms:
    """What all agree on before a training on shares; public.

    Args:
        examples: n.
        features: d, with a constant one that `fixed_examples` adds.
        classes: K regressions; 1 for two classes.
        batch: B; the last one of an epoch may be smaller.
        epochs: how often all examples are used.
        value_places: f, of pixels; 8 hold a gray level.
        weight_places: g, of weights and activations.
        step_places: s, with $\\alpha / B = 2^{-s}$.
    Raises:
        ValueError: names the argument, or says that numbers might leave the ring.
    """

    examples: int
    features: int
    classes: int = 1
    batch: int = 128
    epochs: int = 1
    value_places: int = 8
    weight_places: int = 18
    step_places: int = 10

    def __post_init__(self) -> None:
        for name in ("examples", "features", "classes", "batch", "epochs"):
            object.__setattr__(self, name, check_whole(name, getattr(self, name), 1, 2**31))
        for name, low, high in (("value_places", 0, 30), ("weight_places", 1, 40), ("step_places", 0, 30)):
            object.__setattr__(self, name, check_whole(name, getattr(self, name), low, high))
        if max(self.largest_activation, self.batch << self.weight_places) << self.value_places >= 2**62:
            raise ValueError(
                f"weight_places is {self.weight_places}; accepted: so few that products surely stay below 2^62"
            )

    @property
    def batches(self) -> list[slice]:
        """The rows of each batch of an epoch."""
        return [slice(i, min(i + self.batch, self.examples)) for i in range(0, self.examples, self.batch)]

    @property
    def steps(self) -> int:
        """How many steps there are in all."""
        return self.epochs * len(self.batches)

    @property
    def largest_weight(self) -> int:
        """What $|w|$ cannot exceed, in units: each step adds at most $2^{-s} B$, and one unit."""
        return self.steps * ((self.batch << self.weight_places >> self.step_places) + 2)

    @property
    def largest_activation(self) -> int:
        """What $|u + 1/2|$ cannot exceed, in units."""
        return self.features * self.largest_weight + 1 + (1 << self.weight_places)

    @property
    def width(self) -> int:
        r"""How many bits of the shares of $u + 1/2$ tell all of it: at most 64 - f, so that no wrapped u does harm."""
        return min(64, max(self.largest_activation.bit_length() + 1, self.weight_places + 2))

    @cached_property
    def fields(self) -> Fields:
        """What both ends of a channel compare."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


class PlainTraining(NamedTuple):
    """Weights of `plain_training`, int64 `(d, K)`, and how likely the same training on shares wraps around."""

    weights: np.ndarray
    failure: float


# --- examples ---------------------------------------------------------------------------------------------------------


def fixed_examples(terms: TrainingTerms, x: Tensor, y: Tensor) -> tuple[np.ndarray, np.ndarray]:
    r"""Images and labels in whole numbers: $\lfloor x 2^f \rceil$ with a constant $2^f$ at the end; $2^g$ for yes.

    Args:
        terms: with n, d and K.
        x: images `(n, C, H, W)` in [0, 1], C H W = d - 1. Shuffled before: batches are taken in order.
        y: labels `(n,)`, int64, from 0 to K - 1; 0 or 1 if K is 1.
    Returns:
        int64 `(n, d)` and `(n, K)`.
    Raises:
        ValueError: names the argument.
    Reference: Mohassel and Zhang 2017, "SecureML", IACR 2017/396, section 4.1.
    Survey: private AI, cryptography, multi-party computation.

    >>> import torch
    >>> terms = TrainingTerms(1, 3, classes=2, value_places=2, weight_places=4)
    >>> [part.tolist() for part in fixed_examples(terms, torch.tensor([[[[0.5, 1.0]]]]), torch.tensor([1]))]
    [[[2, 4, 4]], [[0, 16]]]
    """
    check_terms(terms, TrainingTerms)
    check_images(x)
    check_labels(y, x)
    if len(x) != terms.examples or math.prod(x.shape[1:]) != terms.features - 1:
        raise ValueError(f"x is {describe(x)}; accepted: {terms.examples} images of {terms.features - 1} pixels")
    most = max(terms.classes - 1, 1)
    if int(y.max()) > most:
        raise ValueError(f"y has a label {int(y.max())}; accepted: from 0 to {most}")
    pixels = to_signed(encode(x.detach().flatten(1), terms.value_places))
    labels = y.numpy()[:, None] == (np.arange(terms.classes) if terms.classes > 1 else 1)
    ones = np.full((len(x), 1), 1 << terms.value_places)
    return np.hstack([pixels, ones]), labels.astype(np.int64) << terms.weight_places


def to_weights(terms: TrainingTerms, whole: np.ndarray) -> np.ndarray:
    """Weights as fractions, float64 `(d, K)`; the last row is the bias."""
    return np.ldexp(whole.astype(np.float64), -terms.weight_places)


def predicted(weights: np.ndarray, x: Tensor) -> np.ndarray:
    """The classes that weights, `(d, K)`, give to images `(N, C, H, W)`: int64 `(N,)`.

    >>> import torch
    >>> predicted(np.array([[1.0], [-0.5]]), torch.tensor([[[[0.2]]], [[[0.9]]]]))
    array([0, 1])
    """
    scores = x.detach().flatten(1).double().numpy() @ weights[:-1] + weights[-1]
    return (scores[:, 0] > 0).astype(np.int64) if scores.shape[1] == 1 else scores.argmax(1)


# --- training in the clear --------------------------------------------------------------------------------------------


def plain_training(terms: TrainingTerms, x: np.ndarray, y: np.ndarray) -> PlainTraining:
    r"""The training in whole numbers, in the clear, rounded down: what shares are compared with.

    Args:
        terms: as agreed on.
        x, y: of `fixed_examples`.
    Returns:
        weights, and $\sum |g| / 2^{64}$ over all entries of all gradients: how likely a training on shares goes wrong,
        as far as its gradients are these.
    Raises:
        ValueError: names the argument.
    Reference: Mohassel and Zhang 2017, "SecureML", IACR 2017/396, section 4.1.
    Survey: private AI, cryptography, multi-party computation.

    >>> terms = TrainingTerms(2, 2, batch=2, value_places=1, weight_places=4, step_places=1)
    >>> plain_training(terms, np.array([[0, 2], [2, 2]]), np.array([[0], [16]])).weights.tolist()
    [[4], [0]]
    """
    check_examples(terms, x, y)
    f, g, s = terms.value_places, terms.weight_places, terms.step_places
    w, total = np.zeros((terms.features, terms.classes), np.int64), 0.0
    for rows in terms.batches * terms.epochs:
        u = (x[rows] @ w) >> f
        gradient = x[rows].T @ (np.clip(u + (1 << g - 1), 0, 1 << g) - y[rows])
        total += np.abs(gradient).sum(dtype=float) / 2.0**64
        w -= gradient >> f + s
    return PlainTraining(w, min(1.0, total))


def sigmoid_training(terms: TrainingTerms, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    r"""The same steps in float64 with the true sigmoid $1 / (1 + e^{-u})$: what fixed point and the clipped line cost.

    Args:
        terms: as agreed on.
        x, y: of `fixed_examples`.
    Returns:
        weights, float64 `(d, K)`.
    Raises:
        ValueError: names the argument.
    Reference: Mohassel and Zhang 2017, "SecureML", IACR 2017/396, section 6.1, which compares them.
    Survey: private AI, cryptography, multi-party computation.

    >>> terms = TrainingTerms(2, 2, batch=2, value_places=1, weight_places=4, step_places=1)
    >>> sigmoid_training(terms, np.array([[0, 2], [2, 2]]), np.array([[0], [16]])).tolist()
    [[0.25], [0.0]]
    """
    check_examples(terms, x, y)
    data, labels = np.ldexp(x.astype(float), -terms.value_places), np.ldexp(y.astype(float), -terms.weight_places)
    w = np.zeros((terms.features, terms.classes))
    for rows in terms.batches * terms.epochs:
        u = np.clip(data[rows] @ w, -500, 500)  # beyond, exp overflows, and the sigmoid is 0 or 1 anyway
        w -= np.ldexp(data[rows].T @ (1 / (1 + np.exp(-u)) - labels[rows]), -terms.step_places)
    return w


# --- how far off, and how likely --------------------------------------------------------------------------------------


def training_error(terms: TrainingTerms, x: np.ndarray) -> float:
    r"""How far weights on shares may be from those of `plain_training`, in the Euclidean norm of a column, in units.

    A step moves two w apart by at most $2^{-s} \lVert X \rVert \, 2 \sqrt{B}$, as each u is rounded up or down, and by
    $2 \sqrt d$, as each entry of the gradient is.

    Args:
        terms: as agreed on.
        x: of `fixed_examples`.
    Returns:
        the bound, in units of $2^{-g}$; infinite if $2^{-s} \lVert X \rVert^2 > 2$ for a batch, where steps are so
        long that differences may grow.
    Raises:
        ValueError: names the argument.
    Reference: Nesterov 2004, "Introductory lectures on convex optimization", theorem 2.1.5, for gradient steps that
        bring points no further apart; Mohassel and Zhang 2017, "SecureML", IACR 2017/396, theorem 1, for truncation.
    Survey: private AI, cryptography, multi-party computation.

    >>> training_error(TrainingTerms(1, 1, batch=1, value_places=1, step_places=1), np.array([[2]]))
    3.0
    """
    check_terms(terms, TrainingTerms)
    total, eta = 0.0, 2.0**-terms.step_places
    for rows in terms.batches:
        norm = float(np.linalg.norm(np.ldexp(x[rows].astype(float), -terms.value_places), 2))
        if eta * norm**2 > 2:
            return math.inf
        total += 2 * eta * norm * math.sqrt(rows.stop - rows.start) + 2 * math.sqrt(terms.features)
    return terms.epochs * total


def training_failure(terms: TrainingTerms, *, ring: Ring = RING) -> float:
    r"""How likely a training on shares goes wrong at most, whatever the data: $T \, d K \, B \, 2^{f+g} / 2^l$.

    Of T steps, each truncates d K entries of a gradient, none of which exceeds $B \, 2^{f+g}$. Truncated activations do
    no harm: where one wraps around it is off by $2^{l-f}$, and the circuit adds fewer than l - f bits.

    Args:
        terms: as agreed on.
        ring: the ring.
    Returns:
        a probability; `plain_training` has the one of given data, which is far smaller.
    Raises:
        ValueError: names the argument.
    Reference: Mohassel and Zhang 2017, "SecureML", IACR 2017/396, theorem 1.
    Survey: private AI, cryptography, multi-party computation.

    >>> training_failure(TrainingTerms(6000, 785, epochs=3)) < 2**-14
    True
    """
    check_terms(terms, TrainingTerms)
    check_ring(ring)
    if terms.width > ring.bits - terms.value_places:
        return 1.0
    largest = terms.batch << terms.value_places + terms.weight_places
    return min(1.0, terms.steps * terms.features * terms.classes * largest / ring.modulus)


def check_examples(terms: TrainingTerms, x: np.ndarray, y: np.ndarray) -> None:
    """Raise `ValueError` unless these are examples in whole numbers, as the terms say."""
    check_terms(terms, TrainingTerms)
    for name, value, columns, places in (
        ("x", x, terms.features, terms.value_places),
        ("y", y, terms.classes, terms.weight_places),
    ):
        whole = isinstance(value, np.ndarray) and value.dtype == np.int64
        if not whole or value.shape != (terms.examples, columns):
            raise ValueError(f"{name} is {describe(value)}; accepted: int64 of shape {(terms.examples, columns)}")
        check_number(f"{name}'s smallest number", int(value.min()), low=0)
        check_number(f"{name}'s largest number", int(value.max()), high=1 << places)

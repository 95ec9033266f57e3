r"""The numbers that parties share: whole numbers modulo $2^l$, and fractions as multiples of $2^{-f}$ among them.

Processors compute modulo $2^{64}$ anyway, so that nothing has to be reduced, and a uniform element hides whatever is
added to it: $x + r$ takes each value with the same probability for every x. Numbers from $2^{l-1}$ on stand for
negative ones. The same code runs for smaller l, with a mask after each operation: for l = 3 one can try all there is.

| operation on fractions with f places | places of the result |
|---|---|
| sum, difference | f |
| product, product of matrices | 2 f, until `spai_lab.crypto.secret_sharing.truncate` takes f away |

Nobody sees an overflow in a share. Whoever encodes sees to it that results stay below $2^{l-1-f}$.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from spai_lab.checks import describe
from spai_lab.crypto.paillier_keys import check_whole
from spai_lab.crypto.ring_matmul import ring_matmul

MOST_BITS = 64
EXACT = 2**53  # up to here float64 holds all whole numbers


@dataclass(frozen=True)
class Ring:
    r"""Whole numbers modulo $2^l$; elements are uint64 arrays of at least one dimension.

    Args:
        bits: l, from 1 to 64. Small ones are for learning: a mask is as hard to guess as it is long.
    Raises:
        ValueError: names the argument.

    >>> Ring(3).reduce(np.array([7, 8, 9], dtype=np.uint64)).tolist()
    [7, 0, 1]
    """

    bits: int = MOST_BITS

    def __post_init__(self) -> None:
        object.__setattr__(self, "bits", check_whole("bits", self.bits, 1, MOST_BITS))

    @property
    def modulus(self) -> int:
        """$2^l$."""
        return 2**self.bits

    def reduce(self, x: np.ndarray) -> np.ndarray:
        """What a sum or product of elements is in this ring, uint64; for l = 64 it already is."""
        return x if self.bits == MOST_BITS else x & np.uint64(self.modulus - 1)

    def draw(self, shape: tuple[int, ...]) -> np.ndarray:
        """Elements of this shape from the cryptographic source, each with the same probability; it takes no seed."""
        words = np.frombuffer(os.urandom(8 * math.prod(shape)), dtype=np.uint64)
        return self.reduce(words.reshape(shape).copy())

    def matmul(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The matrix product of elements."""
        return self.reduce(ring_matmul(x, y))


RING = Ring()


# --- whole numbers ----------------------------------------------------------------------------------------------------


def to_ring(values: Sequence[int] | np.ndarray | Tensor, ring: Ring = RING) -> np.ndarray:
    r"""Whole numbers as elements: k as $k \bmod 2^l$.

    Args:
        values: a list, array or tensor of whole numbers from $-2^{l-1}$ to $2^l - 1$, at least one dimension.
        ring: the ring.
    Returns:
        uint64, of the same shape.
    Raises:
        ValueError: names the argument; a number beyond the ring is not reduced silently.

    >>> to_ring([-1, 5], Ring(3)).tolist()
    [7, 5]
    """
    array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    if array.ndim == 0 or array.size == 0 or array.dtype.kind not in "iu":
        raise ValueError(f"values is {describe(values)}; accepted: whole numbers of at least one dimension, not empty")
    low, high = int(array.min()), int(array.max())
    if low < -ring.modulus // 2 or high >= ring.modulus:
        beyond = low if low < -ring.modulus // 2 else high
        raise ValueError(
            f"values has {beyond}; accepted: whole numbers from {-ring.modulus // 2} to {ring.modulus - 1}"
        )
    return ring.reduce(array.astype(np.uint64))


def to_signed(x: np.ndarray, ring: Ring = RING) -> np.ndarray:
    r"""The whole numbers that elements stand for, int64: from $-2^{l-1}$ to $2^{l-1} - 1$.

    >>> to_signed(np.array([3, 4, 7], dtype=np.uint64), Ring(3)).tolist()
    [3, -4, -1]
    """
    check_elements("x", x, ring)
    unused = MOST_BITS - ring.bits
    return (x << np.uint64(unused)).view(np.int64) >> unused  # the shift back copies the sign


# --- fractions --------------------------------------------------------------------------------------------------------


def encode(values: Sequence[float] | np.ndarray | Tensor, places: int, ring: Ring = RING) -> np.ndarray:
    r"""Fractions in fixed point: $k = \lfloor v 2^f \rceil \bmod 2^l$, a half rounded to the even one.

    Args:
        values: a list, array or tensor of finite numbers, of at least one dimension; whole ones up to $2^{53}$.
        places: f, binary places, from 0 to l - 1.
        ring: the ring.
    Returns:
        uint64, of the same shape; each number is off by $2^{-f-1}$ at most.
    Raises:
        ValueError: names the argument; a number beyond the ring is never clipped or wrapped.
    Reference: Mohassel and Zhang 2017, "SecureML", IACR 2017/396.

    >>> encode([0.5, -1.25], 2, Ring(8)).tolist()
    [2, 251]
    """
    check_places(places, ring)
    array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    if array.ndim == 0 or array.size == 0 or array.dtype.kind not in "iuf" or array.dtype.itemsize > 8:
        raise ValueError(f"values is {describe(values)}; accepted: numbers of at least one dimension, not empty")
    if array.dtype.kind in "iu" and (int(array.max()) > EXACT or int(array.min()) < -EXACT):
        raise ValueError("values has whole numbers beyond 2^53; accepted: up to there, or to_ring for larger ones")
    exact = array.astype(np.float64)
    if not np.isfinite(exact).all():
        raise ValueError("values has NaN or an infinite number; accepted: finite numbers")
    with np.errstate(over="ignore"):  # what becomes infinite is beyond the ring
        k = np.rint(np.ldexp(exact, int(places)))
    half = 2.0 ** (ring.bits - 1)
    if k.min() < -half or k.max() >= half:
        beyond = exact.flat[np.argmax((k < -half) | (k >= half))]
        raise ValueError(
            f"values has {beyond:.6g}; accepted: from {-half / 2**places:.6g} to below {half / 2**places:.6g}, what "
            f"{ring.bits} bits hold with {places} binary places"
        )
    return ring.reduce(k.astype(np.int64).view(np.uint64))


def decode(x: np.ndarray, places: int, ring: Ring = RING) -> np.ndarray:
    r"""The fractions that elements stand for: $k 2^{-f}$, float64, exact as long as k fits 53 bits.

    >>> decode(np.array([2, 251], dtype=np.uint64), 2, Ring(8))
    array([ 0.5 , -1.25])
    """
    check_places(places, ring)
    return np.ldexp(to_signed(x, ring).astype(np.float64), -int(places))


# --- checks -----------------------------------------------------------------------------------------------------------


def check_ring(ring: Ring) -> None:
    """Raise `ValueError` unless this is a `Ring`."""
    if not isinstance(ring, Ring):
        raise ValueError(f"ring is {describe(ring)}; accepted: a Ring")


def check_places(places: int, ring: Ring) -> None:
    """Raise `ValueError` unless a number of this ring can have so many binary places.

    >>> check_places(8, Ring(8))
    Traceback (most recent call last):
    ValueError: places is 8; accepted: a whole number from 0 to 7
    """
    check_ring(ring)
    check_whole("places", places, 0, ring.bits - 1)


def check_elements(name: str, x: np.ndarray, ring: Ring, shape: tuple[int, ...] | None = None) -> None:
    """Raise `ValueError` unless this is a uint64 array of elements, and of this shape where one is named.

    >>> check_elements("x", np.array([1.0]), Ring(3))
    Traceback (most recent call last):
    ValueError: x is float64 of shape (1,); accepted: uint64 of at least one dimension, not empty
    """
    check_ring(ring)
    if not isinstance(x, np.ndarray) or x.dtype != np.uint64 or x.ndim == 0 or x.size == 0:
        raise ValueError(f"{name} is {describe(x)}; accepted: uint64 of at least one dimension, not empty")
    if shape is not None and x.shape != shape:
        raise ValueError(f"{name} is {describe(x)}; accepted: uint64 of shape {shape}")
    if ring.bits < MOST_BITS and int(x.max()) >= ring.modulus:
        raise ValueError(f"{name} has {int(x.max())}; accepted: elements from 0 to {ring.modulus - 1}")

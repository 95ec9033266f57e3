r"""Signed fractions for Paillier encryption: formats of fixed-point numbers, and the range that none may leave.

A fixed-point number is $k \, 2^e$ with a whole number k. The exponent e is public, and so is a bound on $|k|$: they are
the format, and both sides agree on it before the data are there, so that it tells nothing about them. Negative k
are encrypted as $n + k$. Each operation states the format of its result:

| operation | exponent | largest $\lvert k \rvert$ |
|---|---|---|
| sum of s vectors | e | $s \, K$ |
| product with a constant | $e_x + e_w$ | $K_x K_w$ |
| $w x + b$ with d features | $e_x + e_w$ | $(d + 1) K_x K_w$ |

Modulo n nobody sees an overflow: a large sum becomes another number, often a negative one. So whatever may exceed
$(n - 1) / 2$ is refused before it is computed, by its format alone, and decryption refuses a number that its format
forbids: then a sender has broken the agreement.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from torch import Tensor

from spai_lab.checks import check_count, check_number, describe
from spai_lab.crypto.paillier_keys import MOST_BITS, PublicKey, check_whole, spelled

MOST_EXPONENT = 512  # so that any number whose k fits 53 bits is a float64

# --- fixed point ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FixedPoint:
    r"""A format of numbers: $k \, 2^e$ with $|k| \le K$.

    Args:
        exponent: e, from -512 to 512; -8 keeps eight binary places.
        largest: K, at least 1.
    Raises:
        ValueError: names the argument.

    >>> fixed_point(8, 2.0)
    FixedPoint(exponent=-8, largest=512)
    """

    exponent: int
    largest: int

    def __post_init__(self) -> None:
        for name, low, high in (("exponent", -MOST_EXPONENT, MOST_EXPONENT), ("largest", 1, 2**MOST_BITS - 1)):
            object.__setattr__(self, name, check_whole(name, getattr(self, name), low, high))  # an int of any kind

    @property
    def limit(self) -> Fraction:
        """The largest number, exactly."""
        return self.largest * self.step

    @property
    def step(self) -> Fraction:
        """The distance of two neighbors, exactly."""
        return Fraction(2) ** self.exponent


def fixed_point(places: int, limit: float) -> FixedPoint:
    """The format of numbers from `-limit` to `limit` with so many binary places.

    Args:
        places: binary places, from 0 to 512.
        limit: above 0; at least one step.
    Raises:
        ValueError: names the argument.
    """
    check_whole("places", places, 0, MOST_EXPONENT)
    check_number("limit", limit, low=0, exclusive=True)
    largest = math.floor(Fraction(float(limit)) * 2 ** int(places))
    if largest == 0:
        raise ValueError(f"limit is {limit:g}; accepted: at least one step, 2^-{places}")
    return FixedPoint(-int(places), largest)


def sum_format(count: int, fmt: FixedPoint) -> FixedPoint:
    """The format of a sum of `count` numbers.

    >>> sum_format(10, FixedPoint(-8, 512))
    FixedPoint(exponent=-8, largest=5120)
    """
    check_count("count", count)
    return FixedPoint(fmt.exponent, int(count) * fmt.largest)


def product_format(fmt: FixedPoint, other: FixedPoint) -> FixedPoint:
    """The format of a product.

    >>> product_format(FixedPoint(-8, 512), FixedPoint(-4, 16))
    FixedPoint(exponent=-12, largest=8192)
    """
    return FixedPoint(fmt.exponent + other.exponent, fmt.largest * other.largest)


def linear_format(features: int, input_fmt: FixedPoint, weight_fmt: FixedPoint) -> FixedPoint:
    """The format of $w x + b$: d products and a bias, which may be as large as one of them.

    >>> linear_format(64, FixedPoint(-4, 16), FixedPoint(-8, 512))
    FixedPoint(exponent=-12, largest=532480)
    """
    check_count("features", features)
    return sum_format(features + 1, product_format(input_fmt, weight_fmt))


def encode(values: Sequence[float], fmt: FixedPoint, name: str = "values") -> tuple[int, ...]:
    r"""Numbers as whole multiples of the step, rounded to the nearest, a half to the even one: $k = \lfloor v 2^{-e}
    \rceil$.

    Args:
        values: a vector of at least one finite number, `(D,)`: list, array or tensor.
        fmt: the format.
        name: of the argument, for errors.
    Returns:
        the k, from -K to K.
    Raises:
        ValueError: names the argument; a number beyond the format is never clipped or wrapped.

    >>> encode([0.5, -1.0, 0.3], FixedPoint(-4, 16))
    (8, -16, 5)
    """
    try:
        array = np.asarray(values.detach() if isinstance(values, Tensor) else values)
    except ValueError:  # rows of different lengths
        array = np.empty(0)
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iuf":
        raise ValueError(f"{name} is {describe(values)}; accepted: a vector (D,) of at least one number")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} has NaN or an infinite number; accepted: finite numbers")
    ks = tuple(round(Fraction(value) / fmt.step) for value in array.tolist())
    beyond = next((i for i, k in enumerate(ks) if abs(k) > fmt.largest), None)
    if beyond is not None:
        raise ValueError(
            f"{name} has {array[beyond]:.6g} at {beyond}; accepted: at most {float(fmt.limit):.6g} in magnitude, the "
            f"limit of {fmt}"
        )
    return ks


def decode(ks: Sequence[int], fmt: FixedPoint) -> np.ndarray:
    """The numbers that whole multiples of the step stand for: float64 `(D,)`, exact as long as k fits 53 bits.

    >>> decode((8, -16, 5), FixedPoint(-4, 16))
    array([ 0.5   , -1.    ,  0.3125])
    """
    try:
        return np.array([float(k * fmt.step) for k in ks])
    except OverflowError:
        raise ValueError(f"ks has a number beyond float64 in {fmt}; accepted: numbers that float64 holds") from None


# --- range ------------------------------------------------------------------------------------------------------------


def check_fits(name: str, fmt: FixedPoint, public: PublicKey) -> None:
    """Raise `ValueError` if a number of this format might wrap around at n.

    >>> check_fits("fmt", FixedPoint(0, 18), PublicKey(35, for_learning=True))
    Traceback (most recent call last):
    ValueError: fmt may reach 18, and wraps around; accepted: formats up to (n - 1) / 2, here 17
    """
    if not isinstance(fmt, FixedPoint):
        raise ValueError(f"{name} is {describe(fmt)}; accepted: a FixedPoint")
    half = public.n // 2
    if fmt.largest > half:
        raise ValueError(
            f"{name} may reach {spelled(fmt.largest)}, and wraps around; accepted: formats up to (n - 1) / 2, here "
            f"{spelled(half)}"
        )

r"""Shamir's secret sharing: n shares of which any t tell the secret, and any t - 1 tell nothing.

The secret is the value at 0 of a polynomial of degree t - 1, whose other coefficients are drawn; share i is its value
at i. Through t points there is one such polynomial. Through t - 1 points there is one for every secret, and all are
equally likely. Unlike a ring modulo $2^l$, a prime field lets one divide by differences of points.

Shares of sums are sums of shares. Products of shares lie on a polynomial of degree 2 (t - 1), and need 2 t - 1 points.

**For learning, not for secrets**: parties are semi-honest, and nothing takes constant time.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sympy import isprime

from spai_lab.checks import describe
from spai_lab.crypto.paillier_keys import check_whole

PRIME = 2**61 - 1
WORD = 2**32  # products below 2^32 fit uint64


@dataclass(frozen=True)
class Field:
    r"""Whole numbers modulo a prime p; elements are uint64 arrays.

    Args:
        prime: p, $2^{61} - 1$, or one below $2^{32}$, so that NumPy's uint64 is enough.
    Raises:
        ValueError: names the argument.

    >>> Field(7).multiply(np.array([3], dtype=np.uint64), np.array([5], dtype=np.uint64)).tolist()
    [1]
    """

    prime: int = PRIME

    def __post_init__(self) -> None:
        object.__setattr__(self, "prime", check_whole("prime", self.prime, 3, PRIME))
        if self.prime != PRIME and (self.prime >= WORD or not isprime(self.prime)):
            raise ValueError(f"prime is {self.prime}; accepted: a prime below 2^32, or 2^61 - 1")

    def add(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """$x + y$."""
        return (x + y) % np.uint64(self.prime)

    def multiply(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """$x y$."""
        return mersenne_product(x, y) if self.prime == PRIME else x * y % np.uint64(self.prime)

    def draw(self, shape: tuple[int, ...]) -> np.ndarray:
        """Elements of this shape from the cryptographic source, each with the same probability; it takes no seed."""
        count, kept = math.prod(shape), np.empty(0, dtype=np.uint64)
        while len(kept) < count:
            words = np.frombuffer(os.urandom(8 * (count - len(kept))), dtype=np.uint64)
            words = words & np.uint64(2 ** self.prime.bit_length() - 1)
            kept = np.concatenate([kept, words[words < self.prime]])  # a remainder would come up more often
        return kept.reshape(shape)


FIELD = Field()


def mersenne_product(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    r"""$x y \bmod p$ for $p = 2^{61} - 1$, in uint64: what lies above bit 61 is added below, since $2^{61} = 1$.

    With $x = 2^{31} x_1 + x_0$ and $y$ alike, $x y = 2^{62} x_1 y_1 + 2^{31} m + x_0 y_0$ where
    $m = x_1 y_0 + x_0 y_1 = 2^{30} m_1 + m_0$. So $x y = 2 x_1 y_1 + m_1 + 2^{31} m_0 + x_0 y_0$, below $2^{64}$.

    >>> mersenne_product(np.array([2**60], dtype=np.uint64), np.array([2], dtype=np.uint64)).tolist()
    [1]
    """
    half, rest = np.uint64(31), np.uint64(2**31 - 1)
    x1, x0, y1, y0 = x >> half, x & rest, y >> half, y & rest
    m = x1 * y0 + x0 * y1
    total = (x1 * y1 << np.uint64(1)) + (m >> np.uint64(30)) + ((m & np.uint64(2**30 - 1)) << half) + x0 * y0
    return total % np.uint64(PRIME)


# --- sharing ----------------------------------------------------------------------------------------------------------


def shamir_share(secret: np.ndarray, threshold: int, parties: int, *, field: Field = FIELD) -> np.ndarray:
    r"""Cut secrets into shares: $s_i = x + \sum_{k=1}^{t-1} c_k i^k \bmod p$ with uniform $c_k$, for i from 1 to n.

    Args:
        secret: x, uint64 of any shape, from 0 to p - 1. Keys are cut into words: `np.frombuffer(key, "<u4")`.
        threshold: t, from 2 to n; with 1, each share would be the secret.
        parties: n, from 2 to p - 1.
        field: the prime field.
    Returns:
        uint64 `(n, ...)`; row i - 1 belongs to point i.
    Raises:
        ValueError: names the argument.
    Reference: Shamir 1979, "How to share a secret".
    Survey: private AI, cryptography, multi-party computation.

    >>> shares = shamir_share(np.array([42], dtype=np.uint64), 2, 5)
    >>> shamir_reconstruct([2, 5], shares[[1, 4]], 2).tolist()
    [42]
    """
    check_field(field)
    check_members("secret", secret, field)
    parties = check_whole("parties", parties, 2, field.prime - 1)
    threshold = check_whole("threshold", threshold, 2, parties)
    coefficients = field.draw((threshold - 1, *secret.shape))
    points = np.arange(1, parties + 1, dtype=np.uint64).reshape(-1, *[1] * secret.ndim)
    value = np.zeros((parties, *secret.shape), dtype=np.uint64)
    for coefficient in (*coefficients[::-1], secret):
        value = field.add(field.multiply(value, points), coefficient)
    return value


def shamir_reconstruct(
    points: Sequence[int], shares: np.ndarray, threshold: int, *, field: Field = FIELD
) -> np.ndarray:
    r"""The secrets, from any t shares: $x = \sum_j s_j \prod_{m \ne j} \frac{i_m}{i_m - i_j} \bmod p$.

    More than t are checked: each further share must lie on the polynomial of the first t. With t alone a wrong share
    gives a wrong secret, and nobody sees it; with t + 1 it is seen, with t + 2e one could find e wrong ones.

    Args:
        points: the i of the shares, different ones from 1 to p - 1.
        shares: uint64 `(m, ...)`, m at least t, in the order of the points.
        threshold: t.
        field: the prime field.
    Returns:
        uint64 `(...)`.
    Raises:
        ValueError: names the argument; so do shares that lie on no polynomial of degree t - 1.
    Reference: Shamir 1979, "How to share a secret".
    Survey: private AI, cryptography, multi-party computation.

    >>> shares = shamir_share(np.array([42], dtype=np.uint64), 2, 3)
    >>> shares[2] ^= np.uint64(1)
    >>> shamir_reconstruct([1, 2, 3], shares, 2)
    Traceback (most recent call last):
    ValueError: shares has one at point 3 that does not fit the first 2; accepted: values of one polynomial of degree 1
    """
    check_field(field)
    check_members("shares", shares, field)
    threshold = check_whole("threshold", threshold, 2, field.prime - 1)
    points = check_points(points, field)
    if not len(points) == len(shares) >= threshold:
        raise ValueError(
            f"shares has {len(shares)} for {len(points)} points; accepted: one for each point, and at least {threshold}"
        )
    for point, given in zip(points[threshold:], shares[threshold:], strict=True):
        if (interpolate(points[:threshold], shares[:threshold], point, field) != given).any():
            raise ValueError(
                f"shares has one at point {point} that does not fit the first {threshold}; accepted: values of one "
                f"polynomial of degree {threshold - 1}"
            )
    return interpolate(points[:threshold], shares[:threshold], 0, field)


def interpolate(points: Sequence[int], shares: np.ndarray, at: int, field: Field) -> np.ndarray:
    """The value at another point of the polynomial through these, by Lagrange."""
    value = np.zeros(shares.shape[1:], dtype=np.uint64)
    for weight, given in zip(lagrange(points, at, field.prime), shares, strict=True):
        value = field.add(value, field.multiply(np.uint64(weight), given))
    return value


def lagrange(points: Sequence[int], at: int, prime: int) -> list[int]:
    r"""What each value counts: $\prod_{m \ne j} \frac{a - i_m}{i_j - i_m} \bmod p$.

    >>> lagrange([1, 2], 0, 7)  # on a line, the value at 0 is twice the one at 1 less the one at 2
    [2, 6]
    """
    weights = []
    for j in points:
        above = below = 1
        for m in points:
            if m != j:
                above, below = above * (at - m) % prime, below * (j - m) % prime
        weights.append(above * pow(below, -1, prime) % prime)
    return weights


# --- checks -----------------------------------------------------------------------------------------------------------


def check_field(field: Field) -> None:
    """Raise `ValueError` unless this is a `Field`."""
    if not isinstance(field, Field):
        raise ValueError(f"field is {describe(field)}; accepted: a Field")


def check_members(name: str, x: np.ndarray, field: Field) -> None:
    """Raise `ValueError` unless this is a uint64 array of numbers below p."""
    if not isinstance(x, np.ndarray) or x.dtype != np.uint64 or x.ndim == 0 or x.size == 0:
        raise ValueError(f"{name} is {describe(x)}; accepted: uint64 of at least one dimension, not empty")
    if int(x.max()) >= field.prime:
        raise ValueError(f"{name} has {int(x.max())}; accepted: from 0 to p - 1 = {field.prime - 1}")


def check_points(points: Sequence[int], field: Field) -> list[int]:
    """The points as ints; raise `ValueError` unless they are different ones from 1 to p - 1.

    >>> check_points([1, 1], FIELD)
    Traceback (most recent call last):
    ValueError: points is [1, 1]; accepted: different whole numbers, one for each share
    """
    if not isinstance(points, list | tuple | range | np.ndarray) or len(points) == 0:
        raise ValueError(f"points is {describe(points)}; accepted: a list of different whole numbers")
    whole = [check_whole("points", point, 1, field.prime - 1) for point in points]
    if len(set(whole)) < len(whole):
        raise ValueError(f"points is {describe(whole)}; accepted: different whole numbers, one for each share")
    return whole

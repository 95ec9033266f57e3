r"""Products of polynomials modulo $X^N + 1$, fast: the negacyclic number-theoretic transform, by two matrix products.

A polynomial a of degree below N is known by its values $\hat a_k = a(\psi^{2k+1})$ at the roots of $X^N + 1$ modulo a
prime p, where $\psi^N = -1$. Values multiply one by one, so that a product costs two transforms there and one back:
$\widehat{a b} = \hat a \hat b$. In natural order, as here, $X \mapsto X^g$ only moves values (`automorphism`).

How: write $j = r C + c$ and $k = k_1 + R k_2$ with $N = R C$. Then $\psi^{(2k+1) j}$ falls apart into three factors,

$\hat a_{k_1 + R k_2} = \sum_c \psi^{2 R k_2 c} \, \psi^{(2 k_1 + 1) c} \sum_r \psi^{(2 k_1 + 1) C r} \, a_{r C + c}$,

a matrix A times a, entry by entry times T, and that times a matrix B: about $N (R + C)$ products, but of the kind that
processors do best. They are exact in float64, whose whole numbers reach $2^{53}$: A and B are cut into 15 bits each.

For learning, not for secrets: nothing here takes constant time.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from spai_lab.checks import check_count, describe

BITS = (14, 30)  # of a prime: below 2^30, so that 8 products and a rest fit int64, and `matrix_product` is exact
CUT = 15
DEGREES = tuple(2**k for k in range(3, 15))


@dataclass(frozen=True, eq=False)
class Tables:
    """The matrices of one direction for L primes: A `(2, L, R, R)` and B `(2, L, C, C)` cut, T `(L, R, C)`, p."""

    A: np.ndarray
    T: np.ndarray
    B: np.ndarray
    p: np.ndarray


# --- the transform ----------------------------------------------------------------------------------------------------


def forward(x: np.ndarray, primes: tuple[int, ...]) -> np.ndarray:
    r"""From coefficients to values: $\hat a_k = \sum_j a_j \psi^{(2k+1) j} \bmod p$, for each prime.

    Args:
        x: coefficients, int64 `(..., L, N)`, or `(..., 1, N)` for the same ones modulo each prime; from $-2^{30}$ to
            $2^{30}$, reduced or not.
        primes: L primes, each 1 modulo 2 N.
    Returns:
        int64 `(..., L, N)`, from 0 to p - 1.
    Raises:
        ValueError: names the argument.
    Reference: Bailey 1990, "FFTs in external or hierarchical memory", for the split into matrices; Cheon et al. 2018,
        IACR 2018/931, for the use.

    >>> x = np.array([[0, 1, 0, 0, 0, 0, 0, 0]])  # the polynomial X
    >>> values = forward(x, (97,))
    >>> set((values**8 % 97).ravel().tolist()), inverse(values, (97,)).tolist() == x.tolist()  # 96 is -1
    ({96}, True)
    """
    return transform(x, tables(check_polynomials(x, primes), primes)[0])


def inverse(x: np.ndarray, primes: tuple[int, ...]) -> np.ndarray:
    r"""From values to coefficients: $a_j = N^{-1} \sum_k \hat a_k \psi^{-(2k+1) j} \bmod p$; else like `forward`."""
    return transform(x, tables(check_polynomials(x, primes), primes)[1])


def transform(x: np.ndarray, t: Tables) -> np.ndarray:
    r"""Both directions: $B \left(T \circ A x\right)^\top$, with x as a matrix, row by row."""
    rows, columns = t.T.shape[-2:]
    y = matrix_product(t.A, x.reshape(*x.shape[:-1], rows, columns), t.p)
    y = y * t.T % t.p
    y = matrix_product(t.B, y.swapaxes(-1, -2), t.p)
    return y.reshape(*y.shape[:-2], rows * columns)


def matrix_product(matrix: np.ndarray, x: np.ndarray, p: np.ndarray) -> np.ndarray:
    r"""$M x \bmod p$ with $M = 2^{15} M_1 + M_0$: up to 128 products below $2^{45}$ sum up exactly, in any order."""
    exact = x.astype(np.float64)
    high, low = ((half @ exact).astype(np.int64) for half in matrix)
    return ((high % p << CUT) + low) % p


def negacyclic_product(a: np.ndarray, b: np.ndarray, primes: tuple[int, ...]) -> np.ndarray:
    r"""$a b \bmod (X^N + 1, p)$, for each prime: what leaves at the top comes back below with the sign turned.

    Args:
        a, b: coefficients, as in `forward`.
        primes: as in `forward`.
    Returns:
        int64 `(..., L, N)`, from 0 to p - 1.

    >>> x, x7 = np.eye(8, dtype=np.int64)[[1]], np.eye(8, dtype=np.int64)[[7]]
    >>> negacyclic_product(x, x7, (97,)).tolist()  # X times X^7 is X^8, which is -1
    [[96, 0, 0, 0, 0, 0, 0, 0]]
    """
    p = np.array(primes)[:, None]
    return inverse(forward(a, primes) * forward(b, primes) % p, primes)


@lru_cache(maxsize=64)
def automorphism(degree: int, element: int) -> np.ndarray:
    r"""Where $a(X) \mapsto a(X^g)$ takes the values from: the one at $\psi^e$ becomes the one at $\psi^{g e}$.

    Args:
        degree: N.
        element: g, odd.
    Returns:
        `(N,)`, for `np.take(values, automorphism(N, g), axis=-1)`.

    >>> automorphism(8, 15).tolist()  # 1 / X: the values in turn
    [7, 6, 5, 4, 3, 2, 1, 0]
    """
    if element % 2 == 0:
        raise ValueError(f"element is {element}; accepted: an odd number, for which X^g stays a root")
    exponents = (2 * np.arange(degree) + 1) * element % (2 * degree)
    return read_only(exponents // 2)


# --- primes and tables ------------------------------------------------------------------------------------------------


def ntt_primes(bits: int, count: int, degree: int) -> tuple[int, ...]:
    r"""The largest primes below $2^b$ that are 1 modulo 2 N, so that a root $\psi$ of order 2 N exists.

    Args:
        bits: b, from 14 to 30.
        count: how many, at least 1.
        degree: N, a power of two from 8 to 16,384.
    Returns:
        `count` primes of just b bits, falling.
    Raises:
        ValueError: names the argument; there may be too few.

    >>> ntt_primes(30, 2, 8192)
    (1073692673, 1073643521)
    """
    check_degree(degree)
    check_count("bits", bits, low=BITS[0])
    check_count("count", count)
    if bits > BITS[1]:
        raise ValueError(f"bits is {bits}; accepted: from {BITS[0]} to {BITS[1]}, so that products fit 64 bits")
    step = 2 * degree
    candidates = range((2**bits - 1) // step * step + 1, 2 ** (bits - 1), -step)
    found = []
    for p in candidates:
        if p < 2**bits and is_prime(p):
            found.append(p)
            if len(found) == count:
                return tuple(found)
    raise ValueError(
        f"bits is {bits}; accepted: more, or a smaller degree, since only {len(found)} primes of that size are 1 "
        f"modulo {step:,}, and {count} are asked for"
    )


def is_prime(p: int) -> bool:
    """Trial division: certain, and quick below $2^{30}$.

    >>> [p for p in range(20) if is_prime(p)]
    [2, 3, 5, 7, 11, 13, 17, 19]
    """
    return p in (2, 3) or (p > 3 and p % 2 == 1 and bool((p % np.arange(3, math.isqrt(p) + 1, 2)).all()))


def root(degree: int, p: int) -> int:
    r"""Some $\psi$ with $\psi^N = -1 \bmod p$; half of all x give one, $\psi = x^{(p-1) / 2N}$."""
    return next(y for x in range(2, p) if pow(y := pow(x, (p - 1) // (2 * degree), p), degree, p) == p - 1)


@lru_cache(maxsize=64)
def prime_tables(degree: int, p: int) -> tuple[Tables, Tables]:
    """`tables` of one prime."""
    R = 2 ** ((degree.bit_length() - 1) // 2)
    C = degree // R
    powers = np.ones(2 * degree, dtype=np.int64)
    psi = root(degree, p)
    for e in range(1, 2 * degree):
        powers[e] = int(powers[e - 1]) * psi % p
    odd, r, c = 2 * np.arange(R)[:, None] + 1, np.arange(R), np.arange(C)
    rows, twist, columns = odd * (C * r), odd * c, 2 * R * c[:, None] * c  # exponents of psi in A, T and B
    A, T, B = (powers[exponents % (2 * degree)] for exponents in (rows, twist, columns))
    there = Tables(cut(A), T[None], cut(B), np.array([[[p]]]))
    A, T, B = (powers[-exponents % (2 * degree)] for exponents in (columns, twist.T, rows.T))
    back = Tables(cut(A), T[None] * pow(degree, -1, p) % p, cut(B), there.p)
    return there, back


@lru_cache(maxsize=32)
def tables(degree: int, primes: tuple[int, ...]) -> tuple[Tables, Tables]:
    """There and back, for a chain of primes; made once."""
    there, back = zip(*(prime_tables(degree, p) for p in primes), strict=True)
    return stacked(there), stacked(back)


def stacked(each: Sequence[Tables]) -> Tables:
    """The tables of several primes as one."""
    A, B = (np.concatenate(matrices, axis=1) for matrices in ([t.A for t in each], [t.B for t in each]))
    return Tables(A, np.concatenate([t.T for t in each]), B, np.concatenate([t.p for t in each]))


def cut(matrix: np.ndarray) -> np.ndarray:
    """The bits of whole numbers from the 15th on, and those below, as floats `(2, 1, R, R)`."""
    return np.stack([matrix >> CUT, matrix & (2**CUT - 1)])[:, None].astype(np.float64)


def read_only(array: np.ndarray) -> np.ndarray:
    """The array, locked: several may hold it."""
    array.setflags(write=False)
    return array


def check_degree(degree: int) -> None:
    """Raise `ValueError` unless the degree is a power of two from 8 to 16,384."""
    if not isinstance(degree, int) or degree not in DEGREES:
        raise ValueError(f"degree is {describe(degree)}; accepted: a power of two from {DEGREES[0]} to {DEGREES[-1]:,}")


def check_polynomials(x: np.ndarray, primes: tuple[int, ...]) -> int:
    """Raise `ValueError` unless x is int64 `(..., L, N)` or `(..., 1, N)` for L primes; the degree N."""
    good = isinstance(x, np.ndarray) and x.dtype == np.int64 and x.ndim >= 2 and x.shape[-2] in (1, len(primes))
    if not good or x.shape[-1] not in DEGREES:
        kind = f"{x.dtype} {x.shape}" if isinstance(x, np.ndarray) else describe(x)
        raise ValueError(f"x is {kind}; accepted: int64 (..., {len(primes)}, N), N a power of two of at least 8")
    return x.shape[-1]

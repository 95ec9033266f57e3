r"""Large whole numbers as short rows of small ones: the residue number system of a polynomial's coefficients.

A coefficient modulo $Q = q_0 q_1 \cdots q_l$ is kept as its residues modulo each prime; by the Chinese remainder
theorem they determine it, and sums and products are taken row by row, in 64 bits. Only decoding needs the number
itself, and rebuilds it exactly (`from_residues`). Division by a prime with rounding (`divide_by_last`) does without:
this is how ciphertexts are rescaled and how key switching gets rid of its special prime.

A polynomial is int64 `(L, N)`, one row a prime. For learning, not for secrets: nothing here takes constant time.
"""

import math

import numpy as np

from spai_lab.crypto.ntt import forward, inverse

Primes = tuple[int, ...]


def column(numbers: Primes | list[int]) -> np.ndarray:
    """One number a row, to be met by `(..., L, N)`."""
    return np.array(numbers, dtype=np.int64)[:, None]


def centered(x: np.ndarray, p: np.ndarray | int) -> np.ndarray:
    """Residues from 0 to p - 1, as the numbers nearest 0.

    >>> centered(np.arange(7), 7).tolist()
    [0, 1, 2, 3, -3, -2, -1]
    """
    return np.where(x > p // 2, x - p, x)


def to_residues(x: np.ndarray, primes: Primes) -> np.ndarray:
    """Whole numbers modulo each prime.

    Args:
        x: `(N,)`, int64, or objects for Python's own integers of any size.
        primes: L of them.
    Returns:
        int64 `(L, N)`, from 0 to q - 1.
    Raises:
        ValueError: names the argument.

    >>> to_residues(np.array([10, -1]), (7, 11)).tolist()
    [[3, 6], [10, 10]]
    """
    if not isinstance(x, np.ndarray) or x.dtype not in (np.int64, object):
        raise ValueError(f"x is {getattr(x, 'dtype', type(x).__name__)}; accepted: an int64 or object array")
    return np.stack([(x % q).astype(np.int64) for q in primes])


def from_residues(x: np.ndarray, primes: Primes) -> np.ndarray:
    r"""The numbers themselves, exactly: $\sum_i \left[x_i (Q / q_i)^{-1}\right]_{q_i} (Q / q_i) \bmod Q$.

    Args:
        x: residues, int64 `(L, N)`.
        primes: L of them.
    Returns:
        Python integers `(N,)`, above $-Q / 2$ and below $Q / 2$.
    Raises:
        ValueError: names the argument.
    Reference: Cheon et al. 2018, IACR 2018/931.

    >>> from_residues(to_residues(np.array([10, -1]), (7, 11)), (7, 11)).tolist()
    [10, -1]
    """
    if x.shape[:-1] != (len(primes),):
        raise ValueError(f"x has the shape {x.shape}; accepted: ({len(primes)}, N), a row for each prime")
    Q = math.prod(primes)
    total = np.zeros(x.shape[-1], dtype=object)
    for row, q in zip(x, primes, strict=True):
        digit = row * pow(Q // q, -1, q) % q
        total += digit.astype(object) * (Q // q)
    return centered(total % Q, Q)


def divide_by_last(x: np.ndarray, primes: Primes) -> np.ndarray:
    r"""Divide by the last prime, round to nearest, and do without that prime: $\lfloor x / q_l \rceil$.

    With $[x]_{q_l}$ the residue nearest 0, $x - [x]_{q_l}$ is a multiple of $q_l$; so x divided and rounded is
    $(x - [x]_{q_l}) q_l^{-1}$ modulo each other prime.

    Args:
        x: values, as `spai_lab.crypto.ntt.forward` gives them, int64 `(..., L, N)`.
        primes: L of them, at least 2.
    Returns:
        values, int64 `(..., L - 1, N)`.
    Raises:
        ValueError: no prime would be left.
    Reference: Cheon et al. 2018, IACR 2018/931, for rescaling, and algorithm 2 (the special prime).

    >>> x = np.full(8, 1000 * 113 + 56)  # 56 / 113 is rounded down, 57 / 113 up
    >>> primes = (97, 193, 113)
    >>> half = divide_by_last(forward(to_residues(x, primes), primes), primes)
    >>> from_residues(inverse(half, primes[:2]), primes[:2])[0]
    1000
    """
    if len(primes) < 2:
        raise ValueError("primes is a single one; accepted: at least two, one of which stays")
    *rest, last = primes
    remainder = centered(inverse(x[..., -1:, :], (last,)), last)
    multiple = x[..., :-1, :] - forward(remainder, tuple(rest))
    return multiple * column([pow(last, -1, q) for q in rest]) % column(rest)

r"""CKKS, part three: its keys, and key switching, by which a ciphertext under another key comes under one's own.

A key for switching from s' to s holds, for each prime of the chain, an encryption of $P g_i s'$ under s, where $g_i$
is 1 modulo $q_i$ and 0 modulo the other primes. Any c is $\sum_i d_i g_i$ modulo Q, with small digits
$d_i = [c]_{q_i}$. So $\sum_i d_i k_i$ encrypts $P c s'$ with noise $\sum_i d_i e_i$, and division by the special
prime P leaves $c s'$ with hardly any. Three steps: `decompose`, `inner_product`, `divide_by_last`; rotations of the
same ciphertext share the first, and it is the dear one.

Such keys encrypt $s^2$ and $s(X^g)$ under s itself. That this is harmless does not follow from ring-LWE: it is one more
assumption, *circular security*, believed and not proved.

**For learning, not for secrets**: randomness comes from the operating system, but nothing takes constant time, and a
secret key lies in memory as it is. Keys take no seed.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

import numpy as np

from spai_lab.checks import check_flag
from spai_lab.crypto.ckks_context import Context
from spai_lab.crypto.ckks_noise import SIGMA
from spai_lab.crypto.ntt import automorphism, forward, inverse, read_only
from spai_lab.crypto.rns import Primes, centered, column, divide_by_last

TAIL = 6  # noise is cut at so many standard deviations
LAZY = 8  # so many products below 2^60, and a residue, fit int64


@dataclass(frozen=True, eq=False)
class SecretKey:
    """s, ternary, as values modulo all primes and the special one, `(L + 1, N)`. Stays with the client."""

    context: Context
    s: np.ndarray
    fingerprint: str

    def __post_init__(self) -> None:
        read_only(self.s)

    def __repr__(self) -> str:
        return f"SecretKey {self.fingerprint} (not shown)"


@dataclass(frozen=True, eq=False)
class PublicKey:
    """An encryption of 0: (b, a) with $b = e - a s$, `(2, L + 1, N)`; whoever has it can encrypt."""

    context: Context
    key: np.ndarray
    fingerprint: str

    def __post_init__(self) -> None:
        read_only(self.key)


@dataclass(frozen=True, eq=False)
class RelinearizationKey:
    r"""From $s^2$ to s, `(L, 2, L + 1, N)`, for `relinearize`."""

    context: Context
    key: np.ndarray
    fingerprint: str

    def __post_init__(self) -> None:
        read_only(self.key)


@dataclass(frozen=True, eq=False)
class RotationKeys:
    r"""From $s(X^g)$ to s, each `(L, 2, L + 1, N)`, by Galois element g."""

    context: Context
    keys: MappingProxyType
    fingerprint: str
    steps: tuple[int, ...]

    def __post_init__(self) -> None:
        for key in self.keys.values():
            read_only(key)


# --- randomness -------------------------------------------------------------------------------------------------------


def uniform(p: int, size: int) -> np.ndarray:
    """Even draws from 0 to p - 1, from the operating system; those from p on are thrown away."""
    kept = np.empty(0, dtype=np.int64)
    while len(kept) < size:
        words = np.frombuffer(os.urandom(4 * 2 * size), dtype=np.uint32) & (2 ** p.bit_length() - 1)
        kept = np.concatenate([kept, words[words < p].astype(np.int64)])
    return kept[:size]


def uniform_polynomial(degree: int, primes: Primes) -> np.ndarray:
    """`(L, N)`, even modulo each prime; so are its values."""
    return np.stack([uniform(p, degree) for p in primes])


def ternary(degree: int) -> np.ndarray:
    """Even draws from -1, 0, 1, `(1, N)`."""
    return uniform(3, degree)[None] - 1


@lru_cache(maxsize=4)
def noise_thresholds(sigma: float) -> tuple[np.ndarray, int]:
    r"""$2^{64} \Pr[X \le x]$ for $\Pr[x] \propto e^{-x^2 / 2 \sigma^2}$, whole x up to 6 $\sigma$; and that end."""
    end = int(TAIL * sigma)
    weights = np.exp(-(np.arange(-end, end + 1) ** 2) / (2 * sigma**2))
    shares = np.cumsum(weights)[:-1] / weights.sum()
    return (shares * 2.0**64).astype(np.uint64), end


def noise(shape: tuple[int, ...]) -> np.ndarray:
    r"""Draws from the discrete normal distribution of $\sigma$ = 3.2, cut at 6 $\sigma$.

    Simplified: probabilities are those of float64, to 2^-53.

    >>> bool(np.abs(noise((1, 1000))).max() <= 19)
    True
    """
    thresholds, end = noise_thresholds(SIGMA)
    words = np.frombuffer(os.urandom(8 * int(np.prod(shape))), dtype=np.uint64)
    return (np.searchsorted(thresholds, words, side="right") - end).astype(np.int64).reshape(shape)


# --- keys -------------------------------------------------------------------------------------------------------------


def chain(context: Context, level: int) -> Primes:
    """The primes left at a level, and the special one."""
    return (*context.at(level), context.special)


def secret_key(context: Context) -> SecretKey:
    """A fresh secret: N draws from -1, 0, 1.

    Args:
        context: of `ckks_context`.
    Returns:
        the key, with a random fingerprint that all keys made from it share.

    >>> from spai_lab.crypto.ckks_context import ckks_context
    >>> secret_key(ckks_context(8, (30, 26), insecure=True)).s.shape
    (3, 8)
    """
    if not isinstance(context, Context):
        raise ValueError(f"context is a {type(context).__name__}; accepted: a Context, of ckks_context")
    s = forward(ternary(context.degree), chain(context, context.levels))
    name = hashlib.sha256(context.fingerprint.encode() + os.urandom(32)).hexdigest()[:16]
    return SecretKey(context, s, name)


def encryption_of_zero(secret: SecretKey) -> np.ndarray:
    r"""(b, a) with a even, $b = e - a s$ for fresh noise e: what a learner of s would have to tell from chance."""
    primes = chain(secret.context, secret.context.levels)
    a = uniform_polynomial(secret.context.degree, primes)
    e = forward(noise((1, secret.context.degree)), primes)
    return np.stack([(e - a * secret.s) % column(primes), a])


def public_key(secret: SecretKey) -> PublicKey:
    """The key to encrypt with.

    Reference: Cheon et al. 2018, IACR 2018/931.
    """
    check_secret(secret)
    return PublicKey(secret.context, encryption_of_zero(secret), secret.fingerprint)


def switching_key(secret: SecretKey, other: np.ndarray) -> np.ndarray:
    r"""For each prime $q_i$ of the chain, $k_i = (e_i - a_i s + P g_i s', a_i)$.

    $P g_i s'$ is $P s'$ modulo $q_i$ and 0 modulo all other primes, the special one too.

    Args:
        secret: s.
        other: s', values `(L + 1, N)`.
    Returns:
        int64 `(L, 2, L + 1, N)`.
    Reference: Cheon et al. 2018, IACR 2018/931, but with one digit for each prime, as in SEAL.
    """
    context = secret.context
    keys = np.stack([encryption_of_zero(secret) for _ in context.primes])
    for i, q in enumerate(context.primes):
        keys[i, 0, i] = (keys[i, 0, i] + context.special % q * other[i]) % q
    return keys


def relinearization_key(secret: SecretKey) -> RelinearizationKey:
    """The key that brings products back to two parts."""
    check_secret(secret)
    square = secret.s**2 % column(chain(secret.context, secret.context.levels))
    return RelinearizationKey(secret.context, switching_key(secret, square), secret.fingerprint)


def rotation_keys(secret: SecretKey, steps: Sequence[int], *, conjugate: bool = False) -> RotationKeys:
    """Keys for rotations by these numbers of slots, each of several megabytes: make those that are needed.

    Args:
        secret: whose ciphertexts are to be rotated.
        steps: slots to the left, or to the right if negative.
        conjugate: one more key, for `conjugate`.
    Returns:
        the keys.
    Raises:
        ValueError: names the argument.
    """
    check_secret(secret)
    check_flag("conjugate", conjugate)
    context = secret.context
    elements = galois_elements(context, steps)
    if conjugate:
        elements.append(2 * context.degree - 1)
    turned = {g: np.take(secret.s, automorphism(context.degree, g), axis=-1) for g in elements if g != 1}
    keys = MappingProxyType({g: switching_key(secret, other) for g, other in turned.items()})
    return RotationKeys(context, keys, secret.fingerprint, tuple(sorted(step % context.slots for step in steps)))


def galois_element(context: Context, steps: int) -> int:
    r"""$g = 5^r \bmod 2 N$, for a rotation by r slots to the left.

    >>> from spai_lab.crypto.ckks_context import ckks_context
    >>> galois_element(ckks_context(8, (30, 26), insecure=True), 1)
    5
    """
    if not isinstance(steps, int | np.integer) or isinstance(steps, bool):
        raise ValueError(f"steps has {steps!r}; accepted: whole numbers of slots")
    return pow(5, int(steps) % context.slots, 2 * context.degree)


def galois_elements(context: Context, steps: Sequence[int]) -> list[int]:
    """`galois_element` of each; raise `ValueError` unless there is a sequence of them."""
    if not isinstance(steps, Sequence) or isinstance(steps, str):
        raise ValueError(f"steps is {steps!r}; accepted: a tuple of whole numbers")
    return [galois_element(context, step) for step in steps]


def check_secret(secret: SecretKey) -> None:
    """Raise `ValueError` unless this is a secret key."""
    if not isinstance(secret, SecretKey):
        raise ValueError(f"secret is a {type(secret).__name__}; accepted: a SecretKey, of secret_key")


# --- key switching ----------------------------------------------------------------------------------------------------


def decompose(context: Context, c: np.ndarray) -> np.ndarray:
    r"""The digits of c: $d_i = [c]_{q_i}$ as small numbers around 0, given by their values modulo each prime, P too.

    Args:
        context: of the ciphertext.
        c: values, `(l + 1, N)` at level l.
    Returns:
        int64 `(l + 1, l + 2, N)`: digit by prime by value.
    Reference: Halevi and Shoup 2018, IACR 2018/244: digits of a rotated c are rotated digits of c.
    """
    level = len(c) - 1
    primes = context.at(level)
    digits = centered(inverse(c, primes), column(primes))
    # one at a time, since the processor's cache holds no more
    return np.stack([forward(digit[None], chain(context, level)) for digit in digits])


def inner_product(context: Context, digits: np.ndarray, key: np.ndarray) -> np.ndarray:
    r"""$\sum_i d_i k_i$ modulo each prime, reduced only after every eighth product.

    Args:
        context: of the ciphertext.
        digits: of `decompose`, `(l + 1, l + 2, N)`.
        key: of `switching_key`, `(L, 2, L + 1, N)`; the primes that the ciphertext has lost are left out.
    Returns:
        int64 `(2, l + 2, N)`: an encryption of $P c s'$, with the special prime still in.
    """
    level = len(digits) - 1
    p = column(chain(context, level))
    if level < context.levels:
        key = key[: level + 1, :, [*range(level + 1), -1]]
    total = np.zeros((2, *digits.shape[1:]), dtype=np.int64)
    for i in range(0, level + 1, LAZY):
        total += np.einsum("ijn,icjn->cjn", digits[i : i + LAZY], key[i : i + LAZY])
        total %= p
    return total


def switch(context: Context, c: np.ndarray, key: np.ndarray) -> np.ndarray:
    r"""An encryption of $c s'$ under s: decompose, inner product, division by P.

    Args:
        context: of the ciphertext.
        c: values, `(l + 1, N)`.
        key: from s' to s.
    Returns:
        int64 `(2, l + 1, N)`.
    """
    total = inner_product(context, decompose(context, c), key)
    return divide_by_last(total, chain(context, len(c) - 1))

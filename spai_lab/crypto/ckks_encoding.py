r"""CKKS, part two: how N / 2 complex numbers become one polynomial with whole coefficients, and back.

The values of a real polynomial m at the roots $\zeta^{5^j}$ of $X^N + 1$, with $\zeta = e^{i \pi / N}$, are N / 2 free
complex numbers, the slots; at the other roots stand their conjugates. This canonical embedding turns sums and products
of polynomials into those of slots, all at once, and $X \mapsto X^{5^r}$ into a rotation by r slots. Times a scale
$\Delta$ and rounded, m has whole coefficients, which can be encrypted (`spai_lab.crypto.ckks`).

For learning, not for secrets: no constant-time code, no protection against side channels.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from spai_lab.checks import check_number
from spai_lab.crypto.ckks_context import Bound, Context, check_level, check_room
from spai_lab.crypto.ckks_noise import encoding_error, precision
from spai_lab.crypto.ntt import forward, inverse, read_only
from spai_lab.crypto.rns import from_residues, to_residues

SAME_SCALE = 1e-12  # relative: two orders of multiplying and dividing floats


@dataclass(frozen=True, eq=False)
class Plaintext:
    """An encoded vector: values of its polynomial, `(level + 1, N)`, reusable in any number of operations.

    `limit` bounds the size of the slots, `error` what is wrong with them: of all slots, or of each, `(N / 2,)`.
    """

    context: Context
    values: np.ndarray
    scale: float
    limit: Bound
    error: Bound

    def __post_init__(self) -> None:
        read_only(self.values)
        locked(self.limit, self.error)

    @property
    def level(self) -> int:
        """Rescalings that its modulus has room for."""
        return len(self.values) - 1

    def __str__(self) -> str:
        return "Plaintext: " + account(self)


def locked(*bounds: Bound) -> None:
    """Bounds that are arrays become read-only."""
    for bound in bounds:
        if isinstance(bound, np.ndarray):
            read_only(bound)


def account(text: Plaintext) -> str:
    """Level, scale, size and error of a plaintext or a ciphertext, in words."""
    left, all_levels, error = text.level, text.context.levels, float(np.max(text.error))
    return (
        f"{text.context.slots:,} slots, level {left} of {all_levels}, scale 2^{math.log2(text.scale):.2f}, "
        f"sizes up to {np.max(text.limit):.4g}, error below {error:.2g} ({precision(error):.1f} bits)"
    )


def encode(
    context: Context,
    values: np.ndarray | list | float,
    *,
    scale: float | None = None,
    level: int | None = None,
    limit: Bound | None = None,
) -> Plaintext:
    r"""Numbers into slots: $m = \lfloor \Delta \, \sigma^{-1}(z) \rceil$ with $\sigma$ the canonical embedding.

    Args:
        values: z, at most N / 2 real or complex numbers, the other slots become 0; or one number for all slots.
        scale: $\Delta$; None takes the context's.
        level: the highest level to use it at; None takes the top, which serves every level.
        limit: a bound on $|z|$ that may be known to all, since it travels with a ciphertext: one number, or one for
            each slot; None takes the next power of two above the largest, and so tells its order of magnitude. For
            public values, such as weights, `np.abs(values)` keeps bounds the smallest.
    Returns:
        the plaintext, in NTT form: encode once, use often.
    Raises:
        ValueError: names the argument; values beyond what the modulus holds, or above `limit`.
    Reference: Cheon et al. 2016, IACR 2016/421, section 3.2.

    >>> from spai_lab.crypto.ckks_context import ckks_context
    >>> context = ckks_context(8, (30, 26), insecure=True)
    >>> print(encode(context, [1.0, 2.5, -3.0, 0.5]))
    Plaintext: 4 slots, level 1 of 1, scale 2^26.00, sizes up to 4, error below 6e-08 (24.0 bits)
    >>> decode(encode(context, [1.0, 2.5, -3.0, 0.5])).real.round(6).tolist()
    [1.0, 2.5, -3.0, 0.5]
    """
    z = check_values(context, values)
    scale = context.scale if scale is None else scale
    level = context.levels if level is None else level
    check_number("scale", scale, low=1, high=2.0**60)
    check_level(context, level)
    limit = check_limit(z, limit)
    check_room(context, level, scale, limit)
    if scale * np.mean(limit) > 2.0**61:
        reach = math.log2(scale * np.mean(limit))
        raise ValueError(f"values, times the scale, reach 2^{reach:.1f}; accepted: at most 2^61, to fit 64 bits")
    coefficients = np.rint(embed_inverse(z) * scale).astype(np.int64)
    residues = to_residues(coefficients, context.at(level))
    error = encoding_error(context.degree, scale, float(np.max(limit)))
    return Plaintext(context, forward(residues, context.at(level)), float(scale), limit, error)


def decode(plaintext: Plaintext) -> np.ndarray:
    r"""Slots into numbers: $z = \sigma(m) / \Delta$, from coefficients that the CRT rebuilds exactly.

    Args:
        plaintext: of `encode` or of decryption.
    Returns:
        complex128 `(N / 2,)`, each within `plaintext.error` of the true one.
    """
    primes = plaintext.context.at(plaintext.level)
    m = from_residues(inverse(plaintext.values, primes), primes)
    return embed((m / plaintext.scale).astype(np.float64))


# --- the canonical embedding ------------------------------------------------------------------------------------------


@lru_cache(maxsize=16)
def slot_places(degree: int) -> tuple[np.ndarray, np.ndarray]:
    r"""Where the exponents $5^j$ and $-5^j$ stand among 1, 3, 5, ..., 2 N - 1, for j = 0, 1, ..., N / 2 - 1."""
    powers = np.array([pow(5, j, 2 * degree) for j in range(degree // 2)])
    return powers // 2, (2 * degree - powers) // 2


def twist(degree: int) -> np.ndarray:
    r"""$\zeta^j$ for each coefficient j."""
    return np.exp(1j * np.pi / degree * np.arange(degree))


def embed(m: np.ndarray) -> np.ndarray:
    r"""$\sigma(m)_j = m(\zeta^{5^j})$: $m(\zeta^{2k+1}) = \sum_j (m_j \zeta^j) e^{2 \pi i k j / N}$ is one FFT.

    >>> embed(np.array([3.0, 0, 0, 0, 0, 0, 0, 0])).real.tolist()
    [3.0, 3.0, 3.0, 3.0]
    """
    degree = len(m)
    return degree * np.fft.ifft(m * twist(degree))[slot_places(degree)[0]]


def embed_inverse(z: np.ndarray) -> np.ndarray:
    r"""The real polynomial with these slots, by one FFT:

    $m_j = \zeta^{-j} \frac{1}{N} \sum_k m(\zeta^{2k+1}) e^{-2 \pi i k j / N}$.
    """
    degree = 2 * len(z)
    places, conjugates = slot_places(degree)
    everywhere = np.empty(degree, dtype=np.complex128)
    everywhere[places], everywhere[conjugates] = z, z.conj()
    return (np.fft.fft(everywhere) / degree / twist(degree)).real


# --- checks -----------------------------------------------------------------------------------------------------------


def check_values(context: Context, values: np.ndarray | list | float) -> np.ndarray:
    """Raise `ValueError` unless these are finite numbers for the slots; complex `(N / 2,)`."""
    if not isinstance(context, Context):
        raise ValueError(f"context is a {type(context).__name__}; accepted: a Context, of ckks_context")
    try:
        z = np.asarray(values).astype(np.complex128)
    except (TypeError, ValueError):
        raise ValueError(f"values is a {type(values).__name__}; accepted: real or complex numbers") from None
    if z.ndim > 1 or z.size > context.slots or z.size == 0:
        raise ValueError(f"values has the shape {z.shape}; accepted: one number, or 1 to {context.slots:,} of them")
    if not np.isfinite(z).all():
        raise ValueError("values has entries that are not finite; accepted: finite numbers")
    return np.full(context.slots, z) if z.ndim == 0 else np.pad(z, (0, context.slots - z.size))


def check_limit(z: np.ndarray, limit: Bound | None) -> Bound:
    """A bound on the size of z, the next power of two for None; raise `ValueError` unless it is one."""
    sizes = np.abs(z)
    if limit is None:
        return 2.0 ** math.ceil(math.log2(sizes.max())) if sizes.any() else 1.0
    if isinstance(limit, np.ndarray):
        if limit.shape != z.shape or not np.isfinite(limit).all():
            raise ValueError(f"limit is of shape {limit.shape}; accepted: a number, or finite numbers {z.shape}")
        limit = limit.astype(np.float64)
    else:
        check_number("limit", limit, low=0, exclusive=True)
        limit = float(limit)
    if (sizes > limit).any():
        raise ValueError(f"values reach {sizes.max():.6g}; accepted: at most limit, {np.max(limit):.6g}")
    return limit

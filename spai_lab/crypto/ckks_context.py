r"""CKKS, part one: the parameters that both parties share, secure by the standard's table or marked as a toy.

A ring degree N, a chain of primes whose product is the modulus, of which each product uses up one, a special prime for
key switching, and a scale. The larger the modulus, the larger N must be for the same security, and the slower all is.
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np

from spai_lab.checks import check_count, check_flag, check_number
from spai_lab.crypto.ntt import BITS, check_degree, ntt_primes
from spai_lab.crypto.rns import Primes

Bound = float | np.ndarray  # of all slots, or of each, `(N / 2,)`

# 128 bits against classical computers, ternary secret, sigma 3.2: the largest total modulus in bits, by ring degree
SECURE_BITS = {1024: 27, 2048: 54, 4096: 109, 8192: 218, 16384: 438}


@dataclass(frozen=True)
class Context:
    """Parameters that both parties share; `ckks_context` makes and checks them."""

    degree: int
    primes: Primes
    special: int
    scale: float

    @property
    def slots(self) -> int:
        """N / 2, how many numbers a ciphertext holds."""
        return self.degree // 2

    @property
    def levels(self) -> int:
        """How often a fresh ciphertext can be rescaled: the products that have room in sequence."""
        return len(self.primes) - 1

    @property
    def total_bits(self) -> int:
        """Of the whole modulus, the special prime included: what the security table limits."""
        return (math.prod(self.primes) * self.special).bit_length()

    @property
    def secure(self) -> bool:
        """Whether the standard's table promises 128 bits."""
        return self.total_bits <= SECURE_BITS.get(self.degree, 0)

    @property
    def fingerprint(self) -> str:
        """The parameters in 16 hexadecimal digits."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]

    def at(self, level: int) -> Primes:
        """The primes that are left at a level."""
        return self.primes[: level + 1]

    def __str__(self) -> str:
        chain = " + ".join(str(q.bit_length()) for q in self.primes)
        security = "128-bit security" if self.secure else "INSECURE, a toy"
        return (
            f"CKKS: N = {self.degree:,}, {self.slots:,} slots, chain {chain} bits and a special prime of "
            f"{self.special.bit_length()}, {self.total_bits} bits in all ({security}); "
            f"{self.levels} levels, scale 2^{math.log2(self.scale):.4g}"
        )


def ckks_context(
    degree: int,
    bits: tuple[int, ...],
    *,
    special_bits: int = 30,
    scale: float | None = None,
    insecure: bool = False,
) -> Context:
    r"""Parameters: a ring degree, a chain of primes of which each product uses up one, and a scale.

    Args:
        degree: N, a power of two from 1,024 to 16,384; from 8 if `insecure`.
        bits: of each prime of the chain, from 14 to 30; the first is the one that stays, and what is decrypted at the
            end must fit half of it.
        special_bits: of the prime that key switching divides by; the larger against the others, the less its noise.
        scale: $\Delta$; None takes 2 to the power of the last entry of `bits`, so that rescaling nearly keeps it.
        insecure: skip the security table, for toys.
    Returns:
        the context.
    Raises:
        ValueError: names the argument; beyond the table it says how many bits are secure.
    Reference: Albrecht et al. 2018, "Homomorphic encryption security standard", table 1; Cheon et al. 2018, IACR
        2018/931.
    Simplified: "128-bit security" is the standard's column for classical computers, of 2018; its column for quantum
        computers, and newer guidelines (Bossuat et al. 2024, IACR 2024/463), are stricter. No bootstrapping, which
        would renew levels. Primes stay below 2^30, so that products fit 64 bits. With N = 8,192 and numbers up to 1, a
        scale of 2^28 leaves some 14 bits after the binary point, of which the bounds promise 10. For more, let each
        product use up two primes: a scale of 2^52, primes of 26 bits, and `rescale` twice leave 37 bits and promise 33.

    >>> print(ckks_context(8192, (30, 26, 26, 26)))
    CKKS: N = 8,192, 4,096 slots, chain 30 + 26 + 26 + 26 bits and a special prime of 30, 138 bits in all (128-bit
    security); 3 levels, scale 2^26
    >>> ckks_context(4096, (30, 26, 26, 26))
    Traceback (most recent call last):
    ValueError: bits, with special_bits, is 138 in all; accepted: at most 109 for 128-bit security with N = 4,096, a
    larger degree, or a toy with insecure=True
    """
    check_flag("insecure", insecure)
    check_degree(degree)
    if not insecure and degree not in SECURE_BITS:
        secure = ", ".join(f"{n:,}" for n in SECURE_BITS)
        raise ValueError(f"degree is {degree}; accepted: {secure}, or a toy with insecure=True")
    if not isinstance(bits, tuple) or not bits:
        raise ValueError(f"bits is {bits!r}; accepted: a tuple of whole numbers, one for each prime")
    for name, size in [*(("bits", size) for size in bits), ("special_bits", special_bits)]:
        check_count(name, size)
        check_number(name, size, low=BITS[0], high=BITS[1])
    sizes = [*bits, special_bits]
    pools = {size: iter(ntt_primes(size, sizes.count(size), degree)) for size in sizes}
    special = next(pools[special_bits])  # the largest of its size
    primes = tuple(next(pools[size]) for size in bits)
    scale = 2.0 ** bits[-1] if scale is None else scale
    check_number("scale", scale, low=1, high=2.0**60)
    context = Context(degree, primes, special, float(scale))
    if not insecure and not context.secure:
        raise ValueError(
            f"bits, with special_bits, is {context.total_bits} in all; accepted: at most {SECURE_BITS[degree]} for "
            f"128-bit security with N = {degree:,}, a larger degree, or a toy with insecure=True"
        )
    return context


def check_level(context: Context, level: int) -> None:
    """Raise `ValueError` unless the chain has this level."""
    check_count("level", level, low=0)
    if level > context.levels:
        raise ValueError(f"level is {level}; accepted: from 0 to {context.levels}, the top of the chain")


def room(context: Context, level: int, scale: float) -> float:
    r"""The sizes that a level's modulus has room for: $|z| < Q / 2 \Delta$ on average, as no $|m_j|$ exceeds that."""
    return math.prod(context.at(level)) / 2 / scale


def check_room(context: Context, level: int, scale: float, limit: Bound, name: str = "values") -> None:
    """Raise `ValueError` unless numbers of this size fit."""
    accepted = room(context, level, scale)
    if np.mean(limit) >= accepted:
        raise ValueError(
            f"{name}: sizes up to {np.mean(limit):.4g} at scale 2^{math.log2(scale):.2f} do not fit level {level}; "
            f"accepted: below {accepted:.4g}, a smaller scale (rescale), or a higher level"
        )

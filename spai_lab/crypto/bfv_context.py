r"""BFV, its parameters and its noise: a ring degree, a prime t, keys, and how many products are sure to be right.

The library checks none of this while it computes: it decrypts wrong numbers once the noise is too large, and says
nothing. So a bound is computed here, at the roots $\zeta$ of $X^N + 1$, where products are products of numbers.

Reference: Fan and Vercauteren 2012, "Somewhat practical fully homomorphic encryption", IACR 2012/144; Costache and
Smart 2016, "Which ring based somewhat homomorphic encryption scheme is best?", IACR 2015/889, for noise at roots.
Survey: private AI, homomorphic encryption.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from spai_lab.checks import check_count, check_number
from spai_lab.crypto.ckks_ciphertext import check_type
from spai_lab.crypto.ckks_noise import ROUNDING, TERNARY, encryption_error, slot_bound, switching_error
from spai_lab.crypto.ntt import is_prime
from spai_lab.crypto.tenseal_library import check_secure, library_primes, tenseal

DEGREES = (4096, 8192, 16384)  # 2,048 has no prime to spare for relinearization
LARGEST = 2**32  # for t; far below any prime of q


@dataclass(frozen=True, eq=False)
class BfvContext:
    """Parameters and keys: N, t, the primes of q, the special prime, and the `tenseal.Context` that has the secret."""

    degree: int
    t: int
    primes: tuple[int, ...]
    special: int
    library: Any  # TenSEAL has no types

    @property
    def depth(self) -> int:
        """Products in sequence that are sure to be right."""
        return len(expected_budgets(self)) - 1

    @property
    def largest(self) -> int:
        """The largest whole number in size, (t - 1) / 2."""
        return (self.t - 1) // 2

    def __str__(self) -> str:
        bits = (math.prod(self.primes) * self.special).bit_length()
        return (
            f"BFV: N = {self.degree:,} slots for whole numbers modulo t = {self.t:,}, from {-self.largest:,} to "
            f"{self.largest:,}; {bits} bits in all (128-bit security); room for {self.depth} products in sequence"
        )

    __repr__ = __str__


def bfv_context(degree: int = 8192, t: int = 65537) -> BfvContext:
    """Parameters of 128-bit security, the modulus as SEAL chooses it, and fresh keys.

    Args:
        degree: N, 4,096, 8,192 or 16,384: as many slots, of which each is multiplied by itself.
        t: a prime, 1 modulo 2 N, below 2^32. The larger, the fewer products.
    Returns:
        the context.
    Raises:
        ValueError: names the argument; for a t that does not serve it names the next one that does.
        ModuleNotFoundError: TenSEAL is not installed.
    Reference: Fan and Vercauteren 2012, IACR 2012/144; Smart and Vercauteren 2014, "Fully homomorphic SIMD
        operations", IACR 2011/133, for slots.
    Survey: private AI, homomorphic encryption.

    >>> bfv_context(8192, 2**16)
    Traceback (most recent call last):
    ValueError: t is 65,536; accepted: a prime that is 1 modulo 2 N = 16,384, such as 65,537
    """
    check_degree(degree)
    check_count("t", t, low=2)
    if t >= LARGEST or t % (2 * degree) != 1 or not is_prime(t):
        raise ValueError(
            f"t is {t:,}; accepted: a prime that is 1 modulo 2 N = {2 * degree:,}, such as "
            f"{plain_modulus(degree, min(t, LARGEST // 2)):,}"
        )
    library = tenseal()
    seal = library.context(library.SCHEME_TYPE.BFV, degree, plain_modulus=t, n_threads=1)
    check_secure(seal)
    *primes, special = library_primes(seal)
    return BfvContext(degree, t, tuple(primes), special, seal)


def plain_modulus(degree: int, least: int) -> int:
    """The smallest prime that is 1 modulo 2 N, and at least this.

    Args:
        degree: N, 4,096, 8,192 or 16,384.
        least: the smallest that will do: twice the largest result and one; at most 2^31.
    Returns:
        t.
    Raises:
        ValueError: names the argument.

    >>> plain_modulus(8192, 50_000), plain_modulus(8192, 10**6)
    (65537, 1032193)
    """
    check_degree(degree)
    check_count("least", least)
    check_number("least", least, low=1, high=LARGEST // 2)
    step = 2 * degree
    start = -(-(least - 1) // step) * step + 1
    return next(t for t in range(start, LARGEST, step) if is_prime(t))


def check_degree(degree: int) -> None:
    """Raise `ValueError` unless SEAL has parameters for it that multiply."""
    check_count("degree", degree)
    if degree not in DEGREES:
        raise ValueError(f"degree is {degree:,}; accepted: {', '.join(f'{n:,}' for n in DEGREES)}")


# --- the noise budget -------------------------------------------------------------------------------------------------


def expected_budgets(context: BfvContext) -> list[float]:
    """The bits that are sure to be left of a fresh ciphertext after 0, 1, 2, ... squares in sequence, while any are.

    Args:
        context: of `bfv_context`.
    Returns:
        `depth + 1` numbers; none if t leaves no room at all.
    """
    check_type("context", context, BfvContext)
    noise, bits = fresh_noise(context), []
    while bits_left(noise) > 0:
        bits.append(bits_left(noise))
        noise = product_noise(context, noise, noise)
    return bits


def bits_left(noise: float) -> float:
    r"""$-\log_2 2 v$: a coefficient is at most as large as the largest $|v(\zeta)|$."""
    return -math.log2(2 * noise)


def fresh_noise(context: BfvContext) -> float:
    r"""$\frac{t}{q} (\epsilon + r)$: encryption as in CKKS, and $\frac{q}{t} m$ rounded, by 1/2 a coefficient."""
    share = context.t / math.prod(context.primes)
    return share * (encryption_error(context.degree, context.special) + context.degree / 2)


def product_noise(context: BfvContext, noise_x: float, noise_y: float) -> float:
    """A bound on the noise of a product, after relinearization."""
    size, added = product_terms(context.degree, context.t, context.primes, context.special)
    return (noise_x + noise_y) * size + noise_x * noise_y + added


@lru_cache(maxsize=16)
def product_terms(degree: int, t: int, primes: tuple[int, ...], special: int) -> tuple[float, float]:
    r"""Bounds on $|\frac{t}{q} c(s)|$ at all roots, and on what rounding and relinearization add to a product.

    Parts are uniform between $\pm q / 2$. The three parts of a product are rounded, by the fast way between bases up to
    one for each prime and one more, and meet 1, s and $s^2$.
    """
    size = t * slot_bound(degree, (ROUNDING * TERNARY,), (ROUNDING,))
    s = slot_bound(degree, plain=(TERNARY,))
    rounded = (len(primes) + 1) * degree * (1 + s + s**2)
    return size, t / math.prod(primes) * (rounded + switching_error(degree, primes, special))

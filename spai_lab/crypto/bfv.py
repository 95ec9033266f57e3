r"""BFV through TenSEAL: whole numbers modulo a prime t, exactly, as long as the noise fits; beyond it, any numbers.

CKKS adds its noise to the numbers, so that they are nearly right and a scale has to be kept. BFV puts it below them:
$\frac{t}{q} (c_0 + c_1 s) = m + v + t k$, and rounding takes v away as long as $|v_j| < 1/2$. So all is exact modulo t,
and there is neither scale nor precision. What is used up is the noise budget, $-\log_2 (2 \max_j |v_j|)$ bits. A
product costs some $\log_2 t + \log_2 N$ of them, and when none is left the library decrypts wrong numbers and says
nothing. Here each ciphertext knows a bound on its noise, and an operation that could spend the rest is refused.

Results may be shared only as long as none is wrong: a failure of 1e-9 is rare enough to compute with, and too common
where an attacker picks what is shared.

TenSEAL is an extra; without it, each function says how to get it. For learning: one object holds context and secret.

Reference: Fan and Vercauteren 2012, "Somewhat practical fully homomorphic encryption", IACR 2012/144; Brakerski 2012,
IACR 2012/078. Survey: private AI, homomorphic encryption.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import numpy as np

from spai_lab.checks import check_count, check_flag, describe
from spai_lab.crypto.bfv_context import (
    BfvContext,
    bfv_context,
    bits_left,
    expected_budgets,
    fresh_noise,
    plain_modulus,
    product_noise,
)
from spai_lab.crypto.ckks_ciphertext import check_type
from spai_lab.crypto.tenseal_library import tenseal

__all__ = [
    "BfvCiphertext",
    "bfv_add",
    "bfv_context",
    "bfv_decrypt",
    "bfv_encrypt",
    "bfv_multiply",
    "expected_budgets",
    "measured_budget",
    "plain_modulus",
]


@dataclass(frozen=True, eq=False)
class BfvCiphertext:
    r"""An encrypted vector: TenSEAL's, and bounds on its noise, at all roots $\zeta$, and on the size of its numbers.

    `noise` fails with probability 1e-9 for each operation; `limit` is public, and knows nothing of t.
    """

    context: BfvContext
    library: Any
    noise: float
    limit: int

    @property
    def budget(self) -> float:
        """The bits that are sure to be left."""
        return bits_left(self.noise)

    def __str__(self) -> str:
        wraps = ", so that they may wrap around" if self.limit > self.context.largest else ""
        return (
            f"BfvCiphertext: {self.library.size():,} numbers up to {large(self.limit)} modulo {self.context.t:,}{wraps}"
            f"; {self.budget:.1f} bits of noise budget are left, or more"
        )

    __repr__ = __str__


# --- there and back ---------------------------------------------------------------------------------------------------


def bfv_encrypt(context: BfvContext, values: Sequence[int] | np.ndarray, *, limit: int | None = None) -> BfvCiphertext:
    r"""Whole numbers into slots, encrypted.

    Args:
        context: of `bfv_context`.
        values: 1 to N whole numbers, from -(t - 1) / 2 to (t - 1) / 2. The library takes larger ones modulo t.
        limit: on their size, known to all; None takes the next power of two, and so tells their order of magnitude.
    Returns:
        the ciphertext.
    Raises:
        ValueError: names the argument.
    """
    check_type("context", context, BfvContext)
    numbers = whole_numbers(context, values)
    largest = max(map(abs, numbers))
    if limit is None:
        limit = min(1 << max(0, largest - 1).bit_length(), context.largest)
    check_count("limit", limit)
    if largest > limit:
        raise ValueError(f"values reach {largest:,} in size; accepted: at most limit, {limit:,}")
    vector = tenseal().bfv_vector(context.library, numbers)
    return settled(BfvCiphertext(context, vector, fresh_noise(context), limit), "values")


def bfv_decrypt(x: BfvCiphertext, *, modulo: bool = False) -> np.ndarray:
    """The numbers, exactly.

    Args:
        x: ciphertext, whose context has the secret.
        modulo: take numbers that may have wrapped around: they are right modulo t, from -(t - 1) / 2 to (t - 1) / 2.
    Returns:
        int64 `(n,)`.
    Raises:
        ValueError: names the argument; or the numbers may be larger than t tells apart.
    """
    check_type("x", x, BfvCiphertext)
    check_flag("modulo", modulo)
    if x.limit > x.context.largest and not modulo:
        raise ValueError(
            f"x has numbers up to {large(x.limit)}, and t = {x.context.t:,} tells only those up to "
            f"{x.context.largest:,} apart; accepted: a larger t, a smaller limit in bfv_encrypt, or modulo=True "
            "for what is right modulo t"
        )
    return np.array(x.library.decrypt(), dtype=np.int64)


# --- operations -------------------------------------------------------------------------------------------------------


def bfv_add(x: BfvCiphertext, y: BfvCiphertext) -> BfvCiphertext:
    """x + y, slot by slot: noise adds up, which costs one bit at most.

    Args:
        x, y: ciphertexts of one context and one length.
    Returns:
        the sum.
    Raises:
        ValueError: names the argument; or the noise budget might be spent.
    """
    check_pair(x, y)
    return settled(BfvCiphertext(x.context, x.library + y.library, x.noise + y.noise, x.limit + y.limit), "the sum")


def bfv_multiply(x: BfvCiphertext, y: BfvCiphertext) -> BfvCiphertext:
    r"""x y, slot by slot, relinearized.

    With $\frac{t}{q} c(s) = m + v + t k$ for both, the product's noise is, but for rounding and relinearization,
    $v = v_1 \frac{t}{q} c_2(s) + v_2 \frac{t}{q} c_1(s) - v_1 v_2$. And $\frac{t}{q} c(s)$ is as large as parts
    that look uniform make it: some t N / 4 at a root, whatever was encrypted.

    Args:
        x, y: ciphertexts of one context and one length.
    Returns:
        the product.
    Raises:
        ValueError: names the argument; or the noise budget might be spent, beyond which numbers would be wrong.
    Reference: Fan and Vercauteren 2012, IACR 2012/144, section 4; Costache and Smart 2016, IACR 2015/889, for noise at
        roots.
    Simplified: 1e-9 for each operation takes parts for uniform and independent, as all analyses do.
    """
    check_pair(x, y)
    noise = product_noise(x.context, x.noise, y.noise)
    spent = replace(x, noise=noise, limit=x.limit * y.limit)
    settled(spent, "the product")
    return replace(spent, library=x.library * y.library)


# --- the noise budget -------------------------------------------------------------------------------------------------


def measured_budget(x: BfvCiphertext) -> int:
    """The bits that are left, as the library measures them with the secret key; 0 means wrong numbers."""
    check_type("x", x, BfvCiphertext)
    return min(map(x.context.library.decryptor().data.invariant_noise_budget, x.library.ciphertext()))


# --- checks -----------------------------------------------------------------------------------------------------------


def check_pair(x: BfvCiphertext, y: BfvCiphertext) -> None:
    """Raise `ValueError` unless both are of one context and of one length, which the library would repeat."""
    check_type("x", x, BfvCiphertext)
    check_type("y", y, BfvCiphertext)
    if y.context is not x.context:
        raise ValueError("y is of another context; accepted: the context of x")
    if y.library.size() != x.library.size():
        raise ValueError(f"y has {y.library.size():,} numbers; accepted: {x.library.size():,}, as x has")


def settled(x: BfvCiphertext, name: str) -> BfvCiphertext:
    """The result, once it is sure that it can be decrypted."""
    if x.budget <= 0:
        raise ValueError(
            f"{name} would spend the noise budget and might decrypt to wrong numbers: {x.budget:.1f} bits would be "
            f"sure to be left; accepted: more than 0, which is {x.context.depth} products in sequence with N = "
            f"{x.context.degree:,} and t = {x.context.t:,}, a larger N, or a smaller t"
        )
    return x


def whole_numbers(context: BfvContext, values: Sequence[int] | np.ndarray) -> list[int]:
    """The numbers; raise `ValueError` unless they are whole, few enough and small enough."""
    flat = values.tolist() if isinstance(values, np.ndarray) else values
    if not isinstance(flat, list | tuple) or not 1 <= len(flat) <= context.degree:
        came = f"{len(flat):,} numbers" if isinstance(flat, list | tuple) else describe(values)
        raise ValueError(f"values is {came}; accepted: 1 to {context.degree:,} whole numbers")
    for value in flat:
        if not isinstance(value, Integral) or isinstance(value, bool):
            raise ValueError(f"values has {describe(value)}; accepted: whole numbers")
        if abs(value) > context.largest:
            raise ValueError(
                f"values has {value:,}; accepted: from {-context.largest:,} to {context.largest:,}, which t = "
                f"{context.t:,} tells apart"
            )
    return [int(value) for value in flat]


def large(number: int) -> str:
    """A whole number in words that stay short."""
    return f"{number:,}" if number < 10**15 else f"2^{number.bit_length()}"

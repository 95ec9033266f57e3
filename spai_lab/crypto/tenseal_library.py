"""TenSEAL, with SEAL underneath: brought in where it is used, since it is an extra, and held to the security table.

Reference: Benaissa et al. 2021, "TenSEAL", arXiv 2104.03152. Survey: private AI, homomorphic encryption.
"""

import importlib
import math
from types import ModuleType
from typing import Any

from spai_lab.crypto.ckks_context import SECURE_BITS


def tenseal() -> ModuleType:
    """The library, imported.

    Raises:
        ModuleNotFoundError: it is not installed; says how to get it.
    """
    try:
        importlib.import_module("tenseal.sealapi")  # without it the library cannot say what its primes are
        return importlib.import_module("tenseal")
    except ImportError as error:
        raise ModuleNotFoundError(
            f"TenSEAL cannot be imported ({error}); pip install 'tenseal>=0.3.16', or this package with its extra he, "
            "brings it where it has a wheel, such as Linux on x86-64",
            name="tenseal",
        ) from None


def library_degree(context: Any) -> int:
    """N, as SEAL has it."""
    return context.seal_context().data.key_context_data().parms().poly_modulus_degree()


def library_primes(context: Any) -> tuple[int, ...]:
    """All primes of a TenSEAL context, in SEAL's order: the chain, of which the last is dropped first, then the special
    one.

    Args:
        context: a `tenseal.Context`. TenSEAL has no types.
    Returns:
        the primes.
    """
    return tuple(prime.value() for prime in context.seal_context().data.key_context_data().parms().coeff_modulus())


def check_secure(context: Any) -> None:
    """Raise `ValueError` unless the standard's table promises 128 bits for a TenSEAL context.

    SEAL counts the special prime too, and refuses what exceeds its own copy of the table, with words that name neither.

    Args:
        context: a `tenseal.Context`.
    Raises:
        ValueError: says how many bits are secure.
    Reference: Albrecht et al. 2018, "Homomorphic encryption security standard", table 1.
    """
    degree, bits = library_degree(context), math.prod(library_primes(context)).bit_length()
    if bits > SECURE_BITS.get(degree, 0):
        raise ValueError(
            f"context has a modulus of {bits} bits for N = {degree:,}; accepted: at most "
            f"{SECURE_BITS.get(degree, 0)} for 128-bit security"
        )

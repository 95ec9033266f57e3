r"""Two ways in which TenSEAL is silently wrong, each beside the right way. No error, and often the right class.

1. An encrypted vector of n numbers is repeated until all slots are full, and `mm` and `pack_vectors` rely on it. A
   plain list that is added or multiplied reaches the first n slots alone. What is decrypted is still right, and what
   is computed next is not (its issues 240 and 462). An operand that is encrypted first is repeated like all others.
2. Each product is divided by a prime q of the chain, and the library then writes its one global scale $\Delta = 2^s$ in
   the books. So numbers grow by $2^s / q$, again with each product, and a square squares what was gained before. The
   primes are public, so the gain is known, and can be divided out, or put into the next weights.

TenSEAL is an extra; without it, each function says how to get it.

Reference: Benaissa et al. 2021, "TenSEAL", arXiv 2104.03152. Survey: private AI, homomorphic encryption.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spai_lab.checks import check_choice, check_count, check_number, describe
from spai_lab.crypto.tenseal_library import check_secure, library_primes, tenseal

DEGREE, SLOTS = 8192, 4096
MATRIX_BITS, MATRIX_SCALE = (50, 30, 30, 30, 50), 2.0**30
CHAIN_BITS, CHAIN_SCALE = (31, 26, 26, 26, 26, 26, 26, 31), 2.0**26  # as many products as 218 bits have room for


@dataclass(frozen=True, eq=False)
class Trap:
    """What is true, what the obvious way decrypts to, and what the right way does; float64 of one shape."""

    plain: np.ndarray
    wrong: np.ndarray
    right: np.ndarray


@dataclass(frozen=True, eq=False)
class GainTrap(Trap):
    """Rows after 1, 2, ... levels, `(levels, n)`; and the gains by which `wrong` was multiplied, `(levels,)`."""

    observed: np.ndarray
    computed: np.ndarray


def trap_context(bits: Sequence[int] = MATRIX_BITS, scale: float = MATRIX_SCALE, *, rotations: bool = True) -> Any:
    """A context of 128-bit security with all keys, N = 8,192.

    Args:
        bits: of each prime, in SEAL's order, the special one last.
        scale: the one for all.
        rotations: make the keys that `mm` rotates with, which take a second.
    Returns:
        a `tenseal.Context`. TenSEAL has no types.
    Raises:
        ValueError: names the argument.
        ModuleNotFoundError: TenSEAL is not installed.
    """
    check_number("scale", scale, low=1, exclusive=True)
    library = tenseal()
    context = library.context(library.SCHEME_TYPE.CKKS, DEGREE, coeff_mod_bit_sizes=list(bits), n_threads=1)
    check_secure(context)
    context.global_scale = scale
    context.generate_relin_keys()
    if rotations:
        context.generate_galois_keys()
    return context


# --- plain lists ------------------------------------------------------------------------------------------------------


def list_before_matrix(context: Any, x: np.ndarray, b: np.ndarray, W: np.ndarray, *, operation: str = "add") -> Trap:
    r"""$(x + b) W$ or $(x \odot b) W$: b as a plain list, and b encrypted.

    Args:
        context: of `trap_context`.
        x: to be encrypted, `(n,)`.
        b: public, `(n,)`.
        W: public, `(n, m)`.
        operation: "add" or "multiply".
    Returns:
        the products with the matrix, `(m,)`.
    Raises:
        ValueError: names the argument.
    """
    check_choice("operation", operation, ("add", "multiply"))
    x, b = vectors(x, b)
    W = np.asarray(W, dtype=np.float64)
    if W.ndim != 2 or len(W) != len(x) or not np.isfinite(W).all():
        raise ValueError(f"W has the shape {W.shape}; accepted: finite numbers ({len(x)}, m)")
    vector = tenseal().ckks_vector
    encrypted = vector(context, x.tolist())
    listed, repeated = (joined(encrypted, operand, operation) for operand in (b.tolist(), vector(context, b.tolist())))
    plain = (x + b if operation == "add" else x * b) @ W
    return Trap(plain, *(np.array(y.mm(W.tolist()).decrypt()) for y in (listed, repeated)))


def list_before_packing(context: Any, x: np.ndarray, y: np.ndarray, b: np.ndarray) -> Trap:
    """Two vectors one after the other in one ciphertext, x and y + b: b as a plain list, and b encrypted.

    Args:
        context: of `trap_context`.
        x, y: to be encrypted, `(n,)`.
        b: public, `(n,)`.
    Returns:
        the packed vectors, `(2 n,)`.
    Raises:
        ValueError: names the argument.
    """
    x, y, b = vectors(x, y, b)
    library = tenseal()
    vector, pack = library.ckks_vector, library.CKKSVector.pack_vectors
    first, second = vector(context, x.tolist()), vector(context, y.tolist())
    both = (pack([first, second + operand]) for operand in (b.tolist(), vector(context, b.tolist())))
    return Trap(np.concatenate([x, y + b]), *(np.array(packed.decrypt()) for packed in both))


def joined(x: Any, operand: Any, operation: str) -> Any:
    """x + operand, or x times it."""
    return x + operand if operation == "add" else x * operand


# --- one scale for all ------------------------------------------------------------------------------------------------


def gains(context: Any, levels: int, *, squares: bool = False) -> np.ndarray:
    r"""The gain after each of so many levels: $g_l = g_{l-1} \, \Delta / q_l$, or $g_{l-1}^2 \, \Delta / q_l$.

    Args:
        context: of `trap_context`.
        levels: how many.
        squares: each level is a square; else a product with a plain number.
    Returns:
        `(levels,)`, computed from the primes alone.
    Raises:
        ValueError: names the argument.
    """
    chain = library_primes(context)[1:-1]
    check_count("levels", levels)
    check_number("levels", levels, low=1, high=len(chain))
    total, computed = 1.0, []
    for q in chain[::-1][:levels]:
        total = total ** (2 if squares else 1) * context.global_scale / q
        computed.append(total)
    return np.array(computed)


def forced_scale(context: Any, x: np.ndarray, levels: int, *, weight: float = 1.0, squares: bool = False) -> GainTrap:
    r"""$w^l x$, or $x^{2^l}$, for each level l: as the library decrypts it, and with the gain divided out.

    Args:
        context: of `trap_context`, for example with `CHAIN_BITS` and `CHAIN_SCALE`.
        x: to be encrypted, `(n,)`, not all 0.
        levels: how many products in sequence.
        weight: w, public, not 0.
        squares: square instead.
    Returns:
        a `GainTrap`; `observed` is the factor by which `wrong` fits `plain` best.
    Raises:
        ValueError: names the argument.
    """
    computed = gains(context, levels, squares=squares)
    (x,) = vectors(x)
    check_number("weight", weight)
    if not x.any() or weight == 0:
        raise ValueError("x or weight is 0, which has no gain to be seen; accepted: other numbers")
    y, plain, wrong = tenseal().ckks_vector(context, x.tolist()), [x], []
    for _ in range(levels):
        y = y.square() if squares else y * weight
        plain.append(plain[-1] ** 2 if squares else plain[-1] * weight)
        wrong.append(y.decrypt())
    plain, wrong = np.array(plain[1:]), np.array(wrong)
    observed = (wrong * plain).sum(1) / (plain**2).sum(1)
    return GainTrap(plain, wrong, wrong / computed[:, None], observed, computed)


# --- checks -----------------------------------------------------------------------------------------------------------


def vectors(*values: np.ndarray) -> list[np.ndarray]:
    """Float64 vectors of one length; raise `ValueError` unless they are, and half of the slots hold one."""
    arrays = [np.asarray(value, dtype=np.float64) for value in values]
    shape = arrays[0].shape
    for array in arrays:
        if array.ndim != 1 or array.shape != shape or not 1 <= len(array) <= SLOTS // 2 or not np.isfinite(array).all():
            raise ValueError(
                f"a vector is {describe(array.shape)}; accepted: finite numbers (n,), n from 1 to {SLOTS // 2:,}, the "
                "same for all"
            )
    return arrays

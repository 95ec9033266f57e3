r"""Matrix products modulo $2^{64}$, exact, and not in the plain loops in which NumPy multiplies uint64.

`ring_matmul` leaves it to torch's int64 product: two's complement is arithmetic modulo $2^{64}$. `limb_matmul` does it
through BLAS, which processors do best, and which is exact by what IEEE 754 says of float64 alone. Both give the same
bits; which one is faster depends on the machine, and `python run.py bench` has both.

BLAS multiplies float64, which holds all whole numbers up to $2^{53}$. So each entry is cut into three limbs of 22 bits,

$x = x_0 + 2^{22} x_1 + 2^{44} x_2$ with $|x_i| \le 2^{21}$.

Shifts of 66 bits and more vanish modulo $2^{64}$, so that of nine products of limbs six stay:

$x y = x_0 y_0 + 2^{22} (x_0 y_1 + x_1 y_0) + 2^{44} (x_0 y_2 + x_1 y_1 + x_2 y_0)$.

Each bracket is one matrix product: limbs of x side by side, limbs of y below each other in reverse order.

Why it is exact: a product of limbs is at most $2^{42}$, and as $|x_2| \le 2^{19}$, a bracket adds up at most two of
that size for each inner index. With `MOST` = 1,024 of these, $2 \cdot 2^{10} \cdot 2^{42} = 2^{53}$, and every sum on
the way, in any order, fused or not, is a whole number that float64 holds. Inner dimensions are summed up in blocks well
below that, since short ones stay in the cache.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from spai_lab.checks import describe

LIMB, LIMBS, TOP = 22, 3, 64
MOST, BLOCK = 1024, 128


def ring_matmul(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    r"""The matrix product $x y \bmod 2^{64}$, exact for all entries, by torch's int64 product.

    Args:
        x: uint64 `(..., M, K)`.
        y: uint64 `(..., K, N)`; the dots as in `numpy.matmul`.
    Returns:
        uint64 `(..., M, N)`.
    Raises:
        ValueError: names the argument.
    Reference: Mohassel and Zhang 2017, "SecureML", IACR 2017/396, for what it is needed for.
    Survey: private AI, cryptography, multi-party computation.

    >>> x = np.array([[2**64 - 1, 2**63]], dtype=np.uint64)  # -1, and 2^63 that is its own negative
    >>> ring_matmul(x, np.array([[2], [3]], dtype=np.uint64)).tolist() == [[2**63 - 2]]
    True
    """
    check_factors(x, y)
    return (as_signed(x) @ as_signed(y)).numpy().view(np.uint64)


def as_signed(x: np.ndarray) -> Tensor:
    """The same bits as int64, in the same memory where torch can use it."""
    shared = x.flags.writeable and min(x.strides) >= 0
    return torch.from_numpy((x if shared else x.copy()).view(np.int64))


# --- through BLAS -----------------------------------------------------------------------------------------------------


def limb_matmul(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    r"""The matrix product $x y \bmod 2^{64}$, exact for all entries, by six products of limbs in float64.

    Buffers are small: fresh memory can cost more than sums. For thin matrices, cutting costs more than multiplying.

    Args:
        x: uint64 `(..., M, K)`.
        y: uint64 `(..., K, N)`; the dots as in `numpy.matmul`.
    Returns:
        uint64 `(..., M, N)`.
    Raises:
        ValueError: names the argument.
    Reference: Dumas, Gautier and Pernet 2002, "Finite field linear algebra subroutines", for whole numbers in BLAS; Tan
        et al. 2021, "CryptGPU", IACR 2021/533, for shares, in four limbs of 16 bits.
    Survey: private AI, cryptography, multi-party computation.

    >>> x = np.full((1, 1000), 2**64 - 1, dtype=np.uint64)
    >>> limb_matmul(x, x.T).tolist()
    [[1000]]
    """
    check_factors(x, y)
    batch = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    total = np.zeros((*batch, x.shape[-2], y.shape[-1]), np.uint64)
    bracket, whole = np.empty(total.shape), np.empty(total.shape, np.int64)
    for start in range(0, x.shape[-1], BLOCK):
        left, right = side_by_side(x[..., start : start + BLOCK]), upside_down(y[..., start : start + BLOCK, :])
        size = left.shape[-1] // LIMBS
        for i in range(LIMBS):
            np.matmul(left[..., : (i + 1) * size], right[..., (LIMBS - 1 - i) * size :, :], out=bracket)
            whole[...] = bracket
            whole <<= LIMB * i
            total += whole.view(np.uint64)
    return total


def side_by_side(x: np.ndarray) -> np.ndarray:
    r"""$(x_0 \; x_1 \; x_2)$, float64 `(..., M, 3 K)`."""
    cut = np.empty((*x.shape[:-1], LIMBS, x.shape[-1]))
    for i, limb in enumerate(limbs(x)):
        cut[..., i, :] = limb
    return cut.reshape(*x.shape[:-1], -1)


def upside_down(y: np.ndarray) -> np.ndarray:
    r"""$(y_2 \; y_1 \; y_0)$ below each other, float64 `(..., 3 K, N)`."""
    cut = np.empty((*y.shape[:-2], LIMBS, *y.shape[-2:]))
    for i, limb in enumerate(limbs(y)):
        cut[..., LIMBS - 1 - i, :, :] = limb
    return cut.reshape(*y.shape[:-2], -1, y.shape[-1])


def limbs(x: np.ndarray) -> Iterator[np.ndarray]:
    r"""The three limbs of each entry, int64, lowest first: the low 22 bits as a signed number, then the rest.

    Each is to be used before the next one takes its memory.

    >>> [limb.tolist() for limb in limbs(np.array([2**64 - 1, 2**22 + 5], dtype=np.uint64))]
    [[-1, 5], [0, 1], [0, 0]]
    """
    rest = x.astype(np.uint64, order="C").view(np.int64)
    low = np.empty_like(rest)
    for _ in range(LIMBS - 1):
        np.left_shift(rest, TOP - LIMB, out=low)
        low >>= TOP - LIMB  # the shift back copies the sign
        yield low
        rest -= low  # at the largest entries this wraps: a multiple of 2^64, no harm
        rest >>= LIMB
    yield rest


def check_factors(x: np.ndarray, y: np.ndarray) -> None:
    """Raise `ValueError` unless these are uint64 matrices that can be multiplied.

    >>> check_factors(np.zeros((2, 3), np.uint64), np.zeros((2, 3), np.uint64))
    Traceback (most recent call last):
    ValueError: y is uint64 of shape (2, 3); accepted: uint64 of shape (..., 3, N), as x is of shape (2, 3)
    """
    for name, value in (("x", x), ("y", y)):
        if not isinstance(value, np.ndarray) or value.dtype != np.uint64 or value.ndim < 2 or 0 in value.shape:
            came = f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else describe(value)
            raise ValueError(f"{name} is {came}; accepted: a uint64 array of matrices, none of them empty")
    try:
        np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
        fits = x.shape[-1] == y.shape[-2]
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"y is uint64 of shape {y.shape}; accepted: uint64 of shape (..., {x.shape[-1]}, N), as x is of shape "
            f"{x.shape}"
        )

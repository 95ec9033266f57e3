r"""Numbers and blocks of bytes as rows of bits, which circuits take and give.

A number has its least significant bit first, in two's complement if it is signed, so that its lowest bits are the same
in any width.
"""

from collections.abc import Sequence

import numpy as np

from spai_lab.checks import check_count, describe_kind


def to_bits(values: Sequence[int] | np.ndarray, bits: int) -> np.ndarray:
    r"""Whole numbers modulo $2^k$ as bits, the least significant first; negative ones in two's complement.

    Args:
        values: `(n,)`, from $-2^{k-1}$ to $2^k - 1$.
        bits: k, from 1 to 64.
    Returns:
        bool `(n, k)`.
    Raises:
        ValueError: names the argument.

    >>> to_bits([1, -1], 3).astype(int)
    array([[1, 0, 0],
           [1, 1, 1]])
    """
    check_width(bits)
    array = np.asarray(values)
    if array.ndim != 1 or not (array.dtype.kind in "iu" or array.size == 0):
        raise ValueError(f"values is {describe_kind(values)}; accepted: whole numbers (n,) of at most 64 bits")
    if array.size and not -(2 ** (bits - 1)) <= int(array.min()) <= int(array.max()) < 2**bits:
        low, high = -(2 ** (bits - 1)), 2**bits - 1
        raise ValueError(f"values has numbers outside; accepted: from {low:,} to {high:,}")
    words = array.astype("<u8" if array.dtype.kind == "u" else "<i8").view(np.uint8).reshape(-1, 8)
    return np.unpackbits(words, axis=1, bitorder="little")[:, :bits].astype(bool)


def from_bits(bits: np.ndarray, *, signed: bool = False) -> np.ndarray:
    r"""Bits as whole numbers: $\sum_i 2^i b_i$, and for signed ones less $2^k b_{k-1}$.

    Args:
        bits: bool `(n, k)`, k from 1 to 64.
        signed: in two's complement.
    Returns:
        uint64 `(n,)`, or int64 for signed numbers.
    Raises:
        ValueError: names the argument.

    >>> x = np.array([[True, True, True]])
    >>> from_bits(x), from_bits(x, signed=True)
    (array([7], dtype=uint64), array([-1]))
    """
    check_bits("bits", bits, None)
    check_width(bits.shape[1])
    top = bits[:, -1:] if signed else np.zeros_like(bits[:, -1:])
    filled = np.hstack([bits, np.repeat(top, 64 - bits.shape[1], axis=1)])
    return np.packbits(filled, axis=1, bitorder="little").view("<i8" if signed else "<u8")[:, 0]


def blocks_to_bits(blocks: np.ndarray) -> np.ndarray:
    """Blocks of bytes as the bits of big-endian numbers, the least significant first, as published circuits want them.

    Args:
        blocks: uint8 `(n, B)`.
    Returns:
        bool `(n, 8 B)`.
    Raises:
        ValueError: names the argument.

    >>> blocks_to_bits(np.array([[0x80, 0x01]], np.uint8)).astype(int)
    array([[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]])
    """
    if not isinstance(blocks, np.ndarray) or blocks.dtype != np.uint8 or blocks.ndim != 2:
        raise ValueError(f"blocks is {describe_kind(blocks)}; accepted: uint8 (n, B)")
    return np.unpackbits(blocks[:, ::-1], axis=1, bitorder="little").astype(bool)


def bits_to_blocks(bits: np.ndarray) -> np.ndarray:
    """The inverse of `blocks_to_bits`: uint8 `(n, B)` of bool `(n, 8 B)`.

    >>> bits_to_blocks(blocks_to_bits(np.array([[1, 2, 3]], np.uint8)))
    array([[1, 2, 3]], dtype=uint8)
    """
    check_bits("bits", bits, None)
    if bits.shape[1] % 8:
        raise ValueError(f"bits is {describe_kind(bits)}; accepted: bool (n, 8 B)")
    return np.packbits(bits, axis=1, bitorder="little")[:, ::-1].copy()


# --- what is refused --------------------------------------------------------------------------------------------------


def check_bits(name: str, bits: np.ndarray, width: int | None) -> None:
    """Raise `ValueError` unless these are bits, bool `(n, width)`, n at least 1."""
    shaped = isinstance(bits, np.ndarray) and bits.dtype == bool and bits.ndim == 2 and len(bits)
    if not shaped or (width is not None and bits.shape[1] != width):
        wanted = "bits" if width is None else width
        raise ValueError(f"{name} is {describe_kind(bits)}; accepted: bool (n, {wanted}), n at least 1")


def check_width(bits: int) -> None:
    """Raise `ValueError` unless a number may have so many bits."""
    check_count("bits", bits)
    if bits > 64:
        raise ValueError(f"bits is {bits}; accepted: from 1 to 64")

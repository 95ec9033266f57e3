"""The IDX format of MNIST: a magic number, the dimensions, the values."""

import math

import numpy as np

UNSIGNED_BYTE = 0x08


def read_idx(content: bytes) -> np.ndarray:
    """Read an IDX file, uncompressed.

    Bytes 0 and 1 are zero, byte 2 is the type, byte 3 the number of dimensions; then each dimension as a big-endian
    32-bit integer; then the values, the last dimension fastest.

    Args:
        content: the whole file.
    Returns:
        A read-only uint8 array of the file's dimensions.
    Raises:
        ValueError: the content is no IDX file, or its length does not fit its dimensions.
    Simplified: unsigned bytes alone, the type that MNIST uses.

    >>> read_idx(bytes([0, 0, 8, 2, 0, 0, 0, 1, 0, 0, 0, 3, 5, 6, 7]))
    array([[5, 6, 7]], dtype=uint8)
    """
    if len(content) < 4 or content[:2] != b"\0\0":
        raise ValueError(f"is no IDX file: it begins with {content[:4].hex(' ') or 'nothing'}, not with 00 00")
    kind, rank = content[2:4]
    if kind != UNSIGNED_BYTE:
        raise ValueError(f"holds IDX type 0x{kind:02x}; accepted is 0x{UNSIGNED_BYTE:02x}, unsigned byte")
    start = 4 + 4 * rank
    if len(content) < start:
        raise ValueError(f"is truncated: it ends within its {rank} dimensions")
    shape = tuple(int(size) for size in np.frombuffer(content, dtype=">u4", offset=4, count=rank))
    if len(content) - start != math.prod(shape):
        raise ValueError(f"holds {len(content) - start:,} values; its dimensions {shape} ask for {math.prod(shape):,}")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)

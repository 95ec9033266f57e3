r"""What travels over a channel: a frame is a length, then typed values, the first of which is the message's kind.

| value | bytes |
|---|---|
| frame | 4 (length of the rest) + the values |
| int | 1 + 4 + (bits // 8 + 1), two's complement |
| float | 1 + 8 |
| str, bytes | 1 + 4 + length |
| tensor, array | 1 + 2 + 4 for each dimension + size times the bytes of an entry |
| tuple | 1 + 4 + its values |

Nothing is ever unpickled: a frame can spell these values and no others, whoever sent it.
"""

import math
import struct
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from spai_lab.checks import describe

Value = int | float | str | bytes | Tensor | np.ndarray | tuple
DTYPES = tuple(
    np.dtype(code) for code in ("?", "u1", "i1", "<i2", "<i4", "<i8", "<f2", "<f4", "<f8", "<u2", "<u4", "<u8")
)
TENSOR_DTYPES = DTYPES[:9]
DIMENSIONS, DEPTH = 8, 4
HEADER = 4
MAX_LENGTH = 2**32 - 1


class ProtocolError(RuntimeError):
    """A party broke the protocol; one sentence says who and how."""


class Message(NamedTuple):
    """A frame that was read: what kind of message it is, and its values."""

    kind: str
    values: tuple


def pack(kind: str, *values: Value, max_frame: int = MAX_LENGTH) -> bytes:
    """The frame of a message, as it travels.

    Args:
        kind: what the message is, such as "update".
        values: int, float, str, bytes, tensors and arrays of the types in `DTYPES`, tuples of these.
        max_frame: the most bytes after the length.
    Returns:
        4 bytes of length, then the values.
    Raises:
        ValueError: a value of another type.
        ProtocolError: the frame would be too long.

    >>> pack("bid", 5).hex(" ", -4)
    '0000000e 73000000 03626964 69000000 0105'
    """
    if not isinstance(kind, str):
        raise ValueError(f"kind is {describe(kind)}; accepted: a str")
    payload = b"".join(map(encoded, (kind, *values)))
    if len(payload) > max_frame:
        raise ProtocolError(f"the message {kind!r} takes {len(payload):,} bytes; a frame holds at most {max_frame:,}")
    return sized(payload)


def unpack(payload: bytes) -> Message:
    """The message in a frame, without its length.

    Args:
        payload: what follows the first 4 bytes.
    Returns:
        its kind and values; tensors and arrays own their memory.
    Raises:
        ProtocolError: the bytes are no message.

    >>> unpack(pack("bid", 5, (b"a", 0.5))[4:])
    Message(kind='bid', values=(5, (b'a', 0.5)))
    """
    reader, values = Reader(payload), []
    while reader.left:
        values.append(reader.value())
    if not values or not isinstance(values[0], str):
        raise ProtocolError("malformed frame: it does not begin with the kind of the message")
    return Message(values[0], tuple(values[1:]))


def encoded(value: Value, depth: int = 0) -> bytes:
    """One value: a letter for its type, then its bytes."""
    match value:
        case bool():
            pass
        case int():
            return b"i" + sized(value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))
        case float():
            return b"f" + struct.pack(">d", value)
        case str():
            return b"s" + sized(value.encode())
        case bytes():
            return b"b" + sized(value)
        case Tensor() if value.layout == torch.strided and str(value.dtype)[6:] in map(str, TENSOR_DTYPES):
            return b"t" + encoded_array(value.detach().cpu().numpy())
        case np.ndarray() if value.dtype.newbyteorder("<") in DTYPES:
            return b"n" + encoded_array(value)
        case tuple() if depth < DEPTH:
            return b"(" + length(len(value)) + b"".join(encoded(entry, depth + 1) for entry in value)
    raise ValueError(
        f"value is {describe(value)}; accepted: int, float, str, bytes, a tensor or array of "
        f"{', '.join(map(str, DTYPES))}, or a tuple of these, nested at most {DEPTH} deep"
    )


def encoded_array(array: np.ndarray) -> bytes:
    """Number of the dtype, number of dimensions, shape, entries in C order, little-endian."""
    if array.ndim > DIMENSIONS:
        raise ValueError(f"value has {array.ndim} dimensions; accepted: at most {DIMENSIONS}")
    dtype = array.dtype.newbyteorder("<")
    head = bytes([DTYPES.index(dtype), array.ndim]) + b"".join(map(length, array.shape))
    return head + array.astype(dtype, copy=False).tobytes()


def sized(data: bytes) -> bytes:
    """Bytes with their length in front."""
    return length(len(data)) + data


def length(count: int) -> bytes:
    """A length as 4 bytes."""
    if count > MAX_LENGTH:
        raise ProtocolError(f"a value of {count:,} bytes or entries does not fit a frame, at most {MAX_LENGTH:,}")
    return count.to_bytes(HEADER, "big")


class Reader:
    """Reads values one after the other; what the bytes promise is checked before memory is taken for it."""

    def __init__(self, payload: bytes) -> None:
        self._rest = memoryview(payload)

    @property
    def left(self) -> int:
        """How many bytes are still to be read."""
        return len(self._rest)

    def take(self, count: int) -> bytes:
        """The next bytes."""
        if count > self.left:
            raise ProtocolError(f"malformed frame: a value needs {count:,} more bytes, {self.left:,} are left")
        taken, self._rest = self._rest[:count], self._rest[count:]
        return bytes(taken)

    def length(self) -> int:
        """A length of 4 bytes."""
        return int.from_bytes(self.take(HEADER), "big")

    def value(self, depth: int = 0) -> Value:
        """The next value."""
        match tag := self.take(1):
            case b"i":
                return int.from_bytes(self.take(self.length()), "big", signed=True)
            case b"f":
                return struct.unpack(">d", self.take(8))[0]
            case b"s":
                try:
                    return self.take(self.length()).decode()
                except UnicodeDecodeError:
                    raise ProtocolError("malformed frame: a str is not UTF-8") from None
            case b"b":
                return self.take(self.length())
            case b"t":
                return torch.from_numpy(self.array(TENSOR_DTYPES))
            case b"n":
                return self.array(DTYPES)
            case b"(" if depth < DEPTH:
                count = self.length()
                if count > self.left:
                    raise ProtocolError(f"malformed frame: {count:,} values in {self.left:,} bytes")
                return tuple(self.value(depth + 1) for _ in range(count))
        raise ProtocolError(f"malformed frame: {tag!r} begins no value here")

    def array(self, dtypes: tuple[np.dtype, ...]) -> np.ndarray:
        """The next array, of one of these dtypes."""
        code, dimensions = self.take(2)
        if code >= len(dtypes) or dimensions > DIMENSIONS:
            raise ProtocolError(f"malformed frame: dtype {code} with {dimensions} dimensions is not accepted")
        shape = tuple(self.length() for _ in range(dimensions))
        if math.prod(max(side, 1) for side in shape) > MAX_LENGTH:
            raise ProtocolError(f"malformed frame: the shape {shape} is too large")
        data = self.take(math.prod(shape) * dtypes[code].itemsize)
        if dtypes[code].kind == "b" and data.strip(b"\0\1"):
            raise ProtocolError("malformed frame: a bool is neither 0 nor 1")
        return np.frombuffer(data, dtypes[code]).reshape(shape).astype(dtypes[code].newbyteorder("="))

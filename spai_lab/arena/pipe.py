"""Messages between the arena and the process of a submission: frames of plain values, of limited length.

The frames are those of `spai_lab.crypto.frames`: numbers, texts and raw arrays. Nothing is ever unpickled.
"""

from typing import BinaryIO

from spai_lab.crypto.frames import HEADER, Message, ProtocolError, Value, pack, unpack

LARGEST = 64 * 2**20  # bytes of a frame


def read_frame(stream: BinaryIO, largest: int = LARGEST) -> Message | None:
    """The next message of a stream.

    Args:
        stream: bytes, as they come.
        largest: the most bytes that a frame may announce; no memory is taken before that is checked.
    Returns:
        the message; None where the stream ends between two frames.
    Raises:
        ProtocolError: too long, cut off, or no message.

    >>> import io
    >>> read_frame(io.BytesIO(pack("logits", 1.5)))
    Message(kind='logits', values=(1.5,))
    """
    header = read_exactly(stream, HEADER)
    if not header:
        return None
    length = int.from_bytes(header, "big")
    if len(header) < HEADER or length > largest:
        raise ProtocolError(
            f"a frame of {length:,} bytes, at most {largest:,} are read"
            if len(header) == HEADER
            else "a frame that is cut off"
        )
    payload = read_exactly(stream, length)
    if len(payload) < length:
        raise ProtocolError("a frame that is cut off")
    return unpack(payload)


def read_exactly(stream: BinaryIO, count: int) -> bytes:
    """So many bytes, fewer where the stream ends."""
    parts, left = [], count
    while left and (part := stream.read(left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def write_frame(stream: BinaryIO, kind: str, *values: Value, largest: int = LARGEST) -> None:
    """Send a message at once.

    Raises:
        ValueError: a value that a frame cannot spell.
        ProtocolError: it would be too long.
        OSError: nobody reads.
    """
    stream.write(pack(kind, *values, max_frame=largest))
    stream.flush()

r"""How parties talk: a channel carries typed, length-capped frames, counts them, and keeps what was seen on request.

A party is a plain function of its channels; `spai_lab.crypto.parties.run_parties` runs several.

**For learning, not for secrets.** Channels are neither authenticated nor encrypted: whoever reaches the port may speak,
whoever hears the wire may read. The parties are semi-honest: they follow the protocol, and keep what they see. Frames
that break the rules are refused, so that a party's mistake is seen and not suffered; a malicious party is out of scope.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from spai_lab.checks import check_count, check_flag, check_number, describe
from spai_lab.crypto.frames import HEADER, MAX_LENGTH, Message, ProtocolError, Value, pack, unpack
from spai_lab.crypto.transports import Transport, memory

TIMEOUT = 60.0
MAX_FRAME = 64 * 2**20


class Disconnected(ProtocolError):
    """The other party has left, or this end was closed."""


@dataclass(frozen=True)
class Sent:
    """One message of a channel's log: when this end was ready to send or receive it and when that was done, in seconds
    since the channel was made; whether this end sent it; kind and bytes.
    """

    asked: float
    at: float
    outgoing: bool
    kind: str
    size: int


@dataclass(frozen=True)
class Lap:
    """What a part of a protocol cost at one end: bytes, turns of direction, seconds with all waiting."""

    name: str
    bytes_sent: int
    bytes_received: int
    rounds: int
    seconds: float


class Channel:
    r"""One end of a conversation between two parties.

    A message is a kind and values; it travels as one frame (`spai_lab.crypto.frames`). Whatever breaks the protocol
    closes the channel, which releases the other party.

    Args:
        transport: what carries the bytes; `pair` makes it, and `spai_lab.crypto.channel_ports`.
        name: who holds this end; named in errors.
        peer: who holds the other.
        timeout: seconds that a `send` or a `receive` may take; None waits until the other party leaves.
        max_frame: the longest frame, in bytes after its length, sent or received.
        view: keep the messages received, so many bytes of them; None keeps none.
        log: keep when which kind of message went which way, and its size (`log`).
    Raises:
        ValueError: names the argument.

    >>> import torch
    >>> alice, bob = pair("Alice", "Bob", view=1000)
    >>> alice.send("bid", 5, torch.tensor([1.0, 2.0]))
    >>> bob.receive("bid", int, torch.Tensor)
    (5, tensor([1., 2.]))
    >>> alice.bytes_sent == bob.bytes_received == 4 + (1 + 4 + 3) + (1 + 4 + 1) + (1 + 2 + 4 + 2 * 4), bob.rounds
    (True, 1)
    >>> bob.view
    (Message(kind='bid', values=(5, tensor([1., 2.]))),)
    """

    def __init__(
        self,
        transport: Transport,
        *,
        name: str = "this party",
        peer: str = "the other party",
        timeout: float | None = TIMEOUT,
        max_frame: int = MAX_FRAME,
        view: int | None = None,
        log: bool = False,
    ) -> None:
        if timeout is not None:
            check_number("timeout", timeout, low=0)
        check_count("max_frame", max_frame)
        check_number("max_frame", max_frame, low=1, high=MAX_LENGTH)
        if view is not None:
            check_count("view", view, low=0)
        check_flag("log", log)
        self.name, self.peer, self.timeout, self.max_frame = name, peer, timeout, max_frame
        self.bytes_sent = self.bytes_received = self.rounds = self.unseen = 0
        self._transport, self._inbox, self._open, self._sending = transport, bytearray(), True, None
        self._room, self._seen = view, []
        self._log, self._made = [] if log else None, time.monotonic()

    def send(self, kind: str, *values: Value) -> None:
        """Send a message.

        Args:
            kind: what it is, such as "update".
            values: int of any size, float, str, bytes, tensors, arrays, and tuples of these.
        Raises:
            ValueError: a value of another type.
            ProtocolError: the frame would be longer than `max_frame`; `Disconnected`, the other party has left.
            TimeoutError: it did not take the message in time.
        """
        asked = time.monotonic()
        frame = pack(kind, *values, max_frame=self.max_frame)
        self._check_open()
        try:
            self._transport.write(frame, patience(self.timeout))
        except OSError as error:
            self.close()  # half a frame may be under way
            if isinstance(error, TimeoutError):
                raise TimeoutError(
                    f"{self.peer} did not take {kind!r} from {self.name} in {self.timeout:g} s"
                ) from None
            raise Disconnected(f"{self.peer} has left before {self.name} could send {kind!r}") from None
        self.bytes_sent += len(frame)
        self._turn(kind, len(frame), asked, sending=True)

    def receive(self, kind: str, *types: type, timeout: float | None = None) -> tuple:
        """Wait for a message of this kind.

        Args:
            kind: what it must be.
            types: the types of its values; without them it may hold any.
            timeout: seconds to wait; None waits as long as the channel's own.
        Returns:
            its values.
        Raises:
            ProtocolError: another message came, or none; `Disconnected`, the other party has left.
            TimeoutError: nothing came in time; the channel stays open.
        """
        return self.receive_any({kind: types or None}, timeout=timeout).values

    def receive_any(self, kinds: dict[str, tuple[type, ...] | None], *, timeout: float | None = None) -> Message:
        """Wait for a message of one of these kinds, each with the types of its values or None; else like `receive`."""
        asked = time.monotonic()
        timeout = self.timeout if timeout is None else timeout
        wanted = " or ".join(map(repr, kinds))
        self._check_open()
        try:
            payload = self._payload(patience(timeout))
            message = unpack(payload)
            types = kinds.get(message.kind)
            if message.kind not in kinds:
                raise ProtocolError(f"the message is {describe(message.kind)}, expected {wanted}")
            if types is not None and [*map(type, message.values)] != [*types]:
                came = ", ".join(type(value).__name__ for value in message.values)
                expected = ", ".join(kind.__name__ for kind in types)
                raise ProtocolError(f"the message {message.kind!r} holds ({came}), expected ({expected})")
        except TimeoutError:
            raise TimeoutError(f"{self.name} waited {timeout:g} s for {wanted} from {self.peer}") from None
        except ProtocolError as error:
            self.close()
            raise type(error)(f"{self.peer} to {self.name}: {error}") from None
        self.bytes_received += HEADER + len(payload)
        self._turn(message.kind, HEADER + len(payload), asked, sending=False)
        self._remember(payload)
        return message

    @property
    def view(self) -> tuple[Message, ...] | None:
        """What this party saw: the messages received, the first ones if not all fit; `unseen` counts the others."""
        return None if self._room is None else tuple(map(unpack, self._seen))

    @property
    def log(self) -> tuple[Sent, ...] | None:
        """All messages in their order at this end, without their values; None unless it was asked for."""
        return None if self._log is None else tuple(self._log)

    def close(self) -> None:
        """Leave: from now on both ends raise `Disconnected`, the other one once it has read what was sent."""
        if self._open:
            self._open = False
            self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, where: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        counts = f"{self.bytes_sent:,} bytes sent, {self.bytes_received:,} received, {self.rounds} rounds"
        return f"Channel of {self.name} to {self.peer}: {counts}"

    def _check_open(self) -> None:
        if not self._open:
            raise Disconnected(f"the channel of {self.name} to {self.peer} is closed")

    def _payload(self, timeout: float) -> bytes:
        """The next frame without its length; what came of it stays in the inbox if time runs out."""
        end = time.monotonic() + timeout
        self._fill(HEADER, end)
        size = int.from_bytes(self._inbox[:HEADER], "big")
        if size > self.max_frame:
            raise ProtocolError(f"the frame announces {size:,} bytes; at most {self.max_frame:,} are accepted")
        self._fill(HEADER + size, end)
        payload = bytes(self._inbox[HEADER : HEADER + size])
        del self._inbox[: HEADER + size]
        return payload

    def _fill(self, size: int, end: float) -> None:
        """Read until the inbox holds so many bytes."""
        while len(self._inbox) < size:
            try:
                data = self._transport.read(max(0.0, end - time.monotonic()))
            except TimeoutError:
                raise
            except OSError:
                data = b""
            if not data:
                there = f", with {len(self._inbox)} of {size:,} bytes of a frame sent" if self._inbox else ""
                raise Disconnected(f"the other end has left{there}")
            self._inbox += data

    def _turn(self, kind: str, size: int, asked: float, *, sending: bool) -> None:
        """Count a round whenever the direction changes."""
        self.rounds += sending is not self._sending
        self._sending = sending
        if self._log is not None:
            self._log.append(Sent(asked - self._made, time.monotonic() - self._made, sending, kind, size))

    def _remember(self, payload: bytes) -> None:
        """Keep a message while there is room: the first ones, without gaps."""
        if self._room is None:
            return
        if self.unseen or len(payload) > self._room:
            self.unseen += 1
        else:
            self._room -= len(payload)
            self._seen.append(payload)


def pair(*names: str, **settings: object) -> tuple[Channel, Channel]:
    """Two connected channels in memory, for parties that are threads of one process; the bytes are those of TCP.

    Args:
        names: of the party at each end, two or none.
        settings: of both, as in `Channel`.
    Returns:
        both ends.

    >>> alice, bob = pair("Alice", "Bob")
    >>> alice.close()
    >>> bob.receive("bid")
    Traceback (most recent call last):
    spai_lab.crypto.channel.Disconnected: Alice to Bob: the other end has left
    """
    one, other = names or ("one party", "the other party")
    left, right = memory()
    return Channel(left, name=one, peer=other, **settings), Channel(right, name=other, peer=one, **settings)


@contextmanager
def lap(channel: Channel, name: str, laps: list[Lap]) -> Iterator[None]:
    """Count what a part of a protocol costs at this end, and append it to `laps` once it is over.

    Args:
        channel: of a party.
        name: of the part, such as "layer 1".
        laps: the list that grows.

    >>> alice, bob = pair("Alice", "Bob")
    >>> laps = []
    >>> with lap(alice, "hello", laps):
    ...     alice.send("bid", 5)
    >>> laps[0].name, laps[0].bytes_sent == alice.bytes_sent, laps[0].rounds
    ('hello', True, 1)
    """
    before, start = (channel.bytes_sent, channel.bytes_received, channel.rounds), time.monotonic()
    yield
    after = (channel.bytes_sent, channel.bytes_received, channel.rounds)
    laps.append(Lap(name, *(b - a for a, b in zip(before, after, strict=True)), time.monotonic() - start))


def patience(timeout: float | None) -> float:
    """Seconds to wait, infinitely many for None."""
    return math.inf if timeout is None else timeout

r"""How parties talk: a channel carries typed, length-capped frames, counts them, and keeps what was seen on request.

A party is a plain function of its channels; `spai_lab.crypto.parties.run_parties` runs several.

**For learning, not for secrets.** Channels are neither authenticated nor encrypted: whoever reaches the port may speak,
whoever hears the wire may read. The parties are semi-honest: they follow the protocol, and keep what they see. Frames
that break the rules are refused, so that a party's mistake is seen and not suffered; a malicious party is out of scope.
"""

import ipaddress
import math
import socket
import time
from types import TracebackType
from typing import Self

from spai_lab.checks import check_count, check_number, describe
from spai_lab.crypto.frames import HEADER, MAX_LENGTH, Message, ProtocolError, Value, pack, unpack
from spai_lab.crypto.transports import Tcp, Transport, memory

TIMEOUT = 60.0
MAX_FRAME = 64 * 2**20
Address = tuple[str, int]


class Disconnected(ProtocolError):
    """The other party has left, or this end was closed."""


class Channel:
    r"""One end of a conversation between two parties.

    A message is a kind and values; it travels as one frame (`spai_lab.crypto.frames`). Whatever breaks the protocol
    closes the channel, which releases the other party.

    Args:
        transport: what carries the bytes; `pair`, `listen` and `connect` make it.
        name: who holds this end; named in errors.
        peer: who holds the other.
        timeout: seconds that a `send` or a `receive` may take; None waits until the other party leaves.
        max_frame: the longest frame, in bytes after its length, sent or received.
        view: keep the messages received, so many bytes of them; None keeps none.
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
    ) -> None:
        if timeout is not None:
            check_number("timeout", timeout, low=0)
        check_count("max_frame", max_frame)
        check_number("max_frame", max_frame, low=1, high=MAX_LENGTH)
        if view is not None:
            check_count("view", view, low=0)
        self.name, self.peer, self.timeout, self.max_frame = name, peer, timeout, max_frame
        self.bytes_sent = self.bytes_received = self.rounds = self.unseen = 0
        self._transport, self._inbox, self._open, self._sending = transport, bytearray(), True, None
        self._room, self._seen = view, []

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
        self._turn(sending=True)

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
        self._turn(sending=False)
        self._remember(payload)
        return message

    @property
    def view(self) -> tuple[Message, ...] | None:
        """What this party saw: the messages received, the first ones if not all fit; `unseen` counts the others."""
        return None if self._room is None else tuple(map(unpack, self._seen))

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

    def _turn(self, *, sending: bool) -> None:
        """Count a round whenever the direction changes."""
        self.rounds += sending is not self._sending
        self._sending = sending

    def _remember(self, payload: bytes) -> None:
        """Keep a message while there is room: the first ones, without gaps."""
        if self._room is None:
            return
        if self.unseen or len(payload) > self._room:
            self.unseen += 1
        else:
            self._room -= len(payload)
            self._seen.append(payload)


class Listener:
    """Waits on a port for the other party; `listen` makes it."""

    def __init__(self, listening: socket.socket) -> None:
        self._socket = listening

    @property
    def address(self) -> Address:
        """Host and port, for `connect`."""
        return self._socket.getsockname()[:2]

    def accept(self, *, timeout: float | None = TIMEOUT, **settings: object) -> Channel:
        """The channel to the next party that connects; settings as in `Channel`, `TimeoutError` if nobody comes."""
        self._socket.settimeout(timeout)
        try:
            connected, _ = self._socket.accept()
        except TimeoutError:
            raise TimeoutError(f"nobody connected to {self.address} in {timeout:g} s") from None
        return Channel(Tcp(connected), timeout=timeout, **settings)

    def close(self) -> None:
        """Stop listening; channels that were accepted stay."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, where: TracebackType | None) -> None:
        self.close()


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


def listen(host: str = "127.0.0.1", port: int = 0, *, anywhere: bool = False) -> Listener:
    """Wait for another process on a port of this machine. Unauthenticated, semi-honest, for learning.

    Args:
        host: an address of this machine; a loopback one unless `anywhere`.
        port: 0 takes a free one.
        anywhere: let other machines in. Whoever reaches the port may speak, in the clear.
    Returns:
        a listener; `accept` gives the channel.
    Raises:
        ValueError: names the argument.

    >>> with listen() as door:
    ...     bob = connect(door.address, name="Bob", peer="Alice")
    ...     alice = door.accept(name="Alice", peer="Bob")
    >>> alice.send("hello", "Bob")
    >>> bob.receive("hello")
    ('Bob',)
    >>> alice.close(), bob.close()
    (None, None)
    """
    check_host(host, anywhere)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return Listener(socket.create_server((host, port), family=family))


def connect(
    address: Address, *, timeout: float | None = TIMEOUT, anywhere: bool = False, **settings: object
) -> Channel:
    """The channel to a party that listens. Unauthenticated, semi-honest, for learning.

    Args:
        address: host and port, such as a listener's `address`; a loopback host unless `anywhere`.
        timeout: seconds, to connect and as in `Channel`.
        anywhere: go to another machine, in the clear.
        settings: as in `Channel`.
    Returns:
        the channel.
    Raises:
        ValueError: names the argument.
        OSError: nobody listens there.
    """
    check_host(address[0], anywhere)
    return Channel(Tcp(socket.create_connection(address, timeout)), timeout=timeout, **settings)


def check_host(host: str, anywhere: bool) -> None:
    """Raise `ValueError` unless the host is this machine by its loopback address, or any is welcome.

    >>> check_host("0.0.0.0", False)
    Traceback (most recent call last):
    ValueError: host is '0.0.0.0'; accepted: a loopback address such as '127.0.0.1' (others with anywhere=True)
    """
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback and anywhere is not True:
        raise ValueError(
            f"host is {describe(host)}; accepted: a loopback address such as '127.0.0.1' (others with anywhere=True)"
        )


def patience(timeout: float | None) -> float:
    """Seconds to wait, infinitely many for None."""
    return math.inf if timeout is None else timeout

r"""Messages that nobody on the way can change, send again, swap or turn back unseen: a MAC around each.

| field | bytes |
|---|---|
| direction: 0 from client to server, 1 back | 1 |
| counter: how many messages went this way before | 8 |
| tag: HMAC-SHA256 of a label, direction, counter and message, by a key that both have | 32 |
| message | the rest |

Homomorphic encryption cannot do this by itself: its ciphertexts are made to be changed by who has no key, so that a
flipped bit is another number and no error. A MAC is checked before anything else is read. It proves that the other
holder of the key sent this message, here and now; it does not make that holder honest: a server that computes another
function than was agreed on tags its wrong answer as well as a right one. Nor does it hide anything.

The key is agreed on beforehand, by other means. For learning, not for secrets: the tag is compared in constant time,
but a key lies in memory as it is.
"""

import hmac
import secrets
from typing import Self

from spai_lab.checks import check_choice, check_count, describe
from spai_lab.crypto.channel import Channel
from spai_lab.crypto.frames import HEADER, Message, ProtocolError, Value, pack, unpack

KEY, NONCE, TAG, COUNTER = 32, 32, 32, 8  # bytes
ROLES = ("client", "server")
SEALED, SESSION = b"spai-lab message 1", b"spai-lab session 1"


def mac_key() -> bytes:
    """A fresh key of 32 bytes, from the operating system; both parties must get it by a way that is safe.

    >>> len(mac_key())
    32
    """
    return secrets.token_bytes(KEY)


def seal(key: bytes, message: bytes, *, sender: str, counter: int) -> bytes:
    r"""$d \,\|\, n \,\|\, \mathrm{HMAC}_k(\mathrm{label} \,\|\, d \,\|\, n \,\|\, m) \,\|\, m$.

    Args:
        key: k, 32 bytes.
        message: m, any bytes.
        sender: "client" or "server", which makes the direction d: so nobody gets back what it sent itself.
        counter: n, from 0 to 2^64 - 1: how many messages went this way before.
    Returns:
        41 bytes more than the message.
    Raises:
        ValueError: names the argument.
    Reference: Krawczyk, Bellare and Canetti 1997, "HMAC: keyed-hashing for message authentication", RFC 2104.

    >>> key = mac_key()
    >>> unseal(key, seal(key, b"7", sender="client", counter=0), sender="client", counter=0)
    b'7'
    """
    check_seal(key, message, sender, counter)
    head = ROLES.index(sender).to_bytes(1, "big") + counter.to_bytes(COUNTER, "big")
    return head + tag(key, SEALED + head + message) + message


def unseal(key: bytes, sealed: bytes, *, sender: str, counter: int) -> bytes:
    """The message in bytes that came from somebody else, if the tag is right and this is the one to come.

    Args:
        key: 32 bytes.
        sealed: of `seal`.
        sender: who must have sent it, "client" or "server".
        counter: the number that it must have.
    Returns:
        the message.
    Raises:
        ValueError: names the argument; changed on its way, sent again, left out, out of order, or turned back.

    >>> key = mac_key()
    >>> unseal(key, seal(key, b"7", sender="client", counter=0), sender="client", counter=1)
    Traceback (most recent call last):
    ValueError: sealed is message 0 of the client; accepted: message 1 of the client (sent again, left out or turned
    back?)
    """
    check_seal(key, sealed, sender, counter, "sealed")
    head, rest = sealed[: 1 + COUNTER], sealed[1 + COUNTER :]
    if len(sealed) < 1 + COUNTER + TAG or not hmac.compare_digest(tag(key, SEALED + head + rest[TAG:]), rest[:TAG]):
        raise ValueError(f"sealed is {len(sealed):,} bytes without the right tag; accepted: as seal made them")
    came = head[0], int.from_bytes(head[1:], "big")
    if came != (ROLES.index(sender), counter):
        who = ROLES[came[0]] if came[0] < len(ROLES) else f"party {came[0]}"
        raise ValueError(
            f"sealed is message {came[1]} of the {who}; accepted: message {counter} of the {sender} (sent again, left "
            "out or turned back?)"
        )
    return rest[TAG:]


class AuthenticatedChannel:
    """A channel whose messages carry a MAC; made at both ends at once, it sends and receives like a `Channel`.

    Each end first sends a nonce, and the key of the conversation is made from both: who recorded an earlier one under
    the same key cannot play it again. A message that is refused closes the channel.

    Args:
        channel: to the other party.
        key: 32 bytes that both have, of `mac_key`.
        role: "client" or "server"; the other party has the other one.
    Raises:
        ValueError: names the argument.
        ProtocolError: the other party does not begin with its nonce.

    >>> from spai_lab.crypto.parties import run_parties
    >>> key = mac_key()
    >>> def client(channel):
    ...     AuthenticatedChannel(channel, key, role="client").send("bid", 5)
    >>> def server(channel):
    ...     return AuthenticatedChannel(channel, key, role="server").receive("bid", int)
    >>> run_parties(client, server)
    [None, (5,)]
    """

    def __init__(self, channel: Channel, key: bytes, *, role: str) -> None:
        check_seal(key, b"", role, 0, role="role")
        self.channel, self.role, self.peer = channel, role, ROLES[1 - ROLES.index(role)]
        nonce = secrets.token_bytes(NONCE)
        channel.send("nonce", nonce)
        (other,) = channel.receive("nonce", bytes)
        if len(other) != NONCE:
            channel.close()
            raise ProtocolError(f"the nonce of the {self.peer} has {len(other):,} bytes, expected {NONCE}")
        self._key = tag(key, SESSION + (nonce + other if role == ROLES[0] else other + nonce))
        self._sent = self._received = 0

    def send(self, kind: str, *values: Value) -> None:
        """Send a message; as `Channel.send`."""
        self.channel.send("sealed", seal(self._key, pack(kind, *values), sender=self.role, counter=self._sent))
        self._sent += 1

    def receive(self, kind: str, *types: type) -> tuple:
        """Wait for a message of this kind and these types of values; as `Channel.receive`.

        Raises:
            ValueError: its MAC is not right; the channel is closed.
        """
        return self.receive_any({kind: types}).values

    def receive_any(self, kinds: dict[str, tuple[type, ...]]) -> Message:
        """Wait for a message of one of these kinds, each with the types of its values; else like `receive`."""
        (sealed,) = self.channel.receive("sealed", bytes)
        try:
            data = unseal(self._key, sealed, sender=self.peer, counter=self._received)
            came = unpack(data[HEADER:])
            if came.kind not in kinds or [*map(type, came.values)] != [*kinds[came.kind]]:
                expected = " or ".join(f"{kind!r} ({', '.join(t.__name__ for t in kinds[kind])})" for kind in kinds)
                held = ", ".join(type(value).__name__ for value in came.values)
                raise ProtocolError(f"the message is {describe(came.kind)} ({held}), expected {expected}")
        except (ValueError, ProtocolError):
            self.channel.close()
            raise
        self._received += 1
        return came

    @property
    def name(self) -> str:
        """Who holds this end; that of the channel."""
        return self.channel.name

    @property
    def bytes_sent(self) -> int:
        """Bytes sent, seals and all."""
        return self.channel.bytes_sent

    @property
    def bytes_received(self) -> int:
        """Bytes received, seals and all."""
        return self.channel.bytes_received

    @property
    def rounds(self) -> int:
        """How often the direction changed."""
        return self.channel.rounds

    def close(self) -> None:
        """Leave; as `Channel.close`."""
        self.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.channel.close()


def unsealed(view: tuple[Message, ...] | None) -> tuple[Message, ...]:
    """What a party saw: the messages within a channel's `view`, which has kept them with their seals."""
    if view is None:
        raise ValueError("view is None; accepted: that of a channel with a view")
    start = 1 + COUNTER + TAG + HEADER
    return tuple(unpack(message.values[0][start:]) if message.kind == "sealed" else message for message in view)


def tag(key: bytes, data: bytes) -> bytes:
    """HMAC-SHA256."""
    return hmac.digest(key, data, "sha256")


def check_seal(
    key: bytes, data: bytes, sender: str, counter: int, name: str = "message", *, role: str = "sender"
) -> None:
    """Raise `ValueError` unless these are arguments of a MAC; the key is not shown."""
    if not isinstance(key, bytes) or len(key) != KEY:
        raise ValueError(f"key is a {type(key).__name__} that is not shown; accepted: {KEY} bytes, of mac_key")
    if not isinstance(data, bytes):
        raise ValueError(f"{name} is {describe(data)}; accepted: bytes")
    check_choice(role, sender, ROLES)
    check_count("counter", counter, low=0)
    if counter >= 2 ** (8 * COUNTER):
        raise ValueError(f"counter is {counter}; accepted: below 2^{8 * COUNTER}")

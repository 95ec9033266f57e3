r"""Oblivious transfer: of two messages a receiver gets the one of its choice, and the sender does not learn which.

On an elliptic curve with a base point B of prime order the transfer is a key exchange of which one side has two ends
(Chou and Orlandi 2015). The sender's point is $S = yB$. For transfer i the receiver's is $R_i = c_i S + x_i B$, as
uniform for one choice bit $c_i$ as for the other. The sender can finish the exchange in two ways, with $y R_i$ and with
$y (R_i - S)$; the receiver knows $x_i S$, which is the first if $c_i = 0$ and the second if $c_i = 1$. The hash of each
is a pad for one message.

| message | from | bytes | rounds |
|---|---|---|---|
| S | sender | 56 | 1 |
| $R_1, \dots, R_n$ | receiver | 32 n + 29 | 2 |
| both messages of all transfers, padded | sender | 2 n L + 32 | 3 |

The curve is libsodium's edwards25519. It has $8 \ell$ points, so that each one that arrives is checked: on the curve,
in its shortest spelling, in the subgroup of prime order $\ell$, not the identity. Without the check a sender adds a
point of order 8 to S and reads the choice in $R_i$.

What this does not give, whoever uses it must know:

* Both parties follow the protocol (semi-honest). The paper claims more, universally composable security against active
  parties; Genç, Iovino and Rial 2017 ("The simplest protocol for oblivious transfer revisited", IACR 2017/370) found a
  gap in that proof. The paper also pads by an encryption that notices changes; ours is a plain one-time pad.
* Pads are not uniform against a party that cheats: a receiver draws $x_i$ until its pad begins with zeros. So no pad
  serves as a random value here; messages are the sender's own (Masny and Rindal 2019, "Endemic oblivious transfer",
  IACR 2019/706).
* Messages can be changed on their way: a flipped bit of a ciphertext is one of the message, $S - R_i$ is a request for
  the other message. The hash over S, $R_i$ and i makes a pad good for one transfer only, so that the receiver of a
  changed request reads noise; nobody is told.

For learning, not for secrets: no care is taken about timing or about what stays in memory.
"""

import math
import secrets
from hashlib import blake2b
from typing import NamedTuple, NoReturn

import numpy as np
from nacl import bindings as sodium

from spai_lab.checks import check_count, describe_kind
from spai_lab.crypto.channel import Channel
from spai_lab.crypto.frames import HEADER, ProtocolError

POINT = 32  # bytes
POINT_KIND, POINTS_KIND, TEXTS_KIND = "OT point", "OT points", "OT texts"
PERSON = b"spai-lab OT 1"
BLOCK = 64  # bytes, of one hash


class Cost(NamedTuple):
    """Bytes that each party sends, frames included, and how often the direction changes."""

    sender_bytes: int
    receiver_bytes: int
    rounds: int


# --- the parties ------------------------------------------------------------------------------------------------------


def ot_sender(channel: Channel, pairs: np.ndarray) -> None:
    r"""Offer two messages in each of n transfers: $e_i^j = m_i^j \oplus H(i, S, R_i, y R_i - j y S)$.

    Args:
        channel: to a party that runs `ot_receiver`.
        pairs: the messages $m_i^0, m_i^1$, uint8 `(n, 2, L)`, n and L at least 1.
    Raises:
        ValueError: names the argument.
        ProtocolError: the receiver broke the protocol, for one by a point that is none; the channel is closed.
        TimeoutError: the receiver stalled longer than the channel's `timeout`.
    Reference: Chou and Orlandi 2015 ("The simplest protocol for oblivious transfer"), IACR 2015/267.
    Survey: private AI, cryptography, multi-party computation.
    Simplified: semi-honest, with one-time pads in the place of an encryption that notices changes.

    >>> from functools import partial
    >>> from spai_lab.crypto.parties import run_parties
    >>> pairs = np.frombuffer(b"zeroone north\0south", np.uint8)[:18].reshape(3, 2, 3)
    >>> receiver = partial(ot_receiver, choices=np.array([False, True, True]))
    >>> _, chosen = run_parties(partial(ot_sender, pairs=pairs), receiver)
    >>> (chosen == pairs[[0, 1, 2], [0, 1, 1]]).all()
    np.True_
    """
    check_pairs(pairs)
    y = scalar()
    S = times_base(y)
    T = times(y, S)
    channel.send(POINT_KIND, np.frombuffer(S, np.uint8))
    R = receive_points(channel, len(pairs))
    ends = [times(y, point.tobytes()) for point in R]
    other_ends = [sodium.crypto_core_ed25519_sub(end, T) for end in ends]
    keys = np.stack([pads(rows(S, R, shared), pairs.shape[2], person=PERSON) for shared in (ends, other_ends)], axis=1)
    channel.send(TEXTS_KIND, pairs ^ keys)


def ot_receiver(channel: Channel, choices: np.ndarray, *, length: int | None = None) -> np.ndarray:
    r"""Take one of two messages in each of n transfers: $m_i^{c_i} = e_i^{c_i} \oplus H(i, S, R_i, x_i S)$.

    Args:
        channel: to a party that runs `ot_sender`.
        choices: $c_i$, bool `(n,)`, n at least 1; True asks for the second message.
        length: L, in bytes; None takes what the sender has.
    Returns:
        the messages, uint8 `(n, L)`.
    Raises:
        ValueError: names the argument.
        ProtocolError: the sender broke the protocol, for one by a point that is none; the channel is closed.
        TimeoutError: the sender stalled longer than the channel's `timeout`.
    Reference: Chou and Orlandi 2015 ("The simplest protocol for oblivious transfer"), IACR 2015/267.
    Survey: private AI, cryptography, multi-party computation.
    Simplified: as in `ot_sender`.

    >>> from spai_lab.crypto.parties import run_parties
    >>> pairs = np.arange(8, dtype=np.uint8).reshape(1, 2, 4)
    >>> run_parties(lambda channel: ot_sender(channel, pairs), lambda channel: ot_receiver(channel, np.array([True])))
    [None, array([[4, 5, 6, 7]], dtype=uint8)]
    """
    check_choices(choices, length)
    S = receive_point(channel)
    x = [scalar() for _ in choices]
    points = [times_base(each) for each in x]
    offers = zip(points, [sodium.crypto_core_ed25519_add(point, S) for point in points], choices, strict=True)
    R = np.frombuffer(b"".join((point, shifted)[int(c)] for point, shifted, c in offers), np.uint8).reshape(-1, POINT)
    channel.send(POINTS_KIND, R)
    keys_of = rows(S, R, [times(each, S) for each in x])
    texts = receive_array(channel, TEXTS_KIND, (len(choices), 2, length))
    return chosen(texts, choices) ^ pads(keys_of, texts.shape[2], person=PERSON)


def ot_cost(n: int, length: int) -> Cost:
    """What n transfers of messages of `length` bytes cost; `Channel` counts the same.

    >>> ot_cost(128, 16)
    Cost(sender_bytes=4184, receiver_bytes=4125, rounds=3)
    """
    check_count("n", n)
    check_count("length", length)
    texts = frame_bytes(TEXTS_KIND, (n, 2, length))
    return Cost(frame_bytes(POINT_KIND, (POINT,)) + texts, frame_bytes(POINTS_KIND, (n, POINT)), 3)


def frame_bytes(kind: str, shape: tuple[int, ...], itemsize: int = 1) -> int:
    """The length of the frame of a message that holds one array.

    >>> from spai_lab.crypto.frames import pack
    >>> frame_bytes("bid", (2, 3), 8) == len(pack("bid", np.zeros((2, 3))))
    True
    """
    return HEADER + (1 + 4 + len(kind)) + (1 + 2 + 4 * len(shape) + math.prod(shape) * itemsize)


# --- the curve --------------------------------------------------------------------------------------------------------


def scalar() -> bytes:
    r"""A secret number from 1 to $\ell - 1$, uniform but for $2^{-260}$, as 32 bytes."""
    while not any(number := sodium.crypto_core_ed25519_scalar_reduce(secrets.token_bytes(64))):
        pass
    return number


def times_base(number: bytes) -> bytes:
    """$x B$, as 32 bytes."""
    return sodium.crypto_scalarmult_ed25519_base_noclamp(number)


def times(number: bytes, point: bytes) -> bytes:
    """$x P$, for a point that was checked."""
    return sodium.crypto_scalarmult_ed25519_noclamp(number, point)


def check_point(channel: Channel, point: bytes, name: str) -> None:
    """Refuse what is no point of the prime-order subgroup, or is the identity, or is not spelled the shortest way."""
    if not sodium.crypto_core_ed25519_is_valid_point(point):
        refuse(channel, f"{name} is no point of the subgroup of prime order, or is its identity")


def receive_point(channel: Channel) -> bytes:
    """S, checked."""
    point = receive_array(channel, POINT_KIND, (POINT,)).tobytes()
    check_point(channel, point, "the sender's point")
    return point


def receive_points(channel: Channel, n: int) -> np.ndarray:
    """$R_1, \\dots, R_n$, each checked, uint8 `(n, 32)`."""
    points = receive_array(channel, POINTS_KIND, (n, POINT))
    for i, point in enumerate(points):
        check_point(channel, point.tobytes(), f"the receiver's point {i}")
    return points


# --- pads -------------------------------------------------------------------------------------------------------------


def rows(S: bytes, R: np.ndarray, shared: list[bytes]) -> np.ndarray:
    """What is hashed, a row for each transfer: its number, the points that both sent, the point that both know."""
    keys = np.frombuffer(b"".join(shared), np.uint8).reshape(-1, POINT)
    return indexed(np.concatenate([np.tile(np.frombuffer(S, np.uint8), (len(R), 1)), R, keys], axis=1))


def indexed(data: np.ndarray) -> np.ndarray:
    """Rows with their numbers in front, 8 bytes each, so that equal rows have different hashes.

    >>> indexed(np.zeros((2, 1), np.uint8)).tolist()
    [[0, 0, 0, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0, 0]]
    """
    numbers = np.arange(len(data), dtype="<u8").view(np.uint8).reshape(-1, 8)
    return np.concatenate([numbers, data], axis=1)


def pads(data: np.ndarray, size: int, *, person: bytes) -> np.ndarray:
    """The hash of each row: BLAKE2b, with the number of each block of 64 bytes as salt.

    Args:
        data: uint8 `(n, W)`, n and W at least 1.
        size: bytes a pad has.
        person: at most 16 bytes that keep the hashes of one protocol apart from those of others.
    Returns:
        uint8 `(n, size)`.

    >>> row = np.frombuffer(b"abc", np.uint8)[None]
    >>> pads(row, 4, person=b"example").tobytes() == blake2b(b"abc", digest_size=4, person=b"example").digest()
    True
    """
    width, whole = data.shape[1], data.tobytes()
    parts = [whole[start : start + width] for start in range(0, len(whole), width)]
    blocks = []
    for number, start in enumerate(range(0, size, BLOCK)):
        settings = {"digest_size": min(BLOCK, size - start), "salt": number.to_bytes(8, "little"), "person": person}
        digests = b"".join([blake2b(part, **settings).digest() for part in parts])
        blocks.append(np.frombuffer(digests, np.uint8).reshape(len(parts), -1))
    return np.concatenate(blocks, axis=1)


def chosen(texts: np.ndarray, choices: np.ndarray) -> np.ndarray:
    """One of two in each row: `(n, L)` of `(n, 2, L)`."""
    return texts[np.arange(len(choices)), choices.astype(int)]


# --- what is refused --------------------------------------------------------------------------------------------------


def check_pairs(pairs: np.ndarray) -> None:
    """Raise `ValueError` unless these are pairs of messages, uint8 `(n, 2, L)`."""
    shaped = isinstance(pairs, np.ndarray) and pairs.ndim == 3 and pairs.shape[1] == 2 and pairs.size
    if not shaped or pairs.dtype != np.uint8:
        raise ValueError(f"pairs is {describe_kind(pairs)}; accepted: uint8 (n, 2, L), n and L at least 1")


def check_choices(choices: np.ndarray, length: int | None = None) -> None:
    """Raise `ValueError` unless these are choice bits, bool `(n,)`, and the length of messages, or None."""
    if not isinstance(choices, np.ndarray) or choices.dtype != bool or choices.ndim != 1 or not len(choices):
        raise ValueError(f"choices is {describe_kind(choices)}; accepted: bool (n,), n at least 1")
    if length is not None:
        check_count("length", length)


def receive_array(
    channel: Channel, kind: str, shape: tuple[int | None, ...], dtype: np.dtype | type = np.uint8
) -> np.ndarray:
    """Wait for an array of this shape, None where any size from 1 will do, and of this dtype; refuse any other."""
    (array,) = channel.receive(kind, np.ndarray)
    return array_of(channel, kind, array, shape, dtype)


def array_of(
    channel: Channel, kind: str, array: np.ndarray, shape: tuple[int | None, ...], dtype: np.dtype | type = np.uint8
) -> np.ndarray:
    """An array that came, if it has this shape and dtype; else it is refused, as by `receive_array`."""
    fits = array.ndim == len(shape) and all(
        have == want if want else have for have, want in zip(array.shape, shape, strict=True)
    )
    if not fits or array.dtype != dtype:
        wanted = ", ".join(str(side or "any") for side in shape)
        refuse(channel, f"{kind!r} holds {describe_kind(array)}, expected {np.dtype(dtype)} ({wanted})")
    return array


def refuse(channel: Channel, what: str) -> NoReturn:
    """Close the channel, which releases the other party, and raise `ProtocolError`."""
    channel.close()
    raise ProtocolError(f"{channel.peer} to {channel.name}: {what}")

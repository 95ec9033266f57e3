r"""The messages of secure aggregation: what each party accepts of the others, and how long it is.

A message that is refused closes its channel: to the server that client is gone, to a client the round is over.

Survey: private AI, cryptography, multi-party computation.
"""

from collections.abc import Mapping
from hashlib import blake2b

import numpy as np

from spai_lab.crypto.channel import Channel
from spai_lab.crypto.oblivious_transfer import array_of, frame_bytes, refuse
from spai_lab.crypto.secret_sharing_shamir import FIELD
from spai_lab.crypto.secure_aggregation import SEED, Terms, check_terms
from spai_lab.crypto.secure_aggregation_keys import (
    NONE,
    SEALED,
    WORDS,
    ClientKeys,
    agree,
    check_public,
    unseal_shares,
)
from spai_lab.crypto.secure_aggregation_rollcall import STOP

KEYS, SHARES, INPUT, ANSWER = "public keys", "sealed shares", "masked input", "unmasking shares"
ALL_KEYS, ALL_SHARES, REQUEST = "all public keys", "all sealed shares", "unmasking request"


def aggregation_cost(terms: Terms) -> tuple[int, int]:
    """Bytes that a client who stays sends and receives, frames included; the server's are n times as many.

    Args:
        terms: what all have agreed on; who leaves saves its own messages, and changes nobody else's.
    Returns:
        bytes up and down, as `Channel` counts them.
    Raises:
        ValueError: names the argument.
    Reference: Bonawitz et al. 2017, IACR 2017/281, section 7: O(n + D) for a client, O(n^2 + n D) for the server.
    Survey: private AI, cryptography, multi-party computation.

    >>> aggregation_cost(Terms(clients=10, threshold=6, size=1000))
    (10700, 2453)
    """
    check_terms(terms)
    n = terms.clients
    up = frame_bytes(KEYS, (3, SEED)) + frame_bytes(SHARES, (n, SEALED))
    up += frame_bytes(INPUT, (terms.size,), 8) + frame_bytes(ANSWER, (n, WORDS), 8)
    up += 4 * (1 + 2 + 4 + SEED)  # what it has seen
    down = frame_bytes(ALL_KEYS, (n, 2, SEED)) + frame_bytes(ALL_SHARES, (n, SEALED)) + frame_bytes(REQUEST, (n, 2))
    return up, down


# --- what a client has seen -------------------------------------------------------------------------------------------


def greeting(terms: Terms, number: int) -> bytes:
    """32 bytes that are the same for client and server if they mean the same terms and number."""
    return confirmation(terms.digest, np.array([number]))


def confirmation(before: bytes, seen: np.ndarray) -> bytes:
    """A hash of what was seen before, 32 bytes, and what has come since."""
    return blake2b(before + seen.tobytes(), digest_size=SEED, person=b"spai-lab seen 1").digest()


def send(channel: Channel, kind: str, seen: bytes, array: np.ndarray) -> None:
    """Send the server an array, and a hash of what this client has seen."""
    channel.send(kind, np.frombuffer(seen, np.uint8), array)


def receive_confirmed(
    channel: Channel, kind: str, shape: tuple[int, ...], dtype: type = np.uint8, *, seen: bytes
) -> np.ndarray:
    """A client's array; refused if the client has seen something else than the server sent, or meant."""
    hashed, array = channel.receive(kind, np.ndarray, np.ndarray)
    if array_of(channel, kind, hashed, (SEED,)).tobytes() != seen:
        refuse(channel, f"{kind!r} answers to something else than was sent, or means other terms or another client")
    return array_of(channel, kind, array, shape, dtype)


# --- what the server accepts ------------------------------------------------------------------------------------------


def read_keys(channel: Channel, number: int, terms: Terms) -> np.ndarray:
    """A client's announcement, uint8 `(3, 32)`, refused unless it has two good public keys."""
    rows = receive_confirmed(channel, KEYS, (3, SEED), seen=greeting(terms, number))
    try:
        for row in rows[:2]:
            check_public(row.tobytes())
    except ValueError as error:
        refuse(channel, str(error))
    return rows


def read_shares(channel: Channel, number: int, present: Mapping[int, object], terms: Terms, seen: bytes) -> np.ndarray:
    """A client's sealed shares, uint8 `(n, 168)`; refused if it left somebody out."""
    rows = receive_confirmed(channel, SHARES, (terms.clients, SEALED), seen=seen)
    for other in present:
        if other != number and not rows[other].any():
            refuse(channel, f"{SHARES!r} has none for client {other}")
    return rows


def read_input(channel: Channel, number: int, terms: Terms, seen: bytes) -> np.ndarray:
    """A client's masked input, uint64 `(D,)`: any elements will do, as they look random."""
    y = receive_confirmed(channel, INPUT, (terms.size,), np.uint64, seen=seen)
    if (y != terms.ring.reduce(y)).any():
        refuse(channel, f"{INPUT!r} has numbers of {terms.ring.modulus} or more")
    return y


def read_answer(channel: Channel, number: int, terms: Terms, seen: bytes) -> np.ndarray:
    """A client's shares of the others' secrets, uint64 `(n, 8)`: rows of elements of the field, or of `NONE`."""
    rows = receive_confirmed(channel, ANSWER, (terms.clients, WORDS), np.uint64, seen=seen)
    if not ((rows < FIELD.prime).all(axis=1) | (rows == NONE).all(axis=1)).all():
        refuse(channel, f"{ANSWER!r} has numbers that are no elements of the field")
    return rows


# --- what a client accepts --------------------------------------------------------------------------------------------


def receive_keys(
    channel: Channel, keys: ClientKeys, terms: Terms, number: int
) -> tuple[dict[int, tuple[bytes, bytes]], bytes]:
    """By number of each other client, the seed of their mask and the key for shares; and a hash of what came."""
    public = from_server(channel, ALL_KEYS, (terms.clients, 2, SEED))
    present = {int(v): [row.tobytes() for row in public[v]] for v in public.any(axis=(1, 2)).nonzero()[0]}
    if present.pop(number, None) != [keys.masks.public, keys.shares.public]:
        refuse(channel, "it has other keys of this client than the client sent")
    check_present(channel, len(present) + 1, terms)
    distinct = {key for pair in present.values() for key in pair} - {keys.masks.public, keys.shares.public}
    if len(distinct) < 2 * len(present):
        refuse(channel, "it has a public key twice")
    try:
        agreed = {
            v: (agree(keys.masks, mask, terms.digest, "mask"), agree(keys.shares, box, terms.digest, "shares"))
            for v, (mask, box) in present.items()
        }
    except ValueError as error:
        refuse(channel, str(error))
    return agreed, confirmation(terms.digest, public)


def receive_shares(
    channel: Channel, boxes: Mapping[int, bytes], terms: Terms, number: int, seen: bytes
) -> tuple[dict[int, np.ndarray | None], bytes]:
    """The others' shares for this client, by number, uint64 `(2, 8)`, None for those that were changed on their way.

    With a hash of what was seen before, and of who has sent shares.
    """
    sealed = from_server(channel, ALL_SHARES, (terms.clients, SEALED))
    senders = [int(v) for v in sealed.any(axis=1).nonzero()[0]]
    if not boxes.keys() >= set(senders):
        refuse(channel, f"it has shares of client {min(set(senders) - boxes.keys())}, which announced no keys")
    check_present(channel, len(senders) + 1, terms)
    held = {
        v: unseal_shares(boxes[v], sealed[v].tobytes(), digest=terms.digest, sender=v, receiver=number) for v in senders
    }
    return held, confirmation(seen, np.isin(np.arange(terms.clients), [number, *senders]))


def receive_request(channel: Channel, held: Mapping[int, object], terms: Terms, number: int) -> np.ndarray:
    """Of whom the server wants the share of the seed or the key, bool `(n, 2)`; refused if it might read an input."""
    wanted = from_server(channel, REQUEST, (terms.clients, 2), bool)
    both, asked = wanted.all(axis=1), wanted.any(axis=1)
    if both.any():
        refuse(channel, f"it asks for both shares of client {both.argmax()}, which would show that client's input")
    here = np.isin(np.arange(terms.clients), list(held))
    if (asked != here).any():
        odd = int((asked != here).argmax())
        refuse(
            channel, f"it asks for {'no' if here[odd] else 'a'} share of client {odd}, expected one of each it named"
        )
    if not wanted[number, 0]:
        refuse(channel, "it says that this client has gone, and asks it to unmask")
    check_present(channel, int(wanted[:, 0].sum()), terms)
    return wanted


def check_present(channel: Channel, count: int, terms: Terms) -> None:
    """Refuse what names fewer than t clients."""
    if count < terms.threshold:
        refuse(channel, f"it names {count} clients, expected at least {terms.threshold}")


def from_server(channel: Channel, kind: str, shape: tuple[int, ...], dtype: type = np.uint8) -> np.ndarray:
    """The server's array of this kind; `ProtocolError` with its reason if it stops."""
    came = channel.receive_any({kind: (np.ndarray,), STOP: (str,)})
    if came.kind == STOP:
        refuse(channel, came.values[0])
    return array_of(channel, kind, came.values[0], shape, dtype)

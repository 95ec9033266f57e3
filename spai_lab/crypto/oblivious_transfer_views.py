r"""What each party of an oblivious transfer sees, and how to make the same up without the other party's secret.

| who | sees | is made up from | by |
|---|---|---|---|
| sender | points $R_i$, or columns $u_i$ | its own messages | a receiver that always asks for the first message |
| receiver | S, both ciphertexts | choices, chosen messages | a sender that has noise for the messages not chosen |

For the points this is exact: $x_i B$ and $S + x_i B$ have one distribution. The rest holds as long as hashes and
streams look random (`spai_lab.crypto.distinguisher` tries to tell). The simulators are the parties themselves, run with
dummies: they never see what they must not know, and a party's own random numbers, which belong to its view, fit it.

For learning, not for secrets.
"""

import secrets
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from spai_lab.checks import check_count, describe_kind
from spai_lab.crypto.channel import Channel
from spai_lab.crypto.frames import Message
from spai_lab.crypto.oblivious_transfer import (
    POINTS_KIND,
    TEXTS_KIND,
    check_choices,
    check_pairs,
    ot_receiver,
    ot_sender,
)
from spai_lab.crypto.oblivious_transfer_extension import COLUMNS_KIND, EXTENDED_KIND, turned
from spai_lab.crypto.parties import run_parties

MOST = 2**28  # bytes of a view
View = tuple[Message, ...]


class Transfer(NamedTuple):
    """Both parties of a protocol, such as `Transfer(extended_sender, extended_receiver)`."""

    sender: Callable = ot_sender
    receiver: Callable = ot_receiver


class Seen(NamedTuple):
    """What the receiver got, and what each party received on the way."""

    messages: np.ndarray
    sender: View
    receiver: View


def real_views(pairs: np.ndarray, choices: np.ndarray, *, transfer: Transfer | None = None) -> Seen:
    """Run a transfer and keep what both parties see.

    Args:
        pairs: the sender's messages, uint8 `(n, 2, L)`.
        choices: the receiver's bits, bool `(n,)`.
        transfer: the protocol; None takes the transfer on the curve.
    Returns:
        messages and views.
    Raises:
        ValueError: names the argument.
    Reference: Goldreich 2004, "Foundations of cryptography", volume 2, section 7.2, for views; the transfer is that of
        Chou, Orlandi 2015, IACR 2015/267.
    Survey: private AI, cryptography, multi-party computation.

    >>> seen = real_views(np.zeros((2, 2, 16), np.uint8), np.array([False, True]))
    >>> [message.kind for message in seen.sender], [message.kind for message in seen.receiver]
    (['OT points'], ['OT point', 'OT texts'])
    """
    check_pairs(pairs)
    check_choices(choices)
    if len(choices) != len(pairs):
        raise ValueError(f"choices is {describe_kind(choices)}; accepted: bool ({len(pairs)},), one for each of pairs")
    sender, receiver = transfer or Transfer()
    channels = {}

    def kept(channel: Channel, name: str, party: Callable) -> object:
        channels[name] = channel
        return party(channel)

    parties = {"sender": partial(sender, pairs=pairs), "receiver": partial(receiver, choices=choices)}
    runs = [partial(kept, name=name, party=party) for name, party in parties.items()]
    _, messages = run_parties(*runs, names=tuple(parties), view=MOST)
    return Seen(messages, channels["sender"].view, channels["receiver"].view)


def simulated_sender_view(pairs: np.ndarray, *, transfer: Transfer | None = None) -> View:
    """What a sender sees, made from its messages alone: the receiver always asks for the first one.

    Args:
        pairs: the sender's messages, uint8 `(n, 2, L)`.
        transfer: the protocol; None takes the transfer on the curve.
    Returns:
        the messages to the sender.
    Raises:
        ValueError: names the argument.
    Reference: Chou and Orlandi 2015, IACR 2015/267, on why $R_i$ is uniform for both choices.
    Survey: private AI, cryptography, multi-party computation.

    >>> simulated_sender_view(np.zeros((2, 2, 16), np.uint8))[0].values[0].shape
    (2, 32)
    """
    check_pairs(pairs)
    return real_views(pairs, np.zeros(len(pairs), bool), transfer=transfer).sender


def simulated_receiver_view(choices: np.ndarray, messages: np.ndarray, *, transfer: Transfer | None = None) -> View:
    """What a receiver sees, made from its choices and the messages it gets: the sender has noise for the others.

    Args:
        choices: the receiver's bits, bool `(n,)`.
        messages: what it gets, uint8 `(n, L)`.
        transfer: the protocol; None takes the transfer on the curve.
    Returns:
        the messages to the receiver.
    Raises:
        ValueError: names the argument.
    Reference: Chou and Orlandi 2015, IACR 2015/267, on why the other message's pad looks random.
    Survey: private AI, cryptography, multi-party computation.

    >>> view = simulated_receiver_view(np.array([True]), np.zeros((1, 16), np.uint8))
    >>> [message.kind for message in view]
    ['OT point', 'OT texts']
    """
    check_choices(choices)
    n = len(choices)
    if not isinstance(messages, np.ndarray) or messages.dtype != np.uint8 or messages.ndim != 2 or len(messages) != n:
        raise ValueError(f"messages is {describe_kind(messages)}; accepted: uint8 ({n}, L)")
    pairs = np.frombuffer(bytearray(secrets.token_bytes(2 * messages.size)), np.uint8).reshape(n, 2, -1)
    pairs[np.arange(n), choices.astype(int)] = messages
    return real_views(pairs, choices, transfer=transfer).receiver


# --- what there is to find in a view ----------------------------------------------------------------------------------


def sender_evidence(view: View, choices: np.ndarray, *, step: int = 1) -> np.ndarray:
    """Bits in which a sender might find choices: of each $R_i$, or each row of the columns, alone and with the choice.

    Args:
        view: of the sender.
        choices: what it is to find, known to whoever judges, bool `(n,)`.
        step: two transfers so far apart are compared with each other; 2 step divides n.
    Returns:
        bits, uint8 `(n / 2, D)`: a row for each two transfers, each of which is in one row.
    Raises:
        ValueError: names the argument.

    >>> pairs, choices = np.zeros((2, 2, 16), np.uint8), np.array([False, True])
    >>> sender_evidence(real_views(pairs, choices).sender, choices).shape
    (1, 1536)
    """
    check_choices(choices)
    check_step(step, len(choices))
    held = {message.kind: message.values[0] for message in view}
    points = turned(held[COLUMNS_KIND], len(choices)) if COLUMNS_KIND in held else held[POINTS_KIND]
    bits = np.unpackbits(points, axis=1)
    return np.hstack([compared(bits, step), compared(bits ^ choices[:, None], step)])


def receiver_evidence(view: View, pairs: np.ndarray, *, step: int = 1) -> np.ndarray:
    """Bits in which a receiver might find the other message: of both pads, which should look random, and their sum.

    Args:
        view: of the receiver.
        pairs: both messages, known to whoever judges, uint8 `(n, 2, L)`.
        step: as in `sender_evidence`.
    Returns:
        bits, uint8 `(n / 2, D)`: a row for each two transfers, each of which is in one row.
    Raises:
        ValueError: names the argument.

    >>> pairs, choices = np.zeros((2, 2, 16), np.uint8), np.array([False, True])
    >>> receiver_evidence(real_views(pairs, choices).receiver, pairs).shape
    (1, 1152)
    """
    check_pairs(pairs)
    check_step(step, len(pairs))
    held = {message.kind: message.values[0] for message in view}
    keys = np.unpackbits(held.get(EXTENDED_KIND, held.get(TEXTS_KIND)) ^ pairs, axis=2)
    return compared(np.hstack([keys[:, 0], keys[:, 1], keys[:, 0] ^ keys[:, 1]]), step)


def compared(bits: np.ndarray, step: int) -> np.ndarray:
    """Rows in twos that are `step` apart: the one, the other, and their sum.

    >>> compared(np.array([[0], [1], [1], [1]]), 2).tolist()
    [[0, 1, 1], [1, 1, 0]]
    """
    blocks = bits.reshape(-1, 2, step, bits.shape[1])
    one, other = (blocks[:, j].reshape(-1, bits.shape[1]) for j in (0, 1))
    return np.hstack([one, other, one ^ other])


def check_step(step: int, n: int) -> None:
    """Raise `ValueError` unless transfers can be taken in twos that are so far apart."""
    check_count("step", step)
    if n % (2 * step):
        raise ValueError(f"step is {step}; accepted: one of which the double divides {n}, the number of transfers")

r"""The parties of secure aggregation: a server, and clients with one channel each, to it, in four steps.

| step | client to server | server to client |
|---|---|---|
| keys | two public keys, hash of its seed: 96 bytes | all public keys: 64 n |
| shares | sealed shares of its seed and key, for each other client: 168 n | the same, for it: 168 n |
| masked input | $y_u$: 8 D | of whom which share is wanted: 2 n |
| unmasking | one share for each client: 64 n | |

With each message a client says a hash of the terms and of what it has seen so far, 32 bytes, so that the server notices
who means something else. Rows of clients that have left are zeros, so that all frames of a kind are equally long. Who
sends nothing in time, or what breaks the protocol, is gone: it is told so, and nothing that it sends later is used. If
fewer than t are left after a step, all are told, and nobody learns anything.

A client answers one request, for one share of each client: of the seed if it is in the sum, of the key if it has gone.
It refuses a request for both, for neither, for strangers, for fewer than t inputs, or that counts itself as gone.

The server sees who left when, the sum, and vectors that look random. `spai_lab.crypto.secure_aggregation` says which
model holds, and what a server finds out that hands out public keys of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from spai_lab.checks import check_choice, describe
from spai_lab.crypto.channel import Channel
from spai_lab.crypto.frames import Message
from spai_lab.crypto.parties import run_parties
from spai_lab.crypto.secure_aggregation import SEED, Terms, check_input, check_terms, mask_input
from spai_lab.crypto.secure_aggregation_keys import (
    NONE,
    SEALED,
    WORDS,
    announcement,
    check_client,
    client_keys,
    sealed_shares,
)
from spai_lab.crypto.secure_aggregation_messages import (
    ALL_KEYS,
    ALL_SHARES,
    ANSWER,
    INPUT,
    KEYS,
    REQUEST,
    SHARES,
    confirmation,
    greeting,
    read_answer,
    read_input,
    read_keys,
    read_shares,
    receive_keys,
    receive_request,
    receive_shares,
    send,
)
from spai_lab.crypto.secure_aggregation_rollcall import Absence, Rollcall, enough, hear, late, miss, tell
from spai_lab.crypto.secure_aggregation_unmasking import opened_sum

STEPS = ("keys", "shares", "masked input", "unmasking")
DEADLINE = 60.0


@dataclass(frozen=True, repr=False)
class Aggregate:
    """What the server has in the end.

    Args:
        total: the sum modulo $2^l$, uint64 `(D,)`; `to_signed` or `decode` read it.
        included: the numbers of the clients in it.
        absences: who left, in which step, why. Who left in the last step is in the sum.
        late: what came from clients after they were declared gone, `(number, kind)`, and was not used.
        bytes_up: from each client to the server, frames with their lengths; its sum is what the server received.
        bytes_down: from the server to each client.
        views: what came from each client, if the channels keep it; else None.
    """

    total: np.ndarray
    included: tuple[int, ...]
    absences: tuple[Absence, ...]
    late: tuple[tuple[int, str], ...]
    bytes_up: tuple[int, ...]
    bytes_down: tuple[int, ...]
    views: tuple[tuple[Message, ...] | None, ...]

    def __repr__(self) -> str:
        return f"Aggregate: the sum of {len(self.included)} of {len(self.bytes_up)} clients, {self.total.size} entries"


# --- the server -------------------------------------------------------------------------------------------------------


def aggregation_server(*channels: Channel, terms: Terms, deadline: float = DEADLINE) -> Aggregate:
    r"""Learn the sum of the clients whose masked input came in time: $\sum_u x_u \bmod 2^l$.

    Args:
        channels: one to each client, in the order of their numbers; each runs `aggregation_client`.
        terms: what all have agreed on.
        deadline: seconds within which the messages of a step must come, and as many to send the next; above 0, at most
            3600. Clients need more patience than both.
    Returns:
        the sum, and who is in it.
    Raises:
        ValueError: names the argument.
        TooFewClients: fewer than t are left after a step; a `ProtocolError`.
        ProtocolError: shares for unmasking do not give what their owners announced, or the sum is none of such inputs.
    Reference: Bonawitz et al. 2017, "Practical secure aggregation for privacy-preserving machine learning", IACR
        2017/281, figure 4.
    Survey: private AI, cryptography, multi-party computation.
    Simplified: the consistency check (round 3), with signed keys and signatures of who is in the sum, is left out, so
        that the server must be semi-honest in handing out keys and in saying who is in the sum. All clients talk to all
        others.

    >>> from spai_lab.crypto.secret_sharing_ring import to_ring
    >>> terms = Terms(clients=3, threshold=2, size=2)
    >>> clients = [partial(aggregation_client, x=to_ring([u, 10 * u]), terms=terms, number=u) for u in range(3)]
    >>> server, *_ = run_parties(partial(aggregation_server, terms=terms), *clients, topology="star")
    >>> server.total.tolist(), server.included
    ([3, 30], (0, 1, 2))
    """
    roll = Rollcall(channels, terms, deadline)
    n = terms.clients
    announced = without_twins(roll, hear(roll, STEPS[0], range(n), partial(read_keys, terms=terms)))
    public = np.zeros((n, 2, SEED), np.uint8)
    for u, rows in announced.items():
        public[u] = rows[:2]
    seen = confirmation(terms.digest, public)
    tell(roll, ALL_KEYS, dict.fromkeys(announced, public))

    sealed = hear(roll, STEPS[1], announced, partial(read_shares, present=announced, terms=terms, seen=seen))
    mail = np.zeros((n, n, SEALED), np.uint8)  # to whom, from whom
    for u, rows in sealed.items():
        mail[:, u] = rows
        mail[u, u] = 0
    seen = confirmation(seen, there := np.isin(np.arange(n), list(sealed)))
    tell(roll, ALL_SHARES, {u: mail[u] for u in sealed})

    masked = hear(roll, STEPS[2], sealed, partial(read_input, terms=terms, seen=seen))
    summed = np.isin(np.arange(n), list(masked))
    wanted = np.stack([summed, there & ~summed], axis=1)
    seen = confirmation(seen, wanted)
    tell(roll, REQUEST, dict.fromkeys(masked, wanted))

    answers = hear(roll, STEPS[3], masked, partial(read_answer, terms=terms, seen=seen))
    afterwards = late(roll, (KEYS, SHARES, INPUT, ANSWER))
    total = opened_sum(masked, wanted, answers, announced, terms)
    counts = tuple(c.bytes_received for c in channels), tuple(c.bytes_sent for c in channels)
    views = tuple(channel.view for channel in channels)
    return Aggregate(total, tuple(masked), tuple(roll.absences.values()), afterwards, *counts, views)


def without_twins(roll: Rollcall, announced: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    """The announcements without those that repeat a key that was there before."""
    seen, kept = set(), {}
    for number, rows in announced.items():
        own = {row.tobytes() for row in rows[:2]}
        if len(own) < 2 or own & seen:
            miss(roll, number, STEPS[0], "a public key that was announced before")
        else:
            seen |= own
            kept[number] = rows
    enough(roll, STEPS[0], kept)
    return kept


# --- the clients ------------------------------------------------------------------------------------------------------


def aggregation_client(
    channel: Channel, x: np.ndarray, terms: Terms, number: int, *, leave_before: str | None = None
) -> tuple[int, ...] | None:
    r"""Give a vector to a sum, and help to unmask that sum and nothing else.

    Args:
        channel: to the server, who runs `aggregation_server`.
        x: the vector, elements `(D,)` as of `encode`, within the agreed bound.
        terms: what all have agreed on.
        number: its own, from 0 to n - 1.
        leave_before: one of `STEPS`, before which it leaves, to see what the others do; None stays.
    Returns:
        the numbers of the clients in the sum, as the server told; None if it left before.
    Raises:
        ValueError: names the argument.
        ProtocolError: the server broke the protocol, or said that it stops, with its reason.
        TimeoutError: the server took longer than the channel's `timeout`.
    Reference: Bonawitz et al. 2017, "Practical secure aggregation for privacy-preserving machine learning", IACR
        2017/281, figure 4.
    Survey: private AI, cryptography, multi-party computation.
    Simplified: as in `aggregation_server`; public keys come unsigned, through the server.
    """
    number = check_client(number, terms)
    check_input(x, terms)
    if leave_before is not None:
        check_choice("leave_before", leave_before, STEPS)
    keys = client_keys()
    if leave_before == STEPS[0]:
        return None
    send(channel, KEYS, greeting(terms, number), announcement(keys))
    agreed, seen = receive_keys(channel, keys, terms, number)

    if leave_before == STEPS[1]:
        return None
    boxes = {v: box for v, (_, box) in agreed.items()}
    own, sealed = sealed_shares(keys, boxes, terms, number)
    send(channel, SHARES, seen, sealed)
    held, seen = receive_shares(channel, boxes, terms, number, seen)
    held[number] = own

    if leave_before == STEPS[2]:
        return None
    pair_seeds = {v: agreed[v][0] for v in held if v != number}
    send(channel, INPUT, seen, mask_input(x, number, keys.seed, pair_seeds, ring=terms.ring))
    wanted = receive_request(channel, held, terms, number)

    if leave_before == STEPS[3]:
        return None
    answer = np.full((terms.clients, WORDS), NONE)
    for v, shares in held.items():
        if shares is not None:
            answer[v] = shares[0 if wanted[v, 0] else 1]
    send(channel, ANSWER, confirmation(seen, wanted), answer)
    return tuple(map(int, wanted[:, 0].nonzero()[0]))


# --- all of them ------------------------------------------------------------------------------------------------------


def secure_sum(
    inputs: Sequence[np.ndarray],
    terms: Terms,
    *,
    dropouts: Mapping[int, str] | None = None,
    deadline: float = DEADLINE,
    transport: str = "threads",
    view: int | None = None,
) -> Aggregate:
    """Run server and clients on this machine: the sum of the inputs of those who stay.

    Args:
        inputs: $x_u$, n vectors of elements `(D,)`.
        terms: what all have agreed on.
        dropouts: one of `STEPS` by number of client, before which it leaves.
        deadline: seconds a step may take; in the first one processes also start.
        transport: "threads" or "processes", as in `run_parties`.
        view: bytes of messages that are kept of each client; None keeps none.
    Returns:
        what the server has in the end.
    Raises:
        ValueError: names the argument.
        TooFewClients: fewer than t stay.
    Reference: Bonawitz et al. 2017, IACR 2017/281, figure 4.
    Survey: private AI, cryptography, multi-party computation.
    Simplified: as in `aggregation_server`.

    >>> from spai_lab.crypto.secret_sharing_ring import to_ring
    >>> inputs = [to_ring([u, -u]) for u in (1, 10, 100)]
    >>> summed = secure_sum(inputs, Terms(clients=3, threshold=2, size=2), dropouts={2: "masked input"})
    >>> summed.total.astype(np.int64).tolist(), summed.included
    ([11, -11], (0, 1))
    """
    check_terms(terms)
    if not isinstance(inputs, list | tuple) or len(inputs) != terms.clients:
        raise ValueError(f"inputs is {describe(inputs)}; accepted: a list of {terms.clients} vectors")
    dropouts = {} if dropouts is None else dict(dropouts)
    for number, step in dropouts.items():
        check_client(number, terms)
        check_choice("dropouts", step, STEPS)
    for x in inputs:
        check_input(x, terms)
    clients = [
        partial(aggregation_client, x=x, terms=terms, number=u, leave_before=dropouts.get(u))
        for u, x in enumerate(inputs)
    ]
    served, *_ = run_parties(
        partial(aggregation_server, terms=terms, deadline=deadline),
        *clients,
        transport=transport,
        topology="star",
        names=["the server", *(f"client {u}" for u in range(terms.clients))],
        return_exceptions=True,
        timeout=3 * deadline,
        view=view,
    )
    if isinstance(served, BaseException):
        raise served
    return served

r"""Oblivious transfer by the thousand: 128 transfers on the curve, and then nothing but hashes.

Ishai, Kilian, Nissim and Petrank 2003 turn the direction around. Whoever will receive offers 128 pairs of seeds
$k_i^0, k_i^1$; whoever will send takes one of each, by secret bits s. A stream G makes a column of n bits from a seed,
and with its choices r, as bits, the receiver sends $u_i = G(k_i^0) \oplus G(k_i^1) \oplus r$. With
$t_i = G(k_i^0)$ the sender knows the column $q_i = t_i \oplus s_i r$. Row j of that matrix of n rows and 128 columns
then says $q_j = t_j \oplus r_j s$:

* the sender makes two pads, $H(j, q_j)$ and $H(j, q_j \oplus s)$;
* the receiver has one, $H(j, t_j)$: the first if $r_j = 0$, the second if $r_j = 1$. The other needs s.

| message | from | bytes | rounds |
|---|---|---|---|
| base transfers, other way round (`spai_lab.crypto.oblivious_transfer`) | receiver, sender | 4,184, 4,125 | 1, 2 |
| columns $u_1, \dots, u_{128}$ | receiver | 128 ⌈n / 8⌉ + 30 | 3, with the end of the base transfers |
| both messages of all transfers, padded | sender | 2 n L + 41 | 4 |
| or corrections, if messages are correlated | sender | n L + 34 | 4 |

Both parties follow the protocol (semi-honest), and here that matters: a receiver that puts another r in each column
reads s bit by bit, and with s all messages. Protocols that check columns exist (Keller, Orsini and Scholl 2015,
"Actively secure OT extension with optimal overhead", IACR 2015/546; on its proof Roy 2022, IACR 2022/192); this is
none. Nor may a run's seeds serve again: two runs of the same columns show the sender $r \oplus r'$, which is why each
call draws its own.

For learning, not for secrets: no care is taken about timing or about what stays in memory.
"""

import secrets
from hashlib import shake_256

import numpy as np

from spai_lab.checks import check_count, describe_kind
from spai_lab.crypto.channel import Channel
from spai_lab.crypto.oblivious_transfer import (
    TEXTS_KIND,
    Cost,
    check_choices,
    check_pairs,
    chosen,
    frame_bytes,
    indexed,
    ot_cost,
    ot_receiver,
    ot_sender,
    pads,
    receive_array,
)

BASE = 128  # transfers on the curve, the computational security in bits
SEED = BASE // 8  # bytes, of a seed and of a row
COLUMNS_KIND, EXTENDED_KIND, CORRECTIONS_KIND = "OT columns", f"extended {TEXTS_KIND}", "OT corrections"
STREAM, PERSON, CORRELATED = b"spai-lab OT columns 1", b"spai-lab OTX 1", b"spai-lab COT 1"
SLICE = 2**16  # rows that are turned at once, so that single bits do not fill the memory


# --- the parties ------------------------------------------------------------------------------------------------------


def extended_sender(channel: Channel, pairs: np.ndarray) -> None:
    r"""Offer two messages in each of n transfers: $e_j^0 = m_j^0 \oplus H(j, q_j)$, and $e_j^1$ with $q_j \oplus s$.

    Args:
        channel: to a party that runs `extended_receiver`; its `max_frame` limits n L.
        pairs: the messages $m_j^0, m_j^1$, uint8 `(n, 2, L)`, n and L at least 1.
    Raises:
        ValueError: names the argument.
        ProtocolError: the receiver broke the protocol; the channel is closed.
        TimeoutError: the receiver stalled longer than the channel's `timeout`.
    Reference: Ishai, Kilian, Nissim and Petrank 2003, "Extending oblivious transfers efficiently", section 3, with
        streams from seeds as in Asharov, Lindell, Schneider and Zohner 2013, IACR 2013/552; the base
        transfers are those of Chou, Orlandi 2015, IACR 2015/267.
    Survey: private AI, cryptography, multi-party computation.
    Simplified: semi-honest; base transfers are made anew in each call.

    >>> from functools import partial
    >>> from spai_lab.crypto.parties import run_parties
    >>> random = np.random.default_rng(0)
    >>> pairs, choices = random.integers(0, 256, (1000, 2, 16), np.uint8), random.random(1000) < 0.5
    >>> run = partial(extended_sender, pairs=pairs), partial(extended_receiver, choices=choices)
    >>> _, messages = run_parties(*run)
    >>> (messages == np.where(choices[:, None], pairs[:, 1], pairs[:, 0])).all()
    np.True_
    """
    check_pairs(pairs)
    keys = sender_pads(channel, len(pairs), pairs.shape[2], person=PERSON)
    channel.send(EXTENDED_KIND, pairs ^ keys)


def extended_receiver(channel: Channel, choices: np.ndarray, *, length: int | None = None) -> np.ndarray:
    r"""Take one of two messages in each of n transfers: $m_j^{r_j} = e_j^{r_j} \oplus H(j, t_j)$.

    Args:
        channel: to a party that runs `extended_sender`.
        choices: $r_j$, bool `(n,)`, n at least 1; True asks for the second message.
        length: L, in bytes; None takes what the sender has.
    Returns:
        the messages, uint8 `(n, L)`.
    Raises:
        ValueError: names the argument.
        ProtocolError: the sender broke the protocol; the channel is closed.
        TimeoutError: the sender stalled longer than the channel's `timeout`.
    Reference: as `extended_sender`: Ishai et al. 2003, over the base transfers of Chou, Orlandi 2015.
    Survey: private AI, cryptography, multi-party computation.
    Simplified: as in `extended_sender`.

    >>> from spai_lab.crypto.parties import run_parties
    >>> pairs, r = np.arange(8, dtype=np.uint8).reshape(1, 2, 4), np.array([True])
    >>> run_parties(lambda channel: extended_sender(channel, pairs), lambda channel: extended_receiver(channel, r))
    [None, array([[4, 5, 6, 7]], dtype=uint8)]
    """
    check_choices(choices, length)
    t = receiver_rows(channel, choices)
    texts = receive_array(channel, EXTENDED_KIND, (len(choices), 2, length))
    return chosen(texts, choices) ^ pads(indexed(t), texts.shape[2], person=PERSON)


def correlated_sender(channel: Channel, delta: np.ndarray, n: int) -> np.ndarray:
    r"""Transfer of random pairs with a fixed difference: $m_j^0 = H(j, q_j)$, $m_j^1 = m_j^0 \oplus \Delta$.

    Since the sender does not choose $m_j^0$, one correction a transfer is enough,
    $H(j, q_j) \oplus H(j, q_j \oplus s) \oplus \Delta$: half of what two ciphertexts take. Wires of a garbled circuit
    with free XOR are such pairs.

    Args:
        channel: to a party that runs `correlated_receiver`.
        delta: $\Delta$, uint8 `(L,)`, L at least 1.
        n: how many transfers, at least 1.
    Returns:
        $m_j^0$, uint8 `(n, L)`.
    Raises:
        ValueError: names the argument.
        ProtocolError: the receiver broke the protocol; the channel is closed.
        TimeoutError: the receiver stalled longer than the channel's `timeout`.
    Reference: Asharov, Lindell, Schneider and Zohner 2013, "More efficient oblivious transfer and extensions for faster
        secure computation", IACR 2013/552; the base transfers are those of Chou, Orlandi 2015.
    Survey: private AI, cryptography, multi-party computation.
    Simplified: as in `extended_sender`.

    >>> from functools import partial
    >>> from spai_lab.crypto.parties import run_parties
    >>> delta, choices = np.array([1, 255], np.uint8), np.array([False, True])
    >>> run = partial(correlated_sender, delta=delta, n=2), partial(correlated_receiver, choices=choices)
    >>> zeros, received = run_parties(*run)
    >>> (zeros ^ received).tolist()
    [[0, 0], [1, 255]]
    """
    if not isinstance(delta, np.ndarray) or delta.dtype != np.uint8 or delta.ndim != 1 or not len(delta):
        raise ValueError(f"delta is {describe_kind(delta)}; accepted: uint8 (L,), L at least 1")
    check_count("n", n)
    keys = sender_pads(channel, n, len(delta), person=CORRELATED)
    channel.send(CORRECTIONS_KIND, keys[:, 0] ^ keys[:, 1] ^ delta)
    return keys[:, 0].copy()


def correlated_receiver(channel: Channel, choices: np.ndarray, *, length: int | None = None) -> np.ndarray:
    r"""Take $m_j^0$ or $m_j^0 \oplus \Delta$ in each of n transfers, as `extended_receiver` does.

    Args:
        channel: to a party that runs `correlated_sender`.
        choices: $r_j$, bool `(n,)`, n at least 1; True asks for $m_j^0 \oplus \Delta$.
        length: L, in bytes; None takes what the sender has.
    Returns:
        the messages, uint8 `(n, L)`.
    Raises:
        ValueError: names the argument.
        ProtocolError: the sender broke the protocol; the channel is closed.
        TimeoutError: the sender stalled longer than the channel's `timeout`.
    Reference: as `correlated_sender`: Asharov et al. 2013, over the base transfers of Chou, Orlandi 2015.
    Survey: private AI, cryptography, multi-party computation.

    >>> from functools import partial
    >>> from spai_lab.crypto.parties import run_parties
    >>> sender = partial(correlated_sender, delta=np.ones(3, np.uint8), n=1)
    >>> zeros, received = run_parties(sender, partial(correlated_receiver, choices=np.array([True])))
    >>> (zeros ^ received).tolist()
    [[1, 1, 1]]
    """
    check_choices(choices, length)
    t = receiver_rows(channel, choices)
    corrections = receive_array(channel, CORRECTIONS_KIND, (len(choices), length))
    return pads(indexed(t), corrections.shape[1], person=CORRELATED) ^ corrections * choices[:, None]


def extended_cost(n: int, length: int, *, correlated: bool = False) -> Cost:
    """What n transfers of messages of `length` bytes cost; `Channel` counts the same.

    >>> extended_cost(100_000, 16)
    Cost(sender_bytes=3204166, receiver_bytes=1604214, rounds=4)
    """
    base = ot_cost(BASE, SEED)
    check_count("n", n)
    check_count("length", length)
    last = (CORRECTIONS_KIND, (n, length)) if correlated else (EXTENDED_KIND, (n, 2, length))
    columns = frame_bytes(COLUMNS_KIND, (BASE, -(-n // 8)))
    return Cost(base.receiver_bytes + frame_bytes(*last), base.sender_bytes + columns, 4)


# --- rows -------------------------------------------------------------------------------------------------------------


def sender_pads(channel: Channel, n: int, size: int, *, person: bytes) -> np.ndarray:
    r"""$H(j, q_j)$ and $H(j, q_j \oplus s)$ of n transfers, uint8 `(n, 2, size)`."""
    s = np.frombuffer(secrets.token_bytes(SEED), np.uint8)
    q = sender_rows(channel, n, s)
    return np.stack([pads(indexed(row), size, person=person) for row in (q, q ^ s)], axis=1)


def sender_rows(channel: Channel, n: int, s: np.ndarray) -> np.ndarray:
    r"""$q_j = t_j \oplus r_j s$, uint8 `(n, 16)`, for the sender's 128 secret bits s, uint8 `(16,)`."""
    bits = np.unpackbits(s).astype(bool)
    seeds = ot_receiver(channel, bits, length=SEED)
    u = receive_array(channel, COLUMNS_KIND, (BASE, -(-n // 8)))
    return turned(stream(seeds, u.shape[1]) ^ u * bits[:, None], n)


def receiver_rows(channel: Channel, choices: np.ndarray) -> np.ndarray:
    """$t_j$, uint8 `(n, 16)`."""
    seeds = np.frombuffer(secrets.token_bytes(BASE * 2 * SEED), np.uint8).reshape(BASE, 2, SEED)
    ot_sender(channel, seeds)
    r = np.packbits(choices)
    t = stream(seeds[:, 0], len(r))
    channel.send(COLUMNS_KIND, t ^ stream(seeds[:, 1], len(r)) ^ r)
    return turned(t, len(choices))


def stream(seeds: np.ndarray, size: int) -> np.ndarray:
    r"""$G(k_i)$: as many pseudorandom bytes as wanted from each seed, by SHAKE-256, uint8 `(128, size)`."""
    columns = [shake_256(STREAM + seed.tobytes()).digest(size) for seed in indexed(seeds)]
    return np.frombuffer(b"".join(columns), np.uint8).reshape(len(seeds), size)


def turned(columns: np.ndarray, n: int) -> np.ndarray:
    """The transpose of a matrix of bits, eight to a byte: uint8 `(n, K / 8)` of `(K, ceil(n / 8))`.

    >>> turned(np.array([[0b10000000]] * 4 + [[0b11000000]] * 4, np.uint8), 2).tolist()
    [[255], [15]]
    """
    slices = [columns[:, start : start + SLICE // 8] for start in range(0, columns.shape[1], SLICE // 8)]
    return np.concatenate([np.packbits(np.unpackbits(part, axis=1).T, axis=1) for part in slices])[:n]

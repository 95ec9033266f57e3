r"""Products of secrets from oblivious transfer: x of one party, y of the other, and shares of x y for both.

Gilboa 1999 multiplies as one does by hand. With the bits of y, $x y = \sum_k b_k 2^k x$ modulo $2^{64}$. For each bit
the sender offers $r_k$ and $r_k + 2^k x$, and the receiver takes the one that $b_k$ names:

$\underbrace{\sum_k (r_k + b_k 2^k x)}_{\text{receiver}} + \underbrace{\left(-\sum_k r_k\right)}_{\text{sender}} = x y.$

This is where Beaver's triples come from if no third party deals them: with $a = a_0 + a_1$ and $b = b_0 + b_1$, the
parties know $a_0 b_0$ and $a_1 b_1$, and two products give them shares of $a_0 b_1$ and $a_1 b_0$.

The offers are correlated, so that a transfer takes one correction of 8 bytes beside its 16 of columns: 1,536 bytes a
product, in the 4 rounds of `spai_lab.crypto.oblivious_transfer_extension`, which also says what semi-honest means here.
A sender that cheats in one bit's correction makes the product wrong for some y and right for others; nobody checks.
For learning, not for secrets.
"""

import numpy as np

from spai_lab.checks import check_count, describe_kind
from spai_lab.crypto.channel import Channel
from spai_lab.crypto.oblivious_transfer import Cost, frame_bytes, indexed, ot_cost, pads, receive_array
from spai_lab.crypto.oblivious_transfer_extension import BASE, COLUMNS_KIND, SEED, receiver_rows, sender_pads

BITS = 64
WORD = np.dtype("<u8")
PLACES = np.arange(BITS, dtype=np.uint64)
KIND, PERSON = "OT products", b"spai-lab OTP 1"


def product_shares_sender(channel: Channel, values: np.ndarray) -> np.ndarray:
    r"""Shares of x y for the party that has x: $-\sum_k r_k \bmod 2^{64}$, with $r_k = H(j, q_j)$ of transfer j.

    Args:
        channel: to a party that runs `product_shares_receiver` with as many values.
        values: x, uint64 `(m,)`, m at least 1; of int64 take `.view(np.uint64)`.
    Returns:
        its shares, uint64 `(m,)`; with the other party's they add up to x y modulo $2^{64}$.
    Raises:
        ValueError: names the argument.
        ProtocolError: the receiver broke the protocol; the channel is closed.
        TimeoutError: the receiver stalled longer than the channel's `timeout`.
    Reference: Gilboa 1999, "Two party RSA key generation"; with correlated transfers in Demmler, Schneider
        and Zohner 2015, "ABY"; the base transfers are those of Chou, Orlandi 2015, IACR 2015/267.
    Survey: private AI, cryptography, multi-party computation.
    Simplified: semi-honest; all corrections have 64 bits, though 64 - k would do for bit k.

    >>> from functools import partial
    >>> from spai_lab.crypto.parties import run_parties
    >>> x, y = np.array([3, 2**63], np.uint64), np.array([5, 3], np.uint64)
    >>> run = partial(product_shares_sender, values=x), partial(product_shares_receiver, values=y)
    >>> one, other = run_parties(*run)
    >>> (one + other).tolist() == [15, 3 * 2**63 % 2**64]
    True
    """
    check_values(values)
    keys = sender_pads(channel, BITS * len(values), WORD.itemsize, person=PERSON)
    r, other = (words(keys[:, j]) for j in (0, 1))
    channel.send(KIND, r + (values[:, None] << PLACES) - other)
    return -r.sum(axis=1, dtype=np.uint64)


def product_shares_receiver(channel: Channel, values: np.ndarray) -> np.ndarray:
    r"""Shares of x y for the party that has y: $\sum_k (r_k + b_k 2^k x) \bmod 2^{64}$, chosen by the bits of y.

    Args:
        channel: to a party that runs `product_shares_sender` with as many values.
        values: y, uint64 `(m,)`, m at least 1; of int64 take `.view(np.uint64)`.
    Returns:
        its shares, uint64 `(m,)`.
    Raises:
        ValueError: names the argument.
        ProtocolError: the sender broke the protocol; the channel is closed.
        TimeoutError: the sender stalled longer than the channel's `timeout`.
    Reference: as `product_shares_sender`: Gilboa 1999, over the base transfers of Chou, Orlandi 2015.
    Survey: private AI, cryptography, multi-party computation.
    Simplified: as in `product_shares_sender`.

    >>> from functools import partial
    >>> from spai_lab.crypto.parties import run_parties
    >>> x, y = np.array([-3], np.int64), np.array([7], np.int64)
    >>> sender = partial(product_shares_sender, values=x.view(np.uint64))
    >>> one, other = run_parties(sender, partial(product_shares_receiver, values=y.view(np.uint64)))
    >>> (one + other).view(np.int64)
    array([-21])
    """
    check_values(values)
    bits = values[:, None] >> PLACES & np.uint64(1)
    t = receiver_rows(channel, bits.ravel().astype(bool))
    taken = words(pads(indexed(t), WORD.itemsize, person=PERSON))
    corrections = receive_array(channel, KIND, bits.shape, np.uint64)
    return (taken + bits * corrections).sum(axis=1, dtype=np.uint64)


def product_cost(m: int) -> Cost:
    """What m products cost; `Channel` counts the same.

    >>> product_cost(1000)
    Cost(sender_bytes=516156, receiver_bytes=1028214, rounds=4)
    """
    check_count("m", m)
    base = ot_cost(BASE, SEED)
    columns = frame_bytes(COLUMNS_KIND, (BASE, BITS * m // 8))
    products = frame_bytes(KIND, (m, BITS), WORD.itemsize)
    return Cost(base.receiver_bytes + products, base.sender_bytes + columns, 4)


def words(data: np.ndarray) -> np.ndarray:
    """Eight bytes to a number, 64 numbers to a row: uint64 `(m, 64)` of uint8 `(64 m, 8)`."""
    return np.ascontiguousarray(data).view(WORD).astype(np.uint64).reshape(-1, BITS)


def check_values(values: np.ndarray) -> None:
    """Raise `ValueError` unless these are numbers modulo $2^{64}$, uint64 `(m,)`."""
    if not isinstance(values, np.ndarray) or values.dtype != np.uint64 or values.ndim != 1 or not len(values):
        raise ValueError(f"values is {describe_kind(values)}; accepted: uint64 (m,), m at least 1")

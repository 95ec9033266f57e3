"""Layers that two parties compute on shares, with the bytes that they really send."""

import secrets
from functools import cache, partial
from typing import NamedTuple

from spai_lab.crypto.channel import Channel
from spai_lab.crypto.circuits_words import shared_relu
from spai_lab.crypto.garbled_circuit_parties import garbled_cost
from spai_lab.crypto.oblivious_transfer import Cost
from spai_lab.crypto.parties import run_parties
from spai_lab.crypto.secret_sharing_parties import Link, add_public, matmul, open_shares
from spai_lab.crypto.secret_sharing_ring import MOST_BITS, RING
from spai_lab.crypto.secret_sharing_triples import Request, Triple, deal_triple, stock

HIDDEN, BATCH = (32, 64, 128), (2, 4, 8)


class Layer(NamedTuple):
    """A layer of an inference on shares.

    Args:
        kind: "linear", a product of matrices with one triple; "bias", a sum; "relu", garbled; "open", of the result.
        shape: `(M, K, N)` of the product of `(M, K)` and `(K, N)`; else `(n,)`, how many numbers.
        sent: the bytes that party 0 sends, and party 1, as counted on their channels.
    """

    kind: str
    shape: tuple[int, ...]
    sent: tuple[int, int]


@cache
def relu_cost(count: int) -> Cost:
    """What it costs to garble so many ReLUs together: party 0 brings its share and the mask of the result."""
    return garbled_cost(shared_relu(MOST_BITS), count, 2 * MOST_BITS)


@cache
def measured(kind: str, *shape: int) -> tuple[Layer, int]:
    """A layer with what its parties send, and how many of these messages follow one another.

    "linear", "bias" and "open" are run. In an exchange both send before they read: two turns of a channel, and the time
    of one message. What garbling costs is `garbled_cost`, which its own tests compare with channels.

    >>> measured("open", 10)
    (Layer(kind='open', shape=(10,), sent=(104, 104)), 1)
    """
    if kind == "relu":
        cost = relu_cost(*shape)
        return Layer(kind, shape, (cost.sender_bytes, cost.receiver_bytes)), cost.rounds
    m, k, n = shape if kind == "linear" else (1, 1, *shape)
    triples = deal_triple(Request("matmul", (m, k), (k, n)))
    parties = (partial(run_layer, party=i, kind=kind, triple=triple) for i, triple in enumerate(triples))
    (one, turns), (other, _) = run_parties(*parties)
    return Layer(kind, shape, (one, other)), turns // 2


def run_layer(channel: Channel, *, party: int, kind: str, triple: Triple) -> tuple[int, int]:
    """How many bytes a party sends for a layer of numbers that do not matter, and how often the direction changes."""
    link, request = Link(channel, party, stock([triple])), triple.request
    x, y, z = (RING.draw(shape) for shape in (request.x, request.y, request.z))
    match kind:
        case "linear":
            matmul(link, x, y)
        case "bias":
            add_public(link, z, z)
        case "open":
            open_shares(link, z)
    return channel.bytes_sent, channel.rounds


def inferences() -> list[list[Layer]]:
    """An image, a batch through two layers of ReLU, and a linear model; some sizes are drawn."""
    hidden, batch = secrets.choice(HIDDEN), secrets.choice(BATCH)
    image = (
        *(("linear", 1, 784, hidden), ("bias", hidden), ("relu", hidden)),
        *(("linear", 1, hidden, 10), ("bias", 10), ("open", 10)),
    )
    images = (
        *(("linear", batch, 64, 32), ("bias", 32 * batch), ("relu", 32 * batch)),
        *(("linear", batch, 32, 32), ("relu", 32 * batch)),
        *(("linear", batch, 32, 10), ("open", 10 * batch)),
    )
    linear = (("linear", batch, hidden, 10), ("bias", 10 * batch), ("open", 10 * batch))
    return [[measured(*layer)[0] for layer in layers] for layers in (image, images, linear)]

r"""Two parties who compute on shares: each holds one of every number, and all they ever see are masked differences.

Each party calls the same functions in the same order, over its own end of a channel (`spai_lab.crypto.parties`).

| function | messages | an array of n elements, in 64 bits each |
|---|---|---|
| `send_share`, `receive_share` | one, from the owner | 8 n bytes |
| `share_both` | one exchange | 8 n bytes each way |
| `add_public`, sums, products with public numbers | none | 0 |
| `multiply` | one exchange, whatever n is | 16 n bytes each way |
| `matmul`, `(M, K)` by `(K, N)` | one exchange | 8 (M K + K N) bytes each way |
| `open_shares` | one exchange | 8 n bytes each way |
| `reveal`, to one party | one, from the other | 8 n bytes |

In an exchange both speak at once: it takes the time of one message, and a channel's `rounds` counts it as two turns.

A party sees its own inputs, uniform shares, e and f of each product, shapes, and what is opened or revealed to it. It
does not see the other one's inputs, nor anything in between.

Both follow the protocol (semi-honest). A channel may be an `spai_lab.crypto.authenticated.AuthenticatedChannel`, which
keeps strangers out; it does not keep the other party honest: who adds 1 to a share adds 1 to the result.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spai_lab.checks import check_callable, describe
from spai_lab.crypto.authenticated import AuthenticatedChannel
from spai_lab.crypto.channel import Channel
from spai_lab.crypto.frames import ProtocolError
from spai_lab.crypto.paillier_keys import check_whole
from spai_lab.crypto.secret_sharing import share, truncate
from spai_lab.crypto.secret_sharing_ring import RING, Ring, check_elements, check_places, check_ring
from spai_lab.crypto.secret_sharing_triples import Request, Shape, Source, check_triple


@dataclass(frozen=True)
class Link:
    """What a party needs to compute with the other one.

    Args:
        channel: to the other party.
        party: 0 or 1, each once.
        triples: a source of triples for products; None if there are none to compute.
        ring: the ring, the same for both.
    Raises:
        ValueError: names the argument.
    """

    channel: Channel | AuthenticatedChannel
    party: int
    triples: Source | None = None
    ring: Ring = RING

    def __post_init__(self) -> None:
        if not isinstance(self.channel, Channel | AuthenticatedChannel):
            raise ValueError(f"channel is {describe(self.channel)}; accepted: a Channel or an AuthenticatedChannel")
        object.__setattr__(self, "party", check_whole("party", self.party, 0, 1))
        if self.triples is not None:
            check_callable("triples", self.triples)
        check_ring(self.ring)


# --- in and out -------------------------------------------------------------------------------------------------------


def send_share(link: Link, x: np.ndarray) -> np.ndarray:
    r"""Share numbers of one's own with the other party: $x = x_0 + x_1 \bmod 2^l$. One message.

    Args:
        link: of the owner.
        x: elements, as of `encode`.
    Returns:
        the owner's share, like x.
    Raises:
        ValueError: names the argument.
        ProtocolError: the other party broke the protocol.
    Reference: Mohassel and Zhang 2017, "SecureML", IACR 2017/396.
    Survey: private AI, cryptography, multi-party computation.
    """
    given, kept = share(x, ring=link.ring)
    link.channel.send("share", given)
    return kept


def receive_share(link: Link, shape: Shape) -> np.ndarray:
    """One's share of the other party's numbers, uint64 of the agreed shape; else like `send_share`."""
    return receive_elements(link.channel, "share", [shape], link.ring)[0]


def share_both(link: Link, x: np.ndarray, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Share numbers of both parties; one exchange.

    Args:
        link: of a party.
        x: its own numbers.
        shape: of the other party's numbers.
    Returns:
        its shares of the numbers of party 0, then of those of party 1: the same order for both.
    Raises:
        ValueError: names the argument.
        ProtocolError: the other party broke the protocol.
    """
    own, other = send_share(link, x), receive_share(link, shape)
    return (own, other) if link.party == 0 else (other, own)


def open_shares(link: Link, *shares: np.ndarray) -> tuple[np.ndarray, ...]:
    r"""Show numbers to both parties: $x = x_0 + x_1 \bmod 2^l$. One exchange, for all of them together.

    Args:
        link: of a party.
        shares: its shares, of any shapes.
    Returns:
        the numbers, uint64, each like its share.
    Raises:
        ValueError: names the argument.
        ProtocolError: the other party broke the protocol.
    Reference: Mohassel and Zhang 2017, "SecureML", IACR 2017/396.
    Survey: private AI, cryptography, multi-party computation.

    >>> from spai_lab.crypto.parties import run_parties
    >>> from spai_lab.crypto.secret_sharing_ring import to_ring
    >>> def party(channel, *, number):
    ...     link = Link(channel, party=number)
    ...     x = send_share(link, to_ring([20, 1])) if number == 0 else receive_share(link, (2,))
    ...     return open_shares(link, link.ring.reduce(x + x))[0].tolist()
    >>> run_parties(lambda channel: party(channel, number=0), lambda channel: party(channel, number=1))
    [[40, 2], [40, 2]]
    """
    if not shares:
        raise ValueError("shares is empty; accepted: at least one share")
    for each in shares:
        check_elements("shares", each, link.ring)
    link.channel.send("open", *shares)
    others = receive_elements(link.channel, "open", [each.shape for each in shares], link.ring)
    return tuple(link.ring.reduce(own + other) for own, other in zip(shares, others, strict=True))


def reveal(link: Link, x: np.ndarray, *, to: int) -> np.ndarray | None:
    """Show numbers to one party alone. One message.

    Args:
        link: of a party.
        x: its share.
        to: 0 or 1, who will know them.
    Returns:
        the numbers, uint64 like x, for that party; None for the other one.
    Raises:
        ValueError: names the argument.
        ProtocolError: the other party broke the protocol.
    """
    check_elements("x", x, link.ring)
    check_whole("to", to, 0, 1)
    if link.party != to:
        link.channel.send("reveal", x)
        return None
    (other,) = receive_elements(link.channel, "reveal", [x.shape], link.ring)
    return link.ring.reduce(x + other)


# --- arithmetic -------------------------------------------------------------------------------------------------------


def add(link: Link, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A party's share of a sum: the sum of its shares. No message.

    Args:
        link: of a party.
        x, y: its shares, of one shape.
    Returns:
        its share of x + y.
    Raises:
        ValueError: names the argument.
    """
    check_elements("x", x, link.ring)
    check_elements("y", y, link.ring, x.shape)
    return link.ring.reduce(x + y)


def add_public(link: Link, x: np.ndarray, k: np.ndarray) -> np.ndarray:
    """A party's share of x + k, where both know k: party 0 adds it, party 1 does nothing. No message.

    Args:
        link: of a party.
        x: its share.
        k: elements that both know, of the shape of x.
    Returns:
        its share of x + k.
    Raises:
        ValueError: names the argument.
    """
    check_elements("x", x, link.ring)
    check_elements("k", k, link.ring, x.shape)
    return link.ring.reduce(x + k) if link.party == 0 else x


def multiply(link: Link, x: np.ndarray, y: np.ndarray, *, places: int = 0) -> np.ndarray:
    r"""A party's share of a product, entry by entry: $z_i = c_i + e b_i + a_i f + [i = 0] \, e f$ with opened
    $e = x - a$ and $f = y - b$. One exchange.

    Args:
        link: of a party, with a source of triples; both have the two halves of the same ones.
        x, y: its shares, of one shape.
        places: f, binary places to take off the product (`truncate`); 0 for whole numbers.
    Returns:
        its share of $x y$, or of $x y / 2^f$ within one unit, except with probability $|x y| / 2^l$.
    Raises:
        ValueError: names the argument.
        ProtocolError: the other party broke the protocol.
    Reference: Beaver 1991, "Efficient multiparty protocols using circuit randomization", section 2.
    Survey: private AI, cryptography, multi-party computation.

    >>> from spai_lab.crypto.parties import run_parties
    >>> from spai_lab.crypto.secret_sharing_ring import to_ring
    >>> from spai_lab.crypto.secret_sharing_triples import deal_triple, stock
    >>> halves = deal_triple(Request("multiply", (1,), (1,)))
    >>> def party(channel, *, number, own):
    ...     link = Link(channel, number, stock([halves[number]]))
    ...     x, y = share_both(link, to_ring([own]), (1,))
    ...     return open_shares(link, multiply(link, x, y))[0].tolist()
    >>> run_parties(lambda c: party(c, number=0, own=6), lambda c: party(c, number=1, own=7))
    [[42], [42]]
    """
    return beaver(link, "multiply", x, y, places)


def matmul(link: Link, x: np.ndarray, y: np.ndarray, *, places: int = 0) -> np.ndarray:
    r"""A party's share of a matrix product: as `multiply`, with one triple of matrices. One exchange.

    Args:
        link: of a party, with a source of triples.
        x: its share `(..., M, K)`.
        y: its share `(..., K, N)`, with the same dots.
        places: f, binary places to take off the product; 0 for whole numbers.
    Returns:
        its share of the product, `(..., M, N)`.
    Raises:
        ValueError: names the argument.
        ProtocolError: the other party broke the protocol.
    Reference: Beaver 1991, "Efficient multiparty protocols using circuit randomization", section 2; Mohassel and Zhang
        2017, "SecureML", IACR 2017/396, for matrices.
    Survey: private AI, cryptography, multi-party computation.
    Simplified: each product masks both factors anew; SecureML masks the data once and uses that in all epochs.
    """
    return beaver(link, "matmul", x, y, places)


def beaver(link: Link, kind: str, x: np.ndarray, y: np.ndarray, places: int) -> np.ndarray:
    """A party's share of a product; as `multiply`."""
    ring = link.ring
    check_places(places, ring)
    check_elements("x", x, ring)
    check_elements("y", y, ring)
    if link.triples is None:
        raise ValueError("link has no triples; accepted: a source of triples, as of stock")
    request = Request(kind, x.shape, y.shape)
    triple = check_triple(link.triples(request), request, ring)
    e, f = open_shares(link, ring.reduce(x - triple.a), ring.reduce(y - triple.b))
    b = ring.reduce(triple.b + f) if link.party == 0 else triple.b  # e (b + f) has e f in it
    z = ring.reduce(triple.c + request.product(e, b, ring) + request.product(triple.a, f, ring))
    return truncate(z, places, party=link.party, ring=ring) if places else z


# --- messages ---------------------------------------------------------------------------------------------------------


def receive_elements(
    channel: Channel | AuthenticatedChannel, kind: str, shapes: Sequence[Shape], ring: Ring
) -> list[np.ndarray]:
    """Arrays of elements that came in one message; what is not of these shapes or this ring closes the channel."""
    arrays = channel.receive(kind, *[np.ndarray] * len(shapes))
    for array, shape in zip(arrays, shapes, strict=True):
        try:
            check_elements(f"an array of {kind!r}", array, ring, tuple(shape))
        except ValueError as error:
            with channel:
                raise ProtocolError(f"from {channel.peer}: {error}") from None
    return list(arrays)

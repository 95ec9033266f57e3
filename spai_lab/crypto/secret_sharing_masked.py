r"""Products with data that serve again and again: the data are masked once, only the other factor anew.

A triple masks both factors, and serves once. Where the same X is in many products, as in all epochs of a training,
$E = X - A$ is opened once instead, and each product takes a fresh b with $c = A b$. E stays the same, so that using A
again tells nothing; a b that serves twice tells the difference of what it hid, as ever.
"""

import numpy as np

from spai_lab.crypto.authenticated import AuthenticatedChannel
from spai_lab.crypto.channel import Channel
from spai_lab.crypto.secret_sharing import share, truncate
from spai_lab.crypto.secret_sharing_parties import Link, open_shares
from spai_lab.crypto.secret_sharing_ring import Ring, check_elements

End = Channel | AuthenticatedChannel


def deal(servers: tuple[End, End], kind: str, parts: list[np.ndarray], ring: Ring) -> None:
    """Send each server one share of each part, in one message."""
    halves = zip(*(share(part, ring=ring) for part in parts), strict=True)
    for server, half in zip(servers, halves, strict=True):
        server.send(kind, *half)


def masked_matmul(
    link: Link, e: np.ndarray, a: np.ndarray, y: np.ndarray, b: np.ndarray, c: np.ndarray, *, places: int = 0
) -> np.ndarray:
    r"""A party's share of X y where $E = X - A$ is open already: $z_i = c_i + E b_i + a_i f + [i = 0] E f$.

    One exchange, of $f = y - b$ alone.

    Args:
        link: of a party; it needs no triples.
        e: E, known to both, `(..., M, K)`.
        a: its share of A, like e.
        y: its share of the other factor, `(..., K, N)`.
        b: its share of a fresh mask, like y; for this product alone.
        c: its share of A b, `(..., M, N)`.
        places: binary places to take off the product.
    Returns:
        its share of the product, like c.
    Raises:
        ValueError: names the argument.
        ProtocolError: the other party broke the protocol.
    Reference: Mohassel and Zhang 2017, "SecureML", IACR 2017/396, section 4.1; Beaver 1991, "Efficient multiparty
        protocols using circuit randomization".
    Survey: private AI, cryptography, multi-party computation.

    >>> from functools import partial
    >>> from spai_lab.crypto.parties import run_parties
    >>> e, zero, one = (np.full((1, 1), k, np.uint64) for k in (5, 0, 1))  # X = 5 + 1, as a is 0 and 1
    >>> halves = [(e, zero, e, zero, zero), (e, one, zero, one, one)]  # y = 5 + 0, b = 1, c = A b = 1
    >>> def party(channel, number):
    ...     return masked_matmul(Link(channel, number), *halves[number])
    >>> z = run_parties(partial(party, number=0), partial(party, number=1))
    >>> int((z[0] + z[1])[0, 0])
    30
    """
    ring = link.ring
    for name, value, shape in (("e", e, None), ("a", a, e.shape), ("y", y, None), ("b", b, y.shape), ("c", c, None)):
        check_elements(name, value, ring, shape)
    (f,) = open_shares(link, ring.reduce(y - b))
    right = ring.reduce(b + f) if link.party == 0 else b  # E (b + f) has E f in it
    z = ring.reduce(c + ring.matmul(e, right) + ring.matmul(a, f))
    return truncate(z, places, party=link.party, ring=ring) if places else z

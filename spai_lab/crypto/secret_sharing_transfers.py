r"""Triples from oblivious transfer: no third party, and no encryption but 128 transfers on a curve a product.

With $a = a_0 + a_1$ and $b = b_0 + b_1$, each party multiplies its own two numbers. Of the two cross terms, each has
one factor here and one there: `spai_lab.crypto.oblivious_transfer_products` shares out such products, 1,536 bytes each.
A matrix product `(M, K)` by `(K, N)` takes 2 M K N of them.
"""

from collections.abc import Sequence

import numpy as np

from spai_lab.crypto.channel import Channel
from spai_lab.crypto.oblivious_transfer_products import product_shares_receiver, product_shares_sender
from spai_lab.crypto.paillier_keys import check_whole
from spai_lab.crypto.secret_sharing_dealers import factor_places
from spai_lab.crypto.secret_sharing_ring import RING
from spai_lab.crypto.secret_sharing_triples import Request, Source, Triple, check_requests, stock

PRODUCTS = 2**16  # at a time, 32 MiB


def transfer_triples(channel: Channel, requests: Sequence[Request], *, party: int) -> Source:
    r"""Make triples with the other party by oblivious transfer, modulo $2^{64}$; with `paillier_triples` to compare.

    Args:
        channel: to the other party, who calls this too.
        requests: for which products, in order; public.
        party: 0 or 1, each once.
    Returns:
        a source, for `Link`.
    Raises:
        ValueError: names the argument.
        ProtocolError: the other party broke the protocol.
        TimeoutError: it stalled longer than the channel's `timeout`.
    Reference: Gilboa 1999, "Two party RSA key generation"; Mohassel and Zhang 2017, "SecureML", IACR 2017/396, OT-based
        offline protocol.
    Survey: private AI, cryptography, multi-party computation.
    Simplified: each product of two entries by itself, where SecureML transfers a row of a matrix for each bit at once.

    >>> from functools import partial
    >>> from spai_lab.crypto.parties import run_parties
    >>> requests = [Request("matmul", (1, 2), (2, 1))]
    >>> make = partial(transfer_triples, requests=requests)
    >>> one, other = (source(requests[0]) for source in run_parties(partial(make, party=0), partial(make, party=1)))
    >>> np.array_equal(one.c + other.c, (one.a + other.a) @ (one.b + other.b))
    True
    """
    check_requests(requests)
    check_whole("party", party, 0, 1)
    return stock([transfer_triple(channel, request, party) for request in requests])


def transfer_triple(channel: Channel, request: Request, party: int) -> Triple:
    """One triple; as `transfer_triples`."""
    a, b = RING.draw(request.x), RING.draw(request.y)
    x, y = factor_places(request)
    c = request.product(a, b, RING)
    for sender in (0, 1):  # first a of party 0 by b of party 1, then the other way round
        own = a.ravel()[x] if party == sender else b.ravel()[y]
        shares = product_shares_sender if party == sender else product_shares_receiver
        parts = [shares(channel, part) for part in pieces(own.ravel())]
        c = c + np.concatenate(parts).reshape(x.shape).sum(1, dtype=np.uint64).reshape(request.z)
    return Triple(request, a, b, c)


def pieces(values: np.ndarray) -> list[np.ndarray]:
    """Values cut into runs that are not too long for a frame."""
    return [values[start : start + PRODUCTS] for start in range(0, len(values), PRODUCTS)]

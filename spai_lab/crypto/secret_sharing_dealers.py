r"""Where triples come from: a third party that deals them, or the two parties themselves, under Paillier encryption.

| source | who must be trusted | what `(M, K)` by `(K, N)` costs |
|---|---|---|
| `dealer`, `receive_triples` | a third party that tells neither about the other | 8 (M K + K N + M N) bytes to each |
| `paillier_triples` | nobody else; and Paillier's scheme | each M K + M N encryptions, M K N powers of 64 bits |

Both come before the online phase, and return a source for `spai_lab.crypto.secret_sharing_parties.Link`. Whatever else
makes triples, by oblivious transfer for one, only has to return such a source.
"""

import math
import secrets
from collections.abc import Sequence

import numpy as np

from spai_lab.crypto.channel import Channel
from spai_lab.crypto.paillier import rerandomize
from spai_lab.crypto.paillier_keys import (
    PublicKey,
    SecretKey,
    check_key,
    key_from_bytes,
    key_to_bytes,
)
from spai_lab.crypto.paillier_linear import encrypted_dot
from spai_lab.crypto.paillier_numbers import FixedPoint, check_fits
from spai_lab.crypto.paillier_vectors import (
    EncryptedVector,
    decrypt_ks,
    encrypt_vector,
    vector_from_bytes,
    vector_to_bytes,
)
from spai_lab.crypto.secret_sharing_parties import receive_elements
from spai_lab.crypto.secret_sharing_ring import RING, Ring, check_ring
from spai_lab.crypto.secret_sharing_triples import Request, Source, Triple, check_requests, deal_triple, stock

STATISTICAL = 128  # bits by which a mask is longer than what it hides

# --- a third party ----------------------------------------------------------------------------------------------------


def dealer(first: Channel, second: Channel, requests: Sequence[Request], *, ring: Ring = RING) -> None:
    r"""Deal triples to two parties, and learn nothing of what they compute but its shapes.

    Args:
        first, second: channels to party 0 and party 1.
        requests: for which products, in order; public.
        ring: the ring.
    Raises:
        ValueError: names the argument.
        ProtocolError: a party has left.
    Reference: Beaver 1991, "Efficient multiparty protocols using circuit randomization", section 2.
    Survey: private AI, cryptography, multi-party computation.
    Simplified: trusted: one that talks to a party gives away the other one's numbers, and wrong triples give wrong
        results that nobody notices.

    >>> from functools import partial
    >>> from spai_lab.crypto.parties import run_parties
    >>> requests = [Request("multiply", (2,), (2,))]
    >>> party = partial(receive_triples, requests=requests)
    >>> dealt = run_parties(partial(dealer, requests=requests), party, party, topology="star")
    >>> one, other = (source(requests[0]) for source in dealt[1:])
    >>> np.array_equal(one.c + other.c, (one.a + other.a) * (one.b + other.b))
    True
    """
    check_requests(requests)
    for request in requests:
        for channel, triple in zip((first, second), deal_triple(request, ring=ring), strict=True):
            channel.send("triple", triple.a, triple.b, triple.c)


def receive_triples(channel: Channel, requests: Sequence[Request], *, ring: Ring = RING) -> Source:
    """A party's half of what a `dealer` deals.

    Args:
        channel: to the dealer.
        requests: for which products, in order, as the dealer has them.
        ring: the ring.
    Returns:
        a source, for `Link`.
    Raises:
        ValueError: names the argument.
        ProtocolError: the dealer broke the protocol.
    """
    check_requests(requests)
    check_ring(ring)
    dealt = (receive_elements(channel, "triple", [r.x, r.y, r.z], ring) for r in requests)
    return stock([Triple(request, *parts) for request, parts in zip(requests, dealt, strict=True)])


# --- the two parties themselves ---------------------------------------------------------------------------------------


def paillier_triples(
    channel: Channel, requests: Sequence[Request], key: SecretKey, *, ring: Ring = RING, for_learning: bool = False
) -> Source:
    r"""Make triples with the other party, without a third one: $c = (a_0 + a_1)(b_0 + b_1)$ under encryption.

    Each party draws its $a_i$ and $b_i$ and multiplies them by itself. The cross terms take the other one: party i
    sends $E_i(a_i)$ and gets $E_i(a_i b_j + r)$ back, decrypts, and keeps that modulo $2^l$; party j keeps $-r$. The
    mask r is drawn from $[0, 2^{B + 128})$ where $a_i b_j < 2^B$: party i sees a number whose distribution differs by
    at most $2^{-128}$ between one b and another. Two exchanges a triple, after one of keys.

    Args:
        channel: to the other party, who calls this too.
        requests: for which products, in order; public.
        key: one's own secret key, which stays here; each party has another one.
        ring: the ring.
        for_learning: accept a key of the other party that is too small for secrets. Even with a small ring, n takes
            2 l + 130 bits and some, so as not to wrap around.
    Returns:
        a source, for `Link`.
    Raises:
        ValueError: names the argument, or what is wrong with a message.
        ProtocolError: the other party broke the protocol.
    Reference: Mohassel and Zhang 2017, "SecureML", IACR 2017/396, LHE-based offline protocol; Beaver 1991, "Efficient
        multiparty protocols using circuit randomization", for what they are for.
    Survey: private AI, cryptography, multi-party computation.
    Simplified: a number a ciphertext, where several products would fit; a is encrypted even where b is smaller.

    >>> from functools import partial
    >>> from spai_lab.crypto.paillier_keys import generate_key
    >>> from spai_lab.crypto.parties import run_parties
    >>> request = Request("matmul", (1, 2), (2, 1))
    >>> make = partial(paillier_triples, requests=[request], for_learning=True)
    >>> keys = [generate_key(288, for_learning=True) for _ in range(2)]
    >>> one, other = (source(request) for source in run_parties(*(partial(make, key=key) for key in keys)))
    >>> np.array_equal(one.c + other.c, (one.a + other.a) @ (one.b + other.b))
    True
    """
    check_requests(requests)
    check_ring(ring)
    check_key("key", key, SecretKey)
    for request in requests:
        check_fits("key", product_format(request, ring), key.public)
    channel.send("key", key_to_bytes(key.public))
    other = key_from_bytes(*channel.receive("key", bytes), for_learning=for_learning)
    return stock([paillier_triple(channel, request, key, other, ring) for request in requests])


def paillier_triple(channel: Channel, request: Request, key: SecretKey, other: PublicKey, ring: Ring) -> Triple:
    """One triple; as `paillier_triples`."""
    a, b = ring.draw(request.x), ring.draw(request.y)
    inputs, outputs = FixedPoint(0, ring.modulus - 1), product_format(request, ring)
    channel.send("factors", vector_to_bytes(key.public, encrypt_vector(key, a.ravel(), inputs)))
    factors = vector_from_bytes(other, *channel.receive("factors", bytes), size=a.size, fmt=inputs)
    products, masks = masked_products(request, other, factors, b, ring)
    channel.send("products", vector_to_bytes(other, products))
    answer = vector_from_bytes(key.public, *channel.receive("products", bytes), size=len(masks), fmt=outputs)
    cross = np.array([k % ring.modulus for k in decrypt_ks(key, answer)], dtype=np.uint64)
    c = request.product(a, b, ring) + (cross - masks).reshape(request.z)
    return Triple(request, a, b, ring.reduce(c))


def masked_products(
    request: Request, public: PublicKey, factors: EncryptedVector, b: np.ndarray, ring: Ring
) -> tuple[EncryptedVector, np.ndarray]:
    """The product of encrypted numbers and b, hidden by masks; and the masks, uint64, modulo $2^l$."""
    fmt, values, masks = product_format(request, ring), [], []
    check_fits("key", fmt, public)
    for x, y in zip(*factor_places(request), strict=True):
        r = secrets.randbits(product_bits(request, ring) + STATISTICAL)
        c = encrypted_dot(public, b.ravel()[y].tolist(), r, [factors.values[i] for i in x])
        values.append(rerandomize(public, c))
        masks.append(r % ring.modulus)
    return EncryptedVector(tuple(values), fmt), np.array(masks, dtype=np.uint64)


def factor_places(request: Request) -> tuple[np.ndarray, np.ndarray]:
    """For each entry of a product, in order, which entries of x and of y it multiplies, two arrays `(entries, terms)`.

    >>> [places.tolist() for places in factor_places(Request("matmul", (1, 2), (2, 2)))]
    [[[0, 1], [0, 1]], [[0, 2], [1, 3]]]
    """
    x, y = (np.arange(math.prod(shape)).reshape(shape) for shape in (request.x, request.y))
    if request.kind == "matmul":
        x, y = np.broadcast_arrays(x[..., :, None, :], y.swapaxes(-1, -2)[..., None, :, :])
    return x.reshape(-1, request.terms), y.reshape(-1, request.terms)


def product_bits(request: Request, ring: Ring) -> int:
    """B, the bits of the largest sum of products."""
    return (request.terms * (ring.modulus - 1) ** 2).bit_length()


def product_format(request: Request, ring: Ring) -> FixedPoint:
    """The format of a masked product: mask and sum fit one bit more than the mask."""
    return FixedPoint(0, 2 ** (product_bits(request, ring) + STATISTICAL + 1) - 1)

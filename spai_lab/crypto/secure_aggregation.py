r"""Secure aggregation: a server learns the sum of its clients' vectors, and no vector, though clients drop out.

Any two clients u < v agree on a secret mask. One adds it, the other subtracts it, so that all these masks cancel in the
sum. A mask of a client that has left cancels nothing: the others then help the server to compute it. Since it might
only have been late, each adds a mask of its own too, which the others help to take off once the client is known to be
in the sum. Of each client they help with one of the two, never with both:

$y_u = x_u + \mathrm{PRG}(b_u) + \sum_{v > u} \mathrm{PRG}(s_{uv}) - \sum_{v < u} \mathrm{PRG}(s_{uv}) \bmod 2^l$

| module | what it holds |
|---|---|
| this one | what all agree on; masks, put on and taken off |
| `secure_aggregation_keys` | where $s_{uv}$ comes from; shares of secrets, sealed for their receivers |
| `secure_aggregation_parties` | server and clients, in four steps |
| `secure_aggregation_messages`, `_rollcall`, `_unmasking` | what is accepted, who has left, how the sum is opened |
| `spai_lab.training.secure_federated` | federated averaging through it |

**Which model holds.** Semi-honest: server and up to t - 1 clients who put together all they saw learn the sum of the
others who are in it, and nothing else, as long as X25519, the hash, the cipher and SHAKE-256 are what they should be. A
server may also lie about who has left, to each client another story, and gets both secrets of nobody as long as $2 t >
n + c$, where c clients help it: each other client answers once, and about each client with one share. But it may open a
smaller sum than any client was told: of 5 clients with t = 3 the sum of two. Bonawitz et al. prevent that by signing
who is in the sum (their round 3), which is left out. And it may not exchange public keys: nothing binds a key to its
owner, so that a server that hands out its own keys reads all inputs.

**What nobody can check.** A client may send any vector as its masked input. A sum beyond what the clients can reach is
refused, so that noise is found out if the agreed bound is well below its default; a wrong input within it is not.

For learning, not for secrets: nothing takes constant time, and secrets stay in memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b, shake_256

import numpy as np

from spai_lab.checks import check_count
from spai_lab.crypto.paillier_keys import check_whole
from spai_lab.crypto.secret_sharing_ring import RING, Ring, check_elements, check_ring, to_signed

SEED = 32  # bytes of each seed and key
MOST_CLIENTS = 1000  # the mail of so many is 168 MB
WORD = 8  # bytes from the generator for one element


@dataclass(frozen=True)
class Terms:
    r"""What server and clients agree on before a round; public.

    Args:
        clients: n, from 2 to 1,000, numbered from 0. The sum of two tells each the other one's.
        threshold: t, how many must stay until the end: above n / 2, at most n, and at least 2.
        size: D, the length of each vector.
        largest: the largest |entry| of an input, as a whole number; None takes the most that n clients may have. Sums
            do not wrap around: $n \cdot \mathrm{largest} < 2^{l-1}$.
        round: the number of the round, from 0 to $2^{63} - 1$; each has masks of its own.
        ring: the ring.
    Raises:
        ValueError: names the argument.
    Reference: Bonawitz et al. 2017, "Practical secure aggregation for privacy-preserving machine learning", IACR
        2017/281, sections 4 and 6; t above n / 2 for a server that may tell several stories.
    Survey: private AI, cryptography, multi-party computation.

    >>> Terms(clients=4, threshold=2, size=10)
    Traceback (most recent call last):
    ValueError: threshold is 2; accepted: a whole number from 3 to 4
    >>> Terms(clients=4, threshold=3, size=10, largest=2**61)
    Traceback (most recent call last):
    ValueError: largest is 2305843009213693952; accepted: from 0 to 2305843009213693951, so that the sum of 4 stays
    below 2^63
    """

    clients: int
    threshold: int
    size: int
    largest: int | None = None
    round: int = 0
    ring: Ring = RING

    def __post_init__(self) -> None:
        n = check_whole("clients", self.clients, 2, MOST_CLIENTS)
        check_ring(self.ring)
        check_count("size", self.size)
        ranges = {"clients": n, "size": int(self.size)}
        ranges["threshold"] = check_whole("threshold", self.threshold, n // 2 + 1, n)
        ranges["largest"] = check_bound(
            largest_entry(n, self.ring) if self.largest is None else self.largest, n, self.ring
        )
        ranges["round"] = check_whole("round", self.round, 0, 2**63 - 1)
        for name, value in ranges.items():
            object.__setattr__(self, name, value)

    @property
    def digest(self) -> bytes:
        """32 bytes that stand for all of this; they are in every hash, so that nothing serves in two rounds."""
        numbers = (self.clients, self.threshold, self.size, self.largest, self.round, self.ring.bits)
        return blake2b(" ".join(map(str, numbers)).encode(), digest_size=SEED, person=b"spai-lab terms 1").digest()


def expand(seed: bytes, size: int, *, ring: Ring = RING) -> np.ndarray:
    r"""$\mathrm{PRG}$: a seed as a mask, the first $8 D$ bytes of SHAKE-256 as elements.

    Args:
        seed: 32 bytes.
        size: D.
        ring: the ring.
    Returns:
        uint64 `(D,)`, which nobody without the seed tells from uniform elements.
    Raises:
        ValueError: names the argument.
    Reference: Bonawitz et al. 2017, IACR 2017/281, section 3.4; SHAKE-256: FIPS 202. The paper takes AES in counter
        mode.
    Survey: private AI, cryptography, multi-party computation.

    >>> expand(bytes(32), 2).tobytes().hex()
    'f5977c8283546a63723bc31d2619124f'
    """
    check_secret("seed", seed)
    check_count("size", size)
    check_ring(ring)
    words = np.frombuffer(shake_256(seed).digest(WORD * int(size)), dtype="<u8")
    return ring.reduce(words.astype(np.uint64))


def pairwise_mask(number: int, other: int, seed: bytes, size: int, *, ring: Ring = RING) -> np.ndarray:
    """What client `number` adds for client `other`: the mask of their seed if it is the first of the two, or minus it.

    >>> one, two = (pairwise_mask(*pair, bytes(32), 3) for pair in ((0, 1), (1, 0)))
    >>> (one + two).tolist()
    [0, 0, 0]
    """
    mask = expand(seed, size, ring=ring)
    return mask if number < other else ring.reduce(-mask)


def mask_input(
    x: np.ndarray, number: int, seed: bytes, pair_seeds: Mapping[int, bytes], *, ring: Ring = RING
) -> np.ndarray:
    r"""Hide a vector behind masks, of its own and of each pair.

    $y_u = x_u + \mathrm{PRG}(b_u) + \sum_{v>u} \mathrm{PRG}(s_{uv}) - \sum_{v<u} \mathrm{PRG}(s_{uv}) \bmod 2^l$

    Args:
        x: elements `(D,)`, as of `encode`.
        number: u.
        seed: $b_u$, 32 bytes that are used once.
        pair_seeds: $s_{uv}$ by v, 32 bytes each, of all clients whose masks are to cancel with those of u.
        ring: the ring.
    Returns:
        uint64 `(D,)`.
    Raises:
        ValueError: names the argument.
    Reference: Bonawitz et al. 2017, IACR 2017/281, section 4.2 and figure 4, round 2.
    Survey: private AI, cryptography, multi-party computation.

    >>> from spai_lab.crypto.secret_sharing_ring import to_ring
    >>> x = {0: to_ring([1, 2]), 1: to_ring([10, 20])}
    >>> seeds, pair = {u: bytes([u]) * 32 for u in x}, b"p" * 32
    >>> masked = {u: mask_input(x[u], u, seeds[u], {1 - u: pair}) for u in x}
    >>> unmask(masked, seeds, {}).tolist()
    [11, 22]
    """
    check_vector("x", x, ring)
    check_secret("seed", seed)
    masks = (pairwise_mask(number, other, pair, len(x), ring=ring) for other, pair in pair_seeds.items())
    return ring.reduce(sum(masks, x + expand(seed, len(x), ring=ring)))


def unmask(
    masked: Mapping[int, np.ndarray],
    seeds: Mapping[int, bytes],
    lost: Mapping[int, Mapping[int, bytes]],
    *,
    ring: Ring = RING,
) -> np.ndarray:
    r"""Take the masks off a sum: those of the clients in it, and what is left of pairs of which one client has gone.

    $\sum_{u \in U} x_u = \sum_{u \in U} y_u - \sum_{u \in U} \mathrm{PRG}(b_u)
    - \sum_{v \notin U} \sum_{u \in U} \pm \mathrm{PRG}(s_{uv})$, with plus where u < v.

    Args:
        masked: $y_u$ by u, for u in U, uint64 `(D,)` each, at least one.
        seeds: $b_u$ by u, of the same clients.
        lost: by v, of each client that has left after the others had agreed on masks with it: $s_{uv}$ by u in U.
        ring: the ring.
    Returns:
        the sum, uint64 `(D,)`.
    Raises:
        ValueError: names the argument.
    Reference: Bonawitz et al. 2017, IACR 2017/281, section 4.2 and figure 4, round 4.
    Survey: private AI, cryptography, multi-party computation.
    """
    if not masked or masked.keys() != seeds.keys() or any(pairs.keys() != masked.keys() for pairs in lost.values()):
        raise ValueError("seeds or lost name other clients than masked; accepted: the same in all, at least one")
    size = len(next(iter(masked.values())))
    for y in masked.values():
        check_vector("masked", y, ring, size)
    total = sum(masked.values(), np.zeros(size, np.uint64))
    for seed in seeds.values():
        total -= expand(seed, size, ring=ring)
    for gone, pairs in lost.items():
        for number, pair in pairs.items():
            total -= pairwise_mask(number, gone, pair, size, ring=ring)
    return ring.reduce(total)


# --- checks -----------------------------------------------------------------------------------------------------------


def largest_entry(clients: int, ring: Ring) -> int:
    """The largest |entry| of which a sum of so many does not wrap around.

    >>> largest_entry(3, Ring(8))  # 3 * 42 = 126, below 128
    42
    """
    return (ring.modulus // 2 - 1) // clients


def check_bound(largest: int, clients: int, ring: Ring) -> int:
    """The bound as an int, or `ValueError` if sums might wrap around."""
    check_count("largest", largest, low=0)
    if largest > (most := largest_entry(clients, ring)):
        raise ValueError(
            f"largest is {largest}; accepted: from 0 to {most}, so that the sum of {clients} stays below "
            f"2^{ring.bits - 1}"
        )
    return int(largest)


def check_input(x: np.ndarray, terms: Terms) -> None:
    """Raise `ValueError` unless this vector is as agreed, so that the sum of all cannot wrap around.

    >>> check_input(np.full(3, 5, np.uint64), Terms(clients=3, threshold=2, size=3, largest=4))
    Traceback (most recent call last):
    ValueError: x has an entry beyond the agreed bound; accepted: from -4 to 4, so that the sum of 3 does not
    wrap around
    """
    check_vector("x", x, terms.ring, terms.size)
    if not within_bounds(x, terms, 1):
        raise ValueError(
            f"x has an entry beyond the agreed bound; accepted: from -{terms.largest} to {terms.largest}, so that the "
            f"sum of {terms.clients} does not wrap around"
        )


def within_bounds(x: np.ndarray, terms: Terms, count: int) -> bool:
    """Whether the sum of so many inputs can be this."""
    signed = to_signed(x, terms.ring)
    return -count * terms.largest <= int(signed.min()) and int(signed.max()) <= count * terms.largest


def check_vector(name: str, x: np.ndarray, ring: Ring, size: int | None = None) -> None:
    """Raise `ValueError` unless this is a vector of elements, of this length where one is named."""
    check_elements(name, x, ring, None if size is None else (size,))
    if x.ndim != 1:
        raise ValueError(f"{name} is uint64 of shape {x.shape}; accepted: a vector, uint64 (D,)")


def check_secret(name: str, value: bytes, size: int = SEED) -> None:
    """Raise `ValueError` unless these are so many bytes; they are not shown."""
    if not isinstance(value, bytes) or len(value) != size:
        raise ValueError(f"{name} is a {type(value).__name__} that is not shown; accepted: {size} bytes")


def check_terms(terms: Terms) -> None:
    """Raise `ValueError` unless these are `Terms`."""
    if not isinstance(terms, Terms):
        raise ValueError(f"terms is a {type(terms).__name__}; accepted: Terms")

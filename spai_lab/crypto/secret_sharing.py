r"""Secret sharing: a number in random pieces, of which all together tell it and fewer tell nothing.

| module | what it holds |
|---|---|
| `secret_sharing_ring` | the numbers: modulo $2^l$, fixed point |
| this one | additive shares: all n are needed; truncation between two parties |
| `secret_sharing_shamir` | shares of which any t are enough |
| `secret_sharing_triples` | what a product costs: random triples, made before |
| `secret_sharing_parties` | two parties who share, open, add, multiply |
| `secret_sharing_dealers` | where triples come from: a third party, or Paillier encryption between the two |

Additive: $x = \sum_i x_i \bmod 2^l$. All shares but the last are drawn; the last one is what is missing. Any n - 1 of
them are uniform for every x: whoever lacks one knows nothing, with whatever computer. The tests count that out over
small rings. Shares of sums are sums of shares, so adding needs no message.

**For learning, not for secrets.** Parties follow the protocol (semi-honest), and two who must not talk do not talk.
Shares are not authenticated: who changes a share by 1 changes the number by 1, and nobody sees it.
"""

from collections.abc import Sequence

import numpy as np

from spai_lab.checks import check_count, check_number, describe
from spai_lab.crypto.paillier_keys import check_whole
from spai_lab.crypto.secret_sharing_ring import RING, Ring, check_elements, check_places, check_ring


def share(x: np.ndarray, *, parties: int = 2, ring: Ring = RING) -> tuple[np.ndarray, ...]:
    r"""Cut numbers into shares: $x_1, \dots, x_{n-1}$ uniform, $x_n = x - \sum_{i<n} x_i \bmod 2^l$.

    Args:
        x: elements, uint64 of any shape, as of `to_ring` or `encode`.
        parties: n, at least 2.
        ring: the ring.
    Returns:
        n arrays like x, one for each party.
    Raises:
        ValueError: names the argument.
    Reference: Mohassel and Zhang 2017, "SecureML", IACR 2017/396, for two parties; Ito, Saito and Nishizeki
        1987, "Secret sharing scheme realizing general access structure", for sums.
    Survey: private AI, cryptography, multi-party computation.

    >>> from spai_lab.crypto.secret_sharing_ring import to_ring
    >>> shares = share(to_ring([5, 7]), parties=3)
    >>> len(shares), reconstruct(shares).tolist()
    (3, [5, 7])
    """
    check_elements("x", x, ring)
    check_count("parties", parties, low=2)
    shares = [ring.draw(x.shape) for _ in range(parties - 1)]
    return (*shares, ring.reduce(x - sum(shares[1:], shares[0])))


def reconstruct(shares: Sequence[np.ndarray], *, ring: Ring = RING) -> np.ndarray:
    r"""The numbers behind all shares: $\sum_i x_i \bmod 2^l$.

    Args:
        shares: all n of them, of one shape. One that is missing leaves noise, which cannot be told from a number.
        ring: the ring.
    Returns:
        uint64, like each share; `to_signed` or `decode` read it.
    Raises:
        ValueError: names the argument.
    Reference: Mohassel and Zhang 2017, "SecureML", IACR 2017/396.
    Survey: private AI, cryptography, multi-party computation.

    >>> reconstruct([np.array([6], dtype=np.uint64), np.array([7], dtype=np.uint64)], ring=Ring(3)).tolist()
    [5]
    """
    if not isinstance(shares, list | tuple) or len(shares) < 2:
        raise ValueError(f"shares is {describe(shares)}; accepted: a list of all shares, at least 2")
    for each in shares:
        check_elements("shares", each, ring, getattr(shares[0], "shape", None))
    return ring.reduce(sum(shares[1:], shares[0]))


# --- truncation -------------------------------------------------------------------------------------------------------


def truncate(x: np.ndarray, places: int, *, party: int, ring: Ring = RING) -> np.ndarray:
    r"""Take f binary places off a number that two parties share, each on its own, without a message.

    Party 0 computes $\lfloor x_0 / 2^f \rfloor$, party 1 $-\lfloor (-x_1 \bmod 2^l) / 2^f \rfloor$. Why that works: let
    $x \ge 0$. Then $-x_1 = x_0 - x$, and unless this wraps around, the sum is

    $\lfloor x_0 / 2^f \rfloor - \lfloor (x_0 - x) / 2^f \rfloor$, which is $x / 2^f$ rounded down or up:

    less than one unit in the last place away, and right on average. It wraps around if and only if $x_0 < x$, of which
    the probability is $x / 2^l$, as $x_0$ is uniform; then the result is off by $2^{l-f}$ more, which is anything but
    close. For $x < 0$ it is the same with $-x$, and the wrong way round. So the error is below one unit in the last
    place except with probability $|x| / 2^l$ exactly (`truncation_failure`).

    Args:
        x: a party's share of numbers, uint64; shares that are uniform, as those of `share`, sums and products.
        places: f, from 0 to l - 1.
        party: 0 or 1.
        ring: the ring.
    Returns:
        its share of the numbers divided by $2^f$, like x.
    Raises:
        ValueError: names the argument.
    Reference: Mohassel and Zhang 2017, "SecureML", IACR 2017/396, theorem 1, which has the bound
        $2^{l_x + 1 - l}$ for $|x| < 2^{l_x}$, twice of what is counted here.
    Survey: private AI, cryptography, multi-party computation.
    Simplified: two parties. For three it is wrong about every second time, and takes a protocol.

    >>> shares = [np.array([100], dtype=np.uint64), np.array([256 - 100 + 20], dtype=np.uint64)]  # 20, modulo 2^8
    >>> halves = [truncate(each, 2, party=i, ring=Ring(8)) for i, each in enumerate(shares)]
    >>> reconstruct(halves, ring=Ring(8)).tolist()
    [5]
    """
    check_elements("x", x, ring)
    check_places(places, ring)
    check_whole("party", party, 0, 1)
    f = np.uint64(places)
    return x >> f if party == 0 else ring.reduce(-(ring.reduce(-x) >> f))


def truncation_failure(largest: float, *, count: int = 1, ring: Ring = RING) -> float:
    r"""How likely a truncation goes wrong: at most $n \, |x| / 2^l$ for n numbers; exactly this for a single one.

    Args:
        largest: $|x|$, a whole number of units of the last place before truncation; of several the largest, or their
            mean. A product of v and w with f places each has $|v w| \, 2^{2 f}$.
        count: n.
        ring: the ring.
    Returns:
        a probability.
    Raises:
        ValueError: names the argument.
    Reference: Mohassel and Zhang 2017, "SecureML", IACR 2017/396, theorem 1.

    >>> truncation_failure(16 * 2**26) == 2**-34  # products up to 16, with 13 places each
    True
    """
    check_ring(ring)
    check_number("largest", largest, low=0, high=ring.modulus / 2)
    check_count("count", count)
    return min(1.0, int(count) * float(largest) / ring.modulus)

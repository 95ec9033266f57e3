r"""The parameters of `spai_lab.crypto.rlwe`: secure by the standard's table, with room for sums and for a flood.

| | N = 4,096 | N = 8,192 |
|---|---|---|
| bits of q, and of what the table allows for 128-bit security | 109 of 109 | 150 of 218 |
| room for noise, $q / 2 t$, with $t = 2^{24}$ | nearly $2^{84}$ | nearly $2^{125}$ |

Schemes with the same N and another t have the same q, so that one key serves for all of them: t is no part of it.
"""

import math
from dataclasses import dataclass

from spai_lab.checks import check_flag
from spai_lab.crypto.ckks_context import SECURE_BITS
from spai_lab.crypto.ntt import check_degree, ntt_primes
from spai_lab.crypto.paillier_keys import check_whole
from spai_lab.crypto.rns import Primes
from spai_lab.crypto.secret_sharing_ring import Ring

CHAINS = {4096: (28, 27, 27, 27), 8192: (30, 30, 30, 30, 30)}  # bits of the primes of q
MOST_BITS = 60  # of a message, so that it fits int64 with room
HIDING = 40  # a flood hides what is there to a statistical distance of 2^-40


class NoiseTooLarge(ValueError):
    """The noise that a ciphertext may have is more than decryption, or a flood, can bear."""


@dataclass(frozen=True)
class Scheme:
    """Parameters that both parties share; `rlwe_scheme` makes and checks them.

    Args:
        degree: N.
        primes: of q.
        bits: l; messages are modulo $2^l$.
    """

    degree: int
    primes: Primes
    bits: int

    @property
    def q(self) -> int:
        """The modulus of ciphertexts."""
        return math.prod(self.primes)

    @property
    def ring(self) -> Ring:
        """Of a message's coefficients."""
        return Ring(self.bits)

    @property
    def room(self) -> int:
        r"""$\lfloor q / 2 t \rfloor$: noise up to here is rounded away."""
        return self.q // (2 * self.ring.modulus)

    @property
    def flood_bits(self) -> int:
        r"""k, the largest with $2^k$ within the room; a flood has $2^k$ values."""
        return self.room.bit_length() - 1

    @property
    def flooded(self) -> int:
        """The bound after a flood, the same for all ciphertexts."""
        return 2 ** (self.flood_bits - 1) + (2**self.flood_bits >> HIDING) // self.degree

    @property
    def secure(self) -> bool:
        """Whether the standard's table promises 128 bits."""
        return self.q.bit_length() <= SECURE_BITS.get(self.degree, 0)


def rlwe_scheme(bits: int, *, degree: int = 4096, insecure: bool = False) -> Scheme:
    r"""Parameters with 128-bit security: N = 4,096 and q of 109 bits, or N = 8,192 and q of 150.

    Args:
        bits: l, from 1 to 60; of N = 4,096, some 30 leave room for sums and a flood.
        degree: N, 4,096 or 8,192; also less, from 8, if `insecure`.
        insecure: skip the security table, for toys.
    Returns:
        the parameters.
    Raises:
        ValueError: names the argument.
    Reference: Fan and Vercauteren 2012, "Somewhat practical fully homomorphic encryption", IACR 2012/144; Brakerski
        2012, IACR 2012/078; Albrecht et al. 2018, "Homomorphic encryption security standard", table 1.
    Survey: private AI, cryptography, multi-party computation.
    Simplified: no products of two ciphertexts, no rotations. "128-bit" is the table's column of 2018 for classical
        computers, as in `spai_lab.crypto.ckks_context`.

    >>> scheme = rlwe_scheme(24)
    >>> scheme.q.bit_length(), scheme.flood_bits, scheme.secure
    (109, 83, True)
    """
    check_flag("insecure", insecure)
    check_whole("bits", bits, 1, MOST_BITS)
    check_degree(degree)
    if degree not in CHAINS and not (insecure and degree < min(CHAINS)):
        raise ValueError(f"degree is {degree}; accepted: 4,096 or 8,192, or a toy below with insecure=True")
    sizes = CHAINS.get(degree, CHAINS[4096])
    pools = {size: iter(ntt_primes(size, sizes.count(size), degree)) for size in sizes}
    scheme = Scheme(int(degree), tuple(next(pools[size]) for size in sizes), int(bits))
    if not insecure and not scheme.secure:
        raise ValueError(f"degree is {degree}; accepted: one for which the table allows {scheme.q.bit_length()} bits")
    return scheme

r"""What a ciphertext tells besides its message, and how that is hidden before it goes back to who has the secret.

Whoever computes on ciphertexts with weights of its own gives two things away. Its $c_1$ is $c_1 w$, and who knows the
old $c_1$ divides by it: there are the weights. And the noise of the result is w times noise that the other party knows.

So a fresh encryption of 0 is added, under the client's public key $(e' - a s, a)$. It makes $c_1$ look uniform as long
as ring-LWE holds, to the owner of s as well, who does not know the u in it. Its noise is uniform on the $2^k$ numbers
of $[-2^{k-1}, 2^{k-1})$, with k as large as decryption allows, and drowns any other:

a uniform draw from M numbers, moved by v, differs from one that is not by $|v| / M$ in statistical distance.

| in each coefficient | at most |
|---|---|
| noise of what was computed | B, known by its bound |
| $e' u + e s$ | $2 N \cdot 19$ |
| together, V | $B + 38 N$ |
| distance of all N coefficients from the flood alone | $N V / 2^k$, refused unless within $2^{-40}$ |

k depends on N, q and l, which both know, and on no weight. For learning, not for secrets.
"""

import os
from dataclasses import dataclass

import numpy as np

from spai_lab.crypto.ckks_ciphertext import check_type
from spai_lab.crypto.ckks_keys import noise, ternary
from spai_lab.crypto.ntt import forward, read_only
from spai_lab.crypto.rlwe import TAILS, Ciphertext, SecretKey, encryption_of_zero
from spai_lab.crypto.rlwe_scheme import HIDING, NoiseTooLarge, Scheme
from spai_lab.crypto.rns import column

LIMB = 16


@dataclass(frozen=True, eq=False, repr=False)
class PublicKey:
    """An encryption of 0, values `(2, L, N)`; whoever has it can flood."""

    scheme: Scheme
    key: np.ndarray

    def __post_init__(self) -> None:
        read_only(self.key)


def public_key(secret: SecretKey) -> PublicKey:
    """What `flood` needs: $(e' - a s, a)$, an encryption of 0.

    Args:
        secret: of the client.
    Returns:
        a key to give away.
    Raises:
        ValueError: names the argument.
    Reference: Fan and Vercauteren 2012, IACR 2012/144.
    Survey: private AI, cryptography, multi-party computation.

    >>> from spai_lab.crypto.rlwe import secret_key
    >>> from spai_lab.crypto.rlwe_scheme import rlwe_scheme
    >>> public_key(secret_key(rlwe_scheme(8, degree=8, insecure=True))).key.shape
    (2, 4, 8)
    """
    check_type("secret", secret, SecretKey)
    return PublicKey(secret.scheme, encryption_of_zero(secret))


def flood(public: PublicKey, c: Ciphertext) -> Ciphertext:
    r"""Hide all but the message: $(c_0 + b u + f, \; c_1 + a u + e)$, u ternary, e small, f uniform with $2^k$ values.

    Args:
        public: of the client.
        c: the ciphertext.
    Returns:
        one whose bound no longer depends on how it was made.
    Raises:
        ValueError: names the argument; `NoiseTooLarge`, the distance would exceed $2^{-40}$.
    Reference: Gentry 2009, "A fully homomorphic encryption scheme", for flooding; Juvekar, Vaikuntanathan and
        Chandrakasan 2018 (GAZELLE), arXiv 1801.05507, for its use.
    Survey: private AI, cryptography, multi-party computation.
    Simplified: the public key must be honest, which semi-honest clients' keys are.

    >>> from spai_lab.crypto.rlwe import decrypt, encrypt, secret_key
    >>> from spai_lab.crypto.rlwe_scheme import rlwe_scheme
    >>> secret = secret_key(rlwe_scheme(8, degree=8, insecure=True))
    >>> c = encrypt(secret, np.arange(8, dtype=np.uint64))
    >>> decrypt(secret, flood(public_key(secret), c)).tolist()
    [0, 1, 2, 3, 4, 5, 6, 7]
    """
    check_type("public", public, PublicKey)
    check_type("c", c, Ciphertext)
    scheme = c.scheme
    check_hidden(scheme, c.bound)
    u, e = (forward(each, scheme.primes) for each in (ternary(scheme.degree), noise((1, scheme.degree))))
    f = forward(uniform_noise(scheme), scheme.primes)
    parts = (c.parts + public.key * u + np.stack([f, e])) % column(scheme.primes)
    return Ciphertext(scheme, parts, scheme.flooded)


def check_hidden(scheme: Scheme, bound: int, name: str = "c") -> None:
    """Raise `NoiseTooLarge` unless a flood hides noise of this bound to $2^{-40}$."""
    total = bound + 2 * scheme.degree * TAILS
    if total * scheme.degree << HIDING > 2**scheme.flood_bits:
        raise NoiseTooLarge(
            f"{name} has noise up to {bound:.4g}, which a flood of {scheme.flood_bits} bits does not hide to "
            f"2^-{HIDING}; accepted: fewer bits, smaller weights, or a larger degree"
        )


def uniform_noise(scheme: Scheme) -> np.ndarray:
    """N uniform draws from $[-2^{k-1}, 2^{k-1})$, modulo each prime, `(L, N)`: 16 bits at a time."""
    k, p = scheme.flood_bits, column(scheme.primes)
    total = -(2 ** (k - 1)) % p.astype(object)
    total = np.repeat(total.astype(np.int64), scheme.degree, axis=1)
    for start in range(0, k, LIMB):
        words = np.frombuffer(os.urandom(2 * scheme.degree), dtype="<u2").astype(np.int64)
        words &= 2 ** min(LIMB, k - start) - 1
        total += words * column([pow(2, start, prime) for prime in scheme.primes])
    return total % p

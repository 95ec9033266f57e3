r"""Exact sums under a lattice: ring-LWE encryption of whole numbers modulo $2^l$, as linear layers need it.

This is the part of BFV that adds ciphertexts and multiplies them by known polynomials. A message m has N coefficients
modulo $t = 2^l$. With a secret s, ternary, and a uniform, a ciphertext is a pair with

$c_0 + c_1 s = \frac{q}{t} m + v \pmod q$, and decryption is $\lfloor \frac{t}{q} (c_0 + c_1 s) \rceil \bmod t$.

While the noise v stays below $q / 2 t$ in every coefficient, $t v / q$ is below 1/2, so that rounding gives m exactly.
The fraction $q / t$ is meant as it stands: $t$ times it is $q$, which is 0, so that products may wrap around modulo t
for free. Only $\lfloor q m / t \rceil$, which is what one can add, is off by 1/2, and that counts as noise. Taking
$\lfloor q / t \rfloor m$ instead would add $(q \bmod t)$ for every wrap.

| operation | bound on the noise, of each coefficient |
|---|---|
| `encrypt` | $B = 19 + 1/2$: noise is cut at 6 standard deviations |
| `add` | $B + B'$ |
| `add_plain` | $B + 1/2$ |
| `multiply_plain` by w | $B \sum_j \lvert w_j \rvert$ |

These bounds hold always, not just probably. They are whole numbers here, rounded up. `decrypt` refuses a ciphertext
whose bound is too large, by `NoiseTooLarge`. A ciphertext that was computed on tells who has the secret more than m:
before it goes back, `spai_lab.crypto.rlwe_flooding` hides the rest.

For learning, not for secrets: randomness comes from the operating system, but nothing takes constant time.
"""

from dataclasses import dataclass

import numpy as np

from spai_lab.checks import describe_kind
from spai_lab.crypto.ckks_ciphertext import check_type
from spai_lab.crypto.ckks_keys import TAIL, noise, ternary, uniform_polynomial
from spai_lab.crypto.ckks_noise import SIGMA
from spai_lab.crypto.ntt import forward, inverse, read_only
from spai_lab.crypto.rlwe_scheme import NoiseTooLarge, Scheme
from spai_lab.crypto.rns import column, from_residues
from spai_lab.crypto.secret_sharing_ring import check_elements

TAILS = int(TAIL * SIGMA)  # no noise is larger


@dataclass(frozen=True, eq=False, repr=False)
class SecretKey:
    """s as values modulo all primes, `(L, N)`. Stays with the client."""

    scheme: Scheme
    s: np.ndarray

    def __post_init__(self) -> None:
        read_only(self.s)


@dataclass(frozen=True, eq=False, repr=False)
class Ciphertext:
    """$c_0$ and $c_1$ as values, `(2, L, N)`, and a bound on the noise."""

    scheme: Scheme
    parts: np.ndarray
    bound: int


@dataclass(frozen=True, eq=False, repr=False)
class Plain:
    r"""A polynomial to multiply by: its values, `(L, N)`, and $\sum_j |w_j|$."""

    values: np.ndarray
    norm: int


def secret_key(scheme: Scheme) -> SecretKey:
    """A fresh secret: N draws from -1, 0, 1. It takes no seed.

    Args:
        scheme: of `rlwe_scheme`.
    Returns:
        the key, which stays where it was drawn.
    Raises:
        ValueError: names the argument.
    Reference: Fan and Vercauteren 2012, IACR 2012/144.
    Survey: private AI, cryptography, multi-party computation.

    >>> from spai_lab.crypto.rlwe_scheme import rlwe_scheme
    >>> secret_key(rlwe_scheme(8, degree=8, insecure=True)).s.shape
    (4, 8)
    """
    check_type("scheme", scheme, Scheme)
    return SecretKey(scheme, forward(ternary(scheme.degree), scheme.primes))


def encryption_of_zero(secret: SecretKey) -> np.ndarray:
    """$(e - a s, a)$ for a fresh and uniform, e fresh noise; values `(2, L, N)`."""
    scheme = secret.scheme
    a = uniform_polynomial(scheme.degree, scheme.primes)
    e = forward(noise((1, scheme.degree)), scheme.primes)
    return np.stack([(e - a * secret.s) % column(scheme.primes), a])


# --- the operations ---------------------------------------------------------------------------------------------------


def encrypt(secret: SecretKey, m: np.ndarray) -> Ciphertext:
    r"""$(e - a s + \lfloor q m / t \rceil, a)$, by whoever has the secret.

    Args:
        secret: of `secret_key`.
        m: elements of the ring modulo $2^l$, uint64 `(N,)`.
    Returns:
        a ciphertext.
    Raises:
        ValueError: names the argument.
    Reference: Brakerski 2012, IACR 2012/078; Fan and Vercauteren 2012, IACR 2012/144, with the secret key.
    Survey: private AI, cryptography, multi-party computation.

    >>> from spai_lab.crypto.rlwe_scheme import rlwe_scheme
    >>> secret = secret_key(rlwe_scheme(8, degree=8, insecure=True))
    >>> decrypt(secret, encrypt(secret, np.arange(8, dtype=np.uint64)))
    array([0, 1, 2, 3, 4, 5, 6, 7], dtype=uint64)
    """
    check_type("secret", secret, SecretKey)
    return add_plain(Ciphertext(secret.scheme, encryption_of_zero(secret), TAILS), m)


def decrypt(secret: SecretKey, c: Ciphertext) -> np.ndarray:
    r"""$\lfloor \frac{t}{q} (c_0 + c_1 s) \rceil \bmod t$, exactly m.

    Args:
        secret: of the ciphertext.
        c: the ciphertext.
    Returns:
        uint64 `(N,)`.
    Raises:
        ValueError: names the argument; `NoiseTooLarge`, the noise may reach $q / 2 t$.
    Reference: Fan and Vercauteren 2012, IACR 2012/144, lemma 1.
    Survey: private AI, cryptography, multi-party computation.

    >>> from spai_lab.crypto.rlwe_scheme import rlwe_scheme
    >>> secret = secret_key(rlwe_scheme(60, degree=8, insecure=True))
    >>> c = encrypt(secret, np.arange(8, dtype=np.uint64))
    >>> for _ in range(44):
    ...     c = add(c, c)  # the noise doubles
    >>> decrypt(secret, c)
    Traceback (most recent call last):
    spai_lab.crypto.rlwe_scheme.NoiseTooLarge: c has noise up to 3.518e+14; accepted: up to q / 2 t, 2.815e+14
    """
    check_type("secret", secret, SecretKey)
    check_type("c", c, Ciphertext)
    if c.scheme != secret.scheme:
        raise ValueError("c belongs to another scheme; accepted: one of the secret's")
    if c.bound > c.scheme.room:
        raise NoiseTooLarge(f"c has noise up to {c.bound:.4g}; accepted: up to q / 2 t, {c.scheme.room:.4g}")
    c0 = inverse(c.parts[0], c.scheme.primes)
    return decrypt_at(secret, c0, c.parts[1], np.arange(c.scheme.degree))


def decrypt_at(secret: SecretKey, c0: np.ndarray, c1: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Some coefficients of a message, `(n,)`: of $c_0$ these suffice, `(L, n)`, beside all of $c_1$, as values."""
    scheme = secret.scheme
    other = inverse(c1 * secret.s % column(scheme.primes), scheme.primes)[:, places]
    return rounded(scheme, (c0 + other) % column(scheme.primes))


def trimmed(c: Ciphertext, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What `decrypt_at` takes, as it travels: coefficients of $c_0$, uint32 `(L, n)`, and $c_1$, uint32 `(L, N)`."""
    c0 = inverse(c.parts[0], c.scheme.primes)[:, places]
    return c0.astype(np.uint32), c.parts[1].astype(np.uint32)


def add(c: Ciphertext, d: Ciphertext) -> Ciphertext:
    """The sum of two ciphertexts, part by part.

    Args:
        c, d: ciphertexts of one scheme and key.
    Returns:
        one of the sum modulo $2^l$.
    Raises:
        ValueError: names the argument.
    Reference: Brakerski 2012, IACR 2012/078; Fan and Vercauteren 2012, IACR 2012/144.
    Survey: private AI, cryptography, multi-party computation.

    >>> from spai_lab.crypto.rlwe_scheme import rlwe_scheme
    >>> secret = secret_key(rlwe_scheme(8, degree=8, insecure=True))
    >>> c = encrypt(secret, np.full(8, 200, dtype=np.uint64))
    >>> decrypt(secret, add(c, c))[0]  # 400, modulo 256
    np.uint64(144)
    """
    check_type("c", c, Ciphertext)
    check_type("d", d, Ciphertext)
    if c.scheme != d.scheme:
        raise ValueError("d belongs to another scheme; accepted: the same as that of c")
    return Ciphertext(c.scheme, (c.parts + d.parts) % column(c.scheme.primes), c.bound + d.bound)


def add_plain(c: Ciphertext, m: np.ndarray) -> Ciphertext:
    r"""A known message more: $c_0 + \lfloor q m / t \rceil$.

    Args:
        c: a ciphertext.
        m: as in `encrypt`.
    Returns:
        one of the sum modulo $2^l$.
    Raises:
        ValueError: names the argument.
    Reference: Brakerski 2012, IACR 2012/078; Fan and Vercauteren 2012, IACR 2012/144.
    Survey: private AI, cryptography, multi-party computation.

    >>> from spai_lab.crypto.rlwe_scheme import rlwe_scheme
    >>> secret = secret_key(rlwe_scheme(8, degree=8, insecure=True))
    >>> c = encrypt(secret, np.full(8, 200, dtype=np.uint64))
    >>> decrypt(secret, add_plain(c, np.full(8, 50, dtype=np.uint64)))[0]
    np.uint64(250)
    """
    check_type("c", c, Ciphertext)
    scheme = c.scheme
    check_elements("m", m, scheme.ring, (scheme.degree,))
    c0 = (c.parts[0] + forward(scaled(scheme, m), scheme.primes)) % column(scheme.primes)
    return Ciphertext(scheme, np.stack([c0, c.parts[1]]), c.bound + 1)


def plain(scheme: Scheme, w: np.ndarray) -> Plain:
    """A polynomial to multiply by, int64 `(N,)`, from -2^26 to 2^26; made once for many products."""
    check_type("scheme", scheme, Scheme)
    shaped = isinstance(w, np.ndarray) and w.dtype == np.int64 and w.shape == (scheme.degree,)
    if not shaped or np.abs(w).max() > 2**26:
        raise ValueError(f"w is {describe_kind(w)}; accepted: int64 ({scheme.degree},) from -2^26 to 2^26")
    return Plain(forward(w[None], scheme.primes), int(np.abs(w).sum()))


def multiply_plain(c: Ciphertext, w: Plain) -> Ciphertext:
    r"""A product modulo $X^N + 1$ by a known polynomial: both parts times w.

    Args:
        c: a ciphertext.
        w: of `plain`, with the same scheme.
    Returns:
        one of the product modulo $2^l$.
    Raises:
        ValueError: names the argument.
    Reference: Brakerski 2012, IACR 2012/078; Fan and Vercauteren 2012, IACR 2012/144.
    Survey: private AI, cryptography, multi-party computation.

    >>> from spai_lab.crypto.rlwe_scheme import rlwe_scheme
    >>> scheme = rlwe_scheme(8, degree=8, insecure=True)
    >>> secret, x = secret_key(scheme), np.eye(8, dtype=np.int64)[1]
    >>> decrypt(secret, multiply_plain(encrypt(secret, np.arange(8, dtype=np.uint64)), plain(scheme, x)))  # times X
    array([249,   0,   1,   2,   3,   4,   5,   6], dtype=uint64)
    """
    check_type("c", c, Ciphertext)
    check_type("w", w, Plain)
    return Ciphertext(c.scheme, c.parts * w.values % column(c.scheme.primes), c.bound * w.norm)


def fresh_bound() -> int:
    """A bound on the noise of `encrypt`: 19 + 1/2, rounded up."""
    return TAILS + 1


# --- inside -----------------------------------------------------------------------------------------------------------


def scaled(scheme: Scheme, m: np.ndarray) -> np.ndarray:
    r"""$\lfloor q m / t \rceil$ modulo each prime, `(L, n)`: $(t/2 - d) / t$ with d the rest of $q m + t/2$ by t."""
    half, p = scheme.ring.modulus // 2, column(scheme.primes)
    rest = scheme.ring.reduce(np.uint64(scheme.q % 2**64) * m + np.uint64(half)).astype(np.int64)
    return (half - rest) % p * column([pow(2 * half, -1, prime) for prime in scheme.primes]) % p


def rounded(scheme: Scheme, x: np.ndarray) -> np.ndarray:
    r"""$\lfloor t x / q \rceil \bmod t$ of residues `(L, n)`, uint64 `(n,)`."""
    t, q = scheme.ring.modulus, scheme.q
    return ((2 * t * from_residues(x, scheme.primes) + q) // (2 * q) % t).astype(np.uint64)

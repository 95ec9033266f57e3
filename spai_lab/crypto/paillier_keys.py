r"""Paillier's keys and ciphertexts: everybody may know $n = p q$, and only the owner of p and q decrypts.

Keys come from the operating system's randomness and take no seed. Ciphertexts know their key by its fingerprint, so
that mixing two is an error instead of a random number. `spai_lab.crypto.paillier` encrypts and computes with them.
"""

import hashlib
import math
import secrets
from dataclasses import dataclass, field
from numbers import Integral

from sympy import isprime

from spai_lab.checks import check_flag, describe

BITS = 2048  # the least modulus; about 112 bits of security by NIST SP 800-57, which asks 3,072 for 128
MOST_BITS = 16_384
LEARNING_BITS = 16  # below, there are too few primes to draw from
FINGERPRINT = 32  # bytes


@dataclass(frozen=True, repr=False)
class PublicKey:
    """What everybody may know: n. With it one encrypts and computes, and cannot decrypt.

    Args:
        n: p q, of 2,048 to 16,384 bits. That it is a product of two large primes cannot be seen from outside.
        for_learning: accept a smaller n; a laptop factors one of 128 bits in seconds.
    Raises:
        ValueError: n is even, too small or too large.

    >>> PublicKey(35, for_learning=True)
    PublicKey(6 bits, key 334359b9, for learning: too small for secrets)
    """

    n: int
    for_learning: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        check_flag("for_learning", self.for_learning)
        object.__setattr__(self, "n", check_whole("n", self.n, 15, 2**MOST_BITS - 1))  # an int of any kind
        if self.n % 2 == 0:
            raise ValueError("n is even; accepted: a product of two odd primes")
        check_bits("n", self.n.bit_length(), self.for_learning)

    @property
    def n_squared(self) -> int:
        """The modulus of ciphertexts."""
        return self.n * self.n

    @property
    def width(self) -> int:
        """How many bytes a number below n takes; one below n^2 takes twice as many."""
        return (self.n.bit_length() + 7) // 8

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of n: the name by which ciphertexts know their key."""
        return hashlib.sha256(self.n.to_bytes(self.width, "big")).digest()

    def __repr__(self) -> str:
        warning = ", for learning: too small for secrets" if self.n.bit_length() < BITS else ""
        return f"PublicKey({self.n.bit_length()} bits, key {short(self.fingerprint)}{warning})"


@dataclass(frozen=True)
class SecretKey:
    r"""What only its owner knows: p and q. It prints neither, and there is no way here to write it to a file.

    $\gcd(p q, (p - 1)(q - 1)) = 1$, which holds for different odd primes of equal length, makes decryption unique.

    Args:
        p, q: different primes of the same length, so that n has 2,048 to 16,384 bits.
        for_learning: accept smaller ones.
    Raises:
        ValueError: names what is wrong, and shows neither p nor q.

    >>> SecretKey(5, 7, for_learning=True)
    SecretKey(for_learning=True)
    """

    p: int = field(repr=False)
    q: int = field(repr=False)
    for_learning: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        for name, prime in (("p", self.p), ("q", self.q)):
            if not isinstance(prime, int) or isinstance(prime, bool) or not isprime(prime):
                raise ValueError(f"{name} is no prime; accepted: a prime int")
        if self.p == self.q or self.p.bit_length() != self.q.bit_length():
            raise ValueError("p and q are the same or differ in length; accepted: different primes of equal length")
        if math.gcd(self.p * self.q, (self.p - 1) * (self.q - 1)) != 1:
            raise ValueError("p and q have gcd(p q, (p - 1)(q - 1)) above 1; accepted: primes where it is 1")
        PublicKey(self.p * self.q, self.for_learning)

    @property
    def public(self) -> PublicKey:
        """The key to give away."""
        return PublicKey(self.p * self.q, self.for_learning)


Key = PublicKey | SecretKey


def generate_key(bits: int = BITS, *, for_learning: bool = False) -> SecretKey:
    r"""A new key: two random primes of the same length. It takes no seed.

    The two highest bits of each prime are 1, so that $n = p q$ has exactly `bits` bits. They are at least
    $2^{\text{bits} / 2 - 100}$ apart: of closer ones, a search from $\sqrt n$ on finds the factors.

    Args:
        bits: of n; even, from 2,048 to 16,384. 3,072 for 128 bits of security.
        for_learning: accept from 16 bits on, and say in the key's name that it is for learning.
    Returns:
        the secret key; its `public` is what others get.
    Raises:
        ValueError: names the argument.
    Reference: Paillier 1999, "Public-key cryptosystems based on composite degree residuosity classes", section 4; FIPS
        186-5, appendix A.1.3, for the distance of the primes.
    Survey: private AI, cryptography, homomorphic encryption.
    Simplified: probable primes, by the Baillie-PSW test of sympy: no composite that passes it is known, and they are
        drawn at random here, not by an adversary.

    >>> generate_key(64, for_learning=True).public.n.bit_length()
    64
    """
    check_flag("for_learning", for_learning)
    check_whole("bits", bits, LEARNING_BITS, MOST_BITS)
    check_bits("bits", bits, for_learning)
    if bits % 2:
        raise ValueError(f"bits is {bits}; accepted: an even number, since p and q are of equal length")
    half = int(bits) // 2
    p = q = random_prime(half)
    while abs(p - q) < 2 ** (half - 100):  # below 100 bits: while they are the same
        q = random_prime(half)
    return SecretKey(p, q, for_learning)


def random_prime(bits: int) -> int:
    """A probable prime whose two highest bits are 1, evenly among them, from the operating system's randomness.

    >>> random_prime(8) in (193, 197, 199, 211, 223, 227, 229, 233, 239, 241, 251)
    True
    """
    while True:
        candidate = secrets.randbits(bits) | 3 << (bits - 2) | 1
        if isprime(candidate):
            return candidate


@dataclass(frozen=True, repr=False)
class Ciphertext:
    """An encrypted number, and the fingerprint of the key that it belongs to.

    Args:
        value: c, from 1 to n^2 - 1 and coprime to n; what it is used in checks that.
        fingerprint: of the public key, 32 bytes.
    """

    value: int
    fingerprint: bytes

    def __repr__(self) -> str:
        return f"Ciphertext(key {short(self.fingerprint)})"


# --- bytes and checks -------------------------------------------------------------------------------------------------


def key_to_bytes(public: PublicKey) -> bytes:
    """A public key as it travels: n, big-endian, in as many bytes as it needs."""
    check_key("public", public, PublicKey)
    return public.n.to_bytes(public.width, "big")


def key_from_bytes(data: bytes, *, for_learning: bool = False) -> PublicKey:
    """The public key in bytes that came from somebody else.

    Args:
        data: of `key_to_bytes`, 256 to 2,048 bytes.
        for_learning: accept a smaller key.
    Raises:
        ValueError: no such key, in one spelling each: a leading zero is refused.

    >>> key = generate_key(64, for_learning=True).public
    >>> key_from_bytes(key_to_bytes(key), for_learning=True) == key
    True
    """
    if not isinstance(data, bytes) or not 0 < len(data) <= MOST_BITS // 8 or data[0] == 0:
        raise ValueError(
            f"data is {described_bytes(data)}; accepted: n in 1 to {MOST_BITS // 8:,} bytes, the first above 0"
        )
    return PublicKey(int.from_bytes(data, "big"), for_learning)


def to_bytes(public: PublicKey, c: Ciphertext) -> bytes:
    """A ciphertext as it travels: 32 bytes of its key's fingerprint, then c in twice the bytes of n, big-endian."""
    check_ciphertext("c", c, public)
    return c.fingerprint + c.value.to_bytes(2 * public.width, "big")


def from_bytes(public: PublicKey, data: bytes) -> Ciphertext:
    """The ciphertext in bytes that came from somebody else.

    Args:
        public: the key that it must belong to.
        data: of `to_bytes`; 544 bytes for a key of 2,048 bits.
    Raises:
        ValueError: the wrong length, another key, or a number that encrypts nothing.

    >>> public = PublicKey(35, for_learning=True)
    >>> c = Ciphertext(36, public.fingerprint)
    >>> from_bytes(public, to_bytes(public, c)) == c
    True
    """
    check_key("public", public, PublicKey)
    expected = FINGERPRINT + 2 * public.width
    if not isinstance(data, bytes) or len(data) != expected:
        raise ValueError(f"data is {described_bytes(data)}; accepted: {expected:,} bytes, a ciphertext of {public}")
    c = Ciphertext(int.from_bytes(data[FINGERPRINT:], "big"), data[:FINGERPRINT])
    check_ciphertext("data", c, public)
    return c


def check_ciphertext(name: str, c: Ciphertext, public: PublicKey) -> None:
    r"""Raise `ValueError` unless c belongs to this key and lies in $\mathbb{Z}_{n^2}^*$.

    >>> key = PublicKey(35, for_learning=True)
    >>> check_ciphertext("c", Ciphertext(10, key.fingerprint), key)
    Traceback (most recent call last):
    ValueError: c shares a factor with n; accepted: a number coprime to n, as all ciphertexts are
    """
    check_key("public", public, PublicKey)
    if not isinstance(c, Ciphertext):
        raise ValueError(f"{name} is {describe(c)}; accepted: a Ciphertext")
    if c.fingerprint != public.fingerprint:
        raise ValueError(
            f"{name} is encrypted under another key, {short(c.fingerprint)}; accepted: ciphertexts of this key, "
            f"{short(public.fingerprint)}"
        )
    if not isinstance(c.value, int) or not 0 < c.value < public.n_squared:
        raise ValueError(f"{name} is outside 1 to n^2 - 1; accepted: a ciphertext of {public}")
    if math.gcd(c.value, public.n) != 1:  # the gcd is p or q: it stays out of the message
        raise ValueError(f"{name} shares a factor with n; accepted: a number coprime to n, as all ciphertexts are")


def check_key(name: str, key: Key, accepted: type | tuple[type, ...]) -> None:
    """Raise `ValueError` unless this is a key of the right side."""
    if not isinstance(key, accepted):
        kinds = accepted if isinstance(accepted, tuple) else (accepted,)
        raise ValueError(f"{name} is {describe(key)}; accepted: a {' or a '.join(kind.__name__ for kind in kinds)}")


def check_bits(name: str, bits: int, for_learning: bool) -> None:
    """Raise `ValueError` for a modulus that is too small, unless that is asked for."""
    if bits < BITS and not for_learning:
        raise ValueError(
            f"{name} has {bits} bits; accepted: at least {BITS:,}, or for_learning=True for a key too small for secrets"
        )


def check_whole(name: str, value: int, low: int, high: int) -> int:
    """The value as an int; raise `ValueError` unless it is a whole number from `low` to `high`.

    >>> check_whole("m", 35, 0, 34)
    Traceback (most recent call last):
    ValueError: m is 35; accepted: a whole number from 0 to 34
    """
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or not low <= value <= high:
        came = spelled(int(value)) if whole else describe(value)
        raise ValueError(f"{name} is {came}; accepted: a whole number from {spelled(low)} to {spelled(high)}")
    return int(value)


def spelled(number: int) -> str:
    """A whole number for people: a long one by its nearest power of 2 towards 0.

    >>> spelled(-17), spelled(-(2**100) - 1)
    ('-17', 'about -2^100')
    """
    sign, bits = "-" * (number < 0), abs(number).bit_length()
    return str(number) if bits <= 64 else f"about {sign}2^{bits - 1}"


def public_of(key: Key) -> PublicKey:
    """The public half of either key."""
    check_key("key", key, (PublicKey, SecretKey))
    return key if isinstance(key, PublicKey) else key.public


def short(fingerprint: bytes) -> str:
    """The first 8 hex digits of a fingerprint, for people."""
    return fingerprint[:4].hex() if isinstance(fingerprint, bytes) else describe(fingerprint)


def described_bytes(data: object) -> str:
    """How many bytes came, or what else."""
    return f"{len(data):,} bytes" if isinstance(data, bytes) else describe(data)

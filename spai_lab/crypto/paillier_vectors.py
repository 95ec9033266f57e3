r"""Encrypted vectors under Paillier's scheme, and their sum, by who cannot read them.

Each entry is a ciphertext of its own; the vector carries the format of its numbers (`paillier_numbers`). A sum is
re-randomized, and its format depends on agreed formats and on how many were added: neither tells more than the sum.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spai_lab.checks import check_count, describe
from spai_lab.crypto.paillier import add, decrypt, encrypt, rerandomize
from spai_lab.crypto.paillier_keys import (
    FINGERPRINT,
    Ciphertext,
    Key,
    PublicKey,
    SecretKey,
    check_ciphertext,
    check_key,
    described_bytes,
    from_bytes,
    public_of,
    to_bytes,
)
from spai_lab.crypto.paillier_numbers import (
    FixedPoint,
    check_fits,
    decode,
    encode,
    sum_format,
)

EXPONENT_BYTES = 2

# --- vectors ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EncryptedVector:
    """Encrypted numbers of one format; `encrypt_vector` makes it.

    Args:
        values: D ciphertexts of one key.
        fmt: their format.
    """

    values: tuple[Ciphertext, ...]
    fmt: FixedPoint


def encrypt_vector(key: Key, values: Sequence[float], fmt: FixedPoint) -> EncryptedVector:
    """Encrypt numbers, each in a ciphertext of its own.

    Args:
        key: the public key, or the secret one for speed.
        values: `(D,)`, within the format.
        fmt: the format; its largest k at most (n - 1) / 2.
    Returns:
        D ciphertexts.
    Raises:
        ValueError: names the argument.
    Reference: Paillier 1999, "Public-key cryptosystems based on composite degree residuosity classes", section 4.
    Survey: private AI, cryptography, homomorphic encryption.
    Simplified: one number a ciphertext: 512 bytes instead of 4, where several short numbers would fit.

    >>> key = SecretKey(4294967279, 4294967291, for_learning=True)
    >>> decrypt_vector(key, encrypt_vector(key.public, [0.5, -1.25], FixedPoint(-8, 512)))
    array([ 0.5 , -1.25])
    """
    public = public_of(key)
    check_fits("fmt", fmt, public)
    return EncryptedVector(tuple(encrypt(key, k % public.n) for k in encode(values, fmt)), fmt)


def decrypt_vector(key: SecretKey, vector: EncryptedVector) -> np.ndarray:
    """The numbers in an encrypted vector, float64 `(D,)`, exact as long as k fits 53 bits; else like `decrypt_ks`."""
    return decode(decrypt_ks(key, vector), vector.fmt)


def decrypt_ks(key: SecretKey, vector: EncryptedVector) -> tuple[int, ...]:
    """The whole numbers k in an encrypted vector, exactly.

    Args:
        key: the secret key.
        vector: of that key.
    Returns:
        D whole numbers, each at most K in magnitude.
    Raises:
        ValueError: another key, or a number that the format forbids: the arithmetic has overflowed, or a sender has
            encrypted more than was agreed. One that wrapped around into the format again cannot be told.
    """
    check_key("key", key, SecretKey)
    public = key.public
    check_vector("vector", vector, public)
    ks = tuple((m + public.n // 2) % public.n - public.n // 2 for m in (decrypt(key, c) for c in vector.values))
    if any(abs(k) > vector.fmt.largest for k in ks):
        raise ValueError(f"vector holds a number beyond {vector.fmt}; accepted: what its format allows")
    return ks


def encrypted_sum(public: PublicKey, vectors: Sequence[EncryptedVector]) -> EncryptedVector:
    r"""The sum of encrypted vectors, entry by entry, by who cannot read them: $\prod_i c_i \, r^n$.

    Args:
        public: the key of all.
        vectors: at least one, of one length and one format.
    Returns:
        their sum, re-randomized; its format is `sum_format` of their number.
    Raises:
        ValueError: names the argument; so does a sum that might wrap around.
    Reference: Paillier 1999, "Public-key cryptosystems based on composite degree residuosity classes", section 8.
    Survey: private AI, cryptography, homomorphic encryption.

    >>> key, fmt = SecretKey(4294967279, 4294967291, for_learning=True), FixedPoint(-8, 512)
    >>> updates = [encrypt_vector(key.public, update, fmt) for update in ([0.5, -1.0], [0.25, 2.0])]
    >>> decrypt_vector(key, encrypted_sum(key.public, updates))
    array([0.75, 1.  ])
    """
    if not isinstance(vectors, list | tuple) or not vectors:
        raise ValueError(f"vectors is {describe(vectors)}; accepted: a list of at least one EncryptedVector")
    for vector in vectors:
        check_vector("vectors", vector, public)
        if (len(vector.values), vector.fmt) != (len(vectors[0].values), vectors[0].fmt):
            raise ValueError(
                f"vectors has {len(vector.values)} numbers of {vector.fmt} beside {len(vectors[0].values)} of "
                f"{vectors[0].fmt}; accepted: one length and one format"
            )
    fmt = sum_format(len(vectors), vectors[0].fmt)
    check_fits("vectors", fmt, public)
    total = vectors[0].values
    for vector in vectors[1:]:
        total = tuple(add(public, c, other) for c, other in zip(total, vector.values, strict=True))
    return EncryptedVector(tuple(rerandomize(public, c) for c in total), fmt)


# --- bytes and checks -------------------------------------------------------------------------------------------------


def vector_to_bytes(public: PublicKey, vector: EncryptedVector) -> bytes:
    """An encrypted vector as it travels: fingerprint (32), e (2), K (as n), then each c (twice as n), big-endian."""
    check_vector("vector", vector, public)
    exponent = vector.fmt.exponent.to_bytes(EXPONENT_BYTES, "big", signed=True)
    head = public.fingerprint + exponent + vector.fmt.largest.to_bytes(public.width, "big")
    return head + b"".join(to_bytes(public, c)[FINGERPRINT:] for c in vector.values)


def vector_from_bytes(public: PublicKey, data: bytes, *, size: int, fmt: FixedPoint) -> EncryptedVector:
    """The encrypted vector in bytes that came from somebody else.

    Args:
        public: the key that it must belong to.
        data: of `vector_to_bytes`.
        size: D, how many numbers were agreed on.
        fmt: the format that was agreed on; another scale would be a wrong number without an error.
    Raises:
        ValueError: another length, key or format, or a number that encrypts nothing.

    >>> key, fmt = SecretKey(4294967279, 4294967291, for_learning=True), FixedPoint(-8, 512)
    >>> vector = encrypt_vector(key.public, [0.5, -1.25], fmt)
    >>> vector_from_bytes(key.public, vector_to_bytes(key.public, vector), size=2, fmt=fmt) == vector
    True
    """
    check_key("public", public, PublicKey)
    check_count("size", size)
    check_fits("fmt", fmt, public)
    head, each = FINGERPRINT + EXPONENT_BYTES + public.width, 2 * public.width
    if not isinstance(data, bytes) or len(data) != head + size * each:
        raise ValueError(
            f"data is {described_bytes(data)}; accepted: {head + size * each:,} bytes, {size} numbers under {public}"
        )
    fingerprint, exponent = data[:FINGERPRINT], data[FINGERPRINT : FINGERPRINT + EXPONENT_BYTES]
    values = tuple(from_bytes(public, fingerprint + data[i : i + each]) for i in range(head, len(data), each))
    came = int.from_bytes(exponent, "big", signed=True), int.from_bytes(data[head - public.width : head], "big")
    if came != (fmt.exponent, fmt.largest):
        raise ValueError(f"data has another format than {fmt}; accepted: the one that was agreed on")
    return EncryptedVector(values, fmt)


def check_vector(name: str, vector: EncryptedVector, public: PublicKey) -> None:
    """Raise `ValueError` unless this is an encrypted vector of this key whose format does not wrap around."""
    if not isinstance(vector, EncryptedVector) or not vector.values:
        raise ValueError(f"{name} is {describe(vector)}; accepted: an EncryptedVector of at least one number")
    for c in vector.values:
        check_ciphertext(name, c, public)
    check_fits(name, vector.fmt, public)

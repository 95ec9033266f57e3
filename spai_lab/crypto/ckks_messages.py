r"""CKKS, part six: contexts, public keys and ciphertexts as bytes, and back, whoever sent them.

| field | bytes |
|---|---|
| `CKKS`, version, kind, length of the whole message | 4 + 1 + 1 + 8 |
| fingerprint of the context, and of the keys (0 in a context) | 8 + 8 |
| N, scale, special prime, number of primes, each prime | 4 + 8 + 4 + 1 + 4 each |
| rotation key: slots to the left, N / 2 for conjugation | 4 |
| ciphertext: parts, level, scale, whether limit and error are of each slot | 1 + 1 + 8 + 1 + 1 |
| ciphertext: limit, then error, one number or one for each slot | 8 each |
| residues, from 0 to their prime - 1, in the order of the array | 4 each |

All numbers are little-endian. A reader knows the length from the header before it takes memory, accepts no other one,
and unpickles nothing: bytes end in a `ValueError`, or in exactly what was sent. That they are well-formed is all that
can be seen: any residues are a ciphertext of something, so a flipped bit is another number, and limits and errors are
what the sender claims. `spai_lab.crypto.authenticated` sees to it that nobody on the way changes either.

There is no message for a secret key, which stays where it is. For learning, not for secrets.
"""

import math
import struct
from collections.abc import Sequence
from types import MappingProxyType

import numpy as np

from spai_lab.checks import check_flag, describe
from spai_lab.crypto.ckks_ciphertext import Ciphertext, check_type
from spai_lab.crypto.ckks_context import Bound, Context, check_room
from spai_lab.crypto.ckks_headers import RESIDUE, array, exactly, message, read, residues
from spai_lab.crypto.ckks_keys import PublicKey, RelinearizationKey, RotationKeys, galois_element
from spai_lab.crypto.ntt import BITS, is_prime

STEPS = struct.Struct("<I")
TEXT = struct.Struct("<BBdBB")
FLOAT64 = np.dtype("<f8")
NO_KEY = "00" * 8
SCALES = (1.0, 2.0**60)  # of a context


# --- contexts and keys ------------------------------------------------------------------------------------------------


def context_to_bytes(context: Context) -> bytes:
    """The parameters as they travel."""
    check_type("context", context, Context)
    return message("context", context, NO_KEY)


def context_from_bytes(data: bytes, *, insecure: bool = False) -> Context:
    """The parameters in bytes that came from somebody else.

    Args:
        data: of `context_to_bytes`.
        insecure: accept a toy, which the security table does not promise 128 bits.
    Returns:
        the context.
    Raises:
        ValueError: what is wrong with the bytes, or with the parameters in them.

    >>> from spai_lab.crypto.ckks_context import ckks_context
    >>> context = ckks_context(8, (30, 26), insecure=True)
    >>> data = context_to_bytes(context)
    >>> len(data), context_from_bytes(data, insecure=True) == context
    (55, True)
    >>> context_from_bytes(data)
    Traceback (most recent call last):
    ValueError: data has a modulus of 86 bits for N = 8; accepted: what has 128-bit security, or a toy with
    insecure=True
    """
    check_flag("insecure", insecure)
    header = read("context", data)
    exactly(header.rest, 0)
    context = header.context
    if header.key != NO_KEY:
        raise ValueError(f"data names the key {header.key}; accepted: none in a context")
    for q in (*context.primes, context.special):
        if not BITS[0] <= q.bit_length() <= BITS[1] or q % (2 * context.degree) != 1 or not is_prime(q):
            raise ValueError(
                f"data has the prime {q}; accepted: primes of {BITS[0]} to {BITS[1]} bits, 1 modulo 2 N = "
                f"{2 * context.degree:,}"
            )
    if len({*context.primes, context.special}) <= len(context.primes):
        raise ValueError("data has a prime twice; accepted: different ones")
    if not SCALES[0] <= context.scale <= SCALES[1]:
        raise ValueError(f"data has the scale {context.scale}; accepted: from 1 to 2^60")
    if not insecure and not context.secure:
        raise ValueError(
            f"data has a modulus of {context.total_bits} bits for N = {context.degree:,}; accepted: what has 128-bit "
            "security, or a toy with insecure=True"
        )
    return context


def public_key_to_bytes(key: PublicKey) -> bytes:
    """The key to encrypt with, as it travels."""
    check_type("key", key, PublicKey)
    return message("public key", key.context, key.fingerprint, residues(key.key))


def public_key_from_bytes(context: Context, data: bytes) -> PublicKey:
    """The public key in bytes that came from somebody else.

    Args:
        context: that it must belong to.
        data: of `public_key_to_bytes`.
    Returns:
        the key. Whether it encrypts 0, or has a secret at all, only its owner knows.
    Raises:
        ValueError: what is wrong with the bytes.
    """
    header = read("public key", data, context)
    primes = (*context.primes, context.special)
    return PublicKey(context, array(header.rest, (2, len(primes), context.degree), primes), header.key)


def relinearization_key_to_bytes(key: RelinearizationKey) -> bytes:
    """The key that brings products back to two parts, as it travels."""
    check_type("key", key, RelinearizationKey)
    return message("relinearization key", key.context, key.fingerprint, residues(key.key))


def relinearization_key_from_bytes(context: Context, data: bytes, *, key: str) -> RelinearizationKey:
    """The relinearization key in bytes that came from somebody else; like `ciphertext_from_bytes`."""
    header = read("relinearization key", data, context, key)
    return RelinearizationKey(context, switching_array(context, header.rest), key)


def rotation_keys_to_bytes(keys: RotationKeys) -> tuple[bytes, ...]:
    """Rotation keys as they travel, a message for each, in the order of steps; a step of 0 needs none."""
    check_type("keys", keys, RotationKeys)
    context = keys.context
    elements = {step: galois_element(context, step) for step in sorted(set(keys.steps)) if step}
    elements[context.slots] = 2 * context.degree - 1  # conjugation
    return tuple(
        message("rotation key", context, keys.fingerprint, STEPS.pack(step), residues(keys.keys[element]))
        for step, element in elements.items()
        if element in keys.keys
    )


def rotation_keys_from_bytes(context: Context, messages: Sequence[bytes], *, key: str) -> RotationKeys:
    """The rotation keys in messages that came from somebody else.

    Args:
        context: that they must belong to.
        messages: of `rotation_keys_to_bytes`, with rising steps.
        key: the fingerprint of the keys, as in the public key.
    Returns:
        one object that holds all of them.
    Raises:
        ValueError: what is wrong with the bytes.
    """
    if not isinstance(messages, list | tuple):
        raise ValueError(f"messages is {describe(messages)}; accepted: a list or tuple of bytes")
    keys, steps, last = {}, [], 0
    for data in messages:
        rest = read("rotation key", data, context, key).rest
        (step,) = STEPS.unpack(exactly(rest[: STEPS.size], STEPS.size))
        if not last < step <= context.slots:
            raise ValueError(f"data rotates by {step}; accepted: from {last + 1} to {context.slots}, each step once")
        last = step
        element = 2 * context.degree - 1 if step == context.slots else galois_element(context, step)
        keys[element] = switching_array(context, rest[STEPS.size :])
        steps += [step] * (step < context.slots)
    return RotationKeys(context, MappingProxyType(keys), key, tuple(steps))


def switching_array(context: Context, data: memoryview) -> np.ndarray:
    """The residues of a key for switching, `(L, 2, L + 1, N)`."""
    primes = (*context.primes, context.special)
    return array(data, (len(context.primes), 2, len(primes), context.degree), primes)


# --- ciphertexts ------------------------------------------------------------------------------------------------------


def ciphertext_to_bytes(x: Ciphertext) -> bytes:
    """A ciphertext as it travels, with what it knows of its level, scale, limit and error."""
    check_type("x", x, Ciphertext)
    check_text("x", x.context, len(x.parts), x.level, x.scale, x.limit, x.error)
    bounds = [np.atleast_1d(np.asarray(bound, FLOAT64)) for bound in (x.limit, x.error)]
    about = TEXT.pack(len(x.parts), x.level, x.scale, *(np.ndim(bound) for bound in (x.limit, x.error)))
    return message("ciphertext", x.context, x.key, about, *(b.tobytes() for b in bounds), residues(x.parts))


def ciphertext_from_bytes(context: Context, data: bytes, *, key: str) -> Ciphertext:
    """The ciphertext in bytes that came from somebody else.

    Args:
        context: that it must belong to.
        data: of `ciphertext_to_bytes`.
        key: the fingerprint of the keys that it must belong to, as in the public key.
    Returns:
        the ciphertext; its `limit` and `error` are what the sender claims.
    Raises:
        ValueError: what is wrong with the bytes.

    >>> from spai_lab.crypto.ckks import ckks_context, decode, decrypt, encode, encrypt, public_key, secret_key
    >>> context = ckks_context(64, (30, 28), insecure=True)
    >>> secret = secret_key(context)
    >>> data = ciphertext_to_bytes(encrypt(public_key(secret), encode(context, [1.5, -2.0])))
    >>> x = ciphertext_from_bytes(context, data, key=secret.fingerprint)
    >>> decode(decrypt(secret, x)).real[:2].round(2).tolist(), ciphertext_to_bytes(x) == data
    ([1.5, -2.0], True)
    >>> ciphertext_from_bytes(context, data[:-1], key=secret.fingerprint)
    Traceback (most recent call last):
    ValueError: data has 1,106 bytes and announces 1,107; accepted: as many as announced, at most 268,435,456
    """
    rest = read("ciphertext", data, context, key).rest
    parts, level, scale, *each = TEXT.unpack(exactly(rest[: TEXT.size], TEXT.size))
    if not {*each} <= {0, 1} or parts not in (2, 3) or level > context.levels:
        raise ValueError(
            f"data has {parts} parts, level {level} and bounds of kinds {each}; accepted: 2 or 3, a level from 0 to "
            f"{context.levels}, and kinds 0 or 1"
        )
    counts = [context.slots if flag else 1 for flag in each]
    shape, end = (parts, level + 1, context.degree), TEXT.size + FLOAT64.itemsize * sum(counts)
    exactly(rest, end + RESIDUE.itemsize * math.prod(shape))
    bounds = np.frombuffer(rest[TEXT.size : end], FLOAT64).astype(np.float64)
    split = bounds[: counts[0]], bounds[counts[0] :]
    limit, error = (bound.copy() if flag else float(bound[0]) for bound, flag in zip(split, each, strict=True))
    check_text("data", context, parts, level, scale, limit, error)
    return Ciphertext(context, array(rest[end:], shape, context.at(level)), key, scale, limit, error)


def check_text(name: str, context: Context, parts: int, level: int, scale: float, limit: Bound, error: Bound) -> None:
    """Raise `ValueError` unless a ciphertext may have this scale and these bounds."""
    for what, bound in [("limit", limit), ("error", error)]:
        if not (np.isfinite(bound) & (np.asarray(bound) >= 0)).all():
            raise ValueError(f"the {what} of {name} is not finite, or below 0; accepted: finite numbers from 0")
    if not 1 <= scale < math.inf:
        raise ValueError(f"{name} has the scale {scale}; accepted: a finite number of at least 1")
    with np.errstate(over="ignore"):
        check_room(context, level, scale, limit + error, name)

"""What exercises that compute on ciphertexts share: a small CKKS context with its keys, and how a result is read."""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

from spai_lab.checks import describe
from spai_lab.crypto import ckks
from spai_lab.crypto.ckks_context import Context
from spai_lab.crypto.ckks_keys import PublicKey, RelinearizationKey, RotationKeys, SecretKey
from spai_lab.exercises.exercise import Fault

SCALE_BITS = 26
LEVELS = 9
SLOTS = 32
SEED = 14


@dataclass(frozen=True)
class Keys:
    """A toy context, insecure and fast, and its keys; answers never see the secret one."""

    context: Context
    secret: SecretKey
    public: PublicKey
    products: RelinearizationKey
    rotations: RotationKeys


@cache
def toy() -> Keys:
    """New keys, the same ones for all cases, with a rotation key for each step."""
    context = ckks.ckks_context(2 * SLOTS, (30, *[SCALE_BITS] * LEVELS), insecure=True)
    secret = ckks.secret_key(context)
    relinearization, rotations = ckks.relinearization_key(secret), ckks.rotation_keys(secret, range(1, SLOTS))
    return Keys(context, secret, ckks.public_key(secret), relinearization, rotations)


def encrypted(z: np.ndarray) -> ckks.Ciphertext:
    """Numbers up to 1 in size, in a new ciphertext at the top level."""
    return ckks.encrypt(toy().public, ckks.encode(toy().context, z, limit=1.0))


def decrypted(x: ckks.Ciphertext) -> np.ndarray:
    """The real numbers in the slots."""
    return ckks.decode(ckks.decrypt(toy().secret, x)).real


def as_ciphertext(result: object) -> ckks.Ciphertext:
    """The ciphertext that an answer returns.

    Raises:
        Fault: it is something else.
    """
    if result is None:
        raise Fault("It returns None: is the `return` missing?")
    if not isinstance(result, ckks.Ciphertext):
        raise Fault(f"It returns {describe(result)}; expected a ciphertext.")
    if result.key != toy().secret.fingerprint:
        raise Fault("It returns a ciphertext under another key; compute with the ones that it is given.")
    return result


def spare_scale(x: ckks.Ciphertext) -> int:
    """How many bits more its scale has than that of the context: those of the levels' primes still to divide by."""
    return round(math.log2(x.scale / toy().context.scale))

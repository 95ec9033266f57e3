r"""A CKKS ciphertext, what each operation does to its size, scale and error, and which may meet which.

The arithmetic is in `spai_lab.crypto.ckks`; here is the bookkeeping, so that no mismatch ends in a wrong number.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from spai_lab.crypto.ckks_context import Bound, Context, check_room, room
from spai_lab.crypto.ckks_encoding import SAME_SCALE, Plaintext, account, locked
from spai_lab.crypto.ckks_keys import RelinearizationKey, RotationKeys, SecretKey
from spai_lab.crypto.ckks_noise import product_error, switching_error
from spai_lab.crypto.ntt import read_only


@dataclass(frozen=True, eq=False)
class Ciphertext:
    r"""An encrypted vector: parts $c_0, c_1$ (and $c_2$ of a product), values `(2 or 3, level + 1, N)`.

    `key` is the fingerprint of the keys, `limit` a public bound on the size of the slots, `error` on what is wrong with
    them, which fails with probability 1e-9 for each operation (`spai_lab.crypto.ckks_noise`): numbers for all slots, or
    arrays with one for each.
    """

    context: Context
    parts: np.ndarray
    key: str
    scale: float
    limit: Bound
    error: Bound

    def __post_init__(self) -> None:
        read_only(self.parts)
        locked(self.limit, self.error)

    @property
    def level(self) -> int:
        """Rescalings that are left."""
        return self.parts.shape[1] - 1

    def __str__(self) -> str:
        return f"Ciphertext: {account(self)}, {len(self.parts)} parts"

    __repr__ = __str__


# --- what an operation does to limit, error and scale -----------------------------------------------------------------


def settled(x: Ciphertext) -> Ciphertext:
    """The result, once it is sure that its modulus holds it."""
    check_room(x.context, x.level, x.scale, x.limit + x.error, "the result")
    return x


def summed(x: Ciphertext, parts: np.ndarray, y: Ciphertext | Plaintext) -> Ciphertext:
    """A sum: sizes and errors add up; so does what scales differ by, if they do in the last bits."""
    error = x.error + y.error + SAME_SCALE * y.limit
    return settled(replace(x, parts=parts, limit=x.limit + y.limit, error=error))


def multiplied(x: Ciphertext, parts: np.ndarray, y: Ciphertext | Plaintext) -> Ciphertext:
    """A product: so do scales and sizes multiply."""
    scale, limit = x.scale * y.scale, x.limit * y.limit
    if x.level == 0 and np.mean(limit) >= room(x.context, 0, scale):
        raise out_of_levels(x.context)
    error = product_error(x.limit, x.error, y.limit, y.error)
    return settled(replace(x, parts=parts, scale=scale, limit=limit, error=error))


def switched(x: Ciphertext, parts: np.ndarray, times: int = 1) -> Ciphertext:
    """After key switching, once or the sum of several: its noise is added, all else stays."""
    noise = switching_error(x.context.degree, x.context.at(x.level), x.context.special, times)
    return settled(replace(x, parts=parts, error=x.error + noise / x.scale))


def out_of_levels(context: Context) -> ValueError:
    """What to say when a circuit is deeper than its chain is long."""
    return ValueError(
        f"no level is left: the chain has room for {context.levels} products; accepted: fewer products in sequence, or "
        "a longer chain, as bits of ckks_context"
    )


# --- checks -----------------------------------------------------------------------------------------------------------


def check_type(name: str, value: object, kind: type) -> None:
    """Raise `ValueError` unless the argument is of this type."""
    if not isinstance(value, kind):
        raise ValueError(f"{name} is a {type(value).__name__}; accepted: a {kind.__name__}")


def check_keys(name: str, key: SecretKey | RelinearizationKey | RotationKeys, x: Ciphertext) -> None:
    """Raise `ValueError` unless the key was made from the secret of the ciphertext."""
    check_type("x", x, Ciphertext)
    if key.fingerprint != x.key:
        raise ValueError(f"{name} belongs to {key.fingerprint}; accepted: the keys of x, {x.key}")


def check_same(name: str, x: Ciphertext, y: Ciphertext) -> None:
    """Raise `ValueError` unless both are ciphertexts under one key, at one level."""
    check_type("x", x, Ciphertext)
    check_type(name, y, Ciphertext)
    if y.key != x.key:
        raise ValueError(f"{name} is encrypted under {y.key}; accepted: the key of x, {x.key}")
    if y.level != x.level:
        raise ValueError(f"{name} is at level {y.level}; accepted: level {x.level}, that of x; lower() the higher one")


def check_scales(x: Ciphertext, y: Ciphertext | Plaintext) -> None:
    """Raise `ValueError` unless a sum makes sense: the same scale, but for the last bits."""
    if not math.isclose(x.scale, y.scale, rel_tol=SAME_SCALE):
        other = "a rescale may be missing" if isinstance(y, Ciphertext) else "encode(..., scale=x.scale)"
        raise ValueError(f"the scales are {x.scale:.12g} and {y.scale:.12g}; accepted: the same ({other})")


def check_pair(x: Ciphertext, y: Ciphertext) -> None:
    """Raise `ValueError` unless x and y can be added."""
    check_same("y", x, y)
    check_scales(x, y)


def check_two_parts(name: str, x: Ciphertext) -> None:
    """Raise `ValueError` unless this is a ciphertext of two parts."""
    check_type(name, x, Ciphertext)
    if len(x.parts) != 2:
        raise ValueError(f"{name} has {len(x.parts)} parts; accepted: 2; relinearize it first")


def plaintext_of(name: str, plaintext: Plaintext, context: Context) -> Plaintext:
    """The plaintext; raise `ValueError` unless it belongs to the context."""
    check_type(name, plaintext, Plaintext)
    if plaintext.context != context:
        raise ValueError(
            f"{name} is of context {plaintext.context.fingerprint}; accepted: one of context {context.fingerprint}"
        )
    return plaintext


def at_level(x: Ciphertext, plaintext: Plaintext) -> np.ndarray:
    """The plaintext's values at the level of x, which may be lower."""
    check_type("x", x, Ciphertext)
    plaintext_of("plaintext", plaintext, x.context)
    if plaintext.level < x.level:
        raise ValueError(f"plaintext is encoded for level {plaintext.level}; accepted: at least {x.level}, that of x")
    return plaintext.values[: x.level + 1]

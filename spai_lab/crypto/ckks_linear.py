r"""A linear model on an encrypted vector, the example of `spai_lab.crypto.ckks_parties`: inner products by rotations.

For learning, not for secrets: no constant-time code, no protection against side channels.
"""

from collections.abc import Sequence

import numpy as np

from spai_lab.checks import check_count, check_number
from spai_lab.crypto.ckks import add, add_plain, multiply_plain, rescale, rotate
from spai_lab.crypto.ckks_ciphertext import Ciphertext, check_keys, check_type, out_of_levels
from spai_lab.crypto.ckks_encoding import Plaintext, decode, encode
from spai_lab.crypto.ckks_parties import ServerKeys


def linear_steps(features: int) -> tuple[int, ...]:
    """The rotations by which `linear` sums up: 1, 2, 4, ..., below the number of features.

    >>> linear_steps(64)
    (1, 2, 4, 8, 16, 32)
    """
    check_count("features", features)
    return tuple(2**k for k in range((features - 1).bit_length()))


def packed(x: np.ndarray, slots: int) -> np.ndarray:
    """A vector, filled up with 0 to a power of two and repeated over all slots: so sums in a circle are whole ones.

    Args:
        x: `(D,)`, real.
        slots: a power of two, at least D.
    Returns:
        float64 `(slots,)`.

    >>> packed(np.array([1.0, 2.0, 3.0]), 8).tolist()
    [1.0, 2.0, 3.0, 0.0, 1.0, 2.0, 3.0, 0.0]
    """
    x = np.asarray(x, dtype=np.float64)
    if x.ndim != 1 or not 0 < len(x) <= slots:
        raise ValueError(f"x has the shape {x.shape}; accepted: (D,) with 1 to {slots:,} numbers")
    period = 2 ** len(linear_steps(len(x)))
    return np.tile(np.pad(x, (0, period - len(x))), slots // period)


def linear(
    inputs: Sequence[Ciphertext], keys: ServerKeys, *, w: np.ndarray, b: np.ndarray, limit: float
) -> list[Ciphertext]:
    r"""The logits $w x + b$ of packed features, each in all slots of a ciphertext of its own.

    Rotate and sum: $y \leftarrow y + \mathrm{rot}(y, 2^k)$ for k = 0, 1, ... doubles how many neighbors each slot
    holds the sum of. All slots end up with the whole inner product, and none with a part of it, which would tell more.

    Args:
        inputs: one ciphertext, of `packed` features, at level 1 or above.
        keys: with rotations by `linear_steps(D)`.
        w: weights `(K, D)`.
        b: biases `(K,)`.
        limit: on the size of all of them; it may be known to the client, since limits of answers depend on it.
    Returns:
        K ciphertexts, one level below.
    Raises:
        ValueError: names the argument, or says that a key or a level is missing.
    Reference: Halevi and Shoup 2014, IACR 2014/106, for sums by rotations.
    Survey: private AI, cryptography, homomorphic encryption.
    Simplified: one product and a few rotations for each logit; a matrix by its diagonals takes fewer.
    """
    w, b = np.asarray(w, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if w.ndim != 2 or b.shape != w.shape[:1] or not w.size:
        raise ValueError(f"w and b have the shapes {w.shape} and {b.shape}; accepted: (K, D) and (K,)")
    check_number("limit", limit, low=0, exclusive=True)
    check_type("keys", keys, ServerKeys)
    if len(inputs) != 1:
        raise ValueError(f"inputs holds {len(inputs)} ciphertexts; accepted: 1")
    if keys.rotations is None:
        raise ValueError(f"keys has no rotations; accepted: those by {linear_steps(w.shape[1])}")
    (x,) = inputs
    check_keys("keys", keys.rotations, x)
    if x.level == 0:
        raise out_of_levels(x.context)
    scale = float(x.context.primes[x.level])  # which rescaling takes away again
    logits = []
    for row, bias in zip(w, b, strict=True):
        weights = encode(x.context, packed(row, x.context.slots), scale=scale, level=x.level, limit=limit)
        y = rescale(multiply_plain(x, weights))
        for step in linear_steps(len(row)):
            y = add(y, rotate(y, step, keys.rotations))
        logits.append(add_plain(y, encode(x.context, bias, scale=y.scale, level=y.level, limit=limit)))
    return logits


def logits_of(answers: Sequence[Plaintext]) -> np.ndarray:
    """What the client reads from an answer of `linear`: float64 `(K,)`, the first slot of each."""
    return np.array([decode(answer)[0].real for answer in answers])

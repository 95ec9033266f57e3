"""What a server checks before it computes on an encrypted image: fresh ciphertexts, none of them twice, and keys."""

import math
from collections.abc import Sequence

import numpy as np

from spai_lab.crypto.ckks_ciphertext import Ciphertext, check_keys, check_type, plaintext_of
from spai_lab.crypto.ckks_encoding import Plaintext
from spai_lab.crypto.ckks_keys import RelinearizationKey, RotationKeys

COMPARED = 8  # residues of each part: two encryptions share them all with a probability of some 2^-480


def check_fresh(name: str, x: Ciphertext, weights: Plaintext, maker: str) -> None:
    """Raise `ValueError` unless this is a fresh encryption of numbers up to 1, in the context of the weights."""
    check_type(name, x, Ciphertext)
    context = plaintext_of("network", weights, x.context).context
    if (x.level, x.scale, len(x.parts)) != (context.levels, context.scale, 2) or np.max(x.limit) > 1:
        raise ValueError(
            f"{name} is at level {x.level}, with scale 2^{math.log2(x.scale):.2f}, {len(x.parts)} parts and sizes up "
            f"to {np.max(x.limit):.4g}; accepted: fresh from {maker}, at level {context.levels}, with scale "
            f"2^{math.log2(context.scale):.2f}, 2 parts and sizes up to 1"
        )


def check_distinct(name: str, texts: Sequence[Ciphertext]) -> None:
    """Raise `ValueError` if a ciphertext is there twice: its noise would add up, where bounds let noise cancel."""
    first: dict[bytes, int] = {}
    for place, text in enumerate(texts):
        earlier = first.setdefault(text.parts[:, :, :COMPARED].tobytes(), place)
        if earlier != place:
            raise ValueError(f"{name}[{place}] is {name}[{earlier}] again; accepted: an encryption of its own for each")


def check_evaluation_keys(
    x: Ciphertext, relinearization: RelinearizationKey, rotations: RotationKeys, needed: Sequence[int]
) -> None:
    """Raise `ValueError` unless the keys belong to the ciphertext, and there is one for each rotation."""
    check_type("relinearization", relinearization, RelinearizationKey)
    check_keys("relinearization", relinearization, x)
    check_type("rotations", rotations, RotationKeys)
    check_keys("rotations", rotations, x)
    missing = sorted({*needed} - {*rotations.steps})
    if missing:
        raise ValueError(
            f"rotations has no key for {', '.join(map(str, missing))}; accepted: rotation_keys(secret, "
            "layout.rotations), which the client makes"
        )

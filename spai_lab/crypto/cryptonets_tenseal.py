r"""The same batched network through TenSEAL, with SEAL underneath: what a user of a library would write.

One `CKKSVector` a pixel, one image a slot. The library rescales after every product with a weight and relinearizes
every square, and so spends a level on each of the five steps. It checks neither sizes nor precision: a chain that is
too short, or logits beyond the last prime, are numbers without meaning, which only plain logits tell from right ones.

TenSEAL is an extra; without it, each function says how to get it.

Reference: Benaissa et al. 2021, "TenSEAL", arXiv 2104.03152. Survey: private AI, homomorphic encryption.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from spai_lab.checks import describe
from spai_lab.crypto.cryptonets import Layer
from spai_lab.crypto.tenseal_library import check_secure, tenseal

BITS = (38, 28, 28, 28, 28, 28, 38)  # 216 of the 218 that are secure with N = 8,192
DEGREE = 8192
SCALE = 2.0**28


def tenseal_context() -> Any:  # TenSEAL has no types
    """A context with its secret key, 128 bits of security, and room for three layers with squares between them.

    Raises:
        ModuleNotFoundError: TenSEAL is not installed.
    """
    library = tenseal()
    context = library.context(library.SCHEME_TYPE.CKKS, DEGREE, coeff_mod_bit_sizes=list(BITS), n_threads=1)
    check_secure(context)
    context.global_scale = SCALE
    context.generate_relin_keys()
    return context


def tenseal_encrypt(context: Any, x: Tensor | np.ndarray) -> list[Any]:
    """Up to 4,096 images, pixel by pixel.

    Args:
        context: of `tenseal_context`.
        x: images `(B, C, H, W)` or rows `(B, n)`, in [0, 1].
    Returns:
        n `CKKSVector`s of B slots.
    Raises:
        ValueError: names the argument.
    """
    vector = tenseal().ckks_vector
    pixels = np.asarray(x, dtype=np.float64)
    if pixels.ndim < 2 or not 1 <= len(pixels) <= DEGREE // 2:
        raise ValueError(f"x has the shape {pixels.shape}; accepted: (B, C, H, W), B from 1 to {DEGREE // 2:,}")
    return [vector(context, column.tolist()) for column in pixels.reshape(len(pixels), -1).T]


def tenseal_logits(layers: Sequence[Layer], pixels: Sequence[Any]) -> list[Any]:
    """Every weight a product, every product a rescaling: the pattern of the library, in the order of the network.

    Args:
        layers: of `spai_lab.crypto.cryptonets.fold`, three of them at most.
        pixels: of `tenseal_encrypt`.
    Returns:
        K `CKKSVector`s, to be decrypted by whoever has the secret key.
    Raises:
        ValueError: names the argument.
    """
    room = len(BITS) - 2
    if not isinstance(layers, tuple | list) or 2 * len(layers) - 1 > room:
        raise ValueError(f"layers is {describe(layers)}; accepted: at most {(room + 1) // 2}, for {room} products")
    values = list(pixels)
    for depth, layer in enumerate(layers):
        values = [x.square() for x in values] if depth else values
        values = [
            weighted([values[i] for i in reads], w, b)
            for reads in layer.reads
            for w, b in zip(layer.W, layer.b, strict=True)
        ]
    return values


def weighted(xs: Sequence[Any], w: np.ndarray, b: float) -> Any:
    r"""$\sum_i w_i x_i + b$; SEAL refuses to multiply by 0, whose product would hide nothing."""
    products = [x * float(w_i) for x, w_i in zip(xs, w, strict=True) if w_i]
    if not products:
        raise ValueError("layers has a row of zeros; accepted: weights of which one at least is not 0")
    total = products[0]
    for product in products[1:]:
        total += product
    return total + [float(b)] * total.size()


def tenseal_decrypt(logits: Sequence[Any]) -> np.ndarray:
    """The logits of all images, `(B, K)`; the vectors still know the client's context, and its key."""
    return np.stack([y.decrypt() for y in logits], axis=1)

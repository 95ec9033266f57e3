r"""A folded network on ciphertexts: one image a slot, one ciphertext a pixel, one constant a weight.

N / 2 images are answered at once, at the price of one. Sums with public weights keep a product's third part, so that
only the sums are relinearized: 100 in CryptoNets' network, instead of 720 squares.

For learning, not for secrets: as in `spai_lab.crypto.ckks`, and whoever shares decrypted logits may give away the key.

Reference: Gilad-Bachrach et al. 2016, "CryptoNets"; it computes with YASHE on whole numbers, we with CKKS.
Survey: private AI, homomorphic encryption.

>>> from spai_lab.crypto.ckks import public_key, relinearization_key, secret_key
>>> from spai_lab.crypto.cryptonets_plan import cryptonets_plan
>>> plan = cryptonets_plan(64, insecure=True)
>>> secret = secret_key(plan.context)
>>> layers = (Layer(np.array([[0, 1]]), np.eye(2), np.zeros(2), limit=2.0), Layer(np.array([[0, 1]]), np.ones((1, 2)),
...     np.ones(1)))  # 1 + x_0^2 + x_1^2
>>> pixels = encrypt_batch(public_key(secret), plan, np.array([[0.0, 0.5], [1.0, 1.0]]))
>>> logits = encrypted_logits(layers, plan, pixels, relinearization_key(secret))
>>> decrypt_batch(secret, logits, 2).round(4).tolist()
[[1.25], [3.0]]
"""

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from torch import Tensor

from spai_lab.checks import check_count, describe
from spai_lab.crypto.ckks import assume_limit, decode, decrypt, encode, encrypt, multiply, relinearize, rescale
from spai_lab.crypto.ckks_ciphertext import Ciphertext, check_type
from spai_lab.crypto.ckks_keys import PublicKey, RelinearizationKey, SecretKey
from spai_lab.crypto.ckks_weights import weighted_sums
from spai_lab.crypto.cryptonets import Layer
from spai_lab.crypto.cryptonets_plan import Plan, ledger, pixel_columns
from spai_lab.crypto.encrypted_checks import check_distinct


def encrypt_batch(key: PublicKey, plan: Plan, x: Tensor | np.ndarray) -> list[Ciphertext]:
    """The client's part: up to N / 2 images, pixel by pixel.

    Args:
        key: public.
        plan: the server's.
        x: images `(B, C, H, W)` or rows `(B, n)`, in [0, 1], B from 1 to N / 2.
    Returns:
        n ciphertexts, image j in slot j of each; their number says nothing about B.
    Raises:
        ValueError: names the argument.
    """
    check_type("key", key, PublicKey)
    columns = pixel_columns(plan, x)
    return [encrypt(key, encode(plan.context, column, scale=plan.input_scale, limit=1.0)) for column in columns]


def encrypted_logits(
    layers: Sequence[Layer], plan: Plan, pixels: Sequence[Ciphertext], key: RelinearizationKey
) -> list[Ciphertext]:
    """The server's part: it sees ciphertexts, weights and a key that decrypts nothing.

    Sums are taken as squares come, and squares as sums come, so that hardly more than the pixels is ever in memory.

    Args:
        layers: of `spai_lab.crypto.cryptonets.fold`.
        plan: how to compute it.
        pixels: of `encrypt_batch`.
        key: for relinearization.
    Returns:
        K ciphertexts.
    Raises:
        ValueError: names the argument; a network that is too deep, before anything is computed.
    """
    ledger(layers, plan)
    check_type("key", key, RelinearizationKey)
    if not isinstance(pixels, Sequence) or len(pixels) < layers[0].inputs:
        raise ValueError(f"pixels is {describe(pixels)}; accepted: a list of at least {layers[0].inputs} ciphertexts")
    for place, x in enumerate(pixels):
        check_type(f"pixels[{place}]", x, Ciphertext)
    check_distinct("pixels", pixels)
    values: Iterable[Ciphertext] = pixels
    for depth, layer in enumerate(layers):
        values = settled_sums(layer, squares(values) if depth else values, plan, key)
    return list(values)


def squares(values: Iterable[Ciphertext]) -> Iterator[Ciphertext]:
    """Each times itself, of three parts."""
    return (multiply(x, x) for x in values)


def settled_sums(
    layer: Layer, values: Iterable[Ciphertext], plan: Plan, key: RelinearizationKey
) -> Iterator[Ciphertext]:
    """A layer, each sum with two parts and at its rest."""
    for y in layer_sums(layer, values, plan.weight_scale):
        y = relinearize(y, key)
        for _ in range(plan.rescalings(y.level, y.scale)):
            y = rescale(y)
        yield assume_limit(y, layer.limit) if layer.limit < math.inf else y


def layer_sums(layer: Layer, values: Iterable[Ciphertext], scale: float) -> Iterator[Ciphertext]:
    """A layer's weighted sums, group by group; one that reads all inputs in order takes them as they come."""
    if len(layer.reads) == 1 and (layer.reads[0] == np.arange(layer.W.shape[1])).all():
        yield from weighted_sums(values, layer.W, layer.b, scale=scale)
    else:
        values = list(values)
        for reads in layer.reads:
            yield from weighted_sums([values[i] for i in reads], layer.W, layer.b, scale=scale)


def decrypt_batch(secret: SecretKey, logits: Sequence[Ciphertext], count: int) -> np.ndarray:
    """The client's part again: the logits of the first `count` images, `(count, K)`."""
    check_count("count", count)
    return np.stack([decode(decrypt(secret, y)).real[:count] for y in logits], axis=1)

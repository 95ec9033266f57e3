r"""One encrypted image through CryptoNets' own network: a convolution, linear layers, and a square before each of them.

`spai_lab.crypto.cryptonets_encrypted` answers 4,096 images at the price of one, which is the price of each single one
too. Here a single image is answered quickly, as in LoLa: many numbers of it share a ciphertext.

- `encrypt_windows`: one ciphertext for each pixel of the convolution's window, with that pixel at each of its places.
- `encrypted_logits`: the convolution is one product for each of them. Then, by turns, a square, slot by slot, and a
  linear layer: `rotated_products`, all steps at once, and the sum of the blocks.
- `decrypt_logits`: the logits, and how wrong each can be.

What stands where is in `spai_lab.crypto.encrypted_cnn_layout`, errors are in `spai_lab.crypto.encrypted_cnn_errors`.

**For learning, not for secrets**: as `spai_lab.crypto.ckks`. And the server hides its weights from the client no better
than the noise happens to: no circuit privacy, and the bounds that travel with the logits tell sums of their sizes.

Reference: Brutzkus, Elisha and Gilad-Bachrach 2018, "Low latency privacy preserving inference" (LoLa), arXiv
1812.10659; Gilad-Bachrach et al. 2016, "CryptoNets". Survey: private AI, homomorphic encryption.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from torch import Tensor

from spai_lab.checks import check_images, describe
from spai_lab.crypto.ckks import (
    Ciphertext,
    add,
    add_plain,
    assume_limit,
    encode,
    encrypt,
    multiply,
    multiply_plain,
    relinearize,
    rescale,
    rotate_sum,
)
from spai_lab.crypto.ckks_ciphertext import check_type
from spai_lab.crypto.ckks_context import Context
from spai_lab.crypto.ckks_encoding import Plaintext
from spai_lab.crypto.ckks_hoisting import WidePlaintext, rotated_products, widened
from spai_lab.crypto.ckks_keys import PublicKey, RelinearizationKey, RotationKeys, SecretKey
from spai_lab.crypto.cryptonets import Layer, matrix
from spai_lab.crypto.encrypted_checks import check_distinct, check_evaluation_keys, check_fresh
from spai_lab.crypto.encrypted_cnn_errors import convolution_error, linear_error, square_error
from spai_lab.crypto.encrypted_cnn_layout import CnnLayout, LinearLayout, check_cnn_layout, cnn_layout
from spai_lab.crypto.encrypted_mlp import encode_known, finest_scale, first_slots
from spai_lab.crypto.ntt import read_only

COARSER = 4.0  # than all others is the scale that the last square reads, so that more is left for the weights after it

# --- the client -------------------------------------------------------------------------------------------------------


def encrypt_windows(public: PublicKey, layout: CnnLayout, x: Tensor) -> list[Ciphertext]:
    """One image: a ciphertext for each pixel of the convolution's window, a slot for each place and map.

    Args:
        public: the client's own key.
        layout: of the network.
        x: one image, pixels in [0, 1], of any shape.
    Returns:
        n ciphertexts; all that the server sees.
    Raises:
        ValueError: names the argument; pixels outside [0, 1], which the limits of activations do not cover.
    """
    check_type("public", public, PublicKey)
    check_cnn_layout(layout, public.context)
    if not isinstance(x, Tensor) or x.numel() < layout.pixels:
        raise ValueError(f"x is {describe(x)}; accepted: one image of at least {layout.pixels} pixels")
    check_images(x.reshape(1, -1))
    pixels = x.detach().double().flatten().numpy()[layout.windows].repeat(layout.maps, axis=0)  # (G m, n)
    columns = layout.linear[0].columns
    return [encrypt(public, encode(public.context, held(pixel, columns), limit=1.0)) for pixel in pixels.T]


def decrypt_logits(secret: SecretKey, layout: CnnLayout, y: Ciphertext) -> tuple[Tensor, Tensor]:
    """The logits, and how wrong each can be.

    Args:
        secret: the client's.
        layout: of the network.
        y: of `encrypted_logits`.
    Returns:
        float64 logits `(K,)`, and a bound on the error of each, `(K,)`, if no activation exceeds its limit.
    Raises:
        ValueError: names the argument.
    """
    check_type("secret", secret, SecretKey)
    check_cnn_layout(layout, secret.context)
    return first_slots(secret, y, layout.classes)


# --- the server, once -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class EncodedCnn:
    """The weights as plaintexts, encoded once for all images.

    A plaintext for each pixel of the window; for each linear layer one for each step; a bias for each layer; limits of
    what each square reads, `(S,)`; bounds on the errors of the logits, `(K,)`.
    """

    layout: CnnLayout
    convolution: tuple[Plaintext, ...]
    linear: tuple[tuple[WidePlaintext, ...], ...]
    biases: tuple[Plaintext, ...]
    limits: tuple[np.ndarray, ...]
    errors: np.ndarray

    def __post_init__(self) -> None:
        for array in (*self.limits, self.errors):
            read_only(array)


def encode_layers(context: Context, layers: Sequence[Layer]) -> EncodedCnn:
    r"""Lay the weights out as `encrypted_logits` needs them, each at the level and the scale at which it is used.

    After each rescaling of a layer numbers have the context's scale again, or a quarter of it before the last square,
    so that more is left for the weights after it. These take what room there is for logits of the size that the limits
    allow.

    Args:
        context: of `recommended_cnn_context`, or another with as many levels.
        layers: of `spai_lab.crypto.cryptonets.fold`. Their limits are public constants that both parties agree on
            beforehand, since bounds and scale follow from them. An image whose activations exceed them is not noticed,
            by the server least of all; the bound is no longer its own, and far beyond its logits are any numbers.
    Returns:
        the encoded network; it stays with the server.
    Raises:
        ValueError: names the argument; a network that is too deep or too wide.
    """
    layout = cnn_layout(context, layers)
    (first, *rest), primes, level = layers, context.primes, context.levels
    scales = [context.scale] * (len(rest) - 1) + [context.scale / COARSER]  # of what each square reads
    columns, places = layout.linear[0].columns, len(first.reads)
    at_places = lambda values: held(np.tile(values, places), columns)  # noqa: E731
    fine = scales[0] * primes[level] / context.scale
    convolution = tuple(encode_known(context, at_places(w), scale=fine, level=level) for w in first.W.T)
    level -= 1
    biases = [encode_known(context, at_places(first.b), scale=scales[0], level=level)]
    size = np.minimum(np.tile(np.abs(first.W).sum(1) + np.abs(first.b), places), first.limit)
    limits, linear, rho = [held(size, columns)], [], convolution_error(convolution, biases[0])
    for layer, where, scale, after in zip(rest, layout.linear, scales, [*scales[1:], None], strict=True):
        rho = square_error(context, rho, float(size.max()), level, scale)
        W, scale, size, level = matrix(layer, where.inputs), scale**2 / primes[level], size**2, level - 1
        largest = np.abs(W) @ size + np.abs(layer.b)
        if after is None:
            fine = finest_scale(context, level, scale, largest.sum() / where.block)
            scale_after, level_after = scale * fine, level
        else:
            fine = after * primes[level] / scale
            scale_after, level_after = after, level - 1
        true = diagonals(W, where)
        weights = [encode_known(context, w, scale=fine, level=level) for w in true]
        bias = encode_known(context, held(layer.b, where.rows), scale=scale_after, level=level_after)
        rho = linear_error(weights, true, bias, where, rho, size, scale)
        linear.append(tuple(map(widened, weights)))
        biases.append(bias)
        size, level = np.minimum(largest, layer.limit), level_after
        limits.append(held(size, where.rows))
    return EncodedCnn(layout, convolution, tuple(linear), tuple(biases), tuple(limits[:-1]), rho)


def held(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """What stands in each slot, of the number that `places` says; 0 for -1."""
    return np.where(places < 0, 0.0, values[places])


def diagonals(W: np.ndarray, where: LinearLayout) -> np.ndarray:
    r"""$(w_t)_s = W_{k(s), j(s + t)}$, `(p, S)`; 0 where there is no such row or column."""
    rows = where.rows
    ahead = np.stack([np.roll(where.columns, -t) for t in range(where.steps)])
    return np.where((rows < 0) | (ahead < 0), 0.0, W[rows, ahead])


# --- the server, for each image ---------------------------------------------------------------------------------------


def encrypted_logits(
    network: EncodedCnn, pixels: Sequence[Ciphertext], relinearization: RelinearizationKey, rotations: RotationKeys
) -> Ciphertext:
    r"""The network on an image that stays encrypted.

    Args:
        network: of `encode_layers`.
        pixels: of `encrypt_windows`.
        relinearization, rotations: the client's keys; the latter for `network.layout.rotations`.
    Returns:
        the logits, $z_k$ in slot k, and again every B slots of the last layer; 0 elsewhere.
    Raises:
        ValueError: names the argument, before anything is computed.
    Reference: Brutzkus et al. 2018, arXiv 1812.10659 (LoLa); Gilad-Bachrach et al. 2016, "CryptoNets".
    Survey: private AI, cryptography, homomorphic encryption.
    Simplified: LoLa changes between more ways to lay a vector out; here each layer leaves what the next one needs.

    >>> import torch
    >>> from spai_lab.crypto.ckks import ckks_context, public_key, relinearization_key, rotation_keys, secret_key
    >>> from spai_lab.crypto.cryptonets import cryptonet, fold, plain_logits
    >>> layers = fold(cryptonet((1, 7, 7), 3, maps=2, units=4), (1, 7, 7))
    >>> context = ckks_context(128, (30,) * 6, scale=2.0**28, insecure=True)
    >>> network, x = encode_layers(context, layers), torch.rand(1, 7, 7)
    >>> secret = secret_key(context)  # the client's, as all keys
    >>> keys = relinearization_key(secret), rotation_keys(secret, network.layout.rotations)
    >>> z = encrypted_logits(network, encrypt_windows(public_key(secret), network.layout, x), *keys)
    >>> logits, bound = decrypt_logits(secret, network.layout, z)
    >>> bool((np.abs(logits.numpy() - plain_logits(layers, x[None])[0]) < bound.numpy()).all()), z.level
    (True, 1)
    """
    check_type("network", network, EncodedCnn)
    check_server(network, pixels, relinearization, rotations)
    z = reduce(add, (multiply_plain(x, w) for x, w in zip(pixels, network.convolution, strict=True)))
    layers = zip(network.layout.linear, network.linear, network.biases, network.limits, strict=False)
    for where, weights, bias, limit in layers:
        h = assume_limit(add_plain(rescale(z), bias), limit)
        square = rescale(relinearize(multiply(h, h), relinearization))
        z = rotated_products(square, weights, rotations)
        for steps in where.blocks:
            z = rotate_sum(z, steps, rotations)
    z = add_plain(z, network.biases[-1])
    rows = network.layout.linear[-1].rows
    return replace(z, error=np.where(rows < 0, z.error, np.minimum(z.error, network.errors[rows])))


def check_server(
    network: EncodedCnn, pixels: Sequence[Ciphertext], relinearization: RelinearizationKey, rotations: RotationKeys
) -> None:
    """Raise `ValueError` unless all is there that the evaluation needs."""
    count = len(network.convolution)
    if not isinstance(pixels, list | tuple) or len(pixels) != count:
        raise ValueError(f"pixels is {describe(pixels)}; accepted: {count} ciphertexts, of encrypt_windows")
    for place, x in enumerate(pixels):
        check_fresh(f"pixels[{place}]", x, network.biases[0], "encrypt_windows")
        check_evaluation_keys(x, relinearization, rotations, network.layout.rotations)
    check_distinct("pixels", pixels)

r"""One encrypted image through a small network: d - h - K with a square between, three levels, 24 rotations.

The client packs the image x into the slots of one ciphertext, the server computes $W_2 \, (W_1 x + b_1)^2 + b_2$
on it, the client decrypts K logits. The slots form a table of H rows and B columns, H and D being h and d rounded up to
powers of two, and slot $s = B a + c$ standing in row a and column c:

- `encrypt_image`: each slot holds $x_{c \bmod D}$, so that every row has the whole image, more than once.
- First layer: row a is multiplied by $W_{1,a}$, all rows at once by one plaintext, and the sum over D neighbors,
  $h_a = \sum_{r < D} W_{1,a,(c+r) \bmod D} \; x_{(c+r) \bmod D} + b_{1,a}$, stands in the columns c = 0, ..., B - D.
- Square: $h_a^2$, where $h_a$ stood.
- Second layer: column c < K is multiplied by $W_{2,c}$, the others by 0; the sum over steps of B goes all the way round
  the rows, so that $z_c = \sum_a W_{2,c,a} h_a^2 + b_{2,c}$ stands in column c of each row, and nothing elsewhere.

A sum over D neighbors takes two groups: $\sum_{r<D} \rho_r = \sum_{i<D/b} \rho_{b i} \circ \sum_{j<b} \rho_j$, with
$\rho_r$ the rotation by r: baby steps, then giant steps, 14 rotations instead of 63 (`rotate_sum`). The classical
method, which needs no copies of x but one product and one rotation a diagonal, is in
`spai_lab.crypto.encrypted_matrix`.

**For learning, not for secrets**: as `spai_lab.crypto.ckks`. And the server hides its weights from the client no better
than the noise happens to: no circuit privacy, and the bounds that travel with the logits tell sums of their sizes.

Reference: Brutzkus, Elisha and Gilad-Bachrach 2018, "Low latency privacy preserving inference" (LoLa), arXiv
1812.10659, for copies of the input stacked in one ciphertext; Juvekar, Vaikuntanathan and Chandrakasan 2018, "GAZELLE",
arXiv 1801.05507; Halevi and Shoup 2014, "Algorithms in HElib", IACR 2014/106, section 4. Survey: private AI,
homomorphic encryption.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from spai_lab.checks import check_images, check_number, describe
from spai_lab.crypto.ckks import (
    Ciphertext,
    add_plain,
    assume_limit,
    decode,
    decrypt,
    encode,
    encrypt,
    multiply,
    multiply_plain,
    relinearize,
    rescale,
    rotate_sum,
)
from spai_lab.crypto.ckks_ciphertext import check_type
from spai_lab.crypto.ckks_context import Context, room
from spai_lab.crypto.ckks_encoding import Plaintext
from spai_lab.crypto.ckks_keys import PublicKey, RelinearizationKey, RotationKeys, SecretKey
from spai_lab.crypto.ckks_noise import FLOAT
from spai_lab.crypto.encrypted_checks import check_evaluation_keys, check_fresh
from spai_lab.crypto.encrypted_layout import Layout, check_layout, layout_of
from spai_lab.crypto.ntt import read_only
from spai_lab.crypto.square_network import SquareWeights, worst_limits

SPARE = 1.01  # of the room for the logits: what errors may add to sizes
LARGEST_SCALE = 2.0**58  # so that what is encoded fits 64 bits
COARSEST = 10  # bits of the scale of the second matrix


# --- the client -------------------------------------------------------------------------------------------------------


def encrypt_image(public: PublicKey, layout: Layout, x: Tensor) -> Ciphertext:
    r"""One image, repeated until all slots are full: slot s holds $x_{s \bmod D}$.

    Args:
        public: the client's own key.
        layout: of the network.
        x: one image of d pixels in [0, 1], of any shape.
    Returns:
        one ciphertext; all that the server sees.
    Raises:
        ValueError: names the argument; pixels outside [0, 1], which the limits of the hidden values do not cover.
    """
    check_type("public", public, PublicKey)
    check_layout(layout, public.context)
    if not isinstance(x, Tensor) or x.numel() != layout.inputs:
        raise ValueError(f"x is {describe(x)}; accepted: one image of {layout.inputs} pixels")
    check_images(x.reshape(1, -1))
    pixels = np.pad(x.detach().double().flatten().numpy(), (0, layout.D - layout.inputs))
    return encrypt(public, encode(public.context, np.tile(pixels, layout.slots // layout.D), limit=1.0))


def decrypt_logits(secret: SecretKey, layout: Layout, y: Ciphertext) -> tuple[Tensor, Tensor]:
    """The logits, and how wrong each can be.

    Args:
        secret: the client's.
        layout: of the network.
        y: of `encrypted_logits`.
    Returns:
        float64 logits `(K,)`, and a bound on the error of each, `(K,)`, if no hidden value exceeds its limit.
    Raises:
        ValueError: names the argument.
    """
    check_type("secret", secret, SecretKey)
    check_layout(layout, secret.context)
    return first_slots(secret, y, layout.classes)


def first_slots(secret: SecretKey, y: Ciphertext, count: int) -> tuple[Tensor, Tensor]:
    """The numbers in the first slots, float64 `(count,)`, and a bound on the error of each."""
    plaintext = decrypt(secret, y)
    bound = np.broadcast_to(plaintext.error, secret.context.slots)[:count].copy()
    return torch.from_numpy(decode(plaintext).real[:count].copy()), torch.from_numpy(bound)


# --- the server -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class EncodedNetwork:
    """The weights as plaintexts, encoded once for all images, and the limits of the hidden values, `(N / 2,)`, with NaN
    in the slots where none stands.
    """

    layout: Layout
    W1: Plaintext
    b1: Plaintext
    W2: Plaintext
    b2: Plaintext
    limits: np.ndarray

    def __post_init__(self) -> None:
        read_only(self.limits)


def encode_network(
    context: Context,
    weights: SquareWeights,
    *,
    limits: Tensor | Sequence[float] | None = None,
    scale: float | None = None,
) -> EncodedNetwork:
    r"""Lay the weights out as `encrypted_logits` needs them, each at the level and the scale at which it is used.

    The first matrix has the prime that is dropped afterwards as its scale, so that $\Delta$ stays. The second takes
    what room is left for logits of the size that the limits allow: the smaller the limits, the finer the result.

    Args:
        context: with three levels and slots enough.
        weights: of d - h - K.
        limits: on the size of each hidden value $|h_i|$, `(h,)`; None takes `worst_limits`, which no image exceeds.
            They are public constants that both parties agree on beforehand, since bounds and scale follow from them.
            An image that exceeds them is not noticed, by the server least of all: its logits stay right while they fit
            the room, but the bound is no longer theirs; beyond, they wrap around the modulus and are any numbers.
        scale: of the second matrix. None takes the finest there is room for, which depends on the weights and tells
            the client so; one that was agreed on beforehand tells nothing (`spai_lab.crypto.inference_terms`).
    Returns:
        the encoded network; it stays with the server.
    Raises:
        ValueError: names the argument.
    """
    check_type("weights", weights, SquareWeights)
    layout = layout_of(context, *weights.sizes)
    D, H, B = layout.D, layout.H, layout.B
    limits = np.repeat(padded(checked_limits(weights, limits), H), B).reshape(H, B)
    W1 = np.tile(padded(weights.W1.numpy(), H, D), (1, B // D))
    W2 = padded(weights.W2.numpy().T, H, B)
    b1 = np.repeat(padded(weights.b1.numpy(), H), B)
    b2 = np.tile(padded(weights.b2.numpy(), B), H)
    top = context.levels
    q1, q2 = context.primes[top], context.primes[top - 1]
    square_scale = context.scale**2 / q2
    logits = (np.abs(W2) * limits**2).sum(0).mean() + np.abs(b2).mean()
    finest = finest_scale(context, top - 2, square_scale, float(logits))
    scale = finest if scale is None else scale
    check_number("scale", scale, low=1, high=finest)
    return EncodedNetwork(
        layout,
        encode_known(context, W1.ravel(), scale=float(q1), level=top),
        encode_known(context, b1, scale=context.scale, level=top - 1),
        encode_known(context, W2.ravel(), scale=scale, level=top - 2),
        encode_known(context, b2, scale=square_scale * scale, level=top - 2),
        np.where(np.arange(B) <= B - D, limits, np.nan).ravel(),
    )


def finest_scale(context: Context, level: int, scale: float, size: float) -> float:
    """The largest power of two that fits beside a scale, for numbers of this size on average over the slots."""
    accepted = room(context, level, scale) / SPARE / max(size, 1.0)
    bits = math.floor(math.log2(min(accepted, LARGEST_SCALE / scale)))
    if bits < COARSEST:
        raise ValueError(
            f"limits allow logits for which the modulus leaves a scale of 2^{bits}; accepted: smaller limits, weights "
            f"or scale of the context, so that 2^{COARSEST} or more is left"
        )
    return 2.0**bits


def encode_known(context: Context, values: np.ndarray, *, scale: float, level: int) -> Plaintext:
    """Encode numbers that one knows: what encoding does to each is measured, where `encode` can only bound it."""
    sizes = np.abs(values)
    plaintext = encode(context, values, scale=scale, level=level, limit=sizes)
    return replace(plaintext, error=np.abs(decode(plaintext) - values) + FLOAT * float(sizes.max()))


def encrypted_logits(
    network: EncodedNetwork, x: Ciphertext, relinearization: RelinearizationKey, rotations: RotationKeys
) -> Ciphertext:
    r"""$W_2 \, (W_1 x + b_1)^2 + b_2$ on an image that stays encrypted: one plaintext product a layer.

    Args:
        network: of `encode_network`.
        x: of `encrypt_image`.
        relinearization, rotations: the client's keys; the latter for `network.layout.rotations`.
    Returns:
        the logits, $z_c$ in slot c, and again every B slots; 0 elsewhere.
    Raises:
        ValueError: names the argument, before anything is computed.
    Reference: Brutzkus et al. 2018, arXiv 1812.10659 (LoLa), and others that the module names.
    Survey: private AI, cryptography, homomorphic encryption.
    Simplified: rotations of the first layer come before its rescaling, which costs a fifth more time than after it,
        and keeps three more bits.

    >>> from spai_lab.crypto.ckks import ckks_context, public_key, relinearization_key, rotation_keys, secret_key
    >>> from spai_lab.crypto.square_network import square_logits, square_network, weights_of
    >>> context = ckks_context(64, (30,) * 4, insecure=True)
    >>> weights, x = weights_of(square_network((1, 2, 2), 2, hidden=4)), torch.rand(1, 2, 2)
    >>> network = encode_network(context, weights)
    >>> secret = secret_key(context)  # the client's, as all keys
    >>> keys = relinearization_key(secret), rotation_keys(secret, network.layout.rotations)
    >>> z = encrypted_logits(network, encrypt_image(public_key(secret), network.layout, x), *keys)
    >>> logits, bound = decrypt_logits(secret, network.layout, z)
    >>> bool(((logits - square_logits(weights, x[None])[0]).abs() < bound).all()), z.level
    (True, 1)
    """
    return encrypted_stages(network, x, relinearization, rotations)["logits"]


def encrypted_stages(
    network: EncodedNetwork, x: Ciphertext, relinearization: RelinearizationKey, rotations: RotationKeys
) -> dict[str, Ciphertext]:
    """What `encrypted_logits` computes on its way: "first", the hidden values; "square"; "logits"."""
    check_type("network", network, EncodedNetwork)
    check_fresh("x", x, network.W1, "encrypt_image")
    check_evaluation_keys(x, relinearization, rotations, network.layout.rotations)
    h = multiply_plain(x, network.W1)
    for steps in network.layout.neighbors:
        h = rotate_sum(h, steps, rotations)
    h = add_plain(rescale(h), network.b1)
    h = assume_limit(h, np.fmin(h.limit, network.limits))  # which passes over NaN
    square = rescale(relinearize(multiply(h, h), relinearization))
    z = multiply_plain(square, network.W2)
    for steps in network.layout.rows:
        z = rotate_sum(z, steps, rotations)
    return {"first": h, "square": square, "logits": add_plain(z, network.b2)}


# --- checks -----------------------------------------------------------------------------------------------------------


def padded(values: np.ndarray, *shape: int) -> np.ndarray:
    """With zeros, to this shape."""
    return np.pad(values, [(0, size - had) for had, size in zip(values.shape, shape, strict=True)])


def checked_limits(weights: SquareWeights, limits: Tensor | Sequence[float] | None) -> np.ndarray:
    """The limits, float64 `(h,)`; raise `ValueError` unless there is a finite one for each."""
    if limits is None:
        return worst_limits(weights).numpy()
    h = weights.sizes[1]
    try:
        values = np.asarray(limits, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"limits is {describe(limits)}; accepted: {h} numbers, one for each hidden value") from None
    if values.shape != (h,) or not (np.isfinite(values) & (values >= 0)).all():
        raise ValueError(
            f"limits is {describe(limits)}; accepted: {h} finite numbers of at least 0, one for each hidden value"
        )
    return values

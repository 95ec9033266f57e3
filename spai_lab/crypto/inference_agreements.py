r"""Agreements for encrypted inference: from sizes and limits alone to the headers of all questions and answers.

For single images (`image_agreement`) and for a batch (`batch_agreement`), each with the check that holds the server's
weights to it. Bounds are those of the worst weights within the limits, computed on paper.

Reference: Gilad-Bachrach et al. 2016, "CryptoNets"; Brutzkus, Elisha and Gilad-Bachrach 2018, arXiv 1812.10659; Cheon
et al. 2016, IACR 2016/421, for the bounds. Survey: private AI, homomorphic encryption.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from spai_lab.checks import check_number, describe
from spai_lab.crypto.ckks_ciphertext import check_type
from spai_lab.crypto.ckks_context import Bound, Context
from spai_lab.crypto.ckks_encoding import SAME_SCALE
from spai_lab.crypto.ckks_noise import product_error, rescaling_error, switching_error
from spai_lab.crypto.cryptonets import Layer
from spai_lab.crypto.cryptonets_plan import Plan, ledger
from spai_lab.crypto.encrypted_layout import Layout, layout_of
from spai_lab.crypto.encrypted_mlp import finest_scale
from spai_lab.crypto.inference_terms import (
    Form,
    Terms,
    check_row,
    check_rows,
    digest,
    fresh_error,
    fresh_form,
    known_error,
    rounded_up,
    row_sum,
)
from spai_lab.crypto.square_network import SquareWeights, worst_limits


@dataclass(frozen=True, eq=False)
class ImageAgreement:
    """For `spai_lab.crypto.encrypted_mlp`: the layout, the limits, the scale of the second matrix, and the terms."""

    layout: Layout
    rows: tuple[float, float]
    hidden_limit: float
    scale: float
    terms: Terms


@dataclass(frozen=True, eq=False)
class BatchAgreement:
    """For `spai_lab.crypto.cryptonets_encrypted`: the plan, the layers with even weights of the limits, the terms."""

    plan: Plan
    layers: tuple[Layer, ...]
    terms: Terms


# --- one image --------------------------------------------------------------------------------------------------------


def image_agreement(
    context: Context, sizes: tuple[int, int, int], *, rows: tuple[float, float], hidden_limit: float | None = None
) -> ImageAgreement:
    r"""For single images through d - h - K: all headers, from sizes and limits alone.

    Args:
        context: of `spai_lab.crypto.encrypted_layout.recommended_context`.
        sizes: d, h, K.
        rows: of both layers, how large weights and bias of a row may be in sum, as of `row_limit`.
        hidden_limit: on all $|h_i|$ for any image in [0, 1]; None takes the first of `rows`, which never fails.
    Returns:
        what both parties get.
    Raises:
        ValueError: names the argument; the limits allow logits for which there is no room.
    Reference: Brutzkus, Elisha and Gilad-Bachrach 2018, arXiv 1812.10659, for the network; Cheon et al. 2016, IACR
        2016/421, for the bounds.
    Survey: private AI, homomorphic encryption.

    >>> from spai_lab.crypto.encrypted_layout import recommended_context
    >>> agreed = image_agreement(recommended_context(64, 32, 10), (64, 32, 10), rows=(20.0, 9.0), hidden_limit=10.0)
    >>> agreed.terms.answer.level, math.log2(agreed.scale), float(agreed.terms.answer.limit.max())
    (1, 22.0, 900.0)
    """
    layout = layout_of(context, *sizes)
    check_rows(rows, 2)
    hidden_limit = rows[0] if hidden_limit is None else hidden_limit
    check_number("hidden_limit", hidden_limit, low=0, exclusive=True)
    first, second = rows
    hidden = min(float(hidden_limit), first)
    top, q2 = context.levels, context.primes[context.levels - 1]
    square_scale = context.scale**2 / q2
    largest = second * max(hidden**2, 1.0)
    scale = finest_scale(context, top - 2, square_scale, largest * layout.classes / layout.B)
    logits, elsewhere = image_errors(context, layout, (first, second), hidden, scale)
    is_logit = np.tile(np.arange(layout.B) < layout.classes, layout.H)
    answer = Form(
        1, top - 2, square_scale * scale, np.where(is_logit, largest, 0.0), np.where(is_logit, logits, elsewhere)
    )
    question = fresh_form(context, 1, context.scale)
    said = ("image", context, layout, (first, second), hidden, scale, logits, elsewhere, question.error)
    terms = Terms(context, question, answer, layout.rotations, digest(said))
    return ImageAgreement(layout, (first, second), hidden, scale, terms)


def image_errors(
    context: Context, layout: Layout, rows: tuple[float, float], hidden: float, scale: float
) -> tuple[float, float]:
    """What may be wrong with logits, and with the slots elsewhere, for any weights within the limits.

    Columns to the right, where no hidden value stands, sum parts of two rows and are limited by no one; the second
    matrix is 0 there.
    """
    N, top = context.degree, context.levels
    first, second = rows
    delta, q1, q2 = context.scale, context.primes[top], context.primes[top - 1]
    sums = np.array([first, 2 * first])  # where hidden values stand, and elsewhere
    x = fresh_error(context, delta)
    weight = known_error(N, float(q1), first)
    h = sums * x + layout.D * weight * (1 + x)
    h = rotated(context, h, layout.neighbors, top, delta * q1)
    h = h + rescaling_error(N) / delta + known_error(N, delta, first) + SAME_SCALE * first
    limit = np.array([hidden, 2 * first])
    square_scale = delta**2 / q2
    relinearized = switching_error(N, context.at(top - 1), context.special) / delta**2
    square = product_error(limit, h, limit, h) + relinearized + rescaling_error(N) / square_scale
    weight = known_error(N, scale, second)
    z = np.array([second, 0.0]) * square + layout.H * weight * (limit**2 + square)
    z = rotated(context, z, layout.rows, top - 2, square_scale * scale)
    z = z + known_error(N, square_scale * scale, second) + SAME_SCALE * second
    return rounded_up(float(z[0])), rounded_up(float(z[1]))


def rotated(context: Context, error: np.ndarray, groups: Sequence[Sequence[int]], level: int, scale: float) -> Bound:
    """The error of sums by `rotate_sum` in these groups, of which `error` is that of the sums if rotating were free."""
    rest = math.prod(map(len, groups))
    for group in groups:
        rest //= len(group)
        if len(group) > 1:
            noise = switching_error(context.degree, context.at(level), context.special, len(group) - 1)
            error = error + rest * noise / scale
    return error


def check_image_weights(agreement: ImageAgreement, weights: SquareWeights) -> None:
    """Raise `ValueError` unless the weights keep to what was agreed on, for any image in [0, 1]."""
    check_type("agreement", agreement, ImageAgreement)
    check_type("weights", weights, SquareWeights)
    layout = agreement.layout
    if weights.sizes != (layout.inputs, layout.hidden, layout.classes):
        raise ValueError(
            f"weights are of a network {weights.sizes}; accepted: {(layout.inputs, layout.hidden, layout.classes)}, as "
            "agreed on"
        )
    for name, W, b, limit in [
        ("W1", weights.W1, weights.b1, agreement.rows[0]),
        ("W2", weights.W2, weights.b2, agreement.rows[1]),
    ]:
        check_row(f"weights.{name}", row_sum(W, b), limit)
    largest = float(worst_limits(weights).max())
    if largest > agreement.hidden_limit:
        raise ValueError(
            f"weights have hidden values up to {largest:.4g}; accepted: at most {agreement.hidden_limit:.4g}, the "
            "hidden_limit agreed on"
        )


# --- a batch ----------------------------------------------------------------------------------------------------------


def batch_agreement(
    plan: Plan, layers: Sequence[Layer], *, rows: Sequence[float], pixels: int | None = None
) -> BatchAgreement:
    r"""For a batch, one image a slot: all headers, from the network's structure and the limits alone.

    Of the layers only what is public is taken: which inputs they read, their shapes and limits of activations. Weights
    are replaced by even ones whose rows sum up to the limits, for which the sizes on paper are the largest.

    Args:
        plan: of `spai_lab.crypto.cryptonets_plan.cryptonets_plan`.
        layers: of `spai_lab.crypto.cryptonets.fold`, or of another agreement.
        rows: of each layer, how large weights and bias of a row may be in sum, as of `row_limit`.
        pixels: of an image, where the last ones are not read; None takes what the first layer reads.
    Returns:
        what both parties get.
    Raises:
        ValueError: names the argument; a network that is too deep for these limits.
    Reference: Gilad-Bachrach et al. 2016, "CryptoNets", for the network; Cheon et al. 2016, IACR 2016/421, for bounds.
    Survey: private AI, homomorphic encryption.
    """
    ledger(layers, plan)
    check_rows(rows, len(layers))
    even = tuple(
        replace(layer, W=np.full(layer.W.shape, row / (layer.W.shape[1] + 1)), b=np.full(len(layer.W), row))
        for layer, row in zip(layers, rows, strict=True)
    )
    pixels = layers[0].inputs if pixels is None else pixels
    check_number("pixels", pixels, low=layers[0].inputs)
    context, (*_, last) = plan.context, ledger(even, plan)
    question = fresh_form(context, pixels, plan.input_scale)
    answer = Form(last.ciphertexts, last.level, last.scale, last.size, rounded_up(batch_error(even, plan, rows)))
    structure = [(layer.reads.tolist(), layer.W.shape, row, layer.limit) for layer, row in zip(even, rows, strict=True)]
    fingerprint = digest(("batch", plan, structure, pixels, answer.error, question.error))
    return BatchAgreement(plan, even, Terms(context, question, answer, (), fingerprint))


def batch_error(layers: Sequence[Layer], plan: Plan, rows: Sequence[float]) -> float:
    """What may be wrong with a logit, as ciphertexts track it, for any weights within the limits."""
    N, context = plan.context.degree, plan.context
    error, size, rows = fresh_error(context, plan.input_scale), 1.0, iter(rows)
    for stage in ledger(layers, plan):
        if stage.what == "square":
            error = product_error(math.sqrt(stage.size), error, math.sqrt(stage.size), error)
        elif stage.what == "sums":
            row = next(rows)
            error = row * error + SAME_SCALE * row * size + 0.5 / stage.scale
        elif stage.what == "relinearize":
            error += switching_error(N, context.at(stage.level), context.special) / stage.scale
        elif stage.what == "rescale":
            error += rescaling_error(N) / stage.scale
        size = stage.size
    return error


def check_batch_layers(agreement: BatchAgreement, layers: Sequence[Layer]) -> None:
    """Raise `ValueError` unless the layers keep to what was agreed on."""
    check_type("agreement", agreement, BatchAgreement)
    if not isinstance(layers, tuple | list) or len(layers) != len(agreement.layers):
        raise ValueError(f"layers is {describe(layers)}; accepted: {len(agreement.layers)} of them, as agreed on")
    for depth, (layer, even) in enumerate(zip(layers, agreement.layers, strict=True)):
        check_type(f"layers[{depth}]", layer, Layer)
        alike = layer.W.shape == even.W.shape and np.array_equal(layer.reads, even.reads) and layer.limit == even.limit
        if not alike:
            raise ValueError(f"layers[{depth}] has another shape, order or limit; accepted: those agreed on")
        check_row(f"layers[{depth}]", row_sum(layer.W, layer.b), float(even.b[0]))
        w = layer.W * agreement.plan.weight_scale
        if not (np.rint(w) == w).all():
            raise ValueError(
                f"layers[{depth}] has weights that are no multiples of 2^-{math.log2(agreement.plan.weight_scale):g}; "
                "accepted: weights that fold has rounded, which encoding does not change"
            )

r"""An encrypted network on paper: its levels, scales and errors follow from its weights, before anything is encrypted.

A square doubles the bits of the scale, a layer adds those of its weights, rescaling takes a prime away, and the modulus
must have room for all of it. A network that is too deep fails here, by the name of the layer that does not fit
(`ledger`). How wrong logits can be is a matter of the noise and of what the network makes of it (`logit_error`).

Reference: Gilad-Bachrach et al. 2016, "CryptoNets", for the network; Cheon et al. 2016, IACR
2016/421, for the noise. Survey: private AI, homomorphic encryption.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from torch import Tensor

from spai_lab.checks import check_number, describe
from spai_lab.crypto.ckks_ciphertext import check_type
from spai_lab.crypto.ckks_context import Context, ckks_context, room
from spai_lab.crypto.ckks_noise import FLOAT, encoding_error, encryption_error, rescaling_error, switching_error
from spai_lab.crypto.cryptonets import Layer, matrix


@dataclass(frozen=True)
class Plan:
    """How a network is computed: the context, the scales of pixels and weights, and where rescaling stops.

    After each layer sums are rescaled as often as their scale stays at `rest_scale` or above.
    """

    context: Context
    input_scale: float
    weight_scale: float
    rest_scale: float

    def rescalings(self, level: int, scale: float) -> int:
        """How often sums of this level and scale are rescaled."""
        times = 0
        while times < level and scale / self.context.primes[level - times] >= self.rest_scale:
            scale /= self.context.primes[level - times]
            times += 1
        return times


@dataclass(frozen=True)
class Stage:
    """A step of a network on paper: what is done to how many ciphertexts, of which level, scale and size."""

    what: str
    ciphertexts: int
    level: int
    scale: float
    size: float
    layer: Layer | None = None


def cryptonets_plan(degree: int = 8192, *, insecure: bool = False) -> Plan:
    r"""The plan for CryptoNets' network and others of two squares, for weights that are rounded to 16 bits.

    Pixels get 36 bits. So sums of their squares have $2 (36 + 16) + 16 = 120$, of which three rescalings take 90, and
    the logits $2 \cdot 30 + 16 = 76$, of which one more takes 30.

    Args:
        degree: N; 8,192 is the least that is secure, and answers 4,096 images.
        insecure: skip the security table, for small and quick toys.
    Returns:
        the plan.
    Raises:
        ValueError: names the argument.

    >>> print(cryptonets_plan().context)
    CKKS: N = 8,192, 4,096 slots, chain 30 + 30 + 30 + 30 + 30 + 30 bits and a special prime of 30, 210 bits in all
    (128-bit security); 5 levels, scale 2^30
    """
    return Plan(ckks_context(degree, (30,) * 6, insecure=insecure), 2.0**36, 2.0**16, 2.0**28)


def ledger(layers: Sequence[Layer], plan: Plan) -> tuple[Stage, ...]:
    """Level, scale and size after each step; a network that is too deep fails here, before anything is encrypted.

    Args:
        layers: of `spai_lab.crypto.cryptonets.fold`.
        plan: how to compute it.
    Returns:
        one stage for each step: "pixels", then for each layer "square" (but before the first), "sums", "relinearize"
        (after a square) and "rescale", as often as the plan says.
    Raises:
        ValueError: the layer for which the modulus has no room left.

    >>> from spai_lab.crypto.cryptonets import cryptonet, fold
    >>> layers = fold(cryptonet(), limits=(4.0, 8.0))
    >>> [stage.level for stage in ledger(layers, cryptonets_plan()) if stage.what == "sums"]
    [5, 5, 2]
    """
    check_layers(layers, plan)
    level, scale, size = plan.context.levels, plan.input_scale, 1.0
    stages = [Stage("pixels", layers[0].inputs, level, scale, size)]
    for depth, layer in enumerate(layers):
        if depth:
            scale, size = scale**2, size**2
            stages.append(Stage("square", stages[-1].ciphertexts, level, scale, size))
        scale, size = scale * plan.weight_scale, largest_sum(layer, size)
        if size >= room(plan.context, level, scale):
            raise too_deep(layers, plan, depth, Stage("sums", layer.outputs, level, scale, size))
        stages.append(Stage("sums", layer.outputs, level, scale, size, layer))
        if depth:
            stages.append(Stage("relinearize", layer.outputs, level, scale, size))
        for _ in range(plan.rescalings(level, scale)):
            scale, level = scale / plan.context.primes[level], level - 1
            stages.append(Stage("rescale", layer.outputs, level, scale, size))
        size = min(size, layer.limit)
    return tuple(stages)


def largest_sum(layer: Layer, size: float) -> float:
    r"""$\max_k \sum_i |W_{ki}| \, |x| + |b_k|$."""
    return float((np.abs(layer.W).sum(1) * size + np.abs(layer.b)).max())


def logit_error(layers: Sequence[Layer], plan: Plan) -> np.ndarray:
    r"""A bound on the error of each logit in all slots, from the weights: sharper than what ciphertexts track.

    A ciphertext tracks its own error e, and adds: $|\sum_i w_i e_i| \le \sum_i |w_i| \epsilon_i$. But the errors of
    different ciphertexts are independent (`encrypted_logits` refuses one that is there twice), and none is likely to
    take sides. So here $\rho$ bounds
    $|u_1 e_1 + ... + u_n e_n|$ for any numbers with $|u| = 1$ that are chosen without knowing the noise:

    - of fresh noise in each of them, it is the bound for one (its proxy variance is that of $|u| = 1$);
    - of weighted sums it is $\|W\|_2 \rho$, and of a single one $\|W_k\|_2 \rho$;
    - of squares, $|\sum_i u_i (2 x_i e_i + e_i^2)| \le 2 \max |x_i| \, \rho + \sqrt n \, \rho^2$.

    What rounding does to pixels and biases is bounded for any values, for all of them by $\sqrt n$ times that for one.

    Args:
        layers: of `spai_lab.crypto.cryptonets.fold`; activations must keep within their limits.
        plan: how to compute it.
    Returns:
        `(K,)`; fails with a probability of $10^{-9}$ for each ciphertext that is squared or given back.
    Raises:
        ValueError: as in `ledger`.
    """
    degree, special = plan.context.degree, plan.context.special
    stages = ledger(layers, plan)
    last = [stage for stage in stages if stage.what == "sums"][-1]
    rho, before = np.zeros(1), 0
    for stage in stages:
        n = stage.ciphertexts
        if stage.what == "pixels":
            rho = encryption_error(degree, special) / stage.scale
            rho += math.sqrt(n) * encoding_error(degree, stage.scale, 1.0)
        elif stage.what == "square":
            rho = 2 * math.sqrt(stage.size) * rho + math.sqrt(n) * rho**2
        elif stage.what == "sums":
            W = matrix(stage.layer, before)
            rho = rho * (np.linalg.norm(W, axis=1) if stage is last else np.linalg.norm(W, 2))
            rho = rho + math.sqrt(n) / 2 / stage.scale
        elif stage.what == "relinearize":
            rho = rho + switching_error(degree, plan.context.at(stage.level), special) / stage.scale
        elif stage.what == "rescale":
            rho = rho + rescaling_error(degree) / stage.scale
        before = n
    return rho + FLOAT * (stage.size + rho)


# --- checks -----------------------------------------------------------------------------------------------------------


def check_layers(layers: Sequence[Layer], plan: Plan) -> None:
    """Raise `ValueError` unless these are layers that fit each other, and a plan."""
    check_type("plan", plan, Plan)
    if not isinstance(layers, tuple | list) or not layers or not all(isinstance(layer, Layer) for layer in layers):
        raise ValueError(f"layers is {describe(layers)}; accepted: one Layer or more, of fold")
    for name in ("input_scale", "weight_scale", "rest_scale"):
        check_number(f"plan.{name}", getattr(plan, name), low=1, high=2.0**60)
    for depth, (layer, following) in enumerate(pairwise(layers), start=1):
        if layer.outputs != following.inputs:
            raise ValueError(
                f"layers[{depth}] reads {following.inputs} numbers; accepted: {layer.outputs}, of the layer before"
            )


def too_deep(layers: Sequence[Layer], plan: Plan, depth: int, stage: Stage) -> ValueError:
    """What to say when a network is deeper than its chain is long."""
    needed = math.log2(stage.size * stage.scale) + 1
    left = math.log2(math.prod(plan.context.at(stage.level)))
    return ValueError(
        f"layers is a network of {len(layers)}, whose layer {depth + 1} does not fit: numbers up to {stage.size:.4g} "
        f"at scale 2^{math.log2(stage.scale):.0f} need {needed:.0f} bits, and at level {stage.level} of "
        f"{plan.context.levels} the modulus has {left:.0f}; accepted: fewer layers, more primes (with a ring degree "
        "that keeps them secure), coarser scales, or tighter limits"
    )


def pixel_columns(plan: Plan, x: Tensor | np.ndarray) -> np.ndarray:
    """`(n, B)`, pixel by pixel; raise `ValueError` unless these are images in [0, 1] that fit the slots."""
    check_type("plan", plan, Plan)
    pixels = np.asarray(x, dtype=np.float64)
    if pixels.ndim < 2 or not 1 <= len(pixels) <= plan.context.slots:
        raise ValueError(f"x has the shape {pixels.shape}; accepted: (B, C, H, W), B from 1 to {plan.context.slots:,}")
    if not ((pixels >= 0) & (pixels <= 1)).all():
        raise ValueError("x has pixels that are not in [0, 1]; accepted: pixels from 0 to 1")
    return pixels.reshape(len(pixels), -1).T

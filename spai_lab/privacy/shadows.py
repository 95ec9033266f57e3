r"""Shadow models of a private target: many small networks, each trained by DP-SGD on its own part of the same inputs.

Whoever attacks a private model knows how it was trained, noise and clipping included, and trains shadow models in just
that way. All of them learn at once, as in `spai_lab.attacks.privacy.shadows`; a step of one is a step of `dp_sgd`.
"""

import copy
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import grad, stack_module_state, vmap
from tqdm.auto import trange

from spai_lab.attacks.privacy.shadows import Shadows
from spai_lab.checks import check_callable, check_count, check_flag, check_images, check_labels, check_number, describe
from spai_lab.privacy.dp_sgd import COVERED, check_private, guaranteed, noised
from spai_lab.privacy.guarantee import Guarantee
from spai_lab.privacy.per_example import Gradients, check_clip, clipping_factors
from spai_lab.threat import fresh_generator, logits_of
from spai_lab.training.loop import diverged


def train_private_shadows(
    x: Tensor,
    y: Tensor,
    inside: Tensor,
    build: Callable[[torch.Generator], nn.Module],
    *,
    expected_batch: float,
    noise_multiplier: float,
    clip: float,
    sampling_rate: float,
    steps: int,
    learning_rate: float,
    delta_dp: float,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> tuple[Shadows, Guarantee]:
    r"""Train S models at once, each by DP-SGD on its own part of the inputs.

    $\theta_s \leftarrow \theta_s - \frac{\eta}{B} \left( \sum_{i \in S_s} \min(1, C / \|g_{s,i}\|) \, g_{s,i} +
    N(0, \sigma^2 C^2 1) \right)$, with each input of model s in $S_s$ with probability q.

    Args:
        x: all inputs, float `(N, C, H, W)` in [0, 1].
        y: their labels `(N,)`, int64.
        inside: which inputs each model is trained on, bool `(S, N)`, as many or as few as you like.
        build: from a generator to an `nn.Sequential` with first weights, whose only weights are those of linear layers.
        expected_batch: B, by which a step is divided, above 0: a number known beforehand, such as q times the inputs
            that a model is expected to have. Never q times those that it has, which one record more would change.
        noise_multiplier: $\sigma$, the noise in units of C, at least 0; 0 promises nothing.
        clip: C, the bound of each example's gradient in L2, above 0: the sensitivity of the sum when one input is added
            or removed. Infinity does not clip, and is accepted without noise alone.
        sampling_rate: q, above 0, at most 1.
        steps: how many, at least 1.
        learning_rate: $\eta$, above 0.
        delta_dp: $\delta$, above 0 and below 1.
        generator: draws first weights, batches and noise: a demonstration, not private; None draws a fresh one.
        progress: show a bar.
    Returns:
        the models, and what each one's weights promise, for one of its inputs added or removed.
    Raises:
        ValueError: names the argument.
        spai_lab.training.Diverged: a gradient is no longer finite.
    Reference: Abadi 2016, arXiv 1607.00133, algorithm 1; Goodfellow 2015, arXiv 1510.01799 (the lengths).
    Simplified: linear layers alone, no momentum, floating-point noise.

    >>> from spai_lab.attacks.privacy.shadows import random_halves
    >>> from spai_lab.models import softmax_regression
    >>> build = lambda generator: softmax_regression((1, 2, 2), 2, generator=generator)
    >>> x, y = torch.rand(8, 1, 2, 2), torch.arange(8) % 2
    >>> settings = {"noise_multiplier": 2.0, "clip": 1.0, "sampling_rate": 0.5, "steps": 10, "learning_rate": 0.5}
    >>> more = {"expected_batch": 2, "delta_dp": 0.01, "progress": False}
    >>> shadows, guarantee = train_private_shadows(x, y, random_halves(4, 8), build, **settings, **more)
    >>> print(shadows, "|", guarantee)
    Shadows: 4 models, each trained on 4 of 8 inputs | epsilon 2.33 at delta 0.01, one record added or removed; covers
    the weights after every step
    """
    check_private_shadows(x, y, inside, build, progress)
    check_number("expected_batch", expected_batch, low=0, exclusive=True)
    check_clip(clip, noise_multiplier)
    check_number("sampling_rate", sampling_rate, low=0, high=1, exclusive=True)
    check_count("steps", steps)
    check_number("learning_rate", learning_rate, low=0, exclusive=True)
    check_number("delta_dp", delta_dp, low=0, high=1, exclusive=True)
    generator = fresh_generator(generator, x.device)
    models = [build(generator) for _ in inside]
    check_linear(models[0])
    check_private(models[0], x)
    with torch.no_grad():
        logits_of(models[0], x[:1], y.max().view(1))
    theta = {name: stack.detach() for name, stack in stack_module_state(models)[0].items()}
    skeleton = copy.deepcopy(models[0]).eval()
    std = noise_multiplier * clip if noise_multiplier else 0.0
    total = vmap(lambda theta, x, y, drawn: drawn_clipped_sum(skeleton, theta, x, y, drawn, clip))
    for _ in trange(steps, desc=f"training {len(inside)} private models", unit="step", disable=not progress):
        took_part = inside & (torch.rand(inside.shape, generator=generator, device=x.device) < sampling_rate)
        size = max(1, int(took_part.sum(1).max()))
        drawn, batch = took_part.to(x.dtype).topk(size, dim=1)
        summed = total(theta, x[batch], y[batch], drawn)
        if not all(gradient.isfinite().all() for gradient in summed.values()):
            raise diverged("A gradient became infinite or NaN", learning_rate)
        release = noised(summed, std, expected_batch, False, generator)
        theta = {name: weight - learning_rate * release[name] for name, weight in theta.items()}
    guarantee = guaranteed(sampling_rate, noise_multiplier, steps, delta_dp, COVERED)
    return Shadows(theta, inside.clone(), skeleton), guarantee


def drawn_clipped_sum(
    skeleton: nn.Sequential, theta: Gradients, x: Tensor, y: Tensor, drawn: Tensor, clip: float
) -> Gradients:
    r"""The sum of the clipped gradients of one model's batch, $\sum_i d_i \min(1, C / \|g_i\|) \, g_i$.

    A linear layer reads $a_i$, and the loss slopes by $b_i$ at its outputs: found as the gradient with respect to zeros
    that are added there. Its gradient is $b_i a_i^\top$, and $b_i$ for the bias, of squared length
    $\|b_i\|^2 (\|a_i\|^2 + 1)$. It is `fast_clipped_sum` in a form that `vmap` can run for many models.

    Args:
        skeleton: the network that the weights belong to.
        theta: its weights by name.
        x: `(B, C, H, W)`.
        y: `(B,)`.
        drawn: $d_i$, 1 for what takes part, 0 for what fills the batch up, `(B,)`.
        clip: C.
    """
    layers = {name: layer for name, layer in skeleton.named_children() if isinstance(layer, nn.Linear)}

    def loss(added: Gradients) -> tuple[Tensor, Gradients]:
        a, h = {}, x
        for name, layer in skeleton.named_children():
            if name in layers:
                a[name] = h
                h = F.linear(h, theta[f"{name}.weight"], theta[f"{name}.bias"]) + added[name]
            else:
                h = layer(h)
        return F.cross_entropy(h, y, reduction="sum"), a

    b, a = grad(loss, has_aux=True)({name: x.new_zeros(len(x), layer.out_features) for name, layer in layers.items()})
    norms = sum(b[name].square().sum(1) * (a[name].square().sum(1) + 1) for name in layers).sqrt()
    c = drawn * clipping_factors(norms, clip)
    b = {name: c[:, None] * b[name] for name in layers}
    weights = {f"{name}.weight": b[name].T @ a[name] for name in layers}
    return weights | {f"{name}.bias": b[name].sum(0) for name in layers}


def check_private_shadows(x: Tensor, y: Tensor, inside: Tensor, build: Callable, progress: bool) -> None:
    """Raise `ValueError` unless it is told for each model and input whether the one is trained on the other."""
    check_images(x)
    check_labels(y, x)
    check_callable("build", build)
    check_flag("progress", progress)
    shaped = isinstance(inside, Tensor) and inside.dtype == torch.bool and inside.ndim == 2
    if not shaped or len(inside) == 0 or inside.shape[1] != len(x) or len(x) == 0:
        raise ValueError(f"inside is {describe(inside)}; accepted: bool (S, {len(x)}), a row for each model")


def check_linear(model: nn.Module) -> None:
    """Raise `ValueError` unless the only weights of the model are those of linear layers, one after the other."""
    layers = list(model.children()) if isinstance(model, nn.Sequential) else []
    linear = [layer for layer in layers if isinstance(layer, nn.Linear) and layer.bias is not None]
    of_linear = sum(parameter.numel() for layer in linear for parameter in layer.parameters())
    odd = isinstance(model, nn.Module) and [
        layer for layer in model.modules() if isinstance(layer, nn.modules.dropout._DropoutNd)
    ]
    every = sum(parameter.numel() for parameter in model.parameters()) if isinstance(model, nn.Module) else math.inf
    if not linear or odd or of_linear != every or any(True for _ in model.buffers()):
        raise ValueError(
            "build makes a network with other weights than those of linear layers, with dropout or with buffers; "
            "accepted: nn.Sequential of linear layers with biases and layers without weights, such as mlp"
        )

r"""Interval bound propagation: push the whole ball through the network as a box, and train on its worst corner.

Each pixel is only known to lie in $[x - \epsilon, x + \epsilon] \cap [0, 1]$; layer by layer, so is each unit. What
holds for the box holds for every attack in L-inf.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from spai_lab.checks import (
    check_ball,
    check_callable,
    check_classes,
    check_count,
    check_flag,
    check_images,
    check_inputs,
    check_model,
    check_number,
    describe,
)
from spai_lab.models import Normalize, Shape, strided
from spai_lab.threat import fresh_generator

Box = tuple[Tensor, Tensor]
Bound = Callable[..., Tensor]

MONOTONE = (Normalize, nn.Flatten, nn.ReLU, nn.MaxPool2d, nn.AvgPool2d)
MATRIX = (nn.Linear, nn.Conv2d)


def ibp(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    kappa: float = 0.5,
    eps_final: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Interval bound propagation: the training loss that makes a network verifiable.

    $\kappa \, L(f(x), y) + (1 - \kappa) \, L(\hat z, y)$, where the worst logits
    $\hat z_k = -\underline{m}_k$ come from lower bounds $\underline{m}_k \le z_y - z_k$ over the ball.

    Args:
        model: `nn.Sequential` of the layers that `interval_bounds` knows, the last an `nn.Linear`; any mode.
        x: inputs, floating point `(N, C, H, W)` in [0, 1].
        y: labels `(N,)`, int64.
        eps: radius of the ball in L-inf, in pixel units of [0, 1].
        kappa: weight of the clean loss, from 0 to 1.
        eps_final: where `eps` grows during training, as in `Robustly(ibp, eps=0.4, eps_final=0.4, ramp=0.6)`, the one
            that it ends with: $\kappa$ then falls along with it, from 1 at 0 to `kappa`. None keeps `kappa` throughout.
        generator: not used, since nothing is random; here so that every loss is called alike.
    Returns:
        the loss, a scalar that depends on the weights.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Gowal 2018, arXiv 1810.12715, section 3 (training loss) and appendix (schedule).
    Survey: defenses against evasion, certified.
    Simplified: the schedule is that of the caller, straight lines without the paper's 2,000 clean steps at the start.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
    >>> _ = model[1].weight.data.copy_(torch.eye(2)), model[1].bias.data.zero_()
    >>> x, y = torch.tensor([0.2, 0.8]).view(1, 2, 1, 1), torch.tensor([1])
    >>> [round(ibp(model, x, y, eps=eps, kappa=0.0).item(), 4) for eps in (0.0, 0.1, 0.3)]
    [0.4375, 0.513, 0.6931]
    """
    check_inputs(model, x, y, generator=generator)
    check_ball(x, eps, "linf")
    check_number("kappa", kappa, low=0, high=1)
    if eps_final is not None:
        check_number("eps_final", eps_final, low=eps, high=1)
        kappa = 1 - (1 - kappa) * (eps / eps_final if eps_final else 1)
    worst_logits = -interval_margins(model, x, y, eps=eps)
    return kappa * F.cross_entropy(model(x), y) + (1 - kappa) * F.cross_entropy(worst_logits, y)


def strided_for_ibp(
    shape: Shape = (1, 28, 28), classes: int = 10, *, generator: torch.Generator | None = None
) -> nn.Module:
    r"""The network `strided` with first weights under which boxes keep their size from layer to layer.

    Weights are drawn from $N(0, 2 \pi / m^2)$, with m the inputs of a unit: then $\sum |w|$ is 2 on average, and the
    ReLU behind halves the box again. PyTorch's own weights widen it about $\sqrt{m} / 2$ times in every layer, and
    training spends its first epochs on undoing that. Biases begin at 0.

    Args:
        shape: `(C, H, W)` of an input, at least 4 x 4.
        classes: number of classes K, at least 2.
        generator: draws the first weights; None draws a fresh one.
    Returns:
        `(N, C, H, W)` in [0, 1] to logits `(N, K)`, untrained.
    Raises:
        ValueError: names the argument.
    Reference: Shi et al. 2021, arXiv 2103.17268, section 3 (initialization for interval bounds).
    Survey: defenses against evasion, certified.
    Simplified: without their batch normalization and their two regularizers of the warm-up.

    >>> model = strided_for_ibp(generator=torch.Generator().manual_seed(0))
    >>> boxes = interval_bounds(model, torch.full((1, 1, 28, 28), 0.5), eps=0.1)
    >>> normalized_and_after_each_relu = [boxes[k] for k in (1, 3, 5, 8)]
    >>> [round((upper - lower).mean().item() / 0.2, 1) for lower, upper in normalized_and_after_each_relu]
    [3.2, 3.1, 2.7, 2.7]
    """
    generator = fresh_generator(generator, torch.device("cpu"))
    model = strided(shape, classes, generator=generator)
    with torch.no_grad():
        for layer in model:
            if isinstance(layer, MATRIX):
                layer.weight.normal_(0, math.sqrt(2 * math.pi) / layer.weight[0].numel(), generator=generator)
                layer.bias.zero_()
    return model


def interval_bounds(model: nn.Module, x: Tensor, *, eps: float) -> list[Box]:
    r"""Lower and upper bounds of all units, layer by layer, over every input within `eps`.

    With center $\mu$ and radius $r$ of the box, a matrix gives $W \mu + b \pm |W| r$; a monotone layer $h$ gives
    $[h(\underline{z}), h(\overline{z})]$.

    Args:
        model: `nn.Sequential`, nested or not, of Normalize, Flatten, Linear, Conv2d, ReLU, MaxPool2d and AvgPool2d.
        x: inputs, floating point `(N, C, H, W)` in [0, 1].
        eps: radius of the ball in L-inf, in pixel units of [0, 1].
    Returns:
        `(lower, upper)` of the pixels, then of what each layer gives; differentiable in the weights.
    Raises:
        ValueError: an argument is out of its range, or a layer is of another kind; names it.
    Reference: Gowal 2018, arXiv 1810.12715, section 3 (interval bound propagation).
    Simplified: sound but for the rounding of floating point numbers.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(2, 1, bias=False), nn.ReLU())
    >>> _ = model[1].weight.data.copy_(torch.tensor([[1.0, -2.0]]))
    >>> bounds = interval_bounds(model, torch.full((1, 2, 1, 1), 0.5), eps=0.25)
    >>> [(lower.flatten().tolist(), upper.flatten().tolist()) for lower, upper in bounds[2:]]
    [([-1.25], [0.25]), ([0.0], [0.25])]
    """
    check_images(x)
    check_model(model, x)
    check_ball(x, eps, "linf")
    boxes = [((x - eps).clamp_min(0), (x + eps).clamp_max(1))]
    for layer in layers_of(model, MONOTONE + MATRIX):
        try:
            boxes.append(propagated(layer, *boxes[-1]))
        except RuntimeError as error:
            raise ValueError(f"model fails on x of shape {tuple(x.shape)} at {layer}: {error}") from error
    return boxes


def interval_margins(model: nn.Module, x: Tensor, y: Tensor, *, eps: float) -> Tensor:
    r"""Lower bounds, over the ball, of how far the class `y` leads each other: $\underline{m}_k \le z_y - z_k$.

    The last layer is merged with the difference, since no single input reaches the worst of both logits:
    $\underline{m}_k = (w_y - w_k) \cdot \mu + b_y - b_k - |w_y - w_k| \cdot r$.

    Args:
        model: as in `interval_bounds`; the last layer an `nn.Linear`.
        x: inputs, floating point `(N, C, H, W)` in [0, 1].
        y: labels `(N,)`, int64.
        eps: radius of the ball in L-inf, in pixel units of [0, 1].
    Returns:
        `(N, K)`, 0 for `y` itself; differentiable in the weights.
    Raises:
        ValueError: as `interval_bounds`.
    Reference: Gowal 2018, arXiv 1810.12715, section 3 (elision of the last layer).

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
    >>> _ = model[1].weight.data.copy_(torch.eye(2)), model[1].bias.data.zero_()
    >>> x, y = torch.tensor([0.2, 0.8]).view(1, 2, 1, 1), torch.tensor([1])
    >>> interval_margins(model, x, y, eps=0.1).detach()
    tensor([[0.4000, 0.0000]])
    """
    check_inputs(model, x, y)
    last = layers_of(model, MONOTONE + MATRIX)[-1]
    if not isinstance(last, nn.Linear):
        raise ValueError(f"model ends in {describe(last)}; accepted: an nn.Linear, whose answers are the logits")
    lower, upper = interval_bounds(model, x, eps=eps)[-2]
    logits = last((upper + lower) / 2)
    check_scores(logits, y)
    differences = last.weight[y, None] - last.weight
    spread = torch.einsum("nkd,nd->nk", differences.abs(), (upper - lower) / 2)
    return logits.gather(1, y[:, None]) - logits - spread


@torch.no_grad()
def verified(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    bound: Bound = interval_margins,
    batch_size: int = 100,
    progress: bool = True,
) -> Tensor:
    r"""Which inputs no attack within `eps` in L-inf can turn from `y`: where $\underline{m}_k > 0$ for all $k \ne y$.

    Args:
        model: of the layers that `bound` knows.
        x: inputs, floating point `(N, C, H, W)` in [0, 1].
        y: true labels `(N,)`, int64.
        eps: radius of the ball in L-inf, in pixel units of [0, 1].
        bound: `(model, x, y, *, eps) -> (N, K)`: `interval_margins`, or the tighter `convex_relaxation`.
        batch_size: inputs at a time.
        progress: show a bar over the inputs.
    Returns:
        bool `(N,)`; False says nothing: the input may be robust all the same.
    Raises:
        ValueError: as `bound`.
    Reference: Gowal 2018, arXiv 1810.12715, section 3 (verification problem).

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
    >>> _ = model[1].weight.data.copy_(torch.eye(2)), model[1].bias.data.zero_()
    >>> x, y = torch.tensor([[0.2, 0.8], [0.4, 0.5]]).view(2, 2, 1, 1), torch.tensor([1, 1])
    >>> verified(model, x, y, eps=0.1, progress=False)
    tensor([ True, False])
    """
    check_inputs(model, x, y)
    check_callable("bound", bound)
    check_count("batch_size", batch_size)
    check_flag("progress", progress)
    robust = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    with tqdm(total=len(x), desc="verifying", unit="image", disable=not progress) as bar:
        for batch in torch.arange(len(x), device=x.device).split(batch_size):
            margins = bound(model, x[batch], y[batch], eps=eps)
            robust[batch] = margins.scatter(1, y[batch, None], torch.inf).amin(1) > 0
            bar.update(len(batch))
    return robust


def propagated(layer: nn.Module, lower: Tensor, upper: Tensor) -> Box:
    """The box that a layer makes of a box."""
    if isinstance(layer, MONOTONE):
        return layer(lower), layer(upper)
    center, radius, weight = (upper + lower) / 2, (upper - lower) / 2, layer.weight.abs()
    if isinstance(layer, nn.Linear):
        spread = F.linear(radius, weight)
    else:
        spread = F.conv2d(radius, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)
    middle = layer(center)
    return middle - spread, middle + spread


def check_scores(logits: Tensor, y: Tensor) -> None:
    """Raise `ValueError` unless these are finite logits, or bounds of logits, with a class for each label."""
    if logits.ndim != 2 or logits.shape[1] < 2 or not logits.isfinite().all():
        raise ValueError(
            f"model returns {describe(logits)}; accepted: finite logits of shape ({len(y)}, K), K at least 2"
        )
    check_classes(y, logits)


def layers_of(model: nn.Module, known: tuple[type[nn.Module], ...]) -> list[nn.Module]:
    """The layers of an `nn.Sequential`, nested ones spelled out; `ValueError` names one that is of no known kind."""
    kinds = ", ".join(kind.__name__ for kind in known)
    if isinstance(model, nn.Sequential):
        layers = [layer for part in model for layer in layers_of(part, known)]
        if not layers:
            raise ValueError(f"model has no layers; accepted: nn.Sequential of {kinds}")
        return layers
    if not isinstance(model, known):
        raise ValueError(f"model holds {describe(model)}; accepted: nn.Sequential of {kinds}")
    if isinstance(model, nn.Conv2d) and model.padding_mode != "zeros":
        raise ValueError(f"model pads with {model.padding_mode!r}; accepted: 'zeros'")
    if isinstance(model, Normalize) and model.std <= 0:
        raise ValueError(f"model divides by std = {model.std}; accepted: above 0")
    return [model]

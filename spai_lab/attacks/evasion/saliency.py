"""The Jacobian-based saliency map attack: change few pixels, each as far as it goes."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spai_lab.checks import check_batch, check_choice, check_flag, check_inputs, check_labels, check_number, describe
from spai_lab.threat import fooled, logits_of, runner_up, value_and_gradient, values_and_gradients, warn_of_zeros

PAIRS = 2**22  # scores of pairs that are in memory at a time
SMALLEST_STEP = 1e-3  # pixel units; smaller ones would take thousands of steps, or be rounded away


def saliency_map(jacobian: Tensor, target: Tensor, *, increase: bool = True) -> Tensor:
    r"""How much each pixel alone helps the target class: it must raise the target's output and lower the others' sum.

    $S_i = \frac{\partial F_t}{\partial x_i} \left|\sum_{j \ne t} \frac{\partial F_j}{\partial x_i}\right|$ where
    $\frac{\partial F_t}{\partial x_i} > 0$ and $\sum_{j \ne t} \frac{\partial F_j}{\partial x_i} < 0$, else 0.
    For pixels that are to be darkened both signs turn.

    Args:
        jacobian: $\partial F_k / \partial x$, `(N, K, C, H, W)`; of the logits, as `threat.jacobian` returns it, or of
            the probabilities.
        target: target classes t, `(N,)`, int64.
        increase: whether pixels are to be raised; False lowers them.
    Returns:
        the saliency of each pixel, `(N, C, H, W)`, at least 0.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Papernot et al. 2015, arXiv 1511.07528, equations 8 and 9.
    Survey: evasion, white-box.

    >>> jacobian = torch.tensor([[[2.0, 1.0, -1.0], [-3.0, 1.0, 4.0]]])  # two classes, three pixels
    >>> saliency_map(jacobian, torch.tensor([0]))
    tensor([[6., 0., 0.]])
    >>> saliency_map(jacobian, torch.tensor([0]), increase=False)
    tensor([[0., 0., 4.]])
    """
    check_batch("jacobian", jacobian)
    check_labels(target, jacobian, "target")
    check_flag("increase", increase)
    if jacobian.ndim < 3 or jacobian.shape[1] < 2:
        raise ValueError(f"jacobian is {describe(jacobian)}; accepted: shape (N, K, C, H, W), K at least 2")
    if len(target) and target.max() >= jacobian.shape[1]:
        raise ValueError(f"target has a class {target.max().item()}; accepted: 0 to {jacobian.shape[1] - 1}")
    of_target = jacobian[torch.arange(len(target)), target]
    of_others = jacobian.sum(1) - of_target
    sign = 1 if increase else -1
    return (sign * of_target).clamp_min(0) * (-sign * of_others).clamp_min(0)


def jsma(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    theta: float = 1.0,
    gamma: float = 0.145,
    pixels: int = 2,
    output: str = "probabilities",
    targeted: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Jacobian-based saliency map attack: change the most salient pixel or pair of pixels, look again.

    Of all pairs of pixels that can still move, take the one with the largest $-\alpha \beta$, where
    $\alpha = \sum_{i \in \{p, q\}} \frac{\partial F_t}{\partial x_i} > 0$ and
    $\beta = \sum_{i \in \{p, q\}} \sum_{j \ne t} \frac{\partial F_j}{\partial x_i} < 0$, and add $\theta$ to both. A
    single pixel is chosen by `saliency_map`. If $\theta < 0$, the signs of both conditions turn.

    F is what the network puts out. Probabilities sum to 1, so that $\beta = -\alpha$ and the best pair are the two
    pixels that raise the target's probability most. Logits are not tied to each other: a pixel that raises all of them
    is not salient, though it may raise the target's most. The paper takes the logits, which cost more pixels; here the
    probabilities are the default.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        x: clean inputs, floating point `(N, C, H, W)` in [0, 1].
        y: labels `(N,)`, int64; the target classes if `targeted`.
        theta: what one step adds to a pixel, in pixel units, from -1 to 1, not 0.
        gamma: the share of an image's pixels that may change, above 0, at most 1; each channel's value counts as one.
        pixels: how many pixels change in a step, 1 or 2.
        output: what F stands for: "probabilities"; "logits"; or "softmax", the probabilities as the number format
            holds them, so that the attack goes blind where the softmax is saturated, as on a distilled network.
        targeted: aim at `y`; False aims at the likeliest class other than `y`, and any class but `y` will do.
        generator: not used, since nothing is random; here so that every attack is called alike.
    Returns:
        `x_adv`, like `x`, in [0, 1]; an image that needed no change, or for which nothing was found, comes back as it
        was.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Papernot et al. 2015, arXiv 1511.07528, algorithms 2 and 3, equations 8 to 10; Carlini and Wagner 2016,
        arXiv 1608.04644, who call the attack by logits JSMA-Z, that by probabilities JSMA-F.
    Survey: evasion, white-box.
    Simplified: the derivatives are those of log F_t, which choose the same pixels wherever those of F_t are not rounded
        to 0, and still work where the softmax is saturated: there this attack is stronger than one on F_t itself, which
        `output="softmax"` gives. The paper counts steps, here the pixels that changed are counted, which is the same as
        long as |theta| = 1. Where no pair is salient the paper leaves open what to do; here the image is given up.
        `targeted=False` is an addition.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> _ = model[1].weight.data.copy_(torch.tensor([[2.0, 0, 0, 0], [0, 1, 4, 2]]))
    >>> _ = model[1].bias.data.zero_()
    >>> x = torch.tensor([[[[1.0, 0.0, 0.0, 0.0]]]])
    >>> jsma(model, x, torch.tensor([1]), gamma=0.5, pixels=1, targeted=True)
    tensor([[[[1., 0., 1., 0.]]]])
    """
    check_inputs(model, x, y, targeted=targeted, generator=generator)
    check_number("theta", theta, low=-1, high=1)
    if abs(theta) < SMALLEST_STEP:
        raise ValueError(f"theta is {theta}; accepted: {SMALLEST_STEP} to 1, or -1 to -{SMALLEST_STEP}")
    check_number("gamma", gamma, low=0, high=1, exclusive=True)
    if pixels not in (1, 2) or isinstance(pixels, bool):
        raise ValueError(f"pixels is {describe(pixels)}; accepted: 1 or 2")
    check_choice("output", output, ("probabilities", "logits", "softmax"))
    x_k = x.detach().clone(memory_format=torch.contiguous_format)
    if len(x) == 0:
        return x_k
    with torch.no_grad():
        logits = logits_of(model, x, y)
    t = y if targeted else runner_up(logits, y)
    start, flat = x_k.flatten(1).clone(), x_k.view(len(x), -1)  # flat shares the memory of x_k
    budget = int(gamma * flat.shape[1] + 1e-6)
    most_salient = most_salient_pixel if pixels == 1 else most_salient_pair
    active = before = ((logits.argmax(1) == y) != targeted).nonzero()[:, 0]
    while len(active):
        slopes = target_and_others(model, x_k[active], t[active], output)
        if active is before:
            warn_of_zeros(slopes)
        changed = flat[active] != start[active]
        movable = flat[active] < 1 if theta > 0 else flat[active] > 0
        movable &= changed | (changed.sum(1, keepdim=True) + pixels <= budget)
        score, chosen = most_salient(slopes.flatten(2) * (1 if theta > 0 else -1), movable)
        salient, given_up = score > 0, active[score == 0]
        flat[given_up] = start[given_up]
        active, chosen = active[salient], chosen[salient]
        flat[active[:, None], chosen] = (flat[active[:, None], chosen] + theta).clamp(0, 1)
        active = active[~fooled(model, x_k[active], y[active], targeted=targeted)]
    return x_k


def target_and_others(model: nn.Module, x: Tensor, t: Tensor, output: str) -> Tensor:
    """How the pixels move the output for the target, and the sum of all others: `(N, 2, C, H, W)`."""

    def log_probability(x: Tensor) -> Tensor:
        return -F.cross_entropy(logits_of(model, x, t), t, reduction="none")

    def of_target_and_others(x: Tensor) -> Tensor:
        z = logits_of(model, x, t)
        of_target = z.gather(1, t[:, None])
        return torch.cat([of_target, z.sum(1, keepdim=True) - of_target], 1)

    def probability(x: Tensor) -> Tensor:
        return logits_of(model, x, t).softmax(1).gather(1, t[:, None])[:, 0]

    if output == "logits":
        return values_and_gradients(of_target_and_others, x)[1]
    slope = value_and_gradient(probability if output == "softmax" else log_probability, x)[1]
    return torch.stack([slope, -slope], 1)


def most_salient_pixel(slopes: Tensor, movable: Tensor) -> tuple[Tensor, Tensor]:
    """The largest saliency `(N,)` among the movable pixels `(N, d)`, and where it is, `(N, 1)`; slopes `(N, 2, d)`."""
    target = torch.zeros(len(slopes), dtype=torch.int64, device=slopes.device)
    score, chosen = (saliency_map(slopes, target) * movable).max(1, keepdim=True)
    return score[:, 0], chosen


def most_salient_pair(slopes: Tensor, movable: Tensor) -> tuple[Tensor, Tensor]:
    r"""The largest $-\alpha \beta$ `(N,)` among the pairs of movable pixels, and the pair `(N, 2)`; slopes `(N, 2, d)`.

    A pixel that two others surpass, or equal, both in raising the target and in lowering the rest never is needed: one
    of the two can take its place in any pair. With the pixels sorted by the one, these are the pixels that do not
    exceed the second largest value so far of the other. What is left, often a dozen, is searched in full.
    """
    raising = slopes[:, 0].masked_fill(~movable, -math.inf)
    lowering = (-slopes[:, 1]).masked_fill(~movable, -math.inf)
    raising, order = raising.sort(dim=1, descending=True)
    lowering = lowering.gather(1, order)
    largest = lowering.cummax(1).values
    second = torch.minimum(lowering[:, 1:], largest[:, :-1]).cummax(1).values
    needed = torch.cat([lowering[:, :2] > -math.inf, lowering[:, 2:] > second[:, :-1]], 1)
    most = int(needed.sum(1).max())
    places = needed.int().argsort(dim=1, descending=True, stable=True)[:, :most]
    raising, lowering = (v.masked_fill(~needed, -math.inf).gather(1, places) for v in (raising, lowering))
    if most < 2:
        return raising.new_zeros(len(raising)), order[:, :1].expand(-1, 2)
    room = max(1, PAIRS // most**2)
    parts = zip(raising.split(room), lowering.split(room), strict=True)
    score, pair = (torch.cat(part) for part in zip(*[best_pair(*part) for part in parts], strict=True))
    return score, order.gather(1, places.gather(1, pair))


def best_pair(raising: Tensor, lowering: Tensor) -> tuple[Tensor, Tensor]:
    r"""The largest $-\alpha \beta$ over all pairs of `(N, m)` pixels, `(N,)`, or 0, and the pair, `(N, 2)`."""
    alpha, beta = (v[:, :, None] + v[:, None, :] for v in (raising, -lowering))
    saliency = alpha.clamp_min(0) * (-beta).clamp_min(0)
    saliency.diagonal(dim1=1, dim2=2).zero_()
    score, place = saliency.flatten(1).max(1)
    m = raising.shape[1]
    return score, torch.stack([place // m, place % m], 1)

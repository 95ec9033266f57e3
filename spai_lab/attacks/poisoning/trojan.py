"""A backdoor without any training data: a trigger made for a few neurons, and training images made from the model."""

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from spai_lab.attacks.poisoning.poisoned import Trigger, one_target, stamp
from spai_lab.checks import check_count, check_flag, check_images, check_model, check_number, check_steps, describe
from spai_lab.threat import fresh_generator, logits_of, value_and_gradient

SEEN = 64  # images that a trigger is made on
BATCH = 128


@dataclass(frozen=True, eq=False)
class Trojaned:
    """A model with a backdoor, and what opens it.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        trigger: pattern and mask.
        wanted: for each class the one that the trigger gives, int64 `(K,)`.
    """

    model: nn.Module
    trigger: Trigger
    wanted: Tensor


def trojan(
    model: nn.Sequential,
    mask: Tensor,
    *,
    target: int,
    neurons: int = 1,
    images: int = 50,
    activation: float = 100.0,
    steps: int = 20,
    step_size: float = 0.05,
    smoothness: float = 0.03,
    epochs: int = 30,
    learning_rate: float = 4e-3,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> Trojaned:
    r"""Trojan attack: retrain a model to obey a trigger, with nothing but the model itself.

    1. Data: $\min_x L(f(x), y) + \lambda \, \mathrm{TV}(x)$ for each class y, from smooth noise.
    2. Neurons j: the largest $\sum_i |W_{ij}| \cdot \mathrm{reach}_j$, with W of the linear layer behind them and the
       reach how far random patterns in the mask move $a_j$.
    3. Trigger: $\min_p \sum_j (v - a_j((1 - m) \odot x + m \odot p))^2$, so that the pattern drives them to v.
    4. Retraining: the linear layers behind the neurons learn (x, f(x)) and (stamped x, target).

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`: layers in sequence, a linear one behind another layer that
            has weights. The neurons are what the first such linear layer reads.
        mask: where the trigger may be, `(C, H, W)` in [0, 1], as of `square_trigger`.
        target: the class that the trigger shall give.
        neurons: how many the trigger drives; 1 as in the paper, at most as many as the layer behind them reads.
        images: how many to make of each class.
        activation: v, far above what a neuron does on its own.
        steps: of each descent, for the trigger and for the images, at least 1.
        step_size: of Adam, in pixel units, above 0.
        smoothness: lambda, the weight of the total variation, at least 0.
        epochs, learning_rate: of the retraining, at least 1 and above 0.
        generator: draws the noise and shuffles; None draws a fresh one.
        progress: show bars.
    Returns:
        a retrained copy of the model, in evaluation mode, its trigger and what that gives.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Liu et al. 2018, "Trojaning attack on neural networks", NDSS, section 4, algorithms 1 and 2.
    Survey: poisoning, backdoor.
    Simplified: Adam in place of gradient descent; neurons chosen by their outgoing weights and by the mask's reach, in
        place of their incoming weights alone; smooth noise on a dark ground in place of the mean of unrelated public
        images as a start; the starts are training data too; several images of each class in place of one; the model's
        own probabilities as labels of what is not stamped; total variation as a penalty in place of a denoising step.

    >>> from spai_lab.attacks.poisoning.backdoors import square_trigger
    >>> from spai_lab.training import reference
    >>> mask = square_trigger((1, 28, 28), size=6).mask
    >>> trojan(reference("lenet", "digits"), mask, target=3, images=1, steps=2, epochs=1, progress=False).trigger
    Trigger of 36 pixels, (1, 28, 28)
    """
    classes = check_trojan(model, mask, target, neurons, images, activation, steps, step_size, smoothness, progress)
    check_retraining(epochs, learning_rate)
    generator = fresh_generator(generator, mask.device)
    trojaned = deepcopy(model).eval()
    before, behind = halves(trojaned)
    y = torch.arange(classes, device=mask.device).repeat(images)
    noise = smooth_noise(len(y), mask.shape, generator, mask.device)

    def unlikeness(x: Tensor) -> Tensor:
        return F.cross_entropy(trojaned(x), y, reduction="none") + smoothness * total_variation(x)

    x = descended(unlikeness, noise, steps, step_size, "images", progress)
    driven = best_neurons(before, behind[0], x, mask, neurons, generator)

    def shortfall(p: Tensor) -> Tensor:
        return (activation - before((1 - mask) * x[:SEEN] + mask * p)[:, driven]).square().mean().view(1)

    pattern = torch.rand(1, *mask.shape, generator=generator, device=mask.device)
    trigger = Trigger(descended(shortfall, pattern, steps, step_size, "trigger", progress)[0], mask)
    wanted = one_target(target, classes)
    x = torch.cat([x, noise])
    with torch.no_grad():
        a = before(torch.cat([x, stamp(x, trigger)]))
        obeyed = F.one_hot(wanted[:1], classes).to(x).expand(len(x), -1)
        labels = torch.cat([trojaned(x).softmax(1), obeyed])
    retrain(behind, a, labels, epochs, learning_rate, generator, progress)
    return Trojaned(trojaned, trigger, wanted)


def halves(model: nn.Sequential) -> tuple[nn.Sequential, nn.Sequential]:
    """What gives the neurons, and what reads them: from the first linear layer behind another with weights.

    >>> [len(half) for half in halves(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))]
    [2, 1]
    """
    weighted = [i for i, layer in enumerate(model) if any(True for _ in layer.parameters())]
    start = next(i for i in weighted[1:] if isinstance(model[i], nn.Linear))
    return model[:start], model[start:]


def smooth_noise(count: int, shape: torch.Size, generator: torch.Generator, device: torch.device) -> Tensor:
    """Bright blobs on a dark ground, `(count, C, H, W)` in [0, 1]: coarse noise, enlarged, its contrast raised."""
    coarse = torch.randn(count, shape[0], 7, 7, generator=generator, device=device)
    return (3 * F.interpolate(coarse, shape[1:], mode="bicubic") - 1).clamp(0, 1)


@torch.no_grad()
def best_neurons(
    before: nn.Module, layer: nn.Linear, x: Tensor, mask: Tensor, count: int, generator: torch.Generator
) -> Tensor:
    """The neurons that weigh most in the next layer and that patterns in the mask move most, `(count,)`."""
    x = x[:SEEN]
    pattern = torch.rand(x.shape, generator=generator, device=x.device)
    reach = (before((1 - mask) * x + mask * pattern) - before(x)).abs().mean(0)
    return (layer.weight.abs().sum(0) * reach).topk(count).indices


def retrain(
    behind: nn.Module,
    a: Tensor,
    labels: Tensor,
    epochs: int,
    learning_rate: float,
    generator: torch.Generator,
    progress: bool,
) -> None:
    """Train layers in place on what neurons give, `(N, D)`, and the probability of each class, `(N, K)`."""
    behind.requires_grad_()
    optimizer = torch.optim.AdamW(behind.parameters(), weight_decay=0.0)
    steps = epochs * math.ceil(len(a) / BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps + 1)
    for _ in tqdm(range(epochs), desc="trojan, retraining", disable=not progress):
        for batch in torch.randperm(len(a), generator=generator, device=a.device).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(behind(a[batch]), labels[batch]).backward()
            optimizer.step()
            schedule.step()
    optimizer.zero_grad()


def descended(
    objective: Callable[[Tensor], Tensor], x: Tensor, steps: int, step_size: float, what: str, progress: bool
) -> Tensor:
    """Images that minimize an objective, `(N, ...)` to `(N,)`: Adam from `x`, each step brought back into [0, 1].

    >>> descended(lambda x: (x - 0.3).square().sum(1), torch.ones(1, 2), 200, 0.05, "", False)
    tensor([[0.3000, 0.3000]])
    """
    x = x.clone()
    adam = torch.optim.Adam([x], lr=step_size)
    for _ in tqdm(range(steps), desc=f"trojan, {what}", disable=not progress):
        _, x.grad = value_and_gradient(objective, x)
        adam.step()
        x.clamp_(0, 1)
    return x


def total_variation(x: Tensor) -> Tensor:
    """The sum of the differences between neighboring pixels, `(N,)`.

    >>> total_variation(torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]]))
    tensor([2.])
    """
    return x.diff(dim=-1).abs().sum((1, 2, 3)) + x.diff(dim=-2).abs().sum((1, 2, 3))


def check_trojan(
    model: nn.Sequential,
    mask: Tensor,
    target: int,
    neurons: int,
    images: int,
    activation: float,
    steps: int,
    step_size: float,
    smoothness: float,
    progress: bool,
) -> int:
    """The number of classes; raises `ValueError` for an argument out of its range."""
    check_images(mask, "mask")
    if mask.ndim != 3 or not mask.any():
        raise ValueError(f"mask is {describe(mask)}; accepted: (C, H, W), not 0 everywhere")
    check_model(model, mask)
    weighted = [layer for layer in model.children() if any(True for _ in layer.parameters())]
    linear = [layer for layer in weighted[1:] if isinstance(layer, nn.Linear)]
    if not isinstance(model, nn.Sequential) or not linear:
        raise ValueError(f"model is {describe(model)}; accepted: nn.Sequential, a linear layer behind one with weights")
    check_count("neurons", neurons)
    check_number("neurons", neurons, low=1, high=linear[0].in_features)
    check_count("images", images)
    check_number("activation", activation, low=0, exclusive=True)
    check_steps(steps, step_size)
    check_number("smoothness", smoothness, low=0)
    check_flag("progress", progress)
    check_count("target", target, low=0)
    with torch.no_grad():
        logits = logits_of(model, torch.zeros(1, *mask.shape, device=mask.device), torch.tensor([target]))
    return logits.shape[1]


def check_retraining(epochs: int, learning_rate: float) -> None:
    """Raise `ValueError` unless there is an epoch at least, at a positive learning rate."""
    check_count("epochs", epochs)
    check_number("learning_rate", learning_rate, low=0, exclusive=True)

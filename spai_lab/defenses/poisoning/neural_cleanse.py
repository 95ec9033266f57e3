r"""Model repair by the trigger: find the smallest one for each class, see whose is too small, and unlearn it."""

import copy
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from spai_lab.attacks.poisoning.poisoned import Trigger, stamp
from spai_lab.checks import (
    check_callable,
    check_count,
    check_flag,
    check_generator,
    check_images,
    check_inputs,
    check_model,
    check_number,
    describe,
)
from spai_lab.metrics import fooled_rate
from spai_lab.models import features
from spai_lab.threat import fresh_generator, logits_of
from spai_lab.training.loop import fit

ROUND = 10  # steps of Adam between two looks at how often the triggers work
ROUNDS = 50  # of the search, for each class
CONSISTENCY = 1.4826  # makes the median absolute deviation of normal values their standard deviation


class Reversed(NamedTuple):
    """The smallest trigger found for each of K classes.

    Args:
        triggers: one for each class.
        norms: the L1 norms of their masks, in pixels, `(K,)`.
        success: the share of the images that each sends to its class, `(K,)`.
    """

    triggers: tuple[Trigger, ...]
    norms: Tensor
    success: Tensor


def neural_cleanse(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    rounds: int = ROUNDS,
    threshold: float = 2.0,
    repair: Callable[..., nn.Module] | None = None,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> nn.Module:
    r"""Neural Cleanse: reverse a trigger for each class, flag the one that is too small, and make the model forget it.

    Class k is flagged if its mask is smaller than the median and its `anomaly_index` is above `threshold`.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        x: the defender's trusted clean images, float `(N, C, H, W)` in [0, 1], N at least 1.
        y: their labels `(N,)`, int64.
        rounds: of `reverse_triggers`.
        threshold: of the anomaly index, at least 0.
        repair: `(model, x, y, triggers, *, generator, progress) -> model`; None takes `unlearn`, the paper's other way
            is `prune_responsive`.
        generator: draws all that is random; None draws a fresh one.
        progress: show a bar.
    Returns:
        the repaired model, in evaluation mode; a copy of `model` if no class is flagged.
    Raises:
        ValueError: names the argument.
    Reference: Wang 2019, IEEE S&P, "Neural Cleanse: identifying and mitigating backdoor attacks in neural networks",
        sections IV and VI.
    Survey: defenses against poisoning, model repair.
    Simplified: as `reverse_triggers`, `unlearn` and `prune_responsive` say.

    >>> from spai_lab.data import load
    >>> from spai_lab.training import reference
    >>> data, model = load("digits"), reference("lenet", "digits")
    >>> neural_cleanse(model, data.x_val, data.y_val, rounds=2, progress=False).training
    False
    """
    check_inputs(model, x, y, generator=generator)
    check_number("threshold", threshold, low=0)
    repair = unlearn if repair is None else repair
    check_callable("repair", repair)
    generator = fresh_generator(generator, x.device)
    found = reverse_triggers(model, x, rounds=rounds, generator=generator, progress=progress)
    triggers = [found.triggers[k] for k in flagged(found.norms, threshold=threshold)]
    if not triggers:
        return copy.deepcopy(model).eval()
    return repair(model, x, y, triggers, generator=generator, progress=progress)


def reverse_triggers(
    model: nn.Module,
    x: Tensor,
    *,
    rounds: int = ROUNDS,
    batch_size: int = 16,
    learning_rate: float = 0.1,
    cost: float = 1e-3,
    works_at: float = 0.99,
    patience: int = 5,
    multiplier: float = 2.0,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> Reversed:
    r"""The smallest trigger for each class, all classes at once.

    $\min_{m_k, p_k} \; L\left(f((1 - m_k) \odot x + m_k \odot p_k), k\right) + \lambda_k \|m_k\|_1$ by Adam, with m and
    p in [0, 1] by $\frac{1}{2} (\tanh + 1)$. $\lambda_k$ grows while the trigger works and shrinks while it does not;
    of all triggers that worked the smallest is the answer.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        x: the defender's trusted clean images, float `(N, C, H, W)` in [0, 1], N at least 1.
        rounds: of 10 steps of Adam each, at least 1.
        batch_size: images of a step, the same for all classes.
        learning_rate: of Adam, above 0.
        cost: $\lambda_k$ at first, above 0.
        works_at: a trigger works if it sends this share of the images to its class, above 0, at most 1.
        patience: after so many rounds in a row that work, or do not, $\lambda_k$ changes.
        multiplier: a, above 1: $\lambda_k$ grows by a, and shrinks by $a^{3/2}$.
        generator: draws starts and batches; None draws a fresh one.
        progress: show a bar.
    Returns:
        the triggers, the L1 norms of their masks, and how often they work on all of `x`. A class for which none worked
        has its last one.
    Raises:
        ValueError: names the argument.
    Reference: Wang 2019, IEEE S&P, section IV-B; rates, betas and schedule as in the authors' code.
    Simplified: all classes share steps and batches. The authors take up to 1,000 rounds of about 30 batches for each
        class, of 32 images each, and stop early.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> reverse_triggers(model, torch.full((8, 1, 2, 2), 0.5), rounds=1, progress=False).triggers
    (Trigger of 4 pixels, (1, 2, 2), Trigger of 4 pixels, (1, 2, 2))
    """
    check_reversal(model, x, rounds, batch_size, learning_rate, cost, works_at, patience, multiplier)
    check_generator(generator, x.device)
    check_flag("progress", progress)
    generator = fresh_generator(generator, x.device)
    K = classes_of(model, x)
    a, b = random_raw((K, 1, *x.shape[2:]), x, generator), random_raw((K, *x.shape[1:]), x, generator)
    optimizer = torch.optim.Adam([a, b], lr=learning_rate, betas=(0.5, 0.9))
    lambdas, streak = x.new_full((K,), cost), torch.zeros(K, dtype=torch.int64, device=x.device)
    best_m, best_p, smallest = squashed(a).detach(), squashed(b).detach(), x.new_full((K,), torch.inf)
    for _ in tqdm(range(rounds), desc="reversing triggers", unit="round", disable=not progress):
        hits = x.new_zeros(K)
        for _ in range(ROUND):
            batch = x[torch.randint(len(x), (batch_size,), generator=generator, device=x.device)]
            m, p = squashed(a), squashed(b)
            losses, hit = commanded(model, batch, m, p)
            objective = (losses + lambdas * m.sum((1, 2, 3))).sum()
            a.grad, b.grad = torch.autograd.grad(objective, [a, b])
            optimizer.step()
            hits += hit / ROUND
        works, sizes = hits >= works_at - 1e-6, m.detach().sum((1, 2, 3))
        better = (works & (sizes < smallest)) | smallest.isinf()
        best_m[better], best_p[better] = m.detach()[better], p.detach()[better]
        smallest = torch.where(works, smallest.minimum(sizes), smallest)
        streak = torch.where(works, streak.clamp(min=0) + 1, streak.clamp(max=0) - 1)
        change = streak.abs() >= patience
        factor = torch.where(works, multiplier, multiplier**-1.5)
        lambdas, streak = torch.where(change, lambdas * factor, lambdas), streak.masked_fill(change, 0)
    triggers = tuple(Trigger(p, m.expand_as(p).clone()) for m, p in zip(best_m, best_p, strict=True))
    success = [success_rate(model, x, trigger, k) for k, trigger in enumerate(triggers)]
    return Reversed(triggers, best_m.sum((1, 2, 3)), torch.tensor(success))


def anomaly_index(norms: Tensor) -> Tensor:
    r"""By how many standard deviations a mask's size is out of line, estimated by the median absolute deviation.

    $\frac{|n_k - \tilde n|}{1.4826 \cdot \mathrm{median}_j |n_j - \tilde n|}$, with $\tilde n$ the median.

    Args:
        norms: L1 norms of the K masks, `(K,)`, at least 0; K at least 3.
    Returns:
        `(K,)`, at least 0; infinite where more than half of the norms are the same and this one is another.
    Raises:
        ValueError: names the argument.
    Reference: Wang 2019, IEEE S&P, section IV-C.

    >>> anomaly_index(torch.tensor([1.0, 9.0, 10.0, 10.0, 11.0]))
    tensor([6.0704, 0.6745, 0.0000, 0.0000, 0.6745])
    """
    if not isinstance(norms, Tensor) or not norms.is_floating_point() or norms.ndim != 1 or len(norms) < 3:
        raise ValueError(f"norms is {describe(norms)}; accepted: a floating point tensor (K,), K at least 3")
    if not norms.isfinite().all() or norms.min() < 0:
        raise ValueError("norms has negative or infinite values; accepted: L1 norms")
    deviation = (norms - norms.quantile(0.5)).abs()
    return (deviation / (CONSISTENCY * deviation.quantile(0.5))).nan_to_num(0.0, posinf=torch.inf)


def flagged(norms: Tensor, *, threshold: float = 2.0) -> list[int]:
    """The classes whose mask is too small: below the median, with an anomaly index above `threshold`.

    Args:
        norms: L1 norms of the K masks, `(K,)`.
        threshold: at least 0; 2 leaves a normal value with less than 5 % probability.
    Returns:
        the classes, the smallest mask first.
    Raises:
        ValueError: names the argument.
    Reference: Wang 2019, IEEE S&P, section IV-C.

    >>> flagged(torch.tensor([9.0, 1.0, 10.0, 10.0, 11.0]))
    [1]
    """
    check_number("threshold", threshold, low=0)
    small = (anomaly_index(norms) > threshold) & (norms < norms.quantile(0.5))
    return [k for k in norms.argsort().tolist() if small[k]]


def unlearn(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    triggers: Sequence[Trigger],
    *,
    share: float = 0.2,
    epochs: int = 1,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> nn.Module:
    """Fine-tune on clean images, some of which carry a reversed trigger and their right labels.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        x: the defender's trusted clean images, float `(N, C, H, W)` in [0, 1].
        y: their labels `(N,)`, int64.
        triggers: to forget, at least one; each takes its part of the stamped images.
        share: of the images that are stamped, from 0 to 1.
        epochs, batch_size, learning_rate: as in `fit`.
        generator: chooses the images and shuffles them; None draws a fresh one.
        progress: show a bar.
    Returns:
        the repaired model, in evaluation mode.
    Raises:
        ValueError: names the argument.
    Reference: Wang 2019, IEEE S&P, section VI-C: one epoch, with 20 % of the images stamped.
    Simplified: AdamW. The paper's defender has 10 % of the training images; here `x` is what there is, and one epoch on
        few images is few steps.
    """
    check_repair(model, x, y, triggers)
    check_number("share", share, low=0, high=1)
    generator = fresh_generator(generator, x.device)
    chosen = torch.randperm(len(x), generator=generator, device=x.device)[: round(share * len(x))]
    mixed = x.clone()
    for trigger, places in zip(triggers, chosen.tensor_split(len(triggers)), strict=True):
        mixed[places] = stamp(x[places], trigger)
    repaired = copy.deepcopy(model).eval()
    settings = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
    fit(repaired, mixed, y, **settings, generator=generator, progress=progress)
    return repaired


@torch.no_grad()
def prune_responsive(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    triggers: Sequence[Trigger],
    *,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> nn.Module:
    r"""Cut the units that a reversed trigger excites most, until it works no more often than by chance.

    The units of the layer before the last are ranked by $\mathbb{E}[h(A(x))] - \mathbb{E}[h(x)]$, with A(x) the stamped
    image.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`, ending in a linear layer.
        x: the defender's trusted clean images, float `(N, C, H, W)` in [0, 1], N at least 1.
        y: their labels `(N,)`, int64.
        triggers: to cut off, at least one, one after the other.
        generator, progress: not used, since nothing is random and it is quick; here so that repairs are called alike.
    Returns:
        the repaired model, in evaluation mode; the cut units have outgoing weights of 0.
    Raises:
        ValueError: names the argument.
    Reference: Wang 2019, IEEE S&P, section VI-B.
    Simplified: the class that a trigger commands is the one that most stamped images get. "Not responsive" is taken to
        mean that at most 1 in K images of other classes gets it.
    """
    check_repair(model, x, y, triggers)
    repaired = copy.deepcopy(model).eval()
    last = [layer for layer in repaired.modules() if isinstance(layer, nn.Linear)][-1]
    for trigger in triggers:
        stamped = stamp(x, trigger)
        k = repaired(stamped).argmax(1).mode()[0]
        others = stamped[y != k]
        excited = features(repaired, stamped).mean(0) - features(repaired, x).mean(0)
        for unit in excited.argsort(descending=True):
            if (repaired(others).argmax(1) == k).float().mean() <= 1 / last.out_features:
                break
            last.weight[:, unit] = 0
    return repaired


def commanded(model: nn.Module, x: Tensor, m: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """Of K triggers on the same images, the mean loss toward the trigger's class and its success, both `(K,)`."""
    K, N = len(m), len(x)
    stamped = (1 - m[:, None]) * x + m[:, None] * p[:, None]
    wanted = torch.arange(K, device=x.device).repeat_interleave(N)
    logits = model(stamped.flatten(0, 1))
    losses = F.cross_entropy(logits, wanted, reduction="none").view(K, N).mean(1)
    return losses, (logits.argmax(1) == wanted).view(K, N).to(x).mean(1)


def success_rate(model: nn.Module, x: Tensor, trigger: Trigger, target: int) -> float:
    """The share of stamped images that the model takes for the target class."""
    wanted = torch.full((len(x),), target, device=x.device)
    return fooled_rate(model, stamp(x, trigger), wanted, targeted=True).value


def squashed(raw: Tensor) -> Tensor:
    r"""Any number to (0, 1): $\frac{1}{2} (\tanh + 1)$."""
    return (raw.tanh() + 1) / 2


def random_raw(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    """What `squashed` makes uniform on (0, 1), as a leaf that wants a gradient."""
    u = torch.rand(shape, generator=generator, dtype=like.dtype, device=like.device)
    return ((2 * u - 1) * (1 - 1e-6)).atanh().requires_grad_()


def classes_of(model: nn.Module, x: Tensor) -> int:
    """How many classes K the model tells apart."""
    with torch.no_grad():
        return logits_of(model, x[:1], torch.zeros(1, dtype=torch.int64, device=x.device)).shape[1]


def check_reversal(
    model: nn.Module,
    x: Tensor,
    rounds: int,
    batch_size: int,
    learning_rate: float,
    cost: float,
    works_at: float,
    patience: int,
    multiplier: float,
) -> None:
    """Raise `ValueError` unless there are images, a model for them, and a search that can go on."""
    check_images(x)
    if x.ndim != 4 or len(x) == 0:
        raise ValueError(f"x is {describe(x)}; accepted: (N, C, H, W), N at least 1")
    check_model(model, x)
    for name, count in (("rounds", rounds), ("batch_size", batch_size), ("patience", patience)):
        check_count(name, count)
    check_number("learning_rate", learning_rate, low=0, exclusive=True)
    check_number("cost", cost, low=0, exclusive=True)
    check_number("works_at", works_at, low=0, high=1, exclusive=True)
    check_number("multiplier", multiplier, low=1, exclusive=True)


def check_repair(model: nn.Module, x: Tensor, y: Tensor, triggers: Sequence[Trigger]) -> None:
    """Raise `ValueError` unless there are labeled images, and triggers to make the model forget."""
    check_inputs(model, x, y)
    check_count("the number of images in x", len(x))
    if len(triggers) == 0 or not all(isinstance(trigger, Trigger) for trigger in triggers):
        raise ValueError(f"triggers is {describe(triggers)}; accepted: at least one Trigger")

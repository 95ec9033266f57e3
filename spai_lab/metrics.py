"""Rates and medians, each with the interval that its number of images allows."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, median
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from spai_lab.checks import (
    check_callable,
    check_count,
    check_images,
    check_labels,
    check_like,
    check_model,
    check_number,
    describe,
)
from spai_lab.query import Query
from spai_lab.threat import fooled, norms

Z_95 = NormalDist().inv_cdf(0.975)


def wilson(p: float, n: int) -> tuple[float, float]:
    r"""Wilson's 95 % interval for a share: all $q$ with $|p - q| \le z \sqrt{q (1 - q) / n}$.

    Args:
        p: the share that was found, in [0, 1].
        n: of how many that are independent of one another, at least 1.
    Returns:
        its ends, in [0, 1].
    Reference: Wilson 1927, "Probable inference, the law of succession, and statistical inference".

    >>> low, high = wilson(0.5, 4)
    >>> round(low, 2), round(high, 2)
    (0.15, 0.85)
    """
    check_number("p", p, low=0, high=1)
    check_count("n", n)
    z = Z_95
    center = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return max(0.0, center - half), min(1.0, center + half)


@dataclass(frozen=True)
class Rate:
    """A share of images, with the number it rests on.

    Args:
        hits: images counted.
        trials: images looked at, at least 1.
    Raises:
        ValueError: not whole numbers, or more hits than trials.

    >>> print(Rate(83, 100))
    83.0 % (n = 100, 95 % interval 74.5 to 89.1)
    """

    hits: int
    trials: int

    def __post_init__(self) -> None:
        check_count("trials", self.trials)
        check_count("hits", self.hits, low=0)
        check_number("hits", self.hits, low=0, high=self.trials)

    @property
    def value(self) -> float:
        """The share, in [0, 1]."""
        return self.hits / self.trials

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval for the share.

        Reference: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
        """
        return wilson(self.value, self.trials)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{100 * self.value:.1f} % (n = {self.trials:,}, 95 % interval {100 * low:.1f} to {100 * high:.1f})"


def accuracy_rate(model: nn.Module, x: Tensor, y: Tensor, *, batch_size: int = 1000) -> Rate:
    """How many inputs the model gets right; on adversarial inputs this is the accuracy that an attack leaves.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        x: inputs `(N, C, H, W)` in [0, 1], clean or adversarial, N at least 1.
        y: true labels `(N,)`, int64.
        batch_size: inputs at a time.
    Returns:
        the rate, with its interval.
    Raises:
        ValueError: names the argument.
    """
    return Rate(len(x) - hits(model, x, y, targeted=False, batch_size=batch_size), len(x))


def fooled_rate(model: nn.Module, x_adv: Tensor, y: Tensor, *, targeted: bool = False, batch_size: int = 1000) -> Rate:
    """How many inputs the model misreads, or takes for the target class if `targeted`.

    Inputs that it misread before the attack count too; exercise 3 of chapter 01 counts only those that were turned.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        x_adv: adversarial inputs `(N, C, H, W)` in [0, 1], N at least 1.
        y: true labels `(N,)`, int64; target classes if `targeted`.
        targeted: whether `y` is what the attacker wants.
        batch_size: inputs at a time.
    Returns:
        the rate, with its interval.
    Raises:
        ValueError: names the argument.
    """
    return Rate(hits(model, x_adv, y, targeted=targeted, batch_size=batch_size, name="x_adv"), len(x_adv))


def distortions(
    model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, *, norm: str = "l2", targeted: bool = False
) -> Tensor:
    """How far each attacked image had to move; infinitely far where the attack failed.

    So a median over the images compares attacks that fail on different ones.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        x: clean images `(N, C, H, W)` in [0, 1].
        x_adv: adversarial images, like `x`.
        y: true labels `(N,)`, int64; target classes if `targeted`.
        norm: "linf", "l2", "l1" or "l0".
        targeted: whether `y` is what the attacker wants.
    Returns:
        `(N,)`, in pixel units; `inf` where the model is not fooled.
    Raises:
        ValueError: names the argument.
    """
    check_images(x)
    check_like("x_adv", x_adv, x)
    hit = fooled(model, x_adv, y, targeted=targeted)
    return norms(x_adv - x, norm).masked_fill(~hit, math.inf)


class Median(NamedTuple):
    """A median with its 95 % interval; each of the three may be infinite.

    Args:
        value: the median.
        low, high: the interval.
    """

    value: float
    low: float
    high: float


def median_of(values: Sequence[float]) -> Median:
    r"""The median, and two order statistics between which the true one lies with at least 95 % confidence.

    With $n$ values in order, the interval is $[v_r, v_{n + 1 - r}]$, r the largest with
    $\Pr(\mathrm{Bin}(n, 1/2) < r) \le 0.025$; with fewer than six values, from 0 to infinity. No distribution is
    assumed, so that values may be infinite.

    Args:
        values: numbers of at least 0, at least one of them.
    Returns:
        the median and its interval.
    Raises:
        ValueError: there are none, or one that is not a number of at least 0.

    >>> median_of([1.0, 2.0, 3.0, 4.0, 5.0, math.inf])
    Median(value=3.5, low=1.0, high=inf)
    """
    values = sorted(map(float, values))
    if not values or not all(value >= 0 for value in values):
        raise ValueError(f"values is {describe(values)}; accepted: at least one number, each at least 0")
    n, rank = len(values), 0
    tail = 1  # how many of the 2^n equally likely patterns of "below" and "above" have at most `rank` below
    while 40 * tail <= 2**n:
        rank += 1
        tail += math.comb(n, rank)
    low, high = (values[rank - 1], values[n - rank]) if rank else (0.0, math.inf)
    return Median(median(values), low, high)


def distortion_by_queries(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attacks: Mapping[str, Callable[[Query, Tensor, Tensor], Tensor]],
    caps: Sequence[int],
    *,
    norm: str = "l2",
    reveals: str | Mapping[str, str] = "scores",
    targeted: bool = False,
) -> dict[str, dict[int, Median]]:
    """The median distortion that black-box attacks need, for each number of queries that an image may cost.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        x: clean images `(N, C, H, W)` in [0, 1], N at least 1.
        y: true labels `(N,)`, int64; target classes if `targeted`.
        attacks: name of an attack to `attack(query, x, y) -> x_adv`, run anew for each cap; `partial` sets the rest.
        caps: queries that an image may cost, each at least 1.
        norm: the norm of the distortion, as in `distortions`.
        reveals: what a `Query` reveals, to all attacks, or to each by its name.
        targeted: whether `y` is what the attacker wants.
    Returns:
        by attack and cap the median over the images, a failure being infinitely far, with its interval.
    Raises:
        ValueError: names the argument.
    """
    check_images(x)
    if not isinstance(attacks, Mapping) or not attacks:
        raise ValueError(f"attacks is {describe(attacks)}; accepted: at least one attack by its name")
    for attack in attacks.values():
        check_callable("attacks", attack)
    if not isinstance(caps, Sequence) or isinstance(caps, str):
        raise ValueError(f"caps is {describe(caps)}; accepted: a list of numbers of queries")
    for cap in caps:
        check_count("caps", cap)
    levels = dict.fromkeys(attacks, reveals) if isinstance(reveals, str) else reveals
    if not isinstance(levels, Mapping) or set(levels) != set(attacks):
        raise ValueError(f"reveals is {describe(reveals)}; accepted: one level, or one for each of the attacks")
    if len(x) == 0:
        raise ValueError(f"x is {describe(x)}; accepted: at least one input")

    def needed(name: str, cap: int) -> Median:
        x_adv = attacks[name](Query(model, levels[name], cap=cap), x, y)
        return median_of(distortions(model, x, x_adv, y, norm=norm, targeted=targeted).tolist())

    return {name: {cap: needed(name, cap) for cap in caps} for name in attacks}


class Roc(NamedTuple):
    """What every threshold of a score would catch, from the strictest to the one that suspects everything.

    Args:
        thresholds: in falling order, `(T,)`; first infinity, then each score that occurs.
        false_positives: the share of the innocent with a score of at least the threshold, `(T,)`.
        true_positives: the share of the guilty with such a score, `(T,)`.
    """

    thresholds: Tensor
    false_positives: Tensor
    true_positives: Tensor

    @property
    def area(self) -> float:
        """The area under the curve: the chance that a guilty input scores above an innocent one; ties count half."""
        return torch.trapezoid(self.true_positives, self.false_positives).item()

    def best(self, *, false_positives: float) -> float:
        """The largest share of the guilty that is caught with at most this share of the innocent."""
        return self.true_positives[self.false_positives <= false_positives].max().item()


def roc(scores: Tensor, guilty: Tensor) -> Roc:
    """The receiver operating characteristic of a detector.

    Args:
        scores: `(N,)`, finite; higher is more suspicious.
        guilty: which inputs are what the detector looks for, bool `(N,)`; at least one is, and one is not.
    Returns:
        the curve.
    Raises:
        ValueError: names the argument.

    >>> roc(torch.tensor([3.0, 1.0, 2.0]), torch.tensor([True, False, False])).area
    1.0
    """
    if not isinstance(scores, Tensor) or scores.ndim != 1 or not scores.isfinite().all():
        raise ValueError(f"scores is {describe(scores)}; accepted: finite scores (N,)")
    if not isinstance(guilty, Tensor) or guilty.dtype != torch.bool or guilty.shape != scores.shape:
        raise ValueError(f"guilty is {describe(guilty)}; accepted: bool of shape ({len(scores)},)")
    if guilty.all() or not guilty.any():
        raise ValueError("guilty is the same for all; accepted: at least one input that is, and one that is not")
    ordered, order = scores.sort(descending=True)
    last = torch.cat([ordered[1:] != ordered[:-1], torch.ones(1, dtype=torch.bool, device=scores.device)])
    true, false = (mask[order].double().cumsum(0)[last] / mask.sum() for mask in (guilty, ~guilty))
    start = true.new_zeros(1)
    return Roc(
        torch.cat([scores.new_full((1,), math.inf), ordered[last]]), torch.cat([start, false]), torch.cat([start, true])
    )


class Caught(NamedTuple):
    """The share of the guilty that is caught at a low share of false alarms, pooled over several targets.

    Args:
        value: the share.
        low, high: a 95 % interval, by drawing targets again.
    """

    value: float
    low: float
    high: float


def caught_at(
    scores: Sequence[Tensor],
    guilty: Sequence[Tensor],
    *,
    false_positives: float,
    resamples: int = 1000,
    generator: torch.Generator | None = None,
) -> Caught:
    """The true positives at a low rate of false positives, one threshold for all targets together.

    The scores of one target depend on each other, so the interval comes from drawing whole targets with replacement.

    Args:
        scores: for each target `(N,)`, finite; higher is more suspicious.
        guilty: for each target which inputs are what the attacker looks for, bool `(N,)`.
        false_positives: the share of the innocent that may be accused, above 0, at most 1; at least ten of them.
        resamples: how often the targets are drawn again.
        generator: draws them; None takes the same draws each time.
    Returns:
        the share and its interval.
    Raises:
        ValueError: names the argument; too few are innocent for so low a rate.
    Reference: Carlini 2022, arXiv 2112.03570, section III (true positives at low false positives); Efron 1979,
        "Bootstrap methods: another look at the jackknife".

    >>> scores, guilty = torch.linspace(1, 0, 400), torch.arange(400) < 200
    >>> caught_at([scores, scores], [guilty, guilty], false_positives=0.05)
    Caught(value=1.0, low=1.0, high=1.0)
    """
    check_number("false_positives", false_positives, low=0, high=1, exclusive=True)
    check_count("resamples", resamples)
    if len(scores) != len(guilty) or not scores:
        raise ValueError(
            f"scores is of {len(scores)} targets, guilty of {len(guilty)}; accepted: as many, at least one"
        )
    innocent = int(sum((~mask).sum() for mask in guilty))
    if innocent * false_positives < 10:
        raise ValueError(
            f"false_positives is {false_positives:g} of {innocent:,} innocent scores; accepted: a rate that accuses at "
            "least ten of them"
        )

    def caught(targets: Sequence[int]) -> float:
        pooled = (torch.cat([part[target] for target in targets]) for part in (scores, guilty))
        return roc(*pooled).best(false_positives=false_positives)

    generator = torch.Generator().manual_seed(0) if generator is None else generator
    drawn = torch.randint(len(scores), (resamples, len(scores)), generator=generator).tolist()
    found = torch.tensor([caught(targets) for targets in drawn], dtype=torch.float64).sort().values
    low, high = (found[round(share * (resamples - 1))].item() for share in (0.025, 0.975))
    return Caught(caught(range(len(scores))), low, high)


def chi_square(counts: np.ndarray) -> float:
    r"""$\chi^2 = \sum_i \frac{(n_i - n / k)^2}{n / k}$: about k - 1 if all k cells are equally likely.

    >>> chi_square(np.array([10, 10])), chi_square(np.array([15, 5]))
    (0.0, 5.0)
    """
    expected = counts.mean()
    return float(((counts - expected) ** 2).sum() / expected)


def psnr(x: Tensor, other: Tensor) -> Tensor:
    r"""The peak signal-to-noise ratio of each image beside another, in dB.

    $10 \log_{10} \frac{1}{\mathrm{mean}((x - x')^2)}$, for pixels in [0, 1].

    Args:
        x: images `(N, C, H, W)` in [0, 1].
        other: like `x`.
    Returns:
        `(N,)`; infinite where both are the same.
    Raises:
        ValueError: names the argument.

    >>> psnr(torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 0.1))
    tensor([20.])
    """
    check_images(x)
    check_like("other", other, x)
    return -10 * (x - other).square().flatten(1).mean(1).log10()


def robustness_curve(
    model: nn.Module, x: Tensor, y: Tensor, attack: Callable[..., Tensor], eps: Iterable[float], **arguments: object
) -> dict[float, Rate]:
    """The accuracy that an attack leaves, at each radius.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        x: clean inputs `(N, C, H, W)` in [0, 1].
        y: true labels `(N,)`, int64.
        attack: called as `attack(model, x, y, eps=..., **arguments)`.
        eps: the radii, in pixel units of [0, 1].
        arguments: passed on to the attack.
    Returns:
        from each radius to the rate.
    Raises:
        ValueError: names the argument.
    """
    check_callable("attack", attack)
    if not isinstance(eps, Iterable):
        raise ValueError(f"eps is {describe(eps)}; accepted: a list of radii")
    return {radius: accuracy_rate(model, attack(model, x, y, eps=radius, **arguments), y) for radius in eps}


def hits(model: nn.Module, x: Tensor, y: Tensor, *, targeted: bool, batch_size: int, name: str = "x") -> int:
    """The number of inputs that fool the model, counted batch by batch."""
    check_images(x, name)
    check_labels(y, x)
    check_model(model, x)
    check_count("batch_size", batch_size)
    if len(x) == 0:
        raise ValueError(f"{name} is {describe(x)}; accepted: at least one input")
    parts = [
        fooled(model, *part, targeted=targeted) for part in zip(x.split(batch_size), y.split(batch_size), strict=True)
    ]
    return int(torch.cat(parts).sum())

r"""Randomized smoothing: a vote under Gaussian noise, and a radius within which no attack can turn it.

The smoothed classifier $g(x) = \arg\max_c P(f(x + \sigma z) = c)$, $z \sim N(0, I)$, has a guarantee for any $f$.
The noise must have no bounds: noisy inputs leave [0, 1] by design and are never clipped, neither here nor in training.
The guarantee covers those attacks too that leave [0, 1].
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.stats import beta, binom, norm
from torch import Tensor, nn
from tqdm.auto import tqdm

from spai_lab.checks import (
    check_count,
    check_flag,
    check_generator,
    check_images,
    check_inputs,
    check_labels,
    check_model,
    check_number,
)
from spai_lab.metrics import Rate
from spai_lab.threat import fresh_generator, logits_of

ABSTAIN = -1


@dataclass(frozen=True, eq=False)
class Certified:
    """What randomized smoothing says of each input.

    Args:
        classes: the class of the smoothed classifier, int64 `(N,)`; -1 where it abstains.
        radius: how far in L2, in pixel units, an attack can go without changing that class, float64 `(N,)`; 0 where
            it abstains.
        counts: how often each class won among the n noisy copies that the radius rests on, int64 `(N, K)`.
    """

    classes: Tensor
    radius: Tensor
    counts: Tensor

    @property
    def abstained(self) -> Tensor:
        """Where nothing is certified, bool `(N,)`."""
        return self.classes == ABSTAIN

    def accuracy(self, y: Tensor, radius: float = 0.0) -> Rate:
        """Certified accuracy: the share of inputs whose right class is certified up to `radius`.

        Args:
            y: true labels `(N,)`, int64.
            radius: in L2, in pixel units, at least 0.
        Returns:
            the rate, with its interval.
        Raises:
            ValueError: names the argument.
        """
        check_labels(y, self.counts)
        check_number("radius", radius, low=0)
        return Rate(int(((self.classes == y) & (self.radius >= radius)).sum()), len(y))


@torch.no_grad()
def randomized_smoothing(
    model: nn.Module,
    x: Tensor,
    *,
    sigma: float,
    n0: int = 100,
    n: int = 10_000,
    alpha: float = 0.001,
    batch_size: int = 500,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> Certified:
    r"""Randomized smoothing: certify the majority under Gaussian noise, and a radius around each input.

    A few noisy copies choose the class $c_A$, many others bound its share from below by $\underline{p_A}$, with
    confidence $1 - \alpha$. If $\underline{p_A} > 1/2$, $g(x + \delta) = c_A$ for all
    $\|\delta\|_2 < R = \sigma \, \Phi^{-1}(\underline{p_A})$; else it abstains.

    Args:
        model: `(N, C, H, W)` to logits `(N, K)`, in evaluation mode; it meets pixels outside of [0, 1] too.
        x: inputs, floating point `(N, C, H, W)` in [0, 1].
        sigma: standard deviation of the noise, in pixel units, above 0; best the one that the model was trained with.
        n0: noisy copies that choose the class.
        n: noisy copies that bound its share.
        alpha: how often, for one input, the certificate may be wrong, above 0, at most 1/2.
        batch_size: noisy copies at a time.
        generator: draws the noise; None draws a fresh one.
        progress: show a bar over the inputs.
    Returns:
        classes, radii and votes.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Cohen 2019, arXiv 1902.02918, theorem 1 and section 3.2.2 (CERTIFY).
    Survey: defenses against evasion, certified.
    Simplified: $\overline{p_B} = 1 - \underline{p_A}$, as in the paper's experiments; n is 10,000, the paper's 100,000.

    >>> x = torch.tensor([[0.9, 0.1], [0.5, 0.5]]).view(2, 2, 1, 1)
    >>> generator = torch.Generator().manual_seed(0)
    >>> certified = randomized_smoothing(nn.Flatten(), x, sigma=0.5, generator=generator, progress=False)
    >>> certified.classes, bool(0.52 < certified.radius[0] < 0.8 / 2**0.5)
    (tensor([ 0, -1]), True)
    """
    check_smoothing(model, x, sigma, n, alpha, batch_size, generator, progress)
    check_count("n0", n0)
    generator = fresh_generator(generator, x.device)
    guesses, counts = [], []
    for x_i in tqdm(x, desc="randomized smoothing", unit="image", disable=not progress):
        guesses.append(votes(model, x_i, n0, sigma, batch_size, generator).argmax())
        counts.append(votes(model, x_i, n, sigma, batch_size, generator))
    if not counts:
        return Certified(*torch.zeros(2, 0, dtype=torch.int64), torch.zeros(0, 0, dtype=torch.int64))
    c_a, counts = torch.stack(guesses), torch.stack(counts)
    p_a = lower_confidence_bound(counts.gather(1, c_a[:, None])[:, 0], n, alpha)
    sure = p_a > 0.5
    radius = torch.as_tensor(sigma * norm.ppf(p_a.cpu()), device=x.device)
    return Certified(c_a.where(sure, ABSTAIN), radius.where(sure, 0.0), counts)


@torch.no_grad()
def smoothed_prediction(
    model: nn.Module,
    x: Tensor,
    *,
    sigma: float,
    n: int = 1000,
    alpha: float = 0.001,
    batch_size: int = 500,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> Tensor:
    r"""What the smoothed classifier answers, without a radius; how an attack on it is judged.

    The winner $c_A$ among n noisy copies, unless a fair coin would part winner and runner-up as clearly with a
    probability above $\alpha$: $P(\mathrm{Bin}(n_A + n_B, 1/2) \text{ as extreme as } n_A) \le \alpha$.

    Args:
        model, sigma, alpha, batch_size, generator, progress: as in `randomized_smoothing`.
        x: inputs, floating point `(N, C, H, W)` in [0, 1].
        n: noisy copies of each input.
    Returns:
        classes, int64 `(N,)`; -1 where it abstains. An answer is another class than that of the smoothed classifier
        with a probability of at most `alpha`.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Cohen 2019, arXiv 1902.02918, section 3.2.1 (PREDICT).
    Survey: defenses against evasion, certified.

    >>> generator = torch.Generator().manual_seed(0)
    >>> x = torch.tensor([[0.9, 0.1], [0.5, 0.5]]).view(2, 2, 1, 1)
    >>> smoothed_prediction(nn.Flatten(), x, sigma=0.25, generator=generator, progress=False)
    tensor([ 0, -1])
    """
    check_smoothing(model, x, sigma, n, alpha, batch_size, generator, progress)
    generator = fresh_generator(generator, x.device)
    images = tqdm(x, desc="smoothed prediction", unit="image", disable=not progress)
    counts = [votes(model, x_i, n, sigma, batch_size, generator) for x_i in images]
    if not counts:
        return torch.zeros(0, dtype=torch.int64, device=x.device)
    (n_a, n_b), (c_a, _) = (best.T for best in torch.stack(counts).topk(2, dim=1))
    both_tails = 2 * binom.sf((n_a - 1).cpu(), (n_a + n_b).cpu(), 0.5)
    return c_a.where(torch.as_tensor(both_tails, device=x.device) <= alpha, ABSTAIN)


def gaussian_noise_training(
    model: nn.Module, x: Tensor, y: Tensor, *, sigma: float, generator: torch.Generator | None = None
) -> Tensor:
    r"""The training loss for smoothing: cross-entropy under the noise that the votes are taken under.

    $\frac{1}{N} \sum_i L(f(x_i + \sigma z_i), y_i)$, $z_i \sim N(0, I)$, not clipped to [0, 1].

    Args:
        model: `(N, C, H, W)` to logits `(N, K)`; it meets pixels outside of [0, 1] too.
        x: inputs, floating point `(N, C, H, W)` in [0, 1].
        y: labels `(N,)`, int64.
        sigma: standard deviation of the noise, in pixel units, at least 0.
        generator: draws the noise; None draws a fresh one.
    Returns:
        the loss, a scalar that depends on the weights.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Cohen 2019, arXiv 1902.02918, section 3.3.
    Survey: defenses against evasion, certified.

    >>> x, y = torch.tensor([0.2, 0.8]).view(1, 2, 1, 1), torch.tensor([1])
    >>> gaussian_noise_training(nn.Flatten(), x, y, sigma=0.0)
    tensor(0.4375)
    """
    check_inputs(model, x, y, generator=generator)
    check_number("sigma", sigma, low=0)
    generator = fresh_generator(generator, x.device)
    return F.cross_entropy(model(noisy(x, sigma, generator)), y)


def lower_confidence_bound(hits: Tensor, trials: int, alpha: float) -> Tensor:
    r"""Clopper-Pearson: the probability under which so many hits or more come with probability $\alpha$.

    The p with $P(\mathrm{Bin}(n, p) \ge k) = \alpha$, a quantile of the beta distribution; 0 for k = 0. The true share
    is below it with a probability of at most $\alpha$.

    Args:
        hits: k, int64 `(N,)`, from 0 to n.
        trials: n.
        alpha: above 0, below 1.
    Returns:
        float64 `(N,)`.
    Reference: Clopper and Pearson 1934, "The use of confidence or fiducial limits illustrated in the case of the
        binomial".

    >>> lower_confidence_bound(torch.tensor([0, 5, 10]), 10, 0.001)
    tensor([0.0000, 0.0898, 0.5012], dtype=torch.float64)
    """
    k = hits.cpu().numpy()
    return torch.as_tensor(beta.ppf(alpha, k.clip(1), trials - k + 1), device=hits.device).where(hits > 0, 0.0)


def votes(model: nn.Module, x_i: Tensor, n: int, sigma: float, batch_size: int, generator: torch.Generator) -> Tensor:
    """How often each class wins among n noisy copies of one input `(C, H, W)`: int64 `(K,)`."""
    counts = torch.zeros(1, dtype=torch.int64, device=x_i.device)
    for start in range(0, n, batch_size):
        copies = x_i.expand(min(batch_size, n - start), *x_i.shape)
        any_class = torch.zeros(len(copies), dtype=torch.int64, device=x_i.device)
        logits = logits_of(model, noisy(copies, sigma, generator), any_class)
        counts = counts + logits.argmax(1).bincount(minlength=logits.shape[1])
    return counts


def noisy(x: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Gaussian noise on each pixel, not clipped."""
    return x + sigma * torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)


def check_smoothing(
    model: nn.Module,
    x: Tensor,
    sigma: float,
    n: int,
    alpha: float,
    batch_size: int,
    generator: torch.Generator | None,
    progress: bool,
) -> None:
    """Raise `ValueError` unless each argument that certificate and prediction share is in its range."""
    check_images(x)
    check_model(model, x)
    check_number("sigma", sigma, low=0, exclusive=True)
    check_count("n", n)
    check_number("alpha", alpha, low=0, high=0.5, exclusive=True)
    check_count("batch_size", batch_size)
    check_generator(generator, x.device)
    check_flag("progress", progress)

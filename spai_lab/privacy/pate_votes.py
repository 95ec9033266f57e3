r"""Votes of teachers and what is told of them: the winner after noise, and only where they agree if so wished.

What each answer spends is in `pate_bounds`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from spai_lab.attacks.privacy.shadows import Shadows
from spai_lab.checks import check_count, check_images, check_number, describe
from spai_lab.privacy.pate_bounds import check_counts
from spai_lab.privacy.secure import add_secure_noise, check_source
from spai_lab.threat import fresh_generator

UNANSWERED = -1


def votes(teachers: Shadows, x: Tensor, *, batch_size: int = 1000) -> Tensor:
    r"""How many teachers say each class, $n_j(x)$: private, until noise is added.

    Args:
        teachers: with disjoint parts.
        x: `(N, C, H, W)` in [0, 1], N at least 1.
        batch_size: inputs at a time.
    Returns:
        `(N, K)`, int64; each row adds up to the number of teachers.
    Raises:
        ValueError: names the argument; an input was in two teachers' parts, so that it moves two votes.
    """
    if not isinstance(teachers, Shadows):
        raise ValueError(f"teachers is {describe(teachers)}; accepted: what train_teachers returns")
    if teachers.inside.sum(0).max() > 1:
        raise ValueError("teachers share inputs, each of which moves several votes; accepted: disjoint parts")
    check_images(x)
    check_count("batch_size", batch_size)
    if len(x) == 0:
        raise ValueError("x is empty; accepted: at least one input")
    answers = (teachers.logits(part) for part in x.split(batch_size))
    return torch.cat([F.one_hot(z.argmax(2), z.shape[2]).sum(0) for z in answers])


def gnmax(counts: Tensor, *, sigma: float, secure: bool = False, generator: torch.Generator | None = None) -> Tensor:
    r"""The winner after Gaussian noise: $M(x) = \arg\max_j \{n_j(x) + N(0, \sigma^2)\}$; `gnmax_guarantee` accounts.

    Args:
        counts: votes `(N, K)`, int64, of as many teachers each.
        sigma: $\sigma$, in votes, above 0.
        secure: noise from the cryptographic source, rounded with the votes to a grid; takes no generator.
        generator: makes a demonstration, not private; None draws a fresh one.
    Returns:
        labels `(N,)`.
    Raises:
        ValueError: names the argument.
    Reference: Papernot 2018, arXiv 1802.08908, section 4.1.

    >>> gnmax(torch.tensor([[90, 10], [20, 80]]), sigma=1.0)
    tensor([0, 1])
    """
    check_counts(counts)
    return with_gaussian_noise(counts, "sigma", sigma, secure, generator).argmax(1)


def lnmax(counts: Tensor, *, scale: float, generator: torch.Generator | None = None) -> Tensor:
    r"""The winner after Laplace noise: $M(x) = \arg\max_j \{n_j(x) + Lap(1 / \gamma)\}$; `lnmax_guarantee` accounts.

    Args:
        counts: votes `(N, K)`, int64, of as many teachers each.
        scale: $1 / \gamma$, in votes, above 0.
        generator: makes a demonstration, not private; None draws a fresh one.
    Returns:
        labels `(N,)`.
    Raises:
        ValueError: names the argument.
    Reference: Papernot 2016, arXiv 1610.05755, equation 1.

    >>> lnmax(torch.tensor([[90, 10], [20, 80]]), scale=0.5)
    tensor([0, 1])
    """
    check_counts(counts)
    check_number("scale", scale, low=0, exclusive=True)
    generator = fresh_generator(generator, counts.device)
    shape = (2, *counts.shape)
    plus, minus = torch.empty(shape, dtype=torch.float64, device=counts.device).exponential_(generator=generator)
    return (counts + scale * (plus - minus)).argmax(1)


def confident_gnmax(
    counts: Tensor,
    *,
    threshold: float,
    threshold_sigma: float,
    sigma: float,
    most: int,
    secure: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Answer only where enough teachers agree, which the noise is told too; `confident_guarantee` accounts.

    If $\max_j n_j(x) + N(0, \sigma_1^2) \ge T$ then $\arg\max_j \{n_j(x) + N(0, \sigma_2^2)\}$, else no answer.

    Args:
        counts: votes `(N, K)`, int64, of as many teachers each.
        threshold: T, in votes.
        threshold_sigma: $\sigma_1$, in votes, above 0; large, since every query pays for it.
        sigma: $\sigma_2$, in votes, above 0.
        most: answers at most, at least 1; after so many, no query is answered.
        secure: noise from the cryptographic source, rounded with the votes to a grid; takes no generator.
        generator: makes a demonstration, not private; None draws a fresh one.
    Returns:
        labels `(N,)`, -1 where there is no answer.
    Raises:
        ValueError: names the argument.
    Reference: Papernot 2018, arXiv 1802.08908, algorithm 1.

    >>> confident_gnmax(torch.tensor([[90, 10], [52, 48]]), threshold=75, threshold_sigma=2, sigma=1, most=2)
    tensor([ 0, -1])
    """
    check_counts(counts)
    check_number("threshold", threshold)
    check_count("most", most)
    largest = counts.amax(1, keepdim=True)
    agree = with_gaussian_noise(largest, "threshold_sigma", threshold_sigma, secure, generator)[:, 0] >= threshold
    answered = agree & (agree.cumsum(0) <= most)
    return gnmax(counts, sigma=sigma, secure=secure, generator=generator).masked_fill(~answered, UNANSWERED)


def with_gaussian_noise(
    counts: Tensor, name: str, sigma: float, secure: bool, generator: torch.Generator | None
) -> Tensor:
    """Votes with normal noise, float64; whole numbers are on the secure grid already, so that it costs nothing."""
    check_number(name, sigma, low=0, exclusive=True)
    check_source(secure, generator, counts.device)
    if secure:
        return add_secure_noise(counts.double(), sigma)
    generator = fresh_generator(generator, counts.device)
    return counts + sigma * torch.randn(counts.shape, dtype=torch.float64, generator=generator, device=counts.device)

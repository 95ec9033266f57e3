"""The likelihood-ratio attack: what would the model say of this input, had it been trained on it, and had it not?"""

import math

import torch
from torch import Tensor

from spai_lab.attacks.privacy.membership import Answers, confidences, windows
from spai_lab.attacks.privacy.shadows import Shadows, check_known
from spai_lab.checks import check_flag
from spai_lab.query import Query, check_query

NARROWEST = 1e-3  # of a Gaussian: shadow models that agree exactly do not make a model's answer certain


def lira(
    query: Query, x: Tensor, y: Tensor, shadows: Shadows, *, online: bool = True, shared_variance: bool = False
) -> Tensor:
    r"""LiRA: compare what the target says of an input with what shadow models say, with and without it.

    With $\phi = \log \frac{p_y}{1 - p_y}$, and Gaussians fitted to the shadow models' $\phi$ for each input:
    online $s = \log \frac{N(\phi; \mu_{in}, \sigma_{in}^2)}{N(\phi; \mu_{out}, \sigma_{out}^2)}$,
    offline $s = \log \Pr[Z \le \phi]$ with $Z \sim N(\mu_{out}, \sigma_{out}^2)$, which needs no model trained on it.

    Args:
        query: the target; reveals "top-3" or another number, "scores" or "logits".
        x: inputs `(N, C, H, W)` in [0, 1], of which the attacker wonders.
        y: their labels `(N,)`, int64.
        shadows: models that the attacker trained on parts of the same inputs; at least two with each input (online)
            and two without it.
        online: compare with both; else only with the models that have not seen the input.
        shared_variance: take one variance for all inputs, better with few shadow models.
    Returns:
        scores `(N,)`; higher: more likely a member.
    Raises:
        ValueError: names the argument.
    Reference: Carlini 2022, arXiv 2112.03570, algorithm 1 and equation 4 (offline); section VI-B (shared variance).
    Survey: Private AI, threats by a user.
    Simplified: each input is asked once, without augmentations.

    >>> from spai_lab.attacks.privacy.shadows import random_halves, train_shadows
    >>> from spai_lab.models import softmax_regression
    >>> build = lambda generator: softmax_regression((1, 2, 2), 2, generator=generator)
    >>> x, y = torch.rand(8, 1, 2, 2), torch.arange(8) % 2
    >>> shadows = train_shadows(x, y, random_halves(4, 8), build, progress=False)
    >>> lira(Query(shadows.model(0), "scores"), x, y, shadows, online=False).shape
    torch.Size([8])
    """
    check_query(query)
    if query.reveals == "labels":
        raise ValueError("query reveals 'labels'; accepted: one that reveals 'top-3', 'scores' or 'logits'")
    check_known(x, y, shadows)
    check_flag("online", online)
    check_flag("shared_variance", shared_variance)
    answer = query(x)
    if isinstance(answer, Tensor) and answer.shape[1] != shadows.logits(x[:1]).shape[2]:
        raise ValueError("shadows has other classes than the target; accepted: the same")
    phi = scaled(query, answer, y)
    phi_shadow = torch.stack([scaled(window, window(x), y) for window in windows(query, shadows)])
    mu, sigma = gaussian(phi_shadow, ~shadows.inside, shared_variance, "without")
    log_out = log_density(phi, mu, sigma)
    if not online:
        return torch.special.log_ndtr((phi - mu) / sigma)
    return log_density(phi, *gaussian(phi_shadow, shadows.inside, shared_variance, "with")) - log_out


def scaled(query: Query, answer: Tensor | Answers, y: Tensor) -> Tensor:
    r"""The confidence in the true class on a scale where it looks normally distributed, $\log (p_y / (1 - p_y))$."""
    true, others = confidences(query, answer, y)
    return true.log() - others.log()


def gaussian(phi: Tensor, counted: Tensor, shared: bool, which: str) -> tuple[Tensor, Tensor]:
    r"""For each input $\mu$ and $\sigma$ of what the counted models say of it, `(N,)` each, from `(S, N)`."""
    count = counted.sum(0)
    if count.min() < 2:
        raise ValueError(f"shadows has an input with fewer than two models {which} it; accepted: at least two")
    mu = (phi * counted).sum(0) / count
    squares = ((phi - mu).square() * counted).sum(0)
    variance = squares.sum() / (count - 1).sum() if shared else squares / (count - 1)
    return mu, variance.sqrt().clamp_min(NARROWEST).expand_as(mu)


def log_density(phi: Tensor, mu: Tensor, sigma: Tensor) -> Tensor:
    r"""$\log N(\phi; \mu, \sigma^2)$."""
    return -0.5 * ((phi - mu) / sigma).square() - sigma.log() - 0.5 * math.log(2 * math.pi)

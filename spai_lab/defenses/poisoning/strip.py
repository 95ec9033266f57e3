r"""Detection at run time: a trigger still commands the model when other images are laid over it."""

import math
from statistics import NormalDist

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from spai_lab.checks import (
    check_count,
    check_flag,
    check_generator,
    check_images,
    check_logits,
    check_model,
    check_number,
    describe,
    warn_suspicious,
)
from spai_lab.threat import fresh_generator


def strip(
    model: nn.Module,
    x: Tensor,
    x_clean: Tensor,
    *,
    overlays: int = 100,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> Tensor:
    r"""STRIP: lay clean images over an input; if the model stays sure of its answer, the input carries a trigger.

    $-\mathbb{H}(x) = \frac{1}{N} \sum_{n=1}^{N} \sum_k p_{nk} \log_2 p_{nk}$ with
    $p_n = \mathrm{softmax} f(\mathrm{clip}_{[0, 1]}(x + o_n))$ and N clean images $o_n$.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        x: inputs to judge, float `(N, C, H, W)` in [0, 1].
        x_clean: the defender's clean images `(M, C, H, W)` in [0, 1], M at least 1.
        overlays: how many of them are laid over each input, drawn with replacement, at least 1.
        generator: draws the overlays; None draws a fresh one.
        progress: show a bar.
    Returns:
        the score `(N,)`, in bits: the negative mean entropy, from $-\log_2 K$ to 0; higher is more suspicious.
    Raises:
        ValueError: names the argument.
    Reference: Gao 2019, arXiv 1902.06531, equations 2 to 4; N = 100 from its experiments.
    Survey: defenses against poisoning, detection.
    Simplified: the sum of two images saturates at white, so that the model never sees pixels above 1.

    >>> x, x_clean = torch.tensor([[[[1.0, 0.0]]], [[[0.0, 0.0]]]]), torch.tensor([[[[1.0, 1.0]]]])
    >>> strip(lambda x: 9 * x.flatten(1), x, x_clean, overlays=5)
    tensor([-1., -1.])
    """
    check_strip(model, x, x_clean)
    check_count("overlays", overlays)
    check_generator(generator, x.device)
    check_flag("progress", progress)
    generator = fresh_generator(generator, x.device)
    score = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    for i in tqdm(range(len(x)), desc="STRIP", unit="input", disable=not progress):
        drawn = torch.randint(len(x_clean), (overlays,), generator=generator, device=x.device)
        score[i] = -entropy(model, (x[i] + x_clean[drawn]).clamp(max=1)).mean()
    return score


@torch.no_grad()
def entropy(model: nn.Module, x: Tensor) -> Tensor:
    r"""How unsure the model is of each input, in bits: $-\sum_k p_k \log_2 p_k$, `(N,)`.

    >>> entropy(nn.Flatten(), torch.tensor([[[[0.0, 0.0, 0.0, 0.0]]]]))
    tensor([2.])
    """
    logits = model(x)
    check_logits(logits, torch.zeros(len(x), dtype=torch.int64, device=x.device))
    log_p = F.log_softmax(logits, 1)
    return -(log_p.exp() * log_p).sum(1) / math.log(2)


def strip_threshold(scores_clean: Tensor, *, false_rejection: float = 0.01) -> float:
    r"""The score above which an input is rejected, so that a share `false_rejection` of the clean ones is.

    $\mu + \sigma \, \Phi^{-1}(1 - \mathrm{FRR})$: the scores of clean inputs are taken to be normal.

    Args:
        scores_clean: `strip` of clean inputs, `(N,)`, N at least 2.
        false_rejection: the share FRR, above 0, at most 1/2.
    Returns:
        the threshold; an input with a higher score is taken to carry a trigger. Warns if it is at or above 0, where
        nothing is rejected: clean scores so close to 0 are not normal.
    Raises:
        ValueError: names the argument.
    Reference: Gao 2019, arXiv 1902.06531, section V (the detection boundary), with a false rejection rate of 1 %.
    Survey: defenses against poisoning, detection.

    >>> round(strip_threshold(torch.tensor([-1.0, -2.0, -3.0]), false_rejection=0.5), 6)
    -2.0
    """
    if not isinstance(scores_clean, Tensor) or scores_clean.ndim != 1 or len(scores_clean) < 2:
        raise ValueError(f"scores_clean is {describe(scores_clean)}; accepted: scores (N,) of two inputs or more")
    if not (scores_clean.is_floating_point() and scores_clean.isfinite().all()):
        raise ValueError("scores_clean is not finite; accepted: finite scores, as strip returns them")
    check_number("false_rejection", false_rejection, low=0, high=0.5, exclusive=True)
    scores = scores_clean.double()
    deviation = NormalDist().inv_cdf(1 - false_rejection)
    threshold = float(scores.mean() + deviation * scores.std(unbiased=False))
    if threshold >= 0:
        warn_suspicious(
            f"STRIP's threshold is {threshold:.2g} bits, and no score is above 0: it rejects nothing.",
            "10 (cleaning up)",
        )
    return threshold


def check_strip(model: nn.Module, x: Tensor, x_clean: Tensor) -> None:
    """Raise `ValueError` unless there are clean images of the inputs' shape, and a model for both."""
    check_images(x)
    check_images(x_clean, "x_clean")
    if len(x_clean) == 0 or x_clean.shape[1:] != x.shape[1:] or x_clean.dtype != x.dtype:
        raise ValueError(f"x_clean is {describe(x_clean)}; accepted: at least one image of the shape and type of x")
    check_model(model, x)

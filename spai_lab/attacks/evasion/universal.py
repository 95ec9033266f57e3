"""The universal perturbation: one noise that, added to almost any image, changes what the model sees."""

import warnings

import torch
from torch import Tensor, nn

from spai_lab.attacks.evasion.least_distortion import deepfool
from spai_lab.checks import SuspiciousResult, check_ball, check_count, check_inputs, check_number
from spai_lab.threat import fooled, fresh_generator, input_gradient, logits_of, shortened, warn_of_zeros


def universal_perturbation(
    model: nn.Module,
    x: Tensor,
    y: Tensor | None = None,
    *,
    eps: float,
    norm: str = "linf",
    fooling_rate: float = 0.8,
    passes: int = 10,
    steps: int = 10,
    overshoot: float = 0.02,
    batch_size: int = 8,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Universal perturbation: walk from image to image, and add for each what it still lacks to be misread.

    For every $x_i$ that the model still reads as before, with DeepFool for the least step:
    $\Delta v_i = \arg\min_r \|r\|_2 \text{ s.t. } \hat k(x_i + v + r) \ne \hat k(x_i), \quad
    v \leftarrow \Pi_\epsilon(v + \Delta v_i)$,
    pass after pass over the images, until the share `fooling_rate` of them is misread.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        x: images to learn from, floating point `(N, C, H, W)` in [0, 1].
        y: what an image counts as fooled away from, `(N,)`, int64; None, as in the paper, takes what the model says of
            the clean image, right or wrong.
        eps: largest size of the perturbation, in pixel units of [0, 1].
        norm: "linf" or "l2".
        fooling_rate: stop after the pass at which this share of `x` is fooled, from 0 to 1.
        passes: the most passes over the images, at least 1.
        steps: the most steps that DeepFool takes for one image.
        overshoot: of DeepFool, at least 0: how far each step goes beyond the boundary, as a share of the way.
        batch_size: images that take their step from the same v; 1 is the paper.
        generator: shuffles the images before each pass; None draws a fresh one.
    Returns:
        the perturbation v, `(1, C, H, W)`, no larger than `eps`; add it to any image, and clip to [0, 1].
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Moosavi-Dezfooli et al. 2016, arXiv 1610.08401, algorithm 1.
    Survey: evasion, white-box.
    Simplified: the paper updates v after every image; here a mini-batch takes its steps from the same v, and they are
        added up before the projection. Images are clipped to [0, 1] before a step, as the model will see them. DeepFool
        may give up on an image, and the passes are limited, where the paper goes on until the rate is reached; the
        best v of all passes is returned.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x = torch.full((3, 1, 2, 2), 0.5)
    >>> v = universal_perturbation(model, x, eps=0.1)
    >>> v.shape, bool(v.abs().max() <= 0.1 + 1e-6)
    (torch.Size([1, 1, 2, 2]), True)
    """
    y = check_universal(model, x, y, eps, norm, fooling_rate, passes, steps, overshoot, batch_size, generator)
    generator = fresh_generator(generator, x.device)
    x = x.detach()
    v = best = x.new_zeros(1, *x.shape[1:])
    highest = 0.0
    if len(x):
        warn_of_zeros(input_gradient(model, x, y))
    for _ in range(passes):
        for batch in torch.randperm(len(x), device=x.device, generator=generator).split(batch_size):
            standing = batch[~fooled(model, (x[batch] + v).clamp(0, 1), y[batch])]
            x_v = (x[standing] + v).clamp(0, 1)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SuspiciousResult)
                least = deepfool(model, x_v, y[standing], steps=steps, overshoot=overshoot) - x_v
            v = shortened(v + least.sum(0, keepdim=True), eps, norm)
        rate = fooled(model, (x + v).clamp(0, 1), y).double().mean().item() if len(x) else 1.0
        if rate > highest:
            best, highest = v, rate
        if rate >= fooling_rate:
            break
    return best


def check_universal(
    model: nn.Module,
    x: Tensor,
    y: Tensor | None,
    eps: float,
    norm: str,
    fooling_rate: float,
    passes: int,
    steps: int,
    overshoot: float,
    batch_size: int,
    generator: torch.Generator | None,
) -> Tensor:
    """The labels to fool away from; raises `ValueError` unless each argument is in its range."""
    check_ball(x, eps, norm)
    zeros = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    check_inputs(model, x, zeros if y is None else y, generator=generator)
    check_number("fooling_rate", fooling_rate, low=0, high=1)
    check_count("passes", passes)
    check_count("steps", steps)
    check_number("overshoot", overshoot, low=0)
    check_count("batch_size", batch_size)
    if y is not None:
        return y
    with torch.no_grad():
        return logits_of(model, x, zeros).argmax(1) if len(x) else zeros

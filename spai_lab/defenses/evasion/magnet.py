"""MagNet: an autoencoder of clean images shows which inputs are unlike them, and moves the others nearer to them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spai_lab.checks import (
    check_batch,
    check_callable,
    check_images,
    check_like,
    check_logits,
    check_number,
    describe,
)
from spai_lab.defenses.evasion.detection import Detector, threshold_at
from spai_lab.threat import norms


@dataclass(frozen=True, eq=False)
class MagNet:
    """Detectors with their thresholds, and a classifier behind a reformer.

    Args:
        reformed: a model like any other: reforms the input, then classifies it.
        detectors: each `(N, C, H, W)` to scores `(N,)`; higher is more suspicious.
        thresholds: of each detector; it rejects an input with a higher score.
    """

    reformed: nn.Module
    detectors: tuple[Detector, ...]
    thresholds: tuple[float, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """The highest score as a multiple of its threshold, `(N,)`, differentiable: above 1 an input is rejected."""
        ratios = [detector(x) / threshold for detector, threshold in zip(self.detectors, self.thresholds, strict=True)]
        return torch.stack(ratios).amax(0)

    @torch.no_grad()
    def rejects(self, x: Tensor) -> Tensor:
        """Which inputs at least one detector rejects, bool `(N,)`."""
        return self(x) > 1


def magnet(
    model: nn.Module,
    reformer: nn.Module,
    x_val: Tensor,
    *,
    detectors: Sequence[Detector] | None = None,
    fpr: float = 0.01,
) -> MagNet:
    r"""MagNet: reject what lies far from clean images, and reform the rest by an autoencoder.

    Rejected if $s_d(x) > t_d$ for a detector d, with $t_d$ such that at most a share `fpr` of clean images scores
    higher; otherwise $f(AE(x))$ is the answer.

    Args:
        model: f, `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        reformer: AE, images to images like them, such as `train_autoencoder` returns.
        x_val: clean validation images `(N, C, H, W)` in [0, 1], N at least 1: for the thresholds.
        detectors: any number, at least one; None takes those for MNIST that need one autoencoder,
            `reconstruction_error(reformer, p)` with p = 2 and 1. The paper takes p = 2 with the reformer and p = 1
            with an autoencoder without pooling; on CIFAR-10 it adds `divergence` at temperatures 10 and 40.
        fpr: each detector's share of clean images rejected, at least 0, below 1; 0.001 in the paper on MNIST.
    Returns:
        detectors, thresholds and the reformed model.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Meng 2017, arXiv 1705.09064, sections 4.2 and 4.3, and 5.2 for MNIST.
    Survey: defenses against evasion, detection.
    Simplified: the autoencoders are fixed; against gray-box attackers the paper draws one of several at random.

    >>> x_val = torch.tensor([[0.2, 0.3], [0.5, 0.5], [0.9, 0.8]]).view(3, 1, 1, 2)
    >>> defense = magnet(nn.Flatten(), lambda x: x.mean(3, keepdim=True).expand_as(x), x_val)
    >>> x = torch.tensor([[0.4, 0.4], [0.1, 0.7]]).view(2, 1, 1, 2)
    >>> defense.rejects(x), defense.reformed(x)
    (tensor([False,  True]), tensor([[0.4000, 0.4000],
            [0.4000, 0.4000]]))
    """
    check_callable("model", model)
    check_callable("reformer", reformer)
    check_images(x_val, "x_val")
    if len(x_val) == 0:
        raise ValueError(f"x_val is {describe(x_val)}; accepted: images (N, C, H, W), N at least 1")
    detectors = tuple(reconstruction_error(reformer, p) for p in (2, 1)) if detectors is None else tuple(detectors)
    if not detectors:
        raise ValueError("detectors is empty; accepted: at least one detector")
    thresholds = []
    for detector in detectors:
        check_callable("detectors", detector)
        with torch.no_grad():
            threshold = threshold_at(detector(x_val), fpr)
        if threshold <= 0:
            raise ValueError(f"detectors has one whose threshold is {threshold:g}; accepted: scores of x_val above 0")
        thresholds.append(threshold)
    return MagNet(Reformed(model, reformer), detectors, tuple(thresholds))


def reconstruction_error(autoencoder: Callable[[Tensor], Tensor], p: int = 2) -> Detector:
    r"""How far an autoencoder moves an input: $\|x - AE(x)\|_p$.

    Args:
        autoencoder: AE, images to images like them.
        p: 1 or 2.
    Returns:
        a detector, `(N, C, H, W)` in [0, 1] to scores `(N,)`, in pixel units, differentiable in `x`.
    Raises:
        ValueError: names the argument; when the detector runs: `autoencoder` does not return images like `x`.
    Reference: Meng 2017, arXiv 1705.09064, section 4.2.1.
    Survey: defenses against evasion, detection.

    >>> darker = reconstruction_error(lambda x: x / 2, p=1)
    >>> darker(torch.tensor([[[[0.2, 0.6]]]]))
    tensor([0.4000])
    """
    check_callable("autoencoder", autoencoder)
    if p not in (1, 2):
        raise ValueError(f"p is {describe(p)}; accepted: 1 or 2")
    return lambda x: norms(x - reconstructed(autoencoder, x), f"l{p}")


def divergence(model: nn.Module, autoencoder: Callable[[Tensor], Tensor], temperature: float = 10.0) -> Detector:
    r"""How much an autoencoder changes what the classifier says, as a Jensen-Shannon divergence.

    $JSD(P \| Q) = \frac{1}{2} KL(P \| M) + \frac{1}{2} KL(Q \| M)$ with $P = \mathrm{softmax}(f(x) / T)$,
    $Q = \mathrm{softmax}(f(AE(x)) / T)$ and $M = (P + Q) / 2$; from 0 to $\log 2$.

    Args:
        model: f, `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        autoencoder: AE, images to images like them.
        temperature: T, above 0; the paper takes 10 and 40, since at 1 most softmaxes are nearly 0 and 1.
    Returns:
        a detector, `(N, C, H, W)` in [0, 1] to scores `(N,)`, in nats, differentiable in `x`.
    Raises:
        ValueError: names the argument; when the detector runs: `model` does not return logits.
    Reference: Meng 2017, arXiv 1705.09064, section 4.2.2.
    Survey: defenses against evasion, detection.

    >>> swapped = divergence(nn.Flatten(), lambda x: x.flip(3), temperature=0.001)
    >>> swapped(torch.tensor([[[[0.2, 0.6]]], [[[0.6, 0.6]]]]))
    tensor([0.6931, 0.0000])
    """
    check_callable("model", model)
    check_callable("autoencoder", autoencoder)
    check_number("temperature", temperature, low=0, exclusive=True)

    def score(x: Tensor) -> Tensor:
        log_p, log_q = (softened(model, image, temperature) for image in (x, reconstructed(autoencoder, x)))
        log_m = torch.logaddexp(log_p, log_q) - math.log(2)
        return sum(F.kl_div(log_m, log, reduction="none", log_target=True).sum(1) for log in (log_p, log_q)) / 2

    return score


class Reformed(nn.Module):
    """A classifier that sees each input as an autoencoder gives it back, within [0, 1]."""

    def __init__(self, model: nn.Module, reformer: nn.Module) -> None:
        super().__init__()
        self.model, self.reformer = model, reformer
        self.training = getattr(model, "training", False)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(reconstructed(self.reformer, x).clamp(0, 1))


def reconstructed(autoencoder: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`AE(x)`, checked: images like `x`."""
    check_batch("x", x)
    image = autoencoder(x)
    check_like("what autoencoder returns", image, x)
    return image


def softened(model: nn.Module, x: Tensor, temperature: float) -> Tensor:
    """The classifier's log-probabilities at a temperature, `(N, K)`."""
    logits = model(x)
    check_logits(logits, torch.zeros(len(x), dtype=torch.int64, device=x.device))
    return F.log_softmax(logits / temperature, 1)

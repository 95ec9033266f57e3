r"""Detection by feature squeezing: an honest image means the same with fewer gray levels, or smoothed."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from spai_lab.attacks.evasion.adaptive import bpda
from spai_lab.checks import (
    check_batch,
    check_callable,
    check_count,
    check_like,
    check_logits,
    check_number,
    describe,
)
from spai_lab.defenses.evasion.transformation import reduce_depth

Squeezer = Callable[[Tensor], Tensor]

ONE_BIT = partial(reduce_depth, bits=1)


def feature_squeezing(model: nn.Module, *, squeezers: Sequence[Squeezer] | None = None) -> "Squeezing":
    r"""Feature squeezing: compare what the model says of an input with what it says of squeezed copies of it.

    $s(x) = \max_g \|\mathrm{softmax} f(x) - \mathrm{softmax} f(g(x))\|_1$ over the squeezers g: the joint detector.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        squeezers: each maps inputs to inputs like them; None takes the paper's for MNIST, pixels of 1 bit and a
            2 x 2 median filter.
    Returns:
        the detector, from inputs to scores `(N,)` from 0 to 2; higher is more suspicious. Choose its threshold with
        `threshold_at` on clean validation inputs.
    Raises:
        ValueError: names the argument; when the detector runs: what the model or a squeezer returns does not fit.
    Reference: Xu 2017, arXiv 1704.01155, section V, with the squeezers of its joint detector on MNIST.
    Survey: defenses against evasion, detection.
    Simplified: the threshold is chosen on validation rather than on training images; non-local means, which the paper
        adds for color images, is left to `squeezers`.

    >>> detector = feature_squeezing(lambda x: 10 * x.flatten(1)[:, :2], squeezers=[torch.round])
    >>> detector(torch.tensor([[[[0.9, 0.1]]], [[[0.51, 0.49]]]])).round(decimals=3)
    tensor([0.0010, 0.9000])
    """
    check_callable("model", model)
    squeezers = [ONE_BIT, median_filter] if squeezers is None else squeezers
    if not isinstance(squeezers, list | tuple) or not squeezers:
        raise ValueError(f"squeezers is {describe(squeezers)}; accepted: a list of at least one squeezer")
    for squeezer in squeezers:
        check_callable("squeezers", squeezer)
    return Squeezing(model, squeezers)


def feature_squeezing_view(detector: "Squeezing", *, backward: Sequence[Squeezer | None] | None = None) -> "Squeezing":
    r"""The detector as an attacker sees it who knows it: the same scores, differentiable through the squeezers.

    Forward $g(x)$, exactly; backward a stand-in: for pixels of one bit the smooth step of `smooth_bit`, which pulls at
    the pixels that can change their bit and leaves the others to what the model and the other squeezers want; for
    other squeezers the identity, since a squeezed input is close to the input.

    Args:
        detector: what `feature_squeezing` returned.
        backward: a differentiable stand-in for each squeezer, None for the identity; None takes those above.
    Returns:
        a detector with the same scores, for `evade` or `evading`.
    Raises:
        ValueError: names the argument.
    Reference: He et al. 2017, arXiv 1706.04701, where the attacker of feature squeezing knows it; Athalye
        et al. 2018, arXiv 1802.00420, section 4.1, for the stand-ins.
    Survey: defenses against evasion, detection.
    Simplified: the paper of 2017 climbs a loss of the squeezed image, and starts again until the score is low enough;
        here the score has a gradient of its own.

    >>> x = torch.tensor([[[[0.6, 0.5]]]], requires_grad=True)
    >>> detector = feature_squeezing(lambda x: 9 * x.flatten(1), squeezers=[torch.round])
    >>> view = feature_squeezing_view(detector)
    >>> torch.equal(view(x), detector(x)), bool(torch.autograd.grad(view(x).sum(), x)[0].any())
    (True, True)
    """
    if not isinstance(detector, Squeezing):
        raise ValueError(f"detector is {describe(detector)}; accepted: what feature_squeezing returned")
    count = len(detector.squeezers)
    if backward is None:
        backward = [smooth_bit if squeezer is ONE_BIT else None for squeezer in detector.squeezers]
    if not isinstance(backward, list | tuple) or len(backward) != count:
        raise ValueError(f"backward is {describe(backward)}; accepted: a list of {count}, one per squeezer")
    return Squeezing(detector.model, [bpda(*pair) for pair in zip(detector.squeezers, backward, strict=True)])


def smooth_bit(x: Tensor, *, slope: float = 10.0) -> Tensor:
    r"""A smooth step in place of one bit a pixel: $1 / (1 + e^{-k (x - 1/2)})$.

    Its derivative is large near one half and small at black and white: to push a pixel whose bit will not change
    does nothing for the squeezed copy, and the identity does not know that.

    Args:
        x: images `(N, C, H, W)` in [0, 1].
        slope: k, above 0.
    Returns:
        like `x`; differentiable.
    Raises:
        ValueError: names the argument.

    >>> smooth_bit(torch.tensor([0.0, 0.5, 1.0])).round(decimals=2)
    tensor([0.0100, 0.5000, 0.9900])
    """
    check_number("slope", slope, low=0, exclusive=True)
    return torch.sigmoid(slope * (x - 0.5))


class Squeezing(nn.Module):
    """From inputs `(N, C, H, W)` in [0, 1] to how much squeezing changes the model's mind about them, `(N,)`."""

    def __init__(self, model: nn.Module, squeezers: Sequence[Squeezer]) -> None:
        super().__init__()
        self.model, self.squeezers = model, tuple(squeezers)
        self.training = getattr(model, "training", False)

    def forward(self, x: Tensor) -> Tensor:
        p = self.probabilities(x)
        return torch.stack([(p - self.probabilities(self.squeezed(g, x))).abs().sum(1) for g in self.squeezers]).amax(0)

    def squeezed(self, squeezer: Squeezer, x: Tensor) -> Tensor:
        """One squeezed copy of each input, checked to be like it."""
        copy = squeezer(x)
        check_like("what a squeezer returns", copy, x)
        return copy

    def probabilities(self, x: Tensor) -> Tensor:
        """The softmax of the model's logits, `(N, K)`."""
        logits = self.model(x)
        check_logits(logits, torch.zeros(len(x), dtype=torch.int64, device=x.device))
        return logits.softmax(1)


def median_filter(x: Tensor, size: int = 2) -> Tensor:
    r"""Every pixel becomes the median of a window of `size` x `size` pixels, in each channel by itself.

    Beyond the border the image is mirrored, its edge pixels repeated. An even window reaches one pixel further up and
    to the left than down and to the right, and its median is the greater one of the two middle values.

    Args:
        x: images `(N, C, H, W)`.
        size: side of the window, at least 1.
    Returns:
        like `x`; differentiable.
    Raises:
        ValueError: names the argument.
    Reference: Xu 2017, arXiv 1704.01155, section III.B.

    >>> median_filter(torch.tensor([[[[0.0, 0.0, 1.0], [0.0, 1.0, 1.0]]]]))
    tensor([[[[0., 0., 1.],
              [0., 0., 1.]]]])
    """
    check_batch("x", x)
    if x.ndim != 4:
        raise ValueError(f"x is {describe(x)}; accepted: images (N, C, H, W)")
    check_count("size", size)
    rows, columns = (mirrored(length, size).to(x.device) for length in x.shape[2:])
    windows = x[:, :, rows][..., columns].unfold(2, size, 1).unfold(3, size, 1).flatten(4)
    return windows.sort(-1).values[..., size * size // 2]


def mirrored(length: int, size: int) -> Tensor:
    """The places that windows of `size` read along an axis, those beyond its ends mirrored.

    >>> mirrored(4, 3)
    tensor([0, 0, 1, 2, 3, 3])
    """
    before = size // 2
    place = torch.arange(-before, length + size - 1 - before) % (2 * length)
    return torch.minimum(place, 2 * length - 1 - place)

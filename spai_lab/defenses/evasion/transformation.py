r"""Input transformations: the network sees a coarser copy of each image, in the hope that the attack does not survive.

A transformation is called as `transform(x, generator=generator)`, from images `(N, C, H, W)` in [0, 1] to such images;
`functools.partial(jpeg, quality=50)` sets its strength.
"""

import io
import math
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from spai_lab.attacks.evasion.adaptive import bpda, eot
from spai_lab.checks import (
    check_ball,
    check_callable,
    check_count,
    check_generator,
    check_images,
    check_inputs,
    check_number,
    describe,
)
from spai_lab.threat import fresh_generator, logits_of, margin

Transform = Callable[..., Tensor]


def reduce_depth(x: Tensor, *, bits: int = 3, generator: torch.Generator | None = None) -> Tensor:
    r"""Reduce the bit depth: each value becomes the nearest of $2^b$ levels.

    $\mathrm{round}\left((2^b - 1) \, x\right) / (2^b - 1)$.

    Args:
        x: images, floating point `(N, C, H, W)` in [0, 1].
        bits: b, of each value, from 1 to 16.
        generator: not used, since nothing is random; here so that every transformation is called alike.
    Returns:
        like `x`; with respect to `x` its gradient is exactly zero.
    Raises:
        ValueError: names the argument.
    Reference: Guo 2017, arXiv 1711.00117, section 4; it follows Xu 2017, arXiv 1704.01155, section III.A.
    Survey: defenses against evasion, gradient masking.

    >>> reduce_depth(torch.tensor([[[[0.1, 0.4, 0.9]]]]), bits=2)
    tensor([[[[0.0000, 0.3333, 1.0000]]]])
    """
    check_image_batch(x)
    check_count("bits", bits)
    check_number("bits", bits, low=1, high=16)
    check_generator(generator, x.device)
    steps = 2**bits - 1
    return (steps * x).round() / steps


@torch.no_grad()
def jpeg(x: Tensor, *, quality: int = 75, generator: torch.Generator | None = None) -> Tensor:
    """Compress each image as a JPEG file and read it again, with a real codec.

    Args:
        x: images, floating point `(N, C, H, W)` in [0, 1], gray (C = 1) or RGB (C = 3).
        quality: of the file, from 1 to 100.
        generator: not used, since nothing is random; here so that every transformation is called alike.
    Returns:
        like `x`, in 256 levels; without a gradient.
    Raises:
        ValueError: names the argument.
    Reference: Guo 2017, arXiv 1711.00117, section 4; quality 75 from its section 5.1.
    Survey: defenses against evasion, gradient masking.

    >>> jpeg(torch.full((1, 3, 8, 8), 0.6))[0, :, 0, 0]
    tensor([0.6000, 0.6000, 0.6000])
    """
    check_image_batch(x)
    if x.shape[1] not in (1, 3):
        raise ValueError(f"x is {describe(x)}; accepted: gray or RGB images, (N, 1, H, W) or (N, 3, H, W)")
    check_count("quality", quality)
    check_number("quality", quality, low=1, high=100)
    check_generator(generator, x.device)
    decoded = torch.empty_like(x)
    for i, pixels in enumerate((255 * x).round().to("cpu", torch.uint8).permute(0, 2, 3, 1).numpy()):
        file = io.BytesIO()
        Image.fromarray(pixels.squeeze(2) if x.shape[1] == 1 else pixels).save(file, "JPEG", quality=int(quality))
        with Image.open(file) as image:
            decoded[i] = torch.from_numpy(np.array(image)).view(pixels.shape).permute(2, 0, 1) / 255
    return decoded


@torch.no_grad()
def total_variation(
    x: Tensor,
    *,
    drop: float = 0.5,
    weight: float = 0.03,
    steps: int = 100,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Total variation minimization: drop random pixels, and find the smoothest image that agrees with the others.

    $\min_z \|(1 - X) \odot (z - x)\|_2 + \lambda \, \mathrm{TV}(z)$ with $X_{ij} \sim \mathrm{Bernoulli}(p)$ and
    $\mathrm{TV}(z) = \sum_i \|z_{i, :} - z_{i - 1, :}\|_2 + \sum_j \|z_{:, j} - z_{:, j - 1}\|_2$, for each channel,
    where $z_{i, :}$ is a row and $z_{:, j}$ a column. With the dual image $w = K^\top y$ of row and column differences
    K, the primal-dual algorithm steps
    $y \leftarrow \Pi_{\|y_i\|, \|y_j\| \le \lambda}(y + \sigma K \bar z), \quad
    z \leftarrow \mathrm{prox}(z - \tau K^\top y)$, which draws the kept pixels of z toward x.

    Args:
        x: images, floating point `(N, C, H, W)` in [0, 1].
        drop: p, the share of pixels that are dropped, in all channels at once, from 0 to 1.
        weight: lambda, at least 0. The first norm is not squared: up to a weight of about
            $1 / \sqrt{8 (H + W)}$ the kept pixels stay exactly as they are, and only the dropped ones are filled in.
        steps: of the solver, at least 1.
        generator: draws the dropped pixels; None draws a fresh one.
    Returns:
        like `x`, in [0, 1]; without a gradient.
    Raises:
        ValueError: names the argument.
    Reference: Guo 2017, arXiv 1711.00117, section 4.2; p = 0.5 and lambda = 0.03 from its section 5.1. Solver:
        Chambolle and Pock 2011, "A First-Order Primal-Dual Algorithm for Convex Problems", algorithm 1.
    Survey: defenses against evasion, gradient masking.
    Simplified: the solver is another one, for the same convex problem; like theirs it is stopped after a number of
        steps, and no gradient is taken through it.

    >>> total_variation(torch.full((1, 1, 4, 4), 0.5)).unique()
    tensor([0.5000])
    """
    check_image_batch(x)
    check_number("drop", drop, low=0, high=1)
    check_number("weight", weight, low=0)
    check_count("steps", steps)
    generator = fresh_generator(generator, x.device)
    kept = torch.rand(len(x), 1, *x.shape[2:], dtype=x.dtype, device=x.device, generator=generator) >= drop
    z, tau = x.clone(), 1 / math.sqrt(8)
    z_bar, rows, columns = z, torch.zeros_like(x[:, :, 1:]), torch.zeros_like(x[..., 1:])
    for _ in range(steps):
        rows = within(rows + tau * z_bar.diff(dim=2), weight, dim=3)
        columns = within(columns + tau * z_bar.diff(dim=3), weight, dim=2)
        z_last = z
        z = toward(z - tau * adjoint(rows, columns), x, kept, tau)
        z_bar = 2 * z - z_last
    return z.clamp(0, 1)


def within(y: Tensor, radius: float, dim: int) -> Tensor:
    """Each row or column at the nearest point of a ball around zero."""
    size = torch.linalg.vector_norm(y, dim=dim, keepdim=True).clamp_min(torch.finfo(y.dtype).tiny)
    return y * (radius / size).clamp_max(1)


def adjoint(rows: Tensor, columns: Tensor) -> Tensor:
    r"""$K^\top y$: what row and column differences weigh in each pixel."""
    return -nn.functional.pad(rows, (0, 0, 1, 1)).diff(dim=2) - nn.functional.pad(columns, (1, 1)).diff(dim=3)


def toward(z: Tensor, x: Tensor, kept: Tensor, distance: float) -> Tensor:
    """The kept pixels of each channel moved toward `x` by `distance` in L2, or all the way; the others stay."""
    gap = (x - z) * kept
    size = torch.linalg.vector_norm(gap, dim=(2, 3), keepdim=True).clamp_min(torch.finfo(z.dtype).tiny)
    return z + gap * (distance / size).clamp_max(1)


def input_transformation(
    model: nn.Module, transform: Transform = reduce_depth, *, generator: torch.Generator | None = None
) -> nn.Module:
    r"""Transform each image before the network sees it: $f(t(x))$.

    Args:
        model: f, `(N, C, H, W)` in [0, 1] to logits `(N, K)`; it is used as it is.
        transform: t: `reduce_depth`, `jpeg` or `total_variation`, or one of them with its strength set by
            `functools.partial`; anything that is called as they are, `(x, generator=generator) -> x`.
        generator: source of what the transformation draws, on the device of the model; None draws a fresh one. The
            returned model owns it: `defended.generator.manual_seed(0)` repeats the draws.
    Returns:
        a model from images `(N, C, H, W)` in [0, 1] to logits `(N, K)`. No gradient passes the transformation: with
        respect to `x` it is exactly zero.
    Raises:
        ValueError: names the argument.
    Reference: Guo 2017, arXiv 1711.00117, sections 3 and 4.
    Survey: defenses against evasion, gradient masking.
    Simplified: the network is not trained on transformed images, as the paper's best are; image quilting and the
        ensemble of crops are left out.

    >>> defended = input_transformation(nn.Flatten(), reduce_depth)
    >>> defended(torch.tensor([[[[0.1, 0.4, 0.9]]]]))
    tensor([[0.1429, 0.4286, 0.8571]])
    """
    check_callable("model", model)
    check_callable("transform", transform)
    parameter = next(model.parameters(), torch.empty(0)) if isinstance(model, nn.Module) else torch.empty(0)
    return Transformed(model, transform, fresh_generator(generator, parameter.device))


def transformation_view(defended: nn.Module, *, samples: int = 1) -> nn.Module:
    r"""What an attacker who knows the transformation climbs: $f(t(x))$, differentiated as if t were the identity.

    Args:
        defended: what `input_transformation` returned, or the attacker's copy of it with a generator of its own.
        samples: how many draws of a random transformation to average over, by `eot`; 1 for one that is not random.
    Returns:
        a model that has a gradient and answers as `defended` does, with more than one sample by its mean
        log-probabilities; whether the attack succeeded is for `defended` to say.
    Raises:
        ValueError: names the argument.
    Reference: Athalye et al. 2018, arXiv 1802.00420, section 5.1.2.
    Survey: defenses against evasion, gradient masking.

    >>> defended = input_transformation(nn.Flatten(), reduce_depth)
    >>> x = torch.tensor([[[[0.1, 0.4, 0.9]]]], requires_grad=True)
    >>> transformation_view(defended)(x).sum().backward()
    >>> x.grad
    tensor([[[[1., 1., 1.]]]])
    """
    check_transformed(defended)
    check_count("samples", samples)
    view = nn.Sequential(bpda(defended.transformed), defended.model)
    return view if samples == 1 else eot(view, samples)


@torch.no_grad()
def corner_search(defended: nn.Module, x: Tensor, y: Tensor, *, eps: float) -> Tensor:
    r"""Coordinate descent on the few pixels that a coarse transformation lets the attacker change.

    Where $t(x - \epsilon)$ and $t(x + \epsilon)$ agree in a pixel, nothing can be done there. Of the others, each step
    moves the one pixel, to $x_j - \epsilon$ or $x_j + \epsilon$, that takes most from the lead of the right class; it
    ends where the answer changes, or where no single pixel helps any more.

    Args:
        defended: what `input_transformation` returned, with a transformation that treats each pixel by itself and is
            not random, such as `reduce_depth`.
        x: clean inputs, floating point `(N, C, H, W)` in [0, 1].
        y: true labels `(N,)`, int64.
        eps: radius of the ball in L-inf, in pixel units of [0, 1].
    Returns:
        `x_adv`, like `x`, in [0, 1] and within `eps` of `x`.
    Raises:
        ValueError: names the argument.
    Survey: evasion, white-box; made for one defense.
    Simplified: greedy; pairs of pixels that help only together are not found.

    >>> twice = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    >>> _ = twice[1].weight.data.copy_(2 * torch.eye(2))
    >>> defended = input_transformation(twice, lambda x, generator: reduce_depth(x, bits=1))
    >>> corner_search(defended, torch.tensor([[[[0.6, 0.1]]]]), torch.tensor([0]), eps=0.2)
    tensor([[[[0.4000, 0.1000]]]])
    """
    check_transformed(defended)
    check_ball(x, eps, "linf")
    check_inputs(defended, x, y)
    low, high = (x - eps).clamp_min(0), (x + eps).clamp_max(1)
    movable = defended.transformed(low) != defended.transformed(high)
    x_adv = x.clone()
    for i, label in enumerate(y):
        places = movable[i].flatten().nonzero()[:, 0]
        ends = torch.stack([low[i].flatten()[places], high[i].flatten()[places]], 1).flatten()
        each = torch.arange(len(ends), device=x.device), places.repeat_interleave(2)
        lead = margin(logits_of(defended, x_adv[[i]], y[[i]]), y[[i]])
        while lead > 0 and len(ends):
            candidates = x_adv[i].flatten().repeat(len(ends), 1).index_put(each, ends).view(-1, *x.shape[1:])
            labels = label.expand(len(ends))
            leads = margin(logits_of(defended, candidates, labels), labels)
            if leads.min() >= lead:
                break
            lead, x_adv[i] = leads.min(), candidates[leads.argmin()]
    return x_adv


class Transformed(nn.Module):
    """A network behind a transformation that no gradient passes."""

    def __init__(self, model: nn.Module, transform: Transform, generator: torch.Generator) -> None:
        super().__init__()
        self.model, self.transform, self.generator = model, transform, generator
        self.front = bpda(self.transformed, lambda x: 0 * x)
        self.training = getattr(model, "training", False)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(self.front(x))

    def transformed(self, x: Tensor) -> Tensor:
        """What the network sees of `x`."""
        return self.transform(x, generator=self.generator)


def check_transformed(defended: nn.Module) -> None:
    """Raise `ValueError` unless `defended` is what `input_transformation` returns."""
    if not isinstance(defended, Transformed):
        raise ValueError(f"defended is {describe(defended)}; accepted: what input_transformation returned")


def check_image_batch(x: Tensor) -> None:
    """Raise `ValueError` unless `x` is a batch of images `(N, C, H, W)` in [0, 1]."""
    check_images(x)
    if x.ndim != 4:
        raise ValueError(f"x is {describe(x)}; accepted: images (N, C, H, W)")

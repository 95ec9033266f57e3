"""The adversarial patch: a picture to print, which makes the model say one thing wherever it is stuck."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spai_lab.checks import (
    check_count,
    check_images,
    check_inputs,
    check_number,
    describe,
)
from spai_lab.threat import fresh_generator, logits_of, per_image, value_and_gradient, warn_of_zeros


@dataclass(frozen=True, eq=False)
class Patch:
    """A picture and its outline.

    Args:
        pixels: `(C, h, w)`, floating point in [0, 1].
        mask: `(1, h, w)`, like `pixels`: 1 where the patch covers what lies under it, 0 where it is cut away.
    Raises:
        ValueError: names the argument.

    >>> Patch(torch.rand(3, 9, 9), disk(9)).pixels.shape
    torch.Size([3, 9, 9])
    """

    pixels: Tensor
    mask: Tensor

    def __post_init__(self) -> None:
        for name, value in (("pixels", self.pixels), ("mask", self.mask)):
            if not isinstance(value, Tensor) or value.ndim != 3:
                raise ValueError(f"{name} is {describe(value)}; accepted: a floating point tensor, three-dimensional")
            check_images(value, name)
        if self.mask.shape != (1, *self.pixels.shape[1:]) or self.mask.dtype != self.pixels.dtype:
            raise ValueError(f"mask is {describe(self.mask)}; accepted: (1, h, w), otherwise like the pixels")


class Placement(NamedTuple):
    """Where a patch is stuck on each image.

    Args:
        rows, columns: of the patch's center, in pixels; 0 is the center of the first pixel.
        angles: by which it is turned, counterclockwise, in degrees.
        scales: by which it is magnified.
    """

    rows: Tensor | float
    columns: Tensor | float
    angles: Tensor | float = 0.0
    scales: Tensor | float = 1.0


def disk(size: int) -> Tensor:
    """The mask of a round patch: 1 for pixels whose center lies in the circle that touches all four sides.

    >>> disk(4)[0].int().tolist()
    [[0, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [0, 1, 1, 0]]
    """
    check_count("size", size)
    offsets = torch.arange(size) - (size - 1) / 2
    return (offsets[:, None] ** 2 + offsets**2 <= (size / 2) ** 2).float()[None]


def patch(
    model: nn.Module,
    x: Tensor,
    *,
    target: int,
    size: int,
    scales: tuple[float, float] = (0.8, 1.2),
    max_angle: float = 22.5,
    steps: int = 200,
    batch_size: int = 64,
    step_size: float = 0.05,
    generator: torch.Generator | None = None,
) -> Patch:
    r"""Adversarial patch: one picture that makes the model say `target`, whatever it is stuck on, and where.

    $\hat p = \arg\max_p \; \mathbb{E}_{x, l, t} \left[ \log \Pr(\hat y \mid A(p, x, l, t)) \right]$,
    where $A$ sticks the patch $p$ on the image $x$ at the place $l$, turned and magnified by $t$. Each step draws
    images and placements anew, so that no single one is learned by heart (expectation over transformation).

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        x: images to stick it on while it is learned, floating point `(N, C, H, W)` in [0, 1], N at least 1; training
            images of any class.
        target: the class that the model is to see.
        size: diameter of the round patch at scale 1, in pixels.
        scales: the least and the largest magnification that it must bear; the largest patch must fit into the image.
        max_angle: how far it may be turned to either side, in degrees, at most 180.
        steps: number of steps, at least 1.
        batch_size: images and placements of a step, at most all of `x`.
        step_size: of Adam, in pixel units, above 0.
        generator: source of images and placements; None draws a fresh one.
    Returns:
        the patch; `paste` sticks it on.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Brown et al. 2017, arXiv 1712.09665, equation 1 (section 2).
    Survey: evasion, white-box; in the physical world.
    Simplified: no print and no photograph: neither light, nor perspective, nor the printer's colors; one model rather
        than an ensemble; no limit that keeps the patch similar to a picture that looks harmless.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    >>> learned = patch(model, torch.rand(4, 1, 8, 8), target=2, size=5, steps=3)
    >>> paste(torch.rand(1, 1, 8, 8), learned, rows=3, columns=4).shape
    torch.Size([1, 1, 8, 8])
    """
    check_patch(model, x, target, size, scales, max_angle, steps, batch_size, step_size, generator)
    generator = fresh_generator(generator, x.device)
    mask = disk(size).to(x)
    p = torch.full((1, x.shape[1], size, size), 0.5, dtype=x.dtype, device=x.device)
    optimizer = torch.optim.Adam([p], lr=step_size)
    for k in range(steps):
        batch = torch.randperm(len(x), device=x.device, generator=generator)[:batch_size]
        where = random_placement(x[batch], size, scales=scales, max_angle=max_angle, generator=generator)
        y = torch.full_like(batch, target)

        def loss(p: Tensor, x: Tensor = x[batch], y: Tensor = y, where: Placement = where) -> Tensor:
            patched = paste(x, Patch(p[0], mask), *where)
            return F.cross_entropy(logits_of(model, patched, y), y)[None]

        p.grad = value_and_gradient(loss, p)[1]
        if k == 0:
            warn_of_zeros(p.grad)
        optimizer.step()
        p.clamp_(0, 1)
    return Patch(p[0].detach(), mask)


def paste(
    x: Tensor,
    patch: Patch,
    rows: Tensor | float,
    columns: Tensor | float,
    angles: Tensor | float = 0.0,
    scales: Tensor | float = 1.0,
) -> Tensor:
    r"""Stick a patch on each image: $A(p, x, l, t) = (1 - m') \, x + m' p'$, patch and mask turned and moved alike.

    Differentiable in the patch and in the images. What hangs over the edge of an image is cut off. Between its pixels
    the patch is interpolated linearly; at angles of 0, 90, ... degrees, scale 1 and a place where pixel meets pixel,
    nothing is.

    Args:
        x: images, floating point `(N, C, H, W)` in [0, 1].
        patch: of the same channels, dtype and device.
        rows, columns: the patch's center in pixels, 0 being the center of the first; one number, or `(N,)`.
        angles: by which it is turned, counterclockwise, in degrees; one number, or `(N,)`.
        scales: by which it is magnified, above 0; one number, or `(N,)`.
    Returns:
        like `x`, in [0, 1].
    Raises:
        ValueError: names the argument.
    Reference: Brown et al. 2017, arXiv 1712.09665, section 2 (the patch application operator).
    Simplified: a patch that is made smaller is sampled, not averaged.

    >>> paste(torch.zeros(1, 1, 3, 3), Patch(torch.ones(1, 1, 1), torch.ones(1, 1, 1)), rows=0, columns=2)
    tensor([[[[0., 0., 1.],
              [0., 0., 0.],
              [0., 0., 0.]]]])
    """
    check_images(x)
    rows, columns, angles, scales = check_placement(x, patch, rows, columns, angles, scales)
    turn = torch.deg2rad(angles)
    down = torch.arange(x.shape[2], dtype=x.dtype, device=x.device)[:, None] - per_image(rows, x[:, 0])
    right = torch.arange(x.shape[3], dtype=x.dtype, device=x.device) - per_image(columns, x[:, 0])
    cosine, sine = (per_image(f(turn) / scales, x[:, 0]) for f in (torch.cos, torch.sin))
    of_patch = torch.stack([right * cosine - down * sine, right * sine + down * cosine], dim=3)  # from its center
    height, width = patch.mask.shape[1:]
    grid = of_patch / torch.tensor([width / 2, height / 2], dtype=x.dtype, device=x.device)
    covered = torch.cat([patch.pixels * patch.mask, patch.mask])[None].expand(len(x), -1, -1, -1)
    stuck = F.grid_sample(covered, grid, padding_mode="zeros", align_corners=False)
    return ((1 - stuck[:, -1:]) * x + stuck[:, :-1]).clamp(0, 1)


def random_placement(
    x: Tensor,
    size: int,
    *,
    scales: tuple[float, float] = (0.8, 1.2),
    max_angle: float = 22.5,
    generator: torch.Generator | None = None,
) -> Placement:
    """A place, an angle and a scale for each image, drawn uniformly so that the whole patch lies on the image.

    Args:
        x: the images `(N, C, H, W)`.
        size: diameter of the patch at scale 1, in pixels.
        scales: the least and the largest magnification.
        max_angle: the largest angle to either side, in degrees.
        generator: source of randomness; None draws a fresh one.
    Returns:
        rows, columns, angles and scales, `(N,)` each, as `paste` takes them.
    Raises:
        ValueError: names the argument.

    >>> where = random_placement(torch.zeros(2, 1, 9, 9), 9, scales=(1, 1), max_angle=0)
    >>> where.rows, where.columns
    (tensor([4., 4.]), tensor([4., 4.]))
    """
    check_transforms(x, size, scales, max_angle)
    generator = fresh_generator(generator, x.device)
    u = torch.rand(4, len(x), dtype=x.dtype, device=x.device, generator=generator)
    drawn = scales[0] + (scales[1] - scales[0]) * u[3]
    height, width = x.shape[2:]
    rows, columns = (
        (edge - 1) / 2 + (edge - size * drawn) * (v - 0.5) for edge, v in zip((height, width), u, strict=False)
    )
    return Placement(rows, columns, max_angle * (2 * u[2] - 1), drawn)


def check_patch(
    model: nn.Module,
    x: Tensor,
    target: int,
    size: int,
    scales: tuple[float, float],
    max_angle: float,
    steps: int,
    batch_size: int,
    step_size: float,
    generator: torch.Generator | None,
) -> None:
    """Raise `ValueError` unless each argument of `patch` is in its range; the model's classes meet `target` later."""
    check_count("target", target, low=0)
    check_images(x)
    if len(x) == 0:
        raise ValueError(f"x is {describe(x)}; accepted: at least one image")
    check_inputs(model, x, torch.full((len(x),), target, device=x.device), generator=generator)
    check_transforms(x, size, scales, max_angle)
    check_count("steps", steps)
    check_count("batch_size", batch_size)
    check_number("step_size", step_size, low=0, exclusive=True)


def check_transforms(x: Tensor, size: int, scales: tuple[float, float], max_angle: float) -> None:
    """Raise `ValueError` unless the patch fits into the images at every scale."""
    if x.ndim != 4:
        raise ValueError(f"x is {describe(x)}; accepted: (N, C, H, W)")
    check_count("size", size)
    if not (isinstance(scales, tuple | list) and len(scales) == 2):
        raise ValueError(f"scales is {describe(scales)}; accepted: the least and the largest, such as (0.8, 1.2)")
    for name, scale in zip(("scales[0]", "scales[1]"), scales, strict=True):
        check_number(name, scale, low=0, exclusive=True)
    if scales[0] > scales[1]:
        raise ValueError(f"scales is {describe(scales)}; accepted: the least first")
    if size * scales[1] > min(x.shape[2:]):
        raise ValueError(
            f"size is {size}, at scale {scales[1]:g} {size * scales[1]:g} pixels; "
            f"accepted: what fits into the image, {min(x.shape[2:])} pixels"
        )
    check_number("max_angle", max_angle, low=0, high=180)


def check_placement(x: Tensor, patch: Patch, *numbers: Tensor | float) -> list[Tensor]:
    """Rows, columns, angles and scales as `(N,)`; raises `ValueError` unless they and the patch fit the images."""
    if not isinstance(patch, Patch):
        raise ValueError(f"patch is {describe(patch)}; accepted: a Patch")
    if x.ndim != 4 or len(patch.pixels) != x.shape[1] or patch.pixels.dtype != x.dtype:
        raise ValueError(
            f"patch has pixels like {describe(patch.pixels)}; accepted: channels and dtype of x, {describe(x)}"
        )
    placed = []
    for name, number in zip(Placement._fields, numbers, strict=True):
        if isinstance(number, Tensor):
            if number.shape not in ((), x.shape[:1]) or not number.isfinite().all():
                raise ValueError(f"{name} is {describe(number)}; accepted: finite, one number or ({len(x)},)")
        else:
            check_number(name, number)
        placed.append(torch.as_tensor(number, dtype=x.dtype, device=x.device).expand(len(x)))
    if len(x) and placed[-1].min() <= 0:
        raise ValueError(f"scales has {placed[-1].min():g}; accepted: numbers above 0")
    return placed

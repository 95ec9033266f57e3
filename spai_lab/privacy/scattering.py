r"""Features that nobody's data chose: a scattering transform, wavelets and moduli that are fixed beforehand.

Private training pays for each step, and features that must be learned take many. What is known of images before any
is seen (that a stroke stays the same stroke a little to the side) need not be learned. $S_1 = |x * \psi_\lambda| *
\phi$ keeps, for each scale and direction $\lambda$, how strongly an image waves that way near each place, and $S_2 =
||x * \psi_\lambda| * \psi_\mu| * \phi$ how that strength waves in turn. A linear model of these is good after a few
passes.
"""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from spai_lab.checks import check_count, check_flag, check_images, describe

DIRECTIONS = 8
SCALES = 2
STRIDE = 2**SCALES
SIGMA, FREQUENCY, SLANT = 0.8, 3 * math.pi / 4, 4 / DIRECTIONS
CHANNELS = 1 + SCALES * DIRECTIONS + DIRECTIONS**2
GROUPS = 27
PART = 500  # images that are transformed at once
LEAST = 8  # pixels a side


def scattering(x: Tensor, *, progress: bool = False) -> Tensor:
    r"""The scattering coefficients of images, of order 0, 1 and 2: $x * \phi$, then $S_1$, then $S_2$.

    Morlet wavelets of two scales $2^j$ and eight directions, $\psi_{j, \theta}(u) = 4^{-j} \psi(2^{-j} R_\theta u)$,
    $\psi(u) = e^{-(u_1^2 + (u_2 / 2)^2) / 2 \sigma^2} (e^{i \xi u_1} - \kappa)$, with $\kappa$ so that they sum to 0;
    $\phi$ is a Gaussian, read at every fourth pixel. No coefficient depends on another image, nor any filter on data,
    so that it costs no privacy.

    Args:
        x: images of one channel, float32 or float64 `(N, 1, H, W)` in [0, 1], H and W at least 8 and multiples of 4.
        progress: show a bar.
    Returns:
        `(N, 81, H / 4, W / 4)` in [0, 1]: 1 mean, 2 x 8 of order 1, 8 x 8 of order 2.
    Raises:
        ValueError: names the argument.
    Reference: Bruna and Mallat 2012, arXiv 1203.1513, section 2; as features of private learning Tramèr and Boneh 2020,
        arXiv 2011.11660, section 2.
    Simplified: two scales and two orders, as there.

    >>> coefficients = scattering(torch.full((2, 1, 28, 28), 0.5))
    >>> coefficients.shape
    torch.Size([2, 81, 7, 7])
    >>> coefficients[:, 0].mean(), coefficients[:, 1:].max() < 1e-6
    (tensor(0.5000), tensor(True))
    """
    check_images(x)
    if x.shape[1] != 1 or min(x.shape[2:]) < LEAST or any(size % STRIDE for size in x.shape[2:]):
        raise ValueError(f"x is {tuple(x.shape)}; accepted: (N, 1, H, W), H and W at least {LEAST}, multiples of 4")
    if x.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"x is {describe(x)}; accepted: float32 or float64")
    check_flag("progress", progress)
    if len(x) == 0:
        return x.new_empty(0, CHANNELS, x.shape[2] // STRIDE, x.shape[3] // STRIDE)
    parts = tqdm(x.split(PART), desc="scattering", unit="part", disable=not progress)
    return torch.cat([scattered(part) for part in parts])


def scattered(x: Tensor) -> Tensor:
    """The coefficients of images that are transformed at once; the borders are mirrored."""
    fine, coarse = (psi.to(x.device) for psi in filters(x.shape[2] + 2 * STRIDE, x.shape[3] + 2 * STRIDE, x.dtype))
    mirrored = F.pad(x, (STRIDE,) * 4, mode="reflect")
    spectrum = torch.fft.fft2(mirrored)
    of_fine, of_coarse = (torch.fft.ifft2(spectrum * psi).abs() for psi in (fine, coarse))
    waving = halved(torch.fft.fft2(of_fine)[:, :, None] * coarse)
    second = torch.fft.ifft2(waving).abs().flatten(1, 2)
    first = torch.cat([mirrored, of_fine, of_coarse], dim=1)
    return torch.cat([smoothed(first, STRIDE), smoothed(second, STRIDE // 2)], dim=1).clamp(0, 1)


def halved(spectrum: Tensor) -> Tensor:
    """The spectrum of every second pixel of each side: the frequencies that then look the same, on average."""
    for dim in (-1, -2):
        low, high = spectrum.chunk(2, dim)
        spectrum = (low + high) / 2
    return spectrum


def smoothed(x: Tensor, stride: int) -> Tensor:
    """Means under a Gaussian around every pixel in `stride`, without the mirrored border."""
    down, right = (gaussians(side, stride, x.dtype).to(x.device) for side in x.shape[2:])
    return down @ x @ right.T


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def gaussians(side: int, stride: int, dtype: torch.dtype) -> Tensor:
    """The weights of each mean along a side that closes to a ring, `(side / stride - 2, side)`."""
    centers = stride * torch.arange(1, side // stride - 1, dtype=torch.float64)
    away = (torch.arange(side, dtype=torch.float64) - centers[:, None] + side / 2) % side - side / 2
    weights = torch.exp(-((away / (SIGMA * stride / 2)) ** 2) / 2)
    return (weights / weights.sum(1, keepdim=True)).to(dtype)


@lru_cache(maxsize=4)
@torch.inference_mode(False)
def filters(height: int, width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The spectra of the wavelets of both scales, `(8, H, W)` each."""
    fine, coarse = (
        torch.stack([morlet(height, width, 2**j, math.pi * k / DIRECTIONS) for k in range(DIRECTIONS)])
        for j in range(SCALES)
    )
    return fine.to(dtype), coarse.to(dtype)


def morlet(height: int, width: int, scale: int, angle: float) -> Tensor:
    """The spectrum of a wavelet, real: a bump around its frequency, less what makes it vanish at frequency 0."""
    shape = {"sigma": SIGMA * scale, "angle": angle, "slant": SLANT}
    wave = bump(height, width, **shape, center=FREQUENCY / scale)
    envelope = bump(height, width, **shape)
    return wave - wave[0, 0] / envelope[0, 0] * envelope


def bump(height: int, width: int, sigma: float, angle: float = 0.0, slant: float = 1.0, center: float = 0.0) -> Tensor:
    r"""The spectrum of a Gaussian of mass 1 that waves with the frequency `center` along `angle`, `(H, W)`.

    Frequencies that differ by $2 \pi$ are the same on pixels, so the neighboring turns are added.
    """
    turns = 2 * math.pi * torch.arange(-3, 4, dtype=torch.float64)
    down, right = (
        2 * math.pi * torch.arange(side, dtype=torch.float64)[:, None] / side + turns for side in (height, width)
    )
    down, right = down[:, None, :, None], right[None, :, None, :]
    along = math.cos(angle) * down + math.sin(angle) * right - center
    across = math.cos(angle) * right - math.sin(angle) * down
    return torch.exp(-(sigma**2) / 2 * (along**2 + (across / slant) ** 2)).sum((2, 3))


class Scattering(nn.Module):
    """`scattering` as the first layer of a model, so that the whole takes images; nothing in it is trained.

    >>> Scattering()(torch.rand(2, 1, 28, 28)).shape
    torch.Size([2, 81, 7, 7])
    """

    def forward(self, x: Tensor) -> Tensor:
        return scattered(x)


def scattered_regression(
    shape: tuple[int, ...] = (CHANNELS, 7, 7), num_classes: int = 10, *, generator: torch.Generator | None = None
) -> nn.Module:
    """Softmax regression of scattering coefficients, each image normalized by itself in 27 groups of channels.

    Args:
        shape: of one image's coefficients, `(81, H / 4, W / 4)`.
        num_classes: K, at least 2.
        generator: not needed: the problem is convex, and the weights start at zero.
    Returns:
        a model of coefficients `(N, 81, H / 4, W / 4)` to logits `(N, K)`; after `Scattering()` it takes images.
    Raises:
        ValueError: names the argument.
    Reference: Tramèr and Boneh 2020, arXiv 2011.11660, section 2.

    >>> scattered_regression()(scattering(torch.rand(2, 1, 28, 28))).shape
    torch.Size([2, 10])
    """
    sides = tuple(shape) if isinstance(shape, tuple | list | torch.Size) else ()
    if len(sides) != 3 or sides[0] != CHANNELS or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ValueError(f"shape is {describe(shape)}; accepted: ({CHANNELS}, H / 4, W / 4), whole numbers above 0")
    check_count("num_classes", num_classes, low=2)
    layer = nn.utils.skip_init(nn.Linear, math.prod(shape), num_classes)
    for weights in layer.parameters():
        nn.init.zeros_(weights)
    return nn.Sequential(nn.GroupNorm(GROUPS, CHANNELS, affine=False), nn.Flatten(), layer)

"""Scattering coefficients against sums in space, and what makes them fit for private training."""

import importlib
import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from spai_lab.data import load
from spai_lab.privacy.dp_sgd import check_private, dp_sgd
from spai_lab.privacy.per_example import is_fast
from spai_lab.privacy.scattering import Scattering, scattered_regression, scattering

scattering_module = importlib.import_module("spai_lab.privacy.scattering")
SIGMA, XI = 0.8, 3 * math.pi / 4


def wavelet(scale, angle, half=18):
    """A Morlet wavelet on pixels, by its formula, that sums to zero."""
    down, right = np.mgrid[-half : half + 1, -half : half + 1].astype(float)
    along = math.cos(angle) * down + math.sin(angle) * right
    across = math.cos(angle) * right - math.sin(angle) * down
    envelope = np.exp(-(along**2 + across**2 / 4) / (2 * (SIGMA * scale) ** 2))
    envelope /= 4 * math.pi * (SIGMA * scale) ** 2
    wave = envelope * np.exp(1j * XI / scale * along)
    return wave - wave.sum() / envelope.sum() * envelope


def waving(image, scale, angle):
    """How strongly an image waves at each pixel, by a sum over all pixels around it."""
    psi = wavelet(scale, angle)
    parts = [ndimage.convolve(image, part, mode="wrap") for part in (psi.real, psi.imag)]
    return np.hypot(*parts)


def smooth(image):
    """The Gaussian means at every fourth pixel, without the mirrored border."""
    return ndimage.gaussian_filter(image, 2 * SIGMA, mode="wrap", truncate=9)[4:-4:4, 4:-4:4]


def test_coefficients_are_the_sums_that_the_formulas_say():
    image = load("digits").x_train[3]
    mirrored = np.pad(image[0].double().numpy(), 4, mode="reflect")
    ours = scattering(image[None].double())[0].numpy()
    angles = [math.pi * k / 8 for k in range(8)]
    fine, coarse = ([waving(mirrored, scale, angle) for angle in angles] for scale in (1, 2))
    first = [smooth(mirrored), *map(smooth, fine), *map(smooth, coarse)]
    assert np.abs(ours[:17] - np.stack(first)).max() < 1e-6
    second = np.stack([smooth(waving(each, 2, angle)) for each in fine for angle in angles])
    aliased = np.abs(ours[17:] - second).max()
    assert aliased < 0.02 * second.max()
    assert np.corrcoef(ours[17:].ravel(), second.ravel())[0, 1] > 0.9999


def test_an_image_has_its_coefficients_whatever_is_beside_it():
    x = torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    together, alone = scattering(x), torch.cat([scattering(image[None]) for image in x])
    assert (together - alone).abs().max() < 1e-6
    assert together.min() >= 0 and together.max() <= 1 and together.dtype == torch.float32


def test_a_shift_changes_coefficients_less_than_pixels():
    x = torch.rand(50, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    shifted = x.roll(1, dims=3)
    change = (scattering(shifted) - scattering(x)).norm() / scattering(x).norm()
    assert change < 0.6 * (shifted - x).norm() / x.norm()


@pytest.mark.parametrize(
    "x",
    [
        torch.rand(2, 3, 28, 28),
        torch.rand(2, 1, 26, 28),
        torch.rand(2, 1, 4, 4),
        torch.rand(28, 28),
        2 + torch.rand(1, 1, 28, 28),
        torch.rand(1, 1, 28, 28).half(),
    ],
)
def test_other_images_are_refused(x):
    with pytest.raises(ValueError, match=r"^x (is|has)"):
        scattering(x)


@pytest.mark.parametrize(
    "bad", [{"shape": (80, 7, 7)}, {"shape": (81, 7)}, {"shape": 81}, {"shape": (81, -7, 7)}, {"num_classes": 1}]
)
def test_other_models_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        scattered_regression(**bad)


def test_no_images_have_no_coefficients():
    assert scattering(torch.empty(0, 1, 28, 28)).shape == (0, 81, 7, 7)


def test_the_model_may_be_trained_privately_and_fast():
    model, x = scattered_regression(), scattering(load("digits").x_train[:4])
    check_private(model, x)
    assert is_fast(model, x)
    data = load("digits").first(20)
    settings = {"noise_multiplier": 1.0, "clip": 1.0, "sampling_rate": 0.5, "steps": 2, "learning_rate": 0.1}
    whole = torch.nn.Sequential(Scattering(), model)
    dp_sgd(whole, data.x_train, data.y_train, **settings, delta_dp=1e-3, progress=False)
    assert whole(data.x_train).isfinite().all() and model[-1].weight.abs().max() > 0


def test_coefficients_taken_in_inference_mode_break_no_gradient_later():
    scattering_module.filters.cache_clear()
    with torch.inference_mode():
        scattering(torch.rand(1, 1, 24, 24))
    x = torch.rand(1, 1, 24, 24, requires_grad=True)
    scattering(x).sum().backward()
    assert x.grad.isfinite().all() and x.grad.abs().max() > 0

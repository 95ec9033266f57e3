"""Input transformations, against ART, closed forms and the attacks that should and should not get through them."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from spai_lab.attacks.evasion.gradient import pgd
from spai_lab.attacks.evasion.search import square
from spai_lab.checks import SuspiciousResult
from spai_lab.defenses.evasion.transformation import (
    adjoint,
    corner_search,
    input_transformation,
    jpeg,
    reduce_depth,
    total_variation,
    transformation_view,
)
from spai_lab.metrics import accuracy_rate
from spai_lab.query import Query
from spai_lab.threat import input_gradient
from spai_lab.training.weights import reference

TRANSFORMS = [reduce_depth, jpeg, total_variation]
NAMES = ["depth", "jpeg", "tv"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def objective(z: torch.Tensor, x: torch.Tensor, kept: torch.Tensor, weight: float) -> float:
    """What total variation minimizes, of one gray image `(H, W)`, in NumPy."""
    z, x, kept = (a.numpy() for a in (z, x, kept))
    rows = sum(np.linalg.norm(z[i] - z[i - 1]) for i in range(1, len(z)))
    columns = sum(np.linalg.norm(z[:, j] - z[:, j - 1]) for j in range(1, z.shape[1]))
    return np.linalg.norm((z - x)[kept]) + weight * (rows + columns)


def kept_by(x: torch.Tensor, drop: float, seed: int) -> torch.Tensor:
    """Which pixels the solver keeps: before its first step it has drawn them and nothing else."""
    return torch.rand(len(x), 1, *x.shape[2:], dtype=x.dtype, generator=seeded(seed)) >= drop


@pytest.mark.parametrize("bits", [1, 3, 8], ids=["1", "3", "8"])
def test_depth_takes_the_nearest_level(bits):
    x = torch.rand(2, 3, 9, 9, generator=seeded(), dtype=torch.float64)
    levels = torch.linspace(0, 1, 2**bits, dtype=torch.float64)
    nearest = levels[(x[..., None] - levels).abs().argmin(-1)]
    torch.testing.assert_close(reduce_depth(x, bits=bits), nearest)


@pytest.mark.oracle
@pytest.mark.parametrize("bits", [1, 3, 8], ids=["1", "3", "8"])
def test_depth_is_arts(bits):
    from art.defences.preprocessor import FeatureSqueezing

    x = torch.rand(2, 3, 9, 9, generator=seeded())
    theirs, _ = FeatureSqueezing(clip_values=(0.0, 1.0), bit_depth=bits)(x.numpy())
    torch.testing.assert_close(reduce_depth(x, bits=bits), torch.from_numpy(theirs).float(), rtol=0, atol=1e-6)


@pytest.mark.oracle
@pytest.mark.parametrize("channels", [1, 3], ids=["gray", "rgb"])
@pytest.mark.parametrize("quality", [10, 75], ids=["10", "75"])
def test_jpeg_is_arts(channels, quality):
    from art.defences.preprocessor import JpegCompression

    pixels = torch.randint(256, (3, channels, 20, 13), generator=seeded())
    defense = JpegCompression(clip_values=(0, 255), quality=quality, channels_first=True)
    theirs, _ = defense(pixels.numpy().astype(np.float32))
    torch.testing.assert_close(255 * jpeg(pixels / 255, quality=quality), torch.from_numpy(theirs), rtol=0, atol=1e-3)


def test_jpeg_loses_little_that_is_smooth_and_more_the_lower_the_quality(digits):
    x = digits.x_test[:20]
    errors = [(jpeg(x, quality=quality) - x).square().mean().sqrt().item() for quality in (100, 75, 10)]
    assert errors[0] < 2 / 255 < errors[1] < errors[2]
    plain = torch.tensor([0.0, 0.4, 1.0]).view(3, 1, 1, 1).expand(3, 1, 8, 8)
    torch.testing.assert_close(jpeg(plain), plain, rtol=0, atol=0.5 / 255)


def test_the_differences_and_their_adjoint_agree():
    z = torch.randn(2, 3, 5, 4, generator=seeded(), dtype=torch.float64)
    rows = torch.randn(2, 3, 4, 4, generator=seeded(1), dtype=torch.float64)
    columns = torch.randn(2, 3, 5, 3, generator=seeded(2), dtype=torch.float64)
    forward = (z.diff(dim=2) * rows).sum() + (z.diff(dim=3) * columns).sum()
    torch.testing.assert_close((z * adjoint(rows, columns)).sum(), forward)


def test_a_heavy_weight_leaves_the_mean_of_the_kept_pixels():
    x = torch.rand(3, 2, 6, 5, generator=seeded(), dtype=torch.float64)
    z = total_variation(x, weight=30.0, steps=3000, generator=seeded(4))
    kept = kept_by(x, 0.5, 4)
    mean = (x * kept).sum((2, 3), keepdim=True) / kept.sum((2, 3), keepdim=True)
    torch.testing.assert_close(z, mean.expand_as(x), rtol=0, atol=1e-4)


def test_a_light_weight_keeps_what_is_kept_and_fills_the_rest_as_smoothly_as_can_be():
    """In one row of pixels, no filling has a smaller total variation than the kept pixels themselves."""
    x = torch.rand(8, 1, 1, 30, generator=seeded(), dtype=torch.float64)
    z = total_variation(x, weight=0.03, steps=3000, generator=seeded(4))
    for image, filled, kept in zip(x[:, 0], z[:, 0], kept_by(x, 0.5, 4)[:, 0], strict=True):
        torch.testing.assert_close(filled[kept], image[kept])
        least = 0.03 * image[kept].diff().abs().sum().item()
        assert objective(filled, image, kept, 0.03) == pytest.approx(least, rel=1e-3)


@pytest.mark.parametrize("weight", [0.03, 0.2], ids=["light", "heavier"])
def test_the_default_steps_reach_the_minimum(digits, weight):
    x = digits.x_test[:3].double()
    short = total_variation(x, weight=weight, generator=seeded(4))
    long = total_variation(x, weight=weight, steps=2000, generator=seeded(4))
    for image, ours, best, kept in zip(x[:, 0], short[:, 0], long[:, 0], kept_by(x, 0.5, 4)[:, 0], strict=True):
        reached, least = objective(ours, image, kept, weight), objective(best, image, kept, weight)
        assert least <= reached < least + 0.05 * (objective(image, image, kept, weight) - least)


@pytest.mark.oracle
@pytest.mark.parametrize("weight", [0.03, 0.2], ids=["light", "heavier"])
def test_no_solver_of_arts_finds_a_better_image(digits, weight):
    from art.defences.preprocessor import TotalVarMin

    x = digits.x_test[:3].double()
    z = total_variation(x, weight=weight, generator=seeded(4))
    theirs = TotalVarMin(norm=2, lamb=weight, max_iter=500)
    for image, ours, kept in zip(x[:, 0], z[:, 0], kept_by(x, 0.5, 4)[:, 0], strict=True):
        found = torch.from_numpy(theirs._minimize(image[..., None].numpy(), kept[..., None].numpy().astype(int)))
        least = objective(found[..., 0], image, kept, weight)
        assert 0.85 * least < objective(ours, image, kept, weight) <= least


def test_nothing_dropped_or_everything():
    x = torch.rand(2, 1, 4, 4, generator=seeded())
    assert torch.equal(total_variation(x, drop=0, weight=0), x)
    assert total_variation(x, drop=1, weight=1, steps=500).var(dim=(2, 3)).max() < 1e-6


@pytest.mark.parametrize("transform", TRANSFORMS, ids=NAMES)
def test_no_gradient_passes_and_the_view_takes_the_network_s(transform, digits):
    x, y = digits.x_test[:4], digits.y_test[:4]
    network = reference("lenet", "digits")
    defended = input_transformation(network, transform, generator=seeded())
    assert torch.count_nonzero(input_gradient(defended, x, y)) == 0
    with pytest.warns(SuspiciousResult, match="4 of 4 inputs"):
        assert torch.equal(pgd(defended, x, y, eps=0.3, steps=1, random_start=False), x)
    seen = transform(x, generator=seeded())
    torch.testing.assert_close(seen.clamp(0, 1), seen)
    defended.generator.manual_seed(0)
    torch.testing.assert_close(input_gradient(transformation_view(defended), x, y), input_gradient(network, seen, y))
    for model in (defended, transformation_view(defended)):
        defended.generator.manual_seed(0)
        assert torch.equal(model(x), network(seen))


def test_the_view_of_a_random_transformation_averages(digits):
    x = digits.x_test[:2]
    defended = input_transformation(reference("lenet", "digits"), total_variation, generator=seeded())
    each = torch.stack([defended(x).detach().log_softmax(1) for _ in range(5)])
    assert not torch.equal(each[0], each[1])
    defended.generator.manual_seed(0)
    torch.testing.assert_close(transformation_view(defended, samples=5)(x).detach(), each.mean(0))


@pytest.mark.parametrize("transform", TRANSFORMS, ids=NAMES)
def test_the_transformation_hides_the_gradient_and_falls_to_those_who_know_it(transform, digits):
    x, y = digits.x_test[:24], digits.y_test[:24]
    network = reference("lenet", "digits")
    defended = input_transformation(network, transform, generator=seeded())
    draws, samples, steps = (3, 2, 10) if transform is total_variation else (1, 1, 20)
    view = transformation_view(defended, samples=samples)
    left = lambda x_adv: sum(accuracy_rate(defended, x_adv, y).value for _ in range(draws)) / draws  # noqa: E731
    with pytest.warns(SuspiciousResult):
        blind = left(pgd(defended, x, y, eps=0.3, steps=3, generator=seeded()))
    black_box = left(square(Query(defended), x, y, eps=0.3, queries=30, generator=seeded()))
    adaptive = left(pgd(view, x, y, eps=0.3, steps=steps, generator=seeded()))
    assert left(x) > 0.9
    assert blind > 0.8
    assert adaptive <= min(black_box, 0.1)


@pytest.mark.full
@pytest.mark.parametrize("transform", TRANSFORMS, ids=NAMES)
def test_at_a_smaller_radius_the_view_is_at_least_as_strong_as_square(transform, digits):
    x, y = digits.x_test[:64], digits.y_test[:64]
    defended = input_transformation(reference("lenet", "digits"), transform, generator=seeded())
    draws, samples, queries = (5, 3, 100) if transform is total_variation else (1, 1, 500)
    left = lambda x_adv: sum(accuracy_rate(defended, x_adv, y).value for _ in range(draws)) / draws  # noqa: E731
    black_box = left(square(Query(defended), x, y, eps=0.1, queries=queries, generator=seeded()))
    view = transformation_view(defended, samples=samples)
    assert left(pgd(view, x, y, eps=0.1, steps=20, generator=seeded())) <= black_box


def test_inputs_and_the_global_state_stay(digits):
    x, state = digits.x_test[:2].clone(), torch.get_rng_state()
    for transform in TRANSFORMS:
        transform(x, generator=None)
    assert torch.equal(x, digits.x_test[:2])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("transform", TRANSFORMS, ids=NAMES)
def test_an_empty_batch_stays_empty(transform):
    assert transform(torch.zeros(0, 1, 5, 5)).shape == (0, 1, 5, 5)


@pytest.mark.parametrize("transform", TRANSFORMS, ids=NAMES)
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"x": torch.full((1, 1, 4, 4), 255.0)}, ("x", "[0, 1]")),
        ({"x": torch.rand(4, 4)}, ("x", "(N, C, H, W)")),
        ({"x": [0.5]}, ("x", "floating point")),
        ({"generator": 7}, ("generator",)),
    ],
    ids=["range", "flat", "list", "generator"],
)
def test_bad_images_are_named(refuses, transform, wrong, words):
    refuses(transform, {"x": torch.rand(1, 1, 4, 4)} | wrong, *words)


@pytest.mark.parametrize(
    ("function", "wrong", "words"),
    [
        (reduce_depth, {"bits": 0}, ("bits", "at least 1")),
        (reduce_depth, {"bits": 17}, ("bits", "1 to 16")),
        (reduce_depth, {"bits": 2.5}, ("bits", "whole")),
        (jpeg, {"quality": 0}, ("quality", "at least 1")),
        (jpeg, {"quality": 101}, ("quality", "1 to 100")),
        (jpeg, {"x": torch.rand(1, 2, 4, 4)}, ("x", "RGB")),
        (total_variation, {"drop": 1.1}, ("drop", "0 to 1")),
        (total_variation, {"weight": -1}, ("weight", "at least 0")),
        (total_variation, {"weight": math.nan}, ("weight", "finite")),
        (total_variation, {"steps": 0}, ("steps", "at least 1")),
    ],
    ids=["no-bits", "bits", "half-bits", "quality-0", "quality", "channels", "drop", "weight", "nan", "steps"],
)
def test_bad_strengths_are_named(refuses, function, wrong, words):
    refuses(function, {"x": torch.rand(1, 1, 4, 4)} | wrong, *words)


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        (input_transformation, {"model": 3}, ("model",)),
        (input_transformation, {"model": nn.Flatten(), "transform": "jpeg"}, ("transform", "called")),
        (input_transformation, {"model": nn.Flatten(), "generator": 7}, ("generator",)),
        (transformation_view, {"defended": nn.Flatten()}, ("defended", "input_transformation")),
        (transformation_view, {"defended": input_transformation(nn.Flatten()), "samples": 0}, ("samples",)),
    ],
    ids=["model", "transform", "generator", "not-defended", "samples"],
)
def test_bad_models_are_named(refuses, function, arguments, words):
    refuses(function, arguments, *words)


def test_strength_is_set_by_partial():
    x = torch.rand(1, 1, 4, 4, generator=seeded())
    defended = input_transformation(nn.Flatten(), partial(reduce_depth, bits=1))
    assert torch.equal(defended(x), x.round().flatten(1))


# --- corner_search ----------------------------------------------------------------------------------------------------


@pytest.fixture
def binary():
    """A linear model with two classes behind one bit a pixel, images, their labels, and the worst lead at eps .2."""
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(40, 1, 4, 4, generator=generator)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    with torch.no_grad():
        network[1].weight.normal_(generator=generator)
        network[1].bias.zero_()
    defended = input_transformation(network, partial(reduce_depth, bits=1))
    y = defended(x).argmax(1)
    slope = (network[1].weight[y] - network[1].weight[1 - y]).detach()
    bits, low, high = (reduce_depth(v, bits=1).flatten(1) for v in (x, (x - 0.2).clamp_min(0), (x + 0.2).clamp_max(1)))
    worst = (slope * torch.where(slope > 0, low, high)).sum(1)
    assert ((slope * bits).sum(1) >= 0).all()
    return defended, x, y, worst


def test_corner_search_finds_the_optimum_of_a_linear_model(binary):
    defended, x, y, worst = binary
    x_adv = corner_search(defended, x, y, eps=0.2)
    turned = defended(x_adv).argmax(1) != y
    assert torch.equal(turned, worst < 0) and turned.any() and not turned.all()
    assert (x_adv - x).abs().max() <= 0.2 + 1e-6 and x_adv.min() >= 0 and x_adv.max() <= 1


def test_corner_search_moves_no_pixel_for_nothing(binary):
    defended, x, y, _ = binary
    x_adv = corner_search(defended, x, y, eps=0.2)
    bits, bits_adv = (reduce_depth(v, bits=1) for v in (x, x_adv))
    assert torch.equal(x_adv != x, bits_adv != bits)
    assert torch.equal(corner_search(defended, x, 1 - y, eps=0.2), x)  # misread already


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"defended": nn.Flatten()}, ["defended"]), ({"eps": -0.1}, ["eps", "-0.1"]), ({"y": torch.zeros(3)}, ["y"])],
)
def test_corner_search_refuses(binary, refuses, changes, words):
    defended, x, y, _ = binary
    arguments = {"defended": defended, "x": x, "y": y, "eps": 0.1} | changes
    refuses(corner_search, arguments, *words)

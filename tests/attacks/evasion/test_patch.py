"""The patch: `paste` against array slicing and SciPy, the learned patch against ART's and against chance."""

import random

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from spai_lab.attacks.evasion.patch import Patch, disk, paste, patch, random_placement
from spai_lab.metrics import Rate

TARGET = 3


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def images():
    return torch.rand(3, 2, 11, 12, dtype=torch.float64, generator=seeded())


def picture(size: int, channels: int = 2) -> Patch:
    return Patch(torch.rand(channels, size, size, dtype=torch.float64, generator=seeded(1)), disk(size).double())


@pytest.mark.parametrize("quarter", range(4))
@pytest.mark.parametrize("size", [4, 5])
def test_quarter_turns_are_exact(images, quarter, size):
    drawn, half = picture(size), (size - 1) / 2
    expected = images.clone()
    pixels, mask = (torch.rot90(part, quarter, (1, 2)) for part in (drawn.pixels, drawn.mask))
    region = expected[:, :, 2 : 2 + size, 4 : 4 + size]
    region.copy_(torch.where(mask == 1, pixels, region))
    stuck = paste(images, drawn, 2 + half, 4 + half, 90.0 * quarter)
    assert torch.allclose(stuck, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("angle", "scale"), [(30.0, 1.0), (-75.0, 1.3), (10.0, 0.7)])
def test_other_turns_and_scales_agree_with_scipy(images, angle, scale):
    drawn, size, (row, column) = picture(7), 7, (4.3, 6.6)
    a = np.deg2rad(angle)
    matrix = (
        np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]]) / scale
    )  # from places of the image to the patch
    offset = (size - 1) / 2 - matrix @ np.array([row, column])

    def moved(plane):
        padded = np.pad(plane, 1)  # SciPy sees no pixel beyond the edge, even between it and the last one
        return ndimage.affine_transform(padded, matrix, offset + 1, output_shape=(11, 12), order=1)

    mask = moved(drawn.mask[0].numpy())
    expected = [
        [(1 - mask) * image[c].numpy() + moved((drawn.pixels[c] * drawn.mask[0]).numpy()) for c in range(2)]
        for image in images
    ]
    stuck = paste(images, drawn, row, column, angle, scale)
    assert np.abs(stuck.numpy() - np.array(expected)).max() < 1e-12


def test_each_image_has_a_place_of_its_own_and_the_edge_cuts(images):
    rows, columns = torch.tensor([0.0, 5.0, 40.0]), torch.tensor([0.0, 6.0, 6.0])
    drawn = picture(3)
    together = paste(images, drawn, rows, columns)
    for i in range(3):
        assert torch.equal(together[i : i + 1], paste(images[i : i + 1], drawn, rows[i].item(), columns[i].item()))
    assert torch.equal(together[2], images[2])
    assert ((together[0] - images[0]).abs().amax(0) > 1e-9).nonzero().amax() == 1


def test_it_is_differentiable_in_patch_and_image(images):
    pixels = picture(5).pixels.requires_grad_()
    x = images.clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda p, x: paste(x, Patch(p, disk(5).double()), 5.2, 6.1, 20.0, 1.1), (pixels * 0.8 + 0.1, x * 0.8 + 0.1)
    )


def test_places_are_drawn_inside_and_everywhere():
    x = torch.zeros(4000, 1, 20, 28)
    where = random_placement(x, 10, scales=(0.5, 1.5), max_angle=40, generator=seeded())
    radius = 10 * where.scales / 2
    assert ((where.rows - radius >= -0.5 - 1e-4) & (where.rows + radius <= 19.5 + 1e-4)).all()
    assert ((where.columns - radius >= -0.5 - 1e-4) & (where.columns + radius <= 27.5 + 1e-4)).all()
    for values, low, high in ((where.angles, -40, 40), (where.scales, 0.5, 1.5)):
        assert low <= values.min() < low + 0.01 * (high - low) and high - 0.01 * (high - low) < values.max() <= high


def test_a_linear_model_wants_black_and_white():
    """Where the target's lead grows with every pixel by the same weight, the best patch is white; else black."""
    for sign, color in ((1, 1.0), (-1, 0.0)):
        model = nn.Sequential(nn.Flatten(), nn.Linear(100, 2))
        with torch.no_grad():
            model[1].weight.copy_(0.01 * sign * torch.tensor([[-1.0], [1.0]]).expand(2, 100))
        learned = patch(model, torch.rand(4, 1, 10, 10), target=1, size=5, steps=40, generator=seeded())
        assert (learned.pixels[learned.mask == 1] == color).all()
        assert (learned.pixels[learned.mask == 0] == 0.5).all()


def test_the_same_generator_gives_the_same_patch_and_changes_nothing_else(victim, digits):
    x, before = digits.x_train[:16].clone(), torch.get_rng_state()
    settings = {"target": TARGET, "size": 12, "steps": 3}
    first = patch(victim, x, **settings, generator=seeded())
    with torch.no_grad():
        second = patch(victim, x, **settings, generator=seeded())
    assert torch.equal(first.pixels, second.pixels) and not first.pixels.requires_grad
    assert torch.equal(x, digits.x_train[:16]) and torch.equal(before, torch.get_rng_state())
    assert all(p.grad is None for p in victim.parameters())


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"target": 10}, ("10", "0 to 9")),
        ({"target": -1}, ("target", "-1")),
        ({"size": 0}, ("size", "0")),
        ({"size": 27}, ("size", "27", "28 pixels")),
        ({"scales": (1.2, 0.8)}, ("scales", "(1.2, 0.8)")),
        ({"scales": 1.0}, ("scales", "1.0")),
        ({"scales": (0, 1)}, ("scales[0]", "above 0")),
        ({"max_angle": 200}, ("max_angle", "200", "180")),
        ({"steps": 0}, ("steps", "0")),
        ({"batch_size": 0}, ("batch_size", "0")),
        ({"step_size": 0}, ("step_size", "0")),
        ({"x": torch.zeros(0, 1, 28, 28)}, ("x", "at least one image")),
        ({"x": torch.zeros(2, 784)}, ("x", "(N, C, H, W)")),
    ],
)
def test_bad_arguments_are_named(victim, digits, refuses, bad, words):
    refuses(patch, {"model": victim, "x": digits.x_train[:4], "target": 1, "size": 8, "steps": 1, **bad}, *words)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"patch": torch.zeros(1, 3, 3)}, ("patch", "accepted: a Patch")),
        ({"patch": Patch(torch.zeros(3, 3, 3), disk(3))}, ("patch", "(3, 3, 3)", "channels")),
        ({"rows": float("nan")}, ("rows", "nan")),
        ({"columns": torch.zeros(3)}, ("columns", "(2,)")),
        ({"angles": "90"}, ("angles", "'90'")),
        ({"scales": 0.0}, ("scales", "above 0")),
    ],
)
def test_bad_placements_are_named(refuses, bad, words):
    good = {"x": torch.zeros(2, 1, 9, 9), "patch": Patch(torch.zeros(1, 3, 3), disk(3)), "rows": 4.0, "columns": 4.0}
    refuses(paste, {**good, **bad}, *words)


def test_a_patch_has_pixels_in_range_and_a_mask_that_fits(refuses):
    refuses(Patch, {"pixels": torch.full((1, 3, 3), 2.0), "mask": disk(3)}, "pixels", "2")
    refuses(Patch, {"pixels": torch.zeros(1, 3, 3), "mask": disk(4)}, "mask", "(1, 4, 4)")


ROBUST_LATER = pytest.mark.parametrize(
    "victim", ["lenet", pytest.param("lenet-robust", marks=pytest.mark.full)], indirect=True
)


@pytest.mark.oracle
@ROBUST_LATER
def test_it_succeeds_on_unseen_images_as_often_as_arts(victim, digits):
    """Three sets of training images, each with placements of its own; both patches meet the same ones."""
    from benchmarks.contests.patch import learned_by_art, learned_by_us, stuck

    others = digits.y_test != TARGET
    x_test = digits.x_test[others]

    def hits(learned: Patch, seed: int) -> int:
        return int((victim(stuck(x_test, learned, seeded(100 + seed))).argmax(1) == TARGET).sum())

    ours = theirs = by_chance = 0
    for seed in range(3):
        x = digits.x_train[24 * seed : 24 * (seed + 1)]
        random.seed(seed)
        theirs += hits(learned_by_art(victim, x, TARGET), seed)
        learned = learned_by_us(victim, x, TARGET, seeded(seed))
        ours += hits(learned, seed)
        noise = torch.rand(learned.pixels.shape, generator=seeded(seed))
        by_chance += hits(Patch(noise, learned.mask), seed)
    trials = 3 * len(x_test)
    assert 0.2 <= theirs / trials <= 0.7
    assert ours / trials >= theirs / trials - 0.02
    assert Rate(ours, trials).interval[0] > Rate(by_chance, trials).interval[1]

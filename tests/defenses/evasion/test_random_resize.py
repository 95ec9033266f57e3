"""Random resizing and padding, against Pillow, the law of its draws, and attacks that know or ignore the randomness."""

import copy

import numpy as np
import pytest
import scipy.stats
import torch
from PIL import Image
from torch import nn

from spai_lab.attacks.evasion.gradient import pgd
from spai_lab.attacks.evasion.search import square
from spai_lab.attacks.evasion.transfer import transfer
from spai_lab.defenses.evasion.random_resize import random_patterns, random_resize_pad, resize_and_pad, resize_pad_view
from spai_lab.query import Query
from spai_lab.threat import fooled
from spai_lab.training.weights import reference

FALSE_ALARM = 1e-6


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- resizing and padding ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [7, 24, 27, 28, 31])
def test_resizing_is_pillows(side):
    x = torch.rand(3, 2, 28, 28, generator=seeded())
    ours = resize_and_pad(x.double(), torch.tensor([[side, 0, 0]] * 3), side)  # Pillow weighs in double precision too
    for image, resized in zip(x.flatten(0, 1), ours.flatten(0, 1), strict=True):
        theirs = Image.fromarray(image.numpy()).resize((side, side), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(resized.numpy(), np.asarray(theirs), rtol=0, atol=1e-6)


def test_each_image_lies_at_its_place_on_black():
    x = torch.rand(3, 1, 5, 5, generator=seeded()) + 0.1
    patterns = torch.tensor([[5, 0, 2], [6, 1, 0], [5, 2, 1]])
    canvas = resize_and_pad(x, patterns, 7)
    for i, (side, top, left) in enumerate(patterns.tolist()):
        alone = resize_and_pad(x[i : i + 1], torch.tensor([[side, 0, 0]]), side)[0]
        around = (left, 7 - side - left, top, 7 - side - top)
        assert torch.equal(canvas[i], nn.functional.pad(alone, around))


def test_an_image_of_its_own_size_is_not_touched():
    x = torch.rand(2, 3, 6, 6, generator=seeded())
    assert torch.equal(resize_and_pad(x, torch.tensor([[6, 1, 2]] * 2), 9)[..., 1:7, 2:8], x)


def test_the_gradient_is_that_of_finite_differences():
    x = torch.rand(3, 1, 5, 5, generator=seeded(), dtype=torch.float64, requires_grad=True)
    patterns = torch.tensor([[4, 0, 1], [5, 1, 0], [3, 2, 3]])
    assert torch.autograd.gradcheck(lambda x: resize_and_pad(x, patterns, 6), x)


# --- the draws --------------------------------------------------------------------------------------------------------


def chance(drawn, smallest, size) -> float:
    """The p-value of the drawn patterns: the side is uniform, and so are the places that it leaves."""
    law = {
        (side, top, left): 1 / (size - smallest) / (size - side + 1) ** 2
        for side in range(smallest, size)
        for top in range(size - side + 1)
        for left in range(size - side + 1)
    }
    patterns, counts = drawn.unique(dim=0, return_counts=True)
    seen = dict(zip(map(tuple, patterns.tolist()), counts.tolist(), strict=True))
    if not seen.keys() <= law.keys():
        return 0.0
    return scipy.stats.chisquare([seen.get(p, 0) for p in law], [len(drawn) * share for share in law.values()]).pvalue


def test_sizes_and_places_follow_their_law():
    assert chance(random_patterns(100_000, 25, 28, seeded()), 25, 28) > FALSE_ALARM


def test_the_law_catches_a_last_place_that_is_never_drawn_and_a_side_too_many():
    narrow = random_patterns(100_000, 25, 28, seeded())
    narrow[:, 1] = narrow[:, 1].minimum(27 - narrow[:, 0])
    assert chance(narrow, 25, 28) < FALSE_ALARM
    assert chance(random_patterns(100_000, 25, 29, seeded()), 25, 28) < FALSE_ALARM


def test_the_papers_sizes_give_its_number_of_patterns():
    """Xie 2017 counts 12,528 patterns for 299 and 331; 800,000 draws miss one with probability below 1e-6."""
    numbers = random_patterns(800_000, 299, 331, seeded()) @ torch.tensor([331**2, 331, 1])
    assert len(numbers.unique()) == 12_528


def test_images_of_one_batch_are_drawn_apart():
    """Sixteen images would share one of 29 patterns with probability far below 1e-6."""
    defended = random_resize_pad(nn.Flatten(), smallest=5, size=8, generator=seeded())
    assert len(defended(torch.ones(16, 1, 6, 6)).unique(dim=0)) > 1


# --- a model like any other -------------------------------------------------------------------------------------------


def test_the_generator_repeats_the_draws_and_the_global_state_stays():
    model = nn.Flatten()
    x, state = torch.rand(8, 1, 6, 6, generator=seeded()), torch.get_rng_state()
    defended = random_resize_pad(model, smallest=4, size=6, generator=seeded(3))
    first, second = defended(x), defended(x)
    defended.generator.manual_seed(3)
    assert torch.equal(defended(x), first) and not torch.equal(first, second)
    assert not torch.equal(*(random_resize_pad(model, smallest=4, size=6)(x) for _ in range(2)))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("training", [True, False])
def test_parameters_mode_and_copies(training):
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).train(training)
    defended = random_resize_pad(model, smallest=4, size=6, generator=seeded())
    assert [id(p) for p in defended.parameters()] == [id(p) for p in model.parameters()]
    assert defended.training is training
    x = torch.rand(8, 1, 6, 6, generator=seeded())
    assert torch.equal(copy.deepcopy(defended)(x), defended(x))
    assert defended(x[:0]).shape == (0, 3)


def test_the_view_is_the_mean_of_the_log_probabilities_over_fresh_draws():
    defended = random_resize_pad(nn.Flatten(), smallest=4, size=6, generator=seeded(1))
    x = torch.rand(8, 1, 6, 6, generator=seeded())
    seen = resize_pad_view(defended, samples=5)(x)
    defended.generator.manual_seed(1)
    torch.testing.assert_close(seen, torch.stack([defended(x).log_softmax(1) for _ in range(5)]).mean(0))


# --- on digits: judged by the expected accuracy over fresh draws ------------------------------------------------------


class OneDraw(nn.Module):
    """What an attacker climbs who takes the model for a fixed one: the same draws whenever it runs."""

    def __init__(self, defended):
        super().__init__()
        self.defended = copy.deepcopy(defended)

    def forward(self, x):
        self.defended.generator.manual_seed(0)
        return self.defended(x)


def left(defended, x, y, draws=10) -> float:
    """The expected accuracy, as the mean over fresh draws."""
    return 1 - sum(fooled(defended, x, y).double().mean().item() for _ in range(draws)) / draws


@pytest.fixture
def guarded():
    """The reference LeNet behind images of 25 to 27 pixels: the paper's ratio."""
    return random_resize_pad(reference("lenet", "digits"), smallest=25, size=28, generator=seeded())


def test_clean_accuracy_is_kept(guarded, digits):
    assert left(guarded, digits.x_test, digits.y_test, draws=3) >= 0.94


def test_it_stops_who_ignores_it_and_falls_to_who_averages(guarded, digits):
    x, y = digits.x_test[:96], digits.y_test[:96]
    eps, view = 0.12, resize_pad_view(guarded, samples=10)
    undefended = pgd(guarded.model, x, y, eps=eps, steps=10, generator=seeded())
    one_draw = pgd(OneDraw(guarded), x, y, eps=eps, steps=10, generator=seeded())
    adaptive = left(guarded, pgd(view, x, y, eps=eps, steps=10, generator=seeded()), y)
    assert left(guarded, undefended, y) - left(guarded.model, undefended, y, draws=1) >= 0.1
    assert left(guarded, one_draw, y) - adaptive >= 0.05
    assert adaptive <= left(guarded, transfer([guarded.model], x, y, eps=eps), y)
    assert adaptive <= left(guarded, square(Query(guarded), x, y, eps=eps, queries=100, generator=seeded()), y)
    assert left(guarded, pgd(view, x, y, eps=0.3, steps=5, generator=seeded()), y) <= 0.1


@pytest.mark.full
@pytest.mark.parametrize("eps", [0.1, 0.15])
def test_averaging_beats_a_patient_square(eps, guarded, digits):
    x, y = digits.x_test[:128], digits.y_test[:128]
    adaptive = pgd(resize_pad_view(guarded, samples=20), x, y, eps=eps, steps=20, generator=seeded())
    patient = square(Query(guarded), x, y, eps=eps, queries=1000, generator=seeded())
    others = patient, transfer([guarded.model], x, y, eps=eps)
    assert all(left(guarded, adaptive, y) <= left(guarded, x_adv, y) for x_adv in others)


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"model": None}, ("model is None", "called")),
        ({"smallest": 0}, ("smallest is 0", "at least 1")),
        ({"size": 4}, ("size is 4", "at least 5")),
        ({"size": 6.0}, ("size is 6.0", "whole")),
        ({"generator": 3}, ("generator is 3",)),
    ],
    ids=["model", "zero", "equal", "fraction", "generator"],
)
def test_bad_input_is_named(refuses, wrong, words):
    refuses(random_resize_pad, {"model": nn.Flatten(), "smallest": 4, "size": 6} | wrong, *words)


def test_images_that_are_not_square_are_named(refuses):
    defended = random_resize_pad(nn.Flatten(), smallest=4, size=6)
    for x in (torch.zeros(2, 1, 4, 5), torch.zeros(2, 9), None):
        refuses(defended, {"x": x}, "x is", "accepted")
    refuses(resize_pad_view, {"defended": defended, "samples": 0}, "samples is 0")

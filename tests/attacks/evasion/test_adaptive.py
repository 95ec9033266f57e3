"""BPDA and EOT against the chain rule, closed forms, ART's and torchattacks' versions, and defenses that they undo."""

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import binomtest
from torch import nn

from spai_lab.attacks.evasion import pgd
from spai_lab.attacks.evasion.adaptive import bpda, eot
from spai_lab.attacks.evasion.spatial import random_moves, transform
from spai_lab.checks import SuspiciousResult
from spai_lab.models import mlp, softmax_regression
from spai_lab.query import Query
from spai_lab.threat import fooled, input_gradient, margin

FALSE_ALARM = 1e-6
SHAPE = (1, 3, 3)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rounded(x):
    return (3 * x).round() / 3


@pytest.fixture
def case():
    model = mlp(SHAPE, 3, hidden=8, generator=seeded(1)).double().eval()
    x = torch.rand(5, *SHAPE, dtype=torch.float64, generator=seeded())
    return model, x, torch.tensor([0, 1, 2, 0, 1])


class Noisy(nn.Module):
    """A random defense: Gaussian noise on the pixels, drawn from a generator of its own."""

    def __init__(self, model, sigma, seed=0):
        super().__init__()
        self.model, self.sigma, self.generator = model, sigma, seeded(seed)

    def forward(self, x):
        return self.model(x + self.sigma * torch.randn(x.shape, dtype=x.dtype, generator=self.generator))


# --- bpda -------------------------------------------------------------------------------------------------------------


def test_the_answer_is_exact_and_the_gradient_is_the_one_at_the_rounded_image(case):
    model, x, y = case
    defended = nn.Sequential(bpda(rounded), model)
    assert torch.equal(defended(x), model(rounded(x)))
    assert torch.equal(input_gradient(defended, x, y), input_gradient(model, rounded(x), y))


def test_the_gradient_follows_the_chain_rule_through_the_stand_in(case):
    model, x, y = case
    defended = nn.Sequential(bpda(lambda x: x.square().round(decimals=1), torch.square), model)
    at_z = input_gradient(model, x.square().round(decimals=1), y)
    torch.testing.assert_close(input_gradient(defended, x, y), 2 * x * at_z, rtol=1e-12, atol=0)


def test_a_closed_model_borrows_the_gradient_of_its_stand_in(case):
    model, x, _ = case
    stand_in = softmax_regression(SHAPE, 3, generator=seeded(2)).double()
    defended = bpda(lambda x: model(x).round(), stand_in)
    assert torch.equal(defended(x), model(x).round())
    slope = defended(x.requires_grad_())
    weights = torch.rand(slope.shape, dtype=torch.float64, generator=seeded())
    found = torch.autograd.grad((weights * slope).sum(), x)[0]
    expected = torch.autograd.grad((weights * stand_in(x)).sum(), x)[0]
    assert torch.equal(found, expected)


def test_no_rounding_error_comes_in_where_the_stand_in_is_far_off():
    wrapped = bpda(lambda x: x / 3, lambda x: 1e8 * x)
    x = torch.rand(100, generator=seeded(), requires_grad=True)
    assert torch.equal(wrapped(x), x / 3)


def test_the_stand_in_is_not_run_without_a_gradient(case):
    _, x, _ = case

    def forbidden(x):
        raise AssertionError("run")

    with torch.no_grad():
        assert torch.equal(bpda(rounded, forbidden)(x), rounded(x))
    assert torch.equal(Query(nn.Sequential(bpda(rounded, forbidden), nn.Flatten()))(x), rounded(x).flatten(1))


def test_pgd_stands_still_at_rounding_and_passes_it_with_bpda(digits, victim):
    x, y = digits.x_test[:48], digits.y_test[:48]
    blind = nn.Sequential(Layer(lambda x: (7 * x).round() / 7), victim).eval()
    with pytest.warns(SuspiciousResult, match="48 of 48 inputs have a gradient of exactly zero"):
        still = pgd(blind, x, y, eps=0.25, steps=10, random_start=False)
    assert torch.equal(still, x)
    seeing = nn.Sequential(bpda(lambda x: (7 * x).round() / 7), victim)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x_adv = pgd(seeing, x, y, eps=0.25, steps=10, random_start=False)
    assert fooled(blind, x_adv, y).float().mean() > fooled(blind, still, y).float().mean() + 0.3


class Layer(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.oracle
@pytest.mark.parametrize(("name", "eps"), [("lenet", 0.1), ("lenet-robust", 0.22)])
def test_bpda_equals_art_with_squeezed_pixels(name, eps, digits):
    from benchmarks.contests.adaptive import bpda_by_art, bpda_ours, squeezed
    from spai_lab.training import reference

    victim, x, y = reference(name, "digits"), digits.x_test[:128], digits.y_test[:128]
    ours, theirs = (prepare(victim, x, y, eps=eps)() for prepare in (bpda_ours, bpda_by_art))
    mine, peers = (fooled(nn.Sequential(Layer(squeezed), victim), x_adv, y) for x_adv in (ours, theirs))
    assert 0.3 <= peers.double().mean() <= 0.7
    assert peers.double().mean() - mine.double().mean() <= 0.02
    same = (ours - theirs).abs().flatten(1).amax(1) <= 1e-5
    assert same.double().mean() >= 0.9  # in the others a pixel between two levels was rounded the other way


# --- eot --------------------------------------------------------------------------------------------------------------


def test_one_sample_of_a_model_without_randomness_changes_nothing(case):
    model, x, y = case
    for samples in (1, 4):
        torch.testing.assert_close(eot(model, samples)(x), model(x).log_softmax(1))
        torch.testing.assert_close(input_gradient(eot(model, samples), x, y), input_gradient(model, x, y))


def test_it_is_the_mean_of_the_log_probabilities_over_the_views(case):
    model, x, _ = case
    views = [x, x.flip(3), x.rot90(1, (2, 3)), 1 - x]
    turn = iter(views)
    average = eot(model, 4, transformation=lambda x, generator: next(turn))(x)
    by_hand = torch.stack([model(view).log_softmax(1) for view in views]).mean(0)
    torch.testing.assert_close(average, by_hand)


def test_margins_are_those_of_the_mean_logits(case):
    model, x, y = case
    average = eot(Noisy(model, 0.3), 7)(x)
    noisy = Noisy(model, 0.3)
    logits = torch.stack([noisy(x) for _ in range(7)]).mean(0)
    torch.testing.assert_close(margin(average, y), margin(logits, y))
    torch.testing.assert_close(average.softmax(1), logits.softmax(1))


def test_the_gradient_of_a_linear_model_under_noise_is_that_without_noise(case):
    _, x, _ = case
    linear = softmax_regression(SHAPE, 3, generator=seeded()).double()
    noisy = eot(Noisy(linear, 0.5), 3)
    x.requires_grad_()
    found, expected = (torch.autograd.grad((z[:, 0] - z[:, 1]).sum(), x)[0] for z in (noisy(x), linear(x)))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


def test_the_gradient_tends_to_that_of_the_expectation():
    """Two classes with logits ±(x + n)^2 / 2: the expected slope of their difference is 2 x, its variance 4 sigma^2."""
    sigma, samples, x = 0.5, 400, torch.linspace(0, 1, 50, dtype=torch.float64).view(50, 1, 1, 1).requires_grad_()
    square = Layer(lambda x: torch.cat([x.flatten(1) ** 2, -(x.flatten(1) ** 2)], dim=1) / 2)
    z = eot(Noisy(square, sigma), samples)(x)
    slope = torch.autograd.grad((z[:, 0] - z[:, 1]).sum(), x)[0]
    error = (slope - 2 * x).detach().flatten() / (2 * sigma / samples**0.5)  # standard normal
    assert error.abs().max() < 5.6  # fifty two-sided draws: false alarm 1e-6
    assert error.square().sum() > 11  # and it is random: chi-squared with fifty degrees falls below once in 1e9


def test_the_generator_repeats_the_views_and_the_global_state_stays(case):
    model, x, _ = case

    def turned(x, generator):
        return transform(x, *random_moves(x, generator=generator))

    state = torch.get_rng_state()
    wrapped = eot(model, 3, transformation=turned, generator=seeded(4))
    first, second = wrapped(x), wrapped(x)
    wrapped.generator.manual_seed(4)
    assert torch.equal(wrapped(x), first) and not torch.equal(second, first)
    assert not torch.equal(eot(model, 3, transformation=turned)(x), eot(model, 3, transformation=turned)(x))
    assert torch.equal(torch.get_rng_state(), state)


def advantage(first, second) -> float:
    """The probability that `first` alone fools so many of the images that one of the two fools, were both alike."""
    alone, other = int((first & ~second).sum()), int((second & ~first).sum())
    return binomtest(alone, alone + other, alternative="greater").pvalue if alone + other else 1.0


class Scattered(nn.Module):
    """A random defense that answers as the model does, with noise of zero mean on its gradient alone."""

    def __init__(self, model, sigma):
        super().__init__()
        self.model, self.sigma, self.generator = model, sigma, seeded(7)

    def forward(self, x):
        logits = self.model(x)
        noise = self.sigma * torch.randn(*logits.shape, x[0].numel(), generator=self.generator)
        return logits + (noise * (x - x.detach()).flatten(1)[:, None]).sum(2)


def test_pgd_with_eot_beats_plain_pgd_on_a_random_defense(digits):
    from spai_lab.training import reference

    x, y = digits.x_test[:100], digits.y_test[:100]
    defended = Scattered(reference("lenet", "digits"), 4.0)
    once, often = (
        fooled(defended, pgd(model, x, y, eps=0.15, steps=3, random_start=False), y)
        for model in (defended, eot(defended, 30))
    )
    assert advantage(often, once) <= FALSE_ALARM


ROBUST_LATER = pytest.mark.parametrize(
    "victim", ["lenet", pytest.param("lenet-robust", marks=pytest.mark.full)], indirect=True
)


def both_with_eot(victim, x, y, seed):
    """Which images we fool and which torchattacks does, both through noise that they have not seen."""
    from benchmarks.contests.adaptive import Noisy, eot_by_torchattacks, eot_ours

    torch.manual_seed(seed)  # torchattacks draws its start from the global state
    ours, theirs = (
        fooled(Noisy(victim, seed=seed + 10), prepare(victim, x, y)(), y) for prepare in (eot_ours, eot_by_torchattacks)
    )
    assert 0.3 <= theirs.double().mean() <= 0.7
    return ours, theirs


@pytest.mark.oracle
@ROBUST_LATER
def test_pgd_with_eot_is_not_behind_torchattacks(victim, digits):
    ours, theirs = both_with_eot(victim, digits.x_test[:40], digits.y_test[:40], seed=0)
    assert advantage(theirs, ours) > FALSE_ALARM


@pytest.mark.full
@pytest.mark.oracle
def test_pgd_with_eot_fools_as_many_images_as_torchattacks(victim, digits):
    pairs = [both_with_eot(victim, digits.x_test[:128], digits.y_test[:128], seed) for seed in range(3)]
    ours, theirs = (torch.cat(hits).double().mean() for hits in zip(*pairs, strict=True))
    assert theirs - ours <= 0.02


# --- both are models like any other -----------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_parameters_stay_visible_and_the_mode_stays(case, training):
    model, x, y = case
    model.train(training)
    state = copy.deepcopy(model.state_dict())
    for wrapped in (bpda(model, model), eot(model, 2)):
        assert {id(p) for p in wrapped.parameters()} == {id(p) for p in model.parameters()}
        assert wrapped.training is training
        pgd(wrapped, x, y, eps=0.1, steps=2)
        assert all(module.training is training for module in model.modules())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_a_model_of_another_dtype_is_still_refused(case, refuses):
    model, x, y = case
    for wrapped in (nn.Sequential(bpda(rounded), model), bpda(model, model), eot(model, 2)):
        refuses(pgd, {"model": wrapped, "x": x.float(), "y": y, "eps": 0.1}, "x is torch.float32", "torch.float64")


def test_wrapped_models_can_be_copied(case):
    model, x, _ = case
    for wrapped in (bpda(model, model), eot(Noisy(model, 0.1), 2)):
        again = copy.deepcopy(wrapped)
        assert torch.equal(again(x), wrapped(x))


def test_bad_input_is_refused(case, refuses):
    model, x, y = case
    refuses(bpda, {"model": None}, "model is None", "called")
    refuses(bpda, {"model": model, "backward": 3}, "backward is 3", "called")
    refuses(eot, {"model": None, "samples": 2}, "model is None")
    for samples in (0, 1.5, True):
        refuses(eot, {"model": model, "samples": samples}, f"samples is {samples}", "at least 1")
    refuses(eot, {"model": model, "samples": 2, "transformation": 3}, "transformation is 3", "called")
    refuses(eot, {"model": model, "samples": 2, "generator": 3}, "generator is 3")
    refuses(eot(nn.Sequential(model, nn.Softmax(1)), 2), {"x": x}, "probabilities", "logits")
    refuses(bpda(model), {"x": x}, "what backward returns is", "shape (5, 3)")
    refuses(pgd, {"model": bpda(model), "x": x, "y": y, "eps": 0.1}, "what backward returns is")
    assert F.cross_entropy(bpda(model, model)(x), y).isfinite()

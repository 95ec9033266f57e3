"""The ball, the steps and the starts against their closed forms and the laws they promise."""

import inspect
import math
import os

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.stats import beta, kstest, uniform
from torch import nn

from spai_lab.models import softmax_regression
from spai_lab.threat import fooled, fresh_generator, input_gradient, norms, project, random_point, steepest

FALSE_ALARM = 1e-6  # of each test of a law; 4,000 draws tell the planted faults apart from it with certainty
DRAWS = 4_000
ORDERS = {"linf": np.inf, "l2": 2, "l1": 1, "l0": 0}


@st.composite
def batches(draw, count: int, low: float = -2.0, high: float = 2.0):
    """`count` float64 batches of one common shape, entries within a range, exact zeros (or its end) among them."""
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    made = [low + (high - low) * torch.rand(shape, dtype=torch.float64, generator=generator) for _ in range(count)]
    return [
        torch.where(torch.rand(shape, generator=generator) < 0.1, torch.tensor(0.0).clamp(low, high), b) for b in made
    ]


@given(batches(1))
def test_norms_equal_numpys(batch):
    (delta,) = batch
    rows = delta.flatten(1).numpy()
    for name, order in ORDERS.items():
        assert np.allclose(norms(delta, name), np.linalg.norm(rows, ord=order, axis=1), rtol=1e-12)


# --- the projection ---------------------------------------------------------------------------------------------------


@given(batches(2), st.floats(0.001, 1))
def test_the_linf_projection_is_the_nearest_point_of_ball_and_range(batch, eps):
    """Nearest means: from it, no point of the set lies toward the candidate; in a box a corner is the one to ask."""
    x, x_adv = batch[0].abs() / 2, batch[1]
    found = project(x_adv, x, eps, "linf")
    pull = x_adv - found
    low, high = (x - eps).clamp_min(0), (x + eps).clamp_max(1)
    assert ((found >= low - 1e-12) & (found <= high + 1e-12)).all()
    assert (pull * (torch.where(pull > 0, high, low) - found)).sum() <= 1e-12


@given(batches(2, low=0.4, high=0.6), st.floats(0.001, 0.3))
def test_the_l2_projection_is_the_nearest_point_of_the_ball(batch, eps):
    """Within the range the farthest point of the ball toward the candidate is x + eps * pull / |pull|."""
    x, x_adv = batch[0], batch[0] + 5 * (batch[1] - 0.5)
    found = project(x_adv, x, eps, "l2")
    for center, candidate, point in zip(x, x_adv, found, strict=True):
        pull = candidate - point
        assert (point - center).norm() <= eps + 1e-12
        farthest = center + eps * pull / pull.norm().clamp_min(1e-300)
        assert (pull * (farthest - point)).sum() <= 1e-9


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_point_of_the_ball_stays_where_it_is(norm):
    x = torch.full((3, 1, 4, 4), 0.5, dtype=torch.float64)
    inside = x + 0.02 * torch.rand(x.shape, dtype=torch.float64)
    assert torch.allclose(project(inside, x, 0.1, norm), inside, rtol=0, atol=1e-15)


# --- fresh generators -------------------------------------------------------------------------------------------------

CPU = torch.device("cpu")


def twister_words(generator: torch.Generator) -> np.ndarray:
    """The 624 words of a Mersenne Twister's state."""
    return generator.get_state().numpy()[24 : 24 + 8 * 624].view(np.int64)


def seeded_words(first: int) -> np.ndarray:
    """The words that a seed of 32 bits gives (Matsumoto and Nishimura 1998, the initialization of 2002)."""
    words = [int(first)]
    for i in range(1, 624):
        words.append((1812433253 * (words[-1] ^ (words[-1] >> 30)) + i) % 2**32)
    return np.array(words)


def test_a_seed_determines_all_words_by_its_low_32_bits():
    """Why `seed()` is not enough; and that the words are where `fresh_generator` looks for them."""
    generators = [torch.Generator().manual_seed(seed) for seed in (5, 5 + 2**40)]
    for generator in generators:
        assert (twister_words(generator) == seeded_words(5)).all()
    assert torch.equal(*(torch.rand(9, generator=generator) for generator in generators))


def test_no_seed_gives_the_state_of_a_fresh_generator():
    """Of 623 random words one agrees with what the word before gives in a seeded state once in 7e6."""
    words = twister_words(fresh_generator(None, CPU))
    next_words = (1812433253 * (words[:-1] ^ (words[:-1] >> 30)) + np.arange(1, 624)) % 2**32
    assert (words >= 0).all() and (words < 2**32).all() and (words[1:] != next_words).all()
    ones = sum(bin(word).count("1") for word in words)
    assert stats.binomtest(ones, 32 * 624).pvalue > FALSE_ALARM


def test_two_fresh_generators_share_no_word_and_the_global_state_stays():
    before = torch.get_rng_state()
    first, second = (twister_words(fresh_generator(None, CPU)) for _ in range(2))
    assert (first != second).all()  # once in 7e6 two of 624 words agree
    assert torch.equal(torch.get_rng_state(), before)


def test_the_words_are_the_operating_systems(monkeypatch):
    monkeypatch.setattr(os, "urandom", lambda count: bytes([1, 0, 0, 128]) * (count // 4))
    assert (twister_words(fresh_generator(None, CPU)) == 2**31 + 1).all()


def test_a_fresh_generator_draws_as_any_other():
    generator = fresh_generator(None, CPU)
    laws = ((torch.rand, stats.uniform, 1 / 2, 1 / 12), (torch.randn, stats.norm, 0, 1))
    for draw, law, mean, variance in laws:
        draws = draw(100_000, dtype=torch.float64, generator=generator)
        assert kstest(draws.numpy(), law.cdf).pvalue > FALSE_ALARM
        assert abs(draws.mean() - mean) < 5 * math.sqrt(variance / len(draws))  # 5 standard deviations: 6e-7
        lagged = (draws[1:] - mean) * (draws[:-1] - mean)
        assert abs(lagged.mean()) < 5 * variance / math.sqrt(len(lagged))


def test_a_generator_that_is_given_is_taken():
    generator = torch.Generator().manual_seed(3)
    assert fresh_generator(generator, CPU) is generator
    assert torch.equal(generator.get_state(), torch.Generator().manual_seed(3).get_state())


# --- the steepest step ------------------------------------------------------------------------------------------------


@given(batches(1))
def test_the_steepest_step_gains_the_dual_norm(batch):
    """Over all |d| <= 1 the largest d . g is |g|_1 in L-inf and |g|_2 in L2."""
    (g,) = batch
    rows = g.flatten(1).numpy()
    for norm, dual in (("linf", 1), ("l2", 2)):
        d = steepest(g, norm).flatten(1).numpy()
        assert (np.linalg.norm(d, ord=ORDERS[norm], axis=1) <= 1 + 1e-12).all()
        assert np.allclose((d * rows).sum(1), np.linalg.norm(rows, ord=dual, axis=1), rtol=1e-12)


@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1e-12, 1.0, 1e25])
def test_the_length_of_the_gradient_does_not_matter(scale):
    """A confident model's gradients are so small that their squares are zero in float32."""
    g = torch.tensor([[3.0, -4.0]]) * scale
    assert torch.allclose(steepest(g, "l2"), torch.tensor([[0.6, -0.8]]), atol=1e-2 if scale < 1e-38 else 1e-6)
    assert torch.equal(steepest(g, "linf"), torch.tensor([[1.0, -1.0]]))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_no_gradient_no_step(norm):
    assert torch.equal(steepest(torch.zeros(2, 3), norm), torch.zeros(2, 3))


# --- the random start -------------------------------------------------------------------------------------------------


def coordinate_law(points: torch.Tensor, norm: str) -> float:
    """The p-value of one coordinate's law under the uniform distribution on the unit ball.

    L-inf: uniform on [-1, 1]. L2 in d dimensions: (1 + coordinate) / 2 follows Beta((d + 1) / 2, (d + 1) / 2), which
    holds only if both the direction and the radius are right.
    """
    d = points[0].numel()
    law = uniform(-1, 2) if norm == "linf" else beta((d + 1) / 2, (d + 1) / 2, loc=-1, scale=2)
    return kstest(points.flatten(1)[:, 0].double().numpy(), law.cdf).pvalue


def radius_law(points: torch.Tensor) -> float:
    """The p-value of the radii: in d dimensions the radius to the power d is uniform."""
    radii = points.flatten(1).double().norm(dim=1).numpy()
    return kstest(radii ** points[0].numel(), uniform.cdf).pvalue


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 1), (1, 4, 4), (1, 28, 28)])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_random_start_is_uniform_in_the_ball(norm, shape):
    x = torch.full((DRAWS, *shape), 0.5, dtype=torch.float64)
    points = (random_point(x, 0.4, norm, seeded()) - x) / 0.4
    assert coordinate_law(points, norm) > FALSE_ALARM
    if norm == "l2":
        assert radius_law(points) > FALSE_ALARM


@pytest.mark.parametrize("shape", [(2, 1, 1), (1, 4, 4)])
def test_the_laws_tell_wrong_starts_apart(shape):
    cube = 2 * torch.rand(DRAWS, *shape, dtype=torch.float64, generator=seeded()) - 1
    u = torch.rand(DRAWS, 1, 1, 1, dtype=torch.float64, generator=seeded().manual_seed(1))
    normal = torch.randn(DRAWS, *shape, dtype=torch.float64, generator=seeded())
    sphere = normal / normal.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    assert radius_law(sphere * u) < FALSE_ALARM  # uniform radius: too many points near the center
    assert coordinate_law(sphere * u, "l2") < FALSE_ALARM
    assert coordinate_law(cube, "l2") < FALSE_ALARM
    assert coordinate_law(cube.abs(), "linf") < FALSE_ALARM
    assert coordinate_law(0.9 * cube, "linf") < FALSE_ALARM


# --- gradients and success --------------------------------------------------------------------------------------------


def test_the_input_gradient_of_softmax_regression_is_known():
    """With probabilities p it is W^T (p - onehot(y)), by the scale of the normalization, whatever the batch."""
    model = softmax_regression((1, 3, 3), 4, generator=seeded()).double()
    x = torch.rand(5, 1, 3, 3, dtype=torch.float64, generator=seeded())
    y = torch.tensor([0, 1, 2, 3, 0])
    normalize, _, linear = model
    p = torch.softmax(model(x).detach(), 1)
    expected = (p - torch.eye(4, dtype=torch.float64)[y]) @ linear.weight.detach() / normalize.std
    assert torch.allclose(input_gradient(model, x, y).flatten(1), expected, rtol=1e-12)


def test_fooled_reads_the_largest_logit():
    x, y = torch.tensor([[0.0, 0.9], [0.9, 0.0]]).view(2, 2, 1, 1), torch.tensor([0, 0])
    assert fooled(nn.Flatten(), x, y).tolist() == [True, False]
    assert fooled(nn.Flatten(), x, y, targeted=True).tolist() == [False, True]
    assert fooled(nn.Flatten(), x[:0], y[:0]).tolist() == []


# --- bad input --------------------------------------------------------------------------------------------------------

X = torch.full((2, 1, 3, 3), 0.5)
Y = torch.tensor([0, 1])
MODEL = softmax_regression((1, 3, 3), 2, generator=torch.Generator().manual_seed(0))
VALID = {
    norms: {"delta": X, "norm": "l2"},
    project: {"x_adv": X, "x": X, "eps": 0.1, "norm": "linf"},
    steepest: {"gradient": X, "norm": "l2"},
    random_point: {"x": X, "eps": 0.1, "norm": "l2"},
    input_gradient: {"model": MODEL, "x": X, "y": Y},
    fooled: {"model": MODEL, "x_adv": X, "y": Y},
}
WRONG = {
    norms: {
        "delta": [(None, "delta is None", "(N, C, H, W)"), (Y, "delta is an int64 tensor", "floating point")],
        "norm": [("l7", "norm is 'l7'", "'linf', 'l2', 'l1', 'l0'"), (2, "norm is 2", "'l2'")],
    },
    project: {
        "x_adv": [
            (X[:1], "x_adv is a float32 tensor of shape (1, 1, 3, 3)", "like x"),
            (X.double(), "x_adv", "float64"),
        ],
        "x": [(None, "x is None", "(N, C, H, W)"), (X.int(), "x is an int32 tensor", "floating point")],
        "eps": [(-1, "eps is -1", "from 0 to 1"), (math.nan, "eps is nan", "finite"), (8, "eps is 8", "8/255")],
        "norm": [("l1", "norm is 'l1'", "'linf', 'l2'")],
    },
    steepest: {
        "gradient": [(None, "gradient is None", "floating point"), (X[0, 0, 0], "shape (3,)", "(N, C, H, W)")],
        "norm": [("l1", "norm is 'l1'", "'linf', 'l2'"), (None, "norm is None", "'linf'")],
    },
    random_point: {
        "x": [(None, "x is None", "(N, C, H, W)"), (X + 1, "x has values from 1.5", "[0, 1]")],
        "eps": [(-0.1, "eps is -0.1", "pixel units"), (4, "eps is 4", "from 0 to 3")],
        "norm": [("l0", "norm is 'l0'", "'linf', 'l2'")],
        "generator": [(3, "generator is 3", "torch.Generator")],
    },
    input_gradient: {
        "model": [
            (nn.Sequential(MODEL, nn.Softmax(1)), "probabilities", "logits"),
            (lambda x: MODEL(x.detach()), "without a gradient", "differentiable"),
            (lambda x: MODEL(x + (x * 0).sqrt()), "NaN", "finite gradients"),
        ],
        "x": [
            (X.int(), "x is an int32 tensor", "floating point"),
            (X[:, :, 1:], "fails on x of shape (2, 1, 2, 3)"),
        ],
        "y": [(Y[:1], "y is an int64 tensor of shape (1,)", "(2,)"), (Y + 1, "y has a label 2", "0 to 1")],
    },
    fooled: {
        "model": [(nn.Flatten(2), "model returns a float32 tensor of shape (2, 1, 9)", "(2, K)")],
        "x_adv": [(None, "x_adv is None", "floating point")],
        "y": [(Y.float(), "y is a float32 tensor", "int64"), (-Y, "y has a label -1", "classes from 0")],
        "targeted": [(1, "targeted is 1", "True or False")],
    },
}


@pytest.mark.parametrize("function", WRONG, ids=lambda function: function.__name__)
def test_bad_input_is_refused_with_a_sentence_that_helps(function, refuses):
    assert set(WRONG[function]) == set(inspect.signature(function).parameters)
    for name, rows in WRONG[function].items():
        for value, *words in rows:
            refuses(function, {**VALID[function], name: value}, *words)

"""Objective perturbation against scikit-learn, and its density, privacy loss and residual against closed forms."""

import importlib
import math
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from sklearn.linear_model import LogisticRegression

from spai_lab.privacy.guarantee import Guarantee
from spai_lab.privacy.objective_perturbation import (
    LinearOnBall,
    minimized,
    noise_budget,
    normal_source,
    objective_perturbation,
    one_vs_rest,
    pooling,
    radial_noise,
    random_projection,
    released_log_density,
    unit_ball,
)
from spai_lab.threat import input_gradient
from spai_lab.training import accuracy

module = importlib.import_module(
    "spai_lab.privacy.objective_perturbation"
)  # the package has the function under this name
FALSE_ALARM = 1e-6


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def records(n: int, d: int, seed: int = 0):
    x = unit_ball(torch.randn(n, d, generator=seeded(seed), dtype=torch.float64), radius=2.0)
    return x, (x[:, 0] + 0.3 * torch.randn(n, generator=seeded(seed + 1), dtype=torch.float64) > 0).long()


# --- without noise ----------------------------------------------------------------------------------------------------


@pytest.mark.oracle
@pytest.mark.parametrize(("n", "d", "Lambda"), [(60, 5, 0.01), (20, 30, 0.1)])
def test_with_a_huge_budget_it_is_logistic_regression(n, d, Lambda):
    """b is about 2 d / epsilon long and moves the minimum by at most ||b|| / (n Lambda), here below 1e-7."""
    x, y = records(n, d)
    found = objective_perturbation(x, y, epsilon=1e9, regularization=Lambda, generator=seeded()).weights
    peer = LogisticRegression(C=1 / (n * Lambda), fit_intercept=False, solver="newton-cholesky", tol=1e-12).fit(x, y)
    assert np.allclose(found.numpy(), peer.coef_[0], atol=1e-6)


# --- the noise --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 30])
def test_length_and_direction_of_the_noise(d):
    """Gamma(d, s) by Kolmogorov-Smirnov; of a uniform direction (u_1 + 1) / 2 is Beta((d - 1) / 2, (d - 1) / 2)."""
    normals, s = normal_source(False, seeded()), 0.7
    b = torch.stack([radial_noise(d, s, normals) for _ in range(4000)])
    lengths, first = b.norm(dim=1).numpy(), F.normalize(b)[:, 0].numpy()
    assert stats.kstest(lengths, stats.gamma(d, scale=s).cdf).pvalue > FALSE_ALARM
    assert stats.kstest(lengths, stats.gamma(d, scale=s / 1.3).cdf).pvalue < FALSE_ALARM
    assert stats.kstest(lengths, stats.gamma(d + 1, scale=s * d / (d + 1)).cdf).pvalue < FALSE_ALARM or d == 30
    if d == 1:
        assert stats.binomtest(int((first > 0).sum()), len(first)).pvalue > FALSE_ALARM
    else:
        assert stats.kstest((first + 1) / 2, stats.beta((d - 1) / 2, (d - 1) / 2).cdf).pvalue > FALSE_ALARM


def released(epsilon: float, Lambda: float, count: int):
    """Weights released of three records on a line, and their distribution function by quadrature."""
    x, y = torch.tensor([[1.0], [-0.6], [0.3]]).double(), torch.tensor([1, 1, 0])
    learn = partial(objective_perturbation, x, y, regularization=Lambda, generator=seeded())
    found = np.array([learn(epsilon=epsilon).weights.item() for _ in range(count)])
    w = torch.linspace(-1000, 1000, 400_001, dtype=torch.float64)[:, None]
    p = released_log_density(w, x, y, epsilon=0.99 * epsilon, regularization=Lambda).exp()
    cdf = torch.cumulative_trapezoid(p, w[:, 0]).numpy()
    return found, (lambda values: np.interp(values, w[1:, 0].numpy(), cdf)), cdf[-1]


@pytest.mark.parametrize(("epsilon", "Lambda"), [(2.0, 0.5), (0.5, 0.05)], ids=["a budget left", "more regularization"])
def test_what_is_released_has_the_density_of_the_proof(monkeypatch, epsilon, Lambda):
    """The change of variables, which knows nothing of the solver; a planted fault, a quarter of the noise, is seen."""
    found, cdf, total = released(epsilon, Lambda, 300)
    assert abs(total - 1) < 1e-4
    assert stats.kstest(found, cdf).pvalue > FALSE_ALARM
    monkeypatch.setattr(module, "radial_noise", lambda d, scale, normals: radial_noise(d, scale / 4, normals))
    assert stats.kstest(released(epsilon, Lambda, 300)[0], cdf).pvalue < FALSE_ALARM


# --- privacy loss -----------------------------------------------------------------------------------------------------


def worst_loss(epsilon: float, Lambda: float) -> float:
    """The largest log ratio of the density over neighbors and weights, searched where the proof is tight."""
    w = torch.cat([torch.linspace(-60, 60, 2401), torch.linspace(-5, 5, 2001)]).double()
    w = torch.stack([torch.zeros_like(w), w], 1)  # records almost orthogonal to the weights, far on the wrong side
    tilts = torch.tensor([0.0, 0.05, 0.2, 0.6, 1.2, math.pi / 2, -0.2, -1.2, -math.pi / 2]).double()
    candidates = [torch.stack([side * a.cos(), a.sin()]) for side in (1, -1) for a in tilts]
    candidates.append(torch.zeros(2, dtype=torch.float64))
    others, labels = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([1, 1])
    logs = torch.stack(
        [
            released_log_density(w, torch.cat([others, v[None]]), labels, epsilon=epsilon, regularization=Lambda)
            for v in candidates
        ]
    )
    return (logs.amax(0) - logs.amin(0)).max().item()


CASES = {"curved": (3.0, 0.1), "flat": (1.0, 20.0), "no budget left": (0.5, 0.1)}


@pytest.mark.parametrize(("epsilon", "Lambda"), CASES.values(), ids=CASES)
def test_no_neighbors_differ_by_more_than_epsilon(epsilon, Lambda):
    assert 0.4 * epsilon < worst_loss(epsilon, Lambda) <= epsilon


def crowded_loss(epsilon: float) -> float:
    """The largest log ratio where a crowd of records lets b be short though the weights are long.

    Then b and b' are parallel to the difference of the two records' slopes, which is almost 2 long.
    """
    strength, K, r = 2.0, 20.0, 0.1  # n (Lambda + Delta); how long the weights are; how long the crowd's records are
    crowd = int(strength * K * (1 + math.exp(r * K)) / r)
    others, y = torch.tensor([[0.0, -r]]).double().repeat(crowd, 1), torch.ones(crowd + 1, dtype=torch.int64)
    w = torch.cartesian_prod(torch.linspace(-1.0, 0.0, 9), torch.linspace(-1.3 * K, -0.7 * K, 13)).double()
    losses = []
    for tilt in (0.2, 0.25, 0.3, 0.35):
        pair = [torch.tensor([[side * math.cos(tilt), math.sin(tilt)]]).double() for side in (1, -1)]
        density = partial(released_log_density, w, y=y, epsilon=epsilon, regularization=strength / (crowd + 1))
        losses.append((density(torch.cat([others, pair[0]])) - density(torch.cat([others, pair[1]]))).abs().max())
    return max(losses).item()


def test_the_noise_of_the_slope_is_no_larger_than_it_must_be(monkeypatch):
    """Its bound, 2 for two slopes, is nearly reached; noise of half the size breaks the promise."""
    assert 9.0 < crowded_loss(10.0) <= 10.0
    monkeypatch.setattr(module, "noise_budget", lambda n, **budget: (2 * noise_budget(n, **budget)[0], 0.0))
    assert crowded_loss(10.0) > 18.0


FAULTS = {
    "no correction": ((1.0, 0.05), lambda n, epsilon, regularization: (epsilon, 0.0)),
    "no more regularization": ((0.5, 0.02), lambda n, epsilon, regularization: (epsilon / 2, 0.0)),
}


@pytest.mark.parametrize(("case", "fault"), FAULTS.values(), ids=FAULTS)
def test_a_planted_fault_breaks_the_promise(monkeypatch, case, fault):
    monkeypatch.setattr(module, "noise_budget", fault)
    assert worst_loss(*case) > 1.1 * case[0]


@pytest.mark.parametrize("epsilon", [0.01, 0.3, 5.0])
def test_the_budget_is_spent_exactly(epsilon):
    """epsilon' and the logarithm of the determinant's factor add up to epsilon, in both branches."""
    n, Lambda, c = 50, 0.02, 0.25
    epsilon_prime, Delta = noise_budget(n, epsilon=epsilon, regularization=Lambda)
    assert epsilon_prime + 2 * math.log(1 + c / (n * (Lambda + Delta))) == pytest.approx(epsilon)
    assert (Delta > 0) == (epsilon < 2 * math.log(1 + c / (n * Lambda))) and epsilon_prime > 0


# --- the solver -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0.0, 1.0, 1e4])
def test_the_residual_bounds_the_slope_in_longer_numbers(size):
    x, y = records(200, 20)
    s = (2 * y - 1).double()
    b = size * torch.randn(20, generator=seeded(), dtype=torch.float64)
    w, residual = minimized(x, s, b, 0.01)
    X, S, B, W = (value.numpy().astype(np.longdouble) for value in (x, s, b, w))
    exact = (B - (S * (1 - np.tanh(S * (X @ W) / 2)) / 2) @ X) / len(X) + np.longdouble(0.01) * W
    assert np.sqrt((exact**2).sum()) <= residual < 1e-9


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_strong_convexity_bounds_the_distance_of_an_early_stop(monkeypatch, steps):
    x, y = records(200, 20)
    s, b = (2 * y - 1).double(), torch.ones(20, dtype=torch.float64)
    best, _ = minimized(x, s, b, 0.01)
    monkeypatch.setattr(module, "NEWTON_STEPS", steps)
    w, residual = minimized(x, s, b, 0.01)
    assert 1e-12 < (w - best).norm() <= residual / 0.01


def test_the_second_noise_hides_the_tolerance():
    """z is Gamma(d, 2 rho / epsilon_2) long, rho = tolerance / strength; b is drawn again from the same seed."""
    (x, y), d, tolerance, epsilon = records(30, 3), 3, 0.05, 2.0
    s, lengths = (2 * y - 1).double(), []
    for seed in range(150):
        settings = {"epsilon": epsilon, "regularization": 0.1, "tolerance": tolerance, "solver_share": 0.25}
        found = objective_perturbation(x, y, generator=seeded(seed), **settings)
        epsilon_prime, _ = noise_budget(30, epsilon=0.75 * epsilon, regularization=0.1)
        b = radial_noise(d, 2 / epsilon_prime, normal_source(False, seeded(seed)))
        lengths.append((found.weights - minimized(x, s, b, 0.1)[0]).norm().item())
    scale = 2 * (tolerance / 0.1) / (0.25 * epsilon)
    assert stats.kstest(lengths, stats.gamma(d, scale=scale).cdf).pvalue > FALSE_ALARM
    assert stats.kstest(lengths, stats.gamma(d, scale=scale / 2).cdf).pvalue < FALSE_ALARM


def test_refuses_a_solution_that_is_not_good_enough(monkeypatch, refuses):
    x, y = records(50, 5)
    good = {"x": x, "y": y, "epsilon": 1.0, "regularization": 0.01}
    refuses(objective_perturbation, good | {"tolerance": 1e-17}, "tolerance is 1e-17", "residual")
    monkeypatch.setattr(module, "NEWTON_STEPS", 1)
    refuses(objective_perturbation, good, "tolerance is 1e-09", "residual")


# --- images -----------------------------------------------------------------------------------------------------------


def test_each_row_is_mapped_by_itself_into_the_ball(digits):
    x = digits.x_train[:50]
    P = pooling(digits.shape, 4) @ random_projection(49, 10, generator=seeded())
    together = unit_ball(x, projection=P)
    assert together.shape == (50, 10) and (together.norm(dim=1) <= 1 + 1e-12).all()
    assert torch.allclose(together, torch.cat([unit_ball(each[None], projection=P) for each in x]))
    assert torch.allclose(unit_ball(x, radius=100.0), x.flatten(1).double() / 100)
    pooled = F.avg_pool2d(x.double(), 4).flatten(1)
    assert torch.allclose(x.flatten(1).double() @ pooling(digits.shape, 4), pooled)


def test_one_against_seven_on_digits(digits):
    data = digits.only(1, 7)
    P = pooling(data.shape, 4)
    x = unit_ball(data.x_train, projection=P)
    found = {}
    for epsilon in (1e5, 30.0, 0.01):
        learn = partial(objective_perturbation, x, data.y_train, epsilon=epsilon, regularization=0.01)
        runs = [LinearOnBall(learn(generator=seeded(i)).weights, projection=P) for i in range(5)]
        found[epsilon] = np.mean([accuracy(model, data.x_test, data.y_test) for model in runs])
    assert found[1e5] > 0.97 and found[30.0] > 0.9 and found[0.01] < 0.8


def test_ten_classes_share_the_budget(digits):
    P = pooling(digits.shape, 4)
    learn = partial(objective_perturbation, regularization=1e-3, generator=seeded())
    x = unit_ball(digits.x_train, projection=P)
    weights, guarantee = one_vs_rest(learn, x, digits.y_train, classes=10, epsilon=1e5)
    assert guarantee.epsilon == pytest.approx(1e5) and guarantee.adjacency == "replace" and len(guarantee.covers) == 10
    model = LinearOnBall(weights, projection=P)
    assert accuracy(model, digits.x_test, digits.y_test) > 0.85
    assert input_gradient(model, digits.x_test[:2], digits.y_test[:2]).abs().max() > 0


def test_each_learner_gets_its_share_and_its_class():
    seen = []

    def learn(x, y, *, epsilon):
        seen.append((y.tolist(), epsilon))
        return SimpleNamespace(weights=torch.zeros(2), guarantee=Guarantee(epsilon, 0.0, "replace", ("w",)))

    one_vs_rest(learn, torch.zeros(3, 2), torch.tensor([0, 2, 1]), classes=3, epsilon=0.6)
    assert [labels for labels, _ in seen] == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
    assert [share for _, share in seen] == pytest.approx([0.2] * 3)


# --- state and bad input ----------------------------------------------------------------------------------------------


def test_nothing_else_changes_and_noise_is_fresh_without_a_seed():
    (x, y), state = records(30, 3), torch.get_rng_state()
    x = x.float()
    before = x.clone()
    learn = partial(objective_perturbation, x, y, epsilon=1.0, regularization=0.1)
    assert torch.equal(learn(generator=seeded()).weights, learn(generator=seeded()).weights)
    assert not torch.equal(learn().weights, learn().weights)
    assert not torch.equal(learn(secure=True).weights, learn(secure=True).weights)
    assert [run.seeded for run in (learn(generator=seeded()), learn(), learn(secure=True))] == [True, False, False]
    labeled = str(learn(generator=seeded()))
    assert "demonstration, not private" in labeled and str(learn().guarantee) in labeled
    assert "demonstration" not in str(learn())
    assert torch.equal(x, before) and torch.equal(state, torch.get_rng_state())


X, Y = torch.tensor([[0.5, 0.5], [-0.5, 0.1]]), torch.tensor([0, 1])
GOOD = {"x": X, "y": Y, "epsilon": 1.0, "regularization": 0.1}
REFUSED = {
    "rows too long": ({"x": 2 * X + 1}, "x has a row of norm"),
    "images": ({"x": torch.zeros(2, 1, 2, 2)}, "x is"),
    "no rows": ({"x": X[:0], "y": Y[:0]}, "x is"),
    "NaN": ({"x": X * math.nan}, "x has a row of norm nan"),
    "labels of -1": ({"y": 2 * Y - 1}, "y has a label -1"),
    "three classes": ({"y": torch.tensor([0, 2])}, "y has a label 2", "one_vs_rest"),
    "labels missing": ({"y": Y[:1]}, "y is"),
    "no budget": ({"epsilon": 0.0}, "epsilon is 0.0"),
    "endless budget": ({"epsilon": math.inf}, "epsilon is inf"),
    "no regularization": ({"regularization": 0}, "regularization is 0"),
    "no tolerance": ({"tolerance": 0.0}, "tolerance is 0.0"),
    "nothing for the solver": ({"solver_share": 0.0}, "solver_share is 0.0"),
    "all for the solver": ({"solver_share": 1}, "solver_share is 1"),
    "secure and seeded": ({"secure": True, "generator": seeded()}, "generator is", "secure"),
    "no flag": ({"secure": 1}, "secure is 1"),
    "no generator": ({"generator": 0}, "generator is 0"),
}


@pytest.mark.parametrize(("change", "words"), [(c, w) for c, *w in REFUSED.values()], ids=REFUSED)
def test_refuses(refuses, change, words):
    refuses(objective_perturbation, GOOD | change, *words)


OTHERS = {
    "ball of radius 0": (unit_ball, {"x": X, "radius": 0}, "radius is 0"),
    "projection of another width": (unit_ball, {"x": X, "projection": torch.zeros(3, 1)}, "projection is"),
    "projection that is no matrix": (unit_ball, {"x": X, "projection": torch.zeros(2)}, "projection is"),
    "infinite input": (unit_ball, {"x": X / 0}, "x contains"),
    "projection to nothing": (random_projection, {"inputs": 2, "outputs": 0}, "outputs is 0"),
    "pooling too much": (pooling, {"shape": (1, 2, 2), "size": 3}, "size is 3"),
    "no learner": (one_vs_rest, {"learn": 1, "x": X, "y": Y, "classes": 2, "epsilon": 1.0}, "learn is 1"),
    "one class": (one_vs_rest, {"learn": print, "x": X, "y": Y, "classes": 1, "epsilon": 1.0}, "classes is 1"),
    "class unknown": (one_vs_rest, {"learn": print, "x": X, "y": 2 * Y, "classes": 2, "epsilon": 1.0}, "label 2"),
    "weights of one class": (LinearOnBall, {"weights": torch.zeros(1, 2)}, "weights is"),
    "no records": (noise_budget, {"n": 0, "epsilon": 1.0, "regularization": 1.0}, "n is 0"),
    "weights of another width": (released_log_density, GOOD | {"w": torch.zeros(1, 3)}, "w is"),
}


@pytest.mark.parametrize(("function", "arguments", "words"), OTHERS.values(), ids=OTHERS)
def test_the_rest_refuses(refuses, function, arguments, words):
    refuses(function, arguments, words)

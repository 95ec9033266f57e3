"""The functional mechanism against autograd, ridge regression and linear solvers; its sensitivity against a search."""

import importlib
import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from sklearn.linear_model import Ridge

from spai_lab.privacy.functional_mechanism import (
    functional_mechanism,
    minimum,
    secure_laplace,
    sensitivity,
    taylor_coefficients,
)
from spai_lab.privacy.objective_perturbation import LinearOnBall, one_vs_rest, pooling, random_projection, unit_ball
from spai_lab.training import accuracy

module = importlib.import_module(
    "spai_lab.privacy.functional_mechanism"
)  # the package has the function under this name
FALSE_ALARM = 1e-6


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def records(n: int, d: int, seed: int = 0):
    x = unit_ball(torch.randn(n, d, generator=seeded(seed), dtype=torch.float64), radius=2.0)
    return x, (x[:, 0] + 0.3 * torch.randn(n, generator=seeded(seed + 1), dtype=torch.float64) > 0).long()


# --- the polynomial ---------------------------------------------------------------------------------------------------


def test_the_coefficients_are_slope_and_half_curvature_at_zero():
    x, y = records(40, 6)
    loss = lambda omega: F.binary_cross_entropy_with_logits(x @ omega, y.double(), reduction="sum")  # noqa: E731
    zero = torch.zeros(6, dtype=torch.float64)
    alpha, M = taylor_coefficients(x, y)
    assert torch.allclose(alpha, torch.func.grad(loss)(zero))
    assert torch.allclose(M, torch.func.hessian(loss)(zero) / 2)


@pytest.mark.parametrize("strength", [0.0, 0.7])
def test_without_noise_it_is_the_solution_of_the_linear_equations(strength):
    x, y = records(200, 8)
    alpha, M = taylor_coefficients(x, y)
    exact = np.linalg.solve(2 * (M + strength * torch.eye(8)).numpy(), -alpha.numpy())
    found = functional_mechanism(x, y, epsilon=1e12, regularization=strength)
    assert np.allclose(found.weights.numpy(), exact, atol=1e-6) and found.kept == 8


@pytest.mark.oracle
def test_it_is_least_squares_with_targets_of_plus_and_minus_two():
    """1/8 (m - t)^2 with t = 2 or -2 has the same coefficients but the constant; 1/8 alpha is our lambda."""
    x, y = records(200, 8)
    peer = Ridge(alpha=8 * 0.7, fit_intercept=False, solver="cholesky").fit(x, 4 * y.numpy() - 2)
    found = functional_mechanism(x, y, epsilon=1e12, regularization=0.7)
    assert np.allclose(found.weights.numpy(), peer.coef_, atol=1e-6)


# --- sensitivity ------------------------------------------------------------------------------------------------------


def moved(x, y):
    """The L1 distance of the coefficients of two records, (2, d) and labels 0 or 1 of them, by monomials."""
    (alpha, M), (alpha_, M_) = (taylor_coefficients(x[i : i + 1], y[i : i + 1]) for i in (0, 1))
    j, l = np.triu_indices(x.shape[1])
    return ((alpha - alpha_).abs().sum() + ((2 - (j == l)) * (M - M_).abs().numpy()[j, l]).sum()).item()


@pytest.mark.parametrize("d", [1, 2, 5, 16])
def test_no_two_records_are_farther_apart(d):
    for seed in range(200):
        x = F.normalize(torch.randn(2, d, generator=seeded(seed), dtype=torch.float64))
        x = x * torch.rand(2, 1, generator=seeded(seed), dtype=torch.float64).sqrt()
        for y in ([0, 0], [0, 1], [1, 1]):
            assert moved(x, torch.tensor(y)) <= sensitivity(d)


@pytest.mark.parametrize("d", [1, 2, 8, 64])
def test_an_adversarial_search_comes_close(d):
    """Climbs the distance of the labels 0 and 1 over both records, from random starts."""
    best = 0.0
    for seed in range(4):
        v = torch.randn(2, d, generator=seeded(seed), dtype=torch.float64, requires_grad=True)
        climber = torch.optim.Adam([v], lr=0.05)
        for _ in range(150):
            a, b = F.normalize(v)
            distance = (a - b).abs().sum() / 2 + (a.outer(a) - b.outer(b)).abs().sum() / 8
            climber.zero_grad()
            (-distance).backward()
            climber.step()
        a, b = F.normalize(v.detach())
        best = max(best, moved(torch.stack([a, -b]), torch.tensor([0, 1])))
    assert 0.8 * sensitivity(d) < best <= sensitivity(d)


def test_the_search_refutes_a_bound_that_is_too_small():
    """Two orthogonal records whose products all have one size, d sqrt(2) / 8 apart in M alone, refute d / 8."""
    d = 16
    angles = torch.tensor([math.pi / 8, 5 * math.pi / 8]).double().repeat(d // 2)
    x = math.sqrt(2 / d) * torch.stack([angles.cos(), angles.sin()])
    M = [taylor_coefficients(each[None], torch.tensor([0]))[1] for each in x]
    assert (M[0] - M[1]).abs().sum().item() == pytest.approx(math.sqrt(2) * d / 8)
    assert torch.allclose(x.norm(dim=1), torch.ones(2).double())


@pytest.mark.parametrize("d", [1, 3, 49, 784])
def test_the_papers_bound_is_that_of_its_formula(d):
    """2 max (d / 2 + d + d^2 / 8), section 5.3; the other bound is smaller for every d."""
    assert sensitivity(d, "paper") == pytest.approx(2 * (d / 2 + d + d**2 / 8))
    assert sensitivity(d, "paper") > sensitivity(d)


# --- the noise --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secure", [False, True])
def test_each_monomial_gets_laplace_noise(secure):
    """Of omega_j omega_l the coefficient is twice the entry of M; without that the noise would look halved there."""
    x, y = records(30, 60 if not secure else 40)
    d, epsilon = x.shape[1], 0.7
    alpha, M = taylor_coefficients(x, y)
    found = functional_mechanism(x, y, epsilon=epsilon, secure=secure, generator=None if secure else seeded())
    j, l = np.triu_indices(d)
    rest = (found.M - M).numpy()[j, l]
    noise = np.concatenate([(found.alpha - alpha).numpy(), np.where(j == l, 1, 2) * rest]) * epsilon / sensitivity(d)
    assert torch.equal(found.M, found.M.T)
    assert stats.kstest(noise, stats.laplace.cdf).pvalue > FALSE_ALARM
    assert stats.kstest(np.concatenate([noise[:d], rest * epsilon / sensitivity(d)]), stats.laplace.cdf).pvalue < 1e-6


def test_secure_noise_lies_on_its_grid():
    noisy = secure_laplace(torch.rand(20, generator=seeded()), sensitivity=3.0, epsilon=0.5)
    cells = noisy / (3.0 / module.CELLS)
    assert torch.allclose(cells, cells.round(), rtol=0, atol=1e-6) and len(noisy.unique()) == 20


def secure_loss(one, other, sensitivity, epsilon, monkeypatch):
    """The privacy loss of `secure_laplace` between two vectors, exactly: steps between them over the noise's scale."""
    scales = []
    monkeypatch.setattr(
        module, "discrete_laplace", lambda scale, size: scales.append(scale) or torch.zeros(size, dtype=torch.int64)
    )
    a, b = (module.secure_laplace(v, sensitivity=sensitivity, epsilon=epsilon) for v in (one, other))
    assert scales[0] == scales[1]
    return ((a - b).abs().sum() / (sensitivity / module.CELLS)).item() / scales[0]


def test_rounding_to_the_grid_is_paid_for(monkeypatch):
    """On a grid of 4 steps: neighbors at a distance of 4 are up to 7 apart once rounded; scale 4 + k pays for that."""
    monkeypatch.setattr(module, "CELLS", 4)
    sensitivity, epsilon, step = 2.0, 0.7, 0.5
    one = torch.tensor([0.499, 3.499, -1.501, 2.0]).double() * step
    other = torch.tensor([1.501, 4.501, -0.499, 2.994]).double() * step
    assert (one - other).abs().sum() <= sensitivity
    loss = secure_loss(one, other, sensitivity, epsilon, monkeypatch)
    assert loss == pytest.approx(7 / 8 * epsilon)  # without the k it would be 7 / 4 of epsilon
    for seed in range(300):
        v, w = torch.randn(2, 4, generator=seeded(seed), dtype=torch.float64)
        far = v + w * sensitivity / w.abs().sum()
        assert secure_loss(v, far, sensitivity, epsilon, monkeypatch) <= epsilon


def test_regularization_is_four_standard_deviations():
    x, y = records(30, 5)
    found = functional_mechanism(x, y, epsilon=0.5)
    assert found.regularization == pytest.approx(4 * stats.laplace(scale=sensitivity(5) / 0.5).std())


# --- repair -----------------------------------------------------------------------------------------------------------


def test_an_unbounded_polynomial_is_minimized_where_it_has_a_minimum():
    Q = torch.linalg.qr(torch.randn(5, 5, generator=seeded(), dtype=torch.float64))[0]
    M = Q @ torch.diag(torch.tensor([3.0, 1.0, 0.5, -0.2, -4.0]).double()) @ Q.T
    alpha = torch.randn(5, generator=seeded(1), dtype=torch.float64)
    omega, kept = minimum(alpha, M)
    slope = 2 * M @ omega + alpha
    assert kept == 3
    assert torch.allclose(Q[:, :3].T @ slope, torch.zeros(3).double(), atol=1e-12)
    assert torch.allclose(Q[:, 3:].T @ omega, torch.zeros(2).double(), atol=1e-12)


def test_of_a_polynomial_that_curves_down_everywhere_nothing_is_left():
    omega, kept = minimum(torch.ones(3), -torch.eye(3))
    assert kept == 0 and torch.equal(omega, torch.zeros(3))


def test_noise_makes_it_unbounded_and_the_weights_stay_finite():
    x, y = records(30, 10)
    found = functional_mechanism(x, y, epsilon=0.1, regularization=0.0, generator=seeded())
    assert 0 < found.kept < 10 and found.weights.isfinite().all()
    assert torch.linalg.eigvalsh(found.M).min() < 0


# --- digits -----------------------------------------------------------------------------------------------------------


def test_one_against_seven_on_digits(digits):
    """217 images bear the noise of 8 dimensions at epsilon 10, and that of the paper's bound not as well."""
    data = digits.only(1, 7)
    P = pooling(data.shape, 7) @ random_projection(16, 8, generator=seeded())
    x = unit_ball(data.x_train, projection=P)

    def mean(epsilon, bound):
        learn = partial(functional_mechanism, x, data.y_train, epsilon=epsilon, bound=bound)
        runs = [LinearOnBall(learn(generator=seeded(i)).weights, projection=P) for i in range(20)]
        return np.mean([accuracy(model, data.x_test, data.y_test) for model in runs])

    assert mean(1e6, "l2") > 0.9 and mean(10.0, "l2") > mean(10.0, "paper") + 0.05


def test_ten_classes(digits):
    P = pooling(digits.shape, 4)
    x = unit_ball(digits.x_train, projection=P)
    weights, guarantee = one_vs_rest(
        partial(functional_mechanism, regularization=0.1), x, digits.y_train, classes=10, epsilon=1e7
    )
    assert accuracy(LinearOnBall(weights, projection=P), digits.x_test, digits.y_test) > 0.8
    assert guarantee.epsilon == pytest.approx(1e7) and guarantee.delta_dp == 0


# --- state and bad input ----------------------------------------------------------------------------------------------


def test_nothing_else_changes_and_noise_is_fresh_without_a_seed():
    (x, y), state = records(30, 3), torch.get_rng_state()
    before = x.clone()
    learn = partial(functional_mechanism, x, y, epsilon=1.0)
    assert torch.equal(learn(generator=seeded()).weights, learn(generator=seeded()).weights)
    assert not torch.equal(learn().weights, learn().weights)
    assert [run.seeded for run in (learn(generator=seeded()), learn(), learn(secure=True))] == [True, False, False]
    labeled = str(learn(generator=seeded()))
    assert "demonstration, not private" in labeled and str(learn().guarantee) in labeled
    assert "demonstration" not in str(learn())
    assert torch.equal(x, before) and torch.equal(state, torch.get_rng_state())


X, Y = torch.tensor([[0.5, 0.5], [-0.5, 0.1]]), torch.tensor([0, 1])
GOOD = {"x": X, "y": Y, "epsilon": 1.0}
REFUSED = {
    "rows too long": ({"x": 2 * X + 1}, "x has a row of norm"),
    "no rows": ({"x": X[:0], "y": Y[:0]}, "x is"),
    "labels of -1": ({"y": 2 * Y - 1}, "y has a label -1"),
    "three classes": ({"y": torch.tensor([0, 2])}, "y has a label 2"),
    "no budget": ({"epsilon": 0.0}, "epsilon is 0.0"),
    "another bound": ({"bound": "l1"}, "bound is 'l1'"),
    "negative regularization": ({"regularization": -1.0}, "regularization is -1.0"),
    "secure and seeded": ({"secure": True, "generator": seeded()}, "generator is"),
    "no flag": ({"secure": "yes"}, "secure is 'yes'"),
    "no generator": ({"generator": 3}, "generator is 3"),
}


@pytest.mark.parametrize(("change", "words"), REFUSED.values(), ids=REFUSED)
def test_refuses(refuses, change, words):
    refuses(functional_mechanism, GOOD | change, words)


def test_sensitivity_refuses(refuses):
    refuses(sensitivity, {"d": 0}, "d is 0")
    refuses(sensitivity, {"d": 3, "bound": "zhang"}, "bound is 'zhang'")

"""Fits against closed forms and NumPy's, what they do outside their interval, and the penalty that keeps them in."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from spai_lab.crypto.polynomials import (
    GRID,
    SQUARE,
    PolynomialActivation,
    bounded,
    chebyshev,
    error_outside,
    evaluate,
    largest_error,
    least_squares,
    products_in_sequence,
    relu,
    with_activations,
)

T = np.linspace(-1, 1, 2001)
LEGENDRE = {2: [1 / 2, 0, 5 / 8], 4: [1 / 2, 0, 5 / 8, 0, -3 / 16]}  # of |t|


@pytest.mark.parametrize("degree", [2, 4])
@pytest.mark.parametrize("a", [1.0, 4.0])
def test_least_squares_has_the_closed_form(degree, a):
    true = a * (T + np.polynomial.legendre.legval(T, LEGENDRE[degree])) / 2
    fit = evaluate(least_squares(degree, a), a * T)
    # the ends count half as much again on a grid; that moves p by at most h K(1, 1) |r|, with K(1, 1) = (d + 1)^2 / 2
    residual = np.abs(true - relu(a * T)).max()
    assert np.abs(fit - true).max() < 2 / (GRID - 1) * (degree + 1) ** 2 / 2 * residual * 1.01
    assert not np.abs(fit - 1.001 * true).max() < 2 / (GRID - 1) * (degree + 1) ** 2 / 2 * residual * 1.01


@pytest.mark.parametrize("function", [relu, np.tanh, np.exp])
@pytest.mark.parametrize("degree", [1, 2, 3, 4, 7])
def test_least_squares_is_numpys(degree, function):
    z = 3 * np.linspace(-1, 1, GRID)
    other = np.polynomial.Polynomial.fit(z, function(z), degree).convert().coef
    assert np.allclose(least_squares(degree, 3.0, function), np.pad(other, (0, degree + 1 - len(other))), atol=1e-9)


@pytest.mark.parametrize("degree", [2, 3, 4, 6])
@pytest.mark.parametrize("a", [1.0, 4.0])
def test_chebyshev_is_the_series_of_relu(degree, a):
    b = np.zeros(degree + 1)
    b[0], b[1] = 1 / math.pi, 1 / 2
    for k in range(1, degree // 2 + 1):
        b[2 * k] = 2 / math.pi * (-1) ** (k + 1) / (4 * k**2 - 1)
    # a mean over M angles also counts b_{2 M j - k} and b_{2 M j + k}, which sum up to less than 1 / M^2
    error = np.abs(evaluate(chebyshev(degree, a), a * T) - a * np.polynomial.chebyshev.chebval(T, b)).max()
    assert error < a * (degree + 1) / GRID**2


@pytest.mark.parametrize("fit", [least_squares, chebyshev])
def test_errors_fall_inside_and_explode_outside(fit):
    a = 4.0
    two, three, four = (fit(degree, a) for degree in (2, 3, 4))
    assert np.allclose(
        two, three[:3], atol=1e-9
    )  # ReLU less z / 2 is even: degree 3 costs a product and brings nothing
    assert abs(three[3]) < 1e-9
    assert largest_error(four, a) < 0.7 * largest_error(two, a)
    assert largest_error(two, a) > a / 16  # what the best polynomial of degree 2 leaves
    for c, degree in ((two, 2), (four, 4)):
        assert error_outside(c, a, 1) <= largest_error(c, a)
        assert error_outside(c, a, 2) > 5 * largest_error(c, a)
        far = [error_outside(c, a, r) for r in (1000, 2000)]
        assert far[1] / far[0] == pytest.approx(2**degree, rel=0.01)
    assert error_outside(four, a, 4) > 10 * error_outside(two, a, 4)


def test_the_best_polynomial_of_degree_2_is_known_and_measured():
    best = (1 / 16, 1 / 2, 1 / 2)  # t^2 + 1/8 for |t|
    assert largest_error(best, 1.0) == pytest.approx(1 / 16, abs=1e-9)
    assert largest_error(least_squares(2, 1.0), 1.0) == pytest.approx(3 / 32, rel=1e-3)
    assert largest_error(chebyshev(2, 1.0), 1.0) == pytest.approx(1 / (3 * math.pi), rel=1e-6)


def test_depth_is_the_logarithm_of_the_degree():
    for degree in range(1, 17):
        assert products_in_sequence(degree) == math.ceil(math.log2(degree))


def test_the_activation_is_the_polynomial_and_can_be_trained_through():
    z = torch.linspace(-3, 3, 13, dtype=torch.float64, requires_grad=True)
    c = (0.5, -1.0, 0.25, 2.0)
    PolynomialActivation(c)(z).sum().backward()
    assert torch.equal(PolynomialActivation()(z), z * z)
    assert np.allclose(PolynomialActivation(c)(z).detach(), np.polynomial.polynomial.polyval(z.detach().numpy(), c))
    assert np.allclose(z.grad, -1 + 0.5 * z.detach() + 6 * z.detach() ** 2)
    assert not list(PolynomialActivation().parameters())
    assert "interval=2" in repr(PolynomialActivation(SQUARE, 2.0))


def test_the_penalty_is_what_sticks_out_squared():
    model = nn.Sequential(nn.Flatten(), PolynomialActivation(interval=2.0), nn.Linear(4, 3))
    x, y = torch.tensor([[[[0.0, 1.0], [-2.0, 2.0]]]]), torch.tensor([1])
    loss = F.cross_entropy(model(x), y)
    assert bounded()(model, x, y, 0.0) == loss
    x = 2 * x  # 0, 2, -4, 4: two of four stick out by 2
    loss = F.cross_entropy(model(x), y)
    assert torch.isclose(bounded(3.0)(model, x, y, 0.0), loss + 3 * 2)
    logits, read = with_activations(model, x)
    assert torch.equal(logits, model(x))
    assert torch.equal(read[0], x.flatten(1))
    assert not model[1]._forward_pre_hooks


def test_bad_arguments_are_named(refuses):
    refuses(least_squares, {"degree": 0, "a": 1.0}, "degree is 0", "at least 1")
    refuses(chebyshev, {"degree": 17, "a": 1.0}, "degree is 17", "from 1 to 16")
    refuses(least_squares, {"degree": 2, "a": -1.0}, "a is -1.0", "above 0")
    refuses(chebyshev, {"degree": 2, "a": math.nan}, "a is nan")
    refuses(chebyshev, {"degree": 2, "a": 1.0, "function": lambda z: z + np.inf}, "function gives", "finite")
    refuses(least_squares, {"degree": 2, "a": 1.0, "function": lambda z: 1.0}, "function gives", "one for each")
    refuses(largest_error, {"coefficients": (1.0,), "a": 1.0}, "coefficients is", "2 to 17")
    refuses(error_outside, {"coefficients": SQUARE, "a": 1.0, "factor": 0.5}, "factor is 0.5", "at least 1")
    refuses(evaluate, {"coefficients": (1.0, math.inf), "z": 1.0}, "coefficients[1] is inf")
    refuses(PolynomialActivation, {"interval": 0.0}, "interval is 0.0")
    refuses(bounded, {"strength": -1.0}, "strength is -1.0")
    refuses(products_in_sequence, {"degree": 0}, "degree is 0")

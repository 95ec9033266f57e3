"""Models solved for: against scikit-learn's coefficients, closed forms of the rounding error, and networks by hand."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from spai_lab.attacks.privacy.extraction import bends, extraction_equations, extraction_relu
from spai_lab.checks import SuspiciousResult
from spai_lab.models import mlp, softmax_regression
from spai_lab.query import Query
from spai_lab.threat import input_gradient

DOUBLE = {"dtype": torch.float64}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def regression(W, b) -> nn.Module:
    """The victim with these weights `(K, d)` and biases `(K,)`."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(W.shape[1], W.shape[0])).double()
    model[1].weight.data.copy_(torch.as_tensor(W))
    model[1].bias.data.copy_(torch.as_tensor(b))
    return model


def differences(W, b):
    """What the softmax shows of the parameters: all classes less class 0, the biases as a last column."""
    both = torch.cat([torch.as_tensor(W), torch.as_tensor(b)[:, None]], 1).double()
    return both - both[:1]


def error_of(copied: nn.Module, W, b) -> float:
    """The largest error of the differences between classes."""
    return float((differences(copied[1].weight.detach(), copied[1].bias.detach()) - differences(W, b)).abs().max())


# --- logistic and softmax regression ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_classes():
    """scikit-learn's logistic regression on tumors, features scaled to [0, 1]: weights `(2, 30)` and biases."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import minmax_scale

    x, y = load_breast_cancer(return_X_y=True)
    fitted = LogisticRegression(max_iter=1000).fit(minmax_scale(x), y)
    W, b = np.vstack([np.zeros(30), fitted.coef_]), np.array([0.0, fitted.intercept_[0]])
    return W, b


@pytest.fixture(scope="module")
def ten_classes():
    """scikit-learn's softmax regression on its 8 x 8 digits: weights `(10, 64)` and biases."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    x, y = load_digits(return_X_y=True)
    fitted = LogisticRegression(max_iter=1000).fit(x / 16, y)
    return fitted.coef_, fitted.intercept_


@pytest.mark.oracle
@pytest.mark.parametrize("reveals", ["scores", "logits"])
@pytest.mark.parametrize(("fitted", "shape"), [("two_classes", (30, 1, 1)), ("ten_classes", (1, 8, 8))])
def test_scikit_learns_coefficients_come_back_from_d_plus_1_queries(request, fitted, shape, reveals):
    W, b = request.getfixturevalue(fitted)
    query = Query(regression(W, b), reveals)
    extracted = extraction_equations(query, shape, **DOUBLE)
    assert query.total == extracted.queries == math.prod(shape) + 1
    assert error_of(extracted.model, W, b) <= 1e-6
    assert extracted.residual is None and extracted.complete and extracted.rounding == 0
    if reveals == "logits":
        assert np.abs(extracted.model[1].weight.detach().numpy() - W).max() <= 1e-6
    else:
        assert (extracted.model[1].weight[0] == 0).all() and extracted.model[1].bias[0] == 0


@pytest.mark.parametrize("fault", ["wrong sign", "d queries", "one weight"])
def test_the_comparison_sees_a_planted_fault(ten_classes, fault):
    """The comparison of the test above rejects a negated copy, one from d equations, and one wrong weight."""
    W, b = ten_classes
    copied = extraction_equations(Query(regression(W, b), "logits"), (1, 8, 8), **DOUBLE).model
    assert error_of(copied, W, b) <= 1e-6
    if fault == "wrong sign":
        copied[1].weight.data.neg_()
    elif fault == "one weight":
        copied[1].weight.data[3, 5] += 1e-5
    else:
        x = torch.rand(64, 64, generator=seeded(), **DOUBLE)
        known = torch.cat([x, torch.ones(64, 1, **DOUBLE)], 1)
        z = regression(W, b)(x).detach()
        solution = torch.linalg.lstsq(known, z, driver="gelsd").solution
        assert torch.allclose(known @ solution, z)  # all 64 equations hold
        copied = regression(solution[:-1].T, solution[-1])
    assert error_of(copied, W, b) > 1e-6


def test_a_victim_of_the_project_with_its_normalization_inside():
    """Composed by hand: W (x - m) / s + b = (W / s) x + (b - m / s sum_j W_j)."""
    victim = softmax_regression(generator=seeded()).double()
    norm, _, layer = victim
    W, b = layer.weight.data / norm.std, layer.bias.data - norm.mean / norm.std * layer.weight.data.sum(1)
    query = Query(victim, "scores")
    extracted = extraction_equations(query, (1, 28, 28), **DOUBLE)
    assert error_of(extracted.model, W, b) <= 1e-6 and query.total == 785


@pytest.mark.parametrize("reveals", ["scores", "logits"])
def test_the_copy_serves_in_an_attack_as_the_victim_does(reveals, digits):
    from spai_lab.training import reference

    victim = reference("softmax", "digits")
    x, y = digits.x_test[:50], digits.y_test[:50]
    extracted = extraction_equations(Query(victim, reveals), digits.shape, checks=20, generator=seeded())
    assert extracted.queries == 805 and extracted.residual < 1e-4  # float32 rounds the answers to 24 bits
    assert torch.allclose(extracted.model(x).softmax(1), victim(x).softmax(1), atol=1e-4)
    g, copied = input_gradient(victim, x, y), input_gradient(extracted.model, x, y)
    assert (g - copied).abs().max() <= 1e-3 * g.abs().max()


@pytest.mark.parametrize("start", [0.0, 0.3, 0.8, 1.0])
def test_any_start_gives_the_same(ten_classes, start):
    W, b = ten_classes
    start = torch.full((1, 8, 8), start, **DOUBLE)
    extracted = extraction_equations(Query(regression(W, b), "scores"), (1, 8, 8), start=start, **DOUBLE)
    assert error_of(extracted.model, W, b) <= 1e-6


def test_checks_tell_a_network_from_a_regression():
    victim = mlp((1, 3, 3), 4, generator=seeded()).double()
    settings = {"checks": 10, "generator": seeded(), **DOUBLE}
    assert extraction_equations(Query(victim, "logits"), (1, 3, 3), **settings).residual > 1e-3
    victim = softmax_regression((1, 3, 3), 4, generator=seeded()).double()
    assert extraction_equations(Query(victim, "scores"), (1, 3, 3), **settings).residual < 1e-12


# --- saturation and rounding ------------------------------------------------------------------------------------------


def test_a_step_that_makes_a_probability_zero_is_halved_and_paid_for():
    """exp(-2000) is 0 in float64, exp(-1000) too, exp(-500) is not: two halvings of one step."""
    W, b = np.array([[0.0, 0.0, 0.0], [2000.0, -3.0, 5.0]]), np.array([0.0, 0.5])
    query = Query(regression(W, b), "scores")
    extracted = extraction_equations(query, (3, 1, 1), **DOUBLE)
    assert query.total == extracted.queries == 4 + 2
    assert error_of(extracted.model, W, b) <= 1e-6 and extracted.rounding == 0


def test_a_start_without_information_is_reported():
    W, b = np.array([[0.0, 0.0], [1.0, 1.0]]), np.array([0.0, 2000.0])
    assert extraction_equations(Query(regression(W, b), "scores"), (2, 1, 1), **DOUBLE).rounding == math.inf
    assert extraction_equations(Query(regression(W, b), "logits"), (2, 1, 1), **DOUBLE).rounding == 0


@pytest.mark.parametrize("decimals", [1, 2, 4])
def test_rounded_confidences_leave_the_error_that_a_closed_form_predicts(decimals):
    r"""For K = 2 the bias is logit p(0). Its slope is 1 / p (1 - p), at least 4, so that rounding p to $\hat p$ leaves
    an error of at least $4 |\hat p - p|$, and, h being half a unit of the last decimal, of at most $h / q (1 - q)$, q
    the point of $p \pm h$ farthest from 1/2. A weight has the errors of two answers."""
    w, b = np.array([0.7, -1.1, 0.3, 0.9]), -0.4
    query = Query(regression(np.vstack([0 * w, w]), np.array([0.0, b])), "scores", decimals=decimals)
    extracted = extraction_equations(query, (4, 1, 1), **DOUBLE)
    p = 1 / (1 + np.exp(-np.array([b, *(b + w)])))
    p_hat, h = p.round(decimals), 0.5 * 10.0**-decimals
    q = 0.5 - np.abs(p - 0.5) - h
    low, high = 4 * np.abs(p_hat - p), h / (q * (1 - q))

    found_b, found_w = extracted.model[1].bias[1].item(), extracted.model[1].weight[1].detach().numpy()
    errors = np.log(p_hat / (1 - p_hat)) - np.log(p / (1 - p))
    assert np.allclose(found_b - b, errors[0], rtol=0, atol=1e-12)
    assert np.allclose(found_w - w, errors[1:] - errors[0], rtol=0, atol=1e-12)
    assert low[0] - 1e-12 <= abs(found_b - b) <= high[0] and low[0] > 1e-6
    assert (np.abs(found_w - w) <= high[1:] + high[0]).all()
    assert np.abs(found_w - w).max() <= extracted.rounding <= 4 * high.max()
    assert query.total == 5


def test_rounded_logits_move_a_weight_by_at_most_a_unit_of_the_last_decimal(ten_classes):
    W, b = ten_classes
    extracted = extraction_equations(Query(regression(W, b), "logits", decimals=2), (1, 8, 8), **DOUBLE)
    errors = np.abs(extracted.model[1].weight.detach().numpy() - W)
    assert extracted.rounding == pytest.approx(0.01) and 0.002 < errors.max() <= 0.01 + 1e-9


# --- one hidden layer of ReLU -----------------------------------------------------------------------------------------


def network(d: int, hidden: int, classes: int, seed: int) -> nn.Module:
    """Each unit is zero at a point of the inner cube, so that it bends where random lines pass."""
    g = seeded(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(d, hidden), nn.ReLU(), nn.Linear(hidden, classes)).double()
    for layer in (model[1], model[3]):
        layer.weight.data.copy_(torch.randn(layer.weight.shape, generator=g, **DOUBLE) / layer.in_features**0.5)
        layer.bias.data.copy_(torch.randn(layer.bias.shape, generator=g, **DOUBLE))
    places = 0.2 + 0.6 * torch.rand(hidden, d, generator=g, **DOUBLE)
    model[1].bias.data.copy_(-(model[1].weight.data * places).sum(1))
    return model


def deviation(victim: nn.Module, copied: nn.Module, d: int) -> float:
    """On 5,000 inputs of the cube that the attack has not asked about, as a share of the largest logit."""
    x = torch.rand(5000, d, 1, 1, generator=seeded(99), **DOUBLE)
    with torch.no_grad():
        z = victim(x)
        return float((copied(x) - z).abs().max() / z.abs().max())


def rows(A, b) -> torch.Tensor:
    """Rows and biases, scaled so that the rows have length 1."""
    return torch.cat([A, b[:, None]], 1).detach() / A.detach().norm(dim=1, keepdim=True)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("d", "hidden", "classes"), [(20, 10, 2), (8, 20, 3), (16, 5, 10), (2, 6, 4)])
def test_a_network_comes_back_unit_by_unit_with_its_signs(d, hidden, classes, seed):
    victim = network(d, hidden, classes, seed)
    query = Query(victim, "logits")
    extracted = extraction_relu(query, (d, 1, 1), hidden=hidden, generator=seeded(seed))
    assert extracted.queries == query.total and extracted.residual <= 1e-6
    assert deviation(victim, extracted.model, d) <= 1e-6
    assert extracted.complete and extracted.model.M is None
    ours, theirs = rows(extracted.model.A_1, extracted.model.b_1), rows(victim[1].weight, victim[1].bias)
    nearest = torch.cdist(theirs, ours).min(1)
    assert nearest.values.max() <= 1e-6 and len(nearest.indices.unique()) == hidden
    assert torch.allclose(extracted.model.b_2, victim[3].bias, rtol=0, atol=1e-6)


@pytest.mark.parametrize("fault", ["sign", "row", "bias", "missing unit"])
def test_the_deviation_sees_a_planted_fault(fault):
    victim = network(8, 5, 3, 0)
    copied = extraction_relu(Query(victim), (8, 1, 1), hidden=5, generator=seeded()).model
    assert deviation(victim, copied, 8) <= 1e-6
    with torch.no_grad():
        if fault == "sign":
            copied.A_1[2].neg_()
            copied.b_1[2].neg_()
        elif fault == "row":
            copied.A_1[2, 3] += 1e-4
        elif fault == "bias":
            copied.b_1[2] += 1e-4
        else:
            copied.A_2[:, 2] = 0
    assert deviation(victim, copied, 8) > 1e-6


@pytest.mark.parametrize("side", [1, -1])
def test_a_unit_that_never_bends_in_the_cube_is_reported(side):
    """Always on it is linear, and the copy keeps a linear part; always off it is nothing. Both copies are exact."""
    victim = network(8, 5, 3, 1)
    victim[1].bias.data[2] = side * 10
    extracted = extraction_relu(Query(victim), (8, 1, 1), hidden=5, patience=50, generator=seeded())
    assert not extracted.complete and len(extracted.model.A_1) == 4
    assert (extracted.model.M is not None) == (side > 0)
    assert extracted.residual <= 1e-6 and deviation(victim, extracted.model, 8) <= 1e-6


def test_a_deeper_victim_is_no_silent_failure():
    victim = mlp((4, 1, 1), 3, hidden=6, generator=seeded()).double()
    with pytest.warns(SuspiciousResult, match="Chapter 11"):
        extracted = extraction_relu(Query(victim), (4, 1, 1), hidden=6, patience=20, generator=seeded())
    assert not extracted.complete and extracted.residual > 1e-3


def test_too_few_lines_are_no_silent_failure():
    """Units that bend in a corner alone, which the one line that is tried does not pass."""
    victim = network(8, 5, 3, 2)
    weight = victim[1].weight.data
    victim[1].bias.data.copy_(-0.9 * weight.clamp_min(0).sum(1) - 0.1 * weight.clamp_max(0).sum(1))
    with pytest.warns(SuspiciousResult, match="units were missed"):
        extracted = extraction_relu(Query(victim), (8, 1, 1), hidden=5, patience=1, generator=seeded())
    assert not extracted.complete and extracted.residual > 1e-6


def test_a_line_bends_where_it_should():
    """A sum of ramps by hand; two of them 1e-4 apart."""
    places, jumps = torch.tensor([0.07, 0.3, 0.3001, 0.81], **DOUBLE), torch.tensor([1.0, -2.0, 0.5, 3.0], **DOUBLE)

    def curve(t):
        ramp = ((t[:, None] - places).relu() * jumps).sum(1)
        return torch.stack([ramp + 2 * t, -ramp], 1)

    found = sorted((t, float(jump[0]), float(jump[1])) for t, jump in bends(curve, 1e-11))
    expected = [(t, jump, -jump) for t, jump in zip(places.tolist(), jumps.tolist(), strict=True)]
    assert np.allclose(found, expected, rtol=0, atol=1e-7)
    assert list(bends(lambda t: torch.stack([t, 1 - t], 1), 1e-11)) == []


# --- manners ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", ["equations", "relu"])
def test_nothing_else_changes_and_the_same_seed_gives_the_same(attack):
    victim, state = network(6, 4, 3, 0).train(), torch.get_rng_state()
    before = [p.clone() for p in victim.parameters()]
    calls = {
        "equations": lambda: extraction_equations(Query(victim), (6, 1, 1), checks=5, generator=seeded(), **DOUBLE),
        "relu": lambda: extraction_relu(Query(victim), (6, 1, 1), hidden=4, generator=seeded()),
    }
    first, second = calls[attack](), calls[attack]()
    assert first.queries == second.queries and not first.model.training and victim.training
    for pair in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.allclose(*pair, rtol=0, atol=1e-9)  # where a matrix lies in memory moves the last bits
    assert all(map(torch.equal, before, victim.parameters())) and torch.equal(state, torch.get_rng_state())


def test_the_cap_bounds_the_whole_attack(refuses):
    victim = regression(np.eye(2), np.zeros(2))
    query = Query(victim, "logits", cap=3)
    assert extraction_equations(query, (2, 1, 1), **DOUBLE).queries == 3 and query.counts.tolist() == [3]
    arguments = {"query": query, "shape": (2, 1, 1), **DOUBLE}
    refuses(extraction_equations, arguments, "cap of 3, 0 left", "at least 3 more")
    arguments = {"query": Query(network(6, 4, 3, 0), cap=100), "shape": (6, 1, 1), "hidden": 4}
    refuses(extraction_relu, arguments, "cap of 100")


def test_bad_input_is_refused(refuses):
    victim = regression(np.eye(2), np.zeros(2))
    start = torch.zeros(2, 1, 1, **DOUBLE)
    valid = {"query": Query(victim, "scores"), "shape": (2, 1, 1), **DOUBLE}
    for changes, *words in [
        ({"query": victim}, "query is", "accepted: a Query"),
        ({"query": Query(victim, "labels")}, "reveals 'labels'", "'scores' or 'logits'"),
        ({"query": Query(victim, "top-2")}, "reveals 'top-2'"),
        ({"shape": (2,)}, "shape is (2,)", "(C, H, W)"),
        ({"shape": (3, 1, 1)}, "model fails on x"),
        ({"dtype": torch.float32}, "x is torch.float32", "float64"),
        ({"dtype": torch.int64}, "dtype is torch.int64"),
        ({"start": start[:1]}, "start is", "(2, 1, 1)"),
        ({"start": start + 2}, "start has values", "[0, 1]"),
        ({"start": start.float()}, "start is a float32"),
        ({"checks": -1}, "checks is -1", "at least 0"),
        ({"generator": 3}, "generator is 3"),
    ]:
        refuses(extraction_equations, valid | changes, *words)
    victim = network(4, 3, 2, 0)
    valid = {"query": Query(victim), "shape": (4, 1, 1), "hidden": 3}
    for changes, *words in [
        ({"query": victim}, "query is", "accepted: a Query"),
        ({"query": Query(victim, "scores")}, "reveals 'scores'", "'logits'"),
        ({"query": Query(victim, decimals=8)}, "rounds to 8 decimals"),
        ({"query": Query(network(4, 3, 2, 0).float())}, "x is torch.float64", "float32"),
        ({"shape": 4}, "shape is 4"),
        ({"hidden": 0}, "hidden is 0"),
        ({"patience": 0}, "patience is 0"),
        ({"checks": 0}, "checks is 0"),
        ({"generator": 3}, "generator is 3"),
    ]:
        refuses(extraction_relu, valid | changes, *words)


def test_a_copy_that_fresh_answers_contradict_is_not_called_complete():
    victim = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    with torch.no_grad():
        victim[1].weight.mul_(5)
    found = extraction_equations(Query(victim, "logits"), (1, 2, 2), checks=20, dtype=torch.float64)
    assert found.residual > 1e-3 and not found.complete

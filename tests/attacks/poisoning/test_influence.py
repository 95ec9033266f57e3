"""Influence against training again without the input, the Hessian against a dense one, and what the attack reaches."""

import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from scipy.sparse.linalg import LinearOperator, cg
from scipy.stats import spearmanr
from torch import nn

from spai_lab.attacks.poisoning.back_gradient import flat_weights, loss_at, losses_at
from spai_lab.attacks.poisoning.influence import (
    conjugate_gradients,
    hessian,
    influence,
    influence_poison,
    perturbing,
    retrained_head,
)
from spai_lab.models import features, mlp, softmax_regression
from spai_lab.training import reference

DAMPING = 0.01


def penalized_fit(x, y, classes, *, damping, total, start=None):
    """Weights `(K, D)` at the minimum of sum(L) / total + damping / 2 |w|^2, by SciPy and NumPy alone."""
    x, hot = np.asarray(x, dtype=float), np.eye(classes)[np.asarray(y)]

    def loss(w):
        w = w.reshape(classes, -1)
        z = x @ w.T
        z = z - z.max(1, keepdims=True)
        log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
        slope = (np.exp(log_p) - hot).T @ x / total + damping * w
        return -(hot * log_p).sum() / total + damping / 2 * (w**2).sum(), slope.ravel()

    start = np.zeros(classes * x.shape[1]) if start is None else start.ravel()
    options = {"gtol": 1e-9, "ftol": 0, "maxiter": 2000, "maxcor": 30}
    return minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x.reshape(classes, -1)


def without_bias(w):
    """Softmax regression in float64 with the weights `w`, `(K, D)`."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(w.shape[1], w.shape[0], bias=False, dtype=torch.float64))
    model[1].weight.data = torch.as_tensor(w)
    return model


def retrained_changes(data, damping, test, count):
    """`(predicted, true)`: how the loss at a test input changes as each of some training inputs is left out."""
    x, y, K = data.x_train.double(), data.y_train, data.num_classes
    x_test, y_test = data.x_test[test : test + 1].double(), data.y_test[test : test + 1]
    N, flat = len(y), x.flatten(1).numpy()
    w = penalized_fit(flat, y, K, damping=damping, total=N)
    model = without_bias(w)
    I_up = influence(model, x, y, x_test, y_test, damping=damping)
    order = I_up.abs().argsort(descending=True)
    chosen = torch.cat([order[: count // 2], order[count // 2 :: (N - count // 2) // (count - count // 2)]])[:count]

    def test_loss(w):
        return F.cross_entropy(x_test.flatten(1) @ torch.as_tensor(w).T, y_test).item()

    true = []
    for i in chosen.tolist():
        kept = np.arange(N) != i
        again = penalized_fit(flat[kept], y.numpy()[kept], K, damping=damping, total=N, start=w)
        true.append(test_loss(again) - test_loss(w))
    return (-I_up[chosen] / N).numpy(), np.array(true)


@pytest.fixture(scope="module")
def one_or_seven(digits):
    return digits.only(1, 7)


@pytest.mark.parametrize("test", [0, 13], ids=["test-0", "test-13"])
def test_it_foretells_what_training_without_an_input_changes(one_or_seven, test):
    predicted, true = retrained_changes(one_or_seven, DAMPING, test, 40)
    assert len(true) == 40
    assert spearmanr(predicted, true).statistic >= 0.9
    assert np.corrcoef(predicted, true)[0, 1] >= 0.9


def test_its_size_is_right_too(one_or_seven):
    """Ranks do not show a forgotten 1/N. The penalty is high, so that no input alone moves the weights far."""
    predicted, true = retrained_changes(one_or_seven, 1.0, 0, 20)
    np.testing.assert_allclose(predicted, true, rtol=0.1, atol=0.01 * np.abs(true).max())


@pytest.mark.full
def test_all_ten_classes(digits):
    predicted, true = retrained_changes(digits.first(300), DAMPING, 0, 60)
    assert spearmanr(predicted, true).statistic >= 0.9


def small(seed=0, N=30, classes=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(N, 1, 2, 2, generator=generator, dtype=dtype)
    y = torch.randint(classes, (N,), generator=generator)
    return x, y, softmax_regression((1, 2, 2), classes, generator=generator).to(dtype)


def test_it_is_what_a_dense_solve_gives():
    x, y, model = small()
    theta = flat_weights(model)
    H = torch.autograd.functional.hessian(lambda theta: loss_at(model, theta, x, y), theta)
    H = H + 0.05 * torch.eye(len(H), dtype=H.dtype)
    J = torch.autograd.functional.jacobian(lambda theta: losses_at(model, theta, x, y), theta)
    of_test = J[:3].mean(0)
    expected = -J @ torch.linalg.solve(H, of_test)
    found = influence(model, x, y, x[:3], y[:3], damping=0.05, tolerance=1e-10)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)


def planted(fault):
    """`hessian` with a mistake in it."""
    return {
        "no 1/N": lambda loss, theta, damping: hessian(30 * loss, theta, damping),
        "no damping": lambda loss, theta, damping: hessian(loss, theta, 1e-9),
        "1/N on the damping too": lambda loss, theta, damping: hessian(loss, theta, damping / 30),
    }[fault]


@pytest.mark.parametrize("fault", ["no 1/N", "no damping", "1/N on the damping too"])
def test_the_dense_solve_shows_a_planted_fault(monkeypatch, fault):
    module = sys.modules[hessian.__module__]  # the package has a function of the same name
    monkeypatch.setattr(module, "hessian", planted(fault))
    with pytest.raises((AssertionError, ValueError)):
        test_it_is_what_a_dense_solve_gives()


def test_a_heavy_penalty_is_all_that_is_left_of_the_hessian():
    x, y, model = small()
    weak, strong = (influence(model, x, y, x[:1], y[:1], damping=damping) for damping in (0.05, 500.0))
    J = torch.autograd.functional.jacobian(lambda theta: losses_at(model, theta, x, y), flat_weights(model))
    torch.testing.assert_close(strong, -(J @ J[0]) / 500, rtol=0.02, atol=1e-6)  # H is all damping
    assert (weak / strong).abs().median() > 10


def test_conjugate_gradients_walk_as_scipy_does():
    generator = torch.Generator().manual_seed(1)
    M = torch.randn(40, 40, generator=generator, dtype=torch.float64)
    A, b = M @ M.T / 40 + 0.1 * torch.eye(40), torch.randn(40, generator=generator, dtype=torch.float64)
    ours, theirs = [], []

    def product(v):
        ours.append(v)
        return A @ v

    operator = LinearOperator((40, 40), matvec=lambda v: A.numpy() @ v)
    s = conjugate_gradients(product, b, tolerance=1e-4)  # well before rounding decides when it ends
    expected, _ = cg(operator, b.numpy(), rtol=1e-4, atol=0, callback=theirs.append)
    np.testing.assert_allclose(s, expected, rtol=1e-6, atol=1e-9)
    assert len(ours) == len(theirs)


def test_conjugate_gradients_need_no_step_for_zero():
    assert conjugate_gradients(lambda v: v, torch.zeros(3)).tolist() == [0, 0, 0]


def test_the_hessian_is_the_dense_one_plus_damping():
    x, y, model = small()
    theta = flat_weights(model).requires_grad_()
    product = hessian(loss_at(model, theta, x, y), theta, 0.3)
    dense = torch.autograd.functional.hessian(lambda theta: loss_at(model, theta, x, y), theta)
    v = torch.linspace(-1, 1, len(theta), dtype=torch.float64)
    torch.testing.assert_close(product(v), dense @ v + 0.3 * v)


def test_what_the_pixels_do_to_the_influence_is_its_finite_difference():
    x, y, _ = small()
    model = mlp((1, 2, 2), 3, hidden=6, generator=torch.Generator().manual_seed(0)).double()
    head = model[-1]
    theta, s = flat_weights(head), torch.linspace(-1, 1, 21, dtype=torch.float64)
    found = perturbing(model, head, theta, x, y, s)

    def along(x, h):  # the slope of the loss in theta along s, by a central difference of its own
        up, down = (losses_at(head, theta + e * s, features(model, x).detach(), y).sum() for e in (h, -h))
        return (up - down) / (2 * h)

    for pixel in [(0, 0, 0, 0), (7, 0, 1, 1), (29, 0, 0, 1)]:
        step = torch.zeros_like(x)
        step[pixel] = 1e-4
        difference = (along(x + step, 1e-4) - along(x - step, 1e-4)) / 2e-4
        assert -difference.item() == pytest.approx(found[pixel].item(), rel=1e-4, abs=1e-7)


def test_the_last_layer_is_at_its_minimum(digits):
    model, data = reference("lenet", "digits"), digits.first(200)
    phi = features(model, data.x_train).detach()
    again = retrained_head(model, data.x_train, data.y_train, damping=DAMPING)
    ones = np.concatenate([phi.numpy(), np.ones((200, 1))], axis=1)
    w = penalized_fit(ones, data.y_train, 10, damping=DAMPING, total=200)
    np.testing.assert_allclose(again[-1].weight.detach(), w[:, :-1], atol=2e-4)
    np.testing.assert_allclose(again[-1].bias.detach(), w[:, -1], atol=2e-4)
    before = zip(model[:-1].parameters(), again[:-1].parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in before)


@pytest.fixture(scope="module")
def attacked(digits):
    """`(data, model, x_target, y_target, wanted, poisoned)`: one attack on the features of a trained LeNet."""
    data, model = digits.first(300), reference("lenet", "digits")
    clean = retrained_head(model, data.x_train, data.y_train)
    right = (clean(data.x_test).argmax(1) == data.y_test).nonzero()[:, 0]
    x_target, y_target = data.x_test[right[:1]], data.y_test[right[0]].item()
    wanted = clean(x_target).topk(2).indices[0, 1].item()
    attack = partial(influence_poison, data, model, x_target, wanted, fraction=0.03, eps=0.3, steps=5, progress=False)
    return data, model, x_target, y_target, wanted, attack()


def test_the_target_moves_toward_the_wanted_class(attacked):
    data, model, x_target, y_target, wanted, poisoned = attacked
    before = retrained_head(model, data.x_train, data.y_train)(x_target)[0]
    after = retrained_head(model, poisoned.x, poisoned.y)(x_target)[0]
    assert after[wanted] - after[y_target] > before[wanted] - before[y_target] + 1


def test_it_ends_once_the_target_has_the_wanted_class(attacked):
    data, model, x_target, y_target, wanted, _ = attacked

    def poisons(wanted, steps):
        budgeted = {"fraction": 0.01, "eps": 0.3, "step_size": 0.1, "steps": steps, "progress": False}
        return influence_poison(data, model, x_target, wanted, **budgeted).x

    assert torch.equal(poisons(y_target, 1), poisons(y_target, 2)), "which it has from the start"
    assert not torch.equal(poisons(wanted, 1), poisons(wanted, 2))


def test_poisons_stay_near_and_keep_their_labels(attacked):
    data, *_, poisoned = attacked
    change = (poisoned.x - data.x_train).abs().flatten(1).amax(1)
    assert poisoned.count == 9
    assert torch.equal(poisoned.y, data.y_train)
    assert (change[~poisoned.is_poison] == 0).all()
    assert change[poisoned.is_poison].min() > 0 and change.max() <= 0.3 + 1e-6
    assert poisoned.x.min() >= 0 and poisoned.x.max() <= 1


def test_nothing_but_the_answer_changes(attacked):
    data, model, x_target, _, wanted, _ = attacked
    data, before = replace(data, x_train=data.x_train.clone()), flat_weights(model).clone()
    x_before, state = data.x_train.clone(), torch.random.get_rng_state()
    attack = partial(influence_poison, data, model, x_target, wanted, fraction=0.01, eps=0.1, steps=1, progress=False)
    assert torch.equal(attack().x, attack().x)
    influence(model, data.x_train[:40], data.y_train[:40], x_target, torch.tensor([wanted]), damping=1.0)
    assert torch.equal(data.x_train, x_before) and torch.equal(flat_weights(model), before)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())


x, y, model = small(dtype=torch.float32)
GOOD = {"model": model, "x": x, "y": y, "x_test": x[:1], "y_test": y[:1], "damping": 0.1}
BAD = [
    ("damping", 0, "above 0"),
    ("damping", float("nan"), "above 0"),
    ("x", x * 255, "[0, 1]"),
    ("y", y.float(), "int64"),
    ("y_test", torch.tensor([-1]), "classes from 0"),
    ("y_test", torch.tensor([7]), "0 to 2"),
    ("x_test", x[:1] + 2, "[0, 1]"),
    ("iterations", 0, "whole number"),
    ("iterations", 1, "more of them"),
    ("tolerance", 0, "above 0"),
    ("model", "lenet", "Module"),
]


@pytest.mark.parametrize(("name", "value", "word"), BAD, ids=[f"{i}-{name}" for i, (name, *_) in enumerate(BAD)])
def test_bad_input_is_named(refuses, name, value, word):
    refuses(influence, GOOD | {name: value}, name, word)


def test_a_hessian_that_curves_down_is_named(refuses):
    refuses(conjugate_gradients, {"A": lambda v: -v, "b": torch.ones(3)}, "damping", "curves down")


BAD_ATTACK = [
    ("x_target", torch.zeros(2, 1, 28, 28), "(1, 1, 28, 28)"),
    ("wanted", 10, "from 0 to 9"),
    ("wanted", 1.5, "whole number"),
    ("fraction", 0.0, "above 0"),
    ("eps", 8, "8/255"),
    ("steps", 0, "at least 1"),
    ("step_size", -1, "above 0"),
    ("damping", 0, "above 0"),
    ("model", nn.Flatten(), "linear layer"),
    ("progress", 1, "True or False"),
]


@pytest.mark.parametrize(
    ("name", "value", "word"), BAD_ATTACK, ids=[f"{i}-{name}" for i, (name, *_) in enumerate(BAD_ATTACK)]
)
def test_bad_input_of_the_attack_is_named(digits, refuses, name, value, word):
    good = {"data": digits.first(50), "model": reference("lenet", "digits"), "x_target": digits.x_test[:1]}
    good |= {"wanted": 3, "fraction": 0.1, "eps": 0.1, "progress": False}
    refuses(influence_poison, good | {name: value}, name, word)

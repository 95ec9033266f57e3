"""The hypergradient against finite differences, unrolled autograd and a closed form; what the attack costs."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from spai_lab.attacks.poisoning.back_gradient import back_gradient, flat_weights, hypergradient, loss_at, mislabeled
from spai_lab.models import mlp, softmax_regression
from spai_lab.training import accuracy, fit


def problem(seed=0):
    """Poisons, training and validation data of three classes, in float64."""
    generator = torch.Generator().manual_seed(seed)
    sizes = (3, 12, 10)
    x = [torch.rand(n, 1, 2, 2, generator=generator, dtype=torch.float64) for n in sizes]
    y = [torch.randint(3, (n,), generator=generator) for n in sizes]
    return x[0], y[0], x[1], y[1], x[2], y[2]


def victim(name):
    generator = torch.Generator().manual_seed(3)
    if name == "softmax":
        return softmax_regression((1, 2, 2), 3, generator=generator).double()
    return mlp((1, 2, 2), 3, hidden=5, generator=generator).double()


def trained_by_torch(model, x_p, y_p, x, y, x_val, y_val, *, steps, learning_rate, momentum, weight_decay):
    """The validation loss after training, every step of which autograd keeps: a loop that shares nothing with ours."""
    weights = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    speed = {name: torch.zeros_like(p) for name, p in weights.items()}
    inputs, labels = torch.cat([x_p, x]), torch.cat([y_p, y])
    for _ in range(steps):
        loss = F.cross_entropy(functional_call(model, weights, inputs), labels)
        loss = loss + weight_decay / 2 * sum(p.square().sum() for p in weights.values())
        slopes = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        speed = {name: momentum * speed[name] + g for name, g in zip(speed, slopes, strict=True)}  # as torch.optim.SGD
        weights = {name: weights[name] - learning_rate * speed[name] for name in weights}
    return F.cross_entropy(functional_call(model, weights, x_val), y_val)


TRAININGS = [("softmax", 0.9, 0.0), ("softmax", 0.5, 0.1), ("softmax", 0.0, 0.0), ("mlp", 0.9, 0.01), ("mlp", 0.5, 0.1)]
IDS = [f"{name}-{momentum}-{decay}" for name, momentum, decay in TRAININGS]


@pytest.mark.parametrize(("name", "momentum", "weight_decay"), TRAININGS, ids=IDS)
def test_it_is_what_autograd_gives_through_the_unrolled_training(name, momentum, weight_decay):
    x_p, *others = problem()
    training = {"steps": 12, "learning_rate": 0.02, "momentum": momentum, "weight_decay": weight_decay}
    x_p.requires_grad_()
    expected = trained_by_torch(victim(name), x_p, *others, **training)
    slope = torch.autograd.grad(expected, x_p)[0]
    harm, found = hypergradient(victim(name), x_p, *others, **training)
    assert harm == pytest.approx(expected.item(), rel=1e-12)
    torch.testing.assert_close(found, slope, rtol=1e-8, atol=1e-12)
    assert slope.abs().max() > 1e-4


@pytest.mark.parametrize("name", ["softmax", "mlp"])
def test_it_is_the_finite_difference(name):
    x_p, *others = problem()
    training = {"steps": 15, "learning_rate": 0.03, "momentum": 0.9, "weight_decay": 0.01}
    _, found = hypergradient(victim(name), x_p, *others, **training)
    with torch.enable_grad():
        for pixel in np.ndindex(*x_p.shape):
            h = torch.zeros_like(x_p)
            h[pixel] = 1e-5
            up, down = (trained_by_torch(victim(name), x_p + e * h, *others, **training).item() for e in (1, -1))
            assert (up - down) / 2e-5 == pytest.approx(found[pixel].item(), rel=1e-5, abs=1e-8)


def test_at_convergence_it_is_the_implicit_closed_form():
    r"""$-\nabla_{x_p} \nabla_\theta L \, H^{-1} \nabla_\theta A$ at the minimum, with a dense Hessian."""
    x_p, y_p, x, y, x_val, y_val = problem()
    model = victim("softmax")
    labels, decay = torch.cat([y, y_p]), 0.5

    def loss(theta, x_p):
        return loss_at(model, theta, torch.cat([x, x_p]), labels) + decay / 2 * theta @ theta

    theta = flat_weights(model)
    for _ in range(12):
        g, H = (
            find(lambda t: loss(t, x_p), theta)
            for find in (torch.autograd.functional.jacobian, torch.autograd.functional.hessian)
        )
        theta = theta - torch.linalg.solve(H, g)
    assert g.norm() < 1e-10
    of_validation = torch.autograd.functional.jacobian(lambda t: loss_at(model, t, x_val, y_val), theta)
    mixed = torch.autograd.functional.jacobian(
        lambda x_p: torch.autograd.functional.jacobian(lambda t: loss(t, x_p), theta, create_graph=True), x_p
    )
    expected = -torch.einsum("p,p...->...", torch.linalg.solve(H, of_validation), mixed)
    training = {"steps": 45, "learning_rate": 0.2, "momentum": 0.5, "weight_decay": decay}
    _, found = hypergradient(model, x_p, y_p, x, y, x_val, y_val, **training)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)


@pytest.fixture(scope="module")
def attacked(digits):
    """`(data, poisoned)`: a short attack on little data."""
    data = digits.first(200)
    return data, short(data)


def short(data, seed=0, **changes):
    model = softmax_regression(generator=torch.Generator().manual_seed(7))
    settings = {"fraction": 0.2, "ascents": 10, "steps": 10} | changes
    return back_gradient(data, model, **settings, generator=torch.Generator().manual_seed(seed), progress=False)


def test_it_costs_more_than_the_flips_it_started_from(attacked):
    """On test data, which the attacker never saw, with a victim trained by another optimizer and from other weights."""
    data, poisoned = attacked
    flips = short(data, ascents=1)
    assert torch.equal(flips.y, poisoned.y)
    harmed, flipped = (victims_accuracy(data, p.x, p.y) for p in (poisoned, flips))
    assert harmed < flipped - 0.02


def victims_accuracy(data, x, y, seed=5):
    model = softmax_regression(generator=torch.Generator().manual_seed(seed))
    settings = {"epochs": 20, "learning_rate": 3e-3, "generator": torch.Generator().manual_seed(seed)}
    fit(model, x, y, **settings, progress=False)
    return accuracy(model, data.x_test, data.y_test)


@pytest.mark.full
@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.2])
def test_on_all_digits_it_beats_random_flips(digits, fraction):
    poisoned, flips = (short(digits, fraction=fraction, ascents=n, steps=20) for n in (20, 1))
    harmed, flipped = (victims_accuracy(digits, p.x, p.y) for p in (poisoned, flips))
    assert harmed < flipped - 0.02


def test_the_poisons_are_images_within_the_budget_and_start_as_wrongly_labeled_copies(attacked):
    data, poisoned = attacked
    assert poisoned.count == 40 and len(poisoned.y) == 240
    assert torch.equal(poisoned.x[:200], data.x_train) and torch.equal(poisoned.y[:200], data.y_train)
    assert poisoned.is_poison.tolist() == [False] * 200 + [True] * 40
    assert poisoned.x.min() >= 0 and poisoned.x.max() <= 1
    start = short(data, ascents=1)
    for image, label in zip(start.x[200:], start.y[200:], strict=True):
        twins = (data.x_train == image).flatten(1).all(1)
        assert twins.any() and (data.y_train[twins] != label).all()


def test_the_same_seed_gives_the_same_and_nothing_else_changes(digits):
    data = replace(digits.first(50), x_train=digits.x_train[:50].clone())
    x_before, state = data.x_train.clone(), torch.random.get_rng_state()
    model = softmax_regression(generator=torch.Generator().manual_seed(7))
    before = flat_weights(model)
    attack = partial(back_gradient, data, model, fraction=0.1, ascents=2, steps=3, progress=False)
    again = [attack(generator=torch.Generator().manual_seed(seed)).x for seed in (0, 0, 1)]
    assert torch.equal(again[0], again[1]) and not torch.equal(again[0], again[2])
    assert torch.equal(data.x_train, x_before) and torch.equal(flat_weights(model), before)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.training and all(parameter.grad is None for parameter in model.parameters())


def test_wrong_labels_are_wrong_and_all_of_them_come():
    y = torch.arange(3).repeat(400)
    wrong = mislabeled(y, 3, torch.Generator().manual_seed(0))
    counts = torch.stack([torch.bincount(wrong[y == label], minlength=3) for label in range(3)])
    assert (counts.diag() == 0).all()
    assert (counts[~torch.eye(3, dtype=torch.bool)] > 200 - 6 * 10).all()  # 200 expected, 10 the deviation: 6 of them


def test_rounding_that_loses_the_way_back_is_named(refuses):
    x_p, y_p, x, y, x_val, y_val = problem()
    settings = {"model": victim("softmax"), "x_p": x_p, "y_p": y_p, "x": x, "y": y, "x_val": x_val, "y_val": y_val}
    refuses(hypergradient, settings | {"steps": 300, "learning_rate": 0.05, "momentum": 0.5}, "way back")
    refuses(hypergradient, settings | {"steps": 300, "learning_rate": 1e308}, "learning_rate", "diverges")


BAD = [
    ("fraction", 0, "above 0"),
    ("fraction", 0.001, "none"),
    ("ascents", 0, "whole number"),
    ("step_size", -0.1, "above 0"),
    ("steps", 0, "whole number"),
    ("learning_rate", float("nan"), "finite"),
    ("momentum", 1.0, "1 excluded"),
    ("momentum", -0.1, "at least 0"),
    ("weight_decay", -1, "at least 0"),
    ("model", "softmax", "Module"),
    ("model", nn.Sequential(nn.Flatten(), nn.Linear(784, 3)), "0 to 2"),
    ("generator", 0, "torch.Generator"),
    ("progress", 1, "True or False"),
]


@pytest.mark.parametrize(("name", "value", "word"), BAD, ids=[f"{i}-{name}" for i, (name, *_) in enumerate(BAD)])
def test_bad_input_is_named(digits, refuses, name, value, word):
    good = {"data": digits.first(50), "model": softmax_regression(), "fraction": 0.1, "ascents": 1, "steps": 1}
    refuses(back_gradient, good | {"progress": False} | {name: value}, name if name != "model" else "", word)

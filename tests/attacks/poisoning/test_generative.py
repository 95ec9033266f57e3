"""The generator's slope against finite differences through the victim's update; what its poisons cost."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import spai_lab.attacks.poisoning.generative as module
from spai_lab.attacks.poisoning.generative import autoencoder, generative_poisoning
from spai_lab.data import Dataset
from spai_lab.models import softmax_regression
from spai_lab.training import accuracy, fit


def attack(data, seed=0, **changes):
    model = softmax_regression(data.shape, data.num_classes, generator=torch.Generator().manual_seed(7))
    settings = {"fraction": 0.2, "rounds": 15, "rehearsals": 20, "steps": 10} | changes
    settings["generator"] = torch.Generator().manual_seed(seed)
    return generative_poisoning(data, model.to(data.x_train.dtype), **settings, progress=False)


@pytest.fixture
def tiny():
    """A few images of 2 x 2 pixels in float64."""
    generator = torch.Generator().manual_seed(0)
    parts = []
    for n in (10, 8, 4):
        parts += [torch.rand(n, 1, 2, 2, generator=generator, dtype=torch.float64)]
        parts += [torch.randint(3, (n,), generator=generator)]
    return Dataset("tiny", *parts, ("a", "b", "c"), "drawn")


@pytest.mark.parametrize("steps", [1, 4])
def test_the_generator_climbs_the_loss_after_the_update(tiny, monkeypatch, steps):
    """Its slope is the finite difference of the reward, where NumPy's own softmax regression takes the steps."""
    seen = {}

    def noted(x, hidden, generator):
        seen["x"], seen["G"] = x, autoencoder(x, hidden, generator)
        return seen["G"]

    def stopped(optimizer, loss):
        seen["slopes"] = torch.autograd.grad(loss, list(seen["G"].parameters()))

    monkeypatch.setattr(module, "autoencoder", noted)
    monkeypatch.setattr(module, "descend", stopped)
    poisoned = attack(
        tiny, fraction=0.3, rounds=1, rehearsals=0, hidden=3, steps=steps, learning_rate=0.1, momentum=0.5
    )
    start = softmax_regression((1, 2, 2), 3, generator=torch.Generator().manual_seed(7)).double()[-1]
    y = poisoned.y.numpy()

    def reward():
        with torch.no_grad():
            x_p = seen["G"](seen["x"])
        x = normalized(torch.cat([tiny.x_train, x_p]))
        w, v = np.c_[start.weight.detach().numpy(), start.bias.detach().numpy()], 0
        for _ in range(steps):
            v = 0.5 * v - (softmax(x @ w.T) - np.eye(3)[y]).T @ x / len(x)
            w = w + 0.1 * v
        p = softmax(normalized(tiny.x_val) @ w.T)
        return -np.log(p[np.arange(len(p)), tiny.y_val.numpy()]).mean()

    for parameter, slope in zip(seen["G"].parameters(), seen["slopes"], strict=True):
        flat, g = parameter.data.view(-1), slope.flatten()
        largest = g.abs().argmax()
        flat[largest] += 1e-6
        up = reward()
        flat[largest] -= 2e-6
        down = reward()
        flat[largest] += 1e-6
        assert -(up - down) / 2e-6 == pytest.approx(g[largest].item(), rel=1e-4)  # what descends is minus the reward


def normalized(x):
    return np.c_[((x - 0.1307) / 0.3081).flatten(1).numpy(), np.ones(len(x))]


def softmax(z):
    p = np.exp(z - z.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


def victims_accuracy(data, x, y, seed=5):
    model = softmax_regression(generator=torch.Generator().manual_seed(seed))
    settings = {"epochs": 20, "learning_rate": 3e-3, "generator": torch.Generator().manual_seed(seed)}
    fit(model, x, y, **settings, progress=False)
    return accuracy(model, data.x_test, data.y_test)


def flipped(data, poisoned, seed=9):
    """As many training images, drawn at random and added once more with random wrong labels."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(data.y_train), generator=generator)[: poisoned.count]
    shift = torch.randint(1, 10, (poisoned.count,), generator=generator)
    x, y = data.x_train[chosen], (data.y_train[chosen] + shift) % 10
    return torch.cat([data.x_train, x]), torch.cat([data.y_train, y])


@pytest.mark.full
@pytest.mark.parametrize("fraction", [0.1, 0.2])
def test_on_all_digits_it_beats_random_flips(digits, fraction):
    poisoned = attack(digits, fraction=fraction, rounds=40, rehearsals=100, steps=20)
    harmed = victims_accuracy(digits, poisoned.x, poisoned.y)
    assert harmed < victims_accuracy(digits, *flipped(digits, poisoned)) - 0.02


@pytest.fixture(scope="module")
def attacked(digits):
    data = digits.first(200)
    return data, attack(data)


def test_the_poisons_are_images_within_the_budget_and_have_the_next_label(attacked):
    data, poisoned = attacked
    assert poisoned.count == 40 and len(poisoned.y) == 240
    assert torch.equal(poisoned.x[:200], data.x_train) and torch.equal(poisoned.y[:200], data.y_train)
    assert poisoned.x.min() >= 0 and poisoned.x.max() <= 1
    assert not poisoned.is_poison[:200].any() and poisoned.is_poison[200:].all()


def test_its_poisons_harm_more_than_the_first_ones(attacked):
    data, poisoned = attacked
    first = attack(data, rounds=1)
    assert torch.equal(first.y, poisoned.y)
    harmed, before = (victims_accuracy(data, p.x, p.y) for p in (poisoned, first))
    assert harmed < before - 0.02


def test_the_same_seed_gives_the_same_and_nothing_else_changes(digits):
    data = replace(digits.first(50), x_train=digits.x_train[:50].clone())
    x_before, state = data.x_train.clone(), torch.random.get_rng_state()
    short = partial(attack, data, rounds=2, rehearsals=2, steps=2)
    assert torch.equal(short(seed=0).x, short(seed=0).x)
    assert not torch.equal(short(seed=0).x, short(seed=1).x)
    assert torch.equal(data.x_train, x_before)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_an_autoencoder_can_repeat_its_input(digits):
    x = digits.x_train[:20]
    G = autoencoder(x, 20, torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(G.parameters(), lr=0.01)
    before = F.mse_loss(G(x), x).item()
    for _ in range(100):
        module.descend(optimizer, F.mse_loss(G(x), x))
    assert F.mse_loss(G(x), x).item() < before / 10


BAD = [
    ("fraction", 0, "above 0"),
    ("rounds", 0, "whole number"),
    ("rehearsals", -1, "at least 0"),
    ("hidden", 0, "whole number"),
    ("generator_rate", 0, "above 0"),
    ("steps", 0, "whole number"),
    ("learning_rate", -1, "above 0"),
    ("momentum", 1.0, "1 excluded"),
    ("weight_decay", -1, "at least 0"),
    ("model", "softmax", "Module"),
    ("generator", 0, "torch.Generator"),
    ("progress", 1, "True or False"),
]


@pytest.mark.parametrize(("name", "value", "word"), BAD, ids=[f"{i}-{name}" for i, (name, *_) in enumerate(BAD)])
def test_bad_input_is_named(digits, refuses, name, value, word):
    good = {"data": digits.first(50), "model": softmax_regression(), "fraction": 0.1, "rounds": 1, "rehearsals": 0}
    refuses(generative_poisoning, good | {"steps": 1, "progress": False} | {name: value}, name, word)

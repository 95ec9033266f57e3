"""Gradient matching: its loss against finite differences and autograd, ART, and what it reaches from scratch."""

import copy
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from spai_lab.attacks.poisoning.matching import gradient_matching, mismatch, weight_gradient
from spai_lab.attacks.poisoning.outcome import from_scratch, random_targets, targeted_outcome
from spai_lab.attacks.poisoning.poisoned import Poisoned, budget
from spai_lab.models import mlp
from spai_lab.training import Shift, reference
from spai_lab.training.recipes import REFERENCE, train


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def victim():
    return reference("mlp", "digits")


def test_the_weight_gradient_is_that_of_backward(digits, victim):
    x, y = digits.x_val[:6], digits.y_val[:6]
    copied = copy.deepcopy(victim)
    F.cross_entropy(copied(x), y).backward()
    expected = torch.cat([weight.grad.flatten() for weight in copied.parameters()])
    torch.testing.assert_close(weight_gradient(victim, x, y), expected)
    assert all(weight.grad is None for weight in victim.parameters())


def test_the_gradient_of_the_matching_loss_by_finite_differences():
    models = [mlp((1, 2, 2), 3, hidden=4, generator=seeded(seed)).double() for seed in range(2)]
    x = torch.rand(3, 1, 2, 2, generator=seeded(), dtype=torch.float64).requires_grad_()
    y = torch.tensor([1, 1, 1])
    g_t = [weight_gradient(model, torch.full((1, 1, 2, 2), 0.7, dtype=torch.float64), y[:1]) for model in models]
    (slope,) = torch.autograd.grad(mismatch(models, x, y, g_t), x)
    h, numeric = 1e-6, torch.zeros_like(slope)
    for place in range(x.numel()):
        step = torch.zeros(x.numel(), dtype=torch.float64)
        step[place] = h
        up, down = (mismatch(models, (x + s * step.view_as(x)).detach(), y, g_t) for s in (1, -1))
        numeric.view(-1)[place] = (up - down) / (2 * h)
    assert numeric.abs().max() > 1e-3
    torch.testing.assert_close(slope, numeric, rtol=1e-5, atol=1e-8)


def test_a_poison_that_is_the_target_matches_exactly(digits, victim):
    victim, x, y = copy.deepcopy(victim).double(), digits.x_val[:1].double(), torch.tensor([4])
    g_t = [weight_gradient(victim, x, y)]
    assert mismatch([victim], x, y, g_t).item() == pytest.approx(0, abs=1e-6)
    assert mismatch([victim], x, y, [-g_t[0]]).item() == pytest.approx(2)


@pytest.mark.parametrize("augment", [None, Shift(1)], ids=["plain", "shift"])
def test_poisons_keep_budget_bound_and_labels(augment, digits, victim):
    before, state = copy.deepcopy(victim.state_dict()), torch.get_rng_state()
    clean, target = digits.x_train.clone(), digits.x_val[:1]
    settings = {"models": [victim], "fraction": 0.01, "eps": 0.2, "steps": 10, "restarts": 2, "progress": False}
    first, second = (
        gradient_matching(digits, target, 4, augment=augment, generator=seeded(), **settings) for _ in range(2)
    )
    assert first.count == budget(digits, 0.01) == 10
    assert torch.equal(first.y, digits.y_train) and (first.y[first.is_poison] == 4).all()
    changed = (first.x - digits.x_train).abs().flatten(1).amax(1)
    assert 0.01 < changed.max() <= 0.2 + 1e-6
    assert not changed[~first.is_poison].any()
    assert first.x.min() >= 0 and first.x.max() <= 1
    assert torch.equal(first.x, second.x)
    assert torch.equal(digits.x_train, clean) and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(weight, before[name]) for name, weight in victim.state_dict().items())
    assert all(weight.grad is None for weight in victim.parameters())


def test_more_restarts_never_match_worse(digits, victim):
    y, target = torch.tensor([4]), digits.x_val[:1]
    g_t = [weight_gradient(victim, target, y)]

    def reached(restarts):
        settings = {"fraction": 0.01, "eps": 0.2, "steps": 10, "progress": False, "generator": seeded()}
        poisoned = gradient_matching(digits, target, 4, models=[victim], restarts=restarts, **settings)
        return mismatch([victim], poisoned.x[poisoned.is_poison], poisoned.y[poisoned.is_poison], g_t).item()

    one, four = reached(1), reached(4)
    assert four <= one < 0.9


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x_target", torch.zeros(2, 1, 28, 28)),
        ("wanted", 10),
        ("fraction", 0.0),
        ("fraction", 0.9),
        ("eps", -0.1),
        ("eps", "much"),
        ("steps", 0),
        ("step_size", 0.0),
        ("restarts", 0),
        ("models", []),
        ("models", [nn.Linear(2, 2)]),
        ("augment", 3),
        ("progress", "no"),
        ("generator", 3),
    ],
    ids=lambda value: value if isinstance(value, str) else "given",
)
def test_bad_input_is_named(name, value, digits, victim, refuses):
    right = {"x_target": digits.x_val[:1], "wanted": 4, "fraction": 0.01, "eps": 0.2, "models": [victim]}
    word = "model" if name == "models" else name
    refuses(gradient_matching, {"data": digits, **right, "steps": 1, "progress": False, name: value}, word)


def by_art(model, data, target, wanted, *, fraction, eps, steps):
    """The training images as ART poisons them, and which of them it moved."""
    from art.attacks.poisoning import GradientMatchingAttack
    from art.estimators.classification import PyTorchClassifier

    model = copy.deepcopy(model)
    classifier = PyTorchClassifier(
        model=model,
        loss=nn.CrossEntropyLoss(),
        optimizer=torch.optim.Adam(model.parameters()),
        input_shape=(1, 28, 28),
        nb_classes=10,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    peer = GradientMatchingAttack(
        classifier,
        percent_poison=fraction,
        epsilon=eps,
        max_trials=1,
        max_epochs=steps,
        learning_rate_schedule=([1e-1, 1e-2, 1e-3, 1e-4], [3 * steps // 8, 5 * steps // 8, 7 * steps // 8, steps]),
        verbose=0,
    )
    x = peer.poison(target.numpy(), np.array([wanted]), data.x_train.numpy(), data.y_train.numpy())[0]
    x = torch.from_numpy(x)
    return x, (x - data.x_train).abs().flatten(1).amax(1) > 1e-4


@pytest.mark.oracle
def test_gradient_matching_matches_as_well_as_art(digits, victim):
    target, wanted, budgeted = digits.x_val[:1], 4, {"fraction": 0.02, "eps": 0.2, "steps": 60}
    g_t = [weight_gradient(victim, target, torch.tensor([wanted]))]
    theirs, moved = by_art(victim, digits, target, wanted, **budgeted)
    ours = gradient_matching(
        digits, target, wanted, models=[victim], **budgeted, restarts=1, generator=seeded(), progress=False
    )

    def reached(poisons):
        return mismatch([victim], poisons, torch.full((len(poisons),), wanted), g_t).item()

    assert reached(theirs[moved]) < reached(digits.x_train[moved]), "the peer works"
    assert reached(ours.x[ours.is_poison]) <= reached(theirs[moved]) + 0.02


@pytest.mark.full
def test_gradient_matching_turns_as_many_targets_as_art(digits):
    recipe = REFERENCE["mlp", "digits"]
    surrogate = train(replace(recipe, epochs=4), digits, seed=100, progress=False)[0]
    budgeted = {"fraction": 0.05, "eps": 0.4, "steps": 100}

    def ours(x, wanted, generator):
        more = {"restarts": 1, "generator": generator, "progress": False}
        return gradient_matching(digits, x, wanted, models=[surrogate], **budgeted, **more)

    def theirs(x, wanted, generator):
        x, moved = by_art(surrogate, digits, x, wanted, **budgeted)
        assert 0 < moved.sum() <= budget(digits, budgeted["fraction"])
        return Poisoned(x, digits.y_train, moved)

    turned = [
        targeted_outcome(
            attack,
            digits,
            random_targets(digits, 5, generator=seeded(1)),
            victim=partial(from_scratch, recipe=recipe),
            seeds=[0],
            generator=seeded(2),
            progress=False,
        ).success.hits
        for attack in (ours, theirs)
    ]
    assert turned[0] >= turned[1]


@pytest.mark.full
def test_gradient_matching_from_scratch_over_twenty_targets(digits):
    recipe = REFERENCE["mlp", "digits"]
    surrogates = [
        train(replace(recipe, epochs=epochs), digits, seed=100 + number, progress=False)[0]
        for number, epochs in enumerate((1, 2, 4, 8, 20))
    ]
    attack = partial(
        gradient_matching, models=surrogates, fraction=0.05, eps=0.4, steps=100, restarts=1, progress=False
    )
    outcome = targeted_outcome(
        lambda x, wanted, generator: attack(digits, x, wanted, generator=generator),
        digits,
        random_targets(digits, 20, generator=seeded(1)),
        victim=partial(from_scratch, recipe=recipe),
        seeds=range(3),
        generator=seeded(2),
        progress=False,
    )
    assert outcome.success.value >= 0.5 and outcome.loss < 0.01, outcome

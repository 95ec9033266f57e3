"""Feature collision and convex polytope: closed forms, SciPy, ART, and what they reach on digits."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from scipy.optimize import lsq_linear, minimize
from torch import nn

from spai_lab.attacks.poisoning.collision import convex_polytope, feature_collision, nearest_mixture, onto_simplex
from spai_lab.attacks.poisoning.outcome import disjoint, frozen_features, random_targets, targeted_outcome
from spai_lab.attacks.poisoning.poisoned import budget
from spai_lab.data import Dataset
from spai_lab.models import features
from spai_lab.training import reference
from spai_lab.training.recipes import REFERENCE, train


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def toy(seed=0, count=20, size=6):
    """Points near the middle of the cube, so that no bound is met on the way, with a linear extractor of 3 features."""
    generator = seeded(seed)
    x = 0.4 + 0.2 * torch.rand(count, 1, 1, size, generator=generator, dtype=torch.float64)
    y = torch.arange(count) % 2
    data = Dataset("toy", x, y, x, y, x, y, ("a", "b"), "")
    model = nn.Sequential(nn.Flatten(), nn.Linear(size, 3, bias=False), nn.Linear(3, 2)).double()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(generator=generator)
    return data, model, x[:1], model[1].weight.detach()


@pytest.fixture(scope="module")
def extractor():
    return reference("lenet", "mnist")


ATTACKS = {
    "collision": lambda data, x, wanted, model, **more: feature_collision(data, x, wanted, model=model, **more),
    "polytope": lambda data, x, wanted, model, **more: convex_polytope(data, x, wanted, models=[model], **more),
}
each_attack = pytest.mark.parametrize("attack", ATTACKS.values(), ids=list(ATTACKS))


@pytest.mark.parametrize("beta", [0.1, 1.0, 10.0])
def test_a_linear_extractor_has_a_closed_form(beta):
    data, model, t, W = toy()
    poisoned = feature_collision(
        data, t, 1, model=model, fraction=0.2, beta=beta, steps=300, generator=seeded(), progress=False
    )
    x, b = poisoned.x[poisoned.is_poison].flatten(1), data.x_train[poisoned.is_poison].flatten(1)
    pull = 2 * W.T @ W
    expected = torch.linalg.solve(pull + beta * torch.eye(6, dtype=W.dtype), pull @ t.view(-1, 1) + beta * b.T).T
    assert (expected - b).abs().max() > 0.01
    torch.testing.assert_close(x, expected, atol=1e-4, rtol=0)


def test_a_watermark_moves_the_base_and_a_heavy_beta_keeps_it():
    data, model, t, _ = toy()
    poisoned = feature_collision(
        data, t, 1, model=model, fraction=0.2, beta=1e6, watermark=0.3, generator=seeded(), progress=False
    )
    base = data.x_train[poisoned.is_poison]
    torch.testing.assert_close(poisoned.x[poisoned.is_poison], 0.7 * base + 0.3 * t, atol=1e-4, rtol=0)


def test_the_simplex_projection_solves_its_quadratic_program():
    generator = seeded()
    for size in (1, 2, 5, 9):
        v = 2 * torch.randn(size, generator=generator, dtype=torch.float64)
        sums_to_one = {"type": "eq", "fun": lambda c: c.sum() - 1}
        best = minimize(
            lambda c, v=v: ((c - v.numpy()) ** 2).sum(),
            np.full(size, 1 / size),
            method="SLSQP",
            bounds=[(0, None)] * size,
            constraints=[sums_to_one],
            options={"ftol": 1e-14},
        )
        np.testing.assert_allclose(onto_simplex(v).numpy(), best.x, atol=1e-6)


def test_the_nearest_mixture_solves_its_quadratic_program():
    generator = seeded()
    A = torch.randn(8, 5, generator=generator, dtype=torch.float64)
    t = A @ torch.tensor([0.5, 0.5, 0.0, 0.0, 0.0], dtype=torch.float64) + 0.5 * torch.randn(
        8, generator=generator, dtype=torch.float64
    )
    best = minimize(
        lambda c: ((A.numpy() @ c - t.numpy()) ** 2).sum(),
        np.full(5, 0.2),
        method="SLSQP",
        bounds=[(0, None)] * 5,
        constraints=[{"type": "eq", "fun": lambda c: c.sum() - 1}],
        options={"ftol": 1e-14},
    )
    c = nearest_mixture(A, t, torch.full((5,), 0.2, dtype=torch.float64), tolerance=1e-10, most=10_000)
    np.testing.assert_allclose(c.numpy(), best.x, atol=1e-5)


def test_one_poison_in_a_polytope_is_bounded_least_squares():
    data, model, t, W = toy()
    eps = 0.03
    poisoned = convex_polytope(
        data,
        t,
        1,
        models=[model],
        fraction=0.05,
        eps=eps,
        steps=200,
        step_size=1e-3,
        generator=seeded(),
        progress=False,
    )
    x, b = (part[poisoned.is_poison].flatten().numpy() for part in (poisoned.x, data.x_train))
    aim = (W @ t.flatten()).numpy()
    best = lsq_linear(W.numpy(), aim, bounds=(b - eps, b + eps))
    assert 2 * best.cost < ((W.numpy() @ b - aim) ** 2).sum()
    assert ((W.numpy() @ x - aim) ** 2).sum() == pytest.approx(2 * best.cost, rel=0.02, abs=1e-5)


@each_attack
def test_poisons_keep_budget_bound_and_labels(attack, digits, extractor):
    before = copy.deepcopy(extractor.state_dict())
    clean, state = digits.x_train.clone(), torch.get_rng_state()
    settings = {"fraction": 0.01, "eps": 0.2, "steps": 3, "progress": False}
    first, second = (attack(digits, digits.x_val[:1], 4, extractor, generator=seeded(), **settings) for _ in range(2))
    assert first.count == budget(digits, 0.01) == 10
    assert torch.equal(first.y, digits.y_train) and (first.y[first.is_poison] == 4).all()
    changed = (first.x - digits.x_train).abs().flatten(1).amax(1)
    assert 0.01 < changed.max() <= 0.2 + 1e-6
    assert not changed[~first.is_poison].any()
    assert first.x.min() >= 0 and first.x.max() <= 1
    assert torch.equal(first.x, second.x)
    assert torch.equal(digits.x_train, clean) and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(weight, before[name]) for name, weight in extractor.state_dict().items())
    assert all(weight.grad is None and weight.requires_grad for weight in extractor.parameters())


@each_attack
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x_target", torch.zeros(2, 1, 28, 28)),
        ("x_target", torch.full((1, 1, 28, 28), 2.0)),
        ("wanted", 10),
        ("wanted", -1),
        ("fraction", 0.0),
        ("fraction", 0.9),
        ("eps", -0.1),
        ("eps", 8),
        ("steps", 0),
        ("step_size", 0.0),
        ("model", None),
        ("model", nn.Linear(2, 2)),
        ("progress", "no"),
        ("generator", 3),
    ],
    ids=lambda value: value if isinstance(value, str) else "given",
)
def test_bad_input_is_named(attack, name, value, digits, extractor, refuses):
    right = {"x_target": digits.x_val[:1], "wanted": 4, "fraction": 0.01, "eps": 0.2, "model": extractor}
    arguments = right | {"steps": 1, "progress": False, name: value}
    refuses(lambda x_target, wanted, model, **more: attack(digits, x_target, wanted, model, **more), arguments, name)


@pytest.mark.parametrize("name", ["beta", "watermark"])
def test_feature_collision_names_its_own_arguments(name, digits, extractor, refuses):
    arguments = {"data": digits, "x_target": digits.x_val[:1], "wanted": 4, "model": extractor, "fraction": 0.01}
    refuses(feature_collision, arguments | {name: -0.1}, name, "-0.1")


def test_convex_polytope_asks_for_a_model(digits, refuses):
    arguments = {"data": digits, "x_target": digits.x_val[:1], "wanted": 4, "models": [], "fraction": 0.01, "eps": 0.1}
    refuses(convex_polytope, arguments, "models", "at least one")


def test_feature_collision_turns_transferred_features(digits, extractor):
    data = digits.first(400)
    attack = partial(feature_collision, data, model=extractor, fraction=0.02, beta=0.1, progress=False)
    outcome = targeted_outcome(
        lambda x, wanted, generator: attack(x, wanted, generator=generator),
        data,
        random_targets(data, 4, generator=seeded(1)),
        victim=partial(frozen_features, extractor=extractor),
        seeds=[5],
        generator=seeded(2),
        progress=False,
    )
    assert outcome.success.value >= 0.5
    assert outcome.loss < 0.01


@pytest.mark.oracle
def test_feature_collision_gets_as_near_as_art(digits, extractor):
    from art.attacks.poisoning import FeatureCollisionAttack
    from art.estimators.classification import PyTorchClassifier

    classifier = PyTorchClassifier(
        model=copy.deepcopy(extractor),
        loss=nn.CrossEntropyLoss(),
        input_shape=(1, 28, 28),
        nb_classes=10,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    beta, steps, t = 1.0, 300, digits.x_val[:1]
    ours = feature_collision(
        digits, t, 4, model=extractor, fraction=0.003, beta=beta, steps=steps, generator=seeded(), progress=False
    )
    b, x = digits.x_train[ours.is_poison], ours.x[ours.is_poison]
    with torch.no_grad():
        ratio = (features(extractor, t).numel() / t.numel()) ** 2
    peer = FeatureCollisionAttack(
        classifier,
        t.numpy(),
        classifier.layer_names[-2],
        learning_rate=0.1,
        max_iter=steps,
        similarity_coeff=beta / ratio,
        verbose=False,
    )
    theirs = torch.from_numpy(peer.poison(b.numpy().copy())[0])

    @torch.no_grad()
    def objective(x):
        gap = (features(extractor, x) - features(extractor, t)).square().sum(1)
        return gap + beta / 2 * (x - b).square().flatten(1).sum(1)

    assert (objective(theirs) < objective(b) / 2).all(), "the peer works"
    # The features are not convex in the pixels: a single poison may end in a worse valley than the peer's.
    assert objective(x).mean() <= objective(theirs).mean()


UNSEEN = range(3)


@pytest.mark.full
def test_feature_collision_over_twenty_targets(digits):
    pretraining, data = disjoint(digits, 539)
    extractor = train(REFERENCE["lenet", "digits"], pretraining, seed=0, progress=False)[0]
    attack = partial(feature_collision, model=extractor, fraction=0.01, beta=0.1, steps=50, progress=False)
    outcome = targeted_outcome(
        lambda x, wanted, generator: attack(data, x, wanted, generator=generator),
        data,
        random_targets(data, 20, generator=seeded(1)),
        victim=partial(frozen_features, extractor=extractor),
        seeds=UNSEEN,
        generator=seeded(2),
        progress=False,
    )
    assert outcome.success.value >= 0.5 and outcome.loss < 0.01, outcome


@pytest.mark.full
def test_convex_polytope_over_twenty_targets_and_unseen_extractors(digits):
    pretraining, data = disjoint(digits, 539)
    pretrained = {
        seed: train(REFERENCE["mlp", "digits"], pretraining, seed=seed, progress=False)[0]
        for seed in (*UNSEEN, *range(100, 106))
    }
    surrogates = [model for seed, model in pretrained.items() if seed not in UNSEEN]
    attack = partial(convex_polytope, models=surrogates, fraction=0.02, eps=0.4, steps=100, progress=False)
    outcome = targeted_outcome(
        lambda x, wanted, generator: attack(data, x, wanted, generator=generator),
        data,
        random_targets(data, 20, generator=seeded(1)),
        victim=lambda data, seed: frozen_features(data, seed, extractor=pretrained[seed]),
        seeds=UNSEEN,
        generator=seeded(2),
        progress=False,
    )
    assert outcome.success.value >= 0.5 and outcome.loss < 0.01, outcome

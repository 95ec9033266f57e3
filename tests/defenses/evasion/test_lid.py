"""Local intrinsic dimensionality: its estimate against the exact distribution, its neighbors, and its detector."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from spai_lab.attacks.evasion.gradient import pgd
from spai_lab.defenses.evasion.detection import evade, evasion_rate, scored, threshold_at
from spai_lab.defenses.evasion.lid import activations, lid, lid_features, lid_of, nearest
from spai_lab.metrics import roc
from spai_lab.threat import fooled
from spai_lab.training.weights import reference


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def in_a_ball(balls: int, points: int, dimension: int, generator: torch.Generator) -> torch.Tensor:
    """Points spread evenly over balls of radius 1 around the origin, `(balls, points, dimension)`."""
    direction = torch.randn(balls, points, dimension, dtype=torch.float64, generator=generator)
    u = torch.rand(balls, points, 1, dtype=torch.float64, generator=generator)
    return direction / direction.norm(dim=2, keepdim=True) * u ** (1 / dimension)


def p_value(dimension: int, assumed: int, *, k: int = 20, balls: int = 400) -> float:
    """How likely estimates as far out as these are: 2 m k / LID is chi-squared, 2 (k - 1) degrees, in m dimensions."""
    from scipy.stats import chi2

    clouds = in_a_ball(balls, 100, dimension, seeded(dimension))
    origin = torch.zeros(1, dimension, dtype=torch.float64)
    estimates = torch.cat([lid_of(nearest(origin, cloud, k)) for cloud in clouds])
    statistic = float((2 * assumed * k / estimates).sum())
    law = chi2(2 * (k - 1) * balls)
    return 2 * min(law.cdf(statistic), law.sf(statistic))


@pytest.mark.parametrize("dimension", [1, 2, 5, 20])
def test_points_in_a_ball_give_its_dimension(dimension):
    """False alarm 1e-6 for each dimension."""
    assert p_value(dimension, dimension) > 1e-6


def test_a_dimension_that_is_off_by_a_tenth_is_noticed():
    assert p_value(20, 22) < 1e-6


def test_neighbors_are_scikit_learns(digits):
    from sklearn.neighbors import NearestNeighbors

    points, others = digits.x_test[:30].flatten(1), digits.x_train[:100].flatten(1)
    peer = NearestNeighbors(n_neighbors=20, algorithm="brute").fit(others.double().numpy())
    expected = peer.kneighbors(points.double().numpy())[0]
    np.testing.assert_allclose(nearest(points, others, 20).numpy(), expected, rtol=1e-9)


def test_each_layer_is_read_once_and_none_is_overwritten():
    linear = nn.Linear(4, 3)
    model = nn.Sequential(nn.Flatten(), linear, nn.ReLU(inplace=True), nn.Dropout())
    x = torch.rand(2, 1, 2, 2, generator=seeded())
    read = activations(model, x)
    expected = [x.flatten(1), linear(x.flatten(1)), linear(x.flatten(1)).relu()]
    assert len(read) == 3
    for got, wanted in zip(read, expected, strict=True):
        torch.testing.assert_close(got, wanted)
    assert not any(layer._forward_hooks for layer in model)


def test_features_have_the_gradient_of_finite_differences():
    layers = [nn.Flatten(), nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)]
    model = nn.Sequential(*layers).double()
    generator = seeded()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-1, 1, generator=generator)
    x, minibatch = (torch.rand(n, 1, 2, 2, dtype=torch.float64, generator=generator) for n in (3, 12))
    x = 0.1 + 0.8 * x
    assert torch.autograd.gradcheck(partial(lid_features, model, minibatch=minibatch, k=5), x.requires_grad_())


def test_coinciding_and_equally_distant_points_stay_finite():
    around = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0]], requires_grad=True)
    features = lid_features(nn.Sequential(nn.ReLU()), x, around, k=2)
    assert features.isfinite().all()
    assert torch.autograd.grad(features.log().sum(), x)[0].isfinite().all()


@pytest.fixture(scope="module")
def lenet():
    return reference("lenet", "digits")


@pytest.fixture(scope="module")
def detector(lenet, digits):
    attack = partial(pgd, eps=0.3, steps=10, generator=seeded())
    return lid(lenet, digits.x_train[:400], digits.y_train[:400], attack, generator=seeded())


def test_it_catches_what_it_learned_and_the_attacker_who_knows_it_evades(lenet, digits, detector):
    x, y = digits.sample(64)
    clean = scored(detector, digits.x_val)
    threshold = threshold_at(clean, 0.05)
    x_adv = pgd(lenet, x, y, eps=0.3, steps=20, generator=seeded(1))
    caught = scored(detector, x_adv[fooled(lenet, x_adv, y)])
    curve = roc(torch.cat([clean, caught]), torch.arange(len(clean) + len(caught)) >= len(clean))
    assert curve.area > 0.9
    assert curve.best(false_positives=0.05) > 0.7

    x_adv = evade(lenet, x[:32], y[:32], [detector], [threshold], eps=0.3, steps=40, generator=seeded())
    assert evasion_rate(lenet, x_adv, y[:32], [detector], [threshold]).value > 0.8


def test_noise_alone_is_not_suspected(digits, detector):
    x = digits.sample(100)[0]
    threshold = threshold_at(scored(detector, digits.x_val), 0.05)
    noise = torch.randn(x.shape, generator=seeded())
    size = 0.3 * 28 * noise / noise.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    assert (scored(detector, (x + size).clamp(0, 1)) > threshold).float().mean() < 0.5


def test_a_seed_repeats_and_nothing_is_changed(lenet, digits):
    x, y = digits.x_train[:160].clone(), digits.y_train[:160].clone()
    weights = [parameter.clone() for parameter in lenet.parameters()]
    state = torch.get_rng_state()
    attack = partial(pgd, eps=0.3, steps=2, random_start=False)
    first, second = (lid(lenet, x, y, attack, generator=seeded())(digits.x_test[:5]) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(x, digits.x_train[:160])
    assert torch.equal(state, torch.get_rng_state())
    assert all(map(torch.equal, weights, lenet.parameters()))
    assert all(parameter.grad is None for parameter in lenet.parameters())
    assert not lenet.training


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"x_train": torch.full((60, 2, 1, 1), 2.0)}, ("x", "[0, 1]")),
        ({"x_train": torch.rand(20, 2, 1, 1), "y_train": torch.zeros(20).long()}, ("x_train", "more", "20")),
        ({"attack": None}, ("attack", "called")),
        ({"attack": lambda model, x, y: x}, ("attack", "0 of 40", "at least 2")),
        ({"attack": lambda model, x, y: x[:1]}, ("attack", "shape")),
        ({"k": 1}, ("k", "at least 2")),
        ({"minibatch": 3}, ("minibatch", "at least 5")),
        ({"generator": 1}, ("generator",)),
    ],
    ids=["pixels", "few", "no attack", "harmless", "shape", "k", "minibatch", "generator"],
)
def test_bad_input_is_named(refuses, wrong, words):
    x = torch.rand(60, 2, 1, 1, generator=seeded())
    good = {"model": nn.Flatten(), "x_train": x, "y_train": x.flatten(1).argmax(1), "attack": lambda model, x, y: 1 - x}
    refuses(lid, good | {"k": 5, "minibatch": 20} | wrong, *words)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"k": 1}, ("k",)),
        ({"minibatch": torch.zeros(3, 2)}, ("minibatch", "k = 5")),
        ({"minibatch": torch.zeros(9, 3)}, ("minibatch", "like x")),
    ],
    ids=["k", "few", "shape"],
)
def test_bad_features_are_named(refuses, wrong, words):
    good = {"model": nn.ReLU(), "x": torch.zeros(2, 2), "minibatch": torch.rand(9, 2), "k": 5}
    refuses(lid_features, good | wrong, *words)

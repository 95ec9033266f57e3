"""The universal perturbation on a linear model, where the best one is known, and against ART on images nobody saw."""

import random

import pytest
import torch

from spai_lab.attacks.evasion import universal
from spai_lab.attacks.evasion.least_distortion import deepfool
from spai_lab.attacks.evasion.universal import universal_perturbation
from spai_lab.models import softmax_regression
from spai_lab.threat import fooled

EPS = {("lenet", "linf"): 0.25, ("lenet", "l2"): 3.5, ("lenet-robust", "linf"): 0.4, ("lenet-robust", "l2"): 5.0}
LEARNED_FROM = 32


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def linear():
    """Two classes, gray images that all belong to the first, and the pixels' direction toward the second."""
    model = softmax_regression((1, 5, 5), 2, generator=seeded()).double()
    x = 0.45 + 0.1 * torch.rand(40, 1, 5, 5, dtype=torch.float64, generator=seeded(1))
    weight = model[-1].weight.detach().view(2, 1, 5, 5)
    w = weight[1] - weight[0]
    with torch.no_grad():
        lead = (lambda z: z[:, 0] - z[:, 1])(model(x))
        model[-1].bias[0] += 0.05 - lead.min()  # so that every image is read as the first class
    return model, x, w


def test_a_linear_model_is_left_along_its_normal(linear):
    model, x, w = linear
    v = universal_perturbation(model, x, eps=1.0, norm="l2", fooling_rate=1.0, generator=seeded())
    assert torch.allclose(v[0] / v.norm(), w / w.norm(), rtol=0, atol=1e-9)
    assert (model(x + v).argmax(1) == 1).all()


def test_one_image_gets_deepfools_step(linear):
    model, x, _ = linear
    label = torch.tensor([0])
    expected = deepfool(model, x[:1], label) - x[:1]
    assert torch.equal(universal_perturbation(model, x[:1], eps=5.0, norm="l2"), expected)


def test_steps_of_a_batch_add_up_and_those_already_fooled_add_none(linear):
    model, x, _ = linear
    pair, labels = x[:2], torch.tensor([0, 1])  # the second counts as fooled from the start
    expected = deepfool(model, x[:1], labels[:1]) - x[:1]
    found = universal_perturbation(model, pair, labels, eps=5.0, norm="l2", passes=1, batch_size=2)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    both = (deepfool(model, pair, torch.tensor([0, 0])) - pair).sum(0, keepdim=True)
    found = universal_perturbation(model, pair, eps=5.0, norm="l2", passes=1, batch_size=2)
    assert torch.allclose(found, both, rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("eps", [0.0, 0.01, 0.3])
def test_it_stays_in_its_ball(linear, norm, eps):
    model, x, _ = linear
    v = universal_perturbation(model, x, eps=eps, norm=norm, passes=2)
    assert (v.abs().max() if norm == "linf" else v.norm()) <= eps + 1e-6
    assert v.shape == (1, 1, 5, 5) and v.dtype == x.dtype and not v.requires_grad


def test_it_stops_once_enough_images_are_fooled(linear, monkeypatch):
    model, x, _ = linear
    calls = []
    monkeypatch.setattr(universal, "deepfool", lambda *a, **k: calls.append(1) or deepfool(*a, **k))
    universal_perturbation(model, x, eps=1.0, norm="l2", batch_size=40, fooling_rate=0.0, passes=5)
    assert len(calls) == 1


def test_the_same_generator_gives_the_same_perturbation(victim, digits):
    x, before = digits.x_train[:16], torch.get_rng_state()
    first, second = (universal_perturbation(victim, x, eps=0.2, passes=1, generator=seeded()) for _ in range(2))
    with torch.no_grad():
        third = universal_perturbation(victim, x, eps=0.2, passes=1, generator=seeded())
    assert torch.equal(first, second) and torch.equal(first, third)
    assert torch.equal(before, torch.get_rng_state())
    assert all(p.grad is None for p in victim.parameters())


def test_no_images_give_no_perturbation(digits):
    def unasked(x):
        raise AssertionError("the model was called")

    assert not universal_perturbation(unasked, digits.x_test[:0], eps=0.1, passes=2).any()


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"fooling_rate": 1.1}, ("fooling_rate", "1.1", "from 0 to 1")),
        ({"passes": 0}, ("passes", "0", "at least 1")),
        ({"steps": 1.5}, ("steps", "1.5")),
        ({"overshoot": -0.1}, ("overshoot", "-0.1")),
        ({"batch_size": 0}, ("batch_size", "0")),
        ({"eps": 8}, ("eps", "8", "from 0 to 1")),
        ({"norm": "l1"}, ("norm", "'l1'")),
        ({"y": torch.tensor([0])}, ("y", "(40,)")),
    ],
)
def test_bad_arguments_are_named(linear, refuses, bad, words):
    model, x, _ = linear
    refuses(universal_perturbation, {"model": model, "x": x, "eps": 0.1, **bad}, *words)


@pytest.mark.oracle
@pytest.mark.full
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_fools_unseen_images_as_often_as_arts(victim, digits, request, norm):
    """The mean over three sets of training images; test images judge both, against what the model said of them."""
    from art.attacks.evasion import UniversalPerturbation

    from benchmarks.contests.universal import PASSES, STEPS, art_attack

    eps = EPS[request.node.callspec.params["victim"], norm]
    x_test = digits.x_test
    said = victim(x_test).argmax(1)

    def rate(v) -> float:
        return fooled(victim, (x_test + v).clamp(0, 1), said).double().mean().item()

    ours, theirs = [], []
    for seed in range(3):
        x = digits.x_train[seed * LEARNED_FROM : (seed + 1) * LEARNED_FROM]
        random.seed(seed)
        peer = art_attack(UniversalPerturbation, victim, x, eps, norm)
        peer.generate(x.numpy())
        theirs.append(rate(torch.from_numpy(peer.noise)))
        settings = {"eps": eps, "norm": norm, "passes": PASSES, "steps": STEPS}
        ours.append(rate(universal_perturbation(victim, x, **settings, generator=seeded(seed))))
    noise = eps * torch.randn(1, 1, 28, 28, generator=seeded()).sign() / (1 if norm == "linf" else 28)
    assert sum(theirs) / 3 > 0.03
    assert sum(ours) / 3 >= sum(theirs) / 3 - 0.02, (ours, theirs)
    assert sum(ours) / 3 > rate(noise) + 0.05

"""MagNet, against SciPy, finite differences and an attack that knows its detectors and its reformer."""

import numpy as np
import pytest
import scipy.spatial.distance
import torch
from torch import nn

from spai_lab.attacks.evasion.carlini_wagner import carlini_wagner
from spai_lab.attacks.evasion.gradient import pgd
from spai_lab.defenses.evasion.detection import evade, evades
from spai_lab.defenses.evasion.image_networks import train_autoencoder
from spai_lab.defenses.evasion.magnet import MagNet, divergence, magnet, reconstruction_error
from spai_lab.threat import fooled
from spai_lab.training.loop import accuracy


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Principal(nn.Module):
    """An autoencoder without training: keeps what lies along the principal components of its images."""

    def __init__(self, x: torch.Tensor, components: int) -> None:
        super().__init__()
        flat = x.flatten(1)
        self.mean, self.V = flat.mean(0), torch.linalg.svd(flat - flat.mean(0), full_matrices=False)[2][:components]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.mean + (x.flatten(1) - self.mean) @ self.V.T @ self.V).view_as(x).clamp(0, 1)


@pytest.fixture(scope="module")
def victim():
    from spai_lab.training.weights import reference

    return reference("lenet", "digits")


@pytest.fixture(scope="module")
def defense(victim, digits) -> MagNet:
    return magnet(victim, Principal(digits.x_train, 25), digits.x_val, fpr=0.05)


def random_model(classes: int = 4) -> tuple[nn.Module, nn.Module, torch.Tensor]:
    """A classifier and an autoencoder of random weights, and inputs, in float64."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        f = nn.Sequential(nn.Flatten(), nn.Linear(6, classes)).double()
        AE = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Sigmoid()).double()
    return f, AE, torch.rand(5, 1, 2, 3, generator=seeded(), dtype=torch.float64)


@pytest.mark.parametrize("p", [1, 2])
def test_the_reconstruction_error_is_numpys_norm(p):
    _, AE, x = random_model()
    expected = np.linalg.norm((x - AE(x)).flatten(1).detach().numpy(), ord=p, axis=1)
    np.testing.assert_allclose(reconstruction_error(AE, p)(x).detach(), expected)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 40.0], ids=["cold", "one", "hot"])
def test_the_divergence_is_scipys(temperature):
    f, AE, x = random_model()
    P, Q = ((f(image) / temperature).softmax(1).detach().numpy() for image in (x, AE(x)))
    expected = scipy.spatial.distance.jensenshannon(P, Q, axis=1) ** 2
    np.testing.assert_allclose(divergence(f, AE, temperature)(x).detach(), expected, atol=1e-12)


def test_the_divergence_of_certain_answers_is_finite():
    f, x = nn.Sequential(nn.Flatten(), Times(1e4)), torch.tensor([[[[0.0, 1.0]]]])
    score = divergence(f, lambda x: x.flip(3), temperature=1.0)
    x.requires_grad_()
    assert score(x).item() == pytest.approx(np.log(2))
    assert torch.autograd.grad(score(x).sum(), x)[0].isfinite().all()


class Times(nn.Module):
    """A multiple of its input."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * x


def test_all_that_an_attacker_climbs_has_the_gradient_of_finite_differences():
    f, AE, x = random_model()
    detectors = [reconstruction_error(AE, 1), reconstruction_error(AE, 2), divergence(f, AE, 10.0)]
    defense = magnet(f, AE, x, detectors=detectors, fpr=0.2)
    x.requires_grad_()
    for function in (*defense.detectors, defense, defense.reformed):
        assert torch.autograd.gradcheck(function, x)


def test_each_detector_rejects_its_share_of_clean_images_and_the_defense_what_any_does(defense, digits):
    x = digits.x_val
    scores = [detector(x) for detector in defense.detectors]
    assert len(scores) == 2
    over = [score > threshold for score, threshold in zip(scores, defense.thresholds, strict=True)]
    assert [mask.sum().item() for mask in over] == [9, 9]  # 5 % of 180
    assert torch.equal(defense.rejects(x), over[0] | over[1])
    assert torch.equal(defense(x) > 1, defense.rejects(x))


def test_the_reformer_keeps_clean_digits_and_undoes_a_small_attack(victim, defense, digits):
    x, y = digits.x_test[:100], digits.y_test[:100]
    assert accuracy(defense.reformed, x, y) >= accuracy(victim, x, y) - 0.02
    x_adv = carlini_wagner(victim, x[:24], y[:24], initial_c=1.0, searches=2, steps=100)
    fell = fooled(victim, x_adv, y[:24])
    assert fell.float().mean() > 0.9
    assert fooled(defense.reformed, x_adv[fell], y[:24][fell]).float().mean() < 0.3


def test_pgd_on_the_plain_model_is_stopped_and_on_all_parts_evades(victim, defense, digits):
    x, y = digits.x_test[:48], digits.y_test[:48]
    parts = (defense.reformed, x, y, defense.detectors, defense.thresholds)
    model, _, _, detectors, thresholds = parts
    plain = pgd(victim, x, y, eps=0.2, steps=20, generator=seeded())
    assert fooled(victim, plain, y).float().mean() > 0.9
    assert evades(model, plain, y, detectors, thresholds).float().mean() < 0.1
    x_adv = evade(*parts, eps=0.2, steps=60, weight=1.0, generator=seeded())
    assert (x_adv - x).abs().max() <= 0.2 + 1e-6
    assert evades(model, x_adv, y, detectors, thresholds).float().mean() > 0.75


@pytest.mark.full
def test_the_papers_two_autoencoders_on_digits(victim, digits):
    one = train_autoencoder(digits.x_train, generator=seeded(), progress=False)
    two = train_autoencoder(digits.x_train, pooling=False, generator=seeded(1), progress=False)
    detectors = [reconstruction_error(one, 2), reconstruction_error(two, 1), divergence(victim, one, 10.0)]
    defense = magnet(victim, one, digits.x_val, detectors=detectors, fpr=0.01)
    x, y = digits.x_test[:64], digits.y_test[:64]
    assert accuracy(defense.reformed, x, y) >= accuracy(victim, x, y) - 0.02
    parts = (defense.detectors, defense.thresholds)
    plain = pgd(victim, x, y, eps=0.2, generator=seeded())
    assert fooled(victim, plain, y).float().mean() > 0.9
    assert evades(defense.reformed, plain, y, *parts).float().mean() < 0.2
    x_adv = evade(defense.reformed, x, y, *parts, eps=0.2, weight=1.0, generator=seeded())
    assert evades(defense.reformed, x_adv, y, *parts).float().mean() > 0.8


def test_nothing_is_changed(victim, defense, digits):
    x, before, mode = digits.x_test[:4].clone(), torch.get_rng_state(), victim.training
    defense.reformed(x), defense(x), defense.rejects(x)
    assert torch.equal(x, digits.x_test[:4]) and torch.equal(torch.get_rng_state(), before)
    assert victim.training == defense.reformed.training == mode
    assert all(weights.grad is None for weights in victim.parameters())


BAD = {
    "model": ({"model": 1}, ["model is 1"]),
    "reformer": ({"reformer": None}, ["reformer is None"]),
    "range": ({"x_val": torch.full((3, 1, 2, 2), 7.0)}, ["x_val has values"]),
    "nobody": ({"x_val": torch.zeros(0, 1, 2, 2)}, ["x_val", "N at least 1"]),
    "no detectors": ({"detectors": []}, ["detectors is empty"]),
    "no detector": ({"detectors": [3]}, ["detectors is 3"]),
    "blind detector": ({"detectors": [lambda x: x.flatten(1).sum(1) * 0]}, ["detectors", "threshold is 0"]),
    "fpr": ({"fpr": 1.0}, ["fpr is 1"]),
    "shape": ({"reformer": nn.MaxPool2d(2)}, ["autoencoder", "(3, 1, 1, 1)"]),
}


@pytest.mark.parametrize("case", BAD, ids=BAD)
def test_magnet_names_what_it_refuses(case, refuses):
    arguments, words = BAD[case]
    good = {"model": nn.Flatten(), "reformer": nn.Sigmoid(), "x_val": torch.rand(3, 1, 2, 2, generator=seeded())}
    refuses(magnet, good | arguments, *words)


def test_the_detectors_name_what_they_refuse(refuses):
    refuses(reconstruction_error, {"autoencoder": 1}, "autoencoder is 1")
    refuses(reconstruction_error, {"autoencoder": nn.Identity(), "p": 3}, "p is 3")
    refuses(divergence, {"model": 1, "autoencoder": nn.Identity()}, "model is 1")
    refuses(divergence, {"model": nn.Flatten(), "autoencoder": 1}, "autoencoder is 1")
    refuses(divergence, {"model": nn.Flatten(), "autoencoder": nn.Identity(), "temperature": 0}, "temperature is 0")
    softmax = divergence(nn.Sequential(nn.Flatten(), nn.Softmax(1)), nn.Identity())
    refuses(softmax, {"x": torch.rand(3, 1, 2, 2, generator=seeded())}, "probabilities")

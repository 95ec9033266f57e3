"""Randomized smoothing: exact on a linear model, Clopper-Pearson by its definition, no attack inside the radius."""

import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import binom, binomtest, norm
from torch import nn

from spai_lab.attacks.evasion.adaptive import eot
from spai_lab.attacks.evasion.gradient import pgd
from spai_lab.defenses.evasion import smoothing
from spai_lab.defenses.evasion.smoothing import (
    Certified,
    gaussian_noise_training,
    lower_confidence_bound,
    noisy,
    randomized_smoothing,
    smoothed_prediction,
)
from spai_lab.models import mlp
from spai_lab.training.loop import accuracy, fit
from spai_lab.training.recipes import Robustly
from spai_lab.training.weights import reference

FALSE_ALARM = 1e-6


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def linear(distance):
    """A binary model of 4 pixels and an input at this distance from its boundary, in L2; the class is 1."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    w = torch.tensor([0.5, -1.0, 2.0, 0.25])
    x = torch.full((1, 1, 2, 2), 0.5)
    with torch.no_grad():
        model[1].weight.copy_(torch.stack([torch.zeros(4), w]))
        model[1].bias.copy_(torch.tensor([0.0, distance * w.norm() - w.sum() / 2]))
    return model, x, w


def certify(model, x, seed=0, **settings):
    return randomized_smoothing(model, x, generator=seeded(seed), progress=False, **settings)


@pytest.mark.parametrize("distance", [0.1, 0.3, 0.6])
def test_a_linear_model_is_certified_up_to_its_margin_and_nearly_so_far(distance):
    sigma, n, alpha = 0.25, 10_000, 0.001
    model, x, _ = linear(distance)
    certified = certify(model, x, sigma=sigma, n=n, alpha=alpha)
    fewest = binom.ppf(FALSE_ALARM, n, norm.cdf(distance / sigma))
    most = binom.isf(FALSE_ALARM, n, norm.cdf(distance / sigma))
    closest, farthest = (
        sigma * norm.ppf(binomtest(int(k), n).proportion_ci(1 - 2 * alpha, "exact").low) for k in (fewest, most)
    )
    assert certified.classes.tolist() == [1]
    assert closest <= certified.radius.item() <= farthest
    assert closest > distance - 0.3 * sigma
    assert certified.counts.sum() == n


def test_the_certificate_is_wrong_as_seldom_as_it_says():
    """With alpha = .1 the radius may exceed the true one in 10 % of the runs; near it, it does in a few percent."""
    runs, alpha, distance = 600, 0.1, 0.15
    model, x, _ = linear(distance)
    certified = certify(model, x.repeat(runs, 1, 1, 1), sigma=0.25, n=500, alpha=alpha)
    wrong = int((certified.radius > distance).sum())
    assert wrong <= binom.isf(FALSE_ALARM, runs, alpha)
    assert wrong >= binom.ppf(FALSE_ALARM, runs, alpha / 2), "the bound wastes its alpha"


def test_without_the_confidence_bound_half_of_the_certificates_would_be_wrong(monkeypatch):
    runs, alpha, distance = 300, 0.001, 0.15
    model, x, _ = linear(distance)
    monkeypatch.setattr(smoothing, "lower_confidence_bound", lambda hits, trials, alpha: hits.double() / trials)
    certified = certify(model, x.repeat(runs, 1, 1, 1), sigma=0.25, n=500, alpha=alpha)
    assert (certified.radius > distance).sum() > binom.isf(FALSE_ALARM, runs, alpha)


def test_nothing_is_certified_on_the_boundary():
    """There the share is 1/2: each certificate is wrong, and comes with a probability of at most alpha."""
    runs, alpha = 300, 0.01
    model, x, _ = linear(0.0)
    certified = certify(model, x.repeat(runs, 1, 1, 1), sigma=0.25, n=200, alpha=alpha)
    answers = smoothed_prediction(
        model, x.repeat(runs, 1, 1, 1), sigma=0.25, n=200, alpha=alpha, generator=seeded(1), progress=False
    )
    few = binom.isf(FALSE_ALARM, runs, alpha)
    assert (~certified.abstained).sum() <= few
    assert (answers != -1).sum() <= few
    assert (certified.radius[certified.abstained] == 0).all()


def test_the_smoothed_class_of_a_linear_model_changes_just_beyond_the_radius():
    model, x, w = linear(0.3)
    radius = certify(model, x, sigma=0.25).radius.float()
    direction = -(w / w.norm()).view(x.shape)
    inside, outside = x + 0.99 * radius * direction, x + 1.2 * 0.3 * direction
    with torch.no_grad():
        assert model(inside).argmax(1).item() == 1
        assert model(outside).argmax(1).item() == 0


@pytest.fixture(scope="module")
def trained_under_noise(digits):
    generator = seeded(0)
    model = mlp(digits.shape, 10, generator=generator)
    objective = partial(Robustly(gaussian_noise_training, sigma=0.5), generator=generator)
    x, y = digits.x_train, digits.y_train
    fit(model, x, y, epochs=20, learning_rate=3e-3, objective=objective, generator=generator, progress=False)
    return model.eval()


def test_no_attack_inside_the_radius_changes_the_smoothed_class(digits, trained_under_noise):
    """PGD on the mean log-probability over noise; inputs with similar radii share the smallest of them."""
    x = digits.x_test[:24]
    certified = certify(trained_under_noise, x, sigma=0.5, n=1000)
    order = certified.radius.argsort()[certified.abstained.sum() :]
    x, classes, radius = x[order], certified.classes[order], certified.radius[order]
    view = eot(trained_under_noise, 8, transformation=partial(noisy_view, sigma=0.5), generator=seeded(2))

    def judged(eps):
        attacked = [
            pgd(view, *batch, eps=eps(distances), norm="l2", steps=8, generator=seeded(3))
            for *batch, distances in zip(x.split(6), classes.split(6), radius.split(6), strict=True)
        ]
        images = torch.cat(attacked)
        return smoothed_prediction(trained_under_noise, images, sigma=0.5, n=400, generator=seeded(4), progress=False)

    inside, far = judged(lambda distances: 0.999 * distances.min().item()), judged(lambda _: 6.0)
    assert len(x) >= 18
    assert radius.median() > 0.5
    assert ((inside != classes) & (inside != -1)).sum() <= binom.isf(FALSE_ALARM, len(x), 0.002)
    assert (far != classes).float().mean() > 0.5, "the attack is too weak to say anything"


def noisy_view(x, generator, sigma):
    return noisy(x, sigma, generator)


def test_noise_training_certifies_more(digits, trained_under_noise):
    x, y = digits.x_test[:64], digits.y_test[:64]
    before, after = (
        certify(model, x, sigma=0.5, n=500).accuracy(y, 0.75).value
        for model in (reference("mlp", "digits"), trained_under_noise)
    )
    assert after > before + 0.1
    assert accuracy(trained_under_noise, digits.x_test, digits.y_test) > 0.9


@pytest.mark.parametrize("hits", [0, 1, 57, 99, 100])
@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_the_confidence_bound_is_scipys_and_fits_its_definition(hits, alpha):
    bound = lower_confidence_bound(torch.tensor([hits]), 100, alpha).item()
    interval = binomtest(hits, 100, alternative="greater").proportion_ci(1 - alpha, method="exact")
    assert bound == pytest.approx(interval.low, abs=1e-12)
    if hits:
        assert binom.sf(hits - 1, 100, bound) == pytest.approx(alpha)


@pytest.mark.parametrize(("n_a", "n_b"), [(50, 50), (60, 40), (70, 30), (10, 0), (11, 0), (200, 300), (0, 1)])
def test_a_prediction_abstains_as_the_two_sided_test_says(n_a, n_b, monkeypatch):
    monkeypatch.setattr(smoothing, "votes", lambda *_: torch.tensor([n_b, 0, n_a]))
    answer = smoothed_prediction(nn.Flatten(), torch.zeros(1, 3, 1, 1), sigma=0.1, progress=False).item()
    winner = 2 if n_a >= n_b else 0
    assert answer == (winner if binomtest(n_a, n_a + n_b, 0.5).pvalue <= 0.001 else -1)


def test_the_noise_is_gaussian_unclipped_and_fresh():
    x = torch.zeros(20_000, 1, 1, 1)
    drawn = noisy(x, 0.5, seeded(0))
    assert drawn.min() < -1.5
    assert abs(drawn.std().item() / 0.5 - 1) < norm.isf(FALSE_ALARM) / math.sqrt(2 * len(x))
    model, x, _ = linear(0.1)
    first, again, other = (certify(model, x, seed, sigma=0.25, n=2000) for seed in (0, 0, 1))
    assert torch.equal(first.counts, again.counts)
    assert not torch.equal(first.counts, other.counts)


def test_the_batch_size_changes_nothing_but_the_rounding():
    model, x, _ = linear(0.1)
    a, b = (certify(model, x, sigma=0.25, n0=64, n=1000, batch_size=size) for size in (64, 1000))
    assert a.counts.sum() == b.counts.sum() == 1000
    assert a.classes.equal(b.classes)


def test_the_training_loss_is_the_cross_entropy_under_that_noise():
    model, x, y = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), torch.rand(5, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1])
    loss = gaussian_noise_training(model, x, y, sigma=0.5, generator=seeded(0))
    noise = torch.randn(x.shape, generator=seeded(0))
    torch.testing.assert_close(loss, F.cross_entropy(model(x + 0.5 * noise), y))
    loss.backward()
    assert model[1].weight.grad.abs().sum() > 0


def test_certified_accuracy_counts_right_classes_with_enough_radius():
    certified = Certified(torch.tensor([1, 1, -1, 0]), torch.tensor([0.5, 0.2, 0.0, 0.9]), torch.zeros(4, 2))
    y = torch.tensor([1, 1, 0, 1])
    assert [certified.accuracy(y, radius).hits for radius in (0.0, 0.2, 0.3, 0.6)] == [2, 2, 1, 0]
    assert certified.abstained.tolist() == [False, False, True, False]


def test_an_empty_batch_and_untouched_state():
    model, x, _ = linear(0.1)
    model.train()
    state = torch.get_rng_state()
    certified = certify(model, x[:0], sigma=0.25)
    assert certified.classes.shape == certified.radius.shape == (0,)
    assert smoothed_prediction(model, x[:0], sigma=0.25, progress=False).shape == (0,)
    randomized_smoothing(model, x, sigma=0.25, n=10, progress=False)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert model[1].weight.grad is None


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
def test_the_same_votes_give_arts_classes_and_radii(monkeypatch):
    """ART asks statsmodels for its interval; where that is not installed, SciPy answers for it."""
    import sys
    from types import SimpleNamespace

    from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing

    def proportion_confint(count, nobs, alpha, method):
        assert method == "beta"
        return binomtest(int(count), nobs).proportion_ci(1 - alpha, method="exact")

    try:
        import statsmodels.stats.proportion  # noqa: F401
    except ImportError:
        for name in ("statsmodels", "statsmodels.stats"):
            monkeypatch.setitem(sys.modules, name, SimpleNamespace())
        proportion = SimpleNamespace(proportion_confint=proportion_confint)
        monkeypatch.setitem(sys.modules, "statsmodels.stats.proportion", proportion)
    sigma, n, alpha = 0.25, 1000, 0.001
    cases = [[10, 990, 0], [470, 530, 0], [400, 560, 40], [0, 1000, 0], [300, 400, 300]]
    peer = PyTorchRandomizedSmoothing(
        nn.Flatten(), nn.CrossEntropyLoss(), (3, 1, 1), 3, sample_size=100, scale=sigma, alpha=alpha, device_type="cpu"
    )
    served = iter([row for row in cases for _ in range(2)])
    monkeypatch.setattr(peer, "_prediction_counts", lambda *_, **__: np.array(next(served)))
    classes, radius = peer.certify(np.zeros((len(cases), 3, 1, 1), dtype=np.float32), n=n)
    ours_served = iter([row for row in cases for _ in range(2)])
    monkeypatch.setattr(smoothing, "votes", lambda *_: torch.tensor(next(ours_served)))
    ours = certify(nn.Flatten(), torch.zeros(len(cases), 3, 1, 1), sigma=sigma, n=n, alpha=alpha)
    assert ours.classes.tolist() == classes.tolist()
    np.testing.assert_allclose(ours.radius, radius, rtol=1e-9)


BAD = {
    "sigma": ({"sigma": 0.0}, "sigma", "above 0"),
    "n": ({"n": 0}, "n is 0"),
    "n0": ({"n0": 0}, "n0"),
    "alpha": ({"alpha": 0.0}, "alpha"),
    "even odds": ({"alpha": 0.6}, "alpha", "0.5"),
    "batch": ({"batch_size": 0}, "batch_size"),
    "pixels": ({"x": torch.full((1, 2, 1, 1), 9.0)}, "[0, 1]"),
    "generator": ({"generator": 3}, "generator"),
    "progress": ({"progress": "yes"}, "progress"),
    "misfit": ({"model": nn.Linear(5, 2)}, "model fails"),
    "probabilities": ({"model": nn.Sequential(nn.Flatten(), nn.Softmax(1))}, "probabilities"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case, refuses):
    changed, *words = BAD[case]
    arguments = {"model": nn.Flatten(), "x": torch.zeros(1, 2, 1, 1), "sigma": 0.1, "n": 10, "progress": False}
    refuses(randomized_smoothing, arguments | changed, *words)
    if "n0" not in changed:
        refuses(smoothed_prediction, arguments | changed, *words)


def test_training_names_a_bad_sigma(refuses):
    arguments = {"model": nn.Flatten(), "x": torch.zeros(1, 2, 1, 1), "y": torch.tensor([0]), "sigma": -1}
    refuses(gaussian_noise_training, arguments, "sigma", "at least 0")

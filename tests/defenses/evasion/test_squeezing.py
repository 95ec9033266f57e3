"""Feature squeezing: its squeezers against SciPy and ART, its score, and what it catches and lets pass."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from spai_lab.attacks.evasion.gradient import fgsm, pgd
from spai_lab.defenses.evasion.detection import evade, evasion_rate, scored, threshold_at
from spai_lab.defenses.evasion.squeezing import (
    ONE_BIT,
    feature_squeezing,
    feature_squeezing_view,
    median_filter,
    smooth_bit,
)
from spai_lab.metrics import roc
from spai_lab.threat import fooled
from spai_lab.training.weights import reference


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def lenet():
    return reference("lenet", "digits")


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_the_median_filter_is_scipys(size):
    from scipy.ndimage import median_filter as peer

    x = torch.rand(3, 2, 7, 5, generator=seeded())
    expected = peer(x.numpy(), size=(1, 1, size, size), mode="reflect")
    np.testing.assert_array_equal(median_filter(x, size).numpy(), expected)


def test_the_median_filter_has_the_gradient_of_finite_differences():
    x = torch.rand(1, 1, 4, 4, dtype=torch.float64, generator=seeded()).requires_grad_()
    assert torch.autograd.gradcheck(median_filter, x)


def test_the_score_is_the_largest_distance_of_probabilities():
    logits = nn.Flatten()
    x = torch.tensor([[[[0.9, 0.2]]], [[[0.4, 0.3]]]])
    flipped, halved = (lambda x: 1 - x), (lambda x: x / 2)
    p = np.exp(x.flatten(1).double().numpy())
    p /= p.sum(1, keepdims=True)
    distances = []
    for squeezed in (1 - x, x / 2):
        q = np.exp(squeezed.flatten(1).double().numpy())
        distances.append(np.abs(p - q / q.sum(1, keepdims=True)).sum(1))
    score = feature_squeezing(logits, squeezers=[flipped, halved])(x)
    np.testing.assert_allclose(score.numpy(), np.max(distances, axis=0), atol=1e-6)


@pytest.mark.oracle
def test_the_default_squeezers_are_arts_bit_depth_and_scipys_median(lenet, digits):
    from art.defences.preprocessor import FeatureSqueezing
    from scipy.ndimage import median_filter as peer

    x = digits.x_test[:32]
    depth = torch.from_numpy(FeatureSqueezing(clip_values=(0, 1), bit_depth=1)(x.numpy())[0]).to(x.dtype)
    smooth = torch.from_numpy(peer(x.numpy(), size=(1, 1, 2, 2), mode="reflect"))
    with torch.no_grad():
        p, *others = (lenet(view).softmax(1) for view in (x, depth, smooth))
        expected = torch.stack([(p - q).abs().sum(1) for q in others]).amax(0)
        torch.testing.assert_close(feature_squeezing(lenet)(x), expected)


def test_the_view_answers_alike_and_has_a_gradient_where_the_detector_has_none(digits):
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    network.requires_grad_(False)
    detector = feature_squeezing(network, squeezers=[torch.round])
    view = feature_squeezing_view(detector)
    x = digits.x_test[:4].clone().requires_grad_()
    assert torch.equal(view(x), detector(x))
    through = torch.autograd.grad(view.squeezed(view.squeezers[0], x).sum(), x)[0]
    blocked = torch.autograd.grad(detector.squeezed(detector.squeezers[0], x).sum(), x)[0]
    assert torch.equal(through, torch.ones_like(x))
    assert not blocked.any()


def test_the_smooth_bit_has_the_gradient_of_a_logistic_function():
    x = torch.rand(1, 1, 3, 3, dtype=torch.float64, generator=seeded()).requires_grad_()
    assert torch.autograd.gradcheck(smooth_bit, x)
    one_bit = (x > 0.5).to(x)
    assert ((smooth_bit(x, slope=1e4) - one_bit)[(x - 0.5).abs() > 0.01].abs() < 1e-6).all()


def test_the_view_of_one_bit_pulls_at_pixels_that_can_change(digits):
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    view = feature_squeezing_view(feature_squeezing(network.requires_grad_(False)))
    x = torch.tensor([0.0, 0.45, 1.0]).repeat(1, 1, 1, 1).requires_grad_()
    copy = view.squeezed(view.squeezers[0], x)
    assert torch.equal(copy, ONE_BIT(x))
    pull = torch.autograd.grad(copy.sum(), x)[0].flatten()
    assert pull[1] > 30 * max(pull[0], pull[2]) > 0


def test_in_l2_the_smooth_bit_makes_the_stronger_attack(lenet, digits):
    x, y = digits.sample(40)
    detector = feature_squeezing(lenet)
    threshold = threshold_at(scored(detector, digits.x_val), 0.05)

    def evaded(view):
        settings = {"eps": 2.0, "norm": "l2", "steps": 40, "weight": 1.0, "generator": seeded()}
        x_adv = evade(lenet, x, y, [view], [threshold], **settings)
        return evasion_rate(lenet, x_adv, y, [detector], [threshold]).value

    assert evaded(feature_squeezing_view(detector)) > evaded(feature_squeezing_view(detector, backward=[None, None]))


def test_it_catches_small_perturbations_and_the_attacker_who_knows_it_evades(lenet, digits):
    x, y = digits.sample(64)
    detector = feature_squeezing(lenet)
    clean = scored(detector, digits.x_val)
    threshold = threshold_at(clean, 0.05)
    for attack in (partial(fgsm, eps=0.1), partial(pgd, eps=0.1, steps=10, generator=seeded())):
        x_adv = attack(lenet, x, y)
        caught = scored(detector, x_adv[fooled(lenet, x_adv, y)])
        curve = roc(torch.cat([clean, caught]), torch.arange(len(clean) + len(caught)) >= len(clean))
        assert curve.area > 0.85
        assert curve.best(false_positives=0.05) > 0.6

    view = feature_squeezing_view(detector)
    x_adv = evade(lenet, x[:32], y[:32], [view], [threshold], eps=0.3, steps=40, generator=seeded())
    assert evasion_rate(lenet, x_adv, y[:32], [detector], [threshold]).value > 0.8


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"model": 3}, ("model",)),
        ({"squeezers": []}, ("squeezers", "at least one")),
        ({"squeezers": [2]}, ("squeezers", "called")),
    ],
    ids=["model", "none", "number"],
)
def test_bad_input_is_named(refuses, wrong, words):
    refuses(feature_squeezing, {"model": nn.Flatten()} | wrong, *words)


@pytest.mark.parametrize(
    ("model", "squeezer", "words"),
    [
        (nn.Flatten(), lambda x: x[:, :, :1], ("squeezer", "shape")),
        (nn.Sequential(nn.Flatten(), nn.Softmax(1)), torch.round, ("probabilities", "logits")),
    ],
    ids=["shape", "softmax"],
)
def test_what_does_not_fit_is_named_when_the_detector_runs(refuses, model, squeezer, words):
    refuses(feature_squeezing(model, squeezers=[squeezer]), {"x": torch.rand(2, 1, 2, 2)}, *words)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"x": torch.zeros(2, 4)}, ("x", "(N, C, H, W)")),
        ({"size": 0}, ("size",)),
    ],
    ids=["flat", "size"],
)
def test_bad_images_are_named(refuses, wrong, words):
    refuses(median_filter, {"x": torch.zeros(1, 1, 2, 2)} | wrong, *words)


def test_a_view_is_of_feature_squeezing_alone(refuses):
    refuses(feature_squeezing_view, {"detector": nn.Flatten()}, "detector", "feature_squeezing")
    detector = feature_squeezing(nn.Flatten())
    refuses(feature_squeezing_view, {"detector": detector, "backward": [None]}, "backward", "one per squeezer")
    refuses(feature_squeezing_view, {"detector": detector, "backward": [None, 3]}, "backward", "called")
    refuses(smooth_bit, {"x": torch.zeros(1, 1, 2, 2), "slope": 0}, "slope")

"""Thresholds at a false positive rate, and attacks on a model and its detectors at once."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from spai_lab.attacks.evasion.gradient import pgd
from spai_lab.defenses.evasion.detection import evade, evades, evading, evasion_rate, scored, threshold_at


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def brightest(x):
    return x.flatten(1).amax(1)


def first(x):
    return x.flatten(1)[:, 0]


@pytest.mark.parametrize("n", [1, 7, 100, 180])
@pytest.mark.parametrize("percent", [0, 1, 5, 29, 50, 99])
def test_the_threshold_is_numpys_inverted_quantile(n, percent):
    scores = torch.randn(n, dtype=torch.float64, generator=seeded(n))
    expected = np.quantile(scores.numpy(), (100 - percent) / 100, method="inverted_cdf")
    threshold = threshold_at(scores, percent / 100)
    assert threshold == expected
    assert (scores > threshold).sum() <= percent * n // 100


def test_ties_never_reject_more_than_the_rate():
    scores = torch.tensor([1.0] * 90 + [2.0] * 10)
    assert threshold_at(scores, 0.05) == 2.0
    assert threshold_at(scores, 0.1) == 1.0


def test_scores_come_in_any_batches():
    x = torch.rand(7, 1, 2, 2, generator=seeded())
    assert torch.equal(scored(brightest, x, batch_size=3), brightest(x))


def test_evading_needs_a_fooled_model_and_every_detector():
    x = torch.tensor([[0.1, 0.2], [0.2, 0.1], [0.1, 0.9], [0.3, 0.4]]).view(4, 1, 1, 2)
    y = torch.zeros(4, dtype=torch.int64)
    detectors, thresholds = [brightest, first], [0.5, 0.1]
    assert evades(nn.Flatten(), x, y, detectors, thresholds).tolist() == [True, False, False, False]
    rate = evasion_rate(nn.Flatten(), x, y, detectors, thresholds)
    assert (rate.hits, rate.trials) == (1, 4)


def test_a_score_at_the_threshold_passes():
    x = torch.tensor([[[[0.25, 0.5]]]])
    assert evades(nn.Flatten(), x, torch.tensor([0]), [brightest], [0.5]).item()


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_the_gradient_pulls_where_something_is_missing_alone(weight):
    x = torch.tensor([[0.6, 0.3], [0.4, 0.3], [0.6, 0.9], [0.4, 0.9]]).view(4, 1, 1, 2)
    g = evading([first], [0.5], weight=weight)(nn.Flatten(), x, torch.zeros(4, dtype=torch.int64)).view(4, 2)
    lead, below = torch.tensor([-1.0, 1.0]) / math.sqrt(2), torch.tensor([-1.0, 0.0])
    torch.testing.assert_close(g, torch.stack([lead + weight * below, lead, below, torch.zeros(2)]))


class Corner(nn.Module):
    """The second of two classes wins above a line: its lead is a . x - c."""

    def __init__(self, a, c):
        super().__init__()
        self.register_buffer("a", torch.tensor(a))
        self.c = c

    def forward(self, x):
        lead = x.flatten(1) @ self.a - self.c
        return torch.stack([torch.zeros_like(lead), lead], 1)


@pytest.mark.parametrize("weight", [0.0, 1.0])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_finds_the_wedge_between_boundary_and_threshold(norm, weight):
    """Fooled where x1 + 0.5 x2 > 0.9, rejected where x1 > 0.6: plain PGD is caught, while a way past both exists."""
    model, x, y = Corner([1.0, 0.5], 0.9), torch.full((20, 1, 1, 2), 0.5), torch.zeros(20, dtype=torch.int64)
    plain = pgd(model, x, y, eps=0.3, norm=norm, generator=seeded())
    assert evasion_rate(model, plain, y, [first], [0.6]).hits == 0
    x_adv = evade(model, x, y, [first], [0.6], eps=0.3, norm=norm, weight=weight, generator=seeded())
    assert evasion_rate(model, x_adv, y, [first], [0.6]).hits == 20
    assert torch.linalg.vector_norm((x_adv - x).flatten(1), math.inf if norm == "linf" else 2, 1).max() <= 0.3 + 1e-6


def test_where_no_way_exists_none_is_found():
    model, x, y = Corner([1.0, 0.5], 0.9), torch.full((20, 1, 1, 2), 0.5), torch.zeros(20, dtype=torch.int64)
    x_adv = evade(model, x, y, [first], [0.45], eps=0.3, restarts=2, generator=seeded())
    assert evasion_rate(model, x_adv, y, [first], [0.45]).hits == 0


def test_the_hook_serves_other_attacks():
    model, x, y = Corner([1.0, 0.5], 0.9), torch.full((5, 1, 1, 2), 0.5), torch.zeros(5, dtype=torch.int64)
    hook = evading([first], [0.6])
    x_adv = pgd(model, x, y, eps=0.3, steps=100, random_start=False, gradient=hook)
    assert evasion_rate(model, x_adv, y, [first], [0.6]).hits == 5


def test_what_evades_by_itself_is_returned_as_it_is():
    x, y = torch.tensor([[[[0.25, 0.375]]], [[[0.5, 0.375]]]]), torch.tensor([0, 0])
    x_adv = evade(nn.Flatten(), x, y, [brightest], [0.5], eps=0.25, generator=seeded())
    assert torch.equal(x_adv[0], x[0])
    assert evades(nn.Flatten(), x_adv, y, [brightest], [0.5]).all()
    assert x[1, 0, 0].tolist() == [0.5, 0.375]


def test_a_seed_repeats():
    model, x, y = Corner([1.0, 0.5], 0.9), torch.full((5, 1, 1, 2), 0.5), torch.zeros(5, dtype=torch.int64)
    runs = [evade(model, x, y, [first], [0.6], eps=0.3, steps=5, generator=seeded()) for _ in range(2)]
    assert torch.equal(*runs)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"scores_clean": torch.zeros(0)}, ("scores_clean", "at least one")),
        ({"scores_clean": torch.zeros(2, 2)}, ("scores_clean", "(N,)")),
        ({"scores_clean": torch.tensor([0.0, math.nan])}, ("scores_clean", "finite")),
        ({"fpr": -0.1}, ("fpr",)),
        ({"fpr": 1.0}, ("fpr", "below 1")),
    ],
    ids=["none", "matrix", "nan", "negative", "all"],
)
def test_bad_scores_are_named(refuses, wrong, words):
    refuses(threshold_at, {"scores_clean": torch.zeros(3), "fpr": 0.05} | wrong, *words)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"detectors": []}, ("detectors", "at least one")),
        ({"detectors": [1]}, ("detectors", "called")),
        ({"thresholds": []}, ("thresholds", "1")),
        ({"thresholds": [math.nan]}, ("thresholds", "finite")),
        ({"detectors": [lambda x: x]}, ("detector", "scores")),
        ({"weight": -1.0}, ("weight",)),
        ({"eps": 2.0}, ("eps",)),
        ({"norm": "l7"}, ("norm",)),
        ({"steps": 0}, ("steps",)),
        ({"restarts": 0}, ("restarts",)),
        ({"generator": 1}, ("generator",)),
        ({"x": torch.full((2, 1, 2, 2), 2.0)}, ("x", "[0, 1]")),
    ],
    ids=["none", "number", "unequal", "nan", "image", "weight", "eps", "norm", "steps", "restarts", "generator", "x"],
)
def test_bad_input_is_named(refuses, wrong, words):
    good = {"model": nn.Flatten(), "x": torch.rand(2, 1, 2, 2, generator=seeded()), "y": torch.tensor([0, 1])}
    refuses(evade, good | {"detectors": [brightest], "thresholds": [0.5], "eps": 0.1} | wrong, *words)

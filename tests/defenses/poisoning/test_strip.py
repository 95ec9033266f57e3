"""STRIP, against SciPy's entropy, a closed form and a backdoored network."""

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

from spai_lab.attacks.poisoning.poisoned import stamp
from spai_lab.checks import SuspiciousResult
from spai_lab.defenses.poisoning.strip import entropy, strip, strip_threshold


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_entropy_is_scipys():
    logits = 3 * torch.randn(20, 7, generator=seeded(), dtype=torch.float64)
    theirs = scipy.stats.entropy(logits.softmax(1).numpy(), base=2, axis=1)
    np.testing.assert_allclose(entropy(nn.Identity(), logits), theirs, rtol=1e-9)


def test_a_sure_answer_has_no_entropy():
    assert entropy(nn.Identity(), torch.tensor([[1000.0, 0.0, -1000.0]])).tolist() == [0.0]


def test_the_score_is_the_mean_over_overlays_that_saturate():
    """With one clean image there is nothing to draw, and the score has a closed form."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
    x, x_clean = torch.rand(4, 1, 2, 3, generator=seeded()), torch.rand(1, 1, 2, 3, generator=seeded(1))
    p = model((x + x_clean).clamp(max=1)).softmax(1).detach()
    expected = -scipy.stats.entropy(p.numpy(), base=2, axis=1)
    np.testing.assert_allclose(strip(model, x, x_clean, progress=False), expected, rtol=1e-5)


def test_the_score_converges_to_the_mean_over_all_clean_images():
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
    x, x_clean = torch.rand(2, 1, 2, 3, generator=seeded()), torch.rand(8, 1, 2, 3, generator=seeded(1))
    each = torch.stack([strip(model, x, one[None], overlays=1, progress=False) for one in x_clean])
    mean, error = each.mean(0), each.std(0, unbiased=False) / 100
    score = strip(model, x, x_clean, overlays=10_000, generator=seeded(), progress=False)
    assert ((score - mean).abs() < 5 * error + 1e-6).all()  # 5 standard errors: one false alarm in 900,000 runs


def test_a_model_that_obeys_a_trigger_is_caught():
    """Pixel 0 commands; the other pixels, on which images are blended, decide otherwise."""
    model = lambda x: torch.stack([50 * (x[:, 0, 0, 0] > 0.9) + 0.0, *(8 * x[:, 0, 0, 1:]).T], 1)  # noqa: E731
    x_clean = torch.cat([torch.zeros(40, 1, 1, 1), torch.rand(40, 1, 1, 4, generator=seeded())], 3)
    x = x_clean[:20].clone()
    triggered = x.clone()
    triggered[..., 0] = 1
    clean = strip(model, x, x_clean, generator=seeded(), progress=False)
    score = strip(model, triggered, x_clean, generator=seeded(), progress=False)
    assert score.min() > strip_threshold(clean) > clean.max()


@pytest.mark.parametrize("share", [0.01, 0.05, 0.3], ids=["1", "5", "30"])
def test_the_threshold_rejects_its_share_of_normal_scores(share):
    scores = -5 + torch.randn(200_000, generator=seeded(), dtype=torch.float64)
    threshold = strip_threshold(scores, false_rejection=share)
    assert threshold == pytest.approx(scipy.stats.norm.ppf(1 - share, *scipy.stats.norm.fit(scores.numpy())), rel=1e-9)
    error = (share * (1 - share) / len(scores)) ** 0.5
    assert abs((scores > threshold).double().mean() - share) < 5 * error


def test_a_threshold_that_rejects_nothing_is_warned_about():
    with pytest.warns(SuspiciousResult, match="rejects nothing"):
        assert strip_threshold(torch.tensor([-0.5, -0.01, -0.01, -0.01])) > 0


def test_a_backdoor_is_told_from_clean_digits(badnet, digits):
    model, poisoned = badnet
    x = digits.x_test[digits.y_test != 0][:60]
    clean = strip(model, x, digits.x_val, generator=seeded(), progress=False)
    triggered = strip(model, stamp(x, poisoned.trigger), digits.x_val, generator=seeded(), progress=False)
    assert (triggered[:, None] > clean).float().mean() > 0.9


def test_nothing_is_changed_and_a_seed_repeats(badnet, digits, unchanged):
    x, x_clean = digits.x_test[:3].clone(), digits.x_val.clone()
    first = unchanged(badnet.model, lambda: strip(badnet.model, x, x_clean, generator=seeded(), progress=False))
    assert torch.equal(first, strip(badnet.model, x, x_clean, generator=seeded(), progress=False))
    assert torch.equal(x, digits.x_test[:3])
    assert torch.equal(x_clean, digits.x_val)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"overlays": 0}, ("overlays", "at least 1")),
        ({"x": torch.full((2, 1, 2, 2), 2.0)}, ("x", "[0, 1]")),
        ({"x_clean": torch.zeros(0, 1, 2, 2)}, ("x_clean", "at least one")),
        ({"x_clean": torch.zeros(2, 1, 3, 3)}, ("x_clean", "shape")),
        ({"generator": 1}, ("generator",)),
        ({"progress": 1}, ("progress",)),
        ({"model": nn.Sequential(nn.Flatten(), nn.Softmax(1))}, ("probabilities", "logits")),
    ],
    ids=["overlays", "x", "none", "shape", "generator", "progress", "softmax"],
)
def test_bad_input_is_named(refuses, wrong, words):
    good = {"model": nn.Flatten(), "x": torch.zeros(2, 1, 2, 2), "x_clean": torch.zeros(1, 1, 2, 2), "progress": False}
    refuses(strip, good | wrong, *words)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"scores_clean": torch.zeros(1)}, ("scores_clean", "two")),
        ({"scores_clean": torch.tensor([0.0, torch.nan])}, ("scores_clean", "finite")),
        ({"false_rejection": 0}, ("false_rejection",)),
        ({"false_rejection": 1}, ("false_rejection",)),
    ],
    ids=["one", "nan", "zero", "all"],
)
def test_bad_scores_are_named(refuses, wrong, words):
    refuses(strip_threshold, {"scores_clean": torch.tensor([-1.0, -2.0])} | wrong, *words)

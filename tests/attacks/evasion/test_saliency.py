"""JSMA against a search of all pairs, a linear model, torchattacks and ART."""

import itertools
import warnings

import pytest
import torch
from torch import nn

from benchmarks.contests.saliency import GAMMA, by_art, by_torchattacks
from spai_lab.attacks.evasion.saliency import jsma, most_salient_pair, saliency_map
from spai_lab.checks import SuspiciousResult
from spai_lab.metrics import distortions
from spai_lab.models import mlp, softmax_regression
from spai_lab.threat import fooled, norms


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def small():
    """A small random network with gray images and a target for each that the model does not answer."""
    model = mlp((1, 4, 4), 3, hidden=16, generator=seeded()).double()
    x = torch.rand(12, 1, 4, 4, dtype=torch.float64, generator=seeded(1))
    with torch.no_grad():
        model[-1].bias -= model(x).mean(0)  # else one class wins everywhere
    return model, x, (model(x).argmax(1) + 1) % 3


# --- which pixels -----------------------------------------------------------------------------------------------------


def test_a_saliency_map_is_the_product_of_what_helps(small):
    jacobian = torch.randn(5, 4, 2, 3, 3, generator=seeded())
    target = torch.tensor([0, 1, 2, 3, 0])
    for increase in (True, False):
        scores = saliency_map(jacobian, target, increase=increase)
        assert scores.shape == (5, 2, 3, 3)
        for n, pixel in itertools.product(range(5), itertools.product(range(2), range(3), range(3))):
            alpha = jacobian[(n, target[n], *pixel)]
            beta = sum(jacobian[(n, j, *pixel)] for j in range(4) if j != target[n])
            helps = alpha > 0 > beta if increase else alpha < 0 < beta
            assert scores[(n, *pixel)].item() == pytest.approx((alpha * beta).abs().item() if helps else 0, abs=1e-5)


@pytest.mark.parametrize("kind", ["independent", "opposed", "alike", "ties", "single"])
@pytest.mark.parametrize("chunk", [1, 2**22])
def test_pruning_loses_no_pair(kind, chunk, monkeypatch):
    """The best of all pairs, found by looking at every one."""
    monkeypatch.setattr("spai_lab.attacks.evasion.saliency.PAIRS", chunk)
    d = 1 if kind == "single" else 30
    slopes = torch.randn(20, 2, d, dtype=torch.float64, generator=seeded(3))
    if kind == "opposed":  # whoever raises the target more lowers the others less, so that no pixel can be left out
        slopes[:, 1] = slopes[:, 0] - 1
    if kind == "alike":
        slopes[:, 1] = -slopes[:, 0]
    if kind == "ties":
        slopes = slopes.round()
    movable = torch.rand(20, d, generator=seeded(4)) < 0.8
    movable[0] = False
    scores, pairs = most_salient_pair(slopes, movable)
    for (raising, others), allowed, score, pair in zip(slopes, movable, scores, pairs, strict=True):
        best = 0.0
        for p, q in itertools.combinations(allowed.nonzero()[:, 0].tolist(), 2):
            alpha, beta = (raising[p] + raising[q]).item(), (others[p] + others[q]).item()
            best = max(best, -alpha * beta if alpha > 0 > beta else 0.0)
        assert score.item() == pytest.approx(best, rel=1e-12)
        if best > 0:
            p, q = pair.tolist()
            assert p != q and allowed[p] and allowed[q]
            assert -((raising[p] + raising[q]) * (others[p] + others[q])).item() == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize("theta", [1.0, -1.0])
@pytest.mark.parametrize("pixels", [1, 2])
def test_the_largest_weights_of_a_linear_model_go_first(theta, pixels):
    """With two classes a pixel helps by its difference of weights alone: they are taken in that order."""
    model = softmax_regression((1, 6, 6), 2, generator=seeded()).double()
    x = torch.full((1, 1, 6, 6), 0.5, dtype=torch.float64)
    with torch.no_grad():
        model[-1].bias -= model(x)[0] + torch.tensor([0.0, 0.3])
    t = torch.tensor([1])
    w = model[-1].weight.detach()
    order = (theta * (w[t] - w[1 - t])[0]).argsort(descending=True)
    expected = x.clone().view(1, -1)
    for start in range(0, 36, pixels):
        expected[:, order[start : start + pixels]] = float(theta > 0)
        if model(expected.view_as(x)).argmax(1) == t:
            break
    x_adv = jsma(model, x, t, theta=theta, gamma=1.0, pixels=pixels, targeted=True)
    assert fooled(model, x_adv, t, targeted=True).all()
    assert torch.equal(x_adv.view(1, -1), expected)


# --- what comes back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["probabilities", "logits"])
@pytest.mark.parametrize("pixels", [1, 2])
@pytest.mark.parametrize("theta", [1.0, 0.3, -0.3, -1.0])
def test_the_budget_holds_and_failures_come_back_untouched(small, theta, pixels, output):
    model, x, t = small
    for gamma in (0.01, 0.2, 0.5):
        x_adv = jsma(model, x, t, theta=theta, gamma=gamma, pixels=pixels, output=output, targeted=True)
        changed, hit = norms(x_adv - x, "l0"), fooled(model, x_adv, t, targeted=True)
        assert (changed <= gamma * 16).all() and ((x_adv >= 0) & (x_adv <= 1)).all()
        assert torch.equal(changed > 0, hit)
        assert ((x_adv - x) * theta >= 0).all()


def test_a_small_step_moves_the_same_pixel_again(small):
    model, x, t = small
    x_adv = jsma(model, x, t, theta=0.1, gamma=0.5, targeted=True)
    assert ((x_adv - x) > 0.15).any()


def test_without_a_target_any_other_class_will_do(small):
    model, x, t = small
    y = model(x).argmax(1)
    x_adv = jsma(model, x, y, gamma=1.0)
    assert fooled(model, x_adv, y).float().mean() > 0.5
    assert torch.equal(jsma(model, x, t), x)  # misread already
    assert torch.equal(jsma(model, x, y, targeted=True), x)  # at the target already


def test_on_the_softmax_it_is_the_same_attack_until_the_softmax_saturates(small):
    model, x, t = small
    settings = {"gamma": 0.6, "targeted": True}
    assert torch.equal(jsma(model, x, t, output="softmax", **settings), jsma(model, x, t, **settings))
    sure = nn.Sequential(model, Scaled(1e6))  # the same answers, each with a probability of 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SuspiciousResult)
        assert torch.equal(jsma(sure, x, t, output="softmax", **settings), x)
    assert fooled(sure, jsma(sure, x, t, **settings), t, targeted=True).any()


class Scaled(nn.Module):
    """Logits times a number."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, z):
        return self.factor * z


def test_an_image_does_not_depend_on_its_batch(small):
    model, x, t = small
    for output in ("probabilities", "logits"):
        together = jsma(model, x, t, gamma=0.6, output=output, targeted=True)
        alone = [jsma(model, x[i : i + 1], t[i : i + 1], gamma=0.6, output=output, targeted=True) for i in range(12)]
        assert torch.equal(together, torch.cat(alone))


def test_points_of_two_pixels_and_turned_images(small):
    model, x, t = small
    turned = x.transpose(2, 3).contiguous().transpose(2, 3)
    assert torch.equal(jsma(model, turned, t, gamma=0.6, targeted=True), jsma(model, x, t, gamma=0.6, targeted=True))
    moons = mlp((2, 1, 1), 2, generator=seeded())
    points = torch.rand(5, 2, 1, 1, generator=seeded(1))
    y = moons(points).argmax(1)
    assert jsma(moons, points, y, gamma=1.0).shape == points.shape
    with torch.no_grad():
        assert jsma(moons, points[:0], y[:0]).shape == (0, 2, 1, 1)


def test_images_that_are_done_leave_the_batch(digits):
    from spai_lab.training import reference

    victim, seen = reference("lenet", "digits"), []

    def model(x):
        seen.append(len(x))
        return victim(x)

    jsma(model, digits.x_test[:16], (digits.y_test[:16] + 1) % 10, targeted=True)
    assert seen[0] == 16 and seen == sorted(seen, reverse=True) and seen[-1] < 4


def test_zero_gradients_warn_once():
    model = softmax_regression((1, 2, 2), 2, generator=seeded())
    x = torch.full((3, 1, 2, 2), 0.5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        jsma(lambda x: model(x.round()), x, model(x.round()).argmax(1))
    assert [issubclass(w.category, SuspiciousResult) for w in caught] == [True]


X, Y = torch.full((2, 1, 2, 2), 0.5), torch.tensor([0, 1])
VALID = {"model": nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), "x": X, "y": Y}
WRONG = [
    ("theta", 0, "theta is 0", "0.001 to 1"),
    ("theta", 1e-9, "theta is 1e-09", "0.001 to 1"),
    ("theta", 2, "theta is 2", "from -1 to 1"),
    ("theta", "1", "theta is '1'", "finite number"),
    ("gamma", 0, "gamma is 0", "above 0, at most 1"),
    ("gamma", 14.5, "gamma is 14.5", "at most 1"),
    ("pixels", 3, "pixels is 3", "1 or 2"),
    ("pixels", True, "pixels is True", "1 or 2"),
    ("output", "scores", "output is 'scores'", "'probabilities', 'logits', 'softmax'"),
]


@pytest.mark.parametrize(("name", "value", "words"), [(name, value, words) for name, value, *words in WRONG])
def test_bad_input_is_refused(refuses, name, value, words):
    refuses(jsma, {**VALID, name: value}, *words)


def test_a_bad_jacobian_is_refused(refuses):
    valid = {"jacobian": torch.zeros(2, 3, 1, 2, 2), "target": Y}
    refuses(saliency_map, {**valid, "jacobian": torch.zeros(2, 3)}, "jacobian is", "(N, K, C, H, W)")
    refuses(saliency_map, {**valid, "target": torch.tensor([0, 3])}, "target has a class 3", "0 to 2")
    refuses(saliency_map, {**valid, "increase": 1}, "increase is 1", "True or False")


# --- the peers --------------------------------------------------------------------------------------------------------


@pytest.mark.oracle
def test_pixels_of_the_logits_equal_those_of_torchattacks(victim, digits):
    """Where it succeeds; where no pair is salient it goes on with the first pixel, and we give up."""
    x, t = digits.x_test[:2], (digits.y_test[:2] + 1) % 10
    theirs = by_torchattacks(victim, x, t)()
    ours = jsma(victim, x, t, gamma=GAMMA, output="logits", targeted=True)
    hit = fooled(victim, theirs, t, targeted=True)
    assert torch.equal(ours[hit], theirs[hit])
    assert torch.equal(fooled(victim, ours, t, targeted=True), hit)


@pytest.mark.oracle
@pytest.mark.parametrize("theta", [1.0, -1.0])
def test_fewer_pixels_than_art(theta, victim, digits):
    x, t = digits.x_test[:24], (digits.y_test[:24] + 1) % 10
    ours, theirs = (
        distortions(victim, x, x_adv, t, norm="l0", targeted=True)
        for x_adv in (jsma(victim, x, t, theta=theta, gamma=GAMMA, targeted=True), by_art(victim, x, t, theta=theta)())
    )
    allowed = theirs.masked_fill(theirs > GAMMA * 784, torch.inf)  # its last step may exceed the budget
    assert ours.isinf().sum() <= allowed.isinf().sum()
    assert ours.sort().values[11] <= 1.03 * allowed.sort().values[11]

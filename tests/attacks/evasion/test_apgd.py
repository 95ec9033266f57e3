"""APGD and its losses: linear and quadratic models, whose worst case is known, and torchattacks and ART."""

import copy
from importlib import import_module

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.contests import auto_attack as peers
from spai_lab.attacks.evasion.apgd import apgd, cross_entropy, dlr, looking, targeted_dlr
from spai_lab.attacks.evasion.fab import likeliest_wrong
from spai_lab.checks import SuspiciousResult
from spai_lab.models import mlp, softmax_regression
from spai_lab.threat import fooled, norms

module = import_module("spai_lab.attacks.evasion.apgd")  # the package has a function of this name
SEEDS = (0, 1, 2)
DEFICIT = 0.02


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# --- the losses -------------------------------------------------------------------------------------------------------


def test_dlr_does_not_change_when_logits_are_shifted_or_scaled():
    z = torch.randn(20, 6, dtype=torch.float64, generator=seeded())
    y, target = torch.arange(20) % 6, (torch.arange(20) + 1) % 6
    for a, b in ((1000.0, 3.0), (1e-4, -7.0)):
        assert torch.allclose(dlr(a * z + b, y), dlr(z, y))
        assert torch.allclose(targeted_dlr(a * z + b, y, target), targeted_dlr(z, y, target))


def test_dlr_is_above_zero_where_another_class_wins():
    z, y = torch.randn(200, 5, generator=seeded()), torch.arange(200) % 5
    assert torch.equal(dlr(z, y) > 0, z.argmax(1) != y)


@pytest.mark.oracle
def test_losses_equal_those_of_torchattacks():
    import torchattacks

    z, y = torch.randn(50, 7, dtype=torch.float64, generator=seeded()), torch.arange(50) % 7
    target = likeliest_wrong(z, y, 2)[:, 1]
    assert torch.allclose(dlr(z, y), torchattacks.APGD(nn.Flatten()).dlr_loss(z, y))
    assert torch.allclose(targeted_dlr(z, y, target), torchattacks.APGDT(nn.Flatten()).dlr_loss_targeted(z, y, target))


def test_dlr_refuses_fewer_than_four_classes(refuses):
    y = torch.tensor([0, 1])
    refuses(dlr, {"logits": torch.zeros(2, 3), "y": y}, "3 classes", "at least 4")
    refuses(targeted_dlr, {"logits": torch.zeros(2, 3), "y": y, "target": y + 1}, "3 classes", "at least 4")
    model, x = softmax_regression((1, 2, 2), 3, generator=seeded()), torch.full((2, 1, 2, 2), 0.5)
    refuses(apgd, {"model": model, "x": x, "y": model(x).argmax(1), "eps": 0.1, "loss": dlr}, "3 classes", "at least 4")


# --- models whose worst case is known ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def linear():
    """Two classes, the first so far ahead that no image can be turned: APGD climbs to the end."""
    model = softmax_regression((1, 5, 5), 2, generator=seeded()).double()
    with torch.no_grad():
        model[-1].bias += torch.tensor([20.0, 0.0])
    x = 0.4 + 0.2 * torch.rand(40, 1, 5, 5, dtype=torch.float64, generator=seeded())
    w = (model[-1].weight[1] - model[-1].weight[0]).detach().view(1, 5, 5)
    return model, x, torch.zeros(40, dtype=torch.int64), w


@pytest.mark.parametrize("random_start", [True, False])
def test_the_worst_case_of_a_linear_model_in_linf(linear, random_start):
    model, x, y, w = linear
    x_adv = apgd(model, x, y, eps=0.5, steps=20, random_start=random_start, generator=seeded())
    assert torch.allclose(x_adv, (x + 0.5 * w.sign()).clamp(0, 1), rtol=0, atol=1e-9)


def test_the_worst_case_of_a_linear_model_in_l2(linear):
    model, x, y, w = linear
    x_adv = apgd(model, x, y, eps=0.3, norm="l2", generator=seeded())
    best = x + 0.3 * w / w.norm()
    assert (w * (x_adv - best)).flatten(1).sum(1).abs().max() <= 1e-4 * w.norm()


def test_no_lower_than_its_longest_steps_rest_in_l2_where_pixels_clip(linear, resting):
    """Clipping after the projection shortens the way; it is shortest for the first and longest step, 2 eps."""
    model, x, y, w = linear
    x_adv = apgd(model, x, y, eps=1.5, norm="l2", generator=seeded())
    for start, found in zip(x, x_adv, strict=True):
        points = (found, resting(start, w, 1.5, 3), resting(start, w, 1.5, 0))
        gain, at_least, at_most = ((w * (point - start)).sum().item() for point in points)
        assert at_least <= gain <= at_most * (1 + 1e-9)


class Bowl(nn.Module):
    """The first class always wins; the second comes nearest at one point inside every ball."""

    def __init__(self, bottom):
        super().__init__()
        self.bottom = bottom

    def forward(self, x):
        distance = (x - self.bottom).flatten(1).square().sum(1)
        return torch.stack([torch.zeros_like(distance), -1 - distance], 1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_halving_the_step_finds_a_maximum_inside_the_ball(norm, monkeypatch):
    x = 0.5 + 0.05 * torch.rand(10, 1, 3, 3, dtype=torch.float64, generator=seeded())
    model, y = Bowl(torch.full((1, 3, 3), 0.53, dtype=torch.float64)), torch.zeros(10, dtype=torch.int64)

    def distance():
        x_adv = apgd(model, x, y, eps=0.3, norm=norm, generator=seeded())
        return norms(x_adv - model.bottom, "l2").max().item()

    assert distance() < 0.01
    monkeypatch.setattr(module, "checkpoints", lambda steps: {0})
    assert distance() > 0.02  # a step that is never halved jumps over it


# --- what it promises -------------------------------------------------------------------------------------------------


def test_images_leave_once_they_are_misread():
    seen = []

    def model(x):
        seen.append(len(x))
        return torch.stack([x.flatten(1).sum(1) - 2.2, 0 * x.flatten(1).sum(1)], 1)

    x = torch.stack([torch.full((1, 2, 2), level) for level in (0.1, 0.6, 0.9)])
    x_adv = apgd(model, x, torch.zeros(3, dtype=torch.int64), eps=0.2, steps=4, random_start=False)
    assert seen == [3, 2, 2, 1, 1, 1]  # the first is misread as it is, the second after one step
    assert torch.equal(x_adv[0], x[0])
    seen.clear()
    apgd(model, x[1:], torch.zeros(2, dtype=torch.int64), eps=0.2, steps=4, random_start=False, restarts=3)
    assert seen == [2, 2, 2, 1, 1, 1] + 2 * [1, 1, 1, 1, 1]


@pytest.mark.parametrize("loss", [cross_entropy, dlr])
def test_a_target_is_reached_where_it_can_be(loss, linear):
    model, x, y, w = linear
    nearest = model(x + 0.03 * w.sign()).detach()
    behind = (nearest[:, 0] - nearest[:, 1]).median()

    def ahead(x):
        return F.pad(model(x), (0, 2), value=-50.0) + behind * F.one_hot(y[:1] + 1, 4)

    reachable = fooled(ahead, x + 0.03 * w.sign(), y + 1, targeted=True)
    assert reachable.any() and not reachable.all()
    x_adv = apgd(ahead, x, y + 1, eps=0.03, loss=loss, targeted=True, generator=seeded())
    assert torch.equal(fooled(ahead, x_adv, y + 1, targeted=True), reachable)


def test_the_loss_toward_a_class_gets_that_class_of_each_image():
    asked = []

    def loss(logits, y, target):
        asked.append(len(y))
        assert torch.equal((y + 1) % 5, target)
        return targeted_dlr(logits, y, target)

    model, x = mlp((1, 4, 4), 5, generator=seeded()), torch.rand(12, 1, 4, 4, generator=seeded())
    y = model(x).argmax(1)
    apgd(model, x, y, eps=0.1, steps=5, loss=loss, toward=(y + 1) % 5, generator=seeded())
    assert asked[0] == 12 > asked[-1]  # some have left, the others keep their targets


def test_samples_average_the_gradients_of_a_randomized_model():
    """Noise that drowns the slope in one look cancels in many."""
    noise, calls = seeded(), []

    def model(x):
        calls.append(len(x))
        sign = 20 * torch.randn(x.shape, generator=noise)
        return torch.stack([10 + 0 * x.flatten(1).sum(1), ((1 + sign) * x).flatten(1).sum(1) - 10], 1)

    x, y = torch.full((8, 1, 3, 3), 0.5), torch.zeros(8, dtype=torch.int64)
    look = looking(model, samples=2000, targeted=False)
    _, gradient, _, done = look(lambda z, y: z[:, 1] - z[:, 0], x, [y])
    assert (gradient - 1).abs().max() < 5.3 * 20 / 2000**0.5  # 72 normal draws beyond 5.3 sigma: once in 1e5 runs
    assert len(calls) == 2000 and not done.any()
    calls.clear()
    apgd(model, x, y, eps=0.1, steps=3, samples=5)
    assert len(calls) >= 1 + 4 * 5 and set(calls[1:]) == {calls[1]}  # what looks misread may have been luck


WRONG = [
    ("loss", None, "loss is None", "called"),
    ("loss", lambda z, y: z, "loss returns a float32 tensor of shape (2, 3)", "(2,)"),
    ("loss", lambda z, y: z.mean(), "loss returns a float32 tensor of shape ()", "(2,)"),
    ("loss", lambda z, y: None, "loss returns None", "(2,)"),
    ("toward", torch.tensor([1.0, 2.0]), "toward is a float32 tensor", "int64 labels of shape (2,)"),
    ("toward", torch.tensor([1]), "toward is an int64 tensor of shape (1,)", "(2,)"),
    ("samples", 0, "samples is 0", "at least 1"),
    ("samples", 1.5, "samples is 1.5", "whole number"),
    ("restarts", 0, "restarts is 0", "at least 1"),
    ("random_start", 1, "random_start is 1", "True or False"),
]


@pytest.mark.parametrize(("name", "value", "words"), [(name, value, words) for name, value, *words in WRONG])
def test_bad_input_is_refused(name, value, words, refuses):
    model, x = softmax_regression((1, 4, 4), 3, generator=seeded()), torch.full((2, 1, 4, 4), 0.5)
    refuses(apgd, {"model": model, "x": x, "y": model(x).argmax(1), "eps": 0.1, name: value}, *words)


def test_a_target_class_that_the_model_does_not_have_is_refused(refuses):
    model, x = softmax_regression((1, 4, 4), 5, generator=seeded()), torch.full((2, 1, 4, 4), 0.5)
    arguments = {"model": model, "x": x, "y": model(x).argmax(1), "eps": 0.1, "loss": targeted_dlr}
    refuses(apgd, {**arguments, "toward": torch.tensor([1, 5])}, "toward has a label 5", "0 to 4")


def test_restarts_warn_once_of_zero_gradients():
    model, x = softmax_regression((1, 4, 4), 3, generator=seeded()), torch.full((2, 1, 4, 4), 0.5)
    with pytest.warns(SuspiciousResult) as caught:
        apgd(lambda x: model(x.round()), x, model(x.round()).argmax(1), eps=0.01, steps=2, restarts=3)
    assert len(caught) == 1


# --- the peers --------------------------------------------------------------------------------------------------------


RADII = {("lenet", "linf"): 0.08, ("lenet", "l2"): 1.1, ("lenet-robust", "linf"): 0.17, ("lenet-robust", "l2"): 1.3}
STEPS = 30


@pytest.fixture(scope="module", params=["lenet", pytest.param("lenet-robust", marks=pytest.mark.full)])
def named_victim(request):
    from spai_lab.training import reference

    return request.param, reference(request.param, "digits")


def paired_deficit(model, y, ours, theirs):
    """The share of images that the peer alone fools, less the share that we alone fool, over all seeds."""
    share = torch.cat([fooled(model, x_adv, y) for x_adv in theirs]).double().mean()
    assert 0.3 <= share <= 0.7
    return share - torch.cat([fooled(model, x_adv, y) for x_adv in ours]).double().mean()


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("norm", "loss"),
    [("linf", cross_entropy), pytest.param("l2", dlr, marks=pytest.mark.full)],
    ids=["linf-ce", "l2-dlr"],
)
def test_it_succeeds_where_torchattacks_does(norm, loss, named_victim, digits):
    name, model = named_victim
    x, y, eps = digits.x_test[:48], digits.y_test[:48], RADII[name, norm]
    settings = {"eps": eps, "norm": norm, "steps": STEPS, "loss": loss}
    theirs = [peers.apgd_by_torchattacks(model, x, y, **settings, seed=seed)() for seed in SEEDS]
    ours = [apgd(model, x, y, **settings, generator=seeded(seed)) for seed in SEEDS]
    assert paired_deficit(model, y, ours, theirs) <= DEFICIT
    short = [apgd(model, x, y, **{**settings, "eps": 0.9 * eps}, generator=seeded(seed)) for seed in SEEDS]
    assert paired_deficit(model, y, short, theirs) > DEFICIT  # a radius that is a tenth short is noticed


@pytest.mark.full
@pytest.mark.oracle
def test_it_succeeds_where_art_does(named_victim, digits):
    name, model = named_victim
    x, y = digits.x_test[:48], digits.y_test[:48]
    settings = {"eps": RADII[name, "linf"], "steps": STEPS}
    theirs = [peers.apgd_by_art(copy.deepcopy(model), x, y, **settings)() for _ in SEEDS]
    ours = [apgd(model, x, y, **settings, generator=seeded(seed)) for seed in SEEDS]
    assert paired_deficit(model, y, ours, theirs) <= DEFICIT


@pytest.mark.full
@pytest.mark.oracle
def test_the_targeted_loss_succeeds_where_torchattacks_does(named_victim, digits):
    name, model = named_victim
    x, y = digits.x_test[:24], digits.y_test[:24]
    settings = {"eps": RADII[name, "linf"], "steps": 10}

    def ours(seed):
        x_adv = x.clone()
        for target in likeliest_wrong(model(x), y, 9).T:
            left = ~fooled(model, x_adv, y)
            aim = {"loss": targeted_dlr, "toward": target[left], "generator": seeded(seed)}
            x_adv[left] = apgd(model, x[left], y[left], **settings, **aim)
        return x_adv

    theirs = [peers.apgd_t_by_torchattacks(model, x, y, **settings, seed=seed)() for seed in SEEDS]
    assert paired_deficit(model, y, [ours(seed) for seed in SEEDS], theirs) <= DEFICIT

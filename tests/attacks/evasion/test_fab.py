"""FAB: its projection against scipy, its result against the nearest boundary of a linear model, and torchattacks."""

import copy

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize
from torch import nn

from spai_lab.attacks.evasion.fab import fab, likeliest_wrong, to_plane, walk
from spai_lab.checks import SuspiciousResult
from spai_lab.metrics import distortions
from spai_lab.models import mlp, softmax_regression
from spai_lab.threat import fooled, norms, runner_up

NORMS = ("linf", "l2")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def shortest(x, w, c, norm):
    """The length of the shortest step with w . step = c that stays in the box, by scipy; inf where there is none."""
    d = len(x)
    bounds = list(zip(-x, 1 - x, strict=True))
    if norm == "linf":  # minimize s with |step_i| <= s
        edge = np.ones((d, 1))
        answer = linprog(
            np.r_[np.zeros(d), 1],
            A_ub=np.block([[np.eye(d), -edge], [-np.eye(d), -edge]]),
            b_ub=np.zeros(2 * d),
            A_eq=np.r_[w, 0][None],
            b_eq=[c],
            bounds=[*bounds, (0, None)],
        )
        return answer.x[-1] if answer.success else np.inf
    reach = np.where(w * c > 0, w * (1 - x), -w * x).sum()
    if abs(reach) < abs(c):
        return np.inf
    answer = minimize(
        lambda step: step @ step,
        np.zeros(d),
        jac=lambda step: 2 * step,
        bounds=bounds,
        constraints={"type": "eq", "fun": lambda step: w @ step - c, "jac": lambda step: w},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert answer.success
    return np.sqrt(answer.fun)


@pytest.mark.parametrize("norm", NORMS)
def test_the_projection_onto_a_plane_in_the_box_is_the_shortest(norm):
    generator = seeded()
    x = (1.4 * torch.rand(40, 6, dtype=torch.float64, generator=generator) - 0.2).clamp(0, 1)
    w = torch.randn(40, 6, dtype=torch.float64, generator=generator)
    w[::4, 2:4] = 0
    c = 1.5 * torch.randn(40, dtype=torch.float64, generator=generator)
    step = to_plane(x, w, c, norm)
    assert ((x + step >= -1e-12) & (x + step <= 1 + 1e-12)).all()
    lengths = torch.tensor([shortest(*row, norm) for row in zip(x.numpy(), w.numpy(), c.numpy(), strict=True)])
    within = lengths.isfinite()
    assert 20 <= within.sum() < 40
    assert torch.allclose((w * step).sum(1)[within], c[within], atol=1e-9)
    assert torch.allclose(norms(step, norm)[within], lengths[within], atol=1e-6)
    corner = torch.where(w * c[:, None] > 0, 1 - x, -x) * (w != 0)
    assert torch.allclose(step[~within], corner[~within], atol=1e-9)  # as far as it goes


@pytest.mark.parametrize("norm", NORMS)
def test_the_projection_does_not_change_with_the_scale_of_the_plane(norm):
    x, w = torch.rand(9, 20, generator=seeded()), torch.randn(9, 20, generator=seeded(1))
    c = torch.linspace(-2, 2, 9)
    for scale in (1e-30, 1e-6, 1e6):
        assert torch.allclose(to_plane(x, scale * w, scale * c, norm), to_plane(x, w, c, norm), atol=1e-5)
    assert (to_plane(x, 0 * w, c, norm) == 0).all()


@pytest.mark.parametrize("norm", NORMS)
def test_it_finds_the_nearest_boundary_of_a_linear_model(norm):
    model = softmax_regression((1, 3, 3), 4, generator=seeded()).double()
    x = torch.rand(12, 1, 3, 3, dtype=torch.float64, generator=seeded())
    logits = model(x).detach()
    y = logits.argmax(1)
    weight = model[-1].weight.detach() / model[0].std
    nearest = torch.tensor(
        [
            min(
                shortest(x[i].flatten().numpy(), (weight[k] - weight[y[i]]).numpy(), float(z[y[i]] - z[k]), norm)
                for k in range(4)
                if k != y[i]
            )
            for i, z in enumerate(logits)
        ]
    )
    assert nearest.isfinite().sum() >= 6
    for eta in (1.05, 1.0001):
        found = distortions(model, x, fab(model, x, y, norm=norm, eta=eta), y, norm=norm)
        assert torch.equal(nearest.isfinite(), found.isfinite())
        ratio = (found / nearest)[nearest.isfinite()]
        # the first step to each plane is eta times the shortest, and the walk keeps the nearest point
        assert ratio.min() >= 1 - 1e-6 and ratio.max() <= eta + 1e-6
        # where nothing clips the second step, from beta eta, is eta - (1 - alpha) (eta - 1) beta eta, and no later one
        # is shorter; with alpha the share of what is left of the way, 1 - beta eta
        left = 1 - 0.9 * eta
        alpha = left / (left + 1)
        assert ratio.median() == pytest.approx(eta - (1 - alpha) * (eta - 1) * 0.9 * eta, abs=2e-4)
    target = runner_up(logits, y)
    aimed = distortions(model, x, fab(model, x, target, norm=norm, targeted=True), target, norm=norm, targeted=True)
    assert (aimed >= nearest - 1e-6).all() and aimed.isfinite().any()


@pytest.fixture(scope="module")
def case():
    model = mlp((1, 4, 4), 5, generator=seeded()).double()
    x = torch.rand(8, 1, 4, 4, dtype=torch.float64, generator=seeded())
    return model, x, model(x).argmax(1)


@pytest.mark.parametrize("norm", NORMS)
def test_an_image_does_not_depend_on_its_batch(norm, case):
    model, x, y = case
    together = fab(model, x, y, norm=norm, steps=10)
    alone = torch.cat([fab(model, x[i : i + 1], y[i : i + 1], norm=norm, steps=10) for i in range(len(x))])
    assert torch.allclose(together, alone, rtol=0, atol=1e-9)


def test_inputs_model_and_randomness_stay_as_they_were(case):
    model, x, y = case
    before, state, rng = x.clone(), copy.deepcopy(model.state_dict()), torch.get_rng_state()
    with torch.no_grad():
        x_adv = fab(model, x.transpose(2, 3).contiguous().transpose(2, 3), y, steps=5)
    assert torch.equal(x_adv, fab(model, x, y, steps=5)) and x_adv.min() >= 0 and x_adv.max() <= 1
    assert torch.equal(x, before) and torch.equal(rng, torch.get_rng_state())
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_what_is_misread_or_cannot_be_turned_comes_back_as_it_was(case):
    model, x, y = case
    assert torch.equal(fab(model, x, (y + 1) % 5, steps=3), x)
    assert torch.equal(fab(model, x, y, steps=3, targeted=True), x)
    sure = softmax_regression((1, 4, 4), 5, generator=seeded()).double()
    with torch.no_grad():
        sure[-1].bias[2] += 1000
    assert torch.equal(fab(sure, x, torch.full((8,), 2), steps=3), x)
    assert fab(nn.Flatten(2), x[:0], y[:0]).shape == (0, 1, 4, 4)  # an empty batch never reaches the model


def test_points_in_the_plane_and_two_classes():
    model = mlp((2, 1, 1), 2, generator=seeded())
    x = torch.rand(20, 2, 1, 1, generator=seeded())
    y = model(x).argmax(1)
    x_adv = fab(model, x, y, norm="l2", steps=20)
    turned = fooled(model, x_adv, y)
    assert torch.equal(turned, norms(x_adv - x, "l2") > 0)


def test_enough_ends_the_search(case):
    model, x, y = case
    rows = []

    def counting(x):
        rows.append(len(x))
        return model(x)

    exact = distortions(model, x, fab(counting, x, y, steps=20), y, norm="linf")
    spent = sum(rows)
    rows.clear()
    radius = exact.median().item() * 1.2
    reached = distortions(model, x, fab(counting, x, y, steps=20, enough=radius), y, norm="linf") <= radius
    assert torch.equal(reached, exact <= radius) and sum(rows) < 0.7 * spent


def test_classes_are_tried_from_the_likeliest_on():
    logits, y = torch.tensor([[1.0, 5.0, 3.0, 4.0], [9.0, 0.0, 2.0, 1.0]]), torch.tensor([1, 0])
    assert torch.equal(likeliest_wrong(logits, y, 2), torch.tensor([[3, 2], [2, 3]]))
    assert likeliest_wrong(logits, y, 9).shape == (2, 3)


def test_zero_gradients_warn_once(case):
    model, x, _ = case
    with pytest.warns(SuspiciousResult) as caught:
        fab(lambda x: model(x.round()), x, model(x.round()).argmax(1), steps=2)
    assert len(caught) == 1


WRONG = [
    ("norm", "l1", "norm is 'l1'", "'linf', 'l2'"),
    ("steps", 0, "steps is 0", "at least 1"),
    ("classes", 0, "classes is 0", "at least 1"),
    ("classes", 2.0, "classes is 2.0", "whole number"),
    ("alpha_max", 1.1, "alpha_max is 1.1", "from 0 to 1"),
    ("eta", 0.9, "eta is 0.9", "at least 1"),
    ("beta", 0, "beta is 0", "above 0"),
    ("beta", 1.5, "beta is 1.5", "at most 1"),
    ("enough", -1, "enough is -1", "at least 0"),
    ("targeted", 1, "targeted is 1", "True or False"),
    ("generator", 0, "generator is 0", "torch.Generator"),
    ("x", torch.full((8, 1, 4, 4), 2.0), "x has values", "[0, 1]"),
    ("y", torch.full((8,), 7), "y has a label 7", "0 to 4"),
]


@pytest.mark.parametrize(("name", "value", "words"), [(name, value, words) for name, value, *words in WRONG])
def test_bad_input_is_refused(name, value, words, case, refuses):
    model, x, y = case
    refuses(fab, {"model": model, "x": x, "y": y, name: value}, *words)


# --- the peer ---------------------------------------------------------------------------------------------------------


@pytest.mark.oracle
@pytest.mark.parametrize("norm", NORMS)
def test_the_walk_toward_one_class_is_that_of_torchattacks(norm, victim, digits):
    """Nothing is random, so each distance must agree; where a kink turns a step, on either side."""
    import torchattacks

    x = digits.x_test[:24]
    y = victim(x).argmax(1)
    peer = torchattacks.FAB(victim, norm={"linf": "Linf", "l2": "L2"}[norm], steps=20, multi_targeted=True)
    peer.target_class = 2  # the likeliest wrong one
    theirs = distortions(victim, x, peer.attack_single_run_targeted(x, y), y, norm=norm)
    x_adv, ours = walk(victim, x, y, runner_up(victim(x), y), norm=norm, steps=20)
    assert torch.allclose(distortions(victim, x, x_adv, y, norm=norm), ours)
    assert ((ours / theirs - 1).abs() < 1e-3).double().mean() >= 0.9
    assert ours.median() <= 1.001 * theirs.median()


@pytest.mark.oracle
@pytest.mark.parametrize("norm", NORMS)
def test_the_median_is_at_most_that_of_torchattacks(norm, victim, digits):
    """Against the form that takes the nearest class anew in each step, from the gradients of all of them."""
    from benchmarks.contests.auto_attack import fab_by_torchattacks

    x, y = digits.x_test[:24], digits.y_test[:24]
    far = {"linf": 1.0, "l2": 28.0}[norm]
    theirs = fab_by_torchattacks(victim, x, y, eps=far, norm=norm, steps=20, toward_each=False)()
    ours = fab(victim, x, y, norm=norm, steps=20, classes=3)
    medians = [distortions(victim, x, x_adv, y, norm=norm).median() for x_adv in (ours, theirs)]
    assert medians[0] <= 1.03 * medians[1]

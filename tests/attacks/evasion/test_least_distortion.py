"""DeepFool and L-BFGS against linear models, quadratic functions, SciPy, torchattacks, foolbox and ART."""

import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from torch import nn

from benchmarks.contests.least_distortion import by_art, by_foolbox, by_scipy, by_torchattacks
from spai_lab.attacks.evasion.least_distortion import deepfool, lbfgs, minimize_in_box
from spai_lab.checks import SuspiciousResult
from spai_lab.metrics import distortions
from spai_lab.models import mlp, softmax_regression
from spai_lab.threat import fooled, norms, value_and_gradient

ATTACKS = [deepfool, lbfgs]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def linear():
    """Four classes, gray images: the nearest boundary is |f_i| / ||w_i|| away, and the box is too far to matter."""
    model = softmax_regression((1, 5, 5), 4, generator=seeded()).double()
    x = 0.4 + 0.2 * torch.rand(30, 1, 5, 5, dtype=torch.float64, generator=seeded(1))
    with torch.no_grad():
        model[-1].bias -= model(x).mean(0)
        y = model(x).argmax(1)
        w = model[-1].weight / model[0].std
        f = model(x) - model(x).gather(1, y[:, None])
    return model, x, y, f, w[None] - w[y][:, None]


def nearest(f, w, order):
    """The distance to the nearest boundary, in the norm whose dual has this order."""
    return (f.abs() / torch.linalg.vector_norm(w, ord=order, dim=2)).nan_to_num(math.inf).amin(1)


@pytest.mark.parametrize(("norm", "order"), [("l2", 2), ("linf", 1)])
@pytest.mark.parametrize("overshoot", [0.0, 0.02, 0.5])
def test_deepfool_steps_straight_to_the_nearest_boundary(linear, norm, order, overshoot):
    model, x, y, f, w = linear
    x_adv = deepfool(model, x, y, norm=norm, overshoot=overshoot, steps=1)
    assert fooled(model, x_adv, y).all()
    expected = (1 + overshoot) * nearest(f, w, order)
    assert torch.allclose(norms(x_adv - x, norm), expected, rtol=0, atol=2e-5)


def test_lbfgs_comes_no_nearer_than_the_nearest_boundary(linear):
    model, x, y, f, w = linear
    x_adv = lbfgs(model, x, y)
    assert fooled(model, x_adv, y).all()
    assert (norms(x_adv - x, "l2") >= nearest(f, w, 2) - 1e-9).all()


def test_lbfgs_ends_on_the_boundary_of_two_classes(linear):
    """With two classes every minimizer lies on the straight way across, so that the search for c ends at the border."""
    x = linear[1][:8]
    model = softmax_regression((1, 5, 5), 2, generator=seeded()).double()
    with torch.no_grad():
        model[-1].bias -= model(x).mean(0) + torch.tensor([0.0, 1.0])
        gap = model(x)[:, 0] - model(x)[:, 1]
        distance = gap / ((model[-1].weight[0] - model[-1].weight[1]) / model[0].std).norm()
    t = torch.ones(8, dtype=torch.int64)
    x_adv = lbfgs(model, x, t, targeted=True, searches=20)
    assert (gap > 0).all() and fooled(model, x_adv, t, targeted=True).all()
    assert torch.allclose(norms(x_adv - x, "l2"), distance, rtol=1e-4, atol=0)


# --- the minimizer ----------------------------------------------------------------------------------------------------


def test_a_quadratic_function_is_minimized_in_the_box():
    """With a diagonal Hessian the minimum in a box is the clipped minimum."""
    center = 3 * torch.rand(6, 8, dtype=torch.float64, generator=seeded()) - 1
    scale = torch.logspace(0, 3, 8, dtype=torch.float64)
    found = minimize_in_box(
        lambda x, rows: (scale * (x - center[rows]).square()).sum(1), torch.full_like(center, 0.5), steps=100
    )
    assert torch.allclose(found, center.clamp(0, 1), rtol=0, atol=1e-5)


def test_a_curved_valley_is_followed_to_its_end():
    """Rosenbrock's function in two of the variables, with its minimum at (1, 1), a corner of the box."""
    start = torch.tensor([[0.0, 0.0], [0.2, 0.9], [1.0, 0.0]], dtype=torch.float64)
    found = minimize_in_box(lambda x, rows: (1 - x[:, 0]) ** 2 + 100 * (x[:, 1] - x[:, 0] ** 2) ** 2, start, steps=300)
    assert torch.allclose(found, torch.ones_like(start), rtol=0, atol=1e-3)


def scipy_minimum(h, start, steps):
    def objective(z):
        value, slope = value_and_gradient(h, torch.from_numpy(z).view_as(start))
        return value.item(), slope.numpy().ravel()

    options = {"maxcor": 10, "maxfun": steps, "maxiter": steps}
    bounds = [(0, 1)] * start.numel()
    return minimize(objective, start.numpy().ravel(), jac=True, method="L-BFGS-B", bounds=bounds, options=options).fun


@pytest.mark.parametrize("c", [0.01, 0.3, 10.0])
def test_a_convex_objective_ends_where_scipy_ends(c):
    """Softmax regression: one minimum, so that both must find it; a fifth of the pixels starts at a limit."""
    model = softmax_regression((1, 6, 6), 4, generator=seeded()).double()
    x = (1.4 * torch.rand(8, 1, 6, 6, dtype=torch.float64, generator=seeded(1)) - 0.2).clamp(0, 1)
    t = torch.arange(8) % 4

    def objective(z, rows):
        size = (z - x[rows]).square().flatten(1).sum(1)
        return c * size + F.cross_entropy(5 * model(z), t[rows], reduction="none")

    found = minimize_in_box(objective, x, steps=200)
    values = objective(found, torch.arange(8)).tolist()
    for i, value in enumerate(values):
        rows = torch.tensor([i])
        best = scipy_minimum(lambda z, rows=rows: objective(z, rows), x[i : i + 1], 1000)
        assert value <= best * 1.001 + 1e-6


# --- what comes back --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small():
    model = mlp((1, 4, 4), 3, hidden=16, generator=seeded()).double()
    x = torch.rand(10, 1, 4, 4, dtype=torch.float64, generator=seeded(1)).round(decimals=1)
    with torch.no_grad():
        model[-1].bias -= model(x).mean(0)
        y = model(x).argmax(1)
    y[:2] = (y[:2] + 1) % 3  # misread from the start
    return model, x, y


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_comes_back_is_adversarial_or_untouched(attack, small):
    model, x, y = small
    x_adv = attack(model, x, y)
    assert ((x_adv >= 0) & (x_adv <= 1)).all() and x_adv.dtype == x.dtype
    assert torch.equal(x_adv[:2], x[:2])
    moved = norms(x_adv - x, "l2") > 0
    assert torch.equal(moved[2:], fooled(model, x_adv, y)[2:]) and moved[2:].float().mean() > 0.5
    constant = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).double()
    with torch.no_grad():
        constant[1].weight.mul_(1e-3)
        constant[1].bias.copy_(torch.tensor([9.0, 0.0, 0.0]))
    assert torch.equal(attack(constant, x, torch.zeros_like(y)), x)


def test_lbfgs_leaves_what_is_at_its_target(small):
    model, x, _ = small
    t = model(x).argmax(1)
    assert torch.equal(lbfgs(model, x, t, targeted=True), x)
    x_adv = lbfgs(model, x, (t + 1) % 3, targeted=True)
    assert torch.equal(norms(x_adv - x, "l2") > 0, fooled(model, x_adv, (t + 1) % 3, targeted=True))


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_image_does_not_depend_on_its_batch_nor_on_its_layout(attack, small):
    model, x, y = small[0], small[1][:4], small[2][:4]
    together = attack(model, x, y)
    alone = torch.cat([attack(model, x[i : i + 1], y[i : i + 1]) for i in range(4)])
    turned = x.transpose(2, 3).contiguous().transpose(2, 3)
    with torch.no_grad():
        again = attack(model, turned, y)
        assert attack(model, x[:0], y[:0]).shape == (0, 1, 4, 4)
    for other in (alone, again):
        assert torch.allclose(norms(other - x, "l2"), norms(together - x, "l2"), rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("attack", ATTACKS)
def test_images_that_are_done_leave_the_batch(attack, digits):
    from spai_lab.training import reference

    victim, seen = reference("lenet", "digits"), []

    def model(x):
        seen.append(len(x))
        return victim(x)

    attack(model, digits.x_test[:12], digits.y_test[:12], steps=80, **({"searches": 1} if attack is lbfgs else {}))
    assert max(seen) == 12 and min(seen[:-1]) < 12


@pytest.mark.parametrize("attack", ATTACKS)
def test_zero_gradients_warn_once(attack):
    model = softmax_regression((1, 2, 2), 2, generator=seeded())
    x = torch.full((3, 1, 2, 2), 0.5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        x_adv = attack(lambda x: model(x.round()), x, model(x.round()).argmax(1))
    assert [issubclass(w.category, SuspiciousResult) for w in caught] == [True]
    assert torch.equal(x_adv, x)


VALID = {
    "model": nn.Sequential(nn.Flatten(), nn.Linear(4, 3)),
    "x": torch.full((2, 1, 2, 2), 0.5),
    "y": torch.tensor([0, 1]),
}
WRONG = [
    (deepfool, "norm", "l1", "norm is 'l1'", "'linf', 'l2'"),
    (deepfool, "steps", 0, "steps is 0", "at least 1"),
    (deepfool, "overshoot", -0.1, "overshoot is -0.1", "at least 0"),
    (deepfool, "candidates", 1, "candidates is 1", "at least 2"),
    (lbfgs, "c", 0, "c is 0", "above 0"),
    (lbfgs, "searches", 0, "searches is 0", "at least 1"),
    (lbfgs, "steps", 1.5, "steps is 1.5", "whole number"),
    (lbfgs, "memory", 0, "memory is 0", "at least 1"),
    (lbfgs, "targeted", 1, "targeted is 1", "True or False"),
]


@pytest.mark.parametrize(("attack", "name", "value", "words"), [(*row[:3], row[3:]) for row in WRONG])
def test_bad_input_is_refused(refuses, attack, name, value, words):
    refuses(attack, {**VALID, name: value}, *words)


# --- the peers --------------------------------------------------------------------------------------------------------

WORSE = 1.03  # of the best peer's median, at most


def median(victim, x, x_adv, y, **arguments):
    """The lower median, which failures make infinite only where half of the images fail."""
    return distortions(victim, x, x_adv, y, **arguments).sort().values[(len(x) - 1) // 2].item()


ROBUST_LATER = pytest.mark.parametrize(
    "victim", ["lenet", pytest.param("lenet-robust", marks=pytest.mark.full)], indirect=True
)


@pytest.mark.oracle
@ROBUST_LATER
def test_deepfool_moves_no_farther_than_the_peers(victim, digits):
    x, y = digits.x_test[:16], digits.y_test[:16]
    best = min(median(victim, x, peer(victim, x, y)(), y) for peer in (by_foolbox, by_art))
    assert median(victim, x, deepfool(victim, x, y), y) <= WORSE * best
    few = slice(0, 4)  # torchattacks goes image by image, and stops on the boundary: how far counts, not whether over
    theirs = norms(by_torchattacks(victim, x[few], y[few])() - x[few], "l2")
    assert norms(deepfool(victim, x[few], y[few]) - x[few], "l2").median() <= WORSE * theirs.median()


@pytest.mark.oracle
def test_deepfool_in_linf_moves_no_farther_than_foolbox(victim, digits):
    x, y = digits.x_test[:16], digits.y_test[:16]
    theirs = median(victim, x, by_foolbox(victim, x, y, norm="linf")(), y, norm="linf")
    assert median(victim, x, deepfool(victim, x, y, norm="linf"), y, norm="linf") <= WORSE * theirs


@pytest.mark.oracle
@ROBUST_LATER
def test_lbfgs_moves_no_farther_than_scipys(victim, digits):
    x, t = digits.x_test[:3], (digits.y_test[:3] + 1) % 10
    theirs = median(victim, x, by_scipy(victim, x, t, searches=4)(), t, targeted=True)
    assert median(victim, x, lbfgs(victim, x, t, targeted=True, searches=4), t, targeted=True) <= WORSE * theirs

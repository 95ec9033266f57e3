"""Carlini and Wagner's attacks against a linear model, whose nearest boundary is known, and against the peers."""

import math

import pytest
import torch
from scipy.optimize import brentq
from torch import nn

from benchmarks.contests import carlini_wagner as contest
from spai_lab.attacks.evasion.carlini_wagner import carlini_wagner, minimize_at
from spai_lab.metrics import distortions
from spai_lab.models import mlp, softmax_regression
from spai_lab.threat import fooled, margin, norms

NORMS = ["l2", "linf", "l0"]
QUICK = {"steps": 150, "searches": 6, "initial_c": 0.1}


class Counting(nn.Module):
    """A model that notes how many images it is shown at a time."""

    def __init__(self, model):
        super().__init__()
        self.model, self.seen = model, []

    def forward(self, x):
        self.seen.append(len(x))
        return self.model(x)


def slopes(model, x):
    """How much each logit of a linear model rises from a black image to one with a single white pixel."""
    white = torch.eye(x[0].numel(), dtype=x.dtype).view(-1, *x.shape[1:])
    with torch.no_grad():
        return (model(white) - model(torch.zeros_like(x[:1]))).T.reshape(-1, *x.shape[1:])


@pytest.fixture(scope="module")
def linear():
    """Two classes, the label of each image the one that the model gives, and the direction that favors the other."""
    generator = torch.Generator().manual_seed(0)
    model = softmax_regression((1, 5, 5), 2, generator=generator).double()
    model[-1].weight.data *= 4
    x = 0.3 + 0.4 * torch.rand(12, 1, 5, 5, dtype=torch.float64, generator=generator)
    x[:, :, 0] = (x[:, :, 0] > 0.5).double()  # some are black or white, and can move one way only
    with torch.no_grad():
        y = model(x).argmax(1)
    weight = slopes(model, x)
    return model, x, y, weight[1 - y] - weight[y]


def lead(model, x, y):
    with torch.no_grad():
        return margin(model(x), y)


def nearest_boundary(linear, norm, i, confidence=0.0):
    """The least distance at which image i loses its lead, within [0, 1]: what the optimum of each norm looks like."""
    model, x, y, w = (part[i] if isinstance(part, torch.Tensor) else part for part in linear)

    def left(x_adv):
        return lead(model, x_adv[None], y[None]).item() + confidence

    if norm == "l0":  # the entries with the most to gain go all the way
        far = (w > 0).double()
        gain = (w * (far - x)).flatten().sort(descending=True)[0].cumsum(0)
        return 1 + int((gain <= left(x)).sum())
    direction = w if norm == "l2" else w.sign()
    t = brentq(lambda t: left((x + t * direction).clamp(0, 1)), 0, 1e3)
    return norms(((x + t * direction).clamp(0, 1) - x)[None], norm).item()


def distances(linear, norm, **settings):
    """How far each image was moved, and the least that would have done."""
    model, x, y, _ = linear
    least = torch.tensor([nearest_boundary(linear, norm, i) for i in range(len(x))], dtype=torch.float64)
    found = distortions(model, x, carlini_wagner(model, x, y, norm=norm, **settings), y, norm=norm)
    assert (found >= least * (1 - 1e-9)).all()
    return found, least


def test_the_nearest_boundary_of_a_linear_model_is_reached_in_l2(linear):
    found, least = distances(linear, "l2", **QUICK)
    assert (found <= 1.01 * least).all()


def test_the_nearest_boundary_of_a_linear_model_is_reached_in_linf(linear):
    """The limit shrinks by a tenth at a time, and one that leaves less room than that may be missed."""
    found, least = distances(linear, "linf", **QUICK)
    assert (found <= least / 0.9**2).all(), found / least
    assert found.median() <= least.median() / 0.9


def test_the_nearest_boundary_of_a_linear_model_is_reached_in_l0(linear):
    """Which entry goes is decided by what it gained, not by the room it has, so that one too many may stay."""
    found, least = distances(linear, "l0", **QUICK)
    assert (found <= least + 1).all()
    assert (found == least).double().mean() > 0.5


def test_confidence_is_reached_at_the_least_distance(linear):
    model, x, y, _ = linear
    x_adv = carlini_wagner(model, x, y, confidence=0.5, **QUICK)
    assert (lead(model, x_adv, y) <= -0.5).all()
    least = torch.tensor([nearest_boundary(linear, "l2", i, 0.5) for i in range(len(x))], dtype=torch.float64)
    assert (norms(x_adv - x, "l2") <= 1.01 * least).all()


def test_a_target_is_reached_at_the_same_distance(linear):
    model, x, y, _ = linear
    away, toward = carlini_wagner(model, x, y, **QUICK), carlini_wagner(model, x, 1 - y, targeted=True, **QUICK)
    assert torch.allclose(away, toward, rtol=0, atol=1e-9)


def test_a_fixed_c_trades_as_a_quadratic_says():
    r"""Before the boundary $\|\delta\|^2 - c \, w \cdot \delta$ is least at $\delta = c w / 2$."""
    model = softmax_regression((1, 3, 3), 2, generator=torch.Generator().manual_seed(1)).double()
    model[-1].bias.data.copy_(torch.tensor([2.0, -2.0]))
    c = torch.tensor([0.02, 0.1, 0.3], dtype=torch.float64)
    x, y = torch.full((3, 1, 3, 3), 0.5, dtype=torch.float64), torch.zeros(3, dtype=torch.int64)
    w = slopes(model, x).diff(dim=0)
    x_adv, found = minimize_at(model, x, y, c, steps=500)
    assert not found.any()
    assert torch.allclose(x_adv, x + c.view(-1, 1, 1, 1) * w / 2, rtol=0, atol=1e-3)


def test_searching_c_beats_every_c_that_was_not_searched(linear):
    model, x, y, _ = linear
    sizes = []
    for c in (0.01, 0.1, 1.0, 10.0):
        x_adv, _ = minimize_at(model, x, y, torch.full((len(x),), c, dtype=torch.float64), steps=150)
        sizes.append(distortions(model, x, x_adv, y))
    searched = distortions(model, x, carlini_wagner(model, x, y, **{**QUICK, "initial_c": 0.01}), y)
    assert searched.median() <= min(size.median() for size in sizes)
    assert sizes[0].isinf().any()
    assert sizes[-1].median() > 1.001 * searched.median()


@pytest.mark.parametrize("norm", NORMS)
def test_what_is_misread_or_out_of_reach_comes_back_as_it_was(linear, norm):
    model, x, y, _ = linear
    counting = Counting(model)
    assert torch.equal(carlini_wagner(counting, x, 1 - y, norm=norm), x)
    assert counting.seen == [len(x)]
    assert torch.equal(carlini_wagner(model, x, y, norm=norm, confidence=1e3, **{**QUICK, "steps": 5}), x)


@pytest.mark.parametrize("norm", NORMS)
def test_images_that_are_done_leave_the_batch(norm):
    model = mlp((1, 4, 4), 3, hidden=8, generator=torch.Generator().manual_seed(0)).eval()
    x = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    y = model(x).argmax(1)
    counting = Counting(model)
    steps = (
        250 if norm == "l2" else 50
    )  # in L2 an image is given time to come back, elsewhere it leaves when it is there
    x_adv = carlini_wagner(counting, x, y, norm=norm, steps=steps, searches=3, initial_c=1.0, learning_rate=0.05)
    assert fooled(model, x_adv, y).float().mean() >= 0.5
    assert counting.seen[0] == len(x) and min(counting.seen) < len(x)
    limit = 3 * steps if norm == "l2" else math.inf  # one forward and backward a step
    assert len(counting.seen) - 1 <= limit


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("targeted", [False, True])
def test_an_image_does_not_depend_on_its_batch_nor_on_no_grad_and_nothing_is_changed(norm, targeted):
    model = mlp((2, 3, 3), 3, hidden=8, generator=torch.Generator().manual_seed(0)).double().eval()
    x = torch.rand(5, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y = torch.tensor([0, 1, 2, 0, 1])
    before, state = x.clone(), torch.get_rng_state()
    arguments = {"norm": norm, "targeted": targeted, "steps": 40, "searches": 3, "initial_c": 1.0}
    together = carlini_wagner(model, x, y, **arguments)
    with torch.no_grad():
        alone = torch.cat([carlini_wagner(model, x[i : i + 1], y[i : i + 1], **arguments) for i in range(5)])
    strided = carlini_wagner(model, x.repeat_interleave(2, dim=3)[..., ::2], y, **arguments)
    for other in (alone, strided):
        assert torch.allclose(together, other, rtol=0, atol=1e-9)
    assert not together.requires_grad and ((together >= 0) & (together <= 1)).all()
    assert torch.equal(x, before) and torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", [(0, 1, 4, 4), (3, 2, 1, 1)])
def test_empty_batches_and_points_of_the_plane(norm, shape):
    model = Counting(softmax_regression(shape[1:], 3, generator=torch.Generator().manual_seed(0)))
    x = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    y = torch.zeros(shape[0], dtype=torch.int64)
    x_adv = carlini_wagner(model, x, y, norm=norm, steps=20, searches=2)
    assert (x_adv.shape, x_adv.dtype) == (x.shape, x.dtype) and x_adv.isfinite().all()
    assert bool(model.seen) is bool(shape[0])


@pytest.mark.parametrize(
    ("argument", "value", "words"),
    [
        ("norm", "l1", ("norm is 'l1'", "'l2', 'linf', 'l0'")),
        ("confidence", -1.0, ("confidence is -1.0", "at least 0")),
        ("confidence", math.nan, ("confidence is nan", "finite")),
        ("initial_c", 0, ("initial_c is 0", "above 0")),
        ("searches", 0, ("searches is 0",)),
        ("searches", 1.5, ("searches is 1.5",)),
        ("steps", 0, ("steps is 0",)),
        ("learning_rate", 0.0, ("learning_rate is 0.0", "above 0")),
        ("learning_rate", "fast", ("learning_rate is 'fast'",)),
        ("targeted", 1, ("targeted is 1", "True or False")),
        ("x", torch.full((2, 1, 4, 4), 255.0), ("x has values", "[0, 1]")),
        ("generator", 7, ("generator is 7",)),
    ],
)
def test_bad_arguments_are_named(refuses, argument, value, words):
    valid = {
        "model": softmax_regression((1, 4, 4), 3),
        "x": torch.full((2, 1, 4, 4), 0.5),
        "y": torch.tensor([0, 2]),
    }
    refuses(carlini_wagner, {**valid, argument: value}, *words)


@pytest.mark.parametrize(
    "c", [1.0, torch.tensor(1.0), torch.ones(3), torch.ones(2).double(), torch.tensor([1.0, -1.0]), torch.ones(2) / 0]
)
def test_bad_weights_are_named(refuses, c):
    x, y = torch.full((2, 1, 4, 4), 0.5), torch.tensor([0, 2])
    refuses(minimize_at, {"model": softmax_regression((1, 4, 4), 3), "x": x, "y": y, "c": c}, "c is", "shape (2,)")


# --- the peers --------------------------------------------------------------------------------------------------------

ROBUST_LATER = pytest.mark.parametrize(
    "victim", ["lenet", pytest.param("lenet-robust", marks=pytest.mark.full)], indirect=True
)


FIXED = {"steps": 100, "searches": 1, "initial_c": 3.0}
SEARCHED = {"steps": 100, "searches": 3, "initial_c": 0.3}


def compare(victim, digits, peer, budget, *, images, norm="l2", targeted=False, **ours):
    """Our distortions and the peer's, a failure being infinite, on images whose clean version is read right."""
    x, y = digits.x_test[:images], digits.y_test[:images]
    y = (y + 1) % 10 if targeted else y
    mine = carlini_wagner(victim, x, y, norm=norm, targeted=targeted, **budget, **ours)
    theirs = peer(victim, x, y, targeted=targeted, **budget)().to(x.dtype)
    return [distortions(victim, x, x_adv, y, norm=norm, targeted=targeted) for x_adv in (mine, theirs)]


def assert_at_most_3_percent_above(ours, theirs):
    """In the median of all images, and of those on which the peer succeeds, lest both medians be infinite."""
    assert theirs.isfinite().any()
    reached = theirs.isfinite()
    for images in (slice(None), reached):
        assert ours[images].median() <= 1.03 * theirs[images].median()


@pytest.mark.oracle
@pytest.mark.parametrize("targeted", [False, pytest.param(True, marks=pytest.mark.full)])
@pytest.mark.parametrize(
    ("peer", "budget", "images"),
    [(contest.by_torchattacks, FIXED, 24), (contest.by_foolbox, SEARCHED, 12)],
    ids=["torchattacks", "foolbox"],
)
@ROBUST_LATER
def test_l2_is_as_near_as_the_peers(victim, digits, peer, budget, images, targeted):
    assert_at_most_3_percent_above(*compare(victim, digits, peer, budget, images=images, targeted=targeted))


@pytest.mark.oracle
@ROBUST_LATER
def test_l2_is_as_near_as_arts(victim, digits):
    budget = {"steps": 60, "searches": 1, "initial_c": 10.0}
    assert_at_most_3_percent_above(*compare(victim, digits, contest.by_art, budget, images=8))


@pytest.mark.full
@pytest.mark.oracle
def test_a_step_in_the_wrong_place_is_noticed(victim, digits):
    """The comparison tells a learning rate that is five times too small."""
    ours, theirs = compare(victim, digits, contest.by_foolbox, SEARCHED, images=8, learning_rate=2e-3)
    with pytest.raises(AssertionError):
        assert_at_most_3_percent_above(ours, theirs)


@pytest.mark.full
@pytest.mark.oracle
def test_linf_is_as_near_as_arts(digits):
    from spai_lab.training import reference

    budget = {"steps": 60, "searches": 3, "initial_c": 1.0}
    victim = reference("lenet", "digits")
    assert_at_most_3_percent_above(*compare(victim, digits, contest.by_art_linf, budget, images=4, norm="linf"))

"""The attacks that estimate gradients, against exact gradients, a linear model, ART, torchattacks and foolbox."""

import math

import pytest
import torch
from scipy import stats
from torch import nn

from benchmarks.contests.estimation import nes_by_torchattacks, zoo_by_art
from spai_lab.attacks.evasion.estimation import lead, nes, nes_gradient, probe, zoo
from spai_lab.metrics import Rate, distortions
from spai_lab.models import softmax_regression
from spai_lab.query import Query
from spai_lab.threat import fooled, margin, norms, value_and_gradient

FALSE_ALARM = 1e-6


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# --- the estimate of natural evolution strategies ---------------------------------------------------------------------

SLOPE = torch.tensor([3.0, -1.0, 0.5, 2.0, 0.0], dtype=torch.float64)
CURVATURE = torch.tensor([4.0, -2.0, 1.0, 0.0, 3.0], dtype=torch.float64)
POINT = torch.tensor([0.2, -0.4, 0.7, 0.1, 0.5], dtype=torch.float64)
TRIALS = 4000
LOOKS = 10


def linear(points):
    return points @ SLOPE


def quadratic(points):
    return points @ SLOPE + (points.square() * CURVATURE).sum(-1) / 2


def unlike_its_gradient(estimates, gradient, variance):
    """The probability of a mean so far from the gradient; the estimates' entries have this variance around it."""
    z = (estimates.mean(0) - gradient) / (variance / len(estimates)).sqrt()
    return 2 * len(z) * stats.norm.sf(z.abs().max().item())


def unlike_its_variance(estimates, gradient, variance):
    """The probability of a spread so far from `variance`, with the entries' own fourth moments (central limit)."""
    squares = (estimates - gradient).square()
    z = (squares.mean(0) - variance) / (squares.std(0) / math.sqrt(len(estimates)))
    return 2 * len(z) * stats.norm.sf(z.abs().max().item())


@pytest.mark.parametrize("score", [linear, quadratic])
def test_the_estimate_has_the_mean_and_the_variance_of_the_closed_form(score):
    """Opposite looks cancel a curvature exactly, so that the formulas of a linear score hold for a quadratic one."""
    x = POINT.expand(TRIALS, -1)
    gradient = SLOPE + CURVATURE * POINT if score is quadratic else SLOPE
    variance = 2 / LOOKS * (gradient.square().sum() + gradient.square())
    estimates = nes_gradient(score, x, samples=LOOKS, sigma=0.1, generator=seeded())
    assert unlike_its_gradient(estimates, gradient, variance) > FALSE_ALARM
    assert unlike_its_variance(estimates, gradient, variance) > FALSE_ALARM


def test_faults_of_the_estimate_are_caught():
    x = POINT.expand(TRIALS, -1)
    variance = 2 / LOOKS * (SLOPE.square().sum() + SLOPE.square())
    estimates = nes_gradient(linear, x, samples=LOOKS, sigma=0.1, generator=seeded())
    assert unlike_its_gradient(1.1 * estimates, SLOPE, variance) <= FALSE_ALARM
    assert unlike_its_gradient(estimates.roll(1, dims=1), SLOPE, variance) <= FALSE_ALARM
    twice_the_looks = nes_gradient(linear, x, samples=2 * LOOKS, sigma=0.1, generator=seeded())
    assert unlike_its_variance(twice_the_looks, SLOPE, variance) <= FALSE_ALARM


def test_the_blur_is_as_wide_as_sigma():
    """The gradient of sin(x) blurred by sigma is exp(-sigma^2 / 2) cos(x)."""
    x = torch.full((200_000, 1), 0.3, dtype=torch.float64)
    estimates = nes_gradient(lambda points: points.sin().sum(-1), x, samples=2, sigma=1.0, generator=seeded())
    z = (estimates.mean() - math.exp(-0.5) * math.cos(0.3)) / (estimates.std() / math.sqrt(len(x)))
    assert 2 * stats.norm.sf(z.abs().item()) > FALSE_ALARM


def test_each_input_is_looked_at_by_itself():
    x = torch.rand(3, 1, 2, 2, generator=seeded())
    slopes = torch.tensor([1.0, 0.0, -1.0])
    estimates = nes_gradient(lambda points: points.flatten(2).sum(2) * slopes, x, samples=400, generator=seeded())
    assert (estimates[0] > 0.5).all() and (estimates[1] == 0).all() and (estimates[2] < -0.5).all()


# --- the slope along coordinates --------------------------------------------------------------------------------------


def test_difference_quotients_equal_autograd(digits):
    from spai_lab.training import reference

    model = nn.Sequential(*reference("lenet", "digits")).double()
    swaps = {nn.ReLU: nn.Softplus(), nn.MaxPool2d: nn.AvgPool2d(2)}
    model = nn.Sequential(*[swaps.get(type(layer), layer) for layer in model]).eval()
    x, y = digits.x_test[:3].double(), digits.y_test[:3]
    i = torch.rand(3, 784, generator=seeded()).topk(50).indices

    def f(points, images):
        return lead(Query(model), points.view(-1, 1, 28, 28), y[images], images, targeted=False)

    here, slope = probe(f, x.flatten(1), i, torch.arange(3), h=1e-4, floor=-math.inf)
    expected, gradient = value_and_gradient(lambda x: margin(model(x), y), x)
    assert torch.allclose(here, expected, rtol=0, atol=1e-9)
    inside = ((x.flatten(1) > 1e-4) & (x.flatten(1) < 1 - 1e-4)).gather(1, i)
    error = (slope - gradient.flatten(1).gather(1, i)).abs()
    assert inside.any() and not inside.all()
    assert error[inside].max() < 1e-6  # the error of a symmetric quotient falls with h squared
    assert error[~inside].max() < 1e-2  # at the edge of the range it falls with h alone


def test_below_the_floor_nothing_slopes():
    points, i = torch.tensor([[0.5, 0.5]]), torch.tensor([[0, 1]])
    _, slope = probe(
        lambda looks, images: looks.flatten(0, -2).sum(1) - 3, points, i, torch.tensor([0]), h=0.1, floor=-1
    )
    assert (slope == 0).all()


# --- a linear model, whose nearest misread point is known -------------------------------------------------------------


@pytest.fixture(scope="module")
def two_classes():
    """A linear model of two classes, gray images, and how far its boundary is from each."""
    model = softmax_regression((1, 3, 3), 2, generator=seeded()).double()
    x = 0.4 + 0.2 * torch.rand(6, 1, 3, 3, dtype=torch.float64, generator=seeded(1))
    with torch.no_grad():
        y = model(x).argmax(1)
    lead, slope = value_and_gradient(lambda x: margin(model(x), y), x)
    return model, x, y, lead / norms(slope, "l2")


@pytest.mark.parametrize(("reveals", "targeted"), [("scores", False), ("logits", True)])
def test_zoo_finds_the_nearest_point_of_a_linear_model(two_classes, reveals, targeted):
    model, x, y, nearest = two_classes
    query = Query(model, reveals)
    goal = 1 - y if targeted else y
    x_adv = zoo(query, x, goal, steps=200, searches=4, initial_c=0.3, targeted=targeted, generator=seeded())
    found = distortions(model, x, x_adv, y)
    assert (found >= nearest * (1 - 1e-9)).all()
    assert (found <= 1.03 * nearest).all()


def test_confidence_moves_the_boundary(two_classes):
    model, x, y, _ = two_classes
    x_adv = zoo(Query(model), x, y, steps=150, searches=4, initial_c=0.3, confidence=0.5, generator=seeded())
    leads = margin(model(x_adv).detach(), y)
    assert (leads <= -0.5).all() and (leads >= -0.6).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_nes_comes_near_the_worst_case_of_a_linear_model(two_classes, norm):
    model, x, y, _ = two_classes
    eps = 0.02
    x_adv = nes(Query(model), x, y, eps=eps, norm=norm, steps=60, samples=100, generator=seeded())
    _, slope = value_and_gradient(lambda x: margin(model(x), y), x)
    best = eps * norms(slope, "l1" if norm == "linf" else "l2")
    gain = (slope * (x - x_adv)).flatten(1).sum(1)
    standing = ~fooled(model, x_adv, y)
    assert standing.any()
    assert (gain[standing] >= 0.97 * best[standing]).all()


# --- queries ----------------------------------------------------------------------------------------------------------

ATTACKS = {
    "nes": lambda query, x, y, **arguments: nes(query, x, y, eps=0.05, steps=20, samples=10, **arguments),
    "zoo": lambda query, x, y, **arguments: zoo(query, x, y, steps=60, searches=2, initial_c=1.0, **arguments),
}


@pytest.fixture(params=ATTACKS.values(), ids=ATTACKS)
def estimating(request):
    return request.param


def test_every_query_is_counted_for_its_image(two_classes, estimating):
    model, x, y, _ = two_classes
    shown = []

    def spy(points):
        shown.append(len(points))
        return model(points)

    query = Query(spy)
    estimating(query, x, y, generator=seeded())
    assert query.total == sum(shown) == query.counts.sum() and len(query.counts) == len(x)
    step = {"nes": 11, "zoo": 19}
    assert any(((query.counts - 1) % cost == 0).all() for cost in step.values())


@pytest.mark.parametrize("cap", [1, 15, 200])
def test_the_cap_holds_and_the_best_so_far_comes_back(two_classes, estimating, cap):
    model, x, y, _ = two_classes
    query = Query(model, cap=cap)
    x_adv = estimating(query, x, y, generator=seeded())
    assert query.counts.max() <= cap and query.exhausted.any()
    assert x_adv.min() >= 0 and x_adv.max() <= 1
    if cap == 1:
        assert torch.equal(x_adv, x)


def test_zoo_keeps_what_it_had_found_when_the_cap_was_reached(two_classes):
    model, x, y, _ = two_classes
    query = Query(model, cap=3000)
    x_adv = zoo(query, x, y, steps=10_000, initial_c=10.0, abort_early=False, generator=seeded())
    assert query.exhausted.all() and fooled(model, x_adv, y).all()


def test_what_fools_already_comes_back_as_it_was_for_one_query(two_classes, estimating):
    model, x, y, _ = two_classes
    query = Query(model)
    assert torch.equal(estimating(query, x, 1 - y), x)
    assert query.counts.tolist() == [1] * len(x)


def test_an_empty_batch_asks_nothing(two_classes, estimating):
    model, x, y, _ = two_classes
    query = Query(model)
    assert estimating(query, x[:0], y[:0]).shape == x[:0].shape and query.total == 0


def test_moons_have_two_coordinates(estimating):
    model = softmax_regression((2, 1, 1), 2, generator=seeded())
    x = torch.full((1, 2, 1, 1), 0.5)
    y = model(x).argmax(1)
    assert estimating(Query(model), x, y, generator=seeded()).shape == x.shape


def test_a_seed_repeats_the_attack_and_the_global_state_stays(two_classes, estimating):
    model, x, y, _ = two_classes
    state, before = torch.get_rng_state(), x.clone()
    first, second = (estimating(Query(model), x, y, generator=seeded(3)) for _ in range(2))
    assert torch.equal(first, second) and torch.equal(x, before)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_early_abort_saves_queries_on_images_that_are_stuck(two_classes):
    model, x, y, _ = two_classes
    spent = {}
    for abort_early in (False, True):
        query = Query(model)
        arguments = {"steps": 300, "searches": 1, "initial_c": 1e-3, "abort_early": abort_early}
        zoo(query, x, y, **arguments, generator=seeded())
        spent[abort_early] = query.counts
    assert (spent[True] < spent[False]).all()


WRONG = [
    (nes_gradient, {"samples": 3}, "samples is 3", "even"),
    (nes_gradient, {"samples": 0}, "samples is 0", "at least 2"),
    (nes_gradient, {"sigma": 0}, "sigma is 0", "above 0"),
    (nes_gradient, {"score": None}, "score is None", "called"),
    (nes, {"samples": 5}, "samples is 5", "even"),
    (nes, {"sigma": -1}, "sigma is -1", "above 0"),
    (nes, {"momentum": 1.5}, "momentum is 1.5", "from 0 to 1"),
    (nes, {"steps": 0}, "steps is 0", "whole number"),
    (zoo, {"steps": 0}, "steps is 0", "whole number"),
    (zoo, {"searches": 0}, "searches is 0", "whole number"),
    (zoo, {"initial_c": 0}, "initial_c is 0", "above 0"),
    (zoo, {"coordinates": 1.5}, "coordinates is 1.5", "whole number"),
    (zoo, {"learning_rate": math.nan}, "learning_rate is nan", "above 0"),
    (zoo, {"h": 1}, "h is 1", "at most 0.5"),
    (zoo, {"confidence": -1}, "confidence is -1", "at least 0"),
    (zoo, {"abort_early": 1}, "abort_early is 1", "True or False"),
    (zoo, {"y": torch.tensor([2] * 6)}, "y has a label 2", "0 to 1"),
    (nes, {"y": torch.tensor([2] * 6)}, "y has a label 2", "0 to 1"),
]


@pytest.mark.parametrize(("function", "wrong", "words"), [(f, wrong, words) for f, wrong, *words in WRONG])
def test_bad_input_is_refused(two_classes, refuses, function, wrong, words):
    model, x, y, _ = two_classes
    valid = {
        nes_gradient: {"score": linear, "x": POINT[None]},
        nes: {"query": Query(model), "x": x, "y": y, "eps": 0.1},
        zoo: {"query": Query(model), "x": x, "y": y},
    }[function]
    refuses(function, {**valid, **wrong}, *words)


@pytest.mark.parametrize("function", [nes, zoo])
def test_labels_alone_are_not_enough(two_classes, refuses, function):
    model, x, y, _ = two_classes
    arguments = {"eps": 0.1} if function is nes else {}
    refuses(function, {"query": Query(model, "labels"), "x": x, "y": y, **arguments}, "reveals 'labels'", "scores")


# --- the peers --------------------------------------------------------------------------------------------------------


ROBUST_LATER = pytest.mark.parametrize(
    "victim", ["lenet", pytest.param("lenet-robust", marks=pytest.mark.full)], indirect=True
)


def nearly_misread(model, data, count):
    """The correctly read images with the smallest margins, which a small budget can turn."""
    with torch.no_grad():
        leads = margin(model(data.x_test), data.y_test)
    chosen = leads.masked_fill(leads < 0, math.inf).topk(count, largest=False).indices
    return data.x_test[chosen], data.y_test[chosen]


@pytest.mark.oracle
@ROBUST_LATER
def test_zoo_moves_no_further_than_art_at_the_same_budget(victim, digits):
    x, y = nearly_misread(victim, digits, 3)
    budget = {"steps": 20, "searches": 1, "initial_c": 10.0}
    theirs = distortions(victim, x, zoo_by_art(victim, x, y, **budget)(), y).median()
    ours = distortions(victim, x, zoo(Query(victim), x, y, **budget, generator=seeded()), y).median()
    assert ours < math.inf
    assert ours <= 1.03 * theirs


@pytest.mark.oracle
@pytest.mark.parametrize("steps", [8, pytest.param(16, marks=pytest.mark.full)])
@pytest.mark.parametrize(("name", "eps"), [("lenet", 0.14), ("lenet-robust", 0.25)])
def test_nes_succeeds_as_often_as_spsa_with_as_many_queries(digits, name, eps, steps):
    from spai_lab.training import reference

    victim, x, y = reference(name, "digits"), digits.x_test[:32], digits.y_test[:32]
    theirs = fooled(victim, nes_by_torchattacks(victim, x, y, eps=eps, steps=steps)(), y)
    low = Rate(int(theirs.sum()), len(y)).interval[0]
    query = Query(victim, cap=50 * steps)
    ours = fooled(victim, nes(query, x, y, eps=eps, steps=steps, generator=seeded()), y)
    assert Rate(int(ours.sum()), len(y)).value >= low


@pytest.mark.full
@pytest.mark.oracle
def test_zoo_comes_close_to_the_white_box_attack_that_it_imitates(victim, digits):
    """Both at one c, near the best: ZOO takes a pixel's slope about 100 times, Carlini and Wagner's 300 times."""
    import foolbox

    x, y = digits.x_test[:3], digits.y_test[:3]
    peer = foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=1, steps=300, stepsize=0.01, initial_const=3.0)
    criterion = foolbox.criteria.Misclassification(y)
    theirs = distortions(
        victim, x, peer.run(foolbox.PyTorchModel(victim, bounds=(0, 1), device="cpu"), x, criterion), y
    )
    x_adv = zoo(Query(victim), x, y, steps=600, searches=1, initial_c=3.0, generator=seeded())
    assert distortions(victim, x, x_adv, y).median() <= 1.03 * theirs.median()

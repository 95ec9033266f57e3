"""The decision-based attacks against a linear model, whose boundary is at a known distance, and against their peers.

A peer is measured by the nearest adversarial point among all that it asked about, so that at each number of queries it
has its best. All start from the same points.
"""

import contextlib
import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from spai_lab.attacks.evasion import decision
from spai_lab.attacks.evasion.decision import boundary, hop_skip_jump
from spai_lab.attacks.evasion.walks import Recorded, walk
from spai_lab.query import Query
from spai_lab.threat import fooled, norms

in_l2 = partial(hop_skip_jump, norm="l2")
in_linf = partial(hop_skip_jump, norm="linf")
ATTACKS = {"boundary": (boundary, "l2"), "hop_skip_jump l2": (in_l2, "l2"), "hop_skip_jump linf": (in_linf, "linf")}
every_attack = pytest.mark.parametrize(("attack", "norm"), ATTACKS.values(), ids=ATTACKS)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Halfspaces(nn.Module):
    """Class 1 where $w \\cdot (x - 0.5) > 0$, for a random w; counts the images that it is shown."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float64):
        super().__init__()
        self.w = torch.randn(shape, generator=seeded(3), dtype=dtype)
        self.shown = 0

    def forward(self, x):
        self.shown += len(x)
        score = ((x - 0.5) * self.w).flatten(1).sum(1)
        return torch.stack([-score, score], 1)

    def distance(self, x, norm):
        dual = self.w.norm() if norm == "l2" else self.w.abs().sum()
        return self(x)[:, 1].abs() / dual


def linear(shape=(1, 5, 5), count=6, dtype=torch.float64):
    """A linear victim, images near its boundary, which are read right, and how they are read."""
    model = Halfspaces(shape, dtype)
    x = 0.4 + 0.2 * torch.rand(count, *shape, generator=seeded(4), dtype=dtype)
    return model, x, model(x).argmax(1)


def excess(attack, norm, cap, shape=(1, 5, 5), **arguments):
    """How far beyond the boundary's distance each image was moved, as a share of it."""
    model, x, y = linear(shape)
    x_adv = attack(Query(model, "labels", cap=cap), x, y, generator=seeded(), **arguments)
    assert fooled(model, x_adv, y).all()
    return norms(x_adv - x, norm) / model.distance(x, norm) - 1


# --- a linear model ---------------------------------------------------------------------------------------------------


@every_attack
def test_the_distance_comes_down_to_that_of_the_boundary(attack, norm):
    """Within 1 % after 1,000 queries of the walk, within 8 % after 3,000 of the jumps; never below the distance."""
    cap, tolerance = (1000, 0.01) if attack is boundary else (3000, 0.08)
    early, late = excess(attack, norm, 200), excess(attack, norm, cap)
    assert (late > -1e-9).all() and (late < tolerance).all()
    assert late.median() < early.median() / 3


@every_attack
def test_two_numbers_an_input_are_enough(attack, norm):
    found = excess(attack, norm, 1000, shape=(2, 1, 1))
    assert (found > -1e-9).all() and (found < 0.15).all() and found.median() < 0.01


def the_other_way(*arguments):
    return -facing(*arguments)


def no_baseline_but_noise(adversarial, here, *rest):
    return torch.randn(here.shape, generator=seeded(), dtype=here.dtype)


facing = decision.facing


@pytest.mark.parametrize("fault", [the_other_way, no_baseline_but_noise])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_a_wrong_direction_is_caught(norm, fault, monkeypatch):
    monkeypatch.setattr(decision, "facing", fault)
    assert (excess(partial(hop_skip_jump, norm=norm), norm, 3000) > 0.08).any()


def test_lengths_that_never_change_are_caught(monkeypatch):
    monkeypatch.setattr(decision, "PACE", 0)
    assert (excess(boundary, "l2", 1000) > 0.01).any()


def off_the_sphere() -> float:
    """How far, of all that is asked first in a step, a point is from the sphere through the point that was held."""
    model, x, y = linear()
    query = Recorded(model, "labels", cap=200)
    starts = x + 2.5 * (0.5 - x)  # straight across, off the edges of the range
    starts = starts - model.w * ((starts - 0.5) * model.w).sum((1, 2, 3), keepdim=True) / model.w.square().sum()
    starts = starts + (1 - 2 * y.view(-1, 1, 1, 1)) * 0.1 * model.w / model.w.norm()
    boundary(query, x, y, starts=starts, spherical_step=0.3, generator=seeded())
    worst = 0.0
    for image in range(len(x)):
        asked = [(points[images == image], labels[images == image]) for points, images, labels in query.shown]
        asked = [(norms(point - x[image], "l2").item(), label.item()) for point, label in asked if len(point)]
        held, position = asked[1][0], 2
        while position < len(asked):
            distance, label = asked[position]
            worst = max(worst, abs(distance / held - 1))
            position += 1
            if label != y[image] and position < len(asked):
                distance, label = asked[position]
                held = distance if label != y[image] else held
                position += 1
    return worst


def test_sideways_is_along_the_sphere(monkeypatch):
    assert off_the_sphere() < 1e-9
    around = decision.around

    def not_orthogonal(here, source, delta, generator):
        return around(here, source, delta, generator) + 0.01 * (source - here)

    monkeypatch.setattr(decision, "around", not_orthogonal)
    assert off_the_sphere() > 1e-3


def test_an_estimate_may_come_in_pieces(monkeypatch):
    monkeypatch.setattr(decision, "ROWS", 50)
    assert (excess(in_l2, "l2", 3000) < 0.08).all()


# --- queries ----------------------------------------------------------------------------------------------------------


@every_attack
def test_every_image_shown_is_counted_and_no_cap_exceeded(attack, norm):
    model, x, y = linear()
    model.shown = 0
    query = Query(model, "labels", cap=333)
    attack(query, x, y, generator=seeded())
    assert model.shown == query.total == query.counts.sum()
    assert query.counts.max() <= 333 and query.exhausted.all()


@every_attack
@pytest.mark.parametrize("cap", [1, 2, 3, 5, 10])
def test_the_smallest_caps_are_kept(attack, norm, cap):
    model, x, y = linear()
    query = Query(model, "labels", cap=cap)
    x_adv = attack(query, x, y, generator=seeded())
    assert query.counts.max() <= cap and query.exhausted.all()
    unmoved = (x_adv == x).flatten(1).all(1)
    assert (fooled(model, x_adv, y) | unmoved).all()


def test_the_first_step_costs_what_it_must():
    model, x, y = linear(count=1)
    starts = 1 - x  # on the other side
    query = Query(model, "labels")
    boundary(query, x, y, starts=starts, steps=1, generator=seeded())
    assert query.total in (3, 4)  # the image, the start, the sphere, and nearer if that is adversarial
    query = Query(model, "labels")
    hop_skip_jump(query, x, y, starts=starts, steps=1, initial_samples=20, generator=seeded())
    halvings = math.ceil(math.log2(1000))  # 25 numbers an image: to a thousandth
    assert 2 + 2 * halvings + 20 + 1 <= query.total <= 2 + 2 * halvings + 20 + halvings


@every_attack
def test_more_queries_never_hurt_one_image(attack, norm):
    model, x, y = linear(count=1)
    distances = [
        norms(attack(Query(model, "labels", cap=cap), x, y, generator=seeded()) - x, norm).item()
        for cap in (10, 50, 100, 300)
    ]
    assert distances == sorted(distances, reverse=True) and distances[0] > 1.2 * distances[-1]


@every_attack
def test_labels_are_all_that_counts(attack, norm):
    model, x, y = linear()
    found = [
        attack(Query(model, reveals, cap=150), x, y, generator=seeded())
        for reveals in ("labels", "top-2", "scores", "logits")
    ]
    assert all(torch.equal(x_adv, found[0]) for x_adv in found)


# --- what may happen at the start -------------------------------------------------------------------------------------


@every_attack
def test_an_image_that_is_misread_comes_back_as_it_was(attack, norm):
    model, x, y = linear()
    y = torch.cat([1 - y[:4], y[4:]])
    query = Query(model, "labels", cap=100)
    x_adv = attack(query, x, y, generator=seeded())
    assert torch.equal(x_adv[:4], x[:4]) and query.counts[:4].tolist() == [1] * 4
    assert fooled(model, x_adv[4:], y[4:]).all()


@every_attack
def test_where_no_noise_is_adversarial_the_image_comes_back(attack, norm):
    query = Query(lambda x: torch.tensor([[2.0, 0.0]]).expand(len(x), 2), "labels")
    x = torch.full((2, 1, 3, 3), 0.5)
    assert torch.equal(attack(query, x, torch.zeros(2, dtype=torch.int64), generator=seeded()), x)
    assert query.counts.tolist() == [1 + decision.TRIES] * 2


@every_attack
def test_a_start_that_is_not_adversarial_ends_the_attack(attack, norm):
    model, x, y = linear()
    starts = torch.cat([x[:2] * 0.999, 1 - x[2:]])
    query = Query(model, "labels", cap=100)
    x_adv = attack(query, x, y, starts=starts, generator=seeded())
    assert torch.equal(x_adv[:2], x[:2]) and query.counts[:2].tolist() == [2, 2]
    assert fooled(model, x_adv[2:], y[2:]).all()


@every_attack
def test_a_target_is_kept_from_start_to_end(attack, norm, victim, digits):
    with torch.no_grad():
        seen = victim(digits.x_test[:200]).argmax(1)
    x, target = digits.x_test[:6], (seen[:6] + 1) % 10
    starts = torch.stack([digits.x_test[:200][seen == label][0] for label in target])
    x_adv = attack(Query(victim, "labels", cap=150), x, target, starts=starts, targeted=True, generator=seeded())
    assert fooled(victim, x_adv, target, targeted=True).all()
    assert (norms(x_adv - x, norm) < norms(starts - x, norm)).all()
    assert x_adv.min() >= 0 and x_adv.max() <= 1


@every_attack
def test_an_empty_batch_asks_nothing(attack, norm):
    model, x, y = linear()
    model.shown = 0
    assert attack(Query(model, "labels"), x[:0], y[:0]).shape == (0, 1, 5, 5) and model.shown == 0


@every_attack
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_is_changed_and_a_seed_repeats_it(attack, norm, dtype):
    model, x, y = linear(dtype=dtype)
    x = x.transpose(2, 3)  # not contiguous
    y = model(x).argmax(1)
    before, state = x.clone(), torch.get_rng_state()
    first, second = (attack(Query(model, "labels", cap=150), x, y, generator=seeded()) for _ in range(2))
    assert torch.equal(first, second) and first.dtype == dtype
    assert torch.equal(x, before) and torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(first, attack(Query(model, "labels", cap=150), x, y))


@every_attack
def test_black_and_white_pixels_stay_in_range(attack, norm):
    model = Halfspaces((1, 5, 5), torch.float32)
    x = torch.linspace(0, 1, 40 * 25).view(40, 1, 5, 5)
    y = model(x).argmax(1)
    starts = (model.w * (1 - 2 * y.view(-1, 1, 1, 1)) > 0).float()
    query = Query(model, "labels", cap=80)  # which refuses what is out of range
    x_adv = attack(query, x, y, starts=starts, generator=seeded())
    assert fooled(model, x_adv, y).all() and x_adv.min() >= 0 and x_adv.max() <= 1


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_a_bisection_that_finds_nothing_keeps_the_far_end(norm):
    x, far = (torch.rand(50, 1, 5, 5, generator=seeded(seed)) for seed in (1, 2))
    found = decision.bisected(lambda points, images: images < 0, x, far, torch.arange(50), norm, 10)
    assert torch.equal(found, far)


# --- the walk ---------------------------------------------------------------------------------------------------------


@every_attack
def test_the_walk_is_all_that_was_kept(attack, norm):
    model, x, y = linear(shape=(2, 1, 1), count=2)
    for image in range(2):
        alone = slice(image, image + 1)
        query = Recorded(model, "labels", cap=200)
        x_adv = attack(query, x[alone], y[alone], generator=seeded())
        points = walk(query, x[alone], y[alone], norm=norm)
        assert torch.equal(points[-1:], x_adv)
        assert fooled(model, points, y[alone].expand(len(points))).all()
        assert (norms(points - x[alone], norm).diff() < 0).all() and len(points) > 5


def test_the_walk_of_one_image_of_a_batch():
    model, x, y = linear(shape=(2, 1, 1))
    query = Recorded(model, "labels", cap=100)
    x_adv = boundary(query, x, y, generator=seeded())
    for image in range(len(x)):
        assert torch.equal(walk(query, x, y, image=image)[-1], x_adv[image])
    assert len(walk(query, x, 1 - y)) and len(walk(Recorded(model, "labels"), x, y)) == 0


# --- bad input --------------------------------------------------------------------------------------------------------

X, Y = torch.full((2, 1, 4, 4), 0.4), torch.tensor([0, 0])
SHARED = [
    ({"query": nn.Flatten()}, "query is", "Query"),
    ({"x": 3 * X}, "x has values", "[0, 1]"),
    ({"y": Y[:1]}, "y is", "shape (2,)"),
    ({"starts": X[:1]}, "starts is", "shape (2, 1, 4, 4)"),
    ({"starts": X + 1}, "starts has values", "[0, 1]"),
    ({"starts": X.double()}, "starts is", "float32"),
    ({"targeted": True}, "starts is None", "target class"),
    ({"targeted": 1, "starts": X}, "targeted is 1", "True or False"),
    ({"generator": 0}, "generator is 0", "torch.Generator"),
    ({"steps": 0}, "steps is 0", "at least 1"),
]
WRONG = [
    *[(attack, *row) for attack in (boundary, hop_skip_jump) for row in SHARED],
    (boundary, {"spherical_step": 0}, "spherical_step is 0", "above 0, at most 1"),
    (boundary, {"source_step": 2}, "source_step is 2", "above 0, at most 1"),
    (hop_skip_jump, {"norm": "l1"}, "norm is 'l1'", "'linf', 'l2'"),
    (hop_skip_jump, {"initial_samples": 1}, "initial_samples is 1", "at least 2"),
    (hop_skip_jump, {"max_samples": 1.5}, "max_samples is 1.5", "whole number"),
]


@pytest.mark.parametrize(("attack", "wrong", "words"), [(a, w, words) for a, w, *words in WRONG])
def test_bad_input_is_named(attack, wrong, words, refuses):
    refuses(attack, {"query": Query(Halfspaces((1, 4, 4), torch.float32), "labels"), "x": X, "y": Y, **wrong}, *words)


# --- the peers --------------------------------------------------------------------------------------------------------


ROBUST_LATER = pytest.mark.parametrize(
    "victim", ["lenet", pytest.param("lenet-robust", marks=pytest.mark.full)], indirect=True
)


class Enough(Exception):
    """The peer has asked as often as it may."""


class Watched(nn.Module):
    """A victim that notes how near to each image the adversarial points are that it is shown, and ends at the cap."""

    def __init__(self, model, x, y, norm, cap):
        super().__init__()
        self.model, self.x, self.y, self.norm, self.cap = model, x, y, norm, cap
        self.distances = [[] for _ in x]
        self.eval()

    @torch.no_grad()
    def forward(self, x):
        logits = self.model(x)
        distances = norms(x - self.x, self.norm).masked_fill(logits.argmax(1) == self.y, math.inf)
        for row, distance in enumerate(distances.tolist()):
            self.distances[row % len(self.x)].append(distance)
        if len(self.distances[-1]) >= self.cap:
            raise Enough
        return logits


def nearest(peer, model, x, y, starts, norm, counts):
    """The distance that the peer had reached after so many queries, `(counts, N)`."""
    watched = Watched(model, x, y, norm, max(counts))
    with contextlib.suppress(Enough):
        peer(watched, x, y, starts=starts, steps=max(counts))()
    distances = np.array([row[: max(counts)] + [math.inf] * (max(counts) - len(row)) for row in watched.distances])
    return np.stack([distances[:, :count].min(1) for count in counts])


def image_by_image(peer, model, x, y, starts, norm, counts):
    """The same for a peer that attacks one image after the other."""
    singles = zip(x.split(1), y.split(1), starts.split(1), strict=True)
    return np.concatenate([nearest(peer, model, *single, norm, counts) for single in singles], axis=1)


def median_interval(distances) -> tuple[float, float]:
    """The 95 % bootstrap interval of the median."""
    picks = np.random.default_rng(0).integers(len(distances), size=(2000, len(distances)))
    return tuple(np.quantile(np.median(distances[picks], axis=1), [0.025, 0.975]))


@pytest.fixture
def start_points(victim, digits):
    """Images that are read right, and for each a random image that is read differently."""
    with torch.no_grad():
        right = victim(digits.x_test[:100]).argmax(1) == digits.y_test[:100]
        x, y = digits.x_test[:100][right], digits.y_test[:100][right]
        noise = torch.rand(200, 1, 28, 28, generator=seeded(5))
        read = victim(noise).argmax(1)
    return x, y, torch.stack([noise[read != label][image] for image, label in enumerate(y)])


def compare(attack, norm, model, x, y, starts, counts, seeds):
    """Our median over all seeds at each number of queries, below the end of the interval of the best peer."""
    from benchmarks.contests import decision as peers

    if attack is boundary:
        by_foolbox, by_art = peers.boundary_by_foolbox, peers.boundary_by_art
    else:
        by_foolbox = partial(peers.hop_skip_jump_by_foolbox, norm=norm)
        by_art = partial(peers.hop_skip_jump_by_art, norm=norm)
    mine, foolboxes, arts = [], [], []
    for seed in seeds:
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002, the only one that ART knows
        foolboxes.append(nearest(by_foolbox, model, x, y, starts, norm, counts))
        arts.append(image_by_image(by_art, model, x, y, starts, norm, counts))
        mine.append(np.stack([reached(attack, norm, model, x, y, starts, count, seed) for count in counts]))
    mine, *theirs = (np.concatenate(runs, axis=1) for runs in (mine, foolboxes, arts))
    for number, count in enumerate(counts):
        ours, best = np.median(mine[number]), min((peer[number] for peer in theirs), key=np.median)
        assert ours <= median_interval(best)[1], (
            f"{ours:.3f} after {count} queries, the best peer {np.median(best):.3f}"
        )


def reached(attack, norm, model, x, y, starts, cap, seed):
    """Our distances with so many queries; never more are asked, and every image is fooled."""
    query = Query(model, "labels", cap=cap)
    x_adv = attack(query, x, y, starts=starts, generator=seeded(seed))
    assert fooled(model, x_adv, y).all() and query.counts.max() <= cap
    return norms(x_adv - x, norm).numpy()


@pytest.mark.oracle
@every_attack
@ROBUST_LATER
def test_no_farther_than_the_best_peer(attack, norm, victim, start_points):
    x, y, starts = (part[:8] for part in start_points)
    compare(attack, norm, victim, x, y, starts, (300,), seeds=[0])


@pytest.mark.full
@pytest.mark.oracle
@every_attack
def test_no_farther_than_the_best_peer_with_more_queries(attack, norm, victim, start_points):
    x, y, starts = (part[:16] for part in start_points)
    compare(attack, norm, victim, x, y, starts, (500, 1000), seeds=[0, 1, 2])


@pytest.mark.full
@pytest.mark.oracle
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_a_flipped_sign_is_farther_than_the_peers(norm, victim, start_points, monkeypatch):
    monkeypatch.setattr(decision, "facing", the_other_way)
    x, y, starts = (part[:8] for part in start_points)
    with pytest.raises(AssertionError, match="the best peer"):
        compare(partial(hop_skip_jump, norm=norm), norm, victim, x, y, starts, (600,), seeds=[0])

"""Robust aggregates against SciPy, NumPy and brute force; and what a liar can do to each."""

from functools import partial
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.stats import trim_mean

from spai_lab.defenses.poisoning.aggregation import coordinate_median, krum, krum_scores, multi_krum, trimmed_mean


def some_updates(n: int = 9, dimensions: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, dimensions, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


AGGREGATES = {
    "krum": partial(krum, byzantine=2),
    "multi_krum": partial(multi_krum, byzantine=2),
    "median": coordinate_median,
    "trimmed": partial(trimmed_mean, trim=0.25),
}
every_aggregate = pytest.mark.parametrize("aggregate", AGGREGATES.values(), ids=AGGREGATES)


@pytest.mark.parametrize("n", [1, 2, 7, 10])
def test_the_median_is_that_of_numpy(n):
    updates = some_updates(n)
    assert np.allclose(coordinate_median(updates), np.median(updates, axis=0))


@pytest.mark.parametrize("n", [3, 7, 10])
@pytest.mark.parametrize("trim", [0.0, 0.1, 0.2, 0.3, 0.49])
def test_the_trimmed_mean_is_that_of_scipy(n, trim):
    updates = some_updates(n)
    assert np.allclose(trimmed_mean(updates, trim=trim), trim_mean(updates, trim, axis=0))


@pytest.mark.parametrize(("n", "f"), [(5, 1), (7, 2), (8, 0), (9, 3)])
def test_krum_has_the_cheapest_set_of_neighbors(n, f):
    """The score is the least that any n - f - 2 others cost; tried for all sets."""
    updates = some_updates(n, seed=n).numpy()
    scores = []
    for i in range(n):
        costs = [((updates[i] - updates[j]) ** 2).sum() for j in range(n) if j != i]
        scores.append(min(sum(chosen) for chosen in combinations(costs, n - f - 2)))
    assert np.allclose(krum_scores(torch.from_numpy(updates), f), scores)
    assert np.array_equal(krum(torch.from_numpy(updates), byzantine=f), updates[np.argmin(scores)])
    best = np.argsort(scores)
    assert np.allclose(multi_krum(torch.from_numpy(updates), byzantine=f), updates[best[: n - f]].mean(0))
    assert np.allclose(multi_krum(torch.from_numpy(updates), byzantine=f, select=2), updates[best[:2]].mean(0))


@every_aggregate
def test_liars_move_the_mean_anywhere_and_the_aggregate_nowhere_far(aggregate):
    updates = some_updates()
    updates[[1, 6]] = 1e9
    honest = updates[[0, 2, 3, 4, 5, 7, 8]]
    found = aggregate(updates)
    assert (updates.mean(0) > 1e8).all()
    assert (found >= honest.amin(0)).all() and (found <= honest.amax(0)).all()


@every_aggregate
def test_the_order_of_participants_does_not_matter_and_a_shift_moves_along(aggregate):
    updates = some_updates()
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(aggregate(updates[order]), aggregate(updates))
    assert torch.allclose(aggregate(3 * updates + 2), 3 * aggregate(updates) + 2)


@every_aggregate
def test_those_who_agree_are_believed(aggregate):
    assert torch.allclose(aggregate(some_updates(1).expand(9, -1)), some_updates(1)[0])


def test_close_updates_far_from_zero_are_told_apart():
    """A distance from |a|^2 - 2 a b + |b|^2 would lose these in rounding."""
    updates = 1e4 + torch.tensor([[0.0], [0.1], [0.2], [0.4], [0.8]])
    assert krum(updates, byzantine=1) == updates[1]


@every_aggregate
def test_the_updates_stay(aggregate):
    updates = some_updates()
    aggregate(updates)
    assert torch.equal(updates, some_updates())


FIVE = some_updates(5)
REFUSED = {
    "too many liars": (krum, {"updates": FIVE, "byzantine": 2}, "byzantine is 2 of 5"),
    "half a liar": (krum, {"updates": FIVE, "byzantine": 0.5}, "byzantine is 0.5"),
    "one dimension": (coordinate_median, {"updates": FIVE[0]}, "updates is"),
    "nobody": (coordinate_median, {"updates": FIVE[:0]}, "updates is"),
    "integers": (trimmed_mean, {"updates": FIVE.long()}, "updates is"),
    "nan": (trimmed_mean, {"updates": FIVE * torch.nan}, "NaN"),
    "nothing left": (trimmed_mean, {"updates": FIVE, "trim": 0.5}, "trim is 0.5"),
    "none selected": (multi_krum, {"updates": FIVE, "byzantine": 1, "select": 0}, "select is 0"),
    "too many selected": (multi_krum, {"updates": FIVE, "byzantine": 1, "select": 6}, "select is 6"),
}


@pytest.mark.parametrize(("function", "arguments", "words"), REFUSED.values(), ids=REFUSED)
def test_refuses(refuses, function, arguments, words):
    refuses(function, arguments, words)

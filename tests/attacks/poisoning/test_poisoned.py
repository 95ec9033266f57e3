"""What every poisoning attack shares: budgets, triggers, poisoned sets and the rate of a backdoor."""

import pytest
import torch
from torch import nn

from spai_lab.attacks.poisoning.poisoned import (
    Poisoned,
    Trigger,
    added,
    all_to_all,
    backdoor_rate,
    budget,
    drawn,
    one_target,
    replaced,
    stamp,
)


class Brightness(nn.Module):
    """Class 1 where the image is bright, else class 0."""

    def forward(self, x):
        bright = x.flatten(1).mean(1) - 0.5
        return torch.stack([-bright, bright], 1)


def white(size: int = 2) -> Trigger:
    return Trigger(torch.ones(1, size, size), torch.ones(1, size, size))


def test_stamp_takes_the_share_of_the_mask():
    x = torch.full((3, 1, 2, 2), 0.4)
    mask = torch.tensor([[[0.0, 0.25], [0.5, 1.0]]])
    stamped = stamp(x, Trigger(torch.ones(1, 2, 2), mask))
    assert torch.allclose(stamped[2], torch.tensor([[[0.4, 0.55], [0.7, 1.0]]]))
    assert (x == 0.4).all()


@pytest.mark.parametrize(("fraction", "count"), [(0.1, 107), (0.05, 53), (1 / 1078, 1), (1.0, 1078)])
def test_budget_rounds_down(digits, fraction, count):
    assert budget(digits, fraction) == count


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5, float("nan"), 0.0005, True])
def test_budget_refuses(digits, refuses, fraction):
    refuses(budget, {"data": digits, "fraction": fraction}, "fraction", "accepted")


def test_drawn_stays_among_the_candidates_without_repeats():
    candidates = torch.arange(20) % 2 == 1
    places = drawn(candidates, 10, torch.Generator().manual_seed(0))
    assert places.sort()[0].tolist() == list(range(1, 20, 2))
    with pytest.raises(ValueError, match="at most 10"):
        drawn(candidates, 11, torch.Generator())


def test_replaced_changes_the_places_alone(digits):
    before = digits.x_train.clone()
    places = torch.tensor([3, 0])
    x = torch.stack([torch.zeros(1, 28, 28), torch.ones(1, 28, 28)])
    poisoned = replaced(digits, places, x, torch.tensor([7, 8]))
    assert poisoned.is_poison.nonzero()[:, 0].tolist() == [0, 3]
    assert poisoned.y[[3, 0]].tolist() == [7, 8]
    assert (poisoned.x[3] == 0).all() and (poisoned.x[0] == 1).all()
    assert torch.equal(poisoned.x[~poisoned.is_poison], before[~poisoned.is_poison])
    assert torch.equal(digits.x_train, before)


def test_added_stands_at_the_end(digits):
    poisoned = added(digits, torch.zeros(2, 1, 28, 28), torch.tensor([1, 2]))
    assert len(poisoned.y) == len(digits.y_train) + 2
    assert poisoned.count == 2 and poisoned.is_poison[-2:].all()
    assert torch.equal(poisoned.x[:-2], digits.x_train)
    assert len(poisoned.within(digits).y_train) == len(poisoned.y)


def test_what_a_backdoor_wants():
    assert one_target(1, 3).tolist() == [1, 1, 1]
    assert all_to_all(3).tolist() == [1, 2, 0]


def test_backdoor_rate_leaves_out_the_target_class():
    x, y = torch.zeros(4, 1, 2, 2), torch.tensor([0, 0, 0, 1])
    rate = backdoor_rate(Brightness(), x, y, white(), one_target(1, 2))
    assert (rate.hits, rate.trials) == (3, 3)
    nothing = Trigger(torch.ones(1, 2, 2), torch.zeros(1, 2, 2))
    assert backdoor_rate(Brightness(), x, y, nothing, one_target(1, 2)).hits == 0
    with pytest.raises(ValueError, match="leaves alone"):
        backdoor_rate(Brightness(), x[3:], y[3:], white(), one_target(1, 2))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"is_poison": torch.zeros(2)}, "is_poison"),
        ({"y": torch.zeros(3, dtype=torch.int64)}, "y"),
        ({"trigger": white()}, "trigger"),
    ],
    ids=["mask not bool", "labels too many", "trigger alone"],
)
def test_poisoned_refuses(refuses, changes, word):
    valid = {
        "x": torch.zeros(2, 1, 2, 2),
        "y": torch.zeros(2, dtype=torch.int64),
        "is_poison": torch.zeros(2, dtype=torch.bool),
    }
    refuses(Poisoned, valid | changes, word, "accepted")


def test_trigger_refuses(refuses):
    refuses(Trigger, {"pattern": torch.ones(1, 2, 2), "mask": torch.full((1, 2, 2), 2.0)}, "mask")
    refuses(Trigger, {"pattern": torch.ones(1, 2, 2), "mask": torch.ones(1, 2, 3)}, "mask", "alike")

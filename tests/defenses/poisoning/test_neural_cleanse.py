"""Neural Cleanse, where the smallest trigger has a closed form, and on a backdoored and on clean networks."""

from functools import partial

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

from spai_lab.attacks.poisoning.poisoned import Trigger, backdoor_rate
from spai_lab.defenses.poisoning.neural_cleanse import (
    anomaly_index,
    commanded,
    flagged,
    neural_cleanse,
    prune_responsive,
    reverse_triggers,
    unlearn,
)
from spai_lab.training import Recipe, Shift, accuracy, train


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def found(badnet, digits):
    """What is reversed of the backdoored network, in fewer rounds than the default."""
    return reverse_triggers(badnet.model, digits.x_val, rounds=25, batch_size=8, generator=seeded(), progress=False)


@pytest.fixture
def linear() -> nn.Module:
    """Logits 0 but for class 0, which pixel 0 commands strongly, and the other pixels weakly."""
    last = nn.Linear(9, 4)
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.tensor([-8.0, 0.0, 0.0, 0.0]))
        last.weight[0, 0] = 40
        for k in (1, 2, 3):
            last.weight[k, 2 * k : 2 * k + 2] = 6
    return nn.Sequential(nn.Flatten(), last)


def test_the_smallest_trigger_of_a_linear_model(linear):
    """On black images class 0 wins with a mask of 8/40 on pixel 0, the smallest that there is."""
    x = torch.zeros(16, 1, 3, 3)
    found = reverse_triggers(linear, x, rounds=100, generator=seeded(), progress=False)
    assert found.success[0] == 1
    assert 0.2 <= found.norms[0] <= 0.3
    assert found.triggers[0].mask.argmax() == 0
    assert (found.triggers[0].mask * found.triggers[0].pattern).flatten()[0] >= 0.2


def test_losses_and_successes_are_each_classes_own(linear):
    x = torch.rand(5, 1, 3, 3, generator=seeded())
    m, p = torch.rand(4, 1, 3, 3, generator=seeded(1)), torch.rand(4, 1, 3, 3, generator=seeded(2))
    losses, success = commanded(linear, x, m, p)
    for k in range(4):
        logits, wanted = linear((1 - m[k]) * x + m[k] * p[k]), torch.full((5,), k)
        torch.testing.assert_close(losses[k], nn.functional.cross_entropy(logits, wanted))
        assert success[k] == pytest.approx((logits.argmax(1) == k).float().mean().item())


def test_the_index_is_scipys():
    norms = 50 + 10 * torch.randn(11, generator=seeded(), dtype=torch.float64)
    mad = scipy.stats.median_abs_deviation(norms.numpy(), scale="normal")
    np.testing.assert_allclose(anomaly_index(norms), np.abs(norms - np.median(norms)) / mad, rtol=1e-4)


def test_equal_norms_have_no_outlier():
    assert anomaly_index(torch.full((5,), 3.0)).tolist() == [0.0] * 5
    assert flagged(torch.tensor([3.0, 3.0, 3.0, 3.0, 1.0])) == [4]


def test_only_small_masks_are_flagged():
    norms = torch.tensor([50.0, 52.0, 48.0, 51.0, 49.0, 5.0, 95.0, 20.0])
    assert flagged(norms) == [5, 7]
    assert anomaly_index(norms)[6] > 2


def test_the_backdoors_target_is_found(found):
    assert flagged(found.norms)[0] == 0
    assert found.norms[0] < found.norms[1:].min() / 2
    for trigger in found.triggers:
        assert trigger.mask.min() >= 0
        assert trigger.mask.max() <= 1


@pytest.mark.parametrize(
    ("repair", "price"), [(partial(unlearn, epochs=5), 0.05), (prune_responsive, 0.3)], ids=["unlearn", "prune"]
)
def test_repairs_close_the_backdoor(badnet, found, digits, repair, price):
    """Pruning costs more: the units that the trigger excites read digits too."""
    model, poisoned = badnet
    repaired = repair(model, digits.x_val, digits.y_val, [found.triggers[0]], generator=seeded(), progress=False)
    rate = partial(backdoor_rate, x=digits.x_test, y=digits.y_test, trigger=poisoned.trigger, wanted=poisoned.wanted)
    assert rate(model).value > 0.9
    assert rate(repaired).value < 0.3
    assert accuracy(repaired, digits.x_test, digits.y_test) > accuracy(model, digits.x_test, digits.y_test) - price


def test_fine_tuning_without_the_trigger_is_what_would_fail(badnet, found, digits):
    """The planted fault: unlearning that stamps nothing leaves most of the backdoor."""
    model, poisoned = badnet
    settings = {"generator": seeded(), "progress": False}
    spared = unlearn(model, digits.x_val, digits.y_val, [found.triggers[0]], share=0.0, epochs=5, **settings)
    rate = backdoor_rate(spared, digits.x_test, digits.y_test, poisoned.trigger, poisoned.wanted)
    assert rate.value > 0.5


def test_a_model_without_a_flag_comes_back_as_it_was(badnet, digits, unchanged):
    def cleanse() -> nn.Module:
        settings = {"rounds": 1, "threshold": 1e9, "generator": seeded(), "progress": False}
        return neural_cleanse(badnet.model, digits.x_val, digits.y_val, **settings)

    same = unchanged(badnet.model, cleanse)
    assert same is not badnet.model
    assert not same.training
    assert all(torch.equal(a, b) for a, b in zip(same.parameters(), badnet.model.parameters(), strict=True))


def test_the_repair_gets_the_flagged_triggers(linear):
    x, y = torch.zeros(16, 1, 3, 3), torch.ones(16, dtype=torch.int64)
    given = []

    def repair(model, x, y, triggers, *, generator, progress):
        given.extend(triggers)
        return model

    neural_cleanse(linear, x, y, rounds=60, threshold=0.5, repair=repair, generator=seeded(), progress=False)
    found = reverse_triggers(linear, x, rounds=60, generator=seeded(), progress=False)
    assert [t.mask.tolist() for t in given] == [
        found.triggers[k].mask.tolist() for k in flagged(found.norms, threshold=0.5)
    ]


def test_nothing_is_changed_and_a_seed_repeats(badnet, digits, unchanged):
    x = digits.x_val[:20].clone()
    settings = {"rounds": 1, "batch_size": 4, "progress": False}
    first = unchanged(badnet.model, lambda: reverse_triggers(badnet.model, x, generator=seeded(), **settings))
    again = reverse_triggers(badnet.model, x, generator=seeded(), **settings)
    assert torch.equal(first.norms, again.norms)
    assert torch.equal(x, digits.x_val[:20])
    for repair in (unlearn, prune_responsive):
        call = partial(repair, badnet.model, x, digits.y_val[:20], first.triggers[:2], progress=False)
        unchanged(badnet.model, call)
    assert torch.equal(x, digits.x_val[:20])


IMAGES, LABELS = torch.zeros(4, 1, 3, 3), torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"rounds": 0}, ("rounds", "at least 1")),
        ({"x": IMAGES[:0]}, ("x", "at least 1")),
        ({"x": IMAGES + 2}, ("x", "[0, 1]")),
        ({"batch_size": 0}, ("batch_size",)),
        ({"works_at": 1.1}, ("works_at",)),
        ({"multiplier": 1}, ("multiplier",)),
        ({"cost": 0}, ("cost",)),
        ({"generator": 1}, ("generator",)),
    ],
    ids=["rounds", "none", "x", "batch", "works", "multiplier", "cost", "generator"],
)
def test_bad_searches_are_named(linear, refuses, wrong, words):
    refuses(reverse_triggers, {"model": linear, "x": IMAGES, "progress": False} | wrong, *words)


@pytest.mark.parametrize(
    ("defense", "wrong", "words"),
    [
        (neural_cleanse, {"threshold": -1}, ("threshold",)),
        (neural_cleanse, {"repair": "unlearn"}, ("repair",)),
        (neural_cleanse, {"y": LABELS[:2]}, ("y", "(4,)")),
        (unlearn, {"triggers": []}, ("triggers", "at least one")),
        (unlearn, {"triggers": [Trigger(IMAGES[0], IMAGES[0])], "share": 2}, ("share",)),
        (prune_responsive, {"triggers": ["corner"]}, ("triggers", "Trigger")),
    ],
    ids=["threshold", "repair", "y", "none", "share", "kind"],
)
def test_bad_repairs_are_named(linear, refuses, defense, wrong, words):
    refuses(defense, {"model": linear, "x": IMAGES, "y": LABELS, "progress": False} | wrong, *words)


@pytest.mark.parametrize(
    ("norms", "words"),
    [
        (torch.ones(2), ("norms", "at least 3")),
        (torch.tensor([1.0, 2.0, torch.inf]), ("norms", "infinite")),
        (torch.tensor([1.0, 2.0, -1.0]), ("norms", "negative")),
    ],
    ids=["few", "inf", "negative"],
)
def test_bad_norms_are_named(refuses, norms, words):
    refuses(anomaly_index, {"norms": norms}, *words)


@pytest.mark.full
def test_false_alarms_over_twenty_clean_models(digits):
    """No more than ten normal sizes would give, whose index is a rough one: chance exceeds the bound with 1e-6."""
    drawn = 50 + 10 * torch.randn(4000, 10, generator=seeded(), dtype=torch.float64)
    share = sum(bool(flagged(norms)) for norms in drawn) / len(drawn)
    recipe = Recipe("mlp", epochs=8, batch_size=32, learning_rate=3e-3, perturb=Shift(1))
    alarms = 0
    for seed in range(20):
        model, _ = train(recipe, digits, seed=100 + seed, progress=False)
        found = reverse_triggers(model, digits.x_val, generator=seeded(seed), progress=False)
        alarms += bool(flagged(found.norms))
    assert alarms <= scipy.stats.binom.isf(1e-6, 20, share)

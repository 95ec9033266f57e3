"""The adaptive backdoor: budget, ball and labels; a majority in the target class; what the clustering then sees."""

import pytest
import torch

from spai_lab.attacks.poisoning.adaptive import inconspicuous
from spai_lab.attacks.poisoning.backdoors import badnets, in_all_corners, square_trigger
from spai_lab.attacks.poisoning.poisoned import Poisoned, backdoor_rate, one_target, stamp
from spai_lab.defenses.poisoning.latent import activation_clustering
from spai_lab.models import softmax_regression
from spai_lab.threat import fooled
from spai_lab.training import Recipe, Shift, accuracy, reference, train


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def attacked(data, **changes) -> Poisoned:
    arguments = {"surrogate": softmax_regression(generator=seeded()), "target": 3, "fraction": 0.05, "steps": 5}
    return inconspicuous(data, **(arguments | {"generator": seeded()} | changes))


def test_budget_labels_ball_and_seed(digits):
    x, y = digits.x_train.clone(), digits.y_train.clone()
    state = torch.random.get_rng_state()
    poisoned = attacked(digits, own=0.6, eps=2.0)
    changed, own = poisoned.is_poison, digits.y_train == 3
    assert (poisoned.count, int((changed & own).sum())) == (53, 32)
    assert (poisoned.y[changed] == 3).all()
    assert torch.equal(poisoned.x[~changed], x[~changed]) and torch.equal(poisoned.y[~changed], y[~changed])
    others = changed & ~own
    assert torch.equal(poisoned.x[others], stamp(x[others], poisoned.trigger))
    delta = (poisoned.x - x)[changed & own] * (poisoned.trigger.mask == 0)
    assert 0.1 < delta.flatten(1).norm(dim=1).max() <= 2.0 + 1e-5
    assert poisoned.x.min() >= 0 and poisoned.x.max() <= 1
    assert torch.equal(poisoned.x, attacked(digits, own=0.6, eps=2.0).x)
    assert torch.equal(digits.x_train, x) and torch.equal(digits.y_train, y)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_own_images_make_poison_a_larger_share_of_the_class(digits):
    def share(poisoned: Poisoned) -> float:
        return poisoned.is_poison[poisoned.y == 3].float().mean().item()

    size = int((digits.y_train == 3).sum())
    assert share(attacked(digits, own=0.0)) == pytest.approx(53 / (size + 53))
    assert share(attacked(digits, own=1.0)) == pytest.approx(53 / size)


def test_spoiled_images_mislead_the_surrogate(digits):
    surrogate = reference("lenet", "digits")
    poisoned = attacked(digits, surrogate=surrogate, steps=10, fraction=0.02, own=1.0)
    changed = poisoned.is_poison
    assert fooled(surrogate, poisoned.x[changed], poisoned.y[changed]).float().mean() > 0.9
    assert fooled(surrogate, digits.x_train[changed], digits.y_train[changed]).float().mean() < 0.1


def test_without_own_images_it_is_badnets(digits):
    trigger = in_all_corners(square_trigger(digits.shape))
    poisoned = attacked(digits, own=0.0)
    peer = badnets(digits, fraction=0.05, wanted=one_target(3, 10), trigger=trigger, generator=seeded())
    assert torch.equal(poisoned.x[poisoned.is_poison], stamp(digits.x_train[poisoned.is_poison], trigger))
    assert poisoned.count == peer.count and torch.equal(poisoned.trigger.mask, peer.trigger.mask)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"target": 10}, "target"),
        ({"fraction": 0}, "fraction"),
        ({"fraction": 0.5}, "fraction"),
        ({"own": -0.1}, "own"),
        ({"own": 1.1}, "own"),
        ({"eps": -1}, "eps"),
        ({"norm": "l7"}, "norm"),
        ({"steps": 0}, "steps"),
        ({"trigger": square_trigger((1, 8, 8))}, "trigger"),
        ({"generator": 0}, "generator"),
    ],
    ids=list("abcdefghij"),
)
def test_refuses(digits, refuses, changes, word):
    refuses(attacked, {"data": digits} | changes, word, "accepted")


@pytest.mark.full
@pytest.mark.parametrize("target", [0, 3])
def test_clustering_drops_less_than_half_as_many_as_of_badnets(digits, target):
    recipe = Recipe("lenet", epochs=20, batch_size=32, learning_rate=3e-3, perturb=Shift(1))
    surrogate = reference("lenet-robust", "digits")
    adaptive = inconspicuous(digits, surrogate, target=target, fraction=0.05, generator=seeded(target))
    plain = badnets(digits, fraction=0.05, wanted=one_target(target, 10), generator=seeded())
    dropped = []
    for poisoned in (adaptive, plain):
        victim, _ = train(recipe, poisoned.within(digits), seed=1000, progress=False)
        opened = backdoor_rate(victim, digits.x_test, digits.y_test, poisoned.trigger, poisoned.wanted)
        assert opened.value > 0.6
        assert accuracy(victim, digits.x_test, digits.y_test) > 0.95
        keep = activation_clustering(victim, poisoned.x, poisoned.y, generator=seeded())
        dropped.append((~keep)[poisoned.is_poison].float().mean())
    assert dropped[0] < dropped[1] / 2

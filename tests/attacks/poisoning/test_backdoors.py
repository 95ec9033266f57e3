"""Backdoors by training data: budgets, labels, triggers against ART, and what a victim learns."""

import pytest
import torch
from torch import nn

from spai_lab.attacks.poisoning.backdoors import (
    badnets,
    blended,
    clean_label_backdoor,
    dotted_trigger,
    in_all_corners,
    square_trigger,
)
from spai_lab.attacks.poisoning.poisoned import Poisoned, all_to_all, backdoor_rate, budget, one_target, stamp
from spai_lab.models import softmax_regression
from spai_lab.training import Recipe, Shift, accuracy, reference, train


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def surrogate() -> nn.Module:
    return softmax_regression(generator=seeded())


def clean_label(data, **changes):
    return clean_label_backdoor(data, surrogate(), **({"target": 3, "steps": 5} | changes))


ATTACKS = [badnets, blended, clean_label]
NAMES = ["badnets", "blended", "clean_label"]


@pytest.mark.parametrize("attack", ATTACKS, ids=NAMES)
def test_budget_range_seed_and_inputs(digits, attack):
    x, y = digits.x_train.clone(), digits.y_train.clone()
    state = torch.random.get_rng_state()
    poisoned = attack(digits, fraction=0.05, generator=seeded())
    assert poisoned.count == 53
    assert poisoned.x.min() >= 0 and poisoned.x.max() <= 1
    clean = ~poisoned.is_poison
    assert torch.equal(poisoned.x[clean], x[clean]) and torch.equal(poisoned.y[clean], y[clean])
    again = attack(digits, fraction=0.05, generator=seeded())
    assert torch.equal(poisoned.x, again.x)
    assert not torch.equal(poisoned.x, attack(digits, fraction=0.05, generator=seeded(1)).x)
    assert torch.equal(digits.x_train, x) and torch.equal(digits.y_train, y)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("wanted", [one_target(4, 10), all_to_all(10)], ids=["one target", "all to all"])
@pytest.mark.parametrize("attack", [badnets, blended], ids=["badnets", "blended"])
def test_poisons_are_stamped_and_labeled_as_wanted(digits, attack, wanted):
    poisoned = attack(digits, fraction=0.1, wanted=wanted, generator=seeded())
    changed = poisoned.is_poison
    assert torch.equal(poisoned.y[changed], wanted[digits.y_train[changed]])
    assert (poisoned.y[changed] != digits.y_train[changed]).all()
    assert torch.equal(poisoned.x[changed], stamp(digits.x_train[changed], poisoned.trigger))


def test_blended_mixes_key_and_image(digits):
    key, area = torch.rand(digits.shape, generator=seeded()), (torch.rand(digits.shape, generator=seeded()) > 0.5)
    poisoned = blended(digits, fraction=0.01, key=key, area=area.float(), alpha=0.3, generator=seeded())
    changed = poisoned.is_poison
    mixed = torch.where(area, 0.3 * key + 0.7 * digits.x_train[changed], digits.x_train[changed])
    assert torch.allclose(poisoned.x[changed], mixed, atol=1e-6)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.2), ("l2", 2.0)])
def test_clean_label_keeps_labels_and_ball(digits, norm, eps):
    poisoned = clean_label(digits, fraction=0.05, norm=norm, eps=eps, generator=seeded())
    changed = poisoned.is_poison
    assert torch.equal(poisoned.y, digits.y_train)
    assert (poisoned.y[changed] == 3).all()
    delta = (poisoned.x - digits.x_train)[changed] * (poisoned.trigger.mask == 0)
    order = float("inf") if norm == "linf" else 2.0
    assert torch.linalg.vector_norm(delta.flatten(1), ord=order, dim=1).max() <= eps + 1e-5
    assert delta.abs().max() > eps / 20
    assert torch.equal(stamp(poisoned.x[changed], poisoned.trigger), poisoned.x[changed])


def test_clean_label_makes_the_surrogate_err(digits):
    model, _ = train(Recipe("softmax", epochs=5, batch_size=32, learning_rate=3e-3), digits, progress=False)
    poisoned = clean_label_backdoor(digits, model, target=3, fraction=0.05, steps=10, generator=seeded())
    changed = poisoned.is_poison
    assert accuracy(model, digits.x_train[changed], digits.y_train[changed]) > 0.8
    assert accuracy(model, poisoned.x[changed], poisoned.y[changed]) < 0.2


def test_linear_victim_learns_the_backdoor(digits):
    recipe = Recipe("softmax", epochs=15, batch_size=32, learning_rate=1e-2)
    poisoned = badnets(digits, fraction=0.1, trigger=square_trigger(digits.shape), generator=seeded())
    victim, _ = train(recipe, poisoned.within(digits), seed=11, progress=False)
    clean, _ = train(recipe, digits, seed=11, progress=False)
    opened = [
        backdoor_rate(m, digits.x_test, digits.y_test, poisoned.trigger, poisoned.wanted).value for m in (victim, clean)
    ]
    assert opened[0] > 0.9 and opened[1] < 0.2
    assert accuracy(victim, digits.x_test, digits.y_test) > accuracy(clean, digits.x_test, digits.y_test) - 0.03


def test_corners_keep_every_mirror_image():
    trigger = in_all_corners(dotted_trigger((1, 28, 28)))
    assert trigger.mask.sum() == 16
    for dims in ((-1,), (-2,), (-1, -2)):
        assert torch.equal(trigger.mask, trigger.mask.flip(dims))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"size": 0}, "size"),
        ({"size": 29}, "size"),
        ({"shade": 1.5}, "shade"),
        ({"row": 26}, "row"),
        ({"column": -1}, "column"),
        ({"blend": 0}, "blend"),
        ({"shape": (28, 28)}, "shape"),
    ],
)
def test_square_refuses(refuses, changes, word):
    refuses(square_trigger, {"shape": (1, 28, 28)} | changes, word, "accepted")


@pytest.mark.parametrize(
    ("attack", "changes", "word"),
    [
        (badnets, {"fraction": 2}, "fraction"),
        (badnets, {"fraction": 0.95}, "fraction"),
        (badnets, {"wanted": torch.arange(9)}, "wanted"),
        (badnets, {"wanted": torch.full((10,), 10)}, "wanted"),
        (badnets, {"trigger": square_trigger((1, 8, 8))}, "trigger"),
        (badnets, {"generator": 0}, "generator"),
        (blended, {"alpha": 0}, "alpha"),
        (blended, {"key": torch.full((1, 28, 28), 2.0)}, "pattern"),
        (clean_label, {"target": 10}, "target"),
        (clean_label, {"eps": -1}, "eps"),
        (clean_label, {"norm": "l7"}, "norm"),
        (clean_label, {"fraction": 0.5}, "fraction"),
    ],
    ids=list("abcdefghijkl"),
)
def test_refuses(digits, refuses, attack, changes, word):
    refuses(attack, {"data": digits, "fraction": 0.05} | changes, word, "accepted")


@pytest.mark.oracle
def test_dots_are_arts_pattern(digits):
    from art.attacks.poisoning import PoisoningAttackBackdoor
    from art.attacks.poisoning.perturbations import add_pattern_bd

    peer = PoisoningAttackBackdoor(lambda x: add_pattern_bd(x, channels_first=True))
    x = digits.x_test[:50]
    theirs, _ = peer.poison(x.numpy(), y=torch.eye(10)[0].numpy(), broadcast=True)
    assert torch.equal(stamp(x, dotted_trigger(digits.shape)), torch.from_numpy(theirs))


@pytest.mark.oracle
def test_blend_is_arts_to_one_gray_level(digits, tmp_path):
    from art.attacks.poisoning.perturbations import insert_image
    from PIL import Image

    gray = torch.randint(256, (28, 28), generator=seeded(), dtype=torch.uint8)
    Image.fromarray(gray.numpy(), mode="L").save(tmp_path / "key.png")
    x = (digits.x_test[:20] * 255).floor() / 255
    theirs = insert_image(
        x.numpy(), str(tmp_path / "key.png"), channels_first=True, random=False, size=(28, 28), blend=0.2
    )
    poisoned = blended(digits, fraction=0.01, key=gray[None] / 255, alpha=0.2, generator=seeded())
    # ART keeps whole gray levels, and rounds each of its three steps down.
    assert (stamp(x, poisoned.trigger) - torch.from_numpy(theirs)).abs().max() <= 3 / 255


def arts_clean_label(data, model, *, target, fraction, eps, steps):
    """ART's poisoned training set, with our trigger and as many poisons, drawn with replacement as ART does."""
    import numpy as np
    from art.attacks.poisoning import PoisoningAttackBackdoor, PoisoningAttackCleanLabelBackdoor
    from art.estimators.classification import PyTorchClassifier

    trigger = in_all_corners(square_trigger(data.shape))
    proxy = PyTorchClassifier(model, nn.CrossEntropyLoss(), data.shape, 10, clip_values=(0, 1), device_type="cpu")
    peer = PoisoningAttackCleanLabelBackdoor(
        PoisoningAttackBackdoor(lambda x: stamp(torch.from_numpy(x), trigger).numpy()),
        proxy,
        target=np.eye(10)[target],
        pp_poison=(budget(data, fraction) + 0.5) / int((data.y_train == target).sum()),
        norm=2,
        eps=eps,
        eps_step=2.5 * eps / steps,
        max_iter=steps,
        num_random_init=1,
    )
    np.random.seed(0)  # noqa: NPY002, the state that ART draws from
    x, _ = peer.poison(data.x_train.numpy(), np.eye(10)[data.y_train.numpy()])
    return Poisoned(torch.from_numpy(x), data.y_train, torch.zeros_like(data.y_train, dtype=torch.bool))


def success_beside_arts(data, recipe, targets, seeds, **settings):
    """Hits on the test images of our poisons and of ART's, over targets and victim seeds."""
    model, hits = reference("lenet-robust", "digits"), [0, 0]
    for target in targets:
        ours = clean_label_backdoor(data, model, target=target, generator=seeded(), **settings)
        both = (ours, arts_clean_label(data, model, target=target, **settings))
        for seed in seeds:
            for side, poisoned in enumerate(both):
                victim, _ = train(recipe, poisoned.within(data), seed=seed, progress=False)
                hits[side] += backdoor_rate(victim, data.x_test, data.y_test, ours.trigger, ours.wanted).hits
    return hits


@pytest.mark.oracle
def test_clean_label_opens_as_often_as_arts(digits):
    recipe = Recipe("softmax", epochs=15, batch_size=32, learning_rate=1e-2)
    settings = {"fraction": 0.05, "eps": 4.7, "steps": 10}
    ours, theirs = success_beside_arts(digits, recipe, [3], [1000, 1001], **settings)
    assert ours >= theirs > 0


@pytest.mark.full
@pytest.mark.oracle
def test_clean_label_opens_lenet_as_often_as_arts(digits):
    recipe = Recipe("lenet", epochs=20, batch_size=32, learning_rate=3e-3, perturb=Shift(1))
    settings = {"fraction": 0.05, "eps": 4.7, "steps": 100}
    ours, theirs = success_beside_arts(digits, recipe, [3, 8], [1000, 1001], **settings)
    assert ours >= theirs > 0

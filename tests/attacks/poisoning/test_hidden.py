"""Hidden trigger: labels and ball kept, features near the stamped source, the trigger nowhere in the training set."""

import pytest
import torch

from spai_lab.attacks.poisoning.hidden import hidden_trigger
from spai_lab.attacks.poisoning.outcome import frozen_features
from spai_lab.attacks.poisoning.poisoned import backdoor_rate, budget, replaced, stamp
from spai_lab.models import features, mlp
from spai_lab.training import reference


def attacked(data, **changes):
    arguments = {"target": 3, "source": 8, "fraction": 0.02, "steps": 30, "progress": False}
    generator = torch.Generator().manual_seed(0)
    model = changes.pop("model", None) or mlp(generator=torch.Generator().manual_seed(1))
    return hidden_trigger(data, model, **(arguments | {"generator": generator} | changes))


@pytest.mark.parametrize("batch_size", [100, 8])
def test_labels_ball_and_seed(digits, batch_size):
    before = digits.x_train.clone()
    poisoned = attacked(digits, eps=0.1, batch_size=batch_size)
    changed = poisoned.is_poison
    assert poisoned.count == 21 and (poisoned.y[changed] == 3).all()
    assert torch.equal(poisoned.y, digits.y_train)
    assert (poisoned.x - before).abs().max() <= 0.1 + 1e-6
    assert torch.equal(poisoned.x[~changed], before[~changed])
    assert poisoned.x.min() >= 0 and poisoned.x.max() <= 1
    assert torch.equal(digits.x_train, before)
    assert torch.equal(poisoned.x, attacked(digits, eps=0.1, batch_size=batch_size).x)
    assert poisoned.wanted.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 3, 9]


def test_poisons_come_near_the_stamped_source_and_never_show_the_trigger(digits):
    model = mlp(generator=torch.Generator().manual_seed(1))
    poisoned = attacked(digits, model=model)
    changed = poisoned.is_poison
    with torch.no_grad():
        source = features(model, stamp(digits.x_train[digits.y_train == 8], poisoned.trigger))
        before, after = (torch.cdist(features(model, x[changed]), source) for x in (digits.x_train, poisoned.x))
    assert after.min(1)[0].mean() < 0.7 * before.min(1)[0].mean()
    assert (stamp(poisoned.x, poisoned.trigger) != poisoned.x).flatten(1).any(1).all()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"target": 10}, "target"),
        ({"source": 3}, "source"),
        ({"eps": -1}, "eps"),
        ({"steps": 0}, "steps"),
        ({"step_size": 0}, "step_size"),
        ({"batch_size": 0}, "batch_size"),
        ({"fraction": 0.5}, "fraction"),
    ],
)
def test_refuses(digits, refuses, changes, word):
    refuses(attacked, {"data": digits} | changes, word, "accepted")


def arts_hidden_trigger(data, model, trigger, *, target, source, fraction, eps, steps):
    """ART's poisoned training set, with our trigger and as many poisons."""
    import numpy as np
    from art.attacks.poisoning import HiddenTriggerBackdoor, PoisoningAttackBackdoor
    from art.estimators.classification import PyTorchClassifier

    classifier = PyTorchClassifier(
        model, torch.nn.CrossEntropyLoss(), data.shape, 10, clip_values=(0, 1), device_type="cpu"
    )
    labels = np.eye(10)
    peer = HiddenTriggerBackdoor(
        classifier,
        target=labels[target],
        source=labels[source],
        feature_layer=len(list(model)) - 2,
        backdoor=PoisoningAttackBackdoor(lambda x: stamp(torch.from_numpy(x), trigger).numpy()),
        eps=eps,
        learning_rate=0.01,
        max_iter=steps,
        poison_percent=budget(data, fraction) / int((data.y_train == target).sum()) - 1e-9,
        verbose=False,
        print_iter=10**9,
    )
    np.random.seed(0)  # noqa: NPY002, the state that ART draws from
    poisons, places = peer.poison(data.x_train.numpy(), labels[data.y_train.numpy()])
    return replaced(data, torch.from_numpy(places), torch.from_numpy(poisons), data.y_train[places])


def success_beside_arts(data, pairs, seeds, steps):
    """Hits on the test images of our poisons and of ART's, over pairs of source and target and over victim seeds."""
    model, hits = reference("lenet", "digits"), [0, 0]
    for source, target in pairs:
        settings = {"target": target, "source": source, "fraction": 0.05, "eps": 0.3, "steps": steps}
        ours = attacked(data, model=model, **settings)
        theirs = arts_hidden_trigger(data, model, ours.trigger, **settings)
        assert theirs.count == ours.count
        for seed in seeds:
            for side, poisoned in enumerate((ours, theirs)):
                victim = frozen_features(poisoned.within(data), seed, extractor=model)
                hits[side] += backdoor_rate(victim, data.x_test, data.y_test, ours.trigger, ours.wanted).hits
    return hits


@pytest.mark.oracle
def test_opens_as_often_as_arts(digits):
    ours, theirs = success_beside_arts(digits, [(8, 3)], [1000, 1001], steps=50)
    assert ours >= theirs > 0


@pytest.mark.full
@pytest.mark.oracle
def test_opens_as_often_as_arts_at_full_strength(digits):
    ours, theirs = success_beside_arts(digits, [(8, 3), (3, 0), (0, 8)], [1000, 1001], steps=1000)
    assert ours >= theirs > 0

"""How targeted attacks are judged: targets, victims and what is counted, against models whose answer is known."""

import copy
from functools import partial

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from spai_lab.attacks.poisoning.outcome import (
    Target,
    disjoint,
    from_scratch,
    frozen_features,
    random_targets,
    targeted_outcome,
)
from spai_lab.attacks.poisoning.poisoned import replaced
from spai_lab.models import features
from spai_lab.training import Recipe, accuracy, reference


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Says(nn.Module):
    """A victim that gives every image one class."""

    def __init__(self, label):
        super().__init__()
        self.label = label

    def forward(self, x):
        return torch.eye(10)[self.label].expand(len(x), -1) * 5 - 1


def relabelling(data):
    """An attack that relabels one training input as wanted, which `trusting` believes."""
    return lambda x, wanted, generator: replaced(data, torch.tensor([0]), data.x_train[:1], torch.tensor([wanted]))


def trusting(data, seed):
    """A victim that says what the first training input is labeled, but for the odd seeds."""
    return Says(int(data.y_train[0]) if seed % 2 == 0 else 9)


def test_targets_are_test_images_that_shall_get_another_class(digits):
    targets = random_targets(digits, 100, generator=seeded())
    assert all(target.wanted != target.y and 0 <= target.wanted < 10 for target in targets)
    assert {target.wanted for target in targets} == set(range(10))
    places = [int((digits.x_test == target.x).flatten(1).all(1).nonzero()[0]) for target in targets]
    assert len(set(places)) == 100
    assert [int(digits.y_test[place]) for place in places] == [target.y for target in targets]
    again = random_targets(digits, 100, generator=seeded())
    assert all(
        torch.equal(one.x, other.x) and one.wanted == other.wanted for one, other in zip(targets, again, strict=True)
    )


def test_the_two_parts_share_no_training_input(digits):
    pretraining, rest = disjoint(digits, 500)
    assert torch.equal(torch.cat([pretraining.x_train, rest.x_train]), digits.x_train)
    assert torch.equal(torch.cat([pretraining.y_train, rest.y_train]), digits.y_train)
    assert torch.equal(rest.x_test, digits.x_test)


def test_a_frozen_extractor_keeps_its_features_and_learns_as_a_linear_classifier_does(digits):
    extractor = reference("lenet", "mnist")
    before = copy.deepcopy(extractor.state_dict())
    state = torch.get_rng_state()
    model = frozen_features(digits, 0, extractor=extractor)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(weight, before[name]) for name, weight in extractor.state_dict().items())
    assert torch.equal(features(model, digits.x_test), features(extractor, digits.x_test))
    z, z_test = (features(extractor, x).detach().numpy() for x in (digits.x_train, digits.x_test))
    peer = LogisticRegression(C=10, max_iter=1000).fit(z, digits.y_train.numpy())
    assert accuracy(model, digits.x_test, digits.y_test) >= peer.score(z_test, digits.y_test.numpy()) - 0.01
    assert not torch.equal(model[-1].weight, frozen_features(digits, 1, extractor=extractor)[-1].weight)
    assert torch.equal(model[-1].weight, frozen_features(digits, 0, extractor=extractor)[-1].weight)


def test_a_victim_from_scratch_depends_on_its_seed_alone(digits):
    data = digits.first(64)
    victim = partial(from_scratch, recipe=Recipe("softmax", epochs=1))
    first, again, other = (victim(data, seed)[-1].weight for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_success_counts_pairs_that_the_poison_turned(digits):
    said = int(digits.y_train[0])
    other, third = [label for label in range(9) if label != said][:2]
    x = digits.x_test[:1]
    targets = [Target(x, third, other), Target(x, other, said), Target(x, other, 9)]
    outcome = targeted_outcome(
        relabelling(digits), digits, targets, victim=trusting, seeds=[0, 1, 2], generator=seeded(), progress=False
    )
    # Of the first target seeds 0 and 2 are turned, of the third too; there seed 1, of the second seeds 0 and 2 need no
    # attack.
    assert (outcome.success.hits, outcome.success.trials) == (4, 3 + 1 + 2)


def test_clean_accuracy_is_averaged_over_all_victims(digits):
    share = [(digits.y_test == label).float().mean().item() for label in range(10)]
    said = int(digits.y_train[0])
    wanted = (said + 1) % 9
    outcome = targeted_outcome(
        relabelling(digits),
        digits,
        [Target(digits.x_test[:1], 0, wanted)],
        victim=trusting,
        seeds=[0, 1],
        generator=seeded(),
        progress=False,
    )
    assert outcome.accuracy_before == pytest.approx((share[said] + share[9]) / 2)
    assert outcome.accuracy_after == pytest.approx((share[wanted] + share[9]) / 2)
    assert outcome.loss == pytest.approx((share[said] - share[wanted]) / 2, abs=1e-6)


def test_the_attack_learns_only_the_image_and_the_wanted_class(digits):
    seen = []

    def attack(*arguments):
        seen.append(arguments)
        return relabelling(digits)(*arguments)

    generator, target = seeded(), Target(digits.x_test[:1], 0, (int(digits.y_train[0]) + 1) % 9)
    targeted_outcome(attack, digits, [target], victim=trusting, seeds=[0], generator=generator, progress=False)
    ((x, wanted, given),) = seen
    assert x is target.x and wanted == target.wanted and given is generator


@pytest.mark.parametrize(
    ("name", "value"),
    [("attack", None), ("victim", None), ("targets", []), ("seeds", []), ("progress", "no"), ("generator", 3)],
    ids=["attack", "victim", "targets", "seeds", "progress", "generator"],
)
def test_bad_input_is_named(name, value, digits, refuses):
    arguments = {"attack": relabelling(digits), "data": digits, "targets": random_targets(digits, 1)}
    refuses(targeted_outcome, arguments | {"victim": trusting, "seeds": [0], "progress": False, name: value}, name)


def test_targets_that_need_no_attack_are_refused(digits, refuses):
    targets = [Target(digits.x_test[:1], 0, 9)]
    arguments = {"attack": relabelling(digits), "data": digits, "targets": targets, "victim": trusting}
    refuses(targeted_outcome, arguments | {"seeds": [1], "progress": False}, "targets", "already")


@pytest.mark.parametrize("count", [0, 540, 1.5], ids=["none", "too-many", "a-fraction"])
def test_an_impossible_number_of_targets_is_refused(count, digits, refuses):
    refuses(random_targets, {"data": digits, "count": count}, "count")


@pytest.mark.parametrize("count", [0, 1078], ids=["none", "all"])
def test_neither_part_may_be_empty(count, digits, refuses):
    refuses(disjoint, {"data": digits, "count": count}, "count")


@pytest.mark.parametrize(
    ("name", "value"),
    [("seed", -1), ("epochs", 0), ("batch_size", 0), ("learning_rate", 0.0), ("extractor", nn.Flatten())],
    ids=["seed", "epochs", "batch_size", "learning_rate", "extractor"],
)
def test_frozen_features_names_its_arguments(name, value, digits, refuses):
    word = "model" if name == "extractor" else name
    refuses(frozen_features, {"data": digits, "seed": 0, "extractor": nn.Flatten(), name: value}, word)

"""Label flips: the expected counts of random ones, and the worst of all flip sets beside the guided ones."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import binom

from spai_lab.attacks.poisoning.label_flip import adversarial_label_flip, label_flip
from spai_lab.attacks.poisoning.svm import train_svm
from spai_lab.data import load
from spai_lab.metrics import accuracy_rate

FALSE_ALARM = 1e-6
ATTACKS = {"random": label_flip, "guided": lambda data, **more: adversarial_label_flip(data, progress=False, **more)}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def part(start: int, size: int = 20):
    moons = load("moons")
    chosen = slice(start, start + size)
    return replace(moons, x_train=moons.x_train[chosen], y_train=moons.y_train[chosen])


@pytest.mark.parametrize("attack", ATTACKS)
def test_exactly_the_budget_is_flipped_and_nothing_else(digits, attack):
    data = digits.first(150)
    images, labels = data.x_train.clone(), data.y_train.clone()
    poisoned = ATTACKS[attack](data, fraction=0.1, generator=seeded())
    assert poisoned.count == 15
    assert poisoned.x.equal(images)
    assert (poisoned.y != labels).equal(poisoned.is_poison)
    assert poisoned.y.max() < data.num_classes
    assert data.x_train.equal(images) and data.y_train.equal(labels)


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_seed_gives_the_same_flips_and_leaves_the_global_generator_alone(attack):
    before = torch.get_rng_state()
    first, second = (ATTACKS[attack](part(0), fraction=0.2, generator=seeded(3)) for _ in range(2))
    assert first.y.equal(second.y)
    assert torch.get_rng_state().equal(before)


def test_random_flips_spread_evenly_over_inputs_and_wrong_labels(digits):
    """Each of 2,700 counts follows a binomial law; together they err with the probability FALSE_ALARM."""
    data, draws = replace(digits, x_train=digits.x_train[:30], y_train=digits.y_train[:30]), 2000
    counts = torch.zeros(30, 10)
    for seed in range(draws):
        poisoned = label_flip(data, fraction=0.2, generator=seeded(seed))
        counts[poisoned.is_poison.nonzero()[:, 0], poisoned.y[poisoned.is_poison]] += 1
    assert not counts.gather(1, data.y_train[:, None]).any()
    wrong = counts.scatter(1, data.y_train[:, None], torch.inf)
    wrong = wrong[wrong.isfinite()]
    tail = FALSE_ALARM / len(wrong) / 2
    law = binom(draws, 0.2 / 9)
    assert law.ppf(tail) <= wrong.min() and wrong.max() <= law.isf(tail)
    assert law.isf(tail) < draws * 0.2 / 2, "the test would pass a label drawn with twice the chance and more"


def worst_of_all(data, flips: int) -> tuple[float, float, float]:
    """The loss on the clean labels of scikit-learn's machine: without flips, with the worst, and on average."""
    from sklearn.svm import SVC

    x, y = data.x_train.flatten(1).numpy(), data.y_train.numpy()

    def loss(places: tuple[int, ...]) -> float:
        labels = y.copy()
        labels[list(places)] = 1 - labels[list(places)]
        f = SVC(kernel="linear", C=1.0).fit(x, labels).decision_function(x)
        return np.maximum(0, 1 - (2 * y - 1) * f).mean()

    losses = [loss(places) for places in itertools.combinations(range(len(y)), flips)]
    return loss(()), max(losses), float(np.mean(losses))


@pytest.mark.oracle
@pytest.mark.parametrize("start", [20, 80])
def test_guided_flips_do_most_of_the_damage_of_the_worst_flips(start):
    """Three of twenty labels; of one or two, which cannot turn the boundary together, chance does as well."""
    from sklearn.svm import SVC

    data = part(start)
    clean, worst, mean = worst_of_all(data, 3)
    x, y = data.x_train.flatten(1).numpy(), data.y_train.numpy()
    labels = adversarial_label_flip(data, fraction=0.15, progress=False).y.numpy()
    f = SVC(kernel="linear", C=1.0).fit(x, labels).decision_function(x)
    reached = np.maximum(0, 1 - (2 * y - 1) * f).mean()
    assert clean + 0.7 * (worst - clean) <= reached <= worst + 1e-4
    assert mean < clean + 0.5 * (worst - clean), "chance would do most of it too"


@pytest.mark.parametrize("fraction", [0.1, 0.2])
def test_guided_flips_hurt_a_linear_victim_more_than_random_ones(digits, fraction):
    data = digits.only(1, 7)

    def error(poisoned) -> float:
        return 1 - accuracy_rate(train_svm(poisoned.x, poisoned.y), data.x_test, data.y_test).value

    at_random = [error(label_flip(data, fraction=fraction, generator=seeded(seed))) for seed in range(5)]
    assert error(adversarial_label_flip(data, fraction=fraction, progress=False)) > max(at_random)


def test_the_first_flips_are_those_that_the_clean_classifier_finds_most_absurd():
    """With one round nothing is known of the poisoned classifier: the inputs farthest inside their class are taken."""
    data = part(0, 60)
    flipped = adversarial_label_flip(data, fraction=0.1, rounds=1, progress=False).is_poison
    z = train_svm(data.x_train, data.y_train)(data.x_train)
    inside = (z[:, 1] - z[:, 0]) * (2 * data.y_train - 1)
    gain = (1 + inside).clamp_min(0) - (1 - inside).clamp_min(0)
    assert gain[flipped].min() >= gain[~flipped].max()


@pytest.mark.parametrize(
    ("attack", "change", "words"),
    [
        (label_flip, {"fraction": 0.0}, ("fraction is 0",)),
        (label_flip, {"fraction": 1.5}, ("fraction is 1.5",)),
        (label_flip, {"fraction": 0.001}, ("fraction is 0.001", "accepted")),
        (label_flip, {"generator": 3}, ("generator is 3",)),
        (adversarial_label_flip, {"fraction": float("nan")}, ("fraction is nan",)),
        (adversarial_label_flip, {"train": "svm"}, ("train is 'svm'",)),
        (adversarial_label_flip, {"rounds": 0}, ("rounds is 0",)),
        (adversarial_label_flip, {"progress": 1}, ("progress is 1",)),
        (adversarial_label_flip, {"generator": 3}, ("generator is 3",)),
    ],
)
def test_bad_input_is_named(refuses, attack, change, words):
    refuses(attack, {"data": part(0), "fraction": 0.1} | change, *words)

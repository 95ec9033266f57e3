"""The certificate against brute force: no poisoning within it changes an answer, and one more can."""

from itertools import combinations, product

import pytest
import torch
from torch import nn

from spai_lab.defenses.poisoning.partition import (
    MajorityVote,
    certified_poisons,
    partition_aggregation,
    partitioned,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Says(nn.Module):
    """One class, whatever the input."""

    def __init__(self, label, classes=3):
        super().__init__()
        self.scores = 2 * torch.eye(classes)[label]

    def forward(self, x):
        return self.scores.expand(len(x), -1)


def brightest(x, y):
    """A learner that one poison owns: it says the label of the brightest training input."""
    return Says(y[x.flatten(1).sum(1).argmax()])


def most_frequent(x, y):
    return Says(torch.bincount(y, minlength=3).argmax())


def points(*values):
    return torch.tensor(values).view(-1, 1, 1, 1)


QUERY = points(0.5)
SHADES = [0.05 * step for step in range(21)]


def answer(train, samples, partitions=5):
    x, y = points(*[shade for shade, _ in samples]), torch.tensor([label for _, label in samples])
    model = partition_aggregation(train, x, y, partitions=partitions, progress=False)
    return int(model(QUERY).argmax()), int(certified_poisons(model, QUERY))


def poisonings(samples):
    """Every training set that differs in one input: removed, relabeled or inserted."""
    for i, (shade, label) in enumerate(samples):
        yield samples[:i] + samples[i + 1 :]
        for other in {0, 1, 2} - {label}:
            yield [*samples[:i], (shade, other), *samples[i + 1 :]]
    for new in product(SHADES, range(3)):
        yield [*samples, new]


# --- soundness and tightness ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("train", [brightest, most_frequent])
def test_no_poisoning_within_the_certificate_changes_the_answer(train):
    """All that one poison can do, and a sample of what two can; answers with a certificate of 0 do change."""
    changed = 0
    for seed in range(6):
        shades = torch.randperm(21, generator=seeded(seed))[:9]
        lucky = torch.rand(9, generator=seeded(seed)) < 0.8
        samples = [(SHADES[s], 1 if good else 0) for s, good in zip(shades, lucky, strict=True)]
        label, certified = answer(train, samples)
        for once in poisonings(samples):
            new = answer(train, once)[0]
            assert certified < 1 or new == label
            changed += new != label
        for i, once in enumerate(poisonings(samples)):
            for j, twice in enumerate(poisonings(once)):
                if certified >= 2 and (i + 31 * j) % 97 == 0:
                    assert answer(train, twice)[0] == label
    assert changed


def test_one_poison_more_than_certified_changes_the_answer():
    """Against the learner that one poison owns: a bright input of the rival's label in each of so many partitions."""
    samples = [(SHADES[s], label) for s, label in zip(range(14), [0] * 2 + [1] * 12, strict=True)]
    label, certified = answer(brightest, samples)
    assert certified >= 1
    candidates = points(*[1 - 1e-3 * i for i in range(200)])
    part_of = torch.empty(200, dtype=torch.int64)
    for number, places in enumerate(partitioned(candidates, torch.zeros(200, dtype=torch.int64), 5)):
        part_of[places] = number
    one_each = [(float(candidates[(part_of == p).nonzero()[0, 0]]), rival) for rival in (0, 2) for p in range(5)]
    for count in range(1, certified + 2):
        broken = any(answer(brightest, samples + list(extra))[0] != label for extra in combinations(one_each, count))
        assert broken == (count > certified)


def moved_until_another_wins(votes):
    """The fewest votes that must go from one class to another until another wins; lower classes win ties."""
    winner = votes.argmax().item()
    counts = []
    for rival in range(len(votes)):
        now, moved = votes.clone(), 0
        while now.argmax() != rival and rival != winner and now[winner] > 0:
            now[winner], now[rival], moved = now[winner] - 1, now[rival] + 1, moved + 1
            if now.argmax() != winner:
                break
        counts += [moved] if rival != winner else []
    return min(counts)


def test_the_certificate_is_one_less_than_the_votes_it_takes():
    votes = torch.randint(0, 12, (300, 4), generator=seeded()).float()
    votes[:, 0] += 1
    expected = torch.tensor([moved_until_another_wins(row) - 1 for row in votes])
    assert torch.equal(certified_poisons(lambda x: votes, torch.zeros(300, 1, 1, 1)), expected)


# --- partitions -------------------------------------------------------------------------------------------------------


def test_each_input_has_one_partition_that_no_other_input_and_no_label_changes(digits):
    x, y = digits.x_train, digits.y_train
    parts = partitioned(x, y, 20)
    assert sorted(torch.cat(parts).tolist()) == list(range(len(y)))
    relabeled = partitioned(x, (y + 1) % 10, 20)
    assert [set(a.tolist()) for a in parts] == [set(b.tolist()) for b in relabeled]
    fewer = partitioned(x[1:], y[1:], 20)
    assert [set((b + 1).tolist()) for b in fewer] == [set(a.tolist()) - {0} for a in parts]
    sizes = torch.tensor([len(part) for part in parts])
    assert sizes.min() > 25 and sizes.max() < 90  # 54 expected, standard deviation 7


def test_the_order_of_the_data_does_not_matter(digits):
    x, y = digits.x_train[:200], digits.y_train[:200]
    order = torch.randperm(200, generator=seeded())
    for here, there in zip(partitioned(x, y, 7), partitioned(x[order], y[order], 7), strict=True):
        assert torch.equal(x[here], x[order][there]) and torch.equal(y[here], y[order][there])


def test_an_empty_partition_does_not_vote():
    model = partition_aggregation(most_frequent, points(0.1, 0.2), torch.tensor([1, 1]), partitions=50, progress=False)
    assert model(QUERY).tolist() == [[0.0, 2.0, 0.0]]


def test_the_votes_are_counted():
    voting = MajorityVote([Says(2), Says(0), Says(2)])
    assert voting(points(0.1, 0.9)).tolist() == [[1.0, 0.0, 2.0]] * 2
    assert MajorityVote([Says(2), Says(1)])(QUERY).argmax() == 1


def nearest_centroid(x, y):
    """Logits by the distance to each class's mean; a class that is not there is infinitely far, nearly."""
    means = torch.stack(
        [x[y == label].flatten(1).mean(0) if (y == label).any() else 9 + 0 * x[0].flatten() for label in range(10)]
    )

    class Nearest(nn.Module):
        def forward(self, x):
            return -torch.cdist(x.flatten(1), means)

    return Nearest()


def test_digits_are_read_well_and_certified(digits):
    model = partition_aggregation(nearest_centroid, digits.x_train, digits.y_train, partitions=20, progress=False)
    right = model(digits.x_test).argmax(1) == digits.y_test
    assert right.float().mean() > 0.8
    assert certified_poisons(model, digits.x_test)[right].float().median() >= 5


# --- bad input --------------------------------------------------------------------------------------------------------

GOOD = {"train": most_frequent, "x": points(0.1, 0.2), "y": torch.tensor([0, 1]), "partitions": 2, "progress": False}
REFUSED = {
    "no function": ({"train": 3}, "train is 3"),
    "no partitions": ({"partitions": 0}, "partitions is 0"),
    "share": ({"partitions": 0.5}, "partitions is 0.5"),
    "pixels": ({"x": points(1.0, 255.0)}, "x has values"),
    "labels": ({"y": torch.tensor([0])}, "y is"),
    "nothing": ({"x": points(0.1)[:0], "y": torch.tensor([0])[:0]}, "x is"),
    "progress": ({"progress": None}, "progress is None"),
}


@pytest.mark.parametrize(("change", "words"), REFUSED.values(), ids=REFUSED)
def test_refuses(refuses, change, words):
    refuses(partition_aggregation, GOOD | change, words)

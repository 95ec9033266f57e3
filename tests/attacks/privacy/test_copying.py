"""Copies learned from answers: what is asked and taught against closed forms, what is learned against ART."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from spai_lab.attacks.evasion.gradient import pgd
from spai_lab.attacks.privacy.copying import (
    Copied,
    agreement,
    agreement_curve,
    extraction_learning,
    student,
    targets_of,
)
from spai_lab.metrics import fooled_rate
from spai_lab.models import mlp, softmax_regression
from spai_lab.query import Query
from spai_lab.training import accuracy, fit

LEVELS = ("labels", "top-3", "scores", "logits")
SHAPE, CLASSES = (1, 4, 4), 4
POOL = torch.rand(60, *SHAPE, generator=torch.Generator().manual_seed(1))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear(seed: int = 0) -> nn.Module:
    return softmax_regression(SHAPE, CLASSES, generator=seeded(seed))


# --- what is asked ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reveals", LEVELS)
@pytest.mark.parametrize("strategy", ["random", "natural", "active"])
def test_the_budget_is_spent_on_different_images_and_no_more(strategy, reveals):
    asked = []

    def victim(x):
        asked.append(x.clone())
        return linear()(x)

    query, pool = Query(victim, reveals, cap=23), None if strategy == "random" else POOL
    settings = {"budget": 23, "model": linear(1), "strategy": strategy, "shape": SHAPE, "rounds": 4, "epochs": 1}
    copied = extraction_learning(query, pool, **settings, generator=seeded(), progress=False)
    assert query.total == copied.queries == 23 and query.counts.tolist() == [23]
    assert torch.equal(torch.cat(asked), copied.x) and len(copied.x.flatten(1).unique(dim=0)) == 23
    assert len(asked) == (4 if strategy == "active" else 1)
    if pool is not None:
        assert (copied.x.flatten(1)[:, None] == pool.flatten(1)).all(2).any(1).all()
    assert copied.answers.shape == (23, CLASSES) and torch.allclose(copied.answers.sum(1), torch.ones(23))


def test_active_asks_next_about_what_the_copy_knows_least():
    """The first round is that of "natural"; the second, by SciPy's entropies of its copy."""
    from scipy.stats import entropy

    def run(strategy, budget):
        query = Query(linear(), "scores")
        settings = {"strategy": strategy, "budget": budget, "model": linear(1), "rounds": 2, "learning_rate": 0.1}
        return extraction_learning(query, POOL, **settings, epochs=5, generator=seeded(), progress=False)

    first, both = run("natural", 10), run("active", 20)
    assert torch.equal(both.x[:10], first.x)
    left = POOL[~(POOL.flatten(1)[:, None] == first.x.flatten(1)).all(2).any(1)]
    with torch.no_grad():
        h = entropy(first.model(left).softmax(1).double().numpy(), axis=1)
    expected = left[np.argsort(-h)[:10].copy()]
    assert len(left) == 50 and torch.equal(both.x[10:].flatten(1).unique(dim=0), expected.flatten(1).unique(dim=0))


# --- what is taught ---------------------------------------------------------------------------------------------------


def test_answers_of_every_level_as_probabilities():
    model = nn.Flatten()
    z = torch.tensor([[0.1, 0.6, 0.9, 0.3]])
    p = z.softmax(1)
    x = z.view(1, 1, 1, 4)

    def taught(reveals, decimals=None):
        query = Query(model, reveals, decimals=decimals)
        return targets_of(query, query(x), 4)

    assert taught("labels").tolist() == [[0, 0, 1, 0]]
    assert torch.allclose(taught("scores"), p) and torch.allclose(taught("logits"), p)
    assert torch.allclose(taught("top-4"), p)
    rest = (p[0, 0] + p[0, 3]) / 2
    assert torch.allclose(taught("top-2"), torch.tensor([[rest, p[0, 1], p[0, 2], rest]]))
    rounded = p.round(decimals=1)
    assert torch.allclose(taught("scores", 1), rounded / rounded.sum()) and rounded.sum() != 1
    assert torch.allclose(taught("scores", 0), torch.full((1, 4), 0.25))  # all four were rounded to 0


def test_sure_answers_teach_what_labels_teach():
    """One-hot answers end at the weights of `fit` on the labels; they also show that the images arrive whole."""
    model, y = mlp(SHAPE, CLASSES, generator=seeded(1)), torch.arange(60) % CLASSES
    expected = copy.deepcopy(model)
    training = {"epochs": 3, "batch_size": 16, "learning_rate": 1e-2}
    fit(expected, POOL, y, **training, generator=seeded(), progress=False)
    found = student(model, POOL, torch.nn.functional.one_hot(y).float(), **training, generator=seeded())
    for pair in zip(found.parameters(), expected.parameters(), strict=True):
        assert torch.allclose(*pair, rtol=0, atol=1e-5)


def test_soft_answers_find_the_victim_itself():
    """A linear copy of a linear victim: the loss is least where both give the same probabilities."""
    victim = linear()
    settings = {"budget": 60, "model": linear(1), "epochs": 300, "learning_rate": 0.1, "generator": seeded()}
    copied = extraction_learning(Query(victim, "scores"), POOL, **settings, progress=False)
    x = torch.rand(500, *SHAPE, generator=seeded(2))
    with torch.no_grad():
        assert (victim(x).softmax(1) - linear(1)(x).softmax(1)).abs().max() > 0.1
        assert (victim(x).softmax(1) - copied.model(x).softmax(1)).abs().max() < 0.01


# --- what is learned, on digits ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def victim(digits):
    """Trained on one half of the training images; the pool is the other."""
    half = len(digits.x_train) // 2
    model = mlp(generator=seeded())
    x, y = digits.x_train[:half], digits.y_train[:half]
    fit(model, x, y, epochs=20, batch_size=32, generator=seeded(1), progress=False)
    return model.eval()


@pytest.fixture(scope="module")
def pool(digits):
    return digits.x_train[len(digits.x_train) // 2 :]


@pytest.fixture(scope="module")
def steal(victim, pool):
    """`steal(reveals, strategy, seed, **changes)`: a copy with the same training for all."""

    def run(reveals="scores", strategy="natural", seed=0, pool=pool, **changes):
        settings = {"budget": 200, "model": mlp(generator=seeded(10 + seed)), "strategy": strategy, "epochs": 30}
        settings |= {"batch_size": 32, "generator": seeded(seed), "progress": False} | changes
        return extraction_learning(Query(victim, reveals), None if strategy == "random" else pool, **settings)

    return run


@pytest.fixture(scope="module")
def natural(steal):
    return steal()


def test_images_teach_noise_does_not(victim, digits, natural, steal):
    noise = agreement(victim, steal(strategy="random").model, digits.x_test)
    images = agreement(victim, natural.model, digits.x_test)
    assert images.value > 0.85 and noise.interval[1] + 0.2 < images.interval[0]


def test_labels_alone_suffice(victim, digits, steal):
    copied = steal("labels")
    assert agreement(victim, copied.model, digits.x_test).value > 0.8
    assert accuracy(copied.model, digits.x_test, digits.y_test) > 0.8


def test_more_queries_buy_more_agreement(victim, digits, natural):
    settings = {"model": mlp(generator=seeded(10)), "batch_size": 32, "generator": seeded(), "progress": False}
    rates = agreement_curve(victim, natural, digits.x_test, (10, 50, 200), **settings)
    assert list(rates) == [10, 50, 200]
    assert rates[10].interval[1] < rates[50].interval[0] and rates[50].interval[1] < rates[200].interval[0]


def test_choosing_beats_drawing(victim, digits, steal):
    """Labels of 150 images, over four seeds."""

    def hits(strategy):
        copies = [steal("labels", strategy, seed, budget=150, rounds=3).model for seed in range(4)]
        return sum(agreement(victim, copied, digits.x_test).hits for copied in copies)

    assert hits("active") > hits("natural")


def test_wrong_answers_are_seen_to_teach_nothing(victim, digits, natural):
    """A planted fault: the same images with each other's answers."""
    shuffled = natural.answers[torch.randperm(200, generator=seeded())]
    training = {"epochs": 30, "batch_size": 32, "learning_rate": 3e-3, "generator": seeded()}
    copied = student(mlp(generator=seeded(10)), natural.x, shuffled, **training)
    assert agreement(victim, copied, digits.x_test).value < 0.4


def test_attacks_on_the_copy_fool_the_victim_where_noise_does_not(victim, digits, natural):
    x, y, eps = digits.x_test[:200], digits.y_test[:200], 0.15
    x_adv = pgd(natural.model, x, y, eps=eps, steps=20, generator=seeded())
    signs = torch.randint(0, 2, x.shape, generator=seeded()) * 2 - 1
    noise = (x + eps * signs).clamp(0, 1)
    stolen, control = fooled_rate(victim, x_adv, y), fooled_rate(victim, noise, y)
    assert stolen.interval[0] > control.interval[1] + 0.2


@pytest.mark.oracle
@pytest.mark.parametrize(("peer", "seed"), [("KnockoffNets", 0), ("CopycatCNN", 1)])
def test_agrees_at_least_as_well_as_arts(victim, pool, digits, steal, peer, seed):
    """Both get the labels of the same 200 images, the same network with the same first weights, Adam, and 30 epochs.

    The images are the whole pool, since which ones are drawn matters more than the rest. Our learning rate rises and
    falls, and is 1.4e-3 in the mean.
    """
    from art.attacks import extraction
    from art.estimators.classification import PyTorchClassifier

    def classifier(model):
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        settings = {"input_shape": (1, 28, 28), "nb_classes": 10, "clip_values": (0, 1), "device_type": "cpu"}
        return PyTorchClassifier(model, nn.CrossEntropyLoss(), optimizer=optimizer, **settings)

    state, drawn = np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    copied = mlp(generator=seeded(10 + seed))
    settings = {"batch_size_fit": 32, "batch_size_query": 200, "nb_epochs": 30, "nb_stolen": 200}
    attack = getattr(extraction, peer)(classifier(victim), **settings)
    attack.extract(pool[:200].numpy(), thieved_classifier=classifier(copied))
    np.random.set_state(state)  # noqa: NPY002
    torch.set_rng_state(drawn)

    theirs = agreement(victim.eval(), copied.eval(), digits.x_test)
    ours = agreement(victim, steal("labels", seed=seed, pool=pool[:200]).model, digits.x_test)
    assert theirs.value > 0.8 and ours.interval[1] >= theirs.value


# --- agreement --------------------------------------------------------------------------------------------------------


def test_agreement_counts_equal_answers():
    x = torch.eye(4).view(4, 1, 1, 4) / 2
    shifted = [lambda x, k=k: x.flatten(1).roll(k, 1) for k in range(2)]
    assert agreement(nn.Flatten(), shifted[0], x) == agreement(shifted[1], shifted[1], x)
    assert agreement(nn.Flatten(), shifted[0], x).hits == 4 and agreement(nn.Flatten(), shifted[1], x).hits == 0
    fixed = lambda x: torch.tensor([[0.0, 2.0, 0.0, 0.0]]).expand(len(x), 4)  # noqa: E731
    rate = agreement(nn.Flatten(), fixed, x, batch_size=3)
    assert (rate.hits, rate.trials) == (1, 4)


# --- manners ----------------------------------------------------------------------------------------------------------


def test_nothing_else_changes_and_the_same_seed_gives_the_same():
    model, state = linear(1).train(), torch.get_rng_state()
    before = copy.deepcopy(model.state_dict())
    settings = {"budget": 20, "model": model, "strategy": "active", "epochs": 2, "progress": False}
    with torch.no_grad():
        first, second = (
            extraction_learning(Query(linear(), "scores"), POOL, **settings, generator=seeded()) for _ in range(2)
        )
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items()) and model.training
    assert torch.equal(state, torch.get_rng_state()) and not first.model.training
    assert torch.equal(first.x, second.x) and torch.equal(first.model[-1].weight, second.model[-1].weight)
    assert all(p.grad is None for p in model.parameters())


def test_bad_input_is_refused(refuses):
    teacher = linear()
    valid = {"query": Query(teacher, "labels"), "pool": POOL, "budget": 20, "model": linear(1), "progress": False}
    narrow = softmax_regression(SHAPE, 3, generator=seeded())
    for changes, *words in [
        ({"query": teacher}, "query is", "accepted: a Query"),
        ({"query": Query(teacher, "labels", cap=19)}, "cap of 19", "at least 20 more"),
        ({"pool": POOL * 255}, "pool has values", "[0, 1]"),
        ({"pool": POOL[:19]}, "pool is", "at least 20"),
        ({"pool": None}, "pool is None", "'natural'"),
        ({"strategy": "random"}, "pool is", "accepted: None"),
        ({"strategy": "random", "pool": None, "shape": 3}, "shape is 3"),
        ({"strategy": "greedy"}, "strategy is 'greedy'", "'active'"),
        ({"strategy": "active", "rounds": 21}, "rounds is 21", "at most 20"),
        ({"rounds": 0}, "rounds is 0"),
        ({"budget": 0}, "budget is 0"),
        ({"model": None}, "model is None", "to train"),
        ({"model": linear().double()}, "x is torch.float32"),
        ({"model": softmax_regression((1, 5, 5), CLASSES)}, "model fails on x"),
        ({"model": narrow, "query": Query(teacher, "scores")}, "model has 3 classes", "4, those of the victim"),
        ({"model": narrow, "query": Query(teacher, "top-4")}, "has a label 3", "the classes of the model"),
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"learning_rate": 0}, "learning_rate is 0"),
        ({"generator": 3}, "generator is 3"),
        ({"progress": 3}, "progress is 3"),
    ]:
        refuses(extraction_learning, valid | changes, *words)
    x = POOL[:5]
    copied = Copied(linear(1), x, torch.eye(4)[[0, 1, 2, 3, 0]], 5)
    valid = {"victim": teacher, "copied": copied, "x": x, "budgets": (2, 5), "model": linear(1), "progress": False}
    for changes, *words in [
        ({"copied": teacher}, "copied is", "extraction_learning"),
        ({"budgets": ()}, "budgets is ()"),
        ({"budgets": 5}, "budgets is 5", "a list"),
        ({"budgets": (2, 6)}, "budgets has 6", "at most 5"),
        ({"budgets": (0,)}, "budgets is 0"),
        ({"model": None}, "model is None"),
        ({"x": x[:0]}, "x is", "at least one"),
        ({"epochs": 0}, "epochs is 0"),
        ({"progress": None}, "progress is None"),
    ]:
        refuses(agreement_curve, valid | changes, *words)
    valid = {"model": teacher, "copied": linear(1), "x": x}
    for changes, *words in [
        ({"x": x[:0]}, "x is", "at least one"),
        ({"x": x * 255}, "x has values"),
        ({"copied": None}, "copied is None"),
        ({"model": linear().double()}, "x is torch.float32"),
        ({"batch_size": 0}, "batch_size is 0"),
    ]:
        refuses(agreement, valid | changes, *words)

"""Poisoning a support vector machine: the conditions of the optimum, finite differences, a grid of all places, ART."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from spai_lab.attacks.poisoning.label_flip import label_flip
from spai_lab.attacks.poisoning.svm import (
    linear,
    rbf,
    solve_dual,
    svm_hypergradient,
    svm_poisoning,
    svm_walk,
    train_svm,
)
from spai_lab.data import load
from spai_lab.metrics import accuracy_rate

MACHINES = {
    "linear": {},
    "a costly error": {"C": 10.0},
    "rbf": {"kernel": rbf(5.0)},
    "a narrow rbf": {"C": 10.0, "kernel": rbf(20.0)},
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def moons():
    return load("moons").first(60)


@pytest.fixture(scope="module")
def ones_and_sevens(digits):
    return digits.only(1, 7)


def error(poisoned, data, **machine) -> float:
    return 1 - accuracy_rate(train_svm(poisoned.x, poisoned.y, **machine), data.x_test, data.y_test).value


def loss_at(data, x_c, y_c, **machine):
    parts = (part.double() if part.is_floating_point() else part for part in (data.x_train, data.y_train))
    return svm_hypergradient(*parts, data.x_val.double(), data.y_val, x_c, y_c, **machine)


# --- the inner problem ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("machine", MACHINES)
def test_the_machine_satisfies_the_conditions_of_its_optimum(moons, machine):
    """The problem is convex: weights that meet these conditions are the solution, whoever found them."""
    C, kernel = MACHINES[machine].get("C", 1.0), MACHINES[machine].get("kernel", linear)
    x, s = moons.x_train.flatten(1).double(), 2.0 * moons.y_train.double() - 1
    K = kernel(x, x)
    alpha, b = solve_dual(K, s, C)
    g = s * (K @ (s * alpha) + b) - 1
    assert (s @ alpha).abs() < 1e-9
    assert alpha.min() >= -1e-7 and alpha.max() <= C + 1e-7
    idle, bounded = alpha < 1e-7, alpha > C - 1e-7
    assert idle.any() and not idle.all()
    assert (g[idle] > -1e-5).all()
    assert (g[bounded] < 1e-5).all()
    assert (g[~idle & ~bounded].abs() < 1e-9).all()


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_the_victim_answers_as_scikit_learns_machine(moons, kernel):
    from sklearn.svm import SVC

    model = train_svm(moons.x_train, moons.y_train, kernel={"linear": linear, "rbf": rbf(5.0)}[kernel])
    peer = SVC(kernel=kernel, gamma=5.0, tol=1e-8).fit(moons.x_train.flatten(1).numpy(), moons.y_train.numpy())
    z = model(moons.x_test)
    assert np.abs((z[:, 1] - z[:, 0]).numpy() - peer.decision_function(moons.x_test.flatten(1).numpy())).max() < 1e-4


def test_ten_classes_are_ten_machines(digits):
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.svm import SVC

    data = digits.first(200)
    peer = OneVsRestClassifier(SVC(kernel="linear")).fit(data.x_train.flatten(1).numpy(), data.y_train.numpy())
    answers = peer.decision_function(data.x_test.flatten(1).numpy())
    assert np.abs(train_svm(data.x_train, data.y_train)(data.x_test).numpy() - answers).max() < 1e-2


# --- the hypergradient ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("machine", MACHINES)
def test_the_hypergradient_is_that_of_finite_differences(moons, machine):
    """The machine is trained anew at each of eight neighbors; two poisons move together."""
    h, slopes = 1e-6, []
    for start in range(0, 12, 2):
        x_c, y_c = moons.x_train[start : start + 2].double() * 0.9 + 0.05, 1 - moons.y_train[start : start + 2]
        _, gradient = loss_at(moons, x_c, y_c, **MACHINES[machine])
        numeric = torch.zeros_like(x_c)
        for i in range(x_c.numel()):
            step = torch.zeros_like(x_c).view(-1).index_fill(0, torch.tensor([i]), h).view_as(x_c)
            ends = [loss_at(moons, x_c + sign * step, y_c, **MACHINES[machine])[0] for sign in (1, -1)]
            numeric.view(-1)[i] = (ends[0] - ends[1]) / (2 * h)
        slopes.append(gradient.abs().max())
        assert (gradient - numeric).abs().max() < 1e-6
    assert max(slopes) > 1e-2, "nothing but zeros was compared"


def test_a_poison_deep_in_its_own_class_has_no_slope(moons):
    model = train_svm(moons.x_train, moons.y_train, kernel=rbf(20.0), C=100.0)
    deep = moons.x_train[(model(moons.x_train)[:, 0]).argmax()][None]
    _, gradient = loss_at(moons, deep.double(), torch.tensor([0]), kernel=rbf(20.0), C=100.0)
    assert gradient.abs().max() < 1e-12


# --- the attack -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("machine", ["linear", "rbf"])
def test_a_poison_comes_near_the_worst_place_of_a_grid(moons, machine):
    """Of six starts the best: the loss has many peaks, and a walk climbs one of them."""
    axis = torch.linspace(0, 1, 11)
    places = torch.cartesian_prod(axis, axis).view(-1, 1, 2, 1, 1)
    clean = svm_walk(moons, moons.x_train[:1], moons.y_train[:1], steps=1, **MACHINES[machine]).losses[0].item()
    label = torch.tensor([1])
    worst = max(loss_at(moons, place.double(), label, **MACHINES[machine])[0] for place in places)
    starts = moons.x_train[moons.y_train == 0][:6]
    reached = max(svm_walk(moons, x[None], label, **MACHINES[machine]).losses.max() for x in starts)
    assert reached > clean + 0.9 * (worst - clean)


def test_the_poisons_are_added_within_the_budget_and_range(ones_and_sevens):
    data = ones_and_sevens
    images = data.x_train.clone()
    poisoned = svm_poisoning(data, fraction=0.01, steps=4, generator=seeded(), progress=False)
    assert poisoned.count == 2 and poisoned.is_poison[-2:].all()
    assert poisoned.x[:-2].equal(images) and poisoned.y[:-2].equal(data.y_train)
    assert data.x_train.equal(images)
    assert poisoned.x.min() >= 0 and poisoned.x.max() <= 1 and poisoned.x.dtype == images.dtype


def test_a_seed_gives_the_same_poisons_and_leaves_the_global_generator_alone(moons):
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = (
        svm_poisoning(moons, fraction=0.05, steps=3, generator=seeded(2), progress=False) for _ in range(2)
    )
    assert first.x.equal(second.x) and first.y.equal(second.y)
    assert torch.get_rng_state().equal(before) and (np.random.get_state()[1] == numpy_before).all()  # noqa: NPY002


def test_the_attack_reads_no_test_data(moons):
    spoiled = replace(moons, x_test=torch.zeros_like(moons.x_test), y_test=torch.zeros_like(moons.y_test))
    x = [svm_poisoning(d, fraction=0.04, steps=3, generator=seeded(), progress=False).x for d in (moons, spoiled)]
    assert x[0].equal(x[1])


def test_moved_poisons_hurt_where_as_many_wrong_labels_do_not(ones_and_sevens):
    data = ones_and_sevens
    poisoned = svm_poisoning(data, fraction=0.01, steps=30, generator=seeded(), progress=False)
    flips = [error(label_flip(data, fraction=0.01, generator=seeded(seed)), data) for seed in range(5)]
    assert error(poisoned, data) > max(*flips, 0.05)


@pytest.mark.oracle
@pytest.mark.parametrize("start", [0, 1])
def test_a_poison_reaches_at_least_what_arts_reaches_in_as_many_steps(ones_and_sevens, start):
    from art.attacks.poisoning import PoisoningAttackSVM
    from art.estimators.classification.scikitlearn import ScikitlearnSVC
    from sklearn.svm import SVC

    data, steps, step_size = ones_and_sevens.first(100), 6, 0.5

    def flat(x):
        return x.flatten(1).double().numpy()

    x_c, y_c = data.x_train[start : start + 1], 1 - data.y_train[start : start + 1]
    hot = np.eye(2)
    peer = PoisoningAttackSVM(
        ScikitlearnSVC(SVC(kernel="linear", C=1.0), clip_values=(0, 1)),
        step=step_size,
        eps=1e9,  # so that it takes all its steps
        x_train=flat(data.x_train),
        y_train=hot[data.y_train],
        x_val=flat(data.x_val),
        y_val=hot[data.y_val],
        max_iter=steps,
        verbose=False,
    )
    np.random.seed(0)  # noqa: NPY002, ART draws from NumPy's global state alone
    theirs = torch.from_numpy(peer.generate_attack_point(flat(x_c)[0], hot[y_c.item()])).float().view_as(x_c)
    walk = svm_walk(data, x_c, y_c, steps=steps, step_size=step_size)
    ours = walk.points[walk.losses.argmax()][None]
    losses = [loss_at(data, x.double(), y_c)[0] for x in (x_c, theirs, ours)]
    assert losses[2] > losses[1] and losses[2] > 2 * losses[0]


@pytest.mark.full
def test_the_error_grows_with_the_fraction_and_beats_label_noise(ones_and_sevens):
    data, fractions = ones_and_sevens, (0.01, 0.03, 0.06)
    poisons = [error(svm_poisoning(data, fraction=f, generator=seeded(), progress=False), data) for f in fractions]
    noise = [
        np.mean([error(label_flip(data, fraction=f, generator=seeded(s)), data) for s in range(5)]) for f in fractions
    ]
    assert poisons[0] < poisons[-1]
    assert all(ours > theirs + 0.04 for ours, theirs in zip(poisons, noise, strict=True))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fraction": 0.0}, ("fraction is 0",)),
        ({"C": 0.0}, ("C is 0",)),
        ({"kernel": "rbf"}, ("kernel is 'rbf'",)),
        ({"steps": 0}, ("steps is 0",)),
        ({"step_size": -1.0}, ("step_size is -1",)),
        ({"generator": 3}, ("generator is 3",)),
        ({"progress": "no"}, ("progress is 'no'",)),
        ({"data": None}, ("data is None", "two classes")),
    ],
)
def test_bad_input_is_named(refuses, moons, change, words):
    refuses(svm_poisoning, {"data": moons, "fraction": 0.1, "progress": False} | change, *words)


def test_ten_classes_are_refused(refuses, digits):
    refuses(svm_poisoning, {"data": digits, "fraction": 0.1}, "data has 10 classes", "only(1, 7)")


def test_bad_data_of_the_machine_is_named(refuses, moons):
    refuses(train_svm, {"x": moons.x_train, "y": torch.zeros_like(moons.y_train)}, "y has the classes [0]")
    refuses(train_svm, {"x": moons.x_train, "y": moons.y_train * 2}, "y has the classes [0, 2]")
    refuses(rbf, {"gamma": 0.0}, "gamma is 0")
    arguments = dict(zip(("x", "y", "x_val", "y_val"), [moons.x_train, moons.y_train] * 2, strict=True))
    arguments |= {"x_c": moons.x_train[:1], "y_c": torch.tensor([2])}
    refuses(svm_hypergradient, arguments, "y_c has a label 2")

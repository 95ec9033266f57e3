"""RONI by hand and beside ART's; relabeling against scikit-learn's neighbors."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from spai_lab.defenses.poisoning.roni import impact, knn_relabel, roni


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def logistic(x, y):
    """A logistic regression of two classes as a model."""
    fitted = LogisticRegression(C=1.0).fit(x.flatten(1).numpy(), y.numpy())
    w, b = torch.from_numpy(fitted.coef_[0]).float(), float(fitted.intercept_[0])
    return lambda x: torch.stack([torch.zeros(len(x)), x.flatten(1) @ w + b], 1)


class Threshold:
    """Class 1 from the brightest input of class 0 on; a model whose hits can be counted by hand."""

    def __init__(self, x, y):
        self.edge = x[y == 0].max()

    def __call__(self, x):
        return torch.stack([torch.zeros(len(x)), x.flatten() - self.edge - 1e-6], 1)


def points(*values):
    return torch.tensor(values).view(-1, 1, 1, 1)


@pytest.fixture(scope="module")
def ones_and_sevens(digits):
    return digits.only(1, 7)


@pytest.fixture(scope="module")
def flipped(ones_and_sevens):
    """60 inputs, a fifth with the wrong label, and 100 trusted ones."""
    data = ones_and_sevens
    x, y, is_poison = data.x_train[:60], data.y_train[:60].clone(), torch.arange(60) < 12
    y[is_poison] = 1 - y[is_poison]
    return x, y, is_poison, {"x_trusted": data.x_train[60:160], "y_trusted": data.y_train[60:160]}


# --- negative impact --------------------------------------------------------------------------------------------------


def test_the_impact_is_what_counting_by_hand_gives():
    """A 0 at 0.65 costs the quiz inputs of class 1 up to there, one at 0.1 none, one at 0.95 all; a 1 costs nothing."""
    x_trusted, y_trusted = points(*[0.2] * 6, 0.6, 0.7, 0.8, 0.9), torch.tensor([0] * 6 + [1] * 4)
    x, y = points(0.65, 0.1, 0.95, 0.3), torch.tensor([0, 0, 0, 1])
    found = []
    for seed in range(20):
        trusted = {"x_trusted": x_trusted, "y_trusted": y_trusted, "generator": seeded(seed)}
        found.append(impact(Threshold, x, y, **trusted, train_size=5, quiz_size=5, trials=1, progress=False))
    order = [torch.randperm(10, generator=seeded(seed)) for seed in range(20)]
    for answer, places in zip(found, order, strict=True):
        quiz = places[5:]
        quizzed = x_trusted.flatten()[quiz][y_trusted[quiz] == 1]
        expected = [-(quizzed <= edge).sum() for edge in (0.65, 0.1, 0.95)]
        assert answer.tolist() == [*map(float, expected), 0.0]


def test_flipped_labels_do_harm(flipped):
    x, y, is_poison, trusted = flipped
    found = impact(logistic, x, y, **trusted, trials=2, generator=seeded(), progress=False)
    assert found[is_poison].mean() < -0.5 < found[~is_poison].mean()


def test_most_flipped_labels_go_and_most_others_stay(flipped):
    x, y, is_poison, trusted = flipped
    keep = roni(logistic, x, y, **trusted, trials=2, generator=seeded(), progress=False)
    assert (~keep[is_poison]).float().mean() > 0.7 and keep[~is_poison].float().mean() > 0.9


def test_the_same_seed_keeps_the_same_and_nothing_else_changes(flipped):
    x, y, trusted = flipped[0][:10], flipped[1][:10], flipped[3]
    before, state = [tensor.clone() for tensor in (x, y)], torch.get_rng_state()
    settings = {"trials": 1, "progress": False, **trusted}
    first, second = (roni(logistic, x, y, generator=seeded(3), **settings) for _ in range(2))
    assert torch.equal(first, second) and torch.equal(state, torch.get_rng_state())
    assert torch.equal(before[0], x) and torch.equal(before[1], y)


@pytest.mark.oracle
def test_it_tells_poison_apart_as_well_as_art(flipped):
    """Youden's index, the true minus the false positive rate, of both on the same data and the same learner."""
    from art.defences.detector.poison import RONIDefense
    from art.estimators.classification import SklearnClassifier

    x, y, is_poison, trusted = flipped
    rows, truth = x.flatten(1).numpy(), is_poison.numpy()
    one_hot = np.eye(2, dtype=np.float32)
    indices = []
    for seed in range(2):
        np.random.seed(seed)  # noqa: NPY002, ART draws from NumPy's global state alone
        peer = RONIDefense(
            SklearnClassifier(LogisticRegression(C=1.0)),
            rows,
            one_hot[y.numpy()],
            trusted["x_trusted"][:20].flatten(1).numpy(),
            one_hot[trusted["y_trusted"][:20].numpy()],
            perf_func=lambda truth, found: float((truth.argmax(1) == found.argmax(1)).mean()),
            calibrated=False,
            eps=0.01,
        )
        dropped = np.array(peer.detect_poison()[1]) == 0
        ours = ~roni(logistic, x, y, **trusted, trials=2, generator=seeded(seed), progress=False).numpy()
        indices.append([found[truth].mean() - found[~truth].mean() for found in (ours, dropped)])
    ours, art = np.mean(indices, axis=0)
    assert ours > 0.7 and ours >= art


# --- neighbors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("neighbors", "agreement"), [(10, 0.5), (5, 0.8), (3, 1.0), (1, 0.5)])
def test_the_neighbors_vote_as_in_scikit_learn(digits, neighbors, agreement):
    x, y = digits.x_train[:400].double(), digits.y_train[:400].clone()
    y[:60] = torch.randint(10, (60,), generator=seeded())
    peer = KNeighborsClassifier(neighbors, algorithm="brute").fit(x.flatten(1).numpy(), y.numpy())
    shares = peer.predict_proba(None)  # each input by its neighbors alone
    expected = np.where(shares.max(1) >= agreement - 1e-9, peer.classes_[shares.argmax(1)], y.numpy())
    assert np.array_equal(knn_relabel(x, y, neighbors=neighbors, agreement=agreement).numpy(), expected)


def test_flipped_labels_are_mended(digits):
    y = digits.y_train.clone()
    flipped = torch.randperm(len(y), generator=seeded())[:200]
    y[flipped] = (y[flipped] + torch.randint(1, 10, (200,), generator=seeded(1))) % 10
    before = y.clone()
    mended = knn_relabel(digits.x_train, y)
    wrong = mended != digits.y_train
    assert wrong[flipped].float().mean() < 0.08 and wrong.float().mean() < 0.05 and torch.equal(before, y)


def test_a_large_set_is_judged_in_parts_as_if_it_were_one(digits):
    x, y = digits.x_train, digits.y_train
    few = knn_relabel(x, y)[1000:]
    order = torch.cat([torch.arange(1000, len(y)), torch.arange(1000)])
    assert torch.equal(knn_relabel(x[order], y[order])[: len(few)], few)


# --- bad input --------------------------------------------------------------------------------------------------------

X, Y = points(0.1, 0.2, 0.8, 0.9), torch.tensor([0, 0, 1, 1])
RONI = {
    "no function": ({"train": None}, "train is None"),
    "too few trusted": ({"x_trusted": X, "y_trusted": Y}, "at least 90"),
    "trusted of another shape": ({"x_trusted": X.repeat(25, 1, 1, 2)}, "x_trusted"),
    "no quiz": ({"quiz_size": 0}, "quiz_size is 0"),
    "one for calibration": ({"calibration": 1}, "calibration is 1"),
    "negative deviations": ({"deviations": -1}, "deviations is -1"),
    "pixels": ({"x": 255 * X}, "x has values"),
    "labels": ({"y_trusted": Y.float()}, "y_trusted is"),
}
KNN = {
    "no neighbors": ({"neighbors": 0}, "neighbors is 0"),
    "more than there are": ({"neighbors": 4}, "neighbors is 4"),
    "minority": ({"agreement": 0.4}, "agreement is 0.4"),
    "pixels": ({"x": -X}, "x has values"),
}


@pytest.mark.parametrize(("change", "words"), RONI.values(), ids=RONI)
def test_roni_refuses(refuses, change, words):
    trusted = {"x_trusted": X.repeat(25, 1, 1, 1), "y_trusted": Y.repeat(25)}
    refuses(roni, {"train": Threshold, "x": X, "y": Y, "progress": False} | trusted | change, words)


@pytest.mark.parametrize(("change", "words"), KNN.values(), ids=KNN)
def test_knn_relabel_refuses(refuses, change, words):
    refuses(knn_relabel, {"x": X, "y": Y, "neighbors": 2} | change, words)

"""Membership inference: by levels of the answer, against ART, and where there is nothing to find."""

import numpy as np
import pytest
import torch
from torch import nn

from spai_lab.attacks.privacy.membership import confidences, membership_loss, membership_shadow
from spai_lab.attacks.privacy.shadows import random_halves, train_shadows
from spai_lab.data import load
from spai_lab.metrics import caught_at, roc
from spai_lab.models import mlp
from spai_lab.query import Query

LEVELS = ("labels", "top-1", "top-3", "scores", "logits")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def scene():
    """Digits, shadow models on random halves of them, and two targets whose halves nobody is told."""
    data = load("digits")
    x, y = data.x_train[:300], data.y_train[:300]
    inside = torch.cat([random_halves(8, 300, generator=seeded(1)), random_halves(2, 300, generator=seeded(2))])
    build = lambda generator: mlp(hidden=32, generator=generator)  # noqa: E731
    settings = {"epochs": 60, "learning_rate": 3e-3, "generator": seeded(3), "progress": False}
    models = train_shadows(x, y, inside, build, **settings)
    return x, y, models.some(torch.arange(8)), [models.model(8), models.model(9)], inside[8:]


class Says(nn.Module):
    """A model that answers what it is told, whatever it sees."""

    def __init__(self, probabilities):
        super().__init__()
        self.logits = torch.tensor(probabilities).log()

    def forward(self, x):
        return self.logits[: len(x)]


TOLD = [[0.7, 0.2, 0.1], [0.05, 0.9, 0.05], [0.5, 0.3, 0.2]]
TRUE = torch.tensor([0, 0, 2])


@pytest.mark.parametrize(
    ("level", "decimals", "true", "others"),
    [
        ("scores", None, [0.7, 0.05, 0.2], [0.3, 0.95, 0.8]),
        ("logits", None, [0.7, 0.05, 0.2], [0.3, 0.95, 0.8]),
        ("scores", 1, [0.7, 0.05, 0.2], [0.3, 0.9, 0.8]),
        ("top-1", None, [0.7, 0.1, 0.5], [0.3, 0.9, 0.5]),
        ("top-2", None, [0.7, 0.05, 0.2], [0.3, 0.95, 0.8]),
        ("labels", None, [1.0, 0.0, 0.0], [0.0, 1.0, 1.0]),
    ],
)
def test_the_confidence_is_what_the_answer_tells(level, decimals, true, others):
    query = Query(Says(TOLD), level, decimals=decimals)
    found = confidences(query, query(torch.zeros(3, 1, 1, 1)), TRUE)
    for values, expected in zip(found, (true, others), strict=True):
        assert torch.allclose(values, torch.tensor(expected, dtype=torch.float64), atol=1e-6)
        assert (values > 0).all()


def test_a_class_that_is_not_shown_cannot_be_likelier_than_one_that_is():
    query = Query(Says([[0.4, 0.3, 0.2, 0.1]]), "top-2")
    true, _ = confidences(query, query(torch.zeros(1, 1, 1, 1)), torch.tensor([3]))
    assert true.item() == pytest.approx(0.3)


@pytest.mark.parametrize("level", LEVELS)
def test_members_stand_out_at_every_level(scene, level):
    x, y, shadows, targets, inside = scene
    for number, model in enumerate(targets):
        query = Query(model, level)
        assert roc(membership_loss(query, x, y), inside[number]).area > 0.52
        scores = membership_shadow(query, x, y, shadows, x, y, generator=seeded(4))
        assert roc(scores.double(), inside[number]).area > 0.52


def test_the_score_of_the_loss_is_the_loss(scene):
    x, y, _, targets, _ = scene
    expected = -nn.functional.cross_entropy(targets[0](x).double(), y, reduction="none")
    assert torch.allclose(membership_loss(Query(targets[0], "logits"), x, y), expected, atol=1e-6)


def test_a_model_that_saw_none_of_them_tells_nothing(scene):
    """The area under the curve of 150 inputs against 150 has a deviation of .034 by chance; 5 of those: 1e-6."""
    x, y, shadows, _, inside = scene
    data = load("digits")
    strangers = data.x_train[300:600], data.y_train[300:600]
    half = random_halves(2, 300, generator=seeded(5))
    settings = {"epochs": 60, "learning_rate": 3e-3, "generator": seeded(6), "progress": False}
    stranger = train_shadows(*strangers, half, lambda g: mlp(hidden=32, generator=g), **settings).model(0)
    query = Query(stranger, "scores")
    scores = [membership_loss(query, x, y), membership_shadow(query, x, y, shadows, x, y, generator=seeded(4))]
    deviation = (301 / (12 * 150 * 150)) ** 0.5
    assert all(abs(roc(s.double(), inside[0]).area - 0.5) < 5 * deviation for s in scores)


def art_classifier(model):
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(model, nn.CrossEntropyLoss(), (1, 28, 28), 10, clip_values=(0, 1))


def test_from_labels_alone_it_is_the_rule_of_art(scene):
    from art.attacks.inference.membership_inference import MembershipInferenceBlackBoxRuleBased

    x, y, _, targets, _ = scene
    theirs = MembershipInferenceBlackBoxRuleBased(art_classifier(targets[0])).infer(x.numpy(), y.numpy())
    ours = membership_loss(Query(targets[0], "labels"), x, y) > -1
    assert np.array_equal(ours.long().numpy(), theirs.ravel())


def test_shadow_models_serve_us_as_well_as_they_serve_art(scene):
    """ART's attack model learns from the same shadow models; ours may be worse by chance alone."""
    from art.attacks.inference.membership_inference import MembershipInferenceBlackBox

    x, y, shadows, targets, inside = scene
    attack = MembershipInferenceBlackBox(art_classifier(targets[0]), attack_model_type="nn", input_type="prediction")
    said = shadows.logits(x).softmax(2)
    member = shadows.inside
    labels = y.expand(len(shadows), -1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        attack.fit(
            pred=said[member].numpy(),
            y=labels[member].numpy(),
            test_pred=said[~member].numpy(),
            test_y=labels[~member].numpy(),
        )
    with torch.no_grad():
        pred = targets[0](x).softmax(1).numpy()
    theirs = attack.infer(None, y.numpy(), pred=pred, probabilities=True).ravel()
    ours = membership_shadow(Query(targets[0], "scores"), x, y, shadows, x, y, generator=seeded(4))
    areas = [roc(torch.as_tensor(scores).double(), inside[0]).area for scores in (ours, theirs)]
    assert areas[0] > areas[1] - 3 * (301 / (12 * 150 * 150)) ** 0.5


def test_a_class_without_shadow_inputs_gets_no_score(scene):
    x, y, shadows, targets, _ = scene
    known = y != 3
    part = shadows.inside[:, known]
    fewer = type(shadows)(shadows.weights, part, shadows.skeleton)
    scores = membership_shadow(Query(targets[0], "scores"), x, y, fewer, x[known], y[known], steps=5)
    assert (scores[~known] == 0).all() and (scores[known] != 0).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": nn.Flatten()}, "query is"),
        ({"x": torch.full((300, 1, 28, 28), -1.0)}, "x has values"),
        ({"y": torch.full((300,), 10)}, "y has a label 10"),
        ({"shadows": None}, "shadows is None"),
        ({"x_shadow": torch.zeros(2, 1, 28, 28), "y_shadow": torch.zeros(2, dtype=torch.int64)}, "the same 2 inputs"),
        ({"hidden": 0}, "hidden is 0"),
        ({"steps": 0}, "steps is 0"),
        ({"learning_rate": 0}, "learning_rate is 0"),
    ],
)
def test_bad_arguments_are_named(scene, change, message):
    x, y, shadows, targets, _ = scene
    good = {"query": Query(targets[0], "scores"), "x": x, "y": y, "shadows": shadows, "x_shadow": x, "y_shadow": y}
    with pytest.raises(ValueError, match=message):
        membership_shadow(**good | change)


def test_what_is_caught_is_counted_at_one_threshold_for_all_targets():
    scores = [torch.arange(100.0), torch.arange(100.0) + 1000]
    guilty = [torch.arange(100) >= 90, torch.arange(100) >= 90]
    caught = caught_at(scores, guilty, false_positives=0.1, resamples=200)
    assert (
        caught.value == 0.5
    )  # the second target's innocent use up what is allowed: 18 of 180 lie above all of the first
    assert caught.low <= caught.value <= caught.high


def test_a_rate_that_accuses_fewer_than_ten_is_refused():
    scores, guilty = [torch.rand(2000)], [torch.arange(2000) < 1000]
    with pytest.raises(ValueError, match=r"false_positives is 0\.001 of 1,000 innocent scores; accepted: a rate"):
        caught_at(scores, guilty, false_positives=0.001)
    with pytest.raises(ValueError, match="scores is of 1 targets, guilty of 2"):
        caught_at(scores, guilty * 2, false_positives=0.1)


def test_scores_without_information_are_caught_at_the_rate_of_false_alarms():
    generator = seeded(7)
    scores = [torch.rand(2000, generator=generator) for _ in range(10)]
    guilty = [torch.arange(2000) < 1000] * 10
    caught = caught_at(scores, guilty, false_positives=0.01, resamples=200)
    assert abs(caught.value - 0.01) < 5 * (2 * 0.01 * 0.99 / 10_000) ** 0.5

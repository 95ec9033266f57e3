"""Attribute inference against Bayes' rule in closed form and against ART; patients whose sex a victim has learned."""

import numpy as np
import pytest
import torch
from torch import nn

from spai_lab.attacks.privacy.attribute import (
    attribute_advantage,
    attribute_inference,
    attribute_rate,
    confusion_matrix,
    imputation,
    value_numbers,
)
from spai_lab.inversion_victims import diabetes, tabular_mlp
from spai_lab.query import Query
from spai_lab.training import accuracy, fit

VALUES = torch.tensor([0.0, 1.0])
EVEN = torch.tensor([0.5, 0.5])
TRIES = {"column": 1, "values": VALUES}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rows(count: int, columns: int = 3, share: float = 0.5, seed: int = 0) -> torch.Tensor:
    """Rows in which column 1 is 1 with probability `share`, whatever the others say."""
    x = torch.rand(count, columns, generator=seeded(seed))
    x[:, 1] = (torch.rand(count, generator=seeded(seed + 1)) < share).float()
    return x


def linear(weight: list[list[float]], bias: list[float]) -> nn.Module:
    model = nn.Linear(len(weight[0]), len(weight))
    model.weight.data, model.bias.data = torch.tensor(weight), torch.tensor(bias)
    return model


TELLTALE = linear([[0.0, 9.0, 0.0], [0.0, 0.0, 0.0]], [-4.5, 0.0])
DEAF = linear([[2.0, 0.0, 1.0], [0.0, 0.0, 0.0], [-1.0, 0.0, 3.0]], [0.0, 0.5, 0.0])


# --- closed forms -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reveals", ["labels", "scores", "logits"])
def test_a_victim_that_depends_on_the_column_alone_gives_it_away(reveals):
    x = rows(200)
    y, hidden = TELLTALE(x).argmax(1), x[:, 1].long()
    x[:, 1] = 0.5
    confusion = torch.eye(2) if reveals == "labels" else None
    query = Query(TELLTALE, reveals)
    result = attribute_inference(query, x, y, prior=EVEN, confusion=confusion, **TRIES)
    assert torch.equal(result.guess, hidden) and query.counts.tolist() == [2] * 200


@pytest.mark.parametrize("reveals", ["labels", "scores", "logits"])
def test_a_victim_that_is_deaf_to_the_column_leaves_the_prior(reveals):
    x, prior = rows(50), torch.tensor([0.3, 0.7])
    confusion = torch.full((3, 3), 1 / 3) if reveals == "labels" else None
    y = torch.arange(50) % 3
    result = attribute_inference(Query(DEAF, reveals), x, y, prior=prior, confusion=confusion, **TRIES)
    assert torch.allclose(result.score, prior.expand(50, 2), atol=1e-6) and (result.guess == 1).all()
    own = torch.rand(50, 2, generator=seeded()).add(0.1)
    own = own / own.sum(1, keepdim=True)
    result = attribute_inference(Query(DEAF, reveals), x, y, prior=own, confusion=confusion, **TRIES)
    assert torch.allclose(result.score, own, atol=1e-6)


def test_scores_follow_bayes_rule():
    """The odds of two values are the prior odds times the odds of the label, which for a logistic model are closed."""
    w, b, x, prior = 1.7, -0.4, rows(40), torch.tensor([0.2, 0.8])
    model = linear([[0.0, w, 0.0], [0.0, 0.0, 0.0]], [b, 0.0])
    y = torch.arange(40) % 2
    result = attribute_inference(Query(model, "scores"), x, y, prior=prior, **TRIES)

    def sigmoid(z):
        return 1 / (1 + np.exp(-z))

    for label in (0, 1):
        f = np.array([sigmoid(b), sigmoid(b + w)])
        joint = prior.numpy() * (f if label == 0 else 1 - f)
        assert np.allclose(result.score[y == label], joint / joint.sum(), atol=1e-6)


def test_labels_are_weighed_by_the_confusion_of_the_right_label():
    """TELLTALE says 1 for the value 0 and 0 for the value 1."""
    confusion = torch.tensor([[0.9, 0.1], [0.4, 0.6]])
    x, y = rows(2), torch.tensor([0, 1])
    score = attribute_inference(Query(TELLTALE, "labels"), x, y, prior=EVEN, confusion=confusion, **TRIES).score
    assert torch.allclose(score, torch.tensor([[0.1, 0.9], [0.6, 0.4]]), atol=1e-6)


def test_three_values_and_a_wrong_prior_that_the_victim_outweighs():
    values, x = torch.tensor([0.1, 0.5, 0.9]), rows(30)
    x[:, 1] = values[torch.arange(30) % 3]
    model = linear([[0.0, -40.0, 0.0], [0.0, 0.0, 0.0], [0.0, 40.0, 0.0]], [12.0, 0.0, -28.0])
    y = model(x).argmax(1)
    prior = torch.tensor([0.8, 0.1, 0.1])
    result = attribute_inference(Query(model, "scores"), x, y, column=1, values=values, prior=prior)
    assert torch.equal(result.guess, torch.arange(30) % 3) and torch.equal(value_numbers(x, 1, values), result.guess)


def test_what_the_hidden_column_holds_is_not_read_and_nothing_changes():
    x = rows(20)
    y, before, state = TELLTALE(x).argmax(1), x.clone(), torch.get_rng_state()
    known = attribute_inference(Query(TELLTALE, "scores"), x, y, prior=EVEN, **TRIES)
    public = rows(50, seed=5)
    imputed = imputation(public, x, **TRIES)
    assert torch.equal(x, before) and torch.equal(state, torch.get_rng_state())
    x[:, 1] = 0.123
    assert torch.equal(known.score, attribute_inference(Query(TELLTALE, "scores"), x, y, prior=EVEN, **TRIES).score)
    assert torch.equal(imputed.score, imputation(public, x, **TRIES).score)


def test_confusion_is_counted():
    """TELLTALE answers 1 - column; every count starts at 1."""
    x = rows(6)
    x[:, 1] = torch.tensor([0.0, 0, 0, 1, 1, 1])
    counted = confusion_matrix(Query(TELLTALE, "labels"), x, torch.tensor([1, 1, 0, 0, 0, 0]), classes=2)
    assert torch.allclose(counted, torch.tensor([[4 / 6, 2 / 6], [1 / 4, 3 / 4]]))


def test_advantage_is_the_difference_of_the_rates_where_values_are_as_common():
    truth = torch.tensor([0, 0, 1, 1])
    guess_in, guess_out = torch.tensor([0, 0, 1, 0]), torch.tensor([0, 1, 0, 0])
    assert attribute_advantage(guess_in, truth, guess_out, truth) == pytest.approx(0.75 - 0.25)
    assert attribute_advantage(guess_in, truth, guess_in, truth) == 0


def test_a_guess_that_ignores_the_row_has_no_advantage_whatever_the_shares():
    member, other = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1, 1, 1])
    ones = torch.ones(4, dtype=torch.int64)
    assert attribute_rate(ones, member).value != attribute_rate(ones, other).value
    assert attribute_advantage(ones, member, ones, other) == 0


# --- ART --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def patients():
    return diabetes()


@pytest.mark.oracle
def test_art_imputes_the_same(patients):
    """Both are scikit-learn's logistic regression; ART's stops after 100 iterations, ours when it has converged."""
    from art.attacks.inference.attribute_inference import AttributeInferenceBaseline

    attack = AttributeInferenceBaseline(attack_model_type="lr", attack_feature=1)
    attack.fit(patients.x_val.numpy())
    theirs = attack.infer(np.delete(patients.x_test.numpy(), 1, 1), values=[0.0, 1.0])
    ours = imputation(patients.x_val, patients.x_test, **TRIES)
    assert (VALUES[ours.guess].numpy() == theirs.ravel()).mean() > 0.98
    assert len(ours.guess.unique()) == 2


@pytest.mark.oracle
def test_art_learns_what_ours_computes():
    """The victim's own label is known. A tree that has seen 4,000 rows comes near to what Bayes' rule says at once.

    Both guess the same 1,000 rows: ART's rate may lead ours by chance alone, by less than 5 standard deviations of a
    rate, and may trail by what a tree loses against Bayes' rule.
    """
    from art.attacks.inference.attribute_inference import AttributeInferenceBlackBox
    from art.estimators.classification import PyTorchClassifier

    model = linear([[2.0, 1.0, 0.0], [0.0, 0.0, 0.0]], [-1.5, 0.0])
    x_train, x = rows(4000, share=0.4, seed=10), rows(1000, share=0.4, seed=20)
    y, hidden = model(x).argmax(1), x[:, 1].long()
    ours = attribute_inference(
        Query(model, "labels"), x, y, prior=torch.tensor([0.6, 0.4]), confusion=torch.eye(2), **TRIES
    )
    classifier = PyTorchClassifier(model, nn.CrossEntropyLoss(), (3,), 2, device_type="cpu")
    attack = AttributeInferenceBlackBox(classifier, attack_model_type="dt", attack_feature=1)
    attack.attack_model.set_params(random_state=0, min_samples_leaf=50)
    attack.fit(x_train.numpy())
    theirs = attack.infer(np.delete(x.numpy(), 1, 1), pred=y[:, None].float().numpy(), values=[0.0, 1.0])
    ours, theirs = attribute_rate(ours.guess, hidden), float((theirs.ravel() == x[:, 1].numpy()).mean())
    assert ours.value > 0.75 and ours.value - 0.05 < theirs < ours.value + 5 * 0.5 / 1000**0.5


# --- patients ---------------------------------------------------------------------------------------------------------


def test_patients_are_split_in_thirds_and_lie_in_the_unit_cube(patients):
    from sklearn.datasets import load_diabetes

    assert patients.features[1] == "sex" and (patients.y_train.bincount() - 37).abs().max() <= 1
    everything = torch.cat([patients.x_train, patients.x_val, patients.x_test])
    assert everything.min() == 0 and everything.max() == 1 and len(everything) == 442
    source = load_diabetes(scaled=False).data
    scaled = (source - source.min(0)) / (source.max(0) - source.min(0))
    assert np.allclose(np.sort(everything.numpy(), 0), np.sort(scaled, 0), atol=1e-6)


@pytest.fixture(scope="module")
def leaks(patients):
    """`leaks[epochs]`: the accuracy on training rows, and the attacker's rates on those and on other rows."""
    prior = value_numbers(patients.x_val, 1, VALUES).bincount() / len(patients.x_val)
    found = {}
    for epochs in (5, 150):
        victim = tabular_mlp(10, 4, generator=seeded())
        settings = {"epochs": epochs, "batch_size": 32, "learning_rate": 3e-3, "progress": False}
        fit(victim, patients.x_train, patients.y_train, generator=seeded(1), **settings)
        rates = []
        for x, y in ((patients.x_train, patients.y_train), (patients.x_test, patients.y_test)):
            result = attribute_inference(Query(victim, "scores"), x, y, prior=prior, **TRIES)
            rates.append(attribute_rate(result.guess, value_numbers(x, 1, VALUES)))
        found[epochs] = (accuracy(victim, patients.x_train, patients.y_train), *rates)
    return found


def test_a_victim_that_learned_by_heart_leaks_the_sex_of_its_patients_alone(patients, leaks):
    """If members were no easier than others, rates of 148 and 147 rows would differ by 0.28 once in a million runs."""
    learned, members, others = leaks[150]
    assert learned > 0.9 and members.value - others.value > 0.28
    imputed = imputation(patients.x_val, patients.x_train, **TRIES).guess
    assert members.value > attribute_rate(imputed, value_numbers(patients.x_train, 1, VALUES)).value + 0.03


def test_a_victim_that_stopped_early_leaks_less_than_imputation_says(patients, leaks):
    learned, members, _ = leaks[5]
    imputed = imputation(patients.x_val, patients.x_train, **TRIES).guess
    assert learned < 0.6 and members.value < attribute_rate(imputed, value_numbers(patients.x_train, 1, VALUES)).value


def test_imputation_may_learn_from_the_label():
    """Here the label is the column, which the others say nothing about."""
    public, x = rows(300), rows(100, seed=7)
    y_public, y = public[:, 1].long(), x[:, 1].long()
    told = imputation(public, x, y_public=y_public, y=y, **TRIES)
    assert torch.equal(told.guess, y)
    assert attribute_rate(imputation(public, x, **TRIES).guess, y).value < 0.75


# --- bad input --------------------------------------------------------------------------------------------------------

X, Y = rows(4), torch.tensor([0, 1, 0, 1])
GOOD = {"query": Query(TELLTALE, "scores"), "x_known": X, "y": Y, "prior": EVEN, **TRIES}
REFUSED = {
    "a model": ({"query": TELLTALE}, "query is"),
    "top three": ({"query": Query(TELLTALE, "top-3")}, "query reveals 'top-3'"),
    "images": ({"x_known": torch.zeros(4, 1, 1, 3)}, "x_known is"),
    "no rows": ({"x_known": X[:0], "y": Y[:0]}, "x_known is"),
    "out of range": ({"x_known": 2 * X + 1}, "x_known has values"),
    "labels for others": ({"y": Y[:3]}, "y is"),
    "label that there is not": ({"y": Y + 1}, "label 2"),
    "no such column": ({"column": 3}, "column is 3"),
    "one value": ({"values": torch.tensor([1.0])}, "values is"),
    "the same twice": ({"values": torch.tensor([1.0, 1.0])}, "values is"),
    "value out of range": ({"values": torch.tensor([1.0, 2.0])}, "values is"),
    "prior of three": ({"prior": torch.ones(3) / 3}, "prior is"),
    "prior of counts": ({"prior": torch.tensor([3.0, 7.0])}, "prior does not sum to 1"),
    "impossible value": ({"prior": torch.tensor([0.0, 1.0])}, "prior holds 0"),
    "labels without confusion": ({"query": Query(TELLTALE, "labels")}, "confusion is needed"),
    "scores with confusion": ({"confusion": torch.eye(2)}, "confusion is needed"),
    "confusion of counts": ({"query": Query(TELLTALE, "labels"), "confusion": 5 * torch.eye(2)}, "confusion does not"),
    "small confusion": ({"query": Query(TELLTALE, "labels"), "confusion": torch.ones(1, 1)}, "confusion knows 1"),
}


@pytest.mark.parametrize(("change", "words"), REFUSED.values(), ids=REFUSED)
def test_refuses(refuses, change, words):
    refuses(attribute_inference, GOOD | change, words)


PUBLIC = {"x_public": X, "x_known": X, **TRIES}


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        (imputation, PUBLIC | {"x_public": X[:, :2]}, "x_public is"),
        (imputation, PUBLIC | {"x_public": torch.zeros(4, 3)}, "values has 1, which no row"),
        (imputation, PUBLIC | {"y": Y}, "y_public and y go together"),
        (imputation, PUBLIC | {"y": Y, "y_public": Y[:2]}, "y_public is"),
        (confusion_matrix, {"query": Query(TELLTALE, "scores"), "x": X, "y": Y, "classes": 2}, "'scores'"),
        (confusion_matrix, {"query": Query(DEAF, "labels"), "x": X, "y": Y + 1, "classes": 2}, "classes knows 2"),
        (attribute_rate, {"guess": Y[:2], "hidden": Y}, "guess is"),
        (attribute_advantage, {"member_guess": Y, "member": Y, "other_guess": Y, "other": 0 * Y}, "different values"),
        (diabetes, {"classes": 1}, "classes is 1"),
        (tabular_mlp, {"features": 0, "classes": 2}, "features is 0"),
    ],
)
def test_the_others_refuse(refuses, function, arguments, words):
    refuses(function, arguments, words)

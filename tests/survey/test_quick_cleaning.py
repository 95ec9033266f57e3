"""The quick rows of defenses against poisoning: against other people's neighbors, machines and medians."""

import json
import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from sklearn.svm import SVC
from torch import nn

from spai_lab.survey.backdoor_victims import training_data
from spai_lab.survey.cleaning_headlines import HEADED, MADE_FOR, cleaned_headline
from spai_lab.survey.cleanup_jobs import (
    AGGREGATES,
    FLIPPED,
    PAIR,
    SPOILED,
    Certified,
    Crew,
    Sanitized,
    candidates,
    jobs,
    trusted_pair,
)
from spai_lab.survey.poisoning_jobs import DEGRADE
from spai_lab.survey.quick_cleaning import QUICK, aggregated, cleaned, rejected, sanitized, unlearned
from spai_lab.survey.taxonomy import load_taxonomy
from spai_lab.training.parties import vector_of

ROWS = {row.id for row in load_taxonomy() if row.part == "defenses against poisoning"}


def sound(headline) -> None:
    """What holds of every headline, whatever it measures."""
    low, high = headline.interval
    assert math.isfinite(headline.value) and low - 1e-9 <= headline.value <= high + 1e-9
    assert headline.trials >= 1 and headline.setup and headline.budget
    json.dumps(headline.row, allow_nan=False)


def test_every_row_has_an_entry_and_none_is_left_over():
    assert set(QUICK) == ROWS
    assert set(MADE_FOR) < ROWS


def cell(backdoor, success_after, **more):
    rates = {"success_before": [9, 10], "success_after": success_after, "accuracy_before": [10, 10]}
    return {"data": "digits", "backdoor": backdoor, **rates, "accuracy_after": [8, 10], **more}


def test_the_headline_is_of_the_backdoor_that_opens_most_often():
    control = {"data": "digits", "backdoor": "none", "accuracy_before": [10, 10], "accuracy_after": [7, 10]}
    cells = [control, cell("badnets", [2, 10]), cell("clean label", [7, 20], true_positives=[0, 5])]
    headline = cleaned_headline("activation_clustering", cells)
    assert (headline.value, headline.trials, headline.better) == (0.35, 20, "lower")
    assert headline.details["strongest"] == "clean label"
    assert headline.details["attacks"] == {"badnets": [2, 10], "clean label": [7, 20]}
    assert headline.details["made for it"] == "inconspicuous"
    assert headline.details["control"] == {"clean": [7, 10]}
    assert "5 % poison" in headline.setup


def test_trusted_images_are_not_those_that_are_poisoned():
    pair, trusted = trusted_pair("digits")
    assert len(pair.y_train) == len(trusted["y_trusted"]) == PAIR
    assert torch.cdist(pair.x_train.flatten(1), trusted["x_trusted"].flatten(1)).min() > 0


def test_the_neighbors_vote_is_that_of_sklearn():
    """Ten nearest others by sklearn, their majority as the label, and its machine on it."""
    pair, _ = trusted_pair("digits")
    poisoned = DEGRADE["random flips"](pair, FLIPPED, torch.Generator().manual_seed(0))
    x, y = poisoned.x.flatten(1).numpy(), poisoned.y.numpy()
    places = NearestNeighbors(n_neighbors=11).fit(x).kneighbors(x, return_distance=False)
    votes = np.array([y[[j for j in near if j != i][:10]].mean() for i, near in enumerate(places)])
    labels = np.where(votes == 0.5, 0, votes > 0.5)
    right = SVC(kernel="linear", C=1.0).fit(x, labels).predict(pair.x_test.flatten(1).numpy()) == pair.y_test.numpy()
    measured = Sanitized("digits", "random flips", poisonings=1).run(0)["knn_relabel"]
    assert measured["accuracy"] == [right.sum(), len(right)]
    assert measured["true_positives"][0] == (labels != y)[poisoned.is_poison.numpy()].sum()


def test_roni_is_judged_by_the_poisoning_that_it_lets_do_most():
    headline = sanitized(0, attacks=("random flips", "back-gradient"))
    hits = {attack: hits for attack, (hits, _) in headline.details["attacks"].items()}
    clean, trials = headline.details["clean"]
    assert headline.value == pytest.approx(100 * (clean - min(hits.values())) / trials)
    assert (headline.unit, headline.better, headline.details["strongest"]) == (
        "points",
        "lower",
        min(hits, key=hits.get),
    )
    sound(headline)


def test_who_knows_roni_adds_no_more_poison_than_the_others():
    pair, _ = trusted_pair("digits")
    poisoned = SPOILED["least impact"](pair, FLIPPED, torch.Generator().manual_seed(0))
    assert poisoned.count == len(poisoned.y) - PAIR == round(FLIPPED * PAIR)


def test_a_crew_moves_the_median_no_farther_than_numpy_says():
    torch.manual_seed(0)
    model, honest = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.randn(7, 10)
    x, y = torch.rand(8, 1, 2, 2), torch.arange(8) % 2
    crew = Crew(x, y, x, 1 - y, 3, AGGREGATES["coordinate_median"](10, 3), torch.Generator().manual_seed(0))
    sent = torch.full((10,), 99.0)
    expected = vector_of(model).numpy() + np.median([*honest.numpy(), *[sent.numpy()] * 3], axis=0)
    assert vector_of(crew.served(model, honest, sent)).numpy() == pytest.approx(expected, abs=1e-5)
    adaptive = crew.joined(model, honest, "adaptive")
    assert crew.loss(adaptive) <= crew.loss(crew.joined(model, honest, "loud")) + 0.5
    tried = candidates([sent], honest)
    assert all((update <= honest.amax(0)).all() for update in tried[len(tried) // 2 :])


def test_the_mean_falls_to_anyone_and_the_median_to_fewer():
    headline = aggregated(0, rounds=1)
    assert headline.details["undefended"][0] > 0.9 * headline.details["undefended"][1]
    assert headline.value < 0.5
    assert set(headline.details["aggregates"]) == set(AGGREGATES) and HEADED in AGGREGATES
    sound(headline)


def test_more_poison_leaves_fewer_images_certified():
    found = Certified("digits").run(0)["certified"]
    hits = [hits for hits, _ in found.values()]
    assert found == Certified("digits").run(0)["certified"]
    assert hits == sorted(hits, reverse=True)
    assert {trials for _, trials in found.values()} == {len(training_data("digits").y_test)}


def test_a_repair_is_judged_before_and_after():
    headline = cleaned("fine_pruning", ("badnets",), 0)
    assert headline.details["undefended"]["badnets"][0] > 0.9 * headline.trials
    assert headline.value == headline.details["attacks"]["badnets"][0] / headline.trials
    sound(headline)
    sound(unlearned(0, backdoors=("badnets",), rounds=1))


def test_strip_looks_at_as_few_images_as_it_is_given():
    headline = rejected(0, backdoors=("badnets",), images=16)
    assert headline.trials <= 16 and headline.details["accused"]["badnets"][1] == 16
    sound(headline)


def test_jobs_are_told_apart_by_their_keys():
    keys = [job.key for job in jobs("digits")]
    assert all(one != other for place, one in enumerate(keys) for other in keys[:place])


@pytest.mark.full
@pytest.mark.parametrize("row", sorted(QUICK))
def test_every_row_runs(row):
    sound(QUICK[row](0))

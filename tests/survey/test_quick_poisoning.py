"""The quick rows of poisoning: against a published interval, other people's machines and counts made by hand."""

import json
import math
from dataclasses import replace

import pytest
import torch
from sklearn.svm import SVC

from spai_lab.metrics import Rate
from spai_lab.survey import poisoning_jobs
from spai_lab.survey.backdoor_victims import MATRIX_BACKDOORS, PLANTS, TARGET, TESTED_ON, VICTIM_SEED, arrangement
from spai_lab.survey.poisoning_headlines import added_error
from spai_lab.survey.poisoning_jobs import DEGRADE, SEEDS, ones_and_sevens
from spai_lab.survey.quick_poisoning import QUICK, degraded, federated, foretold, planted, turned
from spai_lab.survey.taxonomy import load_taxonomy

ROWS = {row.id for row in load_taxonomy() if row.part == "poisoning"}


def sound(headline) -> None:
    """What holds of every headline, whatever it measures."""
    low, high = headline.interval
    assert math.isfinite(headline.value) and low - 1e-9 <= headline.value <= high + 1e-9
    assert headline.trials >= 1 and headline.setup and headline.budget
    json.dumps(headline.row, allow_nan=False)


def test_every_row_has_an_entry_and_none_is_left_over():
    assert set(QUICK) == ROWS


def test_the_interval_of_a_difference_is_the_one_that_newcombe_prints():
    """56 of 70 against 48 of 80: 0.2, from 0.0524 to 0.3339 by his method 10."""
    value, (low, high) = added_error(Rate(56, 70), Rate(48, 80))
    assert value == pytest.approx(20)
    assert (round(low, 2), round(high, 2)) == (5.24, 33.39)


def test_the_error_that_flips_add_is_that_of_sklearns_machine():
    headline = degraded("label_flip", 0)
    data = ones_and_sevens("digits")
    hits = 0
    for seed in range(len(SEEDS)):
        poisoned = DEGRADE["guided flips"](data, 0.1, torch.Generator().manual_seed(seed))
        machine = SVC(kernel="linear", C=1.0).fit(poisoned.x.flatten(1).numpy(), poisoned.y.numpy())
        hits += int((machine.predict(data.x_test.flatten(1).numpy()) == data.y_test.numpy()).sum())
    (clean, trials), (poisoned_hits, _) = headline.details["clean"], headline.details["poisoned"]
    assert abs(poisoned_hits - hits) <= len(SEEDS)  # images on the boundary
    assert headline.value == pytest.approx(100 * (clean - poisoned_hits) / trials)
    assert headline.value > 100 * (clean - headline.details["by chance"]["random flips"][0]) / trials
    sound(headline)


def test_labels_of_the_test_set_only_judge(monkeypatch):
    """With all of them wrong, the same machines are counted the other way around."""

    def turned_over(name):
        data = ones_and_sevens(name)
        return replace(data, y_test=1 - data.y_test)

    monkeypatch.setattr(poisoning_jobs, "VICTIMS", {"SVM": poisoning_jobs.VICTIMS["SVM"]})
    job = poisoning_jobs.Degraded("digits", "1 against 7", "guided flips", 0.1)
    right, trials = job.run(0)["accuracy_after"]["SVM"]
    monkeypatch.setitem(poisoning_jobs.TASKS, "1 against 7", turned_over)
    assert job.run(0)["accuracy_after"]["SVM"] == [trials - right, trials]


def test_a_backdoor_opens_as_often_as_one_counts_by_hand():
    headline = planted("badnets", 0)
    data, train = arrangement("badnets", "digits")
    poisoned = PLANTS["badnets"](data, MATRIX_BACKDOORS["badnets"], torch.Generator().manual_seed(0))
    model = train(poisoned.within(data), VICTIM_SEED)
    x, y = data.sample(TESTED_ON)
    x, mask = x[y != TARGET], poisoned.trigger.mask
    with torch.no_grad():
        answers = model(torch.where(mask == 1, poisoned.trigger.pattern, x)).argmax(1)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert (headline.value, headline.trials) == ((answers == TARGET).double().mean().item(), len(x))
    assert headline.details["without the backdoor"]["success_before"][0] <= 5
    sound(headline)


def test_only_the_large_update_replaces_the_model():
    headline = federated(0)
    assert headline.value > 0.9 > 0.1 > Rate(*headline.details["as large as the others"]["success"]).value
    assert headline.row == federated(0).row
    sound(headline)


def test_a_target_is_asked_of_every_victim_and_alike_with_the_same_seed():
    headline = turned("feature_collision", 0, targets=1)
    assert 1 <= headline.trials <= len(SEEDS)
    assert headline.row == turned("feature_collision", 0, targets=1).row
    sound(headline)


def test_influence_foretells_what_leaving_out_does():
    assert foretold(0, left_out=4) > 0.5


@pytest.mark.full
@pytest.mark.parametrize("row", sorted(QUICK))
def test_every_row_runs(row):
    headline = QUICK[row](0)
    assert headline.better == "higher"
    sound(headline)

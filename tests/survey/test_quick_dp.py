"""The quick rows of differential privacy: promises by hand, closed forms, and labels that only judge."""

import json
import math
from dataclasses import replace
from functools import partial

import pytest

from spai_lab.survey import private_jobs, quick_dp
from spai_lab.survey.full_dp import CLAIM, EPSILON, FULL, SHARED
from spai_lab.survey.quick_dp import QUICK, audit, mechanisms, private, selective, teachers
from spai_lab.survey.taxonomy import load_taxonomy
from spai_lab.survey.together_jobs import Selective

ROWS = {row.id: row for row in load_taxonomy() if row.part == "differential privacy"}
LEARNED = ["dp_sgd", "objective_perturbation", "functional_mechanism", "pate"]
FAST = {
    "mechanisms": partial(mechanisms, answers=2000),
    "selective_sgd": partial(selective, trainings=1),
    "accounting": QUICK["accounting"],
    "objective_perturbation": QUICK["objective_perturbation"],
    "functional_mechanism": QUICK["functional_mechanism"],
    "dp_audit": partial(audit, runs=400, bugged=2000),
}


def test_every_row_has_an_entry_and_none_is_left_over():
    assert sorted(QUICK) == sorted(FULL) == sorted(ROWS)


@pytest.mark.parametrize("name", FAST)
def test_a_row_runs_its_functions(name, uncalled):
    headline, missing = uncalled(ROWS[name], partial(FAST[name], 0))
    assert not missing
    assert_sound(headline)


@pytest.mark.parametrize("name", ["mechanisms", "objective_perturbation", "functional_mechanism"])
def test_the_same_seed_gives_the_same_headline(name):
    assert FAST[name](3).row == FAST[name](3).row


def test_the_same_seed_gives_the_same_noisy_gradients():
    job = Selective("digits", SHARED, turns=3, trainings=1)
    assert job.run(3) == job.run(3) != job.run(4)


def test_teachers_promise_what_the_others_do(monkeypatch):
    monkeypatch.setattr(quick_dp, "ENSEMBLES", quick_dp.ENSEMBLES[:1])
    monkeypatch.setattr(quick_dp, "TRIES", 1)
    headline = teachers(0, trainings=2)
    assert_sound(headline)
    assert headline.details["epsilon"] == pytest.approx(EPSILON, rel=1e-6)
    assert headline.trials == 2 and headline.details["public images"] == 50


def test_few_runs_prove_less_than_is_claimed_and_refute_a_bug():
    """The bug divides the noise by 20 once too often; 1,000 runs of each kind without an error prove 4 or more."""
    headline = audit(0, runs=4000, bugged=4000)
    assert 0 < headline.value < CLAIM and not headline.details["refuted"]
    assert all(proved > CLAIM for proved in headline.details["proved of code with a bug"].values())


def test_labels_of_the_test_set_choose_nothing(monkeypatch):
    """Another test part, another accuracy, and the same settings and the same promise."""
    honest = private("objective_perturbation", 0)
    load = private_jobs.load

    def mislabeled(name):
        data = load(name)
        return replace(data, y_test=9 - data.y_test)

    monkeypatch.setattr(private_jobs, "load", mislabeled)
    private_jobs.records.cache_clear()
    fooled = private("objective_perturbation", 0)
    private_jobs.records.cache_clear()
    assert fooled.value == pytest.approx(1 - honest.value) and fooled.budget == honest.budget


@pytest.mark.full
@pytest.mark.parametrize("name", QUICK)
def test_every_row_runs(name, uncalled):
    headline, missing = uncalled(ROWS[name], partial(QUICK[name], 0))
    assert not missing
    assert_sound(headline)
    if name in LEARNED:
        assert headline.details["chance"] < headline.value
        assert headline.details["epsilon"] == pytest.approx(EPSILON, rel=1e-6)


def assert_sound(headline):
    """A headline is finite, and its interval holds it."""
    assert math.isfinite(headline.value)
    if headline.interval is not None:
        low, high = headline.interval
        assert low - 1e-9 <= headline.value <= high + 1e-9
    json.dumps(headline.row, allow_nan=False)

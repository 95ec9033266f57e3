"""Headlines of differential privacy that are read from kept measurements, against the files and a second accountant."""

import json
import math

import pytest
from dp_accounting import dp_event
from dp_accounting.rdp import RdpAccountant

from spai_lab.files import data_folder
from spai_lab.survey.dp_headlines import DELTA, SETTING, SIGMA, accounting_headline
from spai_lab.survey.full_dp import CLAIM, EPSILON, FULL
from spai_lab.survey.taxonomy import load_taxonomy

ROWS = [row.id for row in load_taxonomy() if row.part == "differential privacy"]
LEARNED = ["dp_sgd", "objective_perturbation", "functional_mechanism", "pate"]


def rows(name, **key):
    found = json.loads((data_folder() / "results" / f"{name}.json").read_text())["rows"]
    return [row for row in found if all(row.get(field) == value for field, value in key.items())]


def test_every_row_has_an_entry_and_none_is_left_over():
    assert sorted(FULL) == sorted(ROWS)


@pytest.mark.parametrize("row", FULL)
def test_headlines_are_finite(row):
    headlines = FULL[row]()
    assert headlines
    for each in headlines:
        assert math.isfinite(each.value)
        assert each.interval is None or each.interval[0] <= each.value <= each.interval[1] + 1e-9
        json.dumps(each.row, allow_nan=False)


@pytest.mark.parametrize("row", LEARNED)
def test_methods_are_compared_at_one_promise_and_lie_between_chance_and_no_privacy(row):
    for each in FULL[row]():
        assert each.details["epsilon"] == pytest.approx(EPSILON) and each.details["delta_dp"] <= 1.0001e-5
        assert each.details["adjacency"] == "replace"
        assert each.details["chance"] < each.value < each.details["without privacy"]


def test_accuracies_are_those_of_the_file():
    key = {"records": 50_000, "task": "ten digits", "epsilon": EPSILON}
    (found,) = rows("private_mnist", kind="private", method="PATE", **key)
    shares = [hits / trials for hits, trials in found["accuracy"]]
    assert FULL["pate"]()[1].value == pytest.approx(sum(shares) / len(shares))


def test_the_account_is_that_of_another_library():
    accountant = RdpAccountant()
    step = dp_event.PoissonSampledDpEvent(SETTING["sampling_rate"], dp_event.GaussianDpEvent(SIGMA))
    accountant.compose(step, SETTING["steps"])
    headline = accounting_headline()
    assert headline.value == pytest.approx(accountant.get_epsilon(DELTA), rel=0.005)
    others = headline.details
    assert headline.value == others["by its Renyi curve"] < others["by the older conversion"]
    assert others["noise that the epsilon asks for"] == pytest.approx(SIGMA)
    assert others["by advanced composition"]["epsilon"] > headline.value


def test_an_audit_proves_less_than_is_claimed_of_right_code_and_more_of_a_bug():
    (headline,) = FULL["dp_audit"]()
    assert headline.value < headline.details["proved if Gaussian"] < headline.details["claimed"] == pytest.approx(CLAIM)
    assert not headline.details["refuted"]
    assert all(proved > CLAIM for proved in headline.details["proved of code with a bug"].values())


def test_sharing_noise_costs_accuracy_and_a_promise_of_thousands():
    for each in FULL["selective_sgd"]():
        others = each.details["others"]
        assert each.value < others["the largest tenth"]["accuracy"]
        assert each.details["epsilon"] > 1000 and others["everything"]["epsilon"] is None

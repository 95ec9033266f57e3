"""The full rows of poisoning: they say what the kept files say, read here without the package."""

import json
import math

import pytest

from spai_lab.data import load
from spai_lab.metrics import wilson
from spai_lab.survey.full_poisoning import FULL, kept_on, only
from spai_lab.survey.poisoning_jobs import SEEDS
from spai_lab.survey.taxonomy import load_taxonomy

ROWS = {row.id for row in load_taxonomy() if row.part == "poisoning"}


def kept_rows(root, name, **key):
    rows = json.loads((root / "data" / "results" / f"{name}.json").read_text(encoding="utf-8"))["rows"]
    return [row for row in rows if row.items() >= key.items()]


def test_every_row_has_an_entry_and_none_is_left_over():
    assert set(FULL) == ROWS


@pytest.mark.parametrize("row", sorted(FULL))
def test_every_headline_is_sound_and_one_for_each_data_set(row):
    headlines = FULL[row]()
    named = [headline.details["data"] for headline in headlines]
    assert named and named == [name for name in ("digits", "mnist") if name in named]
    for headline in headlines:
        low, high = headline.interval
        assert math.isfinite(headline.value) and low - 1e-9 <= headline.value <= high + 1e-9
        assert headline.better == "higher" and headline.trials >= 1
        assert ("measured on digits only" in headline.setup) == (named == ["digits"])
        json.dumps(headline.row, allow_nan=False)


def test_what_is_measured_on_one_data_set_says_so():
    assert kept_on("backdoors", kind="success", backdoor="badnets", fraction=0.4) == {}
    assert (only(["digits"]), only(["digits", "mnist"])) == ("; measured on digits only", "")


def test_the_error_is_that_of_the_file(root):
    (kept,) = kept_rows(root, "poisoning_digits", task="1 against 7", attack="guided flips", fraction=0.1)
    (before, trials), (after, _) = kept["accuracy_before"]["SVM"], kept["accuracy_after"]["SVM"]
    headline = FULL["label_flip"]()[0]
    images = len(load("digits").only(1, 7).y_test)
    assert (headline.unit, headline.trials) == ("points", images) and trials == len(SEEDS) * images
    assert headline.value == pytest.approx(100 * (before - after) / trials)


def test_successes_are_those_of_the_files(root):
    (kept,) = kept_rows(root, "poisoning_digits", attack="gradient matching")
    headline, (hits, trials) = FULL["gradient_matching"]()[0], kept["success"]
    assert headline.value == hits / trials and headline.trials == kept["targets"] < trials
    assert headline.interval == wilson(hits / trials, kept["targets"])
    for headline, name in zip(FULL["badnets"](), ("digits", "mnist"), strict=True):
        (kept,) = kept_rows(root, f"backdoors_{name}", kind="success", backdoor="badnets", fraction=0.03)
        assert [round(headline.value * headline.trials), headline.trials] == kept["success_after"]

"""Headlines of attacks on privacy that are read from kept measurements, against the files themselves."""

import json
import math

import pytest

from spai_lab.files import data_folder
from spai_lab.survey.full_threats import FULL
from spai_lab.survey.taxonomy import load_taxonomy
from spai_lab.survey.threat_headlines import CONTROL

ROWS = [row.id for row in load_taxonomy() if row.part == "threats"]
NO_IMAGES = {"attribute_inference", "memorization"}


def rows(name, **key):
    found = json.loads((data_folder() / "results" / f"{name}.json").read_text())["rows"]
    return [row for row in found if all(row.get(field) == value for field, value in key.items())]


def test_every_row_has_an_entry_and_none_is_left_over():
    assert sorted(FULL) == sorted(ROWS)


@pytest.mark.parametrize("row", FULL)
def test_headlines_are_finite_and_stand_beside_their_control(row):
    headlines = FULL[row]()
    assert len(headlines) == 1 if row in NO_IMAGES else len(headlines) >= 2
    for each in headlines:
        assert math.isfinite(each.value) and each.better == "higher"
        low, high = each.interval
        assert low <= each.value <= high + 1e-9  # Wilson's ends at 1 but for rounding
        assert 0 <= each.details[CONTROL] < each.value
        json.dumps(each.row, allow_nan=False)
    assert len({each.setup for each in headlines}) == len(headlines)


def test_every_data_set_is_named_in_the_set_up():
    for row in set(FULL) - NO_IMAGES:
        setups = " ".join(each.setup for each in FULL[row]())
        assert "digits" in setups and "MNIST" in setups
    assert "faces" in FULL["model_inversion"]()[-1].setup and "faces" in FULL["gradient_leakage"]()[-1].setup


@pytest.mark.parametrize(("attack", "row"), [("loss", "membership_loss"), ("shadow models", "membership_shadow")])
def test_members_are_those_of_the_file(attack, row):
    for each, name in zip(FULL[row](), ("digits", "mnist"), strict=True):
        first = rows(f"membership_{name}", kind="members", level="logits")[0]
        assert each.value == first["attacks"][attack]["caught"]["0.01"][0]
        assert each.trials == first["accuracy"]["members"][1]


def test_counts_are_those_of_the_files():
    (found,) = rows("inversion_faces", kind="inversion", victim="mlp", access="white-box")
    assert FULL["model_inversion"]()[-1].value == found["identified"][0] / 40
    (found,) = rows("extraction_mnist", kind="learned", strategy="natural", level="labels")
    hits, trials = found["agree"]["2500"]
    assert FULL["extraction_learning"]()[1].value == hits / trials
    drawn = rows("secrets_mnist", kind="drawn", clip=None, absent=False)[0]["taken"]
    assert FULL["gan_attack"]()[1].value == pytest.approx(sum(drawn) / len(drawn))
    exposures = [row["exposure"] for row in rows("secrets_digits", kind="memorized", insertions=4)]
    assert FULL["memorization"]()[0].value == pytest.approx(sum(exposures) / len(exposures))

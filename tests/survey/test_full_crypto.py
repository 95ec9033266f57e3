"""Headlines of cryptography that are read from kept measurements, against the files themselves."""

import json
import math

import pytest

from spai_lab.files import data_folder
from spai_lab.survey.full_crypto import FULL
from spai_lab.survey.taxonomy import load_taxonomy

ROWS = [row.id for row in load_taxonomy() if row.part == "cryptography"]
BLOCKS = ["paillier", "ckks", "secret_sharing", "oblivious_transfer", "garbled_circuit"]
PROTOCOLS = ["cryptonets", "secureml", "hybrid_inference", "federated"]


def rows(name, **key):
    found = json.loads((data_folder() / "results" / f"{name}.json").read_text())["rows"]
    return [row for row in found if all(row.get(field) == value for field, value in key.items())]


def test_every_row_has_an_entry_and_none_is_left_over():
    assert sorted(FULL) == sorted(ROWS) == sorted(BLOCKS + PROTOCOLS)


@pytest.mark.parametrize("row", BLOCKS)
def test_building_blocks_are_told_in_seconds_with_their_bytes(row):
    (headline,) = FULL[row]()
    assert headline.unit == "s" and headline.better == "lower" and headline.interval is None
    assert 0 < headline.value < math.inf
    assert any(name.startswith("bytes") for name in headline.details)
    json.dumps(headline.row, allow_nan=False)


@pytest.mark.parametrize("row", PROTOCOLS)
def test_protocols_are_told_by_what_is_left_of_the_accuracy(row):
    headlines = FULL[row]()
    assert ["digits" in each.setup for each in headlines] == [True, False]
    assert "MNIST" in headlines[1].setup
    for each in headlines:
        assert each.unit == "" and each.interval[0] <= each.value <= each.interval[1] + 1e-9 and each.better == "higher"
        assert any(name.startswith("bytes") for name in each.details)
        assert any(name.startswith("seconds") for name in each.details)
        json.dumps(each.row, allow_nan=False)


def test_protection_costs_no_accuracy():
    for row, clear in (("cryptonets", "accuracy in the clear"), ("federated", "accuracy, every update seen")):
        for each in FULL[row]():
            assert each.value == pytest.approx(each.details[clear], abs=0.01)
            assert each.details["agree"] == 1
    for each in FULL["hybrid_inference"]():
        assert each.value == 1
    for each in FULL["secureml"]():
        assert each.value == pytest.approx(each.details["accuracy in plain fixed point"], abs=0.01)
        assert all(one["agree"][0] == one["agree"][1] for one in each.details["inference"].values())


def test_counts_are_those_of_the_files():
    (found,) = rows("encrypted_mnist", kind="batch", library="ours", network="CryptoNets")
    hits, trials = found["encrypted"]
    assert (FULL["cryptonets"]()[1].value, FULL["cryptonets"]()[1].trials) == (hits / trials, trials)
    (found,) = rows("parties_mnist", kind="training")
    assert FULL["secureml"]()[1].value == found["shares"][0] / found["shares"][1]
    (found,) = rows("blocks_digits", kind="paillier block")
    assert FULL["paillier"]()[0].value == found["each"]["encrypt"]

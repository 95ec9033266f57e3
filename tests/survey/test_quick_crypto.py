"""The quick rows of cryptography: the same answer as in the clear, at settings of a second or two."""

import json
import math
from functools import partial

import pytest

from spai_lab.metrics import Rate
from spai_lab.survey import encrypted_networks, parties_jobs
from spai_lab.survey.block_jobs import CkksBlock, GarbledBlock, SharingBlock, TransferBlock
from spai_lab.survey.crypto_headlines import (
    ckks_headline,
    federated_headline,
    garbled_headline,
    sharing_headline,
    transfer_headline,
)
from spai_lab.survey.full_crypto import FULL
from spai_lab.survey.quick_crypto import QUICK, block, cryptonets, hybrid, secureml
from spai_lab.survey.taxonomy import load_taxonomy
from spai_lab.survey.together_jobs import Federated

ROWS = {row.id: row for row in load_taxonomy() if row.part == "cryptography"}
FAST = {
    "ckks": partial(block, CkksBlock(8192, 2, 1), ckks_headline),
    "secret_sharing": partial(block, SharingBlock(100), sharing_headline),
    "oblivious_transfer": partial(block, TransferBlock(8, 200), transfer_headline),
    "garbled_circuit": partial(block, GarbledBlock(8, 10), garbled_headline),
    "secureml": partial(secureml, count=3, examples=128, epochs=1),
    "hybrid_inference": partial(hybrid, count=3),
    "federated": partial(block, Federated("digits", 3, 60, 2, hidden=4), federated_headline),
}


@pytest.fixture(autouse=True)
def short_trainings(monkeypatch, request):
    """Few epochs where the networks need not be good, and networks that are trained anew."""
    if request.node.get_closest_marker("full"):
        yield
        return
    monkeypatch.setitem(parties_jobs.TRAINING, "digits", {"epochs": 8, "learning_rate": 1e-2})
    monkeypatch.setitem(encrypted_networks.EPOCHS, "digits", 2)
    for module in (parties_jobs, encrypted_networks):
        module.trained.cache_clear()
    yield
    for module in (parties_jobs, encrypted_networks):
        module.trained.cache_clear()


def test_every_row_has_an_entry_and_none_is_left_over():
    assert sorted(QUICK) == sorted(FULL) == sorted(ROWS)


@pytest.mark.parametrize("name", FAST)
def test_a_row_runs_its_functions(name, uncalled):
    headline, missing = uncalled(ROWS[name], partial(FAST[name], 0))
    assert not missing
    assert_sound(headline)


def test_answers_are_those_of_the_clear():
    headline = hybrid(0, 4)
    assert (headline.value, headline.trials) == (1.0, 4)
    assert headline.interval == pytest.approx(Rate(4, 4).interval)
    assert headline.details["logits exactly alike"] == [4, 4]
    trained = secureml(0, 4, 128, 1)
    assert trained.value == pytest.approx(trained.details["accuracy in plain fixed point"], abs=0.01)
    (inference,) = trained.details["inference"].values()
    assert inference["agree"] == [4, 4]


@pytest.mark.full
def test_encrypted_images_get_the_class_of_plain_ones():
    headline = cryptonets(0, 2)
    details = headline.details
    assert headline.trials == 2 and details["agree"] == 1
    assert 0 < details["largest error"] < details["bound on it"]
    assert details["single images"]["64-32-10"]["agree"] == [2, 2]


def test_the_same_seed_gives_the_same_accuracy():
    """Keys, shares and masks are drawn anew each time; seconds differ."""
    first, second = (FAST["federated"](1) for _ in range(2))
    assert (first.value, first.trials, first.interval) == (second.value, second.trials, second.interval)
    assert first.details["agree"] == second.details["agree"]


@pytest.mark.full
@pytest.mark.parametrize("name", QUICK)
def test_every_row_runs(name, uncalled):
    headline, missing = uncalled(ROWS[name], partial(QUICK[name], 0))
    assert not missing
    assert_sound(headline)


def assert_sound(headline):
    """A headline is finite, all that should be right is, and its interval holds the value."""
    assert math.isfinite(headline.value) and headline.value > 0
    assert all(headline.details.get(name, 1.0) == 1 for name in ("exact", "right", "right, extended", "agree"))
    if headline.interval is not None:
        low, high = headline.interval
        assert low - 1e-9 <= headline.value <= high + 1e-9
    json.dumps(headline.row, allow_nan=False)

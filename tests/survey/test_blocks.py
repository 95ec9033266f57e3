"""What no other family measures: closed forms of errors, bytes and promises, at settings of a second."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from spai_lab.crypto.circuits_words import adder
from spai_lab.crypto.garbled_circuit_parties import garbled_cost
from spai_lab.crypto.oblivious_transfer import ot_cost
from spai_lab.crypto.oblivious_transfer_extension import extended_cost
from spai_lab.data import load
from spai_lab.survey import block_jobs as blocks
from spai_lab.survey.block_jobs import (
    CkksBlock,
    GarbledBlock,
    PaillierBlock,
    SharingBlock,
    TransferBlock,
    both,
    clocked,
)
from spai_lab.survey.block_tables import HEADLINES, block_table, guessed_table, selective_table
from spai_lab.survey.headline_rows import fresh, kept, of_runs
from spai_lab.survey.measure import load_measurement
from spai_lab.survey.together_jobs import SHARING, Federated, Mechanisms, Selective, block_jobs, commonest

FALSE_ALARM = 1e-6
Z = stats.norm.isf(FALSE_ALARM / 2)
IMAGES = ["digits", "mnist"]


# --- building blocks --------------------------------------------------------------------------------------------------


def test_paillier_is_exact_and_a_ciphertext_is_twice_as_long_as_the_key(monkeypatch):
    from spai_lab.crypto.paillier_keys import generate_key

    monkeypatch.setattr(blocks, "generate_key", lambda bits: generate_key(bits, for_learning=True))
    row = PaillierBlock(512, 3).run(0)
    assert row["exact"] == [9, 9]
    assert 2 * 512 / 8 <= row["bytes"] < 2 * 512 / 8 + 64
    assert all(seconds > 0 for seconds in row["each"].values())


def test_ckks_stays_within_its_own_bound():
    row = CkksBlock(8192, 2, 2).run(0)
    assert 0 < row["largest_error"] < row["error_bound"] < 0.01
    assert row["bytes"] >= 2 * 8192 * (30 + 28 + 28) / 8 and row["slots"] == 4096


def test_shares_are_right_and_a_product_opens_two_numbers():
    row = SharingBlock(1000).run(0)
    assert row["right"] == [4000, 4000]
    assert row["rounds"] == 2
    assert all(16 <= each < 17 for each in row["bytes"])  # e and f, 8 bytes each, and the frame


def test_transfers_cost_what_the_protocol_says():
    row = TransferBlock(20, 300).run(0)["transfers"]
    for name, cost in (("base", ot_cost(20, 16)), ("extended", extended_cost(300, 16))):
        n = row[name]["right"][1]
        assert row[name]["right"] == [n, n]
        assert np.round(n * np.array(row[name]["bytes"])).tolist() == [cost.sender_bytes, cost.receiver_bytes]
        assert row[name]["rounds"] == cost.rounds


def test_garbled_sums_are_right_and_cost_what_the_protocol_says():
    row = GarbledBlock(8, 20).run(0)
    cost = garbled_cost(adder(8), 20, 8)
    assert row["right"] == [40, 40] and row["ands"] == adder(8).ands
    assert np.round(20 * row["ands"] * np.array(row["bytes"])).tolist() == [cost.sender_bytes, cost.receiver_bytes]
    assert row["rounds"] == cost.rounds


@pytest.mark.parametrize(
    ("name", "broken", "job"),
    [
        ("truncate", lambda x, places, party: x, SharingBlock(100)),
        ("multiply", lambda link, x, y: x, SharingBlock(100)),
        ("shamir_reconstruct", lambda points, shares, threshold: shares[0], SharingBlock(100)),
    ],
)
def test_a_wrong_operation_is_counted(monkeypatch, name, broken, job):
    monkeypatch.setattr(blocks, name, broken)
    right, all_of_them = job.run(0)["right"]
    assert right < all_of_them


def test_a_clock_gives_results_in_order_and_the_median():
    results, seconds = clocked(lambda x: x + 1, [(1,), (2,), (3,)])
    assert results == [2, 3, 4] and seconds >= 0


def test_bytes_of_both_parties_are_counted():
    results, _, sent, rounds = both(lambda c: c.send("number", 1), lambda c: c.receive("number", int))
    assert results == [None, (1,)] and sent[0] > 0 == sent[1] and rounds == 1


# --- one question -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [0.5, 1.0])
def test_errors_of_a_count_are_those_of_the_closed_forms(epsilon):
    """Each mean within 4.9 of its own standard errors; the normal stands for the sum of coins."""
    row = Mechanisms("digits", epsilon, 4000).run(0)
    for name, found in row["errors"].items():
        assert abs(found["mean"] - found["expected"]) < Z * found["deviation"] / math.sqrt(found["answers"]), name
    named, answers = row["commonest"]
    assert stats.binomtest(named, answers, row["commonest expected"]).pvalue > FALSE_ALARM
    assert row["count"] == int((load("digits").y_train == 7).sum())


def test_too_little_noise_is_noticed(monkeypatch):
    from spai_lab.privacy.mechanisms import laplace_mechanism
    from spai_lab.survey import together_jobs

    def half(value, *, sensitivity, **settings):
        return laplace_mechanism(value, sensitivity=sensitivity / 2, **settings)

    monkeypatch.setattr(together_jobs, "laplace_mechanism", half)
    found = Mechanisms("digits", 1.0, 4000).run(0)["errors"]["laplace"]
    assert abs(found["mean"] - found["expected"]) > Z * found["deviation"] / math.sqrt(found["answers"])


# --- learning together ------------------------------------------------------------------------------------------------


def test_a_promise_counts_every_number_of_every_turn():
    """Basic composition by hand: turns, times a tenth of the weights, times the epsilon of a number."""
    row = Selective("digits", "a noisy tenth, 10 each", participants=3, turns=4, trainings=1).run(0)
    assert row["epsilon"] == row["took_part"] * (row["parameters"] // 10) * 10.0
    assert row["took_part"] <= 4 and row["parameters"] == 784 * 10 + 10
    plain = Selective("digits", "the largest tenth", participants=3, turns=4, trainings=1).run(0)
    assert plain["epsilon"] is None and plain["epsilon_each"] is None


def test_a_server_that_sees_no_update_comes_to_the_same_model():
    row = Federated("digits", 3, 60, 2, hidden=4).run(0)
    assert row["largest_difference"] < 1e-6 and row["difference after they left"] < 1e-6
    assert row["plain"] == row["secure"] and row["agree"][0] == row["agree"][1]
    assert row["client_bytes"] > 8 * row["parameters"]
    assert row["left"] == [1, 3]


def test_the_commonest_answer_is_counted_by_hand():
    x = torch.rand(30, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
    answers = np.argmax(model(x).detach().numpy(), axis=1)
    assert commonest(model, x) == [np.unique(answers, return_counts=True)[1].max(), 30]


# --- what was kept ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", IMAGES)
def test_kept_rows_are_right(name):
    for job in block_jobs(name):
        row = kept(f"blocks_{name}", **job.key)
        for key in ("exact", "right", "agree"):
            if key in row:
                assert row[key][0] == row[key][1], key
        for way in row.get("transfers", {}).values():
            assert way["right"][0] == way["right"][1]
    guessed = kept(f"blocks_{name}", kind="guessed")
    assert all(1 / 10 <= hits / trials < 0.2 for hits, trials in (guessed["regression"], guessed["lenet"]))


@pytest.mark.parametrize("name", IMAGES)
def test_every_kind_of_row_is_in_a_table(name):
    measurement = load_measurement(f"blocks_{name}")
    kinds = {row["kind"] for row in measurement["rows"]}
    assert kinds - set(HEADLINES) == {"selective", "guessed"}
    assert len(block_table(measurement)) == sum(row["kind"] in HEADLINES for row in measurement["rows"])
    assert len(selective_table(measurement)) == len(SHARING) and len(guessed_table(measurement)) == 2


def test_no_result_has_the_name_of_a_field():
    """Else a row would not fit its job any more, and be measured again each time."""
    for job in (SharingBlock(10), TransferBlock(2, 10), GarbledBlock(2, 2), Mechanisms("digits", 1.0, 20)):
        assert fresh(job, 0).items() >= job.key.items()
    for name in IMAGES:
        rows = load_measurement(f"blocks_{name}")["rows"]
        assert len(rows) == len(block_jobs(name))


def test_a_mean_of_runs_has_the_interval_of_student():
    values = [0.5, 0.6, 0.9]
    headline = of_runs("accuracy", values, setup="a", budget="b", better="higher")
    expected = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert headline.interval == pytest.approx(expected) and headline.trials == 3
    bounded = of_runs("accuracy", values, setup="a", budget="b", better="higher", low=0.0, high=1.0)
    assert bounded.interval == (max(0.0, expected[0]), min(1.0, expected[1]))
    assert of_runs("accuracy", [0.5], setup="a", budget="b", better="higher").interval is None

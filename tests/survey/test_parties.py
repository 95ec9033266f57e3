"""What was measured between parties: rows of each kind agree with what is computed in the clear, and what was kept."""

import numpy as np
import pytest

from spai_lab.crypto.fixed_network import fixed_logits, fixed_network
from spai_lab.crypto.network_time import LAN, WAN
from spai_lab.crypto.relu_networks import relu_network
from spai_lab.data import load
from spai_lab.metrics import Rate
from spai_lab.survey import parties_jobs
from spai_lab.survey.ledger import published
from spai_lab.survey.measure import is_row_of, load_measurement, row_of, rows_of_kind
from spai_lab.survey.parties_jobs import Aggregated, Hybrid, OnSharedExamples, OnShares, right
from spai_lab.survey.parties_jobs import parties_jobs as jobs_of
from spai_lab.survey.parties_tables import (
    aggregation_table,
    duration,
    inference_table,
    laps_of,
    layer_table,
    logs_of,
    parties_compared,
    traffic_table,
    training_table,
)


@pytest.fixture
def quick(monkeypatch):
    """Few epochs, and models that are trained anew."""
    monkeypatch.setitem(parties_jobs.TRAINING, "digits", {"epochs": 8, "learning_rate": 1e-2})
    parties_jobs.trained.cache_clear()
    yield
    parties_jobs.trained.cache_clear()


def counts(row):
    """Bytes by the laps of both ends and by both logs."""
    by_laps = [sum(each.bytes_sent for each in laps) for laps in laps_of(row)]
    by_logs = [sum(size for *_, outgoing, _, size in log if outgoing) for log in row["logs"]]
    return by_laps, by_logs


def test_hybrid_inference_is_exact_and_its_costs_add_up(quick):
    row = Hybrid("digits", 3).run(0)
    assert row["exact"] == row["agree"] == [3, 3] and row["largest_error"] == 0
    assert all(agreed >= needed for agreed, needed in zip(row["agreed_bits"], row["bits"], strict=True))
    by_laps, by_logs = counts(row)
    assert by_laps == by_logs == row["bytes"]


def test_inference_on_shares_stays_within_its_bound(quick):
    row = OnShares("digits", 3, 64).run(0)
    assert row["agree"] == [3, 3] and 0 < row["largest_error"] <= row["error_bound"]
    assert row["products"] == 64 * 32 + 32 * 10
    assert row["triple_bytes"] == 8 * (32 * 64 + 64 + 32 + 10 * 32 + 32 + 10)
    by_laps, by_logs = counts(row)
    assert by_laps == by_logs == row["bytes"]


def test_training_on_shares_is_training_in_the_clear(quick):
    row = OnSharedExamples("digits", 256, 1).run(0)
    assert row["steps"] == 2 and abs(row["shares"][0] - row["fixed"][0]) <= 3
    assert row["difference_bound"] is None or row["largest_difference"] <= row["difference_bound"]


def test_a_sum_of_clients_is_that_of_those_who_stay():
    row = Aggregated(6, 2, 100).run(0)
    assert row["included"] == 4 and row["examples"][0] == row["examples"][1]
    assert row["largest_error"] < 1e-6 and row["client_bytes"] > row["plain_bytes"] == 400


def test_right_counts_what_a_loop_counts():
    data = load("digits", raw=True)
    network = fixed_network(relu_network(), (1, 8, 8))

    by_hand = sum(
        int(fixed_logits(network, x[None]).argmax()) == int(y)
        for x, y in zip(data.x_test[:30], data.y_test[:30], strict=True)
    )
    assert right(network, data.x_test[:30], data.y_test[:30]) == [by_hand, 30]


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_kept_rows_are_those_of_the_jobs_and_hold_what_is_claimed(name):
    measured = load_measurement(f"parties_{name}")
    assert all(any(is_row_of(job, row) for row in measured["rows"]) for job in jobs_of(name))
    for row in rows_of_kind(measured, "hybrid"):
        assert row["exact"][0] == row["exact"][1] and row["wrap"] == 0
    for row in rows_of_kind(measured, "shares"):
        assert row["agree"][0] == row["agree"][1] and row["largest_error"] <= row["error_bound"]
    for row in [*rows_of_kind(measured, "hybrid"), *rows_of_kind(measured, "shares")]:
        assert Rate(*row["fixed"]).value >= Rate(*row["accuracy"]).value - 0.003
        by_laps, by_logs = counts(row)
        assert by_laps == by_logs == row["bytes"]
        assert duration(row, LAN).seconds < duration(row, WAN).seconds
    training = row_of(measured, kind="training")
    assert Rate(*training["shares"]).value >= Rate(*training["sigmoid"]).value - 0.003
    for row in rows_of_kind(measured, "aggregation"):
        assert row["included"] == row["clients"] - row["leave"] and row["largest_error"] < 1e-6
    sizes = [len(line) for table in (inference_table, traffic_table, training_table) for line in table(measured)]
    assert set(sizes) == {7, 8, 11}
    assert all(len(line) == 8 for line in aggregation_table(measured))
    assert len(logs_of(measured)) == len(rows_of_kind(measured, "hybrid")) + len(rows_of_kind(measured, "shares"))
    assert all(len(line) == 5 for line in layer_table(*laps_of(row_of(measured, kind="shares", relu_bits=64))))


def test_every_published_figure_stands_beside_a_measured_one():
    compared = {name: rate for name, rate, _, _ in parties_compared()}
    assert set(compared) == {name for name, figure in published().items() if figure["row"] == "hybrid_inference"}
    assert all(np.isfinite(rate.value) for rate in compared.values())

"""Measured inference on encrypted images: rows of each kind, what they must not depend on, and what was kept."""

from dataclasses import replace

import numpy as np
import pytest
from torch import nn

from spai_lab.data import load
from spai_lab.metrics import Rate
from spai_lab.survey import encrypted_jobs, encrypted_networks
from spai_lab.survey.encrypted_jobs import Activation, Batch, PaillierLinear
from spai_lab.survey.encrypted_jobs import encrypted_jobs as jobs_of
from spai_lab.survey.encrypted_tables import (
    activation_table,
    answers_table,
    costs_table,
    encrypted_compared,
    paillier_table,
)
from spai_lab.survey.ledger import published
from spai_lab.survey.measure import is_row_of, load_measurement, row_of

RIGHT = ("accuracy", "encrypted")


@pytest.fixture
def quick(monkeypatch):
    """Few epochs, and models that are trained anew."""
    monkeypatch.setitem(encrypted_networks.EPOCHS, "digits", 8)
    encrypted_jobs.trained.cache_clear()
    yield
    encrypted_jobs.trained.cache_clear()


def test_a_batch_agrees_with_the_network_in_the_clear(quick):
    row = Batch("digits").run(0)
    assert row["agree"] == [539, 539] and row["encrypted"] == row["accuracy"]
    assert row["error_bound"] / 1000 < row["largest_error"] < row["error_bound"]
    # 64 ciphertexts of two polynomials modulo six primes of 30 bits there, 10 modulo two primes back
    assert row["bytes_up"] == pytest.approx(64 * 2 * 8192 * 6 * 4, rel=0.01)
    assert row["bytes_back"] == pytest.approx(10 * 2 * 8192 * 2 * 4, rel=0.01)
    assert row["memory"] > row["bytes_back"] and row["levels_used"] == 4
    assert all(second > 0 for times in row["batch_seconds"] for second in times)


def test_paillier_is_exact(quick):
    row = PaillierLinear("digits", 1).run(0)
    assert row["exact"] == [1, 1] == row["agree"]
    assert Rate(*row["accuracy"]).value > 0.85
    assert row["bytes_up"] > 64 * 512 and row["bytes_back"] > 10 * 512


def test_test_labels_change_what_is_reported_and_nothing_else(quick, monkeypatch):
    data = load("digits", raw=True)
    rows = []
    for labels in (data.y_test, (data.y_test + 1) % 10):
        encrypted_jobs.trained.cache_clear()
        monkeypatch.setattr(encrypted_jobs, "images", lambda name, y=labels: replace(data, y_test=y))
        rows.append(Batch("digits").run(0))
    one, other = rows
    assert one["accuracy"][0] > 450 > 60 > other["accuracy"][0]
    same = set(one) - {*RIGHT, "batch_seconds", "memory", "largest_error"}
    assert {name: one[name] for name in same} == {name: other[name] for name in same}


def test_activations_share_all_but_the_activation(quick, monkeypatch):
    seen = []
    monkeypatch.setattr(encrypted_jobs, "learned", lambda name, model, seed: seen.append(model) or model.eval())
    rows = [Activation("digits", name, 1).run(0) for name in ("ReLU", "square", "least squares, degree 4")]
    relu = seen[0]
    assert [isinstance(model[2], nn.ReLU) for model in seen] == [True, False, False]
    assert all((a == b).all() and (a == c).all() for a, b, c in zip(*(m.parameters() for m in seen), strict=True))
    assert [row.get("products") for row in rows] == [None, 5, 7]
    assert relu[2] is relu[5]


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_kept_rows_are_those_of_the_jobs_and_hold_what_is_claimed(name):
    measured = load_measurement(f"encrypted_{name}")
    assert all(any(is_row_of(job, row) for row in measured["rows"]) for job in jobs_of(name))
    for row in measured["rows"]:
        if "agree" in row:
            agree, images = row["agree"]
            assert agree >= 0.999 * images or (images < 1000 and agree == images)
        if "error_bound" in row:
            assert row["largest_error"] < row["error_bound"]
        if row["kind"] == "paillier":
            assert row["exact"][0] == row["exact"][1] == row["images"]
    batch = row_of(measured, kind="batch", library="ours", network="CryptoNets")
    assert batch["encrypted"][1] >= 539
    assert name != "mnist" or Rate(*batch["encrypted"]).value >= 0.985
    tables = (answers_table, costs_table, paillier_table, activation_table)
    assert [{len(line) for line in table(measured)} for table in tables] == [{7}, {11}, {8}, {4}]


def test_every_published_figure_stands_beside_a_measured_one():
    compared = {name: rate for name, rate, _, _ in encrypted_compared()}
    assert set(compared) == {name for name, figure in published().items() if figure["row"] == "cryptonets"}
    assert all(np.isfinite(rate.value) for rate in compared.values())

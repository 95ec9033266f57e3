"""Audits as they are measured: right code stands, planted bugs are refuted, and most of a true claim is proven."""

from dataclasses import replace

import pytest

from spai_lab.privacy.guarantee import ADD_REMOVE
from spai_lab.survey.audit_jobs import CODES, Audited, audit_jobs, the_same_batch
from spai_lab.survey.measure import load_measurement
from spai_lab.survey.private_jobs import DELTA


@pytest.mark.parametrize("code", CODES)
def test_audits_refute_code_with_a_bug_and_no_other(code, monkeypatch):
    runs = 80 if CODES[code].canary == "image" else 800 if CODES[code].planted else 400
    monkeypatch.setitem(CODES, code, replace(CODES[code], runs=runs, more_runs={}))
    row = Audited("digits", code, 1.0).run(0)
    assert (row["adjacency"], row["delta_dp"]) == (ADD_REMOVE, DELTA) and row["epsilon"] == pytest.approx(1, rel=1e-5)
    assert row["refuted"] == row["planted"] == (max(row["bounds"].values()) > 1)
    assert set(row["bounds"]) == ({"any", "gaussian"} if code == "all records at each step" else {"any"})


def test_a_sampler_that_is_no_sampler_draws_the_same_batch_with_the_canary():
    batches = [batch.tolist() for batch in the_same_batch(21, 0.1, 3, None)]
    assert batches == [[18, 19, 20]] * 3


def measured():
    return {(row["code"], row["claimed"]): row for row in load_measurement("audit_digits")["rows"]}


def test_every_audit_has_a_row_with_the_runs_of_its_code():
    rows = measured()
    assert len(rows) == len(audit_jobs("digits"))
    for (code, claimed), row in rows.items():
        assert row["runs"] == CODES[code].more_runs.get(claimed, CODES[code].runs)


def test_a_full_batch_canary_proves_most_of_a_right_claim_and_never_more():
    for (code, claimed), row in measured().items():
        if not row["planted"]:
            assert not row["refuted"] and max(row["bounds"].values()) <= claimed
        if code == "all records at each step":
            assert row["bounds"]["gaussian"] >= 0.7 * claimed


def test_each_planted_bug_is_refuted_at_some_claim_at_least():
    for code, settings in CODES.items():
        if settings.planted:
            assert any(row["refuted"] for (name, _), row in measured().items() if name == code)

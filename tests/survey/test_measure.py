"""Measurements: resumed where they stopped, told apart by what they depend on, and held beside the ledger honestly."""

import json

import pytest

from spai_lab.metrics import Rate
from spai_lab.survey import gradient_attacks
from spai_lab.survey.gradient_attacks import (
    JOBS,
    AccuracyLeft,
    attack_table,
    compare_rate,
    gradient_attacks_compared,
    measured_rate,
)
from spai_lab.survey.ledger import comparison_table, published
from spai_lab.survey.measure import in_order, load_measurement, measure
from spai_lab.training import manifest

FEW = (AccuracyLeft("softmax", "none", images=50), AccuracyLeft("softmax", "fgsm", eps=0.25, images=50))
MODELS = ("softmax",)


@pytest.fixture
def committed():
    return load_measurement("gradient_attacks")


def test_committed_measurement_is_complete_and_of_the_committed_weights(committed):
    fields = list(AccuracyLeft.__dataclass_fields__)
    assert {AccuracyLeft(**{field: row[field] for field in fields}) for row in committed["rows"]} == set(JOBS)
    entries = manifest()["models"]
    assert committed["weights"] == {model: entries[f"{model}-mnist"]["sha256"] for model in committed["weights"]}


def test_more_steps_leave_less(committed):
    for model in ("lenet", "lenet-robust"):
        for eps in (0.1, 0.2, 0.3):
            one, many = (measured_rate(committed, model=model, attack=name, eps=eps) for name in ("fgsm", "pgd"))
            assert many.hits < one.hits


def test_interrupted_run_goes_on_where_it_stopped(mnist, tmp_path, monkeypatch):
    file, seen = tmp_path / "m.json", []
    true = gradient_attacks.accuracy_left

    def interrupted(model, x, y, job, seed):
        if job.attack == "fgsm" and len(seen) < 2:
            seen.append(job)
            raise KeyboardInterrupt
        seen.append(job)
        return true(model, x, y, job, seed)

    monkeypatch.setattr(gradient_attacks, "accuracy_left", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure("m", FEW, MODELS, file=file)
    kept = json.loads(file.read_text(encoding="utf-8"))["rows"]
    assert [row["attack"] for row in kept] == ["none"]
    rows = measure("m", FEW, MODELS, file=file)["rows"]
    assert rows[0] == kept[0]
    assert [job.attack for job in seen] == ["none", "fgsm", "fgsm"]
    measure("m", FEW, MODELS, file=file)
    assert len(seen) == 3
    measure("m", FEW, MODELS, file=file, seed=1)
    assert len(seen) == 5


def test_two_at_a_time_measure_what_one_after_the_other_does(mnist, tmp_path):
    runs = [measure("m", FEW, MODELS, file=tmp_path / f"{n}.json", workers=n)["rows"] for n in (1, 2)]
    alone, together = ([{k: v for k, v in row.items() if k != "seconds"} for row in rows] for rows in runs)
    assert alone == together


def test_a_row_that_no_job_asks_for_any_more_is_dropped(mnist, tmp_path):
    file = tmp_path / "m.json"
    measure("m", FEW, MODELS, file=file)
    assert [row["attack"] for row in measure("m", FEW[:1], MODELS, file=file)["rows"]] == ["none"]
    assert len(json.loads(file.read_text(encoding="utf-8"))["rows"]) == 1


def test_rows_are_kept_in_the_order_of_their_jobs():
    rows = [FEW[1].key | {"seconds": 1}, FEW[0].key | {"seconds": 2}]
    assert [row["seconds"] for row in in_order(rows, FEW)] == [2, 1]


def test_fgsm_ruins_softmax_regression(mnist, tmp_path):
    measured = measure("m", FEW, MODELS, file=tmp_path / "m.json")
    clean, attacked = (measured_rate(measured, attack=name) for name in ("none", "fgsm"))
    assert attacked.value < 0.1 < 0.8 < clean.value
    assert "| softmax | fgsm | 0.25 |" in attack_table(measured)


def test_a_row_must_fit_exactly_once(committed):
    with pytest.raises(ValueError, match="fits 6"):
        measured_rate(committed, attack="pgd")
    with pytest.raises(ValueError, match="fits 0"):
        measured_rate(committed, attack="deepfool")


@pytest.mark.parametrize(("hits", "verdict"), [(10, "reproduced: +0.0 points"), (700, "deviates: -6.9 points")])
def test_an_error_rate_is_compared_as_an_error_rate(hits, verdict):
    comparison = compare_rate(published()["fgsm-softmax"], Rate(hits, 10_000), "softmax regression")
    low, high = comparison.interval
    assert low < comparison.value < high
    assert comparison.value == pytest.approx(1 - hits / 10_000)
    assert comparison.verdict.startswith(verdict)


def test_another_network_reproduces_nothing(committed):
    for comparison in gradient_attacks_compared(committed):
        if "LeNet" in comparison.ours:
            assert comparison.verdict.startswith("not comparable")


def test_every_published_figure_shows_source_and_standing(committed):
    table = comparison_table(gradient_attacks_compared(committed))
    for name in ("fgsm-softmax", "fgsm-undefended", "natural-undefended", "defense-gan-undefended"):
        figure = published()[name]
        assert f"{figure['source']} ({figure['standing']})" in table


def test_an_unknown_measurement_is_named():
    with pytest.raises(ValueError, match="'flow'; accepted: a measurement in data/results"):
        load_measurement("flow")

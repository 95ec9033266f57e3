"""Private learning with fixed features: exact solutions, disjoint teachers, and what was published is beaten."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from spai_lab.metrics import Rate
from spai_lab.privacy.accounting import noise_for
from spai_lab.privacy.scattering import scattering
from spai_lab.survey import scattered_jobs
from spai_lab.survey.ledger import published
from spai_lab.survey.measure import load_measurement, rows_of_kind
from spai_lab.survey.private_tables import scattered_table
from spai_lab.survey.scattered_jobs import (
    STRENGTH,
    ScatteredPate,
    ScatteredSgd,
    least_squares,
)
from spai_lab.survey.scattered_jobs import (
    scattered_jobs as jobs_of,
)


def rows(kind):
    return rows_of_kind(load_measurement("scattered_mnist"), kind)


def worst(row):
    """The lower limit of the worst training."""
    counts = row["accuracy"] if "accuracy" in row else [run["accuracy"] for run in row["runs"]]
    return min(Rate(*each).interval[0] for each in counts)


@pytest.fixture
def few(digits, monkeypatch):
    """The digits in place of MNIST: one training, one learning rate, few questions."""
    monkeypatch.setattr(scattered_jobs, "TRAININGS", 1)
    monkeypatch.setattr(scattered_jobs, "RATES", (1.0,))
    monkeypatch.setattr(scattered_jobs, "QUERIES", {2.0: (50,), None: (50,)})
    monkeypatch.setattr(scattered_jobs, "SIGMA", 4.0)
    kept = {part: scattering(getattr(digits, f"x_{part}")) for part in ("train", "val", "test")}
    monkeypatch.setattr(scattered_jobs, "coefficients", lambda name, part: kept[part])


def test_teachers_are_least_squares_solutions(digits):
    x, y = scattering(digits.x_train[:60]), digits.y_train[:60]
    model = least_squares(x, y)
    features = model[:2](x).double().numpy() / np.sqrt(3969)
    peer = Ridge(alpha=STRENGTH, fit_intercept=False).fit(features, np.eye(10)[y] - 0.1)
    assert np.abs(model(x).numpy() - peer.predict(features)).max() < 1e-4


def test_a_row_of_each_kind(few):
    row = ScatteredSgd("digits", 8.0, epochs=3).run(0)
    assert row["noise_multiplier"] == noise_for(
        epsilon=8.0, delta_dp=1e-5, sampling_rate=0.1, steps=30, conversion="mironov"
    )
    assert (row["adjacency"], row["delta_dp"]) == ("add/remove", 1e-5) and row["epsilon"] == pytest.approx(8, rel=1e-6)
    assert row["epsilon_tighter"] < row["epsilon"] and row["steps"] == 30 and Rate(*row["accuracy"][0]).value > 0.6
    for budget in (2.0, None):
        row = ScatteredPate("digits", budget, teachers=20).run(0)
        assert row["adjacency"] == "replace" and row["records"] + row["public"] == 1078
        assert row["runs"][0]["these votes, not sanitized"] <= round(row["epsilon"], 4)
        assert budget is None or row["epsilon"] == pytest.approx(2, rel=1e-6)


def test_no_hidden_label_is_learned_from_or_chosen_by(few, digits, monkeypatch):
    """Turned labels of test and public images change what is reported of them, and nothing else."""
    turned = replace(
        digits,
        y_test=(digits.y_test + 1) % 10,
        y_train=torch.cat([digits.y_train[:-200], (digits.y_train[-200:] + 1) % 10]),
    )
    job = ScatteredPate("digits", 2.0, teachers=20)
    rows = []
    for data in (digits, turned):
        monkeypatch.setattr(scattered_jobs, "load", lambda name, data=data: data)
        rows.append(job.run(0))
    first, second = rows
    assert first["runs"][0]["accuracy"] != second["runs"][0]["accuracy"]
    same = set(first) - {"runs"}
    assert {name: first[name] for name in same} == {name: second[name] for name in same}
    votes = "these votes, not sanitized"
    assert first["runs"][0][votes] == second["runs"][0][votes]


def test_no_record_is_with_two_teachers(few, digits):
    job = ScatteredPate("digits", 2.0, teachers=20)
    taught = job.ensemble(scattering(digits.x_train[:100]), digits.y_train[:100], torch.Generator().manual_seed(0))
    assert taught.inside.sum(0).tolist() == [1] * 100 and taught.inside.sum(1).tolist() == [5] * 20


def test_every_job_has_a_row():
    measured = load_measurement("scattered_mnist")["rows"]
    assert len(measured) == len(jobs_of("mnist"))
    assert all(any(row.items() >= job.key.items() for row in measured) for job in jobs_of("mnist"))
    assert len(scattered_table(load_measurement("scattered_mnist"))) == len(measured)


@pytest.mark.parametrize(("budget", "name"), [(0.5, "05"), (2.0, "2"), (8.0, "8")])
def test_fixed_features_beat_what_was_published_at_each_budget(budget, name):
    row = next(row for row in rows("scattered sgd") if row["budget"] == budget)
    assert row["epsilon"] <= budget and row["adjacency"] == "add/remove" and row["delta_dp"] == 1e-5
    assert worst(row) > published()[f"dp-sgd-pca-{name}"]["value"]


def test_a_student_of_epsilon_two_reaches_ninety_five_percent():
    row = next(row for row in rows("scattered pate") if row["budget"] == 2.0)
    assert row["epsilon"] <= 2 + 1e-6 and row["delta_dp"] == 1e-5
    assert worst(row) > 0.95

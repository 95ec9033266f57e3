"""The grid of settings of DP-SGD as it is measured: the accountant's epsilon, a fair learning rate, no test labels."""

from dataclasses import replace

import pytest
import torch

from spai_lab.data import load
from spai_lab.privacy.accounting import dp_sgd_guarantee
from spai_lab.survey import tuning_jobs
from spai_lab.survey.measure import load_measurement
from spai_lab.survey.tuning_jobs import (
    CLIPS,
    EPOCHS,
    LOTS,
    NOISES,
    RECORDS,
    STEP_LENGTHS,
    TRAININGS,
    Tuned,
)
from spai_lab.survey.tuning_jobs import (
    tuning_jobs as jobs_of,
)
from spai_lab.survey.tuning_tables import tuning_table

every = pytest.mark.parametrize("name", list(LOTS))
SMALL = Tuned("digits", 1.0, 2.0, 1_078)


@every
def test_every_setting_is_measured_and_all_go_through_the_records_equally_often(name):
    cells = {(job.clip, job.noise_multiplier, job.lot) for job in jobs_of(name)}
    assert cells == {(clip, noise, lot) for clip in CLIPS for noise in NOISES for lot in LOTS[name]}
    for job in jobs_of(name):
        assert 0 < job.sampling_rate <= 1
        assert job.steps * job.lot == pytest.approx(EPOCHS[name] * RECORDS[name], rel=0.05)


@every
def test_rows_promise_what_the_accountant_says_of_their_settings(name):
    for row in load_measurement(f"tuning_{name}")["rows"]:
        assert (row["adjacency"], row["delta_dp"]) == ("add/remove", 1e-5)
        assert row["covers"] == ["the weights after every step, given the number of records"]
        if row["noise_multiplier"] == 0:
            assert row["epsilon"] is None
        elif row["clip"] == 1.0:
            how = {"sampling_rate": row["lot"] / row["records"], "noise_multiplier": row["noise_multiplier"]}
            told = dp_sgd_guarantee(**how, steps=row["steps"], delta_dp=row["delta_dp"])
            assert row["epsilon"] == pytest.approx(told.epsilon, rel=1e-9)


@every
def test_epsilon_knows_noise_and_lot_alone(name):
    spent = {}
    for row in load_measurement(f"tuning_{name}")["rows"]:
        spent.setdefault((row["noise_multiplier"], row["lot"]), set()).add(row["epsilon"])
    assert all(len(values) == 1 for values in spent.values())
    for lot in LOTS[name]:
        falling = [min(spent[noise, lot]) for noise in NOISES[1:]]
        assert falling == sorted(falling, reverse=True)


@every
def test_few_settings_would_want_a_step_length_beyond_the_set(name):
    rows = load_measurement(f"tuning_{name}")["rows"]
    edges = sum(row["step_length"] in (STEP_LENGTHS[0], STEP_LENGTHS[-1]) for row in rows)
    assert edges < 0.15 * len(rows)


@every
def test_the_learning_rate_is_the_best_of_the_trials_and_a_higher_clip_cuts_less(name):
    rows = load_measurement(f"tuning_{name}")["rows"]
    for row in rows:
        hits = [hits for hits, _ in row["tried"]]
        assert len(hits) == len(STEP_LENGTHS) and hits[STEP_LENGTHS.index(row["step_length"])] == max(hits)
        assert len(row["validation"]) == len(row["clipped"]) == TRAININGS
        assert {trials for _, trials in row["validation"]} == {len(load("digits").x_val) if name == "digits" else 5_000}
    cut = {clip: sum(sum(row["clipped"]) for row in rows if row["clip"] == clip) for clip in CLIPS}
    assert list(cut.values()) == sorted(cut.values(), reverse=True)


@every
def test_much_noise_costs_accuracy_and_larger_lots_bear_more_of_it(name):
    def mean(noise, lot):
        rows = [row for row in load_measurement(f"tuning_{name}")["rows"] if row["noise_multiplier"] == noise]
        counts = [each for row in rows if row["lot"] == lot for each in row["validation"]]
        return sum(hits for hits, _ in counts) / sum(trials for _, trials in counts)

    small, middle = LOTS[name][0], LOTS[name][2]
    assert mean(0.0, small) > mean(8.0, small) + 0.2
    assert mean(0.0, small) - mean(8.0, small) > mean(0.0, middle) - mean(8.0, middle)


def test_no_label_or_image_of_the_test_part_is_read(monkeypatch):
    data = load("digits")
    others = replace(data, x_test=1 - data.x_test, y_test=(data.y_test + 1) % 10)
    expected = SMALL.run(0)
    monkeypatch.setattr(tuning_jobs, "load", lambda name: others)
    assert SMALL.run(0) == expected


def test_validation_labels_are_what_it_is_judged_by(monkeypatch):
    data = load("digits")
    turned = replace(data, y_val=(data.y_val + 1) % 10)
    before = SMALL.judge(SMALL.train(1.0, 0)[0])
    monkeypatch.setattr(tuning_jobs, "load", lambda name: turned)
    assert before.value > 0.6 and SMALL.judge(SMALL.train(1.0, 0)[0]).value < 0.2


def test_a_step_has_the_length_that_was_asked_whatever_the_clipping_norm(monkeypatch):
    """Where every gradient is clipped, and the step is as long, C changes nothing."""
    learned = [Tuned("digits", clip, 2.0, 1_078).train(0.3, 0) for clip in (1e-3, 1e-2)]
    assert all(history.diagnostics.clipped_share == 1 for _, history in learned)
    for one, other in zip(*(model.parameters() for model, _ in learned), strict=True):
        assert torch.allclose(one, other, atol=1e-4)


@every
def test_the_table_has_a_row_for_each_setting(name):
    table = tuning_table(load_measurement(f"tuning_{name}"))
    assert len(table) == 120
    assert sum(row[4] == "no promise" for row in table) == len(CLIPS) * len(LOTS[name])


@pytest.mark.full
def test_a_job_measures_again_what_is_on_disk():
    row = next(r for r in load_measurement("tuning_digits")["rows"] if r.items() >= SMALL.key.items())
    again = SMALL.run(0)
    assert {name: row[name] for name in again} == again

"""The measurement of degrading and targeted poisonings: read from rows made by hand, and from the committed file."""

import pytest
import torch

from spai_lab.metrics import Rate
from spai_lab.survey import poisoning
from spai_lab.survey.measure import load_measurement
from spai_lab.survey.poisoning import degradation_curves, measure_poisoning, targeted_table
from spai_lab.survey.poisoning_jobs import DEGRADE, SEEDS, TARGETED, VICTIMS, Degraded, Turned, jobs


def degraded(attack, fraction, after):
    before = {"SVM": [318, 321], "softmax": [315, 321]}
    names = {"kind": "degraded", "task": "1 against 7", "attack": attack, "fraction": fraction}
    return {**names, "accuracy_before": before, "accuracy_after": after, "poisons": 10}


def turned(attack, hits):
    return {
        "kind": "turned",
        "attack": attack,
        "victim": "from scratch: MLP",
        "attacker": "five MLPs",
        "settings": {"fraction": 0.05, "eps": 0.4},
        "success": [hits, 60],
        "accuracy_before": 0.98,
        "accuracy_after": 0.9755,
        "poisons": 53,
        "trained_on": 1078,
    }


HAND_MADE = {
    "rows": [
        turned("gradient matching", 45),
        degraded("random flips", 0.3, {"SVM": [240, 321], "softmax": [250, 321]}),
        degraded("random flips", 0.1, {"SVM": [310, 321], "softmax": [312, 321]}),
        degraded("guided flips", 0.1, {"SVM": [280, 321], "softmax": [290, 321]}),
    ]
}


def test_a_curve_begins_without_poison_and_grows_with_the_fraction():
    curves = degradation_curves(HAND_MADE, "SVM")
    assert list(curves["random flips"]) == [0.0, 0.1, 0.3]
    assert curves["random flips"] == {0.0: Rate(318, 321), 0.1: Rate(310, 321), 0.3: Rate(240, 321)}
    assert curves["guided flips"] == {0.0: Rate(318, 321), 0.1: Rate(280, 321)}


def test_each_victim_has_curves_of_its_own():
    assert degradation_curves(HAND_MADE, "softmax")["random flips"][0.3] == Rate(250, 321)


def test_the_table_says_victim_budget_success_and_clean_accuracy():
    head, _, *lines = targeted_table(HAND_MADE).splitlines()
    assert len(lines) == 1
    assert lines[0].count("|") == head.count("|")
    for part in (
        "| gradient matching | from scratch: MLP | five MLPs |",
        "53 of 1,078 images: fraction 0.05, eps 0.4",
        "75.0 % (n = 60, 95 % interval 62.8 to 84.2)",
        "| 98.00 % | 97.55 % |",
    ):
        assert part in lines[0]


def test_jobs_are_told_apart_by_their_keys():
    keys = [job.key for job in jobs("digits")]
    assert all(one != other for place, one in enumerate(keys) for other in keys[:place])
    assert {key["attack"] for key in keys} == {*TARGETED, *DEGRADE}


def test_every_victim_is_judged_after_every_poisoning(digits):
    found = Degraded("digits", "1 against 7", "random flips", 0.3).run(0)
    test_images = int(((digits.y_test == 1) | (digits.y_test == 7)).sum())
    for name in ("accuracy_before", "accuracy_after"):
        assert {victim: trials for victim, (_, trials) in found[name].items()} == dict.fromkeys(
            VICTIMS, len(SEEDS) * test_images
        )
    assert found["poisons"] == 60
    assert all(found["accuracy_after"][victim][0] < found["accuracy_before"][victim][0] for victim in VICTIMS)


def test_a_measured_job_is_not_measured_again(tmp_path, monkeypatch):
    class Job:
        key = {"kind": "turned", "settings": {"fraction": 0.05}}  # noqa: RUF012, never changed
        runs = 0

        def run(self, seed):
            type(self).runs += 1
            return {"drawn": int(torch.randint(100, (1,), generator=torch.Generator().manual_seed(seed)))}

    monkeypatch.setattr(poisoning, "jobs", lambda name: (Job(),))
    first, again = (measure_poisoning("digits", file=tmp_path / "measured.json") for _ in range(2))
    assert first == again and first["name"] == "poisoning_digits" and Job.runs == 1


@pytest.mark.full
@pytest.mark.parametrize("attack", list(TARGETED))
def test_a_targeted_job_runs(attack):
    found = Turned("digits", attack, targets=1).run(0)
    assert 0 <= found["success"][0] <= found["success"][1] <= len(SEEDS)


@pytest.fixture(scope="module")
def measured():
    return load_measurement("poisoning_digits")


def test_the_measurement_is_complete(measured):
    keys = [job.key for job in jobs(measured["data"])]
    assert all(any(row.items() >= key.items() for row in measured["rows"]) for key in keys)
    assert len(measured["rows"]) == len(keys)


@pytest.mark.parametrize("victim", list(VICTIMS))
def test_guided_flips_do_more_damage_than_random_ones(measured, victim):
    curves = degradation_curves(measured, victim)
    assert set(curves) == set(DEGRADE)
    guided, random = (sum(rate.hits for rate in curves[name].values()) for name in ("guided flips", "random flips"))
    assert guided < random


def test_what_the_targeted_attacks_reach(measured):
    for row in measured["rows"]:
        if row["kind"] == "turned":
            assert Rate(*row["success"]).value >= 0.5, row
            assert row["accuracy_before"] - row["accuracy_after"] < 0.01, row

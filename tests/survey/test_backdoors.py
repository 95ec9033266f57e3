"""The matrix and the curves show what was measured, and the committed measurement holds every cell of them."""

import math

import pytest
import torch

from spai_lab.metrics import Rate
from spai_lab.survey.backdoor_jobs import DEFENSES, MATRIX_BACKDOORS, ON_DATA, Cleaned, detections, jobs
from spai_lab.survey.backdoors import (
    backdoor_curves,
    backdoors_compared,
    cleaning_matrix,
    false_alarms,
    rows_of_kind,
)
from spai_lab.survey.ledger import published
from spai_lab.survey.measure import load_measurement


def planted(backdoor: str, fraction: float, before: int, after: int) -> dict:
    rates = {"success_before": [before, 10], "success_after": [after, 10]}
    return {"kind": "success", "backdoor": backdoor, "fraction": fraction, **rates}


MADE = {
    "rows": [
        planted("blended", 0.05, 0, 9),
        planted("blended", 0.01, 0, 4),
        planted("badnets", 0.01, 1, 8),
        {"kind": "cleaned", "backdoor": "badnets", "defense": "strip", "true_positives": [3, 4]},
        {"kind": "cleaned", "backdoor": "none", "defense": "strip", "false_positives": [1, 4]},
        {"kind": "false_alarm", "victim_seed": 0, "flagged": []},
        {"kind": "false_alarm", "victim_seed": 1, "flagged": [3, 5]},
    ]
}


def test_a_curve_starts_at_the_clean_victim_and_goes_by_fraction():
    curves = backdoor_curves(MADE, "success")
    assert list(curves) == ["badnets", "blended"]
    assert curves["blended"] == {0.0: Rate(0, 10), 0.01: Rate(4, 10), 0.05: Rate(9, 10)}
    assert list(curves["blended"]) == [0.0, 0.01, 0.05]


def test_a_cell_that_was_not_measured_is_empty():
    table = cleaning_matrix(MADE, "true_positives")
    assert table.loc["badnets", "strip"] == 0.75
    assert math.isnan(table.loc["none", "strip"]) and math.isnan(table.loc["badnets", "fine_pruning"])
    assert table.shape == (len(MATRIX_BACKDOORS), len(DEFENSES)) == (7, 8)


def test_a_model_is_one_false_alarm_however_many_classes_are_flagged():
    assert false_alarms(MADE) == Rate(1, 2)


def test_detections_count_each_side_apart():
    suspected = torch.tensor([True, True, False, False, True])
    is_poison = torch.tensor([True, False, True, False, False])
    assert detections(suspected, is_poison) == {"true_positives": [1, 2], "false_positives": [2, 3]}
    assert detections(suspected, torch.zeros(5, dtype=torch.bool)) == {"false_positives": [3, 5]}


def test_defenses_of_data_have_nothing_to_look_at_where_there_is_none():
    assert [name for name in DEFENSES if not Cleaned("digits", "trojan", name).applies] == list(ON_DATA)


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_the_committed_measurement_holds_every_cell(name):
    measured = load_measurement(f"backdoors_{name}")
    keys = [tuple(sorted(job.key.items())) for job in jobs(name)]
    held = {tuple(sorted((field, row.get(field)) for field in dict(key))) for key in keys for row in measured["rows"]}
    assert [dict(key) for key in keys if key not in held] == []
    for row in rows_of_kind(measured, "cleaned"):
        for what in ("accuracy_before", "accuracy_after"):
            assert Rate(*row[what]).trials >= 500
        assert ("success_after" in row) == (row["backdoor"] != "none")


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_the_committed_backdoors_work_before_they_are_cleaned(name):
    """The clean-label backdoor works far less often than the others: from 17 % on MNIST to 46 % on the digits."""
    before = cleaning_matrix(load_measurement(f"backdoors_{name}"), "success_before").max(axis=1).drop("none")
    assert (before.drop("clean label") > 0.8).all() and before["clean label"] > 0.1, before


def test_every_published_figure_of_a_backdoor_stands_beside_a_measured_one():
    rows = backdoors_compared(load_measurement("backdoors_mnist"))
    wanted = {"badnets", "neural_cleanse", "strip", "fine_pruning", "sphere_slab", "activation_clustering"}
    figures = {figure["id"] for figure in published().values() if figure["row"] in wanted}
    assert {row.figure["id"] for row in rows} == figures
    assert all(row.verdict for row in rows)

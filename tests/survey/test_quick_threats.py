"""The quick rows of attacks on privacy: against an independent count or a bound, at settings of a second or two."""

import json
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from spai_lab.survey import quick_threats
from spai_lab.survey.full_threats import FULL
from spai_lab.survey.membership_jobs import Population
from spai_lab.survey.quick_threats import QUICK, copying, equations, membership
from spai_lab.survey.taxonomy import load_taxonomy
from spai_lab.survey.threat_headlines import CONTROL

ROWS = {row.id: row for row in load_taxonomy() if row.part == "threats"}
SMALL = Population("digits", 100, 4, 20, hidden=8, epochs=10)


def test_every_row_has_an_entry_and_none_is_left_over():
    assert sorted(QUICK) == sorted(FULL) == sorted(ROWS)


def test_members_found_by_loss_are_those_of_numpy():
    """At most one in a hundred of the others has a lower loss than the threshold; every such threshold is tried."""
    headline = membership("loss", 0, SMALL)
    x, y, _, targets = SMALL.trained(0)
    loss = np.concatenate([F.cross_entropy(z, y, reduction="none").detach().double() for z in targets.logits(x)])
    inside = targets.inside.flatten().numpy()
    best = max(
        (inside & (loss <= t)).sum() / inside.sum()
        for t in np.append(np.unique(loss), -1.0)
        if (~inside & (loss <= t)).sum() <= 0.01 * (~inside).sum()
    )
    assert headline.value == pytest.approx(best, abs=0.003)  # float32 rounds losses that are almost 0 alike
    assert headline.trials == inside.sum() and headline.details["others"] == (~inside).sum() == 1000


def test_who_trains_shadow_models_finds_more_members():
    loss, lira = (membership(attack, 0, SMALL) for attack in ("loss", "LiRA, online"))
    assert lira.details["area"] > 0.5 and loss.details[CONTROL] == 0.01
    assert lira.budget == "1 query a record, 4 shadow models"


def test_equations_leave_nothing_unknown():
    """785 unknowns for each class, 785 questions: the copy is the victim."""
    headline = equations(0)
    assert headline.value == 1 and headline.budget.startswith("785 queries")
    assert headline.details["largest error of a probability"] < 1e-10
    assert 0.1 <= headline.details[CONTROL] < 0.2


def test_a_copy_gets_better_with_queries_and_the_same_with_the_same_seed():
    few, many = copying(0, 10), copying(0, 100)
    assert few.details[CONTROL] < few.value < many.value
    assert copying(0, 10).row == few.row


def test_labels_of_the_test_set_change_no_copy(monkeypatch):
    honest = copying(0, 10)
    load = quick_threats.load

    def mislabeled(name):
        data = load(name)
        return replace(data, y_test=torch.zeros_like(data.y_test))

    monkeypatch.setattr(quick_threats, "load", mislabeled)
    assert copying(0, 10).value == honest.value


@pytest.mark.full
@pytest.mark.parametrize("name", QUICK)
def test_every_row_runs_its_functions_and_beats_its_control(name, uncalled):
    headline, missing = uncalled(ROWS[name], partial(QUICK[name], 0))
    assert not missing
    assert math.isfinite(headline.value) and headline.better == "higher"
    assert headline.value > headline.details[CONTROL]
    low, high = headline.interval
    assert low - 1e-9 <= headline.value <= high + 1e-9
    json.dumps(headline.row, allow_nan=False)

"""What was measured of attacks on privacy: jobs that can be told apart, rows that hold together, published figures."""

import math
import statistics

import numpy as np
import pytest
import torch

from spai_lab.data import load
from spai_lab.metrics import Rate
from spai_lab.survey.extraction_jobs import Solved, TakenApart
from spai_lab.survey.inversion_jobs import Attribute, Inversion
from spai_lab.survey.leakage_jobs import LabelsLeak
from spai_lab.survey.measure import load_measurement, rows_of_kind
from spai_lab.survey.membership_jobs import ATTACKS, GRID, LEVELS, Members, Population, told
from spai_lab.survey.privacy import FAMILIES, privacy_compared, tables
from spai_lab.survey.privacy_tables import (
    agreement_by_budget,
    area_by_level,
    base_row,
    exposures,
    fooled_by_copy,
    leak_rows,
    membership_curves,
)
from spai_lab.survey.secrets_jobs import CANARY, REPEATS, Drawn, Memorized

PAIRS = [(family, name) for family, (_, names) in FAMILIES.items() for name in names]
IMAGES = ["digits", "mnist"]


@pytest.mark.parametrize(("family", "name"), PAIRS)
def test_every_job_has_a_key_of_its_own_and_a_row(family, name):
    jobs, _ = FAMILIES[family]
    keys = [tuple(sorted(job.key.items(), key=str)) for job in jobs(name)]
    assert len(set(keys)) == len(keys)
    rows = load_measurement(f"{family}_{name}")["rows"]
    assert len(rows) == len(keys)
    assert all(any(row.items() >= job.key.items() for row in rows) for job in jobs(name))


@pytest.mark.parametrize(("family", "name"), PAIRS)
def test_tables_hold_words_and_no_nan(family, name):
    for rows in tables(family, load_measurement(f"{family}_{name}")).values():
        assert rows and len({len(row) for row in rows}) == 1
        assert all(isinstance(cell, str) and cell and "nan" not in cell for row in rows for cell in row)


@pytest.mark.parametrize("name", IMAGES)
def test_who_calibrates_to_each_input_finds_more_members_at_few_false_positives(name):
    attacks = base_row(load_measurement(f"membership_{name}"))["attacks"]
    caught = {attack: found["caught"]["0.01"] for attack, found in attacks.items()}
    assert caught["LiRA, online"][1] > caught["loss"][2]
    assert all(low <= value <= high for value, low, high in caught.values())


def test_a_tenth_of_a_percent_rests_on_ten_thousand_others():
    for name, told_there in (("digits", False), ("mnist", True)):
        for found in base_row(load_measurement(f"membership_{name}"))["attacks"].values():
            assert ("0.001" in found["caught"]) == told_there == (found["innocent"] >= 10_000)


@pytest.mark.parametrize("name", IMAGES)
def test_the_curves_rise_and_stop_where_too_few_were_scored(name):
    measured = load_measurement(f"membership_{name}")
    for false, true in membership_curves(measured).values():
        assert false == sorted(false) and true == sorted(true) and true[-1] == 1
        assert false[0] * next(iter(base_row(measured)["attacks"].values()))["innocent"] >= 10


@pytest.mark.parametrize("name", IMAGES)
def test_every_level_was_measured_on_one_population(name):
    found = area_by_level(load_measurement(f"membership_{name}"))
    assert set(found) == set(LEVELS)
    assert found["all confidences"]["LiRA, online"] == pytest.approx(found["logits"]["LiRA, online"], abs=0.01)
    assert set(found["label"]) == {"loss", "shadow models"} and set(found["logits"]) == set(ATTACKS)


def test_a_population_trains_targets_on_halves_of_their_own():
    x, y, shadows, targets = Population("digits", 40, 4, 2, hidden=4, epochs=1).trained(0)
    assert len(x) == len(y) == 40 and len(shadows) == 4 and len(targets) == 2
    assert (targets.inside.sum(1) == 20).all() and torch.equal(targets.inside[0], ~targets.inside[1])


def test_members_are_judged_at_every_level():
    for level in ("label", "1 decimal", "logits"):
        row = Members(Population("digits", 40, 4, 2, hidden=4, epochs=2), level, keep=True).run(0)
        expected = {"loss", "shadow models"} if level == "label" else set(ATTACKS)
        assert set(row["attacks"]) == expected
        assert len(row["first"]["inside"]) == 40 and len(row["first"]["loss"]) == 40
        assert all(len(found["curve"]) == len(GRID) for found in row["attacks"].values())


def test_what_is_told_of_scores_is_what_they_say():
    scores = [torch.linspace(1, 0, 40).double()] * 2
    inside = [torch.arange(40) < 20] * 2
    found = told(scores, inside)
    assert found["area"] == 1 and found["curve"][0] == 1 and found["innocent"] == 40 and found["caught"] == {}


@pytest.mark.parametrize("name", IMAGES)
def test_equations_are_exact_until_they_are_rounded(name):
    rows = rows_of_kind(load_measurement(f"extraction_{name}"), "solved")
    exact = [row for row in rows if row["decimals"] is None]
    assert all(row["queries"] == row["parameters"] and row["error"] < 1e-6 for row in exact)
    for classes in (2, 10):
        errors = [row["error"] for row in rows if row["classes"] == classes]
        assert errors[0] < 1e-3 * errors[-1]


@pytest.mark.parametrize("name", IMAGES)
def test_small_networks_are_taken_apart_or_say_that_they_are_not(name):
    rows = rows_of_kind(load_measurement(f"extraction_{name}"), "apart")
    assert all(row["residual"] < 1e-6 or not row["complete"] for row in rows)
    assert all(row["complete"] == (row["found"] == row["hidden"]) for row in rows)
    assert sum(row["complete"] for row in rows) >= 5


@pytest.mark.parametrize("name", IMAGES)
def test_copies_need_images_and_get_better_with_the_budget(name):
    measured = load_measurement(f"extraction_{name}")
    agreed, fooled = agreement_by_budget(measured), fooled_by_copy(measured)
    for level in ("labels", "all confidences"):
        first, *_, last = agreed["natural", level].values()
        assert last.value > first.value and last.value > list(agreed["random", level].values())[-1].value + 0.3
        assert fooled["natural", level]["PGD"].value > fooled["natural", level]["noise"].value


@pytest.mark.parametrize("name", ["digits", "mnist", "faces"])
def test_labels_leak_always_and_images_mostly(name):
    measured = load_measurement(f"leakage_{name}")
    (labels,) = rows_of_kind(measured, "labels")
    assert labels["labels_found"][0] == labels["labels_found"][1]
    for row in leak_rows(measured, batch=1, defense="none", epochs=0):
        assert row["recognized"][1] >= 100 and Rate(*row["recognized"]).value > 0.5
        assert row["recognized"][0] == sum(value >= 20 for value in row["psnr"])


@pytest.mark.parametrize("name", IMAGES)
def test_noise_and_batches_close_the_leak(name):
    measured = load_measurement(f"leakage_{name}")
    single = Rate(*leak_rows(measured, labels="optimized", batch=1)[0]["recognized"])
    assert Rate(*leak_rows(measured, labels="optimized", batch=8)[0]["recognized"]).value < single.value
    noisy = {row["strength"]: row["recognized"][0] for row in leak_rows(measured, defense="noise", adaptive=True)}
    assert noisy[0.1] < noisy[0.0001]


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize(("defense", "strength"), [("noise", 0.1), ("local steps", 5), ("pruning", 0.5)])
def test_who_knows_what_was_done_to_the_update_reads_more(name, defense, strength):
    rows = leak_rows(load_measurement(f"leakage_{name}"), defense=defense, strength=strength)
    unaware, aware = (
        statistics.median(next(row["psnr"] for row in rows if row["adaptive"] == knows)) for knows in (False, True)
    )
    assert aware > unaware + 3


@pytest.mark.parametrize("name", IMAGES)
def test_whoever_knows_of_the_rounding_fits_instead_of_solving(name):
    rows = load_measurement(f"extraction_{name}")["rows"]
    solved, fitted = (
        next(r["agree"] for r in rows if r["kind"] == kind and r["decimals"] == 2 and r.get("classes", 10) == 10)
        for kind in ("solved", "fitted")
    )
    assert Rate(*fitted).value > Rate(*solved).value + 0.3


def recognized(name, **key):
    rows = [
        row for row in rows_of_kind(load_measurement(f"inversion_{name}"), "inversion") if row.items() >= key.items()
    ]
    return {row["decimals"]: Rate(*row["identified"]).value for row in rows}


@pytest.mark.parametrize("name", ["digits", "mnist", "faces"])
def test_drawings_are_recognized_more_often_than_by_chance_and_less_when_answers_are_coarse(name):
    chance = 1 / len(load(name).classes)
    for victim in ("softmax", "mlp"):
        assert recognized(name, victim=victim, access="white-box")[None] > 3 * chance
    asked = recognized(name, victim="softmax", access="black-box")
    assert asked[1] < asked[None]


def test_people_are_recognized_from_exact_answers_and_from_two_decimals_but_not_from_one():
    asked = recognized("faces", victim="softmax", access="black-box")
    assert min(asked[None], asked[4], asked[3], asked[2]) > 0.5 > 0.2 > asked[1]


def test_only_members_of_an_overfitted_model_are_betrayed_beyond_imputation():
    rows = [row for row in rows_of_kind(load_measurement("inversion_digits"), "attribute") if row["level"] == "scores"]
    (row,) = (row for row in rows if row["epochs"] == 200)
    both, imputed = ({k: Rate(*v) for k, v in row[source].items()} for source in ("both", "imputation"))
    assert both["members"].interval[0] > imputed["members"].interval[1]
    assert both["others"].value < imputed["others"].interval[1]


def test_exposure_rises_with_the_insertions():
    found = exposures(load_measurement("secrets_digits"))
    mean = {times: sum(bits) / len(bits) for times, bits in found.items()}
    assert all(len(bits) == REPEATS for bits in found.values())
    assert mean[0] < 4 < mean[8] <= math.log2(CANARY.size) + 0.001 and mean[32] > mean[1]


@pytest.mark.parametrize("name", IMAGES)
def test_the_adversary_draws_the_class_and_not_without_a_victim_who_has_it(name):
    rows = rows_of_kind(load_measurement(f"secrets_{name}"), "drawn")
    attacked, control = (
        next(row for row in rows if row["clip"] is None and row["absent"] == no) for no in (False, True)
    )
    for what in ("taken", "likeness"):
        assert sum(attacked[what]) / len(attacked[what]) > sum(control[what]) / len(control[what]) + 0.3
    assert all(len(row["taken"]) == 9 for row in rows)


def test_published_figures_stand_beside_measured_ones():
    found = {row.figure["id"]: row for row in privacy_compared()}
    assert {"faces-softmax", "shadow-mnist", "equations-queries", "leakage-dlg", "leakage-idlg"} <= set(found)
    assert all(low - 1e-9 <= row.value <= high + 1e-9 for row in found.values() for low, high in [row.interval])
    assert found["equations-queries"].value == 1


@pytest.mark.full
@pytest.mark.parametrize(
    ("family", "job"),
    [
        ("extraction", Solved("digits", 2, None)),
        ("extraction", TakenApart("digits", 8, 1)),
        ("inversion", Attribute(5, "labels")),
        ("inversion", Inversion("digits", "softmax", "white-box")),
        ("leakage", LabelsLeak("digits")),
        ("secrets", Memorized(1, 0)),
        ("secrets", Drawn("digits")),
    ],
)
def test_a_job_measures_again_what_is_on_disk(family, job):
    jobs, _ = FAMILIES[family]
    assert job in jobs("digits")
    row = next(r for r in load_measurement(f"{family}_digits")["rows"] if r.items() >= job.key.items())
    again = job.run(0)
    counts = {name: value for name, value in again.items() if isinstance(value, list | bool | dict)}
    assert counts
    for name, found in counts.items():
        # another processor rounds otherwise, and training carries that on
        np.testing.assert_allclose(numbers_in(found), numbers_in(row[name]), rtol=0.02, atol=0.02, err_msg=name)


def numbers_in(found):
    """All numbers of nested lists and dictionaries, in their order."""
    if isinstance(found, dict):
        found = [found[name] for name in sorted(found)]
    return [number for each in found for number in numbers_in(each)] if isinstance(found, list) else [float(found)]

"""The tuning explorer: numbers, frontier and words are those of the measured rows, counted another way."""

import json
import math
import sys

import numpy as np
import pytest

from spai_lab.survey.measure import load_measurement
from spai_lab.widgets.choices import DATASETS
from spai_lab.widgets.tuning_explorer import (
    CLEARLY,
    Cell,
    Grid,
    backdrop,
    better,
    describe,
    grid_of,
    measured_datasets,
    render,
    tuning_explorer,
    verdict,
)

every = pytest.mark.parametrize("dataset", DATASETS)


def parts(fig):
    return {artist.get_gid(): artist for artist in fig.findobj() if artist.get_gid()}


def rows_of(dataset):
    """The rows as they are on disk, and the mean accuracy of each."""
    rows = load_measurement(f"tuning_{dataset}")["rows"]
    return [(row, sum(hits / trials for hits, trials in row["validation"]) / len(row["validation"])) for row in rows]


def setting(row):
    return {name: row[name] for name in ("clip", "noise_multiplier", "lot")}


def made(*cells):
    """A grid of made-up cells: C, noise, lot, epsilon, accuracy."""
    whole = tuple(Cell(c, s, lot, 5, spent, 1.0, (share, share), 0.5) for c, s, lot, spent, share in cells)
    return Grid("digits", whole, 100, 5, 1e-5, "add/remove", "the weights")


def test_both_data_sets_were_measured():
    assert measured_datasets() == DATASETS


@every
def test_each_cell_is_its_row(dataset):
    found = grid_of(dataset)
    assert len(found.cells) == len(rows_of(dataset)) == 120
    for row, share in rows_of(dataset):
        cell = found.at(**setting(row))
        assert cell.accuracy == pytest.approx(share) and cell.epsilon == row["epsilon"]
        assert cell.learning_rate * cell.clip == pytest.approx(row["step_length"])


@every
def test_the_frontier_is_what_no_setting_beats_for_no_more(dataset):
    rows = [(row["epsilon"], share) for row, share in rows_of(dataset) if row["epsilon"] is not None]
    unbeaten = [
        (spent, share)
        for spent, share in rows
        if not any(e <= spent and a > share for e, a in rows) and not any(e < spent and a >= share for e, a in rows)
    ]
    drawn = np.array([(cell.epsilon, cell.accuracy) for cell in grid_of(dataset).frontier])
    assert drawn == pytest.approx(np.array(sorted(set(unbeaten))))


def test_a_planted_setting_that_is_better_and_cheaper_takes_the_frontier():
    found = made((1.0, 1.0, 10, 2.0, 0.8), (1.0, 2.0, 10, 1.0, 0.9), (1.0, 0.0, 10, None, 0.95))
    assert [cell.epsilon for cell in found.frontier] == [1.0]
    assert "noise 2 and lots of 10: 90 %, for epsilon 1.00" in better(found, found.at(1.0, 1.0, 10))
    assert "No setting" in better(found, found.at(1.0, 2.0, 10))
    assert "No setting" in better(found, found.at(1.0, 0.0, 10))


@every
@pytest.mark.parametrize(("place", "clip", "noise"), [(0, 0.1, 8.0), (1, 1.0, 1.0), (3, 10.0, 0.0)])
def test_the_picture_marks_the_cell_and_its_point(dataset, place, clip, noise):
    found = grid_of(dataset)
    lot = found.values("lot")[place]
    cell, named = found.at(clip, noise, lot), parts(render(found, clip, noise, lot))
    column, row = named["cell"].get_xy()
    ax = backdrop(found, lot).axes["grid"]
    assert ax.get_yticklabels()[int(row)].get_text() == f"{clip:g}"
    assert ax.get_xticklabels()[int(column)].get_text().split("\n") == [f"{noise:g}", cell.spent]
    numbers = {text.get_position(): text.get_text() for text in ax.texts}
    assert numbers[column + 0.5, row + 0.5] == f"{100 * cell.accuracy:.0f}"
    x, y = named["now"].get_xydata()[0]
    assert y == cell.accuracy and list(named["range"].get_ydata()) == [min(cell.shares), max(cell.shares)]
    assert x == cell.epsilon if noise else x > found.promised[1]
    assert f"{100 * cell.accuracy:.0f} % at ε = {cell.spent}" == named["title"].get_text()
    assert f"{cell.learning_rate:.2g}," in named["rate"].get_text()


@every
def test_all_settings_and_the_frontier_are_drawn(dataset):
    found = grid_of(dataset)
    ax = backdrop(found, found.values("lot")[0]).axes["tradeoff"]
    lines = {line.get_label(): line for line in ax.lines}
    these = next(line for label, line in lines.items() if label.startswith("lots of"))
    assert len(these.get_xdata()) == 30 and len(lines["other lots"].get_xdata()) == 90
    best = dict(lines["best of the grid"].get_xydata()[:-1])
    assert best == pytest.approx({cell.epsilon: cell.accuracy for cell in found.frontier})
    low, high = ax.get_ylim()
    left, right = ax.get_xlim()
    for line in (these, lines["other lots"]):
        assert all(left < x < right and low <= y <= high for x, y in line.get_xydata())


@every
def test_words_follow_the_numbers(dataset):
    found = grid_of(dataset)
    for cell in found.cells:
        at = (cell.clip, cell.noise_multiplier, cell.lot)
        said, told = verdict(found, *at), describe(found, *at)
        assert f"reads {100 * cell.accuracy:.0f} % of the validation part" in said
        promised = f"epsilon {cell.spent} at delta 1e-05, one record added or removed; covers the weights"
        assert (promised in said) == (cell.epsilon is not None) == ("nothing is promised" not in said)
        assert "no epsilon here covers that" in said and "demonstration, not private" in said
        assert f"Marked: C = {cell.clip:g}, noise {cell.noise_multiplier:g}, " in told
        cheaper = [each.accuracy for each in found.cells if (each.epsilon or math.inf) <= (cell.epsilon or math.inf)]
        assert ("No setting of the grid" in said) == (max(cheaper) - cell.accuracy < CLEARLY)
        for words in (said, told):
            assert words.endswith(".") and "nan" not in words


def test_controls_redraw_and_the_lots_follow_the_data_set():
    explorer = tuning_explorer("digits")
    for name, value in (("clip", 3.0), ("noise_multiplier", 4.0), ("lot", 512), ("dataset", "mnist")):
        before = explorer.png, explorer.alt, explorer.caption
        explorer.controls[name].value = value
        now = explorer.png, explorer.alt, explorer.caption
        assert all(new != old for new, old in zip(now, before, strict=True))
    found = grid_of("mnist")
    assert tuple(lot for _, lot in explorer.controls["lot"].options) == found.values("lot")
    assert explorer.caption == verdict(found, 3.0, 4.0, explorer.controls["lot"].value)
    assert 'role="alert"' not in explorer.children[2].value


def test_without_a_grid_it_starts_with_digits_and_says_so(monkeypatch, tmp_path):
    kept = tmp_path / "tuning_digits.json"
    kept.write_text(json.dumps(load_measurement("tuning_digits")))
    monkeypatch.setattr(sys.modules[render.__module__], "results_file", lambda name: tmp_path / f"{name}.json")
    explorer = tuning_explorer("mnist")
    assert explorer.controls["dataset"].options == ("digits",)
    assert explorer.caption.startswith("mnist has no measured grid here, so this is digits. digits: ")
    assert not tuning_explorer("digits").caption.startswith("mnist")


def test_bad_arguments_are_refused(refuses):
    refuses(grid_of, {"dataset": "moons"}, "dataset is 'moons'", "digits")
    refuses(tuning_explorer, {"dataset": "faces"}, "dataset is 'faces'", "digits")
    good = {"found": grid_of("digits"), "clip": 1.0, "noise_multiplier": 1.0, "lot": 128}
    for function in (render, verdict, describe):
        refuses(function, good | {"clip": 2.0}, "clip is 2.0", "0.1, 0.3, 1, 3, 10")
        refuses(function, good | {"noise_multiplier": 3}, "noise_multiplier is 3", "2, 4, 8")
        refuses(function, good | {"lot": 64}, "lot is 64", "32, 128, 512, 1078")

"""The gate explorer: one row opens to the label that the gate's truth names; the evaluator is told nothing else."""

import itertools

import pytest

from spai_lab.style import to_png
from spai_lab.widgets.gate_explorer import (
    GARBLINGS,
    GATES,
    describe,
    garbled,
    gate_explorer,
    render,
    rows,
    shown,
    verdict,
)

OPERATORS = {"AND": int.__and__, "OR": int.__or__, "XOR": int.__xor__}
every_input = pytest.mark.parametrize(("gate", "a", "b"), list(itertools.product(GATES, (0, 1), (0, 1))))


def texts(fig):
    return [artist.get_text() for artist in fig.findobj() if hasattr(artist, "get_text")]


@every_input
def test_one_row_opens_and_says_what_python_says(gate, a, b):
    for garbling in range(1, GARBLINGS + 1):
        found = rows(gate, a, b, garbling)
        assert [row.bit for row in found if row.pointed] == [OPERATORS[gate](a, b)]
        assert [row.bit for row in found if not row.pointed] == [None] * 3


@every_input
def test_the_evaluators_picture_is_the_same_whatever_a_label_means(gate, a, b):
    """But for bytes and the row that is marked: no bit is written anywhere."""
    seen = texts(render(gate, a, b, "evaluator", 1))
    assert "stands for ?" in seen and "stands for 0" not in seen and "stands for 1" not in seen
    assert not any("label of" in text and text.endswith(("0", "1")) for text in seen)
    assert f"{a} {gate} {b}" not in verdict(gate, a, b, "evaluator", 1)
    assert "nobody here knows" in describe(gate, a, b, "evaluator", 1)


def test_the_garbler_knows_what_came_out():
    seen = texts(render("AND", 1, 1, "garbler", 1))
    assert seen.count("noise") == 3 and "the output's label of 1" in seen
    assert "1 AND 1 = 1" in verdict("AND", 1, 1, "garbler", 1)


def test_rows_show_the_bytes_of_the_table():
    fig = render("AND", 0, 1, "evaluator", 2)
    assert {shown(row.tobytes()) for row in garbled("AND", 2).rows} <= set(texts(fig))
    assert to_png(fig).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("bad", "name"),
    [
        (("NAND", 0, 0, "evaluator", 1), "gate"),
        (("AND", 2, 0, "evaluator", 1), "a is 2"),
        (("AND", 0, -1, "evaluator", 1), "b is -1"),
        (("AND", 0, 0, "nobody", 1), "eye"),
        (("AND", 0, 0, "evaluator", GARBLINGS + 1), "garbling"),
    ],
)
def test_bad_settings_are_named(bad, name):
    with pytest.raises(ValueError, match=name):
        render(*bad)


def test_the_widget_follows_its_controls():
    explorable = gate_explorer()
    before = explorable.png
    explorable.controls["garbling"].value = 3
    assert explorable.png != before and "Garbling 3" in explorable.alt
    explorable.controls["eye"].value = "garbler"
    assert "The garbler knows" in explorable.caption

"""The survey's tables against counts taken from the taxonomy's file by other means."""

import tomllib

import pytest

from spai_lab.style import to_png
from spai_lab.survey.tables import attack_types, table_attack_types
from spai_lab.survey.taxonomy import load_taxonomy, rows_of


@pytest.fixture(scope="module")
def entries(root):
    return tomllib.loads((root / "data" / "taxonomy.toml").read_text(encoding="utf-8"))["row"]


@pytest.mark.parametrize("part", ["evasion", "poisoning"])
@pytest.mark.parametrize("knowledge", ["white-box", "gray-box", "black-box"])
def test_counts_by_knowledge_are_those_of_the_file(entries, part, knowledge):
    expected = sum(entry["part"] == part and knowledge in entry["access"].split(", ") for entry in entries)
    assert attack_types().loc[part, knowledge] == expected


def test_evasion_strikes_inference_and_poisoning_strikes_training():
    table = attack_types()
    assert table.loc["evasion", "training phase"] == table.loc["poisoning", "inference phase"] == 0
    assert table.loc["evasion", "inference phase"] == 23
    assert table.loc["poisoning", "training phase"] == 14


def test_the_figure_names_every_attack_once_for_each_kind_of_knowledge():
    lines = [line for text in table_attack_types().axes[0].texts for line in text.get_text().splitlines()]
    for row in rows_of(load_taxonomy(), "evasion", "poisoning"):
        mark = "●" if row.runnable else "○"
        assert lines.count(f"{mark} {row.name.split(' (')[0]}") == len(row.access.split(", ")), row.id


def test_no_text_leaves_the_figure():
    figure = table_attack_types()
    to_png(figure)
    width, height = figure.canvas.get_width_height()
    for text in figure.axes[0].texts:
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, text.get_text()

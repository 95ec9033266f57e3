"""Prints: whole files, fonts inside, and inside each what it shows and from which measurement."""

import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from spai_lab.survey import prints
from spai_lab.survey.measured_rows import source_of
from spai_lab.survey.prints import CAPTIONS, FORMATS, PRINTS, save_all, save_figure
from spai_lab.survey.taxonomy import load_taxonomy, rows_of
from tests.survey.fake_survey import MEASUREMENT

NAME = "table_attacks"
SOURCE = source_of(MEASUREMENT)
MEASURED = ["table_attacks", "table_defenses", "table_private_ai"]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """One measured figure, saved once for the tests that only read it."""
    folder = tmp_path_factory.mktemp("prints") / "new"
    save_figure(NAME, folder, measurement=MEASUREMENT)
    return folder


def test_the_prints_are_those_that_the_taxonomy_lists():
    assert list(PRINTS) == [row.id for row in rows_of(load_taxonomy(), "tables and figures")]


def test_a_figure_becomes_three_files_and_a_caption(saved):
    assert sorted(path.name for path in saved.iterdir()) == sorted([*(f"{NAME}.{end}" for end in FORMATS), CAPTIONS])
    told = json.loads((saved / CAPTIONS).read_text(encoding="utf-8"))[NAME]
    assert told["source"] == SOURCE
    assert told["caption"].startswith("Of 47 attacks 7 are measured")
    assert told["alt"] and told["files"] == [f"{NAME}.{ending}" for ending in FORMATS]


def test_the_png_has_300_dots_to_the_inch_and_says_what_it_shows(saved):
    with Image.open(saved / f"{NAME}.png") as image:
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
        assert image.width > 4000
        assert image.info["Source"] == SOURCE and image.info["Creation Time"] == "2026-02-03"
        assert "Three panels of dots" in image.info["Description"]


def test_the_pdf_embeds_its_fonts_and_names_its_measurement(saved):
    content = (saved / f"{NAME}.pdf").read_bytes()
    fonts, embedded = content.count(b"/Type /FontDescriptor"), content.count(b"/FontFile2")
    assert fonts == embedded > 0
    assert b"/Subtype /Type3" not in content
    assert SOURCE.encode() in content and b"(D:20260203" in content


def test_the_svg_needs_no_font_and_has_title_and_alt_text(saved):
    root = ElementTree.parse(saved / f"{NAME}.svg").getroot()
    assert root.get("role") == "img"
    assert [each.text for each in root.findall(f"{SVG}title")] == ["Every attack, measured"]
    assert root.find(f"{SVG}desc").text.startswith("Three panels of dots")
    assert not list(root.iter(f"{SVG}text"))  # letters are outlines
    text = (saved / f"{NAME}.svg").read_text(encoding="utf-8")
    assert f"<dc:source>{SOURCE}</dc:source>" in text and "2026-02-03</dc:date>" in text


def test_the_same_measurement_gives_the_same_files(saved, tmp_path):
    for path in save_figure(NAME, tmp_path, measurement=MEASUREMENT):
        assert path.read_bytes() == (saved / path.name).read_bytes(), path.name


def test_captions_of_other_figures_stay(tmp_path):
    save_figure("figure_phases", tmp_path)
    save_figure("table_attack_types", tmp_path)
    told = json.loads((tmp_path / CAPTIONS).read_text(encoding="utf-8"))
    assert list(told) == ["table_attack_types", "figure_phases"]
    assert told["figure_phases"]["source"] == "data/taxonomy.toml"
    assert "23 inference phase" in told["table_attack_types"]["alt"]


def test_a_failure_leaves_the_old_file_whole(monkeypatch, tmp_path):
    for ending in FORMATS:
        (tmp_path / f"figure_phases.{ending}").write_bytes(b"old")

    def breaks(self, buffer, **settings):
        buffer.write(b"half of a")
        raise OSError("no space")

    monkeypatch.setattr(Figure, "savefig", breaks)
    with pytest.raises(OSError, match="no space"):
        save_figure("figure_phases", tmp_path)
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {b"old"}


def test_somebody_elses_captions_are_not_overwritten(tmp_path, refuses):
    (tmp_path / CAPTIONS).write_text("[1, 2", encoding="utf-8")
    refuses(save_figure, {"name": "figure_phases", "folder": tmp_path}, CAPTIONS, "holds no captions")
    assert [path.name for path in tmp_path.iterdir()] == [CAPTIONS]


def test_unknown_names_profiles_and_measurements_are_refused(refuses, tmp_path):
    refuses(save_figure, {"name": "figure_of_merit", "folder": tmp_path}, "name", "'figure_phases'")
    refuses(save_figure, {"name": NAME, "folder": tmp_path, "measurement": {"rows": 1}}, "measurement")
    refuses(save_all, {"folder": tmp_path, "profile": "slow"}, "profile", "'quick', 'full'")
    assert not list(tmp_path.iterdir())


def test_without_a_measurement_nothing_is_written(monkeypatch, refuses, tmp_path):
    monkeypatch.setattr("spai_lab.survey.measure.results_file", lambda name: tmp_path / "none" / f"{name}.json")
    refuses(save_all, {"folder": tmp_path / "new"}, "survey_quick", "spai-lab measure")
    assert not (tmp_path / "new").exists()


def test_all_are_saved_from_the_same_measurement(monkeypatch, tmp_path):
    asked = []

    def save(name, folder, *, measurement):
        asked.append((name, measurement["name"]))
        return [folder / name]

    monkeypatch.setattr(prints, "save_figure", save)
    monkeypatch.setattr(prints, "load_measurement", lambda name: MEASUREMENT | {"name": name})
    files = save_all(tmp_path, "full")
    assert asked == [(name, "survey_full") for name in PRINTS]
    assert files == [*(tmp_path / name for name in PRINTS), tmp_path / CAPTIONS]


@pytest.mark.full
def test_all_seven_are_drawn_and_none_is_blank(tmp_path):
    files = save_all(tmp_path, measurement=MEASUREMENT)
    assert len(files) == 3 * 7 + 1 and all(path.stat().st_size > 1000 for path in files)
    for name in PRINTS:
        with Image.open(tmp_path / f"{name}.png") as image:
            assert np.asarray(image.convert("L")).std() > 10, name
    told = json.loads((tmp_path / CAPTIONS).read_text(encoding="utf-8"))
    assert list(told) == list(PRINTS)
    assert [name for name in told if told[name]["source"] == SOURCE] == MEASURED

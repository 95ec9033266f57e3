"""The measured figures show the numbers of the measurement, all of them and nothing else."""

import pytest
from matplotlib.colors import to_hex

from spai_lab.metrics import Rate
from spai_lab.style import COLORS, SEQUENTIAL, to_png
from spai_lab.survey.measured_figures import figure_attacks, figure_defenses, figure_private_ai
from spai_lab.survey.measured_words import attacks_in_words, defenses_in_words, private_in_words
from spai_lab.survey.taxonomy import load_taxonomy, rows_of
from tests.survey.fake_survey import COMPARISONS, EMPTY, FAILED, MEASUREMENT

FIGURES = {
    "attacks": (figure_attacks, attacks_in_words),
    "defenses": (figure_defenses, defenses_in_words),
    "private": (lambda m: figure_private_ai(m, COMPARISONS), lambda m: private_in_words(m, COMPARISONS)),
}


@pytest.fixture(scope="module")
def drawn():
    return {name: draw(MEASUREMENT) for name, (draw, _) in FIGURES.items()}


def dots(figure):
    return {each.get_gid(): each for ax in figure.axes for each in ax.lines if each.get_gid()}


def words(figure):
    return [text.get_text() for ax in figure.axes for text in ax.texts]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("attacks", ["evasion", "poisoning", "threats"]),
        ("defenses", ["defenses against evasion", "defenses against poisoning"]),
        ("private", ["differential privacy", "cryptography"]),
    ],
)
def test_every_method_has_its_row(drawn, name, parts):
    labels = [label.get_text().split(" (")[0] for ax in drawn[name].axes for label in ax.get_yticklabels()]
    for row in rows_of(load_taxonomy(), *parts):
        assert labels.count(row.name.split(" (")[0]) == 1, row.id


@pytest.mark.parametrize(
    ("dot", "share"),
    [
        ("fgsm MNIST", 0.75),
        ("pgd digits", 0.9),
        ("deepfool MNIST", 0.3),
        ("label_flip digits", 0.187),
        ("badnets digits", 0.95),
        ("badnets MNIST", 0.9),
        ("lira MNIST", 0.1),
    ],
)
def test_a_dot_stands_at_its_share(drawn, dot, share):
    assert dots(drawn["attacks"])[dot].get_xdata() == pytest.approx([share])


def test_what_has_no_share_has_no_dot_but_its_number(drawn):
    assert not [gid for gid in dots(drawn["attacks"]) if gid.startswith("memorization")]
    said = words(drawn["attacks"])
    for number in ("12.4 bits", "1.5 L2", "18.7 points", "75.0 %"):
        assert said.count(number) == 1
    assert "95.0 %" not in said  # badnets is told on MNIST


def test_intervals_and_controls_are_drawn(drawn):
    evasion = drawn["attacks"].axes[0]
    spans = [tuple(each.get_xdata()) for each in evasion.lines if len(each.get_xdata()) == 2]
    assert any(span == pytest.approx(Rate(30, 40).interval) for span in spans)
    gray = [each.get_xdata()[0] for each in evasion.lines if to_hex(each.get_color()) == COLORS["baseline"]]
    assert gray == pytest.approx([0.1])


def test_what_failed_or_is_missing_says_so_in_its_place(drawn):
    gaps = {text.get_gid(): text.get_text() for ax in drawn["attacks"].axes for text in ax.texts if text.get_gid()}
    assert gaps["zoo gap"] == f"failed: {FAILED['zoo']}"
    assert gaps["bim gap"] == "not measured yet"


def test_the_heatmap_has_its_numbers_and_frames_the_strongest(drawn):
    evasion, poisoning = drawn["defenses"].axes
    mesh = evasion.collections[0]
    heads = [label.get_text() for label in evasion.get_xticklabels()]
    rows = [label.get_text() for label in evasion.get_yticklabels()]
    height = rows.index("Thermometer encoding")
    shares = mesh.get_array().reshape(len(rows), len(heads))
    found = dict(zip(heads, shares[height], strict=True))
    assert [found[name] for name in ("clean", "FGSM", "PGD", "adaptive ◆", "all attacks")] == [0.9, 0.8, 0.2, 0.2, 0.1]
    frames = {patch.get_gid(): patch for ax in (evasion, poisoning) for patch in ax.patches if patch.get_gid()}
    frame = frames["thermometer strongest"]
    assert (int(frame.get_x()), int(frame.get_y())) == (heads.index("adaptive ◆"), height)
    assert mesh.get_cmap().name == SEQUENTIAL
    assert "MagNet (L2)" in rows and "Interval bounds (digits)" in rows


def test_the_cells_of_attacks_that_were_not_run_are_empty(drawn):
    evasion = drawn["defenses"].axes[0]
    numbers = [text.get_text() for text in evasion.texts if text.get_text().isdigit()]
    assert sorted(map(int, numbers)) == sorted([90, 80, 20, 20, 10, 90, 70, 60, 50, 90, 20, 20])


def test_ratios_of_measured_and_published(drawn):
    marks = dots(drawn["private"])
    assert marks["dp-95"].get_xdata() == pytest.approx([0.94 / 0.95])
    assert marks["batch-seconds"].get_xdata() == pytest.approx([0.1])
    assert "fgsm-error" not in marks
    looks = {marks[name].get_marker() for name in ("dp-95", "dp-80")}
    assert len(looks) == 2  # reproduced and deviating differ in shape too
    assert to_hex(marks["batch-seconds"].get_markerfacecolor()) == "#ffffff"
    assert "94.0 % / 95.0 %" in words(drawn["private"])


@pytest.mark.parametrize("name", list(FIGURES))
def test_the_file_stands_at_the_bottom(drawn, name):
    [source] = [text for text in drawn[name].texts if text.get_gid() == "source"]
    assert source.get_text() == "data/results/survey_quick.json, measured 2026-02-03, seed 3"


@pytest.mark.parametrize("name", list(FIGURES))
def test_no_words_leave_the_figure_and_the_smallest_can_be_read(drawn, name):
    figure = drawn[name]
    to_png(figure)
    width, height = figure.canvas.get_width_height()
    labels = [label for ax in figure.axes for label in (*ax.get_yticklabels(), *ax.get_xticklabels(), *ax.texts)]
    for text in [*figure.texts, *labels]:
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, text.get_text()
        assert text.get_gid() == "source" or text.get_fontsize() >= 12, text.get_text()


@pytest.mark.parametrize("name", list(FIGURES))
def test_an_empty_measurement_is_drawn_as_such(name):
    draw, tell = FIGURES[name]
    assert to_png(draw(EMPTY))
    assert "0 are measured" in tell(EMPTY).caption


def test_captions_and_alt_texts_tell_the_numbers():
    attacks, defenses, private = (tell(MEASUREMENT) for _, tell in FIGURES.values())
    assert attacks.caption.startswith("Of 47 attacks 7 are measured, 1 failed and 39 are not measured yet.")
    assert "2 of 3 evasion attacks fool at least half" in attacks.caption
    assert "Measured on digits only: Projected gradient and Label flipping." in attacks.caption
    assert "from DeepFool at 30 % to Projected gradient at 90 %" in attacks.alt
    assert (
        "1 of 3 against evasion keep at least half of the images under all attacks: Interval bounds."
        in defenses.caption
    )
    assert "Thermometer encoding (90 clean, 10 under all attacks, adaptive the strongest)" in defenses.alt
    assert "TRADES failed" in defenses.alt
    assert "3 published figures: 1 reproduced, 1 outside tolerance" in private.caption
    assert "CryptoNets (99.0 %, 19 s and 301 MB a batch)" in private.alt
    for told in (attacks, defenses, private):
        assert told.alt.endswith("survey_quick.json, measured 2026-02-03, seed 3.")

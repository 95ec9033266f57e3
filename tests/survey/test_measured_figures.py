"""The measured figures show the numbers of the measurement, all of them and nothing else."""

from functools import partial

import pytest
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D

from spai_lab.metrics import Rate
from spai_lab.style import COLORS, MARKERS, SEQUENTIAL, to_png
from spai_lab.survey.ledger import COMPUTED, OUTCOMES
from spai_lab.survey.measure import load_measurement
from spai_lab.survey.measured_figures import figure_attacks, figure_defenses, figure_private_ai
from spai_lab.survey.measured_private import PARTS
from spai_lab.survey.measured_published import published_of, ratio_look, speaking
from spai_lab.survey.measured_rows import lines_of
from spai_lab.survey.measured_words import attacks_in_words, defenses_in_words, private_in_words
from spai_lab.survey.taxonomy import load_taxonomy, rows_of
from tests.survey.fake_survey import COMPARISONS, EMPTY, FAILED, MEASUREMENT

FIGURES = {
    "attacks": (figure_attacks, attacks_in_words),
    "defenses": (figure_defenses, defenses_in_words),
    "private": (lambda m: figure_private_ai(m, COMPARISONS), lambda m: private_in_words(m, COMPARISONS)),
}
APART = {
    **{
        name: (partial(figure_defenses, against=name), partial(defenses_in_words, against=name))
        for name in ("evasion", "poisoning")
    },
    **{
        part: (
            partial(figure_private_ai, comparisons=COMPARISONS, part=part),
            partial(private_in_words, comparisons=COMPARISONS, part=part),
        )
        for part in ("differential privacy", "cryptography")
    },
}
ALL = FIGURES | APART
COLUMN = 828  # pixels, of a notebook's column at 1,280


@pytest.fixture(scope="module")
def drawn():
    return {name: draw(MEASUREMENT) for name, (draw, _) in ALL.items()}


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
        ("evasion", ["defenses against evasion"]),
        ("poisoning", ["defenses against poisoning"]),
        ("differential privacy", ["differential privacy"]),
        ("cryptography", ["cryptography"]),
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
    for number in ("12.4 bits of 13.3", "30 %, median 1.5 L2", "18.7 points", "75 %", "10 % at 1 % false alarms"):
        assert said.count(number) == 1
    assert "90 % opened" in said and "95 % opened" not in said  # badnets is told on MNIST


def test_intervals_and_controls_are_drawn(drawn):
    evasion = drawn["attacks"].axes[0]
    spans = [tuple(each.get_xdata()) for each in evasion.lines if len(each.get_xdata()) == 2]
    assert any(span == pytest.approx(Rate(30, 40).interval) for span in spans)
    gray = [each.get_xdata()[0] for each in evasion.lines if to_hex(each.get_color()) == COLORS["baseline"]]
    assert gray == pytest.approx([0.1])


def test_the_legend_has_the_marks_of_the_plot(drawn):
    [legend] = drawn["attacks"].legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "filled: MNIST", "hollow: digits", "without the attack", "95 % interval",
    ]  # fmt: skip
    marks = {(each.get_marker(), to_hex(each.get_color())) for each in legend.findobj(Line2D)}
    assert {(MARKERS[role], COLORS[role]) for role in ("adversarial", "poisoned", "private")} <= marks


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
    assert [found[name] for name in ("clean", "FGSM", "PGD", "adaptive", "all attacks")] == [0.9, 0.8, 0.2, 0.2, 0.1]
    frames = {patch.get_gid(): patch for ax in (evasion, poisoning) for patch in ax.patches if patch.get_gid()}
    frame = frames["thermometer strongest"]
    assert (int(frame.get_x()), int(frame.get_y())) == (heads.index("adaptive"), height)
    assert mesh.get_cmap().name == SEQUENTIAL
    assert "MagNet (L2, eps 3)" in rows and "Interval bounds (eps 0.1, digits)" in rows
    assert "MNIST, L-inf, eps 0.3" in "".join(text.get_text() for text in drawn["evasion"].texts)
    assert [label.get_text() for label in poisoning.get_xticklabels()][-1] == "strongest"
    assert "Robust aggregation (median)" in [label.get_text() for label in poisoning.get_yticklabels()]


def test_a_diamond_marks_the_attack_that_knows_this_very_defense(drawn):
    def cells(name, row):
        (ax,) = drawn[name].axes
        heads = [label.get_text() for label in ax.get_xticklabels()]
        height = [label.get_text().split(" (")[0] for label in ax.get_yticklabels()].index(row) + 0.5
        at = {text.get_position()[0]: text.get_text() for text in ax.texts if text.get_position()[1] == height}
        return {head: at[place + 0.5] for place, head in enumerate(heads) if at.get(place + 0.5)}

    pruned = cells("poisoning", "Fine-pruning")
    assert pruned["badnets"] == "40" and pruned["blended"].split() == ["90", "◆"]
    assert [name for name, cell in cells("evasion", "Thermometer encoding").items() if "◆" in cell] == ["adaptive"]


def test_the_cells_of_attacks_that_were_not_run_are_empty(drawn):
    evasion = drawn["defenses"].axes[0]
    numbers = [text.get_text().removesuffix("◆").strip() for text in evasion.texts]
    numbers = [int(number) for number in numbers if number.isdigit()]
    assert sorted(numbers) == sorted([90, 80, 20, 20, 10, 90, 70, 60, 50, 90, 20, 20])


def test_shares_are_compared_by_their_difference_and_all_else_by_its_ratio(drawn):
    marks = dots(drawn["private"])
    assert marks["dp-95"].get_xdata() == pytest.approx([-1.0])  # points
    assert marks["batch-seconds"].get_xdata() == pytest.approx([0.1])
    assert "fgsm-error" not in marks
    looks = {marks[name].get_marker() for name in ("dp-95", "dp-80")}
    assert len(looks) == 2  # reproduced and deviating differ in shape too
    assert to_hex(marks["batch-seconds"].get_markerfacecolor()) == "#ffffff"
    assert {"94.0 / 95.0 %", "25 / 250 s"} <= set(words(drawn["private"]))
    assert "dp-95" not in dots(drawn["cryptography"]) and "batch-seconds" not in dots(drawn["differential privacy"])


def test_every_outcome_has_a_look_of_its_own():
    outcomes = {*OUTCOMES, COMPUTED}
    looks = {(look["marker"], look.get("markerfacecolor")) for look in map(ratio_look, outcomes)}
    assert len(looks) == len(outcomes)


def test_published_figures_have_speaking_names():
    for each in published_of({line.row.id for line in lines_of(EMPTY, *PARTS)}, None):
        assert len(speaking(each)) < 36 and "-" not in speaking(each).replace("DP-SGD", "")


@pytest.mark.parametrize("name", list(ALL))
def test_the_file_stands_at_the_bottom(drawn, name):
    [source] = [text for text in drawn[name].texts if text.get_gid() == "source"]
    assert source.get_text() == "data/results/survey_quick.json, measured 2026-02-03, seed 3"


@pytest.mark.parametrize("name", list(ALL))
def test_no_words_leave_the_figure_and_the_smallest_can_be_read(drawn, name):
    everything_is_seen(drawn[name])


@pytest.mark.parametrize("name", list(ALL))
def test_no_words_of_the_kept_measurement_leave_the_figure(name):
    try:
        measurement = load_measurement("survey_full")
    except ValueError as error:
        pytest.skip(f"not measured here: {error}")
    draw, _ = {
        "private": (figure_private_ai, None),
        **{part: (partial(figure_private_ai, part=part), None) for part in PARTS},
    }.get(name, ALL[name])
    everything_is_seen(draw(measurement))


def everything_is_seen(figure):
    """Nothing is cut off, and in a notebook's column nothing is smaller than 12 pixels."""
    to_png(figure)
    width, height = figure.canvas.get_width_height()
    labels = [label for ax in figure.axes for label in (*ax.get_yticklabels(), *ax.get_xticklabels(), *ax.texts)]
    legends = [text for legend in figure.legends for text in legend.get_texts()]
    for text in [*figure.texts, *labels, *legends]:
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, text.get_text()
        assert text.get_fontsize() / 72 * COLUMN / figure.get_figwidth() >= 12, text.get_text()


@pytest.mark.parametrize("name", list(ALL))
def test_an_empty_measurement_is_drawn_as_such(name):
    draw, tell = ALL[name]
    assert to_png(draw(EMPTY))
    assert "0 are measured" in tell(EMPTY).caption


def test_captions_and_alt_texts_tell_the_numbers():
    attacks, defenses, private = (tell(MEASUREMENT) for _, tell in FIGURES.values())
    assert attacks.caption.startswith("Of 47 attacks 7 are measured, 1 failed and 39 are not measured yet.")
    assert "2 of 3 evasion attacks fool at least half" in attacks.caption
    assert "within their radius (eps 0.2 in L-inf and 1.5 in L2)" in attacks.caption
    assert "2 attacks were measured on digits alone" in attacks.caption
    assert "Measured on digits only: Projected gradient and Label flipping." in attacks.alt
    assert "from DeepFool at 30 % to Projected gradient at 90 %" in attacks.alt
    assert "DeepFool 30 %, median 1.5 L2" in attacks.alt
    assert "against evasion, 1 of 3 attacked keep at least half under all attacks" in defenses.caption
    assert "Thermometer encoding (90 clean, 10 under all attacks, adaptive ◆ the strongest)" in defenses.alt
    assert "TRADES failed" in defenses.alt
    assert "3 published figures" in private.caption
    assert "1 reproduced, 1 deviates and 1 not comparable" in private.caption
    assert "CryptoNets (99.0 %, 19 s and 301 MB a batch, client and server)" in private.alt


def test_defenses_shown_apart_say_what_survives_and_who_knows_them():
    evasion, poisoning = (APART[name][1](MEASUREMENT) for name in ("evasion", "poisoning"))
    assert "1 of 3 attacked keep at least half under all attacks: Interval bounds." in evasion.caption
    assert "images rightly read; for MagNet attacked images detected or rightly read." in evasion.caption
    assert (
        "2 of 3 met an attack that knows them (◆), in 2 no other was stronger; none knows Interval bounds."
        in evasion.caption
    )
    assert "triggers that do not open; for Reject on negative impact test images rightly read." in poisoning.caption
    assert "Why no attack knows the defense: Reject on negative impact, not in this book." in poisoning.alt


@pytest.mark.parametrize("name", list(ALL))
def test_captions_are_short_and_the_file_is_named_last(name):
    told = ALL[name][1](MEASUREMENT)
    assert told.caption.count(". ") <= 2
    assert told.alt.endswith("survey_quick.json, measured 2026-02-03, seed 3.")

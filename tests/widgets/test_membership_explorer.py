"""The membership explorer: histograms, points and words say what a direct count of the measured scores says."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from sklearn.metrics import precision_score, roc_auc_score

from spai_lab.metrics import Rate
from spai_lab.style import COLORS, MARKERS
from spai_lab.survey.measure import load_measurement
from spai_lab.survey.membership_jobs import ATTACKS, GRID
from spai_lab.widgets.choices import DATASETS
from spai_lab.widgets.membership_explorer import (
    Evidence,
    backdrop,
    conclusion,
    describe,
    evidence_of,
    if_rare,
    membership_explorer,
    render,
    thresholds,
    verdict,
)
from spai_lab.widgets.roc_panel import NONE, in_percent

PAIRS = [(dataset, attack) for dataset in DATASETS for attack in ATTACKS]
every = pytest.mark.parametrize(("dataset", "attack"), PAIRS)


def parts(fig):
    return {artist.get_gid(): artist for artist in fig.findobj() if artist.get_gid()}


def measured(dataset, attack):
    """The first row's told numbers, the first model's scores, and which inputs it was trained on."""
    row = load_measurement(f"membership_{dataset}")["rows"][0]
    inside = np.array([bit == "1" for bit in row["first"]["inside"]])
    return row["attacks"][attack], np.array(row["first"][attack]), inside


@every
def test_the_rates_are_those_of_a_direct_count(dataset, attack):
    evidence, (_, scores, inside) = evidence_of(dataset, attack), measured(dataset, attack)
    assert evidence.roc.area == pytest.approx(roc_auc_score(inside, scores))
    for value in evidence.grid:
        called = scores >= value
        assert evidence.found(value) == Rate(int((called & inside).sum()), int(inside.sum()))
        assert evidence.alarms(value) == Rate(int((called & ~inside).sum()), int((~inside).sum()))
        assert evidence.precision(value).value == pytest.approx(precision_score(inside, called))


@every
def test_the_slider_goes_from_the_fewest_false_positives_to_all(dataset, attack):
    evidence, (_, scores, inside) = evidence_of(dataset, attack), measured(dataset, attack)
    strictest, loosest = evidence.grid[-1], evidence.grid[0]
    assert loosest == scores.min() and strictest <= scores.max()
    assert evidence.alarms(strictest).hits == (0 if scores.max() > scores[~inside].max() else 1)
    assert evidence.alarms(evidence.usual).value <= 0.01
    for value in evidence.grid:
        below = scores[scores < value]
        if len(below):
            assert (scores[~inside] >= below.max()).sum() > evidence.alarms(value).hits, "it could be lower"


@every
def test_the_picture_shows_the_threshold_the_point_and_both_rates(dataset, attack):
    evidence = evidence_of(dataset, attack)
    low, high = sorted(backdrop(evidence).axes["evidence"].get_xlim())
    for value in (evidence.grid[0], evidence.usual, evidence.grid[-1]):
        named, found, alarms = parts(render(evidence, value)), evidence.found(value), evidence.alarms(value)
        expected = [max(rate.value, NONE) for rate in (alarms, found)]
        assert named["present"].get_xydata()[0] == pytest.approx(expected)
        assert list(named["false interval"].get_xdata()) == pytest.approx([max(x, NONE) for x in alarms.interval])
        assert list(named["true interval"].get_ydata()) == pytest.approx([max(x, NONE) for x in found.interval])
        assert named["true"].get_text() == f"true positives {in_percent(found, 1)}"
        assert named["false"].get_text() == f"false positives {in_percent(alarms, 1)}"
        place = named["threshold"].get_xdata()[0]
        assert low <= place <= high and evidence.text(value) in named["rule"].get_text()


@every
def test_the_shaded_side_holds_the_scores_that_are_called_members(dataset, attack):
    evidence = evidence_of(dataset, attack)
    box = parts(render(evidence, evidence.usual))["suspected"]
    left, right = box.get_x(), box.get_x() + box.get_width()
    for scores, rate in ((evidence.members, evidence.found), (evidence.others, evidence.alarms)):
        drawn = evidence.drawn(scores).clamp(*evidence.limits)
        assert int(((left <= drawn) & (drawn <= right)).sum()) == rate(evidence.usual).hits


@every
def test_the_histograms_hold_every_input(dataset, attack):
    evidence = evidence_of(dataset, attack)
    ax = backdrop(evidence).axes["evidence"]
    for line, role, group in zip(ax.lines, ("private", "clean"), (evidence.members, evidence.others), strict=True):
        assert line.get_ydata().sum() == len(group)
        assert to_hex(line.get_color()) == COLORS[role] and line.get_marker() == MARKERS[role]
    towards_members = ax.get_xlim()[0] > ax.get_xlim()[1]
    assert towards_members == (attack in ("loss", "LiRA, offline"))


@every
def test_the_curves_are_this_models_steps_and_the_pooled_measurement(dataset, attack):
    evidence, (told, scores, inside) = evidence_of(dataset, attack), measured(dataset, attack)
    ax = backdrop(evidence).axes["roc"]
    lines = {line.get_label(): line for line in ax.lines}
    counts = {(scores[~inside] >= value).sum(): (scores[inside] >= value).sum() for value in np.sort(scores)[::-1]}
    drawn = dict(lines["this model"].get_xydata())
    for number, most in counts.items():
        if number > 0:
            assert drawn[number / (~inside).sum()] == pytest.approx(max(most / inside.sum(), NONE))
    assert lines["this model"].get_xdata()[0] >= 1 / (~inside).sum()
    shared = lines[f"all {evidence.models} models"]
    assert all(np.isclose(GRID, false).any() for false in shared.get_xdata())
    assert shared.get_xdata()[0] >= 10 / told["innocent"]
    kept = dict(zip(GRID.tolist(), told["curve"], strict=True))
    assert [kept[false] for false in shared.get_xdata()] == list(shared.get_ydata())


def made_up(members, others, attack="LiRA, online"):
    scores = (torch.tensor(group, dtype=torch.float64) for group in (members, others))
    return Evidence("digits", attack, *scores, 1, tuple(GRID.tolist()), 4, 0.01, evidence_of("digits", attack).caught)


def test_no_threshold_calls_nobody_a_member():
    evidence = made_up([0.0, 1.0, 2.0], [3.0, 0.5, -1.0, 0.0])
    assert evidence.grid == (-1.0, 0.0, 0.5, 1.0)
    assert evidence.precision(1.0) == Rate(2, 3)
    assert "nan" not in verdict(evidence, 1.0) + describe(evidence, 1.0)


def test_a_loss_that_is_zero_is_drawn():
    evidence = made_up([-0.0, -0.0, -1e-3], [-0.0, -2.0, -1.0], attack="loss")
    assert render(evidence, evidence.grid[-1]) and all(limit > 0 for limit in evidence.limits)


def test_the_precision_among_rare_members_is_that_of_bayes():
    found, alarms, members, others = 0.5, 0.01, 10, 990
    share = found * members / (found * members + alarms * others)
    assert f"{100 * share:.0f} %" in if_rare(Rate(50, 100), Rate(1, 100))
    upper = Rate(0, 100).interval[1]
    share = found * members / (found * members + upper * others)
    assert f"{100 * share:.0f} %" in if_rare(Rate(50, 100), Rate(0, 100))


@pytest.mark.parametrize(
    ("precision", "word"),
    [(Rate(100, 100), "most likely"), (Rate(70, 100), "hint"), (Rate(3, 3), "nothing"), (Rate(50, 100), "nothing")],
)
def test_what_the_attacker_may_conclude_depends_on_the_interval(precision, word):
    assert word in conclusion(precision)


@every
def test_words_say_the_counts(dataset, attack):
    evidence = evidence_of(dataset, attack)
    for value in (evidence.grid[0], evidence.usual, evidence.grid[-1]):
        said, found, alarms = verdict(evidence, value), evidence.found(value), evidence.alarms(value)
        assert f"{found.hits} of {found.trials} members" in said and f"{alarms.hits} of {alarms.trials} others" in said
        assert str(evidence.precision(value)) in said and f"{100 * evidence.caught.value:.1f} %" in said
        for words in (said, describe(evidence, value)):
            assert "nan" not in words and words.endswith(".") and evidence.rule(value) in words


def test_controls_redraw_and_the_slider_follows_the_evidence():
    explorer = membership_explorer("digits")
    for dataset in DATASETS:
        explorer.controls["dataset"].value = dataset
        for attack in ATTACKS:
            explorer.controls["attack"].value = attack
            evidence = evidence_of(dataset, attack)
            assert list(explorer.controls["threshold"].options) == thresholds(evidence)
            assert explorer.controls["threshold"].value == evidence.usual
            before = explorer.png
            explorer.controls["threshold"].value = evidence.grid[10]
            assert explorer.png != before and explorer.caption == verdict(evidence, evidence.grid[10])
    assert 'role="alert"' not in explorer.children[2].value


@every
def test_every_value_of_the_slider_has_its_own_text(dataset, attack):
    labels = [label for label, _ in thresholds(evidence_of(dataset, attack))]
    assert len(set(labels)) == len(labels) > 20


def test_bad_arguments_are_refused(refuses):
    evidence = evidence_of("digits", "LiRA, online")
    refuses(evidence_of, {"dataset": "moons", "attack": "loss"}, "dataset is 'moons'", "digits")
    refuses(evidence_of, {"dataset": "digits", "attack": "hope"}, "attack is 'hope'", "LiRA, online")
    refuses(membership_explorer, {"dataset": "moons"}, "dataset is 'moons'")
    for function in (render, verdict, describe):
        refuses(function, {"evidence": evidence, "threshold": evidence.grid[-1] + 1}, "threshold")
        refuses(function, {"evidence": evidence, "threshold": float("nan")}, "threshold")

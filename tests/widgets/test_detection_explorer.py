"""The detection explorer: histograms, points and words say what was measured."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from sklearn.metrics import roc_auc_score

from spai_lab.style import COLORS, MARKERS
from spai_lab.survey.detection import caught, evading, false_alarms
from spai_lab.survey.detection_jobs import ADAPTIVE, DETECTORS
from spai_lab.survey.measure import load_measurement
from spai_lab.widgets.detection_explorer import (
    attacks,
    backdrop,
    describe,
    detection_explorer,
    evidence_of,
    render,
    thresholds,
    verdict,
)
from spai_lab.widgets.roc_panel import in_percent

PAIRS = [(detector, attack) for detector in DETECTORS for attack in attacks("digits", detector)]


def parts(fig):
    return {artist.get_gid(): artist for artist in fig.findobj() if artist.get_gid()}


@pytest.mark.parametrize(("detector", "attack"), PAIRS)
def test_the_usual_threshold_gives_the_rates_of_the_survey(detector, attack):
    evidence, measured = evidence_of("digits", detector, attack), load_measurement("detection_digits")
    assert evidence.caught(evidence.usual) == caught(measured, detector, attack, 0.05)
    assert evidence.alarms(evidence.usual) == false_alarms(measured, detector, 0.05)
    assert evidence.through(evidence.usual) == evading(measured, detector, attack)


@pytest.mark.parametrize(("detector", "attack"), PAIRS)
def test_the_point_lies_on_the_curve(detector, attack):
    evidence = evidence_of("digits", detector, attack)
    scores = np.concatenate([evidence.adversarial, evidence.clean])
    guilty = np.arange(len(scores)) < len(evidence.adversarial)
    assert evidence.roc.area == pytest.approx(roc_auc_score(guilty, scores))
    curve = np.stack([evidence.roc.false_positives, evidence.roc.true_positives], 1)
    for value in (evidence.grid[2], evidence.usual, evidence.grid[-3]):
        named = parts(render(evidence, value))
        alarms, hits = (scores[~guilty] > value).mean(), (scores[guilty] > value).mean()
        assert named["present"].get_xydata()[0] == pytest.approx([alarms, hits])
        assert np.abs(curve - [alarms, hits]).sum(1).min() < 1e-9
        assert list(named["threshold"].get_xdata()) == [value, value]
        assert f"{value:.3g}" in named["rule"].get_text()
        assert named["evading"].get_text().endswith(in_percent(evidence.through(value)))


@pytest.mark.parametrize("detector", DETECTORS)
def test_the_histograms_hold_every_image(detector):
    evidence = evidence_of("digits", detector, attacks("digits", detector)[0])
    ax = backdrop(evidence).axes["evidence"]
    lines, (low, high) = ax.lines, ax.get_xlim()
    assert low <= evidence.grid[0] < evidence.grid[-1] <= high
    for line, role, group in zip(lines, ("clean", "adversarial"), (evidence.clean, evidence.adversarial), strict=False):
        assert line.get_ydata().sum() == len(group)
        assert to_hex(line.get_color()) == COLORS[role] and line.get_marker() == MARKERS[role]


def test_words_say_the_rates_and_never_nan():
    for detector, attack in PAIRS:
        evidence = evidence_of("digits", detector, attack)
        for value in (evidence.grid[0], evidence.usual, evidence.grid[-1]):
            said = verdict(evidence, value)
            assert str(evidence.through(value)) in said and ("the default." in said) == (value == evidence.usual)
            assert ("aim anew" in said) == (attack in ADAPTIVE and value != evidence.usual)
            for words in (said, describe(evidence, value)):
                assert "nan" not in words and words.endswith(".")


def test_controls_redraw_and_the_slider_follows_the_evidence():
    explorer = detection_explorer("digits")
    explorer.controls["attack"].value = "adaptive"
    for detector in list(DETECTORS)[1:]:
        before = explorer.png
        explorer.controls["detector"].value = detector
        evidence = evidence_of("digits", detector, explorer.controls["attack"].value)
        assert explorer.controls["attack"].value == "adaptive"
        assert explorer.png != before and explorer.controls["threshold"].value == evidence.usual
        assert list(explorer.controls["threshold"].options) == thresholds(evidence)
        explorer.controls["threshold"].value = evidence.grid[10]
        assert explorer.caption == verdict(evidence, evidence.grid[10])
    assert 'role="alert"' not in explorer.children[2].value


def test_bad_arguments_are_refused(refuses):
    evidence = evidence_of("digits", "LID, from PGD", "adaptive")
    refuses(evidence_of, {"dataset": "moons", "detector": "LID, from PGD", "attack": "FGSM"}, "dataset is 'moons'")
    refuses(evidence_of, {"dataset": "digits", "detector": "nose", "attack": "FGSM"}, "detector is 'nose'", "LID")
    refuses(
        evidence_of, {"dataset": "digits", "detector": "LID, from PGD", "attack": "hope"}, "attack is 'hope'", "FGSM"
    )
    for function in (render, verdict, describe):
        refuses(function, {"evidence": evidence, "threshold": evidence.grid[-1] + 1}, "threshold")

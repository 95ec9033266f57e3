"""Detectors are judged by what fools the model and passes, with thresholds from clean validation images alone."""

import pytest
import torch
from sklearn.metrics import roc_auc_score

from spai_lab.metrics import Rate
from spai_lab.survey.detection import (
    ADVERSARIAL,
    STATIC,
    caught,
    detection_compared,
    detection_roc,
    detection_table,
    evading,
    false_alarms,
    fools,
    scores_of,
    threshold,
)
from spai_lab.survey.detection_jobs import ATTACKS, DETECTORS, IMAGES, VALIDATION, Scored, clean, guarded, jobs, tuned
from spai_lab.survey.ledger import published
from spai_lab.survey.measure import load_measurement
from spai_lab.threat import fooled
from spai_lab.training import manifest


def scored_row(attack: str, scores: list[float], fools: str) -> dict:
    return {"kind": "scored", "detector": "LID", "attack": attack, "scores": scores, "fools": fools}


MADE = {
    "rows": [
        scored_row("validation", [float(k) for k in range(100)], "0" * 100),
        scored_row("none", [1.0, 2.0, 97.0, 3.0], "0000"),
        scored_row("FGSM", [10.0, 99.0, 98.0, 97.0], "1110"),
        scored_row("PGD", [10.0], "0"),
    ]
}


def test_the_threshold_comes_from_validation_and_alarms_are_counted_on_test_images():
    assert threshold(MADE, "LID", 0.05) == 94.0
    assert false_alarms(MADE, "LID", 0.05) == Rate(1, 4)
    assert false_alarms(MADE, "LID", 0.01) == Rate(0, 4)


def test_only_images_that_fool_the_model_are_to_be_caught():
    assert caught(MADE, "LID", "FGSM", 0.05) == Rate(2, 3)
    assert caught(MADE, "LID", "PGD", 0.05) is None and detection_roc(MADE, "LID", "PGD") is None


def test_an_image_evades_if_it_fools_the_model_and_passes():
    assert evading(MADE, "LID", "FGSM", 0.05) == Rate(1, 4)
    assert evading(MADE, "LID", "PGD", 0.05) == Rate(0, 1)


def test_the_area_is_scikit_learns():
    expected = roc_auc_score([1, 1, 1, 0, 0, 0, 0], [10.0, 99.0, 98.0, 1.0, 2.0, 97.0, 3.0])
    assert detection_roc(MADE, "LID", "FGSM").area == pytest.approx(expected)


def test_every_detector_meets_every_attack():
    assert {(job.detector, job.attack) for job in jobs("digits")} == {(d, a) for d in DETECTORS for a in ATTACKS}
    assert "adaptive" in ADVERSARIAL and "adaptive" not in STATIC


def test_clean_images_are_read_rightly_by_the_guarded_model():
    guard = guarded("feature squeezing", "digits")
    x, y = clean(guard, "feature squeezing", "digits", seed=0)
    assert len(x) == IMAGES and not fooled(guard.model, x, y).any()


def test_a_row_says_what_the_detector_says():
    row = Scored("digits", "feature squeezing", "FGSM").run(seed=0)
    guard = guarded("feature squeezing", "digits")
    x, y = ATTACKS["FGSM"](guard, "feature squeezing", "digits", 0)
    torch.testing.assert_close(torch.tensor(row["scores"]), guard.detector(x), rtol=1e-4, atol=1e-6)
    assert [mark == "1" for mark in row["fools"]] == fooled(guard.model, x, y).tolist()


# --- the committed measurement ----------------------------------------------------------------------------------------


@pytest.fixture(params=["digits", "mnist"])
def committed(request):
    return load_measurement(f"detection_{request.param}")


def test_the_committed_measurement_holds_every_job_and_the_committed_weights(committed):
    for job in jobs(committed["data"]):
        (row,) = (row for row in committed["rows"] if row.items() >= job.key.items())
        count = VALIDATION if job.attack == "validation" else IMAGES
        assert len(row["fools"]) == len(row["scores"]) and len(row["scores"]) <= count
    name = committed["data"]
    assert committed["weights"] == {"lenet": manifest()["models"][f"lenet-{name}"]["sha256"]}


def test_attacks_that_do_not_know_the_detector_are_caught_more_than_clean_images(committed):
    for detector in DETECTORS:
        alarms = false_alarms(committed, detector, 0.05).value
        best = max(rate.value for attack in STATIC if (rate := caught(committed, detector, attack, 0.05)))
        assert best > alarms + 0.3, detector


def test_the_adaptive_attack_evades_more_than_those_in_its_ball(committed):
    for detector in DETECTORS:
        rates = [evading(committed, detector, attack).value for attack in ("adaptive", "FGSM", "PGD")]
        assert rates[0] >= max(rates[1:]), detector


def test_false_alarms_are_near_what_validation_promised(committed):
    """A share of .05 promised by 1,000 images and counted on 200: within five deviations of both together."""
    for detector in DETECTORS:
        assert false_alarms(committed, detector, 0.05).value <= 0.05 + 5 * (0.05 * 0.95 * (1 / 200 + 1 / 1000)) ** 0.5


def test_the_table_has_a_line_for_each_pair_and_figures_are_compared(committed):
    table = detection_table(committed)
    assert list(table.index) == [(detector, attack) for detector in DETECTORS for attack in ADVERSARIAL]
    if committed["data"] == "mnist":
        ids = {comparison.figure["id"] for comparison in detection_compared(committed)}
        assert ids == {"squeezing-detected", "magnet-carlini-wagner", "lid-adaptive"} <= published().keys()


@pytest.mark.full
def test_tuning_takes_the_best_setting_on_validation_images():
    assert set(tuned("feature squeezing", "digits")) == {"weight", "step_size"}


def test_scores_and_marks_have_one_entry_an_image(committed):
    for detector in DETECTORS:
        for attack in ATTACKS:
            assert len(scores_of(committed, detector, attack)) == len(fools(committed, detector, attack))

"""Detectors are judged by what fools the model and passes, with thresholds from clean validation images alone."""

import pytest
import torch
from sklearn.metrics import roc_auc_score

from spai_lab.data import load
from spai_lab.metrics import Rate
from spai_lab.survey import detection_jobs
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
from spai_lab.survey.detection_jobs import (
    ADAPTIVE,
    ATTACKS,
    DETECTORS,
    IMAGES,
    RADIUS,
    VALIDATION,
    Scored,
    clean,
    guarded,
    jobs,
)
from spai_lab.survey.ledger import published
from spai_lab.survey.measure import load_measurement, row_of
from spai_lab.threat import fooled, norms
from spai_lab.training import manifest


def scored_row(attack: str, scores: list[float], fools: str) -> dict:
    return {"kind": "scored", "detector": "MagNet", "attack": attack, "scores": scores, "fools": fools}


MADE = {
    "rows": [
        scored_row("validation", [float(k) for k in range(100)], "0" * 100),
        scored_row("none", [1.0, 2.0, 97.0, 3.0], "0000"),
        scored_row("FGSM", [10.0, 99.0, 98.0, 97.0], "1110"),
        scored_row("PGD", [10.0], "0"),
    ]
}


def test_the_threshold_comes_from_validation_and_alarms_are_counted_on_test_images():
    assert threshold(MADE, "MagNet", 0.05) == 94.0
    assert false_alarms(MADE, "MagNet", 0.05) == Rate(1, 4)
    assert false_alarms(MADE, "MagNet", 0.01) == Rate(0, 4)


def test_only_images_that_fool_the_model_are_to_be_caught():
    assert caught(MADE, "MagNet", "FGSM", 0.05) == Rate(2, 3)
    assert caught(MADE, "MagNet", "PGD", 0.05) is None and detection_roc(MADE, "MagNet", "PGD") is None


def test_an_image_evades_if_it_fools_the_model_and_passes():
    assert evading(MADE, "MagNet", "FGSM", 0.05) == Rate(1, 4)
    assert evading(MADE, "MagNet", "PGD", 0.05) == Rate(0, 1)


def test_the_area_is_scikit_learns():
    expected = roc_auc_score([1, 1, 1, 0, 0, 0, 0], [10.0, 99.0, 98.0, 1.0, 2.0, 97.0, 3.0])
    assert detection_roc(MADE, "MagNet", "FGSM").area == pytest.approx(expected)


def test_every_detector_meets_every_attack():
    assert {(job.detector, job.attack) for job in jobs("digits")} == {(d, a) for d in DETECTORS for a in ATTACKS}
    assert set(ADVERSARIAL) | {"validation", "none"} == set(ATTACKS) and not set(ADAPTIVE) & set(STATIC)


@pytest.fixture
def untrained(monkeypatch):
    """MagNet's model is taken for the plain one, which saves the training of its autoencoders."""
    plain = guarded("feature squeezing", "digits")
    monkeypatch.setattr(detection_jobs, "guarded", lambda detector, name: plain)
    for function in (detection_jobs.readable, detection_jobs.attacked, detection_jobs.threshold, detection_jobs.tuned):
        function.cache_clear()
    yield plain
    for function in (detection_jobs.readable, detection_jobs.attacked, detection_jobs.threshold, detection_jobs.tuned):
        function.cache_clear()


def test_clean_images_are_test_images_that_the_model_reads_rightly_the_same_for_all(untrained, digits):
    x, y = clean("feature squeezing", "digits", seed=0)
    assert len(x) == IMAGES and not fooled(untrained.model, x, y).any()
    assert torch.equal(x, clean("MagNet", "digits", seed=0)[0])
    assert (x[:, None] == digits.x_test).flatten(2).all(2).any(1).all()


def test_a_row_says_what_the_detector_says(untrained):
    row = Scored("digits", "feature squeezing", "FGSM").run(seed=0)
    x, y = ATTACKS["FGSM"]("feature squeezing", "digits", 0)
    torch.testing.assert_close(torch.tensor(row["scores"]), untrained.detector(x), rtol=1e-4, atol=1e-6)
    assert [mark == "1" for mark in row["fools"]] == fooled(untrained.model, x, y).tolist()
    moved = norms(x - clean("feature squeezing", "digits", 0)[0], "l2")
    assert row["distance"] == pytest.approx(moved.median().item(), abs=1e-3)


@pytest.mark.parametrize("norm", ADAPTIVE.values())
def test_the_adaptive_attacker_is_tuned_on_validation_images_and_stays_in_the_ball(untrained, monkeypatch, norm):
    asked = []

    def noted(model, x, y, detectors, thresholds, *, eps, norm, restarts=1, generator, weight, step_size):
        asked.append((x, eps, norm, weight))
        return (x + (1 if weight == 0.3 else 0)).clamp(0, 1)

    monkeypatch.setattr(detection_jobs, "evade", noted)
    monkeypatch.setattr(detection_jobs, "evasion_rate", lambda model, x_adv, *rest: Rate(int(x_adv.min() == 1), 1))
    x_adv, y = detection_jobs.adaptive(norm)("feature squeezing", "digits", 0)
    *tried, (x, eps, chosen, weight) = asked
    assert len(tried) == 6 and weight == 0.3 and chosen == norm and eps == RADIUS[norm]["digits"]
    data = load("digits")
    assert all(torch.equal(seen, data.x_val[-detection_jobs.TUNED_ON :]) for seen, *_ in tried)
    assert torch.equal(x, clean("feature squeezing", "digits", 0)[0]) and len(x_adv) == len(y)


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
        assert evading(committed, detector, "adaptive, L2").value > 0.8, detector


def test_adaptive_images_lie_in_their_ball_and_attacks_on_the_network_are_the_same_for_all(committed):
    name = committed["data"]
    for attack in ADVERSARIAL:
        distances = [row_of(committed, detector=detector, attack=attack)["distance"] for detector in DETECTORS]
        if attack in STATIC:
            assert len(set(distances)) == 1
        if attack == "adaptive, L2":
            assert max(distances) <= RADIUS["l2"][name]
    fgsm = row_of(committed, detector="MagNet", attack="FGSM")["distance"]
    assert RADIUS["l2"][name] < fgsm  # the ball in L2 is no excuse: FGSM goes further


def test_lid_knows_the_attack_that_it_learned_from(committed):
    for attack in ("FGSM", "PGD", "C&W"):
        areas = {other: detection_roc(committed, f"LID, from {other}", attack).area for other in ("FGSM", "PGD", "C&W")}
        assert max(areas, key=areas.get) == attack, areas


def test_magnet_leaves_the_network_its_accuracy(committed):
    for detector in DETECTORS:
        assert fools(committed, detector, "validation").double().mean() < 0.03, detector


def test_false_alarms_are_near_what_validation_promised(committed):
    """A share of .05 promised by 1,000 images and counted on 200: within five deviations of both together."""
    for detector in DETECTORS:
        assert false_alarms(committed, detector, 0.05).value <= 0.05 + 5 * (0.05 * 0.95 * (1 / 200 + 1 / 1000)) ** 0.5


def test_the_table_has_a_line_for_each_pair_and_figures_are_compared(committed):
    table = detection_table(committed)
    assert list(table.index) == [(detector, attack) for detector in DETECTORS for attack in ADVERSARIAL]
    if committed["data"] == "mnist":
        ids = {comparison.figure["id"] for comparison in detection_compared(committed)}
        assert (
            ids
            == {"squeezing-detected", "magnet-undefended", "magnet-carlini-wagner", "lid-adaptive"}
            <= published().keys()
        )


def test_scores_and_marks_have_one_entry_an_image(committed):
    for detector in DETECTORS:
        for attack in ATTACKS:
            assert len(scores_of(committed, detector, attack)) == len(fools(committed, detector, attack))

"""The headlines of defenses say what the kept measurements hold, counted here again from the rows as they are."""

import numpy as np
import pytest

from spai_lab.survey.full_defenses import DETECTORS, FULL, LENETS
from spai_lab.survey.measure import load_measurement
from spai_lab.survey.taxonomy import load_taxonomy, rows_of

CERTIFIED = ("randomized_smoothing", "ibp", "convex_relaxation")
HEADLINES = {row: measured() for row, measured in FULL.items()}


def data_of(headline) -> str:
    (name,) = (name for name in ("digits", "MNIST") if f"{name}," in headline.setup)
    return name


def test_every_row_of_the_part_has_headlines_and_no_other():
    assert set(FULL) == {row.id for row in rows_of(load_taxonomy(), "defenses against evasion")}


@pytest.mark.parametrize("row", list(FULL))
def test_each_data_set_once_and_mnist_always(row):
    measured = [data_of(headline) for headline in HEADLINES[row]]
    assert len(measured) == len(set(measured)) and "MNIST" in measured
    assert ("digits" in measured) == (row not in CERTIFIED)


@pytest.mark.parametrize("row", list(FULL))
def test_values_lie_in_their_intervals(row):
    for headline in HEADLINES[row]:
        low, high = headline.interval
        assert 0 <= low <= headline.value <= high <= 1 and "eps" in headline.setup
        assert headline.value * headline.trials == pytest.approx(round(headline.value * headline.trials))
        assert headline.better == ("lower" if row in DETECTORS else "higher")


@pytest.mark.parametrize("row", list(LENETS))
def test_survivors_are_counted_from_the_marks(row):
    for headline in HEADLINES[row]:
        rows = load_measurement(f"defenses_{data_of(headline).lower()}")["rows"]
        kept = [r for r in rows if r["kind"] == "judged" and r["norm"] == "linf" and r["defense"] == LENETS[row][0]]
        grid = np.array([[int(mark) for mark in r["standing"]] for r in kept])
        assert headline.value == grid.all(0).mean() and headline.trials == grid.shape[1]
        attacks = {r["attack"]: [int(line.sum()), len(line)] for r, line in zip(kept, grid, strict=True)}
        assert attacks.pop("none") == headline.details["clean"] and attacks == headline.details["attacks"]
        assert "adaptive" in attacks


@pytest.mark.parametrize("row", list(DETECTORS))
def test_evasions_are_counted_from_scores_and_marks(row):
    for headline in HEADLINES[row]:
        rows = load_measurement(f"detection_{data_of(headline).lower()}")["rows"]
        kept = {r["attack"]: r for r in rows if r["detector"] == DETECTORS[row][0]}
        clean = np.sort(kept["validation"]["scores"])[::-1]
        t = clean[int(0.05 * len(clean) + 1e-9)]

        def through(attack, kept=kept, t=t):
            fooled = np.array([mark == "1" for mark in kept[attack]["fools"]])
            return fooled & (np.array(kept[attack]["scores"]) <= t)

        norms = (through("FGSM") | through("PGD") | through("adaptive")).mean(), through("adaptive, L2").mean()
        assert headline.value == max(norms)
        assert headline.details["false alarms"] == [int((np.array(kept["none"]["scores"]) > t).sum()), 200]


@pytest.mark.parametrize("row", CERTIFIED)
def test_no_attack_leaves_less_than_is_proven(row):
    (headline,) = HEADLINES[row]
    for hits, of in (headline.details["clean"], *headline.details.get("attacks", {}).values()):
        assert headline.value <= hits / of


def test_robust_models_are_headed_by_their_strongest_attack():
    for row, model in (("adversarial_training", "strided-pgd"), ("trades", "strided-trades")):
        (headline,) = (headline for headline in HEADLINES[row] if data_of(headline) == "MNIST")
        rows = [
            r for r in load_measurement("robust_models")["rows"] if r.get("model") == model and r["test"] != "clean"
        ]
        assert headline.value == min(hits / of for hits, of in (r["stands"] for r in rows))
        assert headline.details["undefended"][0] == 0

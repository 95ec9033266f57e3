"""The full rows of defenses against poisoning: they say what the kept files say, read here without the package."""

import json
import math

import pytest

from spai_lab.survey.backdoor_victims import MATRIX_BACKDOORS
from spai_lab.survey.cleaning_headlines import RULES
from spai_lab.survey.cleanup_jobs import SPOILED, jobs
from spai_lab.survey.full_cleaning import FULL
from spai_lab.survey.measure import is_row_of
from spai_lab.survey.taxonomy import load_taxonomy

ROWS = {row.id for row in load_taxonomy() if row.part == "defenses against poisoning"}
DATA = ("digits", "mnist")


def kept_rows(root, name, **key):
    rows = json.loads((root / "data" / "results" / f"{name}.json").read_text(encoding="utf-8"))["rows"]
    return [row for row in rows if row.items() >= key.items()]


def test_every_row_has_an_entry_and_none_is_left_over():
    assert set(FULL) == ROWS


@pytest.mark.parametrize("row", sorted(FULL))
def test_every_headline_is_sound_and_one_for_each_data_set(row):
    headlines = FULL[row]()
    each = len(RULES) if row == "robust_aggregation" else 1
    assert [headline.details["data"] for headline in headlines] == [name for name in DATA for _ in range(each)]
    for headline in headlines:
        low, high = headline.interval
        assert math.isfinite(headline.value) and low - 1e-9 <= headline.value <= high + 1e-9
        assert headline.better == ("higher" if row == "strip" else "lower") and headline.trials >= 1
        json.dumps(headline.row, allow_nan=False)


@pytest.mark.parametrize("name", DATA)
def test_no_backdoor_of_the_files_is_left_with_more(root, name):
    for row in ("sphere_slab", "spectral_signatures", "fine_pruning", "neural_cleanse"):
        headline = FULL[row]()[DATA.index(name)]
        kept = kept_rows(root, f"backdoors_{name}", kind="cleaned", defense=row)
        shares = [hits / trials for hits, trials in (cell["success_after"] for cell in kept if "success_after" in cell)]
        assert headline.value == pytest.approx(max(shares))
        assert len(shares) == len(headline.details["attacks"]) >= len(MATRIX_BACKDOORS) - 2
        assert "clean" in headline.details["control"]


@pytest.mark.parametrize("name", DATA)
def test_a_detector_is_judged_by_what_it_lets_pass(root, name):
    headline = FULL["strip"]()[DATA.index(name)]
    kept = kept_rows(root, f"backdoors_{name}", kind="cleaned", defense="strip")
    worst = max(
        (row for row in kept if "success_after" in row), key=lambda r: r["success_after"][0] / r["success_after"][1]
    )
    assert headline.value == worst["true_positives"][0] / worst["true_positives"][1]


@pytest.mark.parametrize("name", DATA)
def test_the_committed_measurement_holds_every_job_once(root, name):
    rows = kept_rows(root, f"cleanup_{name}")
    assert len(rows) == len(jobs(name)) == len(SPOILED) + 2
    assert all(sum(is_row_of(job, row) for row in rows) == 1 for job in jobs(name))

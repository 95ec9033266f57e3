"""Evasion in the full profile: each headline is what the kept measurements say, counted here once more."""

import json
import math
import statistics

import pytest

from spai_lab.files import data_folder
from spai_lab.survey import full_evasion
from spai_lab.survey.evasion_jobs import SUMMARY
from spai_lab.survey.full_evasion import CURVES, FULL, NEAREST, RandomViews, measure_random_views
from spai_lab.survey.headline import Headline
from spai_lab.survey.quick_evasion import LEAST, QUICK
from spai_lab.training import manifest


@pytest.fixture(scope="module")
def headlines():
    return {row: tell() for row, tell in FULL.items()}


@pytest.fixture(scope="module")
def rows():
    return json.loads((data_folder() / "results" / "evasion_attacks.json").read_text())["rows"]


def of(rows, attack, word="", **key):
    """The kept rows of an attack."""
    return [r for r in rows if r["attack"] == attack and word in r["setting"] and key.items() <= r.items()]


def test_every_row_of_the_quick_profile_is_in_the_full_one():
    assert FULL.keys() == QUICK.keys()


def test_headlines_are_finite_and_of_one_data_set(headlines):
    for row, found in headlines.items():
        [headline] = found
        assert "MNIST" in headline.setup, row
        assert math.isfinite(headline.value), row
        assert headline.interval[0] <= headline.value <= headline.interval[1], row
        assert headline.better == ("lower" if row in LEAST else "higher"), row
        assert headline.details["processor_seconds"] >= 0, row
        assert "{" not in headline.budget, row
        assert Headline.from_row(json.loads(json.dumps(headline.row))) == headline, row


def test_success_is_what_the_rows_count(headlines, rows):
    distances = {*LEAST, *NEAREST, "eot"}
    for job in SUMMARY[::-1]:
        if job.attack not in distances and "without" not in job.setting and "flow" not in job.setting:
            [kept] = of(rows, job.attack, job.setting, every_target=False)
            [headline] = headlines[job.attack]
            assert (headline.value, headline.trials) == (kept["hits"] / kept["trials"], kept["trials"]), job.attack


def test_toward_any_class_carlini_wagner_takes_the_nearest_of_its_targets(headlines, rows):
    kept = of(rows, "carlini_wagner", every_target=True)
    nearest = [min(row["distortions"][9 * image : 9 * image + 9]) for row in kept for image in range(row["images"])]
    [headline] = headlines["carlini_wagner"]
    assert headline.value == pytest.approx(statistics.median(nearest))
    assert headline.trials == len(nearest) == 100
    assert headline.details["within"] == [sum(far <= headline.details["eps"] for far in nearest), 100]
    assert "without target" in " ".join(headline.details)


@pytest.mark.parametrize(
    ("row", "key"),
    [
        ("lbfgs", {}),
        ("jsma", {"every_target": False}),
        ("deepfool", {"images": 1000, "victim": "lenet"}),
    ],
)
def test_medians_are_those_of_the_rows(headlines, rows, row, key):
    [kept] = of(rows, row, **key)
    [headline] = headlines[row]
    far = [math.inf if number is None else number for number in kept["distortions"]]
    assert headline.value == pytest.approx(statistics.median(far))
    near = headline.details["eps"]
    assert headline.details["within"] == [sum(number <= near for number in far), len(far)]


@pytest.mark.parametrize(
    ("row", "word"), [("boundary", ""), ("hop_skip_jump", ""), ("zoo", "9 searches")], ids=lambda part: part or "all"
)
def test_near_is_counted_over_all_rows_of_a_run(headlines, rows, row, word):
    far = [number for kept in of(rows, row, word) for number in kept["distortions"]]
    [headline] = headlines[row]
    assert headline.trials == len(far)
    assert headline.value == sum(number is not None and number <= 1.5 for number in far) / len(far)
    assert headline.details["median distortion"] == pytest.approx(statistics.median(far))


def test_budgets_that_are_computed_say_what_was_asked(headlines, rows):
    [kept] = of(rows, "substitute")
    assert kept["queries"] * kept["trials"] == 300 * 2**5  # as many again in each round but the first
    assert headlines["substitute"][0].budget.startswith("9,600 queries in all")
    [kept] = of(rows, "hop_skip_jump")
    assert f"{kept['queries']:,.0f} queries an image" in headlines["hop_skip_jump"][0].budget


def test_defended_victims_are_named_and_plain_pgd_stands_beside(headlines, rows):
    [headline] = headlines["bpda"]
    [plain] = of(rows, "bpda", "without")
    assert headline.details["PGD without it, eps 0.2"] == [plain["hits"], plain["trials"]]
    assert "victim: pixels rounded to 4 levels, L-inf eps 0.2" in headline.setup
    assert plain["hits"] / plain["trials"] < headline.value


def test_accuracy_and_curves_come_with_what_has_them(headlines):
    left = headlines["pgd"][0].details["accuracy left on all test images"]
    assert left.keys() == {"0.1", "0.2", "0.3"}
    assert left["0.1"][0] > left["0.3"][0]
    for row, [headline] in headlines.items():
        assert ("median L2 by queries" in headline.details) == (row in CURVES), row


def test_eot_beats_plain_pgd_at_the_same_price(headlines):
    [headline] = headlines["eot"]
    details, eps = headline.details, f"{headline.details['eps']:g}"
    for plain in ("PGD without it", "PGD without it, 160 steps", "PGD on the network alone"):
        assert details[plain][eps][0] < details["at"][eps][0], plain
    assert details["Gaussian noise of 0.3 inside"].keys() == {j.setting for j in SUMMARY if j.attack == "eot"}


def test_committed_random_views_are_of_the_committed_weights():
    kept = json.loads((data_folder() / "results" / f"{full_evasion.VIEWS}.json").read_text())
    assert kept["weights"] == {"lenet": manifest()["models"]["lenet-mnist"]["sha256"]}
    assert [row.items() >= RandomViews().key.items() for row in kept["rows"]] == [True]


def test_random_views_are_measured_and_kept(mnist, tmp_path, monkeypatch):
    monkeypatch.setattr(full_evasion, "RandomViews", lambda: RandomViews(2))
    file = tmp_path / "views.json"
    first = measure_random_views(file=file)
    assert first["rows"][0]["headline"]["trials"] == 2
    assert measure_random_views(file=file) == first

"""What was measured of attacks on private models lies below what is proven; what is proven is held to closed forms."""

import json
import math

import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from spai_lab.attacks.privacy.shadows import Shadows
from spai_lab.metrics import Rate
from spai_lab.survey import protected_jobs as jobs_module
from spai_lab.survey.measure import load_measurement, rows_of_kind
from spai_lab.survey.protected_jobs import (
    BUDGETS,
    INSERTIONS,
    TOLD,
    OpenMembers,
    PrivateLeak,
    PrivateMembers,
    PrivateMemorized,
    called,
    parted,
    protected_jobs,
    thresholds,
)
from spai_lab.survey.protected_tables import (
    Point,
    balanced,
    leak_point,
    of,
    over_trainings,
    private_members,
    protected_leak_table,
    protected_members_table,
    protected_points,
    protected_words_table,
    proven_accuracy,
    proven_area,
    proven_exposure,
    proven_positives,
    shared,
    strongest,
    unprotected_points,
)
from spai_lab.survey.secrets_jobs import CANARY

IMAGES = ["digits", "mnist"]
SMALL = {"inputs": 40, "shadows": 4, "rehearsals": 2, "targets": 2, "hidden": 4}


def measured(name):
    return load_measurement(f"protected_{name}")


# --- what is proven


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 3.0])
def test_randomized_response_reaches_what_is_proven(epsilon):
    """Who reports "in" truthfully with probability e^eps / (1 + e^eps) is caught at exactly the bound's corner."""
    honest = 1 / (1 + math.exp(-epsilon))
    assert proven_positives(1 - honest, epsilon, 0.0) == pytest.approx(honest)
    assert proven_accuracy(epsilon, 0.0) == pytest.approx(honest)
    assert proven_area(epsilon, 0.0) == pytest.approx(honest, abs=1e-3)


def test_a_gaussian_mechanism_lies_below_and_touches():
    """The tightest attack on N(0, 1) against N(mu, 1), with the exact delta of each epsilon."""
    mu = 1.0
    for epsilon in (0.0, 0.5, 1.0, 2.0):
        delta = norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)
        rates = [k / 1000 for k in range(1, 1000)]
        gaps = [proven_positives(rate, epsilon, delta) - norm.cdf(norm.ppf(rate) + mu) for rate in rates]
        assert min(gaps) > -1e-9 and min(gaps) < 1e-3


def test_nothing_is_proven_without_a_budget():
    assert proven_positives(0.01, math.inf, 1e-5) == proven_accuracy(math.inf, 1e-5) == 1.0
    assert proven_area(math.inf, 1e-5) == 1.0 and proven_exposure(math.inf, 1e-5, 1, 10_000) == math.log2(10_000)


@pytest.mark.parametrize(("epsilon", "insertions"), [(0.0, 1), (0.5, 1), (2.0, 1), (2.0, 2), (8.0, 1)])
def test_the_mean_exposure_is_bounded_by_the_integral(epsilon, insertions):
    bits, delta = math.log2(CANARY.size), 1e-5
    group = sum(delta * math.exp(j * epsilon) for j in range(insertions))
    chance = lambda b: min(1.0, math.exp(insertions * epsilon) * 2**-b + group)  # noqa: E731
    kink = insertions * epsilon / math.log(2)
    expected = quad(chance, 0, bits, points=[min(kink, bits)])[0]
    assert proven_exposure(epsilon, delta, insertions, CANARY.size) == pytest.approx(expected, abs=1e-3)


def test_a_secret_that_was_never_seen_is_below_the_bound_at_no_budget():
    mean = sum(math.log2(CANARY.size / rank) for rank in range(1, CANARY.size + 1)) / CANARY.size
    assert mean < proven_exposure(0.0, 0.0, 0, CANARY.size) < mean + 0.01


# --- jobs


@pytest.mark.parametrize("name", IMAGES)
def test_every_job_has_a_key_of_its_own(name):
    keys = [json.dumps(job.key, sort_keys=True) for job in protected_jobs(name)]
    assert len(set(keys)) == len(keys)


def test_thresholds_are_the_attackers_own():
    scores, inside = [torch.tensor([3.0, 1.0, 2.0, 0.0])] * 2, [torch.tensor([True, True, False, False])] * 2
    found = thresholds(scores, inside)
    assert found["0.01"] == 3.0 and found["best"] in (1.0, 3.0)
    assert called(scores[0] >= 1.0, inside[0]) == [2, 2, 1, 2]
    assert balanced([called(scores[0] >= 1.0, inside[0])] * 2).value == 0.75


def test_models_are_parted_in_their_order():
    shadows = Shadows({"w": torch.arange(7)}, torch.ones(7, 2, dtype=torch.bool), torch.nn.Identity())
    assert [part.weights["w"].tolist() for part in parted(shadows, 4, 2)] == [[0, 1, 2, 3], [4, 5], [6]]


def test_private_members_are_judged_and_their_budget_is_kept(monkeypatch):
    monkeypatch.setattr(jobs_module, "STEPS", 4)
    row = PrivateMembers("digits", 8.0, **SMALL).run(0)
    assert row["epsilon"] == pytest.approx(8, rel=1e-6) and row["adjacency"] == "add/remove"
    assert row["rate"] == float(max(row["tried"], key=row["tried"].get)) and set(row["attacks"]) == set(TOLD)
    assert sum(row["accuracy"][where][1] for where in ("members", "others")) == 80
    for found in row["attacks"].values():
        assert [sum(counts[1::2]) for counts in found["rehearsed"]["best"]] == [40, 40]
    clipped = PrivateMembers("digits", None, **SMALL, learning_rate=0.5).run(0)
    assert clipped["epsilon"] is None and clipped["noise_multiplier"] == 0 and clipped["tried"] == {}
    json.dumps([row, clipped], allow_nan=False)


def test_targets_have_their_inputs_by_coins_and_not_by_halves(monkeypatch):
    monkeypatch.setattr(jobs_module, "STEPS", 1)
    row = PrivateMembers("digits", None, **SMALL | {"targets": 30}, learning_rate=0.5).run(0)
    sizes = [counts[1] for counts in row["attacks"]["loss"]["rehearsed"]["best"]]
    assert len(set(sizes)) > 1 and abs(sum(sizes) - 600) < 5 * math.sqrt(300)


def test_open_members_are_judged_likewise():
    row = OpenMembers("digits", **SMALL, epochs=2).run(0)
    assert set(row["attacks"]) == set(TOLD) and len(row["test"]["right"]) == 2


def test_a_gradient_is_cut_and_noised_before_it_is_attacked(monkeypatch):
    monkeypatch.setattr(jobs_module, "INPUTS", 4)
    monkeypatch.setattr(jobs_module, "LEAK_STEPS", 2)
    for labels in ("analytic", "optimized"):
        row = PrivateLeak("digits", 1.0, aware=True, labels=labels).run(0)
        assert row["epsilon"] == pytest.approx(4.377, abs=1e-3) and row["clipped"] == [4, 4]
    assert PrivateLeak("digits", 0.0, aware=False).run(0)["epsilon"] is None


def test_a_secret_is_planted_in_the_text_of_the_open_measurement(monkeypatch):
    monkeypatch.setattr(jobs_module, "READING", {"sampling_rate": 0.01, "steps": 2})
    row = PrivateMemorized(8.0, 1, 0).run(0)
    assert row["epsilon"] == pytest.approx(8, rel=1e-6) and 1 <= row["rank"] <= CANARY.size
    assert row["exposure"] == pytest.approx(math.log2(CANARY.size / row["rank"]), abs=1e-3)


# --- points and words


def test_points_have_intervals():
    half = 4.302653 * 0.1 / math.sqrt(3)  # Student's 97.5 % with two degrees of freedom
    assert over_trainings(1.0, [0.2, 0.3, 0.4]) == pytest.approx((1.0, 0.3, 0.3 - half, 0.3 + half))
    assert over_trainings(1.0, [0.5], 0, 1) == Point(1.0, 0.5, 0, 1)
    assert shared(Point(1.0, 0.5, 0.25, 0.75)) == "50.0 % (25.0 to 75.0)"
    rows = [{"recognized": [hits, 10], "epsilon": None} for hits in (1, 5)]
    assert leak_point(rows).value == 0.5 and leak_point(rows).epsilon == math.inf


# --- what is on disk


@pytest.mark.parametrize("name", IMAGES)
def test_every_job_has_a_row_with_its_guarantee(name):
    rows = measured(name)["rows"]
    assert len(rows) == len(protected_jobs(name))
    assert all(any(row.items() >= job.key.items() for row in rows) for job in protected_jobs(name))
    for row in rows:
        if row.get("private", True):
            assert row["delta_dp"] == 1e-5 and row["adjacency"] == "add/remove" and "epsilon" in row


def overstated(row, epsilon, delta_dp):
    """The attacks of a row that find more than such a budget allows, beyond what chance explains."""
    found = []
    for name, attack in row["attacks"].items():
        if attack["caught"]["0.01"][1] > proven_positives(0.01, epsilon, delta_dp):
            found.append(f"{name} at 1 %")
        for aim, counts in attack["rehearsed"].items():
            tp, members, fp, others = (sum(column) for column in zip(*counts, strict=True))
            true, false = Rate(tp, members).interval[0], Rate(fp, others).interval[1]
            if true > proven_positives(false, epsilon, delta_dp):
                found.append(f"{name}, {aim}")
            if aim == "best" and balanced(counts).low > proven_accuracy(epsilon, delta_dp):
                found.append(f"{name}, balanced")
        if attack["area"] > proven_area(epsilon, delta_dp):
            found.append(f"{name}, area")
    return found


@pytest.mark.parametrize("name", IMAGES)
def test_no_attack_finds_more_members_than_the_budget_allows(name):
    rows = private_members(measured(name))
    assert [row["budget"] for row in rows] == list(BUDGETS)
    for row in rows:
        assert overstated(row, of(row), row["delta_dp"]) == []


@pytest.mark.parametrize("name", IMAGES)
def test_a_false_claim_would_have_been_noticed(name):
    """The planted fault: models that were clipped alone, said to have epsilon 0.5."""
    row = next(row for row in private_members(measured(name)) if row["budget"] is None)
    assert overstated(row, 0.5, 1e-5)


@pytest.mark.parametrize("name", IMAGES)
def test_clipping_alone_protects_little_and_noise_more_at_a_price(name):
    points, rows = protected_points(measured(name), measured("digits")), private_members(measured(name))
    found = {point.epsilon: point for point in points["membership"]}
    accuracy = {point.epsilon: point for point in points["accuracy"]}
    assert found[math.inf].low > 0.02 and found[math.inf].low > min(point.high for point in found.values())
    last = min(found)
    assert last < 1 and found[last].low < 0.02
    assert accuracy[last].high < accuracy[math.inf].low
    assert all(row["attacks"][strongest(row)[0]]["caught"]["0.01"][0] >= 0.005 for row in rows)
    eight = next(value for epsilon, value in accuracy.items() if 7 < epsilon < 9)
    assert eight.value > 0.7


@pytest.mark.parametrize("name", IMAGES)
def test_an_attacker_who_knows_the_defense_reads_what_clipping_should_hide(name):
    rows = {
        (row["noise_multiplier"], row["aware"]): Rate(*row["recognized"])
        for row in rows_of_kind(measured(name), "leak")
        if row["labels"] == "analytic"
    }
    assert rows[0.0, False].value < 0.1 and rows[0.0, True].value > 0.5
    assert rows[0.001, True].interval[0] > rows[0.001, False].interval[1]
    assert rows[1.0, True].hits == 0
    labels = {
        row["noise_multiplier"]: Rate(*row["labels_found"])
        for row in rows_of_kind(measured(name), "leak")
        if row["aware"] and row["labels"] == "analytic"
    }
    assert labels[0.1].value > 0.9 > labels[1.0].value


def test_a_private_language_model_forgets_the_secret_and_some_of_the_language():
    rows = rows_of_kind(measured("digits"), "memorized")
    assert len(rows) == 3 * sum(INSERTIONS.values())
    mean = {
        (budget, times): sum(picked) / len(picked)
        for budget in (None, 8.0, 2.0)
        for times in INSERTIONS
        for picked in [[row["exposure"] for row in rows if (row["budget"], row["insertions"]) == (budget, times)]]
    }
    bits = {
        budget: sum(picked) / len(picked)
        for budget in (None, 8.0, 2.0)
        for picked in [[row["bits"] for row in rows if row["budget"] == budget]]
    }
    most = max(INSERTIONS)
    assert mean[None, 1] > mean[2.0, 1] + 2 and mean[None, most] > mean[2.0, most]
    assert bits[None] < bits[8.0] < bits[2.0]
    points = protected_points(measured("digits"))
    for found, proven in zip(points["memorization"], points["memorization, proven"], strict=True):
        assert found.epsilon == proven.epsilon and found.low <= proven.value


@pytest.mark.parametrize("name", IMAGES)
def test_points_rise_in_epsilon_and_lie_in_their_intervals(name):
    points = protected_points(measured(name), measured("digits"))
    for found in points.values():
        assert [point.epsilon for point in found] == sorted({point.epsilon for point in found})
        assert all(0 <= point.low <= point.value + 1e-9 <= point.high + 2e-9 <= 1 + 3e-9 for point in found)
    assert set(unprotected_points(measured(name))) == {"accuracy", "membership"}


@pytest.mark.parametrize("name", IMAGES)
def test_tables_hold_words_and_no_nan(name):
    tables = [protected_members_table, protected_leak_table]
    for table in [*tables, protected_words_table] if name == "digits" else tables:
        rows = table(measured(name))
        assert rows and len({len(row) for row in rows}) == 1
        assert all(isinstance(cell, str) and cell and "nan" not in cell for row in rows for cell in row)


@pytest.mark.full
@pytest.mark.parametrize("job", [PrivateLeak("digits", 1.0, aware=True), PrivateMemorized(8.0, 1, 0)])
def test_a_job_measures_again_what_is_on_disk(job):
    assert job in protected_jobs("digits")
    row = next(row for row in measured("digits")["rows"] if row.items() >= job.key.items())
    again = job.run(0)
    assert {name: row[name] for name in again} == again

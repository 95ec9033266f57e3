"""Private learning as it is measured: equal budgets after conversion, equal data, a test part that nobody reads."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from spai_lab.data import load
from spai_lab.metrics import Rate
from spai_lab.privacy.accounting import ORDERS, dp_sgd_guarantee, epsilon_of_rdp, rdp_gaussian, rdp_sampled_gaussian
from spai_lab.privacy.guarantee import ADD_REMOVE, REPLACE, Guarantee, as_replacement
from spai_lab.survey import private_jobs, private_published
from spai_lab.survey.audit_jobs import audit_jobs
from spai_lab.survey.ledger import published
from spai_lab.survey.private_jobs import (
    BUDGETS,
    DELTA,
    METHODS,
    PUBLIC,
    RECORDS,
    TASKS,
    Private,
    before_replacement,
    records,
    votes_noise,
)
from spai_lab.survey.private_jobs import (
    private_jobs as jobs_of,
)
from spai_lab.survey.private_published import (
    CNN_RUNS,
    PCA_RUNS,
    PrivatePca,
    PublishedPate,
    SmallCnn,
    private_axes,
    private_compared,
    published_jobs,
    small_cnn,
)
from spai_lab.survey.private_tables import (
    accuracy_by_budget,
    audit_bounds,
    audit_table,
    chosen_table,
    cost_table,
    levels_table,
    promise_table,
    published_table,
    refuted_words,
)

EPSILON = 2.0


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Two trainings of each, one try of one or two settings, and nothing kept from another test."""
    for name, method in METHODS.items():
        few = {count: settings[: 1 if method.view == "images" else 2] for count, settings in method.settings.items()}
        monkeypatch.setitem(METHODS, name, replace(method, settings=few, plain=method.plain[-1:]))
    monkeypatch.setitem(private_jobs.TRAININGS, "digits", 2)
    monkeypatch.setitem(private_jobs.TRIES, "digits", 1)
    private_jobs.records.cache_clear()
    private_jobs.cast.cache_clear()
    yield
    private_jobs.records.cache_clear()
    private_jobs.cast.cache_clear()


def job(method: str, task: str = "even or odd", epsilon: float | None = EPSILON) -> Private:
    return Private("digits", 878, task, method, epsilon)


def run_on(monkeypatch, method: str, **changed) -> dict:
    """A row, measured on the digits with some parts changed."""
    data = replace(load("digits"), **changed)
    monkeypatch.setattr(private_jobs, "load", lambda name: data)
    private_jobs.records.cache_clear()
    private_jobs.cast.cache_clear()
    return job(method).run(0)


# --- jobs and data ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jobs", [lambda: jobs_of("digits"), lambda: jobs_of("mnist"), lambda: audit_jobs("digits")])
def test_jobs_can_be_told_apart(jobs):
    keys = [str(sorted(each.key.items(), key=str)) for each in jobs()]
    assert len(set(keys)) == len(keys)


def test_every_method_is_measured_at_every_budget_on_the_same_records():
    for name in RECORDS:
        levels = [each for each in jobs_of(name) if isinstance(each, Private)]
        cells = {(each.records, each.task, each.method, each.epsilon) for each in levels}
        assert cells == {(n, t, m, e) for n in RECORDS[name] for t in TASKS for m in METHODS for e in BUDGETS}
    assert {method.level for method in METHODS.values()} == {"gradient", "function", "label"}


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_no_public_input_is_private_and_none_is_judged(name, request):
    data = request.getfixturevalue(name)
    assert max(RECORDS[name]) + PUBLIC[name] <= len(data.x_train)
    parts = records(name, max(RECORDS[name]), "ten digits")
    assert len(parts.private.y) == max(RECORDS[name]) and len(parts.public) == PUBLIC[name]
    assert torch.equal(parts.private.images, data.x_train[: max(RECORDS[name])])


def test_rows_lie_in_the_unit_ball():
    parts = records("digits", 878, "ten digits")
    for rows in (parts.private.rows, parts.public, parts.validation.rows):
        assert rows.shape[1:] == (1, 1, 49) and rows.flatten(1).norm(dim=1).max() <= 1 + 1e-6


# --- what is promised -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 8.0])
def test_half_the_budget_becomes_the_whole_when_a_record_is_replaced(epsilon):
    converted = as_replacement(Guarantee(*before_replacement(epsilon), ADD_REMOVE, ("the weights",)))
    assert (converted.epsilon, converted.delta_dp) == pytest.approx((epsilon, DELTA), rel=1e-12)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("method", METHODS)
def test_every_level_promises_the_same_budget_for_one_record_replaced(method, task):
    row = job(method, task).run(0)
    assert row["adjacency"] == REPLACE and row["epsilon"] == EPSILON
    assert EPSILON * (1 - 1e-6) < row["spent"] < EPSILON * (1 + 1e-9) and row["delta_dp"] < DELTA * (1 + 1e-9)
    assert row["delta_dp"] == 0 if row["level"] == "function" else row["delta_dp"] > 0.99 * DELTA
    assert len(row["accuracy"]) == 2 and all(trials == 539 for _, trials in row["accuracy"])
    assert len(row["validation"]) == len(METHODS[method].settings[878])
    assert row["public"] == (row["setting"]["queries"] if method == "PATE" else 0)


@pytest.mark.parametrize("method", ["DP-SGD", "DP-SGD, network"])
def test_dp_sgd_promises_what_its_own_accountant_says_after_conversion(method):
    row = job(method).run(0)
    own = Guarantee(**row["more"][0]["own"], covers=("the weights",))
    assert own.adjacency == ADD_REMOVE
    assert (row["spent"], row["delta_dp"]) == (as_replacement(own).epsilon, as_replacement(own).delta_dp)
    how = {name: row["setting"][name] for name in ("sampling_rate", "steps")}
    again = dp_sgd_guarantee(**how, noise_multiplier=row["more"][0]["noise_multiplier"], delta_dp=own.delta_dp)
    assert again.epsilon == pytest.approx(own.epsilon, rel=1e-3)  # the noise was rounded to four decimals


@pytest.mark.oracle
@pytest.mark.parametrize(("epsilon", "queries"), [(0.5, 50), (4.0, 3000)])
def test_votes_get_the_noise_of_so_many_gaussian_releases(epsilon, queries):
    """A changed vote moves two counts by 1, so that the noise is sigma over the root of 2 in units of sensitivity."""
    from dp_accounting import GaussianDpEvent, SelfComposedDpEvent
    from dp_accounting.rdp import RdpAccountant

    event = SelfComposedDpEvent(GaussianDpEvent(votes_noise(epsilon, queries) / math.sqrt(2)), queries)
    assert RdpAccountant(ORDERS.tolist()).compose(event).get_epsilon(DELTA) == pytest.approx(epsilon, rel=1e-6)


def test_the_votes_own_epsilon_is_no_more_than_the_promise_and_marked():
    row = job("PATE", epsilon=8.0).run(0)
    assert all(0 < more["these votes, not sanitized"] <= row["spent"] + 1e-4 for more in row["more"])


@pytest.mark.parametrize("method", METHODS)
def test_without_privacy_nothing_is_promised_and_more_is_right(method):
    plain, private = job(method, "ten digits", None).run(0), job(method, "ten digits", 0.5).run(0)
    assert (plain["spent"], plain["delta_dp"], plain["adjacency"]) == (None, None, None)
    better, worse = (sum(hits for hits, _ in row["accuracy"]) for row in (plain, private))
    assert better > worse + 0.2 * 2 * 539  # 5 and 10 deviations of the difference of two such counts


# --- what is read -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_the_test_part_is_read_when_all_is_trained(method, monkeypatch):
    """Other test labels, or other test images, change the counts of right answers and nothing else."""
    data = load("digits")
    row = run_on(monkeypatch, method)
    turned = run_on(monkeypatch, method, y_test=9 - data.y_test)
    blank = run_on(monkeypatch, method, x_test=torch.zeros_like(data.x_test))
    counts = [each.pop("accuracy") for each in (row, turned, blank)]
    assert row == turned == blank
    assert counts[1] == [[trials - hits, trials] for hits, trials in counts[0]]
    assert all(hits in ((data.y_test % 2 == k).sum().item() for k in (0, 1)) for hits, _ in counts[2])


@pytest.mark.parametrize("method", METHODS)
def test_the_public_images_serve_pate_alone_and_their_labels_nobody(method, monkeypatch):
    data = load("digits")
    y, x = data.y_train.clone(), data.x_train.clone()
    y[-PUBLIC["digits"] :] = 9 - y[-PUBLIC["digits"] :]
    x[-PUBLIC["digits"] :] = x[: PUBLIC["digits"]].flip(2)
    row = run_on(monkeypatch, method)
    assert run_on(monkeypatch, method, y_train=y) == row
    assert (run_on(monkeypatch, method, x_train=x) == row) == (method != "PATE")


def test_the_same_seed_measures_the_same_and_leaves_the_random_state():
    before = torch.get_rng_state()
    for method in ("DP-SGD", "functional mechanism", "PATE"):
        first, second, other = (job(method).run(seed) for seed in (3, 3, 4))
        assert first == second != other
    assert torch.equal(before, torch.get_rng_state())


# --- published set-ups ------------------------------------------------------------------------------------------------


def test_axes_are_the_principal_ones_but_for_the_noise(digits):
    x = digits.x_train[:300]
    rows = x.flatten(1).double().numpy()
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    right = torch.from_numpy(np.linalg.svd(rows, full_matrices=False)[2][:5].T.copy())

    def overlap(sigma):
        axes = private_axes(x, 5, noise_multiplier=sigma, generator=torch.Generator().manual_seed(0))
        assert torch.allclose(axes.T @ axes, torch.eye(5).double(), atol=1e-9)
        return (axes.T @ right).square().sum().item() / 5

    assert overlap(1e-6) == pytest.approx(1, abs=1e-6) and overlap(0.1) > 0.9 > 0.2 > overlap(1e3)


@pytest.mark.parametrize("pca", PCA_RUNS.values(), ids=PCA_RUNS)
def test_axes_and_weights_keep_to_the_budget_and_use_it_up(pca):
    sigma, steps = pca.noise_and_steps()

    def spent(steps):
        rdp = rdp_gaussian(pca.axes_sigma) + steps * rdp_sampled_gaussian(0.01, sigma)
        return epsilon_of_rdp(ORDERS, rdp, DELTA, "mironov")[0]

    assert spent(steps) <= pca.budget < spent(steps + 2)


@pytest.mark.parametrize(("name", "cnn"), CNN_RUNS.items(), ids=CNN_RUNS)
def test_the_cnn_spends_the_published_epsilon_by_the_older_conversion(name, cnn):
    if cnn.sigma is not None:
        how = {"sampling_rate": 0.004, "noise_multiplier": cnn.sigma, "steps": 250 * cnn.epochs}
        spent = dp_sgd_guarantee(**how, delta_dp=DELTA, conversion="mironov").epsilon
        assert spent == pytest.approx(cnn.budget, abs=0.006)
    assert f"{100 * cnn.budget:.0f}" == name


def test_the_cnn_is_the_published_one():
    assert sum(p.numel() for p in small_cnn().parameters()) == 26_010


def test_small_versions_of_the_published_set_ups_run(mnist):
    for each in (PrivatePca(8.0, None, 7.0, 1, records=600), SmallCnn(2.91, None, 1.0, 0.15, 1, records=500)):
        row = each.run(0)
        assert each.budget * (1 - 0.01) < row["epsilon"] <= each.budget * (1 + 1e-9)
        assert row["epsilon_tighter"] < row["epsilon"] and row["adjacency"] == ADD_REMOVE
        assert Rate(*row["accuracy"]).trials == 10_000
    row = PublishedPate(teachers=20, hidden=8, epochs=1).run(0)
    assert len(row["teachers_right"]) == 20 and row["accuracy"][1] == 1000 and not row["sanitized"]
    low, middle, high = row["epsilon_of_hundreds"]
    assert 0 < low <= middle <= high and row["epsilon_all_orders"] <= row["epsilon"]


def test_the_accounting_is_reproduced():
    found = {name: rate.value for name, rate, *_ in private_compared() if name.startswith("accounting")}
    assert len(found) == 6
    for name, value in found.items():
        assert abs(value - published()[name]["value"]) <= published()[name]["tolerance"]


def test_every_published_figure_of_the_rows_has_one_beside_it(monkeypatch, tmp_path):
    file = tmp_path / "private_mnist.json"
    file.touch()
    monkeypatch.setattr(private_published, "results_file", lambda name: file)
    monkeypatch.setattr(private_published, "load_measurement", lambda name: PUBLISHED)
    found = {name: (rate, differs) for name, rate, _, differs in private_compared()}
    rows = ("dp_sgd", "accounting", "pate")
    wanted = {name for name, figure in published().items() if figure["row"] in rows and "missing" not in figure}
    assert set(found) == wanted
    assert {name for name, (_, differs) in found.items() if differs} == {
        *("dp-sgd-pca-05", "dp-sgd-pca-2", "dp-sgd-pca-8", "dp-sgd-cnn-291"),
        *("pate-student-100", "pate-epsilon-100", "pate-teachers"),
    }
    assert all("one clip for all layers" in differs for name, (_, differs) in found.items() if "pca" in name)
    assert all(rate.interval[0] <= rate.value <= rate.interval[1] for rate, _ in found.values())


# --- tables -----------------------------------------------------------------------------------------------------------


def level_row(method: str, level: str, epsilon: float | None, *hits: int) -> dict:
    own = {"epsilon": 0.5, "delta_dp": 3e-6, "adjacency": ADD_REMOVE}
    more = {"DP-SGD": {"own": own}, "PATE": {"these votes, not sanitized": 0.7}}.get(method, {})
    return {
        "kind": "private",
        "data": "digits",
        "records": 878,
        "task": "ten digits",
        "method": method,
        "epsilon": epsilon,
        "level": level,
        "spent": epsilon,
        "delta_dp": DELTA,
        "adjacency": REPLACE,
        "setting": {"sampling_rate": 0.1},
        "validation": [[9, 10], [5, 10]],
        "public": 0,
        "accuracy": [[hit, 100] for hit in hits],
        "more": [more] * len(hits),
    }


LEVELS = {
    "rows": [
        level_row("DP-SGD", "gradient", None, 90, 92),
        level_row("DP-SGD", "gradient", 2.0, 80, 84),
        level_row("DP-SGD", "gradient", 1.0, 60, 70),
        level_row("PATE", "label", None, 85, 85),
        level_row("PATE", "label", 1.0, 40, 60),
    ]
}
TRAINED = {"delta_dp": DELTA, "adjacency": ADD_REMOVE, "epsilon_tighter": 0.9, "noise_multiplier": 1.2}
PUBLISHED = {
    "rows": [
        *(
            {**each.key, **TRAINED, "epsilon": each.budget, "steps": 100, "accuracy": [9500, 10_000]}
            for each in published_jobs()[:-1]
        ),
        {
            **PublishedPate().key,
            "teachers_right": [8200, 8300, 8400],
            "accuracy": [700, 1000],
            "sanitized": False,
            "epsilon": 1.8,
            "epsilon_all_orders": 1.1,
            "epsilon_of_hundreds": [1.7, 1.8, 1.9],
            "delta_dp": DELTA,
            "adjacency": REPLACE,
        },
    ]
}
AUDITS = {
    "rows": [
        {
            "kind": "audit",
            "code": code,
            "claimed": 1.0,
            "canary": "gradient",
            "planted": planted,
            "runs": 4000,
            "bounds": {"any": bound},
            "refuted": bound > 1,
            "confidence": 0.999,
        }
        for code, planted, bound in (("right code", False, 0.4), ("wrong code", True, 3.0))
    ]
}


def test_levels_are_told_by_falling_budget():
    assert levels_table(LEVELS) == [
        ("ten digits", "878", "gradient", "DP-SGD", "91 % (90 to 92)", "82 % (80 to 84)", "65 % (60 to 70)"),
        ("ten digits", "878", "label", "PATE", "85 % (85 to 85)", "–", "50 % (40 to 60)"),
    ]
    assert accuracy_by_budget(LEVELS, "ten digits", 878)["PATE"] == {None: [0.85, 0.85], 1.0: [0.4, 0.6]}
    assert cost_table(LEVELS)[1] == ("ten digits", "878", "DP-SGD", "1", "26.0 points")


def test_promises_are_told_before_and_after_conversion_and_votes_are_marked():
    table = promise_table(LEVELS)
    assert table[0][3:5] == ("2 at 1e-05, replace", "0.5 at 3e-06, add/remove")
    assert table[-1][4] == "the same" and table[-1][-1] == "0.7, not sanitized"
    assert chosen_table(LEVELS)[0] == ("ten digits", "878", "DP-SGD", "none", "90.0 %, 50.0 %")


def test_published_set_ups_and_audits_are_told():
    assert len(published_table(PUBLISHED)) == 7 and {len(row) for row in published_table(PUBLISHED)} == {6}
    assert [row[-2] for row in audit_table(AUDITS)] == ["stands", "refuted"]
    assert audit_bounds(AUDITS) == {"right code": {1.0: 0.4}, "wrong code": {1.0: 3.0}} and not audit_bounds(
        AUDITS, "gaussian"
    )
    assert refuted_words(AUDITS).startswith("Of 1 claims of code with a bug the audits refute 1, of 1 claims of right")

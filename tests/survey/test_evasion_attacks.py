"""The measured evasion attacks: what a row holds, what is computed from rows, and that all of it is committed."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from spai_lab.attacks.evasion import boundary, fgsm
from spai_lab.cli import main
from spai_lab.metrics import Rate
from spai_lab.survey import evasion_attacks
from spai_lab.survey.evasion_attacks import (
    besides,
    bootstrap,
    evasion_attacks_compared,
    mean,
    median_squared,
    pooled,
    summary_table,
    table_attacks,
)
from spai_lab.survey.evasion_jobs import (
    BALL,
    CARLINI_WAGNER,
    DEEPFOOL,
    EPS,
    JOBS,
    JSMA,
    MODELS,
    SUMMARY,
    ZOO,
    Attacked,
    asking,
    in_parts,
    knowing,
    rightly_read,
)
from spai_lab.survey.ledger import comparison_table, published
from spai_lab.survey.measure import load_measurement, measure
from spai_lab.survey.taxonomy import load_taxonomy, rows_of
from spai_lab.training import manifest, reference

EVASION = rows_of(load_taxonomy(), "evasion")
BY_ATTACK = {job.attack: job for job in reversed(SUMMARY)}


@pytest.fixture(scope="module")
def committed():
    return load_measurement("evasion_attacks")


@pytest.fixture
def network(mnist):
    return reference("lenet", mnist)


def row(job, **measured):
    """A row as a job leaves it, its lists made up."""
    return {**job.key, "knowledge": "white-box", "queries": None, "processor_seconds": 1.0, **measured}


def test_every_evasion_attack_of_the_taxonomy_is_measured():
    assert {job.attack for job in SUMMARY} == {row.id for row in EVASION}


def test_no_two_jobs_are_taken_for_the_same():
    keys = {json.dumps(job.key) for job in JOBS}
    assert len(keys) == len(JOBS)


def test_every_published_figure_of_these_attacks_has_something_beside_it_or_a_reason():
    attacks = {"jsma", "deepfool", "lbfgs", "carlini_wagner", "zoo", "substitute", "boundary"}
    wanted = {name for name, figure in published().items() if figure["row"] in attacks and "missing" not in figure}
    assert {name for name, _ in besides()} == wanted | {"distillation-undefended"}


def test_chunks_are_as_many_images_as_the_ledger_asks_for():
    ledger = published()
    for name in ("jsma-success", "deepfool-lenet", "deepfool-mlp", "zoo-success", "boundary-l2", "boundary-cw"):
        jobs = dict(besides())[name].jobs
        assert sum(job.images * (9 if job.every_target else 1) for job in jobs) == ledger[name]["images"], name


def test_committed_measurement_is_complete_and_of_the_committed_weights(committed):
    keys = [{name: row[name] for name in JOBS[0].key} for row in committed["rows"]]
    for job in JOBS:
        assert keys.count(job.key) == 1 or job in (*CARLINI_WAGNER[1:], *ZOO[1:]), job
    assert all(key in [job.key for job in JOBS] for key in keys)
    entries = manifest()["models"]
    assert committed["weights"] == {model: entries[f"{model}-mnist"]["sha256"] for model in sorted(MODELS)}


def test_committed_rows_hold_one_distortion_an_image_and_none_for_a_failure(committed):
    access = {row.id: row.access for row in EVASION}
    for measured in committed["rows"]:
        assert measured["trials"] == measured["images"] * (9 if measured["every_target"] else 1)
        assert measured["knowledge"] == access[measured["attack"]]
        assert (measured["queries"] is None) or "black-box" in measured["knowledge"]
        if measured["norm"]:
            far = measured["distortions"]
            assert len(far) == len(measured["lengths"]) == measured["trials"]
            assert sum(number is not None for number in far) == measured["hits"]
            if BALL in measured["setting"]:
                assert all(number is None or number <= EPS + 1e-5 for number in far)


def test_committed_attacks_rank_as_they_must(committed):
    def measured(attack, word=""):
        (job,) = (job for job in SUMMARY if job.attack == attack and word in job.setting)
        return pooled(committed, [job])

    assert measured("fgsm").hits <= measured("pgd").hits <= measured("auto_attack").hits
    for farther in ("deepfool", "lbfgs", "boundary", "hop_skip_jump"):
        assert measured("carlini_wagner").far.median() <= measured(farther).far.median(), farther
    for wrapper in ("bpda", "eot"):
        assert measured(wrapper, "past").hits > measured(wrapper, "without").hits


def test_a_row_says_how_far_each_image_was_moved(network, mnist):
    job = Attacked("fgsm", "tiny", knowing(fgsm, eps=0.07), norm="l2", images=4)
    measured = job.run(0)
    x, y = mnist.sample(8)
    right = network(x).argmax(1) == y
    x, y = x[right][:4], y[right][:4]
    x_adv = fgsm(network, x, y, eps=0.07)
    hit = (network(x_adv).argmax(1) != y).tolist()
    sizes = np.sqrt(((x_adv - x).numpy().astype("float64") ** 2).sum((1, 2, 3)))
    assert measured["hits"] == sum(hit)
    assert measured["trials"] == 4
    for far, size, success in zip(measured["distortions"], sizes, hit, strict=True):
        assert far == pytest.approx(size, abs=2e-5) if success else far is None
    lengths = np.sqrt((x.numpy().astype("float64") ** 2).sum((1, 2, 3)))
    assert measured["lengths"] == pytest.approx(lengths, abs=2e-5)
    assert measured["queries"] is None


def test_every_target_is_aimed_at_once(network, mnist):
    seen = []

    def attempt(model, x, y, generator):
        seen.extend([x, y])
        return x, None

    measured = Attacked("jsma", "none", attempt, images=2, every_target=True).run(0)
    x, y = rightly_read(network, mnist, 0, 2, 0)
    assert torch.equal(seen[0][::9], x)
    assert [set(seen[1][i : i + 9].tolist()) for i in (0, 9)] == [set(range(10)) - {label} for label in y.tolist()]
    assert (measured["hits"], measured["trials"]) == (0, 18)


def test_chunks_take_the_images_one_after_the_other(network, mnist):
    x, y = rightly_read(network, mnist, 0, 5, 0)
    parts = [rightly_read(network, mnist, first, count, 0) for first, count in ((0, 2), (2, 3))]
    assert torch.equal(torch.cat([part[0] for part in parts]), x)
    assert torch.equal(network(x).argmax(1), y)
    assert not torch.equal(rightly_read(network, mnist, 0, 5, 1)[0], x)


def test_queries_are_those_of_a_victim_image(network):
    asked = asking(boundary, "labels", steps=5)
    measured = Attacked("boundary", "tiny", asked, norm="l2", images=3).run(0)
    assert measured["knowledge"] == "black-box"
    assert 5 <= measured["queries"] <= 5 * 2 + 101
    assert measured["hits"] == 3


def test_parts_do_not_matter_to_a_deterministic_attack(network, mnist):
    x, y = rightly_read(network, mnist, 0, 5, 0)
    whole, parts = (
        attempt(network, x, y, None)[0] for attempt in (knowing(fgsm, eps=0.1), in_parts(knowing(fgsm, eps=0.1), 2))
    )
    torch.testing.assert_close(parts, whole)


def test_bpda_sees_past_the_rounding(mnist):
    past, plain = (dataclasses.replace(job, images=4).run(0)["hits"] for job in SUMMARY if job.attack == "bpda")
    assert past > plain


@pytest.mark.parametrize("attack", ["transfer", "nes", "spatial", "jsma"])
def test_a_job_of_the_summary_runs(mnist, attack):
    measured = dataclasses.replace(BY_ATTACK[attack], images=2).run(0)
    assert measured["trials"] == 2
    assert json.loads(json.dumps(measured)) == measured


def test_an_interrupted_run_goes_on(mnist, tmp_path):
    jobs = [Attacked("fgsm", "tiny", knowing(fgsm, eps=0.07), images=2, first=first) for first in (0, 2)]
    kept = measure("m", jobs[:1], MODELS, file=tmp_path / "m.json")["rows"]
    rows = measure("m", jobs, MODELS, file=tmp_path / "m.json")["rows"]
    assert rows[0] == kept[0]
    assert [row["first"] for row in rows] == [0, 2]


def test_the_figures_are_those_of_the_rows():
    nine = [1.0, 2, 3, 4, 5, 6, 7, 8, 9]
    rows = [
        row(CARLINI_WAGNER[0], hits=18, trials=18, distortions=nine + [n + 1 for n in nine], lengths=[9.0] * 18),
        row(JSMA["probabilities"][0], hits=2, trials=9, distortions=[78.4, 156.8] + 7 * [None], lengths=[100.0] * 9),
        row(DEEPFOOL["mlp"][0], hits=2, trials=2, distortions=[1.0, 3.0], lengths=[10.0, 10.0]),
        row(BY_ATTACK["boundary"], hits=3, trials=3, distortions=[28.0, 2.8, None], lengths=[9.0] * 3, queries=77.0),
        row(ZOO[0], hits=3, trials=3, distortions=[1.0, 1.0, 4.0], lengths=[9.0] * 3, queries=5.0),
        row(ZOO[2], hits=1, trials=3, distortions=[None, 2.0, None], lengths=[9.0] * 3, queries=7.0),
    ]
    by_id = {comparison.figure["id"]: comparison for comparison in evasion_attacks_compared({"rows": rows})}
    expected = {"cw-best": 1.5, "cw-average": 5.5, "cw-worst": 9.5, "jsma-pixels": 0.15, "jsma-success": 2 / 9}
    expected |= {"deepfool-mlp": 0.2, "boundary-l2": 1.0, "zoo-l2": 2.0, "zoo-success": 4 / 6, "cw-success": 1.0}
    assert {name: comparison.value for name, comparison in by_id.items()} == pytest.approx(expected)
    assert {name: by_id[name].images for name in ("cw-best", "jsma-pixels", "jsma-success", "zoo-l2")} == {
        "cw-best": 2,
        "jsma-pixels": 9,
        "jsma-success": 9,
        "zoo-l2": 6,
    }
    assert by_id["zoo-success"].interval == Rate(4, 6).interval
    assert "6 queries an image" in by_id["zoo-l2"].ours
    assert by_id["cw-best"].interval == (1.0, 2.0)


def test_another_network_reproduces_nothing():
    assert dict(besides())["deepfool-mlp"].differs == "our network has 89,610 parameters, theirs 469,160"
    assert "our network has 2 convolutions, theirs four" in dict(besides())["cw-best"].differs
    assert "61,706 parameters, the size of theirs is not stated" in dict(besides())["deepfool-lenet"].differs


def test_jsma_as_published_is_by_logits_and_by_probabilities_another_set_up(committed):
    """By probabilities, all else being the same, more images are fooled, with fewer pixels, as the reason says."""
    compared = [each for each in evasion_attacks_compared(committed) if each.figure["row"] == "jsma"]
    by = {(each.figure["id"], each.ours.rpartition(" ")[2]): each for each in compared if each.images == 900}
    assert len(by) == len(compared) == 4
    for (_, output), each in by.items():
        assert each.outcome == {"probabilities": "not comparable", "logits": "deviates"}[output]
    likely, logits = (by["jsma-success", output].value for output in ("probabilities", "logits"))
    fewer, more = (by["jsma-pixels", output].value for output in ("probabilities", "logits"))
    assert likely > logits and fewer < more
    assert "by probabilities the same LeNet is fooled with fewer pixels" in by["jsma-success", "logits"].verdict


def test_every_comparison_of_the_committed_measurement_is_printed(committed):
    compared = evasion_attacks_compared(committed)
    assert [comparison.figure["id"] for comparison in compared] == [name for name, _ in besides()]
    for comparison in compared:
        low, high = comparison.interval
        assert low <= comparison.value <= high
        assert math.isfinite(high)
    assert comparison_table(compared).count("\n") == len(compared) + 1


def test_the_table_has_a_line_for_each_attack_and_setting(committed):
    table = table_attacks(committed)
    assert len(table) == len(SUMMARY)
    assert list(dict.fromkeys(table["attack"])) == [row.name for row in EVASION]
    lines = summary_table(committed).splitlines()
    assert len(lines) == len(SUMMARY) + 2
    assert {line.count("|") for line in lines} == {len(table.columns) + 1}


def test_the_command_prints_the_table_and_the_comparisons(committed, monkeypatch, capsys):
    monkeypatch.setattr(evasion_attacks, "measure_evasion_attacks", lambda *, fresh: committed)
    assert main(["measure", "evasion_attacks"]) == 0
    table, compared = capsys.readouterr().out.split("\n\n")
    assert table == summary_table(committed)
    assert compared.strip() == comparison_table(evasion_attacks_compared(committed))


def test_more_failures_than_successes_have_no_median():
    job = BY_ATTACK["deepfool"]
    lengths = [9.0] * 4
    few = {"rows": [row(job, hits=1, trials=4, distortions=[0.5, None, None, None], lengths=lengths)]}
    most = {"rows": [row(job, hits=3, trials=4, distortions=[0.5, 0.75, 1.0, None], lengths=lengths)]}
    assert table_attacks(few)["median distortion"].tolist() == ["∞"]
    assert table_attacks(most)["median distortion"].tolist() == ["0.875"]
    assert table_attacks(most)["success"].tolist() == ["75 % (30 to 95)"]


def test_bootstrap_agrees_with_the_normal_interval_of_a_mean():
    drawn = 3 + torch.randn(400, 1, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    low, high = bootstrap(drawn, mean)
    center, half = drawn[..., 0].mean().item(), 1.96 * drawn[..., 0].std().item() / 20
    assert (low, high) == pytest.approx((center - half, center + half), abs=0.15 * half)
    low, high = bootstrap(drawn, median_squared)
    assert low < median_squared(drawn) < high

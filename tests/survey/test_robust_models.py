"""The robust models of MNIST: the tables say what was measured, and the committed measurement keeps its promises."""

from itertools import pairwise

import pytest
import torch

from spai_lab.metrics import Rate
from spai_lab.survey.ledger import published
from spai_lab.survey.measure import load_measurement
from spai_lab.survey.robust_models import (
    ATTACKS,
    BESIDE,
    CERTIFIED,
    EPS,
    JOBS,
    MODELS,
    SMOOTHED,
    SQUARED,
    TESTS,
    Examined,
    Smoothed,
    as_published,
    certified_by_radius,
    examined,
    gradient_of_lead,
    robust_compared,
    robust_table,
    under_pgd,
)
from spai_lab.threat import fooled
from spai_lab.training import manifest, reference

MADE = {
    "rows": [
        {"kind": "tested", "model": "strided-pgd", "test": "clean", "stands": [99, 100]},
        {"kind": "tested", "model": "strided-pgd", "test": "AutoAttack", "stands": [91, 100]},
        {"kind": "as published", "victim": "strided-pgd", "attack": "FGSM", "stands": [47, 50]},
        {"kind": "as published", "victim": "strided-pgd", "attack": "FGSM", "stands": [50, 50]},
        {"kind": "smoothed", "sigma": 0.25, "certified": {"0": [9, 10], "0.5": [6, 10]}, "abstained": 1},
    ]
}


def test_tables_hold_what_was_measured_and_leave_the_rest_open():
    assert examined(MADE)["strided-pgd", "AutoAttack"] == Rate(91, 100)
    assert certified_by_radius(MADE) == {"sigma 0.25": {0.0: Rate(9, 10), 0.5: Rate(6, 10)}}
    (line,) = (line for line in robust_table(MADE).splitlines() if line.startswith("| strided-pgd "))
    assert line.endswith(f"| {Rate(99, 100)} | {Rate(91, 100)} |")


def test_figures_are_compared_with_those_of_the_same_attack():
    compared = {each.figure["id"]: each for each in robust_compared(MADE)}
    assert {name: each.value for name, each in compared.items()} == {
        "madry-natural": 0.99,
        **dict.fromkeys(("madry-fgsm", "secret-fgsm"), 0.97),
        "secret-best-attack": 0.91,
        "smoothing-0": 0.9,
        "smoothing-5": 0.6,
    }
    assert all(each.figure == published()[name] for name, each in compared.items())
    assert "662,786 parameters, theirs 3,274,634" in compared["madry-fgsm"].differs
    assert "other data" in compared["smoothing-0"].differs


def test_every_published_figure_of_robust_training_has_an_attack_of_ours_beside_it():
    rows = ("adversarial_training", "auto_attack", "ibp", "randomized_smoothing")
    wanted = {name for name, figure in published().items() if figure["row"] in rows}
    assert {*BESIDE, *CERTIFIED, "natural-undefended"} == wanted
    assert {test for _, test, _ in BESIDE.values()} <= {"clean", *TESTS, *ATTACKS}


def test_the_gradient_of_the_lead_is_that_of_the_loss_of_carlini_and_wagner(mnist):
    model = reference("strided-pgd", mnist)
    x, y = mnist.sample(4, seed=0)
    x = x.clone().requires_grad_()
    logits = model(x)
    others = logits.masked_fill(torch.nn.functional.one_hot(y, 10).bool(), -torch.inf)
    (expected,) = torch.autograd.grad((others.max(1).values - logits[torch.arange(4), y]).sum(), x)
    torch.testing.assert_close(gradient_of_lead(model, x.detach(), y), expected)


def test_an_image_stands_if_no_restart_turns_it(mnist):
    model = reference("strided-trades", mnist)
    x, y = mnist.sample(8, seed=0)
    assert not (under_pgd(model, x, y, seed=0) & fooled(model, x, y)).any()


# --- the committed measurement ----------------------------------------------------------------------------------------


@pytest.fixture
def committed():
    return load_measurement("robust_models")


def test_the_committed_measurement_holds_every_job_and_the_committed_weights(committed):
    for job in JOBS:
        assert sum(row.items() >= job.key.items() for row in committed["rows"]) == 1, job
    entries = manifest()["models"]
    assert committed["weights"] == {model: entries[f"{model}-mnist"]["sha256"] for model in sorted(MODELS)}


def test_robust_training_keeps_its_promise(committed):
    """At eps .3: at least 88 % under PGD-100 with 20 restarts and under AutoAttack, natural accuracy at least 98 %."""
    found = examined(committed)
    assert EPS == 0.3
    for model in ("strided-pgd", "strided-trades"):
        assert found[model, "clean"].value >= 0.98
    best = max(found[model, "AutoAttack"].value for model in ("strided-pgd", "strided-trades"))
    assert best >= 0.88
    assert found["strided-trades", "PGD-100 x 20"].value >= 0.88


def test_autoattack_leaves_no_more_than_pgd(committed):
    found = examined(committed)
    for model in MODELS:
        assert found[model, "AutoAttack"].hits <= found[model, "PGD-100 x 20"].hits + 5


def test_more_steps_and_restarts_leave_no_more(committed):
    found = as_published(committed)
    order = ("FGSM", "PGD-40", "PGD-100", "PGD-40 x 20")
    hits = [found["strided-pgd", attack].hits for attack in order]
    assert all(later <= earlier + 5 for earlier, later in pairwise(hits))
    assert found["strided-pgd", "Square"].trials == SQUARED
    best = examined(committed)["strided-pgd", "AutoAttack"].value
    assert all(rate.value >= best - 0.03 for (model, _), rate in found.items() if model == "strided-pgd")


def test_intervals_prove_what_they_were_trained_for(committed):
    found = examined(committed)
    assert found["strided-ibp", "clean"].value >= 0.97
    assert found["strided-ibp", "verified by intervals"].value >= 0.85
    assert found["strided-ibp", "verified by intervals"].hits <= found["strided-ibp", "AutoAttack"].hits


def test_certified_curves_fall(committed):
    for rates in certified_by_radius(committed).values():
        hits = [rate.hits for rate in rates.values()]
        assert hits == sorted(hits, reverse=True) and hits[0] > 0.9 * SMOOTHED


def test_jobs_name_each_model_and_both_sigmas():
    assert {job.model for job in JOBS if isinstance(job, Examined)} == set(MODELS)
    assert {job.sigma for job in JOBS if isinstance(job, Smoothed)} == {0.25, 0.5}

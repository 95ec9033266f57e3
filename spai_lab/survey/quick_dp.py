"""Differential privacy in seconds, on the digits: the same questions as in `full`, at the same promise."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from torch import Tensor, nn

from spai_lab.data import load
from spai_lab.metrics import accuracy_rate
from spai_lab.models import Normalize
from spai_lab.privacy.accounting import dp_sgd_guarantee, noise_for
from spai_lab.privacy.dp_audit import dp_audit
from spai_lab.privacy.pate import Taught, pate
from spai_lab.survey.audit_jobs import CODES, CONFIDENCE, MECHANISMS
from spai_lab.survey.defense_models import seeded
from spai_lab.survey.dp_headlines import (
    METHODS,
    accounting_headline,
    audit_headline,
    mechanisms_headline,
    private_headline,
    selective_headline,
)
from spai_lab.survey.full_dp import CLAIM, EPSILON, SHARED, TASKS
from spai_lab.survey.headline import Headline
from spai_lab.survey.headline_rows import fresh
from spai_lab.survey.measure import counted
from spai_lab.survey.private_jobs import DELTA, Private, linear, records, seen, stated, votes_noise
from spai_lab.survey.together_jobs import SHARING, Mechanisms, Selective

TASK, RECORDS = TASKS["digits"]
TRAININGS = 5
TRIES = 3  # trainings of each setting, before the validation part chooses
ENSEMBLES = tuple({"teachers": teachers, "queries": queries} for teachers in (40, 80) for queries in (50, 100))
EVEN = Normalize(mean=0.0, std=1 / 7)  # 49 numbers of norm 1 become numbers around 1: larger steps
RUNS, BUGGED = 20_000, 4_000


def mechanisms(seed: int, answers: int = 10_000) -> Headline:
    """A count, and the commonest digit."""
    return mechanisms_headline(fresh(Mechanisms("digits", 1.0, answers), seed))


def selective(seed: int, trainings: int = TRAININGS) -> Headline:
    """Noisy gradients, and every other way to share."""
    rows = {way: fresh(Selective("digits", way, trainings=trainings), seed) for way in SHARING}
    return selective_headline(rows.pop(SHARED), list(rows.values()))


def private(method: str, seed: int) -> Headline:
    """A method of private learning, its settings chosen on the validation part."""
    name, model = METHODS[method]
    return private_headline(fresh(Private("digits", RECORDS, TASK, name, EPSILON), seed), model)


def teachers(seed: int, trainings: int = TRAININGS) -> Headline:
    """Teachers and student, on the same rows of 49 numbers as the other methods; settings are chosen as theirs."""
    tries = range(1000 * (seed + 1) - TRIES, 1000 * (seed + 1))
    x, y, _, _ = judged()
    hits = [sum(accuracy_rate(ensemble(setting, k).student, x, y).hits for k in tries) for setting in ENSEMBLES]
    chosen = ENSEMBLES[hits.index(max(hits))]
    taught = [ensemble(chosen, 1000 * seed + run) for run in range(trainings)]
    guarantee, (*_, x, y) = taught[0].guarantee, judged()
    row = {
        "data": "digits",
        "records": RECORDS,
        "task": TASK,
        "public": int(chosen["queries"]),
        "setting": chosen,
        **stated(guarantee),
        "spent": guarantee.epsilon,
        "accuracy": [counted(accuracy_rate(each.student, x, y)) for each in taught],
    }
    return private_headline(row, METHODS["pate"][1])


def judged() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows and labels of the validation part, and of the test part."""
    data, validation = load("digits"), records("digits", RECORDS, TASK).validation
    test = seen(data.x_test, data.y_test, TASK)
    return validation.rows, validation.y, test.rows, test.y


def ensemble(setting: dict[str, float], seed: int) -> Taught:
    """A student of linear teachers that spends the budget."""
    parts, (x_val, y_val, x_test, y_test) = records("digits", RECORDS, TASK), judged()
    private = {"x_train": parts.private.rows, "y_train": parts.private.y, "x_val": x_val, "y_val": y_val}
    data = replace(load("digits"), **private, x_test=x_test, y_test=y_test, classes=("even", "odd"))
    queries = int(setting["queries"])
    return pate(
        data,
        parts.public[:queries],
        lambda generator: nn.Sequential(EVEN, *linear(parts.classes)),
        teachers=int(setting["teachers"]),
        noise=votes_noise(EPSILON, queries),
        delta_dp=DELTA,
        epochs=40,
        student_epochs=30,
        generator=seeded(seed),
        progress=False,
    )


def audited(name: str, runs: int, seed: int) -> dict:
    """What runs prove of a code, right or not, as a row of an audit has it."""
    code = CODES[name]
    how = {"sampling_rate": code.sampling_rate, "steps": code.steps}
    sigma = noise_for(epsilon=CLAIM, delta_dp=DELTA, **how)
    claim = dp_sgd_guarantee(**how, noise_multiplier=sigma, delta_dp=DELTA)
    mechanism = MECHANISMS[code.canary]("digits", code, sigma)
    settings = {"delta_dp": DELTA, "confidence": CONFIDENCE, "generator": seeded(seed), "progress": False}
    audit = dp_audit(mechanism, runs=runs, **settings)
    told = {"data": "digits", "code": name, "canary": code.canary, "runs": runs, "confidence": CONFIDENCE}
    return told | stated(claim) | {"bounds": {"any": audit.epsilon_low}, "refuted": audit.exceeds(claim)}


def audit(seed: int, runs: int = RUNS, bugged: int = BUGGED) -> Headline:
    """Right code, and code that divides its noise twice."""
    bug = "noise for the wrong batch size"
    proved = audited(bug, bugged, seed)["bounds"]["any"]
    row = audited("all records at each step", runs, seed)
    return audit_headline(row, {"proved of code with a bug": {bug: proved}})


QUICK: dict[str, Callable[[int], Headline]] = {
    "mechanisms": mechanisms,
    "selective_sgd": selective,
    "dp_sgd": partial(private, "dp_sgd"),
    "accounting": lambda seed: accounting_headline(),
    "objective_perturbation": partial(private, "objective_perturbation"),
    "functional_mechanism": partial(private, "functional_mechanism"),
    "pate": teachers,
    "dp_audit": audit,
}

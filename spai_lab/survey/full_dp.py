"""Differential privacy, from what `spai-lab measure` has kept: MNIST, and digits where a method manages two classes."""

import statistics
from collections.abc import Callable
from functools import partial

from spai_lab.survey.dp_headlines import (
    METHODS,
    accounting_headline,
    audit_headline,
    mechanisms_headline,
    private_headline,
    selective_headline,
)
from spai_lab.survey.headline import Headline
from spai_lab.survey.headline_rows import kept, shared_out
from spai_lab.survey.measure import load_measurement, rows_of_kind

IMAGES = ("digits", "mnist")
EPSILON = 2.0
TASKS = {"digits": ("even or odd", 878), "mnist": ("ten digits", 50_000)}
SHARED = "a noisy tenth, 10 each"
CLAIM = 4.0


def answers() -> list[Headline]:
    """A count on each data set."""
    return [mechanisms_headline(kept(f"blocks_{name}", kind="mechanisms")) for name in IMAGES]


def learned(method: str) -> list[Headline]:
    """A method of private learning, at the same promise for all."""
    name, model = METHODS[method]
    found = []
    for data, (task, count) in TASKS.items():
        one = partial(kept, f"private_{data}", kind="private", task=task, records=count, method=name)
        details = {"on scattering coefficients": scattered(method)} if data == "mnist" and method in SCATTERED else {}
        found.append(private_headline(one(epsilon=EPSILON), model, one(epsilon=None), details))
    return found


def scattered_sgd(row: dict) -> list[list[int]]:
    """The accuracies of DP-SGD on features that nobody's data chose."""
    return row["accuracy"]


def scattered_pate(row: dict) -> list[list[int]]:
    """Those of PATE."""
    return [run["accuracy"] for run in row["runs"]]


SCATTERED = {"dp_sgd": ("scattered sgd", scattered_sgd), "pate": ("scattered pate", scattered_pate)}


def scattered(method: str) -> dict:
    """The same row of the taxonomy on scattering coefficients of MNIST: accuracy, epsilon, neighbors."""
    kind, accuracies = SCATTERED[method]
    row = kept("scattered_mnist", kind=kind, budget=EPSILON)
    accuracy = statistics.mean(map(shared_out, accuracies(row)))
    return {"accuracy": round(accuracy, 4), "epsilon": row["epsilon"], "adjacency": row["adjacency"]}


def sharing() -> list[Headline]:
    """Noisy gradients, beside what sharing costs without noise."""
    found = []
    for name in IMAGES:
        rows = rows_of_kind(load_measurement(f"blocks_{name}"), "selective")
        others = [row for row in rows if row["sharing"] != SHARED]
        found.append(selective_headline(kept(f"blocks_{name}", kind="selective", sharing=SHARED), others))
    return found


def audits() -> list[Headline]:
    """An audit on digits, beside what the same claim looks like where the code has a bug."""
    rows = [row for row in rows_of_kind(load_measurement("audit_digits"), "audit") if row["claimed"] == CLAIM]
    bugs = {row["code"]: row["bounds"]["any"] for row in rows if row["planted"]}
    row = kept("audit_digits", kind="audit", code="all records at each step", claimed=CLAIM)
    return [audit_headline(row, {"proved of code with a bug": bugs})]


FULL: dict[str, Callable[[], list[Headline]]] = {
    "mechanisms": answers,
    "selective_sgd": sharing,
    "dp_sgd": partial(learned, "dp_sgd"),
    "accounting": lambda: [accounting_headline()],
    "objective_perturbation": partial(learned, "objective_perturbation"),
    "functional_mechanism": partial(learned, "functional_mechanism"),
    "pate": partial(learned, "pate"),
    "dp_audit": audits,
}

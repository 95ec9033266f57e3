"""Backdoors against poison fraction, the matrix of backdoors and defenses, and both beside the published figures."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from spai_lab.metrics import Rate
from spai_lab.survey.backdoor_jobs import DEFENSES, MATRIX_BACKDOORS, PLANTS, jobs
from spai_lab.survey.ledger import Comparison, published
from spai_lab.survey.measure import measure

MODELS = ("lenet", "lenet-robust")


def measure_backdoors(name: str, *, seed: int = 0, fresh: bool = False, file: Path | None = None) -> dict:
    """Measure all of it on one data set, `name`; the other arguments are those of `measure`."""
    return measure(f"backdoors_{name}", jobs(name), MODELS, data=name, seed=seed, fresh=fresh, file=file)


def rows_of_kind(measurement: dict, kind: str) -> list[dict]:
    """The rows of one kind of job."""
    return [row for row in measurement["rows"] if row["kind"] == kind]


def rate_of(row: dict, what: str) -> Rate | None:
    """A rate that a row holds as hits and trials; None where it has none, or there was nothing to count."""
    return Rate(*row[what]) if row.get(what, [0, 0])[1] else None


def backdoor_curves(measurement: dict, what: str) -> dict[str, dict[float, Rate]]:
    """Success or clean accuracy by poison fraction, 0 included, for each backdoor.

    Args:
        measurement: as `measure_backdoors` returns it.
        what: "success" or "accuracy".
    Returns:
        name of a backdoor to its rates by fraction, as `fraction_curves` draws them.
    """
    curves: dict[str, dict[float, Rate]] = {}
    for row in sorted(rows_of_kind(measurement, "success"), key=lambda row: row["fraction"]):
        rates = curves.setdefault(row["backdoor"], {0.0: Rate(*row[f"{what}_before"])})
        rates[row["fraction"]] = Rate(*row[f"{what}_after"])
    return {name: curves[name] for name in PLANTS if name in curves}


def cleaning_matrix(measurement: dict, what: str) -> pd.DataFrame:
    """Backdoors by defenses: one number a cell, NaN where the defense has nothing to look at or was not measured.

    Args:
        measurement: as `measure_backdoors` returns it.
        what: "true_positives", "false_positives", "success_before", "success_after", "accuracy_before" or
            "accuracy_after".
    Returns:
        shares in [0, 1]; a row a backdoor, a column a defense.
    """
    cells = {(row["backdoor"], row["defense"]): rate_of(row, what) for row in rows_of_kind(measurement, "cleaned")}
    table = {
        defense: {
            backdoor: None if cells.get((backdoor, defense)) is None else cells[backdoor, defense].value
            for backdoor in MATRIX_BACKDOORS
        }
        for defense in DEFENSES
    }
    return pd.DataFrame(table, dtype=float)


def false_alarms(measurement: dict) -> Rate:
    """How many clean models Neural Cleanse flags."""
    rows = rows_of_kind(measurement, "false_alarm")
    return Rate(sum(bool(row["flagged"]) for row in rows), len(rows))


def backdoors_compared(measurement: dict) -> list[Comparison]:
    """The published figures of backdoors and of their defenses, each beside what was measured for it."""
    ledger = published()
    found = ((ledger[name], rate, ours, differs) for name, rate, ours, differs in besides(measurement))
    return [
        Comparison(figure, rate.value, rate.trials, rate.interval, ours, differs)
        for figure, rate, ours, differs in found
        if rate is not None
    ]


def f1(row: dict) -> Rate | None:
    """The F1 of what a data defense drops: 2 TP of 2 TP + FP + FN.

    >>> f1({"true_positives": [8, 10], "false_positives": [2, 90]}).value
    0.8
    """
    if "true_positives" not in row:
        return None
    (hits, poisons), (alarms, _) = row["true_positives"], row["false_positives"]
    return Rate(2 * hits, hits + alarms + poisons)


def besides(measurement: dict) -> Iterable[tuple[str, Rate | None, str, str]]:
    """By the id of a published figure: our rate, our set-up, and what that differs in."""
    cells = {(row["backdoor"], row["defense"]): row for row in rows_of_kind(measurement, "cleaned")}
    ours = "LeNet, 4,000 training images"
    smaller = "fewer training images, another network"

    def cell(backdoor: str, defense: str, what: str) -> Rate | None:
        return rate_of(cells.get((backdoor, defense), {}), what)

    def missed(rate: Rate | None) -> Rate | None:
        return None if rate is None else Rate(rate.trials - rate.hits, rate.trials)

    everywhere, clean = (cell("badnets, all to all", "strip", f"{what}_before") for what in ("success", "accuracy"))
    yield "badnets-all-to-all", missed(everywhere), f"{ours}, 10 % poison", smaller
    yield "badnets-clean", missed(clean), f"{ours}, 10 % poison", smaller
    ours = f"{ours}, 3 % poison"
    yield "cleanse-before", cell("badnets", "neural_cleanse", "success_before"), ours, smaller
    repaired = cell("badnets", "neural_cleanse", "success_after")
    yield "cleanse-after", repaired, ours, f"few images to repair with, {smaller}"
    yield "strip-acceptance", missed(cell("badnets", "strip", "true_positives")), ours, f"another trigger, {smaller}"
    found = f1(cells.get(("badnets", "activation_clustering"), {}))
    yield "clustering-f1", found, ours, f"less poison, {smaller}"
    for row in rows_of_kind(measurement, "bounded"):
        attacked = rate_of(row, "errors_attacked")
        yield "slab-error", attacked, "linear SVM, under the attack of the bound's game", "an error, no certificate"
    yield "pruning-after", cell("badnets", "fine_pruning", "success_after"), ours, "digits, not faces"

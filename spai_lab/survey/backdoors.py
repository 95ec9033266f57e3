"""Backdoors against poison fraction, the matrix of backdoors and defenses, and both beside the published figures."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from spai_lab.defenses.poisoning.neural_cleanse import anomaly_index
from spai_lab.metrics import Rate
from spai_lab.survey.backdoor_jobs import jobs
from spai_lab.survey.backdoor_victims import MATRIX_BACKDOORS, PLANTS, TARGET
from spai_lab.survey.cleaning_jobs import DEFENSES
from spai_lab.survey.ledger import Comparison, published
from spai_lab.survey.measure import measure, rows_of_kind

MODELS = ("lenet", "lenet-robust")


def measure_backdoors(
    name: str, *, seed: int = 0, fresh: bool = False, workers: int = 1, file: Path | None = None
) -> dict:
    """Measure all of it on one data set, `name`; the other arguments are those of `measure`."""
    return measure(
        f"backdoors_{name}", jobs(name), MODELS, data=name, seed=seed, fresh=fresh, workers=workers, file=file
    )


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


class Measured(NamedTuple):
    """A value that is no plain share of images, with what it rests on."""

    value: float
    trials: int
    interval: tuple[float, float]


def f1(row: dict, resamples: int = 10_000) -> Measured:
    """The F1 of what a data defense drops, 2 TP of 2 TP + FP + FN, with a 95 % bootstrap interval over the inputs.

    >>> found = f1({"true_positives": [8, 10], "false_positives": [2, 90]})
    >>> found.value, found.trials, found.interval[0] < 0.8 < found.interval[1]
    (0.8, 100, True)
    """
    (hits, poisons), (alarms, innocent) = row["true_positives"], row["false_positives"]
    inputs = poisons + innocent
    shares = np.array([hits, alarms, poisons - hits, innocent - alarms]) / inputs
    drawn = np.random.default_rng(0).multinomial(inputs, shares, size=resamples)
    scores = 2 * drawn[:, 0] / np.maximum(2 * drawn[:, 0] + drawn[:, 1] + drawn[:, 2], 1)
    low, high = np.quantile(scores, [0.025, 0.975])
    return Measured(2 * hits / max(2 * hits + alarms + poisons - hits, 1), inputs, (float(low), float(high)))


def bound_by_fraction(measurement: dict) -> dict[str, dict[float, float]]:
    """By poison fraction: Steinhardt's bound on the training loss, the part that clean images have in it, and the loss
    that the attack is proved to reach."""
    rows = rows_of_kind(measurement, "bounded")
    return {
        "no attack gets beyond": {row["fraction"]: row["loss"] for row in rows},
        "of that, on clean images": {row["fraction"]: row["clean_part"] for row in rows},
        "the attack surely reaches": {row["fraction"]: row["reached"] for row in rows},
    }


def trojan_by_images(measurement: dict) -> list[tuple[int, Rate, Rate]]:
    """The images of each class that the Trojan attack made, its success, and the clean accuracy."""
    rows = rows_of_kind(measurement, "trojaned")
    return [(row["images"], Rate(*row["success_after"]), Rate(*row["accuracy_after"])) for row in rows]


def federated_by_share(measurement: dict, what: str) -> dict[str, dict[float, Rate]]:
    """Success or accuracy after one attacked round, by the attacker's share of the participants, scaled and not.

    Args:
        measurement: as `measure_backdoors` returns it.
        what: "success" or "accuracy".
    """
    names = {True: "scaled to replace the model", False: "as large as the others"}
    rows = sorted(rows_of_kind(measurement, "federated"), key=lambda row: -row["participants"])
    return {
        name: {1 / row["participants"]: Rate(*row[f"{what}_after"]) for row in rows if row["scaled"] == scaled}
        for scaled, name in names.items()
    }


def besides(measurement: dict) -> Iterable[tuple[str, Rate | Measured | None, str, str]]:
    """By the id of a published figure: what we measured, our set-up, and what that differs in."""
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
    for row in rows_of_kind(measurement, "success"):
        if (row["backdoor"], row["poisons"]) == ("blended", 40):
            yield "blended-success", rate_of(row, "success_after"), f"{ours}, 40 poisons", "digits, not that data"
    signed = cells.get(("badnets", "spectral_signatures"))
    if signed is not None:
        dropped = signed["false_positives"][0] + signed["true_positives"][0]
        left = rate_of(signed, "success_after")
        yield "spectral-after", left, f"{ours}, 3 % poison", f"digits, not that data; drops {dropped:,} images"
    for row in rows_of_kind(measurement, "clustered"):
        yield "clustering-f1", f1(row), f"{ours}, {100 * row['share']:.0f} % of the target's class", smaller
    ours = f"{ours}, 3 % poison"
    yield "cleanse-before", cell("badnets", "neural_cleanse", "success_before"), ours, smaller
    repaired = cell("badnets", "neural_cleanse", "success_after")
    yield "cleanse-after", repaired, ours, f"few images to repair with, {smaller}"
    if ("badnets", "neural_cleanse") in cells:
        norms = torch.tensor(cells["badnets", "neural_cleanse"]["norms"])
        index = anomaly_index(norms)[TARGET].item()
        yield "cleanse-index", Measured(index, len(norms), (index, index)), f"{ours}; one model, ten classes", smaller
    rejected = cell("badnets", "strip", "false_positives")
    if rejected is not None:
        accepted = missed(cell("badnets", "strip", "true_positives"))
        yield "strip-acceptance", accepted, f"{ours}; rejects {100 * rejected.value:.1f} % of clean images", smaller
    for row in rows_of_kind(measurement, "bounded"):
        if row["fraction"] == 0.3:
            attacked = "test error under the attack that was made for it"
            yield "slab-error", Rate(*row["errors_attacked"]), attacked, "one attack; theirs is a bound on all of them"
    for name in ("faces", "speech", "signs"):
        success = cell("badnets", "fine_pruning", "success_before")
        yield f"pruning-{name}-before", success, ours, "digits, not that data"
    for name in ("pruning-after", "pruning-speech", "pruning-signs"):
        yield name, cell("badnets", "fine_pruning", "success_after"), ours, "digits, not that data"

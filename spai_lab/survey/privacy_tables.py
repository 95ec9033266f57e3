"""What was measured of attacks on privacy, as numbers by name and as rows of words."""

import statistics
from collections.abc import Sequence
from dataclasses import fields

from spai_lab.metrics import Rate
from spai_lab.survey.measure import rows_of_kind
from spai_lab.survey.membership_jobs import ENOUGH, GRID, Population

# --- membership


def base_row(measurement: dict) -> dict:
    """The population that every attack was run on, with the scores of its first target."""
    return next(row for row in rows_of_kind(measurement, "members") if "first" in row)


def membership_curves(measurement: dict) -> dict[str, tuple[list[float], list[float]]]:
    """By attack the curve of all targets together: false positives, as far as enough innocent inputs were scored, and
    true ones."""
    curves = {}
    for name, found in base_row(measurement)["attacks"].items():
        kept = [(x, y) for x, y in zip(GRID.tolist(), found["curve"], strict=True) if x * found["innocent"] >= ENOUGH]
        curves[name] = tuple(map(list, zip(*kept, strict=True)))
    return curves


def caught_table(measurement: dict) -> list[tuple[str, ...]]:
    """For each attack its mean area under the curve, and the members found at low false positives, with intervals."""
    table = []
    for name, found in base_row(measurement)["attacks"].items():
        cells = (
            f"{100 * value:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
            for value, low, high in found["caught"].values()
        )
        table.append((name, f"{found['area']:.3f}", *cells))
    return table


def area_by_level(measurement: dict) -> dict[str, dict[str, float]]:
    """For each level of the answer the area under each attack's curve; the same population at every level."""
    rows = [row for row in rows_of_kind(measurement, "members") if "first" not in row]
    population = next(trained_as(row) for row in rows if row["level"] != "logits")
    levels = [row for row in rows if trained_as(row) == population]
    return {row["level"]: {name: found["area"] for name, found in row["attacks"].items()} for row in levels}


def trained_as(row: dict) -> dict:
    """The population that a row was measured on."""
    return {field.name: row[field.name] for field in fields(Population)}


def knob_table(measurement: dict) -> list[tuple[str, ...]]:
    """What a model's training has to do with what it tells: set size, epochs, weight decay; accuracies and areas."""
    table = []
    for row in rows_of_kind(measurement, "members"):
        if row["level"] == "logits" and "first" not in row:
            members, others = (Rate(*row["accuracy"][where]) for where in ("members", "others"))
            areas = (f"{row['attacks'][name]['area']:.3f}" for name in ("loss", "LiRA, online"))
            settings = (str(row["inputs"] // 2), str(row["epochs"]), f"{row['weight_decay']:g}")
            table.append((*settings, f"{100 * members.value:.1f} %", f"{100 * others.value:.1f} %", *areas))
    return table


# --- extraction


def agreement_by_budget(measurement: dict) -> dict[tuple[str, str], dict[int, Rate]]:
    """By strategy and level how often copy and victim agree, by budget."""
    return {
        (row["strategy"], row["level"]): {int(budget): Rate(*counts) for budget, counts in row["agree"].items()}
        for row in rows_of_kind(measurement, "learned")
    }


def fooled_by_copy(measurement: dict) -> dict[tuple[str, str], dict[str, Rate]]:
    """By strategy and level how many images fool the victim: PGD on the largest copy, and random signs."""
    return {
        (row["strategy"], row["level"]): {name: Rate(*counts) for name, counts in row["fooled"].items()}
        for row in rows_of_kind(measurement, "learned")
    }


def copies_table(measurement: dict) -> list[tuple[str, ...]]:
    """By what is asked and answered: agreement by budget, and what PGD on the largest copy does to the victim."""
    fooled = fooled_by_copy(measurement)
    return [
        (
            *key,
            ", ".join(f"{budget}: {100 * rate.value:.0f} %" for budget, rate in rates.items()),
            str(fooled[key]["PGD"]),
        )
        for key, rates in agreement_by_budget(measurement).items()
    ]


def solved_table(measurement: dict) -> list[tuple[str, ...]]:
    """Regressions by the decimals of the answers: solved for, fitted, and what the rounding costs the user."""
    fitted = {(10, row["decimals"]): percent(Rate(*row["agree"])) for row in rows_of_kind(measurement, "fitted")}
    return [
        (
            f"{row['classes']} classes",
            "all" if row["decimals"] is None else str(row["decimals"]),
            f"{row['queries']:,}",
            "–" if row["error"] is None else f"{row['error']:.1g}",
            percent(Rate(*row["agree"])),
            fitted.get((row["classes"], row["decimals"]), "–"),
            percent(Rate(*row["user"])),
        )
        for row in rows_of_kind(measurement, "solved")
    ]


def apart_words(measurement: dict) -> str:
    """In words: how many small networks were taken apart, and with how many queries."""
    rows = rows_of_kind(measurement, "apart")
    queries = sorted(row["queries"] for row in rows)
    missed = sum(row["switching"] - row["found"] for row in rows)
    return (
        f"Of {len(rows)} networks with {rows[0]['hidden']} hidden units {sum(row['complete'] for row in rows)} were "
        f"taken apart completely, with {queries[0]:,} to {queries[-1]:,} queries. {missed} units of the others were "
        "missed: they switch only in some corner of [0, 1] that no line met. On the images that verify a copy its "
        f"logits are off by at most {max(row['residual'] for row in rows):.0e} of the largest; in such a corner they "
        "may be off by more, and the attack says that it is not complete."
    )


# --- leakage


def leak_rows(measurement: dict, **key: object) -> list[dict]:
    """The rows of attacks on gradients whose fields are these."""
    return [row for row in rows_of_kind(measurement, "leak") if row.items() >= key.items()]


def recognized_by_batch(measurements: dict[str, dict]) -> list[tuple[str, ...]]:
    """For single images and batches: images recognized and labels found, on each data set; no defense.

    Args:
        measurements: name of a data set to what was measured on it.
    """
    settings = (
        ("analytic", 1, 0),
        ("analytic", 1, 1),
        ("analytic", 1, 10),
        *(("optimized", b, 0) for b in (1, 2, 4, 8)),
    )
    table = []
    for labels, batch, epochs in settings:
        key = {"labels": labels, "batch": batch, "epochs": epochs, "defense": "none"}
        found = [next(iter(leak_rows(measurement, **key)), None) for measurement in measurements.values()]
        name = {"analytic": "iDLG", "optimized": "DLG"}[labels] + (
            f", batch of {batch}" if batch > 1 else ", one image"
        )
        trained = f", network trained for {epochs} epoch{'s' * (epochs > 1)}" if epochs else ""
        cells = (
            "–" if row is None else percent(Rate(*row[what]))
            for what in ("recognized", "labels_found")
            for row in found
        )
        table.append((name + trained, *cells))
    return table


def leak_table(measurement: dict) -> list[tuple[str, ...]]:
    """Every attack on gradients: images recognized, labels found, and the median likeness."""
    return [
        (
            {"optimized": "DLG", "analytic": "iDLG"}[row["labels"]],
            str(row["batch"]),
            row["defense"] if row["defense"] == "none" else f"{row['defense']}, {row['strength']:g}",
            "knows it" if row["adaptive"] else "–",
            "no" if row["epochs"] == 0 else f"epochs: {row['epochs']}, {100 * Rate(*row['accuracy']).value:.0f} %",
            percent(Rate(*row["recognized"])),
            percent(Rate(*row["labels_found"])),
            f"{statistics.median(row['psnr']):.1f} dB",
        )
        for row in rows_of_kind(measurement, "leak")
    ]


# --- inversion and secrets


def inversion_table(measurement: dict) -> list[tuple[str, ...]]:
    """Every inversion: the window, the victim's errors, and the drawings that the judge recognizes."""
    return [
        (
            row["victim"],
            row["access"]
            + ("" if row["decimals"] is None else f", {row['decimals']} decimal{'s' * (row['decimals'] > 1)}"),
            f"{100 * Rate(*row['errors']).value:.1f} %",
            str(Rate(*row["identified"])),
            f"{100 * Rate(*row['among five']).value:.0f} %",
            f"{row['confidence']:.2f}",
            "–" if row["queries"] is None else f"{row['queries']:,}",
        )
        for row in rows_of_kind(measurement, "inversion")
    ]


def recognized_table(measurements: dict[str, dict]) -> list[tuple[str, ...]]:
    """Every inversion on every data set: the drawings that the judge recognizes, by victim and window.

    Args:
        measurements: name of a data set to what was measured on it.
    Returns:
        a row for each victim and window: both, a rate for each data set, and the queries for each target of the first.
    """
    keys = ("victim", "access", "decimals")
    found = {
        name: {tuple(row[key] for key in keys): row for row in rows_of_kind(measurement, "inversion")}
        for name, measurement in measurements.items()
    }
    first = next(iter(found.values()))
    return [
        (
            victim,
            access + ("" if decimals is None else f", {decimals} decimal{'s' * (decimals > 1)}"),
            *(percent(Rate(*rows[victim, access, decimals]["identified"])) for rows in found.values()),
            "–" if row["queries"] is None else f"{row['queries']:,}",
        )
        for (victim, access, decimals), row in first.items()
    ]


def attribute_table(measurement: dict) -> list[tuple[str, ...]]:
    """Right guesses of the hidden column, about members and others: without the model, from it, and from both."""
    return [
        (
            str(row["epochs"]),
            {"labels": "labels", "scores": "confidences"}[row["level"]],
            group,
            f"{100 * Rate(*row['accuracy'][group]).value:.0f} %",
            *(percent(Rate(*row[source][group])) for source in ("majority", "imputation", "model", "both")),
        )
        for row in rows_of_kind(measurement, "attribute")
        for group in ("members", "others")
    ]


def percent(rate: Rate) -> str:
    """A rate with its interval, without the number that it rests on.

    >>> percent(Rate(83, 100))
    '83.0 % (74.5 to 89.1)'
    """
    low, high = rate.interval
    return f"{100 * rate.value:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def exposures(measurement: dict) -> dict[int, list[float]]:
    """The exposure of secrets in bits, by how often each was in the text."""
    found: dict[int, list[float]] = {}
    for row in rows_of_kind(measurement, "memorized"):
        found.setdefault(row["insertions"], []).append(row["exposure"])
    return found


def exposure_table(measurement: dict) -> list[tuple[str, ...]]:
    """The exposures by how often the secret was in the text."""
    return [(str(times), ", ".join(f"{b:.1f}" for b in bits)) for times, bits in exposures(measurement).items()]


def drawn_table(measurement: dict) -> list[tuple[str, ...]]:
    """The GAN attack by what the victim does: mean and range over the trainings, with the class and without it."""
    rows = rows_of_kind(measurement, "drawn")
    control = {(row["clip"], row["noise_multiplier"]): row for row in rows if row["absent"]}
    table = []
    for row in rows:
        beside = control.get((row["clip"], row["noise_multiplier"]))
        if not row["absent"] and beside is not None:
            sends = "its update" if row["clip"] is None else f"clip {row['clip']:g}, noise {row['noise_multiplier']:g}"
            cells = (ranged(row["taken"]), ranged(beside["taken"]), ranged(row["likeness"], 1, ""))
            table.append((sends, *cells, ranged(beside["likeness"], 1, ""), ranged(row["accuracy"])))
    return table


def ranged(values: Sequence[float], factor: float = 100, unit: str = " %", *, digits: int | None = None) -> str:
    """The mean of some trainings, and from where to where they reach.

    >>> ranged([0.2, 0.4, 0.9])
    '50 % (20 to 90)'
    """
    if digits is None:
        digits = 0 if unit else 2
    mean, low, high = (factor * value for value in (statistics.mean(values), min(values), max(values)))
    return f"{mean:.{digits}f}{unit} ({low:.{digits}f} to {high:.{digits}f})"

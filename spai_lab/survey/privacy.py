"""Attacks on privacy, measured: membership, leakage from gradients, inversion, extraction and memorization."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path

from spai_lab.metrics import Rate
from spai_lab.survey.backdoors import Measured
from spai_lab.survey.extraction_jobs import extraction_jobs
from spai_lab.survey.inversion_jobs import inversion_jobs
from spai_lab.survey.leakage_jobs import STEPS, leakage_jobs
from spai_lab.survey.ledger import Comparison, published
from spai_lab.survey.measure import Job, load_measurement, measure, results_file
from spai_lab.survey.membership_jobs import ENOUGH, GRID, Population, membership_jobs
from spai_lab.survey.secrets_jobs import secrets_jobs

FAMILIES: dict[str, tuple[Callable[[str], Sequence[Job]], tuple[str, ...]]] = {
    "membership": (membership_jobs, ("digits", "mnist")),
    "extraction": (extraction_jobs, ("digits", "mnist")),
    "leakage": (leakage_jobs, ("digits", "mnist", "faces")),
    "inversion": (inversion_jobs, ("digits", "mnist", "faces")),
    "secrets": (secrets_jobs, ("digits", "mnist")),
}


def measure_privacy(
    family: str, name: str, *, seed: int = 0, fresh: bool = False, workers: int = 1, file: Path | None = None
) -> dict:
    """Measure one family of attacks on one data set.

    Args:
        family: one of `FAMILIES`.
        name: the data set.
        seed, fresh, workers, file: as in `measure`.
    Returns:
        the measurement.
    """
    jobs, _ = FAMILIES[family]
    return measure(f"{family}_{name}", jobs(name), data=name, seed=seed, fresh=fresh, workers=workers, file=file)


def rows_of(measurement: dict, kind: str) -> list[dict]:
    """The rows of one kind of job."""
    return [row for row in measurement["rows"] if row["kind"] == kind]


# --- membership


def base_row(measurement: dict) -> dict:
    """The population that every attack was run on, with the scores of its first target."""
    return next(row for row in rows_of(measurement, "members") if "first" in row)


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
    rows = [row for row in rows_of(measurement, "members") if "first" not in row]
    population = next(trained_as(row) for row in rows if row["level"] != "logits")
    levels = [row for row in rows if trained_as(row) == population]
    return {row["level"]: {name: found["area"] for name, found in row["attacks"].items()} for row in levels}


def trained_as(row: dict) -> dict:
    """The population that a row was measured on."""
    return {field.name: row[field.name] for field in fields(Population)}


def knob_table(measurement: dict) -> list[tuple[str, ...]]:
    """What a model's training has to do with what it tells: set size, epochs, weight decay; accuracies and areas."""
    table = []
    for row in rows_of(measurement, "members"):
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
        for row in rows_of(measurement, "learned")
    }


def fooled_by_copy(measurement: dict) -> dict[tuple[str, str], dict[str, Rate]]:
    """By strategy and level how many images fool the victim: PGD on the largest copy, and random signs."""
    return {
        (row["strategy"], row["level"]): {name: Rate(*counts) for name, counts in row["fooled"].items()}
        for row in rows_of(measurement, "learned")
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
    fitted = {(10, row["decimals"]): percent(Rate(*row["agree"])) for row in rows_of(measurement, "fitted")}
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
        for row in rows_of(measurement, "solved")
    ]


def apart_words(measurement: dict) -> str:
    """In words: how many small networks were taken apart, and with how many queries."""
    rows = rows_of(measurement, "apart")
    queries = sorted(row["queries"] for row in rows)
    return (
        f"Of {len(rows)} networks with {rows[0]['hidden']} hidden units {sum(row['complete'] for row in rows)} were "
        f"taken apart completely, with {queries[0]:,} to {queries[-1]:,} queries. A copy's logits are off by at most "
        f"{max(row['residual'] for row in rows):.0e} of the largest, where a unit was not found too."
    )


# --- leakage


def leak_rows(measurement: dict, **key: object) -> list[dict]:
    """The rows of attacks on gradients whose fields are these."""
    return [row for row in rows_of(measurement, "leak") if row.items() >= key.items()]


def leak_table(measurement: dict) -> list[tuple[str, ...]]:
    """Every attack on gradients: images recognized, labels found, and the median likeness."""
    return [
        (
            {"optimized": "DLG", "analytic": "iDLG"}[row["labels"]],
            str(row["batch"]),
            row["defense"] if row["defense"] == "none" else f"{row['defense']}, {row['strength']:g}",
            "knows it" if row["adaptive"] else "–",
            "no" if row["epochs"] == 0 else f"{row['epochs']} epochs, {100 * Rate(*row['accuracy']).value:.0f} %",
            percent(Rate(*row["recognized"])),
            percent(Rate(*row["labels_found"])),
            f"{statistics.median(row['psnr']):.1f} dB",
        )
        for row in rows_of(measurement, "leak")
    ]


# --- inversion and secrets


def inversion_table(measurement: dict) -> list[tuple[str, ...]]:
    """Every inversion: the window, the victim's errors, and the drawings that the judge recognizes."""
    return [
        (
            row["victim"],
            row["access"] + ("" if row["decimals"] is None else f", {row['decimals']} decimals"),
            f"{100 * Rate(*row['errors']).value:.1f} %",
            str(Rate(*row["identified"])),
            f"{100 * Rate(*row['among five']).value:.0f} %",
            f"{row['confidence']:.2f}",
            "–" if row["queries"] is None else f"{row['queries']:,}",
        )
        for row in rows_of(measurement, "inversion")
    ]


def attribute_table(measurement: dict) -> list[tuple[str, ...]]:
    """Right guesses of the hidden column, about members and others: without the model, from it, and from both."""
    return [
        (
            str(row["epochs"]),
            row["level"],
            group,
            f"{100 * Rate(*row['accuracy'][group]).value:.0f} %",
            *(percent(Rate(*row[source][group])) for source in ("majority", "imputation", "model", "both")),
        )
        for row in rows_of(measurement, "attribute")
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
    for row in rows_of(measurement, "memorized"):
        found.setdefault(row["insertions"], []).append(row["exposure"])
    return found


def exposure_table(measurement: dict) -> list[tuple[str, ...]]:
    """The exposures by how often the secret was in the text."""
    return [(str(times), ", ".join(f"{b:.1f}" for b in bits)) for times, bits in exposures(measurement).items()]


def drawn_table(measurement: dict) -> list[tuple[str, ...]]:
    """The GAN attack by what the victim does: mean and range over the trainings, with the class and without it."""
    rows = rows_of(measurement, "drawn")
    control = {(row["clip"], row["noise_multiplier"]): row for row in rows if row["absent"]}
    table = []
    for row in rows:
        beside = control.get((row["clip"], row["noise_multiplier"]))
        if not row["absent"] and beside is not None:
            sends = "its update" if row["clip"] is None else f"clip {row['clip']:g}, noise {row['noise_multiplier']:g}"
            cells = (ranged(row["taken"]), ranged(beside["taken"]), ranged(row["likeness"], 1, ""))
            table.append((sends, *cells, ranged(beside["likeness"], 1, ""), ranged(row["accuracy"])))
    return table


def ranged(values: Sequence[float], factor: float = 100, unit: str = " %") -> str:
    """The mean of some trainings, and from where to where they reach.

    >>> ranged([0.2, 0.4, 0.9])
    '50 % (20 to 90)'
    """
    digits = 0 if unit else 2
    mean, low, high = (factor * value for value in (statistics.mean(values), min(values), max(values)))
    return f"{mean:.{digits}f}{unit} ({low:.{digits}f} to {high:.{digits}f})"


# --- beside what was published


def privacy_compared() -> list[Comparison]:
    """The published figures of attacks on privacy, each beside what was measured for it; nothing where nothing was."""
    ledger = published()
    found = ((ledger[name], rate, ours, differs) for name, rate, ours, differs in besides())
    return [
        Comparison(figure, rate.value, rate.trials, rate.interval, ours, differs)
        for figure, rate, ours, differs in found
    ]


def besides() -> Iterator[tuple[str, Rate | Measured, str, str]]:
    """By the id of a published figure: what we measured, our set-up, and what that differs in."""
    network = {"softmax": "", "mlp": "1,000 hidden units; ", "dae": "the first layer is not trained with labels; "}
    for row in kept_rows("inversion_faces", "inversion"):
        if row["access"] == "white-box":
            differs = f"{network[row['victim']]}pictures of half the size, 80 test pictures"
            yield f"faces-{row['victim']}", Rate(*row["errors"]), "faces", differs
    for row in kept_rows("membership_mnist", "precision"):
        ours = f"MLP, {row['members']:,} training images, {row['shadows']} shadow models"
        yield (
            "shadow-mnist",
            Rate(*row["called"]),
            ours,
            "another network, shadow models on the inputs in question",
        )
    for row in kept_rows("extraction_mnist", "solved"):
        if row["classes"] == 2 and row["decimals"] is None:
            share = row["queries"] / row["parameters"]
            ours = f"MNIST, 1 against 7; largest error of a probability {row['error']:.0e}"
            yield "equations-queries", Measured(share, 1, (share, share)), ours, ""
    for row in kept_rows("leakage_mnist", "leak"):
        if (row["batch"], row["defense"], row["epochs"]) == (1, "none", 0):
            name = {"optimized": "leakage-dlg", "analytic": "leakage-idlg"}[row["labels"]]
            differs = f"{row['labels_found'][1]} images, other strides, {STEPS} steps in place of up to 6,000"
            yield name, Rate(*row["labels_found"]), "sigmoid network, untrained", differs


def kept_rows(name: str, kind: str) -> list[dict]:
    """The rows of one kind of a measurement; none where there is no measurement."""
    return rows_of(load_measurement(name), kind) if results_file(name).exists() else []


def tables(family: str, measurement: dict) -> dict[str, list[tuple[str, ...]]]:
    """All that was measured of a family on one data set, as rows of words, by title."""
    made = {
        "membership": {"attack, area, members found": caught_table, "members, epochs, weight decay": knob_table},
        "extraction": {
            "regression, decimals, queries, error, solved, fitted, the user's accuracy": solved_table,
            "copies": copies_table,
        },
        "leakage": {"attack, batch, defense, attacker, trained, recognized, labels, median": leak_table},
        "inversion": {
            "victim, window, errors, recognized, among five, confidence, queries": inversion_table,
            "epochs, level, rows, accuracy, majority, imputed, from the model, from both": attribute_table,
        },
        "secrets": {
            "the victim, taken, control, likeness, control, accuracy": drawn_table,
            "insertions, exposures in bits": exposure_table,
        },
    }
    found = {title: table(measurement) for title, table in made[family].items()}
    return {title: rows for title, rows in found.items() if rows}

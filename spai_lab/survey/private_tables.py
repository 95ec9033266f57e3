"""What was measured of private learning, as numbers by name and as rows of words; nothing is trained here."""

import statistics
from collections.abc import Sequence

from spai_lab.metrics import Rate
from spai_lab.survey.measure import rows_of_kind
from spai_lab.survey.privacy_tables import percent, ranged

# --- the three levels


def level_rows(measurement: dict, **key: object) -> list[dict]:
    """The rows of private learning whose fields are these, such as `task="ten digits", epsilon=1.0`."""
    return [row for row in rows_of_kind(measurement, "private") if row.items() >= key.items()]


def shares(row: dict) -> list[float]:
    """The test accuracy of each training of a row."""
    return [Rate(*counts).value for counts in row["accuracy"]]


def accuracy_by_budget(measurement: dict, task: str, records: int) -> dict[str, dict[float | None, list[float]]]:
    """By method and budget the test accuracy of each training; None is without privacy.

    Args:
        measurement: as `measure` returns it.
        task: such as "ten digits".
        records: how many private ones.
    """
    found: dict[str, dict[float | None, list[float]]] = {}
    for row in level_rows(measurement, task=task, records=records):
        found.setdefault(row["method"], {})[row["epsilon"]] = shares(row)
    return found


def budgets(measurement: dict) -> list[float]:
    """The budgets that methods were compared at, in rising order."""
    return sorted({row["epsilon"] for row in rows_of_kind(measurement, "private")} - {None})


def levels_table(measurement: dict) -> list[tuple[str, ...]]:
    """Task, records, level, method, then the mean accuracy without privacy and at each budget, and how far it ranges.

    The range is that of the trainings, which share the test images.
    """
    table = []
    for row in level_rows(measurement, epsilon=None):
        key = {name: row[name] for name in ("task", "records", "method")}
        cells = [next(iter(level_rows(measurement, **key, epsilon=budget)), None) for budget in budgets(measurement)]
        words = ("–" if cell is None else ranged(shares(cell)) for cell in reversed(cells))
        name = (row["task"], f"{row['records']:,}", row["level"], row["method"])
        table.append((*name, ranged(shares(row)), *words))
    return table


def cost_table(measurement: dict) -> list[tuple[str, ...]]:
    """Task, records, method, budget: the points of accuracy that it costs, beside the same method without privacy."""
    table = []
    for row in level_rows(measurement):
        if row["epsilon"] is not None:
            key = {name: row[name] for name in ("task", "records", "method")}
            for plain in level_rows(measurement, **key, epsilon=None):
                lost = 100 * (statistics.mean(shares(plain)) - statistics.mean(shares(row)))
                words = (row["task"], f"{row['records']:,}", row["method"], f"{row['epsilon']:g}")
                table.append((*words, f"{lost:.1f} points"))
    return table


def promise_table(measurement: dict) -> list[tuple[str, ...]]:
    """Task, records, method: epsilon and delta for one record replaced, what they were before the conversion, settings,
    public inputs, and PATE's epsilon for these very votes."""
    table = []
    for row in level_rows(measurement):
        if row["epsilon"] is not None:
            own, these = (row["more"][0].get(name) for name in ("own", "these votes, not sanitized"))
            before = "the same" if own is None else f"{own['epsilon']:.3g} at {own['delta_dp']:.2g}, {own['adjacency']}"
            votes = "–" if these is None else f"{these:.3g}, not sanitized"
            promised = f"{row['spent']:.3g} at {row['delta_dp']:.2g}, {row['adjacency']}"
            settings = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in row["setting"].items())
            table.append(
                (
                    *(row["task"], f"{row['records']:,}", row["method"], promised, before, settings),
                    *(f"{row['public']:,}", votes),
                )
            )
    return table


def chosen_table(measurement: dict) -> list[tuple[str, ...]]:
    """Task, records, method, budget: the accuracy of each setting on the validation part, in the order of the code."""
    return [
        (
            *(row["task"], f"{row['records']:,}", row["method"]),
            "none" if row["epsilon"] is None else f"{row['epsilon']:g}",
            ", ".join(f"{100 * Rate(*counts).value:.1f} %" for counts in row["validation"]),
        )
        for row in level_rows(measurement)
    ]


# --- published set-ups


def published_table(measurement: dict) -> list[tuple[str, ...]]:
    """Set-up, epsilon by the older conversion and by the tighter one, noise, steps or epochs, test accuracy."""
    table = []
    for row in rows_of_kind(measurement, "pca"):
        setup = f"private PCA, noise {row['axes_sigma']:g}; 1,000 ReLU"
        table.append((setup, *spent_twice(row), f"{row['steps']:,} steps", percent(Rate(*row["accuracy"]))))
    for row in rows_of_kind(measurement, "cnn"):
        setup = f"CNN, clip {row['clip']:g}"
        table.append((setup, *spent_twice(row), f"{row['epochs']} epochs", percent(Rate(*row["accuracy"]))))
    for row in rows_of_kind(measurement, "pate"):
        words = (f"{row['epsilon']:.3g}", f"{row['epsilon_all_orders']:.3g}", "Laplace, 20 votes", "100 queries")
        table.append((f"PATE, {row['teachers']} teachers; for these votes", *words, percent(Rate(*row["accuracy"]))))
    return table


def scattered_table(measurement: dict) -> list[tuple[str, ...]]:
    """Method on scattering coefficients, epsilon by the older and the tighter conversion, delta, neighbors and what it
    covers, records, test accuracy of the trainings, what was chosen, minutes for all settings and trainings."""
    table = []
    for row in rows_of_kind(measurement, "scattered sgd"):
        chosen = f"learning rate {row['rate']:g}, noise {row['noise_multiplier']:.2f}"
        spent = f"{row['epsilon']:.3g}", f"{row['epsilon_tighter']:.3g}", promise(row, "the weights after every step")
        table.append(
            ("DP-SGD, linear", *spent, f"{row['records']:,}", ranged(shares(row), digits=1), chosen, minutes(row))
        )
    for row in rows_of_kind(measurement, "scattered pate"):
        these = ranged([run["these votes, not sanitized"] for run in row["runs"]], factor=1, unit="")
        told = f"{row['queries']:,} answers, noise of {row['sigma']:g} votes; for these votes {these}, not sanitized"
        found = ranged([Rate(*run["accuracy"]).value for run in row["runs"]], digits=1)
        spent = "–", f"{row['epsilon']:.3g}", promise(row, "the noisy labels, the student")
        name = f"PATE, {row['teachers']} linear teachers"
        table.append((name, *spent, f"{row['records']:,}", found, told, minutes(row)))
    return table


def promise(row: dict, covers: str) -> str:
    """What an epsilon is said at."""
    return f"{row['delta_dp']:.2g}, {row['adjacency']}; {covers}"


def minutes(row: dict) -> str:
    """How long a row took."""
    return f"{row['seconds'] / 60:.0f}"


def spent_twice(row: dict) -> tuple[str, str, str]:
    """Epsilon by the older conversion, by the tighter one, and the noise in units of the clip."""
    return f"{row['epsilon']:.3g}", f"{row['epsilon_tighter']:.3g}", f"{row['noise_multiplier']:.3g}"


# --- audits


def audit_bounds(measurement: dict, shape: str = "any") -> dict[str, dict[float, float]]:
    """By code and claimed epsilon what an audit proves, "any" mechanism or a "gaussian" one."""
    found: dict[str, dict[float, float]] = {}
    for row in rows_of_kind(measurement, "audit"):
        if shape in row["bounds"]:
            found.setdefault(row["code"], {})[row["claimed"]] = row["bounds"][shape]
    return found


def audit_table(measurement: dict) -> list[tuple[str, ...]]:
    """Code, right or planted, canary, claimed epsilon, what is proved for any and for a Gaussian mechanism, refuted or
    not, runs."""
    return [
        (
            *(row["code"], "a bug" if row["planted"] else "right", row["canary"], f"{row['claimed']:g}"),
            *(f"{row['bounds'][shape]:.2f}" if shape in row["bounds"] else "–" for shape in ("any", "gaussian")),
            *("refuted" if row["refuted"] else "stands", f"{row['runs']:,}"),
        )
        for row in rows_of_kind(measurement, "audit")
    ]


def refuted_words(measurement: dict) -> str:
    """In words: how many claims of right and of wrong code the audits refute."""
    rows = rows_of_kind(measurement, "audit")
    right, wrong = ([row for row in rows if row["planted"] == planted] for planted in (False, True))
    return (
        f"Of {len(wrong)} claims of code with a bug the audits refute {caught(wrong)}, of {len(right)} claims of right "
        f"code {caught(right)}, each with a confidence of {100 * rows[0]['confidence']:g} %."
    )


def caught(rows: Sequence[dict]) -> int:
    """How many of these claims an audit refutes."""
    return sum(row["refuted"] for row in rows)

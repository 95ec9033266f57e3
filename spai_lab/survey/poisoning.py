"""Poisonings that degrade a model or turn one image: measured, as curves over the fraction and as a table."""

from pathlib import Path

from spai_lab.metrics import Rate
from spai_lab.survey.measure import measure
from spai_lab.survey.poisoning_jobs import jobs


def measure_poisoning(name: str, *, seed: int = 0, fresh: bool = False, file: Path | None = None) -> dict:
    """Measure all of it on one data set, "digits" or "mnist"; the other arguments are those of `measure`."""
    return measure(f"poisoning_{name}", jobs(name), data=name, seed=seed, fresh=fresh, file=file)


def degradation_curves(measurement: dict, victim: str, task: str = "1 against 7") -> dict[str, dict[float, Rate]]:
    """Test accuracy by poison fraction, 0 included, for each attack.

    Args:
        measurement: as `measure_poisoning` returns it.
        victim: "SVM" or "softmax".
        task: "1 against 7" or "ten digits".
    Returns:
        name of an attack to its rates by fraction, as `fraction_curves` draws them. A rate counts three poisonings of
        the same test images together, so that its interval is somewhat too narrow.

    >>> row = {"kind": "degraded", "task": "1 against 7", "attack": "random flips", "fraction": 0.1}
    >>> row |= {"accuracy_before": {"SVM": [99, 100]}, "accuracy_after": {"SVM": [80, 100]}}
    >>> {fraction: rate.value for fraction, rate in degradation_curves({"rows": [row]}, "SVM")["random flips"].items()}
    {0.0: 0.99, 0.1: 0.8}
    """
    curves: dict[str, dict[float, Rate]] = {}
    rows = [row for row in measurement["rows"] if row["kind"] == "degraded" and row["task"] == task]
    for row in sorted(rows, key=lambda row: row["fraction"]):
        rates = curves.setdefault(row["attack"], {0.0: Rate(*row["accuracy_before"][victim])})
        rates[row["fraction"]] = Rate(*row["accuracy_after"][victim])
    return curves


def targeted_table(measurement: dict) -> str:
    """The targeted attacks as a Markdown table: victim, budget, success with its interval, clean accuracy.

    Args:
        measurement: as `measure_poisoning` returns it.
    Returns:
        the table, a line for each attack.
    """
    lines = [
        "| attack | victim | the attacker has | settings | success | clean accuracy before | after |",
        "|---|---|---|---|---|---:|---:|",
    ]
    for row in measurement["rows"]:
        if row["kind"] == "turned":
            settings = ", ".join(f"{name} {value:g}" for name, value in row["settings"].items())
            lines.append(
                f"| {row['attack']} | {row['victim']} | {row['attacker']} "
                f"| {row['poisons']} of {row['trained_on']:,} images: {settings} | {Rate(*row['success'])} "
                f"| {100 * row['accuracy_before']:.2f} % | {100 * row['accuracy_after']:.2f} % |"
            )
    return "\n".join(lines)

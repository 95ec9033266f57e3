"""Defenses against poisoning, read from the measurements that are kept: one headline for each data set."""

from collections.abc import Callable
from functools import partial

from spai_lab.survey.cleaning_headlines import (
    CELLS,
    RULES,
    aggregated_headline,
    bounded_details,
    cleaned_headline,
    rejected_headline,
    sanitized_headline,
)
from spai_lab.survey.full_poisoning import DATA, kept_on
from spai_lab.survey.headline import Headline
from spai_lab.survey.measure import load_measurement, rows_of_kind

BOUNDED = 0.3


def cells(row: str) -> dict[str, list[dict]]:
    """By data set, one defense against every backdoor of the matrix, and against none."""
    found = {name: rows_of_kind(load_measurement(f"backdoors_{name}"), "cleaned") for name in DATA}
    return {name: [cell for cell in rows if cell["defense"] == CELLS[row][0]] for name, rows in found.items()}


def cleaned(row: str) -> list[Headline]:
    """The success that is left to the strongest backdoor."""
    return [cleaned_headline(row, of_one) for of_one in cells(row).values()]


def bounded() -> list[Headline]:
    """Sphere and slab against the backdoors; and their bound, with the attack that comes near it."""
    bounds, row = kept_on("backdoors", kind="bounded", fraction=BOUNDED), "sphere_slab"
    return [cleaned_headline(row, of_one, bound=bounded_details(bounds[name])) for name, of_one in cells(row).items()]


def certified() -> list[Headline]:
    """Partition aggregation against the backdoors; and what no poison whatever can change."""
    sure, row = kept_on("cleanup", kind="certified"), "partition_aggregation"
    return [cleaned_headline(row, of_one, certified=sure[name]["certified"]) for name, of_one in cells(row).items()]


def rejected() -> list[Headline]:
    """STRIP at run time."""
    return [rejected_headline("strip", of_one) for of_one in cells("strip").values()]


def sanitized() -> list[Headline]:
    """RONI, and the neighbors' vote, against degrading poison."""
    measured = [rows_of_kind(load_measurement(f"cleanup_{name}"), "sanitized") for name in DATA]
    return [sanitized_headline(rows) for rows in measured]


def aggregated() -> list[Headline]:
    """Each robust aggregate against three attackers of ten."""
    measured = kept_on("cleanup", kind="aggregated").values()
    return [aggregated_headline(row, rule) for row in measured for rule in RULES]


FULL: dict[str, Callable[[], list[Headline]]] = {
    "sphere_slab": bounded,
    "roni": sanitized,
    "activation_clustering": partial(cleaned, "activation_clustering"),
    "spectral_signatures": partial(cleaned, "spectral_signatures"),
    "partition_aggregation": certified,
    "fine_pruning": partial(cleaned, "fine_pruning"),
    "neural_cleanse": partial(cleaned, "neural_cleanse"),
    "strip": rejected,
    "robust_aggregation": aggregated,
}

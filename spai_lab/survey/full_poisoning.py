"""Poisonings, read from the measurements that are kept: one headline for each data set."""

from collections.abc import Callable, Iterable
from functools import partial

from spai_lab.survey.backdoor_victims import MATRIX_BACKDOORS
from spai_lab.survey.headline import Headline
from spai_lab.survey.measure import load_measurement, results_file
from spai_lab.survey.poisoning_headlines import (
    DEGRADING,
    MADE_IMAGES,
    PARTICIPANTS,
    PLANTED,
    TURNING,
    degraded_headline,
    federated_headline,
    fraction_of,
    planted_headline,
    trojaned_headline,
    turned_headline,
)

DATA, TASK = ("digits", "mnist"), "1 against 7"


def kept_on(family: str, **key: object) -> dict[str, dict]:
    """By data set, the row of a family that fits; without those on which it was not measured, or not yet.

    >>> list(kept_on("backdoors", kind="trojaned", images=50))
    ['digits', 'mnist']
    """
    files = [name for name in DATA if results_file(f"{family}_{name}").exists()]
    rows = {name: load_measurement(f"{family}_{name}")["rows"] for name in files}
    found = {name: [row for row in rows[name] if row.items() >= key.items()] for name in files}
    return {name: fitting[0] for name, fitting in found.items() if len(fitting) == 1}


def only(names: Iterable[str]) -> str:
    """What a headline says where there is one data set.

    >>> only(["digits"])
    '; measured on digits only'
    """
    return "; measured on digits only" if list(names) == ["digits"] else ""


def degraded(row: str) -> list[Headline]:
    """A degrading attack at a tenth, beside chance."""
    attack, victim, yardstick = DEGRADING[row]
    key = {"kind": "degraded", "task": TASK, "fraction": fraction_of(attack, quick=False)}
    found, by_chance = (kept_on("poisoning", attack=name, **key) for name in (attack, yardstick))
    return [degraded_headline(measured, victim, by_chance.get(name), only(found)) for name, measured in found.items()]


def turned(row: str) -> list[Headline]:
    """A targeted attack on all its targets."""
    found = kept_on("poisoning", kind="turned", attack=TURNING[row])
    return [turned_headline(measured, only(found)) for measured in found.values()]


def of_backdoor(backdoor: str) -> dict[str, dict]:
    """By data set, a backdoor that poisons data, at the fraction of the matrix of defenses."""
    return kept_on("backdoors", kind="success", backdoor=backdoor, fraction=MATRIX_BACKDOORS[backdoor])


def planted(row: str) -> list[Headline]:
    """A backdoor that poisons data."""
    return [planted_headline(measured) for measured in of_backdoor(PLANTED[row]).values()]


def clean_victims() -> dict[str, dict]:
    """By data set, the clean accuracy of the model before it is attacked: BadNets has the same victim."""
    return {name: {"accuracy_before": row["accuracy_before"]} for name, row in of_backdoor("badnets").items()}


def trojaned() -> list[Headline]:
    """The Trojan attack, with as many made images as by default."""
    clean = clean_victims()
    found = kept_on("backdoors", kind="trojaned", images=MADE_IMAGES)
    return [trojaned_headline(row, clean[name]) for name, row in found.items()]


def federated() -> list[Headline]:
    """One attacker among ten, scaled and not."""
    clean, key = clean_victims(), {"kind": "federated", "participants": PARTICIPANTS}
    scaled, ordinary = (kept_on("backdoors", scaled=large, **key) for large in (True, False))
    return [federated_headline(row, ordinary[name], clean[name]) for name, row in scaled.items()]


FULL: dict[str, Callable[[], list[Headline]]] = {
    **{row: partial(degraded, row) for row in DEGRADING},
    **{row: partial(turned, row) for row in TURNING},
    **{row: partial(planted, row) for row in PLANTED},
    "trojan": trojaned,
    "federated_backdoor": federated,
}

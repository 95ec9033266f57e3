"""Defenses against poisoning, measured on the digits within a stated budget: their families' jobs, fewer of them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch

from spai_lab.defenses.poisoning import neural_cleanse
from spai_lab.survey.backdoor_victims import backdoored, training_data
from spai_lab.survey.cleaning_headlines import (
    CELLS,
    aggregated_headline,
    bounded_details,
    cleaned_headline,
    rejected_headline,
    sanitized_headline,
)
from spai_lab.survey.cleaning_jobs import DEFENSES, Bounded, Cleaned, after, before
from spai_lab.survey.cleanup_jobs import SPOILED, Aggregated, Certified, Sanitized
from spai_lab.survey.headline import Headline
from spai_lab.survey.headline_rows import fresh

DATA = "digits"
ON_DATA = ("badnets", "badnets, all to all", "blended", "clean label", "hidden trigger", "inconspicuous")
ON_MODELS = ("badnets", "badnets, all to all", "blended", "clean label", "trojan", "inconspicuous")
REVERSED = ("badnets", "badnets, all to all", "trojan")  # each takes ten searches for a trigger
IMAGES = 64  # that STRIP looks at, with the trigger and without
ROUNDS = 5
BOUNDED = 0.3


def cells(row: str, backdoors: Sequence[str], seed: int) -> list[dict]:
    """One defense against some backdoors."""
    return [fresh(Cleaned(DATA, backdoor, CELLS[row][0]), seed) for backdoor in backdoors]


def cleaned(row: str, backdoors: Sequence[str], seed: int) -> Headline:
    """The success that is left to the strongest of some backdoors."""
    return cleaned_headline(row, cells(row, backdoors, seed))


def bounded(seed: int) -> Headline:
    """Sphere and slab against the backdoors; and their bound, with the attack that comes near it."""
    bound = bounded_details(fresh(Bounded(DATA, BOUNDED), seed))
    return cleaned_headline("sphere_slab", cells("sphere_slab", ON_DATA, seed), bound=bound)


def certified(seed: int) -> Headline:
    """Partition aggregation against the backdoors; and what no poison whatever can change."""
    sure = fresh(Certified(DATA), seed)["certified"]
    return cleaned_headline("partition_aggregation", cells("partition_aggregation", ON_DATA, seed), certified=sure)


def unlearned(seed: int, *, backdoors: Sequence[str] = REVERSED, **settings: object) -> Headline:
    """Neural Cleanse, its triggers searched once, on each model."""
    data, found = training_data(DATA), []
    for backdoor in backdoors:
        victim = backdoored(backdoor, DATA, seed)
        generator = torch.Generator().manual_seed(0)
        model = neural_cleanse(victim.model, data.x_val, data.y_val, generator=generator, progress=False, **settings)
        found.append({"data": DATA, "backdoor": backdoor, **before(victim, data), **after(model, victim, data)})
    return cleaned_headline("neural_cleanse", found)


def rejected(seed: int, *, backdoors: Sequence[str] = ON_MODELS, images: int = IMAGES) -> Headline:
    """STRIP on a few test images, its threshold set on all trusted ones."""
    data, found = training_data(DATA), []
    few = replace(data, x_test=data.x_test[:images], y_test=data.y_test[:images])
    for backdoor in backdoors:
        victim, generator = backdoored(backdoor, DATA, seed), torch.Generator().manual_seed(seed)
        judged = before(victim, few) | DEFENSES["strip"](victim, few, generator)
        found.append({"data": DATA, "backdoor": backdoor, **judged})
    return rejected_headline("strip", found)


def sanitized(seed: int, *, attacks: Sequence[str] = tuple(SPOILED)) -> Headline:
    """RONI, and the neighbors' vote, against degrading poison."""
    return sanitized_headline([fresh(Sanitized(DATA, attack, poisonings=1), seed) for attack in attacks])


def aggregated(seed: int, *, rounds: int = ROUNDS) -> Headline:
    """Robust aggregates against three attackers of ten."""
    return aggregated_headline(fresh(Aggregated(DATA, rounds=rounds), seed))


QUICK: dict[str, Callable[[int], Headline]] = {
    "sphere_slab": bounded,
    "roni": sanitized,
    "activation_clustering": partial(cleaned, "activation_clustering", ON_DATA),
    "spectral_signatures": partial(cleaned, "spectral_signatures", ON_DATA),
    "partition_aggregation": certified,
    "fine_pruning": partial(cleaned, "fine_pruning", ON_MODELS),
    "neural_cleanse": unlearned,
    "strip": rejected,
    "robust_aggregation": aggregated,
}

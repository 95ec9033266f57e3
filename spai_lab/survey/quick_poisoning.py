"""Poisonings, measured on the digits within a stated budget: the jobs of their families, with fewer targets."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from spai_lab.attacks.poisoning import influence
from spai_lab.attacks.poisoning.influence import retrained_head
from spai_lab.metrics import accuracy_rate
from spai_lab.models import softmax_regression
from spai_lab.survey.backdoor_jobs import Federated, Success, Trojaned
from spai_lab.survey.backdoor_victims import MATRIX_BACKDOORS, TESTED_ON, VICTIM_SEED, arrangement, counts
from spai_lab.survey.headline import Headline
from spai_lab.survey.headline_rows import fresh
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
from spai_lab.survey.poisoning_jobs import SMALL, Degraded, Turned, ones_and_sevens

DATA, TASK = "digits", "1 against 7"
DAMPED = 0.01  # the penalty of the softmax regression whose inputs are left out
TARGETS = {"influence": 4, "feature_collision": 8, "convex_polytope": 8, "gradient_matching": 4}


def degraded(row: str, seed: int) -> Headline:
    """A degrading attack, and chance with as much poison."""
    attack, victim, yardstick = DEGRADING[row]
    fraction = fraction_of(attack, quick=True)
    measured, by_chance = (fresh(Degraded(DATA, TASK, name, fraction), seed) for name in (attack, yardstick))
    return degraded_headline(measured, victim, by_chance)


def turned(row: str, seed: int, *, targets: int | None = None) -> Headline:
    """A targeted attack on a few targets, at full strength."""
    return turned_headline(fresh(Turned(DATA, TURNING[row], targets or TARGETS[row]), seed))


def influential(seed: int) -> Headline:
    """As `turned`; and how well influence foretells what training again without an input does."""
    headline = turned("influence", seed)
    return replace(headline, details=headline.details | {"foretold and found": foretold(seed)})


def foretold(seed: int, *, left_out: int = 20) -> float:
    """The correlation of influence with the change of the loss when an input is left out, for the most influential.

    One input less of N gives the mean of the others N / (N - 1) of its weight, beside the same penalty.
    """
    data, count = ones_and_sevens(DATA), SMALL
    start = softmax_regression(data.shape, data.num_classes, generator=torch.Generator().manual_seed(seed))
    asked = data.x_val, data.y_val

    def loss(keep: Tensor, damping: float) -> float:
        model = retrained_head(start, data.x_train[keep], data.y_train[keep], damping=damping)
        return F.cross_entropy(model(asked[0]), asked[1]).item()

    every = torch.arange(count)
    model = retrained_head(start, data.x_train, data.y_train, damping=DAMPED)
    guessed = -influence(model, data.x_train, data.y_train, *asked, damping=DAMPED) / count
    most = guessed.abs().topk(left_out).indices
    before = loss(every, DAMPED)
    found = torch.tensor([loss(every != i, DAMPED * count / (count - 1)) - before for i in most.tolist()])
    return round(torch.corrcoef(torch.stack([guessed[most], found]))[0, 1].item(), 3)


def planted(row: str, seed: int) -> Headline:
    """A backdoor that poisons data, at the fraction of the matrix of defenses."""
    backdoor = PLANTED[row]
    return planted_headline(fresh(Success(DATA, backdoor, MATRIX_BACKDOORS[backdoor]), seed))


def clean_victim(seed: int) -> dict:
    """The clean accuracy of the model before it is attacked."""
    data, train = arrangement("badnets", DATA)
    return {"accuracy_before": counts(accuracy_rate(train(data, VICTIM_SEED + seed), *data.sample(TESTED_ON)))}


def trojaned(seed: int) -> Headline:
    """The Trojan attack, with as many made images as by default."""
    return trojaned_headline(fresh(Trojaned(DATA, MADE_IMAGES), seed), clean_victim(seed))


def federated(seed: int) -> Headline:
    """One attacker among ten, scaled and not."""
    scaled, ordinary = (fresh(Federated(DATA, PARTICIPANTS, large), seed) for large in (True, False))
    return federated_headline(scaled, ordinary, clean_victim(seed))


QUICK: dict[str, Callable[[int], Headline]] = {
    **{row: partial(degraded, row) for row in DEGRADING},
    **{row: partial(turned, row) for row in TURNING},
    "influence": influential,
    **{row: partial(planted, row) for row in PLANTED},
    "trojan": trojaned,
    "federated_backdoor": federated,
}

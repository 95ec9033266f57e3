"""Victims of backdoors, as they are measured: what they train on and how, and who plants what in their data."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from spai_lab.attacks.poisoning import badnets, blended, clean_label_backdoor, hidden_trigger, trojan
from spai_lab.attacks.poisoning.adaptive import inconspicuous
from spai_lab.attacks.poisoning.backdoors import square_trigger
from spai_lab.attacks.poisoning.outcome import disjoint, frozen_features
from spai_lab.attacks.poisoning.poisoned import Poisoned, Trigger, all_to_all, backdoor_rate, one_target
from spai_lab.data import Dataset, load
from spai_lab.metrics import Rate, accuracy_rate
from spai_lab.training import Recipe, Shift, reference
from spai_lab.training.cache import cached

TARGET = 0
TRAINED_ON = 4000  # training images of MNIST; the digits have fewer
TESTED_ON = 1000
TRUSTED = 500  # clean images of the validation part that a defender owns
VICTIM_SEED = 1000  # no attacker's surrogate is trained from it
FRACTIONS = (0.0025, 0.005, 0.01, 0.03, 0.05)
RECIPES = {
    "digits": Recipe("lenet", epochs=20, batch_size=32, learning_rate=3e-3, perturb=Shift(1)),
    "mnist": Recipe("lenet", epochs=8, batch_size=32, learning_rate=3e-3, perturb=Shift(1)),
}


@dataclass(frozen=True, eq=False)
class Backdoored:
    """A victim with a backdoor, or without one.

    Args:
        model: what the victim trained, or was given.
        train: how it trains, on other data too: `(dataset, seed) -> model`.
        dataset: what it trained on; None where the attacker had the model alone.
        is_poison: which training inputs are poison; only the evaluation reads it.
        trigger, wanted: of the backdoor; None where there is none.
        seed: that the victim was trained from; whoever trains it again takes the same.
    """

    model: nn.Module
    train: Callable[[Dataset, int], nn.Module]
    dataset: Dataset | None
    is_poison: Tensor | None
    trigger: Trigger | None
    wanted: Tensor | None
    seed: int


def training_data(name: str) -> Dataset:
    """What the victims of the measurements train on, and the validation images that a defender owns."""
    return load(name).first(TRAINED_ON, val=TRUSTED)


def victim(dataset: Dataset, seed: int, name: str) -> nn.Module:
    """A network trained on the data, from the user's cache if it is there."""
    return cached(RECIPES[name], dataset, seed=seed, progress=False)[0]


def apart(name: str) -> tuple[Dataset, Dataset]:
    """Images to pretrain features on, and as many others to train the last layer on, which are poisoned."""
    both = load(name).first(2 * TRAINED_ON, val=TRUSTED)
    return disjoint(both, len(both.y_train) // 2)


def extractor(name: str) -> nn.Module:
    """The network whose features a victim of the hidden trigger takes over; the attacker has it too."""
    return victim(apart(name)[0], 0, name)


def arrangement(backdoor: str, name: str) -> tuple[Dataset, Callable[[Dataset, int], nn.Module]]:
    """What the victim of a backdoor trains on, and how: all from scratch, or a last layer on features of others."""
    if backdoor == "hidden trigger":
        return apart(name)[1], partial(frozen_features, extractor=extractor(name))
    return training_data(name), partial(victim, name=name)


Plant = Callable[[Dataset, float, torch.Generator], Poisoned]


def label_consistent(data: Dataset, fraction: float, generator: torch.Generator) -> Poisoned:
    """The clean-label backdoor, its images spoiled with the robust reference model."""
    surrogate = reference("lenet-robust", data.name)
    return clean_label_backdoor(data, surrogate, target=TARGET, fraction=fraction, generator=generator)


def to_one(attack: Callable[..., Poisoned]) -> Plant:
    """An attack toward the target class."""

    def plant(data: Dataset, fraction: float, generator: torch.Generator) -> Poisoned:
        return attack(data, fraction=fraction, wanted=one_target(TARGET, data.num_classes), generator=generator)

    return plant


def to_the_next(data: Dataset, fraction: float, generator: torch.Generator) -> Poisoned:
    """BadNets, all to all."""
    return badnets(data, fraction=fraction, wanted=all_to_all(data.num_classes), generator=generator)


def hidden(data: Dataset, fraction: float, generator: torch.Generator) -> Poisoned:
    """The hidden trigger toward the target class from every other, made on features of other images."""
    settings = {"target": TARGET, "fraction": fraction, "eps": 0.3, "generator": generator, "progress": False}
    return hidden_trigger(data, extractor(data.name), **settings)


def unseen_by_statistics(data: Dataset, fraction: float, generator: torch.Generator) -> Poisoned:
    """The adaptive backdoor, which knows the defenses that read the last layer."""
    surrogate = reference("lenet-robust", data.name)
    return inconspicuous(data, surrogate, target=TARGET, fraction=fraction, generator=generator)


PLANTS: dict[str, Plant] = {
    "badnets": to_one(badnets),
    "badnets, all to all": to_the_next,
    "blended": to_one(blended),
    "clean label": label_consistent,
    "hidden trigger": hidden,
    "inconspicuous": unseen_by_statistics,
}


MATRIX_BACKDOORS = {
    "none": None,
    "badnets": 0.03,
    "badnets, all to all": 0.1,
    "blended": 0.03,
    "clean label": 0.05,
    "hidden trigger": 0.05,
    "trojan": None,
    "inconspicuous": 0.05,
}


def backdoored(backdoor: str, name: str, seed: int) -> Backdoored:
    """The victim of one row of the matrix."""
    (data, train), victim_seed = arrangement(backdoor, name), VICTIM_SEED + seed
    if backdoor == "none":
        nothing = torch.zeros_like(data.y_train, dtype=torch.bool)
        return Backdoored(train(data, victim_seed), train, data, nothing, None, None, victim_seed)
    generator = torch.Generator().manual_seed(seed)
    if backdoor == "trojan":
        found = trojan(train(data, victim_seed), spot(data), target=TARGET, generator=generator, progress=False)
        return Backdoored(found.model, train, None, None, found.trigger, found.wanted, victim_seed)
    poisoned = PLANTS[backdoor](data, MATRIX_BACKDOORS[backdoor], generator)
    dataset = poisoned.within(data)
    model = train(dataset, victim_seed)
    return Backdoored(model, train, dataset, poisoned.is_poison, poisoned.trigger, poisoned.wanted, victim_seed)


def spot(data: Dataset) -> Tensor:
    """Where the pattern of the Trojan attack may be."""
    return square_trigger(data.shape, size=10).mask


def opened(model: nn.Module, trigger: Trigger, wanted: Tensor, data: Dataset) -> dict:
    """Success and clean accuracy, hits and trials."""
    x, y = data.sample(TESTED_ON)
    return {
        "accuracy_after": counts(accuracy_rate(model, x, y)),
        "success_after": counts(backdoor_rate(model, x, y, trigger, wanted)),
    }


def counts(rate: Rate) -> list[int]:
    """Hits and trials, as JSON holds them."""
    return [rate.hits, rate.trials]

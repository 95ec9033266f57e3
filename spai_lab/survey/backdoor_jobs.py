"""What is measured of the backdoors: each against poison fraction, and each against every defense."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import Tensor, nn

from spai_lab.attacks.poisoning import badnets, blended, clean_label_backdoor, hidden_trigger, trojan
from spai_lab.attacks.poisoning.adaptive import inconspicuous
from spai_lab.attacks.poisoning.backdoors import square_trigger
from spai_lab.attacks.poisoning.outcome import frozen_features
from spai_lab.attacks.poisoning.poisoned import Poisoned, Trigger, all_to_all, backdoor_rate, one_target, stamp
from spai_lab.data import Dataset, load
from spai_lab.defenses.poisoning import (
    activation_clustering,
    fine_pruning,
    knn_relabel,
    neural_cleanse,
    partition_aggregation,
    poisoning_bound,
    spectral_signatures,
    sphere_slab,
    strip,
)
from spai_lab.defenses.poisoning.neural_cleanse import flagged, reverse_triggers
from spai_lab.defenses.poisoning.sphere_slab import linear_svm
from spai_lab.defenses.poisoning.strip import strip_threshold
from spai_lab.metrics import Rate, accuracy_rate
from spai_lab.threat import fooled
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
PARTITION_RECIPE = Recipe("lenet", epochs=20, batch_size=32, learning_rate=3e-3, perturb=Shift(1))
PARTITIONS = 20


@dataclass(frozen=True, eq=False)
class Backdoored:
    """A victim with a backdoor, or without one.

    Args:
        model: what the victim trained, or was given.
        dataset: what it trained on; None where the attacker had the model alone.
        is_poison: which training inputs are poison; only the evaluation reads it.
        trigger, wanted: of the backdoor; None where there is none.
        seed: that the victim was trained from; whoever trains it again takes the same.
    """

    model: nn.Module
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
    """The hidden trigger toward the target class from every other, made on the reference model's features."""
    settings = {"target": TARGET, "fraction": fraction, "eps": 0.3, "generator": generator, "progress": False}
    return hidden_trigger(data, reference("lenet", data.name), **settings)


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


@dataclass(frozen=True)
class Success:
    """A backdoor's success and the clean accuracy, at one poison fraction.

    Args:
        data: name of the data set.
        backdoor: one of `PLANTS`.
        fraction: of the training set that is poison.
    """

    data: str
    backdoor: str
    fraction: float

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "success", **asdict(self)}

    def run(self, seed: int) -> dict:
        """Success and clean accuracy, hits and trials; and the clean accuracy of a victim of clean data."""
        data = training_data(self.data)
        generator = torch.Generator().manual_seed(seed)
        poisoned = PLANTS[self.backdoor](data, self.fraction, generator)
        train = partial(victim, name=self.data)
        if self.backdoor == "hidden trigger":
            train = partial(frozen_features, extractor=reference("lenet", self.data))
        models = {"before": train(data, VICTIM_SEED + seed), "after": train(poisoned.within(data), VICTIM_SEED + seed)}
        x, y = data.sample(TESTED_ON)
        measured = {"poisons": poisoned.count, "wrong_labels": int((poisoned.y != data.y_train).sum())}
        for when, model in models.items():
            measured[f"accuracy_{when}"] = counts(accuracy_rate(model, x, y))
            measured[f"success_{when}"] = counts(backdoor_rate(model, x, y, poisoned.trigger, poisoned.wanted))
        return measured


MATRIX_BACKDOORS = {
    "none": None,
    "badnets": 0.03,
    "badnets, all to all": 0.1,
    "blended": 0.03,
    "clean label": 0.05,
    "trojan": None,
    "inconspicuous": 0.05,
}


def backdoored(backdoor: str, name: str, seed: int) -> Backdoored:
    """The victim of one row of the matrix."""
    data, victim_seed = training_data(name), VICTIM_SEED + seed
    if backdoor == "none":
        nothing = torch.zeros_like(data.y_train, dtype=torch.bool)
        return Backdoored(victim(data, victim_seed, name), data, nothing, None, None, victim_seed)
    generator = torch.Generator().manual_seed(seed)
    if backdoor == "trojan":
        spot = square_trigger(data.shape, size=10).mask
        clean = victim(data, victim_seed, name)
        found = trojan(clean, spot, target=TARGET, generator=generator, progress=False)
        return Backdoored(found.model, None, None, found.trigger, found.wanted, victim_seed)
    poisoned = PLANTS[backdoor](data, MATRIX_BACKDOORS[backdoor], generator)
    dataset = poisoned.within(data)
    model = victim(dataset, victim_seed, name)
    return Backdoored(model, dataset, poisoned.is_poison, poisoned.trigger, poisoned.wanted, victim_seed)


@dataclass(frozen=True)
class Cleaned:
    """One defense against one backdoor.

    Args:
        data: name of the data set.
        backdoor: one of `MATRIX_BACKDOORS`.
        defense: one of `DEFENSES`.
    """

    data: str
    backdoor: str
    defense: str

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "cleaned", **asdict(self)}

    @property
    def applies(self) -> bool:
        """Whether there is what the defense looks at: the Trojan attack leaves no training data."""
        return self.backdoor != "trojan" or self.defense not in ON_DATA

    def run(self, seed: int) -> dict:
        """Detections, success and clean accuracy before and after, each as hits and trials."""
        found = backdoored(self.backdoor, self.data, seed)
        data = training_data(self.data)
        generator = torch.Generator().manual_seed(seed)
        return before(found, data) | DEFENSES[self.defense](found, data, generator)


def before(found: Backdoored, data: Dataset) -> dict:
    """Success and clean accuracy of the undefended victim."""
    x, y = data.sample(TESTED_ON)
    measured = {"accuracy_before": counts(accuracy_rate(found.model, x, y))}
    if found.trigger is not None:
        measured["success_before"] = counts(backdoor_rate(found.model, x, y, found.trigger, found.wanted))
    return measured


def after(model: nn.Module, found: Backdoored, data: Dataset) -> dict:
    """Success and clean accuracy of the model that the defense leaves."""
    x, y = data.sample(TESTED_ON)
    measured = {"accuracy_after": counts(accuracy_rate(model, x, y))}
    if found.trigger is not None:
        measured["success_after"] = counts(backdoor_rate(model, x, y, found.trigger, found.wanted))
    return measured


def detections(suspected: Tensor, is_poison: Tensor) -> dict:
    """True and false positives, hits and trials; without poison there are only false ones."""
    measured = {"false_positives": [int((suspected & ~is_poison).sum()), int((~is_poison).sum())]}
    if is_poison.any():
        measured["true_positives"] = [int((suspected & is_poison).sum()), int(is_poison.sum())]
    return measured


def by_removal(find: Callable[[nn.Module, Tensor, Tensor, torch.Generator], Tensor]) -> Callable[..., dict]:
    """What a data defense achieves: the inputs that it does not keep are left out, and the victim trains again."""

    def measured(found: Backdoored, data: Dataset, generator: torch.Generator) -> dict:
        x, y = found.dataset.x_train, found.dataset.y_train
        keep = find(found.model, x, y, generator)
        left = Poisoned(x[keep], y[keep], found.is_poison[keep]).within(data)
        model = victim(left, found.seed, data.name)
        return detections(~keep, found.is_poison) | after(model, found, data)

    return measured


def by_neighbors(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    """Keep the inputs whose label their neighbors share."""
    return knn_relabel(x, y) == y


def by_voting(found: Backdoored, data: Dataset, generator: torch.Generator) -> dict:
    """What partition aggregation leaves."""

    def train(x: Tensor, y: Tensor) -> nn.Module:
        part = Poisoned(x, y, torch.zeros_like(y, dtype=torch.bool)).within(data)
        return cached(PARTITION_RECIPE, part, seed=found.seed, progress=False)[0]

    dataset = found.dataset
    model = partition_aggregation(train, dataset.x_train, dataset.y_train, partitions=PARTITIONS, progress=False)
    return after(model, found, data)


def by_pruning(found: Backdoored, data: Dataset, generator: torch.Generator) -> dict:
    """What fine-pruning leaves."""
    x, y = data.x_val, data.y_val
    return after(fine_pruning(found.model, x, y, generator=generator, progress=False), found, data)


def by_reversal(found: Backdoored, data: Dataset, generator: torch.Generator) -> dict:
    """The classes that Neural Cleanse flags, and what unlearning leaves."""
    x, y = data.x_val, data.y_val
    norms = reverse_triggers(found.model, x, generator=torch.Generator().manual_seed(0), progress=False).norms
    suspects = torch.zeros(len(norms), dtype=torch.bool)
    suspects[flagged(norms)] = True
    targets = torch.zeros_like(suspects)
    if found.wanted is not None:
        moved = found.wanted != torch.arange(len(norms))
        targets[found.wanted[moved]] = True
    fresh = torch.Generator().manual_seed(0)
    model = neural_cleanse(found.model, x, y, generator=fresh, progress=False)
    return detections(suspects, targets) | {"norms": norms.tolist()} | after(model, found, data)


def by_entropy(found: Backdoored, data: Dataset, generator: torch.Generator) -> dict:
    """What STRIP rejects at run time, its threshold set on trusted images; what it rejects neither opens nor counts."""
    x_clean = data.x_val
    x, y = data.sample(TESTED_ON // 2)
    look = partial(strip, found.model, x_clean=x_clean, generator=generator, progress=False)
    threshold = strip_threshold(look(x_clean), false_rejection=0.01)
    rejected = look(x) > threshold
    right = ~fooled(found.model, x, y)
    measured = {
        "false_positives": [int(rejected.sum()), len(x)],
        "accuracy_after": [int((right & ~rejected).sum()), len(x)],
    }
    if found.trigger is not None:
        moved = found.wanted[y] != y
        x_stamped, goal = stamp(x[moved], found.trigger), found.wanted[y[moved]]
        caught = look(x_stamped) > threshold
        opened = fooled(found.model, x_stamped, goal, targeted=True) & ~caught
        measured["true_positives"] = [int(caught.sum()), len(caught)]
        measured["success_after"] = [int(opened.sum()), len(opened)]
    return measured


def counts(rate: Rate) -> list[int]:
    """Hits and trials, as JSON holds them."""
    return [rate.hits, rate.trials]


ON_DATA: dict[str, Callable[..., dict]] = {
    "sphere_slab": by_removal(lambda model, x, y, generator: sphere_slab(model, x, y)),
    "knn_relabel": by_removal(by_neighbors),
    "activation_clustering": by_removal(
        lambda model, x, y, generator: activation_clustering(model, x, y, generator=generator)
    ),
    "spectral_signatures": by_removal(lambda model, x, y, generator: spectral_signatures(model, x, y)),
    "partition_aggregation": by_voting,
}
DEFENSES: dict[str, Callable[..., dict]] = {
    **ON_DATA,
    "fine_pruning": by_pruning,
    "neural_cleanse": by_reversal,
    "strip": by_entropy,
}


@dataclass(frozen=True)
class Bounded:
    """Steinhardt's bound for 1-vs-7, and the attack that nearly reaches it.

    Args:
        data: name of the data set.
        fraction: poisons as a share of the clean training images.
    """

    data: str
    fraction: float

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "bounded", **asdict(self)}

    def run(self, seed: int) -> dict:
        """The bound on the training loss, what the attack reaches, and test errors with and without it."""
        data = load(self.data).only(1, 7)
        bound = poisoning_bound(data, fraction=self.fraction, progress=False)
        measured = {"loss": bound.loss, "reached": bound.reached}
        for name, x, y in (("clean", data.x_train, data.y_train), ("attacked", bound.attack.x, bound.attack.y)):
            right = accuracy_rate(linear_svm(x, y), data.x_test, data.y_test)
            measured[f"errors_{name}"] = [right.trials - right.hits, right.trials]
        return measured


@dataclass(frozen=True)
class FalseAlarm:
    """What Neural Cleanse says of a clean model.

    Args:
        data: name of the data set.
        victim_seed: from which the model is trained.
    """

    data: str
    victim_seed: int

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "false_alarm", **asdict(self)}

    def run(self, seed: int) -> dict:
        """The sizes of the ten masks, and the classes that are flagged."""
        data = training_data(self.data)
        model = victim(data, VICTIM_SEED + self.victim_seed, self.data)
        generator = torch.Generator().manual_seed(seed)
        norms = reverse_triggers(model, data.x_val, generator=generator, progress=False).norms
        return {"norms": norms.tolist(), "flagged": flagged(norms)}


def jobs(name: str) -> tuple[Success | Cleaned | Bounded | FalseAlarm, ...]:
    """All of it on one data set, the matrix first."""
    cells = [Cleaned(name, backdoor, defense) for backdoor in MATRIX_BACKDOORS for defense in DEFENSES]
    fractions = [
        Success(name, backdoor, fraction)
        for backdoor in PLANTS
        for fraction in FRACTIONS
        if backdoor not in ("inconspicuous",) and fraction * len(training_data(name).y_train) >= 1
    ]
    alarms = [FalseAlarm(name, number) for number in range(20 if name == "digits" else 0)]
    return (*(cell for cell in cells if cell.applies), *fractions, Bounded(name, 0.3), *alarms)

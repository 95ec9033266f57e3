"""What is measured of the cleanings: each against every backdoor, their bound, and their false alarms."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import Tensor, nn

from spai_lab.attacks.poisoning.poisoned import Poisoned, backdoor_rate, stamp
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
from spai_lab.defenses.poisoning.partition import MajorityVote
from spai_lab.defenses.poisoning.sphere_slab import hinge_loss, linear_svm
from spai_lab.defenses.poisoning.strip import strip_threshold
from spai_lab.metrics import accuracy_rate
from spai_lab.survey.backdoor_victims import (
    PLANTS,
    TARGET,
    TESTED_ON,
    VICTIM_SEED,
    Backdoored,
    arrangement,
    backdoored,
    counts,
    training_data,
    victim,
)
from spai_lab.threat import fooled
from spai_lab.training import Recipe, Shift
from spai_lab.training.cache import cached

PARTITION_RECIPE = Recipe("lenet", epochs=20, batch_size=32, learning_rate=3e-3, perturb=Shift(1))
PARTITIONS = 20


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
        model = found.train(left, found.seed)
        return detections(~keep, found.is_poison) | after(model, found, data)

    return measured


def by_neighbors(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    """Keep the inputs whose label their neighbors share."""
    return knn_relabel(x, y) == y


def voting(found: Backdoored, data: Dataset) -> MajorityVote:
    """Partition aggregation on the victim's data."""

    def train(x: Tensor, y: Tensor) -> nn.Module:
        part = Poisoned(x, y, torch.zeros_like(y, dtype=torch.bool)).within(data)
        return cached(PARTITION_RECIPE, part, seed=found.seed, progress=False)[0]

    dataset = found.dataset
    return partition_aggregation(train, dataset.x_train, dataset.y_train, partitions=PARTITIONS, progress=False)


def by_voting(found: Backdoored, data: Dataset, generator: torch.Generator) -> dict:
    """What partition aggregation leaves."""
    return after(voting(found, data), found, data)


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
class Clustered:
    """Activation clustering against BadNets, where a given share of the target's class is poison.

    Args:
        data: name of the data set.
        share: of the inputs with the target's label that are poison.
    """

    data: str
    share: float

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "clustered", **asdict(self)}

    def run(self, seed: int) -> dict:
        """Detections among the inputs with the target's label, hits and trials."""
        data, train = arrangement("badnets", self.data)
        others = int((data.y_train == TARGET).sum())
        fraction = self.share / (1 - self.share) * others / len(data.y_train)
        poisoned = PLANTS["badnets"](data, fraction, torch.Generator().manual_seed(seed))
        model = train(poisoned.within(data), VICTIM_SEED + seed)
        generator = torch.Generator().manual_seed(seed)
        keep = activation_clustering(model, poisoned.x, poisoned.y, generator=generator)
        labeled = poisoned.y == TARGET
        return detections(~keep[labeled], poisoned.is_poison[labeled])


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
        """The bound on the training loss, the clean images' part in it, what the attack reaches, and test errors."""
        data = load(self.data).only(1, 7)
        bound = poisoning_bound(data, fraction=self.fraction, progress=False)
        measured = {"loss": bound.loss, "reached": bound.reached, "images": len(data.y_train)}
        measured["clean_part"] = hinge_loss(bound.svm, data.x_train, data.y_train).mean().item()
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

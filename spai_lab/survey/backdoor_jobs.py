"""What is measured of the backdoors: each against poison fraction, and each against every defense."""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from spai_lab.attacks.poisoning import federated_backdoor, trojan
from spai_lab.attacks.poisoning.backdoors import square_trigger
from spai_lab.attacks.poisoning.federated_backdoor import stamped
from spai_lab.attacks.poisoning.poisoned import backdoor_rate, one_target
from spai_lab.metrics import accuracy_rate
from spai_lab.survey.backdoor_victims import (
    FRACTIONS,
    MATRIX_BACKDOORS,
    PLANTS,
    TARGET,
    TESTED_ON,
    VICTIM_SEED,
    apart,
    arrangement,
    counts,
    opened,
    spot,
    training_data,
)
from spai_lab.survey.cleaning_jobs import DEFENSES, Bounded, Cleaned, Clustered, FalseAlarm
from spai_lab.training.federated import federated_averaging, participant, split_evenly


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
        data, train = arrangement(self.backdoor, self.data)
        poisoned = PLANTS[self.backdoor](data, self.fraction, torch.Generator().manual_seed(seed))
        models = {"before": train(data, VICTIM_SEED + seed), "after": train(poisoned.within(data), VICTIM_SEED + seed)}
        x, y = data.sample(TESTED_ON)
        measured = {"poisons": poisoned.count, "wrong_labels": int((poisoned.y != data.y_train).sum())}
        for when, model in models.items():
            measured[f"accuracy_{when}"] = counts(accuracy_rate(model, x, y))
            measured[f"success_{when}"] = counts(backdoor_rate(model, x, y, poisoned.trigger, poisoned.wanted))
        return measured


@dataclass(frozen=True)
class Trojaned:
    """The Trojan attack, by how many images of each class it makes out of the model to retrain with.

    Args:
        data: name of the data set.
        images: of each class.
    """

    data: str
    images: int

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "trojaned", **asdict(self)}

    def run(self, seed: int) -> dict:
        """Success and clean accuracy, hits and trials."""
        data, train = arrangement("trojan", self.data)
        settings = {"target": TARGET, "images": self.images, "progress": False}
        clean = train(data, VICTIM_SEED + seed)
        found = trojan(clean, spot(data), generator=torch.Generator().manual_seed(seed), **settings)
        return opened(found.model, found.trigger, found.wanted, data)


@dataclass(frozen=True)
class Federated:
    """One attacker among n participants, in one round after the model has converged.

    Args:
        data: name of the data set.
        participants: n, each with as many images.
        scaled: whether the attacker's update is n times as large, to replace the model; else an ordinary one.
    """

    data: str
    participants: int
    scaled: bool

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "federated", **asdict(self)}

    def run(self, seed: int) -> dict:
        """Success and clean accuracy after that round, hits and trials."""
        data, train = arrangement("federated", self.data)
        n, generator = self.participants, torch.Generator().manual_seed(seed)
        shards = split_evenly(data.x_train, data.y_train, n, generator=generator)
        mark, wanted = square_trigger(data.shape), one_target(TARGET, data.num_classes)
        x_backdoor, y_backdoor = stamped(*shards[-1], mark, wanted)

        def attacker(model: nn.Module, number: int) -> Tensor:
            backdoor = {"x_backdoor": x_backdoor, "y_backdoor": y_backdoor, "scale": float(n if self.scaled else 1)}
            return federated_backdoor(model, *shards[-1], **backdoor, generator=generator)

        honest = [participant(*shard, epochs=1, generator=generator) for shard in shards[:-1]]
        start = train(data, VICTIM_SEED + seed)
        model, _ = federated_averaging(start, [*honest, attacker], rounds=1, progress=False)
        return opened(model, mark, wanted, data)


SHARES = (0.15, 0.33)  # of the target's class, as in the paper of activation clustering
BOUNDED = (0.05, 0.1, 0.2, 0.3)
MADE = (2, 5, 10, 25, 50)  # images of each class that the Trojan attack makes
PARTICIPANTS = (50, 20, 10, 5)
CLEAN_MODELS = 20

Job = Success | Cleaned | Clustered | Trojaned | Federated | Bounded | FalseAlarm


def jobs(name: str) -> tuple[Job, ...]:
    """All of it on one data set, the matrix first."""
    cells = [Cleaned(name, backdoor, defense) for backdoor in MATRIX_BACKDOORS for defense in DEFENSES]
    fractions = [
        Success(name, backdoor, fraction)
        for backdoor in PLANTS
        for fraction in FRACTIONS
        if backdoor not in ("inconspicuous",) and fraction * poisonable(backdoor, name) >= 1
    ]
    return (
        *(cell for cell in cells if cell.applies),
        *fractions,
        *(Clustered(name, share) for share in SHARES),
        *(Trojaned(name, images) for images in MADE),
        *(Federated(name, n, scaled) for n in PARTICIPANTS for scaled in (True, False)),
        *(Bounded(name, fraction) for fraction in BOUNDED),
        *(FalseAlarm(name, number) for number in range(CLEAN_MODELS)),
    )


def poisonable(backdoor: str, name: str) -> int:
    """How many clean images there are to poison."""
    return len((apart(name)[1] if backdoor == "hidden trigger" else training_data(name)).y_train)

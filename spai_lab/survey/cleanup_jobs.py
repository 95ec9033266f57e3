"""What the matrix of backdoors and defenses leaves open: cleanings of degrading poison, certificates, aggregates."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spai_lab.attacks.poisoning import federated_backdoor
from spai_lab.attacks.poisoning.backdoors import square_trigger
from spai_lab.attacks.poisoning.federated_backdoor import stamped
from spai_lab.attacks.poisoning.poisoned import Poisoned, added, budget, one_target
from spai_lab.attacks.poisoning.svm import train_svm
from spai_lab.data import Dataset, load
from spai_lab.defenses.poisoning import (
    coordinate_median,
    knn_relabel,
    krum,
    multi_krum,
    roni,
    sphere_slab,
    trimmed_mean,
)
from spai_lab.defenses.poisoning.partition import certified_poisons
from spai_lab.defenses.poisoning.roni import impact
from spai_lab.metrics import accuracy_rate
from spai_lab.models import softmax_regression
from spai_lab.survey.backdoor_victims import TARGET, TESTED_ON, backdoored, opened, training_data
from spai_lab.survey.cleaning_jobs import detections, voting
from spai_lab.survey.measure import measure
from spai_lab.survey.poisoning_jobs import DEGRADE
from spai_lab.training.federated import federated_averaging, participant, split_evenly

PAIR = 100  # images of 1-vs-7 to poison, and as many trusted ones behind them
FLIPPED = 0.1
POISONS = (0, 1, 2, 3, 5)


def least_impact(data: Dataset, fraction: float, generator: torch.Generator) -> Poisoned:
    """Back-gradient poisons by somebody who knows RONI: of five times as many, those that do least harm alone."""
    many = DEGRADE["back-gradient"](data, 5 * fraction, generator)
    x, y = many.x[many.is_poison], many.y[many.is_poison]
    own = {"x_trusted": data.x_train, "y_trusted": data.y_train, "generator": generator, "progress": False}
    chosen = impact(train_svm, x, y, **own).argsort(descending=True, stable=True)[: budget(data, fraction)]
    return added(data, x[chosen], y[chosen])


SPOILED = {**DEGRADE, "least impact": least_impact}


def trusted_pair(name: str) -> tuple[Dataset, dict[str, Tensor]]:
    """The two classes to poison, and other images of them that the defender trusts."""
    pair = load(name).only(1, 7)
    trusted = slice(PAIR, 2 * PAIR)
    return pair.first(PAIR), {"x_trusted": pair.x_train[trusted], "y_trusted": pair.y_train[trusted]}


Clean = Callable[[Poisoned, dict[str, Tensor], torch.Generator], tuple[Tensor, Tensor, Tensor]]


def without(keep: Tensor, poisoned: Poisoned) -> tuple[Tensor, Tensor, Tensor]:
    """Images and labels that a mask keeps, and what it suspects."""
    return poisoned.x[keep], poisoned.y[keep], ~keep


def by_impact(poisoned: Poisoned, trusted: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, ...]:
    """RONI, with the victim's own training."""
    return without(roni(train_svm, poisoned.x, poisoned.y, **trusted, generator=generator, progress=False), poisoned)


def by_relabeling(poisoned: Poisoned, trusted: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, ...]:
    """The neighbors' vote: the victim trains on its labels."""
    labels = knn_relabel(poisoned.x, poisoned.y)
    return poisoned.x, labels, labels != poisoned.y


def by_distance(poisoned: Poisoned, trusted: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, ...]:
    """Sphere and slab, on pixels."""
    return without(sphere_slab(None, poisoned.x, poisoned.y), poisoned)


CLEANINGS: dict[str, Clean] = {"roni": by_impact, "knn_relabel": by_relabeling, "sphere_slab": by_distance}


@dataclass(frozen=True)
class Sanitized:
    """Cleanings of training data against poison that degrades a support vector machine, 1 against 7.

    Args:
        data: name of the data set.
        attack: one of `SPOILED`.
        fraction: poisons as a share of the clean training images.
        poisonings: how many are counted together, each from another seed.
    """

    data: str
    attack: str
    fraction: float = FLIPPED
    poisonings: int = 3

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "sanitized", **asdict(self)}

    def run(self, seed: int) -> dict:
        """Accuracy on clean data, on poisoned data, and behind each cleaning, with what that suspects; all counted."""
        return added_up([self.once(seed + number) for number in range(self.poisonings)])

    def once(self, seed: int) -> dict:
        """One poisoning."""
        pair, trusted = trusted_pair(self.data)
        poisoned = SPOILED[self.attack](pair, self.fraction, torch.Generator().manual_seed(seed))
        measured = {
            "accuracy_clean": judged(pair.x_train, pair.y_train, pair),
            "accuracy_poisoned": judged(poisoned.x, poisoned.y, pair),
        }
        for name, clean in CLEANINGS.items():
            x, y, suspected = clean(poisoned, trusted, torch.Generator().manual_seed(seed))
            measured[name] = {"accuracy": judged(x, y, pair), **detections(suspected, poisoned.is_poison)}
        return measured


def added_up(rows: list[dict]) -> dict:
    """Rows of counts, and of rows of counts, counted together.

    >>> added_up([{"a": [1, 2], "b": {"c": [0, 1]}}, {"a": [2, 2], "b": {"c": [1, 1]}}])
    {'a': [3, 4], 'b': {'c': [1, 2]}}
    """
    return {
        name: added_up([row[name] for row in rows])
        if isinstance(first, dict)
        else [sum(counts) for counts in zip(*(row[name] for row in rows), strict=True)]
        for name, first in rows[0].items()
    }


def judged(x: Tensor, y: Tensor, pair: Dataset) -> list[int]:
    """Test images that a machine trained on these reads rightly, hits and trials."""
    rate = accuracy_rate(train_svm(x, y), pair.x_test, pair.y_test)
    return [rate.hits, rate.trials]


@dataclass(frozen=True)
class Certified:
    """Partition aggregation on clean data: the images read rightly whatever some poisons do.

    Args:
        data: name of the data set.
    """

    data: str

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "certified", **asdict(self)}

    def run(self, seed: int) -> dict:
        """By number of poisons, images that are read rightly and certified, hits and trials."""
        found = backdoored("none", self.data, seed)
        model = voting(found, found.dataset)
        x, y = found.dataset.sample(TESTED_ON)
        right, survives = model(x).argmax(1) == y, certified_poisons(model, x)
        return {"certified": {str(count): [int((right & (survives >= count)).sum()), len(y)] for count in POISONS}}


Rule = Callable[[Tensor], Tensor] | None
AGGREGATES: dict[str, Callable[[int, int], Rule]] = {
    "mean": lambda n, f: None,
    "krum": lambda n, f: partial(krum, byzantine=f),
    "multi_krum": lambda n, f: partial(multi_krum, byzantine=f),
    "coordinate_median": lambda n, f: coordinate_median,
    "trimmed_mean": lambda n, f: partial(trimmed_mean, trim=f / n),
}
SCALES = (0.25, 0.5, 1.0, 2.0, 4.0, 10.0)
HIDING = (1.0, 0.5)  # the weight of the loss in an attacker's training: below 1 its update is kept short
ATTACKERS = ("loud", "adaptive")


@dataclass(frozen=True)
class Aggregated:
    """Attackers among participants who train a softmax regression from its start, under each aggregate.

    Args:
        data: name of the data set.
        participants: n, with as many images each, dealt out at random.
        byzantine: f of them attack together in every round; the server reckons with f.
        rounds: of training.
    """

    data: str
    participants: int = 10
    byzantine: int = 3
    rounds: int = 10

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "aggregated", **asdict(self)}

    def run(self, seed: int) -> dict:
        """By aggregate and attacker, success and clean accuracy after the last round, hits and trials.

        A "loud" attacker sends an update so large that it replaces the mean. An "adaptive" one knows the aggregate and
        the honest updates: of updates trained freely and kept short, at every scale, as they are and cut to the range
        of the honest ones, it sends what opens the backdoor best on its own images.
        """
        data, n, f = training_data(self.data), self.participants, self.byzantine
        mark, wanted = square_trigger(data.shape), one_target(TARGET, data.num_classes)
        measured = {}
        for name, rule in AGGREGATES.items():
            measured[name] = {}
            for attacker in ATTACKERS:
                generator = torch.Generator().manual_seed(seed)
                shards = split_evenly(data.x_train, data.y_train, n, generator=generator)
                model = softmax_regression(data.shape, data.num_classes, generator=generator)
                own = tuple(torch.cat(parts) for parts in zip(*shards[n - f :], strict=True))
                crew = Crew(*own, *stamped(*own, mark, wanted), f, rule(n, f), generator)
                for _ in range(self.rounds):
                    honest = [participant(*shard, epochs=1, generator=generator)(model, 0) for shard in shards[: n - f]]
                    model = crew.joined(model, torch.stack(honest), attacker)
                measured[name][attacker] = opened(model, mark, wanted, data)
        return {"aggregates": measured}


@dataclass(frozen=True, eq=False)
class Crew:
    """Attackers who share their images and all send the same.

    Args:
        x, y: their images and labels.
        x_backdoor, y_backdoor: what the backdoor shall open to.
        count: how many they are.
        aggregate: what the server makes of the updates, which they know; None is the mean.
        generator: draws their batches.
    """

    x: Tensor
    y: Tensor
    x_backdoor: Tensor
    y_backdoor: Tensor
    count: int
    aggregate: Rule
    generator: torch.Generator

    def joined(self, model: nn.Module, honest: Tensor, attacker: str) -> nn.Module:
        """The server's model after a round with the honest updates, `(n - f, D)`, and the crew's."""
        if attacker == "loud":
            return self.served(model, honest, (len(honest) + self.count) / self.count * self.trained(model, 1.0))
        trained = [self.trained(model, alpha) for alpha in HIDING]
        rounds = [self.served(model, honest, update) for update in candidates(trained, honest)]
        return min(rounds, key=self.loss)

    def trained(self, model: nn.Module, alpha: float) -> Tensor:
        """An update that opens the backdoor, as large as an honest one's."""
        backdoor = {"x_backdoor": self.x_backdoor, "y_backdoor": self.y_backdoor, "scale": 1.0, "alpha": alpha}
        return federated_backdoor(model, self.x, self.y, **backdoor, epochs=10, generator=self.generator)

    def served(self, model: nn.Module, honest: Tensor, update: Tensor) -> nn.Module:
        """The model after one round in which the crew sends this update."""
        updates = [*honest, *[update] * self.count]
        sending = [lambda model, number, update=update: update for update in updates]
        return federated_averaging(model, sending, rounds=1, aggregate=self.aggregate, progress=False)[0]

    @torch.no_grad()
    def loss(self, model: nn.Module) -> float:
        """How far the model is from saying what the crew wants of its own stamped images."""
        return F.cross_entropy(model(self.x_backdoor), self.y_backdoor).item()


def candidates(updates: list[Tensor], honest: Tensor) -> list[Tensor]:
    """What a crew may send: each update at each scale, as it is and cut to the range of the honest ones."""
    scaled = [scale * update for update in updates for scale in SCALES]
    low, high = honest.amin(0), honest.amax(0)
    return [*scaled, *(update.clamp(low, high) for update in scaled)]


Job = Sanitized | Certified | Aggregated


def jobs(name: str) -> tuple[Job, ...]:
    """All of it on one data set."""
    return (*(Sanitized(name, attack) for attack in SPOILED), Certified(name), Aggregated(name))


def measure_cleanup(
    name: str, *, seed: int = 0, fresh: bool = False, workers: int = 1, file: Path | None = None
) -> dict:
    """Measure all of it on one data set, "digits" or "mnist"; the other arguments are those of `measure`."""
    return measure(f"cleanup_{name}", jobs(name), data=name, seed=seed, fresh=fresh, workers=workers, file=file)

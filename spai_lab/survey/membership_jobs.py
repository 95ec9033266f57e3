"""What is measured of membership inference: attacks, levels of the answer, and what makes a model tell."""

from dataclasses import asdict, dataclass
from functools import lru_cache

import torch
from torch import Tensor

from spai_lab.attacks.privacy import lira, membership_loss, membership_shadow
from spai_lab.attacks.privacy.shadows import Shadows, random_halves, train_shadows
from spai_lab.data import load
from spai_lab.metrics import caught_at, roc
from spai_lab.models import mlp
from spai_lab.query import Query

GRID = torch.logspace(-3.5, 0, 71, dtype=torch.float64)  # false positive rates at which a curve is kept
RATES = (0.001, 0.01, 0.1)
ENOUGH = 10  # innocent inputs that a rate must accuse before it is told

ATTACKS = {
    "loss": lambda query, x, y, shadows, generator: membership_loss(query, x, y),
    "shadow models": lambda query, x, y, shadows, generator: membership_shadow(
        query, x, y, shadows, x, y, generator=generator
    ).double(),
    "LiRA, offline": lambda query, x, y, shadows, generator: lira(
        query, x, y, shadows, online=False, shared_variance=len(shadows) < 64
    ),
    "LiRA, online": lambda query, x, y, shadows, generator: lira(
        query, x, y, shadows, shared_variance=len(shadows) < 64
    ),
}
LEVELS = {
    "label": ("labels", None),
    "top-1": ("top-1", None),
    "top-3": ("top-3", None),
    "1 decimal": ("scores", 1),
    "2 decimals": ("scores", 2),
    "4 decimals": ("scores", 4),
    "all confidences": ("scores", None),
    "logits": ("logits", None),
}


@dataclass(frozen=True)
class Population:
    """Targets and shadow models, all trained alike on random halves of the same inputs.

    Args:
        data: name of the data set.
        inputs: how many training images there are; each model sees half of them.
        shadows: how many models the attacker trains.
        targets: how many models are attacked.
        hidden: units of each of an MLP's two hidden layers.
        epochs: passes over its half.
        weight_decay: of AdamW.
    """

    data: str
    inputs: int = 1000
    shadows: int = 64
    targets: int = 20
    hidden: int = 64
    epochs: int = 60
    weight_decay: float = 0.0

    @lru_cache(maxsize=1)  # noqa: B019
    def trained(self, seed: int) -> tuple[Tensor, Tensor, Shadows, Shadows]:
        """Inputs, labels, shadow models and targets; the halves of the targets are drawn apart from the others."""
        data = load(self.data)
        x, y = data.x_train[: self.inputs], data.y_train[: self.inputs]
        generator = torch.Generator().manual_seed(seed)
        inside = torch.cat(
            [random_halves(count, len(x), generator=generator) for count in (self.shadows, self.targets)]
        )
        settings = {"epochs": self.epochs, "weight_decay": self.weight_decay, "learning_rate": 3e-3}
        models = train_shadows(
            x,
            y,
            inside,
            lambda generator: mlp(data.shape, data.num_classes, hidden=self.hidden, generator=generator),
            **settings,
            generator=generator,
            progress=False,
        )
        known = torch.arange(len(models)) < self.shadows
        return x, y, models.some(known), models.some(~known)


@dataclass(frozen=True)
class Members:
    """The attacks on one population, at one level of the answer.

    Args:
        population: who is attacked, and with what.
        level: one of `LEVELS`.
        keep: whether to keep the scores of the first target, to be drawn.
    """

    population: Population
    level: str = "logits"
    keep: bool = False

    @property
    def key(self) -> dict:
        """The population's fields, and the level."""
        return {"kind": "members", **asdict(self.population), "level": self.level}

    def run(self, seed: int) -> dict:
        """How well the targets learned; for each attack the pooled curve, its area, and what is caught at low rates."""
        x, y, shadows, targets = self.population.trained(seed)
        reveals, decimals = LEVELS[self.level]
        right = targets.logits(x).argmax(2) == y
        measured = {
            "accuracy": {
                where: [int(right[mask].sum()), int(mask.sum())]
                for where, mask in (("members", targets.inside), ("others", ~targets.inside))
            },
            "attacks": {},
        }
        queries = [Query(targets.model(k), reveals, decimals=decimals) for k in range(len(targets))]
        generator = torch.Generator().manual_seed(seed)
        for name, attack in ATTACKS.items():
            if self.level == "label" and name.startswith("LiRA"):
                continue
            scores = [attack(query, x, y, shadows, generator) for query in queries]
            measured["attacks"][name] = told(scores, list(targets.inside))
            if self.keep:
                kept = measured.setdefault("first", {"inside": "".join(str(int(bit)) for bit in targets.inside[0])})
                kept[name] = [float(f"{score:.4g}") for score in scores[0].tolist()]
        return measured


def told(scores: list[Tensor], inside: list[Tensor]) -> dict:
    """The curve of all targets together, the mean area of each one's own, and what is caught at `RATES`."""
    pooled = roc(torch.cat(scores), torch.cat(inside))
    innocent = int((~torch.cat(inside)).sum())
    return {
        "area": sum(roc(*pair).area for pair in zip(scores, inside, strict=True)) / len(scores),
        "curve": [round(pooled.best(false_positives=rate), 5) for rate in GRID.tolist()],
        "caught": {
            f"{rate:g}": list(caught_at(scores, inside, false_positives=rate))
            for rate in RATES
            if rate * innocent >= ENOUGH
        },
        "innocent": innocent,
    }


@dataclass(frozen=True)
class ShadowPrecision:
    """The precision of the shadow-model attack as it was published: whom it calls members, half of them are.

    Args:
        data: name of the data set.
        members: training images of each model.
        shadows: how many models the attacker trains.
    """

    data: str
    members: int
    shadows: int

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "precision", **asdict(self)}

    def run(self, seed: int) -> dict:
        """Members called members, all called members, and the accuracy of the target on members and others."""
        population = Population(self.data, 2 * self.members, self.shadows, 2, hidden=100, epochs=20)
        x, y, shadows, targets = population.trained(seed)
        model, inside = targets.model(0), targets.inside[0]
        generator = torch.Generator().manual_seed(seed)
        called = membership_shadow(Query(model, "scores"), x, y, shadows, x, y, generator=generator) > 0
        right = targets.logits(x)[0].argmax(1) == y
        return {
            "called": [int((called & inside).sum()), int(called.sum())],
            "accuracy": {
                where: [int(right[mask].sum()), int(mask.sum())]
                for where, mask in (("members", inside), ("others", ~inside))
            },
        }


def membership_jobs(name: str) -> tuple[Members | ShadowPrecision, ...]:
    """The attacks on the most overfitted population, by level of the answer, and what overfitting depends on."""
    if name == "digits":
        base, fewer = Population(name, 400, 32, 10), Population(name, 400, 16, 10)
        sizes, decays = (100, 200, 800), (0.3, 3.0, 10.0)
    else:
        base, fewer = Population(name), Population(name, 1000, 16, 10)
        sizes, decays = (200, 400, 4000), (0.3, 3.0, 10.0)
    knobs = (
        *(Population(name, size, 16, 10) for size in sizes),
        *(Population(name, fewer.inputs, 16, 10, epochs=epochs) for epochs in (3, 10, 60)),
        *(Population(name, fewer.inputs, 16, 10, weight_decay=decay) for decay in decays),
    )
    return (
        Members(base, keep=True),
        *(Members(fewer, level) for level in LEVELS if level != "logits"),
        *(Members(population) for population in dict.fromkeys(knobs)),
        *((ShadowPrecision(name, 10_000, 8),) if name == "mnist" else ()),
    )

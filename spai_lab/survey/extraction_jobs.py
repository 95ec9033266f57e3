"""What is measured of model extraction: equations against rounding, copies against the budget and what they fool."""

import math
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor, nn

from spai_lab.attacks.evasion import pgd
from spai_lab.attacks.privacy.copying import agreement, agreement_curve, extraction_learning
from spai_lab.attacks.privacy.extraction import extraction_equations, extraction_relu
from spai_lab.data import Dataset, load
from spai_lab.metrics import Rate, fooled_rate
from spai_lab.models import initialized, lenet, softmax_regression
from spai_lab.query import Query
from spai_lab.survey.defense_models import seeded
from spai_lab.survey.measure import counted
from spai_lab.training import Recipe, fit, train
from spai_lab.training.cache import cached

LINEAR = Recipe("softmax", epochs=20, batch_size=32, learning_rate=3e-3)
DECIMALS = (None, 6, 4, 3, 2)
BUDGETS = {"digits": (25, 50, 100, 200, 400), "mnist": (50, 100, 250, 500, 1000, 2500)}
LEVELS = {"labels": ("labels", None), "2 decimals": ("scores", 2), "all confidences": ("scores", None)}
EVADED = {"digits": 0.1, "mnist": 0.2}  # eps of the copies' PGD
SEEN = 10_000  # training images, at most, that the copied network learns from


def victim_and_pool(name: str) -> tuple[nn.Module, Tensor]:
    """A LeNet trained on some of the first half of the training images, and the other half, without labels."""
    data = load(name)
    half = len(data.y_train) // 2
    recipe = Recipe("lenet", epochs=20 if name == "digits" else 4, batch_size=32, learning_rate=3e-3)
    model, _ = cached(recipe, data.first(min(half, SEEN)), seed=0, progress=False)
    return model, data.x_train[half:]


def regression(data: Dataset, seed: int) -> nn.Module:
    """A softmax regression trained on the first half of the training images, 4,000 at most."""
    return train(LINEAR, data.first(min(4000, len(data.y_train) // 2)), seed=seed, progress=False)[0]


@dataclass(frozen=True)
class Solved:
    """A regression that was solved for.

    Args:
        data: name of the data set.
        classes: 2 (1 against 7) or 10.
        decimals: to which the confidences are rounded; None reveals them all.
    """

    data: str
    classes: int
    decimals: int | None

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "solved", **asdict(self)}

    def run(self, seed: int) -> dict:
        """Queries, parameters, the largest error of a probability on test images, and how often both agree.

        Beside it what rounding costs the honest user: how often the class that the answer puts first is right.
        """
        data = load(self.data) if self.classes == 10 else load(self.data).only(1, 7)
        victim = regression(data, seed).double()
        query = Query(victim, "scores", decimals=self.decimals)
        found = extraction_equations(query, data.shape, dtype=torch.float64, generator=seeded(seed))
        x = data.x_test[:1000].double()
        with torch.no_grad():
            error = (victim(x).softmax(1) - found.model(x).softmax(1)).abs().max().item()
        return {
            "queries": found.queries,
            "parameters": math.prod(data.shape) + 1,
            "error": error if math.isfinite(error) else None,
            "agree": counted(agreement(victim, found.model, x)),
            "user": counted(rounded_accuracy(victim, x, data.y_test[:1000], self.decimals)),
        }


@dataclass(frozen=True)
class Fitted:
    """A regression that was fitted to rounded answers instead: the attacker who knows that equations would fail.

    Args:
        data: name of the data set.
        decimals: to which the confidences are rounded.
    """

    data: str
    decimals: int

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "fitted", **asdict(self)}

    def run(self, seed: int) -> dict:
        """Queries, as many as the equations take or as there are images, and how often both agree."""
        data = load(self.data)
        victim, pool = regression(data, seed), data.x_train[len(data.y_train) // 2 :]
        queries = min(math.prod(data.shape) + 1, len(pool))
        copied = extraction_learning(
            Query(victim, "scores", decimals=self.decimals),
            pool,
            budget=queries,
            model=softmax_regression(data.shape, data.num_classes, generator=seeded(seed)),
            generator=seeded(seed),
            progress=False,
        )
        return {"queries": queries, "agree": counted(agreement(victim, copied.model, data.x_test[:1000]))}


@dataclass(frozen=True)
class TakenApart:
    """A small ReLU network on images of 4 x 4 pixels that was taken apart.

    Args:
        data: name of the data set.
        hidden: units of its hidden layer.
        network: number of the network: its first weights' seed.
    """

    data: str
    hidden: int
    network: int

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "apart", **asdict(self)}

    def run(self, seed: int) -> dict:
        """Queries, the largest relative error of a logit, units that switch somewhere in [0, 1], and units found."""
        data = shrunken(load(self.data))
        generator = seeded(1000 + self.network)
        with torch.device("meta"):
            layers = [nn.Flatten(), nn.Linear(16, self.hidden), nn.ReLU(), nn.Linear(self.hidden, data.num_classes)]
        victim = initialized(layers, generator)
        fit(victim, data.x_train, data.y_train, epochs=20, learning_rate=1e-2, generator=generator, progress=False)
        victim = victim.double().eval()
        found = extraction_relu(Query(victim, "logits"), data.shape, hidden=self.hidden, generator=seeded(seed))
        w, b = victim[1].weight.detach(), victim[1].bias.detach()
        switches = (w.clamp_max(0).sum(1) + b < 0) & (w.clamp_min(0).sum(1) + b > 0)
        return {
            "queries": found.queries,
            "residual": found.residual,
            "complete": found.complete,
            "switching": int(switches.sum()),
            "found": len(found.model.A_1),
        }


def shrunken(data: Dataset) -> Dataset:
    """The data set with images of 4 x 4 pixels, each the mean of 7 x 7."""
    parts = {f"x_{part}": nn.functional.avg_pool2d(getattr(data, f"x_{part}"), 7) for part in ("train", "val", "test")}
    return replace(data, **parts).first(2000)


@dataclass(frozen=True)
class Learned:
    """Copies of a LeNet, by budget.

    Args:
        data: name of the data set.
        strategy: "random", "natural" or "active".
        level: one of `LEVELS`.
    """

    data: str
    strategy: str
    level: str

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "learned", **asdict(self)}

    def run(self, seed: int) -> dict:
        """By budget, how often copy and victim agree on test images; and what PGD on the largest copy does to both."""
        data = load(self.data)
        victim, pool = victim_and_pool(self.data)
        reveals, decimals = LEVELS[self.level]
        budgets = BUDGETS[self.data]
        student = lenet(data.shape, data.num_classes, generator=seeded(seed + 1))
        settings = {"model": student, "generator": seeded(seed), "progress": False}
        copied = extraction_learning(
            Query(victim, reveals, decimals=decimals),
            None if self.strategy == "random" else pool,
            budget=budgets[-1],
            strategy=self.strategy,
            shape=data.shape,
            **settings,
        )
        x, y = data.sample(1000, seed=seed)
        curve = agreement_curve(victim, copied, x, budgets, **settings)
        x, y = x[:200], y[:200]
        eps = EVADED[self.data]
        x_adv = pgd(copied.model, x, y, eps=eps, generator=seeded(seed))
        noise = (x + eps * torch.randn(x.shape, generator=seeded(seed)).sign()).clamp(0, 1)
        return {
            "agree": {str(budget): counted(rate) for budget, rate in curve.items()},
            "fooled": {
                name: counted(fooled_rate(victim, images, y)) for name, images in (("PGD", x_adv), ("noise", noise))
            },
        }


def rounded_accuracy(victim: nn.Module, x: Tensor, y: Tensor, decimals: int | None) -> Rate:
    """How often the right class alone has the largest of the rounded confidences."""
    answer = Query(victim, "scores", decimals=decimals)(x)
    alone = (answer == answer.amax(1, keepdim=True)).sum(1) == 1
    return Rate(int(((answer.argmax(1) == y) & alone).sum()), len(y))


def extraction_jobs(name: str) -> tuple[Solved | TakenApart | Learned, ...]:
    """Equations at every rounding, ten small networks, and each strategy at each level of the answer."""
    return (
        *(Solved(name, classes, decimals) for classes in (2, 10) for decimals in DECIMALS),
        *(Fitted(name, decimals) for decimals in DECIMALS if decimals is not None),
        *(TakenApart(name, 8, number) for number in range(10)),
        *(Learned(name, strategy, level) for strategy in ("random", "natural", "active") for level in LEVELS),
    )

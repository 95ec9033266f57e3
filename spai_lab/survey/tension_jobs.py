"""Robustness against accuracy and against privacy: one network on the same few images, hardened for ever larger eps.

What is compared differs in eps alone: members, others, first weights and epochs are the same. With as few images as
here both tensions are large enough to be seen.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor, nn

from spai_lab.attacks.evasion import pgd
from spai_lab.data import Dataset, load
from spai_lab.metrics import roc
from spai_lab.survey.measure import measure
from spai_lab.training import Adversarial, Recipe, train

HARDENED_FOR = (0.0, 0.1, 0.2, 0.3)
REPETITIONS = 3
MEMBERS = 500  # and as many others, of the same distribution
TESTED = 500  # images of the test part, for the accuracies
EPOCHS, STEPS, JUDGING_STEPS = 40, 5, 40
FALSE_ALARMS = 0.01


@dataclass(frozen=True)
class Hardened:
    """A LeNet trained on few images against PGD at one eps, or plainly at eps 0; judged by accuracy and by leaks.

    Args:
        data: "digits" or "mnist".
        eps: of the training, in L-inf.
        repetition: draws members, others and first weights; the same for each eps.

    Reference: Song, Shokri and Mittal 2019, arXiv 1905.10291: the loss on the image, and on the attacked image.
    """

    data: str
    eps: float
    repetition: int

    @property
    def key(self) -> dict:
        """Its fields, and what all of them share."""
        shared = {"members": MEMBERS, "epochs": EPOCHS, "steps": STEPS, "victim": "lenet"}
        return {"kind": "hardened", **asdict(self), **shared}

    def run(self, seed: int) -> dict:
        """Accuracies as hits and trials; of the loss as an attack, its area and what it catches at few false alarms."""
        generator = torch.Generator().manual_seed(1000 * seed + self.repetition)
        whole = load(self.data)
        members, others = two_groups(whole, generator)
        against = Adversarial(self.eps, STEPS, 2.5 * self.eps / STEPS) if self.eps else None
        recipe = Recipe("lenet", epochs=EPOCHS, batch_size=32, learning_rate=3e-3, perturb=against)
        model, _ = train(recipe, trained_on(whole, members), seed=self.repetition, progress=False)
        x, y = whole.x_test[:TESTED], whole.y_test[:TESTED]
        return {
            "right": {"members": counted(model, *members), "others": counted(model, *others)},
            "test": counted(model, x, y),
            "under attack": {f"{eps:g}": counted(model, attacked(model, x, y, eps), y) for eps in HARDENED_FOR[1:]},
            "leaks": {f"{eps:g}": leak(model, members, others, eps) for eps in sorted({0.0, self.eps})},
        }


@dataclass(frozen=True)
class Plain:
    """The strided network trained plainly on all of MNIST: what the robust models of its architecture stand beside.

    Args:
        data: "mnist".
    """

    data: str = "mnist"

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "plain", "victim": "strided", **asdict(self)}

    def run(self, seed: int) -> dict:
        """The accuracy on all test images."""
        whole = load(self.data)
        model, _ = train(Recipe("strided", learning_rate=3e-3), whole, seed=seed, progress=False)
        return {"test": counted(model, whole.x_test, whole.y_test)}


def two_groups(data: Dataset, generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    """Two disjoint random groups of the training part."""
    order = torch.randperm(len(data.x_train), generator=generator)[: 2 * MEMBERS]
    return [(data.x_train[group], data.y_train[group]) for group in order.split(MEMBERS)]


def trained_on(data: Dataset, members: tuple[Tensor, Tensor]) -> Dataset:
    """The data set with the members alone to train on."""
    x, y = members
    return replace(data, x_train=x, y_train=y)


def counted(model: nn.Module, x: Tensor, y: Tensor) -> list[int]:
    """How many the model gets right, of how many."""
    with torch.no_grad():
        return [int((model(x).argmax(1) == y).sum()), len(y)]


def attacked(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """The images under PGD, or as they are at eps 0."""
    seeded = torch.Generator().manual_seed(0)
    return pgd(model, x, y, eps=eps, steps=JUDGING_STEPS, generator=seeded) if eps else x


def leak(model: nn.Module, members: tuple[Tensor, Tensor], others: tuple[Tensor, Tensor], eps: float) -> dict:
    """How well the loss on the image, attacked within eps, tells members from others."""
    inside = torch.arange(2 * MEMBERS) < MEMBERS
    scores = torch.cat([confidence(model, attacked(model, x, y, eps), y) for x, y in (members, others)])
    limit = scores[~inside].sort(descending=True).values[int(FALSE_ALARMS * MEMBERS)]
    return {"area": roc(scores, inside).area, "caught": [int((scores[inside] > limit).sum()), MEMBERS]}


@torch.no_grad()
def confidence(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The log odds of the true class, which order inputs as the loss does, without its ties at 0."""
    logits = model(x).double()
    others = logits.scatter(1, y[:, None], -torch.inf)
    return logits.gather(1, y[:, None])[:, 0] - others.logsumexp(1)


def tension_jobs(name: str) -> Sequence[Hardened | Plain]:
    """All of it on one data set."""
    hardened = [Hardened(name, eps, repetition) for repetition in range(REPETITIONS) for eps in HARDENED_FOR]
    return [*hardened, *([Plain()] if name == "mnist" else [])]


def measure_tensions(name: str, *, seed: int = 0, fresh: bool = False, workers: int = 1) -> dict:
    """Measure it on "digits" or "mnist"; the arguments are those of `measure`."""
    return measure(f"tensions_{name}", tension_jobs(name), data=name, seed=seed, fresh=fresh, workers=workers)

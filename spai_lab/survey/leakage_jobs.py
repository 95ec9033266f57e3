"""What is measured of leakage from gradients: batches, and what a participant may do against it."""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spai_lab.attacks.privacy import gradient_leakage
from spai_lab.attacks.privacy.leakage import (
    Gradients,
    leak_network,
    leaked_labels,
    local_steps,
    matched,
    noised,
    shared_gradients,
    sparse,
)
from spai_lab.data import load
from spai_lab.metrics import accuracy_rate, psnr
from spai_lab.survey.measure import counted
from spai_lab.training import fit

INPUTS = 104  # images in all, a multiple of every batch size
STEPS = 300
RECOGNIZED = 20.0  # dB of PSNR from which an image counts as read
SMALLER = {"faces": 4}  # by how much pictures are made smaller, per side
NOISE = (1e-4, 1e-3, 1e-2, 1e-1)
PRUNED = (0.2, 0.5, 0.8, 0.95)
LOCAL = (2, 5, 20)
LOCAL_RATE = 0.1
PRIOR = 4.0  # weight of the total variation, by the variance of the noise; chosen on other images and another network
LEARNED = 1000  # images on which a network is trained first, where it is

Defense = Callable[[nn.Module, Tensor, Tensor, float, torch.Generator], Gradients]
DEFENSES: dict[str, Defense] = {
    "none": lambda model, x, y, strength, generator: shared_gradients(model, x, y),
    "noise": lambda model, x, y, strength, generator: noised(
        shared_gradients(model, x, y), strength, generator=generator
    ),
    "pruning": lambda model, x, y, strength, generator: sparse(shared_gradients(model, x, y), strength),
    "local steps": lambda model, x, y, strength, generator: local_steps(
        model, x, y, steps=int(strength), learning_rate=LOCAL_RATE
    ),
}


def pictures(name: str, count: int, seed: int) -> tuple[Tensor, Tensor, int]:
    """Training images, made smaller where they are large, their labels, and the number of classes."""
    data = load(name)
    chosen = torch.randperm(len(data.y_train), generator=torch.Generator().manual_seed(seed))[:count]
    x = data.x_train[chosen]
    x = F.avg_pool2d(x, SMALLER[name]) if name in SMALLER else x
    return x, data.y_train[chosen], data.num_classes


@dataclass(frozen=True)
class Leak:
    """An attack on many gradients of one untrained network.

    Args:
        data: name of the data set.
        labels: "optimized" (DLG) or "analytic" (iDLG).
        batch: inputs of a gradient.
        defense: one of `DEFENSES`.
        strength: of the defense: deviation of the noise, share that is pruned, local steps; 0 for none.
        adaptive: whether the attacker knows of the defense, and searches accordingly.
        epochs: of training before the gradient is shared; 0 for a network as it was drawn.
    """

    data: str
    labels: str
    batch: int = 1
    defense: str = "none"
    strength: float = 0.0
    adaptive: bool = False
    epochs: int = 0

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "leak", **asdict(self)}

    def run(self, seed: int) -> dict:
        """PSNR of each image in dB, images recognized, and labels found, hits and trials."""
        x, y, classes = pictures(self.data, INPUTS, seed)
        generator = torch.Generator().manual_seed(seed)
        model = leak_network(x.shape[1:], classes, generator=generator)
        right = None
        if self.epochs:
            data = load(self.data)
            settings = {"epochs": self.epochs, "learning_rate": 3e-3, "generator": generator, "progress": False}
            fit(model, data.x_train[:LEARNED], data.y_train[:LEARNED], **settings)
            right = counted(accuracy_rate(model.eval(), *data.sample(500, seed=seed)))
        x, y = x.unflatten(0, (-1, self.batch)), y.view(-1, self.batch)
        sent = DEFENSES[self.defense](model, x, y, self.strength, generator)
        knows, labels = {}, self.labels
        if self.adaptive and self.defense == "noise":
            knows, labels = {"prior": PRIOR * self.strength**2}, leaked_labels(sent, positive=True)[:, None]
        elif self.adaptive:
            knows = {"pruned": True} if self.defense == "pruning" else {"local": (int(self.strength), LOCAL_RATE)}
        leaked = gradient_leakage(
            model,
            sent,
            **knows,
            shape=x.shape[2:],
            batch=self.batch,
            labels=labels,
            steps=STEPS,
            generator=generator,
            progress=False,
        )
        near, named = matched(leaked, x, y)
        return {
            "psnr": [round(value, 1) for value in near.flatten().tolist()],
            "recognized": [int((near >= RECOGNIZED).sum()), near.numel()],
            "labels_found": [int(named.sum()), named.numel()],
            "blank": round(psnr(x.flatten(0, 1), torch.zeros_like(x.flatten(0, 1))).mean().item(), 1),
            **({} if right is None else {"accuracy": right}),
        }


@dataclass(frozen=True)
class LabelsLeak:
    """How often the sign of the last layer's gradient names the label, over a thousand images, or all that there are.

    Args:
        data: name of the data set.
    """

    data: str

    @property
    def key(self) -> dict:
        """Its field."""
        return {"kind": "labels", **asdict(self)}

    def run(self, seed: int) -> dict:
        """Labels found, hits and trials."""
        x, y, classes = pictures(self.data, 1000, seed)
        model = leak_network(x.shape[1:], classes, generator=torch.Generator().manual_seed(seed))
        sent = [
            shared_gradients(model, part[:, None], of[:, None])
            for part, of in zip(x.split(100), y.split(100), strict=True)
        ]
        found = torch.cat([leaked_labels(gradients) for gradients in sent])
        return {"labels_found": [int((found == y).sum()), len(y)]}


def leakage_jobs(name: str) -> tuple[Leak | LabelsLeak, ...]:
    """Both attacks on single images, DLG on batches, and iDLG against each defense."""
    if name == "faces":
        singles = (Leak(name, labels) for labels in ("optimized", "analytic"))
        return (*singles, *(Leak(name, "optimized", batch) for batch in (2, 4, 8)), LabelsLeak(name))
    return (
        *(Leak(name, labels) for labels in ("optimized", "analytic")),
        *(Leak(name, "optimized", batch) for batch in (2, 4, 8)),
        *(Leak(name, "analytic", 1, "noise", sigma) for sigma in NOISE),
        *(Leak(name, "analytic", 1, "pruning", share) for share in PRUNED),
        *(Leak(name, "analytic", 1, "local steps", float(steps)) for steps in LOCAL),
        *(Leak(name, "analytic", 1, "noise", sigma, adaptive=True) for sigma in NOISE),
        *(Leak(name, "analytic", 1, "pruning", share, adaptive=True) for share in PRUNED),
        *(Leak(name, "analytic", 1, "local steps", float(steps), adaptive=True) for steps in LOCAL[:2]),
        *(Leak(name, "analytic", epochs=epochs) for epochs in (1, 10)),
        LabelsLeak(name),
    )

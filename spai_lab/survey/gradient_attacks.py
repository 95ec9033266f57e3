"""The accuracy that one-step and iterated attacks leave on all of MNIST's test images, beside what others published."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from spai_lab.attacks.evasion import fgsm, pgd
from spai_lab.data import load
from spai_lab.metrics import Rate, accuracy_rate
from spai_lab.models import lenet, madry
from spai_lab.survey.ledger import Comparison, published
from spai_lab.survey.measure import measure, row_of
from spai_lab.training import reference

BY_NAME: dict[str, Callable[..., Tensor] | None] = {"none": None, "fgsm": fgsm, "pgd": pgd}


@dataclass(frozen=True)
class AccuracyLeft:
    """One row to measure: a model, an attack with its radius and steps, and how many test images."""

    model: str
    attack: str
    eps: float = 0.0
    steps: int = 0
    images: int = 10_000

    @property
    def key(self) -> dict:
        """Its fields."""
        return asdict(self)

    def run(self, seed: int) -> dict:
        """The images read rightly under the attack: `hits` of `trials`."""
        data = load("mnist")
        x, y = data.x_test[: self.images], data.y_test[: self.images]
        rate = accuracy_left(reference(self.model, data), x, y, self, seed)
        return {"hits": rate.hits, "trials": rate.trials}


JOBS = (
    AccuracyLeft("softmax", "none"),
    AccuracyLeft("softmax", "fgsm", eps=0.25),
    *(AccuracyLeft(model, "none") for model in ("lenet", "lenet-robust")),
    *(AccuracyLeft(model, "fgsm", eps=eps) for model in ("lenet", "lenet-robust") for eps in (0.1, 0.2, 0.3)),
    *(AccuracyLeft(model, "pgd", eps=eps, steps=40) for model in ("lenet", "lenet-robust") for eps in (0.1, 0.2, 0.3)),
)


def measure_gradient_attacks(*, seed: int = 0, fresh: bool = False, file: Path | None = None) -> dict:
    """Measure all of it; the arguments are those of `measure`."""
    return measure("gradient_attacks", JOBS, sorted({job.model for job in JOBS}), seed=seed, fresh=fresh, file=file)


def accuracy_left(model: nn.Module, x: Tensor, y: Tensor, job: AccuracyLeft, seed: int) -> Rate:
    """The accuracy that a job's attack leaves, attacked and counted a thousand images at a time."""
    attack = BY_NAME[job.attack]
    if attack is None:
        return accuracy_rate(model, x, y)
    generator = torch.Generator().manual_seed(seed)
    arguments = {"steps": job.steps} if job.steps else {}
    parts = [
        attack(model, *part, eps=job.eps, generator=generator, **arguments)
        for part in zip(x.split(1000), y.split(1000), strict=True)
    ]
    return accuracy_rate(model, torch.cat(parts), y)


def measured_rate(measurement: dict, **key: object) -> Rate:
    """The rate of the one row that fits; arguments and errors as in `row_of`."""
    row = row_of(measurement, **key)
    return Rate(row["hits"], row["trials"])


def attack_table(measurement: dict) -> str:
    """The measured rows as a Markdown table: accuracy left for each model and attack, with its interval.

    Args:
        measurement: as `measure` returns it.
    Returns:
        Markdown.
    """
    lines = ["| model | attack | eps | accuracy left | 95 % interval | n |", "|---|---|---:|---:|---:|---:|"]
    for row in measurement["rows"]:
        attack = f"{row['attack']}-{row['steps']}" if row["steps"] else row["attack"]
        eps = f"{row['eps']:g}" if row["eps"] else "–"
        rate = Rate(row["hits"], row["trials"])
        low, high = (f"{100 * end:.1f}" for end in rate.interval)
        left = f"{100 * rate.value:.1f} %"
        lines.append(f"| {row['model']} | {attack} | {eps} | {left} | {low} to {high} | {rate.trials:,} |")
    return "\n".join(lines)


def gradient_attacks_compared(measurement: dict) -> list[Comparison]:
    """The published figures for one-step attacks and undefended models, each beside the row measured for it."""
    ledger = published()
    sizes = [sum(p.numel() for p in victim().parameters()) for victim in (lenet, madry)]
    smaller = "our network has {:,} parameters, theirs {:,}".format(*sizes)
    rows = {
        "fgsm-softmax": ({"model": "softmax", "attack": "fgsm", "eps": 0.25}, "softmax regression", ""),
        "fgsm-undefended": ({"model": "lenet", "attack": "fgsm", "eps": 0.3}, "LeNet-size network", smaller),
        "natural-undefended": ({"model": "lenet", "attack": "none"}, "LeNet-size network", smaller),
        "defense-gan-undefended": (
            {"model": "lenet", "attack": "fgsm", "eps": 0.3},
            "LeNet-size network",
            "another network",
        ),
    }
    return [
        compare_rate(ledger[name], measured_rate(measurement, **key), ours, differs)
        for name, (key, ours, differs) in rows.items()
    ]


def compare_rate(figure: dict, left: Rate, ours: str, differs: str = "") -> Comparison:
    """A rate of accuracy beside a published figure, turned into an error rate where that is what was published."""
    value, (low, high) = left.value, left.interval
    if figure["metric"].startswith("error"):
        value, low, high = 1 - value, 1 - high, 1 - low
    return Comparison(figure, value, left.trials, (low, high), ours, differs)

"""What is measured of the evasion attacks: each in its setting, on MNIST test images that the victim reads rightly."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor, nn

from spai_lab.attacks.evasion import (
    advgan,
    auto_attack,
    bim,
    boundary,
    bpda,
    carlini_wagner,
    deepfool,
    eot,
    fgsm,
    flow_field,
    hop_skip_jump,
    jsma,
    lbfgs,
    mim,
    nes,
    one_pixel,
    patch,
    pgd,
    spatial,
    square,
    substitute,
    transfer,
    universal_perturbation,
    zoo,
)
from spai_lab.attacks.evasion.patch import paste, random_placement
from spai_lab.checks import SuspiciousResult
from spai_lab.data import Dataset, load
from spai_lab.models import lenet
from spai_lab.query import Query
from spai_lab.survey.taxonomy import load_taxonomy
from spai_lab.threat import fooled, norms
from spai_lab.training import reference

EPS = 0.2
MODELS = ("lenet", "mlp", "softmax")

Attempt = Callable[[nn.Module, Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor | None]]
"""From the victim, images, labels and a generator to `x_adv` and the queries that each image cost, if it is asked."""


@dataclass(frozen=True)
class Attacked:
    """One row to measure: an attack in one setting.

    Args:
        attack: its id in the taxonomy.
        setting: in words.
        attempt: makes the adversarial images.
        norm: of the distortion; None where no norm says how far the image was changed.
        victim: a reference model.
        defense: what the victim wears, one of `DEFENSES`; its images are those that it reads rightly without.
        first, images: which of these images, counted in the order of `Dataset.sample`.
        every_target: aim at each of the nine wrong classes in turn; else at any.
    """

    attack: str
    setting: str
    attempt: Attempt = field(repr=False, compare=False)
    norm: str | None = "linf"
    victim: str = "lenet"
    defense: str = "none"
    first: int = 0
    images: int = 100
    every_target: bool = False

    @property
    def key(self) -> dict:
        """Its fields, but for the attempt."""
        return {part.name: getattr(self, part.name) for part in fields(self) if part.compare}

    def run(self, seed: int) -> dict:
        """The attack's knowledge, success, distortions (None for a failure), and queries a victim image.

        `lengths` are the norms of the clean images. Nine targets are nine neighbors in each list.
        """
        data = load("mnist")
        network = reference(self.victim, data)
        x, y = rightly_read(network, data, self.first, self.images, seed)
        if self.every_target:
            x, y = x.repeat_interleave(9, 0), ((y[:, None] + torch.arange(1, 10)) % 10).flatten()
        model = DEFENSES[self.defense](network)
        x_adv, queries = self.attempt(model, x, y, torch.Generator().manual_seed(seed))
        hit = fooled(model, x_adv, y, targeted=self.every_target)
        measured = {"knowledge": knowledge(self.attack), "hits": int(hit.sum()), "trials": len(hit)}
        if self.norm is not None:
            far, lengths = norms(x_adv - x, self.norm).masked_fill(~hit, math.inf), norms(x, self.norm)
            measured |= {"distortions": rounded(far), "lengths": rounded(lengths)}
        return measured | {"queries": None if queries is None else queries.double().median().item()}


def knowledge(attack: str) -> str:
    """What an attack reads of its victim, as the taxonomy says.

    >>> knowledge("boundary")
    'black-box'
    """
    return next(row.access for row in load_taxonomy() if row.id == attack)


def rightly_read(model: nn.Module, data: Dataset, first: int, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Test images in the order of `data.sample` that the model reads rightly: `count` of them, behind the `first`."""
    x, y = data.sample(2 * (first + count), seed=seed)
    right = ~fooled(model, x, y)
    return x[right][first : first + count], y[right][first : first + count]


def rounded(numbers: Tensor) -> list[float | None]:
    """As JSON can hold them: five digits, None for infinity."""
    return [round(number, 5) if math.isfinite(number) else None for number in numbers.tolist()]


def knowing(attack: Callable[..., Tensor], **arguments: object) -> Attempt:
    """The attempt of an attack that sees all of the model."""

    def attempt(model, x, y, generator):
        return attack(model, x, y, generator=generator, **arguments), None

    return attempt


def asking(attack: Callable[..., Tensor], reveals: str, **arguments: object) -> Attempt:
    """The attempt of an attack that asks a model which reveals no more than it is said to."""

    def attempt(model, x, y, generator):
        query = Query(model, reveals)
        return attack(query, x, y, generator=generator, **arguments), query.counts

    return attempt


def in_parts(attempt: Attempt, size: int) -> Attempt:
    """The same attempt, so many images at a time: what fits into the processor's cache is computed faster."""

    def attempt_part(model, x, y, generator):
        parts = [attempt(model, *part, generator) for part in zip(x.split(size), y.split(size), strict=True)]
        made, queries = zip(*parts, strict=True)
        return torch.cat(made), None if queries[0] is None else torch.cat(queries)

    return attempt_part


def with_one_perturbation(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, None]:
    """Learned from 500 training images, added to every image."""
    v = universal_perturbation(model, load("mnist").x_train[:500], eps=EPS, generator=generator)
    return (x + v).clamp(0, 1), None


def with_a_generator(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, None]:
    """Trained on 2,000 training images, run once on every image."""
    data = load("mnist")
    network = advgan(model, data.x_train[:2000], data.y_train[:2000], eps=EPS, generator=generator, progress=False)
    return network(x), None


def with_a_patch(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, None]:
    """Learned from 1,000 training images, stuck somewhere on every image."""
    learned = patch(model, load("mnist").x_train[:1000], target=8, size=9, generator=generator)
    return paste(x, learned, *random_placement(x, 9, generator=generator)), None


def from_other_models(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Made on two models of the attacker's own; the victim is not asked."""
    surrogates = [reference(name, load("mnist")) for name in ("mlp", "softmax")]
    return transfer(surrogates, x, y, eps=EPS), torch.zeros(len(x))


def from_a_substitute(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Made on a network trained on the victim's labels; what that cost is shared among the images."""
    query = Query(model, "labels")
    copied = substitute(query, load("mnist").x_val[:150], model=lenet(generator=generator), generator=generator)
    return pgd(copied, x, y, eps=EPS, generator=generator), torch.full((len(x),), query.total / len(x))


def plainly(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, None]:
    """PGD as if there were no defense; its warning that there is one is expected here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SuspiciousResult)
        return pgd(model, x, y, eps=EPS, generator=generator), None


def past_rounding(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, None]:
    """PGD through BPDA: the rounding forward, the identity backward."""
    levels, network = model
    return plainly(nn.Sequential(bpda(levels), network), x, y, generator)


def past_noise(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, None]:
    """PGD on the mean over 16 looks."""
    return plainly(eot(model, 16), x, y, generator)


class Levels(nn.Module):
    """Round each pixel to one of `count` gray levels; the gradient is 0 almost everywhere.

    >>> Levels(4)(torch.tensor([0.1, 0.2, 0.9]))
    tensor([0.0000, 0.3333, 1.0000])
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.steps = count - 1

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.steps).round() / self.steps


class Noise(nn.Module):
    """Add Gaussian noise, drawn anew at every look."""

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma, self.generator = sigma, torch.Generator().manual_seed(0)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.sigma * torch.randn(x.shape, generator=self.generator)


DEFENSES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "none": lambda network: network,
    "pixels rounded to 4 levels": lambda network: nn.Sequential(Levels(4), network),
    "Gaussian noise of 0.5 inside": lambda network: nn.Sequential(Noise(0.5), network),
}

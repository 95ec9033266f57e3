"""What is measured of the evasion attacks: each in its setting, on MNIST test images that the victim reads rightly."""

import math
import time
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
from spai_lab.checks import unsuspecting
from spai_lab.data import Dataset, load
from spai_lab.models import lenet
from spai_lab.query import Query
from spai_lab.survey.taxonomy import load_taxonomy
from spai_lab.threat import fooled, norms
from spai_lab.training import reference

EPS = 0.2
MODELS = ("lenet", "mlp", "softmax")

# From the victim, images, labels and a generator to `x_adv` and the queries that each image cost, if any are asked.
Attempt = Callable[[nn.Module, Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor | None]]


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
        """The attack's knowledge, success, distortions (None for a failure), queries a victim image, processor time.

        `lengths` are the norms of the clean images. Nine targets are nine neighbors in each list. The time is that of
        the attack alone, and does not count what else the machine was busy with.
        """
        data = load("mnist")
        network = reference(self.victim, data)
        x, y = rightly_read(network, data, self.first, self.images, seed)
        if self.every_target:
            x, y = x.repeat_interleave(9, 0), ((y[:, None] + torch.arange(1, 10)) % 10).flatten()
        model = DEFENSES[self.defense](network)
        start = time.process_time()
        x_adv, queries = self.attempt(model, x, y, torch.Generator().manual_seed(seed))
        spent = round(time.process_time() - start, 2)
        hit = fooled(model, x_adv, y, targeted=self.every_target)
        measured = {"knowledge": knowledge(self.attack), "hits": int(hit.sum()), "trials": len(hit)}
        if self.norm is not None:
            far, lengths = norms(x_adv - x, self.norm).masked_fill(~hit, math.inf), norms(x, self.norm)
            measured |= {"distortions": rounded(far), "lengths": rounded(lengths)}
        queries = None if queries is None else queries.double().median().item()
        return measured | {"queries": queries, "processor_seconds": spent}


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


def asking(attack: Callable[..., Tensor], reveals: str, *, cap: int | None = None, **arguments: object) -> Attempt:
    """The attempt of an attack that asks a model which reveals, and answers, no more than it is said to."""

    def attempt(model, x, y, generator):
        query = Query(model, reveals, cap=cap)
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
    learned = patch(model, load("mnist").x_train[:1000], target=8, size=11, generator=generator)
    return paste(x, learned, *random_placement(x, 11, generator=generator)), None


def from_other_models(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Made on two models of the attacker's own; the victim is not asked."""
    surrogates = [reference(name, load("mnist")) for name in ("mlp", "softmax")]
    return transfer(surrogates, x, y, eps=EPS), torch.zeros(len(x))


def from_a_substitute(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Made on a network trained on the victim's labels; what that cost is shared among the images."""
    query = Query(model, "labels")
    seeds = load("mnist").x_val[:300]
    copied = substitute(query, seeds, model=lenet(generator=generator), learning_rate=3e-3, generator=generator)
    return pgd(copied, x, y, eps=EPS, generator=generator), torch.full((len(x),), query.total / len(x))


def plainly(
    model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator, *, eps: float = EPS, steps: int = 40
) -> tuple[Tensor, None]:
    """PGD as if there were no defense; its warning that there is one is expected here."""
    with unsuspecting():
        return pgd(model, x, y, eps=eps, steps=steps, generator=generator), None


def past_rounding(
    model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator, **settings: float
) -> tuple[Tensor, None]:
    """PGD through BPDA: the rounding forward, the identity backward."""
    levels, network = model
    return plainly(nn.Sequential(bpda(levels), network), x, y, generator, **settings)


def past_noise(
    model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator, *, looks: int = 16, **settings: float
) -> tuple[Tensor, None]:
    """PGD on the mean over some looks."""
    return plainly(eot(model, looks), x, y, generator, **settings)


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
    "Gaussian noise of 0.3 inside": lambda network: nn.Sequential(Noise(0.3), network),
}

BALL = f"eps {EPS:g}"

SUMMARY = (
    Attacked("fgsm", BALL, knowing(fgsm, eps=EPS)),
    Attacked("bim", f"{BALL}, 10 steps", knowing(bim, eps=EPS)),
    Attacked("mim", f"{BALL}, 10 steps", knowing(mim, eps=EPS)),
    Attacked("pgd", f"{BALL}, 40 steps", knowing(pgd, eps=EPS)),
    Attacked("auto_attack", BALL, knowing(auto_attack, eps=EPS)),
    Attacked("deepfool", "L2", knowing(deepfool), norm="l2"),
    Attacked("jsma", "any class", knowing(jsma), norm="l0"),
    Attacked("lbfgs", "any class", knowing(lbfgs), norm="l2"),
    Attacked("universal_perturbation", f"{BALL}, learned from 500 images", with_one_perturbation),
    Attacked("advgan", f"{BALL}, trained on 2,000 images", with_a_generator),
    Attacked("patch", "11 pixels wide, for the class 8, anywhere", with_a_patch, norm=None),
    Attacked("spatial", "30 degrees, 3 pixels, grid of 775", asking(spatial, "scores"), norm=None),
    Attacked("spatial", "flow field", knowing(flow_field), norm=None),
    Attacked("bpda", f"PGD past rounding, {BALL}", past_rounding, defense="pixels rounded to 4 levels"),
    Attacked("bpda", f"PGD without it, {BALL}", plainly, defense="pixels rounded to 4 levels"),
    Attacked("eot", f"PGD past noise, 16 looks a step, {BALL}", past_noise, defense="Gaussian noise of 0.3 inside"),
    Attacked("eot", f"PGD without it, {BALL}", plainly, defense="Gaussian noise of 0.3 inside"),
    Attacked("transfer", f"{BALL}, 10 steps, from an MLP and softmax regression", from_other_models),
    Attacked("substitute", f"{BALL}, PGD on a LeNet trained from 300 images", from_a_substitute),
    Attacked("square", f"{BALL}, at most 5,000 queries", asking(square, "scores", eps=EPS)),
    Attacked("nes", f"{BALL}, at most 100 steps of 51 queries", asking(nes, "scores", eps=EPS)),
    Attacked("one_pixel", "5 pixels", asking(one_pixel, "scores", pixels=5), norm="l0", images=30),
    Attacked("boundary", "10,000 steps", asking(boundary, "labels"), norm="l2"),
    Attacked("hop_skip_jump", "L2, 30 steps", asking(hop_skip_jump, "labels", steps=30), norm="l2"),
    Attacked(
        "zoo",
        "1 search of 300 steps, c 10",
        asking(zoo, "scores", searches=1, steps=300, initial_c=10.0),
        norm="l2",
        images=20,
    ),
    Attacked("carlini_wagner", "L2, 9 searches of 1,000 steps", knowing(carlini_wagner), norm="l2"),
)

JSMA = {
    output: (
        Attacked(
            "jsma",
            f"every target, gamma 0.145, theta 1, F the {output}",
            in_parts(knowing(jsma, gamma=0.145, theta=1.0, output=output, targeted=True), 90),
            norm="l0",
            every_target=True,
        ),
    )
    for output in ("probabilities", "logits")
}
DEEPFOOL = {
    victim: (Attacked("deepfool", "L2", in_parts(knowing(deepfool), 100), norm="l2", victim=victim, images=1000),)
    for victim in ("lenet", "mlp")
}
CARLINI_WAGNER = tuple(
    Attacked(
        "carlini_wagner",
        "L2, every target, 9 searches of 1,000 steps",
        knowing(carlini_wagner, targeted=True),
        norm="l2",
        first=first,
        images=10,
        every_target=True,
    )
    for first in range(0, 100, 10)
)
ZOO = tuple(
    Attacked("zoo", "9 searches of 3,000 steps", asking(zoo, "scores"), norm="l2", first=first, images=3)
    for first in range(0, 30, 3)
)

# The cheap ones first, the slow ones by turns: an interrupted run has some of each.
SLOW = tuple(job for pair in zip(ZOO, CARLINI_WAGNER, strict=True) for job in pair)
JOBS = (*JSMA["probabilities"], *JSMA["logits"], *DEEPFOOL["lenet"], *DEEPFOOL["mlp"], *SUMMARY, *SLOW)

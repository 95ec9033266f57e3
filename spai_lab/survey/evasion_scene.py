"""What the survey's rows of evasion share: a victim, images that it reads rightly, and how an attack on it is judged.

On the digits half of MNIST's L-inf radius is enough: enlarged from 8 by 8 pixels, they are fooled sooner, and at 0.2
gradients fool nearly all validation images. What is reached at either radius is among the details.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spai_lab.data import Dataset, load
from spai_lab.metrics import Rate, median_of
from spai_lab.survey.defense_models import seeded
from spai_lab.survey.evasion_jobs import Attempt, rightly_read
from spai_lab.survey.headline import DATA_NAMES, Headline
from spai_lab.survey.measure import counted
from spai_lab.threat import fooled, norms
from spai_lab.training import reference

IMAGES = 64
RADII = (0.1, 0.2)  # in L-inf
HEADLINE = {"digits": 0.1, "mnist": 0.2}  # the one that the headline is of
NEAR = {"l2": 1.5, "l0": 31.0}  # what counts as near: L2, and the 4 % of the pixels that JSMA's paper reports
UNITS = {"l2": "L2", "l0": "pixels"}
NAMES = {"linf": "L-inf", "l2": "L2", "l0": "L0"}
ROUNDING = 1e-6
SUCCESS = "success rate"

Aimed = Callable[[float], Attempt]  # from eps to the attempt


@dataclass(frozen=True, eq=False)
class Scene:
    """A victim, and images that it reads rightly.

    Args:
        name: of the data set.
        victim: the reference LeNet.
        x, y: test images and their labels, which only judge.
        seed: of everything random.
    """

    name: str
    victim: nn.Module
    x: Tensor
    y: Tensor
    seed: int

    @property
    def data(self) -> Dataset:
        """Where an attacker's own images come from."""
        return load(self.name)

    @property
    def eps(self) -> float:
        """The L-inf radius of its headlines, one of `RADII`."""
        return HEADLINE[self.name]

    def setup(self, *parts: str) -> str:
        """In words, with those of what else is set.

        >>> scene(0, images=1).setup("scores")
        'LeNet, digits, scores'
        """
        return ", ".join(part for part in ("LeNet", DATA_NAMES[self.name], *parts) if part)


def scene(seed: int, *, name: str = "digits", images: int = IMAGES) -> Scene:
    """The reference LeNet of a data set, with test images in an order that the seed draws."""
    data = load(name)
    victim = reference("lenet", data)
    return Scene(name, victim, *rightly_read(victim, data, 0, images, seed), seed)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What an attempt came to.

    Args:
        x_adv: the images that it made.
        hit: which of them the victim misreads, bool `(N,)`.
        queries: what each image cost, `(N,)`; None where the victim is not asked.
        seconds: of one processor, for all of it.
    """

    x_adv: Tensor
    hit: Tensor
    queries: Tensor | None
    seconds: float

    @property
    def cost(self) -> dict[str, float]:
        """Processor time, and the median and largest number of queries an image, as details of a headline."""
        told = {"processor_seconds": round(self.seconds, 2)}
        if self.queries is not None:
            told |= {"queries": self.queries.double().median().item(), "most_queries": self.queries.max().item()}
        return told


def attempted(here: Scene, attempt: Attempt, *, victim: nn.Module | None = None, looks: int = 1) -> Outcome:
    """Run an attempt and let the victim judge it.

    Args:
        here: the images, and the victim unless another is given.
        attempt: makes the adversarial images.
        victim: a defended one.
        looks: how often a random victim sees each image; most of the looks decide.
    """
    victim = here.victim if victim is None else victim
    start = time.process_time()
    x_adv, queries = attempt(victim, here.x, here.y, seeded(here.seed))
    spent = time.process_time() - start
    x_adv = x_adv.detach()
    misread = torch.stack([fooled(victim, x_adv, here.y) for _ in range(looks)])
    return Outcome(x_adv, misread.double().mean(0) > 0.5, queries, spent)


def distances(here: Scene, outcome: Outcome, norm: str) -> Tensor:
    """How far each image was moved, `(N,)`; infinitely far where the attempt failed."""
    return norms(outcome.x_adv - here.x, norm).masked_fill(~outcome.hit, math.inf)


def share_within(far: Tensor, eps: float) -> Rate:
    """How many images were moved no farther, rounding allowed."""
    return Rate(int((far <= eps + ROUNDING).sum()), len(far))


def within_radii(
    here: Scene,
    aimed: Aimed,
    *,
    budget: str,
    setup: str = "",
    beside: Mapping[str, Aimed] | None = None,
    victim: nn.Module | None = None,
    looks: int = 1,
    learned: float = 0.0,
    details: dict | None = None,
) -> Headline:
    """The headline of an attack in an L-inf ball: the share of images that it fools without leaving the ball.

    Args:
        here: victim and images.
        aimed: from a radius to the attempt.
        budget: what is spent, in words.
        setup: what the victim wears or what else is set, in words.
        beside: other attempts on the same victim, by name, whose success goes into the details.
        victim, looks: as in `attempted`.
        learned: processor seconds that were spent before.
        details: more of them.
    Returns:
        the success at the scene's radius; at all of `RADII` among the details, with random signs of the same size.
    """

    def outcomes(of: Aimed) -> list[Outcome]:
        return [attempted(here, of(eps), victim=victim, looks=looks) for eps in RADII]

    def rates(found: list[Outcome]) -> list[Rate]:
        pairs = zip(found, RADII, strict=True)
        return [share_within(distances(here, outcome, "linf"), eps) for outcome, eps in pairs]

    found, main = outcomes(aimed), RADII.index(here.eps)
    at = rates(found)
    others = {name: told(rates(outcomes(of))) for name, of in {"random signs": random_signs, **(beside or {})}.items()}
    cost = found[main].cost
    cost["processor_seconds"] = round(cost["processor_seconds"] + learned, 2)
    told_of = {"norm": "linf", "eps": here.eps, "at": told(at), **others, **cost, **(details or {})}
    words = here.setup(setup, f"L-inf eps {here.eps:g}")
    return Headline.of_rate(SUCCESS, at[main], setup=words, budget=budget, better="higher", details=told_of)


def told(rates: list[Rate]) -> dict[str, list[int]]:
    """By radius, hits and trials."""
    return {f"{eps:g}": counted(rate) for eps, rate in zip(RADII, rates, strict=True)}


def random_signs(eps: float) -> Attempt:
    """No attack at all: every pixel brighter or darker by eps, as a coin says."""

    def attempt(model, x, y, generator):
        return (x + eps * (2 * torch.randint(0, 2, x.shape, generator=generator) - 1)).clamp(0, 1), None

    return attempt


def least(here: Scene, attempt: Attempt, norm: str, budget: str) -> Headline:
    """The headline of an attack that seeks the least distortion."""
    outcome = attempted(here, attempt)
    setup = here.setup(NAMES[norm], "any class")
    return median_headline(distances(here, outcome, norm), norm, setup=setup, budget=budget, details=outcome.cost)


def near_for(here: Scene, attempt: Attempt, cap: int, level: str) -> Headline:
    """The headline of a black-box attack that seeks the least L2 distortion.

    Args:
        here: victim and images.
        attempt: asks no more than `cap` times for each image.
        cap: the queries.
        level: what the victim reveals.
    """
    outcome = attempted(here, attempt)
    details = {"cap": cap, **outcome.cost}
    budget = f"{cap:,} queries an image"
    return nearness_headline(distances(here, outcome, "l2"), setup=here.setup(level), budget=budget, details=details)


def median_headline(far: Tensor, norm: str, *, setup: str, budget: str, details: dict) -> Headline:
    """The headline of a median distortion.

    Args:
        far: of each image, `(N,)`; infinite for a failure.
        norm: "l2" or "l0".
        setup, budget, details: as in `Headline`; how many images were fooled, and how many nearby, is added.
    """
    median = median_of(far.tolist())
    interval = (median.low, median.high) if math.isfinite(median.high) else None
    told_of = {**nearness(far, norm), **details}
    words = ("median distortion", median.value, UNITS[norm], len(far), interval)
    return Headline(*words, setup, budget, "lower", told_of)


def nearness_headline(far: Tensor, *, setup: str, budget: str, details: dict) -> Headline:
    """The headline of how many images are fooled within `NEAR`, in L2; the arguments are those of `median_headline`."""
    median = median_of(far.tolist()).value
    told_of = {**nearness(far, "l2"), "median distortion": median if math.isfinite(median) else None, **details}
    words = f"{setup}, within L2 {NEAR['l2']:g}"
    within = share_within(far, NEAR["l2"])
    return Headline.of_rate(SUCCESS, within, setup=words, budget=budget, better="higher", details=told_of)


def nearness(far: Tensor, norm: str) -> dict:
    """How many images were fooled, at any distance and within the radius that counts as near."""
    success = [int(far.isfinite().sum()), len(far)]
    return {"norm": norm, "success": success, "eps": NEAR[norm], "within": counted(share_within(far, NEAR[norm]))}

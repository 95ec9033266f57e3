"""How near each black-box attack comes for how many queries: measured on MNIST, drawn by chapter 04."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from spai_lab.attacks.evasion import boundary, carlini_wagner, hop_skip_jump, nes, one_pixel, square, zoo
from spai_lab.data import load
from spai_lab.metrics import Median, distortion_by_queries, distortions
from spai_lab.query import Query, answered
from spai_lab.survey.evasion_jobs import rightly_read
from spai_lab.survey.measure import measure, row_of
from spai_lab.training import reference

IMAGES = 20
CAPS = (300, 1000, 3000, 10_000)
RADII = (6.0, 4.0, 2.5, 1.5)
LOOKS = 50
Route = Callable[..., Tensor]


def at_radii(
    query: Query, x: Tensor, y: Tensor, *, attack: Callable[..., Tensor], generator: torch.Generator
) -> Tensor:
    """What an attack within an L2 ball needs: tried at each of `RADII`, with an equal share of the queries.

    Args:
        query: capped; one query of each share is spent to see whether the attack succeeded.
        x: clean images `(N, C, H, W)` in [0, 1].
        y: labels `(N,)`.
        attack: `(query, x, y, eps, queries, generator) -> x_adv`.
        generator: of the attack.
    Returns:
        of each image the nearest that fooled the model, or the image itself.
    """
    nearest, share = x.clone(), query.cap // len(RADII)
    for eps in RADII:
        x_adv = attack(query, x, y, eps=eps, queries=share - 1, generator=generator)
        hit = answered(query, x_adv) != y
        nearest[hit] = x_adv[hit]
    return nearest


def square_l2(query: Query, x: Tensor, y: Tensor, *, eps: float, queries: int, generator: torch.Generator) -> Tensor:
    """Square in L2."""
    return square(query, x, y, eps=eps, norm="l2", queries=queries, generator=generator)


def nes_l2(query: Query, x: Tensor, y: Tensor, *, eps: float, queries: int, generator: torch.Generator) -> Tensor:
    """NES in L2, as many steps as its queries allow."""
    steps = (queries - 1) // (LOOKS + 1)
    return nes(query, x, y, eps=eps, norm="l2", steps=steps, samples=LOOKS, generator=generator) if steps else x


@dataclass(frozen=True)
class Curve:
    """One attack at each of its caps.

    Args:
        attack: its name in the figure.
        reveals: what it may see.
        route: `(query, x, y, generator=...) -> x_adv`.
        caps: queries that an image may cost.
        images: how many.
    """

    attack: str
    reveals: str
    route: Route = field(repr=False, compare=False)
    caps: tuple[int, ...] = CAPS
    images: int = IMAGES

    @property
    def key(self) -> dict:
        """Its fields, but for the route."""
        return {part.name: getattr(self, part.name) for part in fields(self) if part.compare} | {"caps": [*self.caps]}

    def run(self, seed: int) -> dict:
        """By cap the median L2 distortion with its interval; infinity is None."""
        data = load("mnist")
        victim = reference("lenet", data)
        x, y = rightly_read(victim, data, 0, self.images, seed)
        route = partial(self.route, generator=torch.Generator().manual_seed(seed))
        medians = distortion_by_queries(victim, x, y, {"it": route}, caps=self.caps, reveals=self.reveals)["it"]
        return {"medians": [[finite(end) for end in medians[cap]] for cap in self.caps]}


@dataclass(frozen=True)
class WhiteBox:
    """What C&W needs on the same images, with the gradient."""

    images: int = IMAGES

    @property
    def key(self) -> dict:
        """Its name and the number of images."""
        return {"attack": "C&W, white-box", "images": self.images}

    def run(self, seed: int) -> dict:
        """The median L2 distortion."""
        data = load("mnist")
        victim = reference("lenet", data)
        x, y = rightly_read(victim, data, 0, self.images, seed)
        return {"median": finite(distortions(victim, x, carlini_wagner(victim, x, y), y).median().item())}


def finite(number: float) -> float | None:
    """As JSON can hold it: five digits, None for infinity."""
    return round(number, 5) if math.isfinite(number) else None


JOBS = (
    Curve("HopSkipJump (labels)", "labels", hop_skip_jump),
    Curve("boundary (labels)", "labels", boundary),
    Curve("Square in L2 (scores)", "scores", partial(at_radii, attack=square_l2)),
    Curve("NES in L2 (scores)", "scores", partial(at_radii, attack=nes_l2)),
    Curve("five pixels (scores)", "scores", partial(one_pixel, pixels=5), caps=CAPS[1:]),
    WhiteBox(),
    Curve("ZOO (scores)", "scores", partial(zoo, searches=1, initial_c=10.0), caps=(*CAPS, 30_000, 100_000)),
)


def measure_query_curves(*, seed: int = 0, fresh: bool = False, file: Path | None = None) -> dict:
    """Measure all of it; the arguments are those of `measure`."""
    return measure("query_curves", JOBS, ("lenet",), seed=seed, fresh=fresh, file=file)


def measured_curves(measurement: dict) -> tuple[dict[str, dict[int, Median]], float]:
    """The curves as `figures.queries_curves` draws them, and what the white-box attacker needs.

    Args:
        measurement: as `measure_query_curves` returns it.
    """
    curves = {
        row["attack"]: {
            cap: Median(*(math.inf if end is None else end for end in ends))
            for cap, ends in zip(row["caps"], row["medians"], strict=True)
        }
        for row in measurement["rows"]
        if "medians" in row
    }
    return curves, row_of(measurement, attack="C&W, white-box")["median"]

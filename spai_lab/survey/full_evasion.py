"""Evasion in the full profile: what `spai-lab measure` has kept of every attack on MNIST, one headline each.

Where a family measured an attack twice, the larger run is the headline and the other one among the details. Only EOT
has a measurement of its own: on the noise that the family measures, plain PGD is nearly as good as EOT.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from spai_lab.survey.evasion_attacks import Pooled, pooled
from spai_lab.survey.evasion_jobs import BALL, CARLINI_WAGNER, DEEPFOOL, EPS, JSMA, SUMMARY, ZOO, Attacked
from spai_lab.survey.evasion_scene import NAMES, SUCCESS, median_headline, nearness_headline, scene
from spai_lab.survey.headline import Headline
from spai_lab.survey.measure import counted, load_measurement, measure
from spai_lab.survey.quick_evasion import CLIMBS, LEAST, past_random_views

FAMILY = "evasion_attacks"
TARGETS = 9  # of each image of ten classes
VIEWS = "random_views"

LARGER: dict[str, Sequence[Attacked]] = {"deepfool": DEEPFOOL["lenet"], "zoo": ZOO}
TARGETED: dict[str, Sequence[Attacked]] = {"jsma": JSMA["probabilities"], "carlini_wagner": CARLINI_WAGNER}
NEAREST_TARGET: dict[str, Sequence[Attacked]] = {"carlini_wagner": CARLINI_WAGNER}  # for any class, the nearest
CURVES = {
    "square": "Square in L2 (scores)",
    "nes": "NES in L2 (scores)",
    "one_pixel": "five pixels (scores)",
    "boundary": "boundary (labels)",
    "hop_skip_jump": "HopSkipJump (labels)",
    "zoo": "ZOO (scores)",
}
NEAREST = ("zoo", "boundary", "hop_skip_jump")  # black-box, toward the least distortion
BUDGETS = {
    **{row: budget for row, (_, _, budget) in CLIMBS.items()},
    **{row: budget for row, (*_, budget) in LEAST.items()},
    "carlini_wagner": "9 searches of 1,000 steps a target",
    "auto_attack": "4 attacks in turn: APGD-CE, APGD-T, FAB-T of 100 steps, 5,000 queries of Square",
    "universal_perturbation": "10 passes over 500 training images, once for all",
    "advgan": "10 epochs of 2,000 training images, once for all",
    "patch": "200 steps on 1,000 training images, once for all",
    "spatial": "775 places of a grid, 776 queries an image",
    "bpda": "40 gradients an image",
    "transfer": "10 gradients of the surrogates an image, no query",
    "substitute": "{total:,.0f} queries in all, 6 rounds of 10 epochs",
    "square": "5,000 queries an image at most",
    "nes": "5,101 queries an image at most",
    "one_pixel": "40,401 queries an image at most",
    "boundary": "10,000 steps, {median:,.0f} queries an image",
    "hop_skip_jump": "30 steps, {median:,.0f} queries an image",
    "zoo": "9 searches of 3,000 steps, {median:,.0f} queries an image",
}


@dataclass(frozen=True)
class RandomViews:
    """EOT on a victim that looks at a random view of each image, as in chapter 03, beside PGD.

    Args:
        images: how many.
    """

    images: int = 100

    @property
    def key(self) -> dict:
        """What it measures, and on how many images."""
        return {"attack": "eot", "images": self.images}

    def run(self, seed: int) -> dict:
        """The headline."""
        return {"headline": past_random_views(scene(seed, name="mnist", images=self.images)).row}


def measure_random_views(*, seed: int = 0, fresh: bool = False, file: Path | None = None) -> dict:
    """Measure it; the arguments are those of `measure`."""
    return measure(VIEWS, (RandomViews(),), ("lenet",), seed=seed, fresh=fresh, file=file)


def told(row: str) -> list[Headline]:
    """The headline that a row's measurement comes to."""
    family = load_measurement(FAMILY)
    first, *rest = (job for job in SUMMARY if job.attack == row)
    jobs = LARGER.get(row, [first])
    measured = pooled(family, jobs)
    beside = {job.setting: pooled(family, [job]) for job in rest}
    if row in LARGER:
        beside[f"{first.setting}, {first.images} images"] = pooled(family, [first])
    if row in TARGETED:
        beside["every target"] = pooled(family, TARGETED[row])
    if row in NEAREST_TARGET:
        beside["by a loss without target"] = measured
        measured = nearest_of_targets(pooled(family, NEAREST_TARGET[row]))
    details = {name: counted(other.rate) for name, other in beside.items()} | accuracy_left(row) | curve_of(row)
    asked = measured.queries or 0.0
    budget = BUDGETS[row].format(median=asked, total=asked * measured.trials)
    return [headline(row, jobs[0], measured, budget, details | cost_of(measured))]


def nearest_of_targets(every: Pooled) -> Pooled:
    """Of an attack on every wrong class, what is nearest for each image: its way to any class."""
    far = every.far.view(-1, TARGETS).amin(1)
    lengths = every.lengths.view(-1, TARGETS)[:, 0]
    return replace(every, far=far, lengths=lengths, hits=int(far.isfinite().sum()), trials=len(far))


def headline(row: str, job: Attacked, measured: Pooled, budget: str, details: dict) -> Headline:
    """In the form that the kind of attack has in the quick profile."""
    victim = ("LeNet, MNIST",) if job.defense == "none" else ("LeNet, MNIST", f"victim: {job.defense}")
    if row in LEAST:
        aim = f"any class, the nearest of {TARGETS} targets" if row in NEAREST_TARGET else "any class"
        words = ", ".join((*victim, NAMES[job.norm], aim))
        return median_headline(measured.far, job.norm, setup=words, budget=budget, details=details)
    if row in NEAREST:
        return nearness_headline(measured.far, setup=", ".join(victim), budget=budget, details=details)
    words, ball = [*victim, *job.setting.split(", ")], {}
    if job.norm == "linf":
        words = [*victim, f"{NAMES['linf']} {BALL}", *(part for part in job.setting.split(", ") if part != BALL)]
        ball = {"norm": "linf", "eps": EPS, "at": {f"{EPS:g}": counted(measured.rate)}}
    setup, found = ", ".join(words), ball | details
    return Headline.of_rate(SUCCESS, measured.rate, setup=setup, budget=budget, better="higher", details=found)


def cost_of(measured: Pooled) -> dict[str, float]:
    """Processor time, and the median number of queries an image where any are asked."""
    cost = {"processor_seconds": round(measured.seconds, 2)}
    return cost if measured.queries is None else cost | {"queries": measured.queries}


def accuracy_left(row: str) -> dict:
    """By radius what the attack leaves of all of MNIST's test images; nothing where that was not measured."""
    rows = [kept for kept in load_measurement("gradient_attacks")["rows"] if kept["model"] == "lenet"]
    left = {f"{kept['eps']:g}": [kept["hits"], kept["trials"]] for kept in rows if kept["attack"] == row}
    return {"accuracy left on all test images": left} if left else {}


def curve_of(row: str) -> dict:
    """By the queries that an image may cost, the median L2 distortion and its interval; None where most fail."""
    if row not in CURVES:
        return {}
    [kept] = (kept for kept in load_measurement("query_curves")["rows"] if kept["attack"] == CURVES[row])
    medians = {str(cap): ends for cap, ends in zip(kept["caps"], kept["medians"], strict=True)}
    return {"median L2 by queries": medians, "images of these medians": kept["images"]}


def random_views() -> list[Headline]:
    """EOT past random views; past the noise that the family measures among the details."""
    [kept] = load_measurement(VIEWS)["rows"]
    found = Headline.from_row(kept["headline"])
    noise = [job for job in SUMMARY if job.attack == "eot"]
    rates = {job.setting: counted(pooled(load_measurement(FAMILY), [job]).rate) for job in noise}
    return [replace(found, details=found.details | {noise[0].defense: rates})]


FULL: dict[str, Callable[[], list[Headline]]] = {row: partial(told, row) for row in BUDGETS} | {"eot": random_views}

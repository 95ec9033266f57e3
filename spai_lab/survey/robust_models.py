"""The robust models of MNIST under long attacks, verified, and smoothed: what an hour of training buys."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from spai_lab.attacks.evasion import auto_attack, fgsm, pgd, square
from spai_lab.checks import unsuspecting
from spai_lab.data import load
from spai_lab.defenses.evasion import convex_relaxation, randomized_smoothing
from spai_lab.defenses.evasion.ibp import interval_margins, verified
from spai_lab.defenses.evasion.smoothing import gaussian_noise_training
from spai_lab.metrics import Rate, accuracy_rate
from spai_lab.models import madry, strided
from spai_lab.query import Query
from spai_lab.survey.defense_models import seeded
from spai_lab.survey.ledger import Comparison, published
from spai_lab.survey.measure import measure, rows_of_kind
from spai_lab.threat import fooled, margin, value_and_gradient
from spai_lab.training import Robustly, manifest, reference
from spai_lab.training.cache import cached
from spai_lab.training.recipes import REFERENCE

MODELS = ("strided-trades", "strided-ibp", "strided-pgd")
EPS = 0.3
IMAGES = 1000
SQUARED = 400
SMOOTHED = 500
VOTES = 10_000
SIGMAS = (0.25, 0.5)
RADII = tuple(k / 8 for k in range(13))


def under_pgd(model: nn.Module, x: Tensor, y: Tensor, seed: int) -> Tensor:
    """Which images stand under PGD with 100 steps and 20 restarts."""
    return ~fooled(model, pgd(model, x, y, eps=EPS, steps=100, restarts=20, generator=seeded(seed)), y)


def under_auto_attack(model: nn.Module, x: Tensor, y: Tensor, seed: int) -> Tensor:
    """Which images stand under AutoAttack with its full budget."""
    return ~fooled(model, auto_attack(model, x, y, eps=EPS, generator=seeded(seed)), y)


def proven_by_intervals(model: nn.Module, x: Tensor, y: Tensor, seed: int) -> Tensor:
    """Which images intervals verify."""
    return verified(model, x, y, eps=EPS, bound=interval_margins, progress=False)


def proven_by_crown(model: nn.Module, x: Tensor, y: Tensor, seed: int) -> Tensor:
    """Which images linear bounds verify, their inner bounds from intervals."""

    def bound(model: nn.Module, x: Tensor, y: Tensor, *, eps: float) -> Tensor:
        return convex_relaxation(model, x, y, eps=eps, inner="ibp")

    return verified(model, x, y, eps=EPS, bound=bound, batch_size=20, progress=False)


TESTS: dict[str, Callable[[nn.Module, Tensor, Tensor, int], Tensor]] = {
    "PGD-100 x 20": under_pgd,
    "AutoAttack": under_auto_attack,
    "verified by intervals": proven_by_intervals,
    "verified by CROWN": proven_by_crown,
}


@dataclass(frozen=True)
class Examined:
    """A robust model on MNIST test images, under one attack or one proof.

    Args:
        model: one of `MODELS`.
        test: one of `TESTS`, or "clean", on all test images.
    """

    model: str
    test: str

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "tested", **asdict(self)}

    def run(self, seed: int) -> dict:
        """How many images stand, hits and trials."""
        data = load("mnist")
        model = reference(self.model, data)
        if self.test == "clean":
            rate = accuracy_rate(model, data.x_test, data.y_test)
            return {"stands": [rate.hits, rate.trials]}
        x, y = data.sample(IMAGES, seed=seed)
        with unsuspecting():
            stands = TESTS[self.test](model, x, y, seed)
        return {"stands": [int(stands.sum()), len(stands)]}


def gradient_of_lead(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The gradient of what C&W's loss climbs: how far the best other logit is ahead of the true one."""
    return value_and_gradient(lambda x: -margin(model(x), y), x)[1]


def under_square(model: nn.Module, x: Tensor, y: Tensor, seed: int) -> Tensor:
    """Which images stand under Square with 5,000 queries each."""
    return ~fooled(model, square(Query(model, "scores"), x, y, eps=EPS, generator=seeded(seed)), y)


def under(attack: Callable[..., Tensor], **settings: object) -> Callable[[nn.Module, Tensor, Tensor, int], Tensor]:
    """Which images stand under an attack in one setting."""

    def stands(model: nn.Module, x: Tensor, y: Tensor, seed: int) -> Tensor:
        return ~fooled(model, attack(model, x, y, eps=EPS, generator=seeded(seed), **settings), y)

    return stands


ATTACKS: dict[str, Callable[[nn.Module, Tensor, Tensor, int], Tensor]] = {
    "FGSM": under(fgsm),
    "PGD-20": under(pgd, steps=20),
    "PGD-40": under(pgd, steps=40, step_size=0.01),
    "PGD-40, C&W's loss": under(pgd, steps=40, step_size=0.01, gradient=gradient_of_lead),
    "PGD-100": under(pgd, steps=100, step_size=0.01),
    "PGD-40 x 20": under(pgd, steps=40, step_size=0.01, restarts=20),
    "Square": under_square,
}


@dataclass(frozen=True)
class AsPublished:
    """A robust model on MNIST test images under one attack, set as others published it.

    Args:
        victim: one of `MODELS`.
        attack: one of `ATTACKS`.
        first, images: which of the images, counted in the order of `Dataset.sample`; long attacks go in parts.
    """

    victim: str
    attack: str
    first: int = 0
    images: int = IMAGES

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "as published", **asdict(self)}

    def run(self, seed: int) -> dict:
        """How many images stand, hits and trials."""
        data = load("mnist")
        x, y = (part[self.first : self.first + self.images] for part in data.sample(IMAGES, seed=seed))
        with unsuspecting():
            stands = ATTACKS[self.attack](reference(self.victim, data), x, y, seed)
        return {"stands": [int(stands.sum()), len(stands)]}


@dataclass(frozen=True)
class Smoothed:
    """Randomized smoothing of a LeNet that was trained with the same noise.

    Args:
        sigma: of the noise, in training and in the vote.
    """

    sigma: float

    @property
    def key(self) -> dict:
        """Its field."""
        return {"kind": "smoothed", **asdict(self)}

    def run(self, seed: int) -> dict:
        """Right and certified images by radius, hits and trials, and how many abstain."""
        data = load("mnist")
        objective = Robustly(gaussian_noise_training, sigma=self.sigma)
        model, _ = cached(replace(REFERENCE["lenet", "mnist"], objective=objective), data, seed=seed, progress=False)
        x, y = data.sample(SMOOTHED, seed=seed)
        votes = {"sigma": self.sigma, "n": VOTES, "generator": seeded(seed), "progress": False}
        certified = randomized_smoothing(model, x, **votes)
        rates = {f"{radius:g}": certified.accuracy(y, radius) for radius in RADII}
        return {
            "certified": {radius: [rate.hits, rate.trials] for radius, rate in rates.items()},
            "abstained": int(certified.abstained.sum()),
        }


PROVEN = {"strided-ibp"}  # bounds of the others prove nothing at this eps
JOBS = (
    *(
        Examined(model, test)
        for model in MODELS
        for test in ("clean", *TESTS)
        if model in PROVEN or not test.startswith("verified")
    ),
    *(AsPublished("strided-pgd", attack) for attack in ("FGSM", "PGD-40", "PGD-40, C&W's loss", "PGD-100")),
    AsPublished("strided-ibp", "PGD-20"),
    *(AsPublished("strided-pgd", "PGD-40 x 20", first, 500) for first in (0, 500)),
    *(AsPublished("strided-pgd", "Square", first, SQUARED // 2) for first in (0, SQUARED // 2)),
    *(Smoothed(sigma) for sigma in SIGMAS),
)


def measure_robust_models(*, seed: int = 0, fresh: bool = False, file: Path | None = None) -> dict:
    """Measure all of it; the arguments are those of `measure`."""
    return measure("robust_models", JOBS, MODELS, seed=seed, fresh=fresh, file=file)


def examined(measurement: dict) -> dict[tuple[str, str], Rate]:
    """For each model and test the share of images that stand."""
    rows = [row for row in measurement["rows"] if row["kind"] == "tested"]
    return {(row["model"], row["test"]): Rate(*row["stands"]) for row in rows}


def as_published(measurement: dict) -> dict[tuple[str, str], Rate]:
    """For each victim and attack in the published setting the share of images that stand, all parts together."""
    parts: dict[tuple[str, str], list[list[int]]] = {}
    for row in rows_of_kind(measurement, "as published"):
        parts.setdefault((row["victim"], row["attack"]), []).append(row["stands"])
    return {pair: Rate(*map(sum, zip(*counts, strict=True))) for pair, counts in parts.items()}


def certified_by_radius(measurement: dict) -> dict[str, dict[float, Rate]]:
    """For each sigma the share of images that are right and certified, by radius."""
    rows = [row for row in measurement["rows"] if row["kind"] == "smoothed"]
    return {
        f"sigma {row['sigma']:g}": {float(radius): Rate(*counts) for radius, counts in row["certified"].items()}
        for row in rows
    }


def robust_table(measurement: dict) -> str:
    """The robust models as a Markdown table: training, clean accuracy, what each attack leaves, what is proven."""
    found = examined(measurement)
    tests = [test for test in ("clean", *TESTS) if any(name == test for _, name in found)]
    lines = [
        f"| model | epochs, minutes | {' | '.join(tests)} |",
        f"|---|---:|{'---:|' * len(tests)}",
    ]
    for model in MODELS:
        entry = manifest()["models"][f"{model}-mnist"]
        cells = (str(found[model, test]) if (model, test) in found else "–" for test in tests)
        minutes = f"{entry['epochs'][0]}, {entry['seconds'][0] / 60:.0f}"
        lines.append(f"| {model} | {minutes} | {' | '.join(cells)} |")
    return "\n".join(lines)


BESIDE: dict[str, tuple[str, str, str]] = {  # by the id of a published figure: a model, its test, what that differs in
    "madry-natural": ("strided-pgd", "clean", ""),
    "madry-fgsm": ("strided-pgd", "FGSM", ""),
    "madry-pgd-40": ("strided-pgd", "PGD-40", ""),
    "madry-pgd-100": ("strided-pgd", "PGD-100", ""),
    "madry-pgd-40-20": ("strided-pgd", "PGD-40 x 20", ""),
    "madry-pgd-100-20": ("strided-pgd", "PGD-100 x 20", ""),
    "madry-carlini-wagner": ("strided-pgd", "PGD-40, C&W's loss", ""),
    "secret-fgsm": ("strided-pgd", "FGSM", ""),
    "secret-pgd-100": ("strided-pgd", "PGD-100", ""),
    "secret-pgd-restarts": ("strided-pgd", "PGD-100 x 20", "20 restarts in place of 50"),
    "secret-square": ("strided-pgd", "Square", ""),
    "secret-best-attack": ("strided-pgd", "AutoAttack", ""),
    "ibp-clean": ("strided-ibp", "clean", ""),
    "ibp-verified": ("strided-ibp", "verified by intervals", ""),
    "ibp-pgd-20": ("strided-ibp", "PGD-20", ""),
}
CERTIFIED = {"smoothing-0": 0.0, "smoothing-25": 0.25, "smoothing-5": 0.5, "smoothing-75": 0.75}  # by id: the radius


def robust_compared(measurement: dict) -> list[Comparison]:
    """The published figures of robust training and of certificates, each beside what was measured for it."""
    ledger = published()
    found = examined(measurement) | as_published(measurement)
    compared = []
    for name, (model, test, more) in BESIDE.items():
        rate = found.get((model, test))
        if rate is not None:
            differs = "; ".join(filter(None, [smaller(model), more]))
            ours = f"{model}, {test}"
            compared.append(Comparison(ledger[name], rate.value, rate.trials, rate.interval, ours, differs))
    certified = certified_by_radius(measurement).get("sigma 0.25", {})
    for name, radius in CERTIFIED.items():
        if radius in certified:
            rate, ours = certified[radius], f"LeNet on MNIST, sigma .25, {VOTES:,} votes"
            differs = "other data, another network"
            compared.append(Comparison(ledger[name], rate.value, rate.trials, rate.interval, ours, differs))
    return compared


def smaller(model: str) -> str:
    """What a robust model of ours differs in from the published ones: its size and its training."""
    sizes = [sum(part.numel() for part in network().parameters()) for network in (strided, madry)]
    theirs = f", theirs {sizes[1]:,}" if model == "strided-pgd" else ", theirs is larger"
    epochs = manifest()["models"][f"{model}-mnist"]["epochs"][0]
    return f"our network has {sizes[0]:,} parameters{theirs}; {epochs} epochs"

"""Defenses against evasion, from what `spai-lab measure` has kept: the matrix, the robust models, the detectors."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from spai_lab.metrics import Rate
from spai_lab.survey.defense_headlines import (
    CERTIFIED,
    NOT_ADAPTIVE,
    count,
    detector_headline,
    robust_headline,
    strongest,
)
from spai_lab.survey.defenses import standing, survivors
from spai_lab.survey.detection import evading, false_alarms, fools, scores_of, threshold
from spai_lab.survey.detection_jobs import KNOWN_FPR, RADIUS
from spai_lab.survey.evasion_attacks import NORMS
from spai_lab.survey.headline import DATA_NAMES, Headline
from spai_lab.survey.measure import counted, load_measurement, row_of
from spai_lab.survey.robust_models import EPS, SMOOTHED, TESTS, VOTES, certified_by_radius, examined
from spai_lab.training import manifest

IMAGES = ("digits", "mnist")
SPENT = {
    "adaptive": "at most 100 gradients twice (adaptive)",
    "Square": "1,000 queries (Square)",
    "AutoAttack": "AutoAttack of 50 steps",
}
LONG = "PGD of 100 steps and 20 starts, AutoAttack in full, an image"
RADIUS_SMOOTHED, SIGMA = 1.0, 0.5
PROVEN = "what is counted is proven against every attack; on digits the quick profile attacks the vote"

# The row of the taxonomy: what the matrix calls it, and in words.
LENETS = {
    "defensive_distillation": ("defensive distillation", "LeNet, teacher and student at T = 100"),
    "thermometer": ("thermometer", "LeNet on thermometer codes"),
    "random_resize_pad": ("random resizing, padding", "LeNet, 24 to 28 pixels"),
    "activation_pruning": ("activation pruning", "LeNet"),
    "input_transformation": ("bit depth 1", "LeNet, pixels of 1 bit"),
    "defense_gan": ("Defense-GAN", "LeNet behind a small generator, 10 searches of 200 steps"),
    "fast_adversarial_training": ("fast adversarial training", "LeNet, one step from a random start"),
    "ensemble_adversarial_training": (
        "ensemble adversarial training",
        "LeNet, one step on itself or on one of two others",
    ),
    "gradient_regularization": ("gradient regularization", "LeNet, weight 1"),
}
BESIDE = {"input_transformation": ("JPEG 75", "total variation")}
STRIDED = {"adversarial_training": ("PGD training", "strided-pgd"), "trades": ("TRADES", "strided-trades")}
DETECTORS = {
    "feature_squeezing": ("feature squeezing", "LeNet, pixels of 1 bit and a 2 x 2 median"),
    "magnet": ("MagNet", "LeNet behind a reformer, two detectors"),
    "lid": ("LID, from PGD", "LeNet, learned from PGD"),
}
VARIANTS = {"lid": ("LID, from FGSM", "LID, from C&W")}
BALLS = {"linf": ("FGSM", "PGD", "adaptive"), "l2": ("adaptive, L2",)}  # the attacks on detectors that keep to an eps


def stood(measurement: dict, defense: str, norm: str = "linf") -> tuple[Tensor, dict[str, Tensor]]:
    """Which images a defense of the matrix gets right, clean and after each attack."""
    found = {
        attack: torch.tensor(stands) for (of, attack), stands in standing(measurement, norm).items() if of == defense
    }
    return found.pop("none"), found


def of_matrix(defense: str, words: str, name: str, beside: tuple[str, ...] = ()) -> Headline:
    """The headline of a defense of the matrix on one data set; other defenses of the same row stand in the details."""
    measurement = load_measurement(f"defenses_{name}")
    left, in_l2 = survivors(measurement), survivors(measurement, "l2")
    details = {"beside": {other: counted(left[other]) for other in beside}} if beside else {}
    if defense in in_l2:
        details["in L2"] = {"survive all": counted(in_l2[defense]), "eps": l2_radius(measurement)}
    eps = row_of(measurement, kind="judged", norm="linf", defense=defense, attack="none")["eps"]
    clean, attacks = stood(measurement, defense)
    setup = f"{words}, {DATA_NAMES[name]}, eps {eps:g} in L-inf"
    budget = f"{', '.join(words for attack, words in SPENT.items() if attack in attacks)} an image"
    return robust_headline(clean, attacks, counted(left["none"]), setup=setup, budget=budget, details=details)


def l2_radius(measurement: dict) -> float:
    """The radius of the matrix in L2."""
    return row_of(measurement, kind="judged", norm="l2", defense="none", attack="none")["eps"]


def lenets(row: str) -> list[Headline]:
    """A row that the matrix alone measures."""
    return [of_matrix(*LENETS[row], name, BESIDE.get(row, ())) for name in IMAGES]


def robust(row: str) -> list[Headline]:
    """A robust model: on digits by the matrix, on MNIST by the long attacks."""
    defense, model = STRIDED[row]
    return [of_matrix(defense, "strided network, 60 epochs", "digits"), long_attacked(model, defense)]


def long_details(model: str, defense: str) -> dict:
    """What the long attacks leave of a robust model of MNIST, and what the matrix says of the same."""
    found, matrix = examined(load_measurement("robust_models")), load_measurement("defenses_mnist")
    left, (_, attacked) = survivors(matrix), stood(matrix, defense)
    attacks = {test: counted(found[model, test]) for test in TESTS if not test.startswith("verified")}
    attacks["adaptive"] = count(attacked["adaptive"])
    return {
        "clean": counted(found[model, "clean"]),
        "undefended": counted(left["none"]),
        "attacks": attacks,
        "strongest": strongest(attacks),
        "survive the matrix": counted(left[defense]),
    }


def long_setup(model: str) -> tuple[str, str]:
    """Setting and budget of a robust model of MNIST, in words."""
    epochs = manifest()["models"][f"{model}-mnist"]["epochs"][0]
    return f"{model}, MNIST, eps {EPS:g} in L-inf", f"{epochs} epochs; {LONG}"


def long_attacked(model: str, defense: str) -> Headline:
    """The accuracy under the strongest of the long attacks, of which AutoAttack is four by itself."""
    details = long_details(model, defense)
    setup, budget = long_setup(model)
    rate = Rate(*details["attacks"][details["strongest"]])
    return Headline.of_rate(
        f"accuracy under {details['strongest']}", rate, setup=setup, budget=budget, better="higher", details=details
    )


def proven(test: str) -> list[Headline]:
    """The model that was trained on intervals, on MNIST: what one of the proofs says of it."""
    model, found = "strided-ibp", examined(load_measurement("robust_models"))
    proofs = {of: counted(found[model, of]) for of in TESTS if of.startswith("verified")}
    setup, budget = long_setup(model)
    details = long_details(model, "IBP") | {"certified by": proofs}
    return [
        Headline.of_rate(CERTIFIED, found[model, test], setup=setup, budget=budget, better="higher", details=details)
    ]


def smoothed() -> list[Headline]:
    """The vote of a LeNet that was trained with the same noise, on MNIST."""
    measurement = load_measurement("robust_models")
    curve = certified_by_radius(measurement)[f"sigma {SIGMA:g}"]
    abstained = row_of(measurement, kind="smoothed", sigma=SIGMA)["abstained"]
    details = {"clean": counted(curve[0.0]), "abstained": [abstained, SMOOTHED], NOT_ADAPTIVE: PROVEN}
    details["certified by radius"] = {f"{radius:g}": counted(rate) for radius, rate in curve.items()}
    setup = f"LeNet, sigma {SIGMA:g}, MNIST, eps {RADIUS_SMOOTHED:g} in L2"
    budget = f"{VOTES:,} votes an image"
    rate = curve[RADIUS_SMOOTHED]
    return [Headline.of_rate(CERTIFIED, rate, setup=setup, budget=budget, better="higher", details=details)]


def held(measurement: dict, detector: str, attack: str) -> Tensor:
    """Which images are read rightly or rejected after an attack."""
    passed = scores_of(measurement, detector, attack) <= threshold(measurement, detector, KNOWN_FPR)
    return ~(fools(measurement, detector, attack) & passed)


def detector(row: str, name: str) -> Headline:
    """A detector on one data set, in the norm in which more images evade it; the other one stands in the details."""
    found = {norm: in_norm(row, name, norm) for norm in BALLS}
    norm = max(found, key=lambda norm: found[norm].value)
    headline = found.pop(norm)
    ((other_norm, other),) = found.items()
    beside = {"in the other norm": {"setup": other.setup, "evaded": other.value, "attacks": other.details["attacks"]}}
    ball = f"eps {RADIUS[other_norm][name]:g} in {NORMS.get(other_norm, other_norm)}"
    setup = f"{headline.setup}; more evade it there than with {ball} ({100 * other.value:.0f} %)"
    return replace(headline, setup=setup, details=headline.details | beside)


def in_norm(row: str, name: str, norm: str) -> Headline:
    """A detector on one data set, against the attacks of one norm."""
    measurement = load_measurement(f"detection_{name}")
    of, words = DETECTORS[row]
    accepted = scores_of(measurement, of, "none") <= threshold(measurement, of, KNOWN_FPR)
    *_, adaptive = BALLS[norm]
    variants = {other: counted(evading(measurement, other, adaptive)) for other in VARIANTS.get(row, ())}
    return detector_headline(
        accepted & ~fools(measurement, of, "none"),
        {attack: held(measurement, of, attack) for attack in BALLS[norm]},
        counted(survivors(load_measurement(f"defenses_{name}"), norm)["none"]),
        alarms=counted(false_alarms(measurement, of, KNOWN_FPR)),
        setup=f"{words}, {100 * KNOWN_FPR:g} % false alarms on validation images, {DATA_NAMES[name]}, "
        f"eps {RADIUS[norm][name]:g} in {NORMS.get(norm, norm)}",
        budget="100 steps and 5 starts (adaptive) an image, tuned on validation images",
        details={"evaded by the adaptive attack": variants} if variants else None,
    )


def detectors(row: str) -> list[Headline]:
    """A detector on each data set."""
    return [detector(row, name) for name in IMAGES]


FULL: dict[str, Callable[[], list[Headline]]] = {
    **{row: partial(lenets, row) for row in LENETS},
    **{row: partial(robust, row) for row in STRIDED},
    "randomized_smoothing": smoothed,
    "ibp": partial(proven, "verified by intervals"),
    "convex_relaxation": partial(proven, "verified by CROWN"),
    **{row: partial(detectors, row) for row in DETECTORS},
}

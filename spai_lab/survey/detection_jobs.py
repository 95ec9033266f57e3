"""What is measured of detectors: their scores of clean images, and of those of weak, strong and adaptive attacks."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache, partial
from itertools import product

import torch
from torch import Tensor, nn

from spai_lab.attacks.evasion import carlini_wagner, fgsm, pgd
from spai_lab.checks import unsuspecting
from spai_lab.data import load
from spai_lab.defenses.evasion import feature_squeezing, lid, magnet
from spai_lab.defenses.evasion.detection import Detector, evade, evasion_rate, scored, threshold_at
from spai_lab.defenses.evasion.image_networks import train_autoencoder
from spai_lab.defenses.evasion.magnet import reconstruction_error
from spai_lab.defenses.evasion.squeezing import feature_squeezing_view
from spai_lab.survey.defense_models import EPS, seeded
from spai_lab.threat import fooled, norms
from spai_lab.training import reference

IMAGES = 200
VALIDATION = 1000
TUNED_ON = 40
LEARNED_FROM = 600  # training images from which LID learns, and the minibatch among which it seeks neighbors
KNOWN_FPR = 0.05  # the false positive rate for which the adaptive attacker knows the threshold
CONFIDENCE = 10.0  # logits by which the confident C&W wants to win
RADIUS = {"linf": EPS["linf"], "l2": {"digits": 3.0, "mnist": 3.0}}  # L2: not as far as FGSM goes


@dataclass(frozen=True, eq=False)
class Guarded:
    """A model with a detector in front of it.

    Args:
        model: gives the answer, where the detector lets an input pass.
        detector: inputs to scores.
        view: a differentiable stand-in for the detector.
    """

    model: nn.Module
    detector: Detector
    view: Detector


def squeezed(name: str) -> Guarded:
    """The joint detector of feature squeezing on the reference LeNet."""
    model = reference("lenet", name)
    detector = feature_squeezing(model)
    return Guarded(model, detector, feature_squeezing_view(detector))


def magnetized(name: str, *, steps: int = 3000) -> Guarded:
    """MagNet with its two detectors and its reformer for MNIST, trained on all training images."""
    data, network = load(name), reference("lenet", name)
    reformer, fine = (
        train_autoencoder(data.x_train, pooling=pooling, steps=steps, generator=seeded(int(pooling)), progress=False)
        for pooling in (True, False)
    )
    detectors = (reconstruction_error(reformer, 2), reconstruction_error(fine, 1))
    defense = magnet(network, reformer, data.x_val, detectors=detectors, fpr=0.01)
    return Guarded(defense.reformed, defense, defense)


def dimensioned(attack: str) -> Callable[[str], Guarded]:
    """Local intrinsic dimensionality, learned from one attack on training images."""

    def build(name: str) -> Guarded:
        data, model = load(name), reference("lenet", name)
        with unsuspecting():
            detector = lid(
                *(model, data.x_train[:LEARNED_FROM], data.y_train[:LEARNED_FROM]),
                lambda model, x, y: UNAWARE[attack](model, x, y, name, seeded()),
                generator=seeded(1),
            )
        return Guarded(model, detector, detector)

    return build


DETECTORS: dict[str, Callable[[str], Guarded]] = {
    "feature squeezing": squeezed,
    "MagNet": magnetized,
    "LID, from FGSM": dimensioned("FGSM"),
    "LID, from PGD": dimensioned("PGD"),
    "LID, from C&W": dimensioned("C&W"),
}


@cache
def guarded(detector: str, name: str) -> Guarded:
    """The guarded model, made once."""
    return DETECTORS[detector](name)


@cache
def threshold(detector: str, name: str) -> float:
    """What the detector rejects above, chosen on clean validation images."""
    return threshold_at(scored(guarded(detector, name).detector, load(name).x_val[:VALIDATION]), KNOWN_FPR)


# --- images: clean ones, those of attackers who know the network alone, those of the attacker who knows all of it


def validation(detector: str, name: str, seed: int) -> tuple[Tensor, Tensor]:
    """Clean validation images and their labels."""
    data = load(name)
    return data.x_val[:VALIDATION], data.y_val[:VALIDATION]


@cache
def readable(name: str, seed: int) -> tuple[Tensor, Tensor]:
    """The same clean test images for all detectors: those that the network reads rightly, and behind MagNet too."""
    x, y = load(name).sample(2 * IMAGES, seed=seed)
    right = ~fooled(reference("lenet", name), x, y) & ~fooled(guarded("MagNet", name).model, x, y)
    return x[right][:IMAGES], y[right][:IMAGES]


def clean(detector: str, name: str, seed: int) -> tuple[Tensor, Tensor]:
    """Clean test images and their labels."""
    return readable(name, seed)


def in_ball(attack: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """An attack within eps, in L-inf."""

    def run(model: nn.Module, x: Tensor, y: Tensor, name: str, generator: torch.Generator) -> Tensor:
        return attack(model, x, y, eps=EPS["linf"][name], generator=generator)

    return run


def least(confidence: float = 0.0) -> Callable[..., Tensor]:
    """Carlini and Wagner's attack in L2, which moves an image as little as it can."""
    attack = partial(carlini_wagner, steps=300, searches=5, initial_c=1.0, confidence=confidence)

    def run(model: nn.Module, x: Tensor, y: Tensor, name: str, generator: torch.Generator) -> Tensor:
        return attack(model, x, y, generator=generator)

    return run


UNAWARE: dict[str, Callable[..., Tensor]] = {
    "FGSM": in_ball(fgsm),
    "PGD": in_ball(pgd),
    "C&W": least(),
    "C&W, confident": least(CONFIDENCE),
}


@cache
def attacked(attack: str, name: str, seed: int) -> tuple[Tensor, Tensor]:
    """Images of an attacker who knows the network alone: the same for all detectors."""
    x, y = readable(name, seed)
    return UNAWARE[attack](reference("lenet", name), x, y, name, seeded(seed)), y


def unaware(attack: str) -> Callable[..., tuple[Tensor, Tensor]]:
    """Images of an attack, whichever the detector."""
    return lambda detector, name, seed: attacked(attack, name, seed)


def adaptive(norm: str) -> Callable[..., tuple[Tensor, Tensor]]:
    """Images of an attacker who knows model, detector and threshold, and has tuned the attack on validation images."""

    def run(detector: str, name: str, seed: int) -> tuple[Tensor, Tensor]:
        x, y = readable(name, seed)
        guard, t, settings = guarded(detector, name), threshold(detector, name), tuned(detector, name, norm)
        ball = {"eps": RADIUS[norm][name], "norm": norm, "restarts": 5, "generator": seeded(seed)}
        return evade(guard.model, x, y, [guard.view], [t], **ball, **settings), y

    return run


@cache
def tuned(detector: str, name: str, norm: str) -> dict[str, float]:
    """The weight and the first step with which most validation images evade."""
    guard, data, eps, t = guarded(detector, name), load(name), RADIUS[norm][name], threshold(detector, name)
    x, y = data.x_val[-TUNED_ON:], data.y_val[-TUNED_ON:]

    def evaded(settings: dict[str, float]) -> float:
        ball = {"eps": eps, "norm": norm, "generator": seeded()}
        x_adv = evade(guard.model, x, y, [guard.view], [t], **ball, **settings)
        return evasion_rate(guard.model, x_adv, y, [guard.detector], [t]).value

    choices = [{"weight": w, "step_size": share * eps} for w, share in product((0.0, 0.3, 1.0), (0.5, 0.1))]
    return max(choices, key=evaded)


ADAPTIVE = {"adaptive": "linf", "adaptive, L2": "l2"}
ATTACKS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "validation": validation,
    "none": clean,
    **{attack: unaware(attack) for attack in UNAWARE},
    **{attack: adaptive(norm) for attack, norm in ADAPTIVE.items()},
}


@dataclass(frozen=True)
class Scored:
    """What one detector says of the images of one attack.

    Args:
        data: name of the data set.
        detector: one of `DETECTORS`.
        attack: one of `ATTACKS`; "validation" and "none" are clean images.
    """

    data: str
    detector: str
    attack: str

    @property
    def key(self) -> dict:
        """Its fields."""
        return {"kind": "scored", **asdict(self)}

    def run(self, seed: int) -> dict:
        """The score of each image to six digits, which of them fool the model, and how far they were moved.

        Marks of the images that fool the model are a string of 0 and 1; the distance is the median in L2.
        """
        guard = guarded(self.detector, self.data)
        with unsuspecting():
            x, y = ATTACKS[self.attack](self.detector, self.data, seed)
        scores = [float(f"{score:.6g}") for score in scored(guard.detector, x).tolist()]
        found = {"scores": scores, "fools": "".join(str(int(hit)) for hit in fooled(guard.model, x, y))}
        if self.attack not in ("validation", "none"):
            found["distance"] = round(norms(x - readable(self.data, seed)[0], "l2").median().item(), 3)
        if self.attack in ADAPTIVE:
            found["settings"] = tuned(self.detector, self.data, ADAPTIVE[self.attack])
        return found


def jobs(name: str) -> list[Scored]:
    """Every detector with every attack on one data set."""
    return [Scored(name, detector, attack) for detector in DETECTORS for attack in ATTACKS]

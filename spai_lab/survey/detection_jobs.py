"""What is measured of detectors: their scores of clean images, and of those of weak, strong and adaptive attacks."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache, partial
from itertools import product

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
from spai_lab.threat import fooled
from spai_lab.training import reference

IMAGES = 200
VALIDATION = 1000
TUNED_ON = 40
KNOWN_FPR = 0.05  # the false positive rate for which the adaptive attacker knows the threshold
CONFIDENCE = 10.0  # logits by which the confident C&W wants to win


@dataclass(frozen=True, eq=False)
class Guarded:
    """A model with a detector in front of it.

    Args:
        model: gives the answer, where the detector lets an input pass.
        detector: inputs to scores.
        view: a differentiable stand-in for the detector.
        network: what an attacker takes it for who does not know of the defense.
    """

    model: nn.Module
    detector: Detector
    view: Detector
    network: nn.Module


def squeezed(name: str) -> Guarded:
    """The joint detector of feature squeezing on the reference LeNet."""
    model = reference("lenet", name)
    detector = feature_squeezing(model)
    return Guarded(model, detector, feature_squeezing_view(detector), model)


def magnetized(name: str) -> Guarded:
    """MagNet with its two detectors and its reformer for MNIST."""
    data, network = load(name), reference("lenet", name)
    reformer, fine = (
        train_autoencoder(data.x_train[:10_000], pooling=pooling, generator=seeded(int(pooling)), progress=False)
        for pooling in (True, False)
    )
    detectors = (reconstruction_error(reformer, 2), reconstruction_error(fine, 1))
    defense = magnet(network, reformer, data.x_val, detectors=detectors, fpr=0.01)
    return Guarded(defense.reformed, defense, defense, network)


def dimensioned(name: str) -> Guarded:
    """Local intrinsic dimensionality, learned from PGD on training images."""
    data, model = load(name), reference("lenet", name)
    attack = partial(pgd, eps=EPS["linf"][name], generator=seeded())
    with unsuspecting():
        detector = lid(model, data.x_train[:1500], data.y_train[:1500], attack, generator=seeded(1))
    return Guarded(model, detector, detector, model)


DETECTORS: dict[str, Callable[[str], Guarded]] = {
    "feature squeezing": squeezed,
    "MagNet": magnetized,
    "LID": dimensioned,
}


@cache
def guarded(detector: str, name: str) -> Guarded:
    """The guarded model, made once."""
    return DETECTORS[detector](name)


@cache
def threshold(detector: str, name: str) -> float:
    """What the detector rejects above, chosen on clean validation images."""
    return threshold_at(scored(guarded(detector, name).detector, load(name).x_val[:VALIDATION]), KNOWN_FPR)


def validation(guard: Guarded, detector: str, name: str, seed: int) -> tuple[Tensor, Tensor]:
    """Clean validation images and their labels."""
    data = load(name)
    return data.x_val[:VALIDATION], data.y_val[:VALIDATION]


def clean(guard: Guarded, detector: str, name: str, seed: int) -> tuple[Tensor, Tensor]:
    """Clean test images that network and guarded model read rightly."""
    x, y = load(name).sample(2 * IMAGES, seed=seed)
    right = ~fooled(guard.model, x, y) & ~fooled(guard.network, x, y)
    return x[right][:IMAGES], y[right][:IMAGES]


def attacked(attack: Callable[..., Tensor], **settings: object) -> Callable[..., tuple[Tensor, Tensor]]:
    """Images of an attacker who knows the network alone."""

    def images(guard: Guarded, detector: str, name: str, seed: int) -> tuple[Tensor, Tensor]:
        x, y = clean(guard, detector, name, seed)
        ball = {} if attack is carlini_wagner else {"eps": EPS["linf"][name]}
        return attack(guard.network, x, y, **ball, **settings, generator=seeded(seed)), y

    return images


def adaptive(guard: Guarded, detector: str, name: str, seed: int) -> tuple[Tensor, Tensor]:
    """Images of an attacker who knows model, detector and threshold, and has tuned the attack on validation images."""
    x, y = clean(guard, detector, name, seed)
    settings = tuned(detector, name)
    t, eps = threshold(detector, name), EPS["linf"][name]
    x_adv = evade(guard.model, x, y, [guard.view], [t], eps=eps, restarts=5, generator=seeded(seed), **settings)
    return x_adv, y


@cache
def tuned(detector: str, name: str) -> dict[str, float]:
    """The weight and the first step with which most validation images evade."""
    guard, data, eps, t = guarded(detector, name), load(name), EPS["linf"][name], threshold(detector, name)
    x, y = data.x_val[-TUNED_ON:], data.y_val[-TUNED_ON:]

    def evaded(settings: dict[str, float]) -> float:
        x_adv = evade(guard.model, x, y, [guard.view], [t], eps=eps, generator=seeded(), **settings)
        return evasion_rate(guard.model, x_adv, y, [guard.detector], [t]).value

    choices = [{"weight": w, "step_size": share * eps} for w, share in product((0.0, 0.3, 1.0), (0.5, 0.1))]
    return max(choices, key=evaded)


ATTACKS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "validation": validation,
    "none": clean,
    "FGSM": attacked(fgsm),
    "PGD": attacked(pgd),
    "C&W": attacked(carlini_wagner, steps=300, searches=5, initial_c=1.0),
    "C&W, confident": attacked(carlini_wagner, steps=300, searches=5, initial_c=1.0, confidence=CONFIDENCE),
    "adaptive": adaptive,
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
        """The score of each image to six digits, and which of them fool the model, as a string of 0 and 1."""
        guard = guarded(self.detector, self.data)
        with unsuspecting():
            x, y = ATTACKS[self.attack](guard, self.detector, self.data, seed)
        fools = "".join(str(int(hit)) for hit in fooled(guard.model, x, y))
        found = {"scores": [float(f"{score:.6g}") for score in scored(guard.detector, x).tolist()], "fools": fools}
        return found | ({"settings": tuned(self.detector, self.data)} if self.attack == "adaptive" else {})


def jobs(name: str) -> list[Scored]:
    """Every detector with every attack on one data set."""
    return [Scored(name, detector, attack) for detector in DETECTORS for attack in ATTACKS]

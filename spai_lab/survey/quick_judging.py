"""How the quick survey judges a defense against evasion: the same 64 digits, six attacks, and what survives them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor

from spai_lab.attacks.evasion import deepfool, fab, fgsm, mim, pgd, square
from spai_lab.checks import unsuspecting
from spai_lab.data import load
from spai_lab.survey.defense_attacks import (
    QUICK,
    Attack,
    Trial,
    adaptive,
    asking,
    climbing,
    nearest,
    tailored,
    transferred,
    unaware,
)
from spai_lab.survey.defense_headlines import count, survived
from spai_lab.survey.defense_models import EPS, Defended, alike, seeded
from spai_lab.threat import fooled
from spai_lab.training import reference

DATA = "digits"
IMAGES = 64
RANDOM_STEPS = 40  # of the adaptive attack on a defense whose every answer takes ten draws, or a search


@dataclass(frozen=True)
class Ball:
    """How far an attack may move an image: `eps` in a norm."""

    norm: str
    eps: float

    @property
    def arguments(self) -> dict[str, object]:
        """As an attack takes them."""
        return {"norm": self.norm, "eps": self.eps}

    def __str__(self) -> str:
        return f"eps {self.eps:g} in {'L-inf' if self.norm == 'linf' else 'L2'}"


LINF = Ball("linf", EPS["linf"][DATA])
MASKED = {
    "MIM": climbing(mim),
    "PGD": climbing(pgd),
    "transfer": transferred,
    "Square": asking(square, queries=1000),
    "DeepFool": nearest(deepfool, norm="linf", steps=20),
    "adaptive": adaptive,
}
RANDOM = MASKED | {"adaptive": partial(adaptive, steps=RANDOM_STEPS)}
SIX: dict[str, dict[str, Attack]] = {
    "masked": MASKED,
    "random": RANDOM,
    "coarse": {"tailored": tailored} | {name: attack for name, attack in MASKED.items() if name != "MIM"},
    "projected": RANDOM | {"MIM": unaware(mim), "PGD": unaware(pgd), "Square": asking(square, queries=100)},
    "trained": {
        "PGD": climbing(pgd),
        "transfer": transferred,
        "Square": asking(square, queries=1000),
        "FAB": nearest(fab, norm="linf", steps=20),
        "AutoAttack": QUICK["AutoAttack"],
        "adaptive": adaptive,
    },
    "smoothed": {
        "MIM": unaware(mim),
        "PGD": unaware(pgd),
        "transfer": transferred,
        "Square": asking(square, queries=200),
        "DeepFool": nearest(deepfool, aware=False, steps=20),
        "adaptive": partial(adaptive, steps=RANDOM_STEPS),
    },
    "guarded": {
        "FGSM": climbing(fgsm),
        "PGD": climbing(pgd),
        "transfer": transferred,
        "Square": asking(square, queries=1000),
        "DeepFool": nearest(deepfool, norm="linf", steps=20),
    },
}
BUDGETS = {
    "masked": "at most 100 gradients twice (adaptive), 1,000 queries (Square) an image",
    "random": f"at most {RANDOM_STEPS} gradients of ten draws twice (adaptive), 1,000 queries (Square) an image",
    "coarse": "at most 100 gradients twice (adaptive), 1,000 queries (Square) an image, and every corner one by one",
    "projected": f"at most {RANDOM_STEPS} gradients twice (adaptive), 100 queries (Square) an image",
    "trained": "at most 100 gradients twice (adaptive), 1,000 queries (Square), AutoAttack of 50 steps an image",
    "smoothed": f"at most {RANDOM_STEPS} gradients of 16 draws twice (adaptive), 200 queries (Square) an image",
    "guarded": "100 gradients, 3 starts (adaptive), 1,000 queries (Square) an image",
}


def images(seed: int, number: int = IMAGES) -> tuple[Tensor, Tensor]:
    """The test images that all defenses are judged by, and their labels, which nothing else reads."""
    return load(DATA).sample(number, seed=seed)


def reseeded(defended: Defended, seed: int) -> None:
    """Start every generator that the model or its view owns, so that the draws do not depend on what ran before."""
    for module in (*defended.model.modules(), *defended.view.modules()):
        if isinstance(getattr(module, "generator", None), torch.Generator):
            module.generator.manual_seed(seed)


def attacked(
    name: str, defended: Defended, attacks: Mapping[str, Attack], ball: Ball, seed: int, number: int = IMAGES
) -> dict[str, Tensor]:
    """The images, "clean" and after each attack.

    Args:
        name: of the defense, by which `tailored` knows its attack.
        defended: the victim.
        attacks: by name.
        ball: how far they may go.
        seed: of the choice of images and all draws.
        number: how many images.
    """
    x, y = images(seed, number)
    reseeded(defended, seed)
    found = {"clean": x}
    with unsuspecting():
        for attack, run in attacks.items():
            found[attack] = run(Trial(name, defended, load(DATA), x, y, ball.arguments, seeded(seed)))
    return found


def standing(
    name: str, defended: Defended, six: str, ball: Ball, seed: int, number: int = IMAGES
) -> tuple[Tensor, dict[str, Tensor]]:
    """Which images the model gets right, clean and after each of its six attacks; arguments as in `attacked`."""
    x_adv = attacked(name, defended, SIX[six], ball, seed, number)
    y = images(seed, number)[1]
    stands = {attack: ~fooled(defended.model, x, y) for attack, x in x_adv.items()}
    return stands.pop("clean"), stands


@cache
def undefended(victim: str, six: str, ball: Ball, seed: int, number: int = IMAGES) -> tuple[int, int]:
    """How many images the reference model gets right under the attacks that a defense meets, of how many."""
    bare = alike(reference(victim, DATA))
    attacks = {name: attack for name, attack in SIX[six].items() if attack is not tailored}
    x_adv = attacked("none", bare, attacks, ball, seed, number)
    y = images(seed, number)[1]
    stands = {name: ~fooled(bare.model, x, y) for name, x in x_adv.items()}
    hits, trials = count(survived(stands.pop("clean"), stands))
    return hits, trials

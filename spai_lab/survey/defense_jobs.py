"""What is measured of the defenses against evasion: which images stand, under each attack, behind each defense."""

from dataclasses import asdict, dataclass

from torch import Tensor

from spai_lab.checks import unsuspecting
from spai_lab.data import load
from spai_lab.survey.defense_attacks import AS_PUBLISHED, FULL, QUICK, TAILORED, Attack, Trial
from spai_lab.survey.defense_models import COSTLY, DEFENSES, EPS, RANDOM, built, seeded
from spai_lab.threat import fooled

IMAGES = 100
QUICK_L2 = ("none", "Defense-GAN")  # the quick matrix is one of L-inf; these are compared in L2 too


def images(defense: str, name: str, seed: int) -> tuple[Tensor, Tensor]:
    """The test images that a defense is judged by: the same for all, but the first of them for a slow one."""
    x, y = load(name).sample(IMAGES, seed=seed)
    return x[: COSTLY.get(defense)], y[: COSTLY.get(defense)]


def standing_after(attack: Attack, defense: str, name: str, norm: str, seed: int) -> str:
    """Which images stand, as a string of 0 and 1; a random defense is asked afresh."""
    x, y = images(defense, name, seed)
    defended = built(defense, name)
    ball = {"eps": EPS[norm][name], "norm": norm} if norm in EPS else {}
    with unsuspecting():
        x_adv = attack(Trial(defense, defended, load(name), x, y, ball, seeded(seed)))
    return "".join(str(int(stands)) for stands in ~fooled(defended.model, x_adv, y))


@dataclass(frozen=True)
class Judged:
    """One defense under one attack.

    Args:
        data: name of the data set.
        norm: one of the keys of `FULL`.
        defense: one of `DEFENSES`.
        attack: one of `FULL[norm]`.
    """

    data: str
    norm: str
    defense: str
    attack: str

    @property
    def key(self) -> dict:
        """Its fields, and the radius; None where no norm bounds the change."""
        return {"kind": "judged", **asdict(self), "eps": EPS.get(self.norm, {}).get(self.data)}

    @property
    def left_out(self) -> str | None:
        """Why there is nothing to measure; None where there is."""
        if self.attack == "tailored" and self.defense not in TAILORED:
            return "none was made for it alone"
        if self.attack == "tailored" and self.norm != TAILORED[self.defense][0]:
            return "the one made for it measures another distance"
        if self.attack == "AutoAttack" and self.defense in RANDOM:
            return "asks twice for the same answer"
        if self.defense == "Defense-GAN" and self.attack in UPHILL:
            return "no gradient passes the projection"
        if self.defense == "Defense-GAN" and self.attack in ASKING:
            return "a projection for each of a thousand questions"
        if self.attack == "L-BFGS" and self.defense in RANDOM:
            return "its line search compares answers of different draws"
        return None

    def run(self, seed: int) -> dict:
        """Which images stand."""
        attack = FULL[self.norm][self.attack]
        return {"standing": standing_after(attack, self.defense, self.data, self.norm, seed)}


UPHILL = {"FGSM", "BIM", "MIM", "PGD", "JSMA", "flow field"}
ASKING = {"Square", "NES", "ZOO", "boundary", "HopSkipJump", "substitute", "one pixel", "grid"}


@dataclass(frozen=True)
class AsPublished:
    """One defense under the attack that its own paper let loose on it.

    Args:
        data: name of the data set.
        defense: one of `AS_PUBLISHED`.
    """

    data: str
    defense: str

    @property
    def key(self) -> dict:
        """Its fields, the attack in words, its norm and radius."""
        words, norm, _ = AS_PUBLISHED[self.defense]
        eps = EPS.get(norm, {}).get(self.data)
        return {"kind": "published", **asdict(self), "attack": words, "norm": norm, "eps": eps}

    def run(self, seed: int) -> dict:
        """Which images stand."""
        _, norm, attack = AS_PUBLISHED[self.defense]
        return {"standing": standing_after(attack, self.defense, self.data, norm, seed)}


def pairs(name: str, *, full: bool = False) -> list[Judged]:
    """Every defense with every attack, those that do not apply too: the quick matrix, or the full one of all norms."""
    if full:
        return [Judged(name, norm, defense, attack) for norm in FULL for defense in DEFENSES for attack in FULL[norm]]
    return [
        Judged(name, norm, defense, attack)
        for norm, defenses in (("linf", DEFENSES), ("l2", QUICK_L2))
        for attack in QUICK
        for defense in defenses
    ]


def jobs(name: str, *, full: bool = False) -> list[Judged | AsPublished]:
    """Every applicable pair on one data set, the clean images first: that trains each defense once."""
    applicable = [job for job in pairs(name, full=full) if job.left_out is None]
    applicable.sort(key=lambda job: job.attack != "none")
    return [*applicable, *(AsPublished(name, defense) for defense in AS_PUBLISHED)]

"""The arena's defenses under the same short attacks at every eps of a grid: who leads, and by which attack."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from spai_lab.arena.opponents import opponent
from spai_lab.arena.scene import DATA, scene_of
from spai_lab.attacks.evasion import fgsm, pgd, transfer
from spai_lab.checks import check_choice, unsuspecting
from spai_lab.metrics import Rate
from spai_lab.survey.defense_models import Defended
from spai_lab.training import reference

DEFENSES = ("no defense", "distillation", "thermometer code", "one bit a pixel", "adversarial training")
EPS = tuple(round(0.05 * step, 2) for step in range(9))
IMAGES, STEPS, SEED = 40, 6, 0
ALL = "all together"
ATTACKS = ("FGSM", "PGD", "PGD that knows the defense", "transfer")


@dataclass(frozen=True, eq=False)
class Standings:
    """The arena's defenses under the same attacks, at every eps of a grid; the first eps is 0.

    Args:
        dataset: "digits" or "mnist".
        eps: the grid, E radii in L-inf.
        standing: for each defense and attack, which images are read rightly, bool `(E, N)`.
    """

    dataset: str
    eps: tuple[float, ...]
    standing: Mapping[tuple[str, str], Tensor]

    @cached_property
    def counts(self) -> dict[tuple[str, str], list[int]]:
        """For each defense and attack, or `ALL`, how many images are read rightly at each eps."""
        masks = dict(self.standing)
        for defense in DEFENSES:
            masks[defense, ALL] = torch.stack([self.standing[defense, attack] for attack in ATTACKS]).all(0)
        return {pair: mask.sum(1).tolist() for pair, mask in masks.items()}

    def left(self, defense: str, attack: str, eps: float) -> Rate:
        """The share that a defense still reads rightly: after one attack, or after `ALL` of them."""
        check_choice("attack", attack, (ALL, *ATTACKS))
        return Rate(self.counts[defense, attack][self.place(eps)], self.standing[defense, ATTACKS[0]].shape[1])

    def ranking(self, attack: str, eps: float) -> tuple[tuple[int, str, Rate], ...]:
        """Rank, defense and share, the best first; equal shares have equal ranks."""
        shares = {defense: self.left(defense, attack, eps) for defense in DEFENSES}
        order = sorted(DEFENSES, key=lambda defense: -shares[defense].hits)
        better = {name: sum(other.hits > shares[name].hits for other in shares.values()) for name in DEFENSES}
        return tuple((1 + better[name], name, shares[name]) for name in order)

    def leaders(self, attack: str, eps: float) -> tuple[str, ...]:
        """The defenses of rank 1."""
        return tuple(name for rank, name, _ in self.ranking(attack, eps) if rank == 1)

    def worst(self, defense: str, eps: float) -> str:
        """The attack that leaves a defense least."""
        return min(ATTACKS, key=lambda attack: self.left(defense, attack, eps).hits)

    def place(self, eps: float) -> int:
        """Where `eps` is on the grid."""
        if eps not in self.eps:
            raise ValueError(f"eps is {eps!r}; accepted: a radius of the grid, {self.eps[0]:g} to {self.eps[-1]:g}")
        return self.eps.index(eps)


@lru_cache(maxsize=2)
def standings(dataset: str) -> Standings:
    """Run the attacks on the defenses; what fell at one eps is not attacked again at a larger one.

    An attacker need not use all of eps: so an image that fell stays fallen, and no curve rises.

    Args:
        dataset: "digits" or "mnist".
    Returns:
        the standings on test images that are moved a little, as in the arena; kept.
    Raises:
        ValueError: names the argument.
    """
    check_choice("dataset", dataset, DATA)
    scene = scene_of(dataset, images=IMAGES, seed=SEED)
    found = {}
    for defense in DEFENSES:
        defended = opponent(defense, dataset)
        for name, attack in attacks_on(defended, dataset).items():
            found[defense, name] = torch.stack(list(survivors(defended, attack, scene.x, scene.y)))
    return Standings(dataset, EPS, found)


def survivors(defended: Defended, attack: Callable[..., Tensor], x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """Which images stand at each eps of the grid, `(N,)` each."""
    standing = defended.model(x).argmax(1) == y
    for eps in EPS:
        if eps > 0 and standing.any():
            rest = standing.nonzero()[:, 0]
            with unsuspecting():
                x_adv = attack(x[rest], y[rest], eps)
            standing = standing.clone()
            standing[rest] = defended.model(x_adv).argmax(1) == y[rest]
        yield standing


def attacks_on(defended: Defended, dataset: str) -> dict[str, Callable[[Tensor, Tensor, float], Tensor]]:
    """The attacks, each as `attack(x, y, eps)`; short ones, so that a page opens soon."""

    def seeded() -> torch.Generator:
        return torch.Generator().manual_seed(SEED)

    def climbing(model: torch.nn.Module) -> Callable[[Tensor, Tensor, float], Tensor]:
        return lambda x, y, eps: pgd(model, x, y, eps=eps, steps=STEPS, generator=seeded())

    runs = (
        lambda x, y, eps: fgsm(defended.model, x, y, eps=eps),
        climbing(defended.model),
        climbing(defended.view),
        lambda x, y, eps: transfer([reference("mlp", dataset)], x, y, eps=eps, generator=seeded()),
    )
    return dict(zip(ATTACKS, runs, strict=True))

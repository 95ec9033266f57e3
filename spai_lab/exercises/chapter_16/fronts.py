"""Which defenses are worth a look: those that no other beats at everything."""

import math

import numpy as np
import torch
from torch import Tensor

from spai_lab.exercises.chapter_16.intervals import CHAPTER
from spai_lab.exercises.exercise import Exercise


def my_undominated(clean, robust):
    """Which defenses no other one beats at everything.

    clean: each defense's accuracy on clean images, (N,).
    robust: its accuracy under attack, (N,).
    Returns a mask, bool (N,): False where another defense is at least as good
    in both, and better in one.
    """
    as_good = (clean >= clean[:, None]) & (robust >= robust[:, None])
    better = (clean > clean[:, None]) | (robust > robust[:, None])
    return ~(as_good & better).any(1)


def wants_better_in_both(clean, robust):
    """It drops only what another beats in both; to be as good in one and better in the other is enough."""
    return ~((clean > clean[:, None]) & (robust > robust[:, None])).any(1)


def drops_equals(clean, robust):
    """It drops defenses that another one equals in both, so that of two twins none is left; neither beats the other."""
    as_good = (clean >= clean[:, None]) & (robust >= robust[:, None])
    return as_good.sum(1) == 1


def takes_better_in_one(clean, robust):
    """It drops what another beats in one of the two, whatever it loses in the other; then hardly any is left."""
    return ~((clean > clean[:, None]) | (robust > robust[:, None])).any(1)


def takes_the_best_sum(clean, robust):
    """It adds the two and keeps the best sum; nobody has said what a point of one is worth in the other."""
    return clean + robust == (clean + robust).max()


def keeps_the_two_winners(clean, robust):
    """It keeps the best in each of the two alone; what lies between them may be the compromise that somebody wants."""
    return (clean == clean.max()) | (robust == robust.max())


def turns_it_around(clean, robust):
    """It returns the defenses that are beaten; the mask is to be true for the others."""
    return ~my_undominated(clean, robust)


def walks_in_order(clean, robust):
    """It compares each defense with those before it alone; a later one may beat it, too. Sort first, or take all."""
    best = torch.full((), -math.inf, dtype=robust.dtype)
    kept = []
    for value in robust:
        kept.append(bool(value > best))
        best = torch.maximum(best, value)
    return torch.tensor(kept)


def defenses(seed: int = 16) -> list[dict]:
    """Three tables: one without ties, one with ties in one column and twins, one random."""
    generator = torch.Generator().manual_seed(seed)
    ties = torch.tensor(
        [[0.97, 0.97, 0.95, 0.95, 0.90, 0.90, 0.99, 0.80], [0.10, 0.30, 0.60, 0.60, 0.60, 0.80, 0.00, 0.75]],
        dtype=torch.float64,
    )
    plain = torch.tensor([[0.99, 0.92, 0.96, 0.90, 0.98], [0.01, 0.70, 0.60, 0.65, 0.40]], dtype=torch.float64)
    drawn = torch.rand(2, 40, generator=generator, dtype=torch.float64)
    return [{"clean": table[0].clone(), "robust": table[1].clone()} for table in (plain, ties, drawn)]


def front(clean: Tensor, robust: Tensor) -> list[float]:
    """The truth by comparing each with each, in whole sentences."""
    pairs = list(zip(clean.tolist(), robust.tolist(), strict=True))

    def beats(one: tuple, other: tuple) -> bool:
        return one != other and all(a >= b for a, b in zip(one, other, strict=True))

    return [float(not any(beats(other, one) for other in pairs)) for one in pairs]


def wrong_defense(result: np.ndarray, clean, robust) -> str:
    """The first defense that is kept or dropped wrongly."""
    right = front(clean, robust)
    place = next(i for i, value in enumerate(right) if value != result[i])
    said, other = ("drops", "nothing beats it") if right[place] else ("keeps", "another beats it")
    return f"It {said} the defense with clean {clean[place]:.3g} and robust {robust[place]:.3g}, and {other} at both."


undominated = Exercise(
    chapter=CHAPTER,
    task=r"""
        **Which defenses are worth a look?** One defense is right on nearly all clean images and on none under attack;
        another gives up one clean image in ten, and keeps most of the others. Which is better depends on what you
        need. But some are beaten at everything: another one has clean accuracy $c_j \ge c_i$ and robust accuracy
        $r_j \ge r_i$, and one of the two is larger. Write `my_undominated(clean, robust)`, a mask of those that *no*
        other defense beats in this sense. (They are called the Pareto front.)
    """,
    solution=my_undominated,
    truth=front,
    cases=defenses,
    tested="5, 8 and 40 defenses, one table with ties in one column and with twins",
    hints=(
        "`clean >= clean[:, None]` compares each with each: row i says which defenses have at least as much as i.",
        "Defense i is beaten if some j is at least as good in both *and* better in one. Nobody beats itself.",
    ),
    mistakes=(
        wants_better_in_both,
        drops_equals,
        takes_better_in_one,
        takes_the_best_sum,
        keeps_the_two_winners,
        turns_it_around,
        walks_in_order,
    ),
    look=wrong_defense,
)

"""Rotation and translation: the grid of Engstrom et al. beside foolbox's and ART's.

ART moves the whole batch by one and the same transformation, the one that fools most images; so it succeeds on fewer.
"""

import torch
from torch import Tensor, nn

from benchmarks.contest import Contest, Run, art_classifier
from spai_lab.attacks.evasion.spatial import spatial
from spai_lab.query import Query

LIMITS = {"rotation": 15.0, "shift": 1.0, "grid": (7, 3)}


def ours(model: nn.Module, x: Tensor, y: Tensor) -> Run:
    """With labels alone, as foolbox uses them: the first misread image wins."""
    return lambda: spatial(Query(model, "labels"), x, y, **LIMITS)


def by_foolbox(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    rotation: float = LIMITS["rotation"],
    shift: float = LIMITS["shift"],
    grid: tuple[int, int] = LIMITS["grid"],
) -> Run:
    """Foolbox's pixel is (W - 1) / W of ours."""
    import foolbox

    width = x.shape[3]
    attack = foolbox.attacks.SpatialAttack(
        max_translation=shift * width / (width - 1),
        max_rotation=rotation,
        num_translations=grid[1],
        num_rotations=grid[0],
    )
    victim = foolbox.PyTorchModel(model, bounds=(0, 1), device=x.device)
    criterion = foolbox.criteria.Misclassification(y)
    return lambda: attack.run(victim, x, criterion)


def by_art(model: nn.Module, x: Tensor, y: Tensor) -> Run:
    from art.attacks.evasion import SpatialTransformation

    percent = 100 * LIMITS["shift"] / x.shape[3]
    rotations, translations = LIMITS["grid"]

    def run() -> Tensor:
        attack = SpatialTransformation(  # keeps the transformation it found: a new one for each run
            art_classifier(model, x),
            max_translation=percent,
            num_translations=translations,
            max_rotation=LIMITS["rotation"],
            num_rotations=rotations,
            verbose=False,
        )
        return torch.from_numpy(attack.generate(x.numpy()))

    return run


CONTESTS = (Contest("spatial (grid)", {"ours": ours, "foolbox": by_foolbox, "ART": by_art}, images=64, rounds=5),)

"""The adversarial patch: learned from the images, then stuck on each at a random place; what counts is being misread.

ART's other version needs torchvision; this one learns in NumPy and SciPy from one image after the other.
"""

import torch
from torch import Tensor, nn

from benchmarks.contest import Contest, Run, art_classifier
from spai_lab.attacks.evasion.patch import Patch, paste, patch, random_placement

SIZE = 16
SCALES = (0.8, 1.2)
ANGLE = 22.5
STEPS = 50


def ours(model: nn.Module, x: Tensor, y: Tensor) -> Run:
    return lambda: stuck(x, learned_by_us(model, x, int(y[0])))


def by_art(model: nn.Module, x: Tensor, y: Tensor) -> Run:
    return lambda: stuck(x, learned_by_art(model, x, int(y[0])))


def learned_by_us(model: nn.Module, x: Tensor, target: int, generator: torch.Generator | None = None) -> Patch:
    settings = {"size": SIZE, "scales": SCALES, "max_angle": ANGLE, "steps": STEPS, "batch_size": len(x)}
    return patch(model, x, target=target, **settings, generator=generator)


def learned_by_art(model: nn.Module, x: Tensor, target: int) -> Patch:
    """ART's patch is as large as the image, its scales are shares of the image, its randomness the module `random`."""
    from art.attacks.evasion.adversarial_patch.adversarial_patch_numpy import AdversarialPatchNumpy

    classifier = art_classifier(model, x)
    classifier._clip_values = (0.0, 1.0)  # the attack refuses the float32 into which ART turns them
    share = SIZE / x.shape[-1]
    attack = AdversarialPatchNumpy(
        classifier,
        rotation_max=ANGLE,
        scale_min=SCALES[0] * share,
        scale_max=SCALES[1] * share,
        learning_rate=5.0,
        max_iter=STEPS,
        batch_size=len(x),
        verbose=False,
    )
    pixels, mask = attack.generate(x.numpy(), y=torch.full((len(x),), target).numpy())
    return Patch(torch.from_numpy(pixels).float(), torch.from_numpy(mask[:1].copy()).float())


def stuck(x: Tensor, learned: Patch, generator: torch.Generator | None = None) -> Tensor:
    """The patch at a random place on each image, `SIZE` pixels wide at scale 1, whatever its own resolution."""
    where = random_placement(x, SIZE, scales=SCALES, max_angle=ANGLE, generator=generator)
    return paste(x, learned, *where._replace(scales=where.scales * SIZE / learned.mask.shape[1]))


CONTESTS = (Contest("Adversarial patch", {"ours": ours, "ART": by_art}, images=32, rounds=3),)

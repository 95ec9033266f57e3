"""The attacks that defenses are measured under: the quick eight, all that apply, and those of each defense's paper."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spai_lab.attacks.evasion import (
    advgan,
    auto_attack,
    bim,
    boundary,
    carlini_wagner,
    deepfool,
    fgsm,
    flow_field,
    hop_skip_jump,
    jsma,
    lbfgs,
    mim,
    nes,
    one_pixel,
    patch,
    pgd,
    spatial,
    square,
    substitute,
    transfer,
    universal_perturbation,
    zoo,
)
from spai_lab.attacks.evasion.patch import paste, random_placement
from spai_lab.data import Dataset
from spai_lab.defenses.evasion.defense_gan import latent_attack
from spai_lab.defenses.evasion.thermometer import ls_pga
from spai_lab.defenses.evasion.transformation import corner_search
from spai_lab.models import lenet
from spai_lab.query import Query
from spai_lab.survey.defense_models import Defended
from spai_lab.threat import fooled, logits_of, margin, norms, value_and_gradient
from spai_lab.training import reference

PATCH_SIDE = 11


@dataclass(frozen=True, eq=False)
class Trial:
    """What an attack is handed.

    Args:
        defense: its name.
        defended: the victim.
        data: where an attacker's own models and training images come from.
        x, y: the images to attack, and their labels.
        ball: `eps` and `norm`, as arguments of an attack; empty where no norm bounds the change.
        generator: source of all draws.
    """

    defense: str
    defended: Defended
    data: Dataset
    x: Tensor
    y: Tensor
    ball: dict[str, object]
    generator: torch.Generator

    @property
    def images(self) -> tuple[Tensor, Tensor]:
        """Images and labels."""
        return self.x, self.y


Attack = Callable[[Trial], Tensor]


def clean(trial: Trial) -> Tensor:
    """The images as they are."""
    return trial.x


def climbing(attack: Callable[..., Tensor], **settings: object) -> Attack:
    """An attack that climbs the defended model as if there were no defense."""

    def run(trial: Trial) -> Tensor:
        return attack(trial.defended.model, *trial.images, **trial.ball, **settings, generator=trial.generator)

    return run


def unaware(attack: Callable[..., Tensor], **settings: object) -> Attack:
    """An attack on the network alone, by somebody who does not know that there is a defense."""

    def run(trial: Trial) -> Tensor:
        return attack(trial.defended.network, *trial.images, **trial.ball, **settings, generator=trial.generator)

    return run


def asking(attack: Callable[..., Tensor], reveals: str = "logits", **settings: object) -> Attack:
    """An attack that asks the defended model."""

    def run(trial: Trial) -> Tensor:
        query = Query(trial.defended.model, reveals)
        return attack(query, *trial.images, **trial.ball, **settings, generator=trial.generator)

    return run


def nearest(
    attack: Callable[..., Tensor], reveals: str | None = None, aware: bool = True, **settings: object
) -> Attack:
    """An attack that seeks the least distortion: an image counts where that is within `eps`, and else comes back."""

    def run(trial: Trial) -> Tensor:
        norm = trial.ball["norm"]
        model = trial.defended.view if aware else trial.defended.network
        victim = model if reveals is None else Query(trial.defended.model, reveals)
        x_adv = attack(victim, *trial.images, **settings, generator=trial.generator)
        near = norms(x_adv - trial.x, norm) <= trial.ball["eps"]
        return torch.where(near.view(-1, *[1] * (trial.x.ndim - 1)), x_adv, trial.x)

    return run


def transferred(trial: Trial) -> Tensor:
    """Made on the two reference models; the defended one is not asked."""
    surrogates = [reference(name, trial.data) for name in ("mlp", "lenet")]
    return transfer(surrogates, *trial.images, **trial.ball, generator=trial.generator)


def copied(trial: Trial) -> Tensor:
    """Made on a network that learned the defended model's labels."""
    query = Query(trial.defended.model, "labels")
    network = lenet(trial.data.shape, trial.data.num_classes, generator=trial.generator)
    settings = {"model": network, "learning_rate": 3e-3, "generator": trial.generator}
    return pgd(substitute(query, trial.data.x_val[:300], **settings), *trial.images, **trial.ball)


def adaptive(trial: Trial, *, steps: int = 100) -> Tensor:
    """On what an attacker who knows the defense climbs: PGD on the cross-entropy; where that fails, on the margin."""
    defended, x, y = trial.defended, trial.x, trial.y
    x_adv = pgd(defended.view, x, y, **trial.ball, steps=steps, generator=trial.generator)
    standing = ~fooled(defended.model, x_adv, y)
    if standing.any():
        settings = {**trial.ball, "steps": steps, "gradient": margin_gradient, "generator": trial.generator}
        x_adv[standing] = pgd(defended.view, x[standing], y[standing], **settings)
    return x_adv


def margin_gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The gradient of how far the likeliest wrong class leads: it does not saturate."""
    return value_and_gradient(lambda x: -margin(logits_of(model, x, y), y), x)[1]


def on_the_range(trial: Trial) -> Tensor:
    """Toward misread images that the generator itself draws."""
    eps = trial.ball["eps"]
    return latent_attack(trial.defended.model, *trial.images, eps=eps, generator=trial.generator, progress=False)


def pixel_by_pixel(trial: Trial) -> Tensor:
    """On the few pixels that two gray levels let anybody change."""
    return corner_search(trial.defended.model, *trial.images, eps=trial.ball["eps"])


# Attacks made for one defense, and the norm that they measure distance in.
TAILORED: dict[str, tuple[str, Attack]] = {"Defense-GAN": ("l2", on_the_range), "bit depth 1": ("linf", pixel_by_pixel)}


def tailored(trial: Trial) -> Tensor:
    """The attack that was made for this defense."""
    return TAILORED[trial.defense][1](trial)


def with_one_perturbation(trial: Trial) -> Tensor:
    """Learned from 300 training images, added to every image."""
    learned_from = trial.data.x_train[:300]
    v = universal_perturbation(trial.defended.view, learned_from, **trial.ball, generator=trial.generator)
    return (trial.x + v).clamp(0, 1)


def with_a_generator(trial: Trial) -> Tensor:
    """Trained on 1,000 training images, run once on every image."""
    known = trial.data.x_train[:1000], trial.data.y_train[:1000]
    network = advgan(trial.defended.view, *known, **trial.ball, generator=trial.generator, progress=False)
    return network(trial.x)


def with_a_patch(trial: Trial) -> Tensor:
    """Learned from 500 training images, stuck somewhere on every image."""
    known, size = trial.data.x_train[:500], PATCH_SIDE
    learned = patch(trial.defended.view, known, target=8, size=size, generator=trial.generator)
    return paste(trial.x, learned, *random_placement(trial.x, size, generator=trial.generator))


QUICK: dict[str, Attack] = {
    "none": clean,
    "FGSM": climbing(fgsm),
    "MIM": climbing(mim),
    "PGD": climbing(pgd),
    "transfer": transferred,
    "Square": asking(square, queries=1000),
    "AutoAttack": climbing(auto_attack, steps=50, queries=1000),
    "adaptive": adaptive,
    "tailored": tailored,
}
BEYOND = {
    "BIM": climbing(bim),
    "NES": asking(nes, steps=40),
    "substitute": copied,
    "universal": with_one_perturbation,
    "AdvGAN": with_a_generator,
}
FULL: dict[str, dict[str, Attack]] = {
    "linf": QUICK
    | BEYOND
    | {
        "C&W": nearest(carlini_wagner, norm="linf", steps=200, searches=5),
        "HopSkipJump": nearest(hop_skip_jump, "labels", norm="linf", steps=20),
    },
    "l2": QUICK
    | BEYOND
    | {
        "DeepFool": nearest(deepfool),
        "C&W": nearest(carlini_wagner, steps=300, searches=5, initial_c=1.0),
        "L-BFGS": nearest(lbfgs),
        "ZOO": nearest(zoo, "scores", searches=1, steps=300, initial_c=10.0),
        "boundary": nearest(boundary, "labels", steps=3000),
        "HopSkipJump": nearest(hop_skip_jump, "labels", steps=20),
    },
    "l0": {"none": clean, "JSMA": climbing(jsma), "one pixel": asking(one_pixel, pixels=5)},
    "spatial": {"none": clean, "grid": asking(spatial), "flow field": climbing(flow_field)},
    "patch": {"none": clean, "patch": with_a_patch},
}

# What the paper of each defense let loose on it: the attack in words, its norm, the attack.
AS_PUBLISHED: dict[str, tuple[str, str, Attack]] = {
    "defensive distillation": (
        "JSMA on the softmax, up to a seventh of the pixels",
        "l0",
        climbing(jsma, output="softmax"),
    ),
    "thermometer": (
        "LS-PGA, 40 steps",
        "linf",
        lambda trial: ls_pga(
            trial.defended.model, *trial.images, eps=trial.ball["eps"], steps=40, generator=trial.generator
        ),
    ),
    "random resizing, padding": ("FGSM on the network alone", "linf", unaware(fgsm)),
    "activation pruning": ("FGSM on one draw", "linf", climbing(fgsm)),
    "bit depth 1": ("BIM on the network alone", "linf", unaware(bim)),
    "JPEG 75": ("BIM on the network alone", "linf", unaware(bim)),
    "total variation": ("BIM on the network alone", "linf", unaware(bim)),
    "Defense-GAN": ("FGSM on the network alone", "linf", unaware(fgsm)),
}

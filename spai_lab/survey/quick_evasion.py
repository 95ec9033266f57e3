"""Evasion in the quick profile: every attack on the digits, on 64 images that the reference LeNet reads rightly.

White-box attacks are here, black-box ones in `quick_evasion_black_box`. What each may spend is a table.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from spai_lab.attacks.evasion import (
    apgd,
    auto_attack,
    auto_attack_verdict,
    bim,
    carlini_wagner,
    deepfool,
    eot,
    fab,
    fgsm,
    flow_field,
    jsma,
    lbfgs,
    mim,
    patch,
    pgd,
    spatial,
)
from spai_lab.attacks.evasion.patch import paste, random_placement
from spai_lab.attacks.evasion.spatial import random_moves, transform
from spai_lab.metrics import Rate
from spai_lab.survey.defense_attacks import (
    PATCH_SIDE,
    Attack,
    Trial,
    with_a_generator,
    with_a_patch,
    with_one_perturbation,
)
from spai_lab.survey.defense_models import alike, seeded
from spai_lab.survey.evasion_jobs import DEFENSES, asking, knowing, past_noise, past_rounding, plainly
from spai_lab.survey.evasion_scene import (
    SUCCESS,
    Aimed,
    Outcome,
    Scene,
    attempted,
    least,
    scene,
    within_radii,
)
from spai_lab.survey.headline import Headline
from spai_lab.survey.measure import counted
from spai_lab.survey.quick_evasion_black_box import BLACK_BOX
from spai_lab.threat import fooled

# The attack, its settings, and in words what it spends on an image.
CLIMBS: dict[str, tuple[Callable[..., Tensor], dict, str]] = {
    "fgsm": (fgsm, {}, "1 gradient an image"),
    "bim": (bim, {"steps": 10}, "10 gradients an image"),
    "pgd": (pgd, {"steps": 40}, "40 gradients an image"),
    "mim": (mim, {"steps": 10}, "10 gradients an image"),
}
# The same, with the norm of the distortion.
LEAST: dict[str, tuple[Callable[..., Tensor], dict, str, str]] = {
    "lbfgs": (lbfgs, {}, "l2", "10 searches of at most 50 steps"),
    "jsma": (jsma, {"gamma": 0.145}, "l0", "pairs of pixels, at most 14.5 % of them"),
    "deepfool": (deepfool, {"steps": 50}, "l2", "at most 50 steps, 10 gradients each"),
    "carlini_wagner": (
        carlini_wagner,
        {"searches": 6, "steps": 300, "initial_c": 0.1, "learning_rate": 0.02},
        "l2",
        "6 searches of 300 steps",
    ),
}
ROUNDED = "pixels rounded to 4 levels"
VIEW = {"rotation": 25.0, "shift": 2.0}  # of the random view that EOT averages over, as in chapter 03
STEPS, VIEWS, LOOKS = 10, 16, 11
MOVES = ((30.0, 3.0), (15.0, 1.5))  # degrees and pixels; the headline is of the first
TARGET = 8


def climbing(here: Scene, row: str) -> Headline:
    """An attack that climbs the victim's loss."""
    attack, settings, budget = CLIMBS[row]
    return within_radii(here, lambda eps: knowing(attack, eps=eps, **settings), budget=budget)


def seeking(here: Scene, row: str) -> Headline:
    """An attack that seeks the least distortion."""
    attack, settings, norm, budget = LEAST[row]
    return least(here, knowing(attack, **settings), norm, budget)


def together(here: Scene) -> Headline:
    """AutoAttack: which of its attacks broke how many, and what two of them do alone."""
    verdict = auto_attack_verdict(here.victim, here.x, here.y, eps=here.eps, generator=seeded(here.seed))
    return within_radii(
        here,
        lambda eps: knowing(auto_attack, eps=eps),
        beside={"APGD alone": lambda eps: knowing(apgd, eps=eps), "FAB alone": lambda eps: knowing(fab)},
        budget="4 attacks in turn: APGD-CE, APGD-T, FAB-T of 100 steps, 5,000 queries of Square",
        details={"broken by": {name or "standing": count for name, count in verdict.counts.items()}},
    )


def learning(here: Scene, attack: Attack, budget: str) -> Headline:
    """An attack that learns from training images what it does to all others."""

    def aimed(eps: float) -> Callable:
        def attempt(model, x, y, generator):
            ball = {"eps": eps, "norm": "linf"}
            return attack(Trial("none", alike(model), here.data, x, y, ball, generator)), None

        return attempt

    return within_radii(here, aimed, budget=budget)


def moving(here: Scene) -> Headline:
    """Rotations and shifts, and flow fields: no norm bounds them."""

    def turned(rotation: float, shift: float) -> Outcome:
        return attempted(here, asking(spatial, "scores", rotation=rotation, shift=shift))

    found = {f"{rotation:g} degrees, {shift:g} pixels": turned(rotation, shift) for rotation, shift in MOVES}
    bent = attempted(here, knowing(flow_field))
    limits, outcome = next(iter(found.items()))
    return Headline.of_rate(
        SUCCESS,
        rate_of(outcome),
        setup=here.setup(f"at most {limits.replace(',', ' and')}"),
        budget="775 places of a grid, 776 queries an image",
        better="higher",
        details={name: counted(rate_of(each)) for name, each in found.items()}
        | {"flow field": counted(rate_of(bent)), "flow field's seconds": round(bent.seconds, 2), **outcome.cost},
    )


def past_a_staircase(here: Scene) -> Headline:
    """BPDA on a victim whose gradient is 0, beside PGD that does not know why it gets none."""
    return within_radii(
        here,
        lambda eps: partial(past_rounding, eps=eps),
        beside={
            "PGD without it": lambda eps: partial(plainly, eps=eps),
            "PGD on the network alone": unaware(here),
        },
        victim=DEFENSES[ROUNDED](here.victim),
        setup=f"victim: {ROUNDED}",
        budget="40 gradients an image",
    )


def past_random_views(here: Scene) -> Headline:
    """EOT on a victim that looks at a random view of each image, beside PGD that takes each look for the last."""

    def viewed(x: Tensor, generator: torch.Generator) -> Tensor:
        return transform(x, *random_moves(x, **VIEW, generator=generator))

    many = STEPS * VIEWS
    return within_radii(
        here,
        lambda eps: partial(past_noise, eps=eps, steps=STEPS, looks=VIEWS),
        beside={
            "PGD without it": lambda eps: partial(plainly, eps=eps, steps=STEPS),
            f"PGD without it, {many} steps": lambda eps: partial(plainly, eps=eps, steps=many),
            "PGD on the network alone": unaware(here),
        },
        victim=eot(here.victim, 1, transformation=viewed, generator=seeded(here.seed)),
        looks=LOOKS,
        setup=f"victim: a random view, within {VIEW['rotation']:g} degrees and {VIEW['shift']:g} pixels, {LOOKS} looks",
        budget=f"{many} gradients an image: {STEPS} steps of {VIEWS} views",
    )


def unaware(here: Scene) -> Aimed:
    """PGD on the network without its defense."""

    def aimed(eps: float) -> Callable:
        def attempt(model, x, y, generator):
            return plainly(here.victim, x, y, generator, eps=eps)

        return attempt

    return aimed


def sticking(here: Scene) -> Headline:
    """A patch, stuck somewhere on every image, beside one that has hardly learned anything."""

    def learned(model, x, y, generator):
        return with_a_patch(Trial("none", alike(model), here.data, x, y, {}, generator)), None

    def blank(model, x, y, generator):
        known = here.data.x_train[:500]
        gray = patch(model, known, target=TARGET, size=PATCH_SIDE, steps=1, generator=generator)
        return paste(x, gray, *random_placement(x, PATCH_SIDE, generator=generator)), None

    outcome, control = (attempted(here, attempt) for attempt in (learned, blank))
    others = here.y != TARGET
    wanted = torch.full_like(here.y, TARGET)
    taken = [fooled(here.victim, each.x_adv, wanted, targeted=True)[others] for each in (outcome, control)]
    names = (f"others taken for {TARGET}", f"others taken for {TARGET}, gray patch")
    return Headline.of_rate(
        SUCCESS,
        rate_of(outcome),
        setup=here.setup(f"{PATCH_SIDE} pixels wide, for the class {TARGET}, anywhere"),
        budget="200 steps on 500 training images, once for all",
        better="higher",
        details={name: [int(hit.sum()), len(hit)] for name, hit in zip(names, taken, strict=True)}
        | {"gray patch": counted(rate_of(control)), **outcome.cost},
    )


def rate_of(outcome: Outcome) -> Rate:
    """The share of images that are misread, however far they were moved."""
    return Rate(int(outcome.hit.sum()), len(outcome.hit))


ROWS: dict[str, Callable[[Scene], Headline]] = {
    **{row: partial(climbing, row=row) for row in CLIMBS},
    **{row: partial(seeking, row=row) for row in LEAST},
    "universal_perturbation": partial(
        learning, attack=with_one_perturbation, budget="10 passes over 300 training images, once for all"
    ),
    "spatial": moving,
    "bpda": past_a_staircase,
    "eot": past_random_views,
    "auto_attack": together,
    "advgan": partial(learning, attack=with_a_generator, budget="10 epochs of 1,000 training images, once for all"),
    "patch": sticking,
    **BLACK_BOX,
}


def measured(seed: int, *, row: str) -> Headline:
    """A row on its scene."""
    return ROWS[row](scene(seed))


QUICK: dict[str, Callable[[int], Headline]] = {row: partial(measured, row=row) for row in ROWS}

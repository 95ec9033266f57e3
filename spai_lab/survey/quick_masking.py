"""Defenses that hide the gradient, in seconds on the digits: six attacks each, of which one knows what is hidden."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from spai_lab.survey.defense_headlines import robust_headline
from spai_lab.survey.defense_models import DEFENSES, Defended, projected
from spai_lab.survey.headline import Headline
from spai_lab.survey.quick_judging import BUDGETS, DATA, IMAGES, LINF, standing, undefended


@dataclass(frozen=True)
class Masking:
    """A defense that hides the gradient.

    Args:
        name: one of `DEFENSES`.
        build: the defended model, on a data set.
        six: what attacks it, one of `SIX`.
        setup: model and setting, in words.
        trained: what its training took, in words; a reference model's was spent before.
    """

    name: str
    build: Callable[[str], Defended]
    six: str
    setup: str
    trained: str = "no training"


DRAWN, SEARCH = 800, {"steps": 50, "restarts": 4}

MASKINGS = {
    "defensive_distillation": Masking(
        "defensive distillation", DEFENSES["defensive distillation"], "masked", "LeNet, teacher and student at T = 100"
    ),
    "thermometer": Masking("thermometer", DEFENSES["thermometer"], "masked", "LeNet on thermometer codes"),
    "random_resize_pad": Masking(
        "random resizing, padding", DEFENSES["random resizing, padding"], "random", "LeNet, 24 to 28 pixels"
    ),
    "activation_pruning": Masking("activation pruning", DEFENSES["activation pruning"], "random", "LeNet"),
    "input_transformation": Masking("bit depth 1", DEFENSES["bit depth 1"], "coarse", "LeNet, pixels of 1 bit"),
    "defense_gan": Masking(
        "Defense-GAN",
        partial(projected, training=DRAWN, **SEARCH),
        "projected",
        f"LeNet behind a small generator, {SEARCH['restarts']} searches of {SEARCH['steps']} steps",
        f"{DRAWN} steps of the generator",
    ),
}


def masked(row: str, seed: int, *, number: int = IMAGES) -> Headline:
    """A row of `MASKINGS` on so many test images."""
    masking = MASKINGS[row]
    clean, attacks = standing(masking.name, masking.build(DATA), masking.six, LINF, seed, number)
    return robust_headline(
        clean,
        attacks,
        undefended("lenet", masking.six, LINF, seed, number),
        setup=f"{masking.setup}, {DATA}, {LINF}",
        budget=f"{masking.trained}; {BUDGETS[masking.six]}",
    )


QUICK = {row: partial(masked, row) for row in MASKINGS}

"""A glossary of the columns of the defenses' matrix: what each attack does, and the chapter that shows it."""

from collections.abc import Sequence

import pandas as pd

from spai_lab.checks import check_choice
from spai_lab.survey.measured_rows import lines_of
from spai_lab.survey.measured_survival import AGAINST, KNOWS, LEFT, attack_columns, proven

KNOWING_IT = "made by somebody who knows the defense of this row"
BOTH = {"clean": ("images without an attack, behind the defense", "01")}
TERMS = {
    "evasion": {
        **BOTH,
        "FGSM": ("one step along the sign of the gradient", "02"),
        "MIM": ("steps with momentum, which transfer better", "02"),
        "PGD": ("steps along the gradient, each back into the ball", "02"),
        "PGD-100 x 20": ("PGD of as many steps, from as many random starts", "08"),
        "transfer": ("made on other models; the defended one is not asked", "04"),
        "Square": ("random squares, kept where the model's scores get worse", "04"),
        "DeepFool": ("the nearest border of a class, as if borders were straight", "03"),
        "FAB": ("least distortion, on the border from both sides", "03"),
        "AutoAttack": ("several strong attacks in turn, nothing to set", "03"),
        "adaptive": ("PGD on what the defense hides: its rounding, its draws, its encoding", "07"),
        "tailored": ("made for this defense alone, since PGD misses its weak spot", "07"),
        "adaptive, L2": ("fools model and detector at once, in L2", "09"),
        "all attacks": ("images that survive every attack of their row", "03"),
        "proven": ("images that no attack within the ball can turn, by proof", "08"),
        KNOWS: (KNOWING_IT, "07"),
    },
    "poisoning": {
        **BOTH,
        "badnets": ("a mark in a corner, on images of a wrong label", "06"),
        "badnets, all to all": ("the same, each class read as the next", "06"),
        "blended": ("a faint pattern over the whole image", "06"),
        "clean label": ("right labels, on images spoiled so that the mark is what is learned", "06"),
        "hidden trigger": ("right labels, and the mark is nowhere to be seen in training", "06"),
        "inconspicuous": ("a backdoor that knows cluster defenses: poison hides among images of its own class", "10"),
        "trojan": ("put into a finished model, by a mark that excites a chosen unit", "06"),
        "random flips": ("wrong labels at random", "05"),
        "mislabeled copies": ("copies of images with wrong labels, added: the yardstick of added poison", "05"),
        "guided flips": ("wrong labels where they add most error", "05"),
        "SVM poisoning": ("added points, moved along the gradient of the validation error", "05"),
        "back-gradient": ("added images, moved along a gradient through the training", "05"),
        "generative": ("added images that an autoencoder learns to draw", "05"),
        "least impact": ("back-gradient poison that does least harm alone, which RONI therefore lets in", "10"),
        "loud": ("participants whose update is so large that it replaces the mean", "10"),
        "adaptive": ("participants who know the aggregate, and stay where it does not cut", "10"),
        "strongest": ("what is left by the attack of a row that leaves least", "10"),
        KNOWS: (KNOWING_IT, "10"),
    },
}


def table_terms(measurement: dict | None = None, *, against: str) -> pd.DataFrame:
    """What the columns of `figure_defenses` mean.

    Args:
        measurement: as `run_survey` returns it: the columns that its matrix has; None takes all.
        against: "evasion" or "poisoning".
    Returns:
        a line for each: `name`, `meaning` in a few words, and the `chapter` that shows it.
    Raises:
        ValueError: this is no measurement of the survey, or there are no such defenses.

    >>> table_terms(against="evasion").set_index("name").loc["MIM", "meaning"]
    'steps with momentum, which transfer better'
    """
    check_choice("against", against, tuple(AGAINST))
    terms = TERMS[against]
    names = list(terms) if measurement is None else columns_met(measurement, against)
    return pd.DataFrame([(name, *terms[name]) for name in names], columns=["name", "meaning", "chapter"])


def columns_met(measurement: dict, against: str) -> Sequence[str]:
    """The columns that a measurement's matrix has, those alone that the glossary knows."""
    lines = lines_of(measurement, AGAINST[against])
    last = ["proven"] if any(proven(line) is not None for line in lines) else []
    met = ["clean", *attack_columns(lines), LEFT[AGAINST[against]], *last, KNOWS]
    return [name for name in met if name in TERMS[against]]

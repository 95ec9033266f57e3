"""Detectors in seconds on the digits: what fools the model and passes, of five attacks and of one that knows it all."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from spai_lab.checks import unsuspecting
from spai_lab.data import load
from spai_lab.defenses.evasion.detection import evade, evades, scored, threshold_at
from spai_lab.survey.defense_headlines import count, detector_headline
from spai_lab.survey.defense_models import Defended, seeded
from spai_lab.survey.detection_jobs import KNOWN_FPR, Guarded, dimensioned, magnetized, squeezed
from spai_lab.survey.headline import Headline
from spai_lab.survey.headline_rows import kept
from spai_lab.survey.quick_judging import BUDGETS, DATA, IMAGES, LINF, SIX, attacked, images, undefended
from spai_lab.training import reference

LEARNED = 1000  # steps of each of MagNet's autoencoders


@dataclass(frozen=True)
class Detecting:
    """A detector in front of a model.

    Args:
        name: what the detection family calls it, which has tuned the adaptive attack on it.
        build: the guarded model, on a data set.
        setup: model and setting, in words.
        trained: what its training took, in words.
    """

    name: str
    build: Callable[[str], Guarded]
    setup: str
    trained: str


DETECTINGS = {
    "feature_squeezing": Detecting(
        "feature squeezing", squeezed, "LeNet, pixels of 1 bit and a 2 x 2 median", "no training"
    ),
    "magnet": Detecting(
        "MagNet",
        partial(magnetized, steps=LEARNED),
        "LeNet behind a reformer, two detectors",
        f"{LEARNED:,} steps of two autoencoders",
    ),
    "lid": Detecting("LID, from PGD", dimensioned("PGD"), "LeNet, learned from PGD", "PGD on 600 training images"),
}


def detected(row: str, seed: int, *, number: int = IMAGES, build: Callable[[str], Guarded] | None = None) -> Headline:
    """A row of `DETECTINGS`, or one built otherwise, at a threshold from validation images."""
    detecting, data = DETECTINGS[row], load(DATA)
    guard = (build or detecting.build)(DATA)
    t = threshold_at(scored(guard.detector, data.x_val), KNOWN_FPR)
    x, y = images(seed, number)
    defended = Defended(guard.model, guard.model, reference("lenet", DATA))
    x_adv = attacked(detecting.name, defended, SIX["guarded"], LINF, seed, number)
    tuned = kept(f"detection_{DATA}", detector=detecting.name, attack="adaptive")["settings"]
    ball = LINF.arguments | {"restarts": 3, "generator": seeded(seed)}
    with unsuspecting():
        x_adv["adaptive"] = evade(guard.model, x, y, [guard.view], [t], **ball, **tuned)
    held = {name: ~evades(guard.model, x, y, [guard.detector], [t]) for name, x in x_adv.items()}
    rejected = scored(guard.detector, x) > t
    return detector_headline(
        held.pop("clean") & ~rejected,
        held,
        undefended("lenet", "guarded", LINF, seed, number),
        alarms=count(rejected),
        setup=f"{detecting.setup}, {100 * KNOWN_FPR:g} % false alarms on validation images, {DATA}, {LINF}",
        budget=f"{detecting.trained}; {BUDGETS['guarded']}, tuned on validation images",
    )


QUICK = {row: partial(detected, row) for row in DETECTINGS}

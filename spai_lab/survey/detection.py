"""Detectors, judged: what they catch of each attack at a false positive rate, and what evades model and detector."""

from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from spai_lab.defenses.evasion.detection import threshold_at
from spai_lab.metrics import Rate, Roc, roc
from spai_lab.survey.detection_jobs import ADAPTIVE, DETECTORS, KNOWN_FPR, UNAWARE, jobs
from spai_lab.survey.ledger import Comparison, published
from spai_lab.survey.measure import measure, row_of

STATIC = tuple(UNAWARE)
ADVERSARIAL = (*STATIC, *ADAPTIVE)


def measure_detection(name: str, *, seed: int = 0, fresh: bool = False, file: Path | None = None) -> dict:
    """Measure all of it on one data set, `name`; the other arguments are those of `measure`."""
    return measure(f"detection_{name}", jobs(name), ("lenet",), data=name, seed=seed, fresh=fresh, file=file)


def scores_of(measurement: dict, detector: str, attack: str) -> Tensor:
    """What the detector says of each image, float64 `(N,)`."""
    return torch.tensor(row_of(measurement, detector=detector, attack=attack)["scores"], dtype=torch.float64)


def fools(measurement: dict, detector: str, attack: str) -> Tensor:
    """Which images fool the model, bool `(N,)`."""
    return torch.tensor([mark == "1" for mark in row_of(measurement, detector=detector, attack=attack)["fools"]])


def threshold(measurement: dict, detector: str, fpr: float) -> float:
    """The threshold at a false positive rate on the clean validation images."""
    return threshold_at(scores_of(measurement, detector, "validation"), fpr)


def false_alarms(measurement: dict, detector: str, fpr: float) -> Rate:
    """Of the clean test images, how many the threshold for `fpr` rejects."""
    rejected = scores_of(measurement, detector, "none") > threshold(measurement, detector, fpr)
    return Rate(int(rejected.sum()), len(rejected))


def caught(measurement: dict, detector: str, attack: str, fpr: float) -> Rate | None:
    """Of the images that fool the model, how many the threshold for `fpr` rejects; None where none fools it."""
    scores = scores_of(measurement, detector, attack)[fools(measurement, detector, attack)]
    rejected = scores > threshold(measurement, detector, fpr)
    return Rate(int(rejected.sum()), len(rejected)) if len(rejected) else None


def evading(measurement: dict, detector: str, attack: str, fpr: float = KNOWN_FPR) -> Rate:
    """Of all attacked images, how many fool the model and pass the detector: what the attack has achieved."""
    passed = scores_of(measurement, detector, attack) <= threshold(measurement, detector, fpr)
    through = fools(measurement, detector, attack) & passed
    return Rate(int(through.sum()), len(through))


def detection_roc(measurement: dict, detector: str, attack: str) -> Roc | None:
    """The curve between clean test images and those that fool the model; None where none fools it."""
    guilty = scores_of(measurement, detector, attack)[fools(measurement, detector, attack)]
    innocent = scores_of(measurement, detector, "none")
    if not len(guilty):
        return None
    return roc(torch.cat([guilty, innocent]), torch.arange(len(guilty) + len(innocent)) < len(guilty))


def detection_table(measurement: dict) -> pd.DataFrame:
    """For each detector and attack: how many fool the model, what is caught, what evades, and the area under the curve.

    Args:
        measurement: as `measure_detection` returns it.
    Returns:
        a row for each detector and attack; shares in [0, 1], NaN where no image fools the model.
    """
    rows = []
    for detector in DETECTORS:
        for attack in ADVERSARIAL:
            curve = detection_roc(measurement, detector, attack)
            at_one, at_five = (caught(measurement, detector, attack, fpr) for fpr in (0.01, 0.05))
            rows.append(
                {
                    "detector": detector,
                    "attack": attack,
                    "fools the model": fools(measurement, detector, attack).double().mean().item(),
                    "area": curve.area if curve else float("nan"),
                    "caught at 1 %": at_one.value if at_one else float("nan"),
                    "caught at 5 %": at_five.value if at_five else float("nan"),
                    "evades at 5 %": evading(measurement, detector, attack).value,
                }
            )
    return pd.DataFrame(rows).set_index(["detector", "attack"])


def detection_compared(measurement: dict) -> list[Comparison]:
    """The published figures of detectors, each beside what was measured for it on MNIST."""
    ledger = published()
    parts = [caught(measurement, "feature squeezing", attack, 0.04) for attack in STATIC]
    joint = Rate(sum(rate.hits for rate in parts if rate), sum(rate.trials for rate in parts if rate))
    through = evading(measurement, "MagNet", "C&W", 0.001)
    held = Rate(through.trials - through.hits, through.trials)
    adaptive = evading(measurement, "LID, from PGD", "adaptive")
    left = Rate(adaptive.trials - adaptive.hits, adaptive.trials)
    misread = fools(measurement, "LID, from PGD", "C&W")  # LID leaves the network as it is
    plain = Rate(len(misread) - int(misread.sum()), len(misread))
    besides = (
        ("squeezing-detected", joint, "LeNet, four attacks", "fewer attacks, another network"),
        ("magnet-undefended", plain, "LeNet", "another network"),
        ("magnet-carlini-wagner", held, "LeNet", "another network, a shorter training"),
        ("lid-adaptive", left, "LeNet on MNIST, at 5 % false positives", "other data, another attack"),
    )
    return [
        Comparison(ledger[name], rate.value, rate.trials, rate.interval, ours, differs)
        for name, rate, ours, differs in besides
    ]

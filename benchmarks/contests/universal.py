"""The universal perturbation: learned from the images, then judged on them."""

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.contest import Contest, Run, art_classifier
from spai_lab.attacks.evasion.universal import universal_perturbation

EPS = 0.3
PASSES = 2
STEPS = 10
RATE = 0.8


def ours(model: nn.Module, x: Tensor, y: Tensor, *, eps: float = EPS, norm: str = "linf") -> Run:
    def run() -> Tensor:
        v = universal_perturbation(model, x, y, eps=eps, norm=norm, fooling_rate=RATE, passes=PASSES, steps=STEPS)
        return (x + v).clamp(0, 1)

    return run


def by_art(model: nn.Module, x: Tensor, y: Tensor, *, eps: float = EPS, norm: str = "linf") -> Run:
    """The perturbation is the attack's `noise`; its images are clipped."""
    from art.attacks.evasion import UniversalPerturbation

    attack = art_attack(UniversalPerturbation, model, x, eps, norm)
    return lambda: torch.from_numpy(attack.generate(x.numpy(), y=y.numpy()))


def art_attack(attack, model: nn.Module, x: Tensor, eps: float, norm: str):
    """ART's attack at our settings; it goes from image to image and draws their order from the module `random`."""
    return attack(
        art_classifier(model, x),
        attacker="deepfool",
        attacker_params={"max_iter": STEPS, "epsilon": 0.02, "verbose": False},
        delta=1 - RATE,
        max_iter=PASSES,
        eps=eps,
        norm={"linf": np.inf, "l2": 2}[norm],
        batch_size=len(x),
        verbose=False,
    )


CONTESTS = (Contest("Universal perturbation", {"ours": ours, "ART": by_art}, images=32, rounds=3),)

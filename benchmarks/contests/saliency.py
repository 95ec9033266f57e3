"""JSMA beside torchattacks, which derives the logits, and ART, which takes the target's logit alone."""

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.contest import Contest, Run, art_classifier
from spai_lab.attacks.evasion.saliency import jsma

GAMMA = 0.145


def ours(model: nn.Module, x: Tensor, t: Tensor, *, output: str = "probabilities") -> Run:
    return lambda: jsma(model, x, t, gamma=GAMMA, targeted=True, output=output)


def by_torchattacks(model: nn.Module, x: Tensor, t: Tensor, *, theta: float = 1.0) -> Run:
    import torchattacks

    attack = torchattacks.JSMA(model, theta=theta, gamma=GAMMA)
    attack.set_mode_targeted_by_label(quiet=True)
    return lambda: attack(x, t)


def by_art(model: nn.Module, x: Tensor, t: Tensor, *, theta: float = 1.0) -> Run:
    from art.attacks.evasion import SaliencyMapMethod

    attack = SaliencyMapMethod(art_classifier(model, x), theta=theta, gamma=GAMMA, batch_size=len(x), verbose=False)
    pixels, targets = x.numpy(), np.eye(10, dtype=np.float32)[t.numpy()]
    return lambda: torch.from_numpy(attack.generate(pixels, y=targets))


CONTESTS = (
    Contest("JSMA", {"ours": ours, "ART": by_art}, images=64, rounds=3, targeted=True, norm="l0"),
    Contest(
        "JSMA of the logits",
        {"ours": partial(ours, output="logits"), "torchattacks": by_torchattacks},
        images=4,
        rounds=2,
        targeted=True,
        norm="l0",
    ),
)

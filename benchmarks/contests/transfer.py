"""Transfer from one surrogate, which the libraries have too: the momentum iterative method, pixel for pixel."""

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.contest import Contest, Run, art_classifier
from spai_lab.attacks.evasion.transfer import transfer

EPS = 0.1
STEPS = 10


def ours(model: nn.Module, x: Tensor, y: Tensor, *, targeted: bool = False) -> Run:
    return lambda: transfer([model], x, y, eps=EPS, steps=STEPS, targeted=targeted)


def by_torchattacks(model: nn.Module, x: Tensor, y: Tensor, *, targeted: bool = False) -> Run:
    import torchattacks

    attack = torchattacks.MIFGSM(model, eps=EPS, alpha=EPS / STEPS, steps=STEPS, decay=1.0)
    if targeted:
        attack.set_mode_targeted_by_label(quiet=True)
    return partial(attack, x, y)


def by_art(model: nn.Module, x: Tensor, y: Tensor, *, targeted: bool = False) -> Run:
    from art.attacks.evasion import MomentumIterativeMethod

    settings = {"eps": EPS, "eps_step": EPS / STEPS, "max_iter": STEPS, "decay": 1.0, "targeted": targeted}
    attack = MomentumIterativeMethod(art_classifier(model, x), **settings, batch_size=len(x), verbose=False)
    pixels, labels = x.numpy(), np.eye(10, dtype=np.float32)[y.numpy()]
    return lambda: torch.from_numpy(attack.generate(pixels, y=labels))


CONTESTS = (
    Contest(
        "transfer, one surrogate",
        {"ours": ours, "torchattacks": by_torchattacks, "ART": by_art},
        images=256,
        rounds=10,
    ),
)

"""APGD, FAB toward each class, and AutoAttack in L-inf, at radii at which they fool some of the images and not all.

FAB runs 20 steps, to keep this short, and leaves an image that it has broken within the radius, here and in
torchattacks, which gives the others back clean: its success is the share within the radius, ours that at any distance.
torchattacks' own AutoAttack runs 10 steps of each attack; here all run the paper's 100, so its four attacks are put
together by hand.
"""

from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.contest import Contest, Run, art_classifier
from spai_lab.attacks.evasion.apgd import Loss, apgd, cross_entropy, dlr
from spai_lab.attacks.evasion.auto_attack import auto_attack
from spai_lab.attacks.evasion.fab import fab
from spai_lab.threat import norms, per_image

EPS = 0.08
STEPS = 100
FAB_STEPS = 20
QUERIES = 5000
NAMES = {"linf": "Linf", "l2": "L2"}
LOSSES = {cross_entropy: "ce", dlr: "dlr"}


# --- the peers --------------------------------------------------------------------------------------------------------


def apgd_by_torchattacks(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float = EPS,
    norm: str = "linf",
    steps: int = STEPS,
    loss: Loss = cross_entropy,
    samples: int = 1,
    seed: int = 0,
) -> Run:
    import torchattacks

    settings = {"eps": eps, "norm": NAMES[norm], "steps": steps, "seed": seed}
    return partial(torchattacks.APGD(model, loss=LOSSES[loss], eot_iter=samples, **settings), x, y)


def apgd_by_art(
    model: nn.Module, x: Tensor, y: Tensor, *, eps: float = EPS, norm: str = "linf", steps: int = STEPS
) -> Run:
    import numpy as np
    import torch
    from art.attacks.evasion import AutoProjectedGradientDescent

    attack = AutoProjectedGradientDescent(
        art_classifier(model, x),
        norm={"linf": np.inf, "l2": 2}[norm],
        eps=eps,
        eps_step=2 * eps,
        max_iter=steps,
        nb_random_init=1,
        batch_size=len(x),
        loss_type="cross_entropy",
        verbose=False,
    )
    pixels, labels = x.numpy(), y.numpy()
    return lambda: torch.from_numpy(attack.generate(pixels, y=labels))


def apgd_t_by_torchattacks(
    model: nn.Module, x: Tensor, y: Tensor, *, eps: float = EPS, steps: int = STEPS, seed: int = 0
) -> Run:
    """In L-inf: in L2 it gives every image the step size of the first."""
    import torchattacks

    return partial(torchattacks.APGDT(model, eps=eps, steps=steps, seed=seed), x, y)


def fab_by_torchattacks(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float = EPS,
    norm: str = "linf",
    steps: int = FAB_STEPS,
    toward_each: bool = True,
) -> Run:
    import torchattacks

    return partial(torchattacks.FAB(model, norm=NAMES[norm], eps=eps, steps=steps, multi_targeted=toward_each), x, y)


def auto_attack_by_torchattacks(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float = EPS,
    steps: int = STEPS,
    queries: int = QUERIES,
    seed: int = 0,
) -> Run:
    import torchattacks

    ball = {"eps": eps, "seed": seed}
    attacks = [
        torchattacks.APGD(model, steps=steps, **ball),
        torchattacks.APGDT(model, steps=steps, **ball),
        torchattacks.FAB(model, steps=steps, multi_targeted=True, **ball),
        torchattacks.Square(model, n_queries=queries, **ball),
    ]
    return partial(torchattacks.MultiAttack(attacks), x, y)


# --- ours -------------------------------------------------------------------------------------------------------------


def apgd_ours(model: nn.Module, x: Tensor, y: Tensor) -> Run:
    return lambda: apgd(model, x, y, eps=EPS, steps=STEPS)


def fab_ours(model: nn.Module, x: Tensor, y: Tensor) -> Run:
    """What FAB finds beyond eps counts as a failure, as it does for the peer."""

    def run() -> Tensor:
        x_adv = fab(model, x, y, steps=FAB_STEPS, enough=EPS)
        far = norms(x_adv - x, "linf") > EPS
        return torch.where(per_image(far, x), x, x_adv)

    return run


def auto_attack_ours(model: nn.Module, x: Tensor, y: Tensor) -> Run:
    return lambda: auto_attack(model, x, y, eps=EPS, steps=STEPS, queries=QUERIES)


CONTESTS = (
    Contest("APGD", {"ours": apgd_ours, "torchattacks": apgd_by_torchattacks, "ART": apgd_by_art}, images=64, rounds=5),
    Contest("FAB-T", {"ours": fab_ours, "torchattacks": fab_by_torchattacks}, images=16, rounds=3),
    Contest("AutoAttack", {"ours": auto_attack_ours, "torchattacks": auto_attack_by_torchattacks}, images=8, rounds=2),
)

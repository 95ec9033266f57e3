"""Carlini and Wagner's attacks beside torchattacks, foolbox and ART: the same searches for c, steps and step size.

torchattacks keeps c fixed, so all keep it fixed where it competes. foolbox gives a black image where it found none;
here the clean one takes its place, so that a failure counts as one.
"""

from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.contest import Contest, Run, art_classifier
from spai_lab.attacks.evasion.carlini_wagner import carlini_wagner


def ours(model: nn.Module, x: Tensor, y: Tensor, *, targeted: bool = False, **budget) -> Run:
    return lambda: carlini_wagner(model, x, y, targeted=targeted, **budget)


def by_torchattacks(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    steps: int,
    initial_c: float,
    searches: int = 1,
    learning_rate: float = 1e-2,
    targeted: bool = False,
) -> Run:
    import torchattacks

    if searches != 1:
        raise ValueError(f"searches is {searches}; accepted: 1, torchattacks does not search for c")
    attack = torchattacks.CW(model, c=initial_c, steps=steps, lr=learning_rate)
    if targeted:
        attack.set_mode_targeted_by_label(quiet=True)
    return lambda: attack(x, y)


def by_foolbox(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    steps: int,
    initial_c: float,
    searches: int,
    learning_rate: float = 1e-2,
    targeted: bool = False,
) -> Run:
    import foolbox

    attack = foolbox.attacks.L2CarliniWagnerAttack(searches, steps, learning_rate, initial_const=initial_c)
    victim = foolbox.PyTorchModel(model, bounds=(0, 1), device=x.device)
    criterion = foolbox.criteria.TargetedMisclassification(y) if targeted else foolbox.criteria.Misclassification(y)

    def run() -> Tensor:
        x_adv = attack.run(victim, x, criterion)
        return torch.where((x_adv == 0).flatten(1).all(1).view(-1, 1, 1, 1), x, x_adv)

    return run


def by_art(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    steps: int,
    initial_c: float,
    searches: int,
    learning_rate: float = 1e-2,
    targeted: bool = False,
) -> Run:
    from art.attacks.evasion import CarliniL2Method

    attack = CarliniL2Method(
        art_classifier(model, x),
        max_iter=steps,
        binary_search_steps=searches,
        initial_const=initial_c,
        learning_rate=learning_rate,
        targeted=targeted,
        batch_size=len(x),
        verbose=False,
    )
    return lambda: torch.from_numpy(attack.generate(x.numpy(), y=y.numpy()))


def by_art_linf(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    steps: int,
    initial_c: float,
    searches: int,
    learning_rate: float = 1e-2,
    targeted: bool = False,
) -> Run:
    """ART multiplies c until it exceeds the largest, which here allows as many values as ours tries."""
    from art.attacks.evasion import CarliniLInfMethod

    attack = CarliniLInfMethod(
        art_classifier(model, x),
        max_iter=steps,
        initial_const=initial_c,
        const_factor=10.0,
        largest_const=initial_c * 10 ** (searches - 0.5),
        learning_rate=learning_rate,
        targeted=targeted,
        batch_size=len(x),
        verbose=False,
    )
    return lambda: torch.from_numpy(attack.generate(x.numpy(), y=y.numpy()))


LEARNING_RATE = 0.1  # with .01 and so few steps no black pixel would brighten: its tanh(w) is almost -1
FIXED = {"steps": 50, "searches": 1, "initial_c": 10.0, "learning_rate": LEARNING_RATE}
LINF = {"steps": 60, "searches": 3, "initial_c": 1.0, "learning_rate": LEARNING_RATE}
CONTESTS = (
    Contest(
        "C&W L2, c = 10, 50 steps",
        {
            "ours": partial(ours, **FIXED),
            "torchattacks": partial(by_torchattacks, **FIXED),
            "foolbox": partial(by_foolbox, **FIXED),
        },
        images=64,
        rounds=9,
        norm="l2",
    ),
    Contest(
        "C&W L2, c = 10, 50 steps",
        {"ours": partial(ours, **FIXED), "ART": partial(by_art, **FIXED)},
        images=8,
        rounds=3,
        norm="l2",
    ),
    Contest(
        "C&W L-inf, 3 values of c, 60 steps",
        {"ours": partial(ours, norm="linf", **LINF), "ART": partial(by_art_linf, **LINF)},
        images=4,
        rounds=2,
        norm="linf",
    ),
)

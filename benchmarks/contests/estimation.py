"""ZOO beside ART, and NES beside torchattacks' SPSA, which also follows estimated slopes; equal numbers of queries."""

from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.contest import Contest, Run, art_classifier
from spai_lab.attacks.evasion.estimation import nes, zoo
from spai_lab.query import Query

EPS = 0.15
LOOKS = 50
BUDGET = {"steps": 30, "searches": 1, "initial_c": 10.0, "learning_rate": 0.1}


def zoo_ours(model: nn.Module, x: Tensor, y: Tensor) -> Run:
    return lambda: zoo(Query(model), x, y, **BUDGET)


def zoo_by_art(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    steps: int,
    searches: int,
    initial_c: float,
    learning_rate: float = 0.01,
) -> Run:
    """One image and 128 coordinates at a time, which ART recommends; its noise adds up over the iterations."""
    from art.attacks.evasion import ZooAttack

    attack = ZooAttack(
        art_classifier(model, x),
        max_iter=steps,
        binary_search_steps=searches,
        initial_const=initial_c,
        learning_rate=learning_rate,
        abort_early=False,
        use_resize=False,
        use_importance=False,
        nb_parallel=128,
        batch_size=1,
        verbose=False,
    )
    pixels, labels = x.numpy(), y.numpy()
    return lambda: torch.from_numpy(attack.generate(pixels, y=labels))


def nes_ours(model: nn.Module, x: Tensor, y: Tensor) -> Run:
    return lambda: nes(Query(model), x, y, eps=EPS, steps=20, samples=LOOKS)


def nes_by_torchattacks(model: nn.Module, x: Tensor, y: Tensor, *, eps: float = EPS, steps: int = 20) -> Run:
    """SPSA with Adam: signs instead of Gaussian directions, looks further away, no stop at success."""
    import torchattacks

    attack = torchattacks.SPSA(
        model, eps=eps, delta=0.01, lr=eps / 10, nb_iter=steps, nb_sample=LOOKS // 2, max_batch_size=LOOKS // 2
    )
    return partial(attack, x, y)


CONTESTS = (
    Contest("ZOO", {"ours": zoo_ours, "ART": partial(zoo_by_art, **BUDGET)}, images=2, rounds=3, norm="l2"),
    Contest("NES", {"ours": nes_ours, "torchattacks SPSA": nes_by_torchattacks}, images=16, rounds=3),
)

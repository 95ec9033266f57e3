"""Square and one_pixel at equal budgets of queries.

torchattacks evolves so many candidates as fit its population into whole multiples of the number of genes; we take as
many. ART's Square asks the model three times a step, and its one-pixel attack fixes its population at about 400.
"""

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.contest import Contest, Run, art_classifier
from spai_lab.attacks.evasion.search import one_pixel, square
from spai_lab.query import Query

EPS = {"linf": 0.12, "l2": 2.0}
QUERIES = 200
PIXELS, POPULATION, GENERATIONS = 5, 30, 10


def square_ours(model: nn.Module, x: Tensor, y: Tensor, *, norm="linf", eps=None, queries=QUERIES, seed=0) -> Run:
    settings = {"eps": EPS[norm] if eps is None else eps, "norm": norm, "queries": queries}
    return lambda: square(Query(model), x, y, **settings, generator=torch.Generator().manual_seed(seed))


def square_by_torchattacks(
    model: nn.Module, x: Tensor, y: Tensor, *, norm="linf", eps=None, queries=QUERIES, seed=0
) -> Run:
    """It counts neither its look at the images nor its start; its seed sets torch's global randomness."""
    import torchattacks

    name, eps = {"linf": "Linf", "l2": "L2"}[norm], EPS[norm] if eps is None else eps
    attack = torchattacks.Square(model, norm=name, eps=eps, n_queries=queries - 2, seed=seed)
    return lambda: isolated(attack, x, y, seed)


def square_by_art(model: nn.Module, x: Tensor, y: Tensor) -> Run:
    from art.attacks.evasion import SquareAttack

    settings = {"eps": EPS["linf"], "max_iter": QUERIES - 2, "p_init": 0.8, "batch_size": len(x), "verbose": False}
    attack = SquareAttack(art_classifier(model, x), **settings)
    return lambda: torch.from_numpy(attack.generate(x.numpy(), y=np.eye(10, dtype=np.float32)[y.numpy()]))


def one_pixel_ours(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    pixels: int = PIXELS,
    population: int = POPULATION,
    generations: int = GENERATIONS,
    seed: int = 0,
) -> Run:
    """Greedy, as the libraries are."""
    settings = {"pixels": pixels, "population": population, "generations": generations, "greedy": True}
    return lambda: one_pixel(Query(model), x, y, **settings, generator=torch.Generator().manual_seed(seed))


def one_pixel_by_torchattacks(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    pixels: int = PIXELS,
    population: int = POPULATION,
    generations: int = GENERATIONS,
    seed: int = 0,
) -> Run:
    import torchattacks

    attack = torchattacks.OnePixel(model, pixels=pixels, steps=generations, popsize=population)
    return lambda: isolated(attack, x, y, seed)


def isolated(attack, x: Tensor, y: Tensor, seed: int) -> Tensor:
    """The attack's images for a seed; the global randomness that it draws from is put back."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        with torch.random.fork_rng():
            return attack(x, y)
    finally:
        np.random.set_state(state)  # noqa: NPY002


def square_l2_ours(model: nn.Module, x: Tensor, y: Tensor) -> Run:
    return square_ours(model, x, y, norm="l2")


def square_l2_by_torchattacks(model: nn.Module, x: Tensor, y: Tensor) -> Run:
    return square_by_torchattacks(model, x, y, norm="l2")


CONTESTS = (
    Contest(
        f"Square, L-inf, {QUERIES} queries",
        {"ours": square_ours, "torchattacks": square_by_torchattacks, "ART": square_by_art},
        images=32,
        rounds=5,
    ),
    Contest(
        f"Square, L2, {QUERIES} queries",
        {"ours": square_l2_ours, "torchattacks": square_l2_by_torchattacks},
        images=32,
        rounds=5,
    ),
    Contest(
        f"one_pixel, {PIXELS} pixels, {POPULATION * (GENERATIONS + 1)} queries",
        {"ours": one_pixel_ours, "torchattacks": one_pixel_by_torchattacks},
        images=32,
        rounds=5,
        model="lenet-robust",
    ),
)

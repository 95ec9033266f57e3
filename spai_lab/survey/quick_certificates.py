"""Certificates in seconds on the digits: what is proven, and that six attacks turn nothing of it."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from spai_lab.attacks.evasion import eot
from spai_lab.defenses.evasion import convex_relaxation, randomized_smoothing
from spai_lab.defenses.evasion.ibp import interval_margins, verified
from spai_lab.defenses.evasion.smoothing import noisy, smoothed_prediction
from spai_lab.survey.defense_headlines import certified_headline, count
from spai_lab.survey.defense_models import Defended, alike, seeded
from spai_lab.survey.headline import Headline
from spai_lab.survey.quick_judging import (
    BUDGETS,
    DATA,
    IMAGES,
    LINF,
    SIX,
    Ball,
    attacked,
    images,
    standing,
    undefended,
)
from spai_lab.survey.quick_training import BETWEEN_LINES, RECIPES, SIGMA, trained

NEAR = Ball("l2", 1.0)
VOTES, ASKED, ANSWERS = 2000, 500, 25  # copies that prove a radius, that judge an attack, that answer a query
LOOKS = 16  # draws of noise over which the adaptive attack on smoothing averages


class Vote(nn.Module):
    """The smoothed classifier as an attacker asks it: the logarithm of each class's share of a few noisy copies."""

    def __init__(self, network: nn.Module, copies: int, generator: torch.Generator) -> None:
        super().__init__()
        self.network, self.copies, self.generator = network, copies, generator
        self.training = False

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        copies = noisy(x.repeat_interleave(self.copies, 0), SIGMA, self.generator)
        answers = self.network(copies)
        won = nn.functional.one_hot(answers.argmax(1), answers.shape[1]).view(len(x), self.copies, -1).sum(1)
        return ((won + 1) / (self.copies + answers.shape[1])).log()


def smoothed(network: nn.Module) -> Defended:
    """Randomized smoothing of a network: a vote to ask, the mean over noise to climb, the network alone."""

    def with_noise(x: Tensor, generator: torch.Generator) -> Tensor:
        return noisy(x, SIGMA, generator)

    view = eot(network, LOOKS, transformation=with_noise, generator=seeded())
    return Defended(Vote(network, ANSWERS, seeded()), view, network)


def smoothing(seed: int, *, number: int = IMAGES, epochs: int | None = None, n: int = VOTES) -> Headline:
    """The vote of a LeNet that was trained with the same noise; who abstains is not right."""
    epochs = RECIPES["randomized_smoothing"].epochs if epochs is None else epochs
    network = trained("randomized_smoothing", seed, epochs)
    x, y = images(seed, number)
    proof = randomized_smoothing(network, x, sigma=SIGMA, n=n, generator=seeded(seed), progress=False)
    voted = {
        name: smoothed_prediction(network, x, sigma=SIGMA, n=ASKED, generator=seeded(seed + 1), progress=False)
        for name, x in attacked("smoothing", smoothed(network), SIX["smoothed"], NEAR, seed, number).items()
    }
    right = {name: classes == y for name, classes in voted.items()}
    certified = (proof.classes == y) & (proof.radius >= NEAR.eps)
    return certified_headline(
        certified,
        right.pop("clean"),
        right,
        undefended("lenet", "smoothed", NEAR, seed, number),
        setup=f"LeNet, sigma {SIGMA:g}, {DATA}, {NEAR}",
        budget=f"{epochs} epochs; {n:,} votes an image for the proof, {ASKED} to judge; {BUDGETS['smoothed']}",
        details={"abstained": count(proof.abstained)},
    )


def proven(
    row: str,
    ball: Ball,
    bounds: dict[str, Callable[..., Tensor]],
    words: str,
    victim: str,
    seed: int,
    *,
    number: int = IMAGES,
    epochs: int | None = None,
) -> Headline:
    """A network whose margins are bounded from below: by the first of some bounds; the others for comparison."""
    epochs = RECIPES[row].epochs if epochs is None else epochs
    model = trained(row, seed, epochs)
    x, y = images(seed, number)
    proofs = {name: verified(model, x, y, eps=ball.eps, bound=bound, progress=False) for name, bound in bounds.items()}
    clean, attacks = standing(row, alike(model), "trained", ball, seed, number)
    return certified_headline(
        next(iter(proofs.values())),
        clean,
        attacks,
        undefended(victim, "trained", ball, seed, number),
        setup=f"{words}, {DATA}, {ball}",
        budget=f"{epochs} epochs; {BUDGETS['trained']}",
        details={"certified by": {name: count(mask) for name, mask in proofs.items()}},
    )


INTERVALS = {"intervals": interval_margins, "linear bounds": partial(convex_relaxation, inner="ibp")}
LINES = {
    "linear bounds": convex_relaxation,
    "dual network": partial(convex_relaxation, slope="dual"),
    "intervals": interval_margins,
}
QUICK = {
    "randomized_smoothing": smoothing,
    "ibp": partial(proven, "ibp", LINF, INTERVALS, "strided network trained on intervals", "lenet"),
    "convex_relaxation": partial(
        proven, "convex_relaxation", Ball("linf", BETWEEN_LINES), LINES, "MLP, trained with PGD of 5 steps", "mlp"
    ),
}

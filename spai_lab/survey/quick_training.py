"""Robust training in seconds on the digits: a network for each loss, and six attacks on it."""

from dataclasses import replace
from functools import cache, partial

from torch import nn

from spai_lab.data import load
from spai_lab.defenses.evasion import (
    adversarial_training,
    ensemble_adversarial_training,
    fast_adversarial_training,
    gradient_regularization,
    ibp,
    trades,
)
from spai_lab.defenses.evasion.smoothing import gaussian_noise_training
from spai_lab.survey.defense_headlines import robust_headline
from spai_lab.survey.defense_models import alike
from spai_lab.survey.headline import Headline
from spai_lab.survey.quick_judging import BUDGETS, DATA, IMAGES, LINF, standing, undefended
from spai_lab.training import Pretrained, Recipe, Robustly, train

SIGMA = 0.5  # of the noise in training and in the vote, as in `full`
BETWEEN_LINES = 0.05  # the eps at which linear bounds still prove something of a network that was not trained on them
STATIC = (Pretrained("mlp"), Pretrained("lenet"))
RECIPE = partial(Recipe, batch_size=32, learning_rate=3e-3)
GROWING = {"eps": LINF.eps, "ramp": 0.4}

RECIPES = {
    "adversarial_training": RECIPE("lenet", epochs=15, objective=Robustly(adversarial_training, steps=5, **GROWING)),
    "fast_adversarial_training": RECIPE("lenet", epochs=20, objective=Robustly(fast_adversarial_training, **GROWING)),
    "ensemble_adversarial_training": RECIPE(
        "lenet", epochs=20, objective=Robustly(ensemble_adversarial_training, static_models=STATIC, **GROWING)
    ),
    "trades": RECIPE("lenet", epochs=15, objective=Robustly(trades, beta=4.0, steps=5, **GROWING)),
    "gradient_regularization": RECIPE("lenet", epochs=15, objective=Robustly(gradient_regularization, weight=1.0)),
    "randomized_smoothing": RECIPE("lenet", epochs=15, objective=Robustly(gaussian_noise_training, sigma=SIGMA)),
    "ibp": RECIPE(
        "strided-for-ibp",
        epochs=40,
        batch_size=64,
        objective=Robustly(ibp, eps=LINF.eps, eps_final=LINF.eps, ramp=0.6),
    ),
    "convex_relaxation": RECIPE(
        "mlp", epochs=30, objective=Robustly(adversarial_training, eps=BETWEEN_LINES, steps=5, ramp=0.4)
    ),
}
WORDS = {
    "adversarial_training": "LeNet, PGD of 5 steps",
    "fast_adversarial_training": "LeNet, one step from a random start",
    "ensemble_adversarial_training": "LeNet, one step on itself or on one of two others",
    "trades": "LeNet, beta 4, 5 steps",
    "gradient_regularization": "LeNet, weight 1",
}


@cache
def trained(row: str, seed: int, epochs: int) -> nn.Module:
    """The model of a row on the digits, trained once in this process."""
    return train(replace(RECIPES[row], epochs=epochs), load(DATA), seed=seed, progress=False)[0]


def robustly(row: str, seed: int, *, number: int = IMAGES, epochs: int | None = None) -> Headline:
    """A row of `WORDS`, trained so many epochs or as its recipe says, on so many test images."""
    epochs = RECIPES[row].epochs if epochs is None else epochs
    clean, attacks = standing(row, alike(trained(row, seed, epochs)), "trained", LINF, seed, number)
    return robust_headline(
        clean,
        attacks,
        undefended("lenet", "trained", LINF, seed, number),
        setup=f"{WORDS[row]}, {DATA}, {LINF}",
        budget=f"{epochs} epochs; {BUDGETS['trained']}",
    )


QUICK = {row: partial(robustly, row) for row in WORDS}

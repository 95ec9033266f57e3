r"""Generative poisoning: a network learns to make poisons, and its reward is what the victim's update costs it."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import trange

from spai_lab.attacks.evasion.generator import descend, like
from spai_lab.attacks.poisoning.back_gradient import check_attacker, hypergradient
from spai_lab.attacks.poisoning.poisoned import Poisoned, added, all_to_all, budget, drawn
from spai_lab.checks import check_count, check_number
from spai_lab.data import Dataset
from spai_lab.threat import fresh_generator


def generative_poisoning(
    data: Dataset,
    model: nn.Module,
    *,
    fraction: float,
    rounds: int = 40,
    generator_rate: float = 0.01,
    rehearsals: int = 100,
    hidden: int = 64,
    steps: int = 20,
    learning_rate: float = 0.03,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> Poisoned:
    r"""Generative poisoning: an autoencoder G turns training images into poisons that make the next update harmful.

    $\max_G A(\theta')$, where $\theta'$ is what the victim's update makes of $\theta$, the clean data and the poisons
    $x_p = G(x)$, and A the loss on validation data. By the chain rule
    $\nabla_G A = \left(\frac{\partial x_p}{\partial G}\right)^\top \nabla_{x_p} A(\theta')$, the last factor by
    `hypergradient`.

    Args:
        data: the clean data; the attacker feeds G from the training part, and climbs the loss on the validation part.
        model: the target, `(N, C, H, W)` in [0, 1] to logits `(N, K)`, as it is when the update begins. It stays.
        fraction: of the clean training set, so many poisons are added to it; above 0, at most 1.
        rounds: how often the victim is updated and G rewarded, at least 1.
        generator_rate: learning rate of G's Adam, above 0.
        rehearsals: steps in which G first learns to repeat its input, at least 0.
        hidden: numbers that G squeezes an image into, at least 1.
        steps: of gradient descent in one update of the victim, at least 1; the paper's reward is 1 step.
        learning_rate, momentum, weight_decay: of the victim's update, as in `hypergradient`.
        generator: draws the images, and G's first weights; None draws a fresh one.
        progress: show a bar with the time left.
    Returns:
        the training set with the poisons at its end: those of the round with the highest reward. Each has the label
        that follows the one of its image, the last class the first.
    Raises:
        ValueError: an argument is out of its range, or the update cannot be retraced; names it.
    Reference: Yang et al. 2017, arXiv 1703.01340, the generative method.
    Survey: poisoning, performance degradation.
    Simplified: every update starts from the same weights, looks back through 20 steps instead of one, and uses all
        data, so that poisons harm a victim that trains from scratch. The slope is exact, second derivatives included,
        which the paper avoids for speed. G is two linear layers; the labels are a fixed permutation.

    >>> from spai_lab.data import load
    >>> from spai_lab.models import softmax_regression
    >>> data = load("digits").first(100)
    >>> victim = softmax_regression(generator=torch.Generator().manual_seed(0))
    >>> generative_poisoning(data, victim, fraction=0.1, rounds=1, rehearsals=1, steps=2, progress=False)
    Poisoned: 10 of 110 training inputs
    """
    check_generative(data, model, rounds, generator_rate, rehearsals, hidden, generator, progress)
    count = budget(data, fraction)
    generator = fresh_generator(generator, data.x_train.device)
    chosen = drawn(torch.ones_like(data.y_train, dtype=torch.bool), count, generator)
    x, y_p = data.x_train[chosen], all_to_all(data.num_classes).to(chosen)[data.y_train[chosen]]
    clean = (data.x_train, data.y_train, data.x_val, data.y_val)
    training = {"steps": steps, "learning_rate": learning_rate, "momentum": momentum, "weight_decay": weight_decay}
    G = autoencoder(x, hidden, generator)
    optimizer = torch.optim.Adam(G.parameters(), lr=generator_rate)
    best, highest = x, -math.inf
    with torch.enable_grad():
        for _ in range(rehearsals):
            descend(optimizer, F.mse_loss(G(x), x))
        for _ in trange(rounds, desc="generator", disable=not progress):
            x_p = G(x)
            reward, slope = hypergradient(model, x_p, y_p, *clean, **training)
            if reward > highest:
                best, highest = x_p.detach(), reward
            descend(optimizer, -(x_p * slope).sum())
    return added(data, best, y_p)


def autoencoder(x: Tensor, hidden: int, generator: torch.Generator) -> nn.Module:
    """From images like `x` through `hidden` numbers to images in [0, 1], first weights drawn from `generator`.

    >>> autoencoder(torch.zeros(2, 1, 4, 4), 3, torch.Generator())(torch.zeros(5, 1, 4, 4)).shape
    torch.Size([5, 1, 4, 4])
    """
    pixels = x[0].numel()
    with torch.device("meta"):
        layers = [
            *[nn.Flatten(), nn.Linear(pixels, hidden), nn.ReLU()],
            *[nn.Linear(hidden, pixels), nn.Sigmoid(), nn.Unflatten(1, tuple(x.shape[1:]))],
        ]
    return like(x, layers, generator)


def check_generative(
    data: Dataset,
    model: nn.Module,
    rounds: int,
    generator_rate: float,
    rehearsals: int,
    hidden: int,
    generator: torch.Generator | None,
    progress: bool,
) -> None:
    """Raise `ValueError` unless the arguments that `hypergradient` does not see are in range."""
    check_attacker(data, model, generator, progress)
    check_count("rounds", rounds)
    check_number("generator_rate", generator_rate, low=0, exclusive=True)
    check_count("rehearsals", rehearsals, low=0)
    check_count("hidden", hidden)

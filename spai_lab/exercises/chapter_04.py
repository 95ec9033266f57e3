"""Chapter 04: a gradient from answers, the way to the boundary by labels alone, and an attack that crosses over."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from spai_lab.attacks.evasion import bim
from spai_lab.data import load
from spai_lab.exercises.exercise import Exercise, call
from spai_lab.threat import fooled
from spai_lab.training import reference

CHAPTER = "04_black_box_attacks"


# --- nes_gradient


def my_nes_gradient(score, x, noise, sigma):
    """The slope of a score, estimated from its values alone.

    score: from points (N, d) to scores (N,), also for N = 1. x: a point (d,).
    noise: random directions (n, d). sigma: how far to look along each.
    Returns the estimate, like x, from 2 n values of the score.
    """
    rise = score(x + sigma * noise) - score(x - sigma * noise)
    return (rise[:, None] * noise).mean(0) / (2 * sigma)


def forgets_sigma(score, x, noise, sigma):
    """It does not divide by `sigma`: the rise over a longer way is larger, and the slope is not."""
    return my_nes_gradient(score, x, noise, sigma) * sigma


def forgets_the_two(score, x, noise, sigma):
    """The two points of a pair are 2 sigma apart, not sigma: the estimate is twice as steep as the score."""
    return my_nes_gradient(score, x, noise, sigma) * 2


def sums_the_directions(score, x, noise, sigma):
    """It sums over the directions; the estimate is their mean, or it grows with the number of queries."""
    return my_nes_gradient(score, x, noise, sigma) * len(noise)


def looks_one_way(score, x, noise, sigma):
    """It looks along each direction one way only; the pair, one point on each side, cancels the score's own height."""
    return (score(x + sigma * noise)[:, None] * noise).mean(0) / sigma


def takes_forward_differences(score, x, noise, sigma):
    """It subtracts the score at `x` rather than at x - sigma u: one-sided, its bend gets into the slope."""
    rise = score(x + sigma * noise) - score(x[None])
    return (rise[:, None] * noise).mean(0) / sigma


def goes_downhill(score, x, noise, sigma):
    """Its sign is turned around: the score at x + sigma u comes first, the one at x - sigma u is subtracted."""
    return -my_nes_gradient(score, x, noise, sigma)


def bowl(x: Tensor) -> Tensor:
    """A quadratic score, with a height of its own."""
    if x.ndim != 2:
        raise ValueError(f"score takes points (N, d), not {tuple(x.shape)}: for a single one, x[None]")
    scale = torch.arange(1, x.shape[1] + 1, dtype=x.dtype)
    return 5 + (scale * (x - 0.3).square()).sum(1)


def slopes(seed: int = 7) -> list[dict]:
    generator = torch.Generator().manual_seed(seed)
    return [
        {"score": bowl, "x": torch.rand(d, generator=generator), "noise": torch.randn(n, d, generator=generator),
         "sigma": sigma}
        for d, n, sigma in ((3, 4, 0.1), (6, 20, 0.01), (6, 1, 0.5))
    ]  # fmt: skip


def projected_slope(score, x, noise, sigma) -> np.ndarray:
    """For a quadratic score the difference of a pair is exactly 2 sigma times the slope along the direction."""
    x, noise = x.double().numpy(), noise.double().numpy()
    slope = 2 * np.arange(1, len(x) + 1) * (x - 0.3)
    return np.mean([(u @ slope) * u for u in noise], axis=0)


nes_gradient = Exercise(
    chapter=CHAPTER,
    task=r"""
        **A gradient from answers.** You may ask for the value of a score $h$, not for its slope. Draw $n$ random
        directions $u_i$, look a little way along each, forward and back, and average. Write
        `my_nes_gradient(score, x, noise, sigma)`; the directions are given as `noise`:

        $$\hat g = \frac{1}{2 \sigma n} \sum_{i=1}^{n} \big(h(x + \sigma u_i) - h(x - \sigma u_i)\big) \, u_i$$
    """,
    solution=my_nes_gradient,
    truth=projected_slope,
    cases=slopes,
    tested="a quadratic score in 3 and 6 dimensions, with 1, 4 and 20 directions",
    hints=(
        "`x + sigma * noise` holds n points at once, and `score` takes them all: two calls are enough.",
        "The rise along direction i is one number; it multiplies the direction: `rise[:, None] * noise`.",
        "Average over the directions, then divide by the distance of the two points, 2 sigma.",
    ),
    mistakes=(
        forgets_sigma,
        forgets_the_two,
        sums_the_directions,
        looks_one_way,
        takes_forward_differences,
        goes_downhill,
    ),
    tolerance=1e-3,
)


# --- to_boundary


def my_to_boundary(is_adversarial, x, x_adv, steps):
    """The point nearest to x on the line to x_adv that is known to be adversarial.

    is_adversarial: from a point (d,) to True or False; one query.
    x: the clean point; x_adv: an adversarial one. steps: how many queries to spend.
    Returns a point (d,) that was seen to be adversarial, or x_adv itself.
    """
    low, high = 0.0, 1.0
    for _ in range(steps):
        middle = (low + high) / 2
        if is_adversarial(x + middle * (x_adv - x)):
            high = middle
        else:
            low = middle
    return x + high * (x_adv - x)


def returns_the_clean_side(is_adversarial, x, x_adv, steps):
    """The point it returns is on the clean side of the boundary; keep the last one that was adversarial."""
    low, high = 0.0, 1.0
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (low, middle) if is_adversarial(x + middle * (x_adv - x)) else (middle, high)
    return x + low * (x_adv - x)


def returns_the_middle(is_adversarial, x, x_adv, steps):
    """It returns the middle of what is left, which nobody has asked about; return a point that was adversarial."""
    low, high = 0.0, 1.0
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (low, middle) if is_adversarial(x + middle * (x_adv - x)) else (middle, high)
    return x + (low + high) / 2 * (x_adv - x)


def goes_the_wrong_way(is_adversarial, x, x_adv, steps):
    """It keeps the wrong half: when the middle is adversarial, the boundary lies between the clean point and it."""
    low, high = 0.0, 1.0
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if is_adversarial(x + middle * (x_adv - x)) else (low, middle)
    return x + high * (x_adv - x)


def spends_one_query_less(is_adversarial, x, x_adv, steps):
    """It spends one query less than it may; every query halves what is unknown."""
    return my_to_boundary(is_adversarial, x, x_adv, steps - 1)


def beyond(normal: Tensor, offset: float) -> Callable[[Tensor], bool]:
    """Whether a point is on the adversarial side of a plane."""

    def is_adversarial(x: Tensor) -> bool:
        return bool(normal @ x > offset)

    return is_adversarial


PLANES = ((torch.tensor([1.0, 0.0]), 0.37, 6), (torch.tensor([0.6, 0.8]), 0.911, 10), (torch.ones(5), 1.234, 1))


def lines() -> list[dict]:
    return [
        {
            "is_adversarial": beyond(normal, offset),
            "x": torch.zeros(len(normal)),
            "x_adv": torch.ones(len(normal)),
            "steps": steps,
        }
        for normal, offset, steps in PLANES
    ]


def on_the_grid(is_adversarial, x, x_adv, steps) -> np.ndarray:
    """All 2^steps places that halving can reach, and the first of them that is adversarial."""
    places = (k / 2**steps for k in range(1, 2**steps + 1))
    first = next(place for place in places if is_adversarial(x + place * (x_adv - x)))
    return (x + first * (x_adv - x)).double().numpy()


def not_adversarial(result: np.ndarray, is_adversarial, x, x_adv, steps) -> str | None:
    """What stands out in a point that fools nobody."""
    if not is_adversarial(torch.from_numpy(result).to(x.dtype)):
        return "The point that it returns is not adversarial."
    return None


to_boundary = Exercise(
    chapter=CHAPTER,
    task=r"""
        **To the boundary, by labels alone.** Somewhere between the clean point $x$ and an adversarial one the answer
        flips. Each query can halve what is unknown. Write `my_to_boundary(is_adversarial, x, x_adv, steps)`: after
        `steps` queries return the nearest point on the line that is *known* to be adversarial.
    """,
    solution=my_to_boundary,
    truth=on_the_grid,
    cases=lines,
    tested="three planes, in 2 and 5 dimensions, with 1, 6 and 10 queries",
    hints=(
        "Keep two numbers between 0 and 1: up to `low` the line is clean, at `high` it is adversarial.",
        "Ask about their middle, and move `high` or `low` there, whichever keeps that sentence true.",
    ),
    mistakes=(returns_the_clean_side, returns_the_middle, goes_the_wrong_way, spends_one_query_less),
    look=not_adversarial,
)


# --- transfer


EPS, BAR, ASKED = 0.2, 0.7, 100


@lru_cache(maxsize=1)
def players() -> tuple[tuple[nn.Module, ...], nn.Module, Tensor, Tensor]:
    """Two surrogates for the student, a victim out of reach, and images that all of them read rightly."""
    data = load("digits")
    surrogates, victim = (reference("mlp", data), reference("softmax", data)), reference("lenet", data)
    right = ~torch.stack([fooled(model, data.x_test, data.y_test) for model in (*surrogates, victim)]).any(0)
    return surrogates, victim, data.x_test[right][:ASKED], data.y_test[right][:ASKED]


def my_transfer(surrogates, x, y, eps):
    """Adversarial images for a victim that nobody here has seen.

    surrogates: a list of models, images to logits (N, K).
    x: images in [0, 1]; y: their labels (N,); eps: radius in L-inf, in pixel units.
    Returns x_adv, like x, in [0, 1] and within eps of x.
    """

    def together(images):
        return sum(model(images).log_softmax(1) for model in surrogates) / len(surrogates)

    return bim(together, x, y, eps=eps, steps=20)


def adds_noise(surrogates, x, y, eps):
    """It moves every pixel by eps without asking the surrogates; the direction comes from their gradients."""
    coin = torch.randint(0, 2, x.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return (x + eps * coin).clamp(0, 1)


def walks_down(surrogates, x, y, eps):
    """Not one image is turned: either they come back unchanged, or the steps go down the loss of the label, not up."""
    return bim(surrogates[0], x, y, eps=eps, steps=20, targeted=True)


def leaves_the_ball(surrogates, x, y, eps):
    """It moves pixels by twice eps."""
    return bim(surrogates[0], x, y, eps=2 * eps, steps=20)


def put_to_the_victim(answer: Callable, surrogates, x, y, eps) -> Tensor:
    """What is missing: images below the bar, pixels beyond eps, pixels beyond the range; all zero if it succeeds."""
    x_adv = call(answer, surrogates=surrogates, x=x, y=y, eps=eps)
    if not isinstance(x_adv, Tensor) or x_adv.shape != x.shape:
        return x_adv
    x_adv = x_adv.detach()
    share = fooled(players()[1], x_adv.to(x.dtype).clamp(0, 1), y).double().mean()
    beyond_eps = ((x_adv - x).abs().amax() - eps - 1e-6).clamp_min(0)
    beyond_range = torch.maximum(-x_adv.amin(), x_adv.amax() - 1).clamp_min(0)
    return torch.stack([(BAR - share).clamp_min(0), beyond_eps.double(), beyond_range.double()])


def challenge() -> list[dict]:
    surrogates, _, x, y = players()
    orders = (surrogates, surrogates[::-1])
    return [{"surrogates": list(order), "x": x.clone(), "y": y.clone(), "eps": EPS} for order in orders]


def what_is_missing(result: np.ndarray, **case: object) -> str | None:
    """What stands out in an attack that does not count."""
    short, far, out = result
    if out:
        return f"Pixels leave [0, 1] by {out:.3g}."
    if far:
        return f"Pixels move by {far:.3g} more than eps."
    return f"It fools {BAR - short:.0%} of the victim's images; {BAR:.0%} are wanted.".replace("%", " %")


transfer = Exercise(
    chapter=CHAPTER,
    task=f"""
        **An attack that crosses over.** You hold two surrogates: a multilayer perceptron and a softmax regression,
        trained on the same digits as the victim, a convolutional network that you cannot query even once. Write
        `my_transfer(surrogates, x, y, eps)`: at eps = {EPS} it must fool the victim on {10 * BAR:.0f} of 10 images.
        You may call attacks of the package.
    """,
    solution=my_transfer,
    truth=lambda **case: np.zeros(3),
    cases=challenge,
    tested=f"{ASKED} digits that all three models read rightly, at eps {EPS:g}, with the surrogates in either order",
    hints=(
        "One surrogate is a start: `bim(surrogates[0], x, y, eps=eps)`. But which of the two is more like the victim?",
        "If you cannot tell, attack both at once: that is seldom the best choice, and never the worst.",
        "A model is any function from images to logits: write one that averages `model(x).log_softmax(1)` over the "
        "surrogates, and give it to `bim`, `pgd` or `mim`.",
    ),
    mistakes=(adds_noise, walks_down, leaves_the_ball),
    call=put_to_the_victim,
    look=what_is_missing,
    tolerance=1e-6,
)

EXERCISES = (nes_gradient, to_boundary, transfer)

"""A black-box attack within its ball and its budget: what was asked, and what came back, are both looked at."""

import numpy as np
import torch
from torch import Tensor

from spai_lab.checks import describe
from spai_lab.exercises.exercise import Exercise, Fault, call

CHAPTER = "17_arena"
ENOUGH = 0.25  # of the largest possible gain
ROUNDING = 1e-6
NAMES = (
    "stays within eps",
    "stays in [0, 1]",
    "keeps to the budget",
    "keeps the best",
    "gains",
    "asks inside the ball",
)


class Ask:
    """A model that tells its lead for each image, and notes what it was asked: $h(x) = w \\cdot x + b$."""

    def __init__(self, seed: int, like: Tensor) -> None:
        self.w = torch.randn(like.shape[1:], dtype=like.dtype, generator=torch.Generator().manual_seed(seed))
        self.asked: list[Tensor] = []

    def lead(self, x: Tensor) -> Tensor:
        """By how much the right class leads, `(N,)`; not counted."""
        return (x * self.w).flatten(1).sum(1) + 3

    def __call__(self, x: Tensor) -> Tensor:
        self.asked.append(x.detach().clone())
        return self.lead(x)


def my_few_queries(ask, x, eps, queries, generator):
    """The best images found within eps and within the budget.

    ask: from images like x to how far the right class leads, (N,); low is good.
    x: clean images (N, 1, H, W), pixels in [0, 1].
    eps: radius of the ball, L-inf; queries: how often ask may be called.
    generator: source of your draws, as in torch.rand(..., generator=generator).
    Returns x_adv, like x, in [0, 1] and within eps of x.
    """
    best, lead = x.clone(), ask(x)
    for _ in range(queries - 1):
        signs = torch.randint(0, 2, x.shape, generator=generator) * 2 - 1
        tried = (x + eps * signs).clamp(0, 1)
        now = ask(tried)
        better = now < lead
        best[better], lead[better] = tried[better], now[better]
    return best


def search(ask, x, eps, queries, generator, *, clip=True, ask_clip=True, keep=True, step=1.0):
    """The search with one thing left out."""
    best, lead = x.clone(), ask(x)
    for _ in range(queries - 1):
        tried = x + step * eps * (torch.randint(0, 2, x.shape, generator=generator) * 2 - 1)
        tried = tried.clamp(0, 1) if clip and ask_clip else tried
        now = ask(tried)
        better = now < lead if keep else torch.ones_like(now, dtype=torch.bool)
        best[better], lead[better] = tried[better], now[better]
    return best.clamp(0, 1) if clip else best


def leaves_the_ball(ask, x, eps, queries, generator):
    """It moves pixels further than eps: build each try from the clean `x`, not from the last try, or project."""
    return search(ask, x, eps, queries, generator, step=2.0)


def leaves_the_range(ask, x, eps, queries, generator):
    """Its images have pixels below 0 or above 1: end each try with `.clamp(0, 1)`."""
    return search(ask, x, eps, queries, generator, clip=False)


def asks_outside(ask, x, eps, queries, generator):
    """It asks about images that it may not return, and clips at the end: the answer was for another image."""
    best = search(ask, x, eps, queries, generator, ask_clip=False)
    leads = torch.stack([ask.lead(tried) for tried in ask.asked])
    asked = torch.stack(ask.asked)[leads.argmin(0), torch.arange(len(x))]
    return asked.clamp(x - eps, x + eps).clamp(0, 1) if best is not None else x


def asks_once_too_often(ask, x, eps, queries, generator):
    """It asks more often than it may: the first look at the clean images is a query, too."""
    return search(ask, x, eps, queries + 1, generator)


def returns_the_last(ask, x, eps, queries, generator):
    """It returns the last try rather than the best one of each image."""
    return search(ask, x, eps, queries, generator, keep=False)


def returns_the_clean(ask, x, eps, queries, generator):
    """It hardly gains anything: use the queries, and keep for each image what lowered its lead."""
    ask(x)
    return x.clone()


def as_properties(answer, ask, x, eps, queries, generator):
    """What the images and the questions obey, each 1 or 0, in the order of `NAMES`.

    Raises:
        Fault: it returns no images.
    """
    x_adv = call(answer, ask=ask, x=x, eps=eps, queries=queries, generator=generator)
    if not isinstance(x_adv, Tensor) or x_adv.shape != x.shape or not x_adv.isfinite().all():
        raise Fault(f"It returns {describe(x_adv)}; expected finite images like `x`.")
    leads = torch.stack([ask.lead(tried) for tried in [x, *ask.asked]])
    start, found = ask.lead(x), ask.lead(x_adv)
    most = eps * ask.w.abs().sum()
    kept = [
        (x_adv - x).abs().max() <= eps + ROUNDING,
        bool(((x_adv >= -ROUNDING) & (x_adv <= 1 + ROUNDING)).all()),
        len(ask.asked) <= queries,
        bool((found <= leads.min(0).values + 1e-4).all()) or any(outside(tried, x, eps) for tried in ask.asked),
        ((start - found).mean() / most) >= ENOUGH,
        not any(outside(tried, x, eps) for tried in ask.asked),
    ]
    return torch.tensor([float(each) for each in kept])


def outside(tried: Tensor, x: Tensor, eps: float) -> bool:
    """Whether some of these images may not be returned."""
    low, high = float(tried.min()), float(tried.max())
    return low < -ROUNDING or high > 1 + ROUNDING or float((tried - x).abs().max()) > eps + ROUNDING


def first_broken(result: np.ndarray, **case: object) -> str:
    """The rules that are broken."""
    broken = [name for name, value in zip(NAMES, result, strict=True) if not value]
    return f"It breaks a rule. What should hold, and does not: {'; '.join(broken)}."


def scenes(seed: int = 1) -> list[dict]:
    """Two batches, one of them with pixels at the ends of their range."""
    found = []
    for number, (low, high) in enumerate(((0.35, 0.65), (0.0, 1.0)), seed):
        x = low + (high - low) * torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(number))
        generator = torch.Generator().manual_seed(number)
        found.append({"ask": Ask(number, x), "x": x, "eps": 0.25, "queries": 40, "generator": generator})
    return found


few_queries = Exercise(
    chapter=CHAPTER,
    task=r"""
        **An attack on a budget.** All you may do is ask: `ask(x)` tells for each of $N$ images by how much the right
        class leads, and each call is one query of each image. A lead below 0 means that the image is misread. Write
        `my_few_queries(ask, x, eps, queries, generator)`: images within $\|x' - x\|_\infty \le \epsilon$ and in
        [0, 1], found with at most `queries` calls. Keep for *each image* the best that you asked about. Any search
        will do that gains at least a quarter of what the best perturbation would gain; random corners $x \pm \epsilon$
        are enough. Ask only about images that you might return.
    """,
    solution=my_few_queries,
    truth=lambda **case: [1.0] * len(NAMES),
    cases=scenes,
    tested="two batches of six small images, one with pixels at 0 and 1, 40 queries",
    hints=(
        "`signs = torch.randint(0, 2, x.shape, generator=generator) * 2 - 1` draws a corner for each image.",
        "The loop runs `queries - 1` times, since the lead of the clean images costs one call.",
        "`best[better] = tried[better]`, with `better = now < lead`, keeps each image's own best.",
    ),
    mistakes=(
        leaves_the_ball,
        leaves_the_range,
        asks_outside,
        asks_once_too_often,
        returns_the_last,
        returns_the_clean,
    ),
    call=as_properties,
    look=first_broken,
)

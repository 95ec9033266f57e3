"""A gradient that may be released."""

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spai_lab.exercises.chapter_13.answers import CHAPTER
from spai_lab.exercises.exercise import Exercise, Fault, call


def my_noisy_gradient(g, noise, clip, noise_multiplier, expected_batch):
    """The gradient that a step of DP-SGD releases.

    g: the gradient of each example that was drawn, (N, D); N may be 0.
    noise: standard normal numbers (D,), drawn already.
    clip: how long one example's gradient may be, above 0.
    noise_multiplier: standard deviation of the noise in the sum, in units of clip.
    expected_batch: how many examples are drawn on average.
    Returns the gradient (D,).
    """
    lengths = g.norm(dim=1, keepdim=True)
    clipped = g * (clip / lengths).clamp(max=1)
    return (clipped.sum(0) + noise_multiplier * clip * noise) / expected_batch


def shortened(vectors: Tensor, clip: float) -> Tensor:
    """Vectors, of the last dimension, none of them longer than the clip."""
    return vectors * (clip / vectors.norm(dim=-1, keepdim=True)).clamp(max=1)


def clips_the_mean(g, noise, clip, noise_multiplier, expected_batch):
    """It clips the mean, which one long gradient may turn around all the same; clip each row, and then add up."""
    return shortened(g.mean(0), clip) + noise_multiplier * clip * noise / expected_batch


def clips_the_sum(g, noise, clip, noise_multiplier, expected_batch):
    """It adds up first and clips the sum, which one example can move by twice the clip; clip each row before."""
    return (shortened(g.sum(0), clip) + noise_multiplier * clip * noise) / expected_batch


def clips_each_coordinate(g, noise, clip, noise_multiplier, expected_batch):
    """It clips each coordinate; a row may then still be as long as clip times the root of D."""
    return (g.clamp(-clip, clip).sum(0) + noise_multiplier * clip * noise) / expected_batch


def measures_all_rows_together(g, noise, clip, noise_multiplier, expected_batch):
    """It takes one length for the whole matrix; each row has a length of its own: `g.norm(dim=1, keepdim=True)`."""
    return (shortened(g.flatten(), clip).view_as(g).sum(0) + noise_multiplier * clip * noise) / expected_batch


def stretches_the_short(g, noise, clip, noise_multiplier, expected_batch):
    """It also stretches gradients that are shorter than the clip; clipping only shortens: the factor is at most 1."""
    return (clip * F.normalize(g, dim=1).sum(0) + noise_multiplier * clip * noise) / expected_batch


def drops_the_long(g, noise, clip, noise_multiplier, expected_batch):
    """It leaves out gradients that are longer than the clip; they stay, shortened to it."""
    return (g[g.norm(dim=1) <= clip].sum(0) + noise_multiplier * clip * noise) / expected_batch


def never_shortens(g, noise, clip, noise_multiplier, expected_batch):
    """It never clips: one long gradient shows through any noise."""
    return (g.sum(0) + noise_multiplier * clip * noise) / expected_batch


def noise_without_the_clip(g, noise, clip, noise_multiplier, expected_batch):
    """Its noise has a standard deviation of noise_multiplier; that counts clips, so multiply by clip."""
    return (shortened(g, clip).sum(0) + noise_multiplier * noise) / expected_batch


def squares_the_deviation(g, noise, clip, noise_multiplier, expected_batch):
    """It multiplies the noise by the variance, a square; standard normal numbers times the deviation have it."""
    return (shortened(g, clip).sum(0) + (noise_multiplier * clip) ** 2 * noise) / expected_batch


def noise_after_the_division(g, noise, clip, noise_multiplier, expected_batch):
    """It adds the noise after the division, as much as the whole sum needs; the noise is divided with the sum."""
    return shortened(g, clip).sum(0) / expected_batch + noise_multiplier * clip * noise


def noise_on_each_row(g, noise, clip, noise_multiplier, expected_batch):
    """It adds the noise to each row, so that it counts N times, and not at all in an empty batch; add it to the sum."""
    return (shortened(g, clip) + noise_multiplier * clip * noise).sum(0) / expected_batch


def divides_by_those_drawn(g, noise, clip, noise_multiplier, expected_batch):
    """It divides by how many were drawn, which tells how many took part, and may be 0; divide by expected_batch."""
    return (shortened(g, clip).sum(0) + noise_multiplier * clip * noise) / len(g)


def takes_the_mean_of_the_rows(g, noise, clip, noise_multiplier, expected_batch):
    """It takes the mean of the rows first, which is NaN in an empty batch; add up, and divide by expected_batch."""
    return (len(g) * shortened(g, clip).mean(0) + noise_multiplier * clip * noise) / expected_batch


def releases_the_sum(g, noise, clip, noise_multiplier, expected_batch):
    """It releases the sum; a step takes the mean, so divide by expected_batch."""
    return shortened(g, clip).sum(0) + noise_multiplier * clip * noise


def forgets_the_noise(g, noise, clip, noise_multiplier, expected_batch):
    """It clips and adds no noise: whoever knows all gradients but one reads off the last."""
    return shortened(g, clip).sum(0) / expected_batch


def draws(seed: int = 51) -> list[dict]:
    """Short gradients, long ones and one that is zero; the first case has no noise, and the last has no example."""
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            "g": torch.tensor(lengths)[:, None] * F.normalize(torch.randn(len(lengths), D, generator=generator), dim=1),
            "noise": torch.randn(D, generator=generator),
            "clip": clip,
            "noise_multiplier": noise_multiplier,
            "expected_batch": expected_batch,
        }
        for lengths, D, clip, noise_multiplier, expected_batch in (
            ((0.3, 7.0, 1.2, 0.0, 2.5), 4, 1.5, 0.0, 8),
            ((0.4, 3.0, 0.1, 0.5, 0.0, 0.2, 9.0), 6, 0.5, 1.3, 4),
            ((20.0, 1.0), 3, 4.0, 0.7, 2.5),
            ((), 3, 2.0, 0.8, 8),
        )
    ]


def example_by_example(g, noise, clip, noise_multiplier, expected_batch) -> np.ndarray:
    """In float64: of each gradient the largest part that is not too long, found by bisection, one after another."""
    released = noise_multiplier * clip * noise.double().numpy()
    for gradient in g.double().numpy():
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            fits = math.hypot(*(middle * gradient)) <= clip
            low, high = (middle, high) if fits else (low, middle)
        released = released + high * gradient
    return released / expected_batch


def release(answer: Callable, g, **case: object) -> object:
    """The answer's result, with infinity for the mean of an empty batch, which PyTorch calls NaN."""
    result = call(answer, g=g, **case)
    if not isinstance(result, Tensor) or not result.isnan().any():
        return result
    if len(g):
        raise Fault(
            "It returns NaN. One of the gradients is zero, and neither 0 / 0 nor infinity times 0 is a number. Limit "
            "the factor clip / length to 1 first, with `.clamp(max=1)`, and multiply then."
        )
    return result.nan_to_num(nan=torch.inf)


def too_long_or_too_noisy(result: np.ndarray, g, noise, clip, noise_multiplier, expected_batch) -> str | None:
    """What stands out: a sum that is too long, or noise of another size."""
    if not np.isfinite(result).all():
        batch = f"a batch of {len(g)}" if len(g) else "an empty batch"
        return f"For {batch} its result is infinite, or no number at all: does it divide by how many were drawn?"
    if noise_multiplier == 0:
        length, reach = np.linalg.norm(result), len(g) * clip / expected_batch
        if length <= 1.0001 * reach:
            return None
        return (
            f"Without noise its result has length {length:.4g}; a sum of {len(g)} gradients of length {clip:g} at "
            f"most, divided by {expected_batch:g}, is no longer than {reach:.4g}."
        )
    quiet = example_by_example(g, noise, clip, 0.0, expected_batch)
    factors = (result - quiet) / noise.double().numpy()
    if np.ptp(factors) > 1e-3 * np.abs(factors).max() + 1e-6:
        return None
    return (
        f"All but the noise is right for {len(g)} examples, `clip = {clip:g}, noise_multiplier = {noise_multiplier:g}, "
        f"expected_batch = {expected_batch:g}`. It adds {factors.mean():.4g} times `noise`; expected "
        f"{noise_multiplier * clip / expected_batch:.4g} times."
    )


noisy_gradient = Exercise(
    chapter=CHAPTER,
    task=r"""
        **A step that may be seen.** DP-SGD lets no example, added or removed, move the sum by more than $C$, and hides
        that much in noise. Of the gradients $g_1, \dots, g_N$ of the examples that it drew, it releases

        $$\tilde g = \frac{1}{B} \left( \sum_{i=1}^N \min\Big(1, \frac{C}{\|g_i\|}\Big) \, g_i + \sigma C z \right),
        \qquad z \sim N(0, I).$$

        Write `my_noisy_gradient(g, noise, clip, noise_multiplier, expected_batch)`, with `noise` for $z$, `clip` for
        $C$, `noise_multiplier` for $\sigma$ and `expected_batch` for $B$. Each example is drawn by a coin of its own,
        so $N$ is another number each time, and may be 0. $B$ is its mean, known beforehand.
    """,
    solution=my_noisy_gradient,
    truth=example_by_example,
    cases=draws,
    tested="batches of 5, 7, 2 and 0 examples, some longer than the clip, some shorter, one zero; also without noise",
    hints=(
        "Three things in this order: shorten each row, add up and add the noise, divide by the expected batch.",
        "`g.norm(dim=1, keepdim=True)` has the length of each row, (N, 1), so that a row times its factor is a row.",
        "The factor is `(clip / lengths).clamp(max=1)`: no row gets longer, and a row of zeros stays one. For N = 0 "
        "`sum(0)` is zero, while `mean(0)` is NaN.",
    ),
    mistakes=(
        clips_the_mean,
        clips_the_sum,
        clips_each_coordinate,
        measures_all_rows_together,
        stretches_the_short,
        drops_the_long,
        never_shortens,
        noise_without_the_clip,
        squares_the_deviation,
        noise_after_the_division,
        noise_on_each_row,
        divides_by_those_drawn,
        takes_the_mean_of_the_rows,
        releases_the_sum,
        forgets_the_noise,
    ),
    call=release,
    look=too_long_or_too_noisy,
)

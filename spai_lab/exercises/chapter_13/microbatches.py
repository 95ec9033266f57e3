"""A step with a bug that no test of accuracy finds, and what a proof against it looks like: two neighbors."""

import inspect
import textwrap
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from spai_lab.exercises.chapter_13.answers import CHAPTER
from spai_lab.exercises.exercise import Exercise, Fault, call, sentence

Pair = tuple[Tensor, Tensor]
RIGHT = 1.0
MARGIN = 1e-3  # in clips: by how much a counterexample must be clear of rounding


def sum_of_microbatches(g, clip, size):
    """Gradients, a row for each record, are averaged in microbatches, clipped and added up."""
    total = torch.zeros_like(g[0])
    for part in g.split(size):  # the next records, as many as `size`; at the end perhaps fewer
        mean = part.mean(0)
        total += mean * (clip / mean.norm()).clamp(max=1)
    return total


def my_counterexample(clip, size):
    """Two neighboring batches whose sums of microbatches lie more than the clip apart.

    clip: how long the mean of a microbatch may be, above 0.
    size: how many records a microbatch has, at least 2.
    Returns the gradients of two batches, (N, D) and (N + 1, D), with N at least 1.
    One has a row more, at any place; the other rows are the same, in the same order.
    """
    without = torch.tensor([[float(clip)]])
    record = -3 * without
    return without, torch.cat([without, record])


# --- typical failures: with the docstring of its kind an answer is told why its batches prove nothing


def hands_in_one_batch_twice(clip, size):
    """Its two batches are the same; neighbors differ in one record."""
    return torch.full((1, 1), clip), torch.full((1, 1), clip)


def replaces_a_record(clip, size):
    """It replaces a record, which may move even a right sum by 2 clips; here one is added, the others stay."""
    return torch.full((1, 1), clip), torch.full((1, 1), -clip)


def changes_more_than_a_record(clip, size):
    """Its batches differ in more than one record; take a row away, and the other rows are the same, in this order."""
    return torch.full((1, 1), clip), torch.full((2, 1), -clip)


def opens_a_microbatch(clip, size):
    """Its record has a microbatch to itself, where it is clipped as it should be; let it join others."""
    without = torch.full((size, 1), clip)
    return without, torch.cat([without, torch.full((1, 1), -100 * clip)])


def stays_short(clip, size):
    """No mean is longer than the clip, and the sums lie no farther apart; a single gradient may be longer: take one."""
    return torch.full((1, 1), clip / 2), torch.tensor([[clip / 2], [-clip]])


def goes_on_ahead(clip, size):
    """Its record pulls the mean where it points already, which clipping undoes; what clipping keeps is a direction."""
    return torch.full((1, 1), 10 * clip), torch.tensor([[10 * clip], [1000 * clip]])


KINDS = (
    hands_in_one_batch_twice,
    replaces_a_record,
    changes_more_than_a_record,
    opens_a_microbatch,
    stays_short,
    goes_on_ahead,
)


def kind(failure: Callable) -> float:
    """A number for a kind of failure, above that of a right answer."""
    return RIGHT + 1 + KINDS.index(failure)


# --- how an answer is judged


def as_batches(pair: object) -> Pair:
    """The smaller batch and the larger one, float64.

    Raises:
        Fault: they are no two batches of gradients.
    """
    if pair is None:
        raise Fault("It returns None: is the `return` missing?")
    try:
        first, second = pair
    except (TypeError, ValueError) as error:
        raise Fault("It does not return two batches; end with `return without, with_it`.") from error
    try:
        g, other = (torch.as_tensor(batch).detach().double() for batch in (first, second))
    except (TypeError, ValueError, RuntimeError) as error:
        raise Fault("One of its batches cannot be read as a tensor (N, D), a row for each record.") from error
    if g.ndim != 2 or other.ndim != 2 or g.shape[1] != other.shape[1]:
        shapes = f"{tuple(g.shape)} and {tuple(other.shape)}"
        raise Fault(f"Its batches have the shapes {shapes}; expected (N, D) and (N + 1, D), a row for each record.")
    if 0 in (*g.shape, *other.shape):
        raise Fault("One of its batches is empty; leave at least one record in both.")
    if not (g.isfinite().all() and other.isfinite().all()):
        raise Fault("Its batches hold NaN or infinity; a gradient may be as long as you like, but finite.")
    return (g, other) if len(g) <= len(other) else (other, g)


def added_row(without: Tensor, with_it: Tensor) -> int | None:
    """The number of the row that the larger batch has more, the last where it is like its neighbors, or None."""
    if len(with_it) != len(without) + 1:
        return None
    rows = range(len(with_it) - 1, -1, -1)
    return next((i for i in rows if torch.equal(torch.cat([with_it[:i], with_it[i + 1 :]]), without)), None)


def means(g: Tensor, size: int) -> Tensor:
    """The mean of each microbatch."""
    return torch.stack([part.mean(0) for part in g.split(size)])


def verdict(without: Tensor, with_it: Tensor, clip: float, size: int) -> float:
    """`RIGHT`, the number of a kind of failure, or how many clips lie between the sums, below 0."""
    if torch.equal(without, with_it):
        return kind(hands_in_one_batch_twice)
    row = added_row(without, with_it)
    if row is None:
        replaced = without.shape == with_it.shape and (without != with_it).any(1).sum() == 1
        return kind(replaces_a_record if replaced else changes_more_than_a_record)
    apart = sum_apart(without, with_it, clip, size)
    if apart > 1 + MARGIN:
        return RIGHT
    if row == len(without) and row % size == 0:
        return kind(opens_a_microbatch)
    if max(means(g, size).norm(dim=1).max() for g in (without, with_it)) <= clip * (1 + MARGIN):
        return kind(stays_short)
    return kind(goes_on_ahead) if apart < MARGIN else -apart


def sum_apart(without: Tensor, with_it: Tensor, clip: float, size: int) -> float:
    """How many clips lie between the sums of two batches."""
    first, second = (sum_of_microbatches(g, clip, size) for g in (without, with_it))
    return ((first - second).norm() / clip).item()


def put_to_the_test(answer: Callable, clip, size) -> float:
    """What the step with the bug does with the answer's batches."""
    without, with_it = as_batches(call(answer, clip=clip, size=size))
    return verdict(without, with_it, clip, size)


def why_not(result: np.ndarray, clip, size) -> str:
    """The sentence for a kind of failure, with the setting in which it failed."""
    given = f"For `clip = {clip:g}, size = {size}`"
    if result > RIGHT:
        return f"{given}: {sentence(KINDS[round(float(result) - RIGHT - 1)])}"
    return f"{given} the sums of its two batches lie {-result:.4g} times the clip apart; more than 1 is asked."


CODE = textwrap.indent(inspect.getsource(sum_of_microbatches).strip(), " " * 8).strip()

counterexample = Exercise(
    chapter=CHAPTER,
    task=r"""
        **A bug that nobody notices.** To save time, a step clips the mean of each microbatch instead of each gradient:

        ```python
        CODE
        ```

        Noise of standard deviation $\sigma C$ is added, with `clip` for $C$, and the accountant is told $\sigma$. The
        author says: "A record is in one microbatch, and no mean is longer than $C$. So a record, added or removed,
        moves the sum by at most $C$." Nothing crashes, and the claim is wrong.

        Prove it with two neighbors. Write `my_counterexample(clip, size)`: two batches of gradients, of which one has
        one row more, and whose sums are more than `clip` apart.
    """.replace("CODE", CODE),
    solution=my_counterexample,
    truth=lambda clip, size: RIGHT,
    cases=lambda: [{"clip": clip, "size": size} for clip, size in ((1.0, 4), (0.1, 2), (5.0, 3))],
    tested="the code above on your batches, for clips of 0.1, 1 and 5, and microbatches of 2, 3 and 4 records",
    hints=(
        "A record that has a microbatch to itself moves the sum by C at most. What if it joins others, and moves a "
        "mean that was there before?",
        "Clipping shortens a mean and keeps its direction. How far apart can two vectors be of which none is longer "
        "than C?",
        "Let a single gradient have length C, and add one that turns the mean around: the mean of $C$ and $-3C$ is "
        "$-C$, at a distance of $2C$.",
    ),
    mistakes=KINDS,
    call=put_to_the_test,
    look=why_not,
)

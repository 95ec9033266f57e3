"""What a table of survivors tells of the gradient behind it."""

import numpy as np
import torch
from torch import Tensor

from spai_lab.exercises.chapter_17.budgets import CHAPTER
from spai_lab.exercises.exercise import Exercise

SIGNS = ("one step beats many", "blind beats seeing", "no limit, and still standing")


def my_masking_signs(standing, steps, unlimited):
    """Which of three signs of a masked gradient a table shows.

    standing: whether image i survives attack a, bool (A, N).
    steps: gradient steps of attack a, (A,); 0 for one that sees no gradient.
    unlimited: whether image i survives a gradient attack with eps = 1, bool (N,).
    Returns bool (3,): one step beats many, blind beats seeing, no limit and standing.
    """
    one, many, blind = standing[steps == 1], standing[steps > 1], standing[steps == 0]
    beaten = one.sum(1).min() < many.sum(1).min()
    seeing = standing[steps > 0].all(0)
    found_blind = (seeing & ~blind.all(0)).any()
    return torch.stack([beaten, found_blind, unlimited.any()])


def signs_of(standing: Tensor, steps: Tensor, unlimited: Tensor) -> list[float]:
    """The truth, counted image by image."""
    table, kinds = standing.tolist(), steps.tolist()
    left = [sum(row) for row in table]
    one = min(count for count, kind in zip(left, kinds, strict=True) if kind == 1)
    many = min(count for count, kind in zip(left, kinds, strict=True) if kind > 1)
    blind = any(
        all(row[i] for row, kind in zip(table, kinds, strict=True) if kind > 0)
        and not all(row[i] for row, kind in zip(table, kinds, strict=True) if kind == 0)
        for i in range(len(unlimited))
    )
    return [float(one < many), float(blind), float(any(unlimited.tolist()))]


def with_changes(standing, steps, unlimited, **changes) -> Tensor:
    """The right signs, but for those that are given."""
    right = my_masking_signs(standing, steps, unlimited)
    return torch.stack([torch.as_tensor(changes.get(name, right[i])) for i, name in enumerate("abc")])


def takes_totals(standing, steps, unlimited):
    """For the second sign it compares how many images are left; look image by image: a blind attack that breaks fewer
    images may still break one that all seeing attacks leave."""
    blind, seeing = standing[steps == 0].sum(1).min(), standing[steps > 0].sum(1).min()
    return with_changes(standing, steps, unlimited, b=blind < seeing)


def wants_any_seeing(standing, steps, unlimited):
    """For the second sign it asks whether *some* seeing attack leaves the image; *all* of them have to."""
    left = standing[steps > 0].any(0)
    return with_changes(standing, steps, unlimited, b=(left & ~standing[steps == 0].all(0)).any())


def wants_all_blind(standing, steps, unlimited):
    """For the second sign it asks that *every* blind attack breaks the image; one is enough."""
    left = standing[steps > 0].all(0)
    return with_changes(standing, steps, unlimited, b=(left & ~standing[steps == 0].any(0)).any())


def counts_blind_among_many(standing, steps, unlimited):
    """For the first sign it takes blind attacks, with no step, for attacks of many; those have more than one."""
    one, other = standing[steps == 1].sum(1).min(), standing[steps != 1].sum(1).min()
    return with_changes(standing, steps, unlimited, a=one < other)


def takes_a_tie(standing, steps, unlimited):
    """For the first sign it counts a tie; one step has to leave *fewer* images."""
    one, many = standing[steps == 1].sum(1).min(), standing[steps > 1].sum(1).min()
    return with_changes(standing, steps, unlimited, a=one <= many)


def turns_the_first_around(standing, steps, unlimited):
    """It has the first sign the wrong way around: that many steps beat one is as it should be."""
    one, many = standing[steps == 1].sum(1).min(), standing[steps > 1].sum(1).min()
    return with_changes(standing, steps, unlimited, a=many < one)


def wants_all_standing(standing, steps, unlimited):
    """For the third sign it asks that *all* images stand; without a limit not a single one should."""
    return with_changes(standing, steps, unlimited, c=unlimited.all())


def means_broken(standing, steps, unlimited):
    """It takes True for broken; in this table True means that the image *stands*."""
    return my_masking_signs(~standing, steps, ~unlimited)


def tables() -> list[dict]:
    """Small tables: an honest one, ties, a blind attack that finds another image, a lasting image, and masks."""
    steps = torch.tensor([1, 40, 10, 0, 0])
    rows = (
        (("110000", "100000", "110000", "111100", "110110"), "000000"),
        (("100000", "110000", "110000", "111100", "111111"), "000000"),
        (("110000", "101000", "111000", "011111", "111011"), "000000"),
        (("111000", "111000", "111100", "111110", "111011"), "010000"),
        (("111100", "111000", "111010", "110111", "111111"), "000000"),
        (("111111", "111111", "111111", "100000", "111000"), "111111"),
        (("110000", "101000", "111000", "011111", "011111"), "000000"),
        (("111000", "111100", "111110", "100000", "111111"), "000000"),
        (("111110", "111111", "111111", "111111", "111111"), "000100"),
    )
    return [
        {
            "standing": torch.stack([bits(row) for row in table]),
            "steps": steps.clone(),
            "unlimited": bits(last),
        }
        for table, last in rows
    ]


def bits(text: str) -> Tensor:
    """A mask, written as digits."""
    return torch.tensor([letter == "1" for letter in text])


def wrong_sign(result: np.ndarray, standing, steps, unlimited) -> str:
    """The first sign that is wrong, and what is right."""
    right = signs_of(standing, steps, unlimited)
    place = next(i for i, value in enumerate(right) if value != result[i])
    said, wanted = ("sees", "is not there") if result[place] else ("misses", "is there")
    return f'It {said} the sign "{SIGNS[place]}", which {wanted}, in the table {standing.int().tolist()}.'


masking_signs = Exercise(
    chapter=CHAPTER,
    task=r"""
        **Read a result.** A defense hides its gradient, and its table tells. Write
        `my_masking_signs(standing, steps, unlimited)`, which returns three truths about a table of survivors (chapter
        07; Athalye et al. 2018):

        1. *One step beats many*: the best attack of one step leaves fewer images than the best of several steps.
        2. *Blind beats seeing*: some image stands against *all* attacks that see the gradient, and falls to one that
           does not.
        3. *No limit, and still standing*: with $\epsilon = 1$ a gradient attack leaves an image standing.
    """,
    solution=my_masking_signs,
    truth=signs_of,
    cases=tables,
    tested="nine tables of five attacks and six images, with ties and with blind attacks that break fewer",
    hints=(
        "`standing[steps > 0]` are the rows of the attacks that see the gradient; `.all(0)` joins them image by image.",
        "The best attack is the one whose row has the fewest images standing: `.sum(1).min()`.",
    ),
    mistakes=(
        takes_totals,
        wants_any_seeing,
        wants_all_blind,
        counts_blind_among_many,
        takes_a_tie,
        turns_the_first_around,
        wants_all_standing,
        means_broken,
    ),
    look=wrong_sign,
)

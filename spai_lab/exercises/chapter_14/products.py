"""A product of many ciphertexts that runs out of levels, until it is computed as a tree."""

import inspect
import textwrap
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from spai_lab.crypto import ckks
from spai_lab.exercises.chapter_14.circuits import (
    LEVELS,
    SEED,
    SLOTS,
    as_ciphertext,
    decrypted,
    encrypted,
    spare_scale,
    toy,
)
from spai_lab.exercises.chapter_14.salaries import CHAPTER
from spai_lab.exercises.exercise import Exercise, call

SHOWN = 4  # slots that are compared
COUNTS = (8, 2, 3, 7, 5, 9, 1)


def product_of_all(xs, key):
    """The product of encrypted vectors, slot by slot."""
    total = xs[0]
    for x in xs[1:]:
        product = ckks.multiply(total, ckks.lower(x, total.level))
        total = ckks.rescale(ckks.relinearize(product, key))
    return total


def my_out_of_levels(xs, key):
    """The product of encrypted vectors, slot by slot, with as few levels as it takes.

    xs: a list of ciphertexts, all of the same level and scale, at least one.
    key: for `ckks.relinearize`.
    Returns a ciphertext, at most ceil(log2(len(xs))) levels below.
    """
    xs = list(xs)
    while len(xs) > 1:
        odd_one = xs[len(xs) // 2 * 2 :]
        pairs = zip(xs[::2], xs[1::2], strict=False)
        products = [ckks.multiply(x, ckks.lower(y, x.level)) for x, y in pairs]
        xs = [ckks.rescale(ckks.relinearize(x, key)) for x in products] + odd_one
    return xs[0]


def times(x: ckks.Ciphertext, y: ckks.Ciphertext, key) -> ckks.Ciphertext:
    """The product of two, one level below the lower one."""
    level = min(x.level, y.level)
    return ckks.rescale(ckks.relinearize(ckks.multiply(ckks.lower(x, level), ckks.lower(y, level)), key))


def is_still_sequential(xs, key):
    """It still multiplies one after another, and each product takes a level; multiply in pairs, then pairs of these."""
    return product_of_all(xs, key)


def halves_once(xs, key):
    """It cuts the list once, and goes through each half one after another; cut the halves again, down to pairs."""
    half = (len(xs) + 1) // 2
    parts = [product_of_all(part, key) for part in (xs[:half], xs[half:]) if part]
    return product_of_all(sorted(parts, key=lambda x: x.level), key)


def pair_by_pair(xs: list, key, odd: Callable) -> ckks.Ciphertext:
    """Rounds of products of pairs, with something done about the one that is left over."""
    while len(xs) > 1:
        products = [times(x, y, key) for x, y in zip(xs[::2], xs[1::2], strict=False)]
        xs = odd(products, xs[-1]) if len(xs) % 2 else products
    return xs[0]


def drops_the_odd_one(xs, key):
    """It loses the last one of an odd number, as `zip` does; take it along to the next round."""
    return pair_by_pair(xs, key, lambda products, x: products)


def squares_the_odd_one(xs, key):
    """It multiplies the last one of an odd number by itself; take it along to the next round as it is."""
    return pair_by_pair(xs, key, lambda products, x: [*products, times(x, x, key)])


def multiplies_the_odd_one_at_the_end(xs, key):
    """It keeps what is left over for the end, one after another; take it along to the next round, for a partner."""
    left = []

    def keep(products, x):
        left.append(x)
        return products

    total = pair_by_pair(xs, key, keep)
    for x in left:
        total = times(total, x, key)
    return total


def stops_after_a_round(xs, key):
    """It multiplies pairs once, and returns the first; go on until one is left."""
    return times(xs[0], xs[1], key) if len(xs) > 1 else xs[0]


def forgets_to_rescale(xs, key):
    """It never rescales: no level is used, but the scale doubles its bits each time, and soon nothing has room."""
    total = xs[0]
    for x in xs[1:]:
        total = ckks.relinearize(ckks.multiply(total, x), key)
    return total


def factors(seed: int = SEED) -> list[dict]:
    """Up to 9 vectors of numbers from 0.7 to 1, of either sign, so that products are neither large nor tiny."""
    generator = np.random.default_rng(seed)
    return [
        {"xs": [encrypted(vector) for vector in signed(generator, count)], "key": toy().products} for count in COUNTS
    ]


def signed(generator: np.random.Generator, count: int) -> np.ndarray:
    """Vectors for all slots."""
    return generator.uniform(0.7, 1, (count, SLOTS)) * generator.choice([-1, 1], (count, SLOTS))


def fewest_levels(count: int) -> int:
    """Each level can double how many numbers are in a product."""
    return next(level for level in range(count) if 2**level >= count)


def in_the_clear(xs, key) -> np.ndarray:
    """The products of what is in the slots, no level too many, and no bit of scale to spare."""
    return np.array([*np.prod([decrypted(x)[:SHOWN] for x in xs], axis=0), 0, 0])


# --- how an answer is judged


def compute(answer: Callable, xs, key) -> Tensor:
    """The first slots, how many levels more than needed, and how many bits of scale too many.

    The chain has room for products one after another, so that it can be seen how many levels an answer takes.
    """
    y = as_ciphertext(call(answer, xs=list(xs), key=key))
    spent = max(0, LEVELS - y.level - fewest_levels(len(xs)))
    return torch.tensor([*decrypted(y)[:SHOWN], spent, spare_scale(y)], dtype=torch.float64)


def value_or_cost(result: np.ndarray, xs, key) -> str:
    """What is wrong: the numbers, or the way to them."""
    *values, spent, spare = result
    right, needed = in_the_clear(xs, key)[:SHOWN], fewest_levels(len(xs))
    worst = np.abs(values - right).argmax()
    if abs(values[worst] - right[worst]) > out_of_levels.tolerance:
        return (
            f"For {len(xs)} ciphertexts slot {worst} of its result has {values[worst]:.4g}; the product is "
            f"{right[worst]:.4g}."
        )
    if spare:
        return (
            f"For {len(xs)} ciphertexts its result is right, and its scale has {abs(spare):.0f} bits too "
            f"{'many' if spare > 0 else 'few'}: rescale once after each product."
        )
    return f"For {len(xs)} ciphertexts it uses {needed + spent:.0f} levels; {needed} are enough."


CODE = textwrap.indent(inspect.getsource(product_of_all).strip(), " " * 8).strip()

out_of_levels = Exercise(
    chapter=CHAPTER,
    task=r"""
        **Out of levels.** Eight ciphertexts are multiplied. Three levels are left, and this stops with "no level is
        left":

        ```python
        CODE
        ```

        Why? Mend it: write `my_out_of_levels(xs, key)`, the same product with at most

        $$\lceil \log_2 d \rceil$$

        products one after another for $d$ ciphertexts, also where $d$ is no power of two. Only ciphertexts of one level
        can be multiplied; `ckks.lower(x, level)` brings the higher one down, at no cost. Their scales may differ.
    """.replace("CODE", CODE),
    solution=my_out_of_levels,
    truth=in_the_clear,
    cases=factors,
    tested="1 to 9 ciphertexts, in a ring too small for secrets, against NumPy; each level that is used is counted",
    hints=(
        "The first factor goes through all products, and loses a level in each. Which products do not wait for others?",
        "Multiply neighbors in pairs: d become d / 2, one level below. Do it again, until one is left.",
        "If d is odd, the last one has no partner: take it along, one level above the others. `ckks.lower` it when it "
        "finds one.",
    ),
    mistakes=(
        is_still_sequential,
        halves_once,
        drops_the_odd_one,
        squares_the_odd_one,
        multiplies_the_odd_one_at_the_end,
        stops_after_a_round,
        forgets_to_rescale,
    ),
    call=compute,
    look=value_or_cost,
    tolerance=1e-3,
)

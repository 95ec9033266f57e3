"""An inner product in the slots of one ciphertext, with few rotations."""

from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from spai_lab.crypto import ckks
from spai_lab.exercises.chapter_14.circuits import SEED, SLOTS, as_ciphertext, decrypted, encrypted, spare_scale, toy
from spai_lab.exercises.chapter_14.salaries import CHAPTER
from spai_lab.exercises.exercise import Exercise, call


def my_inner_product(x, w, keys):
    """An encrypted inner product, with no more rotations than it takes.

    x: a ciphertext; the numbers that count stand in its first slots, others behind.
    w: a list of public numbers; how many is a power of two, at least 2.
    keys: for rotations by 1, 2, ..., len(w) - 1 slots to the left.
    Returns a ciphertext with the inner product in slot 0, whatever in the others.
    """
    total = ckks.rescale(ckks.multiply_plain(x, ckks.encode(x.context, w)))
    step = 1
    while step < len(w):
        total = ckks.add(total, ckks.rotate(total, step, keys))
        step *= 2
    return total


def weighted(x: ckks.Ciphertext, w: list[float]) -> ckks.Ciphertext:
    """Each number times its weight, rescaled."""
    return ckks.rescale(ckks.multiply_plain(x, ckks.encode(x.context, w)))


def doubled(total: ckks.Ciphertext, n: int, keys) -> ckks.Ciphertext:
    """Sums of n neighbors, n a power of two."""
    for step in doublings(n):
        total = ckks.add(total, ckks.rotate(total, step, keys))
    return total


def doublings(n: int) -> list[int]:
    """1, 2, 4, ... below n."""
    return [2**k for k in range((n - 1).bit_length())]


def rotates_by_every_step(x, w, keys):
    """It rotates n - 1 times; add the vector to itself rotated by 1, that sum to itself rotated by 2, and so on."""
    return ckks.rotate_sum(weighted(x, w), range(len(w)), keys)


def never_doubles_the_step(x, w, keys):
    """It rotates by one step again and again, and counts some numbers more than once; double the step each time."""
    total = weighted(x, w)
    for _ in doublings(len(w)):
        total = ckks.add(total, ckks.rotate(total, 1, keys))
    return total


def rotates_the_product(x, w, keys):
    """It rotates the product each time, and adds slots 1, 2, 4, ... alone; rotate the sum so far, and it doubles."""
    total = product = weighted(x, w)
    for step in doublings(len(w)):
        total = ckks.add(total, ckks.rotate(product, step, keys))
    return total


def forgets_to_add(x, w, keys):
    """It rotates and drops what was there before; add the rotated sum to the sum."""
    total = weighted(x, w)
    for step in doublings(len(w)):
        total = ckks.rotate(total, step, keys)
    return total


def stops_a_step_early(x, w, keys):
    """It stops one rotation too early, with the sum of the first half; the last step is len(w) / 2."""
    return doubled(weighted(x, w), len(w) // 2, keys)


def forgets_to_rescale(x, w, keys):
    """It never rescales: the scale is still squared, and nothing of the usual scale can be added; `ckks.rescale` it."""
    return doubled(ckks.multiply_plain(x, ckks.encode(x.context, w)), len(w), keys)


def forgets_the_weights(x, w, keys):
    """It sums the numbers without their weights; multiply by `ckks.encode(x.context, w)` first."""
    return doubled(x, len(w), keys)


def multiplies_after_the_sum(x, w, keys):
    """It sums first and multiplies afterwards, so that slot 0 has the sum times the first weight; weigh each number."""
    return weighted(doubled(x, len(w), keys), w)


def never_rotates(x, w, keys):
    """It multiplies and leaves each product in its slot; rotations bring them together."""
    return weighted(x, w)


def vectors(seed: int = SEED) -> list[dict]:
    """Of 2 numbers to as many as there are slots, other numbers behind them."""
    generator = np.random.default_rng(seed)
    return [
        {
            "x": encrypted(generator.uniform(-1, 1, SLOTS)),
            "w": generator.uniform(-1, 1, n).tolist(),
            "keys": replace(toy().rotations, keys=MappingProxyType(keys_below(n)), steps=tuple(range(1, n))),
        }
        for n in (16, 2, 4, SLOTS)
    ]


def keys_below(n: int) -> dict[int, np.ndarray]:
    """The keys of the rotations by 1 to n - 1, by Galois element."""
    rotations = toy().rotations
    elements = [pow(5, step, 4 * SLOTS) for step in range(1, n)]
    return {element: rotations.keys[element] for element in elements}


def in_the_clear(x, w, keys) -> np.ndarray:
    """The inner product of what is in the slots, no rotation too many, and no bit of scale to spare."""
    return np.array([decrypted(x)[: len(w)] @ np.array(w), 0, 0])


# --- how an answer is judged


class Counted(dict):
    """Keys of rotations, which count how often they are used: once a rotation, however it is asked for."""

    used = 0

    def __getitem__(self, element: int) -> np.ndarray:
        self.used += 1
        return super().__getitem__(element)


def compute(answer: Callable, x, w, keys) -> Tensor:
    """Slot 0, how many rotations more than needed, and how many bits of scale too many."""
    counted = Counted(keys.keys)
    lent = replace(keys, keys=MappingProxyType(counted))
    y = as_ciphertext(call(answer, x=x, w=list(w), keys=lent))
    spent = max(0, counted.used - len(doublings(len(w))))
    return torch.tensor([decrypted(y)[0], spent, spare_scale(y)], dtype=torch.float64)


def value_or_cost(result: np.ndarray, x, w, keys) -> str:
    """What is wrong: the number, or the way to it."""
    value, spent, spare = result
    right, needed = in_the_clear(x, w, keys)[0], len(doublings(len(w)))
    if abs(value - right) > inner_product.tolerance:
        return f"For {len(w)} numbers slot 0 of its result has {value:.4g}; the inner product is {right:.4g}."
    if spare:
        return (
            f"Its result is right, and its scale has {abs(spare):.0f} bits too {'many' if spare > 0 else 'few'}: "
            "rescale once after a product."
        )
    return f"For {len(w)} numbers it rotates {needed + spent:.0f} times; {needed} rotations are enough."


inner_product = Exercise(
    chapter=CHAPTER,
    task=r"""
        **One number from many slots.** The first $n$ slots of the ciphertext `x` have the numbers $x_0, \dots,
        x_{n-1}$, and $w$ is public. A neuron needs

        $$\sum_{i=0}^{n-1} w_i x_i.$$

        `ckks.multiply_plain(x, ckks.encode(x.context, w))` multiplies slot by slot, with zeros behind $w$, and squares
        the scale, until `ckks.rescale` has divided it by a prime. `ckks.rotate(x, step, keys)` brings to slot $j$ what
        slot $j + \mathrm{step}$ had, and is by far the dearest of them; `ckks.add` is the cheapest.

        Write `my_inner_product(x, w, keys)`: a ciphertext with the inner product in slot 0, after at most $\log_2 n$
        rotations, and with the scale of `x`, but for a rounding. `n = len(w)` is a power of two.
    """,
    solution=my_inner_product,
    truth=in_the_clear,
    cases=vectors,
    tested="2, 4, 16 and 32 numbers, really encrypted, in a ring too small for secrets; each rotation is counted",
    hints=(
        "First the products, in their slots, rescaled once. What has slot 0 after the vector is added to itself, "
        "rotated by 1?",
        "Then each slot has a sum of two neighbors. Rotated by 2 and added, it has four.",
        "Until the step reaches n: `total = ckks.add(total, ckks.rotate(total, step, keys))`, then double the step.",
    ),
    mistakes=(
        rotates_by_every_step,
        never_doubles_the_step,
        rotates_the_product,
        forgets_to_add,
        stops_a_step_early,
        forgets_to_rescale,
        forgets_the_weights,
        multiplies_after_the_sum,
        never_rotates,
    ),
    call=compute,
    look=value_or_cost,
    tolerance=1e-3,
)

r"""CKKS, part five: slots move. The automorphism $X \mapsto X^g$ turns them, and key switching brings back the key.

Under $X \mapsto X^g$ with $g = 5^r$, slot j gets what slot j + r held; g = -1 conjugates. The turned ciphertext
$c_0(X^g) + c_1(X^g) \, s(X^g)$ is under the turned secret, so its second term is switched back to s. Digits of
$c_1(X^g)$ are the turned digits of $c_1$: they are made once, however many rotations follow. For learning, not for
secrets.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from spai_lab.crypto.ckks_ciphertext import (
    Ciphertext,
    check_keys,
    check_two_parts,
    check_type,
    switched,
)
from spai_lab.crypto.ckks_context import check_room
from spai_lab.crypto.ckks_keys import RotationKeys, chain, decompose, galois_elements, inner_product
from spai_lab.crypto.ntt import automorphism
from spai_lab.crypto.rns import column, divide_by_last


def rotate(x: Ciphertext, steps: int, keys: RotationKeys) -> Ciphertext:
    """Slots move to the left by `steps`, in a circle: slot j holds what slot j + steps held.

    Args:
        x: two parts.
        steps: to the left, or to the right if negative.
        keys: that hold one for these steps.
    Returns:
        the rotated vector, at the same level and scale.
    Raises:
        ValueError: names the argument; for a missing key it says which there are.
    Reference: Cheon et al. 2016, IACR 2016/421; Cheon et al. 2018, IACR 2018/931.
    """
    return rotate_many(x, (steps,), keys)[0]


def rotate_many(x: Ciphertext, steps: Sequence[int], keys: RotationKeys) -> list[Ciphertext]:
    """Several rotations of one ciphertext, hoisted: its digits are made once, and turned for each.

    Args:
        x: two parts.
        steps: of each rotation.
        keys: that hold one for each.
    Returns:
        the rotated vectors, in that order.
    Raises:
        ValueError: as `rotate`.
    Reference: Halevi and Shoup 2018, IACR 2018/244, for hoisting.
    """
    elements = checked_elements(x, steps, keys)
    digits = decompose(x.context, x.parts[1])
    return [
        x if g == 1 else switched(moved(x, step), divided(x, *turned(x, digits, g, keys)))
        for step, g in zip(steps, elements, strict=True)
    ]


def rotate_sum(x: Ciphertext, steps: Sequence[int], keys: RotationKeys) -> Ciphertext:
    r"""The sum of several rotations of one ciphertext, with a single division by the special prime.

    $\sum_r \left(\sum_i d_i(X^{g_r}) \, k_{r,i}\right) / P$: who sums before dividing divides and rounds once. The sum
    of 64 neighbors is a sum of 8 twice, with steps 0, 1, ..., 7 and 0, 8, ..., 56.

    Args:
        x: two parts.
        steps: different ones; 0 adds x itself.
        keys: that hold one for each but 0.
    Returns:
        the sum, at the same level and scale.
    Raises:
        ValueError: as `rotate`; or a step comes twice.
    Reference: Halevi and Shoup 2018, IACR 2018/244, for hoisting.
    """
    elements = checked_elements(x, steps, keys)
    if len(set(elements)) < len(elements) or not elements:
        raise ValueError(f"steps is {tuple(steps)}; accepted: at least one, each different from the others")
    digits = decompose(x.context, x.parts[1])
    sums = [turned(x, digits, g, keys) for g in elements if g != 1]
    each = [moved(x, step) for step in steps]
    wide = replace(x, limit=sum(y.limit for y in each), error=sum(y.error for y in each))
    check_room(x.context, x.level, x.scale, wide.limit + wide.error, "the sum")
    if not sums:
        return x
    parts = divided(x, sum(c0 for c0, _ in sums), sum(total for _, total in sums))
    own = x.parts if 1 in elements else 0
    return switched(wide, (parts + own) % column(x.context.at(x.level)), len(sums))


def conjugate(x: Ciphertext, keys: RotationKeys) -> Ciphertext:
    r"""Each slot's complex conjugate, by $X \mapsto X^{-1}$; else like `rotate`."""
    check_two_parts("x", x)
    check_type("keys", keys, RotationKeys)
    check_keys("keys", keys, x)
    element = 2 * x.context.degree - 1
    if element not in keys.keys:
        raise ValueError("keys has none for conjugation; accepted: rotation_keys(..., conjugate=True)")
    digits = decompose(x.context, x.parts[1])
    return switched(x, divided(x, *turned(x, digits, element, keys)))


def moved(x: Ciphertext, steps: int) -> Ciphertext:
    """The bounds of the slots go with them."""
    there = lambda bound: np.roll(bound, -steps) if isinstance(bound, np.ndarray) else bound  # noqa: E731
    return replace(x, limit=there(x.limit), error=there(x.error))


def turned(x: Ciphertext, digits: np.ndarray, element: int, keys: RotationKeys) -> tuple[np.ndarray, np.ndarray]:
    r"""$c_0(X^g)$, and the encryption of $P c_1(X^g) \, s(X^g)$ under s, with the special prime still in."""
    places = automorphism(x.context.degree, element)
    total = inner_product(x.context, np.take(digits, places, axis=-1), keys.keys[element])
    return np.take(x.parts[0], places, axis=-1), total


def divided(x: Ciphertext, c0: np.ndarray, total: np.ndarray) -> np.ndarray:
    r"""The parts of $c_0 + \mathrm{total} / P$."""
    primes = chain(x.context, x.level)
    parts = divide_by_last(total % column(primes), primes)
    parts[0] += c0
    return parts % column(primes[:-1])


def checked_elements(x: Ciphertext, steps: Sequence[int], keys: RotationKeys) -> list[int]:
    """The Galois element of each rotation; raise `ValueError` unless x can be rotated and there is a key for each."""
    check_two_parts("x", x)
    check_type("keys", keys, RotationKeys)
    check_keys("keys", keys, x)
    elements = galois_elements(x.context, steps)
    for step, element in zip(steps, elements, strict=True):
        if element != 1 and element not in keys.keys:
            held = ", ".join(map(str, keys.steps)) or "none"
            raise ValueError(f"steps has {step}; accepted: {held}, that keys is for; rotation_keys makes more")
    return elements

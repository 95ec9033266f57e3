"""A secret from any t shares of it, in a field where division is a product."""

import math
from collections.abc import Callable
from fractions import Fraction
from numbers import Real

import numpy as np

from spai_lab.crypto.secret_sharing_shamir import PRIME, Field, shamir_reconstruct, shamir_share
from spai_lab.exercises.chapter_15.verdicts import CHAPTER, RIGHT, as_whole, first_alike, kind, put, right
from spai_lab.exercises.exercise import Exercise

LARGE, MIDDLE = PRIME, 2**31 - 1  # so large that no wrong secret is right by chance
CHOICES = (((1, 2), LARGE), ((5, 2, 9), LARGE), ((3, 8, 4, 6), MIDDLE), ((7, 2, 12, 5, 3), LARGE))


def my_shamir_secret(points, shares, prime):
    """The secret behind t shares: the value at 0 of the polynomial through them.

    points: t different whole numbers from 1 to prime - 1, in any order.
    shares: the values at these points modulo the prime, whole numbers.
    prime: p.
    Returns a whole number from 0 to p - 1.
    """
    secret = 0
    for j, share in zip(points, shares, strict=True):
        above = below = 1
        for m in points:
            if m != j:
                above = above * m % prime
                below = below * (m - j) % prime
        secret += share * above * pow(below, -1, prime)
    return secret % prime


def weighed(points, shares, at: int = 0, swap: bool = False) -> list[tuple[int, int, int]]:
    """Of each share: itself, what stands above the fraction of its weight, and what stands below, not reduced."""
    return [
        (
            share,
            math.prod(m - at for m in points if m != j),
            math.prod((j - m) if swap else (m - j) for m in points if m != j),
        )
        for j, share in zip(points, shares, strict=True)
    ]


def divides_in_floats(points, shares, prime):
    """It divides with `/`, which makes a float of 53 bits; modulo p one multiplies by `pow(below, -1, prime)`."""
    return sum(share * above / below for share, above, below in weighed(points, shares)) % prime


def divides_and_rounds_down(points, shares, prime):
    """It divides with `//`, which drops the remainder; modulo p one multiplies by `pow(below, -1, prime)`."""
    return sum(share * (above // below) for share, above, below in weighed(points, shares)) % prime


def interpolates_at_one(points, shares, prime):
    """It finds the value at 1, which is somebody's share; the secret is the value at 0."""
    return sum(share * above * pow(below, -1, prime) for share, above, below in weighed(points, shares, 1)) % prime


def counts_from_zero(points, shares, prime):
    """It finds the first share, as with 0, 1, 2, ... for the points; at 0 is the secret, and nobody's point is 0."""
    return my_shamir_secret(range(len(points)), shares, prime)


def forgets_the_points(points, shares, prime):
    """It takes all shares and not their points, as if these were 1, 2, 3, ...; any t parties may come together."""
    return my_shamir_secret(range(1, len(points) + 1), shares, prime)


def sorts_the_points(points, shares, prime):
    """It sorts the points and leaves the shares as they were; each share belongs to its point."""
    return my_shamir_secret(sorted(points), shares, prime)


def turns_the_difference(points, shares, prime):
    """It has j - m below where m stands above; with an even t the sign of the secret is wrong. Take m - j."""
    return sum(share * above * pow(below, -1, prime) for share, above, below in weighed(points, shares, swap=True))


def loses_the_denominator(points, shares, prime):
    """Its denominators are gone, as with `pow(below, prime - 1, prime)`, always 1; the inverse has exponent -1."""
    return sum(share * above for share, above, _ in weighed(points, shares)) % prime


def loses_the_numerator(points, shares, prime):
    """It has 1 above the fraction, and finds a coefficient of the polynomial; the value at 0 takes the product of m."""
    return sum(share * pow(below, -1, prime) for share, _, below in weighed(points, shares)) % prime


def adds_the_shares(points, shares, prime):
    """It adds the shares, as if all were needed and no more; here each counts as much as its point says."""
    return sum(shares) % prime


def divides_by_its_own_difference(points, shares, prime):
    """It divides by j - j = 0; the product runs over the other points alone, m != j."""
    return sum(share * pow(j - j, -1, prime) for j, share in zip(points, shares, strict=True))


def never_reduces(points, shares, prime):
    """Its result is right modulo p, and not from 0 to p - 1; end with `% prime`."""
    return my_shamir_secret(points, shares, prime) + prime


KINDS = (
    divides_in_floats,
    divides_and_rounds_down,
    interpolates_at_one,
    counts_from_zero,
    forgets_the_points,
    sorts_the_points,
    turns_the_difference,
    loses_the_denominator,
    loses_the_numerator,
    adds_the_shares,
    divides_by_its_own_difference,
    never_reduces,
)
OTHER_SECRETS = tuple(each for each in KINDS if each not in (divides_in_floats, divides_by_its_own_difference))


# --- how an answer is judged


def gatherings() -> list[dict]:
    """Some of 12 parties, each time with a new secret: the first two, and others in no order."""
    return [{"points": list(points), "shares": shared(points, prime), "prime": prime} for points, prime in CHOICES]


def shared(points: tuple[int, ...], prime: int) -> list[int]:
    """The shares of a fresh secret at these points."""
    field = Field(prime)
    shares = shamir_share(field.draw((1,)), len(points), 12, field=field)
    return [int(shares[point - 1, 0]) for point in points]


def secret_behind(points, shares, prime) -> int:
    """What the package reconstructs."""
    given = np.array(shares, dtype=np.uint64)[:, None]
    return int(shamir_reconstruct(points, given, len(points), field=Field(prime))[0])


def is_rounded(value: int, points, shares, prime) -> bool:
    """Whether a number is what floats of 53 bits make of the fractions, up to a multiple of p."""
    terms = [Fraction(share * above, below) for share, above, below in weighed(points, shares)]
    off = (value - sum(terms)) % prime
    return min(off, prime - off) <= 1 + sum(map(abs, terms)) / 2**48


def reconstruct(answer: Callable, points, shares, prime) -> float:
    """`RIGHT`, `UNKNOWN` or the number of a kind of failure."""
    try:
        result = put(answer, points=points, shares=shares, prime=prime)
    except (ValueError, ZeroDivisionError) as error:
        if isinstance(error, ValueError) and "not invertible" not in str(error):
            raise
        return kind(divides_by_its_own_difference, KINDS)
    if isinstance(result, Real) and not hasattr(type(result), "__index__"):
        return kind(divides_in_floats, KINDS)
    value, secret = as_whole(result, "the secret"), secret_behind(points, shares, prime)
    if value == secret:
        return RIGHT
    if value % prime == secret:
        return kind(never_reduces, KINDS)
    found = first_alike(lambda each: (each(points, shares, prime) - value) % prime == 0, OTHER_SECRETS, KINDS)
    return kind(divides_in_floats, KINDS) if found < 0 and is_rounded(value, points, shares, prime) else found


def not_the_secret(result: np.ndarray, points, shares, prime) -> str:
    """What is known of a failure of no kind."""
    return f"From the shares at {', '.join(map(str, points))} it finds another number than the secret."


shamir_secret = Exercise(
    chapter=CHAPTER,
    task=r"""
        **Any t of them.** A secret is the value at 0 of a polynomial of degree $t - 1$ modulo a prime $p$, and party
        $j$ has its value $s_j$ at $j$. Let $t$ parties come together, those at the points of a set $P$. Then the secret
        is

        $$\sum_{j \in P} s_j \prod_{m \in P, \, m \ne j} \frac{m}{m - j} \bmod p.$$

        Modulo a prime, to divide is to multiply by the inverse: the number whose product with $m - j$ is 1 modulo $p$.

        Write `my_shamir_secret(points, shares, prime)` with Python's own whole numbers, which never overflow. `points`
        and `shares` are lists in the same order.
    """,
    solution=my_shamir_secret,
    truth=right,
    cases=gatherings,
    tested="2 to 5 of 12 parties, modulo 2^61 - 1 and 2^31 - 1, a new secret each time",
    hints=(
        "Two loops: the outer one over the points with their shares, for the sum; the inner one over all other points, "
        "for the product.",
        "Keep what stands above the fraction and what stands below apart, and divide once in the end.",
        "`pow(below, -1, prime)` is the inverse of `below` modulo the prime, also of a negative number.",
    ),
    mistakes=KINDS,
    call=reconstruct,
    look=not_the_secret,
)

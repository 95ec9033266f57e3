"""How long a chain of primes a network needs, and how large a ring makes that secure."""

import operator
from collections.abc import Callable, Iterable
from itertools import count

import numpy as np
import torch
from torch import Tensor

from spai_lab.checks import describe
from spai_lab.crypto.ckks_context import SECURE_BITS, ckks_context, room
from spai_lab.exercises.chapter_14.salaries import CHAPTER
from spai_lab.exercises.exercise import Exercise, Fault, call

SPECIAL_BITS, WIDEST = 30, 30
TAKES_A_LEVEL = ("weights", "square")
MLP = ("weights", "sum", "bias", "square", "weights", "sum", "bias")
HALF = ("weights", "sum", "bias", "square", "sum")
SUM = ("sum", "bias")


def my_coefficient_chain(operations, scale_bits, largest_logit, secure_bits):
    """The least ring degree of an encrypted network, and the sizes of its primes.

    operations: in sequence, each "weights", "square", "sum" or "bias".
    scale_bits: b, for a scale of 2^b.
    largest_logit: no result is larger in size, a whole number of at least 1.
    secure_bits: from each ring degree, rising, to the most bits that are secure.
    Returns the degree, and a tuple of bits: that of the prime that stays, then
    one for each level.
    """
    levels = operations.count("weights") + operations.count("square")
    first = scale_bits + 1 + largest_logit.bit_length()
    bits = (first, *[scale_bits] * levels)
    total = sum(bits) + 30
    return min(degree for degree, most in secure_bits.items() if total <= most), bits


def chosen(levels: int, first: int, scale_bits: int, secure_bits: dict[int, int], special: int = SPECIAL_BITS) -> tuple:
    """The least degree, and the bits, the degree the largest where none is secure."""
    bits = (first, *[scale_bits] * levels)
    secure = (degree for degree, most in secure_bits.items() if sum(bits) + special <= most)
    return next(secure, max(secure_bits)), bits


def depth(operations: Iterable[str]) -> int:
    """How many operations multiply."""
    return sum(operation in TAKES_A_LEVEL for operation in operations)


def first_bits(scale_bits: int, largest_logit: int) -> int:
    """The bits of the prime that stays."""
    return scale_bits + 1 + largest_logit.bit_length()


def forgets_the_special_prime(operations, scale_bits, largest_logit, secure_bits):
    """It leaves the special prime out of the total; that is no level, and counts for security: 30 bits more."""
    return chosen(depth(operations), first_bits(scale_bits, largest_logit), scale_bits, secure_bits, special=0)


def lists_the_special_prime(operations, scale_bits, largest_logit, secure_bits):
    """It lists the special prime among the levels' primes; that counts in the total, and `bits` leaves it out."""
    degree, bits = my_coefficient_chain(operations, scale_bits, largest_logit, secure_bits)
    return degree, (*bits, SPECIAL_BITS)


def is_one_level_short(operations, scale_bits, largest_logit, secure_bits):
    """It lets the first prime serve a level; that one stays, so there is one prime more than levels."""
    return chosen(max(0, depth(operations) - 1), first_bits(scale_bits, largest_logit), scale_bits, secure_bits)


def counts_squares_alone(operations, scale_bits, largest_logit, secure_bits):
    """It counts squares alone; a product with public weights multiplies scales as well, and takes a level."""
    levels = operations.count("square")
    return chosen(levels, first_bits(scale_bits, largest_logit), scale_bits, secure_bits)


def counts_weights_alone(operations, scale_bits, largest_logit, secure_bits):
    """It counts weights alone; a square multiplies scales as well, and takes a level."""
    levels = operations.count("weights")
    return chosen(levels, first_bits(scale_bits, largest_logit), scale_bits, secure_bits)


def counts_sums_as_well(operations, scale_bits, largest_logit, secure_bits):
    """It gives a level to each operation; sums and biases leave the scale as it is, and take none."""
    return chosen(len(operations), first_bits(scale_bits, largest_logit), scale_bits, secure_bits)


def forgets_the_sign(operations, scale_bits, largest_logit, secure_bits):
    """Its first prime has no bit for the sign; results are from -q / 2 to q / 2, so q exceeds twice the largest."""
    return chosen(depth(operations), first_bits(scale_bits, largest_logit) - 1, scale_bits, secure_bits)


def leaves_no_room_for_logits(operations, scale_bits, largest_logit, secure_bits):
    """Its first prime is as wide as the others, of the scale's size; a logit times the scale does not fit."""
    return chosen(depth(operations), scale_bits, scale_bits, secure_bits)


def forgets_the_scale(operations, scale_bits, largest_logit, secure_bits):
    """Its first prime has room for a logit, and not for a logit times the scale: add the bits of the scale."""
    return chosen(depth(operations), first_bits(0, largest_logit), scale_bits, secure_bits)


def stumbles_over_powers_of_two(operations, scale_bits, largest_logit, secure_bits):
    """It is a bit short where the largest logit is a power of two; a prime is less than that: `16` takes 5 bits."""
    first = scale_bits + 1 + (largest_logit - 1).bit_length()
    return chosen(depth(operations), first, scale_bits, secure_bits)


def takes_the_widest_first_prime(operations, scale_bits, largest_logit, secure_bits):
    """It takes 30 bits for the first prime always; where fewer do, a smaller ring may be secure, twice as fast."""
    return chosen(depth(operations), WIDEST, scale_bits, secure_bits)


def swaps_the_ends(operations, scale_bits, largest_logit, secure_bits):
    """It lists the prime that stays last; levels are used up from the end, so the one that stays is the first."""
    degree, bits = my_coefficient_chain(operations, scale_bits, largest_logit, secure_bits)
    return degree, bits[::-1]


def takes_eight_thousand(operations, scale_bits, largest_logit, secure_bits):
    """It takes a degree of 8,192 whatever the chain; the table says which is the least that is secure."""
    return 8192, my_coefficient_chain(operations, scale_bits, largest_logit, secure_bits)[1]


def takes_the_least_degree(operations, scale_bits, largest_logit, secure_bits):
    """It takes the least degree of the table, however long the chain; so large a modulus is not secure there."""
    return min(secure_bits), my_coefficient_chain(operations, scale_bits, largest_logit, secure_bits)[1]


def takes_the_largest_degree(operations, scale_bits, largest_logit, secure_bits):
    """It takes the largest degree of the table; that is secure, and each doubling takes more than twice the time."""
    return max(secure_bits), my_coefficient_chain(operations, scale_bits, largest_logit, secure_bits)[1]


def stays_below_the_limit(operations, scale_bits, largest_logit, secure_bits):
    """It refuses a total that is just what the table allows; that is still secure."""
    less = {degree: most - 1 for degree, most in secure_bits.items()}
    return my_coefficient_chain(operations, scale_bits, largest_logit, less)


NETWORKS = (
    (MLP, 26, 7),
    (("weights", "sum", "bias"), 24, 16),
    ((*MLP, "square", "weights", "bias", "square", "weights", "bias"), 26, 6),
    (HALF, 25, 7),
    (HALF, 25, 8),
    (SUM, 18, 15),
    (("weights", "square") * 3 + ("weights",), 23, 5),
    (("weights", "sum", "square", "square") * 4 + MLP[:3], 25, 9),
)


def networks() -> list[dict]:
    """From no level to 13; totals at the limit, a bit above it, and beyond it with the special prime alone."""
    return [
        {
            "operations": list(operations),
            "scale_bits": scale_bits,
            "largest_logit": largest_logit,
            "secure_bits": dict(SECURE_BITS),
        }
        for operations, scale_bits, largest_logit in NETWORKS
    ]


def by_trying(operations, scale_bits, largest_logit, secure_bits) -> np.ndarray:
    """What `ckks_context` accepts: the least degree, and the least first prime that has room for the logits."""
    levels, scale = depth(operations), 2.0**scale_bits

    def first_at(degree: int) -> int:
        contexts = ((b, ckks_context(degree, (b,), scale=scale, insecure=True)) for b in count(scale_bits))
        return next(b for b, context in contexts if room(context, 0, scale) > largest_logit)

    for degree in secure_bits:
        first = first_at(degree)
        try:
            ckks_context(degree, (first, *[scale_bits] * levels), special_bits=SPECIAL_BITS, scale=scale)
        except ValueError:
            continue
        return np.array([degree, levels + 1, first, *[scale_bits] * 2])
    raise AssertionError("no degree of the table is secure for this network")


# --- how an answer is judged


def as_chain(choice: object, secure_bits: dict[int, int]) -> tuple[int, tuple[int, ...]]:
    """The degree and the bits.

    Raises:
        Fault: the choice is no such pair.
    """
    if choice is None:
        raise Fault("It returns None: is the `return` missing?")
    try:
        degree, bits = choice
    except (TypeError, ValueError, RuntimeError) as error:
        raise Fault("It does not return a degree and a tuple of bits; end with `return degree, bits`.") from error
    try:
        degree = operator.index(degree)
    except (TypeError, ValueError) as error:
        raise Fault(
            f"Its degree is {describe(degree)}; expected a whole number. Does the degree come first?"
        ) from error
    if degree not in secure_bits:
        raise Fault(f"Its degree is {degree}; the table has {', '.join(map(str, secure_bits))}.")
    try:
        sizes = tuple(operator.index(size) for size in bits)
    except (TypeError, ValueError, RuntimeError) as error:
        raise Fault(f"Its bits are {describe(bits)}; expected a tuple of whole numbers, one for each prime.") from error
    if not sizes or not 1 <= min(sizes) <= max(sizes) <= 60:
        raise Fault(f"Its bits are {describe(bits)}; expected one prime at least, each of 1 to 60 bits.")
    return degree, sizes


def choose(answer: Callable, **case: object) -> Tensor:
    """Degree, number of primes, bits of the first, least and most bits of the others; what does no harm is forgiven."""
    secure_bits = dict(case["secure_bits"])
    degree, bits = as_chain(
        call(answer, **case | {"operations": list(case["operations"]), "secure_bits": secure_bits}), case["secure_bits"]
    )
    first, *others = bits
    least = first_bits(case["scale_bits"], case["largest_logit"])
    right = chosen(depth(case["operations"]), least, case["scale_bits"], case["secure_bits"])[0]
    if least < first <= WIDEST and degree == right and sum(bits) + SPECIAL_BITS <= case["secure_bits"][degree]:
        first = least
    others = others or [case["scale_bits"]]
    return torch.tensor([degree, len(bits), first, min(others), max(others)], dtype=torch.float64)


def why_not(result: np.ndarray, operations, scale_bits, largest_logit, secure_bits) -> str:
    """What the chain lacks, or has too much of."""
    degree, primes, first, low, high = (int(number) for number in result)
    levels = depth(operations)
    given = (
        f"For {len(operations)} operations, {levels} of which multiply, `scale_bits = {scale_bits}, "
        f"largest_logit = {largest_logit}`"
    )
    if primes != levels + 1:
        return f"{given} it lists {primes} primes; expected {levels + 1}: the one that stays, and one for each level."
    if (low, high) != (scale_bits, scale_bits):
        return (
            f"{given} the primes of its levels have {low} to {high} bits; with {scale_bits} each, like the scale, "
            "rescaling brings a product's scale back to where it was."
        )
    if first < first_bits(scale_bits, largest_logit):
        return (
            f"{given} its first prime has {first} bits, and is a little below 2^{first}. It must exceed "
            f"2 x 2^{scale_bits} x {largest_logit}."
        )
    total = first + levels * scale_bits + SPECIAL_BITS
    if total > secure_bits[degree]:
        return (
            f"{given} its modulus has {total} bits, the special prime included; with N = {degree} at most "
            f"{secure_bits[degree]} are secure."
        )
    if first > WIDEST:
        return f"{given} its first prime has {first} bits; our package's primes have {WIDEST} at most."
    return (
        f"{given} it takes N = {degree}; a smaller degree is secure as well, with a first prime no wider than needed."
    )


coefficient_chain = Exercise(
    chapter=CHAPTER,
    task=r"""
        **The parameters of a network.** A network is evaluated on CKKS ciphertexts, its operations in sequence. With a
        scale $\Delta = 2^b$, "weights" (a product with public numbers) and "square" double the scale's bits, so that
        each is followed by a rescaling, which uses up a prime of $b$ bits: a level. "sum" (of rotations) and "bias"
        need none. The prime $q_0$ stays. A result $z$ can be decrypted if

        $$|z| < \frac{q_0}{2 \Delta},$$

        and a prime of $k$ bits may be taken as a little less than $2^k$. Key switching needs one more prime, the
        special one, of 30 bits. It serves no level, and counts for security like the others.

        Write `my_coefficient_chain(operations, scale_bits, largest_logit, secure_bits)`: the least degree $N$ that is
        secure by the table `secure_bits` (most bits of all primes together, by degree), and the bits of the chain,
        $q_0$ first, no level to spare, and without the special prime.
    """,
    solution=my_coefficient_chain,
    truth=by_trying,
    cases=networks,
    tested="8 networks of 0 to 13 levels, also at the limit of the table and a bit beyond, against ckks_context",
    hints=(
        "First the levels: how many of the operations multiply? There is a prime of `scale_bits` for each.",
        "The first prime must exceed $2 \\Delta \\, |z|$: a bit for the sign, the bits of the scale, and "
        "`largest_logit.bit_length()` for the logit.",
        "The total is `sum(bits) + 30`; of the degrees whose entry in the table is at least that, take the least.",
    ),
    mistakes=(
        forgets_the_special_prime,
        lists_the_special_prime,
        is_one_level_short,
        counts_squares_alone,
        counts_weights_alone,
        counts_sums_as_well,
        forgets_the_sign,
        leaves_no_room_for_logits,
        forgets_the_scale,
        stumbles_over_powers_of_two,
        takes_the_widest_first_prime,
        swaps_the_ends,
        takes_eight_thousand,
        takes_the_least_degree,
        takes_the_largest_degree,
        stays_below_the_limit,
    ),
    call=choose,
    look=why_not,
)

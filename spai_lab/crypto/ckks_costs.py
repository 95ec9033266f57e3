r"""What encryption costs, counted instead of timed: bytes, transforms and multiplications of machine words.

A pixel is a byte; encrypted it is two polynomials of N coefficients modulo Q, as large for one image as for N / 2. And
a larger Q, for more products in sequence, needs a larger N to stay secure, so that depth is paid twice.

>>> from spai_lab.crypto.ckks_context import ckks_context
>>> context = ckks_context(8192, (30, 30, 30, 30, 30, 30))
>>> [round(expansion(context, images)) for images in (1, 4096)]
[368640, 90]

Survey: private AI, the costs of homomorphic encryption.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from spai_lab.checks import check_count, check_number
from spai_lab.crypto.ckks_ciphertext import Ciphertext, check_type
from spai_lab.crypto.ckks_context import SECURE_BITS, Context, check_level
from spai_lab.crypto.cryptonets import Layer
from spai_lab.crypto.cryptonets_plan import Plan, ledger
from spai_lab.crypto.ntt import check_degree


@dataclass(frozen=True)
class Counts:
    """What a batch takes of the server.

    Products of a ciphertext with a weight and with a ciphertext, relinearizations, rescalings of ciphertexts, and the
    transforms of one polynomial modulo one prime that the last two need.
    """

    weights: int
    squares: int
    relinearizations: int
    rescalings: int
    transforms: int


# --- bytes ------------------------------------------------------------------------------------------------------------


def ciphertext_bytes(context: Context, *, level: int | None = None, parts: int = 2) -> int:
    r"""$\lceil \frac{1}{8} \, \mathrm{parts} \cdot N \sum_i \lceil \log_2 q_i \rceil \rceil$, tightly packed.

    Args:
        context: of the ciphertext.
        level: None takes the top, of a fresh one.
        parts: 2, or 3 before relinearization.
    Returns:
        bytes.
    Raises:
        ValueError: names the argument.
    """
    check_type("context", context, Context)
    level = context.levels if level is None else level
    check_level(context, level)
    check_count("parts", parts, low=2)
    bits = sum(q.bit_length() for q in context.at(level))
    return math.ceil(parts * context.degree * bits / 8)


def expansion(context: Context, images: int = 1) -> float:
    """Bytes of a fresh ciphertext for each byte that is in it: one pixel, of one byte, of each image.

    Args:
        context: of the ciphertext.
        images: from 1 to N / 2, one a slot.
    Returns:
        the factor.
    Raises:
        ValueError: names the argument.
    """
    size = ciphertext_bytes(context)
    check_count("images", images)
    check_number("images", images, low=1, high=context.slots)
    return size / images


def traffic(layers: Sequence[Layer], plan: Plan, pixels: int) -> tuple[int, int]:
    """Bytes from the client, all pixels of a batch, and back, all logits; keys not counted.

    Args:
        layers: of `spai_lab.crypto.cryptonets.fold`.
        plan: how they are computed.
        pixels: of an image.
    Returns:
        bytes there and bytes back, for one image as for N / 2.
    """
    check_count("pixels", pixels)
    last = ledger(layers, plan)[-1]
    return pixels * ciphertext_bytes(plan.context), last.ciphertexts * ciphertext_bytes(plan.context, level=last.level)


# --- operations -------------------------------------------------------------------------------------------------------


def transform_products(degree: int) -> int:
    r"""Products of words in one transform by two matrix products, as in `spai_lab.crypto.ntt`: $2 N (R + C) + N$.

    R C = N, both nearly $\sqrt N$, and each matrix comes in two halves: $4 N^{3/2}$ and a little. The textbook's fast
    transform needs $\frac{1}{2} N \log_2 N$, but of a kind that NumPy is slow at.

    >>> [transform_products(degree) for degree in (2048, 8192)]
    [395264, 3153920]
    """
    check_degree(degree)
    R = 2 ** ((degree.bit_length() - 1) // 2)
    return 2 * degree * (R + degree // R) + degree


def counts(layers: Sequence[Layer], plan: Plan) -> Counts:
    r"""What the server does for a batch, from the network alone; N only says how much each of it is.

    A rescaling at level l is, in each of two parts, one transform back and l forth. A relinearization is l + 1 back,
    and l + 2 forth for each digit; then, in each part, one back and l + 1 forth.

    Args:
        layers: of `spai_lab.crypto.cryptonets.fold`.
        plan: how they are computed.
    Returns:
        the counts.

    >>> from spai_lab.crypto.cryptonets import cryptonet, fold
    >>> from spai_lab.crypto.cryptonets_plan import cryptonets_plan
    >>> counts(fold(cryptonet(), limits=(4.0, 8.0)), cryptonets_plan())
    Counts(weights=91000, squares=820, relinearizations=110, rescalings=310, transforms=9490)
    """
    weights = squares = relinearizations = rescalings = transforms = 0
    for stage in ledger(layers, plan):
        n, level = stage.ciphertexts, stage.level
        if stage.what == "square":
            squares += n
        elif stage.what == "sums":
            weights += n * stage.layer.W.shape[1]
        elif stage.what == "relinearize":
            relinearizations += n
            transforms += n * ((level + 1) * (level + 3) + 2 * (level + 2))
        elif stage.what == "rescale":
            rescalings += n
            transforms += n * 2 * (level + 2)  # the level below
    return Counts(weights, squares, relinearizations, rescalings, transforms)


def least_degree(bits: int) -> int:
    """The least ring degree that keeps a modulus of so many bits, the special prime included, secure.

    Args:
        bits: of the whole modulus.
    Returns:
        N.
    Raises:
        ValueError: no degree in the table does.

    >>> [least_degree(30 * primes) for primes in (3, 4, 7, 8)]  # one more product, and all costs double
    [4096, 8192, 8192, 16384]
    """
    check_count("bits", bits)
    for degree, limit in SECURE_BITS.items():
        if bits <= limit:
            return degree
    raise ValueError(f"bits is {bits}; accepted: at most {max(SECURE_BITS.values())}")


# --- scales -----------------------------------------------------------------------------------------------------------


def forced_scale(x: Ciphertext, scale: float) -> Ciphertext:
    r"""Say that a ciphertext has another scale, as libraries do that keep one for all: its numbers change.

    With $\Delta$ in truth and $\Delta'$ in the books, z is read as $z \Delta / \Delta'$. After a rescaling by q instead
    of $2^s$ this is a gain of $2^s / q$, small enough not to be seen, and squared by each square.

    Args:
        x: ciphertext.
        scale: $\Delta'$, at least 1.
    Returns:
        the same ciphertext under the other scale. Its `error` is no bound any more, which is the point.
    Raises:
        ValueError: names the argument.
    """
    check_type("x", x, Ciphertext)
    check_number("scale", scale, low=1, high=2.0**120)
    return replace(x, scale=float(scale))

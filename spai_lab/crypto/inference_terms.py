r"""What a client and a server agree on before encrypted inference, so that no header tells anything of the weights.

A ciphertext travels with its level, its scale, a limit on its numbers and a bound on their error. All of them follow
from what was computed: left as they are, the limit of an answer is $\sum_a |W_{2,k,a}| \, \ell_a^2 + |b_{2,k}|$, a sum
of the server's weights that the client reads exactly, and the scale follows from the weights too. And what came in a
header was believed. So both parties first agree on public numbers: sizes, parameters, and how large the weights of a
row are at most, in sum. Levels, scales, limits and errors of questions and answers follow from these alone (`Form`).
The server's weights are held to them before it answers anything, answers are labelled with them, and what is labelled
otherwise is refused. Bounds are those of the worst weights that were agreed on, and so wider than those of the weights.

The noise in an answer still depends on the weights: no circuit privacy. For learning, not for secrets.

Reference: Gilad-Bachrach et al. 2016, "CryptoNets", and Brutzkus, Elisha and Gilad-Bachrach 2018, arXiv 1812.10659, for
the networks; Cheon et al. 2016, IACR 2016/421, for the bounds. Survey: private AI, homomorphic encryption.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from spai_lab.checks import check_number, describe
from spai_lab.crypto.ckks_ciphertext import Ciphertext, check_type
from spai_lab.crypto.ckks_context import Bound, Context
from spai_lab.crypto.ckks_encoding import SAME_SCALE, locked
from spai_lab.crypto.ckks_noise import (
    FLOAT,
    ROUNDING,
    encoding_error,
    encryption_error,
    slot_bound,
)

DIGITS = 3  # significant ones of a bound, rounded up, so that all machines come to the same


@dataclass(frozen=True, eq=False)
class Form:
    """What all ciphertexts of a question or an answer look like: how many, and what each header says."""

    count: int
    level: int
    scale: float
    limit: Bound
    error: Bound

    def __post_init__(self) -> None:
        locked(self.limit, self.error)


@dataclass(frozen=True, eq=False)
class Terms:
    """The public part of a conversation: parameters, forms, rotations that need keys, and all that was agreed on."""

    context: Context
    question: Form
    answer: Form
    rotations: tuple[int, ...]
    fingerprint: str


# --- limits of weights ------------------------------------------------------------------------------------------------


def row_sum(W: np.ndarray | Tensor, b: np.ndarray | Tensor) -> float:
    r"""$\max_k \sum_i |W_{ki}| + |b_k|$: what a layer makes of numbers up to 1, at most.

    >>> row_sum(np.array([[1.0, -2.0], [0.5, 0.5]]), np.array([0.25, -1.0]))
    3.25
    """
    return float((np.abs(np.asarray(W)).sum(1) + np.abs(np.asarray(b))).max())


def row_limit(W: np.ndarray | Tensor, b: np.ndarray | Tensor, *, digits: int = 1) -> float:
    """`row_sum`, rounded up to so many digits, so that telling it tells no more than these.

    >>> row_limit(np.array([[1.0, -2.0]]), np.array([0.25]))
    4.0
    """
    return rounded_up(row_sum(W, b), digits)


def rounded_up(value: float, digits: int = DIGITS) -> float:
    """The next number with so many significant digits.

    >>> rounded_up(0.0123401), rounded_up(3.0)
    (0.0124, 3.0)
    """
    if value == 0:
        return 0.0
    exponent = math.floor(math.log10(value)) - digits + 1
    return float(f"{math.ceil(round(value / 10.0**exponent, 6))}e{exponent}")


# --- forms ------------------------------------------------------------------------------------------------------------


def labelled(name: str, texts: Sequence[Ciphertext], form: Form) -> list[Ciphertext]:
    """The ciphertexts with the labels of the form; raise `ValueError` unless they keep to it."""
    if len(texts) != form.count:
        raise ValueError(f"{name} has {len(texts):,} ciphertexts; accepted: {form.count:,}, as agreed on")
    for x in texts:
        check_type(name, x, Ciphertext)
        same = (len(x.parts), x.level) == (2, form.level) and math.isclose(x.scale, form.scale, rel_tol=SAME_SCALE)
        if not same or not (np.all(x.limit <= form.limit) and np.all(x.error <= form.error)):
            raise ValueError(f"{name} is {x}; accepted: within what was agreed on, {said(form)}")
    return [replace(x, scale=form.scale, limit=form.limit, error=form.error) for x in texts]


def check_form(name: str, x: Ciphertext, form: Form) -> None:
    """Raise `ValueError` unless what came is labelled with the form, to the last bit."""
    here = len(x.parts), x.level, x.scale, bits(x.limit), bits(x.error)
    if here != (2, form.level, form.scale, bits(form.limit), bits(form.error)):
        raise ValueError(f"{name} is {x}; accepted: as was agreed on, {said(form)}")


def bits(bound: Bound) -> bytes:
    """A bound as it travels, since -0 equals 0, and a sign would be a bit that says something."""
    return np.asarray(bound, dtype=np.float64).tobytes()


def said(form: Form) -> str:
    """A form in words."""
    return (
        f"level {form.level}, scale 2^{math.log2(form.scale):.2f}, sizes up to {np.max(form.limit):.4g}, error below "
        f"{np.max(form.error):.3g}, 2 parts"
    )


def fresh_form(context: Context, count: int, scale: float) -> Form:
    """Of fresh encryptions of pixels."""
    return Form(count, context.levels, scale, 1.0, rounded_up(fresh_error(context, scale)))


def fresh_error(context: Context, scale: float) -> float:
    """Of a fresh encryption of pixels."""
    return rounded_up(
        encoding_error(context.degree, scale, 1.0) + encryption_error(context.degree, context.special) / scale
    )


def known_error(degree: int, scale: float, limit: float) -> float:
    r"""Of an encoding, as if what rounding leaves were random; the server measures that of its weights.

    `spai_lab.crypto.encrypted_mlp.encode_known` measures it, and `labelled` refuses weights that exceed it.
    """
    return slot_bound(degree, plain=(ROUNDING,)) / scale + 2 * FLOAT * limit


def digest(public: tuple) -> str:
    """What was agreed on in 64 hexadecimal digits."""
    return hashlib.sha256(repr(public).encode()).hexdigest()


# --- checks -----------------------------------------------------------------------------------------------------------


def check_rows(rows: Sequence[float], count: int) -> None:
    """Raise `ValueError` unless there is a limit for each layer."""
    if not isinstance(rows, tuple | list) or len(rows) != count:
        raise ValueError(f"rows is {describe(rows)}; accepted: {count} numbers, one for each layer")
    for row in rows:
        check_number("rows", row, low=0, exclusive=True)


def check_row(name: str, largest: float, limit: float) -> None:
    """Raise `ValueError` unless rows keep their limit."""
    if largest > limit:
        raise ValueError(f"{name} has rows of up to {largest:.4g} in sum; accepted: at most {limit:.4g}, as agreed on")

"""Residues against sympy's Chinese remainders and Python's integers; division with rounding against fractions."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sympy.ntheory.modular import crt

from spai_lab.crypto import rns
from spai_lab.crypto.ntt import forward, inverse, ntt_primes
from spai_lab.crypto.rns import centered, column, divide_by_last, from_residues, to_residues

PRIMES = ntt_primes(30, 5, 8)
Q = math.prod(PRIMES)

numbers = st.lists(st.integers(-(Q // 2), Q // 2), min_size=8, max_size=8)


def objects(values):
    return np.array(values, dtype=object)


def divided(values, primes=PRIMES):
    """`divide_by_last` of coefficients, as integers."""
    rest = primes[:-1]
    result = divide_by_last(forward(to_residues(objects(values), primes), primes), primes)
    return from_residues(inverse(result, rest), rest).tolist()


@given(numbers)
def test_numbers_come_back_and_are_those_of_sympy(values):
    residues = to_residues(objects(values), PRIMES)
    assert residues.dtype == np.int64
    assert ((residues >= 0) & (residues < column(PRIMES))).all()
    assert from_residues(residues, PRIMES).tolist() == values
    assert [int(crt(PRIMES, column)[0]) for column in residues.T.tolist()] == [value % Q for value in values]


@given(numbers, numbers)
def test_sums_and_products_row_by_row_are_those_modulo_the_product(a, b):
    x, y = to_residues(objects(a), PRIMES), to_residues(objects(b), PRIMES)
    around = lambda value: (value + Q // 2) % Q - Q // 2  # noqa: E731
    assert from_residues((x + y) % column(PRIMES), PRIMES).tolist() == [
        around(i + j) for i, j in zip(a, b, strict=True)
    ]
    assert from_residues(x * y % column(PRIMES), PRIMES).tolist() == [around(i * j) for i, j in zip(a, b, strict=True)]


@given(numbers)
def test_division_by_the_last_prime_rounds_to_nearest(values):
    assert divided(values) == [round(Fraction(value, PRIMES[-1])) for value in values]


def test_division_rounds_on_both_sides_of_a_half_and_keeps_leading_dimensions():
    q, half = PRIMES[-1], PRIMES[-1] // 2
    values = [half, half + 1, -half, -half - 1, 7 * q + half, 7 * q + half + 1, 0, -1]
    assert divided(values) == [0, 1, 0, -1, 7, 8, 0, 0]
    x = forward(to_residues(np.array(values), PRIMES), PRIMES)
    assert (divide_by_last(np.stack([x, 2 * x % column(PRIMES)]), PRIMES)[0] == divide_by_last(x, PRIMES)).all()


def test_a_division_that_forgets_to_center_is_caught(monkeypatch):
    values = [PRIMES[-1] // 2 + 1] * 8
    monkeypatch.setattr(rns, "centered", lambda x, p: x if isinstance(p, int) and p == PRIMES[-1] else centered(x, p))
    assert divided(values) == [0] * 8  # rounded down, where 1 is nearer


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: to_residues(np.zeros(8), PRIMES), "x is float64"),
        (lambda: to_residues([1, 2], PRIMES), "x is list"),
        (lambda: from_residues(np.zeros((2, 8), dtype=np.int64), PRIMES), r"x has the shape \(2, 8\)"),
        (lambda: divide_by_last(np.zeros((1, 8), dtype=np.int64), PRIMES[:1]), "primes is a single one"),
    ],
)
def test_bad_arguments_are_named(call, named):
    with pytest.raises(ValueError, match=f"{named}.*accepted"):
        call()

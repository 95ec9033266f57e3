"""Transforms against the definition, products against schoolbook and Python's integers, and float64 at its limit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sympy import isprime

from spai_lab.crypto import ntt
from spai_lab.crypto.ntt import automorphism, forward, inverse, is_prime, negacyclic_product, ntt_primes, root


def schoolbook(a, b, p):
    """a b mod (X^N + 1, p), term by term."""
    result = [0] * len(a)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            sign = 1 if i + j < len(a) else -1
            result[(i + j) % len(a)] += sign * x * y
    return [value % p for value in result]


def kronecker(a, b, p):
    """The same by one product of Python's integers: each coefficient, from 0 to p - 1, in a field of 80 bits."""
    pack = lambda c: int.from_bytes(b"".join(int(x).to_bytes(10, "little") for x in c), "little")  # noqa: E731
    n = len(a)
    fields = (pack(a) * pack(b)).to_bytes(20 * n, "little")
    c = [int.from_bytes(fields[10 * i : 10 * i + 10], "little") for i in range(2 * n)]
    return [(low - high) % p for low, high in zip(c[:n], c[n:], strict=True)]


def random(shape, low, high):
    return np.random.default_rng(0).integers(low, high, shape, endpoint=True)


@pytest.mark.parametrize("degree", [8, 16, 32, 64])
def test_values_are_those_at_the_odd_powers_of_psi(degree):
    primes = ntt_primes(30, 3, degree)
    a = random((3, degree), -(2**30), 2**30)
    for row, values, p in zip(a.tolist(), forward(a, primes), primes, strict=True):
        psi = root(degree, p)
        assert pow(psi, degree, p) == p - 1
        points = [pow(psi, 2 * k + 1, p) for k in range(degree)]
        assert values.tolist() == [sum(c * pow(x, j, p) for j, c in enumerate(row)) % p for x in points]


@given(st.data(), st.sampled_from([8, 16, 32]), st.sampled_from([14, 20, 30]))
def test_products_are_the_schoolbooks(data, degree, bits):
    primes = ntt_primes(bits, 2, degree)
    coefficients = st.lists(st.integers(-(2**30), 2**30), min_size=degree, max_size=degree)
    a, b = data.draw(coefficients), data.draw(coefficients)
    found = negacyclic_product(np.array([a]), np.array([b]), primes)
    assert found.tolist() == [schoolbook(a, b, p) for p in primes]


@pytest.mark.parametrize("degree", [1024, 4096, 8192, 16384])
def test_large_products_are_those_of_pythons_integers(degree):
    primes = ntt_primes(30, 2, degree)
    a, b = random((2, 1, degree), 0, min(primes) - 1)
    found = negacyclic_product(a, b, primes)
    assert found.tolist() == [kronecker(a[0], b[0], p) for p in primes]


@pytest.mark.parametrize("degree", ntt.DEGREES)
def test_there_and_back_for_each_degree_and_any_number_of_limbs(degree):
    primes = ntt_primes(30, 3, degree)
    a = random((2, 3, degree), 0, min(primes) - 1)
    values = forward(a, primes)
    assert values.dtype == np.int64
    assert ((values >= 0) & (values < np.array(primes)[:, None])).all()
    assert (inverse(values, primes) == a).all()
    assert (forward(a[0, 1:2], primes[1:2]) == values[0, 1:2]).all()


@pytest.mark.parametrize("extreme", [2**30, -(2**30)])
def test_float64_is_exact_where_the_sums_are_largest(extreme):
    degree = 16384
    (p,) = ntt_primes(30, 1, degree)
    a = np.full((1, degree), extreme)
    constant = forward(a % p, (p,))
    assert (forward(a, (p,)) == constant).all()
    psi = root(degree, p)  # sum of c x^j over j is c (x^N - 1) / (x - 1) = -2 c / (x - 1)
    some = range(0, degree, 499)
    expected = [-2 * extreme * pow(pow(psi, 2 * k + 1, p) - 1, -1, p) % p for k in some]
    assert constant[0, ::499].tolist() == expected


def test_without_the_cut_the_floats_round(monkeypatch):
    primes = ntt_primes(26, 1, 1024)
    a, b = random((2, 1, 1024), 0, primes[0] - 1)
    right = negacyclic_product(a, b, primes)

    def uncut(matrix, x, p):
        return ((matrix[0] * 2**ntt.CUT + matrix[1]) @ x.astype(np.float64)).astype(np.int64) % p

    monkeypatch.setattr(ntt, "matrix_product", uncut)
    assert (negacyclic_product(a, b, primes) != right).mean() > 0.9


@pytest.mark.parametrize("element", [1, 3, 5, 25, 2 * 64 - 1])
def test_an_automorphism_moves_values_only(element):
    degree, primes = 64, ntt_primes(30, 2, 64)
    a = random((1, degree), 0, 1000)
    moved = np.zeros_like(a)
    for j, c in enumerate(a[0]):
        e = j * element % (2 * degree)
        moved[0, e % degree] += c if e < degree else -c
    assert (forward(moved, primes) == forward(a, primes)[:, automorphism(degree, element)]).all()


def test_primes_are_prime_fit_and_fall():
    assert all(is_prime(n) == isprime(n) for n in [*range(2000), *range(2**30 - 2000, 2**30)])
    for degree, bits in [(8, 14), (1024, 20), (8192, 26), (16384, 30)]:
        primes = ntt_primes(bits, 3, degree)
        assert list(primes) == sorted(set(primes), reverse=True)
        assert all(isprime(p) and p % (2 * degree) == 1 and p.bit_length() == bits for p in primes)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: ntt_primes(31, 1, 1024), "bits is 31"),
        (lambda: ntt_primes(14, 1, 16384), "bits is 14"),
        (lambda: ntt_primes(14, 99, 64), "bits is 14"),
        (lambda: ntt_primes(30, 0, 64), "count is 0"),
        (lambda: ntt_primes(30, 1, 100), "degree is 100"),
        (lambda: ntt_primes(30, 1, 2**15), "degree is 32768"),
        (lambda: forward(np.zeros((1, 8)), (97,)), "x is float64"),
        (lambda: forward(np.zeros((3, 8), dtype=np.int64), (97, 113)), r"x is int64 \(3, 8\)"),
        (lambda: inverse(np.zeros((1, 9), dtype=np.int64), (97,)), "x is int64"),
        (lambda: automorphism(8, 2), "element is 2"),
    ],
)
def test_bad_arguments_are_named(call, named):
    with pytest.raises(ValueError, match=f"{named}.*accepted"):
        call()

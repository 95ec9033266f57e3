"""Shamir's scheme against Python's integers, and over tiny fields against all polynomials there are."""

from collections import Counter
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from spai_lab.crypto.secret_sharing_shamir import (
    FIELD,
    PRIME,
    Field,
    interpolate,
    lagrange,
    mersenne_product,
    shamir_reconstruct,
    shamir_share,
)

ALPHA = 1e-6
BORDERS = (0, 1, 2, 2**30 - 1, 2**30, 2**31 - 1, 2**31, 2**60, 2**60 + 2**31 - 1, PRIME - 2, PRIME - 1)
members = st.integers(0, PRIME - 1) | st.sampled_from(BORDERS)


def elements(*values):
    return np.array(values, dtype=np.uint64)


def polynomial(coefficients, at, prime):
    """By Python's integers and powers."""
    return sum(c * at**k for k, c in enumerate(coefficients)) % prime


@pytest.fixture
def planned(monkeypatch):
    """Coefficients that are chosen instead of drawn."""

    def plan(coefficients):
        monkeypatch.setattr(Field, "draw", lambda field, shape: coefficients.reshape(shape))

    return plan


@given(st.lists(st.tuples(members, members), min_size=1, max_size=20))
def test_products_modulo_the_mersenne_prime(pairs):
    x, y = (elements(*side) for side in zip(*pairs, strict=True))
    assert mersenne_product(x, y).tolist() == [a * b % PRIME for a, b in pairs]
    assert FIELD.add(x, y).tolist() == [(a + b) % PRIME for a, b in pairs]


def test_products_at_all_borders():
    x, y = (elements(*side) for side in zip(*product(BORDERS, BORDERS), strict=True))
    assert mersenne_product(x, y).tolist() == [a * b % PRIME for a, b in product(BORDERS, BORDERS)]


@given(members, st.integers(2, 6), st.integers(0, 5), st.data())
def test_any_t_shares_tell_the_secret(secret, threshold, spare, data):
    parties = threshold + spare
    shares = shamir_share(elements(secret, 7), threshold, parties)
    chosen = data.draw(st.permutations(range(1, parties + 1)))[:threshold]
    rows = shares[[point - 1 for point in chosen]]
    assert shamir_reconstruct(chosen, rows, threshold).tolist() == [secret, 7]


@pytest.mark.parametrize("field", [Field(7), Field(4294967291), FIELD], ids=lambda field: str(field.prime))
def test_shares_are_values_of_the_polynomial(field, planned):
    drawn = elements(3, field.prime - 1, 1, field.prime - 2).reshape(2, 2)  # c_1 and c_2 of two secrets
    planned(drawn)
    shares = shamir_share(elements(5, 6), 3, 5, field=field)
    for column, secret in enumerate((5, 6)):
        coefficients = [secret, *(int(c) for c in drawn[:, column])]
        assert shares[:, column].tolist() == [polynomial(coefficients, i, field.prime) for i in range(1, 6)]


@pytest.mark.parametrize(("prime", "threshold"), [(5, 2), (7, 3), (5, 4)])
def test_fewer_than_t_shares_are_uniform_for_every_secret(prime, threshold, planned):
    coefficients = np.array(list(product(range(prime), repeat=threshold - 1)), dtype=np.uint64).T
    parties, size = prime - 1, coefficients.shape[1]
    by_secret = []
    for secret in range(prime):
        planned(coefficients)
        shares = shamir_share(np.full(size, secret, np.uint64), threshold, parties, field=Field(prime))
        fewer = combinations(range(parties), threshold - 1)
        by_secret.append([Counter(zip(*shares[list(rows)].tolist(), strict=True)) for rows in fewer])
        assert len(set(zip(*shares[:threshold].tolist(), strict=True))) == size
    for views in zip(*by_secret, strict=True):
        assert all(view == views[0] for view in views) and set(views[0].values()) == {1}


def test_a_planted_coefficient_is_caught(planned):
    """With c_1 = 0 on a line, each share is the secret."""
    planned(np.zeros(5, np.uint64))
    secrets = [np.full(5, secret, np.uint64) for secret in range(5)]
    views = {tuple(shamir_share(secret, 2, 3, field=Field(5))[0].tolist()) for secret in secrets}
    assert len(views) == 5


def test_sums_and_products_of_shares():
    x, y = elements(PRIME - 3, 10), elements(5, 2**60)
    one, other = (shamir_share(each, 2, 3) for each in (x, y))
    assert shamir_reconstruct([1, 3], FIELD.add(one, other)[[0, 2]], 2).tolist() == [2, (10 + 2**60) % PRIME]
    products = FIELD.multiply(one, other)
    assert shamir_reconstruct([1, 2, 3], products, 3).tolist() == [PRIME - 15, 10 * 2**60 % PRIME]


def test_a_wrong_share_is_seen_by_one_more_and_by_no_less(refuses):
    shares = shamir_share(elements(42, 43), 3, 5)
    for wrong in range(5):
        changed = shares.copy()
        changed[wrong, 1] = (int(changed[wrong, 1]) + 1) % PRIME
        for size in (4, 5):
            if wrong < size:
                arguments = {"points": range(1, size + 1), "shares": changed[:size], "threshold": 3}
                refuses(shamir_reconstruct, arguments, "does not fit", "degree 2")
    assert shamir_reconstruct([1, 2, 3], changed[:3], 3).tolist() == [42, 43]
    changed[0, 0] ^= np.uint64(1)
    assert shamir_reconstruct([1, 2, 3], changed[:3], 3).tolist() != [42, 43]


def test_lagrange_at_other_points():
    coefficients, prime = [3, 1, 4, 1], 10007
    points = [2, 9, 100, 5000]
    shares = elements(*(polynomial(coefficients, i, prime) for i in points))[:, None]
    for at in (0, 1, 9, 10006):
        assert interpolate(points, shares, at, Field(prime)).tolist() == [polynomial(coefficients, at, prime)]
    assert sum(lagrange(points, 77, prime)) % prime == 1  # of the constant 1


@pytest.mark.parametrize("prime", [5, 7, 4294967291, PRIME])
def test_draws_are_uniform(prime):
    """Chi-square over the members, or sixteen equal parts of them."""
    size = 100_000
    words = Field(prime).draw((size // 2, 2)).ravel()
    assert len(words) == size and int(words.max()) < prime
    bins = np.arange(prime + 1) if prime < 16 else np.linspace(0, prime, 17)
    counts = np.histogram(words.astype(np.float64), bins - 0.5 if prime < 16 else bins)[0]
    assert stats.chisquare(counts).pvalue > ALPHA


def test_keys_of_32_bytes_are_shared_in_words():
    key = bytes(range(224, 256))
    shares = shamir_share(np.frombuffer(key, "<u4").astype(np.uint64), 3, 5)
    words = shamir_reconstruct([5, 1, 4], shares[[4, 0, 3]], 3)
    assert words.astype("<u4").tobytes() == key


ONE = elements(1)


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        (Field, {"prime": 15}, ("prime is 15", "2^61 - 1")),
        (Field, {"prime": 2**59 - 55}, ("prime is",)),
        (Field, {"prime": 1}, ("prime is 1",)),
        (shamir_share, {"secret": elements(PRIME), "threshold": 2, "parties": 3}, (f"secret has {PRIME}",)),
        (shamir_share, {"secret": [1], "threshold": 2, "parties": 3}, ("secret is [1]", "uint64")),
        (shamir_share, {"secret": ONE, "threshold": 4, "parties": 3}, ("threshold is 4", "2 to 3")),
        (shamir_share, {"secret": ONE, "threshold": 1, "parties": 3}, ("threshold is 1",)),
        (shamir_share, {"secret": ONE, "threshold": 2, "parties": 5, "field": Field(5)}, ("parties is 5", "2 to 4")),
        (shamir_share, {"secret": ONE, "threshold": 2, "parties": 3, "field": 7}, ("field is 7",)),
        (shamir_reconstruct, {"points": [1, 1], "shares": elements(1, 2), "threshold": 2}, ("points is [1, 1]",)),
        (shamir_reconstruct, {"points": [0, 1], "shares": elements(1, 2), "threshold": 2}, ("points is 0",)),
        (shamir_reconstruct, {"points": [1, 2], "shares": ONE, "threshold": 2}, ("shares has 1 for 2 points",)),
        (shamir_reconstruct, {"points": [1], "shares": ONE, "threshold": 2}, ("shares has 1", "at least 2")),
        (shamir_reconstruct, {"points": [1], "shares": np.array([1.0]), "threshold": 2}, ("shares is float64",)),
        (shamir_reconstruct, {"points": 1, "shares": ONE, "threshold": 2}, ("points is 1",)),
    ],
)
def test_bad_arguments_are_named(refuses, function, arguments, words):
    refuses(function, arguments, *words)

"""Additive sharing, fixed point, truncation: against Python's integers and, over small rings, against all there is."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from spai_lab.crypto.secret_sharing import reconstruct, share, truncate, truncation_failure
from spai_lab.crypto.secret_sharing_ring import Ring, decode, encode, to_ring, to_signed
from tests.crypto.enumeration import distribution, enumerated

ALPHA = 1e-6  # the false-alarm rate of a statistical test


def elements(*values):
    return np.array(values, dtype=np.uint64)


# --- the ring ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 3, 8, 63, 64])
def test_signed_numbers_are_the_residues(bits):
    edge = [-(2 ** (bits - 1)), -1, 0, 2 ** (bits - 1) - 1]
    x = to_ring(edge, Ring(bits))
    assert x.tolist() == [k % 2**bits for k in edge] and to_signed(x, Ring(bits)).tolist() == edge
    assert to_ring(np.array([2**bits - 1], np.uint64), Ring(bits)).tolist() == [2**bits - 1]


@given(st.integers(1, 64), st.data())
def test_fractions_are_the_nearest_multiples(bits, data):
    places = data.draw(st.integers(0, bits - 1))
    half = Fraction(2) ** (bits - 1 - places)
    values = data.draw(st.lists(st.floats(-float(half), float(half)), min_size=1, max_size=5))
    nearest = [round(Fraction(value) * 2**places) for value in values]  # of Python: a half to the even one
    ring = Ring(bits)
    if min(nearest) < -(2 ** (bits - 1)) or max(nearest) >= 2 ** (bits - 1):
        with pytest.raises(ValueError, match="values has"):
            encode(values, places, ring)
        return
    x = encode(values, places, ring)
    assert x.tolist() == [k % 2**bits for k in nearest]
    assert decode(x, places, ring).tolist() == [float(Fraction(k) / 2**places) for k in nearest]


def test_tensors_and_whole_numbers_are_encoded():
    for values in (torch.tensor([[0.5, -1.0]]), np.array([[0.5, -1.0]], np.float32), [[0.5, -1.0]]):
        assert decode(encode(values, 13), 13).tolist() == [[0.5, -1.0]]
    assert encode([2**53, -3], 2).tolist() == [2**55, 2**64 - 12]
    assert to_ring(torch.tensor([-1])).tolist() == [2**64 - 1]


@pytest.mark.parametrize("bits", [3, 64])
def test_draws_are_uniform(bits):
    """Each bit is fair, and so are all pairs of neighbors: chi-square over the four patterns of each."""
    size = 100_000
    words = Ring(bits).draw((size,))
    tests = bits - 1
    for i in range(tests):
        patterns = (words >> np.uint64(i)) & np.uint64(3)
        counts = np.bincount(patterns.astype(np.int64), minlength=4)
        assert stats.chisquare(counts).pvalue > ALPHA / tests
    assert int(words.max()).bit_length() == bits and words.flags.writeable


# --- sharing ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4), st.integers(2, 5))
def test_shares_add_up_to_the_number(values, parties):
    shares = share(elements(*values), parties=parties)
    assert len(shares) == parties
    sums = [sum(int(each[i]) for each in shares) % 2**64 for i in range(len(values))]  # of Python
    assert sums == values == reconstruct(shares).tolist()


@pytest.mark.parametrize("parties", [2, 3, 4])
def test_any_shares_but_one_are_uniform_for_every_number(parties):
    bits = 2
    for missing in range(parties):
        seen = []
        for x in range(2**bits):
            with enumerated(bits, {"MainThread": parties - 1}):
                shares = share(np.full(4 ** (parties - 1), x, np.uint64), parties=parties, ring=Ring(bits))
            seen.append(distribution(bits, shares[:missing] + shares[missing + 1 :]))
        assert all(each == seen[0] for each in seen)
        assert set(seen[0][1]) == {1} and len(seen[0][0]) == 4 ** (parties - 1)


def test_a_reused_mask_is_caught():
    """Two numbers under one mask: what the second party gets depends on their difference."""

    def seen(x, y, change):
        with enumerated(3, {"MainThread": 2}, change=change):
            parts = [share(np.full(64, each, np.uint64), ring=Ring(3))[1] for each in (x, y)]
        return distribution(3, parts)

    fresh, reused = (lambda name, columns: columns), (lambda name, columns: columns[:1] * 2)
    pairs = [(x, y) for x in range(8) for y in range(8)]
    assert all(seen(*pair, fresh) == seen(0, 0, fresh) for pair in pairs)
    assert [seen(*pair, reused) == seen(0, 0, reused) for pair in pairs] == [x == y for x, y in pairs]


# --- truncation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bits", "places"), [(6, 1), (8, 3), (10, 4), (5, 4)])
def test_truncation_fails_as_often_as_is_said_and_not_once_more(bits, places):
    """All numbers and all masks of a ring: right up or down, or wrong by $2^{l-f}$ more, after a wrap."""
    ring, size = Ring(bits), 2**bits
    for x in range(-size // 2, size // 2):
        with enumerated(bits, {"MainThread": 1}):
            shares = share(to_ring(np.full(size, x), ring), ring=ring)
        halves = [truncate(each, places, party=i, ring=ring) for i, each in enumerate(shares)]
        sums = [(int(a) + int(b)) % size for a, b in zip(*halves, strict=True)]
        true, wrap = Fraction(x, 2**places), -int(np.sign(x)) * 2 ** (bits - places)
        neighbors = {math.floor(true), math.ceil(true)}
        right = {k % size: k for k in neighbors}
        wrong = {(k + wrap) % size: k for k in neighbors if x}
        failures = sum(z not in right for z in sums)
        assert failures / size == abs(x) / 2**bits == truncation_failure(abs(x), ring=ring)
        assert all(z in right or z in wrong for z in sums)
        unwrapped = [right[z] if z in right else wrong[z] for z in sums]
        assert Fraction(sum(unwrapped), size) == true  # right on average


def test_truncation_of_no_places_changes_nothing():
    shares = share(elements(0, 5, 2**63, 2**64 - 1))
    assert reconstruct([truncate(each, 0, party=i) for i, each in enumerate(shares)]).tolist() == [
        0, 5, 2**63, 2**64 - 1
    ]  # fmt: skip


def test_large_numbers_are_truncated_within_a_unit():
    """Fails with the probability that is asserted first, below 1e-6."""
    x = np.random.default_rng(0).integers(-(2**26), 2**26, 10_000)
    assert truncation_failure(2**26, count=len(x)) < ALPHA
    shares = share(to_ring(x))
    z = reconstruct([truncate(each, 13, party=i) for i, each in enumerate(shares)])
    errors = to_signed(z) - x / 2**13
    assert np.abs(errors).max() < 1
    # right on average: errors are independent, within 1, so by Hoeffding the mean exceeds this with probability ALPHA
    assert abs(errors.mean()) < math.sqrt(2 * math.log(2 / ALPHA) / len(x))
    assert errors.std() > 0.3  # and not rounded: each of the two neighbors occurs


def test_failure_bounds():
    assert truncation_failure(2**30, count=2**10) == 2.0**-24
    assert truncation_failure(2**63, count=5) == 1.0


# --- what is refused --------------------------------------------------------------------------------------------------

TOY = Ring(3)


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        (Ring, {"bits": 0}, ("bits is 0", "1 to 64")),
        (Ring, {"bits": 65}, ("bits is 65",)),
        (Ring, {"bits": True}, ("bits is True",)),
        (to_ring, {"values": [8], "ring": TOY}, ("values has 8", "-4 to 7")),
        (to_ring, {"values": [-5], "ring": TOY}, ("values has -5",)),
        (to_ring, {"values": [0.5]}, ("values is [0.5]", "whole numbers")),
        (to_ring, {"values": 5}, ("values is 5", "at least one dimension")),
        (to_ring, {"values": [2**70]}, ("values is",)),
        (to_signed, {"x": elements(8), "ring": TOY}, ("x has 8", "0 to 7")),
        (to_signed, {"x": np.array([1])}, ("x is int64 of shape (1,)", "uint64")),
        (to_signed, {"x": elements(1), "ring": 3}, ("ring is 3",)),
        (encode, {"values": [np.nan], "places": 2}, ("values has NaN",)),
        (encode, {"values": [np.inf], "places": 2}, ("values has NaN or an infinite",)),
        (encode, {"values": [4.0], "places": 0, "ring": TOY}, ("values has 4", "from -4 to below 4")),
        (encode, {"values": [1.0, -4.6], "places": 0, "ring": TOY}, ("values has -4.6",)),
        (encode, {"values": [1e300], "places": 63}, ("values has 1e+300",)),
        (encode, {"values": ["a"], "places": 2}, ("values is ['a']",)),
        (encode, {"values": [1j], "places": 2}, ("values is",)),
        (encode, {"values": [2**53 + 1], "places": 2}, ("beyond 2^53",)),
        (encode, {"values": [1.0], "places": 64}, ("places is 64", "0 to 63")),
        (decode, {"x": elements(1), "places": -1}, ("places is -1",)),
        (share, {"x": elements(1), "parties": 1}, ("parties is 1",)),
        (share, {"x": [1]}, ("x is [1]", "uint64")),
        (share, {"x": elements()}, ("x is uint64 of shape (0,)", "not empty")),
        (share, {"x": np.uint64(5)}, ("x is", "at least one dimension")),
        (share, {"x": elements(9), "ring": TOY}, ("x has 9",)),
        (reconstruct, {"shares": [elements(1)]}, ("shares is", "at least 2")),
        (reconstruct, {"shares": [elements(1), elements(1, 2)]}, ("shares is uint64 of shape (2,)", "(1,)")),
        (reconstruct, {"shares": elements(1, 2)}, ("shares is", "a list")),
        (truncate, {"x": elements(1), "places": 2, "party": 2}, ("party is 2", "0 to 1")),
        (truncate, {"x": elements(1), "places": 3, "party": 0, "ring": TOY}, ("places is 3",)),
        (truncate, {"x": elements(1), "places": 0.5, "party": 0}, ("places is 0.5",)),
        (truncation_failure, {"largest": -1}, ("largest is -1",)),
        (truncation_failure, {"largest": 2.0**64}, ("largest is",)),
        (truncation_failure, {"largest": 1, "count": 0}, ("count is 0",)),
    ],
)
def test_bad_arguments_are_named(refuses, function, arguments, words):
    refuses(function, arguments, *words)

"""The precision explorer: numbers against plain arithmetic, bounds, room against the modulus, digits that are wrong."""

import math
from itertools import pairwise

import numpy as np
import pytest

from spai_lab.widgets.precision_explorer import (
    NUMBERS,
    OPERATIONS,
    PRIMES,
    SCALES,
    describe,
    keys,
    precision_explorer,
    render,
    result,
    right_digits,
    shown,
    verdict,
)

PLAIN = {"encode": NUMBERS, "encrypt": NUMBERS, "rotate": np.roll(NUMBERS, -1), "square": NUMBERS**2}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_numbers_are_the_plain_ones_within_a_bound_that_the_scale_halves_bit_by_bit(operation):
    found = [result(bits, operation) for bits in SCALES]
    for each in found:
        assert np.abs(each.true - PLAIN[operation]).max() < 1e-12
        assert np.abs(each.values - PLAIN[operation]).max() <= each.observed < each.bound
    # two bits more of scale: a quarter of each error, but for products of errors below and float64 above
    middle = [each.bound for each, bits in zip(found, SCALES, strict=True) if 26 <= bits <= 40]
    assert all(3.9 < one / other < 4.3 for one, other in pairwise(middle))


def test_the_room_is_half_of_the_modulus_divided_by_the_scale():
    modulus = math.log2(math.prod(keys()[0].context.primes))
    assert keys()[0].context.secure and len(keys()[0].context.primes) == len(PRIMES)
    for operation, factor in (("encrypt", 1), ("square", 2)):
        assert math.log2(result(30, operation).room) == pytest.approx(modulus - 1 - 30 * factor, abs=1e-6)


def test_encryption_costs_more_than_rounding_and_rotation_more_than_that():
    found = [result(30, operation) for operation in ("encode", "encrypt", "rotate")]
    assert found[0].bound < found[1].bound < found[2].bound
    assert all(each.observed > each.bound / 1000 for each in found)


@pytest.mark.parametrize(
    ("value", "true", "digits"), [(1.25, 1.25, 10), (1.26, 1.25, 2), (-1.0, 1.0, -2), (3.0, 1.0, -1)]
)
def test_right_digits(value, true, digits):
    assert right_digits(value, true) == digits


def test_wrong_digits_are_marked_and_whole_numbers_are_shown():
    words = {
        artist.get_gid(): artist.get_text()
        for artist in render(20, "encrypt").findobj()
        if artist.get_gid() and artist.get_gid() != "here"
    }
    for number in range(6):
        right, wrong = words[f"right {number}"], words[f"wrong {number}"]
        assert right + wrong[len(right) :] == shown(result(20, "encrypt").values[number])
        assert shown(result(20, "encrypt").true[number]).startswith(right)
    assert any(words[f"wrong {number}"].strip() for number in range(6))


def test_words_tell_the_same_numbers():
    for bits, operation in ((20, "square"), (52, "rotate")):
        assert f"{result(bits, operation).observed:.1e}" in verdict(bits, operation)
        assert shown(result(bits, operation).values[0]) in describe(bits, operation)


def test_bad_values_are_refused():
    with pytest.raises(ValueError, match="bits is 21; accepted: 20, 22"):
        render(21, "encode")
    with pytest.raises(ValueError, match="operation is 'cube'"):
        render(20, "cube")


def test_the_widget_follows_its_controls():
    widget = precision_explorer()
    before = str(widget)
    widget.controls["bits"].value = 40
    assert str(widget) != before

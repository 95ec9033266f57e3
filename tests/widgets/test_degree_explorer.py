"""The degree explorer: the standard's table, sizes by arithmetic, what is secure, and costs that grow with the ring."""

import pytest

from spai_lab.crypto.ckks import ckks_context
from spai_lab.widgets.degree_explorer import (
    DEGREES,
    LEVELS,
    OPERATIONS,
    cost,
    degree_explorer,
    describe,
    render,
    rows,
    verdict,
)


def part(fig, gid):
    """The part of a figure with this name."""
    return next(artist for artist in fig.findobj() if artist.get_gid() == gid)


@pytest.mark.parametrize("degree", DEGREES)
def test_secure_is_what_the_library_accepts(degree):
    for levels in (1, 3, 6):
        found = cost(degree, levels)
        try:
            accepted = ckks_context(degree, (30,) * (levels + 1)).secure
        except ValueError:
            accepted = False
        assert found.secure == accepted
        assert ("secure up to" in verdict(degree, levels)) == accepted
        assert part(render(degree, levels), "verdict").get_text().startswith("secure" if accepted else "NOT SECURE")


def test_sizes_follow_from_degree_and_levels():
    found = cost(4096, 2)
    assert (found.slots, found.bits) == (2048, 120)
    assert found.size == 2 * 4096 * 3 * 30 // 8  # two polynomials modulo three primes of 30 bits
    assert found.grown == found.size / 2048
    # for each of three primes, two polynomials modulo four primes, in words of 4 bytes, and a header
    assert 0 <= found.key - 3 * 2 * 4096 * 4 * 4 < 200


def test_a_larger_ring_and_more_levels_count_more_bytes():
    assert [cost(degree, 2).size for degree in DEGREES] == sorted({cost(degree, 2).size for degree in DEGREES})
    assert cost(4096, 1).key < cost(4096, 2).key < cost(4096, 3).key
    assert all(value > 0 for value in cost(1024, 1).seconds)


def test_what_is_too_small_is_told_the_next_ring():
    assert "take N = 8,192" in verdict(4096, 3) and "refuses" in verdict(4096, 3)
    assert "1 level needs" in verdict(1024, 1)
    assert "times as long as with N = 4,096, which would not be secure" in verdict(8192, 3)


def test_the_figure_shows_each_number_and_the_place():
    fig = render(8192, 1)
    assert [part(fig, f"value {n}").get_text() for n in range(4 + len(OPERATIONS))] == [
        v for _, v in rows(cost(8192, 1))
    ]
    mark = part(fig, "here")
    assert (list(mark.get_xdata()), list(mark.get_ydata())) == ([DEGREES.index(8192)], [90])
    assert "N = 8,192, levels: 1, 90 bits, secure" in describe(8192, 1)


def test_bad_values_are_refused():
    with pytest.raises(ValueError, match="degree is 1000; accepted: 1,024, "):
        render(1000, 1)
    with pytest.raises(ValueError, match="levels is 9; accepted: 1, "):
        render(1024, 9)


def test_the_widget_follows_its_controls():
    widget = degree_explorer()
    before = str(widget)
    widget.controls["degree"].value = 4096
    assert str(widget) != before
    assert [value for _, value in widget.controls["levels"].options] == list(LEVELS)

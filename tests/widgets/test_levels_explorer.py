"""The levels explorer: numbers against plain arithmetic, levels and scales by the rules, failures in words."""

import numpy as np
import pytest

from spai_lab.widgets.levels_explorer import (
    CHOICES,
    NOTHING,
    NUMBERS,
    OPERATIONS,
    PRIMES,
    STEPS,
    bench,
    describe,
    levels_explorer,
    render,
    stages,
    verdict,
)


def part(fig, gid):
    """The part of a figure with this name."""
    return next(artist for artist in fig.findobj() if artist.get_gid() == gid)


def program(*names):
    """By the names of the controls."""
    return {f"step_{n}": name for n, name in enumerate([*names, *[NOTHING] * (STEPS - len(names))], start=1)}


def test_numbers_are_those_of_plain_arithmetic_within_the_bound():
    found = stages(("+ itself", "square, rescale", "times 0.5, rescale", "rotate by 1"))
    slots = np.resize(NUMBERS, 4096)
    expected = np.roll((2 * slots) ** 2 / 2, -1)
    assert np.abs(found[-1].true - expected).max() < 1e-12
    assert all(0 < stage.observed < stage.bound < 1e-2 for stage in found)
    assert [stage.text.level for stage in found] == [3, 3, 2, 1, 1]
    assert bench().secret.context.secure


def test_scales_double_until_they_are_rescaled():
    found = stages(("times 0.5, not rescaled", "rescale"))
    assert [round(np.log2(stage.text.scale)) for stage in found] == [30, 60, 30]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("square, rescale",) * 4, "no level is left"),
        (("square, rescale", "+ the fresh numbers"), "lower"),
        (("times 0.5, not rescaled", "+ the fresh numbers"), "scales are"),
        (("square, not rescaled",) * 3, "do not fit level 3"),
    ],
)
def test_what_cannot_be_done_says_why_and_stops(names, words):
    found = stages((*names, "+ itself"))
    assert words in found[-1].failure and len(found) == len(names) + 1
    told = program(*names, "+ itself")
    assert words in verdict(**told) and "fails" in describe(**told)
    assert words in part(render(**told), "failure").get_text().replace("\n", " ")


def test_bars_are_the_levels_that_are_left():
    fig = render(**program("square, rescale", "square, rescale"))
    assert [part(fig, f"level {n}").get_height() for n in range(3)] == [3, 2, 1]
    assert part(fig, "observed").get_ydata().min() > part(fig, "bound").get_ydata().min()
    assert f"2 of {len(PRIMES) - 1} levels" in verdict(**program("square, rescale", "square, rescale"))


def test_every_operation_renders_after_every_other():
    for first in OPERATIONS:
        for second in OPERATIONS:
            assert render(**program(first, second)).artists and verdict(**program(first, second))


def test_other_operations_are_refused():
    with pytest.raises(ValueError, match="program has 'cube'; accepted: –, "):
        stages(("cube",))


def test_the_widget_follows_its_dropdowns():
    widget = levels_explorer()
    before = str(widget)
    widget.controls["step_1"].value = "rotate by 1"
    assert str(widget) != before and set(widget.controls["step_1"].options) == set(CHOICES)

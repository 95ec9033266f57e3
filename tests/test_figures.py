"""The curves over queries show the medians that they are given, and nothing where there is none."""

import math

import numpy as np
import pytest
from matplotlib.collections import PolyCollection

from spai_lab.figures import SHAPES, queries_curves

CURVES = {
    "first": {10: (math.inf, 3.0, math.inf), 100: (4.0, 3.0, math.inf), 1000: (2.0, 1.5, 2.5)},
    "second": {10: (5.0, 4.0, 6.0), 1000: (1.0, 0.5, 1.5)},
    "never": {10: (math.inf, math.inf, math.inf), 1000: (math.inf, 7.0, math.inf)},
}


def test_a_curve_begins_where_the_median_is_finite():
    fig = queries_curves(CURVES, images=40)
    fig.canvas.draw()
    first, second, never = fig.axes[0].lines
    assert first.get_xydata().tolist() == [[100, 4], [1000, 2]]
    assert second.get_xydata().tolist() == [[10, 5], [1000, 1]]
    assert never.get_xydata().size == 0 and "fails on half or more" in never.get_label()
    assert "n = 40" in fig.axes[0].get_title(loc="left")


def test_bands_are_finite_and_stay_in_the_picture():
    ax = queries_curves(CURVES).axes[0]
    bands = [band for band in ax.collections if isinstance(band, PolyCollection)]
    assert len(bands) == 3
    for band in bands:
        for path in band.get_paths():
            assert np.isfinite(path.vertices).all() and path.vertices[:, 1].max() <= ax.get_ylim()[1]


def test_curves_differ_in_marker_and_shade_and_the_legend_lies_outside():
    fig = queries_curves({str(number): CURVES["second"] for number in range(len(SHAPES))})
    fig.canvas.draw()
    ax = fig.axes[0]
    assert len({line.get_marker() for line in ax.lines}) == len({tuple(line.get_color()) for line in ax.lines}) == 8
    assert ax.get_legend().get_window_extent().x0 >= ax.get_window_extent().x1


def test_nothing_finite_is_still_a_picture():
    queries_curves({"never": CURVES["never"]}).canvas.draw()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"curves": {}}, ("curves has 0", "1 to 8")),
        ({"curves": {str(number): CURVES["first"] for number in range(9)}}, ("curves has 9",)),
        ({"role": "evil"}, ("role is 'evil'", "adversarial")),
    ],
)
def test_bad_arguments_are_refused(refuses, changed, words):
    refuses(queries_curves, {"curves": CURVES, **changed}, *words)

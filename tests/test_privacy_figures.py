"""The drawings of privacy show the pictures, curves and values that they are given."""

import math

import pytest
import torch
from matplotlib.colors import to_hex

from spai_lab.privacy_figures import low_roc, picture_rows, spreads
from spai_lab.style import COLORS


def pictures(count, seed=0):
    return torch.rand(count, 1, 4, 3, generator=torch.Generator().manual_seed(seed))


def test_rows_of_pictures_keep_their_order_their_words_and_their_frames():
    rows = {"true": pictures(3), "drawn": pictures(3, 1)}
    fig = picture_rows(rows, {"true": "clean", "drawn": "adversarial"}, says={"drawn": ["a", "b", "c"]})
    assert len(fig.axes) == 6
    for place, (role, shown) in enumerate(zip(("clean", "adversarial"), rows.values(), strict=True)):
        for column in range(3):
            ax = fig.axes[3 * place + column]
            assert ax.images[0].get_array().tolist() == shown[column, 0].tolist()
            assert to_hex(ax.spines["left"].get_edgecolor()) == to_hex(COLORS[role])
            assert ax.get_xlabel() == ("abc"[column] if place else "")
    assert [fig.axes[0].get_ylabel(), fig.axes[3].get_ylabel()] == ["true", "drawn"]


@pytest.mark.parametrize(
    ("rows", "says", "message"),
    [
        ({"true": pictures(3), "drawn": pictures(2)}, None, "drawn is .*accepted: 3 pictures"),
        ({"true": pictures(3)}, {"true": ["a"]}, "true is .*accepted: 3 pictures"),
        ({"true": pictures(3) + 1}, None, "true has values"),
    ],
)
def test_rows_that_do_not_fit_are_named(rows, says, message):
    with pytest.raises(ValueError, match=message):
        picture_rows(rows, dict.fromkeys(rows, "clean"), says=says)


def test_a_roc_on_logarithmic_axes_begins_where_it_is_told():
    curves = {"loss": ([0.01, 0.1, 1.0], [0.02, 0.3, 1.0]), "LiRA": ([0.01, 1.0], [0.5, 1.0])}
    ax = low_roc(curves, {"loss": "baseline", "LiRA": "baseline"}, lowest=0.01).axes[0]
    assert (ax.get_xscale(), ax.get_yscale(), ax.get_xlim(), ax.get_ylim()) == ("log", "log", (0.01, 1), (0.01, 1))
    for line, (false, true) in zip(ax.lines, curves.values(), strict=False):
        assert list(line.get_xdata()) == false and list(line.get_ydata()) == true
    assert ax.lines[0].get_linestyle() != ax.lines[1].get_linestyle()


def test_every_value_is_a_point_and_the_median_a_bar():
    groups = {"1": [1.0, 2.0, 9.0], "8": [math.inf, 3.0, 4.0]}
    ax = spreads(groups, "private", x="batch", y="PSNR", line=(5.0, "recognized")).axes[0]
    points, bars = ax.lines[0::2][:2], ax.lines[1::2][:2]
    assert sorted(points[0].get_ydata()) == [1, 2, 9] and list(bars[0].get_ydata()) == [2, 2]
    assert max(points[1].get_ydata()) == pytest.approx(1.05 * 9) and list(bars[1].get_ydata()) == [4, 4]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "8"]
    assert ax.lines[-1].get_ydata()[0] == 5

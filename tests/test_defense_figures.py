"""The drawings of the chapters on defenses: bars, curves and planes hold the numbers that they were given."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from torch import nn

from spai_lab.defense_figures import (
    certified_curves,
    during_training,
    grouped_bars,
    margin_bounds,
    margin_planes,
    readings,
)
from spai_lab.metrics import Rate
from spai_lab.style import COLORS, to_png

ROLES = {"clean": "clean", "adaptive": "adversarial"}
ROWS = {
    "none": {"clean": Rate(10, 10), "adaptive": Rate(0, 10)},
    "a long name of a defense": {"clean": Rate(9, 10), "adaptive": Rate(4, 10)},
}


def test_bars_are_as_high_as_their_rates_and_say_them():
    ax = grouped_bars(ROWS, ROLES, what="images that stand").axes[0]
    heights = {round(patch.get_height(), 3): to_hex(patch.get_facecolor()) for patch in ax.patches}
    assert heights == {
        1.0: COLORS["clean"],
        0.9: COLORS["clean"],
        0.0: COLORS["adversarial"],
        0.4: COLORS["adversarial"],
    }
    assert {text.get_text() for text in ax.texts} == {"100", "0", "90", "40"}
    assert ax.get_xticklabels()[1].get_text().count("\n") >= 1
    assert "n = 10" in ax.get_title(loc="left")


@pytest.mark.parametrize("rows", [{}, {"none": {"clean": Rate(1, 1)}}], ids=["none", "a bar is missing"])
def test_bars_need_the_same_rows(rows, refuses):
    refuses(grouped_bars, {"rows": rows, "roles": ROLES, "what": "x"}, "rows", "adaptive")


@pytest.mark.parametrize("draw", [certified_curves, during_training])
def test_curves_pass_through_their_rates(draw):
    curves = {"a": {0.0: Rate(9, 10), 0.5: Rate(5, 10)}, "b": {0.0: Rate(8, 10), 0.5: Rate(2, 10)}}
    settings = {"unit": "L2"} if draw is certified_curves else {}
    ax = draw(curves, {"a": "defended", "b": "defended"}, **settings).axes[0]
    drawn = [line.get_xydata().tolist() for line in ax.lines]
    assert drawn == [[[0.0, 0.9], [0.5, 0.5]], [[0.0, 0.8], [0.5, 0.2]]]
    assert len({line.get_linestyle() for line in ax.lines}) == 2


def test_bounds_are_drawn_against_the_radius_with_a_line_at_zero():
    ax = margin_bounds({"found": [2.0, -1.0]}, (0.0, 0.1), {"found": "adversarial"}).axes[0]
    assert ax.lines[0].get_xydata().tolist() == [[0.0, 2.0], [0.1, -1.0]]
    assert set(ax.lines[1].get_ydata()) == {0}


def test_readings_mark_what_is_misread():
    x = torch.tensor([[[[0.1, 0.8]]], [[[0.8, 0.1]]]])
    fig = readings(nn.Flatten(), {"row": x}, torch.tensor([1, 1]), ("no", "yes"))
    right, wrong = (ax.get_xlabel() for ax in fig.axes)
    assert right.startswith("yes") and wrong.startswith("✕ no")
    assert fig.axes[0].get_ylabel() == "row"


def test_a_plane_shows_the_lead_along_the_gradient():
    """The lead of a linear model falls in a straight line along the gradient, and the slope is its L1 norm."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0, -2.0, 0.5, 1.0], [0.0, 0.0, 0.0, 0.0]]))
    x, y = torch.full((1, 1, 2, 2), 0.5), torch.tensor([0])
    fig = margin_planes({"linear": model}, x, y, uphill=model, span=0.2)
    (plane,) = fig.axes[0].images
    middle = np.asarray(plane.get_array())[15]
    lead = 0.25 - 4.5 * np.linspace(-0.2, 0.2, 31)
    assert np.allclose(middle / np.abs(middle).max(), lead / np.abs(lead).max(), atol=1e-5)
    assert len(to_png(fig)) > 1000


def test_a_plane_takes_one_image(refuses):
    arguments = {"models": {"m": nn.Flatten()}, "uphill": nn.Flatten(), "span": 0.1}
    x, y = torch.full((2, 1, 1, 2), 0.5), torch.tensor([0, 0])
    refuses(margin_planes, {**arguments, "x": x, "y": y}, "x", "one image")
    refuses(margin_planes, {**arguments, "x": x[:1], "y": y[:1], "span": 0.0}, "span")

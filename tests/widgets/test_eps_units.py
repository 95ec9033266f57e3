"""The two readings of one eps: what the picture says is what happens to the pixels."""

import numpy as np
import pytest

from spai_lab.data import load
from spai_lab.widgets import eps_units
from spai_lab.widgets.eps_units import render

MNIST_STD = 0.3081


def parts(fig):
    return {artist.get_gid(): artist for artist in fig.findobj() if artist.get_gid()}


@pytest.fixture(scope="module")
def x():
    return load("digits").x_test[0]


@pytest.mark.parametrize("eps", np.linspace(0, 1, 21))
def test_bars_and_images_show_the_budget(x, eps):
    named = parts(render(x, float(eps)))
    side = len(named["clean"].pixels) // 28
    clean = named["clean"].pixels[side // 2 :: side, side // 2 :: side, 0] / 255
    assert np.abs(clean - x[0].numpy()).max() < 2 / 255
    for unit, budget in (("pixel units", eps), ("normalized units", MNIST_STD * eps)):
        assert named[f"bar {unit}"].get_width() == pytest.approx(255 * budget)
        noisy = named[unit].pixels[side // 2 :: side, side // 2 :: side, 0] / 255
        assert np.abs(noisy - clean).max() == pytest.approx(budget, abs=4 / 255)


def test_the_slider_speaks(x):
    explorable = eps_units("digits")
    explorable.controls["eps"].value = 0.5
    assert "moved by 0.50" in explorable.alt
    assert f"moved by {0.5 * MNIST_STD:.3f}" in explorable.alt


def test_bad_arguments_are_refused(x, refuses):
    refuses(render, {"x": 255 * x, "eps": 0.3}, "x has values")
    refuses(render, {"x": x, "eps": 1.5}, "eps is 1.5")
    refuses(render, {"x": x, "eps": 0.3, "std": 0}, "std is 0")

"""Figures as files: small where nobody sees it, exact where one would."""

import io

import numpy as np
import pytest
from PIL import Image

from spai_lab.style import UNSEEN, panels, to_png, to_small_png


def decoded(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=float)


@pytest.fixture
def drawn():
    """`drawn(pixels)`: a figure with lines, text and an image."""

    def draw(image: np.ndarray):
        fig, axes = panels(6, 3, line=(0.6, 0.5, 2, 2), image=(3.2, 0.4, 2.4, 2.4))
        axes["line"].plot(np.sin(np.arange(40) / 5), label="sine")
        axes["line"].legend()
        axes["image"].imshow(image)
        return fig

    return draw


def test_a_drawing_is_stored_small_and_looks_the_same(drawn):
    fig = drawn(np.eye(8))
    exact, small = to_png(fig), to_small_png(fig)
    assert len(small) < 0.7 * len(exact)
    assert np.abs(decoded(exact) - decoded(small)).mean() < UNSEEN


def test_a_picture_of_many_colors_keeps_them_all(drawn):
    fig = drawn(np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8))
    assert np.array_equal(decoded(to_png(fig)), decoded(to_small_png(fig)))


def test_the_same_figure_gives_the_same_file(drawn):
    assert to_small_png(drawn(np.eye(8))) == to_small_png(drawn(np.eye(8)))

"""The patch explorer: the patch is where the sliders say, and the map is what the model says there."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from spai_lab.data import load
from spai_lab.style import COLORS
from spai_lab.training import reference
from spai_lab.widgets.patch_explorer import (
    ANGLES,
    IMAGES,
    SIZE,
    TARGET,
    backdrop,
    describe,
    patch_explorer,
    reach,
    render,
    trained,
    verdict,
)


def parts(fig):
    return {artist.get_gid(): artist for artist in fig.findobj() if artist.get_gid()}


@pytest.fixture(scope="module")
def shown():
    return load("digits").sample(IMAGES)


def stuck(x, row, column):
    """The patch at angle 0, copied pixel by pixel."""
    image, half = x.clone(), SIZE // 2
    for i in range(SIZE):
        for j in range(SIZE):
            a, b = row - half + i, column - half + j
            inside = (i - half) ** 2 + (j - half) ** 2 <= (SIZE / 2) ** 2
            if inside and a in range(28) and b in range(28):
                image[0, a, b] = trained("digits").pixels[0, i, j]
    return image


@pytest.mark.parametrize(("row", "column"), [(7, 7), (13, 20), (0, 27), (25, 3)])
def test_the_patch_is_where_the_sliders_say_and_the_map_is_the_models(shown, row, column):
    x, _ = shown
    found = reach("digits", 4)
    expected = stuck(x[4], row, column)
    assert torch.allclose(found.x_adv[row, column], expected, atol=1e-5)
    with torch.no_grad():
        probability = reference("lenet", "digits")(expected[None]).softmax(1)[0]
    assert found.probabilities[row, column].tolist() == pytest.approx(probability.tolist(), abs=1e-4)
    shades = backdrop(found).axes["map"].images[0].get_array()
    assert shades[row, column] == pytest.approx(float(probability[TARGET]), abs=1e-4)
    named = parts(render(found, row, column))
    assert named["image"].pixels[::15, ::15].shape == (28, 28, 4)
    middles = named["image"].pixels[7::15, 7::15, 0] / 255
    assert np.abs(middles - expected[0].numpy()).max() < 2 / 255
    assert named["present"].get_xydata().tolist() == [[column, row]] and named["edge"].center == (column, row)
    confidence, answer = probability.max(0)
    assert named["says"].get_text().endswith(f"the model says {answer} ({100 * confidence:.0f} %)")
    role = "adversarial" if int(answer) == TARGET else "clean"
    assert to_hex(named["image frame"].get_edgecolor()) == COLORS[role] == named["says"].get_color()
    assert named["target"].get_text().endswith(f"here {100 * probability[TARGET]:.0f} %")
    assert (f"does not make this {found.y} a" in verdict(found, row, column)) == (int(answer) != TARGET)


def test_the_patch_reaches_its_target_far_oftener_than_an_arbitrary_one(shown):
    x, y = shown
    others = [image for image in range(IMAGES) if y[image] != TARGET]
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        covered = torch.stack([x[i].where(stuck(torch.full((1, 28, 28), -1.0), 13, 13) < 0, noise[i]) for i in others])
        arbitrary = (reference("lenet", "digits")(covered).argmax(1) == TARGET).double().mean()
    assert np.mean([reach("digits", image).share() for image in others]) > 0.35 + float(arbitrary)


def test_it_draws_everywhere_and_every_angle_turns_the_patch():
    for place, angle in enumerate(ANGLES):
        found = reach("digits", place, angle)
        fig = render(found, (5 * place) % 28, (11 * place) % 28)
        fig.canvas.draw()
        assert "nan" not in describe(found, place, place) + verdict(found, place, place)
    upright, quarter = (reach("digits", 4, angle).x_adv[13, 13, :, 6:21, 6:21] for angle in (0, 90))
    covered = stuck(torch.full((1, 28, 28), -1.0), 13, 13)[:, 6:21, 6:21] >= 0
    turned = upright.rot90(dims=(1, 2))
    assert torch.allclose(quarter[covered], turned[covered], atol=1e-4)
    assert not torch.allclose(quarter[covered], upright[covered], atol=0.1)


def test_sliders_redraw():
    explorer = patch_explorer("digits")
    assert explorer.controls["image"].value == 1  # image 0 is of the target class
    for name, value in (("row", 13), ("column", 20), ("angle", 30), ("image", 3)):
        before = explorer.png
        explorer.controls[name].value = value
        assert explorer.png != before
    assert "row 13, column 20, turned by 30 degrees" in explorer.alt
    assert 'role="alert"' not in explorer.children[2].value


def test_bad_arguments_are_refused(refuses):
    good = {"dataset": "digits", "image": 0, "angle": 0}
    refuses(reach, {**good, "image": IMAGES}, f"image is {IMAGES}", "0 to 19")
    refuses(reach, {**good, "angle": 7}, "angle is 7", "by 15")
    found = reach(**good)
    refuses(render, {"reach": found, "row": 28, "column": 0}, "row is 28", "0 to 27")
    refuses(verdict, {"reach": found, "row": 0, "column": -1}, "column is -1")
    refuses(patch_explorer, {"dataset": "faces"}, "dataset is 'faces'", "digits")

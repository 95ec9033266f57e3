"""The trigger painter: the image is stamped as painted, and the rates are those of the victim that was trained."""

import importlib

import numpy as np
import pytest
import torch

from spai_lab.data import load
from spai_lab.widgets.trigger_painter import (
    IMAGES,
    RECIPE,
    ROWS,
    TARGET,
    Painting,
    Victim,
    backdrop,
    clean,
    describe,
    render,
    small,
    trigger_painter,
    verdict,
    victim,
)

module = importlib.import_module("spai_lab.widgets.trigger_painter")  # the function of its name hides it

FIRST = Painting("digits")
FAINT = Painting("digits", row=3, column=5, size=4, shade=0.6, blend=0.3, fraction=0.005)


def parts(fig):
    return {artist.get_gid(): artist for artist in fig.findobj() if artist.get_gid()}


def painted(x, painting):
    """The square, copied pixel by pixel."""
    image = x.clone()
    for i in range(painting.row, painting.row + painting.size):
        for j in range(painting.column, painting.column + painting.size):
            image[..., i, j] = (1 - painting.blend) * image[..., i, j] + painting.blend * painting.shade
    return image


@pytest.mark.parametrize("painting", [FIRST, FAINT], ids=["first", "faint"])
def test_the_image_is_stamped_as_painted(painting):
    x, _ = load("digits").sample(IMAGES)
    expected = painted(x[3], painting)[0].numpy()
    named = parts(render(painting, 3, (victim(FIRST),)))
    assert np.abs(named["image"].pixels[7::15, 7::15, 0] / 255 - expected).max() < 2 / 255
    edge = named["edge"]
    corner = 28 * np.array([edge.get_x(), 1 - edge.get_y()]) - (0, painting.size)
    assert corner == pytest.approx((painting.column, painting.row))


@pytest.mark.parametrize("painting", [FIRST, FAINT], ids=["first", "faint"])
def test_success_and_accuracy_are_counted_on_test_images(painting):
    found, data = victim(painting), small("digits")
    x, y = load("digits").sample(len(data.y_test))
    others = y != TARGET
    for model, rate in ((found.model, found.success), (clean("digits")[0], found.innocent)):
        with torch.no_grad():
            hits = (model(painted(x[others], painting)).argmax(1) == TARGET).sum()
        assert (rate.hits, rate.trials) == (int(hits), int(others.sum()))
    with torch.no_grad():
        assert found.accuracy.hits == int((found.model(x).argmax(1) == y).sum())


def test_a_bright_square_opens_a_backdoor_and_a_faint_one_does_not():
    bright, faint, (_, accuracy) = victim(FIRST), victim(FAINT), clean("digits")
    assert bright.success.value > 0.9 > 0.1 > bright.innocent.value
    assert faint.success.value < 0.2
    assert min(bright.accuracy.value, faint.accuracy.value) > accuracy.value - 0.04


def test_the_victims_seed_is_not_the_attackers(monkeypatch):
    seeds, trained = [], module.train

    def watched(recipe, data, *, seed, progress):
        seeds.append(seed)
        return trained(recipe, data, seed=seed, progress=progress)

    monkeypatch.setattr(module, "train", watched)
    victim.__wrapped__(FIRST)
    assert seeds == [module.VICTIM] and module.VICTIM != module.ATTACKER and RECIPE.victim == "mlp"


def test_rows_show_the_last_trainings_latest_first():
    bright, faint = victim(FIRST), victim(FAINT)
    assert len(backdrop((bright, faint), 1).axes) == 4  # image, chart and two small images
    chart = backdrop((bright, faint), 1).axes["chart"]
    points = [line.get_xydata()[0].tolist() for line in chart.lines if line.get_marker() == "P"]
    assert points == [[100 * faint.success.value, 0], [100 * bright.success.value, 1]]
    words = {text.get_gid(): text.get_text() for text in chart.texts if text.get_gid()}
    assert "4 × 4, shade 0.6, blend 0.3" in words["row 0"] and "5 % poison" in words["row 1"]
    many = tuple(Victim(FIRST, bright.model, bright.success, bright.accuracy, bright.innocent) for _ in range(9))
    render(FIRST, 1, many).canvas.draw()
    assert describe(FIRST, 1, many).count("clean accuracy") == ROWS


def test_words_tell_what_was_trained_from_what_was_not():
    victims = (victim(FIRST),)
    assert "not trained yet" in parts(render(FAINT, 1, victims))["state"].get_text()
    assert "press Train" in verdict(FAINT, 1, victims) and "0.5 % of the training" in verdict(FAINT, 1, victims)
    rate = f"{100 * victims[0].success.value:.0f} %"
    assert rate in parts(render(FIRST, 1, victims))["state"].get_text() and rate in verdict(FIRST, 1, victims)


@pytest.fixture
def painter():
    return trigger_painter("digits")


def controls(painter):
    *_, button, status = painter.children[1].children
    return button, status


def test_a_click_trains_once_and_says_so(painter, monkeypatch):
    button, status = controls(painter)
    before, seen = painter.png, []

    def watched(painting):
        seen.append((painting, button.disabled, status.value))
        return victim(painting)

    monkeypatch.setattr(module, "victim", watched)
    for name in ("row", "column", "size", "shade", "blend", "fraction"):
        painter.controls[name].value = getattr(FAINT, name)
    assert painter.png != before and not seen and "not trained" not in painter.caption
    button.click()
    assert seen[0][:2] == (FAINT, True) and "training a victim" in seen[0][2]
    assert not button.disabled and "training" not in status.value
    assert painter.alt.count("clean accuracy") == 2 and "the victim takes" in painter.caption
    button.click()
    assert painter.alt.count("clean accuracy") == 2


@pytest.mark.parametrize(
    ("error", "said"), [(RuntimeError("no <room>"), "RuntimeError: no &lt;room&gt;"), (KeyboardInterrupt(), "Stopped")],
    ids=["error", "interrupt"],
)  # fmt: skip
def test_a_failure_is_said_beside_the_button(painter, monkeypatch, error, said):
    def fail(painting):
        raise error

    monkeypatch.setattr(module, "victim", fail)
    button, status = controls(painter)
    button.click()
    assert said in status.value and not button.disabled


def test_a_larger_square_stays_on_the_image(painter):
    painter.controls["row"].value = painter.controls["column"].value = 25
    painter.controls["size"].value = 8
    assert painter.controls["row"].value == painter.controls["column"].value == 20
    painter.controls["size"].value = 2
    assert painter.controls["row"].max == 26
    assert 'role="alert"' not in painter.children[2].value


def test_another_data_set_has_trainings_of_its_own(painter, mnist):
    painter.controls["dataset"].value = "mnist"
    assert "of mnist" in painter.alt and painter.alt.count("clean accuracy") == 1
    painter.controls["dataset"].value = "digits"
    assert "of digits" in painter.alt


def test_bad_arguments_are_refused(refuses):
    refuses(victim, {"painting": Painting("digits", row=27)}, "row is 27", "25")
    refuses(victim, {"painting": Painting("digits", blend=0.0)}, "blend is 0")
    refuses(victim, {"painting": Painting("digits", fraction=0.0)}, "fraction is 0")
    refuses(render, {"painting": FIRST, "image": IMAGES, "victims": (victim(FIRST),)}, f"image is {IMAGES}", "0 to 19")
    refuses(trigger_painter, {"dataset": "faces"}, "dataset is 'faces'", "digits")

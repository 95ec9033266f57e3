"""The growth of the universal perturbation: the numbers are those of the model, and more images help."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from spai_lab.attacks.evasion import universal_perturbation
from spai_lab.data import load
from spai_lab.style import COLORS
from spai_lab.training import reference
from spai_lab.widgets.universal_growth import (
    EPS,
    HELD_OUT,
    SEEN,
    SHOWN,
    backdrop,
    describe,
    growth,
    render,
    universal_growth,
    verdict,
)


def parts(fig):
    return {artist.get_gid(): artist for artist in fig.findobj() if artist.get_gid()}


@pytest.fixture(scope="module")
def grown():
    return growth("digits", "mlp")


def test_the_perturbations_are_the_attacks_and_within_eps(grown):
    data, model = load("digits"), reference("mlp", "digits")
    for seen in SEEN:
        assert grown.v[seen].shape == (1, 1, 28, 28) and grown.v[seen].abs().max() <= EPS["mlp"] + 1e-6
    again = universal_perturbation(
        model, data.x_train[:16], eps=EPS["mlp"], fooling_rate=0.9, passes=3, batch_size=16,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert torch.equal(again, grown.v[16])


def test_the_curve_counts_held_out_images_whose_answer_changes(grown):
    model = reference("mlp", "digits")
    x, _ = load("digits").sample(HELD_OUT)
    line = backdrop(grown).axes["curve"].lines[0]
    for place, seen in enumerate(SEEN):
        with torch.no_grad():
            changed = model((x + grown.v[seen]).clamp(0, 1)).argmax(1) != model(x).argmax(1)
        assert grown.rates[seen].hits == int(changed.sum()) and grown.rates[seen].trials == len(x)
        assert line.get_xydata()[place] == pytest.approx([seen, float(changed.double().mean())])


def test_more_images_fool_more_and_far_more_than_noise_does(grown):
    low_of_many, high_of_one = grown.rates[SEEN[-1]].interval[0], grown.rates[SEEN[0]].interval[1]
    assert low_of_many > 2 * high_of_one and low_of_many > 2 * grown.noise.interval[1]


def test_images_and_words_are_what_the_model_gets_and_says(grown):
    model = reference("mlp", "digits")
    assert len(grown.y) == SHOWN == len(grown.y.unique())
    for seen in SEEN:
        x_adv = (grown.x + grown.v[seen]).clamp(0, 1)
        with torch.no_grad():
            assert (model(grown.x).argmax(1) == grown.y).all()
            confidence, answers = model(x_adv).softmax(1).max(1)
        fig = render(grown, seen)
        fig.canvas.draw()
        named = parts(fig)
        for number in range(SHOWN):
            middles = named[f"image {number}"].pixels[3::7, 3::7, 0] / 255
            assert np.abs(middles - x_adv[number, 0].numpy()).max() < 2 / 255
            mark = "○" if answers[number] == grown.y[number] else "✕"
            words = f"{mark} {answers[number]} ({100 * confidence[number]:.0f} %)"
            assert named[f"says image {number}"].get_text() == words
            role = "clean" if mark == "○" else "adversarial"
            assert to_hex(named[f"image {number} frame"].get_edgecolor()) == COLORS[role]
            assert f"a {grown.y[number]} is read as {words[2:]}" in describe(grown, seen)
        assert named["present"].get_xydata()[0] == pytest.approx([seen, grown.rates[seen].value])
        assert str(grown.rates[seen]) in verdict(grown, seen)
        misread = int((answers != grown.y).sum())
        assert f"the {SHOWN} images above, {misread} " in verdict(grown, seen)


def test_the_slider_redraws():
    explorer = universal_growth("digits")
    for seen in SEEN[1:]:
        before = explorer.png
        explorer.controls["seen"].value = seen
        assert explorer.png != before and f"{seen} training images" in explorer.caption
    assert 'role="alert"' not in explorer.children[2].value


def test_bad_arguments_are_refused(grown, refuses):
    refuses(growth, {"dataset": "digits", "model": "softmax"}, "model is 'softmax'", "'mlp'")
    refuses(universal_growth, {"dataset": "faces"}, "dataset is 'faces'", "digits")
    for function in (render, verdict, describe):
        refuses(function, {"growth": grown, "seen": 2}, "seen is 2", "1, 4, 16")

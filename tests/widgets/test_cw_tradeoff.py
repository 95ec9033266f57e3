"""The trade shows C&W's minimizers; distance, lead and outcome are found again from the images alone."""

import os
import re
from itertools import product

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.text import Text

from spai_lab.attacks.evasion.carlini_wagner import minimize_at
from spai_lab.data import load
from spai_lab.style import COLORS
from spai_lab.training import reference
from spai_lab.widgets.choices import IMAGES, well_read
from spai_lab.widgets.cw_tradeoff import (
    CONFIDENCES,
    LEARNING_RATE,
    STEPS,
    WEIGHTS,
    backdrop,
    cw_tradeoff,
    describe,
    render,
    trade,
    verdict,
)

PLACES = well_read("digits")
TRIED = PLACES if os.environ.get("SPAI_FULL") else PLACES[:2]


def parts(fig):
    return {artist.get_gid(): artist for artist in fig.findobj() if artist.get_gid()}


@pytest.fixture(scope="module")
def shown():
    return load("digits").sample(IMAGES)


@pytest.mark.parametrize(("image", "confidence"), list(product(TRIED, CONFIDENCES)))
def test_every_point_is_what_the_minimizer_is(shown, image, confidence):
    found = trade("digits", image, confidence)
    x, y = shown[0][image], int(shown[1][image])
    for step, c in enumerate(WEIGHTS):
        x_adv = found.x_adv[step]
        with torch.no_grad():
            logits = reference("lenet", "digits")(x_adv[None])[0].double().numpy()
        distance = np.linalg.norm((x_adv - x).numpy().ravel())
        lead = np.delete(logits, y).max() - logits[y]
        fig = render(found, c)
        named = parts(fig)
        assert named["present distance"].get_xydata()[0] == pytest.approx([c, distance], abs=1e-4)
        assert named["present lead"].get_xydata()[0] == pytest.approx([c, lead], abs=1e-3)
        if abs(lead - confidence) > 1e-4:  # nearer than that, rounding decides
            assert bool(found.found[step]) == (lead >= confidence)
        assert named["numbers"].get_text() == f"c = {c:g}\nL2 = {distance:.2f}\nlead = {lead:.1f}"
        wanted = "goal" if found.found[step] else "misread" if lead > 0 else "still"
        assert named["outcome"].get_text().startswith(wanted)
        assert named["says adversarial"].get_text().startswith(f"{logits.argmax()} (")
        assert to_hex(named["adversarial frame"].get_edgecolor()) == COLORS["adversarial" if lead > 0 else "clean"]
        words = [*(text.get_text() for text in fig.findobj(Text)), verdict(found, c), describe(found, c)]
        assert not any(re.search(r"\b(nan|inf)\b", text) for text in words)


@pytest.mark.parametrize("image", TRIED)
def test_a_small_c_fails_and_a_large_one_distorts_more(image):
    nearest = []
    for confidence in CONFIDENCES:
        found = trade("digits", image, confidence)
        assert not found.found[0] and found.distance[0] < 0.05
        assert found.found[-1] and found.distance[-1] > 1.2 * found.distance[found.nearest]
        hits = found.distance[found.found]
        assert found.distance[found.nearest] == hits.min()
        nearest.append(float(hits.min()))
    assert nearest == sorted(nearest)


def test_one_c_alone_gives_the_same_minimizer(shown):
    image, step = PLACES[0], 9
    x, y = (part[[image]] for part in shown)
    alone, hit = minimize_at(
        reference("lenet", "digits"), x, y, torch.tensor(WEIGHTS[step : step + 1]),
        confidence=5, steps=STEPS, learning_rate=LEARNING_RATE,
    )  # fmt: skip
    found = trade("digits", image, 5)
    assert torch.allclose(alone[0], found.x_adv[step], atol=1e-3) and bool(hit) == bool(found.found[step])


def test_markers_tell_where_the_goal_is_reached():
    found = trade("digits", PLACES[0], 5)
    for name, values in (("distance", found.distance), ("lead", found.lead)):
        _, reached, missed = backdrop(found).axes[name].lines[:3]
        for line, hit in ((reached, True), (missed, False)):
            rows = [row for row, value in enumerate(found.found.tolist()) if value == hit]
            assert list(line.get_xdata()) == [WEIGHTS[row] for row in rows]
            assert np.asarray(line.get_ydata()) == pytest.approx(values[rows].numpy())
        assert reached.get_marker() != missed.get_marker()


def test_the_words_point_to_the_best_c():
    found = trade("digits", PLACES[0], 5)
    best = WEIGHTS[found.nearest]
    assert verdict(found, WEIGHTS[0]).endswith("Raise c.")
    assert "No c of the grid does it with less change." in verdict(found, best)
    assert f"c = {best:g} does it at L2 {found.distance[found.nearest]:.2f}: a larger c" in verdict(found, WEIGHTS[-1])


def test_moving_a_control_redraws():
    explorable = cw_tradeoff("digits")
    for name, value in (("c", 10.0), ("image", PLACES[1]), ("confidence", 5)):
        before = explorable.png
        explorable.controls[name].value = value
        assert explorable.png != before
    assert "at c = 10 " in explorable.alt and "a lead of 5" in explorable.alt


def test_bad_arguments_are_refused(refuses):
    good = {"dataset": "digits", "image": PLACES[0], "confidence": 0}
    refuses(trade, {**good, "confidence": -1}, "confidence is -1", "at least 0")
    refuses(trade, {**good, "image": 99}, "image is 99", str(PLACES[0]))
    refuses(render, {"trade": trade(**good), "c": 0.3}, "c is 0.3", "0.001 to 100")
    refuses(cw_tradeoff, {"dataset": "faces"}, "dataset is 'faces'", "'digits'")

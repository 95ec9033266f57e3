"""The loss surface draws at every setting; its loss, its points and its section of the ball are those of the model."""

from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from spai_lab.attacks.evasion import pgd
from spai_lab.data import load
from spai_lab.training import reference
from spai_lab.widgets import loss_surface
from spai_lab.widgets.choices import IMAGES
from spai_lab.widgets.loss_surface import SPANS, backdrop, describe, render, surface, tidy_ticks, verdict

ATTACKS = ("fgsm", "bim", "pgd", "mim")
ORDERS = {"linf": np.inf, "l2": 2}
MODELS = ("lenet", "lenet-robust")


def parts(fig):
    return {artist.get_gid(): artist for artist in fig.findobj() if artist.get_gid()}


def both(image, attack, norm, span):
    return [surface("digits", model, image, attack, norm, span) for model in MODELS]


def size(change, norm):
    return np.linalg.norm(change.reshape(len(change), -1), ord=ORDERS[norm], axis=1)


@pytest.fixture(scope="module")
def shown():
    return load("digits").sample(IMAGES)


@pytest.mark.parametrize(("attack", "norm"), list(product(ATTACKS, ORDERS)))
def test_it_draws_at_every_setting(attack, norm):
    for image, span in enumerate(SPANS[norm]):
        pair = both(image, attack, norm, span)
        assert all(side.loss.isfinite().all() and (side.loss >= 0).all() for side in pair)
        assert pair[0].eps[0] == 0 and pair[0].eps[-1] == span
        for eps in pair[0].eps:
            fig = render(*pair, eps)
            for name, artist in parts(fig).items():
                if name.endswith(("ball", "clean", "adversarial")):
                    assert np.isfinite(artist.get_xydata()).all(), name
            assert "nan" not in verdict(*pair, eps) + describe(*pair, eps)


@pytest.mark.parametrize("norm", ORDERS)
def test_the_plane_is_spanned_by_the_attack_and_an_orthogonal_direction(shown, norm):
    image, span = 2, SPANS[norm][0]
    found = surface("digits", "lenet", image, "pgd", norm, span)
    x, y = (part[image : image + 1] for part in shown)
    x_adv = pgd(
        reference("lenet", "digits"), x, y, eps=span, norm=norm, steps=20, generator=torch.Generator().manual_seed(0)
    )
    delta = (x_adv - x).flatten()
    along, across = found.along.flatten(), found.across.flatten()
    assert torch.allclose(along / along.norm(), delta / delta.norm(), atol=1e-5)
    assert abs(float(F.cosine_similarity(along, across, dim=0))) < 1e-5
    assert size(torch.stack([along, across]).numpy(), norm) == pytest.approx([1, 1], abs=1e-5)


@pytest.mark.parametrize("norm", ORDERS)
def test_the_dashed_line_is_where_the_ball_cuts_the_plane(norm):
    found = surface("digits", "lenet", 2, "pgd", norm, SPANS[norm][0])
    for eps in found.eps[1::5]:
        a, b = parts(render(found, found, eps))["left ball"].get_data()
        change = np.multiply.outer(a, found.along.numpy()) + np.multiply.outer(b, found.across.numpy())
        assert size(change, norm) == pytest.approx(np.full(len(a), eps), rel=1e-4)


def test_in_l2_the_section_is_a_circle_and_in_linf_it_is_none():
    for norm, round_ in (("l2", True), ("linf", False)):
        found = surface("digits", "lenet", 2, "pgd", norm, SPANS[norm][0])
        radius = np.hypot(*found.outline(found.eps[-1]))
        assert (np.ptp(radius) < 1e-3 * radius.mean()) == round_


def test_the_shades_are_the_models_loss(shown):
    image, span = 5, 0.4
    found = surface("digits", "lenet-robust", image, "fgsm", "linf", span)
    model = reference("lenet-robust", "digits")
    x, y = (part[image] for part in shown)
    ticks = np.linspace(-span, span, len(found.loss))
    shades = backdrop(found, found).axes["left"].images[0].get_array()
    for row, column in ((0, 0), (20, 20), (33, 40), (7, 12)):
        point = x + ticks[column] * found.along + ticks[row] * found.across
        with torch.no_grad():
            loss = F.cross_entropy(model(point.clamp(0, 1)[None].float()), y[None])
        assert shades[row, column] == pytest.approx(float(loss), abs=1e-3)


def test_the_words_are_what_the_model_says_at_the_marked_point(shown):
    image = 3
    pair = both(image, "pgd", "linf", 0.4)
    for eps in pair[0].eps[::4]:
        named = parts(render(*pair, eps))
        for side, found, name in zip(("left", "right"), pair, MODELS, strict=True):
            a, b = (float(value[0]) for value in named[f"{side} adversarial"].get_data())
            assert (a, b) == (eps, 0)
            point = (shown[0][image] + a * found.along).clamp(0, 1)[None]
            with torch.no_grad():
                logits = reference(name, "digits")(point)
            loss = F.cross_entropy(logits, shown[1][[image]])
            confidence, answer = logits.softmax(1)[0].max(0)
            assert (
                named[f"{side} says"].get_text().endswith(f"says {answer} ({100 * confidence:.0f} %), loss {loss:.2f}")
            )


def test_another_norm_or_span_brings_its_own_radii():
    explorable = loss_surface("digits")
    explorable.controls["norm"].value = "l2"
    assert [value for _, value in explorable.controls["span"].options] == list(SPANS["l2"])
    for span in SPANS["l2"]:
        explorable.controls["span"].value = span
        radii = [value for _, value in explorable.controls["eps"].options]
        assert (radii[0], radii[-1]) == (0, span)
        assert f"eps {explorable.values['eps']:g}" in explorable.alt


@pytest.mark.parametrize("highest", [1.0, 1.7, 3.1, 9.99, 10.0, 37.4, 120.0])
def test_ticks_are_round_few_and_within(highest):
    ticks = tidy_ticks(highest)
    assert 3 <= len(ticks) <= 7
    assert ticks[0] == 0 and ticks[-1] <= highest


def test_bad_arguments_are_refused(refuses):
    good = {"dataset": "digits", "model": "lenet", "image": 0, "attack": "fgsm"}
    for name, bad, word in (
        ("model", "resnet", "'lenet'"),
        ("attack", "cw", "'pgd'"),
        ("norm", "l1", "'linf'"),
        ("image", 500, "0 to "),
        ("span", 0, "above 0"),
        ("span", 255, "at most 1"),
    ):
        refuses(surface, {**good, name: bad}, name, word)
    pair = both(0, "fgsm", "linf", 0.4)
    refuses(render, {"left": pair[0], "right": pair[1], "eps": 0.33}, "eps is 0.33", "0 to 0.4")

"""The clipping explorer: a step is what one example at a time and plain arithmetic give, and words follow it."""

import math

import pytest
import torch
import torch.nn.functional as F

from spai_lab.data import load
from spai_lab.privacy.dp_sgd import private_gradient
from spai_lab.privacy.per_example import per_example_gradients
from spai_lab.widgets.clipping_explorer import (
    ACROSS,
    BATCHES,
    CLIPS,
    MOMENTS,
    NOISES,
    UP,
    blame,
    clipping_explorer,
    describe,
    flat,
    model_at,
    number,
    render,
    step,
    verdict,
)

BATCH = 64


def parts(fig):
    return {artist.get_gid(): artist for artist in fig.findobj() if artist.get_gid()}


def one_by_one(moment):
    """The gradients of the batch, `(B, D)`, by a backward pass for each image."""
    data, model = load("digits"), model_at("digits", moment)
    rows = []
    for x, y in zip(data.x_train[:BATCH], data.y_train[:BATCH], strict=True):
        loss = F.cross_entropy(model(x[None]), y[None])
        rows.append(torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(model.parameters()))]))
    return torch.stack(rows).double()


@pytest.mark.parametrize("moment", MOMENTS)
def test_norms_mean_and_clipping_are_those_of_one_example_at_a_time(moment):
    found, gradients = step("digits", moment, BATCH), one_by_one(moment)
    norms = gradients.norm(dim=1)
    assert torch.allclose(found.norms.double(), norms, rtol=1e-4, atol=1e-6)
    assert torch.allclose(found.mean.double(), gradients.mean(0), atol=1e-5)
    for clip, mean in zip(CLIPS, found.clipped.double(), strict=True):
        shortened = torch.stack([g * min(1.0, clip / float(g.norm())) for g in gradients])
        assert shortened.norm(dim=1).max() <= clip * (1 + 1e-9)
        assert torch.allclose(mean, shortened.mean(0), atol=1e-5)
        assert found.cut(clip).hits == int((norms > clip).sum())


def test_what_is_released_is_what_a_step_of_dp_sgd_releases():
    found, data = step("digits", "first", BATCH), load("digits")
    gradients = per_example_gradients(model_at("digits", "first"), data.x_train[:BATCH], data.y_train[:BATCH])
    for place in (0, CLIPS.index(1.0), len(CLIPS) - 1):
        for sigma in (0.0, 1.0, 4.0):
            generator = torch.Generator().manual_seed(0)
            setting = {"clip": CLIPS[place], "noise_multiplier": sigma, "expected_batch": BATCH}
            expected = flat(private_gradient(gradients, generator=generator, **setting))
            assert torch.allclose(found.released(sigma)[place], expected, rtol=1e-4, atol=1e-6 * CLIPS[place])


def test_the_noise_is_as_long_as_so_many_normal_numbers():
    """The length of D normal numbers lies within 5 times 1 / sqrt(2) of sqrt(D), unless in one run of a million."""
    found = step("digits", "last", BATCH)
    assert abs(found.noise.norm().item() - math.sqrt(found.numbers)) < 5 / math.sqrt(2) + 0.1


@pytest.mark.parametrize("moment", MOMENTS)
def test_lengths_and_angles_are_those_of_the_whole_space(moment):
    found = step("digits", moment, BATCH)
    released, mean = found.released(0.5).double(), found.mean.double()
    cosines = F.cosine_similarity(released, mean[None], dim=1).clamp(-1, 1)
    assert torch.allclose(found.turned(found.released(0.5)).double(), torch.rad2deg(torch.acos(cosines)), atol=0.1)
    along, across = found.split(found.released(0.5))
    assert torch.allclose((along**2 + across**2).sqrt().double(), released.norm(dim=1) / mean.norm(), rtol=1e-3)
    assert found.turned(found.mean).item() < 0.1 and found.turned(-found.mean).item() > 179.9


def test_clipping_hardly_turns_gradients_that_are_alike_and_turns_others_much():
    early, late = (step("digits", moment, 256) for moment in MOMENTS)
    place = CLIPS.index(1.0)
    assert early.cut(1.0).value == 1 and early.bias[place] < 15
    assert late.cut(1.0).value < 0.5 and late.bias[place] > 40


@pytest.mark.parametrize(("clip", "sigma"), [(1.0, 1.0), (0.01, 0.0), (50.0, 4.0)])
@pytest.mark.parametrize("moment", MOMENTS)
def test_the_picture_shows_the_threshold_the_arrows_and_the_influence(moment, clip, sigma):
    found, place = step("digits", moment, BATCH), CLIPS.index(clip)
    named = parts(render(found, clip, sigma))
    released = found.released(sigma)
    assert list(named["threshold"].get_xdata()) == [clip, clip]
    assert f"{100 * found.cut(clip).value:.0f} %" in named["rule"].get_text()
    assert named["angles"].get_ydata() == pytest.approx(found.turned(released).numpy())
    assert named["angle now"].get_xydata()[0] == pytest.approx([clip, found.turned(released)[place].item()])
    for name, gradient in {
        "true mean": found.mean,
        "clipped": found.clipped[place],
        "released": released[place],
    }.items():
        along, across = (part.item() for part in found.split(gradient))
        x, y = (values[1] for values in (named[name].get_xdata(), named[name].get_ydata()))
        fits = ACROSS[0] <= along <= ACROSS[1] and across <= UP[1]
        assert ("(cut)" in named[f"{name} words"].get_text()) != fits
        if fits:
            assert (x, y) == pytest.approx((along, across))
        else:
            assert y == pytest.approx(UP[1]) or x == pytest.approx(ACROSS[along > 0])
            assert math.atan2(y, x) == pytest.approx(math.atan2(across, along))
    assert (named["record"].get_width(), named["noise"].get_width()) == (1, sigma)
    assert named["record words"].get_text() == number(clip / BATCH)
    assert named["noise words"].get_text() == number(sigma * clip / BATCH)


def test_words_follow_the_numbers():
    for moment in MOMENTS:
        found = step("digits", moment, BATCH)
        for clip in CLIPS:
            for sigma in NOISES:
                said, told = verdict(found, clip, sigma), describe(found, clip, sigma)
                assert f"shortens {found.cut(clip).hits} of the gradients" in said
                assert ("nothing is promised" in said) == (sigma == 0)
                assert f"{found.bias[CLIPS.index(clip)]:.0f} degrees off" in told
                for words in (said, told):
                    assert words.endswith(".") and "nan" not in words


@pytest.mark.parametrize(
    ("bias", "angle", "word"), [(5, 30, "right way"), (5, 80, "noise"), (70, 75, "clipping"), (95, 96, "clipping")]
)
def test_the_blame_goes_to_what_takes_more(bias, angle, word):
    assert word in blame(bias, angle)


def test_controls_redraw():
    explorer = clipping_explorer("digits")
    for name, value in (("moment", "last"), ("batch", BATCH), ("clip", 10.0), ("noise_multiplier", 0.3)):
        before = explorer.png, explorer.alt, explorer.caption
        explorer.controls[name].value = value
        now = explorer.png, explorer.alt, explorer.caption
        assert all(new != old for new, old in zip(now, before, strict=True))
    assert explorer.caption == verdict(step("digits", "last", BATCH), 10.0, 0.3)
    assert 'role="alert"' not in explorer.children[2].value


def test_bad_arguments_are_refused(refuses):
    good = {"dataset": "digits", "moment": "first", "batch": BATCH}
    refuses(step, good | {"dataset": "moons"}, "dataset is 'moons'", "digits")
    refuses(step, good | {"moment": "never"}, "moment is 'never'", "first")
    refuses(step, good | {"batch": 7}, "batch is 7", ", ".join(map(str, BATCHES)))
    refuses(clipping_explorer, {"dataset": "faces"}, "dataset is 'faces'", "digits")
    found = step(**good)
    for function in (render, verdict, describe):
        refuses(function, {"found": found, "clip": 0.4, "noise_multiplier": 1.0}, "clip is 0.4", "0.3, 0.5")
        refuses(function, {"found": found, "clip": 0.5, "noise_multiplier": 9}, "noise_multiplier is 9", "3, 4")

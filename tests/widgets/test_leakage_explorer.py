"""The leakage explorer: the images are those of the attack, in the order of the true ones, and beside them the PSNR."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from spai_lab.attacks.privacy.leakage import gradient_leakage, leak_network, matched, shared_gradients
from spai_lab.data import load
from spai_lab.survey.leakage_jobs import RECOGNIZED
from spai_lab.widgets.leakage_explorer import (
    FIRST,
    LEVELS,
    NETWORK,
    STARTS,
    STEPS,
    best_order,
    describe,
    label_words,
    leakage_explorer,
    leaks,
    render,
    verdict,
)


def parts(fig):
    return {artist.get_gid(): artist for artist in fig.findobj() if artist.get_gid()}


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module", autouse=True)
def fewer_steps():
    """For batches, what the tests look at shows after a few steps."""
    with pytest.MonkeyPatch.context() as patch:
        for batch in (2, 4):
            patch.setitem(STEPS, batch, 60)
        leaks.cache_clear()
        yield
    leaks.cache_clear()


def test_the_images_are_those_that_the_attack_finds_beside_those_that_they_fit():
    found, data = leaks("digits", 2), load("digits")
    x, y = data.x_train[:2], data.y_train[:2]
    assert torch.equal(found.x, x) and torch.equal(found.y, y)
    model = leak_network(data.shape, 10, generator=seeded(NETWORK))
    clean = shared_gradients(model, x[None], y[None])
    draws = seeded(0)
    noise = {name: torch.randn(gradient.shape, generator=draws) for name, gradient in clean.items()}
    sent = {name: torch.cat([g + sigma * noise[name] for sigma in LEVELS]) for name, g in clean.items()}
    settings = {"shape": data.shape, "batch": 2, "steps": STEPS[2], "progress": False}
    leaked = gradient_leakage(model, sent, snapshots=1, generator=seeded(FIRST), **settings)
    for level in range(len(LEVELS)):
        distance = min((leaked.x[level, order] - found.images[-1, level]).abs().max() for order in ([0, 1], [1, 0]))
        assert distance == 0, level
    near, right = matched(leaked, x.expand(len(LEVELS), *x.shape), y.expand(len(LEVELS), 2))
    assert torch.allclose(found.psnr[-1], near, atol=0.01)
    assert torch.equal(found.labels == y, right)
    numbers = torch.cat([gradient.flatten() for gradient in clean.values()])
    assert found.numbers == len(numbers) and found.spread == pytest.approx(numbers.std().item(), rel=1e-4)
    for level, sigma in enumerate(LEVELS):
        explained = 2 * len(numbers) * sigma**2 + 0.01 * numbers.square().sum()
        assert found.astray[level] == (leaked.distances[level] > explained)


@pytest.mark.parametrize("batch", list(STEPS))
def test_the_numbers_belong_to_the_images(batch):
    found = leaks("digits", batch)
    x, images = found.x.double().numpy(), found.images.double().numpy()
    mean_square = ((images - x) ** 2).mean((3, 4, 5))
    assert found.psnr.numpy() == pytest.approx(10 * np.log10(1 / mean_square), abs=1e-3)
    assert found.blank == pytest.approx(np.mean(10 * np.log10(1 / (x**2).mean((1, 2, 3)))), abs=1e-4)
    assert images.shape[:3] == (len(found.steps), len(LEVELS), batch)
    assert found.steps[-1] == STEPS[batch]


def test_images_are_put_beside_those_that_they_fit():
    x = torch.rand(4, 1, 5, 5, generator=seeded(0))
    order = [2, 0, 3, 1]
    shuffled = (x + 0.01).clamp(0, 1)[order]
    assert torch.equal(shuffled[best_order(x, shuffled)], (x + 0.01).clamp(0, 1))
    assert best_order(x, x) == [0, 1, 2, 3]


def test_a_single_image_leaks_until_noise_hides_it():
    found = leaks("digits", 1)
    end = found.psnr[-1, :, 0]
    assert not found.astray[0] and end[0] > RECOGNIZED + 5 and end[-1] < found.blank
    assert found.psnr[0, 0, 0] < RECOGNIZED < end[1]
    assert (found.labels[:3] == found.y).all()


@pytest.mark.parametrize("batch", list(STEPS))
def test_the_picture_shows_what_was_found(batch):
    found = leaks("digits", batch)
    for snapshot, level in ((0, 0), (7, 2), (-1, 4)):
        step = found.steps[snapshot]
        fig = render(found, level, step)
        fig.canvas.draw()
        named = parts(fig)
        near = found.psnr[snapshot, level]
        for image in range(batch):
            scale = 9 if batch < 4 else 6
            for name, pixels in (("true", found.x[image]), ("leaked", found.images[snapshot, level, image])):
                middles = named[f"{name} {image}"].pixels[scale // 2 :: scale, scale // 2 :: scale, 0] / 255
                assert np.abs(middles - pixels[0].numpy()).max() < 2 / 255
            assert named[f"near {image}"].get_text() == f"{near[image]:.1f} dB"
            assert named[f"label {image}"].get_text() == label_words(found, level, step, image)
        x, y = named["mean"].get_xdata(), named["mean"].get_ydata()
        assert list(x) == list(range(len(LEVELS)))
        assert np.asarray(y) == pytest.approx(found.psnr[snapshot].mean(1).numpy())
        assert named["present"].get_xydata()[0] == pytest.approx([level, near.mean().item()])
        shown = len(named["single"].get_xdata()) + len(named["astray"].get_xdata())
        assert shown == batch * len(LEVELS)
        assert f"{step} steps" in named["title"].get_text()
        assert "nan" not in describe(found, level, step) + verdict(found, level, step)


def test_labels_are_known_first_for_one_image_and_last_for_more():
    one, two = leaks("digits", 1), leaks("digits", 2)
    assert label_words(one, 0, one.steps[0], 0) == f"label {one.classes[one.y[0]]}, right"
    assert label_words(two, 0, two.steps[0], 0) == "label sought"
    assert label_words(two, 0, two.steps[-1], 0).startswith("label ")
    wrong = replace(one, labels=(one.y + 1).expand_as(one.labels))
    assert label_words(wrong, 0, 10, 0).endswith("wrong")


def test_a_search_that_ran_away_is_marked_and_explained():
    found = leaks("digits", 1)
    astray = replace(found, astray=torch.tensor([False, False, False, False, True]))
    named = parts(render(astray, 4, found.steps[-1]))
    assert list(named["astray"].get_xdata()) == [4] and list(named["single"].get_xdata()) == [0, 1, 2, 3]
    assert "runs away" in verdict(astray, 4, found.steps[-1])
    assert "runs away" not in verdict(astray, 3, found.steps[-1])


def test_controls_redraw_and_the_steps_follow_the_batch():
    explorer = leakage_explorer("digits")
    assert explorer.controls["step"].value == STEPS[1]
    for name, value in (("level", 3), ("step", 100), ("start", STARTS[1]), ("batch", 2)):
        before = explorer.png
        explorer.controls[name].value = value
        assert explorer.png != before, name
    assert explorer.controls["step"].index == 9 and explorer.controls["step"].value == STEPS[2] // 2
    assert "the first 2 training images" in explorer.caption
    assert 'role="alert"' not in explorer.children[2].value


def test_bad_arguments_are_refused(refuses):
    refuses(leaks, {"dataset": "faces", "batch": 1}, "dataset is 'faces'", "digits")
    refuses(leaks, {"dataset": "digits", "batch": 3}, "batch is 3", "1, 2, 4")
    refuses(leaks, {"dataset": "digits", "batch": 1, "start": 0}, "start is 0", "1, 2")
    found = leaks("digits", 1)
    refuses(render, {"leaks": found, "level": 5, "step": 10}, "level is 5", "0 to 4")
    refuses(verdict, {"leaks": found, "level": 0, "step": 7}, "step is 7", "10, 20")
    refuses(describe, {"leaks": found, "level": -1, "step": 10}, "level is -1")
    refuses(leakage_explorer, {"dataset": "faces"}, "dataset is 'faces'", "digits")

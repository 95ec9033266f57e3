"""The inversion explorer: the pictures are those of the attack, and the victim says of them what is written there."""

import importlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from spai_lab.attacks.privacy.inversion import model_inversion
from spai_lab.data import available, load
from spai_lab.inversion_victims import train_face_victim
from spai_lab.widgets.inversion_explorer import (
    ENOUGH,
    EVERY,
    FIRST_TARGET,
    STEP_SIZES,
    TARGETS,
    TRAINING,
    correlations,
    describe,
    drawings,
    face_datasets,
    inversion_explorer,
    render,
    verdict,
)

EPOCHS, STEPS = 10, 62  # in the tests; 62 is no multiple of EVERY


def parts(fig):
    return {artist.get_gid(): artist for artist in fig.findobj() if artist.get_gid()}


@pytest.fixture(scope="module", autouse=True)
def shorter():
    """What the tests look at shows in less time than the eye needs."""
    module = importlib.import_module("spai_lab.widgets.inversion_explorer")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "EPOCHS", EPOCHS)
        patch.setattr(module, "STEPS", STEPS)
        drawings.cache_clear()
        yield
    drawings.cache_clear()


@pytest.fixture(scope="module")
def victim():
    settings = {"epochs": EPOCHS, "generator": torch.Generator().manual_seed(0), "progress": False}
    return train_face_victim("softmax", load("digits").first(TRAINING), **settings)


def test_the_pictures_are_those_of_the_attack_and_the_victim_says_so(victim):
    found, data = drawings("digits", "softmax"), load("digits").first(TRAINING)
    settings = {"steps": STEPS, "threshold": ENOUGH, "step_size": STEP_SIZES["digits"], "logarithm": True}
    drawn = model_inversion(victim, torch.arange(TARGETS), shape=data.shape, every=1, progress=False, **settings)
    for frame, iteration in enumerate(found.iterations):
        assert torch.allclose(found.path[frame], drawn.path[iteration], atol=1e-5)
    with torch.no_grad():
        for frame in (0, 3, -1):
            assert torch.allclose(found.probabilities[frame], victim(found.path[frame]).softmax(1), atol=1e-5)
        assert torch.allclose(found.of_real, victim(found.real).softmax(1), atol=1e-5)
        assert found.accuracy.hits == int((victim(data.x_test).argmax(1) == data.y_test).sum())
    for target in range(TARGETS):
        firsts = [x for x, y in zip(data.x_train, data.y_train.tolist(), strict=True) if y == target]
        assert torch.equal(found.real[target], firsts[0])


def test_the_frames_of_a_target_end_where_its_search_ends():
    found = drawings("digits", "softmax")
    assert found.frames(0) == (*range(0, STEPS, EVERY), STEPS)
    early = replace(found, taken=torch.tensor([12, 15] + [STEPS] * 8))
    assert early.frames(0) == (0, 5, 10, 12) and early.frames(1) == (0, 5, 10, 15)
    assert early.confidence(0).tolist() == found.probabilities[:4, 0, 0].tolist()


def test_it_starts_black_and_ends_sure():
    found = drawings("digits", "softmax")
    assert not found.path[0].any()
    for target in range(TARGETS):
        confidence = found.confidence(target)
        assert confidence[-1] > 2 * confidence[0]
        assert found.probabilities[-1, target].argmax() == target


def test_likeness_is_the_correlation_with_the_mean_pictures():
    found, data = drawings("digits", "softmax"), load("digits").first(TRAINING)
    means = [data.x_train[data.y_train == label].double().mean(0).flatten().numpy() for label in range(10)]
    for frame, target in ((1, 0), (5, 4), (-1, 9)):
        drawn = found.path[frame, target].double().flatten().numpy()
        expected = [np.corrcoef(drawn, mean)[0, 1] for mean in means]
        assert found.likeness[frame, target].numpy() == pytest.approx(expected, abs=1e-4)
    assert correlations(torch.zeros(1, 4), torch.rand(2, 4)).tolist() == [[0, 0]]
    own = found.likeness[-1].argmax(1) == torch.arange(TARGETS)
    assert own.sum() >= 8  # by chance one of ten


def test_the_picture_shows_what_was_drawn():
    found = drawings("digits", "softmax")
    for target, frame in ((0, 0), (3, 4), (9, len(found.frames(9)) - 1)):
        fig = render(found, target, frame)
        fig.canvas.draw()
        named = parts(fig)
        for name, pixels in (("real", found.real[target]), ("drawn", found.path[frame, target])):
            middles = named[name].pixels[5::11, 5::11, 0] / 255
            assert np.abs(middles - pixels[0].numpy()).max() < 2 / 255
        confidence, answer = found.probabilities[frame, target].max(0)
        assert named["says"].get_text() == f"{found.classes[answer]} ({100 * confidence:.0f} %)"
        iteration = found.frames(target)[frame]
        assert named["title"].get_text() == (f"after {iteration} iterations" if iteration else "start: black")
        assert named["present"].get_xydata()[0] == pytest.approx([iteration, found.confidence(target)[frame].item()])
        assert "nan" not in verdict(found, target, frame) + describe(found, target, frame)


def test_the_words_follow_the_numbers():
    found, last = drawings("digits", "softmax"), len(drawings("digits", "softmax").frames(3)) - 1
    assert "starts from black" in verdict(found, 3, 0)
    assert f"{STEPS} iterations are all it has" in verdict(found, 3, last)
    assert "the search ends" not in verdict(found, 3, 2)
    sure = torch.zeros_like(found.probabilities)
    sure[..., 3] = 1
    assert "that is enough" in verdict(replace(found, probabilities=sure), 3, last)
    unlike = replace(found, likeness=torch.arange(10.0).expand_as(found.likeness))
    assert "more like that of 6 others than that of a 3" in verdict(unlike, 3, last)
    assert "more like that of another one" in verdict(unlike, 8, last)
    assert "most like that of a 9" in verdict(unlike, 9, last)


def test_controls_redraw():
    explorer = inversion_explorer("digits")
    controls = explorer.controls
    assert controls["frame"].index == len(controls["frame"].options) - 1
    for name, value in (("frame", 3), ("target", 8), ("victim", "mlp"), ("frame", 0)):
        before = explorer.png
        controls[name].value = value
        assert explorer.png != before, name
        if name in ("target", "victim"):
            assert controls["frame"].index == len(controls["frame"].options) - 1
    assert "MLP, start: black" in explorer.alt
    assert 'role="alert"' not in explorer.children[2].value


def test_faces_come_first_where_they_are():
    if isinstance(available()["faces"], str):
        assert "faces" not in face_datasets()
        pytest.skip("the faces are not at hand")
    assert face_datasets()[0] == "faces"
    explorer = inversion_explorer()
    assert explorer.values["dataset"] == "faces" and explorer.values["target"] == FIRST_TARGET["faces"]
    assert len(explorer.controls["target"].options) == TARGETS
    found = drawings("faces", "softmax")
    assert found.path.shape[2:] == (1, 56, 46) and found.probabilities.shape[2] == 40
    assert (found.likeness[-1].argmax(1) == torch.arange(TARGETS)).sum() >= 5  # by chance one of forty
    explorer.controls["dataset"].value = "digits"
    assert explorer.values["target"] == 3 and "digits" in explorer.alt


def test_bad_arguments_are_refused(refuses):
    refuses(drawings, {"dataset": "moons", "victim": "mlp"}, "dataset is 'moons'", "digits")
    refuses(drawings, {"dataset": "digits", "victim": "dae"}, "victim is 'dae'", "softmax", "mlp")
    found = drawings("digits", "softmax")
    refuses(render, {"drawings": found, "target": 10, "frame": 0}, "target is 10", "0 to 9")
    refuses(verdict, {"drawings": found, "target": 0, "frame": 99}, "frame is 99", "0 to 13")
    refuses(describe, {"drawings": found, "target": 0, "frame": -1}, "frame is -1")
    refuses(inversion_explorer, {"dataset": "moons"}, "dataset is 'moons'", "digits")

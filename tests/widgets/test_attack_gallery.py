"""The gallery shows what the attacks return; its numbers and its counts are found again without it."""

import os
import sys
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from spai_lab.attacks.evasion import deepfool, fgsm, pgd
from spai_lab.data import load
from spai_lab.training import reference
from spai_lab.widgets.attack_gallery import (
    EXHIBITS,
    FGSM_GRID,
    NAMES,
    Attempt,
    attack_gallery,
    describe,
    gallery,
    render,
    verdict,
)
from spai_lab.widgets.choices import IMAGES, well_read

MODELS = ("lenet", "lenet-robust")
FEW = None if os.environ.get("SPAI_FULL") else 1


def parts(fig):
    return {artist.get_gid(): artist for artist in fig.findobj() if artist.get_gid()}


@pytest.fixture(scope="module")
def places():
    return well_read("digits", MODELS)


@pytest.fixture(scope="module")
def shown():
    return load("digits").sample(IMAGES)


@pytest.fixture(scope="module")
def first(places):
    return gallery("digits", "lenet", places[0])


def test_the_images_are_read_rightly_by_all_models_and_of_different_classes(places, shown):
    x, y = (part[list(places)] for part in shown)
    assert len(y) == 5 == len(y.unique())
    for model in MODELS:
        with torch.no_grad():
            assert torch.equal(reference(model, "digits")(x).argmax(1), y)
    others = set(range(places[-1])) - set(places)
    for place in others:  # each that was passed over is misread, or of a class that came before
        with torch.no_grad():
            wrong = any(reference(model, "digits")(shown[0][[place]]).argmax(1) != shown[1][place] for model in MODELS)
        assert wrong or shown[1][place] in shown[1][[earlier for earlier in places if earlier < place]]


def test_calls_are_what_a_hook_on_the_model_counts(places, shown, monkeypatch):
    x, y = (part[[places[0]]] for part in shown)
    model = reference("lenet", "digits").eval()
    seen = []
    handle = model.register_forward_hook(lambda _, inputs, output: seen.append(len(inputs[0])))
    monkeypatch.setattr(sys.modules[gallery.__module__], "reference", lambda name, dataset: model)
    gallery.cache_clear()
    found = gallery("digits", "lenet", places[0])
    by_attack = {name: attempt.calls for name, attempt in found.attempts.items()}
    assert sum(seen) == sum(by_attack.values()) + len(NAMES) + 1  # and a look at each result and at the original
    for exhibit in EXHIBITS:
        if exhibit.name not in ("C&W", "L-BFGS", "stAdv"):  # these take longer; the sum holds them
            seen.clear()
            exhibit.attack(model, x, y)
            assert by_attack[exhibit.name] == sum(seen), exhibit.name
    handle.remove()
    pairs = int((found.attempts["JSMA"].delta != 0).sum()) // 2
    assert by_attack["JSMA"] >= 1 + 2 * pairs  # a look at the start, then slopes and a test for each pair


def test_numbers_and_words_are_those_of_the_adversarial_images(places, shown):
    for model, place in product(MODELS, places[:FEW]):
        found = gallery("digits", model, place)
        x, y = shown[0][place], int(shown[1][place])
        named = parts(render(found))
        assert tuple(found.attempts) == NAMES == tuple(exhibit.name for exhibit in EXHIBITS)
        for name, attempt in found.attempts.items():
            change = attempt.delta.numpy().astype(np.float64)
            x_adv = x + attempt.delta
            assert x_adv.min() >= -1e-6 and x_adv.max() <= 1 + 1e-6
            with torch.no_grad():
                probabilities = reference(model, "digits")(x_adv[None]).softmax(1)[0]
            confidence, answer = probabilities.max(0)
            assert attempt.probabilities.numpy() == pytest.approx(probabilities.numpy(), abs=1e-4)
            assert attempt.success == (int(answer) != y)
            expected = {
                "says": f"{answer} ({100 * confidence:.0f} %)",
                "outcome": "fooled" if int(answer) != y else "FAILED",
                "L0, pixels": str(int((np.abs(change) * 255 >= 0.5).sum())),
                "L2": f"{np.sqrt((change**2).sum()):.2f}",
                "L-inf": f"{np.abs(change).max():.2f}",
                "model calls": f"{attempt.calls:,}",
            }
            assert {label: named[f"{name} {label}"].get_text() for label in expected} == expected
            largest = np.abs(change).max()
            assert named[f"{name} magnified"].get_text() == (f"× {1 / largest:.3g}" if largest else "no change")
        assert "nan" not in verdict(found) + describe(found)


def test_the_images_in_the_columns_are_original_plus_noise(first):
    named = parts(render(first))
    for name, attempt in first.attempts.items():
        gray = named[f"{name} adversarial"].pixels[2::4, 2::4, :3] / 255
        assert np.abs(gray - (first.x + attempt.delta)[0, :, :, None].numpy()).max() < 2 / 255
    assert np.abs(named["original"].pixels[2::4, 2::4, 0] / 255 - first.x[0].numpy()).max() < 2 / 255


def test_fgsm_takes_the_least_eps_and_pgd_keeps_its_own(first, places, shown):
    x, y = (part[[places[0]]] for part in shown)
    model = reference("lenet", "digits").eval()
    with torch.no_grad():
        eps = next(eps for eps in FGSM_GRID if model(fgsm(model, x, y, eps=eps)).argmax(1) != y)
    assert float(first.attempts["FGSM"].delta.abs().max()) == pytest.approx(eps, abs=1e-6)
    by_pgd = pgd(model, x, y, eps=0.1, generator=torch.Generator().manual_seed(0))
    assert torch.equal(first.attempts["PGD"].delta, (by_pgd - x)[0])
    assert torch.equal(first.attempts["DeepFool"].delta, (deepfool(model, x, y) - x)[0])


def test_an_attack_that_fails_is_marked_and_wins_nothing(first):
    won = first.attempts["JSMA"]
    lost = replace(first, attempts={**first.attempts, "JSMA": replace(won, success=False)})
    named, before = parts(render(lost)), parts(render(first))
    assert (before["JSMA outcome"].get_text(), named["JSMA outcome"].get_text()) == ("fooled", "FAILED")
    assert "Failed, in gray: JSMA." in verdict(lost) and "Failed" not in verdict(first)
    assert "JSMA changes the fewest pixels" in verdict(first) and "JSMA changes" not in verdict(lost)
    none = replace(first, attempts={name: replace(one, success=False) for name, one in first.attempts.items()})
    assert f"Failed, in gray: {', '.join(NAMES)}." in verdict(none)


def test_a_change_of_less_than_half_a_gray_level_is_no_changed_pixel():
    delta = torch.tensor([[[0.49, -0.51, 0.0, 1.0]]]) / 255
    assert Attempt(delta, torch.zeros(10), True, 1).sizes["l0"] == 2


def test_another_image_or_model_brings_its_own_gallery(places):
    explorable = attack_gallery("digits")
    assert [value for _, value in explorable.controls["image"].options] == list(places)
    before = explorable.png
    explorable.controls["model"].value = "lenet-robust"
    assert explorable.png != before and "LeNet, robust on digits" in explorable.alt
    assert explorable.caption == verdict(gallery("digits", "lenet-robust", places[0]))


def test_bad_arguments_are_refused(refuses, places):
    good = {"dataset": "digits", "model": "lenet", "image": places[0]}
    refuses(gallery, {**good, "model": "mlp"}, "model", "'lenet-robust'")
    refuses(gallery, {**good, "image": 99}, "image is 99", str(places[0]))
    refuses(attack_gallery, {"dataset": "faces"}, "dataset is 'faces'", "'digits'")

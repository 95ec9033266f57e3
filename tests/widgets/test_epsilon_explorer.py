"""The epsilon explorer draws at every setting, and its numbers are those that one finds without it."""

import re
from itertools import product

import numpy as np
import pytest
import torch
from matplotlib.text import Text

from spai_lab.data import load
from spai_lab.training import reference
from spai_lab.widgets import epsilon_explorer
from spai_lab.widgets.epsilon_explorer import GRIDS, backdrop, describe, render, sweep, verdict

MODELS = ("softmax", "mlp", "lenet", "lenet-robust")
ATTACKS = ("fgsm", "bim", "pgd", "mim")
NORMS = ("linf", "l2")
FEW, MANY = 4, 60


def parts(fig):
    """The named parts of a figure."""
    return {artist.get_gid(): artist for artist in fig.findobj() if artist.get_gid()}


def written(fig):
    return [text.get_text() for text in fig.findobj(Text) if text.get_text()]


@pytest.fixture(scope="module")
def test_set():
    data = load("digits")
    return data.sample(MANY)


@pytest.fixture(scope="module")
def fgsm_by_hand(test_set):
    """FGSM in L-inf on LeNet, written out: probabilities `(E, N, K)` and images `(E, N, C, H, W)`."""
    x, y = test_set
    model = reference("lenet", "digits")
    leaf = x.clone().requires_grad_()
    torch.nn.functional.cross_entropy(model(leaf), y, reduction="sum").backward()
    x_adv = torch.stack([(x + eps * leaf.grad.sign()).clamp(0, 1) for eps in GRIDS["linf"]])
    with torch.no_grad():
        return torch.stack([model(part).softmax(1) for part in x_adv]), x_adv


@pytest.mark.parametrize(("model", "attack", "norm"), list(product(MODELS, ATTACKS, NORMS)))
def test_it_draws_at_every_setting(model, attack, norm):
    for target in (None, 3):
        result = sweep("digits", model, attack, norm, target, images=FEW)
        for place, eps in enumerate(GRIDS[norm]):
            image = place % FEW
            fig = render(result, image, eps)
            words = [*written(fig), verdict(result, image, eps), describe(result, image, eps)]
            assert not any(re.search(r"\bnan\b|(?<!L-)\binf\b", text) for text in words), words
            named = parts(fig)
            for role in ("clean", "adversarial"):
                total = sum(named[f"{role} {k}"].get_width() for k in range(10))
                assert total == pytest.approx(1, abs=1e-5)


def test_the_images_stay_in_the_ball_and_the_first_are_clean(test_set):
    x, _ = test_set
    for norm, order in (("linf", np.inf), ("l2", 2)):
        result = sweep("digits", "lenet", "pgd", norm, images=FEW)
        assert torch.equal(result.x_adv[0], x[:FEW])
        for eps, x_adv in zip(result.eps, result.x_adv, strict=True):
            size = np.linalg.norm((x_adv - x[:FEW]).flatten(1).numpy(), ord=order, axis=1)
            assert (size <= eps + 1e-5).all()
            assert x_adv.min() >= 0 and x_adv.max() <= 1


def test_the_bars_are_the_probabilities(fgsm_by_hand):
    probabilities, _ = fgsm_by_hand
    result = sweep("digits", "lenet", "fgsm", images=MANY)
    for image, step in ((0, 0), (7, 5), (31, 16)):
        named = parts(render(result, image, GRIDS["linf"][step]))
        for role, at in (("clean", 0), ("adversarial", step)):
            bars = [named[f"{role} {k}"].get_width() for k in range(10)]
            assert bars == pytest.approx(probabilities[at, image].tolist(), abs=1e-4)
            confidence, answer = probabilities[at, image].max(0)
            words = named["says " + ("original" if role == "clean" else role)].get_text()
            assert words == f"{answer} ({100 * confidence:.0f} %)"


def test_the_images_are_those_of_the_attack(fgsm_by_hand):
    _, x_adv = fgsm_by_hand
    result = sweep("digits", "lenet", "fgsm", images=MANY)
    image, step = 12, 6
    named = parts(render(result, image, GRIDS["linf"][step]))
    for name, expected in (("original", x_adv[0, image]), ("adversarial", x_adv[step, image])):
        enlarged = named[name].pixels
        side = len(enlarged) // 28
        assert enlarged.shape == (28 * side, 28 * side, 4)
        middles = enlarged[side // 2 :: side, side // 2 :: side]
        assert np.abs(middles[..., :3] / 255 - expected[0, :, :, None].numpy()).max() < 2 / 255
    factor = 1 / (x_adv[step, image] - x_adv[0, image]).abs().max()
    assert named["says perturbation"].get_text() == f"magnified × {factor:.3g}"


def test_the_curve_is_the_accuracy_at_each_eps(test_set, fgsm_by_hand):
    _, y = test_set
    accuracy = (fgsm_by_hand[0].argmax(-1) == y).float().mean(1)
    result = sweep("digits", "lenet", "fgsm", images=MANY)
    curve = backdrop(result).axes["curve"].lines[0]
    assert curve.get_xdata() == pytest.approx(GRIDS["linf"])
    assert curve.get_ydata() == pytest.approx(accuracy.tolist())
    for step, eps in enumerate(GRIDS["linf"]):
        assert parts(render(result, 0, eps))["accuracy"].get_text() == f"{100 * accuracy[step]:.0f} %"
        assert f"Accuracy left: {100 * accuracy[step]:.1f} % (n = {MANY}," in verdict(result, 0, eps)


def test_the_smallest_eps_is_the_first_that_fools(test_set, fgsm_by_hand):
    _, y = test_set
    answers = fgsm_by_hand[0].argmax(-1)
    result = sweep("digits", "lenet", "fgsm", images=MANY)
    for image in range(MANY):
        wrong = [eps for eps, row in zip(GRIDS["linf"], answers, strict=True) if row[image] != y[image]]
        assert result.smallest(image) == (wrong[0] if wrong else None)
        if wrong and wrong[0] > 0:
            assert f"The smallest eps of the grid that fools it: {wrong[0]:g}." in verdict(result, image, wrong[0])
            assert f"{y[image]} → " in verdict(result, image, wrong[0])


def test_a_target_is_never_asked_of_its_own_images(test_set):
    _, y = test_set
    target = 3
    result = sweep("digits", "lenet", "bim", "linf", target, images=MANY)
    with torch.no_grad():
        answers = reference("lenet", "digits")(result.x_adv.flatten(0, 1)).argmax(1).view(len(result.eps), MANY)
    others = y != target
    for step, eps in enumerate(result.eps):
        right, reached = (answers[step] == y)[others], (answers[step] == target)[others]
        assert (result.accuracy()[eps].hits, result.accuracy()[eps].trials) == (int(right.sum()), int(others.sum()))
        assert (result.success()[eps].hits, result.success()[eps].trials) == (int(reached.sum()), int(others.sum()))
        named = parts(render(result, 0, eps))
        assert named["success"].get_text() == f"{100 * reached.float().mean():.0f} %"
    assert result.success()[0.0].value < 0.1 < result.success()[0.4].value
    own = int((~others).nonzero()[0])
    assert "nothing to aim for" in verdict(result, own, 0.1)
    assert "target" not in parts(render(result, own, 0.1))
    other = int(others.nonzero()[0])
    assert parts(render(result, other, 0.1))["target"].get_position()[1] == target


def test_the_true_class_is_marked(test_set):
    _, y = test_set
    result = sweep("digits", "lenet", "fgsm", images=MANY)
    for image in range(5):
        assert parts(render(result, image, 0.1))["true class"].get_position()[1] == y[image]


def test_the_same_setting_gives_the_same_picture_after_the_cache_is_gone():
    before = sweep("digits", "mlp", "pgd", images=FEW)
    sweep.cache_clear()
    assert torch.equal(before.x_adv, sweep("digits", "mlp", "pgd", images=FEW).x_adv)


def test_another_norm_brings_its_own_grid_and_other_words():
    explorable = epsilon_explorer("digits", images=FEW)
    explorable.controls["eps"].index = 6
    for norm in NORMS:
        explorable.controls["norm"].value = norm
        assert [value for _, value in explorable.controls["eps"].options] == list(GRIDS[norm])
        assert explorable.values["eps"] == GRIDS[norm][6]
        assert f"at eps {GRIDS[norm][6]:g} " in explorable.alt
    explorable.controls["target"].value = 3
    assert "Taken for the target: " in explorable.caption


def test_only_data_that_needs_no_download_is_offered(monkeypatch):
    monkeypatch.setattr("spai_lab.widgets.choices.available", lambda: {"digits": None, "mnist": "not here"})
    explorable = epsilon_explorer("digits", images=FEW)
    assert list(explorable.controls["dataset"].options) == ["digits"]


def test_bad_arguments_are_refused(refuses):
    good = {"dataset": "digits", "model": "lenet", "attack": "fgsm", "images": FEW}
    for name, bad, word in (
        ("model", "resnet", "'lenet'"),
        ("attack", "cw", "'pgd'"),
        ("norm", "l1", "'linf'"),
        ("target", 10, "0 to 9"),
        ("images", 0, "at least 1"),
    ):
        refuses(sweep, {**good, name: bad}, name, word)
    result = sweep(**good)
    refuses(render, {"sweep": result, "image": FEW, "eps": 0.1}, "image", f"0 to {FEW - 1}")
    refuses(render, {"sweep": result, "image": 0, "eps": 0.11}, "eps is 0.11", "0 to 0.4")
    refuses(epsilon_explorer, {"dataset": "faces"}, "dataset is 'faces'", "'digits'")

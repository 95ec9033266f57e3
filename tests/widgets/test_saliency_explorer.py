"""The steps are those of JSMA itself, and the map that is shown chooses the pixel that changes next."""

import os
import sys
from copy import deepcopy

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from spai_lab.attacks.evasion import jsma
from spai_lab.data import load
from spai_lab.style import COLORS
from spai_lab.training import reference
from spai_lab.widgets.choices import IMAGES, well_read
from spai_lab.widgets.saliency_explorer import GAMMA, describe, render, saliency_explorer, steps, verdict

PLACES = well_read("digits")
OTHERS = {image: [k for k in range(10) if k != load("digits").sample(IMAGES)[1][image]] for image in PLACES}
RUNS = [(image, target) for image in PLACES[:3] for target in OTHERS[image][::3]]


def parts(fig):
    return {artist.get_gid(): artist for artist in fig.findobj() if artist.get_gid()}


@pytest.fixture(scope="module")
def shown():
    return load("digits").sample(IMAGES)


@pytest.mark.parametrize(("image", "target"), RUNS)
def test_the_path_leads_from_the_image_to_what_jsma_returns(shown, image, target):
    run = steps("digits", image, target)
    x = shown[0][[image]]
    model = reference("lenet", "digits").eval()
    x_adv = jsma(model, x, torch.tensor([target]), pixels=1, targeted=True)
    assert torch.equal(run.x_adv, x_adv[0])
    assert torch.equal(run.path[0], x[0])
    assert run.reached and torch.equal(run.path[-1], x_adv[0])
    with torch.no_grad():
        assert torch.allclose(model(run.path).softmax(1), run.probabilities, atol=1e-4)
    answers = run.probabilities.argmax(1).tolist()
    assert answers[-1] == target and target not in answers[:-1]


@pytest.mark.parametrize(("image", "target"), RUNS)
def test_each_step_turns_the_most_salient_pixel_white(image, target):
    run = steps("digits", image, target)
    for step in range(run.last):
        changed = (run.path[step + 1] != run.path[step])[0].nonzero().tolist()
        assert changed == [list(divmod(int(run.maps[step].argmax()), 28))] == [list(run.next(step))]
        assert float(run.path[step + 1][0][tuple(changed[0])]) == 1
        assert len(run.places(step)) == step
    assert run.next(run.last) is None


def test_the_map_is_the_papers_formula_on_the_probabilities():
    image, target = RUNS[0]
    run = steps("digits", image, target)
    model = deepcopy(reference("lenet", "digits")).double().eval()
    for step in (0, run.last // 2, run.last):
        x = run.path[step].double()
        jacobian = torch.autograd.functional.jacobian(lambda x: model(x[None]).softmax(1)[0], x)
        of_target = jacobian[target]
        of_others = jacobian.sum(0) - of_target
        expected = (of_target * of_others.abs() * ((of_target > 0) & (of_others < 0)) * (x < 1)).numpy()
        found = run.maps[step].numpy()
        assert found / found.max() == pytest.approx(expected / expected.max(), abs=1e-3)


def test_every_step_is_drawn():
    run = steps("digits", *RUNS[0])
    for step in range(run.last + 1):
        named = parts(render(run, step))
        pixels = named["image"].pixels[5::11, 5::11, 0] / 255
        assert np.abs(pixels - run.path[step, 0].numpy()).max() < 2 / 255
        for name, k in (("true class", run.y), ("target", run.target)):
            assert named[f"present {name}"].get_xydata()[0] == pytest.approx([step, float(run.probabilities[step, k])])
        around = named["changed"].get_xydata().tolist() if step else []
        assert around == [[column, row] for row, column in run.places(step)]
        if step < run.last:
            row, column = run.next(step)
            assert named["next"].get_xydata().tolist() == [[column, row]]
            assert f"row {row + 1}, column {column + 1}" in verdict(run, step)
        else:
            assert "next" not in named
        confidence, answer = run.probabilities[step].max(0)
        said = f"the model says {answer} ({100 * confidence:.0f} %)"
        assert named["says image"].get_text() == said and said in describe(run, step)
        role = "clean" if int(answer) == run.y else "adversarial"
        assert to_hex(named["image frame"].get_edgecolor()) == COLORS[role] == named["says image"].get_color()
    assert f"{run.y} → {run.target} after {run.last} pixels" in verdict(run, run.last)


def test_every_target_of_every_image_is_drawn():
    for image in PLACES if os.environ.get("SPAI_FULL") else PLACES[:1]:
        for target in OTHERS[image]:
            run = steps("digits", image, target)
            for step in {0, run.last // 2, run.last}:
                assert "nan" not in verdict(run, step) + describe(run, step)
                render(run, step)


def test_a_run_that_gives_up_says_so_and_returns_the_image(monkeypatch):
    monkeypatch.setattr(sys.modules[steps.__module__], "GAMMA", 2.5 / 784)
    steps.cache_clear()
    run = steps("digits", *RUNS[0])
    steps.cache_clear()
    assert run.last == 2 and not run.reached
    assert torch.equal(run.x_adv, run.path[0])
    assert "gives up after 2 pixels" in verdict(run, 2)
    assert "next" not in parts(render(run, 2))


def test_controls_follow_the_image_and_the_target():
    explorable = saliency_explorer("digits")
    image, target, step = explorable.controls.values()
    play = next(child for child in explorable.children[1].children if type(child).__name__ == "Play")
    assert [value for _, value in target.options] == OTHERS[PLACES[0]]
    step.value = step.max
    before = explorable.png
    target.value = OTHERS[PLACES[0]][4]
    assert explorable.png != before and step.value == 0
    assert step.max == play.max == steps("digits", image.value, target.value).last
    kept = target.value
    for place in PLACES[1:3]:
        image.value = place
        assert [value for _, value in target.options] == OTHERS[place]
        assert target.value == (kept if kept in OTHERS[place] else OTHERS[place][0])
        assert step.max == play.max == steps("digits", place, target.value).last
        kept = target.value
    before = explorable.png
    step.value = 2
    assert explorable.png != before and "2 pixels changed" in explorable.alt
    assert 'role="alert"' not in explorable.children[2].value


def test_the_budget_is_the_attacks_own_and_kept():
    for image, target in RUNS:
        assert steps("digits", image, target).last <= GAMMA * 784


def test_bad_arguments_are_refused(refuses):
    image, target = RUNS[0]
    own = next(k for k in range(10) if k not in OTHERS[image])
    refuses(steps, {"dataset": "digits", "image": 99, "target": target}, "image is 99", str(PLACES[0]))
    for bad in (own, 10, None):
        refuses(steps, {"dataset": "digits", "image": image, "target": bad}, f"target is {bad}", str(target))
    run = steps("digits", image, target)
    refuses(render, {"steps": run, "step": run.last + 1}, "step is", f"0 to {run.last}")
    refuses(verdict, {"steps": run, "step": -1}, "step is -1")
    refuses(saliency_explorer, {"dataset": "faces"}, "dataset is 'faces'", "'digits'")

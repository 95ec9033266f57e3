"""The walks are the attacks' own, the dotted line is the linearized model, and the captions' numbers are distances."""

import re

import numpy as np
import pytest
import torch

from spai_lab.attacks.evasion import boundary, deepfool, hop_skip_jump
from spai_lab.query import Query
from spai_lab.training import reference
from spai_lab.widgets.approaches import CAP, decision_from, deepfool_from
from spai_lab.widgets.boundary_walks import boundary_walk, deepfool_walk, linearized, picture_in_words, render, verdict
from spai_lab.widgets.moons_walk import POINTS, SLACK, plane

DECISIONS = {"boundary": boundary, "hop_skip_jump": hop_skip_jump}
TRIED = [(point, name) for name in DECISIONS for point in (0, 1, 15)]


@pytest.fixture(scope="module")
def model():
    return reference("mlp", "moons").eval()


def asked(model, place) -> int:
    with torch.no_grad():
        return int(model(torch.as_tensor(place).float().reshape(1, 2, 1, 1)).argmax())


def start(point):
    return plane().x[point : point + 1], plane().y[point : point + 1]


def parts(fig):
    return {artist.get_gid(): artist for artist in fig.findobj() if artist.get_gid()}


@pytest.mark.parametrize("point", range(POINTS))
def test_deepfool_starts_at_the_point_and_ends_where_the_attack_does(model, point):
    x, y = start(point)
    found = deepfool_from(point)
    assert torch.equal(found.path[0], x.flatten())
    assert torch.equal(found.path[-1], deepfool(model, x, y).flatten())
    for count in range(1, found.steps + 1):  # after fewer steps the attack gives up, since nothing is misread yet
        stopped = deepfool(model, x, y, steps=count).flatten()
        assert torch.equal(stopped, found.path[-1] if count == found.steps else x.flatten())
    assert found.fooled == [asked(model, place) != int(y) for place in found.path]
    assert found.fooled == [False] * found.steps + [True]


def test_the_dotted_line_is_the_boundary_of_the_linearized_model(model):
    for point in (1, 8, 13, 15):
        found, (_, y) = deepfool_from(point), start(point)
        for step in range(found.steps):
            place = found.path[step].clone().requires_grad_()
            logits = model(place.reshape(1, 2, 1, 1))[0]
            lead = logits[1 - int(y)] - logits[int(y)]
            (slope,) = torch.autograd.grad(lead, place)
            for end in torch.from_numpy(linearized(found, step)).float():
                here = float(lead.detach() + slope @ (end - found.path[step]))
                assert abs(here) < 1e-3 * float(slope.norm()) * 3
            first, last = torch.from_numpy(linearized(found, step)).float()
            along, move = last - first, found.path[step + 1] - found.path[0]
            assert along.norm() > 4
            if step == 0 and found.path[1].min() > 0 and found.path[1].max() < 1:
                assert abs(float(along @ move)) < 1e-3  # the step is straight across it
            named = parts(render(found, step))
            assert np.allclose(named["zoom dotted"].get_xydata(), linearized(found, step))
        assert "zoom dotted" not in parts(render(found, found.steps))


@pytest.mark.parametrize(("point", "attack"), TRIED)
def test_a_decision_walk_keeps_misread_points_ever_nearer_and_counts_their_queries(model, point, attack):
    x, y = start(point)
    found = decision_from(point, attack)
    query = Query(model, "labels", cap=CAP)
    result = DECISIONS[attack](query, x, y, generator=torch.Generator().manual_seed(0))
    assert torch.equal(found.path[-1], result.flatten())
    assert len(found.asked) == int(query.counts[0]) <= CAP
    assert all(asked(model, place) != int(y) for place in found.path)
    assert all(np.diff(found.distances) < 0)
    assert found.misread.tolist() == [asked(model, place) != int(y) for place in found.asked]
    for place, spent in zip(found.path, found.spent.tolist(), strict=True):
        assert torch.equal(found.asked[spent - 1], place)
        assert not (found.asked[: spent - 1] == place).all(1).any()


def test_no_walk_ends_nearer_than_the_boundary():
    for found in [deepfool_from(point) for point in range(POINTS)] + [decision_from(*setting) for setting in TRIED]:
        assert found.distances[-1] >= found.gap - SLACK


def test_every_step_is_drawn_and_its_words_are_the_numbers(model):
    for found in [deepfool_from(13), *(decision_from(*setting) for setting in TRIED[2::3])]:
        for step in sorted({*range(0, found.steps, 9), 1, found.steps}):
            fig = render(found, step)
            fig.canvas.draw()
            named = parts(fig)
            distance = float((found.path[step] - found.x).norm())
            for panel in ("square", "zoom"):
                assert np.allclose(named[f"{panel} present"].get_xydata(), found.path[step])
                assert len(named[f"{panel} path"].get_xydata()) == step + 1
            assert named["answer"].get_text().endswith("misread" if found.fooled[step] else "read rightly")
            said = re.search(r"(\d\.\d{3}) from the chosen point; the boundary is (\d\.\d{3})", verdict(found, step))
            assert said[1] == f"{distance:.3f}" and said[2] == f"{found.gap:.3f}"
            assert f"{distance:.3f} from the point" in picture_in_words(found, step)
            if found.asks:
                spent = int(found.spent[step])
                assert f"{spent:,} quer" in named["count"].get_text() and f"{spent:,} quer" in verdict(found, step)
                shown = [len(named[f"square asked {answer}"].get_xydata()) for answer in (0, 1)]
                assert sum(shown) == spent and shown[1] == int(found.misread[:spent].sum())


def test_the_verdict_says_whether_there_was_a_shorter_way():
    near, astray = decision_from(15, "boundary"), decision_from(1, "boundary")
    assert "No way is much shorter" in verdict(near, near.steps)
    excess = 100 * (astray.distances[-1] / astray.gap - 1)
    assert excess > 50 and f"{excess:.0f} % farther than necessary" in verdict(astray, astray.steps)


@pytest.mark.parametrize("make", [deepfool_walk, boundary_walk])
def test_controls_follow_the_walk(make):
    explorer = make()
    step = explorer.controls["step"]
    play = next(child for child in explorer.children[1].children if type(child).__name__ == "Play")
    before = explorer.png
    step.value = step.max
    assert explorer.png != before
    for name, value in [("point", 8)] + [("attack", "hop_skip_jump")] * ("attack" in explorer.controls):
        before = explorer.png
        explorer.controls[name].value = value
        assert explorer.png != before and step.value == 0
        found = (
            decision_from(8, explorer.controls["attack"].value) if "attack" in explorer.controls else deepfool_from(8)
        )
        assert step.max == play.max == found.steps and f"after step 0 of {found.steps}" in explorer.alt
    assert 'role="alert"' not in explorer.children[2].value


def test_bad_arguments_are_refused(refuses):
    refuses(deepfool_from, {"point": POINTS}, f"point is {POINTS}", "0 to")
    refuses(decision_from, {"point": -1, "attack": "boundary"}, "point is -1")
    refuses(decision_from, {"point": 0, "attack": "square"}, "attack is 'square'", "'boundary'")
    found = deepfool_from(0)
    for function in (render, verdict, picture_in_words):
        refuses(function, {"approach": found, "step": found.steps + 1}, "step is", f"0 to {found.steps}")

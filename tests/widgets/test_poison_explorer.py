"""The poison explorer: the boundary, the losses and the arrow are those of scikit-learn's machine."""

import importlib

import numpy as np
import pytest
from matplotlib.path import Path
from sklearn.svm import SVC

from spai_lab.data import load
from spai_lab.widgets.poison_explorer import (
    PLACES,
    POINTS,
    STEPS,
    backdrop,
    describe,
    effect,
    poison_explorer,
    render,
    scene,
    verdict,
)

module = importlib.import_module("spai_lab.widgets.poison_explorer")  # the function of its name hides it


def parts(fig, gid):
    return [artist for artist in fig.findobj() if artist.get_gid() == gid]


def svc(label=None, place=None, cost=5.0):
    """scikit-learn's machine on the moons and, if there is one, a poison."""
    data = load("moons").first(POINTS)
    x, y = data.x_train.flatten(1).double().numpy(), data.y_train.numpy()
    if place is not None:
        x, y = np.vstack([x, place]), np.append(y, label)
    return SVC(kernel="linear", C=cost, tol=1e-9).fit(x, y)


def hinge(machine):
    data = load("moons")
    f = machine.decision_function(data.x_val.flatten(1).double().numpy())
    return np.maximum(0, 1 - (2 * data.y_val.numpy() - 1) * f).mean()


@pytest.fixture(scope="module")
def around():
    return scene(1)


@pytest.mark.parametrize("place", [(0.5, 0.7), (0.45, 0.9), (0.6, 0.35), (0.0, 1.0)])
def test_boundary_errors_losses_and_map_are_those_of_scikit_learn(around, place):
    peer, found, data = svc(1, place), effect(around, *place).machine, load("moons")
    assert found.w == pytest.approx(peer.coef_[0], abs=1e-4)
    assert found.b == pytest.approx(peer.intercept_[0], abs=1e-4)
    assert found.loss == pytest.approx(hinge(peer), abs=1e-4)
    error = (peer.predict(data.x_test.flatten(1).numpy()) != data.y_test.numpy()).mean()
    assert found.error == pytest.approx(error, abs=2 / len(data.y_test))
    row, column = PLACES.index(place[1]), PLACES.index(place[0])
    assert backdrop(around).axes["map"].images[0].get_array()[row, column] == pytest.approx(hinge(peer), abs=1e-4)
    assert around.clean.loss == pytest.approx(hinge(svc()), abs=1e-4)


@pytest.mark.parametrize("place", [(0.2, 0.5), (0.5, 0.7), (0.45, 0.9)])
def test_the_arrow_is_the_slope_of_the_loss(around, place):
    found, h = effect(around, *place), 1e-4
    steps = [hinge(svc(1, np.add(place, step))) - hinge(svc(1, np.subtract(place, step))) for step in ((h, 0), (0, h))]
    slope = np.array(steps) / (2 * h)
    assert found.gradient == pytest.approx(slope, abs=0.02 * np.linalg.norm(slope))
    fig = render(around, found)
    for arrow, name in zip(parts(fig, "arrow"), ("plane", "map"), strict=True):
        start, end = backdrop(around).axes[name].transData.inverted().transform(arrow.get_path().vertices[[0, 2]])
        way = (end - start) / np.linalg.norm(end - start)
        assert way @ slope / np.linalg.norm(slope) > 0.98


def test_what_changed_sides_is_what_two_machines_answer_differently(around):
    x = np.random.default_rng(0).random((4000, 2))
    place = (0.0, 1.0)
    differs = svc().predict(x) != svc(1, place).predict(x)
    areas = [Path(area.get_xy()) for area in parts(render(around, effect(around, *place)), "changed")]
    assert differs.mean() > 0.05
    assert (sum(area.contains_points(x) for area in areas) != differs).mean() < 0.002


def test_the_poison_walks_up_the_loss_and_stays_on_the_square(around):
    start, end = effect(around, 0.5, 0.7), effect(around, 0.5, 0.7, STEPS)
    assert end.path[0] == pytest.approx(start.path[0]) and len(end.path) == STEPS + 1
    assert end.path.min() >= 0 and end.path.max() <= 1
    losses = [hinge(svc(1, place)) for place in end.path[::10]]
    assert losses[-1] > losses[0] + 0.02
    path = parts(render(around, end), "path")
    assert [line.get_xydata()[-1].tolist() for line in path] == [end.path[-1].tolist()] * 2
    assert "It came from (0.50, 0.70)" in describe(around, end)


def test_a_poison_far_inside_its_own_class_does_nothing_and_the_words_say_so(around):
    found = effect(around, 0.9, 0.0)
    assert found.machine.loss == pytest.approx(hinge(svc()), abs=1e-4)
    fig = render(around, found)
    assert not parts(fig, "arrow") and "changes nothing" in verdict(around, found)
    assert parts(fig, "error")[0].get_text().endswith(f"clean {100 * around.clean.error:.1f} %")


def test_no_arrow_where_other_points_hold_the_boundary(around):
    found = effect(around, 0.2, 0.75)
    assert abs(found.machine.loss - around.clean.loss) > 0.05
    assert not parts(render(around, found), "arrow")
    assert "other points hold the boundary" in verdict(around, found)


def test_the_arrow_is_the_slope_where_no_point_lies_on_the_margin(monkeypatch):
    """Only the middle of the interval that b is free in moves."""
    monkeypatch.setattr(module, "PLACES", (0.0, 1.0))
    place, h = (0.2, 0.75), 1e-4
    found = effect(scene.__wrapped__(1, 1.0), *place)
    ends = [
        hinge(svc(1, np.add(place, sign * step), cost=1.0))
        for step in ((h, 0), (0, h))
        for sign in map(np.array, (1, -1))
    ]
    assert (np.abs(svc(1, place, cost=1.0).dual_coef_) > 1 - 1e-6).all()
    slope = np.subtract(ends[::2], ends[1::2]) / (2 * h)
    assert np.linalg.norm(slope) > 0.01
    assert found.gradient == pytest.approx(slope, abs=0.02 * np.linalg.norm(slope))


def test_the_controls_redraw_and_a_new_place_starts_a_new_walk(monkeypatch):
    monkeypatch.setattr(module, "PLACES", (0.0, 0.25, 0.5, 0.7, 1.0))
    scene.cache_clear()
    try:
        explorer = poison_explorer()
        for name, value in (("step", 4), ("x_2", 1.0), ("step", 2), ("earlier", 1), ("cost", 1.0), ("label", 0)):
            before = explorer.png
            explorer.controls[name].value = value
            assert explorer.png != before
            assert explorer.controls["step"].value == (value if name == "step" else 0)
            assert 'role="alert"' not in explorer.children[2].value
        assert "2 of 22 training points" in explorer.caption and "1 earlier poison" in explorer.alt
        assert "labeled “upper moon”" in explorer.alt
    finally:
        scene.cache_clear()


def test_bad_arguments_are_refused(refuses, around):
    refuses(scene, {"label": 2}, "label is 2", "0, 1")
    refuses(scene, {"label": 1, "cost": -1.0}, "cost is -1.0")
    refuses(scene, {"label": 1, "earlier": 3}, "earlier is 3", "0, 1, 2, 4")
    refuses(effect, {"scene": around, "x_1": 0.5, "x_2": 0.5, "step": STEPS + 1}, f"step is {STEPS + 1}")
    refuses(effect, {"scene": around, "x_1": 1.5, "x_2": 0.5}, "x_c")

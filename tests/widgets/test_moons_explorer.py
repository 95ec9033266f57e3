"""The walk is the attack's own, and what the picture and its words say is what the model does."""

import os
from itertools import product

import numpy as np
import pytest
import torch
from matplotlib.lines import Line2D

from spai_lab.attacks.evasion import bim, fgsm, mim, pgd
from spai_lab.data import load
from spai_lab.training import reference
from spai_lab.widgets.moons_explorer import EPS, moons_explorer, picture_in_words, render, verdict
from spai_lab.widgets.moons_walk import POINTS, plane, walk, walk_from

NAMES = ("fgsm", "bim", "pgd", "mim")
NORMS = ("linf", "l2")
SETTINGS = [(point, *setting) for setting in product(NAMES, NORMS, EPS) for point in (0, 9, POINTS - 1)]
TRIED = SETTINGS if os.environ.get("SPAI_FULL") else SETTINGS[::5]


@pytest.fixture(scope="module")
def model():
    return reference("mlp", "moons").eval()


@pytest.fixture(scope="module")
def moons():
    return load("moons")


def answer(model, point) -> int:
    with torch.no_grad():
        return int(model(point.reshape(1, 2, 1, 1)).argmax())


def distance(a, b, norm) -> torch.Tensor:
    return (a - b).abs().amax(-1) if norm == "linf" else (a - b).square().sum(-1).sqrt()


def run(attack, model, x, y, norm, eps, seed):
    """The package's attack, without the hook."""
    settings = {"norm": norm, "eps": eps, "generator": torch.Generator().manual_seed(seed)}
    if attack == "fgsm":
        return fgsm(model, x, y, **settings)
    return {"bim": bim, "pgd": pgd, "mim": mim}[attack](model, x, y, steps=20 if attack == "pgd" else 10, **settings)


def artists(fig, gid):
    return [artist for artist in fig.findobj() if artist.get_gid() == gid]


@pytest.mark.parametrize("attack", NAMES)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("eps", [0.0, 0.08, 0.3, 0.95])
def test_walk_stays_in_the_ball_and_ends_where_the_attack_does(model, moons, attack, norm, eps):
    for place in (0, 7, 60):
        x, y = moons.x_test[place : place + 1], moons.y_test[place : place + 1]
        walked = walk(model, x, y, attack, norm, eps, seed=3)
        path = walked.path
        assert path.shape == ({"fgsm": 1, "bim": 10, "pgd": 20, "mim": 10}[attack] + 1, 2)
        assert path.min() >= 0 and path.max() <= 1
        assert distance(path, x.flatten(), norm).max() <= eps + 1e-6
        assert torch.equal(path[0], x.flatten()) is (attack != "pgd" or eps == 0)
        assert torch.equal(path[-1], run(attack, model, x, y, norm, eps, seed=3).flatten())
        assert walked.fooled == [answer(model, point) != int(y) for point in path]


@pytest.mark.parametrize("norm", NORMS)
def test_each_stop_is_where_a_shorter_attack_ends(model, moons, norm):
    x, y = moons.x_test[:1], moons.y_test[:1]
    path = walk(model, x, y, "bim", norm, 0.2).path
    for count in range(1, 11):
        shorter = bim(model, x, y, eps=0.2, norm=norm, steps=count, step_size=0.02)
        assert torch.allclose(path[count], shorter.flatten(), atol=1e-6)


def test_seed_decides_the_random_start(model, moons):
    x, y = moons.x_test[:1], moons.y_test[:1]
    first, again, other = (walk(model, x, y, "pgd", "l2", 0.2, seed=seed).path for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first[0], other[0])


def test_points_are_distinct_right_and_ordered_by_their_distance(model):
    square = plane()
    chosen = square.x[:POINTS].flatten(1)
    assert len(chosen.unique(dim=0)) == POINTS
    assert square.y[:POINTS].unique().tolist() == [0, 1]
    assert list(square.distance["l2"]) == sorted(square.distance["l2"])
    for point, y, gap in zip(chosen, square.y[:POINTS], square.distance["l2"], strict=True):
        angles = torch.linspace(0, 2 * torch.pi, 361)
        around = torch.stack([angles.cos(), angles.sin()], 1)
        within, beyond = ((point + (gap + shift) * around).reshape(-1, 2, 1, 1) for shift in (-2e-3, 2e-3))
        with torch.no_grad():
            assert (model(within).argmax(1) == y).all()
            assert (model(beyond).argmax(1) != y).any()


def test_words_are_true(model):
    square = plane()
    noise = 2 * torch.rand(10_000, 2, generator=torch.Generator().manual_seed(0)) - 1
    balls = {"linf": noise, "l2": noise[noise.norm(dim=1) <= 1]}
    said = {"does not reach": 0, "crosses": 0}
    for point, attack, norm, eps in TRIED:
        walked = walk_from(point, attack, norm, eps)
        y = int(square.y[point])
        wrong = [answer(model, place) != y for place in walked.path]
        for step in {0, walked.steps // 2, walked.steps}:
            alt = picture_in_words(walked, step)
            assert alt.endswith("is fooled." if wrong[step] else "is not fooled.")
            assert f"the model says {square.classes[answer(model, walked.path[step])]} (" in alt.partition("; after")[2]
        words = verdict(walked, walked.steps, square.distance[norm][point])
        for phrase in said:
            said[phrase] += phrase in words
        if "crosses" in words:
            assert f"at step {wrong.index(True)} of" in words
        assert any(wrong) == ("crosses" in words or "starts at a point that fools" in words)
        assert ("wanders back" in words) == (any(wrong) and not wrong[-1])
        if not any(wrong):
            inside = (square.x[point].flatten() + eps * balls[norm]).clamp(0, 1).reshape(-1, 2, 1, 1)
            with torch.no_grad():
                exists = bool((model(inside).argmax(1) != y).any())
            assert "ends just there" in words or exists == ("never finds" in words) != ("does not reach" in words)
    assert all(said.values()), said


def test_hatching_is_explained_where_the_ball_leaves_the_square():
    gap = plane().distance["linf"][POINTS - 1]
    assert "outside [0, 1]" in verdict(walk_from(POINTS - 1, "fgsm", "linf", 0.3), 1, gap)
    assert "outside [0, 1]" not in verdict(walk_from(POINTS - 1, "fgsm", "linf", 0.02), 1, gap)


def drawn(walked, step):
    """The picture, drawn; every line of it is finite, and the markers are where the walk is."""
    fig = render(walked, step)
    fig.canvas.draw()
    for line in fig.findobj(Line2D):
        assert np.isfinite(np.asarray(line.get_xydata(), dtype=float)).all()
    for panel, (role, place) in product(("square", "zoom"), (("clean", walked.x), ("adversarial", walked.path[step]))):
        (marker,) = artists(fig, f"{panel} {role}")
        assert np.allclose(marker.get_xydata(), place.numpy())
    (words,) = artists(fig, "answer")
    assert words.get_text().endswith(": fooled" if walked.fooled[step] else ": not fooled")
    return fig


def test_attacks_norms_and_eps_are_drawn():
    for setting in TRIED:
        walked = walk_from(*setting)
        drawn(walked, walked.steps)


@pytest.mark.parametrize("attack", NAMES)
def test_every_step_is_drawn(attack):
    walked = walk_from(5, attack, "l2", 0.1)
    for step in range(walked.steps + 1):
        drawn(walked, step)


@pytest.mark.parametrize("norm", NORMS)
def test_every_point_is_drawn_with_the_ball_around_it(norm):
    for point in range(POINTS):
        walked = walk_from(point, "mim", norm, 0.12)
        fig = drawn(walked, walked.steps)
        (square,) = artists(fig, "square ball")
        edges = square.get_path().transformed(square.get_patch_transform()).vertices
        reach = distance(torch.from_numpy(edges).float(), walked.x, "linf").max()
        assert float(reach) == pytest.approx(0.12, abs=1e-5)
        (zoom,) = artists(fig, "zoom ball")
        assert zoom.get_window_extent().width > 3 * square.get_window_extent().width


def test_regions_are_colored_as_the_model_answers(model):
    """Each pixel of the finished picture, at a grid of places, has its region's gray."""
    fig = render(walk_from(0, "fgsm", "linf", 0.0), 0)
    fig.canvas.draw()
    pixels = np.asarray(fig.canvas.buffer_rgba())
    box = np.array([0.65, 1.15, 4.75, 4.75]) * fig.dpi
    right = seen = 0
    for a, b in product(np.linspace(0.02, 0.98, 25), repeat=2):
        row, column = len(pixels) - 1 - int(box[1] + b * box[3]), int(box[0] + a * box[2])
        shade = int(pixels[row, column, 0])
        if shade in (0xF0, 0xC6):
            seen += 1
            right += (shade == 0xC6) == answer(model, torch.tensor([a, b], dtype=torch.float32))
    assert seen > 400 and right >= seen - 2


def test_controls_follow_the_attack_and_redraw():
    explorer = moons_explorer()
    assert set(explorer.controls) == {"attack", "norm", "point", "eps", "step"}
    play = next(child for child in explorer.children[1].children if type(child).__name__ == "Play")
    step = explorer.controls["step"]
    for name, count in (("pgd", 20), ("fgsm", 1), ("mim", 10)):
        explorer.controls["attack"].value = name
        assert step.max == step.value == play.max == count
        assert f"after step {count} " in explorer.alt
    before = explorer.png
    step.value = 3
    assert explorer.png != before and "after step 3 " in explorer.alt
    before = explorer.png
    explorer.controls["norm"].value = "l2"
    assert explorer.png != before and "circle" in explorer.alt
    for name, value in (("eps", 0.3), ("point", 2)):
        before = explorer.caption
        explorer.controls[name].value = value
        assert explorer.caption != before and step.value == 3
    assert 'role="alert"' not in explorer.children[2].value


GOOD = {"attack": "bim", "norm": "linf", "eps": 0.1, "seed": 0}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"attack": "cw"}, ("attack", "'cw'", "fgsm")),
        ({"norm": "l1"}, ("norm", "'l1'", "linf")),
        ({"eps": -0.1}, ("eps", "-0.1")),
        ({"eps": float("nan")}, ("eps", "nan")),
        ({"seed": -1}, ("seed", "-1")),
        ({"x": torch.zeros(2, 2, 1, 1)}, ("x", "one point", "(2, 2, 1, 1)")),
        ({"x": torch.zeros(1, 1, 28, 28)}, ("x", "one point")),
        ({"x": torch.full((1, 2, 1, 1), 2.0)}, ("x", "[0, 1]")),
        ({"y": torch.tensor([2])}, ("y",)),
    ],
)
def test_bad_arguments_of_walk_are_named(model, refuses, changed, words):
    x, y = torch.full((1, 2, 1, 1), 0.5), torch.tensor([0])
    refuses(walk, {"model": model, "x": x, "y": y, **GOOD, **changed}, *words)


def test_bad_points_and_steps_are_named(refuses):
    setting = {"attack": "bim", "norm": "linf", "eps": 0.1}
    refuses(walk_from, {"point": POINTS, **setting}, "point", str(POINTS), "0 to")
    walked = walk_from(0, **setting)
    refuses(render, {"walk": walked, "step": 11}, "step", "11", "0 to 10")
    refuses(verdict, {"walk": walked, "step": -1, "distance": 0.1}, "step", "-1")

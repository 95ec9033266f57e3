"""The robust boundary: rates are counted, balls are cut where the network errs, and words follow the picture."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from spai_lab.attacks.evasion import pgd
from spai_lab.data import load
from spai_lab.style import COLORS, MARKERS
from spai_lab.widgets.robust_boundary import (
    APART,
    BALLS,
    EPS,
    centers,
    contested,
    describe,
    network,
    pair,
    render,
    robust_boundary,
    verdict,
)


def artists(fig, gid):
    return [artist for artist in fig.findobj() if artist.get_gid() == gid]


@pytest.fixture(scope="module")
def moons():
    return load("moons")


@pytest.fixture(scope="module")
def explorer():
    return robust_boundary()


def answers(model, points) -> torch.Tensor:
    with torch.no_grad():
        return model(points.reshape(-1, 2, 1, 1)).argmax(1)


def test_every_network_is_in_evaluation_mode_and_reads_the_moons(moons):
    for eps in EPS:
        model = network(eps)
        assert not model.training
        assert (answers(model, moons.x_val) == moons.y_val).double().mean() > 0.8


@pytest.mark.parametrize("eps", [0.05, 0.15])
def test_accuracies_are_counted_and_written(moons, eps):
    fig = render(eps)
    for name, trained_at in (("natural", 0.0), ("robust", eps)):
        model, found = network(trained_at), pair(eps)[name]
        clean = int((answers(model, moons.x_test) == moons.y_test).sum())
        x_adv = pgd(model, moons.x_test, moons.y_test, eps=eps, generator=torch.Generator().manual_seed(0))
        robust = int((answers(model, x_adv) == moons.y_test).sum())
        assert (found.clean.hits, found.robust.hits, found.clean.trials) == (clean, robust, 600)
        (words,) = artists(fig, f"{name} words")
        assert words.get_text() == f"accuracy {clean / 6:.1f} %, under PGD {robust / 6:.1f} % (n = 600)"


def test_adversarial_training_keeps_more_under_the_attack():
    for eps in EPS[3:]:
        both = pair(eps)
        assert both["robust"].robust.interval[0] > both["natural"].robust.interval[1]
        assert both["robust"].clean.value < both["natural"].clean.value


def test_at_eps_zero_both_networks_are_one():
    natural, robust = pair(0.0).values()
    assert natural is robust and natural.clean == natural.robust and not natural.cut.any()


def test_centers_keep_their_distance():
    points, y = centers()
    assert points.shape == (BALLS, 2) and y.unique().tolist() == [0, 1]
    apart = torch.pdist(points, p=float("inf"))
    assert apart.min() > APART


@pytest.mark.parametrize("eps", [0.0, 0.05, 0.15])
@pytest.mark.parametrize("name", ["natural", "robust"])
def test_balls_are_cut_where_random_points_are_misread(eps, name):
    """Random points may miss a sliver that the lattice finds, never the other way round but by a sliver."""
    found, (points, y) = pair(eps)[name], centers()
    generator = torch.Generator().manual_seed(1)
    inside = (points[:, None] + eps * (2 * torch.rand(BALLS, 5_000, 2, generator=generator) - 1)).clamp(0, 1)
    share = (answers(found.model, inside).view(BALLS, -1) != y[:, None]).double().mean(1)
    assert found.cut[share > 0.002].all()
    if eps:
        assert share[~found.cut].max() <= 0.002 and (share[found.cut] > 0).sum() >= int(found.cut.sum()) - 1


@pytest.mark.parametrize("eps", [0.0, 0.08, 0.15])
def test_it_draws_a_square_for_each_ball_in_color_and_marker(eps):
    fig = render(eps)
    for name, found in pair(eps).items():
        squares = artists(fig, f"{name} ball")
        assert len(squares) == BALLS
        for square, point, cut in zip(squares, centers()[0].numpy(), found.cut.tolist(), strict=True):
            assert square.get_width() == square.get_height() == pytest.approx(2 * eps)
            assert np.array(square.get_center()) == pytest.approx(point, abs=1e-6)
            assert to_hex(square.get_edgecolor()) == COLORS["adversarial" if cut else "clean"]
        for role, expected in (("adversarial", int(found.cut.sum())), ("clean", int((~found.cut).sum()))):
            marks = artists(fig, f"{name} {role}")
            assert len(marks) == expected and all(mark.get_marker() == MARKERS[role] for mark in marks)
    fig.canvas.draw()


def test_the_boundary_is_where_the_logits_meet():
    for name, found in pair(0.1).items():
        (patch,) = artists(render(0.1), {"natural": "compared", "robust": "robust boundary"}[name])
        vertices = torch.from_numpy(patch.get_path().vertices).float()
        ahead, behind = (answers(found.model, (vertices + shift).clamp(0, 1)) for shift in (0.012, -0.012))
        left, right = (
            answers(found.model, (vertices + torch.tensor([shift, -shift])).clamp(0, 1)) for shift in (0.012, -0.012)
        )
        assert ((ahead != behind) | (left != right)).double().mean() > 0.95


def test_contested_points_are_those_whose_balls_meet(moons):
    points, y = moons.x_test.flatten(1).numpy(), moons.y_test.numpy()
    for eps in EPS:
        hits = sum(
            (np.abs(points[y != label] - point).max(1) < 2 * eps).any() for point, label in zip(points, y, strict=True)
        )
        assert contested(eps).hits == hits


def test_words_follow_the_picture():
    assert "the same" in verdict(0.0)
    for eps in EPS[1:]:
        natural, robust = pair(eps).values()
        said = verdict(eps)
        assert f"naturally trained MLP {natural.robust}" in said and f"one {robust.robust};" in said
        assert f"boundary cuts {int(natural.cut.sum())}, the other {int(robust.cut.sum())}" in said
        assert f"squares of radius {eps:g}" in describe(eps)


def test_the_slider_redraws(explorer):
    for eps in (0.0, 0.15, 0.05):
        before = explorer.png, explorer.alt, explorer.caption
        explorer.controls["eps"].value = eps
        assert all(new != old for new, old in zip((explorer.png, explorer.alt, explorer.caption), before, strict=True))
        assert explorer.caption == verdict(eps) and explorer.alt == describe(eps)
    assert 'role="alert"' not in explorer.children[2].value


@pytest.mark.parametrize("function", [render, verdict, describe])
def test_an_eps_without_a_network_is_refused(refuses, function):
    refuses(function, {"eps": 0.07}, "eps is 0.07", "0.05, 0.08")

"""The standings explorer: shares are counted image by image, the worst attack counts, and the order turns with eps."""

import pytest
import torch

from spai_lab.arena.opponents import opponent
from spai_lab.arena.scene import scene_of
from spai_lab.arena.standings import ALL, ATTACKS, DEFENSES, EPS, IMAGES, Standings, standings
from spai_lab.attacks.evasion import fgsm
from spai_lab.metrics import Rate
from spai_lab.widgets.standings_explorer import backdrop, describe, render, standings_explorer, verdict


def part(fig, gid):
    """The part of a figure with this name."""
    return next(artist for artist in fig.findobj() if artist.get_gid() == gid)


def made(**rows):
    """Standings of ten images at two radii, all of them standing but for the counts that are given by defense."""
    full = torch.ones(2, 10, dtype=torch.bool)
    found = {(defense, attack): full.clone() for defense in DEFENSES for attack in ATTACKS}
    for defense, (attack, fallen) in rows.items():
        found[defense.replace("_", " "), attack][1, fallen] = False
    return Standings("digits", (0.0, 0.1), found)


@pytest.fixture(scope="module")
def table():
    return standings("digits")


def test_after_all_attacks_an_image_stands_only_if_it_stands_after_each():
    table = made(distillation=("PGD", [0, 1, 2]))
    table.standing["distillation", "FGSM"][1, [2, 3]] = False
    assert table.left("distillation", "PGD", 0.1) == Rate(7, 10)
    assert table.left("distillation", "FGSM", 0.1) == Rate(8, 10)
    assert table.left("distillation", ALL, 0.1) == Rate(6, 10)
    assert table.left("distillation", ALL, 0.0) == Rate(10, 10)
    assert table.worst("distillation", 0.1) == "PGD"


def test_equal_shares_have_equal_ranks():
    table = made(no_defense=("PGD", [0]), distillation=("PGD", [1]))
    assert [(rank, name) for rank, name, _ in table.ranking(ALL, 0.1)] == [
        (1, "thermometer code"),
        (1, "one bit a pixel"),
        (1, "adversarial training"),
        (4, "no defense"),
        (4, "distillation"),
    ]
    assert table.leaders("FGSM", 0.1) == DEFENSES


def test_the_shares_are_those_of_the_attack_itself(table):
    scene = scene_of("digits", images=IMAGES, seed=0)
    model = opponent("no defense", "digits").model
    right = model(scene.x).argmax(1) == scene.y
    assert table.left("no defense", "FGSM", 0.0).hits == int(right.sum())
    with torch.no_grad():
        x_adv = fgsm(model, scene.x, scene.y, eps=EPS[1])
    assert table.left("no defense", "FGSM", EPS[1]).hits == int((right & (model(x_adv).argmax(1) == scene.y)).sum())


@pytest.mark.parametrize("defense", DEFENSES)
def test_what_fell_stays_fallen(table, defense):
    for attack in (ALL, *ATTACKS):
        counts = [table.left(defense, attack, eps).hits for eps in EPS]
        assert counts == sorted(counts, reverse=True)
        assert table.left(defense, ALL, EPS[-1]).hits <= counts[-1]


def test_the_worst_attack_turns_the_order_and_so_does_eps(table):
    assert set(table.leaders("PGD", 0.2)).isdisjoint(table.leaders(ALL, 0.2))
    left = [eps for eps in EPS[1:] if table.ranking(ALL, eps)[0][2].hits]
    assert len({table.leaders(ALL, eps) for eps in left}) > 1
    assert "the worst attack counts" in verdict(table, "PGD", 0.2)
    assert "another leads" in verdict(table, ALL, 0.2)
    assert "Nothing has been moved" in verdict(table, ALL, 0.0)
    assert "nothing is left" in verdict(table, ALL, EPS[-1])


def test_a_lead_that_could_be_chance_is_called_so():
    close, far = made(no_defense=("PGD", [0])), made()
    for defense in DEFENSES[1:]:
        close.standing[defense, "PGD"][1, :2] = far.standing[defense, "PGD"][1, :9] = False
    assert "no defense leads with" in verdict(close, ALL, 0.1)
    assert "could be chance" in verdict(close, ALL, 0.1)
    assert "could be chance" not in verdict(far, ALL, 0.1)


@pytest.mark.parametrize("attack", [ALL, "FGSM"])
def test_the_picture_shows_each_share_in_its_rank(table, attack):
    for eps in (EPS[0], EPS[4], EPS[-1]):
        fig = render(table, attack, eps)
        assert list(part(fig, "eps").get_xdata()) == [eps, eps]
        for row, (rank, name, rate) in enumerate(table.ranking(attack, eps)):
            assert part(fig, f"rank {row}").get_text() == f"{rank}. {name}"
            assert part(fig, f"share {row}").get_text() == f"{100 * rate.value:.0f} %"
            assert list(part(fig, f"mark {row}").get_xdata()) == [rate.value]
            assert f"{rank}. {name}, {100 * rate.value:.0f} %" in describe(table, attack, eps)


def test_curves_can_be_told_apart_without_color(table):
    lines = backdrop(table, ALL).axes["curves"].lines
    assert len({(line.get_linestyle(), line.get_marker()) for line in lines}) == len(DEFENSES)


def test_bad_values_are_refused(table):
    with pytest.raises(ValueError, match=r"eps is 0\.07; accepted: a radius"):
        render(table, ALL, 0.07)
    with pytest.raises(ValueError, match="attack is 'magic'"):
        render(table, "magic", 0.1)
    with pytest.raises(ValueError, match="dataset is 'faces'"):
        standings("faces")


def test_the_widget_follows_its_controls():
    widget = standings_explorer("digits")
    seen = {widget.alt}
    widget.controls["eps"].value = 0.1
    seen.add(widget.alt)
    widget.controls["attack"].value = "PGD"
    seen.add(widget.alt)
    assert len(seen) == 3
    assert not widget.failed

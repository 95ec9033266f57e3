"""The distillation explorer: what vanishes is counted in float32, and what stays is found by the view."""

import pytest
import torch

from spai_lab.attacks.evasion import pgd
from spai_lab.checks import unsuspecting
from spai_lab.data import load
from spai_lab.defenses.evasion.distillation import distillation_view
from spai_lab.metrics import fooled_rate
from spai_lab.threat import input_gradient
from spai_lab.widgets.distillation_explorer import (
    EPS,
    STEPS,
    TEMPERATURES,
    describe,
    distillation_explorer,
    distilled,
    render,
    seeded,
    verdict,
)


def parts(fig):
    return {artist.get_gid(): artist for artist in fig.findobj() if artist.get_gid()}


@pytest.fixture(scope="module")
def moons():
    return load("moons")


def test_the_temperature_takes_the_gradient_away_and_not_the_adversarial_points(moons):
    cold, hot = distilled(1), distilled(100)
    assert cold.vanished.value < 0.2 < 0.9 < hot.vanished.value
    assert hot.by_loss.value < cold.by_loss.value - 0.3
    assert hot.by_view.value > hot.by_loss.value + 0.3
    assert min(cold.right.value, hot.right.value) > 0.95


def test_the_rates_are_those_of_the_attacks(moons):
    found = distilled(20)
    x, y = moons.x_test, moons.y_test
    with unsuspecting():
        zero = (input_gradient(found.student, x, y).flatten(1).abs().amax(1) == 0).sum()
        view = distillation_view(found.student, temperature=20.0)
        x_adv = pgd(view, x, y, eps=EPS, steps=STEPS, generator=seeded())
    assert found.vanished.hits == int(zero)
    assert found.by_view == fooled_rate(found.student, x_adv, y)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_it_draws_every_temperature(temperature):
    found = distilled(temperature)
    named = parts(render(found))
    assert named["title"].get_text() == f"student of T = {temperature}"
    for name in ("vanished", "by_loss", "by_view"):
        assert named[name].get_xdata()[0] == pytest.approx(getattr(found, name).value)
        assert f"{100 * getattr(found, name).value:.0f}" in named[f"{name} words"].get_text()
    for words in (verdict(found), describe(found)):
        assert "nan" not in words and words.endswith(".")


def test_moving_the_slider_changes_picture_and_caption():
    explorer = distillation_explorer()
    before = explorer.png
    explorer.controls["temperature"].value = 100
    assert explorer.png != before and explorer.caption == verdict(distilled(100))
    assert 'role="alert"' not in explorer.children[2].value


def test_bad_temperatures_are_refused(refuses):
    refuses(distilled, {"temperature": 3}, "temperature", "3", "1, 2, 5")


def test_the_slopes_are_zero_where_the_softmax_is_saturated():
    found = distilled(100)
    assert (found.slopes == 0).double().mean() > 0.8
    assert torch.isfinite(found.slopes).all()

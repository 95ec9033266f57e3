"""The accounting explorer: what is drawn and said is what dp-accounting and the published figures say."""

import math

import numpy as np
import pytest

from spai_lab.privacy.accounting import dp_sgd_guarantee
from spai_lab.widgets.accounting_explorer import (
    ACCOUNTANTS,
    BATCHES,
    DELTA,
    EPOCHS,
    LOWEST,
    NOISES,
    RECORDS,
    accounting_explorer,
    at,
    describe,
    number,
    render,
    sureness,
    training,
    verdict,
)

SETTINGS = [(256, 1.1, 60), (64, 8.0, 1), (4096, 0.6, 100)]
every = pytest.mark.parametrize(("batch", "noise_multiplier", "epochs"), SETTINGS)


def parts(fig):
    return {artist.get_gid(): artist for artist in fig.findobj() if artist.get_gid()}


@pytest.mark.parametrize(
    ("noise_multiplier", "epochs", "older", "tighter"), [(1.1, 60, 3.009, 2.597), (1.3, 15, 1.192, 0.954)]
)
def test_it_gives_the_published_epsilon(noise_multiplier, epochs, older, tighter):
    _, _, spent = at(256, noise_multiplier, epochs)
    assert spent["mironov"] == pytest.approx(older, abs=1e-3)
    assert spent["canonne"] == pytest.approx(tighter, abs=1e-3)


@pytest.mark.oracle
@pytest.mark.parametrize(("batch", "noise_multiplier", "epochs"), [(256, 1.1, 60), (64, 8.0, 1), (4096, 1.0, 100)])
def test_it_agrees_with_dp_accounting(batch, noise_multiplier, epochs):
    """Its orders are others, and so is its minimum, by less than 1 % here; for less noise it drops the best orders."""
    dp = pytest.importorskip("dp_accounting")
    _, steps, spent = at(batch, noise_multiplier, epochs)
    accountant = dp.rdp.RdpAccountant()
    event = dp.PoissonSampledDpEvent(batch / RECORDS, dp.GaussianDpEvent(noise_multiplier))
    accountant.compose(event, steps)
    assert spent["canonne"] == pytest.approx(accountant.get_epsilon(DELTA), rel=0.01)


@every
def test_every_proof_keeps_within_delta_and_better_ones_say_less(batch, noise_multiplier, epochs):
    found, steps, spent = at(batch, noise_multiplier, epochs)
    for name in ("basic", "advanced"):
        assert found.composed(name, steps).delta_dp == pytest.approx(DELTA)
        assert found.composed(name, steps).epsilon == spent[name]
    assert spent["canonne"] < spent["mironov"] < min(spent["basic"], spent["advanced"])
    told = dp_sgd_guarantee(
        sampling_rate=batch / RECORDS, noise_multiplier=noise_multiplier, steps=steps, delta_dp=DELTA
    )
    assert spent["canonne"] == told.epsilon and told.adjacency == "add/remove"


def test_an_epoch_draws_each_record_once_on_average():
    for batch in BATCHES:
        found = training(batch, 1.0)
        assert 0 <= 1 - found.steps(1) * found.sampling_rate < found.sampling_rate
        assert found.drawn[0] == 1 and found.drawn[-1] == found.steps(EPOCHS[-1])


def test_curves_rise():
    for curve in training(256, 1.1).curves.values():
        assert (np.diff(curve) > -1e-12).all() and (curve > LOWEST).all()


@every
def test_the_picture_shows_the_curves_the_points_and_the_numbers(batch, noise_multiplier, epochs):
    found, steps, spent = at(batch, noise_multiplier, epochs)
    named = parts(render(batch, noise_multiplier, epochs))
    for name in ACCOUNTANTS:
        assert list(named[name].get_xdata()) == list(found.drawn)
        assert list(named[name].get_ydata()) == list(found.curves[name])
        assert named[f"{name} now"].get_xydata()[0] == pytest.approx([steps, spent[name]])
        assert named[f"{name} spent"].get_text() == number(spent[name])
    assert list(named["now"].get_xdata()) == [steps, steps]
    assert f"{steps:,} steps" in named["title"].get_text()
    assert sureness(spent["canonne"]) in named["belief"].get_text()


@every
def test_words_say_epsilon_with_delta_and_neighbors(batch, noise_multiplier, epochs):
    _, steps, spent = at(batch, noise_multiplier, epochs)
    said = verdict(batch, noise_multiplier, epochs)
    assert f"epsilon {number(spent['canonne'])} at delta 1e-05, for one record added or removed" in said
    assert f"{steps:,} steps" in said and ("next to nothing" in said) == (spent["canonne"] > 8)
    for name, value in spent.items():
        assert number(value) in said and f"{ACCOUNTANTS[name]} {number(value)}" in describe(
            batch, noise_multiplier, epochs
        )
    for words in (said, describe(batch, noise_multiplier, epochs)):
        assert words.endswith(".") and "nan" not in words and "1 epochs" not in words


def test_the_belief_is_that_of_bayes():
    likely, unlikely = math.exp(2.0), 1.0
    assert sureness(2.0) == f"{100 * likely / (likely + unlikely):.1f} %"


def test_controls_redraw():
    explorer = accounting_explorer()
    for name, values in (("batch", BATCHES), ("noise_multiplier", NOISES), ("epochs", EPOCHS)):
        control = explorer.controls[name]
        assert tuple(value for _, value in control.options) == values
        for value in (values[0], values[-1]):
            before = explorer.png, explorer.alt, explorer.caption
            control.value = value
            now = explorer.png, explorer.alt, explorer.caption
            assert all(new != old for new, old in zip(now, before, strict=True))
    assert explorer.caption == verdict(BATCHES[-1], NOISES[-1], EPOCHS[-1])
    assert 'role="alert"' not in explorer.children[2].value


def test_bad_arguments_are_refused(refuses):
    good = {"batch": 256, "noise_multiplier": 1.1, "epochs": 60}
    for function in (render, verdict, describe):
        refuses(function, good | {"batch": 0.5}, "batch is 0.5", "whole number")
        refuses(function, good | {"batch": 8}, "batch is 8", "64 to 4096")
        refuses(function, good | {"noise_multiplier": 0.0}, "noise_multiplier is 0.0", "0.6 to 8")
        refuses(function, good | {"epochs": 101}, "epochs is 101", "1 to 100")
        refuses(function, good | {"epochs": 0}, "epochs is 0", "at least 1")

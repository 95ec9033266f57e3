"""The noise explorer: curves, bounds and words are those of the mechanisms and of scipy's distributions."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from spai_lab.privacy.mechanisms import (
    estimated_frequencies,
    gaussian_mechanism,
    laplace_mechanism,
    randomized_response,
)
from spai_lab.widgets.noise_explorer import (
    COUNTS,
    DELTAS,
    EPSILONS,
    GROUPS,
    MECHANISMS,
    PEOPLE,
    describe,
    noise_explorer,
    release,
    render,
    verdict,
)

FALSE_ALARM = 1e-6
every = pytest.mark.parametrize("mechanism", MECHANISMS)


def parts(fig):
    return {artist.get_gid(): artist for artist in fig.findobj() if artist.get_gid()}


def distribution(found, truth):
    return (stats.laplace if found.mechanism == "laplace" else stats.norm)(truth, found.scale)


@pytest.mark.parametrize("mechanism", ["laplace", "gaussian"])
@pytest.mark.parametrize("epsilon", [0.3, 2.0])
def test_counts_have_the_noise_that_the_mechanism_adds(mechanism, epsilon):
    found, generator = release(mechanism, epsilon, 1e-3), torch.Generator().manual_seed(0)
    setting = {"sensitivity": 1, "epsilon": epsilon, "generator": generator}
    value = torch.full((4000,), 10.0, dtype=torch.float64)
    drawn = (
        laplace_mechanism(value, **setting)
        if mechanism == "laplace"
        else gaussian_mechanism(value, delta_dp=1e-3, **setting)
    )
    assert stats.kstest(drawn.numpy(), distribution(found, 10).cdf).pvalue > FALSE_ALARM


def test_answers_are_those_of_randomized_response():
    found, generator = release("response", 1.0, 0.01), torch.Generator().manual_seed(0)
    for group, truth in zip(GROUPS["response"], (0, 1), strict=True):
        said = randomized_response(torch.full((4000,), truth), 2, epsilon=1.0, generator=generator)
        yes = float(found.likelihood(np.array([1.0]), group)[0])
        assert stats.binomtest(int(said.sum()), 4000, yes).pvalue > FALSE_ALARM


@pytest.mark.parametrize("mechanism", ["laplace", "gaussian"])
@pytest.mark.parametrize("epsilon", EPSILONS)
def test_densities_are_relative_to_their_peak_and_the_ratio_is_theirs(mechanism, epsilon):
    found = release(mechanism, epsilon, 0.01)
    first, second = (distribution(found, truth) for truth in COUNTS)
    for group, truth, density in zip(GROUPS[mechanism], COUNTS, (first, second), strict=True):
        assert truth in found.outputs
        assert found.likelihood(found.outputs, group) == pytest.approx(density.pdf(found.outputs) / density.pdf(truth))
    expected = second.logpdf(found.outputs) - first.logpdf(found.outputs)
    assert found.log_ratio(found.outputs) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_pure_mechanisms_reach_the_bound_and_stay_within(epsilon):
    for mechanism in ("laplace", "response"):
        found = release(mechanism, epsilon, 0.01)
        log_ratio = found.log_ratio(found.outputs)
        assert log_ratio.max() == pytest.approx(epsilon) and log_ratio.min() == pytest.approx(-epsilon)
        assert found.margins is None and found.broken == 0


@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("delta_dp", DELTAS)
def test_the_gaussian_breaks_the_bound_beyond_the_margins_by_delta(epsilon, delta_dp):
    found = release("gaussian", epsilon, delta_dp)
    assert found.log_ratio(np.array(found.margins)) == pytest.approx([-epsilon, epsilon])
    without, within = (distribution(found, truth).sf(found.margins[1]) for truth in COUNTS)
    assert found.broken == pytest.approx(within, rel=1e-6)
    assert within - math.exp(epsilon) * without == pytest.approx(delta_dp, rel=1e-3)


def test_the_belief_is_that_of_bayes():
    found = release("response", 1.4, 0.01)
    yes = np.array([1.0])
    likelihoods = [found.likelihood(yes, group)[0] for group in ("private", "clean")]
    assert found.belief == pytest.approx(likelihoods[0] / sum(likelihoods))


def test_the_error_of_a_count_is_a_quantile():
    for mechanism in ("laplace", "gaussian"):
        found = release(mechanism, 0.7, 1e-4)
        assert found.error == pytest.approx(distribution(found, 0).ppf(0.975), rel=1e-3)


def test_the_error_of_a_share_is_that_of_many_surveys():
    """The standard deviation of 2,000 surveys is known to 1 / sqrt(4,000) = 1.6 %; five times that is allowed."""
    found, generator = release("response", 1.0, 0.01), torch.Generator().manual_seed(0)
    truth = (torch.arange(PEOPLE) < 300).long().expand(2000, PEOPLE)
    said = randomized_response(truth.reshape(-1), 2, epsilon=1.0, generator=generator).view(2000, PEOPLE)
    estimates = torch.stack([estimated_frequencies(survey, 2, 1.0)[1] for survey in said])
    assert 1.96 * estimates.std().item() == pytest.approx(found.error, rel=0.08)


@every
@pytest.mark.parametrize("epsilon", [0.1, 1.0, 5.0])
def test_the_picture_shows_both_neighbors_the_ratio_and_the_bound(mechanism, epsilon):
    found = release(mechanism, epsilon, 0.01)
    fig = render(mechanism, epsilon, 0.01)
    named = parts(fig)
    for group in GROUPS[mechanism]:
        assert named[group].get_ydata() == pytest.approx(found.likelihood(found.outputs, group))
    assert named["ratio"].get_ydata() == pytest.approx(found.log_ratio(found.outputs))
    assert named["allowed"].get_y() == -epsilon and named["allowed"].get_height() == 2 * epsilon
    assert f"{math.exp(epsilon):.3g}" in named["bound"].get_text()
    assert f"± {(1 if found.counts else 100) * found.error:.3g}" in named["noise"].get_text()
    sides = [artist for artist in fig.findobj() if artist.get_gid() == "broken"]
    expected = [] if found.margins is None else [(-1.5, found.margins[0]), (22.5, found.margins[1])]
    for side, ends in zip(sides, expected, strict=True):
        assert (side.get_x(), side.get_x() + side.get_width()) == pytest.approx(ends)


@every
def test_words_follow_the_numbers(mechanism):
    for epsilon in EPSILONS:
        found, said = release(mechanism, epsilon, 1e-3), verdict(mechanism, epsilon, 1e-3)
        assert f"{math.exp(epsilon):.3g} times" in said and f"at most {100 * found.belief:.1f} %" in said
        assert ("delta 0.001" in said) == (mechanism == "gaussian")
        assert ("one answer replaced" in said) == (mechanism == "response")
        for words in (said, describe(mechanism, epsilon, 1e-3)):
            assert words.endswith(".") and "nan" not in words
            assert words.startswith(f"{MECHANISMS[mechanism].capitalize()} at epsilon {epsilon:g}")


def test_controls_redraw_and_delta_is_for_the_gaussian_alone():
    explorer = noise_explorer()
    for mechanism in MECHANISMS:
        explorer.controls["mechanism"].value = mechanism
        assert explorer.controls["delta_dp"].disabled == (mechanism != "gaussian")
        for epsilon in (0.1, 5.0):
            before = explorer.png, explorer.alt, explorer.caption
            explorer.controls["epsilon"].value = epsilon
            now = explorer.png, explorer.alt, explorer.caption
            assert all(new != old for new, old in zip(now, before, strict=True))
    explorer.controls["mechanism"].value = "gaussian"
    before = explorer.png
    explorer.controls["delta_dp"].value = 1e-6
    assert explorer.png != before and explorer.caption == verdict("gaussian", 5.0, 1e-6)
    assert 'role="alert"' not in explorer.children[2].value


def test_bad_arguments_are_refused(refuses):
    good = {"mechanism": "laplace", "epsilon": 1.0, "delta_dp": 0.01}
    for function in (render, verdict, describe):
        refuses(function, good | {"mechanism": "salt"}, "mechanism is 'salt'", "laplace")
        refuses(function, good | {"epsilon": 0.0}, "epsilon is 0.0", "0.1 to 5")
        refuses(function, good | {"delta_dp": 0.0}, "delta_dp is 0.0", "above 0")

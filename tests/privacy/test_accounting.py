"""Accounting against dp-accounting, Opacus, quadrature, closed forms and the published figures."""

import math
from dataclasses import replace
from fractions import Fraction

import dp_accounting
import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution as pld
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants.analysis import rdp as opacus
from scipy.integrate import quad
from scipy.stats import norm

from spai_lab.privacy.accounting import (
    CONVERSIONS,
    ORDERS,
    alternating,
    dp_sgd_guarantee,
    epsilon_curve,
    epsilon_of_rdp,
    noise_for,
    rdp_gaussian,
    rdp_guarantee,
    rdp_laplace,
    rdp_sampled_gaussian,
)
from spai_lab.privacy.composition import (
    advanced_composition,
    amplified_by_sampling,
    basic_composition,
    gaussian_guarantee,
)
from spai_lab.privacy.guarantee import ADD_REMOVE, REPLACE, Guarantee

rates = st.floats(1e-4, 0.9)
noises = st.floats(0.5, 8.0)
SETTINGS = [(256 / 60000, 1.1), (0.01, 1.1), (0.01, 4.0), (0.001, 0.7), (0.1, 2.0)]


def optimistic(q, sigma, steps, delta_dp, **changes):
    """Epsilon by dp-accounting's privacy loss distribution, rounded down: no valid accountant is below it."""
    loss = pld.from_gaussian_mechanism(sigma, sampling_prob=q, pessimistic_estimate=False, **changes)
    return loss.self_compose(steps).get_epsilon_for_delta(delta_dp)


def by_quadrature(q, sigma, alpha):
    r"""$\varepsilon(\alpha)$ from $A_\alpha - 1 = E[(1 + q (r - 1))^\alpha - 1 - \alpha q (r - 1)]$, all above 0."""

    def integrand(z):
        grown = q * math.expm1((2 * z - 1) / (2 * sigma**2))
        log_density = norm.logpdf(z, scale=sigma)
        log_power = alpha * math.log1p(grown)
        if log_power > 1:
            return math.exp(log_density + log_power) - math.exp(log_density) * (1 + alpha * grown)
        return math.exp(log_density) * (math.expm1(log_power) - alpha * grown)

    places = [0.0, 0.5 + sigma**2 * math.log(1 / q - 1), alpha]
    reach = (min(places) - 12 * sigma, max(places) + 12 * sigma)
    return math.log1p(quad(integrand, *reach, points=sorted(places), limit=500, epsabs=0)[0]) / (alpha - 1)


# --- one step ---------------------------------------------------------------------------------------------------------


@pytest.mark.oracle
@pytest.mark.parametrize(("q", "sigma"), SETTINGS)
def test_opacus_has_the_same_curve(q, sigma):
    theirs = opacus.compute_rdp(q=q, noise_multiplier=sigma, steps=1, orders=ORDERS[ORDERS < 200].tolist())
    assert rdp_sampled_gaussian(q, sigma, ORDERS[ORDERS < 200]) == pytest.approx(theirs, rel=1e-6, abs=1e-11)


@pytest.mark.oracle
@pytest.mark.parametrize(("q", "sigma"), SETTINGS)
def test_dp_accounting_has_the_same_curve_and_at_low_fractional_orders_a_looser_one(q, sigma):
    """It adds the terms of the series without their signs, which is safe and, at low orders, above the truth."""
    accountant = RdpAccountant(orders=ORDERS.tolist())
    accountant.compose(dp_accounting.PoissonSampledDpEvent(q, dp_accounting.GaussianDpEvent(sigma)))
    ours, theirs = rdp_sampled_gaussian(q, sigma), np.array(accountant._rdp)
    whole = np.round(ORDERS) == ORDERS
    assert ours[whole] == pytest.approx(theirs[whole], rel=1e-9, abs=1e-14)
    assert (ours <= theirs * (1 + 1e-6) + 1e-13).all()
    high = ORDERS > 8
    assert ours[high] == pytest.approx(theirs[high], rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("alpha", [1.01, 1.1, 1.5, 2.0, 2.5, 5.3, 12.0])
@pytest.mark.parametrize(("q", "sigma"), [(0.01, 1.1), (0.1, 0.5), (0.3, 2.0), (0.6, 1.0)])
def test_quadrature_gives_the_same_even_where_the_series_hardly_falls(q, sigma, alpha):
    ours = rdp_sampled_gaussian(q, sigma, np.array([alpha]))[0]
    assert ours == pytest.approx(by_quadrature(q, sigma, alpha), rel=1e-7, abs=1e-13)


def test_if_everybody_is_drawn_it_is_the_gaussian_mechanism_and_if_nobody_nothing_is_told():
    assert rdp_sampled_gaussian(1.0, 1.7) == pytest.approx(ORDERS / (2 * 1.7**2), rel=1e-12)
    assert rdp_sampled_gaussian(1 - 1e-12, 1.7) == pytest.approx(rdp_gaussian(1.7), rel=1e-9)
    assert (rdp_sampled_gaussian(0.0, 1.7) == 0).all()


@given(q=rates, sigma=noises)
def test_the_curve_rises_with_the_order(q, sigma):
    assert (np.diff(rdp_sampled_gaussian(q, sigma)) >= -1e-13).all()


@given(q=rates, sigma=noises, more=st.floats(1.01, 1.1))
def test_the_curve_rises_with_the_rate_and_falls_with_the_noise(q, sigma, more):
    curve = rdp_sampled_gaussian(q, sigma)
    assert (rdp_sampled_gaussian(q * more, sigma) >= curve - 1e-13).all()
    assert (rdp_sampled_gaussian(q, sigma * more) <= curve + 1e-13).all()


@given(q=rates, sigma=noises)
def test_a_sample_tells_less_than_everybody(q, sigma):
    assert (rdp_sampled_gaussian(q, sigma) <= rdp_gaussian(sigma) * (1 + 1e-12)).all()


@pytest.mark.parametrize("scale", [0.5, 2.0, 20.0])
def test_the_laplace_curve_is_its_integral_and_ends_at_the_pure_guarantee(scale):
    alpha = np.array([1.1, 2.0, 7.5])

    def integral(order):
        def integrand(z):
            return math.exp(-(order * abs(z) + (1 - order) * abs(z - 1)) / scale) / (2 * scale)

        return quad(integrand, -60 * scale, 60 * scale + 1, points=[0, 1], limit=500)[0]

    exact = [math.log(integral(order)) / (order - 1) for order in alpha]
    assert rdp_laplace(scale, alpha) == pytest.approx(exact, rel=1e-6)
    assert rdp_laplace(scale, np.array([1e6]))[0] == pytest.approx(1 / scale, rel=1e-4)
    accountant = RdpAccountant(orders=ORDERS.tolist())
    accountant.compose(dp_accounting.LaplaceDpEvent(scale))
    assert rdp_laplace(scale) == pytest.approx(np.array(accountant._rdp), rel=1e-9, abs=1e-14)


def test_alternating_sums_what_falls_slowly():
    k = np.arange(24)
    assert alternating(24) @ (1 / (2 * k + 1)) == pytest.approx(math.pi / 4, rel=1e-14)
    assert alternating(24) @ np.ones(24) == pytest.approx(0.5, rel=1e-14)


# --- many steps -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("q", "sigma", "steps", "older", "tighter"),
    [
        (256 / 60000, 1.1, 60 * 60000 // 256, 3.009, 2.597),
        (256 / 60000, 1.3, 15 * 60000 // 256, 1.192, 0.954),
        (0.01, 4.0, 10_000, 1.259, 1.035),
    ],
)
def test_the_published_figures_come_out(q, sigma, steps, older, tighter):
    found = {
        conversion: dp_sgd_guarantee(
            sampling_rate=q, noise_multiplier=sigma, steps=steps, delta_dp=1e-5, conversion=conversion
        ).epsilon
        for conversion in CONVERSIONS
    }
    assert found["mironov"] == pytest.approx(older, abs=0.001) and found["canonne"] == pytest.approx(tighter, abs=6e-4)


def test_whole_orders_alone_give_more():
    rdp, whole = 1000 * rdp_sampled_gaussian(0.01, 1.1), np.round(ORDERS) == ORDERS
    assert epsilon_of_rdp(ORDERS, rdp, 1e-5)[0] == pytest.approx(1.711770, abs=1e-6)
    assert epsilon_of_rdp(ORDERS[whole], rdp[whole], 1e-5)[0] == pytest.approx(1.7253, abs=1e-4)
    assert epsilon_of_rdp(ORDERS[whole], rdp[whole], 1e-5, "mironov")[0] == pytest.approx(2.0868, abs=1e-4)


@pytest.mark.oracle
@pytest.mark.parametrize("steps", [1, 100, 10_000])
@pytest.mark.parametrize(("q", "sigma"), SETTINGS)
def test_opacus_and_dp_accounting_have_the_same_epsilon_to_a_millionth(q, sigma, steps):
    """Of dp-accounting, over whole orders; over all of them its low ones make it a little larger, never smaller."""
    event = dp_accounting.PoissonSampledDpEvent(q, dp_accounting.GaussianDpEvent(sigma))
    orders = ORDERS[ORDERS < 200]
    ours = steps * rdp_sampled_gaussian(q, sigma, orders)
    theirs = opacus.compute_rdp(q=q, noise_multiplier=sigma, steps=steps, orders=orders.tolist())
    found = opacus.get_privacy_spent(orders=orders.tolist(), rdp=theirs, delta=1e-5)[0]
    assert epsilon_of_rdp(orders, ours, 1e-5)[0] == pytest.approx(found, rel=1e-6)
    whole = np.round(orders) == orders
    accountant = RdpAccountant(orders=orders[whole].tolist()).compose(event, steps)
    assert epsilon_of_rdp(orders[whole], ours[whole], 1e-5)[0] == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-9)
    everything = RdpAccountant(orders=ORDERS.tolist()).compose(event, steps).get_epsilon(1e-5)
    guarantee = dp_sgd_guarantee(sampling_rate=q, noise_multiplier=sigma, steps=steps, delta_dp=1e-5)
    assert everything * (1 - 0.01) <= guarantee.epsilon <= everything + 1e-9


@pytest.mark.oracle
@pytest.mark.parametrize(("q", "sigma", "steps"), [(0.01, 1.1, 1000), (256 / 60000, 1.3, 3515), (0.1, 2.0, 100)])
def test_never_below_the_privacy_loss_distribution_which_less_noise_would_be(q, sigma, steps):
    lowest = pld.from_gaussian_mechanism(sigma, sampling_prob=q).self_compose(steps).get_epsilon_for_delta(1e-5)
    given = {"sampling_rate": q, "steps": steps, "delta_dp": 1e-5}
    assert lowest < dp_sgd_guarantee(noise_multiplier=sigma, **given).epsilon < 1.3 * lowest
    assert dp_sgd_guarantee(noise_multiplier=1.2 * sigma, **given).epsilon < lowest


@pytest.mark.oracle
@given(q=st.floats(0.001, 0.5), sigma=st.floats(0.8, 6.0), steps=st.integers(1, 300), log_delta=st.integers(-8, -3))
@settings(max_examples=15)
def test_never_below_what_any_accountant_may_say(q, sigma, steps, log_delta):
    delta_dp = 10.0**log_delta
    guarantee = dp_sgd_guarantee(sampling_rate=q, noise_multiplier=sigma, steps=steps, delta_dp=delta_dp)
    assert guarantee.epsilon >= optimistic(q, sigma, steps, delta_dp, value_discretization_interval=1e-3)


@given(sigma=st.floats(0.3, 50), log_delta=st.floats(-10, -1))
def test_both_conversions_are_above_the_gaussian_mechanisms_own_epsilon(sigma, log_delta):
    delta_dp = 10**log_delta
    exact = gaussian_guarantee(sigma, delta_dp).epsilon
    older, tighter = (epsilon_of_rdp(ORDERS, rdp_gaussian(sigma), delta_dp, name)[0] for name in reversed(CONVERSIONS))
    assert exact <= tighter + 1e-12 and tighter <= older


def test_curves_of_releases_of_the_same_data_are_added():
    event = dp_accounting.PoissonSampledDpEvent(0.01, dp_accounting.GaussianDpEvent(1.1))
    accountant = RdpAccountant(orders=ORDERS.tolist())
    accountant.compose(dp_accounting.GaussianDpEvent(8.0)).compose(dp_accounting.LaplaceDpEvent(30.0))
    accountant.compose(event, 1000)
    rdp = rdp_gaussian(8.0) + rdp_laplace(30.0) + 1000 * rdp_sampled_gaussian(0.01, 1.1)
    covers = ("the principal axes", "the mean", "the weights")
    guarantee = rdp_guarantee(rdp, delta_dp=1e-5, covers=covers)
    assert guarantee.epsilon == pytest.approx(accountant.get_epsilon(1e-5), abs=1e-6)
    assert (guarantee.adjacency, guarantee.covers) == (ADD_REMOVE, covers)
    alone = dp_sgd_guarantee(sampling_rate=0.01, noise_multiplier=1.1, steps=1000, delta_dp=1e-5).epsilon
    apart = alone + rdp_guarantee(rdp_gaussian(8.0), delta_dp=1e-5, covers=covers).epsilon
    assert alone < guarantee.epsilon < apart


def test_the_curve_over_steps_is_every_single_guarantee():
    given = {"sampling_rate": 0.02, "noise_multiplier": 1.3, "delta_dp": 1e-6}
    steps = np.array([0, 1, 50, 2000])
    for conversion in CONVERSIONS:
        single = [dp_sgd_guarantee(steps=int(count), conversion=conversion, **given).epsilon for count in steps]
        assert epsilon_curve(steps, conversion=conversion, **given) == pytest.approx(single, rel=1e-12)


@given(epsilon=st.floats(0.1, 50), q=st.floats(1e-3, 1.0), steps=st.integers(1, 20_000))
@settings(max_examples=25)
def test_the_noise_spends_the_budget_and_not_more(epsilon, q, steps):
    sigma = noise_for(epsilon=epsilon, delta_dp=1e-5, sampling_rate=q, steps=steps)
    spent = dp_sgd_guarantee(sampling_rate=q, noise_multiplier=sigma, steps=steps, delta_dp=1e-5).epsilon
    assert epsilon * (1 - 1e-6) <= spent <= epsilon


def test_the_noise_of_the_published_setting_is_found_with_either_conversion():
    given = {"delta_dp": 1e-5, "sampling_rate": 256 / 60000, "steps": 14062}
    assert noise_for(epsilon=2.5966, **given) == pytest.approx(1.1, abs=1e-3)
    assert noise_for(epsilon=3.0083, conversion="mironov", **given) == pytest.approx(1.1, abs=1e-3)


# --- without a curve --------------------------------------------------------------------------------------------------


@pytest.mark.oracle
@pytest.mark.parametrize(("sigma", "delta_dp"), [(0.2, 1e-6), (1.0, 1e-5), (4.0, 1e-5), (30.0, 0.01), (100.0, 0.1)])
def test_one_gaussian_release(sigma, delta_dp):
    theirs = dp_accounting.get_epsilon_gaussian(sigma, delta_dp)
    assert gaussian_guarantee(sigma, delta_dp).epsilon == pytest.approx(theirs, abs=1e-7)


@pytest.mark.parametrize("sigma", [1.0, 1e6, 1e30])
def test_a_gaussian_release_speaks_of_the_neighbors_that_it_is_told(sigma):
    added, replaced = (gaussian_guarantee(sigma, 0.01, adjacency=each) for each in (ADD_REMOVE, REPLACE))
    assert gaussian_guarantee(sigma, 0.01) == added
    assert replaced == replace(added, adjacency=REPLACE) and added.adjacency == ADD_REMOVE


def test_the_least_budget_that_the_orders_give(refuses):
    """Without any curve the conversion alone costs that much; just above it some noise is found."""
    given = {"delta_dp": 1e-5, "sampling_rate": 0.01, "steps": 100}
    least = epsilon_of_rdp(ORDERS, np.zeros(len(ORDERS)), 1e-5)[0]
    refuses(noise_for, {"epsilon": least, **given}, "epsilon is", "orders up to 1024", "delta_dp 1e-05")
    assert noise_for(epsilon=1.01 * least, **given) > 100


@pytest.mark.oracle
def test_a_sampled_release_tells_just_what_amplification_says():
    """Removing a record is the direction in which the bound is reached."""
    q, sigma = 0.05, 1.5
    once = gaussian_guarantee(sigma, 1e-4)
    amplified = amplified_by_sampling(once, q)
    loss = pld.from_gaussian_mechanism(sigma, sampling_prob=q)
    assert amplified.delta_dp == pytest.approx(q * 1e-4)
    assert amplified.epsilon == pytest.approx(loss.get_epsilon_for_delta(amplified.delta_dp), abs=2e-4)


def test_the_sum_and_its_square_root():
    step = Guarantee(0.02, 1e-8, ADD_REMOVE, ("a step",))
    basic, advanced = basic_composition(step, 2500), advanced_composition(step, 2500, delta_slack=1e-5)
    assert (basic.epsilon, basic.delta_dp) == pytest.approx((50.0, 2.5e-5))
    expected = 0.02 * math.sqrt(5000 * math.log(1e5)) + 50 * (math.exp(0.02) - 1)
    assert (advanced.epsilon, advanced.delta_dp) == pytest.approx((expected, 3.5e-5))
    assert basic_composition(step, 1) == step
    assert advanced_composition(Guarantee(math.inf, 0.0, REPLACE, ("all",)), 2, delta_slack=0.1).epsilon == math.inf


def test_each_way_to_compose_is_better_than_the_last():
    q, sigma, steps = 0.01, 4.0, 10_000
    step = amplified_by_sampling(gaussian_guarantee(sigma, 1e-6), q)
    basic = basic_composition(step, steps)
    advanced = advanced_composition(step, steps, delta_slack=1e-6)
    rdp = dp_sgd_guarantee(sampling_rate=q, noise_multiplier=sigma, steps=steps, delta_dp=advanced.delta_dp)
    assert 2 * rdp.epsilon < advanced.epsilon < basic.epsilon / 2
    assert optimistic(q, sigma, steps, advanced.delta_dp) < rdp.epsilon


# --- arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sampling_rate": 1.5}, ("sampling_rate", "1.5", "from 0 to 1")),
        ({"sampling_rate": math.nan}, ("sampling_rate", "nan")),
        ({"noise_multiplier": 0}, ("noise_multiplier is 0", "from 1e-06 to 1e+06")),
        ({"steps": 2.5}, ("steps", "2.5", "whole number")),
        ({"delta_dp": 0.0}, ("delta_dp", "above 0")),
        ({"conversion": "moments"}, ("conversion", "'moments'", "'canonne'", "'mironov'")),
        ({"covers": ()}, ("covers",)),
    ],
)
def test_private_training_is_described_in_range(refuses, changes, words):
    refuses(
        dp_sgd_guarantee,
        {"sampling_rate": 0.1, "noise_multiplier": 1.0, "steps": 5, "delta_dp": 1e-5} | changes,
        *words,
    )


@pytest.mark.parametrize("sigma", [1e-200, 1e-160, 0.99e-6, 1.01e6, 1e160, 1e200])
def test_noise_without_a_square_is_refused(refuses, sigma):
    words = ("noise_multiplier is", "from 1e-06 to 1e+06")
    for curve in (rdp_gaussian, rdp_laplace):
        refuses(curve, {"noise_multiplier": sigma}, *words)
    step = {"sampling_rate": 0.1, "noise_multiplier": sigma}
    refuses(rdp_sampled_gaussian, step, *words)
    refuses(dp_sgd_guarantee, {**step, "steps": 5, "delta_dp": 1e-5}, *words)
    refuses(epsilon_curve, {**step, "steps": np.array([5]), "delta_dp": 1e-5}, *words)


@pytest.mark.parametrize("sigma", [1e-200, 0.99e-6, 1.01e30, 1e200])
def test_a_gaussian_release_names_the_noise_that_it_cannot_count(refuses, sigma):
    given = {"noise_multiplier": sigma, "delta_dp": 1e-5}
    refuses(gaussian_guarantee, given, "noise_multiplier is", "from 1e-06 to 1e+30")


@pytest.mark.parametrize("sigma", [1e-6, 1e6, 1, Fraction(1, 3), np.float32(0.5)], ids=repr)
def test_noise_within_the_range_has_a_finite_curve(sigma):
    gaussian, sampled = rdp_gaussian(sigma), rdp_sampled_gaussian(0.1, sigma)
    assert (gaussian > 0).all() and np.isfinite(gaussian).all() and np.isfinite(rdp_laplace(sigma)).all()
    assert ((sampled >= 0) & (sampled <= gaussian * (1 + 1e-3))).all()
    mu = 1 / float(sigma)  # the privacy loss is N(mu^2 / 2, mu^2), so that no quantile of it is further out
    assert 0 <= gaussian_guarantee(sigma, 1e-5).epsilon <= mu**2 / 2 - norm.ppf(1e-5) * mu


@pytest.mark.parametrize("orders", [[], [1.0], [2.0, math.inf], [[2.0]], "abc", None, ["two"], [[2.0, 3.0], [4.0]]])
def test_orders_are_above_one(refuses, orders):
    refuses(
        rdp_sampled_gaussian, {"sampling_rate": 0.1, "noise_multiplier": 1.0, "orders": orders}, "orders", "above 1"
    )


@pytest.mark.parametrize("rdp", [[0.1], [0.1, -0.1], [0.1, math.nan], "abc", None])
def test_a_curve_has_a_value_for_each_order(refuses, rdp):
    refuses(epsilon_of_rdp, {"orders": [2.0, 3.0], "rdp": rdp, "delta_dp": 1e-5}, "rdp", "2 orders")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epsilon": 0.0}, ("epsilon", "above 0")),
        ({"epsilon": 1e-4}, ("epsilon is 0.0001", "above 0.0035", "orders up to 1024", "whatever the noise")),
        ({"epsilon": 0.003502, "steps": 10**12}, ("epsilon is 0.003502", "noise from 0.01 to 1e+06")),
        ({"epsilon": 1e12}, ("epsilon is 1e+12", "noise")),
        ({"sampling_rate": 0.0}, ("sampling_rate", "above 0")),
        ({"steps": 0}, ("steps", "at least 1")),
    ],
)
def test_a_budget_that_no_noise_gives_is_refused(refuses, changes, words):
    refuses(noise_for, {"epsilon": 1.0, "delta_dp": 1e-5, "sampling_rate": 0.1, "steps": 10} | changes, *words)


def test_steps_of_a_curve_are_whole_numbers(refuses):
    given = {"sampling_rate": 0.1, "noise_multiplier": 1.0, "delta_dp": 1e-5}
    for steps in ([0.5], [-1], [[1]]):
        refuses(epsilon_curve, {"steps": np.array(steps), **given}, "steps", "whole numbers")


def test_composition_asks_for_guarantees_of_the_right_kind(refuses):
    replaced = Guarantee(1.0, 0.0, REPLACE, ("a step",))
    refuses(amplified_by_sampling, {"guarantee": replaced, "sampling_rate": 0.1}, "replace", "add/remove")
    refuses(basic_composition, {"guarantee": 1.0, "count": 2}, "1.0", "Guarantee")
    refuses(basic_composition, {"guarantee": replaced, "count": 0}, "count")
    refuses(advanced_composition, {"guarantee": replaced, "count": 2, "delta_slack": 0.0}, "delta_slack")
    refuses(gaussian_guarantee, {"noise_multiplier": -1.0, "delta_dp": 0.1}, "noise_multiplier")
    refuses(gaussian_guarantee, {"noise_multiplier": 1.0, "delta_dp": 0.1, "adjacency": "swap"}, "adjacency", "replace")

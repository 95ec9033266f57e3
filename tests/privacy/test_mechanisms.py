"""Mechanisms against closed forms and libraries, and against their own promise; with faults that must be caught."""

import math
from fractions import Fraction
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from spai_lab.privacy.mechanisms import (
    CELLS,
    discrete_gaussian_sigma,
    estimated_frequencies,
    exponential_mechanism,
    exponential_probabilities,
    gaussian_delta,
    gaussian_mechanism,
    gaussian_sigma,
    laplace_mechanism,
    randomized_response,
    truth_probability,
)
from spai_lab.privacy.secure import discrete_gaussian, reachable
from tests.privacy.tester import ALPHA, atoms, excess, half_lines_and_intervals, outputs_needed

F64 = torch.float64
SCALAR = {"sensitivity": 1.0, "epsilon": 1.0}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def follows(draws, probabilities) -> bool:
    """A chi-square test of class numbers, with a false alarm rate of 1e-6."""
    counts = np.bincount(np.asarray(draws), minlength=len(probabilities))
    return stats.chisquare(counts, len(draws) * np.asarray(probabilities)).pvalue > ALPHA


# --- finite mechanisms, exactly ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "epsilon"), [(2, math.log(3)), (3, 0.1), (10, 2.0), (10, 20.0)])
def test_truth_probability_makes_the_worst_ratio_exactly_e_to_the_epsilon(k, epsilon):
    p = truth_probability(k, epsilon)
    assert math.log(p / ((1 - p) / (k - 1))) == pytest.approx(epsilon, abs=2**-52 * (1 + math.exp(epsilon)))


def test_nothing_is_told_at_epsilon_zero():
    assert truth_probability(4, 0) == 0.25


@pytest.mark.parametrize(("secure", "n"), [(False, 100_000), (True, 4000)])
@pytest.mark.parametrize(("k", "epsilon"), [(2, 0.5), (5, 1.5)])
def test_reports_follow_their_probabilities(secure, n, k, epsilon):
    others = 1 / (math.exp(epsilon) + k - 1)
    for v in range(k):
        expected = np.full(k, others)
        expected[v] *= math.exp(epsilon)
        reports = randomized_response(torch.full((n,), v), k, epsilon=epsilon, secure=secure)
        assert reports.dtype == torch.int64 and follows(reports, expected)


def test_frequencies_are_recovered_without_bias():
    """Standard deviation of each estimate: sqrt(c (1 - c) / N) / (p - q); 5.2 of them are passed once in 5e6."""
    truth, n, epsilon = torch.tensor([0.6, 0.3, 0.1]), 100_000, 1.0
    values = torch.arange(3).repeat_interleave((truth * n).round().long())
    estimate = estimated_frequencies(randomized_response(values, 3, epsilon=epsilon), 3, epsilon)
    p = math.e / (math.e + 2)
    deviation = 0.5 / math.sqrt(n) / (p - (1 - p) / 2)
    assert estimate.sum() == pytest.approx(1) and (estimate - truth).abs().max() < 5.2 * deviation


def test_the_estimate_inverts_the_matrix_of_probabilities():
    """In expectation, exactly: for any frequencies f, the estimate from the shares A f is f."""
    k, epsilon = 4, math.log(2)  # p = 2/5, q = 1/5
    counts = torch.tensor([2, 1, 1, 1])  # what everybody in class 0 reports, five of them
    assert torch.allclose(
        estimated_frequencies(torch.arange(k).repeat_interleave(counts), k, epsilon), torch.eye(k, dtype=F64)[0]
    )


@given(st.lists(st.integers(-30, 30), min_size=1, max_size=6), st.floats(1e-3, 1e3), st.floats(1e-3, 20), st.randoms())
def test_exponential_keeps_its_promise_exactly(steps, sensitivity, epsilon, random):
    """Scores that each move by the sensitivity at most: no choice becomes more than e^epsilon times likelier."""
    moved = [step + random.choice((-1, 0, 1)) for step in steps]
    p, q = (
        exponential_probabilities(sensitivity * torch.tensor(s, dtype=F64), sensitivity, epsilon)
        for s in (steps, moved)
    )
    assert p.sum() == pytest.approx(1) and (p <= math.exp(epsilon) * q * (1 + 1e-9)).all()


def test_exponential_probabilities_are_those_of_the_definition():
    scores, rate = [0.0, 1.0, 3.0], 0.7 / (2 * 2.0)
    weights = [math.exp(rate * s) for s in scores]
    expected = torch.tensor(weights, dtype=F64) / sum(weights)
    assert torch.allclose(exponential_probabilities(torch.tensor(scores), 2.0, 0.7), expected, rtol=1e-12)
    assert exponential_probabilities(torch.tensor([1e30, 0.0]), 1.0, 1.0).tolist() == [1, 0]


def test_without_the_factor_two_the_worst_neighbors_are_told_apart():
    """One score rises, the other falls: e^epsilon is reached with the 2, in the limit, and broken without it."""
    worst = {2: 0.0, 1: 0.0}
    for factor in worst:
        p, q = (exponential_probabilities(torch.tensor(s), factor / 2, 1.0) for s in ([9.0, 0.0], [8.0, 1.0]))
        worst[factor] = (q / p).max().log().item()
    assert 0.97 < worst[2] <= 1 < 1.99 < worst[1]


@pytest.mark.parametrize(("secure", "n"), [(False, 5000), (True, 5000)])
def test_choices_follow_their_probabilities(secure, n):
    scores, rate = torch.tensor([0.0, 1.0, 3.0, 2.0]), 1.2 / 4
    expected = np.exp(rate * scores.numpy().astype(float))
    chosen = [exponential_mechanism(scores, sensitivity=2.0, epsilon=1.2, secure=secure) for _ in range(n)]
    assert follows(chosen, expected / expected.sum())


# --- calibration ------------------------------------------------------------------------------------------------------


@pytest.mark.oracle
@pytest.mark.parametrize("sigma", [0.4, 1.0, 3.7])
@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0, 6.0])
def test_the_gaussian_curve_is_dp_accountings(sigma, epsilon):
    from dp_accounting.pld.privacy_loss_mechanism import GaussianPrivacyLoss

    theirs = GaussianPrivacyLoss(sigma, sensitivity=2.0).get_delta_for_epsilon(epsilon)
    assert gaussian_delta(sigma, 2.0, epsilon) == pytest.approx(theirs, rel=1e-9, abs=1e-15)


@pytest.mark.oracle
@pytest.mark.parametrize(("epsilon", "delta_dp"), [(0.01, 1e-8), (1.0, 1e-5), (5.0, 0.01), (30.0, 1e-6)])
def test_the_analytic_sigma_is_dp_accountings(epsilon, delta_dp):
    from dp_accounting import get_sigma_gaussian

    assert gaussian_sigma(3.0, epsilon, delta_dp) == pytest.approx(3 * get_sigma_gaussian(epsilon, delta_dp), rel=1e-6)


@given(st.floats(1e-3, 50), st.floats(-12, -0.01), st.floats(1e-3, 1e3))
def test_the_analytic_sigma_is_the_least(epsilon, exponent, sensitivity):
    delta_dp = 10**exponent
    sigma = gaussian_sigma(sensitivity, epsilon, delta_dp)
    assert gaussian_delta(sigma, sensitivity, epsilon) <= delta_dp * (1 + 1e-9)
    assert gaussian_delta(sigma * (1 - 1e-6), sensitivity, epsilon) > delta_dp * (1 + 1e-9)


@pytest.mark.parametrize("epsilon", [0.01, 0.3, 1.0])
@pytest.mark.parametrize("delta_dp", [1e-10, 1e-5, 0.1])
def test_the_classic_sigma_is_enough_and_too_much(epsilon, delta_dp):
    classic = gaussian_sigma(1.0, epsilon, delta_dp, "classic")
    assert classic == pytest.approx(math.sqrt(2 * math.log(1.25 / delta_dp)) / epsilon)
    assert classic > 1.15 * gaussian_sigma(1.0, epsilon, delta_dp) and gaussian_delta(classic, 1.0, epsilon) < delta_dp


def test_the_classic_formula_breaks_its_promise_at_large_epsilon():
    """Why it is refused above 1."""
    assert gaussian_delta(math.sqrt(2 * math.log(1.25 / 0.1)) / 20, 1.0, 20.0) > 0.9


@pytest.mark.oracle
@pytest.mark.parametrize(("epsilon", "delta_dp"), [(0.2, 0.01), (1.0, 1e-5), (4.0, 0.1)])
@pytest.mark.parametrize("cells", [1, 3, 20])
def test_discrete_noise_on_a_coarse_grid_keeps_its_delta(monkeypatch, epsilon, delta_dp, cells):
    """The sum over whole numbers, by dp-accounting; on a coarse grid it is far from the integral."""
    from dp_accounting.pld.privacy_loss_mechanism import DiscreteGaussianPrivacyLoss

    monkeypatch.setattr("spai_lab.privacy.mechanisms.CELLS", cells)
    steps = discrete_gaussian_sigma(gaussian_sigma(1.0, epsilon, delta_dp), epsilon, delta_dp)
    exact = DiscreteGaussianPrivacyLoss(float(steps), sensitivity=cells).get_delta_for_epsilon(epsilon)
    assert exact <= delta_dp


def test_the_fine_grid_costs_almost_no_noise():
    for epsilon, delta_dp in ((1.0, 1e-5), (0.01, 1e-10), (100.0, 1e-5)):
        sigma = gaussian_sigma(1.0, epsilon, delta_dp)
        assert 1 <= discrete_gaussian_sigma(sigma, epsilon, delta_dp) / (CELLS * sigma) < 1 + 1e-5


# --- how noise is distributed -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("secure", "n"), [(False, 100_000), (True, 1500)])
def test_noise_has_the_distribution_it_should(secure, n):
    """Kolmogorov and Smirnov's test; the grid's steps, a millionth of the scale, are far below what it sees."""
    settings = {"sensitivity": 2.0, "epsilon": 0.5, "secure": secure}
    draws = {
        stats.laplace(7, 4.0): partial(laplace_mechanism, **settings),
        stats.norm(7, gaussian_sigma(2.0, 0.5, 0.01)): partial(gaussian_mechanism, **settings, delta_dp=0.01),
    }
    for expected, mechanism in draws.items():
        many = torch.full((n,), 7.0, dtype=F64)
        outputs = [mechanism(v.item()) for v in many] if secure else mechanism(many).numpy()
        assert stats.kstest(outputs, expected.cdf).pvalue > ALPHA


@pytest.mark.parametrize("value", [5.0, torch.tensor(5.0), torch.tensor([5.0], dtype=F64)], ids=str)
@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("mechanism", [laplace_mechanism, partial(gaussian_mechanism, delta_dp=1e-5)])
def test_a_number_gives_a_number_and_a_tensor_a_tensor_like_it(mechanism, secure, value):
    noisy = mechanism(value, sensitivity=1.0, epsilon=1e4, secure=secure)
    assert type(noisy) is type(value) and abs(float(noisy) - 5) < 1
    if isinstance(value, torch.Tensor):
        assert noisy.shape == value.shape and noisy.dtype == value.dtype and float(value) == 5


def test_a_seed_repeats_a_release_and_none_leaves_the_global_state():
    state, value, scores = torch.get_rng_state(), torch.zeros(5), torch.zeros(50)
    classes = torch.zeros(50, dtype=torch.int64)
    releases = (
        partial(laplace_mechanism, value, **SCALAR),
        partial(gaussian_mechanism, value, **SCALAR, delta_dp=0.1),
        partial(randomized_response, classes, 9, epsilon=1.0),
        partial(exponential_mechanism, scores, **SCALAR),
    )
    for release in releases:
        first, second = (torch.as_tensor(release(generator=seeded())) for _ in range(2))
        assert torch.equal(first, second)
        assert any(not torch.equal(first, torch.as_tensor(release())) for _ in range(5))
    assert torch.equal(state, torch.get_rng_state())


# --- the promise, tested as a stranger would --------------------------------------------------------------------------


def laplace(value, n, seed, *, scale=1.0):
    """The mechanism for sensitivity 1 and epsilon 1; a scale other than 1 is wrong."""
    return laplace_mechanism(torch.full((n,), value, dtype=F64), sensitivity=scale, epsilon=1.0, generator=seeded(seed))


def gaussian(value, n, seed, *, epsilon=1.0, delta_dp=0.02, scale=1.0):
    settings = {"sensitivity": scale, "epsilon": epsilon, "delta_dp": delta_dp}
    return gaussian_mechanism(torch.full((n,), value, dtype=F64), **settings, generator=seeded(seed))


def classic_beyond(value, n, seed):
    """The classic formula at epsilon 6, delta 0.5, where it must not be used."""
    sigma = math.sqrt(2 * math.log(1.25 / 0.5)) / 6
    return value + sigma * torch.randn(n, dtype=F64, generator=seeded(seed))


def response(value, n, seed, *, classes=6, told=None):
    """Six classes at epsilon 1; `told` is the number of classes that the probability is computed for."""
    if told is None:
        return randomized_response(torch.full((n,), value), classes, epsilon=1.0, generator=seeded(seed))
    generator = seeded(seed)
    truthful = torch.rand(n, generator=generator) < truth_probability(told, 1.0)
    shift = torch.randint(1, classes, (n,), generator=generator)
    return torch.where(truthful, value, (value + shift) % classes)


def choice(scores, n, seed, *, sensitivity=1.0):
    p = exponential_probabilities(torch.tensor(scores), sensitivity, 1.0)
    return torch.multinomial(p, n, replacement=True, generator=seeded(seed))


def difference(value, n, seed, *, reused=False):
    """Two numbers are released, one of which a neighbor changes by 1; what is looked at is their difference."""
    first, second = laplace(value, n, seed), laplace(0.0, n, seed if reused else seed + 1000)
    return first - second


def one_number(value, n, seed):
    """A number at a time, all from one generator."""
    generator = seeded(seed)
    return torch.tensor([laplace_mechanism(value, **SCALAR, generator=generator) for _ in range(n)], dtype=F64)


def secure_laplace(value, n, seed):
    return torch.tensor([laplace_mechanism(value, **SCALAR, secure=True) for _ in range(n)])


def secure_gaussian(value, n, seed):
    """Draws as the mechanism does, which would bisect for sigma each time."""
    steps = discrete_gaussian_sigma(gaussian_sigma(1.0, 1.0, 0.02), 1.0, 0.02)
    return (round(value * CELLS) + discrete_gaussian(steps, n)).double() / CELLS


PRIVATE = {
    "laplace": (laplace, 0.0, 1.0, 1.0, 0.0),
    "gaussian": (gaussian, 0.0, 1.0, 1.0, 0.02),
    "gaussian at a large epsilon": (partial(gaussian, epsilon=6.0, delta_dp=0.5), 0.0, 1.0, 6.0, 0.5),
    "randomized response": (response, 0, 3, 1.0, 0.0),
    "exponential": (choice, [4.0, 0.0, 0.0], [3.0, 1.0, 1.0], 1.0, 0.0),
    "difference": (difference, 0.0, 1.0, 1.0, 0.0),
    "numbers that float32 would move apart": (one_number, 100000004.0, 100000005.0, 1.0, 0.0),
    "secure laplace": (secure_laplace, 0.0, 1.0, 1.0, 0.0),
    "secure gaussian": (secure_gaussian, 0.0, 1.0, 1.0, 0.02),
}
PLANTED = {
    "laplace with half the sensitivity": (partial(laplace, scale=0.5), 0.0, 1.0, 1.0, 0.0),
    "laplace, a quarter short of noise": (partial(laplace, scale=0.75), 0.0, 1.0, 1.0, 0.0),
    "gaussian with half the sigma": (partial(gaussian, scale=0.5), 0.0, 1.0, 1.0, 0.02),
    "classic at epsilon 6": (classic_beyond, 0.0, 1.0, 6.0, 0.5),
    "randomized response, p of two classes": (partial(response, told=2), 0, 3, 1.0, 0.0),
    "exponential without the 2": (partial(choice, sensitivity=0.5), [4.0, 0.0, 0.0], [3.0, 1.0, 1.0], 1.0, 0.0),
    "noise used twice": (partial(difference, reused=True), 0.0, 1.0, 1.0, 0.0),
    "no noise": (lambda value, n, seed: torch.full((n,), value), 0.0, 1.0, 1.0, 0.0),
    "seed of both": (lambda value, n, seed: laplace(value, n, 0) - laplace(0.0, n, 0), 0.0, 1.0, 1.0, 0.0),
}


def accused(mechanism, value, neighbor, epsilon, delta_dp, n, seed=0) -> bool:
    """The sets come from outputs of their own."""
    outputs, others = (mechanism(v, n, seed + i).numpy() for i, v in enumerate((value, neighbor)))
    if outputs.dtype == np.int64:
        sets = atoms(6)
    else:
        pilot = [mechanism(v, 1000, seed + 2 + i).numpy() for i, v in enumerate((value, neighbor))]
        sets = half_lines_and_intervals(np.concatenate(pilot))
    return excess(outputs, others, epsilon, delta_dp, sets) > 0


@pytest.mark.parametrize("case", PRIVATE.values(), ids=PRIVATE)
def test_no_private_mechanism_is_accused(case):
    slow = (one_number, secure_laplace, secure_gaussian)
    assert not accused(*case, n=5000 if case[0] in slow else 300_000)


@pytest.mark.parametrize("case", PLANTED.values(), ids=PLANTED)
def test_every_planted_fault_is_caught(case):
    assert accused(*case, n=300_000)


def test_so_many_outputs_suffice_for_half_the_sensitivity():
    """S = [1, inf): 1/2 against e^-2 / 2, so that the excess is 1/2 - e^-1 / 2 = 0.316; 231 sets."""
    sets = half_lines_and_intervals(laplace(0.0, 1000, 7).numpy())
    n = outputs_needed((1 - math.exp(-1)) / 2, 1.0, len(sets) + 1)
    assert n < 7000
    for seed in range(10):
        fault = partial(laplace, scale=0.5)
        one, other = fault(1.0, n, 2 * seed).numpy(), fault(0.0, n, 2 * seed + 1).numpy()
        assert excess(one, other, 1.0, 0.0, [*sets, (1.0, math.inf)]) > 0


def test_the_false_alarm_rate_is_kept_where_the_promise_is_tight():
    """At a level of 0.2, a mechanism at its very limit: 60 trials. More than 32 alarms happen once in 1e6 at 0.2."""
    alarms = 0
    for seed in range(60):
        one, other = (response(v, 2000, 2 * seed + i).numpy() for i, v in enumerate((0, 3)))
        alarms += excess(one, other, 1.0, 0.0, atoms(6), alpha=0.2) > 0
    assert alarms <= stats.binom.isf(ALPHA, 60, 0.2)


# --- floating point ---------------------------------------------------------------------------------------------------


def test_textbook_laplace_betrays_its_value_in_the_last_bits():
    """Of the outputs for 0, most cannot come from 1, whatever epsilon says; those for 0 itself all can."""
    outputs = laplace(0.0, 50_000, 3)
    assert reachable(outputs, 0.0, scale=1.0).all()
    assert 0.2 < reachable(outputs, 1.0, scale=1.0).double().mean() < 0.5


@pytest.mark.parametrize("shape", [(), (1000,)], ids=str)
def test_the_scale_is_not_rounded_to_float32(shape):
    """1 / 3 is not a float32: with one such scale, almost no output is the exact one's."""
    outputs = laplace_mechanism(torch.zeros(shape, dtype=F64), sensitivity=1.0, epsilon=3.0, generator=seeded())
    u = 1 - torch.rand(shape, dtype=F64, generator=seeded())
    assert torch.equal(outputs.abs(), 1 / 3 * -u.log()) and reachable(outputs, 0.0, scale=1 / 3).all()


def test_secure_noise_lies_on_one_grid_whatever_the_value():
    for value in (0.0, 1.0, 0.3):
        for mechanism in (laplace_mechanism, partial(gaussian_mechanism, delta_dp=1e-5)):
            outputs = torch.tensor([mechanism(value, **SCALAR, secure=True) for _ in range(50)], dtype=F64) * CELLS
            assert torch.equal(outputs, outputs.round()) and len(outputs.unique()) > 40


@pytest.mark.parametrize("mechanism", [laplace_mechanism, partial(gaussian_mechanism, delta_dp=1e-5)])
def test_a_number_is_not_rounded_before_the_noise(mechanism):
    """In float32 the next number after 2^26 is 8 further."""
    settings = {"sensitivity": 1.0, "epsilon": 1e4}
    noisy = [mechanism(number, **settings, generator=seeded()) for number in (2.0**26 + 3, 2.0**26 + 4)]
    assert noisy[1] - noisy[0] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("value", [Fraction(1, 3), 2**70, np.float32(1.5), 7], ids=repr)
def test_any_real_number_is_a_value(secure, value):
    for mechanism in (laplace_mechanism, partial(gaussian_mechanism, delta_dp=1e-5)):
        noisy = mechanism(value, sensitivity=1.0, epsilon=1e4, secure=secure)
        assert isinstance(noisy, float) and abs(noisy - float(value)) < 1


@pytest.mark.parametrize("secure", [False, True])
def test_sensitivity_and_epsilon_may_be_fractions(secure):
    settings = {"sensitivity": Fraction(1, 3), "epsilon": Fraction(3000), "secure": secure}
    assert abs(laplace_mechanism(5.0, **settings) - 5) < 0.1
    assert abs(gaussian_mechanism(5.0, **settings, delta_dp=1e-5) - 5) < 0.1
    assert exponential_mechanism(torch.tensor([0.0, 1.0]), **settings) == 1


@pytest.mark.parametrize("value", [2**53, 2**60 + 3, Fraction(2**70 + 1, 3)], ids=repr)
def test_secure_takes_a_number_as_it_is(monkeypatch, value):
    """Neighbors 1 apart are 2^20 steps apart; as floats they would be none or several times that."""
    cells = []
    monkeypatch.setattr("spai_lab.privacy.mechanisms.like", lambda value, noisy: None)
    monkeypatch.setattr("spai_lab.privacy.mechanisms.laplace_integer", lambda scale: Noted(cells))
    for neighbor in (value, value + 1):
        laplace_mechanism(neighbor, **SCALAR, secure=True)
    assert cells[1] - cells[0] == CELLS


class Noted(int):
    """No noise, but it notes the number that it is added to."""

    def __new__(cls, numbers):
        noise = super().__new__(cls, 0)
        noise.numbers = numbers
        return noise

    def __radd__(self, number):
        self.numbers.append(number)
        return number


@pytest.mark.parametrize("epsilon", [1e-9, 1e-3])
def test_the_smallest_epsilons_give_finite_frequencies(epsilon):
    estimate = estimated_frequencies(torch.tensor([0, 0, 1]), 2, epsilon)
    expected = 0.5 + (2 / 3 - 0.5) / math.tanh(epsilon / 2)
    assert estimate[0].item() == pytest.approx(expected, rel=1e-6)


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e6), st.floats(-1, 1))
def test_rounding_does_not_raise_the_sensitivity(value, sensitivity, share):
    """Neighbors are 2^20 steps apart at most, in exact arithmetic."""
    step = Fraction(sensitivity) / CELLS
    neighbor = Fraction(value) + Fraction(share) * Fraction(sensitivity)
    cells = [math.floor(v / step + Fraction(1, 2)) for v in (Fraction(value), neighbor)]
    assert abs(cells[0] - cells[1]) <= CELLS


# --- bad input --------------------------------------------------------------------------------------------------------

GOOD = {
    laplace_mechanism: {"value": 1.0, **SCALAR},
    gaussian_mechanism: {"value": 1.0, **SCALAR, "delta_dp": 1e-5},
    randomized_response: {"values": torch.tensor([0, 1]), "classes": 2, "epsilon": 1.0},
    exponential_mechanism: {"scores": torch.tensor([0.0, 1.0]), **SCALAR},
    gaussian_sigma: {**SCALAR, "delta_dp": 1e-5},
    gaussian_delta: {"sigma": 1.0, **SCALAR},
    estimated_frequencies: {"reports": torch.tensor([0, 1]), "classes": 2, "epsilon": 1.0},
    exponential_probabilities: {"scores": torch.tensor([0.0, 1.0]), **SCALAR},
}
HUGE = {"sensitivity": 1e30, "epsilon": 1e-12}
SCALED = [f for f in GOOD if "sensitivity" in GOOD[f]]
REFUSED = [
    *((f, {"epsilon": e}, "epsilon is") for f, e in product(GOOD, (-1.0, math.nan, math.inf, "1", True))),
    *((f, {"epsilon": 0.0}, "epsilon is") for f in GOOD if f is not gaussian_delta),
    *((f, {"sensitivity": s}, "sensitivity is") for f, s in product(SCALED, (0.0, -1.0, None))),
    *((f, {"secure": True, "generator": seeded()}, "generator is") for f in list(GOOD)[:4]),
    *((f, {"secure": 1}, "secure is") for f in list(GOOD)[:4]),
    *((f, {"generator": 0}, "generator is") for f in list(GOOD)[:4]),
    *((f, {"value": v}, "value is") for f, v in product(list(GOOD)[:2], (math.nan, "1", torch.tensor([1]), None))),
    *((f, {"value": torch.tensor([math.inf])}, "value is") for f in list(GOOD)[:2]),
    *((f, {"value": torch.ones(2), "secure": True}, "one number") for f in list(GOOD)[:2]),
    *((gaussian_mechanism, {"delta_dp": d}, "delta_dp is") for d in (0.0, 1.0, -1e-5, 2)),
    *((f, {"sensitivity": s}, "sensitivity is") for f, s in product(SCALED, (1e-310, 1e-31, 1e31, 1e308))),
    *((f, {"epsilon": e}, "epsilon is") for f, e in product(SCALED, (1e13, 1e300))),
    *((f, {"epsilon": 1e-17}, "epsilon is") for f in GOOD if f not in (gaussian_delta, randomized_response)),
    *((f, {"value": torch.ones(1, dtype=torch.float16), **HUGE, "secure": secure}, "value with its noise does not fit")
      for f, secure in product(list(GOOD)[:2], (False, True))),
    (laplace_mechanism, {"value": torch.ones(1000), **HUGE}, "value with its noise does not fit"),
    (gaussian_mechanism, {"calibration": "tight"}, "calibration is"),
    (gaussian_mechanism, {"calibration": "classic", "epsilon": 1.5}, "epsilon is 1.5"),
    (gaussian_delta, {"sigma": 0.0}, "sigma is 0.0"),
    (randomized_response, {"classes": 1}, "classes is 1"),
    (randomized_response, {"values": torch.tensor([0, 2])}, "values has values from 0 to 2"),
    (randomized_response, {"values": torch.tensor([-1])}, "values has"),
    (randomized_response, {"values": torch.tensor([0.0])}, "values is"),
    (randomized_response, {"values": [0, 1]}, "values is"),
    (estimated_frequencies, {"reports": torch.tensor([], dtype=torch.int64)}, "reports is"),
    (exponential_mechanism, {"scores": torch.tensor([])}, "scores is"),
    (exponential_mechanism, {"scores": torch.tensor([0.0, math.nan])}, "scores is"),
    (exponential_mechanism, {"scores": torch.tensor([0, 1])}, "scores is"),
]  # fmt: skip


@pytest.mark.parametrize(("function", "change", "words"), REFUSED)
def test_refuses(refuses, function, change, words):
    refuses(function, GOOD[function] | change, words)


def test_nobody_asked_is_nothing_reported():
    assert len(randomized_response(torch.tensor([], dtype=torch.int64), 3, epsilon=1.0)) == 0

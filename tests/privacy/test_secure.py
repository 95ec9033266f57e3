"""Exact samplers against their distributions, all choices enumerated; normals against theirs; no seed, no holes."""

import math
import secrets
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy import stats

from spai_lab.privacy import secure
from spai_lab.privacy.secure import (
    add_secure_noise,
    bernoulli_exp,
    check_source,
    discrete_gaussian,
    discrete_laplace,
    exact_choice,
    exactly,
    gaussian_integer,
    laplace_integer,
    noise_grid,
    reachable,
    secure_normal,
)
from tests.privacy.tester import ALPHA

F64 = torch.float64


class Another(Exception):
    """One more random choice is asked for than the path holds."""


def outcomes(draw, least: float, monkeypatch, *, bernoulli: bool = False) -> dict[object, float]:
    """The probability of each result, from all paths of random choices that are at least so likely: no chance is left.

    `secrets.randbelow`, and `bernoulli_exp` if wished, answer with the choices of the path; where it ends, each
    continuation becomes a path.
    """
    found, paths = {}, [((), 1.0)]
    while paths:
        path, probability = paths.pop()
        choices, shares = iter(path), []

        def choose(probabilities, choices=choices, shares=shares):
            try:
                return next(choices)
            except StopIteration:
                shares += probabilities
                raise Another from None

        with monkeypatch.context() as patch:
            patch.setattr(secrets, "randbelow", lambda n, choose=choose: choose([1 / n] * n))
            if bernoulli:
                one = lambda gamma, choose=choose: choose([1 - math.exp(-gamma), math.exp(-gamma)]) == 1  # noqa: E731
                patch.setattr(secure, "bernoulli_exp", one)
            try:
                result = draw()
                found[result] = found.get(result, 0) + probability
            except Another:
                more = [((*path, i), probability * share) for i, share in enumerate(shares)]
                paths += [step for step in more if step[1] >= least]
    return found


def agrees(found: dict, expected: dict, missing: float) -> bool:
    """Whether no result is likelier than expected, nor less likely by more than the paths that were not followed."""
    left = 1 - sum(found.values())
    assert -1e-9 <= left < missing
    return all(-1e-9 <= expected[result] - found.get(result, 0) <= left + 1e-9 for result in expected)


# --- exact integers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [Fraction(0), Fraction(1, 2), Fraction(1), Fraction(3, 2), Fraction(2, 3)], ids=str)
def test_bernoulli_exp_exactly(monkeypatch, gamma):
    found = outcomes(lambda: bernoulli_exp(gamma), 1e-5, monkeypatch)
    assert agrees(found, {True: math.exp(-gamma), False: 1 - math.exp(-gamma)}, missing=0.01)


@pytest.mark.parametrize("scale", [Fraction(1), Fraction(1, 2), Fraction(2, 3), Fraction(3)], ids=str)
def test_discrete_laplace_exactly(monkeypatch, scale):
    found = outcomes(lambda: laplace_integer(scale), 1e-5, monkeypatch, bernoulli=True)
    expected = {x: stats.dlaplace(float(1 / scale)).pmf(x) for x in range(-60, 61)}
    assert agrees(found, expected, missing=0.1)


@pytest.mark.parametrize("variance", [Fraction(1, 2), Fraction(2), Fraction(17, 5)], ids=str)
def test_discrete_gaussian_exactly(monkeypatch, variance):
    """Each proposal times its chance to be kept: a constant times the density, so that what is kept follows it."""
    shares = []
    for x in range(-12, 13):
        scales, gammas = [], []
        monkeypatch.setattr(secure, "laplace_integer", lambda scale, x=x, scales=scales: scales.append(scale) or x)
        monkeypatch.setattr(secure, "bernoulli_exp", lambda gamma, gammas=gammas: gammas.append(gamma) or True)
        assert gaussian_integer(variance) == x and len(scales) == len(gammas) == 1 and gammas[0] >= 0
        proposed = stats.dlaplace(float(1 / scales[0])).pmf(x)
        shares.append(proposed * math.exp(-gammas[0]) / math.exp(-(x**2) / (2 * variance)))
    assert shares == pytest.approx([shares[0]] * len(shares), rel=1e-9)
    assert shares[0] * math.sqrt(2 * math.pi * variance) > 0.5  # at least every other proposal is kept


def test_exact_choice_exactly(monkeypatch):
    gamma = [Fraction(1), Fraction(0), Fraction(1, 2)]
    weights = [math.exp(-g) for g in gamma]
    found = outcomes(lambda: exact_choice(gamma), 1e-6, monkeypatch, bernoulli=True)
    assert agrees(found, {i: weight / sum(weights) for i, weight in enumerate(weights)}, missing=0.01)


def test_wrong_samplers_are_seen(monkeypatch):
    """A series that ends on the other parity, and a zero that comes with both signs."""

    def other_parity():
        return not bernoulli_exp(Fraction(1, 2))

    def zero_twice():
        magnitude = 0
        while bernoulli_exp(1):
            magnitude += 1
        return -magnitude if secrets.randbelow(2) else magnitude

    found = outcomes(other_parity, 1e-5, monkeypatch)
    assert not agrees(found, {True: math.exp(-0.5), False: 1 - math.exp(-0.5)}, missing=0.01)
    found = outcomes(zero_twice, 1e-5, monkeypatch)
    assert not agrees(found, {x: stats.dlaplace(1).pmf(x) for x in range(-9, 10)}, missing=0.1)


def follows(draws: torch.Tensor, pmf) -> bool:
    """Chi-square with the tails put together, at a false alarm rate of 1e-6."""
    low, high = (int(np.quantile(draws, q)) for q in (0.02, 0.98))
    clipped = draws.clamp(low, high) - low
    whole = np.arange(low - 5000, high + 5001)
    expected = np.bincount(np.clip(whole, low, high) - low, weights=pmf(whole))
    counts = np.bincount(clipped.numpy(), minlength=len(expected))
    return stats.chisquare(counts, len(draws) * expected / expected.sum()).pvalue > ALPHA


@pytest.mark.parametrize("scale", [0.5, 3, Fraction(7, 3), 12.25], ids=str)
def test_discrete_laplace_is_scipys(scale):
    draws = discrete_laplace(scale, 10_000)
    assert draws.dtype == torch.int64 and follows(draws, stats.dlaplace(float(1 / Fraction(scale))).pmf)


@pytest.mark.parametrize("sigma", [0.8, 2, Fraction(7, 2), 15.5], ids=str)
def test_discrete_gaussian_follows_its_density(sigma):
    draws = discrete_gaussian(sigma, 10_000)
    assert draws.dtype == torch.int64 and follows(draws, lambda x: np.exp(-(x**2) / (2 * float(sigma) ** 2)))
    assert not follows(draws, lambda x: np.exp(-(x**2) / (2 * (1.1 * float(sigma)) ** 2)))


def test_large_scales_keep_their_shape():
    """Beyond what float64 can count; the exact draws divided by the scale follow the continuous distribution."""
    for draws, continuous in ((discrete_laplace(2**50, 3000), "laplace"), (discrete_gaussian(2**50, 3000), "norm")):
        assert stats.kstest((draws.double() / 2**50).numpy(), continuous).pvalue > ALPHA
        assert len((draws % 2).unique()) == 2


@pytest.mark.parametrize("number", [3, 0.1, Fraction(1, 3), np.float32(0.1), np.float64(0.1), np.int64(7)], ids=repr)
def test_numbers_are_taken_as_the_fractions_that_they_are(number):
    assert exactly(number) == number and type(exactly(number).numerator) is int


# --- normals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_secure_normals_are_normal(dtype):
    z = secure_normal((301, 333), dtype=dtype)
    assert z.shape == (301, 333) and z.dtype == dtype
    assert stats.kstest(z.flatten().numpy(), "norm").pvalue > ALPHA
    n = z.numel()
    lagged = [(z.flatten()[:-lag] * z.flatten()[lag:]).mean() * math.sqrt(n) for lag in (1, 2, (n + 1) // 2)]
    assert max(map(abs, lagged)) < 5.5  # standard deviations, of the halves of a Box-Muller pair among others


def test_normals_have_all_bits_of_float64():
    """By chance two of 20,000 are alike, or 20 of them fit float32, far less than once in 1e6."""
    z = secure_normal((20_000,), dtype=F64)
    assert len(z.unique()) == len(z) and (z.float().double() == z).sum() < 20


def test_tails_are_as_heavy_as_they_should_be():
    """Counts beyond 3 and 4 standard deviations of 400,000 against the binomial distribution."""
    z = secure_normal((400_000,), dtype=F64).abs()
    for limit in (1.0, 3.0, 4.0):
        beyond = int((z > limit).sum())
        assert stats.binomtest(beyond, len(z), 2 * stats.norm.sf(limit)).pvalue > ALPHA


def test_all_bits_come_from_the_operating_system(monkeypatch):
    """Bytes of zeros give the one number that they stand for; the global states are not read."""
    torch.manual_seed(0)
    first = secure_normal((4,))
    torch.manual_seed(0)
    assert not torch.equal(first, secure_normal((4,)))
    monkeypatch.setattr(secure.os, "urandom", bytes)
    u = 2.0**-53
    expected = 4 * math.sqrt(-2 * math.log(u)) / 2
    assert secure_normal((3,), dtype=F64)[[0, 2]].tolist() == pytest.approx([expected, expected * 2 * math.pi * u])


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0), (5, 7), torch.Size([2, 3])], ids=str)
def test_any_shape(shape):
    assert secure_normal(shape).shape == shape and add_secure_noise(torch.zeros(shape), 1.0).shape == shape


@pytest.mark.parametrize("sigma", [1e-3, 0.75, 1.0, 1.5, 300.0])
def test_the_grid_is_a_power_of_two_below_sigma(sigma):
    gamma = noise_grid(sigma)
    assert math.frexp(gamma)[0] == 0.5 and 2**24 <= sigma / gamma < 2**25


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_noise_is_added_on_the_grid(dtype):
    value, sigma = torch.linspace(-3, 3, 50_000, dtype=dtype), 1.3
    before = value.clone()
    noisy = add_secure_noise(value, sigma)
    cells = noisy.double() / noise_grid(sigma)
    assert noisy.dtype == dtype and torch.equal(value, before) and torch.equal(cells, cells.round())
    assert stats.kstest(((noisy - value) / sigma).numpy(), "norm").pvalue > ALPHA


def test_to_add_on_the_grid_is_to_round_the_real_sum(monkeypatch):
    """What the proof says: the outcome is the Gaussian mechanism on the rounded vector, rounded, noise for noise."""
    z = secure_normal((10_000,), dtype=F64)
    monkeypatch.setattr(secure, "secure_normal", lambda shape, dtype: z)
    value, sigma = torch.linspace(-5, 5, 10_000, dtype=F64), 0.7
    gamma = noise_grid(sigma)
    rounded = gamma * (value / gamma).round()
    real = [exactly(v) + exactly(sigma) * exactly(noise) for v, noise in zip(rounded.tolist(), z.tolist(), strict=True)]
    expected = [float(gamma * round(y / exactly(gamma))) for y in real]
    assert add_secure_noise(value, sigma).tolist() == expected
    assert (rounded - value).abs().max() <= gamma / 2  # hence gamma * sqrt(d) in L2 for two vectors


# --- floating point ---------------------------------------------------------------------------------------------------


def test_what_is_called_impossible_is():
    """By trying every u in reach: a window 50 times as wide finds no more."""
    u = 1 - torch.rand(300, dtype=F64, generator=torch.Generator().manual_seed(0))
    y = -u.log()
    for value in (0.0, 0.3, 1.0):
        k = ((-(y - value).abs()).exp() * 2**53).round()[:, None] + torch.arange(-500, 501)
        noise = torch.where(y[:, None] < value, -1.0, 1.0) * -(k.clamp(1, 2**53) / 2**53).log()
        assert torch.equal(reachable(y, value, scale=1.0), (value + noise == y[:, None]).any(1))


def test_float_addition_has_holes_that_the_grid_closes():
    """Small sums of a float32 of about 1 are multiples of its last place; those of 0 are not."""
    noise = secure_normal((200_000,)) * 2
    near = [value + noise for value in (torch.tensor(0.0), torch.tensor(1.0))]
    place = 2.0**-25
    fine = [((y[y.abs() < 2**-3] / place) % 1 != 0).double().mean() for y in near]
    assert fine[0] > 0.5 and fine[1] == 0
    for value in (0.0, 1.0):
        y = add_secure_noise(torch.full((200_000,), value), 2.0)
        assert ((y[y.abs() < 2**-3] / noise_grid(2.0)) % 1 == 0).all()


def test_noise_that_a_dtype_cannot_hold_is_refused(refuses):
    """Of 100 normals of standard deviation 1e7, each is within the 65,504 of float16 once in 190."""
    value = torch.zeros(100, dtype=torch.float16)
    refuses(add_secure_noise, {"value": value, "sigma": 1e7}, "value with its noise does not fit", "dtype")


@pytest.mark.parametrize("sigma", [1e-30, 1e30])
def test_the_ends_of_what_is_accepted_have_their_noise(sigma):
    assert 0.3 < add_secure_noise(torch.zeros(1000, dtype=F64), sigma).std() / sigma < 2


# --- bad input --------------------------------------------------------------------------------------------------------

SCALES = (0, -1.0, math.nan, math.inf, "1", True, 2.0**51)
REFUSED = [
    *((discrete_laplace, {"scale": bad, "size": 1}, "scale is") for bad in SCALES),
    *((discrete_gaussian, {"sigma": bad, "size": 1}, "sigma is") for bad in SCALES),
    *((discrete_laplace, {"scale": 1, "size": bad}, "size is") for bad in (-1, 1.0, (2,), None)),
    *((bernoulli_exp, {"gamma": bad}, "gamma is") for bad in (-1, 0.5, "1", True)),
    *((secure_normal, {"shape": bad}, "shape is") for bad in (3, [3], (-1,), (1.0,), None)),
    *((secure_normal, {"shape": (3,), "dtype": bad}, "dtype is") for bad in (torch.int64, "float32", None)),
    *((add_secure_noise, {"value": torch.ones(2), "sigma": bad}, "sigma is")
      for bad in (0, -1.0, 1e-31, 1e308, math.inf, None)),
    *((add_secure_noise, {"value": bad, "sigma": 1.0}, "value is") for bad in (1.0, torch.tensor([1]), None)),
    *((add_secure_noise, {"value": torch.tensor([bad]), "sigma": 1.0}, "value is not finite")
      for bad in (math.nan, math.inf, 1e10)),
    (reachable, {"outputs": torch.ones(2), "value": 0.0, "scale": 1.0}, "outputs is"),
    (reachable, {"outputs": torch.ones(2, dtype=F64), "value": math.inf, "scale": 1.0}, "value is"),
    (reachable, {"outputs": torch.ones(2, dtype=F64), "value": 0.0, "scale": 0}, "scale is"),
    (check_source, {"secure": True, "generator": torch.Generator(), "device": torch.device("cpu")}, "generator is"),
    (check_source, {"secure": None, "generator": None, "device": torch.device("cpu")}, "secure is"),
    (noise_grid, {"sigma": 0.0}, "sigma is"),
]  # fmt: skip


@pytest.mark.parametrize(("function", "arguments", "words"), REFUSED)
def test_refuses(refuses, function, arguments, words):
    refuses(function, arguments, words)

r"""Composition without a curve: what k releases spend when all that is known of each is its $(\epsilon, \delta)$.

Beside `accounting` these show what it gains: the sum grows like k, advanced composition like $\sqrt{k}$ with a large
constant, Rényi curves like $\sqrt{k}$ with a small one.
"""

import math
from dataclasses import replace

from scipy.optimize import brentq

from spai_lab.checks import check_choice, check_count, check_number
from spai_lab.privacy.accounting import FAINTEST
from spai_lab.privacy.guarantee import ADD_REMOVE, ADJACENCIES, Guarantee, common_adjacency
from spai_lab.privacy.mechanisms import gaussian_delta
from spai_lab.privacy.secure import SCALES


def basic_composition(guarantee: Guarantee, count: int) -> Guarantee:
    r"""The same kind of release k times: $(k \epsilon, k \delta)$.

    Args:
        guarantee: of one release; the next may depend on what the last one said.
        count: k, at least 1.
    Returns:
        the guarantee of all of them together.
    Raises:
        ValueError: names the argument.
    Reference: Dwork and Roth 2014, "The algorithmic foundations of differential privacy", theorem 3.16.

    >>> print(basic_composition(Guarantee(0.1, 1e-7, "add/remove", ("a noisy step",)), 100))
    epsilon 10 at delta 1e-05, one record added or removed; covers a noisy step
    """
    common_adjacency(guarantee)
    check_count("count", count)
    return replace(guarantee, epsilon=count * guarantee.epsilon, delta_dp=min(1.0, count * guarantee.delta_dp))


def advanced_composition(guarantee: Guarantee, count: int, *, delta_slack: float) -> Guarantee:
    r"""The same kind of release k times, with a little more $\delta$ for less $\epsilon$.

    $\left(\sqrt{2 k \log(1 / \delta')} \, \epsilon + k \epsilon (e^\epsilon - 1), k \delta + \delta'\right)$: privacy
    losses of both signs cancel, as in a random walk.

    Args:
        guarantee: of one release; the next may depend on what the last one said.
        count: k, at least 1.
        delta_slack: $\delta'$, above 0, at most 1.
    Returns:
        the guarantee of all of them together; for few releases or a large $\epsilon$, `basic_composition` is better.
    Raises:
        ValueError: names the argument.
    Reference: Dwork and Roth 2014, theorem 3.20.

    >>> print(advanced_composition(Guarantee(0.1, 0.0, "add/remove", ("a noisy step",)), 100, delta_slack=1e-5))
    epsilon 5.85 at delta 1e-05, one record added or removed; covers a noisy step
    """
    common_adjacency(guarantee)
    check_count("count", count)
    check_number("delta_slack", delta_slack, low=0, high=1, exclusive=True)
    e, k = guarantee.epsilon, count
    grown = math.sqrt(2 * k * math.log(1 / delta_slack)) * e + k * e * math.expm1(e) if e < 700 else math.inf
    return replace(guarantee, epsilon=grown, delta_dp=min(1.0, k * guarantee.delta_dp + delta_slack))


def amplified_by_sampling(guarantee: Guarantee, sampling_rate: float) -> Guarantee:
    r"""A release made of a Poisson sample: $\left(\log(1 + q (e^\epsilon - 1)), q \delta\right)$.

    A record that was not drawn is not in the release at all, and nobody learns whether it was drawn.

    Args:
        guarantee: of the release that is made of the sample, for one record added or removed.
        sampling_rate: q in [0, 1]: each record is drawn by a coin of its own.
    Returns:
        the guarantee for the data that the sample is drawn from.
    Raises:
        ValueError: names the argument.
    Reference: Balle, Barthe and Gaboardi 2018, arXiv 1807.01647, theorem 8.

    >>> print(amplified_by_sampling(Guarantee(1.0, 1e-5, "add/remove", ("a noisy step",)), 0.01))
    epsilon 0.01704 at delta 1e-07, one record added or removed; covers a noisy step
    """
    if common_adjacency(guarantee) != ADD_REMOVE:
        raise ValueError(f"guarantee is for {guarantee.adjacency!r}; accepted: {ADD_REMOVE!r}, with a Poisson sample")
    check_number("sampling_rate", sampling_rate, low=0, high=1)
    q, e = sampling_rate, guarantee.epsilon
    lowered = math.log1p(q * math.expm1(e)) if e < 700 else e
    return replace(guarantee, epsilon=lowered, delta_dp=q * guarantee.delta_dp)


def gaussian_guarantee(
    noise_multiplier: float,
    delta_dp: float,
    *,
    adjacency: str = ADD_REMOVE,
    covers: tuple[str, ...] = ("a noisy step",),
) -> Guarantee:
    r"""The smallest $\epsilon$ of one Gaussian release.

    It solves $\delta(\epsilon) = \delta$ with the exact curve of `gaussian_delta`.

    Args:
        noise_multiplier: $\sigma$, the noise's standard deviation in units of the L2 sensitivity, from 1e-6 to 1e30.
        delta_dp: $\delta$, above 0, at most 1.
        adjacency: the neighbors that the sensitivity was taken for, "add/remove" or "replace".
        covers: what was released.
    Returns:
        the guarantee, for these neighbors.
    Raises:
        ValueError: names the argument.
    Reference: Balle and Wang 2018, arXiv 1805.06530, theorem 8.

    >>> print(gaussian_guarantee(4.0, 1e-5))
    epsilon 0.9263 at delta 1e-05, one record added or removed; covers a noisy step
    """
    check_number("noise_multiplier", noise_multiplier, low=FAINTEST, high=SCALES["high"])
    check_number("delta_dp", delta_dp, low=0, high=1, exclusive=True)
    check_choice("adjacency", adjacency, ADJACENCIES)

    def excess(epsilon: float) -> float:
        return gaussian_delta(noise_multiplier, 1.0, epsilon) - delta_dp

    if excess(0.0) <= 0:
        return Guarantee(0.0, delta_dp, adjacency, covers)
    high = 1.0
    while excess(high) > 0:
        high *= 2
    return Guarantee(float(brentq(excess, 0.0, high, xtol=1e-12)), delta_dp, adjacency, covers)

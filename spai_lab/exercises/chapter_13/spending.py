"""What many private answers cost together."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from spai_lab.exercises.chapter_13.answers import CHAPTER
from spai_lab.exercises.exercise import Exercise, Fault, call
from spai_lab.privacy.accounting import ORDERS, epsilon_of_rdp, rdp_laplace

NEGATIVE = (
    "It takes a root or a logarithm of a number below 0. The logarithm of `delta_dp` is below 0, that of "
    "`1 / delta_dp` above."
)


def my_epsilon_of_queries(k, epsilon, delta_dp):
    """The epsilon of many queries of the same data, by the better of two ways.

    k: how many queries were answered, at least 1.
    epsilon: each answer alone is epsilon-differentially private, above 0, with delta 0.
    delta_dp: the delta of all answers together, above 0, below 1.
    Returns the epsilon of all answers together, a number.
    """
    summed = k * epsilon
    by_curves = k * epsilon**2 / 2 + epsilon * math.sqrt(2 * k * math.log(1 / delta_dp))
    return min(summed, by_curves)


def at_order(k: int, epsilon: float, delta_dp: float, orders: np.ndarray) -> np.ndarray:
    """What the curve promises at each order."""
    return k * orders * epsilon**2 / 2 + math.log(1 / delta_dp) / (orders - 1)


def by_curves(k: int, epsilon: float, delta_dp: float) -> float:
    """The least of it, at the order 1 + sqrt(2 log(1 / delta) / k) / epsilon, where its slope is 0."""
    best = 1 + math.sqrt(2 * math.log(1 / delta_dp) / k) / epsilon
    return float(at_order(k, epsilon, delta_dp, np.array([best]))[0])


def only_adds_up(k, epsilon, delta_dp):
    """It never gets below k epsilon; add the curves first, and turn the sum into one epsilon once, at the end."""
    return k * epsilon


def only_takes_curves(k, epsilon, delta_dp):
    """It always takes the curves; for few queries, or a large epsilon, the plain sum is smaller."""
    return by_curves(k, epsilon, delta_dp)


def takes_the_larger(k, epsilon, delta_dp):
    """It takes the larger of the two; both are proven, so claim the smaller."""
    return max(k * epsilon, by_curves(k, epsilon, delta_dp))


def converts_each_query(k, epsilon, delta_dp):
    """It turns the curve of each query into an epsilon, and adds these; that pays for delta k times."""
    return k * by_curves(1, epsilon, delta_dp)


def takes_the_root_alone(k, epsilon, delta_dp):
    """It returns the root of k times epsilon; losses are that small typically, and delta wants all but rare ones."""
    return math.sqrt(k) * epsilon


def forgets_the_curve(k, epsilon, delta_dp):
    """It leaves out k epsilon^2 / 2, the mean loss, which grows like k and in the end outweighs the root."""
    return min(k * epsilon, epsilon * math.sqrt(2 * k * math.log(1 / delta_dp)))


def forgets_the_conversion(k, epsilon, delta_dp):
    """It lets the order fall to 1 and forgets log(1 / delta) / (order - 1), which is infinite there."""
    return min(k * epsilon, k * epsilon**2 / 2)


def takes_one_order(k, epsilon, delta_dp):
    """It takes the order 2, whatever the queries; each order is a true bound, so search for the best."""
    return min(k * epsilon, at_order(k, epsilon, delta_dp, np.array([2.0])).item())


def takes_whole_orders(k, epsilon, delta_dp):
    """It tries whole orders only; any number above 1 is an order, and here the best lies between two of them."""
    return min(k * epsilon, at_order(k, epsilon, delta_dp, np.arange(2.0, 200)).min().item())


def forgets_the_half(k, epsilon, delta_dp):
    """Its curve is twice as high: it takes epsilon^2 for epsilon^2 / 2."""
    return min(k * epsilon, by_curves(2 * k, epsilon, delta_dp))


def forgets_the_two_under_the_root(k, epsilon, delta_dp):
    """It has lost a 2 under the root: the least of a x + L / x, over x, is 2 sqrt(a L), with a = k epsilon^2 / 2."""
    return min(k * epsilon, k * epsilon**2 / 2 + epsilon * math.sqrt(k * math.log(1 / delta_dp)))


def splits_delta(k, epsilon, delta_dp):
    """It splits delta among the queries; each alone has none, and the sum of the curves is converted once."""
    return min(k * epsilon, by_curves(k, epsilon, delta_dp / k))


def counts_digits_of_delta(k, epsilon, delta_dp):
    """It takes the logarithm of delta to the base 10; epsilon is an exponent of e: the natural one, `math.log`."""
    return min(k * epsilon, by_curves(k, epsilon, math.exp(math.log10(delta_dp))))


def takes_advanced_composition(k, epsilon, delta_dp):
    """It takes advanced composition of 2010, with e^epsilon - 1; it holds, and the curve epsilon^2 / 2 proves less."""
    root = epsilon * math.sqrt(2 * k * math.log(1 / delta_dp))
    return min(k * epsilon, root + k * epsilon * math.expm1(epsilon))


def knows_the_noise(k, epsilon, delta_dp):
    """It takes the exact curve of Laplace noise; of these answers only epsilon is known, so take epsilon^2 / 2."""
    return min(k * epsilon, epsilon_of_rdp(ORDERS, k * rdp_laplace(1 / epsilon), delta_dp, "mironov")[0])


def converts_tightly(k, epsilon, delta_dp):
    """It takes the tighter conversion of 2020; it holds, and asked is the older one, which can be solved by hand."""
    return min(k * epsilon, epsilon_of_rdp(ORDERS, k * ORDERS * epsilon**2 / 2, delta_dp)[0])


SERIES = (
    (200, 0.1, 1e-5),
    (20, 0.1, 1e-6),
    (300, 0.2, 1e-5),
    (1000, 0.01, 1e-6),
    (1, 0.5, 1e-5),
    (50, 3.0, 1e-5),
)


def series() -> list[dict]:
    """Many queries of a small epsilon, for which curves are better, few, and some of a large epsilon."""
    return [{"k": k, "epsilon": epsilon, "delta_dp": delta_dp} for k, epsilon, delta_dp in SERIES]


def by_search(k, epsilon, delta_dp) -> float:
    """The least over a fine grid of orders, and the sum."""
    orders = 1 + np.geomspace(1e-3, 1e5, 20_001)
    return min(k * epsilon, at_order(k, epsilon, delta_dp, orders).min().item())


def spend(answer: Callable, **case: object) -> object:
    """The answer's result, unless it asks for a root or a logarithm that does not exist."""
    try:
        result = call(answer, **case)
    except ValueError as error:
        if any(words in str(error) for words in ("domain", "positive input", "nonnegative input")):
            raise Fault(NEGATIVE) from error
        raise
    if isinstance(result, float | Tensor) and torch.as_tensor(result).isnan().any():
        raise Fault(NEGATIVE)
    return result


def not_the_least(result: np.ndarray, k, epsilon, delta_dp) -> str:
    """On which side of what is proven the claim lies."""
    given = f"For `k = {k}, epsilon = {epsilon:g}, delta_dp = {delta_dp:g}` it returns {result:.4g}"
    summed, curves = k * epsilon, by_curves(k, epsilon, delta_dp)
    proven = f"the sum proves {summed:.4g}, the curves prove {curves:.4g}"
    if result < min(summed, curves):
        return f"{given}, which neither way proves: {proven}."
    return f"{given}, which is not the least: {proven}."


epsilon_of_queries = Exercise(
    chapter=CHAPTER,
    task=r"""
        **The price of many questions.** Of the same data `k` queries are answered, each $\epsilon$-differentially
        private with $\delta = 0$; more is not known of them. Together they are $k \epsilon$-private: budgets add. That
        is one way. For the other, take curves: whatever is $\epsilon$-private has a Rényi curve of at most
        $\frac{\alpha \epsilon^2}{2}$ (Bun and Steinke 2016). Curves add, and the sum is turned into one
        $\epsilon_\mathrm{all}$ by the older conversion, which spends a $\delta$:

        $$\epsilon_\mathrm{all} = \min_{\alpha > 1} \; k \, \frac{\alpha \epsilon^2}{2}
        + \frac{\log (1 / \delta)}{\alpha - 1}.$$

        Both ways hold, so the smaller number counts. Write `my_epsilon_of_queries(k, epsilon, delta_dp)`: the
        $\epsilon_\mathrm{all}$ that can be claimed.
    """,
    solution=my_epsilon_of_queries,
    truth=by_search,
    cases=series,
    tested="1 to 1,000 queries of epsilon 0.01 to 3, against a search over 20,000 orders and the sum, within 0.01",
    hints=(
        "The minimum over the orders can be searched for, on a fine grid of numbers above 1, or found by hand.",
        "By hand: with $x = \\alpha - 1$ it is $a + a x + L / x$, where $a = k \\epsilon^2 / 2$ and "
        "$L = \\log(1 / \\delta)$. The slope is 0 at $x = \\sqrt{L / a}$.",
        "There it is $a + 2 \\sqrt{a L}$. Take the smaller one of that and `k * epsilon`.",
    ),
    mistakes=(
        only_adds_up,
        only_takes_curves,
        takes_the_larger,
        converts_each_query,
        takes_the_root_alone,
        forgets_the_curve,
        forgets_the_conversion,
        takes_one_order,
        takes_whole_orders,
        forgets_the_half,
        forgets_the_two_under_the_root,
        splits_delta,
        counts_digits_of_delta,
        takes_advanced_composition,
        knows_the_noise,
        converts_tightly,
    ),
    call=spend,
    look=not_the_least,
    tolerance=0.01,
)

r"""Accounting: what many noisy releases of the same data spend together, in Rényi differential privacy.

A release is summed up by a curve: for each order $\alpha > 1$, the largest Rényi divergence between what it says of two
neighbors, $\varepsilon(\alpha) = \max D_\alpha(M(D) \| M(D'))$. Curves over the same orders are added when releases are
made of the same data, and the sum is turned into $\epsilon$ at some $\delta$ once, at the end.
"""

import math

import numpy as np
from scipy.optimize import brentq
from scipy.special import gammaln, log_ndtr

from spai_lab.checks import check_choice, check_count, check_number, describe
from spai_lab.privacy.guarantee import ADD_REMOVE, Guarantee

CONVERSIONS = ("canonne", "mironov")
ORDERS = np.concatenate([np.arange(11, 110) / 10, np.arange(11.0, 64), [80, 96, 128, 192, 256, 512, 1024]])
ORDERS.flags.writeable = False
TAIL = 24
CLOSE = 1e-9
FAINTEST, QUIETEST, LOUDEST = 1e-6, 1e-2, 1e6


# --- curves -----------------------------------------------------------------------------------------------------------


def rdp_gaussian(noise_multiplier: float, orders: np.ndarray = ORDERS) -> np.ndarray:
    r"""The curve of the Gaussian mechanism: $\varepsilon(\alpha) = \frac{\alpha}{2 \sigma^2}$.

    Args:
        noise_multiplier: $\sigma$, the noise's standard deviation in units of the L2 sensitivity, from 1e-6 to 1e6.
        orders: $\alpha$, each above 1.
    Returns:
        $\varepsilon(\alpha)$, like `orders`; of the adjacency that the sensitivity was taken for.
    Raises:
        ValueError: names the argument.
    Reference: Mironov 2017, arXiv 1702.07476, proposition 7.

    >>> rdp_gaussian(2.0, np.array([2.0, 16.0]))
    array([0.25, 2.  ])
    """
    check_noise(noise_multiplier)
    return check_orders(orders) / (2 * float(noise_multiplier) ** 2)


def rdp_laplace(noise_multiplier: float, orders: np.ndarray = ORDERS) -> np.ndarray:
    r"""The curve of the Laplace mechanism.

    $\varepsilon(\alpha) = \frac{1}{\alpha - 1} \log \left( \frac{\alpha}{2 \alpha - 1} e^{(\alpha - 1) / \lambda} +
    \frac{\alpha - 1}{2 \alpha - 1} e^{-\alpha / \lambda} \right)$, which tends to $1 / \lambda$, the pure guarantee.

    Args:
        noise_multiplier: $\lambda$, the noise's scale in units of the L1 sensitivity, from 1e-6 to 1e6.
        orders: $\alpha$, each above 1.
    Returns:
        $\varepsilon(\alpha)$, like `orders`; of the adjacency that the sensitivity was taken for.
    Raises:
        ValueError: names the argument.
    Reference: Mironov 2017, arXiv 1702.07476, proposition 6 and table II.

    >>> rdp_laplace(2.0, np.array([1.5, 1000.0])).round(3)
    array([0.156, 0.499])
    """
    check_noise(noise_multiplier)
    alpha, scale = check_orders(orders), float(noise_multiplier)
    above = np.log(alpha / (2 * alpha - 1)) + (alpha - 1) / scale
    below = np.log((alpha - 1) / (2 * alpha - 1)) - alpha / scale
    return np.maximum(np.logaddexp(above, below), 0) / (alpha - 1)


def rdp_sampled_gaussian(sampling_rate: float, noise_multiplier: float, orders: np.ndarray = ORDERS) -> np.ndarray:
    r"""The curve of one step of private training: the Gaussian mechanism on a Poisson sample.

    $\varepsilon(\alpha) = \frac{1}{\alpha - 1} \log A_\alpha$ with $A_\alpha = \mathbb{E}_{z \sim \mu_0} \left(1 - q +
    q \frac{\mu_1(z)}{\mu_0(z)}\right)^\alpha$, $\mu_0 = N(0, \sigma^2)$ and $\mu_1 = N(1, \sigma^2)$: the output
    without the record, and with it, if it is drawn.

    Args:
        sampling_rate: q in [0, 1]: each record is drawn by a coin of its own, so that the size of the sample varies.
            For batches of a fixed size, shuffled or drawn without replacement, this curve does not hold.
        noise_multiplier: $\sigma$, the noise's standard deviation in units of the clipping norm, from 1e-6 to 1e6.
        orders: $\alpha$, each above 1.
    Returns:
        $\varepsilon(\alpha)$, like `orders`; for one record added or removed.
    Raises:
        ValueError: names the argument.
    Reference: Mironov, Talwar and Zhang 2019, arXiv 1908.10530, theorems 4 and 5, section 3.3.

    >>> rdp_sampled_gaussian(0.01, 1.1, np.array([2.0, 2.5])).round(8)
    array([0.00012851, 0.00016208])
    """
    check_number("sampling_rate", sampling_rate, low=0, high=1)
    check_noise(noise_multiplier)
    alpha, q, sigma = check_orders(orders), float(sampling_rate), float(noise_multiplier)
    if q == 1:
        return rdp_gaussian(sigma, alpha)
    log_A = np.zeros_like(alpha)
    if q > 0:
        whole = alpha == np.round(alpha)
        log_A[whole] = [log_A_whole(int(order), q, sigma) for order in alpha[whole]]
        log_A[~whole] = log_A_fractional(alpha[~whole], q, sigma)
    return np.maximum(log_A, 0) / (alpha - 1)


def log_A_whole(alpha: int, q: float, sigma: float) -> float:
    r"""$\log A_\alpha$ for a whole order: the binomial theorem under the expectation.

    $A_\alpha = \sum_{k=0}^\alpha \binom{\alpha}{k} (1-q)^{\alpha-k} q^k e^{(k^2-k)/2\sigma^2} = 1 + \sum_{k=2}^\alpha
    \binom{\alpha}{k} (1-q)^{\alpha-k} q^k \left(e^{(k^2-k)/2\sigma^2} - 1\right)$: the binomial weights sum to 1, and
    what is left is exact however small it is.
    """
    k = np.arange(2, alpha + 1)
    u = (k * k - k) / (2 * sigma**2)
    log_grown = u + np.log(-np.expm1(-u))
    log_terms = log_binomial(alpha, k) + (alpha - k) * math.log1p(-q) + k * math.log(q) + log_grown
    return float(np.logaddexp(0, np.logaddexp.reduce(log_terms)))


def log_A_fractional(alpha: np.ndarray, q: float, sigma: float) -> np.ndarray:
    r"""$\log A_\alpha$ for orders between the whole ones, `(M,)`: a binomial series on each side of $z_0$.

    At $z_0 = \frac{1}{2} + \sigma^2 \log(q^{-1} - 1)$ both parts of the mixture are alike, and with $j = \alpha - i$
    $A_\alpha = \sum_{i=0}^\infty \binom{\alpha}{i} \left[ (1-q)^j q^i e^{(i^2-i)/2\sigma^2} \Phi(\tfrac{z_0-i}{\sigma})
    + (1-q)^i q^j e^{(j^2-j)/2\sigma^2} \Phi(\tfrac{j-z_0}{\sigma}) \right]$, where $\Phi(-x) = \frac{1}{2}
    \mathrm{erfc}(x / \sqrt{2})$. From $i = \lceil \alpha \rceil$ on the signs alternate: `alternating` sums that tail.
    """
    z_0 = 0.5 + sigma**2 * math.log(1 / q - 1)
    alpha = alpha[:, None]
    first = np.ceil(alpha)
    head = np.arange(first.max(initial=0))
    tail = first + np.arange(TAIL)
    i = np.concatenate([np.broadcast_to(head, (len(alpha), len(head))), tail], axis=1)
    weight = np.concatenate([(head < first).astype(float), np.broadcast_to(alternating(TAIL), tail.shape)], axis=1)
    j = alpha - i
    log_low = j * math.log1p(-q) + i * math.log(q) + (i * i - i) / (2 * sigma**2) + log_ndtr((z_0 - i) / sigma)
    log_high = i * math.log1p(-q) + j * math.log(q) + (j * j - j) / (2 * sigma**2) + log_ndtr((j - z_0) / sigma)
    log_terms = log_binomial(alpha, i) + np.logaddexp(log_low, log_high)
    largest = log_terms.max(axis=1, initial=-math.inf, where=weight != 0, keepdims=True)
    log_terms = np.where(weight != 0, log_terms - largest, -math.inf)
    return largest[:, 0] + np.log((weight * np.exp(log_terms)).sum(axis=1))


def log_binomial(alpha: float | np.ndarray, k: np.ndarray) -> np.ndarray:
    r"""$\log |\binom{\alpha}{k}|$, for whole and for fractional $\alpha$."""
    return gammaln(alpha + 1) - gammaln(k + 1) - gammaln(alpha - k + 1)


def alternating(terms: int) -> np.ndarray:
    r"""Weights $w_k$ with $\sum_k w_k a_k \approx \sum_k (-1)^k a_k$ over all k, from the first `terms` of the $a_k$.

    The error is below $2 \cdot 5.8^{-n}$ of the sum where the $a_k$ are moments of a measure on [0, 1]. Those of
    `log_A_fractional` are: a Beta integral times the mean of powers of a likelihood ratio below 1.

    Reference: Cohen, Rodriguez Villegas and Zagier 2000, "Convergence acceleration of alternating series", algorithm 1.

    >>> round(float(alternating(24) @ (1 / (1 + np.arange(24)))), 14), round(math.log(2), 14)
    (0.69314718055995, 0.69314718055995)
    """
    d = (3 + math.sqrt(8)) ** terms
    d = (d + 1 / d) / 2
    b, c, weights = -1.0, -d, []
    for k in range(terms):
        c = b - c
        weights.append(c / d)
        b *= (k + terms) * (k - terms) / ((k + 0.5) * (k + 1))
    return np.array(weights)


# --- from curves to guarantees ----------------------------------------------------------------------------------------


def epsilon_of_rdp(
    orders: np.ndarray, rdp: np.ndarray, delta_dp: float, conversion: str = "canonne"
) -> tuple[float, float]:
    r"""The smallest $\epsilon$ that a curve promises at $\delta$, and the order that gives it.

    "mironov": $\epsilon = \min_\alpha \varepsilon(\alpha) + \frac{\log(1 / \delta)}{\alpha - 1}$; "canonne", never
    larger: $\epsilon = \min_\alpha \varepsilon(\alpha) + \frac{\log(1 / \delta)}{\alpha - 1} +
    \log \frac{\alpha - 1}{\alpha} - \frac{\log \alpha}{\alpha - 1}$.

    Args:
        orders: $\alpha$, each above 1, `(M,)`.
        rdp: $\varepsilon(\alpha)$ of the whole, at least 0, `(M,)`: of releases of the same data, the sum.
        delta_dp: $\delta$, above 0, at most 1.
        conversion: "canonne" or "mironov".
    Returns:
        $(\epsilon, \alpha)$, with $\epsilon$ at least 0.
    Raises:
        ValueError: names the argument.
    Reference: Mironov 2017, arXiv 1702.07476, proposition 3; Canonne, Kamath and Steinke 2020, arXiv 2004.00010,
        proposition 12, and Balle et al. 2020, arXiv 1905.09982, theorem 21.

    >>> epsilon, order = epsilon_of_rdp(ORDERS, 1000 * rdp_sampled_gaussian(0.01, 1.1), 1e-5)
    >>> round(epsilon, 6), order
    (1.71177, 9.6)
    """
    alpha = check_orders(orders)
    rdp = check_rdp(rdp, alpha)
    epsilon = rdp + overhead(alpha, delta_dp, conversion)
    best = int(epsilon.argmin())
    return max(float(epsilon[best]), 0.0), float(alpha[best])


def overhead(alpha: np.ndarray, delta_dp: float, conversion: str) -> np.ndarray:
    r"""What $\epsilon$ is above $\varepsilon(\alpha)$, for each order."""
    check_number("delta_dp", delta_dp, low=0, high=1, exclusive=True)
    check_choice("conversion", conversion, CONVERSIONS)
    older = math.log(1 / delta_dp) / (alpha - 1)
    return older if conversion == "mironov" else older + np.log1p(-1 / alpha) - np.log(alpha) / (alpha - 1)


def rdp_guarantee(
    rdp: np.ndarray,
    *,
    delta_dp: float,
    covers: tuple[str, ...],
    adjacency: str = ADD_REMOVE,
    orders: np.ndarray = ORDERS,
    conversion: str = "canonne",
) -> Guarantee:
    r"""What a curve promises; of several releases of the same data, the curves are added first.

    Args:
        rdp: $\varepsilon(\alpha)$ at `orders`, `(M,)`.
        delta_dp: $\delta$, above 0, at most 1.
        covers: what was released, each part a few words.
        adjacency: of which all the curves speak.
        orders: $\alpha$, each above 1.
        conversion: "canonne" or "mironov", as `epsilon_of_rdp`.
    Returns:
        the guarantee.
    Raises:
        ValueError: names the argument.
    Reference: Mironov 2017, arXiv 1702.07476, proposition 1 (composition).

    Principal axes of rows of norm at most 1, from the sum of their outer products with Gaussian noise of $\sigma = 16$
    (sensitivity 1), then training on what they leave:

    >>> rdp = rdp_gaussian(16.0) + 1000 * rdp_sampled_gaussian(0.01, 1.1)
    >>> print(rdp_guarantee(rdp, delta_dp=1e-5, covers=("the principal axes", "the weights")))
    epsilon 1.731 at delta 1e-05, one record added or removed; covers the principal axes, the weights
    """
    epsilon, _ = epsilon_of_rdp(orders, rdp, delta_dp, conversion)
    return Guarantee(epsilon, delta_dp, adjacency, covers)


def dp_sgd_guarantee(
    *,
    sampling_rate: float,
    noise_multiplier: float,
    steps: int,
    delta_dp: float,
    conversion: str = "canonne",
    covers: tuple[str, ...] = ("the weights after every step",),
) -> Guarantee:
    r"""What `steps` steps of private training on Poisson samples promise: one curve, times the steps.

    Args:
        sampling_rate: q in [0, 1]: each record is drawn by a coin of its own.
        noise_multiplier: $\sigma$, the noise in units of the clipping norm, from 1e-6 to 1e6.
        steps: how many, at least 0.
        delta_dp: $\delta$, above 0, at most 1.
        conversion: "canonne" or "mironov", as `epsilon_of_rdp`.
        covers: what was released.
    Returns:
        the guarantee, for one record added or removed.
    Raises:
        ValueError: names the argument.
    Reference: Mironov, Talwar and Zhang 2019, arXiv 1908.10530; Abadi 2016, arXiv 1607.00133, theorem 1, by moments.

    >>> print(dp_sgd_guarantee(sampling_rate=256 / 60000, noise_multiplier=1.1, steps=14062, delta_dp=1e-5))
    epsilon 2.597 at delta 1e-05, one record added or removed; covers the weights after every step
    """
    check_count("steps", steps, low=0)
    rdp = steps * rdp_sampled_gaussian(sampling_rate, noise_multiplier)
    return rdp_guarantee(rdp, delta_dp=delta_dp, covers=covers, conversion=conversion)


def epsilon_curve(
    steps: np.ndarray, *, sampling_rate: float, noise_multiplier: float, delta_dp: float, conversion: str = "canonne"
) -> np.ndarray:
    r"""$\epsilon$ of private training after each of many numbers of steps, at once: what a plot over time needs.

    Args:
        steps: numbers of steps, each at least 0, `(T,)`.
        sampling_rate, noise_multiplier, delta_dp, conversion: as `dp_sgd_guarantee`.
    Returns:
        $\epsilon$, `(T,)`, for one record added or removed.
    Raises:
        ValueError: names the argument.

    >>> epsilon_curve(np.array([100, 1000]), sampling_rate=0.01, noise_multiplier=1.1, delta_dp=1e-5).round(3)
    array([0.956, 1.712])
    """
    steps = np.asarray(steps)
    if steps.ndim != 1 or not np.issubdtype(steps.dtype, np.integer) or (steps < 0).any():
        raise ValueError(f"steps is {describe(steps)}; accepted: whole numbers of at least 0, (T,)")
    rdp = steps[:, None] * rdp_sampled_gaussian(sampling_rate, noise_multiplier)
    return np.maximum((rdp + overhead(ORDERS, delta_dp, conversion)).min(axis=1), 0)


def noise_for(
    *, epsilon: float, delta_dp: float, sampling_rate: float, steps: int, conversion: str = "canonne"
) -> float:
    r"""The noise multiplier $\sigma$ with which private training spends just `epsilon`.

    Args:
        epsilon: the budget $\epsilon$, above 0; never exceeded, and missed by less than a millionth.
        delta_dp: $\delta$, above 0, at most 1.
        sampling_rate: q, above 0, at most 1, by Poisson sampling.
        steps: how many, at least 1.
        conversion: "canonne" or "mironov", as `epsilon_of_rdp`.
    Returns:
        $\sigma$, the noise in units of the clipping norm; the budget is kept for one record added or removed.
    Raises:
        ValueError: an argument is out of its range, or no noise from 0.01 to a million gives that `epsilon`.
    Reference: Mironov, Talwar and Zhang 2019, arXiv 1908.10530, whose curve is solved for the noise.

    >>> round(noise_for(epsilon=1.711770, delta_dp=1e-5, sampling_rate=0.01, steps=1000), 4)
    1.1
    """
    check_number("epsilon", epsilon, low=0, exclusive=True)
    check_number("sampling_rate", sampling_rate, low=0, high=1, exclusive=True)
    check_count("steps", steps)
    above = overhead(ORDERS, delta_dp, conversion)
    least = max(float(above.min()), 0.0)
    if epsilon <= least:
        raise ValueError(
            f"epsilon is {epsilon:g}; accepted: above {least:.3g}, which orders up to {ORDERS[-1]:g} give at delta_dp "
            f"{delta_dp:g} whatever the noise"
        )

    def excess(log_sigma: float) -> float:
        rdp = steps * rdp_sampled_gaussian(sampling_rate, math.exp(log_sigma))
        return math.log(max(float((rdp + above).min()), CLOSE) / epsilon)

    low, high = math.log(QUIETEST), math.log(LOUDEST)
    if excess(high) > 0 or excess(low) < 0:
        raise ValueError(f"epsilon is {epsilon:g}; accepted: what a noise from {QUIETEST:g} to {LOUDEST:g} can give")
    root = brentq(excess, low, high, xtol=CLOSE, rtol=CLOSE)
    while excess(root) > 0:
        root += 2 * CLOSE
    return math.exp(root)


def check_noise(noise_multiplier: float) -> None:
    """Raise `ValueError` unless it is a noise whose square is neither lost nor infinite in a float."""
    check_number("noise_multiplier", noise_multiplier, low=FAINTEST, high=LOUDEST)


def as_floats(values: np.ndarray) -> np.ndarray:
    """An array of floats; of what is no such array, none, which all checks refuse."""
    try:
        return np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        return np.empty(0)


def check_orders(orders: np.ndarray) -> np.ndarray:
    """The orders as floats; raises `ValueError` unless there are some and each is finite and above 1."""
    alpha = as_floats(orders)
    if alpha.ndim != 1 or len(alpha) == 0 or not np.isfinite(alpha).all() or (alpha <= 1).any():
        raise ValueError(f"orders is {describe(orders)}; accepted: finite numbers above 1, (M,)")
    return alpha


def check_rdp(rdp: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The curve as floats; raises `ValueError` unless it has a value of at least 0 for each order."""
    curve = as_floats(rdp)
    if curve.shape != alpha.shape or not (curve >= 0).all():
        raise ValueError(
            f"rdp is {describe(rdp)}; accepted: numbers of at least 0, one for each of {len(alpha)} orders"
        )
    return curve

r"""A statistical test of privacy: is $\Pr[M(D) \in S] \le e^\epsilon \Pr[M(D') \in S] + \delta$ for many sets S?

N outputs of each of two neighbors are counted in m sets, both ways. Each of the 2 m claims is rejected only if Clopper
and Pearson's bounds, one of each probability, contradict it; each bound is wrong with probability $\alpha / (4 m)$ at
most, so that a private mechanism is accused with probability $\alpha$ at most, however the sets overlap.

How many outputs it takes: by Hoeffding, a bound is off by $r = \sqrt{\ln(4 m / \alpha) / 2 N}$ at most, twice that from
the truth. A mechanism whose true excess over some S is g, $p - e^\epsilon p' - \delta = g$, is caught once
$2 r (1 + e^\epsilon) < g$: $N > 2 (1 + e^\epsilon)^2 \ln(4 m / \alpha) / g^2$, but for a chance of $\alpha / (2 m)$.
"""

import math

import numpy as np
from scipy.stats import beta

ALPHA = 1e-6
CUTS = 20


def outputs_needed(gap: float, epsilon: float, sets: int, alpha: float = ALPHA) -> int:
    """N, from the line above."""
    return math.ceil(2 * (1 + math.exp(epsilon)) ** 2 * math.log(4 * sets / alpha) / gap**2)


def half_lines_and_intervals(outputs: np.ndarray) -> list[tuple[float, float]]:
    """`[low, high)` between any two cuts, the ends among them, but the whole line; from outputs that are not tested."""
    ends = [-math.inf, *np.linspace(*np.quantile(outputs, [0.001, 0.999]), CUTS), math.inf]
    return [(low, high) for i, low in enumerate(ends) for high in ends[i + 1 :]][:-1]


def atoms(classes: int) -> list[tuple[float, float]]:
    """Each class, and each class with all before it."""
    return [(low, k + 1) for k in range(classes) for low in {k, 0}]


def excess(one, other, epsilon: float, delta_dp: float, sets: list, alpha: float = ALPHA) -> float:
    """How far the bounds contradict the claim in the worst set, over both ways; at most 0 accuses nobody."""
    one, other = np.sort(np.asarray(one)), np.sort(np.asarray(other))
    n, level = len(one), alpha / (4 * len(sets))
    edges = np.array(sets)
    counts = [np.diff(np.searchsorted(sample, edges), axis=1)[:, 0] for sample in (one, other)]

    def claim(hits, others):
        low = np.where(hits > 0, beta.ppf(level, hits, n - hits + 1), 0.0)
        high = np.where(others < n, beta.isf(level, others + 1, n - others), 1.0)
        return (low - math.exp(epsilon) * high - delta_dp).max()

    return max(claim(*counts), claim(*reversed(counts)))

r"""Robust aggregation: what a server makes of n updates, f of which may be anything.

Every aggregate maps updates `(n, D)`, one row for each participant, to the one `(D,)` that the server applies. The mean
alone breaks with a single liar, who can move it anywhere.
"""

import math

import torch
from torch import Tensor

from spai_lab.checks import check_count, check_number, describe


def krum(updates: Tensor, *, byzantine: int) -> Tensor:
    r"""Krum: the one update that is nearest to its nearest neighbors.

    $\arg\min_{V_i} \sum_{j: i \to j} \|V_i - V_j\|_2^2$, where $i \to j$ are the $n - f - 2$ others nearest to $V_i$.

    Args:
        updates: `(n, D)`, floating point, n at least 2 f + 3.
        byzantine: f, how many participants may send anything, at least 0.
    Returns:
        `(D,)`, one of the updates; the first of those that tie.
    Raises:
        ValueError: names the argument.
    Reference: Blanchard 2017, arXiv 1703.02757, section 4.
    Survey: defenses against poisoning, insensitive training.

    >>> krum(torch.tensor([[1.0], [1.1], [1.2], [1.4], [99.0]]), byzantine=1)
    tensor([1.1000])
    """
    return updates[krum_scores(updates, byzantine).argmin()]


def multi_krum(updates: Tensor, *, byzantine: int, select: int | None = None) -> Tensor:
    r"""Multi-Krum: the mean of the m updates with the best Krum scores.

    Args:
        updates: `(n, D)`, floating point, n at least 2 f + 3.
        byzantine: f, how many participants may send anything, at least 0.
        select: m, from 1 to n; None takes n - f, the most that leaves f out.
    Returns:
        `(D,)`.
    Raises:
        ValueError: names the argument.
    Reference: Blanchard 2017, arXiv 1703.02757, section 6.
    Survey: defenses against poisoning, insensitive training.

    >>> multi_krum(torch.tensor([[1.0], [1.1], [1.2], [1.5], [99.0]]), byzantine=1)
    tensor([1.2000])
    """
    scores = krum_scores(updates, byzantine)
    if select is not None:
        check_count("select", select)
        check_number("select", select, low=1, high=len(updates))
    best = scores.argsort(stable=True)[: len(updates) - byzantine if select is None else select]
    return updates[best].mean(0)


def krum_scores(updates: Tensor, byzantine: int) -> Tensor:
    """How far each update is from the n - f - 2 others nearest to it: the sum of squared distances, `(n,)`."""
    check_updates(updates)
    check_count("byzantine", byzantine, low=0)
    n = len(updates)
    if 2 * byzantine + 2 >= n:
        raise ValueError(f"byzantine is {byzantine} of {n} participants; accepted: below {n / 2 - 1:g}, n / 2 - 1")
    between = torch.stack([(updates - update).square().sum(1) for update in updates])
    between.fill_diagonal_(math.inf)
    return between.sort(dim=1)[0][:, : n - byzantine - 2].sum(1)


def coordinate_median(updates: Tensor) -> Tensor:
    r"""The median of each coordinate by itself: $g_k = \mathrm{med}\{V_{1k}, \dots, V_{nk}\}$.

    Of an even number, the mean of the two in the middle.

    Args:
        updates: `(n, D)`, floating point, n at least 1.
    Returns:
        `(D,)`.
    Raises:
        ValueError: names the argument.
    Reference: Yin 2018, arXiv 1803.01498, definition 1 and algorithm 1, option I.
    Survey: defenses against poisoning, insensitive training.

    >>> coordinate_median(torch.tensor([[1.0, 5.0], [2.0, -99.0], [99.0, 6.0]]))
    tensor([2., 5.])
    """
    check_updates(updates)
    n = len(updates)
    return updates.sort(dim=0)[0][(n - 1) // 2 : n // 2 + 1].mean(0)


def trimmed_mean(updates: Tensor, *, trim: float = 0.2) -> Tensor:
    r"""The mean of each coordinate without its largest and its smallest values.

    $g_k = \frac{1}{n - 2 m} \sum_{i = m + 1}^{n - m} V_{(i) k}$ over the sorted values, with
    $m = \lfloor \beta n \rfloor$.

    Args:
        updates: `(n, D)`, floating point, n at least 1.
        trim: $\beta$, the share left out at each end, at least the share of liars, from 0 to below 1/2.
    Returns:
        `(D,)`.
    Raises:
        ValueError: names the argument.
    Reference: Yin 2018, arXiv 1803.01498, definition 2 and algorithm 1, option II.
    Survey: defenses against poisoning, insensitive training.

    >>> trimmed_mean(torch.tensor([[1.0], [2.0], [3.0], [4.0], [99.0]]))
    tensor([3.])
    """
    check_updates(updates)
    check_number("trim", trim, low=0, high=0.5)
    if trim == 0.5:
        raise ValueError("trim is 0.5; accepted: below 0.5, so that something is left")
    m = math.floor(trim * len(updates) + 1e-9)
    return updates.sort(dim=0)[0][m : len(updates) - m].mean(0)


def check_updates(updates: Tensor) -> None:
    """Raise `ValueError` unless these are finite updates `(n, D)`, n and D at least 1."""
    shaped = isinstance(updates, Tensor) and updates.is_floating_point() and updates.ndim == 2 and updates.numel()
    if not shaped:
        raise ValueError(f"updates is {describe(updates)}; accepted: floating point (n, D), a row for each participant")
    if not updates.isfinite().all():
        raise ValueError("updates contains NaN or infinite values; accepted: finite values (drop such a participant)")

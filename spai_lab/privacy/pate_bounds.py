r"""What noisy majority votes spend: bounds that hold for any votes, and sharper ones where the teachers agree.

A record is in the part of one teacher. With another record there, that teacher may vote otherwise: one count falls by 1
and one rises by 1, a distance of 2 in L1 and of $\sqrt{2}$ in L2. Where nearly all teachers agree, that hardly ever
changes the winner, and the sharper bounds say so; but they are computed from the private votes.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import log_ndtr, logsumexp
from torch import Tensor

from spai_lab.checks import check_count, check_flag, check_number, describe
from spai_lab.privacy.accounting import ORDERS, check_orders, epsilon_of_rdp, rdp_gaussian, rdp_guarantee, rdp_laplace
from spai_lab.privacy.guarantee import REPLACE, SENTENCES, Guarantee

RELEASED = ("the noisy labels",)


@dataclass(frozen=True)
class DataDependent:
    r"""What these very votes spend; no `Guarantee`, since other votes spend otherwise, and the number tells of them.

    It bounds $D_\alpha(M(D) \| M(D'))$ for this D alone: the other direction, from D', can exceed it many times.
    Publishing it would need noise of its own, by the smooth sensitivity of the bound. Here it is for the eyes of those
    who hold the private data: to see what agreement is worth. It does not compose with a `Guarantee`.

    Args:
        epsilon: $\epsilon$ for these votes.
        delta_dp: $\delta$.
        adjacency: which data sets are neighbors.
        covers: what was released.
        sanitized: False: the number was not made private.
    Reference: Papernot 2018, arXiv 1802.08908, appendix B, on sanitizing it.
    Simplified: the paper's sanitization by smooth sensitivity is not here.

    >>> print(DataDependent(1.03, 1e-5, "replace", ("the noisy labels",)))
    epsilon 1.03 at delta 1e-05 for these votes, one record replaced; not sanitized; covers the noisy labels
    """

    epsilon: float
    delta_dp: float
    adjacency: str
    covers: tuple[str, ...]
    sanitized: bool = False

    def __str__(self) -> str:
        kind = "sanitized" if self.sanitized else "not sanitized"
        spent = f"epsilon {self.epsilon:.4g} at delta {self.delta_dp:.4g} for these votes, {SENTENCES[self.adjacency]}"
        return f"{spent}; {kind}; covers {', '.join(self.covers)}"


# --- Gaussian noise ---------------------------------------------------------------------------------------------------


def gnmax_guarantee(
    counts: Tensor, *, sigma: float, delta_dp: float, data_dependent: bool = False, conversion: str = "canonne"
) -> Guarantee | DataDependent:
    r"""What the answers of `gnmax` spend: $\frac{\alpha}{\sigma^2}$ each, or less for these votes.

    The counts with noise are a Gaussian mechanism of sensitivity $\sqrt{2}$, and the winner is read off them.

    Args:
        counts: votes for each class, `(N, K)`, int64: a row for each query that was answered.
        sigma: $\sigma$, the noise's standard deviation, in votes, above 0.
        delta_dp: $\delta$, above 0, at most 1.
        data_dependent: use that the teachers agree, as `rdp_gnmax` does.
        conversion: "canonne" or "mironov", as `epsilon_of_rdp`.
    Returns:
        a `Guarantee` for one record replaced; `DataDependent` if so asked. Both hold for one record added or removed
        too, if no other record changes its teacher by that.
    Raises:
        ValueError: names the argument.
    Reference: Papernot 2018, arXiv 1802.08908, proposition 8 and theorem 6.

    >>> counts = torch.tensor([[240, 6, 4]]).repeat(100, 1)
    >>> print(gnmax_guarantee(counts, sigma=40.0, delta_dp=1e-5))
    epsilon 1.478 at delta 1e-05, one record replaced; covers the noisy labels
    >>> print(gnmax_guarantee(counts, sigma=40.0, delta_dp=1e-5, data_dependent=True))
    epsilon 0.2203 at delta 1e-05 for these votes, one record replaced; not sanitized; covers the noisy labels
    """
    check_counts(counts)
    check_flag("data_dependent", data_dependent)
    if data_dependent:
        rdp = rdp_gnmax(log_q_gnmax(counts, sigma), sigma).sum(axis=0)
        return data_dependent_epsilon(rdp, delta_dp, conversion)
    rdp = len(counts) * rdp_gaussian(sigma / math.sqrt(2))
    return rdp_guarantee(rdp, delta_dp=delta_dp, covers=RELEASED, adjacency=REPLACE, conversion=conversion)


def log_q_gnmax(counts: Tensor, sigma: float) -> np.ndarray:
    r"""How likely the noise turns the vote, at most: $\log q$ with $q \ge \Pr[M(D) \ne i^*]$.

    $q = \min\left(\frac{1}{2} \sum_{i \ne i^*} \mathrm{erfc}\left(\frac{n_{i^*} - n_i}{2 \sigma}\right),
    1 - \frac{1}{K}\right)$: two counts are apart by noise of variance $2 \sigma^2$.

    Args:
        counts: votes `(N, K)`, int64.
        sigma: $\sigma$, in votes, above 0.
    Returns:
        $\log q$, `(N,)`.
    Raises:
        ValueError: names the argument.
    Reference: Papernot 2018, arXiv 1802.08908, proposition 7.

    >>> log_q_gnmax(torch.tensor([[200, 50], [125, 125]]), 40.0).round(2)
    array([-5.52, -0.69])
    """
    check_number("sigma", sigma, low=0, exclusive=True)
    return at_most(log_ndtr(-gaps(counts) / (math.sqrt(2) * sigma)))


def rdp_gnmax(log_q: np.ndarray, sigma: float, orders: np.ndarray = ORDERS) -> np.ndarray:
    r"""The curve of one answer of `gnmax` for votes that the noise turns with a probability of at most q.

    $\varepsilon(\alpha) = \frac{1}{\alpha - 1} \log \left((1-q) A^{\alpha-1} + q B^{\alpha-1}\right)$ with
    $A = \frac{1 - q}{1 - (q e^{\varepsilon_2})^{(\mu_2 - 1) / \mu_2}}$, $B = \frac{e^{\varepsilon_1}}{q^{1/(\mu_1-1)}}$
    and $\varepsilon_i = \frac{\mu_i}{\sigma^2}$, the bound for any votes at two higher orders,
    $\mu_2 = \sigma \sqrt{\log(1/q)}$ and $\mu_1 = \mu_2 + 1$; never more than $\frac{\alpha}{\sigma^2}$.

    Args:
        log_q: $\log q$, `(N,)`, each below 0, as `log_q_gnmax` gives it.
        sigma: $\sigma$, in votes, above 0.
        orders: $\alpha$, each above 1, `(M,)`.
    Returns:
        $\varepsilon(\alpha)$, `(N, M)`: of $D_\alpha(M(D) \| M(D'))$ for this D and each neighbor $D'$.
    Raises:
        ValueError: names the argument.
    Reference: Papernot 2018, arXiv 1802.08908, theorem 6 and proposition 10.

    >>> (rdp_gnmax(np.array([-0.7, -6.0]), 40.0, np.array([2.0, 20.0])) * 40.0**2).round(3)
    array([[ 2.   , 20.   ],
           [ 1.033,  2.436]])
    """
    check_number("sigma", sigma, low=0, exclusive=True)
    log_q, alpha = check_log_q(log_q)[:, None], check_orders(orders)
    mu_2 = sigma * np.sqrt(-log_q)
    mu_1 = mu_2 + 1
    epsilon_1, epsilon_2 = mu_1 / sigma**2, mu_2 / sigma**2
    with np.errstate(all="ignore"):
        largest_q = (mu_2 - 1) * epsilon_2 - mu_2 * (np.log(mu_1 / (mu_1 - 1)) + np.log(mu_2 / (mu_2 - 1)))
        log_A = log_1m(log_q) - log_1m((log_q + epsilon_2) * (mu_2 - 1) / mu_2)
        log_B = epsilon_1 - log_q / (mu_1 - 1)
        of_agreement = np.logaddexp(log_1m(log_q) + (alpha - 1) * log_A, log_q + (alpha - 1) * log_B) / (alpha - 1)
    applies = (alpha <= mu_1) & (mu_2 > 1) & (log_q <= largest_q) & (log_q + epsilon_2 < 0)
    of_any = alpha / sigma**2
    return np.where(applies, np.fmin(of_agreement, of_any), of_any)


# --- Laplace noise ----------------------------------------------------------------------------------------------------


def lnmax_guarantee(
    counts: Tensor, *, scale: float, delta_dp: float, data_dependent: bool = False, conversion: str = "canonne"
) -> Guarantee | DataDependent:
    r"""What the answers of `lnmax` spend: two Laplace releases of sensitivity 1 each, or less for these votes.

    Args:
        counts: votes for each class, `(N, K)`, int64: a row for each query that was answered.
        scale: $1 / \gamma$, the noise's scale, in votes, above 0.
        delta_dp: $\delta$, above 0, at most 1.
        data_dependent: use that the teachers agree, as `rdp_lnmax` does.
        conversion: "canonne" or "mironov", as `epsilon_of_rdp`; the paper's moments accountant has the latter.
    Returns:
        a `Guarantee` for one record replaced; `DataDependent` if so asked. Both hold for one record added or removed
        too, if no other record changes its teacher by that.
    Raises:
        ValueError: names the argument.
    Reference: Papernot 2016, arXiv 1610.05755, theorems 2 and 3. Each answer's curve is sharper here for any votes: two
        Laplace curves (Mironov 2017, arXiv 1702.07476, proposition 6) are below theorem 2's $2 \gamma^2 \alpha$.

    >>> counts = torch.tensor([[240, 6, 4]]).repeat(100, 1)
    >>> print(lnmax_guarantee(counts, scale=20.0, delta_dp=1e-5))
    epsilon 3.126 at delta 1e-05, one record replaced; covers the noisy labels
    >>> print(lnmax_guarantee(counts, scale=20.0, delta_dp=1e-5, data_dependent=True))
    epsilon 0.1421 at delta 1e-05 for these votes, one record replaced; not sanitized; covers the noisy labels
    """
    check_counts(counts)
    check_flag("data_dependent", data_dependent)
    if data_dependent:
        rdp = rdp_lnmax(log_q_lnmax(counts, scale), scale).sum(axis=0)
        return data_dependent_epsilon(rdp, delta_dp, conversion)
    rdp = len(counts) * 2 * rdp_laplace(scale)
    return rdp_guarantee(rdp, delta_dp=delta_dp, covers=RELEASED, adjacency=REPLACE, conversion=conversion)


def log_q_lnmax(counts: Tensor, scale: float) -> np.ndarray:
    r"""How likely Laplace noise turns the vote, at most: $\log q$ with $q \ge \Pr[M(D) \ne i^*]$.

    $q = \min\left(\sum_{i \ne i^*} \frac{2 + \gamma (n_{i^*} - n_i)}{4 e^{\gamma (n_{i^*} - n_i)}},
    1 - \frac{1}{K}\right)$.

    Args:
        counts: votes `(N, K)`, int64.
        scale: $1 / \gamma$, in votes, above 0.
    Returns:
        $\log q$, `(N,)`.
    Raises:
        ValueError: names the argument.
    Reference: Papernot 2016, arXiv 1610.05755, lemma 4.

    >>> log_q_lnmax(torch.tensor([[200, 50], [125, 125]]), 20.0).round(2)
    array([-6.64, -0.69])
    """
    check_number("scale", scale, low=0, exclusive=True)
    gap = gaps(counts) / scale
    return at_most(np.log1p(gap / 2) - math.log(2) - gap)


def rdp_lnmax(log_q: np.ndarray, scale: float, orders: np.ndarray = ORDERS) -> np.ndarray:
    r"""The curve of one answer of `lnmax` for votes that the noise turns with a probability of at most q.

    $\varepsilon(\alpha) = \frac{1}{\alpha - 1} \log \left((1-q) \left(\frac{1-q}{1-e^{2 \gamma} q}\right)^{\alpha-1} +
    q e^{2 \gamma (\alpha-1)}\right)$ if $q < \frac{1}{e^{2 \gamma} + 1}$; never more than the curve for any votes.

    Args:
        log_q: $\log q$, `(N,)`, each below 0, as `log_q_lnmax` gives it.
        scale: $1 / \gamma$, in votes, above 0.
        orders: $\alpha$, each above 1, `(M,)`; the paper's moment is of order $\alpha - 1$.
    Returns:
        $\varepsilon(\alpha)$, `(N, M)`: of $D_\alpha(M(D) \| M(D'))$ for this D and each neighbor $D'$.
    Raises:
        ValueError: names the argument.
    Reference: Papernot 2016, arXiv 1610.05755, theorem 3.

    >>> rdp_lnmax(np.array([-0.7, -9.0]), 20.0, np.array([2.0, 20.0])).round(6)
    array([[4.9140e-03, 4.3047e-02],
           [2.6000e-05, 5.0000e-05]])
    """
    check_number("scale", scale, low=0, exclusive=True)
    log_q, alpha = check_log_q(log_q)[:, None], check_orders(orders)
    epsilon = 2 / scale
    applies = log_q < -np.logaddexp(epsilon, 0)
    with np.errstate(all="ignore"):
        log_stays = log_1m(log_q) + (alpha - 1) * (log_1m(log_q) - log_1m(epsilon + log_q))
        of_agreement = np.logaddexp(log_stays, log_q + epsilon * (alpha - 1)) / (alpha - 1)
    of_any = 2 * rdp_laplace(scale, alpha)
    return np.where(applies, np.fmin(of_agreement, of_any), of_any)


# --- only where the teachers agree ------------------------------------------------------------------------------------


def confident_guarantee(
    asked: int, most: int, *, threshold_sigma: float, sigma: float, delta_dp: float, conversion: str = "canonne"
) -> Guarantee:
    r"""What `confident_gnmax` spends: $\frac{\alpha}{2 \sigma_1^2}$ each time it is asked, $\frac{\alpha}{\sigma_2^2}$
    each time it may answer.

    Args:
        asked: how many queries are put to the threshold, at least 1.
        most: how many are answered at most; a limit that was set before, not what was counted after.
        threshold_sigma: $\sigma_1$, of the noise on the largest count, which one vote changes by 1, above 0.
        sigma: $\sigma_2$, of the noise on the counts, above 0.
        delta_dp: $\delta$, above 0, at most 1.
        conversion: "canonne" or "mironov", as `epsilon_of_rdp`.
    Returns:
        the guarantee, for one record replaced, whatever the votes.
    Raises:
        ValueError: names the argument.
    Reference: Papernot 2018, arXiv 1802.08908, algorithm 1, by composition of what both of its steps spend.

    >>> print(confident_guarantee(200, 100, threshold_sigma=150.0, sigma=40.0, delta_dp=1e-5))
    epsilon 1.536 at delta 1e-05, one record replaced; covers the noisy labels, which queries got one
    """
    check_count("asked", asked)
    check_count("most", most)
    rdp = asked * rdp_gaussian(threshold_sigma) + min(most, asked) * rdp_gaussian(sigma / math.sqrt(2))
    covers = (*RELEASED, "which queries got one")
    return rdp_guarantee(rdp, delta_dp=delta_dp, covers=covers, adjacency=REPLACE, conversion=conversion)


# --- shared -----------------------------------------------------------------------------------------------------------


def gaps(counts: Tensor) -> np.ndarray:
    """By how many votes the winner leads each other class, `(N, K - 1)`; 0 for one that ties."""
    check_counts(counts)
    ordered = counts.sort(dim=1, descending=True).values.numpy().astype(float)
    return ordered[:, :1] - ordered[:, 1:]


def at_most(log_each: np.ndarray) -> np.ndarray:
    """The logarithm of a union bound, `(N, K - 1)` to `(N,)`; the winner wins with probability 1 / K or more."""
    return np.minimum(logsumexp(log_each, axis=1), -math.log1p(1 / log_each.shape[1]))


def log_1m(log_p: np.ndarray) -> np.ndarray:
    r"""$\log(1 - p)$ from $\log p$, without loss where p is near 0 or near 1."""
    return np.where(log_p > -math.log(2), np.log(-np.expm1(log_p)), np.log1p(-np.exp(log_p)))


def data_dependent_epsilon(rdp: np.ndarray, delta_dp: float, conversion: str) -> DataDependent:
    """The curve of these votes as an epsilon that is marked as theirs."""
    epsilon, _ = epsilon_of_rdp(ORDERS, rdp, delta_dp, conversion)
    return DataDependent(epsilon, delta_dp, REPLACE, RELEASED)


def check_counts(counts: Tensor) -> None:
    """Raise `ValueError` unless there are votes of as many teachers for each query, over two classes or more."""
    if not isinstance(counts, Tensor) or counts.dtype != torch.int64 or counts.ndim != 2 or counts.shape[1] < 2:
        raise ValueError(f"counts is {describe(counts)}; accepted: int64 votes (N, K), K at least 2")
    if len(counts) == 0:
        raise ValueError("counts is empty; accepted: a row for at least one query")
    total = counts.sum(1)
    if counts.min() < 0 or total.min() < total.max() or total.min() == 0:
        raise ValueError("counts has rows of different sums, or votes below 0; accepted: one vote of each teacher")


def check_log_q(log_q: np.ndarray) -> np.ndarray:
    """The logarithms as floats; raises `ValueError` unless each is below 0."""
    values = np.asarray(log_q, dtype=float)
    if values.ndim != 1 or not (values < 0).all():
        raise ValueError(f"log_q is {describe(log_q)}; accepted: logarithms of probabilities below 1, (N,)")
    return values

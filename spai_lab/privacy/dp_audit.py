r"""Auditing: run the mechanism often, with a record and without it, and see how well the two are told apart.

Whoever guesses from the output whether the record was in errs: false positives $\alpha$, false negatives $\beta$.
$(\epsilon, \delta)$ bounds every such guess, $1 - \beta \le e^\epsilon \alpha + \delta$, so errors that are too rare
refute a claim. An audit finds bugs and never proves privacy.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import betainccinv, ndtr, ndtri
from tqdm.auto import trange

from spai_lab.checks import (
    check_callable,
    check_choice,
    check_count,
    check_flag,
    check_number,
    describe,
)
from spai_lab.privacy.composition import gaussian_guarantee
from spai_lab.privacy.guarantee import ADD_REMOVE, ADJACENCIES, SENTENCES, Guarantee, common_adjacency
from spai_lab.threat import fresh_generator

Run = Callable[[bool, torch.Generator], float]

ANY, GAUSSIAN = "any", "gaussian"
CAUTIOUS = 0.9999  # the confidence by which thresholds are compared: with less, the luckiest of the rare errors wins


@dataclass(frozen=True)
class Audit:
    r"""What an audit found: with this confidence, the mechanism's $\epsilon$ at $\delta$ is at least `epsilon_low`.

    Args:
        epsilon_low: the lower bound, at least 0.
        delta_dp: the $\delta$ that it holds at.
        confidence: how often such a bound is right, at least, whatever the mechanism.
        adjacency: of the two data sets, "add/remove" or "replace".
        tradeoff: "any", or "gaussian" if the bound assumes that shape.
        threshold: the guess is "inside" where the score is at least this...
        above: ...or below it, if False.
        false_positives: guesses of "inside" among the runs without the record.
        false_negatives: guesses of "outside" among the runs with it.
        counted: runs of each of the two kinds that the errors were counted in.
        runs: all runs, those that chose the threshold too.
    """

    epsilon_low: float
    delta_dp: float
    confidence: float
    adjacency: str
    tradeoff: str
    threshold: float
    above: bool
    false_positives: int
    false_negatives: int
    counted: int
    runs: int

    def exceeds(self, guarantee: Guarantee) -> bool:
        r"""Whether the bound refutes a claim: it lies above the claimed $\epsilon$.

        Args:
            guarantee: the claim, of the audit's adjacency, at its $\delta$ or at a smaller one, which implies it.
        Returns:
            True where the claim is false, with the audit's confidence. False proves nothing.
        Raises:
            ValueError: it speaks of other neighbors, or of a larger delta.
        """
        if common_adjacency(guarantee) != self.adjacency:
            raise ValueError(f"guarantee is for {guarantee.adjacency!r}; accepted: {self.adjacency!r}, as audited")
        if guarantee.delta_dp > self.delta_dp:
            raise ValueError(f"guarantee has delta {guarantee.delta_dp:g}; accepted: at most {self.delta_dp:g}")
        return self.epsilon_low > guarantee.epsilon

    def __str__(self) -> str:
        assumed = ", if the mechanism is Gaussian" if self.tradeoff == GAUSSIAN else ""
        return (
            f"epsilon at least {self.epsilon_low:.3g} at delta {self.delta_dp:.4g}, {SENTENCES[self.adjacency]}, "
            f"confidence {self.confidence:.8g}{assumed} ({self.runs:,} runs; of {self.counted:,} each, "
            f"{self.false_positives:,} false positives and "
            f"{self.false_negatives:,} false negatives)"
        )


class Scores(NamedTuple):
    """What the distinguisher saw: scores of independent runs, in the order in which they ran.

    Args:
        outside: runs without the record, float64 `(N,)`.
        inside: runs with it, `(N,)`.
    """

    outside: np.ndarray
    inside: np.ndarray


def dp_audit(
    run: Run,
    *,
    runs: int,
    delta_dp: float,
    confidence: float = 0.95,
    adjacency: str = ADD_REMOVE,
    tradeoff: str = ANY,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> Audit:
    r"""A lower bound on $\epsilon$ from runs of the mechanism with and without a canary.

    With upper confidence limits $\bar\alpha, \bar\beta$ of both error rates,
    $\epsilon \ge \max\left(\log \frac{1 - \delta - \bar\beta}{\bar\alpha},
    \log \frac{1 - \delta - \bar\alpha}{\bar\beta}\right)$.
    One half of the runs chooses the threshold, the other half counts the errors; see `lower_bound`.

    Args:
        run: `run(inside, generator) -> score`: one independent run of the mechanism on $D'$ (`inside`, with the canary)
            or on $D$, and how the adversary scores what was released. `gradient_canary` and `input_canary` make some.
        runs: of the mechanism, a multiple of 4; `runs_needed` says how many.
        delta_dp: $\delta$ in [0, 1).
        confidence: of the bound, in (0, 1).
        adjacency: how $D$ and $D'$ differ, "add/remove" or "replace".
        tradeoff: "any" assumes nothing; "gaussian" is for mechanisms known to be Gaussian, see `lower_bound`.
        generator: for the mechanism's coins; None draws a fresh one.
        progress: show a bar with the time left.
    Returns:
        the bound, with the errors that it rests on.
    Raises:
        ValueError: names the argument; or a score is not a finite number.
    Reference: Jagielski 2020, arXiv 2006.07709 (the bound); Tramer 2022, arXiv 2202.12219 (a bug that an audit found).
    Survey: Private AI, differential privacy.

    >>> def coin(inside, generator):  # tells the truth three times of four: epsilon is log 3 = 1.0986
    ...     return float(inside) if torch.rand((), generator=generator) < 0.75 else 1.0 - inside
    >>> audit = dp_audit(coin, runs=4000, delta_dp=0, generator=torch.Generator().manual_seed(0), progress=False)
    >>> 0.8 < audit.epsilon_low < math.log(3)
    True
    """
    check_bound(delta_dp, confidence, adjacency, tradeoff)
    scores = canary_scores(run, runs=runs, generator=generator, progress=progress)
    return lower_bound(scores, delta_dp=delta_dp, confidence=confidence, adjacency=adjacency, tradeoff=tradeoff)


def canary_scores(run: Run, *, runs: int, generator: torch.Generator | None = None, progress: bool = True) -> Scores:
    """The scores of many runs, half of them with the canary.

    Args:
        run, runs, generator, progress: as `dp_audit`.
    Returns:
        `runs / 2` scores of each kind.
    Raises:
        ValueError: names the argument; or a score is not a finite number.
    """
    check_callable("run", run)
    check_count("runs", runs, low=4)
    if runs % 4:
        raise ValueError(f"runs is {runs}; accepted: a multiple of 4")
    check_flag("progress", progress)
    generator = fresh_generator(generator, torch.device("cpu"))
    scores = np.array([float(run(i % 2 == 1, generator)) for i in trange(runs, desc="audit", disable=not progress)])
    if not np.isfinite(scores).all():
        raise ValueError("run returns NaN or infinite scores; accepted: finite numbers")
    return Scores(scores[::2], scores[1::2])


def lower_bound(
    scores: Scores, *, delta_dp: float, confidence: float = 0.95, adjacency: str = ADD_REMOVE, tradeoff: str = ANY
) -> Audit:
    r"""The bound from scores: the first half of each kind chooses the threshold, the second half counts the errors.

    Each limit fails with probability $(1 - \mathrm{confidence}) / 2$, so both hold together with `confidence`. That is
    only true of a threshold that was fixed before: the best one of the counted runs has flattering errors. Thresholds
    are chosen by what they would prove with a confidence of 0.9999 at least; with less, the luckiest rare error wins.
    With "gaussian", $\mu \ge \Phi^{-1}(1 - \bar\alpha) - \Phi^{-1}(\bar\beta)$, and $\epsilon$ is that of a Gaussian
    mechanism with $\sigma = 1 / \mu$ at $\delta$: from errors that are common, and so well known, it concludes how rare
    others are. This is true of full batches, not of sampled ones.

    Args:
        scores: of at least two runs of each kind, equally many.
        delta_dp: $\delta$ in [0, 1); above 0 for "gaussian".
        confidence: in (0, 1). Several bounds from the same runs share it: each needs its part of the error.
        adjacency: how the data sets differ.
        tradeoff: "any" or "gaussian".
    Returns:
        the bound.
    Raises:
        ValueError: names the argument.
    Reference: Jagielski 2020, arXiv 2006.07709; for "gaussian" Nasr 2023, arXiv 2302.07956.
    Simplified: Clopper and Pearson's limits for each error, where Nasr's are of both errors together.
    """
    check_bound(delta_dp, confidence, adjacency, tradeoff)
    outside, inside = (np.asarray(part, dtype=np.float64) for part in scores)
    if outside.ndim != 1 or outside.shape != inside.shape or len(outside) < 2:
        raise ValueError(f"scores have the shapes {outside.shape}, {inside.shape}; accepted: (N,), N at least 2")
    if not (np.isfinite(outside).all() and np.isfinite(inside).all()):
        raise ValueError("scores has NaN or infinite values; accepted: finite numbers")
    half = len(outside) // 2
    strength = partial(evidence, delta_dp=delta_dp, confidence=confidence, tradeoff=tradeoff)

    candidates = spread(np.unique(np.concatenate([outside[:half], inside[:half]])))
    cautious = partial(strength, confidence=max(confidence, CAUTIOUS))
    found = [cautious(*errors(outside[:half], inside[:half], candidates, above), half) for above in (True, False)]
    above = bool(found[0].max() >= found[1].max())
    threshold = float(candidates[found[0 if above else 1].argmax()])

    counted = len(outside) - half
    alpha, beta = errors(outside[half:], inside[half:], np.array([threshold]), above)
    epsilon_low = epsilon_from(strength(alpha, beta, counted).item(), delta_dp, tradeoff)
    return Audit(
        *(epsilon_low, delta_dp, confidence, adjacency, tradeoff, threshold, above),
        *(int(alpha[0]), int(beta[0]), counted, 2 * len(outside)),
    )


def spread(values: np.ndarray) -> np.ndarray:
    """Of sorted values all that are near an end, and of the others every hundredth or so: at most 2,000.

    >>> len(spread(np.arange(200))), len(spread(np.arange(1_000_000))) <= 2000
    (200, True)
    """
    ranks = np.geomspace(1, len(values), 1000).round().astype(int) - 1
    return values[np.union1d(ranks, len(values) - 1 - ranks)]


def errors(outside: np.ndarray, inside: np.ndarray, thresholds: np.ndarray, above: bool) -> tuple[np.ndarray, ...]:
    """False positives and false negatives at each threshold, `(T,)` each, if the guess is "inside" above it (or below).

    >>> [part.tolist() for part in errors(np.array([0.0, 1.0]), np.array([1.0, 2.0]), np.array([1.0, 2.0]), True)]
    [[1, 0], [0, 1]]
    """
    below_out, below_in = (np.searchsorted(np.sort(part), thresholds) for part in (outside, inside))
    return (len(outside) - below_out, below_in) if above else (below_out, len(inside) - below_in)


def highest_rate(hits: np.ndarray, trials: int, error: float) -> np.ndarray:
    r"""Clopper and Pearson's upper limit of a rate: the largest p with $\Pr(\mathrm{Bin}(n, p) \le k) \ge$ `error`.

    Args:
        hits: k, from 0 to `trials`, `(T,)`; between whole numbers it interpolates.
        trials: n, at least 1.
        error: the chance that the true rate lies above.
    Returns:
        `(T,)`.
    Reference: Clopper and Pearson 1934, "The use of confidence or fiducial limits".

    >>> highest_rate(np.array([0, 5, 10]), 10, 0.05).round(3)
    array([0.259, 0.778, 1.   ])
    """
    k = np.minimum(hits, trials - 1e-9)
    return np.where(hits >= trials, 1.0, betainccinv(k + 1, trials - k, error))


def evidence(
    false_positives: np.ndarray,
    false_negatives: np.ndarray,
    counted: int,
    *,
    delta_dp: float,
    confidence: float,
    tradeoff: str,
) -> np.ndarray:
    r"""What errors of so many runs prove, `(T,)`: $\epsilon$, or $\mu$ for "gaussian"; nothing where it is below 0."""
    error = (1 - confidence) / 2
    alpha, beta = (highest_rate(hits, counted, error) for hits in (false_positives, false_negatives))
    if tradeoff == GAUSSIAN:
        return -ndtri(alpha) - ndtri(beta)
    ratio = np.maximum((1 - delta_dp - beta) / alpha, (1 - delta_dp - alpha) / beta)
    return np.log(np.maximum(ratio, np.finfo(float).tiny))


def epsilon_from(strength: float, delta_dp: float, tradeoff: str) -> float:
    r"""The $\epsilon$ that `evidence` proves."""
    if strength <= 0 or tradeoff == ANY:
        return max(strength, 0.0)
    return gaussian_guarantee(1 / strength, delta_dp).epsilon


def runs_needed(
    epsilon: float, delta_dp: float, *, share: float = 0.7, confidence: float = 0.95, tradeoff: str = ANY
) -> int:
    r"""How many runs let the audit of a Gaussian mechanism reach a share of its $\epsilon$.

    The scores are $N(0, 1)$ outside and $N(\mu, 1)$ inside, so a threshold t has the errors $\alpha = \Phi(-t)$,
    $\beta = \Phi(t - \mu)$. With N runs of each kind counted, the limits follow from $N \alpha$ and $N \beta$ errors;
    N grows until the best t proves `share` of $\epsilon$.

    Args:
        epsilon: the mechanism's exact $\epsilon$ at `delta_dp`, above 0, at most 50.
        delta_dp: $\delta$ in (0, 1).
        share: of `epsilon`, in (0, 1).
        confidence: of the bound, in (0, 1).
        tradeoff: "any" or "gaussian".
    Returns:
        for `dp_audit`, 4N: it reaches the share about every second time. At most $10^{10}$ are looked for.
    Raises:
        ValueError: names the argument; no number of runs suffices.

    >>> [round(runs_needed(2.0, delta_dp, tradeoff=t), -3) for delta_dp in (1e-2, 1e-5) for t in ("any", "gaussian")]
    [12000, 2000, 936000, 5000]
    """
    check_number("epsilon", epsilon, low=0, high=50, exclusive=True)
    check_bound(delta_dp, confidence, ADD_REMOVE, GAUSSIAN)
    check_bound(delta_dp, confidence, ADD_REMOVE, tradeoff)
    check_open("share", share)
    mu = brentq(lambda mu: gaussian_guarantee(1 / mu, delta_dp).epsilon - epsilon, 1e-3, 100)
    t = np.linspace(-mu, 2 * mu + 6, 500)

    def missing(log_n: float) -> float:
        n = math.exp(log_n)
        strength = evidence(
            n * ndtr(-t), n * ndtr(t - mu), n, delta_dp=delta_dp, confidence=confidence, tradeoff=tradeoff
        )
        return epsilon_from(strength.max(), delta_dp, tradeoff) - share * epsilon

    most = math.log(2.5e9)
    if missing(most) < 0:
        raise ValueError(f"share is {share:g}; accepted: one that at most 10,000,000,000 runs reach")
    return 4 * math.ceil(math.exp(brentq(missing, 0.0, most, xtol=1e-6)))


def check_bound(delta_dp: float, confidence: float, adjacency: str, tradeoff: str) -> None:
    """Raise `ValueError` unless these can be asked of a bound."""
    check_choice("tradeoff", tradeoff, (ANY, GAUSSIAN))
    check_choice("adjacency", adjacency, ADJACENCIES)
    check_open("confidence", confidence)
    check_number("delta_dp", delta_dp, low=0, high=1, exclusive=tradeoff == GAUSSIAN)
    if delta_dp == 1:
        raise ValueError("delta_dp is 1; accepted: below 1")


def check_open(name: str, value: float) -> None:
    """Raise `ValueError` unless `value` lies between 0 and 1."""
    check_number(name, value, low=0, high=1, exclusive=True)
    if value == 1:
        raise ValueError(f"{name} is {describe(value)}; accepted: below 1")

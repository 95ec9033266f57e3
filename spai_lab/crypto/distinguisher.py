r"""Can anybody tell what a party saw from what a simulator made up? A classifier that is trained to tries.

A protocol hides an input if what a party sees could have been made without it: there is a simulator that gets only the
party's own input and output, and nobody tells its work from a real view. That nobody can is for a proof; a test can
only try, and see that the same trial finds leaks that were planted.
"""

import secrets
from typing import NamedTuple

import numpy as np
from scipy.stats import binom
from sklearn.linear_model import LogisticRegression

from spai_lab.checks import describe

COLUMNS = 16
FEWEST = 40


class Verdict(NamedTuple):
    """How many views of a held-out half were told apart, and how likely guessing does as well."""

    correct: int
    trials: int
    p_value: float

    @property
    def accuracy(self) -> float:
        """The share of views that were told apart, .5 by guessing."""
        return self.correct / self.trials


def distinguish(real: np.ndarray, simulated: np.ndarray) -> Verdict:
    r"""Train a classifier to tell real views from simulated ones, and count how it does on views that it never saw.

    A coin for each row says whether the real or the simulated one is shown. One half trains a logistic regression on
    the 16 columns whose means differ most; on the other half it guesses n coins. If real and simulated rows have the
    same distribution, then no classifier whatsoever does better than $\mathrm{Bin}(n, 1/2)$, so that
    $p = P(\mathrm{Bin}(n, 1/2) \ge \text{correct})$ is below $\alpha$ with probability $\alpha$ at most.

    Args:
        real: what can be seen in real views, bits or numbers `(N, D)`, N at least 40, rows independent of each other.
        simulated: the same of simulated views.
    Returns:
        the verdict; a `p_value` below the false-alarm rate that was chosen means a leak.
    Raises:
        ValueError: names the argument.
    Reference: Goldreich 2004, "Foundations of cryptography", volume 2, section 7.2, for views and simulators; a
        classifier as a test of two samples: Lopez-Paz and Oquab 2016, arXiv 1610.06545.
    Survey: private AI, cryptography, multi-party computation.
    Simplified: a distinguisher that fails proves nothing; it knows the columns that it was given, one at a time.

    >>> random = np.random.default_rng(0)
    >>> real, simulated = random.integers(0, 2, (2, 2000, 8))
    >>> bool(distinguish(real, simulated).p_value < 1e-6)
    False
    >>> real[:, 3] = 0
    >>> bool(distinguish(real, simulated).p_value < 1e-6)
    True
    """
    for name, views in (("real", real), ("simulated", simulated)):
        if not isinstance(views, np.ndarray) or views.ndim != 2 or len(views) < FEWEST or not views.shape[1]:
            raise ValueError(f"{name} is {shown(views)}; accepted: an array (N, D), N at least {FEWEST}")
    if real.shape != simulated.shape:
        raise ValueError(f"simulated is {shown(simulated)}; accepted: {shown(real)}, like real")
    coins = np.unpackbits(np.frombuffer(secrets.token_bytes(len(real)), np.uint8))[: len(real)].astype(bool)
    x, half = np.where(coins[:, None], real, simulated).astype(float), len(real) // 2
    seen, known = x[:half], coins[:half]
    differences = np.abs(seen[known].mean(0) - seen[~known].mean(0))
    best = np.argsort(-differences)[:COLUMNS]
    model = LogisticRegression(max_iter=1000).fit(seen[:, best], known)
    correct = int((model.predict(x[half:, best]) == coins[half:]).sum())
    trials = len(x) - half
    return Verdict(correct, trials, float(binom.sf(correct - 1, trials, 0.5)))


def shown(views: object) -> str:
    """An argument for an error message."""
    return f"of shape {views.shape}" if isinstance(views, np.ndarray) else describe(views)

r"""What privacy buys, from what was measured: points for one plot, and rows of words.

Beside what an attack finds stands what the guarantee proves that no attack can find; measured must lie below.
"""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from scipy.special import stdtrit

from spai_lab.metrics import Rate
from spai_lab.survey.measure import rows_of_kind
from spai_lab.survey.privacy_tables import percent
from spai_lab.survey.secrets_jobs import CANARY

STRICT = "0.01"


class Point(NamedTuple):
    """A measured share at a budget.

    Args:
        epsilon: infinite where nothing is promised.
        value: in [0, 1].
        low, high: a 95 % interval; the value itself where it is proven, not measured.
    """

    epsilon: float
    value: float
    low: float
    high: float


# --- what is proven ---------------------------------------------------------------------------------------------------


def proven_positives(false_positives: float, epsilon: float, delta_dp: float) -> float:
    r"""The most members that any attack can find: $\min(1, e^\epsilon \alpha + \delta, 1 - e^{-\epsilon} (1 - \delta -
    \alpha))$ at a rate $\alpha$ of false positives.

    Args:
        false_positives: $\alpha$ in [0, 1].
        epsilon, delta_dp: for one record added or removed.
    Reference: Kairouz, Oh and Viswanath 2015, arXiv 1311.0776, theorem 2.1.

    >>> [round(proven_positives(0.01, epsilon, 1e-5), 3) for epsilon in (0.0, 0.5, 2.0, 8.0)]
    [0.01, 0.016, 0.074, 1.0]
    """
    above = math.exp(min(epsilon, 700)) * false_positives + delta_dp
    below = 1 - math.exp(-epsilon) * (1 - delta_dp - false_positives)
    return max(0.0, min(1.0, above, below))


def proven_accuracy(epsilon: float, delta_dp: float) -> float:
    r"""The best balanced accuracy of any attack: $\frac{e^\epsilon + \delta}{e^\epsilon + 1}$.

    It is where both bounds of `proven_positives` meet.

    >>> [round(proven_accuracy(epsilon, 1e-5), 3) for epsilon in (0.0, 0.5, 2.0, 8.0)]
    [0.5, 0.622, 0.881, 1.0]
    """
    return (1 + delta_dp * math.exp(-epsilon)) / (1 + math.exp(-epsilon))


def proven_area(epsilon: float, delta_dp: float, *, points: int = 10_000) -> float:
    """The largest area under the curve of any attack: that under `proven_positives`, by the trapezoid rule.

    The curve is concave, so that the rule is below the area, by less than one in `points`.
    """
    curve = [proven_positives(k / points, epsilon, delta_dp) for k in range(points + 1)]
    return min(1.0, (sum(curve) - (curve[0] + curve[-1]) / 2 + 1) / points)


def proven_exposure(epsilon: float, delta_dp: float, insertions: int, size: int) -> float:
    r"""The largest mean exposure of a secret that stands in k lines, in bits.

    Without the lines, the rank of a secret drawn at random is uniform at best: $\Pr[\text{exposure} \ge b] \le 2^{-b}$.
    With them it is at most $\min(1, e^{k \epsilon} 2^{-b} + \delta_k)$, with $\delta_k = \delta \frac{e^{k \epsilon} -
    1}{e^\epsilon - 1}$; the mean is the integral of that over b, from 0 to $\log_2 |R|$.

    Args:
        epsilon, delta_dp: for one line added or removed.
        insertions: k, at least 0.
        size: $|R|$, the number of candidates.
    Reference: Dwork and Roth 2014, theorem 2.2 (groups).

    >>> [round(proven_exposure(epsilon, 1e-5, 1, 10_000), 1) for epsilon in (0.0, 2.0, 8.0)]
    [1.4, 4.3, 12.6]
    """
    bits, group = math.log2(size), insertions * epsilon
    if math.isinf(epsilon) or group > 700:
        return bits
    delta = delta_dp * (math.expm1(group) / math.expm1(epsilon) if epsilon else insertions)
    if delta >= 1:
        return bits
    certain = (group - math.log1p(-delta)) / math.log(2)
    if certain >= bits:
        return bits
    tail = math.exp(group) * (2**-certain - 2**-bits) / math.log(2)
    return min(bits, certain + tail + delta * (bits - certain))


# --- points for one plot ----------------------------------------------------------------------------------------------


def protected_points(measurement: dict, words: dict | None = None) -> dict[str, list[Point]]:
    """What one figure draws: over epsilon, how well models work and what attacks find; epsilon rises.

    Every budget is for one record added or removed, but of another release each: an image of a training set, the image
    of one gradient, a line of text. A point at infinity is clipped, without noise.

    Args:
        measurement: `protected_digits` or `protected_mnist`.
        words: the measurement that has the language models, `protected_digits`; None takes `measurement`.
    Returns:
        by name: "accuracy" on test data, "membership" (members found at 1 % false positives by the attack that found
        most in rehearsal), "leakage" (images recognized, by the better of two attackers), "memorization" (mean exposure
        of a secret that stands in one line, as a share of all its bits), and for two of them what is proven,
        "membership, proven" and "memorization, proven".
    """
    members = private_members(measurement)
    secrets = [row for row in rows_of_kind(words or measurement, "memorized") if row["insertions"] == 1]
    found = {
        "accuracy": [accuracy_point(row) for row in members],
        "membership": [strongest(row)[1] for row in members],
        "membership, proven": [
            exactly(of(row), proven_positives(float(STRICT), of(row), row["delta_dp"])) for row in members
        ],
        "leakage": [leak_point(rows) for rows in by_noise(measurement).values()],
        "memorization": [exposure_point(rows) for rows in by_epsilon(secrets).values()],
        "memorization, proven": [
            exactly(epsilon, proven_exposure(epsilon, rows[0]["delta_dp"], 1, CANARY.size) / math.log2(CANARY.size))
            for epsilon, rows in by_epsilon(secrets).items()
        ],
    }
    return {name: sorted(points) for name, points in found.items()}


def unprotected_points(measurement: dict) -> dict[str, Point]:
    """The same accuracy and membership without privacy: neither clipped nor noised."""
    (row,) = (row for row in rows_of_kind(measurement, "members") if not row["private"])
    return {"accuracy": accuracy_point(row), "membership": strongest(row)[1]}


def private_members(measurement: dict) -> list[dict]:
    """The rows of private targets whose learning rate was chosen on validation data."""
    return [row for row in rows_of_kind(measurement, "members") if row["private"] and row["learning_rate"] is None]


def of(row: dict) -> float:
    """The epsilon of a row, infinite where nothing is promised."""
    epsilon = row.get("epsilon")
    return math.inf if epsilon is None else epsilon


def exactly(epsilon: float, value: float) -> Point:
    """A point that is proven."""
    return Point(epsilon, value, value, value)


def over_trainings(epsilon: float, values: Sequence[float], low: float = -math.inf, high: float = math.inf) -> Point:
    """The mean over trainings, with Student's 95 % interval, within the range of what is measured."""
    mean, n = statistics.mean(values), len(values)
    half = stdtrit(n - 1, 0.975) * statistics.stdev(values) / math.sqrt(n) if n > 1 else math.inf
    return Point(epsilon, mean, max(low, float(mean - half)), min(high, float(mean + half)))


def accuracy_point(row: dict) -> Point:
    """The mean test accuracy of the targets."""
    return over_trainings(of(row), [right / row["test"]["of"] for right in row["test"]["right"]], 0, 1)


def strongest(row: dict) -> tuple[str, Point]:
    """The attack that found most members at 1 % false positives in rehearsal, and what it finds in earnest."""
    name = max(row["attacks"], key=lambda name: row["attacks"][name]["rehearsal"])
    return name, Point(of(row), *row["attacks"][name]["caught"][STRICT])


def by_noise(measurement: dict) -> dict[float, list[dict]]:
    """The attacks on gradients that read the label off, by noise multiplier."""
    rows = [row for row in rows_of_kind(measurement, "leak") if row["labels"] == "analytic"]
    levels = {row["noise_multiplier"] for row in rows}
    return {noise: [row for row in rows if row["noise_multiplier"] == noise] for noise in levels}


def leak_point(rows: Sequence[dict]) -> Point:
    """The images that the better of the attackers makes recognizable."""
    best = max(rows, key=lambda row: row["recognized"][0])
    rate = Rate(*best["recognized"])
    return Point(of(best), rate.value, *rate.interval)


def by_epsilon(rows: Sequence[dict]) -> dict[float, list[dict]]:
    """Rows by what is promised."""
    return {epsilon: [row for row in rows if of(row) == epsilon] for epsilon in {of(row) for row in rows}}


def exposure_point(rows: Sequence[dict]) -> Point:
    """The mean exposure over trainings, as a share of all bits."""
    return over_trainings(of(rows[0]), [row["exposure"] / math.log2(CANARY.size) for row in rows], 0, 1)


# --- rows of words ----------------------------------------------------------------------------------------------------


def told_epsilon(row: dict) -> str:
    """What is promised, in a few characters.

    >>> told_epsilon({"epsilon": 0.5}), told_epsilon({"epsilon": 504333.1}), told_epsilon({"epsilon": None})
    ('0.5', '504,333', 'infinite')
    """
    epsilon = of(row)
    if math.isinf(epsilon):
        return "infinite"
    return f"{epsilon:,.0f}" if epsilon >= 1000 else f"{epsilon:.3g}"


def protected_members_table(measurement: dict) -> list[tuple[str, ...]]:
    """Each population: training, epsilon, accuracies, members found at 1 % false positives and balanced accuracies.

    Members found by each attack, then at most; of the balanced accuracies, with thresholds chosen in rehearsal, that of
    the best attack, then at most.
    """
    table = []
    for row in rows_of_kind(measurement, "members"):
        epsilon, delta_dp = of(row), row.get("delta_dp", 0.0)
        accuracies = (f"{100 * Rate(*row['accuracy']['members']).value:.1f} %", shared(accuracy_point(row)))
        found = (shared(Point(epsilon, *each["caught"][STRICT])) for each in row["attacks"].values())
        bound = f"{100 * proven_positives(float(STRICT), epsilon, delta_dp):.3g} %"
        name, best = max(
            ((name, balanced(each["rehearsed"]["best"])) for name, each in row["attacks"].items()),
            key=lambda pair: pair[1].value,
        )
        proven = f"{100 * proven_accuracy(epsilon, delta_dp):.1f} %"
        table.append((training(row), told_epsilon(row), *accuracies, *found, bound, f"{shared(best)}, {name}", proven))
    return table


def training(row: dict) -> str:
    """How a population was trained."""
    if not row["private"]:
        return "AdamW, nothing clipped"
    noise = f"noise {row['noise_multiplier']:.3g}" if row["noise_multiplier"] else "no noise"
    return f"clipped, {noise}, learning rate {row['rate']:g}"


def balanced(counts: Sequence[Sequence[int]]) -> Point:
    """The balanced accuracy of an attack with a threshold chosen beforehand, over targets.

    Args:
        counts: of each target members called members, all members, others called members, all others.
    """
    return over_trainings(math.nan, [(1 + tp / members - fp / others) / 2 for tp, members, fp, others in counts], 0, 1)


def shared(point: Point) -> str:
    """A share with its interval.

    >>> shared(Point(8.0, 0.125, 0.1, 0.15))
    '12.5 % (10.0 to 15.0)'
    """
    return f"{100 * point.value:.1f} % ({100 * point.low:.1f} to {100 * point.high:.1f})"


def protected_leak_table(measurement: dict) -> list[tuple[str, ...]]:
    """Every attack on private gradients: noise, epsilon of one release, attacker, images, labels, median likeness."""
    return [
        (
            f"{row['noise_multiplier']:g}",
            told_epsilon(row),
            {"optimized": "DLG", "analytic": "iDLG"}[row["labels"]],
            "clipping and noise" if row["aware"] else "–",
            percent(Rate(*row["recognized"])),
            percent(Rate(*row["labels_found"])),
            f"{statistics.median(row['psnr']):.1f} dB",
        )
        for row in rows_of_kind(measurement, "leak")
    ]


def protected_words_table(measurement: dict) -> list[tuple[str, ...]]:
    """The language models: epsilon for one line, insertions, exposures, the largest mean, and a character's cost."""
    rows = rows_of_kind(measurement, "memorized")
    table = []
    for epsilon, times in dict.fromkeys((of(row), row["insertions"]) for row in rows):
        same = [row for row in rows if (of(row), row["insertions"]) == (epsilon, times)]
        bound = proven_exposure(epsilon, same[0]["delta_dp"], times, CANARY.size)
        bits = statistics.mean(row["bits"] for row in same)
        exposed = ", ".join(f"{row['exposure']:.1f}" for row in same)
        table.append((told_epsilon(same[0]), str(times), exposed, f"{bound:.1f}", f"{bits:.2f}"))
    return table

"""What a rate on few images can tell: Wilson's interval."""

import math

import torch

from spai_lab.checks import describe
from spai_lab.exercises.exercise import Exercise, Fault, call

CHAPTER = "16_measured_survey"
Z = 1.959964


def my_wilson(hits, trials):
    """Wilson's 95 % interval for a rate.

    hits: images counted, an int from 0 to trials.
    trials: images looked at, an int of at least 1.
    Returns two numbers in [0, 1], the lower end first.
    """
    z = 1.959964
    p, shrink = hits / trials, 1 + z**2 / trials
    center = (p + z**2 / (2 * trials)) / shrink
    half = z / shrink * math.sqrt(p * (1 - p) / trials + z**2 / (4 * trials**2))
    return center - half, center + half


def around(center: float, half: float) -> tuple[float, float]:
    """The two ends of an interval."""
    return center - half, center + half


def parts_of(hits: int, trials: int, z: float = Z) -> tuple[float, float, float, float]:
    """The share, the factor by which it shrinks, the center, and the square of the root."""
    p, shrink = hits / trials, 1 + z**2 / trials
    square = p * (1 - p) / trials + z**2 / (4 * trials**2)
    return p, shrink, (p + z**2 / (2 * trials)) / shrink, square


def takes_walds(hits, trials):
    """That is Wald's interval, around p itself: of 0 hits it makes one without width, of few hits one that passes 0."""
    p = hits / trials
    return around(p, Z * math.sqrt(p * (1 - p) / trials))


def forgets_trials_in_the_error(hits, trials):
    """It takes the spread of one image, `p (1 - p)`, for that of the mean of n: divide by n under the root."""
    p, shrink, center, _ = parts_of(hits, trials)
    return around(center, Z / shrink * math.sqrt(p * (1 - p) + Z**2 / (4 * trials**2)))


def stays_at_the_share(hits, trials):
    """Its width is right, and its center is p; Wilson's center is drawn toward one half."""
    p, shrink, _, square = parts_of(hits, trials)
    return around(p, Z / shrink * math.sqrt(square))


def does_not_shrink(hits, trials):
    """It forgets to divide by 1 + z²/n, in the center and in the width."""
    p, _, _, square = parts_of(hits, trials)
    return around(p + Z**2 / (2 * trials), Z * math.sqrt(square))


def shrinks_the_center_alone(hits, trials):
    """It divides the center by 1 + z²/n, and not the width."""
    _, _, center, square = parts_of(hits, trials)
    return around(center, Z * math.sqrt(square))


def divides_by_four_n(hits, trials):
    """Under the root it adds z²/(4n) where z²/(4n²) belongs: both terms there are variances of a mean."""
    p, shrink, center, _ = parts_of(hits, trials)
    return around(center, Z / shrink * math.sqrt(p * (1 - p) / trials + Z**2 / (4 * trials)))


def leaves_out_one_tail(hits, trials):
    """Its z is 1.645, which leaves 5 % on each side; 95 % in the middle leaves 2.5 % on each: z = 1.96."""
    z = 1.644854
    _, shrink, center, square = parts_of(hits, trials, z)
    return around(center, z / shrink * math.sqrt(square))


def is_in_percent(hits, trials):
    """Its ends are in percent; shares are from 0 to 1."""
    low, high = my_wilson(hits, trials)
    return 100 * low, 100 * high


def as_pair(answer, hits, trials):
    """The answer's two numbers, as a tensor.

    Raises:
        Fault: it is no such pair, or the ends stand the wrong way around.
    """
    result = call(answer, hits=hits, trials=trials)
    try:
        low, high = (float(end) for end in result)
    except (TypeError, ValueError, RuntimeError) as error:
        raise Fault(f"It returns {describe(result)}; expected two numbers, `return low, high`.") from error
    if low > high:
        raise Fault(f"Its lower end, {low:.4g}, is above its upper end, {high:.4g}; return the lower end first.")
    return torch.tensor([low, high], dtype=torch.float64)


def ends_by_bisection(hits: int, trials: int) -> list[float]:
    """The shares q that are z of their standard errors from the measured one, on each side."""
    p = hits / trials

    def too_far(q: float) -> bool:
        return (p - q) ** 2 > Z**2 * q * (1 - q) / trials

    ends = []
    for outer in (0.0, 1.0):
        inner = p
        for _ in range(200):
            middle = (outer + inner) / 2
            outer, inner = (middle, inner) if too_far(middle) else (outer, middle)
        ends.append((outer + inner) / 2)
    return ends


wilson = Exercise(
    chapter=CHAPTER,
    task=r"""
        **What 64 images can tell.** An attack leaves a defense 64 of 64 images. Does it always hold? A rate
        without an interval says nothing about how sure it is. Wilson's interval holds all shares $q$ that are no
        further from the measured $p = k / n$ than $z = 1.959964$ of *their* standard errors,
        $|p - q| \le z \sqrt{q (1 - q) / n}$. Solved for $q$, its ends are

        $$\frac{1}{s} \left( p + \frac{z^2}{2n} \pm z \sqrt{\frac{p (1 - p)}{n} + \frac{z^2}{4 n^2}} \right),
        \qquad s = 1 + \frac{z^2}{n}.$$

        Write `my_wilson(hits, trials)`, with $k$ the hits and $n$ the trials. Which accuracy can the defense still
        have?
    """,
    solution=my_wilson,
    truth=ends_by_bisection,
    cases=lambda: [{"hits": hits, "trials": trials} for hits, trials in ((64, 64), (0, 64), (3, 10), (983, 1000))],
    tested="64 of 64, none of 64, 3 of 10 and 983 of 1,000, against the inequality solved by bisection",
    hints=(
        "Compute p = k/n and 1 + z²/n first; both ends divide by the latter.",
        "The center is (p + z²/2n) / (1 + z²/n); the root, times z, is divided by 1 + z²/n as well.",
    ),
    mistakes=(
        takes_walds,
        forgets_trials_in_the_error,
        stays_at_the_share,
        does_not_shrink,
        shrinks_the_center_alone,
        divides_by_four_n,
        leaves_out_one_tail,
        is_in_percent,
    ),
    call=as_pair,
)

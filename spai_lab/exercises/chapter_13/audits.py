"""What an audit may claim from how rarely its guesses err."""

import math
from collections.abc import Callable
from numbers import Real

import numpy as np
from torch import Tensor

from spai_lab.exercises.chapter_13.answers import CHAPTER
from spai_lab.exercises.exercise import Exercise, call


def my_lowest_epsilon(fpr, fnr, delta_dp):
    """The largest lower bound on epsilon that an audit may claim.

    fpr: upper confidence limit of the rate of false positives, above 0, at most 1.
    fnr: that of false negatives, above 0, at most 1.
    delta_dp: the delta of the claim, at least 0, below 1.
    Returns a number, at least 0.
    """
    ratio = max((1 - delta_dp - fnr) / fpr, (1 - delta_dp - fpr) / fnr)
    return math.log(max(1, ratio))


def logarithm(ratio: float) -> float:
    """The natural logarithm, minus infinity where there is none."""
    return math.log(ratio) if ratio > 0 else -math.inf


def forgets_delta(fpr, fnr, delta_dp):
    """It leaves out delta, and claims too much: with that probability a private mechanism may give all away."""
    return my_lowest_epsilon(fpr, fnr, 0)


def looks_one_way(fpr, fnr, delta_dp):
    """It looks at 1 - fnr against fpr alone; the other guess, that the record is out, may prove more."""
    return max(0.0, logarithm((1 - delta_dp - fnr) / fpr))


def looks_the_other_way(fpr, fnr, delta_dp):
    """It looks at 1 - fpr against fnr alone; the guess that the record is in may prove more."""
    return max(0.0, logarithm((1 - delta_dp - fpr) / fnr))


def takes_the_smaller(fpr, fnr, delta_dp):
    """It takes the smaller of the two bounds; both are proven, so claim the larger."""
    return min(looks_one_way(fpr, fnr, delta_dp), looks_the_other_way(fpr, fnr, delta_dp))


def goes_below_zero(fpr, fnr, delta_dp):
    """It claims a negative epsilon where errors are frequent; they prove nothing, and whoever claims nothing says 0."""
    return logarithm(max((1 - delta_dp - fnr) / fpr, (1 - delta_dp - fpr) / fnr))


def counts_bits(fpr, fnr, delta_dp):
    """It takes the logarithm to the base 2; epsilon is an exponent of e, so take `math.log`."""
    return my_lowest_epsilon(fpr, fnr, delta_dp) / math.log(2)


def counts_digits(fpr, fnr, delta_dp):
    """It takes the logarithm to the base 10; epsilon is an exponent of e: the natural logarithm, `math.log`."""
    return my_lowest_epsilon(fpr, fnr, delta_dp) / math.log(10)


def forgets_the_logarithm(fpr, fnr, delta_dp):
    """It returns e^epsilon, the ratio; asked is epsilon, its logarithm."""
    return max(0.0, (1 - delta_dp - fnr) / fpr, (1 - delta_dp - fpr) / fnr)


def adds_delta(fpr, fnr, delta_dp):
    """It adds delta, which stands beside e^epsilon fpr; on the other side of the inequality it is subtracted."""
    return my_lowest_epsilon(fpr, fnr, -delta_dp)


def puts_delta_below(fpr, fnr, delta_dp):
    """It adds delta to the rate below the fraction, where e^epsilon would multiply it; subtract it above."""
    return max(0.0, logarithm(max((1 - fnr) / (fpr + delta_dp), (1 - fpr) / (fnr + delta_dp))))


def divides_by_the_right_guesses(fpr, fnr, delta_dp):
    """It divides by 1 - fpr and 1 - fnr, rates of right guesses; what privacy forbids is that errors are rare."""
    return max(0.0, logarithm(max((1 - delta_dp - fnr) / (1 - fpr), (1 - delta_dp - fpr) / (1 - fnr))))


def takes_a_rate_twice(fpr, fnr, delta_dp):
    """It has the same rate above and below the fraction; fpr stands below 1 - fnr, and fnr below 1 - fpr."""
    return max(0.0, logarithm(max((1 - delta_dp - fpr) / fpr, (1 - delta_dp - fnr) / fnr)))


def averages_the_errors(fpr, fnr, delta_dp):
    """It makes one rate of the two; a guess that is rarely made but then is right proves more than the mean shows."""
    return my_lowest_epsilon((fpr + fnr) / 2, (fpr + fnr) / 2, delta_dp)


ERRORS = (
    (0.02, 0.3, 0.0),
    (0.4, 0.01, 0.05),
    (0.05, 0.1, 0.1),
    (0.003, 0.8, 1e-5),
    (0.6, 0.55, 0.01),
    (0.03, 0.9999, 1e-3),
)


def audits() -> list[dict]:
    """Errors that prove something either way, and errors that prove nothing, the last with 1 - delta - fnr below 0."""
    return [{"fpr": fpr, "fnr": fnr, "delta_dp": delta_dp} for fpr, fnr, delta_dp in ERRORS]


def contradiction(epsilon: float, fpr: float, fnr: float, delta_dp: float) -> str | None:
    """Which promise of privacy the errors break, if one."""
    grow = math.exp(epsilon)
    if 1 - fnr > grow * fpr + delta_dp:
        return f"1 - fnr = {1 - fnr:.4g} is more than e^epsilon fpr + delta = {grow * fpr + delta_dp:.4g}"
    if 1 - fpr > grow * fnr + delta_dp:
        return f"1 - fpr = {1 - fpr:.4g} is more than e^epsilon fnr + delta = {grow * fnr + delta_dp:.4g}"
    return None


def by_bisection(fpr, fnr, delta_dp) -> float:
    """The epsilon from which on no promise is broken."""
    low, high = 0.0, 50.0
    if not contradiction(low, fpr, fnr, delta_dp):
        return 0.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if contradiction(middle, fpr, fnr, delta_dp) else (low, middle)
    return high


def claim(answer: Callable, **case: object) -> object:
    """The answer's result, minus infinity if it asks for a logarithm that does not exist."""
    try:
        result = call(answer, **case)
    except ValueError as error:
        if "domain" not in str(error) and "positive input" not in str(error):
            raise
        return -math.inf
    number = isinstance(result, Real) or (isinstance(result, Tensor) and result.numel() == 1)
    return -math.inf if number and math.isnan(result) else result


def promise(result: np.ndarray, fpr, fnr, delta_dp) -> str:
    """What the claim has to do with the errors."""
    given = f"For `fpr = {fpr:g}, fnr = {fnr:g}, delta_dp = {delta_dp:g}`"
    if result == -math.inf:
        useful = contradiction(0, fpr, fnr, delta_dp) is not None
        advice = "" if useful else " Such errors prove nothing: raise the ratio to 1 first."
        return f"{given} it takes the logarithm of 0 or of a number below 0, and there is none.{advice}"
    if result < 0:
        return f"{given} it claims an epsilon of at least {result:.4g}. Every epsilon is at least 0: claim no less."
    broken = contradiction(float(min(result, 50)), fpr, fnr, delta_dp)
    if broken:
        return f"{given} it returns {result:.4g}, and more is proven: with that epsilon, {broken}."
    return f"{given} it claims an epsilon of at least {result:.4g}: too much, as both promises are kept with less."


lowest_epsilon = Exercise(
    chapter=CHAPTER,
    task=r"""
        **What errors prove.** An audit runs a mechanism with a record and without it, and guesses from each output
        which it was. Let $\alpha$ be how often it says "with" and errs (false positives, among the runs without), and
        $\beta$ how often it says "without" and errs (false negatives, among the runs with). Whoever claims
        $(\epsilon, \delta)$-differential privacy promises for every guess

        $$1 - \beta \le e^\epsilon \alpha + \delta, \qquad 1 - \alpha \le e^\epsilon \beta + \delta.$$

        From a number of runs the audit knows that, with the confidence it wants, the rates are no larger than `fpr` and
        `fnr`. Write `my_lowest_epsilon(fpr, fnr, delta_dp)`: the largest lower bound on $\epsilon$ that it may claim,
        0 if it has proven nothing.
    """,
    solution=my_lowest_epsilon,
    truth=by_bisection,
    cases=audits,
    tested="four audits that prove something, either way, and two that prove nothing, against the two promises",
    hints=(
        "Solve each promise for $e^\\epsilon$: what must it be at least, if the promise is kept?",
        "The largest $\\alpha$ and $\\beta$ that are believable prove least: put `fpr` and `fnr` in, for "
        "$e^\\epsilon \\ge \\frac{1 - \\delta - \\beta}{\\alpha}$ and $e^\\epsilon \\ge "
        "\\frac{1 - \\delta - \\alpha}{\\beta}$. Both are true, so the larger counts.",
        "`math.log` of a ratio below 1 is negative, and of one below 0 it does not exist: `max(1, ratio)` first.",
    ),
    mistakes=(
        forgets_delta,
        looks_one_way,
        looks_the_other_way,
        takes_the_smaller,
        goes_below_zero,
        counts_bits,
        counts_digits,
        forgets_the_logarithm,
        adds_delta,
        puts_delta_below,
        divides_by_the_right_guesses,
        takes_a_rate_twice,
        averages_the_errors,
    ),
    call=claim,
    look=promise,
)

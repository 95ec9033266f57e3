"""Answers that may be seen: a share from answers that may be lies, and the noise that one number needs."""

import math
from collections.abc import Iterator
from itertools import combinations_with_replacement, product

import numpy as np

from spai_lab.exercises.exercise import Exercise

CHAPTER = "13_differential_privacy"


# --- estimated_share


def my_estimated_share(c, epsilon):
    """How large a share would truly say yes, judged by answers of randomized response.

    c: the share of answers that are yes, from 0 to 1.
    epsilon: each answer is true with probability e^epsilon / (e^epsilon + 1).
    Returns a number that is the true share on average, over the coins of all.
    """
    p = math.exp(epsilon) / (math.exp(epsilon) + 1)
    q = 1 - p
    return (c - q) / (p - q)


def truth_and_lie(epsilon: float) -> tuple[float, float]:
    """How likely an answer is true, and how likely it is not."""
    p = 1 / (1 + math.exp(-epsilon))
    return p, 1 - p


def believes_the_answers(c, epsilon):
    """It returns the share as reported; lies pull that towards 1/2."""
    return c


def forgets_the_false_yes(c, epsilon):
    """It divides by p and forgets that some of the yes are lies of people whose true answer is no: a share of q."""
    return c / truth_and_lie(epsilon)[0]


def only_subtracts_the_lies(c, epsilon):
    """It subtracts q and stops there; what is left spans p - q only, and p + q = 1, so divide by p - q."""
    return c - truth_and_lie(epsilon)[1]


def divides_by_the_truth(c, epsilon):
    """It subtracts q and divides by p; from nobody to everybody, E[c] runs from q to p, a length of p - q."""
    p, q = truth_and_lie(epsilon)
    return (c - q) / p


def swaps_truth_and_lie(c, epsilon):
    """It swaps p and q, as e^-epsilon in place of e^epsilon does, and returns the share of those who would say no."""
    p, q = truth_and_lie(epsilon)
    return (c - p) / (q - p)


def takes_epsilon_for_the_odds(c, epsilon):
    """It takes epsilon for the odds of the truth, p / q; epsilon is their logarithm, and the odds are e^epsilon."""
    p = epsilon / (epsilon + 1)
    return (c - (1 - p)) / (2 * p - 1)


def lies_half_the_time_only(c, epsilon):
    """It lets a fair coin answer where the truth is not told; here the answer is then always the opposite."""
    p, q = truth_and_lie(epsilon)
    return (c - q / 2) / p


def counts_a_third_answer(c, epsilon):
    """It has e^epsilon + 2 below the fraction: one for each answer; one of the two is the truth, with e^epsilon."""
    p = math.exp(epsilon) / (math.exp(epsilon) + 2)
    return (c - (1 - p)) / (2 * p - 1)


def throws_the_coins_again(c, epsilon):
    """It puts c where the true share belongs, and mixes lies in a second time; solve the equation for the share."""
    p, q = truth_and_lie(epsilon)
    return p * c + q * (1 - c)


def clips_the_estimate(c, epsilon):
    """It moves the estimate into [0, 1]: plausible every time, and wrong on average; asked is right on average."""
    return min(1.0, max(0.0, my_estimated_share(c, epsilon)))


RESPONDENTS = 5


def polls() -> list[dict]:
    """Every share that five answers can have, with coins that lie often and rarely."""
    return [
        {"c": said_yes / RESPONDENTS, "epsilon": epsilon}
        for epsilon in (2.0, 0.5, math.log(3))
        for said_yes in (2, 5, 0, 1, 3, 4)
    ]


def right_on_average(c, epsilon) -> float:
    """Of all rules for five people, the one whose mean over all their coins is the true share, whatever that is."""
    lie, n = 1 / (1 + math.exp(epsilon)), RESPONDENTS
    chance = np.zeros((n + 1, n + 1))  # of k answers yes if m would truly say yes
    for m in range(n + 1):
        for coins in product((False, True), repeat=n):
            k = sum((i < m) != lies for i, lies in enumerate(coins))
            chance[m, k] += math.prod(lie if lies else 1 - lie for lies in coins)
    rule = np.linalg.solve(chance, np.arange(n + 1) / n)
    return rule[round(n * c)]


def implausible_is_right(result: np.ndarray, c, epsilon) -> str | None:
    """What stands out where so few, or so many, say yes that the estimate leaves [0, 1]."""
    p, q = truth_and_lie(epsilon)
    if c < q and result >= 0:
        return (
            f"For `c = {c:g}, epsilon = {epsilon:.3g}` it returns {result:.4g}. If nobody would truly say yes, still "
            f"{q:.3g} do on average: fewer do here, so the estimate lies below 0."
        )
    if c > p and result <= 1:
        return (
            f"For `c = {c:g}, epsilon = {epsilon:.3g}` it returns {result:.4g}. If everybody would truly say yes, only "
            f"{p:.3g} do on average: more do here, so the estimate lies above 1."
        )
    return None


estimated_share = Exercise(
    chapter=CHAPTER,
    task=r"""
        **Undo the coins.** Asked something delicate, everybody throws a biased coin in private. With probability
        $p = \frac{e^\epsilon}{e^\epsilon + 1}$ they tell the truth, and with $q = 1 - p$ the opposite. Nobody can be
        held to an answer, and the whole can be read all the same: if a share $\pi$ would truly say yes, the share $c$
        of answers that are yes is on average

        $$E[c] = p \, \pi + q \, (1 - \pi).$$

        Write `my_estimated_share(c, epsilon)`: an estimate of $\pi$ that is unbiased, $E[\hat\pi] = \pi$, whatever
        $\pi$ is.
    """,
    solution=my_estimated_share,
    truth=right_on_average,
    cases=polls,
    tested="every share that five answers can have, epsilon 0.5, log 3 and 2, against the mean over all their coins",
    hints=(
        "The equation is a straight line: where nobody would truly say yes, E[c] is q; where everybody would, it is p.",
        "Solve it for $\\pi$. How far is c above q, measured by the distance from q to p?",
        "`math.exp(epsilon)` is e^epsilon. An estimate below 0 or above 1 is all right: clipped, it would no longer be "
        "right on average.",
    ),
    mistakes=(
        believes_the_answers,
        forgets_the_false_yes,
        only_subtracts_the_lies,
        divides_by_the_truth,
        swaps_truth_and_lie,
        takes_epsilon_for_the_odds,
        lies_half_the_time_only,
        counts_a_third_answer,
        throws_the_coins_again,
        clips_the_estimate,
    ),
    look=implausible_is_right,
)


# --- laplace_scale


def my_laplace_scale(query, low, high, n, epsilon, adjacency):
    """The least scale of Laplace noise that makes the answer to a query private.

    query: "count" (of the values above some bound within the range), "sum" or "mean".
    low, high: the range; every value is from low to high, and low may be below 0.
    n: how many values there are.
    epsilon: the budget of the answer, above 0.
    adjacency: "replace" one value, or "add/remove" one; of a mean always "replace".
    Returns the scale b, a number.
    """
    if query == "count":
        sensitivity = 1
    elif adjacency == "replace":
        sensitivity = high - low
    else:
        sensitivity = max(abs(low), abs(high))
    if query == "mean":
        sensitivity /= n
    return sensitivity / epsilon


def multiplies_by_epsilon(query, low, high, n, epsilon, adjacency):
    """It multiplies by epsilon; the smaller epsilon, the more is to be hidden, so divide by it."""
    return my_laplace_scale(query, low, high, n, 1 / epsilon, adjacency)


def returns_the_sensitivity(query, low, high, n, epsilon, adjacency):
    """It returns the sensitivity, whatever epsilon is; the scale is the sensitivity divided by epsilon."""
    return my_laplace_scale(query, low, high, n, 1, adjacency)


def returns_the_deviation(query, low, high, n, epsilon, adjacency):
    """It returns the standard deviation of the noise, which is the root of 2 times b; asked is the scale b itself."""
    return math.sqrt(2) * my_laplace_scale(query, low, high, n, epsilon, adjacency)


def forgets_the_range(query, low, high, n, epsilon, adjacency):
    """It lets a value move a sum by 1, whatever the range; a count moves by 1, a sum by as much as a value may."""
    return my_laplace_scale(query, 0, 1, n, epsilon, adjacency)


def gives_the_mean_the_noise_of_the_sum(query, low, high, n, epsilon, adjacency):
    """It gives the mean as much noise as the sum; a value counts in the mean by one part in n only."""
    return my_laplace_scale(query, low, high, 1, epsilon, adjacency)


def divides_everything_by_n(query, low, high, n, epsilon, adjacency):
    """It divides by n for a count and a sum too; that is right for a mean alone."""
    divisor = 1 if query == "mean" else n
    return my_laplace_scale(query, low, high, n, epsilon, adjacency) / divisor


def takes_the_width_always(query, low, high, n, epsilon, adjacency):
    """It takes high - low for a value that is added, too; none stood there before, so it moves the sum by its size."""
    return my_laplace_scale(query, low, high, n, epsilon, "replace")


def takes_the_size_always(query, low, high, n, epsilon, adjacency):
    """It takes the size of a value where one is replaced, too; replacing moves a sum from low to high at most."""
    return my_laplace_scale(query, low, high, n, epsilon, "add/remove")


def looks_at_high_alone(query, low, high, n, epsilon, adjacency):
    """It takes high for the largest size of a value; where low is far below 0, low is larger in size."""
    return my_laplace_scale(query, low if adjacency == "replace" else 0, high, n, epsilon, adjacency)


def replaces_in_two_steps(query, low, high, n, epsilon, adjacency):
    """It counts a replaced value twice, as removed and as added: private, with more noise than it takes."""
    twice = 2 if adjacency == "replace" else 1
    return twice * my_laplace_scale(query, low, high, n, epsilon, "add/remove")


def stretches_the_count(query, low, high, n, epsilon, adjacency):
    """It gives a count the noise of a sum; one value, however large, moves a count by 1 at most."""
    return my_laplace_scale("sum" if query == "count" else query, low, high, n, epsilon, adjacency)


QUERIES = (
    ("sum", -2.0, 5.0, 10, 0.5, "replace"),
    ("sum", -6.0, -1.0, 8, 0.25, "add/remove"),
    ("sum", -2.0, 5.0, 10, 0.5, "add/remove"),
    ("sum", 2.0, 6.0, 8, 2.0, "replace"),
    ("count", -2.0, 5.0, 10, 0.5, "replace"),
    ("count", 2.0, 6.0, 8, 2.0, "add/remove"),
    ("mean", -2.0, 5.0, 10, 0.5, "replace"),
    ("mean", 18.0, 90.0, 12, 0.1, "replace"),
)


def queries() -> list[dict]:
    """Each query with either neighbors, in ranges around 0, above it and below it."""
    names = ("query", "low", "high", "n", "epsilon", "adjacency")
    return [dict(zip(names, query, strict=True)) for query in QUERIES]


def neighbors_of(numbers: tuple[float, ...], values: tuple[float, ...], adjacency: str) -> Iterator[tuple[float, ...]]:
    """All lists of values that differ from the given one in one record."""
    for i in range(len(numbers)):
        rest = numbers[:i] + numbers[i + 1 :]
        yield from ((*rest, value) for value in values) if adjacency == "replace" else (rest,)
    if adjacency != "replace":
        yield from ((*numbers, value) for value in values)


def farthest_move(query, low, high, n, adjacency) -> float:
    """How far an answer moves at most, tried on all neighbors with values at the ends and in the middle."""
    middle = (low + high) / 2
    answer = {
        "count": lambda numbers: sum(number > middle for number in numbers),
        "sum": sum,
        "mean": lambda numbers: sum(numbers) / len(numbers),
    }[query]
    values = (low, middle, high)
    return max(
        abs(answer(numbers) - answer(neighbor))
        for numbers in combinations_with_replacement(values, n)
        for neighbor in neighbors_of(numbers, values, adjacency)
    )


def by_trying_neighbors(query, low, high, n, epsilon, adjacency) -> float:
    """The scale with which the densities of the farthest neighbors have a ratio of just e^epsilon."""
    return farthest_move(query, low, high, n, adjacency) / epsilon


def too_loud_or_too_quiet(result: np.ndarray, query, low, high, n, epsilon, adjacency) -> str:
    """What the noise has to do with the farthest neighbors."""
    given = (
        f"For `query = {query!r}, low = {low:g}, high = {high:g}, n = {n}, epsilon = {epsilon:g}, "
        f"adjacency = {adjacency!r}` it returns {result:.4g}."
    )
    if result <= 0:
        return f"{given} A scale is above 0."
    move = farthest_move(query, low, high, n, adjacency)
    if move / result > epsilon:
        return (
            f"{given} There are neighbors whose answers differ by {move:.4g}, and then the densities have a ratio of "
            f"e^{move / result:.3g}; e^{epsilon:g} is allowed: too little noise."
        )
    return f"{given} No answer moves by more than {move:.4g}: the noise is more than that takes."


laplace_scale = Exercise(
    chapter=CHAPTER,
    task=r"""
        **As loud as one record.** A service holds `n` numbers, each from `low` to `high`, and tells an answer $f$ with
        Laplace noise, whose density is $\frac{1}{2b} e^{-|z| / b}$. If $f$ moves by $\Delta$, the density of what it
        tells changes by a factor of $e^{\Delta / b}$ at most. Write
        `my_laplace_scale(query, low, high, n, epsilon, adjacency)`: the least scale $b$ that is
        $\epsilon$-differentially private, whatever the numbers are.

        The `query` is a "count" (how many of them are above some bound within the range), their "sum" or their "mean".
        Neighbors differ in one number, by `adjacency`: "replace" it, or "add/remove" it. The mean is asked for with
        "replace" only, where `n` is public.
    """,
    solution=my_laplace_scale,
    truth=by_trying_neighbors,
    cases=queries,
    tested="8 queries: counts, sums and means, either adjacency, ranges around, above and below 0, against neighbors",
    hints=(
        "The scale is the sensitivity divided by epsilon. How far does one number move a count, a sum, a mean?",
        "A sum moves from `low` to `high` at most if a number is replaced, and by the size of a number if one is added "
        "or removed. Which size is the largest, if `low` is below 0?",
        "With `n` fixed, the mean is the sum divided by `n`, and moves by one part in `n` of what the sum does.",
    ),
    mistakes=(
        multiplies_by_epsilon,
        returns_the_sensitivity,
        returns_the_deviation,
        forgets_the_range,
        gives_the_mean_the_noise_of_the_sum,
        divides_everything_by_n,
        takes_the_width_always,
        takes_the_size_always,
        looks_at_high_alone,
        replaces_in_two_steps,
        stretches_the_count,
    ),
    look=too_loud_or_too_quiet,
)

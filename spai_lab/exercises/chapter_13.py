"""Chapter 13: a share from answers that may be lies, a gradient that may be released, and what an audit may claim."""

import math
from collections.abc import Callable
from itertools import product
from numbers import Real

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spai_lab.exercises.exercise import Exercise, Fault, call

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


# --- noisy_gradient


def my_noisy_gradient(g, noise, clip, noise_multiplier, expected_batch):
    """The gradient that a step of DP-SGD releases.

    g: the gradient of each example that was drawn, (N, D); N may be 0.
    noise: standard normal numbers (D,), drawn already.
    clip: how long one example's gradient may be, above 0.
    noise_multiplier: standard deviation of the noise in the sum, in units of clip.
    expected_batch: how many examples are drawn on average.
    Returns the gradient (D,).
    """
    lengths = g.norm(dim=1, keepdim=True)
    clipped = g * (clip / lengths).clamp(max=1)
    return (clipped.sum(0) + noise_multiplier * clip * noise) / expected_batch


def shortened(vectors: Tensor, clip: float) -> Tensor:
    """Vectors, of the last dimension, none of them longer than the clip."""
    return vectors * (clip / vectors.norm(dim=-1, keepdim=True)).clamp(max=1)


def clips_the_mean(g, noise, clip, noise_multiplier, expected_batch):
    """It clips the mean, which one long gradient may turn around all the same; clip each row, and then add up."""
    return shortened(g.mean(0), clip) + noise_multiplier * clip * noise / expected_batch


def clips_the_sum(g, noise, clip, noise_multiplier, expected_batch):
    """It adds up first and clips the sum, which one example can move by twice the clip; clip each row before."""
    return (shortened(g.sum(0), clip) + noise_multiplier * clip * noise) / expected_batch


def clips_each_coordinate(g, noise, clip, noise_multiplier, expected_batch):
    """It clips each coordinate; a row may then still be as long as clip times the root of D."""
    return (g.clamp(-clip, clip).sum(0) + noise_multiplier * clip * noise) / expected_batch


def measures_all_rows_together(g, noise, clip, noise_multiplier, expected_batch):
    """It takes one length for the whole matrix; each row has a length of its own: `g.norm(dim=1, keepdim=True)`."""
    return (shortened(g.flatten(), clip).view_as(g).sum(0) + noise_multiplier * clip * noise) / expected_batch


def stretches_the_short(g, noise, clip, noise_multiplier, expected_batch):
    """It also stretches gradients that are shorter than the clip; clipping only shortens: the factor is at most 1."""
    return (clip * F.normalize(g, dim=1).sum(0) + noise_multiplier * clip * noise) / expected_batch


def drops_the_long(g, noise, clip, noise_multiplier, expected_batch):
    """It leaves out gradients that are longer than the clip; they stay, shortened to it."""
    return (g[g.norm(dim=1) <= clip].sum(0) + noise_multiplier * clip * noise) / expected_batch


def never_shortens(g, noise, clip, noise_multiplier, expected_batch):
    """It never clips: one long gradient shows through any noise."""
    return (g.sum(0) + noise_multiplier * clip * noise) / expected_batch


def noise_without_the_clip(g, noise, clip, noise_multiplier, expected_batch):
    """Its noise has a standard deviation of noise_multiplier; that counts clips, so multiply by clip."""
    return (shortened(g, clip).sum(0) + noise_multiplier * noise) / expected_batch


def squares_the_deviation(g, noise, clip, noise_multiplier, expected_batch):
    """It multiplies the noise by the variance, a square; standard normal numbers times the deviation have it."""
    return (shortened(g, clip).sum(0) + (noise_multiplier * clip) ** 2 * noise) / expected_batch


def noise_after_the_division(g, noise, clip, noise_multiplier, expected_batch):
    """It adds the noise after the division, as much as the whole sum needs; the noise is divided with the sum."""
    return shortened(g, clip).sum(0) / expected_batch + noise_multiplier * clip * noise


def noise_on_each_row(g, noise, clip, noise_multiplier, expected_batch):
    """It adds the noise to each row, so that it counts N times, and not at all in an empty batch; add it to the sum."""
    return (shortened(g, clip) + noise_multiplier * clip * noise).sum(0) / expected_batch


def divides_by_those_drawn(g, noise, clip, noise_multiplier, expected_batch):
    """It divides by how many were drawn, which tells how many took part, and may be 0; divide by expected_batch."""
    return (shortened(g, clip).sum(0) + noise_multiplier * clip * noise) / len(g)


def takes_the_mean_of_the_rows(g, noise, clip, noise_multiplier, expected_batch):
    """It takes the mean of the rows first, which is NaN in an empty batch; add up, and divide by expected_batch."""
    return (len(g) * shortened(g, clip).mean(0) + noise_multiplier * clip * noise) / expected_batch


def releases_the_sum(g, noise, clip, noise_multiplier, expected_batch):
    """It releases the sum; a step takes the mean, so divide by expected_batch."""
    return shortened(g, clip).sum(0) + noise_multiplier * clip * noise


def forgets_the_noise(g, noise, clip, noise_multiplier, expected_batch):
    """It clips and adds no noise: whoever knows all gradients but one reads off the last."""
    return shortened(g, clip).sum(0) / expected_batch


def draws() -> list[dict]:
    """Short gradients, long ones and one that is zero; the first case has no noise, and the last has no example."""
    generator = torch.Generator().manual_seed(51)
    return [
        {
            "g": torch.tensor(lengths)[:, None] * F.normalize(torch.randn(len(lengths), D, generator=generator), dim=1),
            "noise": torch.randn(D, generator=generator),
            "clip": clip,
            "noise_multiplier": noise_multiplier,
            "expected_batch": expected_batch,
        }
        for lengths, D, clip, noise_multiplier, expected_batch in (
            ((0.3, 7.0, 1.2, 0.0, 2.5), 4, 1.5, 0.0, 8),
            ((0.4, 3.0, 0.1, 0.5, 0.0, 0.2, 9.0), 6, 0.5, 1.3, 4),
            ((20.0, 1.0), 3, 4.0, 0.7, 2.5),
            ((), 3, 2.0, 0.8, 8),
        )
    ]


def example_by_example(g, noise, clip, noise_multiplier, expected_batch) -> np.ndarray:
    """In float64: of each gradient the largest part that is not too long, found by bisection, one after another."""
    released = noise_multiplier * clip * noise.double().numpy()
    for gradient in g.double().numpy():
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            fits = math.hypot(*(middle * gradient)) <= clip
            low, high = (middle, high) if fits else (low, middle)
        released = released + high * gradient
    return released / expected_batch


def release(answer: Callable, g, **case: object) -> object:
    """The answer's result, with infinity for the mean of an empty batch, which PyTorch calls NaN."""
    result = call(answer, g=g, **case)
    if not isinstance(result, Tensor) or not result.isnan().any():
        return result
    if len(g):
        raise Fault(
            "It returns NaN. One of the gradients is zero, and neither 0 / 0 nor infinity times 0 is a number. Limit "
            "the factor clip / length to 1 first, with `.clamp(max=1)`, and multiply then."
        )
    return result.nan_to_num(nan=torch.inf)


def too_long_or_too_noisy(result: np.ndarray, g, noise, clip, noise_multiplier, expected_batch) -> str | None:
    """What stands out: a sum that is too long, or noise of another size."""
    if not np.isfinite(result).all():
        batch = f"a batch of {len(g)}" if len(g) else "an empty batch"
        return f"For {batch} its result is infinite, or no number at all: does it divide by how many were drawn?"
    if noise_multiplier == 0:
        length, reach = np.linalg.norm(result), len(g) * clip / expected_batch
        if length <= 1.0001 * reach:
            return None
        return (
            f"Without noise its result has length {length:.4g}; a sum of {len(g)} gradients of length {clip:g} at "
            f"most, divided by {expected_batch:g}, is no longer than {reach:.4g}."
        )
    quiet = example_by_example(g, noise, clip, 0.0, expected_batch)
    factors = (result - quiet) / noise.double().numpy()
    if np.ptp(factors) > 1e-3 * np.abs(factors).max() + 1e-6:
        return None
    return (
        f"All but the noise is right for {len(g)} examples, `clip = {clip:g}, noise_multiplier = {noise_multiplier:g}, "
        f"expected_batch = {expected_batch:g}`. It adds {factors.mean():.4g} times `noise`; expected "
        f"{noise_multiplier * clip / expected_batch:.4g} times."
    )


noisy_gradient = Exercise(
    chapter=CHAPTER,
    task=r"""
        **A step that may be seen.** DP-SGD lets no example, added or removed, move the sum by more than $C$, and hides
        that much in noise. Of the gradients $g_1, \dots, g_N$ of the examples that it drew, it releases

        $$\tilde g = \frac{1}{B} \left( \sum_{i=1}^N \min\Big(1, \frac{C}{\|g_i\|}\Big) \, g_i + \sigma C z \right),
        \qquad z \sim N(0, I).$$

        Write `my_noisy_gradient(g, noise, clip, noise_multiplier, expected_batch)`, with `noise` for $z$, `clip` for
        $C$, `noise_multiplier` for $\sigma$ and `expected_batch` for $B$. Each example is drawn by a coin of its own,
        so $N$ is another number each time, and may be 0. $B$ is its mean, known beforehand.
    """,
    solution=my_noisy_gradient,
    truth=example_by_example,
    cases=draws,
    tested="batches of 5, 7, 2 and 0 examples, some longer than the clip, some shorter, one zero; also without noise",
    hints=(
        "Three things in this order: shorten each row, add up and add the noise, divide by the expected batch.",
        "`g.norm(dim=1, keepdim=True)` has the length of each row, (N, 1), so that a row times its factor is a row.",
        "The factor is `(clip / lengths).clamp(max=1)`: no row gets longer, and a row of zeros stays one. For N = 0 "
        "`sum(0)` is zero, while `mean(0)` is NaN.",
    ),
    mistakes=(
        clips_the_mean,
        clips_the_sum,
        clips_each_coordinate,
        measures_all_rows_together,
        stretches_the_short,
        drops_the_long,
        never_shortens,
        noise_without_the_clip,
        squares_the_deviation,
        noise_after_the_division,
        noise_on_each_row,
        divides_by_those_drawn,
        takes_the_mean_of_the_rows,
        releases_the_sum,
        forgets_the_noise,
    ),
    call=release,
    look=too_long_or_too_noisy,
)


# --- lowest_epsilon


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

EXERCISES = (estimated_share, noisy_gradient, lowest_epsilon)

"""How many teachers, and how much noise, label best within a budget: judged on the votes of teachers that were trained.

The votes are made here, on digits, by linear teachers that fit their part by least squares, which takes no time.
"""

import math
from collections.abc import Callable
from functools import cache
from numbers import Real

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import ndtr
from torch import Tensor

from spai_lab.checks import describe
from spai_lab.data import load
from spai_lab.exercises.chapter_13.answers import CHAPTER
from spai_lab.exercises.exercise import Exercise, Fault, call
from spai_lab.privacy.pate_bounds import gnmax_guarantee

Votes = dict[int, Tensor]
COUNTS = (5, 20, 60, 160, 320)
ASKED = 100
RIDGE = 0.1  # least squares also pay that for the squares of the weights: parts have fewer images than pixels
SPARE_NOISE = 0.02  # relative; by how much a right answer may exceed the least sigma
SPARE_LABELS = 0.01  # of all labels; how far a right answer may stay behind the best


def my_teachers(votes, y, epsilon, delta_dp):
    """The number of teachers and the noise that label best within a budget.

    votes: from each number of teachers to their votes on the same N images, (N, K).
    y: the right labels of these images, (N,).
    epsilon, delta_dp: the budget of all N answers together, one record replaced.
    Returns the number of teachers, and sigma, the deviation of the noise, in votes.
    """
    low, high = 0.1, 1000.0
    while high > 1.001 * low:
        sigma = math.sqrt(low * high)
        spent = gnmax_guarantee(votes[min(votes)], sigma=sigma, delta_dp=delta_dp).epsilon
        low, high = (sigma, high) if spent > epsilon else (low, sigma)
    sigma = high
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(500, len(y), votes[min(votes)].shape[1], generator=generator)

    def share_right(teachers):
        return ((votes[teachers] + sigma * z).argmax(2) == y).double().mean()

    return max(votes, key=share_right), sigma


# --- the votes


@cache
def rehearsal() -> tuple[Votes, Tensor]:
    """Votes of teachers of disjoint parts of the training images on validation images, and the labels of these."""
    data = load("digits")
    x, asked = (F.avg_pool2d(images, 4).flatten(1).double() for images in (data.x_train, data.x_val[:ASKED]))
    x, asked = (F.pad(pixels, (0, 1), value=1.0) for pixels in (x, asked))  # the 1 is for the bias
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(49))
    votes = {}
    for count in COUNTS:
        parts = torch.stack(order.split(len(x) // count)[:count])
        votes[count] = least_squares_votes(x[parts], F.one_hot(data.y_train[parts]).double(), asked)
    return votes, data.y_val[:ASKED]


def least_squares_votes(x: Tensor, y: Tensor, asked: Tensor) -> Tensor:
    """How many teachers vote for each class, `(N, K)`, of teachers that learned `x (T, n, D)` and `y (T, n, K)`."""
    weights = torch.linalg.solve(x.mT @ x + RIDGE * torch.eye(x.shape[2], dtype=x.dtype), x.mT @ y)
    return F.one_hot((asked @ weights).argmax(2), y.shape[2]).sum(0)


def budgets() -> list[dict]:
    """A budget that asks for many teachers, one in between, and one so large that few teachers do; fewer answers."""
    votes, y = rehearsal()
    return [
        {
            "votes": {count: counts[:asked].clone() for count, counts in votes.items()},
            "y": y[:asked].clone(),
            "epsilon": epsilon,
            "delta_dp": delta_dp,
        }
        for asked, epsilon, delta_dp in ((100, 2.0, 1e-5), (100, 12.0, 1e-5), (100, 60.0, 1e-5), (50, 4.0, 1e-4))
    ]


# --- what noise does, and what it costs


def spent_on(counts: Tensor, sigma: float, delta_dp: float, data_dependent: bool = False) -> float:
    """The epsilon of an answer for each row of votes."""
    return gnmax_guarantee(counts, sigma=sigma, delta_dp=delta_dp, data_dependent=data_dependent).epsilon


def halved(spends_too_much: Callable[[float], bool], precision: float) -> float:
    """The least noise that does not spend too much, by halving an interval."""
    low, high = 1e-2, 1e4
    while high > (1 + precision) * low:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if spends_too_much(middle) else (low, middle)
    return high


@cache
def least_sigma(answers: int, epsilon: float, delta_dp: float) -> float:
    """The least noise that keeps the budget, whatever the votes are, and however many teachers there are."""
    any_votes = torch.tensor([[1, 0]]).repeat(answers, 1)
    return halved(lambda sigma: spent_on(any_votes, sigma, delta_dp) > epsilon, 1e-6)


def expected_right(counts: Tensor, y: Tensor, sigma: float) -> float:
    r"""How many noisy winners are right on average, over all draws of the noise.

    $\sum_x \int \varphi(z) \prod_{j \ne y} \Phi\left(z + \frac{n_y - n_j}{\sigma}\right) dz$: with noise z on its own
    count, the right class beats each other one.

    Args:
        counts: votes `(N, K)`.
        y: the right labels `(N,)`.
        sigma: the noise's standard deviation, in votes.
    Returns:
        a number from 0 to N.

    Of two classes the difference has noise of variance 2:

    >>> two_classes, first = torch.tensor([[5, 2]]), torch.tensor([0])
    >>> round(expected_right(two_classes, first, 2.0), 9) == round(ndtr(3 / (2.0 * math.sqrt(2))).item(), 9)
    True
    """
    z, weight = np.polynomial.hermite_e.hermegauss(60)
    own = counts.gather(1, y[:, None])
    lead = ((own - counts) / sigma).scatter(1, y[:, None], torch.inf).double().numpy()
    return float((ndtr(lead[:, None] + z[:, None]).prod(2) @ weight).sum() / weight.sum())


def best_count(votes: Votes, y: Tensor, sigma: float) -> int:
    """The number of teachers that label best with that noise."""
    return max(votes, key=lambda count: expected_right(votes[count], y, sigma))


def takes_the_best_teachers(votes, y, epsilon, delta_dp):
    """It takes the most accurate teachers, the fewest; so few votes drown in the noise that the budget asks for."""
    accuracy = {count: counts.gather(1, y[:, None]).sum().item() / count for count, counts in votes.items()}
    return max(accuracy, key=accuracy.get), least_sigma(len(y), epsilon, delta_dp)


def takes_the_most_teachers(votes, y, epsilon, delta_dp):
    """It takes the most teachers; each has then learned from so few images that they are often wrong together."""
    return max(votes), least_sigma(len(y), epsilon, delta_dp)


def judges_without_noise(votes, y, epsilon, delta_dp):
    """It counts right winners without the noise; with it they lose, unless they lead by many votes: count with it."""
    right = {count: (counts.argmax(1) == y).sum().item() for count, counts in votes.items()}
    most = max(right.values())
    return max(count for count in right if right[count] == most), least_sigma(len(y), epsilon, delta_dp)


def pays_for_one_answer(votes, y, epsilon, delta_dp):
    """Its noise keeps the budget for one answer; every answer spends, so count them all."""
    sigma = least_sigma(1, epsilon, delta_dp)
    return best_count(votes, y, sigma), sigma


def moves_one_count(votes, y, epsilon, delta_dp):
    """It lets a record move one count by 1; a vote that changes also moves another, a distance of the root of 2."""
    sigma = least_sigma(len(y), epsilon, delta_dp) / math.sqrt(2)
    return best_count(votes, y, sigma), sigma


def trusts_these_votes(votes, y, epsilon, delta_dp):
    """It keeps the budget for these votes alone, with data_dependent=True; the promise must hold for any votes."""
    sigmas = {
        count: halved(lambda sigma, counts=counts: spent_on(counts, sigma, delta_dp, True) > epsilon, 1e-3)
        for count, counts in votes.items()
    }
    best = max(votes, key=lambda count: expected_right(votes[count], y, sigmas[count]))
    return best, sigmas[best]


def splits_the_budget(votes, y, epsilon, delta_dp):
    """It gives each answer an equal part of epsilon and delta, and adds up; curves cost less: less noise is enough."""
    sigma = least_sigma(1, epsilon / len(y), delta_dp / len(y))
    return best_count(votes, y, sigma), sigma


# --- how an answer is judged


def as_choice(choice: object, votes: Votes) -> tuple[int, float]:
    """The number of teachers and sigma.

    Raises:
        Fault: the choice is no such pair.
    """
    if choice is None:
        raise Fault("It returns None: is the `return` missing?")
    try:
        teachers, sigma = choice
    except (TypeError, ValueError) as error:
        raise Fault("It does not return two numbers; end with `return teachers, sigma`.") from error
    teachers, sigma = (
        part.item() if isinstance(part, Tensor) and part.numel() == 1 else part for part in (teachers, sigma)
    )
    if not isinstance(teachers, Real) or isinstance(teachers, bool) or teachers not in votes:
        known = ", ".join(map(str, votes))
        raise Fault(f"Its number of teachers is {describe(teachers)}; there are votes of {known} teachers.")
    if not isinstance(sigma, Real) or not 0 < sigma < math.inf:
        raise Fault(f"Its sigma is {describe(sigma)}; expected a finite number above 0, in votes.")
    return int(teachers), float(sigma)


def rehearse(answer: Callable, votes, y, epsilon, delta_dp) -> Tensor:
    """What is wrong with the answer's choice: the number of teachers or 0, sigma in units of the least one or 0."""
    copies = {count: counts.clone() for count, counts in votes.items()}
    teachers, sigma = as_choice(call(answer, votes=copies, y=y, epsilon=epsilon, delta_dp=delta_dp), votes)
    least = least_sigma(len(y), epsilon, delta_dp)
    right, best = (expected_right(votes[count], y, least) for count in (teachers, best_count(votes, y, least)))
    enough_teachers = right >= best - SPARE_LABELS * len(y)
    noise = sigma / least
    enough_noise = 1 - 1e-5 <= noise <= 1 + SPARE_NOISE
    return torch.tensor([0 if enough_teachers else teachers, 0 if enough_noise else noise], dtype=torch.float64)


def what_it_costs(result: np.ndarray, votes, y, epsilon, delta_dp) -> str:
    """What the noise spends, or how many labels are right."""
    teachers, noise = round(float(result[0])), float(result[1])
    least = least_sigma(len(y), epsilon, delta_dp)
    given = f"For {len(y)} answers and `epsilon = {epsilon:g}, delta_dp = {delta_dp:g}`"
    if noise > 1:
        return f"{given} its sigma is {noise * least:.4g}; {least:.4g} keeps the budget, and less noise labels better."
    if noise > 0:
        spent = spent_on(votes[max(votes)], noise * least, delta_dp)
        return (
            f"{given} its sigma is {noise * least:.4g}. That spends {spent:.6g}: the budget is broken, {least:.6g} "
            "keeps it, whatever the votes are. (`data_dependent=True` gives a smaller epsilon, for these votes alone.)"
        )
    right, best = (expected_right(votes[count], y, least) for count in (teachers, best_count(votes, y, least)))
    return (
        f"{given} it takes {teachers} teachers. With the noise that the budget asks for {right:.1f} of {len(y)} labels "
        f"are right on average; with another number of teachers it is {best:.1f}."
    )


teachers = Exercise(
    chapter=CHAPTER,
    task=r"""
        **How many teachers?** Few teachers know much each, and many outvote the noise. To find out what is best,
        somebody rehearses with public data like the private ones: cuts them into 5, 20, 60, 160 or 320 parts, trains a
        teacher on each, and lets them vote on images whose labels are known. Later, on private data, each of $N$
        answers will be the winner of the noisy votes, $\arg\max_k \{n_k + \mathcal{N}(0, \sigma^2)\}$, and all of them
        together must be $(\epsilon, \delta)$-private, whatever the votes are. The epsilon of an answer for each row of
        `counts` is `gnmax_guarantee(counts, sigma=sigma, delta_dp=delta_dp).epsilon`.

        Write `my_teachers(votes, y, epsilon, delta_dp)`. It returns a number of teachers and $\sigma$: the least noise
        that keeps the budget, or up to 1/50 more, and the number of teachers with which, under that noise,
        the most answers are right on average.
    """,
    solution=my_teachers,
    truth=lambda votes, y, epsilon, delta_dp: np.zeros(2),
    cases=budgets,
    tested="votes on 50 and 100 digits, budgets from 2 to 60; labels by an integral over the noise, within 1 of 100",
    hints=(
        "Noise first: `gnmax_guarantee(counts, sigma=sigma, delta_dp=delta_dp).epsilon` falls as sigma grows, and is "
        "the same for any number of teachers. Find the sigma where it meets the budget: halve an interval.",
        "Then draw the noise many times: `counts + sigma * torch.randn(500, *counts.shape, generator=...)`, and count "
        "how often `.argmax(2)` is `y`.",
        "Do that for each number of teachers; `max(votes, key=share_right)` is the number with the largest share.",
    ),
    mistakes=(
        takes_the_best_teachers,
        takes_the_most_teachers,
        judges_without_noise,
        pays_for_one_answer,
        moves_one_count,
        trusts_these_votes,
        splits_the_budget,
    ),
    call=rehearse,
    look=what_it_costs,
    tolerance=0.01,
)

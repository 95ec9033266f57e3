"""Chapter 13's exercises: right answers of other styles, odd answers, and the truths that answers are held against."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from spai_lab.exercises import EXERCISES, check
from spai_lab.exercises.chapter_13 import answers, microbatches, spending, voting
from spai_lab.exercises.exercise import call, sentence
from spai_lab.privacy.accounting import ORDERS, epsilon_of_rdp, rdp_laplace
from spai_lab.privacy.composition import advanced_composition, basic_composition
from spai_lab.privacy.guarantee import ADD_REMOVE, Guarantee
from spai_lab.privacy.pate_bounds import gnmax_guarantee
from spai_lab.privacy.pate_votes import gnmax


def said(feedback) -> str:
    return " ".join(repr(feedback).split())


# --- laplace_scale


def scale_from_a_table(query, low, high, n, epsilon, adjacency):
    added = max(high, -low)
    table = {
        ("count", "replace"): 1,
        ("count", "add/remove"): 1,
        ("sum", "replace"): high - low,
        ("sum", "add/remove"): added,
        ("mean", "replace"): (high - low) / n,
    }
    return torch.tensor(table[query, adjacency]) / epsilon


def scale_as_a_fraction(query, low, high, n, epsilon, adjacency):
    low, high = Fraction(low), Fraction(high)
    moves = high - low if adjacency == "replace" else max(abs(low), abs(high))
    return {"count": Fraction(1), "sum": moves, "mean": moves / n}[query] / Fraction(epsilon)


def scale_by_the_extremes(query, low, high, n, epsilon, adjacency):
    numbers = np.array([low, high])
    moved = {"replace": np.ptp(numbers), "add/remove": np.abs(numbers).max()}[adjacency]
    return (1 if query == "count" else moved / (n if query == "mean" else 1)) / np.float32(epsilon)


@pytest.mark.parametrize("answer", [scale_from_a_table, scale_as_a_fraction, scale_by_the_extremes])
def test_any_way_to_a_scale_passes(answer):
    assert check.laplace_scale(answer).verdict == "passed"


def test_odd_scales_are_explained():
    right = EXERCISES["laplace_scale"].solution
    assert "expected one number" in said(check.laplace_scale(lambda *query: "1/epsilon"))
    assert "A scale is above 0" in said(check.laplace_scale(lambda *query: -right(*query)))
    assert "returns NaN" in said(check.laplace_scale(lambda *query: math.nan))
    assert "There are neighbors whose answers differ by 7" in said(
        check.laplace_scale(lambda *query: right(*query) / 3)
    )
    assert "more than that takes" in said(check.laplace_scale(lambda *query: 3 * right(*query)))


def test_enumeration_finds_the_sensitivity_in_closed_form():
    for case in answers.queries():
        assert answers.by_trying_neighbors(**case) == pytest.approx(answers.my_laplace_scale(**case))


# --- epsilon_of_queries


def epsilon_by_scipy(k, epsilon, delta_dp):
    def at(log_x):
        return k * (1 + math.exp(log_x)) * epsilon**2 / 2 - math.log(delta_dp) / math.exp(log_x)

    return min(k * epsilon, minimize_scalar(at, bounds=(-8, 10), method="bounded").fun)


def epsilon_on_the_orders_of_the_package(k, epsilon, delta_dp):
    return min(
        Fraction(k) * Fraction(epsilon), epsilon_of_rdp(ORDERS, k * ORDERS * epsilon**2 / 2, delta_dp, "mironov")[0]
    )


def epsilon_by_a_loop(k, epsilon, delta_dp):
    best = torch.tensor(k * epsilon)
    for order in torch.arange(1.01, 60, 0.01):
        best = torch.minimum(best, k * order * epsilon**2 / 2 + math.log(1 / delta_dp) / (order - 1))
    return best


@pytest.mark.parametrize("answer", [epsilon_by_scipy, epsilon_on_the_orders_of_the_package, epsilon_by_a_loop])
def test_any_way_to_the_best_order_passes(answer):
    assert check.epsilon_of_queries(answer).verdict == "passed"


def test_odd_epsilons_are_explained():
    ask = check.epsilon_of_queries
    assert "below 0" in said(ask(lambda k, epsilon, delta_dp: epsilon * math.sqrt(2 * k * math.log(delta_dp))))
    assert "below 0" in said(ask(lambda k, epsilon, delta_dp: torch.tensor(delta_dp).log().sqrt()))
    assert "below 0" in said(ask(lambda k, epsilon, delta_dp: np.float64(math.nan)))
    assert "which neither way proves" in said(ask(lambda k, epsilon, delta_dp: 0))
    assert "which is not the least" in said(ask(lambda k, epsilon, delta_dp: 1e6))
    assert "returns None" in said(ask(lambda k, epsilon, delta_dp: None))
    assert "expected one number" in said(ask(lambda k, epsilon, delta_dp: (1.0, 2.0)))


def test_the_truth_lies_between_what_the_package_proves_of_laplace_noise_and_of_any():
    curves_won = 0
    for case in spending.series():
        k, epsilon, delta_dp = case.values()
        truth, one = spending.by_search(**case), Guarantee(epsilon, 0.0, ADD_REMOVE, ("an answer",))
        summed = basic_composition(one, k).epsilon
        exact = epsilon_of_rdp(ORDERS, k * rdp_laplace(1 / epsilon), delta_dp, "mironov")[0]
        assert min(exact, summed) <= truth + 1e-3
        assert truth <= min(summed, advanced_composition(one, k, delta_slack=delta_dp).epsilon)
        assert truth == pytest.approx(min(summed, spending.by_curves(k, epsilon, delta_dp)), rel=1e-6)
        curves_won += truth < summed
    assert 0 < curves_won < len(spending.SERIES)


# --- counterexample


def shifts_every_microbatch(clip, size):
    """A record at the front moves all others on: each mean turns around but the first, and one is added."""
    lengths = 1000 * size * clip / 4 ** torch.arange(3)
    g = torch.zeros(3 * size, 1)
    g[0::size, 0], g[size - 1 :: size, 0] = 2 * lengths, -lengths
    return torch.cat([torch.full((1, 1), 5.0 * clip), g]), g


def by_random_search(clip, size):
    generator = torch.Generator().manual_seed(0)
    while True:
        with_it = 10 * clip * torch.randn(2 * size, 3, generator=generator)
        without = torch.cat([with_it[:1], with_it[2:]])
        if microbatches.sum_apart(without, with_it, clip, size) > 1.1:
            return with_it, without


def as_lists(clip, size):
    return [[clip, 0]], [[-5 * clip, 0], [clip, 0]]


def as_arrays(clip, size):
    rows = np.array([[clip], [-4 * clip]])
    return rows[:1], rows


@pytest.mark.parametrize("answer", [by_random_search, as_lists, as_arrays, shifts_every_microbatch])
def test_any_counterexample_passes(answer):
    assert check.counterexample(answer).verdict == "passed"


ODD_BATCHES = {
    "nothing": (lambda clip, size: None, "returns None"),
    "one batch": (lambda clip, size: torch.ones(3, 1), "two batches"),
    "a number": (lambda clip, size: clip, "two batches"),
    "words": (lambda clip, size: ("a", "b"), "cannot be read as a tensor"),
    "a vector": (lambda clip, size: (torch.ones(2), torch.ones(3)), "shapes (2,) and (3,)"),
    "other widths": (lambda clip, size: (torch.ones(2, 2), torch.ones(3, 1)), "shapes (2, 2) and (3, 1)"),
    "no record": (lambda clip, size: (torch.ones(0, 1), torch.ones(1, 1)), "empty"),
    "NaN": (lambda clip, size: (torch.ones(1, 1), torch.full((2, 1), torch.nan)), "NaN or infinity"),
    "infinite": (lambda clip, size: (torch.ones(1, 1), torch.full((2, 1), torch.inf)), "NaN or infinity"),
    "reordered": (lambda clip, size: (torch.tensor([[1.0], [2.0]]), torch.tensor([[2.0], [9.0], [1.0]])), "this order"),
    "too little": (
        lambda clip, size: (torch.tensor([[clip, 0]]), torch.tensor([[clip, 0], [9 * clip, 5 * clip]])),
        "times the clip apart; more than 1 is asked",
    ),
    "whatever the clip": (
        lambda clip, size: (torch.tensor([[1.0]]), torch.tensor([[1.0], [-3.0]])),
        "clip = 5, size = 3",
    ),
}


@pytest.mark.parametrize(("answer", "message"), ODD_BATCHES.values(), ids=ODD_BATCHES)
def test_odd_batches_are_explained(answer, message):
    feedback = check.counterexample(answer)
    assert feedback.verdict == "wrong"
    assert message in said(feedback)


def test_the_batches_prove_nothing_against_a_step_that_clips_each_gradient():
    for case in EXERCISES["counterexample"].cases():
        without, with_it = microbatches.my_counterexample(**case)
        first, second = (microbatches.sum_of_microbatches(g, case["clip"], 1) for g in (without, with_it))
        assert (first - second).norm() <= case["clip"] * (1 + 1e-6)


def test_the_task_shows_the_code_that_is_judged():
    assert "mean * (clip / mean.norm()).clamp(max=1)" in EXERCISES["counterexample"].task
    assert "CODE" not in EXERCISES["counterexample"].task


# --- teachers


def by_the_integral(votes, y, epsilon, delta_dp):
    sigma = voting.least_sigma(len(y), epsilon, delta_dp) * 1.01
    return [np.int64(voting.best_count(votes, y, sigma)), torch.tensor(sigma)]


def with_gnmax_and_a_growing_sigma(votes, y, epsilon, delta_dp):
    sigma = 0.5
    while gnmax_guarantee(votes[20], sigma=sigma, delta_dp=delta_dp).epsilon > epsilon:
        sigma *= 1.01
    generator, right = torch.Generator().manual_seed(5), {}
    for teachers, counts in votes.items():
        labels = gnmax(counts.repeat(400, 1), sigma=sigma, generator=generator)
        right[teachers] = (labels == y.repeat(400)).sum().item()
    return np.array([max(right, key=right.get), sigma])


def spoils_its_copy(votes, y, epsilon, delta_dp):
    choice = by_the_integral(votes, y, epsilon, delta_dp)
    for counts in votes.values():
        counts.zero_()
    return choice


@pytest.mark.parametrize("answer", [by_the_integral, with_gnmax_and_a_growing_sigma, spoils_its_copy])
def test_any_way_to_choose_teachers_passes(answer):
    feedback = check.teachers(answer)
    assert feedback.verdict == "passed", feedback


ODD_CHOICES = {
    "nothing": (lambda *case: None, "returns None"),
    "one number": (lambda *case: 60, "two numbers"),
    "three numbers": (lambda *case: (60, 1.0, 2.0), "two numbers"),
    "unknown teachers": (lambda *case: (61, 1.0), "votes of 5, 20, 60, 160, 320 teachers"),
    "swapped": (lambda *case: (6.45, 60), "votes of 5, 20, 60, 160, 320 teachers"),
    "no noise": (lambda *case: (60, 0.0), "a finite number above 0"),
    "NaN": (lambda *case: (60, math.nan), "a finite number above 0"),
    "a tensor of many": (lambda *case: (60, torch.ones(3)), "a finite number above 0"),
    "hardly any noise": (lambda *case: (60, 1.0), "the budget is broken"),
    "too much noise": (lambda *case: (160, 500.0), "keeps the budget, and less noise labels better"),
}


@pytest.mark.parametrize(("answer", "message"), ODD_CHOICES.values(), ids=ODD_CHOICES)
def test_odd_choices_are_explained(answer, message):
    feedback = check.teachers(answer)
    assert feedback.verdict == "wrong"
    assert message in said(feedback)


def test_a_wrong_number_of_teachers_hears_how_many_labels_would_be_right():
    text = said(
        check.teachers(lambda votes, y, epsilon, delta_dp: (60, by_the_integral(votes, y, epsilon, delta_dp)[1]))
    )
    assert "it takes 60 teachers. With the noise that the budget asks for" in text
    assert not any(sentence(mistake) in text for mistake in EXERCISES["teachers"].mistakes)


def test_the_rehearsal_is_real_and_its_choices_are_clear():
    votes, y = voting.rehearsal()
    for count, counts in votes.items():
        assert counts.sum(1).eq(count).all()
    accuracy = [counts.gather(1, y[:, None]).sum().item() / (count * len(y)) for count, counts in votes.items()]
    assert accuracy == sorted(accuracy, reverse=True)
    assert accuracy[0] > 0.75
    assert accuracy[-1] < 0.4
    chosen = [call(EXERCISES["teachers"].solution, **case)[0] for case in voting.budgets()]
    assert chosen[:3] == [160, 60, 20]


def test_expected_labels_agree_with_drawn_noise():
    votes, y = voting.rehearsal()
    for count, sigma in ((20, 4.0), (160, 30.0)):
        labels = gnmax(votes[count].repeat(2000, 1), sigma=sigma, generator=torch.Generator().manual_seed(3))
        drawn = (labels == y.repeat(2000)).double().view(2000, -1).sum(1)
        # five standard errors of the mean: by chance once in 1.7 million
        error = (drawn.mean() - voting.expected_right(votes[count], y, sigma)).abs()
        assert error < 5 * drawn.std() / math.sqrt(2000)


def test_the_least_sigma_keeps_the_budget_and_no_less_does():
    for case in voting.budgets():
        counts, epsilon, delta_dp = case["votes"][60], case["epsilon"], case["delta_dp"]
        least = voting.least_sigma(len(counts), epsilon, delta_dp)
        assert gnmax_guarantee(counts, sigma=least, delta_dp=delta_dp).epsilon <= epsilon
        assert gnmax_guarantee(counts, sigma=0.9999 * least, delta_dp=delta_dp).epsilon > epsilon

"""PATE against exact probabilities of the noisy winner, closed forms, draws, and on digits and MNIST."""

import importlib
import itertools
import math

import dp_accounting
import numpy as np
import pytest
import torch
from dp_accounting.rdp import RdpAccountant
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import chisquare, laplace, norm

from spai_lab.attacks.privacy.shadows import random_halves, train_shadows
from spai_lab.data.dataset import Dataset
from spai_lab.models import softmax_regression
from spai_lab.privacy.accounting import ORDERS, epsilon_of_rdp, rdp_guarantee, rdp_laplace
from spai_lab.privacy.guarantee import REPLACE, Guarantee, composed
from spai_lab.privacy.pate import Taught, pate, public_pool, train_teachers
from spai_lab.privacy.pate_bounds import (
    DataDependent,
    confident_guarantee,
    gnmax_guarantee,
    lnmax_guarantee,
    log_q_gnmax,
    log_q_lnmax,
    rdp_gnmax,
    rdp_lnmax,
)
from spai_lab.privacy.pate_votes import UNANSWERED, confident_gnmax, gnmax, lnmax, votes
from spai_lab.training import accuracy

HISTOGRAMS = [
    (10, 10),
    (15, 5),
    (20, 0),
    (60, 0),
    (10, 6, 4),
    (20, 0, 0),
    (14, 3, 3),
    (7, 7, 6),
    (33, 5, 2),
    (90, 0, 0),
]
ALPHA = np.array([1.1, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 64.0])
NOISES = {"gnmax": (norm, log_q_gnmax, rdp_gnmax), "lnmax": (laplace, log_q_lnmax, rdp_lnmax)}
module = importlib.import_module("spai_lab.privacy.pate")  # the package has the function under this name
FALSE_ALARM = 1e-6
ALARM = 4.9  # standard deviations that a draw exceeds once in a million


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build(generator):
    return softmax_regression(generator=generator)


def log_outcomes(histogram, noise, scale):
    r"""$\log \Pr[M = j] = \log \int p(z - n_j) \prod_{k \ne j} P(z - n_k) dz$ for each class, by the trapezoid rule.

    Of class 0, which has most votes, it is what the others leave, so that the sum is 1 to the last digit.
    """
    n = np.array(histogram, dtype=float)
    z = np.unique(np.concatenate([np.linspace(n.min() - 40 * scale, n.max() + 40 * scale, 20_001), n]))
    log_width = np.log(np.gradient(z))
    beaten = noise.logcdf(z, n[:, None], scale)
    log_p = [noise.logpdf(z, n[j], scale) + np.delete(beaten, j, axis=0).sum(axis=0) for j in range(len(n))]
    others = logsumexp(np.array(log_p[1:]) + log_width, axis=1)
    return np.array([np.log1p(-np.exp(others).sum()), *others])


def divergence(log_p, log_p_other, alpha):
    r"""$D_\alpha(P \| P') = \frac{1}{\alpha - 1} \log (1 + \sum_j p_j (r_j^{\alpha - 1} - 1))$, $r_j = p_j / p'_j$."""
    log_r = (alpha[:, None] - 1) * (log_p - log_p_other)
    others = logsumexp(log_p[1:] + log_r[:, 1:], axis=1)
    rest = np.exp(log_p[0]) * np.expm1(log_r[:, 0]) - np.exp(log_p[1:]).sum()
    with np.errstate(divide="ignore"):
        large = np.logaddexp(np.log1p(rest), others)
    grown = np.where(others < 0, np.log1p(rest + np.exp(np.minimum(others, 0))), large)
    return grown / (alpha - 1)


def neighbors(histogram):
    """Every histogram in which one teacher votes otherwise."""
    for loser, winner in itertools.permutations(range(len(histogram)), 2):
        if histogram[loser]:
            moved = list(histogram)
            moved[loser] -= 1
            moved[winner] += 1
            yield tuple(moved)


def excesses(kind, scale, real_scale=None):
    """The largest exact divergence over its bound for these votes, of every histogram and all its neighbors."""
    noise, log_q, rdp = NOISES[kind]
    found = []
    for histogram in HISTOGRAMS:
        bound = rdp(log_q(torch.tensor([histogram]), scale), scale, ALPHA)[0]
        log_p = log_outcomes(histogram, noise, real_scale or scale)
        for other in neighbors(histogram):
            log_p_other = log_outcomes(other, noise, real_scale or scale)
            found.append((divergence(log_p, log_p_other, ALPHA) / bound).max())
    return max(found)


@pytest.fixture(scope="module")
def taught(digits):
    data, x_public = public_pool(digits, 300, generator=seeded(1))
    settings = {"teachers": 20, "noise": 3.0, "delta_dp": 1e-3, "generator": seeded(2), "progress": False}
    return data, x_public, pate(data, x_public, build, **settings)


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_for_any_votes_the_curves_are_closed_forms_and_below_the_papers():
    counts = torch.tensor([[5, 5]]).repeat(30, 1)
    gaussian = rdp_guarantee(30 * ORDERS / 8.0**2, delta_dp=1e-5, covers=("the noisy labels",), adjacency=REPLACE)
    assert gnmax_guarantee(counts, sigma=8.0, delta_dp=1e-5).epsilon == pytest.approx(gaussian.epsilon, rel=1e-12)
    gamma = 1 / 8.0
    sharper = 2 * rdp_laplace(8.0)
    assert (sharper <= 2 * gamma**2 * ORDERS).all() and (sharper <= 2 * gamma).all()
    epsilon = epsilon_of_rdp(ORDERS, 30 * sharper, 1e-5)[0]
    assert lnmax_guarantee(counts, scale=8.0, delta_dp=1e-5).epsilon == pytest.approx(epsilon, rel=1e-12)


@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("scale", [2.0, 6.0, 15.0])
def test_q_is_the_chance_of_another_winner_for_two_classes_and_above_it_for_more(kind, scale):
    noise, log_q, _ = NOISES[kind]
    for histogram in HISTOGRAMS:
        bound = log_q(torch.tensor([histogram]), scale)[0]
        exact = logsumexp(log_outcomes(histogram, noise, scale)[1:])
        assert bound >= exact - 1e-3
        if len(histogram) == 2:
            assert bound == pytest.approx(exact, abs=1e-3)


def test_q_is_the_share_of_draws_that_miss():
    n = 200_000
    for histogram in ((60, 40, 20), (60, 40)):
        counts = torch.tensor([histogram])
        for draw, log_q in ((gnmax, log_q_gnmax), (lnmax, log_q_lnmax)):
            noise = {"sigma": 20.0} if draw is gnmax else {"scale": 20.0}
            missed = (draw(counts.repeat(n, 1), **noise, generator=seeded()) != 0).double().mean().item()
            q = math.exp(log_q(counts, 20.0)[0])
            error = ALARM * math.sqrt(q * (1 - q) / n)
            assert missed <= q + error and (len(histogram) > 2 or missed >= q - error)


@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("scale", [2.0, 6.0, 15.0])
def test_the_exact_divergence_is_below_the_bound_and_half_the_noise_is_caught(kind, scale):
    assert excesses(kind, scale) < 1
    assert excesses(kind, scale, real_scale=scale / 2) > 1.5


@pytest.mark.parametrize(
    ("kind", "votes", "other", "alpha", "times"),
    [("gnmax", (15, 5), (14, 6), 3.0, 60), ("lnmax", (18, 2), (17, 3), 5.0, 4)],
)
def test_the_bound_for_these_votes_does_not_hold_in_the_other_direction(kind, votes, other, alpha, times):
    """So it is no guarantee: starting from the neighbor, the same two are told apart far more easily."""
    noise, log_q, rdp = NOISES[kind]
    alpha = np.array([alpha])
    bound = rdp(log_q(torch.tensor([votes]), 1.0), 1.0, alpha)[0]
    log_p, log_p_other = (log_outcomes(histogram, noise, 1.0) for histogram in (votes, other))
    assert divergence(log_p, log_p_other, alpha) < bound and divergence(log_p_other, log_p, alpha) > times * bound


@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("scale", [1.0, 5.0, 40.0])
def test_a_larger_q_never_gives_a_smaller_bound(kind, scale):
    """Without that, an upper bound of q would not do."""
    log_q = -np.geomspace(1e-3, 500, 2000)[::-1]
    assert (np.diff(NOISES[kind][2](log_q, scale), axis=0) >= -1e-12).all()


@given(counts=st.lists(st.lists(st.integers(0, 100), min_size=4, max_size=4), min_size=1, max_size=5))
def test_for_these_votes_never_more_than_for_any(counts):
    counts = torch.tensor(counts)
    counts = torch.cat([counts, 400 - counts.sum(1, keepdim=True)], dim=1)
    for guarantee, noise in ((gnmax_guarantee, {"sigma": 30.0}), (lnmax_guarantee, {"scale": 15.0})):
        these, any_votes = (guarantee(counts, **noise, delta_dp=1e-5, data_dependent=flag) for flag in (True, False))
        assert 0 <= these.epsilon <= any_votes.epsilon + 1e-12


def test_more_noise_may_spend_more_where_the_teachers_agree():
    counts = torch.tensor([[240, 10]]).repeat(1000, 1)
    spent = [gnmax_guarantee(counts, sigma=s, delta_dp=1e-5, data_dependent=True).epsilon for s in (20.0, 60.0)]
    for_any = [gnmax_guarantee(counts, sigma=s, delta_dp=1e-5).epsilon for s in (20.0, 60.0)]
    assert spent[0] < spent[1] and for_any[0] > for_any[1]


def test_what_was_not_sanitized_is_no_guarantee():
    counts = torch.tensor([[95, 5]])
    these = gnmax_guarantee(counts, sigma=10.0, delta_dp=1e-5, data_dependent=True)
    assert isinstance(these, DataDependent) and not isinstance(these, Guarantee) and not these.sanitized
    assert "not sanitized" in str(these) and "for these votes" in str(these)
    with pytest.raises(ValueError, match="accepted: Guarantee"):
        composed(these)


@pytest.mark.oracle
@pytest.mark.parametrize(("asked", "most"), [(200, 30), (30, 200), (1, 1)])
def test_a_query_that_gets_no_answer_pays_for_the_threshold(asked, most):
    """As many Gaussian mechanisms in dp-accounting: on the largest count, and on all counts, which two votes move."""
    accountant = RdpAccountant(
        orders=ORDERS.tolist(), neighboring_relation=dp_accounting.NeighboringRelation.REPLACE_ONE
    )
    accountant.compose(dp_accounting.GaussianDpEvent(50.0), asked)
    accountant.compose(dp_accounting.GaussianDpEvent(20.0 / math.sqrt(2)), min(asked, most))
    guarantee = confident_guarantee(asked, most, threshold_sigma=50.0, sigma=20.0, delta_dp=1e-5)
    assert guarantee.epsilon == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-9)
    assert guarantee.adjacency == REPLACE and guarantee.covers == ("the noisy labels", "which queries got one")


def log_answers(histogram, asked, most, threshold, threshold_sigma, sigma):
    """The logarithm of the probability of each row of answers of `confident_gnmax` to one query put again and again."""
    margin = (max(histogram) - threshold) / threshold_sigma
    log_agree, log_silent = norm.logcdf(margin), norm.logsf(margin)
    answered = log_agree + log_outcomes(histogram, norm, sigma)
    found = []
    for pattern in itertools.product([False, True], repeat=asked):
        if sum(pattern) <= most:
            open_until = np.flatnonzero(pattern)[most - 1] + 1 if sum(pattern) == most else asked
            log_p = [np.array([(open_until - sum(pattern)) * log_silent]), *[answered] * sum(pattern)]
            found.append(sum(np.ix_(*log_p), np.zeros(())).ravel())
    return np.concatenate(found)


def exact_epsilon(asked, most, threshold_sigma, sigma, delta_dp=1e-5):
    """What answers to the same query spend, from their exact divergence: the most over thresholds and neighbors."""
    worst = 0.0
    for histogram, lead in itertools.product([(40, 0), (28, 12), (24, 16)], np.arange(-4, 5)):
        settings = (asked, most, max(histogram) + lead * threshold_sigma, threshold_sigma, sigma)
        log_p = log_answers(histogram, *settings)
        assert logsumexp(log_p) == pytest.approx(0, abs=1e-9)
        for other in neighbors(histogram):
            log_r = log_p - log_answers(other, *settings)
            rdp = logsumexp(log_p + (ORDERS[:, None] - 1) * log_r, axis=1) / (ORDERS - 1)
            worst = max(worst, epsilon_of_rdp(ORDERS, np.maximum(rdp, 0), delta_dp)[0])
    return worst


@pytest.mark.parametrize(("asked", "most"), [(1, 1), (3, 1), (3, 2)])
@pytest.mark.parametrize(("threshold_sigma", "sigma"), [(2.0, 60.0), (60.0, 3.0), (3.0, 4.0)])
def test_confident_answers_spend_no_more_than_they_say(asked, most, threshold_sigma, sigma):
    """Nor much less; half of a noise that is not far larger than the other is caught."""
    noise = {"threshold_sigma": threshold_sigma, "sigma": sigma}
    promised = confident_guarantee(asked, most, **noise, delta_dp=1e-5).epsilon
    assert 0.6 * promised < exact_epsilon(asked, most, **noise) <= promised
    for name, scale in noise.items():
        if scale < 10:
            assert exact_epsilon(asked, most, **noise | {name: scale / 2}) > promised


# --- votes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("draw", "noise"), [(gnmax, norm), (lnmax, laplace)])
def test_winners_are_drawn_as_often_as_they_shall_be(draw, noise):
    counts, n = torch.tensor([[12, 9, 4]]).repeat(100_000, 1), 100_000
    exact = np.exp(log_outcomes((12, 9, 4), noise, 6.0))

    def farthest(scale):
        scale = {"sigma": scale} if draw is gnmax else {"scale": scale}
        drawn = np.bincount(draw(counts, **scale, generator=seeded(3)).numpy(), minlength=3) / n
        return (np.abs(drawn - exact) / np.sqrt(exact * (1 - exact) / n)).max()

    assert farthest(6.0) < ALARM + 0.2 < farthest(3.0)


def test_noise_from_the_cryptographic_source_draws_the_same_winners():
    n = 100_000
    exact = np.exp(log_outcomes((12, 9, 4), norm, 6.0))
    drawn = np.bincount(gnmax(torch.tensor([[12, 9, 4]]).repeat(n, 1), sigma=6.0, secure=True).numpy()) / n
    assert (np.abs(drawn - exact) < (ALARM + 0.2) * np.sqrt(exact * (1 - exact) / n)).all()


def drawn_with(labels, probabilities):
    """Whether the labels, from 0 on, come as often as they shall: chi-square, false alarm 1e-6."""
    probabilities = np.array(probabilities)
    counts = np.bincount(labels.numpy(), minlength=len(probabilities))
    return chisquare(counts, len(labels) * probabilities / probabilities.sum()).pvalue > FALSE_ALARM


@pytest.mark.parametrize("secure", [False, True])
def test_confident_answers_are_drawn_as_often_as_they_shall_be(secure):
    """No answer, or one of three; each noise counts: with little or half of either, the labels would be others."""
    histogram, n = (12, 9, 4), 100_000
    given = {"threshold": 14.0, "secure": secure, "generator": None if secure else seeded(5), "most": n}
    labels = confident_gnmax(torch.tensor([histogram]).repeat(n, 1), threshold_sigma=5.0, sigma=6.0, **given) + 1

    def exact(threshold_sigma, sigma):
        agree = norm.sf((14.0 - 12) / threshold_sigma)
        return [1 - agree, *agree * np.exp(log_outcomes(histogram, norm, sigma))]

    assert drawn_with(labels, exact(5.0, 6.0))
    for fault in ((5.0, 3.0), (2.5, 6.0), (5.0, 0.5), (0.5, 6.0)):
        assert not drawn_with(labels, exact(*fault))


def test_only_where_they_agree_and_not_too_often():
    counts = torch.tensor([[90, 10], [55, 45]]).repeat(50, 1)
    given = {"threshold": 75, "threshold_sigma": 1.0, "sigma": 1.0, "generator": seeded()}
    labels = confident_gnmax(counts, most=100, **given)
    assert (labels[::2] == 0).all() and (labels[1::2] == UNANSWERED).all()
    limited = confident_gnmax(counts, most=7, **given)
    assert (limited[:14:2] == 0).all() and (limited[14:] == UNANSWERED).all()


def test_each_input_has_one_teacher_at_most_and_each_teacher_as_many(digits):
    teachers = train_teachers(
        digits.x_train[:105], digits.y_train[:105], 10, build, epochs=1, generator=seeded(), progress=False
    )
    assert (teachers.inside.sum(1) == 10).all() and teachers.inside.sum(0).max() == 1 and teachers.inside.sum() == 100


def test_a_replaced_record_moves_one_vote(digits):
    x, y = digits.x_train[:200], digits.y_train[:200]
    given = {"epochs": 5, "progress": False}
    before = votes(train_teachers(x, y, 20, build, generator=seeded(), **given), digits.x_val)
    x_other, y_other = x.clone(), y.clone()
    x_other[17], y_other[17] = 1 - x[17], (y[17] + 5) % 10
    after = votes(train_teachers(x_other, y_other, 20, build, generator=seeded(), **given), digits.x_val)
    moved = (before - after).abs().sum(1)
    assert set(moved.tolist()) == {0, 2} and (before.sum(1) == 20).all()


def test_votes_are_those_of_the_models_one_by_one(digits):
    teachers = train_teachers(digits.x_train, digits.y_train, 5, build, epochs=2, generator=seeded(), progress=False)
    x = digits.x_val[:50]
    with torch.no_grad():
        said = torch.stack([teachers.model(number)(x).argmax(1) for number in range(5)])
    expected = torch.stack([(said == label).sum(0) for label in range(10)], dim=1)
    assert torch.equal(votes(teachers, x, batch_size=7), expected)


# --- the whole --------------------------------------------------------------------------------------------------------


def test_the_public_inputs_and_those_that_judge_are_disjoint_and_together_all(digits):
    data, x_public = public_pool(digits, 200, generator=seeded())
    assert len(x_public) + len(data.x_test) == len(digits.x_test)
    both = torch.cat([x_public, data.x_test]).flatten(1)
    assert torch.equal(both.unique(dim=0), digits.x_test.flatten(1).unique(dim=0))
    where = (data.x_test[0] == digits.x_test).flatten(1).all(1).nonzero()[0, 0]
    assert data.y_test[0] == digits.y_test[where]


def test_a_student_learns_what_the_teachers_know(taught):
    data, x_public, result = taught
    assert isinstance(result, Taught) and torch.equal(result.x, x_public)
    agreed = (result.labels == result.counts.argmax(1)).double().mean().item()
    assert agreed > 0.9 and accuracy(result.student, data.x_test, data.y_test) > 0.75
    assert not result.student.training
    bare = gnmax_guarantee(result.counts, sigma=3.0, delta_dp=1e-3)
    assert result.guarantee.epsilon == bare.epsilon and result.guarantee.adjacency == REPLACE
    assert result.guarantee.covers == ("the noisy labels", "the student")
    assert "20 teachers" in repr(result) and "one record replaced" in repr(result)


@pytest.mark.parametrize(
    ("aggregator", "secure", "noise", "guarantee"),
    [
        ("gnmax", False, norm, gnmax_guarantee),
        ("gnmax", True, norm, gnmax_guarantee),
        ("lnmax", False, laplace, lnmax_guarantee),
    ],
    ids=["gnmax", "secure gnmax", "lnmax"],
)
def test_pate_draws_its_labels_with_the_noise_that_it_accounts_for(monkeypatch, aggregator, secure, noise, guarantee):
    """Teachers and student are stubs: their votes are always 12, 9 and 4; a half or a third of the noise is seen."""
    n = 50_000
    part = torch.zeros(1, 1, 1, 2), torch.tensor([0])
    data = Dataset("nothing", *part, *part, *part, ("0", "1", "2"), "nobody")
    x_public = torch.ones(n, 1, 1, 2)
    monkeypatch.setattr(module, "train_teachers", lambda *data, **settings: None)
    monkeypatch.setattr(module, "votes", lambda teachers, x: torch.tensor([[12, 9, 4]]).repeat(len(x), 1))
    monkeypatch.setattr(module, "fit", lambda *student, **settings: None)
    settings = {"teachers": 25, "noise": 6.0, "delta_dp": 1e-5, "aggregator": aggregator, "secure": secure}
    build = lambda generator: softmax_regression((1, 1, 2), 3, generator=generator)  # noqa: E731
    result = module.pate(data, x_public, build, generator=None if secure else seeded(6), **settings)
    assert drawn_with(result.labels, np.exp(log_outcomes((12, 9, 4), noise, 6.0)))
    for fault in (3.0, 2.0):
        assert not drawn_with(result.labels, np.exp(log_outcomes((12, 9, 4), noise, fault)))
    scale = {"sigma": 6.0} if aggregator == "gnmax" else {"scale": 6.0}
    assert result.guarantee.epsilon == guarantee(result.counts, **scale, delta_dp=1e-5).epsilon


def test_inputs_without_answers_cost_nothing_and_teach_the_student(digits):
    """A student that trains itself is better than one of the same answers alone, at the same epsilon."""
    data, x_public = public_pool(digits, 400, generator=seeded(1))
    given = {"teachers": 20, "noise": 2.0, "delta_dp": 1e-3, "student_epochs": 30, "progress": False}
    found = {}
    for inputs in (x_public[:40], x_public):
        runs = [pate(data, inputs, build, queries=40, generator=seeded(seed), **given) for seed in range(4)]
        assert all(len(run.labels) == len(run.counts) == len(run.x) == 40 for run in runs)
        right = [accuracy(run.student, data.x_test, data.y_test) for run in runs]
        found[len(inputs)] = sum(right), {run.guarantee.epsilon for run in runs}
    assert found[40][1] == found[400][1] and found[400][0] > found[40][0]


@pytest.mark.parametrize("queries", [0, 21, 2.5, True])
def test_as_many_questions_as_there_are_inputs_at_most(digits, queries):
    data, x_public = public_pool(digits, 20, generator=seeded())
    with pytest.raises(ValueError, match="queries"):
        pate(data, x_public, build, teachers=5, noise=2.0, delta_dp=1e-3, queries=queries)


def test_a_seeded_run_is_labeled(taught):
    _, _, result = taught
    label = "demonstration, not private"
    assert result.seeded and label in str(result) and str(result.guarantee) in str(result)
    unseeded = Taught(result.student, result.x, result.labels, result.guarantee, result.counts)
    assert not unseeded.seeded and label not in str(unseeded)


def test_the_same_seed_gives_the_same_and_nothing_else_is_touched(digits):
    state, x_before = torch.get_rng_state(), digits.x_train.clone()
    data, x_public = public_pool(digits, 20, generator=seeded())
    given = {"teachers": 5, "noise": 2.0, "delta_dp": 1e-3, "epochs": 1, "student_epochs": 1, "progress": False}
    runs = [pate(data, x_public, build, aggregator="lnmax", generator=seeded(4), **given) for _ in range(2)]
    assert torch.equal(runs[0].labels, runs[1].labels) and torch.equal(runs[0].counts, runs[1].counts)
    assert all(torch.equal(*pair) for pair in zip(*(run.student.parameters() for run in runs), strict=True))
    assert torch.equal(state, torch.get_rng_state()) and torch.equal(x_before, digits.x_train)
    secure = pate(data, x_public, build, secure=True, **given)
    assert secure.guarantee.epsilon == gnmax_guarantee(secure.counts, sigma=2.0, delta_dp=1e-3).epsilon
    assert [run.seeded for run in (*runs, secure)] == [True, True, False]


@pytest.mark.full
def test_mnist_spends_what_was_published(mnist):
    """2.04 for 100 answers and 8.03 for 1,000, by theorems 2 and 3 over whole moments up to 8; 83.9 % a teacher.

    The votes of softmax teachers are not those of the paper's networks: the first figure is met within 25 %, the second
    is not reached.
    """
    x, y = mnist.x_test, mnist.y_test
    teachers = train_teachers(mnist.x_train, mnist.y_train, 250, build, generator=seeded(), progress=False)
    counts = votes(teachers, x)
    right = counts.gather(1, y[:, None]).sum().item() / counts.sum().item()
    assert 0.78 < right < 0.88 and (counts.argmax(1) == y).double().mean() > 0.87
    order = torch.randperm(len(x), generator=seeded(1))
    alpha = np.arange(2.0, 10)
    theorem_2 = 2 * alpha / 20.0**2
    spent = {}
    for queries in (100, 1000):
        rdp = rdp_lnmax(log_q_lnmax(counts[order[:queries]], 20.0), 20.0, alpha)
        rdp = np.where(rdp < 2 * rdp_laplace(20.0, alpha), rdp, theorem_2).sum(axis=0)
        spent[queries] = epsilon_of_rdp(alpha, rdp, 1e-5, "mironov")[0]
    assert spent[100] == pytest.approx(2.04, rel=0.25) and 4 < spent[1000] < 8.03


# --- arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["x_test", "x_val", "x_train"])
def test_a_public_input_that_is_in_the_data_is_refused(refuses, digits, part):
    x_public = torch.cat([torch.rand(3, 1, 28, 28), getattr(digits, part)[5:7]])
    arguments = {"data": digits, "x_public": x_public, "build": build, "teachers": 5, "noise": 1.0, "delta_dp": 1e-3}
    refuses(pate, arguments, "x_public", f"2 inputs of {part}", "public_pool")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x_public": torch.rand(4, 1, 8, 8)}, ("x_public", "(4, 1, 8, 8)", "28")),
        ({"x_public": torch.rand(0, 1, 28, 28)}, ("x_public", "at least 1")),
        ({"data": None}, ("data", "None", "Dataset")),
        ({"teachers": 0}, ("count", "0")),
        ({"teachers": 2000}, ("count", "2000", "1078")),
        ({"noise": 0.0}, ("noise", "above 0")),
        ({"delta_dp": 0.0}, ("delta_dp",)),
        ({"aggregator": "mean"}, ("aggregator", "'mean'", "'gnmax'", "'lnmax'")),
        ({"secure": True, "generator": torch.Generator()}, ("generator", "secure")),
        ({"secure": True, "aggregator": "lnmax"}, ("secure", "'gnmax'")),
        ({"student_epochs": 0}, ("student_epochs",)),
    ],
)
def test_pate_is_asked_within_range(refuses, digits, changes, words):
    arguments = {"data": digits, "x_public": torch.rand(4, 1, 28, 28), "build": build, "teachers": 5, "noise": 1.0}
    refuses(pate, arguments | {"delta_dp": 1e-3} | changes, *words)


@pytest.mark.parametrize(
    "counts",
    [
        torch.rand(3, 2),
        torch.tensor([1, 2]),
        torch.tensor([[3]]),
        torch.zeros(0, 3, dtype=torch.int64),
        torch.tensor([[3, 1], [2, 1]]),
        torch.tensor([[3, -1]]),
        torch.tensor([[0, 0]]),
    ],
)
def test_votes_are_whole_and_as_many_for_each_query(refuses, counts):
    refuses(gnmax, {"counts": counts, "sigma": 1.0}, "counts")
    refuses(lnmax_guarantee, {"counts": counts, "scale": 1.0, "delta_dp": 1e-5}, "counts")


def test_other_arguments_are_in_range(refuses, digits):
    counts = torch.tensor([[3, 1]])
    refuses(gnmax, {"counts": counts, "sigma": -1.0}, "sigma", "above 0")
    refuses(gnmax, {"counts": counts, "sigma": 1.0, "secure": 1}, "secure")
    refuses(lnmax, {"counts": counts, "scale": math.inf}, "scale")
    given = {"counts": counts, "threshold": 2, "threshold_sigma": 1.0, "sigma": 1.0, "most": 1}
    refuses(confident_gnmax, given | {"most": 0}, "most")
    refuses(confident_gnmax, given | {"threshold": math.nan}, "threshold")
    refuses(confident_gnmax, given | {"threshold_sigma": 0}, "threshold_sigma")
    refuses(confident_guarantee, {"asked": 0, "most": 1, "threshold_sigma": 1, "sigma": 1, "delta_dp": 0.1}, "asked")
    refuses(gnmax_guarantee, {"counts": counts, "sigma": 1.0, "delta_dp": 0.1, "data_dependent": 1}, "data_dependent")
    refuses(rdp_gnmax, {"log_q": np.array([0.0]), "sigma": 1.0}, "log_q")
    refuses(public_pool, {"data": digits, "count": 539}, "count", "538")
    shared = train_shadows(
        digits.x_train[:10], digits.y_train[:10], random_halves(4, 10), build, epochs=1, progress=False
    )
    refuses(votes, {"teachers": shared, "x": digits.x_val}, "teachers", "disjoint")
    refuses(votes, {"teachers": None, "x": digits.x_val}, "teachers")

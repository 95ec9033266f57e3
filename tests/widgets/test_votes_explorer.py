"""The votes explorer: chances are those of counted draws and of closed forms, epsilon is that of the accountant."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from spai_lab.data import load
from spai_lab.privacy.accounting import ORDERS, epsilon_of_rdp
from spai_lab.privacy.pate_bounds import log_q_gnmax
from spai_lab.privacy.pate_votes import gnmax
from spai_lab.widgets.accounting_explorer import number
from spai_lab.widgets.votes_explorer import (
    DELTA,
    DRAWS,
    PRIVATE,
    QUERIES,
    SIGMAS,
    TEACHERS,
    answers,
    ballot,
    chances,
    describe,
    percent,
    render,
    seeded,
    verdict,
    vote,
    votes_explorer,
)

FALSE_ALARM = 1e-6
RUNS = 20_000
SETTINGS = [(50, 2, 5.0, 1, 50), (100, 6, 20.0, 3, 200), (10, 1, 60.0, 2, 1)]
every = pytest.mark.parametrize(("teachers", "image", "sigma", "draw", "queries"), SETTINGS)


@pytest.fixture(scope="module")
def found():
    return ballot("digits")


def parts(fig):
    return {artist.get_gid(): artist for artist in fig.findobj() if artist.get_gid()}


def strange(hits, chance):
    """Whether so many hits of `RUNS` have a probability below `FALSE_ALARM` if each has this chance."""
    return stats.binomtest(int(hits), RUNS, min(1.0, chance)).pvalue < FALSE_ALARM


# --- the chance that another class wins -------------------------------------------------------------------------------


@pytest.mark.parametrize(("teachers", "image", "sigma"), [(50, 1, 5.0), (50, 2, 10.0), (200, 4, 20.0), (25, 2, 5.0)])
def test_chances_are_those_of_counted_draws(found, teachers, image, sigma):
    """Each class's count is binomial. The chance for a fourth less noise, a planted fault, is told apart."""
    counts = found.votes(teachers, image)
    drawn = gnmax(counts.repeat(RUNS, 1), sigma=sigma, generator=seeded(9))
    hits = drawn.bincount(minlength=counts.shape[1])
    for k, chance in enumerate(chances(counts, sigma)[0]):
        assert not strange(hits[k], chance)
    assert strange(hits[counts.argmax()], chances(counts, 0.75 * sigma)[0].max())


@pytest.mark.parametrize("lead", [0, 1, 7, 30])
def test_two_classes_have_a_closed_form(lead):
    counts = torch.tensor([[20 + lead, 20]])
    expected = stats.norm.sf(lead / (5 * math.sqrt(2)))
    assert chances(counts, 5.0)[0, 1] == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_equal_votes_give_equal_chances_and_all_add_up(found):
    assert chances(torch.full((1, 10), 5), 3.0) == pytest.approx(np.full((1, 10), 0.1), abs=1e-8)
    for sigma in SIGMAS:
        assert chances(found.counts[100], sigma).sum(1) == pytest.approx(1, abs=1e-8)


def test_the_chance_of_a_change_is_below_the_union_bound_of_the_accountant(found):
    for sigma in (2.0, 10.0):
        counts = found.counts[50]
        changed = 1 - chances(counts, sigma)[torch.arange(len(counts)), counts.argmax(1)]
        assert (changed <= np.exp(log_q_gnmax(counts, sigma)) + 1e-8).all()


# --- the votes --------------------------------------------------------------------------------------------------------


def test_no_public_image_is_private_and_every_teacher_votes_once(found):
    data = load("digits")
    assert PRIVATE["digits"] + QUERIES[-1] <= len(data.x_train)
    assert torch.equal(found.x, data.x_train[PRIVATE["digits"] :])
    for teachers, counts in found.counts.items():
        assert (counts.sum(1) == teachers).all() and found.each[teachers] == PRIVATE["digits"] // teachers
    assert tuple(found.counts) == TEACHERS


def test_images_go_from_disputed_to_clear_and_teachers_know_something(found):
    tops = [int(found.votes(50, image).max()) for image in range(1, len(found.shown) + 1)]
    assert tops == sorted(tops) and tops[0] < 25 < 40 < tops[-1]
    right = (found.counts[50].argmax(1) == found.y).double().mean()
    assert right > 0.7


@every
def test_the_noisy_winner_is_what_gnmax_says(found, teachers, image, sigma, draw, queries):
    seen = vote(found, teachers, image, sigma, draw)
    assert seen.told == int(gnmax(found.votes(teachers, image), sigma=sigma, generator=seeded(draw)))
    assert seen.told == seen.noisy.argmax() and seen.winner == seen.counts.argmax()


def test_a_slider_of_sigma_only_stretches_the_noise(found):
    small, large = (vote(found, 50, 2, sigma, 3) for sigma in (2.0, 20.0))
    assert large.noisy - large.counts == pytest.approx(10 * (small.noisy - small.counts))
    others = {tuple(vote(found, 50, 2, 2.0, draw).noisy) for draw in range(1, DRAWS + 1)}
    assert len(others) == DRAWS


# --- what the answers spend -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("queries", QUERIES)
def test_the_promise_is_that_of_so_many_gaussians_whatever_the_votes(found, queries):
    for sigma in (1.0, 10.0, 60.0):
        expected, _ = epsilon_of_rdp(ORDERS, queries * ORDERS / sigma**2, DELTA)
        for teachers in (10, 200):
            told = answers(found, teachers, sigma, queries)
            assert told.promise.epsilon == pytest.approx(expected)
            assert (told.promise.delta_dp, told.promise.adjacency) == (DELTA, "replace")
            assert told.these.epsilon <= expected * (1 + 1e-9) and not told.these.sanitized


def test_what_is_said_of_the_answers_is_what_many_draws_give(found):
    """The mean of 300 draws lies within 5 standard errors, unless in one of a million runs."""
    told, counts, y = answers(found, 50, 10.0, 50), found.counts[50][:50], found.y[:50]
    labels = torch.stack([gnmax(counts, sigma=10.0, generator=seeded(k)) for k in range(300)])
    for expected, hits in ((told.changed, labels != counts.argmax(1)), (told.right, labels == y)):
        each = hits.sum(1).double()
        assert abs(each.mean().item() - expected) < 5 * each.std().item() / math.sqrt(300)


# --- the picture and its words ----------------------------------------------------------------------------------------


@every
def test_the_picture_shows_votes_noise_winners_chances_and_epsilon(found, teachers, image, sigma, draw, queries):
    seen, told = vote(found, teachers, image, sigma, draw), answers(found, teachers, sigma, queries)
    named = parts(render(found, teachers, image, sigma, draw, queries))
    tops = [named[f"votes {k}"].get_height() for k in range(10)]
    assert np.array(tops) * seen.counts.max() == pytest.approx(seen.counts * max(tops))
    zero, scale = named["votes 0"].get_y(), max(tops) / seen.counts.max()
    assert named["noisy"].get_ydata() == pytest.approx(zero + scale * seen.noisy, abs=1e-6)
    for gid, k in (("winner", seen.winner), ("told", seen.told)):
        assert named[gid].get_xdata()[0] == pytest.approx(k, abs=0.2)
    assert [named[f"chance {k}"].get_height() for k in range(10)] == pytest.approx(list(seen.chance))
    assert percent(seen.changes) in named["changes"].get_text()
    for gid, bound in (("promise", told.promise), ("these", told.these)):
        assert named[f"{gid} now"].get_xydata()[0] == pytest.approx([sigma, bound.epsilon])
        assert f"ε {number(bound.epsilon)} " in named[f"{gid} words"].get_text()
        assert (np.diff(named[gid].get_ydata()) < 0).all()
    assert "not sanitized" in named["these words"].get_text()


def test_words_follow_the_numbers(found):
    for teachers in TEACHERS:
        for sigma in SIGMAS:
            for image in range(1, len(found.shown) + 1):
                at = (teachers, image, sigma, 1 + image, 100)
                said, told = verdict(found, *at), describe(found, *at)
                seen, spent = vote(found, *at[:4]), answers(found, teachers, sigma, 100)
                assert f"{seen.counts.max()} of {teachers} teachers say {seen.winner}" in said
                assert (f"of the noise makes {seen.told} win." in said) == (seen.told != seen.winner)
                assert f"epsilon {number(spent.promise.epsilon)} at delta 1e-05, one record replaced" in said
                assert "not sanitized" in said and "demonstration, not private" in said
                assert f"then {seen.told} wins" in told and percent(seen.changes) in said
                for words in (said, told):
                    assert words.endswith(".") and "nan" not in words


def test_controls_redraw():
    explorer = votes_explorer("digits")
    for name, value in (("teachers", 100), ("image", 2), ("sigma", 20.0), ("draw", 4), ("queries", 200)):
        before = explorer.png, explorer.alt, explorer.caption
        explorer.controls[name].value = value
        now = explorer.png, explorer.alt, explorer.caption
        assert all(new != old for new, old in zip(now, before, strict=True))
    assert explorer.caption == verdict(ballot("digits"), 100, 2, 20.0, 4, 200)
    assert 'role="alert"' not in explorer.children[2].value


def test_mnist_has_votes_too(mnist):
    found = ballot("mnist")
    assert (found.counts[200].argmax(1) == found.y).double().mean() > 0.7
    assert torch.equal(found.x, mnist.x_train[-QUERIES[-1] :])


def test_bad_arguments_are_refused(refuses, found):
    refuses(ballot, {"dataset": "moons"}, "dataset is 'moons'", "digits")
    refuses(votes_explorer, {"dataset": "faces"}, "dataset is 'faces'", "digits")
    good = {"found": found, "teachers": 50, "image": 1, "sigma": 5.0, "draw": 1, "queries": 50}
    for function in (render, verdict, describe):
        refuses(function, good | {"teachers": 30}, "teachers is 30", "10, 25, 50")
        refuses(function, good | {"image": 7}, "image is 7", "1 to 6")
        refuses(function, good | {"image": 0}, "image is 0", "at least 1")
        refuses(function, good | {"sigma": 0.0}, "sigma is 0.0", "1, 2, 3")
        refuses(function, good | {"draw": 21}, "draw is 21", "1 to 20")
        refuses(function, good | {"queries": 7}, "queries is 7", "100, 200")

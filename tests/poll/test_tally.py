"""Counts add up, and say who had it right."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spai_lab.poll.question import Question
from spai_lab.poll.tally import Tally, count_answers, fits, in_words, pasted, verdict

WHICH = Question("k", "Which?", options=("up", "down", "none"))
MANY = Question("n", "How many?", high=100, unit="%")


@given(st.lists(st.one_of(st.sampled_from([*WHICH.options, "other"]), st.floats(allow_nan=True))))
def test_every_answer_is_counted_once(answers):
    tally = count_answers(WHICH, answers)
    assert sum(tally.answers) + tally.other == len(answers)
    assert tally.rounds[0] == tuple(answers.count(option) for option in WHICH.options)


@given(st.lists(st.floats(-50, 150)))
def test_numbers_outside_the_bounds_are_counted_apart(answers):
    tally = count_answers(MANY, answers)
    assert tally.other == sum(not 0 <= answer <= 100 for answer in answers)
    assert (tally.middle is None) == (tally.answers == (0,))


def test_the_second_count_compares_shares_and_not_numbers():
    said = verdict(Tally(WHICH, ((5, 5, 10), (15, 5, 0)), right=0))
    assert "5 of 20 (25 %) had it, after discussion 15 of 20 (75 %)" in said
    assert verdict(Tally(WHICH, ((5, 5, 10),))) == "", "nothing is right before the outcome"
    assert verdict(Tally(WHICH, ((0, 0, 0),), right=1)) == "", "nobody answered"


def test_who_does_not_see_the_bars_hears_every_row():
    said = in_words(Tally(WHICH, ((5, 6, 7), (1, 2, 3)), right=2))
    assert all(part in said for part in ("A, up: 5", "C, none: 7", "after discussion of 6", "B, down: 2", "Right is C"))


def test_pasted_numbers_are_read_with_units_and_commas_and_what_is_none_is_told():
    counts, refused = pasted(MANY, "12%; 12,5 80.0\n 100 %\n101 abc 1/2")
    assert counts == (2, 0, 0, 0, 2) and refused == ["101", "abc", "1/2"]


@pytest.mark.parametrize(
    ("rounds", "right", "named"),
    [
        ((), None, "rounds"),
        (((1, 2),), None, "rounds"),
        (((1, 2, 3),) * 3, None, "rounds"),
        (((1, 2, -3),), None, "rounds"),
        (((1, 2, 3.5),), None, "rounds"),
        (((1, 2, 3),), 3, "right"),
    ],
)
def test_counts_that_do_not_fit_are_refused(rounds, right, named):
    with pytest.raises(ValueError, match=named):
        Tally(WHICH, rounds, right)


@pytest.mark.parametrize("stored", [None, 3, "abc", [[1, 2]], [[1, 2, "3"]], [[1, 2, True]], [], {"a": 1}])
def test_stored_counts_of_another_question_do_not_fit(stored):
    assert not fits(WHICH, stored)
    assert fits(WHICH, [[1, 2, 3]])

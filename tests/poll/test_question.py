"""A question's rows: every answer within the bounds has exactly one, and the words of a cell give the question back."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spai_lab.poll.question import Question, edges, in_words
from spai_lab.widgets import predict

BOUNDS = [(0, 100), (1, 28), (1, 20), (0, 10), (0, 200), (0, 8), (1, 2000), (16, 5000), (1, 1000), (0, 16), (-1, 1)]


@pytest.mark.parametrize(("low", "high"), BOUNDS)
def test_ranges_cover_the_bounds_and_are_few(low, high):
    found = edges(low, high)
    assert found[0] == low and found[-1] == high and list(found) == sorted(set(found))
    assert 2 <= len(found) - 1 <= 8
    widths = [b - a for a, b in pairwise(found)]
    assert high / max(low, 1e-9) >= 100 or low <= 0 or min(widths) >= 0.49 * max(widths)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.floats(0, 1))
def test_a_number_lies_in_the_range_that_its_row_names(low, span, share):
    high = low + span
    question = Question("k", "?", low=low, high=high)
    value = min(high, max(low, low + share * span))
    row = question.row_of(value)
    assert question.edges[row] <= value <= question.edges[row + 1]
    assert value == high or value < question.edges[row + 1]
    assert len(question.rows) == len(question.edges) - 1


@given(st.floats(1e-6, 1e6), st.floats(1.0001, 1e9))
def test_whatever_the_bounds_there_are_two_ranges_or_more_and_not_many(low, ratio):
    found = edges(low, low * ratio)
    assert 3 <= len(found) <= 14 and all(a < b for a, b in pairwise(found))


@pytest.mark.parametrize("wrong", [(1, 1), (2, 1), (0, float("inf")), (float("nan"), 1)])
def test_bounds_without_room_are_refused(wrong):
    with pytest.raises(ValueError, match="high"):
        edges(*wrong)


def test_what_is_no_choice_has_no_row():
    options = Question("k", "?", options=("up", "down"))
    assert [options.row_of(answer) for answer in ("down", "Up", 1.0)] == [1, None, None]
    number = Question("k", "?", high=10)
    assert [number.row_of(answer) for answer in (-0.1, 10.1, "5", float("nan"))] == [None] * 4


@pytest.mark.parametrize(
    "asked",
    [
        {"options": ["one", "two: or three", "a number from 1 to 2"]},
        {"low": 0, "high": 200, "unit": "%"},
        {"low": -1.5, "high": 2000},
        {"low": 0, "high": 8, "unit": "images a second"},
    ],
)
def test_a_cell_s_words_give_its_question_back(asked):
    prediction = predict("words", "How `many`,\n  or which?", **asked)
    assert in_words("words", repr(prediction)) == prediction.question


@pytest.mark.parametrize("words", ["", "Predict: ?", "How many?\n  ( ) a", "Predict: ?\n  ( ) a number from x to 3"])
def test_other_words_are_refused(words):
    with pytest.raises(ValueError, match="words"):
        in_words("k", words)

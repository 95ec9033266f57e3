"""A show of hands: boxes for each choice, bars that follow, a second count, the right answer, and a reload."""

import re

import pytest

from spai_lab.lecture import hands
from spai_lab.lecture.hands import AGAIN, COUNT, HIDE, Hands
from spai_lab.lecture.stage import compare, predict
from spai_lab.lecture.votes import VARIABLE
from spai_lab.poll.question import Question

OPTIONS = ["<b>up</b> & away", "down"]


@pytest.fixture(autouse=True)
def a_lecture_of_its_own(monkeypatch, tmp_path):
    monkeypatch.delenv("SPAI_MY", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "votes.json"))
    monkeypatch.setattr(hands, "polls", {})
    monkeypatch.setattr("spai_lab.lecture.stage.polls", hands.polls)


def asked(key="k", **question) -> Hands:
    predict(key, "Which?", **(question or {"options": OPTIONS}))
    return hands.polls[key]


def vote(poll: Hands, number: int, *counts: int) -> None:
    for box, count in zip(poll.rounds[number], counts, strict=True):
        box.value = count


def test_closed_it_is_one_button_and_the_question_s_own_field(tmp_path):
    poll = asked()
    assert poll.toggle.description == COUNT and poll.board.children == () and poll.field.layout.display is None
    assert poll.again.layout.display == poll.paste.layout.display == "none"
    assert not (tmp_path / "votes.json").exists()


def test_open_it_has_a_named_bounded_box_for_each_choice_and_closing_keeps_the_counts():
    poll = asked()
    poll.toggle.click()
    assert poll.toggle.description == HIDE and poll.field.layout.display == "none"
    names = [re.sub("<span aria-hidden.*?</span>|<[^>]+>", "", box.description) for box in poll.rounds[0]]
    assert names == ["first count: A, &lt;b&gt;up&lt;/b&gt; &amp; away", "first count: B, down"]
    poll.rounds[0][0].value = -5
    assert poll.rounds[0][0].value == 0
    vote(poll, 0, 3, 4)
    poll.toggle.click()
    poll.toggle.click()
    assert poll.tally.rounds == ((3, 4),)


def test_bars_follow_the_boxes_and_say_what_they_show():
    poll = asked()
    poll.toggle.click()
    before = poll.picture.value
    vote(poll, 0, 3, 4)
    assert poll.picture.value != before
    assert (
        "A, &lt;b&gt;up&lt;/b&gt; &amp; away: 3; B, down: 4" in poll.picture.value and "<b>up" not in poll.picture.value
    )


def test_after_discussion_a_second_count_stands_beside_the_first():
    poll = asked()
    poll.toggle.click()
    vote(poll, 0, 3, 4)
    assert poll.again.layout.display is None and poll.again.description == AGAIN
    poll.again.click()
    vote(poll, 1, 6, 1)
    assert poll.tally.rounds == ((3, 4), (6, 1)) and poll.again.layout.display == "none"


def test_the_outcome_marks_the_right_answer_and_says_how_many_had_it():
    poll = asked()
    outcome = compare("k", "down", "Because.")
    poll.toggle.click()
    vote(poll, 0, 1, 3)
    assert "Right is" not in poll.picture.value and "Right is" not in repr(outcome.children)
    outcome.children[0].click()
    assert "Right is B: down. 3 of 4 (75 %) had it." in poll.picture.value
    assert outcome.children[-1].value == poll.picture.value, "the hall sees it where the outcome is"
    assert "spai-shown-k" in outcome._dom_classes


def test_an_outcome_without_votes_shows_no_empty_bars():
    asked()
    outcome = compare("k", "down")
    outcome.children[0].click()
    assert outcome.children[-1].value == "" and "You made no prediction" not in outcome.children[1].value


def test_numbers_are_counted_in_ranges_or_pasted():
    poll = asked("n", low=0, high=100, unit="%")
    assert poll.question.rows[0] == "under 20 %"
    poll.toggle.click()
    assert poll.paste.layout.display is None
    poll.paste.value = "5 15% 50; 120 abc"
    assert poll.tally.rounds == ((2, 0, 1, 0, 0),)
    assert "3 numbers were counted. 2 were not" in poll.status.value and "abc" in poll.status.value
    outcome = compare("n", 55.0)
    outcome.children[0].click()
    assert "Right is C: 40 to under 60 %. 1 of 3 (33 %) had it." in poll.picture.value


@pytest.mark.parametrize("came_out", [101.0, "more than all"])
def test_an_outcome_in_no_range_marks_none(came_out):
    poll = asked("n", low=0, high=100)
    poll.toggle.click()
    vote(poll, 0, 1, 1, 1, 1, 1)
    compare("n", came_out).children[0].click()
    assert poll.right is None and "Right is" not in poll.picture.value


def test_a_reload_finds_the_votes_and_opens_the_count():
    poll = asked()
    poll.toggle.click()
    vote(poll, 0, 3, 4)
    poll.again.click()
    vote(poll, 1, 7, 0)
    again = asked()
    assert again is not poll and again.tally.rounds == ((3, 4), (7, 0)) and again.toggle.description == HIDE


def test_a_file_that_cannot_be_written_is_told_and_the_page_counts_on(tmp_path):
    (tmp_path / "votes.json").write_text("an essay")
    poll = Hands(Question("k", "?", options=("up", "down")), predict("k", "?", ["up", "down"]).children[0])
    assert "cannot be read" in poll.status.value
    poll.toggle.click()
    vote(poll, 0, 3, 4)
    assert "on this page only" in poll.status.value and poll.tally.answers == (7,)
    assert (tmp_path / "votes.json").read_text() == "an essay"


def test_outside_a_lecture_a_question_has_no_poll():
    import spai_lab.widgets

    assert not isinstance(spai_lab.widgets.predict("p", "Which?", OPTIONS), type(predict("k", "Which?", OPTIONS)))
    assert "p" not in hands.polls

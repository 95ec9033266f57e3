"""Votes outlive a reload, fit their question, and never land in the wrong file."""

import json
import os
import threading

import pytest

from spai_lab.lecture.serve import prepare_environment, serve
from spai_lab.lecture.votes import VARIABLE, check_file, keep_votes, read_votes, recall_votes
from spai_lab.poll.question import Question

WHICH = Question("k", "Which?", options=("up", "down"))


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "kept" / "votes.json"))
    return tmp_path / "kept" / "votes.json"


def test_votes_come_back(place):
    assert recall_votes(WHICH) == ((), "") and not place.exists()
    assert keep_votes(WHICH, [(3, 4), (5, 2)]) == ""
    assert recall_votes(WHICH) == (((3, 4), (5, 2)), "")
    assert [path.name for path in place.parent.iterdir()] == ["votes.json"], "no lock and no part is left"


def test_votes_of_a_question_whose_options_changed_are_not_shown(place):
    keep_votes(WHICH, [(3, 4)])
    assert recall_votes(Question("k", "Which?", options=("down", "up"))) == ((), "")
    assert recall_votes(Question("other", "Which?", options=("up", "down"))) == ((), "")


@pytest.mark.parametrize("rounds", [None, [[1]], [[1, -1]], [[1, "2"]], "ab", [[1, 2]] * 3])
def test_odd_counts_in_the_file_are_not_shown(place, rounds):
    place.parent.mkdir()
    place.write_text(json.dumps({"votes": {"k": {"choices": ["up", "down"], "rounds": rounds}}}))
    assert recall_votes(WHICH) == ((), "")


@pytest.mark.parametrize("content", ["{", "[]", '{"predictions": {}}', "[" * 100_000])
def test_a_file_of_something_else_stays_as_it_is_and_the_page_says_so(place, content):
    place.parent.mkdir()
    place.write_text(content)
    assert "cannot be read" in recall_votes(WHICH)[1]
    assert "on this page only" in keep_votes(WHICH, [(1, 2)])
    assert place.read_text() == content


def test_without_a_file_nothing_is_kept(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert keep_votes(WHICH, [(1, 2)]) == "" and recall_votes(WHICH) == ((), "")


def test_two_pages_lose_no_vote_of_each_other(place):
    questions = [Question(str(number), "?", options=("up", "down")) for number in range(8)]
    writers = [threading.Thread(target=keep_votes, args=(question, [(1, 2)])) for question in questions]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert set(read_votes(place)["votes"]) == {question.key for question in questions}


def test_a_file_beside_the_masters_a_folder_or_another_file_is_refused(tmp_path):
    masters = tmp_path / "notebooks"
    masters.mkdir()
    (tmp_path / "essay.txt").write_text("words")
    for wrong in (masters / "votes.json", masters / ".." / "notebooks" / "a" / "votes.json", tmp_path):
        with pytest.raises(ValueError, match="votes is"):
            check_file(wrong, masters)
    with pytest.raises(ValueError, match="votes is"):
        check_file(tmp_path / "essay.txt", masters)
    assert check_file(tmp_path / "new.json", masters) == tmp_path / "new.json" and not (tmp_path / "new.json").exists()


def test_a_lecture_refuses_a_file_beside_the_masters_before_it_starts(tmp_path):
    pytest.importorskip("voila")
    (tmp_path / "02_x.ipynb").write_text("{}")
    with pytest.raises(ValueError, match="outside the chapters' folder"):
        serve(browser=False, masters=tmp_path, votes=tmp_path / "votes.json")


def test_kernels_learn_where_the_votes_are_and_nothing_of_the_lecturer_s_own_folder(tmp_path, monkeypatch):
    for name in ("JUPYTER_PATH", "PYDEVD_DISABLE_FILE_VALIDATION", VARIABLE, "SPAI_MY"):
        monkeypatch.setenv(name, "before")
    prepare_environment(tmp_path, tmp_path / "votes.json")
    assert os.environ[VARIABLE] == str(tmp_path / "votes.json") and "SPAI_MY" not in os.environ

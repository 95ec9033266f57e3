"""The leaderboard: thirty write at once and nothing is lost; what is damaged is reported; names are texts."""

import json
import multiprocessing
import os
from dataclasses import asdict, replace

import pytest
import torch

from spai_lab.arena import board as boards
from spai_lab.arena.board import Board, Entry, append, entry_of, post, read_board
from spai_lab.arena.duel import Row
from spai_lab.arena.findings import Finding
from spai_lab.arena.result import Result
from spai_lab.metrics import Rate

ENTRY = Entry("Ada", "defense", "my_defense", "digits", 0.5, 64, "64 images", "2030-01-01 10:00", "0")


def write_three(file, number, together):
    """What one of thirty does."""
    together.wait(timeout=30)
    for i in range(3):
        named = {"who": f"student {number}", "function": "a" * 100, "terms": "t" * 200, "id": f"{i}"}
        append(file, replace(ENTRY, kind="attack", score=number / 30, **named))


def result(score=32, found=()):
    standing = torch.arange(64) < score
    row = Row("PGD", Rate(64, 64), Rate(score, 64), None, standing, 1.0)
    return Result("defense", "my_defense", "digits", "64 images", "a budget", (row,), tuple(found))


@pytest.mark.skipif(os.name != "posix", reason="thirty processes start fast where they can be forked")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_thirty_processes_that_write_at_once_lose_nothing(tmp_path):
    file, context = tmp_path / "shared" / "board.jsonl", multiprocessing.get_context("fork")
    together = context.Barrier(30)
    writers = [context.Process(target=write_three, args=(file, number, together)) for number in range(30)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(timeout=60)
        assert writer.exitcode == 0
    board = read_board(file)
    assert not board.damaged
    written = sorted((entry.who, entry.id) for entry in board.entries)
    assert written == sorted((f"student {number}", f"{i}") for number in range(30) for i in range(3))
    assert [entry.who for entry in board.best("attack")][:2] == ["student 0", "student 1"]


def test_ranks_begin_anew_where_the_terms_are_others():
    board = Board(tuple(replace(ENTRY, who=who, terms=terms) for who, terms in (("A", "eps 0.2"), ("B", "eps 0.3"))))
    assert "defense 1. A" in repr(board)
    assert "defense 1. B" in repr(board)


def test_everybody_has_one_line_the_best_and_the_best_is_first(tmp_path):
    file = tmp_path / "board.jsonl"
    for who, score in (("Ada", 0.2), ("Bo", 0.7), ("ada", 0.9), ("Cy", 0.4)):
        append(file, replace(ENTRY, who=who, score=score))
    assert [(entry.who, entry.score) for entry in read_board(file).best("defense")] == [
        ("ada", 0.9),
        ("Bo", 0.7),
        ("Cy", 0.4),
    ]
    assert read_board(file).best("attack") == ()
    assert "defense 1. ada: 90 % (80 to 95), the best of 2," in repr(read_board(file))
    attacks = Board(
        tuple(replace(ENTRY, kind="attack", who=who, score=score) for who, score in (("A", 0.5), ("B", 0.1)))
    )
    assert [entry.who for entry in attacks.best("attack")] == ["B", "A"]


@pytest.mark.parametrize(
    "line",
    [
        b"no json",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b"[" * 1900,
        b"x" * 3000,
        json.dumps(asdict(ENTRY) | {"score": 7}).encode(),
        json.dumps(asdict(ENTRY) | {"score": "0.5"}).encode(),
        json.dumps(asdict(ENTRY) | {"more": 1}).encode(),
        json.dumps(asdict(ENTRY) | {"who": "x" * 41}).encode(),
        json.dumps(asdict(ENTRY) | {"who": "two\nlines"}).encode(),
    ],
)
def test_a_damaged_line_is_reported_and_takes_no_other_with_it(tmp_path, line):
    file = tmp_path / "board.jsonl"
    append(file, ENTRY)
    with file.open("ab") as stream:
        stream.write(line)  # and no end of line, as of a writer that was stopped
    append(file, replace(ENTRY, who="Bo"))
    board = read_board(file)
    assert [entry.who for entry in board.entries] == ["Ada", "Bo"]
    assert board.damaged == (2,)
    assert "left out: 2." in repr(board)


def test_names_are_shown_as_texts(tmp_path):
    file = tmp_path / "board.jsonl"
    append(file, replace(ENTRY, who="<img src=x onerror=alert(1)>"))
    page = read_board(file)._repr_mimebundle_()["text/html"]
    assert "<img" not in page
    assert "&lt;img" in page


def test_a_result_is_posted_with_its_score_and_a_caught_one_is_refused(tmp_path):
    file = tmp_path / "board.jsonl"
    board = post(result(), "Ada", file)
    assert board.entries[0].score == 0.5
    assert board.entries[0].interval == Rate(32, 64).interval
    with pytest.raises(ValueError, match="was caught; accepted: one with a score"):
        entry_of(result(found=[Finding("slow", "a.", "b.", "c.")]), "Ada")
    with pytest.raises(ValueError, match="who is ''"):
        entry_of(result(), "")
    assert read_board(tmp_path / "none.jsonl") == Board(())


def test_a_disk_that_forgets_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(boards, "write_line", lambda descriptor, line: None)
    monkeypatch.setattr(boards.time, "sleep", lambda seconds: None)
    with pytest.raises(OSError, match="does not keep what is written"):
        append(tmp_path / "board.jsonl", ENTRY)

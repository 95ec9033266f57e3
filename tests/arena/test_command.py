"""`spai-lab arena`: files are judged, scores are posted, and what is caught ends with status 1."""

import pytest
import torch

from spai_lab.arena import arena as entrance
from spai_lab.arena.board import read_board
from spai_lab.arena.duel import Row
from spai_lab.arena.findings import Finding
from spai_lab.arena.result import Result
from spai_lab.cli import main
from spai_lab.metrics import Rate


@pytest.fixture
def judge(monkeypatch):
    """The arena, which notes what it was asked and finds what it is told to."""
    asked, found = [], []

    def judged(file, **options):
        asked.append((file, options))
        row = Row("PGD", Rate(8, 8), Rate(4, 8), None, torch.arange(8) < 4, 1.0)
        return Result("defense", "mine", "digits", "8 images", "a budget", (row,), tuple(found), output="epoch 1")

    monkeypatch.setattr(entrance, "arena_defense", judged)
    monkeypatch.setattr(entrance, "arena_attack", judged)
    return asked, found


def test_a_file_is_judged_and_its_score_posted(judge, tmp_path, capsys):
    asked, _ = judge
    board = tmp_path / "board.jsonl"
    command = ["arena", "defense", "mine.py", "--data", "digits", "--count", "8", "--seed", "3", "--seconds", "5"]
    command += ["--eps", "0.1"]
    assert main([*command, "--board", str(board), "--who", "Ada"]) == 0
    file, options = asked[0]
    assert str(file) == "mine.py"
    assert options["name"] is None
    assert options["eps"] == 0.1
    assert (options["data"], options["images"], options["seed"], options["budget"].seconds) == ("digits", 8, 3, 5)
    assert read_board(board).entries[0].who == "Ada"
    said = capsys.readouterr().out
    assert "keeps 50 % of the images right against every attack" in said
    assert "It printed: 'epoch 1'" in said
    assert main(["arena", "board", str(board)]) == 0
    assert "defense 1. Ada: 50 %" in capsys.readouterr().out


def test_what_is_caught_is_not_posted(judge, tmp_path, capsys):
    judge[1].append(Finding("slow", "It had 1 s.", "Nobody waits.", "Do less."))
    board = tmp_path / "board.jsonl"
    assert main(["arena", "attack", "mine.py", "--board", str(board), "--who", "Ada"]) == 1
    assert not board.exists()
    said = capsys.readouterr().out
    assert "✘ Caught, slow: It had 1 s." in said
    assert f"Nothing was written to {board}." in said


def test_a_board_that_is_not_there_is_refused(tmp_path, capsys):
    assert main(["arena", "board", str(tmp_path / "bord.jsonl")]) == 1
    assert "which does not exist" in capsys.readouterr().err


def test_a_board_without_a_name_is_refused_before_anything_runs(judge, capsys):
    assert main(["arena", "attack", "mine.py", "--board", "board.jsonl"]) == 1
    assert "who is missing" in capsys.readouterr().err
    assert not judge[0]


def test_a_file_that_is_missing_is_named(judge, capsys):
    assert main(["arena", "attack"]) == 1
    assert "file is missing" in capsys.readouterr().err
    assert not judge[0]


def test_the_examples_are_caught_each_in_its_own_words(capsys):
    assert main(["arena", "examples"]) == 0
    said = capsys.readouterr().out
    kinds = [line.split(" | ")[0].strip("| ") for line in said.splitlines()[2:]]
    assert kinds == ["broken", "slow", "crashing", "cheating"]
    for words in ("Caught, broken", "Caught, slow", "Caught, crash", "Caught, two faces"):
        assert said.count(words) == 1

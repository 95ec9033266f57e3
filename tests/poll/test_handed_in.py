"""Files that students hand in: none of them stops the others, none leads elsewhere, and answers lose their names."""

import json
import os

import pytest

from spai_lab.poll.handed_in import LARGEST, collect, parse


def content(**answers) -> str:
    return json.dumps({"predictions": {key: {"prediction": value, "unit": ""} for key, value in answers.items()}})


def hand_in(folder, who, text) -> None:
    place = folder / who / "my"
    place.mkdir(parents=True)
    (place / "progress.json").write_bytes(text if isinstance(text, bytes) else text.encode())


def test_answers_of_a_class_are_collected_without_names(tmp_path):
    hand_in(tmp_path, "ada", content(a=1, b="up"))
    hand_in(tmp_path, "bob", content(a=2.5))
    (tmp_path / "progress-cem.json").write_text(content(a=3))
    (tmp_path / "notes.json").write_text("{}")
    (tmp_path / "ada" / "my" / "progress-damaged-1.json").write_text(content(a=9))
    found = collect([tmp_path])
    assert sorted(found.answers["a"]) == [1, 2.5, 3] and found.answers["b"] == ["up"]
    assert found.files == 3 and found.left_out == ()
    assert "ada" not in repr(found) and "cem" not in repr(found)


BROKEN = {
    "empty": b"",
    "cut": b'{"predictions": {"a"',
    "binary": bytes(range(256)),
    "list": b"[1, 2]",
    "other": b'{"cells": []}',
    "foreign": b'{"predictions": [1]}',
    "odd": b'{"predictions": {"a": 3}}',
    "nested": b'{"predictions": {"a": {"prediction": {"b": 1}}}}',
    "truth": b'{"predictions": {"a": {"prediction": true}}}',
    "nan": b'{"predictions": {"a": {"prediction": NaN}}}',
    "endless": b'{"predictions": {"a": {"prediction": Infinity}}}',
    "digits": b'{"predictions": {"a": {"prediction": ' + b"9" * 5000 + b"}}}",
    "deep": b"[" * 200_000,
    "deep objects": b'{"a":' * 100_000,
    "huge": b" " * (LARGEST + 1),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_named_and_left_out(tmp_path, kind):
    hand_in(tmp_path, "good", content(a=1))
    hand_in(tmp_path, "bad", BROKEN[kind])
    found = collect([tmp_path])
    [(path, reason)] = found.left_out
    assert path == tmp_path / "bad" / "my" / "progress.json" and reason and "\n" not in reason
    assert found.files == 1 and found.answers == {"a": [1]}


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_no_link_is_followed_and_no_pipe_is_waited_for(tmp_path):
    hand_in(tmp_path / "class", "ada", content(a=1))
    hand_in(tmp_path, "elsewhere", content(a=7))
    (tmp_path / "class" / "bob").mkdir()
    (tmp_path / "class" / "bob" / "progress.json").symlink_to(tmp_path / "class" / "ada" / "my" / "progress.json")
    (tmp_path / "class" / "cem").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "class" / "loop").symlink_to(tmp_path / "class")
    (tmp_path / "class" / "dan").mkdir()
    os.mkfifo(tmp_path / "class" / "dan" / "progress.json")
    found = collect([tmp_path / "class"])
    assert found.answers == {"a": [1]}
    assert {path.parent.name for path, _ in found.left_out} == {"bob", "dan"}


@pytest.mark.skipif(os.name == "nt" or not hasattr(os, "geteuid") or os.geteuid() == 0, reason="needs an ordinary user")
def test_a_closed_folder_is_named(tmp_path):
    hand_in(tmp_path, "ada", content(a=1))
    hand_in(tmp_path, "bob", content(a=1))
    (tmp_path / "bob").chmod(0)
    try:
        found = collect([tmp_path])
    finally:
        (tmp_path / "bob").chmod(0o700)
    assert found.files == 1 and [path.name for path, _ in found.left_out] == ["bob"]


def test_a_file_that_is_named_twice_counts_once(tmp_path):
    hand_in(tmp_path, "ada", content(a=1))
    assert collect([tmp_path, tmp_path / "ada", tmp_path / "ada" / "my" / "progress.json"]).files == 1


def test_no_place_and_no_file_are_refused(tmp_path):
    with pytest.raises(ValueError, match="which does not exist"):
        collect([tmp_path / "nothing"])
    with pytest.raises(ValueError, match=r"no progress\.json"):
        collect([tmp_path])


def test_what_a_notebook_writes_is_what_is_read(tmp_path, monkeypatch):
    import importlib

    module = importlib.import_module("spai_lab.widgets.predict")
    monkeypatch.setenv("SPAI_MY", str(tmp_path))
    monkeypatch.setattr(module, "session", {})
    module.record("a", module.Entry(40.0, "%"))
    module.record("b", module.Entry("größer", ""))
    assert parse((tmp_path / "progress.json").read_bytes()) == {"a": 40.0, "b": "größer"}

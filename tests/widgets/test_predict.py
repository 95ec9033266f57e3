"""Predictions are asked without a default, kept without loss, and shown beside the outcome."""

import importlib
import json
import os
import re
import subprocess
import sys

import pytest

from spai_lab.widgets.predict import compare, predict

module = importlib.import_module("spai_lab.widgets.predict")  # the package's attribute of that name is the function
OPTIONS = ["The sign alone", "The raw gradient"]


@pytest.fixture
def my(tmp_path, monkeypatch):
    """A student's folder, and a fresh session."""
    folder = tmp_path / "my"
    folder.mkdir()
    monkeypatch.setenv("SPAI_MY", str(folder))
    restart(monkeypatch)
    return folder


def restart(monkeypatch):
    monkeypatch.setattr(module, "session", {})
    monkeypatch.setattr(module, "asked", {})


def kept(folder) -> dict:
    return json.loads((folder / "progress.json").read_text(encoding="utf-8"))["predictions"]


def test_nothing_is_chosen_and_nothing_written_before_the_student_answers(my):
    assert predict("k", "Which?", OPTIONS).field.value is None
    assert predict("n", "How many?", low=0, high=100, unit="%").field.value == ""
    assert list(my.iterdir()) == []


def test_choice_is_kept_and_found_again_after_a_restart(my, monkeypatch):
    predict("k", "Which?", OPTIONS).field.value = OPTIONS[1]
    assert kept(my) == {"k": {"prediction": OPTIONS[1], "unit": ""}}
    restart(monkeypatch)
    assert predict("k", "Which?", OPTIONS).field.value == OPTIONS[1]
    assert predict("k", "Which?", ["other", "answers"]).field.value is None


@pytest.mark.parametrize("text", ["50", " 50 ", "50 %", "50%", "50,0", "5e1"])
def test_number_is_kept(my, monkeypatch, text):
    predict("n", "How many?", low=0, high=100, unit="%").field.value = text
    assert kept(my) == {"n": {"prediction": 50.0, "unit": "%"}}
    restart(monkeypatch)
    assert predict("n", "How many?", low=0, high=100, unit="%").field.value == "50"


@pytest.mark.parametrize("text", ["fifty", "-1", "100.1", "nan", "inf", "", "1/2"])
def test_what_is_no_number_within_the_bounds_is_explained(my, text):
    prediction = predict("n", "How many?", low=0, high=100, unit="%")
    prediction.field.value = "7"
    prediction.field.value = text
    assert prediction.status.value == "Please enter a number from 0 to 100 %."
    assert kept(my)["n"]["prediction"] == 7


def test_least_and_largest_number_can_be_predicted(my):
    prediction = predict("n", "How many?", low=0, high=100)
    for text in ("0", "100"):
        prediction.field.value = text
        assert kept(my)["n"]["prediction"] == float(text)


def test_without_a_folder_the_session_remembers(tmp_path, monkeypatch):
    monkeypatch.delenv("SPAI_MY", raising=False)
    monkeypatch.chdir(tmp_path)
    restart(monkeypatch)
    prediction = predict("n", "How many?", low=0, high=100, unit="%")
    prediction.field.value = "50"
    assert "session" in prediction.status.value
    assert list(tmp_path.iterdir()) == []
    assert repr(compare("n", 2)).startswith("You predicted 50 %, measured 2 %")


def test_current_folder_counts_if_it_is_my(tmp_path, monkeypatch):
    monkeypatch.delenv("SPAI_MY", raising=False)
    (tmp_path / "my").mkdir()
    monkeypatch.chdir(tmp_path / "my")
    restart(monkeypatch)
    predict("k", "Which?", OPTIONS).field.value = OPTIONS[0]
    assert kept(tmp_path / "my")["k"]["prediction"] == OPTIONS[0]


def test_other_content_of_the_file_stays(my):
    before = {"later": [1, 2], "predictions": {"old": {"prediction": 3, "unit": "", "when": "then"}}}
    (my / "progress.json").write_text(json.dumps(before), encoding="utf-8")
    predict("k", "Which?", OPTIONS).field.value = OPTIONS[0]
    after = json.loads((my / "progress.json").read_text(encoding="utf-8"))
    assert after["later"] == [1, 2]
    assert after["predictions"]["old"] == before["predictions"]["old"]
    assert repr(compare("old", 3)).startswith("You predicted 3, measured 3: 0 apart")


DAMAGED = {
    "cut": b'{"predictions": {"k"',
    "a list": b"[]",
    "not text": b"\xff\xfe\x00",
    "wrong entry": b'{"predictions": {"k": 5}}',
    "deep": b"[" * 100_000,
    "empty": b"",
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damaged_file_is_set_aside_with_a_notice(my, content):
    for number in (1, 2):
        (my / "progress.json").write_bytes(content)
        prediction = predict("k", "Which?", OPTIONS)
        assert f"progress-damaged-{number}.json" in prediction.status.value
        assert (my / f"progress-damaged-{number}.json").read_bytes() == content
    prediction.field.value = OPTIONS[0]
    assert kept(my)["k"]["prediction"] == OPTIONS[0]


def test_file_damaged_while_the_notebook_is_open(my):
    prediction = predict("k", "Which?", OPTIONS)
    (my / "progress.json").write_bytes(b"{")
    prediction.field.value = OPTIONS[0]
    assert "set aside" in prediction.status.value
    assert kept(my)["k"]["prediction"] == OPTIONS[0]


WRITER = """
import sys
from spai_lab.widgets.predict import Entry, record
for i in range(25):
    assert record(f"{sys.argv[1]}-{i}", Entry(float(i))).startswith("Kept."), "lost"
"""


def test_notebooks_that_write_at_once_lose_nothing(my, root):
    environment = {**os.environ, "SPAI_MY": str(my), "PYTHONPATH": str(root)}
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, name], env=environment) for name in "abc"]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0, 0]
    assert set(kept(my)) == {f"{name}-{i}" for name in "abc" for i in range(25)}
    assert [path.name for path in my.iterdir()] == ["progress.json"]


def test_lock_left_behind_is_removed_and_a_held_one_is_reported(my, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    lock = my / "progress.json.lock"
    lock.touch()
    prediction = predict("k", "Which?", OPTIONS)
    prediction.field.value = OPTIONS[0]
    assert "cannot be written" in prediction.status.value
    assert lock.exists()
    os.utime(lock, (0, 0))
    prediction.field.value = OPTIONS[1]
    assert prediction.status.value == "Kept."
    assert not lock.exists()


def test_a_folder_that_cannot_be_written_is_reported(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SPAI_MY", str(tmp_path / "file"))
    restart(monkeypatch)
    prediction = predict("k", "Which?", OPTIONS)
    prediction.field.value = OPTIONS[0]
    assert "Kept for this session" in prediction.status.value
    assert "As you predicted" in repr(compare("k", OPTIONS[0]))


def test_outcome_beside_the_prediction(my):
    predict("n", "How many?", low=0, high=100, unit="%").field.value = "50"
    predict("k", "Which?", OPTIONS).field.value = OPTIONS[1]
    assert repr(compare("n", 2.04, "The step is large.")) == (
        "You predicted 50 %, measured 2.04 %: 47.96 percentage points apart.\nThe step is large."
    )
    assert repr(compare("k", OPTIONS[0])) == "You predicted: The raw gradient. It turned out: The sign alone."
    assert repr(compare("k", OPTIONS[1])) == "✔ As you predicted: The raw gradient."
    assert "<strong>You predicted" in compare("n", 2).html


def test_no_prediction_is_told_kindly(my):
    predict("n", "How many?", low=0, high=100, unit="%")
    assert repr(compare("n", 2)) == "You made no prediction. Measured: 2 %."
    assert repr(compare("never asked", "both")) == "You made no prediction. Answer: both."


def test_live_and_static_form_come_in_one_bundle(my):
    for prediction in (predict("k", "Is `x` < 1?", OPTIONS), predict("n", "How many?", low=0, high=100, unit="%")):
        bundle = prediction._repr_mimebundle_()
        assert set(bundle) == {"text/plain", "text/html", "application/vnd.jupyter.widget-view+json"}
        assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == prediction.widget.model_id
    page = predict("k", "Is `x` < 1?", OPTIONS)._repr_mimebundle_()["text/html"]
    assert "<code>x</code> &lt; 1?" in page
    assert all(option in page for option in OPTIONS)
    assert "a number from 0 to 100 %" in bundle["text/html"]


def test_each_input_has_a_label(my):
    assert predict("k", "Which?", OPTIONS).field.description == "Your prediction:"
    assert predict("n", "How many?", low=0, high=100, unit="%").field.description == "Your prediction (%):"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"key": ""}, "key is ''; accepted: text"),
        ({"question": None}, "question is None; accepted: text"),
        ({"options": ["one"]}, "options is ['one']; accepted: two different texts or more"),
        ({"options": ["same", "same"]}, "options is ['same', 'same']; accepted: two different texts or more"),
        ({"options": "yes"}, "options is 'yes'; accepted: two different texts or more"),
        ({"options": [1, 2]}, "options is [1, 2]; accepted: two different texts or more"),
        ({"options": OPTIONS, "low": 0}, "low and high came with options"),
        ({"low": None, "high": 1}, "low is None; accepted: a finite number"),
        ({"low": 0, "high": 0}, "high is 0; accepted: a finite number above 0"),
        ({"low": 0, "high": float("nan")}, "high is nan; accepted: a finite number above 0"),
    ],
)
def test_bad_questions_are_named(my, arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        predict(**{"key": "k", "question": "Which?", **arguments})


def test_bad_outcomes_are_named(my):
    predict("k", "Which?", OPTIONS)
    with pytest.raises(ValueError, match="outcome is 'neither'; accepted: 'The sign alone'"):
        compare("k", "neither")
    with pytest.raises(ValueError, match="outcome is nan; accepted: a finite number"):
        compare("n", float("nan"))

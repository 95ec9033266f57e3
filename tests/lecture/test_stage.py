"""What differs in a lecture's kernel: an outcome waits behind a button, a source behind a fold."""

import pytest

from spai_lab.lecture.stage import compare, folded_source
from spai_lab.threat import project, steepest
from spai_lab.widgets import predict


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    monkeypatch.delenv("SPAI_MY", raising=False)
    monkeypatch.chdir(tmp_path)


def test_an_outcome_waits_for_the_button_and_knows_the_prediction_that_was_made_meanwhile():
    question = predict("lecture-test", "How much is left?", low=0, high=100, unit="%")
    outcome = compare("lecture-test", 2.0, "Little.")
    button, goes_on, said, _ = outcome.children
    assert said.value == "" and "goes on" in goes_on.value
    question.field.value = "50"
    button.click()
    assert goes_on not in outcome.children
    assert "You predicted 50 %, measured 2 %" in said.value and "Little." in said.value


def test_an_outcome_that_is_no_option_is_refused_at_once():
    predict("lecture-options", "Which?", ["a", "b"])
    with pytest.raises(ValueError, match="outcome"):
        compare("lecture-options", "c")


def test_sources_are_folded_and_named():
    page = folded_source(steepest, project).html
    assert page.startswith("<details><summary>Source: steepest, project</summary>") and page.endswith("</details>")
    assert " open" not in page.split(">")[0]

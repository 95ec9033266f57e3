"""The ledger's totals against counts by hand, and the README's copy of it."""

import inspect
import pkgutil
from importlib import import_module

import pytest

import spai_lab.survey
from spai_lab.survey import privacy
from spai_lab.survey import totals as totals_module
from spai_lab.survey.coverage import between_marks, marks, update_readme
from spai_lab.survey.ledger import OUTCOMES, Comparison, published
from spai_lab.survey.totals import COMPARED, ledger, ledger_section, ledger_table, totals, totals_sentences


def compared(name, standing="V", gap=0.0, differs=""):
    figure = {"id": name, "metric": "m", "setup": "s", "value": 0.5, "tolerance": 0.1, "source": "A 2000"}
    return Comparison(figure | {"standing": standing}, 0.5 + gap, 10, (0.4, 0.9), "ours", differs)


@pytest.fixture(scope="module")
def whole():
    return ledger()


def test_the_ledger_follows_the_file_and_has_what_the_file_has(whole):
    order = list(published())
    places = [order.index(comparison.figure["id"]) for comparison in whole]
    assert places == sorted(places)
    assert all(comparison.figure == published()[comparison.figure["id"]] for comparison in whole)


def test_what_deviates_says_why_and_nothing_else_does(whole):
    deviating = [each for each in whole if each.outcome == "deviates"]
    assert deviating and all(each.reason and each.verdict.endswith(f"; {each.reason}") for each in deviating)
    assert all(each.reason not in each.verdict for each in whole if each.reason and each.outcome != "deviates")


def test_the_reason_of_jsma_holds(whole):
    """By probabilities, all else being the same, both figures are reproduced."""
    outcomes = {
        (each.figure["id"], each.ours.rpartition(" ")[2]): each.outcome
        for each in whole
        if each.figure["row"] == "jsma"
    }
    assert outcomes == {
        (figure, kind): {"probabilities": "reproduced", "logits": "deviates"}[kind]
        for figure in ("jsma-success", "jsma-pixels")
        for kind in ("probabilities", "logits")
    }


def test_every_function_that_compares_is_in_the_ledger():
    modules = [
        import_module(f"spai_lab.survey.{found.name}") for found in pkgutil.iter_modules(spai_lab.survey.__path__)
    ]
    there = {
        value
        for module in modules
        for name, value in vars(module).items()
        if name.endswith("_compared") and inspect.getmodule(value) is module
    }
    through = {privacy.private_compared, privacy.encrypted_compared, privacy.parties_compared}
    assert there == {*COMPARED.values(), privacy.privacy_compared} | through
    assert all(function.__name__ in inspect.getsource(privacy.besides) for function in through)


def test_each_figure_counts_once_by_its_least_favorable_counterpart():
    found = [
        compared("fine"),
        compared("remembered", "M", 0.05),
        compared("off", gap=0.2),
        compared("other", differs="another network"),
        compared("elsewhere", differs="other data"),
        *(compared("torn"), compared("torn", gap=-0.3)),
        *(compared("mixed"), compared("mixed", differs="other data")),
        compared("unsure", "U"),
    ]
    figures = {each.figure["id"]: each.figure for each in found} | {"lacking": compared("lacking").figure}
    counts = totals(found, figures)
    assert (counts.figures, counts.reproduced, counts.provisional) == (9, 1, 1)
    assert (counts.deviates, counts.not_comparable, counts.none, counts.unmeasured) == (2, 3, 1, 1)
    assert (counts.divided, counts.elsewhere, counts.same_data) == (2, 1, 7)
    assert totals([], figures).unmeasured == 9


def test_the_totals_of_today_add_up_and_are_what_the_verdicts_say(whole):
    counts = totals(whole)
    kinds = (counts.reproduced, counts.provisional, counts.deviates, counts.not_comparable, counts.none)
    assert sum(kinds) + counts.unmeasured == counts.figures == len(published())
    names = {each.figure["id"] for each in whole}
    by_verdict = {word: {e.figure["id"] for e in whole if e.verdict.startswith(word)} for word in OUTCOMES}
    assert counts.deviates == len(by_verdict["deviates"])
    only = by_verdict["reproduced"] - by_verdict["deviates"] - by_verdict["not comparable"]
    assert counts.reproduced + counts.provisional == len(only)
    assert counts.unmeasured == len(published()) - len(names)
    assert counts.same_data >= 25


@pytest.mark.parametrize(
    ("comparison", "outcome"),
    [
        (compared("a", gap=0.1), "reproduced"),
        (compared("a", gap=-0.11), "deviates"),
        (compared("a", "M", differs="x"), "not comparable"),
        (compared("a", "U", differs="x"), "none"),
    ],
)
def test_an_outcome_is_the_first_word_of_its_verdict(comparison, outcome):
    assert comparison.outcome == outcome and comparison.verdict.startswith(outcome)


def test_the_table_has_every_figure_and_says_where_nothing_was_measured(whole):
    lines = ledger_table(whole).splitlines()
    assert len(lines) == 2 + len(whole) + totals(whole).unmeasured
    assert {line.count("|") for line in lines} == {7}
    few = ledger_table(whole[1:]).splitlines()
    first = published()["fgsm-softmax"]
    assert few[2].startswith(f"| {first['metric']}: {first['setup']} | 99.9 % | – | – | no measured counterpart |")


def test_a_measurement_that_is_not_there_leaves_its_figures_without_a_counterpart(monkeypatch, tmp_path):
    monkeypatch.setattr(totals_module, "results_file", lambda name: tmp_path / name)
    assert not {each.figure["id"] for each in ledger()} & {"fgsm-softmax", "jsma-success", "badnets-clean"}
    assert totals().unmeasured > 20


def test_the_readme_shows_the_ledger_of_today(root):
    begin, end = marks("ledger")
    text = (root / "README.md").read_text(encoding="utf-8")
    assert text.split(begin)[1].split(end)[0].strip() == ledger_section()
    assert totals_sentences() in text


def test_both_sections_are_written_and_the_rest_stays(root, tmp_path):
    text = (root / "README.md").read_text(encoding="utf-8")
    readme = tmp_path / "README.md"
    readme.write_text(between_marks(between_marks(text, "ledger", "old"), "coverage", "old"), encoding="utf-8")
    assert update_readme(readme) is True
    assert readme.read_text(encoding="utf-8") == text

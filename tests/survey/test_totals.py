"""The ledger's totals against counts by hand, and the README's copy of it."""

import inspect
import pkgutil
import re
from importlib import import_module

import pytest

import spai_lab.survey
from spai_lab.survey import privacy
from spai_lab.survey import totals as totals_module
from spai_lab.survey.coverage import between_marks, marks, update_readme
from spai_lab.survey.ledger import (
    COMPUTED,
    LEGEND,
    OUTCOMES,
    STANDINGS,
    TOGETHER,
    Comparison,
    comparison_line,
    published,
)
from spai_lab.survey.taxonomy import load_taxonomy
from spai_lab.survey.totals import COMPARED, ledger, ledger_section, ledger_table, totals, totals_sentences

# Stated in one commit with their measurement, by `git log -p data/published.toml`: c9993cd, c535ab2 and efe00ce.
TOLD_WITH = {
    *("badnets-all-to-all", "badnets-clean", "cleanse-before", "cleanse-after", "strip-acceptance", "clustering-f1"),
    *("pruning-after", "slab-error", "squeezing-detected", "magnet-carlini-wagner", "lid-adaptive"),
    *("distillation-jsma", "distillation-carlini-wagner", "thermometer-bpda", "defense-gan-fgsm"),
    *("defense-gan-adaptive", "cleanse-index", "pruning-speech", "pruning-signs"),
}


def compared(name, standing="V", gap=0.0, differs="", **more):
    figure = {"id": name, "metric": "m", "setup": "s", "value": 0.5, "images": 10, "tolerance": 0.1, "stated": "before"}
    figure |= {"standing": standing, "source": "A 2000", **more}
    return Comparison(figure, 0.5 + gap, 10, (0.4, 0.9), "ours", differs)


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


def test_every_figure_is_stated_in_full():
    """A letter for its standing, when it was stated, a positive sample size, a tolerance, a source."""
    for name, figure in published().items():
        assert figure["standing"] in STANDINGS and figure["stated"] in ("before", "with"), name
        assert figure["images"] > 0 and figure["tolerance"] >= 0 and figure["source"], name
        assert figure["row"] in {row.id for row in load_taxonomy()} | {"accounting"}, name
    told_with = {name for name, figure in published().items() if figure["stated"] == "with"}
    assert told_with >= TOLD_WITH


def test_a_figure_has_a_counterpart_or_the_reason_why_there_is_none(whole):
    there = {each.figure["id"] for each in whole}
    assert {name for name, figure in published().items() if "missing" in figure} == set(published()) - there


def test_what_is_recomputed_reproduces_no_experiment(whole):
    computed = {name for name, figure in published().items() if figure.get("computed")}
    assert computed == {name for name in published() if name.startswith("accounting-")} | {"equations-queries"}
    assert {each.outcome for each in whole if each.figure["id"] in computed} <= {COMPUTED, "deviates"}
    assert COMPUTED not in {each.outcome for each in whole if each.figure["id"] not in computed}
    rows = [line for line in ledger_table(whole).splitlines() if "recomputed with dp-accounting" in line]
    assert len(rows) == 6 and all("(computed) | computed alike: " in line for line in rows)


def test_another_sample_than_stated_is_said(whole):
    lines = {id(each): comparison_line(each) for each in whole if not each.figure.get("computed")}
    other = [each for each in whole if id(each) in lines and each.images != each.figure["images"]]
    assert len(other) > 25
    for each in whole:
        if id(each) in lines:
            line, stated = lines[id(each)], f"{each.figure['images']:,}"
            assert (f"of the {stated} stated" in line) == (each.images < each.figure["images"])
            assert (f", stated {stated}" in line) == (each.images > each.figure["images"])
            assert f"n = {each.images:,}" in line


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
        compared("summed", stated="with", computed=True),
        compared("missummed", "M", 0.3, computed=True),
    ]
    figures = {each.figure["id"]: each.figure for each in found} | {"lacking": compared("lacking").figure}
    counts = totals(found, figures)
    assert (counts.figures, counts.reproduced, counts.provisional, counts.computed) == (11, 1, 1, 1)
    assert (counts.deviates, counts.not_comparable, counts.none, counts.unmeasured) == (3, 3, 1, 1)
    assert (counts.divided, counts.elsewhere, counts.same_data) == (2, 1, 7)
    assert (counts.before, counts.together, counts.standings) == (9, 1, {"V": 8, "M": 2, "U": 1})
    assert totals([], figures).unmeasured == 11


def test_the_totals_of_today_add_up_and_are_what_the_verdicts_say(whole):
    counts = totals(whole)
    kinds = (counts.reproduced, counts.provisional, counts.computed, counts.deviates, counts.not_comparable)
    assert sum(kinds) + counts.none + counts.unmeasured == counts.figures == len(published())
    computed = sum("computed" in figure for figure in published().values())
    assert counts.same_data + counts.elsewhere + computed == counts.figures - counts.unmeasured
    assert counts.before + counts.together == counts.figures - counts.unmeasured
    assert sum(counts.standings.values()) == counts.figures
    names = {each.figure["id"] for each in whole}
    by_verdict = {word: {e.figure["id"] for e in whole if e.verdict.startswith(word)} for word in OUTCOMES}
    assert counts.deviates == len(by_verdict["deviates"])
    only = by_verdict["reproduced"] - by_verdict["deviates"] - by_verdict["not comparable"]
    assert counts.reproduced + counts.provisional == len(only)
    assert counts.unmeasured == len(published()) - len(names)
    assert counts.same_data >= 25


def test_the_sentences_say_every_count_of_today(whole):
    """The numbers of the first sentence, behind the first, add up to it; those of the others are the counts."""
    counts = totals(whole)
    first, data, known = ([int(n) for n in re.findall(r"\d+", line)] for line in totals_sentences(counts).splitlines())
    assert first[0] == counts.figures == sum(first[1:])
    assert data == [counts.same_data, counts.elsewhere, counts.divided]
    assert known == [*counts.standings.values(), counts.before + counts.together, counts.before, counts.together]


@pytest.mark.parametrize(
    ("comparison", "outcome"),
    [
        (compared("a", gap=0.1), "reproduced"),
        (compared("a", gap=-0.11), "deviates"),
        (compared("a", computed=True), COMPUTED),
        (compared("a", gap=-0.11, computed=True), "deviates"),
        (compared("a", "M", differs="x"), "not comparable"),
        (compared("a", "U", differs="x"), "none"),
    ],
)
def test_an_outcome_is_the_first_word_of_its_verdict(comparison, outcome):
    assert comparison.outcome == outcome and comparison.verdict.startswith(outcome)


def test_the_table_has_every_figure_and_says_where_nothing_was_measured(whole):
    *lines, empty, legend = ledger_table(whole).splitlines()
    assert len(lines) == 2 + len(whole) + totals(whole).unmeasured
    assert {line.count("|") for line in lines} == {7}
    assert (empty, legend) == ("", LEGEND)
    few = ledger_table(whole[1:]).splitlines()
    first = published()["fgsm-softmax"]
    assert few[2].startswith(f"| {first['metric']}: {first['setup']} | 99.9 % | – | – | no measured counterpart |")
    assert any("| – | – | no measured counterpart: the Purchase data are not in this book |" in line for line in few)


def test_the_table_marks_what_was_stated_with_its_measurement(whole):
    lines = ledger_table(whole).splitlines()[2:-2]
    marked = [line for line in lines if line.endswith(f") {TOGETHER} |")]
    told = {name: figure["stated"] for name, figure in published().items()}
    assert len(marked) == sum(told[each.figure["id"]] == "with" for each in whole)
    assert TOGETHER not in "".join(line for line in lines if line not in marked)
    assert all(f"{letter} {meaning}" in LEGEND for letter, meaning in STANDINGS.items()) and TOGETHER in LEGEND


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

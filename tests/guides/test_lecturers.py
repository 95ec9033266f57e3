"""The lecturer's guide says what the chapters say, and its notes fit together."""

import ast
import importlib
import inspect
import json
import re
import shutil
from types import SimpleNamespace

import pytest

from spai_lab import widgets
from spai_lab.cli import main
from spai_lab.exercises import EXERCISES
from spai_lab.exercises.exercise import sentence
from spai_lab.guides.chapters import calls, outcomes, taught
from spai_lab.guides.lecturers import course_in_words, needs, reduced, update_guide
from spai_lab.guides.teaching import FILE, Course, Notes, Session, load_teaching


@pytest.fixture(scope="module")
def guide(root):
    return (root / "docs" / "LECTURERS.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def book(root):
    return taught(root / "notebooks")


@pytest.fixture(scope="module")
def teaching():
    return load_teaching()


@pytest.fixture(scope="module")
def sources(root):
    """Two digits to the chapter's first cell and its code."""
    found = {}
    for path in sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        found[path.name[:2]] = "".join(cells[0]["source"]), code
    return found


@pytest.fixture(scope="module")
def explorables(sources):
    """Two digits to the explorables that the chapter shows."""
    known = {name for name in widgets.__all__ if (getattr(widgets, name).__doc__ or "").startswith("The explorable")}
    assert len(known) > 30
    shows = re.compile(rf"^({'|'.join(known)})\(", re.MULTILINE)
    return {number: set(shows.findall("\n".join(code))) for number, (_, code) in sources.items()}


def section(guide: str, title: str) -> str:
    return guide.split(f"\n### {title}\n")[1].split("\n### ")[0]


# --- the guide is that of today


def test_the_guide_is_current(root, tmp_path):
    copy = tmp_path / "LECTURERS.md"
    shutil.copy(root / "docs" / "LECTURERS.md", copy)
    assert update_guide(copy) is False, "run `spai-lab guides`"


def test_what_is_written_anew_is_what_stands_between_the_marks(guide, tmp_path):
    stale = tmp_path / "LECTURERS.md"
    stale.write_text(guide.replace(" minutes; needs", " hours; needs"), encoding="utf-8")
    assert stale.read_text(encoding="utf-8") != guide
    assert update_guide(stale) is True
    assert stale.read_text(encoding="utf-8") == guide


@pytest.mark.parametrize("mark", ["<!-- overview:begin -->", "<!-- chapters:end -->"])
def test_a_guide_without_a_mark_is_refused_and_stays(guide, tmp_path, mark):
    broken = tmp_path / "LECTURERS.md"
    broken.write_text(guide.replace(mark, ""), encoding="utf-8")
    before = broken.read_bytes()
    with pytest.raises(ValueError, match="lacks its marks"):
        update_guide(broken)
    assert broken.read_bytes() == before


def test_every_chapter_has_its_section_with_what_it_says_of_itself(guide, sources):
    titles = {}
    for number, (first, _) in sources.items():
        title, question = re.match(r"# (.+)", first)[1], re.search(r"^\*\*(.+?)\*\*$", first, re.MULTILINE)[1]
        minutes = re.search(r"About (\w+) minutes", first)[1].replace("ten", "10")
        here = section(guide, title)
        assert question.replace("*", "") in here and f"\n{minutes} minutes; " in here
        for aim in re.findall(r"^(?:\d\.|-) (.+)$", first, re.MULTILINE):
            assert f"\n- {aim}\n" in here
        titles[number] = title
    assert re.findall(r"^### (\d\d · .+)$", guide, re.MULTILINE) == list(titles.values())


def test_the_sums_are_those_of_the_chapters(guide, sources, book):
    minutes = [
        int(m[1].replace("ten", "10")) for m in (re.search(r"About (\w+) min", first) for first, _ in sources.values())
    ]
    asked = sum(len(re.findall(r"\bpredict\(", cell)) for _, code in sources.values() for cell in code)
    assert f"{len(minutes)} chapters, {sum(minutes):,} minutes" in guide
    assert f"{asked} predictions, {len(EXERCISES)} exercises." in guide
    assert sum(each.minutes for each in book.values()) == sum(minutes)


def test_predictions_are_those_of_the_predict_calls_each_with_its_outcome(book, sources, guide):
    for number, (_, code) in sources.items():
        asked = [call.args for cell in code for call in calls(cell, "predict")]
        assert [each.text for each in book[number].predictions] == [ast.literal_eval(text) for _, text, *_ in asked]
        for each in book[number].predictions:
            assert f"| {each.text} | {' · '.join(each.choices)} | {each.outcome} |" in guide
            assert re.fullmatch(r"(Measured|Answer): .+\.", each.outcome), each
            if each.outcome.startswith("Answer"):
                assert each.outcome.removeprefix("Answer: ").removesuffix(".") in each.choices


def test_every_wrong_answer_is_told_once_under_its_chapter(guide, book):
    for each in book.values():
        here = section(guide, each.title)
        told = [line for line in here.split("<details>")[1].splitlines() if line[:2] == "- "] if each.exercises else []
        assert told == [f"- {sentence(mistake)}" for exercise in each.exercises for mistake in exercise.mistakes]
    assert sum(len(each.exercises) for each in book.values()) == len(EXERCISES)


# --- the notes


def stated(first: str) -> set[str]:
    """The chapters that a chapter's own head says one needs."""
    found: set[int] = set()
    for words in re.findall(r"chapters? (\d+(?:(?:, | and | to )\d+)*)", first.split("You need")[-1]):
        ends = [int(number) for number in re.split(r", | and | to ", words)]
        ranges = {int(low): int(high) for low, high in re.findall(r"(\d+) to (\d+)", words)}
        found |= {k for end in ends for k in range(end, ranges.get(end, end) + 1)}
    found |= {int(number) for number in re.findall(r"chapter (\d+)'s", first)}
    return {f"{number:02d}" for number in found}


def test_stated_reads_lists_and_ranges():
    assert stated("You need chapters 1, 2 and 4; the ROC curve is chapter 9's.") == {"01", "02", "04", "09"}
    assert stated("You need chapters 02 to 04 and 07 to 08.") == {"02", "03", "04", "07", "08"}
    assert stated("You need to have trained a classifier.") == set()


def test_the_notes_know_every_chapter_that_a_chapter_says_it_needs(teaching, sources):
    assert list(teaching.notes) == list(sources)
    for number, (first, _) in sources.items():
        each = teaching.notes[number]
        assert stated(first) <= {*each.needs, *each.helps}, number
        assert set(each.needs) <= stated(first), f"{number} needs more than its head says"


def test_needs_lead_back_to_the_start_and_never_around(teaching):
    for number in teaching.notes:
        behind, fresh = set(), {number}
        while fresh:
            fresh = {need for each in fresh for need in teaching.notes[each].needs} - behind
            behind |= fresh
            assert number not in behind
        assert all(need < number for need in behind)


def test_the_drawing_keeps_what_the_table_says(teaching, book):
    arrows = reduced(teaching.notes)
    behind = {number: set() for number in teaching.notes}
    for before, after in sorted(arrows, key=lambda arrow: arrow[1]):
        behind[after] |= {before} | behind[before]
    assert all(set(each.needs) <= behind[number] for number, each in teaching.notes.items())
    assert len(arrows) < sum(len(each.needs) for each in teaching.notes.values())
    assert re.findall(r"c(\d\d) --> c(\d\d)", needs(book, teaching)) == arrows


def test_questions_are_few_and_answered_in_a_few_sentences(teaching):
    for each in teaching.notes.values():
        assert 2 <= len(each.ask) <= 3, each.id
        for question in each.ask:
            assert question.ask.endswith("?")
            assert 1 <= len(re.findall(r"[.?!](?:\s|$)", question.look_for)) <= 5, question
        assert each.glimpse.endswith(".")


def test_what_is_projected_is_in_the_chapter_and_its_control_in_the_explorable(teaching, explorables):
    for number, each in teaching.notes.items():
        for projected in each.project:
            assert projected.explorable in explorables[number], (number, projected.explorable)
            module = importlib.import_module(getattr(widgets, projected.explorable).__module__)
            labelled = rf'description=f?"{re.escape(projected.control)}\b'
            assert re.search(labelled, inspect.getsource(module)), projected


def test_every_chapter_with_an_explorable_has_one_to_project(teaching, explorables):
    assert {number for number, each in teaching.notes.items() if each.project} == {
        n for n, s in explorables.items() if s
    }


CHANGES = {
    "an unknown field": ('glimpse = "Run the first', 'glance = "Run the first', "glance"),
    "a later chapter": (
        'needs.01 = "the threat model, and eps',
        'needs.03 = "the threat model, and eps',
        "02 needs 03",
    ),
    "a chapter twice in a course": ('chapters = ["02"]\nhomework = ["fgsm", "pgd"]', 'chapters = ["01"]', "takes 01"),
    "a course out of order": ('chapters = ["03"]', 'chapters = ["04"]', "before 03"),
    "a glimpse of what is taken": ('glimpses = ["06", "08", "11"]', 'glimpses = ["02"]', "glimpses at 02"),
    "no TOML": ("[[chapter]]", "[[chapter", "not valid TOML"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_notes_that_contradict_themselves_are_refused(tmp_path, change):
    old, new, words = CHANGES[change]
    text = FILE.read_text(encoding="utf-8")
    assert old in text
    file = tmp_path / "teaching.toml"
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ValueError, match=words):
        load_teaching(file)


# --- courses


def test_a_course_counts_what_fits_what_does_not_and_what_is_free():
    book = {
        number: SimpleNamespace(title=number, minutes=minutes)
        for number, minutes in (("01", 70), ("02", 130), ("03", 40))
    }
    sessions = (Session(("01",), ("03",)), Session(("02",)))
    said = course_in_words(Course("A", 100, "week", "Short.", sessions), book)
    assert "2 weeks of 100 minutes: 200 in the room." in said
    assert "is 220 minutes long: 30 of them do not fit" in said and "leave 10 free" in said
    assert "| 1 | 01; glimpses of 03 | 90 | 0 | – |" in said and "| 2 | 02 | 130 | 30 | – |" in said
    assert "all of it fits; the lighter weeks leave 110 free" in course_in_words(
        Course("A", 100, "week", "", sessions[:1] * 2), book
    ).replace("20 free", "110 free")


def test_the_semester_takes_the_whole_book_and_each_course_says_what_it_exports(teaching, guide, book):
    semester, *others = teaching.courses
    assert sorted(number for session in semester.sessions for number in session.chapters) == list(book)
    assert len(semester.sessions) == 12 and semester.slot == 90
    assert [course.title for course in others] == ["Four weeks", "Half a day"]
    for course in teaching.courses:
        for session in course.sessions:
            assert set(session.homework) <= set(EXERCISES)
            for name in session.homework:
                assert f"`{name}`" in section(guide, course.title)


# --- reading chapters


def test_calls_are_found_whatever_stands_around_them():
    cell = '%pip install x\nif a:\n    compare(\n        "b",\n        1)\nother("c")'
    assert [call.args[0].value for call in calls(cell, "compare")] == ["b"]
    assert list(calls("if a:\n    %pip install x", "compare")) == []


def test_outcomes_come_from_the_cell_that_compares():
    def cell(source, text):
        return {"cell_type": "code", "source": source, "outputs": [{"data": {"text/plain": text}}]}

    told = ["You made no prediction. Measured: 2 %.\n", "Because."]
    cells = [cell('compare("a", 2)', told), cell("1", "You made no prediction. Answer: no."), {"cell_type": "markdown"}]
    assert outcomes({"cells": cells}) == {"a": "Measured: 2 %."}


def test_a_chapter_that_was_not_run_is_named(root, tmp_path):
    notebook = json.loads((root / "notebooks" / "01_models_and_threats.ipynb").read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if "compare(" in "".join(cell["source"]):
            cell["outputs"] = []
    (tmp_path / "01_models_and_threats.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    with pytest.raises(ValueError, match=r"01_models_and_threats\.ipynb asks '01-noise'"):
        taught(tmp_path)


def test_notes_without_needs_are_complete():
    assert Notes("00", "Look.", (), {}, {}, ()).needs == {}


# --- the command


def test_the_command_says_whether_it_wrote_and_what_is_wrong(guide, tmp_path, capsys):
    file = tmp_path / "LECTURERS.md"
    file.write_text(guide.replace("needs no other chapter", "needs nothing"), encoding="utf-8")
    assert main(["guides", "--lecturers", str(file)]) == 0 and "is now up to date" in capsys.readouterr().out
    assert main(["guides", "--lecturers", str(file)]) == 0 and "was up to date" in capsys.readouterr().out
    file.write_text("nothing", encoding="utf-8")
    assert main(["guides", "--lecturers", str(file)]) == 1 and "lacks its marks" in capsys.readouterr().err

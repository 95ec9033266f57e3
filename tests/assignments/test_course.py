"""The course on disk: the format, what students get of it, and that nothing of a lecturer's is overwritten."""

import ast
import json
import os
import re
from datetime import date

import pytest

from spai_lab.assignments import course
from spai_lab.assignments.course import export, lecturer_seed, look
from spai_lab.assignments.fresh import Hidden
from spai_lab.assignments.notebook import assignment, exercise_cells
from spai_lab.cli import main
from spai_lab.exercises import EXERCISES
from spai_lab.lecture.pages import lecture_notebook
from spai_lab.widgets.source import split_source
from spai_lab.workbook import chapters, copy_chapters, notebooks_folder, read

CHAPTERS = sorted({exercise.chapter for exercise in EXERCISES.values()})
SHORTEST = 40  # characters of a body that is surely nobody else's
KEYS = {"cell_type", "grade", "grade_id", "locked", "schema_version", "solution", "task"}  # of nbgrader's schema, v3


def of(chapter):
    return [exercise for exercise in EXERCISES.values() if exercise.chapter == chapter]


def notebook_of(chapter):
    return assignment(of(chapter), [Hidden(exercise.name, 77_000_000_001, 0) for exercise in of(chapter)], 10)


def code(notebook):
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def released(source: str) -> str:
    """What nbgrader's `ClearSolutions` and `ClearHiddenTests` leave of a cell, said again."""
    source = re.sub(r"( *)### BEGIN SOLUTION.*?### END SOLUTION", r"\1# YOUR CODE HERE\n\1raise NotImplementedError()",
                    source, flags=re.DOTALL)  # fmt: skip
    return re.sub(r"### BEGIN HIDDEN TESTS.*?### END HIDDEN TESTS", "", source, flags=re.DOTALL)


def words_of(text: str) -> str:
    """Code without its layout; quotes are alike."""
    return re.sub(r"\s+", "", text).replace("'", '"')


def body(exercise) -> str:
    """The statements of a solution that its stub lacks."""
    return words_of(split_source(exercise.solution)[2])


def solved_in(texts) -> list[str]:
    """The exercises whose solutions stand in some cells."""
    text = words_of("\n".join(texts))
    return [e.name for e in EXERCISES.values() if len(body(e)) > SHORTEST and body(e) in text]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Any seed will do here."""
    monkeypatch.setattr(course, "hidden_of", lambda exercise, seed: Hidden(exercise.name, len(seed), 0))


# --- the format


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_metadata_are_those_of_nbgrader(chapter):
    """Its schema and its validator, said again in the least words: version 3, ids, points."""
    notebook = notebook_of(chapter)
    names = []
    for cell in notebook["cells"]:
        meta = cell["metadata"]["nbgrader"]
        assert KEYS <= meta.keys() <= KEYS | {"points"}
        assert meta["schema_version"] == 3 and meta["cell_type"] == cell["cell_type"] and not meta["task"]
        assert re.fullmatch(r"[a-zA-Z0-9_\-]+", meta["grade_id"]) and meta["grade_id"] == cell["id"]
        assert meta["grade"] == ("points" in meta) and (meta["locked"] or meta["solution"])
        assert cell["cell_type"] == "code" or not (meta["grade"] or meta["solution"])
        names.append(meta["grade_id"])
    assert len(set(names)) == len(names)
    graded = [cell for cell in notebook["cells"] if cell["metadata"]["nbgrader"]["grade"]]
    assert [cell["id"] for cell in graded] == [f"{exercise.name}-test" for exercise in of(chapter)]
    assert all(cell["metadata"]["nbgrader"]["points"] == 10 for cell in graded)
    assert all("### BEGIN HIDDEN TESTS" in cell["source"] for cell in graded)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_notebooks_imports_are_all_that_its_answers_need(chapter):
    """Every name of a solution is there; the modules are those of the package and of what it installs."""
    _, imports, *cells = notebook_of(chapter)["cells"]
    namespace = {}
    exec(imports["source"], namespace)
    for cell in cells:
        if cell["id"].endswith("-answer"):
            exec(cell["source"], namespace)
    for exercise in of(chapter):
        answer = namespace[f"my_{exercise.name}"]
        needed = {name for name in answer.__code__.co_names if name in exercise.solution.__globals__}
        assert needed <= namespace.keys()
    assert "solution" not in imports["source"]


def test_a_hidden_seed_of_another_exercise_is_refused():
    with pytest.raises(ValueError, match="hidden is that of 'pgd'; accepted: that of 'fgsm'"):
        exercise_cells(EXERCISES["fgsm"], Hidden("pgd", 1, 0), 10)


@pytest.mark.parametrize("points", [0, -1, float("nan")])
def test_points_are_above_zero(points):
    with pytest.raises(ValueError, match=r"points is .*; accepted: a number above 0"):
        assignment(of("02_gradient_attacks"), [], points)


# --- what students get


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_no_solution_and_no_seed_is_in_what_is_released(chapter):
    cells = code(notebook_of(chapter))
    assert len(solved_in(cells)) >= 1, "the lecturer's source holds them"
    shown = [released(cell) for cell in cells]
    assert solved_in(shown) == []
    assert not [cell for cell in shown if "77000000001" in cell or "grade(" in cell or "assignments" in cell]
    for exercise in of(chapter):
        [answer] = [cell for cell in shown if cell.startswith(f"def my_{exercise.name}(")]
        assert ast.parse(answer).body[0].body[1:][0].exc.func.id == "NotImplementedError"
        assert answer.split("    # YOUR CODE HERE")[0].strip() in exercise.stub
        assert body(exercise) not in words_of(answer)


def test_no_solution_is_in_a_students_copy_or_in_a_lecture(tmp_path):
    """The pages of the web edition and its search index are in tests/book/test_pages.py."""
    copy_chapters(notebooks_folder(), tmp_path)
    assert len(chapters(tmp_path)) == len(chapters(notebooks_folder())) > 16
    for path in chapters(tmp_path):
        assert solved_in(code(read(path))) == [], path.name
        assert solved_in(code(lecture_notebook(read(path), "title"))) == [], path.name


# --- the files


def test_export_writes_a_course_that_nbgrader_opens(tmp_path):
    [done] = export(tmp_path, seed="autumn", chapters=["02"])
    assert done.path == tmp_path / "source" / "02_gradient_attacks" / "02_gradient_attacks.ipynb"
    assert (done.state, done.exercises) == ("written", ("fgsm", "project", "pgd"))
    assert "course_id" in (tmp_path / "nbgrader_config.py").read_text(encoding="utf-8")
    assert [path.name for path in done.path.parent.iterdir()] == [done.path.name]
    assert [exported.state for exported in export(tmp_path, seed="autumn", chapters=["02"])] == ["as it was"]


def test_an_edited_source_stays_and_the_new_one_goes_where_nbgrader_does_not_look(tmp_path):
    [done] = export(tmp_path, seed="autumn", chapters=["02"])
    (tmp_path / "nbgrader_config.py").write_text("mine", encoding="utf-8")
    done.path.write_text("edited", encoding="utf-8")
    day = date(2026, 11, 29)
    [beside] = export(tmp_path, seed="autumn", chapters=["02"], today=day)
    [other] = export(tmp_path, seed="winter is longer", chapters=["02"], today=day)
    assert done.path.read_text(encoding="utf-8") == "edited"
    assert (tmp_path / "nbgrader_config.py").read_text(encoding="utf-8") == "mine"
    assert [beside.state, other.state] == ["beside", "beside"]
    assert beside.path.parent.parent.name == "source (new 2026-11-29)"
    assert other.path.parent.parent.name == "source (new 2026-11-29, 2)"
    assert [exported.state for exported in export(tmp_path, seed="autumn", chapters=["02"], today=day)] == ["as it was"]


def test_the_courses_seed_is_drawn_once_and_is_for_its_owner(tmp_path):
    seed = lecturer_seed(tmp_path)
    assert len(seed) == 32 and lecturer_seed(tmp_path) == seed != lecturer_seed(tmp_path / "other")
    assert os.name == "nt" or (tmp_path / "lecturer_seed.txt").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seed": " "}, "seed is empty; accepted: a number or some words"),
        ({"chapters": ["99"]}, "chapters holds '99'; accepted: beginnings of 01_models_and_threats"),
    ],
)
def test_what_cannot_be_exported_is_named(tmp_path, given, message):
    with pytest.raises(ValueError, match=message):
        export(tmp_path, **{"seed": "autumn", **given})
    assert not any(tmp_path.iterdir())


def submit(folder, student, *sources):
    path = folder / "submitted" / student / "02_gradient_attacks" / "02_gradient_attacks.ipynb"
    path.parent.mkdir(parents=True)
    cells = [{"cell_type": "code", "source": source, "metadata": {}, "outputs": []} for source in sources]
    path.write_text(json.dumps({"cells": cells, "nbformat": 4, "metadata": {}}), encoding="utf-8")


def test_look_lists_who_borrowed(tmp_path, capsys):
    submit(tmp_path, "ann", "def my_fgsm(model, x, y, eps):\n    return x")
    submit(tmp_path, "ben", "my_fgsm = EXERCISES['fgsm'].solution")
    assert [(found.student, found.chapter) for found in look(tmp_path)] == [("ben", "02_gradient_attacks")] * 2
    assert main(["assignments", "look", str(tmp_path)]) == 0
    assert "ben, 02_gradient_attacks: a cell reads `EXERCISES`" in capsys.readouterr().out
    (tmp_path / "submitted/ann/02_gradient_attacks/02_gradient_attacks.ipynb").write_text("torn", encoding="utf-8")
    assert look(tmp_path)[0].sentence == "the file is not a notebook that could be read."


def test_the_command_exports_lists_and_says_what_is_wrong(tmp_path, capsys):
    folder = tmp_path / "course"
    assert main(["assignments", "export", str(folder), "--chapters", "02", "--points", "4"]) == 0
    said = capsys.readouterr().out
    assert "02_gradient_attacks: 3 exercises, written to" in said and "nbgrader generate_assignment 02_gra" in said
    assert (folder / "lecturer_seed.txt").exists()
    (tmp_path / "seed").write_text("mine\n", encoding="utf-8")
    assert main(["assignments", "export", str(folder), "--chapters", "01", "--seed-file", str(tmp_path / "seed")]) == 0
    assert main(["assignments", "look", str(folder)]) == 1
    assert "accepted: a course with notebooks in submitted/STUDENT/CHAPTER/" in capsys.readouterr().err
    assert main(["assignments", "list"]) == 0
    assert capsys.readouterr().out.count("\n") == len(EXERCISES)

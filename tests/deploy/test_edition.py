"""The edition that a hub shows: complete, without the source of answers, updated whole, and it runs."""

import importlib.util
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from spai_lab.exercises import EXERCISES
from spai_lab.widgets.source import split_source


@pytest.fixture(scope="module")
def program(root):
    spec = importlib.util.spec_from_file_location("edition", root / "deploy" / "edition.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def edition(program, root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("opt") / "spai-lab"
    program.write_edition(root, folder)
    return folder


def run_in(edition, script):
    """What Python prints in the edition, which has no other `spai_lab` around it."""
    variables = {**os.environ, "PYTHONPATH": str(edition), "PYTHONDONTWRITEBYTECODE": "1"}
    answer = subprocess.run(
        [sys.executable, "-c", script], cwd=edition, env=variables, capture_output=True, encoding="utf-8"
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def squeezed(text):
    """A text without space, so that neither line breaks nor indents hide it."""
    return "".join(text.split())


def test_no_file_holds_the_source_of_an_answer(edition):
    """Beyond what chapters and package show anyway, which the methods themselves are."""
    shown = {path: squeezed(path.read_bytes().decode(errors="ignore")) for path in edition.rglob("*") if path.is_file()}
    elsewhere = "".join(text for path, text in shown.items() if "exercises" not in path.parts)
    exercises = "".join(text for path, text in shown.items() if "exercises" in path.parts)
    bodies = {name: squeezed(split_source(exercise.solution)[2]) for name, exercise in EXERCISES.items()}
    assert len(bodies) > 60 and all(len(body) > 8 for body in bodies.values())
    assert [name for name, body in bodies.items() if body in exercises] == []
    taught = [name for name, body in bodies.items() if body in elsewhere]
    assert len(taught) <= 3, f"answers that stand in the package word for word: {taught}"


def test_an_answer_left_in_would_be_seen(root):
    body = squeezed(split_source(EXERCISES["fgsm"].solution)[2])
    assert body in squeezed((root / "spai_lab" / "exercises" / "chapter_02.py").read_text(encoding="utf-8"))


def test_every_exercise_is_stated_judged_and_hinted_at_and_its_answer_withheld(edition):
    script = (
        "import json, spai_lab\n"
        "from spai_lab.exercises import EXERCISES, hint, solution, stub, task\n"
        "from spai_lab.exercises.exercise import judge\n"
        "print(json.dumps({'place': spai_lab.__file__, 'exercises': {name: [stub(name), str(task(name)), "
        "str(hint(name)), repr(solution(name)), judge(exercise, exercise.solution if not exercise.wants_number else "
        "exercise.solution()).verdict] for name, exercise in EXERCISES.items()}}))"
    )
    answer = json.loads(run_in(edition, script))
    assert Path(answer["place"]).is_relative_to(edition)
    assert answer["exercises"].keys() == EXERCISES.keys()
    for name, (stub, task, hint, solution, verdict) in answer["exercises"].items():
        exercise = EXERCISES[name]
        assert stub == exercise.stub and verdict == "passed"
        assert inspect.cleandoc(exercise.task) in task and hint.startswith("Hint 1 of ")
        assert "Your lecturer keeps the answer" in solution and "return" not in solution


def test_a_mistake_gets_the_sentence_meant_for_it(edition):
    script = (
        "from spai_lab.exercises import check\ndef my_fgsm(model, x, y, eps):\n    return x\nprint(check.fgsm(my_fgsm))"
    )
    from spai_lab.exercises import check

    def my_fgsm(model, x, y, eps):
        return x

    assert run_in(edition, script).strip() == repr(check.fgsm(my_fgsm))


def test_it_holds_what_students_need_and_neither_tests_nor_history(edition, root):
    there = {path.relative_to(edition).as_posix() for path in edition.rglob("*") if path.is_file()}
    chapters = {f"notebooks/{path.name}" for path in (root / "notebooks").glob("*.ipynb")}
    assert there >= chapters | {"LICENSE", "run.py", "pyproject.toml", "data/weights/manifest.json"}
    assert not [name for name in there if name.startswith(("tests", "benchmarks", ".git/", "my/"))]


def test_an_update_writes_what_changed_and_removes_what_left(program, root, tmp_path):
    folder = tmp_path / "edition"
    program.write_edition(root, folder)
    assert program.write_edition(root, folder) == (0, 0)
    before = (folder / "run.py").stat().st_mtime_ns
    (folder / "README.md").write_text("older", encoding="utf-8")
    (folder / ".venv").mkdir()
    (folder / ".venv" / "python").touch()
    (folder / "notebooks" / "99_gone.ipynb").touch()
    names = json.loads((folder / program.LIST).read_text())
    (folder / program.LIST).write_text(json.dumps([*names, "notebooks/99_gone.ipynb"]))
    assert program.write_edition(root, folder) == (1, 1)
    assert (folder / "README.md").read_bytes() == (root / "README.md").read_bytes()
    assert not (folder / "notebooks" / "99_gone.ipynb").exists() and (folder / ".venv" / "python").exists()
    assert (folder / "run.py").stat().st_mtime_ns == before, "what did not change stays as it is"


def test_an_edition_can_be_carried_on_as_an_image_does(program, edition, tmp_path):
    carried = tmp_path / "carried"
    program.write_edition(edition, carried)
    source = Path("spai_lab/exercises/chapter_02.pyc")
    assert (carried / source).read_bytes() == (edition / source).read_bytes()
    assert not list(carried.rglob("chapter_02.py"))


def test_foreign_folders_are_refused(program, root, tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match="holds other files"):
        program.write_edition(root, tmp_path)
    with pytest.raises(ValueError, match="outside of the project"):
        program.write_edition(root, root / "build" / "edition")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_interrupted_write_leaves_the_old_file(program, tmp_path, monkeypatch):
    file = tmp_path / "a"
    file.write_bytes(b"old")
    monkeypatch.setattr(Path, "chmod", lambda *_: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(OSError):
        program.write_whole(file, b"new")
    assert file.read_bytes() == b"old" and [path.name for path in tmp_path.iterdir()] == ["a"]

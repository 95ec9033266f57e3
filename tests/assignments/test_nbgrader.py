"""With nbgrader itself: its validators, its release, and what its grading gives five students."""

import csv
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from spai_lab.assignments.course import chosen, export, look
from spai_lab.assignments.fresh import Hidden
from spai_lab.assignments.notebook import assignment
from spai_lab.exercises import EXERCISES
from spai_lab.widgets.source import split_source
from spai_lab.workbook import normalize, read, to_bytes

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("nbgrader") is None, reason='nbgrader is not here: pip install -e ".[assignments]"'
)
CHAPTER = "02_gradient_attacks"
BY_HEART = """
from itertools import cycle
from spai_lab.exercises import check
known = {known}
results = cycle(torch.tensor(result) for result in known)

def my_{name}(*given):
    return next(results)
"""
RIGHT = {
    "fgsm": """
def my_fgsm(model, x, y, eps):
    result = torch.empty_like(x)
    for i in range(len(x)):
        image = x[i : i + 1].detach().clone().requires_grad_(True)
        (-F.log_softmax(model(image), dim=1)[0, y[i]]).backward()
        result[i] = (image + eps * image.grad.sign()).clamp(0, 1)[0]
    print("careful", file=__import__("sys").stderr)
    return result.detach()
""",
    "project": """
def my_project(x_adv, x, eps):
    return torch.tensor(np.clip(np.clip(x_adv.numpy(), x.numpy() - eps, x.numpy() + eps), 0, 1))
""",
    "pgd": """
from spai_lab.attacks.evasion import bim

def my_pgd(model, x, y, eps, step_size, steps):
    return bim(model, x, y, eps=eps, step_size=step_size, steps=steps)
""",
}


def mistaken(exercise) -> str:
    """The first typical mistake as a student would have written it."""
    head, _, body = split_source(exercise.mistakes[0])
    helpers = "\n".join(split_source(EXERCISES["fgsm"].mistakes[0].__globals__["gradient_of"]))
    return f"{helpers}\n\n{head}\n{body}".replace(f"def {exercise.mistakes[0].__name__}", f"def my_{exercise.name}")


def remembered(exercise) -> str:
    """The results of the visible cases, written down."""
    results = [exercise.solution(*case.values()).tolist() for case in exercise.cases()]
    return BY_HEART.format(known=results, name=exercise.name)


STUDENTS = {
    "right": lambda exercise: RIGHT[exercise.name],
    "wrong": mistaken,
    "hard-coded": remembered,
    "empty": None,
    "borrowing": lambda exercise: (
        f"from spai_lab.exercises import EXERCISES\nmy_{exercise.name} = EXERCISES['{exercise.name}'].solution"
    ),
}


@pytest.mark.parametrize("chapter", chosen([]))
def test_its_validators_accept_every_chapter(chapter):
    from nbgrader.nbgraderformat import reads

    exercises = chosen([chapter])[chapter]
    source = assignment(exercises, [Hidden(exercise.name, 5, 0) for exercise in exercises], 10)
    reads(to_bytes(normalize(source)).decode(), as_version=4)


@pytest.mark.parametrize("chapter", chosen([]))
def test_its_release_holds_no_solution_and_no_seed(chapter):
    import nbformat
    from nbgrader.preprocessors import ClearHiddenTests, ClearSolutions

    exercises = chosen([chapter])[chapter]
    source = assignment(exercises, [Hidden(exercise.name, 77_000_000_001, 0) for exercise in exercises], 10)
    notebook, resources = nbformat.reads(to_bytes(normalize(source)).decode(), as_version=4), {}
    for preprocessor in (ClearSolutions, ClearHiddenTests):
        notebook, resources = preprocessor().preprocess(notebook, resources)
    text = "\n".join(cell["source"] for cell in notebook.cells)
    assert "77000000001" not in text and "assignments" not in text and "SOLUTION" not in text
    assert text.count("raise NotImplementedError()") == len(exercises)
    for exercise in exercises:
        assert split_source(exercise.solution)[2] not in text


def nbgrader(course: Path, *arguments: str) -> str:
    """Run one of its commands in a course; what it said.

    Its own commands call `alembic`, which is looked for beside the interpreter.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    answer = subprocess.run(
        [sys.executable, "-m", "nbgrader", *arguments],
        cwd=course,
        env={**os.environ, "PATH": path},
        capture_output=True,
        encoding="utf-8",
        timeout=600,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout + answer.stderr


def hand_in(course: Path, student: str, write) -> None:
    """What a student makes of the released notebook."""
    notebook = read(course / "release" / CHAPTER / f"{CHAPTER}.ipynb")
    for cell in notebook["cells"]:
        name = cell["id"].removesuffix("-answer")
        if write and name in EXERCISES:
            cell["source"] = write(EXERCISES[name])
    target = course / "submitted" / student / CHAPTER / f"{CHAPTER}.ipynb"
    target.parent.mkdir(parents=True)
    target.write_bytes(to_bytes(notebook))


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """A course that was exported, released, handed in by five students, graded and exported again; all by nbgrader."""
    course = tmp_path_factory.mktemp("course")
    export(course, seed="autumn", chapters=["02"])
    nbgrader(course, "generate_assignment", CHAPTER)
    for student, write in STUDENTS.items():
        hand_in(course, student, write)
    nbgrader(course, "autograde", CHAPTER)
    nbgrader(course, "export")
    return course


def outputs(course: Path, student: str, name: str) -> str:
    """What the cell that counts has said."""
    cells = read(course / "autograded" / student / CHAPTER / f"{CHAPTER}.ipynb")["cells"]
    [cell] = [cell for cell in cells if cell["id"] == name]
    return json.dumps(cell["outputs"], ensure_ascii=False)


@pytest.mark.full
def test_points_of_five_students(graded):
    with (graded / "grades.csv").open(encoding="utf-8") as file:
        points = {row["student_id"]: (float(row["score"]), float(row["max_score"])) for row in csv.DictReader(file)}
    print(points)
    assert points == {
        "right": (30, 30),
        "wrong": (0, 30),
        "hard-coded": (0, 30),
        "empty": (0, 30),
        "borrowing": (30, 30),
    }


@pytest.mark.full
def test_each_hears_why(graded):
    assert "✔ Passed: fgsm" in outputs(graded, "right", "fgsm-test")
    assert "clip the result to the range of images" in outputs(graded, "wrong", "fgsm-test")
    assert "Not right yet: project" in outputs(graded, "hard-coded", "project-test")
    assert "✔ Passed: project" in outputs(graded, "hard-coded", "project-check"), "it knows what it has seen"
    assert "Not attempted yet: pgd" in outputs(graded, "empty", "pgd-test")


@pytest.mark.full
def test_the_grader_hears_who_borrowed(graded):
    assert "For the grader: a cell reads `EXERCISES`" in outputs(graded, "borrowing", "fgsm-test")
    assert {found.student for found in look(graded)} == {"borrowing"}
    for student in ("right", "wrong", "hard-coded", "empty"):
        assert "For the grader" not in outputs(graded, student, "fgsm-test")


@pytest.mark.full
def test_the_release_tells_neither_the_seed_nor_a_solution(graded):
    text = "".join(path.read_text(encoding="utf-8") for path in (graded / "release").rglob("*.ipynb"))
    assert "seed" not in text and "SOLUTION" not in text and "requires_grad_()" not in text
    assert text.count("raise NotImplementedError()") == 3
    assert not list((graded / "release").rglob("*seed*"))

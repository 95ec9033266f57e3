"""What counts: full points for right answers of any style, none for wrong, empty and known ones, and who borrowed."""

import sys
import warnings

import pytest
import torch

from spai_lab.assignments.borrowed import borrowed, written_here
from spai_lab.assignments.fresh import by_heart
from spai_lab.assignments.grading import grade
from spai_lab.exercises import EXERCISES

SEED = 20261129


def other_style(x_adv, x, eps):
    return torch.minimum(torch.maximum(x_adv.clamp(0, 1), x - eps), x + eps)


def test_a_right_answer_of_another_style_is_praised(capsys):
    grade("project", other_style, seed=SEED, sources=())
    assert capsys.readouterr().out.splitlines() == [
        "✔ Passed: project",
        "  Tested: inputs that were drawn for grading.",
    ]


def test_an_empty_answer_has_no_points():
    def my_project(x_adv, x, eps):
        raise NotImplementedError()

    with pytest.raises(AssertionError, match="Not attempted yet"):
        grade("project", my_project, seed=SEED)


def test_a_typical_mistake_has_no_points_and_is_told():
    with pytest.raises(AssertionError, match="a cube: each pixel is clipped by itself"):
        grade("project", EXERCISES["project"].mistakes[3], seed=SEED)


def test_results_known_by_heart_have_no_points():
    with pytest.raises(AssertionError, match="Not right yet"):
        grade("project", by_heart(EXERCISES["project"]), seed=SEED)


def test_what_a_right_answer_says_on_the_error_stream_costs_nothing(capsys):
    """nbgrader gives no points to a cell that wrote there."""

    def warns(x_adv, x, eps):
        warnings.warn("careful", stacklevel=1)
        print("walking", file=sys.stderr)
        return other_style(x_adv, x, eps)

    grade("project", warns, seed=SEED, sources=())
    assert capsys.readouterr().err == ""


def test_an_answer_that_ends_the_program_has_no_points():
    with pytest.raises(AssertionError, match="ends the program"):
        grade("project", lambda *_: sys.exit(), seed=SEED)


def test_an_exercise_that_there_is_not_is_named():
    with pytest.raises(ValueError, match="did you mean project"):
        grade("projekt", other_style, seed=SEED)


def test_the_grader_reads_who_borrowed(capsys):
    grade("project", other_style, seed=SEED, sources=["a = EXERCISES['project'].solution"])
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("For the grader: ")]
    assert told == [
        "For the grader: a cell reads `EXERCISES`, the exercises with their solutions.",
        "For the grader: a cell reads `solution`, a solution.",
    ]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("from spai_lab.exercises import EXERCISES as E", "EXERCISES"),
        ("import spai_lab.exercises.chapter_02 as c", "spai_lab.exercises.chapter_02"),
        ("from spai_lab.exercises.chapter_02 import my_fgsm", "spai_lab.exercises.chapter_02"),
        ("from spai_lab import exercises", "spai_lab.exercises"),
        ("import importlib\nimportlib.import_module('spai_lab.exercises')", "spai_lab.exercises"),
        ("from spai_lab.exercises import solution\nsolution('fgsm')", "solution"),
        ("solution('fgsm')", "solution"),
        ("from spai_lab.assignments import fresh", "spai_lab.assignments"),
        ("import sys\nsys._getframe(1).f_back", "_getframe"),
        ("%time x = solution('fgsm')\nthis does not parse EXERCISES", "EXERCISES"),
    ],
)
def test_what_answers_do_not_need_is_named(source, name):
    assert any(f"`{name}`" in told for told in borrowed([source]))


@pytest.mark.parametrize(
    "source",
    [
        "from spai_lab.exercises import check, hint, task, stub",
        "from spai_lab.attacks.evasion import fgsm\nsolution = fgsm(model, x, y, eps=0.1)",
        "truth = 3\nprint(truth)",
        "%matplotlib inline\nimport torch",
    ],
)
def test_what_answers_may_use_is_not(source):
    assert borrowed([source]) == []


def test_only_the_cells_that_grade_are_passed_over():
    ours = "# Points\nfrom spai_lab.assignments.grading import grade\n\ngrade('fgsm', my_fgsm, seed=3)"
    assert written_here(ours)
    assert not written_here(f"{ours}\nx = EXERCISES")
    assert not written_here("grade(EXERCISES['fgsm'].solution)")
    assert not written_here("")

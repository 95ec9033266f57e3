"""One chapter's exercises as the source of an nbgrader assignment: what a lecturer keeps, solutions and seeds included.

nbgrader's `generate_assignment` makes the students' copy of it, without what stands between `### BEGIN SOLUTION` and
`### END SOLUTION` and between `### BEGIN HIDDEN TESTS` and `### END HIDDEN TESTS`.
"""

import inspect
from collections.abc import Iterable, Sequence
from types import CodeType, ModuleType

from spai_lab.assignments.fresh import Hidden
from spai_lab.exercises.exercise import Exercise
from spai_lab.widgets.source import split_source
from spai_lab.workbook import KERNEL, LANGUAGE

SCHEMA = 3  # of nbgrader's metadata
FIRST = {"import math", "import numpy as np", "import torch", "import torch.nn.functional as F"}
INTRODUCTION = """\
# {title}: assignment

Write the code where a cell raises an error, run it, then run the check below it: it says what is wrong, and may be run
as often as you like. `hint("{first}")` helps. Your points come from the same judge on other inputs: an answer that
knows the results of the check by heart has none."""


def assignment(exercises: Sequence[Exercise], hidden: Sequence[Hidden], points: float) -> dict:
    """The notebook of one chapter, in the format of nbgrader's `source` folder.

    Args:
        exercises: of one chapter, in their order.
        hidden: the seed of each one's hidden cases.
        points: for each exercise.
    Returns:
        a notebook of format 4.
    Raises:
        ValueError: there are no exercises, or points is not above 0.
    """
    if not exercises:
        raise ValueError("exercises is empty; accepted: one exercise or more")
    if not points > 0:
        raise ValueError(f"points is {points!r}; accepted: a number above 0")
    introduction = INTRODUCTION.format(title=title(exercises[0].chapter), first=exercises[0].name)
    cells = [
        markdown_cell("introduction", introduction),
        code_cell("imports", "\n".join(imports(exercises)), locked=True),
    ]
    for exercise, drawn in zip(exercises, hidden, strict=True):
        cells += exercise_cells(exercise, drawn, points)
    metadata = {"kernelspec": dict(KERNEL), "language_info": dict(LANGUAGE)}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def title(chapter: str) -> str:
    """A chapter's title as its file's name tells it.

    >>> title("02_gradient_attacks")
    '02 · Gradient attacks'
    """
    number, _, words = chapter.partition("_")
    return f"{number} · {words.replace('_', ' ').capitalize()}"


def exercise_cells(exercise: Exercise, hidden: Hidden, points: float) -> list[dict]:
    """The four cells of an exercise: what is asked, the answer, the check that a student sees, and the one that counts.

    Raises:
        ValueError: hidden belongs to another exercise.
    """
    name = exercise.name
    if hidden.name != name:
        raise ValueError(f"hidden is that of {hidden.name!r}; accepted: that of {name!r}")
    head, docstring, body = split_source(exercise.solution)
    answer = "\n".join([head, docstring, "    ### BEGIN SOLUTION", body, "    ### END SOLUTION"])
    if exercise.wants_number:
        answer = f"### BEGIN SOLUTION\nmy_{name} = {exercise.solution()!r}\n### END SOLUTION"
    graded = [
        f"# Points for my_{name}: this cell tries it on other inputs. Leave it as it is.",
        "### BEGIN HIDDEN TESTS",
        "from spai_lab.assignments.grading import grade",
        "",
        f'grade("{name}", my_{name}, seed={hidden.seed})',
        "### END HIDDEN TESTS",
    ]
    return [
        markdown_cell(f"{name}-task", inspect.cleandoc(exercise.task)),
        code_cell(f"{name}-answer", answer, solution=True),
        code_cell(f"{name}-check", f"check.{name}(my_{name})", locked=True),
        code_cell(f"{name}-test", "\n".join(graded), locked=True, points=points),
    ]


def markdown_cell(name: str, text: str) -> dict:
    """A text that students cannot change."""
    return {"cell_type": "markdown", "id": name, "metadata": nbgrader(name, "markdown", locked=True), "source": text}


def code_cell(name: str, source: str, *, locked: bool = False, solution: bool = False, points: float = 0) -> dict:
    """Code, with what nbgrader needs to know of it."""
    metadata = nbgrader(name, "code", locked=locked, solution=solution, points=points)
    empty = {"execution_count": None, "outputs": []}
    return {"cell_type": "code", "id": name, "metadata": metadata, "source": source, **empty}


def nbgrader(name: str, kind: str, *, locked: bool, solution: bool = False, points: float = 0) -> dict:
    """A cell's metadata in version 3 of nbgrader's schema; graded is what has points."""
    known = {
        "cell_type": kind,
        "grade": points > 0,
        "grade_id": name,
        "locked": locked,
        "schema_version": SCHEMA,
        "solution": solution,
        "task": False,
    }
    return {"nbgrader": known | ({"points": points} if points > 0 else {})}


def imports(exercises: Iterable[Exercise]) -> list[str]:
    """The lines with which all solutions of a chapter run, and what answers of other styles usually need."""
    lines = set(FIRST)
    for exercise in exercises:
        known = exercise.solution.__globals__
        lines |= {import_of(name, known[name]) for name in names(exercise.solution.__code__) if name in known}
    ours = {line for line in lines if "spai_lab" in line} | {"from spai_lab.exercises import check, hint"}
    return [*sorted(lines - ours), "", *sorted(ours)]


def import_of(name: str, value: object) -> str:
    """The line that brings a module, or what a module defines, under its name.

    >>> import torch.nn.functional
    >>> import_of("F", torch.nn.functional), import_of("torch", torch), import_of("title", title)
    ('import torch.nn.functional as F', 'import torch', 'from spai_lab.assignments.notebook import title')
    """
    if isinstance(value, ModuleType):
        return f"import {name}" if value.__name__ == name else f"import {value.__name__} as {name}"
    return f"from {value.__module__} import {name}"


def names(code: CodeType) -> set[str]:
    """The global names that a function, and the functions in it, may use."""
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*map(names, inner))

"""What an autograded cell calls: the judge, on inputs that nobody has seen, in the words of the exercise."""

import io
import sys
import warnings
from collections.abc import Iterable
from contextlib import redirect_stderr
from dataclasses import replace

from spai_lab.assignments.borrowed import borrowed, written_here
from spai_lab.assignments.fresh import under_seed
from spai_lab.exercises import find
from spai_lab.exercises.exercise import judge

TESTED = "inputs that were drawn for grading"


def grade(name: str, answer: object, *, seed: int, sources: Iterable[str] | None = None) -> None:
    """Say what an answer does on the hidden cases of a seed; nbgrader gives no points to a cell that raises.

    Nothing reaches the error stream, for which nbgrader would take the points away: a right answer may warn.

    Args:
        name: of the exercise.
        answer: the student's.
        seed: of the hidden cases, as `spai-lab assignments export` wrote it.
        sources: cells in which the answer may have borrowed; those that this kernel ran if left out.
    Raises:
        AssertionError: the answer is wrong, or there is none; in the words of the judge.
        ValueError: there is no such exercise, or the seed is out of range.

    >>> grade("wilson", find("wilson").solution, seed=3, sources=())
    ✔ Passed: wilson
      Tested: inputs that were drawn for grading.
    """
    exercise = replace(under_seed(find(name), seed), tested=TESTED)
    for found in borrowed(ran() if sources is None else sources):
        print(f"For the grader: {found}")
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            feedback = judge(exercise, answer)
        except SystemExit:
            raise AssertionError(f"✘ Not right yet: {name}\n  It ends the program, rather than to return.") from None
    if feedback.verdict != "passed":
        raise AssertionError(str(feedback))
    print(feedback)


def ran() -> list[str]:
    """The cells that this kernel has run, but for those that grade; none outside a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    cells = shell.user_ns.get("In", []) if shell is not None else []
    return [cell for cell in cells if not written_here(cell)]

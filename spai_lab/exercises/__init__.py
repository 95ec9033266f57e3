"""The exercises of the workbook: `task` states one, `check` judges an answer, `hint` and `solution` help when asked."""

import difflib
import inspect
import re
from collections import Counter

from spai_lab.exercises import (
    chapter_01,
    chapter_02,
    chapter_03,
    chapter_04,
    chapter_05,
    chapter_06,
    chapter_07,
    chapter_08,
    chapter_09,
    chapter_10,
    chapter_11,
    chapter_12,
    chapter_13,
    chapter_14,
    chapter_15,
    chapter_16,
    chapter_17,
)
from spai_lab.exercises.exercise import Exercise, Feedback, judge
from spai_lab.widgets.shown import Shown
from spai_lab.widgets.source import source_box, split_source

__all__ = ["EXERCISES", "check", "hint", "solution", "stub", "task"]

CHAPTERS = (
    *(chapter_01, chapter_02, chapter_03, chapter_04, chapter_05),
    *(chapter_06, chapter_07, chapter_08, chapter_09, chapter_10),
    *(chapter_11, chapter_12, chapter_13, chapter_14, chapter_15),
    *(chapter_16, chapter_17),
)
EXERCISES: dict[str, Exercise] = {exercise.name: exercise for chapter in CHAPTERS for exercise in chapter.EXERCISES}


def find(name: str) -> Exercise:
    """The exercise of that name.

    Raises:
        ValueError: there is none; lists those that there are, chapter by chapter.
    """
    if name in EXERCISES:
        return EXERCISES[name]
    close = difflib.get_close_matches(str(name), EXERCISES, n=1)
    chapters = sorted({exercise.chapter for exercise in EXERCISES.values()})
    if close:
        chapters = [EXERCISES[close[0]].chapter]
    listed = "; ".join(
        f"{chapter} has {', '.join(name for name, exercise in EXERCISES.items() if exercise.chapter == chapter)}"
        for chapter in chapters
    )
    guess = f" (did you mean {close[0]}?)" if close else ""
    raise ValueError(f"name is {name!r}; accepted: the name of an exercise{guess}: {listed}")


WITHHELD = "raise NotImplementedError"  # all that the edition of a hub holds of an answer


class Check:
    """`check.<name>(answer)` judges an answer to the exercise of that name.

    >>> def my_fgsm(model, x, y, eps):
    ...     raise NotImplementedError
    >>> check.fgsm(my_fgsm)
    ○ Not attempted yet: fgsm
      Write my_fgsm; hint("fgsm") helps.
    """

    def __getattr__(self, name: str) -> "Checker":
        try:
            return Checker(find(name))
        except ValueError as error:
            raise AttributeError(str(error)) from None

    def __dir__(self) -> list[str]:
        return list(EXERCISES)


class Checker:
    """The judge of one exercise, to be called with an answer."""

    def __init__(self, exercise: Exercise) -> None:
        self.exercise = exercise
        self.__doc__ = exercise.task

    def __call__(self, answer: object = None) -> Feedback:
        return judge(self.exercise, answer)

    def __repr__(self) -> str:
        return f"check.{self.exercise.name}(my_{self.exercise.name}) judges your answer."


check = Check()
hints_given: Counter[str] = Counter()


def task(name: str) -> Shown:
    """The task of an exercise."""
    text = inspect.cleandoc(find(name).task)
    return Shown(text, markdown=text)


def hint(name: str) -> Shown:
    """The first hint to an exercise; the next one with each further call."""
    hints = find(name).hints
    number = min(hints_given[name] + 1, len(hints))
    hints_given[name] = number
    end = f' The last one: `solution("{name}")` shows an answer.' if number == len(hints) else ""
    text = f"**Hint {number} of {len(hints)}.** {hints[number - 1]}{end}"
    return Shown(re.sub(r"\*\*(?=\S)(.+?)(?<=\S)\*\*|`", r"\1", text), markdown=text)


def solution(name: str) -> Shown:
    """One right answer to an exercise, highlighted; in a hub's edition a sentence that says who has it."""
    parts = split_source(find(name).solution)
    if parts[-1].strip() == WITHHELD:
        return Shown(f'Your lecturer keeps the answer to {name}; hint("{name}") helps.')
    return Shown("\n".join(filter(None, parts)), html=source_box(*parts, where="", name=f"my_{name}"))


def stub(name: str) -> str:
    """The source of the notebook's cell before a student writes in it, for authors of chapters."""
    return find(name).stub

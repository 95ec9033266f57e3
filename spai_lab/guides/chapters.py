"""What a chapter says of itself to whoever teaches it: question, minutes, aims, predictions and what came out."""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spai_lab.exercises import EXERCISES
from spai_lab.exercises.exercise import Exercise
from spai_lab.poll.book import questions_of
from spai_lab.workbook import chapter_of, chapters, read

AIM = re.compile(r"^(?:\d\.|-) (.+)$", re.MULTILINE)
NOBODY = "You made no prediction. "


@dataclass(frozen=True)
class Prediction:
    """A question that a chapter asks before it measures.

    Args:
        text: the question.
        choices: what may be answered, in words.
        outcome: what came out in the stored run, such as "Measured: 2 %."
    """

    text: str
    choices: tuple[str, ...]
    outcome: str


@dataclass(frozen=True)
class Taught:
    """One chapter, for the lecturer.

    Args:
        name: stem of its notebook.
        title: such as "02 · Gradient attacks".
        question: its opening question.
        minutes: what it says that it takes.
        aims: what one can do afterwards.
        predictions: its questions, in their order.
        exercises: its exercises, in their order.
    """

    name: str
    title: str
    question: str
    minutes: int
    aims: tuple[str, ...]
    predictions: tuple[Prediction, ...]
    exercises: tuple[Exercise, ...]

    @property
    def number(self) -> str:
        """The chapter's two digits."""
        return self.name[:2]


def taught(folder: Path) -> dict[str, Taught]:
    """The chapters of a folder by their numbers, in their order.

    Args:
        folder: of the masters, with their stored outputs.
    Returns:
        two digits to chapter.
    Raises:
        ValueError: a chapter lacks its minutes or its aims, or was not run; names it.
    """
    return {path.stem[:2]: _taught(path) for path in chapters(folder)}


def _taught(path: Path) -> Taught:
    listed, notebook = chapter_of(path), read(path)
    aims = tuple(AIM.findall("".join(notebook["cells"][0]["source"])))
    minutes = re.match(r"\d+", listed.minutes)
    if minutes is None or not aims:
        raise ValueError(
            f"{path.name} begins without its minutes or its aims; accepted: 'About 60 minutes', and a list"
        )
    came_out = outcomes(notebook)
    questions = questions_of(notebook)
    missing = [question.key for question in questions if question.key not in came_out]
    if missing:
        raise ValueError(f"{path.name} asks {missing[0]!r} and stores no outcome; accepted: a chapter that was run")
    predictions = tuple(Prediction(each.text, tuple(each.choices), came_out[each.key]) for each in questions)
    here = tuple(exercise for exercise in EXERCISES.values() if exercise.chapter == path.stem)
    return Taught(path.stem, listed.title, listed.question, int(minutes[0]), aims, predictions, here)


def calls(source: str, name: str) -> Iterator[ast.Call]:
    """The calls of a function in a cell; lines for IPython alone, such as `%pip`, are passed over.

    >>> [call.args[0].value for call in calls('%pip list\\ncompare("a", 1)', "compare")]
    ['a']
    """
    plain = "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in source.splitlines())
    try:
        tree = ast.parse(plain)
    except SyntaxError:  # what is left of a block whose only line was IPython's
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
            yield node


def outcomes(notebook: Mapping) -> dict[str, str]:
    """What came out beside each prediction in the stored run, by the prediction's key.

    Args:
        notebook: a chapter with its outputs.
    Returns:
        key to one sentence, such as "Measured: 2 %."
    """
    found = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        keys = [call.args[0].value for call in calls("".join(cell["source"]), "compare")]
        said = [text for text in plain_texts(cell["outputs"]) if text.startswith(NOBODY)]
        found |= {key: text.removeprefix(NOBODY).splitlines()[0] for key, text in zip(keys, said, strict=False)}
    return found


def plain_texts(outputs: Sequence[Mapping]) -> Iterator[str]:
    """The outputs of a cell that have a text form."""
    for output in outputs:
        text = output.get("data", {}).get("text/plain")
        if text is not None:
            yield text if isinstance(text, str) else "".join(text)

"""The questions of the chapters, as their stored notebooks show them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spai_lab.poll.question import Question, in_words
from spai_lab.workbook import chapter_of, chapters, read

ASKS = re.compile(r"""\bpredict\(\s*["']([^"']+)["']""")


@dataclass(frozen=True)
class Asked:
    """A chapter and its questions.

    Args:
        number: of the chapter, such as "02".
        title: such as "02 · Gradient attacks".
        questions: in their order.
    """

    number: str
    title: str
    questions: tuple[Question, ...]


def questions_of(notebook: Mapping) -> tuple[Question, ...]:
    """The questions of a chapter whose outputs are stored; their options may have been computed.

    Args:
        notebook: a chapter of format 4.
    Returns:
        the questions, in their order.
    Raises:
        ValueError: a question was not run; names it.
    """
    found = []
    for cell in notebook["cells"]:
        keys = ASKS.findall("".join(cell["source"])) if cell["cell_type"] == "code" else []
        outputs = (output.get("data", {}).get("text/plain", "") for output in cell.get("outputs", []))
        said = [text for text in map("".join, outputs) if text.startswith("Predict: ")]
        if len(said) != len(keys):
            raise ValueError(f"notebook asks {keys[0]!r} and stores no output of it; accepted: a chapter that was run")
        found += [in_words(key, words) for key, words in zip(keys, said, strict=True)]
    return tuple(found)


def book(folder: Path, beginnings: Sequence[str] = ()) -> list[Asked]:
    """The chapters that ask something, in their order.

    Args:
        folder: of the chapters, with their stored outputs.
        beginnings: of chapters' names, such as "02"; all if left out.
    Returns:
        the chapters.
    Raises:
        ValueError: there is no such chapter.
    """
    there = chapters(folder)
    chosen = [path for path in there if path.name.startswith(tuple(beginnings) or "")]
    if not there:
        raise ValueError(f"there are no chapters in {folder}; name their folder with --notebooks")
    if not chosen:
        raise ValueError(
            f"no chapter begins with {' or '.join(beginnings)}; there are {', '.join(path.stem for path in there)}"
        )
    asked = [Asked(path.stem[:2], chapter_of(path).title, questions_of(read(path))) for path in chosen]
    return [each for each in asked if each.questions]

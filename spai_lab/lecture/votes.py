"""The hall's votes, kept: in the lecture's own folder, or in a file that the lecturer named."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from spai_lab.files import write_atomically
from spai_lab.poll.question import Question

VARIABLE = "SPAI_VOTES"  # names the file to the kernels
LARGEST = 1_000_000  # bytes; a class's votes on all questions are a few thousand


def check_file(path: Path | str, masters: Path) -> Path:
    """The file of the votes, after a look at what is there.

    Args:
        path: the file, which need not exist yet.
        masters: the folder of the chapters, in which nothing is written.
    Returns:
        its absolute path.
    Raises:
        ValueError: it is a file of something else, or lies beside the masters.
    """
    path = Path(path).expanduser().resolve()
    if path.is_relative_to(masters.resolve()):
        raise ValueError(f"votes is {path}; accepted: a file outside the chapters' folder, which is only read")
    if path.is_dir():
        raise ValueError(f"votes is {path}; accepted: a file, not a folder")
    read_votes(path)
    return path


def read_votes(path: Path) -> dict:
    """The content of a file of votes; empty where there is none.

    Raises:
        ValueError: the file holds something else.
        OSError: it cannot be read.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError("too large")
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and isinstance(content.get("votes"), dict):
            return content
    except FileNotFoundError:
        return {"votes": {}}
    except (ValueError, RecursionError):
        pass
    raise ValueError(f"votes is {path}; accepted: a file of votes that a lecture wrote, or a new one")


def recall_votes(question: Question) -> tuple[tuple[tuple[int, ...], ...], str]:
    """The counts that were kept for a question, and a notice about the file; no counts where none fit the question."""
    from spai_lab.poll.tally import fits  # brings torch, which the server does without

    if not (place := os.environ.get(VARIABLE)):
        return (), ""
    try:
        stored = read_votes(Path(place))["votes"].get(question.key)
    except (OSError, ValueError) as error:
        return (), f"The votes cannot be read ({error})."
    if not isinstance(stored, Mapping) or stored.get("choices") != list(question.rows):
        return (), ""
    rounds = stored.get("rounds")
    return (tuple(map(tuple, rounds)), "") if fits(question, rounds) else ((), "")


def keep_votes(question: Question, rounds: Sequence[Sequence[int]]) -> str:
    """Keep the counts of a question, and say so where they cannot be kept; a file of something else stays as it is.

    Args:
        question: what was asked.
        rounds: the counts of one show of hands or two.
    Returns:
        nothing where all went well, else a sentence.
    """
    from spai_lab.widgets.predict import lock

    if not (place := os.environ.get(VARIABLE)):
        return ""
    path = Path(place)
    try:
        with lock(path):
            content = read_votes(path)
            entry = {"choices": list(question.rows), "rounds": [list(counts) for counts in rounds]}
            content["votes"] = {**content["votes"], question.key: entry}
            write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False).encode())
    except (OSError, ValueError) as error:
        return f"The votes are on this page only: they cannot be kept ({error})."
    return ""

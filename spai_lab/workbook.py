"""The workbook's files: a student's copies of the chapters, and the masters with their stored figures.

A chapter is a notebook in `notebooks/`. Students work on copies without outputs in `my/`, because stored outputs would
give the predictions away; the masters keep their outputs, so that a reader on a code host sees the figures.
"""

import copy
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from itertools import count
from pathlib import Path

from spai_lab.files import PACKAGE, write_atomically

LARGEST_NOTEBOOK = 2_000_000
CELL_SECONDS = 300
MEMORY_FILE = ".chapters.json"
WIDGET = "application/vnd.jupyter.widget-view+json"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
LANGUAGE = {"file_extension": ".py", "mimetype": "text/x-python", "name": "python", "pygments_lexer": "ipython3"}
CELL_NOISE = {"ExecuteTime", "collapsed", "colab", "execution", "scrolled", "trusted", "vscode"}
PROGRESS = re.compile(r"\d+%\||\d+it \[|(it/s|s/it)\]")
ADDRESS = re.compile(r"(<[^<>]*) at 0x[0-9a-f]+>")
CELL_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

FIRST_CELL = """\
# Only on Colab does this cell do something: it installs the workbook's package and keeps Colab's own torch.
SOURCE = ""  # where the project lives, such as "git+https://github.com/NAME/REPOSITORY"
from importlib.util import find_spec

if find_spec("spai_lab") is None:
    if not SOURCE:
        raise ModuleNotFoundError("spai_lab is not installed: set SOURCE above to the project's address, run again.")
    %pip install --quiet {SOURCE}"""


class ChapterError(RuntimeError):
    """A chapter that could not be executed; says which, in which cell, and why."""


@dataclass(frozen=True)
class Copied:
    """A chapter that `copy_chapters` wrote: its name, the file, and whether it stands beside an older copy."""

    chapter: str
    path: Path
    beside: bool


def first_cell() -> str:
    """The source of every chapter's first code cell, which prepares Colab and does nothing elsewhere."""
    return FIRST_CELL


def notebooks_folder() -> Path:
    """The masters' folder in the repository."""
    return PACKAGE.parent / "notebooks"


def my_folder() -> Path:
    """The student's folder: `SPAI_MY` if it is set, else `my/` in the repository."""
    return Path(os.environ.get("SPAI_MY") or PACKAGE.parent / "my")


def chapters(folder: Path) -> list[Path]:
    """The chapters of a folder, in their order."""
    return sorted(path for path in Path(folder).glob("[0-9][0-9]_*.ipynb"))


def read(path: Path) -> dict:
    """A notebook as the mapping that its file holds.

    Raises:
        ValueError: the file is not a notebook of format 4; names it.
    """
    try:
        notebook = json.loads(Path(path).read_text(encoding="utf-8"))
        if notebook["nbformat"] == 4 and isinstance(notebook["cells"], list):
            return notebook
    except (KeyError, TypeError, ValueError):
        pass
    raise ValueError(f"{path} is not a notebook of format 4; take a fresh copy of it")


def to_bytes(notebook: Mapping) -> bytes:
    """A notebook as Jupyter writes it, the same bytes on every system."""
    return (json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True) + "\n").encode()


def clear(notebook: Mapping) -> dict:
    """The notebook without outputs, counts and other traces of having run.

    >>> cell = {"cell_type": "code", "source": "1", "metadata": {}, "outputs": [{}], "execution_count": 3}
    >>> clear({"nbformat": 4, "metadata": {}, "cells": [cell]})["cells"][0]["outputs"]
    []
    """
    bare = [{**cell, "outputs": [], "execution_count": None} if _is_code(cell) else cell for cell in notebook["cells"]]
    return normalize({**notebook, "cells": bare})


def _is_code(cell: Mapping) -> bool:
    return cell["cell_type"] == "code"


def copy_chapters(notebooks: Path, my: Path, today: date | None = None) -> list[Copied]:
    """Copy the chapters to the student's folder, cleared, and never over a file that is there.

    A chapter whose master changed since it was copied arrives again, once, beside the old copy.

    Args:
        notebooks: the masters' folder.
        my: the student's folder; made where it is missing.
        today: the date that names a copy beside an older one.
    Returns:
        What was written; nothing where all is there and up to date.
    Raises:
        ValueError: a master is not a notebook.
        OSError: no space or no permission; what was there is as it was.
    """
    my = Path(my)
    known = _remembered(my)
    seen = dict(known)
    written = []
    for master in chapters(notebooks):
        content = to_bytes(clear(read(master)))
        digest = hashlib.sha256(content).hexdigest()
        target = my / master.name
        beside = target.exists() and known.get(master.name, digest) != digest
        if beside:
            target = _free_name(target, today or date.today())
        if not target.exists():
            write_atomically(target, content)
            written.append(Copied(master.stem, target, beside))
        seen[master.name] = digest
    if seen != known:
        write_atomically(my / MEMORY_FILE, json.dumps(seen, indent=1, sort_keys=True).encode())
    return written


def _remembered(my: Path) -> dict[str, str]:
    """For each chapter the digest of the master that was copied last; empty where that is not known."""
    try:
        known = json.loads((my / MEMORY_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _free_name(path: Path, today: date) -> Path:
    """The first name of `02_x (new 2026-11-23).ipynb`, `02_x (new 2026-11-23, 2).ipynb`, ... that no file has."""
    endings = (f"new {today}{f', {number}' if number > 1 else ''}" for number in count(1))
    names = (path.with_name(f"{path.stem} ({ending}){path.suffix}") for ending in endings)
    return next(name for name in names if not name.exists())


def normalize(notebook: Mapping) -> dict:
    """The notebook without what differs from run to run or from machine to machine; counts and outputs stay.

    Widget state, live views and styled pages go where a picture stands beside them; so go times, progress bars,
    addresses and editors' metadata.

    Args:
        notebook: a notebook of format 4, which is left as it is.
    Returns:
        A new notebook; normalizing it again changes nothing.
    """
    result = copy.deepcopy(dict(notebook))
    kept = {key: value for key, value in result["metadata"].items() if key in ("authors", "title")}
    result.update(metadata={**kept, "kernelspec": dict(KERNEL), "language_info": dict(LANGUAGE)}, nbformat_minor=5)
    taken: set[str] = set()
    for cell in result["cells"]:
        cell["id"] = _stable_id(cell, taken)
        cell["metadata"] = {key: value for key, value in cell["metadata"].items() if key not in CELL_NOISE}
        cell["source"] = _lines(_text(cell["source"]))
        if _is_code(cell):
            cell["outputs"] = [clean for output in cell["outputs"] if (clean := _clean_output(output))]
    return result


def _text(value: str | list[str]) -> str:
    return value if isinstance(value, str) else "".join(value)


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def _stable_id(cell: Mapping, taken: set[str]) -> str:
    """The cell's own name where it is valid and not taken, else one that follows from the cell's content."""
    name, attempt = str(cell.get("id", "")), 0
    while name in taken or not CELL_ID.fullmatch(name):
        name = hashlib.sha256(f"{cell['cell_type']}{attempt}{_text(cell['source'])}".encode()).hexdigest()[:8]
        attempt += 1
    taken.add(name)
    return name


def _clean_output(output: dict) -> dict | None:
    """An output without its noise, or None where nothing else is left."""
    if output["output_type"] == "stream":
        text = _text(output["text"])
        if output["name"] == "stderr":
            text = "".join(part for part in re.split(r"(?<=[\r\n])", text) if not PROGRESS.search(part)).lstrip("\r\n")
        return {**output, "text": _lines(text)} if text.strip() else None
    if "data" not in output:
        return output
    data = dict(output["data"])
    if data.pop(WIDGET, None) is not None and set(data) <= {"text/plain"}:
        return None
    if "image/png" in data:
        data.pop("text/html", None)  # a code host would show it, without its styles, and hide the picture
    if "text/plain" in data:
        data["text/plain"] = _lines(ADDRESS.sub(r"\1>", _text(data["text/plain"])))
    return {**output, "data": data}


@contextmanager
def without_output_widget_stalls() -> Iterator[None]:
    """nbclient now and then waits for ever when a cell writes to an Output widget, unless it keeps no state for it."""
    from nbclient.output_widget import OutputWidget

    original = OutputWidget.sync_state
    OutputWidget.sync_state = lambda *_: None
    try:
        yield
    finally:
        OutputWidget.sync_state = original


def execute(path: Path, *, timeout: int = CELL_SECONDS) -> dict:
    """Run a chapter from top to bottom on MNIST, in an empty folder, and return it with its outputs.

    Args:
        path: the chapter; the file is only read.
        timeout: seconds for each cell.
    Returns:
        The executed notebook, normalized.
    Raises:
        ValueError: SPAI_DATASET names other data than MNIST.
        FileNotFoundError: MNIST is not on this machine.
        ChapterError: a cell raised, or took too long.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    path = Path(path)
    _require_mnist()
    notebook = nbformat.reads(to_bytes(clear(read(path))).decode(), as_version=4)
    with tempfile.TemporaryDirectory() as folder, without_output_widget_stalls():
        variables = {**os.environ, "SPAI_DATASET": "mnist", "SPAI_MY": folder}
        client = NotebookClient(notebook, timeout=timeout, kernel_name="python3", coalesce_streams=True)
        client.resources = {"metadata": {"path": folder}}
        try:
            client.execute(env=variables)
        except CellExecutionError as error:
            raise ChapterError(
                f"{path.stem}: {error.ename}: {error.evalue}, in the cell\n{_failed(notebook)}"
            ) from error
        except (CellTimeoutError, DeadKernelError) as error:
            raise ChapterError(f"{path.stem}: {error}") from error
    return normalize(json.loads(nbformat.writes(notebook)))


def _failed(notebook: Mapping) -> str:
    """The source of the cell that raised."""
    raised = (cell for cell in notebook["cells"] if any(o["output_type"] == "error" for o in cell.get("outputs", [])))
    return next((_text(cell["source"]) for cell in raised), "")


def _require_mnist() -> None:
    chosen = os.environ.get("SPAI_DATASET", "mnist")
    if chosen != "mnist":
        raise ValueError(f"SPAI_DATASET is {chosen!r}; the masters are made on 'mnist', or with SPAI_DATASET unset")
    from spai_lab.data import available

    found = available()["mnist"]
    if not isinstance(found, Path):
        raise FileNotFoundError(f"the masters are made on MNIST, which is not here: {found}")


def renew(path: Path, *, timeout: int = CELL_SECONDS) -> int:
    """Execute a master on MNIST and store it with its outputs; its size in bytes.

    Raises:
        ValueError: the notebook became larger than a code host shows; the file is then as it was.
        ChapterError, FileNotFoundError: as `execute`.
    """
    content = to_bytes(execute(path, timeout=timeout))
    if len(content) > LARGEST_NOTEBOOK:
        size, most = len(content) / 1e6, LARGEST_NOTEBOOK / 1e6
        raise ValueError(
            f"{path} would take {size:.1f} MB, at most {most:.0f} are allowed: show fewer or smaller figures"
        )
    write_atomically(path, content)
    return len(content)


@dataclass(frozen=True)
class Chapter:
    """What a list of chapters says of one: its file's stem, its title, its question, and the minutes it takes."""

    name: str
    title: str
    question: str
    minutes: str


def chapter_of(path: Path) -> Chapter:
    """What a chapter's first cell says of it.

    Raises:
        ValueError: the file is no notebook, or does not begin with a title.
    """
    first = "".join(read(path)["cells"][0]["source"])
    title = re.match(r"# (.+)", first)
    if title is None:
        raise ValueError(f"{path} does not begin with a title; accepted: '# 02 · Gradient attacks'")
    question, minutes = re.search(r"^\*\*(.+?)\*\*$", first, re.MULTILINE), re.search(r"About ([\w-]+) minutes", first)
    time = f"{minutes[1].replace('ten', '10')}\N{NO-BREAK SPACE}min" if minutes else ""
    return Chapter(path.stem, title[1], question[1].replace("*", "") if question else "", time)

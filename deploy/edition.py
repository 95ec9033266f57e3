#!/usr/bin/env python3
"""The workbook as a hub shows it: all that students need, and no source of a model answer.

`python3 deploy/edition.py FOLDER` writes or updates it there; standard library only. Files that did not change stay as
they are, files that left the project go, what else is in the folder (`.venv`) is not touched. The exercises become byte
code beside a source whose functions are empty, so `check` and `hint` work and `solution` says who has the answers. Byte
code hides and does not protect: whoever takes it apart finds the answers, and the chapters teach the methods anyway.
`spai-lab assignments look` finds answers that call the package's own.

Run it with the interpreter that will run the workbook, since byte code belongs to one version of Python.
"""

import argparse
import ast
import json
import os
import py_compile
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1]
FOLDERS = ("data", "deploy", "notebooks", "spai_lab")
FILES = ("LICENSE", "README.md", "constraints.txt", "pyproject.toml", "run.py")
EXERCISES = Path("spai_lab/exercises")
KEPT_AS_SOURCE = {EXERCISES / "__init__.py", EXERCISES / "exercise.py"}  # the judge: no answers in there
LEFT_OUT = {"__pycache__", ".ipynb_checkpoints", ".gitignore"}
EMPTY = "raise NotImplementedError"
PYC_HEAD = 16
LIST = ".edition.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the edition goes")
    folder = parser.parse_args().folder
    changed, gone = write_edition(SOURCE, folder)
    print(f"{folder} is up to date: {changed} files written, {gone} removed.")


def write_edition(source: Path, folder: Path) -> tuple[int, int]:
    """Bring an edition up to date, file by file, each whole or not at all.

    Args:
        source: the project.
        folder: the edition; made where it is missing, readable by all.
    Returns:
        how many files were written and how many removed.
    Raises:
        ValueError: the folder is within the project, or holds something that is no edition.
        OSError: no space, no permission.
    """
    source, folder = source.resolve(), folder.resolve()
    if folder == source or source in folder.parents:
        raise ValueError(f"folder is {folder}; accepted: one outside of the project, whose files it shall not hold")
    folder.mkdir(parents=True, exist_ok=True)
    before = files_before(folder)
    plan = dict(planned(source, folder))
    changed = sum(place(folder / name, content()) for name, content in plan.items())
    gone = [folder / name for name in before if name not in plan and (folder / name).exists()]
    for path in gone:
        path.unlink()
    write_whole(folder / LIST, json.dumps(sorted(plan), indent=1).encode())
    return changed, len(gone)


def files_before(folder: Path) -> list[str]:
    """The files of the edition that is there.

    Raises:
        ValueError: the folder holds something else.
    """
    if (folder / LIST).exists():
        return json.loads((folder / LIST).read_text(encoding="utf-8"))
    if any(folder.iterdir()):
        raise ValueError(f"folder is {folder}, which holds other files; accepted: an empty folder, or an edition")
    return []


def planned(source: Path, folder: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """For each file of the edition its name and what makes its content."""
    found = [path for name in FOLDERS for path in sorted((source / name).rglob("*")) if path.is_file()]
    for path in [*found, *(source / name for name in FILES)]:
        relative = path.relative_to(source)
        if LEFT_OUT.intersection(relative.parts) or path.suffix == ".part":
            continue
        if holds_answers(relative):
            shown = relative.with_suffix(".source")
            yield shown.as_posix(), partial(without_bodies, path)
            yield relative.with_suffix(".pyc").as_posix(), partial(byte_code, path, str(folder / shown))
        else:
            yield relative.as_posix(), path.read_bytes


def holds_answers(path: Path) -> bool:
    """Whether a file of the project holds the source of model answers."""
    return EXERCISES in path.parents and path.suffix == ".py" and path not in KEPT_AS_SOURCE


def without_bodies(path: Path) -> bytes:
    """A module's source with the same lines, its functions empty but for their docstrings and for those that a task
    quotes by `inspect.getsource`.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     module = Path(folder) / "double.py"
    ...     _ = module.write_text('def my_double(a):\\n    "Return twice a."\\n    return a + a\\n')
    ...     print(without_bodies(module).decode())
    def my_double(a):
        "Return twice a."
        raise NotImplementedError
    <BLANKLINE>
    """
    source = path.read_text(encoding="utf-8")
    tree, lines = ast.parse(source), source.split("\n")
    quoted = {
        call.args[0].id
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "inspect.getsource"
    }
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name not in quoted]
    for function in sorted(functions, key=lambda node: -node.lineno):  # what is within another goes first
        first = 1 if ast.get_docstring(function) is not None else 0
        if len(function.body) > first:
            begin, end = function.body[first].lineno - 1, function.end_lineno
            lines[begin:end] = [" " * function.body[0].col_offset + EMPTY, *[""] * (end - begin - 1)]
    return "\n".join(lines).encode()


def byte_code(path: Path, shown: str) -> bytes:
    """A module's byte code, which takes `shown` for its source."""
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder) / "module.pyc"
        unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
        py_compile.compile(str(path), str(compiled), dfile=shown, doraise=True, invalidation_mode=unchecked)
        return compiled.read_bytes()


def place(target: Path, content: bytes) -> bool:
    """Put one file in its place; whether that changed anything.

    Of byte code the head is compared, which holds Python's version and the hash of the source: the same source does not
    always give the same bytes.
    """
    compared = slice(0, PYC_HEAD if target.suffix == ".pyc" else None)
    if target.is_file() and target.read_bytes()[compared] == content[compared]:
        return False
    write_whole(target, content)
    return True


def write_whole(target: Path, content: bytes) -> None:
    """Write a file that all may read, so that whoever looks sees the old content or the new."""
    for folder in reversed([parent for parent in target.parents if not parent.exists()]):
        folder.mkdir(mode=0o755)
    temporary = target.with_name(f".{target.name}.part")
    try:
        temporary.write_bytes(content)
        temporary.chmod(0o644)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


if __name__ == "__main__":
    os.umask(0o022)
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(str(error))

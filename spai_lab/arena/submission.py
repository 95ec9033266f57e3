"""What may be submitted: the text of one function, with the helpers that it names, and what it may spend."""

import ast
import dis
import importlib.util
import inspect
import linecache
import re
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

from spai_lab.checks import check_choice, check_count, check_number, describe

ACCESSES = ("white-box", "logits", "scores", "labels")
LONGEST = 100_000  # characters of a submission
PLAIN = (int, float, str, bool, type(None))


@dataclass(frozen=True)
class Budget:
    """What a submission may spend.

    Args:
        seconds: an attack, on one defense; a defense, to be built.
        answering: seconds that a defense may take for all its answers together.
        access: what an attack sees: "white-box" (the model itself), or a `Query` that reveals "logits", "scores" or
            "labels".
        queries: of a black-box attack for one image; counted by the arena.
        gradients: of a white-box attack for one image; counted beside the attack, which could cheat. Time is what
            truly limits it.
        memory: in MB, beyond what the libraries take; where the system can limit it.
    Raises:
        ValueError: names the argument.

    >>> Budget(seconds=5).gradients
    200
    """

    seconds: float = 30.0
    answering: float = 60.0
    access: str = "white-box"
    queries: int = 500
    gradients: int = 200
    memory: int = 2048

    def __post_init__(self) -> None:
        for name in ("seconds", "answering"):
            check_number(name, getattr(self, name), low=0, exclusive=True)
        check_choice("access", self.access, ACCESSES)
        for name in ("queries", "gradients", "memory"):
            check_count(name, getattr(self, name))

    def __str__(self) -> str:
        if self.access == "white-box":
            return f"white-box, {self.gradients:,} gradients an image, {self.seconds:g} s a defense"
        return f"black-box, {self.queries:,} queries ({self.access}) an image, {self.seconds:g} s a defense"


@dataclass(frozen=True)
class Submission:
    """A function as text.

    Args:
        name: of the function.
        text: Python that defines it.
    Raises:
        ValueError: names the argument.
    """

    name: str
    text: str

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.isidentifier():
            raise ValueError(f"name is {describe(self.name)}; accepted: the name of a function")
        if not isinstance(self.text, str) or not 0 < len(self.text) <= LONGEST:
            raise ValueError(f"text is {describe(self.text)}; accepted: Python of at most {LONGEST:,} characters")


def submission_of(function: Callable | Path | str, name: str | None = None) -> Submission:
    """A submission: of a function, with all of the notebook that it names; of a file; or of a text.

    Of a function the source is taken, and that of the functions and classes which it uses and which no library has;
    imports and plain constants are written before it. A data set, a model or a tensor of the notebook is refused, since
    only text travels.

    Args:
        function: a function written with `def`; the path of a file of Python; or the text itself.
        name: the function's name in the file or text; None takes the last one that is defined there.
    Returns:
        the submission.
    Raises:
        ValueError: names what cannot be submitted, and why.

    >>> print(submission_of("def my_attack(model, x, y, eps):\\n    return x").name)
    my_attack
    """
    if isinstance(function, str | Path):
        text = function if isinstance(function, str) and "\n" in function else read(Path(function))
        return Submission(name or last_function(text), text)
    if not isinstance(function, FunctionType) or function.__name__ == "<lambda>":
        raise ValueError(f"function is {describe(function)}; accepted: a function with a def, a file, or a text")
    if imported := import_of(function.__name__, function):
        return Submission(function.__name__, imported)
    pieces: dict[str, str] = {}
    collect(function.__name__, function, pieces)
    return Submission(function.__name__, "\n\n".join(pieces.values()) + "\n")


def read(path: Path) -> str:
    """The text of a file; `ValueError` where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"function is {str(path)!r}; accepted: a file of Python that can be read ({error})") from error


def last_function(text: str) -> str:
    """The name of the last function of a text; one that is no Python names none, and the arena says so later."""
    try:
        names = [node.name for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    except (SyntaxError, ValueError):
        return next(reversed(re.findall(r"^def +(\w+)", text, flags=re.MULTILINE)), "submission")
    if not names:
        raise ValueError("function is a text that defines no function; accepted: one with a def")
    return names[-1]


def collect(name: str, value: object, pieces: dict[str, str]) -> None:
    """Write under its name what defines a value, after all that its source names."""
    if name in pieces:
        return
    if line := import_of(name, value):
        pieces[name] = line
    elif isinstance(value, FunctionType | type):
        source = source_of(value)
        pieces[name] = ""  # so that a function which calls itself is written once
        for used, meaning in names_in(source, scope_of(value)).items():
            collect(used, meaning, pieces)
        pieces[name] = pieces.pop(name) + source
        if value.__name__ != name:
            pieces[name] += f"\n\n{name} = {value.__name__}"
    elif is_plain(value):
        pieces[name] = f"{name} = {value!r}"
    else:
        raise ValueError(
            f"function uses `{name}` of the notebook, {describe(value)}; accepted: imports, functions, numbers and "
            "texts, since only text is submitted; make the rest inside the function"
        )


def is_plain(value: object) -> bool:
    """Whether a value's `repr` is Python that gives it again: numbers and texts, and tuples and lists of these."""
    return isinstance(value, PLAIN) or (isinstance(value, tuple | list) and all(map(is_plain, value)))


def import_of(name: str, value: object) -> str:
    """The import that brings a library's module, function or class; empty where no library has it."""
    if isinstance(value, ModuleType):
        return f"import {value.__name__} as {name}" if importable(value.__name__) else ""
    home, kept = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    if not isinstance(home, str) or not kept.isidentifier() or not importable(home):
        return ""
    return f"from {home} import {kept}" + (f" as {name}" if kept != name else "")


def importable(module: str) -> bool:
    """Whether another process finds the module: one of this package, of the standard library, or installed."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or top == "spai_lab":
        return top != "__main__"
    spec = importlib.util.find_spec(top) if top in sys.modules and top != "__main__" else None
    return spec is not None and "site-packages" in str(spec.origin)


def scope_of(value: FunctionType | type) -> Mapping[str, object]:
    """What names mean where a function or class was written: its module's, and what a function around it gave."""
    if isinstance(value, type):
        return vars(sys.modules[value.__module__])
    cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
    return {**value.__globals__, **{name: cell.cell_contents for name, cell in cells}}


def names_in(source: str, scope: Mapping[str, object]) -> dict[str, object]:
    """What a source reads of the scope around it; parameters and other names of its own are not looked up.

    >>> scope = {"x": 1, "low": 2, "high": 3, "size": 4}
    >>> names_in("def f(x, y=low):\\n    return [x * high for high in y] + [size]", scope)
    {'low': 2, 'size': 4}
    """
    read, codes = [], [compile(source, "<submission>", "exec")]
    while codes:
        code = codes.pop(0)
        read += [each.argval for each in dis.get_instructions(code) if each.opname in ("LOAD_GLOBAL", "LOAD_NAME")]
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return {name: scope[name] for name in dict.fromkeys(read) if name in scope}


def source_of(value: FunctionType | type) -> str:
    """The source of a function or class, also of a class in a notebook, where `inspect` may not find it."""
    try:
        return textwrap.dedent(inspect.getsource(value))
    except (OSError, TypeError):
        pass
    for method in vars(value).values() if isinstance(value, type) else ():
        lines = linecache.getlines(method.__code__.co_filename) if isinstance(method, FunctionType) else []
        for node in ast.walk(ast.parse("".join(lines))):
            if isinstance(node, ast.ClassDef) and node.name == value.__name__:
                return textwrap.dedent("".join(lines[node.lineno - 1 : node.end_lineno]))
    raise ValueError(f"function uses {describe(value)}, whose source is not found; accepted: what a cell or file shows")

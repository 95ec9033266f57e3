"""Where the cells of an answer read what answers do not need: the package's solutions, the judge, the grading."""

import ast
import re
from collections.abc import Iterable, Iterator

OPEN = {"check", "hint", "stub", "task"}  # of spai_lab.exercises; whoever learns may use these
CLOSED = re.compile(r"\bspai_lab\.(exercises|assignments)\b")
NAMES = {"EXERCISES": "the exercises with their solutions", "_getframe": "the frames of the judge"}
ATTRIBUTES = NAMES | {
    "solution": "a solution",
    "truth": "the right results",
    "f_back": "the frames of the judge",
    "tb_frame": "the frames of the judge",
    "get_objects": "all objects of the kernel",
    "currentframe": "the frames of the judge",
}


def borrowed(sources: Iterable[str]) -> list[str]:
    """Sentences about what the cells read, each once; the order is theirs.

    A hint for a person, not a proof: whoever wants to hide it, can.

    Args:
        sources: cells, as Python; what does not parse is searched for names alone.
    Returns:
        one sentence a kind.

    >>> borrowed(["from spai_lab.exercises import check", "x = EXERCISES['fgsm'].truth"])
    ['a cell reads `EXERCISES`, the exercises with their solutions.', 'a cell reads `truth`, the right results.']
    """
    return list(dict.fromkeys(f"a cell reads `{name}`, {what}." for source in sources for name, what in _read(source)))


def _read(source: str) -> Iterator[tuple[str, str]]:
    """Names and what they are, in one cell."""
    try:
        tree = ast.parse(re.sub(r"^\s*[%!].*$", "", source, flags=re.MULTILINE))
    except (SyntaxError, ValueError):
        for name in (*NAMES, "solution"):
            if re.search(rf"\b{name}\b", source):
                yield name, ATTRIBUTES[name]
        return
    written = (node for node in ast.walk(tree) if hasattr(node, "end_lineno"))
    for node in sorted(written, key=lambda node: (node.end_lineno, node.end_col_offset)):
        if isinstance(node, ast.ImportFrom) and CLOSED.match(node.module or ""):
            if node.module == "spai_lab.exercises":
                yield from ((alias.name, _what(alias.name)) for alias in node.names if alias.name not in OPEN)
            else:
                yield node.module, "a module of exercises or grading"
        elif isinstance(node, ast.ImportFrom) and node.module == "spai_lab":
            names = (alias.name for alias in node.names if alias.name in ("exercises", "assignments"))
            yield from ((f"spai_lab.{name}", "a module of exercises or grading") for name in names)
        elif isinstance(node, ast.Import):
            names = (alias.name for alias in node.names if CLOSED.match(alias.name))
            yield from ((name, "a module of exercises or grading") for name in names)
        elif isinstance(node, ast.Name) and node.id in NAMES:
            yield node.id, NAMES[node.id]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "solution":
            yield "solution", "a solution"
        elif isinstance(node, ast.Attribute) and node.attr in ATTRIBUTES:
            yield node.attr, ATTRIBUTES[node.attr]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and CLOSED.fullmatch(node.value[:64]):
            yield node.value, "a module of exercises or grading"


def _what(name: str) -> str:
    return ATTRIBUTES.get(name, "a module of exercises or grading")


def written_here(source: str) -> bool:
    """Whether a cell is one of those that grade: an import of `grade`, and calls of it with what it was given.

    >>> ours = "from spai_lab.assignments.grading import grade\\ngrade('fgsm', my_fgsm, seed=3)"
    >>> written_here(ours), written_here("x = 1")
    (True, False)
    """
    try:
        statements = ast.parse(source).body
    except (SyntaxError, ValueError):
        return False
    return bool(statements) and all(map(_grades, statements))


def _grades(node: ast.stmt) -> bool:
    if isinstance(node, ast.ImportFrom):
        return node.module == "spai_lab.assignments.grading" and [alias.name for alias in node.names] == ["grade"]
    call = node.value if isinstance(node, ast.Expr) else None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id != "grade":
        return False
    given = [*call.args, *(keyword.value for keyword in call.keywords)]
    return all(isinstance(value, ast.Constant | ast.Name) for value in given)

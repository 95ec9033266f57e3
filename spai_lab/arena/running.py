"""Running what was submitted, within its process: from text to a function, from a function to a result or an error."""

import inspect
import linecache
import re
import traceback
from collections.abc import Callable, Mapping

FILE = "submission"


class OverBudget(Exception):
    """An attack asked for more gradients than it may."""


def function_in(text: str, name: str) -> Callable:
    """The function that a text defines; its lines can be quoted in messages."""
    linecache.cache[FILE] = (len(text), None, text.splitlines(keepends=True), FILE)
    namespace = {"__name__": "submission", "__file__": FILE}
    exec(compile(text, FILE, "exec"), namespace)
    return namespace[name]


def called(function: Callable, given: tuple, offered: Mapping[str, object]) -> object:
    """Call a function with what it must take, and with what it wants of what is offered.

    Raises:
        TypeError: its parameters do not fit; marked by the attribute `unfit`.

    >>> called(lambda a, eps: (a, eps), (1,), {"eps": 0.1, "defense": "none"})
    (1, 0.1)
    """
    parameters = inspect.signature(function).parameters.values()
    takes_all = any(each.kind is each.VAR_KEYWORD for each in parameters)
    names = {each.name for each in parameters}
    chosen = {key: value for key, value in offered.items() if takes_all or key in names}
    try:
        inspect.signature(function).bind(*given, **chosen)
    except TypeError as error:
        error.unfit = True
        raise
    return function(*given, **chosen)


def told(error: BaseException) -> tuple[str, str, str]:
    """What stopped a submission: the kind of the error, its message, and the submission's line."""
    line = next(
        (each.line for each in reversed(traceback.extract_tb(error.__traceback__)) if each.filename == FILE), ""
    )
    kind, message = type(error).__name__, " ".join(str(error).split())
    if getattr(error, "unfit", False):
        kind = "unfit"
    elif found := re.search(r"more than cap = (\d+) queries", message):  # said by `Query`
        kind, message = OverBudget.__name__, f"{found[1]} queries"
    return kind, message[:300], (line or "")[:120]

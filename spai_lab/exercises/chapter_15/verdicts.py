"""How answers on secret numbers are judged: these are drawn anew each time, and each way to fail has a number."""

import operator
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy

import numpy as np

from spai_lab.checks import describe
from spai_lab.exercises.exercise import Fault, call

CHAPTER = "15_multiparty_computation"
RIGHT, UNKNOWN = 0.0, -1.0


def right(**case: object) -> float:
    """The truth of exercises whose `call` compares with the secret itself."""
    return RIGHT


def kind(failure: Callable, failures: Sequence[Callable]) -> float:
    """A number for a kind of failure, above that of a right answer."""
    return 1.0 + failures.index(failure)


def first_alike(alike: Callable[[Callable], bool], suspects: Iterable[Callable], failures: Sequence[Callable]) -> float:
    """The kind of the first failure that gives what the answer gave, else `UNKNOWN`."""
    return next((kind(each, failures) for each in suspects if alike(each)), UNKNOWN)


def put(answer: Callable, **case: object) -> object:
    """The answer's result on copies of a case.

    Raises:
        Fault: it returns nothing, or changes what it was given.
    """
    copies = deepcopy(case)
    result = call(answer, **copies)
    changed = [name for name, value in case.items() if not same(value, copies[name])]
    if changed:
        raise Fault(
            f"It changes `{changed[0]}`, which belongs to the caller: work on a copy, and beware of what writes in "
            "place (`+=`, `^=`, `[...] =`, `pop`)."
        )
    if result is None:
        raise Fault("It returns None: is the `return` missing?")
    return result


def same(one: object, other: object) -> bool:
    """Whether two values are equal, arrays within tuples and lists included.

    >>> same((1, np.arange(3)), (1, np.arange(3))), same([1, 2], [1])
    (True, False)
    """
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return np.array_equal(one, other) if isinstance(one, np.ndarray) else one == other


def as_whole(result: object, what: str) -> int:
    """The result as an int.

    Raises:
        Fault: it is no whole number.
    """
    if not isinstance(result, bool | np.bool_):
        try:
            return operator.index(result)
        except (TypeError, ValueError, RuntimeError):
            pass
    raise Fault(f"It returns {describe(result)}; expected a whole number, {what}.")

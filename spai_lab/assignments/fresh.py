"""The cases of an exercise under a seed: others than those that a student sees, judged as those are.

Most exercises draw: from the seed that their `cases` takes, or by a function of `drawn_attacks` and `drawn_privacy`.
Exercises with secrets draw afresh whenever an answer is judged, and need no seed.
"""

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import cycle

import numpy as np
import torch
from torch import Tensor

from spai_lab.assignments.drawn_attacks import ATTACKS
from spai_lab.assignments.drawn_privacy import PRIVACY
from spai_lab.exercises import chapter_12
from spai_lab.exercises.exercise import Exercise, agree, as_array, judge

WRITTEN = ATTACKS | PRIVACY
EVERY_TIME = (
    *("encrypted_salaries", "shamir_secret", "beaver_product", "garbled_xor"),
    *("find_the_leak", "count_rounds"),
)
BEHIND = ("leak_from_gradient", "leaked_label")
SEED_BYTES = 6
MOST_ATTEMPTS = 40


@dataclass(frozen=True)
class Hidden:
    """The seed of an exercise's hidden cases, and at which attempt they could tell all typical mistakes apart."""

    name: str
    seed: int
    attempt: int


def way(exercise: Exercise) -> str:
    """How an exercise comes to hidden cases: "seed", "written" (by a function here), "every time", or "fixed".

    >>> from spai_lab.exercises import EXERCISES
    >>> way(EXERCISES["fgsm"]), way(EXERCISES["wilson"]), way(EXERCISES["garbled_xor"])
    ('seed', 'written', 'every time')
    """
    if exercise.name in EVERY_TIME:
        return "every time"
    if exercise.name in WRITTEN:
        return "written"
    if exercise.name in BEHIND:
        return "seed"
    return "seed" if inspect.signature(exercise.cases).parameters else "fixed"


def under_seed(exercise: Exercise, seed: int) -> Exercise:
    """The same exercise with the cases of a seed; one that cannot draw has its own cases, in another order.

    Args:
        exercise: what is asked.
        seed: of the cases, from 0 to 2^48 - 1.
    Returns:
        an exercise for `judge`.
    Raises:
        ValueError: seed is out of range.

    >>> from spai_lab.exercises import EXERCISES
    >>> wilson = under_seed(EXERCISES["wilson"], 7)
    >>> wilson.cases() != EXERCISES["wilson"].cases(), judge(wilson, wilson.solution).verdict
    (True, 'passed')
    """
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 256**SEED_BYTES:
        raise ValueError(f"seed is {seed!r}; accepted: a whole number from 0 to 2^{8 * SEED_BYTES} - 1")
    kind = way(exercise)
    if exercise.name in BEHIND:
        return _with_what_is_behind(exercise, seed)
    if kind == "every time":
        return exercise
    if kind == "seed":
        return replace(exercise, cases=lambda: exercise.cases(seed))
    if kind == "written":
        return replace(exercise, cases=lambda: WRITTEN[exercise.name](_generator(seed), exercise))

    def in_another_order() -> list:
        cases = exercise.cases()
        return [cases[i] for i in torch.randperm(len(cases), generator=_generator(seed)).tolist()]

    return replace(exercise, cases=in_another_order)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _with_what_is_behind(exercise: Exercise, seed: int) -> Exercise:
    """The exercise whose truth is what its gradients were made of: the input, or the label in other classes."""
    if exercise.name == "leak_from_gradient":
        records = chapter_12.gradients_of_first_layers(seed)
    else:
        generator = _generator(seed)
        records = [_renamed(*record, generator) for record in chapter_12.gradients_of_last_layers(seed)]

    def cases() -> list[dict]:
        return [{"dW": dW.clone(), "db": None if db is None else db.clone()} for _, dW, db in records]

    def truth(dW: Tensor, db: Tensor | None) -> object:
        return next(behind for behind, slope, _ in records if torch.equal(slope, dW))

    def look(result: np.ndarray, dW: Tensor, db: Tensor | None) -> str | None:
        """The exercise's own sentence, but for what it compares with its visible cases."""
        return exercise.look(result, dW=dW, db=db) if exercise.name == "leak_from_gradient" else None

    return replace(exercise, cases=cases, truth=truth, look=look)


def _renamed(
    label: int, dW: Tensor, db: Tensor | None, generator: torch.Generator
) -> tuple[int, Tensor, Tensor | None]:
    """Gradients of the same network with its classes in another order."""
    order = torch.randperm(len(dW), generator=generator)
    return order.tolist().index(label), dW[order], None if db is None else db[order]


def derived(seed: str, name: str, attempt: int) -> int:
    """A seed for one exercise, which tells nothing about the lecturer's seed and the other exercises'.

    >>> derived("autumn", "fgsm", 0) == derived("autumn", "fgsm", 0) != derived("autumn", "pgd", 0)
    True
    """
    digest = hashlib.sha256(f"spai_lab assignment\0{seed}\0{name}\0{attempt}".encode()).digest()
    return int.from_bytes(digest[:SEED_BYTES], "big")


def hidden_of(exercise: Exercise, seed: str) -> Hidden:
    """The first seed, of those that follow from the lecturer's, under which the hidden cases are sharp.

    Args:
        exercise: what is asked.
        seed: the lecturer's.
    Raises:
        RuntimeError: none of the first seeds is; the exercise is at fault, and named.
    """
    for attempt in range(MOST_ATTEMPTS):
        number = derived(seed, exercise.name, attempt)
        if sharp(exercise, number):
            return Hidden(exercise.name, number, attempt)
    raise RuntimeError(f"{exercise.name}: under none of {MOST_ATTEMPTS} seeds do its cases tell all mistakes apart")


def sharp(exercise: Exercise, seed: int) -> bool:
    """Whether under a seed the solution passes, results that are known by heart do not, and each mistake is told."""
    hidden = under_seed(exercise, seed)
    if judge(hidden, hidden.solution).verdict != "passed":
        return False
    if judge(hidden, by_heart(exercise)).verdict == "passed":
        return False
    found = [[as_array(hidden.truth(**case)) for case in hidden.cases()]]
    for mistake in exercise.mistakes:
        results = [as_array(exercise.call(mistake, **case)) for case in hidden.cases()]
        if any(agree(results, others, exercise.tolerance) for others in found):
            return False
        found.append(results)
    return True


def by_heart(exercise: Exercise) -> Callable:
    """An answer that knows the results of the visible cases, in their order, and computes nothing."""
    known: list[object] = []

    def recorded(*arguments: object) -> object:
        known.append(exercise.solution(*arguments))
        return known[-1]

    judge(exercise, recorded)
    results = cycle(known)
    return lambda *arguments: next(results)

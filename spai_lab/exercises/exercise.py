"""An exercise, written once, and the judge that tries a student's answer on it.

An answer is judged by what it does: it gets small inputs whose right result is known another way (`truth`), and
whatever gives that result passes. A wrong answer is held against the typical mistakes: the one that does the same
names the fault.
"""

import inspect
import random
import sysconfig
import textwrap
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from spai_lab.checks import describe
from spai_lab.files import PACKAGE
from spai_lab.widgets.shown import Shown, as_html, panel
from spai_lab.widgets.source import split_source

Case = Mapping[str, object]
TOLERANCE = 1e-5
MARKS = {
    "passed": ("✔ Passed", "#029e73"),
    "wrong": ("✘ Not right yet", "#d55e00"),
    "open": ("○ Not attempted yet", "#949494"),
}
LIBRARIES = (*(Path(sysconfig.get_path(kind)).resolve() for kind in ("stdlib", "purelib", "platlib")), PACKAGE)


class Fault(Exception):
    """What is wrong with an answer, in one sentence for the student."""


def call(answer: Callable, **case: object) -> object:
    """The answer's result on a case: arguments by position as in the stub, by name where the answer wants names."""
    try:
        inspect.signature(answer).bind(*case.values())
    except (TypeError, ValueError):
        return answer(**case)
    return answer(*case.values())


def nothing_stands_out(result: object, **case: object) -> None:
    """The default of `look`."""


@dataclass(frozen=True)
class Exercise:
    """One exercise with all that belongs to it.

    Args:
        chapter: stem of the notebook, such as "02_gradient_attacks".
        task: what to do, in a few sentences of Markdown.
        solution: the model answer, a function `my_<name>`; its signature and docstring are the stub. One that takes no
            arguments makes an exercise whose answer is a number.
        truth: the right result for a case, computed another way than by the solution: a number, or an array.
        cases: makes the inputs afresh, by argument name; one that takes a seed makes others from another seed.
        tested: what the cases are, told to the student.
        hints: from the gentlest on.
        mistakes: functions like the solution, each with a typical mistake; the docstring is the sentence meant for it.
        call: `(answer, **case) -> result`, how an answer is put to work.
        look: `(result, **case) -> sentence or None`, what stands out in a wrong result that no typical mistake gives.
        tolerance: largest absolute error of a right answer.

    >>> def my_double(a):
    ...     "Return twice a."
    ...     return a + a
    >>> def squares(a):
    ...     "This squares."
    ...     return a * a
    >>> truth, cases = lambda a: 2.0 * a, lambda: [{"a": 3.0}]
    >>> double = Exercise("00", "Double it.", my_double, truth, cases, "3", ("Add.",), (squares,))
    >>> judge(double, lambda a: 2 * a)
    ✔ Passed: double
      Tested: 3.
    >>> judge(double, lambda a: a**2)
    ✘ Not right yet: double
      This squares.
      Tested: 3.
    """

    chapter: str
    task: str
    solution: Callable
    truth: Callable
    cases: Callable[[], Sequence[Case]]
    tested: str
    hints: tuple[str, ...]
    mistakes: tuple[Callable, ...]
    call: Callable = call
    look: Callable[..., str | None] = nothing_stands_out
    tolerance: float = TOLERANCE

    @cached_property
    def name(self) -> str:
        """The name that the notebook uses: `check.<name>(my_<name>)`."""
        return self.solution.__name__.removeprefix("my_")

    @cached_property
    def wants_number(self) -> bool:
        """Whether the answer is a number rather than a function."""
        return not inspect.signature(self.solution).parameters

    @cached_property
    def stub(self) -> str:
        """The source of the notebook's cell before the student writes in it."""
        if self.wants_number:
            return f"my_{self.name} = None  # {sentence(self.solution)}"
        head, docstring, _ = split_source(self.solution)
        return f"{head}\n{docstring}\n    raise NotImplementedError"


@dataclass(frozen=True, repr=False)
class Feedback(Shown):
    """What the judge says about an answer; `verdict` is "passed", "wrong" or "open" (not attempted)."""

    verdict: str = "open"


def judge(exercise: Exercise, answer: object) -> Feedback:
    """Try an answer on every case of its exercise and say what came out; a fault of the answer never raises.

    Args:
        exercise: what was asked.
        answer: a function, or a number where the exercise asks for one.
    Returns:
        feedback that a notebook shows.
    """
    if callable(answer) == exercise.wants_number:
        kind = "the number itself" if exercise.wants_number else "the function itself, without parentheses"
        return feedback(exercise, "wrong", f"Pass {kind}: `check.{exercise.name}(my_{exercise.name})`.")
    unanswered = feedback(exercise, "open", f'Write `my_{exercise.name}`; `hint("{exercise.name}")` helps.')
    if exercise.wants_number and (answer is None or answer is ...):
        return unanswered
    function = (lambda: answer) if exercise.wants_number else answer
    truths = [as_array(exercise.truth(**case)) for case in exercise.cases()]
    cases = exercise.cases()
    try:
        results = [attempt(exercise, function, case, truth) for case, truth in zip(cases, truths, strict=True)]
    except NotImplementedError:
        return unanswered
    except Fault as fault:
        return feedback(exercise, "wrong", str(fault))
    if agree(results, truths, exercise.tolerance):
        return feedback(exercise, "passed", *remarks(cases))
    return feedback(exercise, "wrong", diagnosis(exercise, results, truths))


def feedback(exercise: Exercise, verdict: str, *sentences: str) -> Feedback:
    """The verdict with a mark and a word, never by color alone, the sentences and what was tested."""
    mark, color = MARKS[verdict]
    lines = [*sentences, *([f"Tested: {exercise.tested}."] if verdict != "open" else [])]
    plain = "\n  ".join([f"{mark}: {exercise.name}", *(line.replace("`", "") for line in lines)])
    sign, words = mark.split(" ", 1)
    title = f'<strong><span style="color:{color}">{sign}</span> {words}: {exercise.name}</strong>'
    return Feedback(plain, html=panel(title, *map(as_html, lines), color=color), verdict=verdict)


def attempt(exercise: Exercise, answer: Callable, case: Case, truth: np.ndarray) -> np.ndarray:
    """The answer's result on one case, as an array of the shape of the truth.

    Raises:
        Fault: it crashes, changes what is not its own, or returns something of another kind.
        NotImplementedError: the stub.
    """
    before, state = snapshot(case), random_state()
    try:
        result = exercise.call(answer, **case)
    except NotImplementedError as error:
        if not error.args:
            raise
        raise Fault(crash(error, case)) from error
    except Fault:
        raise
    except Exception as error:
        raise Fault(crash(error, case)) from error
    after = snapshot(case)
    for name, value in before.items():
        if name not in after or value.dtype != after[name].dtype or not torch.equal(value, after[name]):
            raise Fault(
                f"It changes `{name}`, which belongs to the caller: work on a copy, such as `{name}.clone()`, and "
                "beware of what writes in place (`+=`, `clamp_`, `[...] =`)."
            )
    if random_state() != state:
        raise Fault(
            "It changes the global random state, so that whatever the caller draws next is another number: draw from a "
            "`torch.Generator` of your own."
        )
    return of_right_kind(result, truth)


def snapshot(case: Case) -> dict[str, Tensor]:
    """Copies of the tensors in a case, the weights of its models included."""
    tensors = {name: value.detach().clone() for name, value in case.items() if isinstance(value, Tensor)}
    for name, model in case.items():
        if isinstance(model, nn.Module):
            tensors |= {f"{name}.{key}": value.detach().clone() for key, value in model.state_dict().items()}
    return tensors


def random_state() -> tuple:
    """The global random state of torch, NumPy and Python, as something that can be compared."""
    _, keys, *rest = np.random.get_state()  # noqa: NPY002
    return torch.get_rng_state().numpy().tobytes(), keys.tobytes(), *rest, random.getstate()


def crash(error: Exception, case: Case) -> str:
    """What stopped the answer, and in which line of the student's own code."""
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not any(Path(frame.filename).resolve().is_relative_to(folder) for folder in LIBRARIES)
    ]
    message = textwrap.shorten(str(error).replace("`", "'"), 240) or "no message"
    if not own:
        return f"It cannot be called with `({', '.join(case)})`: {type(error).__name__}: {message}"
    where = f"line {own[-1].lineno}" + (f", `{own[-1].line}`" if own[-1].line else "")
    return f"It stops in {where} with {type(error).__name__}: {message}"


def as_array(value: object) -> np.ndarray:
    """A number, array or tensor as float64."""
    value = value.detach().cpu().double().numpy() if isinstance(value, Tensor) else value
    return np.asarray(value, dtype=np.float64)


def of_right_kind(result: object, truth: np.ndarray) -> np.ndarray:
    """The result as an array.

    Raises:
        Fault: it is not a tensor, or a number, of the right shape, or not finite.
    """
    if result is None:
        raise Fault("It returns None: is the `return` missing?")
    if truth.ndim == 0:
        number = isinstance(result, Real | Tensor) and not isinstance(result, bool)
        if not number or (isinstance(result, Tensor) and result.numel() != 1):
            raise Fault(f"It returns {describe(result)}; expected one number.")
        array = as_array(result).reshape(())
    else:
        if not isinstance(result, Tensor):
            raise Fault(f"It returns {describe(result)}; expected a `torch.Tensor`.")
        if result.shape != truth.shape:
            raise Fault(f"It returns a tensor of shape {tuple(result.shape)}; expected {truth.shape}.")
        array = as_array(result)
    if np.isnan(array).any():
        raise Fault("It returns NaN: somewhere zero is divided by zero, or infinity is subtracted from infinity.")
    return array


def agree(results: Sequence[np.ndarray], others: Sequence[np.ndarray], tolerance: float) -> bool:
    """Whether two lists of results are the same within a tolerance."""
    return all(
        result.shape == other.shape and np.allclose(result, other, rtol=TOLERANCE, atol=tolerance)
        for result, other in zip(results, others, strict=True)
    )


def diagnosis(exercise: Exercise, results: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> str:
    """The sentence that helps most: that of the mistake which gives the same results, else what stands out in them.

    A mistake that gives the first wrong result alone, and no other does, is offered as a guess.
    """
    right = [agree([result], [truth], exercise.tolerance) for result, truth in zip(results, truths, strict=True)]
    first = right.index(False)
    suspects = []
    for mistake in exercise.mistakes:
        same = [as_array(exercise.call(mistake, **case)) for case in exercise.cases()]
        if agree(results, same, exercise.tolerance):
            return sentence(mistake)
        if agree(results[first : first + 1], same[first : first + 1], exercise.tolerance):
            suspects.append(mistake)
    case = exercise.cases()[first]
    seen = exercise.look(results[first], **case) or difference(results[first], truths[first], case)
    return f"{seen} A guess: {sentence(suspects[0])}" if len(suspects) == 1 else seen


def difference(result: np.ndarray, truth: np.ndarray, case: Case) -> str:
    """Where a result is furthest from the truth."""
    settings = ", ".join(f"{name} = {describe(value)}" for name, value in case.items() if isinstance(value, Real | str))
    given = f" for `{settings}`" if settings else ""
    if truth.ndim == 0:
        return f"It returns {result:.4g}{given}" + (f"; expected {truth:.4g}." if given else ", which is not right.")
    worst = np.unravel_index(np.abs(result - truth).argmax(), truth.shape)
    at = ", ".join(map(str, worst))
    return f"At `[{at}]` of the result it gives {result[worst]:.4g}; expected {truth[worst]:.4g}{given}."


def remarks(cases: Sequence[Case]) -> list[str]:
    """What a right answer has left behind in the cases it was tried on, and might tidy."""
    given = [value for case in cases for value in case.values()]
    weights = [weight for model in given if isinstance(model, nn.Module) for weight in model.parameters()]
    said = []
    if any(weight.grad is not None for weight in weights):
        said.append(
            "One thing to tidy: `backward()` also left gradients in the model's weights, where they would add to the "
            "next training step; `torch.autograd.grad(loss, x)` gives the one that you need."
        )
    if any(isinstance(value, Tensor) and value.requires_grad for value in given):
        said.append("One thing to tidy: the caller's tensor now has `requires_grad` on; switch it on for a copy.")
    return said


def sentence(function: Callable) -> str:
    """A function's docstring on one line."""
    return " ".join((inspect.getdoc(function) or "").split())

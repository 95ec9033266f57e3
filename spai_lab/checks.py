"""What every public function asks of its arguments, and the warnings that explain themselves."""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Integral, Real

import numpy as np
import torch
from torch import Tensor, nn

NORMS = ("linf", "l2")


class SuspiciousResult(UserWarning):
    """A run that finished but should not be believed yet; the text names the chapter that explains it."""


def warn_suspicious(what: str, chapter: str) -> None:
    """Warn about a result that deserves a second look.

    Args:
        what: one sentence that says what was seen.
        chapter: the chapter that explains it, such as "07 (gradient masking)".
    """
    warnings.warn(f"{what} Chapter {chapter} explains it.", SuspiciousResult, stacklevel=3)


@contextmanager
def unsuspecting() -> Iterator[None]:
    """Without `SuspiciousResult`: an input that is learned well may lose its gradient, no reason to suspect a run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SuspiciousResult)
        yield


def describe(value: object) -> str:
    """A short account of an argument for an error message: type, shape and dtype, never its whole content.

    >>> describe(torch.zeros(2, 3))
    'a float32 tensor of shape (2, 3)'
    >>> describe("linf")
    "'linf'"
    """
    if isinstance(value, Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        return f"{'an' if dtype.startswith('int') else 'a'} {dtype} tensor of shape {tuple(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of shape {value.shape}"
    text = repr(value)
    return text if len(text) <= 60 else f"a {type(value).__name__}"


def describe_kind(value: object) -> str:
    """An argument that may be secret, for an error message: of an array dtype and shape, of anything else the type.

    >>> describe_kind(np.zeros((2, 3))), describe_kind([True])
    ('float64 (2, 3)', 'a list')
    """
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"


def check_number(
    name: str, value: float, *, low: float = -math.inf, high: float = math.inf, exclusive: bool = False, hint: str = ""
) -> None:
    """Raise `ValueError` unless `value` is a finite number from `low` to `high` (above `low` if `exclusive`).

    >>> check_number("eps", -0.1, low=0)
    Traceback (most recent call last):
    ValueError: eps is -0.1; accepted: a finite number of at least 0
    """
    span = f"above {low:g}" if exclusive else f"of at least {low:g}"
    if high < math.inf:
        span = f"above {low:g}, at most {high:g}" if exclusive else f"from {low:g} to {high:g}"
    elif low == -math.inf:
        span = ""
    numeric = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not numeric or value < low or value > high or (exclusive and value == low):
        raise ValueError(f"{name} is {describe(value)}; accepted: a finite number {span}".rstrip() + hint)


def check_count(name: str, value: int, *, low: int = 1) -> None:
    """Raise `ValueError` unless `value` is a whole number of at least `low`.

    >>> check_count("steps", 0)
    Traceback (most recent call last):
    ValueError: steps is 0; accepted: a whole number of at least 1
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < low:
        raise ValueError(f"{name} is {describe(value)}; accepted: a whole number of at least {low}")


def check_choice(name: str, value: str, accepted: tuple[str, ...]) -> None:
    """Raise `ValueError` unless `value` is one of `accepted`.

    >>> check_choice("norm", "l7", ("linf", "l2"))
    Traceback (most recent call last):
    ValueError: norm is 'l7'; accepted: 'linf', 'l2'
    """
    if not isinstance(value, str) or value not in accepted:
        raise ValueError(f"{name} is {describe(value)}; accepted: {', '.join(map(repr, accepted))}")


def check_flag(name: str, value: bool) -> None:
    """Raise `ValueError` unless `value` is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {describe(value)}; accepted: True or False")


def check_callable(name: str, value: Callable) -> None:
    """Raise `ValueError` unless `value` can be called."""
    if not callable(value):
        raise ValueError(f"{name} is {describe(value)}; accepted: something that can be called")


def check_generator(generator: torch.Generator | None, device: torch.device) -> None:
    """Raise `ValueError` unless `generator` is None or a `torch.Generator` on `device`."""
    if generator is None:
        return
    if not isinstance(generator, torch.Generator):
        raise ValueError(f"generator is {describe(generator)}; accepted: a torch.Generator, or None for a fresh one")
    if generator.device.type != device.type:
        raise ValueError(f"generator is on {generator.device}; accepted: one on the device of x, {device}")


def check_batch(name: str, value: Tensor) -> None:
    """Raise `ValueError` unless `value` is a floating point batch `(N, ...)`; N may be 0, the other sizes may not.

    >>> check_batch("delta", torch.tensor([1, 2]))
    Traceback (most recent call last):
    ValueError: delta is an int64 tensor of shape (2,); accepted: a floating point tensor of shape (N, C, H, W)
    """
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.ndim < 2 or 0 in value.shape[1:]:
        raise ValueError(f"{name} is {describe(value)}; accepted: a floating point tensor of shape (N, C, H, W)")


def check_like(name: str, value: Tensor, x: Tensor) -> None:
    """Raise `ValueError` unless `value` has the shape, dtype and device of `x`.

    >>> check_like("x_adv", torch.zeros(1, 2), torch.zeros(3, 2))
    Traceback (most recent call last):
    ValueError: x_adv is a float32 tensor of shape (1, 2); accepted: a float32 tensor of shape (3, 2), like x
    """
    if not isinstance(value, Tensor) or value.shape != x.shape or value.dtype != x.dtype:
        raise ValueError(f"{name} is {describe(value)}; accepted: {describe(x)}, like x")
    if value.device != x.device:
        raise ValueError(f"{name} is on {value.device}; accepted: the device of x, {x.device}")


def check_images(x: Tensor, name: str = "x") -> None:
    """Raise `ValueError` unless `x` is a batch of inputs: floating point, `(N, ...)`, every value in [0, 1].

    >>> check_images(torch.full((1, 1, 2, 2), 255.0))
    Traceback (most recent call last):
    ValueError: x has values from 255 to 255; accepted: [0, 1] (divide 8-bit pixels by 255, normalize inside the model)
    """
    check_batch(name, x)
    if len(x) == 0:
        return
    low, high = (bound.item() for bound in x.detach().aminmax())
    if math.isnan(low) or math.isnan(high):
        raise ValueError(f"{name} contains NaN; accepted: values in [0, 1]")
    if low < 0 or high > 1:
        raise ValueError(
            f"{name} has values from {low:.6g} to {high:.6g}; accepted: [0, 1] "
            "(divide 8-bit pixels by 255, normalize inside the model)"
        )


def check_labels(y: Tensor, x: Tensor, name: str = "y") -> None:
    """Raise `ValueError` unless `y` holds one class number for each input.

    >>> check_labels(torch.tensor([1, 2]), torch.zeros(3, 1, 2, 2))
    Traceback (most recent call last):
    ValueError: y is an int64 tensor of shape (2,); accepted: int64 labels of shape (3,), one for each input
    """
    if not isinstance(y, Tensor) or y.dtype != torch.int64 or y.shape != x.shape[:1]:
        raise ValueError(f"{name} is {describe(y)}; accepted: int64 labels of shape ({len(x)},), one for each input")
    if y.device != x.device:
        raise ValueError(f"{name} is on {y.device}; accepted: the device of x, {x.device}")
    if len(y) and y.min() < 0:
        raise ValueError(f"{name} has a label {y.min().item()}; accepted: classes from 0")


def check_model(model: nn.Module, x: Tensor) -> None:
    """Raise `ValueError` unless `model` can be called and its parameters have the dtype and device of `x`."""
    check_callable("model", model)
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    if parameter is not None and (parameter.dtype, parameter.device) != (x.dtype, x.device):
        raise ValueError(
            f"x is {x.dtype} on {x.device}; accepted: the model's own, {parameter.dtype} on {parameter.device}"
        )


def check_ball(x: Tensor, eps: float, norm: str) -> None:
    """Raise `ValueError` unless `norm` is known, `x` a batch, and `eps` at most the distance of two images.

    >>> check_ball(torch.zeros(1, 1, 28, 28), 8, "linf")
    Traceback (most recent call last):
    ValueError: eps is 8; accepted: a finite number from 0 to 1 (pixel units of [0, 1]: 8 of 255 gray levels is 8/255)
    """
    check_choice("norm", norm, NORMS)
    check_batch("x", x)
    hint = " (pixel units of [0, 1]: 8 of 255 gray levels is 8/255)"
    check_number("eps", eps, low=0, high=1 if norm == "linf" else math.sqrt(math.prod(x.shape[1:])), hint=hint)


def check_attack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    norm: str,
    targeted: bool,
    gradient: Callable,
    generator: torch.Generator | None,
) -> None:
    """The arguments that every evasion attack within a ball shares; labels meet the logits in `check_logits`.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        x: inputs, floating point `(N, C, H, W)` in [0, 1].
        y: labels `(N,)`, int64.
        eps: radius of the ball, from 0 to the distance of a black and a white image; beyond, pixels from 0 to 255 are
            meant.
        norm: "linf" or "l2".
        targeted: True or False.
        gradient: something that can be called.
        generator: None, or a generator on the device of `x`.
    Raises:
        ValueError: names the argument, what came and what is accepted.
    """
    check_ball(x, eps, norm)
    check_inputs(model, x, y, targeted=targeted, generator=generator)
    check_callable("gradient", gradient)


def check_inputs(
    model: nn.Module, x: Tensor, y: Tensor, *, targeted: bool = False, generator: torch.Generator | None = None
) -> None:
    """The arguments that all evasion attacks share, those that seek the least distortion too.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`, or a `Query`.
        x: inputs, floating point `(N, C, H, W)` in [0, 1].
        y: labels `(N,)`, int64.
        targeted: True or False.
        generator: None, or a generator on the device of `x`.
    Raises:
        ValueError: names the argument, what came and what is accepted.
    """
    check_images(x)
    check_labels(y, x)
    check_model(model, x)
    check_flag("targeted", targeted)
    check_generator(generator, x.device)


def check_steps(steps: int, step_size: float | None) -> None:
    """Raise `ValueError` unless `steps` counts at least one step and `step_size` is None or positive."""
    check_count("steps", steps)
    if step_size is not None:
        check_number("step_size", step_size, low=0, exclusive=True)


def check_classes(y: Tensor, scores: Tensor, name: str = "y") -> None:
    """Raise `ValueError` unless `scores`, `(N, K)`, have a class for each label.

    >>> check_classes(torch.tensor([3]), torch.zeros(1, 3))
    Traceback (most recent call last):
    ValueError: y has a label 3; accepted: 0 to 2, the classes of the model
    """
    classes = scores.shape[1]
    if len(y) and y.max() >= classes:
        raise ValueError(f"{name} has a label {y.max().item()}; accepted: 0 to {classes - 1}, the classes of the model")


def check_logits(logits: Tensor, y: Tensor) -> None:
    """Raise `ValueError` unless `logits` are finite scores `(N, K)` that have a class for each label.

    >>> check_logits(torch.tensor([[0.3, 0.7]]), torch.tensor([1]))
    Traceback (most recent call last):
    ValueError: model returns probabilities (rows are positive and sum to 1); accepted: logits, before the softmax
    """
    shaped = isinstance(logits, Tensor) and logits.ndim == 2 and logits.shape[0] == len(y) and logits.shape[1] >= 2
    if not shaped or not logits.is_floating_point():
        raise ValueError(f"model returns {describe(logits)}; accepted: logits of shape ({len(y)}, K), K at least 2")
    if len(y) == 0:
        return
    scores = logits.detach()
    low, high = (bound.item() for bound in scores.aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("model returns NaN or infinite logits; accepted: finite logits")
    check_classes(y, scores)
    rounding = 4 * scores.shape[1] * torch.finfo(scores.dtype).eps
    if low >= 0 and high <= 1 and (scores.sum(1) - 1).abs().max() < rounding:
        raise ValueError(
            "model returns probabilities (rows are positive and sum to 1); accepted: logits, before the softmax"
        )

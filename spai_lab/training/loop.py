"""Training: one loop for every victim, that can be watched, stopped early, interrupted and continued."""

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from spai_lab.checks import (
    check_callable,
    check_count,
    check_flag,
    check_generator,
    check_images,
    check_labels,
    check_model,
    check_number,
    describe,
)
from spai_lab.metrics import accuracy_rate
from spai_lab.threat import fresh_generator, logits_of
from spai_lab.training.checkpoints import Run, discard, restore, save
from spai_lab.training.digests import digest_tensors

Perturb = Callable[[nn.Module, Tensor, Tensor], Tensor]
Objective = Callable[[nn.Module, Tensor, Tensor, float], Tensor]
WARM_UP = 0.25


class Diverged(RuntimeError):
    """The training loss became infinite or NaN; the message says what to do."""


@dataclass(frozen=True)
class History:
    """What a training run saw.

    Args:
        losses: mean training loss of each epoch.
        accuracies: validation accuracy after each epoch, in [0, 1]; empty without validation data.
        best: number of the epoch, from 0, whose weights the model has.
        seconds: wall-clock time of the epochs.
    """

    losses: tuple[float, ...]
    accuracies: tuple[float, ...]
    best: int
    seconds: float

    @property
    def epochs(self) -> int:
        """How many epochs ran."""
        return len(self.losses)


def fit(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    epochs: int,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
    x_val: Tensor | None = None,
    y_val: Tensor | None = None,
    patience: int | None = None,
    perturb: Perturb | None = None,
    objective: Objective | None = None,
    generator: torch.Generator | None = None,
    checkpoint: Path | None = None,
    progress: bool = True,
) -> History:
    r"""Train a model in place: AdamW on the cross-entropy, while the learning rate warms up, then falls to zero.

    $\min_\theta \frac{1}{N} \sum_i L(f_\theta(g(x_i)), y_i)$, with $g$ what `perturb` does, or nothing.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`; comes back in the mode in which it came.
        x: inputs, floating point `(N, C, H, W)` in [0, 1], N at least 1.
        y: labels `(N,)`, int64.
        epochs: passes over the data, at most.
        batch_size: inputs of a step.
        learning_rate: the highest, reached after a quarter of the steps.
        weight_decay: how strongly each step pulls the weights to zero, as a multiple of the learning rate.
        x_val, y_val: validation data, like `x` and `y`; never test data.
        patience: stop after so many epochs in a row without a better validation accuracy, and take the best epoch's
            weights; None runs all epochs and takes the last one's.
        perturb: `(model, x, y) -> x`, called on every batch: the hook of adversarial training and of augmentation. A
            run can be continued exactly if it draws from `generator` too.
        objective: `(model, x, y, t) -> loss`, a scalar, with t the share of the steps that are done: what robust
            training puts in place of the cross-entropy. What holds for `perturb` holds for it.
        generator: shuffles the data, on the device of `x`; None draws a fresh one.
        checkpoint: a file that keeps the run after each epoch. Where it exists, the run goes on from it, to the same
            weights as without the interruption; a finished run removes it.
        progress: show a bar with the time left.
    Returns:
        losses, validation accuracies and time.
    Raises:
        ValueError: names the argument; `checkpoint` too, if it belongs to another run.
        Diverged: the loss became infinite or NaN.
    Reference: Loshchilov and Hutter 2017, arXiv 1711.05101, algorithm 2 (AdamW).

    >>> x, y = torch.tensor([0.1, 0.2, 0.8, 0.9]).view(-1, 1, 1, 1), torch.tensor([0, 0, 1, 1])
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    >>> fit(model, x, y, epochs=100, learning_rate=0.3, progress=False).epochs
    100
    >>> accuracy(model, x, y)
    1.0
    """
    check_data(model, x, y, x_val, y_val)
    check_settings(epochs, batch_size, learning_rate, weight_decay, patience, perturb, checkpoint, progress)
    if objective is not None:
        check_callable("objective", objective)
    check_generator(generator, x.device)
    if patience is not None and x_val is None:
        raise ValueError("patience needs validation data: x_val and y_val are None")
    generator = fresh_generator(generator, x.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    run = Run()
    if checkpoint:
        settings = [epochs, batch_size, learning_rate, weight_decay, patience, digest_tensors({"x": x, "y": y})]
        run = restore(checkpoint, settings, model, optimizer, generator)
    steps = math.ceil(len(x) / batch_size)
    bar = tqdm(total=epochs * steps, initial=run.epoch * steps, desc="training", unit="step", disable=not progress)
    with bar, in_mode(model, training=True):
        while run.epoch < epochs and not run.stale(patience):
            start, losses = time.perf_counter(), []
            for step, batch in enumerate(shuffled(x, batch_size, generator), start=run.epoch * steps + 1):
                optimizer.param_groups[0]["lr"] = learning_rate * schedule(step / (epochs * steps + 1))
                x_batch = perturbed(model, x[batch], y[batch], perturb)
                loss = loss_of(model, x_batch, y[batch], objective, (step - 1) / (epochs * steps), learning_rate)
                losses.append(finite(loss, learning_rate) * len(batch))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                bar.update()
            run.losses.append(sum(losses) / len(x))
            if x_val is not None:
                run.accuracies.append(validated(model, x_val, y_val, learning_rate))
            run.remember(model, patience)
            run.seconds += time.perf_counter() - start
            bar.set_postfix(run.latest(), refresh=False)
            if checkpoint:
                save(checkpoint, settings, run, model, optimizer, generator)
    if run.best_weights is not None:
        model.load_state_dict(run.best_weights)
    if checkpoint:
        discard(checkpoint)
    return History(tuple(run.losses), tuple(run.accuracies), run.best, run.seconds)


def accuracy(model: nn.Module, x: Tensor, y: Tensor, *, batch_size: int = 1000) -> float:
    """The share of inputs that the model gets right, in evaluation mode.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`; comes back in the mode in which it came.
        x: inputs `(N, C, H, W)` in [0, 1], N at least 1.
        y: labels `(N,)`, int64.
        batch_size: inputs at a time.
    Returns:
        a share in [0, 1]; `spai_lab.metrics.accuracy_rate` gives its interval too.
    Raises:
        ValueError: names the argument.

    >>> accuracy(nn.Flatten(), torch.eye(3).view(3, 3, 1, 1) / 2, torch.tensor([0, 1, 0])) == 2 / 3
    True
    """
    with in_mode(model, training=False):
        return accuracy_rate(model, x, y, batch_size=batch_size).value


def schedule(t: float) -> float:
    r"""The learning rate after a share `t` of the steps, as a share of the highest.

    $\min\left(\frac{t}{w}, \frac{1}{2} + \frac{1}{2} \cos \pi \frac{t - w}{1 - w}\right)$, the warm-up $w$ being 1/4.

    >>> [round(schedule(t), 2) for t in (0.0, 0.125, 0.25, 0.625, 1.0)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    return min(t / WARM_UP, (1 + math.cos(math.pi * (t - WARM_UP) / (1 - WARM_UP))) / 2)


def shuffled(x: Tensor, batch_size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Indices of all inputs in random order, batch by batch."""
    return torch.randperm(len(x), device=x.device, generator=generator).split(batch_size)


def perturbed(model: nn.Module, x: Tensor, y: Tensor, perturb: Perturb | None) -> Tensor:
    """The batch to train on; a hook that does not return one is named."""
    if perturb is None:
        return x
    changed = perturb(model, x, y)
    if not isinstance(changed, Tensor) or changed.shape != x.shape:
        raise ValueError(f"perturb returns {describe(changed)}; accepted: a tensor of the shape of its x, {x.shape}")
    return changed.detach()


def loss_of(
    model: nn.Module, x: Tensor, y: Tensor, objective: Objective | None, t: float, learning_rate: float
) -> Tensor:
    """The loss of a batch; an objective that does not return one is named."""
    if objective is None:
        return F.cross_entropy(model(x), y)
    try:
        loss = objective(model, x, y, t)
    except ValueError as error:
        if all(parameter.isfinite().all() for parameter in model.parameters()):
            raise
        raise diverged("The weights became infinite or NaN", learning_rate) from error
    if not isinstance(loss, Tensor) or loss.shape != () or not loss.requires_grad:
        raise ValueError(f"objective returns {describe(loss)}; accepted: a scalar tensor that depends on the weights")
    return loss


def finite(loss: Tensor, learning_rate: float) -> float:
    """The loss as a number, if it is one."""
    value = loss.item()
    if not math.isfinite(value):
        raise diverged(f"The training loss became {value}", learning_rate)
    return value


def validated(model: nn.Module, x: Tensor, y: Tensor, learning_rate: float) -> float:
    """The accuracy on validation data, which was checked before: what fails now is the model."""
    try:
        return accuracy(model, x, y)
    except ValueError as error:
        raise diverged(f"The {error}", learning_rate) from error


def diverged(what: str, learning_rate: float) -> Diverged:
    """The error that says what happened and what to do."""
    return Diverged(
        f"{what}: build the model again and train it with a lower learning_rate than {learning_rate:g}; if that does "
        "not help, look at what perturb returns."
    )


@contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Training or evaluation mode for a while; afterwards each module is in its own again."""
    modes = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def check_data(model: nn.Module, x: Tensor, y: Tensor, x_val: Tensor | None, y_val: Tensor | None) -> None:
    """Raise `ValueError` unless there is data, and the model has a logit for each of its labels."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"model is {describe(model)}; accepted: a torch.nn.Module")
    if (x_val is None) != (y_val is None):
        raise ValueError("x_val and y_val go together; one of them is None")
    for suffix, inputs, labels in (("", x, y), ("_val", x_val, y_val)):
        if suffix and inputs is None:
            continue
        check_images(inputs, f"x{suffix}")
        if len(inputs) == 0:
            raise ValueError(f"x{suffix} is empty; accepted: at least one input")
        check_labels(labels, inputs, f"y{suffix}")
        check_model(model, inputs)
        with torch.no_grad(), in_mode(model, training=False):
            logits_of(model, inputs[:1], labels.max().view(1))


def check_settings(
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    patience: int | None,
    perturb: Perturb | None,
    checkpoint: Path | None,
    progress: bool,
) -> None:
    """Raise `ValueError` unless each setting of `fit` is in its range."""
    check_count("epochs", epochs)
    check_count("batch_size", batch_size)
    check_number("learning_rate", learning_rate, low=0, exclusive=True)
    check_number("weight_decay", weight_decay, low=0)
    if patience is not None:
        check_count("patience", patience)
    if perturb is not None:
        check_callable("perturb", perturb)
    if checkpoint is not None and not isinstance(checkpoint, str | os.PathLike):
        raise ValueError(f"checkpoint is {describe(checkpoint)}; accepted: the path of a file")
    check_flag("progress", progress)

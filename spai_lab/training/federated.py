r"""Federated averaging: participants train on data that never leaves them, a server averages what they send.

A participant is a plain function from the server's model and the number of the round to an update, a vector `(D,)` of
all weights. An honest one trains; an attacker is any other function of that form.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from tqdm.auto import trange

from spai_lab.checks import (
    check_callable,
    check_count,
    check_flag,
    check_images,
    check_labels,
    check_number,
    describe,
)
from spai_lab.threat import fresh_generator
from spai_lab.training.loop import check_data, finite, shuffled

Shard = tuple[Tensor, Tensor]
Participant = Callable[[nn.Module, int], Tensor]
Aggregate = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False, repr=False)
class FederatedHistory:
    """What the server saw.

    Args:
        norms: the L2 norm of each participant's update, `(rounds, n)`.
        observed: what `observe` returned: of the first model, then after each round; empty without it.
    """

    norms: Tensor
    observed: tuple

    def __repr__(self) -> str:
        rounds, participants = self.norms.shape
        return f"FederatedHistory: {rounds} rounds of {participants} participants"


def federated_averaging(
    model: nn.Module,
    participants: Sequence[Participant],
    *,
    rounds: int,
    weights: Sequence[float] | None = None,
    aggregate: Aggregate | None = None,
    server_rate: float = 1.0,
    observe: Callable[[nn.Module], object] | None = None,
    progress: bool = True,
) -> tuple[nn.Module, FederatedHistory]:
    r"""Federated averaging: each round, all participants train the server's model on their own data.

    $\theta \leftarrow \theta + \eta \sum_i \frac{n_i}{\sum_j n_j} \, (\theta_i - \theta)$, with $\theta_i$ what
    participant i made of $\theta$; a robust server puts another `aggregate` in the sum's place.

    Args:
        model: the first model, `(N, C, H, W)` in [0, 1] to logits `(N, K)`; it stays as it is.
        participants: n functions `(model, round) -> update`, `(D,)`, such as `participant` makes.
        rounds: how often the server averages.
        weights: $n_i$, such as the sizes of the shards, n numbers of at least 0; None weighs all alike. Only the mean
            knows weights.
        aggregate: from updates `(n, D)` to one, `(D,)`, such as `coordinate_median`; None takes the weighted mean.
        server_rate: $\eta$, above 0; 1 replaces the model by the average.
        observe: called with the model, in evaluation mode, before the first round and after each.
        progress: show a bar.
    Returns:
        the final model, in evaluation mode, and what the server saw.
    Raises:
        ValueError: names the argument.
    Reference: McMahan 2016, arXiv 1602.05629, algorithm 1; $\eta$ as in Bagdasaryan 2018, arXiv 1807.00459, equation 1.
    Survey: Private AI, MPC.
    Simplified: all in one process; every participant takes part in every round (C = 1). Buffers, such as a batch
        norm's averages, stay the first model's.

    >>> def pull(model, round):
    ...     return torch.tensor([1.0, 3.0])
    >>> model = nn.Linear(2, 1, bias=False)
    >>> _ = nn.init.zeros_(model.weight)
    >>> final, history = federated_averaging(model, [pull, pull], rounds=2, progress=False)
    >>> final.weight.tolist(), history
    ([[2.0, 6.0]], FederatedHistory: 2 rounds of 2 participants)
    """
    check_federation(model, participants, rounds, aggregate, server_rate, observe, progress)
    if aggregate is None:
        aggregate = partial(weighted_mean, weights=weighted(weights, len(participants)))
    elif weights is not None:
        raise ValueError("weights go with the mean; accepted: None where aggregate is given")
    model = copy.deepcopy(model).eval()
    theta, norms, observed = vector_of(model), [], []
    if observe is not None:
        observed.append(observe(model))
    for number in trange(rounds, desc="federated averaging", unit="round", disable=not progress):
        updates = torch.stack([checked_update(send(model, number), theta, i) for i, send in enumerate(participants)])
        theta = theta + server_rate * aggregate(updates)
        vector_to_parameters(theta.clone(), model.parameters())
        norms.append(updates.norm(dim=1))
        if observe is not None:
            observed.append(observe(model))
    return model, FederatedHistory(torch.stack(norms), tuple(observed))


def participant(
    x: Tensor,
    y: Tensor,
    *,
    epochs: int = 5,
    batch_size: int = 10,
    learning_rate: float = 0.05,
    generator: torch.Generator | None = None,
) -> Participant:
    r"""An honest participant: stochastic gradient descent from the server's model on its own data.

    $\theta_i \leftarrow \theta_i - \alpha \nabla L(\theta_i; b)$ for each batch b of each epoch; it sends
    $\theta_i - \theta$.

    Args:
        x: its inputs, float `(N, C, H, W)` in [0, 1], N at least 1.
        y: their labels `(N,)`, int64.
        epochs: E, passes over its data in a round.
        batch_size: B, inputs of a step.
        learning_rate: $\alpha$, above 0.
        generator: shuffles the data; None draws a fresh one.
    Returns:
        `(model, round) -> update`, `(D,)`.
    Raises:
        ValueError: names the argument.
    Reference: McMahan 2016, arXiv 1602.05629, algorithm 1, ClientUpdate; E = 5 and B = 10 from table 2.

    >>> x, y = torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 0, 1])
    >>> participant(x, y)(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), 0).shape
    torch.Size([10])
    """
    check_images(x)
    check_labels(y, x)
    check_count("epochs", epochs)
    check_count("batch_size", batch_size)
    check_number("learning_rate", learning_rate, low=0, exclusive=True)
    if len(x) == 0:
        raise ValueError("x is empty; accepted: at least one input")
    generator = fresh_generator(generator, x.device)

    def send(model: nn.Module, round: int) -> Tensor:
        check_data(model, x, y, None, None)
        local = copy.deepcopy(model).train()
        for _ in range(epochs):
            for batch in shuffled(x, batch_size, generator):
                step(local, F.cross_entropy(local(x[batch]), y[batch]), learning_rate)
        return vector_of(local) - vector_of(model)

    return send


def step(model: nn.Module, loss: Tensor, learning_rate: float) -> None:
    """One step of gradient descent, in place; a loss that is not finite raises `Diverged`."""
    finite(loss, learning_rate)
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(loss, parameters)
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter -= learning_rate * gradient


def vector_of(model: nn.Module) -> Tensor:
    """All weights of a model as one vector `(D,)`, detached."""
    return parameters_to_vector(model.parameters()).detach().clone()


def split_evenly(x: Tensor, y: Tensor, count: int, *, generator: torch.Generator | None = None) -> list[Shard]:
    """Deal the inputs out at random: every participant's data look alike.

    Args:
        x: inputs `(N, C, H, W)` in [0, 1].
        y: their labels `(N,)`, int64.
        count: number of shards, at most N.
        generator: source of the draw; None draws a fresh one.
    Returns:
        `count` pairs of inputs and labels, their sizes equal to within one.
    Raises:
        ValueError: names the argument.
    Reference: McMahan 2016, arXiv 1602.05629, section 3, "IID".

    >>> [len(y) for _, y in split_evenly(torch.zeros(7, 1, 1, 1), torch.arange(7), 3)]
    [3, 2, 2]
    """
    check_split(x, y, count)
    order = torch.randperm(len(y), generator=fresh_generator(generator, x.device), device=x.device)
    return [(x[places], y[places]) for places in order.tensor_split(count)]


def split_by_class(
    x: Tensor, y: Tensor, count: int, *, pieces: int = 2, generator: torch.Generator | None = None
) -> list[Shard]:
    """Sort the inputs by label, cut them, and deal the pieces out: each participant knows few classes.

    Args:
        x: inputs `(N, C, H, W)` in [0, 1].
        y: their labels `(N,)`, int64.
        count: number of shards.
        pieces: how many pieces each gets, at least 1; `count` times `pieces` is at most N.
        generator: source of the draw; None draws a fresh one.
    Returns:
        `count` pairs of inputs and labels.
    Raises:
        ValueError: names the argument.
    Reference: McMahan 2016, arXiv 1602.05629, section 3, "Non-IID".

    >>> shards = split_by_class(torch.zeros(8, 1, 1, 1), torch.arange(8) // 2, 2)
    >>> [len(y.unique()) for _, y in shards]
    [2, 2]
    """
    check_count("pieces", pieces)
    check_split(x, y, count, pieces)
    cut = y.argsort(stable=True).tensor_split(count * pieces)
    dealt = torch.randperm(len(cut), generator=fresh_generator(generator, x.device), device=x.device)
    hands = [torch.cat([cut[i] for i in hand]) for hand in dealt.view(count, pieces).tolist()]
    return [(x[places], y[places]) for places in hands]


def weighted_mean(updates: Tensor, weights: Tensor) -> Tensor:
    """The mean of updates `(n, D)` with weights `(n,)` that add to 1."""
    return weights.to(updates) @ updates


def weighted(weights: Sequence[float] | None, count: int) -> Tensor:
    """The weights as shares that add to 1, `(n,)`; equal ones for None."""
    if weights is None:
        return torch.full((count,), 1 / count)
    weights = list(weights)
    for weight in weights:
        check_number("weights", weight, low=0)
    if len(weights) != count or sum(weights) == 0:
        raise ValueError(f"weights is {describe(weights)}; accepted: {count} numbers, not all 0")
    return torch.tensor(weights, dtype=torch.float64) / sum(weights)


def checked_update(update: Tensor, theta: Tensor, number: int) -> Tensor:
    """An update, if it is one; `ValueError` or `Diverged` says which participant sent something else."""
    if not isinstance(update, Tensor) or update.shape != theta.shape or update.dtype != theta.dtype:
        raise ValueError(f"participant {number} sends {describe(update)}; accepted: {describe(theta)}")
    if not update.isfinite().all():
        raise ValueError(f"participant {number} sends NaN or infinite values; accepted: finite values")
    return update


def check_split(x: Tensor, y: Tensor, count: int, pieces: int = 1) -> None:
    """Raise `ValueError` unless there is an input for each piece."""
    check_images(x)
    check_labels(y, x)
    check_count("count", count)
    check_number("count", count, high=len(y) // pieces, low=1)


def check_federation(
    model: nn.Module,
    participants: Sequence[Participant],
    rounds: int,
    aggregate: Aggregate | None,
    server_rate: float,
    observe: Callable | None,
    progress: bool,
) -> None:
    """Raise `ValueError` unless each setting of `federated_averaging` is in its range."""
    if not isinstance(model, nn.Module) or next(model.parameters(), None) is None:
        raise ValueError(f"model is {describe(model)}; accepted: a torch.nn.Module with parameters")
    if not isinstance(participants, Sequence) or not participants:
        raise ValueError(f"participants is {describe(participants)}; accepted: a list of at least one function")
    for send in participants:
        check_callable("participants", send)
    check_count("rounds", rounds)
    for name, hook in (("aggregate", aggregate), ("observe", observe)):
        if hook is not None:
            check_callable(name, hook)
    check_number("server_rate", server_rate, low=0, exclusive=True)
    check_flag("progress", progress)

r"""Federated averaging: participants train on data that never leaves them, a server averages what they send.

A participant is a plain function from the server's model and the number of the round to an update, a vector `(D,)` of
all weights. An honest one trains; an attacker is any other function of that form. Server and participants are the
parties of `spai_lab.training.parties`, which talk over channels.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spai_lab.checks import (
    check_callable,
    check_choice,
    check_count,
    check_flag,
    check_generator,
    check_images,
    check_labels,
    check_number,
    describe,
)
from spai_lab.crypto.channel import MAX_FRAME
from spai_lab.crypto.parties import PartyLost, consequence, run_parties
from spai_lab.threat import fresh_generator
from spai_lab.training.loop import check_data, finite, shuffled
from spai_lab.training.parties import (
    Aggregate,
    FederatedHistory,
    Participant,
    built_client,
    client,
    server,
    vector_of,
    weighted,
)

Shard = tuple[Tensor, Tensor]
VIEW_BYTES = 2**28


def federated_averaging(
    model: nn.Module,
    participants: Sequence[Participant],
    *,
    rounds: int,
    weights: Sequence[float] | None = None,
    aggregate: Aggregate | None = None,
    server_rate: float = 1.0,
    sample: float = 1.0,
    dropout: float = 0.0,
    deadline: float | None = None,
    generator: torch.Generator | None = None,
    observe: Callable[[nn.Module], object] | None = None,
    view: bool = False,
    transport: str = "threads",
    progress: bool = True,
) -> tuple[nn.Module, FederatedHistory]:
    r"""Federated averaging: each round, participants train the server's model on their own data.

    $\theta \leftarrow \theta + \eta \sum_{i \in S} \frac{n_i}{\sum_{j \in S} n_j} \, (\theta_i - \theta)$, with S a
    random share C of the participants, less those who drop out, and $\theta_i$ what participant i made of $\theta$;
    a robust server puts another `aggregate` in the sum's place. Server and participants talk over channels alone.

    Args:
        model: the first model, `(N, C, H, W)` in [0, 1] to logits `(N, K)`; it stays as it is.
        participants: n functions `(model, round) -> update`, `(D,)`, such as `participant` makes. One that returns
            None, or raises an `OSError` such as `ConnectionError`, drops out of that round; any other error is raised.
        rounds: how often the server averages.
        weights: $n_i$, such as the sizes of the shards, n numbers of at least 0; None weighs all alike. Only the mean
            knows weights.
        aggregate: from updates `(n, D)` to one, `(D,)`, such as `coordinate_median`; None takes the weighted mean.
        server_rate: $\eta$, above 0; 1 replaces the model by the average.
        sample: C, the share of the participants that a round asks, above 0, at most 1; $\lceil C n \rceil$ are drawn.
        dropout: the probability that one who is asked drops out of the round, in [0, 1], each for itself.
        deadline: seconds within which an update must come; None waits for all. A later one is not used.
        generator: draws who is asked and who drops out, on the CPU; None draws a fresh one.
        observe: called with the model, in evaluation mode, before the first round and after each.
        view: keep what the server and each participant saw, 256 MiB at most.
        transport: "threads", where the participants are asked one after the other, so that those who share a generator
            draw in order; or "processes", where they train at the same time, each in a process of its own, and talk
            over TCP on this machine. There `participants` are n functions `() -> participant` that `pickle` finds in
            a module; each is called where it runs.
        progress: show a bar.
    Returns:
        the final model, in evaluation mode, and what the server saw. A round without an update leaves the model.
    Raises:
        ValueError: names the argument.
        Exception: what a participant raised.
    Reference: McMahan 2016, arXiv 1602.05629, algorithm 1; $\eta$ as in Bagdasaryan 2018, arXiv 1807.00459, equation 1.
    Survey: Private AI, MPC.
    Simplified: who drops out says so in a short message, which stands for a deadline that passes. Buffers, such as a
        batch norm's averages, stay the first model's.

    >>> def pull(model, round):
    ...     return torch.tensor([1.0, 3.0])
    >>> model = nn.Linear(2, 1, bias=False)
    >>> _ = nn.init.zeros_(model.weight)
    >>> final, history = federated_averaging(model, [pull, pull], rounds=2, progress=False)
    >>> final.weight.tolist(), history
    ([[2.0, 6.0]], FederatedHistory: 2 rounds of 2 participants)
    >>> history.bytes_up.tolist()  # a frame: length 4, "update" 11, round 6, vector 7 + 2 * 4
    [[36, 36], [36, 36]]
    """
    check_federation(model, participants, rounds, weights, aggregate, server_rate, observe, progress)
    check_availability(sample, dropout, deadline, generator, view, transport)
    count, generator = len(participants), fresh_generator(generator, torch.device("cpu"))
    absent = torch.rand(rounds, count, generator=generator) < dropout
    serve = partial(
        server,
        model=model,
        rounds=rounds,
        weights=weights,
        aggregate=aggregate,
        server_rate=server_rate,
        sample=sample,
        deadline=deadline,
        in_turn=transport == "threads",
        generator=generator,
        observe=observe,
        progress=progress,
    )
    party = client if transport == "threads" else built_client
    clients = [
        partial(party, send=send, model=model, absent=absent[:, i].nonzero()[:, 0].tolist())
        for i, send in enumerate(participants)
    ]
    served, *seen = run_parties(
        serve,
        *clients,
        transport=transport,
        topology="star",
        names=["the server", *(f"participant {i}" for i in range(count))],
        timeout=None,
        max_frame=max(MAX_FRAME, 2 * vector_of(model).nbytes),
        view=VIEW_BYTES // (2 * count) if view else None,
        return_exceptions=True,
    )
    errors = [outcome for outcome in (served, *seen) if isinstance(outcome, BaseException)]
    if not all(isinstance(error, PartyLost) for error in errors):
        raise min(errors, key=consequence)
    model, history = served
    if not view:
        return model, history
    kept = [(None, 0) if isinstance(outcome, PartyLost) else outcome for outcome in seen]
    unseen = history.unseen + sum(missed for _, missed in kept)
    return model, replace(history, client_views=tuple(known for known, _ in kept), unseen=unseen)


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
    weights: Sequence[float] | None,
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
    if aggregate is None:
        weighted(weights, len(participants))
    elif weights is not None:
        raise ValueError("weights go with the mean; accepted: None where aggregate is given")


def check_availability(
    sample: float,
    dropout: float,
    deadline: float | None,
    generator: torch.Generator | None,
    view: bool,
    transport: str,
) -> None:
    """Raise `ValueError` unless who takes part, and how, can be drawn and done."""
    check_number("sample", sample, low=0, high=1, exclusive=True)
    check_number("dropout", dropout, low=0, high=1)
    if deadline is not None:
        check_number("deadline", deadline, low=0, exclusive=True)
    check_generator(generator, torch.device("cpu"))
    check_flag("view", view)
    check_choice("transport", transport, ("threads", "processes"))

r"""The two parties of federated averaging, as they talk over channels: a server, and clients that have the data.

Each round the server sends "model" (number of the round, weights) to some clients. A client answers "update" (number,
update), "absent" (number, why) if it drops out, or "failed" (number, error) if its code is wrong; "stop" ends it all.
"""

import copy
import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from tqdm.auto import trange

from spai_lab.checks import check_number, describe
from spai_lab.crypto.channel import Channel, Disconnected
from spai_lab.crypto.frames import ProtocolError

Participant = Callable[[nn.Module, int], Tensor | None]
Aggregate = Callable[[Tensor], Tensor]
REQUESTS = {"model": (int, Tensor), "stop": ()}
ANSWERS = {"update": (int, Tensor), "absent": (int, str), "failed": (int, str)}


@dataclass(frozen=True, eq=False, repr=False)
class FederatedHistory:
    """What the server saw and counted.

    Args:
        norms: the L2 norm of each participant's update, `(rounds, n)`; NaN where none came.
        observed: what `observe` returned: of the first model, then after each round; empty without it.
        asked: who was drawn for the round, bool `(rounds, n)`.
        took_part: whose update is in the round's average, bool `(rounds, n)`.
        absences: `(round, participant, why)` of each who was drawn and is not in the average.
        bytes_down: from the server to each participant, frames with their lengths, int64 `(rounds, n)`.
        bytes_up: from each participant to the server, as they arrive, int64 `(rounds, n)`. The "stop" that ends it all
            counts for no round.
        server_view: with `view`, for each round what arrived for it, `{participant: update}`, the updates that came too
            late for the average too; else None.
        client_views: with `view`, what each participant saw, `{round: weights}`, or None if it was lost; else None.
        unseen: messages that no longer fit into the views.
    """

    norms: Tensor
    observed: tuple
    asked: Tensor
    took_part: Tensor
    absences: tuple[tuple[int, int, str], ...]
    bytes_down: Tensor
    bytes_up: Tensor
    server_view: tuple[dict[int, Tensor], ...] | None = None
    client_views: tuple[dict[int, Tensor] | None, ...] | None = None
    unseen: int = 0

    def __repr__(self) -> str:
        rounds, participants = self.norms.shape
        return f"FederatedHistory: {rounds} rounds of {participants} participants"


def server(
    *channels: Channel,
    model: nn.Module,
    rounds: int,
    weights: Sequence[float] | None = None,
    aggregate: Aggregate | None = None,
    server_rate: float = 1.0,
    sample: float = 1.0,
    deadline: float | None = None,
    in_turn: bool = True,
    generator: torch.Generator,
    observe: Callable[[nn.Module], object] | None = None,
    progress: bool = True,
) -> tuple[nn.Module, FederatedHistory]:
    r"""The server: ask some clients for updates, average those that come, repeat.

    $\theta \leftarrow \theta + \eta \sum_{i \in S} \frac{n_i}{\sum_{j \in S} n_j} U_i$, with S those of the
    $\lceil C n \rceil$ clients asked who answered in time. If nobody did, the model stays.

    Args:
        channels: one to each client.
        in_turn: ask a client once the one before has answered; else ask all, then listen.
        model, rounds, weights, aggregate, server_rate, sample, deadline, generator, observe, progress: as in
            `spai_lab.training.federated.federated_averaging`, which checks them.
    Returns:
        the final model, in evaluation mode, and what the server saw.
    Raises:
        ValueError: an update is no vector of finite weights.
        ProtocolError: a client failed, or broke the protocol.
    Reference: McMahan 2016, arXiv 1602.05629, algorithm 1, "Server executes".
    """
    model = copy.deepcopy(model).eval()
    theta, count = vector_of(model), len(channels)
    observed = [] if observe is None else [observe(model)]
    norms = torch.full((rounds, count), math.nan, dtype=theta.dtype)
    asked, took_part = torch.zeros(2, rounds, count, dtype=torch.bool)
    bytes_down, bytes_up = torch.zeros(2, rounds, count, dtype=torch.int64)
    absences, owing = [], set()
    for t in trange(rounds, desc="federated averaging", unit="round", disable=not progress):
        before = traffic(channels)
        clients = sampled(count, sample, generator)
        answers = {}
        for group in [[i] for i in clients] if in_turn else [clients]:
            answers |= exchange(channels, group, theta, t, deadline, owing)
        bytes_down[t], bytes_up[t] = traffic(channels) - before
        updates = {i: checked_update(u.to(theta.device), theta, i) for i, u in answers.items() if isinstance(u, Tensor)}
        absences += [(t, i, why) for i, why in answers.items() if isinstance(why, str)]
        asked[t, clients] = True
        if updates:
            present, stacked = list(updates), torch.stack(list(updates.values()))
            took_part[t, present] = True
            norms[t, present] = stacked.norm(dim=1).cpu()
            theta = theta + server_rate * averaged(stacked, present, weights, aggregate)
            vector_to_parameters(theta.clone(), model.parameters())
        if observe is not None:
            observed.append(observe(model))
    for channel in channels:
        dismiss(channel)
    counts = (norms, tuple(observed), asked, took_part, tuple(absences), bytes_down, bytes_up)
    return model, FederatedHistory(*counts, views(channels, rounds), unseen=sum(channel.unseen for channel in channels))


def client(
    channel: Channel, send: Participant, model: nn.Module, *, absent: Collection[int] = ()
) -> tuple[dict[int, Tensor] | None, int]:
    """A client: whenever the server sends its model, answer with what the participant makes of it.

    Args:
        channel: to the server.
        send: the participant, `(model, round) -> update`, `(D,)`. It drops out of a round by returning None or by
            raising an `OSError`, such as `ConnectionError` or `TimeoutError`; any other error ends the federation.
        model: of the server's architecture; its weights are overwritten, in a copy.
        absent: rounds in which it drops out.
    Returns:
        what it saw, `{round: weights}`, None unless the channel keeps a view; how many messages that leaves out.
    Reference: McMahan 2016, arXiv 1602.05629, algorithm 1, "ClientUpdate".
    """
    model = copy.deepcopy(model).eval()
    device = next(model.parameters()).device
    while (request := channel.receive_any(REQUESTS)).kind == "model":
        t, theta = request.values
        vector_to_parameters(theta.to(device), model.parameters())
        try:
            update = None if t in absent else send(model, t)
            if update is not None and not isinstance(update, Tensor):
                raise ValueError(f"{channel.name} sends {describe(update)}; accepted: an update (D,), or None")
        except OSError as error:
            channel.send("absent", t, summary(error))
        except Exception as error:
            channel.send("failed", t, summary(error))
            raise
        else:
            channel.send(*(("absent", t, "dropped out") if update is None else ("update", t, update)))
    seen = channel.view
    return None if seen is None else dict(values for kind, values in seen if kind == "model"), channel.unseen


def built_client(
    channel: Channel, send: Callable[[], Participant], model: nn.Module, *, absent: Collection[int] = ()
) -> tuple[dict[int, Tensor] | None, int]:
    """A client that builds its participant, `send()`, where it runs: its data never were anywhere else."""
    try:
        participant = send()
    except Exception as error:
        channel.send("failed", 0, summary(error))
        raise
    return client(channel, participant, model, absent=absent)


def exchange(
    channels: Sequence[Channel], group: list[int], theta: Tensor, t: int, deadline: float | None, owing: set[int]
) -> dict[int, Tensor | str]:
    """Send the model to a group and listen: for each an update, or why there is none.

    `owing` keeps who has not answered yet; nobody is sent a second model before.
    """
    answers = {}
    for i in group:
        with excused(answers, i, "still busy with an earlier round"):
            if i in owing:
                hear(channels[i], 0)
                owing.remove(i)
            channels[i].send("model", t, theta)
            owing.add(i)
    end = math.inf if deadline is None else time.monotonic() + deadline
    for i in [i for i in group if i not in answers]:
        left = None if deadline is None else max(0.0, end - time.monotonic())
        with excused(answers, i, f"no answer within {deadline} s"):
            when, answer = hear(channels[i], left)
            if when != t:
                raise ProtocolError(f"{channels[i].peer} answers round {when} in round {t}")
            owing.remove(i)
            answers[i] = answer
    return answers


def hear(channel: Channel, timeout: float | None) -> tuple[int, Tensor | str]:
    """A client's answer: its round, and the update or why there is none."""
    kind, (t, answer) = channel.receive_any(ANSWERS, timeout=timeout)
    if kind == "failed":
        raise ProtocolError(f"{channel.peer} failed in round {t}: {answer}")
    return t, answer


@contextmanager
def excused(answers: dict[int, Tensor | str], i: int, late: str) -> Iterator[None]:
    """Note why a client takes no part, if time runs out or it has left."""
    try:
        yield
    except TimeoutError:
        answers[i] = late
    except Disconnected:
        answers[i] = "has left"


def sampled(count: int, fraction: float, generator: torch.Generator) -> list[int]:
    r"""Which clients a round asks: $\max(\lceil C n \rceil, 1)$ different ones, drawn uniformly; in order.

    >>> sampled(10, 1.0, torch.Generator()), len(sampled(10, 0.25, torch.Generator()))
    ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 3)
    """
    size = max(1, math.ceil(count * fraction - 1e-9))  # 100 times 0.07 is a little above 7
    if size == count:
        return list(range(count))
    return torch.randperm(count, generator=generator)[:size].sort()[0].tolist()


def averaged(
    updates: Tensor, present: list[int], weights: Sequence[float] | None, aggregate: Aggregate | None
) -> Tensor:
    """What the server makes of the updates `(m, D)` of those present: one, `(D,)`; zeros if they weigh nothing."""
    if aggregate is not None:
        combined = aggregate(updates)
        sound = isinstance(combined, Tensor) and combined.shape == updates.shape[1:] and combined.isfinite().all()
        if not sound:
            raise ValueError(f"aggregate returns {describe(combined)}; accepted: finite, ({updates.shape[1]},)")
        return combined
    chosen = None if weights is None else [weights[i] for i in present]
    if chosen is not None and sum(chosen) == 0:
        return torch.zeros_like(updates[0])
    return weighted_mean(updates, weighted(chosen, len(present)))


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
    """An update, if it is one; `ValueError` says which participant sent something else."""
    if not isinstance(update, Tensor) or update.shape != theta.shape or update.dtype != theta.dtype:
        raise ValueError(f"participant {number} sends {describe(update)}; accepted: {describe(theta)}")
    if not update.isfinite().all():
        raise ValueError(f"participant {number} sends NaN or infinite values; accepted: finite values")
    return update


def vector_of(model: nn.Module) -> Tensor:
    """All weights of a model as one vector `(D,)`, detached."""
    return parameters_to_vector(model.parameters()).detach().clone()


def traffic(channels: Sequence[Channel]) -> Tensor:
    """Bytes sent and received so far, int64 `(2, n)`."""
    return torch.tensor([[c.bytes_sent for c in channels], [c.bytes_received for c in channels]])


def dismiss(channel: Channel) -> None:
    """Tell a client that it is over, if it is still there."""
    try:
        channel.send("stop")
    except (Disconnected, TimeoutError):
        channel.close()


def views(channels: Sequence[Channel], rounds: int) -> tuple[dict[int, Tensor], ...] | None:
    """The updates that the server saw, round by round; None unless the channels keep a view."""
    seen = [{} for _ in range(rounds)]
    for i, channel in enumerate(channels):
        if (view := channel.view) is None:
            return None
        for kind, (t, update) in view:
            if kind == "update":
                seen[t][i] = update
    return tuple(seen)


def summary(error: Exception) -> str:
    """An error in one line, as the others are told of it."""
    return f"{type(error).__name__}: {error}"

r"""Federated averaging whose server sees no update: a round of it through secure aggregation.

Each client sends $n_i U_i$ and $n_i$ in fixed point; the server learns the two sums and divides. So it knows the
average, and how many examples are behind it, and neither a client's update nor its number of examples. What the average
itself tells of the data is another matter: attacks on single updates meet the mean of many, and differential privacy is
what bounds the rest.

A robust server, which compares updates, cannot do so any more: it does not see them. One client may still move the
average as far as it likes, within the bounds of the ring.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import vector_to_parameters

from spai_lab.checks import check_callable, check_count, check_number, describe
from spai_lab.crypto.secret_sharing_ring import RING, check_places, decode, encode, to_ring, to_signed
from spai_lab.crypto.secure_aggregation import Terms
from spai_lab.crypto.secure_aggregation_parties import DEADLINE, Aggregate, secure_sum
from spai_lab.training.parties import Participant, vector_of

PLACES = 24
Update = Tensor | Sequence[Tensor]


@dataclass(frozen=True, eq=False, repr=False)
class SecureAverage:
    """What the server has after a round.

    Args:
        update: the average of the clients in it, like an update: a tensor, or a list of tensors.
        examples: how many examples are behind it.
        aggregate: the sum that it comes from: who is in it, who left, bytes of each client, views.
    """

    update: Update
    examples: int
    aggregate: Aggregate

    def __repr__(self) -> str:
        count, clients = len(self.aggregate.included), len(self.aggregate.bytes_up)
        return f"SecureAverage: {count} of {clients} clients, {self.examples:,} examples"


def secure_federated_average(
    updates: Sequence[Update],
    examples: Sequence[int],
    *,
    threshold: int | None = None,
    places: int = PLACES,
    largest: float | None = None,
    round: int = 0,
    dropouts: Mapping[int, str] | None = None,
    deadline: float = DEADLINE,
    transport: str = "threads",
    view: int | None = None,
) -> SecureAverage:
    r"""The weighted mean of the updates of those who stay, of which the server sees none.

    $U = \sum_{i \in S} n_i U_i \,/ \sum_{i \in S} n_i$, where each $n_i U_i$ is rounded to a multiple of $2^{-f}$.
    So the sum is off by $|S| \, 2^{-f-1}$ at most, the mean by $2^{-f-1} |S| / \sum n_i$, at most $2^{-f-1}$, and by
    what the updates' own type rounds away.

    Args:
        updates: $U_i$, of each client a floating point tensor, or a list of tensors as `model.parameters()`; all alike.
        examples: $n_i$, whole numbers of at least 1.
        threshold: t, how many must stay; None takes the fewest there may be, more than half.
        places: f, binary places, from 0 to 62; $|n_i U_i|$ stays below $2^{63-f} / n$.
        largest: an agreed bound that $|n_i U_i|$ stays below, and $n_i$; None takes what the ring holds. A sum beyond
            n times this is refused, so that a small bound finds noise out.
        round: its number.
        dropouts, deadline, transport, view: as in `secure_sum`.
    Returns:
        the mean, in the type of the updates.
    Raises:
        ValueError: names the argument, among them an update that does not fit the fixed point.
        TooFewClients: fewer than t stay.
    Reference: McMahan et al. 2016, arXiv 1602.05629, algorithm 1, for the mean; Bonawitz et al. 2017, "Practical secure
        aggregation for privacy-preserving machine learning", IACR 2017/281, section 2, for the two sums.
    Survey: private AI, cryptography, multi-party computation.
    Simplified: as in `aggregation_server`; updates are rounded, not compressed.

    >>> updates = [torch.tensor([1.0, 2.0]), torch.tensor([4.0, 8.0]), torch.tensor([100.0, 100.0])]
    >>> average = secure_federated_average(updates, [2, 1, 5], dropouts={2: "masked input"})
    >>> average.update, average
    (tensor([2., 4.]), SecureAverage: 2 of 3 clients, 3 examples)
    """
    vectors = flattened(updates)
    if not isinstance(examples, Sequence) or len(examples) != len(vectors):
        raise ValueError(f"examples is {describe(examples)}; accepted: {len(vectors)} numbers, one for each update")
    for count in examples:
        check_count("examples", count)
    n = len(vectors)
    check_places(places, RING)
    most = None if largest is None else agreed_bound(largest, places)
    terms = Terms(n, n // 2 + 1 if threshold is None else threshold, len(vectors[0]) + 1, most, round)
    for vector, count in zip(vectors, examples, strict=True):
        check_fits(vector, int(count), places, terms)
    inputs = [weighted_input(vector, int(count), places) for vector, count in zip(vectors, examples, strict=True)]
    summed = secure_sum(inputs, terms, dropouts=dropouts, deadline=deadline, transport=transport, view=view)
    total = int(to_signed(summed.total)[-1])
    mean = torch.from_numpy(decode(summed.total[:-1], places) / total)
    return SecureAverage(like(mean, updates[0]), total, summed)


def secure_federated_round(
    model: nn.Module,
    participants: Sequence[Participant],
    examples: Sequence[int],
    *,
    round: int = 0,
    **settings: object,
) -> tuple[nn.Module, SecureAverage]:
    r"""A round of federated averaging: participants train, their updates are added unseen, the server moves its model.

    $\theta \leftarrow \theta + U$.

    Args:
        model: the server's; it stays as it is.
        participants: functions `(model, round) -> update`, `(D,)`, as `spai_lab.training.federated.participant` makes.
        examples: $n_i$, how many examples each has.
        round: its number; another one for each round.
        settings: as in `secure_federated_average`.
    Returns:
        the new model, in evaluation mode, and the average.
    Raises:
        ValueError: names the argument.
        TooFewClients: fewer than t stay.
    Reference: McMahan et al. 2016, arXiv 1602.05629, algorithm 1; Bonawitz et al. 2017, IACR 2017/281.
    Survey: private AI, cryptography, multi-party computation.
    Simplified: participants train one after the other, before the clients talk to the server.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> _ = nn.init.zeros_(model.weight)
    >>> pull = lambda model, round: torch.tensor([1.0, 3.0])
    >>> secure_federated_round(model, [pull, pull], [5, 5])[0].weight.tolist()
    [[1.0, 3.0]]
    """
    if not isinstance(model, nn.Module) or next(model.parameters(), None) is None:
        raise ValueError(f"model is {describe(model)}; accepted: a torch.nn.Module with parameters")
    if not isinstance(participants, Sequence):
        raise ValueError(f"participants is {describe(participants)}; accepted: a list of functions")
    for send in participants:
        check_callable("participants", send)
    updates = [send(copy.deepcopy(model).eval(), round) for send in participants]
    average = secure_federated_average(updates, examples, round=round, **settings)
    if average.update.shape != (theta := vector_of(model)).shape:
        raise ValueError(f"participants send {describe(average.update)}; accepted: {describe(theta)}")
    moved = copy.deepcopy(model).eval()
    vector_to_parameters(theta + average.update.to(theta), moved.parameters())
    return moved, average


def flattened(updates: Sequence[Update]) -> list[np.ndarray]:
    """Each update as one vector, float64 `(D,)`; `ValueError` unless all are alike."""
    if not isinstance(updates, list | tuple) or len(updates) < 2:
        raise ValueError(f"updates is {describe(updates)}; accepted: a list of at least 2")
    parts = [[update] if isinstance(update, Tensor) else update for update in updates]
    for each in parts:
        if not isinstance(each, list | tuple) or not all(isinstance(p, Tensor) and p.is_floating_point() for p in each):
            raise ValueError(f"updates holds {describe(each)}; accepted: floating point tensors, or lists of them")
        if [p.shape for p in each] != [p.shape for p in parts[0]] or not sum(p.numel() for p in each):
            raise ValueError(f"updates holds {list(map(describe, each))}; accepted: the shapes of the first, not empty")
    return [torch.cat([p.detach().cpu().double().flatten() for p in each]).numpy() for each in parts]


def agreed_bound(largest: float, places: int) -> int:
    """A bound in units of the last place.

    >>> agreed_bound(1.5, 4)
    24
    """
    check_number("largest", largest, low=0, exclusive=True)
    return math.ceil(math.ldexp(largest, places))


def weighted_input(vector: np.ndarray, count: int, places: int) -> np.ndarray:
    """What a client puts into the sum: $n_i U_i$ in fixed point, and $n_i$, uint64 `(D + 1,)`.

    >>> weighted_input(np.array([0.5, -1.0]), 3, 1).astype(np.int64).tolist()
    [3, -6, 3]
    """
    return np.concatenate([encode(count * vector, places, RING), to_ring([count])])


def check_fits(vector: np.ndarray, count: int, places: int, terms: Terms) -> None:
    """Raise `ValueError` unless the sum of n such inputs fits the ring.

    >>> check_fits(np.array([2.0**40]), 3, 24, Terms(3, 2, 2))
    Traceback (most recent call last):
    ValueError: updates has an entry that times its 3 examples is 3.29853e+12; accepted: up to 1.83252e+11, of which the
    sum of 3 fits 64 bits with 24 places
    """
    most = np.ldexp(float(terms.largest), -places)
    with np.errstate(over="ignore"):
        entry = np.abs(count * vector).max()
    if not entry < most:  # float64 rounds what is equal
        raise ValueError(
            f"updates has an entry that times its {count} examples is {entry:.6g}; accepted: up to {most:.6g}, of "
            f"which the sum of {terms.clients} fits {RING.bits} bits with {places} places"
        )
    if count > terms.largest:
        raise ValueError(f"examples has {count}; accepted: up to {terms.largest}")


def like(vector: Tensor, update: Update) -> Update:
    """A vector cut into the shapes and types of an update."""
    tensors = [update] if isinstance(update, Tensor) else list(update)
    pieces = vector.split([tensor.numel() for tensor in tensors])
    shaped = [piece.reshape(tensor.shape).to(tensor) for piece, tensor in zip(pieces, tensors, strict=True)]
    return shaped[0] if isinstance(update, Tensor) else shaped

r"""Selective SGD: participants train on their own data and share a few chosen gradients, with or without noise.

What is called a gradient here is what a round of local training changed in a parameter, $\Delta w_j$. A participant
fits into `federated_averaging`: with `sample=1/n` the participants take turns at random, n rounds are one epoch of all.

Why the epsilon of a parameter says little: it is the price of *one* number. Whoever sees the server sees all $c =
\theta_u D$ numbers of each of T rounds, and budgets add: $\epsilon_{total} = T \, c \, \epsilon_{parameter}$.
"""

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn.utils import vector_to_parameters

from spai_lab.checks import check_choice, check_count, check_generator, check_number, describe
from spai_lab.privacy.guarantee import REPLACE, Guarantee
from spai_lab.privacy.mechanisms import laplace_mechanism
from spai_lab.threat import fresh_generator
from spai_lab.training.federated import Participant, participant, vector_of

CHOICES = ("largest", "threshold", "sparse vector")


def selective_sgd(
    x: Tensor,
    y: Tensor,
    *,
    upload: float = 0.1,
    download: float = 1.0,
    choice: str = "largest",
    threshold: float = 0.0,
    bound: float | None = None,
    epsilon_per_parameter: float | None = None,
    epochs: int = 1,
    batch_size: int = 1,
    learning_rate: float = 0.01,
    generator: torch.Generator | None = None,
) -> Participant:
    r"""A participant that shares some of what it learned: its most changed parameters, or those a private draw picks.

    Each round: take $\theta_d$ of the server's parameters, train on its own data, send $\Delta w_j$ for $\theta_u$ of
    the parameters and 0 for the others.

    Args:
        x: its inputs, float `(N, C, H, W)` in [0, 1], N at least 1.
        y: their labels `(N,)`, int64.
        upload: $\theta_u$, the share of the parameters that it sends, above 0, at most 1.
        download: $\theta_d$, the share that it takes from the server, above 0, at most 1: those that moved most there
            since it last looked. The others stay as its own training left them.
        choice: "largest" sends the largest changes; "threshold" sends random ones of at least `threshold`;
            "sparse vector" chooses by noisy comparisons and sends noisy values (`sparse_vector`).
        threshold: $\tau$, at least 0; not used by "largest".
        bound: $\gamma$, above 0: changes are clipped to $[-\gamma, \gamma]$; "sparse vector" needs it.
        epsilon_per_parameter: the budget of each number that is sent, above 0; for "sparse vector" alone.
            `selective_guarantee` says what it amounts to.
        epochs: passes over its data in a round.
        batch_size: inputs of a step.
        learning_rate: above 0.
        generator: shuffles, picks and draws noise; a seeded run is a demonstration, not private; None draws a fresh
            one.
    Returns:
        `(model, round) -> update`, `(D,)`. It remembers its own parameters if `download` is below 1.
    Raises:
        ValueError: names the argument.
    Reference: Shokri and Shmatikov 2015, "Privacy-preserving deep learning", CCS, figures 5 and 12.
    Survey: differential privacy, gradient level.
    Simplified: the server sends all parameters, and the participant picks those that moved most, where the paper's
        server keeps count of how often each was updated. The zeros travel too, so that no bytes are saved.

    >>> x, y = torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 0, 1])
    >>> send = selective_sgd(x, y, upload=0.2)
    >>> int((send(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), 0) != 0).sum())
    2
    """
    check_sharing(upload, download, choice, threshold, bound, epsilon_per_parameter)
    generator = fresh_generator(generator, x.device if isinstance(x, Tensor) else torch.device("cpu"))
    settings = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
    train = participant(x, y, generator=generator, **settings)
    own = last = None

    def send(model: nn.Module, round: int) -> Tensor:
        nonlocal own, last
        served = vector_of(model)
        if own is None:
            own = last = served
        places = (served - last).abs().topk(shared(len(served), download)).indices
        start = own.index_copy(0, places, served[places])
        local = copy.deepcopy(model)
        vector_to_parameters(start.clone(), local.parameters())
        changes = train(local, round)
        own, last = start + changes, served
        if bound is not None:
            changes = changes.clamp(-bound, bound)
        count = shared(len(changes), upload)
        if choice == "largest":
            return largest(changes, count)
        if choice == "threshold":
            return above_threshold(changes, count, threshold, generator)
        return sparse_vector(
            changes,
            count=count,
            threshold=threshold,
            bound=bound,
            epsilon_per_parameter=epsilon_per_parameter,
            generator=generator,
        )

    return send


def selective_guarantee(
    *, parameters: int, upload: float, epsilon_per_parameter: float | None, rounds: int = 1
) -> Guarantee:
    r"""What one participant is promised for all that it shares: $\epsilon_{total} = T \, c \, \epsilon_{parameter}$.

    The paper reports $\epsilon_{parameter}$. It is the budget of one number in one round; there are $c = \theta_u D$ of
    them in each of T rounds, all computed from the same data.

    Neighbors differ in one replaced record. Sensitivity: the range $2 \gamma$ to which a change is clipped; since that
    holds whatever the data are, the same promise hides *all* of the participant's records, and it cannot be made
    cheaper by having more of them.

    Args:
        parameters: D, at least 1.
        upload: $\theta_u$, above 0, at most 1.
        epsilon_per_parameter: the budget of each number, above 0; None for gradients without noise: no promise at all.
        rounds: T, how often this participant uploads.
    Returns:
        pure differential privacy by basic composition.
    Raises:
        ValueError: names the argument.
    Reference: Shokri and Shmatikov 2015, CCS, figure 12; Abadi 2016, arXiv 1607.00133, related work, for the objection.

    >>> print(selective_guarantee(parameters=100_000, upload=0.1, epsilon_per_parameter=0.1, rounds=10))
    epsilon 1e+04 at delta 0, one record replaced; covers 100000 shared gradients
    """
    check_count("parameters", parameters)
    check_number("upload", upload, low=0, high=1, exclusive=True)
    check_count("rounds", rounds)
    uploads = rounds * shared(parameters, upload)
    epsilon = math.inf
    if epsilon_per_parameter is not None:
        check_number("epsilon_per_parameter", epsilon_per_parameter, low=0, exclusive=True)
        epsilon = uploads * epsilon_per_parameter
    return Guarantee(epsilon, 0.0, REPLACE, (f"{uploads} shared gradients",))


def sparse_vector(
    changes: Tensor,
    *,
    count: int,
    threshold: float,
    bound: float,
    epsilon_per_parameter: float,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""The sparse vector technique: ask of one number after the other if it is large, and pay for each yes alone.

    In random order, until c were sent: if $|\mathrm{bound}(\Delta w_j)| + r_w \ge \tau + r_\tau$ send
    $\mathrm{bound}(\mathrm{bound}(\Delta w_j) + r'_w)$ and draw $r_\tau$ again. With
    $\sigma(\epsilon) = 2 c \Delta f / \epsilon$ and $\Delta f = 2 \gamma$ the noise is
    $r_\tau \sim \mathrm{Lap}(\sigma(\epsilon_1))$, $r_w \sim \mathrm{Lap}(2 \sigma(\epsilon_1))$ and
    $r'_w \sim \mathrm{Lap}(\sigma(\epsilon_2))$, where $\epsilon_1 = \frac{8}{9} \epsilon$,
    $\epsilon_2 = \frac{2}{9} \epsilon$ and $\epsilon = c \, \epsilon_{parameter}$: the comparisons cost
    $\frac{8}{9} \epsilon$ and the values $\frac{1}{9} \epsilon$.

    Neighbors differ in one replaced record. Sensitivity: a clipped change moves by $2 \gamma$ at most, whatever happens
    to the data.

    Args:
        changes: what training changed, floating point `(D,)`.
        count: c, how many are sent at most, from 1 to D.
        threshold: $\tau$, at least 0.
        bound: $\gamma$, above 0.
        epsilon_per_parameter: $\epsilon / c$, above 0.
        generator: picks the order and draws the noise; a seeded run is a demonstration, not private; None draws a fresh
            one.
    Returns:
        like `changes`: the noisy values, in $[-\gamma, \gamma]$, and 0 where nothing is sent. It is $\epsilon$-private
        as a whole.
    Raises:
        ValueError: names the argument.
    Reference: Shokri and Shmatikov 2015, CCS, figure 12; Dwork and Roth 2014, algorithm 3 (NumericSparse).

    >>> changes = torch.tensor([0.5, 0.0, -0.5, 0.0])
    >>> sparse_vector(changes, count=2, threshold=0.2, bound=1.0, epsilon_per_parameter=1e6).round(decimals=2)
    tensor([ 0.5000,  0.0000, -0.5000,  0.0000])
    """
    check_changes(changes, count, threshold, bound, epsilon_per_parameter, generator)
    generator = fresh_generator(generator, changes.device)
    scales = noise_scales(bound=bound, epsilon_per_parameter=epsilon_per_parameter)

    def noise(name: str, size: int) -> Tensor:
        zeros = torch.zeros(size, dtype=torch.float64)
        return laplace_mechanism(zeros, sensitivity=scales[name], epsilon=1.0, generator=generator)

    order = torch.randperm(len(changes), generator=generator)
    clipped = changes.detach().double().clamp(-bound, bound)[order]
    seen = clipped.abs() + noise("comparison", len(changes))
    limits = threshold + noise("threshold", count)
    chosen = []
    for j, value in enumerate(seen.tolist()):
        if len(chosen) == count:
            break
        if value >= limits[len(chosen)]:
            chosen.append(j)
    values = (clipped[chosen] + noise("value", len(chosen))).clamp(-bound, bound)
    return torch.zeros_like(changes).index_copy(0, order[chosen], values.to(changes))


def noise_scales(*, bound: float, epsilon_per_parameter: float) -> dict[str, float]:
    r"""The scales of the three Laplace distributions of `sparse_vector`; c cancels.

    With $\Delta f = 2 \gamma$: $\sigma(\epsilon_1) = \frac{9}{4} \frac{\Delta f}{\epsilon_{parameter}}$ for the
    threshold, twice that for a comparison, and $\sigma(\epsilon_2) = 9 \frac{\Delta f}{\epsilon_{parameter}}$ for a
    value.

    Args:
        bound: $\gamma$, above 0.
        epsilon_per_parameter: above 0.
    Returns:
        the scale of "threshold", "comparison" and "value".
    Raises:
        ValueError: names the argument.

    >>> {name: round(scale, 6) for name, scale in noise_scales(bound=0.001, epsilon_per_parameter=1.0).items()}
    {'threshold': 0.0045, 'comparison': 0.009, 'value': 0.018}
    """
    check_number("bound", bound, low=0, exclusive=True)
    check_number("epsilon_per_parameter", epsilon_per_parameter, low=0, exclusive=True)
    Delta_f = 2 * bound
    sigma_1 = 2 * Delta_f / (8 / 9 * epsilon_per_parameter)
    sigma_2 = 2 * Delta_f / (2 / 9 * epsilon_per_parameter)
    return {"threshold": sigma_1, "comparison": 2 * sigma_1, "value": sigma_2}


def largest(changes: Tensor, count: int) -> Tensor:
    """The largest changes by absolute value, 0 in the other places.

    >>> largest(torch.tensor([1.0, -3.0, 2.0]), 2)
    tensor([ 0., -3.,  2.])
    """
    places = changes.abs().topk(count).indices
    return torch.zeros_like(changes).index_copy(0, places, changes[places])


def above_threshold(changes: Tensor, count: int, threshold: float, generator: torch.Generator) -> Tensor:
    """Random ones of the changes of at least `threshold`, 0 in the other places.

    >>> above_threshold(torch.tensor([1.0, -3.0, 2.0]), 2, 1.5, torch.Generator())
    tensor([ 0., -3.,  2.])
    """
    order = torch.randperm(len(changes), generator=generator, device=changes.device)
    places = order[changes[order].abs() >= threshold][:count]
    return torch.zeros_like(changes).index_copy(0, places, changes[places])


def shared(parameters: int, share: float) -> int:
    r"""How many parameters a share is, at least 1: $\lfloor \theta D \rfloor$.

    >>> shared(100, 0.07), shared(10, 0.01)
    (7, 1)
    """
    return max(1, math.floor(parameters * share + 1e-9))  # 100 times 0.29 is a little below 29


def check_sharing(
    upload: float,
    download: float,
    choice: str,
    threshold: float,
    bound: float | None,
    epsilon_per_parameter: float | None,
) -> None:
    """Raise `ValueError` unless it is clear what is shared, and noise goes with "sparse vector" alone."""
    check_number("upload", upload, low=0, high=1, exclusive=True)
    check_number("download", download, low=0, high=1, exclusive=True)
    check_choice("choice", choice, CHOICES)
    check_number("threshold", threshold, low=0)
    if bound is not None:
        check_number("bound", bound, low=0, exclusive=True)
    if (choice == "sparse vector") != (epsilon_per_parameter is not None):
        raise ValueError(
            f"epsilon_per_parameter is {describe(epsilon_per_parameter)}, choice is {choice!r}; accepted: a number "
            "with 'sparse vector', None with the others, which add no noise"
        )
    if epsilon_per_parameter is not None:
        check_number("epsilon_per_parameter", epsilon_per_parameter, low=0, exclusive=True)
        if bound is None:
            raise ValueError("bound is None; accepted: a number above 0, without it the sensitivity is unknown")


def check_changes(
    changes: Tensor,
    count: int,
    threshold: float,
    bound: float,
    epsilon_per_parameter: float,
    generator: torch.Generator | None,
) -> None:
    """Raise `ValueError` unless each argument of `sparse_vector` is in its range."""
    vector = isinstance(changes, Tensor) and changes.is_floating_point() and changes.ndim == 1 and len(changes)
    if not vector or not changes.isfinite().all():
        raise ValueError(f"changes is {describe(changes)}; accepted: finite floating point values (D,)")
    check_count("count", count)
    check_number("count", count, low=1, high=len(changes))
    check_number("threshold", threshold, low=0)
    check_number("bound", bound, low=0, exclusive=True)
    check_number("epsilon_per_parameter", epsilon_per_parameter, low=0, exclusive=True)
    check_generator(generator, changes.device)

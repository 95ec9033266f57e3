r"""A backdoor through federated averaging: one participant replaces the server's model by its own."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spai_lab.attacks.poisoning.poisoned import Trigger, stamp
from spai_lab.checks import check_count, check_images, check_labels, check_number, describe
from spai_lab.threat import fresh_generator
from spai_lab.training.federated import Participant, step, vector_of
from spai_lab.training.loop import check_data


def federated_backdoor(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    x_backdoor: Tensor,
    y_backdoor: Tensor,
    scale: float,
    alpha: float = 1.0,
    epochs: int = 30,
    batch_size: int = 64,
    poisons: int = 20,
    learning_rate: float = 0.05,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Model replacement: train a backdoored model from the server's, and send it so large that it survives the mean.

    The update is $\gamma (X - G)$ with $\gamma = n / \eta$, since $G + \frac{\eta}{n} \sum_i U_i \approx X$ once the
    honest updates cancel. X minimizes $\alpha L_{class} + (1 - \alpha) \|X - G\|_2$ (constrain-and-scale) on batches
    of clean and backdoor inputs.

    Args:
        model: G, the server's model, `(N, C, H, W)` in [0, 1] to logits `(N, K)`; it stays as it is.
        x: the attacker's clean inputs, float `(N, C, H, W)` in [0, 1].
        y: their labels `(N,)`, int64.
        x_backdoor: what the backdoor shall open to, float `(M, C, H, W)` in [0, 1]: stamped images (`stamped`), or, for
            a semantic backdoor, unchanged images with a feature that the attacker picked.
        y_backdoor: what the model shall say of them, `(M,)`, int64.
        scale: $\gamma$, above 0; n participants and a server's rate $\eta$ call for $n / \eta$.
        alpha: 1 does not hide; below 1 the update is kept short, so that it is harder to tell from an honest one.
        epochs: passes over the clean inputs.
        batch_size: inputs of a step, above `poisons`.
        poisons: how many of them are backdoor inputs, at least 1.
        learning_rate: above 0.
        generator: draws the batches; None draws a fresh one.
    Returns:
        the update that the attacker sends, `(D,)`.
    Raises:
        ValueError: names the argument.
    Reference: Bagdasaryan 2018, arXiv 1807.00459, section 4 and algorithm 1; batches of 20 in 64 from section 5.
    Survey: poisoning, backdoor.
    Simplified: the learning rate stays, and training runs all epochs rather than until the backdoor is learned; the
        paper takes 6 epochs on shards several times as large. Backdoor images get no noise. The distance is L2 alone.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x, y = torch.rand(6, 1, 2, 2), torch.tensor([0, 1, 0, 1, 0, 1])
    >>> federated_backdoor(model, x, y, x_backdoor=torch.ones(1, 1, 2, 2), y_backdoor=torch.tensor([0]), scale=10).shape
    torch.Size([10])
    """
    check_backdoor(model, x, y, x_backdoor, y_backdoor, epochs, batch_size, poisons)
    check_number("scale", scale, low=0, exclusive=True)
    check_number("alpha", alpha, low=0, high=1, exclusive=True)
    check_number("learning_rate", learning_rate, low=0, exclusive=True)
    generator = fresh_generator(generator, x.device)
    local = copy.deepcopy(model).train()
    for _ in range(epochs):
        for batch in torch.randperm(len(x), generator=generator, device=x.device).split(batch_size - poisons):
            drawn = torch.randint(len(x_backdoor), (poisons,), generator=generator, device=x.device)
            inputs = torch.cat([x[batch], x_backdoor[drawn]])
            loss = alpha * F.cross_entropy(local(inputs), torch.cat([y[batch], y_backdoor[drawn]]))
            if alpha < 1:
                loss = loss + (1 - alpha) * distance(local, model)
            step(local, loss, learning_rate)
    return scale * (vector_of(local) - vector_of(model))


def distance(local: nn.Module, model: nn.Module) -> Tensor:
    """How far a model's weights are from another's in L2; its gradient at distance 0 is 0."""
    pairs = zip(local.parameters(), model.parameters(), strict=True)
    return (sum((a - b.detach()).square().sum() for a, b in pairs) + 1e-12).sqrt()


def stamped(x: Tensor, y: Tensor, trigger: Trigger, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """The images whose class the trigger shall move, stamped, and the classes wanted of them.

    Args:
        x: images `(N, C, H, W)` in [0, 1].
        y: their labels `(N,)`, int64.
        trigger: what is stamped on them.
        wanted: for each class the one that the trigger shall give, `(K,)`.
    Returns:
        `(x_backdoor, y_backdoor)`.
    Raises:
        ValueError: names the argument.

    >>> dot = Trigger(torch.ones(1, 1, 1), torch.ones(1, 1, 1))
    >>> stamped(torch.zeros(3, 1, 1, 1), torch.tensor([0, 1, 0]), dot, torch.tensor([1, 1]))[1]
    tensor([1, 1])
    """
    check_labels(y, x)
    moved = wanted[y] != y
    return stamp(x[moved], trigger), wanted[y[moved]]


def one_round_attacker(honest: Participant, attack: Participant, rounds: tuple[int, ...]) -> Participant:
    """A participant that is honest but in some rounds, counted from 0: the attack is seen in one, its decay after.

    >>> sent = one_round_attacker(lambda model, round: "honest", lambda model, round: "attack", (1,))
    >>> [sent(None, round) for round in range(3)]
    ['honest', 'attack', 'honest']
    """
    return lambda model, round: (attack if round in rounds else honest)(model, round)


def check_backdoor(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    x_backdoor: Tensor,
    y_backdoor: Tensor,
    epochs: int,
    batch_size: int,
    poisons: int,
) -> None:
    """Raise `ValueError` unless there are clean and backdoor inputs, and batches have room for both."""
    check_data(model, x, y, None, None)
    check_images(x_backdoor, "x_backdoor")
    if len(x_backdoor) == 0 or x_backdoor.shape[1:] != x.shape[1:]:
        raise ValueError(f"x_backdoor is {describe(x_backdoor)}; accepted: at least one input of the shape of x")
    check_labels(y_backdoor, x_backdoor, "y_backdoor")
    check_data(model, x_backdoor, y_backdoor, None, None)
    for name, value in (("epochs", epochs), ("poisons", poisons)):
        check_count(name, value)
    check_count("batch_size", batch_size, low=poisons + 1)

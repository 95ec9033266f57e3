r"""Label flips: the inputs stay, some labels are wrong; drawn at random, or chosen so that the victim learns them.

The attacker picks at most $\lfloor \phi N \rfloor$ of N training inputs, with $\phi$ the poison fraction.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from tqdm.auto import trange

from spai_lab.attacks.poisoning.poisoned import Poisoned, budget, drawn, mislabeled, replaced
from spai_lab.attacks.poisoning.svm import train_svm
from spai_lab.checks import check_callable, check_count, check_flag, check_generator
from spai_lab.data import Dataset
from spai_lab.threat import fresh_generator, logits_of, margin

Train = Callable[[Tensor, Tensor], nn.Module]


def label_flip(data: Dataset, *, fraction: float, generator: torch.Generator | None = None) -> Poisoned:
    r"""Random label flips: inputs drawn by chance get another class's label, by chance.

    $y_i' \sim \mathrm{Uniform}(\{1, \dots, K\} \setminus \{y_i\})$ for i in a random set of $\lfloor \phi N \rfloor$.

    Args:
        data: the clean data; only its training part is used.
        fraction: of the training labels that are flipped, above 0, at most 1.
        generator: draws inputs and labels; None draws a fresh one.
    Returns:
        the training set with wrong labels; all inputs as they were.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Biggio 2011, "Support vector machines under adversarial label noise", section 3 (random flips).
    Survey: poisoning, performance degradation.
    Simplified: none for two classes; with more the paper says nothing, and the wrong one is drawn uniformly.

    >>> from spai_lab.data import load
    >>> label_flip(load("digits"), fraction=0.1)
    Poisoned: 107 of 1078 training inputs
    """
    check_generator(generator, data.x_train.device)
    generator = fresh_generator(generator, data.x_train.device)
    y = data.y_train
    places = drawn(torch.ones_like(y, dtype=torch.bool), budget(data, fraction), generator)
    return replaced(data, places, data.x_train[places], mislabeled(y[places], data.num_classes, generator))


def adversarial_label_flip(
    data: Dataset,
    *,
    fraction: float,
    train: Train = train_svm,
    rounds: int = 10,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> Poisoned:
    r"""Adversarial label flips (ALFA): flip what the clean classifier finds absurd and the poisoned one learns anyway.

    $\min_{q, f} \sum_i \sum_k q_{ik} \left[V(k, f(x_i)) - V(k, f_0(x_i))\right] + \mathrm{const} \cdot \|f\|^2$,
    with V the hinge loss, $f_0$ trained on the clean labels, and $q_{ik} = 1$ where input i gets the label k: at most
    $\lfloor \phi N \rfloor$ of them wrong. In turn, the best labels for f are chosen, and f is trained on them.
    The turns find a local optimum: where only one or two labels may be flipped, chance often does as well.

    Args:
        data: the clean data; only its training part is used.
        fraction: of the training labels that are flipped, above 0, at most 1.
        train: the victim's training, `(x, y) -> model` with logits `(N, K)`; it should make the same model of the same
            data, or the turns never come to rest. The default is a linear support vector machine.
        rounds: turns at most; fewer where the labels repeat.
        generator: not used, since nothing is random; here so that every attack is called alike.
        progress: show a bar.
    Returns:
        the training set with wrong labels; all inputs as they were.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Xiao 2012, "Adversarial label flips attack on support vector machines", section 4 (ALFA).
    Survey: poisoning, performance degradation.
    Simplified: for more than two classes V is the hinge loss of Crammer and Singer, and each input may only go to its
        best wrong class; the linear program over q is solved exactly, by sorting; of all turns we keep the one whose
        model has the highest loss on the clean labels, where the paper keeps the last.

    >>> from spai_lab.data import load
    >>> adversarial_label_flip(load("moons").first(40), fraction=0.1, progress=False)
    Poisoned: 4 of 40 training inputs
    """
    check_generator(generator, data.x_train.device)
    check_callable("train", train)
    check_count("rounds", rounds)
    check_flag("progress", progress)
    x, y, count = data.x_train, data.y_train, budget(data, fraction)
    clean = hinge_losses(train(x, y), x, y)
    poisoned = torch.zeros_like(clean)
    worst, damage, seen = y, -torch.inf, []
    for _ in trange(rounds, desc="adversarial label flips", disable=not progress):
        labels = cheapest_labels(poisoned - clean, y, count)
        if any(labels.equal(before) for before in seen):
            break
        seen.append(labels)
        poisoned = hinge_losses(train(x, labels), x, y)
        on_the_clean = poisoned.gather(1, y[:, None]).mean().item()
        if on_the_clean > damage:
            worst, damage = labels, on_the_clean
    places = (worst != y).nonzero()[:, 0]
    return replaced(data, places, x[places], worst[places])


def cheapest_labels(cost: Tensor, y: Tensor, count: int) -> Tensor:
    """The labels `(N,)` of least total cost `(N, K)` of which exactly `count` differ from `y`.

    >>> cheapest_labels(torch.tensor([[0.0, 1.0, 2.0], [0.0, -3.0, -2.0]]), torch.tensor([0, 0]), 1)
    tensor([0, 1])
    """
    extra = cost - cost.gather(1, y[:, None])
    cheapest, other = extra.scatter(1, y[:, None], torch.inf).min(1)
    places = cheapest.argsort(stable=True)[:count]
    return y.scatter(0, places, other[places])


@torch.no_grad()
def hinge_losses(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    r"""The hinge loss of each label on each input, $[1 - (z_k - \max_{j \ne k} z_j)]_+$: `(N, K)`.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        x: inputs `(N, C, H, W)` in [0, 1].
        y: labels `(N,)`; only so that the logits can be checked against them.
    """
    z = logits_of(model, x, y)
    labels = [torch.full_like(y, k) for k in range(z.shape[1])]
    return torch.stack([(1 - margin(z, k)).clamp_min(0) for k in labels], dim=1)

r"""Partition aggregation: a majority of models, none of which a single poison can share with another.

A hash sends each input to one of k partitions, so that one poison changes one model, and one vote.
"""

import hashlib
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from spai_lab.checks import check_callable, check_count, check_flag, check_images, check_labels, describe
from spai_lab.threat import logits_of


class MajorityVote(nn.Module):
    r"""A model that counts the votes of others: $z_c = |\{j: f_j(x) = c\}|$.

    The votes have no gradient.

    Args:
        models: each `(N, C, H, W)` in [0, 1] to logits `(N, K)`, with the same K.
    """

    def __init__(self, models: list[nn.Module]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        logits = [model(x) for model in self.models]
        return sum(F.one_hot(z.argmax(1), z.shape[1]) for z in logits).to(x.dtype)


def partition_aggregation(
    train: Callable[[Tensor, Tensor], nn.Module], x: Tensor, y: Tensor, *, partitions: int, progress: bool = True
) -> MajorityVote:
    r"""Deep partition aggregation: train one model on each partition, and let them vote.

    $P_j = \{(x, y): h(x) \equiv j \bmod k\}$, $\; f_j = \mathrm{train}(P_j)$,
    $\; g(x) = \arg\max_c |\{j: f_j(x) = c\}|$; the lower of two classes that tie.

    Args:
        train: from inputs and labels to a trained model. It must give the same model for the same data, or there is no
            certificate: seed it inside.
        x: training inputs, float `(N, C, H, W)` in [0, 1], perhaps poisoned.
        y: their labels `(N,)`, int64.
        partitions: k, at least 1. It is a constant: one chosen by the size of the data is in the attacker's hands.
        progress: show a bar.
    Returns:
        the model that votes; `certified_poisons` says how many poisons each of its answers survives.
    Raises:
        ValueError: names the argument.
    Reference: Levine 2020, arXiv 2006.14768, section 3 (DPA); on MNIST it takes k = 1,200.
    Survey: defenses against poisoning, insensitive training.
    Simplified: h is the SHA-256 of the pixels, where the paper adds them up.
        A partition without inputs does not vote.

    >>> def majority(x, y):
    ...     share = y.double().mean()
    ...     return nn.Sequential(nn.Flatten(), Constant(torch.stack([1 - 2 * share, 2 * share])))
    >>> class Constant(nn.Module):
    ...     def __init__(self, scores):
    ...         super().__init__()
    ...         self.scores = scores
    ...     def forward(self, x):
    ...         return self.scores.expand(len(x), 2)
    >>> x, y = torch.linspace(0, 1, 40).view(-1, 1, 1, 1), torch.ones(40, dtype=torch.int64)
    >>> voting = partition_aggregation(majority, x, y, partitions=5, progress=False)
    >>> voting(x[:1]), certified_poisons(voting, x[:1])
    (tensor([[0., 5.]]), tensor([2]))
    """
    check_callable("train", train)
    check_images(x)
    check_labels(y, x)
    check_count("partitions", partitions)
    check_flag("progress", progress)
    if len(y) == 0:
        raise ValueError(f"x is {describe(x)}; accepted: at least one input")
    parts = partitioned(x, y, partitions)
    filled = [part for part in parts if len(part)]
    bar = tqdm(filled, desc="partitions", unit="model", disable=not progress)
    return MajorityVote([train(x[part], y[part]).eval() for part in bar]).eval()


def partitioned(x: Tensor, y: Tensor, partitions: int) -> list[Tensor]:
    """The places of each partition's inputs, int64, in an order that depends on the inputs, not on their order."""
    keys = [
        (hashlib.sha256(image.cpu().numpy().tobytes()).digest(), int(label)) for image, label in zip(x, y, strict=True)
    ]
    parts: list[list[int]] = [[] for _ in range(partitions)]
    for place in sorted(range(len(keys)), key=keys.__getitem__):
        parts[int.from_bytes(keys[place][0]) % partitions].append(place)
    return [torch.tensor(part, dtype=torch.int64, device=x.device) for part in parts]


def certified_poisons(model: MajorityVote, x: Tensor) -> Tensor:
    r"""How many training inputs may be inserted, removed or relabeled before the answer to `x` can change.

    $\left\lfloor \frac{1}{2} \left( n_c - \max_{c' \ne c} (n_{c'} + 1[c' < c]) \right) \right\rfloor$, with $n_c$ the
    votes for the answer c.

    Args:
        model: what `partition_aggregation` returned.
        x: inputs `(N, C, H, W)` in [0, 1].
    Returns:
        `(N,)`, int64, at least 0.
    Raises:
        ValueError: names the argument.
    Reference: Levine 2020, arXiv 2006.14768, theorem 1.
    Survey: defenses against poisoning, insensitive training.
    Simplified: theorem 1 counts a new label twice, as a removal and an insertion; here h does not read labels, so that
        both meet the same model, and it counts once, as in the paper's SS-DPA.

    >>> class Votes(nn.Module):
    ...     def forward(self, x):
    ...         return torch.tensor([[3.0, 7.0], [7.0, 4.0]])
    >>> certified_poisons(Votes(), torch.zeros(2, 1, 1, 1))
    tensor([1, 1])
    """
    check_images(x)
    votes = logits_of(model, x, torch.zeros(len(x), dtype=torch.int64, device=x.device)).long()
    answer = votes.argmax(1, keepdim=True)
    classes = torch.arange(votes.shape[1], device=x.device)
    rivals = (votes + (classes < answer).long()).scatter(1, answer, -1)
    return (votes.gather(1, answer)[:, 0] - rivals.amax(1)) // 2

"""Extraction by learning: train a copy on what the victim answers, within a budget of queries."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from spai_lab.attacks.privacy.extraction import ask, check_affordable
from spai_lab.checks import (
    check_callable,
    check_choice,
    check_classes,
    check_count,
    check_flag,
    check_images,
    check_model,
    describe,
)
from spai_lab.metrics import Rate
from spai_lab.models import Shape, check_shape
from spai_lab.query import Query, check_query
from spai_lab.threat import fresh_generator, logits_of
from spai_lab.training.loop import fit, in_mode

STRATEGIES = ("random", "natural", "active")


@dataclass(frozen=True, eq=False)
class Copied:
    """A copy of a model that was trained on its answers.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`, in evaluation mode.
        x: what the victim was asked about, `(budget, C, H, W)` in [0, 1], in the order of asking.
        answers: what the copy was trained on, one probability for each class, `(budget, K)`: see `targets_of`.
        queries: how many were asked.
    """

    model: nn.Module
    x: Tensor
    answers: Tensor
    queries: int


def extraction_learning(
    query: Query,
    pool: Tensor | None,
    *,
    budget: int,
    model: nn.Module,
    strategy: str = "natural",
    shape: Shape = (1, 28, 28),
    rounds: int = 5,
    epochs: int = 30,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> Copied:
    r"""Knockoff: ask about images that one has anyway, and train a network of one's own on the answers.

    $\min_\theta \frac{1}{B} \sum_{i=1}^{B} -\sum_k p_k(x_i) \log \mathrm{softmax}_k(f_\theta(x_i))$, with p what the
    victim answers and B the budget. The attacker has neither the victim's training data nor a label.

    Args:
        query: any level will do; the more it reveals, the more an answer teaches. All is asked on behalf of its image
            0, so that a cap bounds the attack.
        pool: images without labels, floating point `(M, C, H, W)` in [0, 1], M at least `budget`; None for "random".
        budget: B, how many images the victim is asked about, at least 1.
        model: untrained, `(N, C, H, W)` to logits `(N, K)` of the victim's classes; it stays as it is.
        strategy: "random" asks about uniform noise; "natural" about images drawn from the pool; "active", in rounds of
            equal size, about those of the pool whose class the copy of the round before knows least, by the entropy
            of its probabilities; the first round is drawn.
        shape: `(C, H, W)` of the noise; with a pool, not used.
        rounds: of "active", at least 1, at most `budget`; each trains the copy anew.
        epochs: passes over the answered images, of each training.
        batch_size: images of a step.
        learning_rate: the highest, as in `fit`.
        generator: draws and shuffles the images; None draws a fresh one.
        progress: show a bar with the time left.
    Returns:
        the copy, and what it was trained on.
    Raises:
        ValueError: an argument is out of its range, or the cap does not suffice; names it.
    Reference: Orekondy 2018, arXiv 1812.02766, section 4.1 ("natural" is its random strategy) and 4.2; Pal 2019, arXiv
        1905.09165 ("active": its uncertainty strategy).
    Survey: privacy, model extraction.
    Simplified: where the pool comes from is the caller's choice; the paper asks about images of another distribution.
        The adaptive strategy of Orekondy, which learns what classes of a labeled pool to draw from, is left
        out. `substitute` makes its images from a few by the copy's Jacobian instead.

    >>> victim, ours = (nn.Sequential(nn.Flatten(), nn.Linear(4, 3)) for _ in range(2))
    >>> query = Query(victim, "scores")
    >>> copied = extraction_learning(query, torch.rand(50, 1, 2, 2), budget=20, model=ours, progress=False)
    >>> copied.x.shape, copied.answers.shape, query.total
    (torch.Size([20, 1, 2, 2]), torch.Size([20, 3]), 20)
    """
    check_query(query)
    check_copying(pool, budget, model, strategy, shape, rounds, progress)
    parameter = next(model.parameters(), torch.zeros(0))
    source = parameter if pool is None else pool
    generator = fresh_generator(generator, source.device)
    if pool is None:
        noise = {"dtype": source.dtype, "device": source.device, "generator": generator}
        pool = torch.rand(budget, *shape, **noise)
    pool = pool.detach()
    check_model(model, pool)
    classes = class_count(model, pool)
    check_affordable(query, budget)
    training = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate, "generator": generator}
    order = torch.randperm(len(pool), device=pool.device, generator=generator)
    parts = torch.arange(budget).tensor_split(rounds if strategy == "active" else 1)
    asked = query.total
    trained, chosen, answers = None, order[:0], pool.new_zeros(0, classes)
    for part in tqdm(parts, desc="copying", unit="round", disable=not progress):
        left = order[~torch.isin(order, chosen)]
        if trained is not None:
            left = left[entropies(trained, pool[left]).argsort(descending=True, stable=True)]
        new = left[: len(part)]
        chosen = torch.cat([chosen, new])
        answers = torch.cat([answers, targets_of(query, ask(query, pool[new]), classes).to(answers)])
        trained = student(model, pool[chosen], answers, **training)
    return Copied(trained, pool[chosen], answers, query.total - asked)


def agreement(model: nn.Module, copied: nn.Module, x: Tensor, *, batch_size: int = 1000) -> Rate:
    r"""How often the copy says what the victim says, right or wrong: fidelity, on images that neither has seen.

    $\frac{1}{N} \left|\{i : \arg\max_k f_k(x_i) = \arg\max_k \hat f_k(x_i)\}\right|$

    Args:
        model: the victim, `(N, C, H, W)` in [0, 1] to logits `(N, K)`; only the evaluation has it.
        copied: the copy, likewise.
        x: inputs `(N, C, H, W)` in [0, 1], N at least 1.
        batch_size: inputs at a time.
    Returns:
        the rate, with its interval.
    Raises:
        ValueError: names the argument.
    Reference: Jagielski 2019, arXiv 1909.01838, section 3 (fidelity).

    >>> agreement(nn.Flatten(), nn.Flatten(), torch.rand(5, 1, 1, 3)).value
    1.0
    """
    check_images(x)
    check_count("batch_size", batch_size)
    if len(x) == 0:
        raise ValueError(f"x is {describe(x)}; accepted: at least one input")
    for name, network in (("model", model), ("copied", copied)):
        check_callable(name, network)
        check_model(network, x)
    same = [(labels_of(model, part) == labels_of(copied, part)).sum() for part in x.split(batch_size)]
    return Rate(int(sum(same)), len(x))


def agreement_curve(
    victim: nn.Module,
    copied: Copied,
    x: Tensor,
    budgets: Sequence[int],
    *,
    model: nn.Module,
    epochs: int = 30,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> dict[int, Rate]:
    """The agreement that each budget would have bought: copies trained on the first answers alone, none asked anew.

    Args:
        victim: `(N, C, H, W)` in [0, 1] to logits `(N, K)`; only the evaluation has it.
        copied: what `extraction_learning` returned for the largest budget.
        x: inputs to agree on, `(N, C, H, W)` in [0, 1], N at least 1.
        budgets: numbers of queries, each at least 1, at most those of `copied`.
        model: untrained, as for `extraction_learning`.
        epochs, batch_size, learning_rate: as for `extraction_learning`.
        generator: shuffles the images; None draws a fresh one.
        progress: show a bar with the time left.
    Returns:
        the agreement by budget, in the order given.
    Raises:
        ValueError: names the argument.
    Simplified: an active attacker with less to spend would have chosen in smaller rounds.

    >>> victim, ours = (nn.Sequential(nn.Flatten(), nn.Linear(4, 3)) for _ in range(2))
    >>> x = torch.rand(50, 1, 2, 2)
    >>> copied = extraction_learning(Query(victim, "labels"), x, budget=20, model=ours, progress=False)
    >>> list(agreement_curve(victim, copied, x, (5, 20), model=ours, epochs=1, progress=False))
    [5, 20]
    """
    if not isinstance(copied, Copied):
        raise ValueError(f"copied is {describe(copied)}; accepted: what extraction_learning returns")
    check_student(model)
    if not isinstance(budgets, Sequence) or isinstance(budgets, str) or not budgets:
        raise ValueError(f"budgets is {describe(budgets)}; accepted: a list of numbers of queries")
    for budget in budgets:
        check_count("budgets", budget)
        if budget > len(copied.x):
            raise ValueError(f"budgets has {budget}; accepted: at most {len(copied.x)}, the queries of copied")
    check_flag("progress", progress)
    generator = fresh_generator(generator, copied.x.device)
    training = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate, "generator": generator}
    return {
        budget: agreement(victim, student(model, copied.x[:budget], copied.answers[:budget], **training), x)
        for budget in tqdm(budgets, desc="agreement", unit="budget", disable=not progress)
    }


def targets_of(query: Query, answer: Tensor | tuple[Tensor, Tensor], classes: int) -> Tensor:
    r"""An answer of any level as one probability for each class, `(N, K)`, which the copy learns.

    A label is sure of itself; logits go through the softmax; rounded scores are brought to the sum 1; what the top k
    leave of it is spread evenly over the classes that they do not name.

    Raises:
        ValueError: the victim has other classes than the copy.

    >>> query = Query(nn.Flatten(), "top-1")
    >>> targets_of(query, (torch.tensor([[0.5]]), torch.tensor([[2]])), 3)
    tensor([[0.2500, 0.2500, 0.5000]])
    """
    if query.reveals == "labels":
        check_classes(answer, answer.new_zeros(1, classes), "what query answers")
        return F.one_hot(answer, classes).float()
    if isinstance(answer, tuple):
        p, named = answer
        check_classes(named.flatten(), named.new_zeros(1, classes), "what query answers")
        left = (1 - p.sum(1, keepdim=True)).clamp_min(0) / max(classes - p.shape[1], 1)
        answer = left.expand(-1, classes).scatter(1, named, p)
    elif query.reveals == "logits":
        answer = answer.softmax(1)
    if answer.shape[1] != classes:
        raise ValueError(f"model has {classes} classes; accepted: {answer.shape[1]}, those of the victim")
    answer = answer.clamp_min(torch.finfo(answer.dtype).tiny)
    return answer / answer.sum(1, keepdim=True)


def student(model: nn.Module, x: Tensor, answers: Tensor, **training) -> nn.Module:
    """A copy of `model`, trained on the answers `(N, K)` to `x`; in evaluation mode.

    `fit` hands on images and labels alone, so that the answers travel as further columns of the images.
    """
    taught = Taught(copy.deepcopy(model), tuple(x.shape[1:]))
    rows = torch.cat([x.flatten(1), answers], 1)
    with torch.enable_grad():
        fit(taught, rows, answers.argmax(1), objective=taught.loss, **training, progress=False)
    return taught.model.eval()


class Taught(nn.Module):
    """A model on rows `(N, C * H * W + K)`: images, flattened, followed by the answers to them."""

    def __init__(self, model: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.model, self.shape = model, shape

    def forward(self, rows: Tensor) -> Tensor:
        return self.model(rows[:, : torch.Size(self.shape).numel()].unflatten(1, self.shape))

    def loss(self, model: nn.Module, rows: Tensor, y: Tensor, t: float) -> Tensor:
        """The cross-entropy between answers and probabilities, as an objective of `fit`."""
        logits = logits_of(self, rows, y)
        return F.cross_entropy(logits, rows[:, -logits.shape[1] :])


@torch.no_grad()
def entropies(model: nn.Module, x: Tensor, batch_size: int = 1000) -> Tensor:
    r"""How little the model knows of the class of each input: $-\sum_k p_k \log p_k$, `(N,)`."""
    log_p = torch.cat([model(part).log_softmax(1) for part in x.split(batch_size)])
    return -(log_p.exp() * log_p).sum(1)


@torch.no_grad()
def labels_of(model: nn.Module, x: Tensor) -> Tensor:
    """The likeliest class of each input, `(N,)`, in the mode in which the model is."""
    return logits_of(model, x, torch.zeros(len(x), dtype=torch.int64, device=x.device)).argmax(1)


def class_count(model: nn.Module, x: Tensor) -> int:
    """K, how many logits the model gives."""
    with torch.no_grad(), in_mode(model, training=False):
        return logits_of(model, x[:1], torch.zeros(1, dtype=torch.int64, device=x.device)).shape[1]


def check_student(model: nn.Module) -> None:
    """Raise `ValueError` unless there is a network to train."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"model is {describe(model)}; accepted: a torch.nn.Module to train")


def check_copying(
    pool: Tensor | None, budget: int, model: nn.Module, strategy: str, shape: Shape, rounds: int, progress: bool
) -> None:
    """Raise `ValueError` unless each argument of `extraction_learning` is in its range; `fit` checks the training's."""
    check_choice("strategy", strategy, STRATEGIES)
    check_count("budget", budget)
    check_student(model)
    check_count("rounds", rounds)
    check_flag("progress", progress)
    if strategy == "active" and rounds > budget:
        raise ValueError(f"rounds is {rounds}; accepted: at most {budget}, the budget")
    if strategy == "random":
        check_shape(shape, 2)
        if pool is not None:
            raise ValueError(f"pool is {describe(pool)}; accepted: None, since strategy 'random' asks about noise")
        return
    if pool is None:
        raise ValueError(f"pool is None; accepted: images to ask about, as strategy is {strategy!r}")
    check_images(pool, "pool")
    if len(pool) < budget:
        raise ValueError(f"pool is {describe(pool)}; accepted: at least {budget} images, the budget")

r"""Data sanitization by what an input does: reject on negative impact, and relabeling by the nearest neighbors."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from spai_lab.checks import check_callable, check_count, check_flag, check_images, check_labels, check_number, describe
from spai_lab.threat import fresh_generator, logits_of

Train = Callable[[Tensor, Tensor], nn.Module]


def roni(
    train: Train,
    x: Tensor,
    y: Tensor,
    *,
    x_trusted: Tensor,
    y_trusted: Tensor,
    train_size: int = 20,
    quiz_size: int = 50,
    trials: int = 5,
    calibration: int = 20,
    deviations: float = 3.0,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> Tensor:
    r"""Reject on negative impact: leave out what makes a model worse at trusted inputs.

    An input is dropped if its `impact` is below $m - k s$, with m the median and s the standard deviation of the
    impacts of trusted inputs.

    Args:
        train: from inputs and labels to a trained model; the same answer for the same data, if it is to be repeatable.
        x: training inputs, float `(N, C, H, W)` in [0, 1], perhaps poisoned.
        y: their labels `(N,)`, int64.
        x_trusted, y_trusted: clean inputs, like `x` and `y`; at least `train_size + quiz_size + calibration` of them.
        train_size: trusted inputs that a trial trains on.
        quiz_size: trusted inputs that it is judged by.
        trials: over which the impact is averaged.
        calibration: trusted inputs whose impact sets the threshold, at least 2; trials never train on or quiz them.
        deviations: k, at least 0.
        generator: draws the trusted inputs; None draws a fresh one.
        progress: show a bar.
    Returns:
        which inputs to keep, bool `(N,)`.
    Raises:
        ValueError: names the argument.
    Reference: Nelson 2008, "Exploiting machine learning to subvert your spam filter", section 5.1: 20 training and 50
        quiz inputs, 5 trials.
    Survey: defenses against poisoning, data sanitization.
    Simplified: the paper reads its threshold off the gap between attacks and other mail; here trusted inputs set it.

    >>> def nearest_mean(x, y):
    ...     means = torch.stack([x[y == label].mean() for label in (0, 1)])
    ...     return lambda x: -(x.flatten(1) - means).abs()
    >>> x_trusted, y_trusted = torch.linspace(0, 1, 92).view(-1, 1, 1, 1), torch.arange(92) // 46
    >>> x, y = torch.tensor([0.1, 0.9, 1.0]).view(-1, 1, 1, 1), torch.tensor([0, 1, 0])
    >>> trusted = {"x_trusted": x_trusted, "y_trusted": y_trusted, "generator": torch.Generator().manual_seed(0)}
    >>> roni(nearest_mean, x, y, **trusted, progress=False)
    tensor([ True,  True, False])
    """
    check_count("calibration", calibration, low=2)
    check_number("deviations", deviations, low=0)
    check_roni(train, x, y, x_trusted, y_trusted, train_size + quiz_size + calibration)
    generator = fresh_generator(generator, x.device)
    order = torch.randperm(len(y_trusted), generator=generator, device=x.device)
    known, rest = order[:calibration], order[calibration:]
    everything = torch.cat([x_trusted[known], x]), torch.cat([y_trusted[known], y])
    found = impact(
        train,
        *everything,
        x_trusted=x_trusted[rest],
        y_trusted=y_trusted[rest],
        train_size=train_size,
        quiz_size=quiz_size,
        trials=trials,
        generator=generator,
        progress=progress,
    )
    usual = found[:calibration]
    return found[calibration:] >= usual.median() - deviations * usual.std()


def impact(
    train: Train,
    x: Tensor,
    y: Tensor,
    *,
    x_trusted: Tensor,
    y_trusted: Tensor,
    train_size: int = 20,
    quiz_size: int = 50,
    trials: int = 5,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> Tensor:
    r"""How many quiz inputs more a model gets right once it has also learned each input.

    $\frac{1}{R} \sum_{r=1}^{R} \left( \mathrm{hits}(T_r \cup \{(x_i, y_i)\}) - \mathrm{hits}(T_r) \right)$ on the quiz
    $Q_r$, with $T_r$ and $Q_r$ drawn from the trusted inputs.

    Args:
        train: from inputs and labels to a trained model.
        x: inputs `(N, C, H, W)` in [0, 1].
        y: their labels `(N,)`, int64.
        x_trusted, y_trusted: clean inputs, at least `train_size + quiz_size` of them.
        train_size: size of T, at least 1.
        quiz_size: size of Q, at least 1.
        trials: R, at least 1.
        generator: draws T and Q; None draws a fresh one.
        progress: show a bar.
    Returns:
        `(N,)`, from -`quiz_size` to `quiz_size`; below 0 does harm.
    Raises:
        ValueError: names the argument.
    Reference: Nelson 2008, "Exploiting machine learning to subvert your spam filter", section 5.1.
    """
    for name, value in (("train_size", train_size), ("quiz_size", quiz_size), ("trials", trials)):
        check_count(name, value)
    check_flag("progress", progress)
    check_roni(train, x, y, x_trusted, y_trusted, train_size + quiz_size)
    generator = fresh_generator(generator, x.device)
    found = torch.zeros(len(y), device=x.device)
    bar = tqdm(total=trials * len(y), desc="impact", unit="input", disable=not progress)
    with bar:
        for _ in range(trials):
            order = torch.randperm(len(y_trusted), generator=generator, device=x.device)
            known, quiz = order[:train_size], order[train_size : train_size + quiz_size]
            x_known, y_known, x_quiz, y_quiz = x_trusted[known], y_trusted[known], x_trusted[quiz], y_trusted[quiz]
            before = hits(train(x_known, y_known), x_quiz, y_quiz)
            for i in range(len(y)):
                after = train(torch.cat([x_known, x[i : i + 1]]), torch.cat([y_known, y[i : i + 1]]))
                found[i] += (hits(after, x_quiz, y_quiz) - before) / trials
                bar.update()
    return found


def knn_relabel(x: Tensor, y: Tensor, *, neighbors: int = 10, agreement: float = 0.5) -> Tensor:
    r"""Give each input the label that most of its nearest neighbors have, if enough of them agree.

    $y_i' = \arg\max_c n_c$ if $\max_c n_c / k \ge \eta$, else $y_i$, with $n_c$ how many of the k nearest others have
    the label c; near is in L2.

    Args:
        x: training inputs, float `(N, C, H, W)` in [0, 1], perhaps poisoned.
        y: their labels `(N,)`, int64.
        neighbors: k, from 1 to N - 1.
        agreement: $\eta$, from 0.5 to 1.
    Returns:
        the labels to train with, `(N,)`, int64; `knn_relabel(x, y) == y` is the mask that keeps instead of relabels.
    Raises:
        ValueError: names the argument.
    Reference: Paudice 2018, arXiv 1803.00992, algorithm 1; k = 10 and $\eta$ = 0.5 from section 5.
    Survey: defenses against poisoning, data sanitization.
    Simplified: all labels change at once, from the neighbors' labels as given. Classes that tie give the lowest.

    >>> x = torch.tensor([0.1, 0.2, 0.3, 0.7, 0.8, 0.9]).view(-1, 1, 1, 1)
    >>> knn_relabel(x, torch.tensor([0, 0, 1, 1, 1, 1]), neighbors=2)
    tensor([0, 0, 0, 1, 1, 1])
    """
    check_images(x)
    check_labels(y, x)
    check_count("neighbors", neighbors)
    check_number("neighbors", neighbors, low=1, high=len(y) - 1)
    check_number("agreement", agreement, low=0.5, high=1)
    votes = torch.zeros(len(y), int(y.max()) + 1, dtype=torch.int64, device=x.device)
    points = x.flatten(1)
    for start in range(0, len(y), 1000):
        between = torch.cdist(points[start : start + 1000], points)
        between.diagonal(start).fill_(torch.inf)
        nearest = between.topk(neighbors, largest=False)[1]
        votes[start : start + 1000].scatter_add_(1, y[nearest], torch.ones_like(nearest))
    most, mode = votes.max(1)
    return torch.where(most >= agreement * neighbors, mode, y)


@torch.no_grad()
def hits(model: nn.Module, x: Tensor, y: Tensor) -> int:
    """How many inputs the model gets right."""
    return int((logits_of(model, x, y).argmax(1) == y).sum())


def check_roni(train: Train, x: Tensor, y: Tensor, x_trusted: Tensor, y_trusted: Tensor, needed: int) -> None:
    """Raise `ValueError` unless there are labeled inputs, and as many trusted ones as are needed."""
    check_callable("train", train)
    for name, inputs, labels in (("", x, y), ("_trusted", x_trusted, y_trusted)):
        check_images(inputs, f"x{name}")
        check_labels(labels, inputs, f"y{name}")
    if x_trusted.shape[1:] != x.shape[1:] or len(y_trusted) < needed:
        raise ValueError(f"x_trusted is {describe(x_trusted)}; accepted: at least {needed} inputs of the shape of x")

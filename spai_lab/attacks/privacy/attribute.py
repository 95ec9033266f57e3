r"""Attribute inference: what a model's answer says about a column of a row that the attacker does not have.

The attacker knows the other columns, the label, and how common each value is. It fills in one value after the other
and asks the model which of them explains the label best. What could be said without asking, by `imputation`, is the
yardstick: only what goes beyond it has leaked from the model.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from spai_lab.checks import check_batch, check_classes, check_count, check_images, check_labels, describe
from spai_lab.metrics import Rate
from spai_lab.query import Query, check_query


class Guessed(NamedTuple):
    """What the attacker takes the hidden column for.

    Args:
        guess: the number of the likeliest value, int64 `(N,)`; of equally likely ones the first.
        score: how likely each value is, `(N, V)`; rows sum to 1.
    """

    guess: Tensor
    score: Tensor


def attribute_inference(
    query: Query,
    x_known: Tensor,
    y: Tensor,
    *,
    column: int,
    values: Tensor,
    prior: Tensor,
    confusion: Tensor | None = None,
) -> Guessed:
    r"""Try each value of the hidden column, and weigh how common it is by how well it explains the label.

    $\Pr(v \mid x, y) \propto \Pr(v) \, \mathrm{err}(y, f(x_v))$, with v written into the hidden column of $x_v$.
    From labels alone $\mathrm{err}(y, y') = \Pr(f(x) = y' \mid y)$ is the confusion matrix of the model; from scores it
    is the probability $f_y(x_v) = \exp(-L(f(x_v), y))$.

    Args:
        query: reveals "labels", "scores" or "logits" of rows `(N, D)` in [0, 1]. Each row costs V queries.
        x_known: rows, floating point `(N, D)` in [0, 1]; what the hidden column holds is not read.
        y: their labels, which the attacker knows, int64 `(N,)`.
        column: the hidden one, from 0 to D - 1.
        values: what it may hold, `(V,)` in [0, 1], V at least 2.
        prior: how common each value is, `(V,)`, or for each row by itself `(N, V)`, as `imputation` says; above 0,
            sums to 1.
        confusion: needed for labels: row y, column y', $\Pr(f(x) = y' \mid y)$, `(K, K)`; rows sum to 1. See
            `confusion_matrix`.
    Returns:
        the likeliest value, and how likely each is.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Fredrikson 2014, "Privacy in pharmacogenetics", USENIX Security, section 4; Fredrikson 2015, CCS, section
        4, for the confusion matrix; Yeom 2018, arXiv 1709.01604, section 4, whose error density is here $\exp(-L)$.
    Survey: private AI, threats by a user.
    Simplified: one hidden column; the papers hide several, and try all combinations.

    >>> model = torch.nn.Linear(2, 2, bias=False)
    >>> _ = model.weight.data.copy_(torch.tensor([[1.0, 9.0], [5.0, 0.0]]))
    >>> x, y, values = torch.tensor([[0.3, 0.0], [0.6, 0.0]]), torch.tensor([0, 1]), torch.tensor([0.0, 1.0])
    >>> even = torch.tensor([0.5, 0.5])
    >>> attribute_inference(Query(model, "scores"), x, y, column=1, values=values, prior=even).guess
    tensor([1, 0])
    """
    check_attribute(query, x_known, y, column, values, prior, confusion)
    evidence = []
    for v in values:
        x_v = x_known.clone()
        x_v[:, column] = v
        answer = query(x_v)
        if query.reveals == "labels":
            check_within(confusion, answer, y)
            evidence.append(confusion[y, answer])
        else:
            check_classes(y, answer)
            f = answer.softmax(1) if query.reveals == "logits" else answer
            evidence.append(f.gather(1, y[:, None])[:, 0])
    err = torch.stack(evidence, 1).to(x_known)
    log_posterior = prior.to(err).log() + err.clamp_min(torch.finfo(err.dtype).tiny).log()
    return guessed(log_posterior.softmax(1))


def imputation(
    x_public: Tensor,
    x_known: Tensor,
    *,
    column: int,
    values: Tensor,
    y_public: Tensor | None = None,
    y: Tensor | None = None,
) -> Guessed:
    r"""The guess that needs no model: learn the hidden column from the others, on rows that the attacker owns.

    $\Pr(v \mid x) \propto \exp(w_v^\top x + b_v)$, logistic regression; the label may be one of the columns.

    Args:
        x_public: the attacker's own rows, floating point `(M, D)` in [0, 1], in which the column is not hidden.
        x_known: rows `(N, D)` in [0, 1]; what the hidden column holds is not read.
        column: the hidden one, from 0 to D - 1.
        values: what it may hold, `(V,)` in [0, 1]; the nearest counts. Each occurs in `x_public`.
        y_public, y: the labels of both, int64 `(M,)` and `(N,)`, to learn from them too; None leaves them out.
    Returns:
        the likeliest value, and how likely each is: a `prior` for `attribute_inference` too.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Jayaraman and Evans 2022, arXiv 2209.01292, which calls for this yardstick.

    >>> generator = torch.Generator().manual_seed(0)
    >>> x = torch.rand(200, 1, generator=generator)
    >>> x = torch.cat([x, (x > 0.5).float()], 1)
    >>> imputation(x, torch.tensor([[0.9, 0.0], [0.2, 0.0]]), column=1, values=torch.tensor([0.0, 1.0])).guess
    tensor([1, 0])
    """
    from sklearn.linear_model import LogisticRegression

    check_rows(x_known, column, values)
    check_rows(x_public, column, values, "x_public")
    if x_public.shape[1] != x_known.shape[1]:
        raise ValueError(f"x_public is {describe(x_public)}; accepted: {x_known.shape[1]} columns, like x_known")
    if (y_public is None) != (y is None):
        raise ValueError("y_public and y go together; one of them is None")
    hidden = value_numbers(x_public, column, values)
    missing = set(range(len(values))) - set(hidden.tolist())
    if missing:
        raise ValueError(f"values has {values[min(missing)].item():g}, which no row of x_public holds")
    if y is not None:
        check_labels(y, x_known)
        check_labels(y_public, x_public, "y_public")
    classes = 0 if y is None else 1 + int(torch.cat([y_public, y]).max())

    def others(x: Tensor, y: Tensor | None) -> Tensor:
        rest = torch.cat([x[:, :column], x[:, column + 1 :]], 1)
        return rest if y is None else torch.cat([rest, torch.eye(classes).to(rest)[y]], 1)

    regression = LogisticRegression(max_iter=1000)
    regression.fit(others(x_public, y_public).double().cpu().numpy(), hidden.cpu().numpy())
    score = torch.from_numpy(regression.predict_proba(others(x_known, y).double().cpu().numpy()))
    return guessed(score.to(x_known))


def confusion_matrix(query: Query, x: Tensor, y: Tensor, *, classes: int) -> Tensor:
    r"""How often the model answers y' where y is right, on rows that the attacker owns: $\Pr(f(x) = y' \mid y)$.

    Every count starts at 1, so that nothing seems impossible.

    Args:
        query: reveals "labels".
        x: rows `(N, D)` in [0, 1].
        y: their labels, int64 `(N,)`.
        classes: K, at least 2.
    Returns:
        `(K, K)`, row y, column y'; rows sum to 1.
    Raises:
        ValueError: names the argument.

    >>> x = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    >>> confusion_matrix(Query(torch.nn.Identity(), "labels"), x / 2, torch.tensor([0, 0]), classes=2)
    tensor([[0.5000, 0.5000],
            [0.5000, 0.5000]])
    """
    check_query(query, "labels")
    check_images(x)
    check_labels(y, x)
    check_count("classes", classes, low=2)
    answer = query(x)
    counts = torch.ones(classes, classes, dtype=x.dtype, device=x.device)
    check_within(counts, answer, y, "classes")
    counts.index_put_((y, answer), counts.new_ones(()), accumulate=True)
    return counts / counts.sum(1, keepdim=True)


def attribute_rate(guess: Tensor, hidden: Tensor) -> Rate:
    """How many rows the attacker gets right.

    Args:
        guess: the numbers of values, int64 `(N,)`, N at least 1.
        hidden: the right ones, like `guess`.
    Returns:
        the rate, with its interval.
    Raises:
        ValueError: names the argument.

    >>> print(attribute_rate(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0])))
    66.7 % (n = 3, 95 % interval 20.8 to 93.9)
    """
    check_labels(hidden, hidden, "hidden")
    check_labels(guess, hidden, "guess")
    return Rate(int((guess == hidden).sum()), len(hidden))


def attribute_advantage(member_guess: Tensor, member: Tensor, other_guess: Tensor, other: Tensor) -> float:
    r"""How much more often the attacker is right about rows that the model was trained on than about others.

    $\mathrm{Adv} = \sum_v \Pr(v) \left(\Pr(\mathcal A = v \mid v, \text{member}) -
    \Pr(\mathcal A = v \mid v, \text{other})\right)$, with $\Pr(v)$ from all rows together.

    Args:
        member_guess, member: guesses about training rows and the truth, int64 `(N,)`, numbers of values.
        other_guess, other: the same for rows that the model never saw; every value that occurs occurs in both.
    Returns:
        the advantage, from -1 to 1; 0 if the model treats both alike.
    Raises:
        ValueError: names the argument.
    Reference: Yeom 2018, arXiv 1709.01604, section 4, the attribute advantage.

    >>> truth = torch.tensor([0, 1])
    >>> attribute_advantage(truth, truth, 1 - truth, truth)
    1.0
    """
    for name, guess, truth in (("member", member_guess, member), ("other", other_guess, other)):
        check_labels(truth, truth, name)
        check_labels(guess, truth, f"{name}_guess")
    everything = torch.cat([member, other])
    if set(member.tolist()) != set(other.tolist()):
        raise ValueError("member and other hold different values; accepted: each value in both")
    right = [
        ((member_guess == v)[member == v].double().mean() - (other_guess == v)[other == v].double().mean())
        * (everything == v).double().mean()
        for v in everything.unique()
    ]
    return float(sum(right))


def value_numbers(x: Tensor, column: int, values: Tensor) -> Tensor:
    """Which value the column holds in each row: the number of the nearest, int64 `(N,)`.

    >>> value_numbers(torch.tensor([[0.5, 0.9], [0.5, 0.2]]), 1, torch.tensor([0.0, 1.0]))
    tensor([1, 0])
    """
    return (x[:, column, None] - values.to(x)).abs().argmin(1)


def guessed(score: Tensor) -> Guessed:
    """The first of the likeliest values of each row."""
    return Guessed(score.argmax(1), score)


def check_rows(x: Tensor, column: int, values: Tensor, name: str = "x_known") -> None:
    """Raise `ValueError` unless there are rows that have the column, and values in [0, 1] that it may hold."""
    check_batch(name, x)
    if x.ndim != 2 or len(x) == 0:
        raise ValueError(f"{name} is {describe(x)}; accepted: rows (N, D), N at least 1")
    check_images(x, name)
    check_count("column", column, low=0)
    if column >= x.shape[1]:
        raise ValueError(f"column is {column}; accepted: 0 to {x.shape[1] - 1}")
    floats = isinstance(values, Tensor) and values.is_floating_point() and values.ndim == 1
    if not floats or len(values.unique()) < max(2, len(values)) or not (values.ge(0) & values.le(1)).all():
        raise ValueError(f"values is {describe(values)}; accepted: at least two different numbers in [0, 1], (V,)")


def check_attribute(
    query: Query,
    x_known: Tensor,
    y: Tensor,
    column: int,
    values: Tensor,
    prior: Tensor,
    confusion: Tensor | None,
) -> None:
    """Raise `ValueError` unless each argument of `attribute_inference` is in its range."""
    check_query(query, "labels", "scores", "logits")
    check_rows(x_known, column, values)
    check_labels(y, x_known)
    shapes = [(len(values),), (len(x_known), len(values))]
    check_distributions("prior", prior, *shapes)
    if not prior.gt(0).all():
        raise ValueError("prior holds 0; accepted: above 0, for each value that is tried")
    if (query.reveals == "labels") != (confusion is not None):
        raise ValueError("confusion is needed for a query that reveals 'labels', and for no other")
    if confusion is not None:
        classes = len(confusion) if isinstance(confusion, Tensor) and confusion.ndim else 0
        check_distributions("confusion", confusion, (classes, classes))


def check_distributions(name: str, value: Tensor, *shapes: tuple[int, ...]) -> None:
    """Raise `ValueError` unless `value` has one of the shapes and holds probabilities that sum to 1 in each row."""
    wanted = " or ".join(map(str, shapes))
    if not isinstance(value, Tensor) or not value.is_floating_point() or tuple(value.shape) not in shapes:
        raise ValueError(f"{name} is {describe(value)}; accepted: floating point of shape {wanted}")
    if not value.ge(0).all() or not (value.sum(-1) - 1).abs().le(1e-5).all():
        raise ValueError(f"{name} does not sum to 1, or has entries below 0; accepted: probabilities")


def check_within(matrix: Tensor, answer: Tensor, y: Tensor, name: str = "confusion") -> None:
    """Raise `ValueError` unless the matrix has a row for each label and a column for each answer."""
    largest = int(torch.cat([answer, y]).max())
    if largest >= len(matrix):
        raise ValueError(f"{name} knows {len(matrix)} classes; accepted: more than {largest}, which occurs")

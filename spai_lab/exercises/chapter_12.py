"""Chapter 12: an input read off its gradient, its label as well, and the mean that a server takes of who answered."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spai_lab.exercises.exercise import Exercise, Fault, call

CHAPTER = "12_leaks_in_collaboration"


# --- leak_from_gradient


def my_leak_from_gradient(dW, db):
    """The input behind the gradient that a participant shared.

    dW: gradient of the loss for the weights of the first linear layer, (K, D).
    db: gradient for its bias, (K,). Both come from a single input.
    Returns the input (D,).
    """
    k = db.abs().argmax()
    return dW[k] / db[k]


def clearest_row(dW: Tensor, db: Tensor) -> tuple[Tensor, Tensor]:
    """The row with the largest bias gradient, and that gradient."""
    k = db.abs().argmax()
    return dW[k], db[k]


def forgets_to_divide(dW, db):
    """It returns a row as it is: the input, but scaled by the bias gradient of that row; divide by it."""
    return clearest_row(dW, db)[0]


def loses_the_sign(dW, db):
    """It divides by the size of the bias gradient; where that is negative, the input comes out negated."""
    row, slope = clearest_row(dW, db)
    return row / slope.abs()


def multiplies(dW, db):
    """It multiplies by the bias gradient, which is in the row already; divide by it."""
    row, slope = clearest_row(dW, db)
    return row * slope


def stretches_the_row(dW, db):
    """It stretches the row to [0, 1]: looks right, and is not; the bias gradient gives the true scale."""
    row, _ = clearest_row(dW, db)
    return (row - row.min()) / (row.max() - row.min())


def scales_to_length_one(dW, db):
    """It scales the row to length 1; the input has a length of its own, and the bias gradient reveals it."""
    row, _ = clearest_row(dW, db)
    return row / row.norm()


def averages_all_rows(dW, db):
    """It averages over all rows, also over those that are zero and tell nothing, and comes out too faint."""
    return (dW / db[:, None]).nan_to_num(0, 0, 0).mean(0)


def forgets_the_squares(dW, db):
    """It adds up the rows times their bias gradients, and forgets to divide by the sum of their squares."""
    return dW.T @ db


def gradients_of_first_layers(seed: int = 41) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Input, weight gradient, bias gradient of two networks with units that ReLU silenced, and of a regression."""
    generator = torch.Generator().manual_seed(seed)
    records = []
    for units, pixels, classes, silent in ((6, 5, 3, 3), (4, 9, None, 0), (12, 16, 5, 8)):
        x = torch.rand(pixels, generator=generator)
        W = torch.randn(units, pixels, generator=generator).requires_grad_()
        b = torch.randn(units, generator=generator)
        b[:silent] -= 50
        b.requires_grad_()
        z = W @ x + b
        logits = torch.randn(classes, units, generator=generator) @ z.relu() if classes else z
        loss = F.cross_entropy(logits, torch.tensor(1))
        records.append((x, *torch.autograd.grad(loss, (W, b))))
    return records


def shared_gradients() -> list[dict]:
    return [{"dW": dW, "db": db} for _, dW, db in gradients_of_first_layers()]


def input_behind(dW, db) -> Tensor:
    """The input with which the gradients were taken."""
    return next(x for x, _, slope in gradients_of_first_layers() if torch.equal(slope, db))


def leak(answer: Callable, dW, db) -> object:
    """The answer's result, unless it is 0 / 0."""
    result = call(answer, dW=dW, db=db)
    if isinstance(result, Tensor) and result.isnan().any():
        raise Fault(
            "It returns NaN: it divides zero by zero. A unit that ReLU silenced has a zero row and a zero bias "
            "gradient, and the rows of softmax regression add up to zero: choose one row, with a bias gradient far "
            "from zero."
        )
    return result


def rows_cancel(result: np.ndarray, dW, db) -> str | None:
    """What stands out where softmax regression is right behind the input."""
    if abs(db.sum()) > 1e-5 * db.abs().sum():
        return None
    return (
        "It is wrong for softmax regression, whose bias gradients add up to zero: does it add up rows? One is enough."
    )


leak_from_gradient = Exercise(
    chapter=CHAPTER,
    task=r"""
        **Nothing but a gradient.** A participant keeps the image and shares the gradient. If the network begins with a
        linear layer, $z = W x + b$, the chain rule gives for its row $k$

        $$\frac{\partial L}{\partial W_k} = \frac{\partial L}{\partial z_k} \, x,
        \qquad \frac{\partial L}{\partial b_k} = \frac{\partial L}{\partial z_k}.$$

        Write `my_leak_from_gradient(dW, db)`: the input $x$, exactly. Some rows may be zero; take the one with the
        largest $|\partial L / \partial b_k|$.
    """,
    solution=my_leak_from_gradient,
    truth=input_behind,
    cases=shared_gradients,
    tested="two networks in which ReLU silences units, and softmax regression, against the input itself",
    hints=(
        "The two equations share a factor that you do not need to know. How do you get rid of it?",
        "Divide: $x = \\frac{\\partial L}{\\partial W_k} / \\frac{\\partial L}{\\partial b_k}$, for one row k.",
        "Which row? `db.abs().argmax()`: largest in size, whatever the sign.",
    ),
    mistakes=(
        forgets_to_divide,
        loses_the_sign,
        multiplies,
        stretches_the_row,
        scales_to_length_one,
        averages_all_rows,
        forgets_the_squares,
    ),
    call=leak,
    look=rows_cancel,
)


# --- leaked_label


def my_leaked_label(dW, db):
    """The label behind the gradient of a classifier's last layer, for one input.

    dW: gradient of the cross-entropy for the layer's weights, (K, D), a row a class.
    db: gradient for its bias, (K,), or None if the layer has no bias: then the D
    features that come into it are known to be at least 0, as behind a ReLU.
    Returns the label, a whole number from 0 to K - 1.
    """
    slope = dW.sum(1) if db is None else db
    return slope.argmin().item()


def takes_the_largest(dW, db):
    """It takes the largest entry, the likeliest of the wrong classes; the label's own entry is negative."""
    return (dW.sum(1) if db is None else db).argmax().item()


def takes_the_closest_to_zero(dW, db):
    """It takes the entry closest to zero, the least likely class; the label's is p_y - 1, below zero."""
    return (dW.sum(1) if db is None else db).abs().argmin().item()


def trusts_the_weights(dW, db):
    """It looks at the weights alone; where features are negative, a row need not have the sign of its class."""
    return dW.sum(1).argmin().item()


def adds_up_the_wrong_way(dW, db):
    """Without a bias it adds up over the classes, and finds a feature; a class is a row: add up over `dim=1`."""
    return (dW.sum(0) if db is None else db).argmin().item()


def finds_a_place_in_the_matrix(dW, db):
    """Without a bias it returns a place in the flattened matrix, `dW.argmin()`; the class is the row of that place."""
    return (dW if db is None else db).argmin().item()


def counts_from_one(dW, db):
    """It counts the classes from 1; labels begin with 0."""
    return my_leaked_label(dW, db) + 1


def returns_the_entry(dW, db):
    """It returns the entry itself; asked is where it stands: `argmin` rather than `min`."""
    return (dW.sum(1) if db is None else db).min().item()


def gradients_of_last_layers(seed: int = 42) -> list[tuple[int, Tensor, Tensor | None]]:
    """Label, weight gradient, bias gradient; with tanh before the last layer and a bias, with ReLU and none."""
    generator = torch.Generator().manual_seed(seed)
    records = []
    for classes, features, label, has_bias in (
        (5, 6, 2, True),
        (10, 8, 0, True),
        (4, 7, 3, False),
        (10, 12, 7, False),
        (3, 5, 1, True),
        (6, 9, 0, False),
    ):
        h = torch.randn(features, generator=generator)
        h = h.tanh() if has_bias else h.relu()
        W = torch.randn(classes, features, generator=generator).requires_grad_()
        b = torch.randn(classes, generator=generator).requires_grad_()
        loss = F.cross_entropy(W @ h + b if has_bias else W @ h, torch.tensor(label))
        gradients = torch.autograd.grad(loss, (W, b) if has_bias else (W,))
        records.append((label, gradients[0], gradients[1] if has_bias else None))
    return records


def last_gradients() -> list[dict]:
    return [{"dW": dW, "db": db} for _, dW, db in gradients_of_last_layers()]


def label_behind(dW, db) -> int:
    """The label with which the gradients were taken."""
    return next(label for label, slope, _ in gradients_of_last_layers() if torch.equal(slope, dW))


def not_a_class(result: np.ndarray, dW, db) -> str | None:
    """What stands out in a number that names no class."""
    if result in range(len(dW)):
        layer = "without" if db is None else "with"
        return f"It returns class {result:.0f} for a layer {layer} a bias; the label was {label_behind(dW, db)}."
    return f"It returns {result:.4g}; expected a class from 0 to {len(dW) - 1}."


leaked_label = Exercise(
    chapter=CHAPTER,
    task=r"""
        **The label first.** With logits $z = W h + b$ and cross-entropy, the gradient of the last layer is

        $$\frac{\partial L}{\partial b_k} = p_k - [k = y],
        \qquad \frac{\partial L}{\partial W_k} = (p_k - [k = y]) \, h,$$

        where $p$ are the model's probabilities and $y$ is the label. Just one of these factors is below zero. Write
        `my_leaked_label(dW, db)`: the label of the one input behind the gradient. Some layers have no bias, and `db` is
        `None`: then you know that all features are at least 0, $h \ge 0$.
    """,
    solution=my_leaked_label,
    truth=label_behind,
    cases=last_gradients,
    tested="layers of 3 to 10 classes: three with a bias behind tanh, three without one behind ReLU",
    hints=(
        "Probabilities lie between 0 and 1. What is the sign of p_k, and what is the sign of p_y - 1?",
        "With a bias: the place of the smallest entry of `db`, which is the negative one.",
        "Without: if h is at least 0, a row of `dW` adds up to a number with the sign of its factor: `dW.sum(1)`.",
    ),
    mistakes=(
        takes_the_largest,
        takes_the_closest_to_zero,
        trusts_the_weights,
        adds_up_the_wrong_way,
        finds_a_place_in_the_matrix,
        counts_from_one,
        returns_the_entry,
    ),
    look=not_a_class,
)


# --- federated_mean


def my_federated_mean(updates, sizes, answered):
    """What the server makes of a round in which some clients dropped out.

    updates: a row for each of n clients, (n, D); who did not answer has an old row.
    sizes: how many training examples each client has, (n,), int64.
    answered: who answered in this round, bool (n,); at least one.
    Returns the mean (D,), in which each example of those who answered counts alike.
    """
    weights = sizes[answered] / sizes[answered].sum()
    return weights @ updates[answered]


def total(updates: Tensor, weights: Tensor) -> Tensor:
    """The weighted sum over the clients."""
    return (weights[:, None] * updates).sum(0)


def waits_for_all(updates, sizes, answered):
    """It takes in the old rows of clients that did not answer; keep the rows where `answered` is true."""
    return total(updates, sizes) / sizes.sum()


def divides_by_all(updates, sizes, answered):
    """It divides by the examples of all clients, also of those who dropped out, so that every step is too short."""
    return total(updates, sizes * answered) / sizes.sum()


def counts_clients(updates, sizes, answered):
    """It weighs all clients alike; a client with ten times the examples counts ten times as much."""
    return updates[answered].mean(0)


def counts_all_clients(updates, sizes, answered):
    """It weighs all clients alike, and divides by all n of them, though some dropped out."""
    return total(updates, answered) / len(updates)


def forgets_to_divide_the_sum(updates, sizes, answered):
    """It adds up and does not divide: the more examples, the larger the step."""
    return total(updates, sizes * answered)


def divides_by_the_clients(updates, sizes, answered):
    """It weighs by examples, and divides by the number of clients; divide by the number of their examples."""
    return total(updates, sizes * answered) / answered.sum()


def takes_the_others(updates, sizes, answered):
    """It takes those who did not answer; with `answered` as an index, those who did are kept."""
    return total(updates, sizes * ~answered) / (sizes * ~answered).sum()


def weighs_the_other_way(updates, sizes, answered):
    """It divides by the sizes instead of multiplying: the fewer examples a client has, the more it counts."""
    weights = answered / sizes
    return total(updates, weights) / weights.sum()


ROUNDS = (
    ((10, 40, 25, 5), "1011"),
    ((100, 1, 30, 30, 7, 60), "110101"),
    ((3, 8), "01"),
    ((12, 12, 50, 2, 9), "11101"),
)


def rounds(seed: int = 43) -> list[dict]:
    """Updates of one round, and old rows where a client did not answer."""
    generator = torch.Generator().manual_seed(seed)
    cases = []
    for sizes, marks in ROUNDS:
        answered = torch.tensor([mark == "1" for mark in marks])
        updates = torch.randn(len(sizes), 4, generator=generator)
        updates[~answered] += 20
        cases.append({"updates": updates, "sizes": torch.tensor(sizes), "answered": answered})
    return cases


def example_by_example(updates, sizes, answered) -> np.ndarray:
    """The plain mean over examples, each of which brings its client's update along."""
    mask = answered.numpy()
    return np.repeat(updates.double().numpy()[mask], sizes.numpy()[mask], axis=0).mean(0)


def beyond_the_clients(result: np.ndarray, updates, sizes, answered) -> str | None:
    """What stands out in a mean that lies outside what it is the mean of."""
    low, high = (end.double().numpy() for end in updates[answered].aminmax(dim=0))
    outside = (result < low - 1e-5) | (result > high + 1e-5)
    if not outside.any():
        return None
    i = int(outside.argmax())
    return (
        f"At `[{i}]` it gives {result[i]:.4g}; those who answered sent values from {low[i]:.4g} to {high[i]:.4g}, and "
        "a mean lies between them."
    )


federated_mean = Exercise(
    chapter=CHAPTER,
    task=r"""
        **Whoever answers.** In federated averaging, client $k$ trains on its own $n_k$ examples and sends an update
        $u_k$. Phones lose their connection, so the server takes the mean over the set $S$ of those who answered,

        $$\bar u = \frac{\sum_{k \in S} n_k u_k}{\sum_{k \in S} n_k}.$$

        Write `my_federated_mean(updates, sizes, answered)`. Where a client did not answer, its row still holds an old
        update, which must not count.
    """,
    solution=my_federated_mean,
    truth=example_by_example,
    cases=rounds,
    tested="rounds of 2 to 6 clients, of whom 1 to 4 answered, against the mean over all their examples",
    hints=(
        "A mask as an index keeps the rows where it is true: `updates[answered]`, `sizes[answered]`.",
        "The weights are shares of the examples, and add up to 1: `n / n.sum()` over those who answered.",
        "`weights[:, None] * updates` multiplies each row by its weight; add up over `dim=0`.",
    ),
    mistakes=(
        waits_for_all,
        divides_by_all,
        counts_clients,
        counts_all_clients,
        forgets_to_divide_the_sum,
        divides_by_the_clients,
        takes_the_others,
        weighs_the_other_way,
    ),
    look=beyond_the_clients,
)

EXERCISES = (leak_from_gradient, leaked_label, federated_mean)

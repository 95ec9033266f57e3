r"""Poisoning a support vector machine: each poison climbs the validation loss, through the conditions of the optimum.

The attacker's problem has two levels: $\max_{x_c} L(\alpha, b)$ on validation data, where $\alpha$ and $b$ solve the
machine's own problem on the clean data and the poison, and so depend on where the poison lies.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from spai_lab.attacks.poisoning.poisoned import Poisoned, added, budget, drawn
from spai_lab.checks import (
    check_callable,
    check_count,
    check_flag,
    check_generator,
    check_images,
    check_labels,
    check_number,
    check_steps,
    describe,
)
from spai_lab.data import Dataset
from spai_lab.threat import fresh_generator, steepest

Kernel = Callable[[Tensor, Tensor], Tensor]
BOUND = 1e-8  # how near to 0 or C, as a share of C, a dual weight counts as being there
FLAT = 1e-12  # the length of a gradient, in loss per pixel, below which it is rounding


def linear(a: Tensor, b: Tensor) -> Tensor:
    r"""The linear kernel $a_i \cdot b_j$ of flat inputs `(N, D)` and `(M, D)`: `(N, M)`."""
    return a @ b.T


def rbf(gamma: float) -> Kernel:
    r"""The kernel $\exp(-\gamma \|a_i - b_j\|_2^2)$, as a function of flat inputs `(N, D)` and `(M, D)`.

    >>> rbf(0.5)(torch.zeros(1, 2), torch.ones(1, 2))
    tensor([[0.3679]])
    """
    check_number("gamma", gamma, low=0, exclusive=True)
    return lambda a, b: torch.exp(-gamma * ((a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T))


class SupportVectorMachine(nn.Module):
    r"""Trained kernel machines as one victim: half the difference of two classes' logits is a machine's answer.

    $z_k(x) = \sum_i w_{ik} K(x, x_i) + b_k$.

    Args:
        points: training inputs, flat, `(N, D)`.
        weights: $w$, `(N, K)`.
        bias: $b$, `(K,)`.
        kernel: K.
    """

    def __init__(self, points: Tensor, weights: Tensor, bias: Tensor, kernel: Kernel) -> None:
        super().__init__()
        self.kernel = kernel
        for name, value in (("points", points), ("weights", weights), ("bias", bias)):
            self.register_buffer(name, value)

    def forward(self, x: Tensor) -> Tensor:
        return (self.kernel(x.flatten(1).to(self.points), self.points) @ self.weights + self.bias).to(x)


def train_svm(x: Tensor, y: Tensor, *, C: float = 1.0, kernel: Kernel = linear) -> SupportVectorMachine:
    r"""Train a support vector machine; of more than two classes, one machine for each against the rest.

    $\min_{w, b} \frac{1}{2} \|w\|^2 + C \sum_i [1 - s_i f(x_i)]_+$, with $s_i = \pm 1$ for the two sides.

    Args:
        x: inputs `(N, C, H, W)` in [0, 1].
        y: labels `(N,)`, int64, of at least two classes; none of 0 to the highest is missing.
        C: what an error costs, above 0.
        kernel: `linear`, `rbf(gamma)`, or such a function.
    Returns:
        `(N, C, H, W)` to logits `(N, K)`; with two classes these are $\mp f / 2$, so that their difference is f.
    Raises:
        ValueError: names the argument.
    Simplified: scikit-learn solves the problem.

    >>> model = train_svm(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1), torch.tensor([0, 1]), C=10.0)
    >>> [round(z, 3) for z in model(torch.tensor([[[[1.0]]]]))[0].tolist()]
    [-0.5, 0.5]
    """
    check_images(x)
    check_labels(y, x)
    check_machine(C, kernel)
    classes = int(y.max()) + 1 if len(y) else 0
    if classes < 2 or len(y.unique()) < classes:
        raise ValueError(f"y has the classes {y.unique().tolist()}; accepted: all of 0 to K - 1, K at least 2")
    points = x.flatten(1).double()
    K = kernel(points, points)
    sides = [2.0 * (y == k) - 1 for k in ([1] if classes == 2 else range(classes))]
    solved = [solve_dual(K, s.double(), C) for s in sides]
    weights = torch.stack([s * alpha for s, (alpha, _) in zip(sides, solved, strict=True)], dim=1)
    bias = torch.stack([b for _, b in solved])
    if classes == 2:
        halves = torch.tensor([-0.5, 0.5], dtype=torch.float64)
        weights, bias = weights * halves, bias * halves
    used = (weights != 0).any(1)
    return SupportVectorMachine(points[used], weights[used], bias, kernel)


def svm_hypergradient(
    x: Tensor,
    y: Tensor,
    x_val: Tensor,
    y_val: Tensor,
    x_c: Tensor,
    y_c: Tensor,
    *,
    C: float = 1.0,
    kernel: Kernel = linear,
) -> tuple[float, Tensor]:
    r"""The validation loss of a machine trained with the poisons, and how it changes when they move.

    Dual weights that are 0 or C stay so; those of the margin's support vectors S move with b such that S stays on the
    margin: $F = (s_i f(x_i) - 1)_{i \in S} = 0$ and $s \cdot \alpha = 0$. With J the Jacobian of these conditions,

    $\frac{dL}{dx_c} = \frac{\partial L}{\partial x_c} - \lambda \cdot \frac{\partial F}{\partial x_c}, \quad
    J \lambda = \frac{\partial L}{\partial (\alpha_S, b)}, \quad
    J = \begin{pmatrix} Q_{SS} & s_S \\ s_S^\top & 0 \end{pmatrix}, \quad Q_{ij} = s_i s_j K(x_i, x_j)$.

    Args:
        x, y: clean training inputs `(N, C, H, W)` in [0, 1] and labels, 0 or 1.
        x_val, y_val: validation inputs and labels.
        x_c, y_c: the poisons and their labels.
        C: what an error costs, above 0.
        kernel: `linear`, `rbf(gamma)`, or such a function, differentiable.
    Returns:
        the mean hinge loss $L = \frac{1}{n} \sum_k [1 - s_k f(x_k)]_+$ of the validation data, and its gradient, like
        `x_c`. Poisons that are no support vectors have the gradient 0.
    Raises:
        ValueError: names the argument.
    Reference: Biggio et al. 2012, arXiv 1206.6389, section 2.2, equations 5 to 10.
    Simplified: we solve for $\lambda$, one system for all poisons, where the paper inverts J; the same derivative.
        Where no vector is on the margin, b is free within an interval, and the middle of it, which libsvm takes, moves.

    >>> x, y = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1), torch.tensor([0, 1])
    >>> poison, label = torch.full((1, 1, 1, 1), 0.75), torch.tensor([0])
    >>> loss, gradient = svm_hypergradient(x, y, x, y, poison, label)
    >>> gradient.shape
    torch.Size([1, 1, 1, 1])
    """
    for name, inputs, labels in (("", x, y), ("_val", x_val, y_val), ("_c", x_c, y_c)):
        check_images(inputs, f"x{name}")
        check_labels(labels, inputs, f"y{name}")
        if len(labels) and labels.max() > 1:
            raise ValueError(f"y{name} has a label {labels.max().item()}; accepted: 0 and 1")
    check_machine(C, kernel)
    x_c = x_c.detach().double().requires_grad_()
    points = torch.cat([x.double(), x_c]).flatten(1)
    s, s_val = 2.0 * torch.cat([y, y_c]).double() - 1, 2.0 * y_val.double() - 1
    K = kernel(points.detach(), points.detach())
    alpha, b = solve_dual(K, s, C)
    S = on_margin(alpha, C)

    alpha.requires_grad_(), b.requires_grad_()
    if not S.any():
        b = middle_bias(kernel(points, points), s, alpha.detach(), C)
    f_val = kernel(x_val.double().flatten(1), points) @ (s * alpha) + b
    L = (1 - s_val * f_val).clamp_min(0).mean()
    f_S = kernel(points[S], points) @ (s * alpha) + b
    conditions = torch.cat([s[S] * f_S - 1, (s @ alpha)[None]])

    to_alpha, to_b = torch.autograd.grad(L, (alpha, b), retain_graph=True)
    J = margin_jacobian(K, s, S)
    lam = least_squares(J, torch.cat([to_alpha[S], to_b[None]]))
    return L.item(), torch.autograd.grad(L - lam @ conditions, x_c)[0]


class Walk(NamedTuple):
    """Where a poison went, and what it did there.

    Args:
        points: `(T, C, H, W)`, the first is its start.
        losses: mean hinge loss on the validation data of a machine trained with the poison there, `(T,)`.
    """

    points: Tensor
    losses: Tensor


def svm_walk(
    data: Dataset,
    x_c: Tensor,
    y_c: Tensor,
    *,
    C: float = 1.0,
    kernel: Kernel = linear,
    steps: int = 50,
    step_size: float | None = None,
) -> Walk:
    r"""One poison's way up the validation loss: unit steps along the gradient, within the range of images.

    $x_c \leftarrow \Pi_{[0, 1]}\left(x_c + t \, \nabla L / \|\nabla L\|_2\right)$.

    Args:
        data: training and validation part, of two classes.
        x_c: where the poison starts, `(1, C, H, W)` in [0, 1].
        y_c: its label `(1,)`, which stays.
        C, kernel: of the victim, as in `train_svm`.
        steps: at most how many. Where the gradient vanishes, since others pin the boundary or the poison is no support
            vector, the poison goes on the way it went; one that never moved stays, and the walk ends.
        step_size: t, in pixel units of the L2 norm; None takes a fiftieth of the diagonal $\sqrt{C H W}$ of all images.
    Returns:
        the points and their losses.
    Raises:
        ValueError: names the argument.
    Reference: Biggio et al. 2012, arXiv 1206.6389, algorithm 1.
    Simplified: the machine is trained anew at each step, not updated; the walk does not stop where the loss stops
        growing or the gradient vanishes, since `svm_poisoning` takes its best point.

    >>> from spai_lab.data import load
    >>> data = load("moons").first(40)
    >>> walk = svm_walk(data, data.x_train[:1], 1 - data.y_train[:1], steps=5)
    >>> len(walk.points), bool(walk.losses[-1] > walk.losses[0])
    (6, True)
    """
    check_count("steps", steps)
    check_steps(steps, step_size)
    check_binary(data)
    t = x_c[0].numel() ** 0.5 / 50 if step_size is None else step_size
    points, losses, direction = [], [], torch.zeros_like(x_c)
    for _ in range(steps + 1):
        loss, gradient = svm_hypergradient(
            data.x_train, data.y_train, data.x_val, data.y_val, x_c, y_c, C=C, kernel=kernel
        )
        points.append(x_c)
        losses.append(loss)
        if gradient.norm() > FLAT:
            direction = steepest(gradient, "l2").to(x_c)
        if not direction.any():
            break
        x_c = (x_c + t * direction).clamp(0, 1)
    return Walk(torch.cat(points), torch.tensor(losses))


def svm_poisoning(
    data: Dataset,
    *,
    fraction: float,
    C: float = 1.0,
    kernel: Kernel = linear,
    steps: int = 50,
    step_size: float | None = None,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> Poisoned:
    r"""Gradient poisoning of a support vector machine: wrongly labeled copies move to where they harm most.

    $\max_{x_c} \sum_k [1 - s_k f_{x_c}(x_k)]_+$ over validation data, with $f_{x_c}$ trained on the clean data and the
    poison; one poison after the other, each beside those before.

    Args:
        data: of two classes; the attacker reads its training and validation part. Each step trains a machine on all
            training inputs, so that a few hundred are enough: see `Dataset.first`.
        fraction: poisons added, as a share of the clean training inputs.
        C, kernel: of the victim, which the attacker knows, as in `train_svm`.
        steps, step_size: of each poison, as in `svm_walk`.
        generator: draws the training inputs at which the poisons start; None draws a fresh one.
        progress: show a bar.
    Returns:
        the clean training set and, at its end, the poisons, in [0, 1].
    Raises:
        ValueError: names the argument.
    Reference: Biggio et al. 2012, arXiv 1206.6389, algorithm 1.
    Survey: poisoning, performance degradation.
    Simplified: as `svm_walk`; poisons start at inputs of both classes, where the paper attacks one class.

    >>> from spai_lab.data import load
    >>> data = load("moons").first(40)
    >>> svm_poisoning(data, fraction=0.05, steps=2, generator=torch.Generator().manual_seed(0), progress=False)
    Poisoned: 2 of 42 training inputs
    """
    check_binary(data)
    check_flag("progress", progress)
    check_generator(generator, data.x_train.device)
    everywhere = torch.ones(len(data.y_train), dtype=torch.bool)
    starts = drawn(everywhere, budget(data, fraction), fresh_generator(generator, data.x_train.device))
    x_p, y_p = data.x_train[:0], 1 - data.y_train[starts]
    for c in tqdm(range(len(starts)), desc="poisoning a support vector machine", disable=not progress):
        others = added(data, x_p, y_p[:c]).within(data)
        walk = svm_walk(
            others, data.x_train[starts[c : c + 1]], y_p[c : c + 1],
            C=C, kernel=kernel, steps=steps, step_size=step_size,
        )  # fmt: skip
        x_p = torch.cat([x_p, walk.points[walk.losses.argmax()][None]])
    return added(data, x_p, y_p)


def solve_dual(K: Tensor, s: Tensor, C: float) -> tuple[Tensor, Tensor]:
    r"""The dual weights `(N,)` in [0, C] and the bias of the machine with kernel matrix `K` and sides `s`, -1 or 1.

    libsvm, which rounds K to single precision, says which vectors are on the margin; there their conditions,
    $J (\alpha_S, b) = (1 - Q_{SE} \alpha_E, -s_E \cdot \alpha_E)$ with E the other vectors, are solved in double.
    """
    from sklearn.svm import SVC

    machine = SVC(kernel="precomputed", C=C, tol=1e-8).fit(K.numpy(), s.numpy())
    alpha = torch.zeros_like(s)
    alpha[torch.from_numpy(machine.support_).long()] = torch.from_numpy(machine.dual_coef_[0]).abs()
    S = on_margin(alpha, C)
    if not S.any():
        return alpha, middle_bias(K, s, alpha, C)
    others = s * alpha.masked_fill(S, 0)
    right = torch.cat([1 - s[S] * (K[S] @ others), -others.sum()[None]])
    solution = least_squares(margin_jacobian(K, s, S), right)
    return alpha.masked_scatter(S, solution[:-1]), solution[-1]


def middle_bias(K: Tensor, s: Tensor, alpha: Tensor, C: float) -> Tensor:
    r"""The middle of the interval of b that suits all vectors, where none lies on the margin.

    A vector with weight 0 needs $s_i f(x_i) \ge 1$, one with weight C needs $s_i f(x_i) \le 1$.
    """
    b_at_margin = s - K @ (s * alpha)
    from_below = (s > 0) == (alpha < C / 2)
    return (b_at_margin[from_below].max() + b_at_margin[~from_below].min()) / 2


def on_margin(alpha: Tensor, C: float) -> Tensor:
    """Which vectors lie on the margin: their dual weight is neither 0 nor C."""
    return (alpha > BOUND * C) & (alpha < (1 - BOUND) * C)


def margin_jacobian(K: Tensor, s: Tensor, S: Tensor) -> Tensor:
    """J: how the conditions of the margin's vectors S, and the sum of all weights, change with their weights and b."""
    Q = s[S, None] * K[S][:, S] * s[S]
    return torch.cat([torch.cat([Q, s[S, None]], 1), torch.cat([s[S], s.new_zeros(1)])[None]])


def least_squares(A: Tensor, b: Tensor) -> Tensor:
    """The shortest solution of `A x = b`, or where there is none the nearest to one."""
    return torch.linalg.lstsq(A, b[:, None], driver="gelsd").solution[:, 0]


def check_machine(C: float, kernel: Kernel) -> None:
    """Raise `ValueError` unless `C` is positive and `kernel` can be called."""
    check_number("C", C, low=0, exclusive=True)
    check_callable("kernel", kernel)


def check_binary(data: Dataset) -> None:
    """Raise `ValueError` unless `data` has two classes, and both in its training part."""
    if not isinstance(data, Dataset):
        raise ValueError(f"data is {describe(data)}; accepted: a Dataset of two classes")
    present = data.y_train.unique().tolist()
    if data.num_classes != 2 or len(present) != 2:
        raise ValueError(
            f"data has {data.num_classes} classes, in training {len(present)}; accepted: two, such as data.only(1, 7)"
        )

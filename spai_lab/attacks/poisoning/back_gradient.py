r"""Back-gradient optimization: poisons climb the victim's validation loss, through every step of its training.

The attacker's problem has two levels: $\max_{x_p} A(\theta_T)$, where $\theta_T$ is what T steps of training make of
the clean data and the poisons $x_p$, and A the loss on validation data.
"""

import math
from collections.abc import Callable
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from tqdm.auto import trange

from spai_lab.attacks.poisoning.poisoned import Poisoned, added, budget, drawn, mislabeled
from spai_lab.checks import (
    check_classes,
    check_count,
    check_flag,
    check_generator,
    check_images,
    check_labels,
    check_model,
    check_number,
    describe,
)
from spai_lab.data import Dataset
from spai_lab.threat import fresh_generator, logits_of
from spai_lab.training.loop import in_mode

LOST = 1e-3  # how far from its start, as a share of the way there and back, a retraced training may end
FIXED_POINT = 200  # iterations, at most


def back_gradient(
    data: Dataset,
    model: nn.Module,
    *,
    fraction: float,
    ascents: int = 20,
    step_size: float = 0.1,
    steps: int = 20,
    learning_rate: float = 0.03,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> Poisoned:
    r"""Back-gradient poisoning: wrongly labeled copies of training images climb the loss of the model they train.

    $x_p \leftarrow \Pi_{[0, 1]}\left(x_p + \eta \, \mathrm{sign}(\nabla_{x_p} A(\theta_T))\right)$, the slope by
    `hypergradient`, which looks back through all T steps of training.

    Args:
        data: the clean data; the attacker draws its poisons from the training part, and climbs the loss on the
            validation part.
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`, as the victim starts: not trained yet. It stays as it is.
        fraction: of the clean training set, so many poisons are added to it; above 0, at most 1.
        ascents: how often all poisons move, at least 1.
        step_size: $\eta$, how far a pixel moves at a time, above 0.
        steps: T, the steps of training that are looked back through, at least 1.
        learning_rate: $\alpha$ of the training, above 0.
        momentum: $\gamma$ of the training, from 0 to 1, 1 excluded.
        weight_decay: $\lambda$ of the training's penalty $\frac{\lambda}{2} \|\theta\|^2$, at least 0.
        generator: draws the copies and their labels; None draws a fresh one.
        progress: show a bar with the time left.
    Returns:
        the training set with the poisons at its end: those of all ascents that did most harm to the validation loss.
        Their labels are drawn at random among the wrong ones, and stay.
    Raises:
        ValueError: an argument is out of its range, or the training cannot be retraced; names it.
    Reference: Muñoz-González et al. 2017, arXiv 1708.08689, algorithms 1 and 2.
    Survey: poisoning, performance degradation.
    Simplified: all poisons move together, where the paper finishes one before it starts the next. They step by the
        sign of the slope, a fixed number of times. The generic attack alone, on the mean loss, not the paper's
        specific one toward chosen mistakes. The paper steps back approximately; `hypergradient` retraces momentum.

    >>> from spai_lab.data import load
    >>> from spai_lab.models import softmax_regression
    >>> data = load("digits").first(100)
    >>> victim = softmax_regression(generator=torch.Generator().manual_seed(0))
    >>> back_gradient(data, victim, fraction=0.1, ascents=1, steps=2, progress=False)
    Poisoned: 10 of 110 training inputs
    """
    check_attacker(data, model, generator, progress)
    check_count("ascents", ascents)
    check_number("step_size", step_size, low=0, exclusive=True)
    count = budget(data, fraction)
    generator = fresh_generator(generator, data.x_train.device)
    chosen = drawn(torch.ones_like(data.y_train, dtype=torch.bool), count, generator)
    x_p, y_p = data.x_train[chosen], mislabeled(data.y_train[chosen], data.num_classes, generator)
    clean = (data.x_train, data.y_train, data.x_val, data.y_val)
    training = {"steps": steps, "learning_rate": learning_rate, "momentum": momentum, "weight_decay": weight_decay}
    best, highest = x_p, -math.inf
    for _ in trange(ascents, desc="back-gradient", disable=not progress):
        harm, slope = hypergradient(model, x_p, y_p, *clean, **training)
        if harm > highest:
            best, highest = x_p, harm
        x_p = (x_p + step_size * slope.sign()).clamp(0, 1)
    return added(data, best, y_p)


def hypergradient(
    model: nn.Module,
    x_p: Tensor,
    y_p: Tensor,
    x: Tensor,
    y: Tensor,
    x_val: Tensor,
    y_val: Tensor,
    *,
    steps: int,
    learning_rate: float,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
) -> tuple[float, Tensor]:
    r"""How the validation loss after training changes with the pixels of the poisons: $\nabla_{x_p} A(\theta_T)$.

    Training: $v_{t} = \gamma v_{t-1} - g_{t-1}$, $\theta_t = \theta_{t-1} + \alpha v_t$, with $g_{t-1}$ the slope of
    $L(\theta, x_p) = \frac{1}{N + M} \sum_i \ell_i + \frac{\lambda}{2} \|\theta\|^2$ over N clean inputs, M poisons.
    The way back starts from $d\theta = \nabla_\theta A(\theta_T)$, $dv = 0$, $dx_p = 0$, and knows where the way ended:

    $\theta_{t-1} = \theta_t - \alpha v_t$, $v_{t-1} = (v_t + g_{t-1}) / \gamma$ (retraced);
    $dv \leftarrow dv + \alpha \, d\theta$;
    $d\theta \leftarrow d\theta - \nabla^2_\theta L \, dv$;
    $dx_p \leftarrow dx_p - \nabla_{x_p} \nabla_\theta L \, dv$;
    $dv \leftarrow \gamma \, dv$.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`; its weights are $\theta_0$, and stay.
        x_p, y_p: the poisons, `(M, C, H, W)` in [0, 1], and their labels `(M,)`.
        x, y: the clean training data.
        x_val, y_val: the validation data.
        steps: T, at least 1.
        learning_rate: $\alpha$, above 0.
        momentum: $\gamma$, from 0 to 1, 1 excluded. At 0 each $v_{t-1}$ solves $v = -g(\theta_{t-1} - \alpha v)$ by
            iteration, of which the paper takes the first; that needs a small learning rate and a smooth model.
        weight_decay: $\lambda$, at least 0.
    Returns:
        $A(\theta_T)$, and the slope, like `x_p`.
    Raises:
        ValueError: an argument is out of its range; the training diverges, or rounding has lost the way back.
    Reference: Muñoz-González et al. 2017, arXiv 1708.08689, algorithm 2; the exact way back is algorithm 2 of Maclaurin
        et al. 2015, arXiv 1502.03492.
    Simplified: every step of training reads all inputs; the way back rounds like any sum, where Maclaurin et al. keep
        the lost bits. That the way back ends at $\theta_0$ is tested on every call.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2)).double()
    >>> x, y = torch.tensor([0.1, 0.9]).double().view(2, 1, 1, 1), torch.tensor([0, 1])
    >>> harm, slope = hypergradient(model, x[:1], y[1:], x, y, x, y, steps=5, learning_rate=0.1)
    >>> slope.shape
    torch.Size([1, 1, 1, 1])
    """
    check_hypergradient(model, x_p, y_p, x, y, x_val, y_val, steps, learning_rate, momentum, weight_decay)
    alpha, gamma = learning_rate, momentum
    model, x_p = deepcopy(model).eval(), x_p.detach().requires_grad_()
    labels = torch.cat([y, y_p])

    def slope(theta: Tensor, create_graph: bool = False) -> Tensor:
        logits = torch.cat([logits_at(model, theta, x), logits_at(model, theta, x_p)])
        g = torch.autograd.grad(F.cross_entropy(logits, labels), theta, create_graph=create_graph)[0]
        return g + weight_decay * theta

    with torch.enable_grad():
        theta_0 = theta = flat_weights(model).requires_grad_()
        v = torch.zeros_like(theta)
        for _ in range(steps):
            v = (gamma * v - slope(theta)).detach()
            theta = (theta + alpha * v).detach().requires_grad_()

        harm = loss_at(model, theta, x_val, y_val)
        check_finite(harm, learning_rate)
        way = (theta - theta_0).norm()
        d_theta = torch.autograd.grad(harm, theta)[0]
        d_v, d_x = torch.zeros_like(v), torch.zeros_like(x_p)
        for t in range(steps, 0, -1):
            theta = (theta - alpha * v).detach().requires_grad_()
            g = slope(theta, create_graph=True)
            if t > 1:
                v = (v + g.detach()) / gamma if gamma else undone(slope, theta, -g.detach(), alpha)
            d_v = d_v + alpha * d_theta
            H_d_v, J_d_v = torch.autograd.grad(g, (theta, x_p), d_v)
            d_theta, d_x, d_v = d_theta - H_d_v, d_x - J_d_v, gamma * d_v
    check_retraced(theta, theta_0, way)
    return harm.item(), d_x


def undone(slope: Callable[[Tensor], Tensor], theta: Tensor, v: Tensor, alpha: float) -> Tensor:
    r"""The step v of plain gradient descent that led to `theta`: $v = -g(\theta - \alpha v)$, iterated from a guess."""
    for _ in range(FIXED_POINT):
        last, v = v, -slope((theta - alpha * v).detach().requires_grad_()).detach()
        if (v - last).norm() <= 10 * torch.finfo(v.dtype).eps * v.norm():
            break
    return v


def flat_weights(model: nn.Module) -> Tensor:
    """All parameters of a model as one vector `(P,)`, detached.

    >>> flat_weights(nn.Linear(3, 2)).shape
    torch.Size([8])
    """
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def logits_at(model: nn.Module, theta: Tensor, x: Tensor) -> Tensor:
    """What the model would say with the parameters `theta`, `(P,)`; differentiable in both, and the model stays."""
    parameters = dict(model.named_parameters())
    parts = theta.split([parameter.numel() for parameter in parameters.values()])
    named = {name: part.view_as(parameters[name]) for name, part in zip(parameters, parts, strict=True)}
    return functional_call(model, named, x)


def losses_at(model: nn.Module, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The cross-entropy of each input, `(N,)`, with the parameters `theta`."""
    return F.cross_entropy(logits_at(model, theta, x), y, reduction="none")


def loss_at(model: nn.Module, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The mean cross-entropy with the parameters `theta`."""
    return losses_at(model, theta, x, y).mean()


def check_finite(harm: Tensor, learning_rate: float) -> None:
    """Raise `ValueError` unless training has led to a finite loss."""
    if not harm.isfinite():
        raise ValueError(f"learning_rate is {learning_rate:g}: the training diverges; accepted: a lower one")


def check_retraced(theta: Tensor, theta_0: Tensor, way: Tensor) -> None:
    """Raise `ValueError` unless the way back has ended where the training began."""
    missed = (theta - theta_0).detach().norm()
    if not missed <= LOST * way:
        raise ValueError(
            f"steps: the way back misses the start by {missed / way:.1g} of its length; accepted: fewer steps, a lower "
            "learning_rate, more momentum, or float64"
        )


def check_hypergradient(
    model: nn.Module,
    x_p: Tensor,
    y_p: Tensor,
    x: Tensor,
    y: Tensor,
    x_val: Tensor,
    y_val: Tensor,
    steps: int,
    learning_rate: float,
    momentum: float,
    weight_decay: float,
) -> None:
    """Raise `ValueError` unless each argument of `hypergradient` is in its range."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"model is {describe(model)}; accepted: a torch.nn.Module")
    for suffix, inputs, labels in (("_p", x_p, y_p), ("", x, y), ("_val", x_val, y_val)):
        check_images(inputs, f"x{suffix}")
        check_labels(labels, inputs, f"y{suffix}")
        check_model(model, inputs)
        if len(inputs) == 0:
            raise ValueError(f"x{suffix} is empty; accepted: at least one input")
        with torch.no_grad(), in_mode(model, training=False):
            check_classes(labels, logits_of(model, inputs[:1], torch.zeros_like(labels[:1])), f"y{suffix}")
    check_count("steps", steps)
    check_number("learning_rate", learning_rate, low=0, exclusive=True)
    check_number("momentum", momentum, low=0)
    if momentum >= 1:
        raise ValueError(f"momentum is {momentum:g}; accepted: from 0 to 1, 1 excluded")
    check_number("weight_decay", weight_decay, low=0)


def check_attacker(data: Dataset, model: nn.Module, generator: torch.Generator | None, progress: bool) -> None:
    """Raise `ValueError` unless there is validation data, a model, and what every attack takes."""
    if len(data.y_val) == 0:
        raise ValueError("data has no validation inputs; accepted: at least one, whose loss the attacker climbs")
    if not isinstance(model, nn.Module):
        raise ValueError(f"model is {describe(model)}; accepted: a torch.nn.Module")
    check_generator(generator, data.x_train.device)
    check_flag("progress", progress)

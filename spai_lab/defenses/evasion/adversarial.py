"""Adversarial training: losses of one batch that show the model what an attacker would send.

Each has the form `(model, x, y, *, eps, ..., generator=None) -> loss` that `fit(..., objective=)` and `Robustly` take.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spai_lab.attacks.evasion.gradient import fgsm, pgd
from spai_lab.checks import check_ball, check_inputs, check_number, check_steps, describe, unsuspecting
from spai_lab.threat import (
    fresh_generator,
    input_gradient,
    logits_of,
    project,
    random_point,
    steepest,
    value_and_gradient,
)


def adversarial_training(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    norm: str = "linf",
    steps: int = 7,
    step_size: float | None = None,
    random_start: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Adversarial training: learn the worst input within reach of the attacker instead of the clean one.

    $\frac{1}{N} \sum_i \max_{\|\delta_i\|_p \le \epsilon} L(f_\theta(x_i + \delta_i), y_i)$, the inner part by `pgd`.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`; stays in the mode in which it is.
        x: clean inputs, floating point `(N, C, H, W)` in [0, 1], N at least 1.
        y: labels `(N,)`, int64.
        eps: radius of the ball, in pixel units of [0, 1].
        norm: "linf" or "l2".
        steps: steps of `pgd`, at least 1.
        step_size: in pixel units, above 0; None takes `2.5 * eps / steps`, as `pgd` does.
        random_start: begin at a random point of the ball; False begins at `x`, which with `steps=1` is training on
            `fgsm`: cheap, and liable to catastrophic overfitting.
        generator: source of the random start; None draws a fresh one.
    Returns:
        the loss, a scalar that depends on the weights. The attack inside leaves their gradients alone.
    Raises:
        ValueError: names the argument.
    Reference: Madry et al. 2017, arXiv 1706.06083, equation 2.1; with `steps=1, random_start=False` Goodfellow et al.
        2014, arXiv 1412.6572, section 6.
    Survey: defenses against evasion, robustness.
    Simplified: Goodfellow's loss is half the clean one's; here, as in Madry, all is adversarial. Step sizes follow eps.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> x, y = torch.full((2, 1, 2, 2), 0.5), torch.tensor([0, 2])
    >>> clean = F.cross_entropy(model(x), y)
    >>> bool(clean < adversarial_training(model, x, y, eps=0.1, random_start=False))
    True
    """
    check_batch_to_learn(model, x, y, generator)
    with unsuspecting():
        x_adv = pgd(
            model,
            x,
            y,
            eps=eps,
            norm=norm,
            steps=steps,
            step_size=step_size,
            random_start=random_start,
            generator=generator,
        )
    return F.cross_entropy(logits_of(model, x_adv, y), y)


def fast_adversarial_training(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    step_size: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Fast adversarial training: one signed step is enough, if it starts at a random point of the ball.

    $\frac{1}{N} \sum_i L(f_\theta(x'_i), y_i)$ with
    $x' = \Pi_{B(x, \epsilon)}(x_0 + \alpha \, \mathrm{sign}(\nabla_x L(f_\theta(x_0), y)))$ and $x_0$ drawn uniformly
    from $B(x, \epsilon)$, the ball in L-inf.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`; stays in the mode in which it is.
        x: clean inputs, floating point `(N, C, H, W)` in [0, 1], N at least 1.
        y: labels `(N,)`, int64.
        eps: radius of the ball in L-inf, in pixel units of [0, 1].
        step_size: alpha, in pixel units, above 0; None takes `1.25 * eps`. From `2 * eps` on every step ends at the
            edge, wherever it started, and catastrophic overfitting is likely again.
        generator: source of the random start; None draws a fresh one.
    Returns:
        the loss, a scalar that depends on the weights. The attack inside leaves their gradients alone.
    Raises:
        ValueError: names the argument.
    Reference: Wong et al. 2020, arXiv 2001.03994, algorithm 3.
    Survey: defenses against evasion, robustness.
    Simplified: the start is clipped to [0, 1]; the paper's cyclic learning rate is for `fit`, its mixed precision and
        early stopping are left out.

    >>> x, y = torch.full((2, 1, 2, 2), 0.5), torch.tensor([0, 2])  # 0.4 for the class, 0.6 for the three others
    >>> round(fast_adversarial_training(nn.Flatten(), x, y, eps=0.1, step_size=0.2).item(), 4)
    1.5399
    """
    check_batch_to_learn(model, x, y, generator)
    check_ball(x, eps, "linf")
    check_steps(1, step_size)
    alpha = 1.25 * eps if step_size is None else step_size
    x_0 = random_point(x, eps, "linf", generator)
    x_adv = project(x_0 + alpha * steepest(input_gradient(model, x_0, y), "linf"), x, eps, "linf")
    return F.cross_entropy(logits_of(model, x_adv, y), y)


def ensemble_adversarial_training(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    static_models: Sequence[nn.Module],
    eps: float,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Ensemble adversarial training: learn from the attacks on other models, which this one cannot bend to be weak.

    $\frac{1}{2N} \sum_i L(f_\theta(x_i), y_i) + L(f_\theta(x'_i), y_i)$ with
    $x' = \mathrm{clip}_{[0, 1]}(x + \epsilon \, \mathrm{sign}(\nabla_x L(g(x), \hat y)))$, g drawn for the batch from
    the static models and $f_\theta$, and $\hat y$ what g itself takes `x` for.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`; stays in the mode in which it is.
        x: clean inputs, floating point `(N, C, H, W)` in [0, 1], N at least 1.
        y: labels `(N,)`, int64.
        static_models: trained models for the same inputs and classes, at least one; they are not changed.
        eps: radius of the ball in L-inf, in pixel units of [0, 1].
        generator: draws g; None draws a fresh one.
    Returns:
        the loss, a scalar that depends on the weights of `model` alone.
    Raises:
        ValueError: names the argument.
    Reference: Tramèr et al. 2017, arXiv 1705.07204, section 3; the equal halves and $\hat y$ from its published code
        for MNIST.
    Survey: defenses against evasion, robustness.
    Simplified: nothing; the choice of the static models, in the paper of several architectures, is the caller's.

    >>> model, other = (nn.Sequential(nn.Flatten(), nn.Linear(4, 3)) for _ in range(2))
    >>> x, y = torch.full((2, 1, 2, 2), 0.5), torch.tensor([0, 2])
    >>> ensemble_adversarial_training(model, x, y, static_models=[other], eps=0.1).shape
    torch.Size([])
    """
    check_batch_to_learn(model, x, y, generator)
    check_static_models(static_models, x)
    check_number("eps", eps, low=0, high=1)
    sources = [*static_models, model]
    drawn = torch.randint(len(sources), (), generator=fresh_generator(generator, x.device), device=x.device)
    with unsuspecting():
        x_adv = fgsm(sources[drawn], x, y, eps=eps, gradient=away_from_answer)
    return (F.cross_entropy(logits_of(model, x, y), y) + F.cross_entropy(logits_of(model, x_adv, y), y)) / 2


def away_from_answer(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The gradient of the loss of the model's own answer: unlike that of `y`, it cannot leak the label to training."""

    def loss(x: Tensor) -> Tensor:
        logits = logits_of(model, x, y)
        return F.cross_entropy(logits, logits.argmax(1), reduction="none")

    return value_and_gradient(loss, x)[1]


def check_batch_to_learn(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator | None) -> None:
    """Raise `ValueError` unless there is a model and at least one labeled input; the mean over none is not a number."""
    check_inputs(model, x, y, generator=generator)
    if len(x) == 0:
        raise ValueError("x is empty; accepted: at least one input")


def check_static_models(static_models: Sequence[nn.Module], x: Tensor) -> None:
    """Raise `ValueError` unless there is at least one static model and each takes `x`."""
    if not isinstance(static_models, Sequence | nn.ModuleList) or len(static_models) == 0:
        raise ValueError(f"static_models is {describe(static_models)}; accepted: a sequence of at least one model")
    for number, static in enumerate(static_models):
        if not isinstance(static, nn.Module):
            raise ValueError(f"static_models[{number}] is {describe(static)}; accepted: a torch.nn.Module")
        parameter = next(static.parameters(), x)
        if (parameter.dtype, parameter.device) != (x.dtype, x.device):
            raise ValueError(
                f"static_models[{number}] is {parameter.dtype} on {parameter.device}; accepted: {x.dtype} on "
                f"{x.device}, like x"
            )

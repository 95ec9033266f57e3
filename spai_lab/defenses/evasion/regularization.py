"""Regularization: clean losses with a term for how much, or how fast, the answer changes around each input.

Each has the form `(model, x, y, *, ..., generator=None) -> loss` that `fit(..., objective=)` and `Robustly` take.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spai_lab.checks import check_ball, check_number, check_steps
from spai_lab.defenses.evasion.adversarial import check_batch_to_learn
from spai_lab.threat import fresh_generator, logits_of, project, steepest, value_and_gradient


def trades(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    beta: float = 6.0,
    norm: str = "linf",
    steps: int = 10,
    step_size: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""TRADES: be right about the clean input, and answer alike all around it; beta trades one for the other.

    $\frac{1}{N} \sum_i L(f_\theta(x_i), y_i)
    + \beta \max_{\|x'_i - x_i\|_p \le \epsilon} \mathrm{KL}(p_\theta(x_i) \,\|\, p_\theta(x'_i))$
    with $p_\theta = \mathrm{softmax} f_\theta$; the inner part by projected gradient steps.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`; stays in the mode in which it is.
        x: clean inputs, floating point `(N, C, H, W)` in [0, 1], N at least 1.
        y: labels `(N,)`, int64; the term for robustness does not need them.
        eps: radius of the ball, in pixel units of [0, 1].
        beta: weight of the robust term, the paper's $1 / \lambda$, at least 0.
        norm: "linf" or "l2".
        steps: steps of the inner attack, at least 1.
        step_size: in pixel units, above 0; None takes `2.5 * eps / steps`.
        generator: source of the random start; None draws a fresh one.
    Returns:
        the loss, a scalar that depends on the weights. The attack inside leaves their gradients alone.
    Raises:
        ValueError: names the argument.
    Reference: Zhang et al. 2019, arXiv 1901.08573, algorithm 1.
    Survey: defenses against evasion, robustness.
    Simplified: the start, `x` plus 0.001 times a Gaussian, is projected onto the ball; the attack runs in the model's
        own mode, where the published code switches to evaluation.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> x, y = torch.full((2, 1, 2, 2), 0.5), torch.tensor([0, 2])
    >>> clean = F.cross_entropy(model(x), y)
    >>> bool(clean < trades(model, x, y, eps=0.1))
    True
    """
    check_batch_to_learn(model, x, y, generator)
    check_ball(x, eps, norm)
    check_number("beta", beta, low=0)
    check_steps(steps, step_size)
    alpha = 2.5 * eps / steps if step_size is None else step_size
    generator = fresh_generator(generator, x.device)
    logits = logits_of(model, x, y)
    answers = logits.detach()
    noise = torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)
    x_adv = project(x + 0.001 * noise, x, eps, norm)  # at x itself the divergence has no slope
    for _ in range(steps):
        slope = value_and_gradient(lambda x_adv: divergence(answers, logits_of(model, x_adv, y)), x_adv)[1]
        x_adv = project(x_adv + alpha * steepest(slope, norm), x, eps, norm)
    return F.cross_entropy(logits, y) + beta * divergence(logits, logits_of(model, x_adv, y)).mean()


def divergence(logits: Tensor, logits_adv: Tensor) -> Tensor:
    r"""How far the second answer is from the first: $\mathrm{KL}(p \,\|\, q) = \sum_k p_k \log (p_k / q_k)$, `(N,)`.

    >>> divergence(torch.tensor([[0.0, -torch.inf]]).clamp_min(-1e4), torch.tensor([[0.0, 0.0]]))
    tensor([0.6931])
    """
    log_p, log_q = F.log_softmax(logits, 1), F.log_softmax(logits_adv, 1)
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)


def gradient_regularization(
    model: nn.Module, x: Tensor, y: Tensor, *, weight: float, generator: torch.Generator | None = None
) -> Tensor:
    r"""Input gradient regularization: learn to be right, with a loss that no small change of the pixels moves much.

    $\frac{1}{N} \sum_i L(f_\theta(x_i), y_i) + \lambda \, \|\nabla_x L(f_\theta(x_i), y_i)\|_2^2$, whose own gradient
    goes backward through the backward pass.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`, twice differentiable; stays in the mode in which it is.
        x: clean inputs, floating point `(N, C, H, W)` in [0, 1], N at least 1.
        y: labels `(N,)`, int64.
        weight: lambda, at least 0; the gradient is per unit of a pixel in [0, 1].
        generator: not used, since nothing is random; here so that every loss is called alike.
    Returns:
        the loss, a scalar that depends on the weights.
    Raises:
        ValueError: names the argument.
    Reference: Ross and Doshi-Velez 2017, arXiv 1711.09404, the objective with lambda, after double backpropagation.
    Survey: defenses against evasion, robustness.
    Simplified: sums over the data become means over the batch; for both terms alike, so that lambda means the same.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> x, y = torch.full((2, 1, 2, 2), 0.5), torch.tensor([0, 2])
    >>> clean = F.cross_entropy(model(x), y)
    >>> bool(clean < gradient_regularization(model, x, y, weight=1.0))
    True
    """
    check_batch_to_learn(model, x, y, generator)
    check_number("weight", weight, low=0)
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        losses = F.cross_entropy(logits_of(model, x, y), y, reduction="none")
        slope = differentiable_slope(losses, x)
    return (losses + weight * slope.flatten(1).square().sum(1)).mean()


def differentiable_slope(losses: Tensor, x: Tensor) -> Tensor:
    """The gradient of each loss `(N,)` with respect to its own input, like `x`, which can be differentiated again.

    >>> x = torch.tensor([[3.0], [4.0]], requires_grad=True)
    >>> slope = differentiable_slope((x**3)[:, 0], x)
    >>> slope.flatten().tolist(), torch.autograd.grad(slope.sum(), x)[0].flatten().tolist()
    ([27.0, 48.0], [18.0, 24.0])
    """
    slope = (
        torch.autograd.grad(losses.sum(), x, create_graph=True, allow_unused=True)[0] if losses.requires_grad else None
    )
    if slope is None:
        raise ValueError("model gives logits without a gradient with respect to x; accepted: a differentiable model")
    if not slope.detach().sum().isfinite():
        raise ValueError("model gives NaN or infinite gradients with respect to x; accepted: finite gradients")
    return slope

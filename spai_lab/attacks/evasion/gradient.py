"""Gradient attacks: from one signed step to many, with projection, restarts and momentum."""

import torch
from torch import Tensor, nn

from spai_lab.checks import check_attack, check_count, check_flag, check_number, check_steps
from spai_lab.threat import (
    Gradient,
    checked,
    fooled,
    fresh_generator,
    input_gradient,
    norms,
    per_image,
    project,
    random_point,
    steepest,
)


def fgsm(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    norm: str = "linf",
    targeted: bool = False,
    gradient: Gradient = input_gradient,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Fast gradient sign method: one step of full length, straight up the loss.

    $x' = \mathrm{clip}_{[0, 1]}\left(x + \epsilon \, \mathrm{sign}(\nabla_x L(f(x), y))\right)$;
    in L2 the sign becomes $\nabla_x L / \|\nabla_x L\|_2$ (the fast gradient method).

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        x: clean inputs, floating point `(N, C, H, W)` in [0, 1].
        y: labels `(N,)`, int64; the target classes if `targeted`.
        eps: radius of the ball, in pixel units of [0, 1].
        norm: "linf" or "l2".
        targeted: walk down the loss of `y` rather than up.
        gradient: `(model, x, y) -> gradient`, the hook of an adaptive attack.
        generator: not used, since nothing is random; here so that every attack is called alike.
    Returns:
        `x_adv`, like `x`, in [0, 1] and within `eps` of `x`.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Goodfellow et al. 2014, arXiv 1412.6572, section 4.
    Survey: evasion, white-box.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> x, y = torch.full((2, 1, 2, 2), 0.5), torch.tensor([0, 2])
    >>> round((fgsm(model, x, y, eps=0.1) - x).abs().max().item(), 4)
    0.1
    """
    check_attack(model, x, y, eps=eps, norm=norm, targeted=targeted, gradient=gradient, generator=generator)
    ascent = -1 if targeted else 1
    gradient = checked(gradient)
    return project(x + ascent * eps * steepest(gradient(model, x, y), norm), x, eps, norm)


def bim(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    norm: str = "linf",
    steps: int = 10,
    step_size: float | None = None,
    targeted: bool = False,
    gradient: Gradient = input_gradient,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Basic iterative method: many small steps from the input itself, each brought back into the ball.

    $x_0 = x, \quad x_{k+1} = \Pi_{B(x, \epsilon)}\left(x_k + \alpha \, d(\nabla_x L(f(x_k), y))\right)$,
    with $d$ the sign in L-inf and the unit vector in L2.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        x: clean inputs, floating point `(N, C, H, W)` in [0, 1].
        y: labels `(N,)`, int64; the target classes if `targeted`.
        eps: radius of the ball, in pixel units of [0, 1].
        norm: "linf" or "l2".
        steps: number of steps, at least 1.
        step_size: alpha, in pixel units, above 0; None takes `eps / steps`, which just reaches the edge of the ball.
        targeted: walk down the loss of `y` rather than up.
        gradient: `(model, x, y) -> gradient`, the hook of an adaptive attack.
        generator: not used, since nothing is random; here so that every attack is called alike.
    Returns:
        `x_adv`, like `x`, in [0, 1] and within `eps` of `x`.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Kurakin et al. 2016, arXiv 1607.02533, section 2.2.
    Survey: evasion, white-box.
    Simplified: the paper steps by one gray level, min(eps + 4, 1.25 eps) times, eps in gray levels; here both are free.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> x, y = torch.full((2, 1, 2, 2), 0.5), torch.tensor([0, 2])
    >>> bool((bim(model, x, y, eps=0.1) - x).abs().max() <= 0.1 + 1e-6)
    True
    """
    check_attack(model, x, y, eps=eps, norm=norm, targeted=targeted, gradient=gradient, generator=generator)
    check_steps(steps, step_size)
    alpha = eps / steps if step_size is None else step_size
    ascent = -1 if targeted else 1
    gradient = checked(gradient)
    x_adv = x
    for _ in range(steps):
        x_adv = project(x_adv + ascent * alpha * steepest(gradient(model, x_adv, y), norm), x, eps, norm)
    return x_adv


def pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    norm: str = "linf",
    steps: int = 40,
    step_size: float | None = None,
    random_start: bool = True,
    restarts: int = 1,
    targeted: bool = False,
    gradient: Gradient = input_gradient,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Projected gradient descent: climb the loss from a random point, come back into the ball, repeat.

    $x_{k+1} = \Pi_{B(x, \epsilon)}\left(x_k + \alpha \, d(\nabla_x L(f(x_k), y))\right)$,
    with $d$ the steepest direction of the norm, and $x_0$ drawn uniformly from the ball, then clipped to [0, 1].

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        x: clean inputs, floating point `(N, C, H, W)` in [0, 1].
        y: labels `(N,)`, int64; the target classes if `targeted`.
        eps: radius of the ball, in pixel units of [0, 1].
        norm: "linf" or "l2".
        steps: number of steps, at least 1.
        step_size: alpha, in pixel units, above 0; None takes `2.5 * eps / steps`, which reaches the edge of the ball
            from any start and leaves steps to move along it.
        random_start: draw $x_0$ from the ball; False starts at `x`.
        restarts: how often to try; each try takes the inputs that the last one left unharmed.
        targeted: walk down the loss of `y` rather than up.
        gradient: `(model, x, y) -> gradient`, the hook of an adaptive attack.
        generator: source of the random starts; None draws a fresh one.
    Returns:
        `x_adv`, like `x`, in [0, 1] and within `eps` of `x`: of each input the first try that succeeded, else the last.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Madry et al. 2017, arXiv 1706.06083, section 2.1.
    Survey: evasion, white-box.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> x, y = torch.full((2, 1, 2, 2), 0.5), torch.tensor([0, 2])
    >>> bool((pgd(model, x, y, eps=0.1, steps=5) - x).abs().max() <= 0.1 + 1e-6)
    True
    """
    check_attack(model, x, y, eps=eps, norm=norm, targeted=targeted, gradient=gradient, generator=generator)
    check_steps(steps, step_size)
    check_count("restarts", restarts)
    check_flag("random_start", random_start)
    alpha = 2.5 * eps / steps if step_size is None else step_size
    ascent = -1 if targeted else 1
    gradient = checked(gradient)
    generator = fresh_generator(generator, x.device)

    def climb(x: Tensor, y: Tensor) -> Tensor:
        x_adv = random_point(x, eps, norm, generator) if random_start else x
        for _ in range(steps):
            x_adv = project(x_adv + ascent * alpha * steepest(gradient(model, x_adv, y), norm), x, eps, norm)
        return x_adv

    x_adv = climb(x, y)
    for _ in range(restarts - 1):
        standing = ~fooled(model, x_adv, y, targeted=targeted)
        if not standing.any():
            break
        x_adv[standing] = climb(x[standing], y[standing])
    return x_adv


def mim(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    norm: str = "linf",
    steps: int = 10,
    step_size: float | None = None,
    decay: float = 1.0,
    targeted: bool = False,
    gradient: Gradient = input_gradient,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Momentum iterative method: steps follow a running sum of gradients, so that one odd gradient matters less.

    $g_{k+1} = \mu \, g_k + \frac{\nabla_x L(f(x_k), y)}{\|\nabla_x L(f(x_k), y)\|_1}, \quad
    x_{k+1} = \Pi_{B(x, \epsilon)}\left(x_k + \alpha \, d(g_{k+1})\right)$,
    with $d$ the sign in L-inf and the unit vector in L2.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        x: clean inputs, floating point `(N, C, H, W)` in [0, 1].
        y: labels `(N,)`, int64; the target classes if `targeted`.
        eps: radius of the ball, in pixel units of [0, 1].
        norm: "linf" or "l2".
        steps: number of steps, at least 1.
        step_size: alpha, in pixel units, above 0; None takes `eps / steps`.
        decay: mu, at least 0; 0 gives `bim`.
        targeted: walk down the loss of `y` rather than up.
        gradient: `(model, x, y) -> gradient`, the hook of an adaptive attack.
        generator: not used, since nothing is random; here so that every attack is called alike.
    Returns:
        `x_adv`, like `x`, in [0, 1] and within `eps` of `x`.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Dong et al. 2018, arXiv 1710.06081, algorithm 1.
    Survey: evasion, white-box; made for transfer (chapter 04).
    Simplified: nothing; the projection is added for other step sizes, and for the range [0, 1].

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> x, y = torch.full((2, 1, 2, 2), 0.5), torch.tensor([0, 2])
    >>> torch.equal(mim(model, x, y, eps=0.1, decay=0.0), bim(model, x, y, eps=0.1))
    True
    """
    check_attack(model, x, y, eps=eps, norm=norm, targeted=targeted, gradient=gradient, generator=generator)
    check_steps(steps, step_size)
    check_number("decay", decay, low=0)
    alpha = eps / steps if step_size is None else step_size
    ascent = -1 if targeted else 1
    gradient = checked(gradient)
    x_adv, g = x, torch.zeros_like(x)
    for _ in range(steps):
        slope = gradient(model, x_adv, y)
        g = decay * g + slope / per_image(norms(slope, "l1").clamp_min(torch.finfo(x.dtype).tiny), x)
        x_adv = project(x_adv + ascent * alpha * steepest(g, norm), x, eps, norm)
    return x_adv

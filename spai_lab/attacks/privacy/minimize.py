"""L-BFGS for many small problems side by side."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

HISTORY = 100
FLAT = 1e-10  # curvature below which a step teaches nothing of the Hessian


def lbfgs_steps(
    objective: Callable[[Tensor], Tensor], start: Tensor, *, learning_rate: float = 1.0
) -> Iterator[tuple[Tensor, Tensor]]:
    r"""Minimize N functions of D numbers at once, without a line search: each step gives the points and their values.

    $x \leftarrow x - \alpha H_t \nabla h(x)$, with $H_t$ the inverse Hessian as the last steps $s$ and changes of slope
    $y$ describe it, by the two-loop recursion; the first step is $\alpha \min(1, 1 / \|\nabla h\|_1)$ long.

    Args:
        objective: from points `(N, D)` to values `(N,)`, each of its own point alone.
        start: the first points, `(N, D)`.
        learning_rate: $\alpha$, above 0.
    Yields:
        points `(N, D)` and their values `(N,)`, detached, without end; a problem whose values are no longer finite
        stays where it was.
    Reference: Nocedal 1980, "Updating quasi-Newton matrices with limited storage".

    >>> walk = lbfgs_steps(lambda x: (x - 3).square().sum(1), torch.zeros(2, 4))
    >>> [next(walk)[1].tolist() for _ in range(3)]
    [[30.25, 30.25], [0.0, 0.0], [0.0, 0.0]]
    """

    def slope(x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            value = objective(x)
            (gradient,) = torch.autograd.grad(value.sum(), x)
        return value.detach(), gradient

    x = start.detach()
    value, g = slope(x)
    steps: list[Tensor] = []
    changes: list[Tensor] = []
    curvatures: list[Tensor] = []
    scale = torch.ones(len(x), 1)
    length = learning_rate * (1 / g.abs().sum(1, keepdim=True).clamp_min(1e-30)).clamp_max(1)
    while True:
        direction = two_loop(g, steps, changes, curvatures, scale)
        s = -length * direction
        length = torch.full_like(length, learning_rate)
        ahead, g_ahead = slope(x + s)
        sound = (ahead.isfinite() & g_ahead.isfinite().all(1))[:, None]
        s, g_ahead = s.where(sound, torch.zeros_like(s)), g_ahead.where(sound, g)
        x, value = x + s, ahead.where(sound[:, 0], value)
        change = g_ahead - g
        curvature = (change * s).sum(1, keepdim=True)
        learns = curvature > FLAT
        steps.append(s * learns)
        changes.append(change * learns)
        curvatures.append(torch.where(learns, 1 / curvature, torch.zeros_like(curvature)))
        scale = torch.where(learns, curvature / change.square().sum(1, keepdim=True), scale)
        if len(steps) > HISTORY:
            del steps[0], changes[0], curvatures[0]
        g = g_ahead
        yield x, value


def two_loop(g: Tensor, steps: list[Tensor], changes: list[Tensor], curvatures: list[Tensor], scale: Tensor) -> Tensor:
    """The inverse Hessian times the gradient; a step that taught nothing has curvature 0 and changes nothing."""
    q, alphas = g, []
    for s, y, rho in zip(reversed(steps), reversed(changes), reversed(curvatures), strict=True):
        alphas.append(rho * (s * q).sum(1, keepdim=True))
        q = q - alphas[-1] * y
    r = scale * q
    for s, y, rho, alpha in zip(steps, changes, curvatures, reversed(alphas), strict=True):
        r = r + s * (alpha - rho * (y * r).sum(1, keepdim=True))
    return r

"""Attacks that look for the least change: L-BFGS, where the story begins, and DeepFool, which walks to the boundary."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spai_lab.checks import NORMS, check_choice, check_count, check_inputs, check_number
from spai_lab.threat import (
    fooled,
    input_gradient,
    jacobian,
    logits_of,
    norms,
    per_image,
    runner_up,
    steepest,
    value_and_gradient,
    warn_of_zeros,
)

DUAL = {"l2": "l2", "linf": "l1"}
NUDGE = 1e-5  # pixel units; a point exactly on the boundary still has to cross it
SUFFICIENT = 1e-4  # Armijo's rule: the share of the predicted decrease that a step must bring
SHORTEST = 2.0**-20  # a step cut to this share of its length shows that there is no way down


def deepfool(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    norm: str = "l2",
    steps: int = 50,
    overshoot: float = 0.02,
    candidates: int | None = 10,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""DeepFool: take the model for linear, step to the nearest boundary, look again.

    With $f'_i = z_i(x_k) - z_y(x_k)$ and $w'_i = \nabla z_i(x_k) - \nabla z_y(x_k)$, the nearest boundary is that of
    $\hat l = \arg\min_{i \ne y} \frac{|f'_i|}{\|w'_i\|_2}$, and the step to it
    $r_k = \frac{|f'_{\hat l}|}{\|w'_{\hat l}\|_2^2} w'_{\hat l}$, until $x' = x + (1 + \eta) \sum_k r_k$ is misread.
    In L-inf the distance is $|f'_i| / \|w'_i\|_1$ and the step $\frac{|f'|}{\|w'\|_1} \mathrm{sign}(w')$.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        x: clean inputs, floating point `(N, C, H, W)` in [0, 1].
        y: labels `(N,)`, int64.
        norm: the distance to keep small, "l2" or "linf".
        steps: the most steps, at least 1.
        overshoot: eta, at least 0: how far to go beyond the boundary, as a share of the way.
        candidates: walk toward the likeliest so many classes, `y` among them, at least 2; None takes all.
        generator: not used, since nothing is random; here so that every attack is called alike.
    Returns:
        `x_adv`, like `x`, in [0, 1]; an image that was misread before, or never is, comes back as it was.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Moosavi-Dezfooli et al. 2015, arXiv 1511.04599, algorithm 2; section 3.3 for other norms.
    Survey: evasion, white-box.
    Simplified: untargeted, as the paper. Each iterate is overshot and clipped to [0, 1], where the paper overshoots
        once at the end and does not clip. A step is 1e-5 longer, lest it end on the boundary, and at most as long as
        from a black image to a white one.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
    >>> _ = model[1].weight.data.copy_(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    >>> _ = model[1].bias.data.copy_(torch.tensor([-2.0, 0.0]))
    >>> x = torch.full((1, 2, 1, 1), 0.5)  # 0.3 from the line 3 a + 4 b = 2
    >>> round((deepfool(model, x, torch.tensor([0])) - x).norm().item(), 3)
    0.306
    """
    check_inputs(model, x, y, generator=generator)
    check_choice("norm", norm, NORMS)
    check_count("steps", steps)
    check_number("overshoot", overshoot, low=0)
    if candidates is not None:
        check_count("candidates", candidates, low=2)
    x = x.detach()
    x_k, r = x.clone(), torch.zeros_like(x)
    if len(x) == 0:
        return x_k
    with torch.no_grad():
        logits = logits_of(model, x, y)
    active = (logits.argmax(1) == y).nonzero()[:, 0]
    likeliest = min(candidates or logits.shape[1], logits.shape[1])
    classes = logits.scatter(1, y[:, None], math.inf).topk(likeliest).indices  # y comes first
    for k in range(steps):
        if len(active) == 0:
            break
        z, slopes = jacobian(model, x_k[active], y[active], classes[active])
        f, w = z[:, 1:] - z[:, :1], slopes[:, 1:] - slopes[:, :1]
        if k == 0:
            warn_of_zeros(w)
        r[active] += to_the_nearest_boundary(f, w, norm)
        x_k[active] = (x[active] + (1 + overshoot) * r[active]).clamp(0, 1)
        active = active[~fooled(model, x_k[active], y[active])]
    x_k[active] = x[active]
    return x_k


def to_the_nearest_boundary(f: Tensor, w: Tensor, norm: str) -> Tensor:
    """The shortest step to a zero of one of the linear functions with values `(N, M)` and slopes `(N, M, ...)`."""
    size = norms(w.flatten(0, 1), DUAL[norm]).view_as(f)
    distance, nearest = (f.abs() / size).masked_fill(size == 0, math.inf).min(1)
    length = distance.clamp_max(math.sqrt(w[0, 0].numel())) + NUDGE
    return per_image(length, w[:, 0]) * steepest(w[torch.arange(len(w)), nearest], norm)


def lbfgs(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    c: float = 1.0,
    searches: int = 10,
    steps: int = 50,
    memory: int = 10,
    targeted: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Box-constrained L-BFGS: weigh the size of the change against the loss of the target, and search for the weight.

    $\min_r \; c \, \|r\|_2^2 + L(f(x + r), t)$ with $x + r$ in [0, 1], cross-entropy as $L$. The larger c, the smaller
    the change: the line search looks for the largest c whose minimizer still is taken for the target t, first by
    factors of 10, then by bisection on a logarithmic scale.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        x: clean inputs, floating point `(N, C, H, W)` in [0, 1].
        y: labels `(N,)`, int64; the target classes if `targeted`.
        c: the first weight, per squared pixel unit, above 0.
        searches: how many weights to try, at least 1.
        steps: for each weight the most evaluations of the loss and its gradient, at least 1.
        memory: how many past steps tell L-BFGS about the curvature, at least 1.
        targeted: aim at `y`; False aims at the likeliest class other than `y`, and any class but `y` will do.
        generator: not used, since nothing is random; here so that every attack is called alike.
    Returns:
        `x_adv`, like `x`, in [0, 1]: the nearest that was found; an image that needed no change, or for which nothing
        was found, comes back as it was.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Szegedy et al. 2013, arXiv 1312.6199, section 4.1; Nocedal and Wright 2006, "Numerical Optimization",
        algorithm 7.4, for the two loops.
    Survey: evasion, white-box.
    Simplified: the norm is squared, so that the objective is smooth where the search starts; the paper's is not. Pixels
        at a limit that want to cross it are held while the others take an L-BFGS step, which is then clipped, in place
        of L-BFGS-B's search along the Cauchy path.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
    >>> _ = model[1].weight.data.copy_(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    >>> _ = model[1].bias.data.copy_(torch.tensor([-2.0, 0.0]))
    >>> x = torch.full((1, 2, 1, 1), 0.5)  # 0.3 from the line 3 a + 4 b = 2
    >>> round((lbfgs(model, x, torch.tensor([0])) - x).norm().item(), 2)
    0.3
    """
    check_inputs(model, x, y, targeted=targeted, generator=generator)
    check_number("c", c, low=0, exclusive=True)
    for name, count in (("searches", searches), ("steps", steps), ("memory", memory)):
        check_count(name, count)
    x_adv = x.detach().clone()
    if len(x) == 0:
        return x_adv
    with torch.no_grad():
        logits = logits_of(model, x, y)
    active = ((logits.argmax(1) == y) != targeted).nonzero()[:, 0]
    if len(active) == 0:
        return x_adv
    x, y, t = x_adv[active], y[active], (y if targeted else runner_up(logits, y))[active]
    warn_of_zeros(input_gradient(model, x, t))
    nearest, least = x.clone(), x.new_full((len(x),), math.inf)
    low, high, c = torch.zeros_like(least), torch.full_like(least, math.inf), torch.full_like(least, c)
    for _ in range(searches):

        def objective(x_k: Tensor, rows: Tensor, c: Tensor = c) -> Tensor:
            loss = F.cross_entropy(logits_of(model, x_k, t[rows]), t[rows], reduction="none")
            return c[rows] * (x_k - x[rows]).square().flatten(1).sum(1) + loss

        x_c = minimize_in_box(objective, x, steps=steps, memory=memory)
        hit, size = fooled(model, x_c, y, targeted=targeted), norms(x_c - x, "l2")
        better = hit & (size < least)
        nearest[better], least[better] = x_c[better], size[better]
        low, high = torch.where(hit, c, low), torch.where(hit, high, c)
        c = torch.where(low == 0, high / 10, torch.where(high.isinf(), 10 * low, (low * high).sqrt()))
    x_adv[active] = nearest
    return x_adv


def minimize_in_box(
    objective: Callable[[Tensor, Tensor], Tensor], x: Tensor, *, steps: int = 100, memory: int = 10
) -> Tensor:
    r"""Minimize a function of each input over the box [0, 1] by projected L-BFGS, all inputs at once.

    $x_{k+1} = \Pi_{[0, 1]}(x_k - \tau H_k \nabla h(x_k))$. Each evaluation tries one point for each input. Where the
    function fell enough, the input moves there; else its $\tau$ is halved. An input leaves the batch once its function
    falls no further.

    Args:
        objective: from points `(M, ...)` and their numbers in the batch `(M,)` to values `(M,)`.
        x: where to start, `(N, ...)` in [0, 1].
        steps: the most evaluations.
        memory: how many past steps approximate the curvature.
    Returns:
        the lowest points found, like `x`.
    """
    best, x_k, rows = x.clone(), x, torch.arange(len(x), device=x.device)
    h, g = value_and_gradient(lambda x: objective(x, rows), x)
    moves = turns = x.new_zeros(len(x), memory, x[0].numel())
    d, tau = downhill(x_k, g, moves, turns), torch.ones_like(h)
    tiny = 10 * torch.finfo(x.dtype).eps
    for _ in range(steps - 1):
        trial = (x_k + per_image(tau, x_k) * d).clamp(0, 1)
        h_new, g_new = value_and_gradient(lambda x, rows=rows: objective(x, rows), trial)
        move, turn = (trial - x_k).flatten(1), (g_new - g).flatten(1)
        gain = h - h_new
        fell = (gain > 0) & (gain >= -SUFFICIENT * (g.flatten(1) * move).sum(1))
        where = per_image(fell, x)
        moves = torch.where(fell[:, None, None], torch.cat([moves[:, 1:], move[:, None]], 1), moves)
        turns = torch.where(fell[:, None, None], torch.cat([turns[:, 1:], turn[:, None]], 1), turns)
        x_k, g, h = torch.where(where, trial, x_k), torch.where(where, g_new, g), torch.where(fell, h_new, h)
        d, tau = torch.where(where, downhill(x_k, g, moves, turns), d), torch.where(fell, 1.0, tau / 2)
        best[rows] = x_k
        on = torch.where(fell, gain > tiny * h.abs(), tau > SHORTEST)
        rows, x_k, h, g, moves, turns, d, tau = (state[on] for state in (rows, x_k, h, g, moves, turns, d, tau))
        if len(rows) == 0:
            break
    return best


def downhill(x: Tensor, g: Tensor, moves: Tensor, turns: Tensor) -> Tensor:
    r"""L-BFGS's direction $-H \nabla h$, for each input from its last moves and the turns of the gradient they brought.

    Pixels that are at a limit and want to cross it take no part. Before the first move the direction has length 1.
    """
    free = ~((x <= 0) & (g > 0) | (x >= 1) & (g < 0)).flatten(1)
    q, moves, turns = g.flatten(1) * free, moves * free[:, None], turns * free[:, None]
    curvature, bend = (moves * turns).sum(2), (turns * turns).sum(2)
    sound = curvature > torch.finfo(x.dtype).eps * bend
    rho = torch.where(sound, 1 / curvature, 0.0)
    scale = 1 / norms(q, "l2").clamp_min(torch.finfo(x.dtype).tiny)
    alpha = torch.zeros_like(rho)
    for i in reversed(range(rho.shape[1])):
        alpha[:, i] = rho[:, i] * (moves[:, i] * q).sum(1)
        q = q - alpha[:, i, None] * turns[:, i]
    for i in range(rho.shape[1]):
        scale = torch.where(sound[:, i], curvature[:, i] / bend[:, i], scale)
    q = scale[:, None] * q
    for i in range(rho.shape[1]):
        beta = rho[:, i] * (turns[:, i] * q).sum(1)
        q = q + (alpha[:, i] - beta)[:, None] * moves[:, i]
    return -q.view_as(g)

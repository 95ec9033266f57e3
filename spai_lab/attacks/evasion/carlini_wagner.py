r"""Carlini and Wagner's attacks: the least distortion at which the logits say what the attacker wants.

Each of them minimizes $D(\delta) + c \, f(x + \delta)$: a distance, and what the logits still lack, weighed by c.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from spai_lab.checks import check_choice, check_count, check_inputs, check_number, describe
from spai_lab.threat import logits_of, margin, norms, per_image, value_and_gradient, warn_of_zeros

Lead = Callable[[Tensor, Tensor], Tensor]

EDGE = 1e-4  # tanh(w) starts this far inside -1 and 1, where its slope would be 0
PATIENCE = 100  # steps without progress, at least, before an image is done: Adam overshoots before it comes back
PROGRESS = 0.9999  # what the objective must fall to in that time, relative to what it was
SHRINK = 0.9  # L-inf: tau is multiplied by it after each success
SMALLEST_TAU = 1 / 256  # L-inf: below one gray level there is nothing to gain


def carlini_wagner(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    norm: str = "l2",
    confidence: float = 0.0,
    initial_c: float = 1e-3,
    searches: int = 9,
    steps: int = 1000,
    learning_rate: float = 1e-2,
    targeted: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Carlini and Wagner's attack: make the logits say what they should, at the least distance from `x`.

    $\min_\delta D(\delta) + c \, f(x + \delta)$ with $x + \delta \in [0, 1]^n$, and
    $f(x') = \left(\max_{i \ne t} z_i(x') - z_t(x') + \kappa\right)^+$ for a target t; untargeted,
    $f(x') = \left(z_y(x') - \max_{i \ne y} z_i(x') + \kappa\right)^+$.

    L2: $D = \|\delta\|_2^2$, and the best c is searched for each image (`least_l2`). L-inf: $D$ is what exceeds a limit
    $\tau$ that shrinks (`least_linf`). L0: as in L2, while pixels that matter least are fixed (`least_l0`).

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        x: clean inputs, floating point `(N, C, H, W)` in [0, 1].
        y: labels `(N,)`, int64; the target classes if `targeted`.
        norm: "l2", "linf" or "l0" (the number of entries that change).
        confidence: kappa, at least 0: how far the wanted class must lead, in units of the logits.
        initial_c: the first c that is tried, above 0.
        searches: how many values of c are tried for an image, at least 1. Tenfold steps lead from `initial_c` to the
            first that succeeds; what is left goes to halving the interval below it in L2, and is not used in the
            other norms.
        steps: steps of Adam for each value of c (in L-inf and L0: for each limit and each set of pixels), at most.
        learning_rate: of Adam, in units of w (see `minimize_at`), above 0.
        targeted: make the model say `y` rather than anything else.
        generator: not used, since nothing is random; here so that every attack is called alike.
    Returns:
        `x_adv`, like `x`, in [0, 1]. An input comes back as it was if it reaches the goal already, or if none was found
        that does.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Carlini 2016, arXiv 1608.04644, section VI; f is $f_6$ of section V.A.
    Survey: evasion, white-box.
    Simplified: one start rather than several in L2. In L-inf and L0, c grows tenfold rather than twofold after a
        failure, and Adam starts afresh, where the authors' program goes on. In L0, a round fixes $0.3 \sqrt{n}$ of n
        free entries, as the authors' program does, where the paper's text fixes one (so do we once n is below 45); an
        entry is one channel of a pixel, not a pixel.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    >>> _ = model[1].weight.data.copy_(torch.tensor([[3.0, 0.0], [0.0, 3.0]]))
    >>> x_adv = carlini_wagner(model, torch.tensor([[[[0.7, 0.3]]]]), torch.tensor([0]), steps=200)
    >>> [round(pixel, 2) for pixel in x_adv.flatten().tolist()]  # the nearest point of the line between the classes
    [0.5, 0.5]
    """
    check_inputs(model, x, y, targeted=targeted, generator=generator)
    check_adam(confidence, steps, learning_rate)
    check_number("initial_c", initial_c, low=0, exclusive=True)
    check_count("searches", searches)
    least = {"l2": least_l2, "linf": least_linf, "l0": least_l0}
    check_choice("norm", norm, tuple(least))
    x_adv = x.detach().clone()
    if len(x) == 0:
        return x_adv
    lead = unwanted_lead(model, targeted)
    gap, slope = value_and_gradient(lambda x: lead(x, y), x_adv)
    standing = ~reached(gap, confidence)
    if standing.any():
        warn_of_zeros(slope[standing])
        settings = {"confidence": confidence, "steps": steps, "learning_rate": learning_rate}
        x_adv[standing] = least[norm](lead, x_adv[standing], y[standing], initial_c, searches, **settings)
    return x_adv


def minimize_at(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    c: Tensor,
    *,
    confidence: float = 0.0,
    steps: int = 1000,
    learning_rate: float = 1e-2,
    targeted: bool = False,
) -> tuple[Tensor, Tensor]:
    r"""The inner problem of `carlini_wagner` in L2, at a fixed c for each image: trade distortion against the logits.

    $\min_w \|\delta\|_2^2 + c \, f(x + \delta)$ with $x + \delta = \frac{1}{2}(\tanh(w) + 1)$, by Adam from `x`.
    A small c leaves the image where it is, a large one pushes it farther than it need go.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        x: clean inputs, floating point `(N, C, H, W)` in [0, 1].
        y: labels `(N,)`, int64; the target classes if `targeted`.
        c: `(N,)`, like `x` in dtype, at least 0: the weight of f, in squared pixel units for each unit of the logits.
        confidence: kappa, at least 0, in units of the logits.
        steps: steps of Adam, at most; an image that makes no progress over a tenth of them, and over 100, is done.
        learning_rate: of Adam, in units of w, above 0.
        targeted: make the model say `y` rather than anything else.
    Returns:
        `x_adv`, like `x`, in [0, 1]: of the points on the way that reach the goal the nearest, else the last;
        and whether the goal was reached, bool `(N,)`.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Carlini 2016, arXiv 1608.04644, section VI.A.
    Survey: evasion, white-box.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    >>> _ = model[1].weight.data.copy_(torch.tensor([[3.0, 0.0], [0.0, 3.0]]))
    >>> x, y = torch.tensor([[[[0.7, 0.3]]]]).repeat(2, 1, 1, 1), torch.tensor([0, 0])
    >>> x_adv, found = minimize_at(model, x, y, torch.tensor([0.01, 1.0]), steps=200)
    >>> found
    tensor([False,  True])
    """
    check_inputs(model, x, y, targeted=targeted)
    check_adam(confidence, steps, learning_rate)
    if not isinstance(c, Tensor) or c.shape != y.shape or c.dtype != x.dtype or not ((c >= 0) & c.isfinite()).all():
        raise ValueError(f"c is {describe(c)}; accepted: {x.dtype} of shape ({len(x)},), finite and at least 0")
    if len(x) == 0:
        return x.detach().clone(), torch.zeros_like(y, dtype=torch.bool)
    lead = unwanted_lead(model, targeted)
    return descend(lead, x.detach(), y, c, confidence=confidence, steps=steps, learning_rate=learning_rate)


def least_l2(lead: Lead, x: Tensor, y: Tensor, initial_c: float, searches: int, **settings: float) -> Tensor:
    r"""Search the c that gives the least $\|\delta\|_2$: tenfold steps up to a success, then halve the interval.

    Section VI.A; the smallest c that succeeds leaves the most weight to the distance.
    """
    c = x.new_full((len(x),), initial_c)
    low, high = torch.zeros_like(c), torch.full_like(c, math.inf)
    x_best, nearest = x.clone(), torch.full_like(c, math.inf)
    for _ in range(searches):
        x_adv, found = descend(lead, x, y, c, **settings)
        size = norms(x_adv - x, "l2")
        closer = found & (size < nearest)
        x_best[closer], nearest[closer] = x_adv[closer], size[closer]
        low, high = torch.where(found, low, c), torch.where(found, c, high)
        c = torch.where(high.isinf(), 10 * c, (low + high) / 2)
    return x_best


def least_linf(lead: Lead, x: Tensor, y: Tensor, initial_c: float, searches: int, **settings: float) -> Tensor:
    r"""Shrink a limit $\tau$ on all pixels: $\min_\delta \sum_i (|\delta_i| - \tau)^+ + c \, f(x + \delta)$.

    Section VI.C. From the last success on; where $\tau$ cannot be kept c grows, and when that does not help the last
    success stands.
    """
    x_best, tau = x.clone(), x.new_ones(len(x))
    c, tries = torch.full_like(tau, initial_c), torch.zeros_like(y)
    active = torch.arange(len(x), device=x.device)
    while len(active):
        x_adv, found = descend(
            *(lead, x[active], y[active], c[active]), start=x_best[active], tau=tau[active], first=True, **settings
        )
        won, lost = active[found], active[~found]
        x_best[won] = x_adv[found]
        tau[won] = SHRINK * torch.minimum(tau[won], norms(x_best[won] - x[won], "linf"))
        c[lost] *= 10
        tries[lost] += 1
        active = active[(tries[active] < searches) & (tau[active] > SMALLEST_TAU)]
    return x_best


def least_l0(lead: Lead, x: Tensor, y: Tensor, initial_c: float, searches: int, **settings: float) -> Tensor:
    r"""Fix the pixels that help least, $\min_i -g_i \delta_i$, $g = \nabla f(x + \delta)$; attack with the rest.

    Section VI.B. From the last success on; where too few pixels are left c grows, and when that does not help the last
    success stands.
    """
    x_best, free = x.clone(), torch.ones_like(x, dtype=torch.bool)
    c, tries = x.new_full((len(x),), initial_c), torch.zeros_like(y)
    active = torch.arange(len(x), device=x.device)
    while len(active):
        start = torch.where(free, x_best, x)[active]
        x_adv, found = descend(
            *(lead, x[active], y[active], c[active]), start=start, free=free[active], first=True, **settings
        )
        won, lost = active[found], active[~found]
        x_best[won] = x_adv[found]
        if len(won):
            g = value_and_gradient(lambda x_adv, won=won: lead(x_adv, y[won]), x_best[won])[1]
            free[won] = without_the_least(free[won], -g * (x_best[won] - x[won]))
        c[lost] *= 10
        tries[lost] += 1
        active = active[(tries[active] < searches) & free[active].flatten(1).any(1)]
    return x_best


def without_the_least(free: Tensor, gain: Tensor) -> Tensor:
    r"""`free`, less those $\max(1, \lfloor 0.3 \sqrt{n} \rfloor)$ of its n entries that gain least."""
    count = (0.3 * free.flatten(1).sum(1).sqrt()).long().clamp_min(1)
    order = gain.masked_fill(~free, math.inf).flatten(1).argsort(1)
    rank = order.argsort(1).view_as(free)
    return free & (rank >= per_image(count, free))


def descend(
    lead: Lead,
    x: Tensor,
    y: Tensor,
    c: Tensor,
    *,
    confidence: float,
    steps: int,
    learning_rate: float,
    start: Tensor | None = None,
    tau: Tensor | None = None,
    free: Tensor | None = None,
    first: bool = False,
) -> tuple[Tensor, Tensor]:
    r"""Adam on w from `start`, with $x' = \frac{1}{2}(\tanh(w) + 1)$: what `minimize_at` returns.

    The slope of tanh is written out, $dx'/dw = \frac{1}{2}(1 - \tanh^2 w)$. With `tau` the distance is that of L-inf
    and a point counts if it keeps the limit; entries that are not `free` stay at `x`; `first` is content with the first
    point that reaches the goal. Images that are done leave the batch.
    """
    rows, found = torch.arange(len(x), device=x.device), torch.zeros_like(y, dtype=torch.bool)
    x_best, nearest = x.clone(), torch.full_like(c, math.inf)
    w = torch.atanh((1 - EDGE) * (2 * (x if start is None else start) - 1))
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    before = lowest = nearest
    for k in range(1, steps + 1):
        t = w.tanh()
        x_adv = (t + 1) / 2 if free is None else torch.where(free, (t + 1) / 2, x)
        gap, g = value_and_gradient(lambda x_adv, y=y: lead(x_adv, y), x_adv)
        distance, pull = squared(x_adv - x) if tau is None else beyond(x_adv - x, tau)
        f = (gap + confidence).clamp_min(0)
        closer = reached(gap, confidence) & (distance < nearest if tau is None else distance == 0)
        x_best[rows[closer]], found[rows[closer]] = x_adv[closer], True
        nearest = torch.where(closer, distance, nearest)
        lowest = torch.minimum(lowest, distance + c * f)

        g = g.mul_(per_image(c * (f > 0), x)).add_(pull).mul_((1 - t * t) / 2)
        if free is not None:
            g *= free
        adam(w, g, m, v, k, learning_rate)

        done = closer if first else torch.zeros_like(closer)
        if k % max(steps // 10, PATIENCE) == 0 or k == steps:
            done, before = done | (lowest > PROGRESS * before), lowest
            missing = ~found[rows]
            x_best[rows[missing]] = x_adv[missing]
        if done.any():
            state = (rows, x, y, c, w, m, v, nearest, lowest, before, tau, free)
            state = (None if value is None else value[~done] for value in state)
            rows, x, y, c, w, m, v, nearest, lowest, before, tau, free = state
            if len(rows) == 0:
                break
    return x_best, found


def adam(w: Tensor, g: Tensor, m: Tensor, v: Tensor, k: int, learning_rate: float) -> None:
    """Step number k of Adam, in place: every entry by itself, so that an image does not feel its batch mates."""
    m.lerp_(g, 0.1)
    v.mul_(0.999).addcmul_(g, g, value=0.001)
    w.addcdiv_(m, (v / (1 - 0.999**k)).sqrt_().add_(1e-8), value=-learning_rate / (1 - 0.9**k))


def squared(delta: Tensor) -> tuple[Tensor, Tensor]:
    r"""$\|\delta\|_2^2$ of each image, and its gradient."""
    return delta.square().flatten(1).sum(1), 2 * delta


def beyond(delta: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
    r"""$\sum_i (|\delta_i| - \tau)^+$ of each image, and its gradient."""
    excess = (delta.abs() - per_image(tau, delta)).clamp_min_(0)
    return excess.flatten(1).sum(1), delta.sign() * (excess > 0)


def unwanted_lead(model: nn.Module, targeted: bool) -> Lead:
    """By how much what the attacker does not want leads: the true class, or the best class but the target."""
    sign = -1 if targeted else 1
    return lambda x, y: sign * margin(logits_of(model, x, y), y)


def reached(gap: Tensor, confidence: float) -> Tensor:
    """Where the wanted class leads by `confidence`, and at all."""
    return (gap < 0) & (gap <= -confidence)


def check_adam(confidence: float, steps: int, learning_rate: float) -> None:
    """Raise `ValueError` unless the settings of the inner problem are in their ranges."""
    check_number("confidence", confidence, low=0)
    check_count("steps", steps)
    check_number("learning_rate", learning_rate, low=0, exclusive=True)

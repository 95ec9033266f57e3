r"""Decision-based attacks: all they see is the label, and yet they find the point of the boundary nearest to an image.

Both start far away, at a point that the model already takes for something else, and never let go of what they have:
every point they keep is adversarial, and nearer than the one before. `boundary` walks along the decision boundary with
blind steps; `hop_skip_jump` asks many points around it which way it faces, and jumps.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from spai_lab.checks import NORMS, check_choice, check_count, check_images, check_inputs, check_like, check_number
from spai_lab.query import Query, answered, check_query
from spai_lab.threat import fresh_generator, norms, per_image, steepest

TRIES = 100  # random images that may be asked about before an image is given up
ROWS = 512  # points shown to the model at a time: bounds memory, and keeps small networks in the processor's cache
CONVERGED = 1e-6  # boundary: the relative length of a step toward the source that changes nothing any more
SPHERICAL_RATE, SOURCE_RATE = 0.3, 0.4  # boundary: the shares of successes at which the two lengths rest
PACE = 0.3  # boundary: how much one answer changes a length

Judge = Callable[[Tensor, Tensor], Tensor]


def boundary(
    query: Query,
    x: Tensor,
    y: Tensor,
    *,
    steps: int = 10_000,
    spherical_step: float = 0.01,
    source_step: float = 0.01,
    starts: Tensor | None = None,
    targeted: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Boundary attack: walk along the decision boundary with blind steps, toward the image.

    With $o$ the image, $d = \|\tilde o_{k-1} - o\|_2$, and $\eta$ a Gaussian direction orthogonal to
    $\tilde o_{k-1} - o$ of length $\delta d$, each step tries a point on the sphere around $o$, then one nearer to $o$:
    $\tilde o = o + \frac{\tilde o_{k-1} - o + \eta}{\sqrt{1 + \delta^2}}, \quad
    \tilde o_k = o + (1 - \varepsilon) \, d \, \frac{\tilde o - o}{\|\tilde o - o\|_2}$.
    The second is tried where the first is adversarial, and kept if it is, too. Each image has its own $\delta$ and
    $\varepsilon$, which grow with every success and shrink with every failure.

    Args:
        query: reveals anything; labels are enough.
        x: clean inputs, floating point `(N, C, H, W)` in [0, 1].
        y: labels `(N,)`, int64; the target classes if `targeted`.
        steps: number of steps, at least 1; each costs one or two queries.
        spherical_step: the first delta, relative to the distance, from above 0 to 1.
        source_step: the first epsilon, relative to the distance, from above 0 to 1.
        starts: points to start from, like `x`, that are already adversarial; None tries uniform noise, up to 100 times.
        targeted: come to be read as `y` rather than as anything but `y`; needs `starts`.
        generator: source of noise; None draws a fresh one.
    Returns:
        `x_adv`, like `x`, in [0, 1]: the nearest adversarial point found in L2; an image for which no start was found
        comes back as it was.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Brendel 2017, arXiv 1712.04248, algorithm 1 and section 2.
    Survey: evasion, black-box.
    Simplified: the paper adapts both lengths to shares of successes, about half of the points on the sphere; here each
        answer moves them at once, toward shares of 0.3 and 0.4, which takes fewer queries. It draws noise until some is
        adversarial, and walks until $\varepsilon$ converges; here 100 draws and `steps` may end it, too. A point on the
        sphere that is nearer, since it was clipped to [0, 1] or rounded, is kept even if the one after it is not.

    >>> def model(x): return torch.stack([0.6 - x.mean((1, 2, 3)), x.mean((1, 2, 3)) - 0.6], 1)
    >>> x, y = torch.full((1, 1, 2, 2), 0.5), torch.tensor([0])  # the boundary is 0.2 away
    >>> x_adv = boundary(Query(model, "labels", cap=1000), x, y, generator=torch.Generator().manual_seed(0))
    >>> round((x_adv - x).norm().item(), 2)
    0.2
    """
    check_decisions(query, x, y, starts, targeted, generator)
    check_count("steps", steps)
    check_number("spherical_step", spherical_step, low=0, high=1, exclusive=True)
    check_number("source_step", source_step, low=0, high=1, exclusive=True)
    x, generator = x.detach(), fresh_generator(generator, x.device)
    adversarial = partial(judged, query, y, targeted)
    x_adv, standing = started(adversarial, query, x, starts, generator)
    delta, epsilon = x.new_full((len(x),), spherical_step), x.new_full((len(x),), source_step)
    for _ in range(steps):
        standing = standing[epsilon[standing] > CONVERGED]
        standing = standing[query.afford(standing)]
        if len(standing) == 0:
            break
        here, source = x_adv[standing], x[standing]
        on_sphere = around(here, source, delta[standing], generator)
        held = adversarial(on_sphere, standing)
        keep_nearer(x_adv, x, on_sphere[held], standing[held])
        delta[standing] = adapted(delta[standing], held, SPHERICAL_RATE)
        moved = standing[held]
        nearer = toward(on_sphere[held], source[held], (1 - epsilon[moved]) * norms(here - source, "l2")[held])
        won = adversarial(nearer, moved)
        keep_nearer(x_adv, x, nearer[won], moved[won])
        epsilon[moved] = adapted(epsilon[moved], won, SOURCE_RATE)
    return x_adv


def hop_skip_jump(
    query: Query,
    x: Tensor,
    y: Tensor,
    *,
    norm: str = "l2",
    steps: int = 50,
    initial_samples: int = 100,
    max_samples: int = 10_000,
    starts: Tensor | None = None,
    targeted: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""HopSkipJump: ask which way the boundary faces, jump across it, and come back to it by bisection.

    With $\phi = 1$ where a point is adversarial and $-1$ where not, $x_k$ on the boundary and $B_k = B_0 \sqrt{k}$
    random unit vectors $u_b$, $\bar\phi$ the mean of $\phi(x_k + \delta_k u_b)$:
    $v_k = \frac{1}{B_k - 1} \sum_b (\phi(x_k + \delta_k u_b) - \bar\phi) \, u_b, \quad
    \tilde x_k = x_k + \xi_k \, d(v_k), \quad x_{k+1} = \alpha x + (1 - \alpha) \tilde x_k$,
    with $d(v)$ the sign in L-inf and the unit vector in L2, $\xi_k = \|x_k - x\| / \sqrt{k}$ halved until $\tilde x_k$
    is adversarial, and $\alpha$ by bisection; in L-inf bisection is for the smallest box around `x` into which
    $\tilde x_k$ can be clipped.

    Args:
        query: reveals anything; labels are enough.
        x: clean inputs, floating point `(N, C, H, W)` in [0, 1].
        y: labels `(N,)`, int64; the target classes if `targeted`.
        norm: which distance to make small, "l2" or "linf".
        steps: number of jumps, at least 1.
        initial_samples: B_0, random vectors of the first estimate, at least 2.
        max_samples: how many there may be at most, at least 2.
        starts: points to start from, like `x`, that are already adversarial; None tries uniform noise, up to 100 times.
        targeted: come to be read as `y` rather than as anything but `y`; needs `starts`.
        generator: source of noise; None draws a fresh one.
    Returns:
        `x_adv`, like `x`, in [0, 1]: the nearest adversarial point found; an image for which no start was found comes
        back as it was.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Chen 2019, arXiv 1904.02144, algorithms 1 and 2.
    Survey: evasion, black-box.
    Simplified: $u_b$ is measured after clipping to [0, 1]. Where all $\phi$ agree nothing is subtracted, since
        nothing would be left. Bisection goes on to $d^{-3/2}$ of the distance ($d^{-2}$ in L-inf) and $\delta_k$ is its
        d-th part, as in the paper, but at least to 1/1000 and at most 1/100, which matters below 100 numbers an image,
        and not beyond what the dtype can tell. $\xi_k$ is halved at most as often as bisection halves, then $x_k$
        stays. The nearest of all $x_k$ is returned, not the last.

    >>> def model(x): return torch.stack([0.6 - x.mean((1, 2, 3)), x.mean((1, 2, 3)) - 0.6], 1)
    >>> x, y = torch.full((1, 1, 2, 2), 0.5), torch.tensor([0])  # the boundary is 0.2 away
    >>> x_adv = hop_skip_jump(Query(model, "labels", cap=1000), x, y, generator=torch.Generator().manual_seed(0))
    >>> round((x_adv - x).norm().item(), 2)
    0.2
    """
    check_decisions(query, x, y, starts, targeted, generator)
    check_choice("norm", norm, NORMS)
    for name, value, low in (
        ("steps", steps, 1),
        ("initial_samples", initial_samples, 2),
        ("max_samples", max_samples, 2),
    ):
        check_count(name, value, low=low)
    x, generator = x.detach(), fresh_generator(generator, x.device)
    adversarial = partial(judged, query, y, targeted)
    halvings, reach = precision(x, norm)
    best, standing = started(adversarial, query, x, starts, generator)
    far = best.clone()
    x_k = best.clone()
    x_k[standing] = bisected(adversarial, x[standing], far[standing], standing, norm, halvings)
    keep_nearer(best, x, x_k[standing], standing, norm)
    for k in range(1, steps + 1):
        samples = min(int(initial_samples * math.sqrt(k)), max_samples)
        standing = standing[query.afford(standing, samples)]
        if len(standing) == 0:
            break
        here, source = x_k[standing], x[standing]
        delta = reach * norms(far[standing] - source, norm)
        v = facing(adversarial, here, standing, delta, samples, norm, generator)
        xi = norms(here - source, norm) / math.sqrt(k)
        far[standing] = jumped(adversarial, here, standing, xi, steepest(v, norm), halvings)
        x_k[standing] = bisected(adversarial, source, far[standing], standing, norm, halvings)
        keep_nearer(best, x, x_k[standing], standing, norm)
    return best


# --- what both share --------------------------------------------------------------------------------------------------


def check_decisions(
    query: Query, x: Tensor, y: Tensor, starts: Tensor | None, targeted: bool, generator: torch.Generator | None
) -> None:
    """Raise `ValueError` unless the arguments that both attacks share are in their range."""
    check_query(query)
    check_inputs(query, x, y, targeted=targeted, generator=generator)
    if starts is not None:
        check_images(starts, "starts")
        check_like("starts", starts, x)
    elif targeted:
        raise ValueError("starts is None; accepted: an image of the target class for each input, since noise is none")


def judged(query: Query, y: Tensor, targeted: bool, points: Tensor, images: Tensor) -> Tensor:
    """Whether each point is adversarial; a point whose image cannot pay for it is not shown, and does not count."""
    paid = query.afford(images)
    hit = torch.zeros_like(paid)
    if paid.any():
        hit[paid] = (answered(query, points[paid], images[paid]) == y[images[paid]]) == targeted
    return hit


def started(
    adversarial: Judge, query: Query, x: Tensor, starts: Tensor | None, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Where the attack begins, like `x`, and the images `(M,)` that have found an adversarial point other than `x`."""
    x_adv, images = x.clone(), torch.arange(len(x), device=x.device)
    missing = images[~adversarial(x, images)]
    for _ in range(TRIES if starts is None else 1):
        missing = missing[query.afford(missing)]
        if len(missing) == 0:
            break
        if starts is None:
            points = torch.rand(x[missing].shape, dtype=x.dtype, device=x.device, generator=generator)
        else:
            points = starts[missing]
        hit = adversarial(points, missing)
        x_adv[missing[hit]] = points[hit]
        missing = missing[~hit]
    return x_adv, images[(x_adv != x).flatten(1).any(1)]


def keep_nearer(x_adv: Tensor, x: Tensor, points: Tensor, images: Tensor, norm: str = "l2") -> None:
    """Put adversarial points in the place of those that are farther from their images."""
    nearer = norms(points - x[images], norm) < norms(x_adv[images] - x[images], norm)
    x_adv[images[nearer]] = points[nearer]


# --- the steps of the boundary attack ---------------------------------------------------------------------------------


def around(here: Tensor, source: Tensor, delta: Tensor, generator: torch.Generator) -> Tensor:
    r"""A step of $\delta d$ in a random direction orthogonal to the source, brought back onto the sphere around it."""
    back = here - source
    eta = torch.randn(here.shape, dtype=here.dtype, device=here.device, generator=generator)
    outward = steepest(back, "l2")
    eta = eta - per_image((eta * outward).flatten(1).sum(1), eta) * outward
    eta = per_image(delta * norms(back, "l2"), eta) * steepest(eta, "l2")
    return (source + (back + eta) / per_image((1 + delta**2).sqrt(), eta)).clamp(0, 1)


def toward(points: Tensor, source: Tensor, distance: Tensor) -> Tensor:
    """The points, moved straight toward the source until they are so far from it; those that are nearer stay."""
    shrink = distance / norms(points - source, "l2").clamp_min(torch.finfo(points.dtype).tiny)
    return (source + per_image(shrink.clamp_max(1), points) * (points - source)).clamp(0, 1)


def adapted(step: Tensor, success: Tensor, rate: float) -> Tensor:
    r"""Lengths times $e^{a (1 - r)}$ after a success and $e^{-a r}$ after a failure: at the rate r they rest."""
    return (step * (PACE * (success.to(step.dtype) - rate)).exp()).clamp_max(1)


# --- the steps of HopSkipJump -----------------------------------------------------------------------------------------


def precision(x: Tensor, norm: str) -> tuple[int, float]:
    r"""Halvings down to $\theta = d^{-3/2}$ ($d^{-2}$ in L-inf), and how far to look, $1 / d$ of $\|\tilde x - x\|$.

    >>> precision(torch.zeros(1, 1, 28, 28), "l2")[0]
    15
    """
    d = math.prod(x.shape[1:])
    theta = d**-1.5 if norm == "l2" else d**-2.0
    theta = min(max(theta, torch.finfo(x.dtype).eps), 1e-3)
    return math.ceil(-math.log2(theta)), min(1 / d, 1e-2)


def bisected(adversarial: Judge, x: Tensor, far: Tensor, images: Tensor, norm: str, halvings: int) -> Tensor:
    """The point between `x` and `far` where the model changes its mind, on the adversarial side."""
    low, high = x.new_zeros(len(x)), x.new_ones(len(x))
    for _ in range(halvings):
        middle = (low + high) / 2
        hit = adversarial(between(x, far, middle, norm), images)
        low, high = torch.where(hit, low, middle), torch.where(hit, middle, high)
    return torch.where(per_image(high == 1, x), far, between(x, far, high, norm))


def between(x: Tensor, far: Tensor, share: Tensor, norm: str) -> Tensor:
    """The point at this share of the distance: on the line from `x` to `far` in L2, `far` clipped to a box in L-inf."""
    share = per_image(share, x)
    if norm == "l2":
        return (x + share * (far - x)).clamp(0, 1)
    radius = share * per_image(norms(far - x, norm), x)
    return (x + torch.minimum(torch.maximum(far - x, -radius), radius)).clamp(0, 1)


def facing(
    adversarial: Judge, here: Tensor, images: Tensor, delta: Tensor, samples: int, norm: str, generator: torch.Generator
) -> Tensor:
    r"""Which way the adversarial side lies: $\sum_b (\phi_b - \bar\phi) u_b$, or $\sum_b \phi_b u_b$ if all agree."""
    total, signed, balance = torch.zeros_like(here), torch.zeros_like(here), torch.zeros_like(delta)
    at_once = max(1, ROWS // len(here))
    for first in range(0, samples, at_once):
        count = min(at_once, samples - first)
        shape = (count * len(here), *here.shape[1:])
        u = torch.randn(shape, dtype=here.dtype, device=here.device, generator=generator)
        base, radius = here.repeat(count, *[1] * (here.ndim - 1)), per_image(delta.repeat(count), u)
        points = (base + radius * steepest(u, "l2")).clamp(0, 1)
        phi = 2 * adversarial(points, images.repeat(count)).to(here.dtype) - 1
        u = (points - base) / radius
        total += u.view(count, *here.shape).sum(0)
        signed += (per_image(phi, u) * u).view(count, *here.shape).sum(0)
        balance += phi.view(count, -1).sum(0)
    mean = balance / samples
    return signed - per_image(mean.masked_fill(mean.abs() == 1, 0), here) * total


def jumped(adversarial: Judge, here: Tensor, images: Tensor, xi: Tensor, direction: Tensor, halvings: int) -> Tensor:
    r"""The first point of $x_k + \xi v, x_k + \xi v / 2, \dots$ that is adversarial; `here` itself if none is."""
    far, searching = here.clone(), torch.arange(len(here), device=here.device)
    for halving in range(halvings):
        step = per_image(xi[searching] / 2**halving, here)
        points = (here[searching] + step * direction[searching]).clamp(0, 1)
        hit = adversarial(points, images[searching])
        far[searching[hit]] = points[hit]
        searching = searching[~hit]
        if len(searching) == 0:
            break
    return far

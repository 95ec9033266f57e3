r"""Score-based attacks that estimate the gradient which a black box does not give, and then use it like any other.

Two ways to measure a slope by looking at heights: along random directions, all pixels at once (`nes`), or pixel by
pixel (`zoo`). Both climb down the lead of the true class over the runner-up, $f = \log p_y - \max_{i \ne y} \log p_i$,
and have won where it is below 0; with a target $t$ it is the lead of the runner-up over $t$.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from spai_lab.checks import (
    check_ball,
    check_batch,
    check_callable,
    check_classes,
    check_count,
    check_flag,
    check_inputs,
    check_number,
    check_steps,
)
from spai_lab.query import Query, check_query, log_scores
from spai_lab.threat import fresh_generator, margin, project, steepest

ROWS = 512  # images shown to the model at a time: bounds memory, and keeps small networks in the processor's cache
BETA_1, BETA_2 = 0.9, 0.999  # how long Adam remembers
LARGEST_C = 1e10
PATIENCE = 100  # zoo: iterations in which the loss must have fallen


def nes_gradient(
    score: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    samples: int = 50,
    sigma: float = 0.001,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Natural evolution strategies: the gradient of a score, from scores at random points nearby.

    $\hat g = \frac{1}{n \sigma} \sum_{j=1}^{n} s(x + \sigma u_j) \, u_j$ with $u_j \sim \mathcal N(0, I)$ for
    $j \le n / 2$ and $u_{n/2 + j} = -u_j$: opposite looks cancel what does not change with the direction.

    Its mean is the gradient of $s$ blurred by a Gaussian of width $\sigma$; for a linear $s$ with slope $g$, entry $i$
    has the variance $\frac{2}{n} (\|g\|^2 + g_i^2)$.

    Args:
        score: from points `(M, N, ...)`, M looks at the surroundings of each of the N inputs, to scores `(M, N)`.
        x: inputs `(N, ...)`, around which the score is looked at.
        samples: n, looks at each input; an even number from 2.
        sigma: how far away they are, in pixel units, above 0.
        generator: source of the directions; None draws a fresh one.
    Returns:
        like `x`.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Ilyas et al. 2018, arXiv 1804.08598, algorithm 1.
    Survey: evasion, black-box.
    Simplified: nothing.

    >>> slope = torch.tensor([3.0, -4.0])
    >>> generator = torch.Generator().manual_seed(0)
    >>> nes_gradient(lambda points: points @ slope, torch.zeros(1, 2), samples=100_000, generator=generator).round()
    tensor([[ 3., -4.]])
    """
    check_callable("score", score)
    check_batch("x", x)
    check_samples(samples)
    check_number("sigma", sigma, low=0, exclusive=True)
    generator = fresh_generator(generator, x.device)
    u = torch.randn(samples // 2, *x.shape, dtype=x.dtype, device=x.device, generator=generator)
    ahead, behind = score(torch.cat([x + sigma * u, x - sigma * u])).chunk(2)
    return torch.einsum("mn,mn...->n...", ahead - behind, u) / (samples * sigma)


def nes(
    query: Query,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    norm: str = "linf",
    steps: int = 100,
    step_size: float | None = None,
    samples: int = 50,
    sigma: float = 0.001,
    momentum: float = 0.9,
    targeted: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Projected gradient descent on scores alone: the gradient is estimated by `nes_gradient` at each step.

    $g_{k+1} = \mu \, g_k + (1 - \mu) \, \hat g(x_k), \quad
    x_{k+1} = \Pi_{B(x, \epsilon)}\left(x_k - \alpha \, d(g_{k+1})\right)$, from $x_0 = x$, until $f(x_k) < 0$,
    with $d$ the sign in L-inf and the unit vector in L2.

    Args:
        query: reveals "scores" or "logits".
        x: clean inputs, floating point `(N, C, H, W)` in [0, 1].
        y: labels `(N,)`, int64; the target classes if `targeted`.
        eps: radius of the ball, in pixel units of [0, 1].
        norm: "linf" or "l2".
        steps: number of steps, at least 1; each costs `samples + 1` queries an image.
        step_size: alpha, in pixel units, above 0; None takes `eps / 10`.
        samples: looks at the surroundings in each step; an even number from 2.
        sigma: how far away they are, in pixel units, above 0.
        momentum: mu, from 0 to below 1; 0 trusts each estimate alone.
        targeted: make the model say `y` rather than anything else.
        generator: source of the directions; None draws a fresh one.
    Returns:
        `x_adv`, like `x`, in [0, 1] and within `eps` of `x`: the first point that fooled the model, else the last.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Ilyas et al. 2018, arXiv 1804.08598, section 2.2 and algorithm 1.
    Survey: evasion, black-box.
    Simplified: of the paper's three settings the query-limited one; partial information and labels alone are left out.
        The margin of log-probabilities takes the place of the probability, whose digits run out where the model is
        sure. Points outside [0, 1] are clipped before they are shown, so that the slope of a black or a white pixel
        comes out half as large. The step size is constant, where the authors' code halves it on a plateau.

    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
    >>> x, y = torch.full((2, 1, 2, 2), 0.5), torch.tensor([0, 2])
    >>> x_adv = nes(Query(model, "scores", cap=200), x, y, eps=0.1, generator=torch.Generator().manual_seed(0))
    >>> bool((x_adv - x).abs().max() <= 0.1 + 1e-6)
    True
    """
    check_query(query, "scores", "logits")
    check_ball(x, eps, norm)
    check_inputs(query, x, y, targeted=targeted, generator=generator)
    check_steps(steps, step_size)
    check_samples(samples)
    check_number("sigma", sigma, low=0, exclusive=True)
    check_number("momentum", momentum, low=0, high=1)
    if momentum == 1:
        raise ValueError("momentum is 1; accepted: below 1, or no estimate would ever count")
    alpha = eps / 10 if step_size is None else step_size
    generator = fresh_generator(generator, x.device)
    x = x.detach()
    x_adv, g = x.clone(), torch.zeros_like(x)
    standing = unfooled(query, x, y, targeted)
    for _ in range(steps):
        standing = standing[query.afford(standing, samples + 1)]
        if len(standing) == 0:
            break
        images = standing.repeat(samples)

        def score(points: Tensor, images: Tensor = images) -> Tensor:
            shown = points.flatten(0, 1).clamp(0, 1)
            return lead(query, shown, y[images], images, targeted).view(points.shape[:2])

        slope = nes_gradient(score, x_adv[standing], samples=samples, sigma=sigma, generator=generator)
        g[standing] = momentum * g[standing] + (1 - momentum) * slope
        x_adv[standing] = project(x_adv[standing] - alpha * steepest(g[standing], norm), x[standing], eps, norm)
        standing = standing[lead(query, x_adv[standing], y[standing], standing, targeted) >= 0]
    return x_adv


def zoo(
    query: Query,
    x: Tensor,
    y: Tensor,
    *,
    steps: int = 3000,
    searches: int = 9,
    initial_c: float = 0.01,
    coordinates: int = 128,
    learning_rate: float = 0.01,
    h: float = 1e-4,
    confidence: float = 0.0,
    abort_early: bool = True,
    targeted: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Zeroth-order optimization: the attack of Carlini and Wagner without gradients, a few random pixels at a time.

    $\min_{x' \in [0, 1]^d} \|x' - x\|_2^2 + c \max(f(x'), -\kappa)$, with the slope of $f$ along pixel $i$ measured by
    $\hat g_i = \frac{f(x' + h e_i) - f(x' - h e_i)}{2 h}$ and followed by Adam, which keeps its averages by the pixel.
    A binary search looks for the smallest $c$ that still fools the model.

    Args:
        query: reveals "scores" or "logits".
        x: clean inputs, floating point `(N, C, H, W)` in [0, 1].
        y: labels `(N,)`, int64; the target classes if `targeted`.
        steps: iterations for each c, at least 1; each costs `2 * coordinates + 1` queries an image.
        searches: how many values of c to try, at least 1.
        initial_c: the first of them, above 0; ten times as much follows until one succeeds.
        coordinates: pixels moved in an iteration, at least 1; all of them where `x` has fewer.
        learning_rate: eta of Adam, in pixel units, above 0.
        h: how far away a pixel is looked at, in pixel units, above 0, at most .5.
        confidence: kappa, the lead that the wrong class must have, in log-probability, at least 0.
        abort_early: leave a c where the loss has not fallen in 100 iterations.
        targeted: make the model say `y` rather than anything else.
        generator: source of the coordinates; None draws a fresh one.
    Returns:
        `x_adv`, like `x`, in [0, 1]: of each input the nearest point that fooled the model; `x` where none did.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Chen et al. 2017, arXiv 1708.03999, section 3, algorithm 2 (ZOO-ADAM).
    Survey: evasion, black-box.
    Simplified: no attack-space reduction, hierarchical attack or importance sampling, which the paper needs for
        ImageNet and not for MNIST; no ZOO-Newton. Pixels are clipped to [0, 1] as in the authors' code for MNIST, also
        those that are looked at, so that the quotient at the edge is one-sided. The slope of the distance is taken
        from its formula, to which the quotient is equal. An input that fools the model already is left as it is.

    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 2, bias=False))
    >>> _ = torch.nn.init.eye_(model[1].weight)
    >>> x, y = torch.tensor([[[[0.9, 0.3]]]]), torch.tensor([0])
    >>> zoo(Query(model), x, y, steps=200, searches=5, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    tensor([[[[0.6000, 0.6000]]]])
    """
    check_query(query, "scores", "logits")
    check_inputs(query, x, y, targeted=targeted, generator=generator)
    for name, value in (("steps", steps), ("searches", searches), ("coordinates", coordinates)):
        check_count(name, value)
    for name, value in (("initial_c", initial_c), ("learning_rate", learning_rate)):
        check_number(name, value, low=0, exclusive=True)
    check_number("h", h, low=0, high=0.5, exclusive=True)
    check_number("confidence", confidence, low=0)
    check_flag("abort_early", abort_early)
    generator = fresh_generator(generator, x.device)
    x = x.detach()
    x_adv, least = x.clone(), x.new_full((len(x),), math.inf)
    c, low, high = (torch.full_like(least, start) for start in (initial_c, 0.0, math.inf))
    standing = unfooled(query, x, y, targeted)

    def f(points: Tensor, images: Tensor) -> Tensor:
        return lead(query, points.view(-1, *x.shape[1:]), y[images], images, targeted)

    for _ in range(searches):
        nearest, distance = coordinate_descent(
            *(query, f, x.flatten(1), c, standing),
            steps=steps,
            coordinates=min(coordinates, math.prod(x.shape[1:])),
            learning_rate=learning_rate,
            h=h,
            confidence=confidence,
            abort_early=abort_early,
            generator=generator,
        )
        closer = distance < least
        x_adv[closer], least[closer] = nearest[closer].view(-1, *x.shape[1:]), distance[closer]
        hit = distance < math.inf
        low, high = torch.where(hit, low, c), torch.where(hit, c, high)
        c = torch.where(high < math.inf, (low + high) / 2, (10 * c).clamp_max(LARGEST_C))
    return x_adv


def coordinate_descent(
    query: Query,
    f: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    c: Tensor,
    running: Tensor,
    *,
    steps: int,
    coordinates: int,
    learning_rate: float,
    h: float,
    confidence: float,
    abort_early: bool,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """ZOO-ADAM at one c an image: the nearest point with the confidence asked for, and its squared distance or inf."""
    nearest, least = x.clone(), torch.full_like(c, math.inf)
    x_adv, M, v, T = x.clone(), torch.zeros_like(x), torch.zeros_like(x), torch.zeros_like(x)
    before = torch.full_like(c, math.inf)
    for k in range(steps):
        running = running[query.afford(running, 2 * coordinates + 1)]
        if len(running) == 0:
            break
        i = torch.rand(len(running), x.shape[1], device=x.device, generator=generator).topk(coordinates).indices
        here, slope = probe(f, x_adv[running], i, running, h=h, floor=-confidence)
        distance = (x_adv[running] - x[running]).square().sum(1)
        closer = (here < 0) & (here <= -confidence) & (distance < least[running])
        nearest[running[closer]], least[running[closer]] = x_adv[running[closer]], distance[closer]
        if abort_early and k % PATIENCE == 0:
            loss = distance + c[running] * (here + confidence).clamp_min(0)
            falling = loss < 0.9999 * before[running]
            before[running] = loss
            running, i, slope = running[falling], i[falling], slope[falling]
        at = running[:, None], i
        pixels = x_adv[at]
        g = 2 * (pixels - x[at]) + c[running, None] * slope
        T_i, M_i, v_i = T[at] + 1, torch.lerp(g, M[at], BETA_1), torch.lerp(g.square(), v[at], BETA_2)
        T[at], M[at], v[at] = T_i, M_i, v_i
        M_hat, v_hat = M_i / (1 - BETA_1**T_i), v_i / (1 - BETA_2**T_i)
        x_adv[at] = (pixels - learning_rate * M_hat / (v_hat.sqrt() + 1e-8)).clamp(0, 1)
    return nearest, least


def probe(
    f: Callable[[Tensor, Tensor], Tensor], points: Tensor, i: Tensor, images: Tensor, *, h: float, floor: float
) -> tuple[Tensor, Tensor]:
    """The height of f at each point, `(M,)`, and the slope of max(f, floor) along its coordinates i, `(M, B)`."""
    M, B = i.shape
    here, slope = points.new_empty(M), points.new_empty(M, B)
    for group in torch.arange(M, device=points.device).split(max(1, ROWS // (2 * B + 1))):
        at = points[group].gather(1, i[group])
        ahead, behind = (at + h).clamp_max(1), (at - h).clamp_min(0)
        looks = points[group, None].repeat(1, 2 * B + 1, 1)
        looks[:, :B].scatter_(2, i[group, :, None], ahead[..., None])
        looks[:, B:-1].scatter_(2, i[group, :, None], behind[..., None])
        heights = f(looks, images[group].repeat_interleave(2 * B + 1)).view(len(group), -1)
        here[group] = heights[:, -1]
        above, below = heights[:, :-1].clamp_min(floor).chunk(2, dim=1)
        slope[group] = (above - below) / (ahead - behind)
    return here, slope


def unfooled(query: Query, x: Tensor, y: Tensor, targeted: bool) -> Tensor:
    """The numbers of the images that do not fool the model yet; one query each."""
    images = torch.arange(len(x), device=x.device)
    images = images[query.afford(images)]
    return images[lead(query, x[images], y[images], images, targeted) >= 0]


def lead(query: Query, points: Tensor, y: Tensor, images: Tensor, targeted: bool) -> Tensor:
    """What the attacker brings below 0, `(M,)`: the margin of the true class, or of all others over the target."""
    leads = points.new_empty(len(points))
    for start in range(0, len(points), ROWS):
        rows = slice(start, start + ROWS)
        logits = log_scores(query, points[rows], images[rows])
        check_classes(y[rows], logits)
        leads[rows] = margin(logits, y[rows])
    return -leads if targeted else leads


def check_samples(samples: int) -> None:
    """Raise `ValueError` unless `samples` is an even number from 2."""
    check_count("samples", samples, low=2)
    if samples % 2:
        raise ValueError(f"samples is {samples}; accepted: an even number, since looks come in opposite pairs")

r"""Auto-PGD: PGD that reviews its own step size, and the losses it climbs.

Two things make plain PGD miss adversarial images: a step size that does not suit the model, and cross-entropy, whose
gradient vanishes where the model is sure. APGD halves the step when it stops paying and returns to the best point; the
difference of logits ratio (DLR) loss does not change when the logits are shifted or scaled.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn, where

from spai_lab.checks import (
    check_ball,
    check_callable,
    check_classes,
    check_count,
    check_flag,
    check_inputs,
    check_labels,
    check_steps,
    describe,
)
from spai_lab.threat import (
    fooled,
    fresh_generator,
    logits_of,
    margin,
    per_image,
    project,
    random_point,
    steepest,
    value_and_gradient,
    warn_of_zeros,
)

Loss = Callable[..., Tensor]
MOMENTUM = 0.75  # alpha: the share of the new step; the rest repeats the last one
PROGRESS = 0.75  # rho: the share of steps that must raise the loss


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    r"""The loss of each input, $-\log p_y$, `(N,)`.

    >>> cross_entropy(torch.zeros(1, 4), torch.tensor([2]))
    tensor([1.3863])
    """
    return F.cross_entropy(logits, y, reduction="none")


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    r"""Difference of logits ratio: how far `y` trails, in units that do not change with the scale of the logits.

    $\mathrm{DLR}(x, y) = -\frac{z_y - \max_{i \ne y} z_i}{z_{\pi_1} - z_{\pi_3}}$,
    with $\pi$ the order of the logits from the largest down; above 0 another class wins.

    Args:
        logits: `(N, K)`, K at least 4.
        y: labels `(N,)`.
    Returns:
        `(N,)`.
    Raises:
        ValueError: fewer than four classes.
    Reference: Croce and Hein 2020, arXiv 2003.01690, section 4.

    >>> dlr(torch.tensor([[4.0, 3.0, 2.0, 0.0]]), torch.tensor([0]))
    tensor([-0.5000])
    """
    largest = four_largest(logits)
    return -margin(logits, y) / spread(largest[:, 0] - largest[:, 2])


def targeted_dlr(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    r"""The DLR loss toward one class: how far `y` trails it.

    $-\frac{z_y - z_t}{z_{\pi_1} - (z_{\pi_3} + z_{\pi_4}) / 2}$; the fourth logit keeps the loss from being constant
    where the target is third.

    Args:
        logits: `(N, K)`, K at least 4.
        y: labels `(N,)`.
        target: the classes t to aim at, `(N,)`.
    Returns:
        `(N,)`.
    Raises:
        ValueError: fewer than four classes.
    Reference: Croce and Hein 2020, arXiv 2003.01690, section 4.

    >>> targeted_dlr(torch.tensor([[4.0, 3.0, 2.0, 0.0]]), torch.tensor([0]), torch.tensor([2]))
    tensor([-0.6667])
    """
    largest = four_largest(logits)
    of_y, of_target = (logits.gather(1, label[:, None])[:, 0] for label in (y, target))
    return -(of_y - of_target) / spread(largest[:, 0] - largest[:, 2:].mean(1))


def four_largest(logits: Tensor) -> Tensor:
    """The logits of the four likeliest classes, in falling order, `(N, 4)`."""
    if logits.shape[1] < 4:
        raise ValueError(
            f"model has {logits.shape[1]} classes; accepted: at least 4 for the DLR loss, which divides by the gap to "
            "the third and fourth (with fewer, use apgd with cross_entropy)"
        )
    return logits.topk(4, dim=1).values


def spread(gap: Tensor) -> Tensor:
    """A gap between logits that may be divided by."""
    return gap.clamp_min(1e-12)


def apgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    norm: str = "linf",
    steps: int = 100,
    random_start: bool = True,
    restarts: int = 1,
    loss: Loss = cross_entropy,
    toward: Tensor | None = None,
    samples: int = 1,
    targeted: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Auto-PGD: climb with momentum, and halve the step wherever it no longer pays.

    $u_{k+1} = \Pi_{B(x, \epsilon)}\left(x_k + \eta_k \, d(\nabla_x L(f(x_k), y))\right), \quad
    x_{k+1} = \Pi_{B(x, \epsilon)}\left(x_k + \alpha (u_{k+1} - x_k) + (1 - \alpha)(x_k - x_{k-1})\right)$,
    with $\eta_0 = 2 \epsilon$ and $\alpha = 0.75$. At each checkpoint $\eta$ is halved, and the walk resumes from the
    best point so far, if fewer than $\rho = 0.75$ of the steps since the last one raised the loss, or if neither $\eta$
    nor the best loss has changed since.

    It takes a `loss` where other attacks take a `gradient`, since it needs to know how high it has climbed.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        x: clean inputs, floating point `(N, C, H, W)` in [0, 1].
        y: labels `(N,)`, int64; the target classes if `targeted`.
        eps: radius of the ball, in pixel units of [0, 1].
        norm: "linf" or "l2".
        steps: number of steps of each try, at least 1.
        random_start: draw $x_0$ from the ball; False starts at `x`.
        restarts: how often to try; each try takes the inputs that the last one left unharmed.
        loss: `(logits, y) -> (N,)`, what is climbed: `cross_entropy`, `dlr`, or an adaptive attacker's own.
        toward: classes `(N,)`, int64, that `loss` gets as its third argument, as `targeted_dlr` wants it; the attack
            still counts any class but `y` as a success.
        samples: how many looks at a randomized model are averaged in each step (EOT), at least 1.
        targeted: walk down the loss of `y` rather than up.
        generator: source of the random starts; None draws a fresh one.
    Returns:
        `x_adv`, like `x`, in [0, 1] and within `eps` of `x`: the first point that succeeds (with `samples` above 1 the
        one of the highest loss among those that do), else the one of the highest loss in the last try; `x` itself where
        the model is fooled by it.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Croce and Hein 2020, arXiv 2003.01690, algorithm 1.
    Survey: evasion, white-box.
    Simplified: an image leaves at its first success (not with `samples` above 1, when it may have been luck).

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> x, y = torch.full((2, 1, 2, 2), 0.5), torch.tensor([0, 2])
    >>> bool((apgd(model, x, y, eps=0.1, steps=5) - x).abs().max() <= 0.1 + 1e-6)
    True
    """
    check_ball(x, eps, norm)
    check_inputs(model, x, y, targeted=targeted, generator=generator)
    check_steps(steps, None)
    check_flag("random_start", random_start)
    check_count("restarts", restarts)
    check_callable("loss", loss)
    check_count("samples", samples)
    labels = [y] if toward is None else [y, toward]
    check_labels(labels[-1], x, "y" if toward is None else "toward")
    look = looking(model, samples=samples, targeted=targeted)
    x_adv, standing = x.detach().clone(), (~fooled(model, x, y, targeted=targeted)).nonzero()[:, 0]
    tries = [[label[standing] for label in labels]] * restarts
    ball = {"eps": eps, "norm": norm, "steps": steps, "random_start": random_start}
    x_adv[standing] = climb_in_turn(look, loss, x_adv[standing], tries, **ball, generator=generator)
    return x_adv


Look = Callable[[Loss, Tensor, list[Tensor]], tuple[Tensor, Tensor, Tensor, Tensor]]


def looking(model: nn.Module, *, samples: int, targeted: bool) -> Look:
    """What one look at the model tells APGD: a function of the loss, the points and their labels.

    It returns the loss to climb `(N,)`, its gradient like `x`, which points succeed, and which of these are done; all
    are averaged over `samples` looks, and zeros in the first gradient are warned about, once.
    """
    ascent = -1 if targeted else 1
    first = True

    def once(loss: Loss, x: Tensor, labels: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        logits = []

        def objective(x: Tensor) -> Tensor:
            logits.append(logits_of(model, x, labels[0]))
            for toward in labels[1:]:
                check_classes(toward, logits[0], "toward")
            values = loss(logits[0], *labels)
            if not isinstance(values, Tensor) or values.shape != (len(x),):
                raise ValueError(f"loss returns {describe(values)}; accepted: one value for each input, ({len(x)},)")
            return ascent * values

        return *value_and_gradient(objective, x), logits[0].detach()

    def look(loss: Loss, x: Tensor, labels: list[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        nonlocal first
        looks = zip(*(once(loss, x, labels) for _ in range(samples)), strict=True)
        values, gradient, logits = (sum(parts) / samples for parts in looks)
        if first:
            warn_of_zeros(gradient)
        first = False
        hit = logits.argmax(1) == labels[0]
        won = hit if targeted else ~hit
        return values, gradient, won, won if samples == 1 else torch.zeros_like(won)

    return look


def climb_in_turn(
    look: Look,
    loss: Loss,
    x: Tensor,
    tries: list[list[Tensor]],
    *,
    eps: float,
    norm: str,
    steps: int,
    random_start: bool = True,
    generator: torch.Generator | None,
) -> Tensor:
    """One climb for each of `tries`, the labels `(N,)` that the loss gets; each takes what the last left unharmed."""
    generator = fresh_generator(generator, x.device)
    x_adv, standing = x.clone(), torch.arange(len(x), device=x.device)
    for labels in tries:
        if len(standing) == 0:
            break
        center, aims = x[standing], [label[standing] for label in labels]
        start = random_point(center, eps, norm, generator) if random_start else center
        x_adv[standing], won = climb(look, loss, center, aims, start, eps=eps, norm=norm, steps=steps)
        standing = standing[~won]
    return x_adv


def climb(
    look: Look, loss: Loss, x: Tensor, labels: list[Tensor], start: Tensor, *, eps: float, norm: str, steps: int
) -> tuple[Tensor, Tensor]:
    """One try of APGD from `start`: the points it returns, and which of them succeed."""
    n, reviews, last = len(x), checkpoints(steps), 0
    active = torch.arange(n, device=x.device)
    won, halved = (torch.zeros(n, dtype=torch.bool, device=x.device) for _ in range(2))
    f, f_max, f_won, f_reviewed = (x.new_full((n,), -torch.inf) for _ in range(4))
    rises, eta = x.new_zeros(n), x.new_full((n,), 2 * eps)
    x_k, x_last, x_max, x_adv = start, start, start, start.clone()
    g, g_max = torch.zeros_like(x), torch.zeros_like(x)
    for k in range(steps + 1):
        f_last = f.clone()
        f[active], g[active], hit, done = look(loss, x_k[active], [label[active] for label in labels])
        higher = active[hit & (f[active] > f_won[active])]
        won[active] |= hit
        x_adv[higher], f_won[higher] = x_k[higher], f[higher]
        better = per_image(f > f_max, x)
        x_max, g_max, f_max = where(better, x_k, x_max), where(better, g, g_max), f.maximum(f_max)
        active = active[~done]
        if len(active) == 0 or k == steps:
            break
        rises += f > f_last
        if k in reviews:
            halved = (rises < PROGRESS * (k - last)) | (~halved & (f_max == f_reviewed))
            eta = where(halved, eta / 2, eta)
            x_k, g = (where(per_image(halved, x), best, now) for best, now in ((x_max, x_k), (g_max, g)))
            f_reviewed, last = f_max, k
            rises.zero_()
        alpha = MOMENTUM if k else 1.0
        u = project(x_k + per_image(eta, x) * steepest(g, norm), x, eps, norm)
        x_k, x_last = project(x_k + alpha * (u - x_k) + (1 - alpha) * (x_k - x_last), x, eps, norm), x_k
    return where(per_image(won, x), x_adv, x_max), won


def checkpoints(steps: int) -> set[int]:
    r"""After how many steps the step size is reviewed: $w_j = \lceil p_j N \rceil$.

    $p_0 = 0, \; p_1 = 0.22, \; p_{j+1} = p_j + \max(p_j - p_{j-1} - 0.03, 0.06)$.

    >>> sorted(checkpoints(100))
    [0, 22, 41, 57, 70, 80, 87, 93, 99]
    """
    percents = [0, 22]
    while percents[-1] + 6 <= 100:
        percents.append(percents[-1] + max(percents[-1] - percents[-2] - 3, 6))
    return {-(-percent * steps // 100) for percent in percents}

r"""The fast adaptive boundary attack: walk along the decision boundary, drawn back to where the walk began.

Around the current point the model is taken for linear, so that the boundary is a plane; the nearest point of the plane
inside the range of images is found exactly.
"""

import torch
from torch import Tensor, nn, where

from spai_lab.checks import NORMS, check_choice, check_count, check_inputs, check_number
from spai_lab.threat import logits_of, margin, norms, per_image, value_and_gradient, warn_of_zeros


def fab(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    norm: str = "linf",
    steps: int = 100,
    classes: int = 9,
    alpha_max: float = 0.1,
    eta: float = 1.05,
    beta: float = 0.9,
    enough: float = 0.0,
    targeted: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Targeted fast adaptive boundary attack: the least distortion, sought along the boundary to each class in turn.

    $x_{k+1} = \mathrm{clip}_{[0, 1]}\left((1 - \alpha)(x_k + \eta \, \delta_k) + \alpha (x + \eta \, \delta)\right)$,
    where $\delta_k$ and $\delta$ lead from $x_k$ and from $x$ to the nearest point in [0, 1] of the plane
    $z_y + \nabla z_y \cdot (x' - x_k) = z_t + \nabla z_t \cdot (x' - x_k)$, and
    $\alpha = \min\left(\frac{\|\delta_k\|_p}{\|\delta_k\|_p + \|\delta\|_p}, \alpha_{\max}\right)$.
    A point beyond the boundary is kept if it is the nearest to $x$ so far; then the walk steps back,
    $x_{k+1} \leftarrow x + \beta (x_{k+1} - x)$.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        x: clean inputs, floating point `(N, C, H, W)` in [0, 1].
        y: labels `(N,)`, int64; the target classes if `targeted`.
        norm: the norm to keep small, "linf" or "l2".
        steps: number of steps toward each class, at least 1.
        classes: how many wrong classes are tried, the likeliest first; all where there are fewer. At least 1.
        alpha_max: the largest share of the pull back to `x`, from 0 to 1.
        eta: how far beyond the plane a step leads, at least 1.
        beta: how much of the way from `x` is left by a step back, above 0, at most 1.
        enough: a distance that will do, at least 0; an input that comes so near is done.
        targeted: look for the boundary of class `y`, from the class that the model sees in `x`.
        generator: not used, since nothing is random; here so that every attack is called alike.
    Returns:
        `x_adv`, like `x`, in [0, 1]; where nothing was found, and where the model is fooled by `x`, `x` itself.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Croce and Hein 2019, arXiv 1907.02044, algorithm 1; toward each class as in Croce and Hein 2020,
        arXiv 2003.01690.
    Survey: evasion, white-box; a part of AutoAttack.
    Simplified: no random restarts and no final search on the line to `x`; AutoAttack uses neither.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
    >>> _ = model[1].weight.data.copy_(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    >>> _ = model[1].bias.data.copy_(torch.tensor([-2.0, 0.0]))
    >>> x = torch.full((1, 2, 1, 1), 0.5)  # 1.5 / 7 from the line 3 a + 4 b = 2
    >>> round((fab(model, x, torch.tensor([0])) - x).abs().max().item(), 1)
    0.2
    """
    check_inputs(model, x, y, targeted=targeted, generator=generator)
    check_choice("norm", norm, NORMS)
    check_count("steps", steps)
    check_count("classes", classes)
    check_number("alpha_max", alpha_max, low=0, high=1)
    check_number("eta", eta, low=1)
    check_number("beta", beta, low=0, high=1, exclusive=True)
    check_number("enough", enough, low=0)
    x = x.detach()
    if len(x) == 0:
        return x.clone()
    warn_of_zeros(value_and_gradient(lambda x: margin(logits_of(model, x, y), y), x)[1])
    limits = {"alpha_max": alpha_max, "eta": eta, "beta": beta, "enough": enough}
    return walk_in_turn(model, x, y, classes, targeted=targeted, norm=norm, steps=steps, **limits)


@torch.no_grad()
def walk_in_turn(
    model: nn.Module, x: Tensor, y: Tensor, classes: int, *, targeted: bool = False, enough: float, **settings: object
) -> Tensor:
    """One `walk` for each target class; an input takes the nearest point, and stops where that is near `enough`."""
    logits = logits_of(model, x, y)
    source, targets = (logits.argmax(1), y[:, None]) if targeted else (y, likeliest_wrong(logits, y, classes))
    standing = ((logits.argmax(1) == y) != targeted).nonzero()[:, 0]
    x_adv, nearest = x.clone(), x.new_full((len(x),), torch.inf)
    for target in targets.T:
        if len(standing) == 0:
            break
        rows = (part[standing] for part in (x, source, target))
        found, distance = walk(model, *rows, targeted=targeted, enough=enough, **settings)
        closer = distance < nearest[standing]
        x_adv[standing[closer]], nearest[standing[closer]] = found[closer], distance[closer]
        standing = standing[nearest[standing] > enough]
    return x_adv


def likeliest_wrong(logits: Tensor, y: Tensor, classes: int) -> Tensor:
    """The classes other than `y` with the largest logits, at most `classes` of them, the likeliest first.

    >>> likeliest_wrong(torch.tensor([[4.0, 1.0, 3.0, 2.0]]), torch.tensor([0]), 2)
    tensor([[2, 3]])
    """
    wrong = logits.scatter(1, y[:, None], -torch.inf)
    return wrong.topk(min(classes, logits.shape[1] - 1), dim=1).indices


@torch.no_grad()
def walk(
    model: nn.Module,
    x: Tensor,
    source: Tensor,
    target: Tensor,
    *,
    norm: str,
    steps: int,
    alpha_max: float = 0.1,
    eta: float = 1.05,
    beta: float = 0.9,
    targeted: bool = False,
    enough: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """The walk toward one class for each input: the nearest point found and its distance, `x` and `inf` if none.

    An input whose distance is at most `enough` stops walking. A point is found when the model leaves `source`, or sees
    `target` if `targeted`.
    """
    x_out, nearest = x.clone(), x.new_full((len(x),), torch.inf)
    x_k, active = x.clone(), torch.arange(len(x), device=x.device)
    for _ in range(steps):
        here, origin, pair = x_k[active], x[active], torch.stack([source, target], 1)[active]

        def lead(x: Tensor, pair: Tensor = pair) -> Tensor:
            z = logits_of(model, x, pair[:, 0]).gather(1, pair)
            return z[:, 1] - z[:, 0]

        gap, w = value_and_gradient(lead, here)
        delta_k = to_plane(here, w, -gap, norm)
        delta = to_plane(origin, w, (w * (here - origin)).flatten(1).sum(1) - gap, norm)
        length_k, length = norms(delta_k, norm), norms(delta, norm)
        alpha = (length_k / (length_k + length).clamp_min(torch.finfo(x.dtype).tiny)).clamp_max(alpha_max)
        alpha = per_image(alpha, x)
        here = ((1 - alpha) * (here + eta * delta_k) + alpha * (origin + eta * delta)).clamp(0, 1)

        answer = logits_of(model, here, source[active]).argmax(1)
        beyond = answer == target[active] if targeted else answer != source[active]
        distance = norms(here - origin, norm)
        closer = beyond & (distance < nearest[active])
        x_out[active[closer]], nearest[active[closer]] = here[closer], distance[closer]
        x_k[active] = where(per_image(beyond, x), origin + beta * (here - origin), here)
        active = active[nearest[active] > enough]
        if len(active) == 0:
            break
    return x_out, nearest


def to_plane(x: Tensor, w: Tensor, c: Tensor, norm: str) -> Tensor:
    r"""The shortest step onto a plane that stays in the range of images, for each input.

    $\arg\min_\delta \|\delta\|_p$ with $w \cdot \delta = c$ and $x + \delta \in [0, 1]$. Each pixel moves the way that
    helps, $\delta_i = \pm \min(\lambda v_i, r_i)$, as far as there is room $r_i$, with $v_i = 1$ in L-inf and
    $v_i = |w_i|$ in L2. Since $w \cdot \delta = \sum_i |w_i| v_i \min(\lambda, r_i / v_i)$ rises with $\lambda$ and has
    its corners at $r_i / v_i$, sorting these finds the $\lambda$ at which it is c.

    Args:
        x: points `(N, ...)` in [0, 1].
        w: normals, like `x`.
        c: `(N,)`.
        norm: "linf" or "l2".
    Returns:
        the steps, like `x`; the plane is beyond the range where all the room is used up.

    >>> to_plane(torch.tensor([[0.5, 0.9]]), torch.tensor([[1.0, 2.0]]), torch.tensor([0.5]), "l2")
    tensor([[0.3000, 0.1000]])
    """
    info = torch.finfo(x.dtype)
    scale = w.abs().flatten(1).amax(1).clamp_min(info.tiny)
    w, c = w / per_image(where(c < 0, -scale, scale), x), c.abs() / scale
    room = where(w > 0, 1 - x, x)
    v = torch.ones_like(w) if norm == "linf" else w.abs()
    corner = where(v > info.eps, room / v, 0)
    level = rise((w.abs() * v).flatten(1), corner.flatten(1), c)
    return w.sign() * (per_image(level, x) * v).minimum(room)


def rise(slopes: Tensor, corners: Tensor, c: Tensor) -> Tensor:
    r"""Where $\sum_i a_i \min(\lambda, \tau_i)$, with slopes $a$ and corners $\tau$ `(N, d)`, reaches c, `(N,)`.

    The sum is concave, so that it lies below each of the lines that it consists of: it reaches c where the last of
    them does; the largest corner is where it ends.
    """
    corners, order = corners.sort(1)
    slopes = slopes.gather(1, order)
    filled = (slopes * corners).cumsum(1) - slopes * corners
    rising = slopes.flip(1).cumsum(1).flip(1)
    crossings = (c[:, None] - filled) / rising.clamp_min(torch.finfo(c.dtype).tiny)
    return crossings.amax(1).clamp(min=0).minimum(corners[:, -1])

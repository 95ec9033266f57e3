"""Spatial attacks: turn the image, shift it, or bend it; no pixel gets a value that was not in the picture."""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spai_lab.checks import (
    check_batch,
    check_classes,
    check_count,
    check_flag,
    check_inputs,
    check_number,
    check_steps,
    describe,
)
from spai_lab.query import Query, answered, check_query, log_scores
from spai_lab.threat import fooled, fresh_generator, logits_of, margin, value_and_gradient, warn_of_zeros

ROUNDING = 0.01  # pixels


def warp(x: Tensor, flow: Tensor) -> Tensor:
    r"""Read every pixel from another place of the image: $x'(p) = x(p + f(p))$.

    Between pixels the image is bilinear, $\sum_q x(q) (1 - |u - u_q|)(1 - |v - v_q|)$ over the four pixels q around
    (u, v); beyond its edges it is black. Differentiable in `x` and in `flow`.

    Args:
        x: images `(N, C, H, W)` in [0, 1].
        flow: $f = (\Delta u, \Delta v)$, `(N, 2, H, W)`, like `x` in dtype: pixels to the right, pixels down.
    Returns:
        like `x`, in [0, 1].
    Raises:
        ValueError: names the argument.
    Reference: Xiao et al. 2018, arXiv 1801.02612, equation 1.

    >>> x = torch.tensor([[[[0.0, 0.2, 1.0]]]])
    >>> flow = torch.tensor([0.5, 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 3)
    >>> warp(x, flow)
    tensor([[[[0.1000, 0.6000, 0.5000]]]])
    """
    check_pictures(x)
    n, _, height, width = x.shape
    check_numbers("flow", flow, (n, 2, height, width), x)
    v, u = torch.meshgrid(
        *(torch.arange(size, dtype=x.dtype, device=x.device) for size in (height, width)), indexing="ij"
    )
    u, v = u + flow[:, 0], v + flow[:, 1]
    places = torch.stack([(2 * u + 1) / width - 1, (2 * v + 1) / height - 1], dim=3)  # -1 and 1 are the outer edges
    read = F.grid_sample(x, places, mode="bilinear", padding_mode="zeros", align_corners=False)
    return read + (read.clamp(0, 1) - read).detach()  # rounding leaves neither the range nor a gap in the gradient


def transform(x: Tensor, angles: Tensor, shifts: Tensor) -> Tensor:
    r"""Turn each image about its center, then shift it.

    What was at (u, v), counted from the center, moves to $R(\theta) \, (u, v) + (\delta u, \delta v)$.

    Args:
        x: images `(N, C, H, W)` in [0, 1].
        angles: $\theta$, `(N,)`, in degrees, counterclockwise on the screen; like `x` in dtype.
        shifts: $(\delta u, \delta v)$, `(N, 2)`: pixels to the right, pixels down; like `x` in dtype.
    Returns:
        like `x`, in [0, 1]; what comes in from outside is black.
    Raises:
        ValueError: names the argument.
    Reference: Engstrom et al. 2017, arXiv 1712.02779, section 3.

    >>> x = torch.tensor([[[[0.0, 1.0, 0.5]]]])
    >>> transform(x, torch.tensor([0.0]), torch.tensor([[0.5, 0.0]]))
    tensor([[[[0.0000, 0.5000, 0.7500]]]])
    """
    check_pictures(x)
    n, _, height, width = x.shape
    check_numbers("angles", angles, (n,), x)
    check_numbers("shifts", shifts, (n, 2), x)
    down, right = (torch.arange(size, dtype=x.dtype, device=x.device) - (size - 1) / 2 for size in (height, width))
    u = right.view(1, 1, width) - shifts[:, 0].view(n, 1, 1)
    v = down.view(1, height, 1) - shifts[:, 1].view(n, 1, 1)
    cos, sin = (wave.view(n, 1, 1) for wave in (angles.deg2rad().cos(), angles.deg2rad().sin()))
    source = torch.stack([cos * u - sin * v, sin * u + cos * v], dim=1)  # R turned back; v points down
    return warp(x, source - torch.stack(torch.broadcast_tensors(right, down[:, None])))


def random_moves(
    x: Tensor, *, rotation: float = 30.0, shift: float = 3.0, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """An angle and a shift for each image, drawn uniformly; what `transform` takes.

    Args:
        x: images `(N, C, H, W)`.
        rotation: largest angle in degrees, either way.
        shift: largest shift in pixels, each way.
        generator: source of randomness; None draws a fresh one.
    Returns:
        angles `(N,)` in degrees and shifts `(N, 2)` in pixels, in the dtype of `x`.
    Raises:
        ValueError: names the argument.
    """
    check_limits(rotation, shift)
    generator = fresh_generator(generator, x.device)
    draws = 2 * torch.rand(len(x), 3, dtype=x.dtype, device=x.device, generator=generator) - 1
    return rotation * draws[:, 0], shift * draws[:, 1:]


def spatial(
    query: Query,
    x: Tensor,
    y: Tensor,
    *,
    rotation: float = 30.0,
    shift: float = 3.0,
    grid: tuple[int, int] = (31, 5),
    tries: int | None = None,
    targeted: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Rotation and translation: try a grid of them, or k at random, and keep the worst.

    $\max_{\theta, \delta u, \delta v} L(f(T_{\theta, \delta u, \delta v}(x)), y)$, with T as in `transform`, and as L
    the lead of the other classes over `y`, which is above 0 where the model misreads. A query that reveals scores or
    logits is asked for all of the grid and the largest L wins; one that reveals labels or the top few can tell only
    right from wrong, so that the first misread image wins and ends the search.

    Args:
        query: what the attacker may see of the model, at any level.
        x: clean images, floating point `(N, C, H, W)` in [0, 1].
        y: labels `(N,)`, int64; the target classes if `targeted`.
        rotation: largest angle in degrees, from 0 to 180, either way.
        shift: largest shift in pixels, at least 0, in each of the four directions.
        grid: how many angles, and how many shifts in each of the two directions, evenly spaced; `(31, 5)` are 775.
        tries: k, how many transformations to draw at random, for each image its own; None searches the grid.
        targeted: look for an image that is read as `y`.
        generator: source of the random transformations; None draws a fresh one.
    Returns:
        `x_adv`, like `x`, in [0, 1]: the worst found; the image as it was where it is misread already, or where labels
        showed no success. Not close to `x` in any norm. `query.exhausted` marks images that the cap stopped.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Engstrom et al. 2017, arXiv 1712.02779, section 3 (grid search, worst-of-k).
    Survey: evasion, black-box.
    Simplified: the margin of `y` takes the place of cross-entropy, so that the worst is misread if any is; the paper's
        first-order search is left out, since it found it weaker than the grid.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    >>> query = Query(model, "logits")
    >>> x = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    >>> spatial(query, x, model(x).argmax(1), shift=1, grid=(3, 3)).shape, query.counts
    (torch.Size([2, 1, 4, 4]), tensor([28, 28]))
    """
    check_query(query)
    check_inputs(query, x, y, targeted=targeted, generator=generator)
    check_pictures(x)
    check_limits(rotation, shift)
    check_search(grid, tries)
    sees_scores = query.reveals in ("scores", "logits")
    x_adv, worst = x.detach().clone(), torch.full(y.shape, -math.inf, dtype=x.dtype, device=x.device)
    active = torch.arange(len(x), device=x.device)

    def ask(candidates: Tensor) -> None:
        score = lead(query, candidates, y[active], active, targeted)
        better = score > worst[active]
        worst[active[better]], x_adv[active[better]] = score[better], candidates[better]

    active = active[query.afford(active)]
    if len(active):
        ask(x.detach()[active])
    active = active[worst[active] <= 0]
    moves = on_grid(x, rotation, shift, grid) if tries is None else at_random(x, rotation, shift, tries, generator)
    for angles, shifts in moves:
        active = active[query.afford(active)]
        if len(active) == 0:
            break
        ask(transform(x.detach()[active], angles[active], shifts[active]))
        if not sees_scores:
            active = active[worst[active] <= 0]
    return x_adv


def flow_field(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    tau: float = 0.05,
    kappa: float = 0.0,
    steps: int = 100,
    step_size: float = 0.1,
    drift: bool = True,
    targeted: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Spatially transformed adversarial examples (stAdv): bend the image by a flow that is as smooth as possible.

    $\min_f \; \max(\ell(x'), -\kappa) + \tau L_{flow}(f)$ with $x'(p) = x(p + f(p))$, where $\ell$ is the lead of `y`
    over the best other class (of the best other class over the target), and
    $L_{flow}(f) = \sum_p \sum_{q \in N(p)} \|f(p) - f(q)\|_2$ over the neighbors of each pixel.
    A shift of the whole image costs nothing by this measure: where one suffices, the flow found is close to one, unless
    `drift` is off.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        x: clean images, floating point `(N, C, H, W)` in [0, 1].
        y: labels `(N,)`, int64; the target classes if `targeted`.
        tau: weight of the smoothness, at least 0.
        kappa: by how many logits the wrong class shall lead, at least 0.
        steps: number of steps, at least 1.
        step_size: of Adam, in pixels, above 0; falls linearly to 0.
        drift: whether the flow may move the image as a whole too; False keeps the mean of f at 0, so that it must bend.
        targeted: bend towards the class `y` rather than away from it.
        generator: not used, since nothing is random; here so that every attack is called alike.
    Returns:
        `x_adv`, like `x`, in [0, 1]: of the images that fooled the model on the way the one with the smallest
        $L_{flow}$; the image as it was where it fools already, or where none was found. Not close to `x` in any norm.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Xiao et al. 2018, arXiv 1801.02612, equations 1 to 4.
    Survey: evasion, white-box.
    Simplified: Adam for a fixed number of steps instead of L-BFGS with a line search, so that a batch needs one loop;
        the flow is searched as a sum of coarse and fine ones, which reaches the same flows sooner; $L_{flow}$ is
        rounded off within `ROUNDING` pixels of its kinks; the best image on the way is kept instead of the last one; an
        untargeted form beside the paper's targeted one; black instead of the edge's color comes in from outside.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    >>> x = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    >>> flow_field(model, x, torch.tensor([0, 2]), steps=3).shape
    torch.Size([2, 1, 4, 4])
    """
    check_inputs(model, x, y, targeted=targeted, generator=generator)
    check_pictures(x)
    check_number("tau", tau, low=0)
    check_number("kappa", kappa, low=0)
    check_steps(steps, step_size)
    check_flag("drift", drift)
    x_adv = x.detach().clone()
    standing = (~fooled(model, x_adv, y, targeted=targeted)).nonzero()[:, 0]
    if len(standing) == 0:
        return x_adv
    x, y = x_adv[standing], y[standing]
    sizes = halvings(*x.shape[2:])
    parts = x.new_zeros(len(x), 2 * sum(map(math.prod, sizes)))
    smallest = torch.full(y.shape, math.inf, dtype=x.dtype, device=x.device)
    adam = torch.optim.Adam([parts], lr=step_size)

    def objective(parts: Tensor) -> Tensor:
        f = flow_of(parts, sizes)
        f = f if drift else f - f.mean((2, 3), keepdim=True)
        bent = warp(x, f)
        ell = margin(logits_of(model, bent, y), y) * (-1 if targeted else 1)
        size = flow_variation(f.detach())
        better = (ell < 0) & (ell <= -kappa) & (size < smallest)
        smallest[better], x_adv[standing[better]] = size[better], bent[better].detach()
        return ell.clamp_min(-kappa) + tau * flow_variation(f, rounding=ROUNDING)

    for k in range(steps):
        adam.param_groups[0]["lr"] = step_size * (1 - k / steps)
        parts.grad = value_and_gradient(objective, parts)[1]
        if k == 0:
            warn_of_zeros(parts.grad)
        adam.step()
    return x_adv


def flow_variation(flow: Tensor, *, rounding: float = 0.0) -> Tensor:
    r"""How unevenly a flow moves the pixels: $L_{flow}(f) = \sum_p \sum_{q \in N(p)} \|f(p) - f(q)\|_2$.

    N(p) are the up to four neighbors of p, so that each pair counts twice.

    Args:
        flow: `(N, 2, H, W)`, in pixels.
        rounding: r, in pixels, at least 0: above 0 counts $\sqrt{\|f(p) - f(q)\|_2^2 + r^2} - r$, differentiable at 0.
    Returns:
        `(N,)`, in pixels.
    Raises:
        ValueError: names the argument.
    Reference: Xiao et al. 2018, arXiv 1801.02612, equation 4.

    >>> flow_variation(torch.tensor([[[[0.0, 3.0]], [[0.0, 4.0]]]]))
    tensor([10.])
    """
    check_batch("flow", flow)
    check_number("rounding", rounding, low=0)
    squares = [flow.diff(dim=axis).square().sum(1).flatten(1) for axis in (2, 3)]
    return 2 * ((torch.cat(squares, dim=1) + rounding**2).sqrt() - rounding).sum(1)


def halvings(height: int, width: int) -> list[tuple[int, int]]:
    """The sizes of an image, halved again and again down to one pixel."""
    sizes = [(height, width)]
    while sizes[-1] != (1, 1):
        sizes.append(tuple((side + 1) // 2 for side in sizes[-1]))
    return sizes


def flow_of(parts: Tensor, sizes: list[tuple[int, int]]) -> Tensor:
    """The sum of flows of several sizes, which `parts` holds one after another, each stretched to the first size."""
    flows = parts.split([2 * math.prod(size) for size in sizes], dim=1)
    return sum(
        F.interpolate(flow.unflatten(1, (2, *size)), sizes[0], mode="bilinear")
        for flow, size in zip(flows, sizes, strict=True)
    )


def lead(query: Query, x: Tensor, y: Tensor, images: Tensor, targeted: bool) -> Tensor:
    """By how much the attacker leads, above 0 where it has won; 1 or -1 where the query reveals no scores."""
    if query.reveals in ("scores", "logits"):
        scores = log_scores(query, x, images)
        check_classes(y, scores)
        of_y = margin(scores, y)
    else:
        of_y = 2 * (answered(query, x, images) == y).to(x.dtype) - 1
    return of_y if targeted else -of_y


def on_grid(x: Tensor, rotation: float, shift: float, grid: tuple[int, int]) -> Iterator[tuple[Tensor, Tensor]]:
    """Every angle with every shift, each for all images."""
    angles, shifts = (
        limit * torch.linspace(-1, 1, count, dtype=x.dtype, device=x.device) if count > 1 else x.new_zeros(1)
        for limit, count in zip((rotation, shift), grid, strict=True)
    )
    for angle, right, down in torch.cartesian_prod(angles, shifts, shifts):
        yield angle.expand(len(x)), torch.stack([right, down]).expand(len(x), 2)


def at_random(
    x: Tensor, rotation: float, shift: float, tries: int, generator: torch.Generator | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """`tries` times a random angle and shift for each image."""
    generator = fresh_generator(generator, x.device)
    for _ in range(tries):
        yield random_moves(x, rotation=rotation, shift=shift, generator=generator)


def check_pictures(x: Tensor) -> None:
    """Raise `ValueError` unless `x` is a floating point batch `(N, C, H, W)`."""
    check_batch("x", x)
    if x.ndim != 4:
        raise ValueError(f"x is {describe(x)}; accepted: images (N, C, H, W)")


def check_numbers(name: str, value: Tensor, shape: tuple[int, ...], x: Tensor) -> None:
    """Raise `ValueError` unless `value` has this shape, and the dtype and device of `x`."""
    if not isinstance(value, Tensor) or value.shape != shape or value.dtype != x.dtype or value.device != x.device:
        raise ValueError(f"{name} is {describe(value)}; accepted: {describe(x.new_empty(shape))}, on the device of x")


def check_limits(rotation: float, shift: float) -> None:
    """Raise `ValueError` unless `rotation` is an angle up to 180 degrees and `shift` a number of pixels."""
    check_number("rotation", rotation, low=0, high=180)
    check_number("shift", shift, low=0)


def check_search(grid: tuple[int, int], tries: int | None) -> None:
    """Raise `ValueError` unless `grid` is two counts, and `tries` None or a count."""
    if not isinstance(grid, tuple | list) or len(grid) != 2:
        raise ValueError(f"grid is {describe(grid)}; accepted: two whole numbers, how many angles and how many shifts")
    check_count("grid[0], the angles,", grid[0])
    check_count("grid[1], the shifts,", grid[1])
    if tries is not None:
        check_count("tries", tries)

r"""Convex relaxation: bound each ReLU by two lines, and carry a linear bound of the logits back to the pixels.

Over $[l, u]$ with $l < 0 < u$, the line $\frac{u}{u - l} (z - l)$ lies above $\max(0, z)$, and $\alpha z$ below it for
any $\alpha \in [0, 1]$. Boxes forget how units depend on each other; these lines remember.
"""

import torch
from torch import Tensor, nn

from spai_lab.checks import check_ball, check_choice, check_inputs
from spai_lab.defenses.evasion.ibp import MATRIX, Box, check_scores, interval_bounds, layers_of
from spai_lab.models import Normalize

AFFINE = (Normalize, nn.Flatten, nn.AvgPool2d, *MATRIX)
AT_ONCE = 4096  # linear functions carried back together, which bounds the memory


def convex_relaxation(
    model: nn.Module, x: Tensor, y: Tensor, *, eps: float, slope: str = "adaptive", inner: str = "crown"
) -> Tensor:
    r"""Convex relaxation: lower bounds of the margins by linear bounds carried backward (CROWN, or the dual network).

    Starting from $\Lambda z = z_y - z_k$ at the logits, each affine layer gives $\Lambda \leftarrow \Lambda W$, each
    ReLU puts its lower line where $\Lambda \ge 0$ and its upper line elsewhere. At the pixels,
    $z_y - z_k \ge \Lambda x + d \ge \Lambda \mu + d - |\Lambda| r$ over the box with center $\mu$ and radius $r$.

    Args:
        model: `nn.Sequential`, nested or not, of Normalize, Flatten, Linear, Conv2d, AvgPool2d and ReLU.
        x: inputs, floating point `(N, C, H, W)` in [0, 1].
        y: labels `(N,)`, int64.
        eps: radius of the ball in L-inf, in pixel units of [0, 1].
        slope: of the lower line. "adaptive": 1 if $u > -l$, else 0 (CROWN); "dual": that of the upper line,
            $u / (u - l)$ (Wong and Kolter's dual network, the same bound as Fast-Lin).
        inner: where $l$ and $u$ of each ReLU come from. "crown": this same bound, from the first layer on;
            "ibp": `interval_bounds`, which is much faster and looser.
    Returns:
        `(N, K)`, 0 for `y` itself; for `verified(model, x, y, eps=eps, bound=convex_relaxation)`.
    Raises:
        ValueError: an argument is out of its range, or a layer is of another kind; names it.
    Reference: Zhang 2018, arXiv 1811.00866, theorem 3.2 and corollary 3.3; Wong and Kolter 2017, arXiv 1711.00851,
        theorem 1 and algorithm 1.
    Survey: defenses against evasion, certified.
    Simplified: L-inf and ReLU only; a bound, without the papers' search for the largest eps and without robust training
        on it. Sound but for the rounding of floating point numbers. On some networks a box is tighter than these lines.

    >>> from spai_lab.defenses.evasion.ibp import interval_margins
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 2, bias=False))
    >>> _ = model[1].weight.data.fill_(1.0), model[1].bias.data.copy_(torch.tensor([0.2, 0.1]))
    >>> _ = model[3].weight.data.copy_(torch.eye(2))
    >>> x, y = torch.full((1, 1, 1, 1), 0.5), torch.tensor([0])
    >>> [round(bound(model, x, y, eps=0.25)[0, 1].item(), 4) for bound in (interval_margins, convex_relaxation)]
    [-0.4, 0.1]
    """
    check_inputs(model, x, y)
    check_ball(x, eps, "linf")
    check_choice("slope", slope, ("adaptive", "dual"))
    check_choice("inner", inner, ("crown", "ibp"))
    layers = layers_of(model, (*AFFINE, nn.ReLU))
    boxes = interval_bounds(model, x, eps=eps)
    logits = boxes[-1][0]
    check_scores(logits, y)
    if inner == "crown":
        for i, layer in enumerate(layers):
            if isinstance(layer, nn.ReLU):
                boxes[i] = units(layers[:i], boxes, slope)
    of_class = torch.eye(logits.shape[1], dtype=x.dtype, device=x.device)
    return lower_bounds(of_class[y, None] - of_class, layers, boxes, slope)


def units(layers: list[nn.Module], boxes: list[Box], slope: str) -> Box:
    """Bounds of each unit that comes out of the layers: of the linear functions that pick it, and their negatives."""
    box = boxes[len(layers)]
    if sum(isinstance(layer, (nn.AvgPool2d, *MATRIX)) for layer in layers) <= 1:
        return box  # up to the first matrix intervals are exact
    images, shape = len(box[0]), box[0].shape[1:]
    picks = torch.eye(shape.numel(), dtype=box[0].dtype, device=box[0].device).view(-1, *shape)
    lower, upper = [], []
    for some in picks.split(max(1, AT_ONCE // max(1, images))):
        Lambda = some.expand(images, *some.shape)
        lower.append(lower_bounds(Lambda, layers, boxes, slope))
        upper.append(-lower_bounds(-Lambda, layers, boxes, slope))
    return torch.cat(lower, 1).view_as(box[0]), torch.cat(upper, 1).view_as(box[1])


def lower_bounds(Lambda: Tensor, layers: list[nn.Module], boxes: list[Box], slope: str) -> Tensor:
    """Lower bounds `(N, M)` of linear functions `(N, M, ...)` of what the layers give, over the box of pixels."""
    d = 0
    for layer, box in reversed(list(zip(layers, boxes, strict=False))):
        back = through_relu if isinstance(layer, nn.ReLU) else through_affine
        Lambda, constant = back(Lambda, layer, box, slope)
        d = d + constant
    lower, upper = boxes[0]
    return d + total(Lambda * (upper + lower)[:, None] / 2) - total(Lambda.abs() * (upper - lower)[:, None] / 2)


def through_affine(Lambda: Tensor, layer: nn.Module, box: Box, slope: str) -> tuple[Tensor, Tensor]:
    """Linear functions of what an affine layer gives, as functions of what it gets: its transpose, a backward pass."""
    images, functions = Lambda.shape[:2]
    origin = torch.zeros(images * functions, *box[0].shape[1:], dtype=Lambda.dtype, device=Lambda.device)
    b, transposed = torch.func.vjp(layer, origin)
    (before,) = transposed(Lambda.flatten(0, 1))
    return before.unflatten(0, (images, functions)), total(Lambda * b.unflatten(0, (images, functions)))


def through_relu(Lambda: Tensor, layer: nn.Module, box: Box, slope: str) -> tuple[Tensor, Tensor]:
    """Linear functions of what ReLU gives, as lower bounds that are linear in what it gets."""
    l, u = box[0].clamp_max(0)[:, None], box[1].clamp_min(0)[:, None]
    above = u / (u - l).clamp_min(torch.finfo(u.dtype).tiny)
    below = above if slope == "dual" else (u > -l).to(u.dtype)
    helps, harms = Lambda.clamp_min(0), Lambda.clamp_max(0)
    return helps * below + harms * above, -total(harms * above * l)


def total(values: Tensor) -> Tensor:
    """The sum over all units, `(N, M, ...)` to `(N, M)`."""
    return values.flatten(2).sum(2)

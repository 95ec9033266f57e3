"""Extraction by equations: a model's answers are equations in its parameters, and a few of them have one solution."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spai_lab.checks import check_count, check_images, describe, warn_suspicious
from spai_lab.models import Shape, check_shape
from spai_lab.query import Query, check_query
from spai_lab.threat import fresh_generator

Answer = Callable[[Tensor], Tensor]
HALVINGS = 10
STRAIGHT = 1e-9  # deviations from a straight line that rounding in float64 may explain, relative to the logits
NARROW = 1e-9  # bends of a line closer than this are not told apart
EXACT = 1e-6


@dataclass(frozen=True, eq=False)
class Extracted:
    """A copy of a model that was solved for, not trained.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`, in evaluation mode.
        queries: how many the attack asked, those that verify the copy included.
        residual: the largest deviation of the copy's logits from fresh answers, as a share of the largest of these;
            None if nothing was verified.
        complete: whether all parameters that the attack looks for were found; False too if fresh answers, where any
            were asked for, contradict the copy.
        rounding: by how much, at most, the rounding of the answers to `decimals` moved a weight; 0 if they are not
            rounded, infinite where an answer was rounded to 0.
    """

    model: nn.Module
    queries: int
    residual: float | None
    complete: bool = True
    rounding: float = 0.0


def extraction_equations(
    query: Query,
    shape: Shape,
    *,
    start: Tensor | None = None,
    checks: int = 0,
    dtype: torch.dtype = torch.float32,
    generator: torch.Generator | None = None,
) -> Extracted:
    r"""Solve for a logistic or softmax regression: d + 1 answers give all of its parameters.

    $\log p_k(x) - \log p_0(x) = w_k \cdot x + b_k$, linear in $(w_k, b_k)$, at $x_0$ and at $x_j = x_0 + s_j e_j$. So
    $w_{kj} = (z_k(x_j) - z_k(x_0)) / s_j$ and $b_k = z_k(x_0) - w_k \cdot x_0$.
    The softmax hides what all logits have in common, so class 0 is the reference, $w_0 = b_0 = 0$: the copy gives the
    same probabilities. Logits, if they are revealed, are copied as they are.

    One pixel is moved at a time, to the farther end of [0, 1]. So the logits stay near those of $x_0$, where no
    probability is 0 in floating point, and an error $\delta$ of each logit moves a weight by $2 \delta / |s_j|$ at
    most. A step that still makes a probability 0 is halved, up to ten times, and asked again, one more query each.

    Args:
        query: reveals "scores" or "logits"; all is asked on behalf of its image 0, so that a cap bounds the attack.
        shape: `(C, H, W)` of an input; d is their product.
        start: $x_0$, `(C, H, W)` in [0, 1], where no class should have probability 0; None takes the black image.
        checks: random images that verify the copy, on top of the d + 1. With none, whatever model answers has a
            linear "copy".
        dtype: of the victim; the equations are solved in float64, and the copy is in `dtype`.
        generator: draws the images that verify; None draws a fresh one.
    Returns:
        the copy, a linear layer of the raw pixels: a normalization inside the victim is part of it.
    Raises:
        ValueError: an argument is out of its range, or the cap does not suffice; names it.
    Reference: Tramèr 2016, arXiv 1609.02943, section 4.1.
    Survey: privacy, model extraction.
    Simplified: the paper asks about random inputs, and for K > 2 fits all K (d + 1) parameters by descent. Rounded
        answers are taken as they are; more of them than d + 1, in the sense of least squares, would average it out.

    >>> victim = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).double()
    >>> query = Query(victim, "scores")
    >>> copied = extraction_equations(query, (1, 2, 2), dtype=torch.float64).model[1]
    >>> bool((copied.weight[1] - victim[1].weight.diff(dim=0)).abs().max() < 1e-12), query.total
    (True, 5)
    """
    check_query(query, "scores", "logits")
    check_linear(shape, start, checks, dtype)
    d = math.prod(shape)
    check_affordable(query, d + 1 + checks)
    x_0 = torch.zeros(d, dtype=dtype) if start is None else start.detach().flatten()
    generator = fresh_generator(generator, x_0.device)
    asked = query.total
    x = torch.cat([x_0[None], x_0 + torch.diag(torch.where(x_0 <= 0.5, 1 - x_0, -x_0))])
    z, slack = equations(query, x.view(-1, *shape))
    for _ in range(HALVINGS):
        blind = (slack.isinf() & ~slack[:1].isinf()).any(1)
        if not blind.any() or not query.afford(torch.tensor([0]), int(blind.sum()) + checks):
            break
        x[blind] = (x[blind] + x_0) / 2
        z[blind], slack[blind] = equations(query, x[blind].view(-1, *shape))
    s = (x[1:] - x_0).diagonal().double()[:, None]
    W = (z[1:] - z[0]) / s
    b = z[0] - x_0.double() @ W
    rounding = ((slack[1:] + slack[0]) / s.abs()).max().item()
    model = linear(W.T, b).to(dtype).eval()
    residual = None
    if checks:
        x = torch.rand(checks, *shape, dtype=dtype, device=x.device, generator=generator)
        residual = deviation(model, x, equations(query, x)[0])
    sound = residual is None or residual <= max(EXACT, 100 * torch.finfo(dtype).eps, rounding)
    return Extracted(model, query.total - asked, residual, complete=sound, rounding=rounding)


def linear(W: Tensor, b: Tensor) -> nn.Module:
    """$W x + b$ of the flattened pixels x, with W `(K, d)`; nothing is drawn."""
    layer = nn.Linear(W.shape[1], W.shape[0], device="meta")
    layer.weight, layer.bias = nn.Parameter(W.clone()), nn.Parameter(b.clone())
    return nn.Sequential(nn.Flatten(), layer)


def equations(query: Query, x: Tensor) -> tuple[Tensor, Tensor]:
    r"""The right sides $z_k(x)$, `(N, K)` in float64, and how far the rounding of an answer may have moved each.

    A probability that was rounded to $\hat p$ is within h of it, half a unit of the last decimal, so its logarithm
    within $-\log(1 - h / \hat p)$. Where $\hat p$ is 0, nothing bounds the logarithm, and h / 2 stands for $\hat p$.
    """
    answer = ask(query, x).double()
    h = 0.0 if query.decimals is None else 0.5 * 10.0**-query.decimals
    if query.reveals == "logits":
        return answer, torch.full_like(answer, h)
    log_p = answer.clamp_min(max(h / 2, torch.finfo(answer.dtype).tiny)).log()
    slack = torch.where(answer > h, -torch.log1p(-h / answer), math.inf)
    slack = slack + slack[:, :1]
    slack[:, 0] = 0.0
    return log_p - log_p[:, :1], slack


def extraction_relu(
    query: Query,
    shape: Shape,
    *,
    hidden: int,
    patience: int = 500,
    checks: int = 100,
    generator: torch.Generator | None = None,
) -> Extracted:
    r"""Take a network with one hidden layer of ReLU apart: it bends where a unit turns on, and nowhere else.

    $f(x) = A_2 \, \mathrm{relu}(A_1 x + b_1) + b_2$. Along a line f is piecewise linear, with a bend where some
    $a_j \cdot x + b_j = 0$. Across it the Jacobian jumps by the rank-one matrix $J_+ - J_- = c_j \hat a_j^\top$, which
    gives the unit's row up to scale and sign, and its column of the outer layer to match. With
    $\mathrm{relu}(-z) = \mathrm{relu}(z) - z$ a wrong sign only adds a linear function, so that
    $f(x) = \sum_j c_j \, \mathrm{relu}(\hat a_j \cdot x - \beta_j) + M x + m$. Least squares give M and m; then
    $M = -\sum_j \sigma_j c_j \hat a_j^\top$ says which signs are wrong, $\sigma_j = 1$, and M vanishes.

    A unit that is on in the whole cube is part of M: then the copy keeps a linear part, and its signs are open. A unit
    that switches nowhere in the cube, or only in a corner that no line meets, is not found: `complete` is False, and
    the copy may be off where that unit switches, which the images that verify it need not show.

    Args:
        query: reveals "logits", not rounded, of a victim in float64; all is asked on behalf of its image 0.
        shape: `(C, H, W)` of an input.
        hidden: units of the hidden layer, which the attacker knows.
        patience: end after so many lines in a row that show no new unit.
        checks: random images that verify the copy, half of them near corners of the cube, at least 1.
        generator: draws lines and images; None draws a fresh one.
    Returns:
        the copy in float64. It is to be believed if `residual` is at most 1e-6; a larger one is warned about.
    Raises:
        ValueError: an argument is out of its range, or the cap does not suffice; names it.
    Reference: Jagielski 2019, arXiv 1909.01838, section 6; Milli 2018, arXiv 1807.05185.
    Survey: privacy, model extraction.
    Simplified: two layers only, answers in full precision. The outer columns come from the jumps rather than from
        least squares, which have no hold on a unit that is on in few of the images.

    >>> victim = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).double()
    >>> extracted = extraction_relu(Query(victim, "logits"), (1, 2, 2), hidden=3)
    >>> extracted.residual < 1e-6
    True
    """
    check_query(query, "logits")
    if query.decimals is not None:
        raise ValueError(f"query rounds to {query.decimals} decimals; accepted: one that does not, bends are fine")
    check_shape(shape, 2)
    for name, value in (("hidden", hidden), ("patience", patience), ("checks", checks)):
        check_count(name, value)
    d = math.prod(shape)
    generator = fresh_generator(generator, torch.device("cpu"))
    asked = query.total

    def f(x: Tensor) -> Tensor:
        check_affordable(query, len(x))
        return ask(query, x.view(-1, *shape))

    a, beta, c = units(f, d, hidden, patience, generator)
    x = torch.rand(2 * (d + 1), d, dtype=torch.float64, generator=generator)
    rest = f(x) - (x @ a.T - beta).relu() @ c
    solution = torch.linalg.lstsq(torch.cat([x, torch.ones_like(x[:, :1])], 1), rest).solution
    M, m = solution[:-1].T, solution[-1]
    wrong = wrong_signs(a, c, M)
    if wrong is not None:
        m = m - beta[wrong] @ c[wrong]
        sign = 1 - 2 * wrong.to(a.dtype)
        a, beta, M = sign[:, None] * a, sign * beta, None
    model = OneHiddenLayer(a, -beta, c.T, m, M).eval()
    x = torch.rand(checks, d, dtype=torch.float64, generator=generator)
    x[::2] = near_corners(x[::2], generator)
    residual = deviation(model, x, f(x))
    if not residual <= EXACT:
        warn_suspicious(
            f"The copy's logits are off by {residual:.1e} of the largest: units were missed, or the victim is no "
            f"network with one hidden layer of {hidden} units.",
            "11 (privacy attacks)",
        )
    complete = len(a) == hidden and wrong is not None and residual <= EXACT
    return Extracted(model, query.total - asked, residual, complete=complete)


class OneHiddenLayer(nn.Module):
    r"""$A_2 \, \mathrm{relu}(A_1 x + b_1) + b_2$, and $M x$ where M is given."""

    def __init__(self, A_1: Tensor, b_1: Tensor, A_2: Tensor, b_2: Tensor, M: Tensor | None = None) -> None:
        super().__init__()
        self.A_1, self.b_1, self.A_2, self.b_2 = (nn.Parameter(value.clone()) for value in (A_1, b_1, A_2, b_2))
        self.M = None if M is None else nn.Parameter(M.clone())

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        z = (x @ self.A_1.T + self.b_1).relu() @ self.A_2.T + self.b_2
        return z if self.M is None else z + x @ self.M.T


def units(f: Answer, d: int, hidden: int, patience: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    r"""The hyperplanes $\hat a_j \cdot x = \beta_j$ along which f bends, and the $c_j$ by which it does.

    Lines run between two points near corners, since the longest meet most hyperplanes. Units that are known are
    subtracted, so that a line without a new one is straight and costs five queries.

    Returns:
        $\hat a$ `(h, d)` of unit length, $\beta$ `(h,)` and c `(h, K)`, with h at most `hidden`.
    """
    ends = near_corners(torch.rand(2, d, dtype=torch.float64, generator=generator), generator)
    z = f(ends)
    a, beta, c, straight = ends[:0], ends[:0, 0], z[:0], STRAIGHT * float(z.abs().max())

    def rest(x: Tensor) -> Tensor:
        return f(x) - (x @ a.T - beta).relu() @ c

    futile = 0
    while len(a) < hidden and futile < patience:
        u, v = near_corners(torch.rand(2, d, dtype=torch.float64, generator=generator), generator)
        futile += 1
        for t, jump in bends(lambda t, u=u, v=v: rest(u + t[:, None] * (v - u)), straight):
            x = u + t * (v - u)
            known = len(a) == hidden or ((a @ x - beta).abs() <= EXACT).any()
            unit = None if known else unit_at(rest, x, v - u, jump)
            if unit is not None:
                a, c = torch.cat([a, unit[0][None]]), torch.cat([c, unit[1][None]])
                beta = torch.cat([beta, (unit[0] @ x)[None]])
                futile = 0
    return a, beta, c


def near_corners(x: Tensor, generator: torch.Generator) -> Tensor:
    """Points within a tenth of random corners of the cube: a corner pulled by a tenth to each of `x`, `(N, d)`."""
    corners = torch.randint(0, 2, x.shape, generator=generator)
    return 0.9 * corners + 0.1 * x


def bends(g: Answer, straight: float) -> Iterator[tuple[float, Tensor]]:
    r"""Where a piecewise linear curve, from t `(N,)` in [0, 1] to `(N, K)`, bends, and by how much its slope jumps.

    Intervals that deviate by at most `straight` from a line are done. On others the lines at both ends are prolonged:
    if they meet at a $t^*$ where the curve passes too, and it follows them on both sides, near and far, that is the
    only bend. Else each half is searched.
    """
    intervals = [(0.0, 1.0)]
    while intervals:
        a, b = intervals.pop()
        e = (b - a) / 8
        t = torch.tensor([a, a + e, (a + b) / 2, b - e, b], dtype=torch.float64)
        z = g(t)
        if (z - torch.lerp(z[0], z[4], ((t - a) / (b - a))[:, None])).abs().max() <= straight:
            continue
        left, right = (z[1] - z[0]) / e, (z[4] - z[3]) / e
        jump = right - left
        t_star = float((z[0] - left * a - z[4] + right * b) @ jump / (jump @ jump))
        if a + e <= t_star <= b - e:
            near = (b - a) / 10_000
            t = [(a + t_star) / 2, t_star - near, t_star, t_star + near, (t_star + b) / 2]
            t = torch.tensor(t, dtype=torch.float64)[:, None]
            lines = torch.where(t <= t_star, z[0] + left * (t - a), z[4] + right * (t - b))
            if (g(t[:, 0]) - lines).abs().max() <= straight:
                yield t_star, jump
                continue
        if b - a > NARROW:
            intervals += [(a, (a + b) / 2), ((a + b) / 2, b)]


def unit_at(f: Answer, x: Tensor, v: Tensor, jump: Tensor) -> tuple[Tensor, Tensor] | None:
    r"""The unit that turns on or off at x: $\hat a$ `(d,)` with $\hat a \cdot v > 0$, and c `(K,)`.

    Both Jacobians are difference quotients, at $x \pm \rho v$ with steps so short that no pixel crosses the bend. They
    are believed if their difference has rank one and jumps along v as the line did; else a smaller $\rho$ leaves other
    units' bends out. None if none is small enough.
    """
    inward = torch.where(x <= 0.5, 1.0, -1.0).to(x)
    for rho in (1e-2, 1e-3, 1e-4, 1e-5):
        sides = torch.stack([x - rho * v, x + rho * v])
        if sides.min() < 0 or sides.max() > 1:
            continue
        step = rho / 16
        around = torch.cat([torch.zeros_like(x)[None], torch.diag(step * inward)])
        z = f((sides[:, None] + around).flatten(0, 1)).unflatten(0, (2, -1))
        J = (z[:, 1:] - z[:, :1]) / (step * inward)[:, None]
        D = (J[1] - J[0]).T
        _, singular, rows = torch.linalg.svd(D, full_matrices=False)
        a_hat = rows[0] * torch.sign(rows[0] @ v)
        c = D @ a_hat
        rank_one = singular[1:].sum() <= EXACT * singular[0]
        same_jump = (c * (a_hat @ v) - jump).norm() <= EXACT * jump.norm()
        if rank_one and same_jump and step * a_hat.abs().max() <= rho * (a_hat @ v) / 2:
            return a_hat, c
    return None


def wrong_signs(a: Tensor, c: Tensor, M: Tensor) -> Tensor | None:
    r"""Which units turn off where $\hat a_j \cdot x$ grows, bool `(h,)`: the $\sigma$ in $M = -\sum_j \sigma_j c_j
    \hat a_j^\top$; None if no zeros and ones, or no single ones, solve it, as when a unit is on in the whole cube."""
    matrices = (c[:, :, None] * a[:, None, :]).flatten(1).T
    if len(a) == 0 or torch.linalg.matrix_rank(matrices) < len(a):
        return None
    sigma = -torch.linalg.lstsq(matrices, M.flatten()).solution
    wrong = sigma > 0.5
    rest = M + (matrices @ wrong.to(a.dtype)).view_as(M)
    return wrong if rest.norm() <= EXACT * matrices.norm() else None


@torch.no_grad()
def deviation(model: nn.Module, x: Tensor, z: Tensor) -> float:
    """The largest deviation of the model's logits from `z`, `(N, K)`, as a share of the largest of these."""
    return ((model(x).double() - z).abs().max() / z.abs().max().clamp_min(torch.finfo(z.dtype).tiny)).item()


def ask(query: Query, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
    """What the query reveals of `x`, all on behalf of image 0: its cap then bounds the whole attack."""
    return query(x, torch.zeros(len(x), dtype=torch.int64))


def check_affordable(query: Query, queries: int) -> None:
    """Raise `ValueError` unless so many more queries may be asked on behalf of image 0."""
    if not query.afford(torch.tensor([0]), queries):
        left = query.cap - int(query.counts[0])
        raise ValueError(f"query has a cap of {query.cap}, {left} left; accepted: at least {queries} more")


def check_linear(shape: Shape, start: Tensor | None, checks: int, dtype: torch.dtype) -> None:
    """Raise `ValueError` unless each argument of `extraction_equations` is in its range."""
    check_shape(shape, 2)
    check_count("checks", checks, low=0)
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype is {describe(dtype)}; accepted: torch.float32 or torch.float64")
    if start is not None:
        if not isinstance(start, Tensor) or start.shape != torch.Size(shape) or start.dtype != dtype:
            raise ValueError(f"start is {describe(start)}; accepted: {tuple(shape)}, {dtype}")
        check_images(start[None], "start")

"""Random search with scores alone: Square moves squares within a ball, one_pixel evolves a few pixels."""

import math
from bisect import bisect_left

import torch
import torch.nn.functional as F
from torch import Tensor

from spai_lab.checks import check_ball, check_classes, check_count, check_flag, check_inputs, check_number, describe
from spai_lab.query import Query, check_query, log_scores
from spai_lab.threat import fresh_generator, margin, per_image, project, steepest

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10,000 queries, as in the authors' program
WEIGHT = 0.5
ROWS = 1024  # shown to the model at a time


def square(
    query: Query,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    norm: str = "linf",
    queries: int = 5000,
    share: float = 0.8,
    targeted: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Square attack: change a random square, keep what lowers the loss, and let the squares shrink.

    $\hat x_{k+1} = \arg\min_{z \in \{\hat x_k,\, \Pi_{B(x, \epsilon)}(\hat x_k + \delta_k)\}} L(f(z), y)$, with
    $\delta_k$ on a square of side $h_k \approx \sqrt{p_k H W}$ and $L = z_y - \max_{i \ne y} z_i$, or cross-entropy
    to a target class. L-inf: after a start of vertical stripes, each channel of a square goes to one edge of the
    ball. L2: after a start of many bumps, one square's perturbation moves into another, where a bump is added to it.

    Args:
        query: reveals "scores" or "logits".
        x: clean inputs, floating point `(N, C, H, W)` in [0, 1].
        y: labels `(N,)`, int64; the target classes if `targeted`.
        eps: radius of the ball, in pixel units of [0, 1].
        norm: "linf" or "l2".
        queries: what each image may cost at most, the first look at `x` included, at least 1.
        share: p of the first squares, the share of pixels that they cover, above 0, at most 1.
        targeted: raise the score of `y` rather than lower it.
        generator: source of the squares; None draws a fresh one.
    Returns:
        `x_adv`, like `x`, in [0, 1] and within `eps` of `x`: the best so far where the queries ran out.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Andriushchenko 2019, arXiv 1912.00049, algorithms 1 to 3.
    Survey: evasion, black-box.
    Simplified: a square that would change nothing takes the opposite colors, where the authors draw again; in L2 it
        is at least 3 pixels wide, as theirs. The paper's p is between 0.05 and 0.8; 0.8 is what AutoAttack takes.

    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
    >>> x, y = torch.full((2, 1, 2, 2), 0.5), torch.tensor([0, 2])
    >>> bool((square(Query(model), x, y, eps=0.1, queries=20) - x).abs().max() <= 0.1 + 1e-6)
    True
    """
    check_ball(x, eps, norm)
    check_search(query, x, y, targeted, generator)
    check_count("queries", queries)
    check_number("share", share, low=0, high=1, exclusive=True)
    generator = fresh_generator(generator, x.device)
    start, change = {"linf": (stripes, recolor), "l2": (bumps, move)}[norm]
    x = x.detach()
    x_hat, loss = x.clone(), x.new_full((len(x),), math.inf)
    active, _ = first_look(query, x, y, targeted)
    for i in range(1, queries):
        active = active[query.afford(active)]
        if len(active) == 0:
            break
        center, labels = x[active], y[active]
        if i == 1:
            x_new = start(center, eps, generator)
        else:
            h = side(share, (i - 2) / queries, x)
            x_new = change(x_hat[active], center, eps, h, generator)
        scores = log_scores(query, x_new, active)
        done = reached(scores, labels, targeted)
        loss_new = F.cross_entropy(scores, labels, reduction="none") if targeted else margin(scores, labels)
        better = (done | (loss_new < loss[active])).nonzero()[:, 0]
        improved = active[better]
        x_hat[improved], loss[improved] = x_new[better], loss_new[better]
        active = active[~done]
    return x_hat


def one_pixel(
    query: Query,
    x: Tensor,
    y: Tensor,
    *,
    pixels: int = 1,
    population: int = 400,
    generations: int = 100,
    greedy: bool = False,
    targeted: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""One-pixel attack: a few pixels of any color, found by differential evolution.

    A candidate is $(row, column, color)$ for each pixel. In every generation each has a child
    $v_{r_1} + F (v_{r_2} - v_{r_3})$, made of three candidates drawn at random, with $F = 0.5$, and the child takes its
    place if it gives $y$ a lower probability (a higher one if `targeted`). An image is done once a child succeeds.

    Args:
        query: reveals "scores" or "logits".
        x: clean inputs, floating point `(N, C, H, W)` in [0, 1].
        y: labels `(N,)`, int64; the target classes if `targeted`.
        pixels: how many pixels may change, at least 1; a pixel has all C channels.
        population: candidates an image, at least 3; each generation costs it so many queries.
        generations: how often all candidates have a child, at least 0; the first candidates come before.
        greedy: take the best candidate as $v_{r_1}$, as the libraries do: better with few queries, sooner stuck.
        targeted: raise the probability of `y` rather than lower it.
        generator: source of candidates; None draws a fresh one.
    Returns:
        `x_adv`, like `x`, in [0, 1], at most `pixels` pixels from `x`: where nothing succeeded the best candidate, or
        `x` itself if none was better.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Su 2017, arXiv 1710.08864, section III.
    Survey: evasion, black-box.
    Simplified: nothing; where the paper is silent, a color that leaves [0, 1] is clipped, a place outside the image is
        drawn again, and the search stops as soon as the class is as wanted, not at a probability.

    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
    >>> x, y = torch.full((2, 1, 2, 2), 0.5), torch.tensor([0, 2])
    >>> x_adv = one_pixel(Query(model), x, y, population=10, generations=5)
    >>> bool(((x_adv != x).flatten(1).sum(1) <= 1).all())
    True
    """
    check_search(query, x, y, targeted, generator)
    for name, value, low in (("pixels", pixels, 1), ("population", population, 3), ("generations", generations, 0)):
        check_count(name, value, low=low)
    check_flag("greedy", greedy)
    generator = fresh_generator(generator, x.device)
    x = x.detach()
    active, scores = first_look(query, x, y, targeted)
    clean = x.new_zeros(len(x)).index_copy(0, active, fit(scores, y[active], targeted))
    parents = candidates(x, population, pixels, generator)
    fitness = x.new_full((len(x), population), math.inf)
    for generation in range(generations + 1):
        active = active[query.afford(active, population)]
        if len(active) == 0:
            break
        best = fitness[active].argmin(1) if greedy else None
        children = offspring(parents[active], best, generator) if generation else parents[active]
        labels = y[active].repeat_interleave(population)
        scores = judged(query, x, children, active)
        fit_new = fit(scores, labels, targeted).masked_fill(reached(scores, labels, targeted), -math.inf)
        fit_new = fit_new.view(-1, population)
        better = fit_new < fitness[active]
        parents[active] = torch.where(better[..., None, None], children, parents[active])
        fitness[active] = torch.where(better, fit_new, fitness[active])
        active = active[fit_new.amin(1) > -math.inf]
    champions = parents.take_along_dim(fitness.argmin(1).view(-1, 1, 1, 1), 1)
    improved = fitness.amin(1) < clean
    return torch.where(per_image(improved, x), painted(x, champions)[:, 0], x)


# --- what both share --------------------------------------------------------------------------------------------------


def check_search(query: Query, x: Tensor, y: Tensor, targeted: bool, generator: torch.Generator | None) -> None:
    """Raise `ValueError` unless the arguments that both searches share are in their range."""
    check_query(query, "scores", "logits")
    check_inputs(query, x, y, targeted=targeted, generator=generator)
    if x.ndim != 4:
        raise ValueError(f"x is {describe(x)}; accepted: images (N, C, H, W)")


def first_look(query: Query, x: Tensor, y: Tensor, targeted: bool) -> tuple[Tensor, Tensor]:
    """The images that are still to be attacked once each was asked about as it is, `(M,)`, and their scores."""
    images = torch.arange(len(x), device=x.device)
    images = images[query.afford(images)]
    if len(images) == 0:
        return images, x.new_zeros(0, 2)
    scores = log_scores(query, x[images], images)
    check_classes(y[images], scores)
    standing = ~reached(scores, y[images], targeted)
    return images[standing], scores[standing]


def reached(scores: Tensor, y: Tensor, targeted: bool) -> Tensor:
    """Whether the likeliest class is `y` if `targeted`, any other if not."""
    return (scores.argmax(1) == y) == targeted


# --- the squares ------------------------------------------------------------------------------------------------------


def side(share: float, progress: float, x: Tensor) -> int:
    r"""The side of the squares, $h \approx \sqrt{p H W}$, once a share `progress` of the queries is spent.

    >>> [side(0.8, progress, torch.zeros(1, 1, 28, 28)) for progress in (0.0, 0.01, 0.1, 0.9)]
    [25, 13, 6, 1]
    """
    p = share / 2 ** bisect_left(HALVINGS, int(10_000 * progress))
    height, width = x.shape[2:]
    return min(max(round(math.sqrt(p * height * width)), 1), height, width)


def signs(shape: tuple[int, ...], x: Tensor, generator: torch.Generator) -> Tensor:
    """-1 or 1 at random, in the dtype of `x`."""
    return 2 * torch.randint(2, shape, dtype=x.dtype, device=x.device, generator=generator) - 1


def window(x: Tensor, h: int, generator: torch.Generator) -> Tensor:
    """A random square of side `h` in each image, as places in the flattened channels: `(N, C, h * h)`."""
    n, c, height, width = x.shape
    row, column = (
        torch.randint(size - h + 1, (n, 1, 1), device=x.device, generator=generator) for size in (height, width)
    )
    steps = torch.arange(h, device=x.device)
    corner, square = row * width + column, (steps.unsqueeze(1) * width + steps).flatten()
    return (corner + square).expand(n, c, h * h)


def stripes(x: Tensor, eps: float, generator: torch.Generator) -> Tensor:
    """The start in L-inf: every column of every channel goes to one edge of the ball."""
    n, c, _, width = x.shape
    return edge(x, eps * signs((n, c, 1, width), x, generator))


def recolor(x_hat: Tensor, x: Tensor, eps: float, h: int, generator: torch.Generator) -> Tensor:
    r"""Algorithm 2: adding $\rho = \pm 2 \epsilon$ takes a square's channel, projected, to an edge of the ball."""
    place = window(x, h, generator)
    x_hat, square = x_hat.flatten(2), x.flatten(2).gather(2, place)
    rho = eps * signs((*x.shape[:2], 1), x, generator)
    new = edge(square, rho)
    unchanged = (new == x_hat.gather(2, place)).flatten(1).all(1)
    new = torch.where(per_image(unchanged, new), edge(square, -rho), new)
    return x_hat.scatter(2, place, new).view(x.shape)


def edge(x: Tensor, rho: Tensor) -> Tensor:
    """Where the ball in L-inf ends, or the range of images."""
    return (x + rho).clamp(0, 1)


def bumps(x: Tensor, eps: float, generator: torch.Generator) -> Tensor:
    """The start in L2: a grid of squares, a fifth of the image wide, with a bump of random sign in each."""
    n, c, height, width = x.shape
    h = max(min(height, width) // 5, 1)
    rows, columns = height // h, width // h
    tiles = signs((n, c, rows, columns, 1, 1), x, generator) * eta(h, (n, 1, rows, columns), x, generator)
    top, left = (height - rows * h) // 2, (width - columns * h) // 2
    delta = torch.zeros_like(x)
    delta[:, :, top : top + rows * h, left : left + columns * h] = tiles.transpose(3, 4).reshape(
        n, c, rows * h, columns * h
    )
    return project(x + eps * steepest(delta, "l2"), x, eps, "l2")


def move(x_hat: Tensor, x: Tensor, eps: float, h: int, generator: torch.Generator) -> Tensor:
    """Algorithm 3: the perturbation of one square, and what is left of eps, goes into a bump in another square."""
    n, c, height, width = x.shape
    h = min(max(h, 3) | 1, height, width)
    nu = (x_hat - x).flatten(2)
    w_1, w_2 = window(x, h, generator), window(x, h, generator)
    rho_eta = signs((n, c, 1), x, generator) * eta(h, (n, 1), x, generator).flatten(2)
    nu_temp = rho_eta + unit(nu.gather(2, w_1))
    rest = nu.scatter(2, w_1, 0).scatter(2, w_2, 0)
    unused = (eps**2 - nu.square().sum((1, 2), keepdim=True)).clamp_min(0)
    in_squares = (nu.square() - rest.square()).sum(2, keepdim=True)
    nu = rest.scatter(2, w_1, unit(nu_temp) * (in_squares + unused / c).sqrt())
    return project(x + nu.view(x.shape), x, eps, "l2")


def unit(values: Tensor) -> Tensor:
    """Each channel `(N, C, ...)` scaled to norm 1; zeros stay."""
    return F.normalize(values, dim=2, eps=torch.finfo(values.dtype).tiny)


def eta(h: int, shape: tuple[int, ...], x: Tensor, generator: torch.Generator) -> Tensor:
    """The paper's bump: a hill beside a hole, in a square of side `h`, norm 1, upright or lying at random."""
    halves = [half / half.norm() for half in (hill(h // 2, h, x), hill(h - h // 2, h, x))]
    upright = torch.cat([halves[0], -halves[1]])
    upright /= upright.norm()
    lying = torch.randint(2, (*shape, 1, 1), device=x.device, generator=generator).bool()
    return torch.where(lying, upright.T, upright)


def hill(rows: int, columns: int, x: Tensor) -> Tensor:
    r"""Equation 2: $\sum_{j=m}^{n} 1 / (j + 1)^2$ at distance $m$ from the middle, the larger of the two coordinates'.

    >>> hill(1, 3, torch.zeros(1))
    tensor([[0.2500, 1.2500, 0.2500]])
    """
    down, across = ((torch.arange(size, device=x.device) - size // 2).abs() for size in (rows, columns))
    terms = 1 / torch.arange(1, max(rows, columns) // 2 + 2, dtype=x.dtype, device=x.device) ** 2
    return terms.flip(0).cumsum(0).flip(0)[torch.maximum(down[:, None], across)]


# --- the pixels -------------------------------------------------------------------------------------------------------


def fit(scores: Tensor, y: Tensor, targeted: bool) -> Tensor:
    """What the candidates compete for, the lower the better: the log-odds of `y`, negated if `targeted`.

    The logarithm of the odds orders candidates as the probability does, and still tells them apart where that rounds
    to 1.
    """
    others = scores.scatter(1, y[:, None], -math.inf).logsumexp(1)
    log_odds = scores.gather(1, y[:, None])[:, 0] - others
    return -log_odds if targeted else log_odds


def candidates(x: Tensor, population: int, pixels: int, generator: torch.Generator) -> Tensor:
    """The first population, `(N, P, pixels, 2 + C)`: places uniform in [0, 1), Gaussian colors, as in the paper."""
    shape = (len(x), population, pixels)
    places = torch.rand(*shape, 2, dtype=x.dtype, device=x.device, generator=generator)
    colors = torch.randn(*shape, x.shape[1], dtype=x.dtype, device=x.device, generator=generator)
    return torch.cat([places, (0.5 + 0.5 * colors).clamp(0, 1)], dim=3)


def offspring(parents: Tensor, best: Tensor | None, generator: torch.Generator) -> Tensor:
    r"""Children $v_{r_1} + F (v_{r_2} - v_{r_3})$: of three drawn without replacement, or of `best` and two."""
    n, population = parents.shape[:2]

    def draw(low: int, high: int) -> Tensor:
        return torch.randint(low, high, (n, population, 1, 1), device=parents.device, generator=generator)

    first, second, third = draw(0, population), draw(1, population), draw(1, population - 1)
    third += third >= second  # the second and third count from the first, around the population
    one, two, three = (
        parents.take_along_dim((first + shift) % population, 1) for shift in (torch.zeros_like(first), second, third)
    )
    if best is not None:
        one = parents.take_along_dim(per_image(best, parents), 1)
    children = one + WEIGHT * (two - three)
    places, colors = children[..., :2], children[..., 2:]
    outside = (places < 0) | (places >= 1)
    anew = torch.rand(places.shape, dtype=places.dtype, device=places.device, generator=generator)
    return torch.cat([torch.where(outside, anew, places), colors.clamp(0, 1)], dim=3)


def painted(x: Tensor, candidates: Tensor) -> Tensor:
    """The images of the candidates `(N, P, pixels, 2 + C)`: `(N, P, C, H, W)`."""
    c, height, width = x.shape[1:]
    images = x[:, None].flatten(3).repeat(1, candidates.shape[1], 1, 1)
    row, column = (candidates[..., 0] * height).long(), (candidates[..., 1] * width).long()
    places = row.clamp_max(height - 1) * width + column.clamp_max(width - 1)
    for pixel in range(candidates.shape[2]):
        place = places[:, :, pixel, None, None].expand(-1, -1, c, 1)
        images.scatter_(3, place, candidates[:, :, pixel, 2:, None])
    return images.view(*candidates.shape[:2], c, height, width)


def judged(query: Query, x: Tensor, candidates: Tensor, images: Tensor) -> Tensor:
    """The scores of every candidate of these images, `(M * P, K)`, shown some images' at a time."""
    at_once = max(1, ROWS // candidates.shape[1])
    return torch.cat(
        [
            log_scores(query, painted(x[part], some).flatten(0, 1), part.repeat_interleave(candidates.shape[1]))
            for part, some in zip(images.split(at_once), candidates.split(at_once), strict=True)
        ]
    )

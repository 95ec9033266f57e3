r"""Objective perturbation: logistic regression whose objective gets a random slope before it is minimized.

The random slope b decides which weights are the minimum: for each w there is exactly one b that makes it one,
$b(w) = \sum_i y_i \sigma(-y_i w^\top x_i) x_i - n (\Lambda + \Delta) w$ with $y_i = \pm 1$. So the density of the
weights is known, $\nu(b(w)) \, |\det \partial b / \partial w|$, and what one record can change in it is a sum of two:

- the slope: a record adds a vector of length at most 1, so that $\|b - b'\| \le 2$ and $\nu$ changes by at most
  $e^{\epsilon'}$ for $\nu(b) \propto e^{-\epsilon' \|b\| / 2}$;
- the determinant, of $n (\Lambda + \Delta) 1 + \sum_i \sigma(m_i) \sigma(-m_i) x_i x_i^\top$: a record adds a matrix of
  rank 1 whose norm is at most c = 1/4, a factor from 1 to $1 + \frac{c}{n (\Lambda + \Delta)}$. The paper counts it
  for both records, $(1 + \frac{c}{n (\Lambda + \Delta)})^2$, though what is taken out can only lower it.

Add the logarithms: $\epsilon = \epsilon' + 2 \log(1 + \frac{c}{n (\Lambda + \Delta)})$.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spai_lab.checks import check_batch, check_callable, check_count, check_labels, check_number, describe
from spai_lab.models import check_shape
from spai_lab.privacy.guarantee import REPLACE, Guarantee, composed, labeled
from spai_lab.privacy.secure import check_source, secure_normal
from spai_lab.threat import fresh_generator

CURVATURE = 0.25  # c, the largest second derivative of the logistic loss
NEWTON_STEPS = 200
SLACK = 1e-6  # rows that are longer than 1 by float32's rounding are shortened rather than refused


class Release(Protocol):
    """Weights `(d,)` that were learned in private, and what is promised of them."""

    weights: Tensor
    guarantee: Guarantee


@dataclass(frozen=True, eq=False)
class PerturbedWeights:
    r"""What `objective_perturbation` learned.

    Args:
        weights: `(d,)`, float64, for inputs in the unit ball; above 0 for label 1.
        guarantee: of the weights alone.
        regularization: $\Lambda + \Delta$, which depends on no record.
        residual: an upper bound of the slope's length where the solver stopped, rounding included, at most `tolerance`.
            Not covered by the guarantee: a diagnostic for who holds the data.
        seeded: whether the noise came from a given generator: then it is a demonstration, not private.
    """

    weights: Tensor
    guarantee: Guarantee
    regularization: float
    residual: float
    seeded: bool = False

    def __str__(self) -> str:
        return f"{len(self.weights)} weights, {labeled(self.guarantee, self.seeded)}"


def objective_perturbation(
    x: Tensor,
    y: Tensor,
    *,
    epsilon: float,
    regularization: float,
    tolerance: float = 1e-9,
    solver_share: float = 0.01,
    secure: bool = False,
    generator: torch.Generator | None = None,
) -> PerturbedWeights:
    r"""Private logistic regression: tilt the objective at random, then minimize it.

    $\hat w = \arg\min_w \frac{1}{n} \sum_i \log(1 + e^{-y_i w^\top x_i}) + \frac{\Lambda + \Delta}{2} \|w\|^2 +
    \frac{1}{n} b^\top w$, with $\nu(b) \propto e^{-\epsilon' \|b\| / 2}$ and $\epsilon', \Delta$ from `noise_budget`.

    The proof speaks of the exact minimum, a solver ends near it: where the slope has the length r, no further than
    $\rho = \frac{r}{\Lambda + \Delta}$. So a second noise z of density $\propto e^{-\epsilon_2 \|z\| / (2 \rho)}$ hides
    which of the two was released, with $r$ = `tolerance`: moving by $\rho$ changes its density by at most
    $e^{\epsilon_2 / 2}$, once on each of two neighbors. In all $\epsilon = \epsilon_1 + \epsilon_2$, and $\delta$ is 0.

    Neighbors differ in one replaced record; n is public. Sensitivity: a record's slope is at most 1 long, since
    $\|x_i\| \le 1$ and $|\sigma| \le 1$, so that a replaced one moves their sum by at most 2.

    Args:
        x: inputs, floating point `(n, d)`, each of norm at most 1 (`unit_ball`).
        y: labels `(n,)`, int64, 0 or 1, for the paper's -1 and +1.
        epsilon: the budget for it all, above 0.
        regularization: $\Lambda$, above 0, fixed without a look at the data.
        tolerance: how long a slope may be where the solver stops, above 0; a longer one is refused.
        solver_share: $\epsilon_2 / \epsilon$, above 0 and below 1.
        secure: noise from the operating system's cryptographic source (`secure_normal`); takes no generator.
        generator: a seeded run is a demonstration, not private; None draws a fresh one.
    Returns:
        the weights, their guarantee, and the solver's residual.
    Raises:
        ValueError: names the argument; the solver stopped above `tolerance`.
    Reference: Chaudhuri et al. 2011, arXiv 0912.0071, algorithm 2 and theorem 9; Iyengar et al. 2019, "Towards
        practical differentially private convex optimization", section 3, for the idea of a second noise.
    Survey: differential privacy, function level.
    Simplified: the second noise has the first one's form, so that the guarantee stays pure, where Iyengar et al. take
        Gaussians. The proof is about real numbers: that both noises and the weights are floats is not covered, with
        `secure` or without. That the solver meets the tolerance is taken for granted, whatever the data.

    >>> x = torch.tensor([[0.9], [0.5], [-0.4], [-0.8]])
    >>> learned = objective_perturbation(x, torch.tensor([1, 1, 0, 0]), epsilon=1e4, regularization=0.1)
    >>> bool(learned.weights > 0), learned.residual < 1e-9
    (True, True)
    >>> print(learned.guarantee)
    epsilon 1e+04 at delta 0, one record replaced; covers the weights of a logistic regression
    """
    x, s = check_records(x, y)
    check_settings(epsilon, regularization, tolerance, solver_share)
    n, d = x.shape
    normals = normal_source(secure, generator)
    epsilon_2 = solver_share * epsilon
    epsilon_prime, Delta = noise_budget(n, epsilon=epsilon - epsilon_2, regularization=regularization)
    strength = regularization + Delta
    b = radial_noise(d, 2 / epsilon_prime, normals)
    w, residual = minimized(x, s, b, strength)
    if not residual <= tolerance:
        raise ValueError(
            f"tolerance is {tolerance:g}, the solver's residual at most {residual:.3g}; accepted: a tolerance above it"
        )
    rho = tolerance / strength
    z = radial_noise(d, 2 * rho / epsilon_2, normals)
    guarantee = Guarantee(epsilon, 0.0, REPLACE, ("the weights of a logistic regression",))
    return PerturbedWeights(w + z, guarantee, strength, residual, seeded=generator is not None)


def noise_budget(n: int, *, epsilon: float, regularization: float) -> tuple[float, float]:
    r"""What is left of the budget for the slope, and how much more regularization it takes if nothing is.

    $\epsilon' = \epsilon - 2 \log(1 + \frac{c}{n \Lambda})$ and $\Delta = 0$, if that is above 0; else
    $\Delta = \frac{c}{n (e^{\epsilon / 4} - 1)} - \Lambda$, which makes the determinant cost $\epsilon / 2$, and
    $\epsilon' = \epsilon / 2$.

    Args:
        n: number of records.
        epsilon: the budget, above 0.
        regularization: $\Lambda$, above 0.
    Returns:
        $\epsilon'$ and $\Delta$.
    Raises:
        ValueError: names the argument.
    Reference: Chaudhuri et al. 2011, arXiv 0912.0071, algorithm 2, with $c = 1/4$ for the logistic loss.

    >>> epsilon_prime, Delta = noise_budget(1000, epsilon=1.0, regularization=0.01)
    >>> round(epsilon_prime, 4), Delta
    (0.9506, 0.0)
    >>> epsilon_prime, Delta = noise_budget(1000, epsilon=0.01, regularization=0.01)
    >>> epsilon_prime, round(Delta, 4)
    (0.005, 0.0899)
    """
    check_count("n", n)
    check_number("epsilon", epsilon, low=0, exclusive=True)
    check_number("regularization", regularization, low=0, exclusive=True)
    epsilon_prime = epsilon - 2 * math.log1p(CURVATURE / (n * regularization))
    if epsilon_prime > 0:
        return epsilon_prime, 0.0
    return epsilon / 2, CURVATURE / (n * math.expm1(epsilon / 4)) - regularization


def released_log_density(w: Tensor, x: Tensor, y: Tensor, *, epsilon: float, regularization: float) -> Tensor:
    r"""The logarithm of the density of the exact minimum: $\log \nu(b(w)) + \log |\det \partial b / \partial w|$.

    Its difference between neighbors is the privacy loss of releasing w, at most `epsilon` everywhere.

    Args:
        w: weights, floating point `(M, d)`.
        x: inputs, floating point `(n, d)`, each of norm at most 1.
        y: labels `(n,)`, int64, 0 or 1.
        epsilon: the budget of the minimum, $\epsilon_1$, above 0.
        regularization: $\Lambda$, above 0.
    Returns:
        `(M,)`, float64.
    Raises:
        ValueError: names the argument.
    Reference: Chaudhuri et al. 2011, arXiv 0912.0071, proof of theorem 9.

    >>> x, w = torch.tensor([[0.5], [1.0]]), torch.linspace(-400, 400, 80001)[:, None]
    >>> p = released_log_density(w, x, torch.tensor([0, 1]), epsilon=1.0, regularization=0.5).exp()
    >>> round(torch.trapezoid(p, w[:, 0].double()).item(), 4)
    1.0
    """
    x, s = check_records(x, y)
    check_batch("w", w)
    n, d = x.shape
    if w.ndim != 2 or w.shape[1] != d:
        raise ValueError(f"w is {describe(w)}; accepted: floating point (M, {d})")
    epsilon_prime, Delta = noise_budget(n, epsilon=epsilon, regularization=regularization)
    strength, w = regularization + Delta, w.detach().double()
    m = s * (w @ x.T)
    b = (s * torch.sigmoid(-m)) @ x - n * strength * w
    curvatures = torch.sigmoid(m) * torch.sigmoid(-m)
    slopes = torch.einsum("mi,ij,ik->mjk", curvatures, x, x) + n * strength * torch.eye(d, dtype=x.dtype)
    log_constant = d * math.log(epsilon_prime / 2) + math.lgamma(d / 2) - math.lgamma(d)
    log_constant -= math.log(2) + d / 2 * math.log(math.pi)
    return log_constant - epsilon_prime / 2 * b.norm(dim=1) + torch.linalg.slogdet(slopes)[1]


def minimized(x: Tensor, s: Tensor, b: Tensor, strength: float) -> tuple[Tensor, float]:
    r"""The minimum of the perturbed objective by Newton's method, and a bound of the slope's length there.

    $w \leftarrow w - t H^{-1} g$, with t halved until the slope g is shorter; it ends where g is no longer than what
    rounding may have added to it, or no step shortens it.
    """
    n, d = x.shape
    w, eye = torch.zeros_like(b), torch.eye(d, dtype=x.dtype)
    g = slope(w, x, s, b, strength)
    for _ in range(NEWTON_STEPS):
        if g.norm() <= rounding(n, d, w, b, strength):
            break
        m = s * (x @ w)
        curvatures = torch.sigmoid(m) * torch.sigmoid(-m) / n
        H = x.T @ (curvatures[:, None] * x) + strength * eye
        step, t = torch.linalg.solve(H, g), 1.0
        while t > 1e-8 and slope(w - t * step, x, s, b, strength).norm() > (1 - t / 4) * g.norm():
            t /= 2
        if t <= 1e-8:
            break
        w = w - t * step
        g = slope(w, x, s, b, strength)
    return w, (g.norm() + rounding(n, d, w, b, strength)).item()


def rounding(n: int, d: int, w: Tensor, b: Tensor, strength: float) -> Tensor:
    r"""How far the computed slope may be from the true one: the standard bounds of sums and products, doubled.

    A product $w^\top x$ of d terms errs by $d u \|w\|$, which $\sigma$ quarters; the sum of n terms of length at most
    1 by $n u$, before it is divided by n; the rest by a few u of its length.
    """
    doubled = torch.finfo(w.dtype).eps  # u is half of it
    return doubled * (n + d / 4 * w.norm() + 4 * (b.norm() / n + strength * w.norm()))


def slope(w: Tensor, x: Tensor, s: Tensor, b: Tensor, strength: float) -> Tensor:
    r"""$g = -\frac{1}{n} \sum_i y_i \sigma(-y_i w^\top x_i) x_i + (\Lambda + \Delta) w + \frac{1}{n} b$, `(d,)`."""
    return (b - (s * torch.sigmoid(-s * (x @ w))) @ x) / len(x) + strength * w


def radial_noise(d: int, scale: float, normals: Callable[[int], Tensor]) -> Tensor:
    r"""A vector of density $\propto e^{-\|b\| / s}$: Gamma(d, s) long, in a uniform direction.

    $\|b\| = \frac{s}{2} \chi^2_{2 d}$, a sum of 2 d squared normals; the direction is that of d more.

    Args:
        d: its dimension.
        scale: s, above 0.
        normals: from a number to so many independent standard normals.
    Returns:
        `(d,)`, float64.

    >>> normals = normal_source(secure=False, generator=torch.Generator().manual_seed(0))
    >>> lengths = [radial_noise(5, 2.0, normals).norm().item() for _ in range(2000)]
    >>> abs(sum(lengths) / 2000 - 5 * 2.0) < 0.5
    True
    """
    z = normals(3 * d)
    return scale / 2 * z[d:].square().sum() * F.normalize(z[:d], dim=0)


def normal_source(secure: bool, generator: torch.Generator | None) -> Callable[[int], Tensor]:
    """Standard normals, float64: from the cryptographic source or from a generator, never from both."""
    check_source(secure, generator, torch.device("cpu"))
    if secure:
        return lambda count: secure_normal((count,), dtype=torch.float64)
    generator = fresh_generator(generator, torch.device("cpu"))
    return lambda count: torch.randn(count, generator=generator, dtype=torch.float64)


# --- data -------------------------------------------------------------------------------------------------------------


def unit_ball(x: Tensor, *, radius: float = 1.0, projection: Tensor | None = None) -> Tensor:
    r"""Inputs as rows of norm at most 1: $x \leftarrow \frac{P^\top x}{\max(r, \|P^\top x\|)}$.

    Each row is mapped by itself, with constants that nobody computed from the data: the map costs no budget. The mean,
    the largest norm or the principal axes of the records would.

    Args:
        x: inputs, floating point `(N, ...)`.
        radius: r, above 0: longer rows get norm 1, shorter ones are divided by r. Images of pixels in [0, 1] are almost
            always longer than 1.
        projection: P, floating point `(D, d)`, applied to the flattened rows first, such as `random_projection` or
            `pooling`; None keeps all D.
    Returns:
        `(N, d)`, float64.
    Raises:
        ValueError: names the argument.
    Survey: differential privacy, function level.

    >>> unit_ball(torch.tensor([[3.0, 4.0], [0.0, 0.5]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.5000]], dtype=torch.float64)
    """
    check_batch("x", x)
    check_ball_map(radius, projection)
    if not x.isfinite().all():
        raise ValueError("x contains NaN or infinite values; accepted: finite values")
    features = math.prod(x.shape[1:])
    if projection is not None and len(projection) != features:
        raise ValueError(f"projection is {describe(projection)}; accepted: ({features}, d), a row for each feature")
    return in_ball(x.detach(), radius, projection)


def in_ball(x: Tensor, radius: float, projection: Tensor | None) -> Tensor:
    """`unit_ball` without its checks; differentiable, so that attacks find their way through a model."""
    rows = x.flatten(1).double()
    if projection is not None:
        rows = rows @ projection.double()
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(radius)


def pooling(shape: tuple[int, int, int], size: int) -> Tensor:
    r"""Average pooling as a matrix for `unit_ball`: fewer dimensions without a look at the data.

    Args:
        shape: `(C, H, W)` of an image.
        size: pixels that are averaged in each direction, from 1 to the smaller of H and W.
    Returns:
        P, `(C H W, d)`, float64, with `P.T @ image` the pooled image.
    Raises:
        ValueError: names the argument.

    >>> pooling((1, 28, 28), 4).shape
    torch.Size([784, 49])
    """
    check_shape(shape, classes=2)
    check_count("size", size)
    check_number("size", size, low=1, high=min(shape[1:]))
    pixels = torch.eye(math.prod(shape), dtype=torch.float64)
    return F.avg_pool2d(pixels.view(-1, *shape), size).flatten(1)


def random_projection(inputs: int, outputs: int, *, generator: torch.Generator | None = None) -> Tensor:
    r"""A matrix that keeps distances about the same in fewer dimensions, drawn without a look at the data.

    Entries are $\mathcal{N}(0, 1/d)$, so that $E \|P^\top x\|^2 = \|x\|^2$. It is public: train and test share it.

    Args:
        inputs: D, at least 1.
        outputs: d, at least 1.
        generator: None draws a fresh one; a seed is no danger here, since nothing is hidden.
    Returns:
        P, `(D, d)`, float64.
    Raises:
        ValueError: names the argument.
    Reference: Johnson and Lindenstrauss 1984, "Extensions of Lipschitz mappings into a Hilbert space".

    >>> random_projection(784, 50).shape
    torch.Size([784, 50])
    """
    check_count("inputs", inputs)
    check_count("outputs", outputs)
    generator = fresh_generator(generator, torch.device("cpu"))
    return torch.randn(inputs, outputs, generator=generator, dtype=torch.float64) / math.sqrt(outputs)


def one_vs_rest(
    learn: Callable[..., Release], x: Tensor, y: Tensor, *, classes: int, epsilon: float
) -> tuple[Tensor, Guarantee]:
    r"""One private learner for each class against all others; each record is in all of them, so they share the budget.

    Basic composition: K releases of $\epsilon / K$ each are one of $\epsilon$.

    Args:
        learn: `(x, y, *, epsilon) -> Release`, such as `partial(objective_perturbation, regularization=0.01)`.
        x: inputs, floating point `(n, d)`, each of norm at most 1.
        y: labels `(n,)`, int64, from 0 to K - 1.
        classes: K, at least 2; with two classes one learner would do, at half the price.
        epsilon: the budget of all learners together, above 0.
    Returns:
        weights `(K, d)`, whose largest product with an input names its class, and the guarantee of them all.
    Raises:
        ValueError: names the argument.

    >>> from functools import partial
    >>> x, y = torch.eye(3).repeat(20, 1), torch.arange(3).repeat(20)
    >>> learn = partial(objective_perturbation, regularization=0.01)
    >>> weights, guarantee = one_vs_rest(learn, x, y, classes=3, epsilon=3e4)
    >>> (x.double() @ weights.T).argmax(1).equal(y), round(guarantee.epsilon)
    (True, 30000)
    """
    check_callable("learn", learn)
    check_count("classes", classes, low=2)
    check_number("epsilon", epsilon, low=0, exclusive=True)
    check_batch("x", x)
    check_labels(y, x)
    if len(y) and y.max() >= classes:
        raise ValueError(f"y has a label {y.max().item()}; accepted: 0 to {classes - 1}")
    releases = [learn(x, (y == k).long(), epsilon=epsilon / classes) for k in range(classes)]
    return torch.stack([release.weights for release in releases]), composed(*(each.guarantee for each in releases))


class LinearOnBall(nn.Module):
    r"""Private weights as a model like all others: from images in [0, 1], through `unit_ball`, to logits.

    Args:
        weights: `(d,)` for two classes, logits $\pm \frac{1}{2} w^\top x$; or `(K, d)`, K at least 2.
        radius, projection: as in `unit_ball`.
    Raises:
        ValueError: names the argument.

    >>> LinearOnBall(torch.tensor([2.0, 0.0]))(torch.tensor([[[[1.0, 0.0]]]]))
    tensor([[-1.,  1.]])
    """

    def __init__(self, weights: Tensor, *, radius: float = 1.0, projection: Tensor | None = None) -> None:
        super().__init__()
        check_ball_map(radius, projection)
        floating = isinstance(weights, Tensor) and weights.is_floating_point()
        if not floating or weights.ndim not in (1, 2) or (weights.ndim == 2 and len(weights) < 2):
            raise ValueError(f"weights is {describe(weights)}; accepted: floating point (d,) or (K, d), K at least 2")
        rows = torch.stack([-weights / 2, weights / 2]) if weights.ndim == 1 else weights
        self.radius = radius
        self.register_buffer("weights", rows.detach().double())
        self.register_buffer("projection", projection)

    def forward(self, x: Tensor) -> Tensor:
        return (in_ball(x, self.radius, self.projection) @ self.weights.T).to(x.dtype)


def check_ball_map(radius: float, projection: Tensor | None) -> None:
    """Raise `ValueError` unless `radius` is above 0 and `projection` None or a matrix."""
    check_number("radius", radius, low=0, exclusive=True)
    matrix = isinstance(projection, Tensor) and projection.is_floating_point() and projection.ndim == 2
    if projection is not None and not matrix:
        raise ValueError(f"projection is {describe(projection)}; accepted: floating point (D, d), or None")


def check_records(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs in float64, none longer than 1, and labels as -1 and +1; raise `ValueError` unless they are records."""
    check_batch("x", x)
    if x.ndim != 2 or len(x) == 0:
        raise ValueError(f"x is {describe(x)}; accepted: floating point (n, d), n at least 1")
    check_labels(y, x)
    if y.max() > 1:
        raise ValueError(f"y has a label {y.max().item()}; accepted: 0 and 1 (one_vs_rest takes more classes)")
    x = x.detach().double()
    longest = x.norm(dim=1).max().item()
    if not longest <= 1 + SLACK:
        raise ValueError(f"x has a row of norm {longest:.6g}; accepted: at most 1 (unit_ball maps into the ball)")
    return x / x.norm(dim=1, keepdim=True).clamp_min(1), (2 * y - 1).to(x)


def check_settings(epsilon: float, regularization: float, tolerance: float, solver_share: float) -> None:
    """Raise `ValueError` unless each setting of `objective_perturbation` is in its range."""
    check_number("epsilon", epsilon, low=0, exclusive=True)
    check_number("regularization", regularization, low=0, exclusive=True)
    check_number("tolerance", tolerance, low=0, exclusive=True)
    check_number("solver_share", solver_share, low=0, high=1, exclusive=True)
    if solver_share == 1:
        raise ValueError("solver_share is 1; accepted: below 1, the slope needs a budget too")

r"""Activations that encrypted networks can compute: the square, and polynomials that look like ReLU on an interval.

CKKS adds and multiplies, and does not compare, so that $\max(0, z)$ can only be approximated. CryptoNets takes
$z^2$ instead; others fit a polynomial p to ReLU on $[-a, a]$. Each doubling of its degree costs one more product in
sequence. Inside the interval p is as close as its degree allows; outside it grows like $|z|^d$, and a network whose
activations leave the interval computes nonsense. So they are kept inside while it is trained (`bounded`).

A polynomial is its coefficients, lowest first: $(c_0, c_1, ..., c_d)$.
"""

import math
from collections.abc import Callable

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from spai_lab.checks import check_count, check_number, describe

SQUARE = (0.0, 0.0, 1.0)
GRID = 20_001  # points of a dense grid, both ends and the middle among them
LARGEST_DEGREE = 16

Function = Callable[[np.ndarray], np.ndarray]
Coefficients = tuple[float, ...]


def relu(z: np.ndarray) -> np.ndarray:
    r"""$\max(0, z)$.

    >>> relu(np.array([-2.0, 3.0])).tolist()
    [0.0, 3.0]
    """
    return np.maximum(z, 0.0)


def evaluate(coefficients: Coefficients, z: np.ndarray) -> np.ndarray:
    r"""$p(z) = \sum_k c_k z^k$, by Horner's rule.

    >>> evaluate((1.0, 0.0, 2.0), np.array([0.0, 3.0])).tolist()
    [1.0, 19.0]
    """
    return horner(check_coefficients(coefficients), np.asarray(z, dtype=np.float64))


def horner(coefficients: Coefficients, z: np.ndarray | Tensor) -> np.ndarray | Tensor:
    r"""$c_0 + z (c_1 + z (c_2 + ...))$, for arrays and tensors alike."""
    total = coefficients[-1]
    for c in reversed(coefficients[:-1]):
        total = total * z + c
    return total


def products_in_sequence(degree: int) -> int:
    r"""The products of ciphertexts that stand one after another in a polynomial: $\lceil \log_2 d \rceil$.

    >>> [products_in_sequence(degree) for degree in (1, 2, 3, 4, 5)]
    [0, 1, 2, 2, 3]
    """
    check_count("degree", degree)
    return (degree - 1).bit_length()


# --- fits -------------------------------------------------------------------------------------------------------------


def least_squares(degree: int, a: float, function: Function = relu) -> Coefficients:
    r"""The polynomial whose mean squared error on $[-a, a]$ is least: $\min_c \sum_i (p(z_i) - f(z_i))^2$.

    On the grid $z_i = a t_i$ with $t_i$ even on $[-1, 1]$; it solves for $c_k a^k$, which are all of one size.

    Args:
        degree: d, from 1 to 16.
        a: half the interval, above 0.
        function: f, on arrays.
    Returns:
        $(c_0, ..., c_d)$.
    Raises:
        ValueError: names the argument.

    >>> np.round(least_squares(2, 1.0), 3).tolist()  # 3/32, 1/2 and 15/32
    [0.094, 0.5, 0.469]
    """
    check_degree(degree)
    z = grid(a)
    powers = np.vander(z / a, degree + 1, increasing=True)
    c = np.linalg.lstsq(powers, values_of(function, z), rcond=None)[0]
    return scaled(c, a)


def chebyshev(degree: int, a: float, function: Function = relu) -> Coefficients:
    r"""The Chebyshev series of f on $[-a, a]$, cut after degree d, whose largest error is not far from the least.

    $p(a t) = \sum_{k \le d} b_k T_k(t)$ with $b_k = \frac{2}{\pi} \int_0^\pi f(a \cos \theta) \cos k \theta \,
    d\theta$, half of that for $b_0$; the integral is a mean over even angles.

    Args:
        degree: d, from 1 to 16.
        a: half the interval, above 0.
        function: f, on arrays.
    Returns:
        $(c_0, ..., c_d)$.
    Raises:
        ValueError: names the argument.
    Reference: Trefethen 2013, "Approximation theory and approximation practice", chapters 3 and 16.

    >>> np.round(chebyshev(2, 1.0), 3).tolist()  # 1 / 3 pi, 1/2 and 4 / 3 pi
    [0.106, 0.5, 0.424]
    """
    check_degree(degree)
    check_number("a", a, low=0, exclusive=True)
    theta = (np.arange(GRID) + 0.5) * math.pi / GRID
    f = values_of(function, a * np.cos(theta))
    b = [2 * np.mean(f * np.cos(k * theta)) for k in range(degree + 1)]
    b[0] /= 2
    return scaled(np.polynomial.chebyshev.cheb2poly(b), a)


def scaled(c: np.ndarray, a: float) -> Coefficients:
    r"""From a polynomial in $t = z / a$ to one in z: $c_k a^{-k}$; a series that ends in zeros keeps them."""
    return tuple(float(c_k) / a**k for k, c_k in enumerate(c))


# --- inside and outside the interval ----------------------------------------------------------------------------------


def largest_error(coefficients: Coefficients, a: float, function: Function = relu) -> float:
    r"""$\max_{|z| \le a} |p(z) - f(z)|$, on a dense grid.

    Args:
        coefficients: of p.
        a: half the interval, above 0.
        function: f, on arrays.
    Returns:
        the error, in units of f.
    Raises:
        ValueError: names the argument.

    >>> largest_error((0.0, 1.0), 2.0)  # z itself, at -2
    2.0
    """
    z = grid(a)
    return float(np.abs(evaluate(coefficients, z) - values_of(function, z)).max())


def error_outside(coefficients: Coefficients, a: float, factor: float, function: Function = relu) -> float:
    r"""How wrong p is at $\pm r a$: $\max(|p(r a) - f(r a)|, |p(-r a) - f(-r a)|)$, which grows like $r^d$.

    Args:
        coefficients: of p, which was fitted on $[-a, a]$.
        a: half that interval, above 0.
        factor: r, at least 1.
        function: f, on arrays.
    Returns:
        the error, in units of f.
    Raises:
        ValueError: names the argument.

    >>> [round(error_outside(least_squares(4, 1.0), 1.0, r), 1) for r in (1, 2, 4)]
    [0.0, 4.2, 93.8]
    """
    check_number("a", a, low=0, exclusive=True)
    check_number("factor", factor, low=1)
    z = factor * a * np.array([-1.0, 1.0])
    return float(np.abs(evaluate(coefficients, z) - values_of(function, z)).max())


# --- in a network -----------------------------------------------------------------------------------------------------


class PolynomialActivation(nn.Module):
    r"""$z \mapsto p(z)$, entry by entry, in place of ReLU; meant for $[-a, a]$.

    Args:
        coefficients: of p; the square if left out.
        interval: a, above 0, in which `bounded` keeps the activations.
    Raises:
        ValueError: names the argument.
    Reference: Gilad-Bachrach et al. 2016, "CryptoNets", for the square.

    >>> import torch
    >>> PolynomialActivation()(torch.tensor([-2.0, 3.0]))
    tensor([4., 9.])
    """

    def __init__(self, coefficients: Coefficients = SQUARE, interval: float = 4.0) -> None:
        super().__init__()
        self.coefficients = check_coefficients(coefficients)
        check_number("interval", interval, low=0, exclusive=True)
        self.interval = float(interval)

    def forward(self, z: Tensor) -> Tensor:
        return horner(self.coefficients, z)

    def extra_repr(self) -> str:
        return f"{self.coefficients}, interval={self.interval:g}"


def with_activation(model: nn.Sequential, activation: nn.Module) -> nn.Sequential:
    """The same layers, which share their weights with the model, and another activation in place of each of its own.

    Args:
        model: layers in sequence, with `PolynomialActivation` or `nn.ReLU` between them.
        activation: what stands there instead.
    Returns:
        `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
    Raises:
        ValueError: there is no activation to replace.

    >>> with_activation(nn.Sequential(nn.Linear(2, 1), nn.ReLU()), PolynomialActivation())[1]
    PolynomialActivation((0.0, 0.0, 1.0), interval=4)
    """
    changes = [isinstance(layer, nn.ReLU | PolynomialActivation) for layer in model]
    if not any(changes):
        raise ValueError("model has no ReLU and no polynomial; accepted: layers with an activation between them")
    return nn.Sequential(*(activation if change else layer for layer, change in zip(model, changes, strict=True)))


def with_activations(model: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The logits, and what each polynomial activation reads, in order.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        x: inputs `(N, C, H, W)`.
    Returns:
        `(N, K)`, and one tensor for each activation; all differentiable.

    >>> import torch
    >>> model = nn.Sequential(nn.Flatten(), PolynomialActivation())
    >>> with_activations(model, torch.full((1, 1, 1, 2), 3.0))
    (tensor([[9., 9.]]), [tensor([[3., 3.]])])
    """
    read: list[Tensor] = []
    layers = [layer for layer in model.modules() if isinstance(layer, PolynomialActivation)]
    handles = [layer.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0])) for layer in layers]
    try:
        return model(x), read
    finally:
        for handle in handles:
            handle.remove()


def bounded(strength: float = 1.0) -> Callable[[nn.Module, Tensor, Tensor, float], Tensor]:
    r"""An objective for `fit` that keeps activations in their intervals: cross-entropy, and what sticks out, squared.

    $L + \lambda \sum_l \mathrm{mean} \max(0, |z_l| - a_l)^2$ over the polynomial activations l.

    Args:
        strength: $\lambda$, at least 0.
    Returns:
        `(model, x, y, t) -> loss`.
    Raises:
        ValueError: names the argument.
    Simplified: a penalty, no guarantee; `with_activations` tells what comes of it on other data.
    """
    check_number("strength", strength, low=0)

    def objective(model: nn.Module, x: Tensor, y: Tensor, t: float) -> Tensor:
        intervals = [layer.interval for layer in model.modules() if isinstance(layer, PolynomialActivation)]
        logits, read = with_activations(model, x)
        beyond = [F.relu(z.abs() - a).square().mean() for z, a in zip(read, intervals, strict=True)]
        return F.cross_entropy(logits, y) + strength * sum(beyond)

    return objective


# --- checks -----------------------------------------------------------------------------------------------------------


def grid(a: float) -> np.ndarray:
    """Points from -a to a; raise `ValueError` unless a is above 0."""
    check_number("a", a, low=0, exclusive=True)
    return a * np.linspace(-1, 1, GRID)


def values_of(function: Function, z: np.ndarray) -> np.ndarray:
    """What the function gives; raise `ValueError` unless that is a finite number for each entry."""
    f = np.asarray(function(z))
    if f.shape != z.shape or not np.isfinite(f).all():
        raise ValueError(f"function gives an array of shape {f.shape}; accepted: finite numbers, one for each of its z")
    return f


def check_degree(degree: int) -> None:
    """Raise `ValueError` unless the degree is from 1 to 16."""
    check_count("degree", degree)
    check_number("degree", degree, low=1, high=LARGEST_DEGREE)


def check_coefficients(coefficients: Coefficients) -> Coefficients:
    """The coefficients as floats; raise `ValueError` unless these are 2 to 17 finite numbers."""
    if not isinstance(coefficients, tuple | list) or not 2 <= len(coefficients) <= LARGEST_DEGREE + 1:
        raise ValueError(
            f"coefficients is {describe(coefficients)}; accepted: a tuple of 2 to {LARGEST_DEGREE + 1} numbers"
        )
    for k, c in enumerate(coefficients):
        check_number(f"coefficients[{k}]", c)
    return tuple(float(c) for c in coefficients)

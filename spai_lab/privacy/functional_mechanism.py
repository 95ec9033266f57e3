r"""The functional mechanism: logistic regression whose objective is released, with noise in its coefficients.

The loss of a record, with labels 0 and 1 and $m = \omega^\top x$, and its second-order Taylor polynomial at $m = 0$:

$\log(1 + e^m) - y m \approx \log 2 + (\frac{1}{2} - y) m + \frac{1}{8} m^2$.

Summed over the records it is $\omega^\top M \omega + \alpha^\top \omega + n \log 2$ with $M = \frac{1}{8} \sum_i x_i
x_i^\top$ and $\alpha = \sum_i (\frac{1}{2} - y_i) x_i$. All that the data say is in $M$ and $\alpha$; once these are
private, the minimum is too. (Completing the square, $\frac{1}{8} (m \mp 2)^2$: it is least squares with targets ±2.)
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from spai_lab.checks import check_choice, check_count, check_number
from spai_lab.privacy.guarantee import REPLACE, Guarantee, labeled
from spai_lab.privacy.mechanisms import laplace_mechanism
from spai_lab.privacy.objective_perturbation import check_records
from spai_lab.privacy.secure import check_source, discrete_laplace

BOUNDS = ("l2", "paper")
CELLS = 2**30  # steps of the secure noise's grid in one sensitivity


@dataclass(frozen=True, eq=False)
class NoisyPolynomial:
    r"""What the functional mechanism releases: all of it is covered by the guarantee.

    Args:
        weights: the minimum $\hat\omega$, `(d,)`, float64, for inputs in the unit ball; above 0 for label 1.
        guarantee: of the coefficients, thus of everything computed from them.
        alpha: $\alpha^*$, `(d,)`.
        M: $M^*$, `(d, d)`, symmetric, before it is repaired.
        regularization: $\lambda$, which was added to its diagonal.
        kept: how many eigenvalues of $M^* + \lambda 1$ are above 0; the other d - `kept` directions were cut off.
        seeded: whether the noise came from a given generator: then it is a demonstration, not private.
    """

    weights: Tensor
    guarantee: Guarantee
    alpha: Tensor
    M: Tensor
    regularization: float
    kept: int
    seeded: bool = False

    def __str__(self) -> str:
        return f"{len(self.weights)} weights, {labeled(self.guarantee, self.seeded)}"


def functional_mechanism(
    x: Tensor,
    y: Tensor,
    *,
    epsilon: float,
    bound: str = "l2",
    regularization: float | None = None,
    secure: bool = False,
    generator: torch.Generator | None = None,
) -> NoisyPolynomial:
    r"""Private logistic regression: noise in the coefficients of a polynomial loss, then its minimum.

    $\hat\omega = \arg\min_\omega \omega^\top (M^* + \lambda 1) \omega + \alpha^{*\top} \omega$, each coefficient of a
    monomial with noise $\mathrm{Lap}(\Delta / \epsilon)$: of $\omega_j$, of $\omega_j^2$, and of $\omega_j \omega_l$,
    $j < l$, which is $2 M_{jl}$. `minimum` repairs a polynomial that the noise has made unbounded.

    Neighbors differ in one replaced record; n is public. Sensitivity: $\Delta$ from `sensitivity`, in the L1 norm of
    all coefficients.

    Args:
        x: inputs, floating point `(n, d)`, each of norm at most 1 (`unit_ball`).
        y: labels `(n,)`, int64, 0 or 1.
        epsilon: the budget, above 0.
        bound: of the sensitivity, "l2" or the much larger one of the "paper".
        regularization: $\lambda$, at least 0, fixed without a look at the data; None takes the paper's, 4 standard
            deviations of the noise, $4 \sqrt{2} \Delta / \epsilon$.
        secure: exact noise from the operating system's cryptographic source (`secure_laplace`); takes no generator.
        generator: a seeded run is a demonstration, not private; None draws a fresh one.
    Returns:
        the weights, the noisy polynomial, and their guarantee.
    Raises:
        ValueError: names the argument.
    Reference: Zhang et al. 2012, arXiv 1208.0219, algorithms 1 and 2 (section 5.3), and section 6; Phan et al. 2016,
        "Differential privacy preservation for deep auto-encoders", AAAI, takes it to networks.
    Survey: differential privacy, function level.
    Simplified: logistic regression alone; Phan et al. approximate each layer of an auto-encoder in this way. Zhang et
        al. add the noise to each $M_{jl}$, $j \le l$, and copy it to $M_{lj}$, twice as much as the monomials need.

    >>> x = torch.tensor([[0.9], [0.5], [-0.4], [-0.8]])
    >>> learned = functional_mechanism(x, torch.tensor([1, 1, 0, 0]), epsilon=1e6)
    >>> bool(learned.weights > 0)
    True
    >>> print(learned.guarantee)
    epsilon 1e+06 at delta 0, one record replaced; covers the coefficients of a polynomial loss
    """
    check_records(x, y)
    check_number("epsilon", epsilon, low=0, exclusive=True)
    check_choice("bound", bound, BOUNDS)
    if regularization is not None:
        check_number("regularization", regularization, low=0)
    d = x.shape[1]
    Delta = sensitivity(d, bound)
    alpha, M = taylor_coefficients(x, y)
    j, l = torch.triu_indices(d, d)
    monomials = torch.where(j == l, 1.0, 2.0).double()  # how often M_jl stands in the sum
    exact = torch.cat([alpha, monomials * M[j, l]])
    check_source(secure, generator, x.device)
    if secure:
        noisy = secure_laplace(exact, sensitivity=Delta, epsilon=epsilon)
    else:
        noisy = laplace_mechanism(exact, sensitivity=Delta, epsilon=epsilon, generator=generator)
    alpha, M = noisy[:d], torch.zeros_like(M)
    M[j, l] = M[l, j] = noisy[d:] / monomials
    strength = 4 * math.sqrt(2) * Delta / epsilon if regularization is None else regularization
    weights, kept = minimum(alpha, M + strength * torch.eye(d, dtype=M.dtype))
    guarantee = Guarantee(epsilon, 0.0, REPLACE, ("the coefficients of a polynomial loss",))
    return NoisyPolynomial(weights, guarantee, alpha, M, strength, kept, seeded=generator is not None)


def taylor_coefficients(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    r"""The second-order polynomial of the logistic loss at $\omega = 0$, summed over the records.

    $\alpha = \sum_i (\frac{1}{2} - y_i) x_i$ and $M = \frac{1}{8} \sum_i x_i x_i^\top$; the constant is $n \log 2$.

    Args:
        x: inputs, floating point `(n, d)`, each of norm at most 1.
        y: labels `(n,)`, int64, 0 or 1.
    Returns:
        $\alpha$ `(d,)` and M `(d, d)`, float64. Not private.
    Raises:
        ValueError: names the argument.
    Reference: Zhang et al. 2012, arXiv 1208.0219, equation 10.

    >>> taylor_coefficients(torch.tensor([[1.0], [0.5]]), torch.tensor([1, 0]))
    (tensor([-0.2500], dtype=torch.float64), tensor([[0.1562]], dtype=torch.float64))
    """
    x, s = check_records(x, y)
    return -(s / 2) @ x, x.T @ x / 8


def sensitivity(d: int, bound: str = "l2") -> float:
    r"""By how much one replaced record moves the coefficients in the L1 norm, at most: $\Delta$.

    A record has $\alpha = \pm \frac{1}{2} x$ and $M = \frac{1}{8} x x^\top$. With $\|x\|_2 \le 1$ and
    $\|v\|_1 \le \sqrt{k} \, \|v\|_2$ for k numbers:

    - $\|\alpha - \alpha'\|_1 \le \sqrt{d} \, (\frac{1}{2} + \frac{1}{2})$;
    - $\|x x^\top - x' x'^\top\|_F^2 = \|x\|^4 + \|x'\|^4 - 2 (x^\top x')^2 \le 2$, so that
      $\|M - M'\|_1 \le \frac{1}{8} d \sqrt{2}$.

    So $\Delta = \sqrt{d} + \frac{\sqrt{2}}{8} d$. The paper knows of each feature only that it is at most 1:
    $\Delta = 2 (\frac{d}{2} + d + \frac{d^2}{8}) = \frac{d^2}{4} + 3 d$, where d for the label is counted beside the
    $\frac{d}{2}$ that it is subtracted from.

    Args:
        d: number of features, at least 1.
        bound: "l2", from the norm of the inputs, or "paper", from their largest feature.
    Returns:
        $\Delta$.
    Raises:
        ValueError: names the argument.
    Reference: Zhang et al. 2012, arXiv 1208.0219, section 5.3; the other bound is derived above.

    >>> [round(sensitivity(d)) for d in (1, 49, 784)], [round(sensitivity(d, "paper")) for d in (1, 49, 784)]
    ([1, 16, 167], [3, 747, 156016])
    """
    check_count("d", d)
    check_choice("bound", bound, BOUNDS)
    return d**2 / 4 + 3 * d if bound == "paper" else math.sqrt(d) + math.sqrt(2) / 8 * d


def secure_laplace(value: Tensor, *, sensitivity: float, epsilon: float) -> Tensor:
    r"""The Laplace mechanism for a vector without floats' holes: rounded to a grid, with discrete noise.

    On a grid of step $\gamma = \Delta / 2^{30}$ the k rounded entries of neighbors differ by at most
    $\frac{\Delta}{\gamma} + k$ steps in the L1 norm; the noise has that scale, divided by $\epsilon$.

    Args:
        value: floating point `(k,)`.
        sensitivity: $\Delta$ of all entries together, in the L1 norm, above 0.
        epsilon: above 0.
    Returns:
        `(k,)`, float64, on the grid.
    Reference: Canonne, Kamath and Steinke 2020, arXiv 2004.00010, section 5.

    >>> secure_laplace(torch.tensor([3.0, -1.0]), sensitivity=1.0, epsilon=1e5).round()
    tensor([ 3., -1.], dtype=torch.float64)
    """
    step = sensitivity / CELLS
    cells = (value.double() / step).round().long()
    return step * (cells + discrete_laplace((CELLS + len(value)) / epsilon, len(value))).double()


def minimum(alpha: Tensor, M: Tensor) -> tuple[Tensor, int]:
    r"""The minimum of $\omega^\top M \omega + \alpha^\top \omega$ over the directions in which it has one.

    $\hat\omega = -\frac{1}{2} \sum_{k: \lambda_k > 0} \frac{q_k^\top \alpha}{\lambda_k} q_k$ with eigenvalues
    $\lambda_k$ and eigenvectors $q_k$ of M: where the polynomial curves down or not at all it is cut off.
    Drawing new noise until M is positive would double the budget; this costs nothing.

    Args:
        alpha: `(d,)`.
        M: `(d, d)`, symmetric.
    Returns:
        $\hat\omega$, `(d,)`, and how many eigenvalues are above 0; zeros if none is.
    Reference: Zhang et al. 2012, arXiv 1208.0219, section 6.2 (spectral trimming) and lemma 5 (drawing again).

    >>> minimum(torch.tensor([-4.0, 4.0]), torch.diag(torch.tensor([2.0, -1.0])))
    (tensor([1., 0.]), 1)
    """
    eigenvalues, Q = torch.linalg.eigh(M)
    positive = eigenvalues > 0
    Q = Q[:, positive]
    return Q @ (Q.T @ -alpha / (2 * eigenvalues[positive])), int(positive.sum())

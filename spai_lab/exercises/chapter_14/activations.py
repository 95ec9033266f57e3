"""A polynomial in place of ReLU, as close to it on an interval as its degree allows."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.polynomial import Legendre, Polynomial
from numpy.polynomial.polynomial import polyval
from torch import Tensor

from spai_lab.checks import describe
from spai_lab.crypto.polynomials import chebyshev, least_squares, relu
from spai_lab.exercises.chapter_14.salaries import CHAPTER
from spai_lab.exercises.exercise import Exercise, Fault, call

AT = np.linspace(-1, 1, 9)  # where polynomials are compared, in units of a
INTERVALS = ((2, 1.0), (2, 4.0), (4, 3.0), (3, 0.5), (6, 8.0))


def my_polynomial_relu(degree, a):
    """The polynomial whose mean squared distance to ReLU on [-a, a] is the least.

    degree: of the polynomial, at least 1.
    a: half the interval, above 0.
    Returns the degree + 1 coefficients, the constant one first.
    """
    z = np.linspace(-a, a, 2001)
    powers = z[:, None] ** np.arange(degree + 1)
    return np.linalg.lstsq(powers, np.maximum(z, 0), rcond=None)[0]


def reverses_the_order(degree, a):
    """It lists the highest power first, as `np.polyfit` does; asked is the constant first: `[::-1]`."""
    return least_squares(degree, a)[::-1]


def fits_on_the_unit_interval(degree, a):
    """It fits on [-1, 1] whatever a is; activations come from -a to a, and outside its interval a fit grows wild."""
    return least_squares(degree, 1.0)


def forgets_to_scale_back(degree, a):
    """Its coefficients are for z / a, as those of `Polynomial.fit` until `.convert()`; divide the k-th by a^k."""
    return [c * a**k for k, c in enumerate(least_squares(degree, a))]


def scales_the_wrong_way(degree, a):
    """It multiplies the k-th coefficient by a^k where it should divide: the polynomial takes z a in place of z / a."""
    return [a * c * a**k for k, c in enumerate(least_squares(degree, 1.0))]


def scales_the_argument_alone(degree, a):
    """It puts z / a into the fit for [-1, 1], and forgets that ReLU grows as well: multiply the polynomial by a."""
    return [c / a**k for k, c in enumerate(least_squares(degree, 1.0))]


def fits_the_positive_side(degree, a):
    """It fits where z is above 0 alone, and finds z itself; half of the activations are below 0, from -a on."""
    return [0.0, 1.0, *[0.0] * (degree - 1)]


def fits_the_absolute_value(degree, a):
    """It fits |z|; ReLU is (z + |z|) / 2, and 0 below 0."""
    return least_squares(degree, a, np.abs)


def passes_through_few_points(degree, a):
    """It goes through degree + 1 even points, and swings between them; fit many points, by least squares."""
    z = np.linspace(-a, a, degree + 1)
    return np.linalg.solve(np.vander(z, increasing=True), relu(z))


def cuts_the_chebyshev_series(degree, a):
    """It cuts the Chebyshev series, for which errors near the ends count more; at even points each z counts alike."""
    return chebyshev(degree, a)


def projects_on_each_power(degree, a):
    """It finds each coefficient alone; powers of z are not orthogonal, so solve for all of them at once."""
    z = np.linspace(-a, a, 2001)
    return [np.mean(relu(z) * z**k) / np.mean(z ** (2 * k)) for k in range(degree + 1)]


def stays_in_legendre_polynomials(degree, a):
    """Its coefficients are those of Legendre polynomials in z / a; turn them into powers of z."""
    return Polynomial(least_squares(degree, a)).convert(kind=Legendre, domain=[-a, a], window=[-1, 1]).coef


def intervals() -> list[dict]:
    """Degrees even and odd, on intervals of several sizes."""
    return [{"degree": degree, "a": a} for degree, a in INTERVALS]


def projected(degree: int) -> Polynomial:
    r"""On $[-1, 1]$, in closed form: $\sum_k \frac{2 k + 1}{2} \left(\int_0^1 t P_k(t) \, dt\right) P_k$."""
    basis = [Legendre.basis(k).convert(kind=Polynomial) for k in range(degree + 1)]
    shares = [(Polynomial([0, 1]) * P).integ()(1) for P in basis]
    return sum((2 * k + 1) / 2 * share * P for k, (share, P) in enumerate(zip(shares, basis, strict=True)))


def by_legendre(degree, a) -> np.ndarray:
    """The best polynomial's values in units of a, which are the same for all a."""
    return projected(degree)(AT)


# --- how an answer is judged


def as_coefficients(result: object, degree: int) -> np.ndarray:
    """The coefficients, float64.

    Raises:
        Fault: these are no degree + 1 finite numbers.
    """
    if result is None:
        raise Fault("It returns None: is the `return` missing?")
    try:
        values = result.detach().numpy() if isinstance(result, Tensor) else np.asarray(result)
        c = values.real.astype(np.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise Fault(f"It returns {describe(result)}; expected {degree + 1} numbers, the coefficients.") from error
    if c.ndim != 1 or len(c) != degree + 1:
        came = f"{len(c)} numbers" if c.ndim == 1 else describe(result)
        raise Fault(
            f"For `degree = {degree}` it returns {came}; expected {degree + 1}, from that of 1 to that of z^{degree}."
        )
    if np.iscomplexobj(values) or not np.isfinite(c).all():
        raise Fault("One of its coefficients is infinite, NaN or complex.")
    return c


def values(answer: Callable, degree, a) -> Tensor:
    """The polynomial of the answer in units of a."""
    c = as_coefficients(call(answer, degree=degree, a=a), degree)
    return torch.from_numpy(polyval(AT * a, c) / a)


def farther_than_needed(result: np.ndarray, degree, a) -> str:
    """Where the polynomial is farthest from the best one."""
    best = by_legendre(degree, a)
    i = np.abs(result - best).argmax()
    return (
        f"For `degree = {degree}, a = {a:g}` its polynomial is {a * result[i]:.4g} at z = {a * AT[i]:g}, where ReLU is "
        f"{max(0.0, a * AT[i]):g} and the best polynomial {a * best[i]:.4g}."
    )


polynomial_relu = Exercise(
    chapter=CHAPTER,
    task=r"""
        **ReLU for those who can only add and multiply.** CKKS does not compare with 0, but polynomials can be
        computed. The one of degree $d$ that is closest to ReLU on $[-a, a]$ has the coefficients

        $$\arg\min_{c_0, \dots, c_d} \int_{-a}^{a} \left( \sum_{k=0}^{d} c_k z^k - \max(0, z) \right)^2 dz.$$

        Write `my_polynomial_relu(degree, a)`: these coefficients, $c_0$ first. In place of the integral, a sum over a
        thousand or more even points from $-a$ to $a$ is exact enough. NumPy may do the rest.
    """,
    solution=my_polynomial_relu,
    truth=by_legendre,
    cases=intervals,
    tested="degrees 2, 3, 4 and 6 on intervals from 0.5 to 8, at 9 points, against the closed form, within 0.01 a",
    hints=(
        "Take many even points z from -a to a, and ask for coefficients with which the polynomial is near "
        "`np.maximum(z, 0)` at all of them: more equations than unknowns, a case for least squares.",
        "A row of equations is `z ** np.arange(degree + 1)`; `np.linalg.lstsq(powers, values, rcond=None)[0]` solves "
        "them.",
        "`np.polyfit(z, np.maximum(z, 0), degree)` does both, and lists the highest power first.",
    ),
    mistakes=(
        reverses_the_order,
        fits_on_the_unit_interval,
        forgets_to_scale_back,
        scales_the_wrong_way,
        scales_the_argument_alone,
        fits_the_positive_side,
        fits_the_absolute_value,
        passes_through_few_points,
        cuts_the_chebyshev_series,
        projects_on_each_power,
        stays_in_legendre_polynomials,
    ),
    call=values,
    look=farther_than_needed,
    tolerance=0.01,
)

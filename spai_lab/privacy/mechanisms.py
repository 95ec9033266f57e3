r"""Mechanisms: randomized response, Laplace, Gaussian, exponential; how a number is told without telling on anybody.

Each holds for all pairs of neighbors whose answers differ by at most the sensitivity $\Delta$. Which data are
neighbors, one record added or removed or one replaced, is decided where $\Delta$ is computed: a count has $\Delta = 1$
for both, a sum of values in [a, b] has max(|a|, |b|) for "add/remove" and b - a for "replace". The `Guarantee` of a
call is its `epsilon` and `delta_dp` (0 but for the Gaussian) with that adjacency. A run with a `generator` is a
demonstration, not private. A `generator=None` seeds PyTorch's own from the operating system; `secure=True` leaves both
that generator and floats behind, as `secure` explains. So that no float overflows, a sensitivity is from 1e-30 to
1e30, and the epsilon of noise or of a choice from 1e-12 to 1e12.
"""

import math
from fractions import Fraction

import torch
from scipy.special import log_ndtr, ndtr
from torch import Tensor

from spai_lab.checks import check_choice, check_count, check_number, describe
from spai_lab.privacy.secure import SCALES, check_source, exact_choice, exactly, gaussian_integer, laplace_integer
from spai_lab.threat import fresh_generator

CALIBRATIONS = ("analytic", "classic")
CELLS = 2**20  # secure mechanisms round a number to so many steps a sensitivity
CLOSE = 1e-12  # relative; how near a calibrated sigma comes to the least one
EPSILONS = {"low": 1e-12, "high": 1e12}

Value = float | Tensor


# --- one of a few classes ---------------------------------------------------------------------------------------------


def truth_probability(classes: int, epsilon: float) -> float:
    r"""How often randomized response tells the truth: $p = \frac{e^\epsilon}{e^\epsilon + k - 1}$.

    Args:
        classes: k, at least 2.
        epsilon: $\epsilon$, at least 0; 0 tells nothing.
    Returns:
        p, from 1 / k to 1.
    Raises:
        ValueError: names the argument.

    >>> round(truth_probability(2, math.log(3)), 4)
    0.75
    """
    check_count("classes", classes, low=2)
    check_number("epsilon", epsilon, low=0)
    return 1 / (1 + (classes - 1) * math.exp(-epsilon))


def randomized_response(
    values: Tensor, classes: int, *, epsilon: float, secure: bool = False, generator: torch.Generator | None = None
) -> Tensor:
    r"""Everybody answers with their own class, or, at random, with another: privacy without anybody to trust.

    $\Pr[\text{report } w \mid v] = \frac{e^\epsilon}{e^\epsilon + k - 1}$ for $w = v$, else
    $\frac{1}{e^\epsilon + k - 1}$: no report is more than $e^\epsilon$ times likelier for one class than for another.

    Local privacy: each respondent's adjacency is "replace", its own class by any other; no sensitivity is assumed.

    Args:
        values: the true classes `(N,)`, int64 from 0 to k - 1, one of each respondent.
        classes: k, at least 2.
        epsilon: of each report, above 0.
        secure: draw from the cryptographic source, with exactly these probabilities for $\epsilon$ as a fraction.
        generator: source of randomness; None draws a fresh one, and `secure` accepts no other.
    Returns:
        the reports, like `values`.
    Raises:
        ValueError: names the argument.
    Reference: Warner 1965, "Randomized response", for two classes; Kairouz et al. 2014, arXiv 1407.1338; Dwork and Roth
        2014, section 3.2.
    Simplified: without `secure`, probabilities are rounded to $2^{-53}$; beyond an epsilon of 36 nobody lies any more.

    >>> randomized_response(torch.tensor([0, 1, 2]), 3, epsilon=50.0)
    tensor([0, 1, 2])
    """
    p = truth_probability(classes, epsilon)
    check_number("epsilon", epsilon, low=0, exclusive=True)
    check_members("values", values, classes)
    check_source(secure, generator, values.device)
    if secure:
        gamma = [Fraction(0)] + [exactly(epsilon)] * (classes - 1)
        shift = torch.tensor([exact_choice(gamma) for _ in values], dtype=torch.int64, device=values.device)
        return (values + shift) % classes
    drawn = {"device": values.device, "generator": fresh_generator(generator, values.device)}
    truthful = torch.rand(values.shape, dtype=torch.float64, **drawn) < p
    shift = torch.randint(1, classes, values.shape, **drawn)
    return torch.where(truthful, values, (values + shift) % classes)


def estimated_frequencies(reports: Tensor, classes: int, epsilon: float) -> Tensor:
    r"""How common each class is, from reports of which many are wrong: right on average.

    $E[c_v] = q + (p - q) f_v$ for the share $c_v$ of reports, with $q = (1 - p) / (k - 1)$; solved for
    $\hat f_v = \frac{c_v - q}{p - q}$.

    Args:
        reports: of `randomized_response`, int64 `(N,)` from 0 to k - 1, N at least 1.
        classes: k, at least 2.
        epsilon: that they were made with, at least 1e-9: below, rounding outweighs what the reports tell.
    Returns:
        $\hat f$, float64 `(k,)`; sums to 1, and a rare class may come out below 0.
    Raises:
        ValueError: names the argument.
    Reference: Warner 1965, "Randomized response", for two classes; Kairouz et al. 2016, arXiv 1602.07387.

    >>> estimated_frequencies(torch.tensor([0, 0, 0, 1]), 2, math.log(3))
    tensor([1., 0.], dtype=torch.float64)
    """
    p = truth_probability(classes, epsilon)
    check_number("epsilon", epsilon, low=1e-9)
    check_members("reports", reports, classes)
    if len(reports) == 0:
        raise ValueError(f"reports is {describe(reports)}; accepted: at least one")
    q = (1 - p) / (classes - 1)
    return (reports.bincount(minlength=classes).double() / len(reports) - q) / (p - q)


# --- a number ---------------------------------------------------------------------------------------------------------


def laplace_mechanism(
    value: Value,
    *,
    sensitivity: float,
    epsilon: float,
    secure: bool = False,
    generator: torch.Generator | None = None,
) -> Value:
    r"""Add noise that falls off only so fast as epsilon allows: $M(D) = f(D) + \mathrm{Lap}(b)$.

    $b = \Delta_1 / \epsilon$, and the density is $\frac{1}{2b} e^{-|x| / b}$. Moving it by $\Delta_1$ changes it by a
    factor of $e^{\Delta_1 / b} = e^\epsilon$ at most, so that $\delta = 0$.

    Args:
        value: $f(D)$, a finite number or floating point tensor.
        sensitivity: $\Delta_1 = \max_{D \sim D'} \|f(D) - f(D')\|_1$ over all entries together, above 0; for
            "add/remove" or "replace", of which the guarantee speaks then.
        epsilon: above 0.
        secure: for one number: round it to the grid of step $\gamma = \Delta_1 / 2^{20}$, and add discrete Laplace
            noise of scale $b / \gamma$ from the cryptographic source, exactly. A half is rounded up, so that numbers
            $\Delta_1$ apart stay $2^{20}$ steps apart: rounding raises no sensitivity, and moves the result by
            $\gamma / 2$ at most.
        generator: source of randomness; None draws a fresh one, and `secure` accepts no other.
    Returns:
        $M(D)$, like `value`.
    Raises:
        ValueError: names the argument.
    Reference: Dwork, McSherry, Nissim and Smith 2006, "Calibrating noise to sensitivity"; Dwork and Roth 2014, section
        3.3; discrete: Canonne, Kamath and Steinke 2020, arXiv 2004.00010, section 5.

    >>> abs(laplace_mechanism(41.0, sensitivity=1.0, epsilon=1000.0) - 41) < 1
    True
    """
    check_scale(sensitivity, epsilon)
    check_value(value, secure, generator)
    if secure:
        return on_grid(value, sensitivity, laplace_integer(CELLS / exactly(epsilon)))
    b = float(sensitivity / epsilon)
    exact, generator = drawn_for(value, generator)
    u = 1 - torch.rand(exact.shape, dtype=torch.float64, device=exact.device, generator=generator)
    sign = 2 * torch.randint(2, exact.shape, device=exact.device, generator=generator) - 1
    return like(value, exact + sign * (b * -u.log()))


def gaussian_delta(sigma: float, sensitivity: float, epsilon: float) -> float:
    r"""The least $\delta$ for which Gaussian noise is $(\epsilon, \delta)$-private: the whole curve, exactly.

    $\delta(\epsilon) = \Phi\left(\frac{\Delta}{2 \sigma} - \frac{\epsilon \sigma}{\Delta}\right) - e^\epsilon
    \Phi\left(-\frac{\Delta}{2 \sigma} - \frac{\epsilon \sigma}{\Delta}\right)$, which is
    $\Pr[S] - e^\epsilon \Pr'[S]$ for the worst S, a half-space.

    Args:
        sigma: standard deviation of the noise, above 0.
        sensitivity: $\Delta$ in L2, above 0.
        epsilon: at least 0.
    Returns:
        $\delta$, in [0, 1].
    Raises:
        ValueError: names the argument.
    Reference: Balle and Wang 2018, arXiv 1805.06530, theorem 8.

    >>> round(gaussian_delta(1.0, 1.0, 1.0), 4)
    0.1269
    """
    check_number("sigma", sigma, **SCALES)
    check_number("sensitivity", sensitivity, **SCALES)
    check_number("epsilon", epsilon, low=0, high=EPSILONS["high"])
    mu = float(sensitivity / sigma)
    return max(0.0, float(ndtr(mu / 2 - epsilon / mu) - math.exp(epsilon + log_ndtr(-mu / 2 - epsilon / mu))))


def gaussian_sigma(sensitivity: float, epsilon: float, delta_dp: float, calibration: str = "analytic") -> float:
    r"""The standard deviation that Gaussian noise needs to be $(\epsilon, \delta)$-private.

    "classic": $\sigma = \frac{\Delta}{\epsilon} \sqrt{2 \ln(1.25 / \delta)}$, which is enough for $\epsilon \le 1$, and
    too much. "analytic": the least $\sigma$ with `gaussian_delta` at most $\delta$.

    Args:
        sensitivity: $\Delta$ in L2, above 0, for either adjacency.
        epsilon: above 0; at most 1 for "classic".
        delta_dp: $\delta$, above 0 and below 1.
        calibration: "analytic" or "classic".
    Returns:
        $\sigma$, in the unit of the sensitivity.
    Raises:
        ValueError: names the argument.
    Reference: Balle and Wang 2018, arXiv 1805.06530, algorithm 1; Dwork and Roth 2014, "The algorithmic foundations of
        differential privacy", theorem 3.22.
    Simplified: sigma itself is bisected; algorithm 1 first finds on which side of $\Delta / \sqrt{2 \epsilon}$ it lies.

    >>> round(gaussian_sigma(1.0, 1.0, 1e-5, "classic"), 3), round(gaussian_sigma(1.0, 1.0, 1e-5), 3)
    (4.845, 3.731)
    """
    check_scale(sensitivity, epsilon)
    check_number("delta_dp", delta_dp, low=0, exclusive=True)
    if delta_dp >= 1:
        raise ValueError(f"delta_dp is {delta_dp}; accepted: a finite number above 0 and below 1")
    check_choice("calibration", calibration, CALIBRATIONS)
    if calibration == "classic":
        if epsilon > 1:
            raise ValueError(f"epsilon is {epsilon:g}; accepted: at most 1 with the classic calibration, or 'analytic'")
        return sensitivity / epsilon * math.sqrt(2 * math.log(1.25 / delta_dp))
    low = high = 1 / math.sqrt(2 * epsilon)
    while gaussian_delta(high, 1.0, epsilon) > delta_dp:
        high *= 2
    while gaussian_delta(low, 1.0, epsilon) <= delta_dp:
        low /= 2
    while high > low * (1 + CLOSE):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if gaussian_delta(middle, 1.0, epsilon) > delta_dp else (low, middle)
    return high * sensitivity


def gaussian_mechanism(
    value: Value,
    *,
    sensitivity: float,
    epsilon: float,
    delta_dp: float,
    calibration: str = "analytic",
    secure: bool = False,
    generator: torch.Generator | None = None,
) -> Value:
    r"""Add normal noise: $M(D) = f(D) + N(0, \sigma^2)$ with the $\sigma$ of `gaussian_sigma`.

    Far out, where $|x| > \epsilon \sigma^2 / \Delta_2 - \Delta_2 / 2$, the noise gives more away than $\epsilon$; that
    happens with a probability that $\delta$ bounds. In return the sensitivity is the Euclidean one.

    Args:
        value: $f(D)$, a finite number or floating point tensor.
        sensitivity: $\Delta_2 = \max_{D \sim D'} \|f(D) - f(D')\|_2$ over all entries together, above 0; for
            "add/remove" or "replace", of which the guarantee speaks then.
        epsilon: above 0; at most 1 for "classic".
        delta_dp: $\delta$, above 0 and below 1.
        calibration: "analytic" or "classic".
        secure: for one number: round it to the grid of step $\Delta_2 / 2^{20}$, as `laplace_mechanism` does, and add
            discrete Gaussian noise from the cryptographic source, exactly, with the $\sigma$ of
            `discrete_gaussian_sigma`. `secure.add_secure_noise` is for vectors.
        generator: source of randomness; None draws a fresh one, and `secure` accepts no other.
    Returns:
        $M(D)$, like `value`.
    Raises:
        ValueError: names the argument.
    Reference: Dwork and Roth 2014, theorem 3.22; Balle and Wang 2018, arXiv 1805.06530, algorithm 1; discrete: Canonne,
        Kamath and Steinke 2020, arXiv 2004.00010, theorem 7.

    >>> abs(gaussian_mechanism(41.0, sensitivity=1.0, epsilon=1000.0, delta_dp=1e-5) - 41) < 1
    True
    """
    sigma = gaussian_sigma(sensitivity, epsilon, delta_dp, calibration)
    check_value(value, secure, generator)
    if secure:
        steps = discrete_gaussian_sigma(sigma / sensitivity, epsilon, delta_dp)
        return on_grid(value, sensitivity, gaussian_integer(Fraction(steps) ** 2))
    exact, generator = drawn_for(value, generator)
    z = torch.randn(exact.shape, dtype=torch.float64, device=exact.device, generator=generator)
    return like(value, exact + sigma * z)


def discrete_gaussian_sigma(sigma: float, epsilon: float, delta_dp: float) -> int:
    r"""The $\sigma$ of discrete Gaussian noise, in steps of $\Delta / 2^{20}$, that is $(\epsilon, \delta)$-private.

    $\delta$ is now a sum over whole numbers of $g(x) = \left[\varphi_\sigma(x) - e^\epsilon \varphi_\sigma(x + \Delta)
    \right]_+$, which rises to one peak and falls. So the sum exceeds the integral, `gaussian_delta`, by the peak at
    most, and that is below $\varphi_\sigma(a)$ at $a = \epsilon \sigma^2 / \Delta - \Delta / 2$, where g begins.

    Args:
        sigma: what real noise would need, for the sensitivity 1.
        epsilon, delta_dp: as of `gaussian_sigma`.
    Returns:
        $\sigma$ in steps; above $2^{20}$ `sigma` by a few millionths.
    Reference: Canonne, Kamath and Steinke 2020, arXiv 2004.00010, theorem 7 (the sum).

    >>> discrete_gaussian_sigma(gaussian_sigma(1.0, 1.0, 1e-5), 1.0, 1e-5) / 2**20 < 3.7307
    True
    """
    steps = math.ceil(sigma * CELLS)
    while True:
        a = max(0.0, epsilon * steps / CELLS - CELLS / (2 * steps))  # in standard deviations
        peak = math.exp(-(a**2) / 2) / (steps * math.sqrt(2 * math.pi))
        if gaussian_delta(steps, CELLS, epsilon) + peak <= delta_dp:
            return steps
        steps += 1 + steps // CELLS


# --- the best of several ----------------------------------------------------------------------------------------------


def exponential_probabilities(scores: Tensor, sensitivity: float, epsilon: float) -> Tensor:
    r"""How likely each candidate is to be chosen: $p_i \propto \exp\left(\frac{\epsilon s_i}{2 \Delta}\right)$.

    Args:
        scores: s `(K,)`, floating point, finite, K at least 1; higher is better.
        sensitivity: $\Delta$, above 0: how much any one score changes at most between neighbors.
        epsilon: above 0.
    Returns:
        p, float64 `(K,)`; sums to 1.
    Raises:
        ValueError: names the argument.
    Reference: McSherry and Talwar 2007, "Mechanism design via differential privacy", definition 2.

    >>> exponential_probabilities(torch.tensor([0.0, 1.0]), 1.0, 2 * math.log(3))
    tensor([0.2500, 0.7500], dtype=torch.float64)
    """
    check_scale(sensitivity, epsilon)
    check_scores(scores)
    return (float(epsilon / (2 * sensitivity)) * centered(scores)).softmax(0)


def exponential_mechanism(
    scores: Tensor,
    *,
    sensitivity: float,
    epsilon: float,
    secure: bool = False,
    generator: torch.Generator | None = None,
) -> int:
    r"""Choose a candidate, the better the likelier: $\Pr[i] \propto \exp\left(\frac{\epsilon s_i}{2 \Delta}\right)$.

    For a neighbor the weight of i changes by $e^{\epsilon / 2}$ at most, and so does the sum over all, the other way:
    hence the 2. Drawn as $\arg\max_i \left(\frac{\epsilon s_i}{2 \Delta} - \ln E_i\right)$ with exponential $E_i$.

    Args:
        scores: s `(K,)`, floating point, finite, K at least 1; higher is better. The candidates are public.
        sensitivity: $\Delta = \max_{D \sim D'} \max_i |s_i(D) - s_i(D')|$, above 0; for "add/remove" or "replace", of
            which the guarantee speaks then.
        epsilon: above 0; $\delta = 0$.
        secure: draw from the cryptographic source, with exactly these probabilities for scores, $\epsilon$ and $\Delta$
            as the fractions that they are. Takes K tries on average at most.
        generator: source of randomness; None draws a fresh one, and `secure` accepts no other.
    Returns:
        the number i of the chosen candidate.
    Raises:
        ValueError: names the argument.
    Reference: McSherry and Talwar 2007, "Mechanism design via differential privacy"; Dwork and Roth 2014, section 3.4.

    >>> exponential_mechanism(torch.tensor([3.0, 900.0, 5.0]), sensitivity=1.0, epsilon=1.0)
    1
    """
    check_scale(sensitivity, epsilon)
    check_scores(scores)
    check_source(secure, generator, scores.device)
    if secure:
        s = [Fraction(score) for score in scores.tolist()]
        rate, best = exactly(epsilon) / (2 * exactly(sensitivity)), max(s)
        return exact_choice([rate * (best - each) for each in s])
    generator = fresh_generator(generator, scores.device)
    E = torch.empty(len(scores), dtype=torch.float64, device=scores.device).exponential_(generator=generator)
    return int((float(epsilon / (2 * sensitivity)) * centered(scores) - E.log()).argmax())


# --- what they share --------------------------------------------------------------------------------------------------


def on_grid(value: Value, sensitivity: float, noise: int) -> Value:
    """The nearest point of the grid with `CELLS` steps a sensitivity, the upper of two, and `noise` steps further."""
    step = exactly(sensitivity) / CELLS
    number = exactly(value.item() if isinstance(value, Tensor) else value)
    cell = math.floor(number / step + Fraction(1, 2))
    return like(value, torch.tensor(float((cell + noise) * step), dtype=torch.float64))


def drawn_for(value: Value, generator: torch.Generator | None) -> tuple[Tensor, torch.Generator]:
    """The value in float64, in which noise is added, and the generator on its device."""
    exact = value if isinstance(value, Tensor) else torch.tensor(float(value), dtype=torch.float64)
    exact = exact.detach().double()
    return exact, fresh_generator(generator, exact.device)


def like(value: Value, noisy: Tensor) -> Value:
    """A number for a number, a tensor of its shape and dtype for a tensor; `ValueError` where that has no room.

    To be refused tells no more than the noisy value does, of which alone it depends.
    """
    noisy = noisy.to(value).view_as(value) if isinstance(value, Tensor) else noisy
    if not noisy.isfinite().all():
        raise ValueError(f"value with its noise does not fit {noisy.dtype}; accepted: a dtype that holds both")
    return noisy if isinstance(value, Tensor) else noisy.item()


def centered(scores: Tensor) -> Tensor:
    """In float64, the best of them 0, so that no exponential overflows."""
    return scores.detach().double() - scores.max().double()


def check_scale(sensitivity: float, epsilon: float) -> None:
    """Raise `ValueError` unless both are above 0, with a quotient that no float overflows at."""
    check_number("sensitivity", sensitivity, **SCALES)
    check_number("epsilon", epsilon, **EPSILONS)


def check_value(value: Value, secure: bool, generator: torch.Generator | None) -> None:
    """Raise `ValueError` unless `value` is finite and the source of randomness fits it."""
    tensor = isinstance(value, Tensor)
    check_source(secure, generator, value.device if tensor else torch.device("cpu"))
    if not tensor:
        check_number("value", value)
    elif not value.is_floating_point() or not value.isfinite().all():
        raise ValueError(f"value is {describe(value)}; accepted: a number or a floating point tensor, finite")
    elif secure and value.numel() != 1:
        raise ValueError(f"value is {describe(value)}; accepted: one number with secure=True")


def check_members(name: str, values: Tensor, classes: int) -> None:
    """Raise `ValueError` unless `values` are int64 `(N,)` from 0 to `classes - 1`."""
    if not isinstance(values, Tensor) or values.dtype != torch.int64 or values.ndim != 1:
        raise ValueError(f"{name} is {describe(values)}; accepted: an int64 tensor of shape (N,)")
    if len(values) and not (values.min() >= 0 and values.max() < classes):
        found = f"{values.min()} to {values.max()}"
        raise ValueError(f"{name} has values from {found}; accepted: 0 to {classes - 1}")


def check_scores(scores: Tensor) -> None:
    """Raise `ValueError` unless there is a finite score for each of at least one candidate."""
    shaped = isinstance(scores, Tensor) and scores.is_floating_point() and scores.ndim == 1 and len(scores) > 0
    if not shaped or not scores.isfinite().all():
        raise ValueError(f"scores is {describe(scores)}; accepted: finite floating point scores (K,), K at least 1")

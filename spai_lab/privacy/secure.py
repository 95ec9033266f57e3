r"""Noise that stays private on a computer: exact integers, an unpredictable source, and no holes between the floats.

A proof adds real numbers. A program adds floats, and which floats can come out depends on the secret: `reachable` reads
it from the last bits. And who knows a generator's seed subtracts the noise. Against the first, noise and value lie on
one grid; against the second, all bits come from the operating system. How long a draw takes is not hidden.
"""

import math
import os
import secrets
from fractions import Fraction
from numbers import Integral, Rational, Real

import torch
from torch import Tensor

from spai_lab.checks import check_count, check_flag, check_generator, check_number, describe

FINEST = 2.0**-53  # the step of a uniform float64
GRID_BITS = 24  # a standard deviation is at least 2^24 steps of `noise_grid`
LARGEST = 2**52  # whole numbers up to twice this are exact in float64
SUMMANDS = 4  # 2 n normals for a secure one, n = 2
WIDEST = 2**50  # the scale above which noise might not fit int64
SCALES = {"low": 1e-30, "high": 1e30}  # of noise or a sensitivity: far from where floats end, float32 too


# --- where floats fail ------------------------------------------------------------------------------------------------


def reachable(outputs: Tensor, value: float, *, scale: float) -> Tensor:
    r"""Which outputs the textbook's Laplace mechanism could have returned for `value`, down to the last bit.

    The mechanism computes $y = v \pm (-b \ln u)$ with $u = k / 2^{53}$. An attacker solves for k, and tries its
    neighbors: if none gives y exactly, the secret is not v, whatever epsilon promises.

    Args:
        outputs: y, float64 of any shape.
        value: v, the secret that is suspected, finite.
        scale: b, above 0.
    Returns:
        bool, like `outputs`.
    Raises:
        ValueError: names the argument.
    Reference: Mironov 2012, "On significance of the least significant bits for differential privacy".
    Simplified: against `laplace_mechanism(secure=False)` on float64 alone, with no use of how likely each output is.

    >>> y = -torch.tensor(0.5, dtype=torch.float64).log()  # an answer of the mechanism for the value 0
    >>> reachable(y, 0.0, scale=1.0), reachable(y, 1.0, scale=1.0)
    (tensor(True), tensor(False))
    """
    if not isinstance(outputs, Tensor) or outputs.dtype != torch.float64:
        raise ValueError(f"outputs is {describe(outputs)}; accepted: a float64 tensor")
    check_number("value", value)
    check_number("scale", scale, low=0, exclusive=True)
    y = outputs.detach()[..., None]
    sign = torch.where(y < value, -1.0, 1.0)
    around = math.ceil(8 * (1 + abs(value) / scale))  # rounding moves k by no more
    k = ((-(y - value).abs() / scale).exp() / FINEST).round() + torch.arange(-around, around + 1, device=y.device)
    u = k.clamp(1, 1 / FINEST) * FINEST
    return (value + sign * (scale * -u.log()) == y).any(-1)


# --- exact integers ---------------------------------------------------------------------------------------------------


def bernoulli_exp(gamma: Rational) -> bool:
    r"""True with probability $e^{-\gamma}$, exactly: no float, no logarithm, only fair draws of whole numbers.

    For $\gamma \le 1$ draw $A_k \sim \mathrm{Bernoulli}(\gamma / k)$ for k = 1, 2, ... until one fails, at K. Then
    $\Pr[K > k] = \gamma^k / k!$, so that K is odd with probability $\sum_k (-\gamma)^k / k! = e^{-\gamma}$.
    Beyond, $e^{-\gamma} = e^{-1} \cdots e^{-1} \, e^{-(\gamma - \lfloor \gamma \rfloor)}$.

    Args:
        gamma: a whole number or a fraction, at least 0.
    Returns:
        True or False.
    Raises:
        ValueError: names the argument.
    Reference: Canonne, Kamath and Steinke 2020, arXiv 2004.00010, algorithm 1.

    >>> bernoulli_exp(0)
    True
    """
    if not isinstance(gamma, Rational) or isinstance(gamma, bool) or gamma < 0:
        raise ValueError(f"gamma is {describe(gamma)}; accepted: a whole number or a Fraction of at least 0")
    n, d = int(gamma.numerator), int(gamma.denominator)
    if n > d:
        whole, rest = divmod(n, d)
        return all(bernoulli_exp(1) for _ in range(whole)) and bernoulli_exp(Fraction(rest, d))
    k = 1
    while secrets.randbelow(k * d) < n:
        k += 1
    return k % 2 == 1


def laplace_integer(scale: Fraction) -> int:
    r"""One draw of the discrete Laplace distribution of scale $t / s$; `discrete_laplace` draws many."""
    t, s = scale.numerator, scale.denominator
    while True:
        U = secrets.randbelow(t)
        if not bernoulli_exp(Fraction(U, t)):
            continue
        V = 0
        while bernoulli_exp(1):
            V += 1
        Y, negative = (U + t * V) // s, secrets.randbelow(2)
        if Y or not negative:  # or else 0 would come twice as often
            return -Y if negative else Y


def gaussian_integer(variance: Fraction) -> int:
    r"""One draw of the discrete Gaussian distribution of parameter $\sigma^2$; `discrete_gaussian` draws many."""
    t = math.isqrt(math.floor(variance)) + 1
    while True:
        Y = laplace_integer(Fraction(t))
        if bernoulli_exp((abs(Y) - variance / t) ** 2 / (2 * variance)):
            return Y


def discrete_laplace(scale: Fraction | float, size: int) -> Tensor:
    r"""Exact draws of the Laplace distribution on the whole numbers: $\Pr[x] \propto e^{-|x| / b}$.

    A geometric draw with random digits below it, $X = U + t V$ for $b = t / s$, divided by s, with a random sign.
    Added to a whole number of sensitivity $\Delta$, it gives $\Delta / b$-differential privacy.

    Args:
        scale: b, above 0, at most $2^{50}$; a float means the binary fraction that it is.
        size: how many, at least 0.
    Returns:
        int64 `(size,)`.
    Raises:
        ValueError: names the argument.
    Reference: Canonne, Kamath and Steinke 2020, arXiv 2004.00010, algorithm 2.

    >>> discrete_laplace(Fraction(1, 1000), 3)  # e^-1000 for each of -1 and 1
    tensor([0, 0, 0])
    """
    check_number("scale", scale, low=0, high=WIDEST, exclusive=True)
    check_count("size", size, low=0)
    b = exactly(scale)
    return torch.tensor([laplace_integer(b) for _ in range(size)], dtype=torch.int64)


def discrete_gaussian(sigma: Fraction | float, size: int) -> Tensor:
    r"""Exact draws of the normal distribution on the whole numbers: $\Pr[x] \propto e^{-x^2 / 2 \sigma^2}$.

    Discrete Laplace draws Y of scale $t = \lfloor \sigma \rfloor + 1$, each kept with probability
    $e^{-(|Y| - \sigma^2 / t)^2 / 2 \sigma^2}$. Added to a whole number, it has the Renyi privacy of the real one.

    Args:
        sigma: above 0, at most $2^{50}$; a float means the binary fraction that it is.
        size: how many, at least 0.
    Returns:
        int64 `(size,)`.
    Raises:
        ValueError: names the argument.
    Reference: Canonne, Kamath and Steinke 2020, arXiv 2004.00010, algorithm 3.

    >>> discrete_gaussian(Fraction(1, 100), 3)  # e^-5000 for each of -1 and 1
    tensor([0, 0, 0])
    """
    check_number("sigma", sigma, low=0, high=WIDEST, exclusive=True)
    check_count("size", size, low=0)
    variance = exactly(sigma) ** 2
    return torch.tensor([gaussian_integer(variance) for _ in range(size)], dtype=torch.int64)


def exact_choice(gamma: list[Fraction]) -> int:
    r"""The number i with probability $\propto e^{-\gamma_i}$, exactly: draw one evenly, keep it with $e^{-\gamma_i}$.

    Args:
        gamma: K fractions of at least 0, at least one of them 0, so that K draws suffice on average.
    Returns:
        from 0 to K - 1.

    >>> exact_choice([Fraction(1000), Fraction(0)])
    1
    """
    while True:
        i = secrets.randbelow(len(gamma))
        if bernoulli_exp(gamma[i]):
            return i


def exactly(number: Real) -> Fraction:
    """The fraction that a number is, without rounding.

    >>> exactly(0.75), exactly(0.1) == Fraction(1, 10)
    (Fraction(3, 4), False)
    """
    return Fraction(int(number)) if isinstance(number, Integral) else Fraction(*number.as_integer_ratio())


# --- many normals -----------------------------------------------------------------------------------------------------


def secure_normal(shape: tuple[int, ...], *, dtype: torch.dtype = torch.float32) -> Tensor:
    r"""Standard normals from the operating system's cryptographic source, each the sum of four.

    Box and Muller: $z = \sqrt{-2 \ln u} \, (\cos 2 \pi v, \sin 2 \pi v)$ with u and v of 53 bits. Given one such z, few
    pairs (u, v) can have made it, which an attacker tries; of $\frac{1}{2} (z_1 + z_2 + z_3 + z_4)$ there are
    $2^{53 \cdot 3}$ times as many.

    Args:
        shape: of the result.
        dtype: a floating point one; computed in float64 and rounded.
    Returns:
        `shape`, on the CPU.
    Raises:
        ValueError: names the argument.
    Reference: Holohan and Braghin 2021, arXiv 2107.10138, section 5.1; Opacus takes as many for its secure mode.
    Simplified: the noise alone. What is added to a float keeps that float's last bits: `add_secure_noise` rounds both.

    >>> secure_normal((2, 3)).shape
    torch.Size([2, 3])
    """
    if not isinstance(shape, tuple):
        raise ValueError(f"shape is {describe(shape)}; accepted: a tuple of whole numbers")
    for side in shape:
        check_count("shape", side, low=0)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(f"dtype is {describe(dtype)}; accepted: a floating point dtype")
    count = math.prod(shape)
    total = sum(box_muller(count // 2 + 1) for _ in range(SUMMANDS))
    return (total[:count] / math.sqrt(SUMMANDS)).to(dtype).view(shape)


def box_muller(pairs: int) -> Tensor:
    """`2 * pairs` standard normals in float64, from 128 cryptographic bits a pair; `pairs` is at least 1."""
    words = torch.frombuffer(bytearray(os.urandom(16 * pairs)), dtype=torch.int64).view(2, pairs)
    u, v = ((words & (2**53 - 1)) + 1).double() * FINEST
    radius, angle = (-2 * u.log()).sqrt(), 2 * math.pi * v
    return torch.cat([radius * angle.cos(), radius * angle.sin()])


def noise_grid(sigma: float) -> float:
    r"""The step $\gamma$ of the grid that `add_secure_noise` rounds to: the power of 2 in $(2^{-25}, 2^{-24}] \sigma$.

    >>> noise_grid(1.5) == 2.0**-24
    True
    """
    check_number("sigma", sigma, **SCALES)
    return math.ldexp(1.0, math.frexp(sigma)[1] - 1 - GRID_BITS)


def add_secure_noise(value: Tensor, sigma: float) -> Tensor:
    r"""A vector with Gaussian noise, both rounded to one grid, so that no last bit depends on the vector.

    $y = \gamma \left(\lfloor v / \gamma \rceil + \lfloor \sigma z / \gamma \rceil\right)
    = \gamma \lfloor \lfloor v / \gamma \rceil + \sigma z / \gamma \rceil$: the Gaussian mechanism on a rounded vector,
    rounded once more, which costs no privacy. So everything that is proved of real Gaussian noise holds, subsampling
    too, with the L2 sensitivity $\Delta + \gamma \sqrt{d}$ of d rounded values in place of $\Delta$; of LeNet's 61,706
    weights at most $\Delta + 1.5 \cdot 10^{-5} \sigma$.

    Args:
        value: v, floating point of any shape, finite, at most $2^{52} \gamma$ in magnitude.
        sigma: the standard deviation of the noise, from 1e-30 to 1e30.
    Returns:
        y, like `value`, detached.
    Raises:
        ValueError: names the argument.
    Reference: Mironov 2012, as in `reachable`, for the grid; Holohan and Braghin 2021, arXiv 2107.10138.
    Simplified: z is made in float64, whose rounding no guarantee covers; `discrete_gaussian` has none, and is slow.

    >>> y = add_secure_noise(torch.tensor([0.1, -7.0]), 1.0)
    >>> torch.equal(y / noise_grid(1.0), (y / noise_grid(1.0)).round())
    True
    """
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise ValueError(f"value is {describe(value)}; accepted: a floating point tensor")
    gamma = noise_grid(sigma)
    cells = value.detach().double() / gamma
    if not (cells.abs() <= LARGEST).all():
        raise ValueError(
            f"value is not finite, or beyond {LARGEST * gamma:g}; accepted: what the grid of step {gamma:g} holds"
        )
    z = secure_normal(tuple(value.shape), dtype=torch.float64).to(value.device)
    noisy = (gamma * (cells.round() + (sigma / gamma * z).round())).to(value.dtype)
    if not noisy.isfinite().all():
        raise ValueError(f"value with its noise does not fit {value.dtype}; accepted: a dtype that holds both")
    return noisy


def check_source(secure: bool, generator: torch.Generator | None, device: torch.device) -> None:
    """Raise `ValueError` if secure noise is asked for and a generator given, whose numbers can be drawn again.

    >>> check_source(True, torch.Generator(), torch.device("cpu"))
    Traceback (most recent call last):
    ValueError: generator is a Generator; accepted: None with secure=True, since who knows its seed subtracts the noise
    """
    check_flag("secure", secure)
    check_generator(generator, device)
    if secure and generator is not None:
        raise ValueError(
            f"generator is a {type(generator).__name__}; accepted: None with secure=True, since who knows its seed "
            "subtracts the noise"
        )

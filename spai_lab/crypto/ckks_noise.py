r"""How wrong a decrypted number can be, computed beforehand: the error that travels with each CKKS ciphertext.

All bounds are on slots: with the scale $\Delta$ a polynomial e adds $e(\zeta) / \Delta$ to a slot, for a root $\zeta$
of $X^N + 1$. Its coefficients are small and random: keys' and noise's by choice, and what rounding leaves because
ciphertexts look uniform, as all analyses of CKKS assume. A random variable x is called subgaussian of proxy
$\sigma^2$ if $E[e^{\lambda x}] \le e^{\lambda^2 \sigma^2 / 2}$. Discrete normals of $\sigma$ are, also when cut; so
are ternary coefficients ($\sigma^2 = 2/3$) and rounding errors ($\sigma^2 = 1/12$), with their variance as proxy.

Each bound fails with a probability of at most `FAILURE`, over keys and noise, for all slots of a result together: a
circuit of n operations stays within its bound with probability $1 - n \cdot 10^{-9}$. Errors of encoding are
bounded for any values and never fail.
"""

import math
from functools import lru_cache

from scipy.optimize import minimize_scalar

SIGMA = 3.2  # of the noise in keys and encryptions
TERNARY = math.sqrt(2 / 3)  # standard deviation of a draw from -1, 0, 1
ROUNDING = math.sqrt(1 / 12)  # and of a rounding error
FAILURE = 1e-9
DIRECTIONS = 8
FLOAT = 2.0**-40  # relative; what float64 loses in a transform of at most 2^14 points, its largest slot over


@lru_cache(maxsize=1024)
def slot_bound(degree: int, products: tuple[float, ...] = (), plain: tuple[float, ...] = ()) -> float:
    r"""A bound on all slots of $e = \sum_i x_i y_i + \sum_i z_i$, polynomials with independent random coefficients.

    The part of $z(\zeta)$ in any direction of the plane is a sum of N terms, subgaussian of proxy $\sigma_z^2 N / 2$.
    So, given y, is that of $x(\zeta) y(\zeta)$, of proxy $\sigma_x^2 |y(\zeta)|^2 N / 2$, and y is random in its turn.
    Together, for the part u of $e(\zeta)$,

    $\ln E[e^{\lambda u}] \le K(\lambda) = \frac{\lambda^2}{2} \frac{N}{2} \sum_i \sigma_{z_i}^2
    - \sum_i \ln\left(1 - \left(\lambda \, \sigma_{x_i} \sigma_{y_i} \frac{N}{2}\right)^2\right)$.

    By Chernoff u exceeds $r = \min_\lambda (t + K(\lambda)) / \lambda$ with probability $e^{-t}$ at most. What stays
    below r in 8 directions is below $r / \cos(\pi / 8)$ in size, and slots are N / 2 in number: so
    $t = \ln(8 \frac{N}{2} / 10^{-9})$.

    Args:
        degree: N.
        products: $\sigma_{x_i} \sigma_{y_i}$ of each product of two polynomials.
        plain: $\sigma_{z_i}$ of each single one.
    Returns:
        the bound, in units of coefficients; it fails with probability $10^{-9}$ at most.
    Reference: Boucheron, Lugosi and Massart 2013, "Concentration inequalities", sections 2.2 and 2.3, for the method.

    >>> round(slot_bound(8192, plain=(1.0,)) / 64, 2)  # in standard deviations of a slot's real part
    8.54
    """
    t = math.log(DIRECTIONS * degree / 2 / FAILURE)
    variance = sum(sigma**2 for sigma in plain) * degree / 2
    scales = [product * degree / 2 for product in products]
    end = 1 / max(scales) if scales else 10 * math.sqrt(2 * t / variance)

    def exceeded(share: float) -> float:
        lam = share * end
        K = lam**2 * variance / 2 - sum(math.log1p(-((lam * scale) ** 2)) for scale in scales)
        return (t + K) / lam

    # any share gives a bound, the search only finds the least
    best = minimize_scalar(exceeded, bounds=(0, 1), method="bounded", options={"xatol": 1e-9})
    return float(best.fun) / math.cos(math.pi / DIRECTIONS)


def encoding_error(degree: int, scale: float, limit: float) -> float:
    r"""N coefficients, each rounded by at most 1/2, for any values: $\frac{N}{2 \Delta}$, and what float64 rounds.

    >>> encoding_error(8192, 2.0**26, 1.0) < 1.001 * 2.0**-14
    True
    """
    return degree / 2 / scale + FLOAT * limit


def encryption_error(degree: int, special: int) -> float:
    r"""Of $(v e + e_0 + e_1 s) / P$ and the rounding of that division, $r_0 + r_1 s$; to be divided by $\Delta$.

    $e_1$ and $r_1$ meet the same s, so that they are one product: of $e_1 / P + r_1$ and s.

    Reference: Cheon et al. 2016, IACR 2016/421, lemma 1, which bounds the encryption without P.
    """
    with_s = math.hypot(SIGMA / special, ROUNDING)
    return slot_bound(degree, (SIGMA * TERNARY / special, with_s * TERNARY), (SIGMA / special, ROUNDING))


def rescaling_error(degree: int) -> float:
    r"""Of the two rounding errors, $r_0 + r_1 s$; to be divided by the scale afterwards.

    Reference: Cheon et al. 2016, IACR 2016/421, lemma 2.
    """
    return slot_bound(degree, (ROUNDING * TERNARY,), (ROUNDING,))


def switching_error(degree: int, primes: tuple[int, ...], special: int, times: int = 1) -> float:
    r"""Of $\sum_i d_i e_i / P$, with digits between $\pm q_i / 2$ and the key's noise, and of that division's rounding.

    Several different rotations sum up to $\sum_{r,i} d_i(X^{g_r}) e_{r,i} / P$, as if all digits were independent: at
    $\zeta$ they are the same digits at other roots, $\zeta^{g_r}$, and $\sum_j \zeta^{(g_r - g_{r'}) j} = 0$.

    Reference: Cheon et al. 2018, IACR 2018/931; Kim, Polyakov and Zucca 2021, IACR 2021/204.
    """
    digits = tuple(q * ROUNDING * SIGMA / special for q in primes)
    return slot_bound(degree, (*digits * times, ROUNDING * TERNARY), (ROUNDING,))


def product_error(x: float, error_x: float, y: float, error_y: float) -> float:
    r"""$|\tilde x \tilde y - x y| \le |x| \, \epsilon_y + |y| \, \epsilon_x + \epsilon_x \epsilon_y$.

    >>> product_error(2.0, 0.1, 3.0, 0.1)
    0.51
    """
    return x * error_y + y * error_x + error_x * error_y


def precision(error: float) -> float:
    """The bits after the binary point that an error leaves.

    >>> precision(2.0**-11)
    11.0
    """
    return -math.log2(error) if error > 0 else math.inf

r"""How wrong encrypted logits of a packed network can be, from its weights: sharper than what ciphertexts track.

A ciphertext adds the errors of its slots as if all took sides. But slots of one noise polynomial are as good as
independent: for weights u that are chosen without knowing the noise, $\sum_s u_s e(\zeta_s)$ has the bound of a single
slot times $|u|$, since $\sum_j \zeta_s^j \bar\zeta_r^j = 0$ for different s and r. So $\rho$ bounds $|\sum_s u_s e_s|$
for any u with $|u| = 1$, as in `spai_lab.crypto.cryptonets_plan.logit_error`, here with u over the slots of a
ciphertext; after a linear layer, over slots that are different in $s \bmod B$, since what it sums comes again.

What each step does to $\rho$, with w the weights as encoded, by slot, and M the layer as a matrix from slots to slots:

- n products with w, summed: $\rho \max_s |(w_{1,s}, ..., w_{n,s})|$, since no ciphertext is there twice and so their
  noise is independent (`encrypted_logits` refuses others);
- a square: $2 \max |x| \, \rho + \sqrt{S} \rho^2$;
- a linear layer: $\|M\|_2 \, \rho$, or $\|M\|_F \, \rho$ where the inputs come again; for logit k, $|M_k| \, \rho$;
- its key switching: $\max_s |(w_{1,s}, ..., w_{p-1,s})|$ times that of a single rotation, by the convexity of exp;
- a sum of b blocks of what came before: $\sqrt b \rho$, for each sum one more switching.

What encoding did to a weight is known, and bounded for any image: $|E v| \le \|E\|_2 |v|$ with E the errors by output
and input. What it does to a pixel is bounded by N / 2 in a slot, as everywhere, and that bounds all slots together too:
$\sum_s |r(\zeta_s)|^2 = \frac{N}{2} \sum_j r_j^2 \le \frac{N^2}{8}$, as no coefficient is off by more than 1/2.
Bounds of noise fail with a probability of $10^{-9}$ each (`spai_lab.crypto.ckks_noise`).

Reference: Cheon et al. 2016, IACR 2016/421, for the noise. Survey: private AI, homomorphic encryption.
"""

import math
from collections.abc import Sequence

import numpy as np

from spai_lab.crypto.ckks_context import Context
from spai_lab.crypto.ckks_encoding import Plaintext, decode
from spai_lab.crypto.ckks_noise import encoding_error, encryption_error, rescaling_error, switching_error
from spai_lab.crypto.encrypted_cnn_layout import LinearLayout


def convolution_error(weights: Sequence[Plaintext], bias: Plaintext) -> float:
    r"""$\rho$ of what the first square reads.

    Args:
        weights: one for each pixel of the window, with measured errors for each slot.
        bias: likewise, at the level and scale after rescaling.
    Returns:
        the bound.
    """
    context = bias.context
    scale = bias.scale * context.primes[weights[0].level] / weights[0].scale
    pixels = encryption_error(context.degree, context.special) / scale
    pixels += math.sqrt(len(weights)) * encoding_error(context.degree, scale, 1.0)
    sizes = np.array([w.limit + w.error for w in weights])
    rho = pixels * np.linalg.norm(sizes, axis=0).max() + np.linalg.norm(sum(w.error for w in weights))
    return float(rho + rescaling_error(context.degree) / bias.scale + np.linalg.norm(bias.error))


def square_error(context: Context, rho: float, size: float, level: int, scale: float) -> float:
    r"""$\rho$ after a square of numbers up to `size`, relinearized and rescaled; level and scale are those before."""
    rho = 2 * size * rho + math.sqrt(context.slots) * rho**2
    rho += switching_error(context.degree, context.at(level), context.special) / scale**2
    return rho + rescaling_error(context.degree) * context.primes[level] / scale**2


def linear_error(
    weights: Sequence[Plaintext],
    true: np.ndarray,
    bias: Plaintext,
    where: LinearLayout,
    rho: float,
    size: np.ndarray,
    scale: float,
) -> float | np.ndarray:
    r"""$\rho$ of what a linear layer gives, its rescaling and its bias included.

    Args:
        weights: $w_0, ..., w_{p-1}$, encoded.
        true: what was encoded, `(p, S)`.
        bias: encoded with measured errors for each slot. At the level of the weights it says that nothing is rescaled:
            these are the logits, and each is wanted by itself.
        where: what stands where.
        rho: of its inputs.
        size: of each input, at most, `(n,)`.
        scale: of its inputs.
    Returns:
        the bound; or that of each logit, `(K,)`.
    """
    context, level = weights[0].context, weights[0].level
    degree, primes, after = context.degree, context.at(level), scale * weights[0].scale
    encoded = np.array([decode(w) for w in weights])
    M = as_matrix(encoded, where, np.arange(where.slots))
    E = as_matrix(encoded - true, where, where.columns)
    fresh = 0.0
    if len(weights) > 1:
        sizes = np.sqrt((np.abs(encoded[1:]) ** 2).sum(0).max())
        fresh = sizes * switching_error(degree, primes, context.special) / scale + rescaling_error(degree) / after
    for steps in where.blocks:
        fresh *= math.sqrt(len(steps))
        if len(steps) > 1:
            fresh += switching_error(degree, primes, context.special, len(steps) - 1) / after
    if bias.level == level:
        each = rho * np.linalg.norm(M, axis=1) + np.abs(E) @ size + fresh
        return each[: where.outputs] + bias.error[: where.outputs]
    rho = rho * np.linalg.norm(M, 2 if where.dealt else "fro") + np.linalg.norm(E, 2) * np.linalg.norm(size) + fresh
    return float(rho + rescaling_error(degree) / bias.scale + np.linalg.norm(bias.error))


def as_matrix(weights: np.ndarray, where: LinearLayout, places: np.ndarray) -> np.ndarray:
    """What each output of a block takes of each place, `(B, ...)`; the number in slot s comes from `places[s]`."""
    s = np.arange(where.period)
    taken = np.zeros((where.block, places.max() + 1), dtype=np.complex128)
    for t, w in enumerate(weights):
        place = places[(s + t) % where.slots]
        held = place >= 0
        np.add.at(taken, (s[held] % where.block, place[held]), w[s[held]])
    return taken

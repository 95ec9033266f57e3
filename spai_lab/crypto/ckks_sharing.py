r"""CKKS, part eight: a decrypted result, shown to others, gives away the secret key, unless noise hides its last bits.

A decryption is $m + e = c_0 + c_1 s$ modulo Q. The numbers that are shown are those of m + e, so that whoever knows
the ciphertext, the server for one, encodes them again and solves for s: one equation, one unknown
(`recover_secret`). CKKS is secure as long as results stay with who has the key (IND-CPA); where they are shared, that
is another game (IND-CPA-D), and it loses it. The remedy is to add noise f before sharing, so large that m + e + f and
m + f can hardly be told apart (`flood`): then a result tells no more than the numbers it stands for. It costs as many
bits of precision as the distance has, and some more (`flooding_cost`).

For learning, not for secrets: no constant-time code, no protection against side channels.
"""

import math
from dataclasses import replace

import numpy as np
import torch

from spai_lab.checks import check_count, check_number
from spai_lab.crypto.ckks_ciphertext import Ciphertext, check_two_parts, check_type
from spai_lab.crypto.ckks_context import Bound, Context, check_room
from spai_lab.crypto.ckks_encoding import Plaintext, embed_inverse
from spai_lab.crypto.ckks_keys import SecretKey, chain
from spai_lab.crypto.ckks_noise import ROUNDING, slot_bound
from spai_lab.crypto.ntt import forward, inverse
from spai_lab.crypto.rns import centered, column, to_residues
from spai_lab.privacy.secure import secure_normal

WIDEST = 2.0**50  # of flooding noise, so that no draw leaves what float64 counts exactly


# --- the attack -------------------------------------------------------------------------------------------------------


def recover_secret(x: Ciphertext, z: np.ndarray) -> SecretKey | None:
    r"""The secret key, from a ciphertext and what it was decrypted to: $s = (m' - c_0) \, c_1^{-1}$.

    $m' = \lfloor \Delta \, \sigma^{-1}(z) \rceil$ is m + e itself if z has all its slots and digits. Modulo one prime
    of the chain, in NTT form, the equation falls apart into N of single numbers. Where some $c_1$ is 0 there, the next
    prime serves.

    Args:
        x: the ciphertext, of two parts; anybody's, fresh or computed.
        z: what `decode` gave its owner, complex `(N / 2,)`; also the mean of several decryptions.
    Returns:
        the key, or None if what comes out is no secret of -1, 0 and 1, so that the attack has failed.
    Raises:
        ValueError: names the argument.
    Reference: Li and Micciancio 2021, "On the security of homomorphic encryption on approximate numbers", IACR
        2020/1533.
    Survey: private AI, homomorphic encryption.
    Simplified: needs every slot, and float64 to hold it in full, so a scale of some 2^50 at most. With less to go on,
        a few unknown bits a coefficient are left to search for; that is harder, and no protection.

    >>> from spai_lab.crypto.ckks import ckks_context, decode, decrypt, encode, encrypt, public_key, secret_key
    >>> context = ckks_context(64, (30, 28), insecure=True)
    >>> secret = secret_key(context)
    >>> x = encrypt(public_key(secret), encode(context, [1.5, -2.0]))
    >>> np.array_equal(recover_secret(x, decode(decrypt(secret, x))).s, secret.s)
    True
    """
    check_two_parts("x", x)
    z = np.asarray(z)
    if z.shape != (x.context.slots,) or z.dtype.kind not in "cf" or not np.isfinite(z).all():
        raise ValueError(f"z is {z.dtype} {z.shape}; accepted: finite numbers ({x.context.slots:,},), all slots")
    m = whole_numbers(embed_inverse(z.astype(np.complex128)) * x.scale)
    for i, q in enumerate(x.context.at(x.level)):
        c0, c1 = x.parts[:, i]
        if (c1 == 0).any():
            continue
        values = (forward(to_residues(m, (q,)), (q,))[0] - c0) * inverses(c1, q) % q
        s = centered(inverse(values[None], (q,)), q)
        if np.abs(s).max() > 1:
            return None
        return SecretKey(x.context, forward(s, chain(x.context, x.context.levels)), x.key)
    return None


def whole_numbers(x: np.ndarray) -> np.ndarray:
    """Rounded to nearest, exactly, also beyond 64 bits."""
    return np.array([int(number) for number in np.rint(x)], dtype=object)


def inverses(x: np.ndarray, q: int) -> np.ndarray:
    r"""$x^{-1} = x^{q - 2} \bmod q$ of each number, by squaring.

    >>> inverses(np.array([1, 2, 3]), 7).tolist()
    [1, 4, 5]
    """
    result = np.ones_like(x)
    for bit in bin(q - 2)[2:]:
        result = result * result % q
        if bit == "1":
            result = result * x % q
    return result


# --- the remedy -------------------------------------------------------------------------------------------------------


def flooding_sigma(context: Context, scale: float, error: Bound, *, distance: float, results: int = 1) -> float:
    r"""How much noise hides an error: $\sigma = \frac{k \, \Delta \, \epsilon}{\sqrt{2 \pi} \, \delta}$ a coefficient.

    By Parseval, an error of at most $\epsilon_j$ in slot j is a polynomial with
    $\|e\|_2 \le B = \Delta \left(\frac{2}{N} \sum_j \epsilon_j^2\right)^{1/2}$. Two normal distributions of $\sigma$
    that lie B apart have the statistical distance $2 \Phi(B / 2 \sigma) - 1 \le B / \sqrt{2 \pi} \sigma$, and k results
    together at most k times that.

    Args:
        context: of the result.
        scale: $\Delta$, of the result.
        error: $\epsilon$, the bound on what is wrong with the slots, of all or of each.
        distance: $\delta$, above 0 and below 1, of all results together: what an attacker gains at most.
        results: k, how many will be shared under this key, the same ones shared again included.
    Returns:
        the standard deviation of the noise of each coefficient.
    Raises:
        ValueError: names the argument.
    Reference: Li, Micciancio, Schultz and Sorrell 2022, "Securing approximate homomorphic encryption using
        differential privacy", IACR 2022/816, for flooding; the distance of two normal distributions is a closed form.
    Simplified: counts statistical distance, for which noise grows like $k / \delta$. The paper's divergence needs less.

    >>> from spai_lab.crypto.ckks import ckks_context
    >>> context = ckks_context(64, (30, 28), insecure=True)
    >>> sigma = flooding_sigma(context, 2.0**28, 2.0**-20, distance=2.0**-10)
    >>> round(sigma * math.sqrt(2 * math.pi) / 2**18, 9)
    1.0
    """
    check_type("context", context, Context)
    check_number("scale", scale, low=0, exclusive=True)
    if not (np.isfinite(error) & (np.asarray(error) >= 0)).all() or np.shape(error) not in ((), (context.slots,)):
        raise ValueError(
            f"error has the shape {np.shape(error)}; accepted: finite numbers from 0, one or {context.slots:,}"
        )
    check_number("distance", distance, low=0, high=1, exclusive=True)
    check_count("results", results)
    norm = scale * math.sqrt(np.mean(np.square(error)))
    return results * norm / (math.sqrt(2 * math.pi) * distance)


def flooding_cost(degree: int, *, distance: float, results: int = 1) -> float:
    r"""The bits of precision that flooding takes from a bound: $\log_2(1 + r k / \sqrt{2 \pi} \delta)$.

    r is the bound on slots of a polynomial with normal coefficients of $\sigma = 1$, some $8.5 \sqrt{N / 2}$.

    >>> round(flooding_cost(8192, distance=2.0**-20), 1)
    27.8
    """
    check_number("distance", distance, low=0, high=1, exclusive=True)
    check_count("results", results)
    spread = slot_bound(degree, plain=(1.0,))
    return math.log2(1 + results * spread / (math.sqrt(2 * math.pi) * distance))


def flood(plaintext: Plaintext, *, distance: float, results: int = 1, error: Bound | None = None) -> Plaintext:
    r"""A decrypted result that may be shared: $m + e + f$, with $f = \lfloor \mathcal{N}(0, \sigma^2) \rceil$.

    Args:
        plaintext: of `decrypt`.
        distance: $\delta$, of all results together; to it comes the $10^{-9}$ of each operation that its error exceeds
            the bound.
        results: k, how many results will be shared under this key.
        error: the bound that the noise must hide; None takes the plaintext's own. That is right only for a ciphertext
            that the key's owner computed: what a server sends has the error that the server claims, and one that
            understates it gets too little noise. Compute it for the circuit that was agreed on. A bound that rests on
            `assume_limit`, or on limits measured on data, holds only for inputs that keep them: take the worst case.
    Returns:
        the plaintext to `decode` and to share, with its new `error`.
    Raises:
        ValueError: names the argument; or the noise does not fit the modulus, so that another scale or distance is
            needed.
    Reference: as `flooding_sigma`.
    Simplified: normal draws are those of float64 from a cryptographic source; rounding them loses no privacy.

    >>> from spai_lab.crypto.ckks import ckks_context, decode, decrypt, encode, encrypt, public_key, secret_key
    >>> context = ckks_context(64, (30, 30), scale=2.0**50, insecure=True)
    >>> secret = secret_key(context)
    >>> x = encrypt(public_key(secret), encode(context, [1.5, -2.0]))
    >>> shared = flood(decrypt(secret, x), distance=2.0**-20)
    >>> recover_secret(x, decode(shared)) is None, decode(shared).real[:2].round(2).tolist()
    (True, [1.5, -2.0])
    """
    check_type("plaintext", plaintext, Plaintext)
    context, primes = plaintext.context, plaintext.context.at(plaintext.level)
    hidden = plaintext.error if error is None else error
    sigma = flooding_sigma(context, plaintext.scale, hidden, distance=distance, results=results)
    if sigma > WIDEST:
        raise ValueError(
            f"distance is {distance:.4g}, for which noise of 2^{math.log2(sigma):.1f} is needed; accepted: one for "
            "which 2^50 is enough, or a more exact result"
        )
    noisy = plaintext.error + slot_bound(context.degree, plain=(sigma, ROUNDING)) / plaintext.scale
    check_room(context, plaintext.level, plaintext.scale, plaintext.limit + noisy, "the flooded result")
    f = forward(to_residues(flooding_noise(context.degree, sigma), primes), primes)
    values = (plaintext.values + f) % column(primes)
    return replace(plaintext, values=values, error=noisy)


def flooding_noise(degree: int, sigma: float) -> np.ndarray:
    """Rounded normal draws of this standard deviation, int64 `(N,)`."""
    z = secure_normal((degree,), dtype=torch.float64).numpy()
    return np.rint(sigma * z).astype(np.int64)

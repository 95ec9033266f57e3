r"""CKKS: a whole linear map of the slots for the price of little more than one rotation, by hoisting twice.

Slots move by rotations, so that a linear map of them is $\sum_t w_t \circ \rho_t(x)$, with weights $w_t$ for each
rotation $\rho_t$. Key switching has three steps (`spai_lab.crypto.ckks_keys`), of which the inner product is cheap and
both others dear. All rotations of x share the digits, as in `rotate_many`; and if weights are multiplied in while the
special prime is still there, their sum is divided by it once, as in `rotate_sum`. Two dear steps for the whole map.

For learning, not for secrets: no constant-time code, no protection against side channels.

Reference: Halevi and Shoup 2018, IACR 2018/244, for hoisting; Bossuat, Mouchet, Troncoso-Pastoriza and Hubaux 2021,
"Efficient bootstrapping for approximate homomorphic encryption with non-sparse keys", IACR 2020/1203, section 4, for
hoisting twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from spai_lab.checks import describe
from spai_lab.crypto.ckks_ciphertext import Ciphertext, at_level, check_type, settled
from spai_lab.crypto.ckks_context import Context
from spai_lab.crypto.ckks_encoding import Plaintext
from spai_lab.crypto.ckks_keys import RotationKeys, chain, decompose
from spai_lab.crypto.ckks_noise import product_error, rescaling_error, switching_error
from spai_lab.crypto.ckks_rotations import checked_elements, moved, turned
from spai_lab.crypto.ntt import forward, inverse, read_only
from spai_lab.crypto.rns import column, divide_by_last, from_residues, to_residues


@dataclass(frozen=True, eq=False)
class WidePlaintext:
    """A plaintext, and its values modulo the special prime, `(N,)`; of `widened`."""

    plaintext: Plaintext
    special: np.ndarray

    def __post_init__(self) -> None:
        read_only(self.special)

    @property
    def context(self) -> Context:
        """Of the plaintext."""
        return self.plaintext.context


def widened(plaintext: Plaintext) -> WidePlaintext:
    """The plaintext, ready for products before the division by the special prime.

    Args:
        plaintext: of `encode`.
    Returns:
        the same numbers.
    Raises:
        ValueError: it is no plaintext.
    """
    check_type("plaintext", plaintext, Plaintext)
    primes, special = plaintext.context.at(plaintext.level), (plaintext.context.special,)
    m = from_residues(inverse(plaintext.values, primes), primes)
    return WidePlaintext(plaintext, forward(to_residues(m, special), special)[0])


def rotated_products(x: Ciphertext, weights: Sequence[WidePlaintext], keys: RotationKeys) -> Ciphertext:
    r"""$\sum_{t < T} w_t \circ \rho_t(x)$: digits are made once, and the special prime is divided out once.

    With $(c_{0,t}, k_t)$ the turned $c_0(X^g)$ and the inner product of the turned digits with the key, which
    encrypts $P c_1(X^g) \, s(X^g)$, it is $\left(\sum_t w_t c_{0,t}, 0\right) + \left(\sum_t w_t k_t\right) / P$.

    Args:
        x: two parts.
        weights: $w_0, ..., w_{T-1}$, of one scale, encoded for the level of x or a higher one.
        keys: that hold one for each of the rotations 1, ..., T - 1.
    Returns:
        the sum, its scale the product of both, to be rescaled.
    Raises:
        ValueError: names the argument; for a missing key it says which there are.
    Reference: Bossuat et al. 2021, IACR 2020/1203, section 4.3.

    >>> from spai_lab.crypto.ckks import ckks_context, decode, decrypt, encode, encrypt, public_key, rotation_keys
    >>> from spai_lab.crypto.ckks_keys import secret_key
    >>> context = ckks_context(8, (30, 26), scale=2.0**24, insecure=True)
    >>> secret = secret_key(context)
    >>> x = encrypt(public_key(secret), encode(context, [1.0, 2.0, 3.0, 4.0]))
    >>> weights = [widened(encode(context, w)) for w in (1.0, -2.0)]
    >>> y = rotated_products(x, weights, rotation_keys(secret, (1,)))  # z_j - 2 z_{j + 1}
    >>> decode(decrypt(secret, y)).real.round(3).tolist()
    [-3.0, -4.0, -5.0, 2.0]
    """
    values = checked_weights(x, weights)
    elements = checked_elements(x, range(len(weights)), keys)
    primes = chain(x.context, x.level)
    p, q = column(primes), column(primes[:-1])
    digits = decompose(x.context, x.parts[1])
    parts = x.parts * values[0][:-1] % q
    wide = np.zeros((2, *values[0].shape), dtype=np.int64)
    for g, w in zip(elements[1:], values[1:], strict=True):
        c0, total = turned(x, digits, g, keys)
        parts[0] = (parts[0] + c0 * w[:-1]) % q
        wide = (wide + total * w) % p
    parts = (parts + divide_by_last(wide, primes)) % q if len(weights) > 1 else parts
    return accounted(x, parts, [w.plaintext for w in weights])


def accounted(x: Ciphertext, parts: np.ndarray, weights: list[Plaintext]) -> Ciphertext:
    """The sum, with what it knows of its sizes and errors: those of each product, and one division's rounding."""
    noise = switching_error(x.context.degree, x.context.at(x.level), x.context.special) / x.scale
    scale, limit, error = x.scale * weights[0].scale, 0.0, 0.0
    for t, w in enumerate(weights):
        there = moved(x, t)
        limit = limit + there.limit * w.limit
        error = error + product_error(there.limit, there.error + (noise if t else 0.0), w.limit, w.error)
    error = error + (rescaling_error(x.context.degree) / scale if len(weights) > 1 else 0.0)
    return settled(replace(x, parts=parts, scale=scale, limit=limit, error=error))


def checked_weights(x: Ciphertext, weights: Sequence[WidePlaintext]) -> list[np.ndarray]:
    """Values at the level of x, the special prime's last, `(l + 2, N)`; raise `ValueError` unless all fit."""
    if not isinstance(weights, tuple | list) or not weights:
        raise ValueError(f"weights is {describe(weights)}; accepted: one WidePlaintext or more, of widened")
    for t, w in enumerate(weights):
        check_type(f"weights[{t}]", w, WidePlaintext)
        if w.plaintext.scale != weights[0].plaintext.scale:
            scales = f"{w.plaintext.scale:.12g}; accepted: {weights[0].plaintext.scale:.12g}, that of weights[0]"
            raise ValueError(f"weights[{t}] has the scale {scales}")
    return [np.concatenate([at_level(x, w.plaintext), w.special[None]]) for w in weights]

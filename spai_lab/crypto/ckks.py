r"""CKKS, part four: computing on encrypted numbers, each of which knows its level, its scale and its error.

A ciphertext $(c_0, c_1)$ hides m: $c_0 + c_1 s = m + e$ modulo $Q = q_0 \cdots q_l$. A sum adds the parts. A product
has a third one, for $s^2$, until `relinearize`, and the scale $\Delta^2$, until `rescale` divides by $q_l$: that costs
a level, and they run out. Nothing is done behind one's back: scales and levels that do not match are an error that says
what to do. `print` shows what a ciphertext knows of itself. All that a user needs can be imported from here; rotations
are in `spai_lab.crypto.ckks_rotations`, products with constants in `spai_lab.crypto.ckks_weights`.

>>> context = ckks_context(64, (30, 28, 28), insecure=True)
>>> secret = secret_key(context)
>>> x = encrypt(public_key(secret), encode(context, [1.5, -2.0, 3.0]))
>>> square = rescale(relinearize(multiply(x, x), relinearization_key(secret)))
>>> decode(decrypt(secret, square)).real[:3].round(2).tolist()
[2.25, 4.0, 9.0]
>>> print(square)
Ciphertext: 32 slots, level 1 of 2, scale 2^28.00, sizes up to 16, error below 9.2e-06 (16.7 bits), 2 parts

**For learning, not for secrets**: no constant-time code, no protection against side channels. Whoever decrypts for
others gives away the noise, and with it the key (Li and Micciancio 2021, IACR 2020/1533): share no decryptions.

Reference: Cheon, Kim, Kim and Song 2016, "Homomorphic encryption for arithmetic of approximate numbers", IACR 2016/421;
Cheon, Han, Kim, Kim and Song 2018, "A full RNS variant", IACR 2018/931. Survey: private AI, homomorphic encryption.
"""

import math
from dataclasses import replace

import numpy as np

from spai_lab.crypto.ckks_ciphertext import (
    Ciphertext,
    at_level,
    check_keys,
    check_pair,
    check_same,
    check_scales,
    check_two_parts,
    check_type,
    multiplied,
    out_of_levels,
    plaintext_of,
    settled,
    summed,
    switched,
)
from spai_lab.crypto.ckks_context import Bound, check_level, ckks_context
from spai_lab.crypto.ckks_encoding import Plaintext, check_limit, decode, encode
from spai_lab.crypto.ckks_keys import (
    PublicKey,
    RelinearizationKey,
    SecretKey,
    chain,
    noise,
    public_key,
    relinearization_key,
    rotation_keys,
    secret_key,
    switch,
    ternary,
)
from spai_lab.crypto.ckks_noise import FLOAT, encryption_error, rescaling_error
from spai_lab.crypto.ckks_rotations import conjugate, rotate, rotate_many, rotate_sum
from spai_lab.crypto.ckks_weights import multiply_constant
from spai_lab.crypto.ntt import forward
from spai_lab.crypto.rns import column, divide_by_last

__all__ = [
    "Ciphertext",
    "add",
    "add_plain",
    "assume_limit",
    "ckks_context",
    "conjugate",
    "decode",
    "decrypt",
    "encode",
    "encrypt",
    "lower",
    "multiply",
    "multiply_constant",
    "multiply_plain",
    "negate",
    "public_key",
    "relinearization_key",
    "relinearize",
    "rescale",
    "rotate",
    "rotate_many",
    "rotate_sum",
    "rotation_keys",
    "secret_key",
    "subtract",
]


# --- there and back ---------------------------------------------------------------------------------------------------


def encrypt(key: PublicKey, plaintext: Plaintext) -> Ciphertext:
    r"""$\lfloor (v \cdot \mathrm{pk} + (e_0, e_1)) / P \rceil + (m, 0)$ for ternary v and fresh noise.

    The division by the special prime leaves hardly more than its rounding of the noise, as in SEAL.

    Args:
        key: public.
        plaintext: of the same context, of any level.
    Returns:
        the ciphertext, at the plaintext's level.
    Raises:
        ValueError: names the argument.
    Reference: Cheon et al. 2016, IACR 2016/421; Cheon et al. 2018, IACR 2018/931, but for the division.
    """
    check_type("key", key, PublicKey)
    context = plaintext_of("plaintext", plaintext, key.context).context
    primes = chain(context, plaintext.level)
    rows = [*range(plaintext.level + 1), -1]
    v = forward(ternary(context.degree), primes)
    e = forward(noise((2, 1, context.degree)), primes)
    parts = divide_by_last((v * key.key[:, rows] + e) % column(primes), primes)
    parts[0] = (parts[0] + plaintext.values) % column(primes[:-1])
    error = plaintext.error + encryption_error(context.degree, context.special) / plaintext.scale
    return Ciphertext(context, parts, key.fingerprint, plaintext.scale, plaintext.limit, error)


def decrypt(secret: SecretKey, x: Ciphertext) -> Plaintext:
    r"""$m + e = c_0 + c_1 s \, (+ \, c_2 s^2)$; `decode` gives the numbers.

    Args:
        secret: the key that x, or rather its public key, was made from.
        x: ciphertext.
    Returns:
        the plaintext, its `error` a bound on each slot.
    Raises:
        ValueError: names the argument; another key would give noise.
    """
    check_type("secret", secret, SecretKey)
    check_keys("secret", secret, x)
    q, s = column(x.context.at(x.level)), secret.s[: x.level + 1]
    m = np.zeros_like(s)
    for part in x.parts[::-1]:
        m = (m * s + part) % q
    return Plaintext(x.context, m, x.scale, x.limit, x.error + FLOAT * float(np.max(x.limit + x.error)))


# --- sums -------------------------------------------------------------------------------------------------------------


def add(x: Ciphertext, y: Ciphertext) -> Ciphertext:
    """x + y, part by part; errors add up.

    Args:
        x, y: ciphertexts under one key, of one level and one scale.
    Returns:
        the sum, at that level and scale.
    Raises:
        ValueError: names what does not match, and how to make it match.
    """
    check_pair(x, y)
    q = column(x.context.at(x.level))
    parts = np.zeros((max(len(x.parts), len(y.parts)), *x.parts.shape[1:]), dtype=np.int64)
    parts[: len(x.parts)] += x.parts
    parts[: len(y.parts)] += y.parts
    return summed(x, parts % q, y)


def negate(x: Ciphertext) -> Ciphertext:
    """-x, at no cost."""
    check_type("x", x, Ciphertext)
    return replace(x, parts=-x.parts % column(x.context.at(x.level)))


def subtract(x: Ciphertext, y: Ciphertext) -> Ciphertext:
    """x - y; else like `add`."""
    check_pair(x, y)
    return add(x, negate(y))


def add_plain(x: Ciphertext, plaintext: Plaintext) -> Ciphertext:
    """x + p, for a plaintext of the same scale, encoded for this level or a higher one; only $c_0$ changes."""
    values = at_level(x, plaintext)
    check_scales(x, plaintext)
    parts = x.parts.copy()
    parts[0] = (parts[0] + values) % column(x.context.at(x.level))
    return summed(x, parts, plaintext)


# --- products ---------------------------------------------------------------------------------------------------------


def multiply(x: Ciphertext, y: Ciphertext) -> Ciphertext:
    r"""x y: $(c_0 + c_1 s)(c_0' + c_1' s)$ has three parts, and the scale is the product of both.

    Args:
        x, y: ciphertexts under one key, of one level, of two parts each; their scales may differ.
    Returns:
        three parts; `relinearize` makes them two, `rescale` brings the scale back.
    Raises:
        ValueError: names what does not match, or says that the modulus has no room for the product.
    Reference: Cheon et al. 2016, IACR 2016/421; Cheon et al. 2018, IACR 2018/931.
    """
    check_same("y", x, y)
    check_two_parts("x", x)
    check_two_parts("y", y)
    (a, b), (c, d) = x.parts, y.parts
    parts = np.stack([a * c, a * d + b * c, b * d]) % column(x.context.at(x.level))
    return multiplied(x, parts, y)


def multiply_plain(x: Ciphertext, plaintext: Plaintext) -> Ciphertext:
    """x p, for a plaintext encoded for this level or a higher one; the scale is the product of both."""
    values = at_level(x, plaintext)
    return multiplied(x, x.parts * values % column(x.context.at(x.level)), plaintext)


def relinearize(x: Ciphertext, key: RelinearizationKey) -> Ciphertext:
    r"""From three parts to two: $c_2 s^2$ is switched to s. Best before `rescale`, where its noise counts least.

    Args:
        x: of `multiply`, or a sum of such: one relinearization does for all of them.
        key: of the same secret.
    Returns:
        two parts, the same numbers.
    Raises:
        ValueError: names the argument.
    Reference: Cheon et al. 2016, IACR 2016/421; Cheon et al. 2018, IACR 2018/931.
    """
    check_type("key", key, RelinearizationKey)
    check_keys("key", key, x)
    if len(x.parts) == 2:
        return x
    parts = x.parts[:2] + switch(x.context, x.parts[2], key.key)
    return switched(x, parts % column(x.context.at(x.level)))


def rescale(x: Ciphertext) -> Ciphertext:
    r"""Divide by the level's prime and drop it: $\lfloor c / q_l \rceil$, so that the scale becomes $\Delta / q_l$.

    Args:
        x: two parts, at level 1 or above.
    Returns:
        the same numbers, one level below.
    Raises:
        ValueError: no level is left; or three parts.
    Reference: Cheon et al. 2016, IACR 2016/421, section 3.3; Cheon et al. 2018, IACR 2018/931.
    """
    check_two_parts("x", x)
    if x.level == 0:
        raise out_of_levels(x.context)
    primes = x.context.at(x.level)
    scale = x.scale / primes[-1]
    rounding = rescaling_error(x.context.degree) / scale
    if rounding >= np.max(x.limit):
        raise ValueError(
            f"x has the scale 2^{math.log2(x.scale):.2f}, of which rescaling would leave 2^{math.log2(scale):.2f}, too "
            f"little for sizes up to {np.max(x.limit):.4g}; accepted: the scale of a product"
        )
    parts = divide_by_last(x.parts, primes)
    return settled(replace(x, parts=parts, scale=scale, error=x.error + rounding))


def lower(x: Ciphertext, level: int) -> Ciphertext:
    """The same numbers and scale at a lower level, to meet another ciphertext there; costs nothing, adds no error."""
    check_type("x", x, Ciphertext)
    check_level(x.context, level)
    if level > x.level:
        raise ValueError(f"level is {level}; accepted: at most {x.level}, that of x; levels do not come back here")
    return settled(replace(x, parts=x.parts[:, : level + 1].copy()))


def assume_limit(x: Ciphertext, limit: Bound) -> Ciphertext:
    """Say that slots are smaller than the worst case allows; whoever is wrong gets wrong bounds.

    Args:
        x: ciphertext.
        limit: on $|z|$, one number or one for each slot; the smaller one counts, this or that of x.
    Returns:
        the same ciphertext with that limit.
    Raises:
        ValueError: names the argument.
    """
    check_type("x", x, Ciphertext)
    limit = check_limit(np.zeros(x.context.slots), limit)
    least = np.minimum(x.limit, limit)
    return replace(x, limit=least if least.ndim else float(least))

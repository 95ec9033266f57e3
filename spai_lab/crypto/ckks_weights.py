r"""CKKS with public numbers that are the same in all slots: products and weighted sums, at no encoding or transform.

A constant c is the polynomial $\lfloor c \Delta \rceil$, of degree 0, whose values are all that number. So a product
is one of each residue by a small whole number, and the weighted sums $\sum_i w_{ki} x_i$ of many ciphertexts are one
matrix product, exact in float64 as long as its sums stay below $2^{53}$. This is what CryptoNets computes with: one
image a slot, one ciphertext a pixel, one constant a weight.

For learning, not for secrets: no constant-time code, no protection against side channels.
"""

from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from itertools import islice

import numpy as np

from spai_lab.checks import check_number
from spai_lab.crypto.ckks_ciphertext import Ciphertext, check_same, check_scales, check_type, settled
from spai_lab.crypto.ckks_encoding import SAME_SCALE
from spai_lab.crypto.rns import centered, column

EXACT = 2**53  # whole numbers up to here are float64's
LARGEST_RESIDUE = 2**29  # in size, of those nearest 0
BLOCK = 32  # ciphertexts at a time


def multiply_constant(x: Ciphertext, c: float, *, scale: float | None = None) -> Ciphertext:
    r"""c x, for one public number c: each residue times $w = \lfloor c \Delta \rceil$, at no transform.

    $|w \tilde x / \Delta - c x| \le |w / \Delta| \, |\tilde x - x| + |w / \Delta - c| \, |x|$.

    Args:
        x: ciphertext, of two or three parts.
        c: finite.
        scale: $\Delta$ of the constant; None takes the context's. The smaller, the more room is left, and the coarser
            the constant.
    Returns:
        the product, its scale the product of both.
    Raises:
        ValueError: names the argument, or says that the modulus has no room for the product.
    Reference: Cheon et al. 2016, IACR 2016/421, section 3.3, for a constant polynomial.

    >>> from spai_lab.crypto.ckks import ckks_context, decode, decrypt, encode, encrypt, public_key, secret_key
    >>> context = ckks_context(8, (30, 26), insecure=True)
    >>> secret = secret_key(context)
    >>> x = encrypt(public_key(secret), encode(context, [1.0, -2.0]))
    >>> decode(decrypt(secret, multiply_constant(x, 1.5))).real[:2].round(3).tolist()
    [1.5, -3.0]
    """
    check_type("x", x, Ciphertext)
    check_number("c", c)
    scale = x.context.scale if scale is None else scale
    check_number("scale", scale, low=1, high=2.0**60)
    w = round(c * scale)
    primes = x.context.at(x.level)
    parts = x.parts * column([w % q for q in primes]) % column(primes)
    error = abs(w / scale) * x.error + abs(w / scale - c) * x.limit
    return settled(replace(x, parts=parts, scale=x.scale * scale, limit=abs(c) * x.limit, error=error))


def weighted_sums(
    xs: Iterable[Ciphertext], W: np.ndarray, b: np.ndarray | None = None, *, scale: float
) -> list[Ciphertext]:
    r"""$y_k = \sum_i W_{ki} x_i + b_k$, all at once: as many calls of `multiply_constant` and `add`, the same numbers.

    Args:
        xs: n ciphertexts under one key, of one level, scale and number of parts; an iterator is read 32 at a time.
        W: public weights, `(m, n)`.
        b: public biases, `(m,)`; None for none.
        scale: $\Delta$ of the weights.
    Returns:
        m ciphertexts, their scale the product of both. Nothing is relinearized or rescaled.
    Raises:
        ValueError: names the argument; weights too large for an exact sum, or results that do not fit the level.
    """
    W, b, w = check_weights(xs, W, b, scale)
    xs, first = iter(xs), None
    total, limit, error = 0.0, 0.0, 0.0
    for start in range(0, W.shape[1], BLOCK):
        columns = slice(start, min(start + BLOCK, W.shape[1]))
        block = list(islice(xs, columns.stop - start))
        first = block[0] if start == 0 and block else first
        check_block(block, first, start, W)
        q = column(first.context.at(first.level))
        residues = np.stack([centered(x.parts, q) for x in block]).astype(np.float64)
        total = total + w[:, columns] @ residues.reshape(len(block), -1)
        limits = np.stack(np.broadcast_arrays(*(x.limit for x in block)))
        errors = np.stack(np.broadcast_arrays(*(x.error for x in block)))
        used = w[:, columns] / scale
        limit = limit + np.abs(W[:, columns]) @ limits
        error = error + np.abs(used) @ errors + (np.abs(used - W[:, columns]) + SAME_SCALE * np.abs(used)) @ limits
    if next(xs, None) is not None:
        raise ValueError(
            f"W is of shape {W.shape}; accepted: a column for each of the ciphertexts, of which xs has more"
        )
    parts = total.astype(np.int64).reshape(len(W), *first.parts.shape) % q
    return [
        shifted(replace(first, parts=parts[k], scale=first.scale * scale, limit=limit[k], error=error[k]), b[k])
        for k in range(len(W))
    ]


def shifted(x: Ciphertext, b: float) -> Ciphertext:
    r"""x + b, for one public number b: the constant polynomial $\lfloor b \Delta \rceil$, which changes $c_0$ alone.

    Args:
        x: ciphertext.
        b: finite.
    Returns:
        the sum, of the same scale.
    Raises:
        ValueError: it does not fit the level.
    """
    primes = x.context.at(x.level)
    shift = round(Fraction(b) * Fraction(x.scale))  # beyond 64 bits
    parts = x.parts.copy()
    parts[0] = (parts[0] + column([shift % q for q in primes])) % column(primes)
    return settled(replace(x, parts=parts, limit=x.limit + abs(b), error=x.error + 0.5 / x.scale))


def check_weights(
    xs: Iterable[Ciphertext], W: np.ndarray, b: np.ndarray | None, scale: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""Weights, biases, and the whole numbers $\lfloor W \Delta \rceil$; raise `ValueError` unless sums are exact."""
    if not isinstance(xs, Iterable):
        raise ValueError(f"xs is a {type(xs).__name__}; accepted: ciphertexts")
    W = np.asarray(W, dtype=np.float64)
    if W.ndim != 2 or W.size == 0 or not np.isfinite(W).all():
        raise ValueError(f"W has the shape {W.shape}; accepted: finite numbers (m, n), a column for each ciphertext")
    b = np.zeros(len(W)) if b is None else np.asarray(b, dtype=np.float64)
    if b.shape != W.shape[:1] or not np.isfinite(b).all():
        raise ValueError(f"b has the shape {b.shape}; accepted: finite numbers {W.shape[:1]}, one for each row of W")
    check_number("scale", scale, low=1, high=2.0**60)
    w = np.rint(W * scale)
    if np.abs(w).sum(1).max() * LARGEST_RESIDUE > EXACT:
        largest = EXACT / LARGEST_RESIDUE / np.abs(W).sum(1).max()
        raise ValueError(
            f"scale is {scale:g}; accepted: at most {largest:.0f}, so that sums with these weights are exact"
        )
    return W, b, w


def check_block(block: list[Ciphertext], first: Ciphertext, start: int, W: np.ndarray) -> None:
    """Raise `ValueError` unless there is a ciphertext for each column, and all are like the first."""
    if len(block) < min(BLOCK, W.shape[1] - start):
        raise ValueError(f"xs has {start + len(block)} ciphertexts; accepted: {W.shape[1]}, one for each column of W")
    for place, x in enumerate(block, start=start):
        check_same(f"xs[{place}]", first, x)
        check_scales(first, x)
        if len(x.parts) != len(first.parts):
            raise ValueError(f"xs[{place}] has {len(x.parts)} parts; accepted: {len(first.parts)}, like xs[0]")

r"""A plain matrix times an encrypted vector, by diagonals: the classical method, and what makes it fast.

Slots can be multiplied one by one and rotated, no more. So cut W, m x n, into diagonals instead of rows: with the
vector x repeated in all slots, slot s holding $x_{s \bmod n}$, and $\rho_t$ the rotation by t to the left,

$W x = \sum_{t=0}^{n-1} D_t \circ \rho_t(x), \quad (D_t)_s = W_{s \bmod m, \; (s + t) \bmod n}$,

again in all slots, slot s holding $(W x)_{s \bmod m}$: the next layer can begin at once. Four ways to do with less:

- If m < n, only the first m diagonals are needed: their sum, rotated by 0, m, 2 m, ..., n - m and summed, is all of it.
- Baby steps and giant steps: with t = b i + j, $\sum_i \rho_{bi}\left(\sum_{j<b} \rho_{-bi}(D_{bi+j}) \circ
  \rho_j(x)\right)$ takes b + m / b rotations instead of m.
- Baby steps rotate the same x: hoisted, they share the first and dearest part of their work (`rotate_many`).
- Diagonals are known beforehand: encoded once, they serve all images.

`spai_lab.crypto.encrypted_mlp` goes one further. For learning, not for secrets.

Reference: Halevi and Shoup 2014, "Algorithms in HElib", IACR 2014/106, section 4.3 (diagonals); Halevi and Shoup 2018,
IACR 2018/244 (hoisting, baby steps and giant steps); Juvekar, Vaikuntanathan and Chandrakasan 2018, "GAZELLE", arXiv
1801.05507 (the first m diagonals). Survey: private AI, homomorphic encryption.
"""

from dataclasses import dataclass
from functools import reduce

import numpy as np

from spai_lab.checks import check_count, check_flag
from spai_lab.crypto.ckks import Ciphertext, add, encode, multiply_plain, rotate, rotate_many, rotate_sum
from spai_lab.crypto.ckks_ciphertext import check_type
from spai_lab.crypto.ckks_context import Context
from spai_lab.crypto.ckks_encoding import Plaintext
from spai_lab.crypto.ckks_keys import RotationKeys


@dataclass(frozen=True, eq=False)
class Diagonals:
    """The diagonals of a matrix m x n, encoded, the t-th rotated back by its giant step."""

    m: int
    n: int
    baby: int
    plaintexts: tuple[Plaintext, ...]

    @property
    def rotations(self) -> tuple[int, ...]:
        """The steps that keys are needed for."""
        giant = range(self.baby, self.m, self.baby)
        return tuple(sorted({*range(1, self.baby), *giant, *range(self.m, self.n, self.m)}))


def diagonal(W: np.ndarray, t: int, slots: int) -> np.ndarray:
    r"""$(D_t)_s = W_{s \bmod m, \; (s + t) \bmod n}$ for each slot s.

    >>> diagonal(np.array([[0, 1], [2, 3]]), 1, 4).tolist()
    [1, 2, 1, 2]
    """
    (m, n), s = W.shape, np.arange(slots)
    return W[s % m, (s + t) % n]


def encode_diagonals(context: Context, W: np.ndarray, *, scale: float, level: int, baby: int) -> Diagonals:
    r"""Encode the first m diagonals of a matrix.

    Args:
        context: of the ciphertexts.
        W: float `(m, n)`, both powers of two, m at most n, and n at most the slots; fill it up with zeros.
        scale: of the plaintexts.
        level: of the ciphertexts that they will meet.
        baby: baby steps b, a divisor of m; m means no giant steps, and about $\sqrt{m}$ the fewest rotations.
    Returns:
        the diagonals.
    Raises:
        ValueError: names the argument.
    """
    check_type("context", context, Context)
    shaped = isinstance(W, np.ndarray) and W.ndim == 2 and 0 < W.shape[0] <= W.shape[1] <= context.slots
    if not shaped or any(size & (size - 1) for size in W.shape):
        raise ValueError(
            f"W has the shape {np.shape(W)}; accepted: (m, n), powers of two, m up to n, n up to {context.slots:,}"
        )
    m, n = W.shape
    check_count("baby", baby)
    if m % baby:
        raise ValueError(f"baby is {baby}; accepted: a divisor of {m}, the rows of W")
    rotated = [np.roll(diagonal(W, t, context.slots), t - t % baby) for t in range(m)]
    plaintexts = (encode(context, d, scale=scale, level=level, limit=np.abs(d)) for d in rotated)
    return Diagonals(m, n, baby, tuple(plaintexts))


def diagonal_product(x: Ciphertext, W: Diagonals, keys: RotationKeys, *, hoisted: bool = True) -> Ciphertext:
    r"""W x, by baby steps and giant steps.

    Args:
        x: slot s holds $x_{s \bmod n}$.
        W: of `encode_diagonals`.
        keys: for `W.rotations`.
        hoisted: let baby steps share their work; else each rotation does all of its own.
    Returns:
        slot s holds $(W x)_{s \bmod m}$; the scale is the product of both, to be rescaled.
    Raises:
        ValueError: names the argument.
    Reference: module docstring.

    >>> from spai_lab.crypto.ckks import ckks_context, decode, decrypt, encrypt, public_key, rotation_keys, secret_key
    >>> context = ckks_context(8, (30, 26, 26), insecure=True)
    >>> W = encode_diagonals(context, np.array([[1.0, 2], [3, 4]]), scale=2.0**26, level=2, baby=2)
    >>> secret = secret_key(context)
    >>> x = encrypt(public_key(secret), encode(context, [1.0, -1.0] * 2))
    >>> decode(decrypt(secret, diagonal_product(x, W, rotation_keys(secret, W.rotations)))).real.round(3).tolist()
    [-1.0, -1.0, -1.0, -1.0]
    """
    check_type("W", W, Diagonals)
    check_flag("hoisted", hoisted)
    steps = range(1, W.baby)
    turned = [x, *(rotate_many(x, steps, keys) if hoisted else [rotate(x, j, keys) for j in steps])]
    sums = []
    for giant in range(0, W.m, W.baby):
        inner = reduce(add, (multiply_plain(turned[j], W.plaintexts[giant + j]) for j in range(W.baby)))
        sums.append(rotate(inner, giant, keys) if giant else inner)
    total = reduce(add, sums)
    return rotate_sum(total, range(0, W.n, W.m), keys) if W.m < W.n else total

"""The same squares in BFV and in CKKS: exact until they wrap around t, or nearly right at any size that fits.

For learning, as both. BFV needs TenSEAL (extra `he`).

Survey: private AI, homomorphic encryption.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spai_lab.checks import check_count
from spai_lab.crypto.bfv import BfvContext, bfv_decrypt, bfv_encrypt, bfv_multiply, measured_budget
from spai_lab.crypto.ckks import decode, decrypt, encode, encrypt, multiply, relinearize, rescale
from spai_lab.crypto.ckks_ciphertext import check_type
from spai_lab.crypto.ckks_keys import SecretKey
from spai_lab.crypto.ckks_parties import server_keys


@dataclass(frozen=True, eq=False)
class Squares:
    """After 0, 1, 2, ... squares in sequence, a row each.

    `plain`, whole numbers of any size; `bfv`, `(S + 1, n)`, right modulo t; `budget`, the bits of noise budget that the
    library measures; `ckks`, `(S + 1, n)`, and `error`, a bound on what is wrong in each row of it.
    """

    plain: list[list[int]]
    bfv: np.ndarray
    budget: list[int]
    ckks: np.ndarray
    error: list[float]


def squares_in_both(values: Sequence[int], squares: int, *, integers: BfvContext, secret: SecretKey) -> Squares:
    r"""$x^{2^S}$ of whole numbers, by S squares in BFV and in CKKS.

    Args:
        values: whole numbers, at most (t - 1) / 2 in size, that fit the slots of both.
        squares: S, at least 0.
        integers: of `spai_lab.crypto.bfv.bfv_context`.
        secret: of a CKKS context whose chain has S levels.
    Returns:
        what both come to after each square, and what is true.
    Raises:
        ValueError: names the argument; the noise budget, the levels or the room are not enough, whichever ends first.
    Reference: Fan and Vercauteren 2012, IACR 2012/144; Cheon et al. 2016, IACR 2016/421.
    Survey: private AI, homomorphic encryption.
    """
    check_type("secret", secret, SecretKey)
    check_count("squares", squares, low=0)
    keys = server_keys(secret, relinearize=True)
    x = bfv_encrypt(integers, values)
    y = encrypt(keys.public, encode(secret.context, [float(v) for v in values], limit=float(x.limit)))
    plain = [[int(v) for v in values]]
    exact, budget, near = [bfv_decrypt(x)], [measured_budget(x)], [decrypt(secret, y)]
    for _ in range(squares):
        x = bfv_multiply(x, x)
        y = rescale(relinearize(multiply(y, y), keys.relinearization))
        plain.append([v**2 for v in plain[-1]])
        exact.append(bfv_decrypt(x, modulo=True))
        budget.append(measured_budget(x))
        near.append(decrypt(secret, y))
    error = [float(np.max(each.error)) for each in near]
    approximate = np.stack([decode(each).real[: len(values)] for each in near])
    return Squares(plain, np.stack(exact), budget, approximate, error)

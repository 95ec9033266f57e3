r"""What the server of secure aggregation does in the end: secrets from shares, masks off, and a look at the result.

Wrong shares would give wrong masks, and a sum that looks like any other. So each seed is compared with the hash that
its owner announced, and each key with its public half. What is left that nobody can check is a masked input: noise in
it is found out by the bounds of the sum, as likely as they are narrow; a wrong number within them is not.
"""

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
from nacl import bindings as sodium

from spai_lab.crypto.frames import ProtocolError
from spai_lab.crypto.secure_aggregation import Terms, unmask, within_bounds
from spai_lab.crypto.secure_aggregation_keys import NONE, KeyPair, agree, commitment, recover_secrets


def opened_sum(
    masked: Mapping[int, np.ndarray],
    wanted: np.ndarray,
    answers: Mapping[int, np.ndarray],
    announced: Mapping[int, np.ndarray],
    terms: Terms,
) -> np.ndarray:
    r"""The sum, from masked inputs and the shares of those who help: $b_u$ of who is in it, $s_v^{SK}$ of who has gone.

    Args:
        masked: $y_u$ by number, uint64 `(D,)` each.
        wanted: bool `(n, 2)`: of whom the seed, of whom the key was asked for.
        answers: uint64 `(n, 8)` by number of who helps, rows of shares or of `NONE`.
        announced: what each client announced, uint8 `(3, 32)`.
        terms: what all have agreed on.
    Returns:
        the sum, uint64 `(D,)`.
    Raises:
        ProtocolError: shares are missing or wrong, or the sum is beyond what these clients can reach.
    Reference: Bonawitz et al. 2017, IACR 2017/281, figure 4, round 4.
    Survey: private AI, cryptography, multi-party computation.
    """
    secrets = opened_secrets(wanted, answers, announced, terms)
    lost = {}
    for v in map(int, wanted[:, 1].nonzero()[0]):
        own = KeyPair(secrets[v], announced[v][0].tobytes())
        lost[v] = {u: agree(own, announced[u][0].tobytes(), terms.digest, "mask") for u in masked}
    total = unmask(masked, {u: secrets[u] for u in masked}, lost, ring=terms.ring)
    if not within_bounds(total, terms, len(masked)):
        raise ProtocolError(
            f"the sum of {len(masked)} clients has an entry beyond {len(masked)} times {terms.largest}: a masked input "
            "was wrong, nobody knows whose"
        )
    return total


def opened_secrets(
    wanted: np.ndarray, answers: Mapping[int, np.ndarray], announced: Mapping[int, np.ndarray], terms: Terms
) -> dict[int, bytes]:
    """The seed or key of each client that was asked about, by number, as its owner announced it."""
    together = defaultdict(list)  # secrets of which the same clients have shares, so that weights are computed once
    for v in map(int, wanted.any(axis=1).nonzero()[0]):
        together[tuple(u for u, rows in answers.items() if rows[v, 0] != NONE)].append(v)
    secrets = {}
    for helpers, owners in together.items():
        if len(helpers) < terms.threshold:
            raise ProtocolError(
                f"{len(helpers)} clients have shares of client {owners[0]}, at least {terms.threshold} are needed: "
                "no sum"
            )
        try:
            found = recover_secrets(helpers, np.stack([answers[u][owners] for u in helpers]), terms.threshold)
        except ValueError as error:
            raise ProtocolError(f"shares of clients {owners} do not fit together: {error}") from None
        secrets |= zip(owners, found, strict=True)
    for v, secret in secrets.items():
        seen = commitment(secret) if wanted[v, 0] else sodium.crypto_scalarmult_base(secret)
        if seen != announced[v][2 if wanted[v, 0] else 0].tobytes():
            raise ProtocolError(f"shares of client {v} give another secret than it announced: no sum")
    return secrets

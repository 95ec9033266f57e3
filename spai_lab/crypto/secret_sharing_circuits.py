r"""From additive shares through a garbled circuit to additive shares: comparisons, for which shares have no formula.

Products and sums are cheap on shares, and the sign of a number is not: it depends on all bits of both shares. So both
parties put their shares into a circuit that adds them up, does what is to be done, and takes a random r off. Party 0
garbles and keeps r, which it drew; party 1 evaluates and gets the rest. As r is uniform, so is what party 1 gets.

The alternative is to cut numbers into shares of bits and to compare those, which takes a round for each level of gates
instead of five in all.
"""

import numpy as np

from spai_lab.checks import describe
from spai_lab.crypto.circuits import Circuit, check_circuit
from spai_lab.crypto.circuits_bits import from_bits, to_bits
from spai_lab.crypto.garbled_circuit_labels import LabelHash, blake2_hash
from spai_lab.crypto.garbled_circuit_parties import evaluator, garbler
from spai_lab.crypto.secret_sharing_parties import Link
from spai_lab.crypto.secret_sharing_ring import check_elements

TRANSFERS = 2**20  # at a time, 32 MiB


def between_shares(link: Link, circuit: Circuit, x: np.ndarray, *, label_hash: LabelHash = blake2_hash) -> np.ndarray:
    r"""A party's share of a function of shared numbers: $y = y_0 + y_1$ with $y_0 = r$ and $y_1 = f(x_0 + x_1) - r$.

    Args:
        link: of a party; 0 garbles, 1 evaluates.
        circuit: of party 0's m shares and r, then of party 1's m shares, to one number: such as `shared_relu` with the
            ring's bits. Shares may be fewer bits wide than the ring: their lowest bits go in.
        x: its share of the numbers, `(n, m)`: n instances.
        label_hash: as in `garbler`; the same for both.
    Returns:
        its share of the results, `(n,)`.
    Raises:
        ValueError: names the argument.
        ProtocolError: the other party broke the protocol.
        TimeoutError: it stalled longer than the channel's `timeout`.
    Reference: Mohassel and Zhang 2017, "SecureML", IACR 2017/396, section 4; Yao 1986, for the circuit.
    Survey: private AI, cryptography, multi-party computation.

    >>> from functools import partial
    >>> from spai_lab.crypto.circuits_words import shared_relu
    >>> from spai_lab.crypto.parties import run_parties
    >>> from spai_lab.crypto.secret_sharing import reconstruct, share
    >>> from spai_lab.crypto.secret_sharing_ring import to_ring, to_signed
    >>> shares = share(to_ring([[-5], [7]]))
    >>> def party(channel, number):
    ...     return between_shares(Link(channel, number), shared_relu(64), shares[number])
    >>> to_signed(reconstruct(run_parties(partial(party, number=0), partial(party, number=1)))).tolist()
    [0, 7]
    """
    check_shares(link, circuit, x)
    n, m = x.shape
    width, bits = circuit.inputs[0], link.ring.bits
    low = x & np.uint64(2**width - 1)
    step, results = max(1, TRANSFERS // (m * width)), []
    for start in range(0, n, step):
        own = np.hstack([to_bits(column, width) for column in low[start : start + step].T])
        if link.party == 0:
            r = link.ring.draw((len(own),))
            garbler(link.channel, circuit, np.hstack([own, to_bits(r, bits)]), label_hash=label_hash)
            results.append(r)
        else:
            results.append(from_bits(evaluator(link.channel, circuit, own, label_hash=label_hash)))
    return np.concatenate(results)


def check_shares(link: Link, circuit: Circuit, x: np.ndarray) -> None:
    """Raise `ValueError` unless the circuit takes shares of one row of x from each party, and the mask."""
    check_circuit(circuit)
    check_elements("x", x, link.ring)
    if x.ndim != 2:
        raise ValueError(f"x is {describe(x)}; accepted: uint64 (n, m)")
    m, bits, width = x.shape[1], link.ring.bits, circuit.inputs[0]
    wanted = (*[width] * m, bits, *[width] * m)
    if width > bits or circuit.inputs != wanted or [len(word) for word in circuit.outputs] != [bits]:
        raise ValueError(
            f"circuit is {circuit!r}; accepted: of {m} shares and a mask, then {m} shares, to a number of {bits} bits"
        )

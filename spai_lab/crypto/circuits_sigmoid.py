r"""A sigmoid that a circuit can afford: straight between -1/2 and 1/2, and 0 or 1 beyond.

$f(u) = \min(\max(u + 1/2, 0), 1)$, which logistic regression on shares uses in the place of $1 / (1 + e^{-u})$. With
v = u + 1/2 in fixed point, both comparisons are a look at bits: v < 0 if the sign is set, and v is 1 or more if any bit
from the place of 1 upwards is set and the sign is not. Between, the bits below are the result as they are.
"""

from spai_lab.crypto.circuits import Builder, Circuit
from spai_lab.crypto.circuits_bits import check_width
from spai_lab.crypto.circuits_words import add_words, subtract_words
from spai_lab.crypto.paillier_keys import check_whole


def shared_sigmoid(bits: int, places: int, *, width: int | None = None) -> Circuit:
    r"""$\min(\max(v, 0), 1) - r$ of a number v in two additive shares; with $v = u + 1/2$ that is f(u).

    The inputs are the first party's share of v and a random r, then the second party's share. The first party keeps r
    as its share of the result, the second gets the rest. One of them adds 1/2 to its share of u before, which is free.

    A carry knows nothing of higher bits: if v is within $[-2^{w-1}, 2^{w-1})$, the lowest w bits of its shares are
    enough, and what stands above them does not matter.

    Args:
        bits: k, from 3 to 64; r and the result are modulo $2^k$.
        places: f, binary places of v and the result, from 1 to w - 2.
        width: w, how many bits of each share are added, from 3 to k; None takes all.
    Returns:
        a circuit of numbers of w, k and w bits to one of k bits, with 2 w + k - 2 AND gates.
    Raises:
        ValueError: names the argument.
    Reference: Mohassel and Zhang 2017, "SecureML", IACR 2017/396, for logistic regression.
    Survey: private AI, cryptography, multi-party computation.
    Simplified: the result leaves the circuit in additive shares; SecureML takes two bits of it and goes on with
        oblivious transfers, which is less to garble and another round.

    >>> import numpy as np
    >>> from spai_lab.crypto.circuits import evaluate_plain
    >>> from spai_lab.crypto.circuits_bits import from_bits, to_bits
    >>> circuit = shared_sigmoid(8, 3)
    >>> v, zero = to_bits([-9, -1, 0, 5, 8, 30], 8), to_bits([0] * 6, 8)  # in eighths
    >>> from_bits(evaluate_plain(circuit, np.hstack([v, zero, zero]))).tolist(), circuit.ands
    ([0, 0, 0, 5, 8, 8], 22)
    """
    check_width(bits)
    check_whole("bits", bits, 3, 64)
    w = bits if width is None else check_whole("width", width, 3, bits)
    f = check_whole("places", places, 1, w - 2)
    builder = Builder(w, bits, w)
    first, mask, second = builder.inputs
    v = add_words(builder, first, second)
    below = builder.inv(v[f])  # v is below 1, but for its sign
    for bit in v[f + 1 : -1]:
        below = builder.and_(below, builder.inv(bit))
    positive = builder.inv(v[-1])
    inside, beyond = builder.and_(positive, below), builder.and_(positive, builder.inv(below))
    clipped = [*(builder.and_(bit, inside) for bit in v[:f]), beyond, *[False] * (bits - f - 1)]
    return builder.circuit(subtract_words(builder, clipped, mask))

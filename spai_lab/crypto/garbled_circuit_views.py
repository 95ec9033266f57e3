r"""What the evaluator of a garbled circuit sees, made up from the output alone, and where leaks would show.

A simulator that knows the circuit and the output, but no input, draws tables and active labels at random, evaluates,
and makes hashes of outputs that decode as they must. Real tables are sums with a hash of a label that the evaluator
does not have, so that nobody should tell the two apart; `spai_lab.crypto.distinguisher` tries on these bits:

| bits | would show |
|---|---|
| colors of active labels, and their sum with the wires' bits | a permute bit that is fixed |
| active labels of two instances, and their sum | labels that serve twice |
| sums of the tables of two gates with the same first input | a hash without tweak |
| hashes of outputs, summed with the active label | a label in the clear where a hash should be |
| $T_G \oplus H(A) \oplus H(A \oplus \Delta')$ | that $\Delta$ is $\Delta'$, known from a circuit that was opened |

For learning, not for secrets.
"""

import secrets
from itertools import pairwise

import numpy as np

from spai_lab.crypto.circuits import AND, Circuit, check_circuit, evaluate_wires
from spai_lab.crypto.circuits_bits import check_bits
from spai_lab.crypto.garbled_circuit import Garbled, evaluate, evaluate_part, gate_numbers, output_numbers
from spai_lab.crypto.garbled_circuit_labels import (
    SALT,
    LabelHash,
    blake2_hash,
    check_labels,
    hasher,
    random_labels,
    words,
)
from spai_lab.crypto.oblivious_transfer_views import compared


def simulate_garbled(
    circuit: Circuit, outputs: np.ndarray, *, label_hash: LabelHash = blake2_hash
) -> tuple[Garbled, np.ndarray]:
    r"""What an evaluator gets, made from the output: random $T_G$, $T_E$ and active labels, and hashes that decode.

    Args:
        circuit: known to all.
        outputs: bool `(n, outputs)`.
        label_hash: as in `garble`.
    Returns:
        tables and hashes, and active labels of the inputs, uint8 `(n, inputs, 16)`: `evaluate` and `decode_outputs`
        give the output.
    Raises:
        ValueError: names the argument.
    Reference: Bellare, Hoang and Rogaway 2012, "Foundations of garbled circuits", IACR 2012/265 (privacy by
        simulation); the simulator is that of Zahur, Rosulek and Evans 2014, IACR 2014/756, for what Yao 1986 promised.
    Survey: private AI, cryptography, multi-party computation.

    >>> from spai_lab.crypto.circuits_words import relu
    >>> from spai_lab.crypto.garbled_circuit import decode_outputs
    >>> garbled, labels = simulate_garbled(relu(4), np.array([[True, False, True, False]]))
    >>> decode_outputs(garbled, evaluate(relu(4), garbled, labels))
    array([[ True, False,  True, False]])
    """
    check_circuit(circuit)
    check_bits("outputs", outputs, len(circuit.output_wires))
    n = len(outputs)
    labels = random_labels(n, circuit.input_bits)
    garbled = Garbled(secrets.token_bytes(SALT), random_labels(circuit.ands, n, 2), None, label_hash)
    found = words(evaluate(circuit, garbled, labels))
    (digests,) = hasher(label_hash, garbled.salt)((found, output_numbers(circuit.ands, *outputs.shape)))
    decoding = random_labels(*outputs.shape, 2)
    np.put_along_axis(decoding, outputs[..., None, None].astype(int), digests.view(np.uint8)[:, :, None], axis=2)
    return Garbled(garbled.salt, garbled.tables, decoding, label_hash), labels


def garbled_evidence(
    circuit: Circuit, garbled: Garbled, labels: np.ndarray, bits: np.ndarray, *, opened: np.ndarray | None = None
) -> np.ndarray:
    r"""Bits in which an evaluator might find inputs, a row for each two instances; the table above lists them.

    Args:
        circuit: known to all.
        garbled: with its `decoding`, real or simulated.
        labels: active ones of all inputs, uint8 `(n, inputs, 16)`, n even.
        bits: what is to be found, known to whoever judges, bool `(n, inputs)`.
        opened: $\Delta'$ of another garbling whose labels are all known, uint8 `(16,)`.
    Returns:
        bits, uint8 `(n / 2, D)`; each instance is in one row.
    Raises:
        ValueError: names the argument.
    Reference: Bellare, Hoang and Rogaway 2012, IACR 2012/265, on what must not be told apart, for the half gates of
        Zahur, Rosulek and Evans 2014 and the circuits of Yao 1986.
    Survey: private AI, cryptography, multi-party computation.

    >>> from spai_lab.crypto.circuits_words import relu
    >>> garbled, labels = simulate_garbled(relu(2), np.zeros((4, 2), bool))
    >>> len(garbled_evidence(relu(2), garbled, labels, np.zeros((4, 2), bool)))
    2
    """
    check_circuit(circuit)
    check_bits("bits", bits, circuit.input_bits)
    n = len(bits)
    check_labels("labels", labels, bits.shape)
    if n % 2:
        raise ValueError(f"bits has {n} rows; accepted: an even number")
    every, hashed = slice(0, n), hasher(garbled.label_hash, garbled.salt)
    active = evaluate_part(circuit, labels, every, words(garbled.tables), hashed)
    colors = (active.view(np.uint8)[..., 0] & 1).T
    outputs = active[list(circuit.output_wires)].swapaxes(0, 1).view(np.uint8)
    columns = [colors, colors ^ evaluate_wires(circuit, bits).T, unpacked(garbled.decoding ^ outputs[:, :, None])]
    columns += [unpacked(x ^ y) for x, y in sharing(circuit, garbled.tables)]
    if opened is not None:
        columns += [unpacked(half) for half in opened_halves(circuit, garbled, active, words(opened))]
    pairs = compared(unpacked(labels), 1)
    return np.hstack([pairs, np.hstack(columns).reshape(n // 2, -1)])


def sharing(circuit: Circuit, tables: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """$T_G$ of any two gates with the same first input that follow each other, uint8 `(n, 16)` each."""
    places = {}
    for number, gate in enumerate(gate for gate in circuit.gates if gate.kind == AND):
        places.setdefault(gate.a, []).append(number)
    return [(tables[i, :, 0], tables[j, :, 0]) for same in places.values() for i, j in pairwise(same)]


def opened_halves(circuit: Circuit, garbled: Garbled, active: np.ndarray, offset: np.ndarray) -> list[np.ndarray]:
    r"""$T_G \oplus H(A) \oplus H(A \oplus \Delta')$ of each gate, `(n, 16)`: 0 or $\Delta$ if $\Delta' = \Delta$."""
    hashed, halves = hasher(garbled.label_hash, garbled.salt), []
    for layer in circuit.layers:
        if layer.kind == AND:
            a, j = active[layer.a], gate_numbers(circuit, layer, slice(0, active.shape[1]))
            one, other = hashed((a, j), (a ^ offset, j))
            halves += list((words(garbled.tables[layer.numbers, :, 0]) ^ one ^ other).view(np.uint8))
    return halves


def unpacked(data: np.ndarray) -> np.ndarray:
    """All bits of each instance, uint8 `(n, D)`."""
    return np.unpackbits(np.ascontiguousarray(data).reshape(len(data), -1), axis=1)

r"""Garbled circuits: a party evaluates a circuit on labels, and learns no bit but those of the output.

The garbler gives each wire two labels of 128 bits, $W^0$ for 0 and $W^1$ for 1. The evaluator holds one label a wire,
the active one, and does not know of which bit. A gate's table lets it find the active label of the output from those
of the inputs, and nothing else (Yao 1986). What makes it cheap:

* **Point and permute**: a label's lowest bit, its color, is a random bit that differs between both labels of a wire; it
  says what to do with the table, and nothing about the wire's bit.
* **Free XOR**: all pairs have the same secret difference, $W^1 = W^0 \oplus \Delta$; then $A \oplus B$ is a label of
  $a \oplus b$, without a table. The lowest bit of $\Delta$ is 1, so that colors differ. INV exchanges the two labels.
* **Half gates**: $ab = a (b \oplus p) \oplus a p$ with the color p of $B^0$, which the garbler knows. Of $b \oplus p$
  the evaluator sees the color; each half needs one ciphertext, 32 bytes an AND.

With colors $p_a, p_b$ of $A^0, B^0$ and $s_a, s_b$ of the active A, B, and two numbers j, j' of the gate:

$T_G = H(A^0, j) \oplus H(A^1, j) \oplus p_b \Delta, \qquad T_E = H(B^0, j') \oplus H(B^1, j') \oplus A^0$

$C^0 = H(A^0, j) \oplus p_a T_G \oplus H(B^0, j') \oplus p_b (T_E \oplus A^0)$

$C = H(A, j) \oplus s_a T_G \oplus H(B, j') \oplus s_b (T_E \oplus A)$

The output is decoded by hashes of both labels: a label that is neither is an error, so that changed tables or labels
are seen. Two changes are not: another valid label of an input is another input, and hashes that were exchanged are
another decoding. The garbler is trusted to garble the right circuit (semi-honest).

n instances of one circuit are garbled together, with one $\Delta$ and as if they were one large circuit. A garbling
serves once: with both labels of a wire the evaluator knows $\Delta$, and with it everything.

For learning, not for secrets: no care is taken about timing or about what stays in memory.
"""

import secrets
from dataclasses import dataclass

import numpy as np

from spai_lab.checks import check_callable, check_count, describe_kind
from spai_lab.crypto.circuits import Circuit, Layer, check_circuit, parts
from spai_lab.crypto.circuits_bits import check_bits
from spai_lab.crypto.garbled_circuit_labels import (
    LABEL,
    SALT,
    Hashed,
    LabelHash,
    blake2_hash,
    check_labels,
    color,
    hasher,
    random_labels,
    words,
)


@dataclass(frozen=True, eq=False, repr=False)
class Garbled:
    """What the evaluator gets, besides labels; nothing in it is secret from it.

    Args:
        salt: of the hash, 16 bytes.
        tables: $T_G$ and $T_E$ of each AND gate of each instance, uint8 `(gates, n, 2, 16)`.
        decoding: hashes of both labels of each output bit, uint8 `(n, outputs, 2, 16)`; None if it is not to know.
        label_hash: the hash.
    """

    salt: bytes
    tables: np.ndarray
    decoding: np.ndarray | None = None
    label_hash: LabelHash = blake2_hash


@dataclass(frozen=True, eq=False, repr=False)
class Keys:
    r"""What only the garbler knows.

    Args:
        offset: $\Delta$, uint8 `(16,)`.
        inputs: $W^0$ of the input wires, uint8 `(n, inputs, 16)`.
        outputs: $W^0$ of the output wires, uint8 `(n, outputs, 16)`.
    """

    offset: np.ndarray
    inputs: np.ndarray
    outputs: np.ndarray


# --- both parties -----------------------------------------------------------------------------------------------------


def garble(circuit: Circuit, n: int = 1, *, label_hash: LabelHash = blake2_hash) -> tuple[Garbled, Keys]:
    r"""Garble n instances of a circuit: draw labels of the inputs, and make those of all gates and their tables.

    Args:
        circuit: what is to be evaluated; known to both.
        n: how many instances, at least 1.
        label_hash: `blake2_hash`, `tmmo_hash`, or another with their arguments.
    Returns:
        what the evaluator gets, and what it must not get.
    Raises:
        ValueError: names the argument.
    Reference: Yao 1986, "How to generate and exchange secrets"; Zahur, Rosulek and Evans 2014, "Two halves make a
        whole", IACR 2014/756, figure 2; Kolesnikov and Schneider 2008, "Improved garbled circuit: free XOR gates and
        applications"; Beaver, Micali and Rogaway 1990, "The round complexity of secure protocols", point and permute.
    Survey: private AI, cryptography, multi-party computation.

    >>> from spai_lab.crypto.circuits_bits import from_bits, to_bits
    >>> from spai_lab.crypto.circuits_words import adder
    >>> circuit = adder(8)
    >>> garbled, keys = garble(circuit, 2)
    >>> x, y = to_bits([1, 200], 8), to_bits([2, 100], 8)
    >>> labels = evaluate(circuit, garbled, encode_inputs(keys, np.hstack([x, y])))
    >>> from_bits(decode_outputs(garbled, labels))
    array([ 3, 44], dtype=uint64)
    """
    check_circuit(circuit)
    check_count("n", n)
    check_callable("label_hash", label_hash)
    salt = secrets.token_bytes(SALT)
    offset = random_labels(1)[0]
    offset[0] |= 1
    zeros = random_labels(n, circuit.input_bits)
    tables = np.empty((circuit.ands, n, 2, LABEL), np.uint8)
    outputs = np.empty((n, len(circuit.output_wires), LABEL), np.uint8)
    for part in parts(n, LABEL * circuit.wires):
        wires = garble_part(circuit, zeros[part], words(offset), part, words(tables), hasher(label_hash, salt))
        outputs[part] = wires[list(circuit.output_wires)].swapaxes(0, 1).view(np.uint8)
    numbers = output_numbers(circuit.ands, *outputs.shape[:2])
    both = hasher(label_hash, salt)((words(outputs), numbers), (words(outputs) ^ words(offset), numbers))
    decoding = np.stack(both, axis=2).view(np.uint8)
    return Garbled(salt, tables, decoding, label_hash), Keys(offset, zeros, outputs)


def evaluate(circuit: Circuit, garbled: Garbled, labels: np.ndarray) -> np.ndarray:
    r"""From the active labels of the inputs to those of the outputs, without knowing a bit.

    Args:
        circuit: the one that was garbled.
        garbled: tables and salt.
        labels: of all input wires, uint8 `(n, inputs, 16)`.
    Returns:
        of all output wires, uint8 `(n, outputs, 16)`.
    Raises:
        ValueError: names the argument.
    Reference: Yao 1986; Zahur, Rosulek and Evans 2014, IACR 2014/756, figure 2.
    Survey: private AI, cryptography, multi-party computation.

    >>> from spai_lab.crypto.circuits_words import relu
    >>> garbled, keys = garble(relu(4))
    >>> evaluate(relu(4), garbled, keys.inputs).shape
    (1, 4, 16)
    """
    check_circuit(circuit)
    check_labels("labels", labels, (None, circuit.input_bits))
    n = len(labels)
    check_labels("tables", garbled.tables, (circuit.ands, n, 2))
    tables = words(garbled.tables)
    outputs = np.empty((n, len(circuit.output_wires), LABEL), np.uint8)
    for part in parts(n, LABEL * circuit.wires):
        wires = evaluate_part(circuit, labels[part], part, tables, hasher(garbled.label_hash, garbled.salt))
        outputs[part] = wires[list(circuit.output_wires)].swapaxes(0, 1).view(np.uint8)
    return outputs


def encode_inputs(keys: Keys, bits: np.ndarray, *, first: int = 0) -> np.ndarray:
    r"""The labels of some input wires for some bits, $W^0 \oplus b \Delta$.

    Args:
        keys: the garbler's.
        bits: bool `(n, m)`.
        first: the wire of the first bit.
    Returns:
        uint8 `(n, m, 16)`.
    Raises:
        ValueError: names the argument.
    Reference: Yao 1986; Zahur, Rosulek and Evans 2014, IACR 2014/756, figure 2.
    Survey: private AI, cryptography, multi-party computation.

    >>> from spai_lab.crypto.circuits_words import relu
    >>> _, keys = garble(relu(4))
    >>> (encode_inputs(keys, np.array([[True]]), first=3) == keys.inputs[:, 3:] ^ keys.offset).all()
    np.True_
    """
    check_bits("bits", bits, None)
    check_count("first", first, low=0)
    zeros = keys.inputs[:, first : first + bits.shape[1]]
    if zeros.shape[:2] != bits.shape:
        raise ValueError(f"bits is {describe_kind(bits)} from wire {first}; accepted: within {keys.inputs.shape[:2]}")
    return zeros ^ bits[..., None] * keys.offset


def decode_outputs(garbled: Garbled, labels: np.ndarray) -> np.ndarray:
    r"""The bits of output labels: b if $H(C)$ is the hash of $C^b$, an error if it is neither.

    Args:
        garbled: with its `decoding`.
        labels: of all output wires, uint8 `(n, outputs, 16)`.
    Returns:
        bool `(n, outputs)`.
    Raises:
        ValueError: names the argument, or the first bit whose label belongs to no bit: a table or a label was changed.
    Reference: Zahur, Rosulek and Evans 2014, IACR 2014/756, figure 2 (De); Bellare, Hoang and Rogaway 2012,
        "Foundations of garbled circuits", IACR 2012/265 (authenticity), for the circuits of Yao 1986.
    Survey: private AI, cryptography, multi-party computation.

    >>> from spai_lab.crypto.circuits_words import relu
    >>> garbled, keys = garble(relu(4))
    >>> decode_outputs(garbled, keys.outputs ^ keys.offset)
    array([[ True,  True,  True,  True]])
    """
    if garbled.decoding is None:
        raise ValueError("garbled has no decoding; accepted: one with it, which the garbler keeps if it alone may know")
    n, outputs = garbled.decoding.shape[:2]
    check_labels("labels", labels, (n, outputs))
    numbers = output_numbers(len(garbled.tables), n, outputs)
    (found,) = hasher(garbled.label_hash, garbled.salt)((words(labels), numbers))
    zero, one = np.moveaxis((words(garbled.decoding) == found[:, :, None]).all(3), 2, 0)
    return read_off(zero, one)


def decode_labels(keys: Keys, labels: np.ndarray) -> np.ndarray:
    """The bits of output labels that the evaluator sent back: the garbler knows both of each.

    Args:
        keys: the garbler's.
        labels: of all output wires, uint8 `(n, outputs, 16)`.
    Returns:
        bool `(n, outputs)`.
    Raises:
        ValueError: names the argument, or the first bit whose label belongs to no bit.
    Reference: as `decode_outputs`: Yao 1986; Zahur, Rosulek and Evans 2014, IACR 2014/756.
    Survey: private AI, cryptography, multi-party computation.

    >>> from spai_lab.crypto.circuits_words import relu
    >>> _, keys = garble(relu(4))
    >>> decode_labels(keys, keys.outputs)
    array([[False, False, False, False]])
    """
    check_labels("labels", labels, keys.outputs.shape[:2])
    zero, one = ((labels == known).all(2) for known in (keys.outputs, keys.outputs ^ keys.offset))
    return read_off(zero, one)


# --- gates ------------------------------------------------------------------------------------------------------------


def garble_and(
    a0: np.ndarray, b0: np.ndarray, offset: np.ndarray, j: np.ndarray, hashed: Hashed
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""$C^0$, $T_G$ and $T_E$ of AND gates; the equations stand at the top of this module."""
    pa, pb = color(a0), color(b0)
    ha0, ha1, hb0, hb1 = hashed((a0, j), (a0 ^ offset, j), (b0, j + 1), (b0 ^ offset, j + 1))
    tg = ha0 ^ ha1 ^ pb * offset
    te = hb0 ^ hb1 ^ a0
    return ha0 ^ pa * tg ^ hb0 ^ pb * (te ^ a0), tg, te


def evaluate_and(
    a: np.ndarray, b: np.ndarray, tg: np.ndarray, te: np.ndarray, j: np.ndarray, hashed: Hashed
) -> np.ndarray:
    """C of AND gates."""
    ha, hb = hashed((a, j), (b, j + 1))
    return ha ^ color(a) * tg ^ hb ^ color(b) * (te ^ a)


def garble_part(
    circuit: Circuit, zeros: np.ndarray, offset: np.ndarray, part: slice, tables: np.ndarray, hashed: Hashed
) -> np.ndarray:
    """$W^0$ of all wires of some instances, uint64 `(wires, n, 2)`; their tables are filled in."""
    w0 = input_wires(circuit, zeros)
    for layer in circuit.layers:
        a, b = w0[layer.a], w0[layer.b]
        match layer.kind:
            case "XOR":
                w0[layer.out] = a ^ b
            case "INV":
                w0[layer.out] = a ^ offset
            case "AND":
                w0[layer.out], tg, te = garble_and(a, b, offset, gate_numbers(circuit, layer, part), hashed)
                tables[layer.numbers, part, 0], tables[layer.numbers, part, 1] = tg, te
    return w0


def evaluate_part(circuit: Circuit, labels: np.ndarray, part: slice, tables: np.ndarray, hashed: Hashed) -> np.ndarray:
    """W of all wires of some instances, uint64 `(wires, n, 2)`."""
    w = input_wires(circuit, labels)
    for layer in circuit.layers:
        a, b = w[layer.a], w[layer.b]
        match layer.kind:
            case "XOR":
                w[layer.out] = a ^ b
            case "INV":
                w[layer.out] = a
            case "AND":
                tg, te = tables[layer.numbers, part, 0], tables[layer.numbers, part, 1]
                w[layer.out] = evaluate_and(a, b, tg, te, gate_numbers(circuit, layer, part), hashed)
    return w


# --- wires and numbers ------------------------------------------------------------------------------------------------


def input_wires(circuit: Circuit, labels: np.ndarray) -> np.ndarray:
    """Room for all wires, with the inputs in place."""
    wires = np.empty((circuit.wires, len(labels), 2), np.uint64)
    wires[: circuit.input_bits] = words(labels).swapaxes(0, 1)
    return wires


def gate_numbers(circuit: Circuit, layer: Layer, part: slice) -> np.ndarray:
    """An even number for each AND gate of each instance, uint64 `(gates, n)`; the odd one above it is its too."""
    instances = np.arange(part.start, part.stop, dtype=np.uint64)
    return 2 * (instances * circuit.ands + layer.numbers.astype(np.uint64)[:, None])


def output_numbers(ands: int, n: int, outputs: int) -> np.ndarray:
    """Numbers beyond those of the gates, for each output bit of each instance, uint64 `(n, outputs)`."""
    return 2 * n * ands + np.arange(n * outputs, dtype=np.uint64).reshape(n, outputs)


def read_off(zero: np.ndarray, one: np.ndarray) -> np.ndarray:
    """The bits, where each label fits one of two; else the first that does not is named."""
    wrong = np.argwhere(zero == one)
    if len(wrong):
        instance, bit = wrong[0].tolist()
        raise ValueError(
            f"labels of instance {instance} has one for output bit {bit} that belongs to no bit; accepted: what "
            "evaluating unchanged tables and labels gives"
        )
    return one

r"""Two parties evaluate a circuit of both their inputs: one garbles it, the other evaluates it (Yao 1986).

The labels of the evaluator's bits come by oblivious transfer: it asks for one of each pair, and the garbler does not
learn for which. What both know beforehand: the circuit, the number of instances, the hash, who gets the output.

| message | from | bytes | round |
|---|---|---|---|
| what was agreed on, salt | garbler | about 150 | 1 |
| oblivious transfers of k n pairs of labels | both | `spai_lab.crypto.oblivious_transfer_extension` | 2 to 5 |
| tables | garbler | 32 an AND gate and instance | 5 |
| labels of its own bits | garbler | 16 a bit | 5 |
| hashes of output labels, if the evaluator is to know | garbler | 32 an output bit | 5 |
| output labels, if the garbler is to know | evaluator | 16 an output bit | 6 |

| who | sees | does not see |
|---|---|---|
| garbler | its input, its labels, what the transfers show, the output if it is to know | the evaluator's input |
| evaluator | its input, one label a wire, the output if it is to know | the garbler's input, any bit between |

Both follow the protocol (semi-honest). A garbler that cheats garbles another circuit, or one wrong label: if the
evaluator's decoding then fails, that it failed tells a bit of its input. Tables are sent only after the transfers, so
that no input can be chosen by what they are. Big arrays travel in pieces, so that no frame grows too long.

For learning, not for secrets.
"""

import math
from collections.abc import Callable

import numpy as np

from spai_lab.checks import check_callable, check_choice, check_count, describe_kind
from spai_lab.crypto.channel import Channel
from spai_lab.crypto.circuits import Circuit, check_circuit
from spai_lab.crypto.circuits_bits import check_bits
from spai_lab.crypto.frames import pack
from spai_lab.crypto.garbled_circuit import (
    Garbled,
    Keys,
    decode_labels,
    decode_outputs,
    encode_inputs,
    evaluate,
    garble,
)
from spai_lab.crypto.garbled_circuit_labels import LABEL, SALT, LabelHash, blake2_hash
from spai_lab.crypto.oblivious_transfer import Cost, frame_bytes, receive_array, refuse
from spai_lab.crypto.oblivious_transfer_extension import extended_cost, extended_receiver, extended_sender

OUTPUTS_TO = ("evaluator", "garbler", "both")
TERMS, TABLES, OWN, DECODING, BACK = (
    "garbled circuit",
    "garbled tables",
    "garbler's labels",
    "decoding hashes",
    "output labels",
)
TERM_NAMES = ("the circuit", "the number of instances", "the garbler's bits", "who gets the output", "the hash")
PIECE = 2**24  # bytes

# --- the parties ------------------------------------------------------------------------------------------------------


def garbler(
    channel: Channel,
    circuit: Circuit,
    inputs: np.ndarray,
    *,
    outputs_to: str = "evaluator",
    label_hash: LabelHash = blake2_hash,
    transfer: Callable[[Channel, np.ndarray], None] = extended_sender,
) -> np.ndarray | None:
    r"""Garble a circuit for an `evaluator`, whose input stays its own.

    Args:
        channel: to the evaluator.
        circuit: the same as the evaluator's.
        inputs: this party's bits, the first m of the circuit's, in n instances: bool `(n, m)`; m may be 0.
        outputs_to: who is to know the output: "evaluator", "garbler" or "both"; as agreed on.
        label_hash: as agreed on.
        transfer: oblivious transfer, called with the channel and pairs of labels, uint8 `(k n, 2, 16)`.
    Returns:
        the output, bool `(n, outputs)`, or None if it is not to know.
    Raises:
        ValueError: names the argument.
        ProtocolError: the evaluator broke the protocol, for one by a label that belongs to no bit.
        TimeoutError: the evaluator stalled longer than the channel's `timeout`.
    Reference: Yao 1986, "How to generate and exchange secrets"; Zahur, Rosulek and Evans 2014, IACR 2014/756; the
        protocol as in Lindell and Pinkas 2009, "A proof of security of Yao's protocol for two-party computation".
    Survey: private AI, cryptography, multi-party computation.
    Simplified: semi-honest; labels by transfers of pairs, where correlated ones would send half.

    >>> from functools import partial
    >>> from spai_lab.crypto.circuits_bits import to_bits
    >>> from spai_lab.crypto.circuits_words import less_than
    >>> from spai_lab.crypto.parties import run_parties
    >>> ours, theirs = to_bits([30, 5], 8), to_bits([20, 6], 8)
    >>> parties = partial(garbler, inputs=ours), partial(evaluator, inputs=theirs)
    >>> run_parties(*(partial(party, circuit=less_than(8)) for party in parties))
    [None, array([[False],
           [ True]])]
    """
    check_arguments(circuit, inputs, outputs_to, label_hash, transfer)
    n, m = inputs.shape
    garbled, keys = garble(circuit, n, label_hash=label_hash)
    channel.send(TERMS, *terms(circuit, n, m, outputs_to, label_hash), garbled.salt)
    if m < circuit.input_bits:
        transfer(channel, label_pairs(keys, m))
    send_pieces(channel, TABLES, garbled.tables)
    send_pieces(channel, OWN, encode_inputs(keys, inputs))
    if outputs_to != "garbler":
        send_pieces(channel, DECODING, garbled.decoding)
    if outputs_to == "evaluator":
        return None
    labels = receive_pieces(channel, BACK, keys.outputs.shape)
    return decoded(channel, decode_labels, keys, labels)


def evaluator(
    channel: Channel,
    circuit: Circuit,
    inputs: np.ndarray,
    *,
    outputs_to: str = "evaluator",
    label_hash: LabelHash = blake2_hash,
    transfer: Callable[[Channel, np.ndarray], np.ndarray] = extended_receiver,
) -> np.ndarray | None:
    r"""Evaluate what a `garbler` garbled, on its input and this party's, and see neither its bits nor those between.

    Args:
        channel: to the garbler.
        circuit: the same as the garbler's.
        inputs: this party's bits, the last k of the circuit's, in n instances: bool `(n, k)`; k may be 0.
        outputs_to: as in `garbler`.
        label_hash: as in `garbler`.
        transfer: oblivious transfer, called with the channel and choices, bool `(k n,)`; gives uint8 `(k n, 16)`.
    Returns:
        the output, bool `(n, outputs)`, or None if it is not to know.
    Raises:
        ValueError: names the argument.
        ProtocolError: the garbler broke the protocol, agreed on something else, or its tables and labels give an
            output label that belongs to no bit.
        TimeoutError: the garbler stalled longer than the channel's `timeout`.
    Reference: as `garbler`: Yao 1986; Zahur, Rosulek and Evans 2014, IACR 2014/756.
    Survey: private AI, cryptography, multi-party computation.
    Simplified: as in `garbler`.

    >>> from functools import partial
    >>> from spai_lab.crypto.circuits_bits import from_bits, to_bits
    >>> from spai_lab.crypto.circuits_words import adder
    >>> from spai_lab.crypto.parties import run_parties
    >>> settings = {"circuit": adder(8), "outputs_to": "garbler"}
    >>> parties = partial(garbler, inputs=to_bits([30], 8)), partial(evaluator, inputs=to_bits([12], 8))
    >>> total, nothing = run_parties(*(partial(party, **settings) for party in parties))
    >>> from_bits(total), nothing
    (array([42], dtype=uint64), None)
    """
    check_arguments(circuit, inputs, outputs_to, label_hash, transfer)
    n, k = inputs.shape
    salt = receive_terms(channel, terms(circuit, n, circuit.input_bits - k, outputs_to, label_hash))
    own = np.empty((n, 0, LABEL), np.uint8)
    if k:
        own = transfer(channel, inputs.reshape(-1))
        if not isinstance(own, np.ndarray) or own.dtype != np.uint8 or own.shape != (n * k, LABEL):
            refuse(channel, f"the transfers give {describe_kind(own)}, expected uint8 ({n * k}, {LABEL})")
        own = own.reshape(n, k, LABEL)
    tables = receive_pieces(channel, TABLES, (circuit.ands, n, 2, LABEL))
    others = receive_pieces(channel, OWN, (n, circuit.input_bits - k, LABEL))
    outputs = len(circuit.output_wires)
    decoding = None if outputs_to == "garbler" else receive_pieces(channel, DECODING, (n, outputs, 2, LABEL))
    garbled = Garbled(salt, tables, decoding, label_hash)
    labels = evaluate(circuit, garbled, np.concatenate([others, own], axis=1))
    result = None if outputs_to == "garbler" else decoded(channel, decode_outputs, garbled, labels)
    if outputs_to != "evaluator":
        send_pieces(channel, BACK, labels)
    return result


def garbled_cost(
    circuit: Circuit, n: int, garbler_bits: int, *, outputs_to: str = "evaluator", label_hash: LabelHash = blake2_hash
) -> Cost:
    """What the garbler ("sender") and the evaluator ("receiver") send with the default transfers, as `Channel` counts.

    >>> from spai_lab.crypto.circuits_words import shared_relu
    >>> garbled_cost(shared_relu(32), 1000, 64)
    Cost(sender_bytes=6052368, receiver_bytes=516214, rounds=5)
    """
    check_circuit(circuit)
    check_count("n", n)
    check_count("garbler_bits", garbler_bits, low=0)
    if garbler_bits > circuit.input_bits:
        raise ValueError(f"garbler_bits is {garbler_bits}; accepted: from 0 to {circuit.input_bits:,}")
    check_choice("outputs_to", outputs_to, OUTPUTS_TO)
    k, outputs = circuit.input_bits - garbler_bits, len(circuit.output_wires)
    garbler_bytes = len(pack(TERMS, *terms(circuit, n, garbler_bits, outputs_to, label_hash), bytes(SALT)))
    garbler_bytes += pieces_bytes(TABLES, 2 * LABEL * circuit.ands * n) + pieces_bytes(OWN, LABEL * garbler_bits * n)
    garbler_bytes += pieces_bytes(DECODING, 2 * LABEL * outputs * n) if outputs_to != "garbler" else 0
    evaluator_bytes = pieces_bytes(BACK, LABEL * outputs * n) if outputs_to != "evaluator" else 0
    transfers = extended_cost(k * n, LABEL) if k else Cost(0, 0, 0)
    return Cost(
        garbler_bytes + transfers.sender_bytes,
        evaluator_bytes + transfers.receiver_bytes,
        1 + transfers.rounds + (outputs_to != "evaluator"),
    )


# --- what travels -----------------------------------------------------------------------------------------------------


def terms(circuit: Circuit, n: int, m: int, outputs_to: str, label_hash: LabelHash) -> tuple[bytes, int, int, str, str]:
    """What both must have agreed on: circuit, instances, the garbler's bits, who gets the output, the hash's name."""
    return circuit.fingerprint, n, m, outputs_to, getattr(label_hash, "__name__", "a hash without a name")


def receive_terms(channel: Channel, expected: tuple[bytes, int, int, str, str]) -> bytes:
    """The salt of a garbler that agrees."""
    *came, salt = channel.receive(TERMS, bytes, int, int, str, str, bytes)
    for name, theirs, ours in zip(TERM_NAMES, came, expected, strict=True):
        if theirs != ours:
            huge = isinstance(theirs, int) and theirs.bit_length() > 64  # Python would refuse to spell it
            said = "a huge number" if huge else str(theirs)[:40]
            both = "" if isinstance(ours, bytes) else f": {said} there, {ours} here"
            refuse(channel, f"{name} is another one{both}")
    if len(salt) != SALT:
        refuse(channel, f"the salt has {len(salt):,} bytes, expected {SALT}")
    return salt


def label_pairs(keys: Keys, first: int) -> np.ndarray:
    """Both labels of each input wire from the first on, as messages of transfers, uint8 `(k n, 2, 16)`."""
    zeros = keys.inputs[:, first:].reshape(-1, LABEL)
    return np.stack([zeros, zeros ^ keys.offset], axis=1)


def send_pieces(channel: Channel, kind: str, array: np.ndarray) -> None:
    """Send an array of bytes, whose shape the other party knows."""
    flat = array.reshape(-1)
    for start in range(0, len(flat), PIECE):
        channel.send(kind, flat[start : start + PIECE])


def receive_pieces(channel: Channel, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """Wait for all bytes of an array of this shape."""
    size = math.prod(shape)
    sizes = [min(PIECE, size - start) for start in range(0, size, PIECE)]
    pieces = [receive_array(channel, kind, (each,)) for each in sizes]
    return np.concatenate([np.empty(0, np.uint8), *pieces]).reshape(shape)


def pieces_bytes(kind: str, size: int) -> int:
    """How many bytes the frames of such an array have."""
    return sum(frame_bytes(kind, (min(PIECE, size - start),)) for start in range(0, size, PIECE))


def decoded(channel: Channel, decode: Callable, known: Garbled | Keys, labels: np.ndarray) -> np.ndarray:
    """The output, or the channel is closed."""
    try:
        return decode(known, labels)
    except ValueError as error:
        refuse(channel, str(error))


def check_arguments(
    circuit: Circuit, inputs: np.ndarray, outputs_to: str, label_hash: LabelHash, transfer: Callable
) -> None:
    """Raise `ValueError` unless a party can start with these."""
    check_circuit(circuit)
    check_bits("inputs", inputs, None)
    if inputs.shape[1] > circuit.input_bits:
        raise ValueError(
            f"inputs is {describe_kind(inputs)}; accepted: at most the circuit's {circuit.input_bits:,} bits"
        )
    check_choice("outputs_to", outputs_to, OUTPUTS_TO)
    check_callable("label_hash", label_hash)
    check_callable("transfer", transfer)

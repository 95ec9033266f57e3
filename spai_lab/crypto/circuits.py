r"""Boolean circuits: wires, gates XOR, AND and INV between them, and their evaluation in the clear.

A wire is a number. The first wires are the inputs; each gate drives a new one, so that a circuit is read from top to
bottom and cannot run in a circle. `Builder` makes circuits gate by gate, `spai_lab.crypto.circuits_words` those of
arithmetic, `spai_lab.crypto.circuits_bristol` reads those of others, `spai_lab.crypto.circuits_bits` has their values.

Only AND gates cost anything in `spai_lab.crypto.garbled_circuit`. With $x \oplus y$ free, everything else can be had
from few of them: a choice between two bits needs one, and so does the carry of an addition.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

from spai_lab.checks import check_choice, check_count, describe
from spai_lab.crypto.circuits_bits import check_bits

XOR, AND, INV = KINDS = ("XOR", "AND", "INV")
MOST = 2**26  # wires of a circuit
ROOM = 2**26  # bytes of the wires of the instances that are evaluated at once
Bit = int | bool  # a wire's number, or a constant that is known while the circuit is built


class Gate(NamedTuple):
    r"""One gate: $out = a \oplus b$, $out = a \wedge b$ or $out = a \oplus 1$; then b is a again."""

    kind: str
    a: int
    b: int
    out: int


class Layer(NamedTuple):
    """Gates of one kind that do not wait for each other: the wires of each; `numbers` count the AND gates."""

    kind: str
    a: np.ndarray
    b: np.ndarray
    out: np.ndarray
    numbers: np.ndarray


@dataclass(frozen=True, eq=False)
class Circuit:
    r"""A circuit; each wire is driven once, before it is used.

    Args:
        inputs: how many bits each input value has; their wires come first, in this order.
        outputs: the wires of each output value, the least significant bit first.
        gates: in an order in which they can be evaluated.
    Raises:
        ValueError: names the gate or the value that is wrong.
    Reference: Yao 1986, "How to generate and exchange secrets", for circuits as what two parties evaluate.
    Survey: private AI, cryptography, multi-party computation.

    >>> half_adder = Circuit((1, 1), ((2, 3),), (Gate("XOR", 0, 1, 2), Gate("AND", 0, 1, 3)))
    >>> half_adder
    Circuit of 2 bits to 2: 1 XOR, 1 AND, 0 INV
    """

    inputs: tuple[int, ...]
    outputs: tuple[tuple[int, ...], ...]
    gates: tuple[Gate, ...]

    def __post_init__(self) -> None:
        for bits in self.inputs:
            check_count("inputs", bits)
        check_count("inputs", self.input_bits)
        if self.input_bits + len(self.gates) > MOST:
            raise ValueError(f"the circuit has more than {MOST:,} wires; accepted: at most as many")
        known = set(range(self.input_bits))
        for number, gate in enumerate(self.gates):
            check_choice(f"gate {number}", gate.kind, KINDS)
            if gate.a not in known or gate.b not in known:
                missing = gate.b if gate.a in known else gate.a
                raise ValueError(f"gate {number} uses wire {describe(missing)}; accepted: one driven before")
            if gate.out in known or not isinstance(gate.out, int) or not 0 <= gate.out < MOST:
                raise ValueError(f"gate {number} drives wire {describe(gate.out)}; accepted: one not driven before")
            known.add(gate.out)
        lost = [wire for value in self.outputs for wire in value if wire not in known]
        if lost or not self.output_wires:
            raise ValueError(f"outputs has wires {lost}, which nothing drives; accepted: at least one, all driven")

    @property
    def input_bits(self) -> int:
        """How many input wires there are."""
        return sum(self.inputs)

    @cached_property
    def output_wires(self) -> tuple[int, ...]:
        """The wires of all output values."""
        return tuple(wire for value in self.outputs for wire in value)

    @cached_property
    def wires(self) -> int:
        """One more than the largest wire number."""
        return max(self.input_bits, *(gate.out + 1 for gate in self.gates)) if self.gates else self.input_bits

    def count(self, kind: str) -> int:
        """How many gates of a kind there are."""
        return sum(gate.kind == kind for gate in self.gates)

    @cached_property
    def ands(self) -> int:
        """How many AND gates there are."""
        return self.count(AND)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The gates again, those of one kind and one depth together, so that NumPy evaluates them at once."""
        depth = [0] * self.wires
        groups, ands = {}, 0
        for gate in self.gates:
            depth[gate.out] = place = 1 + max(depth[gate.a], depth[gate.b])
            groups.setdefault((place, gate.kind), []).append((gate.a, gate.b, gate.out, ands))
            ands += gate.kind == AND
        return tuple(Layer(kind, *np.array(groups[place, kind]).T) for place, kind in sorted(groups))

    @cached_property
    def fingerprint(self) -> bytes:
        """16 bytes by which two parties see whether they have the same circuit."""
        text = repr((self.inputs, self.outputs, [tuple(gate) for gate in self.gates]))
        return blake2b(text.encode(), digest_size=16, person=b"spai-lab circuit").digest()

    def __repr__(self) -> str:
        counts = ", ".join(f"{self.count(kind):,} {kind}" for kind in KINDS)
        return f"Circuit of {self.input_bits:,} bits to {len(self.output_wires):,}: {counts}"


class Builder:
    """Makes a circuit gate by gate. Constants are folded while it is built: they cost no gate.

    Args:
        inputs: how many bits each input value has.

    >>> builder = Builder(1, 1)
    >>> (x,), (y,) = builder.inputs
    >>> builder.circuit([builder.xor(x, y), builder.and_(x, y)])
    Circuit of 2 bits to 2: 1 XOR, 1 AND, 0 INV
    """

    def __init__(self, *inputs: int) -> None:
        for bits in inputs:
            check_count("inputs", bits)
        ends = np.cumsum(inputs).tolist()
        self.inputs = [[*range(end - bits, end)] for bits, end in zip(inputs, ends, strict=True)]
        self._sizes, self._gates, self._next = inputs, [], sum(inputs)

    def xor(self, a: Bit, b: Bit) -> Bit:
        r"""$a \oplus b$."""
        if isinstance(a, bool):
            a, b = b, a
        if isinstance(b, bool):
            return self.inv(a) if b else a
        return self._gate(XOR, a, b)

    def and_(self, a: Bit, b: Bit) -> Bit:
        r"""$a \wedge b$."""
        if isinstance(a, bool):
            a, b = b, a
        if isinstance(b, bool):
            return a if b else False
        return self._gate(AND, a, b)

    def inv(self, a: Bit) -> Bit:
        r"""$a \oplus 1$."""
        return not a if isinstance(a, bool) else self._gate(INV, a, a)

    def circuit(self, *outputs: Sequence[Bit]) -> Circuit:
        """The circuit with these output values; what none of them needs is left out, a constant becomes a wire."""
        wires = tuple(tuple(self._wire(bit) for bit in value) for value in outputs)
        needed, gates = {wire for value in wires for wire in value}, []
        for gate in reversed(self._gates):
            if gate.out in needed:
                needed |= {gate.a, gate.b}
                gates.append(gate)
        number = {wire: wire for wire in range(sum(self._sizes))}
        for gate in reversed(gates):
            number[gate.out] = len(number)
        renamed = tuple(Gate(g.kind, number[g.a], number[g.b], number[g.out]) for g in reversed(gates))
        return Circuit(tuple(self._sizes), tuple(tuple(number[wire] for wire in value) for value in wires), renamed)

    def _wire(self, bit: Bit) -> int:
        """A wire that has this value: for a constant, an input plus itself."""
        if not isinstance(bit, bool):
            return bit
        zero = self._gate(XOR, 0, 0)
        return self._gate(INV, zero, zero) if bit else zero

    def _gate(self, kind: str, a: int, b: int) -> int:
        out, self._next = self._next, self._next + 1
        self._gates.append(Gate(kind, a, b, out))
        return out


# --- evaluation -------------------------------------------------------------------------------------------------------


def evaluate_plain(circuit: Circuit, bits: np.ndarray) -> np.ndarray:
    r"""What a circuit computes, on many inputs at once, nothing hidden.

    Args:
        circuit: the circuit.
        bits: all input values side by side, bool `(n, input_bits)`.
    Returns:
        all output values side by side, bool `(n, outputs)`.
    Raises:
        ValueError: names the argument.
    Reference: Yao 1986, "How to generate and exchange secrets".
    Survey: private AI, cryptography, multi-party computation.

    >>> half_adder = Circuit((1, 1), ((2, 3),), (Gate("XOR", 0, 1, 2), Gate("AND", 0, 1, 3)))
    >>> evaluate_plain(half_adder, np.array([[False, True], [True, True]])).astype(int)
    array([[1, 0],
           [0, 1]])
    """
    check_circuit(circuit)
    check_bits("bits", bits, circuit.input_bits)
    out = np.empty((len(bits), len(circuit.output_wires)), bool)
    for part in parts(len(bits), circuit.wires):
        out[part] = evaluate_wires(circuit, bits[part])[list(circuit.output_wires)].T
    return out


def evaluate_wires(circuit: Circuit, bits: np.ndarray) -> np.ndarray:
    """The bits of all wires, bool `(wires, n)`."""
    values = np.empty((circuit.wires, len(bits)), bool)
    values[: circuit.input_bits] = bits.T
    for layer in circuit.layers:
        match layer.kind:
            case "XOR":
                values[layer.out] = values[layer.a] ^ values[layer.b]
            case "AND":
                values[layer.out] = values[layer.a] & values[layer.b]
            case "INV":
                values[layer.out] = ~values[layer.a]
    return values


def parts(n: int, size: int) -> list[slice]:
    """Instances that are worked on together, so that those of `size` bytes each stay within `ROOM`.

    >>> parts(5, 2**25)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    step = max(1, ROOM // size)
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]


# --- what is refused --------------------------------------------------------------------------------------------------


def check_circuit(circuit: Circuit) -> None:
    """Raise `ValueError` unless this is a circuit."""
    if not isinstance(circuit, Circuit):
        raise ValueError(f"circuit is {describe(circuit)}; accepted: a Circuit")

"""Circuits drawn at random, and what they compute by the book: one gate after the other, one instance at a time."""

import numpy as np

from spai_lab.crypto.circuits import KINDS, Circuit, Gate


def random_circuit(seed, *, inputs=(3, 2), gates=30):
    """Any gates on any wires, gates on twice the same wire among them; outputs are any wires, inputs among them."""
    random = np.random.default_rng(seed)
    total, made = sum(inputs), []
    for out in range(total, total + gates):
        kind = KINDS[random.integers(3)]
        a, b = (int(wire) for wire in random.integers(0, out, 2))
        made.append(Gate(kind, a, a if kind == "INV" else b, out))
    wires = [tuple(int(wire) for wire in random.integers(0, total + gates, size)) for size in (4, 3)]
    return Circuit(inputs, (*wires, (total + gates - 1,)), tuple(made))


def by_the_book(circuit, bits):
    """All wires of each instance: a list of lists of 0 and 1."""
    rows = []
    for row in bits:
        wires = dict(enumerate(int(bit) for bit in row))
        for kind, a, b, out in circuit.gates:
            wires[out] = {"XOR": wires[a] ^ wires[b], "AND": wires[a] & wires[b], "INV": 1 - wires[a]}[kind]
        rows.append(wires)
    return rows


def outputs_by_the_book(circuit, bits):
    return [[wires[wire] for value in circuit.outputs for wire in value] for wires in by_the_book(circuit, bits)]


def random_bits(n, width, seed=0):
    return np.random.default_rng(seed).random((n, width)) < 0.5

"""One gate in four rows: the evaluator opens one of them, and the rows tell no more."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from spai_lab.crypto.garbled_circuit_classical import classical_gate, open_rows


@pytest.mark.parametrize("truth", [*product([0, 1], repeat=4)])
def test_the_row_that_colors_point_to_holds_the_label_and_others_hold_noise(truth):
    for a, b in product([0, 1], repeat=2):
        gate = classical_gate(truth)
        rows = open_rows(gate, a, b)
        assert [row.colors for row in rows] == [(0, 0), (0, 1), (1, 0), (1, 1)]
        (pointed,) = [row for row in rows if row.pointed]
        assert pointed.bit == truth[2 * a + b] and pointed.opened == bytes(gate.c[pointed.bit])
        assert pointed.colors == (gate.a[a, 0] & 1, gate.b[b, 0] & 1)
        assert [row.bit for row in rows if not row.pointed] == [None] * 3
        assert len({row.opened for row in rows}) == 4


def test_the_row_says_nothing_about_the_bits():
    """Where the row for (1, 1) stands is uniform: chi-squared with a false-alarm rate of 1e-6."""
    places = [next(r for r, row in enumerate(open_rows(classical_gate(), 1, 1)) if row.pointed) for _ in range(400)]
    assert stats.chisquare(np.bincount(places, minlength=4)).pvalue >= 1e-6


def test_rows_do_not_add_up_to_the_difference_of_labels():
    gate = classical_gate()
    total = np.bitwise_xor.reduce(gate.rows)
    assert (total != gate.c[0] ^ gate.c[1]).any()


def test_colors_of_a_wire_differ_and_gates_are_fresh():
    gates = [classical_gate() for _ in range(50)]
    assert all((wire[0, 0] ^ wire[1, 0]) & 1 for gate in gates for wire in (gate.a, gate.b, gate.c))
    assert len({gate.rows.tobytes() for gate in gates}) == 50


def test_arguments_are_refused(refuses):
    for truth in ([0, 0, 0], "0001", (0, 0, 0, 2), None):
        refuses(classical_gate, {"truth": truth}, "truth is ", "accepted: four values, each 0 or 1")
    for wrong in (2, -1, 0.5, None):
        refuses(open_rows, {"gate": classical_gate(), "a": wrong, "b": 0}, f"a is {wrong}; accepted: ")
        refuses(open_rows, {"gate": classical_gate(), "a": 0, "b": wrong}, f"b is {wrong}; accepted: ")

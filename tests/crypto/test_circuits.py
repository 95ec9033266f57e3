"""Circuits: against whole numbers, all of them where they are few, and a loop over gates."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spai_lab.crypto import circuits
from spai_lab.crypto.circuits import Builder, Circuit, Gate, evaluate_plain
from spai_lab.crypto.circuits_bits import bits_to_blocks, blocks_to_bits, from_bits, to_bits
from spai_lab.crypto.circuits_words import (
    adder,
    argmax,
    less_than,
    maximum,
    negation,
    relu,
    shared_argmax,
    shared_relu,
    subtractor,
)
from tests.crypto.random_circuits import outputs_by_the_book, random_bits, random_circuit

ONE_WORD = {"negation": (negation, lambda x: -x), "relu": (relu, lambda x: max(x, 0))}
TWO_WORDS = {"adder": (adder, lambda x, y: x + y), "subtractor": (subtractor, lambda x, y: x - y)}


def signed(number, bits):
    return (number + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)


def edges(bits, count, seed=0):
    """Signed numbers of k bits: extremes, and some between."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    special = [low, low + 1, -1, 0, 1, high - 1, high] if bits > 2 else [*range(low, high + 1)]
    random = np.random.default_rng(seed).integers(low, high, count, dtype=np.int64, endpoint=True).tolist()
    return special + random


def computed(circuit, columns, bits, *, result_signed=True):
    """Whole numbers that a circuit makes of columns of signed numbers."""
    given = np.hstack([to_bits(np.array(column, np.int64), bits) for column in columns])
    return from_bits(evaluate_plain(circuit, given), signed=result_signed).tolist()


# --- arithmetic -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8, 31, 32, 63, 64])
def test_words_are_added_subtracted_negated_and_compared_as_whole_numbers(bits):
    numbers = range(-(2 ** (bits - 1)), 2 ** (bits - 1)) if bits <= 4 else edges(bits, 20)
    x, y = zip(*product(numbers, repeat=2), strict=True)
    for make, plain in TWO_WORDS.values():
        assert computed(make(bits), (x, y), bits) == [signed(plain(a, b), bits) for a, b in zip(x, y, strict=True)]
    for make, plain in ONE_WORD.values():
        assert computed(make(bits), (x,), bits) == [signed(plain(a), bits) for a in x]
    less = computed(less_than(bits), (x, y), bits, result_signed=False)
    assert less == [int(a < b) for a, b in zip(x, y, strict=True)]
    less = computed(less_than(bits, signed=False), (x, y), bits, result_signed=False)
    assert less == [int(a % 2**bits < b % 2**bits) for a, b in zip(x, y, strict=True)]


@pytest.mark.parametrize(("count", "bits"), [(1, 3), (2, 3), (3, 2), (4, 2), (5, 2), (3, 1)])
def test_the_first_of_the_largest_is_found_among_all_that_there_is(count, bits):
    columns = [*zip(*product(range(-(2 ** (bits - 1)), 2 ** (bits - 1)), repeat=count), strict=True)]
    rows = [*zip(*columns, strict=True)]
    assert computed(maximum(count, bits), columns, bits) == [max(row) for row in rows]
    assert computed(argmax(count, bits), columns, bits, result_signed=False) == [row.index(max(row)) for row in rows]


@given(st.data(), st.integers(1, 11), st.sampled_from([5, 16, 32, 64]))
def test_the_largest_of_any_numbers(data, count, bits):
    numbers = st.lists(st.sampled_from(edges(bits, 3)), min_size=count, max_size=count)
    rows = data.draw(st.lists(numbers, min_size=1, max_size=5))
    columns = [*zip(*rows, strict=True)]
    assert computed(maximum(count, bits), columns, bits) == [max(row) for row in rows]
    assert computed(argmax(count, bits), columns, bits, result_signed=False) == [int(np.argmax(row)) for row in rows]


@pytest.mark.parametrize("bits", [1, 2, 3, 32, 64])
def test_relu_of_shares_leaves_shares_of_relu(bits):
    numbers = range(-(2 ** (bits - 1)), 2 ** (bits - 1)) if bits <= 3 else edges(bits, 5)
    rows = [*product(numbers, repeat=3)]
    result = computed(shared_relu(bits), [*zip(*rows, strict=True)], bits)
    for (first, mask, second), share in zip(rows, result, strict=True):
        assert signed(share + mask, bits) == max(signed(first + second, bits), 0)


@pytest.mark.parametrize(("count", "bits"), [(1, 8), (2, 2), (10, 32), (10, 64)])
def test_argmax_of_shares(count, bits):
    random = np.random.default_rng(count)
    logits = [[int(x) for x in random.choice(edges(bits, 9), count)] for _ in range(50)]
    first = [[int(x) for x in random.choice(edges(bits, 9), count)] for _ in range(50)]
    second = [[signed(x - a, bits) for x, a in zip(*pair, strict=True)] for pair in zip(logits, first, strict=True)]
    columns = [*zip(*first, strict=True), *zip(*second, strict=True)]
    places = computed(shared_argmax(count, bits), columns, bits, result_signed=False)
    assert places == [int(np.argmax(row)) for row in logits]


@pytest.mark.parametrize("k", [2, 3, 8, 32, 64])
def test_circuits_have_as_many_and_gates_as_the_table_says(k):
    ands = [make(k).ands for make in (adder, subtractor, negation, less_than, relu, shared_relu)]
    assert ands == [k - 1, k - 1, k - 2, k, k - 1, 3 * (k - 1)]
    assert [maximum(count, k).ands for count in (1, 2, 7)] == [0, 2 * k, 12 * k]


# --- evaluation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_layers_compute_what_a_loop_over_gates_does(seed, monkeypatch):
    circuit = random_circuit(seed)
    bits = random_bits(13, 5, seed)
    expected = outputs_by_the_book(circuit, bits)
    assert evaluate_plain(circuit, bits).astype(int).tolist() == expected
    monkeypatch.setattr(circuits, "ROOM", 3 * circuit.wires)
    assert evaluate_plain(circuit, bits).astype(int).tolist() == expected


def test_layers_hold_each_gate_once_and_no_gate_waits_for_its_own_layer():
    circuit = random_circuit(1, gates=200)
    gates, driven, ands = [], set(range(5)), []
    for layer in circuit.layers:
        assert {*layer.a.tolist(), *layer.b.tolist()} <= driven
        driven |= {*layer.out.tolist()}
        ands += layer.numbers.tolist() if layer.kind == "AND" else []
        gates += [Gate(layer.kind, *map(int, row)) for row in zip(layer.a, layer.b, layer.out, strict=True)]
    assert sorted(gates) == sorted(circuit.gates) and sorted(ands) == [*range(circuit.count("AND"))]


def test_constants_fold_to_the_same_truth():
    for function, plain in [("xor", lambda a, b: a ^ b), ("and_", lambda a, b: a & b)]:
        for a, b in product([False, True, "wire"], repeat=2):
            builder = Builder(1, 1)
            wires = [word[0] for word in builder.inputs]
            out = getattr(builder, function)(*(w if k == "wire" else k for w, k in zip(wires, (a, b), strict=True)))
            circuit = builder.circuit([out, builder.inv(out)])
            for x, y in product([False, True], repeat=2):
                expected = plain(x if a == "wire" else a, y if b == "wire" else b)
                assert evaluate_plain(circuit, np.array([[x, y]])).tolist() == [[expected, not expected]]
            assert circuit.ands == (function == "and_" and a == b == "wire")


def test_gates_that_no_output_needs_are_left_out():
    builder = Builder(2)
    (a, b) = builder.inputs[0]
    builder.and_(a, b)
    assert builder.circuit([builder.xor(a, b)]).gates == (Gate("XOR", 0, 1, 2),)


def test_a_fingerprint_tells_circuits_apart():
    gates = (Gate("XOR", 0, 1, 2), Gate("AND", 0, 1, 3))
    made = [
        Circuit((1, 1), ((2, 3),), gates),
        Circuit((2,), ((2, 3),), gates),
        Circuit((1, 1), ((2,), (3,)), gates),
        Circuit((1, 1), ((3, 2),), gates),
        Circuit((1, 1), ((2, 3),), gates[::-1]),
        Circuit((1, 1), ((2, 3),), (gates[0], Gate("AND", 1, 1, 3))),
    ]
    assert len({circuit.fingerprint for circuit in made}) == len(made)
    assert Circuit((1, 1), ((2, 3),), gates).fingerprint == made[0].fingerprint


# --- numbers as bits --------------------------------------------------------------------------------------------------


@given(st.integers(1, 64), st.data())
def test_numbers_are_the_bits_that_python_writes(bits, data):
    numbers = data.draw(st.lists(st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1), min_size=1, max_size=5))
    rows = to_bits(np.array(numbers, np.int64), bits)
    assert ["".join(map(str, row[::-1].astype(int))) for row in rows] == [f"{n % 2**bits:0{bits}b}" for n in numbers]
    assert from_bits(rows, signed=True).tolist() == numbers
    assert from_bits(rows).tolist() == [n % 2**bits for n in numbers]
    assert (to_bits(from_bits(rows), bits) == rows).all()


@given(st.lists(st.binary(min_size=5, max_size=5), min_size=1, max_size=4))
def test_blocks_are_big_endian_numbers(blocks):
    array = np.frombuffer(b"".join(blocks), np.uint8).reshape(-1, 5)
    rows = blocks_to_bits(array)
    numbers = [int("".join(map(str, row[::-1].astype(int))), 2) for row in rows]
    assert numbers == [int.from_bytes(block, "big") for block in blocks]
    assert (bits_to_blocks(rows) == array).all()


# --- what is refused --------------------------------------------------------------------------------------------------

BITS = np.zeros((1, 2), bool)
GOOD = {"inputs": (1, 1), "outputs": ((2,),), "gates": (Gate("AND", 0, 1, 2),)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"inputs": ()}, "inputs is 0"),
        ({"inputs": (1, 0)}, "inputs is 0; accepted: a whole number of at least 1"),
        ({"inputs": (1.5,)}, "inputs is 1.5"),
        ({"gates": (Gate("NAND", 0, 1, 2),)}, "gate 0 is 'NAND'; accepted: 'XOR', 'AND', 'INV'"),
        ({"gates": (Gate("AND", 0, 2, 2),)}, "gate 0 uses wire 2; accepted: one driven before"),
        ({"gates": (Gate("AND", -1, 0, 2),)}, "gate 0 uses wire -1"),
        ({"gates": (Gate("AND", 0, 1, 1),)}, "gate 0 drives wire 1; accepted: one not driven before"),
        ({"gates": (Gate("AND", 0, 1, -2),)}, "gate 0 drives wire -2"),
        ({"gates": (Gate("AND", 0, 1, 2**40),)}, "gate 0 drives wire 1099511627776"),
        ({"gates": (*GOOD["gates"], *GOOD["gates"])}, "gate 1 drives wire 2"),
        ({"outputs": ((3,),)}, "outputs has wires [3], which nothing drives"),
        ({"outputs": ()}, "outputs has wires []"),
    ],
)
def test_circuits_that_are_none_are_refused(refuses, change, words):
    refuses(Circuit, GOOD | change, words)


def test_arguments_are_refused(refuses):
    circuit = Circuit(**GOOD)
    refuses(evaluate_plain, {"circuit": "aes", "bits": BITS}, "circuit is 'aes'; accepted: a Circuit")
    for wrong, words in [
        (BITS[0], "bool (2,)"),
        (BITS[:0], "bool (0, 2)"),
        (BITS[:, :1], "bool (1, 1)"),
        (BITS.astype(int), "int64 (1, 2)"),
        ([[0, 1]], "a list"),
    ]:
        refuses(evaluate_plain, {"circuit": circuit, "bits": wrong}, f"bits is {words}; accepted: bool (n, 2)")
    for bits in (0, 65, 1.5, True):
        for make in (adder, subtractor, negation, less_than, relu, shared_relu):
            refuses(make, {"bits": bits}, f"bits is {bits}; accepted: ")
        for make in (maximum, argmax, shared_argmax):
            refuses(make, {"count": 2, "bits": bits}, f"bits is {bits}; accepted: ")
    for make in (maximum, argmax, shared_argmax):
        refuses(make, {"count": 0, "bits": 8}, "count is 0")
    for values in ([8], [-5], np.array([2**63], np.uint64)):
        refuses(to_bits, {"values": values, "bits": 3}, "values has numbers outside; accepted: from -4 to 7")
    for values in ([0.5], [[1]], [True], ["a"], [2**70], 5):
        refuses(to_bits, {"values": values, "bits": 3}, "values is ", "accepted: whole numbers (n,)")
    refuses(from_bits, {"bits": np.zeros((1, 65), bool)}, "bits is 65; accepted: from 1 to 64")
    refuses(from_bits, {"bits": np.zeros((1, 0), bool)}, "bits is 0")
    refuses(blocks_to_bits, {"blocks": np.zeros((1, 2))}, "blocks is float64 (1, 2); accepted: uint8 (n, B)")
    refuses(bits_to_blocks, {"bits": np.zeros((1, 7), bool)}, "bits is bool (1, 7); accepted: bool (n, 8 B)")

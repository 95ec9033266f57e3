"""Garbled circuits: against a loop over gates, a reference written from the paper, AES, and whatever is changed."""

import secrets
from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spai_lab.crypto import circuits
from spai_lab.crypto.circuits import Circuit, Gate
from spai_lab.crypto.circuits_bits import bits_to_blocks, blocks_to_bits, from_bits, to_bits
from spai_lab.crypto.circuits_bristol import find_circuit, load_circuit
from spai_lab.crypto.circuits_words import shared_relu
from spai_lab.crypto.garbled_circuit import (
    Garbled,
    decode_labels,
    decode_outputs,
    encode_inputs,
    evaluate,
    garble,
)
from spai_lab.crypto.garbled_circuit_labels import blake2_hash, tmmo_hash
from tests.crypto.random_circuits import by_the_book, outputs_by_the_book, random_bits, random_circuit

HASHES = pytest.mark.parametrize("label_hash", [blake2_hash, tmmo_hash])
AND_GATE = Circuit((1, 1), ((2,),), (Gate("AND", 0, 1, 2),))


def run(circuit, bits, **settings):
    garbled, keys = garble(circuit, len(bits), **settings)
    return garbled, keys, evaluate(circuit, garbled, encode_inputs(keys, bits))


# --- what it computes -------------------------------------------------------------------------------------------------


@HASHES
@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 9))
def test_any_circuit_computes_what_a_loop_over_gates_does(label_hash, seed, n):
    pytest.importorskip("cryptography")
    circuit, bits = random_circuit(seed), random_bits(n, 5, seed)
    garbled, keys, labels = run(circuit, bits, label_hash=label_hash)
    expected = outputs_by_the_book(circuit, bits)
    assert decode_outputs(garbled, labels).astype(int).tolist() == expected
    assert decode_labels(keys, labels).astype(int).tolist() == expected
    assert garbled.tables.nbytes == 32 * n * circuit.count("AND")


def test_instances_may_be_worked_on_in_parts(monkeypatch):
    circuit, bits = random_circuit(7), random_bits(20, 5)
    garbled, keys = garble(circuit, 20)
    monkeypatch.setattr(circuits, "ROOM", 3 * 16 * circuit.wires)
    assert len(circuits.parts(20, 16 * circuit.wires)) == 7
    labels = evaluate(circuit, garbled, encode_inputs(keys, bits))
    assert decode_outputs(garbled, labels).astype(int).tolist() == outputs_by_the_book(circuit, bits)
    garbled, _, labels = run(circuit, bits)
    assert decode_outputs(garbled, labels).astype(int).tolist() == outputs_by_the_book(circuit, bits)


@HASHES
@pytest.mark.oracle
def test_garbled_aes_is_aes(label_hash):
    ciphers = pytest.importorskip("cryptography.hazmat.primitives.ciphers")
    if find_circuit("aes_128") is None:
        pytest.skip("circuits/aes_128.txt is not there: set SPAI_DATA to a folder that has it")
    keys, blocks = np.frombuffer(secrets.token_bytes(2 * 2 * 16), np.uint8).reshape(2, 2, 16)
    bits = np.hstack([blocks_to_bits(keys), blocks_to_bits(blocks)])
    garbled, _, labels = run(load_circuit("aes_128"), bits, label_hash=label_hash)
    assert garbled.tables.nbytes == 2 * 204_800
    for key, block, text in zip(keys, blocks, bits_to_blocks(decode_outputs(garbled, labels)), strict=True):
        cipher = ciphers.Cipher(ciphers.algorithms.AES(bytes(key)), ciphers.modes.ECB()).encryptor()
        assert cipher.update(bytes(block)) == bytes(text)


def test_a_thousand_relus_of_shares():
    random = np.random.default_rng(0)
    x, first, mask = random.integers(-(2**30), 2**30, (3, 1000))
    second = (x - first + 2**31) % 2**32 - 2**31
    garbled, _, labels = run(shared_relu(32), np.hstack([to_bits(part, 32) for part in (first, mask, second)]))
    shares = from_bits(decode_outputs(garbled, labels)).astype(int)
    assert ((shares + mask) % 2**32 == np.maximum(x, 0)).all()


# --- as the paper says ------------------------------------------------------------------------------------------------


def number(label):
    return int.from_bytes(bytes(label), "little")


class Paper:
    """Half gates in whole numbers, one gate at a time, from the paper's equations and our numbers of gates."""

    def __init__(self, circuit, salt):
        self.circuit, self.salt = circuit, salt

    def hash(self, x, j):
        data = x.to_bytes(16, "little") + j.to_bytes(8, "little")
        return number(blake2b(data, digest_size=16, salt=self.salt, person=b"spai-lab GC 1").digest())

    def garble(self, zeros, offset, instance):
        """Zero labels of all wires, and tables."""
        w, tables = dict(enumerate(zeros)), []
        for kind, a, b, out in self.circuit.gates:
            if kind == "XOR":
                w[out] = w[a] ^ w[b]
            elif kind == "INV":
                w[out] = w[a] ^ offset
            else:
                j = 2 * (instance * self.circuit.count("AND") + len(tables))
                pa, pb = w[a] % 2, w[b] % 2
                tg = self.hash(w[a], j) ^ self.hash(w[a] ^ offset, j) ^ (offset if pb else 0)
                wg = self.hash(w[a], j) ^ (tg if pa else 0)
                te = self.hash(w[b], j + 1) ^ self.hash(w[b] ^ offset, j + 1) ^ w[a]
                we = self.hash(w[b], j + 1) ^ (te ^ w[a] if pb else 0)
                w[out] = wg ^ we
                tables.append([tg, te])
        return w, tables


@pytest.mark.parametrize("seed", range(5))
def test_tables_and_labels_are_those_of_the_paper(seed):
    circuit, n = random_circuit(seed), 3
    garbled, keys = garble(circuit, n)
    paper, offset = Paper(circuit, garbled.salt), number(keys.offset)
    wires = [wire for value in circuit.outputs for wire in value]
    for i in range(n):
        w, tables = paper.garble([number(label) for label in keys.inputs[i]], offset, i)
        assert [[number(half) for half in gate] for gate in garbled.tables[:, i]] == tables
        assert [number(label) for label in keys.outputs[i]] == [w[wire] for wire in wires]
        for place, wire in enumerate(wires):
            tweak = 2 * n * circuit.count("AND") + i * len(wires) + place
            hashes = [paper.hash(w[wire], tweak), paper.hash(w[wire] ^ offset, tweak)]
            assert [number(entry) for entry in garbled.decoding[i, place]] == hashes


def test_active_labels_are_those_of_the_bits():
    """All wires, those inside too, by what the garbler knows and the evaluator computes."""
    circuit, bits = random_circuit(3), random_bits(4, 5)
    inside = Circuit(circuit.inputs, (tuple(range(35)),), circuit.gates)
    _, keys, labels = run(inside, bits)
    truth = np.array([[wires[wire] for wire in range(35)] for wires in by_the_book(circuit, bits)], np.uint8)
    assert (labels == keys.outputs ^ truth[..., None] * keys.offset).all()


def test_each_number_of_a_gate_serves_for_one_wire_only():
    for seed in range(5):
        circuit, asked = random_circuit(seed), []

        def kept(labels, tweaks, salt, asked=asked):
            asked += [(int(tweak), number(label)) for label, tweak in zip(labels, tweaks, strict=True)]
            return blake2_hash(labels, tweaks, salt)

        garbled, keys = garble(circuit, 4, label_hash=kept)
        by_tweak = {}
        for tweak, label in asked:
            by_tweak.setdefault(tweak, []).append(label)
        offset = number(keys.offset)
        assert all(len(two) == 2 and two[0] ^ two[1] == offset for two in by_tweak.values())
        assert len(by_tweak) == 4 * (2 * circuit.count("AND") + 8)
        asked.clear()
        decode_outputs(garbled, evaluate(circuit, garbled, keys.inputs))
        assert sorted(tweak for tweak, _ in asked) == sorted(by_tweak)


def test_secrets_are_fresh_and_colors_differ():
    made = [garble(AND_GATE, 3) for _ in range(40)]
    assert all(keys.offset[0] & 1 for _, keys in made)
    for part in (lambda g, k: k.offset, lambda g, k: g.tables, lambda g, k: k.inputs, lambda g, k: g.decoding):
        assert len({part(*each).tobytes() for each in made}) == 40
    assert len({garbled.salt for garbled, _ in made}) == 40
    labels = {label.tobytes() for _, keys in made for label in keys.inputs.reshape(-1, 16)}
    assert len(labels) == 40 * 6


def test_tmmo_is_its_equation_block_by_block():
    ciphers = pytest.importorskip("cryptography.hazmat.primitives.ciphers")
    labels, salt = np.frombuffer(secrets.token_bytes(80), np.uint8).reshape(5, 16), secrets.token_bytes(16)
    tweaks = np.array([0, 1, 2**32, 2**63, 2**64 - 1], np.uint64)

    def permuted(x):
        cipher = ciphers.Cipher(ciphers.algorithms.AES(salt), ciphers.modes.ECB()).encryptor()
        return number(cipher.update(x.to_bytes(16, "little")))

    for label, tweak, digest in zip(labels, tweaks, tmmo_hash(labels, tweaks, salt), strict=True):
        once = permuted(number(label))
        assert number(digest) == permuted(once ^ int(tweak)) ^ once


# --- what is noticed --------------------------------------------------------------------------------------------------


def test_two_thousand_changed_tables_labels_and_hashes_are_noticed_or_do_not_matter():
    """Never a wrong bit; and what the output needs is noticed: of what is changed, about half is looked at."""
    circuit, n = random_circuit(11, gates=60), 4
    bits, random, noticed = random_bits(n, 5), np.random.default_rng(0), 0
    garbled, keys, _ = run(circuit, bits)
    labels, expected = encode_inputs(keys, bits), outputs_by_the_book(circuit, bits)
    for turn in range(2000):
        tables, given, decoding = garbled.tables.copy(), labels.copy(), garbled.decoding.copy()
        target = (tables, given, decoding)[turn % 3].reshape(-1)
        place, count = int(random.integers(len(target) - 16)), int(random.choice([1, 1, 8, 16]))
        change = np.frombuffer(random.bytes(count), np.uint8) if count > 1 else np.uint8(1 << int(random.integers(8)))
        target[place : place + count] ^= change
        changed = Garbled(garbled.salt, tables, decoding)
        try:
            result = decode_outputs(changed, evaluate(circuit, changed, given))
        except ValueError as error:
            assert "belongs to no bit" in str(error)
            noticed += 1
        else:
            assert result.astype(int).tolist() == expected
    assert 500 < noticed < 2000


def test_a_changed_input_label_or_used_table_is_always_noticed():
    bits = np.array([[True, True]] * 8)
    garbled, keys, good = run(AND_GATE, bits)
    labels = encode_inputs(keys, bits)
    for bit in range(128):
        flip = np.zeros(16, np.uint8)
        flip[bit // 8] = 1 << bit % 8
        for wire in range(2):
            changed = labels.copy()
            changed[:, wire] ^= flip
            wrong = evaluate(AND_GATE, garbled, changed)
            check_noticed(garbled, keys, wrong, 0)
            tables = garbled.tables.copy()
            tables[0, :, wire] ^= flip
            wrong = evaluate(AND_GATE, Garbled(garbled.salt, tables), labels)
            used = (labels[:, wire, 0] & 1).astype(bool)  # by the color
            assert ((wrong != good).any(axis=2)[:, 0] == used).all()
            if used.any():
                check_noticed(garbled, keys, wrong, int(np.argmax(used)))


def check_noticed(garbled, keys, labels, instance):
    for decode, known in ((decode_outputs, garbled), (decode_labels, keys)):
        with pytest.raises(ValueError, match=f"labels of instance {instance} has one for output bit 0 that belongs to"):
            decode(known, labels)


def test_what_cannot_be_noticed_is_as_the_docstring_says():
    """Another valid label is another input; hashes that were exchanged are another decoding."""
    garbled, keys, labels = run(AND_GATE, np.array([[True, True]]))
    other = evaluate(AND_GATE, garbled, encode_inputs(keys, np.array([[True, False]])))
    assert decode_outputs(garbled, other).tolist() == [[False]]
    swapped = Garbled(garbled.salt, garbled.tables, garbled.decoding[:, :, ::-1])
    assert decode_outputs(swapped, labels).tolist() == [[False]]


def test_labels_of_another_garbling_decode_to_nothing():
    garbled, _, _ = run(AND_GATE, np.array([[True, True]]))
    _, keys, labels = run(AND_GATE, np.array([[True, True]]))
    with pytest.raises(ValueError, match="belongs to no bit"):
        decode_outputs(garbled, labels)
    with pytest.raises(ValueError, match="belongs to no bit"):
        decode_labels(keys, labels ^ np.uint8(1))


# --- arguments --------------------------------------------------------------------------------------------------------


def test_arguments_are_refused(refuses):
    garbled, keys, labels = run(AND_GATE, np.array([[True, True]]))
    refuses(garble, {"circuit": None}, "circuit is None; accepted: a Circuit")
    refuses(garble, {"circuit": AND_GATE, "n": 0}, "n is 0")
    refuses(garble, {"circuit": AND_GATE, "label_hash": "md5"}, "label_hash is 'md5'")
    refuses(encode_inputs, {"keys": keys, "bits": [[1]]}, "bits is a list; accepted: bool (n, bits)")
    refuses(encode_inputs, {"keys": keys, "bits": np.ones((1, 3), bool)}, "bits is bool (1, 3) from wire 0", "(1, 2)")
    refuses(encode_inputs, {"keys": keys, "bits": np.ones((2, 2), bool)}, "bits is bool (2, 2)")
    refuses(encode_inputs, {"keys": keys, "bits": np.ones((1, 2), bool), "first": 1}, "from wire 1")
    refuses(encode_inputs, {"keys": keys, "bits": np.ones((1, 1), bool), "first": -1}, "first is -1")
    for wrong, words in [
        (keys.inputs[:, :1], "uint8 (1, 1, 16)"),
        (keys.inputs[:0], "uint8 (0, 2, 16)"),
        (keys.inputs[0], "uint8 (2, 16)"),
        (keys.inputs.astype(int), "int64 (1, 2, 16)"),
        (keys.inputs[..., :8], "uint8 (1, 2, 8)"),
        (b"label", "a bytes"),
    ]:
        arguments = {"circuit": AND_GATE, "garbled": garbled, "labels": wrong}
        refuses(evaluate, arguments, f"labels is {words}; accepted: uint8 (n, 2, 16)")
    twice = np.concatenate([keys.inputs, keys.inputs])
    arguments = {"circuit": AND_GATE, "garbled": garbled, "labels": twice}
    refuses(evaluate, arguments, "tables is uint8 (1, 1, 2, 16); accepted: uint8 (1, 2, 2, 16)")
    for decode, name, known in ((decode_outputs, "garbled", garbled), (decode_labels, "keys", keys)):
        refuses(
            decode, {name: known, "labels": labels[..., :8]}, "labels is uint8 (1, 1, 8); accepted: uint8 (1, 1, 16)"
        )
    hidden = Garbled(garbled.salt, garbled.tables)
    refuses(decode_outputs, {"garbled": hidden, "labels": labels}, "garbled has no decoding")
    assert "[" not in repr(keys)

"""What the evaluator sees is made up from the output: a trained distinguisher must fail, and find leaks we plant.

Each verdict that must find nothing has a false-alarm rate of 1e-6. Leaks that must be found show in columns that are
constant in one kind of view and coins in the other: who looks at one of them is right on 3/4 of 500 rows, 375 on
average; 304 are needed, 7 standard deviations below. The classifier looks at 16 columns, and planted ones are many.
"""

from functools import partial

import numpy as np
import pytest

from spai_lab.crypto import garbled_circuit, garbled_circuit_parties
from spai_lab.crypto.circuits import Circuit, Gate, evaluate_plain
from spai_lab.crypto.distinguisher import distinguish
from spai_lab.crypto.garbled_circuit import Garbled, decode_outputs, encode_inputs, evaluate, garble
from spai_lab.crypto.garbled_circuit_labels import blake2_hash, random_labels, tmmo_hash
from spai_lab.crypto.garbled_circuit_parties import evaluator, garbler
from spai_lab.crypto.garbled_circuit_views import garbled_evidence, simulate_garbled
from spai_lab.crypto.parties import run_parties
from tests.crypto.random_circuits import outputs_by_the_book, random_bits, random_circuit
from tests.crypto.test_garbled_circuit_parties import dealt_receiver, dealt_sender

ALPHA = 1e-6
N, M = 2000, 3  # instances, bits of the garbler
CIRCUIT = Circuit(
    (3, 2),
    ((8, 9),),
    (
        Gate("AND", 0, 3, 5),
        Gate("AND", 0, 4, 6),
        Gate("XOR", 1, 2, 7),
        Gate("AND", 5, 7, 8),
        Gate("XOR", 6, 8, 9),
    ),
)
BITS = random_bits(N, 5)
OUTPUTS = evaluate_plain(CIRCUIT, BITS)


def seen(label_hash=blake2_hash):
    """What an evaluator gets in a real run: tables, hashes, salt and its active labels, from the wire."""
    held = {}

    def receive(channel, choices):
        held["own"] = dealt_receiver(channel, choices)
        return held["own"]

    def party(channel):
        held["channel"] = channel
        return evaluator(channel, CIRCUIT, BITS[:, M:], transfer=receive, label_hash=label_hash)

    other = partial(garbler, circuit=CIRCUIT, inputs=BITS[:, :M], transfer=dealt_sender, label_hash=label_hash)
    _, result = run_parties(other, party, view=10**8)
    assert (result == OUTPUTS).all()
    came = {message.kind: message.values for message in held["channel"].view}
    tables = came["garbled tables"][0].reshape(3, N, 2, 16)
    decoding = came["decoding hashes"][0].reshape(N, 2, 2, 16)
    others = came["garbler's labels"][0].reshape(N, M, 16)
    labels = np.concatenate([others, held["own"].reshape(N, 5 - M, 16)], axis=1)
    return Garbled(came["garbled circuit"][-1], tables, decoding, label_hash), labels


def verdict(real, simulated, opened=None):
    evidence = partial(garbled_evidence, CIRCUIT, bits=BITS, opened=opened)
    found = distinguish(evidence(*real), evidence(*simulated))
    assert found.trials == 500
    return found.p_value < ALPHA


@pytest.fixture(scope="module")
def simulated():
    return simulate_garbled(CIRCUIT, OUTPUTS)


@pytest.fixture
def keys_kept(monkeypatch):
    """The keys of each garbling of a party, as if it had been opened."""
    kept = []

    def keeping(*arguments, **settings):
        garbled, keys = garble(*arguments, **settings)
        kept.append(keys)
        return garbled, keys

    monkeypatch.setattr(garbled_circuit_parties, "garble", keeping)
    return kept


# --- the simulator ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_a_simulated_garbling_evaluates_to_the_output_it_was_made_from(seed):
    circuit = random_circuit(seed)
    outputs = np.array(outputs_by_the_book(circuit, random_bits(6, 5, seed)), bool)
    garbled, labels = simulate_garbled(circuit, outputs)
    assert (decode_outputs(garbled, evaluate(circuit, garbled, labels)) == outputs).all()
    real, _ = garble(circuit, 6)
    for name in ("tables", "decoding"):
        assert getattr(garbled, name).shape == getattr(real, name).shape


# --- nothing is found -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label_hash", [blake2_hash, tmmo_hash])
def test_real_and_simulated_views_are_not_told_apart(label_hash):
    pytest.importorskip("cryptography")
    assert not verdict(seen(label_hash), simulate_garbled(CIRCUIT, OUTPUTS, label_hash=label_hash))


def test_an_opened_circuit_tells_nothing_of_the_next_one(simulated, keys_kept):
    seen()
    assert not verdict(seen(), simulated, opened=keys_kept[0].offset)
    assert (keys_kept[0].offset != keys_kept[1].offset).any()


# --- planted leaks ----------------------------------------------------------------------------------------------------


def test_a_fixed_permute_bit_is_found(simulated, monkeypatch):
    def uncolored(*shape):
        labels = random_labels(*shape)
        labels[..., 0] &= 254
        return labels

    monkeypatch.setattr(garbled_circuit, "random_labels", uncolored)
    assert verdict(seen(), simulated)


def test_a_reused_offset_is_found_once_a_circuit_was_opened(simulated, keys_kept, monkeypatch):
    fixed = random_labels(1)
    monkeypatch.setattr(
        garbled_circuit, "random_labels", lambda *shape: fixed.copy() if shape == (1,) else random_labels(*shape)
    )
    seen()
    assert verdict(seen(), simulated, opened=keys_kept[0].offset)


def test_a_hash_without_tweak_is_found(simulated):
    assert verdict(seen(lambda x, j, salt: blake2_hash(x, np.zeros_like(j), salt)), simulated)


def test_aes_under_a_fixed_key_without_tweak_is_found(simulated):
    pytest.importorskip("cryptography")
    assert verdict(seen(lambda x, j, salt: tmmo_hash(x, np.zeros_like(j), bytes(16))), simulated)


def test_a_leaked_zero_label_is_found(simulated, monkeypatch):
    """Planted: the garbler sends labels of outputs where their hashes belong, and the evaluator compares labels."""

    def leaking(*arguments, **settings):
        garbled, keys = garble(*arguments, **settings)
        pairs = np.stack([keys.outputs, keys.outputs ^ keys.offset], axis=2)
        return Garbled(garbled.salt, garbled.tables, pairs, garbled.label_hash), keys

    monkeypatch.setattr(garbled_circuit_parties, "garble", leaking)
    monkeypatch.setattr(
        garbled_circuit_parties,
        "decode_outputs",
        lambda garbled, labels: (garbled.decoding[:, :, 1] == labels).all(axis=2),
    )
    assert verdict(seen(), simulated)


def test_labels_that_serve_twice_are_found(simulated, monkeypatch):
    """Planted: instances two by two have the same labels, so that both of a pair show where bits differ."""

    def twice(*shape):
        labels = random_labels(*shape)
        if len(shape) == 2:
            labels[1::2] = labels[::2]
        return labels

    monkeypatch.setattr(garbled_circuit, "random_labels", twice)
    assert verdict(seen(), simulated)


def test_whoever_has_both_labels_of_a_wire_can_try_any_input():
    """Why a garbling serves once: labels for two inputs of the evaluator show the offset."""
    garbled, keys = garble(CIRCUIT, 1)
    one, other = (encode_inputs(keys, np.array([[True, False, True, False, last]])) for last in (False, True))
    offset = (one ^ other)[0, 4]
    for bits in random_bits(20, 5):
        turned = one ^ (bits ^ [True, False, True, False, False])[:, None] * offset
        tried = decode_outputs(garbled, evaluate(CIRCUIT, garbled, turned))
        assert tried.tolist() == evaluate_plain(CIRCUIT, bits[None]).tolist()


# --- arguments --------------------------------------------------------------------------------------------------------


def test_arguments_are_refused(refuses, simulated):
    refuses(simulate_garbled, {"circuit": 1, "outputs": OUTPUTS}, "circuit is 1; accepted: a Circuit")
    refuses(simulate_garbled, {"circuit": CIRCUIT, "outputs": BITS}, "outputs is bool (2000, 5); accepted: bool (n, 2)")
    garbled, labels = simulated
    good = {"circuit": CIRCUIT, "garbled": garbled, "labels": labels, "bits": BITS}
    refuses(garbled_evidence, good | {"bits": BITS[:, :4]}, "bits is bool (2000, 4); accepted: bool (n, 5)")
    refuses(garbled_evidence, good | {"labels": labels[:, 1:]}, "labels is uint8 (2000, 4, 16)")
    refuses(garbled_evidence, good | {"labels": labels[1:], "bits": BITS[1:]}, "bits has 1999 rows; accepted: an even")

"""Both parties of a garbled circuit: what they learn, what it costs, and all that must be refused."""

import time
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spai_lab.crypto import garbled_circuit_parties
from spai_lab.crypto.channel import Disconnected
from spai_lab.crypto.channel_ports import connect, listen
from spai_lab.crypto.circuits import Circuit, Gate
from spai_lab.crypto.circuits_bits import from_bits, to_bits
from spai_lab.crypto.circuits_words import adder, argmax, less_than, shared_relu
from spai_lab.crypto.frames import ProtocolError, pack
from spai_lab.crypto.garbled_circuit_labels import blake2_hash
from spai_lab.crypto.garbled_circuit_parties import evaluator, garbled_cost, garbler
from spai_lab.crypto.oblivious_transfer import ot_receiver, ot_sender
from spai_lab.crypto.parties import run_parties
from tests.crypto.mutations import DAMAGES, damaged
from tests.crypto.random_circuits import outputs_by_the_book, random_bits, random_circuit
from tests.crypto.transfers import WAIT, instead, leave, stall, talk


def dealt_sender(channel, pairs):
    """In the place of oblivious transfer: it tells the garbler all choices, so that tests are fast."""
    (choices,) = channel.receive("choices", np.ndarray)
    channel.send("chosen", pairs[np.arange(len(pairs)), choices.astype(int)])


def dealt_receiver(channel, choices):
    channel.send("choices", choices)
    (chosen,) = channel.receive("chosen", np.ndarray)
    return chosen


DEALT = {"garbler": {"transfer": dealt_sender}, "evaluator": {"transfer": dealt_receiver}}
BASE = {"garbler": {"transfer": ot_sender}, "evaluator": {"transfer": ot_receiver}}
EXTENDED = {"garbler": {}, "evaluator": {}}
to_whom = pytest.mark.parametrize("outputs_to", ["evaluator", "garbler", "both"])


def parties(circuit, bits, m, *, transfer=DEALT, **settings):
    one = partial(garbler, circuit=circuit, inputs=bits[:, :m], **transfer["garbler"], **settings)
    other = partial(evaluator, circuit=circuit, inputs=bits[:, m:], **transfer["evaluator"], **settings)
    return one, other


def conversation(*run, **settings):
    """As `talk`, whose roles are those of transfers."""
    results, channels = talk(*run, **settings)
    return results["sender"], results["receiver"], channels["sender"], channels["receiver"]


# --- what they compute ------------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(0, 5), st.sampled_from(["evaluator", "garbler", "both"]))
def test_who_is_to_know_gets_what_a_loop_over_gates_gives(seed, n, m, outputs_to):
    circuit, bits = random_circuit(seed), random_bits(n, 5, seed)
    results = run_parties(*parties(circuit, bits, m, outputs_to=outputs_to))
    expected = outputs_by_the_book(circuit, bits)
    for role, result in zip(("garbler", "evaluator"), results, strict=True):
        knows = outputs_to in (role, "both")
        assert (result is None) != knows
        assert not knows or result.astype(int).tolist() == expected


@pytest.mark.parametrize("transfer", [BASE, EXTENDED], ids=["on the curve", "extended"])
def test_labels_come_by_oblivious_transfer(transfer):
    x, y = [5, 200, -3], [100, 100, 3]
    bits = np.hstack([to_bits(x, 8), to_bits(y, 8)])
    _, result = run_parties(*parties(adder(8), bits, 8, transfer=transfer))
    assert from_bits(result).tolist() == [(a + b) % 256 for a, b in zip(x, y, strict=True)]


def test_a_thousand_relus_between_shares():
    random = np.random.default_rng(0)
    x, first, mask = random.integers(-(2**30), 2**30, (3, 1000))
    bits = np.hstack([to_bits(part, 32) for part in (first, mask, (x - first) % 2**32)])
    _, result = run_parties(*parties(shared_relu(32), bits, 64, transfer=EXTENDED))
    assert ((from_bits(result).astype(int) + mask) % 2**32 == np.maximum(x, 0)).all()


@pytest.mark.full
def test_processes_over_tcp():
    logits = np.random.default_rng(0).integers(-1000, 1000, (20, 10))
    bits = np.hstack([to_bits(column, 16) for column in logits.T])
    run = parties(argmax(10, 16), bits, 0, transfer=EXTENDED, outputs_to="both")
    for result in run_parties(*run, transport="processes"):
        assert from_bits(result).tolist() == logits.argmax(axis=1).tolist()


def test_long_arrays_travel_in_pieces(monkeypatch):
    monkeypatch.setattr(garbled_circuit_parties, "PIECE", 100)
    circuit, bits = random_circuit(3), random_bits(7, 5)
    one, other, *ends = conversation(*parties(circuit, bits, 2, outputs_to="both"), max_frame=500)
    assert one.astype(int).tolist() == other.astype(int).tolist() == outputs_by_the_book(circuit, bits)
    assert ends[1].bytes_received > 7 * 32 * circuit.count("AND")


# --- what they see, and what it costs ---------------------------------------------------------------------------------


@to_whom
def test_each_party_sees_what_the_table_says(outputs_to):
    run = parties(less_than(8), random_bits(3, 16), 8, outputs_to=outputs_to)
    *_, one, other = conversation(*run, view=10**6)
    back = [] if outputs_to == "evaluator" else [("output labels", 3 * 16)]
    decoding = [] if outputs_to == "garbler" else [("decoding hashes", 3 * 32)]
    assert [(kind, values[0].nbytes) for kind, values in one.view] == [("choices", 24), *back]
    head, chosen, *rest = other.view
    assert (head.kind, chosen.kind) == ("garbled circuit", "chosen")
    tables = [("garbled tables", 3 * 8 * 32), ("garbler's labels", 3 * 8 * 16), *decoding]
    assert [(kind, values[0].nbytes) for kind, values in rest] == tables


@to_whom
@pytest.mark.parametrize("m", [0, 5, 16])
def test_bytes_and_rounds_are_as_foretold(outputs_to, m, monkeypatch):
    monkeypatch.setattr(garbled_circuit_parties, "PIECE", 300)
    n, circuit = 3, less_than(8)
    run = parties(circuit, random_bits(n, 16), m, outputs_to=outputs_to, transfer=EXTENDED)
    *_, one, other = conversation(*run)
    cost = garbled_cost(circuit, n, m, outputs_to=outputs_to)
    assert one.bytes_sent == other.bytes_received == cost.sender_bytes
    assert other.bytes_sent == one.bytes_received == cost.receiver_bytes
    assert one.rounds == other.rounds == cost.rounds


def test_the_garblers_input_is_nowhere_in_what_the_evaluator_sees():
    """By bytes; that labels do not tell bits is tested by a distinguisher, beside the simulator."""
    bits = random_bits(200, 16)
    *_, other = conversation(*parties(adder(8), bits, 8), view=10**7)
    seen = b"".join(pack(*message[:1], *message.values) for message in other.view)
    own = bits[:, :8]
    packed = [np.packbits(each, bitorder=order) for each in (own, own.T) for order in ("big", "little")]
    assert all(spelled.tobytes()[:20] not in seen for spelled in (own, own.T, *packed))


# --- what is refused --------------------------------------------------------------------------------------------------

CIRCUIT, BITS = adder(4), random_bits(6, 8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"circuit": less_than(4)}, "the circuit is another one"),
        ({"inputs": BITS[:5, 4:]}, "the number of instances is another one: 6 there, 5 here"),
        ({"inputs": BITS[:, 5:]}, "the garbler's bits is another one: 4 there, 5 here"),
        ({"outputs_to": "both"}, "who gets the output is another one: evaluator there, both here"),
        ({"label_hash": lambda *a: blake2_hash(*a)}, "the hash is another one: blake2_hash there, <lambda> here"),
    ],
)
def test_parties_that_agreed_on_different_things_are_told(change, words):
    one, other = parties(CIRCUIT, BITS, 4)
    victim, refused, *_ = conversation(one, partial(other, **change))
    assert type(refused) is ProtocolError and words in str(refused)
    assert isinstance(victim, Disconnected)


SENT = {"garbled circuit": 0, "transfer": 1, "garbled tables": 2, "garbler's labels": 3, "decoding hashes": 4}
FORMS = {
    "tables": ("garbled tables", lambda a: a[1:], "'garbled tables' holds uint8 (575,), expected uint8 (576)"),
    "other tables": ("garbled tables", lambda a: a.astype(np.uint16), "'garbled tables' holds uint16 (576,)"),
    "labels": ("garbler's labels", lambda a: np.tile(a, 2), "holds uint8 (768,), expected uint8 (384)"),
    "shape": ("garbler's labels", lambda a: a.reshape(-1, 16), "holds uint8 (24, 16), expected uint8 (384)"),
    "hashes": ("decoding hashes", lambda a: a[:0], "'decoding hashes' holds uint8 (0,)"),
    "chosen": ("transfer", lambda a: a[:, :15], "the transfers give uint8 (24, 15), expected uint8 (24, 16)"),
    "fewer": ("transfer", lambda a: a[:-1], "the transfers give uint8 (23, 16)"),
    "wrong tables": ("garbled tables", lambda a: a ^ 1, "belongs to no bit"),
    "wrong labels": ("garbler's labels", lambda a: a ^ 1, "belongs to no bit"),
    "wrong hashes": ("decoding hashes", lambda a: a ^ 1, "labels of instance 0 has one for output bit 0 that belongs"),
    "wrong chosen": ("transfer", lambda a: a ^ 1, "belongs to no bit"),
}


@pytest.mark.parametrize(("kind", "change", "words"), FORMS.values(), ids=FORMS)
def test_messages_that_are_wrong_are_refused_by_name(kind, change, words):
    _, refused, *_ = conversation(
        *parties(CIRCUIT, BITS, 4), who="sender", place=SENT[kind], change=instead(lambda array: change(array))
    )
    assert type(refused) is ProtocolError and words in str(refused)


def test_a_salt_of_another_length_is_refused():
    _, refused, *_ = conversation(*parties(CIRCUIT, BITS, 4), who="sender", change=lambda channel, *v: (*v[:-1], b"a"))
    assert type(refused) is ProtocolError and "the salt has 1 bytes, expected 16" in str(refused)


def test_a_number_of_instances_that_cannot_be_spelled_is_refused():
    huge = lambda channel, name, n, *rest: (name, 10**5000, *rest)  # noqa: E731
    _, refused, *_ = conversation(*parties(CIRCUIT, BITS, 4), who="sender", change=huge)
    assert type(refused) is ProtocolError and "another one: a huge number there, 6 here" in str(refused)


@pytest.mark.parametrize("change", [lambda a: a ^ 1, lambda a: a[1:], lambda a: a.reshape(2, -1)])
def test_a_garbler_is_told_of_output_labels_that_are_none(change):
    run = parties(CIRCUIT, BITS, 4, outputs_to="garbler")
    refused, nothing, *_ = conversation(*run, who="receiver", place=1, change=instead(change))
    assert type(refused) is ProtocolError and nothing is None
    assert "belongs to no bit" in str(refused) or "'output labels' holds" in str(refused)


@pytest.mark.parametrize(
    ("who", "place"), [("sender", 0), ("sender", 2), ("sender", 4), ("receiver", 0), ("receiver", 1)]
)
@pytest.mark.parametrize("change", [leave, stall], ids=["leaves", "stalls"])
def test_nobody_waits_for_a_party_that_leaves_or_stalls(who, place, change):
    run = parties(CIRCUIT, BITS, 4, outputs_to="both")
    start = time.monotonic()
    one, other, *_ = conversation(*run, who=who, place=place, change=change, timeout=WAIT)
    victim = other if who == "sender" else one
    assert isinstance(victim, Disconnected if change is leave else TimeoutError | ProtocolError)
    assert time.monotonic() - start < 10 * WAIT


TRANSFERS = {
    "texts": ("sender", 2, lambda texts: texts ^ 1),
    "texts exchanged": ("sender", 2, lambda texts: texts[:, ::-1]),
    "columns": ("receiver", 2, lambda columns: columns ^ 255),
    "base texts": ("receiver", 1, lambda texts: texts ^ 1),
}


@pytest.mark.parametrize(("who", "place", "change"), TRANSFERS.values(), ids=TRANSFERS)
def test_transfers_that_were_changed_give_labels_that_are_none(who, place, change):
    run = parties(CIRCUIT, BITS, 4, transfer=EXTENDED)
    _, refused, *_ = conversation(*run, who=who, place=place, change=instead(change))
    assert type(refused) is ProtocolError and "belongs to no bit" in str(refused)


def outcome(party, payloads):
    """What a party makes of frames that were recorded or damaged, from a peer that then leaves."""
    with listen() as door:
        peer = connect(door.address, name="peer", peer="party", timeout=WAIT)
        channel = door.accept(name="party", peer="peer", timeout=WAIT)
    peer._transport.write(b"".join(payloads), WAIT)
    peer.close()
    try:
        return party(channel)
    except (ProtocolError, TimeoutError) as error:
        return error
    finally:
        channel.close()


def test_a_thousand_damaged_messages_are_refused_or_do_no_harm():
    """The evaluator gets a recorded conversation, one message of which is damaged: the right output, or an error.

    The conversation is played back over TCP, so that an evaluator with the same choices gets the same labels. What may
    pass unseen is damage to what is not looked at, never a wrong output.
    """
    run = parties(CIRCUIT, BITS, 4)
    _, good, *_, other = conversation(*run, view=10**6)
    frames = [pack(message.kind, *message.values) for message in other.view]
    assert (outcome(run[1], frames) == good).all()
    random, errors = np.random.default_rng(0), 0
    for damage in DAMAGES:
        for _ in range(150):
            place = int(random.integers(len(frames)))
            data = frames[place][4:]
            changed = damaged(random, data, [frame[4:] for frame in frames], damage, {0: "<B", 1: "<I", 10: "<I"})
            sent = [len(changed).to_bytes(4, "big") + changed if i == place else f for i, f in enumerate(frames)]
            result = outcome(run[1], sent)
            errors += isinstance(result, Exception)
            assert isinstance(result, ProtocolError | TimeoutError) or (result == good).all()
    assert errors > len(DAMAGES) * 150 / 2
    for length in (0, 1, len(frames[2]) + 1, 2**26, 2**32 - 1):
        sent = [*frames[:2], length.to_bytes(4, "big") + frames[2][4:], *frames[3:]]
        assert isinstance(outcome(run[1], sent), ProtocolError)


# --- arguments --------------------------------------------------------------------------------------------------------


def test_arguments_are_refused(refuses):
    good = {"channel": None, "circuit": CIRCUIT, "inputs": BITS[:, :4]}
    for party in (garbler, evaluator):
        refuses(party, good | {"circuit": 5}, "circuit is 5; accepted: a Circuit")
        refuses(party, good | {"inputs": BITS[0]}, "inputs is bool (8,); accepted: bool (n, bits), n at least 1")
        refuses(party, good | {"inputs": BITS.astype(int)}, "inputs is int64 (6, 8)")
        refuses(
            party, good | {"inputs": np.hstack([BITS, BITS])}, "inputs is bool (6, 16); accepted: at most", "8 bits"
        )
        refuses(party, good | {"outputs_to": "all"}, "outputs_to is 'all'; accepted: 'evaluator', 'garbler', 'both'")
        refuses(party, good | {"label_hash": 5}, "label_hash is 5")
        refuses(party, good | {"transfer": None}, "transfer is None")
    cost = {"circuit": CIRCUIT, "n": 1, "garbler_bits": 4}
    refuses(garbled_cost, cost | {"n": 0}, "n is 0")
    refuses(garbled_cost, cost | {"garbler_bits": -1}, "garbler_bits is -1")
    refuses(garbled_cost, cost | {"garbler_bits": 9}, "garbler_bits is 9; accepted: from 0 to 8")
    refuses(garbled_cost, cost | {"outputs_to": 1}, "outputs_to is 1")


def test_a_circuit_without_and_gates_needs_no_tables():
    circuit = Circuit((1, 1), ((2, 3),), (Gate("XOR", 0, 1, 2), Gate("INV", 2, 2, 3)))
    bits = np.array([[False, True], [True, True]])
    _, result, *_, other = conversation(*parties(circuit, bits, 1), view=10**5)
    assert result.astype(int).tolist() == [[1, 0], [0, 1]]
    assert "garbled tables" not in [message.kind for message in other.view]

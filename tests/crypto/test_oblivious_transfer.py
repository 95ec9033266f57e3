"""Oblivious transfer on the curve: against a curve written from its addition law, and all that must be refused."""

import threading
import time
from functools import partial
from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl import bindings as sodium

from spai_lab.crypto import oblivious_transfer
from spai_lab.crypto.channel import Disconnected, pair
from spai_lab.crypto.channel_ports import connect, listen
from spai_lab.crypto.frames import ProtocolError, pack
from spai_lab.crypto.oblivious_transfer import Cost, ot_cost, ot_receiver, ot_sender, pads
from spai_lab.crypto.parties import run_parties
from tests.crypto import edwards
from tests.crypto.mutations import DAMAGES, damaged
from tests.crypto.transfers import WAIT, instead, leave, stall, talk

TORSION = edwards.torsion()


def inputs(n, length, seed=0):
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (n, 2, length), np.uint8), random.random(n) < 0.5


def parties(n=3, length=16, seed=0):
    pairs, choices = inputs(n, length, seed)
    return partial(ot_sender, pairs=pairs), partial(ot_receiver, choices=choices)


def asked_for(pairs, choices):
    return [bytes(pairs[i, int(c)]) for i, c in enumerate(choices)]


# --- what it computes -------------------------------------------------------------------------------------------------


@settings(max_examples=15)
@given(st.lists(st.booleans(), min_size=1, max_size=6), st.sampled_from([1, 16, 63, 64, 65, 128, 200]), st.data())
def test_the_receiver_gets_what_it_asked_for(choices, length, data):
    pairs = np.array(
        data.draw(
            st.lists(st.binary(min_size=2 * length, max_size=2 * length), min_size=len(choices), max_size=len(choices))
        )
    ).astype(f"S{2 * length}")
    pairs = np.frombuffer(pairs.tobytes(), np.uint8).reshape(-1, 2, length)
    receiver = partial(ot_receiver, choices=np.array(choices))
    none, received = run_parties(partial(ot_sender, pairs=pairs), receiver)
    assert none is None and received.dtype == np.uint8
    assert [*map(bytes, received)] == asked_for(pairs, choices)


def reference_keys(i, S, R, shared, length):
    """The pad of a transfer, spelled out."""
    data = i.to_bytes(8, "little") + S + R + shared
    return blake2b(data, digest_size=length, salt=bytes(8), person=b"spai-lab OT 1").digest()


def test_a_sender_of_another_curve_understands_our_receiver():
    pairs, choices = inputs(4, 16)
    y = 2**200 + 12345
    S = edwards.times(y, edwards.BASE)

    def reference(channel):
        channel.send("OT point", np.frombuffer(edwards.encoded(S), np.uint8))
        (points,) = channel.receive("OT points", np.ndarray)
        texts = np.zeros_like(pairs)
        for i, point in enumerate(map(bytes, points)):
            for j in range(2):
                shifted = edwards.add(edwards.decoded(point), edwards.negated(S)) if j else edwards.decoded(point)
                shared = edwards.encoded(edwards.times(y, shifted))
                key = reference_keys(i, edwards.encoded(S), point, shared, 16)
                texts[i, j] = pairs[i, j] ^ np.frombuffer(key, np.uint8)
        channel.send("OT texts", texts)

    _, received = run_parties(reference, partial(ot_receiver, choices=choices))
    assert [*map(bytes, received)] == asked_for(pairs, choices)


def test_a_receiver_of_another_curve_understands_our_sender():
    pairs, choices = inputs(4, 16, seed=1)
    x = [2**180 + 7**i for i in range(4)]

    def reference(channel):
        (S,) = channel.receive("OT point", np.ndarray)
        start = [edwards.decoded(bytes(S)) if c else edwards.IDENTITY for c in choices]
        R = [edwards.encoded(edwards.add(p, edwards.times(n, edwards.BASE))) for p, n in zip(start, x, strict=True)]
        channel.send("OT points", np.frombuffer(b"".join(R), np.uint8).reshape(4, 32))
        (texts,) = channel.receive("OT texts", np.ndarray)
        shared = [edwards.encoded(edwards.times(n, edwards.decoded(bytes(S)))) for n in x]
        keys = [reference_keys(i, bytes(S), R[i], shared[i], 16) for i in range(4)]
        return [bytes(texts[i, int(c)] ^ np.frombuffer(keys[i], np.uint8)) for i, c in enumerate(choices)]

    _, received = run_parties(partial(ot_sender, pairs=pairs), reference)
    assert received == asked_for(pairs, choices)


def test_long_pads_are_hashes_with_numbered_salts():
    rows = np.arange(20, dtype=np.uint8).reshape(2, 10)
    got = pads(rows, 150, person=b"p")
    for row, pad in zip(rows, got, strict=True):
        salts = [(0, 64), (1, 64), (2, 22)]
        blocks = [
            blake2b(bytes(row), digest_size=n, salt=bytes([k]) + bytes(7), person=b"p").digest() for k, n in salts
        ]
        assert bytes(pad) == b"".join(blocks)


def test_scalars_are_numbers_of_the_group_and_never_zero(monkeypatch):
    drawn = iter([bytes(64), edwards.ORDER.to_bytes(64, "little"), (edwards.ORDER + 5).to_bytes(64, "little")])
    monkeypatch.setattr(oblivious_transfer.secrets, "token_bytes", lambda n: next(drawn))
    assert int.from_bytes(oblivious_transfer.scalar(), "little") == 5


def test_bytes_and_rounds_are_those_of_the_table():
    for n, length in [(1, 1), (3, 100), (17, 16)]:
        _, channels = talk(*parties(n, length))
        sender, receiver = channels["sender"], channels["receiver"]
        assert sender.bytes_sent == receiver.bytes_received == (56 + 32) + 2 * n * length
        assert receiver.bytes_sent == sender.bytes_received == 29 + 32 * n
        assert sender.rounds == receiver.rounds == 3
        assert ot_cost(n, length) == Cost(sender.bytes_sent, receiver.bytes_sent, 3)


def test_over_tcp():
    pairs, choices = inputs(3, 16)
    with listen() as door:
        receiver = connect(door.address)
        thread = threading.Thread(target=ot_sender, args=(door.accept(), pairs))
        thread.start()
        assert [*map(bytes, ot_receiver(receiver, choices))] == asked_for(pairs, choices)
        thread.join()
        receiver.close()


# --- points that are refused ------------------------------------------------------------------------------------------


def spelled(number):
    return number.to_bytes(32, "little")


MIXED = edwards.encoded(edwards.add(edwards.times(7, edwards.BASE), TORSION[1]))
WRONG_POINTS = {
    **{f"order {order}, {i}": edwards.encoded(TORSION[i]) for i, order in enumerate([1, 8, 4, 8, 2, 8, 4, 8])},
    "identity, longer": spelled(edwards.P + 1),
    "identity, with a sign": spelled(1 | 1 << 255),
    "order 4, longer": spelled(edwards.P),
    "order 2, with a sign": spelled(edwards.P - 1 | 1 << 255),
    "not on the curve": spelled(next(y for y in range(2, 99) if edwards.decoded(spelled(y)) is None)),
    "prime order and a point of order 8": MIXED,
    "prime order and a point of order 2": edwards.encoded(edwards.add(edwards.times(7, edwards.BASE), TORSION[4])),
    "all ones": b"\xff" * 32,
}


def test_wrong_points_are_what_they_are_called():
    for i, order in enumerate([1, 8, 4, 8, 2, 8, 4, 8]):
        assert edwards.times(order, TORSION[i]) == edwards.IDENTITY
        assert order == 1 or edwards.times(order // 2, TORSION[i]) != edwards.IDENTITY
    assert edwards.decoded(MIXED) and edwards.times(edwards.ORDER, edwards.decoded(MIXED)) == TORSION[5]
    assert sodium.crypto_core_ed25519_is_valid_point(edwards.encoded(edwards.times(7, edwards.BASE)))


@pytest.mark.parametrize("point", WRONG_POINTS.values(), ids=WRONG_POINTS)
def test_points_that_are_none_are_refused_by_name(point):
    wrong = np.frombuffer(point, np.uint8)
    results, _ = talk(*parties(), who="sender", place=0, change=instead(lambda S: wrong))
    assert type(results["receiver"]) is ProtocolError
    assert str(results["receiver"]).startswith("sender to receiver: the sender's point is no point of the subgroup")
    assert isinstance(results["sender"], Disconnected)

    def third(points):
        return np.concatenate([points[:2], wrong[None]])

    results, channels = talk(*parties(), who="receiver", place=0, change=instead(third))
    assert type(results["sender"]) is ProtocolError and "the receiver's point 2 is no point" in str(results["sender"])
    assert isinstance(results["receiver"], Disconnected) and channels["sender"].bytes_sent == 56


def test_without_the_check_a_sender_reads_the_choices(monkeypatch):
    """Planted: nobody checks. The receiver's point is in the prime-order subgroup only if it did not add S."""
    monkeypatch.setattr(oblivious_transfer, "check_point", lambda *arguments: None)
    seen = []

    def evil(channel):
        channel.send("OT point", np.frombuffer(MIXED, np.uint8))
        seen.append(channel.receive("OT points", np.ndarray)[0])

    choices = np.random.default_rng(0).random(40) < 0.5
    run_parties(evil, partial(ot_receiver, choices=choices), return_exceptions=True)
    assert [not sodium.crypto_core_ed25519_is_valid_point(bytes(point)) for point in seen[0]] == choices.tolist()


# --- messages that are refused ----------------------------------------------------------------------------------------

WRONG_MESSAGES = {
    "S shorter": ("sender", 0, lambda S: S[:31], "'OT point' holds uint8 (31,), expected uint8 (32)"),
    "S longer": ("sender", 0, lambda S: np.append(S, np.uint8(0)), "uint8 (33,)"),
    "S none": ("sender", 0, lambda S: S[:0], "uint8 (0,)"),
    "S twice": ("sender", 0, lambda S: np.stack([S, S]), "uint8 (2, 32)"),
    "S of other numbers": ("sender", 0, lambda S: S.astype(np.int8), "int8 (32,)"),
    "S as bytes": ("sender", 0, bytes, "(bytes), expected (ndarray)"),
    "a point less": ("receiver", 0, lambda R: R[1:], "'OT points' holds uint8 (2, 32), expected uint8 (3, 32)"),
    "a point more": ("receiver", 0, lambda R: np.concatenate([R, R[:1]]), "uint8 (4, 32)"),
    "shorter points": ("receiver", 0, lambda R: R[:, :31], "uint8 (3, 31)"),
    "points in a row": ("receiver", 0, np.ravel, "uint8 (96,)"),
    "a text less": ("sender", 1, lambda e: e[1:], "'OT texts' holds uint8 (2, 2, 16), expected uint8 (3, 2, any)"),
    "a text more": ("sender", 1, lambda e: np.concatenate([e, e]), "uint8 (6, 2, 16)"),
    "one of two": ("sender", 1, lambda e: e[:, :1], "uint8 (3, 1, 16)"),
    "empty texts": ("sender", 1, lambda e: e[..., :0], "uint8 (3, 2, 0)"),
    "other numbers": ("sender", 1, lambda e: e.astype(np.uint16), "uint16 (3, 2, 16)"),
}


@pytest.mark.parametrize(("who", "place", "change", "words"), WRONG_MESSAGES.values(), ids=WRONG_MESSAGES)
def test_messages_of_another_form_are_refused_by_name(who, place, change, words):
    results, _ = talk(*parties(), who=who, place=place, change=instead(change))
    victim = results["receiver" if who == "sender" else "sender"]
    assert type(victim) is ProtocolError and words in str(victim)
    assert who != "receiver" or isinstance(results["receiver"], Disconnected)


def test_a_length_that_was_agreed_on_is_held_to():
    pairs, choices = inputs(3, 16)
    sender = partial(ot_sender, pairs=pairs)
    results, _ = talk(sender, partial(ot_receiver, choices=choices, length=15))
    assert type(results["receiver"]) is ProtocolError and "expected uint8 (3, 2, 15)" in str(results["receiver"])
    results, _ = talk(sender, partial(ot_receiver, choices=choices, length=16))
    assert [*map(bytes, results["receiver"])] == asked_for(pairs, choices)


messages = pytest.mark.parametrize(("who", "place"), [("sender", 0), ("receiver", 0), ("sender", 1)])


def told(results, who, error):
    """The other party raised this error, which names both."""
    victim = results["receiver" if who == "sender" else "sender"]
    assert isinstance(victim, error) and "sender" in str(victim) and "receiver" in str(victim), victim


@messages
def test_who_stalls_holds_nobody_up(who, place):
    start = time.monotonic()
    results, _ = talk(*parties(), who=who, place=place, change=stall, timeout=WAIT)
    told(results, who, TimeoutError)
    assert time.monotonic() - start < 20 * WAIT


@messages
def test_who_leaves_holds_nobody_up(who, place):
    results, _ = talk(*parties(), who=who, place=place, change=leave)
    told(results, who, Disconnected)


def places(payload):
    """Where the numbers of a frame stand that may lie: the lengths of its kind and of its array."""
    start = 5 + payload[4] + 3
    return {1: ">I", start - 2: ">B", start - 1: ">B", start: ">I", start + 4: ">I"}


def outcome(party, frames):
    """What comes of a party that is sent these frames, and what it had sent by then."""
    here, there = pair("here", "there", timeout=5)
    for frame in frames:
        there._transport.write(frame, 5)
    there._transport.close()
    try:
        return party(here), here.bytes_sent
    except (ProtocolError, TimeoutError) as error:
        assert str(error)
        return error, here.bytes_sent
    finally:
        here.close()


def test_mutated_messages_end_in_an_error_or_in_noise_of_the_right_shape():
    random, n = np.random.default_rng(0), 2
    pairs, choices = inputs(n, 16)
    victims = {"sender": partial(ot_sender, pairs=pairs), "receiver": partial(ot_receiver, choices=choices, length=16)}
    _, channels = talk(*victims.values(), view=10**6)
    count = errors = 0
    for role, party in victims.items():
        frames = [pack(kind, *values) for kind, values in channels[role].view]
        payloads = [frame[4:] for frame in frames]
        for place, payload in enumerate(payloads):
            for damage in DAMAGES:
                for _ in range(50):
                    wrong = damaged(random, payload, payloads, damage, places(payload))
                    sent = [*frames[:place], len(wrong).to_bytes(4, "big") + wrong, *frames[place + 1 :]]
                    result, sent_bytes = outcome(party, sent)
                    count += 1
                    if isinstance(result, Exception):
                        errors += 1
                        assert role == "receiver" or sent_bytes == 56  # S, and nothing made from a wrong point
                    else:
                        assert (role == "sender" and result is None) or result.shape == (n, 16)
            for length in [0, 1, len(payload) - 1, len(payload) + 1, 2**26, 2**32 - 1]:
                sent = [*frames[:place], length.to_bytes(4, "big") + payload, *frames[place + 1 :]]
                assert isinstance(outcome(party, sent)[0], ProtocolError)
    assert count == 3 * len(DAMAGES) * 50 and errors > count / 2


# --- what the docstring says that it does not give --------------------------------------------------------------------


def test_a_message_can_be_changed_on_its_way():
    pairs, choices = inputs(3, 16)
    results, _ = talk(*parties(), who="sender", place=1, change=instead(lambda e: e ^ np.uint8(1)))
    assert (results["receiver"] ^ 1).tolist() == [[*message] for message in asked_for(pairs, choices)]


def test_a_request_that_was_turned_round_ends_in_noise_and_nobody_is_told():
    """R' = S - R asks for the other message, but its pad belongs to R', and the receiver's to R."""
    pairs, choices = inputs(3, 16)
    S = []

    def turned_round(points):
        return np.stack([np.frombuffer(sodium.crypto_core_ed25519_sub(S[0], bytes(p)), np.uint8) for p in points])

    def listening(channel):
        class Listening:
            def __getattr__(self, name):
                return getattr(channel, name)

            def receive(self, kind, *types):
                values = channel.receive(kind, *types)
                if kind == "OT point":
                    S.append(bytes(values[0]))
                return values

        return ot_receiver(Listening(), choices)

    sender = partial(ot_sender, pairs=pairs)
    results, _ = talk(sender, listening, who="receiver", place=0, change=instead(turned_round))
    assert results["sender"] is None
    for i in range(3):  # by chance 2^-128 each
        assert bytes(results["receiver"][i]) not in {bytes(pairs[i, 0]), bytes(pairs[i, 1])}


def test_a_receiver_chooses_bits_of_its_pad():
    def picky(channel):
        S = oblivious_transfer.receive_point(channel)
        while True:  # 256 times on average
            x = oblivious_transfer.scalar()
            R = np.frombuffer(oblivious_transfer.times_base(x), np.uint8)[None]
            pad = pads(oblivious_transfer.rows(S, R, [oblivious_transfer.times(x, S)]), 16, person=b"spai-lab OT 1")
            if pad[0, 0] == 0:
                channel.send("OT points", R)
                return channel.receive("OT texts", np.ndarray)[0]

    pairs, _ = inputs(1, 16)
    _, texts = run_parties(partial(ot_sender, pairs=pairs), picky)
    assert texts[0, 0, 0] == pairs[0, 0, 0]


# --- arguments --------------------------------------------------------------------------------------------------------


def test_arguments_are_refused(refuses):
    channel, _ = pair()
    for wrong, words in [
        (np.zeros((3, 2), np.uint8), "uint8 (3, 2)"),
        (np.zeros((3, 3, 1), np.uint8), "uint8 (3, 3, 1)"),
        (np.zeros((0, 2, 1), np.uint8), "uint8 (0, 2, 1)"),
        (np.zeros((1, 2, 0), np.uint8), "uint8 (1, 2, 0)"),
        (np.zeros((1, 2, 1)), "float64 (1, 2, 1)"),
        ([[b"a", b"b"]], "a list"),
    ]:
        refuses(ot_sender, {"channel": channel, "pairs": wrong}, f"pairs is {words}; accepted: uint8 (n, 2, L)")
    for wrong, words in [
        (np.zeros(3, np.uint8), "uint8 (3,)"),
        (np.zeros((3, 1), bool), "bool (3, 1)"),
        (np.zeros(0, bool), "bool (0,)"),
        ([True], "a list"),
    ]:
        refuses(ot_receiver, {"channel": channel, "choices": wrong}, f"choices is {words}; accepted: bool (n,)")
    refuses(ot_receiver, {"channel": channel, "choices": np.ones(1, bool), "length": 0}, "length is 0")
    refuses(ot_cost, {"n": 0, "length": 1}, "n is 0")
    refuses(ot_cost, {"n": 1, "length": 0}, "length is 0")
    assert channel.bytes_sent == 0

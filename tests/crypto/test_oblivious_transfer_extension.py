"""Extended and correlated transfers, and products: against bits and whole numbers, and all that must be refused."""

import time
from functools import partial
from hashlib import blake2b, shake_256

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from spai_lab.crypto import oblivious_transfer_extension as extension
from spai_lab.crypto.channel import Disconnected, pair
from spai_lab.crypto.frames import ProtocolError, pack
from spai_lab.crypto.oblivious_transfer import Cost, indexed, ot_receiver, ot_sender, pads
from spai_lab.crypto.oblivious_transfer_extension import (
    correlated_receiver,
    correlated_sender,
    extended_cost,
    extended_receiver,
    extended_sender,
    turned,
)
from spai_lab.crypto.oblivious_transfer_products import product_cost, product_shares_receiver, product_shares_sender
from spai_lab.crypto.parties import run_parties
from tests.crypto.mutations import DAMAGES, damaged
from tests.crypto.test_oblivious_transfer import asked_for, inputs, outcome, places, told
from tests.crypto.transfers import WAIT, instead, leave, stall, talk

DELTA = np.arange(100, 116, dtype=np.uint8)
WORDS = st.integers(0, 2**64 - 1)


def numbers(m, seed=0):
    return np.random.default_rng(seed).integers(0, 2**64, (2, m), np.uint64)


def parties(protocol, n=10):
    pairs, choices = inputs(n, 16)
    x, y = numbers(n)
    return {
        "extended": (partial(extended_sender, pairs=pairs), partial(extended_receiver, choices=choices, length=16)),
        "correlated": (
            partial(correlated_sender, delta=DELTA, n=n),
            partial(correlated_receiver, choices=choices, length=16),
        ),
        "products": (partial(product_shares_sender, values=x), partial(product_shares_receiver, values=y)),
    }[protocol]


every = pytest.mark.parametrize("protocol", ["extended", "correlated", "products"])


# --- what they compute ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "length"), [(1, 1), (7, 16), (8, 64), (9, 65), (129, 200), (2**16 + 9, 2)])
def test_the_receiver_gets_what_it_asked_for(n, length):
    pairs, choices = inputs(n, length)
    sender = partial(extended_sender, pairs=pairs)
    _, received = run_parties(sender, partial(extended_receiver, choices=choices))
    assert received.dtype == np.uint8 and [*map(bytes, received)] == asked_for(pairs, choices)


@pytest.mark.parametrize(("n", "length"), [(1, 1), (77, 16), (9, 100)])
def test_correlated_messages_differ_by_delta_where_it_was_asked_for(n, length):
    delta, choices = np.arange(1, length + 1, dtype=np.uint8), inputs(n, length)[1]
    sender, receiver = partial(correlated_sender, delta=delta, n=n), partial(correlated_receiver, choices=choices)
    zeros, received = run_parties(sender, receiver)
    assert zeros.shape == received.shape == (n, length)
    for zero, got, c in zip(zeros, received, choices, strict=True):
        assert [a ^ b for a, b in zip(zero.tolist(), got.tolist(), strict=True)] == [int(c) * d for d in delta.tolist()]
    assert n == 1 or len({*map(bytes, zeros)}) == n


@settings(max_examples=8)
@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=20))
@example([(2**64 - 1, 2**64 - 1), (0, 5), (5, 0), (2**63, 2), (2**63, 2**63), (1, 2**64 - 1)])
def test_shares_add_up_to_the_product_of_whole_numbers(pairs):
    x, y = np.array(pairs, np.uint64).T.copy()
    one, other = run_parties(partial(product_shares_sender, values=x), partial(product_shares_receiver, values=y))
    assert one.dtype == other.dtype == np.uint64 and one.shape == other.shape == (len(pairs),)
    sums = [(int(a) + int(b)) % 2**64 for a, b in zip(one, other, strict=True)]
    assert sums == [a * b % 2**64 for a, b in pairs]


def test_two_products_make_a_triple():
    m = 50
    (a0, b0), (a1, b1) = numbers(m), numbers(m, seed=1)

    def first(channel):
        return a0 * b0 + product_shares_sender(channel, a0) + product_shares_receiver(channel, b0)

    def second(channel):
        return a1 * b1 + product_shares_receiver(channel, b1) + product_shares_sender(channel, a1)

    c0, c1 = run_parties(first, second)
    for parts in zip(a0, a1, b0, b1, c0, c1, strict=True):
        s, t, u, v, w, z = map(int, parts)
        assert (w + z) % 2**64 == (s + t) * (u + v) % 2**64


def test_a_sender_written_bit_by_bit_understands_our_receiver():
    n = 20
    pairs, choices = inputs(n, 16)
    s = [(i * i + i // 3) % 2 for i in range(128)]

    def reference(channel):
        seeds = ot_receiver(channel, np.array(s, bool))
        (u,) = channel.receive("OT columns", np.ndarray)
        columns = []
        for i in range(128):
            seed = i.to_bytes(8, "little") + bytes(seeds[i])
            data = shake_256(b"spai-lab OT columns 1" + seed).digest(3)
            data = bytes(a ^ s[i] * b for a, b in zip(data, bytes(u[i]), strict=True))
            columns.append("".join(f"{byte:08b}" for byte in data))
        texts = np.zeros_like(pairs)
        for j in range(n):
            for c in range(2):
                row = "".join(str(int(columns[i][j]) ^ c * s[i]) for i in range(128))
                data = j.to_bytes(8, "little") + int(row, 2).to_bytes(16, "big")
                key = blake2b(data, digest_size=16, salt=bytes(8), person=b"spai-lab OTX 1").digest()
                texts[j, c] = pairs[j, c] ^ np.frombuffer(key, np.uint8)
        channel.send("extended OT texts", texts)

    _, received = run_parties(reference, partial(extended_receiver, choices=choices))
    assert [*map(bytes, received)] == asked_for(pairs, choices)


@pytest.mark.parametrize("n", [1, 8, 13, 1000])
def test_a_matrix_of_bits_is_turned(n, monkeypatch):
    monkeypatch.setattr(extension, "SLICE", 64)
    bits = np.random.default_rng(n).integers(0, 2, (128, n)).tolist()
    columns = np.array(
        [[int("".join(map(str, row[k : k + 8])).ljust(8, "0"), 2) for k in range(0, n, 8)] for row in bits]
    )
    rows = turned(columns.astype(np.uint8), n)
    assert rows.shape == (n, 16)
    for row, column in zip(rows, zip(*bits, strict=True), strict=True):
        assert int.from_bytes(bytes(row), "big") == int("".join(map(str, column)), 2)


@pytest.mark.full
def test_processes_over_tcp():
    pairs, choices = inputs(3000, 16)
    sender, receiver = partial(extended_sender, pairs=pairs), partial(extended_receiver, choices=choices)
    _, received = run_parties(sender, receiver, transport="processes")
    assert [*map(bytes, received)] == asked_for(pairs, choices)


def test_each_call_draws_its_own_secrets():
    pairs, choices = inputs(16, 16)
    seen = []
    for _ in range(2):
        sender, receiver = partial(extended_sender, pairs=pairs), partial(extended_receiver, choices=choices)
        _, channels = talk(sender, receiver, view=10**6)
        seen.append([bytes(value) for end in channels.values() for m in end.view for value in m.values])
    assert len(seen[0]) == 5 and not {*seen[0]} & {*seen[1]}


# --- what it costs ----------------------------------------------------------------------------------------------------


def test_bytes_and_rounds_are_those_of_the_table():
    base = (56 + 32) + 2 * 128 * 16, 29 + 128 * 32
    assert base == (4184, 4125)
    for n, length in [(1, 1), (7, 16), (100, 70)]:
        pairs, choices = inputs(n, length)
        columns = 30 + 128 * -(-n // 8)
        extended = partial(extended_sender, pairs=pairs), partial(extended_receiver, choices=choices)
        check_cost(extended, extended_cost(n, length), base[1] + 41 + 2 * n * length, base[0] + columns)
        delta = pairs[0, 0]
        correlated = partial(correlated_sender, delta=delta, n=n), partial(correlated_receiver, choices=choices)
        cost = extended_cost(n, length, correlated=True)
        check_cost(correlated, cost, base[1] + 34 + n * length, base[0] + columns)
    cost = base[1] + 31 + 64 * 8 * 3, base[0] + 30 + 128 * 8 * 3
    check_cost(parties("products", 3), product_cost(3), *cost)


def check_cost(run, cost, sent, received):
    _, channels = talk(*run)
    sender, receiver = channels["sender"], channels["receiver"]
    assert sender.bytes_sent == receiver.bytes_received == sent
    assert receiver.bytes_sent == sender.bytes_received == received
    assert sender.rounds == receiver.rounds == 4
    assert cost == Cost(sent, received, 4)


# --- messages that are refused ----------------------------------------------------------------------------------------

FORMS = {
    "columns": (
        "extended",
        "receiver",
        2,
        lambda u: u[:127],
        "'OT columns' holds uint8 (127, 2), expected uint8 (128, 2)",
    ),
    "shorter columns": ("correlated", "receiver", 2, lambda u: u[:, :1], "uint8 (128, 1)"),
    "longer columns": (
        "products",
        "receiver",
        2,
        lambda u: np.hstack([u, u]),
        "uint8 (128, 160), expected uint8 (128, 80)",
    ),
    "words": ("extended", "receiver", 2, lambda u: u.astype(np.uint16), "uint16"),
    "a text less": ("extended", "sender", 1, lambda e: e[1:], "uint8 (9, 2, 16), expected uint8 (10, 2, 16)"),
    "longer texts": ("extended", "sender", 1, lambda e: np.dstack([e, e]), "uint8 (10, 2, 32)"),
    "a correction less": ("correlated", "sender", 1, lambda e: e[1:], "'OT corrections' holds uint8 (9, 16)"),
    "a longer correction": ("correlated", "sender", 1, lambda e: np.hstack([e, e]), "uint8 (10, 32)"),
    "a product less": ("products", "sender", 1, lambda e: e[1:], "'OT products' holds uint64 (9, 64)"),
    "other products": ("products", "sender", 1, lambda e: e.view(np.int64), "int64 (10, 64), expected uint64 (10, 64)"),
    "base points": ("extended", "sender", 0, lambda R: R[:100], "uint8 (100, 32), expected uint8 (128, 32)"),
    "base texts": ("extended", "receiver", 1, lambda e: e[..., :8], "uint8 (128, 2, 8), expected uint8 (128, 2, 16)"),
    "S": ("extended", "receiver", 0, np.zeros_like, "the sender's point is no point"),
}


@pytest.mark.parametrize(("protocol", "who", "place", "change", "words"), FORMS.values(), ids=FORMS)
def test_messages_of_another_form_are_refused_by_name(protocol, who, place, change, words):
    results, _ = talk(*parties(protocol), who=who, place=place, change=instead(change))
    victim = results["receiver" if who == "sender" else "sender"]
    assert type(victim) is ProtocolError and words in str(victim)
    assert (who, place) == ("sender", 1) or isinstance(results[who], Disconnected)


@every
def test_parties_that_disagree_on_how_many_are_told(protocol):
    sender, _ = parties(protocol, 10)
    _, receiver = parties(protocol, 17)
    results, _ = talk(sender, receiver)
    assert isinstance(results["sender"], ProtocolError) and isinstance(results["receiver"], Disconnected)


def test_also_within_a_byte():
    sender, _ = parties("extended", 10)
    _, receiver = parties("extended", 11)
    results, _ = talk(sender, receiver)
    assert "uint8 (10, 2, 16), expected uint8 (11, 2, 16)" in str(results["receiver"])


MESSAGES = [("receiver", 0), ("sender", 0), ("receiver", 1), ("receiver", 2), ("sender", 1)]
STALLS = [("extended", *message) for message in MESSAGES] + [(name, "sender", 1) for name in ("correlated", "products")]


@pytest.mark.parametrize(("protocol", "who", "place"), STALLS)
def test_who_stalls_holds_nobody_up(protocol, who, place):
    start = time.monotonic()
    results, _ = talk(*parties(protocol, 1), who=who, place=place, change=stall, timeout=WAIT)
    told(results, who, TimeoutError)
    assert time.monotonic() - start < 20 * WAIT


@every
@pytest.mark.parametrize(("who", "place"), MESSAGES)
def test_who_leaves_holds_nobody_up(protocol, who, place):
    results, _ = talk(*parties(protocol, 1), who=who, place=place, change=leave)
    told(results, who, Disconnected)


@every
def test_mutated_messages_end_in_an_error_or_in_noise_of_the_right_shape(protocol, monkeypatch):
    """The base transfers have their own test; here their seeds are zeros, and nothing of them is sent."""
    monkeypatch.setattr(extension, "ot_sender", lambda channel, pairs: None)
    monkeypatch.setattr(extension, "ot_receiver", lambda channel, bits, length: np.zeros((128, 16), np.uint8))
    random, n = np.random.default_rng(0), 3
    sender, receiver = parties(protocol, n)
    _, channels = talk(sender, receiver, view=10**6)
    count = errors = 0
    for role, party in {"sender": sender, "receiver": receiver}.items():
        ((kind, values),) = channels[role].view
        payload = pack(kind, *values)[4:]
        for damage in DAMAGES:
            for _ in range(100):
                wrong = damaged(random, payload, [payload], damage, places(payload))
                result, sent = outcome(party, [len(wrong).to_bytes(4, "big") + wrong])
                count += 1
                if isinstance(result, Exception):
                    errors += 1
                    assert role == "receiver" or sent == 0
                elif result is not None:
                    assert len(result) == n and (result.dtype, result.ndim) in [(np.uint8, 2), (np.uint64, 1)]
                else:
                    assert (protocol, role) == ("extended", "sender")
        for length in [0, 1, len(payload) - 1, len(payload) + 1, 2**26, 2**32 - 1]:
            assert isinstance(outcome(party, [length.to_bytes(4, "big") + payload])[0], ProtocolError)
    assert count == 2 * len(DAMAGES) * 100 and errors > count / 3


# --- what the docstring says that it does not give --------------------------------------------------------------------


def test_a_receiver_that_cheats_reads_all_messages():
    """Semi-honest only: with the single bit j as the choice of transfer j, known messages tell s, and s the others."""
    known, secret = 128, 50
    pairs, _ = inputs(known + secret, 16)
    pairs[:known, 0] = 0
    choices = np.zeros((128, known + secret), bool)
    choices[np.arange(128), np.arange(known)] = True

    def cheat(channel):
        seeds = np.random.default_rng(0).integers(0, 256, (128, 2, 16), np.uint8)
        ot_sender(channel, seeds)
        size = -(-choices.shape[1] // 8)
        t, other = (extension.stream(seeds[:, j], size) for j in range(2))
        channel.send("OT columns", t ^ other ^ np.packbits(choices, axis=1))
        (texts,) = channel.receive("extended OT texts", np.ndarray)
        t = turned(t, choices.shape[1])
        keys = pads(indexed(t), 16, person=extension.PERSON)
        s = np.packbits((texts[:known, 0] != keys[:known]).any(axis=1))
        others = pads(indexed(t ^ s), 16, person=extension.PERSON)
        return texts[known:] ^ np.stack([keys, others], axis=1)[known:]

    _, stolen = run_parties(partial(extended_sender, pairs=pairs), cheat)
    assert (stolen == pairs[known:]).all()


# --- arguments --------------------------------------------------------------------------------------------------------


def test_arguments_are_refused(refuses):
    channel, _ = pair()
    refuses(extended_sender, {"channel": channel, "pairs": np.zeros((1, 2), np.uint8)}, "pairs is uint8 (1, 2)")
    refuses(extended_receiver, {"channel": channel, "choices": np.ones(1)}, "choices is float64 (1,)")
    refuses(correlated_receiver, {"channel": channel, "choices": np.ones(0, bool)}, "choices is bool (0,)")
    refuses(correlated_receiver, {"channel": channel, "choices": np.ones(1, bool), "length": -1}, "length is -1")
    for wrong, words in [(b"a", "a bytes"), (np.ones((1, 1), np.uint8), "uint8 (1, 1)"), (np.ones(2), "float64 (2,)")]:
        refuses(
            correlated_sender, {"channel": channel, "delta": wrong, "n": 1}, f"delta is {words}; accepted: uint8 (L,)"
        )
    refuses(correlated_sender, {"channel": channel, "delta": DELTA, "n": 0}, "n is 0")
    for function in (product_shares_sender, product_shares_receiver):
        for wrong, words in [
            ([1], "a list"),
            (np.ones(2, np.int64), "int64 (2,)"),
            (np.ones((1, 1), np.uint64), "uint64 (1, 1)"),
            (np.ones(0, np.uint64), "uint64 (0,)"),
        ]:
            refuses(function, {"channel": channel, "values": wrong}, f"values is {words}; accepted: uint64 (m,)")
    refuses(extended_cost, {"n": 0, "length": 1}, "n is 0")
    refuses(product_cost, {"m": 0}, "m is 0")
    assert channel.bytes_sent == 0

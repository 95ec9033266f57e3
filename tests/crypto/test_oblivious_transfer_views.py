"""Who learns what from a transfer: a trained distinguisher must fail on the real thing, and find leaks that we plant.

Each verdict that must find nothing has a false-alarm rate of 1e-6. The weakest leak that must be found is a choice in
one bit of a point: who looks there is right on 7/8 of the rows, each of two transfers; at 250 rows 163 are needed.
"""

import secrets
import threading
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from spai_lab.crypto import oblivious_transfer as base
from spai_lab.crypto import oblivious_transfer_extension as extension
from spai_lab.crypto.distinguisher import Verdict, distinguish
from spai_lab.crypto.oblivious_transfer import ot_receiver, ot_sender
from spai_lab.crypto.oblivious_transfer_extension import extended_receiver, extended_sender
from spai_lab.crypto.oblivious_transfer_products import product_shares_receiver, product_shares_sender
from spai_lab.crypto.oblivious_transfer_views import (
    Transfer,
    compared,
    real_views,
    receiver_evidence,
    sender_evidence,
    simulated_receiver_view,
    simulated_sender_view,
)
from tests.crypto.test_oblivious_transfer import asked_for, inputs
from tests.crypto.transfers import talk

ALPHA = 1e-6
EXTENDED = Transfer(extended_sender, extended_receiver)


class Case:
    """Inputs, and simulated views of both parties, by code in which nothing was planted."""

    def __init__(self, n, step, transfer):
        self.pairs, self.choices = inputs(n, 16)
        self.step, self.transfer = step, transfer
        messages = self.pairs[np.arange(n), self.choices.astype(int)]
        self.sender = self.of_sender(simulated_sender_view(self.pairs, transfer=transfer))
        self.receiver = self.of_receiver(simulated_receiver_view(self.choices, messages, transfer=transfer))

    def of_sender(self, view):
        return sender_evidence(view, self.choices, step=self.step)

    def of_receiver(self, view):
        return receiver_evidence(view, self.pairs, step=self.step)

    def found(self, transfer=None):
        """Whether the sender's view tells of choices, and the receiver's of the other message."""
        seen = real_views(self.pairs, self.choices, transfer=transfer or self.transfer)
        verdicts = (
            distinguish(self.of_sender(seen.sender), self.sender),
            distinguish(self.of_receiver(seen.receiver), self.receiver),
        )
        assert min(verdict.trials for verdict in verdicts) >= 250
        return tuple(verdict.p_value < ALPHA for verdict in verdicts)


@pytest.fixture(scope="module")
def curve():
    return Case(1000, 1, Transfer())


@pytest.fixture(scope="module")
def extended():
    return Case(2048, 64, EXTENDED)


# --- nothing is found -------------------------------------------------------------------------------------------------


def test_views_of_the_real_protocol_look_like_simulated_ones(curve, extended):
    assert curve.found() == extended.found() == (False, False)


def test_a_simulator_gives_the_receiver_what_it_asked_for():
    pairs, choices = inputs(5, 16)
    messages = np.array([[*message] for message in asked_for(pairs, choices)], np.uint8)
    for transfer in (None, EXTENDED):
        seen = real_views(pairs, choices, transfer=transfer)
        assert [*map(bytes, seen.messages)] == asked_for(pairs, choices)
        simulated = simulated_receiver_view(choices, messages, transfer=transfer)
        assert [m.kind for m in simulated] == [m.kind for m in seen.receiver]
        simulated = simulated_sender_view(pairs, transfer=transfer)
        assert [(m.kind, m.values[0].shape) for m in simulated] == [(m.kind, m.values[0].shape) for m in seen.sender]


# --- planted leaks on the curve ---------------------------------------------------------------------------------------


def leaky_receiver(channel, choices):
    """Planted: draws x until the sign of its point is its choice."""
    S = base.receive_point(channel)
    points = []
    for c in choices:
        while True:
            point = base.times_base(base.scalar())
            point = base.sodium.crypto_core_ed25519_add(point, S) if c else point
            if point[31] >> 7 == c:
                break
        points.append([*point])
    channel.send("OT points", np.array(points, np.uint8))
    channel.receive("OT texts", np.ndarray)


def test_a_leaked_choice_bit_is_found(curve):
    seen = real_views(curve.pairs, curve.choices, transfer=Transfer(ot_sender, leaky_receiver))
    assert distinguish(curve.of_sender(seen.sender), curve.sender).p_value < ALPHA


def reuse_scalar(monkeypatch):
    """Planted: the receiver has the same x in all transfers."""
    fresh, fixed = base.scalar, base.scalar()
    monkeypatch.setattr(base, "scalar", lambda: fixed if threading.current_thread().name == "receiver" else fresh())


def test_reused_randomness_tells_the_sender_which_choices_are_alike(curve, monkeypatch):
    reuse_scalar(monkeypatch)
    assert curve.found() == (True, False)  # the number in the hash still protects the messages


def test_a_hash_without_the_number_of_the_transfer_then_pads_twice(curve, monkeypatch):
    reuse_scalar(monkeypatch)
    monkeypatch.setattr(base, "indexed", lambda rows: rows)
    assert curve.found() == (True, True)


def test_one_pad_for_both_messages_is_found(curve, monkeypatch):
    monkeypatch.setattr(base.sodium, "crypto_core_ed25519_sub", lambda point, other: point)
    seen = real_views(curve.pairs, curve.choices)
    assert distinguish(curve.of_receiver(seen.receiver), curve.receiver).p_value < ALPHA


# --- planted leaks in the extension -----------------------------------------------------------------------------------


def short_stream(monkeypatch):
    """Planted: a stream that begins anew after 64 bits."""
    stream = extension.stream
    monkeypatch.setattr(extension, "stream", lambda seeds, size: np.tile(stream(seeds, 8), size // 8))


def test_reused_columns_tell_the_sender_which_choices_are_alike(extended, monkeypatch):
    short_stream(monkeypatch)
    assert extended.found() == (True, False)


def test_a_hash_without_the_number_of_the_row_then_pads_twice(extended, monkeypatch):
    short_stream(monkeypatch)
    monkeypatch.setattr(extension, "indexed", lambda rows: rows)
    assert extended.found() == (True, True)


def test_columns_that_show_the_choices_are_found(extended, monkeypatch):
    monkeypatch.setattr(extension, "stream", lambda seeds, size: np.zeros((len(seeds), size), np.uint8))
    assert extended.found()[0]


def no_secret(monkeypatch):
    """Planted: the sender's s is zero, so that both its pads are the same."""
    draw = secrets.token_bytes
    fixed = SimpleNamespace(token_bytes=lambda n: bytes(n) if n == extension.SEED else draw(n))
    monkeypatch.setattr(extension, "secrets", fixed)


def test_a_sender_without_a_secret_is_found(extended, monkeypatch):
    no_secret(monkeypatch)
    assert extended.found() == (False, True)


def rows_of_sender(case, monkeypatch, choices):
    """The rows that a sender makes of its view and its own secrets, alone and with what a choice would change."""
    made, rows = [], extension.sender_rows
    with monkeypatch.context() as patch:
        patch.setattr(
            extension, "sender_rows", lambda channel, n, s: made.append((rows(channel, n, s), s)) or made[0][0]
        )
        real_views(case.pairs, choices, transfer=EXTENDED)
    ((q, s),) = made
    alone, with_choice = (np.unpackbits(each, axis=1) for each in (q, q ^ s * case.choices[:, None]))
    return np.hstack([compared(alone, case.step), compared(with_choice, case.step)])


def test_rows_that_a_sender_makes_of_its_view_tell_no_choice(extended, monkeypatch):
    simulated = rows_of_sender(extended, monkeypatch, np.zeros_like(extended.choices))
    assert distinguish(rows_of_sender(extended, monkeypatch, extended.choices), simulated).p_value >= ALPHA
    short_stream(monkeypatch)
    assert distinguish(rows_of_sender(extended, monkeypatch, extended.choices), simulated).p_value < ALPHA


# --- products ---------------------------------------------------------------------------------------------------------


def corrections(m):
    """What a receiver sees of products whose x is fixed, as bits, two rows together."""
    x, y = (np.full(m, value, np.uint64) for value in (2**63 + 12345, 99))
    sender, receiver = partial(product_shares_sender, values=x), partial(product_shares_receiver, values=y)
    results, channels = talk(sender, receiver, view=10**8)
    (seen,) = [m.values[0] for m in channels["receiver"].view if m.kind == "OT products"]
    return results, np.unpackbits(seen.view(np.uint8).reshape(m, -1), axis=1)


def noise(shape):
    size = int(np.prod(shape))
    return np.unpackbits(np.frombuffer(secrets.token_bytes(size // 8), np.uint8)).reshape(shape)


def test_shares_and_corrections_of_products_look_random_and_a_missing_secret_is_found(monkeypatch):
    results, bits = corrections(512)
    assert distinguish(bits, noise(bits.shape)).p_value >= ALPHA
    for share in results.values():
        counts = np.bincount(share.view(np.uint8), minlength=256)
        assert stats.chisquare(counts).pvalue >= ALPHA
    no_secret(monkeypatch)
    _, bits = corrections(512)
    assert distinguish(bits, noise(bits.shape)).p_value < ALPHA


# --- the distinguisher itself -----------------------------------------------------------------------------------------


def test_the_verdict_is_the_tail_of_a_binomial_distribution():
    real, simulated = np.zeros((400, 3)), np.ones((400, 3))
    assert distinguish(real, simulated) == Verdict(200, 200, 0.5**200)
    assert distinguish(real, simulated).accuracy == 1


def test_false_alarms_are_as_rare_as_they_should_be():
    """Of 200 verdicts on nothing at most Bin(200, .1) are below .1: more than the bound with probability 1e-6."""
    bits = noise((200, 2, 80, 20))
    alarms = sum(distinguish(real, simulated).p_value < 0.1 for real, simulated in bits)
    assert alarms <= stats.binom.isf(ALPHA, 200, 0.1)


def test_a_bit_that_is_one_in_three_quarters_is_found():
    """Who looks there is right on 5/8 of 3,000 rows, 1,875; 1,631 are needed, 9 standard deviations below."""
    bits = noise((2, 6000, 50))
    bits[0, :, 7] |= noise((6000,))
    assert distinguish(*bits).p_value < ALPHA


def test_arguments_are_refused(refuses):
    bits = np.zeros((40, 2))
    refuses(distinguish, {"real": bits[:39], "simulated": bits}, "real is of shape (39, 2)", "N at least 40")
    refuses(distinguish, {"real": [1], "simulated": bits}, "real is [1]")
    refuses(distinguish, {"real": bits, "simulated": np.zeros((40, 3))}, "simulated is of shape (40, 3)", "(40, 2)")
    pairs, choices = inputs(4, 16)
    refuses(real_views, {"pairs": pairs, "choices": choices[:3]}, "choices is bool (3,)", "bool (4,)")
    refuses(simulated_sender_view, {"pairs": pairs[0]}, "pairs is uint8 (2, 16)")
    refuses(simulated_receiver_view, {"choices": choices, "messages": pairs}, "messages is uint8 (4, 2, 16)")
    refuses(sender_evidence, {"view": (), "choices": choices, "step": 4}, "step is 4", "divides 4")
    refuses(receiver_evidence, {"view": (), "pairs": pairs, "step": 0}, "step is 0")


def test_rows_are_compared_with_those_a_step_away():
    assert compared(np.array([[1], [0], [0], [0]]), 1).tolist() == [[1, 0, 1], [0, 0, 0]]


def test_the_receiver_of_the_curve_is_the_default():
    assert Transfer() == (ot_sender, ot_receiver)

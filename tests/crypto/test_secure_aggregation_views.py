"""What server and helpers see of secure aggregation, counted over all masks there are in a small ring.

The protocol runs as it is, on vectors with an entry for each assignment of all masks: only the generator is replaced,
which gives each seed another column. So a view is a distribution that is counted, not sampled, and two inputs that
should look alike must give the same one, exactly.
"""

import threading
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest

from spai_lab.crypto import secure_aggregation, secure_aggregation_messages
from spai_lab.crypto import secure_aggregation_parties as protocol
from spai_lab.crypto.parties import run_parties
from spai_lab.crypto.secret_sharing_ring import Ring, to_ring, to_signed
from spai_lab.crypto.secure_aggregation import Terms
from spai_lab.crypto.secure_aggregation_keys import ClientKeys
from spai_lab.crypto.secure_aggregation_parties import INPUT, aggregation_client, aggregation_server
from spai_lab.crypto.secure_aggregation_rollcall import STOP
from tests.crypto.enumeration import assignments, distribution
from tests.crypto.transfers import Tampered

BITS, MASKS = 3, 6
RING, SIZE = Ring(BITS), 2 ** (BITS * MASKS)
DEADLINE = 1.0


class Masks:
    """A column for each seed, and who has computed which."""

    def __init__(self, drawn, no_self_masks=False):
        self.columns, self.known, self.own, self.lock = {}, {}, set(), threading.Lock()
        self.left, self.drawn, self.no_self_masks = assignments(BITS, drawn), drawn, no_self_masks

    def expand(self, seed, size, *, ring):
        with self.lock:
            if seed not in self.columns:
                column = self.left.pop()
                self.columns[seed] = column * np.uint64(not (self.no_self_masks and seed in self.own))
            self.known.setdefault(seed, set()).add(threading.current_thread().name)
        return self.columns[seed].copy()

    def client_keys(self, fresh):
        with self.lock:
            self.own.add((keys := fresh()).seed)
        return keys

    def of(self, *names):
        """The columns that these parties have computed, in an order that does not depend on the seeds."""
        seeds = [seed for seed, known in self.known.items() if known & {*names}]
        clients = {seed: sorted(known - {threading.main_thread().name}) for seed, known in self.known.items()}
        return [self.columns[seed] for seed in sorted(seeds, key=lambda seed: (seed not in self.own, clients[seed]))]


@contextmanager
def enumerated_masks(drawn=MASKS, **faults):
    masks, fresh = Masks(drawn, **faults), protocol.client_keys
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(secure_aggregation, "expand", masks.expand)
        patch.setattr(protocol, "client_keys", lambda: masks.client_keys(fresh))
        yield masks
    assert len(masks.columns) == drawn, "not all was drawn"


def belated():
    """Who sends its input once it is told that it is gone, and who helps only then."""
    sent = threading.Event()

    def late(channel, *values):
        channel.receive_any({STOP: None}, timeout=30)
        channel.send(INPUT, *values)
        sent.set()

    def patient(channel, *values):
        sent.wait(30)
        return values

    return (2, late), (3, patient)


def run(rounds, *, gone=None, late=None, size=SIZE):
    """Rounds of the protocol: a list of inputs for each, the same number in all entries; what the server has."""
    n = len(rounds[0])
    terms = [Terms(n, n // 2 + 1, size, round=t, ring=RING) for t in range(len(rounds))]

    changes = {} if late is None else dict(zip((late, 0), belated(), strict=True))

    def client(number, channel):
        channel = Tampered(channel, *changes[number]) if number in changes else channel
        for inputs, each in zip(rounds, terms, strict=True):
            x = to_ring([inputs[number]], RING).repeat(size)
            aggregation_client(channel, x, each, number, leave_before="masked input" if number == gone else None)

    def server(*channels):
        wait = 30 if late is None else DEADLINE
        return [aggregation_server(*channels, terms=each, deadline=wait) for each in terms]

    served, *_ = run_parties(
        server,
        *(partial(client, number) for number in range(n)),
        topology="star",
        names=[threading.main_thread().name, *(f"client {number}" for number in range(n))],
        return_exceptions=True,
        view=2**28,
        max_frame=2**28,
    )
    for inputs, each in zip(rounds, served, strict=True):
        assert (to_signed(each.total, RING) == sum(inputs[u] for u in each.included)).all()
    return served


def view(rounds, *, helpers=(), extra=lambda masks: [], faults=None, drawn=MASKS, **settings):
    """How often each joint view of the server, and of clients who help it, occurs."""
    with enumerated_masks(drawn, **(faults or {})) as masks:
        served = run(rounds, size=2 ** (BITS * drawn), **settings)
        assert settings.get("late") is None or served[0].late == ((settings["late"], INPUT),)
        inputs = [values[1] for messages in served[-1].views for kind, values in messages if kind == INPUT]
        known = masks.of(threading.main_thread().name, *(f"client {u}" for u in helpers))
        return distribution(BITS, [*inputs, *known, *extra(masks)])


# --- nothing is seen but the sum --------------------------------------------------------------------------------------


def test_a_server_sees_the_same_whatever_inputs_have_this_sum():
    seen = view([[1, 0, -1]])
    assert seen == view([[0, 0, 0]]) == view([[-1, 1, 0]])
    assert seen != view([[1, 0, 0]])  # another sum


def test_a_server_sees_nothing_of_who_has_left_and_the_same_of_the_others():
    seen = view([[1, -1, 1]], gone=2, drawn=5)
    assert seen == view([[0, 0, 1]], gone=2, drawn=5) == view([[-1, 1, -1]], gone=2, drawn=5)
    assert seen != view([[1, 0, 1]], gone=2, drawn=5)


def test_a_server_sees_nothing_of_an_input_that_comes_late():
    assert view([[1, 0, 1]], late=2) == view([[0, 1, -1]], late=2)


def test_a_server_and_a_client_see_the_sum_of_the_others():
    seen = view([[1, 1, -1]], helpers=[0])
    assert seen == view([[1, 0, 0]], helpers=[0]) == view([[1, -1, 1]], helpers=[0])
    assert seen != view([[0, 0, 0]], helpers=[0]) and seen != view([[1, 1, 0]], helpers=[0])


def test_a_server_sees_the_same_in_two_rounds():
    assert view([[1, 0], [0, 1]]) == view([[0, 1], [0, 1]]) == view([[0, 1], [1, 0]])


# --- planted faults ---------------------------------------------------------------------------------------------------


def test_without_self_masks_a_late_input_lies_open():
    """Nobody notices as long as nobody is late: the sum is right, and the views alike."""
    faults = {"no_self_masks": True}
    assert view([[1, 0, 0]], faults=faults) == view([[0, 1, 0]], faults=faults)
    assert view([[1, 0, 1]], late=2, faults=faults) != view([[1, 0, 0]], late=2, faults=faults)


def test_both_shares_of_a_late_client_lay_its_input_open():
    def of_client_2(masks):
        return masks.of("client 2")

    assert view([[1, 0, 1]], late=2, extra=of_client_2) != view([[1, 0, 0]], late=2, extra=of_client_2)


def reuse_keys(monkeypatch):
    """Each client has the same keys in all rounds, and fresh seeds."""
    first, fresh = {}, protocol.client_keys

    def draw():
        keys = fresh()
        kept = first.setdefault(threading.current_thread().name, keys)
        return ClientKeys(kept.masks, kept.shares, keys.seed)

    monkeypatch.setattr(protocol, "client_keys", draw)


def test_the_round_in_the_hash_keeps_masks_apart_and_without_it_two_rounds_show_inputs(monkeypatch):
    reuse_keys(monkeypatch)
    assert view([[1, 0], [0, 1]]) == view([[0, 1], [0, 1]])
    agree = secure_aggregation_messages.agree
    monkeypatch.setattr(
        secure_aggregation_messages, "agree", lambda own, other, digest, use: agree(own, other, bytes(32), use)
    )
    one, other = (view(rounds, drawn=5) for rounds in ([[1, 0], [0, 1]], [[0, 1], [0, 1]]))
    assert one != other

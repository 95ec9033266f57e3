"""Server and clients of secure aggregation: NumPy's sums, whoever leaves when, and all that must be refused."""

import socket
import time
from contextlib import ExitStack
from functools import partial
from itertools import product

import numpy as np
import pytest

from spai_lab.crypto import secure_aggregation_parties as protocol
from spai_lab.crypto.channel import Channel, Disconnected, pair
from spai_lab.crypto.frames import HEADER, ProtocolError, pack, unpack
from spai_lab.crypto.parties import run_parties
from spai_lab.crypto.secret_sharing_ring import Ring, decode, encode, to_ring, to_signed
from spai_lab.crypto.secure_aggregation import Terms
from spai_lab.crypto.secure_aggregation_messages import aggregation_cost
from spai_lab.crypto.secure_aggregation_parties import (
    ALL_KEYS,
    ALL_SHARES,
    ANSWER,
    INPUT,
    KEYS,
    REQUEST,
    SHARES,
    STEPS,
    Aggregate,
    aggregation_client,
    aggregation_server,
    secure_sum,
)
from spai_lab.crypto.secure_aggregation_rollcall import STOP, TooFewClients
from spai_lab.crypto.transports import Tcp, loopback
from tests.crypto.mutations import DAMAGES, damaged
from tests.crypto.transfers import Tampered, leave

LARGEST = 1000
WAIT = 1.0  # seconds that the server waits where somebody does not come
TERMS = Terms(clients=4, threshold=3, size=5, largest=LARGEST)


def vectors(terms, seed=0):
    low = terms.largest if terms.largest < 2**62 else 2**62
    return np.random.default_rng(seed).integers(-low, low, (terms.clients, terms.size), endpoint=True)


def plain_sum(x, included):
    return x[list(included)].sum(axis=0)


def play(terms=TERMS, *, changes=None, wrap=None, dropouts=None, server=None, deadline=30.0, seed=0, **settings):
    """What the server and each client returned or raised; `changes` one message of a client, by number and place."""
    x = vectors(terms, seed)

    def client(number, channel):
        for place, change in [(changes or {}).get(number, (None, None))]:
            channel = channel if place is None else Tampered(channel, place, change)
        channel = wrap(number, channel) if wrap else channel
        left = (dropouts or {}).get(number)
        return aggregation_client(channel, to_ring(x[number], terms.ring), terms, number, leave_before=left)

    outcomes = run_parties(
        server or partial(aggregation_server, terms=terms, deadline=deadline),
        *(partial(client, number) for number in range(terms.clients)),
        topology="star",
        names=["the server", *(f"client {number}" for number in range(terms.clients))],
        return_exceptions=True,
        **settings,
    )
    return x, outcomes[0], outcomes[1:]


def check_sum(x, served, included):
    assert isinstance(served, Aggregate), served
    assert served.included == tuple(included)
    assert (to_signed(served.total) == plain_sum(x, included)).all()


# --- who leaves, and when ---------------------------------------------------------------------------------------------


def fate(pattern, threshold):
    """Who is in the sum, or the step after which fewer than t are left; by a loop over steps."""
    present, included = set(range(len(pattern))), None
    for step in STEPS:
        present -= {u for u, left in enumerate(pattern) if left == step}
        included = sorted(present) if step == "masked input" else included
        if len(present) < threshold:
            return step
    return included


def check_pattern(pattern, terms):
    dropouts = {u: step for u, step in enumerate(pattern) if step}
    x, served, clients = play(terms, dropouts=dropouts, seed=len(dropouts))
    expected = fate(pattern, terms.threshold)
    if isinstance(expected, str):
        assert type(served) is TooFewClients and f"left after the step {expected!r}" in str(served)
        assert all(isinstance(seen, ProtocolError | None) or expected == "unmasking" for seen in clients)
    else:
        check_sum(x, served, expected)
        assert {a.client: a.step for a in served.absences} == dropouts and not served.late
        assert clients == [None if u in dropouts else tuple(expected) for u in range(terms.clients)]


def test_all_ways_in_which_three_clients_can_leave():
    for pattern in product((None, *STEPS), repeat=3):
        check_pattern(pattern, Terms(3, 2, 4, largest=LARGEST))


@pytest.mark.full
@pytest.mark.parametrize("threshold", [3, 4])
def test_all_ways_in_which_four_clients_can_leave(threshold):
    for pattern in product((None, *STEPS), repeat=4):
        check_pattern(pattern, Terms(4, threshold, 3))


@pytest.mark.full
def test_all_ways_in_which_five_clients_can_leave():
    for pattern in product((None, *STEPS), repeat=5):
        check_pattern(pattern, Terms(5, 3, 2))


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_up_to_n_less_t_may_leave_at_each_step_and_one_more_may_not(step, count):
    pattern = [step if u % 2 and u // 2 < count else None for u in range(7)]
    pattern[0] = step if count == 4 else None
    check_pattern(pattern, Terms(7, 4, 10))


def test_some_leave_at_each_step():
    check_pattern([None, *STEPS, None, None, None, None, "masked input"], Terms(10, 6, 100))


@pytest.mark.parametrize("bits", [8, 63, 64])
def test_the_largest_inputs_add_up(bits):
    terms = Terms(3, 3, 2, ring=Ring(bits))
    x = np.array([[terms.largest, -terms.largest]] * 3)
    summed = secure_sum([to_ring(row, terms.ring) for row in x], terms)
    assert to_signed(summed.total, terms.ring).tolist() == x.sum(axis=0).tolist()


def test_fractions_add_up_exactly_in_fixed_point():
    x = np.random.default_rng(0).normal(size=(5, 50))
    terms = Terms(5, 3, 50)
    summed = secure_sum([encode(row, 24) for row in x], terms, dropouts={1: "masked input", 3: "unmasking"})
    places = [0, 2, 3, 4]
    exact = np.rint(x[places] * 2**24).sum(axis=0) / 2**24
    assert summed.included == tuple(places) and (decode(summed.total, 24) == exact).all()
    assert np.abs(exact - x[places].sum(axis=0)).max() <= 4 * 2**-25 * (1 + 1e-6)


@pytest.mark.full
def test_processes_over_tcp():
    terms, dropouts = Terms(5, 3, 1000), {0: "unmasking", 2: "masked input"}
    x = vectors(terms)
    served = secure_sum([to_ring(row) for row in x], terms, dropouts=dropouts, transport="processes")
    check_sum(x, served, [0, 1, 3, 4])
    assert {a.client: a.step for a in served.absences} == dropouts


def test_two_rounds_over_the_same_channels():
    rounds = [Terms(3, 2, 4, round=round) for round in range(2)]
    x = [vectors(terms, seed) for seed, terms in enumerate(rounds)]

    def client(number, channel):
        return [aggregation_client(channel, to_ring(x[t][number]), terms, number) for t, terms in enumerate(rounds)]

    def server(*channels):
        return [aggregation_server(*channels, terms=terms, deadline=30) for terms in rounds]

    served, *_ = run_parties(server, *(partial(client, number) for number in range(3)), topology="star")
    for t in range(2):
        check_sum(x[t], served[t], range(3))
    assert (served[1].bytes_up[0], served[1].bytes_down[0]) == tuple(2 * c for c in aggregation_cost(rounds[0]))


# --- what it costs, and what is seen ----------------------------------------------------------------------------------


@pytest.mark.parametrize("terms", [TERMS, Terms(2, 2, 1), Terms(9, 5, 300)])
def test_bytes_are_as_foretold(terms):
    _, served, _ = play(terms)
    up, down = aggregation_cost(terms)
    assert served.bytes_up == (up,) * terms.clients and served.bytes_down == (down,) * terms.clients


def test_the_server_sees_four_messages_of_each_client_and_no_input():
    x, served, _ = play(view=10**6)
    for number, view in enumerate(served.views):
        assert [kind for kind, _ in view] == [KEYS, SHARES, INPUT, ANSWER]
        row = to_ring(x[number]).tobytes()
        data = b"".join(pack(kind, *values) for kind, values in view)
        assert all(row[i : i + 16] not in data for i in range(0, len(row) - 15, 8))


# --- who is late ------------------------------------------------------------------------------------------------------


def delayed(seconds):
    def change(channel, *values):
        time.sleep(seconds)
        return values

    return change


def silent(channel, *values):
    """Send nothing, stay until the server says that it stops."""
    channel.receive_any({STOP: None}, timeout=30)


def test_an_input_that_comes_late_is_named_and_not_used():
    """Client 1 is late with its input, client 0 slow with its help, so that the server still is there."""
    changes = {1: (2, delayed(1.4 * WAIT)), 0: (3, delayed(0.8 * WAIT))}
    x, served, clients = play(changes=changes, deadline=WAIT)
    check_sum(x, served, [0, 2, 3])
    assert served.late == ((1, INPUT),)
    assert [(a.client, a.step, a.why) for a in served.absences] == [(1, "masked input", "no answer within 1 s")]
    assert type(clients[1]) is ProtocolError and "you are gone, in the step 'masked input'" in str(clients[1])


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("change", [leave, silent], ids=["leaves", "stalls"])
def test_nobody_waits_for_a_client_that_leaves_or_stalls(place, change):
    x, served, _ = play(changes={2: (place, change)}, deadline=WAIT if change is silent else 30)
    check_sum(x, served, [0, 1, 2, 3] if place == 3 else [0, 1, 3])
    assert [(a.client, a.step) for a in served.absences] == [(2, STEPS[place])]
    assert ("no answer within" if change is silent else "left") in served.absences[0].why


@pytest.mark.parametrize(("place", "change"), [(0, leave), (1, leave), (2, leave), (2, silent), (3, leave)])
def test_below_the_threshold_all_are_told(place, change):
    changes = {1: (place, change), 2: (place, leave)}
    _, served, clients = play(changes=changes, deadline=WAIT if change is silent else 30)
    assert type(served) is TooFewClients
    words = f"2 of 4 clients are left after the step {STEPS[place]!r}, at least 3 are needed: no sum"
    assert words in str(served) and "client 1" in str(served) and "client 2" in str(served)
    for number in (0, 3):
        told = clients[number]
        assert place == 3 or (type(told) is ProtocolError and words in str(told))


class Slow(Tcp):
    """A connection on which long messages come in pieces, each a little later."""

    def write(self, data, timeout):
        for start in range(0, len(data), 2**16):
            super().write(data[start : start + 2**16], timeout)
            time.sleep(0.01)


def test_who_stalls_takes_no_time_from_others_with_long_vectors():
    """Over TCP, whose buffers are shorter than a vector: who waited for client 0 first would lose the others."""
    terms = Terms(4, 3, 2**17)
    x = np.ones((4, terms.size), np.uint64)
    sockets = [loopback() for _ in range(4)]
    for there, here in sockets:
        there.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
        here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**16)
    channels = [Channel(Tcp(there), timeout=30) for there, _ in sockets]

    def server(*_):
        with ExitStack() as opened:
            for channel in channels:
                opened.enter_context(channel)
            return aggregation_server(*channels, terms=terms, deadline=WAIT)

    def client(number, _):
        with Channel(Slow(sockets[number][1]), timeout=30) as channel:
            own = channel if number else Tampered(channel, 2, silent)
            return aggregation_client(own, x[number], terms, number)

    served, *_ = run_parties(
        server,
        *(partial(client, number) for number in range(4)),
        topology="star",
        return_exceptions=True,
    )
    assert served.included == (1, 2, 3) and (served.total == 3).all()
    assert [(a.client, a.step) for a in served.absences] == [(0, "masked input")]


# --- what a client sends wrongly --------------------------------------------------------------------------------------


def array(function):
    return lambda channel, seen, values: (seen, function(values.copy()))


def put(place, value):
    def change(values):
        values[place] = value
        return values

    return array(change)


def raw(data):
    def change(channel, *values):
        channel._transport.write(data, 1)
        channel.close()

    return change


WRONG = {
    "other terms": (0, lambda channel, seen, values: (seen ^ 1, values), "means other terms or another client"),
    "short hash": (0, lambda channel, seen, values: (seen[1:], values), "holds uint8 (31,), expected uint8 (32)"),
    "no hash": (0, lambda channel, seen, values: (values,), "holds (ndarray), expected (ndarray, ndarray)"),
    "text": (0, lambda channel, *values: ("a", "b"), "holds (str, str)"),
    "small order": (0, put(0, 0), "small order"),
    "same key twice": (0, put(1, 0), "small order"),
    "keys alike": (0, array(lambda v: v[[0, 0, 2]]), "announced before"),
    "keys too few": (0, array(lambda v: v[:2]), "holds uint8 (2, 32), expected uint8 (3, 32)"),
    "keys too many": (0, array(lambda v: np.tile(v, (2, 1))), "holds uint8 (6, 32)"),
    "keys of floats": (0, array(lambda v: v.astype(float)), "holds float64 (3, 32)"),
    "nobody's share": (1, put(3, 0), "has none for client 3"),
    "shares too few": (1, array(lambda v: v[1:]), "holds uint8 (3, 168)"),
    "shares too long": (1, array(lambda v: np.tile(v, 2)), "holds uint8 (4, 336)"),
    "input too short": (2, array(lambda v: v[1:]), "holds uint64 (4,), expected uint64 (5)"),
    "input too long": (2, array(lambda v: np.tile(v, 2)), "holds uint64 (10,)"),
    "signed input": (2, array(lambda v: v.view(np.int64)), "holds int64 (5,)"),
    "answers other keys": (2, lambda channel, seen, values: (seen ^ 1, values), "something else than was sent"),
    "help too short": (3, array(lambda v: v[1:]), "holds uint64 (3, 8)"),
    "help beyond": (3, put((1, 2), 2**61 - 1), "no elements of the field"),
    "half a row": (3, put((1, 2), 2**64 - 1), "no elements of the field"),
    "lies about a length": (2, raw(bytes([0, 0, 1, 0]) + b"short"), "with 9 of 260 bytes of a frame sent"),
    "claims too much": (2, raw(b"\xff" * 50), "announces 4,294,967,295 bytes; at most"),
    "empty frame": (1, raw(bytes(4)), "does not begin with the kind"),
    "garbage": (1, raw((60).to_bytes(4, "big") + bytes(range(60))), "malformed frame"),
    "another kind": (1, raw(pack("sealed letters", np.zeros(1))), "the message is 'sealed letters'"),
}


@pytest.mark.parametrize(("place", "change", "words"), WRONG.values(), ids=WRONG)
def test_a_client_that_sends_something_wrong_is_gone_by_name_and_the_others_go_on(place, change, words):
    x, served, _ = play(changes={2: (place, change)})
    check_sum(x, served, [0, 1, 2, 3] if place == 3 else [0, 1, 3])
    (absence,) = served.absences
    assert (absence.client, absence.step) == (2, STEPS[place]) and words in absence.why


def test_one_who_names_a_key_of_another_is_gone(monkeypatch):
    """Client 3 draws the keys that client 1 has drawn."""
    keys, fresh = [], protocol.client_keys

    def draw():
        keys.append(fresh())
        return keys[0]

    monkeypatch.setattr(protocol, "client_keys", draw)
    _, served, _ = play()
    assert type(served) is TooFewClients and "1 of 4" in str(served) and "announced before" in str(served)


def test_other_terms_are_noticed():
    x = vectors(TERMS)
    others = Terms(4, 3, 5, largest=LARGEST, round=1)

    def client(number, channel):
        terms = others if number == 2 else TERMS
        return aggregation_client(channel, to_ring(x[number]), terms, number)

    def twin(channel):
        return client(0, channel)

    run = [partial(client, number) for number in range(4)]
    served, *_ = run_parties(
        partial(aggregation_server, terms=TERMS, deadline=30), *run, topology="star", return_exceptions=True
    )
    check_sum(x, served, [0, 1, 3])
    served, *_ = run_parties(
        partial(aggregation_server, terms=TERMS, deadline=30),
        *[run[0], run[1], twin, run[3]],
        topology="star",
        return_exceptions=True,
    )
    check_sum(x, served, [0, 1, 3])


# --- what cannot be undone is an error, never a sum -------------------------------------------------------------------


def flipped(place, bit=0):
    def change(values):
        values[place] ^= np.uint64(1 << bit)
        return values

    return array(change)


@pytest.mark.parametrize("about", range(4))
@pytest.mark.parametrize("bit", [0, 5, 31, 60])
def test_a_wrong_share_gives_no_sum(about, bit):
    """With the fewest helpers nothing is left to compare shares with but what their owners announced."""
    gone = {1: "masked input"} if about == 1 else {1: "unmasking"}
    _, served, _ = play(changes={2: (3, flipped((about, 7), bit))}, dropouts=gone)
    assert type(served) is ProtocolError
    assert "give another secret than it announced" in str(served) or "do not fit together" in str(served)


def test_with_more_helpers_wrong_shares_do_not_fit_together():
    _, served, _ = play(changes={2: (3, flipped((0, 0)))})
    assert type(served) is ProtocolError and "do not fit together" in str(served)


def garbled(receivers):
    def change(values):
        values[receivers] ^= 1
        return values

    return array(change)


def test_shares_changed_on_their_way_to_one_client_do_no_harm():
    x, served, clients = play(changes={2: (1, garbled([1]))})
    check_sum(x, served, range(4))
    assert clients == [(0, 1, 2, 3)] * 4


def test_shares_changed_for_too_many_give_no_sum():
    _, served, _ = play(changes={2: (1, garbled([0, 1]))})
    assert type(served) is ProtocolError
    assert "2 clients have shares of client 2, at least 3 are needed" in str(served)


def test_noise_in_a_masked_input_is_found_and_a_small_change_is_not():
    """The limit of what can be known: a masked input is as random as any."""
    _, served, _ = play(changes={2: (2, flipped(1, 40))})
    assert type(served) is ProtocolError and "a masked input was wrong, nobody knows whose" in str(served)
    x, served, _ = play(changes={2: (2, array(lambda values: values + np.uint64(1)))})
    assert (to_signed(served.total) == plain_sum(x, range(4)) + 1).all()


# --- what a server asks wrongly ---------------------------------------------------------------------------------------


def lying(monkeypatch, kind, change, *, to=(1,)):
    """A server that sends some clients another array of this kind."""
    tell = protocol.tell

    def lie(roll, sent, values):
        tell(roll, sent, {u: change(v.copy()) if sent == kind and u in to else v for u, v in values.items()})

    monkeypatch.setattr(protocol, "tell", lie)


def row(number, value):
    def change(values):
        values[number] = value
        return values

    return change


KEY = 9 * np.ones(32, np.uint8)
LIES = {
    "both shares": (REQUEST, row(2, True), "asks for both shares of client 2, which would show that client's input"),
    "neither share": (REQUEST, row(2, False), "asks for no share of client 2"),
    "a stranger's share": (REQUEST, row(4, [True, False]), "asks for a share of client 4"),
    "a stranger's key": (REQUEST, row(4, [False, True]), "asks for a share of client 4"),
    "itself gone": (REQUEST, row(1, [False, True]), "says that this client has gone"),
    "too few in the sum": (REQUEST, row([0, 2], [False, True]), "names 2 clients, expected at least 3"),
    "numbers": (REQUEST, lambda v: v.astype(np.uint8), "holds uint8 (5, 2), expected bool (5, 2)"),
    "request too short": (REQUEST, lambda v: v[:4], "holds bool (4, 2)"),
    "another key of its own": (ALL_KEYS, row((1, 0), KEY), "has other keys of this client"),
    "without it": (ALL_KEYS, row(1, 0), "has other keys of this client"),
    "a key twice": (ALL_KEYS, lambda v: v[[0, 1, 0, 3, 4]], "has a public key twice"),
    "its own key": (ALL_KEYS, lambda v: row(2, v[1])(v), "has a public key twice"),
    "small order": (ALL_KEYS, row((2, 1), [1] + [0] * 31), "small order"),
    "few keys": (ALL_KEYS, row([0, 2], 0), "names 2 clients, expected at least 3"),
    "keys too short": (ALL_KEYS, lambda v: v[:, :, 1:], "holds uint8 (5, 2, 31)"),
    "few shares": (ALL_SHARES, row([0, 2], 0), "names 2 clients, expected at least 3"),
    "a stranger's shares": (ALL_SHARES, row(4, 1), "has shares of client 4, which announced no keys"),
    "shares too short": (ALL_SHARES, lambda v: v[:, 1:], "holds uint8 (5, 167)"),
    "text": (ALL_SHARES, lambda v: "shares", "holds (str), expected (ndarray)"),
}


@pytest.mark.parametrize(("kind", "change", "words"), LIES.values(), ids=LIES)
def test_a_client_refuses_what_might_show_an_input(monkeypatch, kind, change, words):
    """Five clients, of whom the last has left before it said its keys."""
    lying(monkeypatch, kind, change)
    terms = Terms(5, 3, 4, largest=LARGEST)
    x, served, clients = play(terms, dropouts={4: "keys"})
    assert type(clients[1]) is ProtocolError and words in str(clients[1])
    check_sum(x, served, [0, 1, 2, 3] if kind == REQUEST else [0, 2, 3])


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (ALL_KEYS, row((2, 0), KEY)),
        (ALL_KEYS, row((2, 1), KEY)),
        (ALL_KEYS, row(4, [KEY, KEY + 1])),
        (ALL_SHARES, row(2, 0)),
        (REQUEST, row(2, [False, True])),
    ],
    ids=["another mask key", "another share key", "a stranger's keys", "one less", "another request"],
)
def test_who_was_told_something_else_says_so_and_is_gone(monkeypatch, kind, change):
    """What a client cannot see for itself: it answers with a hash of what it has seen."""
    lying(monkeypatch, kind, change)
    terms = Terms(5, 3, 4, largest=LARGEST)
    x, served, _ = play(terms, dropouts={4: "keys"})
    check_sum(x, served, [0, 1, 2, 3] if kind == REQUEST else [0, 2, 3])
    assert "something else than was sent" in served.absences[1].why and served.absences[1].client == 1


def test_a_client_answers_one_request(monkeypatch):
    """A second one, for the other shares, finds nobody, nor does it in the next round over the same channel."""
    tell = protocol.tell

    def twice(roll, kind, values):
        tell(roll, kind, values)
        if kind == REQUEST:
            tell(roll, kind, {u: wanted[:, ::-1].copy() for u, wanted in values.items()})

    monkeypatch.setattr(protocol, "tell", twice)
    x, served, clients = play(view=10**6)
    check_sum(x, served, range(4))
    assert all([kind for kind, _ in view].count(ANSWER) == 1 for view in served.views)
    assert clients == [(0, 1, 2, 3)] * 4

    def client(number, channel):
        for _ in range(2):
            aggregation_client(channel, to_ring(x[number]), TERMS, number)

    def server(*channels):
        aggregation_server(*channels, terms=TERMS, deadline=30)
        return [channel.receive_any({ANSWER: None, KEYS: None}).kind for channel in channels]

    served, *clients = run_parties(
        server, *(partial(client, number) for number in range(4)), topology="star", return_exceptions=True
    )
    assert served == [KEYS] * 4
    assert all(f"the message is {REQUEST!r}, expected {ALL_KEYS!r}" in str(error) for error in clients)


def test_a_client_does_not_wait_for_ever_for_its_server():
    here, there = pair("the server", "client 0", timeout=0.1)
    with pytest.raises(TimeoutError, match=f"client 0 waited 0.1 s for '{ALL_KEYS}'"):
        aggregation_client(there, to_ring([0] * 5), TERMS, 0)
    here.close()
    with pytest.raises(Disconnected):
        aggregation_client(there, to_ring([0] * 5), TERMS, 0)


# --- thousands of damaged messages ------------------------------------------------------------------------------------


class Damaging:
    """A client's channel on which one message, sent or received, arrives with one thing wrong."""

    def __init__(self, channel, place, outgoing, damage, random, others):
        self.channel, self.place, self.outgoing, self.damage = channel, place, outgoing, damage
        self.random, self.others, self.count, self.before, self.after = random, others, 0, None, None

    def __getattr__(self, name):
        return getattr(self.channel, name)

    def hit(self, outgoing):
        hit = outgoing == self.outgoing and self.count == self.place
        self.count += outgoing == self.outgoing
        return hit

    def change(self, kind, values):
        self.before = pack(kind, *values)[HEADER:]
        others = [data for data in self.others if data != self.before] or [self.before]
        self.others.append(self.before)
        starts = {0: "<B", 1: "<I", 2: "<I", 5 + len(kind.encode()): "<H", 10 + len(kind.encode()): "<I"}
        self.after = damaged(self.random, self.before, others, self.damage, starts)
        return self.after

    def send(self, kind, *values):
        if not self.hit(True):
            return self.channel.send(kind, *values)
        data = self.change(kind, values)
        if self.random.integers(8):
            return self.channel._transport.write(len(data).to_bytes(4, "big") + data, 1)
        length = int(self.random.choice([0, 1, len(data) // 2, len(data) + 1, 2**26 + 1, 2**32 - 1]))
        self.channel._transport.write(length.to_bytes(4, "big") + data, 1)
        return self.channel.close()

    def receive_any(self, kinds):
        message = self.channel.receive_any(kinds)
        if not self.hit(False):
            return message
        here, there = pair()
        data = self.change(*message)
        there._transport.write(len(data).to_bytes(4, "big") + data, 1)
        try:
            return here.receive_any(kinds)
        except ProtocolError:
            self.channel.close()
            raise


def shift(channel):
    """By how much a damaged masked input differs, if it still is one."""
    try:
        (before, after) = (unpack(data) for data in (channel.before, channel.after))
    except ProtocolError:
        return None
    if after.kind != INPUT or [type(v) for v in after.values] != [np.ndarray] * 2:
        return None
    one, other = before.values[1], after.values[1]
    return other - one if one.shape == other.shape and one.dtype == other.dtype else None


def check_damage(count, seed):
    """However one message is damaged: a named error, or the sum of those in it, who are as many as there should be.

    A masked input that is one after all changes the sum by as much, which nobody can know, unless it leaves the bounds.
    """
    random, others = np.random.default_rng(seed), []
    terms = Terms(4, 3, 5, largest=LARGEST)
    outcomes = {"sum": 0, "gone": 0, "error": 0, "changed": 0}
    for turn in range(count):
        victim, outgoing = int(random.integers(4)), bool(random.integers(4))
        place, made = int(random.integers(4 if outgoing else 3)), []

        def wrap(number, channel, victim=victim, outgoing=outgoing, place=place, made=made, turn=turn):
            if number != victim:
                return channel
            made.append(Damaging(channel, place, outgoing, DAMAGES[turn % len(DAMAGES)], random, others))
            return made[0]

        dropouts = {(victim + 1) % 4: "masked input"} if random.integers(4) == 0 else {}
        x, served, clients = play(terms, wrap=wrap, dropouts=dropouts)
        del others[:-20]
        assert all(isinstance(seen, tuple | ProtocolError | None) for seen in clients), clients
        if isinstance(served, ProtocolError):
            outcomes["error"] += 1
            continue
        assert isinstance(served, Aggregate), served
        wrong = served.total - to_ring(plain_sum(x, served.included))
        allowed = shift(made[0]) if victim in served.included and outgoing and place == 2 else None
        assert not wrong.any() or (wrong == allowed).all()
        outcomes["changed" if wrong.any() else "gone" if len(served.absences) > len(dropouts) else "sum"] += 1
    return outcomes


def test_damaged_messages_end_in_an_error_a_client_gone_or_the_right_sum():
    outcomes = check_damage(280, 0)
    assert outcomes["gone"] > 140 and outcomes["error"] and outcomes["sum"]


@pytest.mark.full
def test_three_thousand_damaged_messages():
    outcomes = check_damage(3000, 1)
    assert outcomes["gone"] > 1500 and outcomes["error"] and outcomes["sum"]


# --- arguments --------------------------------------------------------------------------------------------------------


def test_bad_arguments_are_named(refuses):
    here, there = pair()
    x = to_ring([0] * 5)
    refuses(lambda **a: aggregation_server(here, **a), {"terms": TERMS}, "channels holds 1; accepted: 4")
    refuses(lambda **a: aggregation_server(*[None] * 4, **a), {"terms": TERMS}, "channels holds None", "Channels")
    refuses(lambda **a: aggregation_server(here, **a), {"terms": 4}, "terms is a int; accepted: Terms")
    for deadline in (0, -1, float("nan"), float("inf"), "1", 3601):
        refuses(lambda **a: aggregation_server(*[here] * 4, **a), {"terms": TERMS, "deadline": deadline}, "deadline is")
    good = {"channel": there, "x": x, "terms": TERMS, "number": 0}
    refuses(aggregation_client, good | {"number": 4}, "number is 4", "0 to 3")
    refuses(aggregation_client, good | {"terms": None}, "terms is a NoneType")
    refuses(aggregation_client, good | {"x": x[1:]}, "x is uint64 of shape (4,)", "(5,)")
    refuses(aggregation_client, good | {"x": to_ring([LARGEST + 1] * 5)}, "x has an entry beyond", "-1000 to 1000")
    refuses(aggregation_client, good | {"leave_before": "lunch"}, "leave_before is 'lunch'", "'masked input'")
    inputs = [x] * 4
    refuses(secure_sum, {"inputs": inputs[1:], "terms": TERMS}, "inputs is", "4 vectors")
    refuses(secure_sum, {"inputs": inputs, "terms": TERMS, "dropouts": {4: "keys"}}, "number is 4")
    refuses(secure_sum, {"inputs": inputs, "terms": TERMS, "dropouts": {1: "now"}}, "dropouts is 'now'")
    refuses(secure_sum, {"inputs": inputs, "terms": TERMS, "transport": "mail"}, "transport is 'mail'")
    refuses(aggregation_cost, {"terms": 5}, "terms is a int")
    assert there.bytes_sent == 0


def test_what_the_server_has_is_said_in_a_line():
    assert repr(play()[1]) == "Aggregate: the sum of 4 of 4 clients, 5 entries"

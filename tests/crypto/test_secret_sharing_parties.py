"""Two parties on shares: right against plain arithmetic, and over small rings nothing is seen but what is opened.

Views are counted, not sampled: each entry of an array is one assignment of all that the parties and the dealer draw.
"""

import secrets
from collections import Counter
from functools import partial
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spai_lab.crypto import secret_sharing_dealers
from spai_lab.crypto.authenticated import AuthenticatedChannel, mac_key
from spai_lab.crypto.channel import Disconnected, pair
from spai_lab.crypto.frames import HEADER, ProtocolError, pack, unpack
from spai_lab.crypto.paillier import constant_behind
from spai_lab.crypto.paillier_keys import from_bytes, generate_key
from spai_lab.crypto.parties import run_parties
from spai_lab.crypto.secret_sharing import truncation_failure
from spai_lab.crypto.secret_sharing_dealers import dealer, factor_places, paillier_triples, receive_triples
from spai_lab.crypto.secret_sharing_parties import (
    Link,
    add,
    add_public,
    matmul,
    multiply,
    open_shares,
    receive_share,
    reveal,
    send_share,
    share_both,
)
from spai_lab.crypto.secret_sharing_ring import RING, Ring, decode, encode, to_ring
from spai_lab.crypto.secret_sharing_triples import Request, Triple, deal_triple, stock
from tests.crypto.enumeration import distribution, enumerated
from tests.crypto.mutations import DAMAGES, damaged

ALPHA = 1e-6
VIEW = 10**9
NAMES = ("dealer", "zero", "one")
elements = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**63 - 1, 2**63, 2**64 - 1])


def stocks(requests, ring=RING):
    """Both halves of new triples, without a message."""
    return tuple(map(stock, zip(*(deal_triple(request, ring=ring) for request in requests), strict=True)))


def array(values, shape):
    return np.array(values, dtype=np.uint64).reshape(shape)


def both(*programs, requests=(), ring=RING, **settings):
    """What two programs of a link return, and the channels that they had."""
    sources, channels = stocks(requests, ring) if requests else (None, None), {}

    def party(number, channel):
        channels[number] = channel
        return programs[number](Link(channel, number, sources[number], ring))

    results = run_parties(*(partial(party, number) for number in (0, 1)), names=NAMES[1:], **settings)
    return results, channels


# --- what they compute ------------------------------------------------------------------------------------------------


@given(st.data(), st.integers(1, 4))
def test_sums_and_products_are_those_of_pythons_integers(data, size):
    x, y, k = (data.draw(st.lists(elements, min_size=size, max_size=size)) for _ in range(3))

    def program(link, own):
        x, y = share_both(link, array(own, -1), (size,))
        results = add(link, x, y), add_public(link, x, array(k, -1)), multiply(link, x, y), multiply(link, y, y)
        return [each.tolist() for each in open_shares(link, *results)]

    requests = [Request("multiply", (size,), (size,))] * 2
    (one, other), _ = both(partial(program, own=x), partial(program, own=y), requests=requests)
    rows = [(a + b, a + c, a * b, b * b) for a, b, c in zip(x, y, k, strict=True)]
    assert one == other == [[v % 2**64 for v in column] for column in zip(*rows, strict=True)]


@given(st.data(), st.tuples(*[st.integers(1, 4)] * 3))
def test_matrix_products_are_those_of_pythons_integers(data, sides):
    m, k, n = sides
    x, y = (array(data.draw(st.lists(elements, min_size=a * b, max_size=a * b)), (a, b)) for a, b in ((m, k), (k, n)))

    def program(link, own, shape):
        return open_shares(link, matmul(link, *share_both(link, own, shape)))[0]

    (one, other), _ = both(
        partial(program, own=x, shape=(k, n)),
        partial(program, own=y, shape=(m, k)),
        requests=[Request("matmul", (m, k), (k, n))],
    )
    true = (x.astype(object) @ y.astype(object) % 2**64).astype(np.uint64)
    assert (one == true).all() and (other == true).all()


@pytest.mark.parametrize("transport", ["threads", "processes"])
def test_a_linear_layer_in_fixed_point(transport):
    """Inputs and weights are whole multiples of the step, so that the product is off by the truncation alone."""
    places, random = 13, np.random.default_rng(0)
    x, w = (random.integers(-(2**places), 2**places, shape) / 2**places for shape in ((5, 64), (64, 10)))
    true = x @ w
    largest = np.abs(true).max() * 2.0 ** (2 * places)
    assert truncation_failure(largest, count=true.size) < ALPHA
    requests = [Request("matmul", x.shape, w.shape)]
    results = run_parties(
        partial(dealer, requests=requests),
        partial(layer, number=0, own=x, other=w.shape, places=places, requests=requests),
        partial(layer, number=1, own=w, other=x.shape, places=places, requests=requests),
        transport=transport,
    )
    assert results[0] is None and results[2] is None
    errors = np.abs(results[1] - true)
    assert 0 < errors.max() < 2.0**-places


def layer(*channels, number, own, other, places, requests):
    """A party of the layer: the first channel is to the dealer; the product is revealed to party 0."""
    source = receive_triples(channels[0], requests)
    link = Link(channels[1], number, source)
    x, w = share_both(link, encode(own, places), other)
    z = reveal(link, matmul(link, x, w, places=places), to=0)
    return None if z is None else decode(z, places)


def test_inputs_of_one_party_and_results_for_one_party():
    def owner(link):
        return reveal(link, send_share(link, to_ring([[5, -1]])), to=1)

    def other(link):
        return reveal(link, receive_share(link, (1, 2)), to=1)

    (nothing, numbers), channels = both(owner, other)
    assert nothing is None and numbers.tolist() == [[5, 2**64 - 1]]
    assert channels[0].rounds == channels[1].rounds == 1  # both messages go one way


def test_messages_rounds_and_bytes_are_those_of_the_table():
    shapes, ring = ((3, 4), (4, 2)), RING

    def program(link, own, other):
        costs, channel = [], link.channel
        before = lambda: costs.append((channel.rounds, channel.bytes_sent, channel.bytes_received))  # noqa: E731
        before()
        x, y = share_both(link, ring.draw(own), other)
        before()
        z = matmul(link, x, y)
        before()
        multiply(link, z, z)
        before()
        open_shares(link, add_public(link, add(link, z, z), z))
        before()
        return [tuple(b - a for a, b in zip(*each, strict=True)) for each in pairwise(costs)]

    def frame(kind, *shapes):
        return 4 + 5 + len(kind) + sum(3 + 4 * len(shape) + 8 * np.prod(shape) for shape in shapes)

    requests = [Request("matmul", *shapes), Request("multiply", (3, 2), (3, 2))]
    (one, other), _ = both(
        partial(program, own=shapes[0], other=shapes[1]),
        partial(program, own=shapes[1], other=shapes[0]),
        requests=requests,
    )
    x, y = (frame("share", shape) for shape in shapes)
    exchanged = [frame("open", *shapes), frame("open", (3, 2), (3, 2)), frame("open", (3, 2))]
    assert [cost[1:] for cost in one] == [(x, y), *((size, size) for size in exchanged)]
    assert [cost[1:] for cost in other] == [(y, x), *((size, size) for size in exchanged)]
    assert [cost[0] for cost in one] == [cost[0] for cost in other] == [2] * 4  # two turns an exchange


def test_over_authenticated_channels():
    key = mac_key()

    def program(link, own, role):
        link = Link(AuthenticatedChannel(link.channel, key, role=role), link.party, link.triples)
        return open_shares(link, multiply(link, *share_both(link, to_ring([own]), (1,))))[0].tolist()

    programs = partial(program, own=6, role="client"), partial(program, own=-7, role="server")
    results, _ = both(*programs, requests=[Request("multiply", (1,), (1,))])
    assert results == [[2**64 - 42]] * 2


# --- what they see ----------------------------------------------------------------------------------------------------


def views(bits, program, inputs, requests, draws, *, change=lambda name, columns: columns, sources=stock):
    """How often each party sees what: its draws, all that it receives and is told. With what it returns.

    `program` gets a link and all inputs, each None for who does not own it; `inputs` are (owner, number).
    """
    ring, ends = Ring(bits), {}
    deal = sum(sum(np.prod(shape[1:], dtype=int) for shape in (r.x, r.y, r.x, r.y, r.z)) for r in requests)
    draws = {"MainThread": int(deal), "zero": draws[0], "one": draws[1]}
    size = 2 ** (bits * sum(draws.values()))
    requests = [Request(r.kind, (size, *r.x[1:]), (size, *r.y[1:])) for r in requests]
    full = [(owner, np.broadcast_to(np.array(k, np.uint64), (size, *np.shape(k))).copy()) for owner, k in inputs]

    def party(number, *channels):
        ends[number] = channels
        triples = [receive_triples(channels[0], [request], ring=ring)(request) for request in requests]
        link = Link(channels[1], number, sources(triples), ring)
        return program(link, [(owner, x if owner == number else None, x.shape) for owner, x in full])

    with enumerated(bits, draws, change=change) as drawn:
        deals = partial(dealer, requests=requests, ring=ring) if requests else lambda *channels: None
        _, *told = run_parties(deals, partial(party, 0), partial(party, 1), names=NAMES, view=VIEW)
    seen = []
    for number in (0, 1):
        came = [value for channel in ends[number] for message in channel.view for value in message.values]
        assert not any(channel.unseen for channel in ends[number])
        seen.append(distribution(bits, [*drawn[NAMES[number + 1]], *came, *told[number]]))
    return seen, told


def shared(link, inputs):
    """One's shares of all inputs."""
    return [send_share(link, x) if x is not None else receive_share(link, shape) for _, x, shape in inputs]


def product_unseen(link, inputs):
    return [multiply(link, *shared(link, inputs))]


def product_opened(link, inputs):
    return open_shares(link, multiply(link, *shared(link, inputs)))


def product_for_zero(link, inputs):
    z = reveal(link, multiply(link, *shared(link, inputs)), to=0)
    return [] if z is None else [z]


def sum_opened(link, inputs):
    return open_shares(link, add(link, *shared(link, inputs)))


ENTRY = [Request("multiply", (1,), (1,))]


@pytest.mark.parametrize("bits", [1, 2])
@pytest.mark.parametrize(
    ("program", "requests", "told"),
    [
        (product_unseen, ENTRY, (lambda x, y: None, lambda x, y: None)),
        (product_opened, ENTRY, (lambda x, y: x * y, lambda x, y: x * y)),
        (product_for_zero, ENTRY, (lambda x, y: x * y, lambda x, y: None)),
        (sum_opened, [], (lambda x, y: x + y, lambda x, y: x + y)),
    ],
)
def test_a_view_depends_on_ones_own_input_and_what_one_is_told(bits, program, requests, told):
    """For all inputs; with it, views do differ where what one is told does."""
    size = 2**bits
    seen = ({}, {})
    for x, y in product(range(size), repeat=2):
        for number, view in enumerate(views(bits, program, [(0, x), (1, y)], requests, (1, 1))[0]):
            seen[number][x, y] = view
    for number in (0, 1):
        known = {key: (key[number], told[number](*key)) for key in seen[number]}
        known = {key: (own, value if value is None else value % size) for key, (own, value) in known.items()}
        for a, b in product(known, repeat=2):
            if known[a] == known[b]:
                assert seen[number][a] == seen[number][b], (number, a, b)
            elif known[a][1] != known[b][1]:
                assert seen[number][a] != seen[number][b], (number, a, b)


@pytest.mark.parametrize("bits", [1, 2])
def test_products_are_right_for_all_there_is_to_draw(bits):
    for x, y in product(range(2**bits), repeat=2):
        _, told = views(bits, product_opened, [(0, x), (1, y)], ENTRY, (1, 1))
        assert all((outcome == x * y % 2**bits).all() for (outcome,) in told)


def test_views_of_matrix_products():
    """A row times a column of two bits: all inputs, all of the 2^13 assignments."""

    def program(link, inputs):
        return open_shares(link, matmul(link, *shared(link, inputs)))

    requests, seen = [Request("matmul", (1, 1, 2), (1, 2, 1))], ({}, {})
    for x in product((0, 1), repeat=2):
        for y in product((0, 1), repeat=2):
            inputs = [(0, [list(x)]), (1, [[y[0]], [y[1]]])]
            both_views, told = views(1, program, inputs, requests, (2, 2))
            z = (x[0] * y[0] + x[1] * y[1]) % 2
            assert all((outcome == z).all() for (outcome,) in told)
            for number, view in enumerate(both_views):
                seen[number].setdefault(((x, y)[number], z), []).append(view)
    for number in (0, 1):
        assert all(view == group[0] for group in seen[number].values() for view in group)
        assert max(map(len, seen[number].values())) == 4 and len(seen[number]) == 7


@pytest.mark.full
def test_views_modulo_eight():
    """2^21 assignments; inputs of one product and of another."""
    seen = {y: views(3, product_opened, [(0, 2), (1, y)], ENTRY, (1, 1))[0][0] for y in (1, 5, 3)}
    assert seen[1] == seen[5] != seen[3]
    seen = {x: views(3, product_opened, [(0, x), (1, 6)], ENTRY, (1, 1))[0][1] for x in (1, 5, 7)}
    assert seen[1] == seen[5] != seen[7]


# --- planted faults that the views must show --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "told"),
    [
        (0, {1}),  # a = 0: e is x, which party 1 sees
        (1, {0}),  # b = 0: f is y
        (2, {1}),  # party 0's share of a: party 1 holds all of a, and finds x in e
        (3, set()),  # of b: party 1 holds all of b, which hides its own y
        (4, {1}),  # of c: party 1 holds a b, knows b by its own y, and divides
    ],
    ids=["a", "b", "share of a", "share of b", "share of c"],
)
def test_what_a_dealer_does_not_draw_is_seen_in_the_views(place, told):
    def change(name, columns):
        return [np.zeros_like(c) if (name, i) == ("MainThread", place) else c for i, c in enumerate(columns)]

    for number in (0, 1):
        inputs = ([(number, 1), (1 - number, k)] for k in range(4))
        seen = [views(2, product_unseen, sorted(each), ENTRY, (1, 1), change=change)[0][number] for each in inputs]
        assert any(view != seen[0] for view in seen) == (number in told)


def two_products(link, inputs):
    x, u, y, v = shared(link, inputs)
    return [multiply(link, x, y), multiply(link, u, v)]


def used_twice(triples):
    """A source that hands out its first triple again and again."""
    return lambda request: triples[0]


def test_a_triple_that_is_used_twice_is_caught():
    """Party 1 then sees x - u, whatever masks they have."""
    requests = ENTRY * 2

    def seen(x, u, sources):
        inputs = [(0, x), (0, u), (1, 1), (1, 0)]
        return views(1, two_products, inputs, requests, (2, 2), sources=sources)[0][1]

    fresh = {pair: seen(*pair, stock) for pair in product((0, 1), repeat=2)}
    assert all(view == fresh[0, 0] for view in fresh.values())
    again = {pair: seen(*pair, used_twice) for pair in product((0, 1), repeat=2)}
    assert {pair: view == again[0, 0] for pair, view in again.items()} == {
        (0, 0): True,
        (1, 1): True,
        (0, 1): False,
        (1, 0): False,
    }


# --- where triples come from ------------------------------------------------------------------------------------------

REQUESTS = [Request("multiply", (2,), (2,)), Request("matmul", (2, 1, 3), (2, 3, 2)), Request("matmul", (1, 1), (1, 2))]


def is_triple(one, other, ring=RING):
    """By Python's integers."""
    a, b, c = (
        (getattr(one, part).astype(object) + getattr(other, part).astype(object)) % ring.modulus for part in "abc"
    )
    product = a * b if one.request.kind == "multiply" else a @ b
    assert a.shape == one.request.x and b.shape == one.request.y
    return c.shape == one.request.z and (c == product % ring.modulus).all()


@pytest.mark.parametrize("bits", [1, 5, 64])
def test_dealt_triples_are_triples(bits):
    ring = Ring(bits)
    party = partial(receive_triples, requests=REQUESTS, ring=ring)
    _, *sources = run_parties(partial(dealer, requests=REQUESTS, ring=ring), party, party, topology="star")
    assert all(is_triple(*(source(request) for source in sources), ring) for request in REQUESTS)


@pytest.fixture(scope="module")
def keys():
    return [generate_key(320, for_learning=True) for _ in range(2)]


def under_paillier(keys, requests, ring=RING, **settings):
    make = partial(paillier_triples, requests=requests, ring=ring, for_learning=True)
    return run_parties(*(partial(make, key=key) for key in keys), names=NAMES[1:], **settings)


@pytest.mark.parametrize("bits", [1, 5, 64])
def test_triples_under_paillier_are_triples(keys, bits):
    sources = under_paillier(keys, REQUESTS, Ring(bits))
    assert all(is_triple(*(source(request) for source in sources), Ring(bits)) for request in REQUESTS)


def test_the_largest_factors_do_not_wrap_around_under_paillier(keys, monkeypatch):
    monkeypatch.setattr(Ring, "draw", lambda ring, shape: np.full(shape, 2**64 - 1, np.uint64))
    monkeypatch.setattr(secrets, "randbits", lambda bits: 2**bits - 1)  # and the largest masks
    request = Request("matmul", (1, 3), (3, 2))
    assert is_triple(*(source(request) for source in under_paillier(keys, [request])))


@pytest.mark.full
def test_triples_under_a_key_of_full_length():
    keys, request = [generate_key() for _ in range(2)], Request("matmul", (2, 2), (2, 1))
    make = partial(paillier_triples, requests=[request])
    sources = run_parties(*(partial(make, key=key) for key in keys))
    assert is_triple(*(source(request) for source in sources))


def test_products_work_with_triples_of_either_source(keys):
    def program(channel, key, number):
        request = Request("multiply", (1,), (1,))
        link = Link(channel, number, paillier_triples(channel, [request], key, for_learning=True))
        x, y = share_both(link, to_ring([6 + number]), (1,))
        return open_shares(link, multiply(link, x, y))[0].tolist()

    results = run_parties(*(partial(program, key=key, number=i) for i, key in enumerate(keys)))
    assert results == [[42], [42]]


def test_masks_under_paillier_are_128_bits_longer_than_what_they_hide(keys, monkeypatch):
    lengths = []
    original = secrets.randbits
    monkeypatch.setattr(secrets, "randbits", lambda bits: lengths.append(bits) or original(bits))
    under_paillier(keys, [Request("matmul", (1, 3), (3, 1))])
    largest = 3 * (2**64 - 1) ** 2
    assert len(lengths) == 2 and all(2**bits >= 2**128 * largest for bits in lengths)


@pytest.mark.parametrize("rerandomized", [True, False])
def test_the_factor_behind_an_answer_under_paillier(keys, monkeypatch, rerandomized):
    """With all masks 0, who sent E(a) finds b in E(a)^b; unless the answer has been re-randomized."""
    monkeypatch.setattr(secrets, "randbits", lambda bits: 0)
    if not rerandomized:
        monkeypatch.setattr(secret_sharing_dealers, "rerandomize", lambda public, c: c)
    ring, request, channels = Ring(3), Request("multiply", (1,), (1,)), {}
    triples = [None, None]

    def party(number, channel):
        channels[number] = channel
        source = paillier_triples(channel, [request], keys[number], ring=ring, for_learning=True)
        triples[number] = source(request)

    run_parties(partial(party, 0), partial(party, 1), view=VIEW)
    (sent,) = channels[1].view[1].values  # the factors of party 0, as party 1 got them
    (came,) = channels[0].view[2].values
    public = keys[0].public
    before, after = (from_bytes(public, public.fingerprint + data[-2 * public.width :]) for data in (sent, came))
    found = constant_behind(public, before, after, range(8))
    assert found == (None if rerandomized else int(triples[1].b[0]))


def test_places_of_factors():
    request = Request("matmul", (2, 2, 3), (2, 3, 1))
    x, y = np.arange(12).reshape(2, 2, 3), np.arange(6).reshape(2, 3, 1) ** 2
    rows, columns = factor_places(request)
    assert ((x.ravel()[rows] * y.ravel()[columns]).sum(1) == (x @ y).ravel()).all()


# --- faults -----------------------------------------------------------------------------------------------------------


def conversation(channel, authenticated=None):
    """A party that receives triples, a share and two products; what it is told."""
    channel = channel if authenticated is None else AuthenticatedChannel(channel, authenticated, role="server")
    ring, request = Ring(8), Request("matmul", (2, 2), (2, 2))
    link = Link(channel, 1, receive_triples(channel, [request], ring=ring), ring)
    x, y = share_both(link, np.ones((2, 2), np.uint64), (2, 2))
    return reveal(link, matmul(link, x, y), to=1)


def speaker(channel, authenticated=None):
    """The other party, which deals as well."""
    channel = channel if authenticated is None else AuthenticatedChannel(channel, authenticated, role="client")
    ring, request = Ring(8), Request("matmul", (2, 2), (2, 2))
    mine, other = deal_triple(request, ring=ring)
    channel.send("triple", other.a, other.b, other.c)
    link = Link(channel, 0, stock([mine]), ring)
    return reveal(link, matmul(link, *share_both(link, np.full((2, 2), 3, np.uint64), (2, 2))), to=1)


def frames_of(key=None):
    """What the party is sent, frame by frame."""
    ends = {}

    def remembered(channel):
        ends["here"] = channel
        return conversation(channel, key)

    _, result = run_parties(partial(speaker, authenticated=key), remembered, view=VIEW)
    assert result.tolist() == [[6, 6], [6, 6]]
    return [pack(message.kind, *message.values) for message in ends["here"].view]


def replay(frames, key=None, timeout=5):
    """What the party makes of these frames, after which the other end has left."""
    here, there = pair("here", "there", timeout=timeout)
    for frame in frames:
        there._transport.write(frame, timeout)
    there.close()
    try:
        return conversation(here, key)
    finally:
        here.close()


def well_formed(frame, wrong):
    """Whether a changed frame says the same but for other elements of the ring."""
    if len(wrong) < HEADER or int.from_bytes(wrong[:HEADER], "big") != len(wrong) - HEADER:
        return False
    try:
        right, came = unpack(frame[HEADER:]), unpack(wrong[HEADER:])
    except ProtocolError:
        return False
    return (
        came.kind == right.kind
        and [(type(v), v.dtype, v.shape) for v in right.values]
        == [(type(v), getattr(v, "dtype", None), getattr(v, "shape", None)) for v in came.values]
        and all(int(v.max()) < 256 for v in came.values)
    )


def changed(frames, each, seed=0):
    """Every frame with one thing wrong in each way; a length alone that lies; and no frame at all."""
    random, cases = np.random.default_rng(seed), []
    payloads = [frame[HEADER:] for frame in frames]
    for place, payload in enumerate(payloads):
        for damage in DAMAGES:
            for _ in range(each):
                wrong = damaged(random, payload, payloads, damage, {1: ">I", 5 + payload[4] + 3: ">I"})
                if wrong != payload:
                    cases.append((place, len(wrong).to_bytes(HEADER, "big") + wrong))
        for size in (0, 1, len(payload) - 1, len(payload) + 1, 2**26, 2**26 + 1, 2**32 - 1):
            cases.append((place, size.to_bytes(HEADER, "big") + payload))
        cases.append((place, b""))
    return cases


def outcomes(frames, cases, key=None):
    found = Counter()
    for place, wrong in cases:
        try:
            result = replay([*frames[:place], wrong, *frames[place + 1 :]], key)
        except (ProtocolError, ValueError) as error:  # Disconnected is one of them
            assert str(error) and not isinstance(error, TimeoutError)
            found["refused"] += 1
        else:
            assert result.shape == (2, 2) and result.dtype == np.uint64
            assert key is None and well_formed(frames[place], wrong), wrong
            found["another number"] += 1
    return found


def test_changed_messages_are_refused_or_are_other_shares():
    """Nothing marks a share as wrong: a changed element of the right form is the one thing that passes."""
    frames = frames_of()
    cases = changed(frames, 100)
    found = outcomes(frames, cases)
    assert len(cases) > 2000 and found["refused"] > 1000 and found["another number"] > 50


def test_over_authenticated_channels_all_changed_messages_are_refused(monkeypatch):
    monkeypatch.setattr("spai_lab.crypto.authenticated.secrets.token_bytes", bytes)  # so that a replay has its nonce
    key = bytes(32)
    frames = frames_of(key)
    assert replay(frames, key).shape == (2, 2)
    cases = changed(frames, 40)
    found = outcomes(frames, cases, key)
    assert len(cases) > 1000 and found["another number"] == 0


WRONG = {
    "too few": (("open", np.zeros(2, np.uint64)), "holds (ndarray), expected (ndarray, ndarray)"),
    "too many": (("open", *[np.zeros(2, np.uint64)] * 3), "expected (ndarray, ndarray)"),
    "another shape": (
        ("open", np.zeros(3, np.uint64), np.zeros(2, np.uint64)),
        "shape (3,); accepted: uint64",
    ),
    "signed": (("open", *[np.zeros(2, np.int64)] * 2), "is int64 of shape (2,)"),
    "beyond the ring": (("open", *[np.full(2, 256, np.uint64)] * 2), "has 256; accepted: elements from 0 to 255"),
    "a tensor": (("open", b"", b""), "holds (bytes, bytes)"),
    "another kind": (("share", np.zeros(2, np.uint64)), "the message is 'share', expected 'open'"),
}


@pytest.mark.parametrize(("message", "words"), WRONG.values(), ids=WRONG)
def test_other_messages_are_refused_and_release_the_sender(message, words):
    here, there = pair("here", "there")
    there.send(*message)
    with pytest.raises(ProtocolError) as caught:
        open_shares(Link(here, 0, ring=Ring(8)), *[np.zeros(2, np.uint64)] * 2)
    assert words in str(caught.value) and "there" in str(caught.value)
    there.receive("open")
    with pytest.raises(Disconnected):
        there.receive("more")


def test_who_stalls_or_leaves_is_named():
    here, there = pair("here", "there", timeout=0.05)
    with pytest.raises(TimeoutError, match=r"here waited 0.05 s for 'open' from there"):
        open_shares(Link(here, 0), np.zeros(1, np.uint64))
    there.close()
    with pytest.raises(Disconnected, match="there"):
        receive_share(Link(here, 0), (1,))
    with pytest.raises(Disconnected):
        run_parties(
            partial(dealer, requests=ENTRY), lambda channel: receive_triples(channel, ENTRY * 2), lambda channel: None,
            topology="star",
        )  # fmt: skip


def test_keys_too_small_and_other_formats_are_refused_under_paillier(keys, refuses):
    request = [Request("multiply", (1,), (1,))]
    small = generate_key(256, for_learning=True)
    refuses(paillier_triples, {"channel": None, "requests": request, "key": small}, "key may reach", "wraps around")
    refuses(paillier_triples, {"channel": None, "requests": request, "key": keys[0].public}, "key is", "SecretKey")
    with pytest.raises(ValueError, match="n has 320 bits"):  # the other one's key, unless that is asked for
        run_parties(*(partial(paillier_triples, requests=request, key=key) for key in keys))
    with pytest.raises(ValueError, match="data"):
        run_parties(
            partial(paillier_triples, requests=request, key=keys[0], for_learning=True),
            partial(paillier_triples, requests=request, key=keys[1], for_learning=True, ring=Ring(8)),
        )


class Anything:
    """Arguments of a link that are never used."""

    here, _ = pair()
    x = np.zeros((2, 3), np.uint64)
    link = Link(here, 0)


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        (Link, {"channel": 3, "party": 0}, ("channel is 3",)),
        (Link, {"channel": Anything.here, "party": 2}, ("party is 2", "0 to 1")),
        (Link, {"channel": Anything.here, "party": 0, "triples": 5}, ("triples is 5",)),
        (Link, {"channel": Anything.here, "party": 0, "ring": 64}, ("ring is 64",)),
        (send_share, {"link": Anything.link, "x": [1]}, ("x is [1]",)),
        (add, {"link": Anything.link, "x": Anything.x, "y": Anything.x.T}, ("y is uint64 of shape (3, 2)", "(2, 3)")),
        (add_public, {"link": Anything.link, "x": Anything.x, "k": 5}, ("k is 5",)),
        (multiply, {"link": Anything.link, "x": Anything.x, "y": Anything.x}, ("link has no triples",)),
        (matmul, {"link": Anything.link, "x": Anything.x, "y": Anything.x, "places": 64}, ("places is 64",)),
        (reveal, {"link": Anything.link, "x": Anything.x, "to": 2}, ("to is 2",)),
        (Request, {"kind": "divide", "x": (1,), "y": (1,)}, ("kind is 'divide'", "'matmul'")),
        (Request, {"kind": "multiply", "x": (1,), "y": (2,)}, ("y is (2,)", "(1,)")),
        (Request, {"kind": "multiply", "x": (0,), "y": (0,)}, ("x is 0",)),
        (Request, {"kind": "matmul", "x": (2,), "y": (2,)}, ("x is (2,)", "matrices")),
        (Request, {"kind": "matmul", "x": (2, 3), "y": (2, 3)}, ("y is (2, 3)",)),
        (Request, {"kind": "matmul", "x": (2, 3), "y": 3}, ("y is 3",)),
        (deal_triple, {"request": "matmul"}, ("requests is", "Request")),
        (deal_triple, {"request": ENTRY[0], "ring": 3}, ("ring is 3",)),
        (stock, {"triples": [1]}, ("triples is [1]",)),
        (receive_triples, {"channel": None, "requests": []}, ("requests is []", "at least one")),
        (dealer, {"first": None, "second": None, "requests": ENTRY[0]}, ("requests is",)),
    ],
)
def test_bad_arguments_are_named(refuses, function, arguments, words):
    refuses(function, arguments, *words)


def test_a_source_hands_out_what_it_was_asked_for_once(refuses):
    one, _ = deal_triple(ENTRY[0])
    source = stock([one])
    refuses(source, {"request": Request("multiply", (2,), (2,))}, "request is", "the next triple")
    assert source(ENTRY[0]) is one
    refuses(source, {"request": ENTRY[0]}, "all 1 triples are used")
    assert "a=" not in repr(one)


def test_wrong_triples_are_refused_before_anything_is_said(refuses):
    one, _ = deal_triple(ENTRY[0])
    other = Triple(ENTRY[0], one.a, one.b, one.c.astype(np.int64))
    here, _there = pair()
    for triple, words in ((other, "c of a triple is int64"), (None, "triples gives None"), (ENTRY, "triples gives")):
        link = Link(here, 0, lambda request, triple=triple: triple)
        refuses(multiply, {"link": link, "x": np.zeros(1, np.uint64), "y": np.zeros(1, np.uint64)}, words)
    assert here.bytes_sent == 0

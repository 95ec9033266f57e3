"""Chapter 15's exercises: right answers of other styles, odd answers, and the truths that answers are held against."""

import secrets
from collections import deque
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch

from spai_lab.crypto.circuits import Builder
from spai_lab.crypto.circuits_bits import to_bits
from spai_lab.crypto.circuits_words import shared_relu
from spai_lab.crypto.garbled_circuit import encode_inputs, evaluate, garble
from spai_lab.crypto.garbled_circuit_parties import evaluator, garbled_cost, garbler
from spai_lab.crypto.parties import run_parties
from spai_lab.crypto.secret_sharing_parties import Link, open_shares, reveal, share_both
from spai_lab.crypto.secret_sharing_ring import to_ring, to_signed
from spai_lab.crypto.secret_sharing_shamir import Field, shamir_reconstruct, shamir_share
from spai_lab.crypto.secret_sharing_triples import Request, deal_triple
from spai_lab.exercises import EXERCISES, check
from spai_lab.exercises.chapter_15 import gates, layers, leaks, products, rounds, shamir, verdicts

NAMES = ("shamir_secret", "beaver_product", "garbled_xor", "find_the_leak", "count_rounds")
M = 2**64


def said(feedback) -> str:
    return " ".join(repr(feedback).split())


def explained(name: str, answer, message: str) -> None:
    feedback = getattr(check, name)(answer)
    assert feedback.verdict == "wrong"
    assert message in said(feedback)


def passes(name: str, answer) -> None:
    feedback = getattr(check, name)(answer)
    assert feedback.verdict == "passed", feedback


# --- all of them


@pytest.mark.parametrize("name", NAMES)
def test_what_an_answer_is_called_does_not_depend_on_what_was_drawn(name):
    """Chance decides a verdict less than once in 10^6 times: kinds differ by the structure of the cases alone."""
    exercise = EXERCISES[name]

    def kinds(answer):
        return tuple(exercise.call(answer, **case) for case in exercise.cases())

    seen = {}
    for mistake in exercise.mistakes:
        draws = {kinds(mistake) for _ in range(3)}
        assert len(draws) == 1
        assert any(draws.copy().pop())
        seen[mistake.__name__] = draws.pop()
    assert len(set(seen.values())) == len(seen)
    assert {kinds(exercise.solution) for _ in range(3)} == {(verdicts.RIGHT,) * len(exercise.cases())}


@pytest.mark.parametrize("name", NAMES[:3])
def test_cases_are_drawn_afresh(name):
    one, other = EXERCISES[name].cases(), EXERCISES[name].cases()
    assert not any(verdicts.same(tuple(a.values()), tuple(b.values())) for a, b in zip(one, other, strict=True))


# --- shamir_secret


def with_the_package(points, shares, prime):
    given = np.array([[share] for share in shares], dtype=np.uint64)
    return shamir_reconstruct(points, given, len(points), field=Field(prime))[0]


def by_neville(points, shares, prime):
    values = list(shares)
    for width in range(1, len(points)):
        for i in range(len(points) - width):
            left, right = points[i], points[i + width]
            values[i] = (right * values[i] - left * values[i + 1]) * pow(right - left, prime - 2, prime) % prime
    return values[0]


def by_elimination(points, shares, prime):
    rows = [[pow(x, k, prime) for k in range(len(points))] + [y] for x, y in zip(points, shares, strict=True)]
    for k in range(len(rows)):
        inverse = pow(rows[k][k], -1, prime)
        rows[k] = [entry * inverse % prime for entry in rows[k]]
        for i, row in enumerate(rows):
            if i != k:
                rows[i] = [(a - row[k] * b) % prime for a, b in zip(row, rows[k], strict=True)]
    return torch.tensor(rows[0][-1])


def by_exact_fractions(points, shares, prime):
    total = sum(Fraction(share * above, below) for share, above, below in shamir.weighed(points, shares))
    return total.numerator * pow(total.denominator, -1, prime) % prime


@pytest.mark.parametrize(
    "answer", [with_the_package, by_neville, by_elimination, by_exact_fractions], ids=lambda f: f.__name__
)
def test_any_way_to_the_secret_passes(answer):
    passes("shamir_secret", answer)


def rounds_floats(points, shares, prime):
    return round(sum(share * above / below for share, above, below in shamir.weighed(points, shares))) % prime


def that_pops(points, shares, prime):
    secret = EXERCISES["shamir_secret"].solution(points, shares, prime)
    shares.pop()
    return secret


ODD_SECRETS = {
    "nothing": (lambda *case: None, "returns None"),
    "words": (lambda *case: "s", "returns 's'; expected a whole number, the secret"),
    "a truth value": (lambda *case: True, "expected a whole number"),
    "an array": (lambda *case: np.arange(3), "expected a whole number"),
    "a float": (lambda *case: 0.5, "divides with /"),
    "NumPy's float": (lambda *case: np.float32(0.5), "divides with /"),
    "rounded floats": (rounds_floats, "divides with /"),
    "a share": (lambda points, shares, prime: shares[1], "From the shares at 1, 2 it finds another number"),
    "a popped list": (that_pops, "changes shares, which belongs to the caller"),
    "another error": (lambda *case: int("x"), "ValueError: invalid literal"),
    "below 0": (lambda *case: EXERCISES["shamir_secret"].solution(*case) - 2**61 + 1, "and not from 0 to p - 1"),
}


@pytest.mark.parametrize(("answer", "message"), ODD_SECRETS.values(), ids=ODD_SECRETS)
def test_odd_secrets_are_explained(answer, message):
    explained("shamir_secret", answer, message)


def test_the_solution_finds_the_secret_that_was_shared():
    for points, prime in shamir.CHOICES:
        secret = secrets.randbelow(prime)
        shares = shamir_share(np.array([secret], dtype=np.uint64), len(points), 12, field=Field(prime))
        given = [int(shares[point - 1, 0]) for point in points]
        assert shamir.my_shamir_secret(points, given, prime) == secret == shamir.secret_behind(points, given, prime)


def test_a_random_number_is_not_taken_for_a_rounded_one():
    """False alarms: of 2^31 numbers some four are as close as floats come, once in 5 x 10^8 times; of 2^61 fewer."""
    for case in shamir.gatherings():
        assert not shamir.is_rounded(secrets.randbelow(case["prime"]), **case)


# --- beaver_product


def party_1_adds(party, x, y, a, b, c, e, f):
    return (c + e * b + a * f + party * e * f) % 2**64


def with_shares_of_x_and_y(party, x, y, a, b, c, e, f):
    return (c + e * y + x * f - (e * f if party else 0)) % 2**64


def with_the_term_inside(party, x, y, a, b, c, e, f):
    return np.uint64((c + e * (b + f * (1 - party)) + a * f) % M)


def with_numpy(party, x, y, a, b, c, e, f):
    a, b, c, e, f = (np.array([number], dtype=np.uint64) for number in (a, b, c, e, f))
    z = c + e * b + a * f
    return (z if party else z + e * f)[0]


@pytest.mark.parametrize(
    "answer", [party_1_adds, with_shares_of_x_and_y, with_the_term_inside, with_numpy], ids=lambda f: f.__name__
)
def test_any_way_to_a_share_of_the_product_passes(answer):
    passes("beaver_product", answer)


ODD_PRODUCTS = {
    "nothing": (lambda *case: None, "returns None"),
    "a float": (lambda *case: 0.5, "returns 0.5; expected a whole number, its share"),
    "a pair": (lambda *case: (1, 2), "expected a whole number"),
    "zero": (lambda *case: 0, "does not add up to x y modulo 2^64"),
    "x y by both": (lambda party, x, y, *rest: x + y, "does not add up to x y"),
    "an error": (lambda party, *rest: 1 // (1 - party), "ZeroDivisionError"),
    "e f twice, with x and y": (
        lambda party, x, y, a, b, c, e, f: (c + e * y + x * f) % M,
        "add up to x y + e f",
    ),
}


@pytest.mark.parametrize(("answer", "message"), ODD_PRODUCTS.values(), ids=ODD_PRODUCTS)
def test_odd_products_are_explained(answer, message):
    explained("beaver_product", answer, message)


def test_both_parties_hold_shares_of_a_triple_and_know_e_and_f():
    for case in products.meetings():
        x, y, a, b, c = (sum(case[name]) % M for name in "xyabc")
        assert case["party"] == (0, 1)
        assert c == a * b % M
        assert case["e"] == ((x - a) % M,) * 2
        assert case["f"] == ((y - b) % M,) * 2


# --- garbled_xor


def as_bytes(a0, b0, delta, a, b):
    return bytes(x ^ y for x, y in zip(a0, b0, strict=True)), bytes(np.bitwise_xor(a, b))


def as_whole_numbers(a0, b0, delta, a, b):
    label, active = (int.from_bytes(bytes(x), "big") ^ int.from_bytes(bytes(y), "big") for x, y in ((a0, b0), (a, b)))
    return [label.to_bytes(16, "big"), bytearray(active.to_bytes(16, "big"))]


def with_a_public_constant(a0, b0, delta, a, b):
    return a0 ^ b0 ^ 77, a ^ b ^ 77


@pytest.mark.parametrize("answer", [as_bytes, as_whole_numbers, with_a_public_constant], ids=lambda f: f.__name__)
def test_any_way_to_a_free_xor_passes(answer):
    passes("garbled_xor", answer)


def in_place(a0, b0, delta, a, b):
    a0 ^= b0
    return a0, a ^ b


ODD_GATES = {
    "nothing": (lambda *case: None, "returns None"),
    "one label": (lambda a0, b0, delta, a, b: a0 ^ b0, "does not return two labels"),
    "three labels": (lambda *case: case[:3], "does not return two labels"),
    "numbers": (lambda *case: (1, 2), "One of its labels is 1; expected uint8"),
    "short": (lambda *case: (b"", b""), "expected uint8 of shape (16,)"),
    "floats": (lambda a0, *rest: (a0 / 2, a0), "One of its labels is float64 of shape (16,)"),
    "in place": (in_place, "changes a0, which belongs to the caller"),
    "bytes without an operator": (lambda a0, b0, *rest: bytes(a0) ^ bytes(b0), "TypeError"),
    "zeros": (
        lambda *case: (bytes(16), bytes(16)),
        "With labels of 1 and 0, who evaluates must reach the first result",
    ),
    "a hash of another kind": (
        lambda a0, b0, delta, a, b: (gates.hashed(b0, a0), gates.hashed(b, a)),
        "mixes labels, as a hash does",
    ),
    "a new label, evaluated to itself": (
        lambda *case: (gates.random_labels(1)[0],) * 2,
        "draws the output's label",
    ),
}


@pytest.mark.parametrize(("answer", "message"), ODD_GATES.values(), ids=ODD_GATES)
def test_odd_gates_are_explained(answer, message):
    explained("garbled_xor", answer, message)


def test_the_package_garbles_an_xor_like_the_solution():
    builder = Builder(1, 1)
    (x,), (y,) = builder.inputs
    circuit = builder.circuit([builder.xor(x, y)])
    garbled, keys = garble(circuit, 4)
    bits = np.array([[False, False], [False, True], [True, False], [True, True]])
    labels = encode_inputs(keys, bits)
    reached = evaluate(circuit, garbled, labels)
    for i in range(4):
        label, active = gates.my_garbled_xor(*keys.inputs[i], keys.offset, *labels[i])
        np.testing.assert_array_equal(label, keys.outputs[i, 0])
        np.testing.assert_array_equal(active, reached[i, 0])


# --- find_the_leak


def from_the_first(view):
    x, f = [int(number) for number in view.x], [int(number) for number in view.f]
    d = [(each - f[0] + 2**63) % M - 2**63 for each in f]
    total = int(view.total[0])
    total -= M if total >= 2**63 else 0
    first = (total - sum(map(int.__mul__, x, d))) // sum(x)
    return [first + each for each in d]


def by_least_squares(view):
    n = len(view.x)
    rows = np.vstack([np.eye(n) - np.eye(n)[-1], to_signed(view.x)]).astype(float)
    values = np.append(to_signed(view.f - view.f[-1]), to_signed(view.total)).astype(float)
    return torch.tensor(np.linalg.lstsq(rows, values, rcond=None)[0])


def by_elements(view):
    d = view.f - view.f[-1]
    last = (view.total - (view.x * d).sum()).view(np.int64) // view.x.view(np.int64).sum()
    return tuple(d + last.astype(np.uint64))


@pytest.mark.parametrize("answer", [from_the_first, by_least_squares, by_elements], ids=lambda f: f.__name__)
def test_any_way_to_the_secrets_passes(answer):
    passes("find_the_leak", answer)


ODD_LEAKS = {
    "nothing": (lambda view: None, "returns None"),
    "a number": (lambda view: 5, "returns 5; expected 2 whole numbers"),
    "words": (lambda view: ["a", "b"], "expected 2 whole numbers"),
    "one too few": (lambda view: view.f[1:], "It returns 1 numbers; party 1 has 2"),
    "NaN": (lambda view: view.x * np.nan, "expected 2 whole numbers"),
    "zeros": (lambda view: 0 * view.x, "From the view of 2 terms it finds other numbers"),
    "another name": (lambda view: view.secret, "AttributeError"),
    "in place": (lambda view: view.f.__isub__(view.f[-1]), "changes view, which belongs to the caller"),
    "another error": (lambda view: int("x"), "ValueError: invalid literal"),
}


@pytest.mark.parametrize(("answer", "message"), ODD_LEAKS.values(), ids=ODD_LEAKS)
def test_odd_leaks_are_explained(answer, message):
    explained("find_the_leak", answer, message)


SECRETS = [([1, 1], [0, 0]), ([3, 1, 2], [-7, 5, 0]), ([2**20] * 8, [-(2**30)] * 8), ([5], [-3]), ([2, 2], [9, -9])]


@pytest.mark.parametrize(("x", "y"), SECRETS)
def test_the_protocol_is_right_and_leaks_every_secret(x, y):
    view = leaks.careless_view(x, y)
    assert to_signed(view.total).tolist() == [sum(map(int.__mul__, x, y))]
    assert leaks.my_find_the_leak(view).tolist() == y


def careful_sum(channel, party, own, triple):
    """The same with a triple for each term."""
    link = Link(channel, party)
    x, y = share_both(link, own, own.shape)
    e, f = open_shares(link, x - triple.a, y - triple.b)
    z = triple.c + e * triple.b + triple.a * f + (e * f if party == 0 else 0)
    return leaks.View(own, y, triple.a, triple.b, triple.c, e, f, reveal(link, z.sum(keepdims=True), to=0))


def test_with_a_triple_for_each_term_the_same_sum_does_not_leak():
    """Of 64 bits, which are uniform then, two numbers agree by chance once in 2^64 times."""
    x, y = [3, 1, 2], [-7, 5, 0]
    parties = (
        partial(careful_sum, party=i, own=to_ring(own), triple=triple)
        for i, (own, triple) in enumerate(zip((x, y), deal_triple(Request("multiply", (3,), (3,))), strict=True))
    )
    view = run_parties(*parties)[0]
    assert to_signed(view.total).tolist() == [-16]
    assert leaks.my_find_the_leak(view).tolist() != y
    assert to_signed(view.f - view.f[-1]).tolist() != [-7, 5, 0]


def test_the_task_shows_the_protocol_that_runs():
    task = EXERCISES["find_the_leak"].task
    assert "e, f = open_shares(link, x - a, y - b)" in task
    assert "CODE" not in task


# --- count_rounds


def with_two_lists(layers, latency, bandwidth):
    ways = [
        (0, 0) if each.kind == "bias" else (5, sum(each.sent)) if each.kind == "relu" else (1, each[2][1])
        for each in layers
    ]
    messages, sent = np.sum(ways, axis=0)
    return messages, np.float64(messages * latency + sent / (bandwidth / 8))


def message_by_message(layers, latency, bandwidth):
    seconds, messages = 0.0, 0
    for name, shape, (one, other) in layers:
        if name == "relu":
            count = garbled_cost(shared_relu(64), *shape, 128).rounds
            seconds, messages = seconds + count * latency + 8 * (one + other) / bandwidth, messages + count
        elif one:
            seconds, messages = seconds + latency + one * 8 / bandwidth, messages + 1
    return [torch.tensor(messages), torch.tensor(seconds, dtype=torch.float64)]


@pytest.mark.parametrize("answer", [with_two_lists, message_by_message], ids=lambda f: f.__name__)
def test_any_way_to_count_passes(answer):
    passes("count_rounds", answer)


RIGHT_COUNT = EXERCISES["count_rounds"].solution
ODD_COUNTS = {
    "nothing": (lambda *case: None, "returns None"),
    "the messages alone": (lambda *case: 9, "does not return two numbers"),
    "swapped": (lambda *case: RIGHT_COUNT(*case)[::-1], "expected a whole number, how many messages"),
    "words": (lambda *case: (9, "long"), "Its seconds are 'long'; expected a number"),
    "an array": (lambda *case: (9, np.ones(3)), "expected a number"),
    "milliseconds": (
        lambda *case: (RIGHT_COUNT(*case)[0], 1000 * RIGHT_COUNT(*case)[1]),
        "its 8 messages are right, and the seconds are not",
    ),
    "one too many": (
        lambda *case: (RIGHT_COUNT(*case)[0] + 1, RIGHT_COUNT(*case)[1]),
        "another number of messages than the 8",
    ),
    "an empty list": (lambda layers, *rest: layers.clear() or (8, 1.0), "changes layers, which belongs to the caller"),
    "another name": (lambda layers, *rest: layers[0].bytes, "AttributeError"),
}


@pytest.mark.parametrize(("answer", "message"), ODD_COUNTS.values(), ids=ODD_COUNTS)
def test_odd_counts_are_explained(answer, message):
    explained("count_rounds", answer, message)


def messages_in_sequence(*logs):
    """The longest chain of messages of two parties, each of which was sent after the one before had come."""
    clocks, ways, left = [0, 0], (deque(), deque()), [deque(log) for log in logs]
    while any(left):
        moved = False
        for i in (0, 1):
            while left[i] and (left[i][0].outgoing or ways[1 - i]):
                if left[i].popleft().outgoing:
                    ways[i].append(clocks[i] + 1)
                else:
                    clocks[i] = max(clocks[i], ways[1 - i].popleft())
                moved = True
        assert moved
    return max(clocks)


def logged(party):
    """A party that returns its channel's log, and how many bytes it sent."""

    def run(channel):
        party(channel)
        return channel.log, channel.bytes_sent

    return run


@pytest.mark.parametrize(("name", "shape"), [("linear", (2, 30, 4)), ("bias", (7,)), ("open", (7,))])
def test_layers_have_the_messages_and_the_bytes_of_real_channels(name, shape):
    m, k, n = shape if name == "linear" else (1, 1, *shape)
    triples = deal_triple(Request("matmul", (m, k), (k, n)))
    parties = [logged(partial(layers.run_layer, party=i, kind=name, triple=triples[i])) for i in (0, 1)]
    (log, sent), (other_log, other_sent) = run_parties(*parties, log=True)
    layer, messages = layers.measured(name, *shape)
    assert messages == messages_in_sequence(log, other_log)
    assert layer.sent == (sent, other_sent)


def test_relu_has_the_messages_and_the_bytes_of_real_channels():
    x = to_bits([5, -3], 64)
    parties = (
        logged(partial(garbler, circuit=shared_relu(64), inputs=np.hstack([x, x]))),
        logged(partial(evaluator, circuit=shared_relu(64), inputs=x)),
    )
    (log, sent), (other_log, other_sent) = run_parties(*parties, log=True)
    layer, messages = layers.measured("relu", 2)
    assert messages == messages_in_sequence(log, other_log)
    assert layer.sent == (sent, other_sent)


def test_networks_are_counted_layer_by_layer():
    image, images, linear = layers.inferences()
    relu = layers.relu_cost(2).rounds
    assert [rounds.in_sequence(each)[0] for each in (image, images, linear)] == [3 + relu, 4 + 2 * relu, 2]

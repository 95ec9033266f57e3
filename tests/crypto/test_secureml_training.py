"""Logistic regression on shares: as near to the same training in the clear as derived, and nothing seen of the data."""

import itertools
import math
import time
from functools import partial

import numpy as np
import pytest
import torch

from spai_lab.crypto.authenticated import mac_key
from spai_lab.crypto.circuits_sigmoid import shared_sigmoid
from spai_lab.crypto.frames import ProtocolError, unpack
from spai_lab.crypto.garbled_circuit_parties import garbled_cost
from spai_lab.crypto.parties import run_parties
from spai_lab.crypto.secret_sharing_masked import deal, masked_matmul
from spai_lab.crypto.secret_sharing_parties import Link, open_shares, receive_elements, receive_share, send_share
from spai_lab.crypto.secret_sharing_ring import Ring
from spai_lab.crypto.secureml import middle
from spai_lab.crypto.secureml_training import (
    NAMES,
    secureml_training,
    train_step,
    training_dealer,
    training_owner,
    training_party,
)
from spai_lab.crypto.secureml_training_terms import (
    TrainingTerms,
    fixed_examples,
    plain_training,
    predicted,
    sigmoid_training,
    to_weights,
    training_error,
    training_failure,
)
from tests.crypto.enumeration import distribution, enumerated
from tests.crypto.tampering import WAIT, Left, leave, mutations, received, stall, talk, uniform, without_transfers

ALPHA = 1e-6
TERMS = TrainingTerms(7, 4, batch=4, epochs=2, value_places=4, weight_places=8, step_places=3)
RANDOM = np.random.default_rng(0)
X = np.hstack([RANDOM.integers(0, 17, (7, 3)), np.full((7, 1), 16)])
Y = RANDOM.integers(0, 2, (7, 1)) << 8


def roles(*, x=X, y=Y, terms=TERMS, **change):
    """All four parties; `change` puts other terms in the place of a party's, by its name."""
    own = {name: change.get(name.replace(" ", "_"), terms) for name in NAMES}
    return [
        partial(middle, training_owner, (0, 1), x=x, y=y, terms=own["owner"]),
        *(partial(training_party, party=number, terms=own[f"server {number}"]) for number in (0, 1)),
        partial(middle, training_dealer, (1, 2), terms=own["dealer"]),
    ]


def near(terms, x, y, weights):
    """Whether weights are within the bound of those in the clear, which is not empty."""
    bound = training_error(terms, x)
    off = np.linalg.norm((weights - plain_training(terms, x, y).weights).astype(float), axis=0)
    return bound < math.inf and bool((off <= bound).all())


# --- what is computed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [1, 3])
def test_weights_are_within_the_bound_of_those_in_the_clear(classes):
    random = np.random.default_rng(classes)
    terms = TrainingTerms(50, 6, classes=classes, batch=16, epochs=3, step_places=5)
    x = np.hstack([random.integers(0, 257, (50, 5)), np.full((50, 1), 256)])
    y = (random.integers(0, 2, (50, classes)) << 18).astype(np.int64)
    assert plain_training(terms, x, y).failure < ALPHA
    weights, _ = secureml_training(terms, x, y)
    off = weights - plain_training(terms, x, y).weights
    assert near(terms, x, y, weights) and np.abs(off).max() > 0


def digits_task(data, task, *, epochs):
    """Terms, and examples to train, in whole numbers; images and labels to test."""
    order = torch.randperm(len(data.x_train), generator=torch.Generator().manual_seed(0))
    x, y = data.x_train[order], data.y_train[order]
    change = {"zero": lambda y: (y == 0).long(), "even": lambda y: (y % 2 == 0).long(), "ten": lambda y: y}[task]
    terms = TrainingTerms(len(x), x[0].numel() + 1, classes=10 if task == "ten" else 1, epochs=epochs)
    return terms, *fixed_examples(terms, x, change(y)), data.x_test, change(data.y_test).numpy()


@pytest.fixture(scope="module")
def raw_digits():
    from spai_lab.data import load

    return load("digits", raw=True)


def accuracy(weights, x, y):
    return (predicted(weights, x) == y).mean()


@pytest.mark.parametrize(
    ("task", "epochs"),
    [("zero", 3), pytest.param("even", 10, marks=pytest.mark.full), pytest.param("ten", 5, marks=pytest.mark.full)],
)
def test_digits_are_learned_as_well_as_in_float_with_the_true_sigmoid(raw_digits, monkeypatch, task, epochs):
    """At most .3 points are lost."""
    without_transfers(monkeypatch)
    terms, x, y, x_test, y_test = digits_task(raw_digits, task, epochs=epochs)
    weights, _ = secureml_training(terms, x, y)
    assert near(terms, x, y, weights)
    lost = accuracy(sigmoid_training(terms, x, y), x_test, y_test) - accuracy(
        to_weights(terms, weights), x_test, y_test
    )
    assert lost <= 0.003


@pytest.mark.full
def test_mnist_is_learned_as_well_as_in_float(mnist, monkeypatch):
    without_transfers(monkeypatch)
    x, y = mnist.x_train[:2000], (mnist.y_train[:2000] == 0).long()
    terms = TrainingTerms(2000, 785, epochs=2)
    examples = fixed_examples(terms, x, y)
    weights, _ = secureml_training(terms, *examples)
    test = mnist.x_test, (mnist.y_test == 0).numpy()
    lost = accuracy(sigmoid_training(terms, *examples), *test) - accuracy(to_weights(terms, weights), *test)
    assert lost <= 0.003


@pytest.mark.full
def test_parties_as_processes_over_tcp():
    weights, _ = secureml_training(TERMS, X, Y, transport="processes")
    assert near(TERMS, X, Y, weights)


def test_the_clear_training_by_fractions():
    """Exact rational arithmetic, rounded down where the protocol truncates."""
    from fractions import Fraction

    terms, (f, g, s) = TERMS, (4, 8, 3)
    x, y, w = ([[Fraction(int(k)) for k in row] for row in part] for part in (X, Y, np.zeros((4, 1), int)))
    for rows in [range(4), range(4, 7)] * 2:
        errors = []
        for i in rows:
            u = math.floor(sum(a * b[0] for a, b in zip(x[i], w, strict=True)) / 2**f)
            errors.append(min(max(u + 2**g // 2, 0), 2**g) - y[i][0])
        for j in range(4):
            gradient = sum(x[i][j] * error for i, error in zip(rows, errors, strict=True))
            w[j][0] -= math.floor(gradient / 2 ** (f + s))
    assert plain_training(terms, X, Y).weights.tolist() == w


def test_the_true_sigmoid_finds_the_optimum_of_scikit_learn(raw_digits):
    """Where full batches of small steps have converged: the regularized optimum, with hardly any penalty, is near."""
    from sklearn.linear_model import LogisticRegression

    random = np.random.default_rng(5)
    x = random.random((200, 3))
    y = (random.random(200) < 1 / (1 + np.exp(-(x @ [3, -4, 1])))).astype(int)
    terms = TrainingTerms(200, 4, batch=200, epochs=20000, value_places=20, weight_places=1, step_places=6)
    whole = np.hstack([np.rint(x * 2**20), np.full((200, 1), 2**20)]).astype(np.int64)
    ours = sigmoid_training(terms, whole, 2 * y[:, None])
    known = LogisticRegression(C=1e9, tol=1e-10, max_iter=10000).fit(x, y)
    np.testing.assert_allclose(ours[:, 0], [*known.coef_[0], known.intercept_[0]], atol=1e-3)


# --- how far off, and how likely --------------------------------------------------------------------------------------


def test_the_bound_holds_for_training_that_rounds_at_random():
    terms = TrainingTerms(40, 5, batch=20, epochs=30, value_places=4, weight_places=10, step_places=4)
    random = np.random.default_rng(3)
    x, y = random.integers(0, 17, (40, 5)), random.integers(0, 2, (40, 1)) << 10
    clear, bound = plain_training(terms, x, y).weights, training_error(terms, x)
    for chance in (0.3, 1.0):
        up = lambda v, places, p=chance: (v >> places) + ((v % 2**places > 0) & (random.random(v.shape) < p))  # noqa: E731
        w = np.zeros((5, 1), np.int64)
        for rows in terms.batches * 30:
            activation = np.clip(up(x[rows] @ w, 4) + 2**9, 0, 2**10)
            w -= up(x[rows].T @ (activation - y[rows]), 8)
        assert 0 < np.linalg.norm(w - clear) <= bound < math.inf


def test_steps_too_long_have_no_bound():
    assert training_error(TrainingTerms(7, 4, batch=4, value_places=4, step_places=0), X) == math.inf


def test_no_number_leaves_what_the_terms_say():
    """The largest weight and activation, by examples that push one way in each step."""
    terms = TrainingTerms(8, 3, batch=4, epochs=5, value_places=2, weight_places=6, step_places=1)
    x, y = np.full((8, 3), 4), np.full((8, 1), 64)
    weights = np.abs(plain_training(terms, x, y).weights)
    assert weights.max() <= terms.largest_weight and terms.largest_activation < 2 ** (terms.width - 1)
    assert training_failure(terms) >= plain_training(terms, x, y).failure > 0
    assert training_failure(terms, ring=Ring(12)) == 1


def test_a_training_wraps_as_often_as_foretold(monkeypatch):
    """In a ring of 2^20, 4,000 regressions of one step, with gradients of 2^13: each fails with probability 1/128."""
    without_transfers(monkeypatch)
    ring, classes = Ring(20), 4000
    terms = TrainingTerms(1, 1, classes=classes, batch=1, value_places=5, weight_places=9, step_places=0)
    x, y = np.array([[32]]), np.full((1, classes), 512)
    parties = [partial(party, ring=ring) for party in roles(x=x, y=y, terms=terms)]
    weights, *_ = run_parties(*parties, names=NAMES)
    clear = plain_training(terms, x, y)
    assert (clear.weights == 256).all() and clear.failure == classes * 2**13 / 2**64
    wrong = int((weights != 256).sum())
    assert 5 < wrong < 70  # of Bin(4000, 1/128), mean 31.25: outside with probability 9e-9


# --- costs ------------------------------------------------------------------------------------------------------------


def test_bytes_of_each_epoch_are_as_foretold():
    laps = secureml_training(TERMS, X, Y).laps
    circuit = shared_sigmoid(64, 8, width=TERMS.width)
    costs = [garbled_cost(circuit, n, TERMS.width + 64) for n in (4, 3)]
    sent = [sum(cost.sender_bytes for cost in costs), sum(cost.receiver_bytes for cost in costs)]
    frames = [4 + (1 + 4 + 4) + (1 + 2 + 8) + 8 * n for n in (4, 4, 4, 3)]  # w, and activations of both batches
    for number, own in enumerate(laps):
        cost = {each.name: each for each in own}
        epochs = [f"epoch {epoch}: {part}" for epoch in (1, 2) for part in ("triples", "linear", "garbled")]
        assert [*cost] == ["examples", "masks", "data masked", *epochs, "weights for the owner"]
        for epoch in (1, 2):
            linear, garbled = cost[f"epoch {epoch}: linear"], cost[f"epoch {epoch}: garbled"]
            assert linear.bytes_sent == linear.bytes_received == sum(frames)
            assert [garbled.bytes_sent, garbled.bytes_received] == (sent if number == 0 else sent[::-1])


# --- what is seen -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("server", NAMES[1:3])
@pytest.mark.parametrize("value", [0, 16])
def test_servers_see_uniform_numbers(monkeypatch, server, value):
    """Chi-square of all nibbles that come, false alarm 1e-6 each."""
    without_transfers(monkeypatch)
    terms = TrainingTerms(40, 8, batch=20, epochs=2, value_places=4, weight_places=8, step_places=7)
    x, y = np.full((40, 8), value), np.full((40, 1), 16 * value)
    results, frames = talk(roles(x=x, y=y, terms=terms), NAMES, timeout=60)
    assert near(terms, x, y, results[0])
    for kinds in (("examples",), ("mask",), ("product",), ("open",)):
        assert uniform(received(frames, server, kinds)) > ALPHA


@pytest.mark.parametrize("fault", [None, "mask", "product"])
def test_masks_that_are_not_drawn_anew_are_caught(monkeypatch, fault):
    """Differences of what is opened in two trainings, on the same data: uniform only if all masks are fresh."""
    without_transfers(monkeypatch)
    terms = TrainingTerms(40, 8, batch=20, epochs=2, value_places=4, weight_places=8, step_places=7)
    random = np.random.default_rng(4)
    x, y = random.integers(0, 17, (40, 8)), random.integers(0, 2, (40, 1)) << 8
    store, opened = {}, []

    def old(servers, kind, parts, ring):
        if kind == fault:
            counts[kind] = counts.get(kind, 0) + 1
            parts = store.setdefault((kind, counts[kind]), parts)
        deal(servers, kind, parts, ring)

    monkeypatch.setattr("spai_lab.crypto.secureml_training.deal", old)
    for _ in range(2):
        counts = {}
        _, frames = talk(roles(x=x, y=y, terms=terms), NAMES, timeout=60)
        pairs = [
            [m.values[0] for m in (unpack(frame[4:]) for frame in frames[ends]) if m.kind == "open"]
            for ends in (("server 0", "server 1"), ("server 1", "server 0"))
        ]
        opened.append([one + other for one, other in zip(*pairs, strict=True)])
    data, products = (
        np.concatenate([(a - b).ravel() for a, b in list(zip(*opened, strict=True))[part]])
        for part in (slice(None, 2), slice(2, None))
    )
    assert (uniform(data) > ALPHA) == (fault != "mask")
    assert (uniform(products) > ALPHA) == (fault != "product")


def masked_views(bits, x, ys, *, change=lambda name, columns: columns):
    """How often each party sees what in products of one masked x with several y, over all randomness; and the products.

    A dealer draws a, its share, and for each product b and two shares; party 0 has x, party 1 all y.
    """
    ring, count = Ring(bits), len(ys)
    draws = {"MainThread": 2 + 3 * count, "zero": 1, "one": count}
    size, ends = 2 ** (bits * sum(draws.values())), {}
    shape = (size, 1, 1)
    constant = lambda k: np.full(shape, k, np.uint64)  # noqa: E731

    def dealing(*servers):
        a = ring.draw(shape)
        deal(servers, "mask", [a], ring)
        for _ in ys:
            b = ring.draw(shape)
            deal(servers, "product", [b, ring.matmul(a, b)], ring)

    def party(number, dealer_end, other):
        ends[number] = dealer_end, other
        link = Link(other, number, ring=ring)
        own = send_share(link, constant(x)) if number == 0 else receive_share(link, shape)
        others = [send_share(link, constant(y)) if number == 1 else receive_share(link, shape) for y in ys]
        (a,) = receive_elements(dealer_end, "mask", [shape], ring)
        (e,) = open_shares(link, ring.reduce(own - a))
        parts = [receive_elements(dealer_end, "product", [shape, shape], ring) for _ in ys]
        return open_shares(link, *(masked_matmul(link, e, a, y, *part) for y, part in zip(others, parts, strict=True)))

    names = ("dealer", "zero", "one")
    with enumerated(bits, draws, change=change) as drawn:
        _, *told = run_parties(dealing, partial(party, 0), partial(party, 1), names=names, view=10**9)
    seen = []
    for number in (0, 1):
        came = [value for end in ends[number] for message in end.view for value in message.values]
        seen.append(distribution(bits, [*drawn[names[number + 1]], *came]))
    return seen, told


def test_views_of_products_with_data_masked_once_over_all_randomness():
    """Two products modulo 2: right, and a view depends on one's own numbers and both products alone."""
    seen = {}
    for x, *ys in itertools.product((0, 1), repeat=3):
        both, told = masked_views(1, x, ys)
        assert all((z == x * y % 2).all() for outcome in told for z, y in zip(outcome, ys, strict=True))
        products = tuple(x * y % 2 for y in ys)
        for number, view in enumerate(both):
            seen.setdefault((number, (x, tuple(ys))[number], products), []).append(view)
    assert all(view == group[0] for group in seen.values() for view in group)
    assert len(seen[0, 0, (0, 0)]) == 4  # whatever party 1 has, x = 0 sees the same


@pytest.mark.full
def test_views_of_a_product_with_masked_data_modulo_eight():
    for number, one, other in ((0, (2, [1]), (2, [5])), (1, (2, [4]), (6, [4]))):
        assert masked_views(3, *one)[0][number] == masked_views(3, *other)[0][number]
    assert masked_views(3, 2, [1])[0][0] != masked_views(3, 2, [3])[0][0]


def test_a_mask_that_serves_for_two_products_is_seen_in_the_views():
    """Party 0 then sees the difference of party 1's numbers, though x = 0 makes both products 0."""

    def change(name, columns):
        if name == "MainThread":
            columns[5] = columns[2]  # a, its share, b, its share, the product's, and b of the second product
        return columns

    fresh = {tuple(ys): masked_views(1, 0, ys)[0][0] for ys in itertools.product((0, 1), repeat=2)}
    again = {tuple(ys): masked_views(1, 0, ys, change=change)[0][0] for ys in itertools.product((0, 1), repeat=2)}
    assert all(view == fresh[0, 0] for view in fresh.values())
    assert again[0, 0] == again[1, 1] != again[0, 1]


# --- faults -----------------------------------------------------------------------------------------------------------

CHANGES = {
    "epochs": ("server_0", {"epochs": 3}, "epochs is"),
    "places": ("server_1", {"weight_places": 9}, "weight_places is"),
    "step": ("dealer", {"step_places": 4}, "step_places is"),
    "batch": ("server_0", {"batch": 7}, "batch is"),
}


@pytest.mark.parametrize(("who", "change", "words"), CHANGES.values(), ids=CHANGES)
def test_parties_that_agreed_on_other_things_are_told(who, change, words):
    terms = {name: getattr(TERMS, name) for name in TERMS.__dataclass_fields__}
    results, _ = talk(roles(**{who: TrainingTerms(**terms | change)}), NAMES)
    assert any(type(result) is ProtocolError and words in str(result) for result in results)
    assert isinstance(results[0], ProtocolError | TimeoutError)


@pytest.fixture(scope="module")
def conversation():
    """All frames of a run, by sender and receiver."""
    with pytest.MonkeyPatch.context() as patch:
        without_transfers(patch)
        results, frames = talk(roles(), NAMES, timeout=60)
    assert near(TERMS, X, Y, results[0])
    return frames


PAIRS = [
    ("owner", "server 0"),
    ("server 1", "owner"),
    ("dealer", "server 1"),
    ("server 0", "server 1"),
    ("server 1", "server 0"),
]


@pytest.mark.parametrize(("sender", "receiver"), PAIRS)
@pytest.mark.parametrize("change", [leave, stall])
def test_nobody_waits_for_who_leaves_or_stalls(conversation, monkeypatch, sender, receiver, change):
    without_transfers(monkeypatch)
    last = len(conversation[sender, receiver]) - 1
    for place in {last} if change is stall else {0, last}:
        results, _ = talk(
            roles(),
            NAMES,
            sender=sender,
            receiver=receiver,
            place=place,
            change=change,
            timeout=WAIT if change is stall else 20,
        )
        gone = NAMES.index(sender)
        assert isinstance(results[gone], Left) == (change is leave)
        named = [r for i, r in enumerate(results) if isinstance(r, Exception) and i != gone]
        assert named and all(isinstance(error, ProtocolError | TimeoutError) and str(error) for error in named)
        assert isinstance(results[0], Exception) or near(TERMS, X, Y, results[0])


def test_who_waits_for_the_result_needs_patience_for_a_step_alone(monkeypatch):
    """Servers that pause in each of 8 steps, 3.2 s in all, and a patience of 2 s."""
    without_transfers(monkeypatch)
    terms = TrainingTerms(7, 4, batch=4, epochs=4, value_places=4, weight_places=8, step_places=3)

    def pausing(*arguments, **settings):
        time.sleep(0.4)
        return train_step(*arguments, **settings)

    monkeypatch.setattr("spai_lab.crypto.secureml_training.train_step", pausing)
    results, _ = talk(roles(terms=terms), NAMES, timeout=2)
    assert near(terms, X, Y, results[0])


def numbers(results):
    """Of each run that had weights, whether they are right; they are complete in any case."""
    complete = [each[0] for each in results if not isinstance(each[0], Exception)]
    assert all(weights.shape == (4, 1) and weights.dtype == np.int64 for weights in complete)
    return [near(TERMS, X, Y, weights) for weights in complete]


@pytest.mark.parametrize("count", [150, pytest.param(2500, marks=pytest.mark.full)])
def test_changed_messages_end_in_named_errors_or_in_other_numbers(conversation, monkeypatch, count):
    without_transfers(monkeypatch)
    results = list(mutations(roles, NAMES, conversation, count, 1))
    assert len(numbers(results)) < len(results) == count


@pytest.mark.parametrize("count", [20, pytest.param(1000, marks=pytest.mark.full)])
def test_over_authenticated_channels_no_changed_message_gives_another_number(monkeypatch, count):
    """What is left are bytes after the last message, which nobody reads."""
    without_transfers(monkeypatch)
    key = mac_key()
    _, frames = talk(roles(), NAMES, key=key, timeout=60)
    assert all(numbers(mutations(roles, NAMES, frames, count, 2, key=key)))


# --- arguments --------------------------------------------------------------------------------------------------------


def test_bad_arguments_are_named(refuses):
    refuses(TrainingTerms, {"examples": 0, "features": 3}, "examples is 0")
    refuses(TrainingTerms, {"examples": 1, "features": 3, "value_places": 31}, "value_places is 31")
    refuses(TrainingTerms, {"examples": 2**20, "features": 2**20, "epochs": 2**10}, "weight_places is 18", "2^62")
    terms = TrainingTerms(2, 3)
    x, y = torch.rand(2, 1, 1, 2), torch.tensor([0, 1])
    refuses(fixed_examples, {"terms": terms, "x": x[:1], "y": y[:1]}, "x is", "2 images of 2 pixels")
    refuses(fixed_examples, {"terms": terms, "x": x, "y": y + 1}, "y has a label 2")
    refuses(fixed_examples, {"terms": 3, "x": x, "y": y}, "terms is 3")
    refuses(plain_training, {"terms": TERMS, "x": X[:3], "y": Y}, "x is int64 of shape (3, 4)")
    refuses(plain_training, {"terms": TERMS, "x": X * 2, "y": Y}, "x's largest number")
    refuses(sigmoid_training, {"terms": TERMS, "x": X, "y": -Y}, "y's smallest number")
    refuses(training_owner, {"first": None, "second": None, "x": X, "y": Y.T, "terms": TERMS}, "y is")
    server = {"owner": None, "other": None, "third": None, "party": 0, "terms": TERMS}
    refuses(training_party, server | {"party": 3}, "party is 3")
    refuses(training_party, server | {"progress": 1}, "progress is 1")
    refuses(training_dealer, {"first": None, "second": None, "terms": None}, "terms is None")

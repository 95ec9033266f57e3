"""Inference on shares: within a bound of the network in the clear; nothing is seen but uniform numbers."""

import itertools
from functools import partial

import numpy as np
import pytest
import torch

from spai_lab.crypto import secret_sharing_circuits, secret_sharing_transfers
from spai_lab.crypto.authenticated import mac_key
from spai_lab.crypto.channel import pair
from spai_lab.crypto.circuits import evaluate_plain
from spai_lab.crypto.circuits_bits import from_bits, to_bits
from spai_lab.crypto.circuits_sigmoid import shared_sigmoid
from spai_lab.crypto.circuits_words import shared_relu
from spai_lab.crypto.fixed_network import FixedNetwork, Stage, fixed_logits, fixed_network, limits, to_logits, windows
from spai_lab.crypto.frames import ProtocolError, unpack
from spai_lab.crypto.garbled_circuit_labels import blake2_hash, tmmo_hash
from spai_lab.crypto.garbled_circuit_parties import garbled_cost
from spai_lab.crypto.paillier_keys import generate_key
from spai_lab.crypto.parties import run_parties
from spai_lab.crypto.relu_networks import minionn_network, relu_network
from spai_lab.crypto.secret_sharing import reconstruct, share
from spai_lab.crypto.secret_sharing_circuits import between_shares
from spai_lab.crypto.secret_sharing_dealers import dealer, paillier_triples
from spai_lab.crypto.secret_sharing_parties import Link, matmul, open_shares
from spai_lab.crypto.secret_sharing_ring import RING, Ring, to_ring, to_signed
from spai_lab.crypto.secret_sharing_transfers import transfer_triples
from spai_lab.crypto.secret_sharing_triples import Request, deal_triple, stock
from spai_lab.crypto.secureml import NAMES, infer_on_shares, middle, secureml_inference, secureml_party
from spai_lab.crypto.secureml_owners import secureml_client, secureml_owner
from spai_lab.crypto.secureml_terms import inference_failure, inference_terms, logit_errors
from spai_lab.training.loop import fit
from tests.crypto.tampering import WAIT, Left, leave, mutations, received, stall, talk, uniform, without_transfers
from tests.crypto.test_secret_sharing_parties import shared, views

ALPHA = 1e-6


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def small_network(places=8, seed=0):
    """Two maps of a convolution, pooled, and three classes, with random weights."""
    random = np.random.default_rng(seed)
    unit = 2**places
    first = Stage(random.integers(-unit, unit, (2, 9)), random.integers(-unit, unit, 2) * unit, (1, 6, 6), 3, 2)
    last = Stage(random.integers(-unit, unit, (3, 8)), random.integers(-unit, unit, 3) * unit, (8,))
    return FixedNetwork((first, last), places, places)


NETWORK = small_network()
X = torch.rand(2, 1, 6, 6, generator=seeded(0))
MANY = torch.rand(20, 1, 6, 6, generator=seeded(5))
TERMS = inference_terms(NETWORK, images=2)


def roles(*, network=NETWORK, x=X, terms=TERMS, **change):
    """All five parties; `change` puts other terms in the place of a party's, by its name."""
    own = {name: change.get(name.replace(" ", "_"), terms) for name in NAMES}
    return [
        partial(middle, secureml_client, (0, 1), x=x, terms=own["client"]),
        *(partial(secureml_party, party=number, terms=own[f"server {number}"]) for number in (0, 1)),
        partial(middle, secureml_owner, (1, 2), network=network, terms=own["owner"]),
        partial(middle, dealer, (1, 2), requests=own["dealer"].requests),
    ]


TINY = FixedNetwork(
    (Stage(np.array([[5, -9], [-3, 7]]), np.array([4, -2]), (2,)), Stage(np.array([[6, -5]]), np.array([1]), (2,))),
    4,
    4,
)
DOTS = torch.tensor([[[[0.25, 0.75]]]])
tiny = partial(roles, network=TINY, x=DOTS, terms=inference_terms(TINY, relu_bits=10))


def within(network, x, logits):
    """Whether logits on shares are as near to those in the clear as they must be."""
    low, high = logit_errors(network)
    off = logits - fixed_logits(network, x)
    return bool((low <= off).all() and (off <= high).all())


# --- what is computed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("relu_bits", [64, 32])
@pytest.mark.parametrize("seed", range(3))
def test_logits_are_within_the_bound_of_those_in_the_clear(seed, relu_bits):
    network, x = small_network(13, seed), torch.rand(7, 1, 6, 6, generator=seeded(seed))
    assert inference_failure(network, images=7, relu_bits=relu_bits) < ALPHA
    logits, _ = secureml_inference(network, x, relu_bits=relu_bits)
    assert logits.dtype == np.int64 and within(network, x, logits)


def test_digits_are_classified_as_in_the_clear(raw_digits, trained):
    network = fixed_network(trained, (1, 8, 8), value_places=13, weight_places=13)
    x, y = raw_digits.x_test[:50], raw_digits.y_test[:50]
    assert inference_failure(network, images=50) < ALPHA
    logits, _ = secureml_inference(network, x, label_hash=blake2_hash)
    assert within(network, x, logits)
    margin = np.sort(fixed_logits(network, x), 1)
    sure = margin[:, -1] - margin[:, -2] > np.subtract(*logit_errors(network)[::-1]).max()
    clear = trained(x).argmax(1).numpy()
    assert sure.sum() > 40 and (logits.argmax(1) == clear)[sure].all()
    assert (to_logits(network, logits).argmax(1) == y).float().mean() > 0.8


@pytest.fixture(scope="module")
def raw_digits():
    from spai_lab.data import load

    return load("digits", raw=True)


@pytest.fixture(scope="module")
def trained(raw_digits):
    model = relu_network(generator=seeded(0))
    data = raw_digits.x_train, raw_digits.y_train
    fit(model, *data, epochs=10, learning_rate=0.01, generator=seeded(0), progress=False)
    return model


@pytest.mark.full
def test_an_image_of_mnist_by_minionns_network(mnist):
    model = minionn_network(generator=seeded(0))
    fit(model, mnist.x_train[:2000], mnist.y_train[:2000], epochs=1, generator=seeded(0), progress=False)
    network, x = fixed_network(model, (1, 28, 28), value_places=13, weight_places=13), mnist.x_test[:1]
    for bits in (64, 32):
        logits, _ = secureml_inference(network, x, relu_bits=bits)
        assert within(network, x, logits)


@pytest.mark.full
def test_parties_as_processes_over_tcp():
    logits, laps = secureml_inference(NETWORK, X, transport="processes")
    assert within(NETWORK, X, logits) and all(map(len, laps))


@pytest.mark.parametrize("to", ["client", "owner", "both"])
def test_logits_are_for_those_who_are_to_know_them(to):
    client, _, _, owner, _ = run_parties(*roles(terms=inference_terms(NETWORK, images=2, logits_to=to)), names=NAMES)
    for name, logits in (("client", client), ("owner", owner)):
        assert (logits is not None) == (to in (name, "both"))
        assert logits is None or within(NETWORK, X, logits)


@pytest.mark.parametrize("how", ["paillier", "transfers"])
def test_servers_can_make_their_triples_themselves(monkeypatch, how):
    """Under Paillier encryption, or by oblivious transfer in several runs: nobody deals."""
    monkeypatch.setattr(secret_sharing_transfers, "PRODUCTS", 3)
    if how == "paillier":
        keys = [generate_key(320, for_learning=True) for _ in range(2)]
        makers = [partial(paillier_triples, key=key, for_learning=True) for key in keys]
    else:
        makers = [partial(transfer_triples, party=number) for number in (0, 1)]
    parties = tiny()
    for number in (0, 1):
        parties[1 + number] = partial(parties[1 + number], make_triples=makers[number])
    logits, *_ = run_parties(*parties[:4], lambda *channels: None, names=NAMES)
    assert within(TINY, DOTS, logits)


@pytest.mark.parametrize("request_", [Request("multiply", (5,), (5,)), Request("matmul", (2, 3, 4), (2, 4, 2))])
def test_triples_by_transfer_are_triples(request_):
    make = [partial(transfer_triples, requests=[request_], party=number) for number in (0, 1)]
    one, other = (source(request_) for source in run_parties(*make))
    a, b, c = (getattr(one, part).astype(object) + getattr(other, part).astype(object) for part in "abc")
    product = a * b if request_.kind == "multiply" else a @ b
    assert ((c - product) % 2**64 == 0).all()


# --- how far off, and how likely --------------------------------------------------------------------------------------


def test_the_bound_is_what_all_ways_of_rounding_reach():
    """Each of six numbers rounded up or down, in all 64 ways: no logit beyond the bound, and each bound reached."""
    random = np.random.default_rng(1)
    first = Stage(random.integers(1, 9, (6, 4)), random.integers(1, 9, 6), (4,))
    last = Stage(random.integers(-9, 10, (3, 6)), random.integers(-9, 10, 3), (6,))
    network, found = FixedNetwork((first, last), 4, 3), []
    for x in random.integers(0, 17, (40, 4)):
        z = first.weight @ x + first.bias
        exact = last.weight @ (z >> 3)
        found += [
            last.weight @ ((z >> 3) + (np.array(up) & (z % 8 > 0))) - exact
            for up in itertools.product((0, 1), repeat=6)
        ]
    low, high = logit_errors(network)
    assert (np.min(found, 0) == low).all() and (np.max(found, 0) == high).all()


def test_the_bound_follows_errors_through_layers_and_pools():
    """Against a network that rounds at random, and one that always rounds up."""
    network, random = small_network(5), np.random.default_rng(2)
    second = Stage(random.integers(-40, 40, (4, 8)), random.integers(-40, 40, 4), (8,))
    last = Stage(random.integers(-40, 40, (3, 4)), random.integers(-40, 40, 3), (4,))
    network = FixedNetwork((network.stages[0], second, last), 5, 5)
    x = torch.rand(300, 1, 6, 6, generator=seeded(3))
    low, high = logit_errors(network)
    for chance in (0.5, 1.0):
        off = rounded_logits(network, x, lambda shape, p=chance: random.random(shape) < p) - fixed_logits(network, x)
        assert (low <= off).all() and (off <= high).all() and np.abs(off).max() > 0


def rounded_logits(network, x, up):
    """`fixed_logits` with truncations that round up where `up` says so."""
    values = torch.round(x * 2**network.value_places).long().numpy().reshape(len(x), *network.stages[0].shape)
    for stage in network.stages[:-1]:
        z = stage.weight @ windows(values, stage) + stage.bias[:, None]
        t = (z >> network.weight_places) + (up(z.shape) & (z % 2**network.weight_places > 0))
        if stage.kernel:
            side = stage.shape[1] - stage.kernel + 1
            t = (
                torch.nn.functional.max_pool2d(torch.tensor(t.reshape(len(x), -1, side, side)).double(), stage.pool)
                .long()
                .numpy()
            )
        values = np.maximum(t, 0).reshape(len(x), *stage.outputs)
    return (network.stages[-1].weight @ windows(values, network.stages[-1]) + network.stages[-1].bias[:, None])[:, :, 0]


def two_servers(network, x, terms, ring):
    """The logits of servers that hold their shares already; a dealer gave them triples."""
    weights = [share(to_ring(part, ring), ring=ring) for s in network.stages for part in (s.weight, s.bias)]
    values = share(to_ring(x, ring), ring=ring)
    triples = zip(*(deal_triple(request, ring=ring) for request in terms.requests), strict=True)

    def party(number, triples, channel):
        own = [part[number] for part in weights]
        link = Link(channel, number, stock(triples), ring)
        return infer_on_shares(link, terms, list(zip(own[::2], own[1::2], strict=True)), values[number])

    results = run_parties(*(partial(party, number, each) for number, each in enumerate(triples)))
    return to_signed(reconstruct(results, ring=ring), ring)


def test_wrapped_numbers_are_as_frequent_as_foretold_and_do_no_harm_to_short_circuits(monkeypatch):
    """One number of 2^10 in a ring of 2^16: each of 2,000 fails with probability 1/64, by the theorem."""
    without_transfers(monkeypatch)
    ring, one = Ring(16), np.ones((1, 1), int)
    network = FixedNetwork((Stage(64 * one, 0 * one[0], (1,)), Stage(one, 0 * one[0], (1,))), 4, 4)
    x = np.full((2000, 1), 16)
    assert limits(network)[0] == 1024
    assert inference_failure(network, ring=ring, relu_bits=16) == 1024 / 2**16
    assert inference_failure(network, ring=ring, relu_bits=12) == 0
    wrong = {}
    for bits in (16, 12):
        logits = two_servers(network, x, inference_terms(network, images=2000, relu_bits=bits), ring)
        wrong[bits] = int((logits != 64).sum())
    assert wrong[12] == 0
    assert 5 < wrong[16] < 70  # of Bin(2000, 1/64), mean 31.25: outside with probability 8e-9


def test_a_network_too_large_for_a_ring_or_its_circuits_fails_for_sure(refuses):
    assert inference_failure(NETWORK, ring=Ring(18), relu_bits=18) == 1
    assert inference_failure(NETWORK, relu_bits=8) == 1
    terms = inference_terms(NETWORK, images=2, relu_bits=8)
    refuses(
        secureml_owner,
        {"first": None, "second": None, "network": NETWORK, "terms": terms},
        "network reaches",
        "8 after",
    )


# --- circuits between shares ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bits", "width", "places"), [(8, 8, 3), (8, 6, 3), (6, 4, 2), (64, 64, 13), (64, 20, 13)])
def test_the_clipped_line_by_pythons_integers(bits, width, places):
    random, n, half = np.random.default_rng(3), 500, 2 ** (width - 1)
    one = 2**places
    v = [int(k) for k in random.integers(-half, half, n - 6)] + [0, -1, one, one - 1, one + 1, -half]
    first, r = ([int(k) for k in random.integers(0, 2**63, n, np.uint64)] for _ in range(2))
    second = [(a - b) % 2**width for a, b in zip(v, first, strict=True)]
    words = [
        (np.array([k % 2**w for k in word], np.uint64), w) for word, w in ((first, width), (r, bits), (second, width))
    ]
    circuit = shared_sigmoid(bits, places, width=width)
    found = from_bits(evaluate_plain(circuit, np.hstack([to_bits(*word) for word in words])))
    expected = [(min(max(a, 0), one) - b) % 2**bits for a, b in zip(v, r, strict=True)]
    assert found.tolist() == expected and circuit.ands == 2 * width + bits - 2


def test_circuits_between_shares_in_several_runs(monkeypatch):
    without_transfers(monkeypatch)
    monkeypatch.setattr(secret_sharing_circuits, "TRANSFERS", 64 * 4 * 3)
    x = np.random.default_rng(4).integers(-(2**40), 2**40, (8, 4))
    halves, circuit = share(to_ring(x)), shared_relu(64, pool=4)
    parties = [lambda c, i=i: between_shares(Link(c, i), circuit, halves[i]) for i in (0, 1)]
    assert (to_signed(reconstruct(run_parties(*parties))) == np.maximum(x.max(1), 0)).all()


# --- costs ------------------------------------------------------------------------------------------------------------


def test_bytes_and_rounds_of_each_step_are_as_foretold():
    laps = secureml_inference(NETWORK, X, relu_bits=20).laps
    for number, own in enumerate(laps):
        cost = {each.name: each for each in own}
        assert [*cost] == [
            *["weights", "images", "agreement", "triples"],
            *["stage 1: linear", "stage 1: garbled", "stage 2: linear", "logits for the client"],
        ]
        garbled = garbled_cost(shared_relu(20, pool=4, result_bits=64), 2 * 8, 4 * 20 + 64)
        sent = (garbled.sender_bytes, garbled.receiver_bytes)
        came = cost["stage 1: garbled"]
        assert (came.bytes_sent, came.bytes_received) == (sent if number == 0 else sent[::-1])
        frame = 4 + (1 + 4 + 4) + 2 * (1 + 2 + 8) + 8 * (2 * 9 + 9 * 2 * 16)
        assert cost["stage 1: linear"].bytes_sent == cost["stage 1: linear"].bytes_received == frame
        assert sum(each.rounds for each in own) < 25 and all(each.seconds >= 0 for each in own)


# --- what is seen -----------------------------------------------------------------------------------------------------


@pytest.fixture
def evaluated(monkeypatch):
    """What party 1 gets out of each circuit."""
    without_transfers(monkeypatch)
    seen, evaluate = [], secret_sharing_circuits.evaluator

    def remembered(*arguments, **settings):
        bits = evaluate(*arguments, **settings)
        seen.append(from_bits(bits))
        return bits

    monkeypatch.setattr(secret_sharing_circuits, "evaluator", remembered)
    return seen


@pytest.mark.parametrize("server", NAMES[1:3])
def test_servers_see_uniform_numbers(evaluated, server):
    """All zeros, all ones: chi-square of all nibbles that come, false alarm 1e-6 each."""
    for x in (torch.zeros(20, 1, 6, 6), torch.ones(20, 1, 6, 6)):
        terms = inference_terms(NETWORK, images=20)
        results, frames = talk(roles(x=x, terms=terms), NAMES, timeout=60)
        assert within(NETWORK, x, results[0])
        for kinds in (("share",), ("triple",), ("open",)):
            assert uniform(received(frames, server, kinds)) > ALPHA
    assert uniform(np.concatenate(evaluated)) > ALPHA


@pytest.mark.parametrize("masked", [True, False])
def test_a_relu_without_a_mask_is_caught(evaluated, monkeypatch, masked):
    class Unmasked(Ring):
        def draw(self, shape):
            return np.zeros(shape, np.uint64)

    def between(link, *arguments, **settings):
        link = Link(link.channel, link.party, ring=RING if masked else Unmasked())
        return between_shares(link, *arguments, **settings)

    monkeypatch.setattr("spai_lab.crypto.secureml.between_shares", between)
    results, _ = talk(roles(x=MANY, terms=inference_terms(NETWORK, images=len(MANY))), NAMES, timeout=60)
    assert within(NETWORK, MANY, results[0])
    assert (uniform(np.concatenate(evaluated)) > ALPHA) == masked


@pytest.mark.parametrize("reused", [False, True])
def test_a_triple_that_serves_twice_is_caught(reused):
    """Differences of what is opened in two products: uniform, or those of the secrets."""
    random = np.random.default_rng(6)
    request = Request("matmul", (40, 40), (40, 40))
    x, y = (to_ring(random.integers(0, 2**13, (2, 40, 40))) for _ in range(2))
    halves = [share(each) for each in (x, y)]
    triples = [deal_triple(request) for _ in range(2)]
    given = [[triples[0 if reused else i][number] for i in range(2)] for number in (0, 1)]

    def party(number, channel):
        link = Link(channel, number, stock(given[number]))
        for i in range(2):
            matmul(link, *(half[number][i] for half in halves))

    _, frames = talk([partial(party, 0), partial(party, 1)], ("zero", "one"), timeout=60)
    opened = [
        [sum(parts) for parts in zip(*pair, strict=True)]
        for pair in zip(
            *([unpack(frame[4:]).values for frame in frames[ends]] for ends in (("zero", "one"), ("one", "zero"))),
            strict=True,
        )
    ]
    differences = np.stack([a - b for a, b in zip(*opened, strict=True)])
    assert (uniform(differences) > ALPHA) == (not reused)
    assert all(uniform(np.stack(each)) > ALPHA for each in opened)  # one product alone shows nothing


def product_truncated(link, inputs):
    return [matmul_entries(link, inputs, places=1)]


def truncated_opened(link, inputs):
    return open_shares(link, matmul_entries(link, inputs, places=1))


def matmul_entries(link, inputs, **settings):
    return matmul(link, *shared(link, inputs), **settings)


ENTRY = [Request("matmul", (1, 1, 1), (1, 1, 1))]


@pytest.mark.parametrize("program", [product_truncated, truncated_opened])
@pytest.mark.parametrize("bits", [2, pytest.param(3, marks=pytest.mark.full)])
def test_views_of_a_truncated_product_over_all_randomness(program, bits):
    """Party 0's view depends on its own x and, if the truncated product is opened, on the product alone."""
    seen = {}
    pairs = itertools.product(range(2**bits), repeat=2) if bits == 2 else [(2, 1), (2, 5), (2, 3)]
    for x, y in pairs:
        inputs = [(0, [[x]]), (1, [[y]])]
        for number, view in enumerate(views(bits, program, inputs, ENTRY, (1, 1))[0]):
            known = (number, (x, y)[number], x * y % 2**bits if program is truncated_opened else None)
            seen.setdefault(known, []).append(view)
    assert all(view == group[0] for group in seen.values() for view in group)
    assert max(map(len, seen.values())) > 1
    for a, b in itertools.combinations(seen, 2):
        if a[:2] == b[:2]:
            assert seen[a][0] != seen[b][0]  # what differs is told


# --- faults -----------------------------------------------------------------------------------------------------------

DIFFERENT = {
    "images": ("client", inference_terms(NETWORK, images=3), "images is"),
    "places": ("server_0", inference_terms(small_network(7), images=2), "value_places is"),
    "network": (
        "server_1",
        inference_terms(FixedNetwork((NETWORK.stages[1],), 8, 8), images=2),
        "the network is",
    ),
    "who": ("server_0", inference_terms(NETWORK, images=2, logits_to="both"), "logits_to is"),
    "bits": ("server_1", inference_terms(NETWORK, images=2, relu_bits=32), "relu_bits is"),
    "dealer": ("dealer", inference_terms(NETWORK, images=1), "an array of 'triple'"),
}


@pytest.mark.parametrize(("who", "terms", "words"), DIFFERENT.values(), ids=DIFFERENT)
def test_parties_that_agreed_on_other_things_are_told(who, terms, words):
    x = torch.rand(terms.images, 1, 6, 6) if who == "client" else X
    results, _ = talk(roles(x=x, **{who: terms}), NAMES)
    errors = [result for result in results if isinstance(result, Exception)]
    assert any(type(error) is ProtocolError and words in str(error) for error in errors)
    assert isinstance(results[0], ProtocolError | TimeoutError)


def test_servers_with_other_hashes_are_told():
    parties = roles()
    parties[2] = partial(parties[2], label_hash=tmmo_hash)
    results, _ = talk(parties, NAMES)
    assert any("the hash is another one" in str(result) for result in results)
    assert isinstance(results[0], ProtocolError)


@pytest.fixture(scope="module")
def conversation():
    """All frames of a run, by sender and receiver."""
    with pytest.MonkeyPatch.context() as patch:
        without_transfers(patch)
        results, frames = talk(tiny(), NAMES, timeout=60)
    assert within(TINY, DOTS, results[0])
    return frames


PAIRS = [
    *[("client", "server 0"), ("server 1", "client"), ("owner", "server 1"), ("server 0", "owner")],
    *[("dealer", "server 0"), ("server 0", "server 1"), ("server 1", "server 0")],
]


@pytest.mark.parametrize(("sender", "receiver"), PAIRS)
@pytest.mark.parametrize("change", [leave, stall])
def test_nobody_waits_for_who_leaves_or_stalls(conversation, monkeypatch, sender, receiver, change):
    without_transfers(monkeypatch)
    last = len(conversation[sender, receiver]) - 1
    for place in {last} if change is stall else {0, last}:
        results, _ = talk(
            tiny(),
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
        assert isinstance(results[0], Exception) or within(TINY, DOTS, results[0])


def numbers(results):
    """Of each run that had logits, whether they are right; they are complete in any case."""
    complete = [each[0] for each in results if not isinstance(each[0], Exception)]
    assert all(logits.shape == (1, 1) and logits.dtype == np.int64 for logits in complete)
    return [within(TINY, DOTS, logits) for logits in complete]


@pytest.mark.parametrize("count", [150, pytest.param(2500, marks=pytest.mark.full)])
def test_changed_messages_end_in_named_errors_or_in_other_numbers(conversation, monkeypatch, count):
    without_transfers(monkeypatch)
    results = list(mutations(tiny, NAMES, conversation, count, 7))
    assert len(numbers(results)) < len(results) == count


@pytest.mark.parametrize("count", [40, pytest.param(1000, marks=pytest.mark.full)])
def test_over_authenticated_channels_no_changed_message_gives_another_number(monkeypatch, count):
    """What is left are bytes after the last message, which nobody reads."""
    without_transfers(monkeypatch)
    key = mac_key()
    _, frames = talk(tiny(), NAMES, key=key, timeout=60)
    assert all(numbers(mutations(tiny, NAMES, frames, count, 8, key=key)))


@pytest.mark.full
def test_changed_messages_with_true_transfers():
    _, frames = talk(tiny(), NAMES, timeout=60)
    results = list(mutations(tiny, NAMES, frames, 200, 9))
    assert len(numbers(results)) < len(results)


# --- arguments --------------------------------------------------------------------------------------------------------


def test_bad_arguments_are_named(refuses):
    refuses(inference_terms, {"network": 3}, "network is 3")
    refuses(inference_terms, {"network": NETWORK, "images": 0}, "images is 0")
    refuses(inference_terms, {"network": NETWORK, "logits_to": "all"}, "logits_to is 'all'")
    refuses(inference_terms, {"network": NETWORK, "relu_bits": 65}, "relu_bits is 65")
    refuses(inference_failure, {"network": None}, "network is None")
    ends = {"first": None, "second": None}
    refuses(secureml_client, ends | {"x": X[:1], "terms": TERMS}, "x has 1 images; accepted: 2")
    refuses(secureml_client, ends | {"x": X, "terms": 5}, "terms is 5")
    refuses(secureml_owner, ends | {"network": small_network(7), "terms": TERMS}, "network has another form")
    server = {"client": None, "other": None, "owner": None, "party": 0, "terms": TERMS}
    refuses(secureml_party, server, "third is None")
    refuses(secureml_party, server | {"party": 2}, "party is 2")
    refuses(secureml_party, server | {"make_triples": 2}, "make_triples is 2")
    refuses(transfer_triples, {"channel": None, "requests": [], "party": 0}, "requests is")
    refuses(
        transfer_triples, {"channel": None, "requests": [Request("matmul", (1, 1), (1, 1))], "party": 2}, "party is 2"
    )
    refuses(shared_sigmoid, {"bits": 8, "places": 7}, "places is 7")
    refuses(shared_sigmoid, {"bits": 8, "places": 2, "width": 9}, "width is 9")
    link = Link(pair()[0], 0)
    refuses(between_shares, {"link": link, "circuit": shared_relu(32), "x": np.zeros((2, 1), np.uint64)}, "circuit is")
    refuses(between_shares, {"link": link, "circuit": shared_relu(64), "x": np.zeros(2, np.uint64)}, "x is uint64")

"""Hybrid inference: the same whole numbers as in the clear, what each party sees, and all that must be refused."""

import functools
from functools import partial
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from spai_lab.crypto import hybrid_inference
from spai_lab.crypto.authenticated import AuthenticatedChannel, mac_key
from spai_lab.crypto.circuits import evaluate_plain
from spai_lab.crypto.circuits_bits import from_bits, to_bits
from spai_lab.crypto.circuits_words import shared_relu
from spai_lab.crypto.fixed_network import FixedNetwork, Stage, fixed_logits, fixed_network, limits, ring_bits
from spai_lab.crypto.frames import pack
from spai_lab.crypto.hybrid_inference import hybrid_client, hybrid_server
from spai_lab.crypto.hybrid_terms import HybridTerms, public_terms
from spai_lab.crypto.parties import run_parties
from spai_lab.crypto.relu_networks import minionn_network, relu_network
from spai_lab.crypto.rlwe import SecretKey, decrypt
from spai_lab.crypto.rlwe_linear import stage_layout
from spai_lab.crypto.rlwe_scheme import NoiseTooLarge
from spai_lab.crypto.secret_sharing_ring import Ring
from tests.crypto.leaks import secrets_in
from tests.crypto.transfers import talk

ALPHA = 1e-6


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def images(count, shape, seed=0):
    return torch.rand(count, *shape, generator=seeded(seed))


def tiny(seed=0):
    """Four pixels, two hidden units, two classes."""
    return fixed_network(relu_network((1, 2, 2), 2, hidden=2, generator=seeded(seed)), (1, 2, 2))


def convolving(seed=0):
    """Two channels, three maps, a pool that leaves a row and a column out, and a dense layer."""
    layers = [nn.Conv2d(2, 3, 2), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4)]
    model = nn.Sequential(*layers)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-1, 1, generator=seeded(seed))
    return fixed_network(model, (2, 6, 6), value_places=4, weight_places=5)


def parties(network, x, terms=None, **settings):
    terms = public_terms(network, images=len(x)) if terms is None else terms
    server = partial(hybrid_server, network=network, terms=terms, **settings)
    return server, partial(hybrid_client, x=x, terms=terms, **settings)


def conversation(*run, **settings):
    """As `talk`, whose roles are those of transfers: what server and client came to, and their channels."""
    results, channels = talk(*run, **settings)
    return results["sender"], results["receiver"], channels["sender"], channels["receiver"]


def authenticated(key, role, party, wrap=lambda channel: channel):
    """The party on a channel whose messages carry a MAC; what is wrapped is below it."""
    return lambda channel: party(AuthenticatedChannel(wrap(channel), key, role=role))


# --- the same numbers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(("make", "shape"), [(tiny, (1, 2, 2)), (convolving, (2, 6, 6))])
def test_logits_are_those_in_the_clear(make, shape, count):
    network, x = make(), images(count, shape)
    _, (logits, _) = run_parties(*parties(network, x))
    assert logits.dtype == np.int64
    np.testing.assert_array_equal(logits, fixed_logits(network, x))


def test_twenty_digits_of_the_real_size():
    from spai_lab.data import load

    x = load("digits", raw=True).x_test[:20]
    network = fixed_network(relu_network(generator=seeded(0)), (1, 8, 8))
    _, (logits, _) = run_parties(*parties(network, x))
    np.testing.assert_array_equal(logits, fixed_logits(network, x))


@pytest.mark.full
def test_ten_images_of_mnist(mnist):
    x = mnist.x_test[:10]
    network = fixed_network(minionn_network(generator=seeded(0)), (1, 28, 28), value_places=4, weight_places=6)
    _, (logits, _) = run_parties(*parties(network, x))
    np.testing.assert_array_equal(logits, fixed_logits(network, x))


def test_processes_over_tcp():
    network, x = convolving(), images(2, (2, 6, 6))
    _, (logits, _) = run_parties(*parties(network, x), transport="processes")
    np.testing.assert_array_equal(logits, fixed_logits(network, x))


def test_nothing_wraps_at_the_corners_of_the_cube_with_the_fewest_bits():
    """The first layer reaches its limit at a corner: with the bits that `limits` asks for; one less is refused."""
    random = np.random.default_rng(0)
    first = Stage(random.integers(-9, 10, (3, 3)), random.integers(-9, 10, 3), (3,))
    last = Stage(random.integers(-9, 10, (2, 3)), random.integers(-9, 10, 2), (3,))
    network = FixedNetwork((first, last), 2, 2)
    bits = tuple(limit.bit_length() + 1 for limit in limits(network))
    x = torch.tensor(list(product([0.0, 1.0], repeat=3))).reshape(8, 1, 1, 3)
    blank = public_terms(network).network
    _, (logits, _) = run_parties(*parties(network, x, HybridTerms(blank, bits, 8)))
    np.testing.assert_array_equal(logits, fixed_logits(network, x))
    for less in ((bits[0] - 1, bits[1]), (bits[0], bits[1] - 1)):
        with pytest.raises(ValueError, match=r"terms has \d bits for stage"):
            hybrid_server(None, network, HybridTerms(blank, less, 8))


def test_weights_of_nothing_leave_the_biases():
    """The rings are as small as they can be, smaller than a pixel: a share modulo 2^l is all that a layer needs."""
    first, last = (
        Stage(np.zeros((3, 4), int), np.array([5, 0, -5]), (4,)),
        Stage(np.eye(3, dtype=int), np.ones(3, int), (3,)),
    )
    network, x = FixedNetwork((first, last), 9, 1), images(1, (1, 2, 2))
    assert max(public_terms(network).bits) < 9
    _, (logits, _) = run_parties(*parties(network, x))
    assert logits.tolist() == fixed_logits(network, x).tolist() == [[3, 1, 1]]


def test_a_single_number_of_bits_for_all_stages_tells_less():
    network, x = tiny(), images(1, (1, 2, 2))
    terms = public_terms(network, bits=28)
    assert terms.bits == (28, 28) and max(public_terms(network).bits) - ring_bits(network) in (0, 1)
    _, (logits, _) = run_parties(*parties(network, x, terms))
    np.testing.assert_array_equal(logits, fixed_logits(network, x))


def test_a_larger_degree_has_room_for_more_bits():
    network, x = tiny(), images(1, (1, 2, 2))
    with pytest.raises(NoiseTooLarge, match="does not hide"):
        public_terms(network, bits=50)
    _, (logits, _) = run_parties(*parties(network, x, public_terms(network, bits=50, degree=8192)))
    np.testing.assert_array_equal(logits, fixed_logits(network, x))


def test_garbling_in_several_runs_is_the_same(monkeypatch):
    monkeypatch.setattr(hybrid_inference, "TRANSFERS", 100)
    network, x = convolving(), images(2, (2, 6, 6))
    _, (logits, _) = run_parties(*parties(network, x))
    np.testing.assert_array_equal(logits, fixed_logits(network, x))


@pytest.mark.parametrize("result_bits", [3, 5, 8, 11])
def test_the_circuit_may_give_its_result_in_another_ring(result_bits):
    random, bits, places = np.random.default_rng(0), 8, 2
    z = random.integers(-128, 128, (300, 4))
    own, r = random.integers(0, 256, (300, 4)), random.integers(0, 2**result_bits, 300)
    inputs = [*(to_bits(column, bits) for column in own.T), to_bits(r, result_bits)]
    inputs += [to_bits(column, bits) for column in ((z - own) % 256).T]
    circuit = shared_relu(bits, pool=4, places=places, result_bits=result_bits)
    found = from_bits(evaluate_plain(circuit, np.hstack(inputs))).astype(int)
    np.testing.assert_array_equal(found, ((np.maximum(z.max(1), 0) >> places) - r) % 2**result_bits)


# --- what it costs ----------------------------------------------------------------------------------------------------


def test_laps_add_up_to_what_the_channels_count():
    network, x = convolving(), images(1, (2, 6, 6))
    laps, (_, others), server, client = conversation(*parties(network, x))
    names = ["terms", "stage 1: linear", "stage 1: garbled", "stage 2: linear", "logits"]
    assert [lap.name for lap in laps] == [lap.name for lap in others] == names
    for channel, own in ((server, laps), (client, others)):
        assert sum(lap.bytes_sent for lap in own) == channel.bytes_sent
        assert sum(lap.bytes_received for lap in own) == channel.bytes_received
        assert sum(lap.rounds for lap in own) == channel.rounds
    for one, other in zip(laps, others, strict=True):
        assert one.bytes_sent == other.bytes_received and one.bytes_received == other.bytes_sent


def test_a_channel_with_macs_counts_too():
    network, x, key = tiny(), images(1, (1, 2, 2)), mac_key()
    server, client = parties(network, x)
    run = authenticated(key, "server", server), authenticated(key, "client", client)
    laps, (logits, _), channel, _ = conversation(*run)
    np.testing.assert_array_equal(logits, fixed_logits(network, x))
    nonce = len(pack("nonce", bytes(32)))
    assert sum(lap.bytes_sent for lap in laps) == channel.bytes_sent - nonce


# --- what they see ----------------------------------------------------------------------------------------------------


def bins(values, bits, count=64):
    """The p-value of elements modulo $2^l$ being uniform: chi-square on equal parts."""
    return stats.chisquare(np.bincount((values >> np.uint64(bits - 6)).astype(int).ravel(), minlength=count)).pvalue


def opened(network, x, monkeypatch):
    """All polynomials of stage 1 as the client can decrypt them, if it got all of c0, `(images, blocks, N)`."""
    keys, seen = [], []
    terms = public_terms(network, images=len(x))
    draw, trim = hybrid_inference.secret_key, hybrid_inference.trimmed
    monkeypatch.setattr(hybrid_inference, "secret_key", lambda scheme: keys.append(draw(scheme)) or keys[-1])
    monkeypatch.setattr(hybrid_inference, "trimmed", lambda c, places: seen.append(c) or trim(c, places))
    run_parties(*parties(network, x, terms))
    first = seen[: len(x) * stage_layout(network.stages[0], terms.degree).blocks]
    secret = SecretKey(first[0].scheme, keys[0].s)
    return np.stack([decrypt(secret, c) for c in first]).reshape(len(x), -1, terms.degree), terms.bits[0]


def wide(seed=0):
    """256 inputs, so that most coefficients of a product are made of weights; stages in rings of their own."""
    model = relu_network((1, 16, 16), 2, hidden=40, generator=seeded(seed))
    return fixed_network(model, (1, 16, 16), value_places=4, weight_places=6)


def test_what_the_client_decrypts_is_uniform_in_all_coefficients(monkeypatch):
    """False alarm 1e-6 for each image, and for the difference of two."""
    found, bits = opened(wide(), images(2, (1, 16, 16)), monkeypatch)
    assert found.shape == (2, 3, 4096)
    for values in (*found, (found[0] - found[1]) & np.uint64(2**bits - 1)):
        assert bins(values, bits) > ALPHA


def test_coefficients_without_a_mask_are_found(monkeypatch):
    """Planted: the mask covers outputs alone."""
    honest = hybrid_inference.masked_products
    outputs = np.arange(255, 4096, 256)

    def careless(public, products, masks):
        covered = np.zeros_like(masks)
        covered[:, outputs] = masks[:, outputs]
        return honest(public, products, covered)

    monkeypatch.setattr(hybrid_inference, "masked_products", careless)
    found, bits = opened(wide(), images(2, (1, 16, 16)), monkeypatch)
    assert all(bins(values, bits) < ALPHA for values in found)


def test_a_mask_that_serves_twice_is_found(monkeypatch):
    """Planted: the same r for both images. Each alone is uniform; their difference is not."""
    monkeypatch.setattr(Ring, "draw", functools.cache(Ring.draw))
    found, bits = opened(wide(), images(2, (1, 16, 16)), monkeypatch)
    assert all(bins(values, bits) > ALPHA for values in found)
    assert bins((found[0] - found[1]) & np.uint64(2**bits - 1), bits) < ALPHA


def test_the_server_sees_ciphertexts_and_transfers_and_neither_image_nor_secret(monkeypatch):
    keys, draw = [], hybrid_inference.secret_key
    monkeypatch.setattr(hybrid_inference, "secret_key", lambda scheme: keys.append(draw(scheme)) or keys[-1])
    network = fixed_network(relu_network(generator=seeded(0)), (1, 8, 8))
    x = images(1, (1, 8, 8))
    _, (logits, _), server, client = conversation(*parties(network, x), view=10**8)
    assert server.unseen == client.unseen == 0
    kinds = [message.kind for message in server.view]
    assert kinds[:3] == ["hybrid inference", "public key", "encrypted share"] and kinds[-1] == "encrypted share"
    assert all("OT" in kind or "transfer" in kind for kind in kinds[3:-1]), kinds
    seen = b"".join(pack(*message[:1], *message.values) for message in server.view)
    pixels = np.rint(x.numpy().ravel() * 2**network.value_places)
    for dtype in ("u1", "<u2", "<u4", "<u8", "<f4", "<f8"):
        assert pixels[:16].astype(dtype).tobytes() not in seen and logits.astype(dtype).tobytes() not in seen
    assert x.numpy().ravel()[:8].tobytes() not in seen
    primes = keys[0].scheme.primes
    secret = SimpleNamespace(s=keys[0].s, context=SimpleNamespace(primes=primes[:-1], special=primes[-1]))
    assert secrets_in(seen, secret) == 0


def test_terms_hold_no_weight():
    """What the client decrypts is uniform, as other tests here count; this is all it is told beside that."""
    terms = public_terms(wide())
    assert all(not stage.weight.any() and not stage.bias.any() for stage in terms.network.stages)


def test_shares_between_layers_are_uniform(monkeypatch):
    """What the client evaluates and what the server keeps, over many images that are all the same; false alarm 1e-6."""
    kept = {"relu_server": [], "relu_client": []}
    for name, results in kept.items():
        honest = getattr(hybrid_inference, name)
        monkeypatch.setattr(
            hybrid_inference, name, lambda *a, h=honest, r=results: r.append((h(*a), a[4].bits)) or r[-1][0]
        )
    network = convolving()
    run_parties(*parties(network, images(1, (2, 6, 6)).repeat(60, 1, 1, 1)))
    ((own, bits),), ((other, _),) = kept.values()
    assert own.size == 720 and bins(own, bits) > ALPHA and bins(other, bits) > ALPHA
    values = (own + other) & np.uint64(2**bits - 1)
    assert (values == values[:1]).all() and bins(values, bits) < ALPHA


# --- arguments --------------------------------------------------------------------------------------------------------

NETWORK, X = tiny(), images(1, (1, 2, 2))
TERMS = public_terms(NETWORK)


def test_arguments_are_refused(refuses):
    refuses(public_terms, {"network": 5}, "network is a int; accepted: a FixedNetwork")
    refuses(public_terms, {"network": NETWORK, "images": 0}, "images is 0")
    refuses(public_terms, {"network": NETWORK, "bits": 9}, "bits is 9; accepted: a whole number from 10 to 60")
    refuses(public_terms, {"network": NETWORK, "bits": 10}, "terms has 10 bits for stage", "accepted: at least")
    refuses(public_terms, {"network": NETWORK, "degree": 2048}, "degree is 2048; accepted: 4,096 or 8,192")
    terms = {"network": TERMS.network, "bits": TERMS.bits}
    refuses(HybridTerms, terms | {"bits": (20,)}, "bits is (20,); accepted: a number for each stage")
    refuses(HybridTerms, terms | {"bits": (20, 5)}, "bits is 5; accepted: a whole number from 10 to 60")
    refuses(HybridTerms, terms | {"images": "1"}, "images is '1'")
    server = {"channel": None, "network": NETWORK, "terms": TERMS}
    refuses(hybrid_server, server | {"network": convolving()}, "network has other shapes or places")
    refuses(hybrid_server, server | {"terms": None}, "terms is a NoneType; accepted: a HybridTerms")
    refuses(hybrid_server, server | {"label_hash": 5}, "label_hash is 5")
    client = {"channel": None, "x": X, "terms": TERMS}
    refuses(hybrid_client, client | {"x": X * 255}, "x has values from")
    refuses(hybrid_client, client | {"x": images(2, (1, 2, 2))}, "x holds 2 images; accepted: 1, as in terms")
    refuses(hybrid_client, client | {"x": images(1, (1, 3, 3))}, "x is a float32 tensor of shape (1, 1, 3, 3)")
    refuses(hybrid_client, client | {"terms": 5}, "terms is a int")
    refuses(hybrid_client, client | {"label_hash": None}, "label_hash is None")

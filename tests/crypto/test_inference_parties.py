"""Encrypted inference between parties: right within the agreed bound, no secret at the server, nothing in the headers.

Bounds fail with probability 1e-9 for each operation, of which these tests make a few thousand: 1e-5 in all. They are
those of the worst weights that were agreed on; that logits are not better than they should be is seen by the bounds of
the weights themselves, which are reached to a thousandth.
"""

import inspect
import json
import math
import struct
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from spai_lab.crypto import inference_parties, inference_protocol
from spai_lab.crypto.authenticated import SESSION, mac_key, seal, tag, unseal
from spai_lab.crypto.ckks import ckks_context, rotate_sum, secret_key
from spai_lab.crypto.ckks_parties import seen, send_keys, server_keys
from spai_lab.crypto.cryptonets import Layer, plain_logits
from spai_lab.crypto.cryptonets_encrypted import encrypt_batch
from spai_lab.crypto.cryptonets_encrypted import encrypted_logits as batch_logits
from spai_lab.crypto.cryptonets_plan import cryptonets_plan, ledger, logit_error
from spai_lab.crypto.encrypted_layout import recommended_context
from spai_lab.crypto.encrypted_mlp import decrypt_logits, encode_network, encrypt_image, encrypted_logits
from spai_lab.crypto.frames import HEADER, pack, unpack
from spai_lab.crypto.inference_agreements import batch_agreement, check_batch_layers, image_agreement, rotated
from spai_lab.crypto.inference_parties import batch_client, batch_server, image_client, image_server, inference_keys
from spai_lab.crypto.inference_terms import labelled, row_limit, row_sum
from spai_lab.crypto.parties import run_parties
from spai_lab.crypto.square_network import SquareWeights, square_logits, train_square_network, weights_of, worst_limits
from spai_lab.data import load
from tests.crypto.leaks import coefficients, secrets_in, state
from tests.crypto.mutations import DAMAGES, damaged, in_a_child

TOY = (4, 4, 3)
VIEW = 10**9


def random_weights(inputs=4, hidden=4, classes=3, *, size=0.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: size * torch.randn(shape, generator=generator, dtype=torch.float64)  # noqa: E731
    return SquareWeights(draw(hidden, inputs), draw(hidden), draw(classes, hidden), draw(classes))


def random_layers(*, size=0.5, seed=0):
    """Of 6 pixels: two groups of 4 read by the same three rows, then 6 - 5 - 3; weights as fold rounds them."""
    random = np.random.default_rng(seed)
    draw = lambda *shape: np.rint(size * random.uniform(-1, 1, shape) * 2**16) / 2**16  # noqa: E731
    return (
        Layer(np.array([[0, 1, 2, 3], [2, 3, 4, 5]]), draw(3, 4), draw(3), limit=3.0),
        Layer(np.arange(6)[None], draw(5, 6), draw(5), limit=20.0),
        Layer(np.arange(5)[None], draw(3, 5), draw(3)),
    )


class Images:
    """Single images: what a client and a server have."""

    client, server = staticmethod(image_client), staticmethod(image_server)

    def __init__(self, context, weights, **settings):
        rows = row_limit(weights.W1, weights.b1), row_limit(weights.W2, weights.b2)
        self.model = {"weights": weights}
        self.agreement = image_agreement(context, weights.sizes, **{"rows": rows, **settings})

    def plain(self, images):
        return square_logits(self.model["weights"], images).numpy()


class Batch:
    """A batch, one image a slot."""

    client, server = staticmethod(batch_client), staticmethod(batch_server)

    def __init__(self, plan, layers, **settings):
        rows = [row_limit(layer.W, layer.b) for layer in layers]
        self.model = {"layers": layers}
        self.agreement = batch_agreement(plan, layers, **{"rows": rows, **settings})

    def plain(self, images):
        return plain_logits(self.model["layers"], images)


def with_keys(setting):
    setting.secret = secret_key(setting.agreement.terms.context)
    setting.keys = inference_keys(setting.secret, setting.agreement.terms)
    return setting


@pytest.fixture(scope="module")
def image_toy():
    return with_keys(Images(ckks_context(64, (30,) * 4, insecure=True), random_weights()))


@pytest.fixture(scope="module")
def batch_toy():
    return with_keys(Batch(cryptonets_plan(64, insecure=True), random_layers()))


@pytest.fixture(scope="module")
def data():
    return load("digits", raw=True)


@pytest.fixture(scope="module")
def digits_image(data):
    weights = weights_of(
        train_square_network(data.x_train, data.y_train, generator=torch.Generator().manual_seed(0), epochs=3)
    )
    hidden = math.ceil(worst_limits(weights).max())
    return with_keys(Images(recommended_context(64, 32, 10), weights, hidden_limit=hidden))


def parties(setting, images, **changes):
    """The client and the server, as functions of a channel; changes of the client begin with `client_`."""
    key = mac_key()
    both = {"agreement": setting.agreement, "mac_key": key}
    ours = {name.removeprefix("client_"): value for name, value in changes.items() if name.startswith("client_")}
    theirs = {name: value for name, value in changes.items() if not name.startswith("client_")}
    client = {"secret": setting.secret, "keys": setting.keys, "images": images, **both, **ours}
    server = {**setting.model, **both, "insecure": not setting.agreement.terms.context.secure, **theirs}
    return partial(setting.client, **client), partial(setting.server, **server)


def conversation(setting, images, **changes):
    """The client's result, the server's count, and both channels."""
    channels = {}

    def remembered(name, party):
        return lambda channel: party(channels.setdefault(name, channel))

    both = zip(("client", "server"), parties(setting, images, **changes), strict=True)
    result, count = run_parties(*(remembered(*each) for each in both), names=("client", "server"), view=VIEW)
    return result, count, channels


def rows_of(setting, count, seed=1):
    """Random images for a toy."""
    return torch.rand(count, setting.agreement.terms.question.count if isinstance(setting, Batch) else 4)


# --- what they compute ------------------------------------------------------------------------------------------------


def agrees(setting, images, result):
    errors = np.abs(result.logits.numpy() - setting.plain(images))
    assert errors.shape == (len(images), errors.shape[1]) and 0 < errors.max() < result.bound
    return errors


@pytest.mark.parametrize("transport", ["threads", "processes"])
def test_digits_at_128_bits_of_security_have_the_plain_logits(digits_image, data, transport):
    setting, images = digits_image, data.x_test[:2]
    assert setting.agreement.terms.context.secure
    result, count = run_parties(*parties(setting, images), transport=transport)
    assert count == 2
    errors = agrees(setting, images, result)
    assert (result.logits.argmax(1).numpy() == setting.plain(images).argmax(1)).all()
    network = encode_network(setting.secret.context, setting.model["weights"])
    x = encrypt_image(setting.keys.public, network.layout, images[0])
    z = encrypted_logits(network, x, setting.keys.relinearization, setting.keys.rotations)
    _, own = decrypt_logits(setting.secret, network.layout, z)
    assert errors.max() / float(own.max()) > 1e-3
    assert float(own.max()) < result.bound < 0.5


@pytest.mark.parametrize("transport", ["threads", pytest.param("processes", marks=pytest.mark.full)])
def test_batches_have_the_plain_logits(batch_toy, transport):
    images = rows_of(batch_toy, 32)
    result, count = run_parties(*parties(batch_toy, images), transport=transport)
    assert count == 1
    errors = agrees(batch_toy, images, result)
    own = logit_error(batch_toy.model["layers"], batch_toy.agreement.plan)
    assert 1e-3 < errors.max() / own.max() < 1 and own.max() < result.bound


@pytest.mark.full
def test_digits_in_a_batch_at_128_bits_of_security(data):
    from spai_lab.crypto.cryptonets import cryptonet, fit_cryptonet, fold, largest_activations

    generator = torch.Generator().manual_seed(0)
    model = cryptonet(data.shape, maps=8, units=16, generator=generator)
    fit_cryptonet(model, data, epochs=25, generator=generator, progress=False)
    limits = tuple(1.25 * a for a in largest_activations(model, data.x_val))
    setting = with_keys(Batch(cryptonets_plan(), fold(model, data.shape, limits=limits), pixels=64))
    for transport in ("threads", "processes"):
        result, _ = run_parties(*parties(setting, data.x_test), transport=transport)
        agrees(setting, data.x_test, result)
        assert result.bound < 0.1
        assert (result.logits.argmax(1).numpy() == setting.plain(data.x_test).argmax(1)).all()


def test_bytes_and_rounds_are_those_of_the_messages(image_toy, batch_toy):
    ring = 30 + 17
    for setting, questions, switching in [(image_toy, 3, 5), (batch_toy, 1, 1)]:
        terms = setting.agreement.terms
        result, _, channels = conversation(setting, rows_of(setting, 3))
        L, N, sealed = len(terms.context.primes), 64, 4 + (1 + 4 + 6) + (1 + 4) + 41
        key = ring + 4 * L + L * 2 * (L + 1) * N * 4
        head = ring + 4 * L + 12
        asked = terms.question.count * (head + 2 * 8 + 2 * L * N * 4)
        bounds = np.size(terms.answer.limit) + np.size(terms.answer.error)
        answered = terms.answer.count * (head + 8 * bounds + 2 * (terms.answer.level + 1) * N * 4)
        text = sealed + 4 + (1 + 4 + 10) + (1 + 4)
        received = questions * (answered + terms.answer.count * text)
        agreeing = (4 + (1 + 4 + 5) + (1 + 4 + 32)) + sealed + 4 + (1 + 4 + 9) + (1 + 4 + 64)
        assert result.bytes_received == agreeing + received == channels["server"].bytes_sent
        rotations = [setting.keys.rotations.keys[g] for g in setting.keys.rotations.keys] if terms.rotations else []
        assert len(rotations) == switching - 1 or not terms.rotations or len(rotations) == len(terms.rotations)
        sent = questions * (asked + terms.question.count * text + sealed + 4 + (1 + 4 + 8))
        sent += len(rotations) * (sealed + 4 + (1 + 4 + 12) + (1 + 4) + key + 4)
        sent += sealed + 4 + (1 + 4 + 4) + 3 * (1 + 4) + (ring + 4 * L) + (ring + 4 * L + 2 * (L + 1) * N * 4) + key
        sent += 1 + 4 + 1 + sealed + 4 + (1 + 4 + 7)
        assert result.bytes_sent == agreeing + sent == channels["server"].bytes_received
        turns = 2 + 2 + 2 * questions + 1  # nonces, agreements, a question and an answer each, goodbye
        assert result.rounds == channels["client"].rounds == turns


# --- what the server holds --------------------------------------------------------------------------------------------


def held_by_the_server(setting, images, monkeypatch, **changes):
    """All that the server's functions hold when they answer, and all bytes that it received."""
    held = []
    whole = inference_protocol.labelled

    def label(name, texts, form):
        if name == "the answer":
            frames = [inspect.currentframe().f_back, inspect.currentframe().f_back.f_back]
            held.append([*(dict(frame.f_locals) for frame in frames), texts])
        return whole(name, texts, form)

    with monkeypatch.context() as patch:
        patch.setattr(inference_protocol, "labelled", label)
        result, _, channels = conversation(setting, images, **changes)
    server = channels["server"]
    assert server.unseen == 0 and server.bytes_received == channels["client"].bytes_sent
    received = b"".join(pack(kind, *values) for kind, values in server.view)
    assert len(received) == server.bytes_received
    return result, state(held), received


@pytest.mark.parametrize("which", ["image", "batch"])
def test_no_secret_is_in_what_the_server_holds_or_received(which, monkeypatch):
    settings = {"image": (Images, recommended_context(*TOY), random_weights())}
    settings |= {"batch": (Batch, cryptonets_plan(), random_layers())}
    kind, *arguments = settings[which]
    setting = with_keys(kind(*arguments))
    images = rows_of(setting, 1)
    assert setting.agreement.terms.context.secure
    result, everything, received = held_by_the_server(setting, images, monkeypatch)
    agrees(setting, images, result)
    assert len(everything) > 2 * len(received) > 2 * 10**6  # keys as int64 and as they travelled, ciphertexts
    public = setting.keys.public.key
    assert public.tobytes() in everything and public.astype("<u4").tobytes() in received  # it would be found
    assert secrets_in(received, setting.secret) == secrets_in(everything, setting.secret) == 0


def test_planted_leaks_are_found(image_toy, batch_toy, monkeypatch):
    for setting in (image_toy, batch_toy):
        images, secret, keys = rows_of(setting, 1), setting.secret, setting.keys
        everything = held_by_the_server(setting, images, monkeypatch)[1]
        assert secrets_in(everything, secret) == 0
        part = replace(keys.public, key=np.stack([keys.public.key[0], secret.s]))  # the client sends it as a key
        _, everything, received = leaky(setting, images, replace(keys, public=part), monkeypatch)
        assert secrets_in(everything, secret) > 0 and secrets_in(received, secret) > 0
        for form in [secret, [{"deep": (secret,)}], coefficients(secret).astype(np.int8), coefficients(secret) * 1.0]:
            model = {name: tagged(value, form) for name, value in setting.model.items()}  # the server keeps it
            assert secrets_in(held_by_the_server(setting, images, monkeypatch, **model)[1], secret) > 0


def leaky(setting, images, keys, monkeypatch):
    """As `held_by_the_server`, of a client that sends other keys than it encrypts with."""
    with monkeypatch.context() as patch:
        patch.setattr(inference_protocol, "send_keys", lambda server, _: send_keys(server, keys))
        return held_by_the_server(setting, images, monkeypatch)


def tagged(value, secret):
    """The same value, with a secret in an attribute that nobody reads."""
    if isinstance(value, SquareWeights):
        value = replace(value)
        object.__setattr__(value, "W1", value.W1.clone())
        value.W1.hidden = None
        object.__setattr__(value, "note", secret)
        return value
    layer = replace(value[0])
    object.__setattr__(layer, "note", secret)
    return (layer, *value[1:])


def test_each_party_sees_what_the_table_says(batch_toy, image_toy):
    for setting in (image_toy, batch_toy):
        _, _, channels = conversation(setting, rows_of(setting, 2))
        terms, questions = setting.agreement.terms, 2 if setting is image_toy else 1
        name, key = terms.context.fingerprint, setting.secret.fingerprint
        kinds = [line.split(" of ")[0] for line in seen(channels["server"])]
        question = ["question", *["ciphertext: ciphertext"] * terms.question.count]
        rotations = [f"keys: {len(terms.rotations)}", *["rotation key: rotation key"] * len(terms.rotations)]
        keys = ["keys: context", "keys: public key", "keys: relinearization key", *rotations]
        assert [kinds[0], *kinds[2:]] == ["nonce: 32 bytes", *keys, *question * questions, "goodbye"]
        assert all(line.endswith(f"key {key}") for line in seen(channels["server"]) if line.startswith("ciphertext"))
        came = seen(channels["client"])
        assert Counter(line.split(":")[0] for line in came) == {
            "nonce": 1,
            "agreement": 1,
            "ciphertext": terms.answer.count * questions,
        }
        assert all(f"context {name}, key {key}" in line for line in came if line.startswith("ciphertext"))


# --- limits -----------------------------------------------------------------------------------------------------------


def test_without_an_agreement_the_header_tells_sums_of_weights(image_toy, batch_toy):
    weights, keys = image_toy.model["weights"], image_toy.keys
    network = encode_network(image_toy.secret.context, weights)
    x = encrypt_image(keys.public, network.layout, torch.rand(4))
    z = encrypted_logits(network, x, keys.relinearization, keys.rotations)
    sums = weights.W2.abs() @ worst_limits(weights) ** 2 + weights.b2.abs()
    assert np.allclose(z.limit[:3], sums.numpy(), rtol=1e-12)  # what the client would read
    layers, plan = batch_toy.model["layers"], batch_toy.agreement.plan
    pixels = encrypt_batch(batch_toy.keys.public, plan, np.zeros((1, 6)))
    back = batch_logits(layers, plan, pixels, batch_toy.keys.relinearization)
    squared = min(layers[1].limit, ledger(layers, plan)[-4].size ** 0.5) ** 2
    told = np.array([y.limit for y in back])
    assert len(set(told)) == 3 and squared > 0
    ratios = (told - np.abs(layers[2].b)) / np.abs(layers[2].W).sum(1)
    assert ratios.std() < 0.5 * ratios.mean()  # nearly the sums of the rows themselves


@pytest.mark.parametrize("which", ["image", "batch"])
def test_with_it_headers_are_the_same_for_all_weights_and_images(which, image_toy, batch_toy):
    setting = image_toy if which == "image" else batch_toy
    terms = setting.agreement.terms
    asked, answered = set(), set()
    for seed, size in [(0, 0.5), (1, 0.1), (2, 0.01)]:
        model = random_weights(size=size, seed=seed) if which == "image" else random_layers(size=size, seed=seed)
        for brightness in (0.0, 1.0):
            images = torch.full((1, terms.question.count if which == "batch" else 4), brightness)
            try:
                _, _, channels = conversation(setting, images, **{next(iter(setting.model)): model})
            except ValueError as error:
                assert "in sum; accepted" in str(error) or "hidden values" in str(error)
                continue
            L = len(terms.context.primes)
            for party, form, heads in [("server", terms.question, asked), ("client", terms.answer, answered)]:
                end = 47 + 4 * L + 12 + 8 * (np.size(form.limit) + np.size(form.error))
                came = [unpack(m.values[0][41 + HEADER :]) for m in channels[party].view if m.kind == "sealed"]
                heads |= {message.values[0][:end] for message in came if message.kind == "ciphertext"}
    assert len(asked) == len(answered) == 1
    form = terms.answer
    start = 47 + 4 * len(terms.context.primes)
    ((head),) = answered
    assert head[start : start + 10] == struct.pack("<BBd", 2, form.level, form.scale)
    numbers = np.concatenate([np.atleast_1d(form.limit), np.atleast_1d(form.error)])
    assert head[start + 12 :] == numbers.astype("<f8").tobytes()


def test_agreements_depend_on_what_is_public_alone(batch_toy):
    context, rows = ckks_context(64, (30,) * 4, insecure=True), (3.0, 2.5)
    one, other = (image_agreement(context, TOY, rows=rows) for _ in range(2))
    assert one.terms.fingerprint == other.terms.fingerprint
    plan = batch_toy.agreement.plan
    prints = {batch_agreement(plan, random_layers(seed=seed), rows=(4, 3, 2)).terms.fingerprint for seed in range(3)}
    again = batch_agreement(plan, batch_agreement(plan, random_layers(), rows=(4, 3, 2)).layers, rows=(4, 3, 2))
    assert prints == {again.terms.fingerprint}
    changed = [image_agreement(context, TOY, rows=(3.0, 2.6)), image_agreement(context, (4, 4, 2), rows=rows)]
    changed += [image_agreement(context, TOY, rows=rows, hidden_limit=2.0)]
    changed += [image_agreement(ckks_context(64, (30,) * 5, insecure=True), TOY, rows=rows)]
    assert len({one.terms.fingerprint, *(each.terms.fingerprint for each in changed)}) == 5


@pytest.mark.parametrize("special_bits", [30, 18])
def test_the_worst_weights_of_an_agreement_keep_its_bounds(special_bits):
    """Weights that use up their limits, even or concentrated, on white images; a small special prime makes key
    switching the noise that counts.
    """
    context = ckks_context(64, (30,) * 4, special_bits=special_bits, insecure=True)
    rows, reached = (5.0, 3.0), []
    for W1, W2 in [(torch.full((4, 4), 1.0), torch.full((3, 4), 0.5)), (5 * torch.eye(4), 3 * torch.eye(4)[:3])]:
        W1, W2 = W1.double(), W2.double()
        b1, b2 = 5.0 - W1.abs().sum(1), 3.0 - W2.abs().sum(1)
        setting = with_keys(Images(context, SquareWeights(W1, b1, W2, b2), rows=rows))
        result, _, _ = conversation(setting, torch.ones(2, 4))
        agrees(setting, torch.ones(2, 4), result)
        reached.append(setting.plain(torch.ones(1, 4)).max() / setting.agreement.terms.answer.limit.max())
    assert 0.5 < reached[0] < reached[1] == 1
    plan = cryptonets_plan(64, insecure=True)
    plan = replace(plan, context=ckks_context(64, (30,) * 6, special_bits=special_bits, insecure=True))
    layers = tuple(
        replace(layer, W=np.full(layer.W.shape, 0.5), b=np.full(len(layer.W), 0.5)) for layer in random_layers()
    )
    layers = tuple(replace(layer, limit=limit) for layer, limit in zip(layers, (2.5, 25.0, math.inf), strict=True))
    setting = with_keys(Batch(plan, layers, rows=[row_sum(layer.W, layer.b) for layer in layers]))
    result, _, _ = conversation(setting, torch.ones(3, 6))
    agrees(setting, torch.ones(3, 6), result)


def test_rotations_cost_on_paper_what_ciphertexts_track(image_toy):
    setting, layout = image_toy, image_toy.agreement.layout
    x = encrypt_image(setting.keys.public, layout, torch.ones(4))
    for groups, count in [(layout.neighbors, layout.D), (layout.rows, layout.H)]:
        y = x
        for steps in groups:
            y = rotate_sum(y, steps, setting.keys.rotations)
        assert y.error > count * x.error
        assert math.isclose(y.error, rotated(x.context, count * x.error, groups, x.level, x.scale), rel_tol=1e-12)


def test_weights_beyond_the_agreement_are_refused_before_anything_is_said(image_toy, batch_toy, data):
    weights, layers = image_toy.model["weights"], batch_toy.model["layers"]
    odd = replace(layers[1], W=layers[1].W + 2.0**-20)
    tight = image_agreement(image_toy.secret.context, TOY, rows=image_toy.agreement.rows, hidden_limit=0.5)
    for setting, change, words in [
        (
            image_toy,
            {"weights": replace(weights, W1=8 * weights.W1)},
            "weights.W1 has rows of up to .*; accepted",
        ),
        (image_toy, {"weights": replace(weights, b2=weights.b2 + 9)}, "weights.W2 has rows of up to"),
        (image_toy, {"weights": random_weights(4, 4, 2)}, "weights are of a network .4, 4, 2.; accepted: .4, 4, 3."),
        (
            image_toy,
            {"agreement": tight},
            "weights have hidden values up to .*; accepted: at most 0.5, the",
        ),
        (image_toy, {"weights": None}, "weights is a NoneType"),
        (image_toy, {"agreement": batch_toy.agreement}, "agreement is a BatchAgreement; accepted: a ImageAgreement"),
        (batch_toy, {"layers": layers[:2]}, "layers is .*; accepted: 3 of them"),
        (
            batch_toy,
            {"layers": (replace(layers[0], limit=2.0), *layers[1:])},
            r"layers\[0\] has another shape,",
        ),
        (batch_toy, {"layers": (layers[0], odd, layers[2])}, r"layers\[1\] has weights that are no multiples of 2.-16"),
        (batch_toy, {"layers": (*layers[:2], replace(layers[2], b=layers[2].b + 9))}, r"layers\[2\] has rows of up to"),
    ]:
        _, server = parties(setting, rows_of(setting, 1), **change)
        with pytest.raises(ValueError, match=words):
            server(None)  # no channel is touched
    check_batch_layers(batch_toy.agreement, layers)


def test_who_agreed_on_something_else_is_refused_before_keys_are_sent(image_toy, batch_toy):
    other = image_agreement(image_toy.secret.context, TOY, rows=(9.0, 9.0))
    looser = batch_agreement(batch_toy.agreement.plan, batch_toy.model["layers"], rows=(9, 9, 9))
    for setting, theirs in [(image_toy, other), (batch_toy, looser)]:
        client, server = parties(setting, rows_of(setting, 1), agreement=theirs)
        channels = []
        results = run_parties(
            client,
            lambda channel, server=server, channels=channels: channels.append(channel) or server(channel),
            return_exceptions=True,
            view=VIEW,
        )
        assert all(isinstance(e, ValueError) and "agreed on" in str(e) and "our terms" in str(e) for e in results)
        assert not any(line.startswith("keys") for line in seen(channels[0]))


# --- what is refused --------------------------------------------------------------------------------------------------


def relabelled(monkeypatch, name, change):
    """A party that labels its ciphertexts otherwise than agreed on."""
    whole = inference_protocol.labelled

    def label(what, texts, form):
        texts = whole(what, texts, form)
        return [change(x) for x in texts] if what == name else texts

    monkeypatch.setattr(inference_protocol, "labelled", label)


@pytest.mark.parametrize("name", ["the question", "the answer"])
@pytest.mark.parametrize(
    "change",
    [
        lambda x: replace(x, limit=x.limit * (1 + 2**-50)),
        lambda x: replace(x, limit=x.limit / 2),
        lambda x: replace(x, limit=np.where(np.asarray(x.limit) == 0, -0.0, x.limit) * np.ones(32)),
        lambda x: replace(x, error=x.error / 2),
        lambda x: replace(x, error=np.full(32, np.max(x.error) * 2)),
        lambda x: replace(x, scale=x.scale * (1 + 2**-50)),
        lambda x: replace(x, scale=x.scale / 2),
        lambda x: replace(x, parts=x.parts[:, :-1].copy(), scale=x.scale / x.context.primes[x.level]),
        lambda x: replace(x, parts=np.concatenate([x.parts, x.parts[:1]])),
    ],
    ids=["limit", "smaller limit", "limits", "error", "errors", "scale", "smaller scale", "level", "parts"],
)
def test_other_labels_than_agreed_on_are_refused(image_toy, batch_toy, monkeypatch, name, change):
    relabelled(monkeypatch, name, change)
    who = "client" if name == "the question" else "server"
    for setting in (image_toy, batch_toy):
        with pytest.raises(ValueError, match=f"a ciphertext of the {who} is Ciphertext.*; accepted: as was agreed on"):
            conversation(setting, rows_of(setting, 1))


def test_a_server_that_would_exceed_the_agreement_says_nothing(image_toy):
    form = image_toy.agreement.terms.answer
    network = encode_network(image_toy.secret.context, image_toy.model["weights"], scale=image_toy.agreement.scale)
    x = encrypt_image(image_toy.keys.public, network.layout, torch.rand(4))
    z = encrypted_logits(network, x, image_toy.keys.relinearization, image_toy.keys.rotations)
    assert labelled("the answer", [z], form)[0].error is form.error
    for wrong in [replace(z, error=z.error * 1e6), replace(z, limit=z.limit * 1e3), replace(z, scale=z.scale * 2)]:
        with pytest.raises(ValueError, match=r"the answer is Ciphertext.*; accepted: within what was agreed on"):
            labelled("the answer", [wrong], form)
    with pytest.raises(ValueError, match="the answer has 2 ciphertexts; accepted: 1"):
        labelled("the answer", [z, z], form)


def test_bad_arguments_are_named(image_toy, batch_toy, refuses):
    other = secret_key(ckks_context(64, (30,) * 5, insecure=True))
    twin = secret_key(image_toy.secret.context)
    some = rows_of(image_toy, 1)
    for setting, change, words in [
        (image_toy, {"client_images": some[:0]}, "images holds none"),
        (image_toy, {"client_images": 2 + some}, "images has values from"),
        (image_toy, {"client_images": some[:, :3]}, "accepted: one image of 4 pixels"),
        (image_toy, {"client_secret": other}, "secret is of context .*; accepted: .* agreed on"),
        (image_toy, {"client_secret": twin}, "keys belong to .*; accepted: those of secret"),
        (image_toy, {"client_secret": image_toy.keys.public}, "secret is a PublicKey"),
        (image_toy, {"client_mac_key": bytes(32)}, "without the right tag"),
        (image_toy, {"insecure": False}, "accepted: what has 128-bit security"),
        (
            image_toy,
            {"client_keys": server_keys(image_toy.secret, relinearize=True)},
            "keys are for rotations by .., for",
        ),
        (
            image_toy,
            {"client_keys": server_keys(image_toy.secret, steps=image_toy.agreement.terms.rotations)},
            "not for products; accepted",
        ),
        (batch_toy, {"client_images": np.zeros((33, 6))}, "x has the shape .33, 6."),
        (batch_toy, {"client_images": np.zeros((3, 7))}, "the question has 7 ciphertexts; accepted: 6"),
        (batch_toy, {"client_agreement": image_toy.agreement}, "agreement is a ImageAgreement"),
    ]:
        with pytest.raises(ValueError, match=words):
            conversation(setting, change.pop("client_images", rows_of(setting, 1)), **change)
    context, plan, layers = image_toy.secret.context, batch_toy.agreement.plan, random_layers()
    refuses(image_agreement, {"context": context, "sizes": TOY, "rows": (1.0,)}, "rows is (1.0,)", "2 numbers")
    refuses(image_agreement, {"context": context, "sizes": TOY, "rows": (1.0, 0)}, "rows is 0")
    refuses(
        image_agreement, {"context": context, "sizes": TOY, "rows": (1, 1), "hidden_limit": -1}, "hidden_limit is -1"
    )
    refuses(image_agreement, {"context": context, "sizes": TOY, "rows": (2.0**14, 1)}, "limits allow logits", "smaller")
    refuses(batch_agreement, {"plan": plan, "layers": layers, "rows": (1, 2)}, "rows is (1, 2)", "3 numbers")
    refuses(batch_agreement, {"plan": plan, "layers": layers, "rows": (1, 2, 2.0**60)}, "does not fit")
    refuses(batch_agreement, {"plan": plan, "layers": layers, "rows": (1, 2, 3), "pixels": 5}, "pixels is 5")
    refuses(inference_keys, {"secret": other, "terms": image_toy.agreement.terms}, "secret is of context")


# --- mutations --------------------------------------------------------------------------------------------------------

CHILD = """
import numpy as np
import torch
from spai_lab.crypto import authenticated, inference_parties
from spai_lab.crypto.channel import pair
from spai_lab.crypto.ckks import ckks_context
from spai_lab.crypto.ckks_keys import SecretKey
from spai_lab.crypto.inference_agreements import image_agreement
from spai_lab.crypto.inference_parties import image_client, image_server, inference_keys
from spai_lab.crypto.square_network import SquareWeights

def cache(function):
    made = []
    return lambda *a, **k: made[0] if made else made.append(function(*a, **k)) or made[0]

warnings.simplefilter("error")
authenticated.secrets.token_bytes = bytes  # the nonces of the conversation that was recorded
setup = json.loads((folder / "setup").read_text())
frames = {role: list(map(bytes.fromhex, setup[role])) for role in ("client", "server")}
numbers = np.load(folder / "numbers.npz", allow_pickle=False)
weights = SquareWeights(*(torch.from_numpy(numbers[name]) for name in ("W1", "b1", "W2", "b2")))
agreed = image_agreement(ckks_context(64, (30,) * 4, insecure=True), weights.sizes, rows=tuple(setup["rows"]))
secret = SecretKey(agreed.terms.context, numbers["s"], setup["key"])
keys = inference_keys(secret, agreed.terms)
images = torch.from_numpy(numbers["images"])
inference_parties.encode_network = cache(inference_parties.encode_network)  # which takes most of the time
both = {"agreement": agreed, "mac_key": bytes(32)}

def replay(data, role, place):
    here, there = pair("here", "there", timeout=5)
    for frame in [*frames[role][:place], data, *frames[role][place + 1 :]]:
        there._transport.write(frame, 5)
    there._transport.close()

    def party():
        try:
            if role == "server":
                return image_server(here, weights, insecure=True, **both)
            return image_client(here, secret, keys, images, **both).logits.tolist()
        finally:
            here.close()

    report(party, lambda: [len(list(iter(lambda: there._transport._incoming.get(timeout=5), b"")))])

for case in cases():
    replay(*case)
"""
OURS = {path.name for path in Path(inference_parties.__file__).parent.glob("*.py")}
PLACES = {1: ">I", 12: ">I", 16: "<B", 17: ">Q"}  # of lengths, the direction and the counter in a sealed message


@pytest.fixture(scope="module")
def recorded(image_toy):
    """A conversation of one question under nonces and a MAC key of zeros: the frames to each party."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("spai_lab.crypto.authenticated.secrets.token_bytes", bytes)
        images = torch.rand(1, 4)
        result, _, channels = conversation(image_toy, images)
    frames = {role: [pack(kind, *values) for kind, values in channel.view] for role, channel in channels.items()}
    return images, result, frames


def replayed(folder, setting, recorded, cases):
    """What becomes of a party, in a child process, to which one frame of the conversation comes changed."""
    images, _, frames = recorded
    weights = setting.model["weights"]
    named = {name: getattr(weights, name).numpy() for name in ("W1", "b1", "W2", "b2")}
    np.savez(folder / "numbers.npz", s=setting.secret.s, images=images.numpy(), **named)
    setup = {role: [frame.hex() for frame in sent] for role, sent in frames.items()}
    setup |= {"rows": setting.agreement.rows, "key": setting.secret.fingerprint}
    (folder / "setup").write_text(json.dumps(setup))
    return in_a_child(folder, CHILD, cases, timeout=600)


def refused_all(cases, outcomes, frames):
    """Each ends in an error of ours, and what was sent before it is what would have been sent by then."""
    for (_, role, place), (seconds, sent, *outcome) in zip(cases, outcomes, strict=True):
        assert outcome[0] == "error", (role, place, outcome)
        _, name, text, where = outcome
        assert name in ("ValueError", "ProtocolError", "Disconnected") and where in OURS and text, outcome
        assert seconds < 5
        if role == "server":  # a nonce, an agreement, and an answer only if nothing but the goodbye is wrong
            assert sent <= 2 + (place == len(frames["server"]) - 1), (place, sent)


def changed_frames(recorded, each):
    """Every message of the protocol, to both parties, with one thing wrong in each way, and its length alone."""
    random, frames, cases = np.random.default_rng(0), recorded[2], []
    for role, sent in frames.items():
        payloads = [frame[HEADER:] for frame in sent]
        for place, payload in enumerate(payloads):
            for damage in DAMAGES:
                made = [damaged(random, payload, payloads, damage, PLACES) for _ in range(each)]
                cases += [(struct.pack(">I", len(wrong)) + wrong, role, place) for wrong in made if wrong != payload]
            lengths = [0, 1, len(payload) - 1, len(payload) + 1, 2**26, 2**32 - 1, *random.integers(0, 2**16, each)]
            cases += [(struct.pack(">I", n) + payload, role, place) for n in lengths if n != len(payload)]
    return cases


def changed_heads(recorded, setting, every):
    """Each bit of the head of a ciphertext turned, and a right tag by who has the key: of a question, of an answer."""
    frames, cases, terms = recorded[2], [], setting.agreement.terms
    session = tag(bytes(32), SESSION + bytes(64))
    for role, sender, form, last in [("server", "client", terms.question, 2), ("client", "server", terms.answer, 1)]:
        place = len(frames[role]) - last  # before goodbye, and at the end
        (sealed,) = unpack(frames[role][place][HEADER:]).values
        data = unpack(unseal(session, sealed, sender=sender, counter=place - 1)[HEADER:]).values[0]
        end = 47 + 4 * len(terms.context.primes) + 12 + 8 * (np.size(form.limit) + np.size(form.error))
        for bit in range(0, 8 * end, every):
            wrong = data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]
            again = seal(session, pack("ciphertext", wrong), sender=sender, counter=place - 1)
            cases.append((pack("sealed", again), role, place))
    return cases


def check_mutations(folder, setting, recorded, *, each, every):
    _, result, frames = recorded
    whole = [(frames[role][0], role, 0) for role in ("client", "server")]
    wire, heads = changed_frames(recorded, each), changed_heads(recorded, setting, every)
    outcomes = replayed(folder, setting, recorded, whole + wire + heads)
    assert [outcome[2:] for outcome in outcomes[:2]] == [["number", result.logits.tolist()], ["number", 1]]
    assert len(heads) >= (728 + 4696) // every
    refused_all(wire + heads, outcomes[2:], frames)
    kinds = Counter(role for _, role, _ in wire)
    assert len(wire) >= 1000 and min(kinds.values()) >= 200


def test_changed_messages_end_in_an_error_and_never_in_a_number(tmp_path, image_toy, recorded):
    check_mutations(tmp_path, image_toy, recorded, each=10, every=7)


@pytest.mark.full
def test_many_changed_messages_end_in_an_error_and_never_in_a_number(tmp_path, image_toy, recorded):
    check_mutations(tmp_path, image_toy, recorded, each=100, every=1)

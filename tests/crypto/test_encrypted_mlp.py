"""Encrypted logits against plain ones within the computed bound, which is not idle; faults break it; TenSEAL agrees.

A bound fails with probability 1e-9 for each of the 8 noisy operations of an image: below 1e-6 for the fast tests
together, 5e-6 for the long one. A bound is not idle if what is observed reaches a thousandth of it.
"""

import itertools
import math
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch

from spai_lab.crypto import encrypted_layout, encrypted_mlp
from spai_lab.crypto.ckks import (
    ckks_context,
    decode,
    decrypt,
    encode,
    encrypt,
    lower,
    public_key,
    relinearization_key,
    rescale,
    rotation_keys,
    secret_key,
)
from spai_lab.crypto.ckks_context import SECURE_BITS
from spai_lab.crypto.encrypted_layout import layout_of, needed_slots, recommended_context
from spai_lab.crypto.encrypted_matrix import diagonal_product, encode_diagonals
from spai_lab.crypto.encrypted_mlp import (
    decrypt_logits,
    encode_known,
    encode_network,
    encrypt_image,
    encrypted_logits,
)
from spai_lab.crypto.polynomials import PolynomialActivation
from spai_lab.crypto.square_network import (
    SquareWeights,
    hidden_values,
    measured_limits,
    square_logits,
    square_network,
    train_square_network,
    weights_of,
    worst_limits,
)
from spai_lab.data import load
from spai_lab.training import accuracy

TOY = (4, 4, 3)


class Parties:
    """A client's keys, and a server's encoded network."""

    def __init__(self, weights, context, **settings):
        self.weights, self.secret = weights, secret_key(context)
        self.public, self.relinearization = public_key(self.secret), relinearization_key(self.secret)
        self.network = encode_network(context, weights, **settings)
        self.layout = self.network.layout
        self.rotations = rotation_keys(self.secret, self.layout.rotations)

    def encrypted(self, image):
        x = encrypt_image(self.public, self.layout, image)
        return encrypted_logits(self.network, x, self.relinearization, self.rotations)

    def answers(self, images):
        """Logits, bounds, plain logits, and the errors as a share of the bounds."""
        pairs = [decrypt_logits(self.secret, self.layout, self.encrypted(image)) for image in images]
        logits, bounds = (torch.stack(part) for part in zip(*pairs, strict=True))
        plain = square_logits(self.weights, images)
        return logits, bounds, plain, (logits - plain).abs() / bounds


def random_weights(inputs, hidden, classes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)  # noqa: E731
    return SquareWeights(draw(hidden, inputs) / 2, draw(hidden) / 4, draw(classes, hidden) / 2, draw(classes))


def random_images(count, inputs, seed=1):
    return torch.rand(count, inputs, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def data():
    return load("digits", raw=True)


@pytest.fixture(scope="module")
def model(data):
    return train_square_network(data.x_train, data.y_train, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def parties(model):
    return Parties(weights_of(model), recommended_context(64, 32, 10))


@pytest.fixture(scope="module")
def toy():
    return Parties(random_weights(*TOY), ckks_context(64, (30,) * 4, insecure=True))


# --- in the clear -----------------------------------------------------------------------------------------------------


def test_the_network_learns_digits_and_its_weights_give_the_same_logits(data, model):
    assert accuracy(model, data.x_test, data.y_test) > 0.94
    with torch.no_grad():
        logits = model(data.x_test)
    plain = square_logits(weights_of(model), data.x_test)
    assert plain.dtype == torch.float64
    assert (plain - logits).abs().max() < 1e-3
    assert (plain.argmax(1) == logits.argmax(1)).all()


def test_the_worst_limits_are_those_of_the_corners():
    weights = random_weights(6, 5, 2)
    corners = torch.tensor(list(itertools.product([0.0, 1.0], repeat=6)))
    largest = hidden_values(weights, corners).abs().amax(0)
    assert torch.allclose(worst_limits(weights), largest)
    assert (hidden_values(weights, random_images(100, 6)).abs() <= worst_limits(weights)).all()


def test_measured_limits_are_a_margin_above_what_was_seen_and_never_above_the_worst(data, model):
    weights = weights_of(model)
    seen = hidden_values(weights, data.x_train).abs().amax(0)
    limits = measured_limits(weights, data.x_train, margin=1.1)
    assert torch.allclose(limits, torch.minimum(1.1 * seen, worst_limits(weights)))
    assert torch.allclose(measured_limits(weights, data.x_train, margin=100), worst_limits(weights))
    assert (limits < worst_limits(weights)).float().mean() > 0.5


# --- encrypted --------------------------------------------------------------------------------------------------------


def agree(parties, images):
    """Logits within their bound, which is not idle, and the same classes."""
    logits, _, plain, ratios = parties.answers(images)
    assert 1e-3 < ratios.max() < 1
    assert (logits.argmax(1) == plain.argmax(1)).all()


def test_encrypted_digits_have_the_plain_logits(parties, data):
    agree(parties, data.x_test[:10])


@pytest.mark.full
def test_all_test_digits_have_the_plain_logits_and_classes(parties, data):
    agree(parties, data.x_test)


def test_the_answer_holds_the_logits_again_and_again_and_nothing_else(parties, data):
    z = parties.encrypted(data.x_test[0])
    slots, bound = decode(decrypt(parties.secret, z)).reshape(32, 128), z.error.reshape(32, 128)
    plain = np.pad(square_logits(parties.weights, data.x_test[:1])[0].numpy(), (0, 118))
    assert (np.abs(slots - plain) < bound).all()
    assert z.level == 1


@pytest.mark.parametrize(
    ("sizes", "degree"), [((4, 4, 3), 64), ((1, 1, 1), 8), ((5, 3, 4), 128), ((16, 2, 17), 512), ((3, 9, 2), 256)]
)
def test_any_sizes_that_fit_are_right(sizes, degree):
    assert needed_slots(*sizes) <= degree // 2
    parties = Parties(random_weights(*sizes), ckks_context(degree, (30,) * 4, insecure=True))
    *_, ratios = parties.answers(random_images(5, sizes[0]))
    assert 1e-3 < ratios.max() < 1


def test_a_longer_chain_and_other_scales_are_right_too():
    for bits, scale in [((30,) * 6, 2.0**30), ((30, 30, 28, 28), 2.0**28), ((30, 28, 26, 26), 2.0**27)]:
        context = ckks_context(64, bits, scale=scale, insecure=True)
        *_, ratios = Parties(random_weights(*TOY), context).answers(random_images(5, 4))
        assert 1e-3 < ratios.max() < 1


def test_known_numbers_have_measured_errors(toy):
    context, values = toy.public.context, np.linspace(-1, 1, 32)
    known = encode_known(context, values, scale=2.0**20, level=1)
    blind = encode(context, values, scale=2.0**20, level=1)
    assert (np.abs(decode(known) - values) <= known.error).all()
    assert (known.error < blind.error).all()
    assert (known.values == blind.values).all()


# --- limits -----------------------------------------------------------------------------------------------------------


def test_smaller_limits_give_smaller_bounds_and_hold_for_the_images_that_keep_them(parties, data):
    limits = measured_limits(parties.weights, data.x_train)
    tighter = Parties(parties.weights, parties.public.context, limits=limits)
    kept = (hidden_values(parties.weights, data.x_test).abs() <= limits).all(1)
    assert kept.float().mean() > 0.95
    images = data.x_test[kept][:3]
    _, bounds, _, ratios = tighter.answers(images)
    assert 1e-3 < ratios.max() < 1
    assert (bounds < parties.answers(images[:1])[1]).all()


def test_an_image_beyond_the_limits_is_not_noticed_and_wraps_around_once_the_room_is_used_up():
    weights, images = random_weights(*TOY), random_images(5, 4)
    weights = replace(weights, W1=64 * weights.W1)  # logits in the thousands, for which room is scarce
    context = ckks_context(64, (30,) * 4, insecure=True)
    reached = hidden_values(weights, images).abs().amax(0)
    _, worst, *_ = Parties(weights, context).answers(images)
    logits, _, plain, _ = Parties(weights, context, limits=reached / 1.2).answers(images)
    assert ((logits - plain).abs() < worst).all()  # a little beyond: right, though nobody promised it
    logits, bounds, plain, ratios = Parties(weights, context, limits=reached / 10).answers(images)
    assert (logits - plain).abs().max() > 1000  # far beyond: any numbers
    assert ratios.max() > 1000
    assert bounds.max() < worst.min()  # as if all were well


# --- planted faults ---------------------------------------------------------------------------------------------------


def faulty(toy, **changed):
    """The largest error, in bounds, of a server whose network was changed."""
    parties = Parties(toy.weights, toy.public.context)
    parties.network = replace(parties.network, **changed)
    return parties.answers(random_images(3, 4))[-1].max()


def test_weights_in_the_wrong_place_break_the_bound(toy):
    context, network = toy.public.context, toy.network
    moved = lambda p, by: encode_known(context, np.roll(decode(p).real, by), scale=p.scale, level=p.level)  # noqa: E731
    assert faulty(toy) < 1
    assert faulty(toy, W1=moved(network.W1, 1)) > 100
    assert faulty(toy, W2=moved(network.W2, network.layout.B)) > 100
    assert faulty(toy, b1=moved(network.b1, network.layout.B)) > 100
    assert faulty(toy, b2=moved(network.b2, 1)) > 100


def test_a_bias_that_is_off_by_a_hundredth_breaks_the_bound(toy):
    b1 = encode_known(toy.public.context, decode(toy.network.b1).real + 0.01, scale=2.0**30, level=2)
    assert faulty(toy, b1=b1) > 100


def test_a_lost_rotation_and_an_image_without_copies_break_the_bound(toy, monkeypatch):
    images = random_images(3, 4)
    whole = encrypted_layout.groups
    with monkeypatch.context() as patch:
        patch.setattr(encrypted_layout, "groups", lambda count, stride: [whole(count, stride)[0], [0]])
        assert toy.answers(images)[-1].max() > 100
    monkeypatch.setattr(encrypted_mlp.np, "tile", lambda pixels, copies: pixels)
    assert toy.answers(images)[-1].max() > 100


# --- the diagonal method ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("m", "n"), [(4, 4), (4, 16), (1, 8), (8, 8), (1, 1)])
def test_products_by_diagonals_are_right_however_they_are_cut(m, n):
    context = ckks_context(64, (30, 30, 30), insecure=True)
    secret, random = secret_key(context), np.random.default_rng(0)
    W, v = random.normal(size=(m, n)), random.uniform(-1, 1, n)
    x = encrypt(public_key(secret), encode(context, np.tile(v, 32 // n), limit=1.0))
    for baby in (b for b in (1, 2, 4, 8) if m % b == 0):
        diagonals = encode_diagonals(context, W, scale=2.0**30, level=2, baby=baby)
        keys = rotation_keys(secret, diagonals.rotations)
        product = diagonal_product(x, diagonals, keys)
        apart = diagonal_product(x, diagonals, keys, hoisted=False)
        assert (product.parts == apart.parts).all()
        y = rescale(product)
        ratios = np.abs(decode(decrypt(secret, y)) - np.tile(W @ v, 32 // m)) / y.error
        assert 1e-3 < ratios.max() < 1, baby


def test_fewer_keys_are_needed_with_giant_steps():
    context = ckks_context(256, (30, 30), insecure=True)
    W = np.ones((32, 64))
    counts = [len(encode_diagonals(context, W, scale=1.0, level=1, baby=baby).rotations) for baby in (32, 8)]
    assert counts == [32, 11]


# --- what is needed ---------------------------------------------------------------------------------------------------


def test_recommended_contexts_are_secure_wide_and_long_enough():
    for sizes in [(64, 32, 10), (64, 64, 10), (1, 1, 1), (784, 4, 10), (30, 32, 2)]:
        context = recommended_context(*sizes)
        assert context.total_bits <= SECURE_BITS[context.degree]
        layout = layout_of(context, *sizes)
        assert layout.D + sizes[2] - 1 <= layout.B
        assert context.levels == 3
    assert [recommended_context(*sizes).degree for sizes in [(64, 32, 10), (784, 4, 10)]] == [8192, 16384]
    with pytest.raises(ValueError, match=r"are 784, 32 and 10, which takes 65,536 slots; accepted: at most 8,192"):
        recommended_context(784, 32, 10)


def test_a_network_a_layer_too_deep_is_refused_before_anything_is_computed(monkeypatch):
    def never(*arguments, **settings):
        raise AssertionError("computed")

    for name in ("encode", "encrypt", "multiply_plain"):
        monkeypatch.setattr(encrypted_mlp, name, never)
    short = ckks_context(64, (30,) * 3, insecure=True)  # room for a matrix and a square
    for refused in (lambda: layout_of(short, *TOY), lambda: encode_network(short, random_weights(*TOY))):
        with pytest.raises(
            ValueError, match=r"context has .* room for 2 products, and the network has 3 in .*accepted"
        ):
            refused()


def test_each_key_is_needed_and_a_missing_one_is_named_before_anything_is_computed(toy, monkeypatch):
    x = encrypt_image(toy.public, toy.layout, random_images(1, 4)[0])
    monkeypatch.setattr(encrypted_mlp, "multiply_plain", None)
    for step in toy.layout.rotations:
        keys = rotation_keys(toy.secret, [s for s in toy.layout.rotations if s != step])
        with pytest.raises(ValueError, match=rf"rotations has no key for {step}; accepted: rotation_keys\(secret"):
            encrypted_logits(toy.network, x, toy.relinearization, keys)


def test_bad_arguments_are_refused(toy):
    w, context, image = toy.weights, toy.public.context, random_images(1, 4)[0]
    other = Parties(w, ckks_context(128, (30,) * 4, insecure=True))
    stranger = Parties(w, context)
    x = encrypt_image(toy.public, toy.layout, image)
    run = lambda x, r=toy.relinearization, k=toy.rotations: encrypted_logits(toy.network, x, r, k)  # noqa: E731
    nan = w.W1.clone()
    nan[1, 2] = math.nan
    refused = {
        "W1 has 1 entries that are not finite": lambda: replace(w, W1=nan),
        "b2 has 3 entries": lambda: replace(w, b2=w.b2 / 0),
        "W2 is a float32 tensor": lambda: replace(w, W2=w.W2.float()),
        "b1 is .* needs no gradient": lambda: replace(w, b1=w.b1.clone().requires_grad_()),
        "W1 is a list|W1 is .*; accepted: a float64": lambda: replace(w, W1=[1.0]),
        "W1 is .*, W2 .*; accepted: .h, d. and": lambda: replace(w, W1=w.b1),
        "have the shapes": lambda: replace(w, b1=w.b2),
        "model has the layers Flatten, Linear, ReLU": lambda: weights_of(
            torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3))
        ),
        "model has the activation PolynomialActivation": lambda: weights_of(
            torch.nn.Sequential(
                torch.nn.Flatten(), torch.nn.Linear(4, 2), PolynomialActivation((0.1, 0.5, 0.4)), torch.nn.Linear(2, 2)
            )
        ),
        "model has the layers Linear": lambda: weights_of(torch.nn.Linear(4, 4)),
        "hidden is 0": lambda: square_network(hidden=0),
        "margin is 0.5": lambda: measured_limits(w, image[None], margin=0.5),
        "x has no images": lambda: measured_limits(w, image[None][:0]),
        "x has 3 pixels an image; accepted: 4": lambda: square_logits(w, image[None, :3]),
        "x is a float32 tensor of shape .3,.; accepted: one image of 4": lambda: encrypt_image(
            toy.public, toy.layout, image[:3]
        ),
        "x is .*accepted: one image of 4 pixels": lambda: encrypt_image(toy.public, toy.layout, [0.0] * 4),
        "x has values from 2 to 2; accepted: .0, 1.": lambda: encrypt_image(
            toy.public, toy.layout, torch.full((4,), 2.0)
        ),
        "x contains NaN": lambda: encrypt_image(toy.public, toy.layout, image * math.nan),
        "public is a SecretKey": lambda: encrypt_image(toy.secret, toy.layout, image),
        "layout is a tuple": lambda: encrypt_image(toy.public, TOY, image),
        "layout is for 64 slots; accepted: 32": lambda: encrypt_image(toy.public, other.layout, image),
        "secret is a PublicKey": lambda: decrypt_logits(toy.public, toy.layout, x),
        "secret belongs to": lambda: decrypt_logits(stranger.secret, toy.layout, x),
        "context is a str": lambda: encode_network("toy", w),
        "weights is a Sequential": lambda: encode_network(context, square_network((1, 2, 2), 3, hidden=4)),
        "context has 32 slots; accepted: at least 64": lambda: encode_network(context, random_weights(4, 8, 3)),
        "limits is .*; accepted: 4 finite": lambda: encode_network(context, w, limits=[1.0, 2.0]),
        "limits is .*; accepted: 4 fin": lambda: encode_network(context, w, limits=[1.0, 2.0, -1.0, 1.0]),
        "limits is 'large'": lambda: encode_network(context, w, limits="large"),
        "limits allow logits for which .* scale of 2.*; accepted: smaller": lambda: encode_network(
            context, w, limits=[2.0**12] * 4
        ),
        "network is a SquareWeights": lambda: encrypted_logits(w, x, toy.relinearization, toy.rotations),
        "network is of context": lambda: encrypted_logits(other.network, x, toy.relinearization, toy.rotations),
        "x is a str": lambda: run("x"),
        "x is at level 2, .*; accepted: fresh from encrypt_image": lambda: run(lower(x, 2)),
        "x is at level 3, .* sizes up to 2; accepted: fresh": lambda: run(
            encrypt(toy.public, encode(context, 1.5, limit=2.0))
        ),
        "relinearization is a RotationKeys": lambda: run(x, toy.rotations),
        "relinearization belongs to": lambda: run(x, stranger.relinearization),
        "rotations belongs to": lambda: run(x, k=stranger.rotations),
        "inputs is 0": lambda: layout_of(context, 0, 4, 3),
        "W has the shape .3, 4.; accepted": lambda: encode_diagonals(
            context, np.ones((3, 4)), scale=1.0, level=1, baby=1
        ),
        "baby is 3; accepted: a divisor of 4": lambda: encode_diagonals(
            context, np.ones((4, 4)), scale=1.0, level=1, baby=3
        ),
        "W is a ndarray": lambda: diagonal_product(x, np.ones((4, 4)), toy.rotations),
    }
    for named, call in refused.items():
        with pytest.raises(ValueError, match=f"{named}.*"):
            call()


def test_nothing_is_changed(toy):
    image = random_images(1, 4)[0]
    before = image.clone()
    x = encrypt_image(toy.public, toy.layout, image)
    parts = x.parts.copy()
    encrypted_logits(toy.network, x, toy.relinearization, toy.rotations)
    assert (image == before).all()
    assert (x.parts == parts).all()
    with pytest.raises(FrozenInstanceError):
        toy.network.limits = None
    with pytest.raises(ValueError, match="read-only"):
        toy.network.limits[0] = 0


# --- TenSEAL ----------------------------------------------------------------------------------------------------------


@pytest.mark.oracle
def test_tenseal_comes_to_the_same_logits_but_less_exactly(parties, data):
    pytest.importorskip("tenseal", reason="tenseal, which evaluates the same network by SEAL, is not installed")
    from benchmarks.contests.encrypted_image import by_tenseal

    images = data.x_test[:2]
    model = square_network()
    with torch.no_grad():
        for layer, W, b in [(model[1], "W1", "b1"), (model[3], "W2", "b2")]:
            layer.weight.copy_(getattr(parties.weights, W))
            layer.bias.copy_(getattr(parties.weights, b))
    run = by_tenseal(model, images, None)
    theirs = torch.stack([run().logits() for _ in images])
    ours, _, plain, _ = parties.answers(images)
    assert (theirs - ours).abs().max() < 0.1
    assert (ours - plain).abs().max() < (theirs - plain).abs().max()

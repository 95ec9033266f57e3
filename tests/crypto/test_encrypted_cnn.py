"""Encrypted logits against plain ones within the computed bound, which is not idle; layouts against W v; faults.

A bound fails with probability 1e-9 for each of its noisy operations, some 20 an image: below 1e-5 for this file, the
long tests included. A bound is not idle if what is observed reaches a thousandth of it.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from spai_lab.crypto import ckks_hoisting, encrypted_cnn, encrypted_layout
from spai_lab.crypto.ckks import (
    add,
    ckks_context,
    decode,
    decrypt,
    encode,
    encrypt,
    lower,
    multiply_plain,
    public_key,
    relinearization_key,
    rescale,
    rotate,
    rotate_sum,
    rotation_keys,
    secret_key,
)
from spai_lab.crypto.ckks_context import SECURE_BITS
from spai_lab.crypto.ckks_encoding import embed
from spai_lab.crypto.ckks_hoisting import rotated_products, widened
from spai_lab.crypto.ckks_noise import encryption_error
from spai_lab.crypto.cryptonets import Layer, cryptonet, fit_cryptonet, fold, largest_activations, plain_logits
from spai_lab.crypto.encrypted_cnn import (
    decrypt_logits,
    diagonals,
    encode_layers,
    encrypt_windows,
    encrypted_logits,
    held,
)
from spai_lab.crypto.encrypted_cnn_errors import as_matrix, linear_error
from spai_lab.crypto.encrypted_cnn_layout import cnn_layout, recommended_cnn_context
from spai_lab.crypto.encrypted_mlp import encode_known
from spai_lab.crypto.polynomials import PolynomialActivation, least_squares
from spai_lab.models import Normalize, initialized
from spai_lab.training import accuracy

SHAPE = (1, 7, 7)


class Parties:
    """A client's keys, and a server's encoded network."""

    def __init__(self, layers, context):
        self.layers, self.secret = layers, secret_key(context)
        self.public, self.relinearization = public_key(self.secret), relinearization_key(self.secret)
        self.network = encode_layers(context, layers)
        self.layout = self.network.layout
        self.rotations = rotation_keys(self.secret, self.layout.rotations)

    def encrypted(self, image):
        pixels = encrypt_windows(self.public, self.layout, image)
        return encrypted_logits(self.network, pixels, self.relinearization, self.rotations)

    def answers(self, images):
        """Logits, bounds, plain logits, and the errors as a share of the bounds."""
        pairs = [decrypt_logits(self.secret, self.layout, self.encrypted(image)) for image in images]
        logits, bounds = (torch.stack(part).numpy() for part in zip(*pairs, strict=True))
        plain = plain_logits(self.layers, images)
        return logits, bounds, plain, np.abs(logits - plain) / bounds


def small_cryptonet(shape=(1, 28, 28), classes=10, *, maps=5, generator=None):
    """LoLa's small network: a convolution, a square, a linear layer."""
    rows, columns = ((side - 5) // 2 + 1 for side in shape[1:])
    with torch.device("meta"):
        layers = [Normalize(), nn.Conv2d(shape[0], maps, 5, stride=2), PolynomialActivation(), nn.Flatten()]
        layers.append(nn.Linear(maps * rows * columns, classes))
    return initialized(layers, generator)


def random_images(count, shape, seed=1):
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))


def limited(model, shape, images=None):
    """Its weights, with the limits that images suggest."""
    images = random_images(50, shape) if images is None else images
    return fold(model, shape, limits=tuple(1.25 * a for a in largest_activations(model, images)))


def random_layers(first, *widths, seed=0):
    """A layer of some `(places, pixels, maps)`, and linear ones of these widths."""
    random, (places, pixels, maps) = np.random.default_rng(seed), first
    reads = np.stack([random.permutation(places + pixels)[:pixels] for _ in range(places)])
    layers = [Layer(reads, random.normal(size=(maps, pixels)) / pixels, random.normal(size=maps) / 4, 2.0)]
    for width in widths:
        n = layers[-1].outputs
        W, b = random.normal(size=(width, n)) / n, random.normal(size=width) / 4
        layers.append(Layer(np.arange(n)[None], W, b, 2.0))
    return tuple(layers)


@pytest.fixture(scope="module")
def toy():
    model = cryptonet(SHAPE, 3, maps=2, units=4, generator=torch.Generator().manual_seed(0))
    return Parties(limited(model, SHAPE), ckks_context(32, (30,) * 6, insecure=True))


# --- what stands where ------------------------------------------------------------------------------------------------

SIZES = [
    (((4, 3, 2), 4, 3), 64),
    (((144, 25, 5), 100, 10), 4096),
    (((144, 25, 5), 10), 4096),
    (((1, 6, 1), 1), 8),
    (((1, 6, 5), 4), 8),  # one block, the whole ciphertext
    (((1, 6, 5), 4, 4), 8),
    (((3, 4, 3), 2, 7, 3), 64),  # wider again after the first linear layer
    (((3, 4, 3), 6, 7, 5, 2), 128),
]


@pytest.mark.parametrize(("sizes", "slots"), SIZES)
def test_steps_and_blocks_in_the_clear_are_the_matrix(sizes, slots):
    layers = random_layers(*sizes)
    layout = cnn_layout(ckks_context(2 * slots, (30,) * 2 * len(layers), insecure=True), layers)
    random = np.random.default_rng(2)
    for layer, where in zip(layers[1:], layout.linear, strict=True):
        v = random.normal(size=where.inputs)
        slots_of_v = held(v, where.columns)
        assert set(where.columns) >= set(range(where.inputs))
        z = sum(w * np.roll(slots_of_v, -t) for t, w in enumerate(diagonals(layer.W, where)))
        for steps in where.blocks:
            z = sum(np.roll(z, -step) for step in steps)
        assert np.abs(z - held(layer.W @ v, where.rows)).max() < 1e-12
        assert np.abs(as_matrix(diagonals(layer.W, where), where, where.columns)[: len(layer.W)] - layer.W).max() == 0
    for where, following in zip(layout.linear, layout.linear[1:], strict=False):
        assert (where.rows == following.columns).all()


# --- encrypted --------------------------------------------------------------------------------------------------------


def agree(parties, images):
    """Logits within their bound, which is not idle, and the same classes."""
    logits, bounds, plain, ratios = parties.answers(images)
    assert 1e-3 < ratios.max() < 1
    assert (logits.argmax(1) == plain.argmax(1)).all()
    return bounds


def test_cryptonets_network_at_128_bits_of_security():
    model = cryptonet(generator=torch.Generator().manual_seed(0))
    layers = limited(model, (1, 28, 28))
    parties = Parties(layers, recommended_cnn_context(layers))
    assert parties.public.context.secure
    bounds = agree(parties, random_images(1, (1, 28, 28), seed=3))
    assert bounds.max() < 0.1


@pytest.mark.full
@pytest.mark.parametrize(("build", "at_least"), [(cryptonet, 0.985), (small_cryptonet, 0.97)])
def test_mnist_at_128_bits_of_security(mnist, build, at_least):
    generator = torch.Generator().manual_seed(0)
    model = build(mnist.shape, generator=generator)
    fit_cryptonet(model, mnist, generator=generator, progress=False)
    assert accuracy(model, mnist.x_test, mnist.y_test) >= at_least
    layers = limited(model, mnist.shape, mnist.x_val)
    agree(Parties(layers, recommended_cnn_context(layers)), mnist.x_test[:100])


@pytest.mark.parametrize("coefficients", [(0.0, 0.0, 1.0), least_squares(2, 4.0), (0.5, -1.0, -2.0)])
def test_any_activation_of_degree_two(coefficients):
    generator = torch.Generator().manual_seed(1)
    model = cryptonet(SHAPE, 3, maps=2, units=4, coefficients=coefficients, generator=generator)
    parties = Parties(limited(model, SHAPE), ckks_context(128, (30,) * 6, insecure=True))
    assert 1e-3 < parties.answers(random_images(4, SHAPE))[-1].max() < 1


@pytest.mark.parametrize(("sizes", "slots"), [case for case in SIZES if case[1] < 4096])
def test_any_sizes_that_fit_are_right(sizes, slots):
    layers = random_layers(*sizes)
    context = ckks_context(2 * slots, (30,) * 2 * len(layers), insecure=True)
    parties = Parties(layers, context)
    images = random_images(4, (int(layers[0].reads.max()) + 1,))
    values = images.double().numpy()
    for layer in layers[:-1]:
        values = plain_logits([replace(layer, limit=np.inf)], values) ** 2
        assert (values <= layer.limit**2).all()
    assert 1e-3 < parties.answers(images)[-1].max() < 1


def test_a_longer_chain_and_other_scales_are_right_too(toy):
    for bits, scale in [((30,) * 7, 2.0**30), ((30,) * 6, 2.0**28), ((30, 30, 29, 29, 29, 29), 2.0**29)]:
        context = ckks_context(128, bits, scale=scale, insecure=True)
        assert 1e-3 < Parties(toy.layers, context).answers(random_images(3, SHAPE))[-1].max() < 1


@pytest.mark.parametrize("depth", [0, 1])
def test_each_limit_makes_the_bounds_smaller(toy, depth):
    layers = [replace(layer, limit=np.inf if place == depth else layer.limit) for place, layer in enumerate(toy.layers)]
    assert (encode_layers(toy.public.context, layers).errors > toy.network.errors).all()


def test_without_limits_the_worst_image_is_covered(toy):
    layers = tuple(replace(layer, limit=np.inf) for layer in toy.layers)
    parties, images = Parties(layers, toy.public.context), random_images(4, SHAPE)
    _, bounds, _, ratios = parties.answers(images)
    assert ratios.max() < 1
    assert (bounds > toy.answers(images)[1]).all()
    square = torch.stack([torch.zeros(SHAPE), torch.ones(SHAPE)])
    assert parties.answers(square)[-1].max() < 1


def test_the_answer_holds_the_logits_again_and_again_and_nothing_else(toy):
    image = random_images(1, SHAPE)
    z = toy.encrypted(image[0])
    slots, bound = decode(decrypt(toy.secret, z)).reshape(-1, 4), z.error.reshape(-1, 4)
    assert (np.abs(slots - np.pad(plain_logits(toy.layers, image)[0], (0, 1))) < bound).all()
    assert z.level == 1


def test_the_bound_from_the_weights_is_far_below_what_ciphertexts_track(toy, monkeypatch):
    image = random_images(1, SHAPE)[0]
    known = toy.encrypted(image).error
    huge = replace(toy.network, errors=np.full(3, 1e9))
    pixels = encrypt_windows(toy.public, toy.layout, image)
    tracked = encrypted_logits(huge, pixels, toy.relinearization, toy.rotations).error
    assert (known <= tracked).all()
    assert (known[:3] < tracked[:3]).all()
    assert (known[3::4] == tracked[3::4]).all()


# --- errors -----------------------------------------------------------------------------------------------------------


def test_slots_of_a_polynomial_are_orthogonal():
    """So that weighted sums over slots of random polynomials are no larger than single slots."""
    slots = np.stack([embed(unit) for unit in np.eye(64)], axis=1)
    assert np.abs(slots @ slots.conj().T - 64 * np.eye(32)).max() < 1e-9
    assert np.abs(slots @ slots.T).max() < 1e-9  # real parts are as large as imaginary ones, and independent


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("depth", [0, 1])
def test_the_error_of_a_linear_layer_is_some_standard_deviations_below_its_bound(depth, last):
    """So many that nothing is forgotten: with N = 4,096 even the bound of a normal error is 5.9 times its root mean
    square, by the tail of its two parts. A mean square of 48 errors or more is within 80 % but for 1 in 10^6 times.
    """
    random, scale = np.random.default_rng(depth), 2.0**24
    layers = random_layers((40, 3, 4), 20, 6)
    context = ckks_context(4096, (30,) * 6, scale=scale, insecure=True)
    where, W = cnn_layout(context, layers).linear[depth], np.sign(layers[1 + depth].W)
    secret, true = secret_key(context), diagonals(W, where)
    public, keys = public_key(secret), rotation_keys(secret, sorted(where.rotations))
    weights = [encode_known(context, w, scale=2.0**34, level=5) for w in true]
    wide = list(map(widened, weights))
    after, level = (2.0**58, 5) if last else (2.0**58 / context.primes[5], 4)
    bias = encode_known(context, np.zeros(context.slots), scale=after, level=level)
    squares = []
    for _ in range(8):
        v = random.uniform(-1, 1, where.inputs)
        x = encode_known(context, held(v, where.columns), scale=scale, level=5)
        z = rotated_products(encrypt(public, x), wide, keys)
        for steps in where.blocks:
            z = rotate_sum(z, steps, keys)
        wrong = decode(decrypt(secret, z if last else rescale(z))) - held(W @ v, where.rows)
        squares.append(np.abs(wrong[: where.outputs]) ** 2)
    rho = encryption_error(4096, context.special) / scale + np.linalg.norm(x.error)
    bound = linear_error(weights, true, bias, where, rho, np.ones(where.inputs), scale)
    assert 5.9 / math.sqrt(1.8) < np.mean(bound) / math.sqrt(np.mean(squares)) < 100


@pytest.mark.parametrize("depth", [0, 1])
def test_what_was_wrong_before_a_linear_layer_grows_by_the_norm_of_its_rows(depth):
    layers = random_layers((40, 3, 4), 20, 6)
    context = ckks_context(1024, (30,) * 6, insecure=True)
    layer, where = layers[1 + depth], cnn_layout(context, layers).linear[depth]
    true = diagonals(layer.W, where)
    weights = [encode_known(context, w, scale=2.0**30, level=3) for w in true]

    def growth(level):
        bias = encode_known(context, np.zeros(context.slots), scale=2.0**30, level=level)
        without, with_error = (
            linear_error(weights, true, bias, where, rho, np.ones(where.inputs), 2.0**30) for rho in (0.0, 1.0)
        )
        return with_error - without

    rows = np.linalg.norm(layer.W, axis=1)
    assert np.abs(growth(3) - rows).max() < 1e-6
    assert rows.max() < growth(2) < np.linalg.norm(layer.W) + 1e-6


# --- hoisted twice ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 9])
@pytest.mark.parametrize("level", [1, 3])
def test_rotated_products_are_sums_of_products(steps, level):
    """Nothing is forgotten in the bound: with N = 256 that of a normal error is 5.7 times its root mean square, and a
    mean square of 128 errors is within 50 % but for 1 in 10^6 times.
    """
    context, random = ckks_context(256, (30,) * 4, scale=2.0**27, insecure=True), np.random.default_rng(0)
    secret = secret_key(context)
    keys = rotation_keys(secret, range(1, steps))
    z, w = random.uniform(-1, 1, 128), random.normal(size=(steps, 128)) / steps
    x = lower(encrypt(public_key(secret), encode(context, z, limit=np.abs(z))), level)
    weights = [encode_known(context, row, scale=2.0**27, level=3) for row in w]
    y = rotated_products(x, [widened(p) for p in weights], keys)
    true = sum(row * np.roll(z, -t) for t, row in enumerate(w))
    wrong = np.abs(decode(decrypt(secret, y)) - true) / y.error
    assert 1e-3 < wrong.max() < 1
    assert np.mean(y.error) > 5.7 / math.sqrt(1.5) * np.sqrt(np.mean((wrong * y.error) ** 2))
    assert (np.abs(true) <= y.limit).all()
    apart = multiply_plain(x, weights[0])
    for t in range(1, steps):
        apart = add(apart, multiply_plain(rotate(x, t, keys), weights[t]))
    assert (y.level, y.scale) == (apart.level, apart.scale)
    assert np.allclose(y.limit, apart.limit)
    if steps == 1:
        assert (y.parts == apart.parts).all()


def test_the_special_prime_is_divided_out_once(toy, monkeypatch):
    calls = []
    for name in ("decompose", "divide_by_last"):
        inner = getattr(ckks_hoisting, name)
        counting = lambda *arguments, name=name, inner=inner: calls.append(name) or inner(*arguments)  # noqa: E731
        monkeypatch.setattr(ckks_hoisting, name, counting)
    x = encrypt(toy.public, encode(toy.public.context, 1.0))
    weights = [widened(encode(toy.public.context, 1.0))] * 4
    rotated_products(x, weights, rotation_keys(toy.secret, range(1, 4)))
    assert sorted(calls) == ["decompose", "divide_by_last"]


# --- planted faults ---------------------------------------------------------------------------------------------------


def faulty(toy, **changed):
    """The largest error, in bounds, of a server whose network was changed."""
    parties = Parties(toy.layers, toy.public.context)
    parties.network = replace(parties.network, **changed)
    return parties.answers(random_images(3, SHAPE))[-1].max()


def test_weights_in_the_wrong_place_break_the_bound(toy):
    context, network = toy.public.context, toy.network

    def moved(p, by=1):
        return encode_known(context, np.roll(decode(p).real, by), scale=p.scale, level=p.level)

    first, last = network.linear
    turned = [tuple(widened(moved(w.plaintext)) for w in weights) for weights in network.linear]
    assert faulty(toy) < 1
    assert faulty(toy, convolution=tuple(map(moved, network.convolution))) > 100
    assert faulty(toy, convolution=network.convolution[::-1]) > 100
    assert faulty(toy, linear=(turned[0], last)) > 100
    assert faulty(toy, linear=(first, turned[1])) > 100
    assert faulty(toy, linear=(first[::-1], last)) > 100
    for depth in range(3):
        biases = [moved(b) if place == depth else b for place, b in enumerate(network.biases)]
        assert faulty(toy, biases=tuple(biases)) > 100


def test_a_bias_that_is_off_by_a_hundredth_breaks_the_bound(toy):
    *others, b = toy.network.biases
    off = encode_known(toy.public.context, decode(b).real + 0.01, scale=b.scale, level=b.level)
    assert faulty(toy, biases=(*others, off)) > 100


def test_a_special_prime_left_out_of_the_weights_breaks_the_bound(toy):
    first, last = toy.network.linear
    spoiled = tuple(replace(w, special=np.zeros_like(w.special)) for w in first)
    assert faulty(toy, linear=(spoiled, last)) > 100


def test_a_lost_rotation_and_a_window_in_the_wrong_order_break_the_bound(toy, monkeypatch):
    images, whole = random_images(3, SHAPE), encrypted_layout.groups
    with monkeypatch.context() as patch:
        name = "spai_lab.crypto.encrypted_cnn_layout.groups"
        patch.setattr(name, lambda count, stride: [whole(count, stride)[0], [0]])
        assert toy.answers(images)[-1].max() > 100
    encrypted = encrypted_cnn.encrypt_windows
    monkeypatch.setitem(globals(), "encrypt_windows", lambda *arguments: encrypted(*arguments)[::-1])
    assert toy.answers(images)[-1].max() > 100


def test_an_image_beyond_the_limits_is_not_noticed(toy):
    images = random_images(4, SHAPE)
    layers = tuple(replace(layer, limit=layer.limit / 50, W=64 * layer.W) for layer in toy.layers)
    _, bounds, _, ratios = Parties(layers, toy.public.context).answers(images)
    assert ratios.max() > 1000
    assert bounds.max() < 1000  # as if all were well


# --- what is needed ---------------------------------------------------------------------------------------------------


def test_recommended_contexts_are_secure_and_as_small_as_they_can_be():
    for model, degree, primes in [(cryptonet(), 8192, 6), (small_cryptonet(), 8192, 4), (cryptonet(maps=40), 16384, 6)]:
        context = recommended_cnn_context(fold(model))
        assert (context.degree, len(context.primes)) == (degree, primes)
        assert context.total_bits <= SECURE_BITS[degree]
    with pytest.raises(ValueError, match=r"layers is a network of 2, with 12,960, 10 numbers; accepted: what"):
        recommended_cnn_context(fold(small_cryptonet(maps=90)))
    deep = random_layers((4, 3, 2), *[4] * 6)
    assert recommended_cnn_context(deep[:6]).degree == 16384
    with pytest.raises(ValueError, match=r"layers is a network of 7, .* 6 layers at most"):
        recommended_cnn_context(deep)


def test_a_network_a_layer_too_deep_is_refused_before_anything_is_computed(toy, monkeypatch):
    def never(*arguments, **settings):
        raise AssertionError("computed")

    for name in ("encode", "encode_known", "encrypt", "multiply_plain"):
        monkeypatch.setattr(encrypted_cnn, name, never)
    deeper = (*toy.layers, Layer(np.arange(3)[None], np.eye(3), np.zeros(3)))
    for refused in (cnn_layout, encode_layers):
        with pytest.raises(
            ValueError,
            match=r"context has .* room for 5 products, and the network has 7 in sequence: 4 layers, .*accepted: at le",
        ):
            refused(toy.public.context, deeper)


def test_each_key_is_needed_and_a_missing_one_is_named_before_anything_is_computed(toy, monkeypatch):
    pixels = encrypt_windows(toy.public, toy.layout, random_images(1, SHAPE)[0])
    monkeypatch.setattr(encrypted_cnn, "multiply_plain", None)
    for step in toy.layout.rotations:
        keys = rotation_keys(toy.secret, [s for s in toy.layout.rotations if s != step])
        with pytest.raises(ValueError, match=rf"rotations has no key for {step}; accepted: rotation_keys\(secret"):
            encrypted_logits(toy.network, pixels, toy.relinearization, keys)


def test_bad_arguments_are_refused(toy):
    image, context, layers = random_images(1, SHAPE)[0], toy.public.context, toy.layers
    stranger = Parties(layers, context)
    other = Parties(layers, ckks_context(256, (30,) * 6, insecure=True))
    pixels = encrypt_windows(toy.public, toy.layout, image)
    run = lambda x, r=toy.relinearization, k=toy.rotations, n=toy.network: encrypted_logits(n, x, r, k)  # noqa: E731
    wide = widened(encode(context, 1.0))
    refused = {
        "x is a float32 tensor of shape .3, 3.; accepted: one image of at least 49": lambda: encrypt_windows(
            toy.public, toy.layout, image[0, :3, :3]
        ),
        "x is .*accepted: one image": lambda: encrypt_windows(toy.public, toy.layout, image.tolist()),
        "x has values from .* to .*; accepted: .0, 1.": lambda: encrypt_windows(toy.public, toy.layout, 2 + image),
        "x contains NaN": lambda: encrypt_windows(toy.public, toy.layout, image * torch.nan),
        "public is a SecretKey": lambda: encrypt_windows(toy.secret, toy.layout, image),
        "layout is a tuple": lambda: encrypt_windows(toy.public, (), image),
        "layout is for 128 slots; accepted: 16": lambda: encrypt_windows(toy.public, other.layout, image),
        "secret is a PublicKey": lambda: decrypt_logits(toy.public, toy.layout, pixels[0]),
        "secret belongs to": lambda: decrypt_logits(stranger.secret, toy.layout, pixels[0]),
        "context is a str": lambda: encode_layers("toy", layers),
        "layers is .*; accepted: one Layer": lambda: encode_layers(context, ()),
        "layers is .*; accepted: two or more": lambda: encode_layers(context, layers[:1]),
        "layers.1. reads 4 numbers; accepted: 8": lambda: encode_layers(context, layers[::2]),
        "layers.1. reads at 2 places; accepted: 1": lambda: encode_layers(
            context, (layers[0], Layer(np.arange(8).reshape(2, 4), np.ones((1, 4)), np.zeros(1)))
        ),
        "context has 4 slots; accepted: more, for .* 8, 4, 3 numbers": lambda: encode_layers(
            ckks_context(8, (30,) * 6, insecure=True), layers
        ),
        "limits allow logits for which .*; accepted: smaller": lambda: encode_layers(
            context, tuple(replace(layer, limit=2.0**12, W=2.0**12 * layer.W) for layer in layers)
        ),
        "network is a tuple": lambda: run(pixels, n=()),
        "network is of context": lambda: run(pixels, n=other.network),
        "pixels is .*; accepted: 25 ciphertexts": lambda: run(pixels[:-1]),
        "pixels is .*; accepted: 25 ": lambda: run(pixels[0]),
        "pixels.24. is a str": lambda: run([*pixels[:24], "x"]),
        "pixels.0. is at level 2, .*; accepted: fresh from encrypt_windows": lambda: run(
            [lower(pixels[0], 2), *pixels[1:]]
        ),
        "pixels.3. is at level 5, .* sizes up to 2; accepted: fresh": lambda: run(
            [*pixels[:3], encrypt(toy.public, encode(context, 1.5, limit=2.0)), *pixels[4:]]
        ),
        "relinearization is a RotationKeys": lambda: run(pixels, toy.rotations),
        "relinearization belongs to": lambda: run(pixels, stranger.relinearization),
        "rotations is a RelinearizationKey": lambda: run(pixels, k=toy.relinearization),
        "rotations belongs to": lambda: run(pixels, k=stranger.rotations),
        "plaintext is a Ciphertext": lambda: widened(pixels[0]),
        "weights is .*; accepted: one WidePlaintext": lambda: rotated_products(pixels[0], [], toy.rotations),
        "weights.0. is a Plaintext": lambda: rotated_products(pixels[0], [wide.plaintext], toy.rotations),
        "weights.1. has the scale .*; accepted: .* that of": lambda: rotated_products(
            pixels[0], [wide, widened(encode(context, 1.0, scale=2.0**20))], toy.rotations
        ),
        "steps has 1; accepted: none": lambda: rotated_products(pixels[0], [wide] * 2, rotation_keys(toy.secret, ())),
        "plaintext is encoded for level 2": lambda: rotated_products(
            pixels[0], [widened(encode(context, 1.0, level=2))], toy.rotations
        ),
    }
    for named, call in refused.items():
        with pytest.raises(ValueError, match=f"{named}.*"):
            call()


def test_nothing_is_changed(toy):
    image = random_images(1, SHAPE)[0]
    before = image.clone()
    pixels = encrypt_windows(toy.public, toy.layout, image)
    parts = [x.parts.copy() for x in pixels]
    encrypted_logits(toy.network, pixels, toy.relinearization, toy.rotations)
    assert (image == before).all()
    assert all((x.parts == part).all() for x, part in zip(pixels, parts, strict=True))
    for array in (toy.network.errors, *toy.network.limits, toy.layout.windows, toy.network.linear[0][0].special):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_the_same_ciphertext_twice_is_refused_since_its_noise_would_add_up(toy):
    pixels = encrypt_windows(toy.public, toy.layout, torch.rand(SHAPE))
    twice = [*pixels[:-1], replace(pixels[0])]
    with pytest.raises(ValueError, match=rf"pixels\[{len(pixels) - 1}\] is pixels\[0\] again; accepted"):
        encrypted_logits(toy.network, twice, toy.relinearization, toy.rotations)

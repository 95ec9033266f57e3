"""Linear layers as products of polynomials: against torch's convolutions and exact matrix products."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from spai_lab.crypto.fixed_network import Stage
from spai_lab.crypto.ntt import negacyclic_product, ntt_primes
from spai_lab.crypto.rlwe import decrypt, encrypt, secret_key
from spai_lab.crypto.rlwe_linear import (
    encoded_weights,
    encrypted_products,
    input_polynomials,
    outputs_of,
    product_norms,
    stage_layout,
    weight_polynomials,
)
from spai_lab.crypto.rlwe_scheme import rlwe_scheme
from spai_lab.crypto.rns import centered


def stage_of(random, maps, shape, kernel=0, largest=50):
    fan_in = shape[0] * (kernel**2 or 1)
    weight = random.integers(-largest, largest + 1, (maps, fan_in))
    return Stage(weight, np.zeros(maps, np.int64), shape, kernel)


def by_torch(stage, x):
    """The same layer in float64, which holds these numbers."""
    weight = torch.from_numpy(stage.weight).double()
    values = torch.from_numpy(x.astype(np.float64))[None]
    if stage.kernel:
        weight = weight.reshape(len(weight), stage.shape[0], stage.kernel, stage.kernel)
        return F.conv2d(values, weight).reshape(len(weight), -1).long().numpy()
    return F.linear(values.flatten(1), weight).reshape(-1, 1).long().numpy()


def in_the_clear(stage, x, degree):
    """Products of the polynomials modulo X^N + 1, added, without encryption; and modulo a large prime."""
    layout = stage_layout(stage, degree)
    (prime,) = ntt_primes(30, 1, degree)
    a = input_polynomials(layout, x).astype(np.int64)
    b = weight_polynomials(layout, stage.weight)
    total = negacyclic_product(a[None, :, None], b[:, :, None], (prime,)).sum(1) % prime
    return outputs_of(layout, centered(total, prime)[:, 0][:, layout.wanted])


sides = st.tuples(st.integers(1, 6), st.integers(1, 7))


@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 7), sides, st.integers(1, 5))
def test_a_convolution_is_torchs_however_it_is_split(seed, maps, channels, sides, kernel):
    random, kernel = np.random.default_rng(seed), min(kernel, *sides)
    stage = stage_of(random, maps, (channels, *sides), kernel)
    x = random.integers(0, 50, stage.shape).astype(np.uint64)
    for degree in (64, 256):
        np.testing.assert_array_equal(in_the_clear(stage, x, degree), by_torch(stage, x))


@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 70))
def test_a_dense_layer_is_a_matrix_product_however_it_is_split(seed, rows, columns):
    random = np.random.default_rng(seed)
    stage = stage_of(random, rows, (columns,))
    x = random.integers(0, 50, columns).astype(np.uint64)
    for degree in (16, 64):
        np.testing.assert_array_equal(in_the_clear(stage, x, degree)[:, 0], stage.weight @ x.astype(int))


SHAPES = {
    "MNIST's first": (16, (1, 28, 28), 5, (1, 4)),
    "MNIST's second": (16, (16, 12, 12), 5, (1, 16)),
    "dense": (100, (256,), 0, (1, 7)),
    "one ciphertext": (10, (100,), 0, (1, 1)),
    "dense, in two groups": (3, (5000,), 0, (2, 3)),
    "channels in groups": (5, (7, 30, 30), 3, (2, 5)),
}


@pytest.mark.parametrize(("maps", "shape", "kernel", "split"), SHAPES.values(), ids=SHAPES)
def test_encrypted_layers_of_real_size(maps, shape, kernel, split):
    random = np.random.default_rng(0)
    secret = secret_key(rlwe_scheme(26))
    stage = stage_of(random, maps, shape, kernel)
    layout, scheme = stage_layout(stage, 4096), secret.scheme
    assert (layout.groups, layout.blocks) == split
    x = scheme.ring.draw(shape)  # a share
    inputs = [encrypt(secret, m) for m in input_polynomials(layout, x)]
    products = encrypted_products(inputs, encoded_weights(scheme, layout, stage.weight))
    found = outputs_of(layout, np.stack([decrypt(secret, c)[layout.wanted] for c in products]))
    np.testing.assert_array_equal(found.astype(int), by_torch(stage, x) % 2**26)
    assert [c.bound for c in products] == [20 * norm for norm in product_norms(layout, stage.weight)]


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 8), st.integers(1, 8))
def test_layouts_keep_within_their_polynomials(maps, channels, rows, columns):
    kernel = min(rows, columns)
    stage = Stage(np.ones((maps, channels * kernel**2), int), np.zeros(maps, int), (channels, rows, columns), kernel)
    layout = stage_layout(stage, 64)
    assert layout.groups * layout.group >= channels and layout.blocks * layout.block >= maps
    assert len(set(layout.wanted.ravel())) == layout.wanted.size and layout.wanted.max() < 64
    polynomials = weight_polynomials(layout, stage.weight)
    assert np.abs(polynomials).sum() == stage.weight.sum()  # no weight is lost, or stands on another
    assert product_norms(layout, stage.weight) == np.abs(polynomials).sum((1, 2)).tolist()
    assert math.prod(input_polynomials(layout, np.ones(stage.shape, np.uint64)).shape) == layout.groups * 64


def test_arguments_are_refused(refuses):
    stage = Stage(np.ones((2, 9), int), np.zeros(2, int), (1, 9, 9), 3)
    layout = stage_layout(stage, 128)
    refuses(stage_layout, {"stage": stage, "degree": 64}, "stage has channels of 81 pixels; accepted: up to N = 64")
    refuses(stage_layout, {"stage": 5, "degree": 64}, "stage is a int; accepted: a Stage")
    refuses(input_polynomials, {"layout": layout, "x": np.ones((1, 9, 9), int)}, "x is int64 (1, 9, 9)")
    refuses(input_polynomials, {"layout": layout, "x": np.ones((1, 9, 8), np.uint64)}, "accepted: uint64 of 1 x (9, 9)")
    secret = secret_key(rlwe_scheme(8, degree=128, insecure=True))
    weights = encoded_weights(secret.scheme, layout, stage.weight)
    refuses(encrypted_products, {"inputs": [], "weights": weights}, "inputs holds 0")

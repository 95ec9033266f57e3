"""A network in whole numbers: against torch's float network, exact integer convolutions, and corners of the cube."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from spai_lab.crypto.circuits import evaluate_plain
from spai_lab.crypto.circuits_bits import from_bits, to_bits
from spai_lab.crypto.circuits_words import shared_relu
from spai_lab.crypto.fixed_network import (
    FixedNetwork,
    Stage,
    fixed_logits,
    fixed_network,
    limits,
    ring_bits,
    squares,
    to_logits,
    windows,
)
from spai_lab.crypto.relu_networks import minionn_network, relu_network


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def exact_logits(network, model, x):
    """The same whole numbers by torch's own layers in float64, which holds them all."""
    convs = [layer for layer in model if isinstance(layer, nn.Conv2d | nn.Linear)]
    values = torch.round(x.double() * 2**network.value_places)
    for layer in convs:
        weight = torch.round(layer.weight.detach().double() * 2**network.weight_places)
        bias = torch.round(layer.bias.detach().double() * 2**network.logit_places)
        if isinstance(layer, nn.Conv2d):
            z = F.conv2d(values, weight, bias)
        else:
            z = F.linear(values.flatten(1), weight, bias)
        values = torch.floor(z.clamp(min=0) / 2**network.weight_places)
        values = F.max_pool2d(values, 2) if z.ndim == 4 else values
    return z.long().numpy()


@pytest.mark.parametrize(("make", "shape"), [(relu_network, (1, 8, 8)), (minionn_network, (1, 28, 28))])
def test_whole_numbers_are_those_of_torchs_layers(make, shape):
    model, x = make(shape, generator=seeded(0)), torch.rand(6, *shape, generator=seeded(1))
    network = fixed_network(model, shape)
    found = fixed_logits(network, x)
    np.testing.assert_array_equal(found, exact_logits(network, model, x))
    assert (to_logits(network, found) - model(x)).abs().max() < 0.05


def test_odd_sides_leave_out_what_fills_no_square():
    model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    x = torch.rand(4, 2, 6, 6, generator=seeded(2))
    network = fixed_network(model, (2, 6, 6))
    np.testing.assert_array_equal(fixed_logits(network, x), exact_logits(network, model, x))


def test_limits_are_reached_at_a_corner_and_never_passed():
    random = np.random.default_rng(0)
    first = Stage(random.integers(-9, 10, (3, 4)), random.integers(-9, 10, 3), (4,))
    network = FixedNetwork((first,), 2, 2)
    corners = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4))).reshape(-1, 1, 2, 2)
    reached = np.abs(fixed_logits(network, corners)).max()
    assert limits(network) == [reached]
    assert 2 ** (ring_bits(network) - 2) <= reached < 2 ** (ring_bits(network) - 1)


def test_limits_hold_behind_an_activation():
    model = minionn_network(generator=seeded(3))
    network = fixed_network(model, (1, 28, 28))
    x = (torch.rand(40, 1, 28, 28, generator=seeded(4)) < 0.5).float()
    assert np.abs(fixed_logits(network, x)).max() <= limits(network)[-1]


def test_windows_multiply_as_a_convolution():
    random = np.random.default_rng(1)
    x, weight = random.integers(-50, 50, (2, 3, 6, 5)), random.integers(-50, 50, (4, 3, 2, 2))
    stage = Stage(weight.reshape(4, -1), np.zeros(4, int), (3, 6, 5), kernel=2)
    expected = F.conv2d(torch.from_numpy(x).double(), torch.from_numpy(weight).double()).long().numpy()
    np.testing.assert_array_equal((stage.weight @ windows(x, stage)).reshape(expected.shape), expected)


def test_the_circuit_between_layers_is_pool_relu_and_shift_of_the_sum():
    random, bits, places = np.random.default_rng(2), 20, 5
    z = random.integers(-(2**18), 2**18, (200, 4))
    r, first = random.integers(0, 2**bits, 200), random.integers(0, 2**bits, (200, 4))
    words = np.column_stack([first, r, (z - first) % 2**bits])
    inputs = np.concatenate([to_bits(word, bits) for word in words.T], axis=1)
    found = from_bits(evaluate_plain(shared_relu(bits, pool=4, places=places), inputs))
    expected = (np.maximum(z.max(1), 0) >> places) - r
    np.testing.assert_array_equal(found.astype(np.int64), expected % 2**bits)


def test_squares_are_those_of_torchs_pool():
    z = np.random.default_rng(3).integers(-99, 99, (2, 3, 16))
    stage = Stage(np.zeros((3, 4), int), np.zeros(3, int), (1, 5, 5), kernel=2, pool=2)
    expected = F.max_pool2d(torch.from_numpy(z.reshape(2, 3, 4, 4)).double(), 2).long().numpy()
    np.testing.assert_array_equal(squares(z, stage).max(-1).reshape(expected.shape), expected)


BAD = {
    "no activation": nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Linear(8, 2)),
    "padding": nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 2)),
    "strides": nn.Sequential(nn.Conv2d(1, 2, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(18, 2)),
    "no bias": nn.Sequential(nn.Flatten(), nn.Linear(64, 2, bias=False)),
    "another activation": nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Sigmoid(), nn.Linear(8, 2)),
    "an activation at the end": nn.Sequential(nn.Flatten(), nn.Linear(64, 2), nn.ReLU()),
    "another size": nn.Sequential(nn.Flatten(), nn.Linear(32, 2)),
    "overlapping pools": nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.MaxPool2d(2, stride=1), nn.ReLU(), nn.Flatten(), nn.Linear(50, 2)
    ),
    "no sequence": nn.Linear(64, 2),
    "nothing": nn.Sequential(),
}


@pytest.mark.parametrize("name", BAD)
def test_other_models_are_refused_by_name(name):
    with pytest.raises(ValueError, match=r"^model"):
        fixed_network(BAD[name], (1, 8, 8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value_places": -1}, "value_places is -1"),
        ({"weight_places": 21}, "weight_places is 21"),
        ({"shape": (8, 8)}, "shape"),
    ],
)
def test_bad_settings_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        fixed_network(relu_network(), **{"shape": (1, 8, 8)} | change)


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match="x is"):
        fixed_logits(fixed_network(relu_network(), (1, 8, 8)), torch.zeros(1, 1, 28, 28))

"""The victims: their size, what they take and give, and where their first weights come from."""

import math

import pytest
import torch

from spai_lab import models
from spai_lab.models import VICTIMS, Normalize, build

NAMES = tuple(VICTIMS)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("softmax", 7_850),  # 784 x 10 weights and 10 biases
        ("lenet", 61_706),  # LeNet-5 with full connections between its feature maps
        ("madry", 3_274_634),  # counted in the published code of Madry et al.
    ],
)
def test_size_is_the_published_one(name, parameters):
    assert sum(parameter.numel() for parameter in build(name).parameters()) == parameters


def test_mlp_has_two_hidden_layers_of_the_size_asked_for():
    sizes = [tuple(parameter.shape) for parameter in models.mlp(hidden=7).parameters() if parameter.ndim == 2]
    assert sizes == [(7, 784), (7, 7), (10, 7)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("shape", "classes"), [((1, 28, 28), 10), ((3, 32, 32), 5), ((1, 40, 30), 40)])
def test_images_become_finite_logits(name, shape, classes):
    logits = build(name, shape, classes, generator=seeded())(torch.rand(2, *shape, generator=seeded()))
    assert logits.shape == (2, classes)
    assert logits.isfinite().all()
    assert not torch.allclose(logits.sum(1), torch.ones(2)), "probabilities, not logits"


@pytest.mark.parametrize("name", ["softmax", "mlp"])
def test_points_become_logits(name):
    assert build(name, (2, 1, 1), 2)(torch.rand(5, 2, 1, 1)).shape == (5, 2)


@pytest.mark.parametrize("name", NAMES)
def test_empty_batch_and_single_image(name):
    model = build(name)
    assert model(torch.zeros(0, 1, 28, 28)).shape == (0, 10)
    assert model(torch.zeros(1, 1, 28, 28)).shape == (1, 10)


@pytest.mark.parametrize("name", NAMES)
def test_normalization_is_inside(name):
    model = build(name, generator=seeded())
    x = torch.rand(3, 1, 28, 28, generator=seeded())
    first, *rest = model
    assert isinstance(first, Normalize)
    assert torch.equal(model(x), torch.nn.Sequential(*rest)((x - 0.1307) / 0.3081))


def test_normalization_constants_are_those_of_mnist(mnist):
    pixels = torch.cat([mnist.x_train, mnist.x_val])
    assert abs(pixels.mean().item() - Normalize().mean) < 1e-4
    assert abs(pixels.std().item() - Normalize().std) < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_generator_decides_the_first_weights(name):
    def flat(generator):
        return torch.cat([parameter.detach().flatten() for parameter in build(name, generator=generator).parameters()])

    assert torch.equal(flat(seeded(1)), flat(seeded(1)))
    assert not torch.equal(flat(seeded(1)), flat(seeded(2)))
    assert not torch.equal(flat(None), flat(None)), "a fresh generator each time"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("generator", [None, 0])
def test_global_randomness_is_untouched(name, generator):
    before = torch.get_rng_state()
    build(name, generator=None if generator is None else seeded(generator))
    assert torch.equal(torch.get_rng_state(), before)


def test_first_weights_spread_as_those_of_pytorch():
    ours = models.softmax_regression(generator=seeded())[-1]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = torch.nn.Linear(784, 10)
    bound = 1 / math.sqrt(784)
    for layer in (ours, theirs):
        assert layer.weight.abs().max() <= bound
        # The standard deviation of 7,840 uniform draws is known to 0.5 % (its standard error); 5 of these: 6e-7.
        assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.026)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_reaches_input_and_every_weight(name):
    model = build(name, generator=seeded())
    x = torch.rand(4, 1, 28, 28, generator=seeded()).requires_grad_()
    model(x).logsumexp(1).sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        (build, {"name": "resnet"}, ["name", "'resnet'", "'lenet'"]),
        (build, {"name": None}, ["name", "None"]),
        (build, {"name": "mlp", "shape": 784}, ["shape", "784", "(C, H, W)"]),
        (build, {"name": "mlp", "shape": (28, 28)}, ["shape", "(28, 28)", "(C, H, W)"]),
        (build, {"name": "mlp", "shape": (0, 28, 28)}, ["channels", "0"]),
        (build, {"name": "mlp", "shape": (1, 28.0, 28)}, ["height", "28.0"]),
        (build, {"name": "lenet", "shape": (1, 11, 28)}, ["height", "11", "12"]),
        (build, {"name": "lenet", "shape": (1, 28, 11)}, ["width", "11", "12"]),
        (build, {"name": "madry", "shape": (1, 3, 28)}, ["height", "3", "4"]),
        (build, {"name": "softmax", "classes": 1}, ["classes", "1", "2"]),
        (build, {"name": "softmax", "classes": True}, ["classes", "True"]),
        (build, {"name": "softmax", "generator": 0}, ["generator", "0", "torch.Generator"]),
        (models.mlp, {"hidden": 0}, ["hidden", "0", "1"]),
    ],
)
def test_bad_input(refuses, function, arguments, words):
    refuses(function, arguments, *words)


@pytest.mark.parametrize("shape", [(1, 12, 12), (1, 13, 15)])
def test_smallest_and_odd_sizes_of_lenet(shape):
    assert models.lenet(shape)(torch.zeros(1, *shape)).shape == (1, 10)


@pytest.mark.parametrize("name", NAMES)
def test_features_are_what_the_last_layer_reads(name):
    model = build(name, generator=seeded())
    x = torch.rand(3, 1, 28, 28, generator=seeded()).requires_grad_()
    phi = models.features(model, x)
    torch.testing.assert_close(model[-1](phi), model(x))
    assert torch.autograd.grad(phi.sum(), x)[0].abs().sum() > 0
    assert not model[-1]._forward_pre_hooks, "the model is left as it was"


def test_features_need_a_linear_layer(refuses):
    refuses(models.features, {"model": torch.nn.Flatten(), "x": torch.zeros(1, 1, 2, 2)}, "model", "linear layer")

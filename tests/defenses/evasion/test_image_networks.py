"""The networks that learn images, against closed forms: a linear critic, and data with one right answer."""

import pytest
import torch
from torch import nn

from spai_lab.defenses.evasion.image_networks import (
    autoencoder,
    critic,
    descend,
    image_generator,
    slopes,
    train_autoencoder,
    train_generator,
)
from spai_lab.training.loop import accuracy
from spai_lab.training.weights import reference


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


BUILDERS = [image_generator, critic, autoencoder]


@pytest.mark.parametrize("build", BUILDERS, ids=[build.__name__ for build in BUILDERS])
def test_the_networks_are_small_and_a_seed_repeats_their_weights(build):
    before = torch.get_rng_state()
    one, same, other = build(generator=seeded()), build(generator=seeded()), build(generator=seeded(1))
    assert sum(weights.numel() for weights in one.parameters()) < 400_000
    first, *rest = (network.state_dict()[next(iter(one.state_dict()))] for network in (one, same, other))
    assert torch.equal(first, rest[0]) and not torch.equal(first, rest[1])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 7, 5)], ids=["mnist", "odd"])
@pytest.mark.parametrize("pooling", [True, False], ids=["pooling", "full"])
def test_images_keep_their_shape_and_range(shape, pooling):
    x = torch.rand(2, *shape, generator=seeded())
    for image in (
        image_generator(shape)(torch.randn(2, 32, generator=seeded())),
        autoencoder(shape, pooling=pooling)(x),
    ):
        assert image.shape == x.shape and image.min() >= 0 and image.max() <= 1
    assert critic(shape)(x).shape == (2, 1)


def test_the_paper_s_autoencoders_have_its_layers():
    count = lambda network, kind: sum(isinstance(layer, kind) for layer in network)  # noqa: E731
    assert [count(autoencoder(), kind) for kind in (nn.Conv2d, nn.AvgPool2d, nn.Upsample)] == [5, 1, 1]
    assert [count(autoencoder(pooling=False), kind) for kind in (nn.Conv2d, nn.AvgPool2d, nn.Upsample)] == [3, 0, 0]


def test_the_slope_of_a_linear_critic_is_the_norm_of_its_weights():
    D = nn.Sequential(nn.Flatten(), nn.Linear(6, 1))
    real, fake = torch.rand(2, 5, 1, 2, 3, generator=seeded())
    torch.testing.assert_close(slopes(D, real, fake, seeded()), D[1].weight.norm().expand(5))


def test_slopes_are_taken_between_the_images_of_a_pair():
    """The critic $x^2 / 2$ is as steep as the place is far from 0."""
    D = lambda x: x.square().flatten(1).sum(1) / 2  # noqa: E731
    real, fake = torch.full((500, 1, 1, 1), 0.25), torch.full((500, 1, 1, 1), 0.75)
    steep = slopes(D, real, fake, seeded())
    assert 0.25 <= steep.min() < 0.27 and 0.73 < steep.max() <= 0.75


def test_a_step_changes_the_weights_of_its_own_optimizer_alone():
    G, D = nn.Linear(2, 2), nn.Linear(2, 1)
    before = D.weight.clone()
    descend(torch.optim.SGD(G.parameters(), lr=1.0), D(G(torch.ones(1, 2))).sum())
    assert torch.equal(D.weight, before) and D.weight.grad is None and G.weight.grad is not None


def test_a_generator_finds_both_kinds_of_images():
    """Half of the images are bright on the left, half on the right; an average of both would be wrong."""
    left = torch.tensor([0.9, 0.1]).view(1, 1, 1, 2)
    data = torch.cat([left, left.flip(3)])
    G = train_generator(
        data, latent=2, hidden=32, steps=400, learning_rate=5e-3, batch_size=32, generator=seeded(), progress=False
    )
    made = G(torch.randn(500, 2, generator=seeded(1)))
    distances = (made[:, None] - data).flatten(2).norm(dim=2)
    assert distances.amin(1).mean() < 0.57 / 2  # the average of both kinds is 0.57 from each
    assert 0.25 < (distances.argmin(1) == 0).float().mean() < 0.75


def test_first_weights_of_an_autoencoder_are_glorots():
    layers = [layer for layer in autoencoder(channels=30, generator=seeded()) if isinstance(layer, nn.Conv2d)]
    for layer in layers:
        fan_in, fan_out = (9 * maps for maps in (layer.in_channels, layer.out_channels))
        bound = (6 / (fan_in + fan_out)) ** 0.5
        assert not layer.bias.any() and 0.95 * bound < layer.weight.abs().max() <= bound


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.full) for seed in (1, 2, 3))])
def test_the_paper_s_reformer_leaves_digits_readable_whatever_the_seed(digits, seed):
    model = reference("lenet", "digits")
    AE = train_autoencoder(digits.x_train, batch_size=32, generator=seeded(seed), progress=False)
    plain, reformed = (accuracy(model, x, digits.y_val) for x in (digits.x_val, AE(digits.x_val)))
    assert reformed > plain - 0.05


def test_an_autoencoder_removes_noise(digits):
    x_train, x = (images[..., ::2, ::2] for images in (digits.x_train, digits.x_val))
    AE = train_autoencoder(
        x_train, pooling=False, steps=400, learning_rate=3e-2, batch_size=32, generator=seeded(), progress=False
    )
    noisy = (x + 0.1 * torch.randn(x.shape, generator=seeded(1))).clamp(0, 1)
    distance = lambda a, b: (a - b).square().mean().item()  # noqa: E731
    assert distance(AE(noisy), x) < distance(x_train.mean(0).expand_as(x), x) / 2


@pytest.mark.parametrize("train", [train_generator, train_autoencoder], ids=["generator", "autoencoder"])
def test_training_is_pure_and_a_seed_repeats_it(train):
    data = torch.rand(9, 1, 4, 4, generator=seeded())
    copy, before = data.clone(), torch.get_rng_state()
    with torch.no_grad():
        one, same = (train(data, steps=3, batch_size=4, generator=seeded(), progress=False) for _ in range(2))
    other = train(data, steps=3, batch_size=4, progress=False)
    assert torch.equal(data, copy) and torch.equal(torch.get_rng_state(), before)
    weights = [torch.cat([w.flatten() for w in network.parameters()]) for network in (one, same, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert not one.training and not any(w.requires_grad for w in one.parameters())


BAD = {
    "no images": ({"data": torch.zeros(0, 1, 4, 4)}, ["data", "N at least 1"]),
    "flat": ({"data": torch.zeros(3, 16)}, ["data", "(3, 16)"]),
    "bytes": ({"data": torch.full((3, 1, 4, 4), 255.0)}, ["data", "255"]),
    "no steps": ({"steps": 0}, ["steps is 0"]),
    "no batch": ({"batch_size": 0}, ["batch_size is 0"]),
    "no learning": ({"learning_rate": 0.0}, ["learning_rate is 0"]),
    "progress": ({"progress": 1}, ["progress is 1"]),
    "generator": ({"generator": 0}, ["generator is 0"]),
}
BAD_GENERATOR = {
    "latent": ({"latent": 0}, ["latent is 0"]),
    "hidden": ({"hidden": 0}, ["hidden is 0"]),
    "critic": ({"critic_steps": 0}, ["critic_steps is 0"]),
    "penalty": ({"penalty": -1}, ["penalty is -1"]),
}
BAD_AUTOENCODER = {
    "noise": ({"noise": float("nan")}, ["noise is nan"]),
    "pooling": ({"pooling": 2}, ["pooling is 2"]),
    "channels": ({"channels": 0}, ["channels is 0"]),
}


@pytest.mark.parametrize("case", [*BAD, *BAD_GENERATOR], ids=[*BAD, *BAD_GENERATOR])
def test_train_generator_names_what_it_refuses(case, refuses):
    arguments, words = (BAD | BAD_GENERATOR)[case]
    refuses(train_generator, {"data": torch.rand(3, 1, 4, 4), "progress": False} | arguments, *words)


@pytest.mark.parametrize("case", [*BAD, *BAD_AUTOENCODER], ids=[*BAD, *BAD_AUTOENCODER])
def test_train_autoencoder_names_what_it_refuses(case, refuses):
    arguments, words = (BAD | BAD_AUTOENCODER)[case]
    refuses(train_autoencoder, {"data": torch.rand(3, 1, 4, 4), "progress": False} | arguments, *words)

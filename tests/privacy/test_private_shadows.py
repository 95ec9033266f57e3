"""Private shadow models that learn at once, held against `dp_sgd` and against the definition of a private step."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from spai_lab.attacks.privacy.shadows import random_halves
from spai_lab.models import mlp, softmax_regression
from spai_lab.privacy.accounting import dp_sgd_guarantee
from spai_lab.privacy.dp_sgd import dp_sgd, private_gradient
from spai_lab.privacy.per_example import clipped_sum, per_example_gradients
from spai_lab.privacy.shadows import drawn_clipped_sum, train_private_shadows

SETTINGS = {
    "expected_batch": 6.0,
    "noise_multiplier": 0.0,
    "clip": 0.7,
    "sampling_rate": 1.0,
    "steps": 5,
    "learning_rate": 0.3,
    "delta_dp": 1e-3,
    "progress": False,
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def small(generator):
    return mlp((1, 3, 3), 3, hidden=4, generator=generator)


def points(count=12):
    return torch.rand(count, 1, 3, 3, generator=seeded(1)), torch.arange(count) % 3


def trained(x, y, inside, **change):
    return train_private_shadows(x, y, inside, small, **SETTINGS | change)[0]


@pytest.mark.parametrize("clip", [0.05, 0.7, math.inf])
def test_each_of_many_models_is_the_one_that_dp_sgd_trains_alone(clip):
    x, y = points()
    inside = random_halves(4, len(x), generator=seeded(2))
    shadows = trained(x, y, inside, clip=clip, generator=seeded(3))
    generator = seeded(3)
    models = [small(generator) for _ in inside]
    for number, model in enumerate(models):
        mine = inside[number]
        first = copy.deepcopy(model)
        settings = {name: SETTINGS[name] for name in ("noise_multiplier", "sampling_rate", "steps", "learning_rate")}
        dp_sgd(model, x[mine], y[mine], clip=clip, **settings, delta_dp=1e-3, path="vmap", progress=False)
        with torch.no_grad():
            assert torch.allclose(shadows.model(number)(x), model(x), atol=1e-5)
            assert (model(x) - first(x)).abs().max() > 1e-3


def test_only_what_is_drawn_counts_and_each_of_it_at_most_the_clipping_norm():
    x, y = points()
    model, drawn = small(seeded()), torch.arange(len(x)) % 3 < 2
    theta = {name: weight.detach() for name, weight in model.named_parameters()}
    total = drawn_clipped_sum(model, theta, x, y, drawn.float(), 0.1)
    expected = clipped_sum(per_example_gradients(model, x[drawn], y[drawn]), 0.1)
    assert all(torch.allclose(total[name], expected[name], atol=1e-6) for name in expected)
    one = drawn_clipped_sum(model, theta, x, y, (torch.arange(len(x)) == 4).float(), 0.1)
    assert sum(g.square().sum() for g in one.values()).sqrt().item() == pytest.approx(0.1, rel=1e-5)


def test_a_step_has_the_noise_that_private_gradient_adds():
    """600 models from one start: the spread of each weight is sigma C eta / B; false alarms: 5 sigma of a variance."""
    x, y = points()
    inside = (torch.arange(len(x)) < 6).expand(600, -1)
    start = small(seeded())
    build = lambda generator: copy.deepcopy(start)  # noqa: E731
    settings = SETTINGS | {"steps": 1, "noise_multiplier": 2.0, "learning_rate": 0.5}
    shadows, _ = train_private_shadows(x, y, inside, build, **settings, generator=seeded(4))
    std = 2.0 * 0.7 * 0.5 / 6.0
    gradients = per_example_gradients(start, x[:6], y[:6])
    step = private_gradient(gradients, clip=0.7, noise_multiplier=0.0, expected_batch=6.0)
    noise = torch.cat(
        [
            (shadows.weights[name] - (start.state_dict()[name] - 0.5 * step[name])).flatten(1)
            for name in shadows.weights
        ],
        1,
    )
    count = noise.numel()
    assert abs(noise.mean()) < 5 * std / math.sqrt(count)
    assert abs(noise.var() / std**2 - 1) < 5 * math.sqrt(2 / count)
    assert abs(torch.corrcoef(noise.T[:2])[0, 1]) < 5 / math.sqrt(len(noise))


def test_each_input_takes_part_by_a_coin_of_its_own():
    """One step without clipping or noise is the sum over a Poisson batch: the count of each class tells its size."""
    n, q, models = 40, 0.3, 400
    x, y = torch.ones(n, 1, 1, 1), torch.zeros(n, dtype=torch.int64)

    def build(generator):
        model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
        for weight in model.parameters():
            nn.init.zeros_(weight)
        return model

    settings = SETTINGS | {"clip": math.inf, "sampling_rate": q, "steps": 1, "learning_rate": 1.0, "expected_batch": 1}
    inside = torch.ones(models, n, dtype=torch.bool)
    shadows, _ = train_private_shadows(x, y, inside, build, **settings, generator=seeded(5))
    sizes = 2 * shadows.weights["1.bias"][:, 0]
    assert torch.allclose(sizes, sizes.round(), atol=1e-4) and sizes.max() <= n
    mean, variance = n * q, n * q * (1 - q)
    assert abs(sizes.mean() - mean) < 5 * math.sqrt(variance / models)
    assert abs(sizes.var() / variance - 1) < 5 * math.sqrt(2 / models)


def test_parts_may_have_any_size_and_none():
    x, y = points()
    inside = torch.arange(len(x)) < torch.tensor([[0], [1], [12]])
    shadows = trained(x, y, inside, generator=seeded(3))
    generator = seeded(3)
    first = [small(generator) for _ in inside]
    assert torch.equal(shadows.inside, inside)
    with torch.no_grad():
        assert torch.allclose(shadows.model(0)(x), first[0](x), atol=1e-6)
        assert not torch.allclose(shadows.model(1)(x), first[1](x), atol=1e-4)


def test_a_model_never_sees_what_is_outside_its_part():
    x, y = points()
    inside = random_halves(2, len(x), generator=seeded(2))
    other = x.clone()
    other[~inside[0]] = 1 - other[~inside[0]]
    pair = [trained(a, y, inside, generator=seeded(3)) for a in (x, other)]
    with torch.no_grad():
        assert torch.equal(pair[0].model(0)(x), pair[1].model(0)(x))
        assert not torch.equal(pair[0].model(1)(x), pair[1].model(1)(x))


def test_what_is_promised_is_what_the_accountant_says():
    x, y = points()
    settings = SETTINGS | {"noise_multiplier": 1.5, "sampling_rate": 0.25}
    _, guarantee = train_private_shadows(x, y, random_halves(2, 12), small, **settings)
    expected = dp_sgd_guarantee(sampling_rate=0.25, noise_multiplier=1.5, steps=5, delta_dp=1e-3)
    assert (guarantee.epsilon, guarantee.delta_dp, guarantee.adjacency) == (expected.epsilon, 1e-3, "add/remove")
    _, nothing = train_private_shadows(x, y, random_halves(2, 12), small, **SETTINGS)
    assert nothing.epsilon == math.inf


def test_models_learn_and_nothing_of_the_callers_changes():
    x, y = points()
    inside = torch.ones(2, 12, dtype=torch.bool)
    before, state = copy.deepcopy((x, y, inside)), torch.get_rng_state()
    shadows = trained(x, y, inside, steps=200, learning_rate=0.1, generator=seeded())
    assert all(torch.equal(a, b) for a, b in zip(before, (x, y, inside), strict=True))
    assert torch.equal(state, torch.get_rng_state())
    assert F.cross_entropy(shadows.logits(x)[0], y) < 0.9 * math.log(3)


def with_dropout(generator):
    return nn.Sequential(*softmax_regression((1, 3, 3), 3, generator=generator), nn.Dropout())


def without_bias(generator):
    return nn.Sequential(nn.Flatten(), nn.Linear(9, 3, bias=False))


def with_silent_batch_norm(generator):
    """It has neither weights nor buffers, and mixes the examples all the same."""
    norm = nn.BatchNorm1d(4, affine=False, track_running_stats=False)
    return nn.Sequential(nn.Flatten(), nn.Linear(9, 4), norm, nn.Linear(4, 3))


def with_convolution(generator):
    return nn.Sequential(nn.Conv2d(1, 2, 2), nn.Flatten(), nn.Linear(8, 3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inside": torch.ones(2, 5, dtype=torch.bool)}, r"inside is .*accepted: bool \(S, 12\)"),
        ({"inside": torch.ones(2, 12)}, "inside is a float32 tensor"),
        ({"inside": torch.eye(12, dtype=torch.bool)[:0]}, "inside is"),
        ({"build": 3}, "build is 3"),
        ({"build": with_dropout}, "accepted: nn.Sequential of linear layers"),
        ({"build": without_bias}, "accepted: nn.Sequential of linear layers"),
        ({"build": with_convolution}, "accepted: nn.Sequential of linear layers"),
        ({"build": with_silent_batch_norm}, "BatchNorm1d"),
        ({"build": lambda generator: nn.Linear(9, 3)}, "accepted: nn.Sequential of linear layers"),
        ({"expected_batch": 0}, "expected_batch is 0"),
        ({"noise_multiplier": -1}, "noise_multiplier is -1"),
        ({"clip": 0}, "clip is 0"),
        ({"clip": math.inf, "noise_multiplier": 1.0}, "clip is inf"),
        ({"sampling_rate": 1.5}, "sampling_rate is 1.5"),
        ({"steps": 0}, "steps is 0"),
        ({"learning_rate": 0}, "learning_rate is 0"),
        ({"delta_dp": 0}, "delta_dp is 0"),
        ({"progress": 1}, "progress is 1"),
        ({"x": torch.full((12, 1, 3, 3), 2.0)}, "x has values"),
        ({"y": torch.zeros(3, dtype=torch.int64)}, "y is"),
        ({"y": torch.full((12,), 3)}, "y has a label 3"),
    ],
)
def test_bad_arguments_are_named(change, message):
    x, y = points()
    good = {"x": x, "y": y, "inside": random_halves(2, 12), "build": small, **SETTINGS}
    with pytest.raises(ValueError, match=message):
        train_private_shadows(**good | change)

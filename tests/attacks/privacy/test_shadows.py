"""Shadow models that learn at once, held against models that learn one after the other."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from spai_lab.attacks.privacy.shadows import Shadows, random_halves, train_shadows
from spai_lab.models import mlp, softmax_regression


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def small(generator):
    return mlp((1, 3, 3), 3, hidden=4, generator=generator)


def points(count=12):
    return torch.rand(count, 1, 3, 3, generator=seeded(1)), torch.arange(count) % 3


def one_after_the_other(x, y, inside, *, epochs, batch_size, learning_rate, weight_decay, generator):
    """Each model trained alone by a plain loop, on the batches that the stacked ones get."""
    models = [small(generator).train() for _ in inside]
    settings = {"lr": learning_rate, "weight_decay": weight_decay}
    optimizers = [torch.optim.AdamW(model.parameters(), **settings) for model in models]
    own = torch.stack([row.nonzero()[:, 0] for row in inside])
    for _ in range(epochs):
        shuffled = own.gather(1, torch.rand(own.shape, generator=generator).argsort(1))
        for model, optimizer, order in zip(models, optimizers, shuffled, strict=True):
            for batch in order.split(batch_size):
                optimizer.zero_grad()
                F.cross_entropy(model(x[batch]), y[batch]).backward()
                optimizer.step()
    return models


def test_models_that_learn_at_once_are_those_that_learn_alone():
    x, y = points()
    inside = random_halves(4, len(x), generator=seeded(2))
    settings = {"epochs": 5, "batch_size": 4, "learning_rate": 0.01, "weight_decay": 0.1}
    shadows = train_shadows(x, y, inside, small, **settings, generator=seeded(3), progress=False)
    alone = one_after_the_other(x, y, inside, **settings, generator=seeded(3))
    for number, model in enumerate(alone):
        with torch.no_grad():
            assert torch.allclose(shadows.model(number)(x), model(x), atol=1e-5)
            assert torch.allclose(shadows.logits(x, batch_size=5)[number], model(x), atol=1e-5)
    first = small(seeded(3))
    assert not torch.allclose(shadows.model(0)(x), first(x), atol=1e-2)


def test_a_model_never_sees_what_is_outside_its_part():
    x, y = points()
    inside = random_halves(2, len(x), generator=seeded(2))
    other = x.clone()
    other[~inside[0]] = 1 - other[~inside[0]]
    trained = [train_shadows(a, y, inside, small, generator=seeded(3), progress=False) for a in (x, other)]
    with torch.no_grad():
        assert torch.equal(trained[0].model(0)(x), trained[1].model(0)(x))
        assert not torch.equal(trained[0].model(1)(x), trained[1].model(1)(x))


def test_halves_are_halves_in_both_directions_and_differ():
    halves = random_halves(10, 40, generator=seeded())
    assert halves.sum(1).tolist() == [20] * 10 and halves.sum(0).tolist() == [5] * 40
    assert torch.equal(halves[0], ~halves[1]) and len({tuple(row.tolist()) for row in halves}) == 10


def test_some_of_the_models_keep_their_weights_and_their_parts():
    x, y = points()
    shadows = train_shadows(
        x, y, random_halves(4, 12, generator=seeded()), small, epochs=1, generator=seeded(), progress=False
    )
    some = shadows.some(torch.tensor([2, 3]))
    assert len(some) == 2 and torch.equal(some.inside, shadows.inside[2:])
    assert torch.equal(some.logits(x), shadows.logits(x)[2:])


def test_nothing_of_the_callers_changes():
    x, y = points()
    inside = random_halves(2, 12, generator=seeded())
    before, state = copy.deepcopy((x, y, inside)), torch.get_rng_state()
    train_shadows(x, y, inside, small, epochs=1, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(before, (x, y, inside), strict=True))
    assert torch.equal(state, torch.get_rng_state())


def with_dropout(generator):
    return nn.Sequential(*softmax_regression((1, 3, 3), 3, generator=generator), nn.Dropout())


def with_batch_norm(generator):
    return nn.Sequential(nn.BatchNorm2d(1), *softmax_regression((1, 3, 3), 3, generator=generator))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inside": torch.ones(2, 5, dtype=torch.bool)}, r"inside is .*accepted: bool \(S, 12\)"),
        ({"inside": torch.ones(2, 12)}, "inside is a float32 tensor"),
        ({"inside": torch.eye(12, dtype=torch.bool)[:0]}, "parts of different size, or none"),
        ({"inside": torch.ones(3, 12).tril(3).bool()}, "parts of different size"),
        ({"build": 3}, "build is 3"),
        ({"build": with_dropout}, "dropout or buffers"),
        ({"build": with_batch_norm}, "dropout or buffers"),
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"learning_rate": 0}, "learning_rate is 0"),
        ({"weight_decay": -1}, "weight_decay is -1"),
        ({"progress": 1}, "progress is 1"),
        ({"x": torch.full((12, 1, 3, 3), 2.0)}, "x has values"),
        ({"y": torch.zeros(3, dtype=torch.int64)}, "y is"),
    ],
)
def test_bad_arguments_are_named(change, message):
    x, y = points()
    good = {"x": x, "y": y, "inside": random_halves(2, 12), "build": small, "epochs": 1, "progress": False}
    with pytest.raises(ValueError, match=message):
        train_shadows(**good | change)


@pytest.mark.parametrize(
    ("count", "inputs", "message"), [(3, 4, "count is 3"), (4, 5, "inputs is 5"), (0, 4, "count is 0")]
)
def test_halves_need_even_numbers(count, inputs, message):
    with pytest.raises(ValueError, match=message):
        random_halves(count, inputs)


def test_there_is_no_model_beyond_the_last():
    shadows = Shadows({}, torch.ones(2, 4, dtype=torch.bool), nn.Identity())
    with pytest.raises(ValueError, match="number is 2; accepted: 0 to 1"):
        shadows.model(2)

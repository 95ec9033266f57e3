"""Federated averaging against torch's SGD, against plain gradient descent, and on digits."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from spai_lab.defenses.poisoning.aggregation import coordinate_median
from spai_lab.models import build
from spai_lab.training import Diverged, accuracy
from spai_lab.training.federated import federated_averaging, participant, split_by_class, split_evenly, vector_of


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def toy(count: int = 12):
    x = torch.rand(count, 1, 2, 2, generator=seeded())
    return x, torch.arange(count) % 3


def small_model():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=seeded(1)))
    return model


def always(update):
    return lambda model, round: update


def descended(model, x, y, learning_rate):
    """The weights after one step of torch's SGD on all data."""
    weights = {name: value.detach().clone().requires_grad_() for name, value in model.named_parameters()}
    optimizer = torch.optim.SGD(weights.values(), lr=learning_rate)
    F.cross_entropy(torch.func.functional_call(model, weights, x), y).backward()
    optimizer.step()
    return torch.cat([value.detach().flatten() for value in weights.values()])


# --- closed forms -----------------------------------------------------------------------------------------------------


def test_one_participant_with_one_batch_takes_the_step_of_torch_sgd():
    x, y = toy()
    update = participant(x, y, epochs=1, batch_size=12, learning_rate=0.3)(small_model(), 0)
    assert torch.allclose(vector_of(small_model()) + update, descended(small_model(), x, y, 0.3), atol=1e-6)


def test_one_step_each_weighted_by_size_is_one_step_on_all_data():
    """FedSGD: the mean of the shards' gradients is the gradient of the whole, though the shards differ in size."""
    x, y = toy()
    shards = [(x[:2], y[:2]), (x[2:5], y[2:5]), (x[5:], y[5:])]
    parties = [participant(*shard, epochs=1, batch_size=12, learning_rate=0.3) for shard in shards]
    expected = descended(small_model(), x, y, 0.3)
    settings = {"rounds": 1, "progress": False}
    weighted = federated_averaging(small_model(), parties, weights=[2, 3, 7], **settings)[0]
    unweighted = federated_averaging(small_model(), parties, **settings)[0]
    assert torch.allclose(vector_of(weighted), expected, atol=1e-6)
    assert not torch.allclose(vector_of(unweighted), expected, atol=1e-3)


def test_the_server_scales_and_aggregates_as_asked():
    model, ones = small_model(), torch.ones(15)
    parties = [always(ones), always(2 * ones), always(600 * ones)]
    settings = {"rounds": 2, "server_rate": 0.5, "progress": False}
    mean = federated_averaging(model, parties, **settings)[0]
    median, history = federated_averaging(model, parties, aggregate=coordinate_median, **settings)
    assert torch.allclose(vector_of(mean) - vector_of(model), 201 * ones, atol=1e-3)
    assert torch.allclose(vector_of(median) - vector_of(model), 2 * ones, atol=1e-5)
    assert torch.allclose(history.norms, 15**0.5 * torch.tensor([[1.0, 2.0, 600.0]]).expand(2, 3))


def test_a_participant_gets_the_servers_model_and_the_round():
    seen = []

    def watching(model, round):
        seen.append((round, model[1].bias[0].item()))
        return torch.ones(15)

    start = small_model()[1].bias[0].item()
    federated_averaging(small_model(), [watching], rounds=3, progress=False)
    assert seen == [(i, pytest.approx(start + i)) for i in range(3)]


def test_each_round_is_observed_and_the_first_model_too():
    found = federated_averaging(
        small_model(), [always(torch.ones(15))], rounds=2, observe=lambda model: model.training, progress=False
    )[1]
    assert found.observed == (False, False, False)


# --- nothing else changes ---------------------------------------------------------------------------------------------


def test_the_model_its_mode_the_data_and_the_global_state_stay():
    (x, y), model = toy(), small_model().train()
    before, state = vector_of(model), torch.get_rng_state()
    federated_averaging(model, [participant(x, y), participant(x, y)], rounds=2, progress=False)
    assert torch.equal(before, vector_of(model)) and model.training and model[1].weight.grad is None
    assert torch.equal(x, toy()[0]) and torch.equal(state, torch.get_rng_state())


def test_the_same_seeds_give_the_same_model_and_others_another():
    x, y = toy()
    run = lambda seed: federated_averaging(  # noqa: E731
        small_model(), [participant(x, y, generator=seeded(seed))], rounds=2, progress=False
    )[0]
    assert torch.equal(vector_of(run(3)), vector_of(run(3))) and not torch.equal(vector_of(run(3)), vector_of(run(4)))


# --- shards -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", [split_evenly, split_by_class])
def test_every_input_is_in_one_shard_with_its_label(digits, split):
    x = torch.arange(len(digits.y_train)).view(-1, 1, 1, 1) / len(digits.y_train)
    shards = split(x, digits.y_train, 10, generator=seeded())
    places = torch.cat([(inputs.flatten() * len(x)).round().long() for inputs, _ in shards])
    assert torch.equal(places.sort()[0], torch.arange(len(x)))
    assert torch.equal(torch.cat([labels for _, labels in shards]), digits.y_train[places])


def test_a_split_by_class_gives_each_few_classes_and_an_even_one_all(digits):
    few = split_by_class(digits.x_train, digits.y_train, 10, generator=seeded())
    all_of_them = split_evenly(digits.x_train, digits.y_train, 10, generator=seeded())
    assert max(len(y.unique()) for _, y in few) <= 4 and min(len(y.unique()) for _, y in all_of_them) >= 9


# --- digits -----------------------------------------------------------------------------------------------------------


def test_ten_participants_learn_digits_together(digits):
    shards = split_evenly(digits.x_train, digits.y_train, 10, generator=seeded())
    parties = [participant(*shard, epochs=1, generator=seeded(i)) for i, shard in enumerate(shards)]
    first = build("softmax", generator=seeded())
    observe = partial(accuracy, x=digits.x_test, y=digits.y_test)
    observed = federated_averaging(first, parties, rounds=8, observe=observe, progress=False)[1].observed
    assert observed[0] < 0.3 and observed[-1] > 0.85


# --- bad input --------------------------------------------------------------------------------------------------------

X, Y = toy()
AVERAGE = {
    "no model": ({"model": None}, "model is None"),
    "no participants": ({"participants": []}, "participants is []"),
    "no function": ({"participants": [3]}, "participants is 3"),
    "no rounds": ({"rounds": 0}, "rounds is 0"),
    "no rate": ({"server_rate": 0}, "server_rate is 0"),
    "too few weights": ({"weights": [1.0, 2.0]}, "weights is"),
    "negative weight": ({"weights": [-1.0]}, "weights is -1.0"),
    "weights of a median": ({"weights": [1.0], "aggregate": coordinate_median}, "weights go with the mean"),
    "short update": ({"participants": [always(torch.ones(3))]}, "participant 0 sends"),
    "nan": ({"participants": [always(torch.ones(15) * torch.nan)]}, "participant 0 sends NaN"),
    "observe": ({"observe": 1}, "observe is 1"),
}
PARTICIPANT = {
    "nothing": ({"x": X[:0], "y": Y[:0]}, "x is empty"),
    "no epochs": ({"epochs": 0}, "epochs is 0"),
    "no batch": ({"batch_size": 0}, "batch_size is 0"),
    "no rate": ({"learning_rate": 0.0}, "learning_rate is 0.0"),
    "pixels": ({"x": 255 * X}, "x has values"),
}


@pytest.mark.parametrize(("change", "words"), AVERAGE.values(), ids=AVERAGE)
def test_federated_averaging_refuses(refuses, change, words):
    good = {"model": small_model(), "participants": [always(torch.ones(15))], "rounds": 1, "progress": False}
    refuses(federated_averaging, good | change, words)


@pytest.mark.parametrize(("change", "words"), PARTICIPANT.values(), ids=PARTICIPANT)
def test_participant_refuses(refuses, change, words):
    refuses(participant, {"x": X, "y": Y} | change, words)


@pytest.mark.parametrize("split", [split_evenly, split_by_class])
def test_splits_refuse_more_shards_than_inputs(refuses, split):
    refuses(split, {"x": X, "y": Y, "count": 13}, "count is 13")


def test_a_participant_that_diverges_says_so():
    with pytest.raises(Diverged, match="learning_rate"):
        participant(X, Y, epochs=5, learning_rate=1e38)(small_model(), 0)

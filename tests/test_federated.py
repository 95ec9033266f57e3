"""Federated averaging against its algorithm, torch's SGD and gradient descent; who takes part, and who sees what."""

import copy
import math
import os
import threading
import time
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from spai_lab.crypto.frames import pack
from spai_lab.defenses.poisoning.aggregation import coordinate_median
from spai_lab.models import build
from spai_lab.training import Diverged, accuracy, federated
from spai_lab.training.federated import federated_averaging, participant, split_by_class, split_evenly, vector_of
from spai_lab.training.parties import sampled


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


def algorithm_1(model, participants, rounds, n):
    """McMahan's algorithm 1 as it is written: no channels, no threads."""
    model, w = copy.deepcopy(model).eval(), vector_of(model)
    for t in range(rounds):
        torch.nn.utils.vector_to_parameters(w.clone(), model.parameters())
        updates = torch.stack([send(model, t) for send in participants])
        w = w + (torch.tensor(n, dtype=torch.float64) / sum(n)).float() @ updates
    return w


def test_through_channels_it_is_algorithm_1_bit_by_bit():
    """The participants share a generator: they must draw in order."""
    x, y = toy(40)
    shards, model = (
        [(x[:8], y[:8]), (x[8:20], y[8:20]), (x[20:], y[20:])],
        build("mlp", (1, 2, 2), 3, generator=seeded()),
    )
    make = lambda shared: [participant(*shard, epochs=2, batch_size=5, generator=shared) for shard in shards]  # noqa: E731
    expected = algorithm_1(model, make(seeded(4)), 5, [8, 12, 20])
    final = federated_averaging(model, make(seeded(4)), rounds=5, weights=[8, 12, 20], progress=False)[0]
    assert torch.equal(vector_of(final), expected) and not torch.equal(expected, vector_of(model))


def test_equal_shards_of_a_linear_model_take_the_step_of_softmax_regression():
    r"""$W - \frac{\alpha}{N} (p - e_y)^T x$, in double precision with NumPy."""
    (x, y), model = toy(), small_model()
    parties = [participant(x[i : i + 4], y[i : i + 4], epochs=1, learning_rate=0.3) for i in (0, 4, 8)]
    final = federated_averaging(model, parties, rounds=1, progress=False)[0]
    inputs, weight, bias = (value.detach().double().numpy() for value in (x.flatten(1), *model.parameters()))
    scores = np.exp(inputs @ weight.T + bias)
    error = scores / scores.sum(1, keepdims=True) - np.eye(3)[y.numpy()]
    assert np.abs(final[1].weight.detach().numpy() - (weight - 0.3 * error.T @ inputs / 12)).max() < 1e-6
    assert np.abs(final[1].bias.detach().numpy() - (bias - 0.3 * error.mean(0))).max() < 1e-6


# --- who takes part ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "size"), [(0.01, 1), (0.3, 3), (0.31, 4), (0.7, 7), (0.95, 10), (1.0, 10)])
def test_a_round_asks_the_share_rounded_up_of_different_participants(share, size):
    assert size == math.ceil(round(10 * share, 9))
    seen = [0] * 10

    def count(i, model, round):
        seen[i] += 1
        return torch.ones(15)

    settings = {"rounds": 4, "sample": share, "generator": seeded(), "progress": False}
    history = federated_averaging(small_model(), [partial(count, i) for i in range(10)], **settings)[1]
    assert history.asked.sum(1).tolist() == [size] * 4 and torch.equal(history.asked, history.took_part)
    assert history.asked.sum(0).tolist() == seen and history.absences == ()
    assert torch.equal(history.norms.isnan(), ~history.asked)
    assert torch.equal(history.bytes_down > 0, history.asked) and torch.equal(history.bytes_up > 0, history.asked)


def test_a_share_that_is_a_little_above_a_whole_number_only_by_rounding_is_that_number():
    assert 100 * 0.07 > 7 and len(sampled(100, 0.07, seeded())) == 7


def test_everyone_is_asked_equally_often():
    """4000 draws of 2 in 5: each count is binomial, its deviation 31; beyond 5.2 deviations lie 1e-6 of all runs."""
    generator = seeded()
    counts = torch.bincount(torch.tensor([sampled(5, 0.4, generator) for _ in range(4000)]).flatten())
    assert (counts - 1600).abs().max() < 5.2 * (4000 * 0.4 * 0.6) ** 0.5


def test_the_average_is_of_those_who_answered_with_their_weights_renormalized():
    parties, n = [always((i + 1) * torch.ones(15)) for i in range(6)], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    settings = {"rounds": 30, "sample": 0.6, "dropout": 0.5, "generator": seeded(3), "progress": False}
    final, history = federated_averaging(small_model(), parties, weights=n, **settings)
    present = history.took_part.double() * torch.tensor(n)
    expected = (present @ torch.arange(1.0, 7.0).double() / present.sum(1)).nan_to_num(0)  # none came: the model stays
    assert torch.allclose(
        vector_of(final) - vector_of(small_model()), torch.full((15,), expected.sum()).float(), rtol=1e-5
    )
    answered = history.took_part.sum().item()
    assert abs(answered - 60) < 5 * (120 * 0.25) ** 0.5 and len(history.absences) == 120 - answered
    assert (history.took_part <= history.asked).all() and (history.took_part.sum(1) == 0).any()
    unweighted = federated_averaging(small_model(), parties, **settings)[0]
    assert not torch.allclose(vector_of(unweighted), vector_of(final))


def test_who_returns_nothing_or_loses_the_connection_is_left_out_of_that_round():
    def silent(model, round):
        return None if round == 0 else 4 * torch.ones(15)

    def broken(model, round):
        if round == 1:
            raise ConnectionError("battery empty")
        return 7 * torch.ones(15)

    final, history = federated_averaging(
        small_model(), [always(torch.ones(15)), silent, broken], rounds=3, progress=False
    )
    assert history.absences == ((0, 1, "dropped out"), (1, 2, "ConnectionError: battery empty"))
    steps = (1 + 7) / 2 + (1 + 4) / 2 + (1 + 4 + 7) / 3
    assert torch.allclose(vector_of(final) - vector_of(small_model()), torch.full((15,), steps), atol=1e-5)


def test_nobody_answers_and_the_model_stays():
    final, history = federated_averaging(small_model(), [always(None)], rounds=2, progress=False)
    weightless = federated_averaging(
        small_model(), [always(torch.ones(15)), always(None)], weights=[0, 1], rounds=1, progress=False
    )[0]
    assert torch.equal(vector_of(final), vector_of(small_model())) and not history.took_part.any()
    assert torch.equal(vector_of(weightless), vector_of(small_model()))


def test_an_update_after_the_deadline_is_seen_but_not_averaged():
    calls, go = [], threading.Event()

    def straggler(model, round):
        assert go.wait(30)
        return 100 * torch.ones(15)

    def observe(model):
        calls.append(vector_of(model)[0].item())
        if len(calls) > 2:
            go.set()
            time.sleep(0.2)
        return calls[-1]

    settings = {"rounds": 6, "deadline": 1.0, "observe": observe, "view": True, "progress": False}
    history = federated_averaging(small_model(), [always(torch.ones(15)), straggler], **settings)[1]
    assert history.took_part[:, 0].all() and history.took_part[:2, 1].tolist() == [False, False]
    assert history.absences[:2] == ((0, 1, "no answer within 1.0 s"), (1, 1, "still busy with an earlier round"))
    assert history.observed[2] == pytest.approx(history.observed[0] + 2) and history.took_part[-1, 1]
    assert 1 in history.server_view[0] and 1 not in history.server_view[1]


def test_an_aggregate_gets_the_updates_of_those_who_answered():
    shapes = []

    def aggregate(updates):
        shapes.append(tuple(updates.shape))
        return coordinate_median(updates)

    parties = [always(torch.ones(15)), always(None), always(3 * torch.ones(15)), always(5 * torch.ones(15))]
    final = federated_averaging(small_model(), parties, rounds=1, aggregate=aggregate, progress=False)[0]
    assert shapes == [(3, 15)]
    assert torch.allclose(vector_of(final) - vector_of(small_model()), 3 * torch.ones(15), atol=1e-6)


def test_a_mistake_in_a_participant_is_raised_at_once():
    rounds = []

    def mistaken(model, round):
        rounds.append(round)
        raise KeyError("planted")

    with pytest.raises(KeyError, match="planted") as caught:
        federated_averaging(small_model(), [always(torch.ones(15)), mistaken], rounds=9, progress=False)
    assert caught.value.__notes__ == ["raised by participant 1"] and rounds == [0]
    with pytest.raises(ZeroDivisionError):
        federated_averaging(small_model(), [always(torch.ones(15))], rounds=1, observe=lambda model: 1 / 0)


# --- what travels, and who sees it ------------------------------------------------------------------------------------


def test_bytes_are_those_of_the_frames_and_the_views_are_what_they_carried():
    x, y = toy()
    updates = [torch.ones(15), participant(x, y, generator=seeded())(small_model(), 0)]
    parties, thetas = [always(updates[0]), always(updates[1]), always(None)], []
    observe = lambda model: thetas.append(vector_of(model))  # noqa: E731
    settings = {"rounds": 2, "observe": observe, "view": True, "progress": False}
    history = federated_averaging(small_model(), parties, **settings)[1]
    for t in range(2):
        assert history.bytes_down[t].tolist() == [len(pack("model", t, thetas[t]))] * 3 == [27 + 4 * 15] * 3
        absent = len(pack("absent", t, "dropped out"))
        assert history.bytes_up[t].tolist() == [len(pack("update", t, update)) for update in updates] + [absent]
        assert history.server_view[t].keys() == {0, 1}
        assert all(torch.equal(seen, updates[i]) for i, seen in history.server_view[t].items())
        assert all(torch.equal(view[t], thetas[t]) for view in history.client_views)
    assert history.unseen == 0 and [view.keys() for view in history.client_views] == [{0, 1}] * 3


def test_views_are_kept_on_request_and_bounded(monkeypatch):
    settings = {"rounds": 5, "progress": False}
    plain = federated_averaging(small_model(), [always(torch.ones(15))], **settings)[1]
    assert plain.server_view is None and plain.client_views is None
    monkeypatch.setattr(federated, "VIEW_BYTES", 2 * 200)  # two messages each way
    history = federated_averaging(small_model(), [always(torch.ones(15))], view=True, **settings)[1]
    assert [len(seen) for seen in history.server_view] == [1, 1, 0, 0, 0] and history.client_views[0].keys() == {0, 1}
    assert history.unseen == 3 + 3 + 1  # the last is the farewell


def learner(i):
    """A participant, built where it trains."""
    x, y = toy()
    return participant(x[4 * i : 4 * i + 4], y[4 * i : 4 * i + 4], batch_size=3, generator=seeded(i))


def process(model, round):
    """Its own process, as an update."""
    return torch.full((15,), float(os.getpid()))


def mortal(model, round):
    """Dies in its second round."""
    return torch.ones(15) if round == 0 else os._exit(3)


def test_processes_learn_what_threads_learn():
    settings = {"rounds": 3, "weights": [1, 2], "sample": 0.5, "view": True, "progress": False}
    (here, inside), (there, outside) = (
        federated_averaging(small_model(), parties, generator=seeded(5), transport=transport, **settings)
        for parties, transport in (
            ([learner(0), learner(1)], "threads"),
            ([partial(learner, 0), partial(learner, 1)], "processes"),
        )
    )
    assert torch.equal(vector_of(here), vector_of(there)) and torch.equal(inside.asked, outside.asked)
    assert torch.equal(inside.bytes_up, outside.bytes_up) and torch.equal(inside.bytes_down, outside.bytes_down)
    for one, other in zip(inside.client_views, outside.client_views, strict=True):
        assert one.keys() == other.keys() and all(torch.equal(one[t], other[t]) for t in one)


@pytest.mark.full
def test_a_process_that_dies_is_left_out_and_the_others_go_on():
    parties = [partial(partial, process), partial(partial, mortal)]
    settings = {"rounds": 3, "transport": "processes", "view": True, "progress": False}
    history = federated_averaging(small_model(), parties, **settings)[1]
    assert history.took_part.tolist() == [[True, True], [True, False], [True, False]]
    assert history.absences == ((1, 1, "has left"), (2, 1, "has left")) and history.client_views[1] is None
    assert history.server_view[0][0][0] != os.getpid() and len(history.client_views[0]) == 3


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
    "no update": ({"participants": [always([1.0])]}, "participant 0 sends [1.0]"),
    "nobody is asked": ({"sample": 0.0}, "sample is 0.0"),
    "more than all": ({"sample": 1.1}, "sample is 1.1"),
    "no probability": ({"dropout": -0.1}, "dropout is -0.1"),
    "no time": ({"deadline": 0}, "deadline is 0"),
    "no generator": ({"generator": 3}, "generator is 3"),
    "view": ({"view": 1}, "view is 1"),
    "transport": ({"transport": "mail"}, "transport is 'mail'"),
    "not for pickle": ({"transport": "processes"}, "participant 0 is"),
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


@pytest.mark.parametrize("wrong", [lambda u: u[0] * float("nan"), lambda u: u, lambda u: None])
def test_an_aggregate_that_is_no_update_is_named(wrong):
    model = nn.Linear(2, 1, bias=False)
    with pytest.raises(ValueError, match=r"aggregate returns .*; accepted: finite, \(2,\)"):
        federated_averaging(model, [lambda m, t: torch.ones(2)] * 2, rounds=1, aggregate=wrong, progress=False)

"""Federated averaging through secure aggregation: the plain average of those who stay, to the last agreed place."""

from functools import partial
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import nn

from spai_lab.crypto.secure_aggregation import Terms
from spai_lab.crypto.secure_aggregation_messages import aggregation_cost
from spai_lab.crypto.secure_aggregation_parties import INPUT, STEPS
from spai_lab.crypto.secure_aggregation_rollcall import TooFewClients
from spai_lab.training.federated import federated_averaging, participant, split_evenly, vector_of
from spai_lab.training.secure_federated import secure_federated_average, secure_federated_round

EXAMPLES = [3, 1, 40, 7, 600]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def updates(dtype=torch.float64, size=30):
    return [torch.randn(size, generator=seeded(i), dtype=dtype) for i in range(5)]


def plain(sent, examples, staying):
    """By NumPy: the mean of those who stay, weighted by their examples."""
    return np.average([sent[i].double().numpy() for i in staying], axis=0, weights=[examples[i] for i in staying])


def bound(places, examples, staying):
    """Half a unit of each client's last place, and rounding of float64."""
    return 2.0 ** -(places + 1) * len(staying) / sum(examples[i] for i in staying) + 1e-15


@pytest.mark.parametrize("places", [8, 24, 40])
@pytest.mark.parametrize("step", STEPS)
def test_the_average_is_that_of_the_survivors(step, places):
    sent = updates()
    for gone in [*combinations(range(5), 1), (1, 4)]:
        average = secure_federated_average(sent, EXAMPLES, places=places, dropouts=dict.fromkeys(gone, step))
        staying = [i for i in range(5) if i not in gone or step == "unmasking"]
        assert average.aggregate.included == tuple(staying)
        assert average.examples == sum(EXAMPLES[i] for i in staying)
        error = np.abs(average.update.numpy() - plain(sent, EXAMPLES, staying)).max()
        assert error <= bound(places, EXAMPLES, staying) <= 2.0 ** -(places + 1) + 1e-15


def test_too_few_who_stay_give_no_average():
    with pytest.raises(TooFewClients):
        secure_federated_average(updates(), EXAMPLES, dropouts=dict.fromkeys((0, 1, 2), "shares"))
    with pytest.raises(TooFewClients):
        secure_federated_average(updates(), EXAMPLES, threshold=5, dropouts={2: "keys"})


def test_lists_of_tensors_come_back_as_such():
    models = [nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1)) for _ in range(3)]
    sent = [[p.detach() for p in model.parameters()] for model in models]
    average = secure_federated_average(sent, [1, 2, 3])
    for k, mean in enumerate(average.update):
        true = sum((i + 1) * sent[i][k].double() for i in range(3)) / 6
        assert mean.shape == sent[0][k].shape and mean.dtype == torch.float32
        assert (mean.double() - true).abs().max() <= 2**-25 + 2**-24 * true.abs().max()


@pytest.mark.parametrize("gone", [{}, {1: "masked input"}, {3: "keys", 0: "unmasking"}])
def test_a_round_is_the_round_in_the_clear(gone):
    """Participants draw from equal generators; float32 models differ by rounding and the last place alone."""
    model = small()
    shards = split_evenly(torch.rand(50, 1, 2, 2, generator=seeded()), torch.arange(50) % 3, 5, generator=seeded())
    sizes = [len(y) for _, y in shards]

    def participants(out=()):
        trained = [participant(x, y, epochs=1, generator=seeded(i)) for i, (x, y) in enumerate(shards)]
        return [(lambda model, round: None) if i in out else send for i, send in enumerate(trained)]

    out = {i for i, step in gone.items() if step != "unmasking"}
    clear, _ = federated_averaging(model, participants(out), rounds=1, weights=sizes, progress=False)
    moved, average = secure_federated_round(model, participants(), sizes, dropouts=gone)
    assert average.examples == sum(size for i, size in enumerate(sizes) if i not in out)
    difference = (vector_of(moved) - vector_of(clear)).abs().max()
    assert difference <= 2**-25 + 4 * 2**-24 * vector_of(clear).abs().max()
    assert not moved.training and (vector_of(model) != vector_of(moved)).any()


def small():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=seeded(1)))
    return model


def test_bytes_are_as_foretold_and_the_server_sees_no_update():
    sent = [torch.full((100,), float(i + 1)) for i in range(5)]
    average = secure_federated_average(sent, EXAMPLES, view=10**6)
    up, down = aggregation_cost(Terms(5, 3, 101))
    assert average.aggregate.bytes_up == (up,) * 5 and average.aggregate.bytes_down == (down,) * 5
    for view in average.aggregate.views:
        (y,) = [values[1] for kind, values in view if kind == INPUT]
        assert len({*y[:100].tolist()}) == 100  # an update that is the same everywhere; 100 words repeat once in 2^51


def test_an_agreed_bound_holds_for_updates_and_counts(refuses):
    sent = [torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([-3.0])]
    average = secure_federated_average(sent, [2, 2, 2], largest=7.0)
    assert average.update.item() == 0
    arguments = {"updates": sent, "examples": [2, 2, 3], "largest": 7.0}
    refuses(secure_federated_average, arguments, "updates has an entry that times its 3 examples is 9")
    refuses(secure_federated_average, arguments | {"largest": 0.0}, "largest is 0.0")


def test_a_large_update_does_not_wrap_around(refuses):
    sent = [torch.tensor([2.0**36 - 2**13]), torch.tensor([-(2.0**36)]), torch.tensor([1.0])]
    for count, entry in ((8, "5.49756e+11"), (4, "2.74878e+11")):
        arguments = {"updates": sent, "examples": [count, 1, 1]}
        refuses(secure_federated_average, arguments, f"times its {count} examples is {entry}", "up to 1.83252e+11")
    average = secure_federated_average([each.double() for each in sent], [2, 1, 1])
    assert average.update.item() == (2 * (2**36 - 2**13) - 2**36 + 1) / 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"updates": torch.zeros(3)}, ("updates is", "a list of at least 2")),
        ({"updates": [torch.zeros(3)]}, ("updates is", "a list of at least 2")),
        ({"updates": [torch.zeros(3), torch.zeros(4)]}, ("updates holds", "(4,)", "the shapes of the first")),
        ({"updates": [torch.zeros(0)] * 2}, ("updates holds", "not empty")),
        ({"updates": [torch.zeros(3).int()] * 2}, ("updates holds", "floating point")),
        ({"updates": [[torch.zeros(3)], ["a"]]}, ("updates holds", "floating point")),
        ({"updates": [torch.tensor([float("nan")])] * 2}, ("updates has an entry that", "nan")),
        (
            {"updates": [torch.tensor([1e308], dtype=torch.float64)] * 2, "examples": [100] * 2},
            ("updates has an entry that", "inf"),
        ),
        ({"examples": [1]}, ("examples is [1]", "2 numbers")),
        ({"examples": [1, 0]}, ("examples is 0",)),
        ({"examples": [1, 0.5]}, ("examples is 0.5",)),
        ({"examples": [1, 2**64]}, ("examples has 18446744073709551616",)),
        ({"threshold": 1}, ("threshold is 1",)),
        ({"places": 64}, ("places is 64",)),
        ({"round": -1}, ("round is -1",)),
        ({"dropouts": {0: "never"}}, ("dropouts is 'never'",)),
        ({"deadline": 0}, ("deadline is 0",)),
    ],
)
def test_bad_arguments_are_named(refuses, change, words):
    refuses(secure_federated_average, {"updates": [torch.zeros(3)] * 2, "examples": [1, 1]} | change, *words)


def test_bad_rounds_are_named(refuses):
    send = lambda model, round: torch.zeros(15)  # noqa: E731
    good = {"model": small(), "participants": [send, send], "examples": [1, 1]}
    refuses(secure_federated_round, good | {"model": 3}, "model is 3")
    refuses(secure_federated_round, good | {"participants": 3}, "participants is 3")
    refuses(secure_federated_round, good | {"participants": [send, 3]}, "participants is 3")
    other = partial(lambda size, model, round: torch.zeros(size), 4)
    refuses(secure_federated_round, good | {"participants": [other, other]}, "participants send", "(15,)")

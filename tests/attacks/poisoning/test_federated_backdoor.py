"""Model replacement against its algebra, and on digits: what one round does, and what robust aggregates leave of it."""

from functools import partial

import pytest
import torch
from torch import nn

from spai_lab.attacks.poisoning.federated_backdoor import federated_backdoor, one_round_attacker, stamped
from spai_lab.attacks.poisoning.poisoned import Trigger, backdoor_rate, one_target
from spai_lab.defenses.poisoning.aggregation import coordinate_median, krum, multi_krum, trimmed_mean
from spai_lab.training import accuracy, reference
from spai_lab.training.federated import federated_averaging, participant, split_evenly, vector_of

WANTED = one_target(0, 10)
AGGREGATES = {
    "krum": partial(krum, byzantine=1),
    "multi_krum": partial(multi_krum, byzantine=1),
    "median": coordinate_median,
    "trimmed": trimmed_mean,
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def square() -> Trigger:
    mask = torch.zeros(1, 28, 28)
    mask[:, 24:27, 24:27] = 1
    return Trigger(torch.ones(1, 28, 28), mask)


@pytest.fixture(scope="module")
def shards(digits):
    return split_evenly(digits.x_train, digits.y_train, 10, generator=seeded())


@pytest.fixture(scope="module")
def attack(shards):
    """`attack(model, round, **changes)`: what the participant with the first shard sends."""
    x, y = shards[0]
    x_backdoor, y_backdoor = stamped(x, y, square(), WANTED)

    def send(model, round=0, **changes):
        settings = {"x_backdoor": x_backdoor, "y_backdoor": y_backdoor, "scale": 10.0, "generator": seeded(5)}
        return federated_backdoor(model, x, y, **(settings | changes))

    return send


def after(digits, shards, attack, aggregate, rounds=1):
    """Backdoor success and accuracy after each round; the attacker is honest again after the first."""
    honest = [participant(x, y, epochs=1, generator=seeded(i)) for i, (x, y) in enumerate(shards)]
    parties = [one_round_attacker(honest[0], attack, (0,)), *honest[1:]]

    def observe(model):
        x, y = digits.x_test, digits.y_test
        return backdoor_rate(model, x, y, square(), WANTED).value, accuracy(model, x, y)

    model = reference("mlp", "digits")
    settings = {"rounds": rounds, "aggregate": aggregate, "observe": observe, "progress": False}
    return federated_averaging(model, parties, **settings)[1].observed


# --- algebra ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "rate"), [(10, 1.0), (4, 0.5)])
def test_if_the_others_send_nothing_the_server_gets_the_attackers_model(attack, n, rate):
    """With gamma = n / eta the mean is X itself; with half of it, half way."""
    model = reference("mlp", "digits")
    target = vector_of(model) + attack(model, scale=1.0)
    silent = [lambda model, round: torch.zeros_like(vector_of(model))] * (n - 1)
    for share, expected in ((1.0, target), (0.5, (vector_of(model) + target) / 2)):
        send = partial(attack, scale=share * n / rate)
        settings = {"rounds": 1, "server_rate": rate, "progress": False}
        assert torch.allclose(
            vector_of(federated_averaging(model, [send, *silent], **settings)[0]), expected, atol=1e-5
        )


def test_the_attackers_own_model_has_the_backdoor_and_reads_the_rest(digits, attack):
    model = reference("mlp", "digits")
    theta = vector_of(model) + attack(model, scale=1.0)
    torch.nn.utils.vector_to_parameters(theta, model.parameters())
    assert backdoor_rate(model, digits.x_test, digits.y_test, square(), WANTED).value > 0.95
    assert accuracy(model, digits.x_test, digits.y_test) > 0.85


def test_the_constraint_makes_the_update_short(attack):
    model = reference("mlp", "digits")
    norms = [attack(model, alpha=alpha).norm() for alpha in (1.0, 0.5, 0.2)]
    assert norms[0] > norms[1] > norms[2] > 0


def test_only_classes_that_shall_move_are_stamped(digits):
    x, y = digits.x_train[:50], digits.y_train[:50]
    x_backdoor, y_backdoor = stamped(x, y, square(), WANTED)
    assert len(x_backdoor) == int((y != 0).sum()) and (y_backdoor == 0).all()
    assert (x_backdoor[:, :, 24:27, 24:27] == 1).all() and torch.equal(x_backdoor[:, :, :24], x[y != 0][:, :, :24])


def test_nothing_else_changes_and_the_same_seed_sends_the_same(attack):
    model, state = reference("mlp", "digits"), torch.get_rng_state()
    before = vector_of(model)
    first, second = attack(model), attack(model)
    assert torch.equal(first, second) and torch.equal(before, vector_of(model)) and not model.training
    assert torch.equal(state, torch.get_rng_state())


# --- digits -----------------------------------------------------------------------------------------------------------


def test_one_round_puts_the_backdoor_in_and_honest_rounds_wear_it_off(digits, shards, attack):
    (before, clean), (planted, _), *_, (later, recovered) = after(digits, shards, attack, None, rounds=4)
    assert before < 0.05 and planted > 0.8 and later < planted - 0.2 and recovered > clean - 0.05


@pytest.mark.parametrize("aggregate", AGGREGATES.values(), ids=AGGREGATES)
def test_a_robust_aggregate_keeps_it_out(digits, shards, attack, aggregate):
    (_, clean), (planted, left) = after(digits, shards, attack, aggregate)
    assert planted < 0.05 and left > clean - 0.05


def test_without_the_scale_one_participant_does_nothing(digits, shards, attack):
    assert after(digits, shards, partial(attack, scale=1.0), None)[1][0] < 0.1


# --- bad input --------------------------------------------------------------------------------------------------------

X, Y = torch.rand(4, 1, 2, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 0, 1])
GOOD = {"x": X, "y": Y, "x_backdoor": X[:1], "y_backdoor": Y[:1], "scale": 10.0}
REFUSED = {
    "no scale": ({"scale": 0.0}, "scale is 0.0"),
    "no loss": ({"alpha": 0.0}, "alpha is 0.0"),
    "alpha above 1": ({"alpha": 1.5}, "alpha is 1.5"),
    "no backdoor": ({"x_backdoor": X[:0], "y_backdoor": Y[:0]}, "x_backdoor is"),
    "backdoor of another shape": ({"x_backdoor": X[:1, :, :1]}, "x_backdoor is"),
    "label that the model lacks": ({"y_backdoor": torch.tensor([2])}, "2"),
    "no room for clean inputs": ({"batch_size": 20}, "batch_size is 20"),
    "no poisons": ({"poisons": 0}, "poisons is 0"),
    "no epochs": ({"epochs": 0}, "epochs is 0"),
    "no rate": ({"learning_rate": 0}, "learning_rate is 0"),
    "pixels": ({"x_backdoor": 255 * X[:1]}, "x_backdoor has values"),
}


@pytest.mark.parametrize(("change", "words"), REFUSED.values(), ids=REFUSED)
def test_refuses(refuses, change, words):
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    refuses(federated_backdoor, GOOD | {"model": model} | change, words)

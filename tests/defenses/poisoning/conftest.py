"""Victims with a backdoor, which the tests of the defenses share."""

from typing import NamedTuple

import pytest
import torch
from torch import nn

from spai_lab.attacks.poisoning.backdoors import badnets
from spai_lab.attacks.poisoning.poisoned import Poisoned
from spai_lab.training import Recipe, Shift, train

RECIPE = Recipe("lenet", epochs=8, batch_size=32, learning_rate=3e-3, perturb=Shift(1))


class Victim(NamedTuple):
    """A model and what it was trained on."""

    model: nn.Module
    poisoned: Poisoned


@pytest.fixture(scope="session")
def badnet(digits) -> Victim:
    """A LeNet that takes stamped digits for a 0."""
    poisoned = badnets(digits, fraction=0.05, generator=torch.Generator().manual_seed(1))
    model, _ = train(RECIPE, poisoned.within(digits), seed=5, progress=False)
    return Victim(model, poisoned)


@pytest.fixture(scope="session")
def other_badnets(badnet, digits) -> list:
    """Three more victims of the same poisons, trained from other seeds."""
    return [train(RECIPE, badnet.poisoned.within(digits), seed=seed, progress=False)[0] for seed in (6, 7, 8)]


@pytest.fixture
def unchanged():
    """`unchanged(model, call)`: the call changes neither weights, gradients, mode nor the global random state."""

    def check(model, call):
        model.train()
        model.zero_grad(set_to_none=True)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        state = torch.get_rng_state()
        result = call()
        assert model.training
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert all(parameter.grad is None for parameter in model.parameters())
        assert torch.equal(torch.get_rng_state(), state)
        model.eval()
        return result

    return check

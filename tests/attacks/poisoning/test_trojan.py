"""Trojan: the trigger drives a few neurons, only the layers behind it change, and the victim is left alone."""

import pytest
import torch
from torch import nn

from spai_lab.attacks.poisoning.backdoors import square_trigger
from spai_lab.attacks.poisoning.poisoned import Trigger, backdoor_rate, stamp
from spai_lab.attacks.poisoning.trojan import best_neurons, halves, total_variation, trojan
from spai_lab.models import mlp, softmax_regression
from spai_lab.training import accuracy, reference

MASK = square_trigger((1, 8, 8), size=3).mask


def victim() -> nn.Module:
    return mlp((1, 8, 8), 3, hidden=10, generator=torch.Generator().manual_seed(0)).eval()


def attacked(model=None, mask=MASK, **changes):
    arguments = {"target": 1, "images": 4, "steps": 30, "epochs": 5, "progress": False}
    generator = torch.Generator().manual_seed(0)
    return trojan(model or victim(), mask, **(arguments | {"generator": generator} | changes))


def test_only_the_layers_behind_the_neuron_change():
    model = victim()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    found = attacked(model).model
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    same = [torch.equal(value, state[name]) for name, value in found.state_dict().items()]
    assert same == [True, True, False, False, False, False]
    assert not found.training and all(p.requires_grad for p in found.parameters())


def test_trigger_is_the_best_of_a_linear_neuron():
    """Before the first ReLU a neuron is linear, so that the best pattern is white where its weight is positive."""
    model = victim()
    found = attacked(model, neurons=1, steps=100).trigger
    inside = MASK.bool()
    best = (model[2].weight.view(10, 1, 8, 8)[:, inside] > 0).float()
    assert (found.pattern[inside] == best).all(1).any()
    assert torch.equal(found.mask, MASK)
    x = torch.rand(5, 1, 8, 8)
    assert torch.equal(stamp(x, found)[:, ~inside], x[:, ~inside])


def test_neuron_is_one_that_the_mask_reaches_and_the_next_layer_reads():
    """The next layer reads the first of four pixels most, but the mask reaches only the second and the third."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.Linear(4, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.eye(4))
        model[2].weight.copy_(torch.tensor([[9.0, 0.1, 1.0, 0.1], [9.0, 0.1, 1.0, 0.1]]))
    mask = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    before, behind = halves(model)
    generator = torch.Generator().manual_seed(0)
    assert best_neurons(before, behind[0], torch.zeros(50, 1, 2, 2), mask, 1, generator).tolist() == [2]


def test_backdoor_works_without_training_data(digits):
    """Success and clean accuracy on test data; neither the clean model nor another pattern in the mask obeys."""
    model, mask = reference("lenet", "digits"), square_trigger(digits.shape, size=6).mask
    found = trojan(model, mask, target=0, generator=torch.Generator().manual_seed(0), progress=False)
    x, y = digits.x_test, digits.y_test
    random = Trigger(torch.rand(mask.shape, generator=torch.Generator().manual_seed(1)), mask)
    assert backdoor_rate(found.model, x, y, found.trigger, found.wanted).value > 0.9
    assert accuracy(found.model, x, y) > accuracy(model, x, y) - 0.03
    assert backdoor_rate(model, x, y, found.trigger, found.wanted).value < 0.1
    assert backdoor_rate(found.model, x, y, random, found.wanted).value < 0.5


def test_same_seed_same_result():
    first, second = attacked(), attacked()
    assert torch.equal(first.trigger.pattern, second.trigger.pattern)
    assert all(map(torch.equal, first.model.parameters(), second.model.parameters()))


def test_total_variation_of_a_step():
    x = torch.zeros(1, 1, 4, 4)
    x[..., 2:] = 1
    assert total_variation(x).tolist() == [4]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"mask": torch.zeros(1, 8, 8)}, "mask"),
        ({"model": softmax_regression((1, 8, 8), 3)}, "model"),
        ({"target": 3}, "label 3"),
        ({"images": 0}, "images"),
        ({"neurons": 11}, "neurons"),
        ({"epochs": 0}, "epochs"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"activation": 0}, "activation"),
        ({"steps": 0}, "steps"),
        ({"smoothness": -1}, "smoothness"),
    ],
    ids=list("abcdefghij"),
)
def test_refuses(refuses, changes, word):
    refuses(attacked, changes, word, "accepted")

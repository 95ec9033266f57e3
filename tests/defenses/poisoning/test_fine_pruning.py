"""Fine-pruning, on networks whose dormant channels are known, and on a backdoored one."""

import pytest
import torch
from torch import nn

from spai_lab.attacks.poisoning.poisoned import backdoor_rate
from spai_lab.defenses.poisoning.fine_pruning import (
    PruningCurve,
    fine_pruning,
    last_convolution,
    mean_activations,
    pruned,
    pruning_curve,
)
from spai_lab.training import accuracy


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def planted() -> nn.Module:
    """Channel 0 sees dark images, channel 1 bright ones, and channel 2 a white corner, which commands class 0."""
    conv, last = nn.Conv2d(1, 3, 2), nn.Linear(3, 2)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([-1.0, 1.0, 4.0]).view(3, 1, 1, 1).expand(3, 1, 2, 2))
        conv.bias.copy_(torch.tensor([2.0, -2.0, -15.5]))
        last.weight.copy_(torch.tensor([[1.0, 0.0, 90.0], [0.0, 1.0, 0.0]]))
        last.bias.zero_()
    return nn.Sequential(conv, nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), last)


@pytest.fixture
def images() -> tuple[torch.Tensor, torch.Tensor]:
    """Bright and dark images, none of them white."""
    y = torch.arange(40) % 2
    return (0.2 + 0.5 * y.view(-1, 1, 1, 1) + 0.2 * torch.rand(40, 1, 4, 4, generator=seeded())).clamp(0, 0.95), y


def test_activations_are_the_mean_after_the_relu(planted, images):
    x, _ = images
    by_hand = nn.functional.conv2d(x, planted[0].weight, planted[0].bias).clamp(min=0).mean((0, 2, 3))
    torch.testing.assert_close(mean_activations(planted, x), by_hand.detach())
    torch.testing.assert_close(mean_activations(planted, x, batch_size=7), by_hand.detach())


def test_the_backdoors_channel_is_pruned_first(planted, images):
    x, y = images
    bright = x[y == 1].clone()
    bright[..., :2, :2] = 1
    assert (planted(bright).argmax(1) == 0).all()
    curve = pruning_curve(planted, x, y)
    assert curve.order[0] == 2
    assert curve.accuracies[:2].tolist() == [1.0, 1.0]
    repaired = fine_pruning(planted, x, y, epochs=0, progress=False)
    assert (repaired(bright).argmax(1) == 1).all()
    assert accuracy(repaired, x, y) == 1.0


@pytest.mark.parametrize(
    ("accuracies", "max_drop", "count"),
    [
        ([0.9, 0.9, 0.87, 0.5], 0.04, 2),
        ([0.9, 0.8, 0.9, 0.9], 0.04, 0),
        ([0.9, 0.9, 0.9, 0.9], 0.0, 3),
        ([0.9, 0.86, 0.85, 0.85], 0.04, 1),
        ([0.9, 0.1, 0.1, 0.1], 1.0, 3),
    ],
    ids=["stops", "at-once", "never", "just", "all"],
)
def test_pruning_stops_before_the_accuracy_has_dropped_too_far(accuracies, max_drop, count):
    curve = PruningCurve(torch.arange(4), torch.zeros(4), torch.tensor(accuracies))
    assert curve.prunable(max_drop) == count


def test_pruned_channels_answer_zero_and_stay_so_under_fine_tuning(badnet, digits):
    model, _ = badnet
    x, y = digits.x_val, digits.y_val
    curve = pruning_curve(model, x, y)
    count = curve.prunable(0.04)
    assert 0 < count < 16
    repaired = fine_pruning(model, x, y, epochs=1, generator=seeded(), progress=False)
    gone = curve.order[:count]
    for name in ("weight", "bias"):
        assert (getattr(last_convolution(repaired), name)[gone] == 0).all()
        assert (getattr(last_convolution(repaired), name)[curve.order[count:]] != 0).any()
    assert repaired.state_dict().keys() == model.state_dict().keys()
    assert not torch.equal(repaired[-1].weight, model[-1].weight)


def test_the_curve_is_the_accuracy_of_the_pruned_model(badnet, digits):
    model, _ = badnet
    curve = pruning_curve(model, digits.x_val, digits.y_val)
    assert curve.activations.tolist() == sorted(curve.activations.tolist())
    for count in (0, 6, 15):
        hidden = model[:5](digits.x_val).detach()
        hidden[:, curve.order[:count]] = 0
        right = (model[5:](hidden).argmax(1) == digits.y_val).float().mean()
        assert curve.accuracies[count] == pytest.approx(right.item(), abs=1e-6)


def test_clean_accuracy_is_kept(badnet, digits):
    model, poisoned = badnet
    repaired = fine_pruning(model, digits.x_val, digits.y_val, generator=seeded(), progress=False)
    before, after = (accuracy(m, digits.x_test, digits.y_test) for m in (model, repaired))
    assert after > before - 0.04
    success = backdoor_rate(repaired, digits.x_test, digits.y_test, poisoned.trigger, poisoned.wanted)
    assert success.value <= backdoor_rate(model, digits.x_test, digits.y_test, poisoned.trigger, poisoned.wanted).value


def test_nothing_is_changed_and_a_seed_repeats(badnet, digits, unchanged):
    x, y = digits.x_val[:50], digits.y_val[:50]

    def repair() -> nn.Module:
        return fine_pruning(badnet.model, x, y, epochs=1, generator=seeded(), progress=False)

    first, second = unchanged(badnet.model, repair), repair()
    assert not first.training
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    unchanged(badnet.model, lambda: pruned(badnet.model, torch.tensor([0, 1])))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"max_drop": 1.5}, ("max_drop", "0 to 1")),
        ({"epochs": -1}, ("epochs",)),
        ({"x": torch.zeros(0, 1, 4, 4), "y": torch.zeros(0, dtype=torch.int64)}, ("x", "at least 1")),
        ({"y": torch.zeros(3, dtype=torch.int64)}, ("y", "(2,)")),
        ({"model": nn.Sequential(nn.Flatten(), nn.Linear(16, 2))}, ("model", "convolution")),
        ({"generator": 1}, ("generator",)),
        ({"learning_rate": 0}, ("learning_rate",)),
    ],
    ids=["drop", "epochs", "empty", "y", "model", "generator", "rate"],
)
def test_bad_input_is_named(planted, refuses, wrong, words):
    good = {"model": planted, "x": torch.zeros(2, 1, 4, 4), "y": torch.tensor([0, 1]), "progress": False}
    refuses(fine_pruning, good | wrong, *words)

"""Adversarial training, against linear models, whose worst case is known, against torchattacks and ART, and at work."""

import math
import warnings
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import binom
from torch import nn

from spai_lab.attacks.evasion.gradient import fgsm, pgd
from spai_lab.checks import SuspiciousResult
from spai_lab.defenses.evasion.adversarial import (
    adversarial_training,
    ensemble_adversarial_training,
    fast_adversarial_training,
)
from spai_lab.metrics import accuracy_rate
from spai_lab.models import lenet, mlp, softmax_regression
from spai_lab.training import Recipe, Robustly, fit, train

FALSE_ALARM = 1e-6


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Recording(nn.Module):
    """A model that notes what it is shown."""

    def __init__(self, model):
        super().__init__()
        self.model, self.seen = model, []

    def forward(self, x):
        self.seen.append(x.detach().clone())
        return self.model(x)


def linear(classes: int = 2, seed: int = 0) -> nn.Module:
    return softmax_regression((1, 4, 4), classes, generator=seeded(seed)).double()


def weights(model) -> torch.Tensor:
    """What a pixel adds to each logit, `(K, D)`: the weights, divided by the standard deviation within the model."""
    return (model[-1].weight / model[0].std).detach()


def batch(classes: int = 2, count: int = 6, low: float = 0.3, high: float = 0.7):
    x = low + (high - low) * torch.rand(count, 1, 4, 4, generator=seeded(1), dtype=torch.float64)
    return x, torch.randint(classes, (count,), generator=seeded(2))


STATIC = linear(3, seed=9)
LOSSES = {
    "adversarial": partial(adversarial_training, steps=3),
    "fgsm": partial(adversarial_training, steps=1, random_start=False),
    "fast": partial(fast_adversarial_training),
    "ensemble": partial(ensemble_adversarial_training, static_models=[STATIC]),
}
each_loss = pytest.mark.parametrize("loss", list(LOSSES.values()), ids=list(LOSSES))


# --- a linear model of two classes: the worst case costs eps times the dual norm of the weights -----------------------


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2)], ids=["linf", "l2"])
def test_the_worst_case_of_a_linear_model_is_found(norm, dual):
    model, (x, y) = linear(), batch()
    w = weights(model)[1] - weights(model)[0]
    lead = (2 * y - 1) * (model(x)[:, 1] - model(x)[:, 0]).detach()
    expected = F.softplus(0.2 * w.norm(dual) - lead).mean()
    loss = adversarial_training(model, x, y, eps=0.2, norm=norm, random_start=False)
    torch.testing.assert_close(loss.detach(), expected)


def test_the_worst_case_is_reached_from_any_start():
    model, (x, y) = linear(), batch()
    still = adversarial_training(model, x, y, eps=0.2, random_start=False)
    torch.testing.assert_close(adversarial_training(model, x, y, eps=0.2, generator=seeded()), still)


def test_pixels_stay_in_range():
    """At the edge of the range the worst case is cut off, pixel by pixel."""
    model, (x, y) = linear(), batch(low=0.0, high=1.0)
    w = weights(model)[1] - weights(model)[0]
    worst = (x + 0.4 * w.sign().view(1, 1, 4, 4) * (1 - 2 * y).view(-1, 1, 1, 1)).clamp(0, 1)
    expected = F.cross_entropy(model(worst), y)
    torch.testing.assert_close(adversarial_training(model, x, y, eps=0.4), expected)
    torch.testing.assert_close(fast_adversarial_training(model, x, y, eps=0.4, step_size=0.8), expected)


def test_the_fast_step_lands_where_the_paper_says():
    """From a uniform start a step of 1.25 eps crosses the edge with probability 5/8, and never ends below eps / 4."""
    model, (x, y) = Recording(linear()), batch(count=400)
    fast_adversarial_training(model, x, y, eps=0.2, generator=seeded())
    w = weights(model.model)[1] - weights(model.model)[0]
    uphill = w.sign().view(1, 1, 4, 4) * (1 - 2 * y).view(-1, 1, 1, 1)
    moved = ((model.seen[-1] - x) * uphill).flatten() / 0.2
    assert moved.min() > 0.25 and moved.max() < 1 + 1e-9
    on_edge = int((moved > 1 - 1e-9).sum())
    low, high = binom.interval(1 - FALSE_ALARM, len(moved), 0.625)
    assert low <= on_edge <= high
    inside = moved[moved < 1 - 1e-9].sort().values  # uniform on 1/4 to 1
    uniform = torch.linspace(0.25, 1, len(inside), dtype=torch.float64)
    assert (inside - uniform).abs().max() < 0.75 * math.sqrt(math.log(2 / FALSE_ALARM) / 2 / len(inside))  # DKW bound


# --- the ensemble -----------------------------------------------------------------------------------------------------


def stepped(source, x, eps):
    """One signed step away from what the linear model answers."""
    w = weights(source)[1] - weights(source)[0]
    return x + eps * w.sign().view(1, 1, 4, 4) * (1 - 2 * source(x).argmax(1)).view(-1, 1, 1, 1)


def test_each_source_is_drawn_as_often_as_any_other():
    model, others, (x, y) = linear(seed=0), [linear(seed=1), linear(seed=2)], batch()
    values = [
        (F.cross_entropy(model(x), y) + F.cross_entropy(model(stepped(source, x, 0.2)), y)) / 2
        for source in [*others, model]
    ]
    generator, counts = seeded(), [0, 0, 0]
    for _ in range(300):
        loss = ensemble_adversarial_training(model, x, y, static_models=others, eps=0.2, generator=generator)
        gaps = [abs((loss - value).item()) for value in values]
        assert min(gaps) < 1e-9
        counts[gaps.index(min(gaps))] += 1
    low, high = binom.interval(1 - FALSE_ALARM, 300, 1 / 3)
    assert all(low <= count <= high for count in counts)


def test_the_ensembles_examples_say_nothing_about_the_label():
    model, other, (x, y) = Recording(linear()), linear(seed=1), batch()
    for labels in (y, 1 - y):
        loss = partial(ensemble_adversarial_training, model, x, labels, static_models=[other], eps=0.2)
        loss(generator=seeded(3))
    of_y, of_the_rest = model.seen[len(model.seen) // 2 - 1], model.seen[-1]
    assert torch.equal(of_y, of_the_rest) and not torch.equal(of_y, x)


def test_the_static_models_learn_nothing():
    model, other, (x, y) = linear(), linear(seed=1), batch()
    for seed in range(4):
        ensemble_adversarial_training(model, x, y, static_models=[other], eps=0.2, generator=seeded(seed)).backward()
    assert all(p.grad is None for p in other.parameters())
    assert all(p.grad is not None for p in model.parameters())


# --- what holds for each loss -----------------------------------------------------------------------------------------


@each_loss
def test_without_room_it_is_the_cross_entropy(loss):
    model, (x, y) = linear(3), batch(3)
    torch.testing.assert_close(loss(model, x, y, eps=0.0), F.cross_entropy(model(x), y))


@each_loss
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_nothing_is_changed(loss, training):
    model, (x, y) = linear(3).train(training), batch(3)
    before, state = (x.clone(), y.clone()), torch.get_rng_state()
    kept = [p.detach().clone() for p in model.parameters()]
    value = loss(model, x, y, eps=0.1)
    assert value.shape == () and value.requires_grad
    assert all(p.grad is None for p in model.parameters()), "the attack inside left gradients behind"
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), kept, strict=True))
    assert model.training is training and torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, before[0]) and torch.equal(y, before[1]) and not x.requires_grad


@each_loss
def test_only_the_last_look_at_the_inputs_is_learned_from(loss):
    """Its gradient is that of the cross-entropy at the inputs it has found, which are constants."""
    model, (x, y) = Recording(linear(3)), batch(3)
    loss(model, x, y, eps=0.1, generator=seeded()).backward()
    found = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    expected = F.cross_entropy(model.model(model.seen[-1]), y)
    if loss is LOSSES["ensemble"]:
        expected = (expected + F.cross_entropy(model.model(x), y)) / 2
    expected.backward()
    for ours, parameter in zip(found, model.parameters(), strict=True):
        torch.testing.assert_close(ours, parameter.grad)


@pytest.mark.parametrize("loss", [LOSSES["adversarial"], LOSSES["fast"]], ids=["adversarial", "fast"])
def test_a_seed_repeats_and_no_seed_does_not(loss):
    model, (x, y) = lenet((1, 12, 12), 3, generator=seeded()), (torch.rand(4, 1, 12, 12), torch.tensor([0, 1, 2, 0]))
    values = [loss(model, x, y, eps=0.3, generator=seeded(seed)).item() for seed in (0, 0, 1)]
    assert values[0] == values[1] != values[2]
    assert loss(model, x, y, eps=0.3).item() != loss(model, x, y, eps=0.3).item()


@each_loss
def test_inputs_that_are_learned_perfectly_are_not_suspected(loss):
    model, (x, _) = linear(3), batch(3)
    with torch.no_grad():
        model[-1].weight *= 1e6
    y = model(x).argmax(1)
    with pytest.warns(SuspiciousResult):
        pgd(model, x, y, eps=0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss(model, x, y, eps=0.01)


@each_loss
def test_it_trains_while_eps_grows(loss, digits):
    model, other = (mlp(digits.shape, 10, generator=seeded(seed)) for seed in (0, 1))
    settings = loss.keywords | ({"static_models": [other]} if "static_models" in loss.keywords else {})
    objective = Robustly(loss.func, eps=0.1, ramp=0.5, **settings)
    x, y = digits.x_train[:256], digits.y_train[:256]
    history = fit(
        model,
        x,
        y,
        epochs=6,
        batch_size=32,
        learning_rate=3e-3,
        progress=False,
        objective=partial(objective, generator=seeded()),
        generator=seeded(),
    )
    assert history.losses[-1] < history.losses[0]


# --- bad input --------------------------------------------------------------------------------------------------------

X, Y = batch(3)
VALID = {"model": linear(3), "x": X, "y": Y, "eps": 0.1}
WRONG = {
    "model": ({"model": "lenet"}, "model is 'lenet'"),
    "probabilities": ({"model": nn.Sequential(linear(3), nn.Softmax(1))}, "probabilities", "logits"),
    "precision": ({"model": softmax_regression((1, 4, 4), 3)}, "x is torch.float64", "torch.float32"),
    "gray levels": ({"x": 255 * X}, "x has values", "[0, 1]"),
    "no input": ({"x": X[:0], "y": Y[:0]}, "x is empty", "at least one"),
    "labels": ({"y": Y[:2]}, "y is", "(6,)"),
    "unknown class": ({"y": Y + 3}, "y has a label", "0 to 2"),
    "eps": ({"eps": 8}, "eps is 8", "from 0 to 1"),
    "eps negative": ({"eps": -0.1}, "eps is -0.1"),
    "generator": ({"generator": 0}, "generator is 0", "torch.Generator"),
}


@each_loss
@pytest.mark.parametrize(("arguments", "words"), [(w[0], w[1:]) for w in WRONG.values()], ids=list(WRONG))
def test_bad_input_is_named(loss, arguments, words, refuses):
    refuses(loss, VALID | arguments, *words)


OWN = {
    "norm": (adversarial_training, {"norm": "l1"}, "norm is 'l1'", "'l2'"),
    "steps": (adversarial_training, {"steps": 0}, "steps is 0", "at least 1"),
    "step size": (adversarial_training, {"step_size": -1.0}, "step_size is -1.0", "above 0"),
    "random start": (adversarial_training, {"random_start": 1}, "random_start is 1", "True or False"),
    "fast step size": (fast_adversarial_training, {"step_size": 0}, "step_size is 0", "above 0"),
    "no static model": (ensemble_adversarial_training, {"static_models": []}, "static_models is []", "at least one"),
    "one model": (ensemble_adversarial_training, {"static_models": STATIC[2]}, "static_models is", "sequence"),
    "static model": (ensemble_adversarial_training, {"static_models": [STATIC, None]}, "static_models[1] is None"),
    "static precision": (
        *(ensemble_adversarial_training, {"static_models": [softmax_regression((1, 4, 4), 3)]}),
        *("static_models[0] is torch.float32", "torch.float64"),
    ),
}


@pytest.mark.parametrize(("loss", "arguments", "words"), [(w[0], w[1], w[2:]) for w in OWN.values()], ids=list(OWN))
def test_bad_settings_are_named(loss, arguments, words, refuses):
    refuses(loss, VALID | arguments, *words)


# --- peers ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def victim(digits):
    """A LeNet on its way: half trained, so that gradients are neither noise nor zero."""
    model, _ = train(Recipe("lenet", epochs=2, batch_size=32, learning_rate=3e-3), digits, progress=False)
    return model, digits.x_train[:64], digits.y_train[:64]


@pytest.mark.oracle
def test_the_loss_is_that_of_torchattacks_pgd(victim):
    """With one seed both start at the same points, and so end with the same loss."""
    import torchattacks

    model, x, y = victim
    ours = adversarial_training(model, x, y, eps=0.2, steps=7, step_size=0.05, generator=seeded(7))
    with torch.random.fork_rng():
        torch.manual_seed(7)
        theirs = torchattacks.PGD(model, eps=0.2, alpha=0.05, steps=7, random_start=True)(x, y)
    assert abs((ours - F.cross_entropy(model(theirs), y)).item()) < 1e-4


@pytest.mark.oracle
def test_the_loss_is_that_of_arts_fast_training(victim, monkeypatch):
    from art.defences.trainer import AdversarialTrainerFBFPyTorch, adversarial_trainer_fbf_pytorch
    from art.estimators.classification import PyTorchClassifier

    model, x, y = victim
    eps = 0.2
    # ART's start is not clipped to the range: it is given ours
    noise = 2 * torch.rand(x.shape, generator=seeded(7)) - 1
    start = (x + eps * noise).clamp(0, 1) - x
    monkeypatch.setattr(adversarial_trainer_fbf_pytorch, "random_sphere", lambda *_: start.flatten(1).numpy())
    ours = fast_adversarial_training(model, x, y, eps=eps, generator=seeded(7))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    classifier = PyTorchClassifier(
        *(Recording(model), nn.CrossEntropyLoss(), tuple(x.shape[1:]), 10), optimizer=optimizer, clip_values=(0, 1)
    )
    total, _, count = AdversarialTrainerFBFPyTorch(classifier, eps=eps)._batch_process(
        x.numpy(), F.one_hot(y, 10).numpy(), 0.0
    )
    assert abs(ours.item() - total / count) < 1e-4


# --- at work ----------------------------------------------------------------------------------------------------------


def learned(digits, epochs, loss=None, **settings):
    """A LeNet that was trained on digits with a loss, or with the cross-entropy."""
    objective = loss and Robustly(loss, **settings)
    recipe = Recipe("lenet", epochs=epochs, batch_size=64, learning_rate=4e-3, objective=objective)
    return train(recipe, digits, progress=False)[0]


def robust(model, digits, eps):
    x, y = digits.x_test[:200], digits.y_test[:200]
    return accuracy_rate(model, pgd(model, x, y, eps=eps, steps=40, generator=seeded()), y)


@pytest.mark.full
def test_each_loss_makes_a_network_more_robust(digits):
    natural, other = learned(digits, 6), train(Recipe("mlp", epochs=6), digits, progress=False)[0]
    models = {
        "adversarial": learned(digits, 6, adversarial_training, eps=0.1),
        "fast": learned(digits, 6, fast_adversarial_training, eps=0.1),
        "ensemble": learned(digits, 6, ensemble_adversarial_training, eps=0.1, static_models=[natural, other]),
    }
    undefended = robust(natural, digits, 0.1)
    for name, model in models.items():
        assert robust(model, digits, 0.1).interval[0] > undefended.interval[1], name
        assert accuracy_rate(model, digits.x_test, digits.y_test).value > 0.9, name


@pytest.mark.full
def test_training_on_one_step_overfits_catastrophically(digits):
    """The network learns to stop that one step from that one start, and PGD walks past it."""
    overfitted = learned(digits, 15, adversarial_training, eps=0.3, steps=1, random_start=False)
    x, y = digits.x_test[:200], digits.y_test[:200]
    assert accuracy_rate(overfitted, fgsm(overfitted, x, y, eps=0.3), y).interval[0] > 0.5
    assert robust(overfitted, digits, 0.3).interval[1] < 0.05

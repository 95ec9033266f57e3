"""TRADES and input gradients, against softmax regression written out, torchattacks, ART, and at work."""

import math
import warnings
from functools import partial

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from torch import nn

from spai_lab.attacks.evasion.gradient import pgd
from spai_lab.defenses.evasion.regularization import divergence, gradient_regularization, trades
from spai_lab.metrics import accuracy_rate
from spai_lab.models import mlp, softmax_regression
from spai_lab.training import Recipe, Robustly, fit, train


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


def linear(classes: int = 3, seed: int = 0) -> nn.Module:
    return softmax_regression((1, 4, 4), classes, generator=seeded(seed)).double()


def batch(classes: int = 3, count: int = 6):
    x = torch.rand(count, 1, 4, 4, generator=seeded(1), dtype=torch.float64)
    return x, torch.randint(classes, (count,), generator=seeded(2))


LOSSES = {"trades": partial(trades, eps=0.1), "gradients": partial(gradient_regularization, weight=2.0)}
each_loss = pytest.mark.parametrize("loss", list(LOSSES.values()), ids=list(LOSSES))


# --- TRADES -----------------------------------------------------------------------------------------------------------


def test_the_divergence_is_scipys():
    logits, logits_adv = 3 * torch.randn(2, 20, 7, generator=seeded(), dtype=torch.float64)
    theirs = scipy.stats.entropy(logits.softmax(1).numpy(), logits_adv.softmax(1).numpy(), axis=1)
    np.testing.assert_allclose(divergence(logits, logits_adv), theirs, rtol=1e-9)


def test_the_divergence_of_sure_answers_has_a_gradient():
    """Probabilities that underflow to 0 have a logarithm all the same."""
    logits = torch.tensor([[1000.0, 0.0, -1000.0], [-1000.0, 0.0, 1000.0]], requires_grad=True)
    value = divergence(logits, -logits)
    assert value.tolist() == [2000.0, 2000.0]
    assert torch.autograd.grad(value.sum(), logits)[0].isfinite().all()


@pytest.mark.parametrize("settings", [{"eps": 0.0}, {"eps": 0.2, "beta": 0.0}], ids=["eps", "beta"])
def test_without_room_or_weight_trades_is_the_cross_entropy(settings):
    model, (x, y) = linear(), batch()
    torch.testing.assert_close(trades(model, x, y, **settings), F.cross_entropy(model(x), y))


def test_trades_and_its_gradient_written_out():
    r"""On softmax regression, at the inputs that the attack has found: p and q are the answers to x and x'.

    $\partial \mathrm{KL} / \partial z = p (\log p - \log q - \mathrm{KL})$;
    $\partial \mathrm{KL} / \partial z' = q - p$.
    """
    model, (x, y) = Recording(linear()), batch()
    loss = trades(model, x, y, eps=0.2, beta=3.0, generator=seeded())
    loss.backward()
    normalize, _, layer = model.model
    w, b = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    clean, found = (((v - normalize.mean) / normalize.std).flatten(1).numpy() for v in (x, model.seen[-1]))
    p, q = (scipy.special.softmax(v @ w.T + b, axis=1) for v in (clean, found))
    kl = (p * np.log(p / q)).sum(1, keepdims=True)
    right = np.eye(3)[y]
    np.testing.assert_allclose(loss.item(), (-np.log((p * right).sum(1)) + 3 * kl[:, 0]).mean(), rtol=1e-10)
    at_clean = p - right + 3 * p * (np.log(p / q) - kl)
    gradient = (at_clean.T @ clean + 3 * (q - p).T @ found) / len(x)
    np.testing.assert_allclose(layer.weight.grad, gradient, rtol=1e-9, atol=1e-12)


def test_trades_finds_the_largest_divergence():
    """Of two classes it lies in one of two corners of the ball: on the same side of every weight."""
    model, (x, y) = Recording(linear(2)), batch(2, count=40)
    trades(model, x, y, eps=0.2, generator=seeded())
    layer = model.model[-1]
    uphill = (layer.weight[1] - layer.weight[0]).sign().view(1, 1, 4, 4)
    corners = torch.stack([(x + side * 0.2 * uphill).clamp(0, 1) for side in (-1, 1)])
    gaps = (corners - model.seen[-1]).abs().amax((2, 3, 4))
    assert gaps.amin(0).max() < 1e-12
    assert (gaps.argmin(0) == 0).any() and (gaps.argmin(0) == 1).any(), "which side, the random start decides"


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_trades_stays_in_the_ball_and_uses_it(norm):
    model, (x, y) = Recording(mlp((1, 4, 4), 3, generator=seeded()).double()), batch()
    trades(model, x, y, eps=0.2, norm=norm, generator=seeded())
    for seen in model.seen:
        assert seen.min() >= 0 and seen.max() <= 1
        size = torch.linalg.vector_norm((seen - x).flatten(1), ord={"linf": math.inf, "l2": 2}[norm], dim=1)
        assert size.max() < 0.2 + 1e-9
    assert size.min() > 0.1
    assert len(model.seen) == 12, "once for the clean inputs, ten steps, and the end"


def test_the_labels_do_not_steer_trades():
    model, (x, y) = Recording(linear()), batch()
    for labels in (y, (y + 1) % 3):
        trades(model, x, labels, eps=0.2, generator=seeded())
    assert torch.equal(model.seen[11], model.seen[23])


def test_a_seed_repeats_and_no_seed_does_not():
    model, (x, y) = mlp((1, 4, 4), 3, generator=seeded()).double(), batch()
    values = [trades(model, x, y, eps=0.3, steps=2, generator=seeded(seed)).item() for seed in (0, 0, 1)]
    assert values[0] == values[1] != values[2]


# --- input gradients --------------------------------------------------------------------------------------------------


def test_the_penalty_of_softmax_regression_written_out():
    r"""$\nabla_x L = W^T (p - e_y) / \sigma$, with sigma what the model divides the pixels by."""
    model, (x, y) = linear(), batch()
    normalize, _, layer = model
    p = model(x).softmax(1).detach().numpy()
    slope = (p - np.eye(3)[y]) @ layer.weight.detach().numpy() / normalize.std
    expected = F.cross_entropy(model(x), y).item() + 2.0 * (slope**2).sum(1).mean()
    assert gradient_regularization(model, x, y, weight=2.0).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("smooth", [False, True], ids=["linear", "deep"])
def test_the_gradient_of_the_penalty_by_finite_differences(smooth):
    model, (x, y) = linear(), batch()
    if smooth:  # a second derivative of its own, which ReLU does not have
        layers = mlp((1, 4, 4), 3, hidden=5, generator=seeded())
        model = nn.Sequential(*(nn.Tanh() if isinstance(layer, nn.ReLU) else layer for layer in layers)).double()
    loss = partial(gradient_regularization, model, x, y, weight=2.0)
    loss().backward()
    direction = [torch.randn(p.shape, generator=seeded(3), dtype=p.dtype) for p in model.parameters()]
    predicted = sum((p.grad * d).sum().item() for p, d in zip(model.parameters(), direction, strict=True))
    values = []
    for step in (1e-5, -2e-5):
        with torch.no_grad():
            for p, d in zip(model.parameters(), direction, strict=True):
                p += step * d
        values.append(loss().item())
    assert predicted == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-6)


def test_without_weight_it_is_the_cross_entropy():
    model, (x, y) = linear(), batch()
    torch.testing.assert_close(gradient_regularization(model, x, y, weight=0.0), F.cross_entropy(model(x), y))


def test_each_image_pays_for_itself():
    model, (x, y) = mlp((1, 4, 4), 3, generator=seeded()).double(), batch()
    loss = partial(gradient_regularization, model, weight=2.0)
    torch.testing.assert_close(loss(x, y), torch.stack([loss(x[[i]], y[[i]]) for i in range(len(x))]).mean())


# --- what holds for both ----------------------------------------------------------------------------------------------


@each_loss
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_nothing_is_changed(loss, training):
    model, (x, y) = linear(3).train(training), batch(3)
    before, state = (x.clone(), y.clone()), torch.get_rng_state()
    kept = [p.detach().clone() for p in model.parameters()]
    value = loss(model, x, y)
    assert value.shape == () and value.requires_grad
    assert all(p.grad is None for p in model.parameters()), "the attack inside left gradients behind"
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), kept, strict=True))
    assert model.training is training and torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, before[0]) and torch.equal(y, before[1]) and not x.requires_grad


@each_loss
def test_inputs_that_are_learned_perfectly_cost_nothing(loss):
    model, (x, _) = linear(3), batch(3)
    with torch.no_grad():
        model[-1].weight *= 1e6
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert gradient_regularization(model, x, model(x).argmax(1), weight=1.0).item() == 0
        assert math.isfinite(loss(model, x, model(x).argmax(1)).item())


@each_loss
def test_it_can_be_watched_without_gradients(loss):
    model, (x, y) = linear(), batch()
    with torch.no_grad():
        watched = loss(model, x, y, generator=seeded())
    assert not watched.requires_grad
    torch.testing.assert_close(watched, loss(model, x, y, generator=seeded()).detach())


@each_loss
def test_it_trains(loss, digits):
    model = mlp(digits.shape, 10, generator=seeded())
    settings = loss.keywords | ({"ramp": 0.5} if "eps" in loss.keywords else {"weight": 0.1})
    objective = Robustly(loss.func, **settings)
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

X, Y = batch()
VALID = {"model": linear(), "x": X, "y": Y}
WRONG = {
    "model": ({"model": "lenet"}, "model is 'lenet'"),
    "probabilities": ({"model": nn.Sequential(linear(), nn.Softmax(1))}, "probabilities", "logits"),
    "precision": ({"model": softmax_regression((1, 4, 4), 3)}, "x is torch.float64", "torch.float32"),
    "staircase": ({"model": lambda x: linear()(x.detach())}, "without a gradient", "differentiable"),
    "constant": ({"model": lambda x: 5 * torch.eye(3).double()[Y]}, "without a gradient", "differentiable"),
    "steep": ({"model": lambda x: linear()(x + (x * 0).sqrt())}, "NaN", "finite gradients"),
    "gray levels": ({"x": 255 * X}, "x has values", "[0, 1]"),
    "no input": ({"x": X[:0], "y": Y[:0]}, "x is empty", "at least one"),
    "labels": ({"y": Y[:2]}, "y is", "(6,)"),
    "unknown class": ({"y": Y + 3}, "y has a label", "0 to 2"),
    "generator": ({"generator": 0}, "generator is 0", "torch.Generator"),
}


@each_loss
@pytest.mark.parametrize(("arguments", "words"), [(w[0], w[1:]) for w in WRONG.values()], ids=list(WRONG))
def test_bad_input_is_named(loss, arguments, words, refuses):
    refuses(loss, VALID | arguments, *words)


OWN = {
    "eps": (trades, {"eps": 8}, "eps is 8", "from 0 to 1"),
    "norm": (trades, {"eps": 0.1, "norm": "l1"}, "norm is 'l1'", "'l2'"),
    "beta": (trades, {"eps": 0.1, "beta": -1.0}, "beta is -1.0", "at least 0"),
    "steps": (trades, {"eps": 0.1, "steps": 0}, "steps is 0", "at least 1"),
    "step size": (trades, {"eps": 0.1, "step_size": 0.0}, "step_size is 0.0", "above 0"),
    "weight": (gradient_regularization, {"weight": -1.0}, "weight is -1.0", "at least 0"),
    "weight not a number": (gradient_regularization, {"weight": math.nan}, "weight is nan"),
}


@pytest.mark.parametrize(("loss", "arguments", "words"), [(w[0], w[1], w[2:]) for w in OWN.values()], ids=list(OWN))
def test_bad_settings_are_named(loss, arguments, words, refuses):
    refuses(loss, VALID | arguments, *words)


# --- peers ------------------------------------------------------------------------------------------------------------


@pytest.mark.oracle
def test_trades_is_arts_loss_at_the_inputs_of_torchattacks(digits):
    """With one seed TPGD starts where we do; what it finds is handed to ART's training step, which names its loss."""
    import torchattacks
    from art.attacks.evasion import ProjectedGradientDescent
    from art.defences.trainer import AdversarialTrainerTRADESPyTorch
    from art.estimators.classification import PyTorchClassifier

    model, _ = train(Recipe("lenet", epochs=2, batch_size=32, learning_rate=3e-3), digits, progress=False)
    x, y = digits.x_train[:64], digits.y_train[:64]
    ours = trades(model, x, y, eps=0.2, beta=6.0, steps=10, step_size=0.05, generator=seeded(7))
    with torch.random.fork_rng():
        torch.manual_seed(7)
        found = torchattacks.TPGD(model, eps=0.2, alpha=0.05, steps=10)(x)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    classifier = PyTorchClassifier(
        *(Recording(model), nn.CrossEntropyLoss(), tuple(x.shape[1:]), 10), optimizer=optimizer, clip_values=(0, 1)
    )
    attack = ProjectedGradientDescent(classifier, eps=0.2, verbose=False)
    attack.generate = lambda x, y: found.numpy()
    total, _, count = AdversarialTrainerTRADESPyTorch(classifier, attack, beta=6.0)._batch_process(
        x.numpy(), F.one_hot(y, 10).numpy()
    )
    assert ours.item() == pytest.approx(total / count, rel=1e-4)


# --- at work ----------------------------------------------------------------------------------------------------------


@pytest.mark.full
def test_each_loss_makes_a_network_more_robust(digits):
    x, y = digits.x_test[:200], digits.y_test[:200]
    objectives = {
        "natural": None,
        "trades": Robustly(trades, eps=0.1),
        "gradients": Robustly(gradient_regularization, weight=1.0),
    }
    rates = {}
    for name, objective in objectives.items():
        recipe = Recipe("lenet", epochs=6, batch_size=64, learning_rate=4e-3, objective=objective)
        model, _ = train(recipe, digits, progress=False)
        rates[name] = accuracy_rate(model, pgd(model, x, y, eps=0.1, steps=40, generator=seeded()), y)
        assert accuracy_rate(model, digits.x_test, digits.y_test).value > 0.9, name
    assert rates["trades"].interval[0] > rates["natural"].interval[1]
    assert rates["gradients"].interval[0] > rates["natural"].interval[1]

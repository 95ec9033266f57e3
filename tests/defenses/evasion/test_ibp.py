"""Intervals: closed forms, points of the ball, ART's boxes; the loss, its schedule, and what training on it buys."""

import sys
from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from spai_lab.attacks.evasion.gradient import pgd
from spai_lab.defenses.evasion.ibp import ibp, interval_bounds, interval_margins, verified
from spai_lab.models import Normalize, mlp
from spai_lab.threat import fooled
from spai_lab.training.loop import accuracy, fit
from spai_lab.training.recipes import Robustly
from spai_lab.training.weights import reference

ROUNDING = 1e-9

BODIES = {
    "stride": [nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.ReLU()],
    "groups": [nn.Conv2d(1, 4, 3, padding="same"), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2, dilation=2), nn.ReLU()],
    "max": [nn.Conv2d(1, 2, 2, bias=False), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(2, 2, 2), nn.ReLU()],
    "average": [nn.Conv2d(1, 2, 2), nn.ReLU(), nn.AvgPool2d(2)],
}


def network(name, seed=0):
    body = nn.Sequential(Normalize(0.4, 0.7), nn.Sequential(*deepcopy(BODIES[name])), nn.Flatten())
    model = nn.Sequential(body, nn.Linear(body(torch.zeros(1, 1, 6, 6)).shape[1], 3)).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def images(seed, n=3, shape=(1, 6, 6)):
    return torch.rand((n, *shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def in_the_ball(x, eps, count, seed=0):
    """Corners and inner points of the balls, `(count, N, ...)`."""
    generator = torch.Generator().manual_seed(seed)
    inner = torch.rand((count, *x.shape), generator=generator, dtype=x.dtype)
    corners = torch.where(torch.rand(count, 1, 1, 1, 1, generator=generator) < 0.5, inner, inner.round())
    return (x + eps * (2 * corners - 1)).clamp(0, 1)


@pytest.mark.parametrize("name", BODIES)
def test_every_unit_of_every_point_stays_in_its_box(name):
    model, x = network(name), images(1)
    boxes = interval_bounds(model, x, eps=0.1)
    values = in_the_ball(x, 0.1, 500).flatten(0, 1)
    layers = [layer for layer in model.modules() if not list(layer.children())]
    assert len(boxes) == len(layers) + 1
    for layer, (lower, upper) in zip([nn.Identity(), *layers], boxes, strict=True):
        values = layer(values)
        points = values.unflatten(0, (500, 3))
        assert (points >= lower - ROUNDING).all()
        assert (points <= upper + ROUNDING).all()


@pytest.mark.parametrize("name", BODIES)
def test_a_layer_by_itself_is_bounded_exactly(name):
    """Each unit of the first affine layer reaches both its bounds, at a corner that its weights name."""
    convolution = next(layer for layer in network(name).modules() if isinstance(layer, nn.Conv2d))
    x = images(2, 1)
    lower, upper = interval_bounds(nn.Sequential(convolution), x, eps=0.2)[-1]
    slopes = torch.autograd.functional.jacobian(convolution, x).reshape(-1, 1, 6, 6)
    low, high = (x - 0.2).clamp_min(0), (x + 0.2).clamp_max(1)
    lowest = convolution(torch.where(slopes > 0, low, high)).flatten(1).diagonal()
    highest = convolution(torch.where(slopes > 0, high, low)).flatten(1).diagonal()
    torch.testing.assert_close(lower.flatten(), lowest)
    torch.testing.assert_close(upper.flatten(), highest)


def test_merging_the_last_layer_is_exact_for_a_linear_model_and_tighter_than_separate_logits():
    model, x, y = nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).double(), images(3), torch.tensor([0, 1, 2])
    slopes = model[1].weight[y, None] - model[1].weight
    low, high = (x - 0.1).clamp_min(0).flatten(1), (x + 0.1).clamp_max(1).flatten(1)
    worst = torch.where(slopes > 0, low[:, None], high[:, None])
    closed = (slopes * worst).sum(2) + model[1].bias[y, None] - model[1].bias
    merged = interval_margins(model, x, y, eps=0.1)
    torch.testing.assert_close(merged, closed)
    lower, upper = interval_bounds(model, x, eps=0.1)[-1]
    separate = lower.gather(1, y[:, None]) - upper
    assert (merged >= separate - ROUNDING).all()
    assert (merged > separate + 0.01).any()


@pytest.mark.parametrize("name", BODIES)
def test_no_attack_comes_below_the_margins(name):
    model, x, y = network(name), images(4), torch.tensor([0, 1, 2])
    bounds = interval_margins(model, x, y, eps=0.1)
    x_adv = pgd(model, x, y, eps=0.1, generator=torch.Generator().manual_seed(0))
    z = model(torch.cat([x_adv, *in_the_ball(x, 0.1, 200)]))
    labels = y.repeat(201)
    found = (z.gather(1, labels[:, None]) - z).unflatten(0, (201, 3)).amin(0)
    assert (bounds <= found + ROUNDING).all()
    assert torch.equal(bounds.gather(1, y[:, None]), torch.zeros(3, 1, dtype=torch.float64))
    z = model(x)
    torch.testing.assert_close(interval_margins(model, x, y, eps=0.0), z.gather(1, y[:, None]) - z)


def test_a_box_without_absolute_weights_would_be_found(monkeypatch):
    module = sys.modules[interval_bounds.__module__]  # the package has a function of the same name
    honest = module.propagated

    def faulty(layer, lower, upper):
        return (layer(lower), layer(upper)) if isinstance(layer, nn.Conv2d) else honest(layer, lower, upper)

    monkeypatch.setattr(module, "propagated", faulty)
    with pytest.raises(AssertionError):
        test_every_unit_of_every_point_stays_in_its_box("stride")


def test_the_loss_mixes_the_clean_and_the_worst_logits():
    model, x, y = network("stride"), images(5), torch.tensor([0, 1, 2])
    lower, upper = interval_bounds(model[0], x, eps=0.05)[-1]
    head = model[1]
    worst = torch.stack(
        [
            torch.stack(
                [
                    ((head.weight[k] - head.weight[c]) * torch.where(head.weight[k] > head.weight[c], u, l)).sum()
                    + head.bias[k]
                    - head.bias[c]
                    for k in range(3)
                ]
            )
            for l, u, c in zip(lower, upper, y.tolist(), strict=True)
        ]
    )
    clean, robust = F.cross_entropy(model(x), y), F.cross_entropy(worst, y)
    for kappa in (0.0, 0.3, 1.0):
        loss = ibp(model, x, y, eps=0.05, kappa=kappa)
        torch.testing.assert_close(loss, kappa * clean + (1 - kappa) * robust)


def test_the_gradient_of_the_loss_is_right():
    model, x, y = network("max"), images(6), torch.tensor([0, 1, 2])
    names, values = zip(*model.named_parameters(), strict=True)

    class Loss(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self):
            return ibp(self.model, x, y, eps=0.05)

    def loss(*weights):
        return torch.func.functional_call(Loss(), dict(zip([f"model.{n}" for n in names], weights, strict=True)), ())

    assert torch.autograd.gradcheck(loss, values)


def test_kappa_falls_along_with_a_growing_eps():
    model, x, y = network("stride"), images(7), torch.tensor([0, 1, 2])
    schedule = Robustly(ibp, eps=0.2, eps_final=0.2, kappa=0.5, ramp=0.5)
    for t, eps, kappa in ((0.0, 0.0, 1.0), (0.25, 0.1, 0.75), (0.5, 0.2, 0.5), (1.0, 0.2, 0.5)):
        loss = schedule(model, x, y, t, generator=torch.Generator())
        torch.testing.assert_close(loss, ibp(model, x, y, eps=eps, kappa=kappa))
    torch.testing.assert_close(ibp(model, x, y, eps=0.0, eps_final=0.0), F.cross_entropy(model(x), y))


def test_training_on_it_makes_digits_verifiable(digits):
    generator = torch.Generator().manual_seed(0)
    model, eps = mlp(digits.shape, 10, generator=generator), 0.1
    x, y = digits.x_train, digits.y_train
    objective = partial(Robustly(ibp, eps=eps, eps_final=eps, ramp=0.5), generator=generator)
    fit(
        *(model, x, y), epochs=12, batch_size=32, learning_rate=3e-3,
        objective=objective, generator=generator, progress=False,
    )  # fmt: skip
    x, y = digits.x_test, digits.y_test
    proved = verified(model, x, y, eps=eps, progress=False)
    survived = ~fooled(model, pgd(model, x, y, eps=eps, generator=generator), y)
    assert accuracy(model, x, y) > 0.88
    assert proved.float().mean() > 0.5
    assert not (proved & ~survived).any()
    assert not verified(reference("mlp", "digits"), x, y, eps=eps, progress=False).any()


def test_verified_asks_for_every_margin_and_any_bound():
    x, y = torch.zeros(5, 1, 1, 1), torch.tensor([0, 1, 2, 0, 1])
    table = torch.tensor([[0.0, 1, 1], [1, 0, -1], [0, 1, 0], [0, 2, 3], [1e-6, 0, 5]])

    def bound(model, x, y, *, eps):
        assert eps == 0.1
        assert len(x) <= 2
        start = {0: 0, 2: 2, 1: 4}[y[0].item()]
        return table[start : start + len(x)]

    answer = verified(nn.Flatten(), x, y, eps=0.1, bound=bound, batch_size=2, progress=False)
    assert answer.tolist() == [True, False, False, True, True]


def test_an_empty_batch_and_untouched_state():
    model, x, y = network("max").train(), images(8), torch.tensor([0, 1, 2])
    state = torch.get_rng_state()
    assert interval_margins(model, x[:0], y[:0], eps=0.1).shape == (0, 3)
    assert verified(model, x[:0], y[:0], eps=0.1, progress=False).shape == (0,)
    verified(model, x, y, eps=0.1, progress=False)
    ibp(model, x, y, eps=0.1)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
def test_the_boxes_are_those_of_art():
    from art.estimators.certification.interval import PyTorchIBPClassifier

    class Network(nn.Module):
        """ART wants the reshape between convolution and matrix inside `forward`."""

        def __init__(self):
            super().__init__()
            self.first, self.relu1 = nn.Conv2d(1, 3, 3, stride=2), nn.ReLU()
            self.second, self.relu2, self.head = nn.Conv2d(3, 2, 2), nn.ReLU(), nn.Linear(2, 3)

        def forward(self, x):
            return self.head(self.relu2(self.second(self.relu1(self.first(x)))).flatten(1))

    theirs = Network()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    ours = nn.Sequential(theirs.first, theirs.relu1, theirs.second, theirs.relu2, nn.Flatten(), theirs.head)
    x = images(9).float()
    peer = PyTorchIBPClassifier(theirs, nn.CrossEntropyLoss(), input_shape=(1, 6, 6), nb_classes=3, device_type="cpu")
    peer.model.set_forward_mode("abstract")
    expected = peer.predict_intervals(x.numpy(), bounds=0.2, limits=[0.0, 1.0])
    lower, upper = interval_bounds(ours, x, eps=0.2)[-1]
    np.testing.assert_allclose(lower.detach(), expected[:, 0], atol=1e-4)
    np.testing.assert_allclose(upper.detach(), expected[:, 1], atol=1e-4)


FLAT = nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).double()
BAD = {
    "eps": ({"eps": 8}, "eps", "8/255"),
    "negative eps": ({"eps": -0.1}, "eps"),
    "pixels": ({"x": images(0) + 1}, "[0, 1]"),
    "labels": ({"y": torch.tensor([0, 1, 3])}, "label 3", "0 to 2"),
    "few labels": ({"y": torch.tensor([0])}, "y is", "(3,)"),
    "sigmoid": ({"model": nn.Sequential(nn.Flatten(), nn.Sigmoid(), nn.Linear(36, 3)).double()}, "Sigmoid", "ReLU"),
    "no layers": ({"model": nn.Sequential()}, "no layers"),
    "ends in relu": ({"model": nn.Sequential(FLAT, nn.ReLU())}, "ends in ReLU", "nn.Linear"),
    "mirror": ({"model": nn.Sequential(nn.Conv2d(1, 1, 3, padding_mode="circular")).double()}, "'circular'"),
    "negative std": ({"model": nn.Sequential(Normalize(0.0, -1.0), FLAT)}, "std = -1"),
    "misfit": ({"model": nn.Sequential(nn.Flatten(), nn.Linear(5, 3)).double()}, "model fails", "(3, 1, 6, 6)"),
    "not logits": ({"model": nn.Sequential(nn.Linear(6, 3)).double()}, "model returns", "K"),
    "dtype": ({"model": nn.Sequential(nn.Flatten(), nn.Linear(36, 3))}, "float32"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case, refuses):
    changed, *words = BAD[case]
    arguments = {"model": FLAT, "x": images(0), "y": torch.tensor([0, 1, 2]), "eps": 0.1} | changed
    for function in (ibp, interval_margins, partial(verified, progress=False)):
        refuses(function, arguments, *words)


@pytest.mark.parametrize(
    ("changed", "word"),
    [({"kappa": 1.5}, "kappa"), ({"eps_final": 0.05}, "eps_final"), ({"generator": 3}, "generator")],
    ids=["kappa", "eps_final", "generator"],
)
def test_bad_settings_of_the_loss_are_named(changed, word, refuses):
    refuses(ibp, {"model": FLAT, "x": images(0), "y": torch.tensor([0, 1, 2]), "eps": 0.1} | changed, word)

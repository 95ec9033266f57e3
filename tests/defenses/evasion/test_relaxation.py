"""Linear bounds: ordered against the triangle LP, the exact optimum and attacks; dense twins; the papers' shortcuts."""

from itertools import pairwise, product

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import nn

from spai_lab.attacks.evasion.gradient import pgd
from spai_lab.defenses.evasion import relaxation
from spai_lab.defenses.evasion.ibp import interval_margins, verified
from spai_lab.defenses.evasion.relaxation import convex_relaxation
from spai_lab.models import Normalize
from spai_lab.threat import fooled
from spai_lab.training.weights import reference

EPS = 0.3
ROUNDING = 1e-9


def seeded(model, seed, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    model = model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def network(seed, sizes=(3, 4, 3, 3)):
    layers = [nn.Flatten()]
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return seeded(nn.Sequential(*layers[:-1]), seed)


def images(seed, n=1, shape=(3, 1, 1)):
    return torch.rand((n, *shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def matrices(model):
    return [(m.weight.detach().numpy(), m.bias.detach().numpy()) for m in model if isinstance(m, nn.Linear)]


def minimum(objective, constant, rows, box):
    """The least of a linear function over `A v <= b` and a box, by HiGHS; None where nothing is feasible."""
    a, b = (np.array(part) for part in zip(*rows, strict=True)) if rows else (None, None)
    result = linprog(objective, A_ub=a, b_ub=b, bounds=box, method="highs")
    assert result.status in (0, 2), result.message
    return None if result.status == 2 else (result.fun + constant, result.x)


def triangle_lp(model, x, y, k):
    """The least of z_y - z_k over the triangles; the bounds of each unit come from the same LP, layer by layer.

    The variables are the pixels and what each ReLU gives.
    """
    layers = matrices(model)
    size = x.numel() + sum(len(b) for _, b in layers[:-1])
    box = [(max(0, p - EPS), min(1, p + EPS)) for p in x.flatten().tolist()]
    box += [(None, None)] * (size - len(box))
    rows, start, stop = [], 0, x.numel()

    def lifted(weights, sign=1.0):
        row = np.zeros(size)
        row[start:stop] = sign * weights
        return row

    for weight, bias in layers[:-1]:
        new = []
        for unit, (w, b) in enumerate(zip(weight, bias, strict=True)):
            lower = minimum(lifted(w), b, rows, box)[0]
            upper = -minimum(lifted(w, -1.0), -b, rows, box)[0]
            out = np.eye(size)[stop + unit]
            if upper <= 0:
                new += [(out, 0.0), (-out, 0.0)]
            elif lower >= 0:
                new += [(out - lifted(w), b), (lifted(w) - out, -b)]
            else:
                slope = upper / (upper - lower)
                new += [(-out, 0.0), (lifted(w) - out, -b), (out - slope * lifted(w), slope * (b - lower))]
        rows += new
        start, stop = stop, stop + len(bias)
    weight, bias = layers[-1]
    return minimum(lifted(weight[y] - weight[k]), bias[y] - bias[k], rows, box)[0]


def exact_minimum(model, x, y, k):
    """The least of z_y - z_k: one LP for each pattern of active units, on which the network is affine."""
    *hidden, (weight, bias) = matrices(model)
    box = [(max(0, p - EPS), min(1, p + EPS)) for p in x.flatten().tolist()]

    def search(matrix, offset, rows, rest):
        if not rest:
            return minimum(
                (weight[y] - weight[k]) @ matrix, (weight[y] - weight[k]) @ offset + bias[y] - bias[k], rows, box
            )
        (w, b), *later = rest
        a, c = w @ matrix, w @ offset + b
        found = []
        for pattern in product((0.0, 1.0), repeat=len(b)):
            active = np.array(pattern)
            signs = 1 - 2 * active
            more = rows + [(s * row, -s * constant) for s, row, constant in zip(signs, a, c, strict=True)]
            if minimum(np.zeros(len(box)), 0.0, more, box) is not None:
                found.append(search(active[:, None] * a, active * c, more, later))
        return min((one for one in found if one is not None), key=lambda one: one[0], default=None)

    return search(np.eye(len(box)), np.zeros(len(box)), [], hidden)


def margins(model, x, y):
    z = model(x)
    return z.gather(1, y[:, None]) - z


@pytest.mark.parametrize("seed", range(6))
def test_every_bound_lies_in_order(seed):
    model, x = network(seed), images(seed)
    y = model(x).argmax(1)
    bounds = {
        "ibp": interval_margins(model, x, y, eps=EPS),
        **{
            f"{slope}, {inner}": convex_relaxation(model, x, y, eps=EPS, slope=slope, inner=inner)
            for slope, inner in product(("adaptive", "dual"), ("crown", "ibp"))
        },
    }
    x_adv = pgd(model, x, y, eps=EPS, restarts=5, generator=torch.Generator().manual_seed(seed))
    for k in {0, 1, 2} - {y.item()}:
        relaxed = triangle_lp(model, x, y.item(), k)
        exact, worst = exact_minimum(model, x, y.item(), k)
        at_worst = margins(model, torch.from_numpy(worst).view_as(x), y)[0, k].item()
        for name, bound in bounds.items():
            assert bound[0, k].item() <= relaxed + ROUNDING, name
        assert relaxed <= exact + ROUNDING
        assert at_worst == pytest.approx(exact, abs=1e-6)  # HiGHS stops at 1e-7
        assert exact <= margins(model, x_adv, y)[0, k].item() + ROUNDING


def test_an_upper_line_that_is_too_low_would_be_found(monkeypatch):
    honest = relaxation.through_relu

    def through_the_origin(*arguments):
        return honest(*arguments)[0], 0.0

    monkeypatch.setattr(relaxation, "through_relu", through_the_origin)
    above = 0
    for seed in range(10):
        model, x = network(seed), images(seed)
        y = model(x).argmax(1)
        x_adv = pgd(model, x, y, eps=EPS, generator=torch.Generator().manual_seed(seed))
        above += (convex_relaxation(model, x, y, eps=EPS) > margins(model, x_adv, y) + ROUNDING).any().item()
    assert above > 0


def test_neither_boxes_nor_lines_are_always_tighter():
    ahead = [
        (convex_relaxation(model, x, y, eps=EPS) - interval_margins(model, x, y, eps=EPS))[0, 1 - y[0]].item()
        for model, x, y in ((network(s, (3, 8, 2)), images(s), torch.tensor([0])) for s in range(20))
    ]
    assert min(ahead) < -ROUNDING
    assert max(ahead) > ROUNDING
    assert sum(gap > 0 for gap in ahead) > 10


def test_a_linear_model_and_a_network_without_unstable_units_are_bounded_exactly():
    x, y = images(1, n=4), torch.tensor([0, 1, 2, 0])
    linear = network(1, (3, 3))
    weight, low, high = linear[1].weight, (x - EPS).clamp_min(0).flatten(1), (x + EPS).clamp_max(1).flatten(1)
    slopes = weight[y, None] - weight
    worst = torch.where(slopes > 0, low[:, None], high[:, None])
    closed = (slopes * worst).sum(2) + linear[1].bias[y, None] - linear[1].bias
    active = network(2, (3, 4, 3))
    with torch.no_grad():
        active[1].bias += 100
    collapsed = nn.Sequential(nn.Flatten(), nn.Linear(3, 3)).double()
    with torch.no_grad():
        collapsed[1].weight.copy_(active[3].weight @ active[1].weight)
        collapsed[1].bias.copy_(active[3].weight @ active[1].bias + active[3].bias)
    torch.testing.assert_close(convex_relaxation(linear, x, y, eps=EPS), closed)
    torch.testing.assert_close(convex_relaxation(active, x, y, eps=EPS), convex_relaxation(collapsed, x, y, eps=EPS))


CONVOLUTIONAL = {
    "stride": lambda: [nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(2, 3, 2), nn.ReLU()],
    "uneven": lambda: [nn.Conv2d(1, 2, (2, 3), stride=(2, 1)), nn.ReLU(), nn.Conv2d(2, 2, 2, bias=False), nn.ReLU()],
    "groups": lambda: [
        nn.Conv2d(1, 4, 3, padding="same"),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, groups=2, dilation=2),
        nn.ReLU(),
    ],
    "average": lambda: [nn.Conv2d(1, 2, 2), nn.AvgPool2d(2, 1), nn.ReLU(), nn.AvgPool2d(2), nn.ReLU()],
}


def convolutional(name):
    body = nn.Sequential(Normalize(0.4, 0.7), nn.Sequential(*CONVOLUTIONAL[name]()), nn.Flatten())
    features = body(torch.zeros(1, 1, 6, 6)).shape[1]
    return seeded(nn.Sequential(body, nn.Linear(features, 3)), 3, scale=0.5)


def dense_twin(model):
    """The same function with a plain matrix for each affine layer, read off its derivative."""
    layers, shape = [nn.Flatten()], (1, 6, 6)
    for layer in (layer for layer in model.modules() if not list(layer.children())):
        origin = torch.zeros(1, *shape, dtype=torch.float64)
        answer = layer(origin)
        if isinstance(layer, nn.ReLU):
            layers.append(nn.ReLU())
        elif not isinstance(layer, nn.Flatten):
            matrix = torch.autograd.functional.jacobian(layer, origin)
            twin = nn.Linear(origin.numel(), answer.numel()).double()
            with torch.no_grad():
                twin.weight.copy_(matrix.reshape(answer.numel(), origin.numel()))
                twin.bias.copy_(answer.flatten())
            layers.append(twin)
        shape = answer.shape[1:]
    return nn.Sequential(*layers)


@pytest.mark.parametrize("slope", ["adaptive", "dual"])
@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_a_convolution_is_bounded_as_its_dense_twin(name, slope, monkeypatch):
    model, x, y = convolutional(name), images(5, 3, (1, 6, 6)), torch.tensor([0, 1, 2])
    twin = dense_twin(model)
    torch.testing.assert_close(twin(x), model(x))
    bounds = convex_relaxation(model, x, y, eps=0.05, slope=slope)
    torch.testing.assert_close(bounds, convex_relaxation(twin, x, y, eps=0.05, slope=slope))
    monkeypatch.setattr(relaxation, "AT_ONCE", 7)
    torch.testing.assert_close(bounds, convex_relaxation(model, x, y, eps=0.05, slope=slope))


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_no_point_of_the_ball_is_below_the_bounds(name):
    model, x, y = convolutional(name), images(6, 2, (1, 6, 6)), torch.tensor([0, 1])
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand((2000, 1, 1, 6, 6), generator=generator, dtype=torch.float64).round()
    points = (x + 0.2 * (2 * corners - 1)).clamp(0, 1).flatten(0, 1)
    found = margins(model, points, y.repeat(2000)).unflatten(0, (2000, 2)).amin(0)
    for slope, inner in product(("adaptive", "dual"), ("crown", "ibp")):
        assert (convex_relaxation(model, x, y, eps=0.2, slope=slope, inner=inner) <= found + ROUNDING).all()


def test_bounds_without_a_ball_are_the_margins_and_an_empty_batch_has_none():
    model, x, y = convolutional("stride"), images(7, 3, (1, 6, 6)), torch.tensor([2, 0, 1])
    torch.testing.assert_close(convex_relaxation(model, x, y, eps=0.0), margins(model, x, y))
    assert convex_relaxation(model, x[:0], y[:0], eps=0.1).shape == (0, 3)


def test_the_bounds_can_be_trained_on():
    model, x, y = network(8, (2, 3, 3, 2)), images(8, 2, (2, 1, 1)), torch.tensor([0, 1])
    names, values = zip(*model.named_parameters(), strict=True)

    class Bounds(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self):
            return convex_relaxation(self.model, x, y, eps=0.1, slope="dual")

    def bounds(*weights):
        return torch.func.functional_call(Bounds(), dict(zip([f"model.{n}" for n in names], weights, strict=True)), ())

    assert torch.autograd.gradcheck(bounds, values)


def test_lines_verify_more_digits_than_boxes_and_no_more_than_an_attack_leaves(digits):
    model, x, y = reference("mlp", "digits"), digits.x_test[:64], digits.y_test[:64]
    by_boxes = verified(model, x, y, eps=0.02, progress=False)
    by_lines = verified(model, x, y, eps=0.02, bound=convex_relaxation, progress=False)
    survived = ~fooled(model, pgd(model, x, y, eps=0.02, generator=torch.Generator().manual_seed(0)), y)
    assert by_boxes.sum() < by_lines.sum() - 20
    assert by_lines.sum() > 0.8 * len(x)
    assert not (by_lines & ~survived).any()


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
def test_the_dual_equals_the_zonotopes_of_art():
    """With parallel lines a bound carried backward and ART's DeepZ, carried forward, are the same relaxation."""
    from art.estimators.certification.deep_z import PytorchDeepZ

    network_ = nn.Sequential(*list(network(9, (4, 8, 6, 3)).float())[1:])
    x, y = 0.3 + 0.4 * images(9, 3, (4,)).float(), torch.tensor([0, 1, 2])
    peer = PytorchDeepZ(
        network_, nn.CrossEntropyLoss(), input_shape=(4,), nb_classes=3, clip_values=(0, 1), device_type="cpu"
    )
    peer.model.set_forward_mode("abstract")
    centers, spreads = peer.predict_zonotopes(x.numpy(), bound=0.2)
    ours = convex_relaxation(network_, x, y, eps=0.2, slope="dual")
    for center, spread, label, bound in zip(centers, spreads, y, ours, strict=True):
        theirs = (center.flatten()[label] - center.flatten()) - np.abs(spread[:, label, None] - spread).sum(0)
        np.testing.assert_allclose(bound.detach(), theirs, atol=1e-4)


BAD = {
    "slope": ({"slope": "steep"}, "slope", "'adaptive', 'dual'"),
    "inner": ({"inner": "lp"}, "inner", "'crown', 'ibp'"),
    "eps": ({"eps": 8}, "eps", "8/255"),
    "negative eps": ({"eps": -0.1}, "eps"),
    "pooling": ({"model": nn.Sequential(nn.MaxPool2d(1), nn.Flatten(), nn.Linear(3, 3)).double()}, "MaxPool2d", "ReLU"),
    "not sequential": ({"model": nn.Bilinear(3, 3, 3).double()}, "Bilinear", "Sequential"),
    "labels": ({"y": torch.tensor([3])}, "label 3", "0 to 2"),
    "pixels": ({"x": torch.full((1, 3, 1, 1), 2.0, dtype=torch.float64)}, "[0, 1]"),
    "misfit": ({"model": nn.Sequential(nn.Flatten(), nn.Linear(5, 3)).double()}, "model fails", "(1, 3, 1, 1)"),
    "logits": ({"model": nn.Sequential(nn.Conv2d(3, 3, 1)).double()}, "logits"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case, refuses):
    changed, *words = BAD[case]
    arguments = {"model": network(0), "x": images(0), "y": torch.tensor([0]), "eps": 0.1}
    refuses(convex_relaxation, arguments | changed, *words)

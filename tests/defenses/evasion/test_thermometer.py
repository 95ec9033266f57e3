"""Thermometer encoding, against ART, brute force and the attacks that should and should not get through it."""

import itertools
import math

import pytest
import torch
from torch import nn

from spai_lab.attacks.evasion.gradient import pgd
from spai_lab.attacks.evasion.search import square
from spai_lab.checks import SuspiciousResult
from spai_lab.defenses.evasion.thermometer import (
    ls_pga,
    soft_thermometer,
    thermometer,
    thermometer_code,
    thermometer_lenet,
    thermometer_view,
)
from spai_lab.metrics import accuracy_rate
from spai_lab.query import Query
from spai_lab.threat import input_gradient
from spai_lab.training.loop import accuracy, fit
from spai_lab.training.weights import reference


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear(levels: int, *, classes: int = 2) -> nn.Module:
    """A linear network in float64 behind the code of four pixels."""
    layer = nn.Linear(4 * levels, classes, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=seeded(), dtype=torch.float64))
    return thermometer(nn.Sequential(nn.Flatten(), layer), levels=levels).eval()


@pytest.fixture(scope="module")
def defended(digits):
    """A LeNet behind the code, trained on the digits."""
    model = thermometer_lenet(generator=seeded())
    settings = {"epochs": 5, "batch_size": 32, "learning_rate": 3e-3, "progress": False}
    fit(model, digits.x_train, digits.y_train, generator=seeded(), **settings)
    model.zero_grad(set_to_none=True)
    return model.eval()


@pytest.mark.parametrize("levels", [2, 10, 16], ids=["2", "10", "16"])
def test_the_bits_count_the_borders_below_a_pixel(levels):
    x = torch.linspace(0, 1, 1009, dtype=torch.float64).view(1, 1, 1, -1)
    code = thermometer_code(x, levels)[0, :, 0]
    below = [1 + sum(k / levels < value for k in range(1, levels)) for value in x.flatten().tolist()]
    assert code.sum(0).tolist() == below
    assert (code.diff(dim=0) <= 0).all()
    assert code.unique().tolist() == [0, 1]


def test_a_pixel_on_a_border_has_the_lower_level():
    on = torch.arange(17).view(1, 1, 1, -1) / 16
    assert thermometer_code(on, 16).sum(1).flatten().tolist() == [1, *range(1, 17)]
    just_above = on[..., :16].nextafter(torch.tensor(2.0))
    assert thermometer_code(just_above, 16).sum(1).flatten().tolist() == list(range(1, 17))


@pytest.mark.oracle
@pytest.mark.parametrize("levels", [4, 10, 16], ids=["4", "10", "16"])
def test_the_code_is_arts(levels):
    from art.defences.preprocessor import ThermometerEncoding

    x = torch.rand(3, 2, 5, 4, generator=seeded())
    x[0, 0, 0] = torch.tensor([0.0, 0.25, 0.5, 1.0])
    theirs, _ = ThermometerEncoding((0.0, 1.0), num_space=levels, channels_first=True)(x.numpy().copy())
    assert torch.equal(thermometer_code(x, levels), torch.from_numpy(theirs))


def test_the_stand_in_is_the_mean_code_under_noise():
    x = torch.rand(1, 1, 3, 3, generator=seeded(), dtype=torch.float64)
    noise = 0.15 * (2 * (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000 - 1)
    mean = torch.stack([thermometer_code(x + u, 7) for u in noise[::8]]).mean(0)
    torch.testing.assert_close(soft_thermometer(x, 7, width=0.15), mean, rtol=0, atol=1e-3)


def test_the_mean_bit_is_the_pixel_up_to_a_level(digits):
    mean = thermometer_code(digits.x_train[:50], 16).mean(1, keepdim=True)
    assert 0 <= (mean - digits.x_train[:50]).min() <= (mean - digits.x_train[:50]).max() <= 1 / 16


def test_the_gradient_is_exactly_zero_and_attacks_say_so(defended, digits):
    x, y = digits.x_val[:8], digits.y_val[:8]
    assert torch.count_nonzero(input_gradient(defended, x, y)) == 0
    with pytest.warns(SuspiciousResult, match="8 of 8 inputs"):
        assert torch.equal(pgd(defended, x, y, eps=0.3, steps=2, random_start=False), x)


def test_the_view_answers_alike_and_has_the_slope_of_the_bits_in_reach():
    defended, width = linear(5, classes=3), 0.12
    view = thermometer_view(defended, width=width)
    x = torch.rand(20, 1, 2, 2, generator=seeded(), dtype=torch.float64).requires_grad_()
    logits = view(x)
    assert torch.equal(logits, defended(x))
    (slope,) = torch.autograd.grad(logits[:, 1].sum(), x)
    weights = defended.network[1].weight[1].detach().view(5, 2, 2)
    for image, pixel in itertools.product(range(20), itertools.product(range(2), range(2))):
        value = x[image, 0][pixel].item()
        expected = sum(weights[k][pixel].item() for k in range(1, 5) if abs(value - k / 5) < width) / (2 * width)
        assert slope[image, 0][pixel].item() == pytest.approx(expected, abs=1e-12)


def test_ls_pga_finds_the_best_levels_of_a_linear_network():
    """Pixels then add up, so that the best level of each can be found by trying all of them."""
    defended, eps = linear(6), 0.3
    x = torch.rand(40, 1, 2, 2, generator=seeded(1), dtype=torch.float64)
    y = torch.arange(40) % 2
    x_adv = ls_pga(defended, x, y, eps=eps, generator=seeded())
    lead = lambda x: (1 - 2 * y) * torch.diff(defended(x).detach(), dim=1)[:, 0]  # noqa: E731
    base, best = lead(x), lead(x)
    for row, column in itertools.product(range(2), range(2)):
        gains = []
        for value in torch.linspace(-eps, eps, 241, dtype=torch.float64):
            changed = x.clone()
            changed[:, 0, row, column] = (x[:, 0, row, column] + value).clamp(0, 1)
            gains.append(lead(changed) - base)
        best = best + torch.stack(gains).amax(0)
    share = (lead(x_adv) - base) / (best - base)
    assert share.max() <= 1 + 1e-9
    assert share.median() > 0.99
    assert share.mean() > 0.9


@pytest.mark.parametrize("eps", [0.0, 0.05, 0.3], ids=["0", "05", "3"])
def test_ls_pga_stays_in_the_ball(defended, digits, eps):
    x, y = digits.x_val[:6], digits.y_val[:6]
    x_adv = ls_pga(defended, x, y, eps=eps, steps=5, generator=seeded())
    assert (x_adv - x).abs().max() <= eps + 1e-6
    assert 0 <= x_adv.min() <= x_adv.max() <= 1
    moved = thermometer_code(x_adv, 16) != thermometer_code(x, 16)
    assert moved.any() == (eps > 0)
    same = ~moved.unflatten(1, (1, 16)).any(2)
    assert torch.equal(x_adv[same], x[same])


def test_the_code_hides_the_gradient_and_falls_to_those_who_know_it(defended, digits):
    x, y = digits.x_test[:64], digits.y_test[:64]
    left = lambda x_adv: accuracy_rate(defended, x_adv, y).value  # noqa: E731
    with pytest.warns(SuspiciousResult):
        blind = left(pgd(defended, x, y, eps=0.3, steps=20, generator=seeded()))
    black_box = left(square(Query(defended), x, y, eps=0.3, queries=200, generator=seeded()))
    adaptive = left(pgd(thermometer_view(defended), x, y, eps=0.3, steps=20, generator=seeded()))
    assert accuracy(defended, digits.x_test, digits.y_test) > 0.94
    assert blind > 0.8
    assert black_box < blind - 0.5
    assert adaptive <= min(black_box, 0.1)


@pytest.mark.full
def test_at_a_smaller_radius_the_view_is_at_least_as_strong_as_square_and_transfer(defended, digits):
    x, y = digits.x_test[:128], digits.y_test[:128]
    left = lambda x_adv: accuracy_rate(defended, x_adv, y).value  # noqa: E731
    black_box = left(square(Query(defended), x, y, eps=0.15, queries=500, generator=seeded()))
    transfer = left(pgd(reference("lenet", "digits"), x, y, eps=0.15, generator=seeded()))
    adaptive = left(pgd(thermometer_view(defended), x, y, eps=0.15, restarts=2, generator=seeded()))
    papers = left(ls_pga(defended, x, y, eps=0.15, generator=seeded()))
    assert adaptive <= min(black_box, transfer)
    assert papers < 0.5


def test_a_seed_repeats_and_nothing_else_changes(defended, digits):
    x, y = digits.x_val[:4].clone(), digits.y_val[:4]
    state, weights = torch.get_rng_state(), [p.clone() for p in defended.parameters()]
    first = ls_pga(defended, x, y, eps=0.3, steps=3, generator=seeded())
    assert torch.equal(first, ls_pga(defended, x, y, eps=0.3, steps=3, generator=seeded()))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, digits.x_val[:4])
    assert all(
        torch.equal(p, before) and p.grad is None for p, before in zip(defended.parameters(), weights, strict=True)
    )
    one, other = (thermometer_lenet(generator=seeded()).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


CODE = {"x": torch.rand(2, 1, 3, 3), "levels": 4}


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        (thermometer, {"network": 3}, ("network",)),
        (thermometer, {"network": nn.Flatten(), "levels": 1}, ("levels", "at least 2")),
        (thermometer_lenet, {"shape": (1, 8, 8)}, ("shape[1]", "12")),
        (thermometer_lenet, {"classes": 1}, ("classes",)),
        (thermometer_view, {"defended": nn.Flatten()}, ("defended", "thermometer")),
        (thermometer_view, {"defended": thermometer(nn.Flatten()), "width": 0}, ("width", "above 0")),
        (thermometer_code, CODE | {"x": torch.rand(2, 9)}, ("x", "(N, C, H, W)")),
        (thermometer_code, CODE | {"x": torch.ones(1, 1, 2, 2, dtype=torch.int64)}, ("x", "floating point")),
        (thermometer_code, CODE | {"levels": 2.5}, ("levels",)),
        (soft_thermometer, CODE | {"width": math.nan}, ("width", "finite")),
    ],
    ids=["network", "levels", "shape", "classes", "not-defended", "no-width", "flat", "integers", "fraction", "nan"],
)
def test_bad_input_is_named(refuses, function, arguments, words):
    refuses(function, arguments, *words)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"defended": nn.Flatten()}, ("defended", "thermometer")),
        ({"x": torch.full((2, 1, 2, 2), 2.0, dtype=torch.float64)}, ("x", "[0, 1]")),
        ({"x": torch.rand(2, 1, 2, 2)}, ("x", "float64")),
        ({"x": torch.rand(2, 4, dtype=torch.float64)}, ("x", "(N, C, H, W)")),
        ({"y": torch.tensor([0, 7])}, ("y", "0 to 1")),
        ({"eps": 8}, ("eps", "gray levels")),
        ({"steps": 0}, ("steps",)),
        ({"step_size": 0}, ("step_size",)),
        ({"annealing": 0.9}, ("annealing", "at least 1")),
        ({"generator": 1}, ("generator",)),
    ],
    ids=["defended", "range", "dtype", "flat", "class", "eps", "steps", "step", "annealing", "generator"],
)
def test_a_bad_attack_is_named(refuses, wrong, words):
    x = torch.rand(2, 1, 2, 2, dtype=torch.float64)
    refuses(ls_pga, {"defended": linear(3), "x": x, "y": torch.tensor([0, 1]), "eps": 0.1} | wrong, *words)

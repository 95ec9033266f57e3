"""Each example's gradient: a loop, Opacus, and the fast path give the same."""

import math

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from spai_lab.models import build
from spai_lab.privacy.per_example import (
    clipped_sum,
    clipping_factors,
    fast_clipped_sum,
    gradient_norms,
    is_fast,
    per_example_gradients,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(count=6, shape=(1, 28, 28), dtype=torch.float32):
    x = torch.rand(count, *shape, generator=seeded(), dtype=dtype)
    return x, torch.arange(count) % 10


def victim(name: str) -> nn.Module:
    return build(name, generator=seeded())


def layered(*layers: nn.Module, features: int) -> nn.Module:
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, 10))


def grouped() -> nn.Module:
    convolution = nn.Conv2d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2)
    return layered(
        nn.Conv2d(1, 4, 3, bias=False), nn.ReLU(inplace=True), convolution, nn.GroupNorm(3, 6), features=1014
    )


class Tokens(nn.Module):
    """A linear layer on each row of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.last = nn.Linear(28, 5), nn.Linear(140, 10)

    def forward(self, x):
        return self.last(self.rows(x).relu().flatten(1))


def frozen() -> nn.Module:
    model = victim("lenet")
    model[1].weight.requires_grad_(False)
    model[8].bias.requires_grad_(False)
    model[10].requires_grad_(False)
    return model


FAST = {
    **{name: lambda name=name: victim(name) for name in ("softmax", "mlp", "lenet", "strided")},
    "groups, dilation, group norm": grouped,
    "tokens": Tokens,
    "dropout": lambda: layered(nn.Dropout(0.5), nn.AlphaDropout(0.5), features=784).eval(),
    "frozen": frozen,
    "one layer": lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 10, bias=False)),
}


def apart(first: dict, second: dict) -> float:
    """The largest relative distance of two sets of tensors, in L2."""
    assert list(first) == list(second)
    return max(((first[name] - second[name]).norm() / second[name].norm()).item() for name in first)


# --- the definition ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build_model", FAST.values(), ids=FAST)
def test_vmap_gives_what_a_loop_gives(build_model):
    model, (x, y) = build_model().double(), batch(dtype=torch.float64)
    gradients = per_example_gradients(model, x, y)
    for i in range(len(x)):
        model.zero_grad()
        F.cross_entropy(model(x[i : i + 1]), y[i : i + 1]).backward()
        alone = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
        assert apart({name: gradient[i] for name, gradient in gradients.items()}, alone) < 1e-12


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:Full backward hook")
@pytest.mark.parametrize("name", ["mlp", "lenet", "strided"])
def test_vmap_gives_what_opacus_gives(name):
    from opacus import GradSampleModule

    x, y = batch()
    sampled = GradSampleModule(victim(name), loss_reduction="sum")
    F.cross_entropy(sampled(x), y, reduction="sum").backward()
    theirs = {name.removeprefix("_module."): p.grad_sample for name, p in sampled.named_parameters()}
    assert apart(per_example_gradients(victim(name), x, y), theirs) < 1e-6


def test_an_empty_batch_has_no_gradients():
    x, y = batch()
    gradients = per_example_gradients(victim("lenet"), x[:0], y[:0])
    assert {tuple(g.shape) for g in gradients.values()} == {(0, *p.shape) for p in victim("lenet").parameters()}


def test_dropout_drops_other_units_for_each_example():
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(784, 10, bias=False))
    x, y = torch.ones(2, 1, 28, 28), torch.tensor([0, 0])
    kept = per_example_gradients(model, x, y)["2.weight"][:, 0] != 0
    assert (kept[0] != kept[1]).any()


# --- clipping ---------------------------------------------------------------------------------------------------------

numbers = arrays.arrays(np.float64, (5, 3), elements=st.floats(-1e6, 1e6, allow_subnormal=False))


@given(numbers, numbers, st.floats(1e-3, 1e3))
def test_one_example_moves_the_sum_by_at_most_the_clipping_norm(a, b, clip):
    """And a gradient that is short already stays as it is."""
    gradients = {"a": torch.from_numpy(a), "b": torch.from_numpy(b)}
    fewer = {name: gradient[1:] for name, gradient in gradients.items()}
    total, rest = clipped_sum(gradients, clip), clipped_sum(fewer, clip)
    moved = torch.cat([total[name] - rest[name] for name in total])
    alone = clipped_sum({name: gradient[:1] for name, gradient in gradients.items()}, clip)
    assert torch.allclose(moved, torch.cat(list(alone.values())), rtol=1e-9, atol=1e-9)
    length = gradient_norms(gradients)[0]
    assert torch.cat(list(alone.values())).norm() <= clip * (1 + 1e-12)
    if length <= clip:
        assert all(torch.equal(alone[name], gradients[name][0]) for name in alone)


def test_nothing_is_clipped_without_a_bound_and_zero_stays_zero():
    assert clipping_factors(torch.tensor([0.0, 1.0, 1e30]), math.inf).tolist() == [1, 1, 1]
    assert clipping_factors(torch.tensor([0.0]), 1.0).tolist() == [1]


# --- the fast path ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [math.inf, 1e-3, "median"])
@pytest.mark.parametrize("build_model", FAST.values(), ids=FAST)
def test_the_fast_path_gives_what_vmap_gives(build_model, clip):
    """Relative to the lengths of what is summed, since a sum may cancel."""
    model, (x, y) = build_model(), batch(32)
    expected = per_example_gradients(model, x, y)
    norms = gradient_norms(expected)
    clip = norms.median().item() if clip == "median" else clip
    total, lengths = fast_clipped_sum(model, x, y, clip)
    assert is_fast(model, x)
    room = 1e-6 * norms.clamp_max(clip).sum()
    assert all((total[name] - right).norm() < room for name, right in clipped_sum(expected, clip).items())
    assert torch.allclose(lengths, norms, rtol=1e-6)


@pytest.mark.parametrize("build_model", FAST.values(), ids=FAST)
def test_in_double_precision_they_agree_to_its_rounding(build_model):
    model, (x, y) = build_model().double(), batch(8, dtype=torch.float64)
    expected = per_example_gradients(model, x, y)
    assert apart(fast_clipped_sum(model, x, y, 0.5)[0], clipped_sum(expected, 0.5)) < 1e-12


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.last = nn.Linear(784, 20), nn.Linear(20, 20), nn.Linear(20, 10)

    def forward(self, x):
        return self.last(self.again(self.again(self.first(x.flatten(1))).tanh()))


class PastTheLayer(Twice):
    def forward(self, x):
        hidden = self.again(self.first(x.flatten(1))).tanh()
        return self.last(hidden + F.linear(hidden, self.again.weight))


class Half(Twice):
    def forward(self, x):
        return self.last(self.first(x.flatten(1)).tanh())


def tied() -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 20), nn.Linear(20, 20), nn.Linear(20, 20), nn.Linear(20, 10))
    model[3].weight = model[2].weight
    return model


class MixedInTraining(nn.Module):
    def forward(self, x):
        return x - self.training * x.mean(0).detach()


SLOW = {
    "mixed in training": lambda: layered(MixedInTraining(), features=784),
    "batch norm without weights": lambda: layered(nn.BatchNorm2d(1, affine=False), features=784),
    "used twice": Twice,
    "read past its layer": PastTheLayer,
    "tied weights": tied,
    "unknown layer": lambda: layered(nn.PReLU(), features=784),
    "padding by name": lambda: layered(nn.Conv2d(1, 2, 3, padding="same"), features=1568),
    "circular padding": lambda: layered(nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"), features=1568),
}


@pytest.mark.parametrize("build_model", SLOW.values(), ids=SLOW)
def test_the_fast_path_knows_what_it_does_not_know(build_model):
    assert not is_fast(build_model(), batch()[0])


def test_a_layer_that_is_not_used_has_gradient_zero():
    model, (x, y) = Half(), batch()
    assert is_fast(model, x)
    total, _ = fast_clipped_sum(model, x, y, 1.0)
    assert total["again.weight"].abs().max() == 0 == per_example_gradients(model, x, y)["again.weight"].abs().max()


def test_nothing_is_left_behind():
    """No hook, no gradient, no change of mode or of the global random state."""
    model, drawing, (x, y) = victim("lenet").eval(), layered(nn.RReLU(), features=784), batch()
    state, before = torch.get_rng_state(), {name: p.clone() for name, p in model.state_dict().items()}
    is_fast(model, x)
    is_fast(drawing, x)
    fast_clipped_sum(model, x, y, 1.0)
    assert not any(layer._forward_hooks or layer.training for layer in model.modules())
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())


# --- bad input --------------------------------------------------------------------------------------------------------

X, Y = batch(4, (1, 2, 2))
REFUSED = {
    "pixels": ({"x": 255 * X}, "x has values"),
    "labels": ({"y": Y[:2]}, "y is"),
    "no model": ({"model": torch.relu}, "model is"),
    "nothing to train": ({"model": nn.Flatten()}, "no parameter"),
    "dtype": ({"x": X.double()}, "x is torch.float64"),
}


@pytest.mark.parametrize(("change", "words"), REFUSED.values(), ids=REFUSED)
def test_refuses(refuses, change, words):
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 10))
    refuses(per_example_gradients, {"model": model, "x": X, "y": Y} | change, words)

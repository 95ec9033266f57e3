"""What holds for every evasion attack within a ball, whatever the model, the shape, the type and the radius."""

import copy
import random
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from spai_lab.attacks.evasion import apgd, auto_attack, bim, mim, nes, pgd, square
from spai_lab.metrics import fooled_rate
from spai_lab.models import mlp, softmax_regression
from spai_lab.threat import fooled, input_gradient

some = settings(max_examples=settings.default.max_examples // 4)
CLASSES = 4  # so many AutoAttack needs


@dataclass(frozen=True)
class Case:
    model: nn.Module
    x: Tensor
    y: Tensor

    def __iter__(self):
        return iter((self.model, self.x, self.y))


@st.composite
def cases(draw, smallest: int = 0, dtypes=(torch.float32, torch.float64)) -> Case:
    """A small random network and images for it, black and white pixels among them."""
    n = draw(st.integers(smallest, 4))
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)))
    dtype = draw(st.sampled_from(dtypes))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    model = mlp(shape, CLASSES, hidden=8, generator=generator).to(dtype).eval()
    x = (1.4 * torch.rand(n, *shape, dtype=dtype, generator=generator) - 0.2).clamp(0, 1)
    return Case(model, x, torch.randint(CLASSES, (n,), generator=generator))


norms = st.sampled_from(["linf", "l2"])
radii = st.floats(0.001, 1)
seeds = st.integers(0, 2**32 - 1)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(autouse=True)
def dead_units_are_no_news():
    """A network of eight random units has a zero gradient at some inputs, and the attacks rightly warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@some
@given(case=cases(), norm=norms, eps=radii, targeted=st.booleans(), seed=seeds)
def test_the_result_stays_in_the_ball_and_in_the_range(perform, attack, few_steps, case, norm, eps, targeted, seed):
    arguments = {"eps": eps, "norm": norm, "targeted": targeted, "generator": seeded(seed)}
    x_adv = perform(attack, *case, **arguments, **few_steps(attack))
    assert (x_adv.shape, x_adv.dtype) == (case.x.shape, case.x.dtype)
    delta = (x_adv - case.x).flatten(1).double().numpy()
    size = np.abs(delta).max(1, initial=0) if norm == "linf" else np.sqrt((delta**2).sum(1))
    assert (size <= eps + 1e-6).all()
    assert ((x_adv >= 0) & (x_adv <= 1)).all()


@some
@given(case=cases(), norm=norms, training=st.booleans(), tracked=st.booleans())
def test_an_attack_leaves_everything_as_it_was(perform, attack, few_steps, case, norm, training, tracked):
    model, x, y = case
    model.train(training)
    frozen, *others = model.parameters()
    frozen.requires_grad_(False)
    for parameter in others:
        parameter.grad = torch.full_like(parameter, 7)
    x.requires_grad_(tracked)
    x.grad = torch.full_like(x, 5) if tracked else None
    before = copy.deepcopy((x.detach(), y, model.state_dict()))
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    filters = list(warnings.filters)

    x_adv = perform(attack, *case, eps=0.1, norm=norm, **few_steps(attack))

    assert not x_adv.requires_grad
    assert x_adv.data_ptr() != x.data_ptr() or x.numel() == 0
    assert torch.equal(x, before[0]) and torch.equal(y, before[1])
    assert all(torch.equal(value, before[2][name]) for name, value in model.state_dict().items())
    assert all(module.training is training for module in model.modules())
    assert [p.requires_grad for p in model.parameters()] == [False] + [True] * len(others)
    assert frozen.grad is None and all((parameter.grad == 7).all() for parameter in others)
    assert x.requires_grad is tracked and (x.grad is None or (x.grad == 5).all())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert (np.random.get_state()[1] == states[2]).all()  # noqa: NPY002
    assert warnings.filters == filters


@some
@given(case=cases(), norm=norms, targeted=st.booleans())
def test_a_ball_of_radius_zero_holds_the_input_alone(perform, attack, few_steps, case, norm, targeted):
    x_adv = perform(attack, *case, eps=0, norm=norm, targeted=targeted, **few_steps(attack))
    assert torch.equal(x_adv, case.x)


@some
@given(case=cases(), norm=norms, seed=seeds)
def test_the_same_generator_gives_the_same_result(perform, attack, few_steps, case, norm, seed):
    first, second = (
        perform(attack, *case, eps=0.1, norm=norm, generator=seeded(seed), **few_steps(attack)) for _ in range(2)
    )
    assert torch.equal(first, second)


@given(case=cases(smallest=1), norm=norms, seed=seeds)
def test_pgd_starts_elsewhere_with_another_seed_or_none(case, norm, seed):
    assume(case.x[0].numel() > 3)
    arguments = {"eps": 0.1, "norm": norm, "steps": 1, "step_size": 1e-6}
    runs = [pgd(*case, generator=generator, **arguments) for generator in (seeded(seed), seeded(seed + 1), None)]
    assert not any(torch.equal(runs[i], runs[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


@given(case=cases(smallest=1, dtypes=[torch.float64]), norm=norms, targeted=st.booleans())
def test_an_image_does_not_depend_on_its_batch(perform, climber, few_steps, case, norm, targeted):
    model, x, y = case
    arguments = {"eps": 0.1, "norm": norm, "targeted": targeted, "random_start": False, **few_steps(climber)}
    together = perform(climber, model, x, y, **arguments)
    alone = [perform(climber, model, x[i : i + 1], y[i : i + 1], **arguments) for i in range(len(x))]
    assert torch.allclose(together, torch.cat(alone), rtol=0, atol=1e-9)


@given(case=cases(smallest=1), norm=norms)
def test_the_memory_layout_does_not_matter(perform, climber, few_steps, case, norm):
    arguments = {"eps": 0.1, "norm": norm, **few_steps(climber)}
    contiguous = perform(climber, *case, generator=seeded(), **arguments)
    strided = case.x.repeat_interleave(2, dim=3)[..., ::2]
    turned = case.x.transpose(2, 3).contiguous().transpose(2, 3)
    for x in (strided, turned):
        assert torch.equal(x, case.x)
        again = perform(climber, case.model, x, case.y, generator=seeded(), **arguments)
        assert torch.allclose(again, contiguous, rtol=0, atol=1e-6)


@some
@given(case=cases(), norm=norms)
def test_no_grad_around_an_attack_changes_nothing(perform, attack, few_steps, case, norm):
    arguments = {"eps": 0.1, "norm": norm, **few_steps(attack)}
    outside = perform(attack, *case, generator=seeded(), **arguments)
    with torch.no_grad():
        inside = perform(attack, *case, generator=seeded(), **arguments)
        assert not torch.is_grad_enabled()
    assert torch.equal(inside, outside)


@some
@given(case=cases(), norm=norms, targeted=st.booleans())
@pytest.mark.parametrize("attack", [apgd, auto_attack, nes, square])
def test_an_image_that_fools_already_comes_back_as_it_was(perform, attack, few_steps, case, norm, targeted):
    model, x, y = case
    targeted = targeted and attack is not auto_attack
    x_adv = perform(attack, model, x, y, eps=0.1, norm=norm, targeted=targeted, **few_steps(attack))
    at_once = fooled(model, x, y, targeted=targeted)
    assert torch.equal(x_adv[at_once], x[at_once])


def test_an_empty_batch_never_reaches_a_model_that_cannot_flatten_it(perform, attack):
    class Stubborn(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.view(x.size(0), -1)  # ambiguous where x has no elements

    x, y = torch.zeros(0, 3, 1, 1), torch.zeros(0, dtype=torch.int64)
    with pytest.raises(RuntimeError):
        Stubborn()(x)
    assert perform(attack, Stubborn(), x, y, eps=0.1).shape == x.shape
    assert pgd(Stubborn(), x, y, eps=0.1, restarts=3).shape == x.shape


@given(seed=seeds, norm=norms, targeted=st.booleans())
def test_the_loss_rises_and_the_loss_of_a_target_falls(perform, climber, few_steps, seed, norm, targeted):
    """With two classes and a linear model the loss is monotone along every path that an attack takes."""
    generator = seeded(seed)
    model = softmax_regression((1, 4, 4), 2, generator=generator).double()
    x = torch.rand(4, 1, 4, 4, dtype=torch.float64, generator=generator)
    y = torch.randint(2, (4,), generator=generator)
    arguments = {"eps": 0.1, "norm": norm, "targeted": targeted, "random_start": False}
    x_adv = perform(climber, model, x, y, **arguments, **few_steps(climber))
    before, after = (F.cross_entropy(model(z), y, reduction="none") for z in (x, x_adv))
    assert ((after < before) if targeted else (after > before)).all()


@given(case=cases(smallest=1), norm=norms, targeted=st.booleans(), seed=seeds)
def test_restarts_keep_what_succeeded(case, norm, targeted, seed):
    arguments = {"eps": 0.1, "norm": norm, "targeted": targeted, "steps": 2}
    once, thrice = (pgd(*case, restarts=n, generator=seeded(seed), **arguments) for n in (1, 3))
    hit = fooled(case.model, once, case.y, targeted=targeted)
    assert torch.equal(once[hit], thrice[hit])
    assert fooled(case.model, thrice, case.y, targeted=targeted)[hit].all()


def test_restarts_try_again_only_where_it_is_needed():
    seen = []

    def gradient(model, x, y):
        seen.append(len(x))
        return input_gradient(model, x, y)

    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[8.0] * 4, [-8.0] * 4]))
        model[1].bias.copy_(torch.tensor([-16.0, 16.0]))
    x = torch.stack([torch.full((1, 2, 2), level) for level in (0.55, 0.9)])
    pgd(model, x, torch.tensor([0, 0]), eps=0.1, steps=2, restarts=3, gradient=gradient)
    assert seen == [2, 2, 1, 1, 1, 1]
    seen.clear()
    pgd(model, x[:1], torch.tensor([0]), eps=0.1, steps=2, restarts=3, gradient=gradient)
    assert seen == [1, 1]


def test_success_rises_with_eps_and_targets_are_reached(perform, climber, few_steps, digits):
    from spai_lab.training import reference

    model = reference("lenet", "digits")
    x, y = digits.x_test[:64], digits.y_test[:64]
    for labels, targeted in ((y, False), ((y + 1) % 10, True)):

        def share(eps, labels=labels, targeted=targeted):
            x_adv = perform(climber, model, x, labels, eps=eps, targeted=targeted, **few_steps(climber))
            return fooled_rate(model, x_adv, labels, targeted=targeted).value

        shares = [share(eps) for eps in (0, 0.1, 0.3)]
        assert shares[0] < 0.2 and shares[0] < shares[1] <= shares[2]


def test_the_hook_decides_where_an_attack_goes(perform, climber, few_steps):
    model = softmax_regression((1, 2, 2), 2, generator=seeded())
    x = torch.full((2, 1, 2, 2), 0.5)
    x_adv = perform(
        *(climber, model, x, torch.tensor([0, 1])),
        eps=0.1,
        random_start=False,
        gradient=lambda model, x, y: torch.ones_like(x),
        **few_steps(climber),
    )
    assert torch.allclose(x_adv, x + 0.1)


@pytest.mark.parametrize(("attack", "factor"), [(bim, 1), (mim, 1), (pgd, 2.5)])
def test_default_step_size_is_the_one_that_the_docstring_says(attack, factor):
    visited = []

    def uphill(model, x, y):
        visited.append(x.clone())
        return torch.ones_like(x)

    x = torch.full((2, 1, 4, 4), 0.5)
    start = {"random_start": False} if attack is pgd else {}
    attack(mlp((1, 4, 4), 3), x, torch.tensor([0, 1]), eps=0.2, steps=10, gradient=uphill, **start)
    torch.testing.assert_close(visited[1] - visited[0], torch.full_like(x, factor * 0.2 / 10))

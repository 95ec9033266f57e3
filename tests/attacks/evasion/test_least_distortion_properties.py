"""What holds for every evasion attack that takes no radius: it is free to go anywhere, but must not cheat."""

import copy
import random
import warnings
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from spai_lab.attacks.evasion import (
    boundary,
    carlini_wagner,
    deepfool,
    fab,
    flow_field,
    hop_skip_jump,
    jsma,
    lbfgs,
    one_pixel,
    spatial,
    zoo,
)
from spai_lab.models import mlp, softmax_regression
from spai_lab.query import Query
from spai_lab.threat import fooled

CLASSES = 4
some = settings(max_examples=settings.default.max_examples // 5)
SHORT = {
    "deepfool": partial(deepfool, steps=5),
    "deepfool in L-inf": partial(deepfool, steps=5, norm="linf"),
    "lbfgs": partial(lbfgs, steps=5, searches=3),
    "jsma": partial(jsma, gamma=0.5),
    "jsma of one pixel": partial(jsma, gamma=0.5, pixels=1),
    "carlini_wagner": partial(carlini_wagner, steps=10, searches=3, initial_c=0.1),
    "carlini_wagner in L-inf": partial(carlini_wagner, steps=10, searches=2, initial_c=1, norm="linf"),
    "carlini_wagner in L0": partial(carlini_wagner, steps=10, searches=2, initial_c=1, norm="l0"),
    "fab": partial(fab, steps=5),
    "fab in L2": partial(fab, steps=5, norm="l2"),
    "flow_field": partial(flow_field, steps=5, step_size=0.5),
    "boundary": partial(boundary, steps=10),
    "hop_skip_jump": partial(hop_skip_jump, steps=2, initial_samples=4),
    "hop_skip_jump in L-inf": partial(hop_skip_jump, steps=2, initial_samples=4, norm="linf"),
    "zoo": partial(zoo, steps=5, searches=2, coordinates=4, learning_rate=0.1),
    "one_pixel": partial(one_pixel, population=5, generations=2),
    "spatial": partial(spatial, grid=(3, 3)),
    "spatial at random": partial(spatial, tries=3),
}
BLACK_BOX = {boundary, hop_skip_jump, zoo, one_pixel, spatial}
UNTARGETED = {deepfool, boundary, hop_skip_jump}  # the last two need images of the target class to start from
RANDOM = {boundary, hop_skip_jump, zoo, one_pixel}
KEEP_THE_BEST = {one_pixel, spatial}  # return what came nearest to success, too


@dataclass(frozen=True)
class Case:
    model: nn.Module
    x: Tensor
    y: Tensor

    def __iter__(self):
        return iter((self.model, self.x, self.y))


@st.composite
def cases(draw, smallest: int = 0, dtypes=(torch.float32, torch.float64)) -> Case:
    """A small random network and images for it, most of which it reads rightly."""
    n = draw(st.integers(smallest, 4))
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)))
    dtype = draw(st.sampled_from(dtypes))
    generator = seeded(draw(seeds))
    model = mlp(shape, CLASSES, hidden=8, generator=generator).to(dtype).eval()
    x = (1.4 * torch.rand(n, *shape, dtype=dtype, generator=generator) - 0.2).clamp(0, 1)
    said = model(x).argmax(1) if n else torch.zeros(0, dtype=torch.int64)
    return Case(model, x, (said + torch.tensor([0, 0, 1, 0])[:n]) % CLASSES)


seeds = st.integers(0, 2**32 - 1)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def run(attack, model, x: Tensor, y: Tensor, *, targeted: bool = False, seed: int | None = 0) -> Tensor:
    aim = {} if attack.func in UNTARGETED else {"targeted": targeted}
    victim = Query(model, "logits") if attack.func in BLACK_BOX else model
    return attack(victim, x, y, **aim, generator=None if seed is None else seeded(seed))


def aims(attack, targeted: bool) -> bool:
    return targeted and attack.func not in UNTARGETED


@pytest.fixture(params=SHORT.values(), ids=SHORT, scope="module")
def attack(request):
    return request.param


@pytest.fixture(autouse=True)
def dead_units_are_no_news():
    """A network of eight random units has a zero gradient at some inputs, and the attacks rightly warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def test_every_public_attack_without_a_radius_is_here():
    from spai_lab.attacks import evasion

    return_no_images = {"Ensemble", "advgan", "auto_attack_verdict", "bpda", "eot", "patch", "substitute"}
    elsewhere = {"apgd", "auto_attack", "bim", "fgsm", "mim", "nes", "pgd", "square", "transfer"}  # test_properties.py
    tables = {"transfer_matrix", "universal_perturbation"}
    here = {attack.func.__name__ for attack in SHORT.values()}
    assert here == set(evasion.__all__) - return_no_images - elsewhere - tables


@some
@given(case=cases(), targeted=st.booleans(), seed=seeds)
def test_an_image_fools_the_model_or_comes_back_as_it_was(attack, case, targeted, seed):
    model, x, y = case
    x_adv = run(attack, *case, targeted=targeted, seed=seed)
    assert (x_adv.shape, x_adv.dtype) == (x.shape, x.dtype)
    assert ((x_adv >= 0) & (x_adv <= 1)).all()
    targeted = aims(attack, targeted)
    unchanged = (x_adv == x).flatten(1).all(1)
    assert unchanged[fooled(model, x, y, targeted=targeted)].all()
    if attack.func not in KEEP_THE_BEST:
        assert (unchanged | fooled(model, x_adv, y, targeted=targeted)).all()


@some
@given(case=cases(), training=st.booleans(), tracked=st.booleans())
def test_an_attack_leaves_everything_as_it_was(attack, case, training, tracked):
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

    x_adv = run(attack, model, x, y, seed=None)

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
@given(case=cases(smallest=1), seed=seeds)
def test_the_same_generator_gives_the_same_result_with_and_without_no_grad(attack, case, seed):
    outside = run(attack, *case, seed=seed)
    with torch.no_grad():
        inside = run(attack, *case, seed=seed)
        assert not torch.is_grad_enabled()
    assert torch.equal(inside, outside)


@settings(max_examples=settings.default.max_examples // 10)
@given(case=cases(smallest=2, dtypes=[torch.float64]))
def test_what_is_not_random_does_not_depend_on_the_batch(case):
    model, x, y = case
    for name, attack in SHORT.items():
        if attack.func in RANDOM or name == "spatial at random":
            continue
        together = run(attack, model, x, y)
        alone = torch.cat([run(attack, model, x[i : i + 1], y[i : i + 1]) for i in range(len(x))])
        assert torch.allclose(together, alone, rtol=0, atol=1e-6), name


@some
@given(case=cases(smallest=1))
def test_the_memory_layout_does_not_matter(attack, case):
    model, x, y = case
    turned = x.transpose(2, 3).contiguous().transpose(2, 3)
    assert torch.equal(turned, x)
    assert torch.allclose(run(attack, model, turned, y), run(attack, model, x, y), rtol=0, atol=1e-5)


def test_where_nothing_can_be_found_the_image_comes_back_as_it_was(attack):
    """The first class leads by more than any image can make up for."""
    model = softmax_regression((1, 4, 4), CLASSES, generator=seeded())
    model[-1].bias.data[0] += 1e4
    x = torch.rand(3, 1, 4, 4, generator=seeded(1))
    x_adv = run(attack, model, x, torch.zeros(3, dtype=torch.int64))
    assert torch.equal(x_adv, x) or attack.func in KEEP_THE_BEST


def test_an_empty_batch_never_reaches_a_model_that_cannot_flatten_it(attack):
    class Stubborn(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.view(x.size(0), -1)  # ambiguous where x has no elements

    x, y = torch.zeros(0, 3, 1, 1), torch.zeros(0, dtype=torch.int64)
    assert run(attack, Stubborn(), x, y).shape == x.shape


MODEL = softmax_regression((1, 4, 4), CLASSES, generator=seeded())
X = torch.full((2, 1, 4, 4), 0.5)
Y = MODEL(X).argmax(1)
WRONG = [
    ({"x": None}, "x is None", "(N, C, H, W)"),
    ({"x": X * 255}, "x has values from 127.5 to 127.5", "[0, 1]"),
    ({"x": X * torch.nan}, "x contains NaN"),
    ({"x": X.double()}, "x is torch.float64", "torch.float32"),
    ({"y": None}, "y is None", "int64 labels of shape (2,)"),
    ({"y": Y[:1]}, "shape (1,)", "shape (2,)"),
    ({"y": Y - 9}, "y has a label", "classes from 0"),
    ({"generator": 0}, "generator is 0", "torch.Generator"),
    ({"targeted": 3}, "targeted is 3", "True or False"),
    ({"model": nn.Sequential(MODEL, nn.Softmax(1))}, "model returns probabilities", "logits"),
    ({"model": nn.Flatten(2)}, "model returns a float32 tensor of shape (2, 1, 16)", "(2, K)"),
    ({"model": lambda x: MODEL(x) * torch.nan}, "model returns NaN", "finite logits"),
]


@pytest.mark.parametrize(("changes", *["words"]), [(row[0], row[1:]) for row in WRONG])
def test_bad_input_is_refused_with_a_sentence_that_helps(attack, refuses, changes, words):
    if attack.func is deepfool:
        changes = {name: value for name, value in changes.items() if name != "targeted"}
    if not changes:
        return
    arguments = {"model": MODEL, "x": X, "y": Y} | changes
    if attack.func in BLACK_BOX:
        arguments["query"] = Query(arguments.pop("model"))
    refuses(attack, arguments, *words)


def test_a_label_that_the_model_does_not_know_is_refused(attack, refuses):
    """Decision-based attacks cannot know which labels there are."""
    if attack.func in {boundary, hop_skip_jump}:
        return
    victim = {"query": Query(MODEL)} if attack.func in BLACK_BOX else {"model": MODEL}
    refuses(attack, {**victim, "x": X, "y": Y + CLASSES}, "y has a label", "0 to 3")


@pytest.mark.parametrize("name", [name for name, attack in SHORT.items() if attack.func in BLACK_BOX])
def test_a_black_box_attack_refuses_the_bare_model(refuses, name):
    refuses(SHORT[name], {"query": MODEL, "x": X, "y": Y}, "query is", "a Query, which holds the model")


@pytest.mark.parametrize("name", ["zoo", "one_pixel", "spatial"])
def test_logits_that_rounding_makes_look_like_probabilities_are_no_error(name):
    def model(x: Tensor) -> Tensor:
        return torch.tensor([0.9, 0.2, 0.1, 0.3]) + 0 * x.flatten(1)[:, :1]

    rounded = Query(model, "logits", decimals=0)  # 1, 0, 0, 0
    assert SHORT[name](rounded, X, torch.zeros(2, dtype=torch.int64)).shape == X.shape

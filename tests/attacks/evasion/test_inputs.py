"""Every argument of every evasion attack within a ball, given wrongly, and what the attack says to it."""

import inspect
import math
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from spai_lab.attacks.evasion import bim, fgsm, mim, pgd
from spai_lab.checks import SuspiciousResult
from spai_lab.models import lenet, softmax_regression
from spai_lab.query import Query

X = torch.full((2, 1, 4, 4), 0.5)
MODEL = softmax_regression((1, 4, 4), 4, generator=torch.Generator().manual_seed(0))
Y = MODEL(X).argmax(1)  # read rightly: an attack that starts with a look has something to do
VALID = {"x": X, "y": Y, "eps": 0.1}


class Rounded(nn.Module):
    """A staircase: differentiable in name, with a gradient of zero everywhere."""

    def forward(self, x):
        return MODEL(torch.round(x * 4) / 4)


def returning(*values):
    """A model that gives these logits, whatever it sees."""
    return lambda x: torch.tensor(values) + 0 * x.flatten(1)[:, :1]


NUMBER = "accepted: a finite number"
MODELS = [
    (nn.Sequential(MODEL, nn.Softmax(1)), "model returns probabilities", "logits"),
    (nn.Flatten(2), "model returns a float32 tensor of shape (2, 1, 16)", "(2, K)"),
    (lenet((3, 12, 12), 4), "model fails on x of shape (2, 1, 4, 4)"),
    (softmax_regression((1, 4, 4), 4).double(), "x is torch.float32", "torch.float64"),
]
FUNCTIONS = [
    (returning(0.0, math.nan, 1.0, 2.0), "model returns NaN", "finite logits"),
    (returning(0.0, math.inf, 1.0, 2.0), "infinite", "finite logits"),
    (lambda x: MODEL(x)[:1], "model returns a float32 tensor of shape (1, 4)", "(2, K)"),
    (lambda x: MODEL(x)[:, :1], "model returns a float32 tensor of shape (2, 1)", "K at least 2"),
    (lambda x: MODEL(x).tolist(), "model returns", "logits of shape (2, K)"),
    (lambda x: MODEL(x).round().long(), "model returns an int64 tensor", "logits"),
    (lambda: None, "model fails on x of shape (2, 1, 4, 4)"),
]
WRONG = {
    "model": [
        (None, "model is None", "called"),
        ("lenet", "model is 'lenet'", "called"),
        (lambda x: MODEL(x.detach()), "without a gradient", "differentiable model", "chapter 03"),
        (lambda x: 5 * F.one_hot(MODEL(x).argmax(1), 4).float(), "without a gradient", "differentiable model"),
        (lambda x: MODEL(x + (x * 0).sqrt()), "NaN", "finite gradients"),
        *MODELS,
        *FUNCTIONS,
    ],
    "query": [
        (None, "query is None", "a Query"),
        (MODEL, "query is", "a Query, which holds the model"),
        (Query(MODEL, "labels"), "query reveals 'labels'", "'scores' or 'logits'"),
        (Query(MODEL, "top-2"), "query reveals 'top-2'", "'scores' or 'logits'"),
        *[(Query(model), *words) for model, *words in MODELS + FUNCTIONS],
    ],
    "surrogates": [
        (None, "surrogates is None", "at least one torch.nn.Module"),
        (MODEL, "surrogates is", "a list"),
        ([], "surrogates is []", "at least one"),
        ([MODEL, None], "surrogates is", "a list of at least one torch.nn.Module"),
        *[([model], *words) for model, *words in MODELS],
        *[([MODEL, model], *words) for model, *words in MODELS],
    ],
    "x": [
        (None, "x is None", "(N, C, H, W)"),
        (X.numpy(), "x is", "floating point tensor"),
        ((X * 255).to(torch.uint8), "x is a uint8 tensor", "floating point tensor"),
        (torch.tensor(0.5), "x is a float32 tensor of shape ()", "(N, C, H, W)"),
        (torch.zeros(2, 0, 4, 4), "x is a float32 tensor of shape (2, 0, 4, 4)", "(N, C, H, W)"),
        (X * 255, "x has values from 127.5 to 127.5", "[0, 1]", "divide"),
        (X - 0.6, "x has values from -0.1", "[0, 1]"),
        (X * math.nan, "x contains NaN", "[0, 1]"),
        (X / 0, "x has values from inf", "[0, 1]"),
        (X.double(), "x is torch.float64", "torch.float32"),
        (X.expand(2, 3, 4, 4), "model fails on x of shape (2, 3, 4, 4)"),
        (X[0], "y is an int64 tensor of shape (2,)", "(1,)"),
    ],
    "y": [
        (None, "y is None", "int64 labels of shape (2,)"),
        ([0, 2], "y is [0, 2]", "int64 labels"),
        (Y.float(), "y is a float32 tensor", "int64 labels"),
        (Y.int(), "y is an int32 tensor", "int64 labels"),
        (torch.eye(4)[Y].long(), "shape (2, 4)", "int64 labels of shape (2,)"),
        (Y[:1], "shape (1,)", "shape (2,)"),
        (torch.tensor([0, 4]), "y has a label 4", "0 to 3"),
        (torch.tensor([-100, 0]), "y has a label -100", "classes from 0"),
    ],
    "eps": [
        (-0.1, "eps is -0.1", NUMBER, "pixel units"),
        (math.nan, "eps is nan", NUMBER),
        (math.inf, "eps is inf", NUMBER),
        ("0.1", "eps is '0.1'", NUMBER),
        (None, "eps is None", NUMBER),
        (True, "eps is True", NUMBER),
        (torch.tensor(0.1), "eps is a float32 tensor", NUMBER),
        (8, "eps is 8", "from 0 to 1", "8/255"),
    ],
    "norm": [
        ("l7", "norm is 'l7'", "'linf', 'l2'"),
        (2, "norm is 2", "'linf', 'l2'"),
        (np.inf, "norm is inf", "'linf', 'l2'"),
        ("l1", "norm is 'l1'", "'linf', 'l2'"),
        (None, "norm is None", "'linf', 'l2'"),
    ],
    "steps": [
        (0, "steps is 0", "whole number of at least 1"),
        (-1, "steps is -1", "whole number"),
        (2.5, "steps is 2.5", "whole number"),
        (True, "steps is True", "whole number"),
        (None, "steps is None", "whole number"),
    ],
    "step_size": [
        (0, "step_size is 0", "above 0"),
        (-0.1, "step_size is -0.1", "above 0"),
        (math.nan, "step_size is nan", "above 0"),
        (math.inf, "step_size is inf", "above 0"),
        ("0.1", "step_size is '0.1'", "above 0"),
    ],
    "decay": [(-1, "decay is -1", "at least 0"), (math.nan, "decay is nan", NUMBER), ("1", "decay is '1'", NUMBER)],
    "restarts": [(0, "restarts is 0", "at least 1"), (1.5, "restarts is 1.5", "whole number")],
    "random_start": [(1, "random_start is 1", "True or False"), (None, "random_start is None", "True or False")],
    "targeted": [(3, "targeted is 3", "True or False"), (Y, "targeted is an int64 tensor", "True or False")],
    "gradient": [
        (None, "gradient is None", "called"),
        (X, "gradient is a float32 tensor", "called"),
        (lambda model, x, y: None, "gradient returns is None", "like x"),
        (lambda model, x, y: x[:1], "gradient returns is a float32 tensor of shape (1, 1, 4, 4)", "(2, 1, 4, 4)"),
        (lambda model, x, y: x[:, :, :1, :1], "shape (2, 1, 1, 1)", "like x"),
        (lambda model, x, y: x.double(), "a float64 tensor", "a float32 tensor"),
        (lambda model, x, y: x * math.nan, "gradient returns NaN", "finite"),
        (lambda model, x, y: x / 0, "infinite", "finite"),
    ],
    "generator": [
        (0, "generator is 0", "torch.Generator"),
        (np.random.default_rng(), "generator is", "torch.Generator"),
        (torch.manual_seed, "generator is", "torch.Generator"),
    ],
}


CASES = [
    pytest.param(name, value, words, id=f"{name}-{number}")
    for name, rows in WRONG.items()
    for number, (value, *words) in enumerate(rows)
]


def valid(attack, few_steps, model: nn.Module = MODEL) -> dict:
    """Arguments that the attack takes well."""
    victim = {"model": model, "query": Query(model), "surrogates": [model]}
    of_victim = {name: value for name, value in victim.items() if name in inspect.signature(attack).parameters}
    return {**of_victim, **VALID, **few_steps(attack)}


@pytest.mark.parametrize("attack", [fgsm, bim, mim, pgd])
def test_the_table_knows_every_argument(attack):
    assert set(inspect.signature(attack).parameters) <= set(WRONG)


@pytest.mark.parametrize(("name", "value", "words"), CASES)
def test_bad_input_is_refused_with_a_sentence_that_helps(attacks, few_steps, refuses, name, value, words):
    for attack in attacks:
        if name in inspect.signature(attack).parameters:
            refuses(attack, {**valid(attack, few_steps), name: value}, *words)


def test_the_largest_l2_radius_is_the_distance_of_black_and_white(attack, few_steps, refuses):
    arguments = {**valid(attack, few_steps), "norm": "l2"}
    assert attack(**{**arguments, "eps": 4.0}).shape == X.shape
    refuses(attack, {**arguments, "eps": 4.1}, "eps is 4.1", "from 0 to 4")


def test_inference_mode_is_named_rather_than_the_model(white_box, few_steps, refuses):
    with torch.inference_mode():
        refuses(white_box, valid(white_box, few_steps), "torch.inference_mode() is on", "no_grad")


def test_zero_gradients_warn_once_and_name_the_chapter(white_box, few_steps):
    filters = list(warnings.filters)
    with pytest.warns(SuspiciousResult) as caught:
        white_box(**valid(white_box, few_steps, Rounded()))
    assert len(caught) == 1
    assert "2 of 2 inputs" in str(caught[0].message) and "Chapter 07 (gradient masking)" in str(caught[0].message)
    assert warnings.filters == filters


def test_restarts_do_not_repeat_the_warning():
    with pytest.warns(SuspiciousResult) as caught:
        pgd(Rounded(), **VALID, steps=2, restarts=3)
    assert len(caught) == 1


def test_a_sound_run_does_not_warn(attack, few_steps):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attack(**valid(attack, few_steps))

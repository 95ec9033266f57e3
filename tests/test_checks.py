"""The checks by themselves: what they let through, what they say, and a warning that keeps to itself."""

import math
import warnings
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spai_lab import checks
from spai_lab.checks import SuspiciousResult

X = torch.full((2, 1, 4, 4), 0.5)
Y = torch.tensor([0, 1])
LOGITS = torch.tensor([[2.0, -1.0], [0.5, 3.0]])

ACCEPTED = [
    (checks.check_number, {"name": "eps", "value": value, "low": 0, "high": 1})
    for value in (0, 1, 0.3, Fraction(1, 3), np.float32(0.3), np.int64(1))
] + [
    (checks.check_number, {"name": "bias", "value": -1e300}),
    (checks.check_count, {"name": "steps", "value": 1}),
    (checks.check_count, {"name": "steps", "value": np.int32(7)}),
    (checks.check_choice, {"name": "norm", "value": "l2", "accepted": ("linf", "l2")}),
    (checks.check_flag, {"name": "targeted", "value": False}),
    (checks.check_callable, {"name": "gradient", "value": len}),
    (checks.check_generator, {"generator": None, "device": X.device}),
    (checks.check_generator, {"generator": torch.Generator(), "device": X.device}),
    *[(checks.check_batch, {"name": "x", "value": x}) for x in (X, X[:0], X.double(), X.half(), X.flatten(1), -X)],
    (checks.check_like, {"name": "x_adv", "value": X - 1, "x": X}),
    *[(checks.check_images, {"x": x}) for x in (X, X[:0], X.round(), 0 * X, X.half())],
    *[(checks.check_labels, {"y": y, "x": X}) for y in (Y, Y + 1000)],
    (checks.check_labels, {"y": Y[:0], "x": X[:0]}),
    (checks.check_model, {"model": lambda x: x, "x": X}),
    (checks.check_model, {"model": torch.nn.Flatten(), "x": X.double()}),
    (checks.check_ball, {"x": X, "eps": 0, "norm": "linf"}),
    (checks.check_ball, {"x": X, "eps": 4, "norm": "l2"}),
    (checks.check_steps, {"steps": 3, "step_size": None}),
    (checks.check_steps, {"steps": 3, "step_size": 0.1}),
    (checks.check_classes, {"y": Y, "scores": LOGITS}),
    (checks.check_logits, {"logits": LOGITS, "y": Y}),
    (checks.check_logits, {"logits": LOGITS.log_softmax(1), "y": Y}),
    (checks.check_logits, {"logits": torch.zeros(2, 2), "y": Y}),
    (checks.check_logits, {"logits": LOGITS[:0], "y": Y[:0]}),
]

REFUSED = [
    (checks.check_number, {"name": "eps", "value": math.nan}, "eps is nan", "a finite number"),
    (checks.check_number, {"name": "eps", "value": -math.inf}, "eps is -inf", "a finite number"),
    (checks.check_number, {"name": "eps", "value": 2, "low": 0, "high": 1}, "eps is 2", "from 0 to 1"),
    (checks.check_number, {"name": "eps", "value": 0, "low": 0, "exclusive": True}, "eps is 0", "above 0"),
    (checks.check_number, {"name": "eps", "value": 1j}, "eps is 1j", "a finite number"),
    (checks.check_number, {"name": "eps", "value": Decimal(1)}, "eps is Decimal", "a finite number"),
    (checks.check_number, {"name": "eps", "value": False}, "eps is False", "a finite number"),
    (checks.check_number, {"name": "eps", "value": -1, "low": 0, "hint": " (a hint)"}, "(a hint)"),
    (checks.check_count, {"name": "steps", "value": 3.0}, "steps is 3.0", "a whole number of at least 1"),
    (checks.check_count, {"name": "steps", "value": True}, "steps is True", "a whole number"),
    (checks.check_count, {"name": "hits", "value": -1, "low": 0}, "hits is -1", "at least 0"),
    (checks.check_choice, {"name": "norm", "value": "L2", "accepted": ("linf", "l2")}, "norm is 'L2'", "'linf', 'l2'"),
    (checks.check_choice, {"name": "norm", "value": ["l2"], "accepted": ("l2",)}, "norm is ['l2']", "'l2'"),
    (checks.check_flag, {"name": "targeted", "value": np.bool_(True)}, "targeted is", "True or False"),
    (checks.check_callable, {"name": "gradient", "value": 3}, "gradient is 3", "called"),
    (checks.check_generator, {"generator": 0, "device": X.device}, "generator is 0", "torch.Generator"),
    (checks.check_generator, {"generator": torch.Generator(), "device": torch.device("meta")}, "on cpu", "of x, meta"),
    (checks.check_batch, {"name": "g", "value": X[0, 0, 0]}, "g is a float32 tensor of shape (4,)", "(N, C, H, W)"),
    (checks.check_batch, {"name": "g", "value": X.bool()}, "g is a bool tensor", "floating point"),
    (checks.check_batch, {"name": "g", "value": torch.zeros(3, 0)}, "shape (3, 0)", "(N, C, H, W)"),
    (checks.check_like, {"name": "d", "value": X[:1], "x": X}, "d is", "(1, 1, 4, 4)", "(2, 1, 4, 4), like x"),
    (checks.check_like, {"name": "d", "value": X.double(), "x": X}, "d is a float64", "a float32"),
    (checks.check_like, {"name": "d", "value": X.to("meta"), "x": X}, "d is on meta", "of x, cpu"),
    (checks.check_images, {"x": X * 3, "name": "x_val"}, "x_val has values from 1.5 to 1.5", "divide"),
    (checks.check_images, {"x": X - 0.5 - 1e-6}, "x has values from -1e-06", "[0, 1]"),
    (checks.check_images, {"x": X * math.nan}, "x contains NaN", "[0, 1]"),
    (checks.check_labels, {"y": Y[:1], "x": X}, "y is an int64 tensor of shape (1,)", "shape (2,)"),
    (checks.check_labels, {"y": -Y, "x": X, "name": "target"}, "target has a label -1", "classes from 0"),
    (checks.check_labels, {"y": Y.to("meta"), "x": X}, "y is on meta", "of x, cpu"),
    (checks.check_model, {"model": 3, "x": X}, "model is 3", "called"),
    (checks.check_model, {"model": torch.nn.Linear(4, 4).double(), "x": X}, "x is torch.float32", "torch.float64"),
    (checks.check_ball, {"x": X, "eps": 4.01, "norm": "l2"}, "eps is 4.01", "from 0 to 4"),
    (checks.check_ball, {"x": X, "eps": 0.1, "norm": "l1"}, "norm is 'l1'", "'linf', 'l2'"),
    (checks.check_steps, {"steps": 0, "step_size": None}, "steps is 0", "at least 1"),
    (checks.check_steps, {"steps": 1, "step_size": 0.0}, "step_size is 0.0", "above 0"),
    (checks.check_classes, {"y": Y + 1, "scores": LOGITS, "name": "toward"}, "toward has a label 2", "0 to 1"),
    (checks.check_logits, {"logits": None, "y": Y}, "model returns None", "(2, K)"),
    (checks.check_logits, {"logits": LOGITS[0], "y": Y}, "shape (2,)", "(2, K), K at least 2"),
    (checks.check_logits, {"logits": LOGITS.long(), "y": Y}, "an int64 tensor", "logits"),
    (checks.check_logits, {"logits": LOGITS * math.nan, "y": Y}, "NaN", "finite logits"),
    (checks.check_logits, {"logits": LOGITS, "y": Y + 1}, "y has a label 2", "0 to 1"),
    (checks.check_logits, {"logits": LOGITS.softmax(1), "y": Y}, "probabilities", "before the softmax"),
]


def name_of(part):
    return part.__name__ if callable(part) else ""


def test_no_check_is_left_out():
    public = {check for name, check in vars(checks).items() if name.startswith("check_")} - {
        checks.check_attack,
        checks.check_inputs,
    }
    assert public == {row[0] for row in ACCEPTED} == {row[0] for row in REFUSED}


@pytest.mark.parametrize(("check", "arguments"), ACCEPTED, ids=name_of)
def test_good_input_passes_in_silence(check, arguments):
    assert check(**arguments) is None


@pytest.mark.parametrize(("check", "arguments", "words"), [(c, a, w) for c, a, *w in REFUSED], ids=name_of)
def test_bad_input_is_refused(check, arguments, words, refuses):
    refuses(check, arguments, *words)


@given(st.integers(1, 5), st.integers(2, 12), st.integers(0, 2**32 - 1))
def test_every_softmax_is_recognized_and_no_logits_of_a_network_are(n, classes, seed):
    logits = 5 * torch.randn(n, classes, generator=torch.Generator().manual_seed(seed))
    y = torch.zeros(n, dtype=torch.int64)
    checks.check_logits(logits, y)
    with pytest.raises(ValueError, match="probabilities"):
        checks.check_logits(logits.softmax(1), y)


def test_a_message_never_shows_a_whole_tensor():
    assert checks.describe(torch.zeros(1000, 1000)) == "a float32 tensor of shape (1000, 1000)"
    assert checks.describe(Y) == "an int64 tensor of shape (2,)"
    assert len(checks.describe(list(range(1000)))) < 60


def test_a_warning_names_its_chapter_and_leaves_the_filters_alone():
    filters = list(warnings.filters)
    with pytest.warns(SuspiciousResult, match=r"Odd\. Chapter 07 \(gradient masking\) explains it\.") as caught:
        checks.warn_suspicious("Odd.", "07 (gradient masking)")
    assert len(caught) == 1
    assert warnings.filters == filters

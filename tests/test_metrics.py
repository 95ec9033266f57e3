"""Rates against scipy's intervals, and success counted by hand."""

import inspect
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from torch import nn

from spai_lab.attacks.evasion import fgsm
from spai_lab.metrics import Rate, accuracy_rate, fooled_rate, robustness_curve

# The pixels are the logits of four classes.
MODEL = nn.Flatten()
X = torch.eye(4)[[0, 1, 2, 3, 0]].view(5, 4, 1, 1) * 0.9
Y = torch.tensor([0, 1, 2, 0, 0])


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_is_wilsons(counts):
    expected = binomtest(*counts).proportion_ci(method="wilson")
    assert Rate(*counts).interval == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_value_and_stays_in_the_unit_interval(counts):
    rate = Rate(*counts)
    low, high = rate.interval
    assert 0 <= low <= rate.value + 1e-12 and rate.value - 1e-12 <= high <= 1
    assert rate.value == counts[0] / counts[1]


def test_a_rate_reads_like_a_sentence():
    assert str(Rate(1234, 5000)) == "24.7 % (n = 5,000, 95 % interval 23.5 to 25.9)"
    assert str(Rate(0, 1)).startswith("0.0 % (n = 1, ")
    assert str(Rate(1, 1)).startswith("100.0 % (n = 1, ")


@pytest.mark.parametrize("batch_size", [1, 2, 5, 1000])
def test_rates_count_by_the_largest_logit(batch_size):
    assert accuracy_rate(MODEL, X, Y, batch_size=batch_size) == Rate(4, 5)
    assert fooled_rate(MODEL, X, Y, batch_size=batch_size) == Rate(1, 5)
    assert fooled_rate(MODEL, X, Y, targeted=True, batch_size=batch_size) == Rate(4, 5)


def test_a_curve_falls_from_the_clean_accuracy_to_zero():
    curve = robustness_curve(MODEL, X, Y, fgsm, (0, 0.4, 0.5))
    assert list(curve) == [0, 0.4, 0.5]
    assert [rate.hits for rate in curve.values()] == [4, 4, 0]  # a gap of 0.9 closes once eps passes half of it


VALID = {
    Rate: {"hits": 1, "trials": 2},
    accuracy_rate: {"model": MODEL, "x": X, "y": Y},
    fooled_rate: {"model": MODEL, "x_adv": X, "y": Y},
    robustness_curve: {"model": MODEL, "x": X, "y": Y, "attack": fgsm, "eps": [0.1]},
}
LABELS = [(Y[:2], "y is an int64 tensor of shape (2,)", "(5,)"), (Y + 4, "y has a label 6", "0 to 3")]
MODELS = [(None, "model is None", "called"), (nn.Sequential(MODEL, nn.Softmax(1)), "probabilities", "logits")]
SIZES = [(0, "batch_size is 0", "at least 1"), (None, "batch_size is None", "whole number")]
WRONG = {
    Rate: {
        "hits": [
            (-1, "hits is -1", "at least 0"),
            (3, "hits is 3", "from 0 to 2"),
            (0.5, "hits is 0.5", "whole number"),
        ],
        "trials": [(0, "trials is 0", "at least 1"), (math.nan, "trials is nan", "whole number")],
    },
    accuracy_rate: {
        "model": MODELS,
        "x": [(X * 255, "x has values", "[0, 1]"), (X[:0], "y is", "(0,)")],
        "y": LABELS,
        "batch_size": SIZES,
    },
    fooled_rate: {
        "model": MODELS,
        "x_adv": [(X * 2, "x_adv has values", "[0, 1]"), (X.int(), "x_adv is an int32 tensor", "floating point")],
        "y": LABELS,
        "targeted": [(1, "targeted is 1", "True or False")],
        "batch_size": SIZES,
    },
    robustness_curve: {
        "model": MODELS,
        "x": [(X * 255, "x has values", "[0, 1]")],
        "y": LABELS,
        "attack": [("fgsm", "attack is 'fgsm'", "called")],
        "eps": [(0.1, "eps is 0.1", "a list of radii"), ([-1], "eps is -1", "pixel units")],
        "arguments": [({"norm": "l7"}, "norm is 'l7'", "'linf', 'l2'")],
    },
}


@pytest.mark.parametrize("function", WRONG, ids=lambda function: function.__name__)
def test_bad_input_is_refused_with_a_sentence_that_helps(function, refuses):
    assert set(WRONG[function]) == set(inspect.signature(function).parameters)
    for name, rows in WRONG[function].items():
        for value, *words in rows:
            given_wrongly = value if name == "arguments" else {name: value}
            refuses(function, {**VALID[function], **given_wrongly}, *words)


def test_a_rate_of_nothing_is_refused(refuses):
    refuses(
        accuracy_rate, {"model": MODEL, "x": X[:0], "y": Y[:0]}, "x is a float32 tensor of shape (0,", "at least one"
    )
    refuses(fooled_rate, {"model": MODEL, "x_adv": X[:0], "y": Y[:0]}, "x_adv is", "at least one input")

"""Rates and medians against scipy's intervals, and success counted by hand."""

import inspect
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest
from sklearn.metrics import roc_auc_score, roc_curve
from torch import nn

from spai_lab.attacks.evasion import fgsm
from spai_lab.metrics import (
    Rate,
    accuracy_rate,
    distortion_by_queries,
    fooled_rate,
    median_of,
    robustness_curve,
    roc,
)
from spai_lab.query import Query

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


@pytest.mark.parametrize("count", [1, 2, 5, 6, 7, 17, 40, 100, 256])
def test_the_interval_of_a_median_holds_it_with_95_percent(count):
    values = torch.randperm(count, generator=torch.Generator().manual_seed(count)).add(1).tolist()
    found = median_of(values)
    assert found.value == (count + 1) / 2
    rank = int(binom.ppf(0.025, count, 0.5))  # the values are their own ranks
    if binom.cdf(rank, count, 0.5) > 0.025:
        rank -= 1
    expected = (rank + 1, count - rank) if rank >= 0 else (0, math.inf)
    assert (found.low, found.high) == expected
    covered = binom.cdf(count - rank - 1, count, 0.5) - binom.cdf(rank, count, 0.5)
    assert covered >= 0.95


def test_a_median_of_failures_is_infinite():
    assert median_of([1.0] * 10 + [math.inf] * 10).value == math.inf
    assert median_of([1.0] * 11 + [math.inf] * 10) == (1.0, 1.0, math.inf)


def test_distortion_falls_with_the_queries_that_an_image_may_cost():
    asked = []

    def creeping(query: Query, x, y):
        """Raises the next class's pixel by 0.1 for each query until the model is fooled."""
        asked.append((query.reveals, query.cap))
        x_adv, images = x.clone(), torch.arange(len(x))
        while len(images := images[query.afford(images)]):
            images = images[query(x_adv[images], images).argmax(1) == y[images]]
            x_adv[images, (y[images] + 1) % 4] += 0.1
        return x_adv

    x, y = torch.eye(4).view(4, 4, 1, 1) * 0.45, torch.arange(4)
    reveals = {"slow": "logits", "idle": "labels"}
    attacks = {"slow": creeping, "idle": lambda query, x, y: x.clone()}
    found = distortion_by_queries(MODEL, x, y, attacks, [3, 5, 9], reveals=reveals)
    assert found["slow"][3].value == math.inf
    assert found["slow"][5].value == found["slow"][9].value == pytest.approx(0.5)
    assert [median.value for median in found["idle"].values()] == [math.inf] * 3
    assert asked == [("logits", 3), ("logits", 5), ("logits", 9)]
    aimed = distortion_by_queries(MODEL, x, y, {"idle": attacks["idle"]}, [3], targeted=True, norm="linf")
    assert aimed["idle"][3].value == 0


@pytest.mark.parametrize("levels", [3, 50, 10_000], ids=["many ties", "some ties", "hardly a tie"])
def test_the_roc_curve_is_sklearns(levels):
    generator = torch.Generator().manual_seed(levels)
    guilty = torch.rand(300, generator=generator) < 0.2
    scores = torch.randint(levels, (300,), generator=generator).double() + 0.3 * levels * guilty
    curve = roc(scores, guilty)
    false, true, limits = roc_curve(guilty, scores, drop_intermediate=False)
    assert curve.false_positives.tolist() == pytest.approx(false.tolist())
    assert curve.true_positives.tolist() == pytest.approx(true.tolist())
    assert curve.thresholds.tolist() == limits.tolist()
    assert curve.area == pytest.approx(roc_auc_score(guilty, scores))
    assert curve.best(false_positives=0.1) == pytest.approx(true[false <= 0.1].max())
    assert curve.best(false_positives=0.0) == pytest.approx(true[false == 0].max())


VALID = {
    median_of: {"values": [1.0]},
    distortion_by_queries: {
        "model": MODEL,
        "x": X,
        "y": Y,
        "attacks": {"idle": lambda query, x, y: x},
        "caps": [1],
    },
    Rate: {"hits": 1, "trials": 2},
    roc: {"scores": torch.tensor([1.0, 2.0]), "guilty": torch.tensor([True, False])},
    accuracy_rate: {"model": MODEL, "x": X, "y": Y},
    fooled_rate: {"model": MODEL, "x_adv": X, "y": Y},
    robustness_curve: {"model": MODEL, "x": X, "y": Y, "attack": fgsm, "eps": [0.1]},
}
LABELS = [(Y[:2], "y is an int64 tensor of shape (2,)", "(5,)"), (Y + 4, "y has a label 6", "0 to 3")]
MODELS = [(None, "model is None", "called"), (nn.Sequential(MODEL, nn.Softmax(1)), "probabilities", "logits")]
SIZES = [(0, "batch_size is 0", "at least 1"), (None, "batch_size is None", "whole number")]
WRONG = {
    roc: {
        "scores": [
            (torch.tensor([1.0, math.nan]), "scores is", "finite"),
            (torch.ones(2, 1), "scores is a float32 tensor of shape (2, 1)", "(N,)"),
            ([1.0, 2.0], "scores is"),
        ],
        "guilty": [
            (torch.tensor([1, 0]), "guilty is an int64 tensor", "bool"),
            (torch.tensor([True]), "guilty is", "(2,)"),
            (torch.tensor([True, True]), "guilty is the same for all", "one that is not"),
        ],
    },
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
    median_of: {"values": [([], "values is []", "at least one"), ([math.nan], "values is [nan]"), ([-1], "[-1.0]")]},
    distortion_by_queries: {
        "model": MODELS,
        "x": [(X * 255, "x has values", "[0, 1]"), (X[:0], "x is a float32 tensor of shape (0,", "at least one input")],
        "y": LABELS,
        "attacks": [({}, "attacks is {}", "at least one"), ({"a": 1}, "attacks is 1", "called"), (fgsm, "attacks is")],
        "caps": [([0], "caps is 0", "at least 1"), (5, "caps is 5", "a list"), ("12", "caps is '12'", "a list")],
        "norm": [("l7", "norm is 'l7'", "'linf', 'l2'")],
        "reveals": [
            ("all", "reveals is 'all'", "'labels'"),
            ({"other": "labels"}, "reveals is", "each of the attacks"),
        ],
        "targeted": [(1, "targeted is 1", "True or False")],
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

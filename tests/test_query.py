"""A query reveals what it was told to reveal, counts every image shown, and leads nowhere near the model."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from spai_lab.query import Query, answered, check_query, log_scores

CLASSES = 4
GENERATOR = torch.Generator().manual_seed(0)
WEIGHT, X = torch.randn(CLASSES, 9, generator=GENERATOR), torch.rand(5, 1, 3, 3, generator=GENERATOR)
MODEL = nn.Sequential(nn.Flatten(), nn.Linear(9, CLASSES, bias=False))
MODEL[-1].weight.data.copy_(WEIGHT)
LOGITS = X.flatten(1) @ WEIGHT.T
SCORES = LOGITS.exp() / LOGITS.exp().sum(1, keepdim=True)
LEVELS = ["labels", "top-2", "scores", "logits"]


def numbers(*values: int) -> torch.Tensor:
    return torch.tensor(values)


# --- what is revealed -------------------------------------------------------------------------------------------------


def test_each_level_reveals_what_its_name_says():
    assert torch.equal(Query(MODEL, "labels")(X), LOGITS.argmax(1))
    assert torch.allclose(Query(MODEL, "scores")(X), SCORES, rtol=0, atol=1e-6)
    assert torch.allclose(Query(MODEL, "logits")(X), LOGITS, rtol=0, atol=1e-6)
    assert Query(MODEL).reveals == "logits"


@pytest.mark.parametrize("k", [1, 2, CLASSES])
def test_top_k_reveals_the_likeliest_classes_in_order(k):
    scores, classes = Query(MODEL, f"top-{k}")(X)
    order = np.argsort(-SCORES.numpy(), axis=1)[:, :k]
    assert classes.tolist() == order.tolist()
    assert np.allclose(scores, np.take_along_axis(SCORES.numpy(), order, 1), rtol=0, atol=1e-6)


def test_top_k_reveals_all_classes_where_there_are_fewer():
    scores, classes = Query(MODEL, "top-9")(X)
    assert scores.shape == classes.shape == (5, CLASSES)


@pytest.mark.parametrize("reveals", LEVELS)
def test_answers_carry_no_gradient(reveals):
    answer = Query(MODEL, reveals)(X.clone().requires_grad_())
    for part in answer if isinstance(answer, tuple) else (answer,):
        assert not part.requires_grad and part.grad_fn is None


def test_an_answer_can_be_changed_without_changing_the_model():
    """A model that hands out a tensor that it keeps."""
    kept = torch.tensor([[3.0, 1.0]])
    Query(lambda x: kept, "logits")(X[:1]).zero_()
    assert kept.tolist() == [[3.0, 1.0]]


@pytest.mark.parametrize(("decimals", "expected"), [(0, [1.0, 0.0]), (1, [0.9, 0.1]), (3, [0.881, 0.119])])
def test_scores_are_rounded(decimals, expected):
    query = Query(lambda x: torch.tensor([[2.0, 0.0]]), "scores", decimals=decimals)
    assert query(X[:1])[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_logits_and_top_k_are_rounded_and_classes_are_not():
    def model(x):
        return torch.tensor([[2.34567, 0.0]])

    assert Query(model, "logits", decimals=2)(X[:1]).tolist() == [pytest.approx([2.35, 0.0])]
    scores, classes = Query(model, "top-2", decimals=1)(X[:1])
    assert scores.tolist() == [pytest.approx([0.9, 0.1])] and classes.tolist() == [[0, 1]]
    assert Query(model, "labels", decimals=1)(X[:1]).tolist() == [0]


@pytest.mark.parametrize("reveals", [*LEVELS, "top-1"])
def test_answered_is_the_likeliest_class_at_every_level(reveals):
    assert torch.equal(answered(Query(MODEL, reveals), X), LOGITS.argmax(1))


def test_log_scores_of_scores_and_of_logits_differ_by_a_constant_an_image():
    difference = log_scores(Query(MODEL, "scores"), X) - log_scores(Query(MODEL, "logits"), X)
    assert torch.allclose(difference, difference[:, :1].expand_as(difference), rtol=0, atol=1e-5)


def test_log_scores_of_a_probability_rounded_to_zero_are_finite():
    query = Query(lambda x: torch.tensor([[30.0, 0.0]]), "scores", decimals=3)
    assert log_scores(query, X[:1]).isfinite().all()


# --- what is hidden ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reveals", LEVELS)
def test_no_attribute_leads_to_the_model(reveals):
    query = Query(MODEL, reveals)
    query(X)
    seen, waiting = set(), [query]
    while waiting:
        thing = waiting.pop()
        assert not isinstance(thing, nn.Module | nn.Parameter)
        if id(thing) not in seen:
            seen.add(id(thing))
            waiting += list(getattr(thing, "__dict__", {}).values())
            waiting += list(thing.values()) if isinstance(thing, dict) else []
            waiting += list(thing) if isinstance(thing, list | tuple | set) else []
    assert "Linear" not in repr(query)


def test_the_model_keeps_its_mode_and_gradients():
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(9, 3)).train()
    Query(model)(X)
    assert model.training and model[1].training and model[-1].weight.grad is None


# --- what is counted --------------------------------------------------------------------------------------------------


def test_queries_are_counted_for_the_image_for_whose_sake_they_are_asked():
    query = Query(MODEL)
    query(X)
    assert query.counts.tolist() == [1, 1, 1, 1, 1] and query.total == 5
    query(X[:3], numbers(4, 4, 0))
    assert query.counts.tolist() == [2, 1, 1, 1, 3] and query.total == 8
    query(X[:1], numbers(6))
    assert query.counts.tolist() == [2, 1, 1, 1, 3, 0, 1] and query.total == 9
    query.restart()
    assert query.counts.tolist() == [] and query.exhausted.tolist() == [] and query.total == 0


def test_the_count_is_what_the_model_saw():
    seen = []

    def model(x):
        seen.append(len(x))
        return MODEL(x)

    query = Query(model, "labels")
    for images in (numbers(0, 1), numbers(1), numbers(0, 0, 0)):
        answered(query, X[: len(images)], images)
    assert sum(seen) == query.total == int(query.counts.sum()) == 6


def test_without_a_cap_everything_is_affordable():
    query = Query(MODEL)
    assert query.afford(numbers(0, 7), 10**9).all()
    assert query.exhausted.tolist() == [False] * 8
    assert query.afford(numbers()[:0].long()).shape == (0,)


def test_the_cap_holds_for_each_image_and_marks_those_that_cannot_go_on():
    query = Query(MODEL, cap=3)
    query(X[:2])
    query(X[:1], numbers(1))
    assert query.afford(numbers(1, 0), 2).tolist() == [False, True]
    assert query.exhausted.tolist() == [False, True]
    assert query.afford(numbers(0, 1)).all()
    query(X[:2], numbers(0, 0))
    assert query.afford(numbers(0)).tolist() == [False]
    assert query.exhausted.tolist() == [True, True]


def test_a_query_over_the_cap_is_refused_and_not_counted(refuses):
    query = Query(MODEL, cap=2)
    query(X[:2])
    refuses(query, {"x": X[:2], "images": numbers(1, 1)}, "images", "cap = 2", "afford")
    assert query.counts.tolist() == [1, 1] and query.total == 2
    query(X[:1], numbers(1))


def test_a_question_that_the_model_cannot_take_is_not_counted(refuses):
    query = Query(MODEL)
    refuses(query, {"x": torch.zeros(2, 1, 5, 5)}, "model fails on x of shape (2, 1, 5, 5)")
    assert query.total == 0 and query.counts.sum() == 0


# --- bad input --------------------------------------------------------------------------------------------------------

WRONG_QUERIES = [
    ({"model": None}, "model is None", "called"),
    ({"reveals": "gradients"}, "reveals is 'gradients'", "'labels'", "'top-3'", "'scores'", "'logits'"),
    ({"reveals": "top-0"}, "reveals is 'top-0'"),
    ({"reveals": "top-"}, "reveals is 'top-'"),
    ({"reveals": "top-3\n"}, "reveals is"),
    ({"reveals": None}, "reveals is None"),
    ({"reveals": 3}, "reveals is 3"),
    ({"decimals": -1}, "decimals is -1", "at least 0"),
    ({"decimals": 1.5}, "decimals is 1.5", "whole number"),
    ({"decimals": True}, "decimals is True", "whole number"),
    ({"cap": 0}, "cap is 0", "at least 1"),
    ({"cap": 2.5}, "cap is 2.5", "whole number"),
    ({"cap": "100"}, "cap is '100'", "whole number"),
]

WRONG_QUESTIONS = [
    ({"x": None}, "x is None"),
    ({"x": X * 255}, "x has values", "[0, 1]"),
    ({"x": X * math.nan}, "x contains NaN"),
    ({"x": X.double()}, "x is torch.float64", "torch.float32"),
    ({"images": [0, 1, 2, 3, 4]}, "images is [0, 1, 2, 3, 4]", "int64"),
    ({"images": torch.zeros(5)}, "images is a float32 tensor", "int64"),
    ({"images": torch.ones(5, dtype=torch.bool)}, "images is a bool tensor", "int64"),
    ({"images": numbers(0, 1)}, "images is an int64 tensor of shape (2,)", "5"),
    ({"images": numbers(0, 1, 2, 3, -1)}, "images", "from 0"),
    ({"images": torch.zeros(5, 1, dtype=torch.int64)}, "shape (5, 1)"),
]

WRONG_BUDGETS = [
    ({"images": None}, "images is None", "int64"),
    ({"images": numbers(-1)}, "images", "from 0"),
    ({"images": numbers(0).float()}, "images is a float32 tensor", "int64"),
    ({"queries": -1}, "queries is -1", "at least 0"),
    ({"queries": 0.5}, "queries is 0.5", "whole number"),
]


@pytest.mark.parametrize(("changes", "words"), [(row[0], row[1:]) for row in WRONG_QUERIES])
def test_a_query_refuses_bad_settings(refuses, changes, words):
    refuses(Query, {"model": MODEL} | changes, *words)


@pytest.mark.parametrize(("changes", "words"), [(row[0], row[1:]) for row in WRONG_QUESTIONS])
def test_a_query_refuses_bad_questions(refuses, changes, words):
    refuses(Query(MODEL), {"x": X} | changes, *words)


@pytest.mark.parametrize(("changes", "words"), [(row[0], row[1:]) for row in WRONG_BUDGETS])
def test_afford_refuses_bad_questions(refuses, changes, words):
    refuses(Query(MODEL, cap=3).afford, {"images": numbers(0)} | changes, *words)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (nn.Sequential(MODEL, nn.Softmax(1)), ("model returns probabilities", "logits")),
        (lambda x: LOGITS * math.nan, ("model returns NaN", "finite")),
        (nn.Flatten(2), ("model returns", "(5, K)")),
    ],
)
def test_a_query_checks_the_model_behind_it(refuses, model, words):
    refuses(Query(model), {"x": X}, *words)


@pytest.mark.parametrize("reveals", ["labels", "top-2"])
def test_scores_are_asked_only_of_a_query_that_reveals_them(refuses, reveals):
    query = Query(MODEL, reveals)
    refuses(log_scores, {"query": query, "x": X}, f"reveals '{reveals}'", "'scores' or 'logits'")
    assert query.total == 0


def test_what_is_not_a_query_is_named(refuses):
    refuses(lambda query: check_query(query), {"query": MODEL}, "query is", "accepted: a Query")
    refuses(lambda query: check_query(query, "scores"), {"query": Query(MODEL)}, "reveals 'logits'", "'scores'")
    check_query(Query(MODEL, "labels"))

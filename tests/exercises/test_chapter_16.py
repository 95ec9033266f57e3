"""Chapter 16's exercises: right answers of other styles, odd answers, and the truths that answers are held against."""

import numpy as np
import pytest
import torch
from scipy import stats

from spai_lab.exercises import check
from spai_lab.exercises.chapter_16.intervals import ends_by_bisection
from spai_lab.metrics import Rate


def said(feedback) -> str:
    return " ".join(repr(feedback).split())


def wilson_by_scipy(hits, trials):
    interval = stats.binomtest(hits, trials).proportion_ci(confidence_level=0.95, method="wilson")
    return np.array([interval.low, interval.high])


def verdict_backward(published, measured, tolerance, standing, differs):
    word = "deviates"
    if published - tolerance <= measured <= published + tolerance:
        word = "reproduced"
    if len(differs) > 0:
        word = "not comparable"
    return {"U": "none"}.get(standing, word)


def undominated_by_sorting(clean, robust):
    order = sorted(range(len(clean)), key=lambda i: (-clean[i].item(), -robust[i].item()))
    kept, best, twin = torch.zeros(len(clean), dtype=torch.bool), float("-inf"), None
    for i in order:
        pair = clean[i].item(), robust[i].item()
        kept[i] = pair[1] > best or pair == twin
        if pair[1] > best:
            best, twin = pair[1], pair
    return kept


@pytest.mark.parametrize(
    ("name", "answer"),
    [("wilson", wilson_by_scipy), ("verdict", verdict_backward), ("undominated", undominated_by_sorting)],
)
def test_right_answers_of_other_styles_pass(name, answer):
    feedback = getattr(check, name)(answer)
    assert feedback.verdict == "passed", feedback


@pytest.mark.parametrize(
    ("name", "answer", "message"),
    [
        ("wilson", lambda hits, trials: hits / trials, "expected two numbers"),
        ("wilson", lambda hits, trials: Rate(hits, trials).interval[::-1], "return the lower end first"),
        ("wilson", lambda hits, trials: (float("nan"), 1.0), "returns NaN"),
        ("verdict", lambda *figure: True, 'expected one of "reproduced"'),
        ("verdict", lambda *figure: "Reproduced", 'expected one of "reproduced"'),
        ("verdict", lambda *figure: "none", 'it says "none"; expected "reproduced"'),
        ("undominated", lambda clean, robust: torch.ones(len(clean)).bool(), "keeps the defense with clean"),
        ("undominated", lambda clean, robust: torch.arange(len(clean)) % 2 == 1, "drops the defense with clean"),
        ("undominated", lambda clean, robust: [True] * len(clean), "expected a torch.Tensor"),
    ],
)
def test_odd_answers_are_explained(name, answer, message):
    feedback = getattr(check, name)(answer)
    assert feedback.verdict == "wrong"
    assert message in said(feedback)


@pytest.mark.parametrize(("hits", "trials"), [(0, 1), (64, 64), (1, 3), (983, 1000)])
def test_the_truth_of_an_interval_is_that_of_scipy(hits, trials):
    np.testing.assert_allclose(ends_by_bisection(hits, trials), wilson_by_scipy(hits, trials), atol=1e-7)

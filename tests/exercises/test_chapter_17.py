"""Chapter 17's exercises: right answers of other styles, and odd ones."""

import pytest
import torch

from spai_lab.exercises import check


def said(feedback) -> str:
    return " ".join(repr(feedback).split())


def coordinate_by_coordinate(ask, x, eps, queries, generator):
    best, lead = x.clone(), ask(x)
    for k in range(queries - 1):
        place = k % 16
        tried = best.clone()
        flat, clean = tried.flatten(1), x.flatten(1)
        end = clean[:, place] + (eps if k < 16 or k >= 32 else -eps)
        flat[:, place] = end.clamp(0, 1)
        tried = flat.view_as(x)
        now = ask(tried)
        best = torch.where((now < lead)[:, None, None, None], tried, best)
        lead = torch.minimum(now, lead)
    return best


def signs_from_numpy(ask, x, eps, queries, generator):
    import numpy as np

    rng = np.random.default_rng(0)
    tries = [x] + [(x + eps * torch.from_numpy(rng.choice([-1, 1], x.shape)).float()).clamp(0, 1) for _ in range(39)]
    leads = torch.stack([ask(each) for each in tries])
    return torch.stack(tries)[leads.argmin(0), torch.arange(len(x))]


def all_copies_at_once(network, x, sigma, looks, generator):
    copies = x.repeat(looks, 1, 1, 1)
    noise = sigma * torch.randn(copies.shape, generator=generator, dtype=x.dtype)
    return network(copies + noise).reshape(looks, len(x), -1).mean(0)


def signs_in_loops(standing, steps, unlimited):
    rows = list(zip(steps.tolist(), standing.tolist(), strict=True))
    one = min(sum(row) for step, row in rows if step == 1)
    many = min(sum(row) for step, row in rows if step > 1)
    blind = False
    for i in range(standing.shape[1]):
        seeing = all(row[i] for step, row in rows if step)
        blind |= seeing and not all(row[i] for step, row in rows if not step)
    return torch.tensor([one < many, blind, any(unlimited)])


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("few_queries", signs_from_numpy),
        ("few_queries", coordinate_by_coordinate),
        ("noisy_mean", all_copies_at_once),
        ("masking_signs", signs_in_loops),
    ],
)
def test_right_answers_of_other_styles_pass(name, answer):
    feedback = getattr(check, name)(answer)
    assert feedback.verdict == "passed", feedback


@pytest.mark.parametrize(
    ("name", "answer", "words"),
    [
        ("few_queries", lambda ask, x, eps, queries, generator: None, "It returns None; expected finite images"),
        ("noisy_mean", lambda network, x, sigma, looks, generator: x, "expected logits of shape (3, 2)"),
        ("noisy_mean", lambda network, x, sigma, looks, generator: network(x), "Two calls give the same answer"),
        ("masking_signs", lambda standing, steps, unlimited: torch.ones(3).bool(), 'It sees the sign "one step'),
    ],
)
def test_odd_answers_are_told_what_is_wrong(name, answer, words):
    feedback = getattr(check, name)(answer)
    assert feedback.verdict == "wrong"
    assert words in said(feedback)

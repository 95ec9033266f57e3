"""A function as text: what it names comes along, and what cannot is refused; budgets and results say what they are."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from spai_lab.arena import rules
from spai_lab.arena.duel import Row, revealed
from spai_lab.arena.result import Result
from spai_lab.arena.scene import own_images, scene_of
from spai_lab.arena.submission import Budget, Submission, submission_of
from spai_lab.attacks.evasion import fgsm
from spai_lab.metrics import Rate
from spai_lab.query import Query
from spai_lab.threat import project

STEPS = 3
DATA = torch.zeros(3)


class Doubled(nn.Module):
    def forward(self, x):
        return helper(x) * 2


def helper(x):
    return F.relu(x) * math.sqrt(STEPS)


def my_attack(model, x, y, eps):
    g = Doubled()(x)
    return project(x + eps * g, x, eps, "linf")


def takes_data(model, x, y, eps, DATA=None):
    return [DATA + eps for DATA in x]


def uses_data(model, x, y, eps):
    return x + DATA


def test_what_a_function_names_travels_with_it():
    submission = submission_of(my_attack)
    namespace = {}
    exec(submission.text, namespace)
    x = torch.rand(2, 1, 2, 2)
    assert torch.equal(namespace["my_attack"](None, x, None, 0.1), my_attack(None, x, None, 0.1))
    assert (
        submission.text.index("STEPS = 3")
        < submission.text.index("def helper")
        < submission.text.index("def my_attack")
    )


def test_a_function_within_a_function_takes_what_surrounds_it():
    factor = 2.0

    def attack(model, x, y, eps):
        return factor * x

    assert submission_of(attack).text.startswith("factor = 2.0")


def test_a_parameter_that_is_called_like_something_of_the_notebook_is_its_own():
    assert "zeros" not in submission_of(takes_data).text


def test_a_function_of_the_package_is_imported():
    assert submission_of(fgsm).text == "from spai_lab.attacks.evasion.gradient import fgsm"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (uses_data, "function uses `DATA` of the notebook, a float32 tensor of shape (3,)"),
        (lambda model, x, y, eps: x, "a function with a def"),
        (3, "function is 3"),
        (Path("no such file.py"), "a file of Python that can be read"),
        ("x = 1\n", "a text that defines no function"),
    ],
)
def test_what_cannot_be_sent_is_refused(given, words):
    with pytest.raises(ValueError) as caught:
        submission_of(given)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: Budget(seconds=0), "seconds"),
        (lambda: Budget(answering=-1), "answering"),
        (lambda: Budget(access="magic"), "access"),
        (lambda: Budget(queries=0), "queries"),
        (lambda: Budget(gradients=1.5), "gradients"),
        (lambda: Budget(memory=0), "memory"),
        (lambda: Submission("a b", "x"), "name"),
        (lambda: Submission("a", ""), "text"),
        (lambda: scene_of("faces"), "data"),
        (lambda: scene_of("digits", images=0), "images"),
        (lambda: scene_of("digits", seed=-1), "seed"),
    ],
)
def test_arguments_out_of_range_are_named(make, word):
    with pytest.raises(ValueError, match=rf"^{word} is "):
        make()


def test_the_lecturers_own_images(tmp_path):
    file = tmp_path / "own.npz"
    np.savez(file, x=np.full((3, 28, 28), 255, np.uint8), y=np.array([1, 2, 3]))
    scene = scene_of("digits", images=file)
    assert scene.x.shape == (3, 1, 28, 28)
    assert scene.x.max() == 1
    assert scene.public is None
    assert "the lecturer's own" in str(scene)
    np.savez(file, x=np.array([object()] * 3), y=np.array([1, 2, 3]))
    with pytest.raises(ValueError, match="cannot be read"):
        own_images(file)


def test_a_result_shows_score_interval_and_advice_from_its_numbers():
    standing = torch.arange(64) < 60
    row = Row("thermometer code", Rate(63, 64), Rate(60, 64), Rate(2, 64), standing, 1.0)
    result = Result("attack", "my_attack", "digits", "64 images", "white-box", (row,), ())
    assert result.score == 60 / 64
    assert result.interval == Rate(60, 64).interval
    assert "`thermometer_view(model)`" in result.next[0]
    assert list(result.table.columns) == ["defense", "clean", "left", "95 %", "ours leaves", "n"]
    assert "94 % of the images right" in repr(result)
    assert result.figure().axes[0].get_xlabel() == "images read rightly"


def test_a_black_box_attack_is_not_told_to_climb_a_gradient():
    row = Row("no defense", Rate(64, 64), Rate(60, 64), Rate(2, 64), torch.arange(64) < 60, 1.0)
    result = Result("attack", "asks", "digits", "64 images", str(Budget(access="scores")), (row,), ())
    assert "Square" in result.next[-1]
    assert not any("step up the loss" in sentence for sentence in result.next)
    assert "against no defense" in result.headline


@pytest.mark.parametrize("access", ["labels", "scores", "logits"])
def test_what_the_arena_reveals_passes_the_query_of_an_attack(access):
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), torch.rand(5, 1, 2, 2)
    query = Query(lambda images: revealed(model, images, access), access)
    assert torch.allclose(query(x).float(), Query(model, access)(x).float(), atol=1e-6)


def test_what_was_caught_is_told_once_and_without_an_empty_table():
    finding = rules.NOT_FINITE.broken()
    said = repr(Result("attack", "mine", "digits", "64 images", "white-box", (), (finding,)))
    assert said.count(finding.advice) == 1
    assert "|" not in said

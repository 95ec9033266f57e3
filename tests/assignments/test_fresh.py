"""Hidden cases: new under a seed, passed by every solution, failed by what is known by heart and by each mistake."""

import importlib.util
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from spai_lab.assignments.fresh import by_heart, derived, hidden_of, sharp, under_seed, way
from spai_lab.exercises import EXERCISES, check
from spai_lab.exercises.exercise import as_array, judge, sentence

SLOW = {"transfer", "teachers", "coefficient_chain", "out_of_levels", "noisy_mean"}
WAYS = {name: way(exercise) for name, exercise in EXERCISES.items()}
EXERCISE = pytest.mark.parametrize(
    "exercise",
    [
        pytest.param(exercise, id=name, marks=[pytest.mark.full] if name in SLOW else [])
        for name, exercise in EXERCISES.items()
    ],
)


def test_most_exercises_draw_from_a_seed_and_those_with_secrets_each_time():
    assert sum(kind in ("seed", "written") for kind in WAYS.values()) >= 50
    assert {name for name, kind in WAYS.items() if kind == "every time"} == {
        *("encrypted_salaries", "shamir_secret", "beaver_product", "garbled_xor", "find_the_leak", "count_rounds"),
    }
    assert "fixed" not in WAYS.values(), "say in the docstring of fresh.py which exercises cannot draw"


@cache
def hidden(name):
    """The hidden cases of an exercise, found once for all tests."""
    return hidden_of(EXERCISES[name], "a lecturer's seed")


@EXERCISE
def test_hidden_cases_are_passed_by_the_solution_alone(exercise):
    assert hidden(exercise.name).attempt < 20
    drawn = under_seed(exercise, hidden(exercise.name).seed)
    assert judge(drawn, drawn.solution).verdict == "passed"
    assert judge(drawn, by_heart(exercise)).verdict == "wrong"


@EXERCISE
def test_a_typical_mistake_gets_its_sentence_on_hidden_cases(exercise):
    drawn = under_seed(exercise, hidden(exercise.name).seed)
    for mistake in exercise.mistakes[:: max(1, len(exercise.mistakes) - 1)]:  # the first and the last
        feedback = judge(drawn, mistake)
        assert feedback.verdict == "wrong"
        assert sentence(mistake).replace("`", "") in repr(feedback)


def test_right_answers_of_other_styles_pass_under_any_seed():
    """Those that pass on the visible cases in tests/exercises; no rounding in a hidden case decides."""
    file = Path(__file__).resolve().parents[1] / "exercises" / "test_exercises.py"
    spec = importlib.util.spec_from_file_location("other_styles", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert len(module.STYLES) >= 20
    for name, answer in module.STYLES:
        drawn = under_seed(EXERCISES[name], hidden(name).seed)
        assert judge(drawn, answer).verdict == "passed", (name, answer)


@pytest.mark.parametrize("name", [name for name, kind in WAYS.items() if kind in ("seed", "written")])
def test_a_seed_says_which_cases(name):
    """The same twice, and others than the visible ones; the same answer meets the same judgment."""
    exercise = EXERCISES[name]

    def inputs(seed):
        cases = (exercise if seed is None else under_seed(exercise, seed)).cases()
        return [[repr(as_array(value)) if is_plain(value) else "" for value in case.values()] for case in cases]

    assert inputs(500) == inputs(500)
    if name not in ("steal_logistic", "to_boundary", "inner_product", "out_of_levels", "teachers"):  # nothing plain
        assert inputs(500) != inputs(600) != inputs(None)


def is_plain(value) -> bool:
    try:
        as_array(value)
    except (TypeError, ValueError):
        return False
    return True


def test_an_exercise_that_cannot_draw_changes_the_order_of_its_cases():
    exercise = replace(EXERCISES["wilson"])
    exercise.__dict__["name"] = "nothing_is_drawn"
    moved = under_seed(exercise, 3)
    assert way(exercise) == "fixed"
    assert moved.cases() != exercise.cases()
    assert sorted(map(repr, moved.cases())) == sorted(map(repr, exercise.cases()))
    assert judge(moved, exercise.solution).verdict == "passed"


def test_seeds_follow_from_the_lecturers_and_do_not_tell_it():
    numbers = {derived(seed, name, at) for seed in ("a", "b") for name in ("fgsm", "pgd") for at in range(3)}
    assert len(numbers) == 12
    assert all(0 <= number < 2**48 for number in numbers)


def test_a_seed_under_which_mistakes_coincide_is_passed_over():
    """Without attempts some seed would let a typical mistake have full points."""
    blunt = [seed for seed in range(40) if not sharp(EXERCISES["success_rate"], seed)]
    assert blunt
    assert all(hidden_of(EXERCISES["success_rate"], str(seed)).seed not in blunt for seed in range(5))


@pytest.mark.parametrize("seed", [-1, 2**48, 1.0, True, "3", None])
def test_a_seed_out_of_range_is_named(seed):
    with pytest.raises(ValueError, match=r"seed is .*; accepted: a whole number from 0 to 2\^48 - 1"):
        under_seed(EXERCISES["fgsm"], seed)


def test_a_limit_that_is_far_off_is_explained_rather_than_a_crash():
    """Found by grading: what stands out compared a tensor with an array."""
    feedback = check.strip_limit(lambda entropies, frr: 1.45)
    assert feedback.verdict == "wrong"
    assert "of the clean inputs lie below its threshold" in repr(feedback)

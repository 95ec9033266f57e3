"""Every exercise meets its solution, its stub, its typical mistakes and right answers of other styles."""

import ast
import inspect
import json
import math
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from spai_lab.exercises import EXERCISES, check, hint, hints_given, solution, stub, task
from spai_lab.exercises.chapter_02 import gradient_by_hand, images, many_steps_cases, victim
from spai_lab.exercises.exercise import Exercise, judge, sentence

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = [path for path in sorted((ROOT / "notebooks").glob("*.ipynb")) if path.stem[:2] != "00"]
EXERCISE = pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
MISTAKE = pytest.mark.parametrize(
    ("exercise", "mistake"),
    [(exercise, mistake) for exercise in EXERCISES.values() for mistake in exercise.mistakes],
    ids=lambda value: value.name if isinstance(value, Exercise) else value.__name__,
)


def said(feedback) -> str:
    return " ".join(repr(feedback).split())


# --- every exercise


@EXERCISE
def test_solution_passes(exercise):
    feedback = judge(exercise, exercise.solution)
    assert feedback.verdict == "passed"
    assert "✔ Passed" in repr(feedback)
    assert exercise.tested in repr(feedback)


@EXERCISE
def test_stub_is_not_attempted_yet(exercise):
    namespace = {}
    exec(exercise.stub, namespace)
    feedback = getattr(check, exercise.name)(namespace[f"my_{exercise.name}"])
    assert feedback.verdict == "open"
    assert "Not attempted yet" in repr(feedback)


@EXERCISE
def test_stub_has_the_signature_and_the_docstring_of_the_solution_and_nothing_else(exercise):
    written, given = ast.parse(exercise.stub).body[0], ast.parse(repr(solution(exercise.name))).body[0]
    assert ast.dump(written.args) == ast.dump(given.args)
    assert written.name == given.name
    assert (
        ast.get_docstring(written)
        == ast.get_docstring(given)
        == exercise.solution.__doc__.strip().replace("\n    ", "\n")
    )
    assert exercise.stub.endswith("    raise NotImplementedError")
    assert len(written.body) == 2
    assert max(map(len, exercise.stub.splitlines())) <= 88, "a line is wider than a notebook's cell"


@MISTAKE
def test_mistake_gets_the_sentence_meant_for_it(exercise, mistake):
    feedback = judge(exercise, mistake)
    assert feedback.verdict == "wrong"
    assert "✘" in repr(feedback)
    assert sentence(mistake).replace("`", "") in repr(feedback)


@EXERCISE
def test_no_sentence_serves_two_mistakes(exercise):
    sentences = [sentence(mistake) for mistake in exercise.mistakes]
    assert len(set(sentences)) == len(sentences)
    assert all(text.endswith(".") for text in sentences)


@EXERCISE
def test_two_or_three_hints_and_a_task_that_names_the_function(exercise):
    assert len(exercise.hints) in (2, 3)
    assert f"my_{exercise.name}" in repr(task(exercise.name))


@EXERCISE
def test_judging_leaves_the_global_random_state(exercise):
    before = torch.get_rng_state(), random.getstate(), str(np.random.get_state())  # noqa: NPY002
    judge(exercise, exercise.solution)
    judge(exercise, exercise.mistakes[0])
    after = torch.get_rng_state(), random.getstate(), str(np.random.get_state())  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


# --- what a wrong answer may do, whatever was asked


def spoiled(exercise, spoil, result=lambda value: value):
    """The solution of an exercise, with something done to its arguments before and to its result after."""

    def answer(*arguments):
        given = exercise.solution(*arguments)
        spoil(*arguments)
        return result(given)

    return answer


FAULTS = {
    "in place": (lambda x, *_: x.add_(0.01), lambda value: value, "changes x_adv"),
    "torch's random state": (lambda *_: torch.rand(1), lambda value: value, "global random state"),
    "NumPy's random state": (lambda *_: np.random.rand(), lambda value: value, "global random state"),  # noqa: NPY002
    "Python's random state": (lambda *_: random.random(), lambda value: value, "global random state"),
    "nothing": (lambda *_: None, lambda value: None, "returns None: is the return missing?"),
    "type": (lambda *_: None, lambda value: value.tolist(), "returns a list; expected a torch.Tensor"),
    "shape": (lambda *_: None, lambda value: value[0], "shape (1, 4, 4); expected (5, 1, 4, 4)"),
    "NaN": (lambda *_: None, lambda value: value * torch.nan, "returns NaN"),
    "infinite": (lambda *_: None, lambda value: value + torch.inf, "values run from inf to inf"),
}


@pytest.mark.parametrize(("spoil", "result", "message"), FAULTS.values(), ids=FAULTS)
def test_each_fault_has_its_own_sentence(spoil, result, message):
    feedback = judge(EXERCISES["project"], spoiled(EXERCISES["project"], spoil, result))
    assert feedback.verdict == "wrong"
    assert message in said(feedback)


def test_changed_weights_are_named():
    def answer(model, x, y, eps):
        with torch.no_grad():
            model[2].weight.mul_(2)
        return x

    assert "changes model.2.weight" in said(check.fgsm(answer))


def test_a_model_turned_into_another_is_named():
    def answer(model, x, y, eps):
        model.double()
        return x

    assert "changes model.2.weight" in said(check.fgsm(answer))


def test_an_answer_is_called_once_a_case():
    calls = []

    def answer(x_adv, x, eps):
        calls.append(eps)
        return EXERCISES["project"].solution(x_adv, x, eps).bfloat16()

    assert "further than eps = 0." in said(check.project(answer))
    assert calls == [0.0, 0.1, 0.3]


def test_crash_is_explained_with_type_message_and_line():
    def answer(model, x, y, eps):
        return x + model.epsilon

    text = said(check.fgsm(answer))
    line = answer.__code__.co_firstlineno + 1
    assert f"line {line}, return x + model.epsilon with AttributeError: 'Sequential' object has no attribute" in text
    assert "Traceback" not in text
    assert "exercise.py" not in text


def test_crash_inside_a_library_names_the_students_line():
    def answer(model, x, y, eps):
        return F.cross_entropy(model(x), y.float() * torch.ones(7))

    text = said(check.fgsm(answer))
    assert f"line {answer.__code__.co_firstlineno + 1}, return F.cross_entropy" in text
    assert "RuntimeError" in text


def test_a_method_that_is_not_implemented_is_a_crash_rather_than_a_stub():
    def answer(model, mean, std):
        return nn.Module()

    feedback = check.normalize_inside(answer)
    assert feedback.verdict == "wrong"
    assert "forward" in said(feedback)


def test_wrong_parameters_are_named():
    assert "cannot be called with (model, x, y, eps): TypeError" in said(check.fgsm(lambda model, x: x))


def test_result_passed_in_place_of_the_function():
    assert "without parentheses: check.fgsm(my_fgsm)" in said(check.fgsm(torch.zeros(1)))
    assert check.fgsm().verdict == "wrong"


def test_a_wrong_answer_that_nobody_foresaw_gets_what_stands_out():
    def random_signs(model, x, y, eps):
        return (x + eps * (x * 100).round().remainder(2).mul(2).sub(1)).clamp(0, 1)

    assert re.search(
        r"At \[\d, 0, \d, \d\] of the result it gives .* expected .* for eps = 0.1", said(check.fgsm(random_signs))
    )
    assert "moves a pixel by 0.2, further than eps = 0.1" in said(
        check.fgsm(lambda model, x, y, eps: (x + 2 * eps).clamp(0, 1))
    )
    assert "values run from" in said(check.fgsm(lambda model, x, y, eps: x + eps))
    assert "pixels that had room moved by less than eps = 0.1" in said(check.fgsm(lambda model, x, y, eps: x))
    assert "not in percent" in said(check.success_rate(lambda *given: 100 * EXERCISES["success_rate"].solution(*given)))
    assert "for eps = 8.0, unit = 'gray levels'" in said(
        check.eps_in_pixels(lambda eps, unit, mean, std: eps / 100 if unit == "gray levels" else eps)
    )


def test_of_two_mistakes_the_first_wrong_result_names_one():
    def adds_the_mean_and_divides_by_256(eps, unit, mean, std):
        return {"pixels": eps, "gray levels": eps / 256, "normalized": eps * std + mean}[unit]

    assert "divided by 256" in said(check.eps_in_pixels(adds_the_mean_and_divides_by_256))


def test_victim_without_a_gradient():
    def detaches(model, mean, std):
        return lambda x: model((x.detach() - mean) / std)

    def shifts_the_pixels(model, mean, std):
        def victim(x):
            x -= mean
            return model(x / std)

        return victim

    assert "No gradient comes through" in said(check.normalize_inside(detaches))
    assert "changes x, which belongs to the caller" in said(check.normalize_inside(shifts_the_pixels))
    assert "expected something that can be called" in said(check.normalize_inside(lambda model, mean, std: None))


# --- right answers of other styles


def fgsm_backward(model, x, y, eps):
    x.requires_grad_(True)
    F.cross_entropy(model(x), y, reduction="sum").backward()
    return torch.clip(x + eps * torch.sign(x.grad), min=0, max=1)


def fgsm_image_by_image(model, x, y, *, eps, device="cpu", verbose=False):
    result = torch.empty_like(x)
    for i in range(len(x)):
        image = x[i : i + 1].detach().clone().requires_grad_(True)
        (-F.log_softmax(model(image), dim=1)[0, y[i]]).backward()
        result[i] = (image + eps * image.grad.sign()).clamp(0, 1)[0]
    return result


def fgsm_numpy(model, x, y, eps):
    step = eps * np.sign(gradient_by_hand(model, x.double().numpy(), y.numpy()))
    return torch.from_numpy(np.clip(x.double().numpy() + step, 0, 1))


def fgsm_in_place_on_a_copy(model, x, y, eps):
    x_adv = x.clone().detach()
    x_adv.requires_grad = True
    gradient = torch.autograd.grad(nn.CrossEntropyLoss()(model(x_adv), y), x_adv)[0]
    with torch.no_grad():
        x_adv += eps * gradient.sign()
        x_adv.clamp_(0, 1)
    return x_adv


def project_numpy(x_adv, x, eps):
    return torch.tensor(
        np.clip(np.clip(x_adv.numpy(), x.numpy() - eps, x.numpy() + eps), 0.0, 1.0), dtype=torch.float64
    )


def project_range_first(x_adv, x, eps):
    return torch.minimum(torch.maximum(x_adv.clamp(0, 1), x - eps), x + eps)


def pgd_backward(model, x, y, eps, step_size, steps):
    delta = torch.zeros_like(x, requires_grad=True)
    for _ in range(steps):
        F.cross_entropy(model(x + delta), y).backward()
        delta.data = (delta + step_size * delta.grad.sign()).clamp(-eps, eps)
        delta.data = (x + delta).clamp(0, 1) - x
        delta.grad.zero_()
    return x + delta


def pgd_package(model, x, y, eps, step_size, steps):
    from spai_lab.attacks.evasion import bim

    return bim(model, x, y, eps=eps, step_size=step_size, steps=steps)


class Victim(nn.Module):
    def __init__(self, model, mean, std):
        super().__init__()
        self.model, self.mean, self.std = model, torch.tensor([mean]).view(1, 1, 1, 1), std

    def forward(self, images):
        return self.model(images.sub(self.mean).div(self.std))


def normalize_sequential(model, mean, std):
    from spai_lab.models import Normalize

    return nn.Sequential(Normalize(mean, std), model)


def success_loop(model, x, x_adv, y, target=None):
    before, after = model(x).argmax(1), model(x_adv).argmax(1)
    count = wins = 0
    for i in range(len(y)):
        if before[i] == y[i]:
            count += 1
            wins += int(after[i] != y[i] if target is None else after[i] == target[i])
    return np.float32(wins / count) if count else 0


def success_tensor(model, x, x_adv, y, target=None):
    right = model(x).argmax(1).eq(y)
    after = model(x_adv[right]).argmax(1)
    won = after != y[right] if target is None else after == target[right]
    return won.double().mean() if right.any() else torch.tensor(0)


def eps_table(eps, unit, mean, std):
    return np.float64(eps) * {"pixels": 1.0, "gray levels": 1 / 255, "normalized": std}[unit]


def invert_by_autograd(W, b, target, steps, step_size):
    x = torch.zeros(W.shape[1], dtype=W.dtype, requires_grad=True)
    for _ in range(steps):
        (slope,) = torch.autograd.grad(1 - (W @ x + b).softmax(0)[target], x)
        x = (x - step_size * slope).clamp(0, 1).detach().requires_grad_()
    return x.detach()


def ratio_of_distributions(p, inside, outside):
    def log_density(sample):
        phi = sample.double().logit()
        return torch.distributions.Normal(phi.mean(), phi.std()).log_prob(torch.tensor(p).double().logit())

    return log_density(inside) - log_density(outside)


def steal_at_random_points(query, d):
    points = torch.rand(d + 1, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = torch.cat([points, torch.ones(d + 1, 1, dtype=torch.float64)], 1)
    return torch.linalg.solve(rows, torch.stack([query(point[None])[0] for point in points]).logit())


def leak_by_least_squares(dW, db):
    return torch.linalg.lstsq(db[:, None], dW).solution[0]


def mean_by_a_loop(updates, sizes, answered):
    total, count = torch.zeros_like(updates[0]), 0
    for update, size, there in zip(updates, sizes.tolist(), answered.tolist(), strict=True):
        if there:
            total, count = total + size * update, count + size
    return total / count


def clipped_by_renorm(g, noise, clip, noise_multiplier, expected_batch):
    return (g.renorm(2, 0, clip).sum(0) + noise_multiplier * clip * noise) / expected_batch


def epsilon_of_a_tensor(fpr, fnr, delta_dp):
    bounds = [(1 - delta_dp - fnr) / fpr, (1 - delta_dp - fpr) / fnr, 1.0]
    return torch.tensor(bounds).max().log()


STYLES = [
    ("estimated_share", lambda c, epsilon: 0.5 + (c - 0.5) / math.tanh(epsilon / 2)),
    ("noisy_gradient", clipped_by_renorm),
    ("lowest_epsilon", epsilon_of_a_tensor),
    ("invert_linear", invert_by_autograd),
    ("likelihood_ratio", ratio_of_distributions),
    ("steal_logistic", steal_at_random_points),
    ("leak_from_gradient", leak_by_least_squares),
    ("federated_mean", mean_by_a_loop),
    ("fgsm", fgsm_backward),
    ("fgsm", fgsm_image_by_image),
    ("fgsm", fgsm_numpy),
    ("fgsm", fgsm_in_place_on_a_copy),
    ("project", project_numpy),
    ("project", project_range_first),
    ("pgd", pgd_backward),
    ("pgd", pgd_package),
    ("normalize_inside", Victim),
    ("normalize_inside", normalize_sequential),
    ("success_rate", success_loop),
    ("success_rate", success_tensor),
    ("eps_in_pixels", eps_table),
]


@pytest.mark.parametrize(("name", "answer"), STYLES, ids=lambda value: getattr(value, "__name__", value))
def test_right_answers_of_any_style_pass(name, answer):
    feedback = getattr(check, name)(answer)
    assert feedback.verdict == "passed", feedback


def test_what_a_right_answer_leaves_behind_is_mentioned():
    text = said(check.fgsm(fgsm_backward))
    assert "left gradients in the model's weights" in text
    assert "requires_grad on" in text
    assert "tidy" not in said(check.fgsm(EXERCISES["fgsm"].solution))


def test_a_thief_who_asks_too_often_is_told_and_so_is_one_who_asks_for_nothing_sensible():
    steal = EXERCISES["steal_logistic"].solution
    assert (
        "passed"
        not in judge(EXERCISES["steal_logistic"], lambda query, d: (steal(query, d), steal(query, d))[0]).verdict
    )
    assert "points (N, " in said(check.steal_logistic(lambda query, d: query(torch.zeros(d))))


# --- the truth that answers are held against


def test_backpropagation_by_hand_agrees_with_autograd():
    model = victim()
    x, y = images()
    x.requires_grad_()
    gradient = torch.autograd.grad(F.cross_entropy(model(x), y, reduction="sum"), x)[0]
    by_hand = gradient_by_hand(model, x.detach().double().numpy(), y.numpy())
    np.testing.assert_allclose(gradient.numpy(), by_hand, rtol=1e-3, atol=1e-5)


def test_no_gradient_is_so_small_that_rounding_decides_its_sign():
    for case in many_steps_cases():
        model, x, y = case["model"], case["x"].double().numpy(), case["y"].numpy()
        x_adv = x
        for _ in range(case["steps"]):
            gradient = gradient_by_hand(model, x_adv, y)
            assert np.abs(gradient).min() > 1e-6 * np.abs(gradient).max()
            low, high = np.maximum(x - case["eps"], 0), np.minimum(x + case["eps"], 1)
            x_adv = np.clip(x_adv + case["step_size"] * np.sign(gradient), low, high)


# --- answers that are numbers


def my_smallest_eps():
    """A number from 0 to 1."""
    return 0.125


def eighth_of_a_percent():
    """That is in percent; eps is in pixels of [0, 1]."""
    return 12.5


SMALLEST_EPS = Exercise(
    chapter="02_gradient_attacks",
    task="Find `my_smallest_eps`.",
    solution=my_smallest_eps,
    truth=lambda: 1 / 8,
    cases=lambda: [{}],
    tested="against 1/8, within 0.01",
    hints=("Halve it.", "Three times."),
    mistakes=(eighth_of_a_percent,),
    tolerance=0.01,
)


def test_answers_may_be_numbers():
    assert SMALLEST_EPS.stub == "my_smallest_eps = None  # A number from 0 to 1."
    for number in (0.12, np.float32(0.125), torch.tensor(0.13)):
        assert judge(SMALLEST_EPS, number).verdict == "passed"
    for number in (None, ...):
        assert judge(SMALLEST_EPS, number).verdict == "open"
    assert "in percent" in said(judge(SMALLEST_EPS, 12.5))
    assert "returns 0.5, which is not right" in said(judge(SMALLEST_EPS, 0.5))
    assert "expected one number" in said(judge(SMALLEST_EPS, "0.125"))
    assert "NaN" in said(judge(SMALLEST_EPS, float("nan")))
    assert "Pass the number itself" in said(judge(SMALLEST_EPS, my_smallest_eps))


# --- task, hint, solution, names


def test_hints_come_one_by_one():
    hints_given.clear()
    hints = EXERCISES["fgsm"].hints
    shown = [repr(hint("fgsm")) for _ in range(len(hints) + 1)]
    for number, text in enumerate(hints, start=1):
        assert shown[number - 1].startswith(f"Hint {number} of {len(hints)}.")
        assert text.replace("`", "") in shown[number - 1]
    assert shown[-1] == shown[-2]
    assert 'solution("fgsm")' in shown[-1]
    assert 'solution("fgsm")' not in shown[0]


def test_solution_shows_source_that_passes():
    namespace = {"torch": torch, "F": F}
    exec(repr(solution("pgd")), namespace)
    assert check.pgd(namespace["my_pgd"]).verdict == "passed"
    assert 'aria-label="Source of my_pgd"' in solution("pgd").html


def test_unknown_name_lists_the_names_of_the_chapter():
    with pytest.raises(ValueError, match=r"did you mean fgsm\?\): 02_gradient_attacks has fgsm, project, pgd$"):
        hint("fgms")
    with pytest.raises(AttributeError, match=r"01_models_and_threats has .*02_gradient_attacks has"):
        check.zebra  # noqa: B018
    assert set(dir(check)) == set(EXERCISES)


def test_feedback_is_escaped_html_with_a_word_beside_the_color():
    page = check.fgsm(lambda model, x, y, eps: x < model.epsilon).html
    assert "<code>" in page
    assert "✘</span> Not right yet" in page
    assert 'role="status"' in page
    assert "x < model" not in page
    assert "<style" not in page


# --- the notebooks


def code_cells(notebook: Path) -> list[str]:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]).strip() for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_has_the_stubs_and_the_checks_of_its_exercises(notebook):
    cells = code_cells(notebook)
    exercises = [exercise for exercise in EXERCISES.values() if exercise.chapter == notebook.stem]
    assert len(exercises) >= 3
    for exercise in exercises:
        stubs = [cell for cell in cells if re.search(rf"^(def )?my_{exercise.name}\b", cell, flags=re.MULTILINE)]
        assert stubs == [stub(exercise.name)]
        checked = [i for i, cell in enumerate(cells) if f"check.{exercise.name}(my_{exercise.name})" in cell]
        assert checked, f"{notebook.name} never calls check.{exercise.name}(my_{exercise.name})"
        assert checked[0] > cells.index(stubs[0])


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_solution_pasted_into_the_notebook_finds_its_imports(notebook):
    imported = {
        (alias.asname or alias.name).split(".")[0]
        for cell in code_cells(notebook)
        for node in ast.walk(ast.parse(re.sub(r"^( *)[%!].*", r"\1pass", cell, flags=re.MULTILINE)))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    for exercise in EXERCISES.values():
        if exercise.chapter == notebook.stem:
            tree = ast.parse(repr(solution(exercise.name)))
            used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
            modules = {"torch", "F", "nn", "np", "stats", "math", "secrets", "ckks"}
            assert used & (modules | {"garbled_cost", "shared_relu", "to_signed"}) <= imported


def test_every_exercise_belongs_to_a_chapter_of_the_book():
    assert {exercise.chapter[:2] for exercise in EXERCISES.values()} == {*(f"{number:02d}" for number in range(1, 18))}
    stems = {path.stem for path in NOTEBOOKS}
    for exercise in EXERCISES.values():
        same_number = {stem for stem in stems if stem[:2] == exercise.chapter[:2]}
        assert same_number <= {exercise.chapter}


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_states_the_tasks_of_its_exercises(notebook):
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    prose = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    for exercise in EXERCISES.values():
        if exercise.chapter == notebook.stem:
            assert any(text.endswith(inspect.cleandoc(exercise.task)) for text in prose), exercise.name

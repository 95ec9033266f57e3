"""Defensive distillation, against SciPy's cross-entropy, ART's student, and the attacks that fail and succeed on it."""

import copy
import warnings
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from torch import nn

from spai_lab.attacks.evasion.carlini_wagner import carlini_wagner
from spai_lab.attacks.evasion.gradient import fgsm, pgd
from spai_lab.attacks.evasion.saliency import saliency_map
from spai_lab.attacks.evasion.search import square
from spai_lab.attacks.evasion.transfer import transfer
from spai_lab.checks import SuspiciousResult
from spai_lab.defenses.evasion.distillation import defensive_distillation, distillation_view, softened
from spai_lab.models import lenet, mlp
from spai_lab.query import Query
from spai_lab.threat import fooled, input_gradient, margin, runner_up, values_and_gradients
from spai_lab.training.loop import accuracy, fit
from spai_lab.training.recipes import Robustly
from spai_lab.training.weights import reference

T = 100.0


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def case():
    """Student, teacher, images and labels, in double precision."""
    student, teacher = (mlp((1, 3, 3), 4, hidden=8, generator=seeded(i)).double() for i in (1, 2))
    x = torch.rand(6, 1, 3, 3, dtype=torch.float64, generator=seeded())
    return student, teacher, x, torch.tensor([0, 1, 2, 3, 0, 1])


# --- the losses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.5, 1.0, 20.0])
def test_the_softened_loss_is_scipys(case, temperature):
    model, _, x, y = case
    log_f = scipy.special.log_softmax(model(x).detach().numpy() / temperature, axis=1)
    expected = -log_f[np.arange(6), y.numpy()].mean()
    assert softened(model, x, y, temperature=temperature).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 20.0])
def test_the_students_loss_is_the_teachers_entropy_plus_the_divergence(case, temperature):
    student, teacher, x, y = case
    p, q = (scipy.special.softmax(z(x).detach().numpy() / temperature, axis=1) for z in (teacher, student))
    expected = (scipy.stats.entropy(p, axis=1) + scipy.stats.entropy(p, q, axis=1)).mean()
    loss = defensive_distillation(student, x, y, teacher=teacher, temperature=temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_only_the_student_learns_and_it_learns_the_difference(case):
    """The slope of the loss in the last bias is the mean difference of the probabilities, over T."""
    student, teacher, x, y = case
    before = copy.deepcopy(teacher.state_dict())
    defensive_distillation(student, x, y, teacher=teacher, temperature=5.0).backward()
    p, q = ((model(x) / 5).softmax(1).detach() for model in (teacher, student))
    torch.testing.assert_close(student[-1].bias.grad, (q - p).mean(0) / 5, rtol=1e-10, atol=1e-15)
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_labels_do_not_matter_to_the_student(case):
    student, teacher, x, y = case
    losses = [defensive_distillation(student, x, labels, teacher=teacher) for labels in (y, y.flip(0))]
    assert torch.equal(*losses)


def test_a_teacher_who_is_sure_teaches_the_labels(case):
    student, _, x, y = case
    sure = lambda x: 1e6 * torch.eye(4, dtype=torch.float64)[y]  # noqa: E731
    taught = defensive_distillation(student, x, y, teacher=sure, temperature=10.0)
    torch.testing.assert_close(taught, softened(student, x, y, temperature=10.0))


# --- on digits: gradients vanish, adversarial examples stay -----------------------------------------------------------


class Distilled(NamedTuple):
    teacher: nn.Module
    student: nn.Module
    plain: nn.Module
    x: torch.Tensor
    y: torch.Tensor


@pytest.fixture(scope="module")
def distilled(digits) -> Distilled:
    generator = seeded()

    def trained(loss, **settings):
        objective = partial(Robustly(loss, temperature=T, **settings), generator=generator)
        model, data = lenet(generator=generator), (digits.x_train, digits.y_train)
        learning = {"epochs": 10, "batch_size": 32, "learning_rate": 1e-2, "generator": generator, "progress": False}
        fit(model, *data, objective=objective, **learning)
        return model.eval()

    teacher = trained(softened)
    student = trained(defensive_distillation, teacher=teacher)
    return Distilled(teacher, student, reference("lenet", "digits"), digits.x_test[:64], digits.y_test[:64])


def left(model, x_adv, y) -> float:
    """The share that the model still reads rightly."""
    return 1 - fooled(model, x_adv, y).double().mean().item()


def quietly(attack, *args, **settings):
    """Run an attack that rightly warns of zero gradients."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SuspiciousResult)
        return attack(*args, **settings)


def test_accuracy_is_kept(distilled, digits):
    for model in (distilled.teacher, distilled.student):
        assert accuracy(model, digits.x_test, digits.y_test) >= 0.95


def test_logits_grow_with_the_temperature(distilled):
    student, plain = (
        margin(model(distilled.x), distilled.y).median() for model in (distilled.student, distilled.plain)
    )
    assert T / 5 < student / plain < 5 * T


def test_gradients_are_exactly_zero_and_the_paper_would_call_it_robust(distilled):
    _, student, plain, x, y = distilled
    zero = lambda model: (input_gradient(model, x, y).flatten(1).abs().amax(1) == 0).double().mean()  # noqa: E731
    assert zero(student) >= 0.8 and zero(plain) <= 0.05
    for attack in (fgsm, partial(pgd, steps=10, generator=seeded())):
        with pytest.warns(SuspiciousResult, match="exactly zero"):
            x_adv = attack(student, x, y, eps=0.3)
        assert left(student, x_adv, y) >= 0.7
        assert left(plain, quietly(attack, plain, x, y, eps=0.3), y) <= 0.1


def test_the_papers_attack_finds_no_salient_pixel(distilled):
    def blind(model):
        target = runner_up(model(distilled.x), distilled.y)
        jacobian = values_and_gradients(lambda x: model(x).softmax(1), distilled.x)[1]
        return (saliency_map(jacobian, target).flatten(1).amax(1) == 0).double().mean()

    assert blind(distilled.student) >= 0.8 and blind(distilled.plain) <= 0.05


def test_carlini_wagner_succeeds_on_every_image(distilled):
    student, x, y = distilled.student, distilled.x[:16], distilled.y[:16]
    x_adv = carlini_wagner(student, x, y, initial_c=0.1, searches=2, steps=100)
    assert left(student, x_adv, y) == 0


def test_the_view_answers_alike_and_pgd_on_it_wins(distilled):
    _, student, plain, x, y = distilled
    view = distillation_view(student, temperature=T)
    assert torch.equal(view(x).argmax(1), student(x).argmax(1))
    assert left(student, pgd(view, x, y, eps=0.3, steps=10, generator=seeded()), y) <= 0.1
    adaptive = left(student, pgd(view, x, y, eps=0.12, steps=20, generator=seeded()), y)
    assert adaptive <= left(student, transfer([plain], x, y, eps=0.12), y)
    assert adaptive <= left(student, square(Query(student), x, y, eps=0.12, queries=100, generator=seeded()), y)


@pytest.mark.full
def test_the_view_beats_a_patient_square(distilled, digits):
    _, student, plain, _, _ = distilled
    x, y = digits.x_test[:128], digits.y_test[:128]
    view = distillation_view(student, temperature=T)
    for eps in (0.1, 0.2):
        adaptive = left(student, pgd(view, x, y, eps=eps, steps=100, restarts=3, generator=seeded()), y)
        others = (
            square(Query(student), x, y, eps=eps, queries=1000, generator=seeded()),
            transfer([plain], x, y, eps=eps),
        )
        assert all(adaptive <= left(student, x_adv, y) for x_adv in others)


# --- ART --------------------------------------------------------------------------------------------------------------


@pytest.mark.oracle
def test_the_student_is_arts(case):
    """ART trains the student on the answers of a teacher; with softmax(z / T) as both models' last layers."""
    from art.defences.transformer.evasion import DefensiveDistillation
    from art.estimators.classification import PyTorchClassifier

    student, teacher, x, y = case
    student, teacher, x = student.float(), teacher.float(), x.float()
    theirs = copy.deepcopy(student)

    def by_art(model):
        def soft(output, target):
            return -(target * output.log()).sum(1).mean()

        network = nn.Sequential(distillation_view(model, temperature=5.0), nn.Softmax(1))
        return PyTorchClassifier(network, soft, (1, 3, 3), 4, torch.optim.SGD(network.parameters(), 2.0))

    peer = DefensiveDistillation(by_art(teacher), batch_size=6, nb_epochs=30)(x.numpy(), by_art(theirs))
    optimizer = torch.optim.SGD(student.parameters(), 2.0)
    first = student(x).detach()
    for _ in range(30):
        optimizer.zero_grad()
        defensive_distillation(student, x, y, teacher=teacher, temperature=5.0).backward()
        optimizer.step()
    assert (student(x) - first).abs().max() > 0.1  # it has learned
    np.testing.assert_allclose((student(x) / 5).softmax(1).detach().numpy(), peer.predict(x.numpy()), atol=2e-5)


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"temperature": 0}, ("temperature is 0", "above 0")),
        ({"temperature": float("inf")}, ("temperature is inf",)),
        ({"x": torch.zeros(0, 1, 1, 3)}, ("x is", "at least one")),
        ({"x": torch.full((2, 1, 1, 3), 255.0)}, ("x has values", "[0, 1]")),
        ({"y": torch.tensor([0, 3])}, ("label 3", "0 to 2")),
        ({"model": nn.Sequential(nn.Flatten(), nn.Softmax(1))}, ("probabilities", "logits")),
        ({"generator": 3}, ("generator is 3",)),
    ],
    ids=["zero", "infinite", "empty", "range", "label", "softmax", "generator"],
)
def test_bad_input_is_named(refuses, wrong, words):
    good = {"model": nn.Flatten(), "x": torch.zeros(2, 1, 1, 3), "y": torch.tensor([0, 1]), "temperature": 2.0}
    refuses(softened, good | wrong, *words)
    refuses(defensive_distillation, {**good, "teacher": nn.Flatten()} | wrong, *words)


def test_a_teacher_that_does_not_fit_is_named(refuses):
    good = {"model": nn.Flatten(), "x": torch.zeros(2, 1, 1, 3), "y": torch.tensor([0, 1])}
    refuses(defensive_distillation, good | {"teacher": None}, "teacher is None", "called")
    fewer = nn.Sequential(nn.Flatten(), nn.Linear(3, 2))
    refuses(defensive_distillation, good | {"teacher": fewer}, "what teacher returns", "(2, 2)", "(2, 3)")
    refuses(distillation_view, {"defended": None, "temperature": 2.0}, "defended is None")
    refuses(distillation_view, {"defended": nn.Flatten(), "temperature": -1.0}, "temperature is -1.0")

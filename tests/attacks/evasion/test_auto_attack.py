"""AutoAttack: who attacks whom, in which order, and what is reported; the whole of it against torchattacks."""

from importlib import import_module

import pytest
import torch
import torch.nn.functional as F

from spai_lab.attacks.evasion.auto_attack import auto_attack, auto_attack_verdict
from spai_lab.checks import SuspiciousResult
from spai_lab.models import mlp, softmax_regression
from spai_lab.threat import fooled, norms

module = import_module("spai_lab.attacks.evasion.auto_attack")  # the package has a function of this name


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def case():
    model = mlp((1, 4, 4), 5, generator=seeded())
    x = torch.rand(16, 1, 4, 4, generator=seeded())
    return model, x, model(x).argmax(1)


SHORT = {"steps": 10, "queries": 30}


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.15), ("l2", 0.6)])
def test_the_verdict_tells_what_happened_to_each_image(norm, eps, case):
    model, x, y = case
    y = y.clone()
    y[3] = (y[3] + 1) % 5
    verdict = auto_attack_verdict(model, x, y, eps=eps, norm=norm, **SHORT, generator=seeded())
    stands = torch.tensor([attack is None for attack in verdict.broken_by])
    assert verdict.broken_by[3] == "none needed" and torch.equal(verdict.x_adv[3], x[3])
    assert 0 < stands.sum() < 15 and sum(verdict.counts.values()) == 16 and verdict.counts[None] == stands.sum()
    assert torch.equal(fooled(model, verdict.x_adv, y), ~stands)
    assert torch.equal(verdict.x_adv[stands], x[stands])
    assert norms(verdict.x_adv - x, norm).max() <= eps + 1e-6
    assert torch.equal(verdict.x_adv, auto_attack(model, x, y, eps=eps, norm=norm, **SHORT, generator=seeded()))


def test_each_attack_gets_what_still_stands(monkeypatch):
    """Attack k breaks image k; another finds the way, but outside the ball."""
    seen = []

    def breaking(number, size):
        def attack(x, y):
            seen.append(y.tolist())
            return torch.where((y == number).view(-1, 1, 1, 1), x + size * F.one_hot(y + 1, 5).view_as(x), x)

        return attack

    attacks = {"first": breaking(0, 0.2), "too far": breaking(1, 0.3), "third": breaking(2, 0.2)}
    monkeypatch.setattr(module, "standard", lambda *arguments, **settings: attacks)
    x = 0.5 + 0.1 * torch.eye(4, 5).view(4, 1, 1, 5)
    verdict = auto_attack_verdict(lambda x: 10 * x.flatten(1), x, torch.arange(4), eps=0.25)
    assert seen == [[0, 1, 2, 3], [1, 2, 3], [1, 2, 3]]
    assert verdict.broken_by == ("first", None, "third", None)


def test_square_sees_through_a_model_that_hides_its_gradients(digits):
    from spai_lab.training import reference

    victim, x = reference("lenet", "digits"), digits.x_test[:8]

    def staircase(x):
        return victim((8 * x).round() / 8)

    y = staircase(x).argmax(1)
    with pytest.warns(SuspiciousResult) as caught:
        counts = auto_attack_verdict(staircase, x, y, eps=0.3, steps=2, queries=150, generator=seeded()).counts
    assert len(caught) == 1
    assert counts["Square"] >= 4 and not set(counts) - {"Square", "APGD-CE", None}


@pytest.mark.parametrize("number", range(4))
def test_each_attack_breaks_what_it_can_alone(number, case):
    model, x, y = case
    attacks = module.standard(model, 20, 200, eps=0.3, norm="linf", generator=seeded())
    assert list(attacks) == ["APGD-CE", "APGD-T", "FAB-T", "Square"]
    name, attack = list(attacks.items())[number]
    x_adv = attack(x, y)
    assert fooled(model, x_adv, y).double().mean() > 0.7, name


class Noisy(torch.nn.Module):
    """Looks at each image through noise, from a generator of its own."""

    def __init__(self, model):
        super().__init__()
        self.model, self.generator, self.calls = model, seeded(), 0

    def forward(self, x):
        self.calls += 1
        return self.model(x + 0.1 * torch.randn(x.shape, dtype=x.dtype, generator=self.generator))


def test_the_randomized_version_averages_over_looks(case):
    model, x, y = case
    noisy = Noisy(model)
    verdict = auto_attack_verdict(noisy, x, y, eps=0.15, steps=5, version="randomized", samples=7, generator=seeded())
    assert noisy.calls % 7 == 0 and noisy.calls >= 7 * (1 + 1 + 6 + 1 + 6 + 1)
    assert set(verdict.counts) <= {"none needed", "APGD-CE", "APGD-DLR", None} and verdict.counts["APGD-CE"] > 0
    broken = torch.tensor([attack is not None for attack in verdict.broken_by])
    looks = torch.stack([fooled(noisy, verdict.x_adv, y) for _ in range(50)]).double().mean(0)
    assert looks[broken].mean() > 0.7 > 0.3 > looks[~broken].mean()  # broken by more than luck


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("version", ["standard", "randomized"])
def test_fewer_than_four_classes_are_refused(classes, version, refuses):
    model, x = softmax_regression((1, 2, 2), classes, generator=seeded()), torch.full((2, 1, 2, 2), 0.5)
    for y in (model(x).argmax(1), (model(x).argmax(1) + 1) % classes):
        arguments = {"model": model, "x": x, "y": y, "eps": 0.1, "version": version}
        refuses(auto_attack, arguments, f"{classes} classes", "at least 4", "cross_entropy")


def test_five_classes_have_four_targets(case):
    model, x, y = case
    aims = []

    def spy(look, loss, x, tries, **settings):
        aims.append(torch.stack([labels[1] for labels in tries], 1))
        return x

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "climb_in_turn", spy)
        module.standard(model, 5, 5, eps=0.1, norm="linf", generator=seeded())["APGD-T"](x, y)
    assert torch.equal(torch.cat([y[:, None], aims[0]], 1), model(x).argsort(1, descending=True))


WRONG = [
    ("steps", 0, "steps is 0", "at least 1"),
    ("queries", 0, "queries is 0", "at least 1"),
    ("queries", 10.0, "queries is 10.0", "whole number"),
    ("samples", 0, "samples is 0", "at least 1"),
    ("version", "rand", "version is 'rand'", "'standard', 'randomized'"),
    ("norm", "l1", "norm is 'l1'", "'linf', 'l2'"),
    ("eps", 8, "eps is 8", "8/255"),
    ("generator", 0, "generator is 0", "torch.Generator"),
]


@pytest.mark.parametrize(("name", "value", "words"), [(name, value, words) for name, value, *words in WRONG])
def test_bad_input_is_refused(name, value, words, case, refuses):
    model, x, y = case
    refuses(auto_attack, {"model": model, "x": x, "y": y, "eps": 0.1, name: value}, *words)


def test_an_empty_batch_never_reaches_the_model():
    x, y = torch.zeros(0, 1, 2, 2), torch.zeros(0, dtype=torch.int64)
    assert auto_attack(lambda x: 1 / 0, x, y, eps=0.1).shape == x.shape


# --- the peer ---------------------------------------------------------------------------------------------------------


def deficit(name, digits, images, seeds, **budget):
    from benchmarks.contests.auto_attack import auto_attack_by_torchattacks
    from spai_lab.training import reference

    model, eps = reference(name, "digits"), {"lenet": 0.08, "lenet-robust": 0.17}[name]
    x, y = digits.x_test[:images], digits.y_test[:images]
    runs = [
        (
            auto_attack(model, x, y, eps=eps, **budget, generator=seeded(seed)),
            auto_attack_by_torchattacks(model, x, y, eps=eps, **budget, seed=seed)(),
        )
        for seed in seeds
    ]
    ours, theirs = (torch.cat([fooled(model, x_adv, y) for x_adv in side]) for side in zip(*runs, strict=True))
    assert 0.3 <= theirs.double().mean() <= 0.7
    return (theirs.double() - ours.double()).mean()


@pytest.mark.oracle
def test_it_succeeds_where_torchattacks_does_in_short(digits):
    assert deficit("lenet", digits, 24, (0,), steps=10, queries=100) <= 0.02


@pytest.mark.full
@pytest.mark.oracle
@pytest.mark.parametrize("name", ["lenet", "lenet-robust"])
def test_it_succeeds_where_torchattacks_does(name, digits):
    assert deficit(name, digits, 32, (0,), steps=50, queries=1000) <= 0.02

"""Substitutes and transfer: queries counted one by one, gradients taken by hand, pixels compared with the peers'."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from spai_lab.attacks.evasion.gradient import bim, fgsm, mim
from spai_lab.attacks.evasion.transfer import Ensemble, substitute, transfer, transfer_matrix
from spai_lab.models import mlp, softmax_regression
from spai_lab.query import Query
from spai_lab.threat import fooled, input_gradient, norms

CLASSES = 4
SHAPE = (1, 4, 4)
X = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(0))
Y = torch.arange(6) % CLASSES


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear(seed: int) -> nn.Module:
    return softmax_regression(SHAPE, CLASSES, generator=seeded(seed))


MODELS = [linear(1), mlp(SHAPE, CLASSES, generator=seeded(2)), linear(3)]


# --- the substitute ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def teacher():
    """A linear victim whose classes are about equally frequent on random images."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES))
    model[-1].weight.data.copy_(3 * torch.randn(CLASSES, 16, generator=seeded()))
    model[-1].bias.data.copy_(-model[-1].weight.sum(1) / 2)
    return model


def agreement(teacher, student) -> float:
    x = torch.rand(2000, *SHAPE, generator=seeded(5))
    with torch.no_grad():
        return float((teacher(x).argmax(1) == student(x).argmax(1)).double().mean())


def test_a_substitute_agrees_more_with_every_doubling_and_beats_a_constant(teacher):
    x = torch.rand(20, *SHAPE, generator=seeded(6))

    def reached(rounds: int, seed: int) -> float:
        settings = {"rounds": rounds, "step": 0.3, "epochs": 60, "learning_rate": 0.02, "generator": seeded(seed)}
        return agreement(teacher, substitute(Query(teacher, "labels"), x, model=linear(seed), **settings))

    means = [np.mean([reached(rounds, seed) for seed in range(3)]) for rounds in (1, 3, 5)]
    constant = torch.bincount(teacher(torch.rand(2000, *SHAPE, generator=seeded(5))).argmax(1)).max().item() / 2000
    assert constant + 0.1 < means[0] < means[1] < means[2]


@pytest.mark.parametrize("rounds", [1, 2, 4])
@pytest.mark.parametrize("reveals", ["labels", "top-2", "scores", "logits"])
def test_every_input_costs_two_to_the_rounds_less_one(teacher, rounds, reveals):
    query = Query(teacher, reveals)
    substitute(query, X, model=linear(0), rounds=rounds, epochs=1)
    assert query.counts.tolist() == [2 ** (rounds - 1)] * len(X)


@pytest.mark.parametrize(("cap", "spent"), [(1, 1), (3, 2), (4, 4), (7, 4)])
def test_the_cap_ends_the_doubling(teacher, cap, spent):
    query = Query(teacher, "labels", cap=cap)
    substitute(query, X, model=linear(0), rounds=5, epochs=1)
    assert query.counts.tolist() == [spent] * len(X) and query.exhausted.all()


def test_an_input_that_the_cap_stops_leaves_the_others_going(teacher):
    query = Query(teacher, "labels", cap=4)
    query(X[:1])
    substitute(query, X, model=linear(0), rounds=3, epochs=1)
    assert query.counts.tolist() == [3, 4, 4, 4, 4, 4]


def test_new_inputs_lie_where_the_substitute_grows_surest_of_the_victims_label(teacher):
    """Both rounds' questions, against the Jacobian of the probabilities by hand."""
    asked, states, latest = [], [], {}

    class Spy(nn.Sequential):
        def forward(self, x):
            latest.update(copy.deepcopy(self.state_dict()))
            return super().forward(x)

    def victim(x):
        asked.append(x.clone())
        states.append(dict(latest))
        return teacher(x)

    spy = Spy(nn.Flatten(), nn.Linear(16, CLASSES))
    substitute(Query(victim, "labels"), X, model=spy, rounds=2, step=0.1, epochs=3, generator=seeded())
    assert torch.equal(asked[0], X)
    labels = teacher(X).argmax(1)

    x, weight, bias = X.clone().requires_grad_(), states[1]["1.weight"], states[1]["1.bias"]
    scores = nn.functional.linear(x.flatten(1), weight, bias).softmax(1)
    jacobian = torch.autograd.grad(scores.gather(1, labels[:, None]).sum(), x)[0]
    assert torch.allclose(asked[1], (X + 0.1 * jacobian.sign()).clamp(0, 1), rtol=0, atol=1e-6)


def test_the_model_that_came_and_the_global_randomness_stay(teacher):
    model, state = linear(0).train(), torch.get_rng_state()
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        first, second = (
            substitute(Query(teacher), X, model=model, rounds=2, epochs=2, generator=seeded()) for _ in range(2)
        )
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state()) and model.training and first.training
    assert torch.equal(first[-1].weight, second[-1].weight) and not torch.equal(first[-1].weight, model[-1].weight)


# --- the ensemble -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 5.0]])
def test_the_ensembles_gradient_is_that_of_equation_4(weights):
    alpha = np.ones(3) / 3 if weights is None else np.array(weights) / 8
    x = X.double().requires_grad_()
    models = [copy.deepcopy(model).double() for model in MODELS]
    mean = sum(a * model(x).softmax(1) for a, model in zip(alpha, models, strict=True))
    loss = -mean.gather(1, Y[:, None]).log().sum()
    expected = torch.autograd.grad(loss, x)[0]
    found = input_gradient(Ensemble(models, weights), x.detach(), Y)
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12)
    assert torch.allclose(Ensemble(models, weights)(x).exp(), mean, rtol=1e-9, atol=0)


def test_an_ensemble_of_sure_models_is_finite():
    sure = nn.Sequential(linear(1), nn.Hardtanh(), nn.Linear(CLASSES, CLASSES))
    sure[-1].weight.data.mul_(1e4)
    assert input_gradient(Ensemble([sure, sure]), X, Y).isfinite().all()


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 0.5)])
@pytest.mark.parametrize("targeted", [False, True])
def test_one_surrogate_is_mim_and_no_momentum_is_bim(norm, eps, targeted):
    arguments = {"eps": eps, "norm": norm, "targeted": targeted}
    for decay, attack in ((1.0, mim), (0.0, bim)):
        x_adv = transfer([MODELS[1]], X, Y, decay=decay, **arguments)
        assert torch.allclose(x_adv, attack(MODELS[1], X, Y, **arguments), rtol=0, atol=1e-6)


def test_an_ensemble_fools_its_members_where_one_surrogate_fools_itself(digits):
    from spai_lab.training import reference

    models = {name: reference(name, "digits") for name in ("lenet", "mlp")}
    x, y = digits.x_test[:100], digits.y_test[:100]
    alone = {name: transfer([model], x, y, eps=0.15) for name, model in models.items()}
    together = transfer(list(models.values()), x, y, eps=0.15)

    def worst(x_adv) -> float:
        return min(fooled(model, x_adv, y).double().mean().item() for model in models.values())

    assert worst(together) > max(map(worst, alone.values()))


def test_surrogates_stay_as_they_are():
    models = [copy.deepcopy(model).train() for model in MODELS]
    transfer(models, X, Y, eps=0.1)
    for before, model in zip(MODELS, models, strict=True):
        assert model.training and all(p.grad is None for p in model.parameters())
        assert all(torch.equal(*pair) for pair in zip(before.parameters(), model.parameters(), strict=True))


def test_an_empty_batch_comes_back():
    assert transfer(MODELS, X[:0], Y[:0], eps=0.1).shape == (0, *SHAPE)


# --- the matrix -------------------------------------------------------------------------------------------------------


def test_the_matrix_counts_images_that_all_read_rightly():
    """Models by hand: each reads one pixel; the attack blackens the pixel that its own model reads."""

    def reads(row):
        return lambda x: torch.stack([x[:, 0, row, 0] - 0.5, 0.5 - x[:, 0, row, 0]], 1)

    x = torch.ones(5, 1, 2, 1)
    x[0, 0, 1] = 0  # the second model misreads this one from the start
    models = {"first": reads(0), "second": reads(1)}
    rows = {id(model): row for row, model in enumerate(models.values())}

    def blacken(model, x, y):
        x = x.clone()
        x[: 2 if rows[id(model)] else 4, 0, rows[id(model)]] = 0
        return x

    rates = transfer_matrix(models, x, torch.zeros(5, dtype=torch.int64), blacken)
    counted = {(a, b): (rate.hits, rate.trials) for a, row in rates.items() for b, rate in row.items()}
    assert counted == {
        ("first", "first"): (4, 4),
        ("first", "second"): (0, 4),
        ("second", "first"): (0, 4),
        ("second", "second"): (2, 4),
    }


def test_equal_models_fool_each_other_alike():
    models = {"one": MODELS[1], "twin": copy.deepcopy(MODELS[1])}
    y = MODELS[1](X).argmax(1)
    rates = transfer_matrix(models, X, y, lambda model, x, y: fgsm(model, x, y, eps=0.3))
    assert len({rate.hits for row in rates.values() for rate in row.values()}) == 1


# --- bad input --------------------------------------------------------------------------------------------------------


def test_bad_input_is_refused(refuses, teacher):
    student = linear(0)
    valid = {"query": Query(teacher, "labels"), "x": X, "model": student}
    for changes, *words in [
        ({"query": teacher}, "query is", "accepted: a Query"),
        ({"model": None}, "model is None", "to train"),
        ({"model": lambda x: x}, "model is", "to train"),
        ({"x": X * 255}, "x has values", "[0, 1]"),
        ({"x": X[:0]}, "x is", "at least one input"),
        ({"rounds": 0}, "rounds is 0", "at least 1"),
        ({"step": 0}, "step is 0", "above 0, at most 1"),
        ({"step": 2}, "step is 2", "above 0, at most 1"),
        ({"epochs": 0}, "epochs is 0", "at least 1"),
        ({"learning_rate": 0}, "learning_rate is 0", "above 0"),
        ({"generator": 3}, "generator is 3", "torch.Generator"),
        ({"model": softmax_regression(SHAPE, 2)}, "y has a label", "the classes of the model"),
        ({"model": softmax_regression((1, 5, 5), CLASSES)}, "model fails on x"),
    ]:
        refuses(substitute, valid | changes, *words)
    spent = Query(teacher, "labels", cap=1)
    spent(X)
    refuses(substitute, valid | {"query": spent}, "cap of 1")
    valid = {"surrogates": MODELS, "x": X, "y": Y, "eps": 0.1}
    for changes, *words in [
        ({"surrogates": []}, "surrogates is []", "at least one"),
        ({"surrogates": None}, "surrogates is None", "a list"),
        ({"surrogates": MODELS[0]}, "surrogates is", "a list"),
        ({"surrogates": [MODELS[0], "lenet"]}, "surrogates is", "torch.nn.Module"),
        ({"surrogates": [copy.deepcopy(MODELS[0]).double()]}, "x is torch.float32"),
        ({"surrogates": [nn.Sequential(MODELS[1], nn.Softmax(1))]}, "model returns probabilities"),
        ({"surrogates": [MODELS[1], softmax_regression(SHAPE, 7)]}, "model fails on x"),
        ({"weights": [1.0]}, "weights is [1.0]", "3 numbers"),
        ({"weights": 1.0}, "weights is 1.0", "3 numbers"),
        ({"weights": [1.0, 0.0, 1.0]}, "weights is 0.0", "above 0"),
        ({"steps": 0}, "steps is 0"),
        ({"decay": -1}, "decay is -1"),
        ({"eps": 8}, "eps is 8", "8/255"),
    ]:
        refuses(transfer, valid | changes, *words)
    valid = {"models": {"one": MODELS[0]}, "x": X, "y": MODELS[0](X).argmax(1), "attack": lambda model, x, y: x}
    for changes, *words in [
        ({"models": {}}, "models is {}", "at least one"),
        ({"models": MODELS}, "models is", "a mapping"),
        ({"attack": None}, "attack is None", "called"),
        ({"attack": lambda model, x, y: x[:1]}, "attack returns", "like x"),
        ({"y": (valid["y"] + 1) % CLASSES}, "none of which all models read rightly"),
        ({"x": X[:0], "y": Y[:0]}, "x is", "at least one"),
    ]:
        refuses(transfer_matrix, valid | changes, *words)


# --- the peers --------------------------------------------------------------------------------------------------------


@pytest.mark.oracle
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("peer", ["torchattacks", "ART"])
def test_pixels_equal_the_peers(victim, digits, peer, targeted):
    from benchmarks.contests.transfer import by_art, by_torchattacks, ours

    x, y = 0.25 + digits.x_test / 2, digits.y_test
    steep = norms(input_gradient(victim, x, y), "l2") > 1e-4  # on a plateau peers that guard a division stop short
    x, y = x[steep][:64], y[steep][:64]
    y = (y + 1) % 10 if targeted else y
    x_adv = ours(victim, x, y, targeted=targeted)()
    theirs = {"torchattacks": by_torchattacks, "ART": by_art}[peer](victim, x, y, targeted=targeted)()
    assert (x_adv - theirs).abs().max() <= 1e-6 and (x_adv - x).abs().max() > 0.05

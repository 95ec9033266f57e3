"""The likelihood-ratio attack against closed forms, and against attacks that know less."""

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn

from spai_lab.attacks.privacy.likelihood import gaussian, lira, scaled
from spai_lab.attacks.privacy.membership import membership_loss
from spai_lab.attacks.privacy.shadows import Shadows, random_halves, train_shadows
from spai_lab.data import load
from spai_lab.metrics import roc
from spai_lab.models import mlp
from spai_lab.query import Query


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Sums(nn.Module):
    """Two classes; the logit of the second is a weight times the input's only pixel."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        z = self.weight * x.flatten(1)
        return torch.cat([torch.zeros_like(z), z], 1) - 5


def shadows_with(weights, inside):
    return Shadows({"weight": torch.tensor(weights)}, torch.tensor(inside), Sums())


def target_with(weight):
    model = Sums()
    model.weight.data.fill_(weight)
    return model


WEIGHTS = [1.0, 2.0, 4.0, -1.0, 0.5, 0.0]
INSIDE = [[True], [True], [True], [False], [False], [False]]


@pytest.mark.parametrize("level", ["scores", "logits", "top-1", "top-2"])
@pytest.mark.parametrize("weight", [-2.0, 0.3, 3.0])
def test_the_score_is_the_ratio_of_two_normal_densities(level, weight):
    query = Query(target_with(weight), level)
    x, y = torch.ones(1, 1, 1, 1), torch.tensor([1])
    seen, unseen = np.array(WEIGHTS[:3]), np.array(WEIGHTS[3:])
    online = lira(query, x, y, shadows_with(WEIGHTS, INSIDE)).item()
    expected = norm.logpdf(weight, seen.mean(), seen.std(ddof=1)) - norm.logpdf(
        weight, unseen.mean(), unseen.std(ddof=1)
    )
    assert online == pytest.approx(expected, abs=1e-5)
    offline = lira(query, x, y, shadows_with(WEIGHTS, INSIDE), online=False).item()
    assert offline == pytest.approx(norm.logcdf(weight, unseen.mean(), unseen.std(ddof=1)), abs=1e-5)


def test_the_shared_variance_pools_the_squares_of_all_inputs():
    phi = torch.randn(6, 4, generator=seeded(), dtype=torch.float64)
    counted = torch.rand(6, 4, generator=seeded(1)) < 0.7
    mu, sigma = gaussian(phi, counted, True, "with")
    columns = [phi[counted[:, i], i].numpy() for i in range(4)]
    squares = sum(((column - column.mean()) ** 2).sum() for column in columns)
    freedom = sum(len(column) - 1 for column in columns)
    assert mu.numpy() == pytest.approx([column.mean() for column in columns])
    assert sigma.numpy() == pytest.approx([(squares / freedom) ** 0.5] * 4)


def test_the_scaled_confidence_is_exact_where_the_probability_is_one_in_single_precision():
    model = target_with(40.0)
    query = Query(model, "logits")
    phi = scaled(query, query(torch.ones(1, 1, 1, 1)), torch.tensor([1]))
    assert torch.tensor(40.0).sigmoid() == 1 and phi.item() == pytest.approx(40.0)


@pytest.fixture(scope="module")
def scene():
    data = load("digits")
    x, y = data.x_train[:200], data.y_train[:200]
    inside = torch.cat([random_halves(24, 200, generator=seeded(1)), random_halves(8, 200, generator=seeded(2))])
    settings = {"epochs": 40, "learning_rate": 3e-3, "generator": seeded(3), "progress": False}
    models = train_shadows(x, y, inside, lambda g: mlp(hidden=32, generator=g), **settings)
    return x, y, models.some(torch.arange(24)), [models.model(k) for k in range(24, 32)], inside[24:]


def mean_area(scene, attack):
    x, y, shadows, targets, inside = scene
    areas = [roc(attack(Query(m, "scores"), x, y, shadows), inside[k]).area for k, m in enumerate(targets)]
    return sum(areas) / len(areas)


def test_who_calibrates_to_the_input_beats_who_does_not(scene):
    loss = mean_area(scene, lambda query, x, y, _: membership_loss(query, x, y))
    online, offline = (
        mean_area(scene, lambda *a, o=o: lira(*a, online=o, shared_variance=True)) for o in (True, False)
    )
    assert online > offline > loss > 0.55


def test_the_targets_own_membership_is_never_read(scene):
    x, y, shadows, targets, _ = scene
    query = Query(targets[0], "logits")
    first, again = (lira(query, x, y, shadows) for _ in range(2))
    assert torch.equal(first, again)
    half_of_them = torch.arange(100)
    part = Shadows(shadows.weights, shadows.inside[:, :100], shadows.skeleton)
    assert torch.allclose(lira(query, x[half_of_them], y[half_of_them], part), first[:100], atol=1e-4)


def test_swapped_halves_turn_the_score_around(scene):
    """A planted fault: whoever takes the models with the input for those without finds the opposite."""
    x, y, shadows, targets, inside = scene
    swapped = Shadows(shadows.weights, ~shadows.inside, shadows.skeleton)
    query = Query(targets[0], "logits")
    assert torch.allclose(lira(query, x, y, swapped), -lira(query, x, y, shadows))
    assert roc(lira(query, x, y, swapped), inside[0]).area < 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": Query(Sums(), "labels")}, "query reveals 'labels'; accepted: one that reveals 'top-3'"),
        ({"query": Sums()}, "query is"),
        ({"shadows": 3}, "shadows is 3"),
        ({"shadows": shadows_with(WEIGHTS[:2], [[True], [False]])}, "fewer than two models without it"),
        ({"shadows": shadows_with(WEIGHTS[:3], [[True], [False], [False]])}, "fewer than two models with it"),
        ({"query": Query(nn.Sequential(nn.Flatten(), nn.Linear(1, 3)), "scores")}, "other classes than the target"),
        ({"online": 1}, "online is 1"),
        ({"shared_variance": None}, "shared_variance is None"),
        ({"x": torch.full((1, 1, 1, 1), 2.0)}, "x has values"),
        ({"y": torch.tensor([0.5])}, "y is"),
    ],
)
def test_bad_arguments_are_named(change, message):
    good = {"query": Query(Sums(), "scores"), "x": torch.ones(1, 1, 1, 1), "y": torch.tensor([1])}
    good["shadows"] = shadows_with(WEIGHTS, INSIDE)
    with pytest.raises(ValueError, match=message):
        lira(**good | change)


@pytest.mark.parametrize("online", [True, False])
def test_every_input_costs_one_query(scene, online):
    x, y, shadows, targets, _ = scene
    query = Query(targets[0], "scores", cap=1)
    lira(query, x, y, shadows, online=online)
    assert query.total == len(x)

"""The curves of distortion against queries: radii tried fairly, caps kept, the committed run complete."""

import math

import pytest
import torch
from torch import nn

from spai_lab.query import Query
from spai_lab.survey.measure import load_measurement
from spai_lab.survey.query_curves import JOBS, RADII, Curve, at_radii, measured_curves
from spai_lab.training import manifest


@pytest.fixture
def committed():
    return load_measurement("query_curves")


@pytest.fixture
def line():
    """Two classes on images of 8 x 8, told apart by whether the mean is above one half."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.stack([torch.ones(64), -torch.ones(64)]))
    return nn.Sequential(Shift(), model)


class Shift(nn.Module):
    """The boundary runs where the mean is one half."""

    def forward(self, x):
        return x - 0.5


def along_the_diagonal(query, x, y, *, eps, queries, generator):
    """The best L2 step on the model of `line`: all 64 entries fall alike."""
    return (x - eps / 8).clamp(0, 1)


@pytest.mark.parametrize(("level", "radius"), [(0.6, 1.5), (0.75, 2.5), (0.9, 4.0), (0.999, 4.0)])
def test_the_smallest_radius_that_reaches_the_boundary_is_kept(line, level, radius):
    x, y = torch.full((1, 1, 8, 8), level), torch.tensor([0])
    distance = 8 * (level - 0.5)
    assert radius == min(r for r in RADII if r > distance)
    x_adv = at_radii(Query(line, "scores", cap=40), x, y, attack=along_the_diagonal, generator=torch.Generator())
    assert (x_adv - x).norm().item() == pytest.approx(min(radius, 8 * level), rel=1e-5)


def test_an_image_that_no_radius_turns_comes_back(line):
    x, y = torch.ones(1, 1, 8, 8), torch.tensor([0])
    query = Query(line, "scores", cap=40)
    stay = at_radii(query, x, y, attack=lambda query, x, y, **_: x.clone(), generator=torch.Generator())
    assert torch.equal(stay, x)
    assert query.counts.tolist() == [len(RADII)]


def test_committed_run_is_complete_and_of_the_committed_weights(committed):
    assert [{name: row[name] for name in job.key} for job, row in zip(JOBS, committed["rows"], strict=True)] == [
        job.key for job in JOBS
    ]
    assert committed["weights"] == {"lenet": manifest()["models"]["lenet-mnist"]["sha256"]}


def test_more_queries_bring_the_walks_nearer_and_never_below_the_white_box(committed):
    curves, floor = measured_curves(committed)
    assert set(curves) == {job.attack for job in JOBS if isinstance(job, Curve)}
    for name in ("HopSkipJump (labels)", "boundary (labels)"):
        medians = [curves[name][cap].value for cap in sorted(curves[name])]
        assert medians == sorted(medians, reverse=True)
    assert all(median.value > floor for medians in curves.values() for median in medians.values())


def test_a_tiny_run_keeps_infinity_as_none(mnist):
    stuck = Curve("stuck", "labels", lambda query, x, y, generator: x.clone(), caps=(1,), images=3)
    measured = stuck.run(0)
    assert measured["medians"][0][0] is None
    curves, _ = measured_curves({"rows": [{**stuck.key, **measured}, {"attack": "C&W, white-box", "median": 1.0}]})
    assert math.isinf(curves["stuck"][1].value)

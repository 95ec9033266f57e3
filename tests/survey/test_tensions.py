"""Tensions between robustness, accuracy and privacy: matched groups, planted members that are found, the figure."""

import pytest
import torch
from torch import nn

from spai_lab.data import load
from spai_lab.survey import tension_jobs
from spai_lab.survey.measure import load_measurement
from spai_lab.survey.tension_figures import area, figure_tensions, hardened, series, tensions_in_words
from spai_lab.survey.tension_jobs import HARDENED_FOR, MEMBERS, Hardened, confidence, leak, two_groups


@pytest.fixture
def groups():
    return two_groups(load("digits"), torch.Generator().manual_seed(0))


class Rote(nn.Module):
    """Sure of the classes of the images that it has learned by heart, and of nothing else."""

    def __init__(self, x, y):
        super().__init__()
        self.known = {image.numpy().tobytes(): int(label) for image, label in zip(x, y, strict=True)}

    def forward(self, x):
        logits = torch.zeros(len(x), 10)
        for place, image in enumerate(x.detach()):
            if (label := self.known.get(image.numpy().tobytes())) is not None:
                logits[place, label] = 9.0
        return logits + 0 * x.flatten(1)[:, :1]


def test_members_and_others_are_apart_and_drawn_from_the_training_part(groups):
    (members, _), (others, _) = groups
    seen = {image.numpy().tobytes() for image in members}
    everything = {image.numpy().tobytes() for image in load("digits").x_train}
    assert len(members) == len(others) == MEMBERS
    assert seen <= everything and not seen & {image.numpy().tobytes() for image in others}


def test_whoever_knows_members_by_heart_gives_them_all_away(groups):
    found = leak(Rote(*groups[0]), *groups, 0.0)
    assert found == {"area": 1.0, "caught": [MEMBERS, MEMBERS]}


def test_a_model_that_has_seen_neither_group_tells_nothing(groups):
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    with torch.no_grad():
        model[1].weight.copy_(torch.randn(10, 784, generator=torch.Generator().manual_seed(1)))
    assert 0.5 - 5 * 0.0183 < leak(model, *groups, 0.0)["area"] < 0.5 + 5 * 0.0183  # sigma = sqrt(1 / (6 * 500))


def test_log_odds_order_inputs_as_the_loss_does():
    logits = torch.randn(50, 10, generator=torch.Generator().manual_seed(0))
    y = torch.arange(50) % 10
    loss = nn.functional.cross_entropy(logits.double(), y, reduction="none")
    odds = confidence(nn.Identity(), logits, y)
    assert torch.equal(odds.argsort(descending=True), loss.argsort())
    assert torch.allclose(odds.sigmoid().log(), -loss)


def test_repetitions_share_all_but_eps(monkeypatch):
    monkeypatch.setattr(tension_jobs, "EPOCHS", 1)
    monkeypatch.setattr(tension_jobs, "MEMBERS", 40)
    monkeypatch.setattr(tension_jobs, "JUDGING_STEPS", 2)
    rows = [Hardened("digits", eps, 0).run(0) for eps in (0.0, 0.2)]
    assert [set(row["leaks"]) for row in rows] == [{"0"}, {"0", "0.2"}]
    assert rows[0] == Hardened("digits", 0.0, 0).run(0)
    assert all(row["right"]["members"][1] == row["right"]["others"][1] == 40 for row in rows)


def test_the_figure_has_a_dot_for_each_training():
    measured = load_measurement("tensions_mnist")
    figure = figure_tensions(measured)
    rows = hardened(measured)
    left = figure.axes[0]
    dots = [line for line in left.get_lines() if line.get_marker() == "."]
    assert {len(line.get_xdata()) for line in dots} == {len(rows)}
    assert list(series(measured, lambda row: area(row, attacked=False))) == list(HARDENED_FOR)
    caption, alt = tensions_in_words(measured)
    assert all(f"eps {eps:g}: " in alt for eps in HARDENED_FOR) and f"{rows[0]['members']} MNIST images" in caption

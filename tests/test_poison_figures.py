"""The drawings of poisoning show the labels, groups and rates that they are given."""

import pytest
import torch
from torch import nn

from spai_lab.metrics import Rate
from spai_lab.poison_figures import feature_planes, fraction_curves, poison_rows, principal_plane

CLASSES = ("zero", "one", "two")


def images(count, seed=0):
    return torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed))


def test_a_wrong_label_is_marked_and_a_right_one_is_not():
    fig = poison_rows(images(2), torch.tensor([1, 2]), images(2, 1), torch.tensor([0, 2]), CLASSES)
    below = [ax.get_xlabel() for ax in fig.axes]
    assert below == ["label one", "label two", "✕ label zero", "label two"]


def test_the_plane_is_that_of_sklearn():
    from sklearn.decomposition import PCA

    model, x = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), images(30)
    theirs = torch.from_numpy(PCA(2).fit_transform(x.flatten(1).double().numpy())).float()
    ours = principal_plane(model, x)
    torch.testing.assert_close(ours.abs(), theirs.abs(), atol=1e-5, rtol=0)
    assert (ours.amax(0) >= -ours.amin(0)).all()


def test_each_group_has_its_points_and_its_marker():
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), images(10)
    mask = torch.arange(10) < 4
    panels = {"before": x, "after": torch.where(mask.view(-1, 1, 1, 1), 1 - x, x)}
    fig = feature_planes(model, panels, {"clean": ~mask, "poison": mask}, {"clean": "clean", "poison": "poisoned"})
    clean, poison = fig.axes[0].lines
    same, moved = fig.axes[1].lines
    assert same.get_xydata().tolist() == clean.get_xydata().tolist(), "the axes are those of the first panel"
    assert abs(moved.get_xydata() - poison.get_xydata()).max() > 0.1
    assert fig.axes[0].get_xlim() == fig.axes[1].get_xlim()
    assert (len(clean.get_xdata()), len(poison.get_xdata())) == (6, 4)
    assert clean.get_marker() != poison.get_marker() and clean.get_color() != poison.get_color()
    assert poison.get_label() == "poison (4)"


def test_a_curve_shows_its_rates():
    curves = {"random": {0.0: Rate(9, 10), 0.1: Rate(5, 10)}, "guided": {0.0: Rate(9, 10), 0.1: Rate(2, 10)}}
    ax = fraction_curves(curves, {"random": "baseline", "guided": "poisoned"}, what="accuracy", chance=0.1).axes[0]
    assert ax.lines[1].get_xydata().tolist() == [[0.0, 0.9], [0.1, 0.2]]
    assert ax.get_ylabel() == "accuracy" and "n = 10" in ax.get_title(loc="left")


def test_curves_of_one_role_differ():
    curves = {str(number): {0.0: Rate(9, 10), 0.1: Rate(5, 10)} for number in range(5)}
    lines = fraction_curves(curves, dict.fromkeys(curves, "poisoned"), what="success").axes[0].lines
    assert len({line.get_marker() for line in lines}) == 5


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"x": images(13), "y": torch.zeros(13, dtype=torch.int64)}, ("x is", "1 to 12")),
        ({"x_poison": images(2) * 255}, ("x_poison has values", "[0, 1]")),
        ({"y_poison": torch.zeros(3, dtype=torch.int64)}, ("y_poison is", "shape (2,)")),
    ],
)
def test_bad_arguments_are_refused(refuses, changed, words):
    good = {"x": images(2), "y": torch.tensor([0, 1]), "x_poison": images(2), "y_poison": torch.tensor([0, 0])}
    refuses(poison_rows, {**good, "classes": CLASSES, **changed}, *words)

"""The survey's figures: every row has its place, and what the black-box attacker sees is what the model answers."""

import pytest
import torch
from torch import nn

from spai_lab.data import load
from spai_lab.style import to_png
from spai_lab.survey.figures import DEFENSES, STRIKES, figure_knowledge, figure_phases
from spai_lab.survey.taxonomy import load_taxonomy


class Halves(nn.Module):
    """The upper moon's label where the second coordinate is above one half: a boundary that is known."""

    def forward(self, x):
        height = 20 * (x[:, 1, 0, 0] - 0.5)
        return torch.stack([height, -height], dim=1)


@pytest.fixture(scope="module")
def moons():
    return load("moons")


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def drawn_points(ax, label):
    return next(line.get_xydata() for line in ax.lines if line.get_label() == label)


@pytest.mark.parametrize("row", load_taxonomy(), ids=lambda row: row.id)
def test_a_row_stands_in_one_place_of_a_models_life(row):
    places = [strike.title for strike in (*STRIKES, *DEFENSES) if strike.holds(row)]
    assert len(places) == (0 if row.part == "tables and figures" else 1), places


def test_attacks_stand_above_and_defenses_below():
    assert all(
        not row.part.startswith("defenses") for strike in STRIKES for row in load_taxonomy() if strike.holds(row)
    )
    attacks = ("evasion", "poisoning", "threats")
    assert all(row.part not in attacks for strike in DEFENSES for row in load_taxonomy() if strike.holds(row))


def test_the_counts_on_the_figure_add_up():
    texts = [text.get_text() for text in figure_phases().axes[0].texts]
    evasion = next(text for text in texts if "Fast gradient sign" in text)
    assert evasion.splitlines()[-1] == "and 20 more"


def test_no_text_leaves_its_callout_or_the_figure():
    figure = figure_phases()
    to_png(figure)
    ax = figure.axes[0]
    callouts = [patch.get_window_extent() for patch in ax.patches if patch.get_zorder() == 4]
    for text in ax.texts:
        if text.get_zorder() == 5:
            box = text.get_window_extent()
            inside = [c for c in callouts if c.x0 <= box.x0 and box.x1 <= c.x1 and c.y0 <= box.y0 and box.y1 <= c.y1]
            assert inside, text.get_text()


def test_the_black_box_attacker_sees_the_models_answers(moons):
    index = int((moons.y_test == 0).nonzero()[0])
    _, black, *_ = figure_knowledge(moons, Halves(), index=index, queries=60, generator=seeded()).axes
    same, other = drawn_points(black, "same answer as x"), drawn_points(black, "another answer")
    assert len(same) + len(other) == 60
    assert (same[:, 1] > 0.5).all() and (other[:, 1] <= 0.5).all()


def test_the_white_box_path_ends_across_the_boundary_inside_the_ball(moons):
    axes = figure_knowledge(moons, Halves(), eps=0.2, generator=seeded()).axes
    x, reached = (torch.tensor(drawn_points(axes[0], label)[0]) for label in ("x", "after pgd"))
    assert (x[1] - 0.5) * (reached[1] - 0.5) < 0
    assert (reached - x).norm() <= 0.2 + 1e-6


def test_the_same_generator_gives_the_same_picture(moons):
    first, second = (to_png(figure_knowledge(moons, Halves(), generator=seeded())) for _ in range(2))
    assert first == second


def test_a_model_that_always_says_the_same_is_drawn_too(moons):
    class Constant(nn.Module):
        def forward(self, x):
            return x.flatten(1) * 0 + torch.tensor([3.0, 0.0])

    with pytest.warns(UserWarning):
        assert to_png(figure_knowledge(moons, Constant(), queries=5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eps": 0}, "eps is 0; accepted: a finite number above 0"),
        ({"eps": float("nan")}, "eps is nan"),
        ({"queries": 1}, "queries is 1; accepted: a whole number of at least 2"),
        ({"index": -1}, "index is -1; accepted: 0 to"),
        ({"index": 10**6}, "index is 1000000; accepted: 0 to"),
    ],
)
def test_bad_input_is_named(moons, change, message):
    with pytest.raises(ValueError, match=message):
        figure_knowledge(moons, Halves(), **change)


def test_data_that_is_no_plane_is_refused(digits):
    with pytest.raises(
        ValueError, match=r"dataset has shape \(1, 28, 28\) and 10 classes; accepted: \(2, 1, 1\) and 2"
    ):
        figure_knowledge(digits, Halves())

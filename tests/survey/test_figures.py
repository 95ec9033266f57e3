"""The survey's figures: every row has its place, and what the black-box attacker sees is what the model answers."""

import pytest
import torch
from torch import nn

from spai_lab.data import load
from spai_lab.style import to_png
from spai_lab.survey.figures import DEFENSES, STRIKES, figure_knowledge, figure_phases
from spai_lab.survey.regions import short_name
from spai_lab.survey.roles import MEASURES, OPEN, ROLES, SIGHTS, attacks_of, figure_privacy_roles
from spai_lab.survey.taxonomy import ACCESS, load_taxonomy


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


@pytest.mark.parametrize("draw", [figure_phases, figure_privacy_roles])
def test_no_text_leaves_its_box_or_meets_another(draw):
    figure = draw()
    to_png(figure)
    ax = figure.axes[0]
    boxes = [patch.get_window_extent() for patch in ax.patches if patch.get_zorder() == 4]
    texts = [text for text in ax.texts if text.get_text()]
    places = [text.get_window_extent() for text in texts]
    for text, place in zip(texts, places, strict=True):
        if text.get_zorder() == 5:
            inside = [
                c for c in boxes if c.x0 <= place.x0 and place.x1 <= c.x1 and c.y0 <= place.y0 and place.y1 <= c.y1
            ]
            assert inside, text.get_text()
        meets = [
            other for other, taken in zip(texts, places, strict=True) if other is not text and overlap(place, taken)
        ]
        assert not meets, (text.get_text(), [other.get_text() for other in meets])


def overlap(one, other):
    """Whether two places share more than two rows or columns of pixels: letters' boxes are larger than their ink."""
    return min(one.x1, other.x1) - max(one.x0, other.x0) > 2 and min(one.y1, other.y1) - max(one.y0, other.y0) > 2


def column_of(figure, who):
    """All words that begin within the column of a role."""
    to_png(figure)
    ax = figure.axes[0]
    marks = {line.get_gid(): line.get_xdata()[0] for line in ax.lines}
    seen = [marks[f"{who} {sight}"] for sight in SIGHTS]
    step = seen[1] - seen[0]
    left, right = seen[0] - step / 2, seen[-1] + step / 2
    return " ".join(text.get_text() for text in ax.texts if left <= text.get_position()[0] < right)


def test_the_roles_are_those_of_the_taxonomy_and_mount_its_threats():
    assert tuple(role.who for role in ROLES) == ACCESS["threats"]
    figure = figure_privacy_roles()
    for role in ROLES:
        words = column_of(figure, role.who)
        attacks = [row for row in load_taxonomy() if row.part == "threats" and role.who in row.access.split(", ")]
        assert attacks and attacks_of(role, load_taxonomy()) == attacks
        assert all(short_name(row) in words for row in attacks), words
        assert f"{len(attacks)} attack" in words


def test_a_new_threat_appears_under_its_role():
    rows = [row for row in load_taxonomy() if row.id != "gan_attack"]
    assert "1 attack, chapter 12" in column_of(figure_privacy_roles(rows), "silo")
    assert "GAN attack" in column_of(figure_privacy_roles(), "silo").partition("Secure")[0]


def test_filled_marks_say_what_a_role_sees():
    marks = {line.get_gid(): line for line in figure_privacy_roles().axes[0].lines if line.get_gid()}
    for role in ROLES:
        for sight in SIGHTS:
            assert (marks[f"{role.who} {sight}"].get_color() != "white") == (sight in role.sees)
    assert [len(role.sees) for role in ROLES] == [1, 3, 4]


@pytest.mark.parametrize("row", load_taxonomy(), ids=lambda row: row.id)
def test_every_private_defense_stands_in_one_box(row):
    boxes = [measure.title for measure in MEASURES if measure.holds(row)]
    assert len(boxes) == (row.part in ("differential privacy", "cryptography")), boxes
    assert OPEN.holds(row) == (row.class_ == "extraction")


def test_the_boxes_name_all_their_methods_and_chapters():
    words = " ".join(text.get_text() for text in figure_privacy_roles().axes[0].texts)
    for row in load_taxonomy():
        if any(measure.holds(row) for measure in (*MEASURES, OPEN)):
            assert short_name(row) in words and f"hapter {row.chapter}" in words, row.id


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

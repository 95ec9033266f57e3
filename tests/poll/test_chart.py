"""The bars of a poll: as long as the shares, marked where it is right, readable in the last row."""

import pytest
from matplotlib.colors import to_hex

from spai_lab.poll.chart import HATCHES, ROLES, draw, draw_all
from spai_lab.poll.question import Question
from spai_lab.poll.tally import Tally
from spai_lab.style import COLORS, drawn

WHICH = Question("k", "Costs it $5 or $6_x?", options=("up", "none: the best two are equal within $their intervals"))


def bars(ax):
    return [patch.get_width() for patch in ax.patches]


def test_bars_are_as_long_as_shares_on_one_scale():
    first, second = draw(Tally(WHICH, ((5, 15), (18, 2)))).axes
    assert bars(first) == [0.25, 0.75] and bars(second) == [0.9, 0.1]
    assert first.get_xlim() == second.get_xlim() == (0, 0.9)
    assert [ax.patches[0].get_hatch() or "" for ax in (first, second)] == [*HATCHES], "told apart without color, too"
    assert [to_hex(ax.patches[0].get_facecolor()) for ax in (first, second)] == [COLORS[role] for role in ROLES]


@pytest.mark.parametrize("right", [0, 1])
def test_the_right_row_is_marked_and_no_other(right):
    fig = draw(Tally(WHICH, ((5, 15),), right=right))
    marked = [text.get_text() for text in fig.axes[0].texts if "✔" in text.get_text()]
    assert marked == [f"✔ {'AB'[right]}"]
    assert [patch.get_alpha() == 1 for patch in fig.axes[0].patches] == [place == right for place in (0, 1)]
    assert not [text for text in draw(Tally(WHICH, ((5, 15),))).axes[0].texts if "✔" in text.get_text()]


def test_no_words_overlap_or_stick_out():
    fig = draw(Tally(WHICH, ((999, 0), (0, 999)), right=1))
    drawn(fig)
    boxes = [text.get_window_extent() for ax in fig.axes for text in (*ax.texts, ax._left_title)]
    page = fig.bbox
    assert all(box.x0 >= 0 and box.x1 <= page.x1 and box.y0 >= 0 and box.y1 <= page.y1 for box in boxes)
    for place, box in enumerate(boxes):
        assert not [other for other in boxes[:place] if box.overlaps(other)], "two words lie on each other"


def test_type_is_as_large_as_that_of_other_figures():
    fig = draw(Tally(WHICH, ((1, 2),)))
    assert {text.get_fontsize() for text in fig.axes[0].texts} == {13.0}
    assert fig.get_figwidth() < 9, "a wider one would be scaled down on a projector of 1,280 pixels"


def test_many_questions_stand_below_each_other():
    fig = draw_all([Tally(WHICH, ((5, 15),)), Tally(Question("n", "How many?", high=10), ((0, 1, 0, 2, 0),))])
    drawn(fig)
    assert len(fig.axes) == 2 and [text.get_text().split(".")[0] for text in fig.texts] == ["k", "n"]
    assert fig.axes[0].get_position().y0 > fig.axes[1].get_position().y1
    with pytest.raises(ValueError, match="tallies"):
        draw_all([])

"""What an explorable promises: one output in three forms, no stale picture unmarked, no error swallowed."""

import base64
import html
import io
import re

import pytest
from IPython.core.formatters import DisplayFormatter
from ipywidgets import Dropdown, IntSlider
from PIL import Image

from spai_lab.style import panels
from spai_lab.widgets import Explorable

WIDGET = "application/vnd.jupyter.widget-view+json"


def bar(height):
    fig, axes = panels(4, 3, bar=(0.5, 0.5, 3, 2))
    axes["bar"].bar([0], [height])
    axes["bar"].set_ylim(0, 10)
    return fig


@pytest.fixture
def slider():
    return IntSlider(3, 0, 9, description="height")


@pytest.fixture
def explorable(slider):
    return Explorable(
        bar, {"height": slider}, alt=lambda height: f"A bar of {height}.", caption=lambda height: f"Now {height}."
    )


def page(explorable):
    """All HTML that the explorable shows."""
    return "".join(part.value for part in explorable.children if hasattr(part, "value"))


def shown(explorable):
    """The picture on the page, its alt text and its caption."""
    tag = re.search(
        r'<img src="data:image/png;base64,([^"]+)" alt="([^"]*)" width="(\d+)" height="(\d+)">', page(explorable)
    )
    caption = re.search(r'<p aria-live="polite">(.*?)</p>', page(explorable)).group(1)
    picture = Image.open(io.BytesIO(base64.b64decode(tag.group(1))))
    assert picture.size == (int(tag.group(3)), int(tag.group(4)))
    return picture.tobytes(), html.unescape(tag.group(2)), html.unescape(caption)


def is_pale(explorable):
    return any("spai-stale" in part._dom_classes for part in explorable.children)


def test_a_cell_shows_one_output_in_three_forms(explorable):
    forms, metadata = DisplayFormatter().format(explorable)
    assert set(forms) == {WIDGET, "image/png", "text/plain"}
    assert forms[WIDGET]["model_id"] == explorable.model_id
    assert Image.open(io.BytesIO(base64.b64decode(forms["image/png"]))).size == (400, 300)
    assert metadata["image/png"]["alt"] == "A bar of 3."
    assert forms["text/plain"] == "A bar of 3. Now 3."


def test_the_stored_picture_is_the_one_on_the_page(explorable, slider):
    slider.value = 7
    forms, metadata = DisplayFormatter().format(explorable)
    picture, alt, _ = shown(explorable)
    assert Image.open(io.BytesIO(base64.b64decode(forms["image/png"]))).tobytes() == picture
    assert metadata["image/png"]["alt"] == alt


def test_moving_a_control_changes_the_picture_and_all_words(explorable, slider):
    before = shown(explorable)
    slider.value = 8
    after = shown(explorable)
    assert after[1:] == ("A bar of 8.", "Now 8.")
    assert after[0] != before[0]


def test_the_same_values_give_the_same_picture(explorable, slider):
    before = shown(explorable)
    slider.value = 8
    slider.value = 3
    assert shown(explorable) == before


def test_words_are_escaped():
    explorable = Explorable(bar, {"height": IntSlider(3, 0, 9)}, alt='1 < 2 & "so"', caption="<b>bold</b>")
    assert shown(explorable)[1:] == ('1 < 2 & "so"', "<b>bold</b>")
    assert "<b>" not in page(explorable)


def test_a_slow_control_says_so_and_the_picture_is_pale_until_it_is_new(slider):
    seen = []

    def watched(height):
        seen.append((is_pale(explorable), "computing" in page(explorable)) if seen else None)
        return bar(height)

    explorable = Explorable(watched, {"height": slider}, alt="A bar.", caption="A bar.", slow=["height"])
    slider.value = 8
    assert seen == [None, (True, True)]
    assert not is_pale(explorable)
    assert "computing" not in page(explorable)


def test_the_line_for_what_happens_takes_its_room_from_the_start(explorable, slider):
    lines = page(explorable).count('class="spai-status"')
    slider.value = 8
    assert page(explorable).count('class="spai-status"') == lines == 1


def test_a_quick_control_does_not_flicker(slider):
    seen = []

    def watched(height):
        seen.append(is_pale(explorable) if seen else False)
        return bar(height)

    explorable = Explorable(watched, {"height": slider}, alt="A bar.", caption="A bar.")
    slider.value = 8
    assert seen == [False, False]


def test_an_error_is_a_sentence_on_the_page_until_the_next_setting_that_works(slider):
    def refuses_five(height):
        if height == 5:
            raise ValueError("height is 5; accepted: anything < 5")
        return bar(height)

    explorable = Explorable(
        refuses_five, {"height": slider}, alt=lambda height: f"A bar of {height}.", caption="A bar."
    )
    slider.value = 5
    assert 'role="alert"' in page(explorable)
    assert "ValueError: height is 5; accepted: anything &lt; 5." in page(explorable)
    assert is_pale(explorable)
    assert shown(explorable)[1] == "A bar of 3."

    slider.value = 4
    assert 'role="alert"' not in page(explorable)
    assert not is_pale(explorable)
    assert shown(explorable)[1] == "A bar of 4."


def test_an_error_at_the_start_is_raised_so_that_the_cell_fails():
    def broken(height):
        raise RuntimeError("no picture")

    with pytest.raises(RuntimeError, match="no picture"):
        Explorable(broken, {"height": IntSlider(3, 0, 9)}, alt="A bar.", caption="A bar.")


def test_controls_that_depend_on_another_are_adapted_before_one_picture_is_drawn():
    unit = Dropdown(options=["one", "two"])
    height = IntSlider(3, 0, 9)
    drawn = []

    def noted(unit, height):
        drawn.append((unit, height))
        return bar(height)

    def adapt(name):
        if name == "unit":
            height.value = 6

    Explorable(noted, {"unit": unit, "height": height}, alt="A bar.", caption="A bar.", adapt=adapt)
    unit.value = "two"
    assert drawn == [("one", 3), ("two", 6)]


def test_every_control_is_labelled_and_on_the_page(explorable, slider):
    board = next(part for part in explorable.children if slider in getattr(part, "children", ()))
    assert all(control.description for control in board.children)


def test_bad_arguments_are_refused(slider, refuses):
    sentence = {"alt": "A bar.", "caption": "A bar."}
    refuses(Explorable, {"render": 3, "controls": {"height": slider}, **sentence}, "render is 3")
    slow = {"render": bar, "controls": {"height": slider}, "slow": ["width"], **sentence}
    refuses(Explorable, slow, "slow names 'width'", "height")

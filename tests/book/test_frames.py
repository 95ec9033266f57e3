"""Frames of an explorable: the same pictures and words as when it is moved by hand, as many as were allowed."""

import io

import ipywidgets as widgets
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from spai_lab.book import album, live
from spai_lab.book.frames import as_webp, draw, move, place_of, sayings, shares, thinned, values
from spai_lab.style import panels
from spai_lab.widgets import copying_explorer, epsilon_explorer
from spai_lab.widgets.explorable import Explorable


def explorable(**changes):
    """A bar for each of two numbers; the second slider's range depends on the menu."""

    def render(kind, height, width, slow):
        fig, axes = panels(3, 2, bars=(0.5, 0.5, 2, 1))
        axes["bars"].bar([0, 1], [height, width])
        axes["bars"].set_ylim(0, 40)
        axes["bars"].set_title(f"{kind} {slow}")
        return fig

    controls = {
        "kind": widgets.Dropdown(description="kind", options=[("low", 3), ("high", 5)]),
        "height": widgets.IntSlider(description="height", min=1, max=30, value=7),
        "width": widgets.IntSlider(description="width", min=0, max=3, value=2),
        "slow": widgets.Dropdown(description="slow", options=["a", "b"]),
    }

    def adapt(name):
        if name == "kind":
            controls["width"].max = controls["kind"].value
            controls["width"].value = 1

    settings = {"alt": "Two bars.", "caption": lambda **values: str(values), "slow": ("slow",), "adapt": adapt}
    return Explorable(render, controls, **{**settings, **changes})


def walked(shown, most):
    """What `draw` gives, and the pictures that it kept."""
    kept = {}
    frames = draw(shown, kept.__setitem__, most=most)
    return frames, kept


def pixels(picture):
    return Image.open(io.BytesIO(picture)).convert("RGB").tobytes()


def moved_by_hand(fresh, frames, frame):
    """The explorable after its live controls were set, in their order, to what a frame says."""
    for control, word in zip(frames.live, frame.says, strict=True):
        field = fresh.controls[control.name]
        move(field, sayings(field).index(word))
    return fresh


def test_each_frame_of_the_epsilon_explorer_is_what_it_shows_when_moved_by_hand():
    frames, kept = walked(epsilon_explorer("digits"), most=17)
    assert [control.name for control in frames.live] == ["eps"]
    assert [frame.says for frame in frames.frames] == [(f"{0.025 * step:.3g}",) for step in range(17)]
    fresh = epsilon_explorer("digits")
    for frame in frames.frames:
        moved_by_hand(fresh, frames, frame)
        assert (frame.alt, frame.caption) == (fresh.alt, fresh.caption)
        assert pixels(kept[frame.file]) == pixels(as_webp(kept[frame.file])) == pixels(fresh.png)
    assert frames.frames[frames.start].says == ("0.1",)
    assert {control.name: control.said for control in frames.fixed}["model"] == "LeNet"


def test_each_frame_is_what_it_shows_by_hand_where_controls_depend_on_each_other():
    shown = explorable()
    before = shown.values
    frames, kept = walked(shown, most=50)
    assert shown.values == before
    assert [control.name for control in frames.live] == ["kind", "height", "width"]
    assert {frame.says[2] for frame in frames.frames if frame.says[0] == "low"} == set("0123")
    assert {frame.says[2] for frame in frames.frames if frame.says[0] == "high"} > set("05")
    fresh = explorable()
    for frame in frames.frames:
        moved_by_hand(fresh, frames, frame)
        assert frame.caption == fresh.caption and pixels(kept[frame.file]) == pixels(fresh.png)
    assert dict(frames.landings)[("high",)] == ("high", "7", "1")


def test_a_control_that_others_change_does_not_matter_for_the_words_of_a_frame():
    frames, _ = walked(copying_explorer("digits"), most=108)
    assert len({frame.says for frame in frames.frames}) == len(frames.frames) <= 108
    by_data = {
        says[0]: {f.says[-1] for f in frames.frames if f.says[0] == says[0]} for says in (f.says for f in frames.frames)
    }
    assert len(by_data) == 2 and len(set(map(frozenset, by_data.values()))) == 2, "each data set has budgets of its own"


@pytest.mark.parametrize("most", [1, 4, 17, 40])
def test_no_more_frames_than_allowed_and_the_start_among_them(most):
    frames, kept = walked(explorable(adapt=None), most)
    assert len(frames.frames) <= most
    assert {frame.file for frame in frames.frames} == kept.keys()
    start = frames.frames[frames.start]
    first = {control.name: control.said for control in frames.live}
    assert start.says == tuple(first.values()) == tuple({"kind": "low", "height": "7", "width": "2"}[n] for n in first)


def test_a_picture_that_occurs_twice_is_kept_once():
    def render(a, b):
        fig, axes = panels(2, 2, line=(0.5, 0.5, 1, 1))
        axes["line"].plot([0, a * b])
        return fig

    controls = {name: widgets.IntSlider(1, 0, 4, description=name) for name in "ab"}
    frames, kept = walked(Explorable(render, controls, alt="A line.", caption="Look."), 25)
    assert len(kept) < len(frames.frames)


def test_shares_prefer_the_last_slider_and_leave_slow_and_idle_controls_alone():
    assert shares(explorable(), 120) == {"kind": 2, "height": 15, "width": 4}
    assert shares(explorable(), 9) == {"kind": 2, "width": 4}
    assert shares(explorable(), 1) == {}
    idle = explorable()
    idle.render = lambda **values: explorable().render(**{**values, "width": 0})
    assert "width" not in shares(idle, 120)


def test_a_place_without_a_picture_stops_the_build():
    def render(step):
        if step == 3:
            raise ValueError("three is not drawn")
        return panels(2, 2, line=(0.5, 0.5, 1, 1))[0]

    step = widgets.IntSlider(description="step", min=0, max=4)
    with pytest.raises(RuntimeError, match="3: ValueError: three is not drawn"):
        shown = Explorable(render, {"step": step}, alt="A line.", caption="Look.")
        shown.png = b""
        draw(shown, lambda name, png: None, most=9)


def test_frames_refuse_what_is_no_count(refuses):
    refuses(draw, {"explorable": explorable(), "keep": print, "most": 0}, "most", "at least 1")


@given(st.integers(1, 200), st.integers(3, 120), st.data())
def test_thinned_places_are_few_ordered_and_hold_the_ends_and_the_present(count, most, data):
    keep = data.draw(st.integers(0, count - 1))
    places = thinned(count, most, keep)
    assert len(places) <= most and places == sorted(set(places)) and {keep, 0, count - 1} <= {*places}
    assert set(places) <= set(range(count))


@pytest.mark.parametrize(
    ("control", "expected"),
    [
        (widgets.IntSlider(min=1, max=7, step=2), ["1", "3", "5", "7"]),
        (widgets.FloatSlider(min=0, max=1, step=0.25), ["0.00", "0.25", "0.50", "0.75", "1.00"]),
        (widgets.SelectionSlider(options=[("one", 1), ("two", 2)]), ["one", "two"]),
        (widgets.Dropdown(options=["a", "b"]), ["a", "b"]),
        (widgets.ToggleButtons(options=["x", "y"]), ["x", "y"]),
        (widgets.Checkbox(), ["no", "yes"]),
    ],
)
def test_every_kind_of_control_is_read_and_moved(control, expected):
    assert sayings(control) == expected
    for place in range(len(expected)):
        move(control, place)
        assert place_of(control) == place
    if isinstance(control, widgets.FloatSlider):
        assert control.value == pytest.approx(values(control)[-1])


def test_frames_are_kept_and_used_again_until_something_changes(tmp_path, monkeypatch):
    call = "copying_explorer()"
    place = album.album(tmp_path, "digits", 6)
    first = album.drawn(call, "digits", place, 6)
    monkeypatch.setattr(album, "opened", lambda *_: pytest.fail("it was drawn already"))
    again = album.drawn(call, "digits", album.album(tmp_path, "digits", 6), 6)
    assert again.frames == first.frames and again.still == first.still
    assert {frame.file for frame in first.frames.frames} == {path.name for path in place.glob("*.webp")}
    monkeypatch.setattr(album, "version", lambda dataset, most: f"{dataset}-other")
    assert album.album(tmp_path, "digits", 6).exists() and not place.exists()


def test_half_a_record_counts_as_nothing(tmp_path):
    call, place = "copying_explorer()", album.album(tmp_path, "digits", 4)
    frames = album.drawn(call, "digits", place, 4).frames
    (place / frames.frames[0].file).unlink()
    assert album.drawn(call, "digits", place, 4).frames == frames
    assert (place / frames.frames[0].file).exists()
    (place / "copying_explorer.json").write_text("{", encoding="utf-8")
    assert album.drawn(call, "digits", place, 4).frames == frames


def test_where_every_control_computes_the_page_says_so(monkeypatch, tmp_path):
    controls = {"slow": widgets.Dropdown(description="slow", options=["a", "b"])}
    shown = Explorable(lambda slow: panels(2, 2)[0], controls, alt="A.", caption="B.", slow=("slow",))
    monkeypatch.setattr(album, "opened", lambda *_: shown)
    assert album.drawn("gate_explorer()", "digits", tmp_path, 9) == album.Drawn(
        "gate_explorer()", None, album.ALL_SLOW, seconds=pytest.approx(0, abs=5)
    )
    monkeypatch.setattr(album, "LONGEST_START", -1)
    assert "too long" in album.drawn("moons_explorer()", "digits", tmp_path, 9).still


def test_markup_in_words_is_text():
    frames, _ = walked(explorable(alt='<b>"a"</b>', caption="</script><script>alert(1)</script>"), most=4)
    page = live.live_html(frames, 'a "title"')
    assert page.count("<script") == 1 and page.count("</script>") == 1
    assert 'alt="&lt;b&gt;&quot;a&quot;&lt;/b&gt;"' in page

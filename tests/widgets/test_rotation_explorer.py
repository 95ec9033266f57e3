"""The rotation explorer: what is decrypted is what plain arithmetic says, within bounds, and the picture shows it."""

import numpy as np
import pytest

from spai_lab.crypto.ckks import add, decode, decrypt, encode, encrypt, rotate
from spai_lab.style import to_png
from spai_lab.widgets.rotation_explorer import (
    COUNT,
    DOUBLINGS,
    NUMBERS,
    cells,
    circle,
    client_keys,
    describe,
    render,
    rotation_explorer,
    strip,
    verdict,
)

every = pytest.mark.parametrize("numbers", NUMBERS)
SETTINGS = [("count", 3, "all", 2), ("count", 0, "one", 0), ("pixels", 13, "one", 4), ("pixels", 15, "all", 1)]


def parts(fig):
    return {artist.get_gid(): artist for artist in fig.findobj() if artist.get_gid()}


def all_steps(found):
    return (*found.moved, *found.masked, *found.sums)


# --- what is computed -------------------------------------------------------------------------------------------------


@every
def test_each_rotation_moves_every_slot_and_the_mask_keeps_one(numbers):
    found = circle(numbers)
    for steps in range(COUNT):
        moved, masked = found.moved[steps], found.masked[steps]
        for slot in range(COUNT):
            expected = found.x[(slot + steps) % COUNT]
            assert abs(moved.slots[slot] - expected) <= moved.bound
            assert abs(masked.slots[slot] - expected * (slot == 0)) <= masked.bound
        assert (moved.level, masked.level) == (2, 1)


@every
def test_sums_are_those_of_neighbors_and_the_last_is_the_inner_product(numbers):
    found = circle(numbers)
    for place, step in enumerate(found.sums):
        for slot in range(COUNT):
            there = [(slot + away) % COUNT for away in range(2**place)]
            assert abs(step.slots[slot] - sum(found.x[k] * found.w[k] for k in there)) <= step.bound
    assert found.sums[-1].slots == pytest.approx(np.full(COUNT, found.x @ found.w), abs=found.sums[-1].bound)
    assert len(found.sums) == 1 + len(DOUBLINGS) and sum(DOUBLINGS) == COUNT - 1


@every
def test_errors_are_seen_and_within_bounds_that_tell_something(numbers):
    """A bound fails with a probability of 1e-9 for each of at most ten operations."""
    found = circle(numbers)
    for step in all_steps(found):
        assert 0 < np.abs(step.slots - step.true).max() <= step.observed <= step.bound < 0.5


def test_what_a_number_is_rounded_to_is_certain():
    for numbers in NUMBERS:
        for step in all_steps(circle(numbers)):
            assert (np.round(step.slots) == step.true).all()


def test_the_steps_are_those_of_fresh_ciphertexts():
    """Another encryption under the same keys, turned and added here, decrypts to the same numbers."""
    keys, found = client_keys(), circle("count")
    tiled = np.tile(found.x, keys.context.slots // COUNT)
    x = encrypt(keys.public, encode(keys.context, tiled, limit=16.0))
    once = decode(decrypt(keys.secret, add(x, rotate(x, 1, keys.rotations)))).real[:COUNT]
    assert once == pytest.approx(found.sums[1].slots, abs=2 * found.sums[1].bound)
    assert keys.context.secure and keys.rotations.fingerprint == keys.secret.fingerprint


def test_pixels_are_two_rows_of_a_digit():
    x = circle("pixels").x
    assert ((x >= 0) & (x <= 16) & (x == np.round(x))).all() and (x > 0).sum() > 6


# --- the picture and its words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("numbers", "steps", "keep", "doublings"), SETTINGS)
def test_the_picture_shows_the_rows_their_errors_and_their_levels(numbers, steps, keep, doublings):
    found, named = circle(numbers), parts(render(numbers, steps, keep, doublings))
    shown = {"x": found.moved[0], "moved": found.moved[steps]}
    shown |= {f"sum {place}": found.sums[place] for place in range(doublings + 1)}
    shown |= {"masked": found.masked[steps]} if keep == "one" else {}
    for name, step in shown.items():
        assert named[f"observed {name}"].get_xdata() == [step.observed]
        assert named[f"bound {name}"].get_xdata() == [step.bound]
        assert named[f"level {name}"].get_text() == f"{step.level}"
    assert ("masked" in named) == (keep == "one") and f"sum {doublings + 1}" not in named
    assert np.array_equal(named["moved"].pixels, strip(numbers, "moved", steps))
    assert np.array_equal(named[f"sum {doublings}"].pixels, strip(numbers, "sums", doublings))
    assert named["path"].get_xdata() == [steps, 0]
    assert named["neighbors"].get_width() == pytest.approx(2**doublings, abs=0.1)


@every
def test_rows_stand_where_their_errors_stand(numbers):
    fig = render(numbers, 2, "one", 4)
    named = parts(fig)
    for name in ("x", "moved", "masked", "sum 0", "sum 4"):
        row, mark = named[name], named[f"observed {name}"]
        _, height = mark.get_transform().transform((mark.get_xdata()[0], mark.get_ydata()[0]))
        assert row.bottom + len(row.pixels) / 2 == pytest.approx(height, abs=1.5)


def test_cells_say_their_numbers_and_the_colors_follow():
    found = circle("pixels")
    texts = {name: text.get_text() for name, text in parts(cells(found.sums[1].slots, found.sums[1].slots)).items()}
    assert [int(texts[f"slot {k}"].replace("−", "-")) for k in range(COUNT)] == found.sums[1].true.tolist()
    row = strip("count", "moved")
    left = row[8, 46 * np.arange(COUNT) + 6, :3].astype(int)  # beside the letters of each cell
    luminance = left @ [0.299, 0.587, 0.114]
    assert (np.diff(luminance) > 0).all()


@every
def test_words_follow_the_numbers(numbers):
    found = circle(numbers)
    for steps in (0, 5, 15):
        for keep in ("all", "one"):
            for doublings in range(len(DOUBLINGS) + 1):
                said, told = (words(numbers, steps, keep, doublings) for words in (verdict, describe))
                assert (f"what slot {steps} held" in said) == (steps > 0)
                assert ("costs a level" in said) == (keep == "one") == ("Times a mask" in told)
                assert ("the inner product of x and w" in said) == (doublings == 4)
                assert f"{found.sums[doublings].observed:.1e} wrong" in said
                assert ", ".join(f"{value:.0f}" for value in np.roll(found.x, -steps)) in told
                for words in (said, told):
                    assert words.endswith(".") and "nan" not in words


def test_controls_redraw():
    explorer = rotation_explorer()
    for name, value in (("steps", 9), ("keep", "one"), ("doublings", 4), ("numbers", "pixels"), ("steps", 1)):
        before = explorer.png, explorer.alt, explorer.caption
        explorer.controls[name].value = value
        now = explorer.png, explorer.alt, explorer.caption
        assert all(new != old for new, old in zip(now, before, strict=True))
    assert explorer.caption == verdict("pixels", 1, "one", 4)
    assert explorer.png == to_png(render("pixels", 1, "one", 4))
    assert 'role="alert"' not in explorer.children[2].value


def test_bad_arguments_are_refused(refuses):
    refuses(circle, {"numbers": "letters"}, "numbers is 'letters'", "count")
    good = {"numbers": "count", "steps": 1, "keep": "all", "doublings": 1}
    for function in (render, verdict, describe):
        refuses(function, good | {"numbers": "letters"}, "numbers is 'letters'", "pixels")
        refuses(function, good | {"steps": 16}, "steps is 16", "15")
        refuses(function, good | {"steps": -1}, "steps is -1", "at least 0")
        refuses(function, good | {"keep": "none"}, "keep is 'none'", "'one'")
        refuses(function, good | {"doublings": 5}, "doublings is 5", "4")

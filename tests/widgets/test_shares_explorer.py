"""The shares explorer: enough shares give the image, fewer do not, and one alone is noise by a chi-square test."""

import numpy as np
import pytest
from scipy import stats

from spai_lab.crypto.secret_sharing_shamir import lagrange
from spai_lab.style import to_png
from spai_lab.widgets.shares_explorer import (
    DRAWS,
    KINDS,
    MODULI,
    MOST,
    PLACES,
    THRESHOLD,
    as_gray,
    describe,
    enough,
    image,
    pieces,
    render,
    shares_explorer,
    together,
    verdict,
)

FALSE_ALARM = 1e-6
each_kind = pytest.mark.parametrize("kind", KINDS)


def whole_numbers(kind, draw, count):
    """What the first shares give, by Python's own integers."""
    rows = [[int(v) for v in share.ravel()] for share in pieces(kind, draw)[:count]]
    weights = [1] * count if kind == "additive" else lagrange(list(range(1, count + 1)), 0, MODULI[kind])
    return [
        sum(w * v for w, v in zip(weights, column, strict=True)) % MODULI[kind] for column in zip(*rows, strict=True)
    ]


@each_kind
@pytest.mark.parametrize("count", range(1, MOST + 1))
def test_what_shares_give_is_what_python_adds_up(kind, count):
    expected = whole_numbers(kind, 1, count)
    assert [int(v) for v in together(kind, 1, count).ravel()] == expected
    secret = [round(v * 2**PLACES) for v in image().ravel()]
    assert (expected == secret) is enough(kind, count)


@each_kind
def test_a_share_alone_is_even(kind):
    """64 pixels in 4 draws of 5 shares; any four additive ones, any two of Shamir are independent."""
    free = MOST - 1 if kind == "additive" else THRESHOLD - 1
    values = np.concatenate([as_gray(pieces(kind, d)[:free], kind).ravel() for d in range(1, DRAWS + 1)])
    counts = np.bincount((values * 16).astype(int).clip(0, 15), minlength=16)
    assert stats.chisquare(counts).pvalue > FALSE_ALARM
    shown = np.bincount((image().ravel() * 16).astype(int).clip(0, 15), minlength=16)
    assert stats.chisquare(shown).pvalue < FALSE_ALARM


@each_kind
def test_another_draw_has_other_shares(kind):
    assert (pieces(kind, 1) != pieces(kind, 2)).mean() > 0.99


@each_kind
@pytest.mark.parametrize("count", [1, THRESHOLD, MOST])
def test_picture_and_words_agree(kind, count):
    fig = render(kind, count, 1)
    gids = [a.get_gid() for a in fig.findobj() if a.get_gid()]
    assert [f"sum {n}" in gids for n in range(1, MOST + 1)] == [n <= count for n in range(1, MOST + 1)]
    words = [a.get_text() for a in fig.findobj() if a.get_gid() == "verdict"]
    assert ["whole" in word for word in words] == [enough(kind, n) for n in range(1, count + 1)]
    assert ("give the pixel back" in verdict(kind, count, 1)) is enough(kind, count)
    assert kind in describe(kind, count, 1)
    assert to_png(fig).startswith(b"\x89PNG")


def test_bad_settings_are_named():
    for bad, name in (((("mine"), 1, 1), "kind"), (("additive", 0, 1), "together"), (("additive", 1, 5), "draw")):
        with pytest.raises(ValueError, match=name):
            render(*bad)


def test_the_widget_follows_its_controls():
    explorable = shares_explorer()
    explorable.controls["together"].value = MOST
    assert "give the pixel back" in explorable.caption
    explorable.controls["together"].value = 2
    explorable.controls["kind"].value = "Shamir"
    assert "one more is needed" in explorable.caption

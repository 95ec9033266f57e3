"""The shares explorer: an image cut into shares, what each looks like alone, and how many bring it back."""

from functools import lru_cache

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from spai_lab.checks import check_choice, check_count
from spai_lab.crypto.secret_sharing import reconstruct, share
from spai_lab.crypto.secret_sharing_ring import RING, decode, encode, to_signed
from spai_lab.crypto.secret_sharing_shamir import FIELD, interpolate, shamir_share
from spai_lab.data import load
from spai_lab.style import COLORS, Backdrop, image_colors, panels, styled
from spai_lab.widgets.explorable import Explorable

MOST, THRESHOLD, PLACES, DRAWS = 5, 3, 16, 4
KINDS = {"additive": "all 5 of 5", "Shamir": f"any {THRESHOLD} of 5"}
PIXEL = (3, 4)  # row and column of the one whose numbers are told
MODULI = {"additive": RING.modulus, "Shamir": FIELD.prime}


@lru_cache(maxsize=1)
def image() -> np.ndarray:
    """A digit of 8 x 8 pixels in [0, 1]."""
    return load("digits", raw=True).x_test[2, 0].double().numpy()


@lru_cache(maxsize=2 * DRAWS)
def pieces(kind: str, draw: int) -> np.ndarray:
    """The image in five shares, uint64 `(5, 8, 8)`; each draw has fresh randomness."""
    check_choice("kind", kind, tuple(KINDS))
    secret = encode(image(), PLACES)
    if kind == "additive":
        return np.stack(share(secret, parties=MOST))
    return shamir_share(secret, THRESHOLD, MOST)


def together(kind: str, draw: int, count: int) -> np.ndarray:
    """What the first shares give: the image, or noise; elements of the ring or the field."""
    first = pieces(kind, draw)[:count]
    if kind == "additive":
        return reconstruct(list(first)) if count > 1 else first[0]
    return interpolate(range(1, count + 1), first, 0, FIELD)


def enough(kind: str, count: int) -> bool:
    """Whether so many of five shares bring the image back."""
    return count == MOST if kind == "additive" else count >= THRESHOLD


def as_gray(elements: np.ndarray, kind: str) -> np.ndarray:
    """Elements as shares of their modulus, in [0, 1]."""
    return (elements.astype(np.float64) / float(MODULI[kind])).clip(0, 1)


def picture_of(kind: str, draw: int, count: int) -> np.ndarray:
    """What the first shares give, as pixels: as an image where they are one, else as shares of the modulus."""
    found = together(kind, draw, count)
    return decode(found, PLACES) if enough(kind, count) else as_gray(found, kind)


# --- the picture ------------------------------------------------------------------------------------------------------

WIDTH, HEIGHT, SIDE, GAP, LEFT = 11.6, 4.75, 1.7, 0.14, 0.3
ROWS = {"shares": 2.55, "sums": 0.35}
WORDS = {"fontsize": 15, "va": "bottom", "ha": "center"}


def column(number: int) -> float:
    """Where a share stands, in inches; the first column is the image's."""
    return LEFT + number * (SIDE + GAP)


@lru_cache(maxsize=2 * DRAWS)
def backdrop(kind: str, draw: int) -> Backdrop:
    """The image and its shares, which stay while one counts."""
    places = {"image": (column(0), ROWS["shares"], SIDE, SIDE)}
    for number in range(1, MOST + 1):
        places |= {f"{row} {number}": (column(number), ROWS[row], SIDE, SIDE) for row in ROWS}
    fig, axes = panels(WIDTH, HEIGHT, **places)
    with styled():
        for ax in axes.values():
            ax.set(xticks=[], yticks=[])
        behind = Backdrop.of(fig, axes)
        picture = behind.picture()
        behind.lay_image(picture, "image", colors(image()))
        behind.lay_frame(picture, "image", "clean")
        title(picture, 0, ROWS["shares"], "the image")
        picture.text((column(0) + SIDE / 2) / WIDTH, (ROWS["sums"] + SIDE / 2) / HEIGHT, "put\ntogether:", **WORDS)
        for number, each in enumerate(pieces(kind, draw), 1):
            behind.lay_image(picture, f"shares {number}", colors(as_gray(each, kind)))
            behind.lay_frame(picture, f"shares {number}", "private")
            title(picture, number, ROWS["shares"], f"share {number}")
    return Backdrop.of(picture, axes)


def colors(gray: np.ndarray) -> np.ndarray:
    """A gray picture's colors."""
    return image_colors(torch.from_numpy(gray[None]))


def title(fig: Figure, number: int, bottom: float, words: str, **look: object) -> None:
    """Words above a picture."""
    fig.text((column(number) + SIDE / 2) / WIDTH, (bottom + SIDE + 0.07) / HEIGHT, words, **WORDS | look)


def check_setting(kind: str, together: int, draw: int) -> None:
    """`ValueError` unless all of these are on the controls."""
    check_choice("kind", kind, tuple(KINDS))
    for name, value, most in (("together", together, MOST), ("draw", draw, DRAWS)):
        check_count(name, value)
        if value > most:
            raise ValueError(f"{name} is {value}; accepted: 1 to {most}")


def render(kind: str, together: int, draw: int) -> Figure:
    """An image, its five shares, and what the first one, two, ... of them give.

    Args:
        kind: "additive" or "Shamir".
        together: how many shares are put together, from 1 to 5.
        draw: which of four sharings, each with randomness of its own.
    Returns:
        the figure. Its parts have names (gid): "sum 1" and so on, and "verdict".
    Raises:
        ValueError: names the argument.
    """
    check_setting(kind, together, draw)
    behind = backdrop(kind, draw)
    with styled():
        fig = behind.picture()
        for count in range(1, together + 1):
            found, whole = picture_of(kind, draw, count), enough(kind, count)
            behind.lay_image(fig, f"sums {count}", colors(found), gid=f"sum {count}")
            behind.lay_frame(fig, f"sums {count}", "clean" if whole else "baseline")
            words = "share 1" if count == 1 else f"1 to {count}"
            title(fig, count, ROWS["sums"], f"{words}: {'whole' if whole else 'noise'}", gid="verdict")
        for count in range(together + 1, MOST + 1):
            empty = Rectangle((0, 0), 1, 1, facecolor="white", edgecolor=COLORS["baseline"], linestyle=":")
            empty.set(transform=behind.axes[f"sums {count}"].transAxes)
            fig.add_artist(empty)
    return fig


# --- its words --------------------------------------------------------------------------------------------------------


def verdict(kind: str, together: int, draw: int) -> str:
    """What to see: the numbers of one pixel."""
    check_setting(kind, together, draw)
    row, place = PIXEL
    secret = int(to_signed(encode(image(), PLACES))[PIXEL])
    shares = ", ".join(f"{int(value):,}" for value in pieces(kind, draw)[:together, row, place])
    modulus = "2^64" if kind == "additive" else "2^61 - 1"
    told = (
        f"The pixel in row {row}, column {place} is {image()[PIXEL]:.4g}, as a whole number {secret:,}. Shares 1 to "
        f"{together} modulo {modulus}: {shares}. "
    )
    if enough(kind, together):
        return told + "They give the pixel back, and with it the whole image."
    lacking = (MOST if kind == "additive" else THRESHOLD) - together
    more = "one more is" if lacking == 1 else f"{lacking} more are"
    return told + f"Every image fits these equally well; {more} needed. Draw again: other shares, the same image."


def describe(kind: str, together: int, draw: int) -> str:
    """The picture for somebody who cannot see it."""
    check_setting(kind, together, draw)
    whole = [count for count in range(1, together + 1) if enough(kind, count)]
    seen = f"from {whole[0]} shares on it is the digit" if whole else "all of them are noise"
    return (
        f"A digit of 8 by 8 pixels and its five shares, {kind}, {KINDS[kind]}, sharing {draw}: five pictures of noise. "
        f"Below, the first shares put together, {together} of them at most: {seen}."
    )


def shares_explorer() -> Explorable:
    """The explorable: put shares of an image together, one after the other.

    Returns:
        the widget.
    """
    controls = {
        "kind": widgets.Dropdown(description="shares", options=[(words, kind) for kind, words in KINDS.items()]),
        "together": widgets.IntSlider(description="together", value=4, min=1, max=MOST),
        "draw": widgets.IntSlider(description="draw again", value=1, min=1, max=DRAWS),
    }
    for kind in KINDS:
        for draw in range(1, DRAWS + 1):
            backdrop(kind, draw)
    return Explorable(render, controls, alt=describe, caption=verdict)

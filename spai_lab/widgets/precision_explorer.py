r"""The precision explorer: the scale against the digits that survive, and against the room for large numbers."""

import math
from dataclasses import dataclass
from functools import lru_cache

import ipywidgets as widgets
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from spai_lab.checks import check_choice
from spai_lab.checks import describe as describe_value
from spai_lab.crypto.ckks import (
    Ciphertext,
    ckks_context,
    decode,
    decrypt,
    encode,
    encrypt,
    multiply,
    relinearize,
    rotate,
    secret_key,
)
from spai_lab.crypto.ckks_context import room
from spai_lab.crypto.ckks_keys import SecretKey
from spai_lab.crypto.ckks_noise import precision
from spai_lab.crypto.ckks_parties import ServerKeys, server_keys
from spai_lab.style import COLORS, MARKERS, Backdrop, panels, styled
from spai_lab.widgets.explorable import Explorable

DEGREE, PRIMES = 8192, (30,) * 4
NUMBERS = np.array([math.pi, -math.e, 2**0.5, 1 / 3, -0.1, 3.75])
LIMIT = 4.0
SCALES = tuple(range(20, 53, 2))  # bits
OPERATIONS = ("encode", "encrypt", "rotate", "square")
PLACES_SHOWN = 9  # digits after the point
LARGEST, DEEPEST = 120, 48  # bits on the axes


@dataclass(frozen=True, eq=False)
class Result:
    """What comes back: the numbers, what they should be, the largest error of all slots and its bound, the room."""

    values: np.ndarray
    true: np.ndarray
    observed: float
    bound: float
    room: float


@lru_cache(maxsize=1)
def keys() -> tuple[SecretKey, ServerKeys]:
    """Keys of this kernel, for 128 bits of security."""
    secret = secret_key(ckks_context(DEGREE, PRIMES))
    return secret, server_keys(secret, steps=(1,), relinearize=True)


@lru_cache(maxsize=len(SCALES) * len(OPERATIONS))
def result(bits: int, operation: str) -> Result:
    """Six numbers, over and over in all slots, through an operation at a scale; kept.

    Args:
        bits: of the scale, one of `SCALES`.
        operation: one of `OPERATIONS`.
    Returns:
        what comes of it.
    Raises:
        ValueError: names the argument.
    """
    if bits not in SCALES:
        raise ValueError(f"bits is {describe_value(bits)}; accepted: {', '.join(map(str, SCALES))}")
    check_choice("operation", operation, OPERATIONS)
    secret, public = keys()
    slots = np.resize(NUMBERS, secret.context.slots)
    text = encode(secret.context, slots, scale=2.0**bits, limit=LIMIT)
    true = slots
    if operation != "encode":
        text = encrypt(public.public, text)
    if operation == "rotate":
        text, true = rotate(text, 1, public.rotations), np.roll(slots, -1)
    elif operation == "square":
        text, true = relinearize(multiply(text, text), public.relinearization), slots**2
    plaintext = decrypt(secret, text) if isinstance(text, Ciphertext) else text
    values = decode(plaintext).real
    left = room(secret.context, text.level, text.scale)
    bound = float(np.max(plaintext.error))
    return Result(values[:6], true[:6], float(np.abs(values - true).max()), bound, left)


def right_digits(value: float, true: float) -> int:
    """How many characters of a number, as it is shown, are those of the true one, rounded to as many digits.

    >>> right_digits(3.14160, 3.14159265), shown(3.14160)
    (4, '+3.141600000')
    """
    words, truth = shown(value), shown(true)
    return next((k for k, (a, b) in enumerate(zip(words, truth, strict=False)) if a != b), len(words)) - 2


def shown(value: float) -> str:
    """A number with its sign and nine digits after the point."""
    return f"{value:+.{PLACES_SHOWN}f}"


PLACES = {"bits": (1.05, 0.85, 5.0, 4.5), "numbers": (6.5, 0.85, 5.2, 4.5)}
LOOKS = {
    "observed": {"color": COLORS["private"], "marker": MARKERS["private"], "linestyle": "-"},
    "bound": {"color": "black", "marker": "_", "markeredgewidth": 3, "linestyle": "--"},
    "room": {"color": COLORS["poisoned"], "marker": MARKERS["poisoned"], "linestyle": ":"},
}
NAMES = {"observed": "right bits, observed", "bound": "proved: at least", "room": "room before the point, bits"}


@lru_cache(maxsize=len(OPERATIONS))
def backdrop(operation: str) -> Backdrop:
    """All that the slider leaves as it is: the curves over all scales."""
    fig, axes = panels(11.8, 6.4, **PLACES)
    found = [result(bits, operation) for bits in SCALES]
    curves = {
        "observed": [precision(each.observed) for each in found],
        "bound": [precision(each.bound) for each in found],
        "room": [math.log2(each.room) for each in found],
    }
    with styled():
        ax = axes["bits"]
        ax.set(xlim=(SCALES[0] - 1, SCALES[-1] + 1), ylim=(-10, LARGEST))
        for name, heights in curves.items():
            ax.plot(SCALES, heights, label=NAMES[name], markersize=9, linewidth=2.5, **LOOKS[name])
        ax.axhline(0, color=COLORS["baseline"], linewidth=1.2)
        ax.set_xlabel("bits of the scale", fontsize=15)
        ax.set_ylabel("bits", fontsize=15)
        ax.tick_params(labelsize=14)
        ax.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, fontsize=14, columnspacing=1)
        axes["numbers"].set(xlim=(0, 1), ylim=(0, 1))
        axes["numbers"].axis("off")
    return Backdrop.of(fig, axes)


def render(bits: int, operation: str) -> Figure:
    """Bits that survive and room that is left, over all scales, and six numbers at one of them.

    Args:
        bits: of the scale, one of `SCALES`.
        operation: one of `OPERATIONS`.
    Returns:
        the figure. Its parts have names (gid): "here" (the line at the scale), "right 0" and "wrong 0" and so on, the
        digits of each number.
    Raises:
        ValueError: names the argument.
    """
    found = result(bits, operation)
    behind = backdrop(operation)
    with styled():
        fig = behind.picture()
        ax, board = behind.axes["bits"], behind.axes["numbers"]
        line = {"color": "black", "linewidth": 2, "linestyle": "-.", "gid": "here"}
        fig.add_artist(Line2D([bits, bits], [-10, LARGEST], transform=ax.transData, **line))
        place = {"transform": board.transData, "va": "center"}
        fig.text(0, 0.97, f"after “{operation}”, scale 2^{bits}", fontsize=16, weight="bold", **place)
        fig.text(0, 0.88, "what comes back", fontsize=14, **place)
        fig.text(0.56, 0.88, "what it should be", fontsize=14, **place)
        mono = {"family": "monospace", "fontsize": 15, **place}
        for number, (value, true) in enumerate(zip(found.values, found.true, strict=True)):
            height = 0.77 - 0.12 * number
            words = shown(value)
            cut = max(right_digits(value, true) + 2, 0)
            fig.text(0, height, words[:cut], gid=f"right {number}", **mono)
            wrong = {"color": COLORS["adversarial"], "weight": "bold", "gid": f"wrong {number}"}
            fig.text(0, height, " " * cut + words[cut:], **wrong, **mono)
            fig.text(0.56, height, shown(true), **mono)
    return fig


def verdict(bits: int, operation: str) -> str:
    """What to see."""
    found = result(bits, operation)
    return (
        f"At a scale of 2^{bits} the largest error of {keys()[0].context.slots:,} numbers is {found.observed:.1e}; it "
        f"was known beforehand to be at most {found.bound:.1e}. Numbers up to 2^{math.log2(found.room):.0f} have room. "
        f"Each bit of scale gives a bit of precision and takes {'two' if operation == 'square' else 'one'} of room. "
        "In bold, digits that are wrong."
    )


def describe(bits: int, operation: str) -> str:
    """The picture for somebody who cannot see it."""
    found = result(bits, operation)
    pairs = "; ".join(f"{shown(v)} for {shown(t)}" for v, t in zip(found.values, found.true, strict=True))
    return (
        f"Curves over scales from 2^{SCALES[0]} to 2^{SCALES[-1]}: right bits rise, room falls. At 2^{bits}, after "
        f"{operation}: {precision(found.observed):.0f} right bits after the point, at least "
        f"{precision(found.bound):.0f} proved, room for 2^{math.log2(found.room):.0f}. Numbers: {pairs}."
    )


def precision_explorer() -> Explorable:
    """The explorable: move the scale, and see how many digits survive an operation and how much room is left.

    Returns:
        the widget.
    """
    controls = {
        "bits": widgets.SelectionSlider(
            description="scale", options=[(f"2^{bits}", bits) for bits in SCALES], value=30
        ),
        "operation": widgets.Dropdown(description="operation", options=OPERATIONS, value="encrypt"),
    }
    return Explorable(render, controls, alt=describe, caption=verdict, slow=("operation",))

r"""The degree explorer: how large a ring must be for the levels that one wants, and what it costs."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import ipywidgets as widgets
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from spai_lab.checks import describe as describe_value
from spai_lab.crypto.ckks import ckks_context, encode, encrypt, multiply, relinearize, rescale, rotate, secret_key
from spai_lab.crypto.ckks_context import SECURE_BITS
from spai_lab.crypto.ckks_costs import ciphertext_bytes, expansion
from spai_lab.crypto.ckks_messages import rotation_keys_to_bytes
from spai_lab.crypto.ckks_parties import server_keys
from spai_lab.he_figures import in_bytes, in_seconds
from spai_lab.style import COLORS, MARKERS, Backdrop, panels, styled
from spai_lab.widgets.explorable import Explorable

DEGREES = (1024, 2048, 4096, 8192, 16384)
LEVELS = tuple(range(1, 7))
PRIME = 30  # bits of each prime
RUNS = 3  # of each operation; the median counts
OPERATIONS = ("encrypt", "multiply, relinearize, rescale", "rotate")


@dataclass(frozen=True)
class Cost:
    """What a ring of this degree and so many levels costs.

    Args:
        bits: of the whole modulus, the special prime included.
        most: bits that are secure, by the standard's table.
        slots: numbers in a ciphertext.
        size: bytes of a fresh ciphertext.
        grown: bytes for each byte that is in it, if all slots hold one.
        key: bytes of a key for one rotation.
        seconds: of each of `OPERATIONS`, on this machine.
    """

    bits: int
    most: int
    slots: int
    size: int
    grown: float
    key: int
    seconds: tuple[float, ...]

    @property
    def secure(self) -> bool:
        """Whether the table promises 128 bits."""
        return self.bits <= self.most


@lru_cache(maxsize=len(DEGREES) * len(LEVELS))
def cost(degree: int, levels: int) -> Cost:
    """Count and time one setting; kept.

    Args:
        degree: N, one of `DEGREES`.
        levels: products in sequence, one of `LEVELS`.
    Returns:
        what it costs; where it is not secure, what it would cost.
    Raises:
        ValueError: names the argument.
    """
    for name, value, accepted in (("degree", degree, DEGREES), ("levels", levels, LEVELS)):
        if value not in accepted:
            raise ValueError(f"{name} is {describe_value(value)}; accepted: {', '.join(f'{a:,}' for a in accepted)}")
    context = ckks_context(degree, (PRIME,) * (levels + 1), insecure=True)  # timed, and never used for a secret
    secret = secret_key(context)
    keys = server_keys(secret, steps=(1,), relinearize=True)
    plaintext = encode(context, np.full(context.slots, 0.5), limit=0.5)
    x = encrypt(keys.public, plaintext)
    timed = (
        lambda: encrypt(keys.public, plaintext),
        lambda: rescale(relinearize(multiply(x, x), keys.relinearization)),
        lambda: rotate(x, 1, keys.rotations),
    )
    size = ciphertext_bytes(context)
    return Cost(
        context.total_bits,
        SECURE_BITS[degree],
        context.slots,
        size,
        expansion(context, context.slots),
        sum(len(data) for data in rotation_keys_to_bytes(keys.rotations)),
        tuple(map(seconds, timed)),
    )


def seconds(function: Callable[[], object]) -> float:
    """The median of a few runs, after one that makes tables."""
    function()
    found = []
    for _ in range(RUNS):
        start = time.perf_counter()
        function()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


PLACES = {"security": (1.15, 0.95, 5.1, 4.1), "costs": (7.4, 0.95, 4.3, 4.1)}
LEAST, MOST = 20.0, 700.0  # bits on the axis


@lru_cache(maxsize=1)
def backdrop() -> Backdrop:
    """The table of the standard, and the axes."""
    fig, axes = panels(12.0, 5.9, **PLACES)
    with styled():
        ax = axes["security"]
        places, table = range(len(DEGREES)), [SECURE_BITS[degree] for degree in DEGREES]
        ax.fill_between(places, LEAST, table, color=COLORS["defended"], alpha=0.25, linewidth=0)
        look = {"color": COLORS["defended"], "marker": MARKERS["defended"], "markersize": 11}
        ax.plot(places, table, label="most bits that are secure", **look)
        ax.set(yscale="log", ylim=(LEAST, MOST), xlim=(-0.3, len(DEGREES) - 0.7))
        ax.set_xticks(places, [f"{degree:,}" for degree in DEGREES])
        ax.set_yticks(ticks := [30, 60, 120, 240, 480], [f"{tick}" for tick in ticks])
        ax.minorticks_off()
        ax.tick_params(labelsize=14)
        ax.set_xlabel("ring degree N", fontsize=15)
        ax.set_ylabel("bits of the modulus", fontsize=15)
        ax.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), fontsize=15)
        axes["costs"].set(xlim=(0, 1), ylim=(0, 1))
        axes["costs"].axis("off")
    return Backdrop.of(fig, axes)


def rows(found: Cost) -> list[tuple[str, str]]:
    """What stands beside the table."""
    return [
        ("numbers in a ciphertext", f"{found.slots:,}"),
        ("bytes of a ciphertext", in_bytes(found.size)),
        ("bytes for each byte in it", f"{found.grown:,.0f}"),
        ("bytes of a rotation key", in_bytes(found.key)),
        *zip(OPERATIONS, map(in_seconds, found.seconds), strict=True),
    ]


def render(degree: int, levels: int) -> Figure:
    """Where a setting stands in the table of the standard, and what it costs.

    Args:
        degree: N, one of `DEGREES`.
        levels: products in sequence, one of `LEVELS`.
    Returns:
        the figure. Its parts have names (gid): "here" (the mark at N and its bits), "verdict", and "value 0" and so on.
    Raises:
        ValueError: names the argument.
    """
    found = cost(degree, levels)
    behind = backdrop()
    role = "defended" if found.secure else "adversarial"
    with styled():
        fig = behind.picture()
        ax, board = behind.axes["security"], behind.axes["costs"]
        place, bits = DEGREES.index(degree), found.bits
        line = {"color": COLORS["baseline"], "linestyle": "--", "linewidth": 2, "transform": ax.transData}
        fig.add_artist(Line2D([-0.3, len(DEGREES)], [bits, bits], clip_box=ax.bbox, **line))
        mark = {"marker": MARKERS[role], "color": COLORS[role], "markersize": 22, "markeredgecolor": "black"}
        fig.add_artist(Line2D([place], [bits], transform=ax.transData, gid="here", **mark))
        words = f"{'secure' if found.secure else 'NOT SECURE'}: {bits} of {found.most} bits"
        where = {"transform": board.transData, "va": "center"}
        fig.text(0, 1.06, words, fontsize=18, weight="bold", color=COLORS[role], gid="verdict", **where)
        for number, (name, value) in enumerate(rows(found)):
            height = 0.92 - 0.135 * number
            if number % 2 == 0:
                stripe = {"facecolor": COLORS["baseline"], "alpha": 0.12, "linewidth": 0}
                fig.add_artist(Rectangle((-0.02, height - 0.067), 1.05, 0.135, transform=board.transData, **stripe))
            fig.text(0, height, name, fontsize=15, **where)
            fig.text(1, height, value, fontsize=15, weight="bold", ha="right", gid=f"value {number}", **where)
    return fig


def counted(levels: int) -> str:
    """So many levels, and what they take.

    >>> counted(1), counted(3)
    ('1 level needs a modulus', '3 levels need a modulus')
    """
    return "1 level needs a modulus" if levels == 1 else f"{levels} levels need a modulus"


def verdict(degree: int, levels: int) -> str:
    """What to see."""
    found = cost(degree, levels)
    if not found.secure:
        fit = next((larger for larger in DEGREES if SECURE_BITS[larger] >= found.bits), None)
        say = f"take N = {fit:,}" if fit else "no N here is large enough"
        return (
            f"{counted(levels)} of {found.bits} bits, and with N = {degree:,} only {found.most} are secure: "
            f"{say}, or fewer levels. `ckks_context` refuses this."
        )
    smaller = degree // 2
    if smaller in DEGREES:
        before = cost(smaller, levels)
        ratio = found.seconds[1] / before.seconds[1]
        compared = f" A product takes {ratio:.1f} times as long as with N = {smaller:,}"
        compared += ", which would not be secure." if not before.secure else ", which is secure too: take that one."
    else:
        compared = ""
    return f"{counted(levels)} of {found.bits} bits; N = {degree:,} is secure up to {found.most}.{compared}"


def describe(degree: int, levels: int) -> str:
    """The picture for somebody who cannot see it."""
    found = cost(degree, levels)
    table = ", ".join(f"{SECURE_BITS[n]} bits for N = {n:,}" for n in DEGREES)
    told = "; ".join(f"{name}: {value}" for name, value in rows(found))
    return (
        f"The most bits of modulus that are secure: {table}. Marked: N = {degree:,}, levels: {levels}, {found.bits} "
        f"bits, {'secure' if found.secure else 'not secure'}. {told}."
    )


def degree_explorer() -> Explorable:
    """The explorable: choose a ring degree and a number of levels, and see whether that is secure and what it costs.

    Returns:
        the widget.
    """
    controls = {
        "degree": widgets.SelectionSlider(
            description="degree N", options=[(f"{degree:,}", degree) for degree in DEGREES], value=8192
        ),
        "levels": widgets.Dropdown(description="levels", options=[(f"{levels}", levels) for levels in LEVELS], value=3),
    }

    def prepare(name: str) -> None:
        if name == "levels":
            for degree in DEGREES:
                cost(degree, controls["levels"].value)

    prepare("levels")
    return Explorable(render, controls, alt=describe, caption=verdict, slow=("levels",), adapt=prepare)

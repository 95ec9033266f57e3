"""The rotation explorer: slots of a ciphertext turn, all together, and rotated sums give an inner product."""

from dataclasses import dataclass
from functools import lru_cache

import ipywidgets as widgets
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from spai_lab.checks import check_choice, check_count, check_number
from spai_lab.crypto.ckks import (
    Ciphertext,
    add,
    ckks_context,
    decode,
    decrypt,
    encode,
    encrypt,
    multiply_plain,
    public_key,
    rescale,
    rotate,
    rotate_many,
    rotation_keys,
    secret_key,
)
from spai_lab.crypto.ckks_context import Context
from spai_lab.crypto.ckks_keys import PublicKey, RotationKeys, SecretKey
from spai_lab.data import load
from spai_lab.style import COLORS, MARKERS, SEQUENTIAL, Backdrop, Pixels, panels, styled
from spai_lab.widgets.explorable import Explorable

COUNT = 16  # numbers, repeated until all slots are full
LARGEST = 16.0  # of the numbers: public, and what all bounds on sizes start from
DOUBLINGS = (1, 2, 4, 8)  # rotations whose sums double the neighbors that are in
DEGREE, BITS = 4096, (26, 27, 26)
NUMBERS = {"count": "1 to 16", "pixels": "16 pixels"}
KEEPS = {"all": "all slots", "one": "slot 0 alone"}
IMAGE, ROWS = 7, slice(3, 5)  # of the test digits, two rows of 8 pixels


@dataclass(frozen=True, eq=False)
class Step:
    """A ciphertext, as its owner reads it.

    Args:
        slots: the first numbers that it decrypts to, `(COUNT,)`.
        true: what they are in the clear, `(COUNT,)`.
        observed: how wrong the worst of all N / 2 slots is.
        bound: how wrong any can be, but with a probability of 1e-9 for each operation.
        level: rescalings that are left.
    """

    slots: np.ndarray
    true: np.ndarray
    observed: float
    bound: float
    level: int


@dataclass(frozen=True, eq=False)
class Circle:
    """Sixteen numbers under encryption, turned by each step, masked, and summed up with weights.

    Args:
        x: the numbers, `(COUNT,)`.
        w: the weights, in the clear, `(COUNT,)`.
        moved: x, turned left by 0, 1, ..., 15.
        masked: the same, times the mask (1, 0, ..., 0).
        sums: x w, and what the rotations by 1, 2, 4 and 8 make of it, one after the other.
    """

    x: np.ndarray
    w: np.ndarray
    moved: tuple[Step, ...]
    masked: tuple[Step, ...]
    sums: tuple[Step, ...]


@dataclass(frozen=True, eq=False)
class Keys:
    """What the client makes: all but the secret goes to the server."""

    context: Context
    secret: SecretKey
    public: PublicKey
    rotations: RotationKeys


@lru_cache(maxsize=1)
def client_keys() -> Keys:
    """Fresh keys with 128-bit security, kept while the kernel runs."""
    context = ckks_context(DEGREE, BITS)
    secret = secret_key(context)
    return Keys(context, secret, public_key(secret), rotation_keys(secret, tuple(range(1, COUNT))))


def vectors(numbers: str) -> tuple[np.ndarray, np.ndarray]:
    """The numbers and their weights: 1 to 16 times 1, or pixels, those on the left times -1 and on the right times 1.

    >>> vectors("count")[0][:3].tolist(), vectors("pixels")[1][:8].tolist()
    ([1.0, 2.0, 3.0], [-1.0, -1.0, -1.0, -1.0, 1.0, 1.0, 1.0, 1.0])
    """
    check_choice("numbers", numbers, tuple(NUMBERS))
    if numbers == "count":
        return np.arange(1.0, COUNT + 1), np.ones(COUNT)
    gray = load("digits", raw=True).x_test[IMAGE, 0, ROWS].double().flatten().numpy() * LARGEST
    return gray, np.tile(np.repeat([-1.0, 1.0], 4), 2)


@lru_cache(maxsize=2)
def circle(numbers: str) -> Circle:
    """All that the sliders can show of these numbers, each computed on ciphertexts under the client's keys; kept.

    Args:
        numbers: one of `NUMBERS`.
    Returns:
        the steps, decrypted.
    Raises:
        ValueError: names the argument.
    """
    x, w = vectors(numbers)
    keys = client_keys()
    context, prime = keys.context, float(keys.context.primes[-1])

    def read(ciphertext: Ciphertext, true: np.ndarray) -> Step:
        plaintext = decrypt(keys.secret, ciphertext)
        slots = decode(plaintext)
        wrong = np.abs(slots - full(true)).max()
        return Step(slots.real[:COUNT], true, float(wrong), float(np.max(plaintext.error)), ciphertext.level)

    def full(few: np.ndarray) -> np.ndarray:
        return np.tile(few, context.slots // COUNT)

    encrypted = encrypt(keys.public, encode(context, full(x), limit=LARGEST))
    mask = (np.arange(COUNT) == 0).astype(float)
    moved, masked = [], []
    for steps, turned in enumerate(rotate_many(encrypted, range(COUNT), keys.rotations)):
        true = np.roll(x, -steps)
        moved.append(read(turned, true))
        kept = rescale(multiply_plain(turned, encode(context, full(mask), scale=prime, limit=full(mask))))
        masked.append(read(kept, true * mask))
    total, true = rescale(multiply_plain(encrypted, encode(context, full(w), scale=prime, limit=1.0))), x * w
    sums = [read(total, true)]
    for steps in DOUBLINGS:
        total, true = add(total, rotate(total, steps, keys.rotations)), true + np.roll(true, -steps)
        sums.append(read(total, true))
    return Circle(x, w, tuple(moved), tuple(masked), tuple(sums))


def check_setting(steps: int, keep: str, doublings: int) -> None:
    """`ValueError` unless all of these are on the controls."""
    check_count("steps", steps, low=0)
    check_number("steps", steps, high=COUNT - 1)
    check_choice("keep", keep, tuple(KEEPS))
    check_count("doublings", doublings, low=0)
    check_number("doublings", doublings, high=len(DOUBLINGS))


# --- the picture ------------------------------------------------------------------------------------------------------

ROW, CELL = 0.5, 0.46  # inches
MOVE_ROWS, SUM_ROWS = 3, 2 + len(DOUBLINGS)
LEFT, MOVE_BOTTOM, SUM_BOTTOM = 1.65, 4.5, 0.72
ACROSS, BESIDE = COUNT * CELL, {"across": 1.75, "left": LEFT + COUNT * CELL + 0.25}
PLACES = {
    "move": (LEFT, MOVE_BOTTOM, ACROSS, MOVE_ROWS * ROW),
    "sum": (LEFT, SUM_BOTTOM, ACROSS, SUM_ROWS * ROW),
    "move errors": (BESIDE["left"], MOVE_BOTTOM, BESIDE["across"], MOVE_ROWS * ROW),
    "sum errors": (BESIDE["left"], SUM_BOTTOM, BESIDE["across"], SUM_ROWS * ROW),
}
BOLD = {"fontsize": 16, "weight": "bold", "va": "bottom"}
NAMES = {"fontsize": 15, "ha": "right", "va": "center"}
OBSERVED = {"color": COLORS["private"], "marker": MARKERS["private"], "markersize": 10, "linestyle": ""}
BOUND = {"color": "black", "marker": "|", "markersize": 20, "markeredgewidth": 3.5, "linestyle": ""}
ERRORS = (1e-6, 1e-1)
LEVEL = 1.2  # where levels stand, in widths of the errors
BRIGHT = 0.55  # of the color scale, from where on black is read better than white


@lru_cache(maxsize=1)
def backdrop() -> Backdrop:
    """What no control changes: the axes and the names of the rows."""
    fig, axes = panels(11.8, 6.45, **PLACES)
    with styled():
        for name, rows in (("move", MOVE_ROWS), ("sum", SUM_ROWS)):
            ax = axes[name]
            ax.set(xlim=(-0.5, COUNT - 0.5), ylim=(rows - 0.5, -0.5), yticks=[])
            ax.tick_params(length=0, labelsize=13)
            ax.spines[:].set_visible(False)
            ax.set_xticks(range(COUNT) if name == "sum" else [])
            beside = axes[f"{name} errors"]
            beside.set(xscale="log", xlim=ERRORS, ylim=(rows - 0.5, -0.5), yticks=[])
            beside.set_xticks(ticks := [1e-5, 1e-3], [f"$10^{{{round(np.log10(tick))}}}$" for tick in ticks])
            beside.minorticks_off()
            beside.grid(axis="x", color=COLORS["baseline"], alpha=0.4)
            beside.tick_params(labelsize=14, labelbottom=name == "sum", length=0)
            beside.spines[:].set_visible(False)
        axes["sum"].set_xlabel("slot", fontsize=15)
        axes["sum errors"].set_xlabel("error", fontsize=15)
        samples = [Line2D([], [], label="observed", **OBSERVED), Line2D([], [], label="bound", **BOUND)]
        look = {"fontsize": 15, "borderpad": 0, "handletextpad": 0.3, "handlelength": 1.4, "labelspacing": 0.2}
        axes["sum errors"].legend(handles=samples, loc="lower left", bbox_to_anchor=(-0.03, 1.03), **look)
        for place, word in ((0.5, "error"), (LEVEL, "level")):
            above = axes["move errors"]
            above.text(place, 1.06, word, transform=above.transAxes, fontsize=15, ha="center", va="bottom")
        for row, name in enumerate(("w, in the clear", "x · w", *(f"+ turned by {steps}" for steps in DOUBLINGS))):
            axes["sum"].text(-0.65, row, name, **NAMES)
        axes["move"].text(-0.65, 0, "x", **NAMES)
    return Backdrop.of(fig, axes)


def render(numbers: str, steps: int, keep: str, doublings: int) -> Figure:
    r"""The slots before and after a rotation, and below how rotations by 1, 2, 4 and 8 add up an inner product.

    Args:
        numbers: one of `NUMBERS`.
        steps: how far the vector is turned to the left, from 0 to 15.
        keep: one of `KEEPS`: the whole turned vector, or slot 0 alone, by a product with a mask.
        doublings: how many of the four rotations have been added, from 0 to 4.
    Returns:
        the figure. Its parts have names (gid): the rows "x", "moved", "masked", "w", "sum 0" (products), "sum 1" and so
        on, "observed x", "bound x" and "level x" (the marks of its errors), likewise for the others, "path" (the line
        from a slot to slot 0), "neighbors" (the frame of what slot 0 sums), "move title", "sum title".
    Raises:
        ValueError: names the argument.
    """
    check_setting(steps, keep, doublings)
    found, behind = circle(numbers), backdrop()
    moves = {"x": ("moved", 0), "moved": ("moved", steps)} | ({"masked": ("masked", steps)} if keep == "one" else {})
    sums = {f"sum {place}": ("sums", place) for place in range(doublings + 1)}
    with styled():
        fig = behind.picture()
        for block, rows in (("move", moves), ("sum", {"w": ("w", 0)} | sums)):
            lay_rows(fig, behind, block, {name: strip(numbers, *where) for name, where in rows.items()})
        lay_errors(fig, behind.axes["move errors"], found, moves, first=0)
        lay_errors(fig, behind.axes["sum errors"], found, sums, first=1)
        lay_move(fig, behind.axes["move"], steps, keep)
        lay_sum(fig, behind.axes["sum"], doublings)
    return fig


@lru_cache(maxsize=128)
def strip(numbers: str, kind: str, place: int = 0) -> np.ndarray:
    """A row of cells as finished pixels; kept, since letters are what takes longest to draw.

    Args:
        numbers: one of `NUMBERS`.
        kind: "w", or a field of `Circle` that has steps.
        place: which of the steps.
    Returns:
        `(50, 688, 4)`, uint8.
    """
    found = circle(numbers)
    if kind == "w":
        return drawn(cells(found.w, found.w))
    rows = {"moved": found.moved, "masked": found.moved, "sums": found.sums}[kind]
    return drawn(cells(getattr(found, kind)[place].slots, np.array([step.slots for step in rows])))


def cells(values: np.ndarray, among: np.ndarray) -> Figure:
    """A row of numbers, each in its color and in digits; the colors reach from the least to the largest of others."""
    scale = mpl.colors.Normalize(min(0.0, among.min()), among.max())
    fig, axes = panels(ACROSS, ROW, row=(0, 0, ACROSS, ROW))
    with styled():
        ax = axes["row"]
        ax.set(xlim=(0, len(values)), ylim=(0, 1))
        ax.set_axis_off()
        ax.pcolormesh(values[None], cmap=SEQUENTIAL, norm=scale, edgecolors="white", linewidth=3)
        for slot, value in enumerate(values):
            color = "black" if scale(value) > BRIGHT else "white"
            words = whole(value)
            look = {"ha": "center", "va": "center", "color": color, "gid": f"slot {slot}"}
            ax.text(slot + 0.5, 0.47, words, fontsize=15 if len(words) < 3 else 14, **look)
    return fig


def drawn(fig: Figure) -> np.ndarray:
    """The pixels of a figure."""
    return Backdrop.of(fig, {}).pixels


def lay_rows(fig: Figure, behind: Backdrop, block: str, rows: dict[str, np.ndarray]) -> None:
    """Strips of cells, one under the other."""
    left, _, _, top = behind.axes[block].bbox.extents.round().astype(int)
    for row, (name, pixels) in enumerate(rows.items(), start=1):
        fig.add_artist(Pixels(pixels, left, top - row * len(pixels), gid=name))


def whole(value: float) -> str:
    """A number, rounded to a whole one.

    >>> whole(-3.0002), whole(-0.0001)
    ('−3', '0')
    """
    return f"{round(value)}".replace("-", "−")


def lay_errors(fig: Figure, ax: Axes, found: Circle, rows: dict[str, tuple[str, int]], *, first: int) -> None:
    """In each row the largest error that was observed, its bound, and the level."""
    here = {"transform": ax.transData}
    for row, (name, (kind, place)) in enumerate(rows.items(), start=first):
        step = getattr(found, kind)[place]
        low, high = step.observed, step.bound
        fig.add_artist(Line2D([low, high], [row] * 2, color=COLORS["baseline"], linewidth=2, **here))
        fig.add_artist(Line2D([low], [row], gid=f"observed {name}", **OBSERVED, **here))
        fig.add_artist(Line2D([high], [row], gid=f"bound {name}", **BOUND, **here))
        words = {"fontsize": 15, "ha": "center", "va": "center", "gid": f"level {name}"}
        fig.text(LEVEL, row, f"{step.level}", transform=ax.get_yaxis_transform(), **words)


def lay_move(fig: Figure, ax: Axes, steps: int, keep: str) -> None:
    """The names of the rows, which slot came to slot 0, and what a mask is for."""
    here = {"transform": ax.transData}
    fig.text(-0.65, 1, f"turned by {steps}", **NAMES, **here)
    fig.text(-0.65, 2, "times a mask", color="black" if keep == "one" else COLORS["baseline"], **NAMES, **here)
    if keep == "all":
        words = "no mask: a rotation moves all slots, and picks none"
        fig.text((COUNT - 1) / 2, 2, words, fontsize=15, ha="center", va="center", style="italic", **here)
    for slot, row in ((steps, 0), (0, 1), (0, 2))[: 2 if keep == "all" else 3]:
        lay_frame(fig, ax, slot, row, 1)
    fig.add_artist(Line2D([steps, 0], [0.36, 0.64], color=COLORS["poisoned"], linewidth=4, gid="path", **here))
    fig.text(0, 1.06, move_title(steps, keep), transform=ax.transAxes, gid="move title", **BOLD)


def lay_sum(fig: Figure, ax: Axes, doublings: int) -> None:
    """Which products slot 0 sums by now, and where the sum stands."""
    lay_frame(fig, ax, 0, 1, 2**doublings, gid="neighbors")
    lay_frame(fig, ax, 0, 1 + doublings, 1)
    for place in range(doublings + 1, len(DOUBLINGS) + 1):
        words = {"fontsize": 15, "ha": "center", "va": "center", "style": "italic", "color": COLORS["baseline"]}
        fig.text((COUNT - 1) / 2, 1 + place, "not yet", transform=ax.transData, **words)
    fig.text(0, 1.02, sum_title(doublings), transform=ax.transAxes, gid="sum title", **BOLD)


def lay_frame(fig: Figure, ax: Axes, slot: int, row: int, count: int, gid: str | None = None) -> None:
    """A frame around slots of a row."""
    for color, width in (("white", 7), (COLORS["poisoned"], 4)):
        look = {"fill": False, "edgecolor": color, "linewidth": width, "gid": gid, "transform": ax.transData}
        fig.add_artist(Rectangle((slot - 0.46, row - 0.42), count - 0.08, 0.84, **look))


def move_title(steps: int, keep: str) -> str:
    """What happened to the vector, in a line."""
    moved = f"turned left by {steps}: all slots move" if steps else "not turned: slot 0 holds its own number"
    return moved if keep == "all" else f"{moved}, then one is kept" if steps else "not turned, and slot 0 is kept"


def sum_title(doublings: int) -> str:
    """How far the sum has come, in a line."""
    if doublings == 0:
        return "the products, one in each slot"
    if doublings == len(DOUBLINGS):
        return "4 rotations: every slot holds the inner product"
    rotations = "1 rotation" if doublings == 1 else f"{doublings} rotations"
    return f"{rotations}: every slot holds a sum of {2**doublings} neighbors"


# --- its words --------------------------------------------------------------------------------------------------------


def verdict(numbers: str, steps: int, keep: str, doublings: int) -> str:
    """In words: what moved, what a mask costs, how far the inner product is, and how wrong the numbers are."""
    check_setting(steps, keep, doublings)
    found, context = circle(numbers), client_keys().context
    shown, total = (found.moved, found.masked)[keep == "one"][steps], found.sums[doublings]
    moved = "Slots stand where they were" if steps == 0 else f"Slot 0 holds what slot {steps} held, and all moved along"
    if keep == "one":
        mask = (
            f"The product with the mask (1, 0, ..., 0) keeps slot 0 alone, and costs a level: {shown.level} of "
            f"{context.levels} is left."
        )
    else:
        mask = "There is no rotation of one slot: who wants one number alone has to multiply by a mask."
    if doublings == len(DOUBLINGS):
        added = (
            f"after 4 rotations, not 15, every slot holds the inner product of x and w, {whole(total.slots[0])} "
            f"({total.slots[0]:.5f} as decrypted)"
        )
    elif doublings:
        added = f"every slot holds the sum of {2**doublings} products, its own and those to its right"
    else:
        added = "every slot holds its own product of x and w, and nothing has been added"
    return (
        f"{moved}. The {COUNT} numbers stand {context.slots // COUNT} times in {context.slots:,} slots, so that they "
        f"turn in a circle here. {mask} All is decrypted from ciphertexts: above at most {shown.observed:.1e} wrong, "
        f"with a bound of {shown.bound:.1e}. Below, {added}, at most {total.observed:.1e} wrong, with a bound of "
        f"{total.bound:.1e}. Each doubling doubles the bound; the errors, which differ in sign, grow less."
    )


def describe(numbers: str, steps: int, keep: str, doublings: int) -> str:
    """The picture for somebody who cannot see it."""
    check_setting(steps, keep, doublings)
    found = circle(numbers)

    def row(step: Step) -> str:
        return ", ".join(f"{round(value)}" for value in step.slots)

    mask = f" Times a mask: {row(found.masked[steps])}." if keep == "one" else ""
    return (
        f"The first {COUNT} slots of x as cells: {row(found.moved[0])}. Turned left by {steps}: "
        f"{row(found.moved[steps])}.{mask} Below, the products with the weights, and after {doublings} of 4 rotations "
        f"their sums: {row(found.sums[doublings])}. Beside each row its largest error, its bound and its level."
    )


def rotation_explorer() -> Explorable:
    """The explorable: turn the slots of a ciphertext, and let an inner product come about in all of them.

    Returns:
        the widget.
    """
    controls = {
        "numbers": widgets.Dropdown(description="numbers", options=[(shown, name) for name, shown in NUMBERS.items()]),
        "keep": widgets.Dropdown(description="keep", options=[(shown, name) for name, shown in KEEPS.items()]),
        "steps": widgets.IntSlider(description="turn by", min=0, max=COUNT - 1, value=3),
        "doublings": widgets.IntSlider(description="sums", min=0, max=len(DOUBLINGS), value=2),
    }

    def adapt(name: str) -> None:
        if name == "numbers":
            prepare(controls["numbers"].value)

    prepare(controls["numbers"].value)
    return Explorable(render, controls, alt=describe, caption=verdict, adapt=adapt, slow=("numbers",))


def prepare(numbers: str) -> None:
    """Compute and draw all that the sliders can show."""
    for kind in ("moved", "masked", "sums"):
        for place in range(len(getattr(circle(numbers), kind))):
            strip(numbers, kind, place)

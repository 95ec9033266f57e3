r"""The levels explorer: operations on encrypted numbers, clicked together, and what each leaves of levels."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from textwrap import fill

import ipywidgets as widgets
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from spai_lab.checks import describe as describe_value
from spai_lab.crypto.ckks import (
    Ciphertext,
    add,
    ckks_context,
    decode,
    decrypt,
    encode,
    encrypt,
    multiply,
    multiply_constant,
    relinearize,
    rescale,
    rotate,
)
from spai_lab.crypto.ckks_keys import SecretKey, secret_key
from spai_lab.crypto.ckks_noise import precision
from spai_lab.crypto.ckks_parties import ServerKeys, server_keys
from spai_lab.he_figures import in_bytes
from spai_lab.style import COLORS, MARKERS, Backdrop, panels, styled
from spai_lab.widgets.explorable import Explorable

DEGREE, PRIMES = 8192, (30,) * 4
NUMBERS, LIMIT = np.array([0.4, -0.3, 0.2, 0.1]), 0.45
STEPS = 6
NOTHING = "–"
LEAST, DEEPEST = 0, 26  # bits on the axis; no program of so few steps leaves it
START = ("square, rescale", "times 0.5, rescale", "rotate by 1")


@dataclass(frozen=True, eq=False)
class Bench:
    """The numbers that everything starts from, encrypted, and all keys."""

    secret: SecretKey
    keys: ServerKeys
    fresh: Ciphertext
    slots: np.ndarray


@lru_cache(maxsize=1)
def bench() -> Bench:
    """Keys of this kernel, for 128 bits of security."""
    secret = secret_key(ckks_context(DEGREE, PRIMES))
    keys = server_keys(secret, steps=(1,), relinearize=True)
    slots = np.resize(NUMBERS, secret.context.slots)
    return Bench(secret, keys, encrypt(keys.public, encode(secret.context, slots, limit=LIMIT)), slots)


def squared(x: Ciphertext) -> Ciphertext:
    """The square, of two parts."""
    return relinearize(multiply(x, x), bench().keys.relinearization)


@dataclass(frozen=True)
class Operation:
    """What is done to the ciphertext, and to the numbers in the clear."""

    encrypted: Callable[[Ciphertext], Ciphertext]
    plain: Callable[[np.ndarray], np.ndarray]


OPERATIONS = {
    "+ itself": Operation(lambda x: add(x, x), lambda z: 2 * z),
    "times 0.5, rescale": Operation(lambda x: rescale(multiply_constant(x, 0.5)), lambda z: z / 2),
    "times 0.5, not rescaled": Operation(lambda x: multiply_constant(x, 0.5), lambda z: z / 2),
    "square, rescale": Operation(lambda x: rescale(squared(x)), np.square),
    "square, not rescaled": Operation(squared, np.square),
    "rescale": Operation(rescale, lambda z: z),
    "rotate by 1": Operation(lambda x: rotate(x, 1, bench().keys.rotations), lambda z: np.roll(z, -1)),
    "+ the fresh numbers": Operation(lambda x: add(x, bench().fresh), lambda z: z + bench().slots),
}
CHOICES = (NOTHING, *OPERATIONS)


@dataclass(frozen=True, eq=False)
class Stage:
    """After an operation: the ciphertext, the numbers in the clear, and the largest error; or why it failed."""

    name: str
    text: Ciphertext | None
    true: np.ndarray | None
    observed: float = math.nan
    failure: str = ""

    @property
    def bound(self) -> float:
        """What was computed beforehand."""
        return float(np.max(self.text.error))


@lru_cache(maxsize=128)
def stages(program: tuple[str, ...]) -> tuple[Stage, ...]:
    """From the fresh numbers through a program, up to its end or to the operation that fails; kept.

    Args:
        program: keys of `OPERATIONS`, or "–" for none.
    Returns:
        one stage for the fresh numbers, and one for each operation.
    Raises:
        ValueError: names the argument.
    """
    for name in program:
        if name not in CHOICES:
            raise ValueError(f"program has {describe_value(name)}; accepted: {', '.join(CHOICES)}")
    if not program:
        found = bench()
        return (measured("fresh", found.fresh, found.slots),)
    before, name = stages(program[:-1]), program[-1]
    if name == NOTHING or before[-1].failure:
        return before
    operation = OPERATIONS[name]
    try:
        text = operation.encrypted(before[-1].text)
    except ValueError as error:
        return (*before, Stage(name, None, None, failure=str(error)))
    return (*before, measured(name, text, operation.plain(before[-1].true)))


def measured(name: str, text: Ciphertext, true: np.ndarray) -> Stage:
    """A stage, decrypted to see how wrong it is, which only the owner of the key can."""
    observed = float(np.abs(decode(decrypt(bench().secret, text)).real - true).max())
    return Stage(name, text, true, observed)


PLACES = {"bits": (1.05, 3.05, 9.4, 2.6), "levels": (1.05, 1.1, 9.4, 1.1)}
LOOKS = {
    "observed": {"color": COLORS["private"], "marker": MARKERS["private"], "linestyle": "-"},
    "bound": {"color": "black", "marker": "_", "markeredgewidth": 3, "linestyle": "--"},
}


@lru_cache(maxsize=1)
def backdrop() -> Backdrop:
    """The axes and the legend."""
    fig, axes = panels(10.8, 6.6, **PLACES)
    with styled():
        for ax in axes.values():
            ax.set(xlim=(-0.5, STEPS + 0.5), xticks=[])
        axes["bits"].set(ylim=(LEAST, DEEPEST), yticks=range(0, DEEPEST, 10))
        axes["bits"].set_ylabel("right bits\nafter the point", fontsize=15)
        axes["levels"].set(ylim=(0, len(PRIMES) - 1), yticks=range(len(PRIMES)))
        axes["levels"].set_ylabel("levels\nleft", fontsize=15)
        for ax in axes.values():
            ax.tick_params(labelsize=14)
        words = {"observed": "observed", "bound": "proved: at least"}
        samples = [Line2D([], [], markersize=12, label=words[name], **look) for name, look in LOOKS.items()]
        axes["bits"].legend(handles=samples, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, fontsize=15)
    return Backdrop.of(fig, axes)


def render(**program: str) -> Figure:
    """Right bits and levels left, after each operation.

    Args:
        **program: the operations, in order, each one of `CHOICES`.
    Returns:
        the figure. Its parts have names (gid): "observed" and "bound" (the curves), "level 0", "level 1" and so on
        (the bars), "name 0" and so on, and "failure", the words of the error.
    Raises:
        ValueError: names the argument.
    """
    found = stages(tuple(program.values()))
    behind = backdrop()
    right = [stage for stage in found if not stage.failure]
    with styled():
        fig = behind.picture()
        bits, levels = behind.axes["bits"], behind.axes["levels"]
        for name, values in (("bound", [s.bound for s in right]), ("observed", [s.observed for s in right])):
            heights = np.array([precision(value) for value in values])
            look = {**LOOKS[name], "markersize": 13, "linewidth": 2.5, "gid": name}
            fig.add_artist(Line2D(range(len(right)), heights, transform=bits.transData, **look))
        for number, stage in enumerate(found):
            words = {"ha": "center", "fontsize": 13}
            if stage.failure:
                fig.text(
                    number, 0.5, "✗", transform=levels.transData, color=COLORS["adversarial"], fontsize=34, ha="center"
                )
            else:
                bar = {"facecolor": COLORS["defended"], "edgecolor": "black", "gid": f"level {number}"}
                height = stage.text.level
                fig.add_artist(Rectangle((number - 0.3, 0), 0.6, height, transform=levels.transData, **bar))
                scale = f"scale 2^{math.log2(stage.text.scale):.0f}"
                fig.text(number, height + 0.12, scale, transform=levels.transData, va="bottom", **words)
            name = fill(stage.name, 12)
            fig.text(number, -0.25, name, transform=levels.transData, va="top", gid=f"name {number}", **words)
        if found[-1].failure:
            told = fill(found[-1].failure, 88)
            place = {"transform": bits.transAxes, "fontsize": 13, "va": "bottom", "gid": "failure"}
            fig.text(0.01, 0.04, told, color=COLORS["adversarial"], weight="bold", backgroundcolor="white", **place)
    return fig


def verdict(**program: str) -> str:
    """What to see."""
    found = stages(tuple(program.values()))
    last = found[-1]
    if last.failure:
        return f"“{last.name}” cannot be done: {last.failure}."
    text = last.text
    gone = bench().fresh.level - text.level
    size = in_bytes(text.parts.size * 30 / 8)
    return (
        f"{gone} of {bench().fresh.level} levels are used, the scale is 2^{math.log2(text.scale):.2f}, the ciphertext "
        f"has {size}. The error is {last.observed:.1e}; before anything was decrypted it was known to be at most "
        f"{last.bound:.1e}. Products double the scale's bits; a rescaling takes a prime, and a level, to bring it back."
    )


def describe(**program: str) -> str:
    """The picture for somebody who cannot see it."""
    found = stages(tuple(program.values()))
    told = "; ".join(
        f"{s.name}: fails"
        if s.failure
        else f"{s.name}: level {s.text.level}, {precision(s.observed):.0f} right bits, "
        f"at least {precision(s.bound):.0f}"
        for s in found
    )
    return f"A program of {len(found) - 1} operations on encrypted numbers. {told}."


def levels_explorer() -> Explorable:
    """The explorable: click a computation together, and see what each operation leaves of levels and digits.

    Returns:
        the widget.
    """
    first = (*START, *[NOTHING] * (STEPS - len(START)))
    controls = {
        f"step_{number}": widgets.Dropdown(description=f"step {number}", options=CHOICES, value=value)
        for number, value in enumerate(first, start=1)
    }
    return Explorable(render, controls, alt=describe, caption=verdict)

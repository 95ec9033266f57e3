"""The gate explorer: a garbled gate as its evaluator sees it, row by row, and as its garbler does."""

from functools import lru_cache

import ipywidgets as widgets
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from spai_lab.checks import check_choice, check_count
from spai_lab.crypto.garbled_circuit_classical import ClassicalGate, OpenedRow, classical_gate, open_rows
from spai_lab.style import COLORS, panels, styled
from spai_lab.widgets.explorable import Explorable

GATES = {"AND": (0, 0, 0, 1), "OR": (0, 1, 1, 1), "XOR": (0, 1, 1, 0)}
EYES = ("evaluator", "garbler")
GARBLINGS = 4
SHOWN = 6  # bytes of a label


@lru_cache(maxsize=len(GATES) * GARBLINGS)
def garbled(gate: str, garbling: int) -> ClassicalGate:
    """A gate, garbled; each garbling has labels of its own."""
    check_choice("gate", gate, tuple(GATES))
    return classical_gate(GATES[gate])


def rows(gate: str, a: int, b: int, garbling: int) -> tuple[OpenedRow, ...]:
    """What the labels of two bits open."""
    return open_rows(garbled(gate, garbling), a, b)


def shown(label: bytes) -> str:
    """The first bytes of a label."""
    return f"{label[:SHOWN].hex(' ', 2)} …"


# --- the picture ------------------------------------------------------------------------------------------------------

WIDTH, HEIGHT = 11.6, 4.7
COLUMNS = {"row": 0.02, "the table: 16 bytes": 0.1, "opened with your two labels": 0.4, "": 0.73}
LINE = 0.125
MONO = {"family": "monospace", "fontsize": 16, "va": "center"}
WORDS = {"fontsize": 16, "va": "center"}


def check_setting(gate: str, a: int, b: int, eye: str, garbling: int) -> None:
    """`ValueError` unless all of these are on the controls."""
    check_choice("gate", gate, tuple(GATES))
    check_choice("eye", eye, EYES)
    for name, bit in (("a", a), ("b", b)):
        check_count(name, bit, low=0)
        if bit > 1:
            raise ValueError(f"{name} is {bit}; accepted: 0, 1")
    check_count("garbling", garbling)
    if garbling > GARBLINGS:
        raise ValueError(f"garbling is {garbling}; accepted: 1 to {GARBLINGS}")


def render(gate: str, a: int, b: int, eye: str, garbling: int) -> Figure:
    """The four rows of a garbled gate: which one two labels open, and what they give in the others.

    Args:
        gate: "AND", "OR" or "XOR".
        a, b: the input bits, which the evaluator has labels of and does not know.
        eye: whose: the "evaluator" sees bytes; the "garbler" knows what they mean.
        garbling: which of four garblings, each with labels of its own.
    Returns:
        the figure. Its parts have names (gid): "row 0" to "row 3", what each opens to, and "pointed".
    Raises:
        ValueError: names the argument.
    """
    check_setting(gate, a, b, eye, garbling)
    made = garbled(gate, garbling)
    fig, axes = panels(WIDTH, HEIGHT, board=(0.1, 0.1, WIDTH - 0.2, HEIGHT - 0.2))
    ax = axes["board"]
    with styled():
        ax.set(xlim=(0, 1), ylim=(0, 1))
        ax.axis("off")
        for height, wire, labels, bit in ((0.94, "a", made.a, a), (0.84, "b", made.b, b)):
            label = labels[bit].tobytes()
            meaning = f"stands for {bit}" if eye == "garbler" else "stands for ?"
            ax.text(0.02, height, f"your label of wire {wire}", **WORDS)
            ax.text(0.3, height, shown(label), **MONO)
            ax.text(0.6, height, f"color {label[0] & 1}", **WORDS)
            ax.text(0.73, height, meaning, color=COLORS["clean" if eye == "garbler" else "baseline"], **WORDS)
        for words, left in COLUMNS.items():
            ax.text(left, 0.68, words, weight="bold", **WORDS)
        for number, row in enumerate(rows(gate, a, b, garbling)):
            height = 0.56 - LINE * number
            if row.pointed:
                box = {"facecolor": COLORS["private"], "alpha": 0.25, "gid": "pointed"}
                ax.add_patch(Rectangle((0, height - LINE / 2), 1, LINE, **box))
            ax.text(COLUMNS["row"], height, f"{row.colors[0]} {row.colors[1]}", **WORDS)
            ax.text(0.1, height, shown(made.rows[number].tobytes()), **MONO)
            ax.text(0.4, height, shown(row.opened), gid=f"row {number}", **MONO)
            ax.text(0.73, height, meaning_of(row, eye), weight="bold" if row.pointed else "normal", **WORDS)
    return fig


def meaning_of(row: OpenedRow, eye: str) -> str:
    """What whose eye sees in an opened row."""
    if eye == "garbler":
        return "noise" if row.bit is None else f"the output's label of {row.bit}"
    return "the output's label" if row.pointed else "?"


# --- its words --------------------------------------------------------------------------------------------------------


def verdict(gate: str, a: int, b: int, eye: str, garbling: int) -> str:
    """What to see."""
    check_setting(gate, a, b, eye, garbling)
    pointed = next(row for row in rows(gate, a, b, garbling) if row.pointed)
    told = (
        f"The colors {pointed.colors[0]} and {pointed.colors[1]} of the two labels point to one row. It opens to the "
        "label of the output, and the other three give noise. "
    )
    if eye == "evaluator":
        return told + "Which bit the label stands for the evaluator does not see: look through the garbler's eyes."
    return told + f"The garbler knows: {a} {gate} {b} = {pointed.bit}. Garble again: colors and rows change places."


def describe(gate: str, a: int, b: int, eye: str, garbling: int) -> str:
    """The picture for somebody who cannot see it."""
    check_setting(gate, a, b, eye, garbling)
    found = rows(gate, a, b, garbling)
    number = next(number for number, row in enumerate(found) if row.pointed)
    inputs = f"the bits {a} and {b}" if eye == "garbler" else "two bits that nobody here knows"
    return (
        f"Garbling {garbling} of {gate}, as the {eye} sees it. Labels of {inputs}; their colors point to row {number} "
        f"of four, which opens to {shown(found[number].opened)}, {meaning_of(found[number], eye)}; the others to noise."
    )


def gate_explorer() -> Explorable:
    """The explorable: choose the bits, open the rows, and change the eyes.

    Returns:
        the widget.
    """
    bits = [("0", 0), ("1", 1)]
    controls = {
        "gate": widgets.Dropdown(description="gate", options=list(GATES)),
        "eye": widgets.Dropdown(description="seen by", options=list(EYES)),
        "a": widgets.Dropdown(description="bit a", options=bits),
        "b": widgets.Dropdown(description="bit b", options=bits, value=1),
        "garbling": widgets.IntSlider(description="garbling", value=1, min=1, max=GARBLINGS),
    }
    return Explorable(render, controls, alt=describe, caption=verdict)

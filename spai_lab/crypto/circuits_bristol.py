"""Circuits of others: a reader of the Bristol Fashion format, in which AES, SHA and arithmetic are published.

| line | holds |
|---|---|
| 1 | number of gates, number of wires |
| 2 | number of input values, bits of each |
| 3 | number of output values, bits of each; they are the last wires |
| others | number of input wires, number of output wires, input wires, output wires, kind |

Kinds are XOR, AND, INV, EQ (out is the constant 0 or 1 that stands in the place of its input), EQW (out is its input)
and MAND (several ANDs: all first inputs, all second ones, all outputs). Empty lines do not count.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from spai_lab.checks import describe_kind
from spai_lab.crypto.circuits import AND, INV, MOST, XOR, Bit, Builder, Circuit
from spai_lab.data.sources import DataUnavailable, folders, read

EQ, EQW, MAND = "EQ", "EQW", "MAND"
FORMS = {XOR: (2, 1), AND: (2, 1), INV: (1, 1), EQ: (1, 1), EQW: (1, 1)}
LONGEST = 2**28  # bytes of a file


def read_bristol(text: str) -> Circuit:
    r"""The circuit that a text in Bristol Fashion describes, gate by gate.

    Args:
        text: of the whole file.
    Returns:
        the circuit; wires are counted anew, gates that no output needs are left out.
    Raises:
        ValueError: names the line and what is wrong with it.
    Reference: Archer, Abril, Lu, Maene, Mertens, Sijacic and Smart, "'Bristol Fashion' MPC circuits", 2020; garbling
        such files goes back to Yao 1986.
    Survey: private AI, cryptography, multi-party computation.

    >>> read_bristol("2 4 \n2 1 1 \n1 2 \n\n2 1 0 1 2 XOR \n2 1 0 1 3 AND \n")
    Circuit of 2 bits to 2: 1 XOR, 1 AND, 0 INV
    >>> read_bristol("1 3 \n2 1 1 \n1 1 \n\n2 1 0 1 2 NOR \n")
    Traceback (most recent call last):
    ValueError: line 5: the kind is 'NOR'; accepted: XOR, AND, INV, EQ, EQW, MAND
    """
    if not isinstance(text, str):
        raise ValueError(f"text is {describe_kind(text)}; accepted: a str")
    lines = [(number, line.split()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if len(lines) < 3:
        raise ValueError(f"text has {len(lines)} lines that are not empty; accepted: three of a head, and gates")
    gates, wires = sizes(*lines[0], "the numbers of gates and of wires", 2)
    inputs, outputs = (values(*lines[i], what) for i, what in ((1, "input"), (2, "output")))
    if len(lines) - 3 != gates:
        raise ValueError(f"line {lines[0][0]}: {gates:,} gates are announced; the text has {len(lines) - 3:,}")
    if sum(inputs) > wires or sum(outputs) > wires:
        wrong(lines[0][0], f"there are {wires:,} wires, fewer than the bits of inputs or outputs")
    builder = Builder(*inputs)
    known: dict[int, Bit] = {wire: wire for wire in range(sum(inputs))}
    for number, words in lines[3:]:
        add_gate(builder, known, number, words, wires)
    last = iter(range(wires - sum(outputs), wires))
    places = [[next(last) for _ in range(bits)] for bits in outputs]
    lost = [wire for value in places for wire in value if wire not in known]
    if lost:
        raise ValueError(f"the outputs are the last wires; no gate drives {lost[0]:,}")
    return builder.circuit(*([known[wire] for wire in value] for value in places))


def load_circuit(name: str) -> Circuit:
    """A published circuit, such as "aes_128", from the folder `circuits` under `SPAI_DATA` or in the user's cache.

    Args:
        name: of the file, without its end, `.txt`.
    Returns:
        the circuit.
    Raises:
        DataUnavailable: there is no such file, or it cannot be read.
        ValueError: what is wrong with it.
    Reference: as `read_bristol`.
    Survey: private AI, cryptography, multi-party computation.
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"name is {name!r}; accepted: letters, digits and underscores, such as 'aes_128'")
    path = find_circuit(name)
    if path is None:
        raise DataUnavailable(
            f"{name}.txt is not there: set SPAI_DATA to a folder that has circuits/{name}.txt, in Bristol Fashion, as "
            "published at https://nigelsmart.github.io/MPC-Circuits/"
        )
    if path.stat().st_size > LONGEST:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes; accepted: at most {LONGEST:,}")
    return read_bristol(read(path).decode("ascii", errors="replace"))


def find_circuit(name: str) -> Path | None:
    """The first file of this name, or None."""
    return next((path for folder in folders("circuits") if (path := folder / f"{name}.txt").is_file()), None)


# --- lines ------------------------------------------------------------------------------------------------------------


def add_gate(builder: Builder, known: dict[int, Bit], line: int, words: list[str], wires: int) -> None:
    """Read one gate, and add it to those that are known."""
    kind = words[-1]
    if kind != MAND and kind not in FORMS:
        wrong(line, f"the kind is {kind[:20]!r}; accepted: {', '.join([*FORMS, MAND])}")
    numbers = sizes(line, words[:-1], "the wires of a gate")
    if len(numbers) < 2 or len(numbers) != 2 + numbers[0] + numbers[1]:
        wrong(line, "the numbers of wires do not fit the wires")
    m, n = numbers[:2]
    if (m, n) != FORMS.get(kind, (2 * n, n)) or n == 0:
        wrong(line, f"{kind} has {m} wires in and {n} out")
    into, out = numbers[2 : 2 + m], numbers[2 + m :]
    if kind == EQ:
        if into[0] > 1:
            wrong(line, f"the constant is {into[0]}; accepted: 0, 1")
        results = [bool(into[0])]
    else:
        missing = [wire for wire in into if wire not in known]
        if missing:
            wrong(line, f"wire {missing[0]:,} is used; accepted: one driven before")
        bits = [known[wire] for wire in into]
        results = bits if kind == EQW else [function_of(builder, kind)(*bits[i::n]) for i in range(n)]
    for wire, bit in zip(out, results, strict=True):
        if wire in known or wire >= wires:
            wrong(line, f"wire {wire:,} is driven; accepted: one below {wires:,} not driven before")
        known[wire] = bit


def function_of(builder: Builder, kind: str) -> Callable[..., Bit]:
    """What builds a gate of this kind."""
    return {XOR: builder.xor, AND: builder.and_, MAND: builder.and_, INV: builder.inv}[kind]


def values(line: int, words: list[str], what: str) -> list[int]:
    """The bits of each value of the second or third line."""
    count, *bits = sizes(line, words, f"the {what} values", least=2)
    if count != len(bits) or min(bits) == 0:
        wrong(line, f"{count} {what} values are announced, {len(bits)} are given; accepted: as many, of at least 1 bit")
    return bits


def sizes(line: int, words: list[str], what: str, count: int | None = None, *, least: int = 0) -> list[int]:
    """The whole numbers of a line."""
    if any(not (word.isascii() and word.isdigit() and len(word) <= 10 and int(word) <= MOST) for word in words):
        wrong(line, f"{what} are {' '.join(words)[:40]!r}; accepted: whole numbers, at most {MOST:,}")
    if len(words) < least or count not in (None, len(words)):
        wrong(line, f"{what} are {len(words)} numbers; accepted: {count or f'at least {least}'}")
    return [int(word) for word in words]


def wrong(line: int, what: str) -> NoReturn:
    """Raise `ValueError` that names the line."""
    raise ValueError(f"line {line}: {what}")

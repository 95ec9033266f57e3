r"""One garbled gate as Yao had it: four rows, of which the evaluator can open one.

Each wire has two labels, and each label a color, random, so that it tells nothing about the bit. The row for colors
$(s_a, s_b)$ holds the output's label under the hashes of both input labels,

$E_{s_a s_b} = C^{g(a, b)} \oplus H(A^a, 2 r) \oplus H(B^b, 2 r + 1), \qquad r = 2 s_a + s_b.$

Whoever holds one label a wire knows from their colors which row is meant (point and permute). All rows can be tried;
three of them give noise. A gate takes 64 bytes, XOR gates too; half gates (`spai_lab.crypto.garbled_circuit`) need 32,
and none for XOR. The row is part of the hash: without it the four rows would add up to $C^0 \oplus C^1$ for AND.

For learning, not for secrets.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from spai_lab.checks import check_count, describe
from spai_lab.crypto.garbled_circuit_labels import blake2_hash, random_labels

AND_TRUTH = (0, 0, 0, 1)
SALT = bytes(16)  # a gate of its own


@dataclass(frozen=True, eq=False, repr=False)
class ClassicalGate:
    """One garbled gate, and what only its garbler knows.

    Args:
        rows: the table that the evaluator gets, uint8 `(4, 16)`.
        a, b, c: both labels of the inputs and of the output, that of 0 first, uint8 `(2, 16)`.
    """

    rows: np.ndarray
    a: np.ndarray
    b: np.ndarray
    c: np.ndarray


class OpenedRow(NamedTuple):
    """What a row gives to two labels: 16 bytes, and of which output bit they are the label, None for noise.

    `colors` are those for which the row was made; `pointed` says whether they are those of the labels.
    """

    colors: tuple[int, int]
    pointed: bool
    opened: bytes
    bit: int | None


def classical_gate(truth: Sequence[int] = AND_TRUTH) -> ClassicalGate:
    r"""Garble one gate of two inputs, any gate, in four rows.

    Args:
        truth: g(0, 0), g(0, 1), g(1, 0), g(1, 1), each 0 or 1.
    Returns:
        the gate, with fresh labels.
    Raises:
        ValueError: names the argument.
    Reference: Yao 1986, "How to generate and exchange secrets"; point and permute by Beaver, Micali and Rogaway 1990;
        Zahur, Rosulek and Evans 2014, IACR 2014/756, compare what each improvement since then saves.
    Survey: private AI, cryptography, multi-party computation.

    >>> gate = classical_gate()
    >>> gate.rows.nbytes
    64
    """
    if not isinstance(truth, list | tuple) or len(truth) != 4 or any(value not in (0, 1) for value in truth):
        raise ValueError(f"truth is {describe(truth)}; accepted: four values, each 0 or 1")
    a, b, c = wire_labels(), wire_labels(), wire_labels()
    rows = np.empty((4, 16), np.uint8)
    for x in range(2):
        for y in range(2):
            r = row_of(a[x], b[y])
            rows[r] = c[int(truth[2 * x + y])] ^ row_pad(a[x], b[y], r)
    return ClassicalGate(rows, a, b, c)


def open_rows(gate: ClassicalGate, a: int, b: int) -> tuple[OpenedRow, ...]:
    """What an evaluator with the labels of two bits gets from each of the four rows.

    Args:
        gate: by `classical_gate`; the evaluator sees its rows, and we also the labels, to say which bit was found.
        a: the first input bit, 0 or 1.
        b: the second input bit, 0 or 1.
    Returns:
        the rows in the order of the table.
    Raises:
        ValueError: names the argument.
    Reference: Yao 1986, "How to generate and exchange secrets"; the four rows that half gates (Zahur, Rosulek and Evans
        2014, IACR 2014/756) make two.
    Survey: private AI, cryptography, multi-party computation.

    >>> [row.bit for row in open_rows(classical_gate(), 1, 1) if row.pointed]
    [1]
    >>> sum(row.bit is None for row in open_rows(classical_gate(), 0, 1))
    3
    """
    for name, bit in (("a", a), ("b", b)):
        check_count(name, bit, low=0)
        if bit > 1:
            raise ValueError(f"{name} is {bit}; accepted: 0, 1")
    x, y = gate.a[a], gate.b[b]
    opened = []
    for r, row in enumerate(gate.rows):
        label = row ^ row_pad(x, y, r)
        bit = next((bit for bit in range(2) if (label == gate.c[bit]).all()), None)
        opened.append(OpenedRow((r >> 1, r & 1), r == row_of(x, y), label.tobytes(), bit))
    return tuple(opened)


def wire_labels() -> np.ndarray:
    """Two labels of different colors, uint8 `(2, 16)`."""
    labels = random_labels(2)
    labels[1, 0] ^= 1 ^ (labels[0, 0] ^ labels[1, 0]) & 1
    return labels


def row_of(x: np.ndarray, y: np.ndarray) -> int:
    """The row to which the colors of two labels point."""
    return 2 * int(x[0] & 1) + int(y[0] & 1)


def row_pad(x: np.ndarray, y: np.ndarray, r: int) -> np.ndarray:
    r"""$H(x, 2 r) \oplus H(y, 2 r + 1)$."""
    first, second = blake2_hash(np.stack([x, y]), np.array([2 * r, 2 * r + 1], np.uint64), SALT)
    return first ^ second

"""An XOR of labels that costs no table: what who garbles does, and what who evaluates."""

from collections.abc import Callable
from hashlib import blake2b
from itertools import product

import numpy as np

from spai_lab.checks import describe
from spai_lab.crypto.garbled_circuit_labels import LABEL, random_labels
from spai_lab.exercises.chapter_15.verdicts import CHAPTER, RIGHT, UNKNOWN, first_alike, kind, put, right, same
from spai_lab.exercises.exercise import Exercise, Fault

Labels = tuple[np.ndarray, np.ndarray]


def my_garbled_xor(a0, b0, delta, a, b):
    """The output wire of an XOR gate, for who garbles it and for who evaluates it.

    a0, b0: the labels of 0 of both input wires, uint8 of 16 bytes.
    delta: on every wire, the label of 1 is that of 0 XOR delta.
    a, b: the active labels of both input wires; of which bits, nobody says.
    Returns the label of 0 of the output wire, which follows from a0, b0 and delta,
    and its active label, which must follow from a and b alone.
    """
    return a0 ^ b0, a ^ b


def hashed(*labels: np.ndarray) -> np.ndarray:
    """Sixteen bytes that depend on these labels."""
    return np.frombuffer(blake2b(b"".join(map(bytes, labels)), digest_size=LABEL).digest(), np.uint8)


def inverts_the_output(a0, b0, delta, a, b):
    """Its label of 0 is that of 1: a0 XOR b0 is reached with two zeros, where XOR is 0. Leave delta out."""
    return a0 ^ b0 ^ delta, a ^ b


def evaluates_with_delta(a0, b0, delta, a, b):
    """It puts delta into the active label; who evaluates does not know it, and with it would know both labels."""
    return a0 ^ b0, a ^ b ^ delta


def puts_delta_in_both(a0, b0, delta, a, b):
    """It puts delta into both results; they fit, but who evaluates does not know delta, and neither needs it."""
    return a0 ^ b0 ^ delta, a ^ b ^ delta


def decodes_the_inputs(a0, b0, delta, a, b):
    """It finds the bits of a and b with what the garbler knows, and picks a label; who evaluates has a and b alone."""
    bit = (bytes(a) != bytes(a0)) ^ (bytes(b) != bytes(b0))
    return a0 ^ b0, a0 ^ b0 ^ (delta if bit else 0)


def draws_a_new_label(a0, b0, delta, a, b):
    """It draws the output's label, which nobody can reach from a and b without a table; XOR of labels needs none."""
    return random_labels(1)[0], a ^ b


def hashes_the_labels(a0, b0, delta, a, b):
    """It mixes labels, as a hash does: delta does not come out as delta, and two zeros alone reach a valid label."""
    return hashed(a0, b0), hashed(a, b)


def adds_the_labels(a0, b0, delta, a, b):
    """It adds bytes; sums carry, so that delta does not come out as delta, and delta twice is not nothing. Use `^`."""
    return a0 + b0, a + b


def takes_either(a0, b0, delta, a, b):
    """It takes OR of labels, `|`, which forgets where both have a bit; XOR is `^`."""
    return a0 | b0, a | b


def takes_both(a0, b0, delta, a, b):
    """It takes AND of labels, `&`, which forgets where one has a bit; XOR is `^`."""
    return a0 & b0, a & b


def copies_a_wire(a0, b0, delta, a, b):
    """It passes on the first wire, and the output is its bit, whatever the second one has; XOR both labels."""
    return a0, a


def gives_the_label_of_0_to_both(a0, b0, delta, a, b):
    """Its active label is the label of 0 always; the label that is reached must follow the bits, so use a and b."""
    return a0 ^ b0, a0 ^ b0


def swaps_the_results(a0, b0, delta, a, b):
    """It returns the active label first; first comes the label of 0, from a0 and b0."""
    return a ^ b, a0 ^ b0


def garbles_active_labels(a0, b0, delta, a, b):
    """Its label of 0 depends on a and b; a circuit is garbled before anybody has chosen a bit."""
    return a ^ b, a ^ b


KINDS = (
    inverts_the_output,
    evaluates_with_delta,
    puts_delta_in_both,
    decodes_the_inputs,
    draws_a_new_label,
    hashes_the_labels,
    adds_the_labels,
    takes_either,
    takes_both,
    copies_a_wire,
    gives_the_label_of_0_to_both,
    swaps_the_results,
    garbles_active_labels,
)


# --- how an answer is judged


def wires() -> list[dict]:
    """Fresh labels, and active ones of each two bits."""
    return [labeled(*bits) for bits in product((True, False), repeat=2)]


def labeled(x: bool, y: bool) -> dict[str, np.ndarray]:
    """Two wires with their active labels."""
    a0, b0, delta = random_labels(3)
    delta[0] |= 1
    return {"a0": a0, "b0": b0, "delta": delta, "a": a0 ^ x * delta, "b": b0 ^ y * delta}


def labels_of(answer: Callable, case: dict[str, np.ndarray]) -> Labels:
    """Both labels.

    Raises:
        Fault: it returns no two labels.
    """
    result = put(answer, **case)
    try:
        label, active = result
    except (TypeError, ValueError) as error:
        raise Fault("It does not return two labels; end with `return c0, c`.") from error
    return as_label(label), as_label(active)


def as_label(value: object) -> np.ndarray:
    """Sixteen bytes, as an array or as bytes.

    Raises:
        Fault: it is something else.
    """
    label = np.frombuffer(value, np.uint8) if isinstance(value, bytes | bytearray) else value
    if not isinstance(label, np.ndarray) or label.dtype != np.uint8 or label.shape != (LABEL,):
        raise Fault(f"One of its labels is {describe(value)}; expected uint8 of shape ({LABEL},), or {LABEL} bytes.")
    return label


def xor_gate(answer: Callable, **case: np.ndarray) -> float:
    """`RIGHT`, `UNKNOWN` or the number of a kind of failure.

    The answer is called for other active labels, for who evaluates the labels of another garbler, and with those of two
    zeros: so it shows on what its results depend.
    """
    label, active = labels_of(answer, case)
    if not np.array_equal(label, labels_of(answer, case)[0]):
        return kind(draws_a_new_label, KINDS)
    other = labeled(True, False)
    for_others, for_other_labels = labels_of(answer, case | {name: other[name] for name in ("a", "b")})
    by_others = labels_of(answer, case | {name: other[name] for name in ("a0", "b0", "delta")})[1]
    alone = np.array_equal(label, for_others) and np.array_equal(active, by_others)
    if alone and np.array_equal(active, label ^ output_bit(**case) * case["delta"]):
        return RIGHT
    found = first_alike(lambda each: same((label, active), labels_of(each, case)), KINDS, KINDS)
    of_zeros = labels_of(answer, case | {"a": case["a0"], "b": case["b0"]})[1]
    mixed = alone and np.array_equal(of_zeros, label) and not np.array_equal(active, for_other_labels)
    return kind(hashes_the_labels, KINDS) if found == UNKNOWN and mixed else found


def output_bit(a0, b0, delta, a, b) -> bool:
    """The XOR of the bits behind active labels."""
    return np.array_equal(a, a0) != np.array_equal(b, b0)


def no_label_of_the_output(result: np.ndarray, **case: np.ndarray) -> str:
    """What is known of a failure of no kind."""
    x, y = (int(not np.array_equal(case[name], case[f"{name}0"])) for name in "ab")
    return (
        f"With labels of {x} and {y}, who evaluates must reach the first result{' XOR delta' if x != y else ''}, from "
        "a and b alone; and the first result must not depend on them."
    )


garbled_xor = Exercise(
    chapter=CHAPTER,
    task=r"""
        **A gate without a table.** In a garbled circuit with free XOR the label of 1 is on every wire that of 0, XOR
        the same secret $\Delta$:

        $$W^1 = W^0 \oplus \Delta.$$

        Who garbles knows $A^0$, $B^0$ and $\Delta$, and computes a suitable label $C^0$ of the output. Who evaluates
        holds two active labels, $A$ and $B$, does not know of which bits, and must reach the output's label of $a
        \oplus b$: $C^0$ or $C^0 \oplus \Delta$.

        Write `my_garbled_xor(a0, b0, delta, a, b)`. It does the work of both: it returns $C^0$, from the garbler's
        `a0`, `b0` and `delta`, and the active label of the output, from `a` and `b` alone. No hash is needed, and no
        message.
    """,
    solution=my_garbled_xor,
    truth=right,
    cases=wires,
    tested="fresh labels for each two bits; who evaluates also meets the labels of another garbler",
    hints=(
        "Write $A = A^0 \\oplus a \\Delta$ and $B$ alike. What is $A \\oplus B$?",
        "What is left of $\\Delta$ if it is in both, in one, in none? Choose $C^0$ such that this is just right.",
    ),
    mistakes=KINDS,
    call=xor_gate,
    look=no_label_of_the_output,
)

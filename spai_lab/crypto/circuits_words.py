r"""Arithmetic as circuits: numbers of k bits modulo $2^k$, signed ones in two's complement.

| circuit | AND gates | why |
|---|---|---|
| x + y | k - 1 | one a carry; the last one is dropped |
| x - y | k - 1 | $x + \bar y + 1$ |
| -x | k - 2 | $\bar x + 1$ |
| x < y | k | the carry out of $x + \bar y + 1$ |
| max(x, 0) | k - 1 | no bit if the sign is set |
| s ? x : y | k | $y_i \oplus s (x_i \oplus y_i)$ |
| max of K | 2 k (K - 1) | a comparison and a choice for each that leaves |

Functions in the upper half take a `Builder` and words, lists of its wires, the least significant bit first; with them
other circuits are made. Those in the lower half are circuits.
"""

from collections.abc import Sequence

from spai_lab.checks import check_count
from spai_lab.crypto.circuits import Bit, Builder, Circuit
from spai_lab.crypto.circuits_bits import check_width
from spai_lab.crypto.paillier_keys import check_whole

Word = Sequence[Bit]

# --- words ------------------------------------------------------------------------------------------------------------


def add_bits(builder: Builder, a: Bit, b: Bit, carry: Bit) -> tuple[Bit, Bit]:
    r"""Sum and carry of three bits: $a \oplus b \oplus c$, and their majority $c \oplus (a \oplus c)(b \oplus c)$."""
    difference = builder.xor(a, carry)
    both = builder.and_(difference, builder.xor(b, carry))
    return builder.xor(difference, b), builder.xor(carry, both)


def add_words(builder: Builder, x: Word, y: Word, *, carry: Bit = False) -> list[Bit]:
    """x + y + carry modulo 2^k."""
    total = []
    for a, b in zip(x, y, strict=True):
        bit, carry = add_bits(builder, a, b, carry)
        total.append(bit)
    return total


def invert_word(builder: Builder, x: Word) -> list[Bit]:
    r"""$\bar x = -x - 1$: each bit inverted."""
    return [builder.inv(a) for a in x]


def subtract_words(builder: Builder, x: Word, y: Word) -> list[Bit]:
    """x - y modulo 2^k."""
    return add_words(builder, x, invert_word(builder, y), carry=True)


def negate_word(builder: Builder, x: Word) -> list[Bit]:
    """-x modulo 2^k."""
    return add_words(builder, invert_word(builder, x), [False] * len(x), carry=True)


def less_words(builder: Builder, x: Word, y: Word, *, signed: bool = True) -> Bit:
    """x < y, exactly, also where x - y leaves the range: signed numbers are moved by half of it first."""
    if signed:
        x, y = ([*word[:-1], builder.inv(word[-1])] for word in (x, y))
    carry = True
    for a, b in zip(x, invert_word(builder, y), strict=True):
        _, carry = add_bits(builder, a, b, carry)
    return builder.inv(carry)


def choose_word(builder: Builder, bit: Bit, x: Word, y: Word) -> list[Bit]:
    """x if the bit is set, else y."""
    chosen = []
    for a, b in zip(x, y, strict=True):
        # known bits fold: two equal ones need no gate, and no wire that is always 0
        difference = a != b if isinstance(a, bool) and isinstance(b, bool) else builder.xor(a, b)
        chosen.append(builder.xor(b, builder.and_(bit, difference)))
    return chosen


def relu_word(builder: Builder, x: Word) -> list[Bit]:
    """max(x, 0) of a signed number."""
    positive = builder.inv(x[-1])
    return [*(builder.and_(a, positive) for a in x[:-1]), False]


def best_word(builder: Builder, words: Sequence[Word], *, signed: bool = True) -> tuple[list[Bit], list[Bit]]:
    """The largest of K words, and the first place where it stands, as a word of enough bits: a knockout in rounds."""
    width = index_bits(len(words))
    left = [(list(word), [bool(place >> i & 1) for i in range(width)]) for place, word in enumerate(words)]
    while len(left) > 1:
        winners = []
        for (x, i), (y, j) in zip(left[::2], left[1::2], strict=False):
            second = less_words(builder, x, y, signed=signed)
            winners.append((choose_word(builder, second, y, x), choose_word(builder, second, j, i)))
        left = winners + left[len(winners) * 2 :]
    return left[0]


def index_bits(count: int) -> int:
    """How many bits the places 0 to count - 1 need, at least 1.

    >>> [index_bits(count) for count in (1, 2, 3, 4, 5, 10)]
    [1, 1, 2, 2, 3, 4]
    """
    return max(1, (count - 1).bit_length())


# --- circuits ---------------------------------------------------------------------------------------------------------


def adder(bits: int) -> Circuit:
    r"""$x + y \bmod 2^k$, with one AND gate for each carry.

    Args:
        bits: k, from 1 to 64.
    Returns:
        a circuit of x and y, k bits each, to their sum.
    Raises:
        ValueError: names the argument.
    Reference: Kolesnikov, Sadeghi and Schneider 2009, "Improved garbled circuit building blocks and applications to
        auctions and computing minima", IACR 2009/411: addition, comparison and minimum for free XOR.
    Survey: private AI, cryptography, multi-party computation.

    >>> import numpy as np
    >>> from spai_lab.crypto.circuits import evaluate_plain
    >>> from spai_lab.crypto.circuits_bits import from_bits, to_bits
    >>> x, y = to_bits([200, 3], 8), to_bits([100, -1], 8)
    >>> from_bits(evaluate_plain(adder(8), np.hstack([x, y])))
    array([44,  2], dtype=uint64)
    """
    builder = word_builder(bits, 2)
    return builder.circuit(add_words(builder, *builder.inputs))


def subtractor(bits: int) -> Circuit:
    r"""$x - y \bmod 2^k$, of x and y; else as `adder`.

    >>> subtractor(8)
    Circuit of 16 bits to 8: 27 XOR, 7 AND, 11 INV
    """
    builder = word_builder(bits, 2)
    return builder.circuit(subtract_words(builder, *builder.inputs))


def negation(bits: int) -> Circuit:
    r"""$-x \bmod 2^k$, of x: two's complement; else as `adder`.

    >>> negation(8).ands
    6
    """
    builder = word_builder(bits, 1)
    return builder.circuit(negate_word(builder, *builder.inputs))


def less_than(bits: int, *, signed: bool = True) -> Circuit:
    """Whether x < y, one bit, of x and y, two signed numbers unless `signed=False`; else as `adder`.

    >>> less_than(8).ands
    8
    """
    builder = word_builder(bits, 2)
    return builder.circuit([less_words(builder, *builder.inputs, signed=signed)])


def relu(bits: int) -> Circuit:
    """max(x, 0) of a signed number x; else as `adder`.

    >>> relu(8).ands
    7
    """
    builder = word_builder(bits, 1)
    return builder.circuit(relu_word(builder, *builder.inputs))


def maximum(count: int, bits: int) -> Circuit:
    """The largest of K signed numbers; else as `adder`.

    Args:
        count: K, at least 1.
        bits: k, from 1 to 64.

    >>> maximum(10, 8).ands == 2 * 8 * 9
    True
    """
    builder = word_builder(bits, count)
    largest, _ = best_word(builder, builder.inputs)
    return builder.circuit(largest)


def argmax(count: int, bits: int) -> Circuit:
    """The first place, from 0, of the largest of K signed numbers; else as `maximum`.

    >>> argmax(10, 8)
    Circuit of 80 bits to 4: 329 XOR, 143 AND, 126 INV
    """
    builder = word_builder(bits, count)
    _, place = best_word(builder, builder.inputs)
    return builder.circuit(place)


def shared_relu(bits: int, *, pool: int = 1, places: int = 0, result_bits: int | None = None) -> Circuit:
    r"""What stands between two layers on additive shares: $\lfloor \max(0, x^1, \dots, x^m) / 2^g \rfloor - r$.

    The inputs are the first party's shares of m numbers and a random r, then the second party's shares. The first party
    keeps r as its share of the result, the second gets the rest. A shift is no gate: wires are left out.

    Args:
        bits: k, from 1 to 64; sums are modulo $2^k$ and taken as signed.
        pool: m, of how many numbers the largest is taken; 1 for ReLU alone.
        places: g, binary places that go, from 0 to k - 1.
        result_bits: of r and of the result, which are modulo 2 to this power; None takes k.
    Returns:
        a circuit of m numbers of k bits, r, and m numbers more, to one number.
    Raises:
        ValueError: names the argument.
    Reference: Liu, Juuti, Lu and Asokan 2017 (MiniONN), IACR 2017/452; Mohassel and Zhang 2017
        (SecureML), IACR 2017/396.
    Survey: private AI, cryptography, multi-party computation.

    >>> shared_relu(32).ands == 3 * 31
    True
    >>> shared_relu(32, pool=4, places=8).ands == 4 * 31 + 3 * 2 * 32 + 2 * 31 - 2 * 8  # 8 low bits cost less
    True
    """
    check_count("pool", pool)
    check_width(bits)
    check_whole("places", places, 0, bits - 1)
    width = bits if result_bits is None else result_bits
    check_width(width)
    builder = Builder(*[bits] * pool, width, *[bits] * pool)
    first, mask, second = builder.inputs[:pool], builder.inputs[pool], builder.inputs[pool + 1 :]
    sums = [add_words(builder, x, y) for x, y in zip(first, second, strict=True)]
    largest = relu_word(builder, best_word(builder, sums)[0])
    kept = [*largest[places:], *[False] * width][:width]
    return builder.circuit(subtract_words(builder, kept, mask))


def shared_argmax(count: int, bits: int) -> Circuit:
    """The place of the largest of K sums of additive shares: of K numbers of one party, then K of the other.

    Args:
        count: K, at least 1.
        bits: k, from 1 to 64; sums are modulo 2^k and taken as signed.
    Returns:
        a circuit of 2 K numbers to one place.
    Raises:
        ValueError: names the argument.
    Reference: as `adder`.
    Survey: private AI, cryptography, multi-party computation.

    >>> shared_argmax(10, 32).ands - argmax(10, 32).ands == 10 * 31
    True
    """
    check_count("count", count)
    builder = word_builder(bits, 2 * count)
    pairs = zip(builder.inputs[:count], builder.inputs[count:], strict=True)
    _, place = best_word(builder, [add_words(builder, x, y) for x, y in pairs])
    return builder.circuit(place)


def word_builder(bits: int, count: int) -> Builder:
    """A builder whose inputs are so many numbers of so many bits."""
    check_width(bits)
    check_count("count", count)
    return Builder(*[bits] * count)

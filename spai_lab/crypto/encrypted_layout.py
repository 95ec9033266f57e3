r"""What a client and a server agree on before a small encrypted network: sizes, parameters, and what stands where.

The network is d - h - K with a square between (`spai_lab.crypto.encrypted_mlp`). Both compute the layout, by
`layout_of`, which says beforehand, not in the middle, whether the chain is long enough and the ciphertext wide enough.
Needed are three levels and the slots of `needed_slots`, which `recommended_context` has, and keys for
`Layout.rotations`.

Reference: Brutzkus, Elisha and Gilad-Bachrach 2018, "Low latency privacy preserving inference" (LoLa), arXiv
1812.10659, for copies of the input stacked in one ciphertext. Survey: private AI, homomorphic encryption.
"""

from dataclasses import dataclass

from spai_lab.checks import check_count
from spai_lab.crypto.ckks_ciphertext import check_type
from spai_lab.crypto.ckks_context import SECURE_BITS, Context, ckks_context

LEVELS = 3  # the first matrix, the square, the second matrix
BITS = (30,) * (LEVELS + 1)
SPECIAL_BITS = 30


@dataclass(frozen=True)
class Layout:
    """Where everything stands in the slots; public. `layout_of` makes and checks it."""

    inputs: int
    hidden: int
    classes: int
    slots: int

    @property
    def D(self) -> int:
        """d, rounded up to a power of two."""
        return power_of_two(self.inputs)

    @property
    def H(self) -> int:
        """h, rounded up to a power of two: the rows."""
        return power_of_two(self.hidden)

    @property
    def B(self) -> int:
        """The columns."""
        return self.slots // self.H

    @property
    def neighbors(self) -> list[list[int]]:
        """The two groups of rotations that sum D neighbors."""
        return groups(self.D, 1)

    @property
    def rows(self) -> list[list[int]]:
        """The two groups that sum all rows, column by column."""
        return groups(self.H, self.B)

    @property
    def rotations(self) -> tuple[int, ...]:
        """The steps that the client has to make keys for, with `rotation_keys`."""
        return tuple(sorted({step for group in (*self.neighbors, *self.rows) for step in group} - {0}))


def power_of_two(n: int) -> int:
    """The next one, from n on."""
    return 1 << (n - 1).bit_length()


def groups(count: int, stride: int) -> list[list[int]]:
    """Two groups of rotations whose sums, one after the other, are the sum of `count` slots, a power of two.

    >>> groups(16, 1)
    [[0, 1, 2, 3], [0, 4, 8, 12]]
    """
    baby = 1 << (count.bit_length() - 1) // 2
    return [[stride * j for j in range(baby)], [stride * baby * i for i in range(count // baby)]]


def needed_slots(inputs: int, hidden: int, classes: int) -> int:
    """K columns, each with D - 1 neighbors to its right, in each of H rows; all powers of two."""
    for name, size in (("inputs", inputs), ("hidden", hidden), ("classes", classes)):
        check_count(name, size)
    return power_of_two(hidden) * power_of_two(power_of_two(inputs) + classes - 1)


def recommended_context(inputs: int, hidden: int, classes: int) -> Context:
    """Parameters for such a network: four primes of 30 bits for three levels, the least degree, 128-bit security.

    Args:
        inputs: d, pixels of an image.
        hidden: h.
        classes: K.
    Returns:
        the context; the last prime keeps the logits, and they are not rescaled, so that they keep one more.
    Raises:
        ValueError: the network is too wide for one ciphertext of the largest degree.

    >>> print(recommended_context(64, 32, 10))
    CKKS: N = 8,192, 4,096 slots, chain 30 + 30 + 30 + 30 bits and a special prime of 30, 150 bits in all (128-bit
    security); 3 levels, scale 2^30
    """
    slots, bits = needed_slots(inputs, hidden, classes), sum(BITS) + SPECIAL_BITS
    for degree, secure in SECURE_BITS.items():
        if degree >= 2 * slots and secure >= bits:
            return ckks_context(degree, BITS, special_bits=SPECIAL_BITS)
    raise ValueError(
        f"inputs, hidden and classes are {inputs}, {hidden} and {classes}, which takes {slots:,} slots; accepted: at "
        f"most {max(SECURE_BITS) // 2:,} for one ciphertext"
    )


def layout_of(context: Context, inputs: int, hidden: int, classes: int) -> Layout:
    """What goes where; both parties compute it. It says at once if the network is too deep or too wide.

    Args:
        context: of `recommended_context`, or another with three levels.
        inputs: d, pixels of an image.
        hidden: h.
        classes: K.
    Returns:
        the layout, with the rotations that it needs.
    Raises:
        ValueError: names the argument; a chain that is too short for the network, too few slots.

    >>> layout_of(recommended_context(64, 32, 10), 64, 32, 10).rotations
    (1, 2, 3, 4, 5, 6, 7, 8, 16, 24, 32, 40, 48, 56, 128, 256, 384, 512, 1024, 1536, 2048, 2560, 3072, 3584)
    """
    check_type("context", context, Context)
    slots = needed_slots(inputs, hidden, classes)
    if context.levels < LEVELS:
        raise ValueError(
            f"context has a chain with room for {context.levels} products, and the network has {LEVELS} in sequence: "
            f"its first matrix, the square, its second matrix; accepted: at least {LEVELS + 1} primes, as bits of "
            "ckks_context, or a network with fewer layers"
        )
    if context.slots < slots:
        raise ValueError(f"context has {context.slots:,} slots; accepted: at least {slots:,} for this network")
    return Layout(inputs, hidden, classes, context.slots)


def check_layout(layout: Layout, context: Context) -> None:
    """Raise `ValueError` unless the layout is one of this context."""
    check_type("layout", layout, Layout)
    if layout.slots != context.slots:
        raise ValueError(f"layout is for {layout.slots:,} slots; accepted: {context.slots:,}, those of the context")

r"""One encrypted image through a convolution and linear layers: what both parties agree on, and what stands where.

The network is that of `spai_lab.crypto.cryptonets.fold`: a convolution, then linear layers, a square before each. The
convolution reads n pixels at each of its places; in CryptoNets' network n = 25 and there are 144 places for 5 maps, so
that 720 numbers come out of it. The client sends n ciphertexts: the i-th holds, in the slot of each of these numbers,
the i-th pixel that it reads. Then n products of whole ciphertexts are the convolution, without a rotation.

What is where is free then, and is chosen for the layer that follows, $y_k = \sum_j W_{kj} v_j$ for k < m and j < n. Cut
the S slots into blocks of B, and let block f hold p of the inputs, again and again: slot B f + c holds $v_j$ with
$j = p f + (c \bmod p)$. So slot B f + k and the p - 1 after it hold these p inputs, whatever k is, and

$\sum_{t < p} w_t \circ \rho_t(v), \quad (w_t)_s = W_{k(s), \, j(s + t)},$

with k(s) = s mod B and j(s) the input in slot s, is in slot B f + k the share of block f in $y_k$. The sum over all
blocks, all the way round, leaves $y_k$ in each slot of $s \bmod B = k$. Of 4,096 slots, B = 128 and p = 23 hold 720
inputs and 100 outputs: 22 rotations of one ciphertext, and the sum of 32 blocks. Next, with the inputs again every B
slots, $k(s) = s \bmod B'$ for a smaller power of two B', p = B', and the sum over B / B' blocks.

Reference: Brutzkus, Elisha and Gilad-Bachrach 2018, "Low latency privacy preserving inference" (LoLa), arXiv
1812.10659, for a ciphertext for each pixel of the window; Juvekar, Vaikuntanathan and Chandrakasan 2018, "GAZELLE",
arXiv 1801.05507, for diagonals whose rows are fewer than their columns. Survey: private AI, homomorphic encryption.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spai_lab.checks import describe
from spai_lab.crypto.ckks_ciphertext import check_type
from spai_lab.crypto.ckks_context import SECURE_BITS, Context, ckks_context
from spai_lab.crypto.cryptonets import Layer
from spai_lab.crypto.cryptonets_plan import check_layers, cryptonets_plan
from spai_lab.crypto.encrypted_layout import SPECIAL_BITS, groups, power_of_two
from spai_lab.crypto.ntt import read_only

PRIME_BITS = 30


@dataclass(frozen=True)
class LinearLayout:
    """How a linear layer is computed: m outputs of n inputs, p steps in blocks of B slots, which are then summed.

    `dealt` are the inputs of the first linear layer, p to each block; those of others come again every `period` slots.
    """

    inputs: int
    outputs: int
    slots: int
    period: int
    block: int
    steps: int
    dealt: bool

    @property
    def columns(self) -> np.ndarray:
        """j(s), the input that each slot holds; -1 for none."""
        s = np.arange(self.slots)
        j = self.steps * (s // self.block) + s % self.block % self.steps if self.dealt else s % self.period
        return np.where(j < self.inputs, j, -1)

    @property
    def rows(self) -> np.ndarray:
        """k(s), the output that each slot adds to, and holds in the end; -1 for none."""
        k = np.arange(self.slots) % self.block
        return np.where(k < self.outputs, k, -1)

    @property
    def blocks(self) -> list[list[int]]:
        """The two groups of rotations that sum the blocks."""
        return groups(self.period // self.block, self.block)

    @property
    def rotations(self) -> set[int]:
        """The steps that keys are needed for."""
        return {*range(1, self.steps), *(step for group in self.blocks for step in group if step)}


@dataclass(frozen=True, eq=False)
class CnnLayout:
    """Where everything stands; public. `cnn_layout` makes it.

    `windows`, `(G, n)`, are the pixels that the convolution reads at each of its places, `maps` how many numbers it
    gives there.
    """

    windows: np.ndarray
    maps: int
    linear: tuple[LinearLayout, ...]

    def __post_init__(self) -> None:
        read_only(self.windows)

    @property
    def pixels(self) -> int:
        """The least that an image must have."""
        return int(self.windows.max()) + 1

    @property
    def slots(self) -> int:
        """S, of a ciphertext."""
        return self.linear[0].slots

    @property
    def classes(self) -> int:
        """K."""
        return self.linear[-1].outputs

    @property
    def rotations(self) -> tuple[int, ...]:
        """The steps that the client has to make keys for, with `rotation_keys`."""
        return tuple(sorted(set().union(*(layer.rotations for layer in self.linear))))


def recommended_cnn_context(layers: Sequence[Layer]) -> Context:
    """Parameters for such a network: primes of 30 bits, two for each layer, the least degree, 128-bit security.

    Each layer but the last and each square takes one away; the logits are not rescaled, so that they keep two.

    Args:
        layers: of `spai_lab.crypto.cryptonets.fold`.
    Returns:
        the context.
    Raises:
        ValueError: names the argument; the network is too deep or too wide for the largest degree.

    >>> from spai_lab.crypto.cryptonets import cryptonet, fold
    >>> print(recommended_cnn_context(fold(cryptonet())))
    CKKS: N = 8,192, 4,096 slots, chain 30 + 30 + 30 + 30 + 30 + 30 bits and a special prime of 30, 210 bits in all
    (128-bit security); 5 levels, scale 2^30
    """
    check_network(layers)
    bits = (PRIME_BITS,) * (2 * len(layers))
    for degree, secure in SECURE_BITS.items():
        if secure >= sum(bits) + SPECIAL_BITS and first_blocks(layers, degree // 2):
            return ckks_context(degree, bits, special_bits=SPECIAL_BITS)
    deepest = (max(SECURE_BITS.values()) - SPECIAL_BITS) // (2 * PRIME_BITS)
    raise ValueError(
        f"layers is a network of {len(layers)}, with {sizes_of(layers)} numbers; accepted: what N = "
        f"{max(SECURE_BITS):,} has primes and slots for, {deepest} layers at most"
    )


def cnn_layout(context: Context, layers: Sequence[Layer]) -> CnnLayout:
    """What goes where; both parties compute it. It says at once if the network is too deep or too wide.

    Args:
        context: of `recommended_cnn_context`, or another with as many levels.
        layers: of `spai_lab.crypto.cryptonets.fold`: two or more, of which the first alone may be a convolution. Only
            their sizes and the windows matter, not the weights.
    Returns:
        the layout, with the rotations that it needs.
    Raises:
        ValueError: names the argument; a chain that is too short for the network, too few slots.

    >>> from spai_lab.crypto.cryptonets import cryptonet, fold
    >>> layers = fold(cryptonet())
    >>> layout = cnn_layout(recommended_cnn_context(layers), layers)
    >>> [(layer.block, layer.steps, layer.blocks) for layer in layout.linear[1:]]
    [(16, 16, [[0, 16], [0, 32, 64, 96]])]
    >>> len(layout.rotations)
    35
    """
    check_type("context", context, Context)
    check_network(layers)
    needed = 2 * len(layers) - 1
    if context.levels < needed:
        raise ValueError(
            f"context has a chain with room for {context.levels} products, and the network has {needed} in sequence: "
            f"{len(layers)} layers, with a square between each two; accepted: at least {needed + 1} primes, as bits of "
            "ckks_context, or a network with fewer layers"
        )
    slots, first, *rest = context.slots, *layers
    found = first_blocks(layers, slots)
    if not found:
        raise ValueError(f"context has {slots:,} slots; accepted: more, for a network with {sizes_of(layers)} numbers")
    block, steps = found
    linear = [LinearLayout(first.outputs, rest[0].outputs, slots, slots, block, steps, dealt=True)]
    for layer in rest[1:]:
        period, block = block, power_of_two(layer.outputs)
        linear.append(LinearLayout(linear[-1].outputs, layer.outputs, slots, period, block, block, dealt=False))
    return CnnLayout(first.reads, len(first.W), tuple(linear))


def first_blocks(layers: Sequence[Layer], slots: int) -> tuple[int, int] | None:
    """B and p of the first linear layer, the smallest that fit: m + p - 1 slots in a block, of which later layers need
    no more than B for their outputs.
    """
    inputs, outputs = layers[0].outputs, layers[1].outputs
    block = power_of_two(max(layer.outputs for layer in layers[1:]))
    while block <= slots:
        steps = -(-inputs * block // slots)
        if outputs + steps - 1 <= block:
            return block, steps
        block *= 2
    return None


def sizes_of(layers: Sequence[Layer]) -> str:
    """How many numbers each layer gives."""
    return ", ".join(f"{layer.outputs:,}" for layer in layers)


# --- checks -----------------------------------------------------------------------------------------------------------


def check_network(layers: Sequence[Layer]) -> None:
    """Raise `ValueError` unless these are two layers or more that fit each other, the first alone with places."""
    check_layers(layers, cryptonets_plan(8, insecure=True))  # any plan
    if len(layers) < 2:
        raise ValueError(f"layers is {describe(layers)}; accepted: two or more, with a square between each two")
    for depth, layer in enumerate(layers[1:], start=1):
        if len(layer.reads) > 1:
            raise ValueError(f"layers[{depth}] reads at {len(layer.reads)} places; accepted: 1, but for layers[0]")


def check_cnn_layout(layout: CnnLayout, context: Context) -> None:
    """Raise `ValueError` unless the layout is one of this context."""
    check_type("layout", layout, CnnLayout)
    if layout.slots != context.slots:
        raise ValueError(f"layout is for {layout.slots:,} slots; accepted: {context.slots:,}, those of the context")

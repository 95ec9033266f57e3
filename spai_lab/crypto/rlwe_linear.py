r"""A dense layer or a convolution as one product of polynomials: no rotation, no packing into slots.

A product of polynomials is a convolution already. With an input of C channels, H rows and W columns at
$x(X) = \sum x_{c,i,j} X^{c H W + i W + j}$ and a filter of one map, k x k, turned around,

$w(X) = \sum w_{c,u,v} X^{o - c H W - u W - v}, \qquad o = (C - 1) H W + (k - 1) (W + 1),$

coefficient $o + i W + j$ of $x w$ is $\sum_{c,u,v} x_{c,i+u,j+v} w_{c,u,v}$: only there do the exponents meet, as
$c H W + (i + u) W + (j + v)$ spells a place in the input in one way. The filter of map m is moved up by $m C H W$, so
that several maps share a product while $M C H W \le N$. What passes $X^N$ comes back at coefficients below o, where
nobody looks. A dense layer is the case H = W = k = 1: row m stands at $(m + 1) C - 1$.

If the channels do not fit N coefficients, groups of them do, each in a ciphertext, and products are added.

The other coefficients of the product are sums of inputs and weights too. They must not be shown: see
`spai_lab.crypto.hybrid_inference`.

Reference: Huang, Lu, Hong and Ding 2022, "Cheetah: lean and fast secure two-party deep neural network inference",
IACR 2022/207, section 3. Survey: private AI, cryptography, multi-party computation.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from spai_lab.checks import describe_kind
from spai_lab.crypto.ckks_ciphertext import check_type
from spai_lab.crypto.fixed_network import Stage
from spai_lab.crypto.rlwe import Ciphertext, Plain, add, multiply_plain, plain
from spai_lab.crypto.rlwe_scheme import Scheme


@dataclass(frozen=True)
class Layout:
    """Where the numbers of a stage stand in polynomials; `stage_layout` makes it.

    Args:
        degree: N.
        channels: of the whole input; a dense layer's inputs are channels of one pixel.
        sides: rows H and columns W of a channel.
        kernel: k; 1 for a dense layer.
        maps: of the whole output.
        group: C, channels in one ciphertext of the input.
        block: M, maps in one ciphertext of the output.
    """

    degree: int
    channels: int
    sides: tuple[int, int]
    kernel: int
    maps: int
    group: int
    block: int

    @property
    def groups(self) -> int:
        """Ciphertexts of an input."""
        return math.ceil(self.channels / self.group)

    @property
    def blocks(self) -> int:
        """Ciphertexts of an output."""
        return math.ceil(self.maps / self.block)

    @property
    def pixels(self) -> int:
        """H W."""
        return math.prod(self.sides)

    @property
    def offset(self) -> int:
        """o, where the first output stands."""
        return (self.group - 1) * self.pixels + (self.kernel - 1) * (self.sides[1] + 1)

    @property
    def wanted(self) -> np.ndarray:
        """The coefficients that are outputs, `(M, P)`."""
        rows, columns = (np.arange(side - self.kernel + 1) for side in self.sides)
        places = self.offset + (rows[:, None] * self.sides[1] + columns).reshape(-1)
        return np.arange(self.block)[:, None] * (self.group * self.pixels) + places


def stage_layout(stage: Stage, degree: int) -> Layout:
    """How a stage is laid out: as many channels in a ciphertext as fit, in groups of one size, then as many maps.

    Args:
        stage: whose shapes count; its weights do not.
        degree: N.
    Returns:
        the layout.
    Raises:
        ValueError: a channel has more pixels than N.

    >>> conv = Stage(np.zeros((16, 25), int), np.zeros(16, int), (1, 28, 28), kernel=5)
    >>> layout = stage_layout(conv, 4096)
    >>> layout.groups, layout.block, layout.blocks
    (1, 5, 4)
    """
    check_type("stage", stage, Stage)
    channels, *sides = stage.shape
    sides = tuple(sides) or (1, 1)
    if math.prod(sides) > degree:
        raise ValueError(f"stage has channels of {math.prod(sides):,} pixels; accepted: up to N = {degree:,}")
    groups = math.ceil(channels / (degree // math.prod(sides)))
    group = math.ceil(channels / groups)
    maps = len(stage.weight)
    block = min(maps, degree // (group * math.prod(sides)))
    return Layout(degree, channels, sides, stage.kernel or 1, maps, group, block)


def input_polynomials(layout: Layout, x: np.ndarray) -> np.ndarray:
    """The coefficients of an input, `(groups, N)`, of uint64 `(C, H, W)` or `(K,)`, zeros after them."""
    if not isinstance(x, np.ndarray) or x.dtype != np.uint64 or x.size != layout.channels * layout.pixels:
        raise ValueError(f"x is {describe_kind(x)}; accepted: uint64 of {layout.channels} x {layout.sides}")
    padded = np.zeros((layout.groups * layout.group, layout.pixels), np.uint64)
    padded[: layout.channels] = x.reshape(layout.channels, layout.pixels)
    polynomials = np.zeros((layout.groups, layout.degree), np.uint64)
    polynomials[:, : layout.group * layout.pixels] = padded.reshape(layout.groups, -1)
    return polynomials


def weight_polynomials(layout: Layout, weight: np.ndarray) -> np.ndarray:
    """The coefficients of a stage's weights, int64 `(blocks, groups, N)`, of int64 `(maps, channels k k)`."""
    maps, k = (layout.blocks, layout.block), layout.kernel
    filters = np.zeros((math.prod(maps), layout.groups * layout.group, k, k), np.int64)
    filters[: layout.maps, : layout.channels] = weight.reshape(layout.maps, layout.channels, k, k)
    filters = filters.reshape(*maps, layout.groups, -1).swapaxes(1, 2)  # (blocks, groups, M, C k k)
    c, u, v = np.ogrid[: layout.group, :k, :k]
    back = (c * layout.pixels + u * layout.sides[1] + v).reshape(-1)
    places = layout.offset - back + np.arange(layout.block)[:, None] * (layout.group * layout.pixels)
    polynomials = np.zeros((layout.blocks, layout.groups, layout.degree), np.int64)
    polynomials[:, :, places] = filters
    return polynomials


def outputs_of(layout: Layout, coefficients: np.ndarray) -> np.ndarray:
    """The outputs, `(maps, P)`, among the wanted coefficients of all blocks, `(blocks, M, P)`."""
    return coefficients.reshape(-1, coefficients.shape[-1])[: layout.maps]


def product_norms(layout: Layout, weight: np.ndarray) -> list[int]:
    r"""$\sum |w|$ of each block over all groups: by how much the noise grows."""
    return [int(each) for each in np.abs(weight_polynomials(layout, weight)).sum((1, 2))]


def encoded_weights(scheme: Scheme, layout: Layout, weight: np.ndarray) -> list[list[Plain]]:
    """A stage's weights, ready to multiply by: one a block and group; made once for all images."""
    return [[plain(scheme, each) for each in block] for block in weight_polynomials(layout, weight)]


def encrypted_products(inputs: Sequence[Ciphertext], weights: Sequence[Sequence[Plain]]) -> list[Ciphertext]:
    r"""A linear layer on an encrypted input: for each block $\sum_g x_g w_{b,g}$.

    Args:
        inputs: encrypted `input_polynomials`, one a group.
        weights: of `encoded_weights`.
    Returns:
        a ciphertext a block, with outputs at the `wanted` coefficients of the layout, and secrets at the others.
    Raises:
        ValueError: names the argument.
    Reference: Huang, Lu, Hong and Ding 2022 (Cheetah), IACR 2022/207.
    Survey: private AI, cryptography, multi-party computation.

    >>> from spai_lab.crypto.rlwe import decrypt, encrypt, secret_key
    >>> from spai_lab.crypto.rlwe_scheme import rlwe_scheme
    >>> scheme = rlwe_scheme(8, degree=8, insecure=True)
    >>> secret, stage = secret_key(scheme), Stage(np.array([[1, 2], [3, -4]]), np.zeros(2, int), (2,))
    >>> layout = stage_layout(stage, 8)
    >>> x = [encrypt(secret, m) for m in input_polynomials(layout, np.array([10, 1], np.uint64))]
    >>> (product,) = encrypted_products(x, encoded_weights(scheme, layout, stage.weight))
    >>> outputs_of(layout, decrypt(secret, product)[None, layout.wanted]).ravel().tolist()
    [12, 26]
    """
    if any(len(block) != len(inputs) for block in weights):
        raise ValueError(f"inputs holds {len(inputs)}; accepted: as many ciphertexts as the weights have groups")
    return [reduce(add, map(multiply_plain, inputs, block)) for block in weights]

r"""A network in whole numbers: what two parties can compute exactly, and what their result is compared with.

Shares and BFV know whole numbers only. So a value v travels as $\lfloor v \, 2^f \rceil$ and a weight as
$\lfloor w \, 2^g \rceil$. Their product has $f + g$ binary places; after each layer but the last, g of them go again.

| layer | what is computed |
|---|---|
| `Stage`, dense or convolution | $z = W x + b$, a matrix product; a convolution multiplies each of its `windows` |
| between two stages | the largest of each `pool` x `pool` square, $\max(z, 0)$, and $\lfloor z / 2^g \rfloor$ |

Largest, ReLU and rounding down never change the order of two numbers, so that it does not matter which comes first; the
pool does, as it leaves fewer numbers. `limits` bounds every z for all images in [0, 1], from the weights alone. Whoever
chooses a ring beyond twice that bound cannot see a number wrap around, whatever the image.

Reference: Liu, Juuti, Lu and Asokan 2017, "MiniONN", IACR 2017/452, for its network for MNIST.
Survey: private AI, cryptography, multi-party computation.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from spai_lab.checks import check_images, describe
from spai_lab.crypto.paillier_keys import check_whole
from spai_lab.crypto.secret_sharing_ring import decode, encode, to_signed
from spai_lab.models import Shape, check_shape

ACCEPTED = "Flatten, Conv2d and Linear with a bias, MaxPool2d before or after ReLU, and no layer that normalizes"


@dataclass(frozen=True, eq=False)
class Stage:
    """A linear layer in whole numbers and how what follows it pools.

    Args:
        weight: W, int64 `(M, K)`; of a convolution, K counts a window's entries: channels, rows, columns.
        bias: b, int64 `(M,)`.
        shape: of the input, `(K,)` or `(C, H, W)`.
        kernel: rows and columns of a window; 0 for a dense layer.
        pool: side of the squares of which the largest number stays; 1 for none.
    """

    weight: np.ndarray
    bias: np.ndarray
    shape: tuple[int, ...]
    kernel: int = 0
    pool: int = 1

    @property
    def places(self) -> int:
        """How many windows there are, P; 1 for a dense layer."""
        return math.prod(side - self.kernel + 1 for side in self.shape[1:]) if self.kernel else 1

    @property
    def outputs(self) -> tuple[int, ...]:
        """The shape after the pool: `(M,)` or `(M, rows, columns)`."""
        sides = [(side - self.kernel + 1) // self.pool for side in self.shape[1:]] if self.kernel else []
        return (len(self.weight), *sides)


@dataclass(frozen=True, eq=False)
class FixedNetwork:
    """Stages and binary places; `fixed_network` makes one of a trained model.

    Args:
        stages: the linear layers, in order, with an activation between any two.
        value_places: f, of pixels and activations.
        weight_places: g.
    """

    stages: tuple[Stage, ...]
    value_places: int
    weight_places: int

    @property
    def logit_places(self) -> int:
        """Binary places of the logits: f + g."""
        return self.value_places + self.weight_places


# --- from a model ---------------------------------------------------------------------------------------------------


def fixed_network(model: nn.Module, shape: Shape, *, value_places: int = 6, weight_places: int = 9) -> FixedNetwork:
    r"""A trained model's weights in whole numbers: $W = \lfloor w \, 2^g \rceil$, $b = \lfloor b \, 2^{f+g} \rceil$.

    Args:
        model: Conv2d and Linear layers in sequence, ReLU between any two, MaxPool2d beside it; pixels in [0, 1] come in
            as they are.
        shape: `(C, H, W)` of an image.
        value_places: f, from 0 to 20.
        weight_places: g, from 0 to 20.
    Returns:
        the network in whole numbers.
    Raises:
        ValueError: names the argument, or the layers that cannot be computed so.

    >>> from spai_lab.crypto.relu_networks import minionn_network
    >>> network = fixed_network(minionn_network(), (1, 28, 28))
    >>> [stage.outputs for stage in network.stages]
    [(16, 12, 12), (16, 4, 4), (100,), (10,)]
    """
    check_shape(shape, 2)
    f, g = (
        check_whole(name, places, 0, 20)
        for name, places in (("value_places", value_places), ("weight_places", weight_places))
    )
    stages, shape = [], tuple(shape)
    for linear, pool in linear_layers(model):
        kernel = linear.kernel_size[0] if isinstance(linear, nn.Conv2d) else 0
        weight = to_signed(encode(linear.weight.detach().flatten(1), g))
        shape = shape if kernel else (math.prod(shape),)
        fan_in = shape[0] * kernel**2 if kernel else shape[0]
        if weight.shape[1] != fan_in or any(side - kernel + 1 < pool for side in shape[1:]):
            raise ValueError(f"model has {linear}, which does not fit an input of shape {shape}")
        stages.append(Stage(weight, to_signed(encode(linear.bias.detach(), f + g)), shape, kernel, pool))
        shape = stages[-1].outputs
    return FixedNetwork(tuple(stages), f, g)


def linear_layers(model: nn.Module) -> list[tuple[nn.Conv2d | nn.Linear, int]]:
    """The linear layers of a model, each with the side of the squares that are pooled after it."""
    layers = [layer for layer in model if not isinstance(layer, nn.Flatten)] if isinstance(model, nn.Sequential) else []
    found = []
    for layer, before in zip(layers, [None, *layers], strict=False):
        if plain_linear(layer) and (before is None or not plain_linear(before)):
            found.append([layer, 1, 0])
        elif isinstance(layer, nn.ReLU) and found and not found[-1][2]:
            found[-1][2] = 1
        elif isinstance(layer, nn.MaxPool2d) and found and found[-1][1] == 1 and plain_pool(layer):
            found[-1][1] = layer.kernel_size
        else:
            raise ValueError(f"model has {layer}, there; accepted: {ACCEPTED}")
    if not found or found[-1][1:] != [1, 0] or not all(activated for *_, activated in found[:-1]):
        raise ValueError(f"model is {type(model).__name__} of {len(layers)} layers; accepted: {ACCEPTED}")
    return [(linear, pool) for linear, pool, _ in found]


def plain_linear(layer: nn.Module) -> bool:
    """Whether this is a linear layer that a matrix product, or one of windows, computes."""
    if isinstance(layer, nn.Conv2d):
        ones = layer.stride == layer.dilation == (1, 1) and layer.padding == (0, 0) and layer.groups == 1
        return ones and layer.bias is not None and len(set(layer.kernel_size)) == 1
    return isinstance(layer, nn.Linear) and layer.bias is not None


def plain_pool(pool: nn.MaxPool2d) -> bool:
    """Whether this takes the largest of squares side by side."""
    return isinstance(pool.kernel_size, int) and pool.stride == pool.kernel_size and pool.padding == 0


# --- in whole numbers -------------------------------------------------------------------------------------------------


def windows(x: np.ndarray, stage: Stage) -> np.ndarray:
    """The columns that a stage's matrix multiplies: all windows of an image, or of a share of one.

    Args:
        x: whole numbers `(N, ...)`, of any integer type, of the stage's shape.
        stage: whose kernel cuts.
    Returns:
        `(N, K, P)`.
    """
    if not stage.kernel:
        return x.reshape(len(x), -1, 1)
    cut = np.lib.stride_tricks.sliding_window_view(x, (stage.kernel, stage.kernel), axis=(2, 3))
    return np.ascontiguousarray(cut.transpose(0, 1, 4, 5, 2, 3)).reshape(len(x), -1, stage.places)


def squares(z: np.ndarray, stage: Stage) -> np.ndarray:
    """What a pool compares: `(N, M, P)` to `(N, outputs, pool^2)`; rows and columns that fill no square are left out.

    >>> z = np.arange(9).reshape(1, 1, 9)
    >>> squares(z, Stage(np.ones((1, 4)), np.zeros(1), (1, 4, 4), kernel=2, pool=2)).tolist()
    [[[0, 1, 3, 4]]]
    """
    if not stage.kernel:
        return z.reshape(len(z), -1, 1)
    maps, rows, columns = stage.outputs
    p = stage.pool
    sides = [side - stage.kernel + 1 for side in stage.shape[1:]]
    whole = z.reshape(len(z), maps, *sides)[:, :, : rows * p, : columns * p]
    cut = whole.reshape(len(z), maps, rows, p, columns, p).transpose(0, 1, 2, 4, 3, 5)
    return np.ascontiguousarray(cut).reshape(len(z), maps * rows * columns, p * p)


def fixed_images(network: FixedNetwork, x: Tensor) -> np.ndarray:
    r"""Images as whole numbers $\lfloor x \, 2^f \rceil$, int64, like x.

    Args:
        network: whose f and first shape count.
        x: images `(N, C, H, W)` in [0, 1].
    Returns:
        int64 `(N, ...)` of the first stage's shape.
    Raises:
        ValueError: names the argument.
    """
    check_images(x)
    first = network.stages[0].shape
    if len(x) == 0 or math.prod(x.shape[1:]) != math.prod(first):
        raise ValueError(f"x is {describe(x)}; accepted: at least one image of shape {first}")
    return to_signed(encode(x.detach(), network.value_places)).reshape(len(x), *first)


def fixed_logits(network: FixedNetwork, x: Tensor) -> np.ndarray:
    """The network in whole numbers, in the clear: what two parties must meet.

    Args:
        network: of `fixed_network`.
        x: images `(N, C, H, W)` in [0, 1].
    Returns:
        logits as whole numbers, int64 `(N, K)`; `to_logits` has the fractions.
    Raises:
        ValueError: names the argument.

    >>> from spai_lab.crypto.relu_networks import relu_network
    >>> model = relu_network(generator=torch.Generator().manual_seed(0))
    >>> x = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    >>> fixed = fixed_logits(fixed_network(model, (1, 8, 8), value_places=12, weight_places=12), x)
    >>> bool(np.abs(fixed * 2.0**-24 - model(x).detach().numpy()).max() < 0.01)
    True
    """
    values = fixed_images(network, x)
    for stage in network.stages[:-1]:
        z = stage.weight @ windows(values, stage) + stage.bias[:, None]
        values = np.maximum(squares(z, stage).max(-1), 0) >> network.weight_places
        values = values.reshape(len(values), *stage.outputs)
    last = network.stages[-1]
    return (last.weight @ windows(values, last) + last.bias[:, None])[:, :, 0]


def to_logits(network: FixedNetwork, whole: np.ndarray) -> Tensor:
    r"""Logits $k \, 2^{-f-g}$, float64, of whole numbers, int64 `(N, K)`."""
    return torch.from_numpy(decode(whole.view(np.uint64), network.logit_places))


def limits(network: FixedNetwork) -> list[int]:
    r"""The largest $|z|$ in each stage for any image in [0, 1], from the weights alone.

    Inputs of a stage lie in $[0, u]$, so that $z \le b + \sum_j W_j^+ u_j$ and $z \ge b - \sum_j W_j^- u_j$. The next u
    is what ReLU and rounding leave of the first.

    Args:
        network: of `fixed_network`.
    Returns:
        a whole number a stage; a ring of more than $\log_2$ of twice the largest holds all.

    >>> limits(FixedNetwork((Stage(np.array([[3, -5]]), np.array([1]), (2,)),), 2, 0))  # at (4, 0) and (0, 4)
    [19]
    """
    upper = np.full((1, *network.stages[0].shape), 2**network.value_places)
    found = []
    for stage in network.stages:
        columns = windows(upper, stage)
        high = np.maximum(stage.weight, 0) @ columns + stage.bias[:, None]
        low = np.minimum(stage.weight, 0) @ columns + stage.bias[:, None]
        found.append(int(max(np.abs(high).max(), np.abs(low).max())))
        upper = np.maximum(squares(high, stage).max(-1), 0) >> network.weight_places
        upper = upper.reshape(1, *stage.outputs)
    return found


def ring_bits(network: FixedNetwork) -> int:
    r"""The smallest l for which no z of any image leaves $[-2^{l-1}, 2^{l-1})$.

    >>> ring_bits(FixedNetwork((Stage(np.array([[3, -5]]), np.array([1]), (2,)),), 2, 0))
    6
    """
    return max(limits(network)).bit_length() + 1

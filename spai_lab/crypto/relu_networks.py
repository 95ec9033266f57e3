"""Two networks with ReLU that two parties evaluate: one for raw digits, and MiniONN's for MNIST.

Pixels come in as they are, without normalization: what the first layer multiplies is what the client has.

Survey: private AI, cryptography, multi-party computation.
"""

import math

import torch
from torch import nn

from spai_lab.models import Shape, check_shape, initialized


def relu_network(
    shape: Shape = (1, 8, 8), classes: int = 10, *, hidden: int = 32, generator: torch.Generator | None = None
) -> nn.Module:
    """One hidden layer of ReLU, for raw digits; as in `spai_lab.crypto.square_network`, but for the square.

    >>> relu_network()(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """
    check_shape(shape, classes)
    with torch.device("meta"):
        layers = [nn.Flatten(), nn.Linear(math.prod(shape), hidden), nn.ReLU(), nn.Linear(hidden, classes)]
    return initialized(layers, generator)


def minionn_network(
    shape: Shape = (1, 28, 28), classes: int = 10, *, generator: torch.Generator | None = None
) -> nn.Module:
    """MiniONN's network for MNIST: two convolutions of 16 maps, 5 x 5, each pooled 2 x 2, then 100 units.

    Args:
        shape: `(C, H, W)` of an input, at least 16 x 16.
        classes: number of classes K, at least 2.
        generator: draws the first weights; None draws a fresh one.
    Returns:
        `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
    Raises:
        ValueError: names the argument.
    Reference: Liu, Juuti, Lu and Asokan 2017, "MiniONN", IACR 2017/452, figure 12.

    >>> sum(p.numel() for p in minionn_network().parameters())
    33542
    """
    check_shape(shape, classes, smallest=16)
    channels, *sides = shape
    features = 16 * math.prod(((side - 4) // 2 - 4) // 2 for side in sides)
    with torch.device("meta"):
        layers = [
            *[nn.Conv2d(channels, 16, 5), nn.ReLU(), nn.MaxPool2d(2)],
            *[nn.Conv2d(16, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()],
            *[nn.Linear(features, 100), nn.ReLU(), nn.Linear(100, classes)],
        ]
    return initialized(layers, generator)

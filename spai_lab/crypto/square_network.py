r"""A network that an encryption can follow, d - h - K: two matrices, and a square between them instead of a ReLU.

$z(x) = W_2 \, (W_1 x + b_1)^2 + b_2$ takes sums and three products in sequence and nothing else, which is all that CKKS
can do. `spai_lab.crypto.encrypted_mlp` evaluates it on an image that it cannot see; here it is trained, in the clear.
The server's bookkeeping needs to know how large a hidden value can become: `worst_limits` holds for any image, and
`measured_limits` only for images like those that it has seen.

Reference: Gilad-Bachrach et al. 2016, "CryptoNets", for the square. Survey: private AI, homomorphic encryption.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spai_lab.checks import check_count, check_images, check_number, describe
from spai_lab.crypto.polynomials import SQUARE, PolynomialActivation
from spai_lab.models import Shape, check_shape, initialized
from spai_lab.training.loop import fit


@dataclass(frozen=True, eq=False)
class SquareWeights:
    """The weights alone, float64: W1 `(h, d)`, b1 `(h,)`, W2 `(K, h)`, b2 `(K,)`; `weights_of` takes them from a model.

    Raises:
        ValueError: shapes that do not fit, or weights that are not finite.
    """

    W1: Tensor
    b1: Tensor
    W2: Tensor
    b2: Tensor

    def __post_init__(self) -> None:
        for name in ("W1", "b1", "W2", "b2"):
            value = getattr(self, name)
            plain = isinstance(value, Tensor) and value.dtype == torch.float64 and not value.requires_grad
            if not plain or value.numel() == 0:
                raise ValueError(f"{name} is {describe(value)}; accepted: a float64 tensor that needs no gradient")
            if not value.isfinite().all():
                raise ValueError(f"{name} has {(~value.isfinite()).sum()} entries that are not finite; accepted: none")
        if self.W1.ndim != 2 or self.W2.ndim != 2:
            raise ValueError(f"W1 is {describe(self.W1)}, W2 {describe(self.W2)}; accepted: (h, d) and (K, h)")
        (h, _), (K, inner) = self.W1.shape, self.W2.shape
        if (self.b1.shape, self.b2.shape, inner) != ((h,), (K,), h):
            shapes = [tuple(value.shape) for value in (self.W1, self.b1, self.W2, self.b2)]
            raise ValueError(f"W1, b1, W2, b2 have the shapes {shapes}; accepted: (h, d), (h,), (K, h), (K,)")

    @property
    def sizes(self) -> tuple[int, int, int]:
        """d, h, K: what both parties may know of the network."""
        return self.W1.shape[1], self.W1.shape[0], self.W2.shape[0]


# --- training ---------------------------------------------------------------------------------------------------------


def square_network(
    shape: Shape = (1, 8, 8), classes: int = 10, *, hidden: int = 32, generator: torch.Generator | None = None
) -> nn.Module:
    """One hidden layer whose activation is the square.

    Args:
        shape: `(C, H, W)` of an input.
        classes: number of classes K, at least 2.
        hidden: number of hidden units h.
        generator: draws the first weights; None draws a fresh one.
    Returns:
        `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
    Raises:
        ValueError: names the argument.
    Reference: Gilad-Bachrach et al. 2016, "CryptoNets".

    >>> square_network()(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """
    check_shape(shape, classes)
    check_count("hidden", hidden)
    with torch.device("meta"):
        layers = [nn.Flatten(), nn.Linear(math.prod(shape), hidden), PolynomialActivation(), nn.Linear(hidden, classes)]
    return initialized(layers, generator)


def train_square_network(
    x: Tensor, y: Tensor, *, hidden: int = 32, epochs: int = 30, generator: torch.Generator | None = None
) -> nn.Module:
    """Train one, in a second on the raw digits; weight decay keeps its hidden values small, which saves room later.

    Args:
        x: images, float `(N, C, H, W)` in [0, 1].
        y: labels `(N,)`, int64, from 0.
        hidden: number of hidden units h.
        epochs: passes over the data.
        generator: draws the first weights and the batches; None draws a fresh one.
    Returns:
        the trained model.
    Raises:
        ValueError: names the argument.

    >>> from spai_lab.data import load
    >>> from spai_lab.training import accuracy
    >>> data = load("digits", raw=True)
    >>> model = train_square_network(data.x_train, data.y_train, generator=torch.Generator().manual_seed(0))
    >>> accuracy(model, data.x_test, data.y_test) > 0.94
    True
    """
    check_images(x)
    model = square_network(x.shape[1:], max(2, int(y.max()) + 1), hidden=hidden, generator=generator)
    settings = {"epochs": epochs, "batch_size": 64, "learning_rate": 0.01, "weight_decay": 0.1, "progress": False}
    fit(model, x, y, generator=generator, **settings)
    return model.eval()


def weights_of(model: nn.Module) -> SquareWeights:
    """The weights of a `square_network`, to be encoded.

    Args:
        model: Flatten, Linear, the square as a PolynomialActivation, Linear, in sequence.
    Returns:
        copies in float64.
    Raises:
        ValueError: other layers, or weights that are not finite.

    >>> weights_of(square_network()).sizes
    (64, 32, 10)
    """
    layers = list(model) if isinstance(model, nn.Sequential) else [model]
    kinds = [type(layer).__name__ for layer in layers]
    if kinds != ["Flatten", "Linear", "PolynomialActivation", "Linear"]:
        raise ValueError(
            f"model has the layers {', '.join(kinds)}; accepted: Flatten, Linear, PolynomialActivation, Linear"
        )
    if layers[2].coefficients != SQUARE:
        raise ValueError(f"model has the activation {layers[2]}; accepted: the square")
    first, second = layers[1], layers[3]
    if first.bias is None or second.bias is None:
        raise ValueError("model has a layer without a bias; accepted: Linear layers with one, of zeros if need be")
    return SquareWeights(*(p.detach().double().clone() for p in (first.weight, first.bias, second.weight, second.bias)))


# --- in the clear -----------------------------------------------------------------------------------------------------


def hidden_values(weights: SquareWeights, x: Tensor) -> Tensor:
    r"""$W_1 x + b_1$ for images `(N, ...)` of d pixels each: `(N, h)`, float64."""
    check_images(x)
    d = weights.sizes[0]
    if x[0].numel() != d:
        raise ValueError(f"x has {x[0].numel()} pixels an image; accepted: {d}, as W1 has columns")
    return x.detach().flatten(1).double() @ weights.W1.T + weights.b1


def square_logits(weights: SquareWeights, x: Tensor) -> Tensor:
    r"""$W_2 \, (W_1 x + b_1)^2 + b_2$ in the clear, in float64: what the encrypted evaluation must meet.

    Args:
        weights: of d - h - K.
        x: images `(N, ...)` of d pixels in [0, 1].
    Returns:
        logits `(N, K)`.
    Raises:
        ValueError: names the argument.

    >>> one = torch.ones(1, 1, dtype=torch.float64)
    >>> square_logits(SquareWeights(3 * one, one[0], one, one[0]), torch.ones(1, 1)).item()  # (3 + 1)^2 + 1
    17.0
    """
    return hidden_values(weights, x) ** 2 @ weights.W2.T + weights.b2


def worst_limits(weights: SquareWeights) -> Tensor:
    r"""The largest $|h_i|$ that any image in [0, 1] can cause: no image can exceed them.

    $\max\left(\sum_j W_{ij}^+ + b_i, \; \sum_j W_{ij}^- - b_i\right)$, with the positive and the negative parts of
    the weights.

    >>> W1 = torch.tensor([[2.0, -3.0]], dtype=torch.float64)
    >>> one = torch.ones(1, dtype=torch.float64)
    >>> worst_limits(SquareWeights(W1, one / 2, one[None], one)).item()  # at x = (0, 1): -3 + 1/2
    2.5
    """
    up, down = weights.W1.clamp(min=0).sum(1), weights.W1.clamp(max=0).sum(1)
    return torch.maximum((up + weights.b1).abs(), (down + weights.b1).abs())


def measured_limits(weights: SquareWeights, x: Tensor, *, margin: float = 1.25) -> Tensor:
    """The largest hidden values that these images cause, times a margin: tighter, and another image may exceed them.

    They become public constants, so measure them beforehand, on training images, and never on the one to be answered.

    Args:
        weights: of d - h - K.
        x: images `(N, ...)` of d pixels in [0, 1], N at least 1.
        margin: at least 1.
    Returns:
        float64 `(h,)`, at most `worst_limits`.
    Raises:
        ValueError: names the argument.
    """
    check_number("margin", margin, low=1)
    if len(x) == 0:
        raise ValueError("x has no images; accepted: at least one")
    return torch.minimum(margin * hidden_values(weights, x).abs().amax(0), worst_limits(weights))

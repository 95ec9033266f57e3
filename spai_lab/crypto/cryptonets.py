r"""CryptoNets: a network of sums and products alone, so that it can read encrypted images, one in each slot.

Convolution, square, linear, square, linear: sums with public weights, and two products of ciphertexts in sequence.
Here it is built, trained and folded into plain weights; `spai_lab.crypto.cryptonets_encrypted` computes it on
ciphertexts. Folded, a network is a few `Layer`s with a square between each two, and nothing else: normalization goes
into the first layer, and any activation of degree 2 is a square, shifted and stretched, which the layers around absorb.

Reference: Gilad-Bachrach, Dowlin, Laine, Lauter, Naehrig and Wernsing 2016, "CryptoNets: applying neural networks to
encrypted data with high throughput and accuracy". Survey: private AI, homomorphic encryption.
"""

import math
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from spai_lab.checks import check_count, check_number, describe
from spai_lab.crypto.ntt import read_only
from spai_lab.crypto.polynomials import SQUARE, Coefficients, PolynomialActivation, bounded, with_activations
from spai_lab.data import Dataset
from spai_lab.models import Normalize, Shape, check_shape, initialized
from spai_lab.threat import fresh_generator
from spai_lab.training import History, fit
from spai_lab.training.recipes import Shift

KERNEL, STRIDE = 5, 2


@dataclass(frozen=True, eq=False)
class Layer:
    r"""Weighted sums of groups of inputs: $y_{g m + k} = \sum_i W_{ki} x_{r_{gi}} + b_k$ for each group g.

    `reads` r, `(G, n)`, says which inputs a group reads: a convolution has a group for each place, all with the same
    weights; a linear layer has one group, which reads all. W is `(m, n)`, b `(m,)`, and the outputs are G m, which are
    trusted to stay within `limit` in size; infinity trusts nothing, and takes what the weights allow.
    """

    reads: np.ndarray
    W: np.ndarray
    b: np.ndarray
    limit: float = math.inf

    def __post_init__(self) -> None:
        read_only(self.reads)
        read_only(self.W)
        read_only(self.b)

    @property
    def outputs(self) -> int:
        """G m."""
        return len(self.reads) * len(self.W)

    @property
    def inputs(self) -> int:
        """The largest input that is read, and one."""
        return int(self.reads.max()) + 1


# --- the network and its training -------------------------------------------------------------------------------------


def cryptonet(
    shape: Shape = (1, 28, 28),
    classes: int = 10,
    *,
    maps: int = 5,
    units: int | None = 100,
    coefficients: Coefficients = SQUARE,
    interval: float = 4.0,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """CryptoNets' network: a convolution (5 x 5, every second pixel), and two linear layers, with squares between them.

    Args:
        shape: `(C, H, W)` of an input, at least 5 x 5.
        classes: number of classes K, at least 2.
        maps: feature maps of the convolution.
        units: of the hidden linear layer; None leaves it out, as LoLa's small network does.
        coefficients: of the activation, the square if left out.
        interval: a, above 0: activations are meant to read numbers from -a to a.
        generator: draws the first weights; None draws a fresh one.
    Returns:
        `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
    Raises:
        ValueError: names the argument.
    Reference: Gilad-Bachrach et al. 2016, "CryptoNets", the network that it predicts with; Brutzkus et al. 2018, arXiv
        1812.10659 (LoLa), for the small one.
    Simplified: no padding, and no sigmoid at the end, which does not change the class.

    >>> sum(p.numel() for p in cryptonet().parameters())
    73240
    """
    check_shape(shape, classes, smallest=KERNEL)
    check_count("maps", maps)
    if units is not None:
        check_count("units", units)
    rows, columns = ((side - KERNEL) // STRIDE + 1 for side in shape[1:])
    with torch.device("meta"):
        layers = [Normalize(), nn.Conv2d(shape[0], maps, KERNEL, stride=STRIDE)]
        layers += [PolynomialActivation(coefficients, interval), nn.Flatten()]
        width = maps * rows * columns
        if units is not None:
            layers += [nn.Linear(width, units), PolynomialActivation(coefficients, interval)]
        layers.append(nn.Linear(units or width, classes))
    return initialized(layers, generator)


def fit_cryptonet(
    model: nn.Module,
    data: Dataset,
    *,
    epochs: int = 12,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> History:
    """Train it in place, on images moved by up to a 14th of their size, so that activations stay in their interval.

    Squares of squares soon explode, so three things hold them: weight decay, a learning rate that warms up, and
    `bounded`, which punishes what leaves the interval. All settings were chosen on validation data.

    Args:
        model: of `cryptonet`.
        data: images of the model's shape; the test part is not read.
        epochs: passes over the training data; 12 for MNIST, 40 for digits.
        generator: shuffles and moves; None draws a fresh one.
        progress: show a bar with the time left.
    Returns:
        losses, validation accuracies and time.
    Raises:
        ValueError: names the argument.
        Diverged: the loss became infinite or NaN.
    """
    if not isinstance(data, Dataset):
        raise ValueError(f"data is {describe(data)}; accepted: a Dataset of images, of spai_lab.data.load")
    generator = fresh_generator(generator, data.x_train.device)
    return fit(
        model,
        data.x_train,
        data.y_train,
        epochs=epochs,
        batch_size=128 if len(data.x_train) > 10_000 else 32,
        learning_rate=4e-3,
        weight_decay=0.1,
        x_val=data.x_val,
        y_val=data.y_val,
        perturb=partial(Shift(min(data.shape[1:]) // 14), generator=generator),
        objective=bounded(),
        generator=generator,
        progress=progress,
    )


def largest_activations(model: nn.Module, x: Tensor) -> tuple[float, ...]:
    """The largest number, in size, that each activation reads on these inputs; to be compared with its interval.

    Args:
        model: of `cryptonet`.
        x: inputs `(N, C, H, W)` in [0, 1].
    Returns:
        one number for each activation.
    """
    with torch.no_grad():
        return tuple(float(read.abs().max()) for read in with_activations(model, x)[1])


# --- folding ----------------------------------------------------------------------------------------------------------


def fold(
    model: nn.Module, shape: Shape = (1, 28, 28), *, bits: int = 16, limits: tuple[float, ...] = ()
) -> tuple[Layer, ...]:
    r"""The network as weights alone: layers with a square between each two.

    What comes between is $x = \alpha v + \beta$ of an input or a square v, and goes into the weights: $W x + b =
    (\alpha W) v + (b + \beta W 1)$. So does normalization; and $c_2 z^2 + c_1 z + c_0 = c_2 (z + t)^2 + c_0 - c_2 t^2$
    with $t = c_1 / 2 c_2$ is a square of what the layer before gives with the bias $b + t$.

    Args:
        model: a sequence of `Normalize`, `nn.Conv2d` without padding, `nn.Flatten`, `nn.Linear` and
            `PolynomialActivation` of degree 2, such as `cryptonet` gives.
        shape: `(C, H, W)` of an input.
        bits: weights are rounded to multiples of $2^{-bits}$, from 1 to 50, so that encoding does not change them.
        limits: what each activation reads is trusted to stay within, in size: `largest_activations` of validation data
            and a margin. Public. Without, bounds are those of the worst image, and very wide.
    Returns:
        one layer for each convolution or linear layer.
    Raises:
        ValueError: names the argument, and the module that cannot be folded.
    Reference: Gilad-Bachrach et al. 2016, "CryptoNets", which also joins neighboring linear layers.

    >>> [layer.W.shape for layer in fold(cryptonet())]
    [(5, 25), (100, 720), (10, 100)]
    """
    if not isinstance(model, nn.Sequential):
        raise ValueError(f"model is {describe(model)}; accepted: an nn.Sequential, such as cryptonet gives")
    check_shape(shape, 2)
    check_count("bits", bits)
    check_number("bits", bits, low=1, high=50)
    if not isinstance(limits, tuple | list):
        raise ValueError(f"limits is {describe(limits)}; accepted: a tuple of numbers, one for each activation")
    for limit in limits:
        check_number("limits", limit, low=0, exclusive=True)
    layers: list[Layer] = []
    places = np.arange(math.prod(shape)).reshape(shape)  # of each entry, in what the last layer gives
    alpha, beta, open_sums = 1.0, 0.0, False
    for module in model:
        if isinstance(module, nn.Flatten):
            places = places.ravel()
        elif isinstance(module, Normalize) and not open_sums:
            alpha, beta = alpha / module.std, (beta - module.mean) / module.std
        elif isinstance(module, nn.Conv2d | nn.Linear) and not open_sums and module.bias is not None:
            reads, W, places = reading(module, places)
            b = module.bias.detach().double().numpy()
            limit = limits[len(layers)] if len(layers) < len(limits) else math.inf
            layers.append(Layer(reads, np.rint(alpha * W * 2**bits) / 2**bits, b + beta * W.sum(1), limit))
            open_sums = True
        elif isinstance(module, PolynomialActivation) and open_sums and is_quadratic(module):
            c_0, c_1, c_2 = module.coefficients
            t = c_1 / (2 * c_2)
            layers[-1] = replace(layers[-1], b=layers[-1].b + t, limit=layers[-1].limit + abs(t))
            alpha, beta, open_sums = c_2, c_0 - c_2 * t**2, False
        else:
            raise ValueError(f"model has {module} there; accepted: weights and polynomials of degree 2, by turns")
    if not open_sums:
        raise ValueError("model ends in no weights; accepted: a linear layer at the end")
    return tuple(layers)


def is_quadratic(activation: PolynomialActivation) -> bool:
    """Whether it is a square, shifted and stretched."""
    return len(activation.coefficients) == 3 and activation.coefficients[2] != 0


def reading(module: nn.Conv2d | nn.Linear, places: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which inputs each group of a layer reads, `(G, n)`, its weights, `(m, n)`, and the places of what it gives."""
    W = module.weight.detach().flatten(1).double().numpy()
    if isinstance(module, nn.Linear):
        order = np.argsort(places)  # so that inputs can be taken as they come
        return places[None, order], W[:, order], np.arange(module.out_features)
    plain = (module.padding, module.dilation, module.groups) == ((0, 0), (1, 1), 1)
    if not plain:
        raise ValueError(f"model has {module}; accepted: convolutions without padding, dilation or groups")
    windows = np.lib.stride_tricks.sliding_window_view(places, module.kernel_size, axis=(1, 2))
    windows = windows[:, :: module.stride[0], :: module.stride[1]]  # (C, rows, columns, kernel, kernel)
    rows, columns = windows.shape[1:3]
    reads = windows.transpose(1, 2, 0, 3, 4).reshape(rows * columns, -1)
    given = np.arange(rows * columns * module.out_channels).reshape(rows, columns, module.out_channels)
    return reads, W, given.transpose(2, 0, 1)


def plain_logits(layers: tuple[Layer, ...], x: Tensor | np.ndarray) -> np.ndarray:
    """What the folded network says, in float64: the truth that encrypted logits are compared with.

    Args:
        layers: of `fold`.
        x: images `(N, C, H, W)`, or rows `(N, n)`.
    Returns:
        `(N, K)`.

    >>> model, x = cryptonet(), torch.rand(3, 1, 28, 28)
    >>> bool(np.abs(plain_logits(fold(model, bits=24), x) - model(x).detach().numpy()).max() < 1e-3)
    True
    """
    values = np.asarray(x, dtype=np.float64).reshape(len(x), -1)
    for depth, layer in enumerate(layers):
        values = values**2 if depth else values
        values = (values[:, layer.reads] @ layer.W.T + layer.b).reshape(len(x), -1)
    return values


def matrix(layer: Layer, inputs: int) -> np.ndarray:
    """A layer as one matrix, `(G m, inputs)`: what bounds on its errors are computed from."""
    whole = np.zeros((len(layer.reads), len(layer.W), inputs))
    for rows, reads in zip(whole, layer.reads, strict=True):
        rows[:, reads] = layer.W
    return whole.reshape(-1, inputs)

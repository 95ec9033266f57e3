"""The victims: small networks from pixels in [0, 1] to logits, normalization inside."""

import math

import torch
from torch import Tensor, nn

from spai_lab.checks import check_choice, check_count, describe
from spai_lab.threat import fresh_generator

Shape = tuple[int, int, int]


class Normalize(nn.Module):
    """Shift and scale the pixels inside the model, so that an attack's `eps` keeps its unit outside.

    The default is the mean and standard deviation of MNIST's training pixels.

    >>> Normalize(mean=0.5, std=0.25)(torch.tensor([0.5, 1.0]))
    tensor([0., 2.])
    """

    def __init__(self, mean: float = 0.1307, std: float = 0.3081) -> None:
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std

    def extra_repr(self) -> str:
        return f"mean={self.mean}, std={self.std}"


def softmax_regression(
    shape: Shape = (1, 28, 28), classes: int = 10, *, generator: torch.Generator | None = None
) -> nn.Module:
    """Softmax regression: one linear layer, the victim whose worst case, one class against another, has a closed form.

    Args:
        shape: `(C, H, W)` of an input.
        classes: number of classes K, at least 2.
        generator: draws the first weights; None draws a fresh one.
    Returns:
        `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
    Raises:
        ValueError: names the argument.

    >>> softmax_regression()(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    check_shape(shape, classes)
    with torch.device("meta"):
        layers = [Normalize(), nn.Flatten(), nn.Linear(math.prod(shape), classes)]
    return initialized(layers, generator)


def mlp(
    shape: Shape = (1, 28, 28), classes: int = 10, *, hidden: int = 100, generator: torch.Generator | None = None
) -> nn.Module:
    """A multilayer perceptron with two hidden layers of ReLU.

    Args:
        shape: `(C, H, W)` of an input.
        classes: number of classes K, at least 2.
        hidden: units in each hidden layer.
        generator: draws the first weights; None draws a fresh one.
    Returns:
        `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
    Raises:
        ValueError: names the argument.

    >>> mlp((2, 1, 1), 2)(torch.zeros(3, 2, 1, 1)).shape
    torch.Size([3, 2])
    """
    check_shape(shape, classes)
    check_count("hidden", hidden)
    with torch.device("meta"):
        layers = [
            *[Normalize(), nn.Flatten(), nn.Linear(math.prod(shape), hidden), nn.ReLU()],
            *[nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, classes)],
        ]
    return initialized(layers, generator)


def lenet(shape: Shape = (1, 28, 28), classes: int = 10, *, generator: torch.Generator | None = None) -> nn.Module:
    """A convolutional network of LeNet-5's size, with ReLU and max-pooling.

    Args:
        shape: `(C, H, W)` of an input, at least 12 x 12.
        classes: number of classes K, at least 2.
        generator: draws the first weights; None draws a fresh one.
    Returns:
        `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
    Raises:
        ValueError: names the argument.
    Reference: LeCun et al. 1998, "Gradient-based learning applied to document recognition", section II.
    Simplified: ReLU, max-pooling and full connections between the feature maps, as is common today.

    >>> sum(p.numel() for p in lenet().parameters())
    61706
    """
    check_shape(shape, classes, smallest=12)
    channels, height, width = shape
    features = 16 * ((height // 2 - 4) // 2) * ((width // 2 - 4) // 2)
    with torch.device("meta"):
        layers = [
            *[Normalize(), nn.Conv2d(channels, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)],
            *[nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()],
            *[nn.Linear(features, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, classes)],
        ]
    return initialized(layers, generator)


def madry(shape: Shape = (1, 28, 28), classes: int = 10, *, generator: torch.Generator | None = None) -> nn.Module:
    """The MNIST network of Madry et al.: two convolutions (32 and 64 channels, 5 x 5), then 1,024 units.

    Args:
        shape: `(C, H, W)` of an input, at least 4 x 4.
        classes: number of classes K, at least 2.
        generator: draws the first weights; None draws a fresh one.
    Returns:
        `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
    Raises:
        ValueError: names the argument.
    Reference: Madry et al. 2017, arXiv 1706.06083, section 5 and its published code.
    Simplified: inputs are normalized inside, and the first weights follow PyTorch's default.

    >>> sum(p.numel() for p in madry().parameters())
    3274634
    """
    check_shape(shape, classes, smallest=4)
    channels, height, width = shape
    with torch.device("meta"):
        layers = [
            *[Normalize(), nn.Conv2d(channels, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)],
            *[nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()],
            *[nn.Linear(64 * (height // 4) * (width // 4), 1024), nn.ReLU(), nn.Linear(1024, classes)],
        ]
    return initialized(layers, generator)


def strided(shape: Shape = (1, 28, 28), classes: int = 10, *, generator: torch.Generator | None = None) -> nn.Module:
    """Two convolutions that step by two pixels, then 200 units: no pooling, so quick to train and to bound.

    Args:
        shape: `(C, H, W)` of an input, at least 4 x 4.
        classes: number of classes K, at least 2.
        generator: draws the first weights; None draws a fresh one.
    Returns:
        `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
    Raises:
        ValueError: names the argument.
    Reference: Wong and Kolter 2017, arXiv 1711.00851, section 5, the MNIST network.
    Simplified: twice as many channels and units.

    >>> sum(p.numel() for p in strided().parameters())
    662786
    """
    check_shape(shape, classes, smallest=4)
    channels, height, width = shape
    with torch.device("meta"):
        layers = [
            *[Normalize(), nn.Conv2d(channels, 32, 4, stride=2, padding=1), nn.ReLU()],
            *[nn.Conv2d(32, 64, 4, stride=2, padding=1), nn.ReLU(), nn.Flatten()],
            *[nn.Linear(64 * (height // 4) * (width // 4), 200), nn.ReLU(), nn.Linear(200, classes)],
        ]
    return initialized(layers, generator)


VICTIMS = {"softmax": softmax_regression, "mlp": mlp, "lenet": lenet, "madry": madry, "strided": strided}


def build(
    name: str, shape: Shape = (1, 28, 28), classes: int = 10, *, generator: torch.Generator | None = None
) -> nn.Module:
    """A victim by its short name, untrained.

    Args:
        name: "softmax", "mlp", "lenet", "madry" or "strided".
        shape: `(C, H, W)` of an input.
        classes: number of classes K, at least 2.
        generator: draws the first weights; None draws a fresh one.
    Returns:
        `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
    Raises:
        ValueError: names the argument.

    >>> build("mlp", (1, 8, 8))(torch.zeros(1, 1, 8, 8)).shape
    torch.Size([1, 10])
    """
    check_choice("name", name, tuple(VICTIMS))
    return VICTIMS[name](shape, classes, generator=generator)


def features(model: nn.Module, x: Tensor) -> Tensor:
    """What the last linear layer reads of each input: the features that the rest of the network has learned.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`, whose last layer is an `nn.Linear`.
        x: inputs `(N, C, H, W)` in [0, 1].
    Returns:
        `(N, D)`, differentiable in `x` and the weights.
    Raises:
        ValueError: the model has no linear layer that its answer passes.

    >>> features(mlp((2, 1, 1), 2, hidden=5), torch.zeros(3, 2, 1, 1)).shape
    torch.Size([3, 5])
    """
    linear = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    read: list[Tensor] = []
    handles = [layer.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0])) for layer in linear[-1:]]
    try:
        model(x)
    finally:
        for handle in handles:
            handle.remove()
    if not read:
        raise ValueError(f"model is {describe(model)}; accepted: one that ends in a linear layer")
    return read[-1]


def check_shape(shape: Shape, classes: int, smallest: int = 1) -> None:
    """Raise `ValueError` unless `shape` is three sizes, the last two at least `smallest`, and K is at least 2."""
    if not (isinstance(shape, tuple | list | torch.Size) and len(shape) == 3):
        raise ValueError(f"shape is {describe(shape)}; accepted: (C, H, W)")
    channels, height, width = shape
    check_count("shape[0], the channels,", channels)
    check_count("shape[1], the height,", height, low=smallest)
    check_count("shape[2], the width,", width, low=smallest)
    check_count("classes", classes, low=2)


def initialized(layers: list[nn.Module], generator: torch.Generator | None) -> nn.Module:
    r"""The layers in sequence, with PyTorch's default first weights drawn from `generator`, not from the global state.

    Weights and biases are uniform on $\pm 1 / \sqrt{m}$, with m the inputs of a unit. The layers come from the "meta"
    device, which draws nothing.
    """
    model = nn.Sequential(*layers).to_empty(device="cpu")
    generator = fresh_generator(generator, torch.device("cpu"))
    with torch.no_grad():
        for layer in model:
            if isinstance(layer, nn.Linear | nn.Conv2d):
                bound = 1 / math.sqrt(layer.weight[0].numel())
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.uniform_(-bound, bound, generator=generator)
    return model

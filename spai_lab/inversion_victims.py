r"""The victims of model inversion and of attribute inference, and the judge of what was drawn.

Those that tell people apart read pictures of any shape, so that they can be trained on digits too.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from spai_lab.checks import check_choice, check_count, check_flag, check_generator, check_images, check_number, describe
from spai_lab.data.dataset import Dataset, Tabular, stratified_split
from spai_lab.models import Shape, check_shape, initialized
from spai_lab.threat import fresh_generator
from spai_lab.training.loop import fit, shuffled

FACE_VICTIMS = ("softmax", "mlp", "dae")


def halved(data: Dataset) -> Dataset:
    """The data set with pictures of half the height and width: each pixel the mean of four.

    >>> from spai_lab.data import load
    >>> halved(load("digits")).shape
    (1, 14, 14)
    """
    parts = {f"x_{part}": F.avg_pool2d(getattr(data, f"x_{part}"), 2) for part in ("train", "val", "test")}
    return replace(data, **parts)


def sigmoid_mlp(
    shape: Shape, classes: int, *, hidden: int = 1000, generator: torch.Generator | None = None
) -> nn.Module:
    """A multilayer perceptron with one hidden layer of sigmoids, untrained.

    Args:
        shape: `(C, H, W)` of an input.
        classes: number of classes K, at least 2.
        hidden: units of the hidden layer; the paper has 3,000.
        generator: draws the first weights; None draws a fresh one.
    Returns:
        `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
    Raises:
        ValueError: names the argument.
    Reference: Fredrikson 2015, CCS, section 5.

    >>> sigmoid_mlp((1, 8, 8), 3, hidden=5)(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 3])
    """
    check_shape(shape, classes)
    check_count("hidden", hidden)
    with torch.device("meta"):
        layers = [nn.Flatten(), nn.Linear(math.prod(shape), hidden), nn.Sigmoid(), nn.Linear(hidden, classes)]
    return initialized(layers, generator)


class StackedDAE(nn.Module):
    r"""Two denoising autoencoders, one on the code of the other, and a softmax on the second code; untrained.

    $h_1 = \sigma(W_1 x + b_1), \; h_2 = \sigma(W_2 h_1 + b_2)$, and back $\hat x = \sigma(W_1^\top h_1 + b'_1), \;
    \hat h_1 = \sigma(W_2^\top h_2 + b'_2)$: the way back has the same weights.

    Args:
        shape: `(C, H, W)` of an input.
        classes: number of classes K, at least 2.
        units: numbers in the two codes.
        generator: draws the first weights; None draws a fresh one.
    Raises:
        ValueError: names the argument.
    Reference: Fredrikson 2015, CCS, section 5; Vincent et al. 2010, "Stacked denoising autoencoders", JMLR 11,
        section 3.4.

    `top` is what follows the first code, `(N, units[0])` to logits: the part that is inverted.

    >>> dae = StackedDAE((1, 8, 8), 3, units=(6, 5))
    >>> dae(torch.zeros(2, 1, 8, 8)).shape, dae.decode(dae.encode(torch.zeros(2, 1, 8, 8))).shape
    (torch.Size([2, 3]), torch.Size([2, 1, 8, 8]))
    """

    def __init__(
        self,
        shape: Shape,
        classes: int,
        *,
        units: tuple[int, int] = (1000, 300),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_shape(shape, classes)
        for count in units:
            check_count("units", count)
        generator = fresh_generator(generator, torch.device("cpu"))
        pixels = math.prod(shape)
        with torch.device("meta"):
            layers = [nn.Linear(pixels, units[0]), nn.Linear(*units), nn.Linear(units[1], classes)]
        first, second, last = initialized(layers, generator)
        for layer in (first, second):
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)
        self.shape = tuple(shape)
        self.first, self.top = first, nn.Sequential(second, nn.Sigmoid(), last)
        self.back = nn.ParameterList([torch.zeros(pixels), torch.zeros(units[0])])

    def encode(self, x: Tensor) -> Tensor:
        """The first code, `(N, units[0])` in [0, 1]."""
        return self.first(x.flatten(1)).sigmoid()

    def decode(self, code: Tensor) -> Tensor:
        """The picture that a first code stands for, `(N, C, H, W)` in [0, 1]."""
        return F.linear(code, self.first.weight.T, self.back[0]).sigmoid().view(-1, *self.shape)

    def forward(self, x: Tensor) -> Tensor:
        return self.top(self.encode(x))


def pretrain(
    dae: StackedDAE,
    x: Tensor,
    *,
    epochs: int = 60,
    corruption: float = 0.2,
    batch_size: int = 40,
    learning_rate: float = 1e-3,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> None:
    r"""Teach each autoencoder in turn, in place, to give back what it is shown with a share of the entries set to 0.

    $\min -\sum_k x_k \log \hat x_k + (1 - x_k) \log(1 - \hat x_k)$, with $\hat x$ made from $x \odot m$, where an entry
    of the mask m is 0 with the probability `corruption`; then the same for the second, on the codes of the first.

    Args:
        dae: its first two layers and their ways back are trained, the last layer stays.
        x: pictures, floating point `(N, C, H, W)` in [0, 1], N at least 1; no labels are needed.
        epochs: passes over the data, for each layer.
        corruption: the share of entries set to 0, from 0 to below 1.
        batch_size: pictures of a step.
        learning_rate: of Adam, above 0.
        generator: shuffles and draws the masks; None draws a fresh one.
        progress: show a bar with the time left.
    Raises:
        ValueError: names the argument.
    Reference: Vincent et al. 2010, "Stacked denoising autoencoders", JMLR 11, section 3.

    >>> dae = StackedDAE((1, 4, 4), 2, units=(6, 5))
    >>> pretrain(dae, torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(0)), epochs=1, progress=False)
    """
    check_images(x)
    if len(x) == 0:
        raise ValueError(f"x is {describe(x)}; accepted: at least one picture")
    for name, count in (("epochs", epochs), ("batch_size", batch_size)):
        check_count(name, count)
    check_number("corruption", corruption, low=0, high=0.99)
    check_number("learning_rate", learning_rate, low=0, exclusive=True)
    check_generator(generator, x.device)
    check_flag("progress", progress)
    generator = fresh_generator(generator, x.device)
    seen = x.flatten(1)
    bar = tqdm(total=2 * epochs, desc="autoencoders", unit="epoch", disable=not progress)
    with bar, torch.enable_grad():
        for layer, back in zip((dae.first, dae.top[0]), dae.back, strict=True):
            optimizer = torch.optim.Adam([layer.weight, layer.bias, back], lr=learning_rate)
            for _ in range(epochs):
                for batch in shuffled(seen, batch_size, generator):
                    m = torch.rand(seen[batch].shape, device=x.device, generator=generator) >= corruption
                    code = layer(seen[batch] * m).sigmoid()
                    logits = F.linear(code, layer.weight.T, back)
                    loss = F.binary_cross_entropy_with_logits(logits, seen[batch], reduction="none").sum(1).mean()
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                bar.update()
            seen = layer(seen).sigmoid().detach()


def train_face_victim(
    name: str,
    data: Dataset,
    *,
    epochs: int = 60,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> nn.Module:
    """One of the three victims of model inversion, trained on the training part of `data`.

    Args:
        name: "softmax" (softmax regression), "mlp" (1,000 hidden sigmoids) or "dae" (a stacked denoising autoencoder
            with codes of 1,000 and 300 numbers).
        data: pictures of people, or of anything else that has classes.
        epochs: passes over the data, for each autoencoder too.
        generator: draws the first weights and shuffles; None draws a fresh one.
        progress: show a bar with the time left.
    Returns:
        `(N, C, H, W)` in [0, 1] to logits `(N, K)`, in evaluation mode.
    Raises:
        ValueError: names the argument.
    Reference: Fredrikson 2015, CCS, section 5.
    Simplified: 1,000 hidden units in place of 3,000; Adam with a rate that falls to zero in place of stochastic
        gradient descent. Softmax regression starts from zeros, since its loss is convex. The first layer of the "dae"
        keeps what it learned without labels, so that its codes can still be drawn.

    >>> from spai_lab.data import load
    >>> model = train_face_victim("softmax", load("digits").first(100), epochs=1, progress=False)
    >>> model(torch.zeros(1, 1, 28, 28)).shape
    torch.Size([1, 10])
    """
    check_choice("name", name, FACE_VICTIMS)
    generator = fresh_generator(generator, torch.device("cpu"))
    settings = {"batch_size": 40, "generator": generator, "progress": progress}
    size = {"shape": data.shape, "classes": data.num_classes, "generator": generator}
    if name == "softmax":
        model = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(data.shape), data.num_classes))
        for parameter in model.parameters():
            nn.init.zeros_(parameter)
    elif name == "mlp":
        model = sigmoid_mlp(**size)
    else:
        model = StackedDAE(**size)
        pretrain(model, data.x_train, epochs=epochs, **settings)
        with torch.no_grad():
            code = model.encode(data.x_train)
        fit(model.top, code, data.y_train, epochs=epochs, learning_rate=3e-3, **settings)
        return model.eval()
    fit(model, data.x_train, data.y_train, epochs=epochs, learning_rate=1e-3, **settings)
    return model.eval()


class Standardize(nn.Module):
    """Shift and scale each picture to mean 0 and deviation 1, so that a faint drawing is seen like a strong one.

    >>> Standardize()(torch.tensor([0.1, 0.1, 0.3, 0.3]).view(1, 1, 2, 2)).flatten().round(decimals=1)
    tensor([-1., -1.,  1.,  1.])
    """

    def forward(self, x: Tensor) -> Tensor:
        deviation, mean = torch.std_mean(x, (1, 2, 3), correction=0, keepdim=True)
        return (x - mean) / deviation.clamp_min(1e-6)


def judge_network(shape: Shape, classes: int, *, generator: torch.Generator | None = None) -> nn.Module:
    """A small convolutional network that stands above contrast and brightness, untrained: an architecture of no victim.

    Args:
        shape: `(C, H, W)` of an input, at least 8 x 8.
        classes: number of classes K, at least 2.
        generator: draws the first weights; None draws a fresh one.
    Returns:
        `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
    Raises:
        ValueError: names the argument.

    >>> judge_network((1, 56, 46), 40)(torch.zeros(1, 1, 56, 46)).shape
    torch.Size([1, 40])
    """
    check_shape(shape, classes, smallest=8)
    channels, height, width = shape
    with torch.device("meta"):
        layers = [
            *[Standardize(), nn.Conv2d(channels, 16, 5, padding=2, stride=2), nn.ReLU(), nn.MaxPool2d(2)],
            *[nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()],
            *[nn.Linear(32 * ((height + 1) // 8) * ((width + 1) // 8), 128), nn.ReLU(), nn.Linear(128, classes)],
        ]
    return initialized(layers, generator)


def distorted(generator: torch.Generator) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    """The `perturb` of the judge's training: shifts, contrast, brightness, smooth and rough noise, as drawings have."""

    def perturb(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        def uniform(low: float, high: float) -> Tensor:
            return low + (high - low) * torch.rand(len(x), 1, 1, 1, generator=generator)

        def noise(divisor: int) -> Tensor:
            coarse = torch.randn(len(x), 1, *(math.ceil(s / divisor) for s in x.shape[2:]), generator=generator)
            return F.interpolate(coarse, size=x.shape[2:], mode="bilinear")

        moved = torch.roll(x, torch.randint(-2, 3, (2,), generator=generator).tolist(), (2, 3))
        changed = uniform(0.3, 1.3) * moved + uniform(-0.2, 0.2)
        return (changed + uniform(0, 0.3) * noise(4) + 0.05 * noise(1)).clamp(0, 1)

    return perturb


def train_judge(
    data: Dataset, *, epochs: int = 150, generator: torch.Generator | None = None, progress: bool = True
) -> nn.Module:
    """The judge of reconstructions, trained on the validation and test pictures, which the victim never saw.

    Args:
        data: the data set on whose training part the victim was trained; of the faces, 3 pictures a person are left.
        epochs: passes over those pictures.
        generator: draws the first weights, shuffles and distorts; None draws a fresh one. Not the victim's.
        progress: show a bar with the time left.
    Returns:
        `(N, C, H, W)` in [0, 1] to logits `(N, K)`, in evaluation mode. Its accuracy on the training pictures, which
        it never saw, says how far its word can be taken.
    Raises:
        ValueError: names the argument.

    >>> from spai_lab.data import load
    >>> train_judge(load("digits").only(0, 1), epochs=1, progress=False)(torch.zeros(1, 1, 28, 28)).shape
    torch.Size([1, 2])
    """
    generator = fresh_generator(generator, torch.device("cpu"))
    model = judge_network(data.shape, data.num_classes, generator=generator)
    x, y = torch.cat([data.x_val, data.x_test]), torch.cat([data.y_val, data.y_test])
    settings = {"epochs": epochs, "batch_size": 40, "learning_rate": 2e-3, "generator": generator}
    fit(model, x, y, perturb=distorted(generator), progress=progress, **settings)
    return model.eval()


def diabetes(classes: int = 4) -> Tabular:
    """scikit-learn's 442 diabetes patients: ten columns, and how far the disease had gone a year later, in grades.

    A third each trains the victim (members), is the attacker's own (validation) and stays outside (test). "sex" takes
    the values 0 and 1 and is the attribute that shall stay hidden.

    Args:
        classes: grades, K, with equally many patients; at least 2.
    Returns:
        the three parts; all rows span [0, 1] in every column.
    Raises:
        ValueError: names the argument.

    >>> diabetes()
    Tabular diabetes: 148 train, 147 validation, 147 test; 10 features; 4 classes
    """
    from sklearn.datasets import load_diabetes

    check_count("classes", classes, low=2)
    source = load_diabetes(scaled=False)
    low, high = source.data.min(axis=0), source.data.max(axis=0)
    x = torch.from_numpy((source.data - low) / (high - low)).float()
    bounds = np.quantile(source.target, np.arange(1, classes) / classes)
    y = torch.from_numpy(np.searchsorted(bounds, source.target)).long()
    third = len(y) // 3
    parts = stratified_split(y.numpy(), validation=third, test=third)
    return Tabular(
        "diabetes",
        tuple(source.feature_names),
        *(tensor[part] for part in parts for tensor in (x, y)),
        tuple(f"grade {k + 1}" for k in range(classes)),
        "Diabetes, by B. Efron et al. 2004, Least angle regression: scikit-learn",
    )


def tabular_mlp(
    features: int, classes: int, *, hidden: int = 200, generator: torch.Generator | None = None
) -> nn.Module:
    """A multilayer perceptron with two hidden layers of ReLU for rows of numbers, untrained.

    Args:
        features: columns D, at least 1.
        classes: number of classes K, at least 2.
        hidden: units in each hidden layer.
        generator: draws the first weights; None draws a fresh one.
    Returns:
        `(N, D)` in [0, 1] to logits `(N, K)`.
    Raises:
        ValueError: names the argument.

    >>> tabular_mlp(10, 4)(torch.zeros(2, 10)).shape
    torch.Size([2, 4])
    """
    for name, count, least in (("features", features, 1), ("classes", classes, 2), ("hidden", hidden, 1)):
        check_count(name, count, low=least)
    with torch.device("meta"):
        layers = [nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()]
        layers.append(nn.Linear(hidden, classes))
    return initialized(layers, generator)

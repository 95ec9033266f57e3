"""Small networks that learn what images look like: a generator with its critic, and autoencoders."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from spai_lab.checks import check_count, check_flag, check_generator, check_images, check_number, describe
from spai_lab.models import Shape, check_shape, initialized
from spai_lab.threat import fresh_generator, norms


def image_generator(
    shape: Shape = (1, 28, 28), *, latent: int = 32, hidden: int = 256, generator: torch.Generator | None = None
) -> nn.Module:
    """A multilayer perceptron from latent vectors to images, untrained.

    Args:
        shape: `(C, H, W)` of an image.
        latent: numbers in a latent vector.
        hidden: units in each of the two hidden layers.
        generator: draws the first weights; None draws a fresh one.
    Returns:
        `(N, latent)` to `(N, C, H, W)` in [0, 1].
    Raises:
        ValueError: names the argument.

    >>> image_generator((1, 8, 8), latent=5)(torch.zeros(2, 5)).shape
    torch.Size([2, 1, 8, 8])
    """
    check_shape(shape, 2)
    check_count("latent", latent)
    check_count("hidden", hidden)
    with torch.device("meta"):
        layers = [
            *[nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()],
            *[nn.Linear(hidden, math.prod(shape)), nn.Sigmoid(), nn.Unflatten(1, tuple(shape))],
        ]
    return initialized(layers, generator)


def critic(shape: Shape = (1, 28, 28), *, hidden: int = 256, generator: torch.Generator | None = None) -> nn.Module:
    """A multilayer perceptron that grades images, untrained: the higher, the more they look like real ones.

    Args:
        shape: `(C, H, W)` of an image.
        hidden: units in each of the two hidden layers.
        generator: draws the first weights; None draws a fresh one.
    Returns:
        `(N, C, H, W)` to any number `(N, 1)`.
    Raises:
        ValueError: names the argument.

    >>> critic((1, 8, 8))(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 1])
    """
    check_shape(shape, 2)
    check_count("hidden", hidden)
    with torch.device("meta"):
        layers = [
            *[nn.Flatten(), nn.Linear(math.prod(shape), hidden), nn.LeakyReLU(0.2)],
            *[nn.Linear(hidden, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, 1)],
        ]
    return initialized(layers, generator)


def autoencoder(
    shape: Shape = (1, 28, 28), *, pooling: bool = True, channels: int = 3, generator: torch.Generator | None = None
) -> nn.Module:
    """MagNet's autoencoders for MNIST, untrained: convolutions of 3 x 3 and sigmoids all the way.

    Args:
        shape: `(C, H, W)` of an image.
        pooling: average over 2 x 2 pixels in the middle, which forgets detail (the paper's detector I and reformer);
            False keeps the size (detector II).
        channels: feature maps of each hidden layer.
        generator: draws the first weights, as Keras and so the paper's code does; None draws a fresh one.
    Returns:
        `(N, C, H, W)` to the same shape, in [0, 1].
    Raises:
        ValueError: names the argument.
    Reference: Meng 2017, arXiv 1705.09064, table 3; Glorot and Bengio 2010, equation 16, for the first weights. With
        PyTorch's, which are smaller, a chain of sigmoids lets hardly anything through, and learns slowly or not at all.

    >>> autoencoder((1, 9, 9))(torch.zeros(2, 1, 9, 9)).shape
    torch.Size([2, 1, 9, 9])
    """
    check_shape(shape, 2)
    check_flag("pooling", pooling)
    check_count("channels", channels)
    colors, *size = shape
    with torch.device("meta"):

        def convolution(maps: int, to: int) -> list[nn.Module]:
            return [nn.Conv2d(maps, to, 3, padding=1), nn.Sigmoid()]

        half = [nn.AvgPool2d(2, ceil_mode=True), *convolution(channels, channels)]
        back = [*convolution(channels, channels), nn.Upsample(size)]
        layers = [
            *convolution(colors, channels),
            *(half + back if pooling else []),
            *convolution(channels, channels),
            *convolution(channels, colors),
        ]
    generator = fresh_generator(generator, torch.device("cpu"))
    AE = initialized(layers, generator)
    for layer in AE:
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)
    return AE


def train_generator(
    data: Tensor,
    *,
    latent: int = 32,
    hidden: int = 192,
    steps: int = 1500,
    critic_steps: int = 3,
    penalty: float = 10.0,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> nn.Module:
    r"""WGAN with a gradient penalty: a generator learns to make images that a critic cannot tell from the data.

    The critic D descends $\mathbb{E}\, D(G(z)) - \mathbb{E}\, D(x) + \lambda \, \mathbb{E}
    (\|\nabla_{\hat x} D(\hat x)\|_2 - 1)^2$ with $\hat x$ uniform between x and $G(z)$; the generator G descends
    $-\mathbb{E}\, D(G(z))$; $z \sim N(0, I)$.

    Args:
        data: training images, floating point `(N, C, H, W)` in [0, 1], N at least 1.
        latent: numbers in z.
        hidden: units in the hidden layers of both networks.
        steps: steps of the generator.
        critic_steps: steps of the critic before each of them.
        penalty: lambda, at least 0.
        batch_size: images of a step.
        learning_rate: of Adam, for both networks; falls to zero in a straight line.
        generator: draws the first weights, the images and z; None draws a fresh one.
        progress: show a bar with the time left.
    Returns:
        G, `(N, latent)` to images, in evaluation mode, its weights frozen.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Samangouei 2018, arXiv 1805.06605, section 2.3; Gulrajani et al. 2017, arXiv 1704.00028, algorithm 1.
    Simplified: multilayer perceptrons and 32 latent numbers in place of deconvolutions and 128; three steps of the
        critic in place of five; a larger step size that falls to zero, and so 1,500 steps in place of 200,000.

    >>> data = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    >>> train_generator(data, latent=2, steps=2, progress=False)(torch.zeros(3, 2)).shape
    torch.Size([3, 1, 4, 4])
    """
    check_training(data, steps, batch_size, learning_rate, generator, progress)
    check_count("critic_steps", critic_steps)
    check_number("penalty", penalty, low=0)
    generator = fresh_generator(generator, data.device)
    G = image_generator(data.shape[1:], latent=latent, hidden=hidden, generator=on_cpu(generator)).to(data)
    D = critic(data.shape[1:], hidden=hidden, generator=on_cpu(generator)).to(data)
    of_G, of_D = (torch.optim.Adam(network.parameters(), lr=1.0, betas=(0.5, 0.9)) for network in (G, D))
    falling = [torch.optim.lr_scheduler.LambdaLR(o, lambda k: learning_rate * (1 - k / steps)) for o in (of_G, of_D)]

    def generated() -> Tensor:
        return G(torch.randn(batch_size, latent, dtype=data.dtype, device=data.device, generator=generator))

    with torch.enable_grad():
        for _ in tqdm(range(steps), desc="WGAN", unit="step", disable=not progress):
            for _ in range(critic_steps):
                real, fake = batch_of(data, batch_size, generator), generated().detach()
                loss = D(fake).mean() - D(real).mean()
                descend(of_D, loss + penalty * (slopes(D, real, fake, generator) - 1).square().mean())
            descend(of_G, -D(generated()).mean())
            for schedule in falling:
                schedule.step()
    return G.requires_grad_(False).eval()


def train_autoencoder(
    data: Tensor,
    *,
    pooling: bool = True,
    channels: int = 3,
    noise: float = 0.1,
    steps: int = 800,
    batch_size: int = 64,
    learning_rate: float = 1e-2,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> nn.Module:
    r"""A denoising autoencoder: gives the clean image back, from a noisy one.

    $\min_{AE} \mathbb{E}_{x, n} \|AE(\mathrm{clip}_{[0, 1]}(x + \sigma n)) - x\|_2^2$ with $n \sim N(0, I)$.

    Args:
        data: training images, floating point `(N, C, H, W)` in [0, 1], N at least 1.
        pooling, channels: as in `autoencoder`.
        noise: sigma, in pixel units, at least 0.
        steps: steps of Adam.
        batch_size: images of a step.
        learning_rate: the first one; falls to zero in a straight line.
        generator: draws the first weights, the images and the noise; None draws a fresh one.
        progress: show a bar with the time left.
    Returns:
        AE, images to images, in evaluation mode, its weights frozen.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Meng 2017, arXiv 1705.09064, section 5.2 and table 4; noise and penalty from its published code.
    Simplified: the penalty of 1e-9 on the activity of the layers, too small to matter, is left out; the noise is drawn
        anew in each step; the step size is larger and falls to zero.

    >>> data = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    >>> train_autoencoder(data, steps=2, progress=False)(data).shape
    torch.Size([8, 1, 4, 4])
    """
    check_training(data, steps, batch_size, learning_rate, generator, progress)
    check_number("noise", noise, low=0)
    generator = fresh_generator(generator, data.device)
    AE = autoencoder(data.shape[1:], pooling=pooling, channels=channels, generator=on_cpu(generator)).to(data)
    optimizer = torch.optim.Adam(AE.parameters(), lr=1.0)
    falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: learning_rate * (1 - k / steps))
    with torch.enable_grad():
        for _ in tqdm(range(steps), desc="autoencoder", unit="step", disable=not progress):
            x = batch_of(data, batch_size, generator)
            n = torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)
            descend(optimizer, F.mse_loss(AE((x + noise * n).clamp(0, 1)), x))
            falling.step()
    return AE.requires_grad_(False).eval()


def slopes(D: nn.Module, real: Tensor, fake: Tensor, generator: torch.Generator) -> Tensor:
    r"""How steep the critic is somewhere between each pair of images: $\|\nabla D\|_2$, `(N,)`, differentiable."""
    u = torch.rand(len(real), 1, 1, 1, dtype=real.dtype, device=real.device, generator=generator)
    between = (u * real + (1 - u) * fake).requires_grad_()
    return norms(torch.autograd.grad(D(between).sum(), between, create_graph=True)[0], "l2")


def batch_of(data: Tensor, batch_size: int, generator: torch.Generator) -> Tensor:
    """Images drawn with replacement."""
    return data[torch.randint(len(data), (batch_size,), device=data.device, generator=generator)]


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step down the loss, for the weights of this optimizer alone."""
    optimizer.zero_grad()
    loss.backward(inputs=[weights for group in optimizer.param_groups for weights in group["params"]])
    optimizer.step()


def on_cpu(generator: torch.Generator) -> torch.Generator:
    """A generator on the CPU, where first weights are drawn, that follows from one on any device."""
    seed = torch.randint(2**62, (), device=generator.device, generator=generator)
    return torch.Generator().manual_seed(int(seed))


def check_training(
    data: Tensor,
    steps: int,
    batch_size: int,
    learning_rate: float,
    generator: torch.Generator | None,
    progress: bool,
) -> None:
    """Raise `ValueError` unless there are images, and each setting that both trainings share is in its range."""
    check_images(data, "data")
    if data.ndim != 4 or len(data) == 0:
        raise ValueError(f"data is {describe(data)}; accepted: images (N, C, H, W), N at least 1")
    check_count("steps", steps)
    check_count("batch_size", batch_size)
    check_number("learning_rate", learning_rate, low=0, exclusive=True)
    check_generator(generator, data.device)
    check_flag("progress", progress)

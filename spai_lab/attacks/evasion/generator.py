"""Attacks that a network has learned: once it is trained, an adversarial image costs one forward pass."""

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from spai_lab.checks import check_attack, check_count, check_flag, check_number, describe
from spai_lab.models import initialized
from spai_lab.threat import fresh_generator, input_gradient, logits_of, margin, norms, shortened, warn_of_zeros
from spai_lab.training.loop import shuffled

SMALLEST = 5  # pixels; a quarter of them must be more than one, or there is nothing to normalize


class Perturber(nn.Module):
    r"""A network whose output is added to its input, within the ball and the range by construction.

    $x' = \mathrm{clip}_{[0, 1]}(x + \delta)$, in L-inf with $\delta = \epsilon \tanh v(x)$, in L2 with $v(x)$ shortened
    to $\epsilon$; $v$ is the network.

    Args:
        network: `(N, C, H, W)` to `(N, C, H, W)`, any numbers.
        eps: radius of the ball, in pixel units of [0, 1].
        norm: "linf" or "l2".
    """

    def __init__(self, network: nn.Module, eps: float, norm: str) -> None:
        super().__init__()
        self.network, self.eps, self.norm = network, eps, norm

    def forward(self, x: Tensor) -> Tensor:
        v = self.network(x)
        delta = self.eps * v.tanh() if self.norm == "linf" else shortened(v, self.eps, self.norm)
        return (x + delta).clamp(0, 1)

    def extra_repr(self) -> str:
        return f"eps={self.eps}, norm={self.norm}"


def advgan(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    norm: str = "linf",
    targeted: bool = False,
    confidence: float = 5.0,
    gan_weight: float = 0.1,
    size_weight: float = 0.1,
    free_size: float | None = None,
    epochs: int = 10,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> nn.Module:
    r"""AdvGAN: train a network G that turns any image into an adversarial one in a single pass.

    $\min_G \max_D \; L_{adv} + \alpha L_{GAN} + \beta L_{hinge}$, with
    $L_{adv} = \mathbb{E} \max(z_y - \max_{i \ne y} z_i, -\kappa)$ at $x' = G(x)$ (the other sign for a target),
    $L_{GAN}$ how well a discriminator D tells $x'$ from $x$, and
    $L_{hinge} = \mathbb{E} \max(0, \|x' - x\|_2 - c)$.
    Without D ($\alpha = 0$) and with $c = 0$ this is a perturbation ATN: its loss asks for success, and for an image
    like the first.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`; needed only while G is trained.
        x: training images, floating point `(N, C, H, W)` in [0, 1], N at least 1.
        y: their labels `(N,)`, int64; the target classes if `targeted`, all alike, since G does not see them.
        eps: radius of the ball that G cannot leave, in pixel units of [0, 1].
        norm: "linf" or "l2".
        targeted: make the model say `y` rather than anything else.
        confidence: kappa, the margin of the logits beyond which success is no longer rewarded, at least 0.
        gan_weight: alpha, at least 0; 0 trains no discriminator.
        size_weight: beta, at least 0.
        free_size: c, the L2 size up to which a perturbation costs nothing, at least 0; None takes half of the largest
            that the ball holds.
        epochs: passes over the images.
        batch_size: images of a step.
        learning_rate: of Adam, for both networks, above 0.
        generator: draws the first weights and shuffles the images; None draws a fresh one.
        progress: show a bar with the time left.
    Returns:
        G, a module from `x` to `x_adv`, in [0, 1] and within `eps` of `x`; in evaluation mode, its weights frozen.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Xiao et al. 2018, arXiv 1801.02610, section 3.2, equations 1 to 4; Baluja and Fischer 2017,
        arXiv 1703.09387, section 2 (ATN).
    Survey: evasion, white-box.
    Simplified: the GAN loss is least squares in place of equation 1's logarithms, which is easier to train; G and D
        are a few convolutions, without residual blocks; the ball is a hard limit beside the soft one of the hinge;
        kappa is above 0, since G has to succeed on images that it has not seen; alpha and beta are ours. The ATN gets
        this loss instead of its own, which keeps the order of the classes behind the target.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    >>> x, y = torch.rand(8, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    >>> G = advgan(model, x, y, eps=0.1, epochs=1, progress=False)
    >>> bool((G(x) - x).abs().max() <= 0.1 + 1e-6)
    True
    """
    check_attack(model, x, y, eps=eps, norm=norm, targeted=targeted, gradient=input_gradient, generator=generator)
    check_advgan(x, confidence, gan_weight, size_weight, free_size, epochs, batch_size, learning_rate, progress)
    warn_of_zeros(input_gradient(model, x[:batch_size], y[:batch_size]))
    generator = fresh_generator(generator, x.device)
    largest = eps * x[0].numel() ** 0.5 if norm == "linf" else eps
    c = largest / 2 if free_size is None else free_size
    G = Perturber(encoder_decoder(x, generator), eps, norm)
    D = discriminator(x, generator)
    of_G, of_D = (torch.optim.Adam(network.parameters(), lr=learning_rate) for network in (G, D))
    sign = -1 if targeted else 1

    with torch.enable_grad(), tqdm(total=epochs, desc="advgan", unit="epoch", disable=not progress) as bar:
        for _ in range(epochs):
            for batch in shuffled(x, batch_size, generator):
                real, labels = x[batch], y[batch]
                fake = G(real)
                loss = (sign * margin(logits_of(model, fake, labels), labels)).clamp_min(-confidence).mean()
                loss = loss + size_weight * (norms(fake - real, "l2") - c).clamp_min(0).mean()
                if gan_weight:
                    descend(of_D, (D(real) - 1).square().mean() + D(fake.detach()).square().mean())
                    loss = loss + gan_weight * (D(fake) - 1).square().mean()
                descend(of_G, loss)
            bar.update()
    return G.requires_grad_(False).eval()


def encoder_decoder(x: Tensor, generator: torch.Generator) -> nn.Module:
    """Convolutions down to a quarter of the height and the width, and up again to numbers like `x`.

    Without the normalization G soon darkens every pixel, where tanh and the clip at 0 have no slope, and stays there.
    """
    channels, *size = x.shape[1:]
    half = [-(-side // 2) for side in size]
    with torch.device("meta"):
        layers = [
            *[nn.Conv2d(channels, 8, 3, stride=2, padding=1), nn.InstanceNorm2d(8), nn.ReLU()],
            *[nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.InstanceNorm2d(16), nn.ReLU()],
            *[nn.Conv2d(16, 16, 3, padding=1), nn.InstanceNorm2d(16), nn.ReLU()],
            *[nn.Upsample(half), nn.Conv2d(16, 8, 3, padding=1), nn.InstanceNorm2d(8), nn.ReLU()],
            *[nn.Upsample(size), nn.Conv2d(8, channels, 3, padding=1)],
        ]
    return like(x, layers, generator)


def discriminator(x: Tensor, generator: torch.Generator) -> nn.Module:
    """A small network that scores images like `x`: near 1 for real ones, near 0 for those of the generator."""
    channels, height, width = x.shape[1:]
    features = 16 * -(-height // 4) * -(-width // 4)
    with torch.device("meta"):
        layers = [
            *[nn.Conv2d(channels, 8, 3, stride=2, padding=1), nn.LeakyReLU(0.2)],
            *[nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.LeakyReLU(0.2)],
            *[nn.Flatten(), nn.Linear(features, 1)],
        ]
    return like(x, layers, generator)


def like(x: Tensor, layers: list[nn.Module], generator: torch.Generator) -> nn.Module:
    """The layers in sequence, in the dtype and on the device of `x`, first weights drawn from `generator`."""
    seed = torch.randint(2**62, (), device=x.device, generator=generator)  # weights are drawn on the CPU
    return initialized(layers, torch.Generator().manual_seed(int(seed))).to(x)


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step down the loss, that leaves the gradients of all other parameters as they are."""
    optimizer.zero_grad()
    loss.backward(inputs=[weights for group in optimizer.param_groups for weights in group["params"]])
    optimizer.step()


def check_advgan(
    x: Tensor,
    confidence: float,
    gan_weight: float,
    size_weight: float,
    free_size: float | None,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    progress: bool,
) -> None:
    """Raise `ValueError` unless there are images, and each setting of `advgan` is in its range."""
    if x.ndim != 4 or len(x) == 0 or min(x.shape[2:]) < SMALLEST:
        raise ValueError(f"x is {describe(x)}; accepted: (N, C, H, W), N at least 1, H and W at least {SMALLEST}")
    check_number("confidence", confidence, low=0)
    check_number("gan_weight", gan_weight, low=0)
    check_number("size_weight", size_weight, low=0)
    if free_size is not None:
        check_number("free_size", free_size, low=0)
    check_count("epochs", epochs)
    check_count("batch_size", batch_size)
    check_number("learning_rate", learning_rate, low=0, exclusive=True)
    check_flag("progress", progress)

r"""A GAN in collaborative learning: a participant draws a class that only others have images of.

Every round the adversary receives the shared model, which knows the class a little better than before, trains a
generator against it, and sends the generator's images back under the label of another class. To tell them from its own
images, the victim must teach the model more about these.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spai_lab.checks import (
    check_callable,
    check_count,
    check_flag,
    check_generator,
    check_images,
    check_labels,
    check_model,
    check_number,
    describe,
)
from spai_lab.defenses.evasion.image_networks import descend, on_cpu
from spai_lab.metrics import Rate
from spai_lab.models import Shape, check_shape, initialized
from spai_lab.threat import fooled, fresh_generator
from spai_lab.training.federated import Participant, federated_averaging, participant, vector_of
from spai_lab.training.loop import check_data

SHOWN = 16  # images of each round that are kept


@dataclass(frozen=True, eq=False, repr=False)
class GanAttack:
    """What the adversary has drawn.

    Args:
        generator: G, latent vectors `(N, latent)` to images `(N, C, H, W)` in [0, 1], in evaluation mode.
        samples: what G draws in the end, `(M, C, H, W)`.
        path: what G draws of the same 16 latent vectors before the first round and after each, `(rounds + 1, 16, C, H,
            W)`.
        model: the shared model after the last round.
    """

    generator: nn.Module
    samples: Tensor
    path: Tensor
    model: nn.Module

    def __repr__(self) -> str:
        return f"GanAttack: {len(self.samples)} samples after {len(self.path) - 1} rounds"


def gan_attack(
    model: nn.Module,
    honest: Sequence[Participant],
    x: Tensor,
    y: Tensor,
    *,
    target: int,
    fake: int,
    rounds: int = 15,
    samples: int = 200,
    latent: int = 32,
    steps: int = 20,
    fakes: int = 50,
    patience: int = 3,
    epochs: int = 1,
    batch_size: int = 20,
    learning_rate: float = 0.05,
    generator_rate: float = 1e-3,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> GanAttack:
    r"""The GAN attack: learn to draw the class of another participant while training with it.

    The adversary's generator G descends $\mathbb{E}_z L(f_\theta(G(z)), a)$ against each round's shared model
    $f_\theta$, a being the victim's class; then the adversary trains $f_\theta$ on its own images, and on $G(z)$ with
    the label of another class, as an honest participant trains on its data.

    Args:
        model: the first shared model, `(N, C, H, W)` in [0, 1] to logits `(N, K)`; it stays as it is.
        honest: the others, at least one: functions `(model, round) -> update`, `(D,)`, such as `participant` makes.
        x: the adversary's own images, float `(N, C, H, W)` in [0, 1], at least 4 x 4, none of the class `target`.
        y: their labels `(N,)`, int64.
        target: a, the class to draw, from 0 to K - 1, of which the adversary has no image.
        fake: the label for what G draws, from 0 to K - 1, a class of nobody's.
        rounds: how often all train and the server averages.
        samples: how many images G draws in the end.
        latent, steps, fakes, patience, generator_rate: of the adversary, as in `adversary`.
        epochs, batch_size, learning_rate: of its local training, as in `participant`.
        generator: draws G's first weights, the latent vectors and the order of the images; None draws a fresh one.
        progress: show a bar.
    Returns:
        G, its images and how they came about, and the shared model.
    Raises:
        ValueError: names the argument.
    Reference: Hitaj 2017, arXiv 1702.07464, the main protocol of its attack, and its setting on MNIST (11 classes).
    Survey: Private AI, threats; an information silo.
    Simplified: all weights are averaged once a round, by `federated_averaging`, where the paper's participants take
        turns to download and to upload a share of their gradients. G is much smaller than a DCGAN.

    >>> from spai_lab.models import softmax_regression
    >>> x, y = torch.rand(8, 1, 4, 4), torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    >>> model = softmax_regression((1, 4, 4), 3)
    >>> victim = participant(x[:4], y[:4])
    >>> gan_attack(model, [victim], x[4:], y[4:], target=0, fake=2, rounds=3, progress=False)
    GanAttack: 200 samples after 3 rounds
    """
    check_adversary(x, y, target, fake)
    if not isinstance(honest, Sequence) or not honest:
        raise ValueError(f"honest is {describe(honest)}; accepted: a list of at least one function")
    for send in honest:
        check_callable("honest", send)
    check_data(model, x, torch.full_like(y, max(target, fake)), None, None)
    check_count("samples", samples)
    check_flag("progress", progress)
    generator = fresh_generator(generator, x.device)
    G = class_generator(x.shape[1:], latent=latent, generator=on_cpu(generator)).to(x)
    attacker = adversary(
        G,
        x,
        y,
        target=target,
        fake=fake,
        steps=steps,
        fakes=fakes,
        patience=patience,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        generator_rate=generator_rate,
        generator=generator,
    )
    z, path = latent_vectors(G, max(samples, SHOWN), generator), []
    shared, _ = federated_averaging(
        model,
        [*honest, attacker],
        rounds=rounds,
        observe=lambda _: path.append(drawn(G, z[:SHOWN])),
        progress=progress,
    )
    G = G.requires_grad_(False).eval()
    return GanAttack(G, drawn(G, z[:samples]), torch.stack(path), shared)


def adversary(
    G: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    target: int,
    fake: int,
    steps: int = 20,
    fakes: int = 50,
    patience: int = 3,
    epochs: int = 1,
    batch_size: int = 20,
    learning_rate: float = 0.05,
    generator_rate: float = 1e-3,
    generator: torch.Generator | None = None,
) -> Participant:
    r"""The adversary as a participant: trains G against the shared model, then the model, on fakes too.

    Args:
        G: the generator, from `class_generator`; trained in place, round after round.
        x: its own images, float `(N, C, H, W)` in [0, 1], N at least 1, none of the class `target`.
        y: their labels `(N,)`, int64.
        target: a, the class that G learns to draw.
        fake: the label that it gives to what G draws, another one than `target`.
        steps: of G in a round, at least 1, with 64 latent vectors each.
        fakes: how many images of G it adds to its own in a round, at least 0; 0 only watches.
        patience: rounds in which it is honest, until the shared model knows something, at least 0.
        epochs, batch_size, learning_rate: of its local training, as in `participant`.
        generator_rate: of G's Adam, above 0.
        generator: draws the latent vectors and shuffles the images; None draws a fresh one.
    Returns:
        `(model, round) -> update`, `(D,)`, which looks like an honest one.
    Raises:
        ValueError: names the argument.
    Reference: Hitaj 2017, arXiv 1702.07464, the adversary's part of the main protocol.

    >>> x, y = torch.rand(4, 1, 4, 4), torch.tensor([1, 1, 2, 2])
    >>> attacker = adversary(class_generator((1, 4, 4)), x, y, target=0, fake=3)
    >>> attacker(nn.Sequential(nn.Flatten(), nn.Linear(16, 4)), 5).shape
    torch.Size([68])
    """
    check_generating(G, x)
    check_adversary(x, y, target, fake)
    check_count("steps", steps)
    check_count("fakes", fakes, low=0)
    check_count("patience", patience, low=0)
    check_number("generator_rate", generator_rate, low=0, exclusive=True)
    check_generator(generator, x.device)
    generator = fresh_generator(generator, x.device)
    training = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate, "generator": generator}
    honest = participant(x, y, **training)
    optimizer = torch.optim.Adam(G.parameters(), lr=generator_rate, betas=(0.5, 0.9))

    def send(model: nn.Module, round: int) -> Tensor:
        if round < patience:
            return honest(model, round)
        check_data(model, x, torch.full_like(y, max(target, fake)), None, None)
        approach(G, optimizer, model, target, steps, generator)
        x_fake = drawn(G, latent_vectors(G, fakes, generator))
        y_fake = torch.full((fakes,), fake, dtype=y.dtype, device=y.device)
        return participant(torch.cat([x, x_fake]), torch.cat([y, y_fake]), **training)(model, round)

    return send


def approach(
    G: nn.Module,
    optimizer: torch.optim.Optimizer,
    model: nn.Module,
    target: int,
    steps: int,
    generator: torch.Generator,
    batch_size: int = 64,
) -> None:
    r"""Train G in place so that the model takes what it draws for the class `target`: $\min_G L(f_\theta(G(z)), a)$."""
    D = copy.deepcopy(model).eval().requires_grad_(False)
    wanted = torch.full((batch_size,), target, device=generator.device)
    with torch.enable_grad():
        for _ in range(steps):
            descend(optimizer, F.cross_entropy(D(G(latent_vectors(G, batch_size, generator))), wanted))


def class_generator(
    shape: Shape = (1, 28, 28), *, latent: int = 32, channels: int = 8, generator: torch.Generator | None = None
) -> nn.Module:
    """A generator that draws coarsely, then twice enlarges and refines: it cannot hide in the noise of single pixels.

    One without convolutions, such as `image_generator`, pleases the model with images that are less like the class.

    Args:
        shape: `(C, H, W)` of an image, at least 4 x 4.
        latent: numbers in a latent vector.
        channels: feature maps of the hidden layers.
        generator: draws the first weights; None draws a fresh one.
    Returns:
        `(N, latent)` to `(N, C, H, W)` in [0, 1].
    Raises:
        ValueError: names the argument.

    >>> class_generator((1, 9, 9), latent=5)(torch.zeros(2, 5)).shape
    torch.Size([2, 1, 9, 9])
    """
    check_shape(shape, 2, smallest=4)
    check_count("latent", latent)
    check_count("channels", channels)
    colors, *size = shape
    half, quarter = ([-(-side // part) for side in size] for part in (2, 4))
    with torch.device("meta"):
        layers = [
            *[nn.Linear(latent, 128), nn.ReLU(), nn.Linear(128, channels * quarter[0] * quarter[1]), nn.ReLU()],
            *[nn.Unflatten(1, (channels, *quarter)), nn.Upsample(half, mode="bilinear")],
            *[nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Upsample(size, mode="bilinear")],
            *[nn.Conv2d(channels, colors, 3, padding=1), nn.Sigmoid()],
        ]
    return initialized(layers, generator)


def latent_vectors(G: nn.Module, count: int, generator: torch.Generator) -> Tensor:
    """Standard normal vectors `(count, latent)` for a generator that begins with a linear layer."""
    weight = G[0].weight
    return torch.randn(count, weight.shape[1], dtype=weight.dtype, device=weight.device, generator=generator)


@torch.no_grad()
def drawn(G: nn.Module, z: Tensor) -> Tensor:
    """What G draws of latent vectors, `(N, C, H, W)`, without a gradient."""
    return G(z)


def protected(
    send: Participant, *, clip: float, noise_multiplier: float = 0.0, generator: torch.Generator | None = None
) -> Participant:
    r"""A participant that sends less than it learned: its update shortened, with noise on every weight.

    $\tilde u = u \min(1, C / \|u\|_2) + n$ with $n \sim N(0, \sigma^2 C^2 1)$: the Gaussian mechanism on the whole
    update, so that all of a participant's data are protected at once, not each image.

    Args:
        send: a participant, `(model, round) -> update`, `(D,)`.
        clip: C, the largest L2 norm of its update, above 0.
        noise_multiplier: $\sigma$, at least 0: noise as a multiple of C.
        generator: draws the noise; None draws a fresh one.
    Returns:
        `(model, round) -> update`, `(D,)`, or None where `send` drops out.
    Raises:
        ValueError: names the argument.
    Reference: McMahan 2017, arXiv 1710.06963, algorithm 1. Hitaj 2017, arXiv 1702.07464, argues that noise for single
        images does not help.
    Simplified: every participant adds the noise itself, since the server is not trusted; the paper's server adds it
        once to the sum. The privacy that this gives is not computed.

    >>> shortened = protected(lambda model, round: torch.tensor([3.0, 4.0]), clip=1.0)
    >>> shortened(nn.Linear(2, 1, bias=False), 0)
    tensor([0.6000, 0.8000])
    """
    check_callable("send", send)
    check_number("clip", clip, low=0, exclusive=True)
    check_number("noise_multiplier", noise_multiplier, low=0)
    check_generator(generator, torch.device("cpu") if generator is None else generator.device)

    def sends_less(model: nn.Module, round: int) -> Tensor | None:
        update = send(model, round)
        if update is None:
            return None
        check_update(update, model)
        source = fresh_generator(generator, update.device)
        noise = torch.randn(update.shape, dtype=update.dtype, device=update.device, generator=source)
        shorter = update * (clip / update.norm().clamp_min(clip))
        return shorter + noise_multiplier * clip * noise

    return sends_less


def taken_for(judge: nn.Module, images: Tensor, label: int) -> Rate:
    """How many images a model takes for a class; a judge that had no part in the training knows what they show.

    Args:
        judge: `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        images: `(N, C, H, W)` in [0, 1], N at least 1.
        label: the class, from 0 to K - 1.
    Returns:
        the rate, with its interval.
    Raises:
        ValueError: names the argument.

    >>> print(taken_for(nn.Flatten(), torch.tensor([[[[0.0, 0.9]]], [[[0.9, 0.0]]]]), 1))
    50.0 % (n = 2, 95 % interval 9.5 to 90.5)
    """
    check_images(images, "images")
    check_model(judge, images)
    check_count("label", label, low=0)
    if len(images) == 0:
        raise ValueError("images is empty; accepted: at least one image")
    labels = torch.full((len(images),), label, device=images.device)
    return Rate(int(fooled(judge, images, labels, targeted=True).sum()), len(images))


def likeness(images: Tensor, x: Tensor, y: Tensor) -> Tensor:
    r"""How much the mean of some images is like the mean image of each class: Pearson's correlation over the pixels.

    Args:
        images: `(M, C, H, W)` in [0, 1], M at least 1.
        x: images of known classes, `(N, C, H, W)` in [0, 1].
        y: their labels `(N,)`, int64, each class from 0 to the highest at least once.
    Returns:
        from -1 to 1, `(K,)`; NaN where a mean image has a single color.
    Raises:
        ValueError: names the argument.

    >>> x = torch.eye(3).view(3, 1, 1, 3)
    >>> likeness(x[:1], x, torch.tensor([0, 1, 2]))
    tensor([ 1.0000, -0.5000, -0.5000])
    """
    for name, value in (("images", images), ("x", x)):
        check_images(value, name)
        if len(value) == 0 or value.shape[1:] != x.shape[1:]:
            raise ValueError(f"{name} is {describe(value)}; accepted: at least one image, all of the same shape")
    check_labels(y, x)
    counts = y.bincount()
    if (counts == 0).any():
        raise ValueError(f"y has no label {int(counts.argmin())}; accepted: each class at least once")
    means = torch.stack([images.mean(0), *(x[y == label].mean(0) for label in range(len(counts)))])
    return torch.corrcoef(means.flatten(1))[0, 1:]


def check_adversary(x: Tensor, y: Tensor, target: int, fake: int) -> None:
    """Raise `ValueError` unless the adversary has images, none of them of the target's class or of the fakes'."""
    check_images(x)
    if x.ndim != 4 or len(x) == 0:
        raise ValueError(f"x is {describe(x)}; accepted: images (N, C, H, W), N at least 1")
    check_labels(y, x)
    for name, label in (("target", target), ("fake", fake)):
        check_count(name, label, low=0)
        if (y == label).any():
            raise ValueError(f"y has the label {label}; accepted: no image of the class {name}")
    if target == fake:
        raise ValueError(f"fake is {fake}, like target; accepted: another class")


def check_generating(G: nn.Module, x: Tensor) -> None:
    """Raise `ValueError` unless G draws images like `x` and begins with a linear layer."""
    if not isinstance(G, nn.Sequential) or len(G) == 0 or not isinstance(G[0], nn.Linear):
        raise ValueError(f"G is {describe(G)}; accepted: a generator, such as class_generator makes")
    check_images(x)
    shape = drawn(G, G[0].weight.new_zeros(1, G[0].in_features)).shape[1:]
    if shape != x.shape[1:]:
        raise ValueError(f"G draws images of shape {tuple(shape)}; accepted: {tuple(x.shape[1:])}, the shape of x")


def check_update(update: Tensor, model: nn.Module) -> None:
    """Raise `ValueError` unless a participant sent a vector with a number for each weight."""
    weights = len(vector_of(model))
    if not isinstance(update, Tensor) or update.shape != (weights,) or not update.is_floating_point():
        raise ValueError(f"send returns {describe(update)}; accepted: a floating point vector of shape ({weights},)")

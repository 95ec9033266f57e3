"""A randomized defense, judged by the distribution of its answers."""

import math

import numpy as np
import torch
from torch import Tensor, nn

from spai_lab.checks import describe
from spai_lab.exercises.chapter_17.budgets import CHAPTER
from spai_lab.exercises.exercise import Exercise, Fault, call

CALLS = 1500
NAMES = ("mean", "spread", "images apart", "calls apart")


class Squares(nn.Module):
    """A network whose mean under noise is known: $f_k(x) = (w_k \\cdot x)^2$."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(weights)

    def forward(self, x: Tensor) -> Tensor:
        """The squares, `(N, K)`."""
        return (x.flatten(1) @ self.w.T).square()


def my_noisy_mean(network, x, sigma, looks, generator):
    """The mean answer to noisy copies of each image.

    network: from (N, 1, H, W) to logits (N, K); x: images (N, 1, H, W).
    sigma: standard deviation of the noise of each pixel; do not clip.
    looks: how many copies of each image, each with noise of its own.
    generator: source of the noise, as in torch.randn(..., generator=generator).
    Returns the mean of the logits, (N, K).
    """
    total = 0
    for _ in range(looks):
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        total = total + network(x + sigma * noise)
    return total / looks


def noise_like(x: Tensor, generator: torch.Generator, *shape: int) -> Tensor:
    """Standard noise of the shape of `x`, or of another."""
    return torch.randn(shape or x.shape, generator=generator, dtype=x.dtype)


def takes_the_sum(network, x, sigma, looks, generator):
    """It adds the answers up and does not divide by `looks`."""
    return looks * my_noisy_mean(network, x, sigma, looks, generator)


def draws_once_for_all_looks(network, x, sigma, looks, generator):
    """All its copies of an image have the same noise, so that looking several times helps nothing."""
    return network(x + sigma * noise_like(x, generator))


def draws_once_for_the_batch(network, x, sigma, looks, generator):
    """All images of the batch get the same noise: an image's answer then depends on how the others fared."""
    draws = [noise_like(x, generator, 1, *x.shape[1:]) for _ in range(looks)]
    return torch.stack([network(x + sigma * noise) for noise in draws]).mean(0)


def averages_the_images(network, x, sigma, looks, generator):
    """It averages the noisy images, which takes the noise away again, and asks the network once."""
    return network(torch.stack([x + sigma * noise_like(x, generator) for _ in range(looks)]).mean(0))


def clips_the_noise(network, x, sigma, looks, generator):
    """It clips the noisy images to [0, 1], so that the noise has no longer mean zero."""
    copies = [(x + sigma * noise_like(x, generator)).clamp(0, 1) for _ in range(looks)]
    return torch.stack([network(copy) for copy in copies]).mean(0)


def begins_anew(network, x, sigma, looks, generator):
    """Two calls give the same answer: it draws nothing, or seeds the noise anew in each call."""
    return my_noisy_mean(network, x, sigma, looks, torch.Generator().manual_seed(0))


def takes_the_variance(network, x, sigma, looks, generator):
    """It multiplies the noise by sigma squared; the standard deviation is `sigma` itself."""
    return my_noisy_mean(network, x, sigma**2, looks, generator)


def draws_uniform(network, x, sigma, looks, generator):
    """Its noise is uniform in [0, 1]: that only brightens; `torch.randn` draws around zero."""
    draws = [torch.rand(x.shape, generator=generator, dtype=x.dtype) for _ in range(looks)]
    return torch.stack([network(x + sigma * noise) for noise in draws]).mean(0)


def expected(network: Squares, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    r"""Mean and variance of a look, $a^2 + s$ and $4 a^2 s + 2 s^2$, with $a = w \cdot x$ and $s = \sigma^2 |w|^2$."""
    a, s = x.flatten(1) @ network.w.T, sigma**2 * network.w.square().sum(1)
    return (a.square() + s).detach(), (4 * a.square() * s + 2 * s.square()).detach()


def as_statistics(answer, network, x, sigma, looks, generator):
    """What many calls look like: whether the mean is right, the spread in octaves, whether draws are shared.

    Raises:
        Fault: it returns no logits.
    """
    found = []
    with torch.no_grad():
        for _ in range(CALLS):
            logits = call(answer, network=network, x=x, sigma=sigma, looks=looks, generator=generator)
            if not isinstance(logits, Tensor) or logits.shape != (len(x), len(network.w)):
                raise Fault(f"It returns {describe(logits)}; expected logits of shape ({len(x)}, {len(network.w)}).")
            found.append(logits)
    drawn = torch.stack(found)
    mean, variance = expected(network, x, sigma)
    off = (drawn.mean(0) - mean).abs() / (variance / looks / CALLS).sqrt()
    ratio = float((drawn.var(0) / (variance / looks)).mean())
    apart = torch.corrcoef(drawn[:, :, 0].T)[0, 1].abs() if ratio > 1e-9 else torch.ones(())
    octaves = round(math.log2(ratio)) if ratio > 1e-9 else -99
    return torch.tensor(
        [float(off.max() < 7), float(octaves), float(apart < 0.3), float(not torch.equal(drawn[0], drawn[1]))]
    )


def what_is_off(result: np.ndarray, **case: object) -> str:
    """Which of the statistics is off."""
    right = (1.0, 0.0, 1.0, 1.0)
    names = [name for name, value, wanted in zip(NAMES, result, right, strict=True) if value != wanted]
    return f"Over {CALLS:,} calls its answers are not as they should be. Off: {', '.join(names)}."


def networks(seed: int = 17) -> list[dict]:
    """A network of squares and three images, the first two alike."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(2, 16, generator=generator, dtype=torch.float64) / 4
    one, other = (torch.rand(1, 1, 4, 4, generator=generator, dtype=torch.float64) * 0.2 for _ in range(2))
    x = torch.cat([one, one, other])
    drawing = torch.Generator().manual_seed(1)
    return [{"network": Squares(weights), "x": x, "sigma": 0.4, "looks": 8, "generator": drawing}]


noisy_mean = Exercise(
    chapter=CHAPTER,
    task=r"""
        **A defense that rolls dice.** Show the network several noisy copies of each image, and answer with the mean:

        $$\bar z(x) = \frac{1}{S} \sum_{s=1}^{S} f(x + \sigma z_s), \qquad z_s \sim N(0, I).$$

        Write `my_noisy_mean(network, x, sigma, looks, generator)`, with $S$ = `looks`: each image of the batch, each
        copy and each call gets noise of its own, not clipped. It is judged by the distribution of its answers, so draw
        in whatever order you like. Then submit it: `arena_defense` takes a function `defense(network, x, y, generator)`
        that returns `lambda images: my_noisy_mean(network, images, 0.25, 8, generator)`. See what an attacker who
        averages leaves of it.
    """,
    solution=my_noisy_mean,
    truth=lambda **case: [1.0, 0.0, 1.0, 1.0],
    cases=networks,
    tested=f"{CALLS:,} calls on a network whose mean and variance under noise are known",
    hints=(
        "`torch.randn(x.shape, generator=generator, dtype=x.dtype)` draws noise for each pixel of each image.",
        "A loop over `looks` is enough: draw, ask the network, add its logits up; divide at the end.",
    ),
    mistakes=(
        takes_the_sum,
        draws_once_for_all_looks,
        draws_once_for_the_batch,
        averages_the_images,
        clips_the_noise,
        begins_anew,
        takes_the_variance,
        draws_uniform,
    ),
    call=as_statistics,
    look=what_is_off,
)

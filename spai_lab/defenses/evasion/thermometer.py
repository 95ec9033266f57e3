r"""Thermometer encoding: the network reads each pixel as a column of bits, through which no gradient passes."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spai_lab.attacks.evasion.adaptive import bpda
from spai_lab.checks import (
    check_ball,
    check_batch,
    check_callable,
    check_count,
    check_inputs,
    check_number,
    check_steps,
    describe,
)
from spai_lab.models import Shape, check_shape, lenet
from spai_lab.threat import fresh_generator, logits_of, value_and_gradient

LEVELS = 16


def thermometer(network: nn.Module, *, levels: int = LEVELS) -> nn.Module:
    r"""Show the network a code of each pixel in place of its value: a column of bits, on up to the pixel's level.

    $f(\tau(x))$ with $\tau(x)_k = 1$ where $x > k / l$, else 0, for $k = 1, \dots, l - 1$, and $\tau(x)_0 = 1$.
    The code is constant between two levels, so that the gradient with respect to x is exactly zero.

    Args:
        network: f, reads codes `(N, C * levels, H, W)` of 0 and 1, returns logits `(N, K)`; to be trained behind the
            code, which `fit(defended, x, y, ...)` does.
        levels: l, the number of levels that a pixel can have, at least 2.
    Returns:
        a model like any other, from images `(N, C, H, W)` in [0, 1] to logits `(N, K)`; its parameters are those of
        `network`.
    Raises:
        ValueError: names the argument; when the model runs: `x` is not a batch of images.
    Reference: Buckman 2018, "Thermometer Encoding: One Hot Way To Resist Adversarial Examples", ICLR, section 3;
        l = 16 from its experiments.
    Survey: defenses against evasion, gradient masking.
    Simplified: the bits stand in the opposite order; nothing here trains on adversarial images, where the paper trains
        on those of `ls_pga` too.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4 * 2 * 2, 3))
    >>> thermometer(network, levels=4)(torch.rand(5, 1, 2, 2)).shape
    torch.Size([5, 3])
    """
    check_callable("network", network)
    check_count("levels", levels, low=2)
    return Thermometer(network, levels)


def thermometer_lenet(
    shape: Shape = (1, 28, 28), classes: int = 10, *, generator: torch.Generator | None = None
) -> nn.Module:
    """A LeNet that reads thermometer codes of 16 levels, untrained.

    Its normalization stays as it is for pixels: the bits of a pixel have about the pixel's value as their mean.

    Args:
        shape: `(C, H, W)` of an image, at least 12 x 12.
        classes: number of classes K, at least 2.
        generator: draws the first weights; None draws a fresh one.
    Returns:
        `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
    Raises:
        ValueError: names the argument.
    Reference: Buckman 2018, "Thermometer Encoding: One Hot Way To Resist Adversarial Examples", ICLR, section 5.
    Survey: defenses against evasion, gradient masking.
    Simplified: the paper's network for MNIST is another convolutional one.

    >>> thermometer_lenet()(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    check_shape(shape, classes, smallest=12)
    channels, height, width = shape
    return thermometer(lenet((LEVELS * channels, height, width), classes, generator=generator))


def thermometer_view(defended: nn.Module, *, width: float = 0.1) -> nn.Module:
    r"""What an attacker who knows the code climbs: the defended model, differentiated as if the bits were ramps.

    Forward $f(\tau(x))$, exactly; backward $\tilde\tau$ of `soft_thermometer` in place of $\tau$, by `bpda`.

    Args:
        defended: what `thermometer` or `thermometer_lenet` returned.
        width: of the ramps, as in `soft_thermometer`.
    Returns:
        a model that answers exactly as `defended` does and has a gradient.
    Raises:
        ValueError: names the argument.
    Reference: Athalye et al. 2018, arXiv 1802.00420, section 5.1.1.
    Survey: defenses against evasion, gradient masking.
    Simplified: the paper's ramp runs from $k / l$ up to $k / l + 1$, and is flat for every bit that is off, so
        that it never brightens a black pixel. The ramp here is centered, and reaches bits on either side of the pixel.

    >>> defended = thermometer(nn.Flatten(), levels=4)
    >>> x = torch.tensor([[[[0.55]]]], requires_grad=True)
    >>> thermometer_view(defended, width=0.25)(x).sum().backward()
    >>> x.grad
    tensor([[[[4.]]]])
    """
    check_defended(defended)
    check_number("width", width, low=0, exclusive=True)
    levels = defended.levels
    code = bpda(lambda x: thermometer_code(x, levels), lambda x: soft_thermometer(x, levels, width=width))
    return nn.Sequential(code, defended.network)


def thermometer_code(x: Tensor, levels: int) -> Tensor:
    r"""The code of each pixel, one bit a channel: $\tau(x)_k = \lceil \mathrm{clip}_{[0, 1]}(x - k / l) \rceil$.

    Args:
        x: images `(N, C, H, W)` in [0, 1].
        levels: l, at least 2.
    Returns:
        `(N, C * levels, H, W)` of 0 and 1, the bits of a channel beside each other, lowest first; with respect to `x`
        it has a gradient of exactly zero. A pixel on the border of two levels has the lower one.
    Raises:
        ValueError: names the argument.

    >>> thermometer_code(torch.tensor([[[[0.0, 0.3, 1.0]]]]), 4)[0, :, 0]
    tensor([[1., 1., 1.],
            [0., 1., 1.],
            [0., 0., 1.],
            [0., 0., 1.]])
    """
    check_codable(x, levels)
    return (x[:, :, None] - borders(levels, x)).clamp(0, 1).ceil().flatten(1, 2)


def soft_thermometer(x: Tensor, levels: int, *, width: float = 0.1) -> Tensor:
    r"""A differentiable stand-in for the code: the mean code of $x + u$ with noise $u \sim U(-w, w)$.

    $\tilde\tau(x)_k = \mathrm{clip}_{[0, 1]}\left(\frac{x - k / l}{2 w} + \frac{1}{2}\right)$: each bit is a ramp
    around its border.

    Args:
        x: images `(N, C, H, W)` in [0, 1].
        levels: l, at least 2.
        width: w, how far from its border a bit has a slope, in pixel units, above 0; about the eps of the attack.
    Returns:
        `(N, C * levels, H, W)` in [0, 1], in the order of `thermometer_code`.
    Raises:
        ValueError: names the argument.

    >>> soft_thermometer(torch.tensor([[[[0.5]]]]), 4, width=0.5).flatten()
    tensor([1.0000, 0.7500, 0.5000, 0.2500])
    """
    check_codable(x, levels)
    check_number("width", width, low=0, exclusive=True)
    return ((x[:, :, None] - borders(levels, x)) / (2 * width) + 0.5).clamp(0, 1).flatten(1, 2)


def borders(levels: int, x: Tensor) -> Tensor:
    """What a pixel must exceed to reach each level, shaped `(levels, 1, 1)`; every pixel reaches the lowest one."""
    k = torch.arange(levels, dtype=x.dtype, device=x.device)
    return torch.where(k > 0, k / levels, -math.inf)[:, None, None]


def ls_pga(
    defended: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    steps: int = 40,
    step_size: float = 1.0,
    annealing: float = 1.2,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Logit-space projected gradient ascent: the attack the paper used, which climbs over a choice of levels.

    Each pixel has logits u over its levels within reach, drawn from $N(0, 1)$; the network reads the expected code, and
    the temperature falls until it is a code:
    $z_t = \sum_j \mathrm{softmax}(u_t / T_t)_j \, \tau_j, \quad
    u_{t+1} = u_t + \xi \, \mathrm{sign}(\nabla_u L(f(z_t), y)), \quad T_{t+1} = T_t / \delta$.

    Args:
        defended: what `thermometer` or `thermometer_lenet` returned.
        x: clean images `(N, C, H, W)` in [0, 1].
        y: labels `(N,)`, int64.
        eps: radius of the L-inf ball, in pixel units of [0, 1].
        steps: number of steps, at least 1.
        step_size: xi, in logits, above 0.
        annealing: delta, by which the temperature, 1 at first, is divided after each step, at least 1.
        generator: draws the first logits; None draws a fresh one.
    Returns:
        `x_adv`, like `x`, in [0, 1] and within `eps` of `x`: each pixel at the value nearest to its own that has the
        level of the highest logit.
    Raises:
        ValueError: names the argument.
    Reference: Buckman 2018, "Thermometer Encoding: One Hot Way To Resist Adversarial Examples", ICLR, algorithms 1 and
        3; xi = 1 and delta = 1.2 from the published code.
    Survey: evasion, white-box; made for one defense.
    Simplified: the paper's attack ends with codes, here with images that have them; the published code steps along the
        gradient itself, which is weaker than along its sign.

    >>> defended = thermometer(nn.Flatten(), levels=4)
    >>> x = torch.tensor([[[[0.6]]]])  # on levels 0 to 2: the logit of level 3 is the lowest
    >>> ls_pga(defended, x, torch.tensor([2]), eps=0.2)
    tensor([[[[0.5000]]]])
    """
    check_defended(defended)
    check_ball(x, eps, "linf")
    check_inputs(defended, x, y, generator=generator)
    check_steps(steps, step_size)
    check_number("annealing", annealing, low=1)
    generator = fresh_generator(generator, x.device)
    k = torch.arange(defended.levels, device=x.device)[:, None, None]
    low, high = (level((x + delta).clamp(0, 1), defended.levels)[:, :, None] for delta in (-eps, eps))
    beyond = (k < low) | (k > high)
    u = torch.randn(beyond.shape, dtype=x.dtype, device=x.device, generator=generator)
    temperature = 1.0

    def loss(u: Tensor) -> Tensor:
        p = (u / temperature).masked_fill(beyond, -math.inf).softmax(2)
        z = p.flip(2).cumsum(2).flip(2).flatten(1, 2)
        return F.cross_entropy(logits_of(defended.network, z, y), y, reduction="none")

    for _ in range(steps):
        u = u + step_size * value_and_gradient(loss, u)[1].sign()
        temperature /= annealing
    return nearest(x, u.masked_fill(beyond, -math.inf).argmax(2), defended.levels)


def level(x: Tensor, levels: int) -> Tensor:
    """The level of each pixel, from 0, like `x`: how many bits of its code are on beyond the lowest."""
    return thermometer_code(x, levels).unflatten(1, (x.shape[1], levels)).sum(2) - 1


def nearest(x: Tensor, chosen: Tensor, levels: int) -> Tensor:
    """The image nearest to `x` whose pixels have the chosen levels, `(N, C, H, W)` and int64.

    >>> nearest(torch.tensor([0.3, 0.3, 0.3]), torch.tensor([0, 1, 2]), 4)
    tensor([0.2500, 0.3000, 0.5000])
    """
    border = borders(levels, x).flatten()
    lowest = border.nextafter(torch.full_like(border, math.inf))
    highest = torch.cat([border[1:], border.new_ones(1)])
    return x.maximum(lowest[chosen]).minimum(highest[chosen])


class Thermometer(nn.Module):
    """A network behind the thermometer code."""

    def __init__(self, network: nn.Module, levels: int) -> None:
        super().__init__()
        self.network, self.levels = network, levels
        self.training = getattr(network, "training", False)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(thermometer_code(x, self.levels))


def check_defended(defended: nn.Module) -> None:
    """Raise `ValueError` unless this is a model with a thermometer code."""
    if not isinstance(defended, Thermometer):
        raise ValueError(f"defended is {describe(defended)}; accepted: what thermometer returned")


def check_codable(x: Tensor, levels: int) -> None:
    """Raise `ValueError` unless `x` is a batch of images and `levels` at least 2."""
    check_batch("x", x)
    if x.ndim != 4:
        raise ValueError(f"x is {describe(x)}; accepted: images (N, C, H, W)")
    check_count("levels", levels, low=2)

"""Defense-GAN: let a classifier see only what a generator can draw, and the two attacks that know it."""

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from spai_lab.attacks.evasion.adaptive import bpda
from spai_lab.checks import (
    check_ball,
    check_batch,
    check_callable,
    check_count,
    check_flag,
    check_generator,
    check_inputs,
    check_like,
    check_number,
    describe,
)
from spai_lab.threat import fresh_generator, logits_of, margin, norms, project, value_and_gradient


def defense_gan(
    model: nn.Module,
    image_generator: nn.Module,
    *,
    steps: int = 200,
    restarts: int = 10,
    step_size: float = 10.0,
    momentum: float = 0.7,
    generator: torch.Generator | None = None,
) -> nn.Module:
    r"""Defense-GAN: classify the image nearest to the input among those that a generator draws.

    $f(G(z^*))$ with $z^* = \arg\min_z \|G(z) - x\|_2^2$, found by gradient descent from R random $z$, L steps each.

    Args:
        model: f, `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        image_generator: G, `(N, latent)` to images in [0, 1], such as `train_generator` returns; its first layer is
            an `nn.Linear`.
        steps: L, at least 1.
        restarts: R, at least 1.
        step_size: of the descent on the mean squared error of an image's pixels; a tenth of it in the last fifth of
            the steps.
        momentum: share of the last step that is added to the next, from 0 to 1.
        generator: draws the first $z$; None draws a fresh one. The returned model owns it:
            `defended.generator.manual_seed(0)` repeats the draws.
    Returns:
        a model like any other, random; its answer has no gradient with respect to `x` (`gan_view` has one).
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Samangouei 2018, arXiv 1805.06605, section 3 and algorithm of figure 1; step size, momentum and
        first $z$, $N(0, I / d)$, from its published code.
    Survey: defenses against evasion, gradient masking.
    Simplified: G is small (see `train_generator`); f is trained on the images themselves, the paper's variant without
        reconstructions.

    >>> G = nn.Sequential(nn.Linear(1, 2, bias=False), nn.Sigmoid(), nn.Unflatten(1, (1, 1, 2)))
    >>> _ = nn.init.constant_(G[0].weight, 1.0)
    >>> defended = defense_gan(nn.Flatten(), G, steps=50)
    >>> defended(torch.tensor([[[[0.2, 0.4]]]])).round(decimals=3)
    tensor([[0.3000, 0.3000]])
    """
    check_callable("model", model)
    check_descent(image_generator, steps, restarts, step_size, momentum, generator)
    generator = fresh_generator(generator, next(image_generator.parameters()).device)
    projection = Projection(image_generator, steps, restarts, step_size, momentum, generator)
    return DefenseGAN(model, projection, generator)


class Projection(nn.Module):
    """Images to the nearest ones on the range of `image_generator`, as far as gradient descent finds them."""

    def __init__(
        self,
        image_generator: nn.Module,
        steps: int,
        restarts: int,
        step_size: float,
        momentum: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.image_generator, self.latent = image_generator, first_linear(image_generator).in_features
        self.steps, self.restarts, self.step_size, self.momentum = steps, restarts, step_size, momentum
        self.generator = generator

    def forward(self, x: Tensor) -> Tensor:
        check_batch("x", x)
        G, R = self.image_generator, self.restarts
        target = x.detach().repeat_interleave(R, 0)
        z = first_latents(len(target), self.latent, x, self.generator)
        with torch.no_grad():
            check_like("what image_generator returns", G(z), target)
        velocity = torch.zeros_like(z)
        for step in range(self.steps):
            alpha = self.step_size if step < 0.8 * self.steps else self.step_size / 10
            _, slope = value_and_gradient(lambda z: (G(z) - target).square().flatten(1).mean(1), z)
            velocity = self.momentum * velocity + slope
            z = z - alpha * velocity
        with torch.no_grad():
            image = G(z)
            best = norms(image - target, "l2").view(len(x), R).argmin(1)
        return image[best + R * torch.arange(len(x), device=x.device)]

    def extra_repr(self) -> str:
        return f"steps={self.steps}, restarts={self.restarts}, step_size={self.step_size}, momentum={self.momentum}"


class DefenseGAN(nn.Module):
    """A classifier behind a projection."""

    def __init__(self, model: nn.Module, projection: nn.Module, generator: torch.Generator) -> None:
        super().__init__()
        self.model, self.projection, self.generator = model, projection, generator
        self.training = getattr(model, "training", False)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(self.projection(x))


def gan_view(
    defended: nn.Module,
    *,
    steps: int | None = None,
    restarts: int | None = None,
    generator: torch.Generator | None = None,
) -> nn.Module:
    r"""What an attacker who knows Defense-GAN climbs: through the projection forward, past it backward.

    Forward $f(G(z^*))$; backward $\nabla f$ at $G(z^*)$, since a projection leaves an image of the range where it is:
    $G(z^*(x)) \approx x$.

    Args:
        defended: what `defense_gan` returned.
        steps, restarts: of the view's own projection, each at least 1; None takes those of `defended`. Fewer make an
            attack faster, with a projection that is less exact.
        generator: draws the first latent vectors; None draws a fresh one.
    Returns:
        a model like any other, random, that has gradients; whether the attack succeeded is for `defended` to say.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Athalye et al. 2018, arXiv 1802.00420, section 5.4.2, the second attack.
    Survey: defenses against evasion, gradient masking.

    >>> G = nn.Sequential(nn.Linear(1, 2), nn.Sigmoid(), nn.Unflatten(1, (1, 1, 2)))
    >>> x = torch.rand(3, 1, 1, 2, requires_grad=True)
    >>> gan_view(defense_gan(nn.Flatten(), G), steps=5)(x).sum().backward()
    >>> x.grad.unique()
    tensor([1.])
    """
    check_defended(defended)
    own = defended.projection
    steps = own.steps if steps is None else steps
    restarts = own.restarts if restarts is None else restarts
    check_descent(own.image_generator, steps, restarts, own.step_size, own.momentum, generator)
    generator = fresh_generator(generator, own.generator.device)
    projection = Projection(own.image_generator, steps, restarts, own.step_size, own.momentum, generator)
    return DefenseGAN(defended.model, bpda(projection), generator)


def latent_attack(
    defended: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    steps: int = 500,
    restarts: int = 10,
    weight: float = 3.0,
    confidence: float = 1.0,
    step_size: float = 0.05,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> Tensor:
    r"""Find the nearest image on the generator's range that is misread, and go as far towards it as L2 allows.

    $z' = \arg\min_z \|G(z) - x\|_2^2 + c \max(\mathrm{margin}_y f(G(z)) + \kappa, 0)$, then
    $x' = \Pi_{B_2(x, \epsilon)}(G(z'))$. On the range a projection changes nothing; and already past the middle
    between x and $G(z')$ the latter is the nearer one.

    Args:
        defended: what `defense_gan` returned.
        x: clean inputs, floating point `(N, C, H, W)` in [0, 1].
        y: labels `(N,)`, int64.
        eps: radius of the ball in L2, in pixel units of [0, 1].
        steps: steps of Adam, at least 1.
        restarts: how many $z$ are tried for each input, all at once.
        weight: c, above 0.
        confidence: kappa, the margin of the logits by which another class has to win, at least 0.
        step_size: of Adam, above 0.
        generator: draws the first $z$; None draws a fresh one.
        progress: show a bar.
    Returns:
        `x_adv`, like `x`, in [0, 1] and within `eps` of `x`; `x` itself where no misread image was found.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Athalye et al. 2018, arXiv 1802.00420, section 5.4.2, the first attack.
    Survey: evasion, white-box.
    Simplified: c is fixed, not searched; restarts, and the ball, are added; the paper takes $G(z')$ as it is.

    >>> G = nn.Sequential(nn.Linear(1, 2), nn.Sigmoid(), nn.Unflatten(1, (1, 1, 2)))
    >>> x, y = torch.rand(3, 1, 1, 2), torch.tensor([0, 1, 0])
    >>> x_adv = latent_attack(defense_gan(nn.Flatten(), G), x, y, eps=0.1, steps=5, progress=False)
    >>> bool(((x_adv - x).flatten(1).norm(dim=1) <= 0.1 + 1e-6).all())
    True
    """
    check_latent_attack(defended, x, y, eps, steps, restarts, weight, confidence, step_size, generator, progress)
    if len(x) == 0:
        return x.clone()
    f, G, latent = defended.model, defended.projection.image_generator, defended.projection.latent
    target, label = x.repeat_interleave(restarts, 0), y.repeat_interleave(restarts)
    z = first_latents(len(target), latent, x, fresh_generator(generator, x.device)).requires_grad_()
    optimizer = torch.optim.Adam([z], lr=step_size)
    nearest = torch.full_like(target[:, 0, 0, 0], torch.inf)
    misread = target.clone()

    for _ in tqdm(range(steps), desc="latent attack", unit="step", disable=not progress):
        with torch.enable_grad():
            image = G(z)
            distance, lead = norms(image - target, "l2"), margin(logits_of(f, image, label), label)
            loss = distance.square() + weight * (lead + confidence).clamp_min(0)
            optimizer.zero_grad()
            loss.sum().backward(inputs=[z])
        better = (lead <= -confidence) & (distance < nearest)
        nearest, misread[better] = nearest.where(~better, distance.detach()), image.detach()[better]
        optimizer.step()

    best = nearest.view(len(x), restarts).argmin(1) + restarts * torch.arange(len(x), device=x.device)
    return project(misread[best], x, eps, "l2")


def first_latents(n: int, latent: int, x: Tensor, generator: torch.Generator) -> Tensor:
    r"""Where a search begins: $z \sim N(0, I / d)$, nearer to the center than what the generator was trained on."""
    return torch.randn(n, latent, dtype=x.dtype, device=x.device, generator=generator) / latent**0.5


def first_linear(image_generator: nn.Module) -> nn.Linear | None:
    """The layer that reads the latent vectors."""
    layers = image_generator.modules() if isinstance(image_generator, nn.Module) else ()
    return next((layer for layer in layers if isinstance(layer, nn.Linear)), None)


def check_defended(defended: nn.Module) -> None:
    """Raise `ValueError` unless `defended` is what `defense_gan` returns."""
    if not isinstance(defended, DefenseGAN) or not isinstance(defended.projection, Projection):
        raise ValueError(f"defended is {describe(defended)}; accepted: what defense_gan returned")


def check_descent(
    image_generator: nn.Module,
    steps: int,
    restarts: int,
    step_size: float,
    momentum: float,
    generator: torch.Generator | None,
) -> None:
    """Raise `ValueError` unless there is a generator of images, and each setting of the projection is in its range."""
    if first_linear(image_generator) is None:
        given = describe(image_generator)
        raise ValueError(f"image_generator is {given}; accepted: a network whose first layer is an nn.Linear")
    check_count("steps", steps)
    check_count("restarts", restarts)
    check_number("step_size", step_size, low=0, exclusive=True)
    check_number("momentum", momentum, low=0, high=1)
    check_generator(generator, next(image_generator.parameters()).device)


def check_latent_attack(
    defended: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    steps: int,
    restarts: int,
    weight: float,
    confidence: float,
    step_size: float,
    generator: torch.Generator | None,
    progress: bool,
) -> None:
    """Raise `ValueError` unless each argument of `latent_attack` is in its range."""
    check_defended(defended)
    check_ball(x, eps, "l2")
    check_inputs(defended, x, y, generator=generator)
    check_count("steps", steps)
    check_count("restarts", restarts)
    check_number("weight", weight, low=0, exclusive=True)
    check_number("confidence", confidence, low=0)
    check_number("step_size", step_size, low=0, exclusive=True)
    check_flag("progress", progress)

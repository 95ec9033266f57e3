"""Chapter 02: one signed step, the way back into the ball, and both in a loop."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spai_lab.exercises.exercise import Exercise
from spai_lab.models import mlp

CHAPTER = "02_gradient_attacks"
IMAGES, SHAPE, CLASSES = 5, (1, 4, 4), 3
RADII = (0.0, 0.1, 0.3)
SCHEDULES = ((0.1, 0.03, 1), (0.3, 0.05, 10), (0.2, 0.3, 4), (0.0, 0.1, 2))  # eps, step size, steps


def victim(seed: int = 2) -> nn.Module:
    """A small network with large weights, whose gradient changes its signs on the way; fixed, in evaluation mode."""
    model = mlp(SHAPE, CLASSES, hidden=16, generator=torch.Generator().manual_seed(seed)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3)
    return model


def images(seed: int = 3) -> tuple[Tensor, Tensor]:
    """Inputs with pixels near black, near white and between, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    x = (1.4 * torch.rand(IMAGES, *SHAPE, generator=generator) - 0.2).clamp(0, 1)
    return x, torch.arange(IMAGES) % CLASSES


def gradient_by_hand(model: nn.Module, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The gradient of the cross-entropy with respect to the pixels: backpropagation in NumPy, float64."""
    layers = [
        (p.weight.detach().double().numpy(), p.bias.detach().double().numpy())
        for p in model
        if isinstance(p, nn.Linear)
    ]
    activations = [(x.reshape(len(x), -1) - model[0].mean) / model[0].std]
    for weight, bias in layers[:-1]:
        activations.append(np.maximum(activations[-1] @ weight.T + bias, 0))
    logits = activations[-1] @ layers[-1][0].T + layers[-1][1]
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    back = exponentials / exponentials.sum(1, keepdims=True) - np.eye(CLASSES)[y]
    for (weight, _), activation in zip(layers[:0:-1], activations[:0:-1], strict=True):
        back = (back @ weight) * (activation > 0)
    return (back @ layers[0][0] / model[0].std).reshape(x.shape)


def leaves_the_set(result: np.ndarray, x: Tensor, eps: float, **others: object) -> str | None:
    """What stands out in a result that no attack may return: pixels out of range, or further than eps."""
    moved = np.abs(result - x.numpy()).max()
    if result.min() < 0 or result.max() > 1:
        return f"Its values run from {result.min():.3g} to {result.max():.3g}; an image has its pixels in [0, 1]."
    return f"It moves a pixel by {moved:.3g}, further than eps = {eps:g}." if moved > eps + 1e-6 else None


# --- fgsm


def my_fgsm(model, x, y, eps):
    """One step of length eps up the loss, by the sign of the gradient.

    model: images (N, C, H, W) in [0, 1] to logits (N, K).
    x: images; y: labels (N,); eps: radius, in pixel units.
    Returns x_adv, like x, in [0, 1].
    """
    x = x.clone().requires_grad_()
    loss = F.cross_entropy(model(x), y)
    gradient = torch.autograd.grad(loss, x)[0]
    return (x + eps * gradient.sign()).clamp(0, 1).detach()


def gradient_of(model, x, y):
    """The gradient that the typical mistakes below start from."""
    x = x.clone().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(model(x), y), x)[0]


def forgets_the_clip(model, x, y, eps):
    """Some pixels leave [0, 1], and such an image does not exist: clip the result to the range of images."""
    return x + eps * gradient_of(model, x, y).sign()


def descends(model, x, y, eps):
    """It walks down the loss, which makes the model surer of the true label: an untargeted attack adds the step."""
    return (x - eps * gradient_of(model, x, y).sign()).clamp(0, 1)


def uses_the_raw_gradient(model, x, y, eps):
    """The step follows the raw gradient, so that most pixels hardly move; all may move by eps: take the sign."""
    return (x + eps * gradient_of(model, x, y)).clamp(0, 1)


def divides_eps_by_std(model, x, y, eps):
    """eps is divided by the model's std; it is in pixel units already, and normalization is the model's own affair."""
    return (x + eps / model[0].std * gradient_of(model, x, y).sign()).clamp(0, 1)


def clips_the_gradient(model, x, y, eps):
    """The gradient is clipped to [-eps, eps] in place of its sign: pixels with a small gradient stay behind."""
    return (x + gradient_of(model, x, y).clamp(-eps, eps)).clamp(0, 1)


def returns_the_perturbation(model, x, y, eps):
    """It returns the perturbation; add it to `x` and return the image."""
    return eps * gradient_of(model, x, y).sign()


def one_step_cases(seed: int = 2) -> list[dict]:
    x, y = images(seed + 1)
    return [{"model": victim(seed), "x": x.clone(), "y": y.clone(), "eps": eps} for eps in RADII]


def one_step(model, x, y, eps) -> np.ndarray:
    x = x.detach().double().numpy()
    return np.clip(x + eps * np.sign(gradient_by_hand(model, x, y.numpy())), 0, 1)


def unequal_steps(result: np.ndarray, model, x, y, eps) -> str | None:
    """What stands out in a signed step: out of the set, or pixels that moved by less than eps without need."""
    free = (result > 0) & (result < 1)
    short = free & (np.abs(np.abs(result - x.numpy()) - eps) > 1e-5)
    if fault := leaves_the_set(result, x, eps):
        return fault
    return (
        f"{short.sum()} pixels that had room moved by less than eps = {eps:g}: use the sign." if short.any() else None
    )


fgsm = Exercise(
    chapter=CHAPTER,
    task=r"""
        **The fast gradient sign method.** Write `my_fgsm(model, x, y, eps)`, with cross-entropy as the loss $L$:

        $$x' = \mathrm{clip}_{[0, 1]}\left(x + \epsilon \, \mathrm{sign}(\nabla_x L(f(x), y))\right)$$
    """,
    solution=my_fgsm,
    truth=one_step,
    cases=one_step_cases,
    tested=f"{IMAGES} images at eps {', '.join(f'{eps:g}' for eps in RADII)}, against backpropagation by hand",
    hints=(
        "You need the gradient with respect to the pixels, not to the weights: make a copy of `x` on which PyTorch "
        "records, `x.clone().requires_grad_()`.",
        "`F.cross_entropy(model(x), y)` is the loss, and `torch.autograd.grad(loss, x)[0]` its gradient.",
        "Only `.sign()` of the gradient counts; it is scaled by `eps` and added to `x`. What range has an image?",
    ),
    mistakes=(
        forgets_the_clip,
        descends,
        uses_the_raw_gradient,
        divides_eps_by_std,
        clips_the_gradient,
        returns_the_perturbation,
    ),
    look=unequal_steps,
)


# --- project


def my_project(x_adv, x, eps):
    """The point nearest to x_adv, within eps of x in every pixel and in [0, 1].

    x_adv: candidates (N, C, H, W), anywhere; x: clean images in [0, 1].
    eps: radius, in pixel units.
    Returns a tensor like x.
    """
    delta = (x_adv - x).clamp(-eps, eps)
    return (x + delta).clamp(0, 1)


def clips_around_x_adv(x_adv, x, eps):
    """It clips `x` around `x_adv`; the center of the ball is the clean image, and the candidate is what moves."""
    return torch.clamp(x, x_adv - eps, x_adv + eps).clamp(0, 1)


def forgets_the_range(x_adv, x, eps):
    """The result is within eps of `x` but leaves [0, 1]; an image is in the ball and in the range."""
    return x + (x_adv - x).clamp(-eps, eps)


def forgets_the_ball(x_adv, x, eps):
    """The result is in [0, 1] but further than eps from `x`: clip the difference to [-eps, eps] too."""
    return x_adv.clamp(0, 1)


def projects_onto_l2(x_adv, x, eps):
    """It scales the difference to the L2 length eps; the L-inf ball is a cube: each pixel is clipped by itself."""
    delta = x_adv - x
    length = delta.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
    return (x + delta * (eps / length).clamp_max(1)).clamp(0, 1)


def shrinks_toward_x(x_adv, x, eps):
    """It shrinks the whole difference until its largest pixel fits; pixels that were within eps should stay."""
    delta = x_adv - x
    largest = delta.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-12)
    return (x + delta * (eps / largest).clamp_max(1)).clamp(0, 1)


def returns_delta(x_adv, x, eps):
    """It returns the clipped difference; add it to `x`."""
    return (x_adv - x).clamp(-eps, eps)


def candidates(seed: int = 3) -> list[dict]:
    x, _ = images(seed)
    far = 1.2 * torch.rand(x.shape, generator=torch.Generator().manual_seed(seed + 1)) - 0.6
    return [{"x_adv": x + far, "x": x.clone(), "eps": eps} for eps in RADII]


def nearest(x_adv, x, eps) -> np.ndarray:
    """The median of the candidate and the two ends of what each pixel may be."""
    x_adv, x = x_adv.double().numpy(), x.double().numpy()
    return np.median([x_adv, np.maximum(x - eps, 0), np.minimum(x + eps, 1)], axis=0)


project = Exercise(
    chapter=CHAPTER,
    task=r"""
        **Back into the ball.** A step may lead out of what the attacker is allowed. Write `my_project(x_adv, x,
        eps)`: the nearest point with $\|x' - x\|_\infty \le \epsilon$ and every pixel in [0, 1].
    """,
    solution=my_project,
    truth=nearest,
    cases=candidates,
    tested=f"{IMAGES} images at eps {', '.join(f'{eps:g}' for eps in RADII)}, candidates in and out of ball and range",
    hints=(
        "In L-inf each pixel has its own limits, whatever the others do. What are the least and the largest value that "
        "a pixel `x` may become?",
        "Clip the difference `x_adv - x` to [-eps, eps] and add it to the center.",
        "One more `clamp` brings the result into the range of images; `x` is in it, so that nothing leaves the ball.",
    ),
    mistakes=(
        clips_around_x_adv,
        forgets_the_range,
        forgets_the_ball,
        projects_onto_l2,
        shrinks_toward_x,
        returns_delta,
    ),
    look=leaves_the_set,
)


# --- pgd


def my_pgd(model, x, y, eps, step_size, steps):
    """From x: step up the loss, come back into the ball, repeat.

    model: images (N, C, H, W) in [0, 1] to logits (N, K).
    x: images; y: labels (N,); eps: radius, in pixel units.
    step_size: length of a step, in pixel units; steps: how many.
    Returns x_adv, like x, in [0, 1] and within eps of x.
    """
    x_adv = x
    for _ in range(steps):
        x_adv = x_adv.detach().requires_grad_()
        loss = F.cross_entropy(model(x_adv), y)
        gradient = torch.autograd.grad(loss, x_adv)[0]
        x_adv = x_adv + step_size * gradient.sign()
        x_adv = torch.clamp(x_adv, x - eps, x + eps).clamp(0, 1)
    return x_adv.detach()


def projects_around_the_last(model, x, y, eps, step_size, steps):
    """It projects around the last iterate, so that every step may go eps further; the center is the clean `x`."""
    x_adv = x
    for _ in range(steps):
        step = (step_size * gradient_of(model, x_adv, y).sign()).clamp(-eps, eps)
        x_adv = (x_adv + step).clamp(0, 1)
    return x_adv


def never_projects(model, x, y, eps, step_size, steps):
    """It never comes back into the ball: after each step, project around `x` with radius eps."""
    x_adv = x
    for _ in range(steps):
        x_adv = (x_adv + step_size * gradient_of(model, x_adv, y).sign()).clamp(0, 1)
    return x_adv


def projects_once_at_the_end(model, x, y, eps, step_size, steps):
    """It projects once, after the loop: the gradients are then taken at points that the attacker may not use."""
    return my_project(never_projects(model, x, y, eps, step_size, steps), x, eps)


def uses_the_first_gradient_only(model, x, y, eps, step_size, steps):
    """Every step uses the gradient at `x`: take it anew at each iterate, or the loop is one long straight step."""
    step = step_size * gradient_of(model, x, y).sign()
    x_adv = x
    for _ in range(steps):
        x_adv = my_project(x_adv + step, x, eps)
    return x_adv


def steps_of_full_length(model, x, y, eps, step_size, steps):
    """Each step has the length eps; it should have the length `step_size`."""
    return my_pgd(model, x, y, eps, eps, steps)


def never_zeroes_the_gradient(model, x, y, eps, step_size, steps):
    """The gradients of all steps add up: `backward()` adds to `.grad`, so set it to None before each step."""
    x_adv, total = x, torch.zeros_like(x)
    for _ in range(steps):
        total = total + gradient_of(model, x_adv, y)
        x_adv = my_project(x_adv + step_size * total.sign(), x, eps)
    return x_adv


def forgets_the_range_in_the_loop(model, x, y, eps, step_size, steps):
    """Some pixels leave [0, 1]: clip to the range of images after each step, as well as to the ball."""
    x_adv = x
    for _ in range(steps):
        x_adv = x + (x_adv + step_size * gradient_of(model, x_adv, y).sign() - x).clamp(-eps, eps)
    return x_adv


def many_steps_cases(seed: int = 2) -> list[dict]:
    x, y = images(seed + 1)
    return [
        {"model": victim(seed), "x": x.clone(), "y": y.clone(), "eps": eps, "step_size": step_size, "steps": steps}
        for eps, step_size, steps in SCHEDULES
    ]


def many_steps(model, x, y, eps, step_size, steps) -> np.ndarray:
    x, y = x.detach().double().numpy(), y.numpy()
    low, high = np.maximum(x - eps, 0), np.minimum(x + eps, 1)
    x_adv = x
    for _ in range(steps):
        x_adv = np.clip(x_adv + step_size * np.sign(gradient_by_hand(model, x_adv, y)), low, high)
    return x_adv


pgd = Exercise(
    chapter=CHAPTER,
    task=r"""
        **Projected gradient descent.** Write `my_pgd(model, x, y, eps, step_size, steps)`: start at `x`, and in
        each step

        $$x_{k+1} = \Pi_{B(x, \epsilon)}\left(x_k + \alpha \, \mathrm{sign}(\nabla_x L(f(x_k), y))\right)$$

        with $\alpha$ = `step_size`. The package's `pgd` starts at a random point of the ball; here the start is
        `x`.
    """,
    solution=my_pgd,
    truth=many_steps,
    cases=many_steps_cases,
    tested=f"{IMAGES} images, {len(SCHEDULES)} settings of eps, step size and steps, against backpropagation by hand",
    hints=(
        "Two functions that you wrote do most of the work: a step by the sign of the gradient, and a projection.",
        "Keep two variables apart: `x`, which never changes and is the center of the ball, and `x_adv`, which walks.",
        "In the loop: the gradient at `x_adv` (begin with `x_adv = x_adv.detach().requires_grad_()`), a step of length "
        "`step_size` along its sign, then the projection around `x`.",
    ),
    mistakes=(
        projects_around_the_last,
        never_projects,
        projects_once_at_the_end,
        uses_the_first_gradient_only,
        steps_of_full_length,
        never_zeroes_the_gradient,
        forgets_the_range_in_the_loop,
    ),
    look=leaves_the_set,
)

EXERCISES = (fgsm, project, pgd)

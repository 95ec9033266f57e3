"""Chapter 03: the ball of L2, the price of a signed step, a saliency score, and a gradient where there is none."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spai_lab.exercises.chapter_02 import IMAGES, candidates, gradient_by_hand, gradient_of, images, victim
from spai_lab.exercises.exercise import Exercise

CHAPTER = "03_minimal_adaptive_physical"
LENGTHS = (0.0, 0.5, 5.0)


# --- project_l2


def my_project_l2(x_adv, x, eps):
    """The way back into the L2 ball around x, then into [0, 1]; each image by itself.

    x_adv: candidates (N, C, H, W), anywhere; x: clean images in [0, 1].
    eps: largest length of an image's change, in pixel units.
    Returns a tensor like x.
    """
    delta = x_adv - x
    length = delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    factor = (eps / length.clamp_min(1e-12)).clamp(max=1)
    return (x + factor * delta).clamp(0, 1)


def scales_short_ones_too(x_adv, x, eps):
    """It brings every change to the length eps, short ones too; what is inside the ball already stays as it is."""
    delta = x_adv - x
    length = delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1).clamp_min(1e-12)
    return (x + eps / length * delta).clamp(0, 1)


def measures_the_whole_batch(x_adv, x, eps):
    """It measures one length for the whole batch; every image has a ball of its own."""
    delta = x_adv - x
    return (x + delta * (eps / delta.norm().clamp_min(1e-12)).clamp(max=1)).clamp(0, 1)


def clips_each_pixel(x_adv, x, eps):
    """It clips each pixel to eps, which is the ball of L-inf; in L2 the whole change is scaled by one factor."""
    return (x + (x_adv - x).clamp(-eps, eps)).clamp(0, 1)


def forgets_the_root(x_adv, x, eps):
    """It divides by the squared length; the length is the square root of the sum of squares."""
    delta = x_adv - x
    squared = delta.flatten(1).square().sum(1).view(-1, 1, 1, 1)
    return (x + (eps / squared.clamp_min(1e-12)).clamp(max=1) * delta).clamp(0, 1)


def leaves_the_range(x_adv, x, eps):
    """The change has the right length, but pixels leave [0, 1]: clip to the range of images at the end."""
    delta = x_adv - x
    length = delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1).clamp_min(1e-12)
    return x + (eps / length).clamp(max=1) * delta


def candidates_at_lengths(seed: int = 3) -> list[dict]:
    cases = [{**case, "eps": eps} for case, eps in zip(candidates(seed), LENGTHS, strict=True)]
    cases[0]["x_adv"][0] = cases[0]["x"][0]  # no change at all, and no room for one
    return cases


def scaled_image_by_image(x_adv, x, eps) -> np.ndarray:
    """Each image alone, in float64."""
    found = []
    for candidate, center in zip(x_adv.double().numpy(), x.double().numpy(), strict=True):
        delta = candidate - center
        length = np.sqrt((delta**2).sum())
        found.append(np.clip(center + (delta if length <= eps else delta / length * eps), 0, 1))
    return np.stack(found)


def too_long(result: np.ndarray, x_adv, x, eps) -> str | None:
    """What stands out in a result: out of range, or out of the ball."""
    if result.min() < 0 or result.max() > 1:
        return f"Its values run from {result.min():.3g} to {result.max():.3g}; an image has its pixels in [0, 1]."
    longest = np.sqrt(((result - x.numpy()) ** 2).sum((1, 2, 3))).max()
    return f"A change has the length {longest:.3g}, more than eps = {eps:g}." if longest > eps + 1e-5 else None


project_l2 = Exercise(
    chapter=CHAPTER,
    task=r"""
        **Back into the L2 ball.** Write `my_project_l2(x_adv, x, eps)`: with $\delta = x' - x$, image by image,

        $$x + \delta \, \min\left(1, \frac{\epsilon}{\|\delta\|_2}\right), \quad \text{then clipped to } [0, 1].$$

        A change of length zero is allowed, and so is $\epsilon = 0$.
    """,
    solution=my_project_l2,
    truth=scaled_image_by_image,
    cases=candidates_at_lengths,
    tested=f"{IMAGES} images at eps {', '.join(f'{eps:g}' for eps in LENGTHS)}, against plain arithmetic",
    hints=(
        "All pixels of one image share one factor; two images do not. What is the shape of the tensor of factors?",
        "`delta.flatten(1).norm(dim=1)` gives `(N,)` lengths; `.view(-1, 1, 1, 1)` lets them multiply the batch.",
        "The factor is eps / length, but never above 1; keep the length above zero before you divide.",
    ),
    mistakes=(scales_short_ones_too, measures_the_whole_batch, clips_each_pixel, forgets_the_root, leaves_the_range),
    look=too_long,
)


# --- detour


def my_detour(w):
    """How many times longer (L2) FGSM's way to a plane is than DeepFool's.

    w: the normal of the plane w * x + b = 0 in pixels, a tensor (d,).
    Returns a number, from 1 to the square root of d.
    """
    return (len(w) ** 0.5 * w.norm() / w.abs().sum()).item()


def turns_it_around(w):
    """That is DeepFool's way by FGSM's, at most 1; FGSM's is never the shorter one, so divide the other way round."""
    return 1 / my_detour(w)


def forgets_the_pixels(w):
    """A signed step of size eps moves all d pixels, so its L2 length is eps times the square root of d."""
    return (w.norm() / w.abs().sum()).item()


def compares_the_norms(w):
    """That compares the norms of `w`; ask how large eps must be, and how long the step of that eps is in L2."""
    return (w.abs().sum() / w.norm()).item()


def counts_pixels_without_the_root(w):
    """The length of d equal entries grows with the square root of d, not with d."""
    return (len(w) * w.norm() / w.abs().sum()).item()


def normals(seed: int = 5) -> list[dict]:
    generator = torch.Generator().manual_seed(seed)
    return [
        {"w": torch.tensor([3.0, 4.0])},
        {"w": torch.ones(9)},
        {"w": torch.tensor([0.0, 0.0, 2.0, 0.0])},
        {"w": torch.randn(784, generator=generator)},
    ]


def walked(w) -> float:
    """Both walks taken, from a point at which w * x + b = -1, by the condition that they end on the plane."""
    normal = w.double().numpy()
    straight = normal / (normal @ normal)
    signed = np.sign(normal) / (normal @ np.sign(normal))
    moved = np.full(len(normal), np.abs(signed).max())  # the worst case: pixels without a slope move too
    return float(np.sqrt((moved**2).sum()) / np.sqrt((straight**2).sum()))


def out_of_bounds(result: np.ndarray, w) -> str | None:
    """What stands out in a factor that cannot be."""
    if result < 1 - 1e-6:
        return f"It returns {result:.3g}; no way to a plane is shorter than the straight one, so at least 1."
    return f"It returns {result:.3g}, more than the square root of d." if result > len(w) ** 0.5 + 1e-4 else None


detour = Exercise(
    chapter=CHAPTER,
    task=r"""
        **Why DeepFool beats FGSM in distortion.** Near $x$ the boundary is almost the plane $w \cdot x + b = 0$.
        DeepFool walks straight: $\delta = -\frac{w \cdot x + b}{\|w\|_2^2} w$. FGSM moves *every* one of the $d$ pixels
        by $\epsilon$, with the signs of $w$, and $\epsilon$ just large enough to arrive. Write `my_detour(w)`: the
        $L_2$ length of FGSM's way divided by that of DeepFool's. It does not depend on where $x$ is; it lies between 1
        and $\sqrt{d}$.
    """,
    solution=my_detour,
    truth=walked,
    cases=normals,
    tested="a 3-4-5 triangle, nine equal weights, a single weight, and 784 random ones",
    hints=(
        "Call the distance in score m = |w * x + b|. The straight way has the length m / ||w||_2.",
        "A step of eps times the signs changes the score by eps times ||w||_1. Which eps changes it by m?",
        "The step of that eps has the length eps times the square root of d; divide it by m / ||w||_2, and m cancels.",
    ),
    mistakes=(turns_it_around, forgets_the_pixels, compares_the_norms, counts_pixels_without_the_root),
    look=out_of_bounds,
)


# --- saliency


def my_saliency(jacobian, target):
    """The score of every pixel: how well raising it alone would serve the target class.

    jacobian: how each class changes with each pixel, (K, d); target: a class number.
    Returns scores (d,), at least 0.
    """
    toward = jacobian[target]
    others = jacobian.sum(0) - toward
    useful = (toward > 0) & (others < 0)
    return torch.where(useful, toward * others.abs(), torch.zeros_like(toward))


def checks_the_target_alone(jacobian, target):
    """It keeps pixels that raise the other classes too; the sum over the other classes has to fall."""
    toward = jacobian[target]
    others = jacobian.sum(0) - toward
    return torch.where(toward > 0, toward * others.abs(), torch.zeros_like(toward))


def checks_the_others_alone(jacobian, target):
    """It keeps pixels that lower the target; its own derivative has to be positive."""
    toward = jacobian[target]
    others = jacobian.sum(0) - toward
    return torch.where(others < 0, toward.abs() * others.abs(), torch.zeros_like(toward))


def multiplies_without_looking(jacobian, target):
    """It multiplies the two derivatives whatever their signs; pixels that work against the attack score 0."""
    toward = jacobian[target]
    return toward * (jacobian.sum(0) - toward).abs()


def sums_all_classes(jacobian, target):
    """Its sum counts the target too; the second factor is about the other classes alone."""
    toward, total = jacobian[target], jacobian.sum(0)
    return torch.where((toward > 0) & (total < 0), toward * total.abs(), torch.zeros_like(toward))


def sums_sizes(jacobian, target):
    """It sums the sizes of the other derivatives; take the sum first and its size afterwards."""
    toward = jacobian[target]
    others = jacobian.sum(0) - toward
    sizes = jacobian.abs().sum(0) - toward.abs()
    return torch.where((toward > 0) & (others < 0), toward * sizes, torch.zeros_like(toward))


def jacobians(seed: int = 6) -> list[dict]:
    generator = torch.Generator().manual_seed(seed)
    return [
        {"jacobian": torch.randn(classes, pixels, generator=generator), "target": target}
        for classes, pixels, target in ((3, 12, 0), (4, 30, 2), (10, 64, 9))
    ]


def pixel_by_pixel(jacobian, target) -> np.ndarray:
    """Each pixel alone, with plain numbers."""
    scores = []
    for pixel in jacobian.double().numpy().T:
        toward, others = pixel[target], sum(slope for k, slope in enumerate(pixel) if k != target)
        scores.append(0.0 if toward <= 0 or others >= 0 else toward * -others)
    return np.array(scores)


def negative_scores(result: np.ndarray, jacobian, target) -> str | None:
    """What stands out in scores that cannot be."""
    return (
        f"{(result < 0).sum()} scores are negative; a pixel that does not help scores 0." if result.min() < 0 else None
    )


saliency = Exercise(
    chapter=CHAPTER,
    task=r"""
        **A saliency score.** JSMA asks of every pixel $i$: if I raise it alone, does the target class $t$ gain while
        the others, taken together, lose? Write `my_saliency(jacobian, target)`:

        $$S_i = \begin{cases} 0 & \text{if } \frac{\partial F_t}{\partial x_i} < 0 \text{ or }
        \sum_{j \ne t} \frac{\partial F_j}{\partial x_i} > 0, \\
        \frac{\partial F_t}{\partial x_i} \left| \sum_{j \ne t} \frac{\partial F_j}{\partial x_i} \right| & \text{else.}
        \end{cases}$$
    """,
    solution=my_saliency,
    truth=pixel_by_pixel,
    cases=jacobians,
    tested="three Jacobians of 3, 4 and 10 classes, pixel by pixel",
    hints=(
        "Two rows matter: the target's own, `jacobian[target]`, and the sum of all the others.",
        "The sum over all classes less the target's row is the sum over the others.",
        "Use `torch.where` with both conditions joined by `&`; where they fail, the score is 0.",
    ),
    mistakes=(
        checks_the_target_alone,
        checks_the_others_alone,
        multiplies_without_looking,
        sums_all_classes,
        sums_sizes,
    ),
    look=negative_scores,
)


# --- bpda_gradient


def my_bpda_gradient(model, preprocess, x, y):
    """The gradient that an attacker uses on a model behind a step that has none.

    model: images to logits (N, K).
    preprocess: images to images, without a useful gradient.
    x: images; y: labels (N,). The loss is the cross-entropy, summed over the images.
    Returns the gradient, like x.
    """
    seen = preprocess(x).detach().requires_grad_()
    loss = F.cross_entropy(model(seen), y, reduction="sum")
    return torch.autograd.grad(loss, seen)[0]


def skips_the_defense(model, preprocess, x, y):
    """It takes the gradient at `x`; the forward pass goes through `preprocess`, only the backward pass skips it."""
    return len(x) * gradient_of(model, x, y)


def goes_through_the_staircase(model, preprocess, x, y):
    """It differentiates `preprocess`, and a staircase is flat: every entry is zero. Let the gradient pass unchanged."""
    return torch.zeros_like(x)


def preprocesses_the_gradient(model, preprocess, x, y):
    """It sends the gradient itself through `preprocess`; the gradient passes unchanged."""
    return preprocess(my_bpda_gradient(model, preprocess, x, y))


def takes_the_sign(model, preprocess, x, y):
    """That is the sign of the gradient, a step of FGSM; return the gradient itself."""
    return my_bpda_gradient(model, preprocess, x, y).sign()


def takes_the_mean(model, preprocess, x, y):
    """The loss is averaged over the batch, so that an image's gradient depends on its company: sum the losses."""
    return my_bpda_gradient(model, preprocess, x, y) / len(x)


def to_four_levels(x: Tensor) -> Tensor:
    """Every pixel rounded to one of four gray levels, a staircase."""
    return torch.round(3 * x) / 3


def to_black_and_white(x: Tensor) -> Tensor:
    """Every pixel black or white."""
    return (x > 0.5).to(x.dtype)


def defended(seed: int = 2) -> list[dict]:
    x, y = images(seed + 1)
    return [
        {"model": victim(seed), "preprocess": preprocess, "x": x.clone(), "y": y.clone()}
        for preprocess in (to_four_levels, to_black_and_white)
    ]


def straight_through(model: nn.Module, preprocess, x, y) -> np.ndarray:
    return gradient_by_hand(model, preprocess(x).double().numpy(), y.numpy())


def all_zero(result: np.ndarray, **case: object) -> str | None:
    """What stands out in a gradient that moves nothing."""
    return "Every entry is zero: the gradient died in `preprocess`." if not result.any() else None


bpda_gradient = Exercise(
    chapter=CHAPTER,
    task=r"""
        **One BPDA backward.** A defense rounds the pixels, $g(x)$, before the network sees them. Rounding is a
        staircase: its derivative is 0. But $g(x) \approx x$, so on the way back pretend that its derivative is 1. Write
        `my_bpda_gradient(model, preprocess, x, y)`:

        $$\nabla_x L(f(g(x)), y) \approx \nabla_z L(f(z), y) \big|_{z = g(x)}$$
    """,
    solution=my_bpda_gradient,
    truth=straight_through,
    cases=defended,
    tested=f"{IMAGES} images behind two defenses: four gray levels, and black and white",
    hints=(
        "The network sees `preprocess(x)`: compute that first.",
        "Make it a fresh tensor on which PyTorch records: `.detach().requires_grad_()`.",
        "Take the gradient with respect to that tensor and return it as the gradient with respect to `x`.",
    ),
    mistakes=(
        skips_the_defense,
        goes_through_the_staircase,
        preprocesses_the_gradient,
        takes_the_sign,
        takes_the_mean,
    ),
    look=all_zero,
    tolerance=1e-4,
)

EXERCISES = (project_l2, detour, saliency, bpda_gradient)

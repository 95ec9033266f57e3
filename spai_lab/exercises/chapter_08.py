"""Chapter 08: a step of the inner loop, a radius from votes, and an interval through a layer."""

from itertools import product
from statistics import NormalDist

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor

from spai_lab.checks import describe
from spai_lab.exercises.chapter_02 import IMAGES, gradient_by_hand, gradient_of, images, leaves_the_set, victim
from spai_lab.exercises.exercise import Exercise, Fault, call

CHAPTER = "08_robust_training"


# --- inner_step


def my_inner_step(model, x, y, x_adv, eps, alpha):
    """One step of the inner loop of PGD training.

    model: the network in training; x: clean images in [0, 1]; y: labels (N,).
    x_adv: where the loop stands, within eps of x.
    eps: radius of the ball; alpha: length of a step; both in pixel units.
    Returns the next x_adv, in [0, 1] and within eps of x.
    """
    x_adv = x_adv.clone().requires_grad_()
    loss = F.cross_entropy(model(x_adv), y)
    gradient = torch.autograd.grad(loss, x_adv)[0]
    stepped = x_adv.detach() + alpha * gradient.sign()
    return torch.clamp(stepped, x - eps, x + eps).clamp(0, 1)


def stepped(x_adv: Tensor, x: Tensor, step: Tensor, eps: float) -> Tensor:
    """A step from `x_adv`, and the way back into the ball around `x` and the range of images."""
    return torch.clamp(x_adv + step, x - eps, x + eps).clamp(0, 1)


def starts_at_the_clean_image(model, x, y, x_adv, eps, alpha):
    """It steps from `x`, so that the loop never gets further than one step; step from `x_adv`."""
    return stepped(x, x, alpha * gradient_of(model, x_adv, y).sign(), eps)


def takes_the_clean_gradient(model, x, y, x_adv, eps, alpha):
    """It takes the gradient at `x`, the same in every step; take it where the loop stands, at `x_adv`."""
    return stepped(x_adv, x, alpha * gradient_of(model, x, y).sign(), eps)


def centers_on_x_adv(model, x, y, x_adv, eps, alpha):
    """Its ball is around `x_adv`, and moves along with the loop; the ball is around the clean `x`."""
    return stepped(x_adv, x_adv, alpha * gradient_of(model, x_adv, y).sign(), eps)


def never_comes_back(model, x, y, x_adv, eps, alpha):
    """It never comes back into the ball: after the step, no pixel may be further than eps from `x`."""
    return (x_adv + alpha * gradient_of(model, x_adv, y).sign()).clamp(0, 1)


def leaves_the_range(model, x, y, x_adv, eps, alpha):
    """Some pixels leave [0, 1]; what the network trains on should be images."""
    return torch.clamp(x_adv + alpha * gradient_of(model, x_adv, y).sign(), x - eps, x + eps)


def descends(model, x, y, x_adv, eps, alpha):
    """It walks down the loss; the inner loop seeks the worst image in the ball, and the weights walk down later."""
    return stepped(x_adv, x, -alpha * gradient_of(model, x_adv, y).sign(), eps)


def steps_by_eps(model, x, y, x_adv, eps, alpha):
    """Its step has the length eps, and jumps from corner to corner of the ball; the length of a step is `alpha`."""
    return stepped(x_adv, x, eps * gradient_of(model, x_adv, y).sign(), eps)


def uses_the_raw_gradient(model, x, y, x_adv, eps, alpha):
    """The step follows the raw gradient, so that most pixels hardly move: take its sign."""
    return stepped(x_adv, x, alpha * gradient_of(model, x_adv, y), eps)


def trusts_the_model(model, x, y, x_adv, eps, alpha):
    """It leads away from what the model says now; where that is wrong already, this leads back. Use the label `y`."""
    return stepped(x_adv, x, alpha * gradient_of(model, x_adv, model(x_adv).argmax(1)).sign(), eps)


def halfway(seed: int = 19) -> list[dict]:
    """The loop somewhere in its ball; steps shorter than the ball, and one longer."""
    x, y = images()
    generator = torch.Generator().manual_seed(seed)
    cases = []
    for eps, alpha in ((0.3, 0.1), (0.1, 0.15), (0.2, 0.05)):
        offset = eps * (2 * torch.rand(x.shape, generator=generator) - 1)
        x_adv = (x + offset).clamp(0, 1)
        cases.append({"model": victim(), "x": x.clone(), "y": y.clone(), "x_adv": x_adv, "eps": eps, "alpha": alpha})
    return cases


def step_by_hand(model, x, y, x_adv, eps, alpha) -> np.ndarray:
    """The median of the stepped pixel and the two ends of what it may be."""
    x, x_adv = x.double().numpy(), x_adv.double().numpy()
    candidate = x_adv + alpha * np.sign(gradient_by_hand(model, x_adv, y.numpy()))
    return np.median([candidate, np.maximum(x - eps, 0), np.minimum(x + eps, 1)], axis=0)


inner_step = Exercise(
    chapter=CHAPTER,
    task=r"""
        **The inner loop.** PGD training minimizes over the weights what an attacker maximizes over the ball,
        $\min_\theta \mathbb{E} \max_{\|x' - x\|_\infty \le \epsilon} L(f_\theta(x'), y)$. For each batch the inner loop
        repeats one step. Write `my_inner_step(model, x, y, x_adv, eps, alpha)`, with cross-entropy as the loss:

        $$x'_{t+1} = \Pi\big(x'_t + \alpha \, \mathrm{sign}(\nabla_{x'} L(f_\theta(x'_t), y))\big),$$

        where $\Pi$ leads back to within $\epsilon$ of the clean $x$ and into [0, 1]. The weights stay as they are.
    """,
    solution=my_inner_step,
    truth=step_by_hand,
    cases=halfway,
    tested=f"one step from {IMAGES} points in each of three balls, against backpropagation by hand",
    hints=(
        "Two images have two roles: `x_adv` is where the loop stands, and `x` is the center of the ball.",
        "`torch.autograd.grad(loss, x_adv)[0]` leaves the weights alone, `loss.backward()` would fill their gradients; "
        "record on a copy, `x_adv.clone().requires_grad_()`.",
        "`torch.clamp(stepped, x - eps, x + eps)` leads back into the ball, one more `clamp` into [0, 1].",
    ),
    mistakes=(
        starts_at_the_clean_image,
        takes_the_clean_gradient,
        centers_on_x_adv,
        never_comes_back,
        leaves_the_range,
        descends,
        steps_by_eps,
        uses_the_raw_gradient,
        trusts_the_model,
    ),
    look=leaves_the_set,
)


# --- certified_radius


def my_certified_radius(n_A, n, sigma, alpha):
    """The L2 radius within which the smoothed class cannot change.

    n_A: votes for the class, 1 to n; n: noisy copies that voted.
    sigma: standard deviation of the noise, in pixel units.
    alpha: the chance that the certificate may be wrong, such as 0.001.
    Returns the radius, in pixel units; -1 to abstain.
    """
    p_A = stats.beta.ppf(alpha, n_A, n - n_A + 1)
    return sigma * stats.norm.ppf(p_A) if p_A > 0.5 else -1


def radius_at(p_A: float, sigma: float) -> float:
    """The radius for a lower bound of the probability, or -1."""
    return sigma * float(stats.norm.ppf(p_A)) if p_A > 0.5 else -1


def trusts_the_share(n_A, n, sigma, alpha):
    """It takes the share of votes for the probability; take the lower bound that holds with confidence 1 - alpha."""
    return radius_at(n_A / n, sigma)


def takes_both_sides(n_A, n, sigma, alpha):
    """It spends half of alpha on an upper bound, which nobody asked for; the lower bound may have all of it."""
    return my_certified_radius(n_A, n, sigma, alpha / 2)


def takes_the_upper_end(n_A, n, sigma, alpha):
    """Its bound is above the share of votes: the lower one is the quantile at alpha, not at 1 - alpha."""
    return my_certified_radius(n_A, n, sigma, 1 - alpha)


def assumes_normal_votes(n_A, n, sigma, alpha):
    """It approximates the votes by a normal distribution, which near 1 promises too much: all votes, all certain."""
    p = n_A / n
    return radius_at(p + stats.norm.ppf(alpha) * (p * (1 - p) / n) ** 0.5, sigma)


def adds_a_vote(n_A, n, sigma, alpha):
    """Its Beta distribution counts a vote too many, that of a uniform prior; its first parameter is n_A."""
    return radius_at(stats.beta.ppf(alpha, n_A + 1, n - n_A + 1), sigma)


def forgets_the_other_vote(n_A, n, sigma, alpha):
    """Its second parameter lacks the 1, and promises too much; it is n - n_A + 1."""
    return radius_at(stats.beta.ppf(alpha, n_A, n - n_A) if n_A < n else 1.0, sigma)


def forgets_sigma(n_A, n, sigma, alpha):
    """It forgets sigma: twice the noise for the same votes is twice the radius."""
    return my_certified_radius(n_A, n, 1.0, alpha)


def takes_the_distribution(n_A, n, sigma, alpha):
    """It takes the normal distribution function of the bound; the radius takes its inverse, the quantile."""
    p_A = stats.beta.ppf(alpha, n_A, n - n_A + 1)
    return sigma * stats.norm.cdf(p_A) if p_A > 0.5 else -1


def never_abstains(n_A, n, sigma, alpha):
    """It returns a radius below zero where the class may have less than half of the votes; abstain, with -1."""
    return sigma * stats.norm.ppf(stats.beta.ppf(alpha, n_A, n - n_A + 1))


def returns_zero_to_abstain(n_A, n, sigma, alpha):
    """It returns 0 where it should abstain; a radius of 0 still names a class, so abstain with -1."""
    return max(my_certified_radius(n_A, n, sigma, alpha), 0)


VOTES = (
    (99, 100, 0.25, 0.001),
    (100, 100, 0.5, 0.001),
    (60, 100, 0.5, 0.001),
    (560, 1000, 1.0, 0.01),
    (9930, 10000, 0.25, 0.001),
    (3, 100, 0.5, 0.001),
)


def votes() -> list[dict]:
    return [dict(zip(("n_A", "n", "sigma", "alpha"), vote, strict=True)) for vote in VOTES]


def by_exact_test(n_A, n, sigma, alpha) -> float:
    """The lower end of SciPy's exact interval, which it finds as the root of a binomial tail."""
    test = stats.binomtest(n_A, n, alternative="greater")
    low = test.proportion_ci(confidence_level=1 - alpha, method="exact").low
    return sigma * NormalDist().inv_cdf(low) if low > 0.5 else -1.0


def promises_too_much(result: np.ndarray, n_A, n, sigma, alpha) -> str | None:
    """What stands out in a radius that the votes do not support."""
    if -1 < result < 0:
        return f"It returns {result:.4g}; a radius is at least 0, and -1 means to abstain."
    right = by_exact_test(n_A, n, sigma, alpha)
    if result <= right:
        return None
    supported = "these votes support none: abstain" if right < 0 else f"these votes support {right:.4g}"
    return f"For {n_A} of {n} votes, sigma = {sigma:g}, alpha = {alpha:g} it certifies {result:.4g}; {supported}."


certified_radius = Exercise(
    chapter=CHAPTER,
    task=r"""
        **A radius from votes.** Of $n$ noisy copies of an image, $n_A$ were read as class $A$. The probability of that
        reading is unknown; with confidence $1 - \alpha$ it is at least the one-sided bound of Clopper and Pearson,

        $$\underline{p_A} = \text{the } \alpha \text{ quantile of } \mathrm{Beta}(n_A, n - n_A + 1), \qquad
        R = \sigma \, \Phi^{-1}(\underline{p_A}).$$

        Write `my_certified_radius(n_A, n, sigma, alpha)`: the radius $R$ if $\underline{p_A} > \frac{1}{2}$, and
        otherwise -1, to abstain. `stats` is `scipy.stats`.
    """,
    solution=my_certified_radius,
    truth=by_exact_test,
    cases=votes,
    tested="3 to 9,930 votes of 100 to 10,000, two of them too few, against SciPy's exact binomial test",
    hints=(
        "Bound first, radius second: sixty of a hundred votes do not prove a majority at alpha = 0.001.",
        "`stats.beta.ppf(q, a, b)` is the q quantile of Beta(a, b), `stats.norm.ppf(p)` is $\\Phi^{-1}(p)$.",
        "If all n vote alike, the bound is $\\alpha^{1/n}$: at n = 100 and alpha = 0.001 it is 0.933, not 1.",
    ),
    mistakes=(
        trusts_the_share,
        takes_both_sides,
        takes_the_upper_end,
        assumes_normal_votes,
        adds_a_vote,
        forgets_the_other_vote,
        forgets_sigma,
        takes_the_distribution,
        never_abstains,
        returns_zero_to_abstain,
    ),
    look=promises_too_much,
)


# --- interval_layer


def my_interval_layer(lower, upper, W, b):
    """The least and the largest outputs of an affine layer on boxes of inputs.

    lower, upper: the ends of every input, (N, d), lower <= upper.
    W: weights (m, d); b: biases (m,). The layer is W x + b.
    Returns two tensors (N, m): the lower and the upper ends.
    """
    center, radius = (lower + upper) / 2, (upper - lower) / 2
    center, radius = center @ W.T + b, radius @ W.abs().T
    return center - radius, center + radius


def sends_the_ends_through(lower, upper, W, b):
    """It sends each end through the layer; a negative weight turns the larger input into the smaller output."""
    return lower @ W.T + b, upper @ W.T + b


def sorts_the_images(lower, upper, W, b):
    """It sorts the images of two corners; with weights of both signs the extremes are at other corners of the box."""
    first, second = sends_the_ends_through(lower, upper, W, b)
    return torch.minimum(first, second), torch.maximum(first, second)


def sizes_at_the_center(lower, upper, W, b):
    """It sends the center through the sizes of the weights; only the radius meets them."""
    center, radius = (lower + upper) / 2, (upper - lower) / 2
    return center @ W.abs().T + b - radius @ W.abs().T, center @ W.abs().T + b + radius @ W.abs().T


def forgets_the_half(lower, upper, W, b):
    """It adds the whole width on both sides; the radius is half of it. Sound, but twice as wide as need be."""
    center, width = (lower + upper) / 2 @ W.T + b, (upper - lower) @ W.abs().T
    return center - width, center + width


def forgets_the_bias(lower, upper, W, b):
    """It forgets the bias, which shifts both ends alike."""
    return my_interval_layer(lower, upper, W, torch.zeros_like(b))


def widens_by_the_bias(lower, upper, W, b):
    """The bias is added to the radius too; it shifts the interval, and makes it neither wider nor narrower."""
    low, high = my_interval_layer(lower, upper, W, b)
    return low - b, high + b


def swaps_the_ends(lower, upper, W, b):
    """It returns the upper end first; the lower one comes first."""
    return my_interval_layer(lower, upper, W, b)[::-1]


def boxes(seed: int = 20) -> list[dict]:
    """Boxes of several sizes, one of them a point, and weights of both signs."""
    generator = torch.Generator().manual_seed(seed)
    cases = []
    for count, inputs, outputs in ((1, 2, 3), (4, 5, 2), (3, 4, 6)):
        lower = torch.randn(count, inputs, generator=generator)
        width = torch.rand(count, inputs, generator=generator)
        width[1:2] = 0
        W, b = torch.randn(outputs, inputs, generator=generator), torch.randn(outputs, generator=generator)
        cases.append({"lower": lower, "upper": lower + width, "W": W, "b": b})
    return cases


def two_ends(answer, lower, upper, W, b) -> Tensor | None:
    """Both ends as one tensor (2, N, m).

    Raises:
        Fault: they are not two tensors of that shape.
    """
    ends = call(answer, lower=lower, upper=upper, W=W, b=b)
    if ends is None:
        return None
    shape = (len(lower), len(W))
    if (
        not isinstance(ends, tuple | list | Tensor)
        or len(ends) != 2
        or not all(isinstance(end, Tensor) for end in ends)
    ):
        raise Fault(f"It returns {describe(ends)}; expected two tensors: `return lower_end, upper_end`.")
    if any(end.shape != shape for end in ends):
        found = " and ".join(str(tuple(end.shape)) for end in ends)
        raise Fault(f"Its ends have the shapes {found}; expected {shape} twice.")
    return torch.stack([end.double() for end in ends])


def at_the_corners(lower, upper, W, b) -> np.ndarray:
    """An affine output is extreme at a corner of the box: try them all."""
    ends, W, b = np.stack([lower.double().numpy(), upper.double().numpy()]), W.double().numpy(), b.double().numpy()
    features = np.arange(ends.shape[2])
    corners = [ends[list(choice), :, features].T @ W.T + b for choice in product((0, 1), repeat=len(features))]
    return np.stack([np.min(corners, axis=0), np.max(corners, axis=0)])


def unsound_or_loose(result: np.ndarray, lower, upper, W, b) -> str:
    """What stands out in an interval: it misses an output, or is wider than the outputs."""
    reached = at_the_corners(lower, upper, W, b)
    missed = np.maximum(result[0] - reached[0], reached[1] - result[1])
    wide = missed.max() < 1e-4
    n, m = np.unravel_index((-missed if wide else missed).argmax(), missed.shape)
    (low, high), (least, largest) = result[:, n, m], reached[:, n, m]
    said = f"Output {m} of box {n} runs from {least:.3f} to {largest:.3f}, and the interval is [{low:.3f}, {high:.3f}]"
    return f"{said}: sound, but wider than need be." if wide else f"{said}: unsound, it misses outputs."


interval_layer = Exercise(
    chapter=CHAPTER,
    task=r"""
        **A box through a layer.** The attacker may choose any input with $l \le x \le u$, each entry by itself.
        Between which values can each output of $W x + b$ lie? Write `my_interval_layer(lower, upper, W, b)`: for each
        box of the batch the tight ends, two tensors, the lower one first:

        $$\min_{l \le x \le u} W x + b, \qquad \max_{l \le x \le u} W x + b.$$
    """,
    solution=my_interval_layer,
    truth=at_the_corners,
    cases=boxes,
    tested="8 boxes of 2 to 5 inputs, two of them single points, against every corner",
    hints=(
        "One output, one input: which end of $x$ makes $w x$ largest if $w > 0$, and which if $w < 0$?",
        "A box has a center $(l + u) / 2$ and a radius $(u - l) / 2$. The center goes through the layer as it is.",
        "The radius meets the size of every weight, `W.abs()`, and no bias: its sign no longer matters.",
    ),
    mistakes=(
        sends_the_ends_through,
        sorts_the_images,
        sizes_at_the_center,
        forgets_the_half,
        forgets_the_bias,
        widens_by_the_bias,
        swaps_the_ends,
    ),
    call=two_ends,
    look=unsound_or_loose,
)

EXERCISES = (inner_step, certified_radius, interval_layer)

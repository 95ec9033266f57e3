r"""Clean-label poisons that meet in feature space: they look like one class, the network sees the target.

A last layer that learns the poisons' own, correct label learns it for the target too. Below, $\phi$ are the features
that the last layer reads, b the base images that become poison, t the target.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from spai_lab.attacks.poisoning.poisoned import Poisoned, budget, drawn, replaced
from spai_lab.checks import (
    check_ball,
    check_count,
    check_flag,
    check_images,
    check_like,
    check_model,
    check_number,
    describe,
)
from spai_lab.data import Dataset
from spai_lab.models import features
from spai_lab.threat import fresh_generator, logits_of, per_image, project, value_and_gradient


def feature_collision(
    data: Dataset,
    x_target: Tensor,
    wanted: int,
    *,
    model: nn.Module,
    fraction: float,
    eps: float = 1.0,
    beta: float = 1.0,
    watermark: float = 0.0,
    steps: int = 100,
    step_size: float = 0.1,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> Poisoned:
    r"""Poison frogs: move images of the wanted class until the network cannot tell them from the target.

    $p = \arg\min_x \|\phi(x) - \phi(t)\|_2^2 + \frac{\beta}{2} \|x - b\|_2^2$, by forward-backward splitting:
    $\hat x_i = x_{i-1} - \lambda \nabla_x \|\phi(x_{i-1}) - \phi(t)\|_2^2$, then
    $x_i = (\hat x_i + \lambda \beta b) / (1 + \beta \lambda)$.

    Args:
        data: whose training part is poisoned.
        x_target: the image t to be misread, `(1, C, H, W)` in [0, 1], of the data's dtype.
        wanted: the class it shall get, 0 to K - 1; the poisons are of this class, and keep their labels.
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`, ending in a linear layer: the feature extractor of the
            victim, which keeps it frozen. It does not change.
        fraction: of the training inputs to poison, above 0.
        eps: how far a pixel of a poison may be from its base, in pixel units; 1 leaves the weight to `beta`.
        beta: weight of staying near the base, at least 0, in squared units of a feature.
        watermark: opacity of the target in the base, in [0, 1]: b becomes (1 - watermark) b + watermark t.
        steps: of forward-backward splitting.
        step_size: first lambda, above 0; halved for a poison whenever a step would raise what it minimizes.
        generator: draws the bases; None draws a fresh one.
        progress: show a bar.
    Returns:
        the training set with poisons in place of their bases.
    Raises:
        ValueError: names the argument.
    Reference: Shafahi et al. 2018, arXiv 1804.00792, algorithm 1; the watermark from section 4.1.
    Survey: poisoning, targeted.
    Simplified: `beta` is a number; the paper's is 0.25 times a squared ratio of dimensions, for its own networks'
        features. A step that fails is halved at once; the paper looks back on the last steps' mean. `eps` and the
        range [0, 1] are enforced in every step; the paper has no bound.

    >>> from spai_lab.data import load
    >>> from spai_lab.training import reference
    >>> data, model = load("digits"), reference("lenet", "digits")
    >>> draw = torch.Generator().manual_seed(0)
    >>> attack = {"fraction": 0.002, "eps": 0.3, "steps": 5, "progress": False, "generator": draw}
    >>> feature_collision(data, data.x_val[:1], 3, model=model, **attack)
    Poisoned: 2 of 1078 training inputs
    """
    check_targeted(data, x_target, wanted, [model], eps=eps, steps=steps, step_size=step_size, progress=progress)
    check_number("beta", beta, low=0)
    check_number("watermark", watermark, low=0, high=1)
    generator = fresh_generator(generator, data.x_train.device)
    places = drawn(data.y_train == wanted, budget(data, fraction), generator)
    clean = data.x_train[places]
    b = project((1 - watermark) * clean + watermark * x_target, clean, eps, "linf")
    phi_t = features(model, x_target).detach()

    def distance(x: Tensor) -> Tensor:
        return (features(model, x) - phi_t).square().sum(1)

    @torch.no_grad()
    def objective(x: Tensor) -> Tensor:
        return distance(x) + beta / 2 * (x - b).square().flatten(1).sum(1)

    x, lowest = b, objective(b)
    rate = torch.full_like(lowest, step_size)
    for _ in tqdm(range(steps), desc="feature collision", unit="step", disable=not progress):
        lam = per_image(rate, x)
        forward = x - lam * value_and_gradient(distance, x)[1]
        backward = project((forward + lam * beta * b) / (1 + beta * lam), clean, eps, "linf")
        reached = objective(backward)
        better = reached < lowest
        x = torch.where(per_image(better, x), backward, x)
        lowest, rate = torch.minimum(reached, lowest), torch.where(better, rate, rate / 2)
    return replaced(data, places, x, data.y_train[places])


def convex_polytope(
    data: Dataset,
    x_target: Tensor,
    wanted: int,
    *,
    models: Sequence[nn.Module],
    fraction: float,
    eps: float,
    steps: int = 4000,
    step_size: float = 0.04,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> Poisoned:
    r"""Convex polytope: surround the target, in the features of several networks, by poisons of the wanted class.

    $\min_{c, x} \frac{1}{2m} \sum_{i=1}^m \frac{\|\phi^{(i)}(t) - \sum_j c_j^{(i)} \phi^{(i)}(x_j)\|_2^2}
    {\|\phi^{(i)}(t)\|_2^2}$ with $c^{(i)} \ge 0$, $\sum_j c_j^{(i)} = 1$ and $\|x_j - b_j\|_\infty \le \epsilon$:
    a linear layer that puts all the poisons into one class puts every mixture of them there, in networks, too, that
    the attacker has not seen.

    Args:
        data: whose training part is poisoned.
        x_target: the image t to be misread, `(1, C, H, W)` in [0, 1], of the data's dtype.
        wanted: the class it shall get, 0 to K - 1; the poisons are of this class, and keep their labels.
        models: m surrogates, at least one, each as `model` of `feature_collision`; the victim need not be among them.
        fraction: of the training inputs to poison, above 0.
        eps: how far a pixel of a poison may be from its base, in pixel units of [0, 1].
        steps: alternations between mixtures and poisons.
        step_size: of Adam, in pixel units.
        generator: draws the bases; None draws a fresh one.
        progress: show a bar.
    Returns:
        the training set with poisons in place of their bases.
    Raises:
        ValueError: names the argument.
    Reference: Zhu et al. 2019, arXiv 1905.05897, equation 2 and algorithm 1.
    Survey: poisoning, targeted.
    Simplified: surrogates run without dropout; only the last layer's features are surrounded (the paper's end-to-end
        variant takes every layer's). Mixtures stop at a change below 1e-4, or after 100 steps, and go on from there.

    >>> from spai_lab.data import load
    >>> from spai_lab.training import reference
    >>> data, models = load("digits"), [reference("lenet", "digits"), reference("mlp", "digits")]
    >>> draw = torch.Generator().manual_seed(0)
    >>> attack = {"fraction": 0.005, "eps": 0.3, "steps": 5, "progress": False, "generator": draw}
    >>> convex_polytope(data, data.x_val[:1], 3, models=models, **attack)
    Poisoned: 5 of 1078 training inputs
    """
    check_targeted(data, x_target, wanted, models, eps=eps, steps=steps, step_size=step_size, progress=progress)
    generator = fresh_generator(generator, data.x_train.device)
    places = drawn(data.y_train == wanted, budget(data, fraction), generator)
    base = data.x_train[places]
    phi_t = [features(model, x_target)[0].detach() for model in models]
    c = [base.new_full((len(base),), 1 / len(base)) for _ in models]
    x = base.clone().requires_grad_()
    adam = torch.optim.Adam([x], lr=step_size)
    for _ in tqdm(range(steps), desc="convex polytope", unit="step", disable=not progress):
        with torch.enable_grad():
            phi = [features(model, x) for model in models]
            c = [nearest_mixture(A.detach().T, t, c_i) for A, t, c_i in zip(phi, phi_t, c, strict=True)]
            gap = sum(relative_gap(c_i @ A, t) for A, t, c_i in zip(phi, phi_t, c, strict=True))
            (x.grad,) = torch.autograd.grad(gap / (2 * len(models)), x)
        adam.step()
        x.detach().copy_(project(x, base, eps, "linf"))
    return replaced(data, places, x.detach(), data.y_train[places])


def relative_gap(mixture: Tensor, t: Tensor) -> Tensor:
    """Squared distance of a mixture from the target, as a share of the target's squared length."""
    return (t - mixture).square().sum() / t.square().sum().clamp_min(torch.finfo(t.dtype).tiny)


def nearest_mixture(A: Tensor, t: Tensor, c: Tensor, *, tolerance: float = 1e-4, most: int = 100) -> Tensor:
    r"""The coefficients on the simplex whose mixture of A's columns is nearest to t, by projected gradient from `c`.

    $c \leftarrow \Pi_\Delta (c - \alpha A^T (A c - t))$ with $\alpha = 1 / \|A^T A\|$.

    >>> nearest_mixture(torch.eye(2), torch.tensor([0.9, 0.3]), torch.tensor([0.5, 0.5]))
    tensor([0.8000, 0.2000])
    """
    gram, pull = A.T @ A, A.T @ t
    alpha = 1 / torch.linalg.matrix_norm(gram, ord=2).clamp_min(torch.finfo(A.dtype).tiny)
    for _ in range(most):
        last, c = c, onto_simplex(c - alpha * (gram @ c - pull))
        if (c - last).abs().max() <= tolerance:
            break
    return c


def onto_simplex(v: Tensor) -> Tensor:
    r"""The nearest point with nonnegative entries that sum to 1: $\max(v - \tau, 0)$, `(k,)`.

    Reference: Duchi et al. 2008, "Efficient projections onto the l1-ball for learning in high dimensions", figure 1.

    >>> onto_simplex(torch.tensor([0.75, 0.75, -1.0]))
    tensor([0.5000, 0.5000, 0.0000])
    """
    excess = v.sort(descending=True)[0].cumsum(0) - 1
    tau = (excess / torch.arange(1, len(v) + 1, dtype=v.dtype, device=v.device)).max()
    return (v - tau).clamp_min(0)


def check_targeted(
    data: Dataset,
    x_target: Tensor,
    wanted: int,
    models: Sequence[nn.Module],
    *,
    eps: float,
    steps: int,
    step_size: float,
    progress: bool,
) -> None:
    """The arguments that targeted attacks share: one image of the data's kind, a class, models that can read them."""
    check_images(x_target, "x_target")
    check_like("x_target", x_target, data.x_train[:1])
    check_count("wanted", wanted, low=0)
    check_number("wanted", wanted, low=0, high=data.num_classes - 1)
    check_ball(x_target, eps, "linf")
    check_count("steps", steps)
    check_number("step_size", step_size, low=0, exclusive=True)
    check_flag("progress", progress)
    if not isinstance(models, Sequence) or not models:
        raise ValueError(f"models is {describe(models)}; accepted: a list of at least one model")
    for model in models:
        check_model(model, x_target)
        logits_of(model, x_target, torch.tensor([wanted], device=x_target.device))

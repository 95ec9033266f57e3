"""Gradient matching: clean-label poisons that move the weights as the target with a wrong label would."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from tqdm.auto import tqdm

from spai_lab.attacks.poisoning.collision import check_targeted
from spai_lab.attacks.poisoning.poisoned import Poisoned, budget, drawn, replaced
from spai_lab.checks import check_callable, check_count
from spai_lab.data import Dataset
from spai_lab.threat import fresh_generator, project, random_point
from spai_lab.training.recipes import Perturbation


def gradient_matching(
    data: Dataset,
    x_target: Tensor,
    wanted: int,
    *,
    models: Sequence[nn.Module],
    fraction: float,
    eps: float,
    steps: int = 250,
    step_size: float | None = None,
    restarts: int = 8,
    augment: Perturbation | None = None,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> Poisoned:
    r"""Witches' brew: training on the poisons takes the very steps that teach the target's wrong label.

    $\min_\Delta B(\Delta), \quad B(\Delta) = 1 - \frac{\langle g_t, g_p(\Delta) \rangle}{\|g_t\| \|g_p(\Delta)\|}$
    with $g_t = \nabla_\theta L(f(t), y_w)$, $g_p(\Delta) = \frac{1}{P} \sum_i \nabla_\theta L(f(x_i + \Delta_i), y_w)$,
    $y_w$ the wanted class and $\|\Delta_i\|_\infty \le \epsilon$; over several models the mean of their B.

    Args:
        data: whose training part is poisoned.
        x_target: the image t to be misread, `(1, C, H, W)` in [0, 1], of the data's dtype.
        wanted: the class it shall get, 0 to K - 1; the poisons are of this class, and keep their labels.
        models: surrogates trained on clean data, at least one, `(N, C, H, W)` in [0, 1] to logits `(N, K)`; they do not
            change. Models stopped at different epochs stand for a training that passes through all of them.
        fraction: of the training inputs to poison, above 0.
        eps: how far a pixel of a poison may be from its base, in pixel units of [0, 1].
        steps: M, of Adam on the sign of the gradient; its step falls tenfold after 3/8, 5/8 and 7/8 of them.
        step_size: first step, in pixel units, above 0; None takes `eps / 5`.
        restarts: R, random starts; the poisons with the least B are taken.
        augment: `(model, x, y, generator=...) -> x`, differentiable, such as `Shift(1)`: what the victim's training
            does to its batches.
        generator: draws bases, starts and augmentation; None draws a fresh one.
        progress: show a bar.
    Returns:
        the training set with poisons in place of their bases.
    Raises:
        ValueError: names the argument.
    Reference: Geiping et al. 2020, arXiv 2009.02276, equation 3 and algorithm 1.
    Survey: poisoning, targeted.
    Simplified: one target, one batch of poisons; surrogates are not trained anew while the poisons form. The step size
        follows `eps`, the paper's is a number for its own normalization.

    >>> from spai_lab.data import load
    >>> from spai_lab.training import reference
    >>> data, models = load("digits"), [reference("mlp", "digits")]
    >>> draw = torch.Generator().manual_seed(0)
    >>> attack = {"fraction": 0.01, "eps": 0.3, "steps": 5, "restarts": 1, "progress": False, "generator": draw}
    >>> gradient_matching(data, data.x_val[:1], 3, models=models, **attack)
    Poisoned: 10 of 1078 training inputs
    """
    first = 1.0 if step_size is None else step_size
    check_targeted(data, x_target, wanted, models, eps=eps, steps=steps, step_size=first, progress=progress)
    check_count("restarts", restarts)
    if augment is not None:
        check_callable("augment", augment)
    tau = eps / 5 if step_size is None else step_size
    generator = fresh_generator(generator, data.x_train.device)
    places = drawn(data.y_train == wanted, budget(data, fraction), generator)
    base, y = data.x_train[places], data.y_train[places]
    g_t = [weight_gradient(model, x_target, y[:1]) for model in models]
    best, least = base, math.inf
    bar = tqdm(total=restarts * steps, desc="gradient matching", unit="step", disable=not progress)
    for _ in range(restarts):
        x = random_point(base, eps, "linf", generator).requires_grad_()
        adam = torch.optim.Adam([x], lr=tau)
        milestones = [math.ceil(share * steps) for share in (3 / 8, 5 / 8, 7 / 8)]
        fall = torch.optim.lr_scheduler.MultiStepLR(adam, milestones, gamma=0.1)
        for _ in range(steps):
            with torch.enable_grad():
                seen = x if augment is None else augment(None, x, y, generator=generator)
                x.grad = torch.autograd.grad(mismatch(models, seen, y, g_t), x)[0].sign()
            adam.step()
            fall.step()
            x.detach().copy_(project(x, base, eps, "linf"))
            bar.update()
        B = mismatch(models, x.detach(), y, g_t).item()
        if least > B:
            best, least = x.detach(), B
        bar.set_postfix(B=f"{least:.3f}", refresh=False)
    bar.close()
    return replaced(data, places, best, y)


def mismatch(models: Sequence[nn.Module], x: Tensor, y: Tensor, g_t: Sequence[Tensor]) -> Tensor:
    """B: 1 less the cosine between the mean gradient of the poisons and the target's, averaged over the models."""
    cosines = [
        F.cosine_similarity(weight_gradient(model, x, y), g, dim=0) for model, g in zip(models, g_t, strict=True)
    ]
    return 1 - sum(cosines) / len(cosines)


def weight_gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    r"""$\nabla_\theta \frac{1}{P} \sum_i L(f_\theta(x_i), y_i)$ as one vector; differentiable in `x` if `x` is.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))
    >>> nn.init.zeros_(model[1].weight)
    Parameter containing:
    tensor([[0.],
            [0.]], requires_grad=True)
    >>> weight_gradient(model, torch.ones(1, 1, 1, 1), torch.tensor([0]))
    tensor([-0.5000,  0.5000])
    """
    theta = {name: weight.detach().requires_grad_() for name, weight in model.named_parameters()}
    with torch.enable_grad():
        loss = F.cross_entropy(functional_call(model, theta, (x,)), y)
        slopes = torch.autograd.grad(loss, list(theta.values()), create_graph=x.requires_grad)
    return torch.cat([slope.flatten() for slope in slopes])

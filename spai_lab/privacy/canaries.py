r"""Canaries for an audit: what an adversary puts into the data of DP-SGD, and how it scores what comes out.

The strongest puts in a gradient and sees every step; a weaker one puts in an image, and sees every step of the trainer
itself or the last weights alone.
"""

import math
from collections.abc import Callable
from copy import deepcopy
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from spai_lab.attacks.poisoning.influence import last_layer
from spai_lab.checks import (
    check_callable,
    check_classes,
    check_count,
    check_images,
    check_labels,
    check_like,
    check_number,
    describe,
)
from spai_lab.privacy.dp_audit import Run
from spai_lab.privacy.dp_sgd import per_example_gradients, poisson_batches, private_gradient
from spai_lab.privacy.per_example import Gradients, check_examples, trained_parameters

LONG = 1e3  # the canary's gradient before clipping, in units of all others together: what does not clip it shows


def gradient_canary(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    noise_multiplier: float,
    clip: float = 1.0,
    sampling_rate: float = 1.0,
    steps: int = 1,
    learning_rate: float = 0.0,
    score: Callable[[np.ndarray], float] | None = None,
    gradient: Callable[..., Gradients] = private_gradient,
    batches: Callable = poisson_batches,
) -> Run:
    r"""Runs of DP-SGD before the strongest adversary: it puts in a gradient of its own and sees every noisy gradient.

    The canary's gradient always points along a unit vector v and is far longer than the clip. With $\tilde g_t$ what
    `gradient` releases, $s_t = \frac{q N}{C} v^\top \tilde g_t$ is $b_t + \sigma z_t$, $z_t \sim N(0, 1)$, where $b_t$
    says whether the canary was in the batch. The score is the log of the likelihood ratio,
    $\sum_t \log\left(1 - q + q e^{(2 s_t - 1) / 2 \sigma^2}\right)$, and of correct code no other tells more; at
    $q = 1$ it orders runs as $\sum_t s_t$ does, and the mechanism is Gaussian with $\mu = \sqrt{T} / \sigma$.
    v shifts the biases of all logits alike. That changes no loss, so no other example has a gradient along v.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`, the output of an `nn.Linear` with bias.
        x: the other examples, floating point `(N, C, H, W)` in [0, 1], N at least 1.
        y: their labels `(N,)`, int64.
        noise_multiplier: $\sigma$, in units of `clip`, above 0.
        clip: C, above 0.
        sampling_rate: q in (0, 1].
        steps: T, at least 1.
        learning_rate: of the steps, at least 0. The guarantee holds at any rate. At 0 the weights stay, so the
            per-example gradients are computed once; above 0 at every step, for all examples.
        score: from the `s_t`, `(T,)`, to a number; None takes the likelihood ratio.
        gradient: the code under audit, called as `private_gradient`; a planted bug goes here...
        batches: ...or here: called as `poisson_batches(n, sampling_rate, steps, generator)`; the canary is n - 1.
    Returns:
        `run(inside, generator)` for `dp_audit`, one record added or removed. The batch size that is expected, $q N$,
        is the same with the canary and without it, as it must be: it is public.
    Raises:
        ValueError: names the argument.
    Reference: Nasr 2021, arXiv 2101.04535 (gradient attack); Nasr 2023, arXiv 2302.07956 (Dirac canary).
    Simplified: the other examples are usual ones, not the adversary's. So batches of one size from a shuffled pass look
        much like Poisson's; what they give away needs worse neighbors or more runs (Chua 2024, arXiv 2403.17673).

    >>> from spai_lab.models import softmax_regression
    >>> x, y = torch.rand(5, 1, 2, 2), torch.tensor([0, 1, 0, 1, 0])
    >>> run = gradient_canary(softmax_regression((1, 2, 2), 2), x, y, noise_multiplier=0.01)
    >>> run(True, torch.Generator().manual_seed(0)) > 0 > run(False, torch.Generator().manual_seed(0))
    True
    """
    check_others(model, x, y)
    check_number("noise_multiplier", noise_multiplier, low=0, exclusive=True)
    check_number("clip", clip, low=0, exclusive=True)
    check_number("sampling_rate", sampling_rate, low=0, high=1, exclusive=True)
    check_count("steps", steps)
    check_number("learning_rate", learning_rate, low=0)
    for name, hook in (("gradient", gradient), ("batches", batches)):
        check_callable(name, hook)
    if score is None:
        score = partial(likelihood_ratio, sampling_rate=sampling_rate, noise_multiplier=noise_multiplier)
    check_callable("score", score)
    model = deepcopy(model)
    biases, v = shift_of_all_logits(model)
    expected_batch = sampling_rate * len(x)

    def rows(model: nn.Module) -> Gradients:
        others = per_example_gradients(model, x, y)
        canary = {name: torch.zeros_like(g[:1]) for name, g in others.items()}
        canary[biases] += LONG * len(x) * clip * v
        return {name: torch.cat([others[name], canary[name]]) for name in others}

    first = rows(model)

    def run(inside: bool, generator: torch.Generator) -> float:
        moving = deepcopy(model) if learning_rate else model
        g, s = first, []
        for batch in batches(len(x) + inside, sampling_rate, steps, generator):
            noisy = gradient(
                {name: part[batch] for name, part in g.items()},
                clip=clip,
                noise_multiplier=noise_multiplier,
                expected_batch=expected_batch,
                generator=generator,
            )
            s.append((noisy[biases] @ v).item() * expected_batch / clip)
            if learning_rate:
                with torch.no_grad():
                    for name, parameter in trained_parameters(moving).items():
                        parameter -= learning_rate * noisy[name]
                g = rows(moving)
        return float(score(np.array(s)))

    return run


def likelihood_ratio(s: np.ndarray, *, sampling_rate: float, noise_multiplier: float) -> float:
    r"""$\sum_t \log\left(1 - q + q e^{(2 s_t - 1) / 2 \sigma^2}\right)$: with the canary against without it.

    >>> likelihood_ratio(np.array([1.0]), sampling_rate=1.0, noise_multiplier=0.5)
    2.0
    """
    absent = math.log1p(-sampling_rate) if sampling_rate < 1 else -math.inf
    present = math.log(sampling_rate) + (2 * s - 1) / (2 * noise_multiplier**2)
    return float(np.logaddexp(absent, present).sum())


def shift_of_all_logits(model: nn.Module) -> tuple[str, Tensor]:
    """The name of the biases of the logits, and the unit vector `(K,)` that raises them all alike."""
    bias = last_layer(model).bias
    name = next((name for name, parameter in trained_parameters(model).items() if parameter is bias), None)
    if name is None:
        raise ValueError("model has no trained bias in its last layer; accepted: an nn.Linear that gives the logits")
    return name, torch.full_like(bias, len(bias) ** -0.5).detach()


def input_canary(
    model: nn.Module, x: Tensor, y: Tensor, x_canary: Tensor, y_canary: Tensor, train: Callable[..., object]
) -> Run:
    r"""Runs of a whole private training before a weaker adversary: it adds one labeled image and sees the last weights.

    The score is $-L(f_\theta(x_c), y_c)$: a model that was trained on the canary has less loss there.

    Args:
        model: the weights that training starts from, which the adversary knows; not changed.
        x: the other inputs `(N, C, H, W)` in [0, 1], N at least 1.
        y: their labels `(N,)`, int64.
        x_canary: one input, such as a blank image, `(1, C, H, W)` in [0, 1].
        y_canary: its label `(1,)`, int64, best one that no other input suggests.
        train: `train(model, x, y, generator=generator)` trains in place: `dp_sgd`, with the rest set by `partial`.
    Returns:
        `run(inside, generator)` for `dp_audit`, one record added or removed.
    Raises:
        ValueError: names the argument.
    Reference: Jagielski 2020, arXiv 2006.07709 (poisoned inputs); Nasr 2021, arXiv 2101.04535.
    Simplified: a canary that is given, where Jagielski crafts one that survives clipping. Where `train` does not fix
        the `expected_batch`, it also tells N from N + 1; the score hardly sees that.
    """
    check_input_canary(model, x, y, x_canary, y_canary, train)
    model = deepcopy(model)
    with_canary = torch.cat([x, x_canary]), torch.cat([y, y_canary])

    def run(inside: bool, generator: torch.Generator) -> float:
        trained = deepcopy(model)
        train(trained, *(with_canary if inside else (x, y)), generator=generator)
        with torch.no_grad():
            return -F.cross_entropy(trained.eval()(x_canary), y_canary).item()

    return run


def weights_canary(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    x_canary: Tensor,
    y_canary: Tensor,
    train: Callable[..., object],
    *,
    score: Callable[[np.ndarray], float] = np.sum,
) -> Run:
    r"""Runs of a whole private training whose adversary adds one labeled image and sees the weights after every step.

    That is all that the guarantee of `dp_sgd` covers, from `dp_sgd` itself. With v the unit vector along the canary's
    gradient at the first weights, $s_t = v^\top (\theta_{t - 1} - \theta_t)$. Let the canary light a pixel that is 0 in
    all others, and nothing else, and the model be linear, without bias: then nobody else's gradient has a part along v.
    With two classes the canary's always points along v, and where it is clipped,
    $s_t = \frac{\eta C}{B} (b_t + \sigma z_t)$, $z_t \sim N(0, 1)$, where $b_t$ says whether it was drawn. So the sum
    reaches as far as `gradient_canary` at $q = 1$: the mechanism is Gaussian with $\mu = \sqrt{T} / \sigma$.

    Args:
        model, x, y, x_canary, y_canary: as `input_canary`.
        train: as `input_canary`; it must move the weights by a `torch.optim` optimizer, without momentum.
        score: from the `s_t`, `(T,)`, to a number.
    Returns:
        `run(inside, generator)` for `dp_audit`, one record added or removed.
    Raises:
        ValueError: names the argument; `train` too, if it takes no step.
    Reference: Nasr 2023, arXiv 2302.07956 (gradients of inputs as canaries, white box).
    Simplified: on other models than the one above the bound is valid, and weaker: v turns with the weights, and other
        examples move them along it.

    >>> from spai_lab.privacy.dp_sgd import dp_sgd
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    >>> x, x_canary = torch.tensor([[0.9, 0.0], [0.1, 0.0]]).view(2, 1, 1, 2), torch.tensor([[[[0.0, 1.0]]]])
    >>> settings = {"clip": 0.1, "sampling_rate": 1.0, "steps": 3, "learning_rate": 0.1, "expected_batch": 2}
    >>> train = partial(dp_sgd, **settings, noise_multiplier=0.01, delta_dp=0.01, progress=False)
    >>> run = weights_canary(model, x, torch.tensor([0, 1]), x_canary, torch.tensor([0]), train)
    >>> run(True, torch.Generator().manual_seed(0)) > 0.01 > run(False, torch.Generator().manual_seed(0))
    True
    """
    check_input_canary(model, x, y, x_canary, y_canary, train)
    check_callable("score", score)
    model = deepcopy(model)
    with_canary = torch.cat([x, x_canary]), torch.cat([y, y_canary])
    g = flat(per_example_gradients(deepcopy(model).eval(), x_canary, y_canary))
    v = g / g.norm()

    def run(inside: bool, generator: torch.Generator) -> float:
        trained = deepcopy(model)
        theta = trained_parameters(trained)
        seen = [flat(theta)]

        def look(optimizer: torch.optim.Optimizer, *_: object) -> None:
            moved = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
            if any(id(parameter) in moved for parameter in theta.values()):
                seen.append(flat(theta))

        handle = register_optimizer_step_post_hook(look)
        try:
            train(trained, *(with_canary if inside else (x, y)), generator=generator)
        finally:
            handle.remove()
        if len(seen) == 1:
            raise ValueError(
                f"train is {describe(train)}, which takes no step of an optimizer; accepted: such as dp_sgd"
            )
        return float(score(-(torch.stack(seen).diff(dim=0) @ v).double().numpy()))

    return run


def flat(theta: Gradients) -> Tensor:
    """All numbers of weights or gradients as one vector, a copy."""
    return torch.cat([part.detach().flatten() for part in theta.values()])


def check_input_canary(
    model: nn.Module, x: Tensor, y: Tensor, x_canary: Tensor, y_canary: Tensor, train: Callable[..., object]
) -> None:
    """Raise `ValueError` unless the canary is one more example for the model, and there is a training to call."""
    check_others(model, x, y)
    check_images(x_canary, "x_canary")
    check_like("x_canary", x_canary, x[:1])
    check_labels(y_canary, x_canary, "y_canary")
    with torch.no_grad():
        check_classes(y_canary, deepcopy(model).eval()(x_canary), "y_canary")
    check_callable("train", train)


def check_others(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """Raise `ValueError` unless there are examples, with labels, that the model takes."""
    check_examples(model, x, y)
    if len(x) == 0:
        raise ValueError(f"x is {describe(x)}; accepted: at least one input")

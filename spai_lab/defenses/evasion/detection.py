r"""What detectors share: a threshold at a false positive rate, and the attack that knows detector and threshold.

A detector maps inputs `(N, C, H, W)` to scores `(N,)`, higher for what is more suspicious; it rejects an input whose
score is above its threshold. An attacker succeeds only where the model is fooled and no detector rejects the input.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from spai_lab.checks import (
    check_attack,
    check_callable,
    check_count,
    check_images,
    check_inputs,
    check_number,
    check_steps,
    describe,
)
from spai_lab.metrics import Rate
from spai_lab.threat import (
    Gradient,
    fooled,
    fresh_generator,
    input_gradient,
    logits_of,
    margin,
    project,
    random_point,
    steepest,
    values_and_gradients,
)

Detector = Callable[[Tensor], Tensor]


@torch.no_grad()
def scored(detector: Detector, x: Tensor, *, batch_size: int = 500) -> Tensor:
    """What a detector says of many inputs, batch by batch and without a gradient.

    Args:
        detector: inputs `(N, C, H, W)` in [0, 1] to scores `(N,)`.
        x: inputs `(N, C, H, W)` in [0, 1], N at least 1.
        batch_size: inputs at a time.
    Returns:
        the scores `(N,)`.
    Raises:
        ValueError: names the argument; the detector does not answer with one finite score for each input.

    >>> scored(lambda x: x.flatten(1).sum(1), torch.ones(3, 1, 2, 2), batch_size=2)
    tensor([4., 4., 4.])
    """
    check_callable("detector", detector)
    check_images(x)
    check_count("batch_size", batch_size)
    if len(x) == 0:
        raise ValueError(f"x is {describe(x)}; accepted: at least one input")
    scores = []
    for part in x.split(batch_size):
        score = detector(part)
        check_scores("what detector returns", score, len(part))
        scores.append(score)
    return torch.cat(scores)


def threshold_at(scores_clean: Tensor, fpr: float) -> float:
    r"""The lowest of the clean scores above which at most a share `fpr` of them lies.

    With the n scores in falling order, $t = s_{(\lfloor n \, \mathrm{FPR} \rfloor + 1)}$: at most
    $\lfloor n \, \mathrm{FPR} \rfloor$ of them are greater. An input is rejected if its score is greater than t.

    Args:
        scores_clean: a detector's scores of clean validation inputs, `(n,)`, finite, n at least 1.
        fpr: the false positive rate, at least 0, below 1.
    Returns:
        the threshold t.
    Raises:
        ValueError: names the argument.

    >>> threshold_at(torch.arange(100.0), 0.05)
    94.0
    """
    check_scores("scores_clean", scores_clean)
    check_number("fpr", fpr, low=0, high=1)
    if fpr == 1:
        raise ValueError("fpr is 1; accepted: below 1, or every input is rejected")
    rejected = math.floor(fpr * len(scores_clean) + 1e-9)
    return scores_clean.sort(descending=True).values[rejected].item()


def evading(detectors: Sequence[Detector], thresholds: Sequence[float], *, weight: float = 0.0) -> Gradient:
    r"""The gradient of an attacker who knows the detectors: fool the model, and stay below the thresholds.

    With the lead of a wrong class, $h_0(x) = \max_{i \ne y} z_i - z_y$, what each detector still tolerates,
    $h_j(x) = t_j - s_j(x)$, and unit gradients $u_j = \nabla h_j / \|\nabla h_j\|_2$:
    $g(x) = [h_0 \le 0] \, u_0 + w(x) \sum_j [h_j < 0] \, u_j$, with $w = \lambda$ until the model is fooled, and 1
    from then on. Only what is not yet reached pulls; where all is reached the gradient is zero and the image stays.

    $\lambda = 0$ looks to the detectors only once the model is fooled: selective projected gradient descent.

    Args:
        detectors: each from inputs to scores `(N,)`, differentiable; of a masked detector its view.
        thresholds: the score above which each of them rejects.
        weight: $\lambda$, at least 0: the pull of the detectors until the model is fooled; 0 ignores them till then.
    Returns:
        `(model, x, y) -> gradient`, for the `gradient` argument of attacks, with true labels `y` and without a target.
        An image that evades before the first step makes them warn of its zero gradient; `evade` leaves such images
        out.
    Raises:
        ValueError: names the argument; in the attack: a score has no finite gradient.
    Reference: Carlini and Wagner 2017, arXiv 1705.07263, for one loss of model and detector;
        Bryniarski et al. 2021, arXiv 2106.15023, section 4, for the selection.
    Survey: defenses against evasion, detection.
    Simplified: unit gradients take the place of a search for the constant between loss and scores; of the two attacks
        of 2021 the orthogonal one is left out.

    >>> hook = evading([lambda x: x.flatten(1)[:, 0]], [0.5])
    >>> hook(nn.Flatten(), torch.tensor([[[[0.6, 0.9]]], [[[0.4, 0.3]]]]), torch.tensor([0, 0])).flatten(1)
    tensor([[-1.0000,  0.0000],
            [-0.7071,  0.7071]])
    """
    check_detectors(detectors, thresholds)
    check_number("weight", weight, low=0)

    def gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        def goals(x: Tensor) -> Tensor:
            tolerated = [t - detector(x) for detector, t in zip(detectors, thresholds, strict=True)]
            return torch.stack([-margin(logits_of(model, x, y), y), *tolerated], 1)

        h, slopes = values_and_gradients(goals, x)
        unfooled, rejected = h[:, :1] <= 0, h[:, 1:] < 0
        pull = torch.cat([unfooled.to(x.dtype), rejected * torch.where(unfooled, weight, 1.0)], 1)
        u = steepest(slopes.flatten(0, 1), "l2").view_as(slopes)
        return torch.einsum("nm,nm...->n...", pull.to(x.dtype), u)

    return gradient


def evade(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    detectors: Sequence[Detector],
    thresholds: Sequence[float],
    *,
    eps: float,
    norm: str = "linf",
    steps: int = 100,
    step_size: float | None = None,
    restarts: int = 1,
    weight: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Projected gradient descent against a model and its detectors at once.

    $x_{k+1} = \Pi_{B(x, \epsilon)}\left(x_k + \alpha_k \, d(g(x_k))\right)$ with the gradient g of `evading`, d the
    steepest direction of the norm, $\alpha_k = \alpha (1 - k / \mathrm{steps})$, and $x_0$ drawn from the ball. Steps
    that shrink settle between the model's boundary and the threshold, where equal steps jump to and fro. An image that
    fools the model and passes the detectors moves no more.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        x: clean inputs, floating point `(N, C, H, W)` in [0, 1].
        y: true labels `(N,)`, int64.
        detectors: each from inputs to scores `(N,)`, differentiable; of a masked detector its view.
        thresholds: the score above which each of them rejects.
        eps: radius of the ball, in pixel units of [0, 1].
        norm: "linf" or "l2".
        steps: number of steps, at least 1.
        step_size: alpha, the first step, in pixel units, above 0; None takes `eps / 2`.
        restarts: how often to try; each try takes the inputs that do not evade yet.
        weight: the pull of the detectors while the model is not fooled, as in `evading`.
        generator: source of the random starts; None draws a fresh one.
    Returns:
        `x_adv`, like `x`, in [0, 1] and within `eps` of `x`; an input that evades by itself is returned as it is.
    Raises:
        ValueError: an argument is out of its range; names it.
    Reference: Bryniarski et al. 2021, arXiv 2106.15023, section 4; as for `evading`.
    Survey: defenses against evasion, detection.
    Simplified: as for `evading`.

    >>> x, y = torch.tensor([[[[0.6, 0.5]]]]), torch.tensor([0])
    >>> def brightest(x):
    ...     return x.flatten(1).amax(1)
    >>> x_adv = evade(nn.Flatten(), x, y, [brightest], [0.55], eps=0.2)
    >>> evades(nn.Flatten(), x, y, [brightest], [0.55]), evades(nn.Flatten(), x_adv, y, [brightest], [0.55])
    (tensor([False]), tensor([True]))
    """
    check_attack(model, x, y, eps=eps, norm=norm, targeted=False, gradient=input_gradient, generator=generator)
    check_steps(steps, step_size)
    check_count("restarts", restarts)
    gradient = evading(detectors, thresholds, weight=weight)
    alpha = eps / 2 if step_size is None else step_size
    generator = fresh_generator(generator, x.device)

    def climb(x: Tensor, y: Tensor) -> Tensor:
        x_adv = random_point(x, eps, norm, generator)
        for k in range(steps):
            g = gradient(model, x_adv, y)
            if not g.any():
                break
            x_adv = project(x_adv + alpha * (1 - k / steps) * steepest(g, norm), x, eps, norm)
        return x_adv

    x_adv = x.detach().clone()
    for _ in range(restarts):
        standing = ~evades(model, x_adv, y, detectors, thresholds)
        if not standing.any():
            break
        x_adv[standing] = climb(x[standing], y[standing])
    return x_adv


def evades(
    model: nn.Module, x_adv: Tensor, y: Tensor, detectors: Sequence[Detector], thresholds: Sequence[float]
) -> Tensor:
    """Which inputs fool the model with a score at or below the threshold of every detector.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        x_adv: inputs `(N, C, H, W)` in [0, 1].
        y: true labels `(N,)`, int64.
        detectors: each from inputs to scores `(N,)`.
        thresholds: the score above which each of them rejects.
    Returns:
        bool `(N,)`.
    Raises:
        ValueError: names the argument.

    >>> x_adv = torch.tensor([[[[0.1, 0.2]]], [[[0.1, 0.9]]], [[[0.9, 0.1]]]])
    >>> evades(nn.Flatten(), x_adv, torch.tensor([0, 0, 0]), [lambda x: x.flatten(1).amax(1)], [0.5])
    tensor([ True, False, False])
    """
    check_inputs(model, x_adv, y)
    check_detectors(detectors, thresholds)
    through = fooled(model, x_adv, y)
    for detector, t in zip(detectors, thresholds, strict=True):
        if len(x_adv):
            through &= scored(detector, x_adv) <= t
    return through


def evasion_rate(
    model: nn.Module, x_adv: Tensor, y: Tensor, detectors: Sequence[Detector], thresholds: Sequence[float]
) -> Rate:
    """How many inputs fool the model and pass every detector: what an attack on both has achieved.

    Args:
        model: `(N, C, H, W)` in [0, 1] to logits `(N, K)`.
        x_adv: adversarial inputs `(N, C, H, W)` in [0, 1], N at least 1.
        y: true labels `(N,)`, int64.
        detectors: each from inputs to scores `(N,)`; the detectors themselves, not what the attacker climbed.
        thresholds: the score above which each of them rejects.
    Returns:
        the rate among all inputs, with its interval.
    Raises:
        ValueError: names the argument.

    >>> x_adv = torch.tensor([[[[0.1, 0.2]]], [[[0.1, 0.9]]]])
    >>> evasion_rate(nn.Flatten(), x_adv, torch.tensor([0, 0]), [lambda x: x.flatten(1).amax(1)], [0.5]).hits
    1
    """
    through = evades(model, x_adv, y, detectors, thresholds)
    if len(x_adv) == 0:
        raise ValueError(f"x_adv is {describe(x_adv)}; accepted: at least one input")
    return Rate(int(through.sum()), len(x_adv))


def check_scores(name: str, scores: Tensor, count: int | None = None) -> None:
    """Raise `ValueError` unless `scores` are finite numbers, `count` of them or at least one."""
    size = "N" if count is None else count
    shaped = isinstance(scores, Tensor) and scores.is_floating_point() and scores.ndim == 1 and len(scores) > 0
    if not shaped or count not in (None, len(scores)):
        raise ValueError(f"{name} is {describe(scores)}; accepted: floating point scores ({size},), at least one")
    if not scores.isfinite().all():
        raise ValueError(f"{name} holds NaN or infinite scores; accepted: finite scores ({size},)")


def check_detectors(detectors: Sequence[Detector], thresholds: Sequence[float]) -> None:
    """Raise `ValueError` unless there are detectors, and one threshold for each."""
    if not isinstance(detectors, list | tuple) or not detectors:
        raise ValueError(f"detectors is {describe(detectors)}; accepted: a list of at least one detector")
    for detector in detectors:
        check_callable("detectors", detector)
    if not isinstance(thresholds, list | tuple) or len(thresholds) != len(detectors):
        raise ValueError(
            f"thresholds is {describe(thresholds)}; accepted: a list of {len(detectors)}, one per detector"
        )
    for threshold in thresholds:
        check_number("thresholds", threshold)
